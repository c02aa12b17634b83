"""`aqf trade`: let the trading agents decide, and look at, halt and resume what they do."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aqf import screen
from aqf.commands.research import as_json
from aqf.commands.trade_ab import ab

if TYPE_CHECKING:
    from agents.trading.market_data import MarketData
    from agents.trading.replay import Judged
    from agents.trading.running import Round
    from agents.trading.sanctions import ListSource
    from core.clock import Clock
    from core.settings import Settings
    from core.store.decisions import DecisionLog
    from core.store.opening import Store

ACTOR = "operator"
"""Who halts and resumes by this command, in the audit log."""


@click.group(
    invoke_without_command=True,
    epilog="""\b
Examples:
  aqf trade --once --data prices.csv             decide on what waits in the store, once
  aqf trade --loop 900 --data prices.csv         every 15 minutes while the exchange is open
  aqf trade replay tests/replay/market.csv       judge recorded rows, and compare
  aqf trade halt --reason "looking into it"      nothing new until `aqf trade resume`""",
)
@click.option("--once", is_flag=True, help="Do one round: time at the paper broker, the book, the signals that wait.")
@click.option(
    "--loop", "every", type=click.FloatRange(1, 86_400), metavar="SECONDS", help="Rounds, only in sessions of the exchange."
)
@click.option("--rounds", type=click.IntRange(1), help="End --loop after so many rounds.")
@click.option("--calendar", default="XNYS", show_default=True, help="Exchange calendar of --loop.")
@click.option(
    "--data", default="packaged", show_default=True, help="Prices: `packaged`, a CSV or Parquet file, or an address with {symbol}."
)
@click.option("--lists", type=click.Path(file_okay=False, path_type=Path), help="Sanctions lists.  [AQF_HOME/sanctions]")
@click.option("--fictitious-lists", is_flag=True, help="Screen against made-up lists: for trying out, on paper.")
@click.option("--sizing", default="ramp", show_default=True, type=click.Choice(["ramp", "kelly", "fixed"]))
@click.option("--rules", "rule_mode", is_flag=True, help="Ask no model, even where one is configured.")
@as_json
@click.pass_context
def trade(
    click_context: click.Context,
    once: bool,
    every: float | None,
    rounds: int | None,
    calendar: str,
    data: str,
    lists: Path | None,
    fictitious_lists: bool,
    sizing: str,
    rule_mode: bool,
    as_json: bool,
) -> None:
    """Decide on the signals that wait in the store, on a paper account, and look after what was decided before.

    Without sanctions lists, without a VIX or a price nothing is traded: each refusal says what bound.
    """
    if click_context.invoked_subcommand is not None:
        if once or every is not None:
            raise click.UsageError(f"`{click_context.invoked_subcommand}` goes without --once and --loop.")
        return
    if once == (every is not None):
        raise click.UsageError("give --once, --loop SECONDS, or a command: `aqf trade --help` lists them.")
    with ExitStack() as stack:
        with screen.working("opening the desk", quiet=as_json):
            step, clock = _open_desk(stack, data, lists, fictitious_lists, sizing, rule_mode)
        if every is None:
            _tell(step(), as_json=as_json)
            return
        import time

        from agents.trading.running import run_rounds
        from agents.trading.sessions import ExchangeSessions

        run_rounds(
            step,
            clock=clock,
            hours=ExchangeSessions(calendar),
            every_seconds=every,
            sleep=time.sleep,
            on_round=lambda done: _tell(done, as_json=as_json),
            on_wait=lambda opening: screen.say(f"  {calendar} is closed until {opening:%Y-%m-%d %H:%M} UTC"),
            most=rounds,
        )


trade.add_command(ab)


def _open_desk(
    stack: ExitStack, data: str, lists: Path | None, fictitious: bool, sizing: str, rule_mode: bool
) -> tuple[Any, Clock]:
    """Open store, broker and pipeline, and return what does one round."""
    import functools
    import os

    from agents.trading.alerts import Alerts, AlertsConfig, LogAlerts
    from agents.trading.assembly import build_gates
    from agents.trading.pipeline import build_pipeline
    from agents.trading.running import run_round
    from agents.trading.sessions import ExchangeSessions
    from agents.trading.sizing import build_sizing
    from core.clock import SystemClock
    from core.settings import Settings

    settings, clock = Settings.load(), SystemClock()
    market = _open_market(data, settings)
    source = _open_lists(settings, clock, lists, fictitious)
    context = stack.enter_context(
        _build_context(settings, clock, market, source, build_sizing(sizing), rule_mode, ExchangeSessions())
    )
    del build_gates, Alerts, AlertsConfig, LogAlerts
    pipeline = build_pipeline(context)
    worker = f"aqf-trade-{os.getpid()}"
    return functools.partial(run_round, pipeline, context.gates.icarus, worker), clock
