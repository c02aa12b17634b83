"""Figures of a series of returns: reward, risk, trading, skill.

Every function is pure and takes simple returns per period as fractions (0.01 is one percent). Promises a formula and a
source in each docstring, and NaN, never infinity, for a figure that is not defined. A wrong argument is a ValueError.
"""

from backtest.metrics.relation import (
    BenchmarkFit,
    align_benchmark,
    alpha_beta,
    fit_benchmark,
    information_ratio,
    tracking_error,
)
from backtest.metrics.returns import (
    cagr,
    compute_monthly_returns,
    omega_ratio,
    profit_factor,
    rolling_sharpe,
    sharpe_per_period,
    sharpe_ratio,
    sortino_ratio,
    total_return,
    volatility,
    win_rate,
)
from backtest.metrics.risk import (
    Drawdown,
    calmar_ratio,
    conditional_value_at_risk,
    drawdowns,
    kurtosis,
    list_drawdowns,
    max_drawdown,
    skewness,
    value_at_risk,
)
from backtest.metrics.skill import (
    DECAY_HORIZONS,
    MIN_RANKED,
    HorizonIC,
    QuantileReturns,
    compute_forward_returns,
    compute_quantile_returns,
    compute_rank_ic,
    compute_rank_ic_decay,
    mean_t_statistic,
)
from backtest.metrics.summary import Metrics, compute_metrics
from backtest.metrics.trading import TradeMetrics, annual_turnover, summarize_trades

__all__ = [
    "DECAY_HORIZONS",
    "MIN_RANKED",
    "BenchmarkFit",
    "Drawdown",
    "HorizonIC",
    "Metrics",
    "QuantileReturns",
    "TradeMetrics",
    "align_benchmark",
    "alpha_beta",
    "annual_turnover",
    "cagr",
    "calmar_ratio",
    "compute_forward_returns",
    "compute_metrics",
    "compute_monthly_returns",
    "compute_quantile_returns",
    "compute_rank_ic",
    "compute_rank_ic_decay",
    "conditional_value_at_risk",
    "drawdowns",
    "fit_benchmark",
    "information_ratio",
    "kurtosis",
    "list_drawdowns",
    "max_drawdown",
    "mean_t_statistic",
    "omega_ratio",
    "profit_factor",
    "rolling_sharpe",
    "sharpe_per_period",
    "sharpe_ratio",
    "skewness",
    "sortino_ratio",
    "summarize_trades",
    "total_return",
    "tracking_error",
    "value_at_risk",
    "volatility",
    "win_rate",
]
