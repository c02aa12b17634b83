"""What the research store gives and takes of events, calls to models, drift, provenance and live returns.

Promises, like the messages of :mod:`core.types`, that a record that exists is valid: a naive time, a number that is not finite
or JSON larger than its column is refused when the record is built, and the error names the field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from core.message import Message, Rule
from core.store.trading_records import MAX_JSON_BYTES
from core.types import Count, Identifier, Return


def _fits(value: Mapping[str, Any]) -> bool:
    return len(json.dumps(dict(value), ensure_ascii=False).encode()) <= MAX_JSON_BYTES


Json = Annotated[
    Mapping[str, Any], Rule(expected=f"at most {MAX_JSON_BYTES} bytes of JSON (store a file, name it)", holds=_fits)
]
Sha256 = Annotated[
    str, Rule(expected="64 hexadecimal digits", holds=lambda text: re.fullmatch("[0-9a-f]{64}", text) is not None)
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Event(Message):
    """Something that happened in the world: a filing, a ruling, a figure.

    Parameters
    ----------
    symbol : str, optional
        Whom it concerns, as the data sets call it; None for everybody.
    occurred_at : datetime
        UTC; a scheduled event may be known before.
    known_at : datetime
        UTC; when it could first be read. Nothing may use it before.
    """

    kind: Identifier
    symbol: Identifier | None = None
    occurred_at: datetime
    known_at: datetime
    payload: Json
    source_url: Identifier | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LlmCall(Message):
    """A call to a language model as text, for a replay that returns the same bits.

    Parameters
    ----------
    run_id : UUID, optional
        None for a call outside of any run.
    ordinal : int, default=0
        Which asking of the same request in the run this was.
    """

    run_id: UUID | None
    request_sha256: Sha256
    ordinal: Count = 0
    request: str
    response: str
    model: Identifier
    tokens: Count


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftEvent(Message):
    """A metric that left its bounds; `trigger_type` names the rule that saw it."""

    metric: Identifier
    trigger_type: Identifier
    triggered_at: datetime
    details: Json = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProvenanceEvent(Message):
    """Where an artifact or a fetched item came from, and what read it."""

    source: Identifier
    source_url: Identifier | None = None
    payload: Json = field(default_factory=dict)
    artifact_sha256: Sha256 | None = None
    parser_version: Identifier


@dataclass(frozen=True, kw_only=True, slots=True)
class LivePerformance(Message):
    """Return of a live strategy over the period that ends at `ts`, as fractions, beside what the backtest expected."""

    strategy_id: Identifier
    ts: datetime
    expected_return: float
    realised_return: Return
    details: Json = field(default_factory=dict)
