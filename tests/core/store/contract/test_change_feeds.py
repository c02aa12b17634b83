"""What every feed of changes promises: NOTIFY of the embedded Postgres, and Realtime on a server with its wire format."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import pytest

from core.errors import StoreUnavailableError
from core.store import events, realtime
from core.store.events import EMBEDDING_JOBS, SIGNAL_EMBEDDINGS, Change, ChangeFeed, NotifyFeed, Watched
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


def gather(feed: ChangeFeed, wanted: set[str], seconds: float = 20.0) -> set[str]:
    """Collect ids until all are there that are wanted."""
    found: set[str] = set()
    deadline = time.monotonic() + seconds
    while not wanted <= found and time.monotonic() < deadline:
        for change in feed.changes(0.2):
            assert change.table == "embedding_jobs"
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
