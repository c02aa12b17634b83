"""A batch: signals that go through the graph together, with what is to be written when they are through."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from agents.trading.case import Case
from core.store.decisions import DecisionBatch
from core.types import MacroContext, Stage


@dataclass(kw_only=True)
class Batch:
    """Signals that go through the graph together.

    Parameters
    ----------
    now : datetime
        Time of every decision in it, UTC.
    cases : list of Case
        As sent in.
    waiting : list of Case
        Those that limits has not judged yet, in their order.
    turn : list of Case
        Those that limits let pass and whose order is not sent yet.
    record : DecisionBatch
        What is to be written when the batch is done.
    """

    now: datetime
    cases: list[Case]
    macro: MacroContext | None = None
    waiting: list[Case] = field(default_factory=list)
    turn: list[Case] = field(default_factory=list)
    record: DecisionBatch = field(default_factory=DecisionBatch)

    @property
    def live(self) -> list[Case]:
        """Signals that no stage has refused."""
        return [case for case in self.cases if case.is_live]


@contextmanager
def timed(case: Case, stage: Stage) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        case.took(stage, time.perf_counter() - began)
