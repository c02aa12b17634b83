"""Applies `supabase/migrations` in order, forward only.

Promises that a migration runs once, whole or not at all, and that two processes migrating at the same time do not meet.
What was applied is kept where the Supabase CLI keeps it (`supabase_migrations.schema_migrations`), so that both tools
agree about a database.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import psycopg

from core.errors import ConfigurationError, StoreError
from core.store.postgres import translated_errors

_NAME = re.compile(r"^(\d{14})_([a-z0-9_]+)\.sql$")
_CHECKOUT_FOLDER = Path(__file__).resolve().parents[2] / "supabase" / "migrations"
_BUNDLED_FOLDER = Path(__file__).resolve().parent / "migrations_bundled"
_LOCK_KEY = 4_251_977_001


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One file of SQL."""

    version: str
    name: str
    statements: str


def load_migrations(folder: Path | None = None) -> tuple[Migration, ...]:
    """Read the migrations in order.

    Raises
    ------
    ConfigurationError
        If there is none, a file is misnamed, or two share a version.
    """
    folder = folder or (_CHECKOUT_FOLDER if _CHECKOUT_FOLDER.is_dir() else _BUNDLED_FOLDER)
    migrations = []
    for path in sorted(folder.glob("*.sql")):
        match = _NAME.match(path.name)
        if match is None:
            raise ConfigurationError(f"a migration is named <14 digits>_<verb_object>.sql, found {path.name}.")
        migrations.append(Migration(version=match[1], name=match[2], statements=path.read_text(encoding="utf-8")))
    if not migrations:
        raise ConfigurationError(f"there are no migrations in {folder}: the installation is incomplete.")
    if len({migration.version for migration in migrations}) != len(migrations):
        raise ConfigurationError("two migrations share a version.")
    return tuple(migrations)


def apply_migrations(conninfo: str, migrations: tuple[Migration, ...] | None = None) -> list[str]:
    """Bring a database up to date.

    Returns
    -------
    list of str
        Versions applied by this call; empty when there was nothing to do.

    Raises
    ------
    StoreError
        If a migration fails; nothing of it remains.
    """
    migrations = migrations or load_migrations()
    applied: list[str] = []
    with (
        translated_errors(),
        psycopg.connect(conninfo, autocommit=True, options="-c client_min_messages=warning") as connection,
    ):
        connection.execute("select pg_advisory_lock(%s)", [_LOCK_KEY])
        connection.execute("create schema if not exists supabase_migrations")
        connection.execute(
            "create table if not exists supabase_migrations.schema_migrations "
            "(version text primary key, statements text[], name text)"
        )
        done = {version for (version,) in connection.execute("select version from supabase_migrations.schema_migrations")}
        for migration in migrations:
            if migration.version in done:
                continue
            try:
                with connection.transaction():
                    connection.execute(migration.statements)  # type: ignore[call-overload]
                    connection.execute(
                        "insert into supabase_migrations.schema_migrations (version, statements, name) values (%s, %s, %s)",
                        [migration.version, [migration.statements], migration.name],
                    )
            except psycopg.Error as error:
                raise StoreError(
                    f"migration {migration.version}_{migration.name} failed, nothing of it was kept: {error}"
                ) from error
            applied.append(migration.version)
    return applied


def pending_migrations(conninfo: str) -> list[str]:
    """Return the versions a database still lacks."""
    with translated_errors(), psycopg.connect(conninfo) as connection:
        row = connection.execute("select to_regclass('supabase_migrations.schema_migrations') is not null").fetchone()
        done = set()
        if row is not None and row[0]:
            done = {version for (version,) in connection.execute("select version from supabase_migrations.schema_migrations")}
    return [migration.version for migration in load_migrations() if migration.version not in done]
