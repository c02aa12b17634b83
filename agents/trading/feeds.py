"""Feeds: news and filings over HTTP, as items.

Hides RSS, Atom and EDGAR's way to write a filing. Promises that a feed that answers something else is a `DataError`, that an
entry that cannot be used is told and not lost in silence, and that a feed is asked anew for what was not confirmed as kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
import html
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Protocol
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from agents.trading.listings import SEC_URL, Listing
from agents.trading.news import NewsCategory, NewsItem, Urgency, classify, find_tickers
from agents.trading.web import Page, Web, without_keys
from core.errors import DataError

_FILINGS = 100
EDGAR_PATH = f"/cgi-bin/browse-edgar?action=getcurrent&type=8-K&count={_FILINGS}&output=atom"
EDGAR_URL = f"{SEC_URL}{EDGAR_PATH}"
"""EDGAR's newest 8-K filings."""

EDGAR = "edgar"
"""Name of the source."""

MAX_HEADLINE, MAX_SUMMARY, MAX_KEY = 2_000, 20_000, 500
ATOM = "{http://www.w3.org/2005/Atom}"
_TAG = re.compile(r"<[^>]*>")
_FILING = re.compile(r"(?P<form>\S.*?) - (?P<company>.+?) \((?P<cik>\d{10})\) \((?P<role>[^)]+)\)$")
_ITEM = re.compile(r"Item (?P<number>\d\.\d\d):? ?(?P<title>[^<\n]*)")
_ACCESSION = re.compile(r"\d{10}-\d{2}-\d{6}")

_Reading = tuple[NewsCategory, Urgency, bool]
_EIGHT_K: Mapping[str, _Reading] = MappingProxyType(
    {
        "1.01": (NewsCategory.PARTNERSHIP, Urgency.MEDIUM, False),
        "1.02": (NewsCategory.SUPPLY_CHAIN, Urgency.MEDIUM, False),
        "1.03": (NewsCategory.REGULATORY, Urgency.HIGH, True),
        "1.05": (NewsCategory.SUPPLY_CHAIN, Urgency.HIGH, False),
        "2.01": (NewsCategory.ACQUISITION, Urgency.MEDIUM, False),
        "2.02": (NewsCategory.EARNINGS, Urgency.MEDIUM, False),
        "2.04": (NewsCategory.REGULATORY, Urgency.HIGH, False),
        "2.05": (NewsCategory.LAYOFFS, Urgency.MEDIUM, False),
        "2.06": (NewsCategory.EARNINGS, Urgency.HIGH, False),
        "3.01": (NewsCategory.REGULATORY, Urgency.HIGH, True),
        "4.01": (NewsCategory.REGULATORY, Urgency.MEDIUM, False),
        "4.02": (NewsCategory.REGULATORY, Urgency.HIGH, True),
        "5.01": (NewsCategory.ACQUISITION, Urgency.HIGH, False),
    }
)
_NOTHING: _Reading = (NewsCategory.OTHER, Urgency.LOW, False)
_URGENCIES = list(Urgency)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """An item that was not kept, and why."""

    source: str
    key: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What a source had: items, what of it could not be used, and how many are held back because they are not due yet."""

    items: tuple[NewsItem, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    held: int = 0


class Source(Protocol):
    """Where Hermes takes items from."""

    @property
    def name(self) -> str:
        """Name under which its items are kept."""
        ...

    def fetch(self) -> Batch:
        """Return what there is; DataError when the source cannot be reached or answers nonsense."""
        ...

    def confirm(self) -> None:
        """Take note that what `fetch` returned is kept, and need not come again."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    key: str
    title: str
    summary: str
    published: str
    link: str


class NewsFeed:
    """An RSS 2.0 or Atom feed of news.

    Parameters
    ----------
    name : str
        Name of the source.
    url : str
    web : Web

    Notes
    -----
    Tickers are those that the text marks as such; category and urgency are read from its words by
    :func:`agents.trading.news.classify`. A feed that sends an ETag or a date is asked only for what is newer.
    """

    def __init__(self, name: str, url: str, web: Web) -> None:
        self.name, self._url, self._web = name, url, web
        self._confirmed: Page | None = None
        self._fetched: Page | None = None

    def fetch(self) -> Batch:
        """Return the feed's items; none when it did not change.

        Raises
        ------
        MissingDataError
            If it cannot be reached.
        DataError
            If it answers something else than a feed.
        """
        page = self._web.fetch(self._url, known=self._confirmed)
        if page is None:
            return Batch()
        self._fetched = page
        return self._read_all(list(read_entries(without_keys(self._url), page.content)))

    def confirm(self) -> None:
        """Take note that what was fetched is kept."""
        self._confirmed = self._fetched

    def _read_all(self, entries: Sequence[_Entry]) -> Batch:
        items: dict[str, NewsItem] = {}
        dropped = []
        for entry in entries:
            try:
                item = self._read(entry)
            except DataError as error:
                dropped.append(Dropped(source=self.name, key=entry.key or entry.title or "?", reason=str(error)))
                continue
            if item.source_key not in items or (item.tickers and not items[item.source_key].tickers):
                items[item.source_key] = item
        return Batch(items=tuple(items.values()), dropped=tuple(dropped))

    def _read(self, entry: _Entry) -> NewsItem:
        text = f"{entry.title}. {entry.summary}"
        return _item(self.name, entry, classify(text), tickers=find_tickers(text))


class EdgarFeed(NewsFeed):
    """EDGAR's newest filings.

    Parameters
    ----------
    web : Web
        Its user agent must name you: the SEC asks for it, and for at most ten requests a second.
    listings : sequence of Listing
        Give the tickers of filers; a filer without one is kept under its name.
    url : str
        An Atom feed of EDGAR's, of a hundred entries.
    most_pages : int, default=5
        How far back it reads, in hundreds of entries, where nothing that it comes upon was kept before.

    Notes
    -----
    An 8-K is read by its most urgent item; other forms are of low urgency.
    """

    def __init__(self, web: Web, listings: Sequence[Listing] = (), *, url: str = EDGAR_URL, most_pages: int = 5) -> None:
        super().__init__(EDGAR, url, web)
        self._most_pages = most_pages
        self._read_keys: frozenset[str] = frozenset()
        self._kept_keys: frozenset[str] = frozenset()
        self.know(listings)

    def know(self, listings: Sequence[Listing]) -> None:
        """Take filers' tickers from these listings from now on; of a company with several, the first."""
        self._tickers = {listing.cik: listing.ticker for listing in reversed(listings)}

    def fetch(self) -> Batch:
        """Return the newest filings, back to the first that was kept before.

        Raises
        ------
        MissingDataError, DataError
            As :meth:`NewsFeed.fetch`, of any page.
        """
        entries: list[_Entry] = []
        for number in range(self._most_pages):
            url = f"{self._url}&start={number * _FILINGS}" if number else self._url
            page = self._web.fetch(url, known=None if number else self._confirmed)
            if page is None:
                break
            if number == 0:
                self._fetched = page
            found = list(read_entries(without_keys(url), page.content))
            entries += found
            if len(found) < _FILINGS or not self._kept_keys.isdisjoint(entry.key for entry in found):
                break
        self._read_keys = frozenset(entry.key for entry in entries)
        return self._read_all(entries)

    def confirm(self) -> None:
        """Take note that what was fetched is kept."""
        super().confirm()
        self._kept_keys = self._read_keys or self._kept_keys

    def _read(self, entry: _Entry) -> NewsItem:
        filing = _FILING.fullmatch(entry.title)
        accession = _ACCESSION.search(entry.key)
        if filing is None or accession is None:
            raise DataError(f"expected a filing such as `8-K - ACME CORP (0000123456) (Filer)`, was {entry.title!r:.120}.")
        parts = [(match["number"], " ".join(match["title"].split())) for match in _ITEM.finditer(entry.summary)]
        readings = [_EIGHT_K.get(number, _NOTHING) for number, _ in parts if filing["form"].startswith("8-K")]
        reading = max(readings, key=lambda found: (_URGENCIES.index(found[1]), found[2]), default=_NOTHING)
        about = "; ".join(title for _, title in parts if title)
        headline = f"{filing['form']} - {filing['company']}" + (f": {about}" if about else "")
        ticker = self._tickers.get(int(filing["cik"]))
        return _item(
            self.name,
            dataclasses.replace(entry, key=accession[0], title=headline),
            reading,
            tickers=() if ticker is None else (ticker,),
            supplier=filing["company"],
        )


def read_entries(where: str, content: bytes) -> Iterator[_Entry]:
    """Return the entries of an RSS 2.0 or Atom feed.

    Raises
    ------
    DataError
        If it is neither.
    """
    root = read_feed(where, content)
    if root.tag == "rss":
        for item in root.iter("item"):
            link = _text(item, "link")
            yield _Entry(
                key=_text(item, "guid") or link,
                title=_text(item, "title"),
                summary=_text(item, "description"),
                published=_text(item, "pubDate"),
                link=link,
            )
        return
    for entry in root.iter(f"{ATOM}entry"):
        link_element = entry.find(f"{ATOM}link")
        yield _Entry(
            key=_text(entry, f"{ATOM}id"),
            title=_text(entry, f"{ATOM}title"),
            summary=_text(entry, f"{ATOM}summary") or _text(entry, f"{ATOM}content"),
            published=_text(entry, f"{ATOM}published") or _text(entry, f"{ATOM}updated"),
            link="" if link_element is None else link_element.get("href", ""),
        )


def read_feed(where: str, content: bytes) -> Element:
    """Return the root of an RSS 2.0 or Atom feed.

    Raises
    ------
    DataError
        If it is neither; a document type declaration is refused, because of what entities can do.
    """
    try:
        root = fromstring(content, forbid_dtd=True)
    except (ParseError, DefusedXmlException, UnicodeDecodeError, LookupError, ValueError) as error:
        begin = content[:40].decode("ascii", "replace")
        raise DataError(f"{where} must answer an RSS or Atom feed, answered {begin!r}: {error!r}.") from error
    if root.tag not in ("rss", f"{ATOM}feed"):
        raise DataError(f"{where} must answer an RSS or Atom feed, answered <{root.tag}>.")
    return root


def clean(name: str, text: str, most: int) -> str:
    """Return text without markup and control characters, on one line, of at most so many characters.

    Raises
    ------
    DataError
        If it has half a character, which no database can hold.
    """
    plain = " ".join(html.unescape(_TAG.sub(" ", text)).replace("\x00", " ").split())
    try:
        plain.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"`{name}` must be whole characters: {error.reason} at {error.start}.") from error
    return plain if len(plain) <= most else plain[: most - 1].rstrip() + "…"


def short_key(key: str) -> str:
    """Return what a source calls an item, or its hash where that is too long to be indexed."""
    return key if len(key) <= MAX_KEY else hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def read_time(text: str, *readers: Callable[[str], datetime]) -> datetime:
    """Return a time in UTC.

    Raises
    ------
    DataError
        If none of the readers can read it, or it has no zone.
    """
    for reader in readers:
        try:
            at = reader(text)
        except (ValueError, TypeError):
            continue
        if at.utcoffset() is None:
            raise DataError(f"`published_at` must say its zone, was {text!r:.80}.")
        return at.astimezone(UTC)
    raise DataError(f"`published_at` must be a time, was {text!r:.80}.")


def _item(source: str, entry: _Entry, reading: _Reading, *, tickers: tuple[str, ...], supplier: str | None = None) -> NewsItem:
    category, urgency, significant = reading
    return NewsItem(
        source=source,
        source_key=short_key(clean("source_key", entry.key, 10 * MAX_KEY)),
        headline=clean("headline", entry.title, MAX_HEADLINE),
        summary=clean("summary", entry.summary, MAX_SUMMARY),
        published_at=read_time(entry.published, datetime.fromisoformat, _rfc_822),
        category=category,
        urgency=urgency,
        significant=significant,
        tickers=tickers,
        supplier=None if supplier is None else clean("supplier", supplier, MAX_HEADLINE),
        url=clean("url", entry.link, MAX_HEADLINE) or None,
    )


def _rfc_822(text: str) -> datetime:
    at = parsedate_to_datetime(text)
    # RFC 5322 writes -0000 for a time in UTC whose zone nobody knows; Python gives it without one.
    return at.replace(tzinfo=UTC) if at.tzinfo is None and text.rstrip().endswith("-0000") else at


def _text(element: Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()
