"""What a process tells about its own work: OpenTelemetry spans and log lines, each with the id of the run it belongs to.

Hides OpenTelemetry's set-up and where the telling goes. Promises that a span carries names, counts and durations, never a row,
a value of a statement, an error's text (Postgres quotes rows in it) or a secret; and that without a place to export to a span
is the no-op of OpenTelemetry's API.
"""

from __future__ import annotations

import importlib
import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from opentelemetry import baggage, context, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from core.errors import ConfigurationError
from core.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

RUN_ID = "aqf.run_id"
MILLISECONDS = "aqf.milliseconds"
ERROR_TYPE = "error.type"

_OUR_LOGGERS = ("core", "features", "backtest", "agents", "use_cases", "aqf")
_EXPORTERS = {
    "http/protobuf": ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "/v1/traces"),
    "grpc": ("opentelemetry.exporter.otlp.proto.grpc.trace_exporter", ""),
}
_EXTRA = "pip install 'agentic-quantitative-framework[telemetry]'"

_tracer = trace.get_tracer("aqf")


@dataclass
class _Exports:
    """What this process exports to; OpenTelemetry itself knows one provider a process."""

    places: set[str] = field(default_factory=set)
    provider: TracerProvider | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


_exports = _Exports()


@contextmanager
def run_scope(run_id: UUID | str) -> Iterator[None]:
    """Mark everything told within as part of one run, which is a span of its own and so one trace.

    Notes
    -----
    The id is OpenTelemetry's baggage, which lives in a context variable: it follows into coroutines, and into those threads
    that are started in a copy of the context, as LangGraph starts its own.
    """
    token = context.attach(baggage.set_baggage(RUN_ID, str(run_id)))
    try:
        with span("run"):
            yield
    finally:
        context.detach(token)


def current_run_id() -> str | None:
    """Return the id of the run that is being worked on here, if there is one."""
    found = baggage.get_baggage(RUN_ID)
    return None if found is None else str(found)


def current_trace_id() -> str | None:
    """Return the id of the trace in which the caller is, 32 hexadecimal digits; None when nothing is traced."""
    here = trace.get_current_span().get_span_context()
    return trace.format_trace_id(here.trace_id) if here.is_valid else None


@contextmanager
def span(name: str, *, kind: SpanKind = SpanKind.INTERNAL, attributes: Mapping[str, str] | None = None) -> Iterator[Span]:
    """Make one span around a piece of work: its run, its milliseconds and, when it fails, the type of the error."""
    run_id = current_run_id()
    known = dict(attributes or {})
    if run_id is not None:
        known[RUN_ID] = run_id
    made = _tracer.start_span(name, kind=kind, attributes=known)
    if not made.is_recording():
        yield made
        return
    begun = time.perf_counter()
    with trace.use_span(made, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield made
        except BaseException as error:
            made.set_attribute(ERROR_TYPE, type(error).__name__)
            made.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            made.set_attribute(MILLISECONDS, round(1000.0 * (time.perf_counter() - begun), 3))


def configure_telemetry(settings: Settings) -> None:
    """Begin to export where the settings say; where they name no place, do nothing.

    Calling it again with the same places changes nothing. An application that has set up OpenTelemetry itself keeps what it
    has: it gets our spans, and `AQF_TRACE_FILE` is added to it.

    Raises
    ------
    ConfigurationError
        If the SDK or the exporter is not installed, or a file cannot be written.
    """
    with _exports.lock:
        if settings.log_file is not None and str(settings.log_file) not in _exports.places:
            _write_log(settings.log_file)
            _exports.places.add(str(settings.log_file))
        if settings.trace_file is not None and str(settings.trace_file) not in _exports.places:
            _export(_to_file(settings.trace_file))
            _exports.places.add(str(settings.trace_file))
        if settings.otlp_endpoint is not None and settings.otlp_endpoint not in _exports.places:
            if _exports.provider is not None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
                _export(_to_collector(settings.otlp_endpoint, settings.otlp_protocol))
            _exports.places.add(settings.otlp_endpoint)


def _export(processor: SpanProcessor) -> None:
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider

    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "aqf"}))
        provider = _exports.provider = TracerProvider(resource=resource)
        trace.set_tracer_provider(provider)
    provider.add_span_processor(processor)


def _to_file(path: Path) -> SpanProcessor:
    try:
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
    except ImportError as error:
        raise ConfigurationError(f"AQF_TRACE_FILE needs OpenTelemetry's SDK: {_EXTRA}, or unset it.") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        out = path.open("a", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"AQF_TRACE_FILE cannot be written: {error}; name a file in a folder of yours.") from error
    # One at a time, so that the file can be read while the work goes on and a killed process has told all it did.
    return SimpleSpanProcessor(ConsoleSpanExporter(out=out, formatter=lambda done: done.to_json(indent=None) + "\n"))


def _to_collector(endpoint: str, protocol: str) -> SpanProcessor:
    module, path = _EXPORTERS[protocol]
    try:
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = importlib.import_module(module).OTLPSpanExporter
    except ImportError as error:
        raise ConfigurationError(
            f"OTEL_EXPORTER_OTLP_ENDPOINT needs OpenTelemetry's SDK and its exporter for {protocol} ({error}): {_EXTRA}, "
            "set OTEL_EXPORTER_OTLP_PROTOCOL to what is installed, or unset it."
        ) from error
    return BatchSpanProcessor(exporter(endpoint=endpoint.rstrip("/") + path))


def _write_log(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"AQF_LOG_FILE cannot be written: {error}; name a file in a folder of yours.") from error
    handler.setFormatter(JsonFormatter())
    for name in _OUR_LOGGERS:
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(logging.INFO)


class JsonFormatter(logging.Formatter):
    """Write a log record as one line of JSON: when, how grave, who, what, in which run and trace, and its `extra`."""

    _STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "run_id": current_run_id(),
            "trace_id": current_trace_id(),
            **{key: value for key, value in vars(record).items() if key not in self._STANDARD},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)
