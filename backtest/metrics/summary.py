"""Every figure of a run at once, safe for JSON."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from backtest.costs import annual_cost, break_even_cost_bps
from backtest.metrics.relation import fit_benchmark, information_ratio, tracking_error
from backtest.metrics.returns import (
    cagr,
    omega_ratio,
    profit_factor,
    sharpe_per_period,
    sharpe_ratio,
    sortino_ratio,
    total_return,
    volatility,
    win_rate,
)
from backtest.metrics.risk import (
    calmar_ratio,
    conditional_value_at_risk,
    kurtosis,
    max_drawdown,
    skewness,
    value_at_risk,
)
from backtest.metrics.trading import annual_turnover

FloatArray = npt.NDArray[np.float64]
Metrics = dict[str, float | int | None]


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
    """Compute every figure of `backtest.metrics` that the arguments allow.

    Parameters
    ----------
    net_returns : ndarray of shape (n_periods,), fractions
        Returns after costs.
    gross_returns, turnover, costs, exposure, net_exposure : ndarray of shape (n_periods,), optional
        As in `BacktestResult`.
    n_trades : int, optional
        Orders filled.
    benchmark_returns : ndarray of shape (n_periods,), optional
        For `alpha`, `beta`, their t-statistics, `benchmark_correlation`, `tracking_error` and `information_ratio`.
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
    year, market = periods_per_year, benchmark_returns
    fit = None if market is None else fit_benchmark(net_returns, market, periods_per_year=year)
    traded = gross_returns is not None and turnover is not None
    figures: Metrics = {
        "total_return": total_return(net_returns),
        "cagr": cagr(net_returns, periods_per_year=year),
        "volatility": volatility(net_returns, periods_per_year=year),
        "sharpe": sharpe_ratio(net_returns, periods_per_year=year),
        "sharpe_per_period": sharpe_per_period(net_returns),
        "gross_sharpe": None if gross_returns is None else sharpe_ratio(gross_returns, periods_per_year=year),
        "sortino": sortino_ratio(net_returns, periods_per_year=year),
        "omega": omega_ratio(net_returns),
        "max_drawdown": max_drawdown(net_returns),
        "calmar": calmar_ratio(net_returns, periods_per_year=year),
        "skew": skewness(net_returns),
        "kurtosis": kurtosis(net_returns),
        "var_95": value_at_risk(net_returns),
        "cvar_95": conditional_value_at_risk(net_returns),
        "win_rate": win_rate(net_returns),
        "profit_factor": profit_factor(net_returns),
        "turnover": None if turnover is None else annual_turnover(turnover, periods_per_year=year),
        "annual_cost": None if costs is None else annual_cost(costs, periods_per_year=year),
        "break_even_bps": break_even_cost_bps(gross_returns, turnover) if traded else None,  # type: ignore[arg-type]
        "exposure": None if exposure is None else float(np.mean(exposure)),
        "net_exposure": None if net_exposure is None else float(np.mean(net_exposure)),
        "alpha": None if fit is None else fit.alpha,
        "alpha_t": None if fit is None else fit.alpha_t,
        "beta": None if fit is None else fit.beta,
        "beta_t": None if fit is None else fit.beta_t,
        "benchmark_correlation": None if fit is None else fit.correlation,
        "tracking_error": None if market is None else tracking_error(net_returns, market, periods_per_year=year),
        "information_ratio": None if market is None else information_ratio(net_returns, market, periods_per_year=year),
        "n_trades": n_trades,
        "n_obs": len(net_returns),
    }
    return {name: None if value is None or not math.isfinite(value) else value for name, value in figures.items()}
