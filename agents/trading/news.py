"""NewsItem: what a source published, before it is a signal, and what its words come to.

Hides how sources name things. Promises that a category or an urgency that is not known is refused and not guessed, and that a
plain text is read by whole words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from core.errors import DataError
from core.message import Message
from core.types import Identifier, Severity, SignalCategory, Ticker


class NewsCategory(StrEnum):
    """What a source says an item is about."""

    SUPPLY_CHAIN = "supply_chain"
    PRICING = "pricing"
    REGULATORY = "regulatory"
    EARNINGS = "earnings"
    LAYOFFS = "layoffs"
    MACRO = "macro"
    ACQUISITION = "acquisition"
    FUNDING = "funding"
    PRODUCT = "product"
    PARTNERSHIP = "partnership"
    OTHER = "other"


class Urgency(StrEnum):
    """How soon a source says an item matters."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


CATEGORIES: Mapping[NewsCategory, SignalCategory] = MappingProxyType(
    {
        NewsCategory.SUPPLY_CHAIN: SignalCategory.SUPPLIER_DISRUPTION,
        NewsCategory.PRICING: SignalCategory.SUPPLIER_DISRUPTION,
        NewsCategory.REGULATORY: SignalCategory.REGULATORY_ACTION,
        NewsCategory.EARNINGS: SignalCategory.EARNINGS_SURPRISE,
        NewsCategory.LAYOFFS: SignalCategory.MACRO_SHIFT,
        NewsCategory.MACRO: SignalCategory.MACRO_SHIFT,
        NewsCategory.ACQUISITION: SignalCategory.POSITIVE_NEWS,
        NewsCategory.FUNDING: SignalCategory.POSITIVE_NEWS,
        NewsCategory.PRODUCT: SignalCategory.POSITIVE_NEWS,
        NewsCategory.PARTNERSHIP: SignalCategory.POSITIVE_NEWS,
        NewsCategory.OTHER: SignalCategory.NEUTRAL,
    }
)
"""What each category of a source is to the agents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewsItem(Message):
    """An item as a source published it.

    Parameters
    ----------
    source : str
        Name of the source.
    source_key : str
        What the source calls the item; fetched again, it is the same item.
    headline : str
    summary : str, optional
    published_at : datetime
        UTC.
    category : NewsCategory
    urgency : Urgency
    significant : bool, default=False
        The source marks it as out of the ordinary.
    tickers : tuple of str
        Upper-case, without repetition.
    supplier : str, optional
        Company it is about.
    url : str, optional

    Raises
    ------
    DataError
        If a value is not allowed; the text names the field.
    """

    source: Identifier
    source_key: Identifier
    headline: Identifier
    summary: str = ""
    published_at: datetime
    category: NewsCategory
    urgency: Urgency
    significant: bool = False
    tickers: tuple[Ticker, ...] = ()
    supplier: Identifier | None = None
    url: Identifier | None = None


def read_severity(urgency: Urgency, *, significant: bool) -> Severity:
    """Return how much an item matters: its urgency, and critical when it is significant and high."""
    if significant and urgency is Urgency.HIGH:
        return Severity.CRITICAL
    return Severity(urgency.value)


def read_news_category(name: str) -> NewsCategory:
    """Return the category of a name as sources write it: ``Supply Chain``, ``supply-chain`` and ``supply_chain`` are one.

    Raises
    ------
    DataError
        If there is none of that name.
    """
    plain = re.sub(r"[\s-]+", "_", name.strip().lower())
    try:
        return NewsCategory(plain)
    except ValueError:
        raise DataError(f"`category` must be one of {', '.join(NewsCategory)}, was {name!r:.80}.") from None


def classify(text: str) -> tuple[NewsCategory, Urgency, bool]:
    """Return what a plain text is about, how urgent it is, and whether it is significant, by its words.

    The first category that has a word in the text is taken, in the order below; urgency is high with an alarming word, low
    without a category. A text is significant when a word in it says that what happened is out of the ordinary.
    """
    category = next((kind for kind, words in _WORDS.items() if words.search(text)), NewsCategory.OTHER)
    if category is NewsCategory.OTHER:
        return category, Urgency.LOW, False
    urgency = Urgency.HIGH if _URGENT.search(text) else Urgency.MEDIUM
    return category, urgency, _SIGNIFICANT.search(text) is not None


def find_tickers(text: str) -> tuple[str, ...]:
    """Return the tickers that a text marks as such, in order: ``(NASDAQ: AAPL)``, ``NYSE:BA`` or ``$TSLA``."""
    return tuple(dict.fromkeys(match["listed"] or match["cash"] for match in _TICKER.finditer(text)))


def _any_of(words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{words})\b", re.IGNORECASE)


_TICKER = re.compile(
    r"\b(?:NYSE(?: American| Arca)?|NASDAQ(?:GS|GM|CM)?|Nasdaq|XETRA|Xetra)\s*:\s*(?P<listed>[A-Z][A-Z0-9]{0,4}(?:\.[A-Z])?)\b"
    r"|(?<![\w$])\$(?P<cash>[A-Z]{1,5}(?:\.[A-Z])?)\b"
)
_WORDS = {
    NewsCategory.SUPPLY_CHAIN: _any_of(
        r"supply chains?|suppliers?|shortages?|outages?|recalls?|strikes?|walkouts?|port closures?|bottlenecks?|"
        r"(?:halts?|suspends?|stops?|shuts?|cuts?) (?:\w+ )?(?:production|output|plants?|factor(?:y|ies)|shipments?)|"
        r"force majeure|factory fires?|plant fires?|explosions?"
    ),
    NewsCategory.LAYOFFS: _any_of(r"layoffs?|lays? off|job cuts?|cuts? [\d,]+ jobs|redundanc(?:y|ies)|restructuring"),
    NewsCategory.REGULATORY: _any_of(
        r"regulators?|antitrust|probes?|investigations?|lawsuits?|sues?|sued|fines?|fined|penalt(?:y|ies)|subpoenas?|FDA|"
        r"non-reliance|delisting|delisted|sanctions?|inquir(?:y|ies)|settlements?|consent decree"
    ),
    NewsCategory.EARNINGS: _any_of(
        r"earnings|quarterly|results of operations|profit warnings?|profits?|revenues?|EPS|guidance|outlook|dividends?|"
        r"impairments?"
    ),
    NewsCategory.PRICING: _any_of(r"price (?:increases?|hikes?|cuts?)|(?:raises?|cuts?|hikes?) prices|pricing"),
    NewsCategory.ACQUISITION: _any_of(r"acqui(?:res?|red|sitions?)|mergers?|merges?|takeovers?|buyouts?|to buy"),
    NewsCategory.FUNDING: _any_of(r"funding|raises \$?[\d.]+|IPO|private placement|share buyback|credit facility"),
    NewsCategory.PARTNERSHIP: _any_of(
        r"partnerships?|partners with|joint ventures?|contracts?|material definitive agreements?|orders? worth"
    ),
    NewsCategory.PRODUCT: _any_of(r"launch(?:es|ed)?|unveils?|introduces?|new products?|patents?|approvals?"),
    NewsCategory.MACRO: _any_of(
        r"Federal Reserve|central banks?|inflation|tariffs?|interest rates?|recession|GDP|unemployment"
    ),
}
_URGENT = _any_of(
    r"breaking|urgent|bankruptcy|insolvency|insolvent|default(?:s|ed)?|explosions?|fires?|halts?|halted|suspends?|suspended|recalls?|"
    r"fraud|resigns?|non-reliance|delisting|delisted|force majeure|strikes?|plunges?|soars?|surges?|warns?|warning|sanctions?"
)
_SIGNIFICANT = _any_of(
    r"bankruptcy|insolvency|record|largest|biggest|unprecedented|historic|worst|force majeure|fraud|non-reliance|"
    r"all production|nationwide|worldwide|global"
)
