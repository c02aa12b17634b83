"""Files: bars from CSV and Parquet, or a refusal that names the file, the line and what to do.

Hides how text becomes aligned arrays. Promises that a Panel that comes back holds plausible bars: corrupt data is refused,
never repaired.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from core.errors import DataError, MissingDataError
from core.market.panel import BAR_FIELDS, FloatArray, Panel

MIN_BARS = 60
MAX_MISSING = 0.5
_TOLERANCE = 1e-9
_REQUIRED = ("symbol", "ts", "close")
_END_OF_DATE = pd.Timedelta(days=1) - pd.Timedelta(seconds=1)

_NUMBER = r"^\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*$"
_DATE = r"^\d{4}-\d{2}-\d{2}$"
_NAIVE_TIME = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?$"
_AWARE_TIME = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6}0*)?)?(Z|[-+]\d{2}(:?\d{2})?)$"

# Names the place of the i-th value: a line of a file, a row, a symbol and a time.
_Where = Callable[[int], str]


def read_bars(path: str | Path) -> Panel:
    """Read bars from a CSV or Parquet file in the long form: one row for each symbol and time.

    Parameters
    ----------
    path : str or Path
        A file with the columns ``symbol``, ``ts``, ``close`` and, if there are any, ``open``, ``high``, ``low``, ``volume``, in
        any order and case. A name that ends in ``.parquet`` or ``.pq`` is read as Parquet, any other as CSV: UTF-8, separated
        by commas, with a header line. Rows may be in any order between symbols, but each symbol's own rows go forward in time.

    Returns
    -------
    Panel
        Named like the file without its ending. Symbols in alphabetical order, aligned on the union of their times. Further
        columns are in `Panel.extra` under their name in lower case. A column other than ``close`` without a single value is
        left out.

    Raises
    ------
    MissingDataError
        If there is no such file.
    DataError
        If anything in the file is not as described here. The text names the file, the line (CSV) or row (Parquet, counted
        from 1), and what to do.

    Notes
    -----
    **Times.** ``ts`` is the time of the bar's close. A time with a clock part must carry its offset, like
    ``2024-03-01T16:00:00-05:00`` or ``2024-03-01T21:00:00Z``, and is converted to UTC. A column of dates (``2024-03-01``) is
    read as daily bars, each stamped **23:59:59 UTC of its date**: the date stays readable and the stamp is not before the close
    of that date's session on any stock exchange, so nothing is known too early. Naive date-times are refused; in Parquet,
    naive times that are all at midnight are dates.

    **Missing values.** An empty cell is NaN; an empty ``close`` is a missing bar. A text such as ``NA`` is refused.

    **Checks.** Prices are finite and positive, volume is not negative, high is not below open, close or low, and low not above
    open or close (relative tolerance 1e-9); there are at least 60 bars; no symbol lacks more than half of its closes.
    """
    path = Path(path)
    table, where = _read_table(path)
    names = _column_names(path, table)
    columns = {name: table.column(place) for place, name in enumerate(names)}
    symbols, symbol_codes = _symbols(path, columns.pop("symbol"), where)
    stamps, stamp_codes = _stamps(path, columns.pop("ts"), where)
    values = {name: _numbers(path, name, column, where) for name, column in columns.items()}
    values = {name: array for name, array in values.items() if name == "close" or not np.isnan(array).all()}
    _check_rows(path, symbols, symbol_codes, stamps, stamp_codes, where)
    _check_values(str(path), values, where)

    grids = {}
    for name, array in values.items():
        grids[name] = np.full((len(stamps), len(symbols)), np.nan)
        grids[name][stamp_codes, symbol_codes] = array
    bars = {name: grid for name, grid in grids.items() if name in BAR_FIELDS}
    extra = {name: grid for name, grid in grids.items() if name not in BAR_FIELDS}
    panel = Panel(index=stamps, symbols=symbols, extra=extra, name=path.stem, **bars)  # type: ignore[arg-type]
    _check_coverage(str(path), panel)
    return panel


def check_panel(panel: Panel) -> None:
    """Check a panel that comes from elsewhere as `read_bars` checks a file.

    Raises
    ------
    DataError
        If a price is not finite and positive, a volume is negative, a bar contradicts itself, an extra column is infinite,
        there are fewer than 60 bars, or a symbol lacks more than half of its closes. The text names symbol and time.
    """

    def where(place: int) -> str:
        row, column = divmod(place, panel.n_assets)
        return f"{panel.symbols[column]} at {panel.index[row].isoformat()}"

    source = f"the data set {panel.name or '(unnamed)'}"
    _check_values(source, {name: panel.get(name).ravel() for name in panel.fields}, where)
    _check_coverage(source, panel)


def _refuse(source: str | Path, text: str) -> NoReturn:
    raise DataError(f"{source}: {text}")


def _read_table(path: Path) -> tuple[pa.Table, _Where]:
    if path.is_dir():
        _refuse(path, "this is a folder, not a file; name one file in it.")
    if not path.is_file():
        raise MissingDataError(f"{path}: there is no such file; check the name and the folder ({Path.cwd()}).")
    if path.stat().st_size == 0:
        _refuse(path, "the file is empty; export it again.")
    if path.suffix.lower() in {".parquet", ".pq"}:
        try:
            table = pq.ParquetFile(path).read()
        except (pa.ArrowException, OSError) as error:
            _refuse(path, f"not a Parquet file that can be read ({error}); write it again, or name a CSV file .csv.")
        unnamed = [name for name in table.column_names if name.startswith("__index_level_")]
        table, where = table.drop_columns(unnamed), (lambda place: f"row {place + 1}")
    else:
        table, where = _read_csv(path), (lambda place: f"line {place + 2}")
    return table, where


def _read_csv(path: Path) -> pa.Table:
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if b"\x00" in data:
        line = data[: data.index(b"\x00")].count(b"\n") + 1
        _refuse(path, f"line {line}: not text (a zero byte); save it as CSV in UTF-8, or name a Parquet file .parquet.")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        _refuse(path, f"line {line}: not UTF-8 text (byte 0x{data[error.start]:02x}); save the file in UTF-8.")
    header, _, body = data.partition(b"\n")
    if not header.strip():
        _refuse(path, "line 1: the header is empty; the first line must name the columns symbol,ts,close.")
    names = next(csv.reader([header.decode().rstrip("\r")]))
    if not body.strip():
        _refuse(path, "only a header and no bars; export it again.")
    places = [str(place) for place in range(len(names))]
    ragged: list[Any] = []

    def on_ragged_row(row: Any) -> str:
        ragged.append(row)
        return "error"

    try:
        table = pa_csv.read_csv(
            io.BytesIO(body.rstrip()),
            read_options=pa_csv.ReadOptions(use_threads=False, column_names=places),
            parse_options=pa_csv.ParseOptions(invalid_row_handler=on_ragged_row, ignore_empty_lines=False),
            convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(places, pa.string()), strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        if not ragged:
            _refuse(path, f"not a CSV file that can be read ({error}); export it again.")
        row = ragged[0]
        _refuse(
            path,
            f"line {row.number + 1}: {row.actual_columns} fields where the header has {row.expected_columns}; "
            "complete the line, or quote a value that holds a comma.",
        )
    return table.rename_columns(names)


def _column_names(path: Path, table: pa.Table) -> list[str]:
    names = [name.strip().lower() for name in table.column_names]
    for place, name in enumerate(names):
        if not name:
            _refuse(path, f"column {place + 1} has no name; name it or leave it out (in pandas: `index=False`).")
        if name in names[:place]:
            _refuse(path, f"the column `{name}` is there twice; keep one.")
    for name in _REQUIRED:
        if name not in names:
            separated = " The fields must be separated by commas." if len(names) == 1 else ""
            _refuse(path, f"there is no column `{name}`, only {', '.join(names)}; name it so in the header.{separated}")
    if table.num_rows == 0:
        _refuse(path, "only a header and no bars; export it again.")
    return names


def _is_text(column: pa.ChunkedArray) -> bool:
    return bool(
        pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type)
    )


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _first(mask: pa.ChunkedArray | npt.NDArray[np.bool_]) -> int:
    flags = np.asarray(mask, dtype=bool)
    return int(flags.argmax()) if flags.any() else -1


def _symbols(path: Path, column: pa.ChunkedArray, where: _Where) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    column = _plain(column)
    if not _is_text(column):
        _refuse(path, f"the column `symbol` must hold text, was {column.type}; convert it.")
    text = pc.utf8_trim_whitespace(pc.fill_null(column, ""))
    if (place := _first(pc.equal(text, ""))) >= 0:
        _refuse(path, f"{where(place)}: the symbol is blank; fill it in or remove the line.")
    codes, uniques = pd.factorize(text.to_numpy(), sort=True)
    for code, symbol in enumerate(uniques):
        if not symbol.isprintable():
            _refuse(path, f"{where(_first(codes == code))}: the symbol {symbol!r} holds a control character; remove it.")
    return tuple(map(str, uniques)), codes.astype(np.int64)


def _stamps(path: Path, column: pa.ChunkedArray, where: _Where) -> tuple[pd.DatetimeIndex, npt.NDArray[np.int64]]:
    column = _plain(column)
    if column.null_count:
        _refuse(path, f"{where(_first(pc.is_null(column)))}: the time is missing; fill it in or remove the line.")
    encoded = column.combine_chunks().dictionary_encode()
    places: npt.NDArray[np.int64] = encoded.indices.to_numpy().astype(np.int64)

    def refuse_at(bad: npt.NDArray[np.bool_], why: str) -> NoReturn:
        place = _first(bad[places])
        _refuse(path, f"{where(place)}: the time {str(column[place])!r} {why}")

    distinct = encoded.dictionary
    if _is_text(column):
        moments = _moments_from_text(distinct, refuse_at)
    elif pa.types.is_date(column.type):
        moments = pd.DatetimeIndex(distinct.cast(pa.timestamp("us")).to_numpy()).tz_localize("UTC") + _END_OF_DATE
    elif pa.types.is_timestamp(column.type):
        moments = _moments_from_timestamps(distinct, refuse_at)
    else:
        _refuse(path, f"the column `ts` must hold times, dates or text, was {column.type}; convert it.")
    unique, order = np.unique(moments.as_unit("us").asi8, return_inverse=True)
    index = pd.DatetimeIndex(unique.view("M8[us]"), name="ts").tz_localize("UTC")
    return index, order[places].astype(np.int64)


def _moments_from_text(distinct: pa.Array, refuse_at: Callable[[npt.NDArray[np.bool_], str], NoReturn]) -> pd.DatetimeIndex:
    text = pc.utf8_trim_whitespace(distinct)

    def matches(pattern: str) -> npt.NDArray[np.bool_]:
        return np.asarray(pc.match_substring_regex(text, pattern), dtype=bool)

    dates, naive, aware = matches(_DATE), matches(_NAIVE_TIME), matches(_AWARE_TIME)
    if naive.any():
        refuse_at(naive, "has no offset from UTC; write it like 2024-03-01T16:00:00-05:00 or 2024-03-01T21:00:00Z.")
    parsed = pd.DatetimeIndex(pd.to_datetime(pd.Series(text.to_pylist()), format="ISO8601", utc=True, errors="coerce"))
    bad = ~(dates | aware) | np.asarray(parsed.isna())
    if bad.any():
        refuse_at(bad, "is not a time; write 2024-03-01 for a daily bar, or 2024-03-01T21:00:00Z.")
    if dates.any() and aware.any():
        refuse_at(dates, "is a date, and other lines have times; write one kind throughout.")
    return parsed + _END_OF_DATE if dates.any() else parsed


def _moments_from_timestamps(
    distinct: pa.Array, refuse_at: Callable[[npt.NDArray[np.bool_], str], NoReturn]
) -> pd.DatetimeIndex:
    whole = distinct.cast(pa.timestamp("us", distinct.type.tz), safe=False)
    finer = np.asarray(pc.not_equal(whole.cast(distinct.type), distinct)) if distinct.type.unit == "ns" else np.zeros(0, bool)
    if finer.any():
        refuse_at(finer, "is finer than a microsecond; round it.")
    moments = pd.DatetimeIndex(whole.cast(pa.int64()).to_numpy().view("M8[us]")).tz_localize("UTC")
    if distinct.type.tz is not None:
        return moments
    clock = np.asarray(moments != moments.normalize())
    if clock.any():
        refuse_at(clock, "has no offset from UTC; localise the column (in pandas: `.dt.tz_localize(...)`).")
    return moments + _END_OF_DATE


def _numbers(path: Path, name: str, column: pa.ChunkedArray, where: _Where) -> FloatArray:
    column = _plain(column)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        return np.asarray(pc.fill_null(column.cast(pa.float64(), safe=False), np.nan), dtype=np.float64)
    what = f"`{name}`" if name in BAR_FIELDS else f"the extra column `{name}`"
    if not _is_text(column):
        _refuse(path, f"{what} must hold numbers, was {column.type}; convert it or leave it out.")
    text = pc.fill_null(column, "")
    blank = np.asarray(pc.match_substring_regex(text, r"^\s*$"), dtype=bool)
    bad = ~blank & ~np.asarray(pc.match_substring_regex(text, _NUMBER), dtype=bool)
    if (place := _first(bad)) >= 0:
        other = "; leave the cell empty if there is no value" if name in BAR_FIELDS else ", or leave out the column"
        _refuse(path, f"{where(place)}: {what} must be a number, was {str(text[place])!r}; write it like 1234.5{other}.")
    out = np.full(len(column), np.nan)
    out[~blank] = np.array([float(cell) for cell in text.filter(pa.array(~blank)).to_pylist()])
    return out


def _check_rows(
    path: Path,
    symbols: tuple[str, ...],
    symbol_codes: npt.NDArray[np.int64],
    stamps: pd.DatetimeIndex,
    stamp_codes: npt.NDArray[np.int64],
    where: _Where,
) -> None:
    keys = pd.Series(symbol_codes * len(stamps) + stamp_codes)
    if (place := _first(keys.duplicated().to_numpy())) >= 0:
        earlier = _first((keys == keys[place]).to_numpy())
        bar = f"{symbols[symbol_codes[place]]} at {stamps[stamp_codes[place]].isoformat()}"
        _refuse(path, f"{where(place)}: a second bar of {bar}, after {where(earlier)}; keep one.")
    by_symbol = np.argsort(symbol_codes, kind="stable")
    same = np.diff(symbol_codes[by_symbol]) == 0
    back = np.flatnonzero(same & (np.diff(stamp_codes[by_symbol]) < 0))
    if back.size:
        place = int(by_symbol[back + 1].min())
        bar = f"{symbols[symbol_codes[place]]} at {stamps[stamp_codes[place]].isoformat()}"
        _refuse(path, f"{where(place)}: the bar of {bar} comes after a later one; sort the file by symbol and ts.")


def _check_values(source: str, values: Mapping[str, FloatArray], where: _Where) -> None:
    for name, array in values.items():
        if (place := _first(np.isinf(array))) >= 0:
            what = name if name in BAR_FIELDS else f"the extra column `{name}`"
            _refuse(source, f"{where(place)}: {what} is infinite; correct it or leave it empty.")
    for name in ("open", "high", "low", "close"):
        if name in values and (place := _first(values[name] <= 0.0)) >= 0:
            came = f"{values[name][place]:g}"
            _refuse(source, f"{where(place)}: {name} must be above 0, was {came}; correct it or leave it empty.")
    if "volume" in values and (place := _first(values["volume"] < 0.0)) >= 0:
        came = f"{values['volume'][place]:g}"
        _refuse(source, f"{where(place)}: volume must not be negative, was {came}; correct it or leave it empty.")
    for upper, lower in (("high", "low"), ("high", "open"), ("high", "close"), ("open", "low"), ("close", "low")):
        if upper in values and lower in values:
            above, below = values[upper], values[lower]
            if (place := _first(below - above > _TOLERANCE * above)) >= 0:
                came = f"{upper} {above[place]:g} is below {lower} {below[place]:g}"
                _refuse(source, f"{where(place)}: {came}; correct them, or check whether columns are swapped.")


def _check_coverage(source: str, panel: Panel) -> None:
    if panel.n_bars < MIN_BARS:
        _refuse(source, f"too short: {panel.n_bars} bars, and at least {MIN_BARS} are needed; take a longer span.")
    missing = np.isnan(panel.close).mean(axis=0)
    if (place := _first(missing > MAX_MISSING)) >= 0:
        share = f"{missing[place]:.0%} of the {panel.n_bars} bars"
        _refuse(
            source,
            f"{panel.symbols[place]} has no close in {share}, and half is the limit; remove the symbol or shorten the span.",
        )
