"""Market data that is downloaded: one table of daily bars a symbol, from an address that the user gives.

Hides fetching and keeping. Promises that a bar of a day is told when that day is over and not before, that what cannot be
fetched has no price, and that a symbol is not asked for more often than configured.
"""

from __future__ import annotations

import csv
import io
import logging
import math
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Protocol
from urllib.parse import quote as quote_for_url

import numpy as np
import pandas as pd

from agents.trading.market_data import Bar, Quote
from agents.trading.packaged_market import PanelMarket, PanelMarketConfig
from agents.trading.web import Page
from core.clock import Clock
from core.errors import ConfigurationError, DataError
from core.market.panel import Panel

_log = logging.getLogger(__name__)

_NEEDED = ("date", "close")
_PRICES = ("open", "high", "low", "close", "volume")
_END_OF_DAY = time(23, 59, 59, tzinfo=UTC)


class PageSource(Protocol):
    """Fetches a page: `agents.trading.web.Web`."""

    def fetch(self, url: str, *, known: Page | None = None) -> Page | None:
        """Return a page; None when it is still the one that is known."""


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """Where bars are downloaded from.

    Parameters
    ----------
    address : str
        Of a CSV with the columns ``Date`` and ``Close`` and, if there are any, ``Open``, ``High``, ``Low``, ``Volume``;
        ``{symbol}`` in it stands for the symbol.
    keep_minutes : float, default=15
        How long a table, or that there is none, is believed.
    quotes : PanelMarketConfig
        Currency and age of quotes.

    Raises
    ------
    ConfigurationError
        If the address does not say where the symbol goes.
    """

    address: str
    keep_minutes: float = 15.0
    quotes: PanelMarketConfig = field(default_factory=PanelMarketConfig)

    def __post_init__(self) -> None:
        if "{symbol}" not in self.address or not self.address.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"`address` must begin with http:// or https:// and have {{symbol}} in it, was {self.address!r}."
            )
        if not 0.0 <= self.keep_minutes < math.inf:
            raise ConfigurationError(f"`keep_minutes` must be a number of 0 or more, was {self.keep_minutes!r}.")


class DownloadedMarket:
    """Tell downloaded prices, as `MarketData`.

    Parameters
    ----------
    pages : PageSource
    config : DownloadConfig
    clock : Clock
        Says how old a table is.
    """

    def __init__(self, pages: PageSource, config: DownloadConfig, clock: Clock) -> None:
        self._pages, self._config, self._clock = pages, config, clock
        self._tables: dict[str, tuple[datetime, PanelMarket | None]] = {}

    def get_quote(self, symbol: str, as_of: datetime) -> Quote | None:
        """Return the close of the last day that was over at a time; None where it cannot be had."""
        table = self._table(symbol)
        return None if table is None else table.get_quote(symbol, as_of)

    def list_bars(self, symbol: str, as_of: datetime, n: int) -> list[Bar]:
        """Return the last n bars of days that were over at a time, oldest first; none where they cannot be had."""
        table = self._table(symbol)
        return [] if table is None else table.list_bars(symbol, as_of, n)

    def _table(self, symbol: str) -> PanelMarket | None:
        now = self._clock.now()
        kept = self._tables.get(symbol)
        if kept is not None and timedelta(0) <= now - kept[0] < timedelta(minutes=self._config.keep_minutes):
            return kept[1]
        table = None
        try:
            page = self._pages.fetch(self._config.address.replace("{symbol}", quote_for_url(symbol, safe="")))
            table = None if page is None else PanelMarket([read_table(symbol, page.content)], self._config.quotes)
        except DataError as error:
            _log.warning("there is no price of %s: %s", symbol, error)
        self._tables[symbol] = (now, table)
        return table


def read_table(symbol: str, content: bytes) -> Panel:
    """Read a CSV of daily bars of one symbol.

    Parameters
    ----------
    symbol : str
    content : bytes
        UTF-8, days in any order; columns by name, in any case.

    Returns
    -------
    Panel
        Of one symbol; each bar is stamped 23:59:59 UTC of its date, as `core.market.files.read_bars` does. Days without a close
        are left out.

    Raises
    ------
    DataError
        If it is not such a table, a day is there twice, or a price is not positive.
    """
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig")), strict=True)
        names = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
        if any(name not in names for name in _NEEDED):
            raise DataError(f"the table of {symbol} must have the columns Date and Close, has {', '.join(names) or 'none'}.")
        rows = sorted(_rows(symbol, reader, names))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"the table of {symbol} cannot be read as CSV in UTF-8: {error}.") from error
    if not rows:
        raise DataError(f"the table of {symbol} has no bar.")
    days = [day for day, _ in rows]
    if len(set(days)) != len(days):
        raise DataError(f"the table of {symbol} has a day twice.")
    index = pd.DatetimeIndex([datetime.combine(day, _END_OF_DAY) for day in days], tz="UTC", name="ts")
    values = np.array([prices for _, prices in rows])
    columns = {name: values[:, place : place + 1] for place, name in enumerate(_PRICES) if name in names}
    return Panel(index=index, symbols=(symbol,), name=symbol, **columns)  # type: ignore[arg-type]


def _rows(symbol: str, reader: csv.DictReader[str], names: dict[str, str]) -> list[tuple[date, list[float]]]:
    found = []
    for row in reader:
        where = f"the table of {symbol}, line {reader.line_num}"
        try:
            day = date.fromisoformat(row[names["date"]].strip())
            prices = [_number(row[names[name]]) if name in names else math.nan for name in _PRICES]
        except (AttributeError, TypeError, ValueError) as error:
            raise DataError(f"{where}: {error}.") from error
        if any(value <= 0.0 for value in prices[:4]) or prices[4] < 0.0:
            raise DataError(f"{where}: prices must be above 0 and volumes not negative, were {prices}.")
        if not math.isnan(prices[_PRICES.index("close")]):
            found.append((day, prices))
    return found


def _number(text: str) -> float:
    value = float(text) if text.strip() else math.nan
    if math.isinf(value):
        raise ValueError(f"{text!r} is not finite")
    return value
