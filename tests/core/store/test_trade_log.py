"""One contract for every trade log: the store's and the file's."""

import itertools
import logging
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import DataError, MissingDataError, StoreConflictError, StoreError, StoreUnavailableError
from core.store.gateway import Row
from core.store.postgres import PostgresGateway
from core.store.sqlite_trade_log import SqliteTradeLog, trade_log_path
from core.store.trade_log import PostgresTradeLog, TradeLog
from core.store.trading_records import HitRate, Trade, TradeEntry, TradeExit
from core.types import MarketRegime, Side, SignalCategory, VixBand, context_key
from tests.core.store.trading import KEY, at, new_trade

ABSENT = str(UUID(int=0))


@pytest.fixture(params=["postgres", "sqlite"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TradeLog]:
    if request.param == "sqlite":
        yield SqliteTradeLog(trade_log_path(tmp_path))
        return
    gateway = PostgresGateway(request.getfixturevalue("database"), role="service_role", max_connections=10).open()
    yield PostgresTradeLog(gateway)
    gateway.close()


@pytest.fixture
def both(database: str, tmp_path: Path) -> Iterator[tuple[TradeLog, TradeLog]]:
    gateway = PostgresGateway(database, role="service_role").open()
    yield PostgresTradeLog(gateway), SqliteTradeLog(trade_log_path(tmp_path))
    gateway.close()


def enter(log: TradeLog, number: int = 1, *, qty: float = 10.0, price: float = 100.0, **changes: Any) -> Trade:
    trade = log.record_trade(new_trade(number, **changes))
    return log.record_entry(TradeEntry(client_order_id=trade.client_order_id, qty=qty, fill_price=price))


def leave(log: TradeLog, trade: Trade, price: float, **changes: Any) -> Trade:
    values: dict[str, Any] = {"exit_price": price, "exit_reason": "take_profit", "closed_at": at(500)}
    return log.close_trade(TradeExit(trade_id=trade.trade_id, **(values | changes)))


def play(log: TradeLog, number: int, price: float, **changes: Any) -> Trade:
    return leave(log, enter(log, number, **changes), price)


def test_it_is_a_trade_log(log: TradeLog) -> None:
    assert isinstance(log, TradeLog)


def test_a_decided_trade_is_open_and_its_context_is_told_apart(log: TradeLog) -> None:
    stored = log.record_trade(new_trade(is_exploration=True))
    assert (stored.category, stored.regime, stored.vix_band) == (SignalCategory.POSITIVE_NEWS, MarketRegime.BULL, VixBand.LOW)
    assert (stored.hit, stored.pnl_pct, stored.closed_at, stored.fill_price, stored.qty) == (None, None, None, None, 0.0)
    assert stored.is_exploration
    assert stored.paper_trading
    assert not stored.voided
    assert {name: value for name, value in stored.to_dict().items() if name in new_trade().to_dict()} == new_trade(
        is_exploration=True
    ).to_dict()
    assert log.get_trade(stored.trade_id) == stored


def test_every_context_can_be_kept(log: TradeLog) -> None:
    keys = [context_key(*parts) for parts in itertools.product(SignalCategory, MarketRegime, VixBand)]
    for number, key in enumerate(keys):
        log.record_trade(new_trade(number, context_key=key))
    assert [rate.context_key for rate in log.list_hit_rates()] == sorted(keys)


def test_an_order_is_written_down_once(log: TradeLog) -> None:
    first = log.record_trade(new_trade())
    with pytest.raises(StoreConflictError):
        log.record_trade(new_trade(symbol="BBB"))
    assert log.list_trades() == [first]


def test_a_fill_sets_shares_price_and_the_brokers_number(log: TradeLog) -> None:
    log.record_trade(new_trade())
    part = log.record_entry(TradeEntry(client_order_id="order-1", order_id="9", qty=4, fill_price=100.0, commission=1.0))
    whole = log.record_entry(TradeEntry(client_order_id="order-1", qty=10, fill_price=100.6, commission=1.5))
    assert (part.qty, part.fill_price, part.commission, part.order_id) == (4.0, 100.0, 1.0, "9")
    assert (whole.qty, whole.fill_price, whole.commission, whole.order_id) == (10.0, 100.6, 1.5, "9")
    with pytest.raises(MissingDataError, match="no open trade of order-2"):
        log.record_entry(TradeEntry(client_order_id="order-2", qty=1, fill_price=1.0))


@pytest.mark.parametrize(
    ("side", "price", "pnl", "net", "hit"),
    [
        (Side.BUY, 106.0, 0.06, 0.057, True),
        (Side.BUY, 97.0, -0.03, -0.033, False),
        (Side.SELL, 94.0, 0.06, 0.057, True),
        (Side.SELL, 103.0, -0.03, -0.033, False),
        (Side.BUY, 100.2, 0.002, -0.001, False),
        (Side.BUY, 100.3, 0.003, 0.0, False),
        (Side.BUY, 100.0, 0.0, -0.003, False),
    ],
    ids=["gain", "loss", "gain of a short", "loss of a short", "eaten by cost", "eaten to the cent", "nothing"],
)
def test_an_outcome_is_gross_net_and_a_hit_only_after_cost(
    log: TradeLog, side: Side, price: float, pnl: float, net: float, hit: bool
) -> None:
    # 10 shares at 100: 1 in, 2 out, so that cost is 3 of 1000.
    log.record_trade(new_trade(side=side, stop_loss=None, take_profit=None))
    trade = log.record_entry(TradeEntry(client_order_id="order-1", qty=10, fill_price=100.0, commission=1.0))
    closed = leave(log, trade, price, commission=2.0)
    assert closed.pnl_pct == pytest.approx(pnl, abs=1e-15)
    assert closed.net_pnl_pct == pytest.approx(net, abs=1e-15)
    assert closed.hit is hit
    assert (closed.exit_price, closed.exit_reason, closed.closed_at, closed.commission) == (price, "take_profit", at(500), 3.0)
    assert log.get_trade(trade.trade_id) == closed


def test_closing_twice_alike_changes_nothing_and_otherwise_is_refused(log: TradeLog) -> None:
    closed = play(log, 1, 106.0)
    assert leave(log, closed, 106.0) == closed
    for changes in ({"exit_price": 107.0}, {"exit_reason": "stop"}, {"closed_at": at(501)}):
        with pytest.raises(StoreConflictError, match="an outcome is written once"):
            leave(log, closed, 106.0, **changes)
    assert log.list_trades() == [closed]
    with pytest.raises(MissingDataError):
        log.record_entry(TradeEntry(client_order_id="order-1", qty=1, fill_price=1.0))


def test_a_trade_without_a_fill_or_voided_or_unknown_is_not_closed(log: TradeLog) -> None:
    unfilled = log.record_trade(new_trade())
    with pytest.raises(StoreConflictError, match="it is voided or has no fill"):
        leave(log, unfilled, 106.0)
    voided = log.void_trade(enter(log, 2).trade_id)
    with pytest.raises(StoreConflictError, match="it is voided or has no fill"):
        leave(log, voided, 106.0)
    with pytest.raises(MissingDataError, match=f"no trade {ABSENT}"):
        log.close_trade(TradeExit(trade_id=ABSENT, exit_price=1.0, exit_reason="x", closed_at=at(1)))
    for act in (log.get_trade, log.void_trade):
        with pytest.raises(MissingDataError, match=f"no trade {ABSENT}"):
            act(ABSENT)
        with pytest.raises(DataError, match="`trade_id` must be a UUID"):
            act("17")


def test_trades_are_listed_oldest_first_by_symbol_and_while_open(log: TradeLog) -> None:
    late = log.record_trade(new_trade(3))
    early = log.record_trade(new_trade(1))
    other = log.record_trade(new_trade(2, symbol="BBB"))
    closed = play(log, 4, 90.0)
    log.void_trade(log.record_trade(new_trade(5)).trade_id)
    assert log.list_trades() == [early, other, late, closed]
    assert log.list_trades(symbol="AAA") == [early, late, closed]
    assert log.list_trades(symbol="AAA", open_only=True) == [early, late]
    assert log.list_trades(symbol="ZZZ") == []


def test_the_last_trade_of_a_symbol_starts_its_cooldown(log: TradeLog) -> None:
    assert log.last_trade_at("AAA") is None
    for number in (2, 7.5, 3):
        log.record_trade(new_trade(number))
    log.void_trade(log.record_trade(new_trade(9)).trade_id)
    log.record_trade(new_trade(11, symbol="BBB"))
    assert log.last_trade_at("AAA") == at(7.5)


def test_hit_rates_are_those_of_the_seed_with_payoff_and_without_voided_rows(log: TradeLog) -> None:
    assert log.list_hit_rates() == []
    assert log.find_hit_rate(KEY) is None
    for number, price in enumerate((110.0, 104.0, 98.0, 94.0, 95.0)):
        play(log, number, price)
    enter(log, 10)
    log.void_trade(play(log, 11, 300.0).trade_id)
    play(log, 12, 101.0, context_key="neutral|bear|high")
    rate = log.find_hit_rate(KEY)
    assert rate is not None
    assert (rate.total_trades, rate.closed_trades) == (6, 5)
    assert rate.hit_rate == pytest.approx(0.4)
    assert rate.avg_pnl_pct == pytest.approx((0.10 + 0.04 - 0.02 - 0.06 - 0.05) / 5)
    assert rate.avg_win_pct == pytest.approx(0.07)
    assert rate.avg_loss_pct == pytest.approx(-0.13 / 3)
    assert rate.payoff_ratio == pytest.approx(0.07 / (0.13 / 3))
    other = HitRate(
        context_key="neutral|bear|high",
        category=SignalCategory.NEUTRAL,
        regime=MarketRegime.BEAR,
        vix_band=VixBand.HIGH,
        total_trades=1,
        closed_trades=1,
        hit_rate=1.0,
        avg_pnl_pct=0.01,
        avg_win_pct=0.01,
        avg_loss_pct=None,
        payoff_ratio=None,
    )
    assert log.list_hit_rates() == [other, rate]
    assert log.count_closed() == 6


def test_a_measured_zero_stays_zero_and_an_open_context_has_no_rate(log: TradeLog) -> None:
    play(log, 1, 90.0)
    enter(log, 2, context_key="neutral|bear|high")
    lost, unknown = log.find_hit_rate(KEY), log.find_hit_rate("neutral|bear|high")
    assert lost is not None
    assert unknown is not None
    assert (lost.hit_rate, lost.closed_trades) == (0.0, 1)
    assert (unknown.hit_rate, unknown.avg_pnl_pct, unknown.closed_trades) == (None, None, 0)


def test_eight_writers_lose_nothing(log: TradeLog) -> None:
    keys = [context_key(SignalCategory.NEUTRAL, regime, VixBand.LOW) for regime in MarketRegime]

    def write(number: int) -> None:
        play(log, number, 110.0 if number % 3 else 90.0, context_key=keys[number % 4])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(96)))
    rates = {rate.context_key: rate for rate in log.list_hit_rates()}
    assert {key: (rate.total_trades, rate.closed_trades) for key, rate in rates.items()} == dict.fromkeys(keys, (24, 24))
    assert all(rate.hit_rate == pytest.approx(2 / 3) for rate in rates.values())
    assert log.count_closed() == 96


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("context_key", "positive_news|bull"),
        ("context_key", "positive_news|bull|enormous"),
        ("context_key", "rumour|bull|low"),
        ("confidence", 1.01),
        ("confidence", float("nan")),
        ("position_pct", -0.1),
        ("symbol", "aaa"),
        ("side", "hold"),
        ("client_order_id", " "),
        ("signal_id", "17"),
        ("stop_loss", 0.0),
        ("recorded_at", datetime(2024, 1, 1)),  # noqa: DTZ001
        ("recorded_at", datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
    ],
)
def test_a_trade_that_cannot_be_is_refused_by_the_name_of_its_field(log: TradeLog, field: str, value: Any) -> None:
    with pytest.raises(DataError, match=rf"`NewTrade\.{field}` must be"):
        log.record_trade(new_trade(**{field: value}))
    assert log.list_trades() == []


def test_exploration_is_on_paper_only() -> None:
    with pytest.raises(DataError, match=r"`NewTrade\.is_exploration` must be false outside paper trading"):
        new_trade(is_exploration=True, paper_trading=False)


@pytest.mark.parametrize(("field", "value"), [("exit_price", 0.0), ("exit_reason", ""), ("closed_at", datetime(2024, 1, 1))])  # noqa: DTZ001
def test_an_outcome_that_cannot_be_is_refused_by_the_name_of_its_field(log: TradeLog, field: str, value: Any) -> None:
    trade = enter(log)
    with pytest.raises(DataError, match=rf"`TradeExit\.{field}` must be"):
        leave(log, trade, 106.0, **{field: value})
    assert log.get_trade(trade.trade_id) == trade


# What only one of them can show


def test_the_file_lies_in_the_home_and_its_journal_is_written_ahead(tmp_path: Path) -> None:
    path = trade_log_path(tmp_path)
    assert path == tmp_path / "data" / "trade_log.db"
    stored = SqliteTradeLog(path).record_trade(new_trade())
    assert SqliteTradeLog(path).list_trades() == [stored]
    connection = sqlite3.connect(path)
    assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
    connection.close()


def test_eight_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        logs = list(pool.map(lambda _: SqliteTradeLog(trade_log_path(tmp_path)), range(8)))
    stored = logs[0].record_trade(new_trade())
    assert all(log.list_trades() == [stored] for log in logs)


MONEY = st.integers(1, 10_000_000).map(lambda cents: cents / 100)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    side=st.sampled_from(Side),
    qty=st.integers(1, 10_000),
    fill=MONEY,
    price=MONEY,
    commission=st.integers(-500, 5000).map(lambda cents: cents / 100),
)
def test_both_logs_agree_on_every_outcome(
    both: tuple[TradeLog, TradeLog], side: Side, qty: int, fill: float, price: float, commission: float
) -> None:
    order = str(uuid4())
    outcomes = []
    for log in both:
        log.record_trade(new_trade(client_order_id=order, side=side, stop_loss=None, take_profit=None))
        trade = log.record_entry(TradeEntry(client_order_id=order, qty=qty, fill_price=fill))
        outcomes.append(leave(log, trade, price, commission=commission))
    one, other = outcomes
    assert one.hit is other.hit
    assert one.pnl_pct == pytest.approx(other.pnl_pct, rel=1e-12, abs=1e-15)
    assert one.net_pnl_pct == pytest.approx(other.net_pnl_pct, rel=1e-12, abs=1e-15)
    gain = round((price - fill) * 100) * qty * (1 if side is Side.BUY else -1)
    assert one.hit is (gain > round(commission * 100))


def test_the_file_refuses_what_the_table_refuses(tmp_path: Path) -> None:
    log = SqliteTradeLog(tmp_path / "log.db")
    row: Row = {**new_trade().to_dict(), "trade_id": str(uuid4()), "category": "neutral", "regime": "bull", "vix_band": "low"}
    with pytest.raises(StoreError, match="CHECK constraint failed"):
        log._execute("insert", row)


def test_a_file_that_is_none_or_cannot_be_made_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_text("not a database, but long enough to be taken for one at first sight" * 20)
    with pytest.raises(StoreUnavailableError, match=r"broken\.db cannot be used"):
        SqliteTradeLog(broken)
    with pytest.raises(StoreUnavailableError, match=r"log\.db cannot be made"):
        SqliteTradeLog(broken / "log.db")


def test_a_refresh_that_fails_leaves_the_trade_and_is_said(database: str, caplog: pytest.LogCaptureFixture) -> None:
    gateway = PostgresGateway(database, role="service_role").open()
    log = PostgresTradeLog(gateway)
    owner = PostgresGateway(database).open()
    with owner.connection() as connection, connection.transaction():
        connection.execute("insert into trade_hit_rate_changes (context_key) values ('none')")
    with owner.connection() as connection:
        connection.execute("drop materialized view trade_hit_rates cascade")
    with caplog.at_level(logging.WARNING):
        stored = log.record_trade(new_trade())
    assert "trade_hit_rates was not refreshed" in caplog.text
    assert log.get_trade(stored.trade_id) == stored
    owner.close()
    gateway.close()
