"""Apollo, librarian: keeps what the others read.

Hides where papers and listings come from. Promises that a document is kept under the time since which it could be known, that
saving it again changes nothing, and that a digest is only written when there was enough to digest.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode
from xml.etree.ElementTree import Element

from agents.trading.feeds import ATOM, clean, read_feed, read_time
from agents.trading.listings import SEC_LISTINGS_URL, Listing, read_mappings, read_sec_listings
from agents.trading.web import Web
from core.clock import Clock
from core.errors import ConfigurationError, DataError, MissingDataError
from core.store.knowledge import KnowledgeBase
from core.store.knowledge_records import KnowledgeDocument
from core.store.trade_log import TradeLog
from core.store.trading import TradingStore
from core.store.trading_records import KnowledgeCollection, Trade
from core.text.embedder import MAX_TEXT_BYTES
from core.types import PipelineStatus

ARXIV_SITE = "https://export.arxiv.org"
ARXIV_PATH = "/api/query"
ARXIV_URL = f"{ARXIV_SITE}{ARXIV_PATH}"
ARXIV_PAUSE_SECONDS = 3.0
"""Least between two requests, as arXiv asks."""

_ARXIV_ID = re.compile(r"/abs/(?P<paper>[^\s?#]+?)(?:v\d+)?$")
_ARXIV_ERROR = "/api/errors"
_MOST_TITLE, _MOST_ABSTRACT = 2_000, 20_000
_AT_ONCE = 100

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class ApolloConfig:
    """What Apollo keeps.

    Parameters
    ----------
    arxiv_url : str
        Address of arXiv's query interface.
    topics : tuple of str
        Queries in arXiv's own words.
    papers_per_topic : int, default=25
    digest_days : int, default=30
        Days up to now that a digest looks back on.
    digest_min_traces, digest_min_approved : int, default=10 and 5
        Fewer decisions, or fewer that went on to an order, are not digested.

    Raises
    ------
    ConfigurationError
        If a number is out of its range.
    """

    arxiv_url: str = ARXIV_URL
    topics: tuple[str, ...] = (
        'cat:q-fin.TR AND abs:"news"',
        'cat:q-fin.PM AND abs:"event"',
        'abs:"supply chain" AND cat:q-fin.*',
    )
    papers_per_topic: int = 25
    digest_days: int = 30
    digest_min_traces: int = 10
    digest_min_approved: int = 5

    def __post_init__(self) -> None:
        if not 1 <= self.papers_per_topic <= 2000:
            raise ConfigurationError(f"`papers_per_topic` must be in 1..2000, was {self.papers_per_topic}.")
        if min(self.digest_days, self.digest_min_traces, self.digest_min_approved) < 1:
            raise ConfigurationError("`digest_days`, `digest_min_traces` and `digest_min_approved` must be at least 1.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Digest:
    """What became of a daily digest.

    Parameters
    ----------
    n_traces, n_approved : int
        Decisions looked at, and those that went on to an order.
    document : KnowledgeDocument, optional
        What was written; None when there was too little.
    """

    n_traces: int
    n_approved: int
    document: KnowledgeDocument | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MapUpdate:
    """What an upkeep of the ticker map did: how many names it wrote, and which had another ticker before (name, old, new)."""

    n_written: int
    changed: tuple[tuple[str, str, str], ...]


class Apollo:
    """Keep literature, the ticker map and the daily digest.

    Parameters
    ----------
    store : TradingStore
    trade_log : TradeLog
        The one in force.
    knowledge : KnowledgeBase
    config : ApolloConfig
    clock : Clock
    """

    def __init__(
        self, store: TradingStore, trade_log: TradeLog, knowledge: KnowledgeBase, config: ApolloConfig, clock: Clock
    ) -> None:
        self._store, self._trade_log, self._knowledge = store, trade_log, knowledge
        self._config, self._clock = config, clock

    def fetch_literature(self, web: Web, on_progress: OnProgress | None = None) -> int:
        """Keep the newest papers of every topic from arXiv, and return how many there were.

        Parameters
        ----------
        web : Web
            With `ARXIV_PAUSE_SECONDS` between requests.
        on_progress : callable, optional
            Told how many topics are done, of how many.

        Raises
        ------
        MissingDataError
            If arXiv cannot be reached; what came before is kept.
        DataError
            If it answers something else than papers.
        """
        n_papers, topics = 0, self._config.topics
        for number, topic in enumerate(topics, start=1):
            n_papers += self._fetch_topic(web, topic)
            if on_progress is not None:
                on_progress(number, len(topics))
        return n_papers

    def read_literature(self, folder: Path, on_progress: OnProgress | None = None) -> int:
        """Keep the papers of a folder, and return how many there were.

        Parameters
        ----------
        folder : Path
            With answers of arXiv (``.xml``) and texts (``.md``, ``.txt``, UTF-8). A text is known since its file was written.
        on_progress : callable, optional
            Told how many papers are kept, of how many.

        Raises
        ------
        MissingDataError
            If there is no such folder, or a file cannot be opened.
        DataError
            If a file is not what its ending says; nothing of the folder is kept then.
        """
        if not folder.is_dir():
            raise MissingDataError(f"there is no folder {folder} to read literature from.")
        documents: dict[str, KnowledgeDocument] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() == ".xml":
                found = read_arxiv(str(path), _bytes_of(path))
            elif path.suffix.lower() in (".md", ".txt"):
                found = [_text_document(path)]
            else:
                continue
            documents |= {document.doc_id: document for document in found}
        return self._save(list(documents.values()), on_progress)

    def fetch_ticker_map(self, web: Web, url: str = SEC_LISTINGS_URL) -> list[Listing]:
        """Bring the ticker map up to date with the SEC's listings, and return them; the newest there is stays when it fails.

        Raises
        ------
        MissingDataError
            If they cannot be reached.
        DataError
            If they are not the SEC's listings.
        """
        page = web.fetch(url)
        if page is None:
            raise MissingDataError(f"{url} answered that nothing changed, without having been asked.")
        listings = read_sec_listings(page.content)
        unique = {(listing.name, listing.exchange): listing.mapping for listing in reversed(listings)}
        self._store.save_ticker_mappings(list(unique.values()))
        return listings

    def read_ticker_map(self, path: Path) -> MapUpdate:
        """Bring the ticker map up to date with a CSV file of ``supplier_name,ticker,exchange``; names it lacks stay.

        Raises
        ------
        MissingDataError
            If the file cannot be opened.
        DataError
            If a line is wrong, or names a company twice on one exchange; nothing is written then.
        """
        mappings = read_mappings(_decoded(path))
        new = {(item.supplier_name, item.exchange): item for item in mappings}
        if len(new) != len(mappings):
            raise DataError(f"{path} must name a company once on an exchange, names {len(mappings) - len(new)} again.")
        old = {(item.supplier_name, item.exchange): item.ticker for item in self._store.list_ticker_mappings()}
        changed = tuple(
            (name, old[name, exchange], item.ticker)
            for (name, exchange), item in new.items()
            if old.get((name, exchange), item.ticker) != item.ticker
        )
        return MapUpdate(n_written=self._store.save_ticker_mappings(mappings), changed=changed)

    def has_digest(self) -> bool:
        """Return whether the digest of this day, in UTC, is written."""
        try:
            self._knowledge.get_document(_digest_id(self._clock.now()))
        except MissingDataError:
            return False
        return True

    def write_digest(self) -> Digest:
        """Write to the knowledge base how trades ended by category and regime; once a day, the last one of the day stays.

        Notes
        -----
        It looks at decisions of the last 30 days and at the trades that closed in them. Averages are of returns after cost, and
        each is given with the number of trades it comes from. Nothing is written without 10 decisions, 5 of them approved.
        """
        now = self._clock.now()
        since = now - timedelta(days=self._config.digest_days)
        rows = self._store.gateway.select(
            "decision_traces", columns=("decided_at", "status"), where={"decided_at": ("gte", since)}
        )
        outcomes = [PipelineStatus(row["status"]) for row in rows if row["decided_at"] <= now]
        n_traces, n_approved = len(outcomes), sum(status is not PipelineStatus.KILLED for status in outcomes)
        if n_traces < self._config.digest_min_traces or n_approved < self._config.digest_min_approved:
            return Digest(n_traces=n_traces, n_approved=n_approved)
        closed = [
            trade
            for trade in self._trade_log.list_trades()
            if trade.hit is not None and trade.closed_at is not None and since <= trade.closed_at <= now
        ]
        document = KnowledgeDocument(
            doc_id=_digest_id(now),
            collection=KnowledgeCollection.KNOWLEDGE,
            document_text=_digest_text(now, self._config.digest_days, n_traces, n_approved, closed),
            known_at=now,
            metadata={"kind": "digest", "day": f"{now:%Y-%m-%d}", "groups": _groups(closed)},
        )
        self._knowledge.save_documents([document])
        return Digest(n_traces=n_traces, n_approved=n_approved, document=document)

    def _fetch_topic(self, web: Web, topic: str) -> int:
        query = {
            "search_query": topic,
            "sortBy": "submittedDate",
            "sortOrder": "descending",
            "max_results": self._config.papers_per_topic,
        }
        url = f"{self._config.arxiv_url}?{urlencode(query)}"
        page = web.fetch(url)
        if page is None:
            raise MissingDataError(f"{url} answered that nothing changed, without having been asked.")
        return self._save(read_arxiv(url, page.content))

    def _save(self, documents: Sequence[KnowledgeDocument], on_progress: OnProgress | None = None) -> int:
        for start in range(0, len(documents), _AT_ONCE):
            self._knowledge.save_documents(documents[start : start + _AT_ONCE])
            if on_progress is not None:
                on_progress(min(start + _AT_ONCE, len(documents)), len(documents))
        return len(documents)


def read_arxiv(where: str, content: bytes) -> list[KnowledgeDocument]:
    """Read an answer of arXiv's query interface; a paper is known since its first version.

    Raises
    ------
    DataError
        If it is none, reports an error, or a paper lacks its number, title or date.
    """
    documents: dict[str, KnowledgeDocument] = {}
    for entry in read_feed(where, content).iter(f"{ATOM}entry"):
        address = entry.findtext(f"{ATOM}id") or ""
        title = clean("title", entry.findtext(f"{ATOM}title") or "", _MOST_TITLE)
        abstract = clean("summary", entry.findtext(f"{ATOM}summary") or "", _MOST_ABSTRACT)
        if _ARXIV_ERROR in address:
            raise DataError(f"{where} reports an error: {abstract or title}.")
        paper = _ARXIV_ID.search(address)
        if paper is None or not title:
            raise DataError(f"{where} has an entry without a number or a title: {address!r:.120}.")
        doc_id = f"arxiv:{paper['paper']}"
        documents[doc_id] = KnowledgeDocument(
            doc_id=doc_id,
            collection=KnowledgeCollection.LITERATURE,
            document_text=f"{title}\n\n{abstract}".strip(),
            known_at=read_time(entry.findtext(f"{ATOM}published") or "", datetime.fromisoformat),
            metadata={"source": "arxiv", "title": title, "url": address, "authors": _authors(entry)},
        )
    return list(documents.values())


def _authors(entry: Element) -> list[str]:
    names = (author.findtext(f"{ATOM}name") or "" for author in entry.iter(f"{ATOM}author"))
    return [clean("author", name, _MOST_TITLE) for name in names if name.strip()]


def _text_document(path: Path) -> KnowledgeDocument:
    text = _decoded(path).replace("\x00", " ").strip()
    if not text:
        raise DataError(f"{path} must have some text.")
    if len(text.encode()) > MAX_TEXT_BYTES:
        raise DataError(f"{path} must be at most {MAX_TEXT_BYTES} bytes: divide it.")
    title = clean("title", text.splitlines()[0].lstrip("# "), _MOST_TITLE) or path.stem
    return KnowledgeDocument(
        doc_id=f"file:{path.name}",
        collection=KnowledgeCollection.LITERATURE,
        document_text=text,
        known_at=datetime.fromtimestamp(path.stat().st_mtime, UTC),
        metadata={"source": "file", "title": title},
    )


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MissingDataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _decoded(path: Path) -> str:
    try:
        return _bytes_of(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} must be text in UTF-8: {error}.") from error


def _digest_id(now: datetime) -> str:
    return f"digest:{now:%Y-%m-%d}"


def _groups(closed: Sequence[Trade]) -> list[dict[str, str | int | float]]:
    by_group: dict[tuple[str, str], list[float]] = defaultdict(list)
    for trade in closed:
        if trade.net_pnl_pct is not None:
            by_group[trade.category.value, trade.regime.value].append(trade.net_pnl_pct)
    return [
        {
            "category": category,
            "regime": regime,
            "closed_trades": len(returns),
            "win_rate": sum(net > 0.0 for net in returns) / len(returns),
            "avg_net_pnl_pct": sum(returns) / len(returns),
        }
        for (category, regime), returns in sorted(by_group.items())
    ]


def _digest_text(now: datetime, days: int, n_traces: int, n_approved: int, closed: Sequence[Trade]) -> str:
    lines = [
        f"Digest of {now:%Y-%m-%d}: {n_traces} decisions in {days} days, {n_approved} approved, {len(closed)} trades closed."
    ]
    lines += [
        f"{group['category']} in a {group['regime']} regime: {group['closed_trades']} closed, "
        f"win rate {group['win_rate']:.0%}, average return after cost {group['avg_net_pnl_pct']:+.2%}."
        for group in _groups(closed)
    ]
    return "\n".join(lines)
