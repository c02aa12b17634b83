"""`aqf trade ab`: which sizing is worth it, on simulated markets whose truth is known?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aqf import screen
from aqf.commands.research import as_json

if TYPE_CHECKING:
    from agents.trading.ab import Interval


@click.command(epilog="Example:  aqf trade ab --sizing ramp,kelly,probation,fixed --accounts 1000 --seed 0")
@click.option(
    "--sizing",
    "names",
    default="ramp,kelly,probation,fixed",
    show_default=True,
    help="Sizings; the first is what others are held against.",
)
@click.option("--accounts", type=click.IntRange(2), default=1000, show_default=True, help="Accounts for each market.")
@click.option("--trades", type=click.IntRange(2), default=1000, show_default=True, help="Signals with money at stake.")
@click.option("--paper", type=click.IntRange(0), default=0, show_default=True, help="Signals before that, all taken on paper.")
@click.option("--cost-bps", type=click.FloatRange(0), default=10.0, show_default=True, help="Cost of a round trip.")
@click.option("--floor", type=click.FloatRange(0, 1), default=0.45, show_default=True, help="Pythia's floor; 0 for none.")
@click.option(
    "--kill", type=click.FloatRange(0, 1, min_open=True), default=0.08, show_default=True, help="Drawdown that ends trading."
)
@click.option("--shadow", is_flag=True, help="Learn from refused signals too, as if each were followed on paper.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@as_json
def ab(
    names: str,
    accounts: int,
    trades: int,
    paper: int,
    cost_bps: float,
    floor: float,
    kill: float,
    shadow: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Trade simulated accounts by several sizings, through the same signals with the same outcomes.

    Growth, drawdown and ruin are net of costs, with 95 % intervals. Ruin is a drawdown of `--kill`, which ends trading.
    """
    from agents.trading import ab as trial
    from agents.trading.sizing import build_sizing

    sizings = [build_sizing(name.strip()) for name in names.split(",")]
    config = trial.TrialConfig(
        accounts=accounts,
        trades=trades,
        paper_trades=paper,
        cost_bps=cost_bps,
        floor=floor,
        kill_drawdown=kill,
        shadow=shadow,
    )
    with screen.counting("simulating", "signals", quiet=as_json) as on_progress:
        results = trial.compare_sizings(sizings, config, seed=seed, on_progress=on_progress)
    worlds = {
        world.name: {
            "note": world.note,
            "payoff": [context.payoff for context in world.contexts],
            "hit_probability": trial.hit_probabilities(world, config).tolist(),
            "later_hit_probability": trial.hit_probabilities(world, config, later=True).tolist(),
        }
        for world in trial.WORLDS
    }
    if as_json:
        screen.print_json(
            {
                "seed": seed,
                "config": config.to_dict(),
                "markets": worlds,
                "results": [result.to_dict() for result in results],
            }
        )
        return
    for name, world in worlds.items():
        hits = ", ".join(f"{p:.1%} x {b:g}" for p, b in zip(world["hit_probability"], world["payoff"], strict=True))
        click.echo(f"{name}: {world['note']}. Hit probability x payoff: {hits}.")
    click.echo()
    rows = [
        (
            result.world,
            result.sizing,
            f"{result.taken:.0%}",
            f"{result.mean_size:.2%}",
            _percent(result.growth, signed=True),
            _percent(result.drawdown),
            _percent(result.ruin),
            "" if result.sizing == sizings[0].name else _percent(result.advantage, signed=True),
        )
        for result in results
    ]
    columns = ("market", "sizing", "taken", "stake", "growth", "largest drawdown", "ruin", f"growth less {sizings[0].name}'s")
    screen.print_table(
        f"{accounts} accounts a market, {trades} signals after {paper} on paper, {cost_bps:g} bps a round trip, seed {seed}",
        columns,
        rows,
        right=columns[2:],
    )


def _percent(interval: Interval, *, signed: bool = False) -> str:
    form = "{:+.2%}" if signed else "{:.2%}"
    return f"{form.format(interval.value)} [{form.format(interval.low)}, {form.format(interval.high)}]"
