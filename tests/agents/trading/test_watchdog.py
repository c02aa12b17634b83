import logging
import threading
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

from agents.trading.alerts import Alert, Alerts, AlertsConfig
from agents.trading.watchdog import Watchdog, WatchdogConfig
from core.clock import FixedClock
from core.errors import BrokerError, DataError
from core.store.opening import Store
from core.store.trading import TradingStore
from core.types import AgentHealth, HealthReport
from tests.core.store.trading import NOW

HEALTHY, DEGRADED, FAILED = AgentHealth


class Ears:
    name = "ears"

    def __init__(self) -> None:
        self.heard: list[str] = []

    def send(self, alert: Alert) -> None:
        self.heard.append(f"{alert.subject}: {alert.before} -> {alert.state}")


class Agent:
    """An agent that is as it is told to be, and may be cured by a restart."""

    def __init__(self, *, cured: bool = False) -> None:
        self.status, self.cured, self.restarts = HEALTHY, cured, 0
        self.error: Exception | None = None
        self.breaks_on_restart = False

    def check(self) -> HealthReport:
        if self.error is not None:
            raise self.error
        return HealthReport(agent_name="anyone", status=self.status, message="as told", error_count=3, checked_at=NOW)

    def restart(self) -> None:
        self.restarts += 1
        if self.breaks_on_restart:
            raise BrokerError("cannot be started")
        if self.cured:
            self.status = HEALTHY


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def ears() -> Ears:
    return Ears()


@pytest.fixture
def trading(store: Store) -> Iterator[TradingStore]:
    yield store.trading


def watch(
    trading: TradingStore, clock: FixedClock, ears: Ears, *agents: Agent, config: WatchdogConfig | None = None
) -> Watchdog:
    watchdog = Watchdog(trading, config or WatchdogConfig(), clock, Alerts([ears], AlertsConfig(most=1000), clock))
    for number, agent in enumerate(agents):
        watchdog.register(f"agent {number}", agent.check, agent.restart)
    return watchdog


def rounds(watchdog: Watchdog, clock: FixedClock, n: int, *, seconds: float = 60.0) -> None:
    for _ in range(n):
        clock.advance(timedelta(seconds=seconds))
        watchdog.look()


def test_a_round_stores_one_report_for_every_agent_and_one_for_itself(
    trading: TradingStore, clock: FixedClock, ears: Ears
) -> None:
    well, ill = Agent(), Agent()
    ill.status = DEGRADED
    reports = watch(trading, clock, ears, well, ill).look()
    assert [(report.agent_name, report.status) for report in reports] == [
        ("agent 0", HEALTHY),
        ("agent 1", DEGRADED),
        ("watchdog", HEALTHY),
    ]
    assert trading.latest_health() == reports
    assert ears.heard == ["agent 1: healthy -> degraded"]


def test_alerts_come_on_transitions_only_and_a_restart_repeats_none(
    trading: TradingStore, clock: FixedClock, ears: Ears
) -> None:
    agent = Agent()
    watchdog = watch(trading, clock, ears, agent)
    rounds(watchdog, clock, 3)
    agent.status = FAILED
    rounds(watchdog, clock, 3)
    again = watch(trading, clock, ears, agent)
    rounds(again, clock, 3)
    agent.status = HEALTHY
    rounds(again, clock, 3)
    assert ears.heard == ["agent 0: healthy -> failed", "agent 0: failed -> healthy"]


def test_a_check_that_fails_is_a_failed_agent_and_the_others_are_still_asked(
    trading: TradingStore, clock: FixedClock, ears: Ears
) -> None:
    broken, well = Agent(), Agent()
    broken.error = BrokerError("no answer")
    watchdog = watch(trading, clock, ears, broken, well)
    watchdog.look()
    first, second, _ = watchdog.look()
    assert (first.status, first.message, first.error_count) == (FAILED, "the check failed: BrokerError: no answer", 2)
    assert second.status is HEALTHY
    broken.error = ConnectionResetError("gone")
    assert watchdog.look()[0].status is FAILED


def test_a_failed_agent_is_restarted_at_once_and_then_no_sooner_than_after_the_cooldown(
    trading: TradingStore, clock: FixedClock, ears: Ears
) -> None:
    agent = Agent()
    agent.status = FAILED
    watchdog = watch(trading, clock, ears, agent)
    watchdog.look()
    assert agent.restarts == 1
    rounds(watchdog, clock, 1, seconds=119.999)
    assert agent.restarts == 1
    rounds(watchdog, clock, 1, seconds=0.001)
    assert agent.restarts == 2


def test_a_degraded_agent_is_not_restarted(trading: TradingStore, clock: FixedClock, ears: Ears) -> None:
    agent = Agent()
    agent.status = DEGRADED
    rounds(watch(trading, clock, ears, agent), clock, 5)
    assert agent.restarts == 0


def test_after_five_restarts_it_is_left_to_a_person(trading: TradingStore, clock: FixedClock, ears: Ears) -> None:
    agent = Agent()
    agent.status = FAILED
    rounds(watch(trading, clock, ears, agent), clock, 30)
    assert agent.restarts == 5
    assert ears.heard == ["agent 0: healthy -> failed"]


def test_an_agent_that_flaps_gets_no_more_restarts_than_one_that_stays_down(
    trading: TradingStore, clock: FixedClock, ears: Ears
) -> None:
    agent = Agent(cured=True)
    watchdog = watch(trading, clock, ears, agent)
    for _ in range(30):
        agent.status = FAILED
        rounds(watchdog, clock, 4)
    assert agent.restarts == 5


@pytest.mark.parametrize(("minutes", "restarts"), [(59, 5), (60, 6)])
def test_an_hour_of_health_forgives(trading: TradingStore, clock: FixedClock, ears: Ears, minutes: int, restarts: int) -> None:
    agent = Agent()
    agent.status = FAILED
    watchdog = watch(trading, clock, ears, agent)
    rounds(watchdog, clock, 30)
    agent.status = HEALTHY
    rounds(watchdog, clock, 1 + minutes)
    agent.status = FAILED
    rounds(watchdog, clock, 1)
    assert agent.restarts == restarts


def test_a_restart_that_fails_is_logged_and_counted(
    trading: TradingStore, clock: FixedClock, ears: Ears, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Agent()
    agent.status, agent.breaks_on_restart = FAILED, True
    with caplog.at_level(logging.ERROR):
        rounds(watch(trading, clock, ears, agent), clock, 30)
    assert agent.restarts == 5
    assert "agent 0 could not be restarted: cannot be started" in caplog.text


def test_an_agent_without_a_restart_is_reported_only(trading: TradingStore, clock: FixedClock, ears: Ears) -> None:
    agent = Agent()
    agent.status = FAILED
    watchdog = watch(trading, clock, ears)
    watchdog.register("argus", agent.check)
    rounds(watchdog, clock, 5)
    assert ears.heard == ["argus: healthy -> failed"]


def test_a_store_that_goes_away_is_told_and_nobody_is_forgotten(
    trading: TradingStore, clock: FixedClock, ears: Ears, owner: psycopg.Connection
) -> None:
    agent = Agent()
    watchdog = watch(trading, clock, ears, agent)
    watchdog.look()
    owner.execute("alter table agent_health rename to away")
    agent.status = FAILED
    rounds(watchdog, clock, 3)
    owner.execute("alter table away rename to agent_health")
    agent.status = HEALTHY
    rounds(watchdog, clock, 2)
    assert ears.heard == [
        "agent 0: healthy -> failed",
        "watchdog: healthy -> failed",
        "agent 0: failed -> healthy",
        "watchdog: failed -> healthy",
    ]
    assert agent.restarts == 2


def test_a_watchdog_starts_though_the_last_health_cannot_be_read(
    trading: TradingStore, clock: FixedClock, ears: Ears, owner: psycopg.Connection
) -> None:
    owner.execute("drop table agent_health cascade")
    watch(trading, clock, ears, Agent()).look()
    assert ears.heard == ["watchdog: healthy -> failed"]


def test_the_loop_ends_when_it_is_told_to(trading: TradingStore, clock: FixedClock, ears: Ears) -> None:
    stop, asked = threading.Event(), []

    def check() -> HealthReport:
        asked.append(True)
        if len(asked) == 3:
            stop.set()
        return HealthReport(agent_name="x", status=HEALTHY, checked_at=NOW)

    watchdog = watch(trading, clock, ears, config=WatchdogConfig(interval_seconds=0.001))
    watchdog.register("x", check)
    watchdog.run(stop)
    assert len(asked) == 3


def test_a_name_is_watched_once(trading: TradingStore, clock: FixedClock, ears: Ears) -> None:
    watchdog = watch(trading, clock, ears, Agent())
    for name in ("agent 0", "watchdog"):
        with pytest.raises(DataError, match="is watched already"):
            watchdog.register(name, Agent().check)
    with pytest.raises(DataError, match=r"`WatchdogConfig\.interval_seconds` must be greater than 0"):
        WatchdogConfig(interval_seconds=0)
