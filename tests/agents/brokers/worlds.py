"""What the contract suite needs of a broker's other side: a market that fills, lines that break, servers that start anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from agents.brokers.broker import Broker, Leg, exit_ids
from agents.brokers.matching import MatchingRules
from agents.brokers.paper import PaperBroker, PaperConfig
from agents.trading.market_data import Bar
from core.clock import FixedClock
from core.errors import StoreUnavailableError
from core.store.gateway import Gateway, Row
from tests.agents.brokers import alpaca_stub, scripted_gateway

T0 = datetime(2024, 1, 2, 15, tzinfo=UTC)
CASH = 100_000.0


class World(Protocol):
    """A broker's other side."""

    def connect(self) -> Broker:
        """Start our side anew and connect it."""

    def fill(self, identity: str, qty: float, price: float) -> None:
        """Let the market fill a part of an order, or of an exit."""

    def end(self, identity: str) -> None:
        """End an entry at the broker without our asking, as an expiry or a person there would."""

    def cut(self, *, after: bool) -> None:
        """Cut the line in the middle of the next order, before or after it arrived."""

    def restart(self) -> None:
        """Start their side anew, with its short-lived identities from the beginning."""

    def repeat_executions(self) -> None:
        """Report every execution twice from now on."""

    def shut(self) -> None:
        """Make the broker unreachable."""


class PaperWorld:
    """The paper broker: its market is the bars it is given."""

    def __init__(self, gateway: Gateway) -> None:
        self._inner = gateway
        self._minutes = 0
        self._fault: str | None = None
        self._shut = False

    # As a gateway that may break.

    def rpc(self, function: str, **arguments: Any) -> list[Row]:
        """Call a function, unless the line is cut."""
        fault, self._fault = (self._fault, None) if function == "place_paper_order" else (None, self._fault)
        if self._shut or fault == "before":
            raise StoreUnavailableError("the line is cut")
        answer = self._inner.rpc(function, **arguments)
        if fault == "after":
            raise StoreUnavailableError("the line is cut")
        return answer

    def select(self, table: str, **more: Any) -> list[Row]:
        """Read, unless the line is cut."""
        if self._shut:
            raise StoreUnavailableError("the line is cut")
        return self._inner.select(table, **more)

    # As a world.

    def connect(self) -> PaperBroker:
        rules = MatchingRules(commission_bps=0.0, slippage_bps=0.0, participation_limit=1.0)
        config = PaperConfig(rules=rules, initial_cash=CASH)
        broker = PaperBroker(self, config, FixedClock(T0 + timedelta(minutes=self._minutes)))  # type: ignore[arg-type]
        broker.connect()
        return broker

    def fill(self, identity: str, qty: float, price: float) -> None:
        self._minutes += 1
        at = T0 + timedelta(minutes=self._minutes)
        broker = self.connect()
        order = broker.find_order(identity)
        assert order is not None
        bar = Bar(symbol=order.symbol, at=at, open=price, high=price, low=price, close=price, volume=qty)
        (fill,) = broker.on_bar(bar)
        assert (fill.client_order_id, fill.qty) == (identity, qty)

    def end(self, identity: str) -> None:
        self.connect().cancel_order(identity)

    def cut(self, *, after: bool) -> None:
        self._fault = "after" if after else "before"

    def restart(self) -> None:
        """Nothing of it is in memory."""

    def repeat_executions(self) -> None:
        """A row cannot be there twice."""

    def shut(self) -> None:
        self._shut = True


class AlpacaWorld:
    """Alpaca's stub on the loopback."""

    def __init__(self, address: str, exchange: alpaca_stub.Exchange, stop: Callable[[], None]) -> None:
        self.address = address
        self.exchange = exchange
        self.shut = stop

    def connect(self) -> Broker:
        from agents.brokers.alpaca import AlpacaBroker, AlpacaConfig

        config = AlpacaConfig(endpoint=self.address, timeout_seconds=5.0, cancel_seconds=1.0)
        broker = AlpacaBroker(config, api_key="key", secret_key="secret")
        broker.connect()
        return broker

    def order(self, identity: str) -> dict[str, Any]:
        """The exchange's order behind an identity of ours."""
        orders = {one["client_order_id"]: one for one in self.exchange.orders}
        for leg, suffix in exit_ids("").items():
            if identity.endswith(suffix) and identity not in orders:
                stem = identity.removesuffix(suffix)
                own = orders.get(exit_ids(stem)[Leg.TAKE_PROFIT])
                legs = (own or orders[stem])["legs"]
                return next(one for one in legs if one["type"] == ("stop" if leg is Leg.STOP_LOSS else "limit"))
        return orders[identity]

    def fill(self, identity: str, qty: float, price: float) -> None:
        self.exchange.fill(self.order(identity), qty, price)

    def end(self, identity: str) -> None:
        self.exchange.cancel(self.order(identity))

    def cut(self, *, after: bool) -> None:
        self.exchange.fault = "cut_after" if after else "cut_before"

    def restart(self) -> None:
        """Alpaca's identities last."""

    def repeat_executions(self) -> None:
        self.exchange.repeat_fills = True


@contextmanager
def alpaca_world() -> Iterator[AlpacaWorld]:
    """Serve the stub for as long as the world lasts."""
    exchange = alpaca_stub.Exchange(cash=CASH)
    with alpaca_stub.serve(exchange) as (address, stop):
        yield AlpacaWorld(address, exchange, stop)


class IBWorld:
    """The scripted gateway on the loopback."""

    def __init__(self, port: int, gateway: scripted_gateway.Gateway, stop: Callable[[], None]) -> None:
        self.port = port
        self.gateway = gateway
        self.shut = stop
        self._last: Broker | None = None

    def connect(self, **changes: Any) -> Broker:
        from agents.brokers.ib import IBBroker, IBConfig

        if self._last is not None:
            self._last.close()  # a client id is used once
        self._last = IBBroker(IBConfig(**{"port": self.port, "timeout_seconds": 5.0, "cancel_seconds": 2.0, **changes}))
        self._last.connect()
        return self._last

    def fill(self, identity: str, qty: float, price: float) -> None:
        self.gateway.fill(identity, qty, price)

    def end(self, identity: str) -> None:
        with self.gateway.lock:
            self.gateway.end(self.gateway.find(identity))

    def cut(self, *, after: bool) -> None:
        self.gateway.fault = "cut_after" if after else "cut_before"

    def restart(self) -> None:
        self.gateway.restart()

    def repeat_executions(self) -> None:
        self.gateway.repeat = True


@contextmanager
def ib_world() -> Iterator[IBWorld]:
    """Serve the gateway for as long as the world lasts."""
    gateway = scripted_gateway.Gateway(cash=CASH)
    with scripted_gateway.serve(gateway) as (port, stop):
        yield IBWorld(port, gateway, stop)
