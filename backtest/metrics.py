"""Figures of a series of returns: reward, risk, trading, skill.

Every function is pure and takes simple returns per period as fractions (0.01 is one percent). Promises a formula and a
source in each docstring, and NaN, never infinity, for a figure that is not defined. A wrong argument is a ValueError.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from backtest.costs import annual_cost, break_even_cost_bps
from backtest.ranks import compute_row_ranks

FloatArray = npt.NDArray[np.float64]
Metrics = dict[str, float | int | None]

MIN_RANKED = 3


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
    values = _check_returns(returns)
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
    values = _check_returns(returns)
    downside = math.sqrt(float(np.mean(np.minimum(values, 0.0) ** 2)))
    return float(values.mean()) / downside * math.sqrt(periods_per_year) if downside > 0.0 else math.nan


def total_return(returns: FloatArray) -> float:
    """Compute the compounded return of all periods, ``prod(1 + r) - 1``, as a fraction.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN.
    """
    return float(np.prod(1.0 + _check_returns(returns))) - 1.0


def cagr(returns: FloatArray, *, periods_per_year: int = 252) -> float:
    """Compute the compound annual growth rate, ``prod(1 + r)^(periods_per_year / n) - 1``, as a fraction.

    -1 when everything was lost.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN.
    """
    wealth = 1.0 + total_return(returns)
    return wealth ** (periods_per_year / len(returns)) - 1.0 if wealth > 0.0 else -1.0


def volatility(returns: FloatArray, *, periods_per_year: int = 252) -> float:
    """Compute the annualised standard deviation, ``std(ddof=1) * sqrt(periods_per_year)``, as a fraction.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN.
    """
    return float(_check_returns(returns).std(ddof=1)) * math.sqrt(periods_per_year)


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
    wealth = np.cumprod(1.0 + _check_returns(returns))
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
    return float(np.quantile(_check_returns(returns), _check_level(level)))


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
    values = _check_returns(returns)
    return float(values[values <= np.quantile(values, _check_level(level))].mean())


def win_rate(returns: FloatArray) -> float:
    """Compute the share of positive returns among those that are not zero; NaN when all are zero.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN.
    """
    values = _check_returns(returns)
    moved = int(np.count_nonzero(values))
    return int(np.count_nonzero(values > 0.0)) / moved if moved else math.nan


def profit_factor(returns: FloatArray) -> float:
    """Compute the sum of positive returns over the absolute sum of negative ones; NaN when no period lost.

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than two values or contains NaN.
    """
    values = _check_returns(returns)
    lost = -float(values[values < 0.0].sum())
    return float(values[values > 0.0].sum()) / lost if lost > 0.0 else math.nan


def annual_turnover(turnover: FloatArray, *, periods_per_year: int = 252) -> float:
    """Compute the value traded in a year, buys and sales both counted, in multiples of equity.

    Parameters
    ----------
    turnover : ndarray of shape (n_periods,), fractions of equity
    periods_per_year : int, default=252

    Returns
    -------
    float
        ``mean(turnover) * periods_per_year``.
    """
    return float(np.mean(turnover)) * periods_per_year


def alpha_beta(returns: FloatArray, benchmark_returns: FloatArray, *, periods_per_year: int = 252) -> tuple[float, float]:
    """Regress returns on those of a benchmark by ordinary least squares.

    Parameters
    ----------
    returns, benchmark_returns : ndarray of shape (n_periods,)
        Excess returns of the same periods.
    periods_per_year : int, default=252

    Returns
    -------
    alpha : float
        ``(mean(r) - beta * mean(b)) * periods_per_year``, a fraction per year.
    beta : float
        ``cov(r, b) / var(b)``. Both NaN when the benchmark has no variance.

    Raises
    ------
    ValueError
        If an array is not 1-D, has fewer than two values or contains NaN, or the lengths differ.

    Notes
    -----
    Jensen's alpha [1]_ is annualised by multiplication, as a mean is; empyrical compounds it.

    References
    ----------
    .. [1] Jensen, M. C. (1968). The performance of mutual funds in the period 1945-1964. Journal of Finance, 23(2), 389-416.
    """
    own, market = _check_returns(returns), _check_returns(benchmark_returns)
    if len(own) != len(market):
        raise ValueError(f"`benchmark_returns` must have the {len(own)} periods of `returns`, had {len(market)}.")
    centred = market - market.mean()
    spread = float(centred @ centred)
    if spread == 0.0:
        return math.nan, math.nan
    beta = float(centred @ own) / spread
    return (float(own.mean()) - beta * float(market.mean())) * periods_per_year, beta


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


def mean_t_statistic(values: npt.ArrayLike) -> float:
    """Compute ``mean / (std / sqrt(n))`` of the finite values, ddof=1; NaN for fewer than two or without variance.

    Assumes uncorrelated values, as the rank information coefficients of non-overlapping one-bar returns nearly are.
    """
    array = np.asarray(values, np.float64)
    array = array[np.isfinite(array)]
    return sharpe_per_period(array) * math.sqrt(len(array)) if len(array) > 1 else math.nan


def compute_metrics(
    net_returns: FloatArray,
    *,
    gross_returns: FloatArray | None = None,
    turnover: FloatArray | None = None,
    costs: FloatArray | None = None,
    exposure: FloatArray | None = None,
    net_exposure: FloatArray | None = None,
    n_trades: int | None = None,
    benchmark_returns: FloatArray | None = None,
    periods_per_year: int = 252,
) -> Metrics:
    """Compute every figure of this module that the arguments allow.

    Parameters
    ----------
    net_returns : ndarray of shape (n_periods,), fractions
        Returns after costs.
    gross_returns, turnover, costs, exposure, net_exposure : ndarray of shape (n_periods,), optional
        As in `BacktestResult`.
    n_trades : int, optional
        Orders filled.
    benchmark_returns : ndarray of shape (n_periods,), optional
        For `alpha` and `beta`.
    periods_per_year : int, default=252

    Returns
    -------
    dict of str to float, int or None
        Safe for JSON: None where a figure is not defined or its input is absent, never NaN or infinity. The keys are always
        the same.

    Raises
    ------
    ValueError
        If a series of returns is not 1-D, has fewer than two values or contains NaN.
    """
    alpha = beta = None
    if benchmark_returns is not None:
        alpha, beta = alpha_beta(net_returns, benchmark_returns, periods_per_year=periods_per_year)
    traded = gross_returns is not None and turnover is not None
    figures: Metrics = {
        "total_return": total_return(net_returns),
        "cagr": cagr(net_returns, periods_per_year=periods_per_year),
        "volatility": volatility(net_returns, periods_per_year=periods_per_year),
        "sharpe": sharpe_ratio(net_returns, periods_per_year=periods_per_year),
        "sharpe_per_period": sharpe_per_period(net_returns),
        "gross_sharpe": None if gross_returns is None else sharpe_ratio(gross_returns, periods_per_year=periods_per_year),
        "sortino": sortino_ratio(net_returns, periods_per_year=periods_per_year),
        "max_drawdown": max_drawdown(net_returns),
        "calmar": calmar_ratio(net_returns, periods_per_year=periods_per_year),
        "skew": skewness(net_returns),
        "kurtosis": kurtosis(net_returns),
        "var_95": value_at_risk(net_returns),
        "cvar_95": conditional_value_at_risk(net_returns),
        "win_rate": win_rate(net_returns),
        "profit_factor": profit_factor(net_returns),
        "turnover": None if turnover is None else annual_turnover(turnover, periods_per_year=periods_per_year),
        "annual_cost": None if costs is None else annual_cost(costs, periods_per_year=periods_per_year),
        "break_even_bps": break_even_cost_bps(gross_returns, turnover) if traded else None,  # type: ignore[arg-type]
        "exposure": None if exposure is None else float(np.mean(exposure)),
        "net_exposure": None if net_exposure is None else float(np.mean(net_exposure)),
        "alpha": alpha,
        "beta": beta,
        "n_trades": n_trades,
        "n_obs": len(net_returns),
    }
    return {name: None if value is None or not math.isfinite(value) else value for name, value in figures.items()}


def _check_returns(returns: FloatArray) -> FloatArray:
    values = np.asarray(returns, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"`returns` must be 1-D with at least 2 values, had shape {values.shape}.")
    if not math.isfinite(float(values.sum())):
        raise ValueError("`returns` must be finite; drop or fill missing periods first.")
    return values


def _check_level(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise ValueError(f"`level` must be in (0, 1), was {level!r}.")
    return level


def _standardised_moment(returns: FloatArray, order: int) -> float:
    values = _check_returns(returns)
    centred = values - values.mean()
    variance = float(np.mean(centred**2))
    if variance <= (1e-12 * float(np.abs(values).max())) ** 2:
        return math.nan
    return float(np.mean((centred / math.sqrt(variance)) ** order))
