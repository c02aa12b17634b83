"""The truncation test against planted leaks and clean look-alikes."""

import numpy as np
import pandas as pd
import pytest

from core.errors import DataError, ShapeError
from core.market import Panel
from features import check_leaks, compute, parse
from features.alphas import LIBRARY
from features.labels import forward_returns
from tests.features.panels import build_panel

PANEL = build_panel(500, 5)


def fill(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.ffill()


def own_returns(panel: Panel) -> pd.DataFrame:
    close = panel.frame()
    return close / close.shift(1) - 1


LEAKS = {
    "centred window": lambda p: p.frame().rolling(11, center=True).mean(),
    "full-sample z-score": lambda p: (p.frame() - p.frame().mean()) / p.frame().std(),
    "back-fill": lambda p: p.frame().bfill(),
    "back-fill of the warm-up": lambda p: fill(p.frame()).rolling(20).mean().bfill(),
    "shift(-1)": lambda p: p.frame().shift(-1),
    "shift(-1), end filled": lambda p: p.frame().shift(-1).ffill(),
    "resample to period end": lambda p: p.frame().groupby([p.index.year, p.index.month]).transform("last"),
    "resample to week end": lambda p: p.frame().resample("W").last().reindex(p.index, method="bfill"),
    "rank over all time": lambda p: p.frame().rank(pct=True),
    "label as feature": lambda p: forward_returns(p, 5).values,
    "interpolation": lambda p: p.frame().interpolate(limit_area="inside"),
    "scaling by the full maximum": lambda p: p.frame() / p.frame().max(),
    "two-sided smoothing": lambda p: p.frame().ffill().iloc[::-1].ewm(halflife=5).mean().iloc[::-1],
    "volatility of the whole sample": lambda p: own_returns(p) / own_returns(p).std(),
    "trend removed over the whole sample": lambda p: detrended(p),
    "length of the data": lambda p: np.broadcast_to(np.arange(p.n_bars)[::-1, None], p.shape),
    "next bar's volume": lambda p: p.frame("volume").shift(-1).fillna(0.0),
    "tomorrow's gap in an extra column": lambda p: p.frame("mood").diff(-1),
}

CLEAN = {
    "trailing window": lambda p: p.frame().rolling(11).mean(),
    "expanding z-score": lambda p: (p.frame() - p.frame().expanding().mean()) / p.frame().expanding().std(),
    "forward-fill": lambda p: p.frame().ffill(),
    "shift(1)": lambda p: p.frame().shift(1),
    "highest of the month so far": lambda p: p.frame().groupby([p.index.year, p.index.month]).cummax(),
    "previous month's end": lambda p: previous_month_end(p),
    "expanding rank": lambda p: p.frame().expanding().rank(pct=True),
    "past return": lambda p: p.frame().pct_change(5, fill_method=None),
    "gaps filled from before": lambda p: p.frame().ffill(limit=3),
    "scaling by the maximum so far": lambda p: p.frame() / p.frame().cummax(),
    "one-sided smoothing": lambda p: p.frame().ewm(halflife=5).mean(),
    "volatility so far": lambda p: own_returns(p) / own_returns(p).expanding().std(),
    "cross-section": lambda p: p.frame().rank(axis=1, pct=True),
    "cumulative sum": lambda p: own_returns(p).fillna(0.0).cumsum(),
    "calendar": lambda p: np.broadcast_to(p.index.month.to_numpy(dtype=float)[:, None], p.shape),
    "nothing": lambda p: np.full(p.shape, np.nan),
}


def detrended(panel: Panel) -> pd.DataFrame:
    log_close = np.log(panel.frame().ffill().bfill())
    time = np.arange(len(log_close))
    return log_close.apply(lambda column: column - np.polyval(np.polyfit(time, column, 1), time))


def previous_month_end(panel: Panel) -> pd.DataFrame:
    month = panel.index.year * 12 + panel.index.month
    last = panel.frame().groupby(month).last().shift(1)
    return last.loc[month].set_axis(panel.index)


@pytest.mark.parametrize("name", LEAKS)
@pytest.mark.parametrize("seed", [0, 1])
def test_planted_leak_is_found(name, seed):
    report = check_leaks(LEAKS[name], PANEL, seed=seed)
    assert not report.passed
    assert report.leaks
    assert report.summary().startswith("leak: S0")


@pytest.mark.parametrize("name", CLEAN)
@pytest.mark.parametrize("seed", [0, 1])
def test_clean_look_alike_passes(name, seed):
    report = check_leaks(CLEAN[name], PANEL, seed=seed)
    assert report.passed, report.summary()
    assert report.leaks == ()
    assert report.n_checks == 16
    assert report.summary().startswith("no leak")


def test_a_leak_is_named_with_its_place():
    def peek_at_bar_400(panel: Panel):
        values = np.ones(panel.shape)
        if panel.n_bars > 400:
            values[100, 3] = panel.close[400, 3]
        return values

    report = check_leaks(peek_at_bar_400, PANEL, n_cuts=20)
    assert {(leak.bar, leak.symbol) for leak in report.leaks} == {(100, "S03")}
    leak = report.leaks[0]
    assert leak.timestamp == PANEL.index[100]
    cut = next(leak for leak in report.leaks if leak.change == "cut")
    assert cut.size == pytest.approx(abs(PANEL.close[400, 3] - 1.0) / max(PANEL.close[400, 3], 1.0))
    assert "S03 at bar 100" in report.summary()


def test_a_vanishing_value_is_an_infinite_change():
    report = check_leaks(LEAKS["shift(-1)"], PANEL)
    assert any(np.isinf(leak.size) for leak in report.leaks if leak.change == "cut")


def test_altering_catches_what_cutting_cannot():
    def guarded(panel: Panel):
        """Look ahead only where the data reach far enough."""
        ahead = np.full(panel.shape, 1.0)
        if panel.n_bars == PANEL.n_bars:
            ahead[:-1] = panel.close[1:] / np.abs(panel.close[1:])
            ahead[:-1] += 1e-6 * panel.close[1:]
        return ahead if panel.n_bars == PANEL.n_bars else np.asarray(guarded_past(panel))

    def guarded_past(panel: Panel):
        return guarded(PANEL)[: panel.n_bars]

    report = check_leaks(guarded, PANEL)
    assert {leak.change for leak in report.leaks} == {"altered"}


def test_the_same_seed_gives_the_same_report():
    first = check_leaks(LEAKS["full-sample z-score"], PANEL, seed=5)
    assert first == check_leaks(LEAKS["full-sample z-score"], PANEL, seed=5)


def test_rounding_is_no_leak():
    def noisy(panel: Panel):
        return panel.close * (1.0 + 1e-15 * (panel.n_bars % 7))

    assert check_leaks(noisy, PANEL).passed


def test_an_expression_with_a_wrong_lookback_is_found():
    honest = parse("ts_mean(close, 50)")
    lying = parse("ts_mean(close, 50)")
    object.__setattr__(lying.root, "lookback", 20)
    assert check_leaks(honest, PANEL).passed
    assert not check_leaks(lying, PANEL).passed


def test_the_whole_library_passes_the_truncation_test():
    panel = build_panel(900, 4, seed=3)
    for candidate in LIBRARY:
        report = check_leaks(candidate.expression, panel)
        assert report.passed, f"{candidate.name}: {report.summary()}"


def test_the_whole_library_gives_the_same_bits_on_truncated_data():
    panel = build_panel(700, 4, seed=4)
    texts = [candidate.expression for candidate in LIBRARY]
    full = compute(texts, panel)
    for cut in (1, 130, 351, 699):
        np.testing.assert_array_equal(compute(texts, panel.slice(0, cut)), full[:, :cut])


def test_the_whole_library_gives_the_same_bits_wherever_the_data_begin():
    panel = build_panel(900, 4, seed=5)
    for candidate in LIBRARY:
        expression = parse(candidate.expression)
        late = compute(expression, panel.slice(90, None))[expression.lookback :]
        np.testing.assert_array_equal(late, compute(expression, panel)[90 + expression.lookback :], err_msg=candidate.name)


def test_short_panels_and_wrong_shapes_are_refused():
    with pytest.raises(DataError, match="at least 3 bars"):
        check_leaks("close", PANEL.slice(0, 2))
    with pytest.raises(DataError, match="n_cuts"):
        check_leaks("close", PANEL, n_cuts=0)
    with pytest.raises(ShapeError, match="shape of its panel"):
        check_leaks(lambda panel: panel.close[1:], PANEL)
