"""Rows of a replay, read from a file: what is wrong with the file or with a row's world is an error that names the line.

Hides CSV. Promises nothing of the signals in it: what is wrong with those is for the pipeline to say.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from core.errors import DataError, MissingDataError
from core.message import Message, refuse
from core.types import BindingConstraint, Count, Fraction, Identifier, Positive, Stage

COLUMNS = (
    "signal_id", "published_at", "now", "headline", "summary", "category", "severity", "tickers", "supplier", "vix",
    "sp500_1m_return", "price", "equity", "hit_rate", "closed_trades", "expected_stage", "expected_constraint",
)  # fmt: skip
FILLED = "filled"
"""Where a signal ends whose order was filled."""

_MOST_ROWS = 1_000_000
_MOST_CLOSED = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayRow(Message):
    """A row: a signal as it came, the world it meets, and how it should end.

    Parameters
    ----------
    line : int
        Of the file.
    signal : mapping of str to str
        Fields of the signal as text: what is wrong with them is for the pipeline to say.
    now : datetime
        When it is judged, UTC.
    vix, sp500_1m_return : float, optional
        Index points; a fraction. None is no data.
    price : float, optional
        Last price of every ticker of the signal; None is no data.
    equity : float
        Cash of the empty account.
    hit_rate, closed_trades : float, int
        What the context has shown before.
    expected_stage : str
        The stage that refuses, or `FILLED`.
    expected_constraint : BindingConstraint, optional
        What binds; of a filled row, what cut the size, None where nothing did.
    """

    line: Count
    signal: Mapping[str, str] = field(hash=False)
    now: datetime
    vix: float | None = None
    sp500_1m_return: float | None = None
    price: float | None = None
    equity: Positive | None = None
    hit_rate: Fraction = 0.0
    closed_trades: Count = 0
    expected_stage: Identifier
    expected_constraint: BindingConstraint | None = None

    def _check(self) -> None:
        if self.expected_stage not in (*(stage.value for stage in Stage), FILLED):
            raise refuse(self, "expected_stage", f"a stage or `{FILLED}`", self.expected_stage)
        if self.closed_trades > _MOST_CLOSED:
            raise refuse(self, "closed_trades", f"at most {_MOST_CLOSED}", self.closed_trades)

    @property
    def hits(self) -> int:
        """Closed trades that gained, in whole trades as near to the rate as can be."""
        return round(self.hit_rate * self.closed_trades)

    @property
    def tickers(self) -> tuple[str, ...]:
        """The tickers of the signal."""
        return tuple(name.strip() for name in self.signal["tickers"].split("|") if name.strip())


def read_replay(path: str | Path) -> list[ReplayRow]:
    """Read a file of rows.

    Parameters
    ----------
    path : str or Path
        CSV in UTF-8 with exactly the columns `COLUMNS`. Tickers are separated by ``|``; an empty `vix`, `sp500_1m_return` or
        `price` is no data; an empty `hit_rate` and `closed_trades` is a context without a record.

    Raises
    ------
    MissingDataError
        If there is no such file.
    DataError
        If it is not as described, two rows have one `signal_id`, or a row describes a world that cannot be; the text names the
        line. What is wrong with a signal is no error here: the pipeline refuses it, with a trace.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(_read_rows(path, csv.DictReader(file, strict=True)))
    except FileNotFoundError as error:
        raise MissingDataError(f"there is no file {path}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as CSV in UTF-8: {error}.") from error


def _read_rows(path: Path, reader: csv.DictReader[str]) -> Iterator[ReplayRow]:
    found = tuple(reader.fieldnames or ())
    if sorted(found) != sorted(COLUMNS):
        missing, more = sorted(set(COLUMNS) - set(found)), sorted(set(found) - set(COLUMNS))
        what = "; ".join(
            [*([f"missing: {', '.join(missing)}"] if missing else []), *([f"unknown: {', '.join(more)}"] if more else [])]
        )
        raise DataError(f"{path} must have exactly the columns of a replay; {what or 'a column is there twice'}.")
    lines: dict[str, int] = {}
    for cells in reader:
        line = reader.line_num
        if None in cells or None in cells.values():
            raise DataError(f"{path}, line {line}: it must have {len(COLUMNS)} cells; quote a cell that holds a comma.")
        if cells["signal_id"] in lines:
            raise DataError(
                f"{path}, line {line}: the signal_id {cells['signal_id']!r} is that of line {lines[cells['signal_id']]}."
            )
        if len(lines) >= _MOST_ROWS:
            raise DataError(f"{path} must have at most {_MOST_ROWS:,} rows; split it.")
        lines[cells["signal_id"]] = line
        yield _read_row(path, line, cells)


def _read_row(path: Path, line: int, cells: Mapping[str, str]) -> ReplayRow:
    try:
        return ReplayRow(
            line=line,
            signal={name: cells[name] for name in COLUMNS[:9] if name != "now"},
            now=_time(cells["now"]),
            vix=_number(cells, "vix"),
            sp500_1m_return=_number(cells, "sp500_1m_return"),
            price=_number(cells, "price"),
            equity=_number(cells, "equity"),
            hit_rate=_number(cells, "hit_rate") or 0.0,
            closed_trades=_count(cells["closed_trades"]),
            expected_stage=cells["expected_stage"].strip(),
            expected_constraint=_constraint(cells["expected_constraint"].strip()),
        )
    except DataError as error:
        raise DataError(f"{path}, line {line}: {error}") from error


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        found = None
    if found is None or found.utcoffset() is None:
        raise DataError(f"`now` must be a time with its offset, as 2024-03-01T15:00:00+00:00, was {text!r}.")
    return found.astimezone(UTC)


def _number(cells: Mapping[str, str], name: str) -> float | None:
    text = cells[name].strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"`{name}` must be a number or empty, was {text!r}.")
    return value


def _count(text: str) -> int:
    if not text.strip():
        return 0
    try:
        return int(text)
    except ValueError:
        raise DataError(f"`closed_trades` must be a whole number or empty, was {text!r}.") from None


def _constraint(text: str) -> BindingConstraint | None:
    if not text:
        return None
    try:
        return BindingConstraint(text)
    except ValueError:
        raise DataError(
            f"`expected_constraint` must be empty or one of {', '.join(BindingConstraint)}, was {text!r}."
        ) from None
