"""Rolling windows of one symbol's bars, and the regime of the market they end in.

Promises that a window holds nothing from outside itself, so it is known at its last bar, and that regimes are causal too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.errors import DataError
from core.market.panel import Panel
from features import timeseries
from features.fields import FloatArray, load_field

CHANNELS = ("standardised_return", "log_price", "absolute_return")
REGIMES = ("calm_down", "calm_up", "turbulent_down", "turbulent_up", "unknown")

_VOLATILITY_BARS = 21
_REGIME_VOLATILITY_BARS = 63
_REGIME_TREND_BARS = 126

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """Hold equally long windows of several symbols, ordered by symbol, then by time.

    Parameters
    ----------
    values : ndarray of shape (n_windows, window, n_channels), float32
        No NaN. Channels as in `CHANNELS`.
    symbol : ndarray of shape (n_windows,), str
        Symbol of each window.
    start, end : ndarray of shape (n_windows,), int
        Positions of its first and last bar, both inside.
    start_ts, end_ts : pandas.DatetimeIndex of length n_windows
        Their times; the window is known at `end_ts`.
    """

    values: npt.NDArray[np.float32]
    symbol: npt.NDArray[np.str_]
    start: IntArray
    end: IntArray
    start_ts: pd.DatetimeIndex
    end_ts: pd.DatetimeIndex

    def __len__(self) -> int:
        return len(self.values)


def rolling_windows(panel: Panel, window: int = 128, stride: int = 5) -> Windows:
    """Cut each symbol's closes into overlapping windows of three channels.

    With ``r`` the log returns inside the window, zero at its first bar:

    - ``standardised_return``: ``r`` divided by the root of its own mean square over the last 21 returns inside the window
      (fewer near its start); zero while nothing has moved;
    - ``log_price``: log of the close over the first close of the window;
    - ``absolute_return``: ``abs(r)``, a proxy of volatility.

    Parameters
    ----------
    panel : Panel
        Closing prices.
    window : int, default=128
        Bars in a window, at least 2.
    stride : int, default=5
        Bars between the starts of neighbouring windows, counted from the first bar of the panel.

    Returns
    -------
    Windows
        Windows in which every close is there and positive; the others are left out. May be empty.

    Raises
    ------
    DataError
        If `window` is below 2 or `stride` below 1.
    """
    if window < 2:
        raise DataError(f"`window` must be at least 2 bars, was {window}.")
    if stride < 1:
        raise DataError(f"`stride` must be at least 1 bar, was {stride}.")
    starts = np.arange(0, max(panel.n_bars - window + 1, 0), stride, dtype=np.int64)
    close = np.where((panel.close > 0.0) & (panel.close < np.inf), panel.close, np.nan)
    values = [np.empty((0, window, len(CHANNELS)), dtype=np.float32)]
    kept: list[tuple[str, IntArray]] = []
    for column, symbol in enumerate(panel.symbols):
        whole = starts[:0]
        if len(starts):
            cut = np.lib.stride_tricks.sliding_window_view(close[:, column], window)[starts]
            complete = ~np.isnan(cut).any(axis=1)
            whole = starts[complete]
            values.append(_channels(np.log(cut[complete])))
        kept.append((symbol, whole))
    start = np.concatenate([starts[:0], *(whole for _, whole in kept)])
    end = start + window - 1
    return Windows(
        values=np.concatenate(values),
        symbol=np.repeat(np.array(panel.symbols, dtype=np.str_), [len(whole) for _, whole in kept]),
        start=start,
        end=end,
        start_ts=panel.index[start],
        end_ts=panel.index[end],
    )


def _channels(log_close: FloatArray) -> npt.NDArray[np.float32]:
    returns = np.diff(log_close, axis=1, prepend=log_close[:, :1])
    square = np.concatenate([np.zeros((len(returns), _VOLATILITY_BARS - 1)), returns * returns], axis=1)
    total = timeseries.ts_sum(square.T, _VOLATILITY_BARS)[_VOLATILITY_BARS - 1 :].T
    volatility = np.sqrt(total / np.clip(np.arange(log_close.shape[1]), 1, _VOLATILITY_BARS))
    out = np.empty((*log_close.shape, len(CHANNELS)), dtype=np.float32)
    out[..., 0] = np.divide(returns, volatility, out=np.zeros_like(returns), where=volatility > 0.0)
    out[..., 1] = log_close - log_close[:, :1]
    out[..., 2] = np.abs(returns)
    return out


def regime_at(panel: Panel, ends: npt.ArrayLike) -> npt.NDArray[np.str_]:
    """Name the state of the market at given bars.

    The market is the equal-weight mean return of the symbols. It is turbulent when the standard deviation of its last 63
    returns is above the median of all such figures so far (this one included), else calm; it is up when its last 126
    returns compound to more than zero, else down.

    Parameters
    ----------
    panel : Panel
        Closing prices.
    ends : array-like of shape (n_ends,), int
        Positions of bars, for instance ``windows.end``.

    Returns
    -------
    ndarray of shape (n_ends,), str
        ``calm_up``, ``calm_down``, ``turbulent_up``, ``turbulent_down``, or ``unknown`` where the last 126 market returns
        are not all there. Known at the close of the bar.

    Raises
    ------
    DataError
        If a position is outside the panel.
    """
    positions = np.asarray(ends, dtype=np.int64)
    if positions.size and (positions.min() < 0 or positions.max() >= panel.n_bars):
        raise DataError(f"`ends` must be positions in 0..{panel.n_bars - 1}, were {positions.min()}..{positions.max()}.")
    market = load_field("market_returns", panel)[:, :1]
    volatility = timeseries.ts_std(market, _REGIME_VOLATILITY_BARS)[:, 0]
    usual = pd.Series(volatility).expanding().median().to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        trend = timeseries.ts_sum(np.log1p(market), _REGIME_TREND_BARS)[:, 0]
        mood = np.where(volatility > usual, "turbulent", "calm")
    tags = np.char.add(mood, np.where(trend > 0.0, "_up", "_down"))
    tags = np.where(np.isnan(trend), "unknown", tags)
    chosen: npt.NDArray[np.str_] = tags[positions]
    return chosen
