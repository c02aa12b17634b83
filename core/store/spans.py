"""One span for every verb of a gateway, named and attributed by OpenTelemetry's semantic conventions for databases.

Hides how a verb's answer becomes a count of rows. Both gateways wear :func:`traced`, so that a slow or failing table is found
in the same words whatever carries its rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from opentelemetry.trace import SpanKind

from core import telemetry
from core.errors import AQFError

SYSTEM = "db.system.name"
OPERATION = "db.operation.name"
TABLE = "db.collection.name"
FUNCTION = "db.stored_procedure.name"
STATUS_CODE = "db.response.status_code"
RETURNED_ROWS = "db.response.returned_rows"
WRITTEN_ROWS = "aqf.rows"

_VERBS = ("select", "insert", "upsert", "update", "delete", "rpc")
_ANSWERS_ROWS = ("select", "insert", "update", "rpc")
_WRITES = ("insert", "upsert", "update", "delete")

AnyGateway = TypeVar("AnyGateway")


def traced(gateway: type[AnyGateway]) -> type[AnyGateway]:
    """Make each of the six verbs of a gateway a client span: ``select market_bars``, ``rpc load_panel``.

    Notes
    -----
    Attributes: ``db.system.name``, ``db.operation.name``, ``db.collection.name`` (``db.stored_procedure.name`` of an rpc),
    ``db.response.returned_rows``, ``aqf.rows`` written, ``aqf.milliseconds``, ``aqf.run_id`` within a run; on failure the
    status, ``error.type``, and as ``db.response.status_code`` the SQLSTATE or the code of PostgREST. No values, no conditions,
    no texts.
    """
    for verb in _VERBS:
        setattr(gateway, verb, _traced(verb, getattr(gateway, verb)))
    return gateway


def _traced(verb: str, method: Callable[..., Any]) -> Callable[..., Any]:
    named, parameter = (FUNCTION, "function") if verb == "rpc" else (TABLE, "table")

    @functools.wraps(method)
    def tell(gateway: Any, /, *arguments: Any, **more: Any) -> Any:
        name = str(arguments[0] if arguments else more.get(parameter))
        attributes = {SYSTEM: "postgresql", OPERATION: verb, named: name}
        with telemetry.span(f"{verb} {name}", kind=SpanKind.CLIENT, attributes=attributes) as made:
            try:
                answer = method(gateway, *arguments, **more)
            except AQFError as error:
                code = getattr(error.__cause__, "sqlstate", None) or getattr(error.__cause__, "code", None)
                if isinstance(code, str):
                    made.set_attribute(STATUS_CODE, code)
                raise
            count = answer if isinstance(answer, int) else len(answer)
            if verb in _ANSWERS_ROWS:
                made.set_attribute(RETURNED_ROWS, count)
            if verb in _WRITES:
                made.set_attribute(WRITTEN_ROWS, count)
            return answer

    return tell
