"""Compiled loops of the rolling statistics.

Hides numba. Promises that a value depends on nothing outside its window, bit for bit, wherever the series is cut: windows
are joined, ordered or counted, and nothing is ever subtracted again. So a huge value leaves no trace once it is out of the
window, and a constant window has exactly no variance.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from features.fields import FloatArray


@njit(cache=True, nogil=True)
def join_moments(left: FloatArray, left_bars: int, right: FloatArray, right_bars: int) -> None:
    """Join the central moments of neighbouring windows, in place of `left` [1]_.

    Arrays of shape (n_windows, 2 or 4, n_assets): mean, then sums of squared (third, fourth) powers of deviations.

    References
    ----------
    .. [1] Pebay, P. (2008). Formulas for robust, one-pass parallel computation of covariances and arbitrary-order
       statistical moments. Sandia report SAND2008-6212, equations 2.1 and 3.1.
    """
    a = float(left_bars)
    b = float(right_bars)
    n = a + b
    four = left.shape[1] == 4
    for t in range(left.shape[0]):
        for j in range(left.shape[2]):
            d = right[t, 0, j] - left[t, 0, j]
            step = d / n
            a2 = left[t, 1, j]
            b2 = right[t, 1, j]
            left[t, 0, j] += b * step
            left[t, 1, j] = a2 + b2 + d * step * (a * b)
            if four:
                a3 = left[t, 2, j]
                b3 = right[t, 2, j]
                left[t, 2, j] = a3 + b3 + d * step * step * (a * b * (a - b)) + 3.0 * step * (a * b2 - b * a2)
                left[t, 3, j] = (
                    left[t, 3, j]
                    + right[t, 3, j]
                    + d * step * step * step * (a * b * (a * a - a * b + b * b))
                    + 6.0 * step * step * (a * a * b2 + b * b * a2)
                    + 4.0 * step * (a * b3 - b * a3)
                )


@njit(cache=True, nogil=True)
def join_comoments(left: FloatArray, left_bars: int, right: FloatArray, right_bars: int) -> None:
    """Join the co-moments of neighbouring windows, in place of `left` (as `join_moments`).

    Arrays of shape (n_windows, 5, n_assets): means of y and x, then sums of yy, xx and xy deviations.
    """
    n = float(left_bars + right_bars)
    share = right_bars / n
    weight = left_bars * share
    for t in range(left.shape[0]):
        for j in range(left.shape[2]):
            dy = right[t, 0, j] - left[t, 0, j]
            dx = right[t, 1, j] - left[t, 1, j]
            left[t, 0, j] += share * dy
            left[t, 1, j] += share * dx
            left[t, 2, j] += right[t, 2, j] + weight * (dy * dy)
            left[t, 3, j] += right[t, 3, j] + weight * (dx * dx)
            left[t, 4, j] += right[t, 4, j] + weight * (dx * dy)


@njit(cache=True, nogil=True)
def window_rank(columns: FloatArray, window: int, out: FloatArray) -> None:
    """Write the rank of the current value in its window, 0 lowest, 1 highest, ties averaged.

    `columns` has shape (n_assets, n_bars), `out` has shape (n_bars, n_assets) and comes filled with NaN; so below.
    """
    n_assets, n_bars = columns.shape
    for j in range(n_assets):
        x = columns[j]
        clean = 0
        for t in range(n_bars):
            value = x[t]
            clean = 0 if np.isnan(value) else clean + 1
            if clean < window:
                continue
            below = 0
            above = 0
            for k in range(t - window + 1, t + 1):
                below += x[k] < value
                above += x[k] > value
            out[t, j] = 0.5 + (below - above) / (2.0 * (window - 1))


@njit(cache=True, nogil=True)
def window_age(columns: FloatArray, window: int, sign: float, out: FloatArray) -> None:
    """Write how many bars ago the window's minimum of ``sign * x`` was; the latest of equals."""
    n_assets, n_bars = columns.shape
    for j in range(n_assets):
        x = columns[j]
        clean = 0
        best = 0
        for t in range(n_bars):
            if np.isnan(x[t]):
                clean = 0
                continue
            clean += 1
            if clean == 1 or sign * x[t] <= sign * x[best]:
                best = t
            elif best <= t - window:
                best = t - window + 1
                for k in range(best, t + 1):
                    if sign * x[k] <= sign * x[best]:
                        best = k
            if clean >= window:
                out[t, j] = t - best


@njit(cache=True, nogil=True)
def window_quantile(columns: FloatArray, window: int, level: float, out: FloatArray) -> None:
    """Write the quantile of each window, linear between neighbours; the window is kept sorted as it moves."""
    n_assets, n_bars = columns.shape
    ordered = np.empty(window)
    place = level * (window - 1)
    below = int(np.floor(place))
    above = min(below + 1, window - 1)
    for j in range(n_assets):
        x = columns[j]
        clean = 0
        for t in range(n_bars):
            value = x[t]
            if np.isnan(value):
                clean = 0
                continue
            if clean < window:
                free = clean
                held = clean
            else:
                leaving = x[t - window]
                low, high = 0, window - 1
                while low < high:
                    middle = (low + high) // 2
                    if ordered[middle] < leaving:
                        low = middle + 1
                    else:
                        high = middle
                free = low
                held = window - 1
            while free < held and ordered[free + 1] < value:
                ordered[free] = ordered[free + 1]
                free += 1
            while free > 0 and ordered[free - 1] > value:
                ordered[free] = ordered[free - 1]
                free -= 1
            ordered[free] = value
            clean += 1
            if clean >= window:
                out[t, j] = ordered[below] + (place - below) * (ordered[above] - ordered[below])


@njit(cache=True, nogil=True)
def window_deviation(columns: FloatArray, window: int, out: FloatArray) -> None:
    """Write the mean absolute deviation of each window from its mean."""
    n_assets, n_bars = columns.shape
    for j in range(n_assets):
        x = columns[j]
        clean = 0
        for t in range(n_bars):
            value = x[t]
            clean = 0 if np.isnan(value) else clean + 1
            if clean < window:
                continue
            # Measured from the current value, so that the mean of a constant window is exact.
            away = 0.0
            for k in range(t - window + 1, t + 1):
                away += x[k] - value
            mean = value + away / window
            total = 0.0
            for k in range(t - window + 1, t + 1):
                total += abs(x[k] - mean)
            out[t, j] = total / window
