"""Splits of time into what is learned on and what is judged on, for labels that look ahead.

Promises that no label of a training bar shares a bar with a test bar or its label, that the embargo is kept, and that every
splitter answers the same call: ``split(n_bars, horizon_end)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from core.errors import ConfigurationError, DataError, LookAheadError, ShapeError

IntArray = npt.NDArray[np.int64]

MAX_SPLITS = 10_000
"""Most splits that `CombinatorialPurged` makes; each of them is a model to fit."""


class Split(NamedTuple):
    """One training part and the test part it is judged on.

    Parameters
    ----------
    train, test : ndarray of shape (n_train,) and (n_test,), int
        Positions of bars, ascending.
    """

    train: IntArray
    test: IntArray


class Splitter(Protocol):
    """Whatever splits bars into training and test parts."""

    def split(self, n_bars: int, horizon_end: npt.ArrayLike | None = None) -> Iterator[Split]:
        """Yield the splits.

        Parameters
        ----------
        n_bars : int
        horizon_end : array_like of shape (n_bars,) or (n_bars, n_assets), int, optional
            Position of the bar whose close completes the label of a bar (and asset), as `features.labels.Labels` has it. A
            bar is left out of training when the label of any of its assets overlaps: what is learned from a bar is learned
            from all its assets. When None every label is complete at its own bar.

        Raises
        ------
        ConfigurationError
            If `n_bars` is not a whole number of at least 1.
        DataError
            If there are too few bars, or nothing is left to train on.
        ShapeError
            If `horizon_end` does not have a row for each bar, or holds no whole numbers.
        LookAheadError
            If a label ends before its own bar.
        """
        ...


@dataclass(frozen=True)
class WalkForward:
    """Split bars into training parts and the test parts that follow them.

    Parameters
    ----------
    min_train : int
        Bars of the first training part; of every training part when not anchored. Purging takes from these.
    test_bars : int
        Bars of each test part; the last one takes what is left.
    embargo_bars : int, default=0
        Bars between the end of training and the start of the test that neither uses for learning. The choice of a holding
        period in `run_walk_forward` looks at realised returns only and needs none.
    anchored : bool, default=True
        Training starts at the first bar and grows; otherwise it rolls with a fixed length.

    Raises
    ------
    ConfigurationError
        If a number is out of range.

    Notes
    -----
    Every training bar comes before every test bar of its split, and test parts follow each other without gap or overlap: each
    bar after the first `min_train` and the embargo is tested once.

    Examples
    --------
    >>> [(train.tolist(), test.tolist()) for train, test in WalkForward(4, 3, 1).split(10)]
    [([0, 1, 2, 3], [5, 6, 7]), ([0, 1, 2, 3, 4, 5, 6], [8, 9])]
    """

    min_train: int
    test_bars: int
    embargo_bars: int = 0
    anchored: bool = True

    def __post_init__(self) -> None:
        for name, low in (("min_train", 2), ("test_bars", 1), ("embargo_bars", 0)):
            _check_whole(name, getattr(self, name), low)

    def split(self, n_bars: int, horizon_end: npt.ArrayLike | None = None) -> Iterator[Split]:
        """Yield the splits in time order; see `Splitter.split`."""
        ends = _label_ends(n_bars, horizon_end)
        first = self.min_train + self.embargo_bars
        if n_bars <= first:
            raise DataError(f"walk-forward needs more than min_train + embargo_bars = {first} bars, there are {n_bars}.")
        for start in range(first, n_bars, self.test_bars):
            stop = start - self.embargo_bars
            allowed = np.zeros(n_bars, dtype=np.bool_)
            allowed[0 if self.anchored else stop - self.min_train : stop] = True
            yield _purged(allowed, np.arange(start, min(start + self.test_bars, n_bars)), ends, 0)


@dataclass(frozen=True)
class PurgedKFold:
    """Test each part of time once, and learn on what comes before and after it.

    Parameters
    ----------
    n_folds : int, default=5
        Folds of equal length; the first ones take one bar more when it does not come out even.
    embargo_bars : int, default=0
        Bars after the last label of a test part that are not learned from either: what happened in the test echoes in them.

    Raises
    ------
    ConfigurationError
        If there are fewer than two folds or the embargo is negative.

    Notes
    -----
    After Lopez de Prado [1]_, chapter 7. Intervals are closed: a training label that ends on the bar on which a test label
    begins overlaps it. The embargo is a number of bars, not a share of the sample.

    References
    ----------
    .. [1] Lopez de Prado, M. (2018). Advances in Financial Machine Learning. Wiley, 103-112.

    Examples
    --------
    >>> for train, test in PurgedKFold(3).split(9, horizon_end=[1, 2, 3, 4, 5, 6, 7, 8, 9]):
    ...     print(train.tolist(), test.tolist())
    [4, 5, 6, 7, 8] [0, 1, 2]
    [0, 1, 7, 8] [3, 4, 5]
    [0, 1, 2, 3, 4] [6, 7, 8]
    """

    n_folds: int = 5
    embargo_bars: int = 0

    def __post_init__(self) -> None:
        _check_whole("n_folds", self.n_folds, 2)
        _check_whole("embargo_bars", self.embargo_bars, 0)

    def split(self, n_bars: int, horizon_end: npt.ArrayLike | None = None) -> Iterator[Split]:
        """Yield a split for each fold, in time order; see `Splitter.split`."""
        ends = _label_ends(n_bars, horizon_end)
        if n_bars < self.n_folds:
            raise DataError(f"{self.n_folds} folds need at least as many bars, there are {n_bars}.")
        for test in np.array_split(np.arange(n_bars), self.n_folds):
            yield _purged(np.ones(n_bars, dtype=np.bool_), test, ends, self.embargo_bars)


@dataclass(frozen=True)
class CombinatorialPurged:
    """Test every combination of folds, so that many whole backtest paths can be put together instead of one.

    Parameters
    ----------
    n_folds : int, default=10
        Folds of ``n_bars // n_folds`` bars; the last one takes what is left.
    n_test_folds : int, default=2
        Folds tested together, at least 2: for one there is `PurgedKFold`.
    embargo_bars : int, default=0
        As in `PurgedKFold`, after each test part.

    Raises
    ------
    ConfigurationError
        If a number is out of range, or there were more than `MAX_SPLITS` splits.

    Notes
    -----
    Folds, combinations and paths are those of `skfolio.model_selection.CombinatorialPurgedCV`, after Lopez de Prado [1]_.
    It purges a fixed number of bars; we purge by when each label ends, which for labels of one length comes to the same.

    References
    ----------
    .. [1] Lopez de Prado, M. (2018). Advances in Financial Machine Learning. Wiley, 161-168.

    Examples
    --------
    Fit once for each split, then read a path off: ``predictions[splitter.paths(n_bars)[p], np.arange(n_bars)]`` with
    predictions of shape (n_splits, n_bars).
    """

    n_folds: int = 10
    n_test_folds: int = 2
    embargo_bars: int = 0

    def __post_init__(self) -> None:
        _check_whole("n_folds", self.n_folds, 3)
        _check_whole("n_test_folds", self.n_test_folds, 2)
        _check_whole("embargo_bars", self.embargo_bars, 0)
        if self.n_test_folds >= self.n_folds:
            raise ConfigurationError(
                f"`n_test_folds` must be below `n_folds` = {self.n_folds}, was {self.n_test_folds}: "
                "nothing would be left to learn on."
            )
        if self.n_splits > MAX_SPLITS:
            raise ConfigurationError(
                f"{self.n_test_folds} of {self.n_folds} folds make {self.n_splits:,} splits, more than {MAX_SPLITS:,}: "
                "take fewer folds."
            )

    @property
    def n_splits(self) -> int:
        """Number of splits."""
        return math.comb(self.n_folds, self.n_test_folds)

    @property
    def n_paths(self) -> int:
        """Number of paths, which is how often every bar is tested."""
        return math.comb(self.n_folds - 1, self.n_test_folds - 1)

    def split(self, n_bars: int, horizon_end: npt.ArrayLike | None = None) -> Iterator[Split]:
        """Yield a split for each combination of test folds, in lexicographic order; see `Splitter.split`."""
        ends = _label_ends(n_bars, horizon_end)
        fold = self._fold_of(n_bars)
        for tested in self._combinations().test_set_index:
            test = np.flatnonzero(np.isin(fold, tested))
            yield _purged(np.ones(n_bars, dtype=np.bool_), test, ends, self.embargo_bars)

    def paths(self, n_bars: int) -> IntArray:
        """Say which split tests which bar on which path.

        Returns
        -------
        ndarray of shape (n_paths, n_bars), int
            Position of a split in the order of `split`. Every bar is on every path once, and of the splits that test a bar
            each is on one path.

        Raises
        ------
        ConfigurationError, DataError
            As `split`.
        """
        _check_whole("n_bars", n_bars, 1)
        on_paths = self._combinations().recombined_paths.T
        paths: IntArray = np.ascontiguousarray(on_paths[:, self._fold_of(n_bars)], dtype=np.int64)
        return paths

    def _fold_of(self, n_bars: int) -> IntArray:
        if n_bars < 2 * self.n_folds:
            raise DataError(f"{self.n_folds} folds need at least {2 * self.n_folds} bars, there are {n_bars}.")
        return np.minimum(np.arange(n_bars) // (n_bars // self.n_folds), self.n_folds - 1)

    def _combinations(self) -> Any:
        from skfolio.model_selection import CombinatorialPurgedCV  # takes two seconds

        return CombinatorialPurgedCV(n_folds=self.n_folds, n_test_folds=self.n_test_folds)


def _label_ends(n_bars: int, horizon_end: npt.ArrayLike | None) -> IntArray:
    """Return the last bar of any label of each bar; the shape (n_bars,) is checked here for all splitters."""
    _check_whole("n_bars", n_bars, 1)
    own = np.arange(n_bars, dtype=np.int64)
    if horizon_end is None:
        return own
    ends = np.asarray(horizon_end)
    if ends.ndim not in (1, 2) or len(ends) != n_bars or not ends.size or not np.issubdtype(ends.dtype, np.integer):
        raise ShapeError(
            f"`horizon_end` must be whole numbers of shape (n_bars,) or (n_bars, n_assets) with n_bars = {n_bars}, "
            f"was {ends.dtype} of shape {ends.shape}."
        )
    latest: IntArray = ends.reshape(n_bars, -1).max(axis=1).astype(np.int64)
    early = np.flatnonzero(ends.reshape(n_bars, -1).min(axis=1) < own)
    if len(early):
        raise LookAheadError(f"`horizon_end` must not come before its own bar, the label of bar {early[0]} does.")
    return latest


def _purged(allowed: npt.NDArray[np.bool_], test: IntArray, ends: IntArray, embargo: int) -> Split:
    """Keep the allowed bars whose labels meet no test label, and that do not follow one within the embargo."""
    n_bars = len(ends)
    begun = np.zeros(n_bars + 1, dtype=np.int64)
    begun[test] += 1
    np.subtract.at(begun, np.minimum(ends[test], n_bars - 1) + 1, 1)
    covered = np.concatenate(([0], np.cumsum(np.cumsum(begun[:-1]) > 0)))  # covered[t]: bars before t that a test holds
    bar = np.arange(n_bars)
    overlaps = covered[np.minimum(ends, n_bars - 1) + 1] > covered[bar]
    echoes = covered[bar] > covered[np.maximum(bar - embargo, 0)]
    train = np.flatnonzero(allowed & ~overlaps & ~echoes)
    if not len(train):
        raise DataError(
            f"nothing is left to learn on beside the test bars {test[0]} to {test[-1]} of {n_bars}: "
            "take shorter labels, a shorter embargo or more bars."
        )
    return Split(train, test)


def _check_whole(name: str, value: object, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
        raise ConfigurationError(f"`{name}` must be a whole number of at least {low}, was {value!r}.")
