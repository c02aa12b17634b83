"""A case: one signal on its way through the pipeline, and the trace that its way becomes.

Hides how stages, times and figures are collected. Promises that every case ends in a valid trace, whatever was sent in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from agents.brokers.asking import Sent
from agents.trading.ares import OrderPlan
from agents.trading.limits import SizeDecision
from agents.trading.reading import UntimedSignalError, read_signal
from agents.trading.zeus import Verdict
from core.errors import DataError
from core.message import Brief
from core.store.decisions import NewSignal, Screened
from core.telemetry import current_trace_id
from core.types import (
    BindingConstraint,
    DecisionTrace,
    FilteredSignal,
    PipelineStatus,
    RawSignal,
    Refusal,
    Severity,
    SignalCategory,
    SizedSignal,
    Stage,
    StageOutcome,
)

_SIGNAL_NAMES = uuid5(NAMESPACE_URL, "aqf:signal_id")
_TRACE_NAMES = uuid5(NAMESPACE_URL, "aqf:trace_id")
_MOST_RAW = 100_000
_MOST_REASON = 2_000
_UNREADABLE = "(a signal that could not be read)"
# What came is kept nearly whole: the fields of a signal, and what is in them.
_whole = Brief()
_whole.maxlevel, _whole.maxdict, _whole.maxlist = 3, 20, 20
_whole.maxstring = _whole.maxother = 20_000

SignalLike = RawSignal | Mapping[str, Any]
"""What a pipeline takes: a signal, or its fields as JSON has them, which are checked here."""


@dataclass(kw_only=True)
class Case:
    """One signal and what the stages said of it.

    Parameters
    ----------
    given_id : str
        Identity as it was sent in; the store knows it by a UUID, `signal.signal_id`.
    signal : RawSignal
    raw_text : str, optional
        What came, where it could not be read.
    """

    given_id: str
    signal: RawSignal
    raw_text: str | None = None
    symbol: str | None = None
    refusal: Refusal | None = None
    screened: Screened | None = None
    filtered: FilteredSignal | None = None
    sized: SizedSignal | None = None
    decision: SizeDecision | None = None
    verdict: Verdict | None = None
    plan: OrderPlan | None = None
    sent: Sent | None = None
    closes: bool = False
    duplicate: bool = False
    stages: list[StageOutcome] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    trace: DecisionTrace | None = None

    @property
    def is_live(self) -> bool:
        """Whether no stage has refused it yet."""
        return self.refusal is None

    @property
    def size(self) -> float | None:
        """Share of equity at stake as of the last stage that set one."""
        if self.verdict is not None:
            return self.verdict.size
        if self.decision is not None:
            return self.decision.position_size_pct
        return None if self.sized is None else self.sized.position_size_pct

    @property
    def confidence(self) -> float | None:
        """Confidence of the last stage that stated one."""
        if self.verdict is not None:
            return self.verdict.confidence
        return None if self.sized is None else self.sized.confidence

    def passed(self, stage: Stage, note: str = "") -> None:
        """Take down that a stage let it pass."""
        self.stages.append(StageOutcome(stage=stage, passed=True, note=note[:_MOST_REASON]))

    def refuse(self, refusal: Refusal) -> None:
        """Take down that a stage ended its way."""
        self.refusal = refusal
        self.stages.append(StageOutcome(stage=refusal.stage, passed=False, note=refusal.reason[:_MOST_REASON]))

    def took(self, stage: Stage, seconds: float) -> None:
        """Add to the time that a stage took."""
        self.timings[stage.value] = self.timings.get(stage.value, 0.0) + seconds

    def new_signal(self) -> NewSignal:
        """Return the signal as the store takes it, if it is not there."""
        return NewSignal(signal=self.signal, raw_text=self.raw_text)

    def build_trace(self, now: datetime) -> DecisionTrace:
        """Return the record of its way so far; `signal_id` is the store's."""
        refusal, cut = self.refusal, None if self.decision is None else self.decision.constraint
        # A signal has one trace by its identity; that it came again is news each time.
        name = str(uuid4()) if self.duplicate else self.signal.signal_id
        return DecisionTrace(
            trace_id=str(uuid5(_TRACE_NAMES, name)),
            signal_id=self.signal.signal_id,
            symbol=self.symbol,
            decided_at=now,
            status=self._status(),
            stages=tuple(self.stages),
            killed_at_stage=None if refusal is None else refusal.stage,
            kill_reason=None if refusal is None else refusal.reason[:_MOST_REASON],
            binding_constraint=cut if refusal is None else refusal.constraint,
            llm_reasoning=None if self.verdict is None else self.verdict.reasoning,
            confidence=self.confidence,
            position_pct=self.size,
            order_id=None if self.sent is None else self.sent.order_id,
            otel_trace_id=current_trace_id(),
            timings=self.timings,
        )

    def _status(self) -> PipelineStatus:
        if self.refusal is not None:
            return PipelineStatus.KILLED
        if self.sent is None:
            return PipelineStatus.PENDING
        # That it is filled is for its executions to say, which are counted apart.
        filled = self.sent.status in (PipelineStatus.FILLED, PipelineStatus.PARTIALLY_FILLED)
        return PipelineStatus.SUBMITTED if filled else self.sent.status


def open_case(item: object, now: datetime) -> Case:
    """Open a case for whatever was sent in; what is no signal is refused at once.

    Parameters
    ----------
    item : RawSignal or mapping
        A mapping holds the fields of a signal as :func:`agents.trading.reading.read_signal` takes them.
    now : datetime
        UTC.
    """
    try:
        signal = item if isinstance(item, RawSignal) else read_signal(item)  # type: ignore[arg-type]
        json.dumps(signal.to_dict(), ensure_ascii=False).encode()
    except (DataError, UnicodeEncodeError) as error:
        return _unreadable(item, error, now)
    return Case(given_id=signal.signal_id, signal=replace(signal, signal_id=_stored_id(signal.signal_id)))


def refuse_duplicate(case: Case) -> None:
    """Refuse a signal that was decided before; its first trace stays what it was."""
    case.duplicate = True
    reason = f"the signal {case.given_id} was decided before: a signal is decided once"
    case.refuse(Refusal(stage=Stage.HERMES, constraint=BindingConstraint.STALE_SIGNAL, reason=reason))


def _stored_id(given: str) -> str:
    try:
        return given if str(UUID(given)) == given else str(uuid5(_SIGNAL_NAMES, given))
    except ValueError:
        return str(uuid5(_SIGNAL_NAMES, given.encode("utf-8", "replace").decode()))


def _unreadable(item: object, error: Exception, now: datetime) -> Case:
    """Open a case under the identity that came, if one did, with what came kept as text."""
    text = _whole.repr(dict(item) if isinstance(item, Mapping) else item).encode("utf-8", "replace").decode()
    given = item.get("signal_id") if isinstance(item, Mapping) else item.signal_id if isinstance(item, RawSignal) else None
    named = isinstance(given, str) and bool(given.strip()) and "\0" not in given and _encodes(given)
    given_id = str(given) if named else str(uuid5(_SIGNAL_NAMES, text))
    signal = RawSignal(
        # Under the identity of its text: what cannot be read must not take the place of a signal that can.
        signal_id=str(uuid5(_SIGNAL_NAMES, f"unreadable|{given_id}|{text}")),
        headline=_UNREADABLE,
        published_at=now,
        category=SignalCategory.NEUTRAL,
        severity=Severity.LOW,
        affected_tickers=(),
    )
    untimed = isinstance(error, UntimedSignalError)
    constraint = BindingConstraint.STALE_SIGNAL if untimed else BindingConstraint.OUT_OF_UNIVERSE
    case = Case(given_id=given_id, signal=signal, raw_text=text.replace("\0", "?")[:_MOST_RAW])
    reason = f"it cannot be read: {error}".encode("utf-8", "replace").decode().replace("\0", "?")
    case.refuse(Refusal(stage=Stage.HERMES, constraint=constraint, reason=reason[:_MOST_REASON]))
    return case


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
