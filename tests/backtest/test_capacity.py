from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest import BacktestConfig, run_backtest
from backtest.capacity import Capacity, estimate_capacity
from backtest.costs import realised_cost_bps
from core.errors import ConfigurationError, DataError, MissingDataError
from core.market.panel import Panel
from tests.backtest.conftest import build_panel, random_book

FREE = BacktestConfig(commission_bps=0.0, slippage_bps=0.0, borrow_rate=0.0)


def build_winner(seed: int, n_bars: int = 150) -> tuple[Panel, np.ndarray]:
    """A book that knows a part of the next return, with uneven volumes."""
    rng = np.random.default_rng(seed)
    returns = 0.02 * rng.standard_normal((n_bars, 4))
    panel = build_panel(50.0 * np.cumprod(1.0 + returns, axis=0))
    weights = np.zeros(panel.shape)
    weights[:-2] = 0.2 * np.sign(returns[2:] + 0.04 * rng.standard_normal((n_bars - 2, 4)))
    weights[:15] = 0.0
    return panel.replace(volume=rng.lognormal(12.0, 0.7, panel.shape)), weights


def test_capacity_by_hand() -> None:
    close = np.full((30, 1), 100.0)
    close[:20, 0] = 100.0 * (1.0 + 0.01 * (np.arange(20) % 2))
    close[26:] = 110.0
    panel = build_panel(close).replace(volume=np.full((30, 1), 40_000.0))
    weights = np.full((30, 1), np.nan)
    weights[23], weights[27] = 0.5, 0.0
    found = estimate_capacity(panel, weights, FREE, participation_limit=0.1)
    # Bought for 0.5 of equity at bar 24 and sold for 0.55 / 1.05 of it at bar 28, ten percent higher: a gross profit of 0.05.
    returns = close[1:, 0] / close[:-1, 0] - 1.0
    bought = returns[3:23].std(ddof=1) * 0.5**1.5 / np.sqrt(100.0 * 40_000.0)
    sold = returns[7:27].std(ddof=1) * (0.55 / 1.05) ** 1.5 / np.sqrt(110.0 * 40_000.0)
    assert found.gross_profit == pytest.approx(0.05)
    assert found.impact_capital == pytest.approx((0.5 * 0.05 / (bought + sold)) ** 2)
    # Limits of 400,000 and 440,000 in money: the purchase meets its own at 800,000, the sale at 840,000. A twentieth of
    # 0.5 + 0.5238 is left unfilled at C where 0.5 - 400,000 / C + 0.5238 - 440,000 / C is 0.0512.
    share = 0.55 / 1.05
    assert found.participation_capital == pytest.approx(840_000.0 / (0.95 * (0.5 + share)))
    assert (found.impact_coefficient, found.participation_limit) == (1.0, 0.1)
    first = estimate_capacity(panel, weights, FREE, participation_limit=0.1, unfilled_share=0.0)
    assert first.participation_capital == pytest.approx(800_000.0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1_000), share=st.floats(0.1, 0.9))
def test_at_capacity_the_engine_loses_that_share_of_the_profit(seed: int, share: float) -> None:
    panel, weights = build_winner(seed)
    weights = 0.02 * weights  # little compounding: equity stays near the capital
    found = estimate_capacity(panel, weights, FREE, profit_share=share)
    assert found.impact_capital is not None
    run = run_backtest(panel, weights, replace(FREE, initial_cash=found.impact_capital, impact_coefficient=1.0))
    assert run.impact is not None
    assert run.impact.sum() == pytest.approx(share * found.gross_profit, rel=0.02)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1_000), unfilled=st.floats(0.01, 0.5))
def test_at_capacity_that_share_of_the_traded_value_lies_beyond_the_limit(seed: int, unfilled: float) -> None:
    panel, weights = build_winner(seed)
    found = estimate_capacity(panel, weights, FREE, participation_limit=0.05, unfilled_share=unfilled)
    assert found.participation_capital is not None
    assert panel.volume is not None
    run = run_backtest(panel, weights, FREE, keep_positions=True)
    assert run.positions is not None
    value = np.concatenate(([FREE.initial_cash], run.equity[:-1])) * (
        1.0 + run.net_returns
    )  # filled at the close, free of cost
    orders = np.abs(np.diff(run.positions, axis=0, prepend=0.0)) * panel.close / value[:, None]
    room = 0.05 * panel.volume * panel.close / found.participation_capital
    assert np.maximum(orders - room, 0.0).sum() == pytest.approx(unfilled * orders.sum(), rel=1e-9)


def test_capacity_scales_with_volume_and_with_the_square_of_the_coefficient() -> None:
    panel, weights = build_winner(3)
    assert panel.volume is not None
    one = estimate_capacity(panel, weights, FREE, participation_limit=0.1)
    wide = estimate_capacity(panel.replace(volume=3.0 * panel.volume), weights, FREE, participation_limit=0.1)
    dear = estimate_capacity(panel, weights, replace(FREE, impact_coefficient=2.0))
    assert one.impact_capital is not None
    assert one.participation_capital is not None
    assert wide.impact_capital == pytest.approx(3.0 * one.impact_capital)
    assert wide.participation_capital == pytest.approx(3.0 * one.participation_capital)
    assert dear.impact_capital == pytest.approx(one.impact_capital / 4.0)
    assert one.capital == min(one.impact_capital, one.participation_capital)
    assert dear.binds == "impact"
    assert dear.participation_capital is None


def test_what_cannot_be_said_is_none() -> None:
    panel, weights = build_winner(3)
    idle = estimate_capacity(panel, np.zeros(panel.shape), FREE, participation_limit=0.1)
    assert (idle.capital, idle.binds, idle.impact_capital, idle.participation_capital) == (None, None, None, None)
    loser = estimate_capacity(panel, -weights, FREE)
    assert loser.gross_profit < 0.0
    assert loser.capital is None
    unseen = estimate_capacity(panel.replace(volume=np.zeros(panel.shape)), weights, FREE, participation_limit=0.1)
    assert (unseen.capital, unseen.binds, unseen.impact_capital) == (0.0, "participation", None)


def test_the_figures_come_with_their_assumptions() -> None:
    panel, weights = build_winner(3)
    config = BacktestConfig(impact_coefficient=0.7, participation_limit=0.02, lot_size=100.0, minimum_commission=5.0)
    found = estimate_capacity(panel, weights, config)
    assert Capacity(**found.to_dict()) == found
    assert (found.impact_coefficient, found.participation_limit, found.profit_share) == (0.7, 0.02, 0.5)
    small = estimate_capacity(panel, weights, replace(config, initial_cash=17.0))
    assert small.capital == pytest.approx(found.capital)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"profit_share": 0.0}, "profit_share"),
        ({"unfilled_share": 1.0}, "unfilled_share"),
        ({"impact_coefficient": 0.0}, "impact_coefficient"),
        ({"participation_limit": 2.0}, "participation_limit"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"`{named}`"):
        estimate_capacity(*build_winner(3), FREE, **arguments)


def test_capacity_needs_volume_and_sound_weights() -> None:
    with pytest.raises(MissingDataError, match="no `volume`"):
        estimate_capacity(*random_book(3))
    panel, weights = build_winner(3)
    with pytest.raises(DataError, match="max_leverage"):
        estimate_capacity(panel, 9.0 * weights)


def test_realised_cost_counts_what_was_traded() -> None:
    panel, weights = random_book(3)
    result = run_backtest(panel, weights, replace(FREE, slippage_bps=7.0))
    assert realised_cost_bps(result.costs, result.turnover) == pytest.approx(7.0, rel=0.01)
    assert realised_cost_bps(np.array([0.0, 0.003]), np.array([1.0, 0.5])) == pytest.approx(20.0)
    assert np.isnan(realised_cost_bps(np.zeros(3), np.zeros(3)))
