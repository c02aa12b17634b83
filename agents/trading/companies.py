"""Companies that ship with the desk: large US companies with their ticker, their sector and the names they go by.

Hides the file. Promises that what the store's ticker map says of a name comes before it, so that the SEC's listings and a
user's own map correct it without anything being overwritten.

Sectors are those of the Global Industry Classification Standard, as commonly published. The file was written for this purpose;
it is a beginning, and `aqf trade --edgar` or `aqf trade learn --ticker-map` bring the rest.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from agents.trading.names import name_words
from core.message import Message
from core.store.trading_records import Exchange, TickerMapping
from core.types import Identifier, Ticker

_FILE = Path(__file__).parent / "companies.csv"


@dataclass(frozen=True, kw_only=True, slots=True)
class Company(Message):
    """A listed company; the first of its names is the full one."""

    ticker: Ticker
    exchange: Exchange
    sector: Identifier
    names: tuple[Identifier, ...]

    @property
    def mappings(self) -> tuple[TickerMapping, ...]:
        """What the ticker map would keep of it."""
        return tuple(TickerMapping(supplier_name=name, ticker=self.ticker, exchange=self.exchange) for name in self.names)


@cache
def load_companies() -> tuple[Company, ...]:
    """Return the companies that ship, by ticker."""
    with _FILE.open(encoding="utf-8", newline="") as file:
        return tuple(Company.from_dict({**row, "names": row["names"].split("|")}) for row in csv.DictReader(file, strict=True))


@cache
def company_sectors() -> Mapping[str, str]:
    """Return the sector by symbol."""
    return MappingProxyType({company.ticker: company.sector for company in load_companies()})


def with_companies(stored: Sequence[TickerMapping]) -> list[TickerMapping]:
    """Return a ticker map and, behind it, the companies that ship, without the names that it has but for their legal form."""
    known = {tuple(name_words(item.supplier_name)) for item in stored}
    packaged = [item for company in load_companies() for item in company.mappings]
    return [*stored, *(item for item in packaged if tuple(name_words(item.supplier_name)) not in known)]
