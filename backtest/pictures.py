"""Which pictures a report of a backtest has, and what each is drawn from."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from backtest import charts
from backtest.engine import BacktestResult
from backtest.metrics import HorizonIC, QuantileReturns, compute_monthly_returns, rolling_sharpe
from backtest.trades import OPEN

_LONG_WINDOW, _SHORT_WINDOW = 126, 21


def draw_report(
    result: BacktestResult,
    known: pd.Series | None,
    name: str | None,
    decay: tuple[HorizonIC, ...],
    quantiles: QuantileReturns | None,
    trades: pd.DataFrame | None,
) -> dict[str, bytes]:
    """Draw every picture that the parts of a report allow, by name.

    Parameters
    ----------
    known : Series or None
        Returns of the benchmark at the bars it knows, called `name`.
    decay, quantiles, trades
        As in `backtest.report.BacktestReport`.
    """
    index, periods_per_year = result.index, result.config.periods_per_year
    equity = {"strategy": pd.Series(result.equity, index)}
    if known is not None and name is not None:
        growth = (1.0 + known).cumprod()
        equity[name if name != "strategy" else "benchmark"] = growth / growth.iloc[0]
    pictures = {
        "equity": charts.draw_equity(equity, log=charts.needs_log_scale(equity)),
        "drawdown": charts.draw_drawdown(equity),
    }
    window = _LONG_WINDOW if len(index) >= 2 * _LONG_WINDOW else _SHORT_WINDOW
    rolling = pd.Series(rolling_sharpe(result.net_returns, window=window, periods_per_year=periods_per_year), index)
    if rolling.notna().sum() > 1:
        whole = result.metrics["sharpe"]
        pictures["rolling_sharpe"] = charts.draw_rolling_sharpe(rolling, window=window, whole=whole)
    pictures["monthly_returns"] = charts.draw_monthly_returns(compute_monthly_returns(result.net_returns, index))
    marks = {"mean": float(result.net_returns.mean())}
    tail = {"value at risk": result.metrics["var_95"], "expected shortfall": result.metrics["cvar_95"]}
    marks |= {key: value for key, value in tail.items() if value is not None}
    pictures["distribution"] = charts.draw_distribution(result.net_returns, marks=marks)
    pictures["exposure"] = charts.draw_exposure(pd.Series(result.exposure, index), pd.Series(result.net_exposure, index))
    pictures["turnover"] = charts.draw_turnover(pd.Series(result.turnover, index), periods_per_year=periods_per_year)
    if any(math.isfinite(one.mean) for one in decay):
        pictures["rank_ic_decay"] = charts.draw_rank_ic_decay(decay)
    if quantiles is not None and any(math.isfinite(mean) for mean in quantiles.means):
        pictures["quantiles"] = charts.draw_quantiles(quantiles)
    if trades is not None:
        closed = trades[trades["reason"] != OPEN] if "reason" in trades else trades
        if len(closed):
            profit = pd.Series(closed["pnl"].to_numpy(dtype=np.float64), pd.DatetimeIndex(closed["exit_time"]))
            pictures["trades"] = charts.draw_trades(profit / result.equity[0])
    return pictures
