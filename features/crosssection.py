"""Operators across the symbols of one bar.

Promises one NaN rule: a symbol that is NaN is left out of the bar's statistics and stays NaN. A bar's result depends on
that bar alone. All arrays have shape (n_bars, n_assets).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from features.fields import FloatArray

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


def rank(x: FloatArray) -> FloatArray:
    """Rank within the bar from 0 (lowest) to 1 (highest), ties averaged; 0.5 for a symbol that is alone."""
    out = np.full(x.shape, np.nan)
    if x.size == 0:
        return out
    order = np.argsort(x, axis=1)
    ordered = np.take_along_axis(x, order, axis=1)
    first, last = _runs(_differs(ordered))
    count = (~np.isnan(x)).sum(axis=1, keepdims=True)
    scaled = np.where(count > 1, (first + last) / (2.0 * np.maximum(count - 1, 1)), 0.5)
    np.put_along_axis(out, order, np.where(np.isnan(ordered), np.nan, scaled), axis=1)
    return out


def quantile(x: FloatArray, n: float) -> FloatArray:
    """Put the symbols of a bar into `n` buckets of equal numbers, 0 (lowest) to ``n - 1``.

    With r the average rank among the m symbols of the bar, 1 the lowest, the bucket is ``floor(n * (r - 0.5) / m)``: ties
    share the bucket of their average rank, a symbol that is alone is in bucket ``n // 2``.
    """
    out = np.full(x.shape, np.nan)
    if x.size == 0:
        return out
    order = np.argsort(x, axis=1)
    ordered = np.take_along_axis(x, order, axis=1)
    first, last = _runs(_differs(ordered))
    count = (~np.isnan(x)).sum(axis=1, keepdims=True)
    # In whole numbers, so that a symbol on the edge of a bucket is on the same side everywhere.
    bucket = int(n) * (first + last + 1) // (2 * np.maximum(count, 1))
    np.put_along_axis(out, order, np.where(np.isnan(ordered), np.nan, bucket), axis=1)
    return out


def demean(x: FloatArray) -> FloatArray:
    """Subtract the mean of the bar."""
    return x - _mean(x)


def cs_mean(x: FloatArray) -> FloatArray:
    """Give the mean of the bar to every symbol; NaN where all are."""
    return np.repeat(_mean(x), x.shape[1], axis=1)


def zscore(x: FloatArray) -> FloatArray:
    """Subtract the mean of the bar and divide by its standard deviation (ddof=1); NaN where the bar has no spread."""
    known = ~np.isnan(x)
    centred = demean(x)
    count = known.sum(axis=1, keepdims=True)
    variance = np.where(known, centred * centred, 0.0).sum(axis=1, keepdims=True) / np.maximum(count - 1, 1)
    return centred / np.where(_varies(x), np.sqrt(variance), np.nan)


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


def neutralize(x: FloatArray, factor: FloatArray) -> FloatArray:
    """Take the residual of the bar's regression of `x` on the factor, with intercept, over the symbols that have both.

    Where the factor has no spread only the mean is taken away.
    """
    x, factor = _paired(x, factor)
    x = demean(x)
    centred = demean(factor)
    known = ~np.isnan(x)
    product = np.where(known, x * centred, 0.0).sum(axis=1, keepdims=True)
    square = np.where(known, centred * centred, 0.0).sum(axis=1, keepdims=True)
    usable = _varies(factor) & (square > 0.0)
    return x - np.where(usable, product / np.where(usable, square, 1.0), 0.0) * centred


def group_neutralize(x: FloatArray, group: FloatArray) -> FloatArray:
    """Subtract the mean of the symbols of the bar whose group value is equal."""
    if x.size == 0:
        return x.copy()
    x, group = _paired(x, group)
    order = np.argsort(group, axis=1, kind="stable")
    grouped = np.take_along_axis(group, order, axis=1)
    ordered = np.take_along_axis(x, order, axis=1)
    number = np.cumsum(_differs(grouped)) - 1
    known = ~np.isnan(ordered)
    total = np.bincount(number, weights=np.where(known, ordered, 0.0).ravel())
    mean = (total / np.maximum(np.bincount(number), 1))[number].reshape(x.shape)
    out = np.empty(x.shape)
    np.put_along_axis(out, order, ordered - mean, axis=1)
    return out


def group_rank(x: FloatArray, group: FloatArray) -> FloatArray:
    """Rank as `rank` among the symbols of the bar whose group value is equal."""
    out = np.full(x.shape, np.nan)
    if x.size == 0:
        return out
    x, group = _paired(x, group)
    order = np.lexsort((x, group), axis=1)
    opens = _differs(np.take_along_axis(group, order, axis=1))
    start, end = _runs(opens)
    ordered = np.take_along_axis(x, order, axis=1)
    first, last = _runs(opens | _differs(ordered))
    others = end - start
    scaled = np.where(others > 0, (first + last - 2 * start) / (2.0 * np.maximum(others, 1)), 0.5)
    np.put_along_axis(out, order, np.where(np.isnan(ordered), np.nan, scaled), axis=1)
    return out


def _mean(x: FloatArray) -> FloatArray:
    known = ~np.isnan(x)
    count = known.sum(axis=1, keepdims=True)
    total: FloatArray = np.where(known, x, 0.0).sum(axis=1, keepdims=True)
    return total / np.where(count > 0, count, np.nan)


def _paired(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    either = np.isnan(x) | np.isnan(y)
    return np.where(either, np.nan, x), np.where(either, np.nan, y)


def _varies(x: FloatArray) -> BoolArray:
    known = ~np.isnan(x)
    lowest: FloatArray = np.where(known, x, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    highest: FloatArray = np.where(known, x, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    varies: BoolArray = highest > lowest
    return varies


def _differs(ordered: FloatArray) -> BoolArray:
    """Whether a value differs from the one before it; the first of a bar does, and every NaN."""
    differs = np.ones(ordered.shape, dtype=np.bool_)
    differs[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return differs


def _runs(opens: BoolArray) -> tuple[IntArray, IntArray]:
    """Places within the bar of the first and last member of each member's run, from where runs open."""
    places = np.arange(opens.shape[1])
    closes = np.ones(opens.shape, dtype=np.bool_)
    closes[:, :-1] = opens[:, 1:]
    first = np.maximum.accumulate(np.where(opens, places, 0), axis=1)
    last = np.minimum.accumulate(np.where(closes, places, opens.shape[1])[:, ::-1], axis=1)[:, ::-1]
    return first, last


def _quantile(ordered: FloatArray, last: IntArray, level: float) -> FloatArray:
    place = level * last
    below = np.floor(place).astype(np.int64)
    low = np.take_along_axis(ordered, below, axis=1)
    high = np.take_along_axis(ordered, np.minimum(below + 1, last), axis=1)
    result: FloatArray = low + (place - below) * (high - low)
    return result
