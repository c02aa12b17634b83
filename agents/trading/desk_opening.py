"""Opening a desk: from what a caller chose and the environment says to a desk that can trade.

Hides which class stands behind each choice. Promises that what cannot work is refused before anything is asked or sent, and
that one process alone has a desk open on a store.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from agents.brokers.opening import BrokerKind
from agents.brokers.paper import PaperConfig
from agents.trading.alerts import Alerts, AlertsConfig, configured_channels
from agents.trading.apollo import Apollo, ApolloConfig
from agents.trading.ares import AresConfig
from agents.trading.broker_market import LayeredMarket
from agents.trading.companies import company_sectors
from agents.trading.context import TradingConfig, TradingContext, find_lists
from agents.trading.desk import Desk, Producer
from agents.trading.feeds import EDGAR_PATH, EdgarFeed, NewsFeed, Source
from agents.trading.hermes import Hermes, HermesConfig
from agents.trading.icarus import IcarusConfig
from agents.trading.listings import SEC_LISTINGS_PATH, SEC_URL
from agents.trading.market_data import MarketData
from agents.trading.news_files import NewsFile
from agents.trading.packaged_market import load_packaged_market, read_csv_market
from agents.trading.pipeline import build_pipeline
from agents.trading.sanctions import FictitiousLists, ListSource, SanctionsFiles
from agents.trading.sessions import ExchangeSessions
from agents.trading.sizing import build_sizing
from agents.trading.universe import read_universe
from agents.trading.upkeep import Filers, Upkeep
from agents.trading.watchdog import Watchdog, WatchdogConfig
from agents.trading.web import Web, WebConfig
from core.clock import Clock
from core.errors import ConfigurationError
from core.provenance import code_version
from core.settings import Settings
from core.store.decisions import ALL, DecisionLog
from core.store.opening import Store
from core.store.trading_lock import trading_alone

_A_DAY = 1440.0
_WORKERS = "aqf-trade-"


@dataclass(frozen=True, kw_only=True)
class DeskOptions:
    """What a desk trades with.

    Parameters
    ----------
    broker : BrokerKind
    data : tuple of str
        Prices: ``packaged``, ``alpaca``, ``ib``, a CSV or Parquet file, or an address with ``{symbol}``; the first to know
    news : tuple of Path
        CSV or JSONL files.
    feeds : tuple of (str, str)
        Names and addresses of RSS or Atom feeds.
    edgar : bool
        Whether EDGAR's newest 8-K filings are taken in.
    lists : Path, optional
        Folder of the sanctions lists; ``sanctions`` in the home when None.
    fictitious_lists : bool
        Screen against made-up names instead.
    sizing : str
    rule_mode : bool
        Ask no model, even where one is configured.
    expiry_minutes : float
        How long an entry waits; below a day it ends with the session.
    cash : float
        Of a new account on paper.
    universe : Path, optional
        File with the tickers that may be traded, and their sectors; without it those that somebody knows.
    webhook_url : str, optional
        Goes before the one of the environment.
    """

    broker: BrokerKind = BrokerKind.PAPER
    data: tuple[str, ...] = ("packaged",)
    news: tuple[Path, ...] = ()
    feeds: tuple[tuple[str, str], ...] = ()
    edgar: bool = False
    lists: Path | None = None
    fictitious_lists: bool = False
    sizing: str = "ramp"
    rule_mode: bool = False
    expiry_minutes: float = 120.0
    cash: float = 250_000.0
    universe: Path | None = None
    webhook_url: str | None = None


@contextmanager
def open_desk(
    options: DeskOptions,
    settings: Settings,
    *,
    clock: Clock,
    hours: ExchangeSessions,
    tell: Callable[[str], None],
    producers: Callable[[TradingContext], Sequence[Producer]] = lambda context: (),
) -> Iterator[Desk]:
    """Open store, broker, agents and watchdog.

    Parameters
    ----------
    options : DeskOptions
    settings : Settings
    clock : Clock
    hours : ExchangeSessions
    tell : callable
        Told in a line of what went wrong and stops nothing.
    producers : callable
        Returns who puts signals into the store besides files and feeds.

    Raises
    ------
    ConfigurationError
        If something is chosen that is not configured, or does not go together.
    DataError
        If the file of the universe is not as `read_universe` wants it.
    StoreConflictError
        If another process trades on this store.
    """
    universe = None if options.universe is None else read_universe(options.universe)
    with ExitStack() as stack:
        web = stack.enter_context(Web(WebConfig(user_agent=user_agent(settings))))
        filers = _find_filers(settings, web) if options.edgar else None
        alerts = Alerts(configured_channels(settings, webhook_url=options.webhook_url), AlertsConfig(), clock)
        data = LayeredMarket([_open_market(stack, source, settings, clock, web) for source in options.data])
        published: ListSource = SanctionsFiles(find_lists(options.lists or settings.home / "sanctions"))
        context = stack.enter_context(
            TradingContext.from_settings(
                settings,
                data=data,
                lists=FictitiousLists(clock) if options.fictitious_lists else published,
                clock=clock,
                broker_kind=options.broker,
                # Prices come in bars of any length, and rounds at any time within one.
                paper=PaperConfig(initial_cash=options.cash, bar_seconds=None),
                config=TradingConfig(
                    icarus=IcarusConfig(universe=None if universe is None else frozenset(universe.tickers)),
                    ares=AresConfig(expiry_minutes=options.expiry_minutes),
                ),
                rule_mode=options.rule_mode,
                sizing=build_sizing(options.sizing),
                sectors={**company_sectors(), **({} if universe is None else universe.sectors)},
                # The bar of a day ends after its session: an entry that is to meet it must outlive the session.
                sessions=hours if options.expiry_minutes < _A_DAY else None,
                alerts=alerts,
            )
        )
        if options.fictitious_lists and not context.broker.is_paper:
            raise ConfigurationError(
                "--fictitious-lists is for trying out, on paper: real money needs the published ones, --lists."
            )
        store = context.store.trading
        sources: list[Source] = [NewsFile(path, clock) for path in options.news]
        sources += [NewsFeed(name, url, web) for name, url in options.feeds]
        sources += [] if filers is None else [filers.feed]
        check_lock = stack.enter_context(trading_alone(context.store))
        # Whoever had the lock before is gone, and what it took with it.
        store.release_claims(_WORKERS)
        _remember_halts(alerts, context.store)
        apollo = Apollo(store, context.store.trade_log, context.store.knowledge, ApolloConfig(), clock)
        yield Desk(
            build_pipeline(context),
            Watchdog(store, WatchdogConfig(), clock, alerts),
            worker=f"{_WORKERS}{os.getpid()}",
            # Without sources Hermes is nobody: it would pass for a producer that is well where all others fail.
            producers=(*([Hermes(store, sources, HermesConfig(), clock)] if sources else []), *producers(context)),
            upkeep=Upkeep(apollo, clock, filers=filers),
            check=check_lock,
            tell=tell,
        )


def user_agent(settings: Settings) -> str:
    """Return who asks, for those who are asked: this program, and by what whoever runs it is reached, where they said."""
    who = f"aqf/{code_version()}"
    return who if settings.contact is None else f"{who} ({settings.contact})"


def _find_filers(settings: Settings, web: Web) -> Filers:
    settings.require_contact()
    sec = settings.sec_url or SEC_URL
    return Filers(feed=EdgarFeed(web, url=f"{sec}{EDGAR_PATH}"), web=web, url=f"{sec}{SEC_LISTINGS_PATH}")


def _open_market(stack: ExitStack, source: str, settings: Settings, clock: Clock, web: Web) -> MarketData:
    if source == "packaged":
        return load_packaged_market()
    if source == "alpaca":
        from agents.trading.broker_market import AlpacaDataConfig, AlpacaMarket

        key_id, secret = settings.require_alpaca_keys()
        return stack.enter_context(AlpacaMarket(AlpacaDataConfig(key_id=key_id, secret=secret)))
    if source == "ib":
        from agents.trading.ib_market import IBDataConfig, IBMarket

        host, port = settings.ib_host or IBDataConfig.host, settings.ib_port or IBDataConfig.port
        return stack.enter_context(IBMarket(IBDataConfig(host=host, port=port)))
    if not source.startswith(("http://", "https://")):
        return read_csv_market(source)
    from agents.trading.downloaded_market import DownloadConfig, DownloadedMarket

    return DownloadedMarket(web, DownloadConfig(address=source), clock)


def _remember_halts(alerts: Alerts, store: Store) -> None:
    """Take for told which halts there are, so that a start is no news."""
    alerts.remember(f"trading {ALL}", "open")
    for halt in DecisionLog(store.trading.gateway).list_halts():
        if halt.resumed_at is None:
            alerts.remember(f"trading {halt.scope}", "halted")
