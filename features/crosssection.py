"""Operators across the symbols of one bar.

Promises one NaN rule: a symbol that is NaN is left out of the bar's statistics and stays NaN. A bar's result depends on
that bar alone. All arrays have shape (n_bars, n_assets).
"""

from __future__ import annotations

import numpy as np

from features.fields import FloatArray


def rank(x: FloatArray) -> FloatArray:
    """Rank within the bar from 0 (lowest) to 1 (highest), ties averaged; 0.5 for a symbol that is alone."""
    out = np.full(x.shape, np.nan)
    if x.size == 0:
        return out
    order = np.argsort(x, axis=1)
    ordered = np.take_along_axis(x, order, axis=1)
    places = np.arange(x.shape[1])
    opens = np.ones(x.shape, dtype=np.bool_)
    opens[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    closes = np.ones(x.shape, dtype=np.bool_)
    closes[:, :-1] = opens[:, 1:]
    first = np.maximum.accumulate(np.where(opens, places, 0), axis=1)
    last = np.minimum.accumulate(np.where(closes, places, x.shape[1])[:, ::-1], axis=1)[:, ::-1]
    count = (~np.isnan(x)).sum(axis=1, keepdims=True)
    scaled = np.where(count > 1, (first + last) / (2.0 * np.maximum(count - 1, 1)), 0.5)
    np.put_along_axis(out, order, np.where(np.isnan(ordered), np.nan, scaled), axis=1)
    return out


def demean(x: FloatArray) -> FloatArray:
    """Subtract the mean of the bar."""
    return x - _mean(x)


def zscore(x: FloatArray) -> FloatArray:
    """Subtract the mean of the bar and divide by its standard deviation (ddof=1); NaN where the bar has no spread."""
    known = ~np.isnan(x)
    centred = demean(x)
    count = known.sum(axis=1, keepdims=True)
    variance = np.where(known, centred * centred, 0.0).sum(axis=1, keepdims=True) / np.maximum(count - 1, 1)
    lowest = np.where(known, x, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    highest = np.where(known, x, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    return centred / np.where(highest > lowest, np.sqrt(variance), np.nan)


def scale(x: FloatArray) -> FloatArray:
    """Divide by the sum of absolute values of the bar; NaN where that sum is zero."""
    total = np.where(np.isnan(x), 0.0, np.abs(x)).sum(axis=1, keepdims=True)
    return x / np.where(total > 0.0, total, np.nan)


def winsorize(x: FloatArray, limit: float) -> FloatArray:
    """Clip to the quantiles `limit` and ``1 - limit`` of the bar, linear between neighbours."""
    if x.size == 0:
        return x.copy()
    ordered = np.sort(x, axis=1)
    last = np.maximum((~np.isnan(x)).sum(axis=1, keepdims=True) - 1, 0)
    return np.clip(x, _quantile(ordered, last, limit), _quantile(ordered, last, 1.0 - limit))


def _mean(x: FloatArray) -> FloatArray:
    known = ~np.isnan(x)
    count = known.sum(axis=1, keepdims=True)
    total: FloatArray = np.where(known, x, 0.0).sum(axis=1, keepdims=True)
    return total / np.where(count > 0, count, np.nan)


def _quantile(ordered: FloatArray, last: np.ndarray[tuple[int, ...], np.dtype[np.int64]], level: float) -> FloatArray:
    place = level * last
    below = np.floor(place).astype(np.int64)
    low = np.take_along_axis(ordered, below, axis=1)
    high = np.take_along_axis(ordered, np.minimum(below + 1, last), axis=1)
    result: FloatArray = low + (place - below) * (high - low)
    return result
