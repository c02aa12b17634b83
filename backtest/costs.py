"""What trading costs, measured on a finished run.

The costs themselves are charged inside the kernels of `backtest.engine`; here is what they amount to.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def break_even_cost_bps(gross_returns: FloatArray, turnover: FloatArray) -> float:
    """Compute the cost per side of a trade at which the gross profit is eaten.

    Parameters
    ----------
    gross_returns : ndarray of shape (n_bars,), fractions
        Returns before all costs.
    turnover : ndarray of shape (n_bars,), fractions of equity
        Traded value over equity, buys and sales both counted.

    Returns
    -------
    float
        ``1e4 * sum(gross_returns) / sum(turnover)`` in basis points; negative when the gross profit is, NaN when
        nothing was traded.

    Notes
    -----
    Linear in the cost: compounding is ignored, which at daily bars shifts the figure by less than a percent of itself.
    Borrow is not a cost of trading and is left out.
    """
    traded = float(np.sum(turnover))
    return 1e4 * float(np.sum(gross_returns)) / traded if traded > 0.0 else math.nan


def annual_cost(costs: FloatArray, *, periods_per_year: int = 252) -> float:
    """Compute the mean yearly cost as a fraction of equity.

    Parameters
    ----------
    costs : ndarray of shape (n_bars,), fractions of the equity at the previous close
        All costs of each bar, as in `BacktestResult`.
    periods_per_year : int, default=252

    Returns
    -------
    float
        ``mean(costs) * periods_per_year``.
    """
    return float(np.mean(costs)) * periods_per_year


def realised_cost_bps(costs: FloatArray, turnover: FloatArray) -> float:
    """Compute what trading cost in a run, per side of a trade: the figure to hold beside the break-even cost.

    Parameters
    ----------
    costs : ndarray of shape (n_bars,), fractions
        Commission, slippage and impact of each bar together; borrow and interest are no costs of trading.
    turnover : ndarray of shape (n_bars,), fractions of equity
        Traded value over equity, buys and sales both counted.

    Returns
    -------
    float
        ``1e4 * sum(costs) / sum(turnover)`` in basis points; NaN when nothing was traded.
    """
    traded = float(np.sum(turnover))
    return 1e4 * float(np.sum(costs)) / traded if traded > 0.0 else math.nan
