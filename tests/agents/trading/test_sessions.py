"""When an exchange trades."""

from datetime import UTC, datetime, timedelta

import pytest

from agents.trading.sessions import BarSessions, ExchangeSessions
from core.errors import ConfigurationError, DataError


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+00:00")


@pytest.fixture(scope="module")
def new_york() -> ExchangeSessions:
    return ExchangeSessions()


@pytest.mark.parametrize(
    ("moment", "close"),
    [
        ("2024-07-05 13:30", "2024-07-05 20:00"),  # the open itself
        ("2024-07-05 13:29", None),
        ("2024-07-05 19:59", "2024-07-05 20:00"),
        ("2024-07-05 20:00", None),  # the close itself
        ("2024-07-04 15:00", None),  # Independence Day
        ("2024-07-06 15:00", None),  # a Saturday
        ("2024-11-29 17:59", "2024-11-29 18:00"),  # closes early after Thanksgiving, in winter time
        ("2024-11-29 18:00", None),
    ],
)
def test_a_session_ends_with_its_close(new_york: ExchangeSessions, moment: str, close: str | None) -> None:
    assert new_york.closes_at(at(moment)) == (None if close is None else at(close))


def test_the_next_session_skips_holidays_and_week_ends(new_york: ExchangeSessions) -> None:
    assert new_york.next_open(at("2024-07-03 18:00")) == at("2024-07-05 13:30")
    assert new_york.next_open(at("2024-07-05 13:30")) == at("2024-07-08 13:30")


def test_a_time_that_the_calendar_does_not_know_is_refused(new_york: ExchangeSessions) -> None:
    with pytest.raises(ConfigurationError, match="not 1950-01-01"):
        new_york.closes_at(at("1950-01-01 15:00"))
    with pytest.raises(DataError, match="tz-aware"):
        new_york.closes_at(datetime(2024, 7, 5))  # noqa: DTZ001
    with pytest.raises(ConfigurationError, match="no exchange calendar 'MARS'"):
        ExchangeSessions("MARS")


def test_other_exchanges_have_their_own_hours() -> None:
    assert ExchangeSessions("XETR").closes_at(at("2024-07-04 15:00")) == at("2024-07-04 15:30")


def test_in_a_simulation_an_order_lives_until_the_next_close() -> None:
    closes = [at("2024-01-02 21:00"), at("2024-01-03 21:00")]
    sessions = BarSessions(closes)
    assert sessions.closes_at(closes[0] - timedelta(hours=1)) == closes[0]
    assert sessions.closes_at(closes[0]) == closes[1]
    assert sessions.closes_at(closes[1]) is None
    assert closes[0].tzinfo == UTC
