"""Watchdog: asks every agent how it is doing, restarts what has failed, and lets a person know when that changes.

Hides the loop and the counting. Promises one stored report an agent and round, no more restarts than allowed, an alert on a
change only, restarts of this process included, and that no agent's error, nor the store's, keeps it from the others.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from agents.trading.alerts import Alerts
from core.clock import Clock
from core.errors import AQFError, DataError, StoreError
from core.message import Message
from core.store.trading import TradingStore
from core.types import AgentHealth, Count, HealthReport, NotNegative, Positive

_log = logging.getLogger(__name__)

_LONGEST = 2000  # characters of an error that are stored

NAME = "watchdog"
"""Under which it reports on itself: failed while the store does not take its reports."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchdogConfig(Message):
    """How often it looks, and what it may do.

    Parameters
    ----------
    interval_seconds : float, default=60
    max_restarts : int, default=5
        Of one agent, until it has been well for long enough.
    restart_cooldown_seconds : float, default=120
        Between two restarts of one agent.
    forgive_seconds : float, default=3600
        Healthy for so long, an agent may be restarted as often as at first.
    """

    interval_seconds: Positive = 60.0
    max_restarts: Count = 5
    restart_cooldown_seconds: NotNegative = 120.0
    forgive_seconds: Positive = 3600.0


@dataclass(kw_only=True)
class _Ward:
    check: Callable[[], HealthReport]
    restart: Callable[[], None] | None
    errors: int = 0
    restarts: int = 0
    restarted_at: datetime | None = None
    healthy_since: datetime | None = field(default=None)


class Watchdog:
    """Watch over agents.

    Parameters
    ----------
    store : TradingStore
    config : WatchdogConfig
    clock : Clock
    alerts : Alerts
        Told of every state; it tells a person of changes.

    Notes
    -----
    What each agent was when this process stopped is read from the store, so that a restart repeats no alert. Where it cannot
    be read, or an agent is new, it is taken to have been healthy.
    """

    def __init__(self, store: TradingStore, config: WatchdogConfig, clock: Clock, alerts: Alerts) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._alerts = alerts
        self._wards: dict[str, _Ward] = {}
        self._known = self._load_known()
        alerts.remember(NAME, self._known.get(NAME, AgentHealth.HEALTHY).value)

    @property
    def interval(self) -> timedelta:
        """How often it looks."""
        return timedelta(seconds=self._config.interval_seconds)

    def register(self, agent_name: str, check: Callable[[], HealthReport], restart: Callable[[], None] | None = None) -> None:
        """Watch an agent.

        Parameters
        ----------
        agent_name : str
        check : callable
            Returns how it is doing now, and soon: whoever looks waits for it. An error of the framework, the system or the
            network means failed.
        restart : callable, optional
            Brings a failed agent back; None where only a person can.

        Raises
        ------
        DataError
            If the name is taken.
        """
        if agent_name in self._wards or agent_name == NAME:
            raise DataError(f"an agent named {agent_name!r} is watched already; choose another name.")
        self._wards[agent_name] = _Ward(check=check, restart=restart)
        self._alerts.remember(agent_name, self._known.get(agent_name, AgentHealth.HEALTHY).value)

    def look(self) -> list[HealthReport]:
        """Ask every agent once, store and tell what they say, restart what has failed, and return the reports."""
        reports, trouble = [], ""
        for name, ward in list(self._wards.items()):
            report = self._ask(name, ward)
            trouble = self._keep(report) or trouble
            self._alerts.report(name, report.status.value, report.message)
            self._mend(name, ward, report)
            reports.append(report)
        status = AgentHealth.FAILED if trouble else AgentHealth.HEALTHY
        own = HealthReport(agent_name=NAME, status=status, message=trouble, checked_at=self._clock.now())
        late = self._keep(own)
        if late and not trouble:
            own = replace(own, status=AgentHealth.FAILED, message=late)
        self._alerts.report(NAME, own.status.value, own.message)
        return [*reports, own]

    def run(self, stop: threading.Event) -> None:
        """Look every `interval_seconds` until `stop` is set."""
        while not stop.is_set():
            self.look()
            stop.wait(self._config.interval_seconds)

    def _load_known(self) -> dict[str, AgentHealth]:
        try:
            return {report.agent_name: report.status for report in self._store.latest_health()}
        except StoreError as error:
            _log.warning("the last health of the agents cannot be read, all are taken to have been healthy: %s", error)
            return {}

    def _ask(self, name: str, ward: _Ward) -> HealthReport:
        try:
            return replace(ward.check(), agent_name=name, checked_at=self._clock.now())
        except (AQFError, OSError) as error:
            ward.errors += 1
            message = f"the check failed: {type(error).__name__}: {error}"[:_LONGEST]
            return HealthReport(
                agent_name=name,
                status=AgentHealth.FAILED,
                message=message,
                error_count=ward.errors,
                checked_at=self._clock.now(),
            )

    def _keep(self, report: HealthReport) -> str:
        """Store a report, and return what went wrong, or nothing."""
        try:
            self._store.save_health(report)
        except StoreError as error:
            _log.error("the health of %s could not be stored: %s", report.agent_name, error)
            return f"the store does not take reports: {error}"
        return ""

    def _mend(self, name: str, ward: _Ward, report: HealthReport) -> None:
        if report.status is not AgentHealth.FAILED:
            self._forgive(ward, report)
            return
        ward.healthy_since = None
        if ward.restart is None or ward.restarts >= self._config.max_restarts:
            return
        pause = timedelta(seconds=self._config.restart_cooldown_seconds)
        if ward.restarted_at is not None and report.checked_at - ward.restarted_at < pause:
            return
        ward.restarts += 1
        ward.restarted_at = report.checked_at
        _log.warning("restarting %s, %d of %d", name, ward.restarts, self._config.max_restarts)
        try:
            ward.restart()
        except (AQFError, OSError) as error:
            _log.error("%s could not be restarted: %s", name, error)

    def _forgive(self, ward: _Ward, report: HealthReport) -> None:
        if report.status is not AgentHealth.HEALTHY:
            ward.healthy_since = None
            return
        ward.healthy_since = ward.healthy_since or report.checked_at
        if report.checked_at - ward.healthy_since >= timedelta(seconds=self._config.forgive_seconds):
            ward.restarts, ward.restarted_at = 0, None
