"""Ranks, what they correlate with, and how sure that is.

Hides how gaps are paired. Promises that every statistic uses only what is known on both sides, that a row with fewer than
three pairs, or without spread on either side, says nothing (NaN), and that it is the same whatever the other rows hold.

A row is what is ranked together: the symbols of a bar, or, where a data set has no cross-section, the bars of a symbol.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features import crosssection
from features.fields import FloatArray

MIN_RANKED = 3
"""Fewest pairs a rank correlation is made of."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranked:
    """Hold values and their ranks, so that they are sorted once.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_columns)
        NaN where unknown.
    ranks : ndarray of shape (n_rows, n_columns)
        Ranks within the row less their mean, ties averaged; NaN where `values` is.
    """

    values: FloatArray
    ranks: FloatArray

    @classmethod
    def of(cls, values: FloatArray) -> Ranked:
        """Rank the rows of `values`."""
        return cls(values=values, ranks=centred_ranks(values))

    def rows(self, part: slice) -> Ranked:
        """Return some of the rows."""
        return Ranked(values=self.values[part], ranks=self.ranks[part])


def centred_ranks(values: FloatArray) -> FloatArray:
    """Rank each row from ``-(n - 1) / 2`` to ``(n - 1) / 2``, ties averaged; NaN where the value is NaN."""
    count = (~np.isnan(values)).sum(axis=1, keepdims=True)
    ranks: FloatArray = (crosssection.rank(values) - 0.5) * (count - 1)
    return ranks


def rank_products(x: Ranked, y: Ranked) -> FloatArray:
    """Split each row's Spearman correlation [1]_ into what each column adds to it.

    Parameters
    ----------
    x, y : Ranked of shape (n_rows, n_columns)

    Returns
    -------
    ndarray of shape (n_rows, n_columns)
        Products of the ranks, each side scaled to length one. A row sums to Pearson's correlation of the average ranks of
        the columns known on both sides; NaN where the pair is not known, or the row says nothing.

    References
    ----------
    .. [1] Spearman, C. (1904). The proof and measurement of association between two things. American Journal of
       Psychology, 15(1), 72-101.
    """
    left, right = x.ranks, y.ranks
    unpaired = np.isnan(left) | np.isnan(right)
    mixed = (np.isnan(left) != np.isnan(right)).any(axis=1)
    if mixed.any():
        left, right = left.copy(), right.copy()
        left[mixed] = centred_ranks(np.where(unpaired[mixed], np.nan, x.values[mixed]))
        right[mixed] = centred_ranks(np.where(unpaired[mixed], np.nan, y.values[mixed]))
    spread = np.sqrt(_sum_rows(left * left) * _sum_rows(right * right))
    count = left.shape[1] - unpaired.sum(axis=1)
    usable = (count >= MIN_RANKED) & (spread > 0.0)
    return left * right / np.where(usable, spread, np.nan)[:, None]


def rank_correlation(x: Ranked, y: Ranked) -> FloatArray:
    """Compute Spearman's correlation of each row.

    Returns
    -------
    ndarray of shape (n_rows,)
        NaN where fewer than three pairs are known, or either side has no spread among them.
    """
    products = rank_products(x, y)
    return np.where(np.isnan(products).all(axis=1), np.nan, _sum_rows(products))


def mean_error(series: FloatArray, *, lag: int) -> float:
    """Compute the standard error of the mean of a series whose neighbours up to `lag` bars apart are not independent.

    Newey and West's estimator [1]_: ``sqrt((g0 + 2 * sum((1 - j / (lag + 1)) * gj for j in 1..lag)) / n)``, ``gj`` being the
    sum of ``d[t] * d[t - j]`` divided by ``n``, and ``d`` the deviation from the mean.

    Parameters
    ----------
    series : ndarray of shape (n_bars,)
        NaN where there is no value. A missing bar counts zero in the sums and not at all in ``n``, so that the others keep
        their distance [2]_; this is our addition.
    lag : int
        ``horizon - 1`` for labels over `horizon` bars: labels that far apart share a bar.

    Returns
    -------
    float
        NaN with no more than ``lag + 1`` values, or without spread.

    References
    ----------
    .. [1] Newey, W. K. & West, K. D. (1987). A simple, positive semi-definite, heteroskedasticity and autocorrelation
       consistent covariance matrix. Econometrica, 55(3), 703-708.
    .. [2] Datta, D. D. & Du, W. (2012). Nonparametric HAC estimation for time series data with missing observations.
       Federal Reserve Board, International Finance Discussion Paper 1060.
    """
    known = ~np.isnan(series)
    n = int(known.sum())
    if n <= lag + 1:
        return float("nan")
    deviation = np.where(known, series - series[known].mean(), 0.0)
    total = float(deviation @ deviation)
    for j in range(1, lag + 1):
        total += 2.0 * (1.0 - j / (lag + 1)) * float(deviation[j:] @ deviation[:-j])
    return float(np.sqrt(total) / n) if total > 0.0 else float("nan")


def bucket_means(buckets: FloatArray, labels: FloatArray, n_buckets: int) -> FloatArray:
    """Average labels by bucket within each row, then over the rows that have the bucket.

    Parameters
    ----------
    buckets : ndarray of shape (n_rows, n_columns)
        0 to ``n_buckets - 1``, NaN where there is none.
    labels : ndarray of shape (n_rows, n_columns)
    n_buckets : int

    Returns
    -------
    ndarray of shape (n_buckets,)
        Each row counts once; NaN for a bucket that no row has.
    """
    known = ~(np.isnan(buckets) | np.isnan(labels))
    place = np.nonzero(known)[0] * n_buckets + buckets[known].astype(np.int64)
    size = len(buckets) * n_buckets
    count = np.bincount(place, minlength=size).reshape(-1, n_buckets)
    total = np.bincount(place, weights=labels[known], minlength=size).reshape(-1, n_buckets)
    mean = total / np.maximum(count, 1)
    rows = (count > 0).sum(axis=0)
    return np.where(rows > 0, mean.sum(axis=0) / np.maximum(rows, 1), np.nan)


def rank_weights(x: Ranked) -> FloatArray:
    """Turn ranks into weights that sum to zero, and whose absolute values sum to one in each row.

    Returns
    -------
    ndarray of shape (n_rows, n_columns)
        Zero where there is no value; NaN in a row without spread, which says nothing.
    """
    held = np.where(np.isnan(x.ranks), 0.0, x.ranks)
    gross = np.abs(held).sum(axis=1, keepdims=True)
    weights: FloatArray = held / np.where(gross > 0.0, gross, np.nan)
    return weights


def row_quantiles(values: FloatArray, levels: FloatArray) -> FloatArray:
    """Compute quantiles of each row, linear between neighbours, NaN left out.

    Returns
    -------
    ndarray of shape (n_rows, n_levels)
        NaN for a row without values.
    """
    ordered = np.sort(values, axis=1)
    last = (~np.isnan(values)).sum(axis=1, keepdims=True) - 1
    place = np.maximum(last, 0) * levels
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(last, 0))
    low = np.take_along_axis(ordered, below, axis=1)
    quantiles: FloatArray = low + (place - below) * (np.take_along_axis(ordered, above, axis=1) - low)
    return quantiles


def row_moments(values: FloatArray) -> FloatArray:
    """Compute mean, standard deviation (ddof=1) and skewness of each row, NaN left out.

    Returns
    -------
    ndarray of shape (n_rows, 3)
        Skewness is the adjusted Fisher-Pearson coefficient ``sqrt(n (n - 1)) / (n - 2) * m3 / m2 ** 1.5``. NaN with fewer than
        1, 2 and 3 values, and for the skewness without spread.
    """
    known = ~np.isnan(values)
    n = known.sum(axis=1).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = _sum_rows(values) / np.where(n > 0, n, np.nan)
        deviation = values - mean[:, None]
        second, third = _sum_rows(deviation**2), _sum_rows(deviation**3)
        std = np.sqrt(second / np.where(n > 1, n - 1, np.nan))
        skew = np.sqrt(n * (n - 1)) / np.where(n > 2, n - 2, np.nan) * (third / n) / (second / n) ** 1.5
    flat = np.fmax.reduce(values, axis=1) == np.fmin.reduce(values, axis=1)
    return np.column_stack([mean, std, np.where(flat, np.nan, skew)])


def _sum_rows(values: FloatArray) -> FloatArray:
    total: FloatArray = np.where(np.isnan(values), 0.0, values).sum(axis=1)
    return total
