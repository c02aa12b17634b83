"""The replayed headlines and filings, as signals for the traders and as events for the planner.

Hides the file. Promises that an item is told from the moment it was published and not before, always under the same identity.
"""

from __future__ import annotations

import csv
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from core.errors import DataError, MissingDataError
from core.message import Message, refuse
from core.store.event_records import Event
from core.types import Identifier, RawSignal, Severity, SignalCategory, Ticker

PACKAGED = Path(__file__).with_name("replayed_news.csv")
COLUMNS = ("kind", "occurred_at", "published_at", "ticker", "supplier", "category", "urgency", "headline", "summary")
DISRUPTION, RECOVERY = "supplier_disruption", "supply_recovery"

_NAMES = uuid5(NAMESPACE_URL, "aqf:use_cases/supplier_disruption")
_CATEGORIES = {
    "supply_chain": SignalCategory.SUPPLIER_DISRUPTION,
    "regulatory": SignalCategory.REGULATORY_ACTION,
    "earnings": SignalCategory.EARNINGS_SURPRISE,
    "partnership": SignalCategory.POSITIVE_NEWS,
    "other": SignalCategory.NEUTRAL,
}
_EVENT_KINDS = {
    SignalCategory.SUPPLIER_DISRUPTION: DISRUPTION,
    SignalCategory.REGULATORY_ACTION: DISRUPTION,
    SignalCategory.EARNINGS_SURPRISE: RECOVERY,
    SignalCategory.POSITIVE_NEWS: RECOVERY,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class NewsItem(Message):
    """One item of the file.

    Parameters
    ----------
    kind : str
        news or filing.
    occurred_at, published_at : datetime
        UTC; nothing is published before it occurred.
    ticker : str
        The customer whose share may move.
    supplier : str
    category : SignalCategory
    severity : Severity
    headline, summary : str
    """

    kind: Identifier
    occurred_at: datetime
    published_at: datetime
    ticker: Ticker
    supplier: Identifier
    category: SignalCategory
    severity: Severity
    headline: Identifier
    summary: str

    def _check(self) -> None:
        if self.published_at < self.occurred_at:
            raise refuse(self, "published_at", "at or after `occurred_at`", self.published_at)

    @property
    def news_id(self) -> str:
        """Its identity: a UUID of when, about whom and what."""
        return str(uuid5(_NAMES, f"{self.published_at.isoformat()}|{self.ticker}|{self.headline}"))

    def to_signal(self) -> RawSignal:
        """Return it as the traders get it."""
        return RawSignal(
            signal_id=self.news_id,
            headline=self.headline,
            summary=self.summary,
            published_at=self.published_at,
            category=self.category,
            severity=self.severity,
            affected_tickers=(self.ticker,),
            supplier=self.supplier,
        )


@dataclass(frozen=True)
class NewsArchive:
    """All items, oldest first."""

    items: tuple[NewsItem, ...]

    def published(self, since: datetime, as_of: datetime) -> tuple[NewsItem, ...]:
        """Return what was published after `since` and at or before `as_of`."""
        times = [item.published_at for item in self.items]
        return self.items[bisect_right(times, since) : bisect_right(times, as_of)]

    def to_events(self, symbols: Sequence[str]) -> list[Event]:
        """Return the items about these symbols as events; routine ones are none."""
        return [
            Event(
                kind=_EVENT_KINDS[item.category],
                symbol=item.ticker,
                occurred_at=item.occurred_at,
                known_at=item.published_at,
                payload={"news_id": item.news_id, "headline": item.headline, "severity": item.severity.rank + 1},
            )
            for item in self.items
            if item.category in _EVENT_KINDS and item.ticker in symbols
        ]


def read_news(path: Path = PACKAGED) -> NewsArchive:
    """Read a file of items, again when it has changed.

    Raises
    ------
    MissingDataError
        If there is no such file.
    DataError
        If a line is not as it must be; the text names it.
    """
    try:
        stat = path.stat()
        return _read(path, stat.st_mtime_ns, stat.st_size)
    except FileNotFoundError as error:
        raise MissingDataError(f"there is no file {path}.") from error


@lru_cache(maxsize=4)
def _read(path: Path, changed_ns: int, size: int) -> NewsArchive:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise DataError(f"{path.name} must have the columns {', '.join(COLUMNS)}.")
            items = [_read_item(path, reader.line_num, row) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path.name} cannot be read as CSV in UTF-8: {error}.") from error
    return NewsArchive(_in_order(items))


def _in_order(items: Iterable[NewsItem]) -> tuple[NewsItem, ...]:
    return tuple(sorted(items, key=lambda item: (item.published_at, item.ticker, item.headline)))


def _read_item(path: Path, line: int, row: dict[str, str]) -> NewsItem:
    try:
        return NewsItem(
            kind=row["kind"],
            occurred_at=datetime.fromisoformat(row["occurred_at"]),
            published_at=datetime.fromisoformat(row["published_at"]),
            ticker=row["ticker"],
            supplier=row["supplier"],
            category=_CATEGORIES[row["category"]],
            severity=Severity(row["urgency"]),
            headline=row["headline"],
            summary=row["summary"],
        )
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path.name}, line {line}: {error}; mend the line.") from error
