"""Relation to a benchmark: what is owed to the market, and what is left over.

Every function takes simple returns of the same periods as fractions, and gives NaN, never infinity, for a figure that is
not defined.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.metrics.returns import check_returns, sharpe_ratio, volatility
from core.errors import DataError

FloatArray = npt.NDArray[np.float64]

_LARGEST_RETURN = 10.0


@dataclass(frozen=True, kw_only=True)
class BenchmarkFit:
    """Hold the ordinary least squares line of returns on those of a benchmark.

    Parameters
    ----------
    alpha : float
        Intercept, a fraction per year.
    beta : float
        Slope.
    alpha_t, beta_t : float
        Each over its standard error, of homoscedastic errors; the test is against zero.
    correlation : float
        Of the two series.
    """

    alpha: float
    beta: float
    alpha_t: float
    beta_t: float
    correlation: float


def fit_benchmark(returns: FloatArray, benchmark_returns: FloatArray, *, periods_per_year: int = 252) -> BenchmarkFit:
    """Regress returns on those of a benchmark by ordinary least squares.

    Parameters
    ----------
    returns, benchmark_returns : ndarray of shape (n_periods,)
        Excess returns of the same periods.
    periods_per_year : int, default=252

    Returns
    -------
    BenchmarkFit
        ``beta = cov(r, b) / var(b)`` and ``alpha = (mean(r) - beta * mean(b)) * periods_per_year``. All NaN when the
        benchmark has no variance; the t-statistics are NaN with fewer than three periods or without any residual, the
        correlation when `returns` have no variance.

    Raises
    ------
    ValueError
        If an array is not 1-D, has fewer than two values or contains NaN, or the lengths differ.

    Notes
    -----
    Jensen's alpha [1]_ is annualised by multiplication, as a mean is; empyrical compounds it. The standard errors assume
    that residuals are uncorrelated and of one variance.

    References
    ----------
    .. [1] Jensen, M. C. (1968). The performance of mutual funds in the period 1945-1964. Journal of Finance, 23(2), 389-416.
    """
    own, market = _check_pair(returns, benchmark_returns)
    n_obs = len(own)
    mean, centred = float(market.mean()), market - market.mean()
    spread = float(centred @ centred)
    if spread <= n_obs * (1e-12 * float(np.abs(market).max())) ** 2:
        return BenchmarkFit(alpha=math.nan, beta=math.nan, alpha_t=math.nan, beta_t=math.nan, correlation=math.nan)
    beta = float(centred @ own) / spread
    alpha = float(own.mean()) - beta * mean
    residual = own - alpha - beta * market
    error = float(residual @ residual)
    moved = own - own.mean()
    total = float(moved @ moved)
    known = n_obs > 2 and error > 1e-24 * float(own @ own)
    variance = error / (n_obs - 2) if known else math.nan
    return BenchmarkFit(
        alpha=alpha * periods_per_year,
        beta=beta,
        alpha_t=alpha / math.sqrt(variance * (1.0 / n_obs + mean**2 / spread)),
        beta_t=beta / math.sqrt(variance / spread),
        correlation=float(centred @ own) / math.sqrt(spread) / math.sqrt(total)
        if total > 1e-24 * float(own @ own)
        else math.nan,
    )


def alpha_beta(returns: FloatArray, benchmark_returns: FloatArray, *, periods_per_year: int = 252) -> tuple[float, float]:
    """Return ``alpha`` and ``beta`` of `fit_benchmark`.

    Raises
    ------
    ValueError
        As `fit_benchmark`.
    """
    fit = fit_benchmark(returns, benchmark_returns, periods_per_year=periods_per_year)
    return fit.alpha, fit.beta


def tracking_error(returns: FloatArray, benchmark_returns: FloatArray, *, periods_per_year: int = 252) -> float:
    """Compute the annualised standard deviation (ddof=1) of ``r - b``, as a fraction.

    Raises
    ------
    ValueError
        If an array is not 1-D, has fewer than two values or contains NaN, or the lengths differ.
    """
    own, market = _check_pair(returns, benchmark_returns)
    return volatility(own - market, periods_per_year=periods_per_year)


def information_ratio(returns: FloatArray, benchmark_returns: FloatArray, *, periods_per_year: int = 252) -> float:
    """Compute the annualised ``mean(r - b) / std(r - b)``, ddof=1; NaN when the difference has no variance.

    Raises
    ------
    ValueError
        If an array is not 1-D, has fewer than two values or contains NaN, or the lengths differ.

    Notes
    -----
    The difference is to the benchmark itself, as in [1]_, eq. 4 and 6, not to beta times the benchmark. empyrical, quantstats
    and ffn give the ratio of one period, ours over the square root of `periods_per_year`.

    References
    ----------
    .. [1] Goodwin, T. H. (1998). The information ratio. Financial Analysts Journal, 54(4), 34-43.
    """
    own, market = _check_pair(returns, benchmark_returns)
    return sharpe_ratio(own - market, periods_per_year=periods_per_year)


def align_benchmark(benchmark: pd.Series, index: pd.DatetimeIndex) -> pd.Series:
    """Return the benchmark's returns of the bars of `index` that it knows.

    Parameters
    ----------
    benchmark : Series of float
        Simple returns per bar, indexed by tz-aware time; NaN counts as absent.
    index : DatetimeIndex
        Bars to find.

    Returns
    -------
    Series
        A part of `index`, at least half of it.

    Raises
    ------
    DataError
        If the index of the benchmark is not of unique tz-aware times, a return is infinite or below -1, or fewer than half
        of the bars are known.
    """
    stamps = benchmark.index
    if not isinstance(stamps, pd.DatetimeIndex) or stamps.tz is None or not stamps.is_unique:
        raise DataError(
            "`benchmark` must be a Series of returns indexed by unique tz-aware times (UTC), had an index of "
            f"{type(stamps).__name__} {stamps.dtype}; use `.tz_localize` and drop repeated times."
        )
    known = benchmark.reindex(index).dropna().astype(np.float64)
    if 2 * len(known) < len(index):
        inside = f"{stamps.min()} to {stamps.max()}" if len(stamps) else "nothing"
        raise DataError(
            f"`benchmark` must know at least half of the {len(index)} bars {index[0]} to {index[-1]}, it covers {inside} and "
            f"knows {len(known)}; its times must equal the closes of the bars."
        )
    if not np.isfinite(known.to_numpy()).all() or (known < -1.0).any():
        raise DataError(
            "`benchmark` must hold simple returns as fractions, finite and not below -1; pass `prices.pct_change()`."
        )
    if (known > _LARGEST_RETURN).any():
        raise DataError(
            f"`benchmark` must hold simple returns as fractions, the largest was {known.max():g}: are these prices? "
            "Pass `prices.pct_change()`."
        )
    return known


def _check_pair(returns: FloatArray, benchmark_returns: FloatArray) -> tuple[FloatArray, FloatArray]:
    own, market = check_returns(returns), check_returns(benchmark_returns)
    if len(own) != len(market):
        raise ValueError(f"`benchmark_returns` must have the {len(own)} periods of `returns`, had {len(market)}.")
    return own, market
