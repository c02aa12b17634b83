"""Rolling statistics that are joined from windows whose lengths are powers of two.

Hides numba, and how a window is put together: one bar, two, four, ... Each length is kept as a few sums, its state, and a
window of 13 bars is the join of eight, four and one. Promises that nothing is ever subtracted again, so nothing outside a
window can reach its value, a huge value leaves no trace once it is out of the window, a constant window has exactly no
variance, the same bits come out wherever the series is cut, and the work and the error grow with the logarithm of the
window only.

Strips of columns and stretches of bars are worked through one after the other, so that the states stay in the processor's
cache, and every loop is short and plain, because only such loops are turned into vector instructions.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from features.fields import FloatArray
from features.timeseries import (
    BETA,
    CORR,
    COV,
    DETREND,
    HIGHEST,
    KURT,
    LOWEST,
    PRODUCT,
    RESID,
    RSQUARE,
    SKEW,
    SLOPE,
    STD,
    SUM,
    VAR,
    WEIGHTED,
    ZSCORE,
    IntArray,
)

_STRIP = 8
_TILE = 4096


@njit(cache=True, nogil=True, error_model="numpy")
def window_statistic(
    statistic: int, y: FloatArray, x: FloatArray, window: int, plan: IntArray, decay: float, out: FloatArray
) -> None:
    """Write one statistic of every window, NaN where there is none.

    Parameters
    ----------
    statistic : int
        One of the constants of `features.timeseries`.
    y, x : ndarray of shape (n_bars, n_assets)
        Input; `x` is read by the statistics of two series only.
    window : int
        Bars in a window.
    plan : ndarray of shape (n_joins, 5), int
        The joins in their order: left slot, its bars, right slot, its bars, slot of the join. Slot 0 holds the one-bar
        windows, and stays as it is; there are four.
    decay : float
        What a `SUM` is multiplied by when it gets a bar older; 1 for a plain sum.
    out : ndarray of shape (n_bars, n_assets)
        Written in place; infinite where a divisor is zero.
    """
    n_bars, n_assets = y.shape
    for t in range(min(window - 1, n_bars)):
        for j in range(n_assets):
            out[t, j] = np.nan
    if window > n_bars:
        return
    rows = max(_TILE // _STRIP, 3 * window)
    states = np.empty((4, _width(statistic), rows * _STRIP))
    apart = np.empty((2, rows * _STRIP))
    step = rows - window + 1
    for first in range(0, n_assets, _STRIP):
        strip = min(_STRIP, n_assets - first)
        for start in range(0, n_bars - window + 1, step):
            stop = min(start + rows, n_bars)
            _load(statistic, y, x, start, stop, first, strip, states[0])
            last = 0
            for k in range(plan.shape[0]):
                left, left_bars, right, right_bars, last = plan[k, 0], plan[k, 1], plan[k, 2], plan[k, 3], plan[k, 4]
                n = (stop - start - left_bars - right_bars + 1) * strip
                _join(
                    statistic,
                    states[left],
                    left_bars,
                    states[right],
                    right_bars,
                    left_bars * strip,
                    n,
                    decay,
                    apart,
                    states[last],
                )
            n = (stop - start - window + 1) * strip
            _finish(statistic, states[last], states[0], (window - 1) * strip, n, window, apart[0])
            for t in range(stop - start - window + 1):
                for j in range(strip):
                    out[start + window - 1 + t, first + j] = apart[0, t * strip + j]


@njit(inline="always", error_model="numpy")
def _width(statistic: int) -> int:
    if statistic <= PRODUCT:
        return 1
    if statistic <= ZSCORE:
        return 2
    if statistic <= KURT:
        return 4
    if statistic == COV:
        return 3
    if statistic <= RESID:
        return 4
    if statistic == CORR:
        return 5
    return 3 if statistic == RSQUARE else 2


@njit(inline="always", error_model="numpy")
def _load(
    statistic: int, y: FloatArray, x: FloatArray, start: int, stop: int, first: int, strip: int, state: FloatArray
) -> None:
    """Write the states of one-bar windows: the values as means, zero elsewhere."""
    n = (stop - start) * strip
    series = 2 if COV <= statistic <= CORR else 1
    for k in range(series):
        source = y if k == 0 else x
        target = state[k]
        for t in range(stop - start):
            row = source[start + t]
            for j in range(strip):
                target[t * strip + j] = row[first + j]
    for k in range(series, state.shape[0]):
        for i in range(n):
            state[k, i] = 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _join(
    statistic: int,
    left: FloatArray,
    left_bars: int,
    right: FloatArray,
    right_bars: int,
    after: int,
    n: int,
    decay: float,
    apart: FloatArray,
    out: FloatArray,
) -> None:
    """Join the states of neighbouring windows [1]_: ``left[:, i]`` with ``right[:, after + i]``, the later one.

    The states are, one row each:

    - a sum, an extreme or a product;
    - mean, then sums of squared (third, fourth) powers of deviations;
    - means of y and x, then sums of the deviations' products xy, xx, yy, as many as the statistic needs;
    - mean, sum of the values times their distance from the window's middle, and for `RSQUARE` the sum of squared deviations.

    The loops are kept apart and short because only such are turned into vector instructions.

    References
    ----------
    .. [1] Pebay, P. (2008). Formulas for robust, one-pass parallel computation of covariances and arbitrary-order
       statistical moments. Sandia report SAND2008-6212, equations 2.1 and 3.1.
    """
    a, b, o = left[0], right[0][after:], out[0]
    if statistic == SUM:
        older = decay**right_bars
        for i in range(n):
            o[i] = a[i] * older + b[i]
        return
    if statistic == LOWEST:
        for i in range(n):
            o[i] = b[i] if b[i] < a[i] or b[i] != b[i] else a[i]
        return
    if statistic == HIGHEST:
        for i in range(n):
            o[i] = b[i] if b[i] > a[i] or b[i] != b[i] else a[i]
        return
    if statistic == PRODUCT:
        for i in range(n):
            o[i] = a[i] * b[i]
        return
    bars = float(left_bars + right_bars)
    share = right_bars / bars
    weight = left_bars * share
    d = apart[0]
    for i in range(n):
        d[i] = b[i] - a[i]
        o[i] = a[i] + share * d[i]
    if statistic <= ZSCORE:
        _join_products(left[1], right[1][after:], d, d, weight, n, out[1])
    elif statistic <= KURT:
        _join_moments(left, left_bars, right, right_bars, after, n, d, out)
    elif statistic <= CORR:
        a, b, o, e = left[1], right[1][after:], out[1], apart[1]
        for i in range(n):
            e[i] = b[i] - a[i]
            o[i] = a[i] + share * e[i]
        _join_products(left[2], right[2][after:], d, e, weight, n, out[2])
        if statistic != COV:
            _join_products(left[3], right[3][after:], e, e, weight, n, out[3])
        if statistic == CORR:
            _join_products(left[4], right[4][after:], d, d, weight, n, out[4])
    else:
        half = left_bars * right_bars / 2.0
        a, b, o = left[1], right[1][after:], out[1]
        for i in range(n):
            o[i] = a[i] + b[i] + half * d[i]
        if statistic == RSQUARE:
            _join_products(left[2], right[2][after:], d, d, weight, n, out[2])


@njit(inline="always", error_model="numpy")
def _join_products(a: FloatArray, b: FloatArray, d: FloatArray, e: FloatArray, weight: float, n: int, out: FloatArray) -> None:
    for i in range(n):
        out[i] = a[i] + b[i] + weight * (d[i] * e[i])


@njit(inline="always", error_model="numpy")
def _join_moments(
    left: FloatArray, left_bars: int, right: FloatArray, right_bars: int, after: int, n: int, d: FloatArray, out: FloatArray
) -> None:
    a, b = float(left_bars), float(right_bars)
    per_bar = 1.0 / (a + b)
    second, third, fourth = a * b, a * b * (a - b), a * b * (a * a - a * b + b * b)
    a2, a3, a4 = left[1], left[2], left[3]
    b2, b3, b4 = right[1][after:], right[2][after:], right[3][after:]
    o2, o3, o4 = out[1], out[2], out[3]
    for i in range(n):
        step = d[i] * per_bar
        o4[i] = (
            a4[i]
            + b4[i]
            + d[i] * step * step * step * fourth
            + 6.0 * step * step * (a * a * b2[i] + b * b * a2[i])
            + 4.0 * step * (a * b3[i] - b * a3[i])
        )
    for i in range(n):
        step = d[i] * per_bar
        o3[i] = a3[i] + b3[i] + d[i] * step * step * third + 3.0 * step * (a * b2[i] - b * a2[i])
    for i in range(n):
        o2[i] = a2[i] + b2[i] + d[i] * (d[i] * per_bar) * second


@njit(cache=True, nogil=True, error_model="numpy")
def _finish(statistic: int, state: FloatArray, bars: FloatArray, now: int, n: int, window: int, result: FloatArray) -> None:
    w = float(window)
    a = state[0]
    if statistic <= PRODUCT:
        for i in range(n):
            result[i] = a[i]
        return
    b = state[1]
    if statistic == VAR:
        for i in range(n):
            result[i] = b[i] / (w - 1.0)
    elif statistic == STD:
        for i in range(n):
            result[i] = np.sqrt(b[i] / (w - 1.0))
    elif statistic == ZSCORE:
        z = bars[0][now:]
        for i in range(n):
            result[i] = (z[i] - a[i]) / _spread(b[i] / (w - 1.0))
    elif statistic == SKEW:
        c = state[2]
        scale = w * np.sqrt(w - 1.0) / (w - 2.0)
        for i in range(n):
            spread = _spread(b[i])
            result[i] = scale * (c[i] / spread / spread / spread)
    elif statistic == KURT:
        c = state[3]
        for i in range(n):
            raw = (w + 1.0) * w * (c[i] / b[i] / b[i])
            result[i] = (w - 1.0) / ((w - 2.0) * (w - 3.0)) * (raw - 3.0 * (w - 1.0))
    elif statistic == COV:
        c = state[2]
        for i in range(n):
            result[i] = c[i] / (w - 1.0)
    elif statistic == CORR:
        c, d, e = state[2], state[3], state[4]
        for i in range(n):
            result[i] = min(max(c[i] / _spread(e[i]) / _spread(d[i]), -1.0), 1.0)
    elif statistic == BETA:
        c, d = state[2], state[3]
        for i in range(n):
            result[i] = c[i] / d[i]
    elif statistic == RESID:
        c, d = state[2], state[3]
        y, x = bars[0][now:], bars[1][now:]
        for i in range(n):
            result[i] = (y[i] - a[i]) - c[i] / d[i] * (x[i] - b[i])
    elif statistic == SLOPE:
        for i in range(n):
            result[i] = b[i] / (w * (w * w - 1.0) / 12.0)
    elif statistic == WEIGHTED:
        for i in range(n):
            result[i] = a[i] + b[i] / (w * (w + 1.0) / 2.0)
    elif statistic == DETREND:
        z = bars[0][now:]
        for i in range(n):
            result[i] = (z[i] - a[i]) - b[i] / (w * (w + 1.0) / 6.0)
    else:
        c = state[2]
        scale = np.sqrt(w * (w * w - 1.0) / 12.0)
        for i in range(n):
            correlation = b[i] / scale / _spread(c[i])
            result[i] = min(correlation * correlation, 1.0)


@njit(inline="always", error_model="numpy")
def _spread(variance: float) -> float:
    return np.sqrt(variance) if variance > 0.0 else np.nan
