"""Pictures of a backtest as PNG bytes.

Promises pictures 900 pixels wide, whose first line lies on top of the others and whose colours are told apart by
colour-blind readers.
"""

from backtest.charts.bars import (
    draw_distribution,
    draw_monthly_returns,
    draw_quantiles,
    draw_rank_ic_by_year,
    draw_rank_ic_decay,
)
from backtest.charts.canvas import PALETTE
from backtest.charts.series import (
    draw_drawdown,
    draw_equity,
    draw_exposure,
    draw_rolling_sharpe,
    draw_trades,
    draw_turnover,
    needs_log_scale,
)

__all__ = [
    "PALETTE",
    "draw_distribution",
    "draw_drawdown",
    "draw_equity",
    "draw_exposure",
    "draw_monthly_returns",
    "draw_quantiles",
    "draw_rank_ic_by_year",
    "draw_rank_ic_decay",
    "draw_rolling_sharpe",
    "draw_trades",
    "draw_turnover",
    "needs_log_scale",
]
