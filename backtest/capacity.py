"""How much capital a strategy carries before its own orders eat its profit, or find no volume.

Promises closed forms over one run: nothing is searched, and equal inputs give equal figures.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from backtest.config import BacktestConfig
from backtest.engine import run_backtest
from backtest.execution import prepare_liquidity
from core.errors import ConfigurationError
from core.market.panel import Panel

FloatArray = npt.NDArray[np.float64]

_DEFAULT = BacktestConfig()


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """Hold the capital a strategy carries, and what was assumed.

    Parameters
    ----------
    capital : float or None
        The smaller of the two below; None when neither is defined.
    binds : {"impact", "participation"} or None
        Which of the two it is.
    impact_capital : float or None, currency
        Capital at which impact eats `profit_share` of the gross profit; None without gross profit or priced trades.
    participation_capital : float or None, currency
        Capital at which `unfilled_share` of the traded value exceeds the volume limit; None without a limit or trades.
    gross_profit : float, fraction
        Sum of the gross returns of the run.
    impact_coefficient : float
    participation_limit : float or None
    profit_share, unfilled_share : float
    """

    capital: float | None
    binds: Literal["impact", "participation"] | None
    impact_capital: float | None
    participation_capital: float | None
    gross_profit: float
    impact_coefficient: float
    participation_limit: float | None
    profit_share: float
    unfilled_share: float

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as a JSON-safe dict."""
        return asdict(self)


def estimate_capacity(
    panel: Panel,
    weights: npt.ArrayLike,
    config: BacktestConfig = _DEFAULT,
    *,
    profit_share: float = 0.5,
    unfilled_share: float = 0.05,
    impact_coefficient: float | None = None,
    participation_limit: float | None = None,
) -> Capacity:
    """Estimate the capital at which trading a strategy stops paying.

    Parameters
    ----------
    panel : Panel
        Needs `volume`.
    weights : array_like of shape (n_bars, n_assets), fractions of equity
        As for `run_backtest`.
    config : BacktestConfig, optional
        Its `initial_cash` does not matter.
    profit_share : float, default=0.5
        Part of the gross profit that impact may eat, in (0, 1].
    unfilled_share : float, default=0.05
        Part of the traded value that may lie beyond the volume limit, in [0, 1); 0 for the first order to exceed it.
    impact_coefficient : float, optional
        When None: that of `config`, or 1 where it is off.
    participation_limit : float, optional
        When None: that of `config`; where that is off too, volume limits nothing.

    Returns
    -------
    Capacity

    Raises
    ------
    ConfigurationError
        If an argument is out of its range.
    MissingDataError
        If the panel has no volume.
    DataError, ShapeError
        As `run_backtest`.

    Notes
    -----
    One run without impact, limit, lots and minimum commission gives the orders as fractions ``x`` of equity. With capital
    ``C`` at every bar, an order is ``C * x / price`` shares, and by the square-root law [1]_ costs the fraction
    ``x * c * volatility * sqrt(C * x / (price * volume))`` of it. Summed over all orders that is ``sqrt(C) * A``, which
    equals ``profit_share`` of the gross profit ``G``, the sum of gross returns, at

        ``C = (profit_share * G / A) ** 2``.

    It is the capital of every bar, not the first: profits are taken out, losses are refilled. Volatility and volume are those
    of `BacktestConfig`. Orders that the engine would not fill, for want of volume or of a known volatility, cost no impact.

    An order is filled up to ``L * price * volume / C`` of equity. The unfilled part of the traded value grows with ``C``, and
    is ``T - B / C`` with the sums over the orders beyond the limit of ``x`` in ``T`` and of ``L * price * volume`` in ``B``;
    the capital at which it reaches its share is where that line meets it. An order without volume is never filled.

    The capital that leaves the most money, the maximum of ``C * G - C ** 1.5 * A``, is where impact eats two thirds of the
    profit; half is the more cautious convention.

    References
    ----------
    .. [1] Torre, N. (1997). Barra market impact model handbook. Barra, Berkeley.
    """
    coefficient = impact_coefficient if impact_coefficient is not None else config.impact_coefficient or 1.0
    limit = participation_limit if participation_limit is not None else config.participation_limit
    assumed = replace(config, impact_coefficient=coefficient, participation_limit=limit)
    if not 0.0 < profit_share <= 1.0:
        raise ConfigurationError(f"`profit_share` must be in (0, 1], was {profit_share!r}.")
    if not 0.0 <= unfilled_share < 1.0:
        raise ConfigurationError(f"`unfilled_share` must be in [0, 1), was {unfilled_share!r}.")
    if coefficient == 0.0:
        raise ConfigurationError("`impact_coefficient` must be positive: without impact there is no capacity to estimate.")

    unlimited = replace(config, impact_coefficient=0.0, participation_limit=None, lot_size=None, minimum_commission=0.0)
    volume, volatility = prepare_liquidity(panel, assumed)
    result = run_backtest(panel, weights, unlimited, keep_positions=True)
    assert result.positions is not None
    price = panel.get(config.fill)
    orders = np.nan_to_num(np.abs(np.diff(result.positions, axis=0, prepend=0.0)) * price)
    traded = orders.sum(axis=1, keepdims=True)
    parts = np.divide(orders * result.turnover[:, None], traded, out=np.zeros(panel.shape), where=traded > 0.0)
    money = np.nan_to_num(volume * price)

    priced = (parts > 0.0) & (money > 0.0) & np.isfinite(volatility)
    eaten = coefficient * float(np.sum(volatility[priced] * parts[priced] ** 1.5 / np.sqrt(money[priced])))
    profit = float(result.gross_returns.sum())
    impact_capital = (profit_share * profit / eaten) ** 2 if eaten > 0.0 and profit > 0.0 else None
    held_back = None if limit is None else _solve_participation(parts[parts > 0.0], limit * money[parts > 0.0], unfilled_share)
    candidates: list[tuple[float, Literal["impact", "participation"]]] = []
    if impact_capital is not None:
        candidates.append((impact_capital, "impact"))
    if held_back is not None:
        candidates.append((held_back, "participation"))
    capital, binds = min(candidates, default=(None, None))
    return Capacity(
        capital=capital,
        binds=binds,
        impact_capital=impact_capital,
        participation_capital=held_back,
        gross_profit=profit,
        impact_coefficient=coefficient,
        participation_limit=limit,
        profit_share=profit_share,
        unfilled_share=unfilled_share,
    )


def _solve_participation(parts: FloatArray, room: FloatArray, unfilled_share: float) -> float | None:
    """Find the capital at which ``sum(max(parts - room / capital, 0))`` is `unfilled_share` of ``sum(parts)``."""
    if len(parts) == 0:
        return None
    order = np.argsort(room / parts, kind="stable")
    starts = (room / parts)[order]  # the capital at which each order meets the limit
    if unfilled_share == 0.0:
        return float(starts[0])
    allowed = unfilled_share * float(parts.sum())
    beyond, filled = np.cumsum(parts[order]), np.cumsum(room[order])
    over = beyond > allowed
    meets = filled[over] / (beyond[over] - allowed)
    ends = np.append(starts[1:], math.inf)[over]
    return float(meets[int(np.argmax(meets <= ends))])
