"""`aqf data`: what data there is, and how to bring one's own."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aqf import screen
from aqf.commands.research import as_json

if TYPE_CHECKING:
    from core.store.records import Dataset


@click.group()
def data() -> None:
    """List data sets, load one that ships with a package, or import your own."""


@data.command(name="list", epilog="Example:  aqf data list")
@as_json
def list_command(as_json: bool) -> None:
    """List what is in the store and what ships with installed packages."""
    from core.market import list_datasets
    from core.settings import Settings
    from core.store import open_store

    with open_store(Settings.load()) as store:
        stored = [_describe(dataset) for dataset in store.service.list_datasets()]
    names = {row["name"] for row in stored}
    packaged = [
        {"name": info.name, "source": info.source, "description": info.description}
        for info in list_datasets()
        if info.name not in names
    ]
    if as_json:
        screen.print_json({"stored": stored, "packaged": packaged})
        return
    columns = ("name", "version", "symbols", "bars", "first", "last", "sealed_from", "source")
    screen.print_table(
        "In the store", columns, [[row[column] for column in columns] for row in stored], right=("bars", "symbols")
    )
    screen.print_table(
        "In installed packages, loaded on first use",
        ("name", "description"),
        [[row["name"], row["description"]] for row in packaged],
    )


@data.command(epilog="Example:  aqf data load vix")
@click.argument("name")
@as_json
def load(name: str, as_json: bool) -> None:
    """Load NAME, a data set that ships with an installed package, into the store."""
    from core.settings import Settings
    from core.store import open_store
    from core.store.packaged import ensure_dataset

    with open_store(Settings.load()) as store:
        _report_dataset(ensure_dataset(store, name), as_json)


def _check_name(context: click.Context, parameter: click.Parameter, name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
        raise click.BadParameter(
            f"must be 1 to 100 letters, digits, `_`, `.` and `-`, the first a letter or digit, was {name!r}."
        )
    return name


@data.command(name="import", epilog="Example:  aqf data import prices.csv --name mine --sealed-from 2022-01-01")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", required=True, callback=_check_name, help="Name of the data set.")
@click.option(
    "--sealed-from",
    type=click.DateTime(["%Y-%m-%d"]),
    help="First day of the hold-out; by default the last 20 % of the bars are sealed.",
)
@click.option("--not-tradable", is_flag=True, help="Nobody can hold these (an index, a rate): nothing is promoted on them.")
@as_json
def import_command(file: Path, name: str, sealed_from: datetime | None, not_tradable: bool, as_json: bool) -> None:
    """Import FILE, a CSV or Parquet in the long form symbol,ts,open,high,low,close,volume.

    Only symbol, ts and close are needed. Importing the same file again changes nothing; other prices under the same name
    become its next version. The hold-out cannot be moved once it is set.
    """
    from core.market import read_bars
    from core.settings import Settings
    from core.store import open_store

    panel = read_bars(file)
    with open_store(Settings.load()) as store:
        seal = None if sealed_from is None else sealed_from.replace(tzinfo=UTC)
        _report_dataset(
            store.service.import_dataset(
                panel, name=name, source=f"file {file.name}", sealed_from=seal, tradable=not not_tradable
            ),
            as_json,
        )


def _report_dataset(dataset: Dataset, as_json: bool) -> None:
    row = _describe(dataset)
    if as_json:
        screen.print_json(row)
    else:
        click.echo(
            f"{row['name']} version {row['version']}: {row['bars']} bars x {row['symbols']} symbols, "
            f"{row['first']} to {row['last']}, sealed from {row['sealed_from']}"
        )


def _describe(dataset: Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "version": dataset.version,
        "symbols": len(dataset.symbols),
        "bars": dataset.n_bars,
        "first": f"{dataset.first_ts:%Y-%m-%d}",
        "last": f"{dataset.last_ts:%Y-%m-%d}",
        "sealed_from": f"{dataset.sealed_from:%Y-%m-%d}",
        "source": dataset.source,
        "dataset_id": str(dataset.dataset_id),
        "content_sha256": dataset.content_sha256,
        "caveats": list(dataset.caveats),
    }
