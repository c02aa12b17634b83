"""The truncation test: how it names leaks, what it changes, where it cuts."""

import numpy as np
import pandas as pd
import pytest

from core.errors import DataError, MissingDataError, ShapeError
from core.market import Panel
from features import Events, FunctionFeature, check_leaks, compute, join_events, parse
from features.alphas import LIBRARY
from features.cuts import choose_cuts
from features.futures import CHANGES, FeatureInputs, alter_future, cut_future, lengthen
from features.planted import build_daily
from tests.features.panels import build_panel

PANEL = build_panel(500, 5)


def next_close(panel: Panel):
    return panel.frame().shift(-1)


def known_so_far(panel: Panel, events: Events):
    return join_events(panel, events.of_kind("earnings"), value="eps")


def test_a_leak_is_named_with_its_place():
    def peek_at_bar_400(panel: Panel):
        values = np.ones(panel.shape)
        if panel.n_bars > 400:
            values[100, 3] = panel.close[400, 3]
        return values

    report = check_leaks(peek_at_bar_400, PANEL)
    assert {(leak.bar, leak.symbol) for leak in report.leaks if leak.change in ("cut", "altered")} == {(100, "S03")}
    leak = report.leaks[0]
    assert leak.timestamp == PANEL.index[100]
    cut = next(leak for leak in report.leaks if leak.change == "cut")
    assert cut.size == pytest.approx(abs(PANEL.close[400, 3] - 1.0) / max(PANEL.close[400, 3], 1.0))
    assert "S03 at bar 100" in report.summary()


def test_a_vanishing_value_is_an_infinite_change():
    report = check_leaks(next_close, PANEL)
    assert any(np.isinf(leak.size) for leak in report.leaks if leak.change == "cut")


def test_altering_catches_what_cutting_cannot():
    def guarded(panel: Panel):
        """Look ahead only where the data reach far enough."""
        if panel.n_bars < PANEL.n_bars:
            return guarded(PANEL)[: panel.n_bars]
        ahead = np.ones(panel.shape)
        ahead[:-1] += 1e-6 * panel.close[1:]
        return ahead

    report = check_leaks(guarded, PANEL, n_cuts=12)
    assert not report.passed
    assert {leak.change for leak in report.leaks} & {"altered"}
    assert "cut" not in {leak.change for leak in report.leaks}


def test_removing_symbols_catches_a_universe_of_survivors_where_all_survive():
    def survivors(panel: Panel):
        return np.where(np.isnan(panel.close[-1]), np.nan, panel.close)

    complete = build_panel(300, 4, gaps=False)
    assert not np.isnan(complete.close).any()
    report = check_leaks(survivors, complete)
    assert {leak.change for leak in report.leaks} == {"delisted", "blank"}


def test_dropping_bars_catches_a_count_of_bars_to_come():
    def bars_left_in_year(panel: Panel):
        years = pd.Series(panel.index.year)
        return np.repeat(years.groupby(years).cumcount(ascending=False).to_numpy(float)[:, None], panel.n_assets, axis=1)

    assert {leak.change for leak in check_leaks(bars_left_in_year, PANEL).leaks} == {"cut", "thinned"}


def test_what_a_feature_remembers_is_found_even_if_it_saw_the_data_before():
    longest = {"values": np.empty((0, 5))}

    def cached(panel: Panel):
        if len(longest["values"]) < panel.n_bars:
            longest["values"] = panel.close[::-1][::-1].copy()
            longest["values"][:-1] = panel.close[1:]
        return longest["values"][: panel.n_bars]

    cached(PANEL)
    report = check_leaks(cached, PANEL)
    assert {leak.change for leak in report.leaks} == {"memory"}
    assert "the feature remembers what it has seen" in report.summary()


def test_a_sweep_finds_one_bar_among_thousands_that_looks_ahead():
    panel = build_panel(3_000, 4, seed=8)

    def honest_but_for_one_bar(panel: Panel):
        values = np.zeros(panel.shape)
        values[1:] = np.nan_to_num(panel.close[:-1])
        if panel.n_bars > 1_234:
            values[1_233, 1] += 1e-3 * np.nan_to_num(panel.close[1_234, 1])
        return values

    def plugin(lookback):
        return FunctionFeature(
            name="rare",
            version="1",
            hypothesis="None.",
            lookback=lookback,
            columns=frozenset({"close"}),
            function=honest_but_for_one_bar,
        )

    assert check_leaks(plugin(None), panel).passed
    for seed in range(3):
        report = check_leaks(plugin(1), panel, seed=seed)
        assert {(leak.bar, leak.symbol) for leak in report.leaks} == {(1_233, "S01")}


def test_a_sweep_tells_a_leak_from_the_rounding_of_a_running_sum():
    panel = build_panel(420, 4, seed=9)

    def mean_but_for_one_bar(panel: Panel):
        values = panel.frame().rolling(5).mean().to_numpy().copy()  # pandas carries rounding on from bar to bar
        if panel.n_bars > 244:
            values[243] *= 1.0 + 1e-6 * panel.close[244] / panel.close[243]
        return values

    feature = FunctionFeature(
        name="rare",
        version="1",
        hypothesis="None.",
        lookback=4,
        columns=frozenset({"close"}),
        function=mean_but_for_one_bar,
    )
    assert {leak.bar for leak in check_leaks(feature, panel).leaks} == {243}


def test_cutting_everywhere_finds_what_no_landmark_marks():
    panel = PANEL.slice(0, 150)

    def one_bar(panel: Panel):
        values = np.cumsum(np.nan_to_num(panel.close), axis=0)
        if panel.n_bars > 78:
            values[77, 0] += panel.close[78, 0]
        return values

    assert not check_leaks(one_bar, panel, n_cuts=panel.n_bars).passed


def test_the_same_seed_gives_the_same_report():
    def zscore(panel: Panel):
        return (panel.frame() - panel.frame().mean()) / panel.frame().std()

    assert check_leaks(zscore, PANEL, seed=5) == check_leaks(zscore, PANEL, seed=5)


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


def test_an_expression_is_checked_at_eight_cuts_and_python_at_forty_or_more():
    assert check_leaks("ts_mean(close, 5)", PANEL).n_checks == 16
    assert check_leaks("ts_mean(close, 5)", PANEL, n_cuts=3).n_checks == 6
    assert check_leaks(lambda panel: panel.close, PANEL).n_checks >= 3 * 40 + 1


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
    with pytest.raises(DataError, match="reads no events"):
        check_leaks("close", PANEL, events=build_daily().events)
    with pytest.raises(MissingDataError, match="not in the panel, for instance S05"):
        check_leaks(known_so_far, PANEL, events=build_daily().events)


def test_an_error_of_the_feature_says_on_what_data_it_was_raised():
    def refuses_gaps(panel: Panel):
        if np.isnan(panel.close[-1]).all():
            raise ValueError("no prices")
        return panel.close

    with pytest.raises(ValueError, match="no prices") as caught:
        check_leaks(refuses_gaps, build_panel(100, 2, gaps=False))
    assert "a feature must accept NaN" in caught.value.__notes__[0]


def test_a_feature_that_writes_into_its_data_spoils_only_a_copy():
    def writes(panel: Panel, events: Events):
        panel.close.setflags(write=True)
        panel.close[:] = 1.0
        events.table["eps"] = 1.0
        return panel.close

    inputs = build_daily()
    before, table = inputs.panel.content_sha256(), inputs.events.table.copy()
    check_leaks(writes, inputs.panel, events=inputs.events)
    assert inputs.panel.content_sha256() == before
    pd.testing.assert_frame_equal(inputs.events.table, table)


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_future_leaves_the_past_and_what_was_known_as_they_were(change):
    inputs = build_daily(1)
    cut = 250
    changed = alter_future(inputs, cut, change, np.random.default_rng(2))
    until = inputs.panel.index[cut]
    for name in inputs.panel.fields:
        np.testing.assert_array_equal(changed.panel.get(name)[: cut + 1], inputs.panel.get(name)[: cut + 1])
    assert changed.panel.index[: cut + 1].equals(inputs.panel.index[: cut + 1])
    columns = ["symbol", "occurred_at", "known_at", "eps"]
    before, after = (each.events.known_by(until).table[columns] for each in (inputs, changed))
    pd.testing.assert_frame_equal(before, after)
    later = changed.panel.get("close")[cut + 1 :]
    assert later.shape != inputs.panel.close[cut + 1 :].shape or not np.array_equal(
        later, inputs.panel.close[cut + 1 :], equal_nan=True
    )


def test_a_changed_future_restates_what_was_known():
    inputs = build_daily(1)
    until = inputs.panel.index[250]
    changed = alter_future(inputs, 250, "altered", np.random.default_rng(2)).events.of_kind("earnings").table
    known = inputs.events.of_kind("earnings").known_by(until).table
    again = changed[(changed["known_at"] > until) & changed["occurred_at"].isin(known["occurred_at"])]
    assert len(again) >= len(known)


def test_a_cut_future_ends_bars_and_events_at_the_same_instant():
    inputs = build_daily(1)
    cut = cut_future(inputs, 100)
    assert cut.panel.n_bars == 101
    assert cut.events.table["known_at"].max() <= inputs.panel.index[100]
    known = inputs.events.table["known_at"] <= inputs.panel.index[100]
    assert len(cut.events) == known.sum()


def test_longer_data_begin_at_the_same_bar_and_share_no_price():
    inputs = build_daily(1)
    longer = lengthen(inputs, np.random.default_rng(0)).panel
    n = inputs.panel.n_bars
    assert longer.n_bars == n + n // 4
    assert longer.index[:n].equals(inputs.panel.index)
    known = ~np.isnan(inputs.panel.close)
    assert (longer.close[:n][known] != inputs.panel.close[known]).all()


def test_cuts_are_distinct_sorted_bars_before_the_last():
    inputs = build_daily(3)
    for n_cuts in (1, 2, 8, 9, 40, 419, 1_000):
        cuts = choose_cuts(inputs, n_cuts, np.random.default_rng(0))
        assert cuts == sorted(set(cuts))
        assert len(cuts) == min(n_cuts, inputs.panel.n_bars - 1)
        assert cuts[0] >= 0
        assert cuts[-1] == inputs.panel.n_bars - 2


def test_cuts_include_a_bar_before_the_narrowest_miss_of_each_kind_of_event():
    inputs = build_daily(3)
    stamps = inputs.panel.index
    cuts = choose_cuts(inputs, 60, np.random.default_rng(0))
    for kind in ("earnings", "call"):
        known = pd.DatetimeIndex(inputs.events.of_kind(kind).table["known_at"])
        known = known[(known > stamps[0]) & (known <= stamps[-1])]
        waits = known - stamps[stamps.searchsorted(known) - 1]
        narrowest = set(stamps.searchsorted(known[waits == waits.min()]) - 1)
        assert len(narrowest & set(cuts)) >= min(4, len(narrowest))


def test_cuts_include_the_bars_around_a_crash_and_the_end_of_a_symbol():
    inputs = FeatureInputs(panel=build_daily(3).panel)
    cuts = choose_cuts(inputs, 40, np.random.default_rng(0))
    with np.errstate(invalid="ignore"):
        steps = np.abs(np.diff(np.log(inputs.panel.close), axis=0))
    crash = int(np.nanmax(steps, axis=1).argmax()) + 1
    assert {crash - 1, crash} <= set(cuts)
    last_of_s04 = int(np.flatnonzero(~np.isnan(inputs.panel.close[:, 4]))[-1])
    assert {last_of_s04 - 1, last_of_s04} <= set(cuts)
