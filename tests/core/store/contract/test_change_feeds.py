"""What every feed of changes promises: NOTIFY of the embedded Postgres, and Realtime on a server with its wire format."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psycopg
import pytest

from core.errors import StoreUnavailableError
from core.store import events, realtime
from core.store.embedded import EmbeddedPostgres
from core.store.events import (
    DECISION_TRACES,
    EMBEDDING_JOBS,
    SIGNAL_EMBEDDINGS,
    TRADES,
    WATCHABLE,
    Change,
    ChangeFeed,
    NotifyFeed,
    Watched,
)
from core.store.migrations import apply_migrations
from core.store.postgres import PostgresGateway
from core.store.realtime import RealtimeFeed
from tests.core.store.contract import loopback_realtime
from tests.core.store.contract.loopback_realtime import KEY, Realtime

# The client of Realtime asks a closed connection for its code in a way that `websockets` has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:ConnectionClosed.(code|reason) is deprecated:DeprecationWarning")

INSERT = (
    "insert into embedding_jobs (dataset_id, windows) select dataset_id, '{}' from datasets, generate_series(1, %s)"
    " returning job_id::text"
)
DATASET = (
    "insert into datasets (name, source, content_sha256, symbols, fields, n_bars, first_ts, last_ts, sealed_from)"
    " values ('toy', 'a test', repeat('a', 64), '{A}', '{close}', 2, '2024-01-01+00', '2024-02-01+00', '2024-01-15+00')"
)
CUT = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'aqf-changes'"

PARENTS = """
insert into signals (signal_id, source, source_key, headline, published_at, category, severity)
  values ('00000000-0000-0000-0000-000000000001', 'a', 'b', 'c', now(), 'neutral', 'low');
insert into research_runs (run_id, request, dataset_id, lineage, thread_id, planner, budget, code_version)
  select '00000000-0000-0000-0000-000000000002', '{}', dataset_id, 'a', 'a', 'rules', '{}', '1' from datasets;
insert into feature_registry (name, expression, expression_sha256, lookback) values ('a', 'close', repeat('a', 64), 1);
insert into embedding_versions (emb_type, emb_version, dataset_id, encoder_sha256, trained_until)
  select 'a', '1', dataset_id, repeat('a', 64), '2024-01-01+00' from datasets;
"""
ROWS = {
    "agent_health": """
        insert into agent_health (agent_name, status, checked_at) values ('a', 'healthy', now()) returning health_id""",
    "backtest_results": """
        with trial as (
          insert into trials (run_id, lineage, dataset_id, feature_id, config, config_sha256, n_obs, sharpe, skew, kurtosis,
            returns_uri, metrics_sha256)
          select '00000000-0000-0000-0000-000000000002', 'a', dataset_id, feature_id, '{}', md5({n}::text) || md5({n}::text), 9,
            0, 0, 3, 'x', 'x' from datasets, feature_registry returning *)
        insert into backtest_results (strategy_id, feature_id, dataset_id, trial_id, config, metrics)
        select 'a', feature_id, dataset_id, trial_id, '{}', '{}' from trial returning backtest_id""",
    "decision_traces": """
        insert into decision_traces (trace_id, signal_id, decided_at, status, stages)
        values ('trace {n}', '00000000-0000-0000-0000-000000000001', now(), 'filled', '[]') returning trace_id""",
    "embedding_jobs": "insert into embedding_jobs (dataset_id, windows) select dataset_id, '{}' from datasets returning job_id",
    "equity_snapshots": """
        insert into equity_snapshots (equity, peak, drawdown_pct, recorded_at) values (1, 1, 0, now() + interval '{n} s')
        returning snapshot_id""",
    "portfolio_state": """
        insert into portfolio_state (equity, peak_equity, drawdown_pct, cash, open_positions) values (1, 1, 0, 1, 0)
        on conflict (singleton) do update set cash = {n} returning singleton""",
    "research_runs": """
        insert into research_runs (request, dataset_id, lineage, thread_id, planner, budget, code_version)
        select '{}', dataset_id, 'a', 'thread {n}', 'rules', '{}', '1' from datasets returning run_id""",
    "signal_embeddings": """
        insert into signal_embeddings (dataset_id, asset_symbol, time_range, embedding, emb_type, emb_version, regime_tag, meta)
        select dataset_id, 'A', tstzrange('2024-01-01+00', '2024-01-02+00'::timestamptz + interval '{n} s'),
          ('[1' || repeat(',0', 319) || ']')::extensions.vector, 'a', '1', 'calm',
          '{"source": "a", "regime": "a", "window": 1}' from datasets returning embedding_id""",
    "trades": """
        insert into trades (context_key, confidence, position_pct, symbol, side, client_order_id)
        values ('neutral|bear|high', 0.5, 0.1, 'AAA', 'buy', 'order {n}') returning trade_id""",
}
"""A row of each table that announces its changes; the key comes back."""


@dataclass
class World:
    """A feed, how rows come to be, and how its connection is lost."""

    feed: ChangeFeed
    insert: Callable[[int], list[str]]
    insert_unheard: Callable[[int], list[str]]
    cut: Callable[[], None]


@pytest.fixture
def gateway(database: str) -> Iterator[PostgresGateway]:
    opened = PostgresGateway(database, role="service_role").open()
    yield opened
    opened.close()


@pytest.fixture
def realtime_server() -> Iterator[Realtime]:
    with loopback_realtime.run() as running:
        yield running


@pytest.fixture(params=["notify", "realtime"])
def world(
    request: pytest.FixtureRequest,
    database: str,
    owner: psycopg.Connection,
    gateway: PostgresGateway,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    for module in (events, realtime):
        monkeypatch.setattr(module, "_BACKOFF_SECONDS", 0.01)
    owner.execute(DATASET)

    def insert(n: int) -> list[str]:
        return [job_id for (job_id,) in owner.execute(INSERT, [n])]

    if request.param == "notify":
        feed: ChangeFeed = NotifyFeed(database, gateway, [EMBEDDING_JOBS, SIGNAL_EMBEDDINGS])
        made = World(feed, insert, insert, lambda: owner.execute(CUT) and None)
    else:
        running: Realtime = request.getfixturevalue("realtime_server")
        feed = RealtimeFeed(running.url, KEY, gateway, [EMBEDDING_JOBS, SIGNAL_EMBEDDINGS])

        def insert_and_tell(n: int) -> list[str]:
            ids = insert(n)
            for job_id in ids:
                running.tell("embedding_jobs", {"job_id": job_id})
            return ids

        made = World(feed, insert_and_tell, insert, running.drop)
    feed.open()
    yield made
    feed.close()


def gather(feed: ChangeFeed, wanted: set[str], seconds: float = 20.0, table: str = "embedding_jobs") -> set[str]:
    """Collect ids until all are there that are wanted."""
    found: set[str] = set()
    deadline = time.monotonic() + seconds
    while not wanted <= found and time.monotonic() < deadline:
        for change in feed.changes(0.2):
            assert change.table == table
            found.update(change.ids)
    return found


def test_a_new_row_is_named_by_its_id(world: World) -> None:
    assert isinstance(world.feed, ChangeFeed)
    (job_id,) = world.insert(1)
    assert world.feed.changes(10.0) == [Change(table="embedding_jobs", ids=(job_id,))]


def test_nothing_is_told_when_nothing_changes_and_nothing_of_what_was_there(world: World) -> None:
    assert world.feed.changes(0.05) == []
    ids = set(world.insert(3))
    assert gather(world.feed, ids) == ids
    assert world.feed.changes(0.05) == []


def test_many_rows_at_once_are_all_told(world: World) -> None:
    ids = set(world.insert(300))
    assert gather(world.feed, ids) == ids


def test_what_happens_while_the_connection_is_lost_is_told_afterwards(world: World) -> None:
    before = set(world.insert(2))
    assert gather(world.feed, before) == before
    world.cut()
    during = set(world.insert_unheard(250))
    assert gather(world.feed, during) >= during
    after = set(world.insert(1))
    assert gather(world.feed, after) >= after


def test_nothing_is_lost_through_any_number_of_lost_connections(world: World) -> None:
    ids: set[str] = set()
    found: set[str] = set()
    for round in range(6):
        ids.update(world.insert_unheard(3) if round % 2 else world.insert(3))
        if round % 2 == 0:
            world.cut()
        for change in world.feed.changes(0.05):
            found.update(change.ids)
    world.cut()
    ids.update(world.insert_unheard(1))
    assert found | gather(world.feed, ids - found) == ids


def test_a_feed_that_is_closed_says_so(world: World) -> None:
    world.feed.close()
    with pytest.raises(StoreUnavailableError, match="the feed is not open"):
        world.feed.changes(0.0)
    world.feed.close()


# The tables


def put(owner: psycopg.Connection, table: str, n: int) -> str:
    """Write a row, and return its key as the feeds name it."""
    statement = ROWS[table].replace("{n}", str(n))
    with owner.cursor() as cursor:
        (key,) = cursor.execute(statement).fetchone() or (None,)  # type: ignore[call-overload]
    return str(key).lower() if isinstance(key, bool) else str(key)


def test_every_table_that_realtime_publishes_can_be_watched(owner: psycopg.Connection) -> None:
    published = owner.execute("select tablename from pg_publication_tables where pubname = 'supabase_realtime'").fetchall()
    assert {table for (table,) in published} | {"embedding_jobs"} == {watched.table for watched in WATCHABLE} == set(ROWS)


@pytest.mark.parametrize("watched", WATCHABLE, ids=lambda watched: watched.table)
def test_each_table_tells_of_new_rows_and_of_those_that_came_while_the_connection_was_lost(
    database: str, owner: psycopg.Connection, gateway: PostgresGateway, monkeypatch: pytest.MonkeyPatch, watched: Watched
) -> None:
    monkeypatch.setattr(events, "_BACKOFF_SECONDS", 0.01)
    owner.execute(DATASET)
    owner.execute(PARENTS)  # type: ignore[call-overload]
    put(owner, watched.table, 1)
    with NotifyFeed(database, gateway, [watched]) as feed:
        heard = put(owner, watched.table, 2)
        assert feed.changes(10.0) == [Change(table=watched.table, ids=(heard,))]
        owner.execute(CUT)
        missed = put(owner, watched.table, 3)
        assert missed in gather(feed, {missed}, table=watched.table)


@pytest.mark.parametrize("watched", WATCHABLE, ids=lambda watched: watched.table)
def test_realtime_tells_of_each_table_by_the_same_ids(
    realtime_server: Realtime, owner: psycopg.Connection, gateway: PostgresGateway, watched: Watched
) -> None:
    owner.execute(DATASET)
    owner.execute(PARENTS)  # type: ignore[call-overload]
    with RealtimeFeed(realtime_server.url, KEY, gateway, [watched]) as feed:
        key = put(owner, watched.table, 1)
        realtime_server.tell(watched.table, {watched.key: True if key == "true" else key})
        assert feed.changes(10.0) == [Change(table=watched.table, ids=(key,))]


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("trades", "update trades set qty = 3, fill_price = 7"),
        ("decision_traces", "update decision_traces set order_id = '17'"),
        ("portfolio_state", "update portfolio_state set cash = 0"),
        ("equity_snapshots", "update equity_snapshots set drawdown_pct = 0.5, equity = 0.5"),
        ("research_runs", "update research_runs set status = 'failed'"),
    ],
)
def test_a_changed_row_is_told_and_found_again_after_a_loss(
    database: str,
    owner: psycopg.Connection,
    gateway: PostgresGateway,
    monkeypatch: pytest.MonkeyPatch,
    table: str,
    change: str,
) -> None:
    monkeypatch.setattr(events, "_BACKOFF_SECONDS", 0.01)
    (watched,) = [watched for watched in WATCHABLE if watched.table == table]
    owner.execute(DATASET)
    if table != "research_runs":
        owner.execute(PARENTS)  # type: ignore[call-overload]
    key = put(owner, table, 1)
    with NotifyFeed(database, gateway, [watched]) as feed:
        owner.execute(change)  # type: ignore[call-overload]
        assert feed.changes(10.0) == [Change(table=table, ids=(key,))]
        owner.execute(CUT)
        owner.execute(change)  # type: ignore[call-overload]
        assert gather(feed, {key}, table=table) == {key}


@pytest.mark.parametrize("table", sorted(ROWS))
def test_no_message_carries_more_than_ids_and_none_is_too_long_for_the_insert(owner: psycopg.Connection, table: str) -> None:
    owner.execute(DATASET)
    owner.execute(PARENTS)  # type: ignore[call-overload]
    owner.execute(f"listen {table}")  # type: ignore[call-overload]
    key = put(owner, table, 1)
    (note,) = owner.notifies(timeout=5.0, stop_after=1)
    assert json.loads(note.payload) == {"count": 1, "ids": [key]}


def test_ten_thousand_rows_in_a_statement_are_one_short_message(
    database: str, owner: psycopg.Connection, gateway: PostgresGateway
) -> None:
    owner.execute("listen trades")
    with NotifyFeed(database, gateway, [TRADES]) as feed:
        keys = owner.execute(
            "insert into trades (context_key, confidence, position_pct, symbol, side, client_order_id)"
            " select 'neutral|bear|high', 0.5, 0.1, 'AAA', 'buy', i::text from generate_series(1, 10000) i returning trade_id"
        ).fetchall()
        (note,) = owner.notifies(timeout=5.0, stop_after=1)
        assert json.loads(note.payload) == {"count": 10_000, "ids": None}
        assert gather(feed, {str(key) for (key,) in keys}, table="trades") == {str(key) for (key,) in keys}


@pytest.mark.parametrize(("n", "length"), [(100, 79), (100, 2_000), (1, 8_000)])
def test_keys_too_long_for_a_message_do_not_fail_the_insert_and_are_told_all_the_same(
    database: str, owner: psycopg.Connection, gateway: PostgresGateway, n: int, length: int
) -> None:
    owner.execute(DATASET)
    owner.execute(PARENTS)  # type: ignore[call-overload]
    # The letters are many, lest the index finds them short enough once it has packed them.
    letters = "".join(np.random.default_rng(0).choice(list("abcdefghij"), length - 4))
    keys = {f"{i:04}{letters}"[:length] for i in range(n)} if length < 2_500 else {"x" * length}
    with NotifyFeed(database, gateway, [DECISION_TRACES]) as feed:
        owner.execute(
            "insert into decision_traces (trace_id, signal_id, decided_at, status, stages)"
            " select key, '00000000-0000-0000-0000-000000000001', now(), 'filled', '[]' from unnest(%s::text[]) key",
            [sorted(keys)],
        )
        assert gather(feed, keys, table="decision_traces") == keys


@pytest.fixture
def small_queue(place: Path) -> Iterator[str]:
    """A migrated database on a server of its own that holds as few notifications as Postgres allows."""
    server = EmbeddedPostgres(place / "home")
    with psycopg.connect(server.start(), autocommit=True) as connection:
        connection.execute("alter system set max_notify_queue_pages = 64")
    server.stop()
    conninfo = server.start()
    apply_migrations(conninfo)
    yield conninfo
    server.stop()


def test_a_listener_that_hangs_fails_no_insert_and_the_feed_misses_nothing(small_queue: str) -> None:
    gateway = PostgresGateway(small_queue, role="service_role").open()
    with (
        psycopg.connect(small_queue, autocommit=True) as owner,
        psycopg.connect(small_queue) as hanging,
        NotifyFeed(small_queue, gateway, [TRADES]) as feed,
    ):
        hanging.execute("listen noise")
        hanging.commit()
        hanging.execute("select 1")  # and never ends its transaction
        with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="too many notifications in the NOTIFY queue"):
            while True:
                owner.execute("select pg_notify('noise', repeat('x', 7900) || gen_random_uuid())")
        during = put(owner, "trades", 1)
        assert gather(feed, {during}, table="trades") == {during}
        late = put(owner, "trades", 2)
        hanging.rollback()
        while owner.execute("select pg_notification_queue_usage() >= 0.5").fetchone() == (True,):
            pass
        assert late in gather(feed, {late}, table="trades")
        after = put(owner, "trades", 3)
        assert feed.changes(10.0) == [Change(table="trades", ids=(after,))]
    gateway.close()


# NOTIFY


def test_a_transaction_that_began_before_the_loss_and_ended_in_it_is_told(
    database: str, owner: psycopg.Connection, gateway: PostgresGateway
) -> None:
    owner.execute(DATASET)
    with NotifyFeed(database, gateway, [EMBEDDING_JOBS]) as feed:
        with psycopg.connect(database) as slow:
            (early,) = slow.execute(INSERT, [1]).fetchone() or ("",)
            (late,) = owner.execute(INSERT, [1]).fetchone() or ("",)
            assert gather(feed, {late}) == {late}
            owner.execute(CUT)
            slow.commit()
        assert early in gather(feed, {early})


def test_a_database_out_of_reach_is_named(gateway: PostgresGateway, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreUnavailableError, match="the database cannot be reached"):
        NotifyFeed("host=/nowhere dbname=x user=y", gateway, [EMBEDDING_JOBS]).open()


def test_a_database_that_stays_away_is_named_after_a_while(
    database: str, owner: psycopg.Connection, gateway: PostgresGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_PATIENCE_SECONDS", 0.05)
    with NotifyFeed(database, gateway, [EMBEDDING_JOBS]) as feed:
        monkeypatch.setattr(feed, "_conninfo", "host=/nowhere dbname=x user=y")
        owner.execute(CUT)
        with pytest.raises(StoreUnavailableError, match="the feed was lost"):
            feed.changes(1.0)


def test_a_table_without_the_column_is_an_error_at_once(database: str, gateway: PostgresGateway) -> None:
    feed = NotifyFeed(database, gateway, [Watched(table="embedding_jobs", key="no_such_column")])
    with pytest.raises(Exception, match="no_such_column"):
        feed.open()
    feed.close()


# Realtime


@pytest.mark.parametrize("key", ["wrong", KEY])
def test_a_realtime_that_refuses_is_named(
    realtime_server: Realtime, gateway: PostgresGateway, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(realtime, "_JOIN_SECONDS", 1.0)
    realtime_server.refuse_joins = True
    feed = RealtimeFeed(realtime_server.url, key, gateway, [EMBEDDING_JOBS])
    with pytest.raises(StoreUnavailableError, match=r"Realtime of .* cannot be reached: .*(no rights|403)"):
        feed.open()


def test_a_realtime_that_stays_away_is_named_after_a_while(gateway: PostgresGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realtime, "_PATIENCE_SECONDS", 0.05)
    with loopback_realtime.run() as running:
        feed = RealtimeFeed(running.url, KEY, gateway, [EMBEDDING_JOBS]).open()
    deadline = time.monotonic() + 20.0
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        while time.monotonic() < deadline:
            feed.changes(0.1)
    feed.close()


def test_a_row_too_large_for_realtime_is_asked_of_the_table(
    realtime_server: Realtime, owner: psycopg.Connection, gateway: PostgresGateway
) -> None:
    owner.execute(DATASET)
    with RealtimeFeed(realtime_server.url, KEY, gateway, [EMBEDDING_JOBS]) as feed:
        (job_id,) = owner.execute(INSERT, [1]).fetchone() or ("",)
        realtime_server.tell("embedding_jobs", {})
        assert gather(feed, {job_id}) == {job_id}
