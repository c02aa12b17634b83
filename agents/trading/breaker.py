"""CircuitBreaker: after a few failures an agent is left alone for a while, and its stage refuses.

Hides counting, waiting and the row in the store. Promises that work is not called while the breaker is open, that one call at a
time tries whether it is well again, that a restart forgets nothing, and that trouble with the row changes no result of work.

::

    closed --failures within the window--> open --after a while--> half open --success--> closed
                                             ^                         |
                                             +---------failure---------+
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from core.clock import Clock
from core.errors import AQFError, StoreError
from core.message import Message, refuse
from core.store.trading import TradingStore
from core.store.trading_records import Breaker, BreakerState
from core.types import AgentHealth, Count, HealthReport, Positive

_log = logging.getLogger(__name__)

_LONGEST = 2000  # characters of an error that are shown

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakerConfig(Message):
    """When a breaker opens, and for how long.

    Parameters
    ----------
    failures : int, default=3
        Failures within the window that open it; 1 or more.
    window_seconds : float, default=300
    open_seconds : float, default=120
        Until one call may try again.
    """

    failures: Count = 3
    window_seconds: Positive = 300.0
    open_seconds: Positive = 120.0

    def _check(self) -> None:
        if self.failures == 0:
            raise refuse(self, "failures", "1 or more", self.failures)


class CircuitBreaker:
    """Guard the calls of one agent; several threads may use it.

    Parameters
    ----------
    agent_name : str
    store : TradingStore
        Its state is read here once, now, and written at every change.
    config : BreakerConfig
    clock : Clock

    Raises
    ------
    StoreError
        If the state cannot be read: a breaker that may be open is not taken for closed.

    Notes
    -----
    The row keeps how many failures there were and not when. After a restart they count as of the restart: too long rather than
    too short. A probe that a crash cut short is tried again.
    """

    def __init__(self, agent_name: str, store: TradingStore, config: BreakerConfig, clock: Clock) -> None:
        self.agent_name = agent_name
        self._store = store
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._probing = False
        self._errors = 0
        self._last_error = ""
        stored = store.load_breaker(agent_name) or Breaker(agent_name=agent_name, state=BreakerState.CLOSED)
        self._state, self._opened_at = stored.state, stored.opened_at
        self._failed_at = deque([clock.now()] * min(stored.failures, config.failures))
        self._saved = stored

    @property
    def state(self) -> BreakerState:
        """The state as of the last call."""
        return self._state

    def call(self, work: Callable[[], T], fallback: Callable[[], T]) -> T:
        """Return what `work` returns, or what `fallback` returns where the breaker is open or the work fails.

        Parameters
        ----------
        work : callable
            A failure is an error of the framework, or of the system or the network; any other is a fault of the program, which
            is counted and reaches the caller.
            Where a failure may leave something done, as with an order that nobody answered for, `work` must settle that itself:
            the refusal of the fallback says nothing about it.
        fallback : callable
            Refuses.
        """
        with self._lock:
            probe = self._admit()
        if probe is None:
            return fallback()
        finished = False
        try:
            result = work()
            finished = True
        except (AQFError, OSError) as error:
            _log.warning("%s failed: %s", self.agent_name, error)
            self._last_error = f"{type(error).__name__}: {error}"[:_LONGEST]
        finally:
            with self._lock:
                self._settle(probe=probe, succeeded=finished)
        return result if finished else fallback()

    def report(self) -> HealthReport:
        """Return how the agent is doing by its breaker: failed while open, degraded after a failure, else healthy."""
        with self._lock:
            now = self._clock.now()
            self._forget(now)
            if self._state is BreakerState.OPEN:
                health = AgentHealth.FAILED
            else:
                well = self._state is BreakerState.CLOSED and not self._failed_at
                health = AgentHealth.HEALTHY if well else AgentHealth.DEGRADED
            message = f"breaker {self._state.value}" + ("" if health is AgentHealth.HEALTHY else f": {self._last_error}")
            return HealthReport(
                agent_name=self.agent_name, status=health, message=message, error_count=self._errors, checked_at=now
            )

    def _admit(self) -> bool | None:
        """Return whether the call that comes now is a probe; None where it may not be made."""
        if self._state is BreakerState.OPEN:
            if self._opened_at is not None and self._clock.now() - self._opened_at < self._seconds(self._config.open_seconds):
                return None
            self._state = BreakerState.HALF_OPEN
            self._save()
        if self._state is BreakerState.CLOSED:
            return False
        if self._probing:
            return None
        self._probing = True
        return True

    def _settle(self, *, probe: bool, succeeded: bool) -> None:
        now = self._clock.now()
        if not succeeded:
            self._errors += 1
        if probe:
            self._probing = False
            if succeeded:
                self._failed_at.clear()
                self._state, self._opened_at = BreakerState.CLOSED, None
            else:
                self._state, self._opened_at = BreakerState.OPEN, now
        elif not succeeded and self._state is BreakerState.CLOSED:
            self._failed_at.append(now)
            self._forget(now)
            if len(self._failed_at) >= self._config.failures:
                self._state, self._opened_at = BreakerState.OPEN, now
        self._save()

    def _forget(self, now: datetime) -> None:
        while self._state is BreakerState.CLOSED and self._failed_at:
            if now - self._failed_at[0] < self._seconds(self._config.window_seconds):
                break
            self._failed_at.popleft()

    def _save(self) -> None:
        """Write the state where it differs from the row; what cannot be written now is written at the next call."""
        state = Breaker(agent_name=self.agent_name, state=self._state, failures=len(self._failed_at), opened_at=self._opened_at)
        if state == self._saved:
            return
        try:
            self._store.save_breaker(state)
            self._saved = state
        except StoreError as error:
            _log.warning("the breaker of %s is %s and could not be stored: %s", self.agent_name, self._state.value, error)

    @staticmethod
    def _seconds(seconds: float) -> timedelta:
        return timedelta(seconds=seconds)
