"""Backups of the whole database: written from one moment, and believed only after they were restored beside it.

A backup is a tar file of a manifest and a dump of Postgres's own. Promises that the counts in the manifest and the dump are of
the same snapshot, that a file is whole or absent, and that a restore changes nothing until a second database made from the file
has the same rows and an intact ledger; then the two change places in one transaction, and the one before stays under another
name.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from core.errors import ConfigurationError, MissingDataError, StoreConflictError, StoreError, StoreUnavailableError
from core.settings import Settings, StoreKind
from core.store.embedded import EmbeddedPostgres
from core.store.migrations import apply_migrations, load_migrations
from core.store.opening import Store, embedded_server
from core.store.postgres import translated_errors

_FORMAT = 1
_KEPT_PREFIX = "before_restore_"
_TABLES = (
    "select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind = 'r' "
    "and n.nspname not like 'pg\\_%' and n.nspname <> 'information_schema' order by 1, 2"
)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a backup holds: rows of each table, and of which release's schema."""

    format: int
    created_at: str
    postgres: str
    schema_version: str
    rows: Mapping[str, int]

    @property
    def n_rows(self) -> int:
        """Rows of all tables together."""
        return sum(self.rows.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as JSON carries it."""
        return {**asdict(self), "n_rows": self.n_rows}


def back_up(store: Store, settings: Settings, file: Path) -> Manifest:
    """Write the database of an open store to a file.

    Raises
    ------
    ConfigurationError
        If the store has no connection string.
    StoreUnavailableError
        If the file cannot be written.
    StoreError
        If the dump fails; or on the embedded server, if it does not restore to the same rows.
    """
    server = embedded_server(settings)
    conninfo = store.require_conninfo()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".aqf-backup-", dir=file.parent) as folder:
            dump = Path(folder) / "database.dump"
            manifest = _dump(conninfo, server, dump)
            if settings.store_kind is StoreKind.EMBEDDED:
                with _second_database(conninfo) as second:
                    _restore_into(second, server, dump, manifest)
            partial = Path(folder) / "backup"
            described = Path(folder) / "manifest.json"
            described.write_text(json.dumps(asdict(manifest)))
            with tarfile.open(partial, "w") as archive:
                archive.add(described, "manifest.json")
                archive.add(dump, "database.dump")
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            partial.replace(file)
    except OSError as error:
        raise StoreUnavailableError(
            f"the backup {file} cannot be written ({error.strerror}): free space, or another place."
        ) from error
    return manifest


def restore(settings: Settings, file: Path) -> tuple[Manifest, str]:
    """Put a backup in the place of the embedded database.

    Returns
    -------
    tuple of Manifest and str
        What was restored, and the name under which the database before it is kept until the next restore.

    Raises
    ------
    ConfigurationError
        If the settings choose another database than the embedded one.
    MissingDataError
        If the file is not there, is no backup, or is of a later release.
    StoreConflictError
        If somebody uses the database.
    StoreError
        If what the file holds is not what it says; nothing was changed.
    """
    if settings.store_kind is not StoreKind.EMBEDDED:
        raise ConfigurationError(
            "only the embedded database is restored here: `tar xf` the file and use pg_restore on your own."
        )
    server = embedded_server(settings)
    with tempfile.TemporaryDirectory(prefix="aqf-restore-") as folder:
        manifest, dump = _unpack(file, Path(folder))
        conninfo = server.start()
        try:
            apply_migrations(conninfo)  # a server that never was has no roles yet
            with _second_database(conninfo) as second:
                _restore_into(second, server, dump, manifest)
                kept = _exchange(conninfo, second)
        finally:
            server.stop()
    return manifest, kept


def _dump(conninfo: str, server: EmbeddedPostgres, dump: Path) -> Manifest:
    with translated_errors(), psycopg.connect(conninfo) as connection:
        connection.execute("set transaction isolation level repeatable read, read only")
        snapshot = connection.execute("select pg_export_snapshot()").fetchone()
        version = connection.execute(
            "select current_setting('server_version'), max(version) from supabase_migrations.schema_migrations"
        ).fetchone()
        assert snapshot is not None
        assert version is not None
        manifest = Manifest(
            format=_FORMAT,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            postgres=version[0],
            schema_version=version[1],
            rows=_count_rows(connection),
        )
        _run(server, "pg_dump", conninfo, "--format=custom", f"--snapshot={snapshot[0]}", f"--file={dump}")
    return manifest


def _count_rows(connection: psycopg.Connection[Any]) -> dict[str, int]:
    counts = {}
    for schema, table in connection.execute(_TABLES).fetchall():
        row = connection.execute(
            sql.SQL("select count(*) from {}.{}").format(sql.Identifier(schema), sql.Identifier(table))
        ).fetchone()
        counts[f"{schema}.{table}"] = 0 if row is None else int(row[0])
    return counts


def _unpack(file: Path, folder: Path) -> tuple[Manifest, Path]:
    try:
        with tarfile.open(file, "r:") as archive:
            for name in ("manifest.json", "database.dump"):
                archive.extract(name, folder, filter="data")
        manifest = Manifest(**json.loads((folder / "manifest.json").read_text()))
    except FileNotFoundError:
        raise MissingDataError(f"there is no backup {file}.") from None
    except (tarfile.TarError, KeyError, TypeError, ValueError, OSError) as error:
        raise MissingDataError(f"{file} is not a whole backup of `aqf db backup` ({error}).") from error
    newest = load_migrations()[-1].version
    if manifest.format != _FORMAT or manifest.schema_version > newest:
        raise MissingDataError(
            f"{file} is of a later release (schema {manifest.schema_version}, here {newest}): update the installation first."
        )
    return manifest, folder / "database.dump"


@contextmanager
def _second_database(conninfo: str) -> Iterator[str]:
    """Lend an empty database of the same server; it goes again unless it was renamed."""
    name = f"aqf_second_{secrets.token_hex(4)}"
    with translated_errors(), psycopg.connect(_beside(conninfo), autocommit=True) as connection:
        connection.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
    try:
        yield make_conninfo(conninfo, dbname=name)
    finally:
        with translated_errors(), psycopg.connect(_beside(conninfo), autocommit=True) as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def _restore_into(second: str, server: EmbeddedPostgres, dump: Path, manifest: Manifest) -> None:
    """Restore a dump and compare it with its manifest."""
    _run(server, "pg_restore", second, "--single-transaction", "--exit-on-error", str(dump))
    with translated_errors(), psycopg.connect(second, autocommit=True) as connection:
        found = _count_rows(connection)
        if found != manifest.rows:
            table = next(name for name in {**found, **manifest.rows} if found.get(name) != manifest.rows.get(name))
            raise StoreError(
                f"the backup is not what it says: {table} should have {manifest.rows.get(table)} rows, has {found.get(table)}; "
                "nothing was changed."
            )
        damaged = connection.execute("select trial_id, problem from public.verify_trials()").fetchall()
        if damaged:
            raise StoreError(
                f"the backup's ledger was tampered with: trial {damaged[0][0]} {damaged[0][1]}; nothing was changed."
            )


def _exchange(conninfo: str, second: str) -> str:
    """Give the second database the name of the first, in one transaction; return the name the first has now."""
    name, new = str(conninfo_to_dict(conninfo)["dbname"]), str(conninfo_to_dict(second)["dbname"])
    kept = f"{_KEPT_PREFIX}{datetime.now(UTC):%Y%m%d%H%M%S%f}"
    with translated_errors(), psycopg.connect(_beside(conninfo), autocommit=True) as connection:
        users = connection.execute(
            "select count(*) from pg_stat_activity where datname = %s and backend_type = 'client backend'", [name]
        ).fetchone()
        if users is not None and users[0]:
            raise StoreConflictError(
                f"{users[0]} connections use the database: end the other `aqf` commands and run this one again."
            )
        older = connection.execute("select datname from pg_database where starts_with(datname, %s)", [_KEPT_PREFIX]).fetchall()
        rename = sql.SQL("alter database {} rename to {}")
        with connection.transaction():
            connection.execute(rename.format(sql.Identifier(name), sql.Identifier(kept)))
            connection.execute(rename.format(sql.Identifier(new), sql.Identifier(name)))
        for (old,) in older:
            with suppress(psycopg.errors.ObjectInUse):
                connection.execute(sql.SQL("drop database {}").format(sql.Identifier(old)))
    return kept


def _beside(conninfo: str) -> str:
    """Return a way to the server that uses no database of ours."""
    return make_conninfo(conninfo, dbname="template1")


def _run(server: EmbeddedPostgres, tool: str, conninfo: str, *arguments: str) -> None:
    """Run a program of the server's; the connection string, which may hold a password, goes by the environment."""
    keywords = {
        "host": "PGHOST",
        "port": "PGPORT",
        "user": "PGUSER",
        "password": "PGPASSWORD",
        "dbname": "PGDATABASE",
        "sslmode": "PGSSLMODE",
        "sslrootcert": "PGSSLROOTCERT",
    }
    parts = conninfo_to_dict(conninfo)
    environment = {variable: str(parts[keyword]) for keyword, variable in keywords.items() if keyword in parts}
    command = [str(server.tool(tool)), "--no-password", *arguments]
    if tool == "pg_restore":
        command.insert(1, f"--dbname={parts['dbname']}")
    done = subprocess.run(
        command,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = (
            [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["it did not say why"]
        )
        raise StoreError(f"{tool} failed: {lines[0].strip()}")
