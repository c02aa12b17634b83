"""Our kernel against vectorbt itself."""

import builtins
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backtest import BacktestConfig, run_backtest
from backtest.portfolio import scores_to_weights
from backtest.vectorbt_bridge import run_with_vectorbt
from benchmarks.backtest import run_benchmark
from core.errors import ConfigurationError, ShapeError
from core.market.panel import Panel
from tests.backtest.conftest import build_panel, random_book

pytestmark = pytest.mark.filterwarnings("ignore")  # importing and running vectorbt warns on current pandas and numpy

CONFIG = BacktestConfig(borrow_rate=0.0)


def check_equal(panel: Panel, weights: np.ndarray, config: BacktestConfig) -> None:
    ours, theirs = run_backtest(panel, weights, config), run_with_vectorbt(panel, weights, config)
    np.testing.assert_allclose(ours.equity, theirs.value().to_numpy(), rtol=1e-9)
    np.testing.assert_allclose(ours.cash, theirs.cash().to_numpy(), rtol=1e-9, atol=1e-6)
    assert ours.n_trades == theirs.orders.count()


@pytest.mark.parametrize("fill", ["close", "open"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_equity_of_a_dollar_neutral_book(seed: int, fill: str) -> None:
    panel, weights = random_book(seed, n_bars=300, n_assets=8)
    check_equal(panel, weights, replace(CONFIG, fill=fill, commission_bps=20.0, slippage_bps=30.0))


@pytest.mark.parametrize("lot_size", [1.0, 100.0])
def test_equity_of_whole_lots(lot_size: float) -> None:
    panel, weights = random_book(5, n_bars=300, n_assets=8)
    check_equal(panel, weights, replace(CONFIG, lot_size=lot_size, slippage_bps=30.0))


def test_equity_of_overlapping_portfolios() -> None:
    panel, scores = random_book(4, n_bars=400, n_assets=10)
    check_equal(panel, scores_to_weights(scores, holding_bars=10), CONFIG)


def test_equity_of_a_long_only_book_with_spare_cash() -> None:
    panel, weights = random_book(5, n_bars=300, n_assets=5)
    check_equal(panel, 0.9 * np.abs(weights), CONFIG)


def test_equity_with_held_bars() -> None:
    panel, weights = random_book(6, n_bars=300, n_assets=5)
    weights[np.arange(300) % 5 != 0] = np.nan
    check_equal(panel, weights, CONFIG)


def test_equity_with_missing_prices() -> None:
    panel, weights = random_book(7, n_bars=300, n_assets=5)
    close = panel.close.copy()
    close[np.random.default_rng(7).random(close.shape) < 0.1] = np.nan
    close[:40, 0] = np.nan
    close[250:, 1] = np.nan
    check_equal(panel.replace(close=close), weights, CONFIG)


def test_equity_at_twice_the_leverage() -> None:
    panel, weights = random_book(8, n_bars=300, n_assets=6)
    check_equal(panel, 2.0 * weights, CONFIG)


def test_a_fully_invested_book_borrows_its_costs_where_vectorbt_cuts_the_order() -> None:
    panel = build_panel(np.full((4, 1), 100.0))
    weights = np.ones((4, 1))
    ours, theirs = run_backtest(panel, weights, CONFIG), run_with_vectorbt(panel, weights, CONFIG)
    assert ours.cash[1] == pytest.approx(-1e6 * (1.0004 * 1.0001 - 1.0))
    assert theirs.cash().to_numpy()[1] == 0.0
    np.testing.assert_allclose(ours.equity, theirs.value().to_numpy(), rtol=1e-6)


def test_borrow_is_refused_since_vectorbt_cannot_charge_it(book: tuple[Panel, np.ndarray]) -> None:
    with pytest.raises(ConfigurationError, match="cannot express impact_coefficient, cash_rate;"):
        run_with_vectorbt(*book, replace(CONFIG, lot_size=1.0, impact_coefficient=1.0, cash_rate=0.01))
    with pytest.raises(ConfigurationError, match=r"`borrow_rate` was 0\.005"):
        run_with_vectorbt(*book, BacktestConfig())


def test_weights_of_another_shape_are_refused(book: tuple[Panel, np.ndarray]) -> None:
    with pytest.raises(ShapeError, match=r"\(120, 6\)"):
        run_with_vectorbt(book[0], book[1][:, :2], CONFIG)


def test_a_missing_vectorbt_is_told_with_its_remedy(book: tuple[Panel, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_vectorbt(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "vectorbt":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_vectorbt)
    with pytest.raises(ConfigurationError, match="pip install"):
        run_with_vectorbt(*book, CONFIG)


def test_the_benchmark_compares_equal_runs() -> None:
    figures = run_benchmark(rounds=1)
    assert figures["largest_relative_equity_difference"] < 1e-9
    assert figures["largest_relative_metric_difference"] < 1e-9


def test_a_result_is_explored_in_vectorbt_with_its_own_settings() -> None:
    panel, weights = random_book(5)
    result = run_backtest(panel, weights, replace(CONFIG, commission_bps=20.0, fill="open"))
    portfolio = result.to_vectorbt(panel, weights)
    np.testing.assert_allclose(result.equity, portfolio.value().to_numpy(), rtol=1e-9)
    assert portfolio.total_return() == pytest.approx(result.metrics["total_return"], rel=1e-9)
    assert portfolio.max_drawdown() == pytest.approx(result.metrics["max_drawdown"], rel=1e-9)


def test_a_result_cannot_be_explored_on_other_bars() -> None:
    panel, weights = random_book(5)
    other, short = random_book(5, n_bars=60)
    with pytest.raises(ShapeError, match="must have the 120 bars of the result"):
        run_backtest(panel, weights, CONFIG).to_vectorbt(other, short)
    with pytest.raises(ShapeError, match="must have the 60 bars of the result"):
        run_backtest(panel, weights, CONFIG).slice(0, 60).to_vectorbt(panel, weights)
