"""What leaves the database: publication, buckets, seed data; and the way up from an earlier schema."""

import re
import tomllib
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from core.store.migrations import apply_migrations, load_migrations
from core.store.postgres import PostgresGateway
from core.store.trading import TradingStore
from tests.conftest import Server
from tests.core.store.trading import new_trade

SUPABASE = Path(__file__).resolve().parents[2] / "supabase"
PUBLISHED = {
    "agent_health",
    "backtest_results",
    "decision_traces",
    "equity_snapshots",
    "portfolio_state",
    "research_runs",
    "signal_embeddings",
    "trades",
}
TABLES = "select tablename from pg_publication_tables where pubname = 'supabase_realtime'"


def published(connection: psycopg.Connection) -> set[str]:
    return {name for (name,) in connection.execute(TABLES)}


def run(connection: psycopg.Connection, path: Path) -> None:
    connection.execute(path.read_text())  # type: ignore[call-overload]


def test_realtime_publishes_eight_tables_each_of_which_has_a_key(owner: psycopg.Connection) -> None:
    assert published(owner) == PUBLISHED
    keyed = owner.execute("select conrelid::regclass::text from pg_constraint where contype = 'p'").fetchall()
    assert {(table,) for table in PUBLISHED} <= set(keyed)


def test_a_publication_that_is_there_is_added_to_and_one_of_everything_left_alone(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("create table mine (id integer primary key)")
        connection.execute("create publication supabase_realtime for table mine")
        apply_migrations(empty_database)
        assert published(connection) == PUBLISHED | {"mine"}
        connection.execute("drop publication supabase_realtime")
        connection.execute("create publication supabase_realtime for all tables")
        run(connection, SUPABASE / "migrations" / "20240902007000_publish_and_expose.sql")
        assert published(connection) > PUBLISHED | {"mine", "fills"}


def test_who_may_not_create_the_publication_gets_everything_else(owner: psycopg.Connection, database: str) -> None:
    tables = ["agent_health", "decision_traces", "macro_context", "portfolio_positions", "portfolio_state", "signals"]
    owner.execute("drop publication supabase_realtime")
    owner.execute("create role limited_owner login nosuperuser")
    owner.execute("grant create, usage on schema public to limited_owner")
    for table in [*tables, "ticker_map", "trades"]:
        owner.execute(f"drop policy anon_reads on {table}")  # type: ignore[call-overload]
        owner.execute(f"alter table {table} owner to limited_owner")  # type: ignore[call-overload]
    owner.execute("alter function close_anon_access() owner to limited_owner")
    with psycopg.connect(make_conninfo(database, user="limited_owner"), autocommit=True) as limited:
        run(limited, SUPABASE / "migrations" / "20240902007000_publish_and_expose.sql")
        assert limited.execute("select count(*) from pg_publication").fetchone() == (0,)
        assert limited.execute("select count(*) from pg_policies where policyname = 'anon_reads'").fetchone() == (8,)
    run(owner, SUPABASE / "migrations" / "20240902007000_publish_and_expose.sql")
    assert published(owner) == PUBLISHED


def test_a_publication_of_somebody_else_is_left_alone(owner: psycopg.Connection, database: str) -> None:
    owner.execute("drop publication supabase_realtime")
    owner.execute("create publication supabase_realtime for table ticker_map")
    owner.execute("create role other_owner login nosuperuser")
    owner.execute("grant create on schema public to other_owner")
    with psycopg.connect(make_conninfo(database, user="other_owner"), autocommit=True) as other:
        body = (SUPABASE / "migrations" / "20240902007000_publish_and_expose.sql").read_text()
        other.execute(body[: body.index("$$;") + 3])  # type: ignore[call-overload]
    assert published(owner) == {"ticker_map"}


def test_buckets_are_private_where_there_is_storage(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("create schema storage")
        connection.execute("create table storage.buckets (id text primary key, name text unique, public boolean)")
        connection.execute("insert into storage.buckets values ('model-artifacts', 'model-artifacts', true)")
        apply_migrations(empty_database)
        rows = connection.execute("select id, name, public from storage.buckets order by id").fetchall()
        assert rows == [
            ("feature-snapshots", "feature-snapshots", False),
            ("model-artifacts", "model-artifacts", False),
        ]


def test_the_clis_settings_name_the_same_buckets_and_files() -> None:
    config = tomllib.loads((SUPABASE / "config.toml").read_text())
    assert config["storage"]["buckets"] == {"model-artifacts": {"public": False}, "feature-snapshots": {"public": False}}
    assert config["db"]["seed"]["sql_paths"] == ["./seed.sql"]
    assert (SUPABASE / "seed.sql").is_file()


def test_the_seed_can_be_sown_twice_and_is_marked_as_a_demo(owner: psycopg.Connection, database: str) -> None:
    run(owner, SUPABASE / "seed.sql")
    tables = ("ticker_map", "signals", "filtered_signals", "macro_context", "trades", "decision_traces", "equity_snapshots")

    def counts() -> list[int]:
        return [owner.execute(f"select count(*) from {table}").fetchone()[0] for table in tables]  # type: ignore[call-overload, index]

    first = counts()
    assert min(first) > 0
    run(owner, SUPABASE / "seed.sql")
    assert counts() == first
    assert owner.execute("select count(*) from signals where source <> 'demo'").fetchone() == (0,)
    assert owner.execute("select count(*) from trades where not paper_trading").fetchone() == (0,)
    gateway = PostgresGateway(database, role="service_role").open()
    store = TradingStore(gateway)
    (rate,) = store.trades.list_hit_rates()
    assert (rate.closed_trades, rate.hit_rate) == (2, 0.5)
    assert len(store.list_decision_traces()) == first[5]
    assert store.claim_signals("a") != []
    gateway.close()


def test_the_template_is_no_migration_and_makes_a_table_done_right(owner: psycopg.Connection, database: str) -> None:
    template = SUPABASE / "migrations" / "TEMPLATE.sql.txt"
    assert "TEMPLATE" not in {migration.name for migration in load_migrations()}
    for _ in range(2):
        owner.execute(template.read_text())  # type: ignore[call-overload]
    assert re.match(r"-- [A-Z]", template.read_text())
    query = "select relrowsecurity from pg_class where oid = 'public.things'::regclass"
    assert owner.execute(query).fetchone() == (True,)
    owner.execute("insert into things (name) values ('one')")
    owner.execute("update things set name = 'two'")
    assert owner.execute("select updated_at > created_at from things").fetchone() == (True,)
    owner.execute("set role anon")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        owner.execute("select from things")


def test_a_database_of_the_first_release_is_upgraded_and_keeps_its_rows(empty_database: str) -> None:
    migrations = load_migrations()
    first = tuple(migration for migration in migrations if migration.version.startswith("20240901"))
    assert apply_migrations(empty_database, first)[-1] == "20240901008000"
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("insert into agent_state (agent_id, state) values ('planner', '{\"kept\": true}')")
        assert apply_migrations(empty_database) == [m.version for m in migrations if m not in first]
        assert connection.execute("select state from agent_state").fetchall() == [({"kept": True},)]
        assert connection.execute("select count(*) from trade_hit_rates").fetchone() == (0,)


def test_an_owner_who_is_no_superuser_can_migrate_as_on_supabase(server: Server, empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("create role hosted_owner login nosuperuser createrole bypassrls")
        connection.execute("grant anon, authenticated, service_role, researcher to hosted_owner with admin option")
        connection.execute("create schema extensions authorization hosted_owner")
        connection.execute("create extension vector with schema extensions")
        connection.execute("alter schema public owner to hosted_owner")
        connection.execute(f"alter database {connection.info.dbname} owner to hosted_owner")  # type: ignore[call-overload]
    conninfo = make_conninfo(empty_database, user="hosted_owner")
    apply_migrations(conninfo)
    gateway = PostgresGateway(conninfo, role="service_role").open()
    store = TradingStore(gateway)
    store.trades.record_trade(new_trade())
    with psycopg.connect(conninfo) as connection:
        assert connection.execute("select total_trades from trade_hit_rates").fetchall() == [(1,)]
        assert published(connection) == PUBLISHED
    assert len(store.close_anon_access()) == 8
    gateway.close()
