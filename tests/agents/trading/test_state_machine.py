"""Whatever happens in whatever order, the laws of the desk hold: found by trying."""

import shutil
import tempfile
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from agents.brokers.broker import BrokerOrder, Leg, exit_ids
from agents.brokers.matching import MatchingRules
from agents.brokers.paper import PaperBroker, PaperConfig
from agents.trading.ares import AresConfig
from agents.trading.context import PipelineConfig, TradingConfig
from agents.trading.exits import RESCUE
from agents.trading.limits import LimitsConfig
from agents.trading.market_data import Bar
from agents.trading.milestones import MilestonesConfig, StageRules
from agents.trading.seniority import SeniorityConfig
from core.clock import FixedClock
from core.errors import BrokerOutcomeUnknownError
from core.settings import Settings
from core.store.decisions import ANEW
from core.store.opening import Store, open_store
from core.store.trading_records import MilestoneStage
from core.types import PipelineStatus, RawSignal, Side
from tests.agents.trading.desk import NOW, Desk, bad_news, build_desk, refused, signal
from tests.conftest import Server

SYMBOLS = ("AAA", "BBB", "CCC", "DDD", "EEE")
CASH = 20_000.0
MOVES = st.sampled_from([-0.09, -0.02, 0.0, 0.01, 0.08])
VOLUMES = st.sampled_from([4, 999])
SECTORS = {"AAA": "one", "BBB": "one", "CCC": "two", "DDD": "two", "EEE": "two"}
MAX_POSITIONS, MAX_PER_SECTOR = 3, 2
MAX_DEPLOYED = st.sampled_from([0.05, 0.9])
"""Of twenty thousand a thousand, two entries of 2 %; or so much that the other caps bind."""
RULES = StageRules(
    stage=MilestoneStage.SCALE, from_equity=0.0, max_size=0.03, kill_drawdown=0.07, max_positions=MAX_POSITIONS, max_tier=2
)
_CALLS = ("place_order", "place_orders", "place_exits", "cancel_order", "find_order", "list_executions", "list_open_orders")
PARTIAL = MatchingRules(commission_bps=10.0, slippage_bps=0.0, participation_limit=0.5)


def build_config(max_deployed: float) -> TradingConfig:
    return TradingConfig(
        milestones=MilestonesConfig(stages=(RULES,)),
        ares=AresConfig(expiry_minutes=300.0),
        limits=LimitsConfig(
            cooldown_hours=4.0,
            max_deployed=max_deployed,
            max_per_sector=MAX_PER_SECTOR,
            seniority=SeniorityConfig(paper_caps=(0.03, 0.03, 0.03, 0.03)),
        ),
        pipeline=PipelineConfig(tick_seconds=0.0),
    )


class PowerCut(BaseException):
    """The process ends here, as far as it can be told from within."""


class Cutting:
    """A broker before or after whose n-th call from now the power fails, or which stays silent or refuses a sale once."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.cut_in: int | None = None
        self.silent = False
        self.refuses_sales = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in _CALLS:
            return found

        def call(*arguments: Any, **more: Any) -> Any:
            self._pass()
            if name == "place_order" and self.refuses_sales and arguments[0].side is Side.SELL:
                self.refuses_sales = False
                return refused(arguments[0])
            answer = found(*arguments, **more)
            self._pass()
            if self.silent and name in ("place_order", "place_orders", "place_exits"):
                self.silent = False
                raise BrokerOutcomeUnknownError("the line went dead")
            return answer

        return call

    def _pass(self) -> None:
        if self.cut_in is not None:
            self.cut_in -= 1
            if self.cut_in < 0:
                self.cut_in = None
                raise PowerCut


class TradingDay(RuleBasedStateMachine):
    """Signals, prices, ticks, halts, power cuts and restarts in any order."""

    server: Server

    @initialize(
        max_deployed=MAX_DEPLOYED,
        first=st.sampled_from([SYMBOLS, ("DDD", "CCC", "EEE"), ()]),
        traded=st.sampled_from([1000, 4, None]),
    )
    def open(self, max_deployed: float, first: tuple[str, ...], traded: int | None) -> None:
        self.database = self.server.create(self.server.template)
        self.home = Path(tempfile.mkdtemp(prefix="aqf-day-"))
        self.store: Store = open_store(Settings(home=self.home, database_url=self.database))  # type: ignore[arg-type]
        self.clock = FixedClock(NOW)
        broker = PaperBroker(self.store.trading.gateway, PaperConfig(initial_cash=CASH, rules=PARTIAL), self.clock)
        self.desk: Desk = build_desk(
            self.store,
            broker=Cutting(broker),
            prices=dict.fromkeys(SYMBOLS, 100.0),
            config=build_config(max_deployed),
            clock=self.clock,
            sectors=SECTORS,
        )
        self.max_deployed = max_deployed
        self.sent: list[RawSignal] = []
        self.halted_with: set[str] | None = None
        self.settled = False
        self.attempt(self.desk.pipeline.recover)
        self.hear(list(first), bad=False)
        if traded is not None:
            # A day rarely gets as far as a position by chance alone.
            for symbol in first:
                self.move(symbol, 0.0, traded)
            self.tick(1)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.server.drop(self.database)
            shutil.rmtree(self.home)

    def attempt(self, work: Any) -> None:
        """Do something; where the power fails, start again."""
        try:
            work()
        except PowerCut:
            self.desk = self.desk.restart()
            self.desk.pipeline.recover()
        self.settled = True

    def advance(self, minutes: int) -> None:
        self.clock.advance(timedelta(minutes=minutes))

    @rule(symbols=st.lists(st.sampled_from(SYMBOLS), min_size=1, max_size=5), bad=st.booleans())
    def hear(self, symbols: list[str], bad: bool) -> None:
        made = [(bad_news if bad else signal)(symbol, published_at=self.clock.now()) for symbol in symbols]
        self.sent += made
        before = {order.client_order_id for order in self.entries()}
        self.attempt(lambda: self.desk.pipeline.run(made))
        if not {order.client_order_id for order in self.entries()} <= before:
            self.check_that_the_entries_fit()

    def entries(self) -> list[BrokerOrder]:
        return [order for order in self.desk.broker.inner.list_open_orders() if order.side is Side.BUY]

    def check_that_the_entries_fit(self) -> None:
        """What is held, and what may still be bought at the price of now, is within the share that may be deployed."""
        inner, prices = self.desk.broker.inner, self.desk.prices.last
        held = sum(position.qty * prices[position.symbol] for position in inner.list_positions())
        limits = {row["client_order_id"]: row["limit_price"] for row in self.desk.rows("paper_orders")}
        waiting = sum((order.qty - order.filled_qty) * float(limits[order.client_order_id]) for order in self.entries())
        assert held + waiting <= self.max_deployed * (inner.get_account().cash + held) + 1e-6

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def hear_again(self, data: st.DataObject) -> None:
        old = data.draw(st.sampled_from(self.sent))
        self.attempt(lambda: self.desk.pipeline.run([old]))

    @rule(
        symbol=st.sampled_from(SYMBOLS),
        move=st.sampled_from([-0.09, -0.02, 0.0, 0.01, 0.08]),
        volume=st.sampled_from([4, 1000]),
    )
    def move(self, symbol: str, move: float, volume: int) -> None:
        self.advance(7)
        price = round(self.desk.prices.last[symbol] * (1.0 + move), 2)
        self.desk.prices.last[symbol] = price
        at = self.clock.now()
        self.desk.broker.on_bar(Bar(symbol=symbol, at=at, open=price, high=price, low=price, close=price, volume=volume))
        self.settled = False

    @rule(minutes=st.sampled_from([1, 90, 400]))
    def tick(self, minutes: int) -> None:
        self.advance(minutes)
        self.attempt(self.desk.pipeline.tick)

    @rule(calls=st.integers(0, 9))
    def lose_power_soon(self, calls: int) -> None:
        self.desk.broker.cut_in = calls

    @rule()
    def lose_the_line(self) -> None:
        self.desk.broker.silent = True

    @rule()
    def refuse_the_next_sale(self) -> None:
        self.desk.broker.refuses_sales = True

    @precondition(lambda self: self.working_orders())
    @rule(data=st.data(), with_exits=st.booleans())
    def end_an_order_at_the_broker(self, data: st.DataObject, with_exits: bool) -> None:
        order = data.draw(st.sampled_from(self.working_orders()))
        takes_exits = with_exits and order.side is Side.BUY and order.filled_qty > 0.0
        name = exit_ids(order.client_order_id)[Leg.STOP_LOSS] if takes_exits else order.client_order_id
        self.desk.broker.inner.cancel_order(name)
        self.attempt(self.desk.pipeline.tick)

    def working_orders(self) -> list[BrokerOrder]:
        orders = self.desk.broker.inner.list_open_orders()
        return [order for order in orders if not order.client_order_id.endswith(tuple(exit_ids("").values()))]

    @precondition(lambda self: self.working_exits())
    @rule(data=st.data(), restarts=st.booleans())
    def cancel_an_exit_at_the_broker(self, data: st.DataObject, restarts: bool) -> None:
        self.desk.broker.inner.cancel_order(data.draw(st.sampled_from(self.working_exits())))
        self.advance(1)
        if restarts:
            self.restart()
        # What somebody ended is looked at twice, and a broker that was silent is asked once more.
        for _ in range(3):
            self.attempt(self.desk.pipeline.tick)

    def working_exits(self) -> list[str]:
        names = [order.client_order_id for order in self.desk.broker.inner.list_open_orders()]
        return [name for name in names if name.endswith(tuple(exit_ids("").values()))]

    @rule()
    def restart(self) -> None:
        self.desk.broker.cut_in = None
        self.desk = self.desk.restart()
        self.attempt(self.desk.pipeline.recover)

    @precondition(lambda self: self.halted_with is None)
    @rule()
    def halt(self) -> None:
        self.desk.pipeline.halt("the operator says so", actor="operator")
        self.attempt(self.desk.pipeline.tick)
        self.halted_with = self.decided_at_the_broker()

    @precondition(lambda self: self.halted_with is not None)
    @rule()
    def resume(self) -> None:
        self.desk.pipeline.resume(actor="operator")
        self.halted_with = None

    def decided_at_the_broker(self) -> set[str]:
        """Return the orders at the broker but for exits that were placed anew."""
        intents = self.desk.rows("order_intents")
        anew = {row["payload"][ANEW]["client_order_id"] for row in intents if ANEW in row["payload"]}
        return {row["client_order_id"] for row in self.desk.rows("paper_orders")} - anew

    @invariant()
    def no_decision_has_two_orders(self) -> None:
        orders = self.decided_at_the_broker()
        decided = {row["client_order_id"]: row["signal_id"] for row in self.desk.rows("order_intents") if row["signal_id"]}
        assert orders <= set(decided)
        assert max(Counter(decided[name] for name in orders).values(), default=1) == 1

    @invariant()
    def nothing_is_ordered_while_halted(self) -> None:
        if self.halted_with is not None:
            assert self.decided_at_the_broker() == self.halted_with

    @invariant()
    def no_position_is_without_a_way_out(self) -> None:
        ways: Counter[str] = Counter()
        for order in self.desk.broker.inner.list_open_orders():
            if order.side is Side.SELL and not order.client_order_id.endswith(exit_ids("")[Leg.TAKE_PROFIT]):
                ways[order.symbol] += int(order.qty - order.filled_qty)
        for position in self.desk.broker.inner.list_positions():
            closing = [
                row
                for row in self.desk.rows("order_intents", symbol=position.symbol, side="sell", status="pending")
                if row["signal_id"] is not None
            ]
            assert position.qty > 0
            assert ways[position.symbol] >= position.qty or closing or self.unresolved(position.symbol)

    @invariant()
    def nobody_has_to_rescue_a_position_at_a_broker_that_takes_exits(self) -> None:
        assert [halt.reason for halt in self.desk.pipeline.argus.halts() if halt.actor == RESCUE] == []

    def unresolved(self, symbol: str) -> bool:
        return f"symbol:{symbol}" in {halt.scope for halt in self.desk.pipeline.argus.halts()}

    @invariant()
    def the_book_is_the_sum_of_the_fills(self) -> None:
        if not self.settled:
            return
        inner = self.desk.broker.inner
        known = {row["exec_id"] for row in self.desk.rows("fills")}
        assert known == {row["exec_id"] for row in self.desk.rows("paper_fills")}
        assert self.desk.pipeline.argus.held == {item.symbol: item.qty for item in inner.list_positions()}
        lines = self.desk.pipeline.log.list_ledger()
        assert inner.get_account().cash == pytest.approx(CASH + sum(line.cash for line in lines), abs=1e-6)

    @invariant()
    def no_cap_is_passed(self) -> None:
        entries = [order.symbol for order in self.entries()]
        held = [position.symbol for position in self.desk.broker.inner.list_positions()]
        assert len(entries) == len(set(entries))
        assert len({*entries, *held}) <= MAX_POSITIONS
        assert max(Counter(SECTORS[symbol] for symbol in {*entries, *held}).values(), default=0) <= MAX_PER_SECTOR
        for trade in self.desk.store.trading.trades.list_trades():
            assert trade.position_pct <= 0.03
            assert trade.qty * (trade.fill_price or 0.0) <= 0.03 * 1.2 * CASH

    @invariant()
    def every_signal_has_a_trace_that_lives(self) -> None:
        ids = [item.signal_id for item in self.sent]
        traces = self.desk.pipeline.log.find_traces(ids)
        living = Counter(trace.signal_id for trace in traces if trace.status is not PipelineStatus.KILLED)
        assert max(living.values(), default=1) == 1


def play(server: Server, examples: int, steps: int) -> None:
    machine = type("Day", (TradingDay,), {"server": server})
    checks = list(HealthCheck)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=checks),
    )


def test_the_laws_of_the_desk_hold(server: Server) -> None:
    play(server, examples=6, steps=15)


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_the_laws_of_the_desk_hold_for_long(server: Server) -> None:
    play(server, examples=150, steps=40)
