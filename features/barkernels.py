"""Compiled loops of the operators across the symbols of one bar.

Hides numba. Promises that a bar's result depends on that bar alone, that sums run over the symbols in their order, and that
symbols that are NaN are left out and stay NaN. All arrays have shape (n_bars, n_assets) and are C-contiguous.

Ranks are counted: every symbol is compared with every other, which is quicker than sorting up to some hundred symbols.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from features.crosssection import CS_MEAN, DEMEAN, SCALE
from features.fields import FloatArray


@njit(cache=True, nogil=True, error_model="numpy")
def bar_rank(x: FloatArray, buckets: int, out: FloatArray) -> None:
    """Write the rank within the bar, 0 lowest, 1 highest, ties averaged, 0.5 for one alone; or its bucket, if there are any."""
    n_bars, n_assets = x.shape
    for t in range(n_bars):
        row = x[t]
        count = 0
        for j in range(n_assets):
            count += row[j] == row[j]
        for j in range(n_assets):
            value = row[j]
            below = 0
            above = 0
            for k in range(n_assets):
                below += row[k] < value
                above += row[k] > value
            if value != value:
                out[t, j] = np.nan
            elif buckets > 0:
                out[t, j] = buckets * (below + count - above) // (2 * count)
            else:
                out[t, j] = (below + count - 1 - above) / (2.0 * (count - 1)) if count > 1 else 0.5


@njit(cache=True, nogil=True, error_model="numpy")
def bar_group(x: FloatArray, group: FloatArray, ranked: bool, out: FloatArray) -> None:
    """Write the rank among the symbols of the same group, as `bar_rank`, or the difference from their mean."""
    n_bars, n_assets = x.shape
    names = np.empty(n_assets)
    counts = np.empty(n_assets)
    totals = np.empty(n_assets)
    number = np.empty(n_assets, dtype=np.int64)
    for t in range(n_bars):
        row = x[t]
        groups = 0
        for j in range(n_assets):
            out[t, j] = np.nan
            number[j] = -1
            if np.isnan(row[j]) or np.isnan(group[t, j]):
                continue
            g = 0
            while g < groups and names[g] != group[t, j]:
                g += 1
            if g == groups:
                names[g] = group[t, j]
                counts[g] = 0.0
                totals[g] = 0.0
                groups += 1
            number[j] = g
            counts[g] += 1.0
            totals[g] += row[j]
        for j in range(n_assets):
            g = number[j]
            if g < 0:
                continue
            if not ranked:
                out[t, j] = row[j] - totals[g] / counts[g]
                continue
            value = row[j]
            below = 0
            above = 0
            for k in range(n_assets):
                below += (number[k] == g) & (row[k] < value)
                above += (number[k] == g) & (row[k] > value)
            others = counts[g] - 1.0
            out[t, j] = (below + others - above) / (2.0 * others) if others > 0.0 else 0.5


@njit(cache=True, nogil=True, error_model="numpy")
def bar_scale(x: FloatArray, what: int, out: FloatArray) -> None:
    """Write the bar's mean, x - mean, x / sum of abs(x), or (x - mean) / std; NaN where a divisor is zero."""
    n_bars, n_assets = x.shape
    for t in range(n_bars):
        row = x[t]
        count = 0
        total = 0.0
        size = 0.0
        least = np.inf
        most = -np.inf
        for j in range(n_assets):
            value = row[j]
            if not np.isnan(value):
                count += 1
                total += value
                size += abs(value)
                least = min(least, value)
                most = max(most, value)
        mean = total / count
        if what == CS_MEAN:
            for j in range(n_assets):
                out[t, j] = mean
        elif what == DEMEAN:
            for j in range(n_assets):
                out[t, j] = row[j] - mean
        elif what == SCALE:
            for j in range(n_assets):
                out[t, j] = row[j] / size if size > 0.0 else np.nan
        else:
            square = 0.0
            for j in range(n_assets):
                away = row[j] - mean
                square += 0.0 if np.isnan(away) else away * away
            std = np.sqrt(square / (count - 1)) if most > least else np.nan
            for j in range(n_assets):
                out[t, j] = (row[j] - mean) / std


@njit(cache=True, nogil=True, error_model="numpy")
def bar_neutralize(x: FloatArray, factor: FloatArray, out: FloatArray) -> None:
    """Write the residual of the regression of x on the factor over the symbols that have both."""
    n_bars, n_assets = x.shape
    for t in range(n_bars):
        count = 0
        x_total = 0.0
        f_total = 0.0
        least = np.inf
        most = -np.inf
        for j in range(n_assets):
            if not (np.isnan(x[t, j]) or np.isnan(factor[t, j])):
                count += 1
                x_total += x[t, j]
                f_total += factor[t, j]
                least = min(least, factor[t, j])
                most = max(most, factor[t, j])
        x_mean = x_total / count
        f_mean = f_total / count
        product = 0.0
        square = 0.0
        for j in range(n_assets):
            away = factor[t, j] - f_mean
            both = (x[t, j] - x_mean) * away
            if not np.isnan(both):
                product += both
                square += away * away
        slope = product / square if most > least and square > 0.0 else 0.0
        for j in range(n_assets):
            out[t, j] = (x[t, j] - x_mean) - slope * (factor[t, j] - f_mean)
