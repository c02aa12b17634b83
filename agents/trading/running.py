"""Rounds: let time pass at the paper broker, bring the book up to date, decide on what is new, while the exchange is open.

Hides in which order that is done. Promises that nothing is decided while the exchange is closed, and that a round which a
crash cut short is made up for by the next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from agents.brokers.paper import PaperBroker
from agents.trading.argus import Valuation
from agents.trading.feeds import Dropped
from agents.trading.market_data import Bar, MarketData
from agents.trading.pipeline import Pipeline
from core.clock import Clock
from core.errors import DataError
from core.types import DecisionTrace

_log = logging.getLogger(__name__)

_BARS_BACK = 10
_MOST_BARS_BACK = 50_000
"""Half a year of minutes."""


class OpeningHours(Protocol):
    """When an exchange trades."""

    def closes_at(self, at: datetime) -> datetime | None:
        """Return when the session ends in which a time lies; None outside of one."""

    def next_open(self, at: datetime) -> datetime:
        """Return when the next session after a time begins."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one round did.

    Parameters
    ----------
    at : datetime
        When it began, UTC.
    traces : tuple of DecisionTrace
    valuation : Valuation
        At its end.
    dropped : tuple of Dropped
        What the sources had since the last round and was not kept.
    broker_reachable : bool, default=True
        Whether the broker answered when it was last asked; where it did not, nothing was ordered.
    """

    at: datetime
    traces: tuple[DecisionTrace, ...]
    valuation: Valuation
    dropped: tuple[Dropped, ...] = ()
    broker_reachable: bool = True


def run_round(pipeline: Pipeline, worker: str) -> Round:
    """Do one round: until no signal waits in the store.

    Parameters
    ----------
    pipeline : Pipeline
    worker : str
        Name under which signals are claimed.

    Raises
    ------
    StoreError
        If the store cannot be reached or refuses; what was decided stays, and the next round goes on from there.
    """
    context = pipeline.context
    now = context.clock.now()
    if isinstance(context.broker, PaperBroker):
        context.broker.connect()
        feed_broker(context.broker, context.data, now, _concerned(pipeline))
    valuation = pipeline.tick()
    traces: list[DecisionTrace] = []
    while decided := pipeline.work(worker):
        traces += decided
    return Round(
        at=now,
        traces=tuple(traces),
        valuation=pipeline.argus.valuation or valuation,
        broker_reachable=pipeline.housekeeping.synced.reachable,
    )


def run_rounds(
    step: Callable[[], Round],
    *,
    clock: Clock,
    hours: OpeningHours,
    every_seconds: float,
    rest: Callable[[], None],
    rest_seconds: float,
    sleep: Callable[[float], None],
    on_round: Callable[[Round], None],
    on_wait: Callable[[datetime], None],
    most: int | None = None,
) -> int:
    """Do rounds while the exchange is open, one every so often, and wait for its opening while it is closed.

    Parameters
    ----------
    step : callable
        Does one round.
    clock : Clock
    hours : OpeningHours
    every_seconds : float
        From the beginning of a round to that of the next.
    rest : callable
        Does what is due between rounds: after each round, and then every `rest_seconds`, while the exchange is closed too.
    rest_seconds : float
    sleep : callable
        Takes seconds, `rest_seconds` at most, so that a laptop that was closed meanwhile does not oversleep.
    on_round, on_wait : callable
        Told of each round, and of the opening that is waited for.
    most : int, optional
        Rounds after which it ends; for ever when None.

    Returns
    -------
    int
        Rounds done.
    """

    def wait_until(at: datetime) -> None:
        rest()
        while (left := (at - clock.now()).total_seconds()) > 0.0:
            sleep(min(left, rest_seconds))
            if clock.now() < at:
                rest()

    done = 0
    while most is None or done < most:
        now = clock.now()
        if hours.closes_at(now) is None:
            opening = hours.next_open(now)
            on_wait(opening)
            wait_until(opening)
            continue
        on_round(step())
        done += 1
        if most is None or done < most:
            wait_until(now + timedelta(seconds=every_seconds))
    return done


def feed_broker(broker: PaperBroker, data: MarketData, now: datetime, symbols: Collection[str]) -> int:
    """Let the bars of some symbols meet the orders of a paper broker, and return how many fills that made.

    Notes
    -----
    All bars since the last that met the orders of a symbol, however long ago that was, so that no stop is passed by unseen; at
    most 50,000, half a year of minutes, and a warning where those do not reach back. A bar that the broker has seen is passed
    over by it, so that feeding again fills nothing twice. Symbols whose bars cannot be had wait for the next round.
    """
    bars: list[Bar] = []
    waiting = broker.waiting_since()
    for symbol in sorted(symbols):
        try:
            bars += _unmet_bars(data, symbol, now, waiting.get(symbol))
        except DataError as error:
            _log.warning("no time passes for the orders of %s: %s", symbol, error)
    return len(broker.on_bars(bars))


def _unmet_bars(data: MarketData, symbol: str, now: datetime, since: datetime | None) -> list[Bar]:
    """Return the last bars, so many that they reach back to a time."""
    n = _BARS_BACK
    while True:
        bars = data.list_bars(symbol, now, n)
        if since is None or len(bars) < n or bars[0].at <= since:
            return bars
        if n == _MOST_BARS_BACK:
            _log.warning("the orders of %s wait since %s, and meet no bar before %s", symbol, since, bars[0].at)
            return bars
        n = min(10 * n, _MOST_BARS_BACK)


def _concerned(pipeline: Pipeline) -> set[str]:
    orders = pipeline.log.list_open_orders()
    return {order.symbol for order in orders} | {line.symbol for line in pipeline.log.list_ledger() if line.qty}
