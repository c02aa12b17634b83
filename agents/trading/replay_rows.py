"""Rows of a replay, read from a file as other people write them.

Hides CSV and the ways in which tables write that a cell is empty. Promises that one cell nobody can read costs its own row
alone, which then is named with its line and column; and nothing of the signals: what is wrong with those is for the pipeline
to say.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.errors import DataError, MissingDataError
from core.message import Message, refuse
from core.types import BindingConstraint, Count, Fraction, Identifier, Stage

COLUMNS = (
    "signal_id", "published_at", "now", "headline", "summary", "category", "severity", "tickers", "supplier", "vix",
    "sp500_1m_return", "price", "equity", "hit_rate", "closed_trades", "expected_stage", "expected_constraint",
)  # fmt: skip
FILLED = "filled"
"""Where a signal ends whose order was filled."""

_MOST_ROWS = 1_000_000
_MOST_CLOSED = 10_000
_YEARS = range(1900, 2201)
_EMPTY = frozenset({"", "-", "none", "null", "nan", "na", "n/a", "<na>"})
"""What tables write into a cell that holds nothing, in small letters."""
_EMPTY_TEXTS = frozenset({"nan", "NaN", "None", "<NA>"})
"""The same where any text may stand: `NA` may be a ticker."""


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
    equity : float, optional
        Cash of the empty account. None, or what no account can hold, is an account that nobody knows the worth of.
    hit_rate : float, optional
        What the closed trades have shown in the row's context; None where they were of another context.
    closed_trades : int
    expected_stage : str
        The stage that refuses, or `FILLED`.
    expected_constraint : BindingConstraint, optional
        What binds; of a filled row, what cut the size. None holds the row to its stage alone.
    """

    line: Count
    signal: Mapping[str, str] = field(hash=False)
    now: datetime
    vix: float | None = None
    sp500_1m_return: float | None = None
    price: float | None = None
    equity: float | None = None
    hit_rate: Fraction | None = None
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
        return round((self.hit_rate or 0.0) * self.closed_trades)

    @property
    def tickers(self) -> tuple[str, ...]:
        """The tickers of the signal."""
        return tuple(name.strip() for name in self.signal["tickers"].split("|") if name.strip())


@dataclass(frozen=True, kw_only=True, slots=True)
class UnreadRow(Message):
    """A row that cannot be judged: it describes no world, or expects an end that there is not.

    Parameters
    ----------
    line : int
        Of the file.
    signal_id : str
    problem : str
        Names the column and what was expected.
    """

    line: Count
    signal_id: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class ReplayFile:
    """What a file of rows holds.

    Parameters
    ----------
    rows : tuple of ReplayRow
    unread : tuple of UnreadRow
    notes : tuple of str
        What was passed over, in words.
    """

    rows: tuple[ReplayRow, ...]
    unread: tuple[UnreadRow, ...] = ()
    notes: tuple[str, ...] = ()


def parse_replay(path: str | Path) -> ReplayFile:
    """Read a file of rows, those that cannot be judged apart.

    Parameters
    ----------
    path : str or Path
        CSV in UTF-8 with the columns `COLUMNS`, in any order; others are ignored. Tickers are separated by ``|``. An empty
        `vix`, `sp500_1m_return`, `price` or `equity` is no data; `closed_trades` without a `hit_rate` are trades of another
        context. Rows without a single filled cell are passed over. Rows may share a `signal_id`.

    Raises
    ------
    MissingDataError
        If there is no such file.
    DataError
        If it is no CSV, a column is missing or there twice, or there are too many rows.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _parse(path, csv.DictReader(file))
    except FileNotFoundError as error:
        raise MissingDataError(f"there is no file {path}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read as CSV in UTF-8: {error}.") from error


def read_replay(path: str | Path) -> list[ReplayRow]:
    """Read a file of which every row can be judged, as :func:`parse_replay` does.

    Raises
    ------
    MissingDataError
        If there is no such file.
    DataError
        If it is not as described there, or a row cannot be judged; the text names the line.
    """
    found = parse_replay(path)
    for one in found.unread:
        raise DataError(f"{path}, line {one.line}: {one.problem}")
    return list(found.rows)


def _parse(path: Path, reader: csv.DictReader[str]) -> ReplayFile:
    rows: list[ReplayRow] = []
    unread: list[UnreadRow] = []
    try:
        ignored = _check_columns(path, reader)
        for line, cells, beyond in _list_cells(reader):
            if len(rows) + len(unread) >= _MOST_ROWS:
                raise DataError(f"{path} must have at most {_MOST_ROWS:,} rows; split it.")
            try:
                rows.append(_read_row(line, cells, beyond))
            except DataError as error:
                unread.append(UnreadRow(line=line, signal_id=cells["signal_id"], problem=str(error)))
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as CSV after line {reader.line_num}: {error}.") from error
    return ReplayFile(rows=tuple(rows), unread=tuple(unread), notes=(*_note_columns(ignored), *_note_repeated(rows)))


def _check_columns(path: Path, reader: csv.DictReader[str]) -> list[str]:
    """Have the columns known by their names without spaces around them, and return those that no row needs."""
    found = [name.strip() for name in reader.fieldnames or ()]
    missing = [name for name in COLUMNS if name not in found]
    if missing:
        raise DataError(f"{path} must have the columns of a replay; missing: {', '.join(missing)}.")
    twice = [name for name in COLUMNS if found.count(name) > 1]
    if twice:
        raise DataError(f"{path} must have each column of a replay once; twice: {', '.join(twice)}.")
    reader.fieldnames = found
    return [name for name in found if name not in COLUMNS]


def _list_cells(reader: csv.DictReader[str]) -> Iterator[tuple[int, dict[str, str], list[str]]]:
    """Yield lines that hold anything: the cells by column, and what stands beyond the last one."""
    for read in reader:
        beyond: Any = read.pop(None, [])  # type: ignore[call-overload]
        cells = {name: text or "" for name, text in read.items()}
        if any(text.strip() for text in (*cells.values(), *beyond)):
            yield reader.line_num, cells, beyond


def _read_row(line: int, cells: Mapping[str, str], beyond: list[str]) -> ReplayRow:
    if any(text.strip() for text in beyond):
        raise DataError("it must not have more cells than there are columns; quote a cell that holds a comma.")
    return ReplayRow(
        line=line,
        signal={name: _text(cells[name]) for name in COLUMNS[:9] if name != "now"},
        now=_time(cells["now"]),
        vix=_figure(cells, "vix"),
        sp500_1m_return=_figure(cells, "sp500_1m_return"),
        price=_figure(cells, "price"),
        equity=_figure(cells, "equity"),
        hit_rate=_number(cells, "hit_rate"),
        closed_trades=_count(cells),
        expected_stage=cells["expected_stage"].strip().lower(),
        expected_constraint=_constraint(cells["expected_constraint"].strip().lower()),
    )


def _text(text: str) -> str:
    return "" if text in _EMPTY_TEXTS else text


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        found = None
    if found is None or found.utcoffset() is None or found.year not in _YEARS:
        years = f"of the years {_YEARS[0]} to {_YEARS[-1]}"
        raise DataError(f"`now` must be a time with its offset, as 2024-03-01T15:00:00+00:00, {years}, was {text!r}.")
    return found.astimezone(UTC)


def _number(cells: Mapping[str, str], name: str) -> float | None:
    text = cells[name].strip()
    if text.lower() in _EMPTY:
        return None
    try:
        return float(text)
    except ValueError:
        raise DataError(f"`{name}` must be a number or empty, was {text!r}.") from None


def _figure(cells: Mapping[str, str], name: str) -> float | None:
    """Return a figure of the world; what is not finite is no data."""
    value = _number(cells, name)
    return None if value is None or not math.isfinite(value) else value


def _count(cells: Mapping[str, str]) -> int:
    value = _number(cells, "closed_trades") or 0.0
    if not value.is_integer():
        raise DataError(f"`closed_trades` must be a whole number or empty, was {cells['closed_trades']!r}.")
    return int(value)


def _constraint(text: str) -> BindingConstraint | None:
    if text in _EMPTY:
        return None
    try:
        return BindingConstraint(text)
    except ValueError:
        raise DataError(
            f"`expected_constraint` must be empty or one of {', '.join(BindingConstraint)}, was {text!r}."
        ) from None


def _note_columns(ignored: list[str]) -> Iterator[str]:
    if ignored:
        yield f"columns that a replay does not know are ignored: {', '.join(name or '(without a name)' for name in ignored)}"


def _note_repeated(rows: list[ReplayRow]) -> Iterator[str]:
    counts = Counter(row.signal["signal_id"] for row in rows)
    names = [name for name, n in counts.items() if n > 1]
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f"several rows have the signal_id {names[0]!r}{more}; each row is judged alone"
