"""Universe: which tickers a desk may trade, and of which sectors they are, from a file.

Hides the format. Promises that a file is read whole, or refused with the line that is wrong.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from core.errors import DataError, MissingDataError
from core.message import Message, refuse
from core.types import Identifier, Ticker


@dataclass(frozen=True, kw_only=True, slots=True)
class Universe(Message):
    """Tickers that may be traded; `sectors` has those of which the sector is told."""

    tickers: tuple[Ticker, ...]
    sectors: Mapping[Ticker, Identifier] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    def _check(self) -> None:
        if not self.tickers:
            raise refuse(self, "tickers", "at least one", self.tickers)


def read_universe(path: Path) -> Universe:
    """Read a file with a ticker a line and, behind a comma, its sector where it is known; a first line ``ticker`` is a head.

    Raises
    ------
    MissingDataError
        If the file cannot be opened.
    DataError
        If it names no ticker, or a line is no ticker, or one that stands there already; the text names the line.
    """
    sectors: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for line, row in enumerate(csv.reader(file, strict=True), start=1):
                ticker, *more = (cell.strip() for cell in row) if row else ("",)
                if (not ticker and not more) or (line == 1 and ticker.lower() == "ticker"):
                    continue
                if len(more) > 1:
                    raise DataError(
                        f"line {line} of {path} must be a ticker and at most its sector, was {','.join(row)!r:.120}."
                    )
                if ticker in sectors:
                    raise DataError(f"line {line} of {path} names {ticker} again: name each ticker once.")
                try:
                    Universe(tickers=(ticker,))
                except DataError as error:
                    raise DataError(f"line {line} of {path}: {error}") from error
                sectors[ticker] = more[0] if more else ""
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} must be CSV in UTF-8: {error}.") from error
    except OSError as error:
        raise MissingDataError(f"the universe {path} cannot be opened: {error.strerror or error}.") from error
    if not sectors:
        raise DataError(f"{path} must name a ticker a line, names none.")
    return Universe(tickers=tuple(sectors), sectors={ticker: sector for ticker, sector in sectors.items() if sector})
