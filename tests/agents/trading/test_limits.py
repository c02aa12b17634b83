from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.trading.limits import BookView, LimitsConfig, SizeDecision, check_limits, clamp_size
from agents.trading.milestones import MilestonesConfig, StageRules
from core.errors import DataError
from core.store.trading_records import SeniorityTier
from core.types import BindingConstraint, Refusal, SizedSignal, Stage
from tests.agents.trading.sized import filtered, macro, sized
from tests.core.store.trading import NOW

SEED, SPRINT, SCALE, SERIOUS, EMPIRE = MilestonesConfig().stages
TRAINEE, JUNIOR, INTERMEDIATE, SENIOR = SeniorityTier
CONFIG = LimitsConfig()


def book(**changes: Any) -> BookView:
    values: dict[str, Any] = {"equity": 10_000.0, "cash": 10_000.0}
    return BookView(**(values | changes))


def check(
    view: BookView, size: float = 0.02, rules: StageRules = SERIOUS, seniority: SeniorityTier = SENIOR, **changes: Any
) -> SizeDecision | Refusal:
    return check_limits(sized(size), "AAA", view, rules, seniority, changes.pop("config", CONFIG), NOW, **changes)


def constraint(answer: SizeDecision | Refusal) -> BindingConstraint | None:
    if isinstance(answer, Refusal):
        assert answer.stage is Stage.LIMITS
        return answer.constraint
    return None


def test_an_empty_book_lets_a_size_pass_uncut() -> None:
    assert check(book()) == SizeDecision(position_size_pct=0.02)


def test_a_halt_of_everything_or_of_the_symbol_binds_and_of_another_does_not() -> None:
    assert constraint(check(book(halted=True))) is BindingConstraint.HALTED
    assert constraint(check(book(halted_symbols=("AAA",)))) is BindingConstraint.HALTED
    assert constraint(check(book(halted_symbols=("BBB",)))) is None


def test_an_unknown_equity_binds_and_a_known_one_does_not() -> None:
    assert constraint(check(book(equity=None))) is BindingConstraint.UNKNOWN_EQUITY
    assert constraint(check(book(equity=1.0, cash=1.0))) is None


def test_one_position_a_ticker() -> None:
    assert constraint(check(book(open_symbols=("AAA",)))) is BindingConstraint.TICKER_CAP
    assert constraint(check(book(open_symbols=("AAB",)))) is None


@pytest.mark.parametrize(
    ("ago", "binds"),
    [
        (timedelta(hours=48) - timedelta(microseconds=1), True),
        (timedelta(hours=48), False),
        (timedelta(0), True),
        (timedelta(hours=-1), True),
    ],
    ids=["just inside", "just over", "now", "in the future"],
)
def test_a_ticker_rests_for_48_hours(ago: timedelta, binds: bool) -> None:
    answer = check(book(last_trade_at={"AAA": NOW - ago, "BBB": NOW}))
    assert (constraint(answer) is BindingConstraint.COOLDOWN) is binds


def test_a_sector_holds_three() -> None:
    sectors = {"AAA": "tech", "B": "tech", "C": "tech", "D": "tech", "E": "energy"}
    assert constraint(check(book(open_symbols=("B", "C", "E"), sectors=sectors))) is None
    assert constraint(check(book(open_symbols=("B", "C", "D"), sectors=sectors))) is BindingConstraint.SECTOR_CAP


def test_what_has_no_known_sector_counts_as_a_sector_by_itself() -> None:
    assert constraint(check(book(open_symbols=("B", "C", "D")))) is None
    nothing = LimitsConfig(max_per_sector=0)
    assert constraint(check(book(), config=nothing)) is BindingConstraint.SECTOR_CAP
    assert constraint(check(book(open_symbols=("B", "C", "D"), sectors={"AAA": "tech"}))) is None
    assert constraint(check(book(open_symbols=("B", "C", "D"), sectors={"B": "tech"}))) is None


@pytest.mark.parametrize(("rules", "most"), [(SEED, 3), (SPRINT, 5), (SCALE, 8), (SERIOUS, 10), (EMPIRE, 15)])
def test_a_stage_holds_its_number_of_positions(rules: StageRules, most: int) -> None:
    def filled(n: int) -> BookView:
        symbols = tuple(f"S{number}" for number in range(n))
        return book(open_symbols=symbols, sectors={symbol: symbol for symbol in symbols})

    assert constraint(check(filled(most - 1), 0.01, rules)) is None
    assert constraint(check(filled(most), 0.01, rules)) is BindingConstraint.GLOBAL_CAP


@pytest.mark.parametrize(
    ("deployed", "cash", "binds"),
    [
        (8_800.0, 1_200.0, False),
        (8_800.01, 1_199.99, True),
        (0.0, 200.0, False),
        (0.0, 199.99, True),
        (9_500.0, 500.0, True),
        (0.0, -1.0, True),
    ],
    ids=["to the cap", "a cent over", "all the cash", "a cent short", "over already", "on margin"],
)
def test_ninety_percent_of_equity_and_all_of_the_cash_may_be_deployed(deployed: float, cash: float, binds: bool) -> None:
    answer = check(book(deployed=deployed, cash=cash))
    assert (constraint(answer) is BindingConstraint.BUDGET) is binds


def test_without_equity_there_is_no_budget() -> None:
    assert constraint(check(book(equity=0.0, cash=0.0))) is BindingConstraint.BUDGET


@pytest.mark.parametrize(
    ("rules", "seniority", "size", "expected"),
    [
        (SERIOUS, TRAINEE, 0.01, SizeDecision(position_size_pct=0.01)),
        (SERIOUS, TRAINEE, 0.0101, SizeDecision(position_size_pct=0.01, constraint=BindingConstraint.SENIORITY_CAP)),
        (SERIOUS, JUNIOR, 0.05, SizeDecision(position_size_pct=0.02, constraint=BindingConstraint.SENIORITY_CAP)),
        (SERIOUS, INTERMEDIATE, 0.05, SizeDecision(position_size_pct=0.03, constraint=BindingConstraint.SENIORITY_CAP)),
        (SERIOUS, SENIOR, 0.05, SizeDecision(position_size_pct=0.03, constraint=BindingConstraint.SENIORITY_CAP)),
        (SEED, SENIOR, 0.01, SizeDecision(position_size_pct=0.01)),
        (SEED, SENIOR, 0.02, SizeDecision(position_size_pct=0.01, constraint=BindingConstraint.GLOBAL_CAP)),
        (SPRINT, SENIOR, 0.05, SizeDecision(position_size_pct=0.02, constraint=BindingConstraint.GLOBAL_CAP)),
        (SEED, TRAINEE, 0.02, SizeDecision(position_size_pct=0.01, constraint=BindingConstraint.GLOBAL_CAP)),
    ],
)
def test_the_tighter_cap_cuts_and_is_named(
    rules: StageRules, seniority: SeniorityTier, size: float, expected: SizeDecision
) -> None:
    assert check(book(), size, rules, seniority) == expected
    assert clamp_size(size, rules, seniority, CONFIG) == expected


def test_real_money_is_for_the_highest_tier_and_up_to_five_percent() -> None:
    assert check(book(), 0.05, SERIOUS, SENIOR, paper=False) == SizeDecision(position_size_pct=0.05)
    for tier in (TRAINEE, JUNIOR, INTERMEDIATE):
        assert constraint(check(book(), 0.05, SERIOUS, tier, paper=False)) is BindingConstraint.SENIORITY_CAP


def test_a_stage_that_stakes_nothing_is_the_one_that_is_named() -> None:
    nothing = replace(SERIOUS, max_size=0.0)
    assert constraint(check(book(), rules=nothing)) is BindingConstraint.GLOBAL_CAP


def test_the_budget_is_asked_about_the_clamped_size() -> None:
    assert check(book(deployed=8_900.0, cash=1_100.0), 0.05, SEED, TRAINEE) == SizeDecision(
        position_size_pct=0.01, constraint=BindingConstraint.GLOBAL_CAP
    )


@pytest.mark.parametrize(("compliance", "size"), [(1.0, 0.01), (0.7, 0.007), (0.4, 0.004)])
def test_a_signal_is_staked_the_share_that_its_compliance_says_of_what_the_caps_leave(compliance: float, size: float) -> None:
    signal = replace(sized(0.02), original=replace(filtered(), compliance_score=compliance))
    answer = check_limits(signal, "AAA", book(), SERIOUS, TRAINEE, CONFIG, NOW)
    assert isinstance(answer, SizeDecision)
    assert answer.position_size_pct == pytest.approx(size)
    assert answer.constraint is BindingConstraint.SENIORITY_CAP


def test_refusals_come_in_the_documented_order() -> None:
    """Everything is wrong at once; mending what is reported brings up the next."""
    sectors = dict.fromkeys(("AAA", "B", "C", "D"), "tech")
    wrong: dict[str, Any] = {
        "halted": True,
        "equity": None,
        "open_symbols": ("AAA", "B", "C", "D"),
        "sectors": sectors,
        "last_trade_at": {"AAA": NOW},
        "cash": 0.0,
    }
    mends: list[tuple[BindingConstraint, dict[str, Any]]] = [
        (BindingConstraint.HALTED, {"halted": False}),
        (BindingConstraint.UNKNOWN_EQUITY, {"equity": 10_000.0}),
        (BindingConstraint.TICKER_CAP, {"open_symbols": ("B", "C", "D")}),
        (BindingConstraint.COOLDOWN, {"last_trade_at": {}}),
        (BindingConstraint.SECTOR_CAP, {"sectors": {}}),
    ]
    for expected, mend in mends:
        assert constraint(check(book(**wrong), rules=SEED, seniority=TRAINEE, paper=False)) is expected
        wrong |= mend
    assert constraint(check(book(**wrong), rules=SEED, seniority=TRAINEE, paper=False)) is BindingConstraint.GLOBAL_CAP
    wrong["open_symbols"] = ()
    assert constraint(check(book(**wrong), rules=SEED, seniority=TRAINEE, paper=False)) is BindingConstraint.SENIORITY_CAP
    assert constraint(check(book(**wrong), rules=SEED, seniority=SENIOR, paper=False)) is BindingConstraint.BUDGET


@given(
    size=st.floats(1e-6, 1),
    equity=st.floats(0, 1e7),
    deployed=st.floats(0, 1e7),
    cash=st.floats(-1e6, 1e7),
    n_open=st.integers(0, 20),
    rules=st.sampled_from(MilestonesConfig().stages),
    seniority=st.sampled_from(SeniorityTier),
    paper=st.booleans(),
)
def test_what_passes_keeps_every_cap(
    size: float,
    equity: float,
    deployed: float,
    cash: float,
    n_open: int,
    rules: StageRules,
    seniority: SeniorityTier,
    paper: bool,
) -> None:
    symbols = tuple(f"S{number}" for number in range(n_open))
    view = book(
        equity=equity, cash=cash, deployed=deployed, open_symbols=symbols, sectors={symbol: symbol for symbol in symbols}
    )
    answer = check(view, size, rules, seniority, paper=paper)
    if isinstance(answer, Refusal):
        return
    allowed = answer.position_size_pct
    assert 0.0 < allowed <= min(size, rules.max_size, 0.05)
    assert paper or seniority is SENIOR
    assert (answer.constraint is None) == (allowed == size)
    assert n_open < rules.max_positions
    assert deployed + allowed * equity <= 0.9 * equity * (1 + 1e-8)
    assert allowed * equity <= cash + 1e-8 * equity


def test_what_cannot_be_is_refused_by_name() -> None:
    skipped = SizedSignal(
        original=filtered(), macro=macro(), confidence=0.4, position_size_pct=0.0, skip=True, skip_reason="no"
    )
    with pytest.raises(DataError, match="`sized` must have a size"):
        check_limits(skipped, "AAA", book(), SEED, TRAINEE, CONFIG, NOW)
    with pytest.raises(DataError, match="`now` must be tz-aware"):
        check_limits(sized(), "AAA", book(), SEED, TRAINEE, CONFIG, datetime(2024, 1, 1))  # noqa: DTZ001
    with pytest.raises(DataError, match=r"`BookView\.open_symbols` must be without repetition"):
        book(open_symbols=("A", "A"))
    with pytest.raises(DataError, match=r"`BookView\.deployed` must be 0 or greater"):
        book(deployed=-1.0)
    with pytest.raises(DataError, match=r"`BookView\.equity` must be a finite number"):
        book(equity=float("nan"))
    with pytest.raises(DataError, match=r"`BookView\.last_trade_at` must be a time in UTC"):
        book(last_trade_at={"A": datetime(2024, 1, 1)})  # noqa: DTZ001
