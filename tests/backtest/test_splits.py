import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skfolio.model_selection import CombinatorialPurgedCV
from sklearn.model_selection import KFold

from backtest.splits import CombinatorialPurged, PurgedKFold, Split, Splitter, WalkForward
from core.errors import ConfigurationError, DataError, LookAheadError, ShapeError


def as_lists(splits: Iterator[Split]) -> list[tuple[list[int], list[int]]]:
    return [(train.tolist(), test.tolist()) for train, test in splits]


def splits_or_nothing(splitter: Splitter, n_bars: int, ends: np.ndarray) -> list[Split]:
    """Return the splits, up to the first that has nothing left to learn on."""
    found = []
    try:
        for split in splitter.split(n_bars, ends):
            found.append(split)  # noqa: PERF402
    except DataError:
        pass
    return found


def check_purge(split: Split, ends: np.ndarray, embargo: int) -> None:
    """Say the promise slowly: labels are closed intervals of bars, and no two of training and test meet."""
    last = ends.reshape(len(ends), -1).max(axis=1)
    held = {bar for s in split.test for bar in range(s, last[s] + 1)}
    for t in split.train:
        assert held.isdisjoint(range(t, last[t] + 1))
        assert held.isdisjoint(range(t - embargo, t))
    assert not set(split.train) & set(split.test)
    assert (np.diff(split.train) > 0).all()
    assert (np.diff(split.test) > 0).all()


@st.composite
def label_ends(draw: st.DrawFn, n_bars: int) -> np.ndarray:
    columns = draw(st.integers(0, 3))
    shape = (n_bars,) if columns == 0 else (n_bars, columns)
    longest = draw(st.integers(0, 6))
    horizon = np.random.default_rng(draw(st.integers(0, 99))).integers(0, longest + 1, shape)
    return np.arange(n_bars).reshape(-1, *[1] * (len(shape) - 1)) + horizon


def test_anchored_training_grows() -> None:
    assert as_lists(WalkForward(4, 3, 1).split(11)) == [
        ([0, 1, 2, 3], [5, 6, 7]),
        ([0, 1, 2, 3, 4, 5, 6], [8, 9, 10]),
    ]


def test_rolling_training_keeps_its_length_and_the_last_fold_takes_the_rest() -> None:
    assert as_lists(WalkForward(4, 3, 0, anchored=False).split(9)) == [
        ([0, 1, 2, 3], [4, 5, 6]),
        ([3, 4, 5, 6], [7, 8]),
    ]


def test_labels_that_reach_into_the_test_are_not_learned_from() -> None:
    ends = [1, 2, 5, 6, 4, 7, 8, 9]
    assert as_lists(WalkForward(4, 2).split(8, ends)) == [([0, 1], [4, 5]), ([0, 1, 2, 4], [6, 7])]


@given(
    min_train=st.integers(2, 50), test_bars=st.integers(1, 40), embargo=st.integers(0, 10), anchored=st.booleans(),
    extra=st.integers(1, 200),
)  # fmt: skip
def test_walk_forward_tests_tile_the_rest_and_training_ends_an_embargo_before(
    min_train: int, test_bars: int, embargo: int, anchored: bool, extra: int
) -> None:
    n_bars = min_train + embargo + extra
    folds = list(WalkForward(min_train, test_bars, embargo, anchored).split(n_bars))
    assert np.concatenate([test for _, test in folds]).tolist() == list(range(min_train + embargo, n_bars))
    for train, test in folds:
        assert train[-1] + 1 + embargo == test[0]
        assert train[0] == (0 if anchored else train[-1] + 1 - min_train)
        assert len(train) == train[-1] + 1 - train[0] >= min_train


@given(data=st.data(), min_train=st.integers(2, 20), test_bars=st.integers(1, 20), embargo=st.integers(0, 5))
def test_walk_forward_learns_from_no_label_that_reaches_a_test(
    data: st.DataObject, min_train: int, test_bars: int, embargo: int
) -> None:
    n_bars = min_train + embargo + 15
    ends = data.draw(label_ends(n_bars))
    for split in splits_or_nothing(WalkForward(min_train, test_bars, embargo), n_bars, ends):
        check_purge(split, ends, 0)
        assert split.train[-1] + embargo < split.test[0]


@given(data=st.data(), n_bars=st.integers(2, 50), n_folds=st.integers(2, 8), embargo=st.integers(0, 5))
def test_purged_folds_test_every_bar_once_and_learn_from_no_label_that_meets_a_test(
    data: st.DataObject, n_bars: int, n_folds: int, embargo: int
) -> None:
    n_folds = min(n_folds, n_bars)
    ends = data.draw(label_ends(n_bars))
    found = splits_or_nothing(PurgedKFold(n_folds, embargo), n_bars, ends)
    for split in found:
        check_purge(split, ends, embargo)
    if len(found) == n_folds:
        assert np.concatenate([test for _, test in found]).tolist() == list(range(n_bars))


@given(data=st.data(), n_folds=st.integers(3, 6), length=st.integers(2, 8), rest=st.integers(0, 5), embargo=st.integers(0, 3))
def test_combinations_test_every_bar_as_often_as_there_are_paths(
    data: st.DataObject, n_folds: int, length: int, rest: int, embargo: int
) -> None:
    n_bars = n_folds * length + min(rest, n_folds - 1)
    splitter = CombinatorialPurged(n_folds, data.draw(st.integers(2, n_folds - 1)), embargo)
    ends = data.draw(label_ends(n_bars))
    found = splits_or_nothing(splitter, n_bars, ends)
    for split in found:
        check_purge(split, ends, embargo)
    if len(found) == splitter.n_splits:
        tested = np.bincount(np.concatenate([test for _, test in found]), minlength=n_bars)
        assert (tested == splitter.n_paths).all()


@pytest.mark.parametrize(("n_folds", "n_test_folds", "n_bars"), [(3, 2, 6), (6, 2, 40), (6, 4, 37), (7, 3, 50)])
def test_paths_are_complete_and_each_tested_fold_is_on_one_of_them(n_folds: int, n_test_folds: int, n_bars: int) -> None:
    splitter = CombinatorialPurged(n_folds, n_test_folds)
    tested = [set(test.tolist()) for _, test in splitter.split(n_bars)]
    paths = splitter.paths(n_bars)
    assert len(tested) == splitter.n_splits == math.comb(n_folds, n_test_folds)
    assert paths.shape == (splitter.n_paths, n_bars)
    assert splitter.n_paths * n_folds == splitter.n_splits * n_test_folds
    for bar in range(n_bars):
        assert sorted(paths[:, bar]) == [split for split in range(len(tested)) if bar in tested[split]]


@given(
    n_folds=st.integers(3, 6), horizon=st.integers(0, 4), embargo=st.integers(0, 3), n_bars=st.integers(60, 90), data=st.data()
)
def test_labels_of_one_length_are_purged_as_skfolio_does(
    n_folds: int, horizon: int, embargo: int, n_bars: int, data: st.DataObject
) -> None:
    n_test = data.draw(st.integers(2, n_folds - 1))
    referee = CombinatorialPurgedCV(n_folds=n_folds, n_test_folds=n_test, purged_size=horizon, embargo_size=embargo)
    expected = list(referee.split(np.empty((n_bars, 1))))
    ours = CombinatorialPurged(n_folds, n_test, embargo).split(n_bars, np.arange(n_bars) + horizon)
    if any(len(train) == 0 for train, _ in expected):
        with pytest.raises(DataError, match="nothing is left to learn on"):
            list(ours)
        return
    for split, (train, tests) in itertools.zip_longest(ours, expected):
        assert split.train.tolist() == train.tolist()
        assert split.test.tolist() == np.concatenate(tests).tolist()


def test_an_embargo_follows_the_last_label_of_a_test() -> None:
    ends = np.arange(12) + 1
    assert as_lists(PurgedKFold(3, 2).split(12, ends))[1] == ([0, 1, 2, 11], [4, 5, 6, 7])


def test_a_bar_is_left_out_when_the_label_of_any_asset_overlaps() -> None:
    ends = np.arange(8)[:, None] + np.zeros((8, 3), dtype=int)
    ends[1, 2] = 4
    assert as_lists(PurgedKFold(2).split(8, ends))[1][0] == [0, 2, 3]


def memory_score(splitter: Splitter | KFold, labels: np.ndarray, ends: np.ndarray) -> float:
    """Correlate labels with those of the nearest bar that was learned from: all that a model without any insight can do."""
    n_bars = len(labels)
    guess = np.empty(n_bars)
    splits = splitter.split(np.empty((n_bars, 1))) if isinstance(splitter, KFold) else splitter.split(n_bars, ends)
    for train, test in splits:
        guess[test] = labels[train[np.abs(train[None, :] - test[:, None]).argmin(axis=1)]]
    return float(np.corrcoef(guess, labels)[0, 1])


def test_memory_alone_looks_like_foresight_in_naive_folds_and_not_in_purged_ones() -> None:
    horizon, naive, contiguous, purged = 20, [], [], []
    for seed in range(8):
        noise = np.random.default_rng(seed).standard_normal(3_000 + horizon)
        labels = np.convolve(noise[1:], np.ones(horizon), mode="valid")[: 3_000 - horizon]  # return of the next 20 bars
        ends = np.arange(len(labels)) + horizon
        naive.append(memory_score(KFold(60, shuffle=True, random_state=seed), labels, ends))
        contiguous.append(memory_score(PurgedKFold(60), labels, np.arange(len(labels))))
        purged.append(memory_score(PurgedKFold(60), labels, ends))
    assert np.mean(naive) > 0.9
    assert np.mean(contiguous) > 0.3, "even without shuffling, labels at the edges of a fold are known from its neighbours"
    assert abs(np.mean(purged)) < 0.06


def test_too_few_bars_are_refused() -> None:
    with pytest.raises(DataError, match="more than min_train \\+ embargo_bars = 5"):
        list(WalkForward(4, 3, 1).split(5))
    with pytest.raises(DataError, match="5 folds need at least as many bars"):
        list(PurgedKFold(5).split(4))
    with pytest.raises(DataError, match="10 folds need at least 20 bars"):
        list(CombinatorialPurged(10).split(19))
    with pytest.raises(DataError, match="10 folds need at least 20 bars"):
        CombinatorialPurged(10).paths(19)


def test_a_split_with_nothing_to_learn_on_is_refused() -> None:
    with pytest.raises(DataError, match="nothing is left to learn on beside the test bars 0 to 4 of 10"):
        list(PurgedKFold(2, embargo_bars=9).split(10))
    with pytest.raises(DataError, match="shorter labels"):
        list(WalkForward(5, 5).split(10, np.full(10, 9)))


def test_impossible_labels_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(n_bars,\) or \(n_bars, n_assets\) with n_bars = 10, was int64 of shape \(9,\)"):
        list(PurgedKFold(2).split(10, np.arange(9)))
    with pytest.raises(ShapeError, match="was float64"):
        list(PurgedKFold(2).split(3, [0.0, 1.0, np.nan]))
    with pytest.raises(ShapeError, match=r"of shape \(4, 0\)"):
        list(PurgedKFold(2).split(4, np.empty((4, 0), dtype=int)))
    with pytest.raises(LookAheadError, match="the label of bar 2 does"):
        list(PurgedKFold(2).split(4, [0, 1, 1, 3]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WalkForward(1, 3), "`min_train`"),
        (lambda: WalkForward(10, 0), "`test_bars`"),
        (lambda: WalkForward(10, 3, -1), "`embargo_bars`"),
        (lambda: PurgedKFold(1), "`n_folds`"),
        (lambda: PurgedKFold(True), "`n_folds`"),
        (lambda: PurgedKFold(2.5), "`n_folds`"),  # type: ignore[arg-type]
        (lambda: PurgedKFold(5, -1), "`embargo_bars`"),
        (lambda: CombinatorialPurged(2), "`n_folds`"),
        (lambda: CombinatorialPurged(6, 1), "`n_test_folds`"),
        (lambda: CombinatorialPurged(6, 6), "below `n_folds` = 6"),
        (lambda: CombinatorialPurged(20, 10), "184,756 splits"),
        (lambda: list(PurgedKFold(2).split(0)), "`n_bars`"),
    ],
)
def test_numbers_out_of_range_are_refused(make: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()  # type: ignore[operator]
