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

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice, pairwise
from typing import Any, Protocol, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from agents.trading.ares import Ares, OrderPlan
from agents.trading.argus import Argus, Valuation
from agents.trading.breaker import CircuitBreaker
from agents.trading.case import Case, SignalLike, open_case, refuse_duplicate
from agents.trading.context import TradingContext
from agents.trading.direction import is_negative
from agents.trading.experience import Experience
from agents.trading.hit_rates import RememberingTradeLog
from agents.trading.housekeeping import Housekeeping, Recovered
from agents.trading.icarus import lesson
from agents.trading.limits import BookView, check_limits, clamp_size
from agents.trading.milestones import Milestones, StageRules
from agents.trading.outcomes import OutcomeResolver
from agents.trading.pythia import Pythia
from agents.trading.reconciliation import Reconciler, order_statuses
from agents.trading.seniority import Ladder
from agents.trading.watchdog import Watchdog
from agents.trading.zeus import Verdict, Zeus
from core.errors import ChatModelError, StoreConflictError
from core.store.decisions import ALL, DecisionBatch, DecisionLog, Screened, symbol_scope
from core.store.trading_records import NewTrade, SeniorityTier
from core.telemetry import span
from core.types import (
    BindingConstraint,
    DecisionTrace,
    MacroContext,
    MarketRegime,
    PipelineStatus,
    Refusal,
    Side,
    Stage,
)

_log = logging.getLogger(__name__)

_BOOK_BOUND = frozenset(
    {
        BindingConstraint.TICKER_CAP,
        BindingConstraint.COOLDOWN,
        BindingConstraint.SECTOR_CAP,
        BindingConstraint.GLOBAL_CAP,
        BindingConstraint.BUDGET,
    }
)
"""Refusals that an order of the same turn may have caused, which may yet come to nothing."""


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


class _State(TypedDict):
    batch: Batch


class _Node(Protocol):
    def __call__(self, state: _State) -> dict[str, Any]: ...


def build_pipeline(context: TradingContext) -> Pipeline:
    """Build the agents and compile the graph, once.

    Raises
    ------
    StoreError
        If the store cannot be read: breakers and milestones go on where they were.
    """
    return Pipeline(context)


class Pipeline:
    """Decide on signals.

    Parameters
    ----------
    context : TradingContext

    Notes ----- One pipeline runs on an account at a time: caps are kept against the book that this one knows. Two that meet
    on a signal still place one order, since its identity is unique in the store.
    """

    def __init__(self, context: TradingContext) -> None:
        config, store = context.config, context.store.trading
        self.context = context
        self.log = DecisionLog(store.gateway)
        self.trade_log = RememberingTradeLog(store.gateway)
        self.pythia = Pythia(self.trade_log, context.sizing, config.pythia)
        self.zeus = Zeus(context.chat, context.store.knowledge, config.zeus)
        self.ares = Ares(context.broker, context.data, config.ares, context.sessions)
        self.argus = Argus(store, self.log, Milestones(store, config.milestones), context.data, context.sectors, config.argus)
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
                context.expectation,
            ),
            argus=self.argus,
            trade_log=self.trade_log,
            ladder=self.ladder,
            config=config.pipeline,
            clock=context.clock,
            alerts=context.alerts,
        )
        self._graph = self._compile()
        self._macro_saved: datetime | None = None

    # What a caller does

    def run(self, signals: Iterable[SignalLike]) -> list[DecisionTrace]:
        """Decide on signals, in their order, and return a trace for each.

        Parameters
        ----------
        signals : iterable of RawSignal or mapping
            A mapping holds the fields of a signal as JSON has them. What cannot be read, comes from the future or was decided
            before is refused with a trace.

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
        """Have a watchdog look at every agent; one that cannot reach the broker is restarted by connecting again."""
        for name, breaker in self.breakers.items():
            watchdog.register(name, breaker.report)
        watchdog.register("ares", self.housekeeping.report_broker, self.context.broker.connect)
        watchdog.register("argus", self.housekeeping.report_book)

    # The graph

    def _compile(self) -> CompiledStateGraph[_State, None, _State, _State]:
        stages: list[tuple[str, Callable[[Batch], None]]] = [
            ("hermes", self._take_in),
            ("icarus", self._scan),
            ("hades", self._screen),
            ("artemis", self._weigh_market),
            ("pythia", self._size),
            ("limits", self._limit),
            ("zeus", self._direct),
            ("ares", self._execute),
        ]
        graph = StateGraph(_State)
        for name, work in [*stages, ("trace", self._conclude)]:
            graph.add_node(name, _node(name, work))
        graph.add_edge(START, "hermes")
        for (name, _), (following, _) in pairwise(stages[:6]):
            graph.add_conditional_edges(name, _goes_on(following), [following, "trace"])
        graph.add_conditional_edges("limits", _after_limits, ["zeus", "limits", "trace"])
        graph.add_conditional_edges("zeus", _after_zeus, ["ares", "limits", "trace"])
        graph.add_conditional_edges("ares", _after_ares, ["limits", "trace"])
        graph.add_edge("trace", END)
        return graph.compile()

    def _decide(self, items: Sequence[SignalLike]) -> list[DecisionTrace]:
        now = self.context.clock.now()
        batch = Batch(now=now, cases=[open_case(item, now) for item in items])
        with span("decide"):
            # Three steps for each turn, and a turn decides at least one signal.
            self._graph.invoke({"batch": batch}, {"recursion_limit": 16 + 3 * len(items)})
        return [_as_given(case) for case in batch.cases]

    # The stages

    def _take_in(self, batch: Batch) -> None:
        live = batch.live
        decided = self.log.find_decided([case.signal.signal_id for case in live])
        for case in live:
            if case.signal.signal_id in decided:
                refuse_duplicate(case)
                continue
            decided.add(case.signal.signal_id)
            case.passed(Stage.HERMES)

    def _scan(self, batch: Batch) -> None:
        icarus, breaker = self.context.gates.icarus, self.breakers["icarus"]
        broken = Refusal(
            stage=Stage.ICARUS, constraint=BindingConstraint.OUT_OF_UNIVERSE, reason="nobody knows which ticker it is about"
        )
        for case in batch.live:
            with _timed(case, Stage.ICARUS):
                found = breaker.call(lambda case=case: icarus.judge(case.signal, batch.now), lambda: broken)  # type: ignore[misc]
                if isinstance(found, Refusal):
                    case.refuse(found)
                    continue
                if not found.affected_tickers:
                    reason = "no ticker is known for it"
                    case.refuse(Refusal(stage=Stage.ICARUS, constraint=BindingConstraint.OUT_OF_UNIVERSE, reason=reason))
                    continue
                case.signal, case.symbol = found, found.affected_tickers[0]
                case.passed(Stage.ICARUS)

    def _screen(self, batch: Batch) -> None:
        hades, breaker = self.context.gates.hades, self.breakers["hades"]
        for case in batch.live:
            with _timed(case, Stage.HADES):
                screening = breaker.call(lambda case=case: hades.screen(case.signal), lambda: None)  # type: ignore[misc]
                if screening is None:
                    reason = "the screening failed, and what is not screened is not traded"
                    case.refuse(Refusal(stage=Stage.HADES, constraint=BindingConstraint.SANCTIONS_LIST_MISSING, reason=reason))
                    continue
                case.filtered = screening.filtered
                case.screened = Screened(
                    signal=screening.filtered,
                    killed=screening.refusal is not None,
                    list_version=screening.list_version,
                    matched_entry=screening.matched_entry,
                )
                if screening.refusal is not None:
                    case.refuse(screening.refusal)
                    continue
                case.passed(Stage.HADES, f"compliance {screening.filtered.compliance_score:g}")

    def _weigh_market(self, batch: Batch) -> None:
        artemis, breaker = self.context.gates.artemis, self.breakers["artemis"]
        began = time.perf_counter()
        macro = batch.macro = breaker.call(artemis.context, lambda: _blind(batch.now))
        if macro.as_of != self._macro_saved:
            self.context.store.trading.save_macro_context(macro)
            self._macro_saved = macro.as_of
        shared = (time.perf_counter() - began) / max(1, len(batch.live))
        for case in batch.live:
            assert case.filtered is not None
            case.took(Stage.ARTEMIS, shared)
            refusal = artemis.judge(case.filtered, macro)
            if refusal is not None:
                case.refuse(refusal)
                continue
            case.passed(Stage.ARTEMIS, f"{macro.regime.value}, VIX {macro.vix}")

    def _size(self, batch: Batch) -> None:
        rules, paper, breaker = self.argus.rules(), self.context.broker.is_paper, self.breakers["pythia"]
        broken = Refusal(
            stage=Stage.PYTHIA,
            constraint=BindingConstraint.COLD_START_LOW_CONFIDENCE,
            reason="the trade log cannot be read, and what has no record is not sized",
        )
        macro = batch.macro
        assert macro is not None
        for case in batch.live:
            filtered = case.filtered
            assert filtered is not None
            with _timed(case, Stage.PYTHIA):
                found = breaker.call(
                    lambda filtered=filtered: self.pythia.size(filtered, macro, rules, paper=paper),  # type: ignore[misc]
                    lambda: broken,
                )
                if isinstance(found, Refusal):
                    case.refuse(found)
                    continue
                case.sized = found
                case.passed(Stage.PYTHIA, f"confidence {found.confidence:.3f}, size {found.position_size_pct:.2%}")
        batch.waiting = batch.live

    def _limit(self, batch: Batch) -> None:
        """Let signals pass until one's verdict would depend on an order of this turn that is not sent yet."""
        book, rules, tier = self.argus.view(), self.argus.rules(), self._tier()
        batch.turn = []
        while batch.waiting:
            case = batch.waiting[0]
            assert case.sized is not None
            assert case.symbol is not None
            with _timed(case, Stage.LIMITS):
                found = self._limit_one(case, batch.turn, book, rules, tier, batch.now)
                if isinstance(found, Refusal) and batch.turn and found.constraint in _BOOK_BOUND:
                    return
                batch.waiting.pop(0)
                if isinstance(found, Refusal):
                    case.refuse(found)
                    continue
                book = found
                case.passed(Stage.LIMITS, "" if case.size is None else f"size {case.size:.2%}")
                batch.turn.append(case)

    def _limit_one(
        self, case: Case, turn: Sequence[Case], book: BookView, rules: StageRules, tier: SeniorityTier, now: datetime
    ) -> BookView | Refusal:
        """Return the book with this signal's stake in it, or what bound."""
        assert case.sized is not None
        assert case.symbol is not None
        if is_negative(case.signal):
            selling = {other.symbol or "" for other in turn if other.closes}
            return self._limit_sale(case, book, self.argus.closing | selling)
        paper = self.context.broker.is_paper
        found = check_limits(case.sized, case.symbol, book, rules, tier, self.context.config.limits, now, paper=paper)
        if isinstance(found, Refusal):
            return found
        case.decision = found
        stake = found.position_size_pct * (book.equity or 0.0)
        return replace(
            book,
            cash=book.cash - stake,
            deployed=book.deployed + stake,
            open_symbols=(*book.open_symbols, case.symbol),
            last_trade_at={**book.last_trade_at, case.symbol: now},
        )

    def _limit_sale(self, case: Case, book: BookView, closing: frozenset[str]) -> BookView | Refusal:
        """Let bad news close what is held: that frees money, so that no cap but a halt stands against it."""
        symbol = case.symbol or ""
        if book.halted or symbol in book.halted_symbols:
            return Refusal(stage=Stage.LIMITS, constraint=BindingConstraint.HALTED, reason=f"{symbol} or all trading is halted")
        if self.argus.held.get(symbol, 0.0) <= 0.0:
            reason = f"it speaks against {symbol}, of which nothing is held: the desk is long only"
            return Refusal(stage=Stage.ARES, constraint=BindingConstraint.OUT_OF_UNIVERSE, reason=reason)
        if symbol in closing:
            reason = f"a sale of {symbol} is under way already"
            return Refusal(stage=Stage.LIMITS, constraint=BindingConstraint.TICKER_CAP, reason=reason)
        case.closes = True
        return book

    def _direct(self, batch: Batch) -> None:
        for case in batch.turn:
            assert case.sized is not None
            with _timed(case, Stage.ZEUS):
                found = self._ask_zeus(case, batch.now)
                if isinstance(found, Refusal):
                    case.refuse(found)
                    continue
                case.verdict = found
                case.passed(Stage.ZEUS, "; ".join(found.flags) or ("rule mode" if self.context.chat is None else ""))
        batch.turn = [case for case in batch.turn if case.is_live]

    def _ask_zeus(self, case: Case, now: datetime) -> Verdict | Refusal:
        sized, symbol, size = case.sized, case.symbol or "", case.size or 0.0
        assert sized is not None
        if case.closes or self.context.chat is None:
            # Selling what is held on bad news needs no persuasion, and in rule mode the gates have decided.
            return Verdict(size=size, confidence=sized.confidence)
        said: list[str] = []

        def judge() -> Verdict | Refusal:
            try:
                return self.zeus.judge(sized, symbol, size, now)
            except ChatModelError as error:
                said.append(f"{error}")
                raise

        def refuse() -> Verdict | Refusal:
            reason = said[0] if said else "the model failed too often and is left alone for a while"
            return Refusal(stage=Stage.ZEUS, constraint=BindingConstraint.LLM_UNAVAILABLE, reason=reason[:2000])

        found = self.breakers["zeus"].call(judge, refuse)
        if isinstance(found, Refusal):
            return found
        paper = self.context.broker.is_paper
        cut = clamp_size(found.size, self.argus.rules(), self._tier(), self.context.config.limits, paper=paper)
        return replace(found, size=cut.position_size_pct)

    def _execute(self, batch: Batch) -> None:
        """Plan the orders of the turn, write them all down, and only then ask the broker."""
        halts = {halt.scope for halt in self.argus.halts()}
        for case in batch.turn:
            with _timed(case, Stage.ARES):
                found = self._plan(case, halts, batch.now)
                if isinstance(found, Refusal):
                    case.refuse(found)
                    continue
                case.plan = found
        planned = self._write_down([case for case in batch.turn if case.is_live], batch)
        for case in planned:
            with _timed(case, Stage.ARES):
                self._send(case, batch)
        batch.turn = []
        if planned:
            self.argus.reload(batch.now)
            if any(case.closes for case in planned):
                self.argus.mark(batch.now)

    def _plan(self, case: Case, halts: set[str], now: datetime) -> OrderPlan | Refusal:
        symbol = case.symbol or ""
        if ALL in halts or symbol_scope(symbol) in halts:
            reason = "trading was halted since the limits were checked"
            return Refusal(stage=Stage.ARES, constraint=BindingConstraint.HALTED, reason=reason)
        if not self.housekeeping.synced.reachable:
            reason = f"the broker does not answer: {self.housekeeping.synced.reason}"
            return Refusal(stage=Stage.ARES, constraint=BindingConstraint.BROKER_UNAVAILABLE, reason=reason[:2000])
        if not self.context.broker.is_paper and not self.context.real_money_armed:
            reason = "the broker's account is one of real money, which is not armed"
            return Refusal(stage=Stage.ARES, constraint=BindingConstraint.SENIORITY_CAP, reason=reason)
        if case.closes:
            return self.ares.plan_exit(case.signal.signal_id, symbol, self.argus.held[symbol])
        equity = self.argus.view().equity
        if equity is None or case.size is None:
            return Refusal(stage=Stage.ARES, constraint=BindingConstraint.UNKNOWN_EQUITY, reason="the equity is not known")
        return self.ares.plan_entry(case.signal.signal_id, symbol, case.size, equity, now)

    def _write_down(self, cases: Sequence[Case], batch: Batch) -> list[Case]:
        """Make plans durable, all in one transaction; a signal that another pipeline has decided meanwhile is refused."""
        if not cases:
            return []
        try:
            self.log.record(self._intention(cases, batch.now))
            return list(cases)
        except StoreConflictError:
            if len(cases) > 1:
                return [kept for case in cases for kept in self._write_down([case], batch)]
            cases[0].plan = None
            reason = "another pipeline has an order for this signal"
            cases[0].duplicate = True
            cases[0].refuse(Refusal(stage=Stage.ARES, constraint=BindingConstraint.STALE_SIGNAL, reason=reason))
            return []

    def _intention(self, cases: Sequence[Case], now: datetime) -> DecisionBatch:
        record = DecisionBatch()
        for case in cases:
            assert case.plan is not None
            assert case.sized is not None
            record.signals.append(case.new_signal())
            record.intents += case.plan.intents
            if not case.closes:
                record.trades.append(self._new_trade(case, now))
            record.traces.append(case.build_trace(now))
            note = {"symbol": case.plan.order.symbol, "side": case.plan.order.side.value, "qty": case.plan.order.qty}
            record.audit.append(("order.intended", "ares", case.plan.order.client_order_id, note))
        return record

    def _new_trade(self, case: Case, now: datetime) -> NewTrade:
        assert case.plan is not None
        assert case.sized is not None
        assert case.sized.context_key is not None
        order = case.plan.order
        return NewTrade(
            signal_id=case.signal.signal_id,
            context_key=case.sized.context_key,
            confidence=case.sized.confidence,
            position_pct=case.size or 0.0,
            is_exploration=case.sized.is_exploration,
            symbol=order.symbol,
            side=order.side,
            client_order_id=order.client_order_id,
            stop_loss=order.stop_loss_price,
            take_profit=order.take_profit_price,
            paper_trading=self.context.broker.is_paper,
            recorded_at=now,
        )

    def _send(self, case: Case, batch: Batch) -> None:
        assert case.plan is not None
        order = case.plan.order
        sent = self.reconciler.close_position(order, batch.now) if case.closes else self.ares.send(order)
        case.sent = sent
        bracket = order.side is Side.BUY
        batch.record.statuses += order_statuses(order.client_order_id, _kept(sent.status), sent.order_id, bracket=bracket)
        note = {"status": sent.status.value, "order_id": sent.order_id, "reason": sent.reason[:2000]}
        batch.record.audit.append(("order.sent", "ares", order.client_order_id, note))
        if sent.status is PipelineStatus.REJECTED:
            reason = sent.reason or "the broker rejected it without a reason"
            if case.closes:
                naked = f"the sale of {order.symbol} was rejected after its exits had been cancelled: {reason}"
                self.argus.halt(symbol_scope(order.symbol), reason=naked[:2000], actor="pipeline", now=batch.now)
            case.refuse(Refusal(stage=Stage.ARES, constraint=BindingConstraint.BROKER_UNAVAILABLE, reason=reason[:2000]))
            return
        if sent.status is PipelineStatus.UNKNOWN:
            reason = f"nobody knows what became of the order {order.client_order_id}: {sent.reason}"
            self.argus.halt(symbol_scope(order.symbol), reason=reason, actor="ares", now=batch.now)
        case.passed(Stage.ARES, f"{sent.status.value} {order.qty:g} {order.symbol}")

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

    def _tier(self) -> SeniorityTier:
        return self.housekeeping.tier


def _node(name: str, work: Callable[[Batch], None]) -> _Node:
    def node(state: _State) -> dict[str, Any]:
        with span(name):
            work(state["batch"])
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


@contextmanager
def _timed(case: Case, stage: Stage) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        case.took(stage, time.perf_counter() - began)


def _kept(status: PipelineStatus) -> PipelineStatus:
    """Return the state that our order takes: filled only by executions that were counted."""
    filled = status in (PipelineStatus.FILLED, PipelineStatus.PARTIALLY_FILLED)
    return PipelineStatus.SUBMITTED if filled else status


def _blind(now: datetime) -> MacroContext:
    reason = "the market cannot be seen: Artemis failed"
    return MacroContext(as_of=now, regime=MarketRegime.UNKNOWN, suppress=True, suppress_reason=reason)


def _as_given(case: Case) -> DecisionTrace:
    assert case.trace is not None
    return replace(case.trace, signal_id=case.given_id)
