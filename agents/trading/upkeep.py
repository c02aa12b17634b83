"""Upkeep: what Apollo does once a day while the desk is open.

Hides which days are done. Promises that the digest of a UTC day is written once, however often the desk is started, that the
SEC's listings are fetched at every start and on every day, and that neither keeps the desk from trading when it fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from agents.trading.apollo import Apollo
from agents.trading.feeds import EdgarFeed
from agents.trading.hermes import SourceFailure, source_health
from agents.trading.listings import SEC_LISTINGS_URL
from agents.trading.web import Web
from core.clock import Clock
from core.errors import ChatModelError, DataError
from core.types import HealthReport

APOLLO = "apollo"
"""Under which it reports."""


@dataclass(frozen=True, kw_only=True)
class Filers:
    """Where the tickers of EDGAR's filers come from, and the feed that wants them.

    Parameters
    ----------
    feed : EdgarFeed
    web : Web
    url : str
        Of the SEC's listings.
    """

    feed: EdgarFeed
    web: Web
    url: str = SEC_LISTINGS_URL


class Upkeep:
    """Have Apollo do what is due.

    Parameters
    ----------
    apollo : Apollo
    clock : Clock
    filers : Filers, optional
        None without EDGAR: the ticker map stays as it is then.

    Notes
    -----
    The store keeps names and tickers and not the SEC's numbers, by which EDGAR's filers are known: hence the listings are
    fetched at every start. Until they are there, filers go by their names, for which Icarus looks into the ticker map.
    """

    def __init__(self, apollo: Apollo, clock: Clock, *, filers: Filers | None = None) -> None:
        self._apollo, self._clock, self._filers = apollo, clock, filers
        self._tasks: dict[str, Callable[[], None]] = {"the daily digest": self._write_digest}
        if filers is not None:
            self._tasks["the SEC's listings"] = self._fetch_listings
        self._done: dict[str, date] = {}
        self._failures: tuple[SourceFailure, ...] = ()

    def run_due(self) -> tuple[SourceFailure, ...]:
        """Do what this day still lacks, and return what failed; that is tried again at the next call.

        Raises
        ------
        StoreError
            If the store refused or cannot be reached.
        """
        today, failures = self._clock.now().date(), []
        for name, work in self._tasks.items():
            if self._done.get(name) == today:
                continue
            try:
                work()
            except (DataError, ChatModelError) as error:
                failures.append(SourceFailure(source=name, reason=str(error)))
            else:
                self._done[name] = today
        self._failures = tuple(failures)
        return self._failures

    def report(self) -> HealthReport:
        """Return how the upkeep is doing, as of its last turn."""
        is_lost = len(self._failures) == len(self._tasks)
        return source_health(APOLLO, self._failures, is_lost=is_lost, checked_at=self._clock.now())

    def _write_digest(self) -> None:
        if not self._apollo.has_digest():
            self._apollo.write_digest()

    def _fetch_listings(self) -> None:
        assert self._filers is not None
        self._filers.feed.know(self._apollo.fetch_ticker_map(self._filers.web, self._filers.url))
