"""Fill the vector memory of a data set: ``python -m features.generate_ts2vec_embeddings --dataset sp500_20``.

Cuts the bars before the seal into windows, encodes them, and stores each with its regime, what followed it and where it comes
from. What is there already is left alone: an interrupted run goes on where it was, and one that has nothing to do says so.
"""

from __future__ import annotations

import json
import time

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from core.errors import AQFError
from core.settings import Settings
from core.store import open_store
from core.store.opening import Store
from core.store.packaged import ensure_dataset
from features.encoders.registry import ENCODERS
from features.memory import MemorySpec, Refreshed, refresh_memory
from features.memory.refresh import OnProgress


def generate_embeddings(
    store: Store,
    dataset: str,
    *,
    encoder: str = "ts2vec",
    window: int = 128,
    stride: int = 5,
    switch: bool = False,
    on_progress: OnProgress | None = None,
) -> Refreshed:
    """Encode the windows of a data set that its memory lacks, and store them.

    Parameters
    ----------
    store : Store
    dataset : str
        One of the store, or one that ships with an installed package.
    encoder : str, default="ts2vec"
        A name that `get_encoder` knows, or ``"auto"``; see `MemorySpec`.
    window, stride : int, default=128, 5
        Bars in a window, and between the starts of two.
    switch : bool, default=False
        Switch searches to these windows; without it only if nothing is searched yet.
    on_progress : callable, optional
        Called with windows stored and to store.

    Returns
    -------
    Refreshed

    Raises
    ------
    DataError, ConfigurationError, StoreError
        As `refresh_memory` does; MissingDataError also if there is no such data set.
    """
    spec = MemorySpec(encoder=encoder, window=window, stride=stride)
    return refresh_memory(store.researcher, ensure_dataset(store, dataset), spec, switch=switch, on_progress=on_progress)


def describe(refreshed: Refreshed, seconds: float) -> str:
    """Say in a few lines what a refresh did."""
    if refreshed.written:
        did = f"{refreshed.written:,} windows were encoded and stored in {seconds:.1f} s"
    else:
        did = "nothing was missing, nothing was changed"
    standing = {
        "active": "searches use it",
        "building": "searches use another version until they are switched",
        "retired": "searches use a later version",
    }[refreshed.status]
    return (
        f"{refreshed.emb_version}: {did}.\n"
        f"  {refreshed.windows:,} windows up to {refreshed.newest[:10]}, {refreshed.in_sample:,} of all in the sample of the "
        f"encoder (until {refreshed.trained_until[:10]}), {refreshed.archived:,} archived, {refreshed.left_out:,} left out for "
        f"missing or constant prices.\n  Status {refreshed.status}: {standing}."
    )


@click.command(
    context_settings={"show_default": True, "max_content_width": 120},
    epilog="Example:  python -m features.generate_ts2vec_embeddings --dataset sp500_20 --window 128 --stride 5",
)
@click.option("--dataset", default="sp500_20", help="Data set of the store, or one that ships with a package.")
@click.option("--encoder", type=click.Choice(["auto", *sorted(ENCODERS)]), default="ts2vec", help="What encodes.")
@click.option("--window", default=128, type=click.IntRange(2, 10_000), help="Bars in a window.")
@click.option("--stride", default=5, type=click.IntRange(1, 10_000), help="Bars between windows.")
@click.option("--switch", is_flag=True, help="Switch searches to these windows when they are complete.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def main(dataset: str, encoder: str, window: int, stride: int, switch: bool, as_json: bool) -> None:
    """Encode the windows of a data set and store what its vector memory lacks."""
    try:
        run(dataset, encoder=encoder, window=window, stride=stride, switch=switch, as_json=as_json)
    except AQFError as error:
        click.echo(f"generate_ts2vec_embeddings: {error}", err=True)
        raise SystemExit(1) from error


def run(dataset: str, *, encoder: str, window: int, stride: int, switch: bool, as_json: bool) -> None:
    """Do what the command does: open the store of the environment, show progress, say what was done.

    Raises
    ------
    AQFError
        As `generate_embeddings` and `open_store` do.
    """
    console = Console(stderr=True)
    columns = (TextColumn("encoding"), BarColumn(), MofNCompleteColumn(), TextColumn("windows"), TimeRemainingColumn())
    started = time.perf_counter()
    quiet = as_json or not console.is_terminal
    with (
        open_store(Settings.load()) as store,
        Progress(*columns, console=console, disable=quiet, transient=True) as progress,
    ):
        task = progress.add_task("encoding", total=None)
        refreshed = generate_embeddings(
            store,
            dataset,
            encoder=encoder,
            window=window,
            stride=stride,
            switch=switch,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    seconds = time.perf_counter() - started
    if as_json:
        click.echo(json.dumps({**refreshed.to_dict(), "dataset": dataset, "seconds": round(seconds, 3)}, indent=2))
    else:
        click.echo(describe(refreshed, seconds))


if __name__ == "__main__":
    main()
