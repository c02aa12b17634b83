"""How the command line speaks: results on standard output, progress on standard error.

Hides rich. Promises that `--json` prints one JSON value and nothing else on standard output, and that progress is a bar on
a terminal and plain lines elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

if TYPE_CHECKING:
    from agents import Event, ResearchReport

_COLUMNS = (
    ("rank IC", "rank_ic", "{:.4f}"),
    ("gross SR", "gross_sharpe", "{:.2f}"),
    ("net SR", "net_sharpe", "{:.2f}"),
    ("turnover/yr", "turnover", "{:.0f}"),
    ("break-even bps", "break_even_bps", "{:.1f}"),
    ("DSR", "dsr", "{:.3f}"),
)


def print_json(value: Any) -> None:
    """Print one JSON value on standard output."""
    click.echo(json.dumps(value, indent=2, default=str, allow_nan=False))


def say(message: str) -> None:
    """Print a line on standard error."""
    click.echo(message, err=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Print a table on standard output."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        whole = column in right or column == columns[0]
        table.add_column(
            column, justify="right" if column in right else "left", no_wrap=whole, overflow="ellipsis" if whole else "fold"
        )
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    console = Console()
    console.print(table) if console.is_terminal else Console(width=150).print(table)


def print_report(report: ResearchReport, *, rows: int = 15) -> None:
    """Print a leaderboard, the figures all share, and the verdict."""
    body = []
    for row in report.leaderboard_rows()[:rows]:
        figures = ["n/a" if row[key] is None else pattern.format(row[key]) for _, key, pattern in _COLUMNS]
        verdict = "promoted" if row["binding_constraint"] is None else f"rejected: {row['binding_constraint']}"
        body.append((row["name"], *figures, verdict))
    heads = [head for head, _, _ in _COLUMNS]
    title = f"Leaderboard of {report.n_trials} trials, best {len(body)} shown (out of sample, net of costs)"
    print_table(title, ("feature", *heads, "verdict"), body, right=heads)
    for label, value in report.key_figures():
        click.echo(f"  {label}: {value}")
    click.echo(f"\nVerdict: {report.sentence}")
    click.echo(f"Memory: {report.recalled['sentence']}")


class Progress:
    """Show how a run gets on; pass :meth:`on_event` to ``run_planner``.

    Parameters
    ----------
    quiet : bool, default=False
        Show nothing.
    lines : bool, default=True
        Where there is no terminal, print a line for each step.
    """

    def __init__(self, *, quiet: bool = False, lines: bool = True) -> None:
        self._quiet = quiet
        self._lines = lines
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if not self._quiet:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            console = Console(stderr=True)
            if console.is_terminal:
                columns = (
                    TextColumn("{task.description}"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TextColumn("trials"),
                    TimeElapsedColumn(),
                )
                self._bar = Bar(*columns, console=console)
                self._bar.start()
                self._task = self._bar.add_task("opening the store", total=None)
            elif self._lines:
                say("  opening the store")
        return self

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None:
            self._bar.console.print(message, highlight=False)
        elif not self._quiet:
            say(message)

    def on_event(self, event: Event) -> None:
        """Take note of an event."""
        if self._quiet:
            if event.kind in ("started", "resumed"):
                say(event.message)
            return
        if self._bar is None:
            if self._lines and event.kind != "tool" and event.message:
                say(f"  {event.kind}: {event.message}")
            return
        words = {"planned": event.message, "tool": None, "judged": "judging", "reported": "done"}.get(event.kind, event.message)
        changes: Mapping[str, Any] = {} if not words else {"description": words if len(words) <= 60 else f"{words[:59]}…"}
        self._bar.update(self._task, completed=event.done, total=event.total or None, **changes)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def working(message: str, *, quiet: bool = False) -> Iterator[None]:
    """Show that something takes a moment: a spinner on a terminal, a line on standard error elsewhere."""
    if quiet:
        yield
        return
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(message):
            yield
    else:
        say(f"  {message}")
        yield


@contextmanager
def counting(message: str, unit: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Give what is told how many are done of how many, and show it: a bar on a terminal, a line elsewhere."""
    if quiet:
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        say(f"  {message}")
        yield lambda done, total: None
        return
    columns = (TextColumn(message), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(message, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
