"""Money that is paid in or out is neither gain nor loss, to the drawdown and to the milestones, whenever the process ends."""

from datetime import timedelta

import numpy as np
import pytest

from agents.trading.ares import AresConfig
from agents.trading.context import PipelineConfig, TradingConfig
from agents.trading.daily_report import build_daily_report
from agents.trading.limits import LimitsConfig
from agents.trading.milestones import Milestones, MilestonesConfig, StageRules
from agents.trading.pythia import PythiaConfig
from agents.trading.seniority import SeniorityConfig
from core.errors import StoreConflictError
from core.store.decisions import DecisionLog
from core.store.opening import Store
from core.store.trading_records import Book, MilestoneStage, MilestoneState
from tests.agents.trading.desk import NOW, Desk, build_desk, signal

RULES = StageRules(stage=MilestoneStage.SEED, from_equity=0.0, max_size=0.5, kill_drawdown=0.05, max_positions=3, max_tier=3)
HALF = TradingConfig(
    milestones=MilestonesConfig(stages=(RULES,)),
    limits=LimitsConfig(seniority=SeniorityConfig(paper_caps=(0.5, 0.5, 0.5, 0.5))),
    pythia=PythiaConfig(cold_size=0.5),
    ares=AresConfig(stop_loss=0.5, expiry_minutes=600.0),
    pipeline=PipelineConfig(tick_seconds=0.0),
)


@pytest.fixture
def desk(store: Store) -> Desk:
    """A desk that halts at 5 %: 500 in cash, and five shares that have fallen from 100 to 94."""
    desk = build_desk(store, config=HALF, cash=1_000.0)
    desk.pipeline.run([signal("AAA")])
    for price in (100.0, 94.0):
        desk.bar("AAA", price)
        desk.pipeline.tick()
    assert drawdown(desk) == pytest.approx(0.03)
    return desk


def drawdown(desk: Desk) -> float:
    valuation = desk.pipeline.argus.valuation
    assert valuation is not None
    assert valuation.drawdown is not None
    return valuation.drawdown


def pay_in(desk: Desk, amount: float) -> Desk:
    """Pay money in at the broker, or out, and start again, which is when it is seen."""
    cash = desk.broker.get_account().cash
    desk.store.trading.gateway.update("paper_accounts", {"cash": cash + amount}, where={"account": "paper"})
    desk.clock.advance(timedelta(minutes=1))
    return desk.restart()


def halts(desk: Desk) -> list[str]:
    return [halt.scope for halt in desk.pipeline.argus.halts()]


def test_a_withdrawal_is_no_drawdown_and_the_next_loss_is_counted_from_what_is_left(desk: Desk) -> None:
    """The peak of 1,000 shrinks with the equity, from 970 to 570, to 587.63: 92 is 4.7 % below it, 91 is 5.6 %."""
    desk = pay_in(desk, -400.0)
    assert desk.pipeline.recover().valuation.equity == 570.0
    assert drawdown(desk) == pytest.approx(0.03)
    desk.bar("AAA", 92.0)
    desk.pipeline.tick()
    assert drawdown(desk) == pytest.approx(1.0 - 560.0 / (1_000.0 * 570.0 / 970.0))
    assert halts(desk) == []
    desk.bar("AAA", 91.0)
    desk.pipeline.tick()
    assert halts(desk) == ["all"]


def test_a_deposit_lifts_no_peak_and_hides_no_drawdown(desk: Desk) -> None:
    desk = pay_in(desk, 1_000.0)
    assert desk.pipeline.recover().valuation.equity == 1_970.0
    assert drawdown(desk) == pytest.approx(0.03)
    desk.bar("AAA", 100.0)
    desk.pipeline.tick()
    assert drawdown(desk) == pytest.approx(1.0 - 2_000.0 * 970.0 / (1_000.0 * 1_970.0))
    assert desk.store.trading.performance_stats().max_drawdown_pct == pytest.approx(0.03)


def test_a_process_that_ends_between_the_movement_and_the_book_measures_the_same(desk: Desk) -> None:
    desk = pay_in(desk, -400.0)
    desk.pipeline.log.move_cash("broker", -400.0, desk.clock.now())
    fresh = desk.restart()
    fresh.pipeline.tick()
    fresh.restart().pipeline.tick()
    assert drawdown(fresh) == pytest.approx(0.03)
    assert halts(fresh) == []


def test_after_a_resumption_too_the_drawdown_is_that_of_a_unit(desk: Desk) -> None:
    desk.bar("AAA", 90.0)
    desk.pipeline.tick()
    assert halts(desk) == ["all"]
    desk.clock.advance(timedelta(minutes=1))
    desk.pipeline.resume(actor="operator")
    desk.clock.advance(timedelta(minutes=1))
    desk.pipeline.tick()
    assert drawdown(desk) == 0.0
    desk = pay_in(desk, -400.0)
    desk.pipeline.recover()
    assert (drawdown(desk), halts(desk)) == (pytest.approx(0.0, abs=1e-9), [])
    desk.bar("AAA", 85.0)
    desk.pipeline.tick()
    assert drawdown(desk) == pytest.approx(25.0 / 550.0)
    assert halts(desk) == []
    desk.bar("AAA", 84.0)
    desk.pipeline.tick()
    assert halts(desk) == ["all"]


def test_the_report_draws_and_the_months_count_what_a_unit_was_worth(store: Store) -> None:
    for day, (equity, moved) in enumerate([(1_000.0, 1_000.0), (900.0, 1_000.0), (1_900.0, 2_000.0), (1_710.0, 2_000.0)]):
        store.trading.save_portfolio(Book(recorded_at=NOW + timedelta(days=day), equity=equity, cash=0.0, moved=moved))
    assert [point.unit_value for point in store.trading.drawdown_history()] == pytest.approx([1_000.0, 900.0, 900.0, 810.0])
    (month,) = store.trading.monthly_returns()
    assert (month.end_equity, month.return_pct) == (1_710.0, pytest.approx(-0.19))
    report = build_daily_report(store, as_of=NOW + timedelta(days=4))
    assert report.portfolio is not None
    assert report.portfolio.drawdown_pct == report.stats.max_drawdown_pct == pytest.approx(0.19)
    assert {"equity", "drawdown"} <= set(report.charts)


def test_over_many_deposits_and_withdrawals_the_drawdown_is_that_of_the_returns_alone(store: Store) -> None:
    rng = np.random.default_rng(7)
    returns = rng.normal(0.0, 0.03, 120)
    equity, moved, found = 1_000.0, 1_000.0, []
    for step, gain in enumerate(returns):
        equity *= 1.0 + gain
        flow = equity * rng.uniform(-0.6, 1.5) if step % 3 == 0 else 0.0
        equity, moved = equity + flow, moved + flow
        at = NOW + timedelta(minutes=step)
        state = store.trading.save_portfolio(Book(recorded_at=at, equity=equity, cash=equity, moved=moved))
        found.append(state.drawdown_pct)
    # The first value is where the account began.
    course = np.cumprod(1.0 + np.concatenate([[0.0], returns[1:]]))
    assert found == pytest.approx(1.0 - course / np.maximum.accumulate(course), abs=1e-9)


def test_an_account_that_was_emptied_goes_on_where_it_was_when_money_comes_back(store: Store) -> None:
    books = [(1_000.0, 1_000.0), (900.0, 1_000.0), (0.0, 100.0), (450.0, 550.0)]
    found = [
        store.trading.save_portfolio(Book(recorded_at=NOW + timedelta(days=day), equity=equity, cash=equity, moved=moved))
        for day, (equity, moved) in enumerate(books)
    ]
    assert [state.drawdown_pct for state in found] == pytest.approx([0.0, 0.1, 0.1, 0.1])
    assert found[-1].peak_equity == pytest.approx(500.0)


def test_an_account_that_lost_all_has_lost_all(store: Store) -> None:
    for day, equity in enumerate((1_000.0, 0.0)):
        state = store.trading.save_portfolio(
            Book(recorded_at=NOW + timedelta(days=day), equity=equity, cash=equity, moved=1_000.0)
        )
    assert state.drawdown_pct == 1.0


class PowerCut(BaseException):
    """The process ends here."""


def test_a_process_that_ends_right_after_a_deposit_was_written_down_vaults_none_of_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = build_desk(store)
    desk.pipeline.recover()
    dying = pay_in(desk, 100_000.0)

    def die(milestones: Milestones) -> None:
        raise PowerCut

    with monkeypatch.context() as patched:
        patched.setattr(Milestones, "reload", die)
        with pytest.raises(PowerCut):
            dying.pipeline.recover()
    fresh = desk.restart()
    fresh.pipeline.recover()
    state = fresh.pipeline.argus.milestones.state
    assert state is not None
    assert (state.milestone_origin, state.total_vaulted) == (150_000.0, 0.0)
    assert MilestoneStage.SERIOUS in state.crossed_stages
    assert [amount for _, amount in fresh.pipeline.log.list_cash_movements()] == [50_000.0, 100_000.0]


def test_a_movement_that_is_known_moves_no_milestone(store: Store) -> None:
    log = DecisionLog(store.trading.gateway)
    log.move_cash("deposit", 100.0, NOW, milestones=MilestoneState(milestone_origin=1_100.0))
    with pytest.raises(StoreConflictError):
        log.move_cash("deposit", 100.0, NOW, milestones=MilestoneState(milestone_origin=1_200.0))
    state = store.trading.load_milestones()
    assert state is not None
    assert state.milestone_origin == 1_100.0
