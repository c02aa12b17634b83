"""Market data of a broker, and several sources as one.

Hides Alpaca's market-data interface. Promises the last trade at or before the time asked for, and an error of our own where
the broker cannot be asked, which refuses a signal and is not taken for a price.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import SecretStr

from agents.trading.market_data import Bar, MarketData, Quote
from core.errors import ConfigurationError, DataError, MissingDataError

ALPACA_DATA = "https://data.alpaca.markets"
_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class AlpacaDataConfig:
    """How Alpaca is asked for prices.

    Parameters
    ----------
    key_id, secret : SecretStr
        Those of the account.
    endpoint : str
    feed : str, default="iex"
        One exchange, which is free; ``sip`` is all of them.
    lookback_days : float, default=7
        Older trades are no prices.
    timeout_seconds : float, default=10

    Raises
    ------
    ConfigurationError
        If there is no key, or a number is not positive.
    """

    key_id: SecretStr = field(repr=False)
    secret: SecretStr = field(repr=False)
    endpoint: str = ALPACA_DATA
    feed: str = "iex"
    lookback_days: float = 7.0
    timeout_seconds: float = 10.0

    def __post_init__(self) -> None:
        if not self.key_id.get_secret_value() or not self.secret.get_secret_value():
            raise ConfigurationError("prices of Alpaca need the account's key and its secret.")
        if not (0.0 < self.lookback_days <= 365.0 and 0.0 < self.timeout_seconds <= 600.0):
            raise ConfigurationError("`lookback_days` must be in (0, 365] and `timeout_seconds` in (0, 600].")


class AlpacaMarket:
    """Tell prices of US stocks from Alpaca, as `MarketData`. It has no index: no VIX, no S&P 500.

    Parameters
    ----------
    config : AlpacaDataConfig
    """

    def __init__(self, config: AlpacaDataConfig) -> None:
        self._config = config
        self._client = httpx.Client(
            base_url=config.endpoint.rstrip("/"),
            timeout=config.timeout_seconds,
            headers={
                "APCA-API-KEY-ID": config.key_id.get_secret_value(),
                "APCA-API-SECRET-KEY": config.secret.get_secret_value(),
            },
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def get_quote(self, symbol: str, as_of: datetime) -> Quote | None:
        """Return the last trade at or before a time; None where there is none.

        Raises
        ------
        MissingDataError
            If Alpaca cannot be reached or refuses.
        DataError
            If it answers what cannot be used.
        """
        if symbol.startswith("^"):
            return None
        since = as_of - timedelta(days=self._config.lookback_days)
        found = self._ask(symbol, "trades", since, as_of, limit="1", sort="desc")
        try:
            quotes = [Quote(symbol=symbol, price=one["p"], at=_time(one["t"])) for one in found[:1]]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"Alpaca answered with a trade of {symbol} that cannot be read: {error!r}.") from error
        return quotes[0] if quotes and quotes[0].at <= as_of else None

    def list_bars(self, symbol: str, as_of: datetime, n: int) -> list[Bar]:
        """Return the last n daily bars whose day in New York was over at a time, oldest first.

        Raises
        ------
        MissingDataError, DataError
            As `get_quote`.
        """
        if symbol.startswith("^") or n < 1:
            return []
        # Seven calendar days hold at least three sessions, whatever the holidays.
        since = as_of - timedelta(days=7 + n * 7 / 3)
        found = self._ask(symbol, "bars", since, as_of, limit="10000", sort="asc", timeframe="1Day", adjustment="split")
        try:
            bars = [_bar(symbol, one) for one in found]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"Alpaca answered with a bar of {symbol} that cannot be read: {error!r}.") from error
        return sorted((bar for bar in bars if bar.at <= as_of), key=lambda bar: bar.at)[-n:]

    def _ask(self, symbol: str, what: str, since: datetime, until: datetime, **more: str) -> list[Mapping[str, Any]]:
        query = {"start": since.isoformat(), "end": until.isoformat(), "feed": self._config.feed, **more}
        try:
            answer = self._client.get(f"/v2/stocks/{symbol}/{what}", params=query)
        except httpx.HTTPError as error:
            raise MissingDataError(
                f"Alpaca cannot be asked for {what} of {symbol}: {error or type(error).__name__}."
            ) from error
        if answer.status_code != httpx.codes.OK:
            raise MissingDataError(f"Alpaca answered {answer.status_code} when asked for {what} of {symbol}.")
        try:
            found = answer.json()[what]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"Alpaca answered what cannot be read when asked for {what} of {symbol}.") from error
        if found is None:  # what it says where there are none
            return []
        if not isinstance(found, list):
            raise DataError(f"Alpaca answered with {type(found).__name__} when asked for {what} of {symbol}.")
        return found


class LayeredMarket:
    """Several sources as one: a symbol is told by the first that knows it.

    Parameters
    ----------
    sources : sequence of MarketData
        The most trusted first; for instance a broker, then a file with the indices.
    """

    def __init__(self, sources: Sequence[MarketData]) -> None:
        self._sources = tuple(sources)

    def get_quote(self, symbol: str, as_of: datetime) -> Quote | None:
        """Return the price of the first source that has one."""
        return next((quote for one in self._sources if (quote := one.get_quote(symbol, as_of)) is not None), None)

    def list_bars(self, symbol: str, as_of: datetime, n: int) -> list[Bar]:
        """Return the bars of the first source that has any."""
        return next((bars for one in self._sources if (bars := one.list_bars(symbol, as_of, n))), [])


def _time(text: str) -> datetime:
    # Nanoseconds are more than a datetime holds: cut off, which is earlier by less than a microsecond.
    whole, dot, rest = text.replace("Z", "+00:00").partition(".")
    digits, sign, zone = rest.partition("+")
    return datetime.fromisoformat(f"{whole}.{digits[:6]:0<6}{sign}{zone}" if dot else whole)


def _bar(symbol: str, one: Mapping[str, Any]) -> Bar:
    return Bar(
        symbol=symbol, at=_time(one["t"]) + _DAY, open=one["o"], high=one["h"], low=one["l"], close=one["c"], volume=one["v"]
    )
