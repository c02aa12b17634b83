"""The part of `aqf embed` that keeps the vector memory: fill a version, compare two, switch, prune, restore."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from aqf import screen
from aqf.commands.research import as_json

if TYPE_CHECKING:
    from core.store import Store
    from core.store.records import Dataset

_dataset = click.option("--dataset", default="sp500_20", show_default=True, help="Data set of the store.")


@click.command(epilog="Example:  aqf embed generate --dataset sp500_20 --window 128 --stride 5")
@_dataset
@click.option(
    "--encoder",
    default="ts2vec",
    show_default=True,
    help="auto, ts2vec, ts2vec_causal, minirocket or pca; auto takes ts2vec where it may be used, else pca.",
)
@click.option("--window", type=click.IntRange(2, 10_000), default=128, show_default=True, help="Bars in a window.")
@click.option("--stride", type=click.IntRange(1, 10_000), default=5, show_default=True, help="Bars between windows.")
@click.option("--switch", is_flag=True, help="Switch searches to these windows when they are complete.")
@as_json
def generate(dataset: str, encoder: str, window: int, stride: int, switch: bool, as_json: bool) -> None:
    """Encode the windows of a data set and store what its vector memory lacks; again changes nothing.

    The first version is searched at once. A later one is built beside it: see `aqf embed compare`, then `aqf embed switch`.
    """
    from features.generate_ts2vec_embeddings import run

    run(dataset, encoder=encoder, window=window, stride=stride, switch=switch, as_json=as_json)


@click.command(epilog="Example:  aqf embed versions --dataset sp500_20")
@_dataset
@as_json
def versions(dataset: str, as_json: bool) -> None:
    """List the versions of a data set's vector memory, which of them is searched, and how complete each is."""
    from features.memory import EMB_TYPE

    with _opened(dataset) as (store, found):
        rows = [
            {
                "version": row["emb_version"],
                "status": row["status"],
                "windows": len(store.researcher.list_windows(EMB_TYPE, row["emb_version"])),
                "archived": len(store.researcher.list_windows(EMB_TYPE, row["emb_version"], archived=True)),
                "of": row["n_windows"],
                "trained_until": f"{row['trained_until']:%Y-%m-%d}",
            }
            for row in store.researcher.list_embedding_versions(found, EMB_TYPE)
        ]
    if as_json:
        screen.print_json(rows)
    elif not rows:
        click.echo(f"{dataset} has no vectors yet: `aqf embed generate --dataset {dataset}` makes them.")
    else:
        columns = tuple(rows[0])
        body = [tuple(row.values()) for row in rows]
        screen.print_table(f"Vector memory of {dataset}", columns, body, right=("windows", "archived", "of"))


@click.command(epilog="Example:  aqf embed compare ts2vec_causal-1-bd4a70010b4d-w128-s5-h5-sp500_20-v1")
@click.argument("version")
@click.option("--with", "other", metavar="VERSION", help="Compare with this version instead of the active one.")
@click.option("--k", type=click.IntRange(1, 200), default=10, show_default=True, help="Neighbours of each query.")
@click.option("--queries", type=click.IntRange(30, 100_000), default=1_000, show_default=True, help="Most queries.")
@_dataset
@as_json
def compare(version: str, other: str | None, k: int, queries: int, dataset: str, as_json: bool) -> None:
    """Compare VERSION with the one that is searched: which neighbours both find, and what their outcomes tell."""
    from features.memory import compare_versions

    with _opened(dataset) as (store, found), screen.working("comparing", quiet=as_json):
        first = other or _active(store, found)
        result = compare_versions(store.researcher, found, first, version, k=k, max_queries=queries)
    if as_json:
        screen.print_json(result.to_dict())
        return
    rows = [
        (name, f"{ic:.4f}", f"{lift:+.4f}") for name, ic, lift in zip(result.versions, result.rank_ic, result.lift, strict=True)
    ]
    screen.print_table("", ("version", "rank IC of the neighbours' mean return", "lift"), rows)
    click.echo(
        f"{result.overlap:.1%} of the {k} nearest neighbours are the same (by chance {result.chance_overlap:.1%}), over "
        f"{result.n_queries:,} of {result.n_common:,} windows that both have.\nLift is over {k} random "
        f"earlier windows, whose rank IC is {result.random_ic:.4f} with a spread of {result.random_spread:.4f}: less than "
        "twice that is nothing."
    )


@click.command(epilog="Example:  aqf embed switch ts2vec_causal-1-bd4a70010b4d-w128-s5-h5-sp500_20-v1")
@click.argument("version")
@_dataset
@as_json
def switch(version: str, dataset: str, as_json: bool) -> None:
    """Let searches use VERSION from now on; one that is not complete is refused, and the one before can be switched back to."""
    from features.memory import switch_version

    with _opened(dataset) as (store, found):
        before = switch_version(store.researcher, found, version)
    if as_json:
        screen.print_json({"active": version, "before": before})
    else:
        click.echo(f"searches use {version}" + ("" if before in (None, version) else f"; before, {before}"))


@click.command(epilog="Example:  aqf embed prune --max-age-days 5475 --min-t-stat 1 --apply")
@_dataset
@click.option("--max-age-days", type=click.IntRange(0, 36_500), default=5_475, show_default=True, help="Older ones are old.")
@click.option("--min-t-stat", type=click.FloatRange(0, 100), default=1.0, show_default=True, help="Smaller outcomes are weak.")
@click.option(
    "--regime-diversity", type=click.IntRange(1), default=25, show_default=True, help="Windows of a regime that always stay."
)
@click.option("--apply", is_flag=True, help="Archive them; without it they are only counted.")
@as_json
def prune(dataset: str, max_age_days: int, min_t_stat: float, regime_diversity: int, apply: bool, as_json: bool) -> None:
    """Count, or archive, the windows that are both old and weak. `aqf embed restore` brings them back."""
    with _opened(dataset) as (store, found):
        result = store.researcher.prune_vectors(
            found,
            max_age_days=max_age_days,
            min_t_stat=min_t_stat,
            regime_diversity=regime_diversity,
            asset_universe=found.symbols,
            dry_run=not apply,
        )
    if as_json:
        screen.print_json(dict(result))
    else:
        did = "archived" if apply else "would be archived; `--apply` does it"
        click.echo(f"{result['selected']:,} of {result['examined']:,} windows {did}")


@click.command(epilog="Example:  aqf embed restore --dataset sp500_20")
@_dataset
@as_json
def restore(dataset: str, as_json: bool) -> None:
    """Bring every archived window of a data set back as it was."""
    with _opened(dataset) as (store, found):
        count = store.service.restore_vectors(store.service.list_archived(found))
    if as_json:
        screen.print_json({"restored": count})
    else:
        click.echo(f"{count:,} windows came back from the archive")


COMMANDS: tuple[click.Command, ...] = (generate, versions, compare, switch, prune, restore)
"""For the group `aqf embed`."""


@contextmanager
def _opened(name: str) -> Iterator[tuple[Store, Dataset]]:
    from core.settings import Settings
    from core.store import open_store
    from core.store.packaged import ensure_dataset

    with open_store(Settings.load()) as store:
        yield store, ensure_dataset(store, name)


def _active(store: Store, dataset: Dataset) -> Any:
    from core.errors import MissingDataError
    from features.memory import EMB_TYPE

    active = store.researcher.active_embedding_version(dataset, EMB_TYPE)
    if active is None:
        raise MissingDataError(f"no version of {dataset.name} is searched yet: name the other one with --with.")
    return active["emb_version"]
