"""What is Alpaca's alone: its endpoints, its errors, its pages, and prices it takes."""

import importlib.util
import sys
from collections.abc import Iterator
from datetime import datetime

import pytest

from agents.brokers.alpaca import PAPER_ENDPOINT, AlpacaBroker, AlpacaConfig
from agents.brokers.broker import Order
from agents.brokers.ticks import on_grid
from core.errors import BrokerError, BrokerOutcomeUnknownError, BrokerUnavailableError, ConfigurationError
from core.types import PipelineStatus, Side
from tests.agents.brokers.test_contract import bracket
from tests.agents.brokers.worlds import AlpacaWorld, alpaca_world

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("alpaca") is None, reason="alpaca-py is not installed"),
    pytest.mark.filterwarnings("ignore:websockets.legacy is deprecated:DeprecationWarning"),
]


@pytest.fixture
def world() -> Iterator[AlpacaWorld]:
    """The stub on the loopback."""
    with alpaca_world() as served:
        yield served


@pytest.fixture
def broker(world: AlpacaWorld) -> Iterator[AlpacaBroker]:
    """A connected broker."""
    connected = world.connect()
    assert isinstance(connected, AlpacaBroker)
    yield connected
    connected.close()


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://api.alpaca.markets",
        "https://api.alpaca.markets/",
        "http://paper-api.alpaca.markets",
        "https://paper-api.alpaca.markets.evil.example",
        "https://127.0.0.1.evil.example",
        "",
    ],
)
def test_an_endpoint_of_real_money_is_refused_unless_it_is_armed(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match="unless real money is armed"):
        AlpacaBroker(AlpacaConfig(endpoint=endpoint), api_key="k", secret_key="s")


def test_paper_is_the_default_and_armed_money_is_no_paper() -> None:
    assert AlpacaConfig().endpoint == PAPER_ENDPOINT
    assert AlpacaBroker(AlpacaConfig(), api_key="k", secret_key="s").is_paper
    live = AlpacaConfig(endpoint="https://api.alpaca.markets")
    assert not AlpacaBroker(live, api_key="k", secret_key="s", real_money_armed=True).is_paper
    with pytest.raises(ConfigurationError, match="timeout_seconds"):
        AlpacaConfig(timeout_seconds=0.0)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("429", BrokerUnavailableError),
        ("401", BrokerUnavailableError),
        ("500", BrokerOutcomeUnknownError),
        ("error_after", BrokerOutcomeUnknownError),
        ("nonsense_after", BrokerOutcomeUnknownError),
        ("400", BrokerError),
    ],
)
def test_what_an_order_meets_is_told_by_its_kind(
    broker: AlpacaBroker, world: AlpacaWorld, fault: str, error: type[BrokerError]
) -> None:
    world.exchange.fault = fault
    with pytest.raises(BrokerError) as caught:
        broker.place_order(bracket())
    assert type(caught.value) is error
    assert (broker.find_order("a") is not None) is fault.endswith("_after")


def test_an_answer_that_cannot_be_used_is_an_error(broker: AlpacaBroker, world: AlpacaWorld) -> None:
    broker.place_order(bracket())
    for name, value in (("qty", "many"), ("status", "dancing"), ("symbol", None)):
        before, world.exchange.orders[0][name] = world.exchange.orders[0][name], value
        for ask in (lambda: broker.find_order("a"), broker.list_open_orders):
            with pytest.raises(BrokerError, match="cannot be used"):
                ask()
        world.exchange.orders[0][name] = before
    world.fill("a", 1.0, 100.0)
    world.exchange.fills[0]["price"] = "-1"
    with pytest.raises(BrokerError, match="cannot be used"):
        broker.list_executions()
    del world.exchange.fills[0]["price"]
    with pytest.raises(BrokerError, match="cannot be used"):
        broker.list_executions()


def test_an_interrupted_cancel_is_made_good_by_cancelling_again(broker: AlpacaBroker, world: AlpacaWorld) -> None:
    broker.place_order(bracket())
    world.fill("a", 4.0, 100.0)
    world.exchange.cancel(world.order("a"))
    again = world.connect()
    assert again.list_open_orders() == []
    for _ in range(2):
        assert again.cancel_order("a").status is PipelineStatus.CANCELLED
        assert {one.client_order_id: one.qty for one in again.list_open_orders()} == {"a-tp": 4.0, "a-sl": 4.0}
    assert again.place_order(bracket("a")).status is PipelineStatus.CANCELLED


def test_fills_are_read_page_after_page(broker: AlpacaBroker, world: AlpacaWorld) -> None:
    broker.place_order(bracket(qty=250.0))
    for _ in range(250):
        world.fill("a", 1.0, 100.0)
    executions = broker.list_executions()
    assert len({one.exec_id for one in executions}) == len(executions) == 250
    since = executions[200].filled_at
    assert isinstance(since, datetime)
    assert broker.list_executions(since) == executions[200:]


def test_prices_are_put_on_the_grid_without_becoming_worse() -> None:
    bought = on_grid(bracket(limit_price=100.019, stop_loss_price=97.001, take_profit_price=106.001))
    assert (bought.limit_price, bought.stop_loss_price, bought.take_profit_price) == (100.01, 97.01, 106.01)
    sold = on_grid(bracket(side=Side.SELL, limit_price=100.011, stop_loss_price=103.019, take_profit_price=94.019))
    assert (sold.limit_price, sold.stop_loss_price, sold.take_profit_price) == (100.02, 103.01, 94.01)
    assert on_grid(bracket(limit_price=100.0 * 1.1, take_profit_price=120.0)).limit_price == 110.0
    penny = Order(client_order_id="p", symbol="P", side=Side.BUY, qty=1.0, limit_price=0.12345)
    assert on_grid(penny).limit_price == 0.1234


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "alpaca.trading.client", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'agentic-quantitative-framework\[alpaca\]'"):
        AlpacaBroker(AlpacaConfig(), api_key="k", secret_key="s")


def test_an_account_that_may_not_trade_is_not_connected(world: AlpacaWorld) -> None:
    world.exchange.blocked = True
    with pytest.raises(BrokerError, match="blocked from trading"):
        world.connect()
