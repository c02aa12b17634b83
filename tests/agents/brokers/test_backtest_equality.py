"""The same orders fill at the same bars, prices, quantities and fees through the matching rules as in the backtest."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from agents.brokers.broker import Execution
from agents.brokers.matching import MatchingRules, WorkingOrder, match_bars
from agents.trading.market_data import Bar
from backtest import BacktestConfig, run_backtest
from backtest.engine import BacktestResult
from backtest.signal_kernel import LONG_ENTRY, LONG_EXIT, REASONS, SHORT_ENTRY, SHORT_EXIT
from backtest.signals import SignalStrategy
from core.market import Panel, load_dataset
from core.types import Side

FloatArray = npt.NDArray[np.float64]
SMALLEST = 1e-9


def rules_of(config: BacktestConfig) -> MatchingRules:
    return MatchingRules(
        commission_bps=config.commission_bps,
        commission_per_share=config.commission_per_share,
        minimum_commission=config.minimum_commission,
        slippage_bps=config.slippage_bps,
        participation_limit=config.participation_limit,
        lot_size=config.lot_size or SMALLEST,
    )


def gappy(seed: int, *, n_bars: int = 400, n_assets: int = 4, missing: float = 0.02) -> Panel:
    """A market that jumps between bars, and has holes."""
    rng = np.random.default_rng(seed)
    shape = (n_bars, n_assets)
    gaps, moves = rng.standard_t(3, shape) * 0.02, rng.normal(0.0, 0.02, shape)
    opened = 50.0 * np.exp(np.cumsum(gaps + moves, axis=0) - moves)
    close = opened * np.exp(moves)
    high = np.maximum(opened, close) * (1.0 + rng.exponential(0.01, shape))
    low = np.minimum(opened, close) * (1.0 - np.minimum(rng.exponential(0.01, shape), 0.5))
    volume = np.round(rng.lognormal(7.0, 1.5, shape))
    hole = rng.random(shape) < missing
    hole[[0, -1]] = False
    columns = {
        name: np.where(hole, np.nan, values)
        for name, values in zip(("open", "high", "low", "close", "volume"), (opened, high, low, close, volume), strict=True)
    }
    index = pd.date_range("2020-01-01 21:00", periods=n_bars, freq="D", tz="UTC")
    return Panel(index=index, symbols=tuple(f"S{column}" for column in range(n_assets)), name="gappy", **columns)


def bars_of(panel: Panel, fill: Literal["open", "close"]) -> list[list[Bar | None]]:
    """Every bar; of one price, the close, where that is what fills."""
    names = ("open", "high", "low", "close") if fill == "open" else ("close",) * 4
    columns = np.stack([panel.get(name) for name in names])
    volume = panel.volume if panel.volume is not None else np.full(panel.shape, np.nan)
    times = [time.to_pydatetime() for time in panel.index]
    rows: list[list[Bar | None]] = []
    for t, at in enumerate(times):
        row: list[Bar | None] = []
        for j, symbol in enumerate(panel.symbols):
            opened, high, low, close = (float(price) for price in columns[:, t, j])
            known = None if np.isnan(volume[t, j]) else float(volume[t, j])
            empty = np.isnan(close)
            row.append(None if empty else Bar(symbol=symbol, at=at, open=opened, high=high, low=low, close=close, volume=known))
        rows.append(row)
    return rows


@dataclass
class Replay:
    """A broker of one page: what works, and what was filled, by bar and asset."""

    rules: MatchingRules
    working: dict[int, list[WorkingOrder]] = field(default_factory=lambda: defaultdict(list))
    fills: dict[tuple[int, int], list[Execution]] = field(default_factory=lambda: defaultdict(list))
    count: int = 0

    def place(self, panel: Panel, t: int, j: int, shares: float, **more: Any) -> None:
        self.count += 1
        order = WorkingOrder(
            client_order_id=f"o{self.count}",
            order_id=str(self.count),
            symbol=panel.symbols[j],
            side=Side.BUY if shares > 0.0 else Side.SELL,
            qty=abs(shares),
            placed_at=panel.index[t - 1].to_pydatetime(),
            **more,
        )
        self.working[j].append(order)

    def cancel(self, j: int) -> None:
        self.working[j] = []

    def meet(self, t: int, j: int, bar: Bar) -> None:
        changed, fills = match_bars(self.working[j], bar, self.rules)
        after = {order.client_order_id: order for order in changed}
        orders = [after.get(order.client_order_id, order) for order in self.working[j]]
        self.working[j] = [order for order in orders if order.is_working or order.has_living_exits]
        self.fills[t, j] += fills


def draw_signals(panel: Panel, seed: int, **stops: float) -> SignalStrategy:
    rng = np.random.default_rng(seed)
    draws = [rng.random(panel.shape) < chance for chance in (0.04, 0.02, 0.04, 0.02)]
    names = ("entries", "exits", "short_entries", "short_exits")
    return SignalStrategy(**dict(zip(names, draws, strict=True)), size=0.2, **stops)


def replay_signals(panel: Panel, strategy: SignalStrategy, config: BacktestConfig, result: BacktestResult) -> Replay:
    """Send the entries that the backtest sized as brackets, and exit signals as a cancel and a market order."""
    assert result.trade_list is not None
    entries = {(row["asset"], row["entry_bar"]): round(float(row["shares"]), 9) for row in result.trade_list.records}
    actions = strategy.build_actions()
    leave = {1.0: LONG_EXIT | SHORT_ENTRY, -1.0: SHORT_EXIT | LONG_ENTRY, 0.0: 0}
    price = panel.get(config.fill)
    replay = Replay(rules_of(config))
    held = np.zeros(panel.n_assets)
    for t, row in enumerate(bars_of(panel, config.fill)):
        for j, bar in enumerate(row):
            if t and actions[t - 1, j] & leave[np.sign(held[j])] and all(order.is_bracket for order in replay.working[j]):
                replay.cancel(j)
                replay.place(panel, t, j, -float(held[j]))
            if bar is None:
                continue
            if shares := entries.get((j, t)):
                side = np.sign(shares)
                stop = float(price[t, j] * (1.0 - side * strategy.stop_loss))
                target = float(price[t, j] * (1.0 + side * strategy.take_profit))
                replay.place(panel, t, j, shares, stop_loss_price=stop, take_profit_price=target)
            replay.meet(t, j, bar)
            held[j] = round(held[j] + signed(replay.fills[t, j]), 9)
    return replay


def signed(fills: list[Execution]) -> float:
    return sum(fill.qty if fill.side is Side.BUY else -fill.qty for fill in fills)


def fees(replay: Replay, panel: Panel) -> FloatArray:
    """Commission of each bar, in currency."""
    paid = np.zeros(panel.n_bars)
    for (t, _), fills in replay.fills.items():
        paid[t] += sum(fill.commission for fill in fills)
    return paid


def charged(result: BacktestResult) -> FloatArray:
    """What the backtest charged as commission at each bar, in currency."""
    assert result.commission is not None
    return result.commission * np.concatenate([[result.config.initial_cash], result.equity[:-1]])


SIGNAL_CASES = {
    **{f"gappy {seed}": (gappy(seed), "open") for seed in (1, 2, 3)},
    "gappy at the close": (gappy(4).replace(open=None, high=None, low=None), "close"),
    "nasdaq": (load_dataset("nasdaq").slice(0, 1500), "open"),
    "sp500": (load_dataset("sp500").slice(2000, 3500), "open"),
    "sp500_20 at the close": (load_dataset("sp500_20").slice(0, 500), "close"),
}


@pytest.mark.parametrize("name", SIGNAL_CASES)
@pytest.mark.parametrize(("stop", "target"), [(0.03, 0.06), (0.02, 0.02)])
def test_signals_with_stops_fill_as_in_the_backtest(name: str, stop: float, target: float) -> None:
    panel, fill = SIGNAL_CASES[name]
    config = BacktestConfig(fill=fill, commission_bps=7.0, slippage_bps=9.0, borrow_rate=0.0)
    strategy = draw_signals(panel, seed=5, stop_loss=stop, take_profit=target)
    result = run_backtest(panel, strategy, config)
    assert result.trade_list is not None
    replay = replay_signals(panel, strategy, config, result)

    expected: dict[tuple[int, int], list[tuple[float, float, str]]] = defaultdict(list)
    for row in result.trade_list.records:
        shares, reason = row["shares"], REASONS[row["reason"]]
        expected[row["exit_bar"], row["asset"]] += [] if reason == "end" else [(-shares, row["exit_price"], reason)]
        expected[row["entry_bar"], row["asset"]].append((shares, row["entry_price"], "entry"))
    reasons = [reason for orders in expected.values() for _, _, reason in orders]
    assert reasons.count("stop_loss") > 3
    assert reasons.count("take_profit") > 3
    assert {place for place, fills in replay.fills.items() if fills} == {place for place, orders in expected.items() if orders}
    for place, orders in expected.items():
        fills = replay.fills[place]
        got = sorted((signed([fill]), fill.price, fill.leg.value) for fill in fills)
        wanted = sorted(orders)
        assert len(got) == len(wanted), place
        for (qty, price, leg), (shares, at, reason) in zip(got, wanted, strict=True):
            assert (qty, price) == (pytest.approx(shares, rel=1e-9), pytest.approx(at, rel=1e-9)), (place, reason)
            # At the close a stop and an exit signal come at the same price; the backtest names the stop.
            assert fill == "close" or leg == (reason if reason in ("stop_loss", "take_profit") else "entry")
    np.testing.assert_allclose(fees(replay, panel), charged(result), rtol=1e-9, atol=1e-9)


def replay_weights(panel: Panel, weights: FloatArray, config: BacktestConfig) -> tuple[Replay, FloatArray, FloatArray]:
    """Size orders from the replay's own book; return it with the shares held and the cash after each bar."""
    assert config.lot_size is not None
    replay = Replay(rules_of(config))
    price = panel.get(config.fill)
    held, last, cash = np.zeros(panel.n_assets), np.zeros(panel.n_assets), config.initial_cash
    positions, money = np.zeros(panel.shape), np.zeros(panel.n_bars)
    for t, row in enumerate(bars_of(panel, config.fill)):
        last = np.where(np.isnan(price[t]), last, price[t])
        value = cash + float(held @ last)
        rebalance = t > 0 and not np.isnan(weights[t - 1]).any()
        for j, bar in enumerate(row):
            if rebalance:
                replay.cancel(j)
                wanted = weights[t - 1, j] * value / price[t, j] - held[j]
                lots = 0.0 if np.isnan(wanted) else np.floor(abs(wanted) / config.lot_size + 1e-9)
                if lots:
                    replay.place(panel, t, j, float(np.copysign(lots * config.lot_size, wanted)))
            if bar is None:
                continue
            replay.meet(t, j, bar)
            for fill in replay.fills[t, j]:
                cash -= signed([fill]) * fill.price + fill.commission
            held[j] += signed(replay.fills[t, j])
        close = panel.close[t]
        last = np.where(np.isnan(close), last, close)
        positions[t], money[t] = held, cash
    return replay, positions, money


def draw_weights(panel: Panel, seed: int) -> FloatArray:
    """A new target every few bars, held in between."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(-0.3, 0.4, panel.shape) * min(1.0, 4.0 / panel.n_assets)
    weights[rng.random(panel.n_bars) < 0.7] = np.nan
    return weights


WEIGHT_CASES = {
    **{f"gappy {seed}": (gappy(seed, missing=0.02), "open", 0.05) for seed in (6, 7)},
    "gappy at the close, no limit": (gappy(8), "close", None),
    "nasdaq": (load_dataset("nasdaq").slice(0, 1500), "open", 1e-5),
    "sp500_20 at the close": (load_dataset("sp500_20").slice(0, 500), "close", None),
}


@pytest.mark.parametrize("name", WEIGHT_CASES)
@pytest.mark.parametrize("lot", [1.0, 25.0])
def test_weights_in_lots_fill_as_in_the_backtest(name: str, lot: float) -> None:
    panel, fill, limit = WEIGHT_CASES[name]
    config = BacktestConfig(
        fill=fill,
        lot_size=lot,
        participation_limit=limit,
        commission_bps=3.0,
        commission_per_share=0.002,
        minimum_commission=1.5,
        slippage_bps=9.0,
        borrow_rate=0.0,
        initial_cash=100_000.0 if limit != 1e-5 else 5e7,
    )
    weights = draw_weights(panel, seed=9)
    result = run_backtest(panel, weights, config, keep_positions=True)
    assert result.positions is not None
    replay, positions, cash = replay_weights(panel, weights, config)

    fills = [fill for several in replay.fills.values() for fill in several]
    assert len(fills) > 50
    if limit is not None:
        parts = pd.Series([fill.client_order_id for fill in fills]).value_counts()
        assert (parts > 1).sum() > 5, "the volume cuts orders into parts"
    np.testing.assert_allclose(positions, result.positions, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(
        [sum(bool(replay.fills[t, j]) for j in range(panel.n_assets)) for t in range(panel.n_bars)], result.trades
    )
    np.testing.assert_allclose(fees(replay, panel), charged(result), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(cash, result.cash, rtol=1e-9)
