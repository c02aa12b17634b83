"""The grid on which US stocks may be quoted, and orders put onto it without becoming worse than they were meant."""

from __future__ import annotations

from dataclasses import replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from agents.brokers.broker import Order
from core.types import Side


def on_grid(order: Order) -> Order:
    """Return the order with prices that an exchange takes: cents, or hundredths of a cent below one dollar.

    A limit and a target move towards the better price, a stop towards the entry.
    """
    down, up = (ROUND_FLOOR, ROUND_CEILING) if order.side is Side.BUY else (ROUND_CEILING, ROUND_FLOOR)
    return replace(
        order,
        limit_price=_rounded(order.limit_price, down),
        stop_loss_price=_rounded(order.stop_loss_price, up),
        take_profit_price=_rounded(order.take_profit_price, up),
    )


def _rounded(price: float | None, rounding: str) -> float | None:
    if price is None:
        return None
    # Ten digits first: what float arithmetic adds behind them is no price anybody meant.
    exact = round(Decimal(repr(price)), 10)
    return float(exact.quantize(Decimal("0.01") if exact >= 1 else Decimal("0.0001"), rounding=rounding))
