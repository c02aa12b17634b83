"""Entry and exit signals with stops: every execution rule by hand, then against an account kept in plain Python."""

import math
from dataclasses import FrozenInstanceError, dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest import BacktestConfig, BacktestResult, SignalStrategy, run_backtest
from core.errors import ConfigurationError, DataError, MissingDataError, ShapeError
from core.market.panel import Panel
from tests.backtest.conftest import build_panel

FREE = BacktestConfig(initial_cash=1000.0, commission_bps=0.0, slippage_bps=0.0, borrow_rate=0.0)
COSTLY = BacktestConfig(commission_bps=10.0, slippage_bps=20.0, borrow_rate=0.05)
NAN = math.nan


def build_bars(rows: list[tuple[float, float, float, float]]) -> Panel:
    """One asset from (open, high, low, close) rows."""
    opened, high, low, close = np.array(rows, dtype=float).T[:, :, None]
    return replace(build_panel(close, opened=opened), high=high, low=low)


def mark_bars(n_bars: int, *bars: int) -> np.ndarray:
    out = np.zeros((n_bars, 1), dtype=bool)
    out[list(bars)] = True
    return out


def trade(panel: Panel, config: BacktestConfig = FREE, *, enter: tuple[int, ...] = (0,), **given: Any) -> BacktestResult:
    """Enter one asset long at the given bars; `exits`, `short_entries` and `short_exits` are bars, too."""
    signals = {
        name: mark_bars(panel.n_bars, *given.pop(name)) for name in ("exits", "short_entries", "short_exits") if name in given
    }
    return run_backtest(panel, SignalStrategy(entries=mark_bars(panel.n_bars, *enter), **signals, **given), config)


def list_trades(result: BacktestResult) -> list[tuple[int, int, float, str]]:
    """(entry bar, exit bar, exit price, reason) of every trade."""
    assert result.trade_list is not None
    frame = result.trade_list.to_frame()
    return list(zip(frame["entry_bar"], frame["exit_bar"], frame["exit_price"], frame["reason"], strict=True))


FLAT = (100.0, 100.0, 100.0, 100.0)


def test_a_signal_is_filled_at_the_close_of_the_next_bar() -> None:
    panel = build_bars([FLAT, (100, 120, 100, 110), (110, 125, 105, 121), (121, 140, 120, 132), (132, 132, 132, 132)])
    result = trade(panel, exits=(2,))
    assert list_trades(result) == [(1, 3, 132.0, "signal")]
    np.testing.assert_allclose(result.equity, [1000.0, 1000.0, 1100.0, 1200.0, 1200.0], rtol=1e-14)
    assert result.trades.tolist() == [0, 1, 0, 1, 0]


def test_a_signal_is_filled_at_the_open_of_the_next_bar() -> None:
    panel = build_bars([FLAT, (100, 120, 100, 110), (110, 125, 105, 121), (120, 140, 120, 132), (132, 132, 132, 132)])
    result = trade(panel, replace(FREE, fill="open"), exits=(2,))
    assert list_trades(result) == [(1, 3, 120.0, "signal")]
    np.testing.assert_allclose(result.equity, [1000.0, 1100.0, 1210.0, 1200.0, 1200.0], rtol=1e-14)


def test_a_trade_pays_slippage_and_commission_on_both_sides() -> None:
    panel = build_bars([FLAT, FLAT, (110, 110, 110, 110), (110, 110, 110, 110)])
    config = replace(FREE, commission_bps=100.0, slippage_bps=200.0)
    result = trade(panel, config, exits=(1,), size=0.5)
    # 500 buy 500 / (102 * 1.01) shares; they are sold at 110 * 0.98 less one percent.
    shares = 500.0 / (102.0 * 1.01)
    received = shares * 110.0 * 0.98 * 0.99
    np.testing.assert_allclose(result.equity, [1000.0, 500.0 + shares * 100.0, 500.0 + received, 500.0 + received], rtol=1e-14)
    assert result.trade_list is not None
    row = result.trade_list.to_frame().iloc[0]
    assert row["shares"] == pytest.approx(shares, rel=1e-14)
    assert (row["entry_price"], row["exit_price"]) == pytest.approx((102.0, 110.0 * 0.98), rel=1e-14)
    assert row["pnl"] == pytest.approx(received - 500.0, rel=1e-12)
    assert row["return"] == pytest.approx((received - 500.0) / (shares * 102.0), rel=1e-12)
    np.testing.assert_allclose(result.costs[1], (500.0 - shares * 100.0) / 1000.0, rtol=1e-12)


def test_all_in_leaves_no_cash() -> None:
    panel = build_bars([FLAT] * 3)
    result = trade(panel, replace(FREE, commission_bps=7.0, slippage_bps=3.0), size=None)
    assert result.cash.tolist() == [1000.0, 0.0, 0.0]


def test_all_in_shares_what_is_free_among_the_entries_of_a_bar() -> None:
    panel = build_panel(np.full((4, 3), 50.0))
    entries = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]], dtype=bool)
    result = run_backtest(panel, SignalStrategy(entries=entries, size=None), FREE, keep_positions=True)
    assert result.positions is not None
    np.testing.assert_allclose(result.positions[-1], [10.0, 10.0, 0.0])  # nothing was left for the third


def test_entries_are_cut_alike_to_the_leverage_allowed() -> None:
    panel = build_panel(np.full((4, 3), 50.0))
    entries = np.zeros((4, 3), dtype=bool)
    entries[0] = True
    result = run_backtest(panel, SignalStrategy(entries=entries, size=1.0), FREE, keep_positions=True)
    assert result.positions is not None
    np.testing.assert_allclose(result.positions[1], [2000.0 / 3 / 50.0] * 3)
    assert result.exposure[1] == pytest.approx(2.0)


def test_a_stop_loss_fills_at_its_level() -> None:
    panel = build_bars([FLAT, FLAT, (99, 101, 94, 98), FLAT])
    assert list_trades(trade(panel, stop_loss=0.05)) == [(1, 2, 95.0, "stop_loss")]


def test_a_gap_through_a_stop_fills_at_the_open() -> None:
    panel = build_bars([FLAT, FLAT, (90, 101, 88, 98), FLAT])
    assert list_trades(trade(panel, stop_loss=0.05)) == [(1, 2, 90.0, "stop_loss")]


def test_a_take_profit_fills_at_its_level_and_beyond_it_at_the_open() -> None:
    assert list_trades(trade(build_bars([FLAT, FLAT, (101, 111, 99, 102), FLAT]), take_profit=0.1)) == [
        (1, 2, pytest.approx(110.0), "take_profit")
    ]
    assert list_trades(trade(build_bars([FLAT, FLAT, (115, 116, 99, 102), FLAT]), take_profit=0.1)) == [
        (1, 2, 115.0, "take_profit")
    ]


def test_the_stop_is_believed_before_the_target_when_one_bar_touches_both() -> None:
    panel = build_bars([FLAT, FLAT, (100, 120, 80, 100), FLAT])
    assert list_trades(trade(panel, stop_loss=0.05, take_profit=0.1)) == [(1, 2, 95.0, "stop_loss")]


def test_a_trailing_stop_follows_the_highest_price_of_the_bars_before() -> None:
    # The high of 120 counts from the next bar on: 120 * 0.9 = 108.
    panel = build_bars([FLAT, FLAT, (100, 120, 100, 115), (115, 116, 107, 110), FLAT])
    assert list_trades(trade(panel, trailing_stop=0.1)) == [(1, 3, 108.0, "trailing_stop")]


def test_the_nearer_of_stop_loss_and_trailing_stop_binds() -> None:
    panel = build_bars([FLAT, FLAT, (100, 101, 90, 95), FLAT])
    assert list_trades(trade(panel, stop_loss=0.05, trailing_stop=0.2)) == [(1, 2, 95.0, "stop_loss")]
    assert list_trades(trade(panel, stop_loss=0.2, trailing_stop=0.05)) == [(1, 2, 95.0, "trailing_stop")]
    assert list_trades(trade(panel, stop_loss=0.05, trailing_stop=0.05)) == [(1, 2, 95.0, "stop_loss")]


def test_stops_of_a_position_filled_at_the_open_hold_on_its_first_bar() -> None:
    panel = build_bars([FLAT, (100, 101, 94, 98), FLAT, FLAT])
    assert list_trades(trade(panel, replace(FREE, fill="open"), stop_loss=0.05)) == [(1, 1, 95.0, "stop_loss")]


def test_stops_of_a_position_filled_at_the_close_hold_from_the_next_bar_on() -> None:
    panel = build_bars([FLAT, (100, 101, 80, 100), FLAT, (100, 100, 94, 100)])
    assert list_trades(trade(panel, stop_loss=0.05)) == [(1, 3, 95.0, "stop_loss")]


def test_an_exit_at_the_open_comes_before_the_stop_of_its_bar_and_one_at_the_close_after_it() -> None:
    panel = build_bars([FLAT, FLAT, (99, 101, 94, 98), FLAT])
    assert list_trades(trade(panel, replace(FREE, fill="open"), exits=(1,), stop_loss=0.05)) == [(1, 2, 99.0, "signal")]
    assert list_trades(trade(panel, exits=(1,), stop_loss=0.05)) == [(1, 2, 95.0, "stop_loss")]


def test_nothing_enters_at_the_close_of_the_bar_of_a_stop() -> None:
    panel = build_bars([FLAT, FLAT, (99, 101, 94, 98), FLAT, FLAT])
    assert list_trades(trade(panel, enter=(0, 1), stop_loss=0.05)) == [(1, 2, 95.0, "stop_loss")]
    assert [row[:2] for row in list_trades(trade(panel, enter=(0, 2), stop_loss=0.05))] == [(1, 2), (3, 4)]


def test_without_high_and_low_stops_are_watched_at_the_close_and_filled_there() -> None:
    falls = build_panel([[100.0], [100.0], [96.0], [93.0], [90.0]])
    assert list_trades(trade(falls, stop_loss=0.05)) == [(1, 3, 93.0, "stop_loss")]
    rises = build_panel([[100.0], [100.0], [109.0], [113.0], [90.0]])
    assert list_trades(trade(rises, take_profit=0.1)) == [(1, 3, 113.0, "take_profit")]


def test_without_an_open_the_close_stands_in_only_where_it_is_worse() -> None:
    panel = replace(build_bars([FLAT, FLAT, (100, 100, 90, 92), FLAT]), open=None)
    assert list_trades(trade(panel, stop_loss=0.05)) == [(1, 2, 92.0, "stop_loss")]
    panel = replace(build_bars([FLAT, FLAT, (100, 115, 100, 113), FLAT]), open=None)
    assert list_trades(trade(panel, take_profit=0.1)) == [(1, 2, pytest.approx(110.0), "take_profit")]


def test_a_short_position_is_the_mirror() -> None:
    panel = build_bars([FLAT, FLAT, (101, 106, 95, 101), FLAT])
    result = trade(panel, enter=(), short_entries=(0,), stop_loss=0.05, size=0.5)
    assert list_trades(result) == [(1, 2, 105.0, "stop_loss")]
    np.testing.assert_allclose(result.equity, [1000.0, 1000.0, 975.0, 975.0], rtol=1e-14)
    gap = build_bars([FLAT, FLAT, (88, 106, 85, 101), FLAT])
    assert list_trades(trade(gap, enter=(), short_entries=(0,), take_profit=0.1)) == [(1, 2, 88.0, "take_profit")]
    trails = build_bars([FLAT, FLAT, (100, 100, 80, 85), (85, 90, 84, 85), FLAT])
    assert list_trades(trade(trails, enter=(), short_entries=(0,), trailing_stop=0.1)) == [(1, 3, 88.0, "trailing_stop")]


def test_an_entry_of_the_other_side_reverses_the_position() -> None:
    panel = build_panel([[100.0], [100.0], [120.0], [60.0], [60.0]])
    result = trade(panel, short_entries=(1,))
    assert list_trades(result) == [(1, 2, 120.0, "signal"), (2, 4, 60.0, "end")]
    np.testing.assert_allclose(result.equity, [1000.0, 1000.0, 1200.0, 1800.0, 1800.0], rtol=1e-14)


def test_borrow_is_part_of_a_short_trade() -> None:
    panel = build_panel(np.full((4, 1), 100.0))
    result = trade(panel, replace(FREE, borrow_rate=0.252), enter=(), short_entries=(0,), short_exits=(2,), size=0.5)
    assert result.trade_list is not None
    assert result.trade_list.records["pnl"].tolist() == pytest.approx([-1.0])  # two bars of a thousandth of 500
    assert result.equity[-1] == pytest.approx(999.0)


def test_signals_that_contradict_each_other_are_no_signals() -> None:
    panel = build_panel(np.full((5, 1), 100.0))
    assert list_trades(trade(panel, enter=(0,), exits=(0,))) == []
    assert list_trades(trade(panel, enter=(0,), short_entries=(0,))) == []
    assert [row[:2] for row in list_trades(trade(panel, enter=(0, 1), exits=(1, 2)))] == [(1, 3)]


def test_an_entry_without_a_price_is_void() -> None:
    assert list_trades(trade(build_panel([[100.0], [NAN], [100.0], [100.0]]))) == []


def test_an_exit_without_a_price_waits_for_the_next() -> None:
    panel = build_panel([[100.0], [100.0], [NAN], [NAN], [90.0], [80.0]])
    assert list_trades(trade(panel, exits=(1,))) == [(1, 4, 90.0, "signal")]


def test_a_reversal_without_a_price_only_closes() -> None:
    panel = build_panel([[100.0], [100.0], [NAN], [90.0], [80.0]])
    assert list_trades(trade(panel, short_entries=(1,))) == [(1, 3, 90.0, "signal")]


def test_no_stop_is_touched_on_a_bar_without_a_close() -> None:
    panel = build_bars([FLAT, FLAT, (100, 100, 80, NAN), (99, 99, 99, 99), FLAT])
    assert list_trades(trade(panel, stop_loss=0.05)) == [(1, 4, 100.0, "end")]


def test_a_symbol_whose_prices_end_is_sold_at_the_last_one() -> None:
    panel = build_panel([[100.0, 1.0], [100.0, 1.0], [80.0, 1.0], [NAN, 1.0], [NAN, 1.0]])
    entries = np.zeros((5, 2), dtype=bool)
    entries[[0, 3], 0] = True
    result = run_backtest(panel, SignalStrategy(entries=entries), replace(FREE, commission_bps=100.0))
    assert list_trades(result) == [(1, 3, 80.0, "delisted")]
    np.testing.assert_allclose(result.equity[-1], 1000.0 / 1.01 * 0.8 * 0.99, rtol=1e-14)


def test_a_position_that_is_open_at_the_end_is_valued_and_not_sold() -> None:
    panel = build_panel([[100.0], [100.0], [130.0]])
    result = trade(panel, replace(FREE, commission_bps=100.0))
    assert list_trades(result) == [(1, 2, 130.0, "end")]
    assert result.n_trades == 1
    np.testing.assert_allclose(result.equity[-1], 1000.0 / 1.01 * 1.3, rtol=1e-14)


def test_an_account_that_is_worth_nothing_is_closed() -> None:
    panel = build_panel([[100.0], [100.0], [250.0], [50.0], [50.0]])
    result = trade(panel, enter=(2,), short_entries=(0,))
    assert list_trades(result) == [(1, 2, 250.0, "ruined")]
    assert result.equity.tolist() == [1000.0, 1000.0, 0.0, 0.0, 0.0]


def test_a_strategy_that_never_trades_has_an_honest_empty_report() -> None:
    result = trade(build_panel(np.full((4, 1), 100.0)), enter=())
    assert result.trade_list is not None
    assert len(result.trade_list) == 0 and result.trade_list.to_frame().empty and math.isnan(result.trade_list.win_rate)
    assert result.metrics["sharpe"] is None and result.metrics["total_return"] == 0.0
    assert "0 trades" in repr(result.trade_list)


def test_the_win_rate_counts_closed_trades() -> None:
    panel = build_panel([[100.0], [100.0], [110.0], [100.0], [90.0], [90.0], [99.0]])
    result = trade(panel, enter=(0, 2, 4), exits=(1, 3))
    assert [row[3] for row in list_trades(result)] == ["signal", "signal", "end"]
    assert result.trade_list is not None and result.trade_list.win_rate == 0.5
    assert "<table" in result.trade_list._repr_html_()


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"stop_loss": 0.0}, ConfigurationError, r"`stop_loss` must be a fraction in \(0, 1\)"),
        ({"trailing_stop": 1.0}, ConfigurationError, "`trailing_stop`"),
        ({"take_profit": math.inf}, ConfigurationError, "`take_profit`"),
        ({"stop_loss": math.nan}, ConfigurationError, "was nan"),
        ({"size": 0.0}, ConfigurationError, "`size`"),
        ({"exits": np.zeros((2, 1), bool)}, ShapeError, r"shape of `entries`, \(4, 1\)"),
        ({"entries": np.ones((4, 1))}, ShapeError, "must be booleans"),
        ({"entries": np.ones(4, bool)}, ShapeError, "shape"),
    ],
)
def test_a_wrong_strategy_is_refused(given: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        SignalStrategy(**{"entries": np.zeros((4, 1), bool), **given})


def test_wrong_input_is_refused_with_its_place() -> None:
    panel = build_panel(np.full((5, 1), 100.0))
    strategy = SignalStrategy(entries=np.zeros((5, 1), bool))
    with pytest.raises(ShapeError, match=r"\(5, 1\)"):
        run_backtest(panel, SignalStrategy(entries=np.zeros((4, 1), bool)))
    with pytest.raises(DataError, match="`low` of S0 at bar 2"):
        run_backtest(replace(panel, low=np.array([[1.0], [1.0], [-1.0], [1.0], [1.0]])), strategy)
    with pytest.raises(MissingDataError, match="open"):
        run_backtest(panel, strategy, BacktestConfig(fill="open"))
    with pytest.raises(DataError, match="at least 3 bars"):
        run_backtest(panel.slice(0, 2), SignalStrategy(entries=np.zeros((2, 1), bool)))


def test_a_strategy_cannot_be_changed() -> None:
    strategy = SignalStrategy(entries=np.zeros((5, 1), bool), stop_loss=0.05)
    with pytest.raises(FrozenInstanceError):
        strategy.size = 2.0  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        strategy.entries[0, 0] = True
    assert repr(strategy) == "SignalStrategy(5 bars x 1 assets, 0 entries, stop_loss 0.05, size 1)"


def random_market(seed: int, *, n_bars: int = 60, n_assets: int = 3, gaps: float = 0.0, volatility: float = 0.03) -> Panel:
    """Random bars whose high and low hold open and close; some bars missing, some prices of a bar, some ends of a listing."""
    rng = np.random.default_rng(seed)
    close = 50.0 * np.cumprod(1.0 + volatility * rng.standard_normal((n_bars, n_assets)), axis=0)
    opened = close * (1.0 + 0.5 * volatility * rng.standard_normal(close.shape))
    high = np.maximum(opened, close) * (1.0 + 0.5 * volatility * rng.random(close.shape))
    low = np.minimum(opened, close) * (1.0 - 0.5 * volatility * rng.random(close.shape))
    columns = {"close": close, "open": opened, "high": high, "low": low}
    if gaps:
        missing = rng.random(close.shape) < gaps
        for j in range(n_assets):
            if rng.random() < 0.3:
                missing[int(rng.integers(n_bars // 2, n_bars)) :, j] = True
        columns = {
            name: np.where(missing | (rng.random(close.shape) < 0.3 * gaps), NAN, values) for name, values in columns.items()
        }
    return replace(build_panel(columns["close"], opened=columns["open"]), high=columns["high"], low=columns["low"])


def random_strategy(seed: int, panel: Panel, *, short: bool = True, often: float = 0.1) -> SignalStrategy:
    rng = np.random.default_rng(seed)
    draw = lambda rate: rng.random(panel.shape) < rate  # noqa: E731
    stop = lambda: None if rng.random() < 0.4 else float(rng.uniform(0.01, 0.15))  # noqa: E731
    return SignalStrategy(
        entries=draw(often),
        exits=draw(often),
        short_entries=draw(often) if short else None,
        short_exits=draw(often) if short else None,
        stop_loss=stop(),
        take_profit=stop(),
        trailing_stop=stop(),
        size=[None, 0.2, 0.6, 1.0][int(rng.integers(4))],
    )


@dataclass
class Position:
    """What the plain account holds of one asset."""

    bar: int
    side: int
    shares: float
    quoted: float
    paid: float
    best: float
    charged: float
    leaving: bool = False


class PlainAccount:
    """The rules of `run_backtest`, written again in plain Python, one order after the other."""

    def __init__(self, panel: Panel, strategy: SignalStrategy, config: BacktestConfig) -> None:
        self.panel, self.strategy, self.config = panel, strategy, config
        self.slip, self.fee = config.slippage_bps / 1e4, config.commission_bps / 1e4
        self.cash = config.initial_cash
        self.held: dict[int, Position] = {}
        self.known: dict[int, float] = {}
        self.trades: list[tuple[Any, ...]] = []
        self.equity: list[float] = []

    def price(self, name: str, t: int, j: int) -> float | None:
        values = getattr(self.panel, name)
        return None if values is None or math.isnan(values[t, j]) else float(values[t, j])

    def signal(self, name: str, t: int, j: int) -> bool:
        values = getattr(self.strategy, name)
        return values is not None and bool(values[t, j])

    def orders(self, t: int, j: int) -> set[str]:
        """What was decided at the bar before, without contradictions."""
        if t == 0:
            return set()
        long_in, long_out, short_in, short_out = (
            self.signal(name, t - 1, j) for name in ("entries", "exits", "short_entries", "short_exits")
        )
        if long_in and long_out:
            long_in = long_out = False
        if short_in and short_out:
            short_in = short_out = False
        if long_in and short_in:
            long_in = short_in = False
        names = ("buy", "sell", "short", "cover")
        return {name for name, asked in zip(names, (long_in, long_out, short_in, short_out), strict=True) if asked}

    def leave(self, t: int, j: int, price: float, reason: str) -> None:
        position = self.held.pop(j)
        got = price * (1 - position.side * self.slip)
        commission = position.shares * got * self.fee
        self.cash += position.side * position.shares * got - commission
        self.record(t, j, position, got, commission, reason)

    def record(self, t: int, j: int, position: Position, price: float, commission: float, reason: str) -> None:
        pnl = position.side * position.shares * (price - position.paid) - commission - position.charged
        self.trades.append((position.bar, j, t, position.side * position.shares, position.paid, price, pnl, reason))

    def watch_stops(self, t: int) -> set[int]:
        stopped = set()
        for j, position in sorted(self.held.items()):
            close = self.price("close", t, j)
            if close is None:
                continue
            opened, up, down = (self.price(name, t, j) for name in ("open", "high", "low"))
            side = position.side
            against, along = (down, up) if side > 0 else (up, down)
            prices = [close] if opened is None else [close, opened]
            worst = against if against is not None else (min(prices) if side > 0 else max(prices))
            peak = along if along is not None else (max(prices) if side > 0 else min(prices))
            levels = []
            if self.strategy.stop_loss is not None:
                levels.append((position.quoted * (1 - side * self.strategy.stop_loss), "stop_loss"))
            if self.strategy.trailing_stop is not None:
                levels.append((position.best * (1 - side * self.strategy.trailing_stop), "trailing_stop"))
            level, reason = max(levels, key=lambda pair: side * pair[0]) if levels else (None, "")
            start = close if opened is None else opened
            if level is not None and side * worst <= side * level:
                price = start if side * start < side * level else level
                self.leave(t, j, price, reason)
                stopped.add(j)
            elif self.strategy.take_profit is not None:
                target = position.quoted * (1 + side * self.strategy.take_profit)
                if side * peak >= side * target:
                    at_start = side * start > side * target and (opened is not None or along is None)
                    self.leave(t, j, start if at_start else target, "take_profit")
                    stopped.add(j)
            position.best = max(position.best, peak) if side > 0 else min(position.best, peak)
        return stopped

    def run(self) -> "PlainAccount":
        panel, config = self.panel, self.config
        at_open = config.fill == "open"
        last_close = [
            int(np.flatnonzero(~np.isnan(column))[-1]) if not np.isnan(column).all() else -1 for column in panel.close.T
        ]
        for t in range(panel.n_bars):
            held_before = {j: position.side for j, position in self.held.items()}
            for j, position in self.held.items():
                if position.side < 0:
                    fee = position.shares * self.known[j] * config.borrow_rate / config.periods_per_year
                    self.cash -= fee
                    position.charged += fee
            for j in range(panel.n_assets):
                self.known[j] = self.price(config.fill, t, j) or self.known.get(j, 0.0)
            stopped = set() if at_open else self.watch_stops(t)
            wanted: dict[int, int] = {}
            for j in range(panel.n_assets):
                orders, price = self.orders(t, j), self.price(config.fill, t, j)
                if j in self.held:
                    position = self.held[j]
                    position.leaving |= bool(orders & ({"sell", "short"} if position.side > 0 else {"cover", "buy"}))
                    if position.leaving and price is not None:
                        self.leave(t, j, price, "signal")
                side = 1 if "buy" in orders else -1 if "short" in orders else 0
                fresh = j not in held_before or held_before[j] == -side
                if side and j not in self.held and j not in stopped and fresh and price is not None and t <= last_close[j]:
                    wanted[j] = side
            if wanted:
                value = self.cash + sum(p.side * p.shares * self.known[j] for j, p in self.held.items())
                invested = sum(p.shares * self.known[j] for j, p in self.held.items())
                each = max(value - invested, 0.0) / len(wanted) if self.strategy.size is None else self.strategy.size * value
                each = min(each, (config.max_leverage * value - invested) / len(wanted))
                for j, side in wanted.items():
                    if each > 1e-12 * value:
                        quoted = self.known[j]
                        paid = quoted * (1 + side * self.slip)
                        shares = each / (paid * (1 + self.fee))
                        commission = shares * paid * self.fee
                        self.cash -= side * shares * paid + commission
                        self.held[j] = Position(t, side, shares, quoted, paid, quoted, commission)
            if at_open:
                self.watch_stops(t)
            for j in sorted(self.held):
                if t > last_close[j]:
                    self.leave(t, j, self.known[j], "delisted")
            for j in range(panel.n_assets):
                self.known[j] = self.price("close", t, j) or self.known[j]
            equity = self.cash + sum(p.side * p.shares * self.known[j] for j, p in self.held.items())
            if equity <= 0:
                for j in sorted(self.held):
                    self.record(t, j, self.held.pop(j), self.known[j], 0.0, "ruined")
                self.cash = equity = 0.0
            self.equity.append(equity)
        for j, position in sorted(self.held.items()):
            self.record(panel.n_bars - 1, j, position, self.known[j], 0.0, "end")
        self.trades.sort(key=lambda row: row[:2])
        return self


def check_against_plain_python(panel: Panel, strategy: SignalStrategy, config: BacktestConfig) -> BacktestResult:
    result = run_backtest(panel, strategy, config, keep_positions=True)
    plain = PlainAccount(panel, strategy, config).run()
    np.testing.assert_allclose(result.equity, plain.equity, rtol=1e-9, atol=1e-6)
    assert result.trade_list is not None
    frame = result.trade_list.to_frame()
    symbols = {symbol: column for column, symbol in enumerate(panel.symbols)}
    assert [(row[0], row[1], row[2], row[7]) for row in plain.trades] == [
        (row.entry_bar, symbols[row.symbol], row.exit_bar, row.reason) for row in frame.itertuples()
    ]
    expected = np.array([row[3:7] for row in plain.trades]).reshape(-1, 4)
    np.testing.assert_allclose(frame[["shares", "entry_price", "exit_price", "pnl"]], expected, rtol=1e-9, atol=1e-6)
    return result


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1_000_000), fill=st.sampled_from(["close", "open"]), gaps=st.sampled_from([0.0, 0.0, 0.15]))
def test_the_kernel_keeps_the_account_of_plain_python(seed: int, fill: str, gaps: float) -> None:
    panel = random_market(seed, gaps=gaps)
    config = replace(COSTLY, fill=fill, max_leverage=[0.5, 2.0][seed % 2])
    check_against_plain_python(panel, random_strategy(seed + 1, panel), config)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1_000_000), dropped=st.sampled_from([("open",), ("high", "low"), ("open", "high", "low"), ("low",)]))
def test_panels_that_lack_prices_keep_the_account_of_plain_python(seed: int, dropped: tuple[str, ...]) -> None:
    panel = replace(random_market(seed), **dict.fromkeys(dropped))
    check_against_plain_python(panel, random_strategy(seed + 1, panel), COSTLY)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1_000_000), fill=st.sampled_from(["close", "open"]))
def test_cash_and_positions_are_the_equity_and_trades_add_up_to_it(seed: int, fill: str) -> None:
    panel = random_market(seed, gaps=0.1)
    result = run_backtest(panel, random_strategy(seed + 1, panel), replace(COSTLY, fill=fill), keep_positions=True)
    assert result.positions is not None and result.trade_list is not None
    known = np.zeros(panel.n_assets)
    for t in range(panel.n_bars):
        if fill == "open":
            known = np.where(np.isnan(panel.get("open")[t]), known, panel.get("open")[t])
        known = np.where(np.isnan(panel.close[t]), known, panel.close[t])
        assert result.cash[t] + result.positions[t] @ known == pytest.approx(result.equity[t], rel=1e-9)
    records = result.trade_list.records
    assert records["pnl"].sum() == pytest.approx(result.equity[-1] - COSTLY.initial_cash, abs=1e-4)
    assert (records["entry_bar"] >= 1).all() and (records["exit_bar"] >= records["entry_bar"]).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1_000_000), cut=st.integers(10, 50), fill=st.sampled_from(["close", "open"]))
def test_no_fill_before_its_decision(seed: int, cut: int, fill: str) -> None:
    """What comes after a bar, signals of the bar itself included, changes nothing up to it."""
    panel = random_market(seed)
    strategy, other = random_strategy(seed + 1, panel), random_strategy(seed + 2, panel)
    later = random_market(seed + 3)
    ahead = np.arange(panel.n_bars)[:, None] > cut
    mixed_panel = replace(
        panel, **{name: np.where(ahead, later.get(name), panel.get(name)) for name in ("open", "high", "low", "close")}
    )
    ahead = np.arange(panel.n_bars)[:, None] >= cut
    names = ("entries", "exits", "short_entries", "short_exits")
    mixed = replace(strategy, **{name: np.where(ahead, getattr(other, name), getattr(strategy, name)) for name in names})
    config = replace(COSTLY, fill=fill)
    first, second = run_backtest(panel, strategy, config), run_backtest(mixed_panel, mixed, config)
    assert np.array_equal(first.equity[: cut + 1], second.equity[: cut + 1])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1_000_000))
def test_permuting_assets_permutes_the_trades(seed: int) -> None:
    panel = random_market(seed, n_assets=4, gaps=0.1)
    strategy = random_strategy(seed + 1, panel)
    order = np.random.default_rng(seed).permutation(4)
    names = ("entries", "exits", "short_entries", "short_exits")
    turned = replace(strategy, **{name: getattr(strategy, name)[:, order] for name in names})
    first = run_backtest(panel, strategy, COSTLY)
    second = run_backtest(panel.select([panel.symbols[j] for j in order]), turned, COSTLY)
    np.testing.assert_allclose(first.equity, second.equity, rtol=1e-10)
    assert first.trade_list is not None and second.trade_list is not None
    one, two = (
        result.trade_list.to_frame().sort_values(["entry_bar", "symbol"], ignore_index=True)  # type: ignore[union-attr]
        for result in (first, second)
    )
    assert one[["symbol", "entry_bar", "exit_bar", "reason"]].equals(two[["symbol", "entry_bar", "exit_bar", "reason"]])
    np.testing.assert_allclose(one["pnl"], two["pnl"], rtol=1e-8, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1_000_000))
def test_doubling_capital_doubles_profit(seed: int) -> None:
    panel = random_market(seed)
    strategy = random_strategy(seed + 1, panel)
    once = run_backtest(panel, strategy, COSTLY)
    twice = run_backtest(panel, strategy, replace(COSTLY, initial_cash=2.0 * COSTLY.initial_cash))
    np.testing.assert_allclose(twice.equity, 2.0 * once.equity, rtol=1e-12)


def test_costs_are_told_apart() -> None:
    panel = build_panel(np.full((4, 1), 100.0))
    config = replace(FREE, commission_bps=100.0, slippage_bps=200.0, borrow_rate=0.252)
    result = trade(panel, config, enter=(), short_entries=(0,), size=0.5)
    shares = 500.0 / (98.0 * 1.01)
    assert result.commission is not None and result.slippage is not None and result.borrow is not None
    np.testing.assert_allclose(result.commission[:2], [0.0, shares * 0.98 / 1000.0], rtol=1e-12)
    np.testing.assert_allclose(result.slippage[:2], [0.0, shares * 2.0 / 1000.0], rtol=1e-12)
    np.testing.assert_allclose(result.borrow[2], shares * 100.0 * 0.001 / result.equity[1], rtol=1e-12)
    np.testing.assert_allclose(result.costs, result.commission + result.slippage + result.borrow, rtol=1e-14)
    assert not np.any(result.impact) and not np.any(result.interest)


def test_options_that_only_weights_obey_are_refused() -> None:
    panel = build_panel(np.full((4, 1), 100.0))
    with pytest.raises(ConfigurationError, match="only target weights obey lot_size"):
        trade(panel, replace(FREE, lot_size=100.0))
