"""`aqf trade`: let the trading agents decide."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aqf import screen
from aqf.commands.research import as_json
from aqf.commands.trade_ab import ab
from aqf.commands.trade_records import COMMANDS, end_of
from aqf.commands.trade_replay import replay

if TYPE_CHECKING:
    from agents.trading.market_data import MarketData
    from agents.trading.running import Round
    from agents.trading.sessions import ExchangeSessions
    from core.clock import Clock
    from core.settings import Settings


@click.group(
    invoke_without_command=True,
    epilog="""\b
Examples:
  aqf trade --once --data prices.csv             decide on what waits in the store, once
  aqf trade --once --broker alpaca --data alpaca --data indices.csv
  aqf trade --loop 900 --data prices.csv         every 15 minutes while the exchange is open
  aqf trade replay tests/replay/market.csv       judge recorded rows, and compare
  aqf trade halt --reason "looking into it"      nothing new until `aqf trade resume`""",
)
@click.option("--once", is_flag=True, help="Do one round: what was filled, the book, the signals that wait.")
@click.option(
    "--loop", "every", type=click.FloatRange(1, 86_400), metavar="SECONDS", help="Rounds, only in sessions of the exchange."
)
@click.option("--rounds", type=click.IntRange(1), help="End --loop after so many rounds.")
@click.option("--calendar", default="XNYS", show_default=True, help="Exchange calendar of --loop.")
@click.option(
    "--broker",
    default="paper",
    show_default=True,
    type=click.Choice(["paper", "alpaca", "ib"]),
    help="Whose account: on paper in the store, at Alpaca, or behind TWS or IB Gateway.",
)
@click.option(
    "--data",
    multiple=True,
    default=("packaged",),
    show_default=True,
    help="Prices: `packaged`, `alpaca`, a CSV or Parquet file, or an address with {symbol}; the first that knows a symbol.",
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
    help="Of a new account of the paper broker.",
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
    broker: str,
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
    """Decide on the signals that wait in the store, and look after what was decided before, on paper unless --broker says more.

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
                broker=broker,
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


for command in (ab, replay, *COMMANDS):
    trade.add_command(command)


def _open_desk(
    stack: ExitStack,
    *,
    broker: str,
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
    from agents.brokers.opening import BrokerKind
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
    from core.errors import ConfigurationError
    from core.settings import Settings
    from core.store.trading_lock import trading_alone
    from use_cases.sectors import SECTORS

    settings, clock, hours = Settings.load(), SystemClock(), ExchangeSessions(calendar)
    published: ListSource = SanctionsFiles(find_lists(lists or settings.home / "sanctions"))
    context = stack.enter_context(
        TradingContext.from_settings(
            settings,
            data=LayeredMarket([_open_market(stack, source, settings, clock) for source in data]),
            lists=FictitiousLists(clock) if fictitious_lists else published,
            clock=clock,
            broker_kind=BrokerKind(broker),
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
    if fictitious_lists and not context.broker.is_paper:
        raise ConfigurationError(
            "--fictitious-lists is for trying out, on paper: real money needs the published ones, --lists."
        )
    hermes = Hermes(context.store.trading, [NewsFile(path, clock) for path in news], HermesConfig(), clock)
    check_lock = stack.enter_context(trading_alone(context.store))
    pipeline = build_pipeline(context)
    worker = f"aqf-trade-{os.getpid()}"

    def step() -> Round:
        check_lock()
        for failure in hermes.collect().failures:
            screen.say(f"  {failure.source} cannot be read: {failure.reason}")
        done = run_round(pipeline, worker)
        if not pipeline.housekeeping.synced.reachable:
            screen.say(f"  the broker does not answer: {pipeline.housekeeping.synced.reason}")
        return done

    return step, clock, hours


def _open_market(stack: ExitStack, source: str, settings: Settings, clock: Clock) -> MarketData:
    from agents.trading.packaged_market import load_packaged_market, read_csv_market

    if source == "packaged":
        return load_packaged_market()
    if source == "alpaca":
        from agents.trading.broker_market import AlpacaDataConfig, AlpacaMarket

        key_id, secret = settings.require_alpaca_keys()
        return stack.enter_context(AlpacaMarket(AlpacaDataConfig(key_id=key_id, secret=secret)))
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
    ends = Counter(end_of(trace) for trace in done.traces)
    click.echo(f"{done.at:%Y-%m-%d %H:%M} UTC: equity {worth}, {len(done.traces)} signals decided")
    for (stage, constraint), n in ends.most_common():
        click.echo(f"  {n:5d}  {stage}{f': {constraint}' if constraint else ''}")
