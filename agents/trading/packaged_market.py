"""Market data from bars that are there already: a packaged data set, a CSV file, a panel of the store.

Hides where the bars lie. Promises that nothing is told before the close of its bar, that a series which has ended has no price
(a week after its last value, never a guess), and that a proxy is taken only where it was asked for by name.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from agents.trading.market_data import SP500, VIX, Bar, Quote
from core.errors import DataError
from core.market import load_dataset
from core.market.panel import FloatArray, Panel
from core.message import Message, refuse
from core.types import Identifier

PROXY_WINDOW = 21
_TRADING_DAYS = 252
_PACKAGED_INDICES = (("vix", "VIX", VIX), ("sp500_index", "SP500", SP500))


@dataclass(frozen=True, kw_only=True, slots=True)
class PanelMarketConfig(Message):
    """How prices of panels are quoted.

    Parameters
    ----------
    currency : str, default="USD"
    max_age_days : float, default=7
        A symbol whose last bar is older has no price; a week outlasts any closing of the exchange since 2001.
    """

    currency: Identifier = "USD"
    max_age_days: float = 7.0

    def _check(self) -> None:
        if not 0.0 < self.max_age_days < math.inf:
            raise refuse(self, "max_age_days", "a number of days above 0", self.max_age_days)


@dataclass(frozen=True, kw_only=True)
class _Series:
    """The bars of one symbol that are there, oldest first."""

    times: list[datetime]
    columns: Mapping[str, list[float]]


class PanelMarket:
    """Tell the prices of panels, as `MarketData`.

    Parameters
    ----------
    panels : sequence of Panel
        A symbol is read from the first panel that has it.
    config : PanelMarketConfig, optional
    notes : sequence of str, optional
        What a reader of results on these prices must know.

    Notes
    -----
    Where a panel knows closes alone, a bar opens, peaks and bottoms at its close: nothing is invented between two closes, so an
    order meets one price a bar.
    """

    def __init__(self, panels: Sequence[Panel], config: PanelMarketConfig | None = None, *, notes: Sequence[str] = ()) -> None:
        self.config = config or PanelMarketConfig()
        self.notes = tuple(notes)
        self._series: dict[str, _Series] = {}
        for panel in panels:
            for column, symbol in enumerate(panel.symbols):
                if symbol not in self._series:
                    self._series[symbol] = _read_series(panel, column)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Everything that ever has a price here."""
        return tuple(self._series)

    def get_quote(self, symbol: str, as_of: datetime) -> Quote | None:
        """Return the last close made at or before a time; None when there is none, or it is too old to be a price.

        Raises
        ------
        DataError
            If `as_of` is naive.
        """
        found = self._find(symbol, as_of)
        if found is None:
            return None
        series, stop = found
        at = series.times[stop - 1]
        if as_of - at > timedelta(days=self.config.max_age_days):
            return None
        return Quote(symbol=symbol, price=series.columns["close"][stop - 1], currency=self.config.currency, at=at)

    def list_bars(self, symbol: str, as_of: datetime, n: int) -> list[Bar]:
        """Return the last n bars that had ended at or before a time, oldest first; none of a series that has ended.

        Raises
        ------
        DataError
            If `as_of` is naive.
        """
        found = self._find(symbol, as_of)
        if found is None or n < 1:
            return []
        series, stop = found
        if as_of - series.times[stop - 1] > timedelta(days=self.config.max_age_days):
            return []
        return [_bar(symbol, series, place) for place in range(max(0, stop - n), stop)]

    def bars_at(self, at: datetime) -> list[Bar]:
        """Return the bars of all symbols that end exactly at a time, by symbol."""
        found = []
        for symbol in sorted(self._series):
            series = self._series[symbol]
            place = bisect_right(series.times, at) - 1
            if place >= 0 and series.times[place] == at:
                found.append(_bar(symbol, series, place))
        return found

    def _find(self, symbol: str, as_of: datetime) -> tuple[_Series, int] | None:
        if as_of.utcoffset() is None:
            raise DataError(f"`as_of` must be tz-aware, was {as_of.isoformat()}; use UTC.")
        series = self._series.get(symbol)
        stop = 0 if series is None else bisect_right(series.times, as_of)
        return None if series is None or stop == 0 else (series, stop)


def load_packaged_market(
    panel: Panel | None = None, *, proxy_vix: bool = False, config: PanelMarketConfig | None = None
) -> PanelMarket:
    """Build the market of a panel with the VIX and the S&P 500 that ship with installed packages.

    Parameters
    ----------
    panel : Panel, optional
        What may be traded; the packaged data set `sp500_20` when None. The indices are cut at its last bar, so that a panel cut
        at a seal shows nothing behind it.
    proxy_vix : bool, default=False
        Where the packaged VIX (2014 to 2019) knows nothing, take `realised_volatility` of the panel instead.
    config : PanelMarketConfig, optional

    Returns
    -------
    PanelMarket
        Its notes name the proxy, if it is used.
    """
    panel = load_dataset("sp500_20") if panel is None else panel
    indices = []
    for dataset, symbol, name in _PACKAGED_INDICES:
        if name not in panel.symbols:
            indices.append(_renamed(load_dataset(dataset), symbol, name, panel.index[-1]))
    notes = []
    if proxy_vix:
        place = next((place for place, one in enumerate(indices) if one.symbols == (VIX,)), None)
        known = None if place is None else indices.pop(place)
        proxy, n_proxied = _fill_with_proxy(panel, known)
        indices.append(proxy)
        notes.append(
            f"the VIX of {n_proxied} of {panel.n_bars} bars is a proxy: the realised volatility of the equal-weighted panel "
            f"over {PROXY_WINDOW} bars, annualised, in points; it lags the true VIX and lies below it on most days."
        )
    return PanelMarket([panel, *indices], config, notes=notes)


def read_csv_market(path: str | Path, config: PanelMarketConfig | None = None) -> PanelMarket:
    """Build the market of a CSV or Parquet file in the long form ``symbol,ts,open,high,low,close,volume``.

    Notes
    -----
    The VIX and the S&P 500 are read from it under ``^VIX`` and ``^GSPC``; without them there is no regime, and nothing is
    traded.

    Raises
    ------
    MissingDataError
        If there is no such file.
    DataError
        If it is not as `core.market.files.read_bars` demands.
    """
    from core.market.files import read_bars

    return PanelMarket([read_bars(path)], config)


def realised_volatility(close: FloatArray, *, window: int = PROXY_WINDOW) -> FloatArray:
    """Compute the annualised volatility of the equal-weighted mean return, in points of the VIX.

    Parameters
    ----------
    close : ndarray of shape (n_bars, n_assets), prices
        NaN where a symbol has no bar; it is left out of the mean.
    window : int, default=21
        Returns that are looked at.

    Returns
    -------
    ndarray of shape (n_bars,)
        100 times the standard deviation (ddof=1) of the last `window` returns times the root of 252; row ``t`` is known at the
        close of bar ``t``. NaN before there are so many.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        returns = close[1:] / close[:-1] - 1.0
    mean = pd.DataFrame(returns).mean(axis=1)
    deviation = mean.rolling(window, min_periods=window).std(ddof=1)
    return np.concatenate(([np.nan], 100.0 * math.sqrt(_TRADING_DAYS) * deviation.to_numpy(dtype=np.float64)))


def _read_series(panel: Panel, column: int) -> _Series:
    there = np.isfinite(panel.close[:, column])
    close = panel.close[there, column]
    columns = {"close": close.tolist()}
    for name in ("open", "high", "low", "volume"):
        values = getattr(panel, name)
        if values is not None:
            columns[name] = values[there, column].tolist()
    return _Series(times=[stamp.to_pydatetime() for stamp in panel.index[there]], columns=columns)


def _bar(symbol: str, series: _Series, place: int) -> Bar:
    close = series.columns["close"][place]

    def known(name: str) -> float:
        value = series.columns[name][place] if name in series.columns else math.nan
        return close if math.isnan(value) else value

    volume = series.columns["volume"][place] if "volume" in series.columns else math.nan
    opened = known("open")
    return Bar(
        symbol=symbol,
        at=series.times[place],
        open=opened,
        high=max(known("high"), opened, close),
        low=min(known("low"), opened, close),
        close=close,
        volume=None if math.isnan(volume) else volume,
    )


def _renamed(panel: Panel, symbol: str, name: str, end: pd.Timestamp) -> Panel:
    column = panel.symbols.index(symbol)
    rows = panel.index <= end
    return Panel(index=panel.index[rows], symbols=(name,), close=panel.close[rows, column : column + 1], name=panel.name)


def _fill_with_proxy(panel: Panel, known: Panel | None) -> tuple[Panel, int]:
    """Join the true VIX with the proxy on the days that have none, and count those."""
    values = realised_volatility(panel.close)
    true_days = set() if known is None else {stamp.date() for stamp in known.index}
    kept = np.array([stamp.date() not in true_days for stamp in panel.index]) & (values > 0.0)
    points = list(zip(panel.index[kept], values[kept].tolist(), strict=True))
    if known is not None:
        points += zip(known.index, known.close[:, 0].tolist(), strict=True)
    points.sort()
    stamps = pd.DatetimeIndex([stamp for stamp, _ in points])
    close = np.array([value for _, value in points])[:, None]
    return Panel(index=stamps, symbols=(VIX,), close=close, name="vix with proxy"), int(kept.sum())
