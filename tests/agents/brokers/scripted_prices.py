"""What the scripted gateway tells of contracts and prices, as frames of server version 178.

It follows IB's documentation: bars of trades are adjusted for splits as of when they are asked for, the bar of a day is told
while the day lasts, history needs a subscription whatever the type of market data, a snapshot without one is delayed and has
ticks of its own, and whoever asks for history too often is refused.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

MARKET_DATA, CONTRACTS, HISTORY, DATA_TYPE = 1, 9, 20, 59
LAST, DELAYED_LAST, LAST_TIME, DELAYED_TIME = 4, 68, 45, 88
NO_PERMISSION = "Historical Market Data Service error message:No market data permissions for ISLAND STK"
PACING = "Historical Market Data Service error message:Historical data request pacing violation"
_NEW_YORK = ZoneInfo("America/New_York")
Frame = tuple[Any, ...]


@dataclass
class Listing:
    """A contract, and what is known of its prices."""

    con_id: int
    symbol: str
    kind: str = "STK"
    exchange: str = "SMART"
    primary: str = "NASDAQ"
    currency: str = "USD"
    days: list[tuple[date, float, float, float, float, float]] = field(default_factory=list)
    """Open, high, low, close, volume."""
    minutes: list[tuple[datetime, float]] = field(default_factory=list)
    """Begin and close."""
    last: tuple[float, datetime | None] | None = None
    subscribed: bool = True

    def split(self, ratio: float) -> None:
        """Tell all prices as if there had been so many times the shares."""
        self.days = [(day, o / ratio, h / ratio, low / ratio, c / ratio, v * ratio) for day, o, h, low, c, v in self.days]


@dataclass
class ScriptedPrices:
    """The data farms."""

    listings: list[Listing] = field(default_factory=list)
    refusals: dict[int, tuple[int, str]] = field(default_factory=dict)
    """By kind of request, the error that is its answer."""
    garbage: dict[int, Frame] = field(default_factory=dict)
    """By kind of request, what is sent before the answer, or instead of it when `only_garbage`."""
    only_garbage: bool = False
    asked: list[tuple[int, str, str]] = field(default_factory=list)
    """Kind, symbol and, of history, the end that was asked for."""
    data_type: int = 1
    tell_end: bool = True
    """Whether a snapshot says when it is over; IB takes up to eleven seconds."""
    max_history: int = 60
    _times: list[float] = field(default_factory=list)
    _same: dict[tuple[str, ...], float] = field(default_factory=dict)

    def count(self, kind: int, symbol: str | None = None) -> int:
        """How often something was asked for."""
        return sum(one[0] == kind and symbol in (None, one[1]) for one in self.asked)

    def answer(self, fields: list[str]) -> list[Frame]:
        """Return the frames that answer a request."""
        kind = int(fields[0])
        if kind == DATA_TYPE:
            self.data_type = int(fields[2])
            return []
        if kind not in (MARKET_DATA, CONTRACTS, HISTORY):
            return []
        number = fields[1] if kind == HISTORY else fields[2]
        symbol = fields[3] if kind == HISTORY else fields[4]
        self.asked.append((kind, symbol, fields[15] if kind == HISTORY else ""))
        if kind in self.refusals:
            return [error(number, *self.refusals[kind])]
        garbage = [tuple(number if one == "NUMBER" else one for one in self.garbage[kind])] if kind in self.garbage else []
        if garbage and self.only_garbage:
            return garbage
        tell = {MARKET_DATA: self._snapshot, CONTRACTS: self._contracts, HISTORY: self._history}[kind]
        return garbage + tell(number, fields)

    def _contracts(self, number: str, fields: list[str]) -> list[Frame]:
        wanted = (fields[4], fields[5], fields[10], fields[12])
        found = [
            one
            for one in self.listings
            if (one.symbol, one.kind, one.exchange, one.currency) == wanted and fields[11] in ("", one.primary)
        ]
        if not found:
            return [error(number, 200, "No security definition has been found for the request")]
        return [*(contract_details(number, one) for one in found), (52, 1, number)]

    def _find(self, con_id: str) -> Listing:
        return next(one for one in self.listings if one.con_id == int(con_id))

    def _snapshot(self, number: str, fields: list[str]) -> list[Frame]:
        listing = self._find(fields[3])
        assert fields[17] == "1"
        if not listing.subscribed and self.data_type < 3:
            return [error(number, 354, "Requested market data is not subscribed.")]
        frames: list[Frame] = []
        price, at = (LAST, LAST_TIME) if listing.subscribed else (DELAYED_LAST, DELAYED_TIME)
        if not listing.subscribed:
            frames += [error(number, 10167, "Requested market data is not subscribed. Displaying delayed market data.")]
            frames += [(58, 1, number, 3)]
        if listing.last is not None:
            frames += [(1, 6, number, price, listing.last[0], 100, 0), (2, 6, number, price + 1, 100)]
            if listing.last[1] is not None:
                frames += [(46, 6, number, at, int(listing.last[1].timestamp()))]
        return [*frames, (57, 1, number)] if self.tell_end else frames

    def _history(self, number: str, fields: list[str]) -> list[Frame]:
        listing, end, size, duration, what = self._find(fields[2]), fields[15], fields[16], fields[17], fields[19]
        assert what == "TRADES"
        now = time.monotonic()
        self._times = [one for one in self._times if now - one < 600.0] + [now]
        same = tuple(fields[2:])
        if len(self._times) > self.max_history or now - self._same.get(same, -15.0) < 15.0:
            return [error(number, 162, PACING)]
        self._same[same] = now
        if not listing.subscribed:
            return [error(number, 162, NO_PERMISSION)]
        until = datetime.strptime(end, "%Y%m%d %H:%M:%S UTC").replace(tzinfo=UTC) if end else datetime.now(UTC)
        many, unit = int(duration.split()[0]), duration.split()[1]
        since = until - timedelta(days=many * (365 if unit == "Y" else 1))
        if size == "1 day":
            first, last = since.astimezone(_NEW_YORK).date(), until.astimezone(_NEW_YORK).date()
            bars = [(f"{day:%Y%m%d}", *prices) for day, *prices in listing.days if first <= day <= last]
        else:
            assert size == "1 min"
            assert fields[20] == "2"
            days = sorted({at.astimezone(_NEW_YORK).date() for at, _ in listing.minutes if at <= until})[-many:]
            bars = [
                (str(int(at.timestamp())), price, price, price, price, 100)
                for at, price in listing.minutes
                if at <= until and at.astimezone(_NEW_YORK).date() in days
            ]
        if not bars:
            return [error(number, 162, "Historical Market Data Service error message:HMDS query returned no data")]
        told = [value for bar in bars for value in (*bar, 0.0, 1)]
        return [(17, number, "", "", len(bars), *told)]


def error(number: str, code: int, text: str) -> Frame:
    """An error that belongs to a request."""
    return (4, 2, number, code, text, "")


# fmt: off
def contract_details(number: str, one: Listing) -> Frame:
    """A contract; fields that nobody reads are empty or zero."""
    return (
        10, number, one.symbol, one.kind, "", 0, "", one.exchange, one.currency, one.symbol, "NMS", "NMS", one.con_id, 0.01,
        "", "", "SMART", 1, 0, one.symbol, one.primary, "", "", "", "", "US/Eastern", "", "", "", 0, 0,
        1, "", "", "", "", "COMMON", 0.0001, 0.0001, 100,
    )
# fmt: on
