"""TickerMap: under which ticker a company trades, from the name that a text gives it.

Hides spellings, legal forms and several listings of one company. Promises that a name is answered exactly before it is answered
nearly, and that a private company, or a name that two companies share, has no ticker.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agents.trading.name_index import ListedName, NameIndex
from agents.trading.names import name_words
from core.store.trading_records import Exchange, TickerMapping

EXCHANGES = (Exchange.NASDAQ, Exchange.NYSE, Exchange.XETRA)
"""Where a company with several listings is traded, in order of preference."""

PRIVATE_COMPANIES = (
    "Aldi", "Bloomberg", "Bosch", "ByteDance", "Cargill", "Chick-fil-A", "Deloitte", "Epic Games", "Ernst & Young", "Ferrero",
    "Fidelity Investments", "Huawei", "IKEA", "JCB", "Koch Industries", "KPMG", "Lego", "Lidl", "Louis Dreyfus", "Mars",
    "McKinsey", "Media-Saturn", "Merck KGaA", "Miele", "OpenAI", "PricewaterhouseCoopers", "Publix", "Robert Bosch", "Rolex",
    "SpaceX", "Stripe", "Trafigura", "Vitol", "ZF Friedrichshafen",
)  # fmt: skip
"""Companies that are often in the news and have no shares to trade here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """The answer for a name: the ticker, or why there is none."""

    ticker: str | None
    reason: str


class TickerMap:
    """Find tickers by names.

    Parameters
    ----------
    mappings : iterable of TickerMapping
    private_companies : sequence of str
        Names that have no ticker, unless the mappings name one exactly; that is asked before legal forms are left out, so that
        another company of the same name can be told apart.
    min_score : float, default=0.92
        Similarity from which a name is taken for another, as a fraction.
    """

    def __init__(
        self,
        mappings: Iterable[TickerMapping],
        private_companies: Sequence[str] = PRIVATE_COMPANIES,
        *,
        min_score: float = 0.92,
    ) -> None:
        ordered = sorted(mappings, key=lambda item: (EXCHANGES.index(item.exchange), item.supplier_name))
        self._min_score = min_score
        self._exact: dict[str, str] = {}
        self._by_words: dict[tuple[str, ...], set[str]] = defaultdict(set)
        self._names: dict[str, list[str]] = defaultdict(list)
        chosen: list[TickerMapping] = []
        for item in ordered:
            self._names[item.ticker].append(item.supplier_name)
            key = _plain(item.supplier_name)
            if key not in self._exact:
                self._exact[key] = item.ticker
                self._by_words[tuple(name_words(item.supplier_name))].add(item.ticker)
                chosen.append(item)
        self._index = NameIndex(ListedName(name=item.supplier_name, entry=item.ticker, is_person=False) for item in chosen)
        self._no_shares = frozenset(map(_plain, private_companies))
        self._private = NameIndex(ListedName(name=name, entry=name, is_person=False) for name in private_companies)

    def __len__(self) -> int:
        return len(self._exact)

    def __contains__(self, ticker: object) -> bool:
        return ticker in self._names

    def names_of(self, ticker: str) -> tuple[str, ...]:
        """Return the names of the company behind a ticker; none when it is not known."""
        return tuple(self._names.get(ticker, ()))

    def resolve(self, name: str) -> Resolved:
        """Return the ticker of a company, or why there is none."""
        exact = self._exact.get(_plain(name))
        if exact is not None:
            return Resolved(ticker=exact, reason=f"{name!r} is in the ticker map")
        if _plain(name) in self._no_shares:
            return Resolved(ticker=None, reason=f"{name!r} is a private company")
        alike = self._by_words.get(tuple(name_words(name)), set())
        if len(alike) == 1:
            return Resolved(ticker=next(iter(alike)), reason=f"{name!r} is in the ticker map but for its legal form")
        if self._private.match_name(name, at_least=self._min_score) is not None:
            return Resolved(ticker=None, reason=f"{name!r} is a private company")
        matches = self._index.list_matches(name, at_least=self._min_score)
        nearest = {match.listed.entry for match in matches if match.score == matches[0].score}
        if len(nearest) == 1:
            return Resolved(ticker=nearest.pop(), reason=f"{name!r} is nearly {matches[0].listed.name!r}")
        shared = sorted(alike | nearest)
        why = f"may be any of {', '.join(shared)}" if shared else "is not in the ticker map"
        return Resolved(ticker=None, reason=f"{name!r} {why}")


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())
