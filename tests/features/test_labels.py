import numpy as np
import pandas as pd
import pytest

from core.errors import DataError, LookAheadError
from core.market import Panel
from features.labels import forward_returns
from tests.features.panels import build_panel


def _panel(closes):
    close = np.array(closes, dtype=float)[:, None]
    return Panel(index=pd.date_range("2020-01-01", periods=len(close), tz="UTC"), symbols=("A",), close=close)


def test_label_runs_from_the_entry_after_the_decision_to_the_exit():
    labels = forward_returns(_panel([100, 110, 121, 133.1, 100, 50]), horizon=2)
    np.testing.assert_allclose(labels.values[:, 0], [133.1 / 110 - 1, 100 / 121 - 1, 50 / 133.1 - 1, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(labels.horizon_end, [3, 4, 5, 6, 7, 8])


def test_delay_moves_entry_and_exit():
    labels = forward_returns(_panel([1, 2, 4, 8, 40]), horizon=1, delay=3)
    np.testing.assert_allclose(labels.values[:, 0], [4.0, np.nan, np.nan, np.nan, np.nan])
    assert (labels.horizon, labels.delay, labels.horizon_end[0]) == (1, 3, 4)


def test_missing_or_worthless_prices_give_nan():
    labels = forward_returns(_panel([1, 2, np.nan, 4, 0, 5, 6]), horizon=1)
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
