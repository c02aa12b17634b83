from datetime import UTC, datetime, timedelta, timezone

import pytest

from core.clock import Clock, FixedClock, SystemClock
from core.errors import DataError

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


def test_system_clock_tells_utc_between_two_readings_of_the_machine() -> None:
    before = datetime.now(UTC)
    told = SystemClock().now()
    assert before <= told <= datetime.now(UTC)
    assert told.utcoffset() == timedelta(0)


def test_fixed_clock_stands_still_until_it_is_moved() -> None:
    clock = FixedClock(NOON)
    assert clock.now() == clock.now() == NOON
    assert clock.advance(timedelta(minutes=15)) == datetime(2024, 3, 1, 12, 15, tzinfo=UTC)
    assert clock.now() == datetime(2024, 3, 1, 12, 15, tzinfo=UTC)


def test_fixed_clock_converts_its_start_to_utc() -> None:
    clock = FixedClock(datetime(2024, 3, 1, 7, tzinfo=timezone(timedelta(hours=-5))))
    assert clock.now() == NOON
    assert clock.now().tzinfo is UTC


def test_fixed_clock_refuses_a_naive_start() -> None:
    with pytest.raises(DataError, match=r"`start` must be tz-aware, was 2024-03-01T12:00:00"):
        FixedClock(NOON.replace(tzinfo=None))


def test_fixed_clock_refuses_to_run_backwards() -> None:
    with pytest.raises(DataError, match=r"`step` must not be negative"):
        FixedClock(NOON).advance(timedelta(seconds=-1))


@pytest.mark.parametrize("clock", [SystemClock(), FixedClock(NOON)])
def test_both_clocks_fulfil_the_protocol(clock: object) -> None:
    assert isinstance(clock, Clock)
