import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest import BacktestConfig, run_backtest, run_sweep
from backtest.engine import COST_SERIES
from core.errors import DataError, MissingDataError
from core.market.panel import Panel
from tests.backtest.conftest import build_panel, random_book

FREE = BacktestConfig(commission_bps=0.0, slippage_bps=0.0, borrow_rate=0.0)
NAN = np.nan
SEEDS = st.integers(0, 10_000)
CONFIGS = st.builds(
    BacktestConfig,
    initial_cash=st.sampled_from([1e4, 1e6, 1e8]),
    fill=st.sampled_from(["close", "open"]),
    commission_bps=st.sampled_from([0.0, 10.0]),
    slippage_bps=st.sampled_from([0.0, 20.0]),
    borrow_rate=st.sampled_from([0.0, 0.5]),
    commission_per_share=st.sampled_from([0.0, 0.01]),
    minimum_commission=st.sampled_from([0.0, 3.0]),
    impact_coefficient=st.sampled_from([0.0, 1.0, 50.0]),
    participation_limit=st.sampled_from([None, 0.01, 0.3, 1.0]),
    lot_size=st.sampled_from([None, 0.1, 7.0, 100.0]),
    cash_rate=st.sampled_from([0.0, 0.3]),
    margin_rate=st.sampled_from([0.0, 0.6]),
    delisting_bars=st.sampled_from([None, 1, 3]),
)


def build_market(seed: int, *, gaps: float, n_bars: int = 45, n_assets: int = 4) -> tuple[Panel, np.ndarray]:
    """A book with opens, volumes, missing prices, a delisted asset, missing and zero volumes, and rows that hold."""
    panel, weights = random_book(seed, n_bars, n_assets)
    rng = np.random.default_rng(seed)
    volume = rng.lognormal(9.0, 2.0, panel.shape)
    volume[rng.random(panel.shape) < gaps] = NAN
    volume[rng.random(panel.shape) < gaps] = 0.0
    close = np.where(rng.random(panel.shape) < gaps, NAN, panel.close)
    opened = np.where(rng.random(panel.shape) < gaps, NAN, panel.get("open"))
    if gaps:
        gone = int(rng.integers(n_bars // 2, n_bars))
        close[gone:, 0] = opened[gone:, 0] = NAN
        weights[rng.random(n_bars) < 0.4] = NAN
    return panel.replace(close=close, open=opened, volume=volume), weights * rng.uniform(0.2, 2.0)


class PlainAccount:
    """The whole execution model in plain Python, one order after the other; sizes are counted in lots."""

    def __init__(self, panel: Panel, weights: np.ndarray, config: BacktestConfig) -> None:
        self.panel, self.weights, self.config = panel, weights, config
        self.cash = self.equity = config.initial_cash
        self.shares = [0.0] * panel.n_assets
        self.known: list[float] = [0.0] * panel.n_assets
        self.working: dict[int, float] = {}
        self.missing = [0] * panel.n_assets
        self.rows: list[dict[str, Any]] = []

    def run(self) -> dict[str, np.ndarray]:
        for t in range(self.panel.n_bars):
            self.rows.append(self.live(t))
        return {name: np.array([row[name] for row in self.rows]) for name in self.rows[0]}

    def live(self, t: int) -> dict[str, Any]:
        config, before = self.config, self.equity
        paid = dict.fromkeys(COST_SERIES, 0.0)
        short = sum(-n * p for n, p in zip(self.shares, self.known, strict=True) if n < 0)
        paid["borrow"] = short * config.borrow_rate / config.periods_per_year
        if t > 0:
            rate = config.cash_rate if self.cash > 0 else config.margin_rate
            paid["interest"] = -self.cash * rate / config.periods_per_year
        self.cash -= paid["borrow"] + paid["interest"]
        self.see(self.panel.get(config.fill)[t])
        value = self.worth()
        traded, filled = 0.0, [0.0] * self.panel.n_assets
        if t > 0 and value > 0 and self.equity > 0:
            row = self.weights[t - 1]
            if not np.isnan(row).all():
                self.working = {
                    j: weight * value / self.panel.get(config.fill)[t, j]
                    for j, weight in enumerate(row)
                    if not math.isnan(self.panel.get(config.fill)[t, j])
                }
            for j in sorted(self.working):
                price = self.panel.get(config.fill)[t, j]
                if math.isnan(price):
                    continue
                filled[j] = self.trade(t, j, price, value, paid)
                traded += abs(filled[j]) * price
        self.see(self.panel.close[t])
        for j in range(self.panel.n_assets):
            unseen = math.isnan(self.panel.close[t, j]) and math.isnan(self.panel.get(config.fill)[t, j])
            self.missing[j] = self.missing[j] + 1 if unseen else 0
            if config.delisting_bars is not None and self.missing[j] >= config.delisting_bars:
                self.cash += self.shares[j] * self.known[j]
                self.shares[j] = 0.0
                self.working.pop(j, None)
        self.equity = self.worth()
        if self.equity <= 0 or before <= 0:
            self.equity = self.cash = 0.0
            self.shares = [0.0] * self.panel.n_assets
        held = [n * p for n, p in zip(self.shares, self.known, strict=True)]
        scale = 1.0 / before if before > 0 else 0.0
        return {
            "equity": self.equity,
            "cash": self.cash,
            "net_returns": self.equity / before - 1.0 if before > 0 else 0.0,
            "turnover": traded / value if traded else 0.0,
            "exposure": sum(map(abs, held)) / self.equity if self.equity else 0.0,
            "net_exposure": sum(held) / self.equity if self.equity else 0.0,
            "trades": sum(size != 0 for size in filled),
            "positions": list(self.shares),
            **{name: amount * scale for name, amount in paid.items()},
        }

    def trade(self, t: int, j: int, price: float, value: float, paid: dict[str, float]) -> float:
        config, aim = self.config, self.working[j]
        size = abs(aim - self.shares[j])
        side = 1.0 if aim > self.shares[j] else -1.0
        if size * price <= 1e-12 * value:
            self.working.pop(j)
            return 0.0
        most, move_at_all, volume = math.inf, 0.0, math.nan
        if config.needs_volume:
            assert self.panel.volume is not None
            volume = self.panel.volume[t, j]
            past = self.panel.close[max(t - 21, 0) : t, j]
            returns = past[1:] / past[:-1] - 1.0 if len(past) > 1 else np.array([])
            returns = returns[~np.isnan(returns)]
            move_at_all = np.std(returns, ddof=1) if len(returns) >= 10 else math.nan
            if math.isnan(volume) or volume == 0 or (config.impact_coefficient and math.isnan(move_at_all)):
                most = 0.0
            elif config.participation_limit is not None:
                most = config.participation_limit * volume
        if size <= most:
            self.working.pop(j)
        if config.lot_size is not None:
            lots = math.floor(size / config.lot_size + 1e-9)
            size = config.lot_size * (lots if most == math.inf else min(lots, math.floor(most / config.lot_size)))
        else:
            size = min(size, most)
        if size == 0.0:
            return 0.0
        s = config.slippage_bps / 1e4
        impact = 0.0
        if config.impact_coefficient:
            impact = min(config.impact_coefficient * move_at_all * math.sqrt(size / volume), 1.0 - s)
        money = size * price * (1.0 + side * (s + impact))
        commission = max(money * config.commission_bps / 1e4 + size * config.commission_per_share, config.minimum_commission)
        self.cash -= side * money + commission
        self.shares[j] += side * size
        paid["commission"] += commission
        paid["slippage"] += size * price * s
        paid["impact"] += size * price * impact
        return side * size

    def see(self, prices: np.ndarray) -> None:
        self.known = [old if math.isnan(new) else float(new) for old, new in zip(self.known, prices, strict=True)]

    def worth(self) -> float:
        return self.cash + sum(n * p for n, p in zip(self.shares, self.known, strict=True))


def check_same_account(panel: Panel, weights: np.ndarray, config: BacktestConfig) -> None:
    expected = PlainAccount(panel, weights, config).run()
    result = run_backtest(panel, weights, config, keep_positions=True)
    scale = config.initial_cash
    for name, values in expected.items():
        tolerance = scale * 1e-9 if name in {"equity", "cash", "positions"} else 1e-9
        np.testing.assert_allclose(getattr(result, name), values, rtol=1e-8, atol=tolerance, err_msg=name)


@settings(max_examples=150, deadline=None)
@given(seed=SEEDS, config=CONFIGS, gaps=st.sampled_from([0.0, 0.15]))
def test_every_option_keeps_the_account_of_plain_python(seed: int, config: BacktestConfig, gaps: float) -> None:
    check_same_account(*build_market(seed, gaps=gaps), config)


@pytest.mark.exhaustive
@settings(max_examples=4_000, deadline=None)
@given(seed=SEEDS, config=CONFIGS, gaps=st.sampled_from([0.0, 0.15]))
def test_every_option_keeps_the_account_of_plain_python_many_times(seed: int, config: BacktestConfig, gaps: float) -> None:
    check_same_account(*build_market(seed, gaps=gaps), config)


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, config=CONFIGS, gaps=st.sampled_from([0.0, 0.15]))
def test_the_books_balance_whatever_is_in_force(seed: int, config: BacktestConfig, gaps: float) -> None:
    panel, weights = build_market(seed, gaps=gaps)
    result = run_backtest(panel, weights, config, keep_positions=True)
    known = np.zeros(panel.n_assets)
    assert result.positions is not None
    for t in range(panel.n_bars):
        for prices in (panel.get(config.fill)[t], panel.close[t]):
            known = np.where(np.isnan(prices), known, prices)
        assert result.cash[t] + result.positions[t] @ known == pytest.approx(result.equity[t], abs=1e-9 * config.initial_cash)
    parts = sum(getattr(result, name) for name in COST_SERIES)
    np.testing.assert_allclose(result.costs, parts, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(result.gross_returns, result.net_returns + result.costs, rtol=1e-12, atol=1e-15)
    assert all(np.isfinite(getattr(result, name)).all() for name in ("equity", "turnover", "exposure", *COST_SERIES))
    assert all(value is None or math.isfinite(value) for value in result.metrics.values())


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, config=CONFIGS)
def test_no_order_takes_more_than_its_part_of_the_volume_nor_a_broken_lot(seed: int, config: BacktestConfig) -> None:
    panel, weights = build_market(seed, gaps=0.15)
    config = replace(config, participation_limit=config.participation_limit or 0.05, delisting_bars=None)
    result = run_backtest(panel, weights, config, keep_positions=True)
    assert result.positions is not None
    assert panel.volume is not None
    alive = result.equity > 0.0
    orders = np.abs(np.diff(result.positions, axis=0, prepend=0.0))[alive]
    room = np.nan_to_num(config.participation_limit * panel.volume)[alive]
    assert (orders <= room * (1.0 + 1e-9) + 1e-9).all()
    assert not orders[np.isnan(panel.get(config.fill))[alive]].any()
    if config.lot_size is not None:
        lots = result.positions[alive] / config.lot_size
        np.testing.assert_allclose(lots, np.rint(lots), rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, config=CONFIGS, cut=st.integers(3, 44))
def test_options_look_at_nothing_that_comes_later(seed: int, config: BacktestConfig, cut: int) -> None:
    panel, weights = build_market(seed, gaps=0.15)
    whole = run_backtest(panel, weights, config, keep_positions=True)
    part = run_backtest(panel.slice(0, cut), weights[:cut], config, keep_positions=True)
    for name in ("equity", "net_returns", "costs", "turnover", "cash", "trades", "positions", *COST_SERIES):
        np.testing.assert_array_equal(getattr(whole, name)[:cut], getattr(part, name))


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, config=CONFIGS, gaps=st.sampled_from([0.0, 0.15]))
def test_neither_the_order_of_assets_nor_the_dates_matter(seed: int, config: BacktestConfig, gaps: float) -> None:
    panel, weights = build_market(seed, gaps=gaps)
    config = replace(config, lot_size=None)  # the last bit of equity may decide about a lot
    order = np.random.default_rng(seed).permutation(panel.n_assets)
    moved = panel.select([panel.symbols[i] for i in order])
    moved = Panel(
        index=moved.index - np.timedelta64(9_000, "D"),
        symbols=moved.symbols,
        close=moved.close,
        open=moved.open,
        volume=moved.volume,
    )
    one = run_backtest(panel, weights, config, keep_positions=True)
    other = run_backtest(moved, weights[:, order], config, keep_positions=True)
    assert one.positions is not None
    np.testing.assert_allclose(other.equity, one.equity, rtol=1e-9, atol=1e-9 * config.initial_cash)
    np.testing.assert_allclose(other.positions, one.positions[:, order], rtol=1e-8, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, config=CONFIGS, gaps=st.sampled_from([0.0, 0.15]))
def test_doubling_capital_doubles_profit_where_nothing_depends_on_size(seed: int, config: BacktestConfig, gaps: float) -> None:
    panel, weights = build_market(seed, gaps=gaps)
    config = replace(config, impact_coefficient=0.0, participation_limit=None, lot_size=None, minimum_commission=0.0)
    one = run_backtest(panel, weights, config)
    two = run_backtest(panel, weights, replace(config, initial_cash=2.0 * config.initial_cash))
    np.testing.assert_allclose(two.equity, 2.0 * one.equity, rtol=1e-11)
    np.testing.assert_allclose(two.costs, one.costs, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, config=CONFIGS)
def test_wanting_nothing_costs_nothing(seed: int, config: BacktestConfig) -> None:
    panel, _ = build_market(seed, gaps=0.15)
    result = run_backtest(panel, np.zeros(panel.shape), replace(config, cash_rate=0.0))
    assert (result.equity == config.initial_cash).all()
    assert not result.costs.any()
    assert result.n_trades == 0


RAISED = {
    "commission_bps": 15.0,
    "slippage_bps": 15.0,
    "borrow_rate": 0.5,
    "commission_per_share": 0.05,
    "minimum_commission": 50.0,
    "impact_coefficient": 1.0,
    "margin_rate": 0.5,
}


@settings(max_examples=150, deadline=None)
@given(seed=SEEDS, config=CONFIGS, name=st.sampled_from(sorted(RAISED)))
def test_costs_never_help_where_every_order_is_filled(seed: int, config: BacktestConfig, name: str) -> None:
    """A dearer account holds the same book, smaller by its loss; what it saves on smaller trades is of second order.

    So this holds where all orders are filled in full (no limit, no lots, no missing price) and where, from one trade to the
    next, marginal cost rate x leverage x equity over next equity stays below one half. With whole lots, with unfilled orders,
    or with an impact that eats the account, the cheaper one may hold more of a loser, and lose.
    """
    panel, weights = build_market(seed, gaps=0.0)
    assert panel.volume is not None
    panel = panel.replace(volume=1e4 * panel.volume)
    weights[np.random.default_rng(seed).random(len(weights)) < 0.4] = NAN
    weights[:11] = 0.0  # impact needs ten returns
    config = replace(config, participation_limit=None, lot_size=None, impact_coefficient=min(config.impact_coefficient, 1.0))
    config = replace(config, initial_cash=1e6)
    cheap = run_backtest(panel, weights, config)
    dear = run_backtest(panel, weights, replace(config, **{name: getattr(config, name) + RAISED[name]}))
    assert (dear.equity <= cheap.equity * (1.0 + 1e-12)).all()
    assert dear.equity[-1] < cheap.equity[-1] or (dear.costs == cheap.costs).all()


@pytest.mark.parametrize("fill", ["close", "open"])
def test_an_option_that_never_binds_changes_nothing(fill: str) -> None:
    panel, weights = build_market(4, gaps=0.15)
    config = BacktestConfig(fill=fill)  # type: ignore[arg-type]
    plain = run_backtest(panel, weights, config, keep_positions=True)
    other = run_backtest(panel, weights, replace(config, delisting_bars=10_000), keep_positions=True)
    for name in ("equity", "cash", "net_returns", "gross_returns", "turnover", "exposure", "positions", *COST_SERIES):
        np.testing.assert_allclose(getattr(other, name), getattr(plain, name), rtol=1e-11, atol=1e-14, err_msg=name)
    np.testing.assert_array_equal(other.trades, plain.trades)


def test_options_at_their_defaults_leave_every_bit_as_it_is() -> None:
    panel, weights = build_market(4, gaps=0.15)
    plain = run_backtest(panel, weights)
    off = BacktestConfig(commission_per_share=0, minimum_commission=0, impact_coefficient=0, cash_rate=0, margin_rate=0)
    assert off.options == ()
    np.testing.assert_array_equal(run_backtest(panel.replace(volume=None), weights, off).equity, plain.equity)  # type: ignore[arg-type]


def test_commission_per_share_and_its_minimum_by_hand() -> None:
    panel = build_panel([[100.0, 50.0]] * 4)
    config = replace(FREE, initial_cash=10_000.0, commission_bps=10.0, commission_per_share=0.01, minimum_commission=4.0)
    result = run_backtest(panel, [[0.5, 0.02]] + [[NAN, NAN]] * 3, config)
    # 50 shares at 100: 5.00 of the value and 0.50 for the shares; 4 shares at 50: 0.24, so the minimum of 4.
    assert result.equity[1] == pytest.approx(10_000.0 - 5.50 - 4.0)
    assert result.commission is not None
    assert result.commission[1] == pytest.approx(9.50 / 10_000.0)


def test_lots_are_rounded_towards_zero_on_both_sides() -> None:
    panel = build_panel([[10.0, 10.0]] * 4)
    config = replace(FREE, initial_cash=10_000.0, lot_size=100.0)
    result = run_backtest(panel, [[0.55, -0.35], [0.25, -0.25], [0.0, 0.0], [0.0, 0.0]], config, keep_positions=True)
    assert result.positions is not None
    # 550 and -350 give 500 and -300; from there -250 and +50 give -200 and nothing; a position is closed whole.
    assert result.positions.tolist() == [[0.0, 0.0], [500.0, -300.0], [300.0, -300.0], [0.0, 0.0]]
    assert result.trades.tolist() == [0, 2, 1, 2]


def test_what_the_volume_cuts_is_carried_through_rows_that_hold() -> None:
    panel = build_panel([[10.0]] * 6).replace(volume=np.array([[5_000.0], [3_000.0], [2_000.0], [NAN], [9_000.0], [9_000.0]]))
    config = replace(FREE, initial_cash=10_000.0, participation_limit=0.1)
    result = run_backtest(panel, [[1.0], [NAN], [NAN], [NAN], [NAN], [NAN]], config, keep_positions=True)
    assert result.positions is not None
    # 1,000 shares are wanted: 300, 200, none without volume, then the rest of 500, well within 900.
    assert result.positions[:, 0].tolist() == [0.0, 300.0, 500.0, 500.0, 1_000.0, 1_000.0]


def test_a_new_row_replaces_what_was_left_of_an_order() -> None:
    panel = build_panel([[10.0]] * 5).replace(volume=np.full((5, 1), 1_000.0))
    config = replace(FREE, initial_cash=10_000.0, participation_limit=0.1)
    result = run_backtest(panel, [[1.0], [0.15], [NAN], [NAN], [NAN]], config, keep_positions=True)
    assert result.positions is not None
    assert result.positions[:, 0].tolist() == [0.0, 100.0, 150.0, 150.0, 150.0]


def test_impact_is_the_square_root_law_at_the_volatility_known_before_the_fill() -> None:
    rng = np.random.default_rng(2)
    close = 100.0 * np.cumprod(1.0 + 0.02 * rng.standard_normal((30, 1)), axis=0)
    volume = rng.uniform(1e4, 1e5, (30, 1))
    weights = np.full((30, 1), NAN)
    weights[24] = 0.5
    config = replace(FREE, impact_coefficient=0.8)
    result = run_backtest(build_panel(close).replace(volume=volume), weights, config)
    known = (close[5:25] / close[4:24] - 1.0)[:, 0]  # the 20 returns up to the close of bar 24; bar 25 fills
    size = 500_000.0 / close[25, 0]
    cost = 500_000.0 * 0.8 * known.std(ddof=1) * math.sqrt(size / volume[25, 0])
    assert result.impact is not None
    assert result.impact[25] * 1e6 == pytest.approx(cost)
    assert result.equity[25] == pytest.approx(1e6 - cost)
    assert np.count_nonzero(result.impact) == 1


def test_nothing_is_filled_before_its_impact_can_be_told() -> None:
    rng = np.random.default_rng(2)
    panel = build_panel(100.0 * np.cumprod(1.0 + 0.02 * rng.standard_normal((30, 1)), axis=0))
    panel = panel.replace(volume=np.full((30, 1), 1e9))
    weights = np.full((30, 1), NAN)
    weights[0] = 0.5
    result = run_backtest(panel, weights, replace(FREE, impact_coefficient=1.0))
    assert np.flatnonzero(result.trades).tolist() == [11]  # ten returns are known at the close of bar 10


def test_a_sale_never_receives_less_than_nothing() -> None:
    rng = np.random.default_rng(3)
    panel = build_panel(100.0 * np.cumprod(1.0 + 0.02 * rng.standard_normal((20, 1)), axis=0))
    panel = panel.replace(volume=np.full((20, 1), 1e-3))
    weights = np.full((20, 1), NAN)
    weights[15] = -0.1
    result = run_backtest(panel, weights, replace(FREE, slippage_bps=100.0, impact_coefficient=1.0))
    assert result.impact is not None
    assert result.impact[16] == pytest.approx(0.1 * 0.99)
    assert result.cash[16] == pytest.approx(1e6)


def test_interest_is_earned_on_cash_and_paid_on_a_loan() -> None:
    panel = build_panel([[100.0]] * 4)
    config = replace(FREE, initial_cash=1_000.0, cash_rate=0.252, margin_rate=0.504)
    result = run_backtest(panel, [[0.0], [2.0], [NAN], [NAN]], config)
    # 1,000 earn a thousandth before bar 1 and bar 2; the loan of bar 2, as large as equity, costs two thousandths.
    np.testing.assert_allclose(result.equity, [1_000.0, 1_001.0, 1_002.001, 1_002.001 * 0.998], rtol=1e-14)
    assert result.interest is not None
    np.testing.assert_allclose(result.interest, [0.0, -0.001, -0.001, 0.002], atol=1e-15)
    np.testing.assert_allclose(result.gross_returns, 0.0, atol=1e-15)


def test_a_delisted_asset_is_settled_at_its_last_price_and_stays_out() -> None:
    panel = build_panel([[10.0, 5.0], [10.0, 5.0], [8.0, 5.0], [NAN, 5.0], [NAN, 5.0], [NAN, 5.0]])
    config = replace(FREE, initial_cash=1_000.0, commission_bps=100.0, delisting_bars=2)
    result = run_backtest(panel, [[0.5, 0.0]] + [[NAN, NAN]] * 5, config, keep_positions=True)
    assert result.positions is not None
    assert result.positions[:, 0].tolist() == [0.0, 50.0, 50.0, 50.0, 0.0, 0.0]
    assert result.cash.tolist() == [1_000.0, 495.0, 495.0, 495.0, 895.0, 895.0]  # 50 shares at 8, free of commission
    assert (result.equity[2:] == 895.0).all()
    assert result.n_trades == 1
    assert result.exposure[4] == 0.0


def test_a_delisted_short_pays_its_fee_until_it_is_settled() -> None:
    panel = build_panel([[10.0], [10.0], [NAN], [NAN], [NAN]])
    config = replace(FREE, initial_cash=1_000.0, borrow_rate=0.252, delisting_bars=2)
    result = run_backtest(panel, [[-1.0]] + [[NAN]] * 4, config)
    np.testing.assert_allclose(result.equity, [1_000.0, 1_000.0, 999.0, 998.0, 998.0])


def test_a_relisted_asset_can_be_bought_again_and_owes_nothing_to_its_past() -> None:
    panel = build_panel([[10.0], [10.0], [NAN], [90.0], [90.0], [99.0]])
    config = replace(FREE, initial_cash=1_000.0, delisting_bars=1)
    result = run_backtest(panel, np.full((6, 1), 1.0), config, keep_positions=True)
    np.testing.assert_allclose(result.equity, [1_000.0, 1_000.0, 1_000.0, 1_000.0, 1_000.0, 1_100.0])


def test_costs_are_told_apart_without_any_option_too() -> None:
    panel, weights = random_book(seed=3)
    config = BacktestConfig(commission_bps=7.0, slippage_bps=3.0, borrow_rate=0.1)
    result = run_backtest(panel, weights, config)
    expected = PlainAccount(panel, weights, config).run()
    for name in COST_SERIES:
        np.testing.assert_allclose(getattr(result, name), expected[name], rtol=1e-9, atol=1e-15)
    part = result.slice(10, 20)
    assert part.borrow is not None
    assert result.borrow is not None
    np.testing.assert_array_equal(part.borrow, result.borrow[10:20])


@pytest.mark.parametrize("option", [{"impact_coefficient": 1.0}, {"participation_limit": 0.1}])
def test_what_depends_on_volume_needs_volume(option: dict[str, float]) -> None:
    panel, weights = random_book(seed=3)
    config = replace(FREE, **option)
    with pytest.raises(MissingDataError, match="no `volume`"):
        run_backtest(panel, weights, config)
    volume = np.ones(panel.shape)
    volume[7, 2] = -1.0
    with pytest.raises(DataError, match=r"that of S2 at bar 7 \(2020-01-10\) was -1"):
        run_backtest(panel.replace(volume=volume), weights, config)


@pytest.mark.parametrize("option", [{}, {"lot_size": 1.0}])
def test_both_kernels_refuse_the_same_input(option: dict[str, float]) -> None:
    panel, weights = random_book(seed=3)
    config = replace(FREE, **option)
    negative = panel.close.copy()
    negative[9, 1] = -3.0
    with pytest.raises(DataError, match="`close` of S1 at bar 9"):
        run_backtest(panel.replace(close=negative), weights, config)
    opened = panel.get("open").copy()
    opened[9, 1] = np.inf
    with pytest.raises(DataError, match="`open` of S1 at bar 9"):
        run_backtest(panel.replace(open=opened), weights, replace(config, fill="open"))
    partly = weights.copy()
    partly[5, 2] = NAN
    with pytest.raises(DataError, match="is NaN for S2 only"):
        run_backtest(panel, partly, config)
    for heavy in (2.5, np.inf):
        wrong = weights.copy()
        wrong[-1, 0] = heavy
        with pytest.raises(DataError, match="at most max_leverage = 2"):
            run_backtest(panel, wrong, config)


def test_a_sweep_with_options_equals_single_runs() -> None:
    panel, weights = build_market(6, gaps=0.15)
    config = BacktestConfig(impact_coefficient=1.0, participation_limit=0.2, lot_size=1.0, delisting_bars=2)
    many = [weights * scale for scale in (0.1, 0.5, 1.0, -1.0)]
    for result, one in zip(run_sweep(panel, many, config, n_threads=3), many, strict=True):
        np.testing.assert_array_equal(result.equity, run_backtest(panel, one, config).equity)
