"""Compiled loops of the statistics that order and count.

Hides numba. Promises that a value depends on nothing outside its window, bit for bit, wherever the series is
cut: values are compared, ordered or counted anew.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from features.fields import FloatArray
from features.join_program import IntArray

TILE = 1024
STRIP = 8


@njit(cache=True, nogil=True)
def window_rank(
    flat: FloatArray, n_bars: int, n_assets: int, window: int, ahead: FloatArray, clean: FloatArray, result: FloatArray
) -> None:
    """Write the rank of the current value in its window, 0 lowest, 1 highest, ties averaged.

    Both arrays have shape (n_bars * n_assets,); `ahead` and `clean` are room for `TILE` and `n_assets` values. The lags are
    worked through one after the other over many values at once.
    """
    for start in range((window - 1) * n_assets, flat.size, TILE):
        n = TILE if start + TILE <= flat.size else flat.size - start
        now = flat[start : start + n]
        for i in range(n):
            ahead[i] = 0.0
        for lag in range(1, window):
            then = flat[start - lag * n_assets :]
            for i in range(n):
                ahead[i] += (1.0 if then[i] < now[i] else 0.0) - (1.0 if then[i] > now[i] else 0.0)
        for i in range(n):
            result[start + i] = 0.5 + ahead[i] / (2.0 * (window - 1))
    for j in range(n_assets):
        clean[j] = 0.0
    for t in range(n_bars):
        values, ranks = flat[t * n_assets :], result[t * n_assets :]
        for j in range(n_assets):
            clean[j] = clean[j] + 1.0 if values[j] == values[j] else 0.0
            ranks[j] = ranks[j] if clean[j] >= window else np.nan


@njit(cache=True, nogil=True)
def window_quantiles(
    x: FloatArray, window: int, low: IntArray, above: FloatArray, ordered: FloatArray, clean: IntArray, out: FloatArray
) -> None:
    """Write values of each sorted window, between place `low` and the next, `above` of the way; never infinite.

    `x` has shape (n_bars, n_assets), `out` one more, the first, as long as `low` and `above`; `ordered` is room for twice
    `STRIP` windows with at least two values more, `clean` for `STRIP` counts.

    The window is kept sorted as it moves: its values stand between minus and plus infinity, and to take one out and put one
    in, every place looks at its neighbours only, without a branch, which is much quicker than searching. A few columns take
    turns, so that the processor can work on one while it waits for another.
    """
    n_bars, n_assets = x.shape
    padded = ordered.shape[2] - 2
    for first in range(0, n_assets, STRIP):
        for j in range(STRIP):
            clean[j] = 0
            for k in range(padded + 2):
                ordered[0, j, k] = np.inf if k else -np.inf
                ordered[1, j, k] = np.inf if k else -np.inf
        for t in range(n_bars):
            for j in range(STRIP if first + STRIP <= n_assets else n_assets - first):
                value = x[t, first + j]
                old = ordered[t % 2, j]
                new = ordered[1 - t % 2, j]
                if value != value:
                    clean[j] = 0
                    for k in range(1, padded + 2):
                        new[k] = np.inf
                    for k in range(low.size):
                        out[k, t, first + j] = np.nan
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
                for k in range(low.size):
                    below = new[1 + low[k]]
                    beyond = new[2 + low[k]] if low[k] < window - 1 else below
                    between = below + above[k] * (beyond - below)
                    out[k, t, first + j] = between if clean[j] >= window and abs(between) < np.inf else np.nan


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
    mean = np.empty(TILE)
    total = np.empty(TILE)
    for start in range(first, flat.size, TILE):
        n = min(TILE, flat.size - start)
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
