"""Desk: the traders and everybody around them, in one process and on one thread.

Hides in which order they work: news first, then a round of the pipeline, and the watchdog whenever it is due. Promises that
only a round decides; what goes on between rounds, and while the exchange is closed, asks, listens and reports; and that each
round tells what sources had and was not kept, once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from agents.trading.feeds import Dropped
from agents.trading.hermes import Harvest, source_health
from agents.trading.pipeline import Pipeline
from agents.trading.running import OpeningHours, Round, run_round, run_rounds
from agents.trading.upkeep import APOLLO, Upkeep
from agents.trading.watchdog import Watchdog
from core.types import HealthReport

HERMES = "hermes"
"""Under which all producers report."""
_LEAST_COLLECT_SECONDS = 60.0


class Producer(Protocol):
    """Who puts signals into the store."""

    def collect(self) -> Harvest:
        """Store what is new, and say which sources failed.

        It is asked while the exchange is closed too, so it must answer soon where nothing is new.
        """


class Desk:
    """Trade, and look after it.

    Parameters
    ----------
    pipeline : Pipeline
    watchdog : Watchdog
        Nobody is registered with it yet, or nobody of the desk.
    worker : str
        Name under which signals are claimed.
    producers : sequence of Producer
    upkeep : Upkeep, optional
    check : callable
        Raises where this process may not trade any more; called before each round.
    tell : callable
        Told in a line of what went wrong and stops nothing.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        watchdog: Watchdog,
        *,
        worker: str,
        producers: Sequence[Producer] = (),
        upkeep: Upkeep | None = None,
        check: Callable[[], None] = lambda: None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.pipeline = pipeline
        self._watchdog = watchdog
        self._worker = worker
        self._producers = tuple(producers)
        self._upkeep = upkeep
        self._check, self._tell = check, tell
        self._clock = pipeline.context.clock
        self._harvests: list[Harvest] = []
        self._dropped: list[Dropped] = []
        self._dropped_last: dict[str, frozenset[Dropped]] = {}
        self._collected_at: datetime | None = None
        self._looked_at: datetime | None = None
        pipeline.register(watchdog)
        # Neither has a breaker: one source or task that fails keeps no other from its work, and no decision waits for them.
        watchdog.register(HERMES, self._report_producers, self._ask_again)
        if upkeep is not None:
            watchdog.register(APOLLO, upkeep.report, self._ask_again)

    def trade(
        self,
        *,
        hours: OpeningHours,
        every_seconds: float,
        sleep: Callable[[float], None],
        on_round: Callable[[Round], None],
        on_wait: Callable[[datetime], None],
        most: int | None = None,
    ) -> int:
        """Recover, whether the exchange is open or not, then do rounds as `run_rounds` does, and rest between them.

        Parameters
        ----------
        hours, every_seconds, sleep, on_round, on_wait, most
            As of :func:`agents.trading.running.run_rounds`.

        Returns
        -------
        int
            Rounds done.

        Raises
        ------
        StoreError, ConfigurationError
            As `round` and `Pipeline.recover`.
        """
        self.pipeline.recover()
        self._tell_of_broker()
        return run_rounds(
            self.round,
            clock=self._clock,
            hours=hours,
            every_seconds=every_seconds,
            rest=lambda: self.rest(collect_seconds=max(every_seconds, _LEAST_COLLECT_SECONDS)),
            rest_seconds=self._watchdog.interval.total_seconds(),
            sleep=sleep,
            on_round=on_round,
            on_wait=on_wait,
            most=most,
        )

    def round(self) -> Round:
        """Take in news, bring the book up to date, decide on all that waits, and tell what was not kept since the last round.

        Raises
        ------
        StoreError
            If the store cannot be reached or refuses; what was decided stays, and the next round goes on from there.
        """
        self._check()
        self._collect()
        done = replace(run_round(self.pipeline, self._worker), dropped=tuple(self._dropped))
        self._dropped.clear()
        self._tell_of_broker()
        return done

    def rest(self, *, collect_seconds: float) -> None:
        """Do what is due between rounds: a look at everybody, and news where no round has asked for them for so long.

        Raises
        ------
        StoreError
            If news cannot be stored. A look has its own way with that: it says so, and goes on.
        """
        if self._is_due(self._looked_at, self._watchdog.interval):
            self.look()
        if self._is_due(self._collected_at, timedelta(seconds=collect_seconds)):
            self._collect()

    def look(self) -> list[HealthReport]:
        """Ask everybody how they are doing now, and return what they say."""
        self._looked_at = self._clock.now()
        return self._watchdog.look()

    def _is_due(self, last: datetime | None, every: timedelta) -> bool:
        return last is None or self._clock.now() - last >= every

    def _collect(self) -> None:
        self._collected_at = self._clock.now()
        self._harvests = [producer.collect() for producer in self._producers]
        self._note_dropped([dropped for harvest in self._harvests for dropped in harvest.dropped])
        failures = [failure for harvest in self._harvests for failure in harvest.failures]
        for failure in failures:
            self._tell(f"{failure.source} cannot be read: {failure.reason}")
        for failure in () if self._upkeep is None else self._upkeep.run_due():
            self._tell(f"{failure.source} must wait: {failure.reason}")

    def _note_dropped(self, found: Sequence[Dropped]) -> None:
        """Keep for the next round what was not dropped before: a feed comes whole again when anything in it is new."""
        by_source: dict[str, dict[Dropped, None]] = {}
        for dropped in found:
            by_source.setdefault(dropped.source, {})[dropped] = None
        for source, now in by_source.items():
            before = self._dropped_last.get(source, frozenset())
            self._dropped += [dropped for dropped in now if dropped not in before]
            self._dropped_last[source] = frozenset(now)

    def _ask_again(self) -> None:
        """Collect at the next rest, however long ago the last time was."""
        self._collected_at = None

    def _tell_of_broker(self) -> None:
        synced = self.pipeline.housekeeping.synced
        if not synced.reachable:
            self._tell(f"the broker does not answer: {synced.reason}")

    def _report_producers(self) -> HealthReport:
        failures = [failure for harvest in self._harvests for failure in harvest.failures]
        is_lost = all(harvest.is_lost for harvest in self._harvests)
        return source_health(HERMES, failures, is_lost=is_lost, checked_at=self._clock.now())
