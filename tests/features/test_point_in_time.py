"""Joins by known_at, against a loop that looks at every event for every bar."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import DataError, LookAheadError, MissingDataError, ShapeError
from core.market import Panel
from features import Events, compute, join_events
from features.planted import build_daily, build_intraday

NAN = np.nan
PANEL = Panel(
    index=pd.date_range("2020-01-01 21:00", periods=6, tz="UTC"), symbols=("A", "B"), close=np.arange(12.0).reshape(6, 2) + 1
)


def table(*rows, kind="earnings"):
    columns = ["symbol", "occurred_at", "known_at", "eps"]
    frame = pd.DataFrame(list(rows), columns=columns)
    for name in ("occurred_at", "known_at"):
        frame[name] = pd.to_datetime(frame[name], utc=True)
    return frame.assign(kind=kind)


def test_a_value_counts_from_the_bar_at_which_it_is_known():
    events = table(
        ("A", "2019-12-31", "2020-01-02 20:59", 1.0),  # before the close of bar 1
        ("A", "2020-01-03", "2020-01-04 21:00", 2.0),  # at the very close of bar 3
        ("B", "2019-12-31", "2020-01-04 21:01", 3.0),  # a minute after the close of bar 3
    )
    values = join_events(PANEL, events, value="eps")
    np.testing.assert_array_equal(values[:, 0], [NAN, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(values[:, 1], [NAN, NAN, NAN, NAN, 3, 3])


def test_a_revision_replaces_its_value_when_it_is_known_and_not_before():
    events = table(
        ("A", "2019-12-31", "2020-01-02", 1.0),
        ("A", "2019-12-31", "2020-01-04", 1.5),
    )
    np.testing.assert_array_equal(join_events(PANEL, events, value="eps")[:, 0], [NAN, 1, 1, 1.5, 1.5, 1.5])


def test_a_late_revision_of_an_old_period_does_not_displace_a_newer_period():
    events = table(
        ("A", "2019-09-30", "2020-01-01", 1.0),
        ("A", "2019-12-31", "2020-01-03", 2.0),
        ("A", "2019-09-30", "2020-01-05", 1.1),
    )
    np.testing.assert_array_equal(join_events(PANEL, events, value="eps")[:, 0], [1, 1, 2, 2, 2, 2])


def test_count_and_age_count_announcements_and_days():
    events = table(("A", "2019-12-31", "2020-01-02 09:00", 1.0), ("A", "2020-01-03", "2020-01-04 21:00", 2.0))
    np.testing.assert_array_equal(join_events(PANEL, events, how="count"), np.array([[0, 1, 1, 2, 2, 2], [0] * 6]).T)
    ages = join_events(PANEL, events, how="age")
    np.testing.assert_allclose(ages[:, 0], [NAN, 0.5, 1.5, 0.0, 1.0, 2.0])
    assert np.isnan(ages[:, 1]).all()


def test_what_is_too_old_does_not_count():
    events = table(("A", "2019-12-31", "2020-01-02 21:00", 1.0), ("A", "2020-01-01", "2020-01-03 21:00", 2.0))
    day = dt.timedelta(days=1)
    np.testing.assert_array_equal(join_events(PANEL, events, value="eps", max_age=day)[:, 0], [NAN, 1, 2, 2, NAN, NAN])
    np.testing.assert_array_equal(join_events(PANEL, events, how="age", max_age=day)[:, 0], [NAN, 0, 0, 1, NAN, NAN])
    np.testing.assert_array_equal(join_events(PANEL, events, how="count", max_age=day)[:, 0], [0, 1, 2, 1, 0, 0])


def test_an_event_without_a_symbol_concerns_every_symbol():
    events = table((None, "2020-01-02", "2020-01-02", 7.0), ("B", "2020-01-03", "2020-01-03", 8.0))
    values = join_events(PANEL, events, value="eps")
    np.testing.assert_array_equal(values, np.array([[NAN, 7, 7, 7, 7, 7], [NAN, 7, 8, 8, 8, 8]]).T)


def test_payloads_become_columns():
    rows = table(("A", "2020-01-01", "2020-01-02", 0.0)).drop(columns="eps").assign(payload=[{"eps": 4.0, "note": "x"}])
    events = Events(table=rows)
    assert join_events(PANEL, events, value="eps")[-1, 0] == 4.0
    assert events.table["note"].tolist() == ["x"]


def test_rows_of_a_database_with_datetimes_of_any_zone_are_accepted():
    new_york = dt.timezone(dt.timedelta(hours=-5))
    rows = pd.DataFrame(
        {
            "kind": ["earnings"],
            "symbol": ["A"],
            "occurred_at": pd.Series([dt.datetime(2020, 1, 1, tzinfo=dt.UTC)], dtype=object),
            "known_at": pd.Series([dt.datetime(2020, 1, 2, 16, 30, tzinfo=new_york)], dtype=object),
            "eps": [1],
        }
    )
    np.testing.assert_array_equal(join_events(PANEL, rows, value="eps")[:, 0], [NAN, NAN, 1, 1, 1, 1])


def test_expressions_read_a_joined_column():
    values = join_events(PANEL, table(("A", "2020-01-01", "2020-01-02", 6.0)), value="eps")
    panel = PANEL.with_column("eps", values)
    np.testing.assert_allclose(compute("eps / close", panel)[:, 0], [NAN, 2.0, 6 / 5, 6 / 7, 6 / 9, 6 / 11])
    assert "eps" not in PANEL.fields
    with pytest.raises(DataError, match="no bar field"):
        PANEL.with_column("close", values)
    with pytest.raises(DataError, match="identifier"):
        PANEL.with_column("earnings per share", values)
    with pytest.raises(ShapeError, match="eps"):
        PANEL.with_column("eps", values[1:])


def _by_loop(panel, events, how, max_age):
    out = np.full(panel.shape, 0.0 if how == "count" else NAN)
    for t, stamp in enumerate(panel.index):
        for column, symbol in enumerate(panel.symbols):
            rows = [row for row in events.table.itertuples() if row.symbol in (symbol, None) and row.known_at <= stamp]
            fresh = [row for row in rows if max_age is None or stamp - row.known_at <= max_age]
            if how == "count":
                out[t, column] = len(fresh)
            elif rows:
                best = max(rows, key=lambda row: (row.occurred_at, row.known_at))
                if best in fresh:
                    out[t, column] = best.eps if how == "last" else (stamp - best.known_at) / pd.Timedelta(days=1)
    return out


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1_000), st.sampled_from(["last", "count", "age"]), st.sampled_from([None, 3.5, 40.0]))
def test_joins_equal_a_loop_over_all_events(seed, how, days):
    inputs = build_daily(seed)
    panel = inputs.panel.slice(0, 400).select(inputs.panel.symbols[:3])
    panel = Panel(index=panel.index[::16], symbols=panel.symbols, close=panel.close[::16])
    events = inputs.events.of_kind("earnings").select(panel.symbols)
    max_age = None if days is None else dt.timedelta(days=days)
    value = "eps" if how == "last" else None
    joined = join_events(panel, events, value=value, how=how, max_age=max_age)
    np.testing.assert_allclose(joined, _by_loop(panel, events, how, max_age))


def test_what_is_joined_is_the_same_without_what_is_known_later():
    inputs = build_intraday(4)
    events = inputs.events.of_kind("earnings")
    whole = join_events(inputs.panel, events, value="eps")
    for cut in (30, 100, 200, 333):
        part = join_events(inputs.panel.slice(0, cut + 1), events.known_by(inputs.panel.index[cut]), value="eps")
        np.testing.assert_array_equal(part, whole[: cut + 1])


def test_no_events_join_to_nothing():
    assert np.isnan(join_events(PANEL, table(), value="eps")).all()
    assert (join_events(PANEL, table(), how="count") == 0).all()


@pytest.mark.parametrize("name", ["occurred_at", "known_at"])
def test_naive_or_missing_times_are_refused(name):
    rows = table(("A", "2020-01-01", "2020-01-02", 1.0))
    with pytest.raises(DataError, match=f"`{name}` of events must be tz-aware"):
        Events(table=rows.assign(**{name: rows[name].dt.tz_localize(None)}))
    with pytest.raises(DataError, match=f"`{name}` of events must be tz-aware"):
        Events(table=rows.assign(**{name: "2020-01-02"}))
    with pytest.raises(DataError, match=f"`{name}` is missing in 1 events"):
        Events(table=rows.assign(**{name: pd.NaT}))


def test_an_event_known_before_it_occurred_is_refused_unless_it_was_scheduled():
    rows = table(("A", "2020-01-05", "2020-01-02", 1.0), kind="call")
    with pytest.raises(LookAheadError, match=r"'call' is known at 2020-01-02.* but occurred only at 2020-01-05"):
        Events(table=rows)
    scheduled = Events(table=rows, scheduled_kinds={"call"})
    assert join_events(PANEL, scheduled, value="eps")[1, 0] == 1.0


def test_bad_joins_are_refused_with_the_remedy():
    rows = table(("A", "2020-01-01", "2020-01-02", 1.0))
    with pytest.raises(MissingDataError, match=r"not in the panel, for instance Z; .*events\.select"):
        join_events(PANEL, rows.assign(symbol="Z"), value="eps")
    assert np.isnan(join_events(PANEL, Events(table=rows.assign(symbol="Z")).select(PANEL.symbols), value="eps")).all()
    with pytest.raises(MissingDataError, match="no `sales`; they have eps"):
        join_events(PANEL, rows, value="sales")
    with pytest.raises(DataError, match="`eps` is NaN or infinite in 1 events"):
        join_events(PANEL, rows.assign(eps=NAN), value="eps")
    with pytest.raises(DataError, match="must be numbers"):
        join_events(PANEL, rows.assign(eps="much"), value="eps")
    with pytest.raises(DataError, match="`how` must be"):
        join_events(PANEL, rows, value="eps", how="first")
    with pytest.raises(DataError, match="`value` names the column"):
        join_events(PANEL, rows, how="last")
    with pytest.raises(DataError, match="`value` names the column"):
        join_events(PANEL, rows, value="eps", how="count")
    with pytest.raises(DataError, match="`max_age` must be positive"):
        join_events(PANEL, rows, how="count", max_age=dt.timedelta(0))
    with pytest.raises(MissingDataError, match="known_at is missing"):
        Events(table=rows.drop(columns="known_at"))
    with pytest.raises(DataError, match="`kind` of an event must be text"):
        Events(table=rows.assign(kind=3))
    with pytest.raises(DataError, match="`payload` of an event must be a mapping"):
        Events(table=rows.assign(payload="{}"))
    with pytest.raises(DataError, match="payload` holds eps"):
        Events(table=rows.assign(payload=[{"eps": 2.0}]))


def test_the_table_that_was_given_stays_as_it_was():
    rows = table(("A", "2020-01-03", "2020-01-04", 2.0), ("A", "2020-01-01", "2020-01-02", 1.0))
    before = rows.copy()
    Events(table=rows)
    pd.testing.assert_frame_equal(rows, before)
