"""Operators that look back along one column: lags, rolling statistics, weighted means.

Hides how windows are put together. Promises one NaN rule: a window of `window` bars that ends at the current bar and has
any NaN inside, or reaches before the first bar, gives NaN. All arrays have shape (n_bars, n_assets). What each function
computes is said in `features.operators.OPERATORS`.

Sums, extremes, weighted means and moments of a window are joined from windows whose lengths are powers of two. Nothing is
ever subtracted again, so nothing outside a window can reach its value, the same bits come out wherever the series is cut,
the error grows with the logarithm of the window only, and the work too.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from features.fields import FloatArray, freeze

IntArray = npt.NDArray[np.int64]

EWMA_HALFLIVES = 6

(SUM, LOWEST, HIGHEST, PRODUCT, VAR, STD, ZSCORE, SKEW, KURT) = range(9)
(COV, BETA, RESID, CORR, SLOPE, WEIGHTED, DETREND, RSQUARE) = range(9, 17)


def delay(x: FloatArray, lag: int) -> FloatArray:
    out = np.full(x.shape, np.nan)
    out[lag:] = x[:-lag]
    return out


def delta(x: FloatArray, lag: int) -> FloatArray:
    return x - delay(x, lag)


def pct_change(x: FloatArray, lag: int) -> FloatArray:
    return x / delay(x, lag) - 1.0


def ts_sum(x: FloatArray, window: int) -> FloatArray:
    return _statistic(SUM, x, window)


def ts_mean(x: FloatArray, window: int) -> FloatArray:
    return ts_sum(x, window) / window


def ts_min(x: FloatArray, window: int) -> FloatArray:
    return _statistic(LOWEST, x, window)


def ts_max(x: FloatArray, window: int) -> FloatArray:
    return _statistic(HIGHEST, x, window)


def ts_var(x: FloatArray, window: int) -> FloatArray:
    return _statistic(VAR, x, window)


def ts_std(x: FloatArray, window: int) -> FloatArray:
    return _statistic(STD, x, window)


def ts_zscore(x: FloatArray, window: int) -> FloatArray:
    return _statistic(ZSCORE, x, window)


def ts_skew(x: FloatArray, window: int) -> FloatArray:
    return _statistic(SKEW, x, window)


def ts_kurt(x: FloatArray, window: int) -> FloatArray:
    return _statistic(KURT, x, window)


def ts_cov(y: FloatArray, x: FloatArray, window: int) -> FloatArray:
    return _statistic(COV, y, window, x)


def ts_corr(y: FloatArray, x: FloatArray, window: int) -> FloatArray:
    return _statistic(CORR, y, window, x)


def ts_beta(y: FloatArray, x: FloatArray, window: int) -> FloatArray:
    return _statistic(BETA, y, window, x)


def ts_resid(y: FloatArray, x: FloatArray, window: int) -> FloatArray:
    return _statistic(RESID, y, window, x)


def ts_slope(x: FloatArray, window: int) -> FloatArray:
    return _statistic(SLOPE, x, window)


def decay_linear(x: FloatArray, window: int) -> FloatArray:
    return _statistic(WEIGHTED, x, window)


def ewma(x: FloatArray, halflife: int) -> FloatArray:
    decay: float = 0.5 ** (1.0 / halflife)
    window = EWMA_HALFLIVES * halflife
    return _statistic(SUM, x, window, decay=decay) / ((1.0 - decay**window) / (1.0 - decay))


def ts_rank(x: FloatArray, window: int) -> FloatArray:
    from features.kernels import window_rank

    out = np.empty(x.shape)
    window_rank(freeze(x), window, out)
    return out


def ts_quantile(x: FloatArray, window: int, level: float) -> FloatArray:
    from features.kernels import window_quantile

    out = np.empty(x.shape)
    window_quantile(freeze(x), window, float(level), out)
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


def _statistic(statistic: int, y: FloatArray, window: int, x: FloatArray | None = None, *, decay: float = 1.0) -> FloatArray:
    from features.joins import window_statistic

    out = np.empty(y.shape)
    y = freeze(y)
    window_statistic(statistic, y, y if x is None else freeze(x), window, _plan(window), decay, out)
    return out


@cache
def _plan(window: int) -> IntArray:
    """List the joins that lead to a window, as `features.joins.window_statistic` wants them."""
    steps: list[tuple[int, int, int, int, int]] = []
    block, size = 0, 1
    joined, covered = 0, 0
    while True:
        if window & size:
            if covered:
                free = min({1, 2, 3} - {block, joined})
                steps.append((joined, covered, block, size, free))
                joined = free
            else:
                joined = block
            covered += size
        if covered == window:
            return np.array(steps, dtype=np.int64).reshape(-1, 5)
        free = min({1, 2, 3} - {block, joined})
        steps.append((block, size, block, size, free))
        block = free
        size *= 2


def _age(x: FloatArray, window: int, sign: float) -> FloatArray:
    from features.kernels import window_age

    out = np.full(x.shape, np.nan)
    window_age(freeze(x.T), window, sign, out)
    return out


def ffill(x: FloatArray, lag: int) -> FloatArray:
    from features.kernels import fill_forward

    out = np.empty(x.shape)
    fill_forward(freeze(x), lag, out)
    return out


def ts_prod(x: FloatArray, window: int) -> FloatArray:
    return _statistic(PRODUCT, x, window)


def ts_rsquare(x: FloatArray, window: int) -> FloatArray:
    return _statistic(RSQUARE, x, window)


def ts_detrend(x: FloatArray, window: int) -> FloatArray:
    return _statistic(DETREND, x, window)


def ts_mad(x: FloatArray, window: int) -> FloatArray:
    from features.kernels import window_deviation

    out = np.empty(x.shape)
    window_deviation(freeze(x), window, out)
    return out


def bars_since(mask: FloatArray, window: int) -> FloatArray:
    return np.where(ts_max(mask, window) == 1.0, ts_argmax(mask, window), np.nan)
