from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.trading.experience import Experience, ExperienceConfig, exp_for_level, r_multiple, trade_exp, win_streak
from core.errors import DataError
from core.store.opening import Store
from core.store.sqlite_trade_log import SqliteTradeLog
from core.store.trading_records import AgentExp, Trade
from tests.agents.trading.test_seniority import play
from tests.core.store.trading import at

CONFIG = ExperienceConfig()


@pytest.fixture(scope="module")
def won(tmp_path_factory: pytest.TempPathFactory) -> Trade:
    """Gained 6 % over a stop at 3 %: two units of risk; confidence 0.62, position 2 %."""
    return play(SqliteTradeLog(tmp_path_factory.mktemp("log") / "log.db"), 1, 106.0)


def outcome(won: Trade, r: float, confidence: float = 0.5, position: float = 0.0) -> Trade:
    return replace(won, net_pnl_pct=r * 0.03, hit=r > 0, confidence=confidence, position_pct=position)


def test_r_is_the_net_return_over_the_distance_of_the_stop(won: Trade) -> None:
    assert r_multiple(won) == pytest.approx(2.0)
    assert r_multiple(replace(won, stop_loss=103.0)) == pytest.approx(2.0)
    assert r_multiple(replace(won, stop_loss=None)) == 0.0
    assert r_multiple(replace(won, stop_loss=won.fill_price)) == 0.0


@pytest.mark.parametrize(
    ("r", "exp"),
    [(1.0, 160), (2.0, 220), (5.0, 400), (6.0, 400), (0.001, 100), (0.0, 100), (-1.0, 80), (-3.0, 40), (-9.0, 40), (-0.5, 90)],
)
def test_gains_and_losses_are_worth_their_units_of_risk_up_to_a_limit(won: Trade, r: float, exp: int) -> None:
    assert trade_exp(outcome(won, r), 0, CONFIG) == exp


def test_confidence_and_position_weigh(won: Trade) -> None:
    assert trade_exp(outcome(won, 2.0, confidence=0.62, position=0.02), 0, CONFIG) == round(220 * 1.06 * 1.02)
    assert trade_exp(outcome(won, -1.0, confidence=0.3, position=0.05), 0, CONFIG) == round(80 * 0.9 * 1.05)


@pytest.mark.parametrize(("streak", "bonus"), [(0, 0), (1, 0), (2, 25), (6, 125), (7, 125)])
def test_a_streak_is_rewarded_on_a_win_only(won: Trade, streak: int, bonus: int) -> None:
    assert trade_exp(outcome(won, 1.0), streak, CONFIG) == 160 + bonus
    assert trade_exp(outcome(won, -1.0), streak, CONFIG) == 80


@given(
    r=st.floats(-1e3, 1e3),
    confidence=st.floats(0, 1),
    position=st.floats(0, 1),
    streak=st.integers(0, 1000),
    base=st.integers(0, 100),
)
def test_experience_is_never_below_zero(
    won: Trade, r: float, confidence: float, position: float, streak: int, base: int
) -> None:
    assert trade_exp(outcome(won, r, confidence, position), streak, ExperienceConfig(base=base)) >= 0


def test_a_level_needs_500_times_its_power_of_1_6() -> None:
    assert [exp_for_level(level, CONFIG) for level in (0, 1, 2, 10)] == [0, 500, 1516, 19905]
    with pytest.raises(DataError, match="`level` must be 0 or more"):
        exp_for_level(-1, CONFIG)


def test_a_streak_ends_at_the_last_loss_and_leaves_out_what_does_not_count(tmp_path: Path) -> None:
    log = SqliteTradeLog(tmp_path / "log.db")
    prices = [106.0, 97.0, 106.0, 106.0, 106.0]
    trades = [play(log, number, price) for number, price in enumerate(prices)]
    open_trade = replace(trades[0], hit=None, closed_at=None)
    doubtful = replace(trades[1], exit_reason="approximate", closed_at=at(9999))
    assert win_streak([*reversed(trades), open_trade, doubtful]) == 3
    assert win_streak(trades[:2]) == 0
    assert win_streak([]) == 0


def test_a_trade_is_minted_once_for_each_agent_and_a_restart_changes_nothing(store: Store) -> None:
    trade = play(store.trade_log, 1, 106.0)
    exp = trade_exp(trade, 1, CONFIG)
    assert Experience(store.trading).mint(trade, ["zeus", "ares", "zeus"], streak=1) == 2
    again = Experience(store.trading)
    assert again.mint(trade, ["zeus", "ares"], streak=3) == 0
    assert again.mint(trade, ["hades", "ares"], streak=1) == 1
    minted = [AgentExp(agent_name=name, exp=exp, level=0, n_entries=1) for name in ("ares", "hades", "zeus")]
    assert store.trading.list_exp() == minted
    assert again.mint(trade, [], streak=1) == 0


def test_what_does_not_count_mints_nothing(store: Store) -> None:
    experience = Experience(store.trading)
    closed = play(store.trade_log, 1, 106.0)
    for trade in (replace(closed, hit=None, closed_at=None), replace(closed, voided=True)):
        assert experience.mint(trade, ["zeus"], streak=1) == 0
    assert store.trading.list_exp() == []


def test_a_trade_that_is_open_or_a_streak_that_is_negative_is_refused(won: Trade) -> None:
    with pytest.raises(DataError, match="must be closed to have an R multiple"):
        trade_exp(replace(won, net_pnl_pct=None), 0, CONFIG)
    with pytest.raises(DataError, match="`streak` must be 0 or more, was -1"):
        trade_exp(won, -1, CONFIG)
