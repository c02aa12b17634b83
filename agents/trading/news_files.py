"""NewsFile: news from a CSV or JSONL file, as if it came in now.

Hides both formats. Promises that nothing is told before its time, and that a line that cannot be used is told with its number
and the reason, while the others come.

One item a line, with these fields; of CSV they are the header, and tickers are divided by ``|``:
``source_key, headline, summary, published_at, category, urgency, significant, tickers, supplier, url``. Needed are headline,
published_at (with its zone), category and urgency; without a source_key the line itself is the key.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from agents.trading.feeds import MAX_HEADLINE, MAX_SUMMARY, Batch, Dropped, clean, read_time, short_key
from agents.trading.news import NewsItem, Urgency, read_news_category
from core.clock import Clock
from core.errors import DataError, MissingDataError

_NEEDED = frozenset({"headline", "published_at", "category", "urgency"})
_FIELDS = _NEEDED | {"source_key", "summary", "significant", "tickers", "supplier", "url"}
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}


class NewsFile:
    """A file of news.

    Parameters
    ----------
    path : Path
        Ends in ``.csv`` or ``.jsonl``; UTF-8.
    clock : Clock
        What is dated after its time is held back until then.
    name : str, optional
        Name of the source; the file's own when None.
    """

    def __init__(self, path: Path, clock: Clock, *, name: str | None = None) -> None:
        self.name = path.stem if name is None else name
        self._path, self._clock = path, clock
        self._kept: set[str] = set()
        self._told: set[str] = set()

    def fetch(self) -> Batch:
        """Return the items that are due and were not confirmed as kept before.

        Raises
        ------
        MissingDataError
            If the file is not there or cannot be opened.
        DataError
            If it is no text in UTF-8, has another ending, or its CSV header is not the fields above.
        """
        now, items, dropped, held = self._clock.now(), [], [], 0
        self._told = set()
        for number, content, fields in self._lines():
            key = hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()
            if key in self._kept:
                continue
            try:
                if isinstance(fields, DataError):
                    raise fields
                item = self._read(fields, key)
            except DataError as error:
                dropped.append(Dropped(source=self.name, key=f"line {number}", reason=str(error)))
                self._told.add(key)
                continue
            if item.published_at > now:
                held += 1
                continue
            items.append(item)
            self._told.add(key)
        return Batch(items=tuple(items), dropped=tuple(dropped), held=held)

    def confirm(self) -> None:
        """Take note that what was fetched is kept."""
        self._kept |= self._told

    def _lines(self) -> Iterator[tuple[int, str, Mapping[str, Any] | DataError]]:
        try:
            text = self._path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise MissingDataError(f"{self._path} cannot be read: {error.strerror or error}.") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{self._path} must be text in UTF-8: {error}.") from error
        if self._path.suffix.lower() == ".jsonl":
            return self._json_lines(text)
        if self._path.suffix.lower() == ".csv":
            return self._csv_lines(text)
        raise DataError(f"{self._path} must end in .csv or .jsonl.")

    def _json_lines(self, text: str) -> Iterator[tuple[int, str, Mapping[str, Any] | DataError]]:
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, line, DataError(f"must be JSON: {error}.")
                continue
            yield number, line, fields if isinstance(fields, dict) else DataError(f"must be a JSON object, was {line!r:.80}.")

    def _csv_lines(self, text: str) -> Iterator[tuple[int, str, Mapping[str, Any] | DataError]]:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            header = next(reader, [])
            if len(set(header)) != len(header) or not _NEEDED <= set(header) <= _FIELDS:
                raise DataError(
                    f"{self._path} must have columns among {', '.join(sorted(_FIELDS))}, had {', '.join(header)!r:.200}."
                )
            for row in reader:
                if not row:
                    continue
                content = "\x1f".join(row)
                if len(row) == len(header):
                    yield reader.line_num, content, {name: value for name, value in zip(header, row, strict=True) if value}
                else:
                    yield reader.line_num, content, DataError(f"must have {len(header)} values, had {len(row)}.")
        except csv.Error as error:
            raise DataError(f"{self._path}, line {reader.line_num}, is not CSV: {error}.") from error

    def _read(self, fields: Mapping[str, Any], key: str) -> NewsItem:
        unknown, missing = set(fields) - _FIELDS, _NEEDED - set(fields)
        if unknown or missing:
            raise DataError(
                f"must have the fields {', '.join(sorted(_NEEDED))}; lacks {sorted(missing)}, unknown {sorted(unknown)}."
            )
        tickers = fields.get("tickers") or []
        if isinstance(tickers, str):
            tickers = [part.strip() for part in tickers.split("|") if part.strip()]
        if not isinstance(tickers, list):
            raise DataError(f"`tickers` must be a list, was {tickers!r:.80}.")
        urgency = _field(fields, "urgency").lower()
        if urgency not in list(Urgency):
            raise DataError(f"`urgency` must be one of {', '.join(Urgency)}, was {urgency!r:.80}.")
        truth = str(fields.get("significant", "")).lower()
        if truth not in _TRUTH:
            raise DataError(f"`significant` must be true or false, was {truth!r:.80}.")
        return NewsItem(
            source=self.name,
            source_key=short_key(clean("source_key", _field(fields, "source_key") or key, 10 * MAX_HEADLINE)),
            headline=clean("headline", _field(fields, "headline"), MAX_HEADLINE),
            summary=clean("summary", _field(fields, "summary"), MAX_SUMMARY),
            published_at=read_time(_field(fields, "published_at"), datetime.fromisoformat),
            category=read_news_category(_field(fields, "category")),
            urgency=Urgency(urgency),
            significant=_TRUTH[truth],
            tickers=tuple(dict.fromkeys(str(ticker).upper() for ticker in tickers)),
            supplier=clean("supplier", _field(fields, "supplier"), MAX_HEADLINE) or None,
            url=clean("url", _field(fields, "url"), MAX_HEADLINE) or None,
        )


def _field(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise DataError(f"`{name}` must be text, was {value!r:.80}.")
    return value or ""
