"""Risk: how deep a series of returns fell, how wide it scattered, and what its tail looks like.

Every function takes simple returns per period as fractions and gives NaN, never infinity, for a figure that is not defined.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.metrics.returns import cagr, check_returns
from core.errors import DataError

FloatArray = npt.NDArray[np.float64]

_ROUNDING = 1e-12
"""A high that is reached again but for rounding is reached."""


@dataclass(frozen=True, kw_only=True)
class Drawdown:
    """Hold one fall below a high, from that high until it was reached again.

    Parameters
    ----------
    peak : Timestamp or None
        Close of the last period at the high; None when the fall begins with the first period.
    trough : Timestamp
        Close of the period of the lowest wealth.
    recovery : Timestamp or None
        Close of the first period back at the high or above; None when there is none yet.
    depth : float
        ``lowest wealth / high - 1``, negative.
    bars : int
        Periods from the high to the recovery, or to the end.
    bars_to_trough : int
        Periods from the high to the trough.
    """

    peak: pd.Timestamp | None
    trough: pd.Timestamp
    recovery: pd.Timestamp | None
    depth: float
    bars: int
    bars_to_trough: int


def drawdowns(returns: FloatArray) -> FloatArray:
    """Compute the drawdown after each period.

    Parameters
    ----------
    returns : ndarray of shape (n_periods,)

    Returns
    -------
    ndarray of shape (n_periods,), fractions
        ``wealth / highest wealth so far - 1``, zero or negative; the wealth of 1 before the first period counts as high.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN.
    """
    wealth = np.cumprod(1.0 + check_returns(returns))
    result: FloatArray = wealth / np.maximum(np.maximum.accumulate(wealth), 1.0) - 1.0
    return result


def max_drawdown(returns: FloatArray) -> float:
    """Compute the deepest drawdown as a fraction, zero or negative (-0.2 is a loss of a fifth from a high).

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN.

    References
    ----------
    .. [1] Magdon-Ismail, M. & Atiya, A. (2004). Maximum drawdown. Risk Magazine, 17(10), 99-102.
    """
    return float(drawdowns(returns).min())


def list_drawdowns(returns: FloatArray, index: pd.DatetimeIndex, *, count: int | None = None) -> list[Drawdown]:
    """List the falls below a high that do not overlap, deepest first.

    Parameters
    ----------
    returns : ndarray of shape (n_periods,)
    index : DatetimeIndex of length n_periods
    count : int, optional
        The deepest so many; all when None.

    Returns
    -------
    list of Drawdown
        Equal depths in order of time; empty when wealth never fell below its high.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN.
    DataError
        If `index` does not have the length of `returns`.
    """
    depth = drawdowns(returns)
    if len(index) != len(depth):
        raise DataError(f"`index` must have the {len(depth)} periods of `returns`, had {len(index)}.")
    below = np.concatenate([[False], depth < -_ROUNDING, [False]])
    begins, ends = np.flatnonzero(~below[:-1] & below[1:]), np.flatnonzero(below[:-1] & ~below[1:])
    found = []
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        lowest = begin + int(depth[begin:end].argmin())
        recovered = end < len(depth)
        found.append(
            Drawdown(
                peak=index[begin - 1] if begin else None,
                trough=index[lowest],
                recovery=index[end] if recovered else None,
                depth=float(depth[lowest]),
                bars=(end if recovered else end - 1) - begin + 1,
                bars_to_trough=lowest - begin + 1,
            )
        )
    return sorted(found, key=lambda fall: fall.depth)[:count]


def calmar_ratio(returns: FloatArray, *, periods_per_year: int = 252) -> float:
    """Compute ``cagr / |max_drawdown|`` over all periods; NaN without a drawdown.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN.

    Notes
    -----
    Young [1]_ takes the last 36 months; we take all periods given.

    References
    ----------
    .. [1] Young, T. W. (1991). Calmar ratio: a smoother tool. Futures, 20(1), 40.
    """
    deepest = max_drawdown(returns)
    return cagr(returns, periods_per_year=periods_per_year) / -deepest if deepest < 0.0 else math.nan


def skewness(returns: FloatArray) -> float:
    """Compute the skewness ``m3 / m2^1.5`` of population moments; NaN without variance.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN.
    """
    return _standardised_moment(returns, 3)


def kurtosis(returns: FloatArray) -> float:
    """Compute the kurtosis ``m4 / m2^2`` of population moments, 3 for a normal distribution; NaN without variance.

    This is Pearson's kurtosis, not the excess over 3: the one the Sharpe ratio's standard error takes.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN.
    """
    return _standardised_moment(returns, 4)


def value_at_risk(returns: FloatArray, *, level: float = 0.05) -> float:
    """Compute the historical value at risk: the `level` quantile of the returns, negative for a loss.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN, or `level` is not in (0, 1).
    """
    return float(np.quantile(check_returns(returns), _check_level(level)))


def conditional_value_at_risk(returns: FloatArray, *, level: float = 0.05) -> float:
    """Compute the expected shortfall: the mean of the returns that do not exceed the value at risk.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN, or `level` is not in (0, 1).

    References
    ----------
    .. [1] Rockafellar, R. T. & Uryasev, S. (2000). Optimization of conditional value-at-risk. Journal of Risk, 2(3), 21-41.
    """
    values = check_returns(returns)
    return float(values[values <= np.quantile(values, _check_level(level))].mean())


def _check_level(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise ValueError(f"`level` must be in (0, 1), was {level!r}.")
    return level


def _standardised_moment(returns: FloatArray, order: int) -> float:
    values = check_returns(returns)
    centred = values - values.mean()
    variance = float(np.mean(centred**2))
    if variance <= (1e-12 * float(np.abs(values).max())) ** 2:
        return math.nan
    return float(np.mean((centred / math.sqrt(variance)) ** order))
