"""The walk-forward judgement of scores: choose on the past, be judged on what follows, pay for every switch.

Promises that nothing of a test part touches the choice that trades it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from backtest.config import BacktestConfig
from backtest.costs import break_even_cost_bps
from backtest.engine import BacktestResult, run_backtest
from backtest.metrics import compute_rank_ic, mean_t_statistic, sharpe_ratio
from backtest.portfolio import Method, average_targets, compute_targets
from backtest.splits import IntArray, WalkForward
from core.errors import ConfigurationError, DataError, ShapeError
from core.market.panel import Panel

FloatArray = npt.NDArray[np.float64]

HOLDING_GRID = (1, 2, 5, 10, 21)
_DEFAULT = BacktestConfig()


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Hold one fold of a walk-forward run.

    Parameters
    ----------
    train, test : slice
        Positions of the bars.
    holding_bars : int
        The choice made on the training part.
    train_sharpe : float or None
        Its annualised net Sharpe ratio there; None when nothing was traded.
    """

    train: slice
    test: slice
    holding_bars: int
    train_sharpe: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class WalkForwardResult:
    """Hold what a walk-forward run gave.

    Parameters
    ----------
    result : BacktestResult
        The test bars only, of one run over the stitched weights.
    weights : ndarray of shape (n_test_bars, n_assets), fractions of equity
        What was decided at each test bar.
    folds : tuple of Fold
    final_holding_bars : int
        The choice made on all bars: what one would trade from here on.
    rank_ic : ndarray of shape (n_test_bars,)
        Spearman's correlation between the scores of ``t`` and the returns from close ``t+1`` to close ``t+2``, on row ``t``;
        NaN where it is not known, always so in the last two rows.
    rank_ic_mean, rank_ic_t : float or None
        Mean of the above and its t-statistic.
    rank_ic_by_year : mapping of int to float
        Mean by year of the score.
    gross_sharpe, net_sharpe : float or None
        Annualised, out of sample, before and after costs; None when nothing was traded.
    break_even_bps : float or None
        Cost per side of a trade at which the out-of-sample gross profit is eaten.
    """

    result: BacktestResult
    weights: FloatArray
    folds: tuple[Fold, ...]
    final_holding_bars: int
    rank_ic: FloatArray
    rank_ic_mean: float | None
    rank_ic_t: float | None
    rank_ic_by_year: Mapping[int, float]
    gross_sharpe: float | None
    net_sharpe: float | None
    break_even_bps: float | None


def run_walk_forward(
    panel: Panel,
    scores: npt.ArrayLike,
    config: BacktestConfig = _DEFAULT,
    splits: WalkForward | None = None,
    holding_grid: Sequence[int] = HOLDING_GRID,
    *,
    method: Method = "cross_section",
    gross: float = 1.0,
    keep_positions: bool = False,
) -> WalkForwardResult:
    """Judge scores out of sample.

    .. warning::

        ==========================  =========================================================================
        close of ``train.stop - 1``  the holding period of the fold is chosen, by net Sharpe ratio of bars
                                     ``train.start .. train.stop - 1``, all of whose fills and prices are past
        close of ``t`` in the test   weights of row ``t`` are decided: the mean of the targets of the last
                                     `holding_bars` bars, which may reach back before the test
        bar ``t+1``                  they are traded, at the close or the open as ``config.fill`` says
        close ``t+1`` to ``t+2``     the return that the rank IC of row ``t`` is measured against
        ==========================  =========================================================================

        The first test bar earns nothing, since nothing was held before it; between folds positions are kept and only
        the difference is traded, so that every change of the holding period is paid for.

    Parameters
    ----------
    panel : Panel
    scores : array_like of shape (n_bars, n_assets)
        Known at the close of their bar.
    config : BacktestConfig, optional
    splits : WalkForward, optional
        When None: the first 40 % of the bars train first, then ten anchored folds.
    holding_grid : sequence of int, default=(1, 2, 5, 10, 21)
        Holding periods to choose from. Equal Sharpe ratios, and a training part without trades, choose the earlier.
    method, gross
        As in `scores_to_weights`.
    keep_positions : bool, default=False
        As in `run_backtest`.

    Returns
    -------
    WalkForwardResult

    Raises
    ------
    ShapeError
        If `scores` does not have the shape of the panel.
    DataError
        If prices are wrong, a score is infinite, or there are too few bars for the splits.
    ConfigurationError
        If `holding_grid` is empty or holds a number below 1.

    Notes
    -----
    Each holding period is run once over all bars and its training returns are cut out of that run: a return of the training
    part depends on nothing after it, so that this equals a run over the past alone. With rolling training the run-up before
    ``train.start`` is held, not bought anew.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != panel.shape:
        raise ShapeError(f"`scores` must have the panel's shape (n_bars, n_assets) = {panel.shape}, was {values.shape}.")
    if not holding_grid:
        raise ConfigurationError("`holding_grid` must name at least one holding period.")
    if splits is None:
        splits = WalkForward(max(2, int(0.4 * panel.n_bars)), max(1, int(0.06 * panel.n_bars)))
    parts = [(_span(train), _span(test)) for train, test in splits.split(panel.n_bars)]
    first = parts[0][1].start
    if panel.n_bars - first < 2:
        raise DataError(f"walk-forward needs at least 2 test bars, the splits leave {panel.n_bars - first}.")

    targets = compute_targets(values, method=method, gross=gross)
    candidates = {holding: average_targets(targets, holding) for holding in holding_grid}
    net = {holding: run_backtest(panel, weights, config).net_returns for holding, weights in candidates.items()}

    stitched = np.zeros(panel.shape)
    folds = []
    for train, test in parts:
        holding, sharpe = _choose(net, train, config)
        stitched[test] = candidates[holding][test]
        folds.append(Fold(train=train, test=test, holding_bars=holding, train_sharpe=sharpe))
    result = run_backtest(panel, stitched, config, keep_positions=keep_positions).slice(first)

    rank_ic = _rank_ic(panel, values)[first:]
    rank_ic.setflags(write=False)
    known = np.isfinite(rank_ic)
    years = np.asarray(result.index.year)
    by_year = {int(year): float(rank_ic[known & (years == year)].mean()) for year in np.unique(years[known])}
    stitched.setflags(write=False)
    return WalkForwardResult(
        result=result,
        weights=stitched[first:],
        folds=tuple(folds),
        final_holding_bars=_choose(net, slice(0, panel.n_bars), config)[0],
        rank_ic=rank_ic,
        rank_ic_mean=float(rank_ic[known].mean()) if known.any() else None,
        rank_ic_t=_or_none(mean_t_statistic(rank_ic)),
        rank_ic_by_year=MappingProxyType(by_year),
        gross_sharpe=_or_none(sharpe_ratio(result.gross_returns, periods_per_year=config.periods_per_year)),
        net_sharpe=_or_none(sharpe_ratio(result.net_returns, periods_per_year=config.periods_per_year)),
        break_even_bps=_or_none(break_even_cost_bps(result.gross_returns, result.turnover)),
    )


def _span(positions: IntArray) -> slice:
    return slice(int(positions[0]), int(positions[-1]) + 1)


def _choose(net: Mapping[int, FloatArray], part: slice, config: BacktestConfig) -> tuple[int, float | None]:
    sharpes = {
        holding: sharpe_ratio(returns[part], periods_per_year=config.periods_per_year) for holding, returns in net.items()
    }
    best = max(sharpes, key=lambda holding: -math.inf if math.isnan(sharpes[holding]) else sharpes[holding])
    return best, _or_none(sharpes[best])


def _rank_ic(panel: Panel, scores: FloatArray) -> FloatArray:
    forward = np.full(panel.shape, np.nan)
    forward[:-2] = panel.returns()[2:]
    return compute_rank_ic(scores, forward)


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
