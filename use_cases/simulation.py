"""Trading simulation of a use case: its signals, bar by bar, through the one pipeline, on a paper account of its own.

Hides the store it keeps and how it goes on after a crash. Promises that no bar behind the seal is read, that what is known at
the close of a bar is traded at the next, and that nothing of it touches the records of the real desk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from agents.brokers.paper import PaperBroker, PaperConfig
from agents.research.runner import ResearchContext
from agents.trading.ares import AresConfig
from agents.trading.context import TradingConfig, TradingContext
from agents.trading.daily_report import DailyReport, build_daily_report
from agents.trading.expectations import Expectation, keep_expectation
from agents.trading.gates import build_gates
from agents.trading.market_data import VIX
from agents.trading.packaged_market import PanelMarket, load_packaged_market
from agents.trading.pipeline import Pipeline, build_pipeline
from agents.trading.sanctions import FictitiousLists
from agents.trading.sessions import BarSessions
from core.clock import FixedClock
from core.errors import DataError, MissingDataError
from core.market.panel import Panel
from core.settings import Settings
from core.store.decisions import DIRECT
from core.store.opening import Store
from core.store.rehearsal import side_store
from core.store.trading_lock import trading_alone
from core.store.trading_records import PerformanceStats
from use_cases.base import StrategyUseCase
from use_cases.expectation import compute_expectation

MIN_BARS = 21
_A_BAR = timedelta(days=7)

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class SimulationPlan:
    """What is simulated.

    Parameters
    ----------
    begin, end : datetime, optional
        First and last bar, UTC; by default from the first bar with a VIX to the last before the seal.
    cash : float, default=250000
        What the account begins with.
    proxy_vix : bool, default=False
        Take realised volatility where no VIX is packaged.
    """

    begin: datetime | None = None
    end: datetime | None = None
    cash: float = 250_000.0
    proxy_vix: bool = False


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What a simulation came to.

    Parameters
    ----------
    report : DailyReport
        As of the last bar.
    first, last : datetime
        Bars it ran from and to, UTC.
    n_bars : int
    resumed : bool
        Whether a run before this one had begun it.
    stats : PerformanceStats
    expectation : Expectation or None
        What the same rule gave per trade on the bars before; None where it told nothing there.
    database : str
        Where its records are, on the embedded server.
    """

    report: DailyReport
    first: datetime
    last: datetime
    n_bars: int
    resumed: bool
    stats: PerformanceStats
    expectation: Expectation | None
    database: str


def simulate(
    case: StrategyUseCase,
    plan: SimulationPlan,
    settings: Settings,
    *,
    on_progress: OnProgress = lambda done, total: None,
) -> Simulation:
    """Trade a use case bar by bar, and go on where a run of the same plan was stopped.

    Parameters
    ----------
    case : StrategyUseCase
    plan : SimulationPlan
    settings : Settings
        Where the data set's seal is kept, and in whose home the simulation keeps a database of its own.
    on_progress : callable, optional
        Told how many bars of how many are done.

    Raises
    ------
    DataError
        If the plan reaches behind the seal.
    MissingDataError
        If there are too few bars to simulate.
    StoreError
        If a store cannot be reached or refuses, or another process simulates the same plan; the same call goes on from there.
    """
    with ResearchContext.from_settings(settings) as research:
        dataset = case.ingest(research)
        panel = research.store.researcher.load_panel(dataset)
    if plan.end is not None and plan.end >= dataset.sealed_from:
        raise DataError(
            f"the simulation must end before {dataset.sealed_from:%Y-%m-%d}, where the sealed bars of {dataset.name} begin, "
            f"was {plan.end:%Y-%m-%d}: whoever looks at what they would have earned has opened them."
        )
    market = load_packaged_market(panel, proxy_vix=plan.proxy_vix)
    bars = _choose_bars(panel, market, plan)
    expectation = compute_expectation(case, panel, bars[0])
    identity = {
        "case": case.name,
        "data": panel.content_sha256(),
        "bars": [bars[0].isoformat(), bars[-1].isoformat()],
        "cash": plan.cash,
        "proxy_vix": plan.proxy_vix,
    }
    digits = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    database = f"aqf_simulation_{digits}"
    with side_store(settings, database) as store, trading_alone(store):
        clock = FixedClock(bars[0])
        if expectation is not None:
            keep_expectation(store.service, DIRECT, expectation)
        pipeline = _open_desk(store, clock, market, bars, plan)
        resumed = _run(case, panel, market, bars, pipeline, clock, on_progress)
        report = build_daily_report(
            store,
            bars[-1],
            title=f"{case.name.replace('_', ' ').capitalize()}, simulated {bars[0]:%Y-%m-%d} to {bars[-1]:%Y-%m-%d}",
            notes=_notes(case, dataset.name, market, expectation),
        )
    return Simulation(
        report=report,
        first=bars[0],
        last=bars[-1],
        n_bars=len(bars),
        resumed=resumed,
        stats=report.stats,
        expectation=expectation,
        database=database,
    )


def report_folder(settings: Settings, case: StrategyUseCase) -> Path:
    """Return where the report of a simulation goes if nothing else is said."""
    return settings.home / "simulations" / case.name


def _choose_bars(panel: Panel, market: PanelMarket, plan: SimulationPlan) -> list[datetime]:
    times = [stamp.to_pydatetime() for stamp in panel.index]
    begin = plan.begin
    if begin is None:
        begin = next((at for at in times if market.get_quote(VIX, at) is not None), None)
        if begin is None:
            raise MissingDataError("no bar before the seal has a VIX: take `proxy_vix`, or another data set.")
    chosen = [at for at in times if at >= begin and (plan.end is None or at.date() <= plan.end.date())]
    if len(chosen) < MIN_BARS:
        raise MissingDataError(
            f"a simulation needs at least {MIN_BARS} bars, from {begin:%Y-%m-%d} on there are {len(chosen)}."
        )
    return chosen


def _open_desk(
    store: Store,
    clock: FixedClock,
    market: PanelMarket,
    bars: list[datetime],
    plan: SimulationPlan,
) -> Pipeline:
    # With daily bars an entry waits for the next close, which the sessions end it at; no price is older than a bar then.
    config = TradingConfig(ares=AresConfig(expiry_minutes=_A_BAR / timedelta(minutes=1)))
    context = TradingContext(
        store=store,
        broker=PaperBroker(store.trading.gateway, PaperConfig(initial_cash=plan.cash), clock),
        data=market,
        gates=build_gates(store.trading, market, FictitiousLists(clock), clock),
        clock=clock,
        sessions=BarSessions(bars),
        config=config,
    )
    return build_pipeline(context)


def _run(
    case: StrategyUseCase,
    panel: Panel,
    market: PanelMarket,
    bars: list[datetime],
    pipeline: Pipeline,
    clock: FixedClock,
    on_progress: OnProgress,
) -> bool:
    """Go through the bars that are not done, and return whether some were."""
    broker: Any = pipeline.context.broker
    broker.connect()
    reached = _reached(pipeline)
    for place, at in enumerate(bars):
        if reached is not None and at < reached:
            continue
        if at > clock.now():
            clock.advance(at - clock.now())
        broker.on_bars([bar for bar in market.bars_at(at) if bar.symbol in panel.symbols])
        pipeline.tick()
        signals = case.raw_signals(at, since=bars[place - 1] if place else None, panel=panel)
        decided = pipeline.log.find_decided([signal.signal_id for signal in signals])
        pipeline.run([signal for signal in signals if signal.signal_id not in decided])
        on_progress(place + 1, len(bars))
    return reached is not None


def _reached(pipeline: Pipeline) -> datetime | None:
    """Return the bar at which a run before this one was stopped, whose work may be half done."""
    rows = pipeline.log.gateway.select("paper_bars", columns=("last_at",), order=("-last_at",), limit=1)
    return None if not rows else rows[0]["last_at"]


def _notes(case: StrategyUseCase, dataset: str, market: PanelMarket, expectation: Expectation | None) -> tuple[str, ...]:
    promised = (
        f"Trades of the same rule brought {expectation.return_per_trade:+.2%} on average, net, in the five years before: that "
        "is what each outcome is held against in the table live_performance."
        if expectation is not None
        else "The same rule told nothing in the years before, so there is no expectation to hold outcomes against."
    )
    return (
        f"A simulation on {dataset} with a paper account; it ends before the sealed bars. It is no evidence of an edge: it was "
        "not counted as a trial.",
        "Orders wait one bar at the last close; where only closes are known, an order meets one price a day and a stop is "
        "filled at the close beyond it.",
        "Names were screened against made-up sanctions lists.",
        promised,
        *market.notes,
    )
