"""Alpaca's words and ours: requests, orders, legs and errors, translated one into the other.

Hides `alpaca-py` from `agents.brokers.alpaca`. Promises that nothing the library raises gets past `translated`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agents.brokers.broker import BrokerOrder, Leg, Order, exit_ids
from core.errors import (
    BrokerError,
    BrokerOutcomeUnknownError,
    BrokerUnavailableError,
    ConfigurationError,
    DataError,
)
from core.types import PipelineStatus, Side

if TYPE_CHECKING:
    from alpaca.trading.client import TradingClient
    from alpaca.trading.models import Order as AlpacaOrder

DONE = {
    "filled": PipelineStatus.FILLED,
    "canceled": PipelineStatus.CANCELLED,
    "replaced": PipelineStatus.CANCELLED,
    "expired": PipelineStatus.EXPIRED,
    "rejected": PipelineStatus.REJECTED,
}


class Refused(BrokerError):
    """Alpaca understood and said no."""


class NotFound(BrokerError):
    """Alpaca has no such order."""


def build_client(endpoint: str, timeout_seconds: float, api_key: str, secret_key: str) -> TradingClient:
    """Return the library's client, which waits no longer than it may and sends nothing twice.

    Raises
    ------
    ConfigurationError
        If `alpaca-py` is not installed.
    """
    try:
        from alpaca.trading.client import TradingClient
        from requests.adapters import HTTPAdapter
    except ImportError as error:
        raise ConfigurationError("Alpaca needs alpaca-py: pip install 'agentic-quantitative-framework[alpaca]'.") from error

    class TimedAdapter(HTTPAdapter):
        """Waits no longer than it may; the library itself would wait for ever."""

        def send(self, request: Any, **options: Any) -> Any:  # type: ignore[override]
            return super().send(request, **{**options, "timeout": timeout_seconds})

    client = TradingClient(api_key, secret_key, paper=True, url_override=endpoint.rstrip("/"))
    client._session.mount("https://", TimedAdapter())
    client._session.mount("http://", TimedAdapter())
    client._retry = 0  # whether to send an order again is ours to decide
    return client


def build_request(order: Order) -> Any:
    """Return an order as the library takes it, good until it is cancelled."""
    from alpaca.trading.enums import OrderClass, OrderSide, TimeInForce
    from alpaca.trading.requests import LimitOrderRequest, MarketOrderRequest, StopLossRequest, TakeProfitRequest

    fields: dict[str, Any] = {
        "symbol": order.symbol,
        "qty": order.qty,
        "side": OrderSide.BUY if order.side is Side.BUY else OrderSide.SELL,
        "time_in_force": TimeInForce.GTC,
        "client_order_id": order.client_order_id,
    }
    if order.is_bracket:
        assert order.stop_loss_price is not None and order.take_profit_price is not None
        fields |= {
            "order_class": OrderClass.BRACKET,
            "take_profit": TakeProfitRequest(limit_price=order.take_profit_price),
            "stop_loss": StopLossRequest(stop_price=order.stop_loss_price),
        }
    if order.limit_price is None:
        return MarketOrderRequest(**fields)
    return LimitOrderRequest(**fields, limit_price=order.limit_price)


def build_exits(order: Order) -> Any:
    """Return the exits of a bracket as one order for shares that are held: the target, with the stop as its leg."""
    from alpaca.trading.enums import OrderClass, OrderSide, TimeInForce
    from alpaca.trading.requests import LimitOrderRequest, StopLossRequest, TakeProfitRequest

    if order.take_profit_price is None or order.stop_loss_price is None:
        raise BrokerError(f"order {order.client_order_id!r} has no exits to place; give it a stop and a target.")
    return LimitOrderRequest(
        symbol=order.symbol,
        qty=order.qty,
        side=OrderSide.SELL if order.side is Side.BUY else OrderSide.BUY,
        time_in_force=TimeInForce.GTC,
        order_class=OrderClass.OCO,
        client_order_id=exit_ids(order.client_order_id)[Leg.TAKE_PROFIT],
        take_profit=TakeProfitRequest(limit_price=order.take_profit_price),
        stop_loss=StopLossRequest(stop_price=order.stop_loss_price),
    )


def is_own_exit(order: AlpacaOrder) -> bool:
    """Whether it is a pair of exits by themselves, as `build_exits` makes them: the target, with the stop as its leg."""
    name: str = order.client_order_id
    return order.order_class.value == "oco" and name.endswith(exit_ids("")[Leg.TAKE_PROFIT])


def legs_of(order: AlpacaOrder) -> dict[Leg, AlpacaOrder]:
    """Return the exits that came with an order; empty where it has none."""
    found = {Leg.TAKE_PROFIT if leg.type.value == "limit" else Leg.STOP_LOSS: leg for leg in order.legs or () if leg.type}
    return {**found, Leg.TAKE_PROFIT: order} if is_own_exit(order) else found


def is_settled(parent: AlpacaOrder, target: AlpacaOrder, leg: Leg) -> bool:
    """Whether a cancel has come to its end, for the legs of an entry as well."""
    if target.status.value not in DONE:
        return False
    legs = legs_of(parent).values() if leg is Leg.ENTRY and parent.status.value != "filled" else ()
    return all(child.status.value in DONE for child in legs)


def describe(
    order: AlpacaOrder, client_order_id: str, *, leg: Leg = Leg.ENTRY, parent: AlpacaOrder | None = None
) -> BrokerOrder:
    """Return an order, or the leg of a parent, in our words; a leg is pending while its parent is not filled."""
    filled = float(order.filled_qty or 0.0)
    status = DONE.get(order.status.value)
    if status is None:
        status = PipelineStatus.PARTIALLY_FILLED if filled else PipelineStatus.SUBMITTED
        if leg is not Leg.ENTRY and parent is not None and not is_own_exit(parent) and parent.status.value != "filled":
            status = PipelineStatus.PENDING
    return BrokerOrder(
        client_order_id=client_order_id,
        order_id=str(order.id),
        symbol=order.symbol or "",
        side=Side.BUY if order.side is not None and order.side.value == "buy" else Side.SELL,
        qty=float(order.qty or 0.0),
        filled_qty=filled,
        status=status,
        reason="rejected by the exchange" if status is PipelineStatus.REJECTED else "",
    )


@contextmanager
def translated(*, writing: str | None = None) -> Iterator[None]:
    """Turn what the library raises into the framework's errors; `writing` names the order that was being sent."""
    import requests
    from alpaca.common.exceptions import APIError
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

    def lost(text: str, error: Exception) -> BrokerError:
        if writing is None:
            return BrokerUnavailableError(f"Alpaca {text}: {error}")
        return BrokerOutcomeUnknownError(f"Alpaca {text} in the middle of {writing}: {error}; ask for it by this identity.")

    try:
        yield
    except APIError as error:
        status = error.status_code or 0
        if status == 404:
            raise NotFound(f"Alpaca has nothing there: {error}") from error
        if status == 429 or status == 401:
            raise BrokerUnavailableError(f"Alpaca did not take the request ({status}): {error}") from error
        if status >= 500:
            raise lost(f"failed ({status})", error) from error
        if writing is not None and status in (403, 422):
            raise Refused(_message(error)) from error
        raise BrokerError(f"Alpaca refused the request ({status}): {error}") from error
    except requests.exceptions.InvalidJSONError as error:
        raise _nonsense(error, writing) from error
    except requests.exceptions.RequestException as error:
        reason = getattr(error.args[0] if error.args else None, "reason", None)
        if isinstance(error, requests.exceptions.ConnectTimeout) or isinstance(
            reason, NewConnectionError | ConnectTimeoutError
        ):
            raise BrokerUnavailableError(f"Alpaca cannot be reached: {error}") from error
        raise lost("was lost", error) from error
    except (DataError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _nonsense(error, writing) from error


def _nonsense(error: Exception, writing: str | None) -> BrokerError:
    text = f"Alpaca answered what cannot be used: {type(error).__name__}: {str(error)[:300]}"
    return BrokerError(text) if writing is None else BrokerOutcomeUnknownError(f"{text}; ask for {writing} by this identity.")


def _message(error: Any) -> str:
    try:
        return str(error.message)
    except (ValueError, KeyError, TypeError):
        return str(error)
