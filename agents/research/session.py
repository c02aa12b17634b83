"""What one run works with: its store, its bars, its rules of judgement. Built at start and again at every resume."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal
from uuid import UUID

import pandas as pd

from agents.research.request import Budget, ResearchRequest
from backtest.config import BacktestConfig
from backtest.splits import WalkForward
from backtest.walkforward import HOLDING_GRID
from core.clock import Clock
from core.errors import ToolFailed, ToolRetry
from core.market.panel import Panel
from core.settings import Settings
from core.store.opening import Store
from core.store.records import Dataset
from features.computable import Computable, resolve
from features.expression import Expression, parse
from features.plugins import PluginFeature, load_plugins
from features.point_in_time import EVENT_COLUMNS, Events

Method = Literal["cross_section", "time_series"]
MIN_CROSS_SECTION = 4
MIN_BARS = 400
MIN_SEALED_BARS = 63


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something a run wants to tell the person who waits for it.

    Parameters
    ----------
    kind : str
        ``started``, ``recalled``, ``planned``, ``tool``, ``judged``, ``reported`` or ``resumed``.
    message : str
        One line in plain words.
    done, total : int
        Trials made and planned, for a progress bar.
    """

    kind: str
    message: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True, kw_only=True)
class BuildingBlock:
    """A promoted feature that an expression may name; `expression` is canonical and names no other."""

    name: str
    expression: str
    hypothesis: str


EventHandler = Callable[[Event], None]


def ignore_event(event: Event) -> None:
    """Tell nobody."""


@dataclass(kw_only=True)
class ResearchSession:
    """Hold what the nodes and tools of one run share; nothing here is saved in a checkpoint.

    Parameters
    ----------
    panel : Panel
        The bars before the seal, loaded as the `researcher`.
    holding_grid : tuple of int, default=(1, 2, 5, 10, 21)
        Holding periods that the walk-forward judgement chooses from.
    building_blocks : tuple of BuildingBlock
        What was promoted when the run began, so that its words mean the same after a crash.
    load_plugins : callable
        Returns the plugin features by name; called when the first of them is named.
    """

    store: Store
    settings: Settings
    clock: Clock
    run_id: UUID
    request: ResearchRequest
    budget: Budget
    dataset: Dataset
    panel: Panel
    config: BacktestConfig = field(default_factory=BacktestConfig)
    holding_grid: tuple[int, ...] = HOLDING_GRID
    emit: EventHandler = ignore_event
    deadline: float = float("inf")
    building_blocks: tuple[BuildingBlock, ...] = ()
    load_plugins: Callable[[], Mapping[str, PluginFeature]] = load_plugins
    _events: dict[datetime, Events] = field(default_factory=dict, repr=False)

    @property
    def lineage(self) -> str:
        """The line of research this run belongs to."""
        return self.request.lineage

    @property
    def method(self) -> Method:
        """How scores become weights: against each other, or each symbol alone where there are too few to compare."""
        return "cross_section" if self.panel.n_assets >= MIN_CROSS_SECTION else "time_series"

    @cached_property
    def splits(self) -> WalkForward:
        """Anchored walk-forward: a year (or a fifth of short data) to begin with, then half-years."""
        min_train = min(252, max(60, self.panel.n_bars // 5))
        return WalkForward(min_train, 126)

    @cached_property
    def plugins(self) -> Mapping[str, PluginFeature]:
        """Plugin features by name."""
        return self.load_plugins()

    def parse(self, text: str) -> Expression:
        """Parse an expression over the columns of the data and the promoted features that the run began with.

        Raises
        ------
        ExpressionError, LookAheadError
            If it cannot be accepted.
        """
        return parse(text, extra=tuple(self.panel.extra), features=self._blocks)

    def resolve(self, text: str) -> Computable:
        """Find what a text of a candidate, a proposal or the registry means: an expression, or ``plugin:NAME``.

        Raises
        ------
        DataError
            If it cannot be accepted, or there is no such plugin.
        ConfigurationError
            If plugins cannot be loaded.
        """
        return resolve(
            text,
            plugins=lambda: self.plugins,
            extra=tuple(self.panel.extra),
            features=self._blocks,
            load_events=self.load_events,
        )

    def load_events(self, as_of: datetime) -> Events:
        """Return what was known at a time: before the seal as the `researcher` sees it, behind it only once it was opened."""
        if as_of not in self._events:
            store = self.store.researcher if as_of < self.dataset.sealed_from else self.store.service
            found = store.load_events(as_of=as_of)
            rows = [(one.kind, one.symbol, one.occurred_at, one.known_at, dict(one.payload)) for one in found]
            ahead = frozenset(one.kind for one in found if one.known_at < one.occurred_at)
            table = pd.DataFrame(rows, columns=[*EVENT_COLUMNS, "payload"])
            self._events[as_of] = Events(table=table, scheduled_kinds=ahead)
        return self._events[as_of]

    @cached_property
    def _blocks(self) -> Mapping[str, str]:
        return {block.name: block.expression for block in self.building_blocks}

    def tried_expressions(self) -> set[str]:
        """Return the hashes of what any run tried on this data set."""
        rows = self.store.researcher.gateway.select(
            "trial_results", columns=("expression_sha256",), where={"family_id": self.dataset.family_id}
        )
        return {row["expression_sha256"] for row in rows}

    def proposed_expressions(self) -> set[str]:
        """Return the hashes of what this run has proposed, accepted or not."""
        calls = self.store.researcher.list_tool_calls(self.run_id)
        expressions = [row["arguments"].get("expression") for row in calls if row["tool"] == "propose_new_feature"]
        return {self.resolve(expression).sha256 for expression in expressions if expression is not None}

    def out_of_time(self) -> bool:
        """Whether the search has used up its seconds."""
        return time.monotonic() > self.deadline

    def run_tool(
        self, tool: str, *, step: int, tool_call_id: str, arguments: Mapping[str, Any], work: Callable[[], Mapping[str, Any]]
    ) -> str:
        """Do a tool's work once and answer with JSON; a call that was made before answers what it answered then.

        Raises
        ------
        ToolRetry, ToolFailed
            What the tool has to say to the planner, recorded like a result.
        """
        store = self.store.researcher
        known = store.find_tool_call(self.run_id, tool_call_id)
        if known is not None:
            if known["error"] is not None:
                raise ToolFailed(known["error"])
            return json.dumps(known["result"])
        started = self.clock.now()
        begin = time.perf_counter()
        row: dict[str, Any] = {
            "run_id": self.run_id,
            "tool_call_id": tool_call_id,
            "step": step,
            "tool": tool,
            "arguments": dict(arguments),
            "started_at": started,
        }
        try:
            result = dict(work())
        except (ToolRetry, ToolFailed) as error:
            store.save_tool_call({**row, "seconds": time.perf_counter() - begin, "result": None, "error": str(error)})
            raise
        store.save_tool_call({**row, "seconds": time.perf_counter() - begin, "result": result, "error": None})
        return json.dumps(result)
