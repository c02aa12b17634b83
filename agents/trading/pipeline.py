"""The pipeline: signals in, one trace each out, and at most one order for each decision.

Hides the order of the stages and when things become durable. Promises a trace for every signal, whatever it says; that
nothing is sent to a broker before it is written down; and that start-up is recovery: the broker's story and ours are one
before anything new.

The graph::

    hermes -> icarus -> hades -> artemis -> pythia -> limits -> zeus -> ares
       \\________\\_______\\_________\\________\\________\\_______\\_______\\____ trace

Every stage has a conditional edge to the trace: where no signal of the batch is left alive the rest is skipped. From limits
on, signals go in turns: a turn ends before the first signal whose verdict would depend on an order that is not sent yet, and
the last stage leads back to limits until none waits. So a batch decides exactly as its signals would one after the other.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import islice, pairwise
from typing import Any, Protocol, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from agents.trading.ares import Ares
from agents.trading.argus import Argus, Valuation
from agents.trading.batch import Batch
from agents.trading.breaker import CircuitBreaker
from agents.trading.case import Case, SignalLike, open_case, refuse_duplicate
from agents.trading.context import TradingContext
from agents.trading.experience import Experience
from agents.trading.hit_rates import RememberingTradeLog
from agents.trading.housekeeping import Housekeeping, Recovered
from agents.trading.icarus import lesson
from agents.trading.judging import Judging
from agents.trading.milestones import Milestones
from agents.trading.ordering import Ordering
from agents.trading.outcomes import OutcomeResolver
from agents.trading.pythia import Pythia
from agents.trading.reconciliation import Reconciler
from agents.trading.seniority import Ladder
from agents.trading.watchdog import Watchdog
from agents.trading.zeus import Zeus
from core.store.decisions import ALL, DecisionLog, symbol_scope
from core.telemetry import span
from core.types import (
    DecisionTrace,
    Stage,
)

_log = logging.getLogger(__name__)


class _State(TypedDict):
    batch: Batch
    work: Mapping[str, Callable[[Batch], None]]


class _Node(Protocol):
    def __call__(self, state: _State) -> dict[str, Any]: ...


def build_pipeline(context: TradingContext) -> Pipeline:
    """Build the agents and compile the graph, once.

    Raises
    ------
    StoreError
        If the store cannot be read: breakers and milestones go on where they were.
    """
    _graph()
    return Pipeline(context)


class Pipeline:
    """Decide on signals.

    Parameters
    ----------
    context : TradingContext

    Notes
    -----
    One pipeline runs on an account at a time: caps are kept against the book that this one knows. Whoever starts one holds
    `trading_alone`. Two that meet on a signal still place one order, since its identity is unique in the store.
    """

    def __init__(self, context: TradingContext) -> None:
        config, store = context.config, context.store.trading
        self.context = context
        self.log = DecisionLog(store.gateway)
        self.trade_log = RememberingTradeLog(store.gateway)
        self.pythia = Pythia(self.trade_log, context.sizing, config.pythia)
        self.zeus = Zeus(context.chat, context.store.knowledge, config.zeus)
        self.ares = Ares(context.broker, context.data, config.ares, context.sessions)
        milestones, cooldown = Milestones(store, config.milestones), timedelta(hours=config.limits.cooldown_hours)
        self.argus = Argus(store, self.log, milestones, context.data, context.sectors, config.argus, cooldown)
        self.reconciler = Reconciler(context.broker, self.log, config.reconciler)
        self.ladder = Ladder(store.trades, store, config.limits.seniority)
        self.breakers = {
            name: CircuitBreaker(name, store, config.breaker, context.clock)
            for name in ("icarus", "hades", "artemis", "pythia", "zeus")
        }
        self.housekeeping = Housekeeping(
            broker=context.broker,
            log=self.log,
            reconciler=self.reconciler,
            outcomes=OutcomeResolver(
                store,
                self.log,
                self.ladder,
                Experience(store, config.experience),
                context.store.knowledge,
                context.store.service,
            ),
            argus=self.argus,
            trade_log=self.trade_log,
            ladder=self.ladder,
            config=config.pipeline,
            clock=context.clock,
            memory=context.store.service,
            alerts=context.alerts,
        )
        self.judging = Judging(context, self.breakers, self.pythia, self.zeus, self.argus, self.housekeeping)
        self.ordering = Ordering(context, self.log, self.ares, self.argus, self.reconciler, self.housekeeping)
        self._work: dict[str, Callable[[Batch], None]] = {
            "hermes": self._take_in,
            "icarus": self.judging.scan,
            "hades": self.judging.screen,
            "artemis": self.judging.weigh_market,
            "pythia": self.judging.size,
            "limits": self.judging.limit,
            "zeus": self.judging.direct,
            "ares": self.ordering.execute,
            "trace": self._conclude,
        }

    # What a caller does

    def run(self, signals: Iterable[SignalLike]) -> list[DecisionTrace]:
        """Decide on signals, in their order, and return a trace for each.

        Parameters
        ----------
        signals : iterable of RawSignal or mapping
            A mapping holds the fields of a signal as JSON has them. What cannot be read or was decided before is refused with a
            trace.

        Returns
        -------
        list of DecisionTrace
            One a signal, in the same order, as they stand in the store except for `signal_id`, which is the one sent in.

        Raises
        ------
        StoreError
            If the store cannot be reached or refuses: what is decided must be durable. What was written stays, and the next run
            goes on from there.
        """
        found: list[DecisionTrace] = []
        waiting = iter(signals)
        size = self.context.config.pipeline.batch if self.context.chat is None else 1
        while items := list(islice(waiting, size)):
            self.housekeeping.tick_if_due()
            found += self._decide(items)
        return found

    def work(self, worker: str) -> list[DecisionTrace]:
        """Claim open signals of the store for a worker, decide on them, close them, and return their traces."""
        claimed = self.context.gates.icarus.scan(worker)
        traces = self.run(claimed)
        self.context.store.trading.consume_signals(worker, [signal.signal_id for signal in claimed])
        return traces

    def recover(self) -> Recovered:
        """Reconcile with the broker before anything new; `run` and `tick` do it by themselves at their first call."""
        return self.housekeeping.recover()

    def tick(self) -> Valuation:
        """Collect fills, close trades, value the book, and halt if it fell too far."""
        return self.housekeeping.tick()

    def halt(self, reason: str, *, actor: str, symbol: str | None = None) -> bool:
        """Halt trading, or one symbol; false when it was halted already. Entries that wait are cancelled at the next tick."""
        scope = ALL if symbol is None else symbol_scope(symbol)
        return self.argus.halt(scope, reason=reason, actor=actor, now=self.context.clock.now())

    def resume(self, *, actor: str, symbol: str | None = None) -> bool:
        """Lift a halt; false when there was none."""
        scope = ALL if symbol is None else symbol_scope(symbol)
        return self.argus.resume(scope, actor=actor, now=self.context.clock.now())

    def register(self, watchdog: Watchdog) -> None:
        """Have a watchdog look at every agent, and restart one that failed where that can help.

        Notes
        -----
        A restart drops what the agent remembers, so that nothing it once read wrongly outlives its failure; it closes no
        breaker, which tries again by itself. ZEUS remembers nothing: each question has a client of its own, so he has none.
        The broker is connected to anew for Ares, and for Argus the book is read and valued anew.

        Ares and Argus have no breaker. An order that failed must be settled, asked about or its symbol halted, which a
        fallback that only refuses would pass by; while the broker is away, no order is written down at all. An unknown equity
        refuses every entry by itself, and a look at the book must not wait for two minutes once the price is there.
        """
        gates = self.context.gates
        restarts = {
            "icarus": gates.icarus.restart,
            "hades": gates.hades.restart,
            "artemis": gates.artemis.restart,
            "pythia": self.trade_log.forget,
        }
        for name, breaker in self.breakers.items():
            watchdog.register(name, breaker.report, restarts.get(name))
        watchdog.register("ares", self.housekeeping.probe, self.context.broker.connect)
        watchdog.register("argus", self.housekeeping.report_book, self.housekeeping.read_again)

    # The graph's own stages

    def _decide(self, items: Sequence[SignalLike]) -> list[DecisionTrace]:
        now = self.context.clock.now()
        batch = Batch(now=now, cases=[open_case(item, now) for item in items])
        with span("decide"):
            # Three steps for each turn, and a turn decides at least one signal.
            _graph().invoke({"batch": batch, "work": self._work}, {"recursion_limit": 16 + 3 * len(items)})
        return [_as_given(case) for case in batch.cases]

    # The stages

    def _take_in(self, batch: Batch) -> None:
        decided = self.log.find_decided([case.signal.signal_id for case in batch.cases])
        for case in batch.cases:
            known = case.signal.signal_id in decided
            decided.add(case.signal.signal_id)
            if not case.is_live:
                case.duplicate = known  # what cannot be read comes again as it is: its first trace stays what it was too
            elif known:
                refuse_duplicate(case)
            else:
                case.passed(Stage.HERMES)

    def _conclude(self, batch: Batch) -> None:
        """Write down what the batch has not written yet, in one transaction."""
        for case in batch.cases:
            case.trace = case.build_trace(batch.now)
            if case.plan is None and not case.duplicate:
                batch.record.signals.append(case.new_signal())
            if case.screened is not None:
                batch.record.screened.append(case.screened)
            batch.record.traces.append(case.trace)
        self.log.record(batch.record)
        for case in batch.cases:
            assert case.trace is not None
            rejected = lesson(case.trace.status, case.trace.binding_constraint)
            if rejected is not None:
                self.context.gates.icarus.learn(case.signal, rejected, batch.now)


@functools.cache
def _graph() -> CompiledStateGraph[_State, None, _State, _State]:
    """Compile the graph, once for all pipelines: a replay builds one for every row."""
    graph = StateGraph(_State)
    stages = [stage.value for stage in Stage]
    for name in [*stages, "trace"]:
        graph.add_node(name, _node(name))
    graph.add_edge(START, stages[0])
    for name, following in pairwise(stages[:6]):
        graph.add_conditional_edges(name, _goes_on(following), [following, "trace"])
    graph.add_conditional_edges("limits", _after_limits, ["zeus", "limits", "trace"])
    graph.add_conditional_edges("zeus", _after_zeus, ["ares", "limits", "trace"])
    graph.add_conditional_edges("ares", _after_ares, ["limits", "trace"])
    graph.add_edge("trace", END)
    return graph.compile()


def _node(name: str) -> _Node:
    def node(state: _State) -> dict[str, Any]:
        with span(name):
            state["work"][name](state["batch"])
        return {}

    return node


def _goes_on(following: str) -> Callable[[_State], str]:
    return lambda state: following if state["batch"].live else "trace"


def _after_limits(state: _State) -> str:
    return "zeus" if state["batch"].turn else "trace"


def _after_zeus(state: _State) -> str:
    if state["batch"].turn:
        return "ares"
    return "limits" if state["batch"].waiting else "trace"


def _after_ares(state: _State) -> str:
    return "limits" if state["batch"].waiting else "trace"


def _as_given(case: Case) -> DecisionTrace:
    assert case.trace is not None
    return replace(case.trace, signal_id=case.given_id)
