"""Reward: what a series of returns earned, and how steadily.

Every function takes simple returns per period as fractions (0.01 is one percent) and gives NaN, never infinity, for a figure
that is not defined.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.errors import DataError

FloatArray = npt.NDArray[np.float64]

_LARGEST_LOG = 700.0
"""exp of it is still a float."""


def total_return(returns: FloatArray) -> float:
    """Compute the compounded return of all periods, ``prod(1 + r) - 1``, as a fraction.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN.
    """
    return float(np.prod(1.0 + check_returns(returns))) - 1.0


def cagr(returns: FloatArray, *, periods_per_year: int = 252) -> float:
    """Compute the compound annual growth rate, ``prod(1 + r)^(periods_per_year / n) - 1``, as a fraction.

    -1 when everything was lost, NaN when so few periods grew so much that no float holds it.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN.
    """
    wealth, years = 1.0 + total_return(returns), len(returns) / periods_per_year
    if wealth <= 0.0:
        return -1.0
    return wealth ** (1.0 / years) - 1.0 if math.log(wealth) / years < _LARGEST_LOG else math.nan


def volatility(returns: FloatArray, *, periods_per_year: int = 252) -> float:
    """Compute the annualised standard deviation, ``std(ddof=1) * sqrt(periods_per_year)``, as a fraction.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN.
    """
    return float(check_returns(returns).std(ddof=1)) * math.sqrt(periods_per_year)


def sharpe_ratio(returns: FloatArray, *, periods_per_year: int = 252) -> float:
    """Compute the annualised Sharpe ratio of excess returns.

    Parameters
    ----------
    returns : ndarray of shape (n_periods,)
        Simple excess returns per period, as fractions (0.01 is one percent).
    periods_per_year : int, default=252
        Periods in a year; 252 for daily bars of US equities.

    Returns
    -------
    float
        ``sharpe_per_period * sqrt(periods_per_year)``; NaN when the returns have no variance.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN.

    Notes
    -----
    Scaling by the square root of time assumes uncorrelated returns [1]_; ddof=1.

    References
    ----------
    .. [1] Lo, A. W. (2002). The statistics of Sharpe ratios. Financial Analysts Journal, 58(4), 36-52.
    """
    return sharpe_per_period(returns) * math.sqrt(periods_per_year)


def sharpe_per_period(returns: FloatArray) -> float:
    """Compute the Sharpe ratio of one period, ``mean / std`` with ddof=1.

    The statistics of `backtest.integrity` take this one. NaN when the returns have no variance.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN.

    References
    ----------
    .. [1] Sharpe, W. F. (1994). The Sharpe ratio. Journal of Portfolio Management, 21(1), 49-58.
    """
    values = check_returns(returns)
    deviation = float(values.std(ddof=1))
    if deviation <= 1e-12 * float(np.abs(values).max()):
        return math.nan
    return float(values.mean()) / deviation


def sortino_ratio(returns: FloatArray, *, periods_per_year: int = 252) -> float:
    """Compute the annualised Sortino ratio with a target of zero.

    ``mean(r) / sqrt(mean(min(r, 0)^2)) * sqrt(periods_per_year)``: the downside deviation is over all periods, not over the
    losing ones only. NaN when no period lost.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN.

    References
    ----------
    .. [1] Sortino, F. A. & Price, L. N. (1994). Performance measurement in a downside risk framework. Journal of
       Investing, 3(3), 59-64.
    """
    values = check_returns(returns)
    downside = math.sqrt(float(np.mean(np.minimum(values, 0.0) ** 2)))
    return float(values.mean()) / downside * math.sqrt(periods_per_year) if downside > 0.0 else math.nan


def win_rate(returns: FloatArray) -> float:
    """Compute the share of positive returns among those that are not zero; NaN when all are zero.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN.
    """
    values = check_returns(returns)
    moved = int(np.count_nonzero(values))
    return int(np.count_nonzero(values > 0.0)) / moved if moved else math.nan


def profit_factor(returns: FloatArray) -> float:
    """Compute the sum of positive returns over the absolute sum of negative ones; NaN when no period lost.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN.
    """
    values = check_returns(returns)
    lost = -float(values[values < 0.0].sum())
    return float(values[values > 0.0].sum()) / lost if lost > 0.0 else math.nan


def omega_ratio(returns: FloatArray, *, threshold: float = 0.0) -> float:
    """Compute the Omega ratio of returns per period.

    ``sum(max(r - threshold, 0)) / sum(max(threshold - r, 0))``, of single periods and therefore not annualised; NaN when no
    return is below the threshold. With a threshold of zero it equals `profit_factor` of periods.

    Parameters
    ----------
    returns : ndarray of shape (n_periods,)
    threshold : float, default=0.0
        Return **per period** that counts as neither gain nor loss; libraries differ here, some take a yearly one.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN.

    References
    ----------
    .. [1] Keating, C. & Shadwick, W. F. (2002). A universal performance measure. Journal of Performance Measurement, 6(3),
       59-84.
    """
    excess = check_returns(returns) - threshold
    short = -float(excess[excess < 0.0].sum())
    return float(excess[excess > 0.0].sum()) / short if short > 0.0 else math.nan


def rolling_sharpe(returns: FloatArray, *, window: int = 126, periods_per_year: int = 252) -> FloatArray:
    """Compute the annualised Sharpe ratio of the trailing window of every period.

    Parameters
    ----------
    returns : ndarray of shape (n_periods,)
    window : int, default=126
        Periods in the window, the current one included.
    periods_per_year : int, default=252

    Returns
    -------
    ndarray of shape (n_periods,)
        `sharpe_ratio` of ``returns[t - window + 1 : t + 1]`` on row ``t``; NaN in the first ``window - 1`` rows and where the
        window has no variance.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN, or `window` is below 2.
    """
    values = check_returns(returns)
    if window < 2:
        raise ValueError(f"`window` must be at least 2 periods, was {window}.")
    out = np.full(len(values), np.nan)
    if window > len(values):
        return out
    parts = np.lib.stride_tricks.sliding_window_view(values, window)
    deviation = parts.std(axis=1, ddof=1)
    moved = deviation > 1e-12 * np.abs(parts).max(axis=1)
    np.divide(parts.mean(axis=1) * math.sqrt(periods_per_year), deviation, out=out[window - 1 :], where=moved)
    return out


def compute_monthly_returns(returns: FloatArray, index: pd.DatetimeIndex) -> pd.DataFrame:
    """Compute the compounded return of every calendar month and year.

    Parameters
    ----------
    returns : ndarray of shape (n_periods,)
    index : DatetimeIndex of length n_periods
        Close of each period; months are those of its own time zone.

    Returns
    -------
    DataFrame
        One row a year, columns 1 to 12 and ``"year"``, fractions; NaN in months without a period. The first and the last
        month and year may be incomplete.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN.
    DataError
        If `index` does not have the length of `returns`.
    """
    values = check_returns(returns)
    if len(index) != len(values):
        raise DataError(f"`index` must have the {len(values)} periods of `returns`, had {len(index)}.")
    growth = pd.Series(1.0 + values)
    years, months = np.asarray(index.year), np.asarray(index.month)
    table = growth.groupby([years, months]).prod().unstack().reindex(columns=range(1, 13)) - 1.0
    table["year"] = growth.groupby(years).prod() - 1.0
    table.index.name, table.columns.name = "year", None
    return table


def check_returns(returns: FloatArray) -> FloatArray:
    """Return `returns` as floats.

    Raises
    ------
    ValueError
        If it is not 1-D, has fewer than two values or contains NaN or infinity.
    """
    values = np.asarray(returns, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"`returns` must be 1-D with at least 2 values, had shape {values.shape}.")
    if not math.isfinite(float(values.sum())):
        raise ValueError("`returns` must be finite; drop or fill missing periods first.")
    return values
