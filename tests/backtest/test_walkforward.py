from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from backtest import BacktestConfig, run_backtest
from backtest.markets import no_edge, plain_signal, planted
from backtest.metrics import sharpe_ratio
from backtest.portfolio import scores_to_weights
from backtest.splits import WalkForward
from backtest.walkforward import run_walk_forward
from core.errors import ConfigurationError, DataError, ShapeError

SPLITS = WalkForward(400, 150, 5)
GRID = (1, 5, 10)
PANEL = planted(seed=4, sharpe=1.5, n_bars=1000)
SCORES = plain_signal(PANEL, "reversal")
CONFIG = BacktestConfig()


def test_each_fold_chooses_by_the_net_sharpe_of_the_past_alone() -> None:
    found = run_walk_forward(PANEL, SCORES, CONFIG, SPLITS, GRID)
    assert len(found.folds) == 4
    for fold in found.folds:
        past = PANEL.slice(0, fold.train.stop)
        sharpes = {
            k: sharpe_ratio(
                run_backtest(past, scores_to_weights(SCORES[: fold.train.stop], holding_bars=k), CONFIG).net_returns[fold.train]
            )
            for k in GRID
        }
        assert fold.holding_bars == max(sharpes, key=lambda k: sharpes[k])
        assert fold.train_sharpe == pytest.approx(sharpes[fold.holding_bars], rel=1e-9)


def test_the_stitched_run_pays_for_its_switches() -> None:
    splits = replace(SPLITS, anchored=False)
    found = run_walk_forward(PANEL, SCORES, CONFIG, splits, GRID)
    weights = np.zeros(PANEL.shape)
    for fold in found.folds:
        weights[fold.test] = scores_to_weights(SCORES, holding_bars=fold.holding_bars)[fold.test]
    expected = run_backtest(PANEL, weights, CONFIG)
    np.testing.assert_array_equal(found.result.net_returns, expected.net_returns[405:])
    np.testing.assert_array_equal(found.result.turnover, expected.turnover[405:])


def test_the_result_covers_the_test_bars_and_starts_flat() -> None:
    found = run_walk_forward(PANEL, SCORES, CONFIG, SPLITS, GRID)
    assert found.result.index.equals(PANEL.index[405:])
    assert found.result.net_returns[0] == 0.0
    assert found.result.equity[0] == CONFIG.initial_cash
    assert found.result.trades[1] == PANEL.n_assets
    assert found.net_sharpe == found.result.metrics["sharpe"]
    assert found.gross_sharpe == found.result.metrics["gross_sharpe"]
    assert found.gross_sharpe is not None
    assert found.net_sharpe is not None
    assert found.gross_sharpe > found.net_sharpe


def test_what_comes_after_a_fold_changes_nothing_in_it() -> None:
    whole = run_walk_forward(PANEL, SCORES, CONFIG, SPLITS, GRID)
    part = run_walk_forward(PANEL.slice(0, 705), SCORES[:705], CONFIG, SPLITS, GRID)
    assert part.folds == whole.folds[:2]
    np.testing.assert_array_equal(part.result.equity, whole.result.equity[:300])


def test_rank_ic_is_measured_on_the_bar_after_the_fill() -> None:
    found = run_walk_forward(PANEL, SCORES, CONFIG, SPLITS, GRID)
    assert found.rank_ic.shape == (595,)
    assert np.isnan(found.rank_ic[-2:]).all()
    for row in (0, 100, 592):
        t = 405 + row
        realised = PANEL.close[t + 2] / PANEL.close[t + 1] - 1.0
        assert found.rank_ic[row] == pytest.approx(stats.spearmanr(SCORES[t], realised).statistic)
    known = found.rank_ic[:-2]
    assert found.rank_ic_mean == pytest.approx(known.mean())
    assert found.rank_ic_t == pytest.approx(stats.ttest_1samp(known, 0.0).statistic)
    years = PANEL.index[405:-2].year
    assert found.rank_ic_by_year == pytest.approx({int(year): known[years == year].mean() for year in years.unique()})


def test_trading_at_the_break_even_cost_earns_nothing() -> None:
    config = BacktestConfig(borrow_rate=0.0)
    found = run_walk_forward(PANEL, SCORES, config, SPLITS, (5,))
    assert found.break_even_bps is not None
    assert found.break_even_bps > config.cost_bps
    at_cost = replace(config, commission_bps=0.0, slippage_bps=found.break_even_bps)
    eaten = run_walk_forward(PANEL, SCORES, at_cost, SPLITS, (5,))
    assert found.gross_sharpe is not None
    assert eaten.net_sharpe == pytest.approx(0.0, abs=0.05 * found.gross_sharpe)


def test_the_final_choice_looks_at_everything() -> None:
    found = run_walk_forward(PANEL, SCORES, CONFIG, SPLITS, GRID)
    sharpes = {k: run_backtest(PANEL, scores_to_weights(SCORES, holding_bars=k)).metrics["sharpe"] for k in GRID}
    assert found.final_holding_bars == max(sharpes, key=lambda k: sharpes[k])  # type: ignore[return-value, arg-type]


def test_scores_without_an_opinion_trade_nothing_and_choose_the_first() -> None:
    found = run_walk_forward(PANEL, np.full(PANEL.shape, np.nan), CONFIG, SPLITS, GRID)
    assert found.result.n_trades == 0
    assert found.net_sharpe is found.gross_sharpe is found.break_even_bps is found.rank_ic_mean is found.rank_ic_t is None
    assert {fold.holding_bars for fold in found.folds} == {found.final_holding_bars} == {1}
    assert found.folds[0].train_sharpe is None
    assert dict(found.rank_ic_by_year) == {}


def test_default_splits_train_on_two_fifths() -> None:
    found = run_walk_forward(PANEL, SCORES)
    assert found.folds[0].train == slice(0, 400)
    assert len(found.folds) == 10


def test_time_series_scores_can_be_walked_too() -> None:
    panel = no_edge(seed=1, n_assets=2, n_bars=600)
    found = run_walk_forward(panel, panel.returns(), CONFIG, SPLITS, (1, 5), method="time_series", gross=0.5)
    assert 0.0 < found.result.exposure.max() < 0.6


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(1000, 20\)"):
        run_walk_forward(PANEL, SCORES[1:])
    with pytest.raises(ConfigurationError, match="`holding_grid`"):
        run_walk_forward(PANEL, SCORES, holding_grid=())
    with pytest.raises(DataError, match="walk-forward needs more than"):
        run_walk_forward(PANEL, SCORES, splits=WalkForward(1000, 10))
    with pytest.raises(DataError, match="at least 2 test bars"):
        run_walk_forward(PANEL, SCORES, splits=WalkForward(999, 10))


def test_positions_are_kept_when_asked_for() -> None:
    found = run_walk_forward(PANEL, SCORES, CONFIG, SPLITS, GRID, keep_positions=True)
    positions = found.result.positions
    assert positions is not None
    first = found.folds[0].test.start
    held = (positions * PANEL.close[first:]).sum(axis=1)
    np.testing.assert_allclose(held + found.result.cash, found.result.equity, rtol=1e-9)
    assert run_walk_forward(PANEL, SCORES, CONFIG, SPLITS, GRID).result.positions is None
