"""The contract suite: honest features keep it, each way of breaking it is named."""

import re

import numpy as np
import pytest

from core.errors import ConfigurationError, DataError, ExpressionError, MissingDataError
from core.market import Panel
from features import Events, FunctionFeature, check_feature, join_events
from features.alphas import LIBRARY
from features.planted import build_daily
from tests.features.panels import build_panel

PANEL = build_panel(200, 4)
DAILY = build_daily(2)
CLAUSES = {
    "shape_and_dtype",
    "nan_policy",
    "determinism",
    "no_hidden_state",
    "inputs_unchanged",
    "lookback",
    "one_asset",
    "missing_asset",
    "short_data",
    "no_leak",
}


def plugin(function, *, lookback=None, columns=("close",), kinds=()):
    return FunctionFeature(
        name="under_test",
        version="1",
        hypothesis="None.",
        lookback=lookback,
        columns=frozenset(columns),
        event_kinds=frozenset(kinds),
        function=function,
    )


def trailing_mean(panel: Panel):
    return panel.frame().rolling(5).mean().to_numpy()


def broken(function, **kwargs):
    report = check_feature(plugin(function, **kwargs), PANEL)
    assert not report.passed
    assert report.summary().startswith("under_test breaks its contract: ")
    return {check.name: check.detail for check in report.failures}


def test_an_honest_plugin_keeps_every_clause():
    report = check_feature(plugin(trailing_mean, lookback=4), PANEL)
    assert report.passed, report.summary()
    assert {check.name for check in report.checks} == CLAUSES
    assert report.leaks.passed
    assert report.summary() == "under_test keeps all 10 clauses of its contract"


def test_an_honest_plugin_of_events_keeps_every_clause():
    def earnings_yield(panel: Panel, events: Events):
        return join_events(panel, events, value="eps") / panel.close

    report = check_feature(plugin(earnings_yield, kinds={"earnings"}), DAILY.panel, events=DAILY.events)
    assert report.passed, report.summary()


def test_a_plugin_of_restated_events_leaks():
    def as_restated(panel: Panel, events: Events):
        groups = events.table.groupby(["symbol", "occurred_at"])
        table = events.table.assign(eps=groups["eps"].transform("last"), known_at=groups["known_at"].transform("min"))
        return join_events(panel, table, value="eps")

    report = check_feature(plugin(as_restated, kinds={"earnings"}), DAILY.panel, events=DAILY.events)
    assert [check.name for check in report.failures] == ["no_leak"]


@pytest.mark.parametrize("text", ["-ts_mean(returns, 5) / ts_std(returns, 21)", "rank(mood)", "close / vwap", "close"])
def test_expressions_keep_every_clause(text):
    report = check_feature(text, PANEL)
    assert report.passed, report.summary()
    assert report.feature == text
    assert {check.name for check in report.checks} == CLAUSES


@pytest.mark.exhaustive
def test_the_whole_library_keeps_its_contract():
    panel = build_panel(600, 4)
    for candidate in LIBRARY:
        report = check_feature(candidate.expression, panel)
        assert report.passed, f"{candidate.name}: {report.summary()}"


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda panel: panel.frame(), "an ndarray is expected, got DataFrame"),
        (lambda panel: panel.close.astype(np.float32), "float64 is expected, got float32"),
        (lambda panel: panel.close[1:], r"the shape \(200, 4\) of the panel is expected, got \(199, 4\)"),
        (lambda panel: 1 / 0, "it raised ZeroDivisionError"),
        (lambda panel: panel.get("sales"), "it raised MissingDataError: the data set"),
    ],
)
def test_what_is_no_matrix_of_numbers_is_not_looked_at_further(function, reason):
    report = check_feature(plugin(function), PANEL)
    assert [check.name for check in report.checks] == ["shape_and_dtype"]
    assert report.leaks is None
    assert not report.passed
    assert re.match(reason, report.failures[0].detail)


def test_infinity_is_refused_with_its_place():
    def inverse(panel: Panel):
        out = np.ones(panel.shape)
        out[7:8, 2] = np.inf
        return out

    assert broken(inverse)["nan_policy"] == "infinite for S02 at bar 7; a value that is not there is NaN"


def test_nothing_but_nan_is_refused():
    assert "NaN everywhere" in broken(lambda panel: np.full(panel.shape, np.nan))["nan_policy"]


def test_chance_is_refused():
    rng = np.random.default_rng(0)
    faults = broken(lambda panel: rng.normal(size=panel.shape))
    assert "computed twice on the same data" in faults["determinism"]
    assert "no_leak" in faults


def test_hidden_state_is_refused():
    longest = {"values": np.empty((0, 4))}

    def cached(panel: Panel):
        if panel.n_bars > len(longest["values"]):
            longest["values"] = panel.close.copy()
        kept = longest["values"][: panel.n_bars]
        return kept.copy() if kept.shape == panel.shape else panel.close.copy()

    assert "it remembers something" in broken(cached)["no_hidden_state"]


def test_writing_into_the_data_is_refused():
    def writes(panel: Panel):
        panel.close.setflags(write=True)
        panel.close[:] = 1.0
        return panel.close.copy()

    before = PANEL.content_sha256()
    assert broken(writes)["inputs_unchanged"] == "it changed the panel it was given; copy before writing"
    assert PANEL.content_sha256() == before

    def writes_events(panel: Panel, events: Events):
        events.table["eps"] = 0.0
        return panel.close.copy()

    report = check_feature(plugin(writes_events, kinds={"earnings"}), DAILY.panel, events=DAILY.events)
    assert "it changed the events" in {check.name: check.detail for check in report.failures}["inputs_unchanged"]
    assert DAILY.events.table["eps"].nunique() > 10


def test_a_lookback_that_is_too_short_is_refused():
    assert "it needs more than the 3 bars it declares" in broken(trailing_mean, lookback=3)["lookback"]


def test_a_lookback_longer_than_the_data_is_not_proved():
    report = check_feature(plugin(lambda panel: panel.close * 1.0, lookback=500), PANEL)
    detail = {check.name: check.detail for check in report.checks}["lookback"]
    assert detail == "not proved: 200 bars are not longer than the lookback of 500"


def test_a_leak_is_refused():
    report = check_feature(plugin(lambda panel: panel.frame().bfill().to_numpy()), PANEL)
    assert [check.name for check in report.failures] == ["no_leak"]
    assert not report.leaks.passed


def test_a_feature_of_several_symbols_only_is_refused():
    def spread(panel: Panel):
        return np.repeat(panel.close[:, :1] - panel.close[:, 1:2], panel.n_assets, axis=1)

    assert "the shape (200, 1) of the panel is expected" in broken(spread)["one_asset"]


def test_a_feature_that_chokes_on_a_symbol_without_bars_is_refused():
    def first_price(panel: Panel):
        first = [np.flatnonzero(~np.isnan(column))[0] for column in panel.close.T]
        return panel.close / panel.close[first, np.arange(panel.n_assets)]

    assert "it raised IndexError" in broken(first_price)["missing_asset"]


def test_a_feature_that_chokes_on_few_bars_is_refused():
    def lagged(panel: Panel):
        out = np.full(panel.shape, np.nan)
        out[20:] = panel.close[:-20]
        return out[:200] if panel.n_bars >= 20 else out[np.arange(20)]

    assert "it raised IndexError" in broken(lagged, lookback=20)["short_data"]


def test_what_the_data_lack_is_the_callers_error():
    with pytest.raises(MissingDataError, match="under_test reads sales; the data set has open"):
        check_feature(plugin(trailing_mean, columns=("close", "sales")), PANEL)
    with pytest.raises(MissingDataError, match="reads events of kind earnings"):
        check_feature(plugin(trailing_mean, kinds={"earnings"}), PANEL)
    with pytest.raises(MissingDataError, match="reads events of kind filing"):
        check_feature(plugin(trailing_mean, kinds={"filing"}), DAILY.panel, events=DAILY.events)
    with pytest.raises(MissingDataError, match="volume"):
        check_feature("volume", build_panel(50, 4, bars_only_close=True))
    with pytest.raises(DataError, match="at least 3 bars"):
        check_feature("close", PANEL.slice(0, 2))
    with pytest.raises(ExpressionError):
        check_feature("close +", PANEL)
    with pytest.raises(ConfigurationError, match="is without name"):
        check_feature(trailing_mean, PANEL)
