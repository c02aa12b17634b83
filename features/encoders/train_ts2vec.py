"""Train a TS2Vec encoder on a packaged data set: ``python -m features.encoders.train_ts2vec --dataset sp500_20``.

It learns from the windows that end within the first `--fraction` of the bars before the seal, so that the years up to the seal
remain to judge it by. Fixed seeds and one thread give the same file on the same kind of machine. An interrupted training goes
on where it was.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from threadpoolctl import threadpool_limits

from core.errors import AQFError
from core.market import load_dataset
from core.market.panel import Panel
from core.store.research import DEFAULT_SEALED_FRACTION
from features.encoders.causal import CausalTS2VecEncoder
from features.encoders.contrastive import TrainingRound, TS2VecSettings, import_torch
from features.encoders.ts2vec import TS2VecEncoder
from features.memory.plan import TRAINED_FRACTION
from features.windows import Windows, rolling_windows, steady_windows


def cut_training_windows(panel: Panel, *, window: int, stride: int, fraction: float, steady: bool) -> Windows:
    """Return the windows that end within the first `fraction` of the bars before the seal.

    Parameters
    ----------
    panel : Panel
        All bars of a data set; the last fifth is taken as sealed.
    window, stride : int
        In bars.
    fraction : float
        Share of the bars before the seal.
    steady : bool
        Cut `steady_windows` instead of `rolling_windows`.
    """
    visible = int(panel.n_bars * (1 - DEFAULT_SEALED_FRACTION))
    known = panel.slice(stop=int(visible * fraction))
    return (steady_windows if steady else rolling_windows)(known, window=window, stride=stride)


@click.command(context_settings={"show_default": True}, epilog="Example:  --dataset sp500_20 --out ts2vec-sp500_20.encoder")
@click.option("--dataset", default="sp500_20", help="A packaged data set.")
@click.option("--window", default=128, type=click.IntRange(8), help="Bars in a window.")
@click.option("--stride", default=5, type=click.IntRange(1), help="Bars between windows.")
@click.option("--fraction", default=TRAINED_FRACTION, type=click.FloatRange(0.05, 1.0), help="Of the bars before the seal.")
@click.option("--causal", is_flag=True, help="Train the encoder that can stream.")
@click.option("--hidden", default=64, type=click.IntRange(1), help="Width of the network.")
@click.option("--depth", type=click.IntRange(1), help="Hidden blocks.  [default: 10, causal 4]")
@click.option("--iterations", default=1_000, type=click.IntRange(1), help="Most batches to learn from.")
@click.option("--patience", default=6, type=click.IntRange(1), help="Rounds of 50 batches without a lower loss.")
@click.option("--seed", default=0, help="Of everything random.")
@click.option("--threads", default=1, type=click.IntRange(1), help="Threads of torch and BLAS; part of what must be equal.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
def main(
    dataset: str,
    window: int,
    stride: int,
    fraction: float,
    causal: bool,
    hidden: int,
    depth: int | None,
    iterations: int,
    patience: int,
    seed: int,
    threads: int,
    out: Path | None,
) -> None:
    """Train a TS2Vec encoder on the first years of a data set and write it to a file."""
    console = Console(stderr=True)
    settings = TS2VecSettings(
        hidden=hidden, depth=depth or (4 if causal else 10), iterations=iterations, patience=patience, seed=seed
    )
    encoder = CausalTS2VecEncoder(settings) if causal else TS2VecEncoder(settings)
    path = out or Path(f"{encoder.name}-{dataset}.encoder")
    checkpoint = path.with_name(path.name + ".checkpoint")
    try:
        import_torch().set_num_threads(threads)
        panel = load_dataset(dataset)
        windows = cut_training_windows(panel, window=window, stride=stride, fraction=fraction, steady=causal)
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.4f}"))
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            task = progress.add_task("training", total=iterations, loss=float("nan"))

            def show(said: TrainingRound) -> None:
                progress.update(task, completed=said.iteration, loss=said.loss)

            with threadpool_limits(threads):
                encoder.fit(windows, checkpoint=checkpoint, on_round=show)
        encoder.save(path)
    except AQFError as error:
        console.print(f"[red]{error}[/red]")
        raise SystemExit(1) from error
    checkpoint.unlink(missing_ok=True)
    trained_until = encoder.trained_until
    click.echo(f"{path}: {path.stat().st_size:,} bytes, sha256 {encoder.sha256}")
    click.echo(f"{len(windows):,} windows until {trained_until:%Y-%m-%d}; settings {dataclasses.asdict(settings)}")
    click.echo(f"mean loss of each round: {', '.join(f'{loss:.3f}' for loss in encoder.losses)}")


if __name__ == "__main__":
    main()
