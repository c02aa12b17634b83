"""Average ranks within each row, the one sort that weights and rank correlations share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

FloatArray = npt.NDArray[np.float64]


COUNTED_COLUMNS = 128


@njit(cache=True, nogil=True)
def _rank_rows(values, ranks, distinct):  # type: ignore[no-untyped-def]
    n_rows, n_columns = values.shape
    order = np.empty(n_columns, np.int64)
    for i in range(n_rows):
        row = values[i]
        if n_columns <= COUNTED_COLUMNS:  # short rows: comparing all pairs has no branches and beats a sort
            for j in range(n_columns):
                value = row[j]
                below = 0
                equal = 0
                earlier = 0
                for k in range(n_columns):
                    below += row[k] < value
                    equal += row[k] == value
                for k in range(j):
                    earlier += row[k] == value
                ranks[i, j] = below + 0.5 * (equal + 1) if equal else np.nan
                distinct[i] += equal > 0 and earlier == 0
            continue
        count = 0
        for j in range(n_columns):
            ranks[i, j] = np.nan
            if row[j] == row[j]:
                order[count] = j
                count += 1
        gap = 1
        while gap < count // 9:
            gap = 3 * gap + 1
        while gap > 0:  # shell sort: small to compile
            for j in range(gap, count):
                held = order[j]
                k = j
                while k >= gap and row[order[k - gap]] > row[held]:
                    order[k] = order[k - gap]
                    k -= gap
                order[k] = held
            gap //= 3
        first = 0
        while first < count:
            last = first
            while last + 1 < count and row[order[last + 1]] == row[order[first]]:
                last += 1
            for k in range(first, last + 1):
                ranks[i, order[k]] = 0.5 * (first + last) + 1.0
            distinct[i] += 1
            first = last + 1


def compute_row_ranks(values: npt.ArrayLike) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Rank every row on its own, ties sharing the mean of their ranks.

    Parameters
    ----------
    values : array_like of shape (n_rows, n_columns)
        NaN is left out of the ranking.

    Returns
    -------
    ranks : ndarray of shape (n_rows, n_columns)
        Ranks from 1; NaN where the value is NaN.
    distinct : ndarray of int64 of shape (n_rows,)
        Number of different finite values in the row.
    """
    frozen = np.ascontiguousarray(values, dtype=np.float64).view()
    frozen.flags.writeable = False  # one array type means one compilation
    ranks = np.empty(frozen.shape)
    distinct = np.zeros(frozen.shape[0], np.int64)
    _rank_rows(frozen, ranks, distinct)
    return ranks, distinct
