"""Operators that look back along one column: lags, rolling statistics, weighted means.

Hides how windows are put together. Promises one NaN rule: a window of `window` bars that ends at the current bar and has
any NaN inside, or reaches before the first bar, gives NaN. All arrays have shape (n_bars, n_assets). What each function
computes is said in `features.operators.OPERATORS`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from features.fields import FloatArray, freeze
from features.rolling import compute_windows


def delay(x: FloatArray, lag: int) -> FloatArray:
    out = np.full(x.shape, np.nan)
    out[lag:] = x[:-lag]
    return out


def delta(x: FloatArray, lag: int) -> FloatArray:
    return x - delay(x, lag)


def pct_change(x: FloatArray, lag: int) -> FloatArray:
    return x / delay(x, lag) - 1.0


def ts_sum(x: FloatArray, window: int) -> FloatArray:
    return compute_windows([("ts_sum", (window,))], x)[0]


def ts_mean(x: FloatArray, window: int) -> FloatArray:
    return compute_windows([("ts_mean", (window,))], x)[0]


def ts_min(x: FloatArray, window: int) -> FloatArray:
    return compute_windows([("ts_min", (window,))], x)[0]


def ts_max(x: FloatArray, window: int) -> FloatArray:
    return compute_windows([("ts_max", (window,))], x)[0]


def ts_var(x: FloatArray, window: int) -> FloatArray:
    return compute_windows([("ts_var", (window,))], x)[0]


def ts_std(x: FloatArray, window: int) -> FloatArray:
    return compute_windows([("ts_std", (window,))], x)[0]


def ts_zscore(x: FloatArray, window: int) -> FloatArray:
    return compute_windows([("ts_zscore", (window,))], x)[0]


def ts_skew(x: FloatArray, window: int) -> FloatArray:
    return compute_windows([("ts_skew", (window,))], x)[0]


def ts_kurt(x: FloatArray, window: int) -> FloatArray:
    return compute_windows([("ts_kurt", (window,))], x)[0]


def ts_cov(y: FloatArray, x: FloatArray, window: int) -> FloatArray:
    return compute_windows([("ts_cov", (window,))], y, x)[0]


def ts_corr(y: FloatArray, x: FloatArray, window: int) -> FloatArray:
    return compute_windows([("ts_corr", (window,))], y, x)[0]


def ts_beta(y: FloatArray, x: FloatArray, window: int) -> FloatArray:
    return compute_windows([("ts_beta", (window,))], y, x)[0]


def ts_resid(y: FloatArray, x: FloatArray, window: int) -> FloatArray:
    return compute_windows([("ts_resid", (window,))], y, x)[0]


def ts_slope(x: FloatArray, window: int) -> FloatArray:
    return compute_windows([("ts_slope", (window,))], x)[0]


def decay_linear(x: FloatArray, window: int) -> FloatArray:
    return compute_windows([("decay_linear", (window,))], x)[0]


def ewma(x: FloatArray, halflife: int) -> FloatArray:
    return compute_windows([("ewma", (halflife,))], x)[0]


def ts_rank(x: FloatArray, window: int) -> FloatArray:
    from features.kernels import TILE, window_rank

    out = np.empty(x.shape)
    window_rank(freeze(x).reshape(-1), *x.shape, window, np.empty(TILE), np.empty(x.shape[1]), out.reshape(-1))
    return out


def compute_quantiles(asked: Sequence[tuple[str, tuple[int | float, ...]]], x: FloatArray) -> list[FloatArray]:
    """Compute `ts_quantile` and `ts_median` of one series; windows of one length are put in order once.

    Parameters
    ----------
    asked : sequence of (str, tuple)
        Each operator and its numbers.
    x : ndarray of shape (n_bars, n_assets)
        Input.

    Returns
    -------
    list of ndarray of shape (n_bars, n_assets)
        One each.
    """
    from features.kernels import STRIP, window_quantiles

    levels: dict[int, dict[int, float]] = {}
    for place, (_, numbers) in enumerate(asked):
        levels.setdefault(int(numbers[0]), {})[place] = float(numbers[1]) if len(numbers) > 1 else 0.5
    found: dict[int, FloatArray] = {}
    for window, wanted in levels.items():
        out = np.empty((len(wanted), *x.shape))
        places = np.array(list(wanted.values())) * (window - 1)
        low = places.astype(np.int64)
        ordered = np.empty((2, STRIP, (window + 7) // 8 * 8 + 2))
        window_quantiles(freeze(x), window, low, places - low, ordered, np.empty(STRIP, dtype=np.int64), out)
        found.update(zip(wanted, out, strict=True))
    return [found[place] for place in range(len(asked))]


def ts_quantile(x: FloatArray, window: int, level: float) -> FloatArray:
    return compute_quantiles([("ts_quantile", (window, level))], x)[0]


def ts_median(x: FloatArray, window: int) -> FloatArray:
    return ts_quantile(x, window, 0.5)


def ts_argmin(x: FloatArray, window: int) -> FloatArray:
    return compute_windows([("ts_argmin", (window,))], x)[0]


def ts_argmax(x: FloatArray, window: int) -> FloatArray:
    return compute_windows([("ts_argmax", (window,))], x)[0]


def rsi(x: FloatArray, window: int) -> FloatArray:
    change = delta(x, 1)
    up = ts_sum(np.maximum(change, 0.0), window)
    return 100.0 * up / ts_sum(np.abs(change), window)


def atr(high: FloatArray, low: FloatArray, close: FloatArray, window: int) -> FloatArray:
    before = delay(close, 1)
    return ts_mean(np.maximum(high, before) - np.minimum(low, before), window)


def ffill(x: FloatArray, lag: int) -> FloatArray:
    from features.kernels import fill_forward

    out = np.empty(x.shape)
    fill_forward(freeze(x), lag, out)
    return out


def ts_prod(x: FloatArray, window: int) -> FloatArray:
    return compute_windows([("ts_prod", (window,))], x)[0]


def ts_rsquare(x: FloatArray, window: int) -> FloatArray:
    return compute_windows([("ts_rsquare", (window,))], x)[0]


def ts_detrend(x: FloatArray, window: int) -> FloatArray:
    return compute_windows([("ts_detrend", (window,))], x)[0]


def ts_mad(x: FloatArray, window: int) -> FloatArray:
    from features.kernels import window_deviation

    out = np.empty(x.shape)
    window_deviation(freeze(x), window, out)
    return out


def bars_since(mask: FloatArray, window: int) -> FloatArray:
    return np.where(ts_max(mask, window) == 1.0, ts_argmax(mask, window), np.nan)
