"""What the trading agents may know of prices, and when.

Hides where prices come from. Promises that nothing is told that was not known at the time asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from core.message import Message
from core.types import Identifier, NotNegative, Positive, Ticker

VIX = "^VIX"
SP500 = "^GSPC"
SECTOR_FUNDS = ("XLK", "XLE", "XLF", "XLV", "XLI", "XLB")


@dataclass(frozen=True, kw_only=True, slots=True)
class Quote(Message):
    """The last price of a symbol.

    Parameters
    ----------
    symbol : str
    price : float
        In `currency`; index points for an index.
    currency : str
        Three letters of ISO 4217.
    at : datetime
        When it was made, UTC.
    """

    symbol: Ticker
    price: Positive
    currency: Identifier = "USD"
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar(Message):
    """Prices of a symbol over one bar, known at `at`, its end; `volume` is None where nobody knows it."""

    symbol: Ticker
    at: datetime
    open: Positive
    high: Positive
    low: Positive
    close: Positive
    volume: NotNegative | None = None


class MarketData(Protocol):
    """Tell prices as they were known; a symbol without data has no price, which is never an error."""

    def get_quote(self, symbol: str, as_of: datetime) -> Quote | None:
        """Return the last price made at or before a time; None when there is none."""

    def list_bars(self, symbol: str, as_of: datetime, n: int) -> list[Bar]:
        """Return the last n bars that had ended at or before a time, oldest first; fewer where there are not so many."""
