from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from agents.trading.icarus import Icarus, IcarusConfig, lesson, pattern_of
from core.clock import FixedClock
from core.errors import ConfigurationError
from core.store.opening import Store
from core.store.trading import TradingStore
from core.store.trading_records import Exchange, TickerMapping
from core.types import (
    BindingConstraint,
    DecisionTrace,
    PipelineStatus,
    RawSignal,
    Refusal,
    SignalCategory,
    Stage,
    StageOutcome,
)
from tests.agents.trading.signals import NOW, hours, signal


class Memoryless(TradingStore):
    """A store without a database: nothing was decided, and the ticker map is this one."""

    def __init__(self, *mappings: TickerMapping) -> None:
        self.mappings, self.reads, self.gateway = list(mappings), 0, self  # type: ignore[assignment]

    def select(self, table: str, **conditions: Any) -> list[dict[str, Any]]:
        return []

    def list_ticker_mappings(self, exchange: Exchange | None = None) -> list[TickerMapping]:
        self.reads += 1
        return self.mappings


TRADE = {
    "context_key": "earnings_surprise|bull|low",
    "confidence": 0.6,
    "position_pct": 0.01,
    "symbol": "PLUG",
    "side": "buy",
    "client_order_id": "plug-1",
    "qty": 1.0,
    "fill_price": 2.0,
    "recorded_at": NOW,
}
APPLE = TickerMapping(supplier_name="Apple", ticker="AAPL", exchange=Exchange.NASDAQ)


def icarus(config: IcarusConfig | None = None, clock: FixedClock | None = None) -> Icarus:
    return Icarus(Memoryless(APPLE), config or IcarusConfig(), clock or FixedClock(NOW))


def constraint_of(judged: RawSignal | Refusal) -> BindingConstraint | None:
    if isinstance(judged, RawSignal):
        return None
    assert judged.stage is Stage.ICARUS
    return judged.constraint


@pytest.mark.parametrize(
    ("age", "constraint"),
    [
        (hours(0), None),
        (hours(168), None),
        (hours(168) + timedelta(seconds=1), BindingConstraint.STALE_SIGNAL),
        (timedelta(seconds=-1), BindingConstraint.STALE_SIGNAL),
    ],
)
def test_a_signal_must_be_of_the_last_168_hours(age: timedelta, constraint: BindingConstraint | None) -> None:
    assert constraint_of(icarus().judge(signal(published_at=NOW - age), NOW)) is constraint


@pytest.mark.parametrize("category", list(SignalCategory))
def test_only_neutral_signals_are_dropped_for_their_category(category: SignalCategory) -> None:
    expected = BindingConstraint.OUT_OF_UNIVERSE if category is SignalCategory.NEUTRAL else None
    assert constraint_of(icarus().judge(signal(category=category), NOW)) is expected


@pytest.mark.parametrize(
    ("headline", "routine"),
    [
        ("10-K - ACME CORP", True),
        ("10-Q - ACME CORP: Results", True),
        ("8-K/A - ACME CORP", True),
        ("DEF 14A - ACME CORP", True),
        ("Form 10-K: ACME CORP", True),
        ("10-K", True),
        ("8-K - ACME CORP: Results of Operations", False),
        ("10-K annual report shows fraud", False),
        ("4 - Jane Doe", True),
        ("4 plants are closed", False),
        ("Acme files its 10-K late", False),
    ],
)
def test_routine_filings_are_dropped(headline: str, routine: bool) -> None:
    judged = icarus().judge(signal(headline=headline), NOW)
    assert constraint_of(judged) is (BindingConstraint.OUT_OF_UNIVERSE if routine else None)


def test_a_supplier_is_resolved_to_its_ticker() -> None:
    judged = icarus().judge(signal(affected_tickers=(), supplier="Apple Inc."), NOW)
    assert isinstance(judged, RawSignal)
    assert judged.affected_tickers == ("AAPL",)


def test_tickers_that_came_with_the_signal_are_kept() -> None:
    original = signal(affected_tickers=("IFX", "AAA"), supplier="Apple Inc.")
    assert icarus().judge(original, NOW) == original


def test_after_a_restart_the_ticker_map_is_read_at_once() -> None:
    store = Memoryless(APPLE)
    scanner = Icarus(store, IcarusConfig(), FixedClock(NOW))
    assert scanner.company_names("BFA") == ()
    store.mappings = [TickerMapping(supplier_name="Bosch Fastening", ticker="BFA", exchange=Exchange.XETRA)]
    assert scanner.company_names("BFA") == ()
    scanner.restart()
    assert scanner.company_names("BFA") == ("Bosch Fastening",)


@pytest.mark.parametrize("supplier", ["Cargill", "Nobody Knows Them", None])
def test_a_private_or_unknown_supplier_is_out_of_the_universe(supplier: str | None) -> None:
    judged = icarus().judge(signal(affected_tickers=(), supplier=supplier), NOW)
    assert constraint_of(judged) is BindingConstraint.OUT_OF_UNIVERSE


def test_only_tickers_of_the_universe_are_passed() -> None:
    judge = icarus(IcarusConfig(universe=frozenset({"AAA", "AAPL"})))
    judged = judge.judge(signal(affected_tickers=("ZZZ", "AAA")), NOW)
    assert isinstance(judged, RawSignal)
    assert judged.affected_tickers == ("AAA",)
    assert constraint_of(judge.judge(signal(affected_tickers=("ZZZ",)), NOW)) is BindingConstraint.OUT_OF_UNIVERSE
    judged = judge.judge(signal(affected_tickers=(), supplier="Apple"), NOW)
    assert isinstance(judged, RawSignal)


@pytest.mark.parametrize(
    ("ticker", "passes"),
    [
        ("A", True), ("GOOGL", True), ("BRK.B", True), ("BRK-B", True), ("BRK/B", True), ("BAC.PRK", True), ("ABC.WS.A", True),
        ("???", False), ("AAPLUS", False), ("A1", False), ("^VIX", False), ("BRK.", False), (".B", False), ("ABC.WARR", False),
        ("ÄPF", False), ("VOW3", True),
    ],
)  # fmt: skip
def test_a_ticker_has_the_shape_of_us_tickers_or_is_in_the_ticker_map(ticker: str, passes: bool) -> None:
    volkswagen = TickerMapping(supplier_name="Volkswagen", ticker="VOW3", exchange=Exchange.XETRA)
    judged = Icarus(Memoryless(volkswagen), IcarusConfig(), FixedClock(NOW)).judge(signal(affected_tickers=(ticker,)), NOW)
    assert constraint_of(judged) is (None if passes else BindingConstraint.OUT_OF_UNIVERSE)


def test_a_ticker_is_known_by_the_map_or_by_a_price_and_few_prices_are_asked_for() -> None:
    asked: list[str] = []

    def is_priced(ticker: str, now: datetime) -> bool:
        asked.append(ticker)
        return ticker == "PLUG"

    judge = Icarus(Memoryless(APPLE), IcarusConfig(), FixedClock(NOW), is_priced)
    assert constraint_of(judge.judge(signal(affected_tickers=("ZZZZ",)), NOW)) is BindingConstraint.OUT_OF_UNIVERSE
    judged = judge.judge(signal(affected_tickers=("ZZZZ", "PLUG", "YYYY", "???")), NOW)
    assert isinstance(judged, RawSignal)
    assert judged.affected_tickers == ("PLUG", "YYYY")
    assert asked == ["ZZZZ", "ZZZZ", "PLUG"]
    assert constraint_of(judge.judge(signal(affected_tickers=("AAPL",)), NOW)) is None
    assert asked == ["ZZZZ", "ZZZZ", "PLUG"]
    many = tuple(f"Z{chr(65 + place // 26)}{chr(65 + place % 26)}" for place in range(500))
    refused = judge.judge(signal(affected_tickers=many), NOW)
    assert constraint_of(refused) is BindingConstraint.OUT_OF_UNIVERSE
    assert len(asked) == 13


def test_what_was_traded_before_is_known_while_nobody_prices_it(store: Store) -> None:
    judge = Icarus(store.trading, IcarusConfig(), FixedClock(NOW), lambda ticker, now: False)
    news = signal(affected_tickers=("PLUG",))
    assert constraint_of(judge.judge(news, NOW)) is BindingConstraint.OUT_OF_UNIVERSE
    store.trading.gateway.insert("trades", [TRADE])
    assert constraint_of(judge.judge(news, NOW)) is None


def test_the_ticker_map_is_read_again_after_15_minutes() -> None:
    clock = FixedClock(NOW)
    judge = icarus(clock=clock)
    store = judge._store
    assert isinstance(store, Memoryless)
    judge.judge(signal(affected_tickers=(), supplier="Apple"), NOW)
    store.mappings = [TickerMapping(supplier_name="Bosch Fastening", ticker="BFA", exchange=Exchange.XETRA)]
    clock.advance(timedelta(minutes=14, seconds=59))
    assert judge.company_names("AAPL") == ("Apple",)
    clock.advance(timedelta(seconds=1))
    assert set(judge.company_names("AAPL")) == {"Apple", "Apple Inc."}  # those that ship, where the store has no other
    assert judge.company_names("BFA") == ("Bosch Fastening",)
    assert store.reads == 2


def teach(judge: Icarus, days: list[int], rejected: int, **changes: Any) -> None:
    """Let a pattern be seen once for each entry of `days` (days ago); the first so many of them were rejected."""
    for number, ago in enumerate(days):
        judge.learn(signal(**changes), number < rejected, NOW - timedelta(days=ago))


TEN_ON_THREE_DAYS = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("days", "rejected", "muted"),
    [
        (TEN_ON_THREE_DAYS, 10, True),
        (TEN_ON_THREE_DAYS, 9, True),
        (TEN_ON_THREE_DAYS, 8, False),
        (TEN_ON_THREE_DAYS * 2, 17, True),
        (TEN_ON_THREE_DAYS * 2, 16, False),
        (TEN_ON_THREE_DAYS[:9], 9, False),
        ([0] * 5 + [1] * 5, 10, False),
        ([0] * 8 + [6, 13], 10, True),
        ([0] * 8 + [6, 14], 10, False),
    ],
)
def test_a_pattern_is_muted_when_it_was_seen_often_and_nearly_always_rejected(
    days: list[int], rejected: int, muted: bool
) -> None:
    judge = icarus()
    teach(judge, days, rejected)
    judged = judge.judge(signal(), NOW)
    assert constraint_of(judged) is (BindingConstraint.MUTED_PATTERN if muted else None)
    assert judge.muted(NOW) == (["earnings_surprise:chip"] if muted else [])


def test_a_pattern_is_the_category_and_the_first_long_word() -> None:
    assert pattern_of(signal(headline="The new CHIP, of all")) == "earnings_surprise:chip"
    assert pattern_of(signal(headline="Up 3% to 1200")) is None
    judge = icarus()
    teach(judge, TEN_ON_THREE_DAYS, 10)
    assert isinstance(judge.judge(signal(headline="Steel maker raises its outlook"), NOW), RawSignal)
    assert isinstance(judge.judge(signal(category=SignalCategory.POSITIVE_NEWS), NOW), RawSignal)
    assert isinstance(judge.judge(signal(headline="Up 3% to 1200"), NOW), RawSignal)


@pytest.mark.parametrize("tickers", [("ZZZ",), ()])
def test_what_is_outside_the_universe_is_said_to_be_so_though_its_pattern_is_muted(tickers: tuple[str, ...]) -> None:
    judge = icarus(IcarusConfig(universe=frozenset({"AAA"})))
    teach(judge, TEN_ON_THREE_DAYS, 10)
    assert constraint_of(judge.judge(signal(affected_tickers=("AAA",)), NOW)) is BindingConstraint.MUTED_PATTERN
    judged = judge.judge(signal(affected_tickers=tickers), NOW)
    assert constraint_of(judged) is BindingConstraint.OUT_OF_UNIVERSE


def test_what_is_muted_is_forgotten_by_the_same_window() -> None:
    judge = icarus()
    teach(judge, TEN_ON_THREE_DAYS, 10)
    for days, constraint in ((11, BindingConstraint.MUTED_PATTERN), (12, None)):
        later = NOW + timedelta(days=days)
        assert constraint_of(judge.judge(signal(published_at=later), later)) is constraint


def test_the_same_signal_is_learned_once_a_day() -> None:
    judge = icarus()
    one = signal()
    for ago in (0, 1, 2):
        for _ in range(10):
            judge.learn(one, True, NOW - timedelta(days=ago))
    assert judge.muted(NOW) == []


@pytest.mark.parametrize(
    ("status", "constraint", "learned"),
    [
        (PipelineStatus.FILLED, None, False),
        (PipelineStatus.SUBMITTED, BindingConstraint.SENIORITY_CAP, False),
        (PipelineStatus.KILLED, BindingConstraint.LLM_REJECTED, True),
        (PipelineStatus.KILLED, BindingConstraint.SANCTIONS, True),
        (PipelineStatus.KILLED, BindingConstraint.CONFIDENCE_BELOW_FLOOR, True),
        (PipelineStatus.KILLED, BindingConstraint.MUTED_PATTERN, None),
        (PipelineStatus.KILLED, BindingConstraint.HALTED, None),
        (PipelineStatus.KILLED, BindingConstraint.MACRO_UNAVAILABLE, None),
        (PipelineStatus.KILLED, BindingConstraint.SANCTIONS_LIST_MISSING, None),
    ],
)
def test_only_a_verdict_on_the_signal_itself_teaches(
    status: PipelineStatus, constraint: BindingConstraint | None, learned: bool | None
) -> None:
    assert lesson(status, constraint) is learned


def decide(store: Store, item: RawSignal, constraint: BindingConstraint | None, days_ago: float) -> None:
    """Store a signal and a decision about it."""
    store.trading.save_signal(item, source="test", source_key=item.signal_id)
    killed = constraint is not None
    store.trading.save_decision_trace(
        DecisionTrace(
            trace_id=str(uuid4()),
            signal_id=item.signal_id,
            decided_at=NOW - timedelta(days=days_ago),
            status=PipelineStatus.KILLED if killed else PipelineStatus.SUBMITTED,
            stages=(StageOutcome(stage=Stage.PYTHIA, passed=not killed),),
            killed_at_stage=Stage.PYTHIA if killed else None,
            kill_reason="because" if killed else None,
            binding_constraint=constraint,
        )
    )


def test_what_was_learned_is_read_again_from_the_store_after_a_restart(store: Store) -> None:
    for number in range(10):
        decide(store, signal(), BindingConstraint.CONFIDENCE_BELOW_FLOOR, number % 3)
        decide(store, signal(headline="Plant halts"), BindingConstraint.HALTED, number % 3)
        decide(store, signal(headline="Order won"), None, number % 3)
        decide(store, signal(headline="Yesterday's papers"), BindingConstraint.LLM_REJECTED, 14.5)
    clock = FixedClock(NOW)
    first = Icarus(store.trading, IcarusConfig(), clock)
    assert first.muted(NOW) == ["earnings_surprise:chip"]

    first.reset("operator", "earnings_surprise:chip")
    for judge in (first, Icarus(store.trading, IcarusConfig(), clock)):
        assert judge.muted(NOW) == []
    clock.advance(timedelta(days=1))
    for number in range(10):
        decide(store, signal(), BindingConstraint.CONFIDENCE_BELOW_FLOOR, -0.2 - number % 3 / 1.0)
    clock.advance(timedelta(days=2))
    assert Icarus(store.trading, IcarusConfig(), clock).muted(clock.now()) == ["earnings_surprise:chip"]
    Icarus(store.trading, IcarusConfig(), clock).reset("operator")
    assert Icarus(store.trading, IcarusConfig(), clock).muted(clock.now()) == []
    assert store.trading.verify_audit_log() == []


def test_learning_after_a_restart_does_not_count_a_decision_twice(store: Store) -> None:
    items = [signal() for _ in range(5)]
    for number, item in enumerate(items):
        decide(store, item, BindingConstraint.LLM_REJECTED, number % 3)
    judge = Icarus(store.trading, IcarusConfig(), FixedClock(NOW))
    for number, item in enumerate(items):
        judge.learn(item, True, NOW - timedelta(days=number % 3))
    assert judge.muted(NOW) == []


def test_scanning_claims_the_oldest_first_and_at_most_a_batch(store: Store) -> None:
    items = [signal(published_at=NOW - timedelta(minutes=number)) for number in range(5)]
    for item in items:
        store.trading.save_signal(item, source="test", source_key=item.signal_id)
    config = IcarusConfig(batch=3)
    first, second = (Icarus(store.trading, config, FixedClock(NOW)) for _ in range(2))
    assert [item.signal_id for item in first.scan("one")] == [item.signal_id for item in items[:1:-1]]
    assert [item.signal_id for item in second.scan("two")] == [item.signal_id for item in items[1::-1]]
    assert first.scan("one") == []
    assert IcarusConfig().batch == 100


@pytest.mark.parametrize(
    "changes",
    [
        {"batch": 0},
        {"batch": 1001},
        {"max_age": timedelta(0)},
        {"min_name_score": 0.0},
        {"mute_rejected": 1.1},
        {"mute_min_days": 15},
        {"mute_min_seen": 0},
    ],
)
def test_a_config_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        IcarusConfig(**changes)
