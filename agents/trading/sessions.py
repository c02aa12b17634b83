"""When an exchange trades: by its calendar, or by the bars of a panel.

Hides the calendar package. Promises UTC, and that a time outside of every session has none.
"""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import pandas as pd

from core.errors import ConfigurationError, DataError

NEW_YORK = "XNYS"


class ExchangeSessions:
    """The sessions of an exchange, with its holidays and early closes.

    Parameters
    ----------
    calendar : str, default="XNYS"
        Name of a calendar of the package `exchange_calendars`: XNYS is New York, XETR is Xetra.

    Raises
    ------
    ConfigurationError
        If there is no such calendar; from any method, if a time is beyond what the calendar knows.
    DataError
        From any method, if a time is naive.
    """

    def __init__(self, calendar: str = NEW_YORK) -> None:
        from exchange_calendars import get_calendar_names

        if calendar not in get_calendar_names(include_aliases=True):
            raise ConfigurationError(f"there is no exchange calendar {calendar!r}: XNYS is New York, XETR is Xetra.")
        self.calendar = calendar

    @cached_property
    def _calendar(self) -> Any:
        from exchange_calendars import get_calendar

        with warnings.catch_warnings():
            # exchange_calendars 4.13 reads `Series.values` in a way that pandas 3.1 announces to change.
            warnings.filterwarnings("ignore", message="Series.values returning an ndarray")
            return get_calendar(self.calendar)

    def closes_at(self, at: datetime) -> datetime | None:
        """Return when the session ends in which a time lies; None outside of one.

        Notes
        -----
        A session begins with its open and ends before its close: at the very close nothing is traded any more.
        """
        minute = self._known(at)
        opens, closes = self._calendar.opens, self._calendar.closes
        place = int(opens.searchsorted(minute, side="right")) - 1
        if place < 0 or minute >= closes.iloc[place]:
            return None
        closing: datetime = closes.iloc[place].to_pydatetime()
        return closing

    def next_open(self, at: datetime) -> datetime:
        """Return when the next session after a time begins."""
        opens = self._calendar.opens
        place = int(opens.searchsorted(self._known(at), side="right"))
        if place >= len(opens):
            raise self._beyond(at)
        opening: datetime = opens.iloc[place].to_pydatetime()
        return opening

    def _known(self, at: datetime) -> pd.Timestamp:
        if at.utcoffset() is None:
            raise DataError(f"`at` must be tz-aware, was {at.isoformat()}; use UTC.")
        if not self._calendar.opens.iloc[0] <= pd.Timestamp(at) <= self._calendar.closes.iloc[-1]:
            raise self._beyond(at)
        return pd.Timestamp(at.astimezone(UTC))

    def _beyond(self, at: datetime) -> ConfigurationError:
        first, last = self._calendar.opens.iloc[0], self._calendar.closes.iloc[-1]
        return ConfigurationError(f"the calendar {self.calendar} knows {first:%Y-%m-%d} to {last:%Y-%m-%d}, not {at:%Y-%m-%d}.")


class BarSessions:
    """Sessions of a simulation: what is ordered at the close of a bar may be filled until the close of the next.

    Parameters
    ----------
    closes : sequence of datetime
        Closes of the bars, UTC, in strictly increasing order.
    """

    def __init__(self, closes: Sequence[datetime]) -> None:
        self._closes = list(closes)

    def closes_at(self, at: datetime) -> datetime | None:
        """Return the first close after a time; None after the last."""
        place = bisect_right(self._closes, at)
        return self._closes[place] if place < len(self._closes) else None
