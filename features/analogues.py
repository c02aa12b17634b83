"""What followed the past windows most like a window, and whether it differs from what followed any.

Promises that only labels count that had ended before the window that asks (`features.nearest_windows`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from core.errors import DataError, ShapeError
from features.fields import FloatArray
from features.nearest_windows import IntArray, find_analogues

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

_BLOCK_CELLS = 1_000_000  # correlations held at a time: 8 MB
_BLOCK_ROWS = 2_048


@dataclass(frozen=True, kw_only=True, eq=False)
class Analogues:
    """Hold the distribution of what followed the windows most like each of some windows.

    Everything is NaN where fewer than k windows were eligible.

    Parameters
    ----------
    neighbours : ndarray of shape (n_queries, k), int
        Positions of the nearest windows, nearest first; -1 where fewer than k were eligible.
    n_eligible : ndarray of shape (n_queries,), int
        Windows they were chosen from.
    mean, spread : ndarray of shape (n_queries,)
        Of the neighbours' labels; the spread is a standard deviation (ddof=1).
    share_positive : ndarray of shape (n_queries,)
    quantiles : ndarray of shape (n_queries, 5)
        At the levels `QUANTILES`.
    pool_mean : ndarray of shape (n_queries,)
        Mean label of all eligible windows: what random windows are expected to show.
    n_effective : ndarray of shape (n_queries,)
        As how many independent labels the neighbours' count.
    t_stat, p_value : ndarray of shape (n_queries,)
        Of `mean` against `pool_mean`, two-sided; see `forecast_analogues`.
    """

    neighbours: IntArray
    n_eligible: IntArray
    mean: FloatArray
    spread: FloatArray
    share_positive: FloatArray
    quantiles: FloatArray
    pool_mean: FloatArray
    n_effective: FloatArray
    t_stat: FloatArray
    p_value: FloatArray


def forecast_analogues(
    vectors: npt.ArrayLike,
    labels: npt.ArrayLike,
    end: npt.ArrayLike,
    symbol: npt.ArrayLike,
    *,
    k: int = 50,
    horizon: int = 5,
    delay: int = 1,
    queries: npt.ArrayLike | None = None,
    max_age: int | None = None,
    spacing: int = 1,
    threads: int | None = None,
) -> Analogues:
    r"""Say what followed the k nearest past windows of each window, and whether it differs from what followed any.

    Parameters
    ----------
    vectors, end, queries, max_age, spacing, threads
        As in `find_analogues`.
    labels : array-like of shape (n_windows,)
        What followed each window, as `features.labels.forward_returns` has it; NaN where it is not known.
    symbol : array-like of shape (n_windows,)
        Of each window.
    k : int, default=50
    horizon, delay : int, default=5 and 1
        Of the labels: the label of a window that ends at bar ``s`` spans the bars ``s + delay .. s + delay + horizon``.

    Returns
    -------
    Analogues

    Raises
    ------
    DataError, ShapeError
        As `find_analogues`; also if `horizon` or `delay` is below 1.

    Notes
    -----
    The null hypothesis is that the neighbours are a random draw of k windows from the eligible ones, whose labels have the
    overlaps in time, and the correlation between symbols, that the neighbours' have. With :math:`\rho_{ij}` the correlation
    of two labels under it, the share of bars they have in common [1]_ times 1 for the same symbol, or times the mean
    correlation :math:`c` between symbols of one bar among the eligible labels (an intraclass correlation, at least 0),

    .. math:: k_e = k^2 / \sum_{ij} \rho_{ij}, \quad s^2 = \frac{\sum_i (y_i - \bar y)^2}{k - k / k_e}, \quad
       t = \frac{\bar y - \bar y_{pool}}{s \sqrt{(1 - k / N) / k_e}}

    where :math:`k_e` is Kish's effective size of a clustered sample [2]_ and :math:`1 - k/N` Cochran's correction for draws
    from a finite pool [3]_. The p-value is Student's, with the degrees of freedom of :math:`s^2` by Satterthwaite [4]_:
    :math:`tr(A)^2 / tr(A^2)` for the doubly centred matrix A of the correlations. The spread is the neighbours' own, not the
    pool's: a memory that knows volatility and nothing else must not look as if it knew the direction. Where :math:`k_e` is not
    above 1 there is no t. A pool of few independent labels makes the test conservative, because its mean moves with theirs.

    References
    ----------
    .. [1] Hansen, L. P. and Hodrick, R. J. (1980). Forward exchange rates as optimal predictors of future spot rates.
       Journal of Political Economy, 88(5), 829-853. Their moving-average correlation of overlapping forecasts, applied to a
       chosen set instead of a regression.
    .. [2] Kish, L. (1965). Survey Sampling. Wiley, section 5.4.
    .. [3] Cochran, W. G. (1977). Sampling Techniques, 3rd ed. Wiley, theorem 2.2.
    .. [4] Satterthwaite, F. E. (1946). An approximate distribution of estimates of variance components. Biometrics
       Bulletin, 2(6), 110-114.
    """
    if horizon < 1 or delay < 1:
        raise DataError(f"`horizon` and `delay` must be at least 1 bar, were {horizon} and {delay}.")
    y, who = np.asarray(labels, dtype=np.float64), np.asarray(symbol)
    ends = np.asarray(end, dtype=np.int64)
    if not y.shape == who.shape == ends.shape:
        raise ShapeError(
            f"`labels`, `symbol` and `end` must have one value a window, had {y.shape}, {who.shape} and {ends.shape}."
        )
    asked = np.arange(len(ends)) if queries is None else np.asarray(queries, dtype=np.int64)
    rows = np.asarray(vectors, dtype=np.float32)
    usable = np.isfinite(y)
    neighbours, n_eligible = find_analogues(
        rows,
        ends,
        k=k,
        reach=horizon + delay,
        usable=usable,
        queries=asked,
        max_age=max_age,
        spacing=spacing,
        threads=threads,
    )
    pool = usable & np.isfinite(rows).all(axis=1) & rows.any(axis=1)
    pool_mean, alike = _describe_pools(y, ends, ends[asked], pool, reach=horizon + delay, max_age=max_age, spacing=spacing)
    out = {name: np.full(len(asked), np.nan) for name in ("mean", "spread", "share", "pool", "effective", "t", "p")}
    quantiles = np.full((len(asked), len(QUANTILES)), np.nan)
    codes = np.unique(who, return_inverse=True)[1].reshape(-1)
    for start in range(0, len(asked), _BLOCK_ROWS):
        rows_here = start + np.flatnonzero(neighbours[start : start + _BLOCK_ROWS, -1] >= 0)
        if not len(rows_here):
            continue
        chosen = neighbours[rows_here]
        values = y[chosen]
        mean = values.mean(axis=1)
        effective, freedom = _count_effective(ends[chosen], codes[chosen], alike[rows_here], horizon)
        squares = ((values - mean[:, None]) ** 2).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            variance = np.where(effective > 1.0, squares / (k - k / effective), np.nan)
            error = np.sqrt(variance / effective * (1.0 - k / n_eligible[rows_here]))
            t = np.where(error > 0.0, (mean - pool_mean[rows_here]) / error, np.nan)
            out["spread"][rows_here] = np.sqrt(squares / (k - 1)) if k > 1 else np.nan
        out["mean"][rows_here], out["t"][rows_here], out["effective"][rows_here] = mean, t, effective
        out["share"][rows_here] = (values > 0.0).mean(axis=1)
        out["pool"][rows_here] = pool_mean[rows_here]
        out["p"][rows_here] = 2.0 * stats.t.sf(np.abs(t), np.where(freedom > 0.0, freedom, np.nan))
        quantiles[rows_here] = np.quantile(values, QUANTILES, axis=1).T
    return Analogues(
        neighbours=neighbours,
        n_eligible=n_eligible,
        mean=out["mean"],
        spread=out["spread"],
        share_positive=out["share"],
        quantiles=quantiles,
        pool_mean=out["pool"],
        n_effective=out["effective"],
        t_stat=out["t"],
        p_value=out["p"],
    )


def _describe_pools(
    y: FloatArray,
    ends: IntArray,
    at: IntArray,
    pool: npt.NDArray[np.bool_],
    *,
    reach: int,
    max_age: int | None,
    spacing: int,
) -> tuple[FloatArray, FloatArray]:
    """Return for each bar in `at` the mean of the eligible labels, and the correlation of labels of one bar."""
    mean, alike = np.full(len(at), np.nan), np.zeros(len(at))
    centre = float(y[pool].mean()) if pool.any() else 0.0  # sums of squares about anything far away would cancel
    for remainder in range(spacing):
        mine = np.flatnonzero(at % spacing == remainder)
        members = np.flatnonzero(pool & (ends % spacing == remainder))
        if not len(mine) or not len(members):
            continue
        bars, bar = np.unique(ends[members], return_inverse=True)
        values = y[members] - centre
        sums = np.stack(
            [np.bincount(bar, weights) for weights in (np.ones(len(members)), values, values * values)]  # one row a moment
        )
        count, total, _ = sums
        pairs = np.vstack([sums, count * (count - 1.0), total * (count - 1.0), total * total])
        running = np.concatenate([np.zeros((len(pairs), 1)), np.cumsum(pairs, axis=1)], axis=1)
        stop = np.searchsorted(bars, at[mine] - reach, side="left")
        first = np.zeros_like(stop) if max_age is None else np.searchsorted(bars, at[mine] - max_age, side="left")
        n, one, two, n_pairs, one_pairs, squared = running[:, np.maximum(stop, first)] - running[:, first]
        with np.errstate(invalid="ignore", divide="ignore"):
            m = one / n
            variance = two / n - m * m
            # The sum over pairs of different symbols of one bar of (y_i - m)(y_j - m).
            together = (squared - two) - 2.0 * m * one_pairs + m * m * n_pairs
            c = together / (n_pairs * variance)
        mean[mine] = m + centre
        alike[mine] = np.where(np.isfinite(c), np.clip(c, 0.0, 1.0), 0.0)
    return mean, alike


def _count_effective(ends: IntArray, codes: IntArray, alike: FloatArray, horizon: int) -> tuple[FloatArray, FloatArray]:
    """Count as how many independent labels those of each row count, and the degrees of freedom of their variance."""
    k = ends.shape[1]
    effective, freedom = np.empty(len(ends)), np.empty(len(ends))
    step = max(1, _BLOCK_CELLS // (k * k))
    for start in range(0, len(ends), step):
        part = slice(start, start + step)
        gap = np.abs(ends[part, :, None] - ends[part, None, :])
        same = codes[part, :, None] == codes[part, None, :]
        rho = np.maximum(0.0, 1.0 - gap / horizon) * np.where(same, 1.0, alike[part, None, None])
        rows = rho.mean(axis=2)
        mean = rows.mean(axis=1)
        effective[part] = 1.0 / mean
        centred = rho - rows[:, :, None] - rows[:, None, :] + mean[:, None, None]
        squares = np.einsum("qij,qij->q", centred, centred)
        freedom[part] = np.divide((k * (1.0 - mean)) ** 2, squares, out=np.zeros(len(mean)), where=squares > 0.0)
    return effective, freedom
