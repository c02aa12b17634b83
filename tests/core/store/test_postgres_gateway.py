import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from core.errors import StoreConflictError, StoreError, StoreUnavailableError
from core.store.postgres import PostgresGateway
from tests.core.store.contract.things import TABLES, three


@pytest.fixture
def gateway(database: str, owner: psycopg.Connection) -> Iterator[PostgresGateway]:
    owner.execute(TABLES)  # type: ignore[call-overload]
    opened = PostgresGateway(database).open()
    yield opened
    opened.close()


def test_more_rows_than_a_statement_has_parameters_are_inserted_at_once(gateway: PostgresGateway) -> None:
    def rows(start: int, n: int) -> list[dict[str, Any]]:
        return [
            {"id": i, "name": str(i), "value": None, "meta": None, "flag": None, "at": None} for i in range(start, start + n)
        ]

    stored = gateway.insert("things", rows(1, 11_000))
    assert [row["id"] for row in stored] == list(range(1, 11_001))
    with pytest.raises(StoreConflictError):
        gateway.insert("things", [*rows(11_001, 11_000), *rows(1, 1)])
    assert len(gateway.select("things", columns=("id",))) == 11_000


def test_a_refused_connection_says_so(database: str) -> None:
    with pytest.raises(StoreUnavailableError, match="the database cannot be reached"):
        PostgresGateway("host=/nowhere dbname=x user=y").open()
    with pytest.raises(StoreUnavailableError, match="the database cannot be reached"):
        PostgresGateway(psycopg.conninfo.make_conninfo(database, dbname="no_such_database")).open()


def test_no_password_shows_in_an_error() -> None:
    url, keywords = "postgresql://me:hunter2@", "user=me password=hunter2"
    for address in (f"{url}/d?host=/nowhere", f"{url}h:port/d", f"{url}h/d?no=such", f"{keywords} nonsense", f"{keywords} a=b"):
        with pytest.raises(StoreError) as refusal:
            PostgresGateway(address).open()
        assert "hunter2" not in str(refusal.value)


def test_a_database_that_says_no_is_not_one_that_cannot_be_reached(gateway: PostgresGateway) -> None:
    with pytest.raises(StoreError, match="canceling statement due to statement timeout") as refusal, gateway.connection() as c:
        c.execute("set statement_timeout = 5")
        c.execute("select pg_sleep(5)")
    assert type(refusal.value) is StoreError


def test_a_connection_that_is_cut_is_replaced(gateway: PostgresGateway, owner: psycopg.Connection) -> None:
    three(gateway)
    owner.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'aqf'")
    with pytest.raises(StoreUnavailableError, match="the database cannot be reached"):
        gateway.select("things")
    assert len(gateway.select("things")) == 3


@pytest.mark.parametrize("verb", ["insert", "upsert", "append"])
def test_a_server_that_goes_away_in_the_middle_of_a_batch_leaves_nothing(
    gateway: PostgresGateway, owner: psycopg.Connection, verb: str
) -> None:
    rows = [
        {"id": i, "name": str(i), "value": 0.0, "meta": None, "flag": None, "at": None} for i in range(1, 12_001)
    ]  # more than one statement's parameters
    write = {
        "insert": lambda: gateway.insert("things", rows),
        "upsert": lambda: gateway.upsert("things", rows, on_conflict=("id",)),
        "append": lambda: gateway.upsert("things", rows, on_conflict=()),
    }[verb]
    working = "pid from pg_stat_activity where application_name = 'aqf' and wait_event_type = 'Lock'"
    with psycopg.connect(owner.info.dsn) as other, ThreadPoolExecutor(1) as pool:
        # The batch waits at this row until it is known whether it stays: by then 11,999 rows are on their way.
        other.execute("insert into things (id, name) values (12000, 'in the way')")
        future = pool.submit(write)
        while owner.execute(f"select count(*) from (select {working}) w").fetchone() == (0,):  # type: ignore[call-overload]
            assert not future.done()
        owner.execute(f"select pg_terminate_backend(pid) from (select {working}) w")  # type: ignore[call-overload]
        with pytest.raises(StoreUnavailableError, match="the database cannot be reached"):
            future.result(timeout=60)
        other.rollback()
    assert owner.execute("select count(*) from things").fetchone() == (0,)
    assert write() in (12_000, gateway.select("things", order=("id",)))


def test_a_gateway_acts_as_its_role(database: str, gateway: PostgresGateway) -> None:
    reader = PostgresGateway(database, role="researcher").open()
    with pytest.raises(StoreError, match="permission denied for table things"):
        reader.select("things")
    assert reader.select("datasets") == []
    reader.close()


def test_the_sign_of_zero_survives(gateway: PostgresGateway) -> None:
    gateway.upsert("things", [{"id": 1, "name": "a", "value": -0.0}], on_conflict=("id",))
    assert math.copysign(1.0, gateway.select("things")[0]["value"]) == -1.0
