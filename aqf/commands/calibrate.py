"""`aqf calibrate`: does the machinery tell an edge from none?"""

from __future__ import annotations

import math
from typing import Literal

import click

from aqf import screen
from aqf.commands.research import as_json


@click.command(epilog="Example:  aqf calibrate --markets 20 --edge 1.5 --kind reversal")
@click.option(
    "--markets", type=click.IntRange(1), default=20, show_default=True, help="Synthetic markets to run the planner on."
)
@click.option("--edge", default="none", show_default=True, help="Annual net Sharpe ratio to plant, or none.")
@click.option(
    "--kind", type=click.Choice(["reversal", "momentum", "low_volatility", "volume"]), default="reversal", show_default=True
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
    bars: int,
    trials: int,
    seed: int,
    as_json: bool,
) -> None:
    """Run the whole planner on synthetic markets and count in how many something is promoted."""
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
    with ResearchContext.from_settings() as context:
        for number in range(markets):
            verdict = calibrate_market(context, seed=seed + number, edge=planted, kind=kind, n_bars=bars, trials=trials)
            verdicts.append(verdict)
            screen.say(
                f"  market {number + 1} of {markets}, seed {verdict.seed}: {', '.join(verdict.promoted) or 'nothing promoted'}"
            )
    found = sum(verdict.found for verdict in verdicts)
    low, high = wilson_interval(found, markets)
    result = {
        "markets": markets,
        "edge": planted,
        "kind": None if planted is None else kind,
        "bars": bars,
        "trials": trials,
        "seed": seed,
        "promoted_in": found,
        "share": found / markets,
        "interval_95": [low, high],
    }
    if as_json:
        screen.print_json(result)
    else:
        what = "without an edge" if planted is None else f"with a planted {kind} of net Sharpe {planted:g}"
        click.echo(
            f"Something was promoted in {found} of {markets} markets {what}: {found / markets:.0%} "
            f"(95 % interval {low:.1%} to {high:.1%})."
        )
