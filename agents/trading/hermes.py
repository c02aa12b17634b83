"""Hermes, producer: turns what sources publish into signals.

Hides nothing of where items come from (:mod:`agents.trading.feeds`, :mod:`agents.trading.news_files`) but what becomes of them.
Promises that an item is stored once, however often it is fetched; that what is not kept is told with the reason; and that one
source that fails does not keep the others from being read. It runs by itself: nothing in the pipeline waits for it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from agents.trading.feeds import Dropped, Source
from agents.trading.news import CATEGORIES, NewsItem, Urgency, read_severity
from core.clock import Clock
from core.errors import ConfigurationError, DataError
from core.store.trading import TradingStore
from core.types import AgentHealth, HealthReport, RawSignal

_SIGNALS = uuid.UUID("6f1f0c58-5f0d-4f0c-9f3e-6a2f1f9a7c11")


@dataclass(frozen=True, kw_only=True, slots=True)
class HermesConfig:
    """What Hermes keeps.

    Parameters
    ----------
    dropped_urgencies : frozenset of Urgency, default={low}
    max_ahead : timedelta, default=10 minutes
        How far a source's clock may run before ours: such an item is dated now, a later one is dropped.

    Raises
    ------
    ConfigurationError
        If the time is negative.
    """

    dropped_urgencies: frozenset[Urgency] = frozenset({Urgency.LOW})
    max_ahead: timedelta = timedelta(minutes=10)

    def __post_init__(self) -> None:
        if self.max_ahead < timedelta(0):
            raise ConfigurationError(f"`max_ahead` must not be negative, was {self.max_ahead}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFailure:
    """A source that could not be read in this round, and why."""

    source: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Harvest:
    """What a round over all sources brought.

    Parameters
    ----------
    n_new : int
        Signals that were not there before.
    n_known : int
        Items that were.
    n_held : int
        Items that are not due yet.
    dropped : tuple of Dropped
    failures : tuple of SourceFailure
    n_read : int, default=0
        Sources that could be read.
    """

    n_new: int
    n_known: int
    n_held: int
    dropped: tuple[Dropped, ...]
    failures: tuple[SourceFailure, ...]
    n_read: int = 0

    @property
    def is_lost(self) -> bool:
        """Whether there were sources and none of them could be read."""
        return bool(self.failures) and self.n_read == 0


def source_health(agent_name: str, failures: Iterable[SourceFailure], *, is_lost: bool, checked_at: datetime) -> HealthReport:
    """Return how an agent is doing by its sources: degraded where some failed, failed where none is left.

    Notes
    -----
    It names the sources and not why they failed: an address may hold a key, and a report goes to whoever is alerted.
    """
    names = ", ".join(sorted({failure.source for failure in failures}))
    if not names:
        return HealthReport(agent_name=agent_name, status=AgentHealth.HEALTHY, checked_at=checked_at)
    status = AgentHealth.FAILED if is_lost else AgentHealth.DEGRADED
    return HealthReport(agent_name=agent_name, status=status, message=f"fails: {names}"[:2000], checked_at=checked_at)


class Hermes:
    """Fetch from sources and store signals.

    Parameters
    ----------
    store : TradingStore
    sources : sequence of Source
    config : HermesConfig
    clock : Clock
    """

    def __init__(self, store: TradingStore, sources: Sequence[Source], config: HermesConfig, clock: Clock) -> None:
        self._store, self._sources, self._config, self._clock = store, tuple(sources), config, clock

    def collect(self) -> Harvest:
        """Read every source once and store what is worth it.

        Notes
        -----
        An item without a ticker is kept only when it names a company, for which Icarus may find one. A source is told that its
        items are kept after all are: a store that fails in between gets them again.

        Raises
        ------
        StoreError
            If the store refused or cannot be reached.
        """
        n_new = n_known = n_held = 0
        dropped: list[Dropped] = []
        failures: list[SourceFailure] = []
        for source in self._sources:
            try:
                batch = source.fetch()
            except DataError as error:
                failures.append(SourceFailure(source=source.name, reason=str(error)))
                continue
            dropped += batch.dropped
            n_held += batch.held
            for item in batch.items:
                reason = self._drops(item)
                if reason is not None:
                    dropped.append(Dropped(source=item.source, key=item.source_key, reason=reason))
                    continue
                stored = self._store.save_signal(self.read(item), source=item.source, source_key=item.source_key)
                n_new += stored.inserted
                n_known += not stored.inserted
            source.confirm()
        return Harvest(
            n_new=n_new,
            n_known=n_known,
            n_held=n_held,
            dropped=tuple(dropped),
            failures=tuple(failures),
            n_read=len(self._sources) - len(failures),
        )

    def read(self, item: NewsItem) -> RawSignal:
        """Return the signal that an item is; its identity follows from the source and its key."""
        return RawSignal(
            signal_id=str(uuid.uuid5(_SIGNALS, f"{item.source}\x1f{item.source_key}")),
            headline=item.headline,
            summary=item.summary,
            published_at=min(item.published_at, self._clock.now()),
            category=CATEGORIES[item.category],
            severity=read_severity(item.urgency, significant=item.significant),
            affected_tickers=item.tickers,
            supplier=item.supplier,
            source_url=item.url,
        )

    def _drops(self, item: NewsItem) -> str | None:
        if not item.tickers and item.supplier is None:
            return "it names neither a ticker nor a company."
        if item.urgency in self._config.dropped_urgencies:
            return f"its urgency is {item.urgency.value}."
        ahead = item.published_at - self._clock.now()
        if ahead > self._config.max_ahead:
            return f"it is dated {ahead} after now."
        return None
