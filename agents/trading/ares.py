"""Ares (execution): turns a decision into the one order it leads to, and sends it.

Hides how a bracket is priced. Promises that the order of a decision has one identity, so that asking twice never buys
twice, and that shares are rounded down.

.. note:: What must be durable before the broker is asked is written by the pipeline, from the plan that :meth:`Ares.plan_entry`
   or :meth:`Ares.plan_exit` returns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, Protocol
from uuid import NAMESPACE_URL, uuid5

from agents.brokers.asking import Sent, send_all
from agents.brokers.broker import Broker, Order, exit_ids
from agents.trading.market_data import Bar, MarketData, Quote
from core.errors import ConfigurationError, DataError
from core.store.trading_records import OrderIntent
from core.types import BindingConstraint, PipelineStatus, Refusal, Side, Stage, TradeResult

_ORDER_NAMES = uuid5(NAMESPACE_URL, "aqf:client_order_id")


class Sessions(Protocol):
    """When an exchange trades."""

    def closes_at(self, at: datetime) -> datetime | None:
        """Return when the session ends in which a time lies, UTC; None outside of one."""


@dataclass(frozen=True, kw_only=True)
class AresConfig:
    """How orders are priced and how long they live.

    Parameters
    ----------
    stop_loss : float, default=0.03
        Distance of the stop from the limit, as a fraction.
    take_profit_multiple : float, default=2.0
        Distance of the target in distances of the stop: 6 % by default.
    atr_multiple : float, optional
        Distance of the stop in average true ranges of `atr_bars`, within `min_stop` and `max_stop`; None takes `stop_loss`.
    atr_bars : int, default=14
    min_stop, max_stop : float
        Fractions.
    expiry_minutes : float, default=120
        How long an entry waits, if the session does not end before.
    max_quote_age_hours : float, default=100
        Older prices are no prices; a long week-end is 89 hours.
    currency : str, default="USD"
        Of equity. A price in another is refused: nothing here converts.
    """

    stop_loss: float = 0.03
    take_profit_multiple: float = 2.0
    atr_multiple: float | None = None
    atr_bars: int = 14
    min_stop: float = 0.03
    max_stop: float = 0.12
    expiry_minutes: float = 120.0
    max_quote_age_hours: float = 100.0
    currency: str = "USD"

    def __post_init__(self) -> None:
        if not (0.0 < self.min_stop <= self.max_stop < 1.0 and 0.0 < self.stop_loss < 1.0 and self.take_profit_multiple > 0.0):
            raise ConfigurationError(
                "stops must be fractions with `min_stop` <= `max_stop`, and `take_profit_multiple` above 0."
            )
        if self.atr_bars < 1 or self.expiry_minutes <= 0.0 or self.max_quote_age_hours <= 0.0:
            raise ConfigurationError("`atr_bars`, `expiry_minutes` and `max_quote_age_hours` must be above 0.")


@dataclass(frozen=True, kw_only=True)
class OrderPlan:
    """An order with everything to write down before the broker is asked: the intents of itself and of its exits."""

    order: Order
    signal_id: str
    intents: tuple[tuple[OrderIntent, Mapping[str, Any]], ...]


def order_identity(signal_id: str, symbol: str) -> str:
    """Return the one `client_order_id` of a decision."""
    return str(uuid5(_ORDER_NAMES, f"{signal_id}|{symbol}"))


def average_true_range(bars: Sequence[Bar], n: int) -> float | None:
    """Compute the mean true range of the last n bars.

    Parameters
    ----------
    bars : sequence of Bar
        Oldest first; the first needed one only lends its close.
    n : int

    Returns
    -------
    float or None
        In price; None with fewer than n + 1 bars.

    Notes
    -----
    The true range is the largest of high - low, high - previous close and previous close - low [1]_. A plain mean, where Wilder
    smooths exponentially: it needs n + 1 bars and forgets them.

    References
    ----------
    .. [1] Wilder, J. W. (1978). New Concepts in Technical Trading Systems, 21-23.
    """
    if len(bars) < n + 1:
        return None
    last = bars[-(n + 1) :]
    ranges = [max(bar.high, before.close) - min(bar.low, before.close) for before, bar in pairwise(last)]
    return math.fsum(ranges) / n


class Ares:
    """Price orders and place them.

    Parameters
    ----------
    broker : Broker
    data : MarketData
    config : AresConfig
    sessions : Sessions, optional
        When entries end with the session; without it they only expire.
    """

    def __init__(self, broker: Broker, data: MarketData, config: AresConfig, sessions: Sessions | None = None) -> None:
        self.broker = broker
        self.data = data
        self.config = config
        self.sessions = sessions

    def find_quote(self, symbol: str, now: datetime) -> Quote | Refusal:
        """Return a price that may be traded on, or say why there is none."""
        try:
            quote = self.data.get_quote(symbol, now)
        except DataError as error:
            return _refuse(BindingConstraint.PRICE_UNAVAILABLE, f"the price of {symbol} cannot be used: {error}")
        if quote is None:
            return _refuse(BindingConstraint.PRICE_UNAVAILABLE, f"nobody knows a price of {symbol}")
        age = now - quote.at
        if not timedelta(0) <= age <= timedelta(hours=self.config.max_quote_age_hours):
            reason = (
                f"the price of {symbol} is of {quote.at:%Y-%m-%d %H:%M} UTC: older than {self.config.max_quote_age_hours:g} h"
            )
            return _refuse(BindingConstraint.PRICE_UNAVAILABLE, reason)
        if quote.currency != self.config.currency:
            reason = f"{symbol} is priced in {quote.currency} and equity in {self.config.currency}"
            return _refuse(BindingConstraint.PRICE_UNAVAILABLE, reason)
        return quote

    def plan_entry(self, signal_id: str, symbol: str, size: float, equity: float, now: datetime) -> OrderPlan | Refusal:
        """Plan a bracket: a limit at the last price, a stop below, a target above.

        A price between two ticks is a limit at the upper one: the lower is below the market and would wait for a fall. A
        share may so cost less than a tick more than the price that it is counted by.

        Parameters
        ----------
        signal_id : str
        symbol : str
        size : float
            Share of equity to stake, as a fraction.
        equity : float
            In the currency of the account.
        now : datetime
            Prices are those known then, UTC.
        """
        quote = self.find_quote(symbol, now)
        if isinstance(quote, Refusal):
            return quote
        qty = whole_shares(equity, size, quote.price)
        if qty < 1:
            reason = f"{size:.4%} of {equity:.2f} buys no share of {symbol} at {quote.price:g}"
            return _refuse(BindingConstraint.SIZE_BELOW_ONE_SHARE, reason)
        try:
            distance = self._stop_distance(symbol, quote.price, now)
            order = Order(
                client_order_id=order_identity(signal_id, symbol),
                symbol=symbol,
                side=Side.BUY,
                qty=qty,
                limit_price=to_tick_above(quote.price),
                stop_loss_price=to_tick(quote.price * (1.0 - distance)),
                take_profit_price=to_tick(quote.price * (1.0 + distance * self.config.take_profit_multiple)),
                expires_at=self.expiry(now),
            )
        except DataError as error:
            return _refuse(
                BindingConstraint.PRICE_UNAVAILABLE, f"no bracket fits the price {quote.price:g} of {symbol}: {error}"
            )
        return OrderPlan(order=order, signal_id=signal_id, intents=_intents(order, signal_id))

    def plan_exit(self, signal_id: str, symbol: str, qty: float) -> OrderPlan:
        """Plan the sale of a whole position at the market.

        Notes
        -----
        It does not expire: once the exits of the position are cancelled, this order is all that closes it.
        """
        order = Order(client_order_id=order_identity(signal_id, symbol), symbol=symbol, side=Side.SELL, qty=qty)
        return OrderPlan(order=order, signal_id=signal_id, intents=_intents(order, signal_id))

    def expiry(self, now: datetime) -> datetime:
        """Return when an entry that is sent now ends."""
        latest = now + timedelta(minutes=self.config.expiry_minutes)
        end = None if self.sessions is None else self.sessions.closes_at(now)
        return latest if end is None else min(latest, end)

    def send(self, orders: Sequence[Order]) -> list[Sent]:
        """Place orders and say of each what came of it, in their order; never raises for what a broker does."""
        return send_all(self.broker, orders)

    def _stop_distance(self, symbol: str, price: float, now: datetime) -> float:
        if self.config.atr_multiple is None:
            return self.config.stop_loss
        atr = average_true_range(self.data.list_bars(symbol, now, self.config.atr_bars + 1), self.config.atr_bars)
        if atr is None:
            return self.config.stop_loss
        return min(self.config.max_stop, max(self.config.min_stop, self.config.atr_multiple * atr / price))


def whole_shares(equity: float, size: float, price: float) -> int:
    """Return how many whole shares a share of equity buys, never one too many.

    Notes
    -----
    In decimals, as the figures read: in binary 0.07 * 100 / 7 is above 1, and 0.29 * 100 below 29.
    """
    return int(Decimal(repr(equity)) * Decimal(repr(size)) // Decimal(repr(price)))


def to_tick(price: float) -> float:
    """Round a price to cents, or below one to hundredths of a cent, as US exchanges quote."""
    return round(price, 2 if price >= 1.0 else 4)


def to_tick_above(price: float) -> float:
    """Round a price up to cents, or below one to hundredths of a cent; one that is quoted so stays what it is.

    Ten digits behind the point count: what float arithmetic adds behind them is no price anybody meant.
    """
    nearest = to_tick(price)
    return nearest if nearest >= round(price, 10) else to_tick(nearest + (0.01 if price >= 1.0 else 0.0001))


def trade_result(order: Order, sent: Sent) -> TradeResult | None:
    """Return what became of an order as the broker told it at once; None for one that was not sent after all.

    Notes
    -----
    Shares are not in it, nor is that it is filled: executions tell that, and are counted apart.
    """
    filled = sent.status in (PipelineStatus.FILLED, PipelineStatus.PARTIALLY_FILLED)
    if not sent.arrived and sent.status is PipelineStatus.CANCELLED:
        return None
    return TradeResult(
        client_order_id=order.client_order_id,
        order_id=sent.order_id,
        symbol=order.symbol,
        side=order.side,
        status=PipelineStatus.SUBMITTED if filled else sent.status,
        stop_loss_price=order.stop_loss_price,
        take_profit_price=order.take_profit_price,
    )


def _intents(order: Order, signal_id: str) -> tuple[tuple[OrderIntent, Mapping[str, Any]], ...]:
    own = OrderIntent(
        client_order_id=order.client_order_id, signal_id=signal_id, symbol=order.symbol, side=order.side, qty=order.qty
    )
    written: list[tuple[OrderIntent, Mapping[str, Any]]] = [(own, {"order": order.to_dict()})]
    if order.is_bracket:
        other = Side.SELL if order.side is Side.BUY else Side.BUY
        for leg, identity in exit_ids(order.client_order_id).items():
            exit_ = OrderIntent(client_order_id=identity, symbol=order.symbol, side=other, qty=order.qty)
            written.append((exit_, {"parent": order.client_order_id, "leg": leg.value}))
    return tuple(written)


def _refuse(constraint: BindingConstraint, reason: str) -> Refusal:
    return Refusal(stage=Stage.ARES, constraint=constraint, reason=reason)
