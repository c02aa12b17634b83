import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import DataError, LookAheadError, MissingDataError, ShapeError
from core.market import Panel
from features.labels import event_labels, forward_returns, triple_barrier
from features.point_in_time import Events
from tests.features.panels import build_panel

NAN = np.nan


def _panel(closes, **columns):
    close = np.array(closes, dtype=float)[:, None]
    others = {name: np.array(values, dtype=float)[:, None] for name, values in columns.items()}
    index = pd.date_range("2020-01-01", periods=len(close), tz="UTC")
    return Panel(index=index, symbols=("A",), close=close, **others)


def _column(array):
    return np.asarray(array)[:, 0].tolist()


def test_label_runs_from_the_entry_after_the_decision_to_the_exit():
    labels = forward_returns(_panel([100, 110, 121, 133.1, 100, 50]), horizon=2)
    np.testing.assert_allclose(labels.values[:, 0], [133.1 / 110 - 1, 100 / 121 - 1, 50 / 133.1 - 1, NAN, NAN, NAN])
    np.testing.assert_array_equal(labels.horizon_end, [3, 4, 5, 6, 7, 8])


def test_delay_moves_entry_and_exit():
    labels = forward_returns(_panel([1, 2, 4, 8, 40]), horizon=1, delay=3)
    np.testing.assert_allclose(labels.values[:, 0], [4.0, NAN, NAN, NAN, NAN])
    assert (labels.horizon, labels.delay, labels.horizon_end[0]) == (1, 3, 4)


def test_missing_or_worthless_prices_give_nan():
    labels = forward_returns(_panel([1, 2, NAN, 4, 0, 5, 6]), horizon=1)
    assert np.isnan(labels.values[:5, 0]).tolist() == [True, True, True, True, False]


def test_horizon_longer_than_the_data_gives_nan_everywhere():
    assert np.isnan(forward_returns(_panel([1, 2, 3]), horizon=10).values).all()


def test_labels_equal_shifted_pandas_returns():
    panel = build_panel(120, 4)
    close = panel.frame()
    expected = close.shift(-6) / close.shift(-1) - 1
    np.testing.assert_allclose(forward_returns(panel, 5).values, expected, equal_nan=True)


def test_what_would_overlap_the_decision_is_refused():
    with pytest.raises(LookAheadError, match="bar t trades at bar t \\+ 1"):
        forward_returns(_panel([1, 2, 3]), horizon=1, delay=0)
    with pytest.raises(DataError, match="horizon"):
        forward_returns(_panel([1, 2, 3]), horizon=0)
    with pytest.raises(LookAheadError, match="bar t trades at bar t \\+ 1"):
        triple_barrier(_panel([1, 2, 3]), take_profit=0.1, stop_loss=0.1, horizon=1, delay=0)


def test_only_labels_complete_before_a_bar_may_train():
    labels = forward_returns(_panel([100, 110, NAN, 133.1, 100, 50]), horizon=1)
    assert _column(labels.known_before(4)) == [False, False, False, False, False, False]
    assert _column(labels.known_before(5)) == [False, False, True, False, False, False]
    both = triple_barrier(_panel([100, 100, 120, 100, 100, 100]), take_profit=0.1, stop_loss=0.5, horizon=3)
    assert _column(both.horizon_end) == [2, 5, 6, 7, 8, 9]
    assert _column(both.known_before(3)) == [True, False, False, False, False, False]


def test_close_alone_decides_at_the_first_close_beyond_a_barrier_and_leaves_there():
    labels = triple_barrier(_panel([100, 100, 104, 112, 90, 100, 101]), take_profit=0.1, stop_loss=0.1, horizon=3)
    # entries at bars 1 .. 6: 100 -> 112 at bar 3; 104 -> 90 at bar 4; 112 -> 90 at bar 4; 90 -> 100 at bar 5; 100 ends
    assert _column(labels.values)[:4] == [1.0, -1.0, -1.0, 1.0]
    assert np.isnan(labels.values[4:, 0]).all()
    assert _column(labels.horizon_end) == [3, 4, 4, 5, 8, 9, 10]
    np.testing.assert_allclose(labels.returns[:4, 0], [0.12, 90 / 104 - 1, 90 / 112 - 1, 100 / 90 - 1])


def test_high_and_low_are_touched_inside_the_bar_at_the_price_of_the_barrier():
    labels = triple_barrier(
        _panel([100, 100, 101, 99, 99], high=[100, 100, 106, 101, 99], low=[100, 100, 100, 94, 99]),
        take_profit=0.05,
        stop_loss=0.05,
        horizon=3,
    )
    assert _column(labels.values)[:2] == [1.0, -1.0]
    assert _column(labels.horizon_end)[:2] == [2, 3]
    np.testing.assert_allclose(labels.returns[:2, 0], [0.05, -0.05])


def test_a_bar_that_touches_both_barriers_counts_as_stopped():
    labels = triple_barrier(
        _panel([100, 100, 100], high=[100, 100, 120], low=[100, 100, 80]), take_profit=0.1, stop_loss=0.05, horizon=1
    )
    assert labels.values[0, 0] == -1.0
    assert labels.returns[0, 0] == pytest.approx(-0.05)


def test_a_gap_beyond_a_barrier_is_left_at_the_open():
    down = _panel([100, 100, 90], open=[100, 100, 85], high=[100, 100, 112], low=[100, 100, 80])
    labels = triple_barrier(down, take_profit=0.1, stop_loss=0.05, horizon=1)
    assert (labels.values[0, 0], labels.returns[0, 0]) == (-1.0, pytest.approx(-0.15))
    up = _panel([100, 100, 90], open=[100, 100, 115], high=[100, 100, 116], low=[100, 100, 80])
    labels = triple_barrier(up, take_profit=0.1, stop_loss=0.05, horizon=1)
    assert (labels.values[0, 0], labels.returns[0, 0]) == (1.0, pytest.approx(0.15))


def test_the_bar_of_the_entry_touches_nothing():
    labels = triple_barrier(
        _panel([100, 100, 100], high=[100, 150, 100], low=[100, 50, 100]), take_profit=0.1, stop_loss=0.1, horizon=1
    )
    assert labels.values[0, 0] == 0.0


def test_what_touches_nothing_is_zero_with_the_return_of_the_last_close():
    labels = triple_barrier(_panel([100, 100, 101, 102, 103]), take_profit=0.1, stop_loss=0.1, horizon=2)
    assert _column(labels.values)[:2] == [0.0, 0.0]
    np.testing.assert_allclose(labels.returns[:2, 0], [0.02, 103 / 101 - 1])
    assert _column(labels.horizon_end) == [3, 4, 5, 6, 7]
    assert np.isnan(labels.returns[2:]).all()


def test_barriers_are_multiples_of_the_volatility_known_at_the_decision():
    panel = _panel([100, 100, 103, 100, 100])
    volatility = np.array([[0.01], [0.05], [NAN], [0.0], [0.01]])
    labels = triple_barrier(panel, take_profit=2.0, stop_loss=2.0, horizon=1, volatility=volatility)
    # bar 0: target 102, reached by 103; bar 1: entry 103, stop 92.7, not reached by 100
    assert _column(labels.values)[:2] == [1.0, 0.0]
    assert np.isnan(labels.values[2:]).all()


def test_one_barrier_may_be_absent():
    panel = _panel([100, 100, 50, 120])
    assert triple_barrier(panel, take_profit=0.1, stop_loss=None, horizon=2).values[0, 0] == 1.0
    assert triple_barrier(panel, take_profit=None, stop_loss=0.1, horizon=2).values[0, 0] == -1.0


def test_missing_bars_are_passed_over_and_a_missing_entry_or_end_has_no_label():
    panel = _panel([100, 100, NAN, 120, NAN, 100])
    labels = triple_barrier(panel, take_profit=0.1, stop_loss=0.3, horizon=2)
    # entry 100 at 1, 120 at 3; no entry at 2; entry 120 at 3, 100 at 5; no entry at 4; no bars after 5
    np.testing.assert_array_equal(labels.values[:, 0], [1.0, NAN, 0.0, NAN, NAN, NAN])
    gone = triple_barrier(_panel([100, 100, 101, NAN]), take_profit=0.1, stop_loss=0.1, horizon=2)
    assert np.isnan(gone.values[0, 0])


def _plain_barrier(panel, take_profit, stop_loss, horizon, t, asset):
    """The same by a loop over one position."""
    entry = panel.close[t + 1, asset] if t + 1 < panel.n_bars else NAN
    if np.isnan(entry):
        return NAN, NAN, t + 1 + horizon
    for bar in range(t + 2, min(t + 2 + horizon, panel.n_bars)):
        opened, high, low = (getattr(panel, name)[bar, asset] for name in ("open", "high", "low"))
        for touched, label, level in (
            (opened <= entry * (1 - stop_loss), -1.0, opened),
            (opened >= entry * (1 + take_profit), 1.0, opened),
            (low <= entry * (1 - stop_loss), -1.0, entry * (1 - stop_loss)),
            (high >= entry * (1 + take_profit), 1.0, entry * (1 + take_profit)),
        ):
            if touched:
                return label, level / entry - 1, bar
    end = t + 1 + horizon
    last = panel.close[end, asset] if end < panel.n_bars else NAN
    return (NAN, NAN, end) if np.isnan(last) else (0.0, last / entry - 1, end)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.005, 0.2), st.floats(0.005, 0.2), st.integers(1, 12))
def test_triple_barrier_equals_a_loop_over_positions(seed, take_profit, stop_loss, horizon):
    panel = build_panel(60, 4, seed=seed)
    labels = triple_barrier(panel, take_profit=take_profit, stop_loss=stop_loss, horizon=horizon)
    for t in range(panel.n_bars):
        for asset in range(panel.n_assets):
            value, realised, end = _plain_barrier(panel, take_profit, stop_loss, horizon, t, asset)
            np.testing.assert_array_equal(labels.values[t, asset], value)
            np.testing.assert_allclose(labels.returns[t, asset], realised, rtol=1e-12, atol=1e-15)
            assert labels.horizon_end[t, asset] == end


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(5, 55))
def test_a_label_known_before_a_bar_is_the_same_without_the_bars_from_it_on(seed, bar):
    panel = build_panel(60, 4, seed=seed)

    def label(part):
        return triple_barrier(part, take_profit=0.04, stop_loss=0.03, horizon=6)

    whole, early = label(panel), label(panel.slice(0, bar))
    known = whole.known_before(bar)
    np.testing.assert_array_equal(early.known_before(bar), known[:bar])
    np.testing.assert_array_equal(early.returns[known[:bar]], whole.returns[known])


def test_wrong_barriers_are_refused():
    panel = _panel([1, 2, 3])
    with pytest.raises(DataError, match="both were None"):
        triple_barrier(panel, take_profit=None, stop_loss=None, horizon=1)
    with pytest.raises(DataError, match="`stop_loss` must be positive"):
        triple_barrier(panel, take_profit=0.1, stop_loss=-0.1, horizon=1)
    with pytest.raises(ShapeError, match="volatility"):
        triple_barrier(panel, take_profit=1, stop_loss=1, horizon=1, volatility=np.ones((2, 1)))


def _events(*rows):
    table = pd.DataFrame(
        [
            {
                "kind": "news",
                "symbol": symbol,
                "occurred_at": pd.Timestamp(at, tz="UTC"),
                "known_at": pd.Timestamp(at, tz="UTC"),
            }
            for symbol, at in rows
        ]
    )
    return Events(table=table)


def test_an_event_is_labelled_at_the_first_bar_that_knows_it():
    close = np.array([[1.0, 10], [2, 20], [4, 40], [8, 80], [16, 160], [8, 320]])
    panel = Panel(index=pd.date_range("2020-01-01", periods=6, tz="UTC"), symbols=("A", "B"), close=close)
    events = _events(
        ("A", "2020-01-01 09:00"),  # bar 1
        ("A", "2020-01-03"),  # bar 2, at the very instant
        ("B", "2020-01-02 23:00"),  # bar 2
        (None, "2020-01-03 12:00"),  # bar 3, both
        ("B", "2019-12-30"),  # before the data
        ("B", "2020-02-01"),  # after the data
    )
    labels = event_labels(panel, events, horizon=1)
    np.testing.assert_allclose(labels.values[:, 0], [NAN, 1.0, 1.0, -0.5, NAN, NAN])
    np.testing.assert_allclose(labels.values[:, 1], [NAN, NAN, 1.0, 1.0, NAN, NAN])
    np.testing.assert_array_equal(labels.horizon_end, [2, 3, 4, 5, 6, 7])
    with pytest.raises(MissingDataError, match="not in the panel"):
        event_labels(panel, _events(("C", "2020-01-02")), horizon=1)
