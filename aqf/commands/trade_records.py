"""`aqf trade status|positions|halt|resume|report`: look at what the trading agents did, and stop them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aqf import screen
from aqf.commands.research import as_json, out_folder

if TYPE_CHECKING:
    from core.store.decisions import DecisionLog, OpenOrder
    from core.store.opening import Store
    from core.types import DecisionTrace

ACTOR = "operator"
"""Who halts and resumes by this command, in the audit log."""


def end_of(trace: DecisionTrace) -> tuple[str, str]:
    """Return where a decision ended, and what bound, if anything did."""
    stage = trace.status.value if trace.killed_at_stage is None else trace.killed_at_stage.value
    return stage, "" if trace.binding_constraint is None else trace.binding_constraint.value


@contextmanager
def _open_records() -> Iterator[tuple[Store, DecisionLog]]:
    from core.settings import Settings
    from core.store import open_store
    from core.store.decisions import DecisionLog

    with open_store(Settings.load()) as store:
        yield store, DecisionLog(store.trading.gateway)


@click.command(epilog="Example:  aqf trade status")
@as_json
def status(as_json: bool) -> None:
    """Show equity, drawdown, halts, open orders, and how the agents are."""
    with _open_records() as (store, log):
        portfolio = store.trading.load_portfolio()
        halts = [halt for halt in log.list_halts() if halt.resumed_at is None]
        orders = log.list_open_orders()
        health = store.trading.agent_health_summary()
        system = store.trading.system_seniority()
        last = store.trading.list_decision_traces(limit=1)
    if as_json:
        screen.print_json(
            {
                "portfolio": None if portfolio is None else portfolio.to_dict(),
                "halts": [halt.to_dict() for halt in halts],
                "open_orders": [order.to_dict() for order in orders],
                "agents": [agent.to_dict() for agent in health],
                "system_seniority": None if system is None else system.to_dict(),
                "last_decision": last[0].to_dict() if last else None,
            }
        )
        return
    if portfolio is None:
        click.echo("The account was never valued: `aqf trade --once` begins.")
    else:
        click.echo(
            f"equity {portfolio.equity:,.2f}, {portfolio.drawdown_pct:.2%} below its peak; cash {portfolio.cash:,.2f}; "
            f"{portfolio.open_positions} positions, {_counted(orders)}"
        )
    for halt in halts:
        click.echo(f"halted {halt.scope} since {halt.halted_at:%Y-%m-%d %H:%M} UTC by {halt.actor}: {halt.reason}")
    if not halts:
        click.echo("nothing is halted")
    if system is not None:
        click.echo(f"seniority {system.tier.value}, level {system.level}; lowest: {system.lowest_agent}")
    for agent in health:
        seen = f"{agent.checked_at:%Y-%m-%d %H:%M} UTC"
        click.echo(f"  {agent.agent_name}: {agent.status.value} at {seen}{f', {agent.message}' if agent.message else ''}")
    if last:
        stage, constraint = end_of(last[0])
        click.echo(
            f"last decision {last[0].decided_at:%Y-%m-%d %H:%M} UTC: {last[0].symbol or '-'} {stage} {constraint}".rstrip()
        )


def _counted(orders: Sequence[OpenOrder]) -> str:
    """Return in words how many orders would buy, and how many would end a position, of which a bracket has two."""
    from core.types import Side

    n_entries = sum(order.side is Side.BUY for order in orders)
    n_exits = len(orders) - n_entries
    return f"{n_entries} entr{'y' if n_entries == 1 else 'ies'} and {n_exits} exit{'' if n_exits == 1 else 's'} that may fill"


@click.command(epilog="Example:  aqf trade positions --json")
@as_json
def positions(as_json: bool) -> None:
    """List what is held, as last valued."""
    with _open_records() as (store, _):
        held = store.trading.list_positions()
    if as_json:
        screen.print_json([position.to_dict() for position in held])
    elif not held:
        click.echo("Nothing is held.")
    else:
        columns = ("symbol", "shares", "mean cost", "stop", "target", "gain or loss")
        rows = [
            (
                one.symbol,
                f"{one.qty:,g}",
                f"{one.avg_cost:,.2f}",
                None if one.stop_loss is None else f"{one.stop_loss:,.2f}",
                None if one.take_profit is None else f"{one.take_profit:,.2f}",
                "unknown" if one.unrealized_pnl is None else f"{one.unrealized_pnl:,.2f}",
            )
            for one in held
        ]
        screen.print_table("Positions", columns, rows, right=columns[1:])


def _read_symbol(_: click.Context, __: click.Parameter, given: str | None) -> str | None:
    if given is None:
        return None
    symbol = given.strip().upper()
    if not symbol or not symbol.isprintable() or " " in symbol:
        raise click.BadParameter(f"must be one symbol, such as AAPL, was {given!r}.")
    return symbol


_symbol = click.option("--symbol", callback=_read_symbol, help="This one alone; all trading otherwise.")


def _scope(symbol: str | None) -> str:
    from core.store.decisions import ALL, symbol_scope

    return ALL if symbol is None else symbol_scope(symbol)


@click.command(epilog='Example:  aqf trade halt --reason "earnings tonight" --symbol AAPL')
@click.option("--reason", required=True, help="Why; it is kept, and shown wherever the halt is.")
@_symbol
@as_json
def halt(reason: str, symbol: str | None, as_json: bool) -> None:
    """Stop new orders, in every process that trades on this store; entries that wait are cancelled at its next tick."""
    if not reason.strip():
        raise click.BadParameter("must say why: it is kept, and shown wherever the halt is.", param_hint="--reason")
    _change("halt", symbol, lambda log, scope, now: log.halt(scope, reason=reason, actor=ACTOR, at=now), as_json)


@click.command(epilog="Example:  aqf trade resume")
@_symbol
@as_json
def resume(symbol: str | None, as_json: bool) -> None:
    """Lift a halt; from then on the drawdown counts from the peak since."""
    _change("resume", symbol, lambda log, scope, now: log.resume(scope, actor=ACTOR, at=now), as_json)


def _change(verb: str, symbol: str | None, act: Callable[[DecisionLog, str, datetime], bool], as_json: bool) -> None:
    from core.clock import SystemClock

    scope = _scope(symbol)
    with _open_records() as (_, log):
        changed = act(log, scope, SystemClock().now())
    if as_json:
        screen.print_json({"scope": scope, "changed": changed, "halted": verb == "halt"})
        return
    said = {("halt", True): "halted", ("halt", False): "was halted already, for its first reason", ("resume", True): "resumed"}
    click.echo(f"{scope} {said.get((verb, changed), 'was not halted')}.")


@click.command(epilog="Example:  aqf trade report --out report/")
@out_folder
@as_json
def report(out: Path | None, as_json: bool) -> None:
    """Write the daily report: equity, drawdown, positions, where signals ended, hit rates, cost, seniority."""
    from agents.trading.daily_report import build_daily_report
    from core.clock import SystemClock
    from core.settings import Settings

    now = SystemClock().now()
    with screen.working("reading the records", quiet=as_json), _open_records() as (store, _):
        built = build_daily_report(store, now, title=f"Trading on {now:%Y-%m-%d}")
    page = built.save(out or Settings.load().home / "trading-reports" / f"{now:%Y-%m-%d}")
    if as_json:
        screen.print_json({**built.to_dict(), "report": str(page)})
    else:
        click.echo(f"Report: {page}")


COMMANDS: tuple[click.Command, ...] = (status, positions, halt, resume, report)
"""For the group `aqf trade`."""
