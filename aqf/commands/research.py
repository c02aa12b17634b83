"""`aqf plan`, `runs`, `show` and `resume`: ask, list, look, go on."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from aqf import screen

if TYPE_CHECKING:
    from agents import ResearchContext, ResearchReport

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
out_folder = click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Also write the report to this folder."
)


@click.command(epilog='Example:  aqf plan "Find a short-horizon reversal" --dataset sp500_20 --trials 60 --seed 1')
@click.argument("question")
@click.option(
    "--dataset", default="sp500_20", show_default=True, help="Data set of the store, or one that ships with a package."
)
@click.option("--symbols", default="", help="Part of the data set, separated by commas.")
@click.option("--trials", type=click.IntRange(1, 100_000), default=60, show_default=True, help="Backtests the run may make.")
@click.option("--steps", type=click.IntRange(1, 10_000), default=40, show_default=True, help="Rounds of planning.")
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), default=600.0, show_default=True, help="Time for the search."
)
@click.option("--usd", type=click.FloatRange(0), default=2.0, show_default=True, help="US dollars for language models.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of everything random.")
@click.option("--planner", type=click.Choice(["auto", "rules", "llm"]), default="auto", show_default=True)
@out_folder
@as_json
def plan(
    question: str,
    dataset: str,
    symbols: str,
    trials: int,
    steps: int,
    seconds: float,
    usd: float,
    seed: int,
    planner: Literal["auto", "rules", "llm"],
    out: Path | None,
    as_json: bool,
) -> None:
    """Do research on QUESTION and print what was found, usually "nothing that survives"."""
    with ExitStack() as stack:
        with screen.Progress(quiet=as_json) as progress:
            from agents import Budget, ResearchContext, ResearchRequest, run_planner
            from use_cases import load_all_plugins

            wanted = tuple(symbol.strip() for symbol in symbols.split(",") if symbol.strip())
            request = ResearchRequest(question=question, dataset=dataset, symbols=wanted, seed=seed)
            budget = Budget(steps=steps, trials=trials, usd=usd, seconds=seconds)
            context = stack.enter_context(ResearchContext.from_settings(load_plugins=load_all_plugins))
            report = run_planner(request, budget=budget, planner=planner, context=context, on_event=progress.on_event)
        show_report(context, report, out=out, as_json=as_json)


@click.command(epilog="Example:  aqf resume 3f2a91")
@click.argument("run")
@out_folder
@as_json
def resume(run: str, out: Path | None, as_json: bool) -> None:
    """Continue RUN (its id or the beginning of it) from its last step; no trial is made twice."""
    with ExitStack() as stack:
        with screen.Progress(quiet=as_json) as progress:
            from agents import ResearchContext, resume_run
            from use_cases import load_all_plugins

            context = stack.enter_context(ResearchContext.from_settings(load_plugins=load_all_plugins))
            report = resume_run(run, context=context, on_event=progress.on_event)
        show_report(context, report, out=out, as_json=as_json)


@click.command(epilog="Example:  aqf runs --limit 5")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@as_json
def runs(limit: int, as_json: bool) -> None:
    """List the newest runs; one that is `running` with an old last step was interrupted, and `aqf resume` continues it."""
    from core.settings import Settings
    from core.store import open_store

    with open_store(Settings.load()) as store:
        found = store.service.list_runs(limit)
        names = {dataset.dataset_id: dataset.name for dataset in store.service.list_datasets()}
        progress = {run.run_id: store.service.find_progress(run.run_id) for run in found}
    rows: list[dict[str, Any]] = [
        {
            "run_id": str(run.run_id),
            "question": run.request["question"],
            "dataset": names[run.dataset_id],
            "planner": run.planner,
            "status": str(run.status),
            "trials": run.usage.get("trials", progress[run.run_id][0]),
            "started_at": run.started_at.isoformat(),
            "last_step_at": None if (step := progress[run.run_id][1]) is None else step.isoformat(),
            "finished_at": None if run.finished_at is None else run.finished_at.isoformat(),
        }
        for run in found
    ]
    if as_json:
        screen.print_json(rows)
    elif not rows:
        click.echo('There are no runs yet: try `aqf demo`, or `aqf plan "..."`.')
    else:
        columns = ("run_id", "status", "dataset", "planner", "trials", "started_at", "last_step_at", "question")
        rows = [{**row, **{key: (row[key] or "")[:16] for key in ("started_at", "last_step_at")}} for row in rows]
        screen.print_table(
            "Runs, newest first", columns, [[row[column] for column in columns] for row in rows], right=("trials",)
        )


@click.command(epilog="Example:  aqf show 3f2a91 --out report/")
@click.argument("run")
@out_folder
@as_json
def show(run: str, out: Path | None, as_json: bool) -> None:
    """Show the report of RUN (its id or the beginning of it)."""
    from agents import ResearchContext
    from agents.research.runner import load_report

    with ResearchContext.from_settings() as context:
        show_report(context, load_report(context, context.store.service.get_run(run)), out=out, as_json=as_json)


def show_report(context: ResearchContext, report: ResearchReport, *, out: Path | None, as_json: bool) -> None:
    """Print a report, and say where its page is."""
    from agents.research.report import report_folder

    page = report_folder(context.settings.home, report.run_id) / "report.html"
    if out is not None:
        page = report.save(out)
    if as_json:
        screen.print_json({**report.to_dict(), "report": str(page)})
    else:
        screen.print_report(report)
        click.echo(f"Report: {page}")
