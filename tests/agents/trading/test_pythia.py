import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.trading.milestones import MilestonesConfig, StageRules
from agents.trading.pythia import Pythia, PythiaConfig
from agents.trading.sizing import FixedSizing, KellySizing, RampSizing, Sizing
from core.errors import DataError, StoreUnavailableError
from core.store.sqlite_trade_log import SqliteTradeLog
from core.store.trading_records import HitRate, TradeEntry, TradeExit
from core.types import BindingConstraint, MarketRegime, Refusal, SignalCategory, SizedSignal, Stage
from tests.agents.trading.sized import ToldLog, filtered, hit_rate, macro
from tests.core.store.trading import KEY, at, new_trade

SEED, SPRINT, SCALE, SERIOUS, EMPIRE = MilestonesConfig().stages


def ask(
    log: ToldLog, stage: StageRules = SERIOUS, *, paper: bool = True, sizing: Sizing | None = None, **changes: Any
) -> SizedSignal | Refusal:
    return Pythia(log, sizing or RampSizing(), **changes).size(filtered(), macro(), stage, paper=paper)  # type: ignore[arg-type]


def passed(answer: SizedSignal | Refusal) -> tuple[float, float, bool]:
    assert isinstance(answer, SizedSignal), answer
    return answer.confidence, answer.position_size_pct, answer.is_exploration


def refused(answer: SizedSignal | Refusal) -> BindingConstraint:
    assert isinstance(answer, Refusal), answer
    assert answer.stage is Stage.PYTHIA
    return answer.constraint


def known(n: int, rate: float) -> ToldLog:
    return ToldLog(hit_rate(n, rate), closed=100)


def test_the_context_is_category_regime_and_band() -> None:
    log = known(10, 0.8)
    Pythia(log, RampSizing()).size(  # type: ignore[arg-type]
        filtered(category=SignalCategory.MACRO_SHIFT), macro(regime=MarketRegime.BEAR, vix=25.0), SERIOUS, paper=True
    )
    assert log.asked == ["macro_shift|bear|high"]


def test_the_shrunk_probability_is_the_confidence_and_sizes() -> None:
    p = (10 * 0.8 + 5) / 20
    assert passed(ask(known(10, 0.8))) == (p, pytest.approx(0.02 + 2 * (p - 0.5) * 0.03), False)


def test_a_measured_zero_stays_and_gives_the_floor_size_or_nothing() -> None:
    # One loss: 5/11 is above the floor and gets the ramp's floor size. Two: 5/12 is below it.
    assert passed(ask(ToldLog(hit_rate(1, 0.0, win=None)))) == (pytest.approx(5 / 11), 0.02, False)
    assert refused(ask(ToldLog(hit_rate(2, 0.0, win=None)))) is BindingConstraint.CONFIDENCE_BELOW_FLOOR


@pytest.mark.parametrize(("n", "rate", "passes"), [(10, 0.4, True), (20, 0.425, True), (20, 0.424, False), (10, 0.39, False)])
def test_the_floor_is_45_percent_itself_included(n: int, rate: float, passes: bool) -> None:
    answer = ask(known(n, rate))
    assert isinstance(answer, SizedSignal) is passes
    if not passes:
        assert refused(answer) is BindingConstraint.CONFIDENCE_BELOW_FLOOR


@pytest.mark.parametrize(
    ("stage", "n", "rate", "passes"),
    [
        (SEED, 10, 0.9, True),  # p = 0.70, tier 1
        (SEED, 1000, 0.7, False),  # p just below, tier 2
        (SPRINT, 10, 0.6, True),  # p = 0.55, tier 2
        (SPRINT, 1000, 0.55, False),
        (SCALE, 10, 0.6, True),
        (SCALE, 1000, 0.55, False),
        (SERIOUS, 10, 0.4, True),  # p = 0.45, tier 3
        (EMPIRE, 10, 0.4, True),
    ],
)
def test_a_stage_admits_its_tiers(stage: StageRules, n: int, rate: float, passes: bool) -> None:
    answer = ask(known(n, rate), stage)
    assert isinstance(answer, SizedSignal) is passes
    if not passes:
        assert refused(answer) is BindingConstraint.TIER_BLOCKED


@pytest.mark.parametrize(("confidence", "tier"), [(1.0, 1), (0.7, 1), (0.6999, 2), (0.55, 2), (0.5499, 3), (0.0, 3)])
def test_tiers_begin_at_70_and_55_percent(confidence: float, tier: int) -> None:
    assert PythiaConfig().tier(confidence) == tier


@pytest.mark.parametrize(
    ("stage", "paper", "closed", "expected"),
    [
        (SERIOUS, True, 0, (0.62, 0.02, True)),
        (SERIOUS, True, 19, (0.62, 0.02, True)),
        (SERIOUS, True, 20, (0.55, 0.02, False)),
        (SERIOUS, False, 0, (0.55, 0.02, False)),
        (SPRINT, True, 20, (0.55, 0.02, False)),
        (SEED, True, 0, (0.72, 0.02, True)),
        (SEED, True, 19, (0.72, 0.02, True)),
        (SEED, True, 20, None),
        (SEED, False, 0, None),
    ],
)
def test_a_cold_context_is_explored_on_paper_while_the_account_is_new(
    stage: StageRules, paper: bool, closed: int, expected: tuple[float, float, bool] | None
) -> None:
    answer = ask(ToldLog(closed=closed), stage, paper=paper)
    if expected is None:
        assert refused(answer) is BindingConstraint.COLD_START_LOW_CONFIDENCE
    else:
        assert passed(answer) == expected


def test_one_closed_trade_ends_the_cold_start_of_a_context() -> None:
    assert passed(ask(ToldLog(hit_rate(1, 1.0), closed=1)))[2] is False


def test_trades_that_cannot_be_counted_forbid_exploration_and_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert passed(ask(ToldLog(fails=("count_closed",)))) == (0.55, 0.02, False)
    assert "nothing is explored: the closed trades cannot be counted: the database is away" in caplog.text
    assert refused(ask(ToldLog(fails=("count_closed",)), SEED)) is BindingConstraint.COLD_START_LOW_CONFIDENCE


def test_a_record_that_cannot_be_read_is_not_sized() -> None:
    with pytest.raises(StoreUnavailableError, match="the database is away"):
        ask(ToldLog(fails=("find_hit_rate",)))


def test_a_market_without_a_vix_has_no_context() -> None:
    nothing = macro(regime=MarketRegime.UNKNOWN, vix=None, suppress=True, suppress_reason="no data")
    answer = Pythia(ToldLog(), RampSizing()).size(filtered(), nothing, SERIOUS, paper=True)  # type: ignore[arg-type]
    assert refused(answer) is BindingConstraint.MACRO_UNAVAILABLE


def test_a_sizing_that_sees_no_edge_refuses_with_its_name_and_the_figures() -> None:
    answer = ask(ToldLog(hit_rate(100, 0.7, win=0.01, loss=-0.05)), sizing=KellySizing())
    assert refused(answer) is BindingConstraint.CONFIDENCE_BELOW_FLOOR
    assert isinstance(answer, Refusal)
    assert answer.reason == f"the kelly sizing sees no edge: {KEY}, 100 closed, 70.0% hits, trusted."


def test_what_is_learned_in_a_real_log_is_what_sizes_next(tmp_path: Path) -> None:
    log = SqliteTradeLog(tmp_path / "log.db")
    pythia = Pythia(log, RampSizing())
    assert passed(pythia.size(filtered(), macro(), SERIOUS, paper=True))[2] is True
    for number in range(10):
        trade = log.record_trade(new_trade(number))
        log.record_entry(TradeEntry(client_order_id=trade.client_order_id, qty=10, fill_price=100.0))
        price = 106.0 if number < 7 else 97.0
        log.close_trade(TradeExit(trade_id=trade.trade_id, exit_price=price, exit_reason="x", closed_at=at(900)))
    assert passed(pythia.size(filtered(), macro(), SERIOUS, paper=True)) == (0.6, pytest.approx(0.026), False)


RATES = st.one_of(
    st.none(), st.builds(lambda n, share: hit_rate(n, round(n * share) / n), st.integers(1, 2000), st.floats(0, 1))
)


@given(
    rate=RATES, stage=st.sampled_from(MilestonesConfig().stages), paper=st.booleans(), closed=st.integers(0, 50), data=st.data()
)
def test_what_passes_is_above_the_floor_of_an_admitted_tier_and_explored_on_paper_only(
    rate: HitRate | None, stage: StageRules, paper: bool, closed: int, data: st.DataObject
) -> None:
    sizing = data.draw(st.sampled_from([RampSizing(), KellySizing(), FixedSizing()]))
    answer = ask(ToldLog(rate, closed=closed), stage, paper=paper, sizing=sizing)
    if isinstance(answer, SizedSignal):
        assert answer.confidence >= 0.45
        assert PythiaConfig().tier(answer.confidence) <= stage.max_tier
        assert 0.0 < answer.position_size_pct <= 0.05
        assert not answer.is_exploration or (paper and closed < 20 and rate is None)


def test_tiers_that_are_upside_down_are_refused() -> None:
    with pytest.raises(DataError, match=r"`PythiaConfig\.tier_2_from` must be below `tier_1_from`"):
        PythiaConfig(tier_2_from=0.7)
