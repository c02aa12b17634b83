"""Walk-forward splits: learn on the past, judge on what follows.

Promises that every training bar comes before every test bar of its fold, with the embargo between them, and that the
test folds follow each other without gap or overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from core.errors import ConfigurationError, DataError


@dataclass(frozen=True)
class WalkForward:
    """Split bars into training parts and the test parts that follow them.

    Parameters
    ----------
    min_train : int
        Bars of the first training part; of every training part when not anchored.
    test_bars : int
        Bars of each test part; the last one takes what is left.
    embargo_bars : int, default=0
        Bars between the end of training and the start of the test that neither uses for learning: at least the horizon of
        a label, where labels look ahead. The choice of a holding period in `run_walk_forward` looks at realised returns
        only and needs none.
    anchored : bool, default=True
        Training starts at the first bar and grows; otherwise it rolls with a fixed length.

    Raises
    ------
    ConfigurationError
        If a number is out of range.

    Examples
    --------
    >>> list(WalkForward(4, 3, 1).split(10))
    [(slice(0, 4, None), slice(5, 8, None)), (slice(0, 7, None), slice(8, 10, None))]
    """

    min_train: int
    test_bars: int
    embargo_bars: int = 0
    anchored: bool = True

    def __post_init__(self) -> None:
        for name, low in (("min_train", 2), ("test_bars", 1), ("embargo_bars", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ConfigurationError(f"`{name}` must be a whole number of at least {low}, was {value!r}.")

    def split(self, n_bars: int) -> Iterator[tuple[slice, slice]]:
        """Yield ``(train, test)`` as slices of positions.

        Raises
        ------
        DataError
            If there is no bar left to test on.
        """
        first = self.min_train + self.embargo_bars
        if n_bars <= first:
            raise DataError(f"walk-forward needs more than min_train + embargo_bars = {first} bars, there are {n_bars}.")
        for start in range(first, n_bars, self.test_bars):
            stop = start - self.embargo_bars
            yield slice(0 if self.anchored else stop - self.min_train, stop), slice(start, min(start + self.test_bars, n_bars))
