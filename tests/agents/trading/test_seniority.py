import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.trading.seniority import (
    TIERS,
    Clearance,
    Ladder,
    SeniorityConfig,
    counts,
    find_participants,
    is_cleared,
    may_trade_real_money,
    measure_record,
    place_agent,
    system_tier,
)
from core.errors import DataError
from core.store.opening import Store
from core.store.sqlite_trade_log import SqliteTradeLog
from core.store.trade_log import TradeLog
from core.store.trading_records import SeniorityTier, Trade, TradeEntry, TradeExit
from core.types import Stage, StageOutcome
from tests.core.store.trading import at, new_trade, raw_signal, trace

TRAINEE, JUNIOR, INTERMEDIATE, SENIOR = SeniorityTier
EASY = SeniorityConfig(
    agents=("ares", "zeus"),
    clearances={
        tier.value: Clearance(min_closed=0, min_win_rate=0.0, min_profit_factor=0.0, max_drawdown=1.0) for tier in TIERS
    },
)


def play(log: TradeLog, number: int, price: float, *, reason: str = "take_profit", **changes: Any) -> Trade:
    trade = log.record_trade(new_trade(number, **changes))
    log.record_entry(TradeEntry(client_order_id=trade.client_order_id, qty=10, fill_price=100.0))
    return log.close_trade(
        TradeExit(trade_id=trade.trade_id, exit_price=price, exit_reason=reason, closed_at=at(1000 + number))
    )


@pytest.fixture(scope="module")
def won(tmp_path_factory: pytest.TempPathFactory) -> Trade:
    """A trade that gained 6 % on 2 % of equity."""
    return play(SqliteTradeLog(tmp_path_factory.mktemp("log") / "log.db"), 1, 106.0)


def record(wins: int, **changes: float) -> dict[str, float]:
    values = {"closed": float(wins), "wins": float(wins), "win_rate": 1.0, "profit_factor": 2.0, "max_drawdown": 0.0}
    return values | changes


@pytest.mark.parametrize(
    ("wins", "tier", "level"),
    [
        (0, TRAINEE, 1),
        (9, TRAINEE, 1),
        (10, TRAINEE, 2),
        (99, TRAINEE, 10),
        (100, JUNIOR, 1),
        (199, JUNIOR, 10),
        (200, INTERMEDIATE, 1),
        (299, INTERMEDIATE, 10),
        (300, SENIOR, 1),
        (389, SENIOR, 9),
        (390, SENIOR, 10),
        (10_000, SENIOR, 10),
    ],
)
def test_ten_wins_are_a_level_and_ten_levels_a_tier(wins: int, tier: SeniorityTier, level: int) -> None:
    place = place_agent("zeus", record(wins), EASY)
    assert (place.tier, place.level, place.wins, place.cleared) == (tier, level, wins, True)


@pytest.mark.parametrize(
    ("figures", "cleared"),
    [
        ({}, True),
        ({"closed": 99.0}, False),
        ({"win_rate": 0.40}, True),
        ({"win_rate": 0.399}, False),
        ({"profit_factor": 1.1}, True),
        ({"profit_factor": 1.099}, False),
        ({"max_drawdown": 0.10}, True),
        ({"max_drawdown": 0.1001}, False),
    ],
)
def test_a_trainee_is_cleared_by_every_criterion_together(figures: dict[str, float], cleared: bool) -> None:
    figures = record(100, **figures)
    assert is_cleared(figures, SeniorityConfig().clearances["trainee"]) is cleared
    place = place_agent("zeus", figures, SeniorityConfig())
    # A hundred wins make a junior; who is not cleared waits on the tenth level.
    assert (place.tier, place.level) == ((JUNIOR, 1) if cleared else (TRAINEE, 10))


def test_a_later_clearance_does_not_make_up_for_an_earlier_one() -> None:
    strict_first = replace(
        EASY,
        clearances={
            **EASY.clearances,
            "trainee": Clearance(min_closed=0, min_win_rate=0.5, min_profit_factor=0, max_drawdown=1),
        },
    )
    assert place_agent("zeus", record(350, win_rate=0.5), strict_first).tier is SENIOR
    assert place_agent("zeus", record(350, win_rate=0.49), strict_first).tier is TRAINEE


def test_the_figures_of_a_record_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    log = SqliteTradeLog(tmp_path / "log.db")
    returns = [0.06, -0.03, -0.03, 0.06, 0.0]
    trades = [play(log, number, 100.0 * (1 + value), position_pct=0.5, stop_loss=None) for number, value in enumerate(returns)]
    figures = measure_record(reversed(trades))
    assert (figures["closed"], figures["wins"]) == (5.0, 2.0)
    assert figures["win_rate"] == pytest.approx(0.4)
    assert figures["profit_factor"] == pytest.approx(0.12 / 0.06)
    assert figures["max_drawdown"] == pytest.approx(1 - 0.985**2)


@given(parts=st.lists(st.floats(-0.9, 2), max_size=30), position=st.floats(0, 1))
def test_the_drawdown_is_that_of_the_compounded_equity(won: Trade, parts: list[float], position: float) -> None:
    trades = [
        replace(won, net_pnl_pct=part, hit=part > 0, position_pct=position, closed_at=at(number))
        for number, part in enumerate(parts)
    ]
    equity = np.cumprod([1.0, *(1.0 + part * position for part in parts)])
    expected = float(np.max(1.0 - equity / np.maximum.accumulate(equity)))
    figures = measure_record(trades)
    assert figures["max_drawdown"] == pytest.approx(expected, abs=1e-12)
    assert all(math.isfinite(value) for value in figures.values())


def test_only_gains_are_a_factor_of_a_hundred_and_nothing_is_none(won: Trade) -> None:
    assert measure_record([won])["profit_factor"] == 100.0
    assert measure_record([]) == {"closed": 0.0, "wins": 0.0, "win_rate": 0.0, "profit_factor": 0.0, "max_drawdown": 0.0}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"hit": None, "closed_at": None}, False),
        ({"voided": True}, False),
        ({"exit_price": None}, False),
        ({"fill_price": None}, False),
        ({"exit_reason": "approximate"}, False),
        ({"exit_reason": "simulated"}, False),
        ({"paper_trading": False}, True),
    ],
)
def test_only_closed_trades_with_trusted_fills_count(won: Trade, changes: dict[str, Any], expected: bool) -> None:
    assert counts(replace(won, **changes)) is expected


@pytest.mark.parametrize(
    ("tiers", "agents", "armed", "paper", "allowed"),
    [
        ({"a": SENIOR, "b": SENIOR}, ("a", "b"), True, False, True),
        ({"a": SENIOR, "b": INTERMEDIATE}, ("a", "b"), True, False, False),
        ({"a": SENIOR}, ("a", "b"), True, False, False),
        ({"a": SENIOR, "b": SENIOR}, ("a", "b"), False, False, False),
        ({"a": SENIOR, "b": SENIOR}, ("a", "b"), True, True, False),
        ({"a": SENIOR, "b": TRAINEE}, ("a",), True, False, False),
        ({}, (), True, False, False),
        ({"a": SENIOR}, ("a",), "true", False, False),
        ({"a": SENIOR}, ("a",), 1, False, False),
        ({"a": SENIOR}, ("a",), True, 0, False),
        ({"a": SENIOR}, ("a",), True, None, False),
    ],
)
def test_real_money_needs_all_three(tiers: Any, agents: Any, armed: Any, paper: Any, allowed: bool) -> None:
    assert may_trade_real_money(tiers, agents, arm_real_money=armed, paper_trading=paper) is allowed


def test_of_all_conditions_only_one_combination_allows_real_money() -> None:
    combinations = itertools.product(itertools.product(SeniorityTier, repeat=2), (False, True), (False, True))
    allowed = [
        (tiers, armed, paper)
        for tiers, armed, paper in combinations
        if may_trade_real_money(dict(zip("ab", tiers, strict=True)), "ab", arm_real_money=armed, paper_trading=paper)
    ]
    assert allowed == [((SENIOR, SENIOR), True, False)]


@given(tiers=st.dictionaries(st.sampled_from("abcd"), st.sampled_from(SeniorityTier)))
def test_the_system_is_as_senior_as_its_lowest_agent(tiers: dict[str, SeniorityTier]) -> None:
    lowest = min((TIERS.index(tiers.get(agent, TRAINEE)) for agent in "abc"), default=0)
    assert system_tier(tiers, "abc") is TIERS[lowest]
    assert system_tier(tiers, ()) is TRAINEE


@pytest.mark.parametrize(
    ("tier", "paper", "real"), [(TRAINEE, 0.01, 0), (JUNIOR, 0.02, 0), (INTERMEDIATE, 0.03, 0), (SENIOR, 0.03, 0.05)]
)
def test_the_caps_of_the_tiers(tier: SeniorityTier, paper: float, real: float) -> None:
    config = SeniorityConfig()
    assert (config.position_cap(tier, paper=True), config.position_cap(tier, paper=False)) == (paper, real)


# Over the store


def play_signal(store: Store, number: int, price: float, passed: tuple[Stage, ...], **changes: Any) -> Trade:
    signal_id = store.trading.save_signal(raw_signal(number), source="rss", source_key=f"item {number}").signal_id
    stages = tuple(StageOutcome(stage=stage, passed=True) for stage in passed)
    store.trading.save_decision_trace(trace(signal_id, stages=stages))
    return play(store.trade_log, number, price, signal_id=signal_id, **changes)


def test_wins_go_to_the_agents_that_passed_the_decision_and_are_stored_once(store: Store) -> None:
    both = (Stage.ZEUS, Stage.ARES)
    trades = [play_signal(store, number, 106.0, both) for number in range(10)]
    trades += [play_signal(store, 10 + number, 106.0, (Stage.ARES,)) for number in range(10)]
    play(store.trade_log, 30, 106.0)  # without a signal: nobody's
    play_signal(store, 31, 106.0, both, symbol="BBB")  # the decision was about another symbol
    play_signal(store, 32, 106.0, both, reason="approximate")
    store.trade_log.void_trade(play_signal(store, 33, 106.0, both).trade_id)
    ladder = Ladder(store.trade_log, store.trading, EASY)
    places = ladder.judge()
    assert [(place.agent_name, place.wins, place.level) for place in places] == [("ares", 20, 3), ("zeus", 10, 2)]
    assert store.trading.list_seniority() == places
    assert ladder.judge() == places
    assert store.trading.promotion_history() == []
    assert find_participants(store.trading, trades)[trades[0].trade_id] == {"zeus", "ares"}
    assert ladder.tiers() == {"ares": TRAINEE, "zeus": TRAINEE}


def test_a_promotion_is_in_the_history_and_survives_a_restart(store: Store) -> None:
    Ladder(store.trade_log, store.trading, EASY).judge()
    for number in range(10):
        play_signal(store, number, 106.0, (Stage.ZEUS, Stage.ARES))
    Ladder(store.trade_log, store.trading, EASY).judge()
    moves = store.trading.promotion_history()
    assert {(move.agent_name, move.from_level, move.to_level, move.promoted) for move in moves} == {
        ("ares", 1, 2, True),
        ("zeus", 1, 2, True),
    }
    assert Ladder(store.trade_log, store.trading, EASY).judge()[1].wins == 10


def test_more_decisions_than_one_query_takes_are_all_found(store: Store) -> None:
    trades = [play_signal(store, number, 97.0, (Stage.ZEUS,)) for number in range(103)]
    found = find_participants(store.trading, trades)
    assert [found[trade.trade_id] for trade in trades] == [{"zeus"}] * 103
    unknown = replace(trades[0], signal_id=str(uuid4()), trade_id=str(uuid4()))
    assert find_participants(store.trading, [unknown]) == {unknown.trade_id: frozenset()}


def test_where_files_are_the_log_in_force_they_are_what_is_judged(tmp_path: Path) -> None:
    log = SqliteTradeLog(tmp_path / "log.db")
    for number in range(11):
        play(log, number, 106.0)
    ladder = Ladder(log, None, EASY)
    assert [(place.wins, place.level) for place in ladder.judge()] == [(11, 2), (11, 2)]
    assert ladder.tiers() == {"ares": TRAINEE, "zeus": TRAINEE}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"agents": ()}, r"`SeniorityConfig\.agents` must be at least one"),
        ({"agents": ("a", "a")}, r"`SeniorityConfig\.agents` must be at least one, without repetition"),
        ({"wins_per_level": 0}, r"`SeniorityConfig\.wins_per_level` must be 1 or more"),
        ({"clearances": {}}, r"`SeniorityConfig\.clearances` must be given for every tier"),
        ({"paper_caps": (0.01,)}, r"`SeniorityConfig\.paper_caps` must be one a tier"),
        ({"real_cap": 1.5}, r"`SeniorityConfig\.real_cap` must be a fraction"),
    ],
)
def test_a_ladder_that_cannot_be_is_refused_by_name(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(DataError, match=text):
        SeniorityConfig(**changes)
