"""`aqf db`: the database behind everything."""

from __future__ import annotations

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
    if settings.store_kind is not StoreKind.EMBEDDED:
        raise click.UsageError("AQF_DATABASE_URL names a database of your own: there is nothing to start.")
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
    from core.errors import StoreUnavailableError
    from core.settings import Settings, StoreKind
    from core.store.opening import embedded_server

    settings = Settings.load()
    if settings.store_kind is StoreKind.DATABASE_URL and settings.database_url is not None:
        click.echo(settings.database_url.get_secret_value())
        return
    conninfo = embedded_server(settings).conninfo()
    if conninfo is None:
        raise StoreUnavailableError("the embedded database is not running: `aqf db up` starts it.")
    click.echo(conninfo)


@db.command(epilog="Example:  aqf db status")
@as_json
def status(as_json: bool) -> None:
    """Show the schema's version and the number of rows in each table."""
    from core.settings import Settings
    from core.store import open_store

    with open_store(Settings.load()) as store:
        rows: list[dict[str, Any]] = store.service.gateway.rpc("store_status")
    if as_json:
        screen.print_json(rows)
    else:
        screen.print_table(
            "Tables",
            ("table", "rows", "size"),
            [[row["table_name"], row["n_rows"], row["size"]] for row in rows],
            right=("rows", "size"),
        )
