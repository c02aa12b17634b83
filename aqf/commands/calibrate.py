"""`aqf calibrate`: does the machinery tell an edge from none?"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import click

from aqf import screen
from aqf.commands.research import as_json

if TYPE_CHECKING:
    from agents import Event


@click.command(epilog="Example:  aqf calibrate --markets 20 --edge 1.5 --kind reversal")
@click.option(
    "--markets", type=click.IntRange(1), default=20, show_default=True, help="Synthetic markets to run the planner on."
)
@click.option("--edge", default="none", show_default=True, help="Annual net Sharpe ratio to plant, or none.")
@click.option(
    "--kind", type=click.Choice(["reversal", "momentum", "low_volatility", "volume"]), default="reversal", show_default=True
)
@click.option(
    "--market-style",
    "style",
    type=click.Choice(["plain", "realistic"]),
    default="plain",
    show_default=True,
    help="Realistic markets have regimes, overnight jumps, gaps, late listings and delistings besides.",
)
@click.option("--bars", type=click.IntRange(600), default=3_000, show_default=True)
@click.option("--trials", type=click.IntRange(1), default=78, show_default=True, help="Trials on each market.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the first market; the others follow."
)
@as_json
def calibrate(
    markets: int,
    edge: str,
    kind: Literal["reversal", "momentum", "low_volatility", "volume"],
    style: Literal["plain", "realistic"],
    bars: int,
    trials: int,
    seed: int,
    as_json: bool,
) -> None:
    """Run the whole planner on synthetic markets and count in how many something is promoted.

    Without an edge that is the false-discovery rate, with a planted one the recall.
    """
    if edge == "none":
        planted = None
    else:
        try:
            planted = float(edge)
        except ValueError:
            planted = math.nan
        if not math.isfinite(planted):
            raise click.BadParameter(f"must be a number or none, was {edge}.", param_hint="--edge")
    from agents import ResearchContext
    from agents.research.calibration import calibrate_market, wilson_interval

    verdicts = []
    with ResearchContext.from_settings() as context, screen.Progress(lines=False) as progress:
        for number in range(markets):

            def on_event(event: Event, number: int = number) -> None:
                place = f"market {number + 1} of {markets}: {event.message}"
                progress.on_event(replace(event, message=place, done=number * trials + event.done, total=markets * trials))

            verdict = calibrate_market(
                context, seed=seed + number, edge=planted, kind=kind, style=style, n_bars=bars, trials=trials, on_event=on_event
            )
            verdicts.append(verdict)
            outcome = ", ".join(verdict.promoted) or f"nothing promoted ({verdict.binding_constraint})"
            progress.say(f"  market {number + 1} of {markets}, seed {verdict.seed}: {outcome}")
    found = sum(verdict.found for verdict in verdicts)
    low, high = wilson_interval(found, markets)
    bound = Counter(str(verdict.binding_constraint) for verdict in verdicts if not verdict.found)
    measure = "false_discovery_rate" if planted is None else "recall"
    result = {
        "markets": markets,
        "edge": planted,
        "kind": None if planted is None else kind,
        "market_style": style,
        "bars": bars,
        "trials": trials,
        "seed": seed,
        "promoted_in": found,
        "measure": measure,
        "share": found / markets,
        "interval_95": [low, high],
        "best_stopped_by": dict(bound.most_common()),
    }
    if as_json:
        screen.print_json(result)
        return
    what = "without an edge" if planted is None else f"with a planted {kind} of net Sharpe {planted:g}"
    click.echo(
        f"Something was promoted in {found} of {markets} {'' if style == 'plain' else style + ' '}markets {what}. "
        f"{measure.replace('_', '-', 1).replace('_', ' ').capitalize()} {found / markets:.1%} "
        f"(95 % interval {low:.1%} to {high:.1%})."
    )
    if bound:
        click.echo(f"The best of the others was stopped by {', '.join(f'{name} ({n})' for name, n in bound.most_common())}.")
