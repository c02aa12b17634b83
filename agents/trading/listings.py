"""Listings: which companies trade under which ticker, from the SEC's file and from CSV.

Hides both formats. Promises that a file is read whole or refused with the line that is wrong; what trades on another exchange
than we do is left out.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from core.errors import DataError
from core.message import Message
from core.store.trading_records import Exchange, TickerMapping
from core.types import Identifier, Ticker

SEC_URL = "https://www.sec.gov"
SEC_LISTINGS_PATH = "/files/company_tickers_exchange.json"
SEC_LISTINGS_URL = f"{SEC_URL}{SEC_LISTINGS_PATH}"
_FIELDS = ["cik", "name", "ticker", "exchange"]
_COLUMNS = ["supplier_name", "ticker", "exchange"]
_EXCHANGES: Mapping[str, Exchange] = MappingProxyType({"Nasdaq": Exchange.NASDAQ, "NYSE": Exchange.NYSE})


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing(Message):
    """A listed company; `cik` is the SEC's number of it."""

    cik: int
    name: Identifier
    ticker: Ticker
    exchange: Exchange

    @property
    def mapping(self) -> TickerMapping:
        """What the ticker map keeps of it."""
        return TickerMapping(supplier_name=self.name, ticker=self.ticker, exchange=self.exchange)


def read_sec_listings(content: bytes) -> list[Listing]:
    """Read the SEC's ``company_tickers_exchange.json``.

    Raises
    ------
    DataError
        If it is not that file.
    """
    try:
        table = json.loads(content)
        fields, rows = table["fields"], table["data"]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"the SEC's listings must be JSON with `fields` and `data`: {error!r}.") from error
    if fields != _FIELDS or not isinstance(rows, list):
        raise DataError(f"the SEC's listings must have the fields {_FIELDS}, had {fields!r:.120}.")
    listings = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, list) or len(row) != len(_FIELDS):
            raise DataError(f"row {number} of the SEC's listings must have {len(_FIELDS)} values, was {row!r:.120}.")
        cik, name, ticker, exchange = row
        if exchange in _EXCHANGES:
            listings.append(Listing(cik=cik, name=name, ticker=str(ticker).upper(), exchange=_EXCHANGES[exchange]))
    return listings


def read_mappings(text: str) -> list[TickerMapping]:
    """Read a ticker map from CSV with the columns ``supplier_name,ticker,exchange``.

    Raises
    ------
    DataError
        If a column is missing, or a line is not a mapping; the text names the line.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    mappings = []
    try:
        header = next(reader, [])
        if header != _COLUMNS:
            raise DataError(f"a ticker map must have the columns {','.join(_COLUMNS)}, had {','.join(header)!r:.120}.")
        for row in reader:
            if len(row) != len(_COLUMNS):
                raise DataError(f"line {reader.line_num} of the ticker map must have {len(_COLUMNS)} values, had {len(row)}.")
            try:
                mappings.append(TickerMapping.from_dict(dict(zip(_COLUMNS, row, strict=True))))
            except DataError as error:
                raise DataError(f"line {reader.line_num} of the ticker map: {error}") from error
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} of the ticker map is not CSV: {error}.") from error
    return mappings
