"""What a context is built of, by the settings."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agents.brokers.paper import PaperBroker
from agents.trading.chat import OpenAIChat
from agents.trading.context import PipelineConfig, TradingConfig, TradingContext, find_lists, is_real_money_armed
from agents.trading.market_data import SP500, VIX, Bar
from agents.trading.pipeline import build_pipeline
from agents.trading.sanctions import FICTITIOUS, FictitiousLists, ListFormat
from core.clock import FixedClock
from core.errors import ConfigurationError
from core.settings import Settings
from core.store.opening import Store
from core.store.trading_records import Seniority, SeniorityTier
from core.types import BindingConstraint, PipelineStatus, Stage
from tests.agents.trading.desk import NOW, Prices, signal


@pytest.fixture
def market() -> Prices:
    clock = FixedClock(NOW)
    closes = [100 + day / 7 for day in range(22)]
    flat = [
        Bar(symbol=SP500, at=NOW - timedelta(days=22 - day), open=100, high=104, low=99, close=close)
        for day, close in enumerate(closes)
    ]
    return Prices(clock, {"AAA": 100.0, VIX: 14.0}, {SP500: flat})


def settings(database: str, home: Path, **more: Any) -> Settings:
    return Settings(home=home, database_url=database, **more)  # type: ignore[arg-type]


def test_the_desk_of_the_settings_trades_on_paper_by_rules(database: str, tmp_path: Path, market: Prices) -> None:
    lists = FictitiousLists(market.clock)
    with TradingContext.from_settings(settings(database, tmp_path), data=market, lists=lists, clock=market.clock) as context:
        assert isinstance(context.broker, PaperBroker)
        assert context.chat is None
        bought, listed = build_pipeline(context).run([signal("AAA"), signal("AAA", supplier=a_listed_name(lists))])
        assert (bought.status, bought.position_pct) == (PipelineStatus.SUBMITTED, 0.01)
        assert (listed.killed_at_stage, listed.binding_constraint) == (Stage.HADES, BindingConstraint.SANCTIONS)
        (screened,) = context.store.trading.gateway.select("filtered_signals", where={"killed": True})
        assert screened["matched_entry"] is not None


def a_listed_name(lists: FictitiousLists) -> str:
    return lists.load().lists[0].names[0].name


def test_without_lists_in_the_home_everything_is_refused(database: str, tmp_path: Path, market: Prices) -> None:
    with TradingContext.from_settings(settings(database, tmp_path), data=market, clock=market.clock) as context:
        (trace,) = build_pipeline(context).run([signal("AAA")])
        assert trace.binding_constraint is BindingConstraint.SANCTIONS_LIST_MISSING


def test_lists_of_the_home_are_those_that_are_there_and_always_the_one_of_ofac(tmp_path: Path) -> None:
    assert [item.format for item in find_lists(tmp_path)] == [ListFormat.OFAC]
    (tmp_path / "un.xml").write_bytes((FICTITIOUS / "un.xml").read_bytes())
    assert [item.format for item in find_lists(tmp_path)] == [ListFormat.OFAC, ListFormat.UN]


def test_a_configured_model_directs_unless_rules_are_asked_for(database: str, tmp_path: Path, market: Prices) -> None:
    configured = settings(database, tmp_path, openai_base_url="http://127.0.0.1:9/v1")
    with TradingContext.from_settings(configured, data=market, clock=market.clock) as context:
        assert isinstance(context.chat, OpenAIChat)
    with TradingContext.from_settings(configured, data=market, clock=market.clock, rule_mode=True) as context:
        assert context.chat is None


@pytest.mark.parametrize("senior", [True, False])
@pytest.mark.parametrize("armed", [True, False])
@pytest.mark.parametrize("paper", [True, False])
def test_real_money_needs_all_three_conditions(store: Store, senior: bool, armed: bool, paper: bool) -> None:
    config = TradingConfig()
    for agent in config.limits.seniority.agents:
        tier = SeniorityTier.SENIOR if senior or agent != "zeus" else SeniorityTier.INTERMEDIATE
        store.trading.save_seniority(Seniority(agent_name=agent, tier=tier))
    asked = Settings(arm_real_money=armed, paper_trading=paper)
    assert is_real_money_armed(asked, store, config) is (senior and armed and not paper)


def test_real_money_is_not_armed_by_default(store: Store) -> None:
    assert not is_real_money_armed(Settings(), store, TradingConfig())
    assert (Settings().paper_trading, Settings().arm_real_money) == (True, False)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"tick_seconds": -1.0}, {"cash_tolerance": -0.1}, {"guard_seconds": -1.0}])
def test_a_pipeline_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        PipelineConfig(**wrong)
