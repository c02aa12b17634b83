"""How often history may be asked for."""

from itertools import count

import pytest

from agents.brokers.ib_prices import Pace
from core.errors import MissingDataError


class Watch:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_no_more_is_asked_in_ten_minutes_than_allowed(watch: Watch) -> None:
    pace, numbers = Pace(3, watch), count()
    for _ in range(3):
        pace.take(next(numbers), f"{next(numbers)}")
        watch.now += 100.0
    with pytest.raises(MissingDataError, match="ask again in 300 s"):
        pace.take(next(numbers), "more")
    watch.now += 300.0
    pace.take(next(numbers), "more")
    with pytest.raises(MissingDataError, match="ask again in 100 s"):
        pace.take(next(numbers), "still more")


def test_the_same_is_not_asked_twice_within_fifteen_seconds(watch: Watch) -> None:
    pace = Pace(60, watch)
    pace.take(1, "a")
    watch.now += 14.0
    with pytest.raises(MissingDataError, match="ask again in 1 s"):
        pace.take(1, "a")
    pace.take(1, "b")
    watch.now += 1.0
    pace.take(1, "a")


def test_one_contract_is_asked_for_five_times_in_two_seconds_at_most(watch: Watch) -> None:
    pace = Pace(60, watch)
    for number in range(5):
        pace.take(1, f"{number}")
    with pytest.raises(MissingDataError, match="ask again in 2 s"):
        pace.take(1, "5")
    pace.take(2, "6")
    watch.now += 2.0
    pace.take(1, "5")


def test_what_ib_calls_too_much_is_followed_by_a_rest(watch: Watch) -> None:
    pace = Pace(60, watch)
    pace.rest()
    with pytest.raises(MissingDataError, match="ask again in 600 s"):
        pace.take(1, "a")
    watch.now += 600.0
    pace.take(1, "a")
