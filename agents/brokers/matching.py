"""The rules by which a bar fills orders: pure, the same as the backtest's, and as suspicious of a bar as it is.

Hides the order of events within a bar. Promises that an order is never filled above what was ordered, that its exits never
sell more than its entry bought, and that no fill is better than what the bar proves.

.. warning::

    ===========================  ==============================================================================================
    market entry                 at the open of the first bar it meets, slippage against us
    limit entry                  at the better of open and limit, without slippage: an order that waits at the open takes part
                                 in the auction; otherwise at the limit, when the bar touches it
    stop of a bracket            at its price, or at the open when the bar opens beyond it, slippage against us; what the volume
                                 leaves over is sold at the following opens, whatever the price does
    target of a bracket          at its price, or at the open when the bar opens beyond it, slippage against us
    stop and target in one bar   the stop
    entry filled at the open     its exits hold for the whole of that bar
    entry filled at its limit    its exits hold for what surely came after: the extreme on the far side of the limit, the close
    first fill of an exit        ends the other exit as far as it goes, and what is not filled of the entry
    ===========================  ==============================================================================================

Stops and targets follow `docs/decisions/0014-what-a-stop-is-filled-at.md`, volume, lots and commissions
`docs/decisions/0012-what-an-order-meets.md`. A bar of one price (open, high, low and close the same) fills at that price,
which is the backtest's ``fill="close"``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from numbers import Real

from agents.brokers.broker import BrokerOrder, Execution, Leg, Order, exit_ids
from agents.trading.market_data import Bar
from core.errors import ConfigurationError
from core.types import Identifier, NotNegative, PipelineStatus, Side

_OPEN = (PipelineStatus.SUBMITTED, PipelineStatus.PARTIALLY_FILLED)
_RANGES = {
    "commission_bps": (0.0, 1_000.0),
    "commission_per_share": (0.0, 1_000.0),
    "minimum_commission": (0.0, 1e6),
    "slippage_bps": (0.0, 1_000.0),
    "lot_size": (1e-9, 1e9),
}


@dataclass(frozen=True, kw_only=True)
class MatchingRules:
    """What a fill costs and how much of it there is; defaults and meaning of `backtest.BacktestConfig`.

    Parameters
    ----------
    commission_bps : float, default=1.0
        Commission in basis points of the traded value, at the price really paid or received.
    commission_per_share : float, default=0.0
        Added to it for each share, in the currency of the prices.
    minimum_commission : float, default=0.0
        Smallest commission of one fill, in the currency of the prices.
    slippage_bps : float, default=4.0
        Half-spread in basis points, of everything but a limit entry. A buy pays ``price * (1 + s)``.
    participation_limit : float, optional
        Largest part of a bar's volume that all orders together may take, in (0, 1]; None for no limit. A bar without
        volume then fills nothing.
    lot_size : float, default=1.0
        Shares that a fill is a multiple of; 1e-9 for the smallest fraction.

    Raises
    ------
    ConfigurationError
        If a value is out of its range or not finite.
    """

    commission_bps: float = 1.0
    commission_per_share: float = 0.0
    minimum_commission: float = 0.0
    slippage_bps: float = 4.0
    participation_limit: float | None = None
    lot_size: float = 1.0

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            if not (_is_number(getattr(self, name)) and low <= getattr(self, name) <= high):
                raise ConfigurationError(f"`{name}` must be in [{low:g}, {high:g}], was {getattr(self, name)!r}.")
        limit = self.participation_limit
        if limit is not None and not (_is_number(limit) and 0.0 < limit <= 1.0):
            raise ConfigurationError(f"`participation_limit` must be in (0, 1] or None, was {limit!r}.")

    def count_lots(self, qty: float) -> int:
        """Return how many whole lots a number of shares holds, by its decimal digits."""
        return int(Decimal(repr(float(qty))) // Decimal(repr(float(self.lot_size))))

    def lots_of(self, count: int) -> float:
        """Return the shares of a number of lots."""
        return float(count * Decimal(repr(float(self.lot_size))))

    def is_whole(self, qty: float) -> bool:
        """Whether a number of shares is a multiple of the lot."""
        return Decimal(repr(float(qty))) % Decimal(repr(float(self.lot_size))) == 0

    def commission(self, qty: float, price: float) -> float:
        """Return what filling shares at a price costs."""
        own = self.commission_bps * 1e-4 * (qty * price) + self.commission_per_share * qty
        return max(own, self.minimum_commission)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkingOrder(Order):
    """An order and what became of it so far, its exits included.

    Parameters
    ----------
    order_id : str
        The broker's identity of it.
    placed_at : datetime
        UTC.
    status : PipelineStatus, default="submitted"
        Of the entry.
    reason : str, default=""
        Why it was rejected.
    filled_qty, stop_filled_qty, target_filled_qty : float, default=0
        Shares filled of the entry and of each exit.
    stop_triggered : bool, default=False
        The stop was touched and sells what is left at the market.
    exits_cancelled : bool, default=False
    """

    order_id: Identifier
    placed_at: datetime
    status: PipelineStatus = PipelineStatus.SUBMITTED
    reason: str = ""
    filled_qty: NotNegative = 0.0
    stop_filled_qty: NotNegative = 0.0
    target_filled_qty: NotNegative = 0.0
    stop_triggered: bool = False
    exits_cancelled: bool = False

    @property
    def is_working(self) -> bool:
        """Whether the entry may still be filled."""
        return self.status in _OPEN

    @property
    def has_living_exits(self) -> bool:
        """Whether its exits watch over shares."""
        return self.is_bracket and not self.exits_cancelled and self.filled_qty > self.stop_filled_qty + self.target_filled_qty

    def describe(self, leg: Leg = Leg.ENTRY) -> BrokerOrder:
        """Return the entry, or one exit, as a broker shows it.

        An exit whose entry has nothing filled is pending and covers what was ordered; later it covers what was filled.
        """
        if leg is Leg.ENTRY:
            return BrokerOrder(
                client_order_id=self.client_order_id,
                order_id=self.order_id,
                symbol=self.symbol,
                side=self.side,
                qty=self.qty,
                filled_qty=self.filled_qty,
                status=self.status,
                reason=self.reason,
            )
        filled = self.stop_filled_qty if leg is Leg.STOP_LOSS else self.target_filled_qty
        return BrokerOrder(
            client_order_id=exit_ids(self.client_order_id)[leg],
            order_id=f"{self.order_id}-{leg.value}",
            symbol=self.symbol,
            side=opposite(self.side),
            qty=self.filled_qty or self.qty,
            filled_qty=filled,
            status=self._exit_status(leg, filled),
        )

    def _exit_status(self, leg: Leg, filled: float) -> PipelineStatus:
        if 0.0 < filled == self.filled_qty:
            return PipelineStatus.FILLED
        if self.filled_qty == 0.0 and self.is_working and not self.exits_cancelled:
            return PipelineStatus.PENDING
        if not self.has_living_exits or (self.stop_triggered and leg is Leg.TAKE_PROFIT):
            return PipelineStatus.CANCELLED
        return PipelineStatus.PARTIALLY_FILLED if filled else PipelineStatus.SUBMITTED


def opposite(side: Side) -> Side:
    """Return the other side."""
    return Side.SELL if side is Side.BUY else Side.BUY


def match_bars(orders: Sequence[WorkingOrder], bar: Bar, rules: MatchingRules) -> tuple[list[WorkingOrder], list[Execution]]:
    """Let a bar meet the orders of its symbol, oldest first, sharing its volume.

    Parameters
    ----------
    orders : sequence of WorkingOrder
        Those that were placed before the bar began.
    bar : Bar
    rules : MatchingRules

    Returns
    -------
    orders : list of WorkingOrder
        Those that changed, by a fill, an expiry, or a stop that was touched.
    executions : list of Execution
        In the order of the fills, at most one of a leg. Their identity is that of the leg and the bar, their time the end of
        the bar: nobody knows of them earlier.

    Notes
    -----
    An entry whose time is over before the bar ends is expired and not filled: it cannot be shown that it came in time.
    """
    room = math.inf if rules.participation_limit is None else rules.participation_limit * (bar.volume or 0.0)
    changed: list[WorkingOrder] = []
    executions: list[Execution] = []
    for order in orders:
        matched, fills = _match(order, bar, rules, room)
        room -= sum(fill.qty for fill in fills)
        executions += fills
        if matched is not order:
            changed.append(matched)
    return changed, executions


def expire(order: WorkingOrder, at: datetime) -> WorkingOrder:
    """Return the order, its entry expired when its time is over at `at`."""
    if order.is_working and order.expires_at is not None and order.expires_at < at:
        return replace(order, status=PipelineStatus.EXPIRED)
    return order


def _match(order: WorkingOrder, bar: Bar, rules: MatchingRules, room: float) -> tuple[WorkingOrder, list[Execution]]:
    fills: list[Execution] = []
    order = expire(order, bar.at)
    rest = bar
    if order.is_working and (entry := _entry_price(order, bar, rules)) is not None:
        price, rest = entry
        left = rules.count_lots(order.qty) - rules.count_lots(order.filled_qty)
        if qty := _fillable(left, rules, room):
            fills.append(_execution(order, Leg.ENTRY, qty, price, bar, rules))
            room -= qty
            order = _filled(order, Leg.ENTRY, qty, rules)
        else:
            rest = bar
    if order.has_living_exits and (touched := _touched_exit(order, rest)) is not None:
        leg, quoted = touched
        exit_side = opposite(order.side)
        held = rules.count_lots(order.filled_qty) - rules.count_lots(order.stop_filled_qty)
        held -= rules.count_lots(order.target_filled_qty)
        if leg is Leg.STOP_LOSS and not order.stop_triggered:
            order = _end_entry(replace(order, stop_triggered=True))
        if qty := _fillable(held, rules, room):
            fills.append(_execution(order, leg, qty, _slipped(quoted, exit_side, rules), bar, rules))
            order = _end_entry(_filled(order, leg, qty, rules))
    return order, fills


def _entry_price(order: WorkingOrder, bar: Bar, rules: MatchingRules) -> tuple[float, Bar] | None:
    """Return the price of the entry and what of the bar surely came after; None when the bar does not reach its limit."""
    if order.limit_price is None:
        return _slipped(bar.open, order.side, rules), bar
    limit = order.limit_price
    if order.side is Side.BUY:
        if bar.open <= limit:
            return bar.open, bar
        after = replace(bar, open=limit, high=max(limit, bar.close))
        return (limit, after) if bar.low <= limit else None
    if bar.open >= limit:
        return bar.open, bar
    after = replace(bar, open=limit, low=min(limit, bar.close))
    return (limit, after) if bar.high >= limit else None


def _touched_exit(order: WorkingOrder, bar: Bar) -> tuple[Leg, float] | None:
    """Return the exit that a bar fills, and its price before slippage."""
    assert order.stop_loss_price is not None and order.take_profit_price is not None
    sign, worst, best = (1.0, bar.low, bar.high) if order.side is Side.BUY else (-1.0, bar.high, bar.low)
    stop, target = order.stop_loss_price, order.take_profit_price
    if order.stop_triggered:
        return Leg.STOP_LOSS, bar.open
    if sign * (worst - stop) <= 0.0:
        return Leg.STOP_LOSS, bar.open if sign * (bar.open - stop) < 0.0 else stop
    if sign * (best - target) >= 0.0:
        return Leg.TAKE_PROFIT, bar.open if sign * (bar.open - target) > 0.0 else target
    return None


def _slipped(price: float, side: Side, rules: MatchingRules) -> float:
    slippage = rules.slippage_bps * 1e-4
    return price * (1.0 + slippage if side is Side.BUY else 1.0 - slippage)


def _fillable(lots: int, rules: MatchingRules, room: float) -> float:
    if room != math.inf:
        lots = min(lots, rules.count_lots(max(room, 0.0)))
    return rules.lots_of(lots)


def _filled(order: WorkingOrder, leg: Leg, qty: float, rules: MatchingRules) -> WorkingOrder:
    def more(before: float) -> float:
        return rules.lots_of(rules.count_lots(before) + rules.count_lots(qty))

    if leg is Leg.STOP_LOSS:
        return replace(order, stop_filled_qty=more(order.stop_filled_qty))
    if leg is Leg.TAKE_PROFIT:
        return replace(order, target_filled_qty=more(order.target_filled_qty))
    filled = more(order.filled_qty)
    status = PipelineStatus.FILLED if filled >= order.qty else PipelineStatus.PARTIALLY_FILLED
    return replace(order, filled_qty=filled, status=status)


def _end_entry(order: WorkingOrder) -> WorkingOrder:
    return replace(order, status=PipelineStatus.CANCELLED) if order.is_working else order


def _execution(order: WorkingOrder, leg: Leg, qty: float, price: float, bar: Bar, rules: MatchingRules) -> Execution:
    client_order_id = order.client_order_id if leg is Leg.ENTRY else exit_ids(order.client_order_id)[leg]
    return Execution(
        exec_id=f"{client_order_id}@{bar.at.isoformat()}",
        client_order_id=client_order_id,
        leg=leg,
        symbol=order.symbol,
        side=order.side if leg is Leg.ENTRY else opposite(order.side),
        qty=qty,
        price=price,
        commission=rules.commission(qty, price),
        filled_at=bar.at,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
