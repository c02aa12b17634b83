import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.config import BacktestConfig
from backtest.engine import BacktestResult, run_backtest
from backtest.metrics import summarize_trades
from backtest.trades import OPEN, list_trades
from backtest.vectorbt_bridge import run_with_vectorbt
from core.errors import DataError
from core.market.panel import Panel
from tests.backtest.conftest import build_panel, random_book

FREE = BacktestConfig(commission_bps=0.0, slippage_bps=0.0, borrow_rate=0.0, initial_cash=1_000.0)


def run(panel: Panel, weights: np.ndarray, config: BacktestConfig = FREE) -> tuple[BacktestResult, pd.DataFrame]:
    result = run_backtest(panel, weights, config, keep_positions=True)
    return result, list_trades(result, panel)


def test_a_position_that_is_built_and_sold_in_two_parts_by_hand() -> None:
    panel = build_panel([[10.0], [10.0], [20.0], [40.0], [40.0], [40.0]])
    positions = np.array([[0.0], [10.0], [30.0], [15.0], [0.0], [0.0]])
    result = replace(run_backtest(panel, np.zeros((6, 1)), FREE), positions=positions)
    table = list_trades(result, panel)
    mean_paid = (10 * 10.0 + 20 * 20.0) / 30
    assert list(table["shares"]) == [15.0, 15.0]
    np.testing.assert_allclose(table["entry_price"], mean_paid)
    np.testing.assert_allclose(table["pnl"], 15 * (40.0 - mean_paid))
    np.testing.assert_allclose(table["return"], 40.0 / mean_paid - 1.0)
    assert list(table["entry_bar"]) == [1, 1]
    assert list(table["exit_bar"]) == [3, 4]
    assert list(table["entry_time"]) == [panel.index[1]] * 2
    assert list(table["reason"]) == ["weights", "weights"]


def test_a_position_that_changes_its_sign_is_closed_and_opened_anew() -> None:
    panel = build_panel([[10.0], [10.0], [12.0], [9.0]])
    _, table = run(panel, np.array([[0.5], [-0.5], [-0.25], [0.0]]))
    first, second, third = table.itertuples()
    assert (first.shares, first.entry_price, first.exit_price) == (50.0, 10.0, 12.0)
    assert first.pnl == pytest.approx(100.0)
    assert second.shares < 0 < second.pnl
    assert (second.entry_bar, second.exit_bar, second.entry_price, second.exit_price) == (2, 3, 12.0, 9.0)
    assert (third.reason, third.exit_bar) == (OPEN, 3)
    assert third.entry_bar == 2


@pytest.mark.filterwarnings("ignore")  # importing and running vectorbt warns on current pandas and numpy
@pytest.mark.parametrize("fill", ["close", "open"])
def test_trades_equal_the_exit_trades_of_vectorbt(fill: str) -> None:
    config = BacktestConfig(borrow_rate=0.0, fill=fill)  # type: ignore[arg-type]
    panel, weights = random_book(seed=9, n_assets=5)
    result, table = run(panel, weights, config)
    theirs = run_with_vectorbt(panel, weights, config).exit_trades.records
    ours = table.assign(column=[panel.symbols.index(symbol) for symbol in table["symbol"]])
    ours = ours.sort_values(["column", "exit_bar"], kind="stable", ignore_index=True)
    theirs = theirs.sort_values(["col", "exit_idx", "id"], kind="stable", ignore_index=True)
    assert len(ours) == len(theirs)
    assert list(ours["entry_bar"]) == list(theirs["entry_idx"])
    assert list(ours["exit_bar"]) == list(theirs["exit_idx"])
    np.testing.assert_allclose(ours["shares"].abs(), theirs["size"], rtol=1e-9)
    # vectorbt charges each order its own slippage and commission: a sale costs 1e-7 of its value less than a buy
    np.testing.assert_allclose(ours["pnl"], theirs["pnl"], rtol=0, atol=3e-7 * result.equity.max())


@pytest.mark.filterwarnings("ignore")  # importing and running vectorbt warns on current pandas and numpy
def test_the_only_trade_of_a_bar_bears_all_its_costs_as_in_vectorbt() -> None:
    config = BacktestConfig(borrow_rate=0.0)
    rng = np.random.default_rng(1)
    panel = build_panel(50.0 * np.cumprod(1.0 + 0.02 * rng.standard_normal((120, 1)), axis=0))
    weights = np.round(rng.uniform(-0.9, 0.9, (120, 1)), 1)
    _, table = run(panel, weights, config)
    theirs = run_with_vectorbt(panel, weights, config).exit_trades.records
    np.testing.assert_allclose(table["pnl"], theirs["pnl"], rtol=1e-9, atol=1e-6)
    closed = theirs[theirs["status"] == 1]
    found = summarize_trades(table)
    assert found.n_closed == len(closed)
    assert found.win_rate == pytest.approx((closed["pnl"] > 0).mean())
    assert found.profit_factor == pytest.approx(closed["pnl"].clip(lower=0).sum() / -closed["pnl"].clip(upper=0).sum())
    assert found.expectancy == pytest.approx(closed["pnl"].mean())
    assert found.mean_bars == pytest.approx((closed["exit_idx"] - closed["entry_idx"]).mean())


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.floats(0.0, 30.0),
    st.floats(0.0, 0.3),
    st.sampled_from(["close", "open"]),
)
def test_profits_of_all_trades_add_up_to_that_of_the_account(seed: int, bps: float, borrow: float, fill: str) -> None:
    panel, weights = random_book(seed=seed, n_bars=40, n_assets=4)
    config = BacktestConfig(commission_bps=bps, slippage_bps=bps, borrow_rate=borrow, fill=fill)  # type: ignore[arg-type]
    result, table = run(panel, weights, config)
    assert table["pnl"].sum() == pytest.approx(result.equity[-1] - config.initial_cash, abs=1e-6)


def test_a_missing_price_neither_trades_nor_loses_a_trade() -> None:
    close = np.array([[10.0, 5.0], [11.0, 5.0], [np.nan, 6.0], [np.nan, 7.0], [np.nan, 7.0]])
    result, table = run(build_panel(close), np.tile([0.5, 0.5], (5, 1)))
    held = table[table["symbol"] == "S0"]
    assert list(held["reason"]) == [OPEN]
    assert held["exit_price"].iloc[0] == 11.0
    assert table["pnl"].sum() == pytest.approx(result.equity[-1] - 1_000.0)


def test_what_a_slice_holds_at_its_first_bar_is_opened_there() -> None:
    panel, weights = random_book(seed=4)
    result, _ = run(panel, weights, BacktestConfig())
    part = result.slice(50, 90)
    table = list_trades(part, panel)
    assert set(table[table["entry_bar"] == 0]["symbol"]) == set(panel.symbols)
    assert table["pnl"].sum() == pytest.approx(part.equity[-1] - part.equity[0], abs=1e-6)


def test_no_trades_give_counts_of_zero_and_no_ratio() -> None:
    panel, weights = random_book(seed=4)
    _, table = run(panel, 0.0 * weights)
    found = summarize_trades(table)
    assert (found.n_closed, found.n_open) == (0, 0)
    assert all(math.isnan(getattr(found, name)) for name in ("win_rate", "profit_factor", "expectancy", "longest_bars"))


def test_trades_without_a_loss_have_no_profit_factor() -> None:
    table = pd.DataFrame({"pnl": [1.0, 2.0], "return": [0.1, 0.2], "entry_bar": [0, 2], "exit_bar": [3, 9]})
    found = summarize_trades(table)
    assert math.isnan(found.profit_factor)
    assert math.isnan(found.mean_loss)
    assert (found.win_rate, found.expectancy, found.mean_bars, found.median_bars, found.longest_bars) == (1, 1.5, 5, 5, 7)


def test_what_cannot_be_listed_is_refused_with_the_remedy() -> None:
    panel, weights = random_book(seed=4)
    with pytest.raises(DataError, match="keep_positions=True"):
        list_trades(run_backtest(panel, weights), panel)
    result, _ = run(panel, weights, BacktestConfig())
    other, _ = random_book(seed=4, n_bars=60)
    with pytest.raises(DataError, match=r"must hold the 120 bars .* 60 of them"):
        list_trades(result, other)
    narrow, _ = random_book(seed=4, n_assets=5)
    with pytest.raises(DataError, match="6 assets of the run, had 5"):
        list_trades(result, narrow)
    unknown = panel.replace(close=np.where(np.arange(120)[:, None] < 60, np.nan, panel.close))
    with pytest.raises(DataError, match="no price of it until then"):
        list_trades(result, unknown)
    with pytest.raises(DataError, match="exit_bar missing"):
        summarize_trades(pd.DataFrame({"pnl": [], "return": [], "entry_bar": []}))
