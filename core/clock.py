"""Clock: the one place where time comes from, so that a run can be repeated at another time.

Hides the system's clock. Promises tz-aware UTC.
"""

from datetime import UTC, datetime, timedelta
from typing import Protocol, runtime_checkable

from core.errors import DataError


@runtime_checkable
class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """Return the current time, tz-aware UTC."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """Return the current time, tz-aware UTC."""
        return datetime.now(UTC)


class FixedClock:
    """A clock that stands still until it is moved: for tests and replays.

    Parameters
    ----------
    start : datetime
        First time it tells, tz-aware; converted to UTC.

    Raises
    ------
    DataError
        If `start` is naive.
    """

    def __init__(self, start: datetime) -> None:
        if start.utcoffset() is None:
            raise DataError(f"`start` must be tz-aware, was {start.isoformat()}; add `tzinfo=UTC`.")
        self._now = start.astimezone(UTC)

    def now(self) -> datetime:
        """Return the time it stands at, tz-aware UTC."""
        return self._now

    def advance(self, step: timedelta) -> datetime:
        """Move the clock forward and return the new time.

        Raises
        ------
        DataError
            If `step` is negative: time does not run backwards.
        """
        if step < timedelta(0):
            raise DataError(f"`step` must not be negative, was {step}; build a new clock to go back.")
        self._now += step
        return self._now
