"""Ours against pyqlib's own numbers; ``scripts/store_alpha158_table.py`` says how the table was made."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.market import Panel, load_dataset
from features import check_leaks, compute, parse
from features.alphas import ALPHA158
from tests.features.panels import build_panel

TABLE = dict(np.load(Path(__file__).with_name("alpha158.npz")))
BARS = Panel(
    index=pd.date_range("2001-01-02 21:00", periods=len(TABLE["close"]), freq="B", tz="UTC"),
    symbols=tuple(TABLE["symbols"].tolist()),
    **{name: TABLE[name] for name in ("open", "high", "low", "close", "volume")},
    extra={"vwap": TABLE["vwap"]},
)
THEIRS = dict(zip(TABLE["names"].tolist(), TABLE["values"].astype(float), strict=True))
START = BARS.n_bars - len(TABLE["values"][0])
BARS_OF_TABLE = np.arange(START, BARS.n_bars)
PLAIN, LISTED, GAP = (BARS.symbols.index(name) for name in ("PLAIN", "LISTED", "GAP"))
NASDAQ = load_dataset("nasdaq").slice(0, 700)
EXTREMES = ("IMAX", "IMIN", "IMXD")


def ours(name: str) -> np.ndarray:
    return compute(ALPHA158[name], BARS)[START:]


def window_of(name: str) -> int:
    return int(name.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))


def ages(column: np.ndarray, window: int, extreme: str) -> tuple[np.ndarray, np.ndarray]:
    """Bars since the oldest and since the latest of equal extremes of each window."""
    windows = np.lib.stride_tricks.sliding_window_view(column, window, axis=0)
    hits = windows == getattr(windows, extreme)(axis=-1, keepdims=True)
    pad = np.full((window - 1, column.shape[1]), -1)
    oldest, latest = window - 1 - hits.argmax(axis=-1), hits[..., ::-1].argmax(axis=-1)
    return np.vstack([pad, oldest])[START:], np.vstack([pad, latest])[START:]


def tied(name: str) -> np.ndarray:
    high, low = ages(BARS.high, window_of(name), "max"), ages(BARS.low, window_of(name), "min")
    unequal = {"IMAX": high[0] != high[1], "IMIN": low[0] != low[1]}
    return unequal.get(name[:4], unequal["IMAX"] | unequal["IMIN"])


def test_names_and_order_are_qlibs():
    assert list(ALPHA158) == list(THEIRS)
    assert len(ALPHA158) == 158
    assert TABLE["pyqlib"].item() == "0.9.7"


@pytest.mark.parametrize("name", ALPHA158)
def test_every_value_is_pyqlibs(name):
    """Within 1e-4 of itself; a correlation near zero within 1e-6, for the logarithms it is made of are float32 in qlib."""
    values, theirs = ours(name), THEIRS[name]
    compared = np.isfinite(values)
    if name.startswith("STD"):  # nothing but the residue of pandas' running sums is left of a constant window in qlib
        constant = compared & (values == 0.0)
        assert (theirs[constant] < 1e-8).all()
        compared &= ~constant
    if name.startswith(EXTREMES):
        compared &= ~tied(name)
    assert compared.sum() > 90
    near_zero = 1e-6 if name.startswith(("CORR", "CORD")) else 0.0
    np.testing.assert_allclose(values[compared], theirs[compared], rtol=1e-4, atol=near_zero)


@pytest.mark.parametrize(("name", "column", "extreme"), [("IMAX5", "high", "max"), ("IMIN20", "low", "min")])
def test_of_equal_extremes_qlib_counts_from_the_oldest_and_we_from_the_latest(name, column, extreme):
    window, ties = window_of(name), tied(name) & np.isfinite(ours(name))
    oldest, latest = ages(BARS.get(column), window, extreme)
    assert ties.sum() >= 1
    np.testing.assert_allclose(ours(name)[ties], 1.0 - latest[ties] / window)
    np.testing.assert_allclose(THEIRS[name][ties], 1.0 - oldest[ties] / window, rtol=1e-6)


@pytest.mark.parametrize("name", ALPHA158)
def test_ours_begins_when_the_window_is_full_and_qlibs_before(name):
    lookback = parse(ALPHA158[name]).lookback
    assert np.isfinite(ours(name)[:, PLAIN]).all()
    known = np.argmax(np.isfinite(BARS.close[:, LISTED])) + lookback <= BARS_OF_TABLE
    np.testing.assert_array_equal(np.isfinite(ours(name)[:, LISTED]), known)
    if lookback > 30 and not name.startswith("ROC"):
        assert np.isfinite(THEIRS[name][~known, LISTED]).any()


@pytest.mark.parametrize("name", [name for name in ALPHA158 if not name.startswith("ROC")])
def test_ours_is_missing_while_a_gap_is_in_the_window_and_qlibs_comes_back_sooner(name):
    lookback = parse(ALPHA158[name]).lookback
    missing = np.isnan(BARS.close[:, GAP])
    touched = np.array([missing[bar - lookback : bar + 1].any() for bar in BARS_OF_TABLE])
    np.testing.assert_array_equal(np.isnan(ours(name)[:, GAP]), touched)
    if lookback > 5:
        assert np.isfinite(THEIRS[name][touched, GAP]).any()


@pytest.mark.parametrize(
    ("name", "lookback"),
    [("KMID", 0), ("VWAP0", 0), ("ROC5", 5), ("MA20", 19), ("CORD60", 60), ("CNTD30", 30), ("VSUMP10", 10)],
)
def test_lookbacks_are_exact(name, lookback):
    assert parse(ALPHA158[name]).lookback == lookback


def test_the_average_price_is_the_panels_own_or_the_mean_of_high_low_and_close():
    panel = build_panel(20, 3, gaps=False)
    np.testing.assert_allclose(compute(ALPHA158["VWAP0"], panel), (panel.high + panel.low + panel.close) / 3.0 / panel.close)


@pytest.mark.parametrize("name", ALPHA158)
def test_none_looks_ahead_on_real_prices(name):
    report = check_leaks(ALPHA158[name], NASDAQ, n_cuts=3)
    assert report.passed, report.summary()
