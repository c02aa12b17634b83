"""`aqf trade`: let the trading agents decide, and look at, halt and resume what they do."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aqf import screen
from aqf.commands.research import as_json, out_folder
from aqf.commands.trade_ab import ab
from aqf.commands.trade_replay import replay

if TYPE_CHECKING:
    from agents.trading.market_data import MarketData
    from agents.trading.running import Round
    from agents.trading.sessions import ExchangeSessions
    from core.clock import Clock
    from core.store.decisions import DecisionLog
    from core.store.opening import Store
    from core.types import DecisionTrace

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
    "--data",
    multiple=True,
    default=("packaged",),
    show_default=True,
    help="Prices: `packaged`, a CSV or Parquet file, or an address with {symbol}; of several, the first that knows a symbol.",
)
@click.option(
    "--news", multiple=True, type=click.Path(path_type=Path), help="CSV or JSONL file of news to take in; may be repeated."
)
@click.option("--lists", type=click.Path(file_okay=False, path_type=Path), help="Sanctions lists.  [AQF_HOME/sanctions]")
@click.option("--fictitious-lists", is_flag=True, help="Screen against made-up lists: for trying out, on paper.")
@click.option("--sizing", default="ramp", show_default=True, type=click.Choice(["ramp", "kelly", "probation", "fixed"]))
@click.option(
    "--expiry",
    "expiry_minutes",
    type=click.FloatRange(1, 20_000),
    default=120.0,
    show_default=True,
    help="Minutes an entry waits.",
)
@click.option(
    "--cash",
    type=click.FloatRange(0, 1e12, min_open=True),
    default=100_000.0,
    show_default=True,
    help="Of a new paper account.",
)
@click.option("--webhook", help="Address that changes of state are posted to.")
@click.option("--rules", "rule_mode", is_flag=True, help="Ask no model, even where one is configured.")
@as_json
@click.pass_context
def trade(
    click_context: click.Context,
    once: bool,
    every: float | None,
    rounds: int | None,
    calendar: str,
    data: tuple[str, ...],
    news: tuple[Path, ...],
    lists: Path | None,
    fictitious_lists: bool,
    sizing: str,
    expiry_minutes: float,
    cash: float,
    webhook: str | None,
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
            step, clock, hours = _open_desk(
                stack,
                data=data,
                news=news,
                lists=lists,
                fictitious_lists=fictitious_lists,
                sizing=sizing,
                rule_mode=rule_mode,
                expiry_minutes=expiry_minutes,
                cash=cash,
                webhook=webhook,
                calendar=calendar,
            )
        if every is None:
            _tell(step(), as_json=as_json)
            return
        import time

        from agents.trading.running import run_rounds

        run_rounds(
            step,
            clock=clock,
            hours=hours,
            every_seconds=every,
            sleep=time.sleep,
            on_round=lambda done: _tell(done, as_json=as_json),
            on_wait=lambda opening: screen.say(f"  {calendar} is closed until {opening:%Y-%m-%d %H:%M} UTC"),
            most=rounds,
        )


trade.add_command(ab)
trade.add_command(replay)


def _open_desk(
    stack: ExitStack,
    *,
    data: tuple[str, ...],
    news: tuple[Path, ...],
    lists: Path | None,
    fictitious_lists: bool,
    sizing: str,
    rule_mode: bool,
    expiry_minutes: float,
    cash: float,
    webhook: str | None,
    calendar: str,
) -> tuple[Callable[[], Round], Clock, ExchangeSessions]:
    """Open store, broker and pipeline, and return what does one round, the clock and the exchange's hours."""
    from agents.brokers.paper import PaperConfig
    from agents.trading.alerts import Alerts, AlertsConfig, build_channels
    from agents.trading.ares import AresConfig
    from agents.trading.broker_market import LayeredMarket
    from agents.trading.context import TradingConfig, TradingContext, find_lists
    from agents.trading.hermes import Hermes, HermesConfig
    from agents.trading.news_files import NewsFile
    from agents.trading.pipeline import build_pipeline
    from agents.trading.running import run_round
    from agents.trading.sanctions import FictitiousLists, ListSource, SanctionsFiles
    from agents.trading.sessions import ExchangeSessions
    from agents.trading.sizing import build_sizing
    from core.clock import SystemClock
    from core.settings import Settings
    from core.store.trading_lock import trading_alone
    from use_cases.sectors import SECTORS

    settings, clock, hours = Settings.load(), SystemClock(), ExchangeSessions(calendar)
    published: ListSource = SanctionsFiles(find_lists(lists or settings.home / "sanctions"))
    context = stack.enter_context(
        TradingContext.from_settings(
            settings,
            data=LayeredMarket([_open_market(stack, source, clock) for source in data]),
            lists=FictitiousLists(clock) if fictitious_lists else published,
            clock=clock,
            # Prices come in bars of any length, and rounds at any time within one.
            paper=PaperConfig(initial_cash=cash, bar_seconds=None),
            config=TradingConfig(ares=AresConfig(expiry_minutes=expiry_minutes)),
            rule_mode=rule_mode,
            sizing=build_sizing(sizing),
            sectors=SECTORS,
            sessions=hours,
            alerts=Alerts(build_channels(webhook_url=webhook), AlertsConfig(), clock),
        )
    )
    hermes = Hermes(context.store.trading, [NewsFile(path, clock) for path in news], HermesConfig(), clock)
    check_lock = stack.enter_context(trading_alone(context.store))
    pipeline = build_pipeline(context)
    worker = f"aqf-trade-{os.getpid()}"

    def step() -> Round:
        check_lock()
        for failure in hermes.collect().failures:
            screen.say(f"  {failure.source} cannot be read: {failure.reason}")
        return run_round(pipeline, worker)

    return step, clock, hours


def _open_market(stack: ExitStack, source: str, clock: Clock) -> MarketData:
    from agents.trading.packaged_market import load_packaged_market, read_csv_market

    if source == "packaged":
        return load_packaged_market()
    if not source.startswith(("http://", "https://")):
        return read_csv_market(source)
    from agents.trading.downloaded_market import DownloadConfig, DownloadedMarket
    from agents.trading.web import Web, WebConfig
    from core.provenance import code_version

    web = stack.enter_context(Web(WebConfig(user_agent=f"aqf/{code_version()}")))
    return DownloadedMarket(web, DownloadConfig(address=source), clock)


def _tell(done: Round, *, as_json: bool) -> None:
    valuation = done.valuation
    if as_json:
        click.echo(
            json.dumps(
                {
                    "at": done.at.isoformat(),
                    "equity": valuation.equity,
                    "cash": valuation.cash,
                    "drawdown": valuation.drawdown,
                    "unpriced": list(valuation.unpriced),
                    "traces": [trace.to_dict() for trace in done.traces],
                }
            )
        )
        return
    worth = "unknown" if valuation.equity is None else f"{valuation.equity:,.2f}"
    ends = Counter(_end_of(trace) for trace in done.traces)
    click.echo(f"{done.at:%Y-%m-%d %H:%M} UTC: equity {worth}, {len(done.traces)} signals decided")
    for (stage, constraint), n in ends.most_common():
        click.echo(f"  {n:5d}  {stage}{f': {constraint}' if constraint else ''}")


def _end_of(trace: DecisionTrace) -> tuple[str, str]:
    stage = trace.status.value if trace.killed_at_stage is None else trace.killed_at_stage.value
    return stage, "" if trace.binding_constraint is None else trace.binding_constraint.value


@contextmanager
def _open_records() -> Iterator[tuple[Store, DecisionLog]]:
    from core.settings import Settings
    from core.store import open_store
    from core.store.decisions import DecisionLog

    with open_store(Settings.load()) as store:
        yield store, DecisionLog(store.trading.gateway)


@trade.command(epilog="Example:  aqf trade status")
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
            f"{portfolio.open_positions} positions, {len(orders)} orders that may fill"
        )
    for halt in halts:
        click.echo(f"halted {halt.scope} since {halt.halted_at:%Y-%m-%d %H:%M} UTC by {halt.actor}: {halt.reason}")
    if not halts:
        click.echo("nothing is halted")
    if system is not None:
        click.echo(f"seniority {system.tier.value}, level {system.level}; lowest: {system.lowest_agent}")
    for agent in health:
        click.echo(f"  {agent.agent_name}: {agent.status.value} {agent.message}".rstrip())
    if last:
        stage, constraint = _end_of(last[0])
        click.echo(
            f"last decision {last[0].decided_at:%Y-%m-%d %H:%M} UTC: {last[0].symbol or '-'} {stage} {constraint}".rstrip()
        )


@trade.command(epilog="Example:  aqf trade positions --json")
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


_symbol = click.option("--symbol", help="This one alone; all trading otherwise.")


def _scope(symbol: str | None) -> str:
    from core.store.decisions import ALL, symbol_scope

    return ALL if symbol is None else symbol_scope(symbol.strip().upper())


@trade.command(epilog='Example:  aqf trade halt --reason "earnings tonight" --symbol AAPL')
@click.option("--reason", required=True, help="Why; it is kept, and shown wherever the halt is.")
@_symbol
@as_json
def halt(reason: str, symbol: str | None, as_json: bool) -> None:
    """Stop new orders, in every process that trades on this store; entries that wait are cancelled at its next tick."""
    _change("halt", symbol, lambda log, scope, now: log.halt(scope, reason=reason, actor=ACTOR, at=now), as_json)


@trade.command(epilog="Example:  aqf trade resume")
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


@trade.command(epilog="Example:  aqf trade report --out report/")
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
