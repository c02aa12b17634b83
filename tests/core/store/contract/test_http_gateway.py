"""What only the gateway over HTTP has to promise: keys, roles, pages, batches in parts, and servers that go away."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from core.errors import ConfigurationError, StoreConflictError, StoreError, StoreUnavailableError
from core.settings import Settings
from core.store import rest
from core.store.keys import sign_token
from core.store.opening import open_store
from core.store.rest import SupabaseGateway
from tests.core.store.contract.proxy import CUT, Proxy, forward
from tests.core.store.contract.things import TABLES
from tests.core.store.stand_in import JWT_SECRET, KEY, StandIn

Build = Callable[..., SupabaseGateway]


@pytest.fixture
def proxy(stand_in: StandIn, database: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    owner.execute(TABLES)  # type: ignore[call-overload]
    monkeypatch.setattr(rest, "_BACKOFF_SECONDS", 0.001)
    with forward(stand_in.url(database)) as running:
        yield running


@pytest.fixture
def gateway(proxy: Proxy) -> Iterator[SupabaseGateway]:
    opened = SupabaseGateway(proxy.url, KEY).open()
    yield opened
    opened.close()


def things(n: int, start: int = 1) -> list[dict[str, Any]]:
    return [{"id": i, "name": str(i), "value": i / 7} for i in range(start, start + n)]


def sent(proxy: Proxy, part: str) -> int:
    return sum(part in line for line in proxy.requests)


# Keys and roles


def test_a_gateway_acts_as_the_role_it_was_opened_for(reopen: Build, owner: psycopg.Connection) -> None:
    owner.execute(TABLES)  # type: ignore[call-overload]
    reader = reopen(role="researcher", jwt_secret=JWT_SECRET).open()
    assert reader.rpc("acting_role") == [{"acting_role": "researcher"}]
    assert reader.select("datasets") == []
    with pytest.raises(StoreError, match="permission denied for table things"):
        reader.select("things")
    with pytest.raises(StoreError, match="permission denied for table datasets"):
        reader.delete("datasets", where={"name": "x"})
    reader.close()


def test_a_wrong_key_is_named(reopen: Build) -> None:
    with pytest.raises(StoreUnavailableError, match=r"refuses SUPABASE_SERVICE_ROLE_KEY \(Invalid API key\)"):
        reopen(key="sb_secret_of_another_project").open()


def test_a_secret_of_another_project_is_named(reopen: Build) -> None:
    with pytest.raises(StoreUnavailableError, match="refuses SUPABASE_JWT_SECRET or SUPABASE_SERVICE_ROLE_KEY"):
        reopen(role="researcher", jwt_secret="the secret of another project, just as long").open()


def test_an_expired_token_is_named(reopen: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "_TOKEN_SECONDS", -60)
    with pytest.raises(StoreUnavailableError, match="says that the token has expired"):
        reopen(role="researcher", jwt_secret=JWT_SECRET).open()


def test_a_project_that_gives_another_role_is_refused(reopen: Build, proxy: Proxy) -> None:
    proxy.before = lambda line: (200, b'"anon"') if "acting_role" in line else None
    with pytest.raises(ConfigurationError, match="lets us act as 'anon' where 'service_role' was expected"):
        SupabaseGateway(proxy.url, KEY).open()


def test_a_project_that_lets_a_researcher_do_everything_is_refused(proxy: Proxy) -> None:
    proxy.before = lambda line: (200, b'"service_role"') if "acting_role" in line else None
    with pytest.raises(ConfigurationError, match="as 'service_role' where 'researcher' was expected"):
        SupabaseGateway(proxy.url, KEY, role="researcher", jwt_secret=JWT_SECRET).open()


def test_a_project_without_our_schema_is_told_what_to_do(stand_in: StandIn, empty_database: str) -> None:
    with pytest.raises(ConfigurationError, match=r"`supabase db push`, or set SUPABASE_DB_URL"):
        SupabaseGateway(stand_in.url(empty_database), KEY).open()


def old_key(**claims: str) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"eyJhbGciOiJIUzI1NiJ9.{body}.signature"


@pytest.mark.parametrize(
    ("url", "key", "said"),
    [
        (
            "https://abc.supabase.co",
            old_key(ref="xyz", role="service_role"),
            "of the project xyz, SUPABASE_URL names abc",
        ),
        ("https://abc.supabase.co", old_key(ref="abc", role="anon"), "is the key of the role anon"),
        ("https://abc.supabase.co", "a.!.c", "SUPABASE_SERVICE_ROLE_KEY cannot be read"),
        ("abc.supabase.co", "sb_secret_x", "SUPABASE_URL must be the address of a project"),
        ("ftp://abc.supabase.co", "sb_secret_x", "SUPABASE_URL must be the address of a project"),
    ],
)
def test_a_key_that_contradicts_the_address_is_refused_before_anything_is_sent(url: str, key: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        SupabaseGateway(url, key)


def test_a_researcher_without_a_secret_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="set SUPABASE_JWT_SECRET, or SUPABASE_DB_URL"):
        SupabaseGateway("https://abc.supabase.co", "sb_secret_x", role="researcher")


def test_a_token_says_role_and_end_and_is_signed() -> None:
    _, body, signature = sign_token("secret", "researcher", seconds=60).split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    assert claims["role"] == "researcher"
    assert claims["exp"] - claims["iat"] == 60
    assert len(base64.urlsafe_b64decode(signature + "=")) == 32
    assert sign_token("other", "researcher", seconds=60).split(".")[2] != signature


# Pages


def test_more_rows_than_come_at_once_are_read_in_pages(
    gateway: SupabaseGateway, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.upsert("things", things(250), on_conflict=("id",))
    monkeypatch.setattr(rest, "_PAGE_ROWS", 100)
    assert [row["id"] for row in gateway.select("things", order=("-value",))] == list(range(250, 0, -1))
    assert sent(proxy, "GET /rest/v1/things") == 3
    assert len(gateway.select("things")) == 250
    assert [row["id"] for row in gateway.select("things", order=("id",), limit=130)] == list(range(1, 131))


def test_rows_that_come_between_two_pages_are_not_missed(
    gateway: SupabaseGateway, proxy: Proxy, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.upsert("things", things(150, start=2), on_conflict=("id",))
    monkeypatch.setattr(rest, "_PAGE_ROWS", 100)

    def disturb(line: str) -> None:
        if "GET /rest/v1/things" in line and sent(proxy, "GET /rest/v1/things") == 1:
            owner.execute("insert into things (id, name) values (1, 'late')")

    proxy.after = disturb
    assert [row["id"] for row in gateway.select("things", order=("id",))] == list(range(1, 152))


def test_rows_without_an_order_of_their_own_are_not_read_in_pages(
    gateway: SupabaseGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.upsert("things", things(3), on_conflict=("id",))
    gateway.insert("parts", [{"thing_id": i} for i in (1, 2, 3)])
    monkeypatch.setattr(rest, "_PAGE_ROWS", 2)
    with pytest.raises(StoreError, match="no order to page by: give `order`"):
        gateway.select("parts")
    assert len(gateway.select("parts", order=("thing_id",))) == 3


# Batches


def test_a_batch_in_parts_is_written_at_once(
    gateway: SupabaseGateway, owner: psycopg.Connection, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "_BATCH_BYTES", 2_000)
    assert gateway.upsert("things", things(500), on_conflict=("id",)) == 500
    assert sent(proxy, "POST /rest/v1/write_batches") > 5
    assert gateway.upsert("things", [row | {"value": 0.0} for row in things(500)], on_conflict=("id",)) == 500
    assert {row["value"] for row in gateway.select("things")} == {0.0}
    assert gateway.upsert("things", things(500, start=501), on_conflict=()) == 500
    with pytest.raises(StoreConflictError, match="things_pkey"):
        gateway.upsert("things", things(500, start=900), on_conflict=())
    assert len(gateway.select("things")) == 1000
    assert owner.execute("select count(*) from write_batches").fetchone() == (0,)


def test_a_batch_in_parts_is_all_or_nothing(
    gateway: SupabaseGateway, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "_BATCH_BYTES", 2_000)
    with pytest.raises(StoreError, match="violates check constraint"):
        gateway.upsert("things", [*things(500), {"id": -1, "name": "x", "value": 0.0}], on_conflict=("id",))
    with pytest.raises(StoreConflictError, match="things_name_key"):
        gateway.upsert("things", [*things(500), {"id": 900, "name": "7", "value": 0.0}], on_conflict=("id",))
    with pytest.raises(StoreError, match="cannot affect row a second time"):
        gateway.upsert("things", [*things(500), *things(1)], on_conflict=("id",))
    assert owner.execute("select (select count(*) from things), (select count(*) from write_batches)").fetchone() == (0, 0)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_server_that_goes_away_in_the_middle_of_a_batch_leaves_nothing(
    gateway: SupabaseGateway, proxy: Proxy, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(rest, "_BATCH_BYTES", 2_000)
    setattr(proxy, when, lambda line: CUT if "write_batches" in line and sent(proxy, "write_batches") > 3 else None)
    with pytest.raises(StoreUnavailableError, match="the database cannot be reached"):
        gateway.upsert("things", things(500), on_conflict=("id",))
    assert owner.execute("select count(*) from things").fetchone() == (0,)
    proxy.before = proxy.after = lambda line: None
    assert gateway.upsert("things", things(500), on_conflict=("id",)) == 500


def test_a_part_whose_answer_was_lost_is_sent_again_and_counts_once(
    gateway: SupabaseGateway, proxy: Proxy, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "_BATCH_BYTES", 2_000)
    proxy.after = lambda line: CUT if "write_batches" in line and sent(proxy, "write_batches") == 2 else None
    assert gateway.upsert("things", things(500), on_conflict=("id",)) == 500
    assert owner.execute("select count(*) from things").fetchone() == (500,)


def test_parts_that_nobody_fetched_are_removed_after_a_day(
    gateway: SupabaseGateway, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.execute(
        "insert into write_batches (batch_id, part, rows, created_at) values"
        " (gen_random_uuid(), 0, '[]', now() - interval '25 hours'), (gen_random_uuid(), 0, '[]', now())"
    )
    monkeypatch.setattr(rest, "_BATCH_BYTES", 2_000)
    gateway.upsert("things", things(500), on_conflict=("id",))
    assert owner.execute("select count(*) from write_batches").fetchone() == (1,)


def test_a_researcher_cannot_take_the_parts_of_others(reopen: Build, owner: psycopg.Connection) -> None:
    owner.execute("insert into write_batches (batch_id, part, rows) values (gen_random_uuid(), 0, '[]')")
    reader = reopen(role="researcher", jwt_secret=JWT_SECRET).open()
    assert reader.select("write_batches") == []
    assert reader.delete("write_batches", where={"part": 0}) == 0
    reader.close()


# Servers that go away


@pytest.mark.parametrize("answer", [CUT, (503, b'{"message":"upstream is busy","code":"503"}')], ids=["cut", "busy"])
def test_a_read_is_sent_again(gateway: SupabaseGateway, proxy: Proxy, answer: tuple[int, bytes]) -> None:
    proxy.before = lambda line: answer if "GET" in line and sent(proxy, "GET") < 3 else None
    assert gateway.select("things") == []
    assert sent(proxy, "GET") == 3


def test_a_read_is_not_sent_for_ever(gateway: SupabaseGateway, proxy: Proxy) -> None:
    proxy.before = lambda line: CUT if "GET" in line else None
    with pytest.raises(StoreUnavailableError, match="the database cannot be reached"):
        gateway.select("things")
    assert sent(proxy, "GET") == 4


def test_a_write_is_sent_once(gateway: SupabaseGateway, proxy: Proxy) -> None:
    gateway.select("things")
    proxy.after = lambda line: CUT if "POST /rest/v1/things" in line else None
    with pytest.raises(StoreUnavailableError, match="the database cannot be reached"):
        gateway.insert("things", things(1))
    assert sent(proxy, "POST /rest/v1/things") == 1
    assert len(gateway.select("things")) == 1


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(StoreUnavailableError, match=r"the database cannot be reached: http://127.0.0.1:1"):
        SupabaseGateway("http://127.0.0.1:1", "sb_secret_x").open()


def test_a_gateway_that_is_closed_is_out_of_reach(gateway: SupabaseGateway) -> None:
    gateway.close()
    with pytest.raises(StoreUnavailableError, match="is not open"):
        gateway.select("things")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (409, "23505", StoreConflictError),
        (400, "23001", StoreConflictError),
        (409, "23503", StoreConflictError),
        (500, "53100", StoreUnavailableError),
        (503, "PGRST000", StoreUnavailableError),
        (503, "57P03", StoreUnavailableError),
        (500, "57014", StoreError),
        (400, "22P02", StoreError),
        (403, "42501", StoreError),
        (500, "40P01", StoreError),
    ],
)
def test_each_code_is_its_error(gateway: SupabaseGateway, proxy: Proxy, status: int, code: str, kind: type[StoreError]) -> None:
    gateway.select("things")
    proxy.before = lambda line: (status, json.dumps({"code": code, "message": "no", "details": None, "hint": None}).encode())
    with pytest.raises(kind, match="no") as refusal:
        gateway.update("things", {"value": 1.0}, where={"id": 1})
    assert type(refusal.value) is kind


def test_a_page_of_a_proxy_is_an_error_too(gateway: SupabaseGateway, proxy: Proxy) -> None:
    gateway.select("things")
    proxy.before = lambda line: (502, b"<html>Bad gateway</html>")
    with pytest.raises(StoreUnavailableError, match="Bad gateway"):
        gateway.insert("things", things(1))


def test_no_key_shows_in_an_error_or_a_representation(reopen: Build) -> None:
    gateway = reopen(key="sb_secret_hunter2", role="researcher", jwt_secret="hunter3")
    with pytest.raises(StoreError) as refusal:
        gateway.open()
    assert "hunter" not in str(refusal.value)
    assert "hunter" not in repr(gateway)


# The store over it


def settings(stand_in: StandIn, database: str, home: Path, **more: Any) -> Settings:
    return Settings(home=home, supabase_url=stand_in.url(database), supabase_key=KEY, **more)


def test_without_a_secret_the_researcher_is_refused_rather_than_given_all_rights(
    stand_in: StandIn, database: str, tmp_path: Path
) -> None:
    with open_store(settings(stand_in, database, tmp_path)) as store:
        assert store.service.list_datasets() == []
        with pytest.raises(ConfigurationError, match=r"set SUPABASE_JWT_SECRET .* or SUPABASE_DB_URL"):
            store.researcher.list_datasets()
        with pytest.raises(ConfigurationError, match="set SUPABASE_DB_URL"):
            store.require_conninfo()


def test_with_a_database_url_the_researcher_goes_there_and_the_schema_is_made(
    stand_in: StandIn, empty_database: str, tmp_path: Path
) -> None:
    with open_store(settings(stand_in, empty_database, tmp_path, supabase_db_url=empty_database)) as store:
        assert store.migrated
        assert store.researcher.gateway.select("datasets") == []
        with pytest.raises(StoreError, match="permission denied"):
            store.researcher.gateway.select("holdout_openings")
        assert store.require_conninfo() == empty_database


def test_a_schema_that_is_behind_is_refused(
    stand_in: StandIn, database: str, owner: psycopg.Connection, tmp_path: Path
) -> None:
    owner.execute(
        "delete from supabase_migrations.schema_migrations"
        " where version = (select max(version) from supabase_migrations.schema_migrations)"
    )
    with pytest.raises(ConfigurationError, match=r"the project's schema is at \d+, this release needs \d+: `supabase db push`"):
        open_store(settings(stand_in, database, tmp_path))
