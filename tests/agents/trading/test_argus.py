"""Argus: what the book counts as spent and as free, which prices have a value, and when a fall ends trading."""

from dataclasses import replace
from datetime import timedelta

import pytest

from agents.brokers.paper import PaperBroker, PaperConfig
from agents.trading.ares import AresConfig
from agents.trading.argus import ArgusConfig
from agents.trading.context import PipelineConfig, TradingConfig
from agents.trading.limits import LimitsConfig
from agents.trading.milestones import MilestonesConfig
from agents.trading.pythia import PythiaConfig
from agents.trading.seniority import SeniorityConfig
from core.clock import FixedClock
from core.store.opening import Store
from core.store.trading_records import MilestoneStage, MilestoneState
from core.types import BindingConstraint, PipelineStatus, Side, Stage
from tests.agents.trading.desk import FREE, NOW, Desk, build_desk, signal

WAITING = AresConfig(expiry_minutes=600.0)
AT_ONCE = PipelineConfig(tick_seconds=0.0)


@pytest.fixture
def desk(store: Store) -> Desk:
    """A desk of 50,000 that stakes one percent, 500, on each signal."""
    return build_desk(store)


def hold(desk: Desk, *symbols: str) -> None:
    """Buy for 500 of each symbol, at the price of the tests."""
    desk.pipeline.run([signal(symbol) for symbol in symbols])
    for symbol in symbols:
        desk.bar(symbol, desk.prices.last[symbol])
    desk.pipeline.tick()


# What is spent, and what is free


def test_an_entry_that_waits_is_deployed_and_its_cash_is_not_free(desk: Desk) -> None:
    """Five of AAA at 100 are held; ten of BBB at 50 and 25 of CCC at 20 wait, 500 each."""
    hold(desk, "AAA")
    desk.pipeline.run([signal("BBB")])
    desk.pipeline.tick()
    one = desk.pipeline.argus.view()
    assert (one.deployed, one.cash, one.equity) == (1_000.0, 49_000.0, 50_000.0)
    desk.pipeline.run([signal("CCC")])
    desk.pipeline.tick()
    two = desk.pipeline.argus.view()
    assert (two.deployed, two.cash, two.equity) == (1_500.0, 48_500.0, 50_000.0)
    assert two.open_symbols == ("AAA", "BBB", "CCC")


def test_entries_that_wait_leave_no_room_for_one_more_in_the_next_run(store: Store) -> None:
    """Of 50,000 may 1.9 % be deployed, 950: one entry of 500 fits, and a second does not while the first waits."""
    config = TradingConfig(ares=WAITING, pipeline=AT_ONCE, limits=LimitsConfig(max_deployed=0.019))
    desk = build_desk(store, config=config)
    (first,) = desk.pipeline.run([signal("AAA")])
    (second,) = desk.pipeline.run([signal("BBB")])
    assert first.status is PipelineStatus.SUBMITTED
    assert (second.killed_at_stage, second.binding_constraint) == (Stage.LIMITS, BindingConstraint.BUDGET)


def test_vaulted_money_is_neither_free_nor_sized_on(store: Store) -> None:
    """Of 50,000 are 10,000 put away: one percent of 40,000 buys four shares at 100, not five."""
    crossed = (MilestoneStage.SEED, MilestoneStage.SPRINT, MilestoneStage.SCALE)
    store.trading.save_milestones(
        MilestoneState(milestone_origin=50_000.0, vault_balance=10_000.0, total_vaulted=10_000.0, crossed_stages=crossed)
    )
    desk = build_desk(store)
    desk.pipeline.tick()
    view = desk.pipeline.argus.view()
    assert (view.equity, view.cash, view.deployed) == (40_000.0, 40_000.0, 0.0)
    desk.pipeline.run([signal("AAA")])
    (entry,) = [order for order in desk.broker.list_open_orders() if order.side is Side.BUY]
    assert entry.qty == 4.0
    view = desk.pipeline.argus.view()
    assert (view.equity, view.cash, view.deployed) == (40_000.0, 39_600.0, 400.0)
    assert desk.pipeline.tick().equity == 50_000.0


# When a fall ends trading


@pytest.mark.parametrize(
    ("stage", "cash", "kept", "reached"),
    [
        # Half of the cash is in shares bought at 100: four of them at 900, and so on.
        (MilestoneStage.SEED, 900.0, 88.76, 88.75),  # 4 * 11.25 = 45 is 5 %
        (MilestoneStage.SPRINT, 2_000.0, 88.01, 88.0),  # 10 * 12 = 120 is 6 %
        (MilestoneStage.SCALE, 20_000.0, 86.01, 86.0),  # 100 * 14 = 1,400 is 7 %
        (MilestoneStage.SERIOUS, 200_000.0, 84.01, 84.0),  # 1,000 * 16 = 16,000 is 8 %
        (MilestoneStage.EMPIRE, 2_000_000.0, 90.01, 90.0),  # 10,000 * 10 = 100,000 is 5 %
        (MilestoneStage.SEED, 1_020.0, 89.81, 89.8),  # fallen to the stage below, 5 * 10.2 = 51 is 5 %
    ],
)
def test_trading_halts_once_when_the_fall_reaches_the_limit_of_the_stage_that_the_equity_is_at(
    store: Store, stage: MilestoneStage, cash: float, kept: float, reached: float
) -> None:
    """The limits are those of TRADING.md; only the sizes are wider, so that half of the account can be staked."""
    stages = tuple(replace(rules, max_size=0.5, max_tier=3) for rules in MilestonesConfig().stages)
    config = TradingConfig(
        milestones=MilestonesConfig(stages=stages),
        limits=LimitsConfig(seniority=SeniorityConfig(paper_caps=(0.5, 0.5, 0.5, 0.5))),
        pythia=PythiaConfig(cold_size=0.5),
        ares=AresConfig(stop_loss=0.5, expiry_minutes=600.0),
        pipeline=AT_ONCE,
    )
    desk = build_desk(store, config=config, cash=cash)
    hold(desk, "AAA")
    halted_at = []
    for price in (kept, reached, reached - 0.5):
        desk.bar("AAA", price)
        desk.pipeline.tick()
        halted_at += [price] if desk.pipeline.argus.halts() else []
    assert halted_at == [reached, reached - 0.5]
    (ordered,) = desk.rows("audit_log", event_type="trading.halted")
    assert (ordered["actor"], ordered["subject"]) == ("argus", "all")
    assert desk.pipeline.argus.rules().stage is stage


# Which prices have a value


@pytest.mark.parametrize(
    ("age", "equity"),
    [
        (timedelta(hours=100), 50_000.0),
        (timedelta(hours=100, seconds=1), None),
        (timedelta(seconds=-1), None),
    ],
)
def test_the_price_of_what_is_held_counts_for_so_long_and_not_before_its_time(
    desk: Desk, age: timedelta, equity: float | None
) -> None:
    hold(desk, "AAA", "BBB")
    desk.prices.age = age
    valuation = desk.pipeline.tick()
    assert (valuation.equity, valuation.unpriced) == (equity, () if equity is not None else ("AAA", "BBB"))


def test_what_is_held_and_priced_in_another_currency_has_no_value(desk: Desk) -> None:
    hold(desk, "AAA", "BBB")
    desk.prices.currency = "EUR"
    valuation = desk.pipeline.tick()
    assert (valuation.equity, valuation.unpriced, valuation.positions) == (None, ("AAA", "BBB"), 0.0)
    desk.prices.currency = "USD"
    assert desk.pipeline.tick().equity == 50_000.0


def test_the_currency_of_an_account_is_the_one_its_shares_must_be_priced_in(store: Store) -> None:
    clock = FixedClock(NOW)
    account = PaperConfig(initial_cash=50_000.0, rules=FREE, currency="EUR")
    config = TradingConfig(ares=replace(WAITING, currency="EUR"), argus=ArgusConfig(currency="EUR"), pipeline=AT_ONCE)
    desk = build_desk(store, broker=PaperBroker(store.trading.gateway, account, clock), config=config, clock=clock)
    desk.prices.currency = "EUR"
    hold(desk, "AAA")
    assert desk.pipeline.tick().equity == 50_000.0
    desk.prices.currency = "USD"
    assert desk.pipeline.tick().unpriced == ("AAA",)
