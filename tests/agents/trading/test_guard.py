"""A position whose exits ended at the broker without our asking: it is noticed, told, and has exits again, once."""

import importlib.util
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from agents.brokers.broker import BrokerOrder, Leg, exit_ids
from agents.brokers.matching import MatchingRules
from agents.brokers.paper import PaperBroker, PaperConfig
from agents.trading.market_data import Bar
from agents.trading.reconciliation import ENDED
from core.clock import FixedClock
from core.errors import BrokerOutcomeUnknownError, BrokerUnavailableError
from core.store.opening import Store
from core.types import PipelineStatus, Side
from tests.agents.brokers.worlds import IBWorld, PaperWorld, alpaca_world, ib_world
from tests.agents.trading.desk import CASH, NOW, Desk, bad_news, build_desk, paper_broker, signal
from tests.agents.trading.test_brokers_that_fail import Moody, n_orders, refused_exits, scopes

pytestmark = pytest.mark.filterwarnings("ignore:websockets.legacy is deprecated:DeprecationWarning")

PAIR = [("-sl", 5.0), ("-tp", 5.0)]


class Told:
    """Whoever is told, with everything told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []

    def report(self, subject: str, state: str, text: str = "") -> bool:
        if subject.startswith("exits"):
            self.told.append((subject, state, text))
        return True


def exits(broker: Any) -> list[tuple[str, float]]:
    """Return which exits work at the broker, and for how many shares."""
    orders = [order for order in broker.list_open_orders() if order.side is Side.SELL]
    return sorted((order.client_order_id[-3:], order.qty - order.filled_qty) for order in orders)


@pytest.fixture
def desk(store: Store) -> Desk:
    """A desk that holds five shares of AAA."""
    clock = FixedClock(NOW)
    desk = build_desk(store, broker=Moody(paper_broker(store, clock)), clock=clock, alerts=Told())
    desk.pipeline.run([signal("AAA")])
    desk.bar("AAA", 100.0)
    desk.pipeline.tick()
    assert exits(desk.broker.inner) == PAIR
    return desk


def end_exits(desk: Desk, leg: Leg = Leg.STOP_LOSS) -> None:
    """Cancel an exit at the broker, as a person there would, and let a minute pass."""
    newest = [row["client_order_id"] for row in desk.rows("paper_orders", symbol="AAA")][-1]
    desk.broker.inner.cancel_order(exit_ids(newest)[leg])
    assert exits(desk.broker.inner) == []
    desk.clock.advance(timedelta(minutes=1))


def told(desk: Desk) -> list[tuple[str, str, str]]:
    alerts = desk.context.alerts
    assert isinstance(alerts, Told)
    return alerts.told


@pytest.mark.parametrize("leg", list(exit_ids("")))
def test_exits_that_somebody_cancelled_come_back_after_two_looks(desk: Desk, leg: Leg) -> None:
    end_exits(desk, leg)
    desk.pipeline.tick()
    assert (exits(desk.broker.inner), told(desk)) == ([], [])
    desk.pipeline.tick()
    assert (exits(desk.broker.inner), scopes(desk), n_orders(desk)) == (PAIR, [], 2)
    assert told(desk) == [("exits AAA", "missing", "5 AAA have no stop at the broker: exits are asked for anew")]
    entry, anew = desk.rows("paper_orders")
    assert [anew[name] for name in ("stop_loss_price", "take_profit_price")] == [
        entry[name] for name in ("stop_loss_price", "take_profit_price")
    ]
    for again in (desk, desk.restart()):
        desk.clock.advance(timedelta(minutes=1))
        again.pipeline.tick()
        again.pipeline.tick()
        assert (exits(desk.broker.inner), n_orders(desk)) == (PAIR, 2)
    assert told(desk)[1:] == [("exits AAA", "there", "")]
    desk.bar("AAA", 96.0)
    desk.pipeline.tick()
    (trade,) = desk.store.trading.trades.list_trades()
    assert (trade.exit_reason, trade.exit_price, desk.pipeline.argus.held) == ("stop_loss", 96.0, {})
    assert {row["status"] for row in desk.rows("order_intents", side="sell")} == {"cancelled", "filled"}


def test_a_start_does_not_wait_for_a_second_tick(desk: Desk) -> None:
    end_exits(desk)
    assert desk.restart().pipeline.recover().synced.reachable
    assert (exits(desk.broker.inner), n_orders(desk)) == (PAIR, 2)


def test_exits_that_end_again_and_again_are_replaced_each_time(desk: Desk) -> None:
    for times in (1, 2, 3):
        end_exits(desk)
        desk.pipeline.tick()
        desk.pipeline.tick()
        assert (exits(desk.broker.inner), n_orders(desk)) == (PAIR, 1 + times)
    desk.bar("AAA", 107.0)
    desk.pipeline.tick()
    assert [trade.exit_reason for trade in desk.store.trading.trades.list_trades()] == ["take_profit"]


def test_where_everything_is_covered_a_minute_costs_one_question(desk: Desk) -> None:
    desk.pipeline.tick()
    for seconds, asked in ((1, 0), (57, 0), (1, 0), (1, 1), (1, 0), (60, 1)):
        desk.clock.advance(timedelta(seconds=seconds))
        desk.broker.calls.clear()
        desk.pipeline.tick()
        assert desk.broker.calls == ["list_executions"] + ["list_open_orders"] * asked


def test_with_nothing_held_nothing_is_asked(store: Store) -> None:
    clock = FixedClock(NOW)
    desk = build_desk(store, broker=Moody(paper_broker(store, clock)), clock=clock)
    desk.pipeline.recover()
    desk.broker.calls.clear()
    clock.advance(timedelta(minutes=5))
    desk.pipeline.tick()
    assert desk.broker.calls == ["list_executions"]


def test_an_exit_that_fills_while_the_orders_are_looked_at_gets_no_successor(desk: Desk) -> None:
    desk.clock.advance(timedelta(minutes=1))

    def fill_and_list() -> list[BrokerOrder]:
        desk.broker.calm()
        desk.bar("AAA", 96.0)
        return desk.broker.inner.list_open_orders()  # type: ignore[no-any-return]

    desk.broker.instead["list_open_orders"] = fill_and_list
    for _ in range(3):
        desk.pipeline.tick()
        assert (exits(desk.broker.inner), scopes(desk), n_orders(desk)) == ([], [], 1)
    assert [trade.exit_reason for trade in desk.store.trading.trades.list_trades()] == ["stop_loss"]
    assert (desk.pipeline.argus.held, told(desk)) == ({}, [])


@pytest.mark.parametrize("positions_late", [False, True])
def test_an_exit_whose_execution_is_reported_late_gets_no_successor_and_no_halt(desk: Desk, positions_late: bool) -> None:
    desk.broker.instead["list_executions"] = desk.broker.inner.list_executions()
    if positions_late:
        desk.broker.instead["list_positions"] = desk.broker.inner.list_positions()
    desk.bar("AAA", 96.0)
    for _ in range(3):
        desk.clock.advance(timedelta(minutes=1))
        desk.pipeline.tick()
        assert (exits(desk.broker.inner), scopes(desk), n_orders(desk)) == ([], [], 1)
    desk.broker.calm()
    desk.pipeline.tick()
    assert (desk.pipeline.argus.held, told(desk), scopes(desk)) == ({}, [], [])


def test_a_partly_filled_exit_that_is_cancelled_leads_to_exits_for_what_is_left(store: Store) -> None:
    clock = FixedClock(NOW)
    rules = MatchingRules(commission_bps=0.0, slippage_bps=0.0, participation_limit=0.5)
    broker = Moody(PaperBroker(store.trading.gateway, PaperConfig(initial_cash=CASH, rules=rules), clock))
    desk = build_desk(store, broker=broker, clock=clock, alerts=Told())
    desk.pipeline.run([signal("AAA")])
    desk.bar("AAA", 100.0)
    clock.advance(timedelta(minutes=1))
    broker.inner.on_bar(Bar(symbol="AAA", at=clock.now(), open=107.0, high=107.0, low=107.0, close=107.0, volume=4.0))
    end_exits(desk)
    for _ in range(3):
        desk.pipeline.tick()
    assert (exits(broker.inner), scopes(desk)) == ([("-sl", 3.0), ("-tp", 3.0)], [])
    desk.bar("AAA", 96.0)
    desk.pipeline.tick()
    (trade,) = store.trading.trades.list_trades()
    assert trade.exit_price == pytest.approx((2 * 107.0 + 3 * 96.0) / 5)
    assert desk.pipeline.argus.held == {}


def test_a_position_that_is_being_sold_gets_no_exits(desk: Desk) -> None:
    desk.pipeline.run([bad_news("AAA")])
    for _ in range(3):
        desk.clock.advance(timedelta(minutes=1))
        desk.pipeline.tick()
    assert (n_orders(desk), len(exits(desk.broker.inner)), told(desk)) == (2, 1, [])


def test_a_position_whose_sale_the_broker_has_not_got_yet_gets_no_exits(desk: Desk) -> None:
    desk.broker.before["place_order"] = BrokerUnavailableError("line cut")
    desk.pipeline.run([bad_news("AAA")])
    for _ in range(3):
        desk.clock.advance(timedelta(minutes=1))
        desk.pipeline.tick()
    assert (n_orders(desk), exits(desk.broker.inner), told(desk)) == (1, [], [])
    desk.broker.calm()
    desk.pipeline.tick()
    assert (n_orders(desk), len(exits(desk.broker.inner))) == (2, 1)


def test_a_symbol_that_is_halted_is_left_alone_and_told(desk: Desk) -> None:
    desk.pipeline.halt("I close this one myself", actor="operator", symbol="AAA")
    end_exits(desk)
    for _ in range(3):
        desk.pipeline.tick()
    assert (exits(desk.broker.inner), n_orders(desk)) == ([], 1)
    ((subject, state, text),) = told(desk)
    assert (subject, state) == ("exits AAA", "missing")
    assert "the symbol is halted" in text
    desk.pipeline.resume(actor="operator", symbol="AAA")
    desk.clock.advance(timedelta(minutes=1))
    desk.pipeline.tick()
    desk.pipeline.tick()
    assert exits(desk.broker.inner) == PAIR


def test_a_halt_of_all_trading_does_not_leave_a_position_naked(desk: Desk) -> None:
    desk.pipeline.halt("the market is mad", actor="operator")
    end_exits(desk)
    desk.pipeline.tick()
    desk.pipeline.tick()
    assert (exits(desk.broker.inner), scopes(desk)) == (PAIR, ["all"])


def test_exits_that_are_refused_halt_the_symbol_and_are_tried_again_once_it_is_resumed(desk: Desk) -> None:
    end_exits(desk)
    desk.broker.instead["place_exits"] = refused_exits
    for _ in range(4):
        desk.pipeline.tick()
        desk.clock.advance(timedelta(minutes=1))
    (halt,) = desk.pipeline.argus.halts()
    assert (halt.actor, halt.reason) == ("reconciler", "5 AAA have no exits, the broker refused them anew: not today")
    assert desk.broker.calls.count("place_exits") == 1
    desk.broker.calm()
    desk.pipeline.resume(actor="operator", symbol="AAA")
    desk.pipeline.tick()
    desk.pipeline.tick()
    assert (exits(desk.broker.inner), scopes(desk)) == (PAIR, [])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("answer", [BrokerOutcomeUnknownError("no answer"), BrokerUnavailableError("away")])
def test_a_broker_that_falls_silent_over_exits_ends_with_one_pair(desk: Desk, when: str, answer: Exception) -> None:
    end_exits(desk)
    getattr(desk.broker, when)["place_exits"] = answer
    desk.pipeline.tick()
    desk.pipeline.tick()
    # Exits that arrived are found by asking at once.
    assert scopes(desk) == (["symbol:AAA"] if when == "before" else [])
    desk.broker.calm()
    for again in (desk.restart(), desk):
        desk.clock.advance(timedelta(minutes=1))
        again.pipeline.tick()
        assert (exits(desk.broker.inner), scopes(desk), n_orders(desk)) == (PAIR, [], 2)


def test_shares_that_are_not_there_get_no_exits_and_halt_their_symbol(desk: Desk) -> None:
    end_exits(desk)
    desk.broker.instead["list_positions"] = []
    desk.pipeline.tick()
    assert scopes(desk) == []
    desk.pipeline.tick()
    (halt,) = desk.pipeline.argus.halts()
    assert (halt.scope, halt.actor) == ("symbol:AAA", "guard")
    assert halt.reason == "no exits watch over AAA: the broker holds 0 of AAA, the fills say 5"
    assert (exits(desk.broker.inner), n_orders(desk)) == ([], 1)


@pytest.mark.parametrize("method", ["list_open_orders", "find_order"])
def test_a_broker_that_goes_away_while_it_is_looked_at_is_asked_again(desk: Desk, method: str) -> None:
    end_exits(desk)
    desk.broker.before[method] = BrokerUnavailableError("away")
    desk.pipeline.tick()
    assert not desk.pipeline.housekeeping.synced.reachable
    desk.broker.calm()
    desk.pipeline.tick()
    assert desk.pipeline.housekeeping.synced.reachable
    assert (exits(desk.broker.inner), n_orders(desk)) == (PAIR, 2)


# At every broker

LIBRARIES = {"paper": None, "alpaca": "alpaca", "ib": "ib_async"}


@pytest.fixture(params=LIBRARIES)
def world(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each broker's other side."""
    library = LIBRARIES[request.param]
    if library is not None and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: nothing is known of the {request.param} broker")
    if request.param == "paper":
        yield PaperWorld(request.getfixturevalue("store").trading.gateway)
    else:
        with alpaca_world() if request.param == "alpaca" else ib_world() as other:
            yield other


def open_at(world: Any, store: Store) -> tuple[Desk, str, float]:
    """Open a desk at a broker and have it order; return the entry's identity and how many shares it is for."""
    desk = build_desk(store, broker=world.connect(), clock=FixedClock(NOW), alerts=Told())
    desk.pipeline.recover()
    (trace,) = desk.pipeline.run([signal("AAA")])
    assert trace.status is PipelineStatus.SUBMITTED
    (row,) = desk.rows("order_intents", side="buy")
    return desk, str(row["client_order_id"]), float(row["qty"])


def pass_minutes(desk: Desk, ticks: int = 2) -> None:
    for _ in range(ticks):
        desk.clock.advance(timedelta(minutes=1))
        desk.pipeline.tick()


def working_stop(desk: Desk) -> str:
    (stop,) = [one.client_order_id for one in desk.broker.list_open_orders() if one.client_order_id.endswith("-sl")]
    return str(stop)


def check_that_the_stop_closes_it(desk: Desk, world: Any, qty: float) -> None:
    world.fill(working_stop(desk), qty, 96.0)
    pass_minutes(desk)
    assert (desk.pipeline.argus.held, desk.broker.list_positions(), exits(desk.broker)) == ({}, [], [])
    assert [trade.exit_reason for trade in desk.store.trading.trades.list_trades()] == ["stop_loss"]


@pytest.mark.parametrize("leg", list(exit_ids("")))
def test_at_every_broker_a_position_whose_exits_ended_there_has_them_again(world: Any, store: Store, leg: Leg) -> None:
    desk, name, qty = open_at(world, store)
    world.fill(name, qty, 100.0)
    pass_minutes(desk)
    pair = [("-sl", qty), ("-tp", qty)]
    assert exits(desk.broker) == pair
    for identity in exit_ids(name).values() if isinstance(world, IBWorld) else [exit_ids(name)[leg]]:
        world.end(identity)
    assert exits(desk.broker) == []
    pass_minutes(desk, 4)
    assert (exits(desk.broker), scopes(desk)) == (pair, [])
    assert [state for _, state, _ in told(desk)] == ["missing", "there"]
    assert not working_stop(desk).startswith(name)
    check_that_the_stop_closes_it(desk, world, qty)


def test_at_every_broker_a_start_finds_what_ended_while_nobody_looked(world: Any, store: Store) -> None:
    desk, name, qty = open_at(world, store)
    world.fill(name, qty, 100.0)
    for identity in exit_ids(name).values() if isinstance(world, IBWorld) else [exit_ids(name)[Leg.STOP_LOSS]]:
        world.end(identity)
    fresh = desk.restart(broker=world.connect())
    assert fresh.pipeline.recover().synced.reachable
    assert (exits(fresh.broker), scopes(fresh)) == ([("-sl", qty), ("-tp", qty)], [])
    check_that_the_stop_closes_it(fresh, world, qty)


@pytest.mark.parametrize("world", ["ib"], indirect=True)
def test_a_target_alone_is_ended_before_a_pair_takes_its_place(world: Any, store: Store) -> None:
    desk, name, qty = open_at(world, store)
    world.fill(name, qty, 100.0)
    pass_minutes(desk)
    world.end(exit_ids(name)[Leg.STOP_LOSS])
    assert exits(desk.broker) == [("-tp", qty)]
    pass_minutes(desk)
    assert (exits(desk.broker), scopes(desk)) == ([("-sl", qty), ("-tp", qty)], [])
    assert desk.broker.find_order(exit_ids(name)[Leg.TAKE_PROFIT]).status is PipelineStatus.CANCELLED
    check_that_the_stop_closes_it(desk, world, qty)


@pytest.mark.parametrize("world", ["ib"], indirect=True)
def test_a_target_that_cannot_be_ended_keeps_a_second_pair_away(
    world: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, name, qty = open_at(world, store)
    world.fill(name, qty, 100.0)
    pass_minutes(desk)
    world.end(exit_ids(name)[Leg.STOP_LOSS])

    def refuse(identity: str) -> None:
        raise BrokerUnavailableError("not now")

    with monkeypatch.context() as patch:
        patch.setattr(desk.broker, "cancel_order", refuse)
        pass_minutes(desk, 3)
        assert exits(desk.broker) == [("-tp", qty)]
        assert "could not be cancelled" in told(desk)[0][2]
    world.fill(exit_ids(name)[Leg.TAKE_PROFIT], qty, 106.0)
    pass_minutes(desk, 3)
    assert (desk.pipeline.argus.held, exits(desk.broker), scopes(desk)) == ({}, [], [])


@pytest.mark.parametrize("world", ["ib"], indirect=True)
def test_a_target_that_fills_while_it_is_ended_leads_to_no_new_pair(
    world: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, name, qty = open_at(world, store)
    world.fill(name, qty, 100.0)
    pass_minutes(desk)
    world.end(exit_ids(name)[Leg.STOP_LOSS])
    ending = desk.broker.cancel_order

    def fill_and_cancel(identity: str) -> Any:
        world.fill(identity, qty, 106.0)
        return ending(identity)

    monkeypatch.setattr(desk.broker, "cancel_order", fill_and_cancel)
    pass_minutes(desk, 3)
    assert (desk.pipeline.argus.held, exits(desk.broker), scopes(desk)) == ({}, [], [])
    assert [trade.exit_reason for trade in store.trading.trades.list_trades()] == ["take_profit"]


@pytest.mark.parametrize("world", ["ib"], indirect=True)
def test_a_stop_alone_is_enough(world: Any, store: Store) -> None:
    desk, name, qty = open_at(world, store)
    world.fill(name, qty, 100.0)
    pass_minutes(desk)
    world.end(exit_ids(name)[Leg.TAKE_PROFIT])
    pass_minutes(desk, 3)
    assert (exits(desk.broker), told(desk), working_stop(desk)) == ([("-sl", qty)], [], exit_ids(name)[Leg.STOP_LOSS])
    check_that_the_stop_closes_it(desk, world, qty)


def test_at_every_broker_an_entry_filled_in_part_is_ended_if_its_exits_did(world: Any, store: Store) -> None:
    desk, name, _ = open_at(world, store)
    world.fill(name, 2.0, 100.0)
    pass_minutes(desk, 3)
    still = desk.broker.find_order(name)
    assert (still.status, told(desk)) == (PipelineStatus.PARTIALLY_FILLED, [])
    for identity in exit_ids(name).values():
        world.end(identity)
    pass_minutes(desk, 4)
    assert desk.broker.find_order(name).status in ENDED
    assert (exits(desk.broker), scopes(desk)) == ([("-sl", 2.0), ("-tp", 2.0)], [])
    check_that_the_stop_closes_it(desk, world, 2.0)
