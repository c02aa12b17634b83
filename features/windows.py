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
        Windows in which every close is there and positive, and not all are equal; the others are left out. May be empty.

    Raises
    ------
    DataError
        If `window` is below 2 or `stride` below 1.
    """
    starts = _starts(panel, window, stride)
    close = np.where((panel.close > 0.0) & (panel.close < np.inf), panel.close, np.nan)
    values = [np.empty((0, window, len(CHANNELS)), dtype=np.float32)]
    kept: list[tuple[str, IntArray]] = []
    for column, symbol in enumerate(panel.symbols):
        whole = starts[:0]
        if len(starts):
            cut = np.lib.stride_tricks.sliding_window_view(close[:, column], window)[starts]
            usable = ~np.isnan(cut).any(axis=1) & (cut != cut[:, :1]).any(axis=1)
            whole = starts[usable]
            values.append(_channels(np.log(cut[usable])))
        kept.append((symbol, whole))
    return _windows(panel, window, np.concatenate(values), kept)


def steady_windows(panel: Panel, window: int = 128, stride: int = 5) -> Windows:
    """Cut overlapping windows of channels that do not depend on where a window starts, as a stream of bars needs.

    Each bar has the channels that the window of `rolling_windows` ending at that bar has at its last bar; so a window of
    them rests on ``2 * window - 1`` closes.

    Parameters
    ----------
    panel : Panel
        Closing prices.
    window : int, default=128
        Bars in a window, at least 22.
    stride : int, default=5
        Bars between the starts of neighbouring windows, counted from the first bar of the panel.

    Returns
    -------
    Windows
        Windows whose bars all have their channels, and move; the others are left out. May be empty.

    Raises
    ------
    DataError
        If `window` is below 22 or `stride` below 1.
    """
    channels = bar_channels(panel, window)
    starts = _starts(panel, window, stride)
    values = [np.empty((0, window, len(CHANNELS)), dtype=np.float32)]
    kept: list[tuple[str, IntArray]] = []
    for column, symbol in enumerate(panel.symbols):
        whole = starts[:0]
        if len(starts):
            cut = np.lib.stride_tricks.sliding_window_view(channels[:, column], window, axis=0)[starts].transpose(0, 2, 1)
            usable = ~np.isnan(cut).any(axis=(1, 2)) & (cut != cut[:, :1]).any(axis=(1, 2))
            whole = starts[usable]
            values.append(cut[usable])
        kept.append((symbol, whole))
    return _windows(panel, window, np.concatenate(values), kept)


def bar_channels(panel: Panel, window: int = 128) -> npt.NDArray[np.float32]:
    """Compute the channels that the window ending at each bar has at its last bar.

    Parameters
    ----------
    panel : Panel
        Closing prices.
    window : int, default=128
        Bars in a window, at least 22.

    Returns
    -------
    ndarray of shape (n_bars, n_assets, 3), float32
        Channels as in `CHANNELS`, known at the close of the bar; NaN where a close of the window is missing.

    Raises
    ------
    DataError
        If `window` is below 22.
    """
    if window <= _VOLATILITY_BARS:
        raise DataError(f"`window` must be at least {_VOLATILITY_BARS + 1} bars here, was {window}.")
    close = np.where((panel.close > 0.0) & (panel.close < np.inf), panel.close, np.nan)
    log_close = np.log(close)
    out = np.full((*close.shape, len(CHANNELS)), np.nan, dtype=np.float32)
    if panel.n_bars < window:
        return out
    returns = np.diff(log_close, axis=0, prepend=np.nan)
    volatility = np.sqrt(timeseries.ts_sum(returns * returns, _VOLATILITY_BARS) / _VOLATILITY_BARS)
    whole = ~np.isnan(np.lib.stride_tricks.sliding_window_view(log_close, window, axis=0)).any(axis=2)
    last = slice(window - 1, None)
    moving = np.divide(returns, volatility, out=np.zeros_like(returns), where=volatility > 0.0)[last]
    rise = log_close[last] - log_close[: panel.n_bars - window + 1]
    out[last] = np.where(whole[..., None], np.stack([moving, rise, np.abs(returns[last])], axis=2), np.nan)
    return out


def _starts(panel: Panel, window: int, stride: int) -> IntArray:
    if window < 2:
        raise DataError(f"`window` must be at least 2 bars, was {window}.")
    if stride < 1:
        raise DataError(f"`stride` must be at least 1 bar, was {stride}.")
    return np.arange(0, max(panel.n_bars - window + 1, 0), stride, dtype=np.int64)


def _windows(panel: Panel, window: int, values: npt.NDArray[np.float32], kept: list[tuple[str, IntArray]]) -> Windows:
    start = np.concatenate([np.empty(0, dtype=np.int64), *(whole for _, whole in kept)])
    end = start + window - 1
    return Windows(
        values=values,
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
