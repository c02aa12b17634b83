"""Many strategies over one panel: a table of figures, and the price of having looked at so many.

Promises the same numbers bit by bit whatever the threads, and that the best of a sweep is never shown without the number
of trials it is the best of.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.config import BacktestConfig
from backtest.crossing_kernel import FIGURES
from backtest.crossings import CrossingFamily, Progress, build_strategy, sweep_family
from backtest.engine import BacktestResult, check_length, run_backtest
from backtest.integrity import deflated_sharpe_ratio
from backtest.metrics import kurtosis, max_drawdown, sharpe_per_period, sharpe_ratio, skewness, total_return
from backtest.signals import SignalStrategy
from core.cluster import check_engine, run_on_ray
from core.errors import ConfigurationError
from core.market.panel import Panel

FloatArray = npt.NDArray[np.float64]

_DEFAULT = BacktestConfig()
_COUNTS = frozenset({"n_orders", "n_trades"})
_OF_WEIGHTS = tuple(name for name in FIGURES if name not in {"n_trades", "win_rate"})


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepResult:
    """Hold the figures of every combination of a sweep.

    Parameters
    ----------
    table : structured ndarray of shape (n_trials,), read-only
        ``total_return`` and ``max_drawdown`` as fractions, ``sharpe`` annualised and NaN where nothing was traded,
        ``n_orders`` filled, ``exposure`` the mean of gross positions over equity. Signals have ``n_trades``, one that is
        still open counted, and ``win_rate``, the share of the closed ones that made a profit after costs.
    panel : Panel
    config : BacktestConfig
    strategies : CrossingFamily or tuple
        What was swept. A family is run on each asset alone, so that it has ``n_assets * n_combinations`` trials.

    Notes
    -----
    The best of many is not evidence: with enough combinations some have a high Sharpe ratio on pure noise. `n_trials` and
    `sharpe_per_period` are what a ledger of trials needs; `deflated_sharpe` is the verdict on the best. It counts every
    combination as an independent trial, which is strict, since neighbours trade alike. `len`, indexing and iteration give
    the full results, computed when they are asked for.
    """

    table: npt.NDArray[np.void]
    panel: Panel
    config: BacktestConfig
    strategies: CrossingFamily | tuple[SignalStrategy | npt.ArrayLike, ...]

    def __post_init__(self) -> None:
        self.table.setflags(write=False)

    @property
    def n_trials(self) -> int:
        """Number of combinations that were judged."""
        return len(self.table)

    @property
    def sharpe_per_period(self) -> FloatArray:
        """Sharpe ratio of one bar of every combination, as `backtest.integrity` takes it."""
        return np.asarray(self.table["sharpe"] / math.sqrt(self.config.periods_per_year), dtype=np.float64)

    @property
    def best_index(self) -> int | None:
        """Combination with the highest Sharpe ratio; None when nothing was traded."""
        sharpe = self.table["sharpe"]
        return None if np.isnan(sharpe).all() else int(np.nanargmax(sharpe))

    @cached_property
    def deflated_sharpe(self) -> float | None:
        """Deflated Sharpe ratio of the best combination on `n_trials`; None when nothing was traded.

        The probability that its true Sharpe ratio is positive, given that it is the best of so many; see
        `backtest.integrity.deflated_sharpe_ratio`.
        """
        if self.best_index is None:
            return None
        returns = self.run(self.best_index).net_returns
        return deflated_sharpe_ratio(
            sharpe=sharpe_per_period(returns),
            n_obs=len(returns),
            skew=skewness(returns),
            kurtosis=kurtosis(returns),
            n_trials=self.n_trials,
        )

    def parameters(self, combination: int) -> dict[str, object]:
        """Return what tells one combination from the others; its number in the list, when a list was swept."""
        if not isinstance(self.strategies, CrossingFamily):
            return {"strategy": combination}
        column, member = divmod(combination, self.n_trials // self.panel.n_assets)
        return {"symbol": self.panel.symbols[column], **self.strategies.parameters(member)}

    def run(self, combination: int) -> BacktestResult:
        """Run one combination again, bar by bar.

        Returns
        -------
        BacktestResult
            Of the one asset, when a family was swept. Its figures agree with the table to rounding.

        Raises
        ------
        IndexError
            If there is no such combination.
        """
        if not -self.n_trials <= combination < self.n_trials:
            raise IndexError(f"`combination` must be in 0..{self.n_trials - 1}, was {combination}.")
        combination %= self.n_trials
        if not isinstance(self.strategies, CrossingFamily):
            return run_backtest(self.panel, self.strategies[combination], self.config)
        column, member = divmod(combination, self.n_trials // self.panel.n_assets)
        strategy = build_strategy(self.strategies, self.panel.close[:, column], member)
        return run_backtest(self.panel.select([self.panel.symbols[column]]), strategy, self.config)

    def to_frame(self) -> pd.DataFrame:
        """Return parameters and figures, one row a combination."""
        return self._frame(range(self.n_trials))

    def best(self, n: int = 10, by: str = "sharpe") -> pd.DataFrame:
        """Return the combinations with the highest value of a figure, best first; they are chosen, not evidence.

        Raises
        ------
        ConfigurationError
            If the table has no figure `by`.
        """
        if by not in (self.table.dtype.names or ()):
            raise ConfigurationError(f"`by` must be one of {', '.join(self.table.dtype.names or ())}, was {by!r}.")
        values = self.table[by].astype(np.float64)
        order = np.argsort(np.where(np.isnan(values), np.inf, -values), kind="stable")
        return self._frame(order[:n].tolist())

    def _frame(self, rows: Iterable[int]) -> pd.DataFrame:
        chosen = list(rows)
        named = pd.DataFrame([self.parameters(row) for row in chosen], index=chosen)
        figures = pd.DataFrame({name: self.table[name][chosen] for name in self.table.dtype.names or ()}, index=chosen)
        return pd.concat([named, figures], axis=1).rename_axis("combination")

    def _verdict(self) -> str:
        if self.best_index is None or self.deflated_sharpe is None:
            return f"{self.n_trials:,} combinations, none of them traded"
        named = ", ".join(f"{name}={value}" for name, value in self.parameters(self.best_index).items() if value is not None)
        return (
            f"best of {self.n_trials:,} combinations: Sharpe {self.table['sharpe'][self.best_index]:.2f} ({named}). "
            f"The best of {self.n_trials:,} is not evidence; deflated for {self.n_trials:,} trials, the probability that its "
            f"true Sharpe is positive is {self.deflated_sharpe:.3f}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self._verdict()}</p>{self.best().to_html()}"

    def __repr__(self) -> str:
        return f"SweepResult({self._verdict()})"

    def __len__(self) -> int:
        return self.n_trials

    def __getitem__(self, combination: int) -> BacktestResult:
        return self.run(combination)

    def __iter__(self) -> Iterator[BacktestResult]:
        return (self.run(combination) for combination in range(self.n_trials))


def run_sweep(
    panel: Panel,
    strategies: CrossingFamily | Iterable[SignalStrategy | npt.ArrayLike],
    config: BacktestConfig = _DEFAULT,
    *,
    n_threads: int | None = None,
    engine: str = "local",
    progress: Progress | None = None,
) -> SweepResult:
    """Judge many strategies over one panel, in threads or on a Ray cluster.

    Parameters
    ----------
    panel : Panel
    strategies : CrossingFamily, or iterable of SignalStrategy, or iterable of array_like of shape (n_bars, n_assets)
        A family such as `MovingAverageCrossings` is judged from its crossings alone, each asset in an account of its own;
        no signals and no equity are kept for any combination. A list of strategies or of weights is run one by one, each
        over the whole panel.
    config : BacktestConfig, optional
    n_threads : int, optional
        Threads; one per processor when None, one for each batch on Ray. The kernels release the interpreter lock.
    engine : {"local", "ray"}, default="local"
        Where to run: in this process, or in batches on the cluster of `core.cluster.run_on_ray`; a family asset by asset, a
        list strategy by strategy.
    progress : callable, optional
        Called in the calling thread with (combinations done, all combinations).

    Returns
    -------
    SweepResult
        In the order of `strategies`, equal bit by bit whatever `n_threads` and `engine`.

    Raises
    ------
    ConfigurationError
        If there is nothing to sweep, signals and weights are mixed, `n_threads` is below 1, or the cluster fails.
    DataError, ShapeError, MissingDataError
        As `run_backtest`, for the first strategy that is wrong; or if a family's lines are.

    Warnings
    --------
    The best row is the winner of a search. Record `n_trials` in the ledger and read `SweepResult.deflated_sharpe`.
    """
    check_engine(engine)
    threads = n_threads if n_threads is not None else 1 if engine == "ray" else os.cpu_count() or 1
    if threads < 1:
        raise ConfigurationError(f"`n_threads` must be at least 1, was {threads}.")
    if isinstance(strategies, CrossingFamily):
        check_length(panel)
        if engine == "ray":
            rows = _sweep_assets(panel, strategies, config, threads, progress)
        else:
            rows = sweep_family(panel, strategies, config, n_threads=threads, progress=progress)
        return SweepResult(table=_build_table(rows, FIGURES), panel=panel, config=config, strategies=strategies)
    listed = tuple(strategies)
    of_signals = [isinstance(strategy, SignalStrategy) for strategy in listed]
    if not listed or any(of_signals) != all(of_signals):
        found = "nothing" if not listed else f"{sum(of_signals)} strategies of signals among {len(listed)}"
        raise ConfigurationError(f"`strategies` must be signals or weights, at least one and of one kind, was {found}.")
    names = FIGURES if all(of_signals) else _OF_WEIGHTS
    rows = np.empty((len(listed), len(names)))
    with ThreadPoolExecutor(max_workers=threads) as pool:
        figures: Iterable[tuple[int, dict[str, float]]]
        if engine == "ray":
            places = run_on_ray(_judge_listed, (panel, config), lambda _: list(enumerate(listed)))
            figures = ((place, figure) for (place, _), figure in places)
        else:
            figures = enumerate(pool.map(lambda strategy: _summarise(run_backtest(panel, strategy, config)), listed))
        for done, (place, figure) in enumerate(figures, start=1):
            rows[place] = [figure[name] for name in names]
            if progress is not None:
                progress(done, len(listed))
    return SweepResult(table=_build_table(rows, names), panel=panel, config=config, strategies=listed)


def _sweep_assets(
    panel: Panel, family: CrossingFamily, config: BacktestConfig, threads: int, progress: Progress | None
) -> FloatArray:
    parts: dict[int, FloatArray] = {}
    batches = run_on_ray(_judge_asset, (panel, family, config, threads), lambda _: range(panel.n_assets))
    for column, part in batches:
        parts[column] = part
        if progress is not None:
            progress(sum(map(len, parts.values())), panel.n_assets * len(part))
    return np.concatenate([parts[column] for column in range(panel.n_assets)])


def _judge_asset(shared: tuple[Panel, CrossingFamily, BacktestConfig, int], column: int) -> FloatArray:
    panel, family, config, threads = shared
    return sweep_family(panel.select([panel.symbols[column]]), family, config, n_threads=threads, progress=None)


def _judge_listed(shared: tuple[Panel, BacktestConfig], item: tuple[int, SignalStrategy | npt.ArrayLike]) -> dict[str, float]:
    panel, config = shared
    return _summarise(run_backtest(panel, item[1], config))


def _summarise(result: BacktestResult) -> dict[str, float]:
    figures = {
        "total_return": total_return(result.net_returns),
        "sharpe": sharpe_ratio(result.net_returns, periods_per_year=result.config.periods_per_year),
        "max_drawdown": max_drawdown(result.net_returns),
        "n_orders": result.n_trades,
        "exposure": float(np.mean(result.exposure)),
    }
    if result.trade_list is not None:
        figures |= {"n_trades": len(result.trade_list), "win_rate": result.trade_list.win_rate}
    return figures


def _build_table(rows: FloatArray, names: tuple[str, ...]) -> npt.NDArray[np.void]:
    table = np.empty(len(rows), dtype=[(name, np.int64 if name in _COUNTS else np.float64) for name in names])
    for column, name in enumerate(names):
        table[name] = rows[:, column]
    return table
