"""The command line of every use case: through the planner, or bar by bar through the trading agents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from core.errors import AQFError

if TYPE_CHECKING:
    from use_cases.base import StrategyUseCase
    from use_cases.simulation import SimulationPlan

_DATE = click.DateTime(["%Y-%m-%d"])


def build_command(build: Callable[[str], StrategyUseCase], name: str, summary: str, *, is_live: bool = True) -> click.Command:
    """Build the command of ``python -m use_cases.<name>.pipeline``.

    Parameters
    ----------
    build : callable
        Builds the use case for the name of a data set: the class itself.
    name : str
        Its folder.
    summary : str
        What ``--help`` says first.
    is_live : bool, default=True
        Whether it can tell the live desk anything.
    """
    example = f"python -m use_cases.{name}.pipeline"

    live = f"\n  aqf trade --once --use-case {name} --data prices.csv    the live desk" if is_live else ""
    epilog = f"\b\nExamples:\n  {example} --trials 40\n  {example} --mode trade --from 2015-01-01{live}"

    @click.command(help=summary, epilog=epilog)
    @click.option(
        "--mode",
        type=click.Choice(["plan", "trade"]),
        default="plan",
        show_default=True,
        help="Research, or a simulation of trading on the packaged bars; the live desk is `aqf trade --use-case`.",
    )
    @click.option("--dataset", default="sp500_20", show_default=True)
    @click.option("--trials", type=click.IntRange(1), default=48, show_default=True, help="plan: backtests the run may make.")
    @click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="plan: of everything random.")
    @click.option("--planner", type=click.Choice(["auto", "rules", "llm"]), default="auto", show_default=True)
    @click.option("--from", "begin", type=_DATE, help="trade: first day.  [first with a packaged VIX]")
    @click.option("--until", "end", type=_DATE, help="trade: last day, before the seal.  [the last before the seal]")
    @click.option(
        "--cash", type=click.FloatRange(1.0, 1e12), default=250_000.0, show_default=True, help="trade: to begin with."
    )
    @click.option(
        "--proxy-vix", is_flag=True, help="trade: take realised volatility where no VIX is packaged; the report says so."
    )
    @click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="trade: folder of the report.")
    def command(
        mode: Literal["plan", "trade"],
        dataset: str,
        trials: int,
        seed: int,
        planner: Literal["auto", "rules", "llm"],
        begin: datetime | None,
        end: datetime | None,
        cash: float,
        proxy_vix: bool,
        out: Path | None,
    ) -> None:
        try:
            case = build(dataset)
            if mode == "plan":
                _plan(case, trials, seed, planner)
            else:
                from use_cases.simulation import SimulationPlan

                _trade(case, SimulationPlan(begin=_utc(begin), end=_utc(end), cash=cash, proxy_vix=proxy_vix), out)
        except AQFError as error:
            raise click.ClickException(str(error)) from error

    return command


def _utc(day: datetime | None) -> datetime | None:
    return None if day is None else day.replace(tzinfo=UTC)


def _plan(case: StrategyUseCase, trials: int, seed: int, planner: Literal["auto", "rules", "llm"]) -> None:
    from agents.research.request import Budget
    from agents.research.runner import ResearchContext

    with ResearchContext.from_settings() as context:
        stored = case.ingest(context)
        click.echo(
            f"ingested {stored.name}: {stored.n_bars} bars x {len(stored.symbols)} symbols, "
            f"sealed from {stored.sealed_from:%Y-%m-%d}"
        )
        click.echo(f"labelled {case.label(context, stored)} bars with what came after them")
        values = case.compute_features(context.store.researcher.load_panel(stored))
        click.echo(f"computed {', '.join(values)}")
        report = case.run(
            context,
            budget=Budget(trials=trials),
            planner=planner,
            seed=seed,
            on_event=lambda event: click.echo(f"  {event.message}", err=True),
        )
    click.echo(report.to_markdown())


def _trade(case: StrategyUseCase, plan: SimulationPlan, out: Path | None) -> None:
    from core.settings import Settings
    from use_cases.simulation import report_folder, simulate

    settings = Settings.load()
    with _progress(f"trading {case.name}") as on_progress:
        found = simulate(case, plan, settings, on_progress=on_progress)
    page = found.report.save(out or report_folder(settings, case))
    for note in found.report.notes:
        click.echo(note)
    stats = found.stats
    click.echo(
        f"{found.n_bars} bars, {found.first:%Y-%m-%d} to {found.last:%Y-%m-%d}{', resumed' if found.resumed else ''}: "
        f"{found.report.n_decisions} decisions, {found.report.n_ordered} orders, {stats.closed_trades} closed trades"
        + (f", {stats.wins} with a gain" if stats.closed_trades else "")
    )
    for kill in found.report.kills:
        click.echo(f"  {kill.n:5d}  {kill.killed_at_stage.value}: {kill.binding_constraint.value}")
    if found.report.portfolio is not None:
        equity = found.report.portfolio.equity
        click.echo(
            f"equity {equity:,.2f}, {equity / plan.cash - 1.0:+.2%} of the beginning; worst drawdown "
            f"{stats.max_drawdown_pct or 0.0:.2%}"
        )
    click.echo(f"report: {page}")


@contextmanager
def _progress(message: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal, and a line for each tenth elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        click.echo(f"  {message}", err=True)

        def tell(done: int, total: int) -> None:
            if done * 10 // total > (done - 1) * 10 // total:
                click.echo(f"  {done} of {total} bars", err=True)

        yield tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("bars"), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(message, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
