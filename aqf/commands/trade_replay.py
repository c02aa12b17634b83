"""`aqf trade replay`: do recorded rows still end as they should?"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aqf import screen
from aqf.commands.research import as_json

if TYPE_CHECKING:
    from agents.trading.replay import Judged


@click.command(epilog="Example:  aqf trade replay tests/replay/market.csv --json")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--lists",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Sanctions lists.  [the made-up ones that ship]",
)
@click.option("--sizing", default="ramp", show_default=True, type=click.Choice(["ramp", "kelly", "probation", "fixed"]))
@as_json
@click.pass_context
def replay(click_context: click.Context, file: Path, lists: Path | None, sizing: str, as_json: bool) -> None:
    """Judge the recorded rows of FILE, each in a world of its own, and compare with what they expect.

    Exit code 1 when a row ends otherwise than expected, or cannot be judged, which is said on standard error with line and
    column while all others are judged. With --json, one trace per line.
    """
    from agents.trading.context import find_lists
    from agents.trading.replay import ReplayRules, confusion
    from agents.trading.replay import replay as run_replay
    from agents.trading.replay_rows import parse_replay
    from agents.trading.sanctions import FictitiousLists, SanctionsFiles
    from agents.trading.sizing import build_sizing
    from core.settings import Settings
    from core.store.rehearsal import open_rehearsal

    recorded = parse_replay(file)
    source = FictitiousLists if lists is None else lambda clock: SanctionsFiles(find_lists(lists))
    rules = ReplayRules(sizing=build_sizing(sizing), lists=source)
    judged: list[Judged] = []
    with screen.counting("judging", "rows", quiet=as_json) as on_progress, open_rehearsal(Settings.load()) as rehearsal:
        for one in run_replay(recorded.rows, rehearsal, rules):
            judged.append(one)
            on_progress(len(judged), len(recorded.rows))
            if as_json:
                click.echo(json.dumps(one.to_dict(), ensure_ascii=False, allow_nan=False))
    differing = [one for one in judged if not one.matches]
    if not as_json:
        _show_confusion(confusion(judged))
        for one in differing:
            found = f"{one.stage}{'' if one.constraint is None else f' {one.constraint.value}'}"
            click.echo(f"line {one.row.line}, {one.row.signal['signal_id']}: {found}, {one.trace.kill_reason or 'not refused'}")
        click.echo(f"{len(judged) - len(differing)} of {len(judged)} rows ended as expected.")
    for note in recorded.notes:
        screen.say(f"note: {note}.")
    for row in recorded.unread:
        screen.say(f"line {row.line}, {row.signal_id}: not judged, {row.problem}")
    if recorded.unread:
        screen.say(f"{len(recorded.unread)} of {len(judged) + len(recorded.unread)} rows could not be judged.")
    if differing or recorded.unread:
        click_context.exit(1)


def _show_confusion(counts: Counter[tuple[str, str]]) -> None:
    """Print what was expected down and what came across; a row off the diagonal is marked."""
    expected = sorted({pair[0] for pair in counts})
    found = sorted({pair[1] for pair in counts})
    numbers = {end: str(place + 1) for place, end in enumerate(sorted({*expected, *found}))}
    rows = [
        (
            numbers[row],
            row,
            *("" if not counts[row, column] else str(counts[row, column]) for column in found),
            "" if all(column == row for column in found if counts[row, column]) else "differs",
        )
        for row in expected
    ]
    strange = [(numbers[end], end, *("" for _ in found), "not expected") for end in found if end not in expected]
    heads = tuple(numbers[column] for column in found)
    screen.print_table("Expected down, found across", ("", "ends at", *heads, " "), [*rows, *strange], right=("", *heads))
