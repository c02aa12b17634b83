"""Skill: whether scores foresaw returns, before any portfolio, cost or luck of timing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backtest.ranks import compute_row_ranks
from core.errors import DataError, ShapeError

FloatArray = npt.NDArray[np.float64]

MIN_RANKED = 3
DECAY_HORIZONS = (1, 2, 3, 5, 10, 21)


@dataclass(frozen=True, kw_only=True)
class HorizonIC:
    """Hold the rank information coefficient at one horizon.

    Parameters
    ----------
    horizon_bars : int
        Bars over which the return is measured.
    mean : float
        Mean over the bars where it is known; NaN when there is none.
    t : float
        `mean_t_statistic` with ``horizon_bars - 1`` lags, because neighbouring returns share bars.
    n_bars : int
        Bars where it is known.
    """

    horizon_bars: int
    mean: float
    t: float
    n_bars: int


@dataclass(frozen=True, kw_only=True)
class QuantileReturns:
    """Hold what the assets of each quantile of the score earned.

    Parameters
    ----------
    means : tuple of float
        Mean return per bar of each quantile, lowest scores first; NaN for a quantile that was never filled.
    spread : float
        Mean over bars of the highest quantile less the lowest; NaN when never known.
    spread_t : float
        Its t-statistic, with ``horizon_bars - 1`` lags.
    n_bars : int
        Bars where the spread is known.
    """

    means: tuple[float, ...]
    spread: float
    spread_t: float
    n_bars: int


def compute_rank_ic(scores: npt.ArrayLike, forward_returns: npt.ArrayLike) -> FloatArray:
    """Compute the rank information coefficient of every bar.

    Parameters
    ----------
    scores : array_like of shape (n_bars, n_assets)
        What was believed at each bar.
    forward_returns : array_like of shape (n_bars, n_assets), fractions
        What came of it, on the row of the score.

    Returns
    -------
    ndarray of shape (n_bars,)
        Spearman's correlation across the assets where both are finite, ties ranked by their mean; NaN where fewer than
        three assets are left or either side has no variance.

    Raises
    ------
    ValueError
        If the shapes differ or are not 2-D.

    References
    ----------
    .. [1] Grinold, R. C. & Kahn, R. N. (2000). Active portfolio management, 2nd ed., ch. 6. McGraw-Hill.
    """
    left, right = np.asarray(scores, np.float64), np.asarray(forward_returns, np.float64)
    if left.ndim != 2 or left.shape != right.shape:
        raise ValueError(
            f"`scores` and `forward_returns` must have one shape (n_bars, n_assets), had {left.shape}, {right.shape}."
        )
    unpaired = ~(np.isfinite(left) & np.isfinite(right))
    count = left.shape[1] - unpaired.sum(axis=1)
    centred = []
    for side in (left, right):
        ranks, _ = compute_row_ranks(np.where(unpaired, np.nan, side))
        ranks -= (0.5 * (count + 1.0))[:, None]
        ranks[unpaired] = 0.0
        centred.append(ranks)
    spread = np.sqrt(np.einsum("ij,ij->i", centred[0], centred[0]) * np.einsum("ij,ij->i", centred[1], centred[1]))
    known = (count >= MIN_RANKED) & (spread > 0.0)
    out = np.full(len(left), np.nan)
    np.divide(np.einsum("ij,ij->i", centred[0], centred[1]), spread, out=out, where=known)
    return out


def mean_t_statistic(values: npt.ArrayLike, *, lags: int = 0) -> float:
    """Compute the mean of the finite values over its standard error; NaN for fewer than two or without variance.

    Parameters
    ----------
    values : array_like of shape (n_values,)
    lags : int, default=0
        Autocovariances that the standard error takes in. With none it is ``std / sqrt(n)``, ddof=1, which assumes uncorrelated
        values; returns over ``h`` bars that begin at every bar need ``h - 1``.

    Raises
    ------
    ValueError
        If `lags` is negative.

    Notes
    -----
    The long-run variance is ``c_0 + 2 sum_k (1 - k / (lags + 1)) c_k`` [1]_ with the small-sample factor ``n / (n - 1)``,
    which makes both cases one formula.

    References
    ----------
    .. [1] Newey, W. K. & West, K. D. (1987). A simple, positive semi-definite, heteroskedasticity and autocorrelation
       consistent covariance matrix. Econometrica, 55(3), 703-708.
    """
    if lags < 0:
        raise ValueError(f"`lags` must not be negative, was {lags}.")
    array = np.asarray(values, np.float64)
    array = array[np.isfinite(array)]
    n = len(array)
    if n < 2:
        return math.nan
    centred = array - array.mean()
    variance = float(centred @ centred)
    if variance <= n * (1e-12 * float(np.abs(array).max())) ** 2:
        return math.nan
    for lag in range(1, min(lags, n - 1) + 1):
        variance += 2.0 * (1.0 - lag / (lags + 1.0)) * float(centred[lag:] @ centred[:-lag])
    return float(array.mean()) / math.sqrt(variance / n / (n - 1.0)) if variance > 0.0 else math.nan


def compute_forward_returns(close: npt.ArrayLike, *, horizon_bars: int = 1) -> FloatArray:
    """Compute the return that a score can still earn: from the close after it on.

    Parameters
    ----------
    close : array_like of shape (n_bars, n_assets), prices
    horizon_bars : int, default=1

    Returns
    -------
    ndarray of shape (n_bars, n_assets), fractions
        ``close[t + 1 + horizon_bars] / close[t + 1] - 1`` on row ``t``: what is decided at ``t`` is traded at ``t + 1``. NaN
        where a price is missing and in the last ``1 + horizon_bars`` rows.

    Raises
    ------
    ShapeError
        If `close` is not 2-D.
    DataError
        If `horizon_bars` is below 1.
    """
    prices = np.asarray(close, np.float64)
    if prices.ndim != 2:
        raise ShapeError(f"`close` must have shape (n_bars, n_assets), was {prices.shape}.")
    if horizon_bars < 1:
        raise DataError(f"`horizon_bars` must be at least 1, was {horizon_bars}.")
    out = np.full(prices.shape, np.nan)
    if len(prices) > horizon_bars + 1:
        out[: -1 - horizon_bars] = prices[1 + horizon_bars :] / prices[1:-horizon_bars] - 1.0
    return out


def compute_rank_ic_decay(
    scores: npt.ArrayLike, close: npt.ArrayLike, *, horizons: Sequence[int] = DECAY_HORIZONS
) -> tuple[HorizonIC, ...]:
    """Compute how far ahead scores foresee: their rank information coefficient at several horizons.

    Parameters
    ----------
    scores : array_like of shape (n_bars, n_assets)
        Known at the close of their bar; NaN is no opinion.
    close : array_like of shape (n_bars, n_assets), prices
    horizons : sequence of int, default=(1, 2, 3, 5, 10, 21)
        Bars over which returns are measured, each from the close after the score.

    Returns
    -------
    tuple of HorizonIC
        In the order of `horizons`.

    Raises
    ------
    ShapeError, DataError
        As `compute_forward_returns`.
    ValueError
        If the shapes differ.
    """
    found = []
    for horizon in horizons:
        ic = compute_rank_ic(scores, compute_forward_returns(close, horizon_bars=horizon))
        known = ic[np.isfinite(ic)]
        found.append(
            HorizonIC(
                horizon_bars=horizon,
                mean=float(known.mean()) if len(known) else math.nan,
                t=mean_t_statistic(known, lags=horizon - 1),
                n_bars=len(known),
            )
        )
    return tuple(found)


def compute_quantile_returns(
    scores: npt.ArrayLike, forward_returns: npt.ArrayLike, *, n_quantiles: int = 5, horizon_bars: int = 1
) -> QuantileReturns:
    """Compute what the assets of each quantile of the score earned, and the spread between the highest and the lowest.

    Parameters
    ----------
    scores, forward_returns : array_like of shape (n_bars, n_assets)
        As in `compute_rank_ic`.
    n_quantiles : int, default=5
    horizon_bars : int, default=1
        Bars that a forward return spans, for the t-statistic alone.

    Returns
    -------
    QuantileReturns

    Raises
    ------
    ValueError
        If the shapes differ or are not 2-D, or `n_quantiles` is below 2.

    Notes
    -----
    At each bar the assets where both are finite are ranked, ties sharing the mean of their ranks, and rank ``r`` of ``n`` goes
    to quantile ``floor((r - 1/2) n_quantiles / n)``; each quantile weighs its assets equally, and a mean over bars weighs bars
    equally. Bars with fewer assets than quantiles are left out, and ties may leave a quantile of a bar empty. pandas' ``qcut``
    cuts at interpolated quantiles instead, which may put an asset at a border into the neighbouring one.
    """
    left, right = np.asarray(scores, np.float64), np.asarray(forward_returns, np.float64)
    if left.ndim != 2 or left.shape != right.shape:
        raise ValueError(
            f"`scores` and `forward_returns` must have one shape (n_bars, n_assets), had {left.shape}, {right.shape}."
        )
    if n_quantiles < 2:
        raise ValueError(f"`n_quantiles` must be at least 2, was {n_quantiles}.")
    paired = np.isfinite(left) & np.isfinite(right)
    count = paired.sum(axis=1)
    ranks, _ = compute_row_ranks(np.where(paired, left, np.nan))
    place = np.floor((ranks - 0.5) * n_quantiles / np.maximum(count, 1)[:, None])
    place[count < n_quantiles] = np.nan
    means = np.full((len(left), n_quantiles), np.nan)
    for quantile in range(n_quantiles):
        inside = place == quantile
        filled = inside.sum(axis=1)
        np.divide(np.where(inside, right, 0.0).sum(axis=1), filled, out=means[:, quantile], where=filled > 0)
    spread = means[:, -1] - means[:, 0]
    known = spread[np.isfinite(spread)]
    return QuantileReturns(
        means=tuple(float(column[np.isfinite(column)].mean()) if np.isfinite(column).any() else math.nan for column in means.T),
        spread=float(known.mean()) if len(known) else math.nan,
        spread_t=mean_t_statistic(known, lags=horizon_bars - 1),
        n_bars=len(known),
    )
