import re
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb

from core import types
from core.errors import ConfigurationError, StoreError, StoreUnavailableError
from core.store import event_records, records, trading_records
from core.store.migrations import Migration, apply_migrations, load_migrations, pending_migrations
from core.store.records import (
    VECTOR_WIDTH,
    EmbeddingVersionStatus,
    FeatureKind,
    FeatureStatus,
    JobStatus,
    RunStatus,
)
from core.store.trading_records import (
    BreakerState,
    Exchange,
    KnowledgeCollection,
    MilestoneStage,
    SeniorityTier,
)
from core.text import DOCUMENT_WIDTH
from core.types import (
    AgentHealth,
    BindingConstraint,
    MarketRegime,
    PipelineStatus,
    Severity,
    Side,
    SignalCategory,
    Stage,
    VixBand,
)
from features.encoders.base import DIMS
from tests.conftest import Server

FOLDER = Path(__file__).resolve().parents[2] / "supabase" / "migrations"
VERSIONS = [migration.version for migration in load_migrations()]

ENUMS: dict[str, type[StrEnum]] = {
    "agent_health_status": AgentHealth,
    "binding_constraint": BindingConstraint,
    "breaker_state": BreakerState,
    "embedding_version_status": EmbeddingVersionStatus,
    "exchange": Exchange,
    "feature_kind": FeatureKind,
    "feature_status": FeatureStatus,
    "job_status": JobStatus,
    "knowledge_collection": KnowledgeCollection,
    "market_regime": MarketRegime,
    "milestone_stage": MilestoneStage,
    "pipeline_status": PipelineStatus,
    "run_status": RunStatus,
    "seniority_tier": SeniorityTier,
    "severity": Severity,
    "side": Side,
    "signal_category": SignalCategory,
    "stage": Stage,
    "vix_band": VixBand,
}

# What roles other than `service_role` may do. Whatever is not written here is forbidden, to PUBLIC as well.
NOTHING: dict[str, str] = {}
TABLES: dict[str, dict[str, str]] = {
    "agent_exp": NOTHING,
    "agent_exp_ledger": NOTHING,
    "agent_health": {"anon": "select"},
    "agent_health_latest": NOTHING,
    "agent_seniority": NOTHING,
    "agent_seniority_history": NOTHING,
    "agent_state": {"researcher": "insert select update"},
    "audit_log": NOTHING,
    "backtest_results": {"researcher": "insert select"},
    "cash_movements": NOTHING,
    "circuit_breakers": NOTHING,
    "datasets": {"researcher": "select"},
    "decision_traces": {"anon": "select"},
    "drift_events": NOTHING,
    "embedding_counts": {"researcher": "select"},
    "embedding_jobs": {"researcher": "insert select update"},
    "embedding_versions": {"researcher": "insert select update"},
    "equity_snapshots": NOTHING,
    "events": {"researcher": "select"},
    "feature_registry": {"researcher": "insert select"},
    "fills": NOTHING,
    "fill_ledger": NOTHING,
    "filtered_signals": NOTHING,
    "holdout_openings": NOTHING,
    "knowledge_documents": NOTHING,
    "labels": {"researcher": "select"},
    "live_performance": NOTHING,
    "llm_calls": NOTHING,
    "llm_usage": NOTHING,
    "macro_context": {"anon": "select"},
    "market_bars": {"researcher": "select"},
    "milestone_state": NOTHING,
    "order_intents": NOTHING,
    "paper_accounts": NOTHING,
    "paper_bars": NOTHING,
    "paper_fills": NOTHING,
    "paper_orders": NOTHING,
    "paper_positions": NOTHING,
    "portfolio_positions": {"anon": "select"},
    "portfolio_state": {"anon": "select"},
    "provenance_events": NOTHING,
    "research_runs": NOTHING,
    "signal_embeddings": {"researcher": "insert select update"},
    "signal_embeddings_archive": {"researcher": "select"},
    "signals": {"anon": "select"},
    "system_exp": NOTHING,
    "system_seniority": NOTHING,
    "ticker_map": {"anon": "select"},
    "tool_calls": {"researcher": "insert select"},
    "trade_hit_rate_changes": NOTHING,
    "trade_hit_rates": NOTHING,
    "trade_hit_rates_live": NOTHING,
    "trade_settlements": NOTHING,
    "trades": {"anon": "select"},
    "trading_halts": NOTHING,
    "trial_results": {"researcher": "select"},
    "trials": {"researcher": "insert select"},
    "unsettled_trades": NOTHING,
    "write_batches": {"researcher": "delete insert select"},
}
COLUMNS: dict[str, dict[str, str]] = {
    f"research_runs.{column}": {"researcher": "select"}
    for column in (
        "run_id",
        "request",
        "dataset_id",
        "lineage",
        "thread_id",
        "planner",
        "status",
        "budget",
        "usage",
        "code_version",
        "building_blocks",
        "started_at",
        "finished_at",
    )
}
FUNCTIONS: dict[str, dict[str, str]] = {
    "acting_role": {"researcher": "execute"},
    "activate_embedding_version": {"researcher": "execute"},
    "add_exp": NOTHING,
    "apply_paper_bars": NOTHING,
    "attach_labels": NOTHING,
    "audit_row_hash": NOTHING,
    "bound_agent_health": NOTHING,
    "cancel_paper_order": NOTHING,
    "chain_audit_entry": NOTHING,
    "chain_trial": {"researcher": "execute"},
    "claim_embedding_jobs": {"researcher": "execute"},
    "claim_signals": NOTHING,
    "close_anon_access": NOTHING,
    "close_trade": NOTHING,
    "consume_signals": NOTHING,
    "count_knowledge_documents": NOTHING,
    "describe_name": {"researcher": "execute"},
    "effective_trials": {"researcher": "execute"},
    "exp_level": NOTHING,
    "get_agent_health_summary": NOTHING,
    "get_drawdown_history": NOTHING,
    "get_equity_history": NOTHING,
    "get_kill_stage_stats": NOTHING,
    "get_monthly_returns": NOTHING,
    "get_performance_stats": NOTHING,
    "get_promotion_history": NOTHING,
    "get_r_multiple_distribution": NOTHING,
    "get_seniority_report": NOTHING,
    "get_trade_hit_rates": NOTHING,
    "get_win_rates_by_category": NOTHING,
    "guard_dataset": NOTHING,
    "guard_holdout_opening": NOTHING,
    "halt_trading": NOTHING,
    "import_dataset": NOTHING,
    "keep_seniority_history": NOTHING,
    "list_open_intents": NOTHING,
    "load_panel": {"researcher": "execute"},
    "mark_hit_rate_changes": NOTHING,
    "match_knowledge_documents": NOTHING,
    "match_signal_embeddings": {"researcher": "execute"},
    "mint_exp": NOTHING,
    "move_cash": NOTHING,
    "notify_ids": {"researcher": "execute"},
    "open_holdout": NOTHING,
    "open_paper_account": NOTHING,
    "place_paper_exits": NOTHING,
    "place_paper_order": NOTHING,
    "place_paper_orders": NOTHING,
    "propose_feature": {"researcher": "execute"},
    "read_paper_account": NOTHING,
    "record_decision_trace": NOTHING,
    "record_decision_traces": NOTHING,
    "record_decisions": NOTHING,
    "record_fill": NOTHING,
    "record_holdout": NOTHING,
    "record_macro_context": NOTHING,
    "record_milestones": NOTHING,
    "record_portfolio": NOTHING,
    "record_trial": {"researcher": "execute"},
    "record_verdict": NOTHING,
    "refresh_trade_hit_rates": NOTHING,
    "refuse_change": NOTHING,
    "renew_embedding_job": {"researcher": "execute"},
    "restore_vectors": NOTHING,
    "resume_trading": NOTHING,
    "rpc_prune_vectors": {"researcher": "execute"},
    "rpc_refresh_embeddings": {"researcher": "execute"},
    "save_events": NOTHING,
    "score_signal_cluster": {"researcher": "execute"},
    "set_updated_at": NOTHING,
    "split_context_key": NOTHING,
    "store_indexes": NOTHING,
    "store_slow_statements": NOTHING,
    "store_status": NOTHING,
    "store_summary": NOTHING,
    "store_version": NOTHING,
    "trial_behaviours": {"researcher": "execute"},
    "trial_row_hash": {"researcher": "execute"},
    "jsonb_sha256": {"researcher": "execute"},
    "upsert_signal": NOTHING,
    "verify_audit_log": NOTHING,
    "verify_trials": {"researcher": "execute"},
    "write_batch": {"researcher": "execute"},
}
DEFINERS = {
    "close_anon_access",
    "refresh_trade_hit_rates",
    "rpc_prune_vectors",
    "store_slow_statements",
    "store_summary",
    "store_version",
}
MATERIALISED = {"trade_hit_rates"}

GRANTS = {
    "tables": """
        select c.relname, coalesce(r.rolname, 'public'), lower(a.privilege_type)
        from pg_class c
        left join lateral aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a on a.grantee <> c.relowner
        left join pg_roles r on r.oid = a.grantee
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'v', 'm', 'f', 'p')
        """,
    "columns": """
        select c.relname || '.' || t.attname, coalesce(r.rolname, 'public'), lower(a.privilege_type)
        from pg_class c join pg_attribute t on t.attrelid = c.oid, aclexplode(t.attacl) a
        left join pg_roles r on r.oid = a.grantee
        where c.relnamespace = 'public'::regnamespace and a.grantee <> c.relowner
        """,
    "functions": """
        select p.proname, coalesce(r.rolname, 'public'), lower(a.privilege_type)
        from pg_proc p
        left join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a on a.grantee <> p.proowner
        left join pg_roles r on r.oid = a.grantee
        where p.pronamespace = 'public'::regnamespace
        """,
}
SUPABASE_DEFAULTS = """
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
"""


def granted(connection: psycopg.Connection, query: str) -> dict[str, dict[str, str]]:
    """Everything granted to anybody but the owner and `service_role`, as in the tables above."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name, role, privilege in connection.execute(query).fetchall():
        found[name]
        if privilege is not None and role != "service_role":
            found[name][role].add(privilege)
    return {name: {role: " ".join(sorted(rights)) for role, rights in roles.items()} for name, roles in found.items()}


def names(connection: psycopg.Connection, query: str) -> set[str]:
    return {name for (name,) in connection.execute(query)}


def everything(conninfo: str) -> list[object]:
    """Every definition in the schema, to compare two databases."""
    queries = [
        "select table_name, column_name, data_type, column_default, is_nullable from information_schema.columns"
        " where table_schema = 'public'",
        "select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint"
        " where connamespace = 'public'::regnamespace",
        "select indexdef from pg_indexes where schemaname = 'public'",
        "select tgrelid::regclass::text, pg_get_triggerdef(oid) from pg_trigger where not tgisinternal",
        "select pg_get_functiondef(oid) from pg_proc where pronamespace = 'public'::regnamespace",
        "select tablename, policyname, roles::text, cmd, qual, with_check from pg_policies where schemaname = 'public'",
        "select viewname, definition from pg_views where schemaname = 'public'",
        "select matviewname, definition from pg_matviews where schemaname = 'public'",
        "select t.typname, e.enumlabel from pg_enum e join pg_type t on t.oid = e.enumtypid",
        "select pubname, schemaname, tablename from pg_publication_tables",
        *GRANTS.values(),
    ]
    with psycopg.connect(conninfo) as connection:
        return [sorted(map(repr, connection.execute(query).fetchall())) for query in queries]


# How they are applied


def test_an_empty_database_gets_every_migration_once_and_in_order(empty_database: str) -> None:
    assert pending_migrations(empty_database) == VERSIONS
    assert apply_migrations(empty_database) == VERSIONS
    assert pending_migrations(empty_database) == []
    assert apply_migrations(empty_database) == []
    with psycopg.connect(empty_database) as connection:
        rows = connection.execute("select version, name, statements from supabase_migrations.schema_migrations order by 1")
        assert [(v, n, s) for v, n, s in rows] == [(m.version, m.name, [m.statements]) for m in load_migrations()]


def test_each_file_run_twice_by_hand_changes_nothing(database: str) -> None:
    before = everything(database)
    for path in sorted(FOLDER.glob("*.sql")):
        for _ in range(2):
            with psycopg.connect(database, autocommit=True, options="-c client_min_messages=error") as connection:
                connection.execute(path.read_text())  # type: ignore[call-overload]
    assert everything(database) == before


def test_a_later_file_is_applied_to_a_database_that_has_the_earlier_ones(empty_database: str, database: str) -> None:
    migrations = load_migrations()
    for n in range(1, len(migrations) + 1):
        assert apply_migrations(empty_database, migrations[:n]) == [migrations[n - 1].version]
    assert everything(empty_database) == everything(database)


@pytest.mark.parametrize("n", range(1, len(VERSIONS)), ids=VERSIONS[:-1])
def test_from_every_earlier_version_one_call_leads_to_the_newest(empty_database: str, database: str, n: int) -> None:
    migrations = load_migrations()
    apply_migrations(empty_database, migrations[:n])
    assert apply_migrations(empty_database) == VERSIONS[n:]
    assert everything(empty_database) == everything(database)


@pytest.mark.parametrize(
    ("movements", "told", "moved", "units"),
    [((), 1000, None, 1), ((700, 300), 1000, 1000, 1), ((700,), 1000, 700, 1.375)],
    ids=["nobody said", "as it was", "a deposit since"],
)
def test_money_from_before_equity_was_counted_in_units_is_no_deposit(
    empty_database: str, movements: tuple[int, ...], told: int, moved: int | None, units: float
) -> None:
    counted = VERSIONS.index("20241008000000")
    apply_migrations(empty_database, load_migrations()[:counted])
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(
            "insert into public.portfolio_state (equity, peak_equity, drawdown_pct, cash, open_positions)"
            " values (1000, 1250, 0.2, 1000, 0)"
        )
        for number, amount in enumerate(movements):
            connection.execute(
                "insert into public.cash_movements (movement_ref, amount, moved_at) values (%s, %s, now())",
                [f"{number}", amount],
            )
        apply_migrations(empty_database)
        assert connection.execute("select moved from public.portfolio_state").fetchone() == (moved,)
        book = Jsonb({"equity": 1100, "cash": 1100, "moved": told, "recorded_at": "2024-03-04T15:00:00Z"})
        state = connection.execute("select units, peak_equity, moved from public.record_portfolio(%s)", [book]).fetchone()
        assert state == (units, 1250 * units, told)


def test_of_several_processes_at_once_one_applies_each(empty_database: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(lambda _: apply_migrations(empty_database), range(4)))
    assert sorted(applied) == [[], [], [], VERSIONS]


def build(version: str, statements: str) -> Migration:
    return Migration(version=version, name="do_it", statements=statements)


def test_a_migration_that_fails_leaves_nothing_and_keeps_those_before(empty_database: str) -> None:
    good = build("20240101000000", "create table first (id integer)")
    bad = build("20240101000001", "create table second (id integer); insert into first values (1); select 1 / 0;")
    never = build("20240101000002", "create table third (id integer)")
    with pytest.raises(StoreError, match=r"migration 20240101000001_do_it failed, nothing of it was kept: division by zero"):
        apply_migrations(empty_database, (good, bad, never))
    with psycopg.connect(empty_database) as connection:
        assert names(connection, "select relname from pg_class where relnamespace = 'public'::regnamespace") == {"first"}
        assert connection.execute("select count(*) from first").fetchone() == (0,)
    mended = build(bad.version, "create table second (id integer)")
    assert apply_migrations(empty_database, (good, mended, never)) == [mended.version, never.version]


def test_a_database_out_of_reach_is_named_so() -> None:
    with pytest.raises(StoreUnavailableError, match="the database cannot be reached"):
        apply_migrations("host=/nowhere user=x dbname=y")
    with pytest.raises(StoreUnavailableError, match="the database cannot be reached"):
        pending_migrations("host=/nowhere user=x dbname=y")


def test_migrations_are_read_in_the_order_of_their_versions(tmp_path: Path) -> None:
    for version in ("20240102000000", "20240101000000", "20231231235959"):
        (tmp_path / f"{version}_create_x.sql").write_text(f"select {version}")
    (tmp_path / "TEMPLATE.sql.txt").write_text("not a migration")
    read = load_migrations(tmp_path)
    assert [m.version for m in read] == ["20231231235959", "20240101000000", "20240102000000"]
    assert read[0] == Migration(version="20231231235959", name="create_x", statements="select 20231231235959")


@pytest.mark.parametrize("name", ["1_x.sql", "20240101000000.sql", "20240101000000_Create.sql", "20240101000000-x.sql"])
def test_a_misnamed_migration_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("select 1")
    with pytest.raises(ConfigurationError, match=rf"<14 digits>_<verb_object>\.sql, found {re.escape(name)}"):
        load_migrations(tmp_path)


def test_two_migrations_of_one_version_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"20240101000000_{name}.sql").write_text("select 1")
    with pytest.raises(ConfigurationError, match="share a version"):
        load_migrations(tmp_path)


def test_an_installation_without_migrations_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there are no migrations in"):
        load_migrations(tmp_path)


def test_every_file_opens_with_a_comment_and_the_name_the_seed_gave_is_kept() -> None:
    for path in FOLDER.glob("*.sql"):
        assert re.match(r"-- [A-Z]", path.read_text()), path.name
    assert (FOLDER / "20240901004000_signal_embedding_triggers.sql").is_file()


# What they make


def test_no_extension_but_vector_is_needed(owner: psycopg.Connection) -> None:
    assert names(owner, "select extname from pg_extension") == {"plpgsql", "vector"}


def test_every_table_has_row_level_security(owner: psycopg.Connection) -> None:
    tables = names(owner, "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')")
    views = names(owner, "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('v', 'm')")
    secured = names(owner, "select relname from pg_class where relnamespace = 'public'::regnamespace and relrowsecurity")
    assert secured == tables
    assert tables | views == set(TABLES)


def test_every_view_reads_with_the_rights_of_who_asks(owner: psycopg.Connection) -> None:
    careless = "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('v', 'm')"
    # A materialised view cannot; only `service_role` may read it.
    assert names(owner, f"{careless} and not coalesce(reloptions::text like '%security_invoker=true%', false)") == MATERIALISED


def test_every_function_has_a_fixed_search_path_and_few_act_as_their_owner(owner: psycopg.Connection) -> None:
    ours = "select proname from pg_proc where pronamespace = 'public'::regnamespace"
    assert names(owner, ours) == set(FUNCTIONS)
    assert names(owner, f"{ours} and not coalesce('search_path=\"\"' = any (proconfig), false)") == set()
    assert names(owner, f"{ours} and prosecdef") == DEFINERS


def test_every_table_has_a_time_of_creation_and_every_changing_one_keeps_the_time_of_change(owner: psycopg.Connection) -> None:
    column = "select table_name from information_schema.columns where table_schema = 'public' and column_name = '{}'"
    tables = names(owner, "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'")
    assert tables - names(owner, column.format("created_at")) == {"market_bars"}
    touched = names(
        owner,
        "select c.relname from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_proc p on p.oid = t.tgfoid"
        " where p.proname in ('set_updated_at', 'guard_dataset')",
    )
    assert touched == (names(owner, column.format("updated_at")) & tables) - {"signal_embeddings_archive"}


@pytest.mark.parametrize("kind", ["tables", "columns", "functions"])
def test_what_each_role_may_do_is_what_is_written_here(owner: psycopg.Connection, kind: str) -> None:
    expected = {"tables": TABLES, "columns": COLUMNS, "functions": FUNCTIONS}[kind]
    assert granted(owner, GRANTS[kind]) == expected


@pytest.fixture
def hosted(server: Server, empty_database: str) -> Iterator[psycopg.Connection]:
    """A database that, like Supabase, grants everything on whatever is created in `public` to its API's roles."""
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(SUPABASE_DEFAULTS)
        apply_migrations(empty_database)
        yield connection


def test_the_roles_may_do_no_more_where_supabase_grants_everything_by_default(
    database: str, hosted: psycopg.Connection
) -> None:
    for kind, expected in (("tables", TABLES), ("columns", COLUMNS), ("functions", FUNCTIONS)):
        assert granted(hosted, GRANTS[kind]) == expected


def test_the_framework_may_do_everything_to_every_table(owner: psycopg.Connection) -> None:
    for table in names(owner, "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'"):
        for right in ("select", "insert", "update", "delete"):
            assert owner.execute("select has_table_privilege('service_role', %s, %s)", [table, right]).fetchone() == (True,)
    assert owner.execute("select rolbypassrls from pg_roles where rolname = 'service_role'").fetchone() == (True,)


def test_every_right_of_a_role_has_its_policy(owner: psycopg.Connection) -> None:
    policies: dict[tuple[str, str], set[str]] = defaultdict(set)
    for table, roles, command in owner.execute("select tablename, roles, cmd from pg_policies where schemaname = 'public'"):
        (role,) = roles
        policies[role, table] |= {"select", "insert", "update"} if command == "ALL" else {command.lower()}
    views = names(owner, "select viewname from pg_views where schemaname = 'public'")
    rights = {
        (role, table): set(granted.split())
        for table, roles in TABLES.items()
        if table not in views
        for role, granted in roles.items()
    }
    rights["researcher", "research_runs"] = {"select"}
    assert policies == rights


RIGHTS = ("select", "insert", "update", "delete", "truncate")


def attempt(owner: psycopg.Connection, table: str, right: str) -> None:
    """Try a right on a table as the role in force; rows are not needed to be refused."""
    (column,) = owner.execute(
        "select attname from pg_attribute where attrelid = %s::regclass and attnum = 1", [f"public.{table}"]
    ).fetchone() or ("",)
    owner.execute(
        {
            "select": f"select {column} from {table} limit 1",
            "insert": f"insert into {table} ({column}) values (default)",
            "update": f"update {table} set {column} = default where false",
            "delete": f"delete from {table} where false",
            "truncate": f"truncate {table}",
        }[right]  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("role", ["anon", "authenticated", "researcher"])
def test_a_role_that_tries_every_table_gets_as_far_as_is_written_here(owner: psycopg.Connection, role: str) -> None:
    relations = owner.execute(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'm')"
    )
    tables = [name for (name,) in relations.fetchall()]
    readable_in_part = {("researcher", "research_runs", "select")}
    allowed = set()
    for table in tables:
        for right in RIGHTS:
            owner.execute(f"set role {role}")
            try:
                attempt(owner, table, right)
            except psycopg.errors.WrongObjectType:
                continue  # nobody changes a materialised view
            except psycopg.errors.InsufficientPrivilege as error:
                if "row-level security" in str(error):
                    allowed.add((role, table, right))
            except psycopg.Error:
                allowed.add((role, table, right))
            else:
                allowed.add((role, table, right))
            finally:
                owner.execute("reset role")
    expected = {(role, table, right) for table in tables for right in TABLES[table].get(role, "").split()} | {
        item for item in readable_in_part if item[0] == role
    }
    assert allowed == expected


@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_the_roles_of_the_api_call_nothing_and_create_nothing(owner: psycopg.Connection, role: str) -> None:
    signatures = names(owner, "select oid::regprocedure::text from pg_proc where pronamespace = 'public'::regnamespace")
    may = "select has_function_privilege(%s, %s, 'execute')"
    assert {signature for signature in signatures if owner.execute(may, [role, signature]).fetchone() == (True,)} == set()
    owner.execute(f"set role {role}")
    for statement in ("create table mine (id integer)", "select verify_trials()", "select close_anon_access()"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            owner.execute(statement)  # type: ignore[call-overload]


def test_a_researcher_creates_nothing_and_sees_no_migrations(owner: psycopg.Connection) -> None:
    owner.execute("set role researcher")
    for statement in (
        "create table mine (id integer)",
        "create schema mine",
        "select from supabase_migrations.schema_migrations",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            owner.execute(statement)  # type: ignore[call-overload]


def test_enumerations_are_the_same_in_python_and_in_the_database(owner: psycopg.Connection) -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for name, value in owner.execute(
        "select t.typname, e.enumlabel from pg_enum e join pg_type t on t.oid = e.enumtypid"
        " where t.typnamespace = 'public'::regnamespace order by e.enumsortorder"
    ):
        found[name].append(value)
    assert found == {name: [member.value for member in enum] for name, enum in ENUMS.items()}


def test_no_enumeration_of_the_contract_or_the_records_is_without_its_type_in_the_database() -> None:
    ours = {
        value
        for module in (types, records, event_records, trading_records)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, StrEnum) and value is not StrEnum
    }
    assert ours == set(ENUMS.values())


def test_vectors_are_as_wide_in_the_database_as_in_python(owner: psycopg.Connection) -> None:
    widths = owner.execute(
        "select c.relname || '.' || a.attname, a.atttypmod from pg_attribute a join pg_class c on c.oid = a.attrelid"
        " join pg_type t on t.oid = a.atttypid where t.typname = 'vector' and c.relkind = 'r'"
        " and c.relnamespace = 'public'::regnamespace"
    ).fetchall()
    assert dict(widths) == {
        "knowledge_documents.embedding": DOCUMENT_WIDTH,
        "signal_embeddings.embedding": VECTOR_WIDTH,
        "signal_embeddings_archive.embedding": VECTOR_WIDTH,
        "trials.behaviour": VECTOR_WIDTH,
    }
    assert VECTOR_WIDTH == DIMS
    (index,) = owner.execute("select indexdef from pg_indexes where indexname = 'signal_embeddings_hnsw'").fetchall()
    assert f"halfvec({VECTOR_WIDTH})" in index[0]
    assert "ef_construction='128'" in index[0]


def test_every_column_of_json_says_how_much_it_holds(owner: psycopg.Connection) -> None:
    unbounded = """
        select c.relname || '.' || a.attname from pg_attribute a join pg_class c on c.oid = a.attrelid
        where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace and a.atttypid = 'jsonb'::regtype and not exists (
          select from pg_constraint k where k.conrelid = c.oid and k.contype = 'c'
            and pg_get_constraintdef(k.oid) like '%octet_length((' || a.attname || ')%')
    """
    # The archive takes what was bounded before; a batch is cut by the gateway and lives for seconds.
    assert names(owner, unbounded) == {
        "signal_embeddings_archive.label",
        "signal_embeddings_archive.meta",
        "write_batches.rows",
    }


def test_every_foreign_key_has_an_index(owner: psycopg.Connection) -> None:
    unindexed = """
        select k.conrelid::regclass || '.' || k.conname from pg_constraint k
        where k.contype = 'f' and k.connamespace = 'public'::regnamespace and not exists (
          select from pg_index i where i.indrelid = k.conrelid and i.indpred is null
            and (i.indkey::smallint[])[0:array_length(k.conkey, 1) - 1] @> k.conkey)
    """
    assert names(owner, unindexed) == set()
