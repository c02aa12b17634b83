"""Market data of Interactive Brokers, over a running TWS or IB Gateway (extra ``ib``).

Hides when IB's bars are final and how long an answer holds. Promises the last price at or before the time asked for, dated as
it was made, also where it is delayed; bars of days that are over; and an error of our own where IB cannot be asked now, which
refuses a signal and is not taken for a price.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from types import MappingProxyType, TracebackType
from typing import Any, Self
from zoneinfo import ZoneInfo

from agents.brokers.ib_prices import IBPrices, Pace
from agents.trading.market_data import Bar, Quote
from agents.trading.sessions import ExchangeSessions
from core.errors import ConfigurationError, DataError

_NEW_YORK = ZoneInfo("America/New_York")
_NOON = time(12)
_LEAST_BARS = 30
_IB_MOST = 60


@dataclass(frozen=True, kw_only=True)
class IBDataConfig:
    """How Interactive Brokers is asked for prices.

    Parameters
    ----------
    host : str, default="127.0.0.1"
    port : int, default=4002
        4002 and 7497 are those of paper, 4001 and 7496 those of real money, which do as well: nothing is ordered here.
    client_id : int, default=27
        Another than the broker's.
    currency : str, default="USD"
        Of stocks and indices.
    primary_exchanges : mapping of str to str
        Where a symbol is listed, for instance ``{"MSFT": "NASDAQ"}``; needed where IB knows several of that name.
    timeout_seconds : float, default=15
        Longest wait for an answer; IB takes up to eleven seconds for a price.
    quote_seconds : float, default=20
        How long a price is told again without asking.
    absent_minutes : float, default=15
        How long a symbol without a price or a bar is believed to have none.
    settle_minutes : float, default=20
        After the close of a session until its bar is told: auctions end and the VIX is computed some minutes later.
    history_requests : int, default=50
        In ten minutes; IB allows a login 60.

    Raises
    ------
    ConfigurationError
        If something is out of range.
    """

    host: str = "127.0.0.1"
    port: int = 4002
    client_id: int = 27
    currency: str = "USD"
    primary_exchanges: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    timeout_seconds: float = 15.0
    quote_seconds: float = 20.0
    absent_minutes: float = 15.0
    settle_minutes: float = 20.0
    history_requests: int = 50

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65_535:
            raise ConfigurationError(f"`port` must be in 1..65535, was {self.port!r}.")
        if self.client_id < 1:
            raise ConfigurationError(
                f"`client_id` must be 1 or more, was {self.client_id!r}: 0 takes over orders that are made by hand."
            )
        if not 1 <= self.history_requests <= _IB_MOST:
            raise ConfigurationError(f"`history_requests` must be in 1..{_IB_MOST}, was {self.history_requests!r}.")
        if not 0.0 < self.timeout_seconds <= 600.0:
            raise ConfigurationError(f"`timeout_seconds` must be in (0, 600], was {self.timeout_seconds!r}.")
        for name in ("quote_seconds", "absent_minutes", "settle_minutes"):
            if not 0.0 <= getattr(self, name) <= 600.0:
                raise ConfigurationError(f"`{name}` must be in 0..600, was {getattr(self, name)!r}.")


@dataclass(frozen=True, kw_only=True)
class _Days:
    """The bars of a symbol that were over at a time; they hold until the exchange opens or closes."""

    as_of: datetime
    span: tuple[datetime | None, datetime]
    wanted: int
    bars: list[Bar]


class IBMarket:
    """Tell prices of US stocks, the VIX and the S&P 500 from Interactive Brokers, as `MarketData`.

    Parameters
    ----------
    config : IBDataConfig

    Raises
    ------
    ConfigurationError
        If `ib_async` is not installed.

    Notes
    -----
    A symbol that IB does not know, or whose prices the account has not subscribed to, has no price here: another source may
    know it. The connection is made by the first call, and anew by the next after it was lost.
    """

    def __init__(self, config: IBDataConfig) -> None:
        self._config = config
        self._sessions = ExchangeSessions()
        self._quotes: dict[str, tuple[datetime, Quote | None]] = {}
        self._days: dict[str, _Days] = {}
        self._prices = IBPrices(
            host=config.host,
            port=config.port,
            client_id=config.client_id,
            timeout_seconds=config.timeout_seconds,
            currency=config.currency,
            primary_exchanges=config.primary_exchanges,
            pace=Pace(config.history_requests),
        )

    def close(self) -> None:
        """Let go of the gateway."""
        self._prices.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def get_quote(self, symbol: str, as_of: datetime) -> Quote | None:
        """Return the last price at or before a time; None where IB knows none or the account may not see it.

        Notes
        -----
        Without a subscription it is delayed by 10 to 20 minutes, and dated so. Where IB does not say when a price was made, or
        that was after the time asked for, it is the close of the last minute before, dated with the end of that minute.

        Raises
        ------
        MissingDataError
            If the gateway cannot be reached, does not answer, or must not be asked yet.
        DataError
            If `as_of` is naive, the symbol is ambiguous, or the answer cannot be used.
        """
        _check_aware(as_of)
        if symbol in self._quotes:
            asked, quote = self._quotes[symbol]
            holds = timedelta(minutes=self._config.absent_minutes)
            if quote is not None:
                holds = timedelta(seconds=self._config.quote_seconds)
            if timedelta(0) <= as_of - asked < holds:
                return quote
        quote = self._prices.find_last(symbol)
        if quote is None or quote.at > as_of:
            minutes = self._prices.list_minutes(symbol, as_of)
            quote = None
            if minutes:
                quote = Quote(symbol=symbol, price=minutes[-1][1], currency=self._config.currency, at=minutes[-1][0])
        self._quotes[symbol] = (as_of, quote)
        return quote

    def list_bars(self, symbol: str, as_of: datetime, n: int) -> list[Bar]:
        """Return the last n daily bars whose session was over and settled at a time, oldest first.

        Notes
        -----
        A bar is of regular trading alone and dated with the close of its session, also where that is early. Prices are adjusted
        for splits and not for dividends. They are asked for anew after every opening and closing of the exchange: what was
        known before a split must not stand beside a price after it.

        Raises
        ------
        MissingDataError, DataError
            As `get_quote`.
        """
        _check_aware(as_of)
        if n < 1:
            return []
        settled = as_of - timedelta(minutes=self._config.settle_minutes)
        span = (self._sessions.closes_at(settled), self._sessions.next_open(as_of))
        kept = self._days.get(symbol)
        if kept is None or not self._holds(kept, span, as_of, n):
            wanted = max(n, _LEAST_BARS)
            told = self._prices.list_days(symbol, as_of, wanted)
            closes = [(self._sessions.closes_at(datetime.combine(day, _NOON, _NEW_YORK)), bar) for day, bar in told]
            bars = [_bar(symbol, at, bar) for at, bar in closes if at is not None and at <= settled]
            kept = self._days[symbol] = _Days(as_of=as_of, span=span, wanted=wanted, bars=bars)
        return kept.bars[-n:]

    def _holds(self, kept: _Days, span: tuple[datetime | None, datetime], as_of: datetime, n: int) -> bool:
        if kept.span != span or kept.wanted < n:
            return False
        return bool(kept.bars) or timedelta(0) <= as_of - kept.as_of < timedelta(minutes=self._config.absent_minutes)


def _bar(symbol: str, at: datetime, bar: Any) -> Bar:
    return Bar(
        symbol=symbol,
        at=at,
        open=bar.open,
        high=bar.high,
        low=bar.low,
        close=bar.close,
        # An index is not traded.
        volume=None if symbol.startswith("^") or bar.volume < 0 else bar.volume,
    )


def _check_aware(as_of: datetime) -> None:
    if as_of.utcoffset() is None:
        raise DataError(f"`as_of` must be tz-aware, was {as_of.isoformat()}; use UTC.")
