"""Operators that look back along one column: lags, rolling statistics, weighted means.

Hides how windows are put together. Promises one NaN rule: a window of `window` bars that ends at the current bar and has
any NaN inside, or reaches before the first bar, gives NaN. All arrays have shape (n_bars, n_assets). What each function
computes is said in `features.operators.OPERATORS`.

Sums, extremes, weighted means and moments of a window are joined from windows whose lengths are powers of two. Nothing is
ever subtracted again, so nothing outside a window can reach its value, the same bits come out wherever the series is cut,
the error grows with the logarithm of the window only, and the work too.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from features.fields import FloatArray

EWMA_HALFLIVES = 6

_Join = Callable[[FloatArray, int, FloatArray, int], None]


def delay(x: FloatArray, lag: int) -> FloatArray:
    out = np.full(x.shape, np.nan)
    out[lag:] = x[:-lag]
    return out


def delta(x: FloatArray, lag: int) -> FloatArray:
    return x - delay(x, lag)


def pct_change(x: FloatArray, lag: int) -> FloatArray:
    return x / delay(x, lag) - 1.0


def ts_sum(x: FloatArray, window: int) -> FloatArray:
    return _reduce(x, window, np.add)


def ts_mean(x: FloatArray, window: int) -> FloatArray:
    return ts_sum(x, window) / window


def ts_min(x: FloatArray, window: int) -> FloatArray:
    return _reduce(x, window, np.minimum)


def ts_max(x: FloatArray, window: int) -> FloatArray:
    return _reduce(x, window, np.maximum)


def ts_var(x: FloatArray, window: int) -> FloatArray:
    return _moments(x, window, 2)[:, 1] / (window - 1)


def ts_std(x: FloatArray, window: int) -> FloatArray:
    std: FloatArray = np.sqrt(ts_var(x, window))
    return std


def ts_zscore(x: FloatArray, window: int) -> FloatArray:
    moments = _moments(x, window, 2)
    return (x - moments[:, 0]) / _spread(moments[:, 1] / (window - 1))


def ts_skew(x: FloatArray, window: int) -> FloatArray:
    moments = _moments(x, window, 4)
    spread = _spread(moments[:, 1])
    return window * math.sqrt(window - 1.0) / (window - 2) * (moments[:, 2] / spread / spread / spread)


def ts_kurt(x: FloatArray, window: int) -> FloatArray:
    moments = _moments(x, window, 4)
    spread = _spread(moments[:, 1])
    raw = (window + 1.0) * window * (moments[:, 3] / spread / spread / spread / spread)
    return (window - 1.0) / ((window - 2.0) * (window - 3.0)) * (raw - 3.0 * (window - 1.0))


def ts_cov(y: FloatArray, x: FloatArray, window: int) -> FloatArray:
    return _comoments(y, x, window)[:, 4] / (window - 1)


def ts_corr(y: FloatArray, x: FloatArray, window: int) -> FloatArray:
    comoments = _comoments(y, x, window)
    return np.clip(comoments[:, 4] / _spread(comoments[:, 2]) / _spread(comoments[:, 3]), -1.0, 1.0)


def ts_beta(y: FloatArray, x: FloatArray, window: int) -> FloatArray:
    comoments = _comoments(y, x, window)
    return comoments[:, 4] / comoments[:, 3]


def ts_resid(y: FloatArray, x: FloatArray, window: int) -> FloatArray:
    comoments = _comoments(y, x, window)
    return (y - comoments[:, 0]) - comoments[:, 4] / comoments[:, 3] * (x - comoments[:, 1])


def ts_slope(x: FloatArray, window: int) -> FloatArray:
    return _trend(x, window)[:, 1] / (window * (window * window - 1.0) / 12.0)


def decay_linear(x: FloatArray, window: int) -> FloatArray:
    trend = _trend(x, window)
    return trend[:, 0] + trend[:, 1] / (window * (window + 1.0) / 2.0)


def ewma(x: FloatArray, halflife: int) -> FloatArray:
    decay: float = 0.5 ** (1.0 / halflife)
    window = EWMA_HALFLIVES * halflife

    def join(left: FloatArray, _: int, right: FloatArray, right_bars: int) -> None:
        left[:] = left * decay**right_bars + right

    return _windows(x.copy(), window, join) / ((1.0 - decay**window) / (1.0 - decay))


def ts_rank(x: FloatArray, window: int) -> FloatArray:
    from features.kernels import window_rank

    out = np.full(x.shape, np.nan)
    window_rank(_columns(x), window, out)
    return out


def ts_quantile(x: FloatArray, window: int, level: float) -> FloatArray:
    from features.kernels import window_quantile

    out = np.full(x.shape, np.nan)
    window_quantile(_columns(x), window, float(level), out)
    return out


def ts_median(x: FloatArray, window: int) -> FloatArray:
    return ts_quantile(x, window, 0.5)


def ts_argmin(x: FloatArray, window: int) -> FloatArray:
    return _age(x, window, 1.0)


def ts_argmax(x: FloatArray, window: int) -> FloatArray:
    return _age(x, window, -1.0)


def rsi(x: FloatArray, window: int) -> FloatArray:
    change = delta(x, 1)
    up = ts_sum(np.maximum(change, 0.0), window)
    return 100.0 * up / ts_sum(np.abs(change), window)


def atr(high: FloatArray, low: FloatArray, close: FloatArray, window: int) -> FloatArray:
    before = delay(close, 1)
    return ts_mean(np.maximum(high, before) - np.minimum(low, before), window)


def _windows(bars: FloatArray, window: int, join: _Join) -> FloatArray:
    """Join one-bar states, bars along the first axis, into the states of all windows; NaN where there is no window.

    `join` overwrites its first argument with the join of the first (earlier) and the third (later) windows, which may
    share memory; `bars` is used up, because fresh memory for every step would cost several times the arithmetic.
    """
    n_bars = len(bars)
    out = np.full(bars.shape, np.nan)
    if window > n_bars:
        return out
    block, size = bars, 1
    joined: FloatArray | None = None
    covered = 0
    while True:
        if window & size:
            if joined is None:
                joined = block if size == window else block.copy()
            else:
                joined = joined[: n_bars - covered - size + 1]
                join(joined, covered, block[covered:], size)
            covered += size
        if covered == window:
            break
        join(block[:-size], size, block[size:], size)
        block = block[:-size]
        size *= 2
    out[window - 1 :] = joined
    return out


def _reduce(x: FloatArray, window: int, ufunc: np.ufunc) -> FloatArray:
    def join(left: FloatArray, _: int, right: FloatArray, __: int) -> None:
        ufunc(left, right, out=left)

    return _windows(x.copy(), window, join)


def _moments(x: FloatArray, window: int, order: int) -> FloatArray:
    from features.kernels import join_moments

    return _windows(_states(order, x), window, join_moments)


def _comoments(y: FloatArray, x: FloatArray, window: int) -> FloatArray:
    from features.kernels import join_comoments

    return _windows(_states(5, y, x), window, join_comoments)


def _trend(x: FloatArray, window: int) -> FloatArray:
    """Mean of each window, and the sum of its values times their distance from its middle."""

    def join(left: FloatArray, left_bars: int, right: FloatArray, right_bars: int) -> None:
        step = right[:, 0] - left[:, 0]
        left[:, 1] += right[:, 1]
        left[:, 1] += left_bars * right_bars / 2.0 * step
        left[:, 0] += right_bars / (left_bars + right_bars) * step

    return _windows(_states(2, x), window, join)


def _states(width: int, *means: FloatArray) -> FloatArray:
    """States of one-bar windows, shape (n_bars, width, n_assets): the values as means, NaN or zero elsewhere."""
    states = np.empty((len(means[0]), width, means[0].shape[1]))
    for place, mean in enumerate(means):
        states[:, place] = mean
    states[:, len(means) :] = 0.0
    return states


def _spread(variance: FloatArray) -> FloatArray:
    return np.sqrt(np.where(variance > 0.0, variance, np.nan))


def _columns(x: FloatArray) -> FloatArray:
    return np.ascontiguousarray(x.T)


def _age(x: FloatArray, window: int, sign: float) -> FloatArray:
    from features.kernels import window_age

    out = np.full(x.shape, np.nan)
    window_age(_columns(x), window, sign, out)
    return out


def ffill(x: FloatArray, lag: int) -> FloatArray:
    bars = np.arange(len(x))[:, None]
    latest = np.maximum.accumulate(np.where(np.isnan(x), -1, bars), axis=0)
    return np.where((latest >= 0) & (bars - latest <= lag), np.take_along_axis(x, np.maximum(latest, 0), axis=0), np.nan)


def ts_prod(x: FloatArray, window: int) -> FloatArray:
    return _reduce(x, window, np.multiply)


def ts_rsquare(x: FloatArray, window: int) -> FloatArray:
    spread = _spread(_moments(x, window, 2)[:, 1])
    correlation = _trend(x, window)[:, 1] / math.sqrt(window * (window * window - 1.0) / 12.0) / spread
    return np.minimum(correlation * correlation, 1.0)


def ts_detrend(x: FloatArray, window: int) -> FloatArray:
    trend = _trend(x, window)
    return (x - trend[:, 0]) - trend[:, 1] / (window * (window + 1.0) / 6.0)


def ts_mad(x: FloatArray, window: int) -> FloatArray:
    from features.kernels import window_deviation

    out = np.full(x.shape, np.nan)
    window_deviation(_columns(x), window, out)
    return out


def bars_since(mask: FloatArray, window: int) -> FloatArray:
    return np.where(ts_max(mask, window) == 1.0, ts_argmax(mask, window), np.nan)
