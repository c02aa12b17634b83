"""`aqf embed`: look at the vector memory, measure whether it helps, watch it drift, and keep texts comparable."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aqf import screen
from aqf.commands.embed_versions import COMMANDS
from aqf.commands.features import load_before_seal, on_dataset
from aqf.commands.research import as_json

if TYPE_CHECKING:
    from aqf.bakeoff import BakeOff, Score


@click.group()
def embed() -> None:
    """Look at windows as vectors, ask whether remembering them helps, watch for drift, and embed texts anew.

    \b
    aqf embed map --symbol AAPL        where a window lies among all, and what followed those like it
    aqf embed bakeoff                  encoders against no memory, walk-forward, with intervals
    """


for command in COMMANDS:
    embed.add_command(command)


@embed.command(name="map", epilog="Example:  aqf embed map --dataset sp500_20 --symbol AAPL --until 2012-06-01 --out map/")
@on_dataset
@click.option("--encoder", default="ts2vec", show_default=True, help="ts2vec, ts2vec_causal, pca or minirocket.")
@click.option("--symbol", default=None, help="Whose window is chosen; the first symbol by default.")
@click.option(
    "--until", type=click.DateTime(["%Y-%m-%d"]), default=None, help="The window is the newest that ends by this day."
)
@click.option("--count", type=click.IntRange(1, 29), default=8, show_default=True, help="Neighbours to show.")
@click.option("--horizon", type=click.IntRange(1, 252), default=21, show_default=True, help="Bars after a window to show.")
@click.option("--stride", type=click.IntRange(1, 252), default=21, show_default=True, help="Bars between two windows.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the pictures and the page; one under AQF_HOME by default.",
)
@as_json
def map_command(
    dataset: str,
    encoder: str,
    symbol: str | None,
    until: datetime | None,
    count: int,
    horizon: int,
    stride: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Draw the windows of a data set in two dimensions, by regime and by date, and a window beside its nearest past ones.

    Windows are of 128 bars before the seal. A neighbour's outcome had ended before the chosen window did.
    """
    from core.settings import Settings
    from core.store import open_store

    settings = Settings.load()
    with screen.working(f"loading {dataset}", quiet=as_json), open_store(settings) as store:
        _, panel = load_before_seal(store, dataset)
    from core.errors import MissingDataError, StoreUnavailableError
    from features.embedding_map import build_map, choose_window
    from features.encoders import get_encoder
    from features.encoders.registry import PRETRAINED
    from features.map_pictures import draw_map, render_map
    from features.windows import rolling_windows, steady_windows

    if symbol is not None and symbol not in panel.symbols:
        raise MissingDataError(f"unknown symbol {symbol!r}; there are {', '.join(panel.symbols)}.")
    last = None if until is None else until.replace(hour=23, minute=59, second=59, tzinfo=UTC)
    member = get_encoder(encoder)
    windows = (steady_windows if encoder == "ts2vec_causal" else rolling_windows)(panel, stride=stride)
    chosen = choose_window(windows, symbol or panel.symbols[0], last)
    with screen.working(f"encoding {len(windows):,} windows with {encoder}, then drawing", quiet=as_json):
        if encoder not in PRETRAINED:
            member.fit(windows.values[windows.end <= windows.end[chosen]])
        shown = build_map(
            panel,
            windows,
            member.encode(windows),
            chosen=chosen,
            count=count,
            horizon=horizon,
            encoder=encoder,
            trained_until=member.trained_until if encoder in PRETRAINED else windows.end_ts[chosen].to_pydatetime(),
        )
        pictures = draw_map(shown)
        page = render_map(shown, pictures)
    name = f"{dataset}-{encoder}-{windows.symbol[chosen]}-{windows.end_ts[chosen]:%Y-%m-%d}"
    folder = out or settings.home / "maps" / "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for picture, content in pictures.items():
            (folder / f"{picture}.png").write_bytes(content)
        (folder / "map.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise StoreUnavailableError(
            f"the map cannot be written to {folder} ({error.strerror}): choose another folder or free space."
        ) from error
    if as_json:
        screen.print_json({**shown.to_dict(), "page": str(folder / "map.html")})
        return
    found = shown.to_dict()
    heads = ("symbol", "window ends", "regime", "cosine", f"return, {horizon} bars")
    rows = [
        (
            row["symbol"],
            row["end"],
            row["regime"],
            f"{row['cosine']:.3f}",
            "n/a" if row["followed"] is None else f"{row['followed']:+.1%}",
        )
        for row in found["neighbours"]
    ]
    title = f"Nearest past windows of {found['chosen']['symbol']}, the 128 bars to {found['chosen']['end']}, by {encoder}"
    screen.print_table(title, heads, rows, right=heads[3:])
    if not rows:
        click.echo("  No earlier window had its outcome by then: not enough history.")
    click.echo(f"Page: {folder / 'map.html'}")


@embed.command(epilog="Example:  aqf embed bakeoff --dataset sp500_20 --encoder pca --encoder ts2vec")
@on_dataset
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    help="Only this one; may be repeated. By default pca, minirocket, ts2vec and ts2vec_causal.",
)
@click.option("--count", type=click.IntRange(2, 500), default=50, show_default=True, help="Neighbours of a forecast.")
@click.option("--horizon", type=click.IntRange(1, 252), default=5, show_default=True, help="Bars of the return to forecast.")
@click.option("--stride", type=click.IntRange(1, 252), default=5, show_default=True, help="Bars between two windows.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of the resamples.")
@as_json
def bakeoff(dataset: str, encoders: tuple[str, ...], count: int, horizon: int, stride: int, seed: int, as_json: bool) -> None:
    """Forecast return and volatility by the nearest past windows, for each encoder, and compare with no memory.

    Walk-forward on the last two fifths of the bars before the seal, with 95 % intervals. Printed whether memory helps or not;
    an encoder whose package is missing is said to be not run.
    """
    from core.settings import Settings
    from core.store import open_store

    with screen.Progress(quiet=as_json, unit="steps") as progress:
        with open_store(Settings.load()) as store:
            _, panel = load_before_seal(store, dataset)
        from aqf.bakeoff import ENCODERS, run_bakeoff

        found = run_bakeoff(
            panel,
            encoders=tuple(dict.fromkeys(encoders)) or ENCODERS,
            k=count,
            horizon=horizon,
            stride=stride,
            seed=seed,
            progress=progress.on_step,
        )
    if as_json:
        screen.print_json(found.to_dict())
    else:
        _print_bakeoff(found)


@embed.command(epilog="Example:  aqf embed drift --dataset sp500_20")
@on_dataset
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of the arrangements.")
@as_json
def drift(dataset: str, seed: int, as_json: bool) -> None:
    """Compare the last two years before the seal with the first three fifths: vectors by energy distance, features by PSI.

    p-values are of arrangements of whole stretches of time. What drifted is a row in `drift_events`, once for the same bars.
    """
    from core.settings import Settings
    from core.store import open_store

    with screen.working(f"comparing the newest bars of {dataset}", quiet=as_json), open_store(Settings.load()) as store:
        from agents.research.drift import EMBEDDINGS, describe_drift, measure_drift, record_drift, watched_features

        stored, panel = load_before_seal(store, dataset)
        found = measure_drift(store.researcher, stored, panel, watched_features(panel.fields), seed=seed)
        new = record_drift(store.service, stored, found, at=datetime.now(UTC))
    if as_json:
        screen.print_json(
            {
                "dataset": dataset,
                "measured": [one.to_dict() for one in found],
                "recorded": [one.name for one in new],
                "sentence": describe_drift(found),
            }
        )
        return
    heads = ("what", "measure", "value", "p", "drifted")
    rows = [
        (
            one.name,
            "energy distance" if one.metric == EMBEDDINGS else "PSI",
            f"{one.value:.3f}",
            f"{one.p_value:.3f}",
            "yes" if one.drifted else "no",
        )
        for one in found
    ]
    if rows:
        screen.print_table(f"Drift of {dataset}", heads, rows, right=("value", "p"))
    click.echo(f"Drift: {describe_drift(found)}.")
    if found and not any(one.metric == EMBEDDINGS for one in found):
        click.echo(
            f"There are no vectors of this data set to compare yet: `aqf embed generate --dataset {dataset}` makes them."
        )


@embed.command(epilog="Example:  aqf embed text --dry-run")
@click.option("--dry-run", is_flag=True, help="Only count the documents of each embedder.")
@as_json
def text(dry_run: bool, as_json: bool) -> None:
    """Embed texts: documents of other embedders anew, and headlines that the knowledge base does not have yet.

    A vector belongs to the embedder whose name is in its row, and searches see those of one alone. After a change of
    AQF_TEXT_EMBEDDER the older documents are not found until this has run. What is done is kept if it is interrupted.
    """
    from core.settings import Settings, StoreKind
    from core.store import open_store
    from core.store.headlines import save_headlines

    with open_store(Settings.load()) as store:
        knowledge = store.knowledge
        name, before = knowledge.embedder.name, knowledge.count_documents()
        others = sum(n for embedder, n in before.items() if embedder != name)
        done = headlines = 0
        if not dry_run:
            with screen.working(f"embedding {others:,} documents of other embedders, and headlines, by {name}", quiet=as_json):
                done = knowledge.reembed()
                if store.kind is not StoreKind.SQLITE:  # files alone hold no headlines
                    headlines = save_headlines(store.trading.gateway, knowledge)
        after = knowledge.count_documents()
    if as_json:
        counts = {"before": before, "reembedded": done, "headlines": headlines, "after": after}
        screen.print_json({"embedder": name, **counts, "dry_run": dry_run})
        return
    heads = ("embedder", "before", "now")
    rows = [(embedder, before.get(embedder, 0), after.get(embedder, 0)) for embedder in sorted({name, *before, *after})]
    screen.print_table(f"Documents by embedder; in force is {name}", heads, rows, right=heads[1:])
    if dry_run:
        click.echo(f"{others:,} documents are of other embedders; without --dry-run they are embedded anew.")
    else:
        click.echo(f"{done:,} documents were embedded anew, {headlines:,} headlines are new or were corrected.")


def _print_bakeoff(found: BakeOff) -> None:
    def show(scores: dict[str, Score] | None, target: str, digits: int) -> str:
        if scores is None:
            return "-"
        score = scores[target]
        return f"{score.value:+.{digits}f} [{score.low:+.{digits}f}, {score.high:+.{digits}f}]"

    settings = found.settings
    heads = ("memory", "return", "less no memory", "volatility", "less no memory ")
    rows = [
        (one.name, *("not run",) * 4)
        if one.not_run is not None
        else (
            one.name,
            show(one.rank_ic, "return", 3),
            show(one.lift, "return", 3),
            show(one.rank_ic, "volatility", 3),
            show(one.lift, "volatility", 3),
        )
        for one in found.contestants
    ]
    title = (
        f"{settings['dataset']}: mean rank IC over {found.n_dates:,} dates from {found.first} to {found.last}, "
        f"{found.n_windows:,} windows; {settings['k']} neighbours, return over {settings['horizon']} bars, volatility over "
        f"{settings['volatility_bars']}; 95 % intervals"
    )
    screen.print_table(title, heads, rows, right=heads[1:])
    for one in found.contestants:
        if one.not_run is not None:
            click.echo(f"  {one.name} was not run: {one.not_run}")
    click.echo(found.sentence)
