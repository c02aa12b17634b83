from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.trading.milestones import (
    Milestones,
    MilestonesConfig,
    StageRules,
    cross_milestones,
    move_money,
    start_milestones,
)
from core.errors import DataError, StoreError
from core.store.opening import Store
from core.store.trading import TradingStore
from core.store.trading_records import MilestoneStage, MilestoneState

CONFIG = MilestonesConfig()
SEED, SPRINT, SCALE, SERIOUS, EMPIRE = MilestoneStage


@pytest.fixture
def trading(store: Store) -> Iterator[TradingStore]:
    yield store.trading


def vaulted(state: MilestoneState) -> tuple[float, float]:
    return state.vault_balance, state.total_vaulted


@pytest.mark.parametrize(
    ("equity", "stage", "size", "kill", "positions", "tier"),
    [
        (0.0, SEED, 0.01, 0.05, 3, 1),
        (999.99, SEED, 0.01, 0.05, 3, 1),
        (1_000.0, SPRINT, 0.02, 0.06, 5, 2),
        (9_999.99, SPRINT, 0.02, 0.06, 5, 2),
        (10_000.0, SCALE, 0.03, 0.07, 8, 2),
        (99_999.99, SCALE, 0.03, 0.07, 8, 2),
        (100_000.0, SERIOUS, 0.05, 0.08, 10, 3),
        (999_999.99, SERIOUS, 0.05, 0.08, 10, 3),
        (1_000_000.0, EMPIRE, 0.03, 0.05, 15, 3),
        (1e12, EMPIRE, 0.03, 0.05, 15, 3),
    ],
)
def test_the_equity_decides_the_stage(
    equity: float, stage: MilestoneStage, size: float, kill: float, positions: int, tier: int
) -> None:
    rules = CONFIG.rules(equity)
    assert (rules.stage, rules.max_size, rules.kill_drawdown) == (stage, size, kill)
    assert (rules.max_positions, rules.max_tier) == (positions, tier)


def test_an_account_begins_at_its_stage_and_nothing_is_vaulted() -> None:
    state = start_milestones(CONFIG, 50_000.0)
    assert state == MilestoneState(milestone_origin=50_000.0, crossed_stages=(SEED, SPRINT, SCALE))
    assert cross_milestones(CONFIG, state, 99_999.99) is state


def test_a_crossing_vaults_three_tenths_of_the_profit_since_the_last_one() -> None:
    state = cross_milestones(CONFIG, start_milestones(CONFIG, 500.0), 1_200.0)
    assert vaulted(state) == (pytest.approx(210.0), pytest.approx(210.0))
    assert (state.milestone_origin, state.crossed_stages) == (1_200.0, (SEED, SPRINT))
    # The sources counted from the origin again: 0.3 * 9,600. It is 0.3 * 8,900 here, on top.
    state = cross_milestones(CONFIG, state, 10_100.0)
    assert vaulted(state) == (pytest.approx(210.0 + 2_670.0), pytest.approx(2_880.0))


def test_a_stage_that_is_fallen_below_and_reached_again_vaults_nothing() -> None:
    state = cross_milestones(CONFIG, start_milestones(CONFIG, 500.0), 1_000.0)
    for equity in (700.0, 1_000.0, 999.0, 5_000.0):
        assert cross_milestones(CONFIG, state, equity) is state


def test_several_stages_at_once_are_one_crossing() -> None:
    state = cross_milestones(CONFIG, start_milestones(CONFIG, 900.0), 150_900.0)
    assert vaulted(state)[1] == pytest.approx(45_000.0)
    assert state.crossed_stages == (SEED, SPRINT, SCALE, SERIOUS)


def test_a_deposit_is_not_profit_though_it_crosses_a_stage() -> None:
    state = move_money(start_milestones(CONFIG, 500.0), 20_000.0)
    state = cross_milestones(CONFIG, state, 20_500.0)
    assert vaulted(state) == (0.0, 0.0)
    assert state.crossed_stages == (SEED, SPRINT, SCALE)
    mixed = cross_milestones(CONFIG, move_money(start_milestones(CONFIG, 500.0), 400.0), 1_000.0)
    assert vaulted(mixed)[1] == pytest.approx(30.0)


def test_a_withdrawal_is_not_a_loss() -> None:
    state = move_money(start_milestones(CONFIG, 900.0), -500.0)
    assert vaulted(cross_milestones(CONFIG, state, 1_000.0))[1] == pytest.approx(0.3 * 600.0)
    assert move_money(state, -1_000.0).milestone_origin == 0.0


@given(start=st.floats(1, 2e6), path=st.lists(st.floats(0, 3e6), max_size=40))
def test_over_any_path_the_vault_holds_its_share_of_the_way_to_the_last_crossing(start: float, path: list[float]) -> None:
    state = start_milestones(CONFIG, start)
    states = [state]
    for equity in path:
        state = cross_milestones(CONFIG, state, equity)
        assert cross_milestones(CONFIG, state, equity) == state
        states.append(state)
    assert state.total_vaulted == pytest.approx(0.3 * (state.milestone_origin - start), rel=1e-9, abs=1e-9)
    assert state.total_vaulted <= 0.3 * max(0.0, max([start, *path]) - start) * (1 + 1e-9)
    assert all(one.total_vaulted <= other.total_vaulted for one, other in pairwise(states))
    assert len(set(state.crossed_stages)) == len(state.crossed_stages)


@given(start=st.floats(1, 1e5), deposits=st.lists(st.floats(0, 1e6), max_size=20))
def test_deposits_alone_never_fill_the_vault(start: float, deposits: list[float]) -> None:
    state, equity = start_milestones(CONFIG, start), start
    for amount in deposits:
        state = move_money(state, amount)
        equity += amount
        state = cross_milestones(CONFIG, state, equity)
    assert state.total_vaulted == pytest.approx(0.0, abs=1e-6)


def test_what_the_store_holds_survives_a_restart_and_is_crossed_once(trading: TradingStore) -> None:
    milestones = Milestones(trading)
    assert milestones.state is None
    assert milestones.sized_equity(500.0) == 500.0
    assert milestones.observe(500.0) == ()
    assert milestones.observe(1_500.0) == (SPRINT,)
    again = Milestones(trading)
    assert again.state == milestones.state == trading.load_milestones()
    assert again.observe(1_600.0) == ()
    assert again.sized_equity(1_600.0) == pytest.approx(1_300.0)
    assert again.sized_equity(200.0) == 0.0
    trading.save_milestones(move_money(again.state, 20_000.0))
    again.reload()
    assert again.observe(21_600.0) == (SCALE,)
    assert again.state is not None
    assert again.state.total_vaulted == pytest.approx(300.0 + 0.3 * 100.0)
    assert Milestones(trading).sized_equity(21_000.0) == pytest.approx(20_670.0)


def test_the_stage_is_that_of_all_the_money_and_the_size_that_of_what_is_not_vaulted(trading: TradingStore) -> None:
    milestones = Milestones(trading)
    milestones.observe(500.0)
    milestones.observe(1_000.0)
    assert milestones.rules(1_000.0).stage is SPRINT
    assert milestones.sized_equity(1_000.0) == pytest.approx(850.0)


def test_what_could_not_be_stored_has_not_happened(trading: TradingStore, owner: psycopg.Connection) -> None:
    milestones = Milestones(trading)
    milestones.observe(500.0)
    owner.execute("alter table milestone_state rename to away")
    with pytest.raises(StoreError):
        milestones.observe(1_500.0)
    owner.execute("alter table away rename to milestone_state")
    assert milestones.state == MilestoneState(milestone_origin=500.0, crossed_stages=(SEED,))
    assert milestones.observe(1_500.0) == (SPRINT,)


def rules(start: float, **changes: Any) -> StageRules:
    values: dict[str, Any] = {"max_size": 0.1, "kill_drawdown": 0.1, "max_positions": 1, "max_tier": 1}
    return StageRules(stage=SEED, from_equity=start, **(values | changes))


@pytest.mark.parametrize("starts", [(), (1.0,), (0.0, 0.0), (0.0, 5.0, 4.0)])
def test_stages_begin_at_nothing_and_rise(starts: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match=r"`MilestonesConfig\.stages` must be stages that begin at 0 and rise"):
        MilestonesConfig(stages=tuple(rules(start) for start in starts))


def test_money_that_is_none_is_refused() -> None:
    for equity in (-0.01, float("nan"), float("inf")):
        with pytest.raises(DataError, match="`equity` must be a finite amount of money"):
            CONFIG.rules(equity)
    with pytest.raises(DataError, match="`amount` must be a finite amount of money"):
        move_money(start_milestones(CONFIG, 1.0), float("nan"))
    with pytest.raises(DataError, match=r"`StageRules\.max_tier` must be a tier in 1\.\.3"):
        rules(0.0, max_tier=4)
