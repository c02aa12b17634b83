import dataclasses
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import DataError, MissingDataError
from core.market import BAR_FIELDS, Panel, check_panel, read_bars
from core.market.files import MIN_BARS

DATES = [f"{date:%Y-%m-%d}" for date in pd.date_range("2024-01-01", periods=MIN_BARS)]
STAMPS = [f"{date}T21:00:00Z" for date in DATES]


def lines(stamps: list[str] = STAMPS, header: str = "symbol,ts,close", row: str = "AAPL,{ts},{close}") -> list[str]:
    """A header and one line for each stamp; line n of the file is element n-1."""
    return [header, *(row.format(ts=stamp, close=100 + place) for place, stamp in enumerate(stamps))]


def bars(row: str) -> list[str]:
    return lines(header="symbol,ts,open,high,low,close,volume", row=row)


GOOD = "AAPL,{ts},100,110,90,105,1000"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_file(text: list[str] | bytes, name: str = "bars.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else ("\n".join(text) + "\n").encode())
        return path

    return write_file


def test_the_smallest_file_has_symbol_time_and_close(write: Callable[..., Path]) -> None:
    panel = read_bars(write(lines(), name="mine.csv"))
    assert panel.name == "mine"
    assert panel.symbols == ("AAPL",)
    assert panel.fields == ("close",)
    assert panel.index[0] == pd.Timestamp("2024-01-01T21:00", tz="UTC")
    np.testing.assert_array_equal(panel.close[:, 0], np.arange(100.0, 160.0))


def test_all_columns_in_any_order_and_case_are_read(write: Callable[..., Path]) -> None:
    text = lines(header='Volume, CLOSE ,"High",low,Open,TS,Symbol', row="1000,105,110,90,100,{ts},AAPL")
    panel = read_bars(write(text))
    assert panel.fields == BAR_FIELDS
    assert [panel.get(name)[0, 0] for name in BAR_FIELDS] == [100.0, 110.0, 90.0, 105.0, 1000.0]


def test_symbols_are_aligned_on_the_union_of_their_times_in_alphabetical_order(write: Callable[..., Path]) -> None:
    first = [f"MSFT,{stamp},1" for stamp in STAMPS[:-1]]
    second = [f"AAPL,{stamp},2" for stamp in STAMPS[1:]]
    panel = read_bars(write(["symbol,ts,close", *first, *second]))
    assert panel.symbols == ("AAPL", "MSFT")
    assert panel.n_bars == MIN_BARS
    assert np.isnan(panel.close[0, 0]) and np.isnan(panel.close[-1, 1])
    assert (panel.close[1:, 0] == 2.0).all() and (panel.close[:-1, 1] == 1.0).all()


def test_the_order_of_lines_between_symbols_does_not_matter(write: Callable[..., Path]) -> None:
    by_symbol = [f"{symbol},{stamp},{price}" for symbol, price in (("A", 1), ("B", 2)) for stamp in STAMPS]
    by_time = [f"{symbol},{stamp},{price}" for stamp in STAMPS for symbol, price in (("B", 2), ("A", 1))]
    one, other = (read_bars(write(["symbol,ts,close", *rows])) for rows in (by_symbol, by_time))
    assert one.content_sha256() == other.content_sha256()


def test_dates_are_stamped_at_the_end_of_their_day(write: Callable[..., Path]) -> None:
    panel = read_bars(write(lines(DATES)))
    assert panel.index[0] == pd.Timestamp("2024-01-01T23:59:59", tz="UTC")
    assert [f"{stamp:%Y-%m-%d}" for stamp in panel.index] == DATES


@pytest.mark.parametrize(
    "form",
    ["{}T16:00:00-05:00", "{} 16:00:00-0500", "{} 21:00:00+00:00", "{} 21:00:00+00", "{}T21:00Z", "{}T21:00:00.000000000Z"],
)
def test_offsets_are_converted_to_utc(write: Callable[..., Path], form: str) -> None:
    panel = read_bars(write(lines([form.format(date) for date in DATES])))
    assert panel.index[0] == pd.Timestamp("2024-01-01T21:00", tz="UTC")


def test_microseconds_are_kept(write: Callable[..., Path]) -> None:
    panel = read_bars(write(lines([f"{date}T21:00:00.123456Z" for date in DATES])))
    assert panel.index[0].microsecond == 123456


def test_an_empty_cell_is_a_missing_value(write: Callable[..., Path]) -> None:
    text = bars(GOOD)
    text[3] = f"AAPL,{STAMPS[2]},,,,  ,"
    panel = read_bars(write(text))
    assert all(np.isnan(panel.get(name)[2, 0]) for name in BAR_FIELDS)
    assert not np.isnan(panel.close[3, 0])


def test_a_column_without_a_single_value_is_left_out(write: Callable[..., Path]) -> None:
    panel = read_bars(write(bars("AAPL,{ts},100,110,90,105,")))
    assert panel.fields == ("open", "high", "low", "close")


def test_numeric_extra_columns_are_kept_in_lower_case(write: Callable[..., Path]) -> None:
    panel = read_bars(write(lines(header="symbol,ts,close,Book Value", row="AAPL,{ts},{close},-1.5e3")))
    assert panel.fields == ("close", "book value")
    assert panel.get("book value")[0, 0] == -1500.0


def test_a_byte_order_mark_and_windows_line_ends_are_read(write: Callable[..., Path]) -> None:
    panel = read_bars(write(b"\xef\xbb\xbf" + "\r\n".join(lines()).encode() + b"\r\n\r\n"))
    assert panel.shape == (MIN_BARS, 1)


def test_a_file_without_a_last_line_end_is_read(write: Callable[..., Path]) -> None:
    assert read_bars(write("\n".join(lines()).encode())).shape == (MIN_BARS, 1)


def test_numbers_are_read_to_the_last_digit(write: Callable[..., Path]) -> None:
    text = lines()
    text[1] = f"AAPL,{STAMPS[0]}, 0.30000000000000004 "
    text[2] = f"AAPL,{STAMPS[1]},+1.7976931348623157e308"
    assert read_bars(write(text)).close[:2, 0].tolist() == [0.1 + 0.2, 1.7976931348623157e308]


def test_a_missing_file_is_refused_with_the_folder_that_was_searched(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"nowhere\.csv: there is no such file; check the name and the folder"):
        read_bars(tmp_path / "nowhere.csv")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="this is a folder, not a file; name one file in it"):
        read_bars(str(tmp_path))


def changed(line: int, text: str, source: list[str] | None = None) -> list[str]:
    """The lines of a good file, the one with this number (counted from 1) replaced."""
    out = lines() if source is None else source
    return [*out[: line - 1], text, *out[line:]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "the file is empty; export it again"),
        (b"\n\n", "line 1: the header is empty; the first line must name the columns symbol,ts,close"),
        (b"symbol,ts,close", "only a header and no bars; export it again"),
        (b"symbol,ts,close\r\n\r\n", "only a header and no bars; export it again"),
        (lines(header="ticker,ts,close"), "there is no column `symbol`, only ticker, ts, close; name it so in the header"),
        (lines(header="symbol,date,close"), "there is no column `ts`, only symbol, date, close"),
        (lines(header="symbol,ts,price"), "there is no column `close`, only symbol, ts, price"),
        (lines(header="symbol;ts;close", row="A;{ts};1"), "no column `symbol`.* The fields must be separated by commas"),
        (lines(header="symbol,ts,close,Close", row="A,{ts},1,1"), "the column `close` is there twice; keep one"),
        (lines(header=",symbol,ts,close", row="0,A,{ts},1"), r"column 1 has no name; name it .*`index=False`"),
        (changed(7, f"AAPL,{STAMPS[5]}"), "line 7: 2 fields where the header has 3; complete the line"),
        (changed(7, f"AAPL,{STAMPS[5]},1,234"), "line 7: 4 fields where the header has 3; .*quote a value that holds a comma"),
        (changed(7, 'AAPL,"2024'), "line 7: 2 fields where the header has 3"),
        (changed(7, ""), "line 7: the symbol is blank; fill it in or remove the line"),
        (changed(7, f"  ,{STAMPS[5]},1"), "line 7: the symbol is blank"),
        (changed(7, f"AA\x07PL,{STAMPS[5]},1"), r"line 7: the symbol 'AA\\x07PL' holds a control character"),
        (changed(7, f"AAPL,{STAMPS[5]},1.2.3"), r"line 7: `close` must be a number, was '1\.2\.3'; write it like 1234\.5"),
        (changed(7, f"AAPL,{STAMPS[5]},NA"), "line 7: `close` must be a number, was 'NA'; .*leave the cell empty"),
        (changed(7, f"AAPL,{STAMPS[5]},nan"), "line 7: `close` must be a number, was 'nan'"),
        (changed(7, f"AAPL,{STAMPS[5]},inf"), "line 7: `close` must be a number, was 'inf'"),
        (changed(7, f"AAPL,{STAMPS[5]},1_000"), "line 7: `close` must be a number, was '1_000'"),
        (changed(7, f'AAPL,{STAMPS[5]},"1,000"'), "line 7: `close` must be a number, was '1,000'"),
        (changed(7, f"AAPL,{STAMPS[5]},١"), "line 7: `close` must be a number, was '١'"),
        (changed(7, f"AAPL,{STAMPS[5]},1e999"), "line 7: close is infinite; correct it or leave it empty"),
        (changed(7, f"AAPL,{STAMPS[5]},0"), "line 7: close must be above 0, was 0; correct it"),
        (changed(7, f"AAPL,{STAMPS[5]},-3.5"), r"line 7: close must be above 0, was -3\.5"),
        (
            lines(header="symbol,ts,close,sector", row="A,{ts},1,Tech"),
            "line 2: the extra column `sector` must be a number, was 'Tech'; .*leave out the column",
        ),
        (
            changed(7, f"A,{STAMPS[5]},1,-1e999", lines(header="symbol,ts,close,pe", row="A,{ts},1,2")),
            "line 7: the extra column `pe` is infinite",
        ),
        (changed(7, "AAPL,,1"), "line 7: the time '' is not a time; write 2024-03-01 for a daily bar"),
        (changed(7, "AAPL,01/06/2024,1"), "line 7: the time '01/06/2024' is not a time"),
        (changed(7, "AAPL,2024-02-30T21:00:00Z,1"), "line 7: the time '2024-02-30T21:00:00Z' is not a time"),
        (changed(7, "AAPL,1704574800,1"), "line 7: the time '1704574800' is not a time"),
        (changed(7, "AAPL,2024-01-06T21:00:00.1234567Z,1"), "line 7: the time '.*' is not a time"),
        (changed(7, "AAPL,2024-01-06 21:00:00,1"), "line 7: the time '2024-01-06 21:00:00' has no offset from UTC"),
        (changed(7, "AAPL,2024-01-06T00:00,1"), "line 7: the time '2024-01-06T00:00' has no offset from UTC"),
        (changed(7, "AAPL,2024-01-06,1"), "line 7: the time '2024-01-06' is a date, and other lines have times"),
        (
            changed(7, f"AAPL,{STAMPS[2]},1"),
            r"line 7: a second bar of AAPL at 2024-01-03T21:00:00\+00:00, after line 4; keep one",
        ),
        (
            changed(7, "AAPL,2024-01-06T22:00:00+01:00,1", [*lines(), f"AAPL,{STAMPS[5]},1"]),
            "line 62: a second bar of AAPL at .*, after line 7",
        ),
        (
            changed(7, "AAPL,2023-12-31T21:00:00Z,1"),
            r"line 7: the bar of AAPL at 2023-12-31T21:00:00\+00:00 comes after a later one; sort the file by symbol and ts",
        ),
        (changed(7, f"A,{STAMPS[5]},0,110,90,105,1", bars(GOOD)), "line 7: open must be above 0, was 0"),
        (changed(7, f"AAPL,{STAMPS[5]},100,110,90,105,-1", bars(GOOD)), "line 7: volume must not be negative, was -1"),
        (
            changed(7, f"AAPL,{STAMPS[5]},100,90,110,105,1", bars(GOOD)),
            "line 7: high 90 is below low 110; .*columns are swapped",
        ),
        (changed(7, f"AAPL,{STAMPS[5]},111,110,90,105,1", bars(GOOD)), "line 7: high 110 is below open 111"),
        (changed(7, f"AAPL,{STAMPS[5]},100,104,90,105,1", bars(GOOD)), "line 7: high 104 is below close 105"),
        (changed(7, f"AAPL,{STAMPS[5]},100,110,101,105,1", bars(GOOD)), "line 7: open 100 is below low 101"),
        (changed(7, f"AAPL,{STAMPS[5]},109,110,106,105,1", bars(GOOD)), "line 7: close 105 is below low 106"),
        (lines(STAMPS[:-1]), "too short: 59 bars, and at least 60 are needed; take a longer span"),
        (
            [*lines(), *(f"NEW,{stamp},1" for stamp in STAMPS[31:])],
            "NEW has no close in 52% of the 60 bars, and half is the limit; remove the symbol or shorten the span",
        ),
        (b"symbol,ts,close\nAAPL,2024-01-01,\xff\xfe", r"line 2: not UTF-8 text \(byte 0xff\); save the file in UTF-8"),
        ("\n".join(lines()).encode("utf-16-le"), r"line 1: not text \(a zero byte\); save it as CSV in UTF-8"),
        (b"\x1f\x8b\x08\x08\xaa\xbb", r"line 1: not UTF-8 text \(byte 0x8b\)"),
    ],
)
def test_a_csv_that_is_not_right_is_refused(write: Callable[..., Path], text: list[str] | bytes, message: str) -> None:
    path = write(text)
    with pytest.raises(DataError, match=message) as refusal:
        read_bars(path)
    assert str(refusal.value).startswith(f"{path}: ")


def test_two_neighbouring_bars_in_the_wrong_order_are_refused(write: Callable[..., Path]) -> None:
    text = lines()
    text[6], text[7] = text[7], text[6]
    with pytest.raises(DataError, match=r"line 8: the bar of AAPL at 2024-01-06T21:00:00\+00:00 comes after a later one"):
        read_bars(write(text))


def test_a_symbol_may_lack_just_half_of_its_closes(write: Callable[..., Path]) -> None:
    panel = read_bars(write([*lines(), *(f"NEW,{stamp},1" for stamp in STAMPS[30:])]))
    assert np.isnan(panel.close[:, 1]).sum() == 30


def test_bars_may_contradict_themselves_by_rounding(write: Callable[..., Path]) -> None:
    read_bars(write(changed(7, f"AAPL,{STAMPS[5]},100,105,90,105.00000001,1", bars(GOOD))))
    with pytest.raises(DataError, match="line 7: high 105 is below close 105"):
        read_bars(write(changed(7, f"AAPL,{STAMPS[5]},100,105,90,105.0000002,1", bars(GOOD))))


def frame(**columns: Any) -> pd.DataFrame:
    ts = pd.date_range("2024-01-01T21:00", periods=MIN_BARS, freq="D", tz="UTC")
    return pd.DataFrame({"symbol": "AAPL", "ts": ts, "close": np.arange(100.0, 160.0)} | columns)


def parquet(folder: Path, table: pd.DataFrame | pa.Table) -> Path:
    path = folder / "bars.parquet"
    pq.write_table(table if isinstance(table, pa.Table) else pa.Table.from_pandas(table), path)
    return path


def test_parquet_reads_like_csv(tmp_path: Path, write: Callable[..., Path]) -> None:
    assert read_bars(parquet(tmp_path, frame())).content_sha256() == read_bars(write(lines())).content_sha256()


def test_parquet_keeps_the_times_in_an_index_and_ignores_an_unnamed_one(tmp_path: Path) -> None:
    expected = read_bars(parquet(tmp_path, frame())).content_sha256()
    indexed = read_bars(parquet(tmp_path, frame().set_index("ts")))
    sliced = read_bars(parquet(tmp_path, frame().set_axis(np.arange(MIN_BARS)[::-1], axis=0)))
    assert indexed.content_sha256() == sliced.content_sha256() == expected


@pytest.mark.parametrize(
    "ts",
    [
        pd.array(pd.date_range("2024-01-01", periods=MIN_BARS).date, dtype=pd.ArrowDtype(pa.date32())),
        pd.date_range("2024-01-01", periods=MIN_BARS),
        DATES,
        pd.Categorical(DATES),
    ],
    ids=["date32", "naive midnights", "text", "categories"],
)
def test_parquet_dates_are_stamped_at_the_end_of_their_day(tmp_path: Path, ts: object) -> None:
    panel = read_bars(parquet(tmp_path, frame(ts=ts)))
    assert panel.index[0] == pd.Timestamp("2024-01-01T23:59:59", tz="UTC")


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_parquet_times_of_any_unit_and_zone_are_converted(tmp_path: Path, unit: str) -> None:
    ts = pd.date_range("2024-01-01T16:00", periods=MIN_BARS, freq="D", tz="America/New_York", unit=unit)
    assert read_bars(parquet(tmp_path, frame(ts=ts))).index[0] == pd.Timestamp("2024-01-01T21:00", tz="UTC")


def test_parquet_reads_categories_whole_numbers_decimals_and_nulls(tmp_path: Path) -> None:
    close = [None, *(Decimal("1.25") for _ in range(MIN_BARS - 1))]
    table = frame(symbol=pd.Categorical(["AAPL"] * MIN_BARS), close=close, volume=np.arange(MIN_BARS))
    panel = read_bars(parquet(tmp_path, table))
    assert np.isnan(panel.close[0, 0])
    assert panel.close[1, 0] == 1.25
    assert panel.get("volume")[59, 0] == 59.0


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"ts": pd.date_range("2024-01-01T21:00", periods=MIN_BARS)}, "row 1: the time '2024-01-01 21:00:00' has no offset"),
        ({"ts": range(MIN_BARS)}, "the column `ts` must hold times, dates or text, was int64"),
        (
            {"ts": pd.date_range("2024-01-01", periods=MIN_BARS, tz="UTC").as_unit("ns") + pd.Timedelta(1, "ns")},
            "row 1: the time '.*' is finer than a microsecond; round it",
        ),
        ({"ts": pd.Series(pd.date_range("2024-01-01", periods=MIN_BARS, tz="UTC")).shift(1)}, "row 1: the time is missing"),
        ({"symbol": range(MIN_BARS)}, "the column `symbol` must hold text, was int64"),
        ({"symbol": [None, *["A"] * (MIN_BARS - 1)]}, "row 1: the symbol is blank"),
        ({"close": [True] * MIN_BARS}, "`close` must hold numbers, was bool; convert it or leave it out"),
        ({"close": np.r_[np.ones(MIN_BARS - 1), np.inf]}, "row 60: close is infinite"),
        ({"sector": "Tech"}, "row 1: the extra column `sector` must be a number, was 'Tech'"),
        ({"flag": [True] * MIN_BARS}, "the extra column `flag` must hold numbers, was bool"),
    ],
)
def test_a_parquet_file_that_is_not_right_is_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_bars(parquet(tmp_path, frame(**columns)))


def test_a_parquet_file_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only a header and no bars"):
        read_bars(parquet(tmp_path, frame().iloc[:0]))


@pytest.mark.parametrize("name", ["bars.parquet", "bars.PQ"])
def test_what_is_no_parquet_is_refused(write: Callable[..., Path], name: str) -> None:
    with pytest.raises(DataError, match=r"not a Parquet file that can be read .*name a CSV file \.csv"):
        read_bars(write(lines(), name=name))


def test_a_parquet_file_named_csv_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path, frame()).rename(tmp_path / "bars.csv")
    with pytest.raises(DataError, match=r"not text \(a zero byte\).*name a Parquet file \.parquet"):
        read_bars(path)


def plausible(n_assets: int = 2) -> Panel:
    index = pd.date_range("2024-01-01T21:00", periods=MIN_BARS, freq="D", tz="UTC")
    close = np.full((MIN_BARS, n_assets), 100.0)
    return Panel(
        index=index,
        symbols=("AAPL", "MSFT")[:n_assets],
        open=close,
        high=close + 1.0,
        low=close - 1.0,
        close=close,
        volume=close,
        extra={"pe": close},
        name="made",
    )


def spoilt(name: str, value: float) -> Panel:
    panel = plausible()
    array = panel.get(name).copy()
    array[3, 1] = value
    if name in BAR_FIELDS:
        return panel.replace(**{name: array})
    return dataclasses.replace(panel, extra={name: array})


def test_a_plausible_panel_passes() -> None:
    check_panel(plausible())
    check_panel(spoilt("close", np.nan))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("close", 0.0, "close must be above 0, was 0"),
        ("open", -1.0, "open must be above 0, was -1"),
        ("close", np.inf, "close is infinite"),
        ("volume", -5.0, "volume must not be negative, was -5"),
        ("pe", -np.inf, "the extra column `pe` is infinite"),
        ("high", 98.0, "high 98 is below low 99"),
        ("open", 102.0, "high 101 is below open 102"),
        ("close", 98.0, "close 98 is below low 99"),
    ],
)
def test_a_panel_that_is_not_plausible_is_refused_by_symbol_and_time(name: str, value: float, message: str) -> None:
    with pytest.raises(DataError, match=rf"^the data set made: MSFT at 2024-01-04T21:00:00\+00:00: {message}"):
        check_panel(spoilt(name, value))


def test_a_panel_that_is_too_short_is_refused() -> None:
    with pytest.raises(DataError, match="the data set made: too short: 59 bars"):
        check_panel(plausible().slice(0, 59))


def test_a_panel_with_an_empty_symbol_is_refused() -> None:
    close = plausible().close.copy()
    close[:, 1] = np.nan
    with pytest.raises(DataError, match="the data set made: MSFT has no close in 100% of the 60 bars"):
        check_panel(plausible().replace(close=close))


def long_form(panel: Panel) -> pd.DataFrame:
    columns: dict[str, npt.NDArray[Any] | list[Any]] = {
        "symbol": np.tile(np.array(panel.symbols, dtype=object), panel.n_bars),
        "ts": panel.index.repeat(panel.n_assets),
    }
    return pd.DataFrame(columns | {name: panel.get(name).ravel() for name in panel.fields})


@st.composite
def panels(draw: st.DrawFn) -> Panel:
    symbols = tuple(sorted(draw(st.sets(st.from_regex(r"[A-Z]{1,4}(\.[A-Z])?", fullmatch=True), min_size=1, max_size=3))))
    steps = draw(st.lists(st.integers(1, 10**12), min_size=MIN_BARS, max_size=MIN_BARS + 5))
    index = pd.DatetimeIndex(pd.Series(np.cumsum(steps)).astype("datetime64[us]"), name="ts").tz_localize("UTC")
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (len(index), len(symbols))
    close = np.exp(generator.normal(0.0, 5.0, shape))
    close[generator.random(shape) < 0.1] = np.nan
    columns: dict[str, Any] = {"close": close}
    if draw(st.booleans()):
        columns["high"] = close * (1.0 + generator.random(shape))
        columns["low"] = close / (1.0 + generator.random(shape))
        columns["open"] = np.sqrt(columns["high"] * columns["low"])
    if draw(st.booleans()):
        columns["volume"] = np.floor(generator.random(shape) * 1e12)
    extra = {"book to market": generator.normal(size=shape)} if draw(st.booleans()) else {}
    return Panel(index=index, symbols=symbols, extra=extra, name="bars", **columns)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(panel=panels())
def test_a_panel_comes_back_from_both_kinds_of_file_as_it_was(panel: Panel, tmp_path: Path) -> None:
    long_form(panel).to_csv(tmp_path / "bars.csv", index=False)
    long_form(panel).to_parquet(tmp_path / "bars.parquet", index=False)
    for name in ("bars.csv", "bars.parquet"):
        again = read_bars(tmp_path / name)
        assert again.index.equals(panel.index)
        assert again.symbols == panel.symbols
        assert again.fields == panel.fields
        assert again.content_sha256() == panel.content_sha256()
