import copy
import dataclasses
import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError
from core.message import Message
from core.types import (
    AgentHealth,
    BindingConstraint,
    DecisionTrace,
    FilteredSignal,
    HealthReport,
    MacroContext,
    MarketRegime,
    PipelineStatus,
    RawSignal,
    Severity,
    Side,
    SignalCategory,
    SizedSignal,
    Stage,
    StageOutcome,
    TradeResult,
    VixBand,
    context_key,
    vix_band,
)

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


def raw(**changes: Any) -> RawSignal:
    values: dict[str, Any] = {
        "signal_id": "s-1",
        "headline": "Foundry halts deliveries",
        "published_at": NOON,
        "category": SignalCategory.SUPPLIER_DISRUPTION,
        "severity": Severity.HIGH,
        "affected_tickers": ("AAPL", "BRK.B"),
        "supplier": "Foundry Ltd",
        "summary": "No wafers this month.",
        "source_url": "https://example.com/1",
    }
    return RawSignal(**(values | changes))


def filtered(**changes: Any) -> FilteredSignal:
    return FilteredSignal(**({"original": raw(), "compliance_score": 1.0} | changes))


def macro(**changes: Any) -> MacroContext:
    values: dict[str, Any] = {
        "as_of": NOON,
        "regime": MarketRegime.BULL,
        "vix": 14.5,
        "sp500_1m_return": 0.03,
        "sector_momentum": {"XLK": 0.02},
    }
    return MacroContext(**(values | changes))


def sized(**changes: Any) -> SizedSignal:
    return SizedSignal(**({"original": filtered(), "macro": macro(), "confidence": 0.62, "position_size_pct": 0.02} | changes))


def trade(**changes: Any) -> TradeResult:
    values: dict[str, Any] = {
        "client_order_id": "c-1",
        "order_id": "b-1",
        "symbol": "AAPL",
        "side": Side.BUY,
        "status": PipelineStatus.FILLED,
        "qty": 10,
        "fill_price": 100.0,
        "stop_loss_price": 97.0,
        "take_profit_price": 106.0,
    }
    return TradeResult(**(values | changes))


def trace(**changes: Any) -> DecisionTrace:
    values: dict[str, Any] = {
        "trace_id": "t-1",
        "signal_id": "s-1",
        "symbol": "AAPL",
        "decided_at": NOON,
        "status": PipelineStatus.KILLED,
        "stages": (StageOutcome(stage=Stage.ICARUS, passed=True), StageOutcome(stage=Stage.HADES, passed=False, note="0.97")),
        "killed_at_stage": Stage.HADES,
        "kill_reason": "name on the list",
        "binding_constraint": BindingConstraint.SANCTIONS,
        "timings": {"hades": 0.003},
    }
    return DecisionTrace(**(values | changes))


def filled_trace(**changes: Any) -> DecisionTrace:
    values: dict[str, Any] = {
        "status": PipelineStatus.FILLED,
        "stages": (StageOutcome(stage=Stage.ARES, passed=True),),
        "killed_at_stage": None,
        "kill_reason": None,
        "binding_constraint": None,
        "order_id": "b-1",
    }
    return trace(**(values | changes))


def health(**changes: Any) -> HealthReport:
    values: dict[str, Any] = {"agent_name": "hades", "status": AgentHealth.DEGRADED, "message": "slow", "error_count": 2}
    return HealthReport(**(values | {"checked_at": NOON} | changes))


MAKERS: tuple[Callable[..., Message], ...] = (raw, filtered, macro, sized, trade, trace, filled_trace, health)


# Values of the enums are stored in the database: changing one needs a migration.
@pytest.mark.parametrize(
    ("enum", "values"),
    [
        (
            SignalCategory,
            "supplier_disruption positive_news earnings_surprise regulatory_action macro_shift neutral",
        ),
        (Severity, "low medium high critical"),
        (MarketRegime, "bull bear sideways unknown"),
        (VixBand, "low medium high extreme"),
        (AgentHealth, "healthy degraded failed"),
        (Side, "buy sell"),
        (Stage, "hermes icarus hades artemis pythia limits zeus ares"),
        (PipelineStatus, "pending killed submitted partially_filled filled closed cancelled expired rejected unknown"),
        (
            BindingConstraint,
            "out_of_universe stale_signal muted_pattern sanctions sanctions_list_missing esg_block macro_unavailable "
            "vix_extreme bear_regime tier_blocked cold_start_low_confidence confidence_below_floor cooldown ticker_cap "
            "sector_cap global_cap budget halted llm_unavailable reasoning_quality llm_rejected seniority_cap "
            "price_unavailable size_below_one_share broker_unavailable unknown_equity",
        ),
    ],
)
def test_enums_have_the_values_that_are_stored(enum: Any, values: str) -> None:
    assert " ".join(enum) == values


def test_severity_is_ordered_by_meaning_and_not_by_letters() -> None:
    low, medium, high, critical = Severity
    assert low < medium < high < critical
    assert critical > high >= high > medium >= low
    assert low <= low and not low < low
    assert sorted([critical, low, high, medium]) == [low, medium, high, critical]
    assert max(medium, critical, low) is critical


def test_severity_refuses_to_be_ordered_against_text() -> None:
    with pytest.raises(TypeError, match=r"a Severity can only be ordered against a Severity, was 'low'"):
        sorted([Severity.CRITICAL, "low"])
    with pytest.raises(TypeError, match=r"convert it with `Severity\(\.\.\.\)`"):
        max("low", Severity.CRITICAL)


def test_severity_is_lowered_by_one_level_and_not_below_low() -> None:
    assert [severity.lowered for severity in Severity] == [Severity.LOW, Severity.LOW, Severity.MEDIUM, Severity.HIGH]


@pytest.mark.parametrize(
    ("vix", "band"),
    [
        (0.01, VixBand.LOW),
        (14.999, VixBand.LOW),
        (15.0, VixBand.MEDIUM),
        (24.999, VixBand.MEDIUM),
        (25.0, VixBand.HIGH),
        (34.999, VixBand.HIGH),
        (35.0, VixBand.EXTREME),
        (90.0, VixBand.EXTREME),
    ],
)
def test_vix_bands_begin_at_their_lower_bound(vix: float, band: VixBand) -> None:
    assert vix_band(vix) is band


@pytest.mark.parametrize("vix", [0.0, -1.0, float("nan"), float("inf")])
def test_vix_band_refuses_what_is_no_level(vix: float) -> None:
    with pytest.raises(DataError, match="`vix` must be a positive number of index points"):
        vix_band(vix)


def test_context_key_joins_category_regime_and_band() -> None:
    key = context_key(SignalCategory.EARNINGS_SURPRISE, MarketRegime.SIDEWAYS, VixBand.HIGH)
    assert key == "earnings_surprise|sideways|high"


@pytest.mark.parametrize(
    ("flags", "severity"),
    [
        ({}, Severity.HIGH),
        ({"downgraded": True}, Severity.MEDIUM),
        ({"esg_flag": True}, Severity.MEDIUM),
        ({"downgraded": True, "esg_flag": True}, Severity.MEDIUM),
        ({"ofac_flag": True}, Severity.HIGH),
    ],
)
def test_a_downgrade_or_an_esg_flag_lowers_the_effective_severity_once(flags: dict[str, bool], severity: Severity) -> None:
    signal = filtered(**flags)
    assert signal.severity is severity
    assert sized(original=signal).severity is severity
    assert signal.original.severity is Severity.HIGH


@pytest.mark.parametrize("wrapper", [filtered(), sized()])
def test_wrappers_show_the_signal_without_reaching_into_it(wrapper: FilteredSignal | SizedSignal) -> None:
    assert wrapper.signal_id == "s-1"
    assert wrapper.source_url == "https://example.com/1"
    assert wrapper.headline == "Foundry halts deliveries"
    assert wrapper.summary == "No wafers this month."
    assert wrapper.published_at == NOON
    assert wrapper.category is SignalCategory.SUPPLIER_DISRUPTION
    assert wrapper.severity is Severity.HIGH
    assert wrapper.affected_tickers == ("AAPL", "BRK.B")
    assert wrapper.supplier == "Foundry Ltd"


def test_a_sized_signal_shows_what_hades_found() -> None:
    signal = sized(original=filtered(compliance_score=0.4, esg_flag=True, ofac_flag=True, downgraded=True, notes=("coal",)))
    assert (signal.compliance_score, signal.esg_flag, signal.ofac_flag, signal.downgraded) == (0.4, True, True, True)
    assert signal.notes == ("coal",)


def test_the_context_key_of_a_signal_needs_a_vix() -> None:
    assert sized().context_key == "supplier_disruption|bull|low"
    blind = macro(regime=MarketRegime.UNKNOWN, vix=None, suppress=True, suppress_reason="macro_unavailable")
    refused = sized(macro=blind, skip=True, skip_reason="macro_unavailable", position_size_pct=0.0)
    assert blind.vix_band is None
    assert refused.context_key is None


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (raw, {"signal_id": ""}, r"`RawSignal.signal_id` must be text that is not blank, was ''"),
        (raw, {"signal_id": "  "}, r"`RawSignal.signal_id` must be text that is not blank"),
        (raw, {"signal_id": 7}, r"`RawSignal.signal_id` must be text, was 7"),
        (raw, {"headline": "a\x00b"}, r"`RawSignal.headline` must be text without NUL characters"),
        (raw, {"supplier": ""}, r"`RawSignal.supplier` must be text that is not blank"),
        (raw, {"published_at": "2024-03-01"}, r"`RawSignal.published_at` must be a datetime, was '2024-03-01'"),
        (raw, {"published_at": datetime(2024, 3, 1)}, r"`RawSignal.published_at` must be a time in UTC"),  # noqa: DTZ001
        (
            raw,
            {"published_at": NOON.astimezone(timezone(timedelta(hours=1)))},
            r"`RawSignal.published_at` must be a time in UTC \(convert it with `.astimezone\(UTC\)`\)",
        ),
        (raw, {"category": "neutral"}, r"`RawSignal.category` must be a SignalCategory, was 'neutral'"),
        (raw, {"severity": AgentHealth.FAILED}, r"`RawSignal.severity` must be a Severity"),
        (raw, {"affected_tickers": ["AAPL"]}, r"`RawSignal.affected_tickers` must be a tuple"),
        (raw, {"affected_tickers": ("aapl",)}, r"`RawSignal.affected_tickers` must be made of upper-case tickers"),
        (
            raw,
            {"affected_tickers": ("A B",)},
            r"`RawSignal.affected_tickers` must be made of upper-case tickers without spaces",
        ),
        (raw, {"affected_tickers": ("",)}, r"`RawSignal.affected_tickers` must be made of upper-case tickers"),
        (raw, {"affected_tickers": ("A", "A")}, r"`RawSignal.affected_tickers` must be without repetition"),
        (filtered, {"original": {}}, r"`FilteredSignal.original` must be a RawSignal"),
        (filtered, {"compliance_score": 1.01}, r"`FilteredSignal.compliance_score` must be a fraction in 0..1, was 1.01"),
        (filtered, {"compliance_score": -0.01}, r"`FilteredSignal.compliance_score` must be a fraction in 0..1"),
        (filtered, {"compliance_score": float("nan")}, r"`FilteredSignal.compliance_score` must be a finite number, was nan"),
        (filtered, {"compliance_score": True}, r"`FilteredSignal.compliance_score` must be a finite number, was True"),
        (filtered, {"esg_flag": 1}, r"`FilteredSignal.esg_flag` must be true or false, was 1"),
        (filtered, {"notes": (1,)}, r"`FilteredSignal.notes` must be text, was 1"),
        (macro, {"vix": 0.0}, r"`MacroContext.vix` must be greater than 0, was 0.0"),
        (macro, {"vix": None}, r"`MacroContext.vix` must be given when the regime is known"),
        (macro, {"sp500_1m_return": -1.5}, r"`MacroContext.sp500_1m_return` must be a return of -1"),
        (macro, {"sector_momentum": {"xlk": 0.1}}, r"`MacroContext.sector_momentum` must be made of upper-case tickers"),
        (macro, {"sector_momentum": [("XLK", 0.1)]}, r"`MacroContext.sector_momentum` must be a mapping"),
        (macro, {"sector_momentum": {"XLK": "up"}}, r"`MacroContext.sector_momentum` must be a finite number, was 'up'"),
        (macro, {"suppress": True}, r"`MacroContext.suppress_reason` must be given exactly when `suppress` is true"),
        (macro, {"suppress_reason": "x"}, r"`MacroContext.suppress_reason` must be given exactly when `suppress` is true"),
        (macro, {"regime": MarketRegime.UNKNOWN}, r"`MacroContext.suppress` must be true in an unknown regime"),
        (sized, {"confidence": 1.5}, r"`SizedSignal.confidence` must be a fraction in 0..1, was 1.5"),
        (sized, {"position_size_pct": 2.0}, r"`SizedSignal.position_size_pct` must be a fraction in 0..1, was 2.0"),
        (sized, {"position_size_pct": 0.0}, r"`SizedSignal.position_size_pct` must be 0 exactly when `skip` is true"),
        (sized, {"skip": True}, r"`SizedSignal.skip_reason` must be given exactly when `skip` is true"),
        (sized, {"skip": True, "skip_reason": "cooldown"}, r"`SizedSignal.position_size_pct` must be 0 exactly when `skip`"),
        (trade, {"status": PipelineStatus.KILLED}, r"`TradeResult.status` must be a state of an order .*, was 'killed'"),
        (trade, {"status": PipelineStatus.PENDING}, r"`TradeResult.status` must be a state of an order"),
        (trade, {"symbol": "aapl"}, r"`TradeResult.symbol` must be made of upper-case tickers"),
        (trade, {"side": "buy"}, r"`TradeResult.side` must be a Side"),
        (trade, {"qty": -1}, r"`TradeResult.qty` must be 0 or greater, was -1.0"),
        (trade, {"qty": 0}, r"`TradeResult.qty` must be above 0 when the status is filled"),
        (trade, {"fill_price": None}, r"`TradeResult.fill_price` must be given exactly when `qty` is above 0"),
        (trade, {"fill_price": 0.0}, r"`TradeResult.fill_price` must be greater than 0"),
        (trade, {"status": PipelineStatus.SUBMITTED}, r"`TradeResult.qty` must be 0 when the status is submitted, was 10.0"),
        (trade, {"order_id": None}, r"`TradeResult.order_id` must be given when the status is filled"),
        (trade, {"pnl_pct": 0.02}, r"`TradeResult.pnl_pct` must be given exactly when the status is closed"),
        (trade, {"status": PipelineStatus.CLOSED}, r"`TradeResult.pnl_pct` must be given exactly when the status is closed"),
        (trade, {"stop_loss_price": 106.0}, r"`TradeResult.stop_loss_price` must be below the take profit of a buy, was 106.0"),
        (trade, {"side": Side.SELL}, r"`TradeResult.stop_loss_price` must be above the take profit of a sell, was 97.0"),
        (trace, {"killed_at_stage": None}, r"`DecisionTrace.killed_at_stage` must be given exactly when the status is killed"),
        (trace, {"kill_reason": None}, r"`DecisionTrace.kill_reason` must be given exactly when the status is killed"),
        (trace, {"binding_constraint": None}, r"`DecisionTrace.binding_constraint` must be given when the status is killed"),
        (trace, {"binding_constraint": "sanctions"}, r"`DecisionTrace.binding_constraint` must be a BindingConstraint"),
        (trace, {"killed_at_stage": Stage.ZEUS}, r"`DecisionTrace.stages` must be passed, except zeus at the end"),
        (trace, {"stages": ()}, r"`DecisionTrace.stages` must be passed, except hades at the end, was \[\]"),
        (trace, {"timings": {"hades": -0.1}}, r"`DecisionTrace.timings` must be 0 or greater, was -0.1"),
        (filled_trace, {"kill_reason": "x"}, r"`DecisionTrace.kill_reason` must be given exactly when the status is killed"),
        (filled_trace, {"order_id": None}, r"`DecisionTrace.order_id` must be given when the status is filled"),
        (filled_trace, {"pnl_pct": 0.1}, r"`DecisionTrace.pnl_pct` must be given exactly when the status is closed"),
        (filled_trace, {"position_pct": 5}, r"`DecisionTrace.position_pct` must be a fraction in 0..1, was 5.0"),
        (health, {"error_count": -1}, r"`HealthReport.error_count` must be 0 or greater, was -1"),
        (health, {"error_count": 1.5}, r"`HealthReport.error_count` must be a whole number, was 1.5"),
        (health, {"error_count": True}, r"`HealthReport.error_count` must be a whole number, was True"),
    ],
)
def test_a_message_that_is_not_valid_cannot_be_made(
    make: Callable[..., Message], changes: dict[str, Any], message: str
) -> None:
    make()
    with pytest.raises(DataError, match=message):
        make(**changes)


def test_a_trace_refuses_stages_out_of_order() -> None:
    swapped = (StageOutcome(stage=Stage.ARES, passed=True), StageOutcome(stage=Stage.HADES, passed=True))
    with pytest.raises(DataError, match=r"`DecisionTrace.stages` must be in the order of the pipeline"):
        filled_trace(stages=swapped)


def test_a_trace_refuses_a_stage_that_comes_after_the_kill() -> None:
    killed = StageOutcome(stage=Stage.HADES, passed=False)
    with pytest.raises(DataError, match=r"`DecisionTrace.stages` must be passed, except hades at the end"):
        trace(stages=(killed, StageOutcome(stage=Stage.ARES, passed=True)))


def test_a_trace_that_was_not_killed_refuses_a_stage_that_killed() -> None:
    with pytest.raises(DataError, match=r"`DecisionTrace.stages` must be all passed"):
        filled_trace(stages=(StageOutcome(stage=Stage.ARES, passed=False),))


def test_an_order_of_unknown_outcome_needs_no_identity_of_the_broker() -> None:
    lost = trade(status=PipelineStatus.UNKNOWN, order_id=None, qty=0, fill_price=None)
    assert lost.client_order_id == "c-1"


def test_the_stop_of_a_short_sale_is_above_its_take_profit() -> None:
    short = trade(side=Side.SELL, stop_loss_price=103.0, take_profit_price=94.0)
    assert short.stop_loss_price == 103.0


def test_a_long_value_is_shortened_in_the_refusal() -> None:
    with pytest.raises(DataError) as refusal:
        raw(headline="x" * 100_000 + "\x00")
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize("make", MAKERS)
def test_messages_cannot_be_changed(make: Callable[..., Message]) -> None:
    message = make()
    field = dataclasses.fields(message)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(message, field, "other")
    assert not hasattr(message, "__dict__")


def test_mappings_in_a_message_cannot_be_changed_from_inside_or_outside() -> None:
    momentum = {"XLK": 0.02}
    context = macro(sector_momentum=momentum)
    momentum["XLK"] = 9.0
    assert context.sector_momentum["XLK"] == 0.02
    with pytest.raises(TypeError):
        context.sector_momentum["XLK"] = 1.0  # type: ignore[index]


def test_messages_take_keywords_only() -> None:
    with pytest.raises(TypeError):
        StageOutcome(Stage.HADES, True)  # type: ignore[misc]


def test_numbers_and_times_of_other_libraries_become_plain_ones() -> None:
    signal = sized(
        confidence=np.float64(0.5),
        original=filtered(original=raw(published_at=pd.Timestamp("2024-03-01T12:00", tz="UTC")), compliance_score=1),
    )
    assert type(signal.confidence) is float
    assert type(signal.compliance_score) is float
    assert type(signal.published_at) is datetime and signal.published_at == NOON
    assert type(health(error_count=np.int64(3)).error_count) is int


@pytest.mark.parametrize("make", MAKERS)
def test_messages_survive_pickling_and_copying(make: Callable[..., Message]) -> None:
    message = make()
    assert pickle.loads(pickle.dumps(message)) == message
    assert copy.deepcopy(message) == message
    assert hash(copy.copy(message)) == hash(message)


def test_a_changed_copy_is_checked_again() -> None:
    with pytest.raises(DataError, match=r"`SizedSignal.confidence` must be a fraction"):
        dataclasses.replace(sized(), confidence=2.0)


def test_to_dict_writes_what_json_can_carry() -> None:
    assert filtered(esg_flag=True, compliance_score=0.4, notes=("coal",)).to_dict() == {
        "original": {
            "signal_id": "s-1",
            "headline": "Foundry halts deliveries",
            "published_at": "2024-03-01T12:00:00+00:00",
            "category": "supplier_disruption",
            "severity": "high",
            "affected_tickers": ["AAPL", "BRK.B"],
            "supplier": "Foundry Ltd",
            "summary": "No wafers this month.",
            "source_url": "https://example.com/1",
        },
        "compliance_score": 0.4,
        "esg_flag": True,
        "ofac_flag": False,
        "downgraded": False,
        "notes": ["coal"],
    }


def test_from_dict_reads_a_time_that_ends_in_z() -> None:
    assert HealthReport.from_dict(health().to_dict() | {"checked_at": "2024-03-01T12:00:00Z"}) == health()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"severty": "low"}, r"`RawSignal` has no field `severty`; did you mean `severity`\? Allowed: signal_id, headline"),
        ({"zzz": 1}, r"`RawSignal` has no field `zzz`; Allowed: signal_id"),
        ({"severity": "dire"}, r"`RawSignal.severity` must be one of low, medium, high, critical, was 'dire'"),
        ({"published_at": "yesterday"}, r"`RawSignal.published_at` must be a time in ISO 8601, was 'yesterday'"),
        ({"published_at": 1709294400}, r"`RawSignal.published_at` must be a time in ISO 8601, was 1709294400"),
        ({"published_at": "2024-03-01T12:00:00"}, r"`RawSignal.published_at` must be a time in UTC"),
        ({"affected_tickers": "AAPL"}, r"`RawSignal.affected_tickers` must be a list, was 'AAPL'"),
    ],
)
def test_from_dict_refuses_what_to_dict_does_not_write(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        RawSignal.from_dict(raw().to_dict() | changes)


def test_from_dict_refuses_an_unknown_key_inside_a_wrapped_message() -> None:
    data = filtered().to_dict()
    data["original"]["tickers"] = []
    with pytest.raises(DataError, match="`RawSignal` has no field `tickers`"):
        FilteredSignal.from_dict(data)


def test_from_dict_names_a_missing_field() -> None:
    data = raw().to_dict()
    del data["severity"], data["summary"]
    with pytest.raises(DataError, match="`RawSignal` needs the field `severity`, which is not there"):
        RawSignal.from_dict(data)


def test_from_dict_refuses_what_is_no_mapping() -> None:
    with pytest.raises(DataError, match="`RawSignal` must be read from a mapping, was 3"):
        RawSignal.from_dict(3)  # type: ignore[arg-type]


texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=20)
names = texts.filter(lambda text: bool(text.strip()))
tickers = st.from_regex(r"[A-Z][A-Z0-9.\-]{0,5}", fullmatch=True)
times = st.datetimes(timezones=st.just(UTC))
fractions = st.floats(0.0, 1.0)
prices = st.floats(0.01, 1e6)
returns = st.floats(-1.0, 10.0)

raw_signals = st.builds(
    RawSignal,
    signal_id=names,
    headline=names,
    published_at=times,
    category=st.sampled_from(SignalCategory),
    severity=st.sampled_from(Severity),
    affected_tickers=st.lists(tickers, max_size=4, unique=True).map(tuple),
    supplier=st.none() | names,
    summary=texts,
    source_url=st.none() | names,
)
filtered_signals = st.builds(
    FilteredSignal,
    original=raw_signals,
    compliance_score=fractions,
    esg_flag=st.booleans(),
    ofac_flag=st.booleans(),
    downgraded=st.booleans(),
    notes=st.lists(texts, max_size=3).map(tuple),
)
contexts = st.builds(
    MacroContext,
    as_of=times,
    regime=st.sampled_from(MarketRegime),
    vix=st.floats(5.0, 90.0),
    sp500_1m_return=st.none() | returns,
    sector_momentum=st.dictionaries(tickers, returns, max_size=3),
    suppress=st.just(True),
    suppress_reason=names,
)
sized_signals = st.builds(
    SizedSignal,
    original=filtered_signals,
    macro=contexts,
    confidence=fractions,
    position_size_pct=st.floats(1e-6, 1.0),
    is_exploration=st.booleans(),
)
trades = st.builds(
    TradeResult,
    client_order_id=names,
    order_id=names,
    symbol=tickers,
    side=st.sampled_from(Side),
    status=st.sampled_from([PipelineStatus.FILLED, PipelineStatus.PARTIALLY_FILLED]),
    qty=prices,
    fill_price=prices,
    stop_loss_price=st.none() | prices,
)
traces = st.builds(
    DecisionTrace,
    trace_id=names,
    signal_id=names,
    symbol=st.none() | tickers,
    decided_at=times,
    status=st.just(PipelineStatus.CLOSED),
    stages=st.sets(st.sampled_from(Stage)).map(
        lambda reached: tuple(StageOutcome(stage=stage, passed=True) for stage in Stage if stage in reached)
    ),
    llm_reasoning=st.none() | texts,
    binding_constraint=st.none() | st.sampled_from(BindingConstraint),
    confidence=st.none() | fractions,
    position_pct=st.none() | fractions,
    order_id=names,
    pnl_pct=returns,
    timings=st.dictionaries(st.sampled_from([stage.value for stage in Stage]), prices),
)
reports = st.builds(
    HealthReport,
    agent_name=names,
    status=st.sampled_from(AgentHealth),
    message=texts,
    error_count=st.integers(0, 10**9),
    checked_at=times,
)


@given(st.one_of(raw_signals, filtered_signals, contexts, sized_signals, trades, traces, reports))
def test_every_message_comes_back_from_json_as_it_was(message: Message) -> None:
    assert type(message).from_dict(json.loads(json.dumps(message.to_dict()))) == message
