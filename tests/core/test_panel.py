import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError, MissingDataError, ShapeError
from core.market import Panel

INDEX = pd.date_range("2024-01-01", periods=4, freq="D", tz="UTC")
CLOSE = np.array([[10.0, 20.0], [11.0, np.nan], [12.1, 22.0], [9.68, 33.0]])


def panel(**changes: object) -> Panel:
    values: dict[str, object] = {"index": INDEX, "symbols": ("A", "B"), "close": CLOSE, "name": "tiny"}
    return Panel(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (INDEX.tz_localize(None), "`index` must be a tz-aware DatetimeIndex in UTC"),
        (list(INDEX), "`index` must be a tz-aware DatetimeIndex in UTC"),
        (INDEX.tz_convert("America/New_York"), "`index` must be in UTC, was in America/New_York"),
        (INDEX[::-1], "`index` must be strictly increasing"),
        (INDEX[[0, 1, 1, 2]], "`index` must be strictly increasing"),
    ],
)
def test_a_panel_refuses_times_that_are_not_increasing_utc(index: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        panel(index=index)


def test_a_panel_refuses_symbols_that_repeat() -> None:
    with pytest.raises(DataError, match="`symbols` must be unique"):
        panel(symbols=("A", "A"))


@pytest.mark.parametrize("column", ["close", "open", "volume"])
def test_a_panel_refuses_arrays_of_another_shape(column: str) -> None:
    with pytest.raises(ShapeError, match=rf"`{column}` must have shape \(n_bars, n_assets\) = \(4, 2\), was \(2, 4\)"):
        panel(**{column: CLOSE.T})


def test_a_panel_refuses_an_extra_column_of_another_shape() -> None:
    with pytest.raises(ShapeError, match="`pe` must have shape"):
        panel(extra={"pe": CLOSE[:2]})


def test_arrays_are_read_only_copies() -> None:
    source = CLOSE.copy()
    tiny = panel(close=source)
    source[0, 0] = 99.0
    assert tiny.close[0, 0] == 10.0
    with pytest.raises(ValueError, match="read-only"):
        tiny.close[0, 0] = 1.0


def test_fields_name_what_is_there_in_a_fixed_order() -> None:
    tiny = panel(volume=CLOSE, extra={"zeta": CLOSE, "alpha": CLOSE})
    assert tiny.fields == ("close", "volume", "alpha", "zeta")
    assert (tiny.n_bars, tiny.n_assets, tiny.shape) == (4, 2, (4, 2))


def test_get_says_what_the_data_set_has() -> None:
    tiny = panel(extra={"pe": CLOSE})
    np.testing.assert_array_equal(tiny.get("pe"), CLOSE)
    with pytest.raises(MissingDataError, match="the data set tiny has no `volume`; it has close, pe"):
        tiny.get("volume")


def test_before_leaves_out_the_bar_at_that_time() -> None:
    early = panel().before(INDEX[2])
    assert list(early.index) == list(INDEX[:2])
    np.testing.assert_array_equal(early.close, CLOSE[:2])


def test_slice_cuts_every_column() -> None:
    part = panel(volume=CLOSE * 2, extra={"pe": CLOSE * 3}).slice(1, 3)
    np.testing.assert_array_equal(part.get("volume"), CLOSE[1:3] * 2)
    np.testing.assert_array_equal(part.get("pe"), CLOSE[1:3] * 3)
    assert part.name == "tiny"


def test_select_keeps_the_order_asked_for() -> None:
    swapped = panel(volume=CLOSE).select(["B", "A"])
    assert swapped.symbols == ("B", "A")
    np.testing.assert_array_equal(swapped.get("volume"), CLOSE[:, ::-1])


def test_select_refuses_unknown_symbols() -> None:
    with pytest.raises(MissingDataError, match="unknown symbol C; the data set tiny has A, B"):
        panel().select(["A", "C"])


def test_replace_changes_the_named_field_alone() -> None:
    changed = panel(volume=CLOSE).replace(close=CLOSE + 1.0)
    np.testing.assert_array_equal(changed.close, CLOSE + 1.0)
    np.testing.assert_array_equal(changed.get("volume"), CLOSE)


def test_returns_are_close_to_close_and_missing_beside_a_gap() -> None:
    expected = [[np.nan, np.nan], [0.1, np.nan], [0.1, np.nan], [-0.2, 0.5]]
    np.testing.assert_allclose(panel().returns(), expected, rtol=1e-12)


def test_frame_carries_times_and_symbols() -> None:
    frame = panel().frame()
    assert list(frame.columns) == ["A", "B"]
    assert frame.loc[INDEX[3], "B"] == 33.0


def test_equal_content_has_an_equal_hash_whatever_its_name_and_resolution() -> None:
    other = panel(name="other", index=INDEX.as_unit("ns"), close=CLOSE.astype(">f8"))
    assert other.content_sha256() == panel().content_sha256()


def test_every_kind_of_nan_hashes_the_same() -> None:
    payload = CLOSE.copy()
    payload.view(np.uint64)[1, 1] = 0xFFF8_0000_0000_0001
    assert np.isnan(payload[1, 1])
    assert panel(close=payload).content_sha256() == panel().content_sha256()


@given(st.integers(0, 3), st.integers(0, 1))
def test_any_changed_value_changes_the_hash(row: int, column: int) -> None:
    changed = CLOSE.copy()
    changed[row, column] = 77.0
    assert panel(close=changed).content_sha256() != panel().content_sha256()


def test_symbols_times_and_fields_are_part_of_the_hash() -> None:
    hashes = {
        panel().content_sha256(),
        panel(symbols=("A", "C")).content_sha256(),
        panel(index=INDEX + pd.Timedelta(seconds=1)).content_sha256(),
        panel(open=CLOSE).content_sha256(),
        panel(high=CLOSE).content_sha256(),
    }
    assert len(hashes) == 5


def test_repr_says_what_is_in_it() -> None:
    assert repr(panel()) == "Panel(tiny: 4 bars x 2 symbols, 2024-01-01..2024-01-04, close)"
    assert repr(panel().slice(0, 0)) == "Panel(tiny: 0 bars x 2 symbols, empty, close)"
