"""Signals with stops against vectorbt's own simulation of them."""

import math
from dataclasses import replace

import numpy as np
import pytest

from backtest import BacktestConfig, MovingAverageCrossings, SignalStrategy, run_backtest, run_sweep
from backtest.metrics import max_drawdown, sharpe_ratio, total_return
from backtest.vectorbt_bridge import frame_vectorbt_trades, run_signals_with_vectorbt
from benchmarks.crossings import build_family, build_market, time_ours, time_vectorbt
from core.errors import ConfigurationError, ShapeError
from core.market.panel import Panel
from tests.backtest.conftest import build_panel
from tests.backtest.test_signals import random_market

pytestmark = pytest.mark.filterwarnings("ignore")  # importing and running vectorbt warns on current pandas and numpy

CONFIG = BacktestConfig(borrow_rate=0.0, commission_bps=10.0, slippage_bps=20.0)
FIELDS = ["entry_bar", "exit_bar", "entry_price", "exit_price", "shares", "pnl", "return"]


def random_signals(seed: int, panel: Panel, *, short: bool = False, **stops: float) -> SignalStrategy:
    rng = np.random.default_rng(seed)
    entries, exits = rng.random((2, *panel.shape)) < 0.06
    if short:
        return SignalStrategy(entries=np.zeros(panel.shape, bool), short_entries=entries, short_exits=exits, **stops)
    return SignalStrategy(entries=entries, exits=exits, **stops)


def check_equal(panel: Panel, strategy: SignalStrategy, config: BacktestConfig) -> int:
    """Compare value, figures and trades of every asset alone; return how many trades there were."""
    theirs = run_signals_with_vectorbt(panel, strategy, config)
    their_trades = frame_vectorbt_trades(theirs)
    n_trades = 0
    for column, symbol in enumerate(panel.symbols):
        names = ("entries", "exits", "short_entries", "short_exits")
        alone = {name: None if (each := getattr(strategy, name)) is None else each[:, [column]] for name in names}
        ours = run_backtest(panel.select([symbol]), replace(strategy, **alone), config)
        np.testing.assert_allclose(ours.equity, theirs.value().iloc[:, column], rtol=1e-9)
        returns = ours.net_returns
        figures = [total_return(returns), sharpe_ratio(returns), max_drawdown(returns)]
        expected = [
            theirs.total_return().iloc[column],
            theirs.sharpe_ratio(year_freq="252 days").iloc[column],
            theirs.max_drawdown().iloc[column],
        ]
        np.testing.assert_allclose(figures, expected, rtol=1e-9, atol=1e-12)
        assert ours.trade_list is not None
        mine = ours.trade_list.records
        other = their_trades[their_trades["asset"] == column]
        assert len(mine) == len(other)
        for name in FIELDS:
            np.testing.assert_allclose(mine[name], other[name], rtol=1e-9, atol=1e-9 * config.initial_cash * (name == "pnl"))
        n_trades += len(mine)
    return n_trades


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize(
    "stops",
    [
        {},
        {"stop_loss": 0.04},
        {"take_profit": 0.06},
        {"trailing_stop": 0.05},
        {"stop_loss": 0.03, "take_profit": 0.05},
        {"trailing_stop": 0.04, "take_profit": 0.05, "size": 0.4},
    ],
)
def test_stops_and_signals_filled_at_the_close(stops: dict[str, float], short: bool) -> None:
    panel = random_market(11, n_bars=250, n_assets=4, volatility=0.015)
    strategy = random_signals(12, panel, short=short, **stops)
    assert check_equal(panel, strategy, CONFIG) > 20


@pytest.mark.parametrize("seed", range(8))
def test_random_books_filled_at_the_close(seed: int) -> None:
    panel = random_market(seed, n_bars=200, n_assets=5, volatility=0.03)
    rng = np.random.default_rng(seed)
    loss, gain = float(rng.uniform(0.01, 0.1)), float(rng.uniform(0.01, 0.1))
    check_equal(panel, random_signals(seed, panel, stop_loss=loss, take_profit=gain, size=float(rng.uniform(0.1, 1.0))), CONFIG)


def test_signals_filled_at_the_open_without_stops() -> None:
    panel = random_market(21, n_bars=250, n_assets=4)
    assert check_equal(panel, random_signals(22, panel), replace(CONFIG, fill="open")) > 20


def test_stops_watched_at_the_close_when_there_is_nothing_else() -> None:
    panel = replace(random_market(31, n_bars=250, n_assets=4), open=None, high=None, low=None)
    assert check_equal(panel, random_signals(32, panel, stop_loss=0.03, take_profit=0.05), CONFIG) > 20


def test_bars_without_a_price_when_no_exit_falls_on_them() -> None:
    panel = random_market(41, n_bars=250, n_assets=4)
    rng = np.random.default_rng(42)
    entries, exits = rng.random((2, *panel.shape)) < 0.06
    missing = rng.random(panel.shape) < 0.1
    missing[-1] = False
    exits[:-1] &= ~missing[1:]
    columns = {name: np.where(missing, math.nan, panel.get(name)) for name in ("open", "high", "low", "close")}
    check_equal(replace(panel, **columns), SignalStrategy(entries=entries, exits=exits, stop_loss=0.05), CONFIG)


def test_a_sweep_of_crossings_with_stops() -> None:
    panel = random_market(51, n_bars=600, n_assets=1, volatility=0.015)
    sweep = run_sweep(panel, MovingAverageCrossings(fast=(3, 5, 10), slow=(15, 30), stop_loss=0.03, take_profit=0.05), CONFIG)
    for i in range(sweep.n_trials):
        lone = sweep.run(i)
        assert lone.trade_list is not None
        fast, slow = (
            panel.frame("close").iloc[:, 0].rolling(int(sweep.parameters(i)[name])).mean().to_numpy()  # type: ignore[call-overload]
            for name in ("fast", "slow")
        )
        above = fast > slow
        known = np.isfinite(slow)
        entries, exits = np.zeros((2, *panel.shape), bool)
        entries[1:, 0] = above[1:] & ~above[:-1] & known[:-1]
        exits[1:, 0] = ~above[1:] & above[:-1]
        strategy = SignalStrategy(entries=entries, exits=exits, stop_loss=0.03, take_profit=0.05)
        portfolio = run_signals_with_vectorbt(panel, strategy, CONFIG)
        row = sweep.table[i]
        assert row["n_trades"] == portfolio.trades.count().iloc[0] > 3
        expected = [
            portfolio.total_return().iloc[0],
            portfolio.sharpe_ratio(year_freq="252 days").iloc[0],
            portfolio.max_drawdown().iloc[0],
            portfolio.trades.closed.win_rate().iloc[0],
        ]
        np.testing.assert_allclose(
            [row[n] for n in ("total_return", "sharpe", "max_drawdown", "win_rate")], expected, rtol=1e-9
        )


def test_vectorbt_stops_a_position_filled_at_the_open_one_bar_later() -> None:
    close = np.array([[100.0], [98.0], [98.0], [98.0]])
    panel = replace(build_panel(close, opened=[[100.0], [100.0], [98.0], [98.0]]), high=close + 2.0, low=close - 5.0)
    strategy = SignalStrategy(entries=np.array([[True], [False], [False], [False]]), stop_loss=0.05)
    config = replace(CONFIG, fill="open")
    ours = run_backtest(panel, strategy, config).trade_list
    assert ours is not None and ours.records["exit_bar"].tolist() == [1]
    assert frame_vectorbt_trades(run_signals_with_vectorbt(panel, strategy, config))["exit_bar"].tolist() == [2]


def test_what_vectorbt_cannot_express_is_refused() -> None:
    panel = build_panel(np.full((5, 1), 100.0))
    one = np.ones((5, 1), bool)
    for strategy, config, text in (
        (SignalStrategy(entries=one, stop_loss=0.1, trailing_stop=0.1), CONFIG, "either a stop loss or a trailing stop"),
        (SignalStrategy(entries=one, short_entries=one), CONFIG, "cannot reverse"),
        (SignalStrategy(entries=one), BacktestConfig(), "borrow_rate"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            run_signals_with_vectorbt(panel, strategy, config)
    with pytest.raises(ShapeError, match=r"\(5, 1\)"):
        run_signals_with_vectorbt(panel, SignalStrategy(entries=np.ones((4, 1), bool)), CONFIG)


@pytest.mark.parametrize("stops", [False, True])
def test_the_benchmark_compares_equal_sweeps(stops: bool) -> None:
    panel, family = build_market(400), build_family(stops, longest=9)
    _, ours = time_ours(panel, family, rounds=1)
    _, theirs = time_vectorbt(panel, family, chunk=10)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
