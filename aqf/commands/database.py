"""`aqf db`: the database behind everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aqf import screen
from aqf.commands.research import as_json


@click.group()
def db() -> None:
    """Start, stop, migrate and look at the database."""


@db.command(epilog='Example:  aqf db up && psql "$(aqf db url)"')
def up() -> None:
    """Start the embedded database and leave it running until `aqf db down`."""
    from core.settings import Settings, StoreKind
    from core.store import open_store

    settings = Settings.load()
    if settings.store_kind is StoreKind.SQLITE:
        raise click.UsageError("AQF_STORE=sqlite does without a database: there is nothing to start.")
    if settings.store_kind is not StoreKind.EMBEDDED:
        raise click.UsageError("the settings name a database of your own: there is nothing to start.")
    with open_store(settings.model_copy(update={"keep_server": True})) as store:
        click.echo(store.conninfo)


@db.command(epilog="Example:  aqf db down")
def down() -> None:
    """Stop the embedded database, whoever uses it."""
    from core.settings import Settings
    from core.store.opening import embedded_server

    stopped = embedded_server(Settings.load()).stop_for_all()
    click.echo("stopped" if stopped else "it was not running")


@db.command(epilog="Example:  aqf db migrate")
@as_json
def migrate(as_json: bool) -> None:
    """Bring the schema up to date; opening the store does the same."""
    from core.settings import Settings
    from core.store import open_store

    with open_store(Settings.load()) as store:
        if as_json:
            screen.print_json({"applied": store.migrated})
        else:
            click.echo(f"applied {', '.join(store.migrated)}" if store.migrated else "the schema is up to date")


@db.command(epilog='Example:  psql "$(aqf db url)"')
def url() -> None:
    """Print the connection string of the running database."""
    from core.errors import ConfigurationError, StoreUnavailableError
    from core.settings import Settings, StoreKind
    from core.store.opening import embedded_server

    settings = Settings.load()
    if settings.store_kind is StoreKind.DATABASE_URL:
        click.echo(settings.require_database_url())
        return
    if settings.store_kind is StoreKind.SUPABASE:
        if settings.supabase_db_url is None:
            raise ConfigurationError("SUPABASE_DB_URL is not set: the address of a project alone is no connection string.")
        click.echo(settings.supabase_db_url.get_secret_value())
        return
    if settings.store_kind is StoreKind.SQLITE:
        raise ConfigurationError("AQF_STORE=sqlite does without a database: there is no connection string.")
    conninfo = embedded_server(settings).conninfo()
    if conninfo is None:
        raise StoreUnavailableError("the embedded database is not running: `aqf db up` starts it.")
    click.echo(conninfo)


@db.command(epilog="Example:  aqf db status")
@as_json
def status(as_json: bool) -> None:
    """Show migrations, sizes, rows, indexes and slow statements."""
    from core.settings import Settings
    from core.store import open_store
    from core.store.migrations import load_migrations

    with open_store(Settings.load()) as store:
        call = store.service.gateway.rpc
        summary = call("store_summary")[0]
        found: dict[str, Any] = {
            "store": str(store.kind),
            "size": summary["database_size"],
            "migrations": summary["migrations"],
            "pending": [item.version for item in load_migrations() if item.version not in summary["migrations"]],
            "tables": call("store_status"),
            "indexes": call("store_indexes"),
            "slow_statements": call("store_slow_statements", p_limit=10),
        }
    if as_json:
        screen.print_json(found)
        return
    click.echo(f"{found['size']}, {len(found['migrations'])} migrations, the newest {found['migrations'][-1]}")
    screen.print_table(
        "Tables",
        ("table", "rows", "size"),
        [[row["table_name"], row["n_rows"], row["size"]] for row in found["tables"]],
        right=("rows", "size"),
    )
    screen.print_table(
        "Indexes",
        ("index", "table", "size", "scans", "sound"),
        [
            [row["index_name"], row["table_name"], row["size"], row["n_scans"], "yes" if row["is_valid"] else "NO: reindex it"]
            for row in found["indexes"]
        ],
        right=("size", "scans"),
    )
    if found["slow_statements"]:
        screen.print_table(
            "Slow statements",
            ("calls", "mean ms", "total ms", "statement"),
            [
                [row["calls"], f"{row['mean_ms']:.1f}", f"{row['total_ms']:.0f}", row["statement"]]
                for row in found["slow_statements"]
            ],
            right=("calls", "mean ms", "total ms"),
        )


_FILE = click.Path(dir_okay=False, path_type=Path)


@db.command(epilog="Example:  aqf db backup monday.aqf")
@click.argument("file", type=_FILE)
@as_json
def backup(file: Path, as_json: bool) -> None:
    """Write the whole database to FILE, and try it by restoring it beside."""
    from core.settings import Settings
    from core.store import open_store
    from core.store.backup import back_up

    settings = Settings.load()
    with open_store(settings) as store:
        manifest = back_up(store, settings, file)
    if as_json:
        screen.print_json({"file": str(file), **manifest.to_dict()})
    else:
        click.echo(f"{file}: {manifest.n_rows:,} rows of {len(manifest.rows)} tables, schema {manifest.schema_version}")


@db.command(epilog="Example:  aqf db restore monday.aqf")
@click.argument("file", type=_FILE)
@as_json
def restore(file: Path, as_json: bool) -> None:
    """Put FILE in the place of the embedded database, once it has been restored beside and checked."""
    from core.settings import Settings
    from core.store import open_store
    from core.store.backup import restore as restore_backup

    settings = Settings.load()
    manifest, kept = restore_backup(settings, file)
    with open_store(settings):  # an older backup is brought up to date
        pass
    if as_json:
        screen.print_json({"file": str(file), "kept": kept, **manifest.to_dict()})
    else:
        click.echo(f"restored {manifest.n_rows:,} rows of {manifest.created_at}; what was there before is the database {kept}")
