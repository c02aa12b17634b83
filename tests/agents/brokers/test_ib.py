"""What is Interactive Brokers' alone: ports and accounts, revisions, late commissions, a gateway that keeps silent."""

import importlib.util
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agents.brokers.broker import Order
from agents.brokers.ib import IBBroker, IBConfig
from core.errors import BrokerError, BrokerOutcomeUnknownError, BrokerUnavailableError, ConfigurationError
from core.types import PipelineStatus, Side
from tests.agents.brokers import scripted_gateway
from tests.agents.brokers.test_contract import bracket, fills, open_orders, status
from tests.agents.brokers.worlds import IBWorld, ib_world

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ib_async") is None, reason="ib_async is not installed")


@pytest.fixture
def world() -> Iterator[IBWorld]:
    """The scripted gateway on the loopback."""
    with ib_world() as served:
        yield served


@pytest.fixture
def broker(world: IBWorld) -> Iterator[IBBroker]:
    """A connected broker."""
    connected = world.connect()
    assert isinstance(connected, IBBroker)
    yield connected
    connected.close()


@pytest.mark.parametrize("port", [4001, 7496])
def test_a_port_of_real_money_is_refused_unless_it_is_armed(port: int) -> None:
    with pytest.raises(ConfigurationError, match="must not be one of real money"):
        IBBroker(IBConfig(port=port))
    assert not IBBroker(IBConfig(port=port), real_money_armed=True).is_paper
    assert IBBroker(IBConfig()).is_paper


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ib_async", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'agentic-quantitative-framework\[ib\]'"):
        IBBroker(IBConfig())


@pytest.mark.parametrize(
    ("accounts", "wanted", "refused"),
    [
        ("U123", "", "must be one of paper trading"),
        ("DU1,U2", "U2", "must be one of paper trading"),
        ("DU1,DU2", "", "must be one of DU1, DU2"),
        ("DU1,DU2", "DU3", "must be one of DU1, DU2"),
    ],
)
def test_an_account_that_is_not_meant_is_refused_at_once(world: IBWorld, accounts: str, wanted: str, refused: str) -> None:
    world.gateway.accounts = accounts
    with pytest.raises(ConfigurationError, match=refused):
        world.connect(account=wanted)
    broker = IBBroker(IBConfig(port=world.port, account=wanted))
    with pytest.raises(ConfigurationError):
        broker.place_order(bracket())
    assert world.gateway.tickets == []


def test_an_armed_account_of_real_money_is_no_paper(world: IBWorld) -> None:
    world.gateway.accounts = "U123"
    broker = IBBroker(IBConfig(port=world.port), real_money_armed=True)
    broker.connect()
    assert not broker.is_paper
    broker.close()


@pytest.mark.parametrize("wrong", [{"port": 0}, {"timeout_seconds": 0.0}, {"cancel_seconds": float("nan")}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        IBConfig(**wrong)


def test_what_is_sent_says_who_we_are_and_works_only_as_a_whole(broker: IBBroker, world: IBWorld) -> None:
    expires = datetime(2099, 1, 2, 21, tzinfo=UTC)
    broker.place_order(bracket(expires_at=expires))
    entry, target, stop = world.gateway.tickets
    assert (entry.ref, entry.kind, entry.limit, entry.tif, entry.good_till) == ("a", "LMT", "100.0", "GTD", "20990102-21:00:00")
    assert (target.ref, target.kind, target.limit, target.tif, target.parent_id) == (
        "a-tp",
        "LMT",
        "106.0",
        "GTC",
        entry.order_id,
    )
    assert (stop.ref, stop.kind, stop.aux, stop.action, stop.parent_id) == ("a-sl", "STP", "97.0", "SELL", entry.order_id)
    assert {one.account for one in world.gateway.tickets} == {"DU123"}


def test_a_part_of_a_bracket_that_arrived_alone_never_works(world: IBWorld) -> None:
    broker = world.connect()
    assert isinstance(broker, IBBroker)
    fields = [""] * 39
    fields[1:4] = ["99", "0", "AAPL"]
    fields[16:20] = ["BUY", "10", "LMT", "100"]
    fields[26:29] = ["x", "0", "0"]
    with world.gateway.lock:
        world.gateway.place(fields, 17, [])
    assert status(broker, "x") == "none"
    assert open_orders(broker) == {}
    broker.close()


def test_a_corrected_execution_is_the_same_one_with_other_figures(broker: IBBroker, world: IBWorld) -> None:
    broker.place_order(bracket())
    world.fill("a", 4.0, 100.0)
    (before,) = broker.list_executions()
    world.gateway.revise(0, 99.0)
    (after,) = broker.list_executions()
    assert (before.exec_id, before.price, after.price) == (after.exec_id, 100.0, 99.0)
    assert status(broker, "a") == "partially_filled"
    found = broker.find_order("a")
    assert found is not None
    assert found.filled_qty == 4.0


def test_an_execution_is_told_when_its_commission_is_known(world: IBWorld) -> None:
    broker = world.connect(timeout_seconds=0.3)
    broker.place_order(bracket())
    world.gateway.commission = 1.25
    world.gateway.withhold_commissions = True
    world.fill("a", 10.0, 100.0)
    with pytest.raises(BrokerUnavailableError, match="commission"):
        broker.list_executions()
    world.gateway.withhold_commissions = False
    assert [one.commission for one in broker.list_executions()] == [1.25]


def test_a_gateway_that_keeps_silent_leaves_nobody_waiting(world: IBWorld) -> None:
    broker = world.connect(timeout_seconds=0.3, cancel_seconds=0.2)
    world.gateway.silent = (scripted_gateway.PLACE,)
    with pytest.raises(BrokerOutcomeUnknownError, match="did not answer to a"):
        broker.place_order(bracket())
    world.gateway.silent = ()
    broker.place_order(bracket())
    world.gateway.silent = (scripted_gateway.CANCEL,)
    assert broker.cancel_order("a").status is PipelineStatus.SUBMITTED
    world.gateway.silent = (scripted_gateway.COMPLETED, scripted_gateway.SUMMARY)
    for ask in (lambda: broker.find_order("a"), broker.get_account, lambda: broker.place_order(bracket("b"))):
        with pytest.raises(BrokerUnavailableError, match="did not answer"):
            ask()


def test_a_line_lost_in_the_middle_of_a_cancel_leaves_it_unknown(broker: IBBroker, world: IBWorld) -> None:
    broker.place_order(bracket())
    world.gateway.silent = (scripted_gateway.CANCEL,)
    timer = threading.Timer(0.3, world.gateway.disconnect)
    timer.start()
    with pytest.raises(BrokerOutcomeUnknownError, match="cancelling a"):
        broker.cancel_order("a")
    timer.join()
    world.gateway.silent = ()
    assert broker.cancel_order("a").status is PipelineStatus.CANCELLED


def test_an_interrupted_cancel_is_made_good_by_cancelling_again(broker: IBBroker, world: IBWorld) -> None:
    broker.place_order(bracket())
    world.fill("a", 4.0, 100.0)
    with world.gateway.lock:
        world.gateway.end(world.gateway.find("a"))
    again = world.connect()
    assert open_orders(again) == {}
    for _ in range(2):
        assert again.cancel_order("a").status is PipelineStatus.CANCELLED
        assert open_orders(again) == {"a-tp": 4.0, "a-sl": 4.0}


def test_an_order_id_that_is_issued_again_does_not_mix_up_executions(world: IBWorld) -> None:
    broker = world.connect()
    broker.place_order(bracket("a"))
    world.fill("a", 10.0, 100.0)
    world.fill("a-tp", 10.0, 106.0)
    world.restart()
    again = world.connect()
    again.place_order(bracket("b"))
    # The new entry has the number that the old one had.
    assert world.gateway.find("b").order_id == world.gateway.fills[0]["order_id"]
    assert status(again, "b") == "submitted"
    world.fill("b", 3.0, 99.0)
    assert [one for one in fills(again) if one[0] == "b"] == [("b", "buy", 3.0, 99.0)]
    assert (status(again, "a"), status(again, "b")) == ("filled", "partially_filled")


def test_an_order_that_only_its_executions_remember_is_filled(broker: IBBroker, world: IBWorld) -> None:
    sale = Order(client_order_id="s", symbol="AAPL", side=Side.SELL, qty=3.0)
    broker.place_order(sale)
    world.fill("s", 3.0, 100.0)
    world.gateway.tickets.clear()
    found = broker.find_order("s")
    assert found is not None
    assert (found.status, found.filled_qty, found.side) == (PipelineStatus.FILLED, 3.0, Side.SELL)
    assert broker.place_order(sale) == found


def test_an_entry_whose_time_is_over_has_expired(broker: IBBroker, world: IBWorld) -> None:
    broker.place_order(bracket(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    with world.gateway.lock:
        world.gateway.end(world.gateway.find("a"))
    assert status(broker, "a") == "expired"


def test_a_client_id_that_is_taken_is_told(broker: IBBroker, world: IBWorld) -> None:
    other = IBBroker(IBConfig(port=world.port, timeout_seconds=0.5))
    with pytest.raises(BrokerUnavailableError, match="cannot be reached"):
        other.connect()
    assert status(broker, "a") == "none"


def test_an_answer_that_cannot_be_used_is_an_error(broker: IBBroker, world: IBWorld) -> None:
    broker.place_order(bracket())
    world.fill("a", 10.0, 100.0)
    world.gateway.fills[0]["price"] = -1.0
    broker.close()
    with pytest.raises(BrokerError, match="cannot be used"):
        broker.list_executions()


def test_a_line_that_fell_silent_is_replaced(world: IBWorld) -> None:
    broker = world.connect(timeout_seconds=0.3)
    broker.place_order(bracket())
    world.gateway.deaf.update(world.gateway.connections)
    with pytest.raises(BrokerUnavailableError, match="did not answer"):
        broker.find_order("a")
    assert status(broker, "a") == "submitted"
    broker.close()


def test_executions_that_are_refused_are_not_taken_for_none(broker: IBBroker, world: IBWorld) -> None:
    broker.place_order(bracket())
    world.fill("a", 4.0, 100.0)
    world.gateway.refuse_executions = "the server is busy"
    with pytest.raises(BrokerError, match="refused to answer: 162 the server is busy"):
        broker.list_executions()
    world.gateway.refuse_executions = ""
    assert fills(broker) == [("a", "buy", 4.0, 100.0)]


def test_a_class_of_shares_is_written_with_a_space_there_and_a_point_here(broker: IBBroker, world: IBWorld) -> None:
    order = bracket(symbol="BRK.B")
    assert broker.place_order(order).symbol == "BRK.B"
    assert {one.symbol for one in world.gateway.tickets} == {"BRK B"}
    world.fill("a", 10.0, 100.0)
    assert [one.symbol for one in (*broker.list_positions(), *broker.list_executions())] == ["BRK.B", "BRK.B"]
    assert broker.place_order(order).symbol == "BRK.B"


def test_an_option_on_a_share_is_no_share(broker: IBBroker, world: IBWorld) -> None:
    broker.place_order(bracket())
    world.fill("a", 10.0, 100.0)
    world.gateway.options["AAPL"] = 5.0
    assert [(one.symbol, one.qty) for one in broker.list_positions()] == [("AAPL", 10.0)]


def test_a_bracket_whose_exit_is_refused_is_refused_when_nothing_of_it_works_any_more(broker: IBBroker, world: IBWorld) -> None:
    world.gateway.refuse = ["a-sl"]
    refused = broker.place_order(bracket())
    assert (refused.status, refused.filled_qty) == (PipelineStatus.REJECTED, 0.0)
    assert "too far away" in refused.reason
    assert {one.status for one in world.gateway.tickets} == {"Cancelled"}
    assert open_orders(broker) == {}


def test_what_an_entry_bought_before_its_exit_was_refused_gets_exits(broker: IBBroker, world: IBWorld) -> None:
    world.gateway.eager, world.gateway.refuse = 4.0, ["a-sl"]
    with pytest.raises(BrokerOutcomeUnknownError, match="ask for it by this identity"):
        broker.place_order(bracket())
    found = broker.find_order("a")
    assert found is not None
    assert (found.status, found.filled_qty) == (PipelineStatus.CANCELLED, 4.0)
    assert open_orders(broker) == {"a-tp": 4.0, "a-sl": 4.0}
    assert [(one.limit or one.aux, one.action) for one in world.gateway.tickets[-2:]] == [("97.0", "SELL"), ("106.0", "SELL")]


def test_exits_that_are_refused_for_good_are_an_error(broker: IBBroker, world: IBWorld) -> None:
    world.gateway.eager, world.gateway.refuse = 10.0, ["a-sl", "a-sl"]
    with pytest.raises(BrokerError, match=r"10 shares of AAPL from 'a' have no exits: TWS refused .*too far away"):
        broker.place_order(bracket())
    assert status(broker, "a") == "filled"


def test_a_refused_bracket_of_which_a_part_may_work_is_left_unknown(world: IBWorld) -> None:
    broker = world.connect(cancel_seconds=0.2)
    world.gateway.eager, world.gateway.refuse, world.gateway.silent = 4.0, ["a-sl"], (scripted_gateway.CANCEL,)
    with pytest.raises(BrokerOutcomeUnknownError, match="ask for it by this identity"):
        broker.place_order(bracket())
    assert open_orders(broker) == {"a": 6.0, "a-tp": 10.0}
    broker.close()


def cut_after(monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
    """Let so many orders through to the gateway, and lose the line with the next."""
    from ib_async import IB

    place, sent = IB.placeOrder, list[Any]()

    def place_or_lose(self: Any, contract: Any, order: Any) -> Any:
        if len(sent) == parts:
            raise ConnectionError("Not connected")
        sent.append(order)
        return place(self, contract, order)

    monkeypatch.setattr(IB, "placeOrder", place_or_lose)


@pytest.mark.parametrize("parts", [0, 1, 2])
def test_a_bracket_of_which_a_part_was_sent_is_never_said_to_be_surely_not_there(
    broker: IBBroker, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    cut_after(monkeypatch, parts)
    with pytest.raises(BrokerOutcomeUnknownError, match="lost in the middle of a;"):
        broker.place_order(bracket())
    monkeypatch.undo()
    assert broker.place_order(bracket()).status is PipelineStatus.SUBMITTED


def test_exits_that_are_cut_in_between_leave_the_stop_and_are_made_whole_by_placing_them_again(
    broker: IBBroker, world: IBWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_after(monkeypatch, 1)
    with pytest.raises(BrokerOutcomeUnknownError, match="lost in the middle of the exits of x;"):
        broker.place_exits(bracket("x"))
    monkeypatch.undo()
    assert open_orders(broker) == {"x-sl": 10.0}
    for _ in range(2):
        assert broker.place_exits(bracket("x")).client_order_id == "x-tp"
        assert open_orders(broker) == {"x-sl": 10.0, "x-tp": 10.0}
    assert {one.oca for one in world.gateway.tickets} == {"x-exits"}


def test_a_target_that_works_alone_gets_its_stop(broker: IBBroker, world: IBWorld) -> None:
    broker.place_exits(bracket("x"))
    with world.gateway.lock:
        world.gateway.find("x-sl").status = "Cancelled"
    assert broker.place_exits(bracket("x")).client_order_id == "x-tp"
    assert open_orders(broker) == {"x-sl": 10.0, "x-tp": 10.0}
    assert (world.gateway.find("x-sl").kind, world.gateway.find("x-sl").aux) == ("STP", "97.0")


def test_an_exit_whose_other_was_filled_is_left_alone(broker: IBBroker, world: IBWorld) -> None:
    broker.place_exits(bracket("x"))
    world.fill("x-sl", 10.0, 97.0)
    before = len(world.gateway.tickets)
    assert broker.place_exits(bracket("x")).status is PipelineStatus.CANCELLED
    assert len(world.gateway.tickets) == before


def test_a_lone_exit_that_no_other_can_join_or_whose_other_is_refused_is_an_error(broker: IBBroker, world: IBWorld) -> None:
    broker.place_exits(bracket("x"))
    with world.gateway.lock:
        world.gateway.find("x-sl").status = "Cancelled"
    world.gateway.refuse = ["x-sl"]
    with pytest.raises(BrokerError, match=r"'x-tp' works alone: TWS refused the other exit, .*too far away"):
        broker.place_exits(bracket("x"))
    world.gateway.find("x-tp").oca = ""
    broker.close()
    with pytest.raises(BrokerError, match="'x-tp' works alone and in no group"):
        broker.place_exits(bracket("x"))
    assert open_orders(broker) == {"x-tp": 10.0}


def test_a_line_lost_before_a_refused_bracket_is_taken_back_leaves_it_unknown(
    broker: IBBroker, world: IBWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ib_async import IB

    def lose(self: Any, order: Any) -> None:
        raise ConnectionError("Not connected")

    world.gateway.refuse = ["a-sl"]
    monkeypatch.setattr(IB, "cancelOrder", lose)
    with pytest.raises(BrokerOutcomeUnknownError, match="lost in the middle of a;"):
        broker.place_order(bracket())
    with pytest.raises(BrokerOutcomeUnknownError, match="lost in the middle of cancelling a;"):
        broker.cancel_order("a")
    assert open_orders(broker) == {"a": 10.0, "a-tp": 10.0}
