"""Sweeps: the pass over crossings against the pass over bars, and what a sweep says of its best."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest import (
    BacktestConfig,
    CrossingFamily,
    MovingAverageCrossings,
    SignalStrategy,
    SweepResult,
    run_backtest,
    run_sweep,
)
from backtest.integrity import deflated_sharpe_ratio
from core.errors import ConfigurationError, DataError, ShapeError
from core.market.panel import Panel
from tests.backtest.conftest import build_panel, random_book
from tests.backtest.test_signals import random_market, random_strategy

COSTLY = BacktestConfig(commission_bps=10.0, slippage_bps=20.0)
FREE = BacktestConfig(commission_bps=0.0, slippage_bps=0.0, borrow_rate=0.0)
FIGURES = ("total_return", "sharpe", "max_drawdown", "n_orders", "n_trades", "win_rate", "exposure")


def check_against_bars(sweep: SweepResult) -> None:
    """Every row of the table is what the same strategy gives bar by bar."""
    for i in range(sweep.n_trials):
        result = sweep.run(i)
        assert result.trade_list is not None
        metrics = {name: math.nan if value is None else value for name, value in result.metrics.items()}
        expected = [
            metrics["total_return"],
            metrics["sharpe"],
            metrics["max_drawdown"],
            result.n_trades,
            len(result.trade_list),
            result.trade_list.win_rate,
            metrics["exposure"],
        ]
        np.testing.assert_allclose([sweep.table[name][i] for name in FIGURES], expected, rtol=1e-9, atol=1e-10)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1_000_000),
    n_bars=st.integers(3, 300),
    fill=st.sampled_from(["close", "open"]),
    gaps=st.sampled_from([0.0, 0.2]),
    size=st.sampled_from([1.0, 1.0, 0.3]),
    dropped=st.sampled_from([(), ("high", "low"), ("high",)]),
)
def test_a_combination_has_the_figures_of_its_bars(
    seed: int, n_bars: int, fill: str, gaps: float, size: float, dropped: tuple[str, ...]
) -> None:
    panel = replace(random_market(seed, n_bars=n_bars, n_assets=2, gaps=gaps), **dict.fromkeys(dropped))
    rng = np.random.default_rng(seed)
    family = MovingAverageCrossings(
        fast=(1, int(rng.integers(2, 6))),
        slow=(int(rng.integers(2, 12)), 20),
        stop_loss=(None, float(rng.uniform(0.01, 0.1))),
        take_profit=(None, float(rng.uniform(0.01, 0.1))),
        trailing_stop=(None, float(rng.uniform(0.01, 0.1))),
        size=size,
    )
    check_against_bars(run_sweep(panel, family, replace(COSTLY, fill=fill), n_threads=2))


def test_the_leverage_allowed_cuts_the_size_of_a_family() -> None:
    panel = random_market(5, n_bars=200, n_assets=1)
    family = MovingAverageCrossings(fast=(2, 3), slow=(8,))
    sweep = run_sweep(panel, family, replace(COSTLY, max_leverage=0.5))
    check_against_bars(sweep)
    assert sweep.table["exposure"].max() < 0.5


def test_every_number_of_threads_gives_the_same_bits() -> None:
    panel = random_market(7, n_bars=500, n_assets=2, gaps=0.05)
    family = MovingAverageCrossings(fast=range(2, 20), slow=range(5, 40), stop_loss=(None, 0.05), trailing_stop=(0.04, 0.1))
    tables = [run_sweep(panel, family, COSTLY, n_threads=n).table for n in (1, 2, 5)]
    assert len(tables[0]) == 2 * sum(fast < slow for fast in range(2, 20) for slow in range(5, 40)) * 4
    assert tables[0].tobytes() == tables[1].tobytes() == tables[2].tobytes()


def test_the_averages_are_those_of_pandas() -> None:
    close = np.cumprod(1.0 + 0.01 * np.random.default_rng(3).standard_normal(3_000)) * 100.0
    close[:7] = np.nan
    family = MovingAverageCrossings(fast=(1, 5), slow=(20, 250, 5_000))
    expected = [pd.Series(close).rolling(window).mean() for window in (1, 5, 20, 250, 5_000)]
    np.testing.assert_allclose(family.lines(close), expected, rtol=1e-12)


def test_the_averages_of_a_halted_price_do_not_cross() -> None:
    rng = np.random.default_rng(4)
    close = np.concatenate([1e4 * np.cumprod(1.0 + 0.02 * rng.standard_normal(400)), np.full(600, 33.3)])[:, None]
    family = MovingAverageCrossings(fast=range(2, 20), slow=range(20, 60))
    sweep = run_sweep(build_panel(close), family, FREE)
    for i in range(0, sweep.n_trials, 50):
        trades = sweep.run(i).trade_list
        assert trades is not None
        assert (trades.records["entry_bar"] < 400 + 60).all()


def test_a_missing_close_is_averaged_as_the_last_known() -> None:
    panel = build_panel([[10.0], [12.0], [math.nan], [9.0], [8.0], [20.0], [20.0], [20.0]])
    sweep = run_sweep(panel, MovingAverageCrossings(fast=(1,), slow=(2,)), FREE)
    # 12 after the gap is its own average; 20 is above 14 at bar 5, equal to its average at bar 6: in at 6, out at 7.
    trades = sweep.run(0).trade_list
    assert trades is not None
    assert trades.records[["entry_bar", "exit_bar"]].tolist() == [(6, 7)]


@dataclass(frozen=True)
class Breakouts:
    """A user's own family: buy above the highest close of the bars before, leave below the mean of the last ones."""

    windows: tuple[int, ...]
    size: float = 1.0

    @property
    def pairs(self) -> np.ndarray:
        return np.array([[0, 1 + k] for k in range(len(self.windows))])

    @property
    def stops(self) -> np.ndarray:
        return np.full((len(self.windows), 3), [0.1, math.nan, math.nan])

    def lines(self, close: np.ndarray) -> np.ndarray:
        series = pd.Series(close)
        return np.array([close, *(series.shift(1).rolling(window).max() for window in self.windows)])

    def parameters(self, combination: int) -> dict[str, Any]:
        return {"window": self.windows[combination]}


def test_a_family_of_ones_own() -> None:
    panel = random_market(8, n_bars=400, n_assets=2)
    family = Breakouts((5, 10, 20))
    assert isinstance(family, CrossingFamily)
    sweep = run_sweep(panel, family, COSTLY)
    assert len(sweep) == 6
    check_against_bars(sweep)
    assert sweep.parameters(4) == {"symbol": "S1", "window": 10}
    assert (sweep.table["n_trades"] > 3).all()


def test_a_family_that_breaks_its_promises_is_refused() -> None:
    panel = random_market(9, n_bars=50, n_assets=1)

    @dataclass(frozen=True)
    class Broken(Breakouts):
        hole: bool = False

        @property
        def pairs(self) -> np.ndarray:
            return np.array([[0, 1 if self.hole else 9]])

        @property
        def stops(self) -> np.ndarray:
            return np.full((1, 3), math.nan)

        def lines(self, close: np.ndarray) -> np.ndarray:
            lines = super().lines(close).copy()
            lines[0, 30] = math.nan
            return lines if self.hole else lines[:, :-1] if self.size < 1.0 else np.ones((2, len(close)))

    with pytest.raises(DataError, match="line 0 was nan at bar 30"):
        run_sweep(panel, Broken((5,), hole=True))
    with pytest.raises(ShapeError, match="names line 9, `lines` gave 2"):
        run_sweep(panel, Broken((5,)))
    with pytest.raises(ShapeError, match="n_bars = 50"):
        run_sweep(panel, Broken((5,), size=0.5))
    with pytest.raises(ConfigurationError, match=r"`size` of a family must be in \(0, 1\], was 2"):
        run_sweep(panel, Breakouts((5,), size=2.0))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"fast": (10,), "slow": (5,)}, "no pair has fast < slow"),
        ({"fast": (), "slow": (5,)}, "no pair has fast < slow"),
        ({"fast": (0,), "slow": (5,)}, "`fast` must be whole numbers"),
        ({"fast": (2,), "slow": (5.5,)}, "`slow` must be whole numbers"),
        ({"fast": (2,), "slow": (5,), "stop_loss": (0.1, 1.5)}, "`stop_loss` must be a fraction"),
        ({"fast": (2,), "slow": (5,), "take_profit": ()}, "at least one level"),
        ({"fast": (2,), "slow": (5,), "size": None}, "`size` of a family"),
    ],
)
def test_a_wrong_description_is_refused(given: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        MovingAverageCrossings(**given)


def test_combinations_are_described_in_their_order() -> None:
    family = MovingAverageCrossings(fast=(2, 9), slow=(5, 10), stop_loss=(None, 0.1), take_profit=0.2)
    assert [family.parameters(i) for i in range(len(family))][:3] == [
        {"fast": 2, "slow": 5, "stop_loss": None, "take_profit": 0.2, "trailing_stop": None},
        {"fast": 2, "slow": 5, "stop_loss": 0.1, "take_profit": 0.2, "trailing_stop": None},
        {"fast": 2, "slow": 10, "stop_loss": None, "take_profit": 0.2, "trailing_stop": None},
    ]
    assert len(family) == 6
    assert repr(family) == "MovingAverageCrossings(3 pairs x 2 stops, size 1)"


def test_the_best_is_shown_with_the_number_of_trials_it_is_the_best_of() -> None:
    panel = random_market(10, n_bars=400, n_assets=1, volatility=0.01)
    sweep = run_sweep(panel, MovingAverageCrossings(fast=range(2, 12), slow=range(15, 25)), COSTLY)
    assert sweep.n_trials == 100
    best = sweep.best(3)
    order = np.argsort(-sweep.table["sharpe"])
    assert best.index.tolist() == order[:3].tolist()
    assert best["sharpe"].tolist() == sweep.table["sharpe"][order[:3]].tolist()
    returns = pd.Series(sweep.run(int(order[0])).net_returns)
    expected = deflated_sharpe_ratio(
        sharpe=returns.mean() / returns.std(ddof=1),
        n_obs=400,
        skew=float(((returns - returns.mean()) ** 3).mean() / returns.std(ddof=0) ** 3),
        kurtosis=float(((returns - returns.mean()) ** 4).mean() / returns.std(ddof=0) ** 4),
        n_trials=100,
    )
    assert sweep.deflated_sharpe == pytest.approx(expected, rel=1e-9)
    assert f"true Sharpe is positive is {expected:.3f}" in repr(sweep)
    assert "best of 100 combinations" in repr(sweep) and "is not evidence" in repr(sweep)
    assert "is not evidence" in sweep._repr_html_() and "<table" in sweep._repr_html_()
    np.testing.assert_allclose(sweep.sharpe_per_period * math.sqrt(252), sweep.table["sharpe"])
    frame = sweep.to_frame()
    assert frame.shape == (100, 6 + len(FIGURES))
    with pytest.raises(ConfigurationError, match="`by` must be one of total_return"):
        sweep.best(by="alpha")
    with pytest.raises(IndexError, match=r"0\.\.99"):
        sweep.run(100)
    with pytest.raises(ValueError, match="read-only"):
        sweep.table["sharpe"][0] = 9.0


def test_a_sweep_that_never_trades_says_so() -> None:
    sweep = run_sweep(build_panel(np.full((50, 1), 10.0)), MovingAverageCrossings(fast=(2,), slow=(5, 9)), FREE)
    assert sweep.deflated_sharpe is None and sweep.best_index is None
    assert repr(sweep) == "SweepResult(2 combinations, none of them traded)"
    assert sweep.table["total_return"].tolist() == [0.0, 0.0] and np.isnan(sweep.table["win_rate"]).all()


def test_a_list_of_signals_is_run_one_by_one() -> None:
    panel = random_market(12)
    strategies = [random_strategy(seed, panel) for seed in range(5)]
    seen: list[tuple[int, int]] = []
    sweep = run_sweep(panel, strategies, COSTLY, n_threads=2, progress=lambda done, total: seen.append((done, total)))
    check_against_bars(sweep)
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    assert sweep.parameters(3) == {"strategy": 3}


def test_a_list_of_weights_has_no_trades_but_orders() -> None:
    panel, weights = random_book(seed=2)
    sweep = run_sweep(panel, (scale * weights for scale in (0.5, 1.0)), COSTLY)
    assert sweep.table.dtype.names == ("total_return", "sharpe", "max_drawdown", "n_orders", "exposure")
    lone = run_backtest(panel, weights, COSTLY)
    assert np.array_equal(sweep[1].equity, lone.equity)
    assert sweep.table["sharpe"][1] == lone.metrics["sharpe"]
    assert sweep.table["n_orders"][1] == lone.n_trades


def test_progress_reaches_the_end_of_every_asset() -> None:
    panel = random_market(13, n_assets=3)
    seen: list[tuple[int, int]] = []
    family = MovingAverageCrossings(fast=range(2, 6), slow=(10, 20))
    run_sweep(panel, family, n_threads=2, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (24, 24) and [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_what_cannot_be_swept_is_refused() -> None:
    panel, weights = random_book(seed=2)
    strategy = SignalStrategy(entries=np.zeros(panel.shape, bool))
    for strategies in ([], [weights, strategy]):
        with pytest.raises(ConfigurationError, match="signals or weights"):
            run_sweep(panel, strategies)
    with pytest.raises(ConfigurationError, match="`n_threads` must be at least 1"):
        run_sweep(panel, [weights], n_threads=0)
    with pytest.raises(DataError, match="at least 3 bars"):
        run_sweep(panel.slice(0, 2), MovingAverageCrossings(fast=(1,), slow=(2,)))


def shift_dates(panel: Panel) -> Panel:
    return replace(panel, index=panel.index + pd.Timedelta(days=700))


def test_shifting_all_dates_changes_nothing() -> None:
    panel = random_market(14, gaps=0.1)
    family = MovingAverageCrossings(fast=(2, 3), slow=(5, 9), stop_loss=0.05)
    assert run_sweep(panel, family).table.tobytes() == run_sweep(shift_dates(panel), family).table.tobytes()
