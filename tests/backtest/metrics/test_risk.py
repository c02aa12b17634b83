from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest import metrics
from core.errors import DataError


def days(count: int) -> pd.DatetimeIndex:
    return pd.bdate_range("2020-01-01", periods=count, tz="UTC")


def test_drawdowns_of_ten_periods_by_hand() -> None:
    wealth = np.array([1.0, 1.2, 0.9, 0.6, 1.2, 1.3, 1.17, 1.3, 1.4, 1.33])
    returns = np.concatenate([[0.0], wealth[1:] / wealth[:-1] - 1.0])
    index = days(10)
    deepest, second, last = metrics.list_drawdowns(returns, index)
    assert deepest.depth == pytest.approx(-0.5)
    assert (deepest.peak, deepest.trough, deepest.recovery) == (index[1], index[3], index[4])
    assert (deepest.bars, deepest.bars_to_trough) == (3, 2)
    assert second.depth == pytest.approx(-0.1)
    assert (second.peak, second.trough, second.recovery) == (index[5], index[6], index[7])
    assert last.depth == pytest.approx(-0.05)
    assert (last.peak, last.recovery, last.bars) == (index[8], None, 1)
    assert metrics.list_drawdowns(returns, index, count=1) == [deepest]


def test_a_fall_from_the_first_period_on_has_no_peak_among_them() -> None:
    (fall,) = metrics.list_drawdowns(np.array([-0.1, -0.1, 0.05]), days(3))
    assert fall.peak is None
    assert (fall.trough, fall.recovery) == (days(3)[1], None)
    assert (fall.bars, fall.bars_to_trough) == (3, 2)


def test_an_account_that_never_fell_has_no_drawdown() -> None:
    assert metrics.list_drawdowns(np.array([0.0, 0.01, 0.0]), days(3)) == []


def test_drawdowns_need_the_periods_of_the_returns() -> None:
    with pytest.raises(DataError, match="`index` must have the 3 periods"):
        metrics.list_drawdowns(np.zeros(3), days(4))


@settings(max_examples=60)
@given(st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=60))
def test_drawdowns_are_apart_and_the_first_is_the_deepest(values: list[float]) -> None:
    returns = np.array(values)
    falls = metrics.list_drawdowns(returns, days(len(values)))
    depths = [fall.depth for fall in falls]
    assert depths == sorted(depths)
    if metrics.max_drawdown(returns) < -1e-9:
        assert depths[0] == metrics.max_drawdown(returns)
    in_time = sorted(falls, key=lambda fall: fall.trough)
    for before, after in pairwise(in_time):
        assert before.recovery is not None
        assert before.recovery <= after.trough
