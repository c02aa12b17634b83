import logging
import threading
from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agents.trading.breaker import BreakerConfig, CircuitBreaker
from core.clock import FixedClock
from core.errors import BrokerError, DataError, StoreError, StoreUnavailableError
from core.store.opening import Store
from core.store.trading import TradingStore
from core.store.trading_records import Breaker, BreakerState
from core.types import AgentHealth
from tests.core.store.trading import NOW

CLOSED, OPEN, HALF_OPEN = BreakerState


class KeptRow:
    """The breaker's row without a database: what is kept, and whether it can be reached."""

    def __init__(self) -> None:
        self.row: Breaker | None = None
        self.away = False
        self.writes = 0

    def load_breaker(self, agent_name: str) -> Breaker | None:
        self._reach()
        return self.row

    def save_breaker(self, breaker: Breaker) -> None:
        self._reach()
        self.writes += 1
        self.row = breaker

    def _reach(self) -> None:
        if self.away:
            raise StoreUnavailableError("the database is away")


def build(store: TradingStore | KeptRow, clock: FixedClock) -> CircuitBreaker:
    return CircuitBreaker("ares", store, BreakerConfig(), clock)  # type: ignore[arg-type]


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def row() -> KeptRow:
    return KeptRow()


def fail() -> str:
    raise BrokerError("no answer")


def succeed() -> str:
    return "done"


def refuse() -> str:
    return "refused"


def call(breaker: CircuitBreaker, work: Callable[[], str] = succeed) -> str:
    return breaker.call(work, refuse)


def open_up(breaker: CircuitBreaker) -> None:
    for _ in range(3):
        assert call(breaker, fail) == "refused"


def wait(clock: FixedClock, seconds: float) -> None:
    clock.advance(timedelta(seconds=seconds))


def test_the_third_failure_within_the_window_opens_and_then_work_is_not_called(row: KeptRow, clock: FixedClock) -> None:
    breaker = build(row, clock)
    assert [call(breaker, fail), call(breaker, fail), call(breaker)] == ["refused", "refused", "done"]
    assert breaker.state is CLOSED
    assert call(breaker, fail) == "refused"
    assert breaker.state is OPEN
    assert call(breaker, lambda: pytest.fail("called while open")) == "refused"


@pytest.mark.parametrize(("age", "state"), [(299.999, OPEN), (300.0, CLOSED)])
def test_failures_older_than_300_seconds_are_forgotten(
    row: KeptRow, clock: FixedClock, age: float, state: BreakerState
) -> None:
    breaker = build(row, clock)
    call(breaker, fail)
    wait(clock, age)
    call(breaker, fail)
    call(breaker, fail)
    assert breaker.state is state


@pytest.mark.parametrize(("waited", "answer"), [(119.999, "refused"), (120.0, "done")])
def test_after_120_seconds_one_call_may_try(row: KeptRow, clock: FixedClock, waited: float, answer: str) -> None:
    breaker = build(row, clock)
    open_up(breaker)
    wait(clock, waited)
    assert call(breaker) == answer
    assert breaker.state is (CLOSED if answer == "done" else OPEN)


def test_a_probe_that_succeeds_forgets_the_failures(row: KeptRow, clock: FixedClock) -> None:
    breaker = build(row, clock)
    open_up(breaker)
    wait(clock, 120)
    call(breaker)
    assert [call(breaker, fail), call(breaker, fail)] == ["refused", "refused"]
    assert breaker.state is CLOSED


def test_a_failed_probe_opens_for_another_120_seconds(row: KeptRow, clock: FixedClock) -> None:
    breaker = build(row, clock)
    open_up(breaker)
    wait(clock, 120)
    assert call(breaker, fail) == "refused"
    assert breaker.state is OPEN
    wait(clock, 119)
    assert call(breaker) == "refused"
    wait(clock, 1)
    assert call(breaker) == "done"


def test_while_one_call_tries_the_others_are_refused(row: KeptRow, clock: FixedClock) -> None:
    breaker = build(row, clock)
    open_up(breaker)
    wait(clock, 120)
    trying, go_on, answers = threading.Event(), threading.Event(), []

    def slow() -> str:
        trying.set()
        assert go_on.wait(30)
        return "done"

    probe = threading.Thread(target=lambda: answers.append(call(breaker, slow)))
    probe.start()
    assert trying.wait(30)
    assert breaker.state is HALF_OPEN
    assert call(breaker, lambda: pytest.fail("a second probe")) == "refused"
    go_on.set()
    probe.join(30)
    assert answers == ["done"]
    assert call(breaker) == "done"


def test_a_failure_that_comes_late_does_not_decide_a_probe(row: KeptRow, clock: FixedClock) -> None:
    breaker = build(row, clock)

    def late() -> str:
        open_up(breaker)
        wait(clock, 120)
        return fail()

    assert call(breaker, late) == "refused"
    assert breaker.state is OPEN
    assert call(breaker) == "done"


def test_a_fault_of_the_program_is_counted_and_reaches_the_caller(row: KeptRow, clock: FixedClock) -> None:
    breaker = build(row, clock)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            breaker.call(lambda: str(1 / 0), refuse)
    assert breaker.state is OPEN


def test_an_error_of_the_network_is_a_failure(row: KeptRow, clock: FixedClock) -> None:
    def reset() -> str:
        raise ConnectionResetError("reset by peer")

    breaker = build(row, clock)
    assert [call(breaker, reset) for _ in range(3)] == ["refused"] * 3
    assert breaker.state is OPEN


def test_nothing_is_written_while_all_is_well(row: KeptRow, clock: FixedClock) -> None:
    breaker = build(row, clock)
    for _ in range(100):
        call(breaker)
    assert row.writes == 0


def test_trouble_with_the_row_changes_no_result_and_is_made_up_for(
    row: KeptRow, clock: FixedClock, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = build(row, clock)
    row.away = True
    with caplog.at_level(logging.WARNING):
        open_up(breaker)
        assert call(breaker) == "refused"
    assert "the breaker of ares is open and could not be stored: the database is away" in caplog.text
    row.away = False
    wait(clock, 120)
    assert call(breaker) == "done"
    call(breaker, fail)
    assert row.row == Breaker(agent_name="ares", state=CLOSED, failures=1)


def test_a_breaker_whose_state_cannot_be_read_is_not_taken_for_closed(row: KeptRow, clock: FixedClock) -> None:
    row.away = True
    with pytest.raises(StoreUnavailableError):
        build(row, clock)


def test_an_open_breaker_is_open_after_a_restart_for_the_rest_of_its_time(store: Store, clock: FixedClock) -> None:
    open_up(build(store.trading, clock))
    assert store.trading.load_breaker("ares") == Breaker(agent_name="ares", state=OPEN, failures=3, opened_at=NOW)
    wait(clock, 119)
    breaker = build(store.trading, clock)
    assert call(breaker) == "refused"
    wait(clock, 1)
    assert call(breaker) == "done"
    assert store.trading.load_breaker("ares") == Breaker(agent_name="ares", state=CLOSED)


def test_failures_before_a_restart_count_on(store: Store, clock: FixedClock) -> None:
    first = build(store.trading, clock)
    call(first, fail)
    call(first, fail)
    second = build(store.trading, clock)
    assert call(second, fail) == "refused"
    assert second.state is OPEN


def test_a_probe_that_a_crash_cut_short_is_tried_again(store: Store, clock: FixedClock) -> None:
    store.trading.save_breaker(Breaker(agent_name="ares", state=HALF_OPEN, failures=3, opened_at=NOW))
    assert call(build(store.trading, clock)) == "done"


def test_over_a_real_store_trouble_is_not_raised_either(store: Store, owner: psycopg.Connection, clock: FixedClock) -> None:
    breaker = build(store.trading, clock)
    owner.execute("drop table circuit_breakers")
    open_up(breaker)
    with pytest.raises(StoreError):
        build(store.trading, clock)


def test_the_health_of_an_agent_is_that_of_its_breaker(row: KeptRow, clock: FixedClock) -> None:
    breaker = build(row, clock)
    assert (breaker.report().status, breaker.report().message) == (AgentHealth.HEALTHY, "breaker closed")
    call(breaker, fail)
    assert breaker.report().status is AgentHealth.DEGRADED
    assert breaker.report().message == "breaker closed: BrokerError: no answer"
    wait(clock, 300)
    assert breaker.report().status is AgentHealth.HEALTHY
    open_up(breaker)
    report = breaker.report()
    assert (report.status, report.error_count, report.agent_name) == (AgentHealth.FAILED, 4, "ares")


def test_a_breaker_that_opens_at_nothing_is_refused() -> None:
    with pytest.raises(DataError, match=r"`BreakerConfig\.failures` must be 1 or more"):
        BreakerConfig(failures=0)


class BreakerMachine(RuleBasedStateMachine):
    """Compares the breaker with a plain account of its rules, through failures, waiting and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.row, self.clock = KeptRow(), FixedClock(NOW)
        self.breaker = build(self.row, self.clock)
        self.failures: list[float] = []
        self.opened: float | None = None

    @property
    def now(self) -> float:
        return (self.clock.now() - NOW).total_seconds()

    @rule(fails=st.booleans())
    def call(self, fails: bool) -> None:
        called = []

        def work() -> str:
            called.append(True)
            return fail() if fails else succeed()

        answer = self.breaker.call(work, refuse)
        probing = self.opened is not None and self.now - self.opened >= 120
        admitted = self.opened is None or probing
        assert bool(called) == admitted
        assert answer == ("done" if admitted and not fails else "refused")
        if probing:
            self.opened, self.failures = (self.now, self.failures) if fails else (None, [])
        elif admitted and fails:
            self.failures = [time for time in self.failures if self.now - time < 300] + [self.now]
            if len(self.failures) >= 3:
                self.opened = self.now

    @rule(seconds=st.sampled_from([1, 60, 119, 120, 150, 299, 300]))
    def wait(self, seconds: int) -> None:
        wait(self.clock, seconds)

    @rule()
    def restart(self) -> None:
        self.breaker = build(self.row, self.clock)
        if self.opened is None:
            known = self.row.row.failures if self.row.row else 0
            self.failures = [self.now] * known  # when they were is not stored: they count from now

    @invariant()
    def the_row_says_whether_it_is_open(self) -> None:
        stored = self.row.row
        assert (self.opened is not None) == (stored is not None and stored.state is OPEN)
        assert self.breaker.state is (CLOSED if self.opened is None else OPEN)


TestBreakerMachine = BreakerMachine.TestCase
