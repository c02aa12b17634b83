"""Bad news about what is held: what stops entries does not stop it, and what stops everything does."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from agents.trading.artemis import Artemis, ArtemisConfig
from agents.trading.hades import Hades, HadesConfig
from agents.trading.sanctions import FictitiousLists
from core.errors import ChatModelError, MissingDataError, StoreError
from core.store.opening import Store
from core.types import BindingConstraint, DecisionTrace, MacroContext, MarketRegime, PipelineStatus, Refusal, Stage
from tests.agents.trading.desk import NOW, Desk, OpenGates, bad_news, build_desk, signal

BLIND = MacroContext(as_of=NOW, regime=MarketRegime.UNKNOWN, suppress=True, suppress_reason="macro_unavailable")
PANIC = MacroContext(as_of=NOW, regime=MarketRegime.BEAR, vix=35.0, sp500_1m_return=-0.2)
CALM = MacroContext(as_of=NOW, regime=MarketRegime.BULL, vix=14.0, sp500_1m_return=0.03)


@pytest.fixture
def desk(store: Store) -> Desk:
    """A desk that holds five shares of AAA."""
    desk = build_desk(store)
    desk.pipeline.run([signal("AAA")])
    desk.bar("AAA", 100.0)
    desk.pipeline.tick()
    return desk


class Weather(Artemis):
    """Artemis, who sees what she is told."""

    def __init__(self, desk: Desk, macro: MacroContext) -> None:
        super().__init__(desk.prices, ArtemisConfig(), desk.clock)
        self.macro = macro

    def context(self) -> MacroContext:
        return self.macro


def under(desk: Desk, macro: MacroContext) -> Desk:
    return desk.restart(gates=replace(desk.context.gates, artemis=Weather(desk, macro)))


def note(trace: DecisionTrace, stage: Stage) -> str:
    (found,) = [outcome.note for outcome in trace.stages if outcome.stage is stage]
    return found


def check_that_it_sells(desk: Desk, trace: DecisionTrace) -> None:
    assert (trace.status, trace.killed_at_stage) == (PipelineStatus.SUBMITTED, None)
    assert [outcome.stage for outcome in trace.stages] == list(Stage)
    assert "the 5 AAA that are held" in note(trace, Stage.PYTHIA)
    assert (trace.confidence, trace.position_pct) == (None, None)
    desk.bar("AAA", 99.0)
    desk.pipeline.tick()
    assert "AAA" not in desk.pipeline.argus.held
    assert [trade.exit_reason for trade in desk.store.trading.trades.list_trades(symbol="AAA")] == ["signal"]


@pytest.mark.parametrize(
    ("macro", "constraint", "why"),
    [(PANIC, BindingConstraint.VIX_EXTREME, "the VIX is 35"), (BLIND, BindingConstraint.MACRO_UNAVAILABLE, "is not known")],
)
def test_a_market_in_which_nothing_is_bought_does_not_stop_a_sale(
    desk: Desk, macro: MacroContext, constraint: BindingConstraint, why: str
) -> None:
    desk = under(desk, macro)
    entry, not_held, sale = desk.pipeline.run([signal("BBB"), bad_news("CCC"), bad_news("AAA")])
    for refused in (entry, not_held):
        assert (refused.killed_at_stage, refused.binding_constraint) == (Stage.ARTEMIS, constraint)
    said = note(sale, Stage.ARTEMIS)
    assert "it can only close the 5 AAA that are held" in said
    assert why in said
    check_that_it_sells(desk, sale)


def test_an_artemis_that_fails_does_not_stop_a_sale(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    weather = Weather(desk, CALM)

    def fail() -> MacroContext:
        raise MissingDataError("no data")

    monkeypatch.setattr(weather, "context", fail)
    desk = desk.restart(gates=replace(desk.context.gates, artemis=weather))
    (sale,) = desk.pipeline.run([bad_news("AAA")])
    check_that_it_sells(desk, sale)


def test_a_record_that_admits_no_entry_does_not_stop_a_sale(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = Refusal(stage=Stage.PYTHIA, constraint=BindingConstraint.TIER_BLOCKED, reason="tier 3")
    monkeypatch.setattr(desk.pipeline.pythia, "size", lambda *arguments, **more: refusal)
    entry, sale = desk.pipeline.run([signal("BBB"), bad_news("AAA")])
    assert (entry.killed_at_stage, entry.binding_constraint) == (Stage.PYTHIA, BindingConstraint.TIER_BLOCKED)
    check_that_it_sells(desk, sale)


def test_a_trade_log_that_cannot_be_read_does_not_stop_a_sale(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **more: Any) -> None:
        raise StoreError("the record cannot be read")

    monkeypatch.setattr(desk.pipeline.pythia, "size", fail)
    entry, sale = desk.pipeline.run([signal("BBB"), bad_news("AAA")])
    assert entry.killed_at_stage is Stage.PYTHIA
    check_that_it_sells(desk, sale)


def test_no_cap_stops_a_sale(desk: Desk) -> None:
    """The ticker has a position, was traded a minute ago, and nobody knows what the account is worth."""
    desk.pipeline.run([signal("BBB")])
    desk.bar("BBB", 50.0)
    del desk.prices.last["BBB"]
    assert desk.pipeline.tick().equity is None
    entry, sale = desk.pipeline.run([signal("CCC"), bad_news("AAA")])
    assert entry.binding_constraint is BindingConstraint.UNKNOWN_EQUITY
    assert note(sale, Stage.LIMITS) == "it only closes what is held"
    check_that_it_sells(desk, sale)


class Muting(OpenGates):
    """An Icarus who has heard enough."""

    constraint = BindingConstraint.MUTED_PATTERN

    def judge(self, signal: Any, second: Any) -> Any:
        return Refusal(stage=Stage.ICARUS, constraint=self.constraint, reason="nearly always rejected of late.")


class Refusing(Muting):
    constraint = BindingConstraint.STALE_SIGNAL


def test_a_pattern_that_is_muted_for_entries_is_heard_when_it_speaks_against_what_is_held(desk: Desk) -> None:
    desk = desk.restart(gates=replace(desk.context.gates, icarus=Muting(desk.clock)))
    entry, not_held, sale = desk.pipeline.run([signal("BBB"), bad_news("BBB"), bad_news("AAA")])
    assert {entry.binding_constraint, not_held.binding_constraint} == {BindingConstraint.MUTED_PATTERN}
    assert "nearly always rejected" in note(sale, Stage.ICARUS)
    check_that_it_sells(desk, sale)


def test_what_is_stale_closes_nothing(desk: Desk) -> None:
    desk = desk.restart(gates=replace(desk.context.gates, icarus=Refusing(desk.clock)))
    (trace,) = desk.pipeline.run([bad_news("AAA")])
    assert (trace.killed_at_stage, trace.binding_constraint) == (Stage.ICARUS, BindingConstraint.STALE_SIGNAL)


def test_a_sanctioned_name_is_left_to_a_person_even_if_it_is_held(desk: Desk) -> None:
    hades = Hades(FictitiousLists(desk.clock), HadesConfig(), desk.clock, lambda ticker: ())
    listed = FictitiousLists(desk.clock).load().index.names[0].name
    desk = desk.restart(gates=replace(desk.context.gates, hades=hades))
    (trace,) = desk.pipeline.run([bad_news("AAA", supplier=listed)])
    assert (trace.killed_at_stage, trace.binding_constraint) == (Stage.HADES, BindingConstraint.SANCTIONS)
    assert desk.pipeline.argus.held == {"AAA": 5.0}


@pytest.mark.parametrize("symbol", [None, "AAA"])
def test_a_halt_stops_a_sale_too_and_the_exits_stay(desk: Desk, symbol: str | None) -> None:
    desk.pipeline.halt("looking into it", actor="operator", symbol=symbol)
    (trace,) = under(desk, PANIC).pipeline.run([bad_news("AAA")])
    assert (trace.killed_at_stage, trace.binding_constraint) == (Stage.LIMITS, BindingConstraint.HALTED)
    assert len(desk.broker.list_open_orders()) == 2


def test_a_model_that_fails_refuses_what_would_buy_and_is_not_asked_of_a_sale(desk: Desk) -> None:
    class Silent:
        def ask(self, **more: Any) -> str:
            raise ChatModelError("no answer")

    desk = desk.restart(chat=Silent())
    entry, sale = desk.pipeline.run([signal("BBB"), bad_news("AAA")])
    assert (entry.killed_at_stage, entry.binding_constraint) == (Stage.ZEUS, BindingConstraint.LLM_UNAVAILABLE)
    check_that_it_sells(desk, sale)


@pytest.mark.parametrize("make", [signal, bad_news])
def test_with_nothing_held_the_market_refuses_good_and_bad_alike(store: Store, make: Callable[[str], Any]) -> None:
    desk = under(build_desk(store), PANIC)
    (trace,) = desk.pipeline.run([make("AAA")])
    assert (trace.killed_at_stage, trace.binding_constraint) == (Stage.ARTEMIS, BindingConstraint.VIX_EXTREME)
    assert trace.kill_reason == "the VIX is 35, from 35 on nothing trades."
