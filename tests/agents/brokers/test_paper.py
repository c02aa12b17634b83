"""The paper broker over a real database: exactly once, and a book that adds up."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from agents.brokers.broker import Account, BrokerPosition, Leg, Order
from agents.brokers.matching import MatchingRules
from agents.brokers.paper import PaperBroker, PaperConfig
from agents.trading.market_data import Bar
from core.clock import FixedClock
from core.errors import (
    BrokerError,
    BrokerOutcomeUnknownError,
    BrokerUnavailableError,
    ConfigurationError,
    StoreUnavailableError,
)
from core.store.gateway import Gateway, Row
from core.store.opening import Store
from core.types import PipelineStatus, Side

T0 = datetime(2024, 1, 2, 21, tzinfo=UTC)
FREE = MatchingRules(commission_bps=0.0, slippage_bps=0.0)


def order(identity: str = "a", **changes: Any) -> Order:
    return Order(**{"client_order_id": identity, "symbol": "AAA", "side": Side.BUY, "qty": 100.0, **changes})


def bracket(identity: str = "a", **changes: Any) -> Order:
    return order(identity, **{"limit_price": 100.0, "stop_loss_price": 97.0, "take_profit_price": 106.0, **changes})


def bar(
    day: int, price: float, *, high: float | None = None, low: float | None = None, symbol: str = "AAA", **more: Any
) -> Bar:
    return Bar(
        symbol=symbol, at=T0 + timedelta(days=day), open=price, high=high or price, low=low or price, close=price, **more
    )


def build(gateway: Gateway, **changes: Any) -> PaperBroker:
    broker = PaperBroker(gateway, PaperConfig(**{"rules": FREE, "initial_cash": 100_000.0, **changes}), FixedClock(T0))
    broker.connect()
    return broker


@pytest.fixture
def broker(store: Store) -> PaperBroker:
    """A paper broker without costs and with 100,000 dollars."""
    return build(store.trading.gateway)


def check_the_book(owner: psycopg.Connection[Any], broker: PaperBroker) -> None:
    """Work cash and positions out again from the fills, in decimals, and compare."""
    owner.execute("set timezone to 'UTC'")
    initial, cash = owner.execute("select initial_cash, cash from paper_accounts where account = 'paper'").fetchone()  # type: ignore[misc]
    held: dict[str, Decimal] = {}
    for symbol, side, qty, price, commission in owner.execute(
        "select symbol, side::text, qty, price, commission from paper_fills where account = 'paper'"
    ):
        signed = qty if side == "buy" else -qty
        initial -= signed * price + commission
        held[symbol] = held.get(symbol, Decimal(0)) + signed
    assert cash == initial
    positions = dict(owner.execute("select symbol, qty from paper_positions where account = 'paper'").fetchall())
    assert positions == {symbol: qty for symbol, qty in held.items() if qty}
    assert {one.symbol: one.qty for one in broker.list_positions()} == {name: float(qty) for name, qty in positions.items()}


def test_a_bracket_is_bought_and_sold_at_its_target(broker: PaperBroker, owner: psycopg.Connection[Any]) -> None:
    placed = broker.place_order(bracket())
    assert (placed.status, placed.filled_qty, placed.order_id[:6]) == (PipelineStatus.SUBMITTED, 0.0, "paper-")
    assert broker.list_open_orders() == [placed]
    (bought,) = broker.on_bar(bar(1, 99.0))
    assert (bought.leg, bought.price, bought.client_order_id) == (Leg.ENTRY, 99.0, "a")
    assert broker.get_account() == Account(cash=90_100.0, currency="USD", account="paper")
    assert broker.list_positions() == [BrokerPosition(symbol="AAA", qty=100.0, avg_cost=99.0)]
    assert [one.client_order_id for one in broker.list_open_orders()] == ["a-sl", "a-tp"]
    (sold,) = broker.on_bar(bar(2, 105.0, high=107.0))
    assert (sold.leg, sold.price, sold.client_order_id, sold.side) == (Leg.TAKE_PROFIT, 106.0, "a-tp", Side.SELL)
    assert broker.list_open_orders() == broker.list_positions() == []
    assert broker.get_account().cash == 100_700.0
    assert broker.list_executions() == [bought, sold]
    assert broker.list_executions(T0 + timedelta(days=2)) == [sold]
    statuses = [broker.find_order(identity).status.value for identity in ("a", "a-tp", "a-sl")]  # type: ignore[union-attr]
    assert statuses == ["filled", "filled", "cancelled"]
    check_the_book(owner, broker)


def test_placing_it_again_returns_the_order_that_is_there(broker: PaperBroker, store: Store) -> None:
    first = broker.place_order(bracket())
    broker.on_bar(bar(1, 99.0))
    again = build(store.trading.gateway).place_order(bracket())
    assert again.order_id == first.order_id
    assert again.status is PipelineStatus.FILLED
    assert len(broker.list_executions()) == 1


def test_orders_placed_together_are_the_same_as_one_after_the_other(store: Store) -> None:
    orders = [
        order("a", qty=600.0, limit_price=100.0),
        bracket("b", symbol="BBB", qty=300.0),
        order("c", symbol="CCC", qty=200.0, limit_price=100.0),  # 10,000 of 100,000 are left
        order("d", symbol="DDD", qty=100.0, limit_price=100.0),
        order("e", qty=0.5, limit_price=100.0),
    ]
    one_by_one = build(store.trading.gateway, account="alone")
    together = build(store.trading.gateway, account="together")
    expected = [replace(one_by_one.place_order(item), order_id="any") for item in orders]
    answers = together.place_orders(orders)
    assert [replace(answer, order_id="any") for answer in answers] == expected
    assert [answer.status.value for answer in answers] == ["submitted", "submitted", "rejected", "submitted", "rejected"]
    assert len({answer.order_id for answer in answers}) == 5
    assert together.place_orders([orders[3], order("f", symbol="FFF", qty=1.0, limit_price=1.0), orders[0]])[::2] == [
        answers[3],
        answers[0],
    ]


def test_of_orders_placed_together_all_are_there_or_none(broker: PaperBroker, owner: psycopg.Connection[Any]) -> None:
    owner.execute("alter table paper_orders add constraint no_ccc check (symbol <> 'CCC')")
    with pytest.raises(BrokerError, match="no_ccc"):
        broker.place_orders([bracket("a"), bracket("b", symbol="BBB"), bracket("c", symbol="CCC")])
    assert broker.list_open_orders() == []
    assert broker.find_order("a") is None
    assert len(broker.place_orders([bracket("a"), bracket("b", symbol="BBB")])) == 2
    assert [one.client_order_id for one in broker.list_open_orders()] == ["a", "b"]


def test_the_same_bar_again_or_an_earlier_one_changes_nothing(broker: PaperBroker, owner: psycopg.Connection[Any]) -> None:
    broker.place_order(bracket())
    assert len(broker.on_bar(bar(2, 99.0))) == 1
    broker.place_order(order("b", symbol="AAA"))
    before = owner.execute("select version, cash from paper_accounts").fetchone()
    assert broker.on_bars([bar(2, 99.0), bar(1, 50.0), bar(2, 107.0)]) == []
    assert owner.execute("select version, cash from paper_accounts").fetchone() == before
    check_the_book(owner, broker)


def test_several_bars_at_once_are_the_same_as_one_after_the_other(store: Store, owner: psycopg.Connection[Any]) -> None:
    bars = [bar(1, 99.0), bar(1, 20.0, symbol="BBB"), bar(2, 105.0, high=107.0), bar(2, 21.0, symbol="BBB"), bar(3, 96.0)]
    results = []
    for name, batches in (("one", [bars[::-1]]), ("two", [[one] for one in bars])):
        broker = build(store.trading.gateway, account=name)
        broker.place_order(bracket())
        broker.place_order(order("b", symbol="BBB", qty=7.0))
        results.append([fill for batch in batches for fill in broker.on_bars(batch)])
    assert results[0] == results[1] != []
    assert len(results[0]) == 3


def test_an_order_meets_no_bar_that_ended_or_had_begun_when_it_was_placed(store: Store) -> None:
    broker = build(store.trading.gateway)
    broker.place_order(order())
    assert broker.on_bar(bar(0, 50.0)) == []
    assert len(broker.on_bar(bar(1, 50.0))) == 1
    careful = build(store.trading.gateway, account="careful", bar_seconds=25 * 3600.0)
    careful.place_order(order())
    assert careful.on_bar(bar(1, 50.0)) == []
    assert len(careful.on_bar(bar(2, 50.0))) == 1


def test_a_bar_of_unknown_length_proves_to_an_order_placed_within_it_only_its_close(store: Store) -> None:
    clock = FixedClock(T0)
    broker = PaperBroker(store.trading.gateway, PaperConfig(rules=FREE, bar_seconds=None), clock)
    broker.connect()
    broker.on_bar(bar(0, 99.0))
    clock.advance(timedelta(hours=20))
    broker.place_order(bracket())
    # It opened at 95 before the order was there; by its close it is too dear.
    day = Bar(symbol="AAA", at=T0 + timedelta(days=1), open=95.0, high=110.0, low=90.0, close=101.0)
    assert broker.on_bar(day) == []
    clock.advance(timedelta(hours=4))
    (entry,) = broker.on_bar(replace(day, at=T0 + timedelta(days=2), open=99.0, low=98.0, high=100.0, close=100.0))
    assert (entry.leg, entry.price) == (Leg.ENTRY, 99.0)
    (stop,) = broker.on_bar(replace(day, at=T0 + timedelta(days=3), open=98.0, high=99.0))
    assert (stop.leg, stop.price) == (Leg.STOP_LOSS, 97.0)


def test_orders_of_before_and_within_a_bar_of_unknown_length_share_its_volume(store: Store) -> None:
    clock = FixedClock(T0)
    rules = MatchingRules(commission_bps=0.0, slippage_bps=0.0, participation_limit=0.5)
    broker = PaperBroker(store.trading.gateway, PaperConfig(rules=rules, bar_seconds=None), clock)
    broker.connect()
    broker.on_bar(bar(0, 99.0, volume=0.0))
    broker.place_order(order("old", qty=60.0))
    clock.advance(timedelta(hours=20))
    broker.place_order(order("young", qty=60.0))
    fills = broker.on_bar(
        Bar(symbol="AAA", at=T0 + timedelta(days=1), open=95.0, high=99.0, low=90.0, close=98.0, volume=200.0)
    )
    assert [(fill.client_order_id, fill.qty, fill.price) for fill in fills] == [("old", 60.0, 95.0), ("young", 40.0, 98.0)]


def test_an_order_expires_with_the_bars_of_any_symbol(broker: PaperBroker) -> None:
    broker.place_order(bracket(expires_at=T0 + timedelta(hours=2)))
    broker.on_bar(bar(1, 20.0, symbol="BBB"))
    assert broker.find_order("a").status is PipelineStatus.EXPIRED  # type: ignore[union-attr]
    assert broker.on_bar(bar(1, 99.0)) == []


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (bracket(qty=1001.0), "1001 shares at 100 cost more than the 100000 of cash that is free"),
        (bracket(qty=1.5), "`qty` must be a multiple of 1, was 1.5"),
        (bracket(expires_at=T0), "`expires_at` must be after"),
        (order(side=Side.SELL), "100 shares are more than the 0 that are held"),
    ],
)
def test_what_cannot_be_is_rejected_with_its_reason(broker: PaperBroker, wrong: Order, reason: str) -> None:
    placed = broker.place_order(wrong)
    assert placed.status is PipelineStatus.REJECTED
    assert reason in placed.reason
    assert broker.find_order("a") == placed == broker.cancel_order("a")
    assert broker.on_bar(bar(1, 99.0)) == []
    assert broker.list_open_orders() == []


def test_cash_is_promised_once_and_a_market_order_counts_at_the_last_close(broker: PaperBroker) -> None:
    assert broker.place_order(bracket("a", qty=600.0)).status is PipelineStatus.SUBMITTED
    assert broker.place_order(bracket("b", qty=600.0)).status is PipelineStatus.REJECTED
    broker.on_bar(bar(1, 200.0))
    assert broker.place_order(order("c", qty=201.0)).status is PipelineStatus.REJECTED
    assert broker.place_order(order("d", qty=200.0)).status is PipelineStatus.SUBMITTED
    broker.cancel_order("d")
    broker.cancel_order("a")
    assert broker.place_order(order("e", qty=500.0)).status is PipelineStatus.SUBMITTED


def test_shares_that_exits_watch_over_are_free_when_these_are_cancelled(broker: PaperBroker) -> None:
    broker.place_order(bracket())
    broker.on_bar(bar(1, 99.0))
    refused = broker.place_order(order("s1", side=Side.SELL))
    assert refused.status is PipelineStatus.REJECTED
    cancelled = broker.cancel_order("a-tp")
    assert (cancelled.client_order_id, cancelled.status, cancelled.qty) == ("a-tp", PipelineStatus.CANCELLED, 100.0)
    assert broker.find_order("a-sl").status is PipelineStatus.CANCELLED  # type: ignore[union-attr]
    assert broker.place_order(order("s2", side=Side.SELL)).status is PipelineStatus.SUBMITTED
    assert broker.place_order(order("s3", side=Side.SELL, qty=1.0)).status is PipelineStatus.REJECTED
    assert [fill.client_order_id for fill in broker.on_bar(bar(2, 90.0))] == ["s2"]
    assert broker.list_positions() == []


def test_selling_short_has_to_be_allowed(store: Store, owner: psycopg.Connection[Any]) -> None:
    broker = build(store.trading.gateway, allow_short=True)
    broker.place_order(order("a", side=Side.SELL, qty=10.0))
    broker.on_bar(bar(1, 50.0))
    assert broker.list_positions() == [BrokerPosition(symbol="AAA", qty=-10.0, avg_cost=50.0)]
    broker.place_order(order("b", qty=30.0))
    broker.on_bar(bar(2, 40.0))
    assert broker.list_positions() == [BrokerPosition(symbol="AAA", qty=20.0, avg_cost=40.0)]
    broker.place_order(order("c", qty=20.0))
    broker.on_bar(bar(3, 50.0))
    assert broker.list_positions() == [BrokerPosition(symbol="AAA", qty=40.0, avg_cost=45.0)]
    broker.place_order(order("d", side=Side.SELL, qty=10.0))
    broker.on_bar(bar(4, 60.0))
    assert broker.list_positions() == [BrokerPosition(symbol="AAA", qty=30.0, avg_cost=45.0)]
    check_the_book(owner, broker)


def test_cancelling_a_part_filled_entry_leaves_its_exits(store: Store) -> None:
    broker = build(store.trading.gateway, rules=MatchingRules(participation_limit=0.1))
    broker.place_order(bracket())
    broker.on_bar(bar(1, 99.0, volume=300.0))
    cancelled = broker.cancel_order("a")
    assert (cancelled.status, cancelled.filled_qty) == (PipelineStatus.CANCELLED, 30.0)
    assert [(one.client_order_id, one.qty) for one in broker.list_open_orders()] == [("a-sl", 30.0), ("a-tp", 30.0)]
    assert broker.cancel_order("a") == cancelled


def test_an_entry_that_loses_an_exit_buys_no_more(broker: PaperBroker) -> None:
    broker.place_order(bracket())
    assert broker.cancel_order("a-sl").status is PipelineStatus.CANCELLED
    assert broker.find_order("a").status is PipelineStatus.CANCELLED  # type: ignore[union-attr]
    assert broker.on_bar(bar(1, 99.0)) == []


def test_only_a_bracket_has_exits(broker: PaperBroker) -> None:
    broker.place_order(order("a"))
    broker.place_order(order("b-sl"))
    assert broker.find_order("a-sl") is None
    assert broker.find_order("b-sl").client_order_id == "b-sl"  # type: ignore[union-attr]
    with pytest.raises(BrokerError, match="no order 'a-tp'"):
        broker.cancel_order("a-tp")
    assert [one.client_order_id for one in broker.list_open_orders()] == ["a", "b-sl"]


def test_an_account_must_be_opened_and_keeps_its_money_and_currency(store: Store) -> None:
    gateway = store.trading.gateway
    unopened = PaperBroker(gateway, PaperConfig(account="none"), FixedClock(T0))
    for ask in (unopened.get_account, unopened.list_open_orders, lambda: unopened.place_order(order())):
        with pytest.raises(BrokerError, match="none"):
            ask()
    build(gateway, initial_cash=5.0)
    assert build(gateway, initial_cash=7.0).get_account().cash == 5.0
    with pytest.raises(BrokerError, match="kept in USD, not in EUR"):
        build(gateway, currency="EUR")
    with pytest.raises(ConfigurationError, match="initial_cash"):
        PaperConfig(initial_cash=0.0)
    with pytest.raises(ConfigurationError, match="bar_seconds"):
        PaperConfig(bar_seconds=-1.0)


def test_many_writers_at_once_place_each_order_once_and_process_each_bar_once(
    broker: PaperBroker, store: Store, owner: psycopg.Connection[Any]
) -> None:
    names = [f"o{number}" for number in range(12)]

    def work(number: int) -> list[str]:
        own = build(store.trading.gateway)
        for name in names:
            own.place_order(order(name, qty=3.0))
        return [fill.exec_id for day in (1, 2) for fill in own.on_bar(bar(day, 50.0 + day))]

    with ThreadPoolExecutor(4) as pool:
        reported = [exec_id for ids in pool.map(work, range(4)) for exec_id in ids]
    broker.on_bar(bar(3, 53.0))
    fills = broker.list_executions()
    assert sorted(fill.client_order_id for fill in fills) == sorted(names)
    assert len(set(reported)) == len(reported), "one writer reports a fill"
    check_the_book(owner, broker)


class Breaking:
    """A gateway whose connection is lost before or after the database has worked."""

    def __init__(self, inner: Gateway, *, after: bool) -> None:
        self._inner, self._after = inner, after

    def rpc(self, function: str, **arguments: Any) -> list[Row]:
        if self._after:
            self._inner.rpc(function, **arguments)
        raise StoreUnavailableError("the line is cut")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.mark.parametrize("after", [False, True])
def test_a_lost_connection_leaves_the_outcome_unknown_and_asking_tells(broker: PaperBroker, store: Store, after: bool) -> None:
    cut = PaperBroker(Breaking(store.trading.gateway, after=after), PaperConfig(rules=FREE), FixedClock(T0))  # type: ignore[arg-type]
    with pytest.raises(BrokerOutcomeUnknownError, match="in the middle of a"):
        cut.place_order(bracket())
    assert (broker.find_order("a") is not None) is after
    assert broker.place_order(bracket()).status is PipelineStatus.SUBMITTED
    assert len(broker.list_open_orders()) == 1
    with pytest.raises(BrokerUnavailableError, match="cannot be reached"):
        cut.list_open_orders()


def test_a_bar_that_fails_in_the_middle_leaves_nothing_of_itself(broker: PaperBroker, owner: psycopg.Connection[Any]) -> None:
    broker.place_order(bracket())
    owner.execute("alter table paper_positions add constraint no_more check (false) not valid")
    with pytest.raises(BrokerError, match="no_more"):
        broker.on_bar(bar(1, 99.0))
    assert broker.list_executions() == []
    assert broker.find_order("a").filled_qty == 0.0  # type: ignore[union-attr]
    assert owner.execute("select count(*) from paper_bars").fetchone() == (0,)
    owner.execute("alter table paper_positions drop constraint no_more")
    assert len(broker.on_bar(bar(1, 99.0))) == 1
    check_the_book(owner, broker)


class Market(RuleBasedStateMachine):
    """Orders, bars, cancels and restarts in any order; the book always adds up and nobody sells what is not there."""

    gateway: Gateway
    owner: psycopg.Connection[Any]

    @initialize()
    def start(self) -> None:
        self.owner.execute(
            "begin; alter table paper_fills disable trigger user;"
            "delete from paper_fills; delete from paper_orders; delete from paper_positions; delete from paper_bars;"
            "delete from paper_accounts; alter table paper_fills enable trigger user; commit"
        )
        self.day = 0
        self.count = 0
        self.restart()

    @rule()
    def restart(self) -> None:
        rules = MatchingRules(participation_limit=0.1, commission_bps=10.0, minimum_commission=0.25)
        self.broker = PaperBroker(
            self.gateway, PaperConfig(rules=rules, initial_cash=20_000.0), FixedClock(T0 + timedelta(days=self.day))
        )
        self.broker.connect()

    @rule(symbol=st.sampled_from(["AAA", "BBB"]), qty=st.integers(1, 90), limit=st.floats(80, 120).map(lambda x: round(x, 2)))
    def buy(self, symbol: str, qty: int, limit: float) -> None:
        self.count += 1
        exits = {"stop_loss_price": limit * 0.97, "take_profit_price": limit * 1.06}
        wanted = bracket(f"o{self.count}", symbol=symbol, qty=float(qty), limit_price=limit, **exits)
        assert self.broker.place_order(wanted).order_id == self.broker.place_order(wanted).order_id

    @rule(symbol=st.sampled_from(["AAA", "BBB"]), qty=st.integers(1, 90))
    def sell(self, symbol: str, qty: int) -> None:
        self.count += 1
        self.broker.place_order(order(f"o{self.count}", symbol=symbol, qty=float(qty), side=Side.SELL))

    @rule(number=st.integers(1, 30), suffix=st.sampled_from(["", "-sl", "-tp"]))
    def cancel(self, number: int, suffix: str) -> None:
        if self.broker.find_order(f"o{number}{suffix}") is not None:
            self.broker.cancel_order(f"o{number}{suffix}")

    @rule(
        symbol=st.sampled_from(["AAA", "BBB"]),
        four=st.lists(st.floats(75, 130).map(lambda x: round(x, 2)), min_size=4, max_size=4),
        volume=st.integers(0, 900),
        again=st.booleans(),
    )
    def trade(self, symbol: str, four: list[float], volume: int, again: bool) -> None:
        self.day += 1
        at = T0 + timedelta(days=self.day)
        one = Bar(symbol=symbol, at=at, open=four[0], high=max(four), low=min(four), close=four[3], volume=float(volume))
        known = {fill.exec_id for fill in self.broker.list_executions()}
        new = self.broker.on_bar(one)
        assert not known & {fill.exec_id for fill in new}
        if again:
            assert self.broker.on_bar(one) == []
        self.restart()

    @invariant()
    def the_book_adds_up(self) -> None:
        check_the_book(self.owner, self.broker)
        held = {one.symbol: one.qty for one in self.broker.list_positions()}
        assert all(qty > 0 for qty in held.values())
        watched = self.owner.execute(
            "select symbol, sum(filled_qty - stop_filled_qty - target_filled_qty) from paper_orders"
            " where stop_loss_price is not null and not exits_cancelled group by 1"
        )
        assert all(qty <= held.get(symbol, 0.0) for symbol, qty in watched)


def test_the_book_adds_up_whatever_happens(store: Store, owner: psycopg.Connection[Any]) -> None:
    Market.gateway, Market.owner = store.trading.gateway, owner
    run_state_machine_as_test(
        Market,
        settings=settings(max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)),
    )
