import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from core.errors import DataError, StoreConflictError, StoreError
from core.store.postgres import PostgresGateway
from core.store.trading import TradingStore
from core.store.trading_records import (
    MAX_JSON_BYTES,
    AgentExp,
    AgentSummary,
    AuditProblem,
    Book,
    Breaker,
    BreakerState,
    CategoryWinRate,
    EquityPoint,
    Exchange,
    ExpEntry,
    Fill,
    FillState,
    KillCount,
    MilestoneStage,
    MilestoneState,
    MonthlyReturn,
    OrderIntent,
    PerformanceStats,
    PortfolioState,
    Position,
    Seniority,
    SeniorityLine,
    SeniorityTier,
    SystemExp,
    SystemSeniority,
    TickerMapping,
    TradeEntry,
    TradeExit,
)
from core.types import (
    AgentHealth,
    BindingConstraint,
    FilteredSignal,
    HealthReport,
    MacroContext,
    MarketRegime,
    PipelineStatus,
    RawSignal,
    Severity,
    Side,
    SignalCategory,
    Stage,
    StageOutcome,
)
from tests.core.store.trading import NOW, at, killed, new_trade, raw_signal, trace


@pytest.fixture
def store(database: str) -> Iterator[TradingStore]:
    gateway = PostgresGateway(database, role="service_role", max_connections=10).open()
    yield TradingStore(gateway)
    gateway.close()


def save(store: TradingStore, number: int = 1, **changes: Any) -> str:
    return store.save_signal(raw_signal(number, **changes), source="rss", source_key=f"item {number}").signal_id


def play(store: TradingStore, number: int, price: float, **changes: Any) -> None:
    store.trades.record_trade(new_trade(number, **changes))
    entry = TradeEntry(client_order_id=f"order-{number}", qty=10, fill_price=100.0, commission=1.0)
    trade = store.trades.record_entry(entry)
    store.trades.close_trade(TradeExit(trade_id=trade.trade_id, exit_price=price, exit_reason="x", closed_at=at(900)))


# Signals


def test_a_signal_comes_back_as_it_was_and_once(store: TradingStore) -> None:
    signal = raw_signal()
    stored = store.save_signal(signal, source="edgar", source_key="0001", raw_text="the whole filing")
    assert (stored.signal_id, stored.inserted) == (signal.signal_id, True)
    again = store.save_signal(raw_signal(headline="the headline, corrected"), source="edgar", source_key="0001")
    assert (again.signal_id, again.inserted) == (signal.signal_id, False)
    assert store.claim_signals("a") == [replace(signal, headline="the headline, corrected")]
    elsewhere = store.save_signal(raw_signal(), source="rss", source_key="0001")
    assert elsewhere.inserted


def test_fetching_a_claimed_or_consumed_signal_again_neither_changes_nor_reopens_it(
    store: TradingStore, owner: psycopg.Connection
) -> None:
    save(store)
    (claimed,) = store.claim_signals("a")
    save(store, headline="too late")
    assert store.claim_signals("b") == []
    assert store.consume_signals("a", [claimed.signal_id]) == 1
    save(store, headline="much too late")
    assert store.claim_signals("b") == []
    row = owner.execute("select headline, consumed_by_icarus, claimed_by, consumed_at is not null from signals").fetchall()
    assert row == [(claimed.headline, True, "a", True)]


def test_what_workers_that_are_gone_had_taken_is_offered_anew(store: TradingStore) -> None:
    save(store)
    (signal,) = store.claim_signals("aqf-trade-1")
    assert store.release_claims("aqf-trade-") == 1
    assert [again.signal_id for again in store.claim_signals("someone")] == [signal.signal_id]
    assert store.release_claims("aqf-trade-") == 0
    assert store.consume_signals("someone", [signal.signal_id]) == 1
    assert store.release_claims("some") == 0


def test_an_item_that_eight_fetch_at_once_is_one_signal(store: TradingStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda _: store.save_signal(raw_signal(), source="rss", source_key="1"), range(32)))
    assert len({item.signal_id for item in stored}) == 1
    assert sum(item.inserted for item in stored) == 1
    assert len(store.claim_signals("a")) == 1


def test_the_oldest_signals_are_handed_out_first_and_no_more_than_asked_for(store: TradingStore) -> None:
    for number in (3, 1, 2):
        save(store, number)
    assert [signal.headline for signal in store.claim_signals("a", 2)] == ["headline 1", "headline 2"]
    assert [signal.headline for signal in store.claim_signals("b", 2)] == ["headline 3"]


def test_eight_workers_get_every_signal_exactly_once(store: TradingStore) -> None:
    wanted = {save(store, number) for number in range(200)}

    def work(worker: int) -> list[str]:
        mine: list[str] = []
        while batch := store.claim_signals(f"worker {worker}", 7):
            ids = [signal.signal_id for signal in batch]
            assert store.consume_signals(f"worker {worker}", ids) == len(ids)
            mine += ids
        return mine

    with ThreadPoolExecutor(8) as pool:
        taken = [signal_id for mine in pool.map(work, range(8)) for signal_id in mine]
    assert len(taken) == 200
    assert set(taken) == wanted


def test_a_signal_whose_worker_vanished_comes_back_five_times_at_most(store: TradingStore, owner: psycopg.Connection) -> None:
    signal_id = save(store)
    for number in range(5):
        assert [signal.signal_id for signal in store.claim_signals(f"worker {number}")] == [signal_id]
        assert store.claim_signals("another") == []
        owner.execute("update signals set claimed_at = claimed_at - interval '16 minutes'")
    assert store.claim_signals("worker 5") == []
    assert store.consume_signals("worker 0", [signal_id]) == 0
    assert store.consume_signals("worker 4", [signal_id]) == 1


@pytest.mark.parametrize(("worker", "n"), [("", 1), (" ", 1), ("a", 0), ("a", 1001)])
def test_a_claim_names_its_worker_and_a_number(store: TradingStore, worker: str, n: int) -> None:
    with pytest.raises(StoreError, match=r"worker must be a name and n in 1\.\.1000"):
        store.claim_signals(worker, n)


def test_what_the_screening_said_is_kept_with_the_effective_severity(store: TradingStore, owner: psycopg.Connection) -> None:
    signal = raw_signal()
    store.save_signal(signal, source="rss", source_key="1")
    filtered = FilteredSignal(original=signal, compliance_score=0.4, esg_flag=True, notes=("coal",))
    store.save_filtered_signal(filtered, killed=False, list_version="sdn 2024-03-01")
    query = (
        "select compliance_score, esg_flag, killed, severity::text, notes, list_version, matched_entry from filtered_signals"
    )
    assert owner.execute(query).fetchall() == [(0.4, True, False, "medium", ["coal"], "sdn 2024-03-01", None)]
    refused = FilteredSignal(original=signal, compliance_score=0.0, ofac_flag=True)
    store.save_filtered_signal(refused, killed=True, list_version="sdn 2024-03-02", matched_entry="17")
    assert owner.execute(query).fetchall() == [(0.0, False, True, "high", [], "sdn 2024-03-02", "17")]
    with pytest.raises(DataError, match="`list_version` must name the sanctions lists of a signal that passed"):
        store.save_filtered_signal(filtered, killed=False, list_version=None)
    store.save_filtered_signal(refused, killed=True, list_version=None)


def test_the_newest_view_of_the_market_is_read_back(store: TradingStore) -> None:
    assert store.latest_macro_context() is None
    bull = MacroContext(as_of=at(1), regime=MarketRegime.BULL, vix=13.5, sp500_1m_return=0.03, sector_momentum={"XLK": 0.05})
    blind = MacroContext(as_of=at(2), regime=MarketRegime.UNKNOWN, suppress=True, suppress_reason="macro_unavailable")
    for context in (blind, bull):
        store.save_macro_context(context)
    assert store.latest_macro_context() == blind
    later = replace(bull, as_of=at(2))
    store.save_macro_context(later)
    assert store.latest_macro_context() == later


def test_suppliers_are_mapped_to_one_ticker_an_exchange(store: TradingStore) -> None:
    first = TickerMapping(supplier_name="Siemens AG", ticker="SIE", exchange=Exchange.XETRA)
    second = TickerMapping(supplier_name="Apple Inc", ticker="AAPL", exchange=Exchange.NASDAQ)
    assert store.save_ticker_mappings([first, second]) == 2
    corrected = replace(first, ticker="SIE.DE")
    assert store.save_ticker_mappings([corrected]) == 1
    assert store.list_ticker_mappings() == [second, corrected]
    assert store.list_ticker_mappings(Exchange.XETRA) == [corrected]


# Decisions and orders


def test_a_decision_comes_back_whole(store: TradingStore) -> None:
    ids = [save(store, number) for number in range(2)]
    taken = trace(ids[0], llm_reasoning="because it is so")
    refused = killed(ids[1], Stage.LIMITS, BindingConstraint.COOLDOWN, decided_at=at(2), symbol="BBB")
    for decision in (taken, refused, taken):
        store.save_decision_trace(decision)
    assert store.list_decision_traces() == [refused, taken]
    assert store.list_decision_traces(symbol="AAA") == [taken]
    assert store.list_decision_traces(since=at(1.5)) == [refused]
    assert store.list_decision_traces(limit=1) == [refused]


def test_an_outcome_reaches_the_decision_and_is_not_overwritten_by_it(store: TradingStore) -> None:
    signal_id = save(store)
    decision = trace(signal_id)
    store.save_decision_trace(decision)
    play(store, 1, 106.0, signal_id=signal_id)
    closed = replace(decision, status=PipelineStatus.CLOSED, pnl_pct=0.06)
    assert store.list_decision_traces() == [closed]
    store.save_decision_trace(decision)
    assert store.list_decision_traces() == [closed]


def test_decisions_are_found_by_their_signals(store: TradingStore) -> None:
    ids = [save(store, number) for number in range(3)]
    for signal_id in ids:
        store.save_decision_trace(trace(signal_id))
    found = store.list_decision_traces(signal_ids=[ids[2], ids[0], str(uuid4())])
    assert {item.signal_id for item in found} == {ids[0], ids[2]}
    assert store.list_decision_traces(signal_ids=[]) == []
    with pytest.raises(DataError, match="`signal_ids` must be a UUID"):
        store.list_decision_traces(signal_ids=["17"])


def test_a_decision_on_an_unknown_signal_is_refused(store: TradingStore) -> None:
    with pytest.raises(StoreConflictError, match="signal_id"):
        store.save_decision_trace(trace(str(uuid4())))


def intent(number: int = 1, **changes: Any) -> OrderIntent:
    values: dict[str, Any] = {"client_order_id": f"order-{number}", "symbol": "AAA", "side": Side.BUY, "qty": 10.0}
    return OrderIntent(**(values | changes))


def fill(number: int = 1, **changes: Any) -> Fill:
    values: dict[str, Any] = {
        "exec_id": f"exec-{number}",
        "client_order_id": "order-1",
        "qty": 4.0,
        "price": 100.0,
        "commission": 0.5,
        "filled_at": at(number),
    }
    return Fill(**(values | changes))


def test_an_order_is_written_once_and_one_a_signal(store: TradingStore) -> None:
    signal_id = save(store)
    first = store.save_intent(intent(signal_id=signal_id), {"limit": 100.5})
    assert first == intent(signal_id=signal_id)
    with pytest.raises(StoreConflictError, match="client_order_id"):
        store.save_intent(intent())
    with pytest.raises(StoreConflictError, match="signal_id"):
        store.save_intent(intent(2, signal_id=signal_id))
    store.save_intent(intent(3))
    store.save_intent(intent(4))
    store.set_intent_status("order-3", PipelineStatus.CANCELLED)
    assert [item.client_order_id for item in store.list_intents()] == ["order-1", "order-3", "order-4"]
    assert store.list_intents(PipelineStatus.CANCELLED) == [intent(3, status=PipelineStatus.CANCELLED)]


def test_a_fill_counts_once_and_reaches_order_and_trade(store: TradingStore) -> None:
    store.save_intent(intent())
    store.trades.record_trade(new_trade())
    part = store.record_fill(fill(1))
    assert part == FillState(
        recorded=True, filled_qty=4.0, average_price=100.0, total_commission=0.5, status=PipelineStatus.PARTIALLY_FILLED
    )
    assert store.record_fill(fill(1)) == replace(part, recorded=False)
    whole = store.record_fill(fill(2, qty=6.0, price=101.0))
    assert whole == FillState(
        recorded=True, filled_qty=10.0, average_price=100.6, total_commission=1.0, status=PipelineStatus.FILLED
    )
    assert store.list_intents() == [intent(status=PipelineStatus.FILLED)]
    (trade,) = store.trades.list_trades()
    assert (trade.qty, trade.fill_price, trade.commission) == (10.0, 100.6, 1.0)


def test_a_fill_that_contradicts_what_is_known_is_refused_and_leaves_nothing(store: TradingStore) -> None:
    store.save_intent(intent())
    store.record_fill(fill(1))
    with pytest.raises(StoreConflictError, match="exec_id exec-1 was recorded with other figures"):
        store.record_fill(fill(1, price=99.0))
    with pytest.raises(StoreConflictError, match="client_order_id order-2 has no intent"):
        store.record_fill(fill(2, client_order_id="order-2"))
    with pytest.raises(StoreError, match=r"qty 11\.0 filled of client_order_id order-1 is more than the 10"):
        store.record_fill(fill(2, qty=7.0))
    assert len(store.gateway.select("fills")) == 1
    assert store.list_intents() == [intent(status=PipelineStatus.PARTIALLY_FILLED)]


def test_a_late_fill_of_a_part_does_not_revive_a_cancelled_order(store: TradingStore) -> None:
    store.save_intent(intent())
    store.set_intent_status("order-1", PipelineStatus.CANCELLED)
    store.record_fill(fill(1))
    assert store.list_intents() == [intent(status=PipelineStatus.CANCELLED)]


def test_fills_reported_at_once_by_eight_are_counted_once(store: TradingStore) -> None:
    store.save_intent(intent(qty=20.0))
    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(lambda number: store.record_fill(fill(number % 5)), range(40)))
    assert sum(state.recorded for state in states) == 5
    assert max(state.filled_qty for state in states) == 20.0
    assert len(store.gateway.select("fills")) == 5


def test_a_fill_can_never_be_changed(store: TradingStore, owner: psycopg.Connection) -> None:
    store.save_intent(intent())
    store.record_fill(fill())
    for statement in ("update fills set price = 1", "delete from fills", "truncate fills"):
        with pytest.raises(psycopg.errors.RestrictViolation, match="fills is append-only"):
            owner.execute(statement)  # type: ignore[call-overload]


# The book


def test_the_book_is_replaced_and_its_peak_remembered(store: TradingStore) -> None:
    assert store.load_portfolio() is None
    one = Position(symbol="AAA", qty=10.0, avg_cost=100.0, stop_loss=97.0, unrealized_pnl=5.0)
    two = Position(symbol="BBB", qty=-1.0, avg_cost=50.0)
    first = store.save_portfolio(Book(recorded_at=at(1), equity=1000.0, cash=200.0, positions=(one, two)))
    assert first == PortfolioState(equity=1000.0, peak_equity=1000.0, drawdown_pct=0.0, cash=200.0, open_positions=2)
    moved = replace(one, unrealized_pnl=None)
    second = store.save_portfolio(Book(recorded_at=at(2), equity=900.0, cash=250.0, positions=(moved,)))
    assert second == PortfolioState(equity=900.0, peak_equity=1000.0, drawdown_pct=0.1, cash=250.0, open_positions=1)
    assert store.load_portfolio() == second
    assert store.list_positions() == [moved]
    assert store.drawdown_history() == [
        EquityPoint(recorded_at=at(1), equity=1000.0, peak=1000.0, drawdown_pct=0.0, unit_value=1000.0),
        EquityPoint(recorded_at=at(2), equity=900.0, peak=1000.0, drawdown_pct=0.1, unit_value=900.0),
    ]
    assert store.drawdown_history(at(1.5)) == store.drawdown_history(limit=1) == store.drawdown_history()[1:]
    assert len(store.gateway.select("portfolio_state")) == 1


def test_a_book_that_cannot_be_changes_nothing(store: TradingStore) -> None:
    before = store.save_portfolio(Book(recorded_at=at(1), equity=1000.0, cash=1000.0))
    with pytest.raises(StoreError, match="portfolio_positions_qty_check"):
        store.save_portfolio(
            Book(recorded_at=at(2), equity=1.0, cash=1.0, positions=(Position(symbol="A", qty=0.0, avg_cost=1.0),))
        )
    position = Position(symbol="AAA", qty=1.0, avg_cost=1.0)
    with pytest.raises(DataError, match=r"`Book\.positions` must be one a symbol"):
        Book(recorded_at=at(2), equity=1.0, cash=1.0, positions=(position, position))
    assert store.load_portfolio() == before
    assert len(store.drawdown_history()) == 1


def test_the_first_equity_is_above_zero(store: TradingStore) -> None:
    with pytest.raises(StoreError, match="equity must be above 0 the first time it is recorded, was 0"):
        store.save_portfolio(Book(recorded_at=at(1), equity=0.0, cash=0.0))


def test_there_is_one_book(owner: psycopg.Connection) -> None:
    insert = "insert into portfolio_state (singleton, equity, peak_equity, drawdown_pct, cash, open_positions) values "
    owner.execute(insert + "(true, 90, 100, 0.1, 0, 0)")
    for values in ("(true, 90, 100, 0.1, 0, 0)", "(false, 90, 100, 0.1, 0, 0)"):
        with pytest.raises(psycopg.errors.IntegrityError):
            owner.execute(insert + values)  # type: ignore[call-overload]
    for change in ("drawdown_pct = 0.2", "equity = 101, drawdown_pct = -0.01"):
        with pytest.raises(psycopg.errors.CheckViolation):
            owner.execute("update portfolio_state set " + change)  # type: ignore[call-overload]


# How the agents are doing


def health(number: float, agent: str = "hades", status: AgentHealth = AgentHealth.HEALTHY) -> HealthReport:
    return HealthReport(agent_name=agent, status=status, message=f"at {number}", error_count=2, checked_at=at(number))


def test_the_newest_report_of_each_agent_is_found_in_any_order_of_arrival(store: TradingStore) -> None:
    failed = health(3, status=AgentHealth.FAILED)
    for report in (health(2), failed, health(1), health(1, "ares")):
        store.save_health(report)
    assert store.latest_health() == [health(1, "ares"), failed]
    store.save_breaker(Breaker(agent_name="hades", state=BreakerState.OPEN, failures=3, opened_at=at(3)))
    assert store.agent_health_summary() == [
        AgentSummary(**_shown(health(1, "ares")), n_reports=1, n_failed=0, breaker=None),
        AgentSummary(**_shown(failed), n_reports=3, n_failed=1, breaker=BreakerState.OPEN),
    ]


def _shown(report: HealthReport) -> dict[str, Any]:
    return {item.name: getattr(report, item.name) for item in fields(report)}


def test_of_each_agent_the_newest_thousand_reports_are_kept(store: TradingStore, owner: psycopg.Connection) -> None:
    store.save_health(health(0, "ares"))
    insert = "insert into agent_health (agent_name, status, checked_at)"
    owner.execute(
        insert
        + " select 'hades', 'healthy', timestamptz '2024-01-01 00:00Z' + n * interval '1 s' from generate_series(1, 1003) n"
    )
    count = "select agent_name, count(*), min(checked_at) from agent_health group by 1 order by 1"
    assert owner.execute(count).fetchall() == [("ares", 1, at(0)), ("hades", 1000, datetime(2024, 1, 1, 0, 0, 4, tzinfo=UTC))]
    store.save_health(health(-99_999_999 / 60, "hades"))
    assert owner.execute(count).fetchall()[1][1:] == (1000, datetime(2024, 1, 1, 0, 0, 4, tzinfo=UTC))


def test_watchdogs_that_report_at_once_keep_the_bound(store: TradingStore, owner: psycopg.Connection) -> None:
    insert = "insert into agent_health (agent_name, status, checked_at)"
    owner.execute(
        insert
        + " select 'hades', 'healthy', timestamptz '2024-01-01 00:00Z' + n * interval '1 s' from generate_series(1, 1000) n"
    )
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.save_health(health(number)), range(64)))
    store.save_health(health(100))
    assert owner.execute("select count(*) from agent_health").fetchone() == (1000,)


def test_a_breaker_is_read_back_and_says_when_it_opened(store: TradingStore) -> None:
    assert store.load_breaker("ares") is None
    for breaker in (
        Breaker(agent_name="ares", state=BreakerState.CLOSED, failures=2),
        Breaker(agent_name="ares", state=BreakerState.HALF_OPEN, failures=3, opened_at=at(1)),
    ):
        store.save_breaker(breaker)
        assert store.load_breaker("ares") == breaker
    with pytest.raises(DataError, match=r"`Breaker\.opened_at` must be given exactly when the breaker is not closed"):
        Breaker(agent_name="ares", state=BreakerState.OPEN)


# What they have earned


def test_every_move_on_the_ladder_is_in_the_history_and_the_lowest_agent_counts(
    store: TradingStore, owner: psycopg.Connection
) -> None:
    assert store.system_seniority() is None
    ares = Seniority(agent_name="ares", tier=SeniorityTier.JUNIOR, level=2, wins=23, criteria={"sharpe": 1.5}, cleared=True)
    zeus = Seniority(agent_name="zeus", wins=3)
    store.save_seniority(zeus)
    store.save_seniority(ares)
    assert store.list_seniority() == [ares, zeus]
    assert store.system_seniority() == SystemSeniority(
        tier=SeniorityTier.TRAINEE, level=1, lowest_agent="zeus", n_agents=2, all_cleared=False
    )
    store.save_seniority(replace(zeus, wins=9))
    store.save_seniority(replace(zeus, level=2, wins=10))
    store.save_seniority(replace(ares, tier=SeniorityTier.TRAINEE, level=10))
    moves = store.promotion_history()
    assert [(m.agent_name, m.from_tier, m.from_level, m.to_tier, m.to_level, m.promoted, m.wins) for m in moves] == [
        ("ares", SeniorityTier.JUNIOR, 2, SeniorityTier.TRAINEE, 10, False, 23),
        ("zeus", SeniorityTier.TRAINEE, 1, SeniorityTier.TRAINEE, 2, True, 10),
    ]
    assert store.promotion_history("zeus") == moves[1:]
    assert store.promotion_history(limit=1) == moves[:1]
    assert owner.execute("select count(*) from agent_seniority_history").fetchone() == (4,)
    for statement in ("update agent_seniority_history set wins = 99", "delete from agent_seniority_history"):
        with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
            owner.execute(statement)  # type: ignore[call-overload]


def test_the_seniority_report_counts_the_wins_that_are_missing(store: TradingStore) -> None:
    store.save_seniority(Seniority(agent_name="zeus", tier=SeniorityTier.SENIOR, level=10, wins=400, cleared=True))
    store.save_seniority(Seniority(agent_name="ares", level=3, wins=27))
    store.mint_exp([ExpEntry(agent_name="ares", event_type="trade", source_ref="1", exp=1600)])
    top = {"tier": SeniorityTier.SENIOR, "level": 10, "wins": 400, "wins_to_next": None, "cleared": True}
    assert store.seniority_report() == [
        SeniorityLine(
            agent_name="ares",
            tier=SeniorityTier.TRAINEE,
            level=3,
            wins=27,
            wins_to_next=3,
            cleared=False,
            exp=1600,
            exp_level=2,
        ),
        SeniorityLine(agent_name="zeus", exp=0, exp_level=0, **top),
    ]


def test_experience_is_minted_once_and_never_falls_below_zero(store: TradingStore, owner: psycopg.Connection) -> None:
    assert store.system_exp() == SystemExp(total_exp=0, lowest_level=None, highest_level=None, n_agents=0)
    entries = [
        ExpEntry(agent_name="zeus", event_type="trade", source_ref="1", exp=600),
        ExpEntry(agent_name="ares", event_type="trade", source_ref="1", exp=-60),
    ]
    assert store.mint_exp(entries) == 2
    assert store.mint_exp(entries) == 0
    assert store.mint_exp([*entries, ExpEntry(agent_name="ares", event_type="trade", source_ref="2", exp=100)]) == 1
    assert store.list_exp() == [
        AgentExp(agent_name="ares", exp=100, level=0, n_entries=2),
        AgentExp(agent_name="zeus", exp=600, level=1, n_entries=1),
    ]
    assert store.system_exp() == SystemExp(total_exp=700, lowest_level=0, highest_level=1, n_agents=2)
    for statement in ("update agent_exp_ledger set exp = 9", "delete from agent_exp_ledger", "truncate agent_exp_ledger"):
        with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
            owner.execute(statement)  # type: ignore[call-overload]


def test_eight_that_mint_for_the_same_agents_lose_nothing_and_do_not_deadlock(store: TradingStore) -> None:
    agents = ["ares", "hades", "pythia", "zeus"]

    def mint(number: int) -> int:
        order = agents if number % 2 else agents[::-1]
        return store.mint_exp([ExpEntry(agent_name=a, event_type="trade", source_ref=str(number), exp=10) for a in order])

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(mint, range(40))) == 160
    assert [(item.exp, item.n_entries) for item in store.list_exp()] == [(400, 40)] * 4


def test_a_level_is_reached_at_500_times_its_power_of_1_6(owner: psycopg.Connection) -> None:
    for level in range(1, 60):
        needed = round(500 * level**1.6)
        row = owner.execute("select exp_level(%s), exp_level(%s)", [needed, needed - 1]).fetchone()
        assert row == (level, level - 1)
    assert owner.execute("select exp_level(0), exp_level(-5)").fetchone() == (0, 0)


def test_milestones_are_one_row(store: TradingStore, owner: psycopg.Connection) -> None:
    assert store.load_milestones() is None
    for state in (
        MilestoneState(milestone_origin=500.0),
        MilestoneState(
            milestone_origin=1000.0,
            vault_balance=150.0,
            total_vaulted=150.0,
            crossed_stages=(MilestoneStage.SEED, MilestoneStage.SPRINT),
        ),
    ):
        store.save_milestones(state)
        assert store.load_milestones() == state
    assert owner.execute("select count(*) from milestone_state").fetchone() == (1,)
    with pytest.raises(DataError, match=r"`MilestoneState\.vault_balance` must be at most"):
        MilestoneState(milestone_origin=1.0, vault_balance=2.0, total_vaulted=1.0)


# The audit log


def write_audit(store: TradingStore, n: int = 4) -> list[Any]:
    return [
        store.append_audit(event_type="order.sent", actor="ares", subject=f"order-{k}", payload={"qty": k}) for k in range(n)
    ]


def test_the_audit_log_numbers_and_chains_what_eight_write_at_once(store: TradingStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(lambda _: write_audit(store, 5), range(8)))
    assert sorted(entry.entry_id for part in entries for entry in part) == list(range(1, 41))
    assert store.verify_audit_log() == []
    rows = store.gateway.select("audit_log", order=("entry_id",))
    assert [row["prev_hash"] for row in rows[1:]] == [row["row_hash"] for row in rows[:-1]]
    assert rows[0]["prev_hash"] == "0" * 64


@pytest.mark.parametrize("role", [None, "service_role"])
@pytest.mark.parametrize("statement", ["update audit_log set actor = 'x'", "delete from audit_log", "truncate audit_log"])
def test_the_audit_log_refuses_every_change(
    store: TradingStore, owner: psycopg.Connection, statement: str, role: str | None
) -> None:
    write_audit(store)
    if role:
        owner.execute(f"set role {role}")  # type: ignore[call-overload]
    with pytest.raises(psycopg.errors.RestrictViolation, match="audit_log is append-only"):
        owner.execute(statement)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        ("update audit_log set payload = '{\"qty\": 9}' where entry_id = 2", [(2, "was changed after it was written")]),
        ("update audit_log set created_at = now() where entry_id = 3", [(3, "was changed after it was written")]),
        (
            "delete from audit_log where entry_id = 2",
            [(3, "an entry before this one is missing"), (4, "an entry before this one is missing")],
        ),
        (
            "update audit_log set entry_id = case entry_id when 2 then 30 else 2 end where entry_id in (2, 3);"
            "update audit_log set entry_id = 3 where entry_id = 30",
            [
                (2, "does not follow its predecessor"),
                (3, "does not follow its predecessor"),
                (4, "does not follow its predecessor"),
            ],
        ),
        ("delete from audit_log where entry_id = 4", [(4, "is missing, though it was noted")]),
    ],
    ids=["tampered", "redated", "removed", "reordered", "cut off"],
)
def test_who_gets_past_the_guards_is_found_out(
    store: TradingStore, owner: psycopg.Connection, change: str, problems: list[tuple[int, str]]
) -> None:
    known = write_audit(store)[-1]
    assert store.verify_audit_log(known) == []
    owner.execute("alter table audit_log disable trigger user")
    for statement in change.split(";"):
        owner.execute(statement)  # type: ignore[call-overload]
    assert store.verify_audit_log(known) == [AuditProblem(entry_id=number, problem=text) for number, text in problems]


def test_a_log_that_was_written_anew_is_not_the_one_that_was_noted(store: TradingStore, owner: psycopg.Connection) -> None:
    known = write_audit(store)[-1]
    owner.execute("alter table audit_log disable trigger refuse_truncate")
    owner.execute("truncate audit_log")
    write_audit(store)
    assert store.verify_audit_log() == []
    assert store.verify_audit_log(known) == [AuditProblem(entry_id=4, problem="is not the entry that was noted")]


# Reports


def test_rates_performance_and_r_are_those_of_closed_trades_that_count(store: TradingStore) -> None:
    # 10 shares at 100 with the stop at 97: R is 3; one in commission is 0.001.
    for number, price in enumerate((106.0, 110.0, 97.0, 94.0)):
        play(store, number, price)
    play(store, 5, 103.0, context_key="neutral|bear|high", stop_loss=None)
    store.trades.record_trade(new_trade(6))
    play(store, 7, 500.0)
    store.trades.void_trade(store.trades.list_trades()[-1].trade_id)
    positive, neutral = store.win_rates_by_category()
    assert (positive.category, positive.closed_trades, positive.wins, positive.win_rate) == (
        SignalCategory.POSITIVE_NEWS,
        4,
        2,
        0.5,
    )
    assert positive.avg_pnl_pct == pytest.approx((0.06 + 0.10 - 0.03 - 0.06) / 4)
    assert neutral == CategoryWinRate(category=SignalCategory.NEUTRAL, closed_trades=1, wins=1, win_rate=1.0, avg_pnl_pct=0.03)
    stats = store.performance_stats()
    assert (stats.total_trades, stats.open_trades, stats.closed_trades, stats.voided_trades, stats.wins) == (6, 1, 5, 1, 3)
    assert stats.to_dict() == pytest.approx(
        {
            "total_trades": 6,
            "open_trades": 1,
            "closed_trades": 5,
            "voided_trades": 1,
            "wins": 3,
            "win_rate": 0.6,
            "avg_pnl_pct": 0.1 / 5,
            "avg_net_pnl_pct": 0.1 / 5 - 0.001,
            "avg_win_pct": 0.19 / 3 - 0.001,
            "avg_loss_pct": -0.045 - 0.001,
            "profit_factor": 0.187 / 0.092,
            "best_pnl_pct": 0.10,
            "worst_pnl_pct": -0.06,
            "total_commission": 5.0,
            "max_drawdown_pct": None,
        }
    )
    buckets = store.r_multiple_distribution()
    assert [(item.bucket, item.n) for item in buckets] == [(-2, 1), (-1, 1), (2, 1), (3, 1)]
    assert [item.avg_r for item in buckets] == pytest.approx([-2.0, -1.0, 2.0, 10 / 3])


def test_reports_on_nothing_are_empty_and_not_an_error(store: TradingStore) -> None:
    assert (
        store.win_rates_by_category() == store.monthly_returns() == store.kill_stage_stats() == store.drawdown_history() == []
    )
    assert store.agent_health_summary() == store.seniority_report() == store.promotion_history() == []
    assert store.r_multiple_distribution() == store.latest_health() == store.list_exp() == []
    empty = {item.name: None for item in fields(PerformanceStats)} | {"total_commission": 0.0}
    empty |= dict.fromkeys(("total_trades", "open_trades", "closed_trades", "voided_trades", "wins"), 0)
    assert store.performance_stats() == PerformanceStats(**empty)


def test_a_month_is_measured_from_the_end_of_the_month_before_in_utc(store: TradingStore) -> None:
    snapshots = [
        (datetime(2024, 1, 10, tzinfo=UTC), 1000.0),
        (datetime(2024, 1, 31, 23, 59, tzinfo=UTC), 1100.0),
        (datetime(2024, 2, 1, 0, 0, tzinfo=UTC), 1089.0),
        (datetime(2024, 2, 20, tzinfo=UTC), 990.0),
        (datetime(2024, 4, 2, tzinfo=UTC), 1089.0),
    ]
    for recorded_at, equity in snapshots:
        store.save_portfolio(Book(recorded_at=recorded_at, equity=equity, cash=equity))
    returns = store.monthly_returns()
    assert [(item.month, item.end_equity) for item in returns] == [
        ("2024-01-01", 1100.0),
        ("2024-02-01", 990.0),
        ("2024-04-01", 1089.0),
    ]
    assert [item.return_pct for item in returns] == pytest.approx([0.1, -0.1, 0.1])
    assert isinstance(returns[0], MonthlyReturn)
    assert store.performance_stats().max_drawdown_pct == pytest.approx(0.1)


def test_kills_are_counted_by_stage_and_constraint_among_all_decisions(store: TradingStore) -> None:
    ids = [save(store, number) for number in range(5)]
    cut = BindingConstraint.SENIORITY_CAP  # what cut the size of an order has killed nothing
    store.save_decision_trace(trace(ids[0], binding_constraint=cut))
    store.save_decision_trace(killed(ids[1], Stage.LIMITS, BindingConstraint.COOLDOWN))
    store.save_decision_trace(killed(ids[2], Stage.LIMITS, BindingConstraint.COOLDOWN, decided_at=at(60)))
    store.save_decision_trace(killed(ids[3], Stage.LIMITS, BindingConstraint.TICKER_CAP, decided_at=at(60)))
    store.save_decision_trace(killed(ids[4], Stage.HADES, BindingConstraint.SANCTIONS))
    assert store.kill_stage_stats() == [
        KillCount(killed_at_stage=Stage.HADES, binding_constraint=BindingConstraint.SANCTIONS, n=1, share=0.2),
        KillCount(killed_at_stage=Stage.LIMITS, binding_constraint=BindingConstraint.COOLDOWN, n=2, share=0.4),
        KillCount(killed_at_stage=Stage.LIMITS, binding_constraint=BindingConstraint.TICKER_CAP, n=1, share=0.2),
    ]
    assert [item.share for item in store.kill_stage_stats(at(30))] == [0.5, 0.5]


# Who may look


def test_a_dashboard_without_a_login_reads_eight_tables_until_that_is_closed(
    store: TradingStore, owner: psycopg.Connection
) -> None:
    eight = [
        "agent_health",
        "decision_traces",
        "macro_context",
        "portfolio_positions",
        "portfolio_state",
        "signals",
        "ticker_map",
        "trades",
    ]
    signal_id = save(store)
    store.save_decision_trace(trace(signal_id))
    store.trades.record_trade(new_trade())
    store.save_health(health(1))
    store.save_macro_context(MacroContext(as_of=NOW, regime=MarketRegime.BULL, vix=12.0))
    store.save_portfolio(
        Book(recorded_at=NOW, equity=1.0, cash=1.0, positions=(Position(symbol="AAA", qty=1.0, avg_cost=1.0),))
    )
    store.save_ticker_mappings([TickerMapping(supplier_name="A", ticker="A", exchange=Exchange.NYSE)])
    owner.execute("set role anon")
    for table in eight:
        assert owner.execute(f"select count(*) from {table}").fetchone() == (1,)  # type: ignore[call-overload]
    assert store.close_anon_access() == eight
    for table in eight:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            owner.execute(f"select count(*) from {table}")  # type: ignore[call-overload]
    assert store.close_anon_access() == []
    assert len(store.trades.list_trades()) == 1


# Input that cannot be


def test_a_time_without_a_zone_is_refused_by_name(store: TradingStore) -> None:
    naive = datetime(2024, 1, 1)  # noqa: DTZ001
    for build in (
        lambda: raw_signal(published_at=naive),
        lambda: MacroContext(as_of=naive, regime=MarketRegime.BULL, vix=12.0),
        lambda: fill(filled_at=naive),
        lambda: Book(recorded_at=naive, equity=1.0, cash=1.0),
        lambda: HealthReport(agent_name="a", status=AgentHealth.HEALTHY, checked_at=naive),
        lambda: trace(str(uuid4()), decided_at=naive),
    ):
        with pytest.raises(
            DataError, match=r"`\w+\.(published_at|as_of|filled_at|recorded_at|checked_at|decided_at)` must be a time in UTC"
        ):
            build()
    with pytest.raises(StoreError, match="a time must carry its zone"):
        store.kill_stage_stats(naive)


@pytest.mark.parametrize(
    ("table", "row", "message"),
    [
        ("trades", {"side": "hold"}, "enum side"),
        ("trades", {"context_key": "rumour|bull|low"}, r"enum public\.signal_category"),
        ("trades", {"confidence": 1.5}, "trades_confidence_check"),
        ("trades", {"fill_price": 10.0}, "trades_filled_has_a_price"),
        ("trades", {"hit": True}, "trades_closed_has_an_outcome"),
        (
            "trades",
            {"hit": True, "pnl_pct": 0.1, "net_pnl_pct": -0.1, "closed_at": NOW},
            "trades_hit_is_a_net_gain",
        ),
        ("trades", {"is_exploration": True, "paper_trading": False}, "trades_exploration_is_on_paper"),
        ("trades", {"signal_id": UUID(int=0)}, "signal_id"),
    ],
)
def test_the_table_itself_refuses_a_trade_that_cannot_be(
    store: TradingStore, table: str, row: dict[str, Any], message: str
) -> None:
    good = {**dict.fromkeys(row), **new_trade().to_dict()}
    with pytest.raises(StoreError, match=message):
        store.gateway.insert(table, [good, {**good, "client_order_id": "2", **row}])
    assert store.gateway.select(table) == []


@pytest.mark.parametrize("ticker", ["aaa", "A A", ""])
def test_the_table_itself_refuses_a_ticker_that_is_none(owner: psycopg.Connection, ticker: str) -> None:
    insert = "insert into signals (source, source_key, headline, published_at, category, severity, affected_tickers)"
    with pytest.raises(psycopg.errors.CheckViolation, match="signals_affected_tickers_check"):
        owner.execute(insert + " values ('a', 'b', 'c', now(), 'neutral', 'low', %s)", [["AAA", ticker]])


def test_json_that_is_too_large_or_none_is_refused_by_name_and_nothing_is_written(store: TradingStore) -> None:
    large = {"text": "x" * MAX_JSON_BYTES}
    with pytest.raises(
        DataError, match=rf"`payload` must be at most {MAX_JSON_BYTES} bytes of JSON, was {MAX_JSON_BYTES + 12}"
    ):
        store.append_audit(event_type="a", actor="b", subject="c", payload=large)
    with pytest.raises(DataError, match="`payload` must be at most"):
        store.save_intent(intent(), large)
    with pytest.raises(DataError, match="`DecisionTrace` must be at most"):
        note = StageOutcome(stage=Stage.ICARUS, passed=True, note="x" * MAX_JSON_BYTES)
        store.save_decision_trace(trace(save(store), stages=(note,)))
    for bad in ({"at": NOW}, {"value": math.nan}, {"value": math.inf}):
        with pytest.raises(DataError, match="`payload` must be what JSON can carry"):
            store.append_audit(event_type="a", actor="b", subject="c", payload=bad)
    for table in ("audit_log", "order_intents", "decision_traces"):
        assert store.gateway.select(table) == []


def test_large_json_and_text_are_refused_by_the_tables_too(store: TradingStore) -> None:
    row = {"event_type": "a", "actor": "b", "subject": "c"}
    large = {"text": "x" * MAX_JSON_BYTES}
    with pytest.raises(StoreError, match="audit_log_payload_check"):
        store.gateway.insert("audit_log", [{**row, "payload": {}}, {**row, "payload": large}])
    assert store.gateway.select("audit_log") == []
    with pytest.raises(StoreError, match="signals_raw_text_check"):
        store.save_signal(raw_signal(), source="a", source_key="b", raw_text="x" * (MAX_JSON_BYTES + 1))
    with pytest.raises(StoreError, match="signals_headline_check"):
        store.save_signal(raw_signal(headline="x" * 2001), source="a", source_key="b")
    assert store.gateway.select("signals") == []


def test_a_hundred_kilobytes_of_json_are_kept(store: TradingStore) -> None:
    payload = {"text": "x" * 100_000}
    store.append_audit(event_type="a", actor="b", subject="c", payload=payload)
    assert store.gateway.select("audit_log")[0]["payload"] == payload
    assert store.verify_audit_log() == []


@pytest.mark.parametrize("bad", ["17", "", "A" * 36, str(UUID(int=5)).upper() + "0"])
def test_an_identity_that_is_no_uuid_is_refused_by_name(store: TradingStore, bad: str) -> None:
    signal = replace(raw_signal(), signal_id=bad or "?")
    with pytest.raises(DataError, match=r"`RawSignal\.signal_id` must be a UUID"):
        store.save_signal(signal, source="a", source_key="b")
    with pytest.raises(DataError, match=r"`DecisionTrace\.signal_id` must be a UUID"):
        store.save_decision_trace(trace(bad or "?"))
    with pytest.raises(DataError, match="`signal_ids` must be a UUID"):
        store.consume_signals("a", [bad])


def test_what_a_claim_returns_is_a_message_of_the_contract(store: TradingStore) -> None:
    save(store, severity=Severity.CRITICAL, supplier=None, summary="", source_url=None, affected_tickers=())
    (signal,) = store.claim_signals("a")
    assert isinstance(signal, RawSignal)
    assert signal.published_at - NOW == timedelta(minutes=1)
    assert (signal.severity, signal.supplier, signal.summary, signal.affected_tickers) == (Severity.CRITICAL, None, "", ())
