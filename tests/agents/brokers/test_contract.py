"""What every broker promises, asked of all of them in the same words."""

import importlib.util
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from agents.brokers.broker import Broker, BrokerOrder, Leg, Order, PlacesExits, places_exits
from core.errors import BrokerError, BrokerOutcomeUnknownError, BrokerUnavailableError
from core.store.opening import Store
from core.types import PipelineStatus, Side
from tests.agents.brokers.worlds import CASH, PaperWorld, World, alpaca_world, ib_world

pytestmark = pytest.mark.filterwarnings("ignore:websockets.legacy is deprecated:DeprecationWarning")

LIBRARIES = {"paper": None, "alpaca": "alpaca", "ib": "ib_async"}


@pytest.fixture(params=LIBRARIES)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Each broker's other side; one whose library is not installed is skipped."""
    library = LIBRARIES[request.param]
    if library is not None and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: nothing is known of the {request.param} broker")
    if request.param == "paper":
        store: Store = request.getfixturevalue("store")
        yield PaperWorld(store.trading.gateway)
    else:
        with alpaca_world() if request.param == "alpaca" else ib_world() as other:
            yield other


@pytest.fixture
def broker(world: World) -> Iterator[Broker]:
    """A connected broker."""
    connected = world.connect()
    yield connected
    connected.close()


def bracket(identity: str = "a", **changes: Any) -> Order:
    values: dict[str, Any] = {
        "client_order_id": identity,
        "symbol": "AAPL",
        "side": Side.BUY,
        "qty": 10.0,
        "limit_price": 100.0,
        "stop_loss_price": 97.0,
        "take_profit_price": 106.0,
    }
    return Order(**{**values, **changes})


def status(broker: Broker, identity: str) -> str:
    found = broker.find_order(identity)
    return "none" if found is None else found.status.value


def open_orders(broker: Broker) -> dict[str, float]:
    return {one.client_order_id: one.qty - one.filled_qty for one in broker.list_open_orders()}


def fills(broker: Broker) -> list[tuple[str, str, float, float]]:
    return [(one.client_order_id, one.side.value, one.qty, one.price) for one in broker.list_executions()]


@pytest.mark.parametrize(("winner", "loser", "price"), [("a-tp", "a-sl", 106.0), ("a-sl", "a-tp", 96.5)])
def test_a_bracket_is_entered_and_left_by_one_exit(broker: Broker, world: World, winner: str, loser: str, price: float) -> None:
    placed = broker.place_order(bracket())
    assert (placed.client_order_id, placed.symbol, placed.side, placed.qty) == ("a", "AAPL", Side.BUY, 10.0)
    assert (placed.status, placed.filled_qty) == (PipelineStatus.SUBMITTED, 0.0)
    assert open_orders(broker) == {"a": 10.0}
    assert (status(broker, "a-sl"), status(broker, "a-tp")) == ("pending", "pending")
    world.fill("a", 10.0, 100.0)
    assert status(broker, "a") == "filled"
    assert open_orders(broker) == {"a-sl": 10.0, "a-tp": 10.0}
    (position,) = broker.list_positions()
    assert (position.symbol, position.qty, position.avg_cost) == ("AAPL", 10.0, 100.0)
    assert broker.get_account().cash == pytest.approx(CASH - 1000.0)
    world.fill(winner, 10.0, price)
    assert (status(broker, winner), status(broker, loser)) == ("filled", "cancelled")
    assert open_orders(broker) == {}
    assert broker.list_positions() == []
    assert fills(broker) == [("a", "buy", 10.0, 100.0), (winner, "sell", 10.0, price)]
    legs = [one.leg for one in broker.list_executions()]
    assert legs == [Leg.ENTRY, Leg.TAKE_PROFIT if winner == "a-tp" else Leg.STOP_LOSS]
    assert broker.get_account().cash == pytest.approx(CASH - 1000.0 + 10.0 * price)


def test_parts_are_executions_of_their_own(broker: Broker, world: World) -> None:
    broker.place_order(bracket())
    world.fill("a", 4.0, 100.0)
    part = broker.find_order("a")
    assert part is not None
    assert (part.status, part.filled_qty) == (PipelineStatus.PARTIALLY_FILLED, 4.0)
    world.fill("a", 6.0, 99.0)
    assert status(broker, "a") == "filled"
    first, second = broker.list_executions()
    assert (first.qty, second.qty) == (4.0, 6.0)
    assert first.exec_id != second.exec_id
    assert first.filled_at <= second.filled_at
    assert broker.list_executions(second.filled_at + timedelta(seconds=1)) == []
    assert second in broker.list_executions(second.filled_at)
    assert broker.list_positions()[0].avg_cost == pytest.approx(99.4)


def test_a_refusal_is_an_order_that_says_why(broker: Broker) -> None:
    refused = broker.place_order(bracket(qty=5_000.0))
    assert refused.status is PipelineStatus.REJECTED
    assert refused.reason != ""
    assert open_orders(broker) == {}
    assert status(broker, "a") in ("none", "rejected")
    assert broker.list_executions() == []


def test_an_order_is_cancelled_with_its_exits_and_stays_so(broker: Broker) -> None:
    broker.place_order(bracket())
    cancelled = broker.cancel_order("a")
    assert (cancelled.status, cancelled.filled_qty) == (PipelineStatus.CANCELLED, 0.0)
    assert open_orders(broker) == {}
    assert {status(broker, one) for one in ("a", "a-sl", "a-tp")} == {"cancelled"}
    assert broker.cancel_order("a").status is PipelineStatus.CANCELLED


def test_what_a_cancelled_entry_had_filled_keeps_exits(broker: Broker, world: World) -> None:
    broker.place_order(bracket())
    world.fill("a", 4.0, 100.0)
    cancelled = broker.cancel_order("a")
    assert (cancelled.status, cancelled.filled_qty) == (PipelineStatus.CANCELLED, 4.0)
    assert open_orders(broker) == {"a-sl": 4.0, "a-tp": 4.0}
    again = world.connect()
    assert open_orders(again) == {"a-sl": 4.0, "a-tp": 4.0}
    again.close()
    world.fill("a-sl", 4.0, 96.0)
    assert (status(broker, "a-sl"), status(broker, "a-tp"), open_orders(broker)) == ("filled", "cancelled", {})
    assert broker.list_positions() == []
    assert [one.leg for one in broker.list_executions()] == [Leg.ENTRY, Leg.STOP_LOSS]


def test_what_an_entry_had_filled_that_the_broker_ended_has_exits_once_it_is_cancelled_again(
    broker: Broker, world: World
) -> None:
    broker.place_order(bracket())
    world.fill("a", 4.0, 100.0)
    world.end("a")
    assert broker.cancel_order("a").status is PipelineStatus.CANCELLED
    assert open_orders(broker) == {"a-sl": 4.0, "a-tp": 4.0}
    world.fill("a-tp", 4.0, 106.0)
    assert (open_orders(broker), broker.list_positions()) == ({}, [])


def test_what_was_sold_meanwhile_gets_no_exits(broker: Broker, world: World) -> None:
    broker.place_order(bracket())
    world.fill("a", 4.0, 100.0)
    broker.cancel_order("a")
    broker.cancel_order("a-sl")
    assert open_orders(broker) == {}
    broker.place_order(Order(client_order_id="s", symbol="AAPL", side=Side.SELL, qty=4.0))
    assert broker.cancel_order("a").status is PipelineStatus.CANCELLED
    assert open_orders(broker) == {"s": 4.0}
    world.fill("s", 4.0, 99.0)
    assert broker.cancel_order("a").status is PipelineStatus.CANCELLED
    assert open_orders(broker) == {}
    assert broker.list_positions() == []


def guard(broker: Broker) -> PlacesExits:
    assert places_exits(broker)
    return broker


def hold_without_exits(broker: Broker, world: World) -> None:
    broker.place_order(bracket())
    world.fill("a", 10.0, 100.0)
    broker.cancel_order("a-sl")
    assert open_orders(broker) == {}


@pytest.mark.parametrize(("winner", "loser", "price"), [("x-tp", "x-sl", 106.0), ("x-sl", "x-tp", 96.5)])
def test_exits_are_placed_anew_for_what_is_held(broker: Broker, world: World, winner: str, loser: str, price: float) -> None:
    guarding = guard(broker)
    hold_without_exits(broker, world)
    placed = guarding.place_exits(bracket("x", limit_price=None))
    assert (placed.client_order_id, placed.side, placed.qty) == ("x-tp", Side.SELL, 10.0)
    assert placed.status is PipelineStatus.SUBMITTED
    assert open_orders(broker) == {"x-sl": 10.0, "x-tp": 10.0}
    assert guarding.place_exits(bracket("x", limit_price=None)).order_id == placed.order_id
    again = world.connect()
    assert open_orders(again) == {"x-sl": 10.0, "x-tp": 10.0}
    again.close()
    world.fill(winner, 10.0, price)
    assert (status(broker, winner), status(broker, loser), open_orders(broker)) == ("filled", "cancelled", {})
    assert fills(broker) == [("a", "buy", 10.0, 100.0), (winner, "sell", 10.0, price)]
    assert broker.list_positions() == []
    assert broker.get_account().cash == pytest.approx(CASH - 1000.0 + 10.0 * price)


def test_exits_that_were_placed_anew_are_cancelled_as_a_pair_and_free_their_shares(broker: Broker, world: World) -> None:
    guarding = guard(broker)
    hold_without_exits(broker, world)
    guarding.place_exits(bracket("x", limit_price=None))
    assert broker.cancel_order("x-sl").status is PipelineStatus.CANCELLED
    assert (open_orders(broker), status(broker, "x-tp")) == ({}, "cancelled")
    assert broker.place_order(Order(client_order_id="s", symbol="AAPL", side=Side.SELL, qty=10.0)).status is (
        PipelineStatus.SUBMITTED
    )


def test_exits_for_shares_that_are_not_there_are_refused(broker: Broker, world: World) -> None:
    guarding = guard(broker)
    if broker.name == "ib":
        pytest.skip("TWS takes exits for shares that are not held: it would sell short")
    hold_without_exits(broker, world)
    refused = guarding.place_exits(bracket("x", qty=11.0, limit_price=None))
    assert (refused.status, refused.client_order_id) == (PipelineStatus.REJECTED, "x-tp")
    assert refused.reason != ""
    assert open_orders(broker) == {}


def test_an_entry_that_is_refused_leaves_no_exits(broker: Broker) -> None:
    assert broker.place_order(bracket(qty=5_000.0)).status is PipelineStatus.REJECTED
    assert open_orders(broker) == {}
    assert {status(broker, one) for one in ("a-sl", "a-tp")} <= {"none", "cancelled", "rejected"}


def test_cancelling_one_exit_cancels_the_other(broker: Broker, world: World) -> None:
    broker.place_order(bracket())
    world.fill("a", 10.0, 100.0)
    assert broker.cancel_order("a-tp").status is PipelineStatus.CANCELLED
    assert open_orders(broker) == {}
    assert (status(broker, "a"), status(broker, "a-sl")) == ("filled", "cancelled")
    sale = broker.place_order(Order(client_order_id="s", symbol="AAPL", side=Side.SELL, qty=10.0))
    assert sale.status is PipelineStatus.SUBMITTED
    world.fill("s", 10.0, 98.0)
    assert broker.list_positions() == []


def test_placing_it_twice_makes_one_order(broker: Broker, world: World) -> None:
    first = broker.place_order(bracket())
    assert broker.place_order(bracket()) == first
    world.fill("a", 10.0, 100.0)
    again = world.connect()
    placed = again.place_order(bracket())
    assert (placed.order_id, placed.status) == (first.order_id, PipelineStatus.FILLED)
    assert open_orders(again) == {"a-sl": 10.0, "a-tp": 10.0}
    again.close()


@pytest.mark.parametrize("after", [False, True])
def test_a_line_that_is_cut_leaves_the_outcome_unknown_and_asking_tells(world: World, after: bool) -> None:
    broker = world.connect()
    world.cut(after=after)
    with pytest.raises(BrokerOutcomeUnknownError, match="a"):
        broker.place_order(bracket())
    broker.close()
    again = world.connect()
    assert status(again, "a") == ("submitted" if after else "none")
    assert again.place_order(bracket()).status is PipelineStatus.SUBMITTED
    assert open_orders(again) == {"a": 10.0}
    again.close()


def test_the_same_broker_finds_its_way_back_after_a_cut(broker: Broker, world: World) -> None:
    world.cut(after=True)
    with pytest.raises(BrokerOutcomeUnknownError):
        broker.place_order(bracket())
    broker.connect()
    assert status(broker, "a") == "submitted"
    broker.connect()


def test_fills_while_nobody_listened_are_there_afterwards(world: World) -> None:
    broker = world.connect()
    broker.place_order(bracket())
    broker.close()
    world.fill("a", 4.0, 100.0)
    again = world.connect()
    assert fills(again) == [("a", "buy", 4.0, 100.0)]
    assert status(again, "a") == "partially_filled"
    again.close()


def test_an_execution_that_is_reported_twice_is_one(broker: Broker, world: World) -> None:
    broker.place_order(bracket())
    world.repeat_executions()
    world.fill("a", 10.0, 100.0)
    assert fills(broker) == [("a", "buy", 10.0, 100.0)]
    assert status(broker, "a") == "filled"


def test_open_orders_survive_a_restart_of_both_sides_and_new_ones_do_not_take_their_place(world: World) -> None:
    broker = world.connect()
    first = broker.place_order(bracket("a"))
    second = broker.place_order(bracket("b", symbol="MSFT"))
    world.fill("b", 10.0, 100.0)
    broker.close()
    world.restart()
    again = world.connect()
    assert open_orders(again) == {"a": 10.0, "b-sl": 10.0, "b-tp": 10.0}
    third = again.place_order(bracket("c", symbol="IBM"))
    assert len({first.order_id, second.order_id, third.order_id}) == 3
    found: list[BrokerOrder | None] = [again.find_order(name) for name in ("a", "b")]
    assert [one.order_id for one in found if one is not None] == [first.order_id, second.order_id]
    world.fill("b-tp", 10.0, 106.0)
    world.fill("c", 10.0, 100.0)
    world.fill("a", 10.0, 99.5)
    assert {one[0] for one in fills(again)} == {"a", "b", "b-tp", "c"}
    assert open_orders(again) == {"a-sl": 10.0, "a-tp": 10.0, "c-sl": 10.0, "c-tp": 10.0}
    again.close()


def test_nobody_knows_an_order_that_was_never_placed(broker: Broker) -> None:
    assert broker.find_order("nothing") is broker.find_order("nothing-sl") is None
    with pytest.raises(BrokerError, match="nothing"):
        broker.cancel_order("nothing")


def test_a_broker_out_of_reach_is_named_so(world: World) -> None:
    broker = world.connect()
    broker.close()
    world.shut()
    with pytest.raises(BrokerUnavailableError):
        world.connect()
    with pytest.raises(BrokerError):
        broker.place_order(bracket())


def test_no_money_is_at_stake(broker: Broker) -> None:
    assert broker.is_paper
    assert broker.name in LIBRARIES
