"""What the rule of a use case gave on the bars before it was traded.

Promises that no bar at or after the first that is traded is read.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np

from agents.trading.ares import AresConfig
from agents.trading.direction import is_negative
from agents.trading.expectations import Expectation
from core.market.panel import Panel
from features.labels import triple_barrier
from use_cases.base import StrategyUseCase

RECORD_BARS = 1260
"""Bars whose signals are looked at: five years of daily ones."""

_HOLDING_BARS = 126
_COST = 2 * 5e-4


def compute_expectation(case: StrategyUseCase, panel: Panel, begin: datetime) -> Expectation | None:
    """Compute what a trade of a use case brought, net, in the five years before.

    .. warning:: Decided at the close of a bar, entered at the close of the next, left where the bracket of Ares is touched or
       126 bars later; 5 basis points are paid each way. Nothing at or after `begin` is read, by labels neither.

    Parameters
    ----------
    case : StrategyUseCase
    panel : Panel
        Bars to read; those before the record are history that the use case looks back on.
    begin : datetime
        First bar that is traded, UTC.

    Returns
    -------
    Expectation or None
        None where the rule told nothing to buy before, or no such trade was over.

    Notes
    -----
    Trades that were not over at `begin` are left out, so that of the last ones the quick are over-represented.
    """
    config = AresConfig()
    stop = int(panel.index.searchsorted(begin))
    history = panel.slice(0, stop)
    if history.n_bars < 2:
        return None
    labels = triple_barrier(
        history,
        take_profit=config.stop_loss * config.take_profit_multiple,
        stop_loss=config.stop_loss,
        horizon=_HOLDING_BARS,
    )
    decided, returns = [], []
    for bar in range(max(1, stop - RECORD_BARS), stop):
        at, before = history.index[bar].to_pydatetime(), history.index[bar - 1].to_pydatetime()
        for signal in case.raw_signals(at, since=before, panel=history):
            ticker = next(iter(signal.affected_tickers), None)
            if ticker not in history.symbols or is_negative(signal):
                continue
            value = labels.returns[bar, history.symbols.index(ticker)]
            if np.isfinite(value):
                decided.append(at)
                returns.append(value)
    if not returns:
        return None
    return Expectation(
        strategy_id=case.name,
        return_per_trade=float(np.mean(returns)) - _COST,
        n_trades=len(returns),
        first=decided[0],
        last=decided[-1],
    )
