"""Operators across the symbols of one bar.

Promises one NaN rule: a symbol that is NaN is left out of the bar's statistics and stays NaN. A bar's result depends on
that bar alone. All arrays have shape (n_bars, n_assets).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from features.fields import FloatArray, freeze

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

MOST_COMPARED = 256

(CS_MEAN, DEMEAN, SCALE, ZSCORE) = range(4)


def rank(x: FloatArray) -> FloatArray:
    """Rank within the bar from 0 (lowest) to 1 (highest), ties averaged; 0.5 for a symbol that is alone."""
    out = np.full(x.shape, np.nan)
    if x.size == 0:
        return out
    if x.shape[1] <= MOST_COMPARED:
        from features.barkernels import bar_rank

        bar_rank(freeze(x), 0, out)
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
    if x.shape[1] <= MOST_COMPARED:
        from features.barkernels import bar_rank

        bar_rank(freeze(x), int(n), out)
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
    return _scaled(x, DEMEAN)


def cs_mean(x: FloatArray) -> FloatArray:
    """Give the mean of the bar to every symbol; NaN where all are."""
    return _scaled(x, CS_MEAN)


def zscore(x: FloatArray) -> FloatArray:
    """Subtract the mean of the bar and divide by its standard deviation (ddof=1); NaN where the bar has no spread."""
    return _scaled(x, ZSCORE)


def scale(x: FloatArray) -> FloatArray:
    """Divide by the sum of absolute values of the bar; NaN where that sum is zero."""
    return _scaled(x, SCALE)


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
    from features.barkernels import bar_neutralize

    out = np.empty(x.shape)
    bar_neutralize(freeze(x), freeze(factor), out)
    return out


def group_neutralize(x: FloatArray, group: FloatArray) -> FloatArray:
    """Subtract the mean of the symbols of the bar whose group value is equal."""
    return _grouped(x, group, ranked=False)


def group_rank(x: FloatArray, group: FloatArray) -> FloatArray:
    """Rank as `rank` among the symbols of the bar whose group value is equal."""
    return _grouped(x, group, ranked=True)


def _scaled(x: FloatArray, what: int) -> FloatArray:
    from features.barkernels import bar_scale

    out = np.empty(x.shape)
    bar_scale(freeze(x), what, out)
    return out


def _grouped(x: FloatArray, group: FloatArray, *, ranked: bool) -> FloatArray:
    from features.barkernels import bar_group

    out = np.empty(x.shape)
    bar_group(freeze(x), freeze(group), ranked, out)
    return out


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
