import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.splits import WalkForward
from core.errors import ConfigurationError, DataError


def test_anchored_training_grows() -> None:
    assert list(WalkForward(4, 3, 1).split(11)) == [
        (slice(0, 4), slice(5, 8)),
        (slice(0, 7), slice(8, 11)),
    ]


def test_rolling_training_keeps_its_length_and_the_last_fold_takes_the_rest() -> None:
    assert list(WalkForward(4, 3, 0, anchored=False).split(9)) == [
        (slice(0, 4), slice(4, 7)),
        (slice(3, 7), slice(7, 9)),
    ]


@given(
    min_train=st.integers(2, 50), test_bars=st.integers(1, 40), embargo=st.integers(0, 10), anchored=st.booleans(),
    extra=st.integers(1, 200),
)  # fmt: skip
def test_tests_tile_the_rest_and_training_ends_an_embargo_before(
    min_train: int, test_bars: int, embargo: int, anchored: bool, extra: int
) -> None:
    n_bars = min_train + embargo + extra
    folds = list(WalkForward(min_train, test_bars, embargo, anchored).split(n_bars))
    tested = np.concatenate([np.arange(n_bars)[test] for _, test in folds])
    assert tested.tolist() == list(range(min_train + embargo, n_bars))
    for train, test in folds:
        assert train.stop + embargo == test.start
        assert train.start >= 0
        assert train.stop - train.start >= min_train


def test_too_few_bars_are_refused() -> None:
    with pytest.raises(DataError, match="more than min_train \\+ embargo_bars = 5"):
        list(WalkForward(4, 3, 1).split(5))


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="`min_train`"):
        WalkForward(1, 3)
    with pytest.raises(ConfigurationError, match="`test_bars`"):
        WalkForward(10, 0)
    with pytest.raises(ConfigurationError, match="`embargo_bars`"):
        WalkForward(10, 3, -1)
