"""Trading: how much was traded, and what each trade brought."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.errors import DataError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TradeMetrics:
    """Hold the figures of a list of trades; those still open count in `n_open` alone.

    Parameters
    ----------
    n_closed, n_open : int
        Trades that ended, and positions still held at the last bar.
    win_rate : float
        Share of closed trades that made a profit after costs.
    profit_factor : float
        Sum of the profits over the sum of the losses; NaN without a loss.
    expectancy : float
        Mean profit of a trade after costs, in the currency of the prices.
    expectancy_return : float
        Mean return of a trade: its profit over the value it began with.
    mean_win, mean_loss : float
        Mean return of the trades that made, and that did not make, a profit.
    mean_bars, median_bars : float
        Bars from opening to closing.
    longest_bars : float
        Of the longest. All floats are NaN where there is no such trade.
    """

    n_closed: int
    n_open: int
    win_rate: float
    profit_factor: float
    expectancy: float
    expectancy_return: float
    mean_win: float
    mean_loss: float
    mean_bars: float
    median_bars: float
    longest_bars: float


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


def summarize_trades(trades: pd.DataFrame) -> TradeMetrics:
    """Compute the figures of a list of trades.

    Parameters
    ----------
    trades : DataFrame
        With at least `pnl`, `return`, `entry_bar` and `exit_bar`; a trade whose `reason`, if there is that column, is
        ``"end"`` is still open and only counted.

    Raises
    ------
    DataError
        If a column is missing.
    """
    missing = [name for name in ("pnl", "return", "entry_bar", "exit_bar") if name not in trades]
    if missing:
        raise DataError(f"a list of trades needs pnl, return, entry_bar and exit_bar; {', '.join(missing)} missing.")
    still = (trades["reason"] == "end").to_numpy() if "reason" in trades else np.zeros(len(trades), dtype=bool)
    pnl, returns, first, last = (
        trades[name].to_numpy(dtype=np.float64)[~still] for name in ("pnl", "return", "entry_bar", "exit_bar")
    )
    bars = last - first
    won = pnl > 0.0
    lost = -float(pnl[~won].sum())
    return TradeMetrics(
        n_closed=len(pnl),
        n_open=int(still.sum()),
        win_rate=_mean(won.astype(np.float64)),
        profit_factor=float(pnl[won].sum()) / lost if lost > 0.0 else math.nan,
        expectancy=_mean(pnl),
        expectancy_return=_mean(returns),
        mean_win=_mean(returns[won]),
        mean_loss=_mean(returns[~won]),
        mean_bars=_mean(bars),
        median_bars=float(np.median(bars)) if len(bars) else math.nan,
        longest_bars=float(bars.max()) if len(bars) else math.nan,
    )


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else math.nan
