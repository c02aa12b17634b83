"""A broker that is away, silent or talks nonsense: never two orders, never a guess, and the symbol halts while nobody knows."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from agents.brokers.asking import target_of
from agents.brokers.broker import BrokerOrder, Execution, Leg, Order
from agents.brokers.matching import MatchingRules
from agents.brokers.paper import PaperBroker, PaperConfig
from agents.trading.limits import LimitsConfig
from agents.trading.market_data import Bar
from agents.trading.pythia import PythiaConfig
from agents.trading.seniority import SeniorityConfig
from core.clock import FixedClock
from core.errors import BrokerError, BrokerOutcomeUnknownError, BrokerUnavailableError
from core.store.opening import Store
from core.store.trading_records import Seniority, SeniorityTier
from core.types import BindingConstraint, PipelineStatus, Side, Stage
from tests.agents.trading.desk import CASH, NOW, Desk, bad_news, build_desk, paper_broker, refused, signal


class Moody:
    """A paper broker that does what `moods` says before a call, after it, or instead of it."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.before: dict[str, Exception] = {}
        self.after: dict[str, Exception] = {}
        self.instead: dict[str, Any] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **more: Any) -> Any:
            self.calls.append(name)
            if name in self.before:
                raise self.before[name]
            if name in self.instead:
                answer = self.instead[name]
                return answer(*arguments) if callable(answer) else answer
            result = found(*arguments, **more)
            if name in self.after:
                raise self.after[name]
            return result

        return call

    def calm(self) -> None:
        """Behave again."""
        self.before, self.after, self.instead = {}, {}, {}


@pytest.fixture
def desk(store: Store) -> Desk:
    clock = FixedClock(NOW)
    desk = build_desk(store, broker=Moody(paper_broker(store, clock)), clock=clock)
    desk.pipeline.recover()
    return desk


SILENCE = BrokerOutcomeUnknownError("no answer")


def scopes(desk: Desk) -> list[str]:
    return [halt.scope for halt in desk.pipeline.argus.halts()]


def n_orders(desk: Desk) -> int:
    return len(desk.rows("paper_orders"))


def test_a_broker_that_is_away_refuses_before_anything_is_written_down(desk: Desk) -> None:
    for name in ("list_executions", "place_order", "list_open_orders"):
        desk.broker.before[name] = BrokerUnavailableError("away")
    (trace,) = desk.pipeline.run([signal("AAA")])
    assert (trace.killed_at_stage, trace.binding_constraint) == (Stage.ARES, BindingConstraint.BROKER_UNAVAILABLE)
    assert desk.rows("order_intents") == []
    desk.broker.calm()
    (trace,) = desk.pipeline.run([signal("AAA")])
    assert trace.status is PipelineStatus.SUBMITTED


def test_an_order_that_surely_did_not_arrive_is_refused_and_its_trade_counts_nowhere(desk: Desk) -> None:
    desk.broker.before["place_order"] = BrokerUnavailableError("line cut")
    (trace,) = desk.pipeline.run([signal("AAA")])
    assert (trace.killed_at_stage, trace.binding_constraint) == (Stage.ARES, BindingConstraint.BROKER_UNAVAILABLE)
    assert [row["voided"] for row in desk.rows("trades")] == [True]
    assert scopes(desk) == []
    desk.broker.calm()
    (again,) = desk.pipeline.run([signal("AAA")])
    assert again.status is PipelineStatus.SUBMITTED


def test_silence_after_an_order_that_arrived_is_cleared_up_by_asking(desk: Desk) -> None:
    desk.broker.after["place_order"] = SILENCE
    (trace,) = desk.pipeline.run([signal("AAA")])
    assert (trace.status, n_orders(desk), scopes(desk)) == (PipelineStatus.SUBMITTED, 1, [])
    assert trace.order_id is not None


def test_silence_after_an_order_that_did_not_arrive_is_a_refusal(desk: Desk) -> None:
    desk.broker.before["place_order"] = SILENCE
    (trace,) = desk.pipeline.run([signal("AAA")])
    assert (trace.binding_constraint, n_orders(desk)) == (BindingConstraint.BROKER_UNAVAILABLE, 0)


@pytest.mark.parametrize("arrived", [True, False])
def test_lasting_silence_halts_the_symbol_until_the_broker_speaks(desk: Desk, arrived: bool) -> None:
    (desk.broker.after if arrived else desk.broker.before)["place_order"] = SILENCE
    desk.broker.before["find_order"] = SILENCE
    (trace, other) = desk.pipeline.run([signal("AAA"), bad_news("BBB")])
    assert (trace.status, other.status) == (PipelineStatus.UNKNOWN, PipelineStatus.KILLED)
    assert scopes(desk) == ["symbol:AAA"]
    desk.broker.before.pop("place_order", None)
    desk.broker.after.pop("place_order", None)
    (blocked, free) = desk.pipeline.run([signal("AAA"), signal("BBB")])
    # One that arrived is seen among the broker's open orders, and then the order itself stands in the way.
    assert blocked.binding_constraint is (BindingConstraint.TICKER_CAP if arrived else BindingConstraint.HALTED)
    assert free.status is PipelineStatus.SUBMITTED
    desk.broker.calm()
    fresh = desk.restart()
    fresh.pipeline.recover()
    assert scopes(fresh) == []
    assert n_orders(desk) == 1 + arrived
    states = {row["status"] for row in desk.rows("order_intents", symbol="AAA", side="buy")}
    assert states == ({"submitted"} if arrived else {"cancelled"})
    (stored,) = fresh.pipeline.log.find_traces([trace.signal_id])
    assert stored.status is (PipelineStatus.SUBMITTED if arrived else PipelineStatus.CANCELLED)


SYMBOLS = ("AAA", "BBB", "CCC")


def test_orders_of_a_turn_are_placed_together(desk: Desk) -> None:
    desk.broker.before["place_order"] = SILENCE
    traces = desk.pipeline.run([signal(symbol) for symbol in SYMBOLS])
    assert [trace.status for trace in traces] == [PipelineStatus.SUBMITTED] * 3
    assert (desk.broker.calls.count("place_orders"), n_orders(desk)) == (1, 3)
    ids = {row["symbol"]: f"paper-{row['order_number']}" for row in desk.rows("paper_orders")}
    assert {trace.symbol: trace.order_id for trace in traces} == ids


def test_orders_of_a_turn_that_surely_did_not_arrive_are_all_refused(desk: Desk) -> None:
    desk.broker.before["place_orders"] = BrokerUnavailableError("line cut")
    traces = desk.pipeline.run([signal(symbol) for symbol in SYMBOLS])
    assert {trace.binding_constraint for trace in traces} == {BindingConstraint.BROKER_UNAVAILABLE}
    assert [row["voided"] for row in desk.rows("trades")] == [True] * 3
    assert "place_order" not in desk.broker.calls
    assert (n_orders(desk), scopes(desk)) == (0, [])


@pytest.mark.parametrize("arrived", [True, False])
def test_silence_about_the_orders_of_a_turn_is_cleared_up_by_asking_for_each(desk: Desk, arrived: bool) -> None:
    (desk.broker.after if arrived else desk.broker.before)["place_orders"] = SILENCE
    traces = desk.pipeline.run([signal(symbol) for symbol in SYMBOLS])
    expected = PipelineStatus.SUBMITTED if arrived else PipelineStatus.KILLED
    assert [trace.status for trace in traces] == [expected] * 3
    assert (n_orders(desk), scopes(desk)) == (3 if arrived else 0, [])
    assert "place_order" not in desk.broker.calls


@pytest.mark.parametrize("arrived", [True, False])
def test_lasting_silence_about_the_orders_of_a_turn_halts_every_symbol_of_it(desk: Desk, arrived: bool) -> None:
    (desk.broker.after if arrived else desk.broker.before)["place_orders"] = SILENCE
    desk.broker.before["find_order"] = SILENCE
    traces = desk.pipeline.run([signal(symbol) for symbol in SYMBOLS])
    assert [trace.status for trace in traces] == [PipelineStatus.UNKNOWN] * 3
    assert scopes(desk) == [f"symbol:{symbol}" for symbol in SYMBOLS]
    desk.broker.calm()
    fresh = desk.restart()
    fresh.pipeline.recover()
    assert scopes(fresh) == []
    assert n_orders(desk) == (3 if arrived else 0)
    states = {row["status"] for row in desk.rows("order_intents", side="buy")}
    assert states == ({"submitted"} if arrived else {"cancelled"})


def test_an_order_that_the_broker_cannot_take_does_not_keep_it_from_the_others(desk: Desk) -> None:
    def take(order: Order) -> BrokerOrder:
        if order.symbol == "BBB":
            raise BrokerError("no such symbol")
        return desk.broker.inner.place_order(order)  # type: ignore[no-any-return]

    desk.broker.before["place_orders"] = BrokerError("no such symbol")
    desk.broker.instead["place_order"] = take
    traces = desk.pipeline.run([signal(symbol) for symbol in SYMBOLS])
    killed = [trace.status is PipelineStatus.KILLED for trace in traces]
    assert (killed, n_orders(desk), scopes(desk)) == ([False, True, False], 2, [])


@pytest.mark.parametrize("answer", [None, [], ["nonsense"] * 3, "abc"])
def test_nonsense_about_the_orders_of_a_turn_is_not_believed(desk: Desk, answer: Any) -> None:
    def take(orders: list[Order]) -> Any:
        desk.broker.inner.place_orders(orders)
        return answer

    desk.broker.instead["place_orders"] = take
    traces = desk.pipeline.run([signal(symbol) for symbol in SYMBOLS])
    assert [trace.status for trace in traces] == [PipelineStatus.SUBMITTED] * 3
    assert (n_orders(desk), scopes(desk)) == (3, [])
    assert "place_order" not in desk.broker.calls


def test_answers_in_another_order_are_not_taken_for_each_other(desk: Desk) -> None:
    desk.broker.instead["place_orders"] = lambda orders: desk.broker.inner.place_orders(orders)[::-1]
    traces = desk.pipeline.run([signal(symbol) for symbol in SYMBOLS])
    ids = {row["symbol"]: f"paper-{row['order_number']}" for row in desk.rows("paper_orders")}
    assert {trace.symbol: trace.order_id for trace in traces} == ids


def test_a_broker_of_real_money_gets_no_order_from_a_desk_that_is_not_armed(desk: Desk) -> None:
    senior = LimitsConfig(seniority=SeniorityConfig(agents=("zeus",)))
    desk.store.trading.save_seniority(Seniority(agent_name="zeus", tier=SeniorityTier.SENIOR, level=1))
    config = replace(desk.context.config, limits=senior, pythia=PythiaConfig(cold_confidence=0.9))

    class Real(Moody):
        is_paper = False

    real = Real(desk.broker.inner)
    trainee = desk.restart(broker=real, real_money_armed=True, config=replace(config, limits=LimitsConfig()))
    (trace,) = trainee.pipeline.run([signal("AAA")])
    assert (trace.killed_at_stage, trace.binding_constraint) == (Stage.LIMITS, BindingConstraint.SENIORITY_CAP)
    unarmed = desk.restart(broker=real, config=config)
    (trace,) = unarmed.pipeline.run([signal("AAA")])
    assert (trace.killed_at_stage, trace.binding_constraint) == (Stage.ARES, BindingConstraint.SENIORITY_CAP)
    assert n_orders(desk) == 0
    armed = desk.restart(broker=real, config=config, real_money_armed=True)
    (trace,) = armed.pipeline.run([signal("AAA")])
    assert (trace.status, trace.position_pct) == (PipelineStatus.SUBMITTED, 0.02)
    assert [row["paper_trading"] for row in desk.rows("trades")] == [False]


def other_order(order: Any) -> BrokerOrder:
    return BrokerOrder(
        client_order_id=order.client_order_id,
        order_id="7",
        symbol="ZZZ",
        side=order.side,
        qty=order.qty,
        status=PipelineStatus.SUBMITTED,
    )


NONSENSE: dict[str, Any] = {
    "nothing": None,
    "a text": "filled",
    "another symbol": other_order,
    "more shares": lambda order: replace(other_order(order), symbol=order.symbol, qty=order.qty + 1),
    "a state of ours": lambda order: replace(other_order(order), symbol=order.symbol, status=PipelineStatus.CLOSED),
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_about_an_order_is_not_believed(desk: Desk, answer: Any) -> None:
    desk.broker.instead["place_order"] = answer if callable(answer) else lambda order: answer
    desk.broker.before["find_order"] = BrokerError("more nonsense")
    (trace,) = desk.pipeline.run([signal("AAA")])
    assert trace.status is PipelineStatus.UNKNOWN
    assert scopes(desk) == ["symbol:AAA"]


def execution(**changes: Any) -> Execution:
    values: dict[str, Any] = {
        "exec_id": "x-1",
        "client_order_id": "a stranger",
        "leg": Leg.ENTRY,
        "symbol": "CCC",
        "side": Side.BUY,
        "qty": 1.0,
        "price": 20.0,
        "filled_at": NOW,
    }
    return Execution(**(values | changes))


def test_an_execution_that_nobody_ordered_halts_its_symbol_and_counts_nowhere(desk: Desk) -> None:
    desk.pipeline.run([signal("AAA")])
    desk.broker.instead["list_executions"] = [execution()]
    desk.pipeline.tick()
    desk.pipeline.tick()
    assert scopes(desk) == ["symbol:CCC"]
    assert desk.rows("fills") == []


def test_more_shares_than_ordered_are_not_counted_and_halt_the_symbol(desk: Desk) -> None:
    (trace,) = desk.pipeline.run([signal("AAA")])
    (order,) = desk.rows("paper_orders")
    mine = execution(client_order_id=order["client_order_id"], symbol="AAA", price=100.0)
    desk.broker.instead["list_executions"] = [replace(mine, qty=5.0), replace(mine, exec_id="x-2", qty=1.0)]
    desk.pipeline.tick()
    assert [float(row["qty"]) for row in desk.rows("fills")] == [5.0]
    assert scopes(desk) == ["symbol:AAA"]
    (stored,) = desk.pipeline.log.find_traces([trace.signal_id])
    assert stored.status is PipelineStatus.FILLED


def test_an_execution_reported_twice_counts_once_and_with_other_figures_halts(desk: Desk) -> None:
    desk.pipeline.run([signal("AAA")])
    (order,) = desk.rows("paper_orders")
    mine = execution(client_order_id=order["client_order_id"], symbol="AAA", price=100.0, qty=2.0)
    desk.broker.instead["list_executions"] = [mine, mine]
    desk.pipeline.tick()
    desk.pipeline.tick()
    fresh = desk.restart()
    fresh.pipeline.tick()
    assert [float(row["qty"]) for row in desk.rows("fills")] == [2.0]


def test_shares_that_the_fills_do_not_explain_halt_their_symbol_at_a_start(desk: Desk) -> None:
    desk.pipeline.run([signal("AAA")])
    desk.bar("AAA", 100.0)
    desk.pipeline.tick()
    desk.broker.instead["list_positions"] = []
    found = desk.restart().pipeline.recover()
    assert found.mismatched == ("AAA",)
    assert scopes(desk) == ["symbol:AAA"]


def test_cash_that_no_fill_explains_is_money_paid_in_and_no_profit(desk: Desk) -> None:
    account = desk.broker.inner.get_account()
    desk.broker.instead["get_account"] = replace(account, cash=account.cash + 1_000.0)
    fresh = desk.restart()
    found = fresh.pipeline.recover()
    assert found.valuation.equity == account.cash + 1_000.0
    assert sorted(amount for _, amount in fresh.pipeline.log.list_cash_movements()) == [1_000.0, account.cash]
    state = fresh.pipeline.argus.milestones.state
    assert state is not None
    assert state.milestone_origin == account.cash + 1_000.0


def test_a_position_whose_exits_cannot_be_cancelled_is_not_sold_twice(desk: Desk) -> None:
    desk.pipeline.run([signal("AAA")])
    desk.bar("AAA", 100.0)
    desk.broker.before["cancel_order"] = SILENCE
    desk.pipeline.run([])
    (trace,) = desk.pipeline.run([bad_news("AAA")])
    assert trace.status is PipelineStatus.UNKNOWN
    assert n_orders(desk) == 1
    desk.broker.calm()
    desk.clock.advance(timedelta(minutes=1))
    desk.pipeline.tick()
    assert n_orders(desk) == 2
    assert scopes(desk) == []
    desk.bar("AAA", 99.0)
    desk.pipeline.tick()
    assert desk.pipeline.argus.held == {}
    assert [trade.exit_reason for trade in desk.store.trading.trades.list_trades()] == ["signal"]


@pytest.mark.parametrize("method", ["list_executions", "list_open_orders", "list_positions", "get_account"])
@pytest.mark.parametrize("answer", [None, "nothing", [None]], ids=repr)
def test_nonsense_for_a_list_is_a_broker_that_does_not_answer(desk: Desk, method: str, answer: Any) -> None:
    desk.pipeline.run([signal("AAA")])
    desk.broker.instead[method] = answer
    fresh = desk.restart()
    assert not fresh.pipeline.recover().synced.reachable
    (trace,) = fresh.pipeline.run([signal("BBB")])
    assert trace.binding_constraint is BindingConstraint.BROKER_UNAVAILABLE
    desk.broker.calm()
    (trace,) = fresh.pipeline.run([signal("BBB")])
    assert trace.status is PipelineStatus.SUBMITTED


def test_silence_in_the_middle_of_a_sale_sells_at_the_next_tick(desk: Desk) -> None:
    desk.pipeline.run([signal("AAA")])
    desk.bar("AAA", 100.0)
    desk.pipeline.tick()
    exits = desk.broker.inner.cancel_order

    def cancel_and_fall_silent(name: str) -> Any:
        desk.broker.before["list_executions"] = SILENCE
        return exits(name)

    desk.broker.instead["cancel_order"] = cancel_and_fall_silent
    (trace,) = desk.pipeline.run([bad_news("AAA")])
    assert trace.status is PipelineStatus.UNKNOWN
    desk.broker.calm()
    desk.clock.advance(timedelta(minutes=1))
    desk.pipeline.tick()
    (sale,) = [order for order in desk.broker.list_open_orders() if order.side is Side.SELL]
    assert (sale.qty, scopes(desk)) == (5.0, [])


def test_what_an_exit_has_sold_is_not_sold_again_and_the_trade_has_the_mean_price(store: Store) -> None:
    clock = FixedClock(NOW)
    rules = MatchingRules(commission_bps=0.0, slippage_bps=0.0, participation_limit=0.5)
    broker = PaperBroker(store.trading.gateway, PaperConfig(initial_cash=CASH, rules=rules), clock)
    desk = build_desk(store, broker=broker, clock=clock)
    desk.pipeline.run([signal("AAA")])
    desk.bar("AAA", 100.0)
    desk.clock.advance(timedelta(minutes=1))
    # The stop is touched at 96, and half of four shares is all that this bar can buy.
    broker.on_bar(Bar(symbol="AAA", at=clock.now(), open=96.0, high=96.0, low=96.0, close=96.0, volume=4.0))
    desk.prices.last["AAA"] = 96.0
    (trace,) = desk.pipeline.run([bad_news("AAA")])
    assert trace.status is PipelineStatus.SUBMITTED
    desk.bar("AAA", 90.0)
    desk.pipeline.tick()
    (trade,) = store.trading.trades.list_trades()
    assert (trade.exit_price, trade.exit_reason) == (pytest.approx((2 * 96.0 + 3 * 90.0) / 5), "signal")
    desk.pipeline.tick()
    assert {row["status"] for row in desk.rows("order_intents")} == {"filled", "cancelled"}
    assert desk.pipeline.argus.closing == frozenset()


def test_a_broker_that_was_never_reached_leaves_the_equity_unknown_until_it_is(store: Store) -> None:
    clock = FixedClock(NOW)
    desk = build_desk(store, broker=Moody(paper_broker(store, clock)), clock=clock)
    for name in ("connect", "get_account", "list_executions", "list_positions", "list_open_orders"):
        desk.broker.before[name] = BrokerUnavailableError("away")
    (trace,) = desk.pipeline.run([signal("AAA")])
    assert (trace.killed_at_stage, trace.binding_constraint) == (Stage.LIMITS, BindingConstraint.UNKNOWN_EQUITY)
    assert n_orders(desk) == 0
    desk.broker.calm()
    assert desk.pipeline.tick().equity == CASH


def test_a_broker_that_goes_away_between_the_exits_and_the_sale_is_asked_again_to_sell(desk: Desk) -> None:
    desk.pipeline.run([signal("AAA")])
    desk.bar("AAA", 100.0)
    desk.pipeline.tick()
    desk.broker.before["place_order"] = BrokerUnavailableError("line cut")
    (trace,) = desk.pipeline.run([bad_news("AAA")])
    assert (trace.status, scopes(desk), n_orders(desk)) == (PipelineStatus.UNKNOWN, ["symbol:AAA"], 1)
    desk.pipeline.tick()
    assert (scopes(desk), n_orders(desk)) == (["symbol:AAA"], 1)
    desk.broker.calm()
    desk.pipeline.tick()
    (sale,) = [order for order in desk.broker.list_open_orders() if order.side is Side.SELL]
    assert (sale.qty, scopes(desk)) == (5.0, [])
    desk.bar("AAA", 99.0)
    desk.pipeline.tick()
    assert [trade.exit_reason for trade in desk.store.trading.trades.list_trades()] == ["signal"]


def refused_exits(order: Any) -> BrokerOrder:
    return refused(target_of(order))


def exits(desk: Desk) -> list[tuple[str, float]]:
    """Return which exits are open at the broker, and for how many shares."""
    orders = desk.broker.inner.list_open_orders()
    return [(order.client_order_id[-3:], order.qty - order.filled_qty) for order in orders if order.side is Side.SELL]


def hold(desk: Desk) -> None:
    desk.pipeline.run([signal("AAA")])
    desk.bar("AAA", 100.0)
    desk.pipeline.tick()
    assert exits(desk) == [("-sl", 5.0), ("-tp", 5.0)]


def test_a_position_whose_sale_is_rejected_has_its_exits_again(desk: Desk) -> None:
    hold(desk)
    desk.broker.instead["place_order"] = refused
    (trace,) = desk.pipeline.run([bad_news("AAA")])
    assert (trace.killed_at_stage, trace.binding_constraint) == (Stage.ARES, BindingConstraint.BROKER_UNAVAILABLE)
    assert trace.kill_reason == "not today; its exits had been cancelled for it and are placed anew"
    assert (exits(desk), scopes(desk)) == ([("-sl", 5.0), ("-tp", 5.0)], [])
    desk.broker.calm()
    for again in (desk, desk.restart()):
        again.pipeline.tick()
        assert (exits(desk), scopes(desk)) == ([("-sl", 5.0), ("-tp", 5.0)], [])
    assert sorted(row["status"] for row in desk.rows("order_intents", side="sell")) == [
        "cancelled",
        "cancelled",
        "rejected",
        "submitted",
        "submitted",
    ]
    desk.bar("AAA", 96.0)
    desk.pipeline.tick()
    (trade,) = desk.store.trading.trades.list_trades()
    assert (trade.exit_reason, trade.exit_price, trade.hit) == ("stop_loss", 96.0, False)
    assert desk.pipeline.argus.held == {}
    assert {row["status"] for row in desk.rows("order_intents", side="sell")} == {"cancelled", "rejected", "filled"}


def test_exits_that_are_placed_anew_have_the_old_prices_and_an_identity_of_the_sale(desk: Desk) -> None:
    hold(desk)
    desk.broker.instead["place_order"] = refused
    desk.pipeline.run([bad_news("AAA")])
    entry, anew = desk.rows("paper_orders")
    assert [float(anew[name]) for name in ("stop_loss_price", "take_profit_price", "qty")] == [97.0, 106.0, 5.0]
    assert anew["client_order_id"] != entry["client_order_id"]
    desk.broker.calm()
    # The sale that succeeds later ends these exits too, and sells once.
    desk.pipeline.run([bad_news("AAA")])
    assert exits(desk) == [(desk.rows("order_intents", status="submitted", side="sell")[-1]["client_order_id"][-3:], 5.0)]
    desk.bar("AAA", 99.0)
    desk.pipeline.tick()
    assert [trade.exit_reason for trade in desk.store.trading.trades.list_trades()] == ["signal"]
    assert (desk.pipeline.argus.held, exits(desk)) == ({}, [])


def test_a_sale_that_ends_later_with_shares_left_leads_to_exits_for_what_is_left(store: Store) -> None:
    clock = FixedClock(NOW)
    rules = MatchingRules(commission_bps=0.0, slippage_bps=0.0, participation_limit=0.5)
    broker = Moody(PaperBroker(store.trading.gateway, PaperConfig(initial_cash=CASH, rules=rules), clock))
    desk = build_desk(store, broker=broker, clock=clock)
    hold(desk)
    desk.pipeline.run([bad_news("AAA")])
    clock.advance(timedelta(minutes=1))
    broker.inner.on_bar(Bar(symbol="AAA", at=clock.now(), open=99.0, high=99.0, low=99.0, close=99.0, volume=4.0))
    (sale,) = [order for order in broker.list_open_orders() if order.side is Side.SELL]
    broker.inner.cancel_order(sale.client_order_id)
    told = broker.inner.list_executions()
    broker.instead["list_executions"] = told[:1]
    desk.pipeline.tick()
    assert exits(desk) == []  # how many shares are left is not known yet
    broker.calm()
    desk.pipeline.tick()
    assert (exits(desk), scopes(desk)) == ([("-sl", 3.0), ("-tp", 3.0)], [])
    desk.bar("AAA", 107.0)
    desk.pipeline.tick()
    (trade,) = desk.store.trading.trades.list_trades()
    assert trade.exit_price == pytest.approx((2 * 99.0 + 3 * 107.0) / 5)
    assert trade.exit_reason == "take_profit"
    assert desk.pipeline.argus.held == {}


@pytest.mark.parametrize("ends_its_exits", [False, True])
def test_what_an_entry_had_filled_when_the_broker_ended_it_has_exits(store: Store, ends_its_exits: bool) -> None:
    clock = FixedClock(NOW)
    rules = MatchingRules(commission_bps=0.0, slippage_bps=0.0, participation_limit=0.5)
    broker = Moody(PaperBroker(store.trading.gateway, PaperConfig(initial_cash=CASH, rules=rules), clock))
    desk = build_desk(store, broker=broker, clock=clock)
    desk.pipeline.run([signal("AAA")])
    clock.advance(timedelta(minutes=1))
    broker.inner.on_bar(Bar(symbol="AAA", at=clock.now(), open=100.0, high=100.0, low=100.0, close=100.0, volume=4.0))
    (entry,) = desk.rows("paper_orders")
    name = entry["client_order_id"]
    broker.inner.cancel_order(f"{name}-sl" if ends_its_exits else name)
    for again in (desk, desk, desk.restart()):
        again.pipeline.tick()
        assert (exits(desk), scopes(desk), n_orders(desk)) == ([("-sl", 2.0), ("-tp", 2.0)], [], 1 + ends_its_exits)
    desk.bar("AAA", 107.0)
    desk.pipeline.tick()
    (trade,) = desk.store.trading.trades.list_trades()
    assert (trade.qty, trade.exit_price, trade.exit_reason) == (2.0, 107.0, "take_profit")
    assert {row["status"] for row in desk.rows("order_intents")} <= {"filled", "cancelled"}


def test_exits_that_are_refused_too_halt_the_symbol_until_a_person_looks(desk: Desk) -> None:
    hold(desk)
    desk.broker.instead |= {"place_order": refused, "place_exits": refused_exits}
    desk.pipeline.run([bad_news("AAA")])
    desk.broker.calm()
    desk.pipeline.tick()
    desk.restart().pipeline.recover()
    (halt,) = desk.pipeline.argus.halts()
    assert (halt.scope, halt.actor) == ("symbol:AAA", "reconciler")
    assert halt.reason == "5 AAA have no exits, the broker refused them anew: not today"
    assert (exits(desk), desk.pipeline.argus.held) == ([], {"AAA": 5.0})
    # Once a person has resumed, the next sale that fails brings exits.
    desk.pipeline.resume(actor="operator", symbol="AAA")
    desk.broker.instead["place_order"] = refused
    desk.pipeline.run([bad_news("AAA")])
    assert (exits(desk), scopes(desk)) == ([("-sl", 5.0), ("-tp", 5.0)], [])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("answer", [SILENCE, BrokerUnavailableError("away")], ids=["silent", "away"])
def test_a_broker_that_falls_silent_over_exits_is_asked_at_each_tick(desk: Desk, when: str, answer: Exception) -> None:
    hold(desk)
    desk.broker.instead["place_order"] = refused
    getattr(desk.broker, when)["place_exits"] = answer
    desk.pipeline.run([bad_news("AAA")])
    assert scopes(desk) == ["symbol:AAA"]
    desk.broker.before["find_order"] = SILENCE
    desk.restart().pipeline.tick()
    assert scopes(desk) == ["symbol:AAA"]
    desk.broker.calm()
    desk.restart().pipeline.tick()
    assert (exits(desk), scopes(desk), n_orders(desk)) == ([("-sl", 5.0), ("-tp", 5.0)], [], 2)


def test_no_exits_are_placed_for_shares_that_the_broker_does_not_hold(desk: Desk) -> None:
    hold(desk)

    def refuse_and_sell(order: Any) -> BrokerOrder:
        desk.broker.instead["list_positions"] = []
        return refused(order)

    desk.broker.instead["place_order"] = refuse_and_sell
    desk.pipeline.run([bad_news("AAA")])
    (halt,) = desk.pipeline.argus.halts()
    assert halt.reason == "5 AAA have no exits, the broker refused them anew: it holds 0 shares, and the fills say 5"
    assert exits(desk) == []


def test_nothing_is_sold_that_the_broker_does_not_hold(desk: Desk) -> None:
    """A broker forgets the orders and executions of another day: what was sold then must not be sold again."""
    hold(desk)
    desk.broker.instead["list_positions"] = []
    (trace,) = desk.pipeline.run([bad_news("AAA")])
    assert (trace.status, scopes(desk)) == (PipelineStatus.UNKNOWN, ["symbol:AAA"])
    for _ in range(3):
        desk.clock.advance(timedelta(minutes=1))
        desk.restart().pipeline.tick()
    assert [row["side"] for row in desk.rows("paper_orders")] == ["buy"]
    assert exits(desk) == [("-sl", 5.0), ("-tp", 5.0)]


def test_a_halt_that_waits_for_an_answer_gives_way_to_one_that_stays(desk: Desk) -> None:
    hold(desk)
    desk.broker.before["place_order"] = SILENCE
    desk.pipeline.run([bad_news("AAA")])
    assert [halt.actor for halt in desk.pipeline.argus.halts()] == ["ares"]
    assert desk.pipeline.halt("I look into it", actor="operator", symbol="AAA")
    assert not desk.pipeline.argus.halt("symbol:AAA", reason="silence", actor="ares", now=desk.clock.now())
    desk.broker.calm()
    desk.clock.advance(timedelta(minutes=1))
    desk.pipeline.tick()
    assert [(halt.actor, halt.reason) for halt in desk.pipeline.argus.halts()] == [("operator", "I look into it")]


def test_an_execution_that_was_never_written_down_halts_until_a_person_resumes(desk: Desk) -> None:
    hold(desk)
    stranger = replace(desk.broker.inner.list_executions()[0], exec_id="x-9", client_order_id=str(uuid4()))
    desk.broker.instead["list_executions"] = [stranger]
    desk.clock.advance(timedelta(minutes=1))
    desk.pipeline.tick()
    assert [halt.actor for halt in desk.pipeline.argus.halts()] == ["reconciler"]


def test_a_fill_between_two_questions_is_not_taken_for_money_paid_out(desk: Desk) -> None:
    desk.pipeline.run([signal("AAA")])
    before = desk.pipeline.log.cash_movements()

    def answer_and_fill() -> Any:
        desk.broker.instead.pop("list_positions")
        found = desk.broker.inner.list_positions()
        desk.bar("AAA", 100.0)
        return found

    desk.broker.instead["list_positions"] = answer_and_fill
    desk.restart().pipeline.recover()
    desk.pipeline.tick()
    assert desk.pipeline.log.cash_movements() == before
    assert desk.pipeline.argus.held == {"AAA": 5.0}


def test_a_broker_that_places_no_exits_by_themselves_leaves_the_symbol_halted(desk: Desk) -> None:
    hold(desk)

    class Plain:
        """A broker of the protocol and no more."""

        def __init__(self, inner: Any) -> None:
            for name in ("connect", "list_open_orders", "list_executions", "list_positions", "get_account", "cancel_order"):
                setattr(self, name, getattr(inner, name))
            self.name, self.is_paper = "paper", True
            self.place_order, self.find_order = refused, inner.find_order

    plain = desk.restart(broker=Plain(desk.broker.inner))
    plain.pipeline.run([bad_news("AAA")])
    (halt,) = plain.pipeline.argus.halts()
    assert halt.actor == "reconciler"
    assert halt.reason.endswith("with shares left and no exits, and the broker paper places none for shares that are held")


def test_a_sale_of_unknown_outcome_that_turns_out_rejected_leads_to_exits_and_no_halt(desk: Desk) -> None:
    hold(desk)
    desk.broker.before |= {"place_order": SILENCE, "find_order": SILENCE}
    (trace,) = desk.pipeline.run([bad_news("AAA")])
    assert (trace.status, scopes(desk)) == (PipelineStatus.UNKNOWN, ["symbol:AAA"])
    desk.broker.calm()
    desk.broker.instead["place_order"] = refused
    desk.pipeline.tick()
    assert (exits(desk), scopes(desk)) == ([("-sl", 5.0), ("-tp", 5.0)], [])
    (stored,) = desk.pipeline.log.find_traces([trace.signal_id])
    assert stored.status is PipelineStatus.REJECTED


@pytest.mark.parametrize("silent", [False, True])
def test_a_sale_of_unknown_outcome_whose_exits_are_not_there_stays_halted(desk: Desk, silent: bool) -> None:
    hold(desk)
    desk.broker.before |= {"place_order": SILENCE, "find_order": SILENCE}
    desk.pipeline.run([bad_news("AAA")])
    desk.broker.calm()
    desk.broker.instead |= {"place_order": refused, "place_exits": refused_exits}
    if silent:
        desk.broker.before["place_exits"] = SILENCE
    desk.pipeline.tick()
    (halt,) = desk.pipeline.argus.halts()
    expected = "nobody knows whether 5 AAA have exits" if silent else "5 AAA have no exits, the broker refused them anew"
    assert (halt.actor, halt.reason.split(":")[0]) == ("exits" if silent else "reconciler", expected)


def test_exits_that_fill_while_they_are_cancelled_close_their_trade_at_the_next_tick(desk: Desk) -> None:
    desk.pipeline.run([signal("AAA")])
    desk.bar("AAA", 100.0)
    desk.pipeline.tick()
    cancel = desk.broker.inner.cancel_order

    def fill_and_cancel(name: str) -> Any:
        desk.broker.calm()
        desk.bar("AAA", 96.0)
        return cancel(name)

    desk.broker.instead["cancel_order"] = fill_and_cancel
    desk.pipeline.run([bad_news("AAA")])
    desk.pipeline.tick()
    assert n_orders(desk) == 1
    assert [trade.exit_reason for trade in desk.store.trading.trades.list_trades()] == ["stop_loss"]
    assert desk.pipeline.argus.held == {}
    assert scopes(desk) == []


def test_what_is_filled_while_entries_of_a_halt_are_cancelled_is_in_the_book_and_in_the_record(desk: Desk) -> None:
    desk.pipeline.run([signal("AAA"), signal("BBB")])
    desk.bar("AAA", 100.0)
    desk.pipeline.tick()
    cancel = desk.broker.inner.cancel_order

    def fill_and_cancel(name: str) -> Any:
        desk.broker.calm()
        desk.bar("AAA", 96.0)
        return cancel(name)

    desk.broker.instead["cancel_order"] = fill_and_cancel
    desk.pipeline.halt("looking into it", actor="operator", symbol="BBB")
    valuation = desk.pipeline.tick()
    assert (valuation.positions, valuation.equity) == (0.0, CASH - 5 * 4.0)
    assert [trade.exit_reason for trade in desk.store.trading.trades.list_trades(symbol="AAA")] == ["stop_loss"]
