"""The materialised view: what it says, and that no trade waits for it or fails by it."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from core.store.migrations import apply_migrations
from core.store.postgres import PostgresGateway
from core.store.trade_log import PostgresTradeLog
from core.store.trading_records import Trade, TradeEntry, TradeExit
from core.types import MarketRegime, SignalCategory, VixBand, context_key
from tests.core.store.trading import KEY, at, new_trade

COPY = "select * from trade_hit_rates order by context_key"
LIVE = "select * from trade_hit_rates_live order by context_key"
PENDING = "select count(*) from trade_hit_rate_changes"


@pytest.fixture
def log(database: str) -> Iterator[PostgresTradeLog]:
    gateway = PostgresGateway(database, role="service_role", max_connections=10).open()
    yield PostgresTradeLog(gateway)
    gateway.close()


def play(log: PostgresTradeLog, number: int, price: float, key: str = KEY) -> Trade:
    trade = log.record_trade(new_trade(number, context_key=key))
    log.record_entry(TradeEntry(client_order_id=trade.client_order_id, qty=10, fill_price=100.0))
    return log.close_trade(TradeExit(trade_id=trade.trade_id, exit_price=price, exit_reason="x", closed_at=at(500)))


def one(connection: psycopg.Connection, query: str) -> Any:
    (row,) = connection.execute(query).fetchall()  # type: ignore[call-overload]
    return row[0] if len(row) == 1 else row


def test_the_view_has_the_columns_and_figures_of_the_seed(log: PostgresTradeLog, owner: psycopg.Connection) -> None:
    for number, price in enumerate((110.0, 104.0, 94.0, 98.0)):
        play(log, number, price)
    log.record_trade(new_trade(9))
    log.void_trade(play(log, 10, 200.0).trade_id)
    owner.row_factory = dict_row  # type: ignore[assignment]
    (row,) = owner.execute(COPY).fetchall()
    assert list(row) == [
        "context_key",
        "category",
        "regime",
        "vix_band",
        "total_trades",
        "closed_trades",
        "hit_rate",
        "avg_pnl_pct",
        "avg_win_pct",
        "avg_loss_pct",
        "payoff_ratio",
    ]
    assert (row["context_key"], row["category"], row["regime"], row["vix_band"]) == (KEY, "positive_news", "bull", "low")
    assert (row["total_trades"], row["closed_trades"], row["hit_rate"]) == (5, 4, Decimal("0.5"))
    assert row["avg_pnl_pct"] == pytest.approx(0.06 / 4)
    assert (row["avg_win_pct"], row["avg_loss_pct"]) == (pytest.approx(0.07), pytest.approx(-0.04))
    assert row["payoff_ratio"] == pytest.approx(1.75)


@pytest.mark.parametrize(
    "change",
    [
        "update trades set hit = true, pnl_pct = 0.5, closed_at = now()",
        "update trades set voided = true",
        "update trades set context_key = 'neutral|bear|high', category = null, regime = null, vix_band = null",
        "delete from trades",
        "truncate trades, trade_settlements, fills, order_intents",
        "insert into trades (context_key, confidence, position_pct, symbol, side, client_order_id)"
        " values ('neutral|bear|high', 0.5, 0.1, 'AAA', 'buy', 'other')",
    ],
    ids=["outcome", "void", "other context", "delete", "truncate", "insert"],
)
def test_whatever_changes_a_trade_is_read_at_once_and_copied_at_the_next_refresh(
    log: PostgresTradeLog, owner: psycopg.Connection, change: str
) -> None:
    log.record_trade(new_trade())
    before = owner.execute(COPY).fetchall()
    assert one(owner, PENDING) == 0
    if change.startswith("truncate"):
        owner.execute("alter table fills disable trigger refuse_truncate")
    owner.execute(change)  # type: ignore[call-overload]
    live = owner.execute(LIVE).fetchall()
    assert live != before
    assert owner.execute(COPY).fetchall() == before
    assert owner.execute("select * from get_trade_hit_rates() order by context_key").fetchall() == live
    log.refresh_hit_rates()
    assert owner.execute(COPY).fetchall() == live
    assert one(owner, PENDING) == 0


def test_a_change_that_touches_no_rate_marks_nothing(log: PostgresTradeLog, owner: psycopg.Connection) -> None:
    log.record_trade(new_trade())
    owner.execute("update trades set qty = 3, fill_price = 7, order_id = 'x'")
    assert one(owner, PENDING) == 0


def test_the_parts_of_a_context_cannot_contradict_it(log: PostgresTradeLog, owner: psycopg.Connection) -> None:
    columns = "insert into trades (context_key, category, confidence, position_pct, symbol, side, client_order_id) values "
    owner.execute(columns + "('neutral|bear|high', 'neutral', 0.5, 0.1, 'AAA', 'buy', '1')")
    assert one(owner, "select category::text, regime::text, vix_band::text from trades") == ("neutral", "bear", "high")
    with pytest.raises(psycopg.errors.CheckViolation, match="trades_context_key_matches_its_parts"):
        owner.execute(columns + "('neutral|bear|high', 'macro_shift', 0.5, 0.1, 'AAA', 'buy', '2')")
    with pytest.raises(psycopg.errors.CheckViolation, match="trades_context_key_matches_its_parts"):
        owner.execute("update trades set regime = 'bull'")
    for key in ("neutral|bear|high|", "neutral|bear|high|low"):
        with pytest.raises(psycopg.errors.CheckViolation, match="trades_context_key_matches_its_parts"):
            owner.execute(columns + f"('{key}', null, 0.5, 0.1, 'AAA', 'buy', '3')")  # type: ignore[call-overload]
    for key in ("neutral|bear", "neutral", "", "neutral|bear|enormous", "Neutral|bear|high"):
        with pytest.raises(psycopg.errors.InvalidTextRepresentation, match="invalid input value for enum"):
            owner.execute(columns + f"('{key}', null, 0.5, 0.1, 'AAA', 'buy', '3')")  # type: ignore[call-overload]


def test_a_trade_neither_waits_for_a_refresh_nor_fails_with_it(
    log: PostgresTradeLog, owner: psycopg.Connection, database: str
) -> None:
    trade = log.record_trade(new_trade())
    log.record_entry(TradeEntry(client_order_id="order-1", qty=10, fill_price=100.0))
    owner.execute("insert into trade_hit_rate_changes (context_key) values ('none')")
    with owner.transaction(force_rollback=True):
        # A refresh that has done its work and hangs before its end, holding every lock it takes.
        assert one(owner, "select refresh_trade_hit_rates()") is True
        with psycopg.connect(database, autocommit=True) as other:
            other.execute("set statement_timeout = '10s'")
            other.execute("set lock_timeout = '10ms'")
            other.execute("set role service_role")
            other.execute(
                "select close_trade(jsonb_build_object('trade_id', %s::text, 'exit_price', 106,"
                " 'exit_reason', 'x', 'closed_at', now()))",
                [trade.trade_id],
            )
            assert one(other, "select refresh_trade_hit_rates()") is False
            assert one(other, "select hit_rate from get_trade_hit_rates()") == 1
    # It failed: what it had removed is marked again, and nothing of the trade is lost.
    assert log.get_trade(trade.trade_id).hit is True
    log.refresh_hit_rates()
    assert one(owner, "select closed_trades, hit_rate from trade_hit_rates") == (1, 1)


def test_a_reader_of_the_copy_does_not_wait_for_a_refresh(
    log: PostgresTradeLog, owner: psycopg.Connection, database: str
) -> None:
    log.record_trade(new_trade())
    owner.execute("insert into trade_hit_rate_changes (context_key) values ('none')")
    with owner.transaction():
        assert one(owner, "select refresh_trade_hit_rates()") is True
        with psycopg.connect(database, autocommit=True, options="-c lock_timeout=10ms") as other:
            assert one(other, "select total_trades from trade_hit_rates") == 1


def test_eight_transactions_that_are_open_at_once_wait_neither_for_each_other_nor_for_a_refresh(
    log: PostgresTradeLog, owner: psycopg.Connection, database: str
) -> None:
    trades = [log.record_trade(new_trade(number)) for number in range(8)]
    for trade in trades:
        log.record_entry(TradeEntry(client_order_id=trade.client_order_id, qty=10, fill_price=100.0))
    close = (
        "select close_trade(jsonb_build_object('trade_id', %s::text, 'exit_price', %s::int, 'exit_reason', 'x',"
        " 'closed_at', now()))"
    )
    owner.execute("insert into trade_hit_rate_changes (context_key) values ('none')")
    with ExitStack() as stack:
        writers = [stack.enter_context(psycopg.connect(database, options="-c lock_timeout=10s")) for _ in trades]
        for number, (writer, trade) in enumerate(zip(writers, trades, strict=True)):
            writer.execute("set role service_role")
            writer.execute(close, [trade.trade_id, 110 if number % 4 else 90])
        # All eight have written to one context, and none has committed: had one waited for another, this were not reached.
        assert one(owner, "select closed_trades from trade_hit_rates_live") == 0
        with owner.transaction():
            # A refresh that has done its work and hangs before its end, holding every lock it takes.
            assert one(owner, "select refresh_trade_hit_rates()") is True
            for writer in writers:
                writer.commit()
            with psycopg.connect(database, autocommit=True) as reader:
                assert one(reader, "select closed_trades, hit_rate from get_trade_hit_rates()") == (8, Decimal("0.75"))
        assert one(owner, PENDING) == 8
    log.refresh_hit_rates()
    assert one(owner, PENDING) == 0
    assert one(owner, "select total_trades, closed_trades, hit_rate from trade_hit_rates") == (8, 8, Decimal("0.75"))
    assert [log.get_trade(trade.trade_id).hit for trade in trades] == [number % 4 != 0 for number in range(8)]


def test_eight_writers_at_once_lose_nothing_and_roll_nothing_back(
    log: PostgresTradeLog, owner: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [context_key(category, MarketRegime.BULL, VixBand.LOW) for category in SignalCategory]
    together = threading.Barrier(8, timeout=60.0)

    def write(writer: int) -> list[Trade]:
        closed = []
        for number in range(writer, 192, 8):
            together.wait()
            closed.append(play(log, number, 125.0 if number % 4 else 75.0, keys[number % 6]))
        return closed

    with ThreadPoolExecutor(8) as pool:
        closed = [trade for part in pool.map(write, range(8)) for trade in part]
    numbers = [int(trade.client_order_id.removeprefix("order-")) for trade in closed]
    assert sorted(numbers) == list(range(192))
    assert all(trade.hit is (number % 4 != 0) for number, trade in zip(numbers, closed, strict=True))
    # A refresh that is the victim of a deadlock or a timeout is only logged, and a trade that is one is an error above.
    assert caplog.records == []
    # The last writer out left nothing behind: the copy itself is up to date, without any further refresh.
    assert one(owner, PENDING) == 0
    assert owner.execute(COPY).fetchall() == owner.execute(LIVE).fetchall()
    assert one(owner, "select sum(total_trades), sum(closed_trades) from trade_hit_rates") == (192, 192)
    assert one(owner, "select sum(hit_rate * closed_trades)::integer from trade_hit_rates") == 144


def test_only_the_framework_may_refresh_or_read_it(owner: psycopg.Connection) -> None:
    for role in ("anon", "authenticated", "researcher"):
        owner.execute(f"set role {role}")
        for statement in ("select refresh_trade_hit_rates()", "select get_trade_hit_rates()", COPY, LIVE):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                owner.execute(statement)  # type: ignore[call-overload]


def test_where_cron_is_there_it_refreshes_every_minute(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("create schema cron")
        connection.execute("create table cron.job (jobname text, schedule text, command text)")
        connection.execute(
            "create function cron.schedule(text, text, text) returns bigint language sql as"
            " 'insert into cron.job values ($1, $2, $3); select 1::bigint'"
        )
        apply_migrations(empty_database)
        name, schedule, command = one(connection, "select * from cron.job")
        assert (name, schedule) == ("refresh-trade-hit-rates", "* * * * *")
        assert one(connection, command) is False
