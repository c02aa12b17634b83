"""Compiled loops of the statistics that order and count.

Hides numba. Promises that a value depends on nothing outside its window, bit for bit, wherever the series is
cut: values are compared, ordered or counted anew.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from features.fields import FloatArray

_TILE = 1024
_STRIP = 8


@njit(cache=True, nogil=True)
def window_rank(x: FloatArray, window: int, out: FloatArray) -> None:
    """Write the rank of the current value in its window, 0 lowest, 1 highest, ties averaged.

    Both arrays have shape (n_bars, n_assets). The lags are worked through one after the other over many values at once.
    """
    n_bars, n_assets = x.shape
    flat = x.reshape(-1)
    result = out.reshape(-1)
    ahead = np.empty(_TILE)
    for start in range(min(window - 1, n_bars) * n_assets, flat.size, _TILE):
        n = min(_TILE, flat.size - start)
        now = flat[start : start + n]
        for i in range(n):
            ahead[i] = 0.0
        for lag in range(1, window):
            then = flat[start - lag * n_assets :]
            for i in range(n):
                ahead[i] += (1.0 if then[i] < now[i] else 0.0) - (1.0 if then[i] > now[i] else 0.0)
        for i in range(n):
            result[start + i] = 0.5 + ahead[i] / (2.0 * (window - 1))
    clean = np.zeros(n_assets, dtype=np.int64)
    for t in range(n_bars):
        for j in range(n_assets):
            clean[j] = clean[j] + 1 if x[t, j] == x[t, j] else 0
            if clean[j] < window:
                out[t, j] = np.nan


@njit(cache=True, nogil=True)
def window_age(columns: FloatArray, window: int, sign: float, out: FloatArray) -> None:
    """Write how many bars ago the window's minimum of ``sign * x`` was; the latest of equals.

    `columns` has shape (n_assets, n_bars), `out` has shape (n_bars, n_assets) and comes filled with NaN; so below.
    """
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
def window_quantile(x: FloatArray, window: int, level: float, out: FloatArray) -> None:
    """Write the quantile of each window, linear between neighbours; both arrays have shape (n_bars, n_assets).

    The window is kept sorted as it moves: its values stand between minus and plus infinity, and to take one out and put one
    in, every place looks at its neighbours only, without a branch, which is much quicker than searching. A few columns take
    turns, so that the processor can work on one while it waits for another.
    """
    n_bars, n_assets = x.shape
    padded = (window + 7) // 8 * 8
    place = level * (window - 1)
    low = int(np.floor(place))
    high = min(low + 1, window - 1)
    ordered = np.empty((2, _STRIP, padded + 2))
    clean = np.empty(_STRIP, dtype=np.int64)
    for first in range(0, n_assets, _STRIP):
        for j in range(_STRIP):
            clean[j] = 0
            for k in range(padded + 2):
                ordered[0, j, k] = np.inf if k else -np.inf
                ordered[1, j, k] = np.inf if k else -np.inf
        for t in range(n_bars):
            for j in range(min(_STRIP, n_assets - first)):
                value = x[t, first + j]
                old = ordered[t % 2, j]
                new = ordered[1 - t % 2, j]
                if value != value:
                    clean[j] = 0
                    for k in range(1, padded + 2):
                        new[k] = np.inf
                    out[t, first + j] = np.nan
                    continue
                leaving = x[t - window, first + j] if clean[j] >= window else np.inf
                here = old[1:]
                after = old[2:]
                target = new[1:]
                for k in range(padded):
                    left = old[k] if old[k] < leaving else here[k]
                    right = here[k] if here[k] < leaving else after[k]
                    least = right if right < value else value
                    target[k] = left if left > least else least
                clean[j] += 1
                below = new[1 + low]
                out[t, first + j] = below + (place - low) * (new[1 + high] - below) if clean[j] >= window else np.nan


@njit(cache=True, nogil=True)
def window_deviation(x: FloatArray, window: int, out: FloatArray) -> None:
    """Write the mean absolute deviation of each window from its mean; both arrays have shape (n_bars, n_assets).

    Measured from the current value, so that the mean of a constant window is exact.
    """
    n_bars, n_assets = x.shape
    flat = x.reshape(-1)
    result = out.reshape(-1)
    first = min(window - 1, n_bars) * n_assets
    for i in range(first):
        result[i] = np.nan
    mean = np.empty(_TILE)
    total = np.empty(_TILE)
    for start in range(first, flat.size, _TILE):
        n = min(_TILE, flat.size - start)
        now = flat[start : start + n]
        for i in range(n):
            total[i] = 0.0
        for lag in range(window - 1, 0, -1):
            then = flat[start - lag * n_assets :]
            for i in range(n):
                total[i] += then[i] - now[i]
        for i in range(n):
            mean[i] = now[i] + total[i] / window
            total[i] = 0.0
        for lag in range(window - 1, -1, -1):
            then = flat[start - lag * n_assets :]
            for i in range(n):
                total[i] += abs(then[i] - mean[i])
        for i in range(n):
            result[start + i] = total[i] / window


@njit(cache=True, nogil=True)
def fill_forward(x: FloatArray, lag: int, out: FloatArray) -> None:
    """Write the last value that is not NaN and at most `lag` bars old; both arrays have shape (n_bars, n_assets)."""
    n_bars, n_assets = x.shape
    latest = np.full(n_assets, -lag - 1)
    for t in range(n_bars):
        for j in range(n_assets):
            if not np.isnan(x[t, j]):
                latest[j] = t
            out[t, j] = x[latest[j], j] if t - latest[j] <= lag else np.nan
