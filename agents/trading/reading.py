"""Reading: a signal from its fields as JSON and CSV have them.

Hides the ways in which senders write one thing. Promises that a time of any zone, a category or a severity in any case and a
ticker in small letters or given twice are what they mean, and that nothing else is mended: a message stays as strict as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from core.errors import DataError
from core.message import brief
from core.types import RawSignal


class UntimedSignalError(DataError):
    """A signal that does not say when it was published, so that nobody knows its age."""


def read_signal(fields: Mapping[str, Any]) -> RawSignal:
    """Build a signal from its fields.

    Parameters
    ----------
    fields : mapping of str to object
        As `RawSignal.to_dict` returns them. `published_at` is a time in ISO 8601 with its zone, `category` and `severity` are
        names in any case, `affected_tickers` is a list of tickers.

    Raises
    ------
    UntimedSignalError
        If the time is missing, cannot be read, or has no zone: what it means is not guessed.
    DataError
        If a field is unknown or missing, or a value is not what its field must be.
    """
    if not isinstance(fields, Mapping):
        raise DataError(f"a signal must be read from a mapping of its fields, was {brief(fields)}.")
    read = dict(fields)
    read["published_at"] = _read_time(read.get("published_at"))
    for name in ("category", "severity"):
        if isinstance(value := read.get(name), str):
            read[name] = value.strip().lower()
    tickers = read.get("affected_tickers")
    if isinstance(tickers, list | tuple) and all(isinstance(ticker, str) for ticker in tickers):
        read["affected_tickers"] = list(dict.fromkeys(ticker.upper() for ticker in tickers))
    return RawSignal.from_dict(read)


def _read_time(given: object) -> str:
    try:
        at = datetime.fromisoformat(given.strip()) if isinstance(given, str) else None
        if at is not None and at.utcoffset() is not None:
            return at.astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        pass
    raise UntimedSignalError(
        f"`published_at` must be a time with its zone, such as 2024-03-01T15:00:00+00:00, was {brief(given)}."
    )
