"""The nearest past windows of each window, by cosine.

Hides blocks of matrix products and threads. Promises an exact search, and that the answer is the same bits whatever the blocks,
the threads, and the windows that come later.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from core.errors import DataError, ShapeError

IntArray = npt.NDArray[np.int64]

_BLOCK_CELLS = 4_000_000  # similarities a thread holds at a time: 16 MB
_BLOCK_ROWS = 2_048
_BLAS = threading.Lock()


def find_analogues(
    vectors: npt.ArrayLike,
    end: npt.ArrayLike,
    *,
    k: int,
    reach: int,
    usable: npt.ArrayLike | None = None,
    queries: npt.ArrayLike | None = None,
    max_age: int | None = None,
    spacing: int = 1,
    threads: int | None = None,
) -> tuple[IntArray, IntArray]:
    """Find for each window the k nearest by cosine among those whose label had ended before it ends.

    Parameters
    ----------
    vectors : array-like of shape (n_windows, n_dims)
        Embeddings of any length; a row with NaN is left out.
    end : array-like of shape (n_windows,), int
        Bar at whose close each window is known.
    k : int
        Neighbours of each, at least 1.
    reach : int
        Bars from the end of a window to the end of its label, at least 1. A window that ends at bar ``s`` is eligible for
        one that ends at ``t`` if ``s + reach < t``.
    usable : array-like of shape (n_windows,), bool, optional
        Which windows may be neighbours; by default all.
    queries : array-like of int, optional
        Positions of the windows to find neighbours of; by default all.
    max_age : int, optional
        Also ``s >= t - max_age``; by default there is no oldest.
    spacing : int, default=1
        Also ``t - s`` must be a multiple of it: with a spacing of the horizon, labels of one symbol do not overlap.
    threads : int, optional
        By default one a processor.

    Returns
    -------
    neighbours : ndarray of shape (n_queries, k), int
        Nearest first, of equally near ones the latest, then the one that stands first; -1 where fewer are eligible.
    n_eligible : ndarray of shape (n_queries,), int

    Raises
    ------
    DataError
        If `k`, `reach`, `spacing`, `max_age` or `threads` is below 1, or a query is no position.
    ShapeError
        If the arrays do not fit together.

    Notes
    -----
    Components are rounded to multiples of about 1/4,000, so that every product and sum of a similarity is a whole number that
    fits into the 24 bits of a float32. Hence similarities are the same whatever the order of summation, and the past does not
    change when bars are added. Rounding moves a cosine by about 0.0001.

    A thread holds at most 4,000,000 similarities and the rows they are made of.
    """
    unit, ends, may = _checked(vectors, end, usable)
    for name, value in (("k", k), ("reach", reach), ("spacing", spacing), ("max_age", max_age), ("threads", threads)):
        if value is not None and value < 1:
            raise DataError(f"`{name}` must be at least 1, was {value}.")
    asked = np.arange(len(ends)) if queries is None else np.asarray(queries, dtype=np.int64)
    if asked.ndim != 1 or (asked.size and not (asked.min() >= 0 and asked.max() < len(ends))):
        raise DataError(f"`queries` must be positions in 0..{len(ends) - 1}; there are {len(ends)} windows.")
    neighbours = np.full((len(asked), k), -1, dtype=np.int64)
    n_eligible = np.zeros(len(asked), dtype=np.int64)

    def fill(block: _Block) -> None:
        found, counts = block.search(unit, ends, k)
        n_eligible[block.places] = counts
        neighbours[block.places] = found

    known: npt.NDArray[np.bool_] = np.logical_or.reduce(unit, axis=1)
    blocks = _blocks(ends, asked, known & may, known, reach=reach, max_age=max_age, spacing=spacing)
    workers = threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with one_blas_thread(), ThreadPoolExecutor(workers, thread_name_prefix="analogues") as pool:
        for _ in pool.map(fill, blocks):
            pass
    return neighbours, n_eligible


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let matrix products use one thread, for one caller at a time: the limit is the whole process's."""
    with _BLAS, threadpool_limits(1, user_api="blas"):
        yield


def round_vectors(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.int16]:
    """Scale rows to one length and round them, so that their products add up exactly in float32.

    Parameters
    ----------
    vectors : ndarray of shape (n, n_dims)

    Returns
    -------
    ndarray of shape (n, n_dims), int16
        Zeros for a row of zeros, or with NaN or infinity.
    """
    scale = math.floor(4096.0 - math.sqrt(vectors.shape[1]) / 2.0) - 1
    out = np.zeros(vectors.shape, dtype=np.int16)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        part = np.asarray(vectors[start : start + _BLOCK_ROWS], dtype=np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            length = np.sqrt((part * part).sum(axis=1, keepdims=True))
            good = (length > 0.0) & (length < np.inf)
            out[start : start + _BLOCK_ROWS] = np.rint(np.where(good, part * (scale / np.where(good, length, 1.0)), 0.0))
    return out


def _checked(
    vectors: npt.ArrayLike, end: npt.ArrayLike, usable: npt.ArrayLike | None
) -> tuple[npt.NDArray[np.int16], IntArray, npt.NDArray[np.bool_]]:
    rows, ends = np.asarray(vectors), np.asarray(end, dtype=np.int64)
    may = np.ones(len(ends), dtype=np.bool_) if usable is None else np.asarray(usable, dtype=np.bool_)
    if rows.ndim != 2 or ends.shape != (len(rows),) or may.shape != ends.shape:
        raise ShapeError(
            "`vectors` must have shape (n_windows, n_dims), `end` and `usable` (n_windows,); were "
            f"{rows.shape}, {ends.shape} and {may.shape}."
        )
    return (rows if rows.dtype == np.int16 else round_vectors(rows)), ends, may


@dataclass(frozen=True, kw_only=True, eq=False)
class _Block:
    """Windows that ask, by their places among the queries, and those that they choose from, ordered by end."""

    places: IntArray
    windows: IntArray
    candidates: IntArray
    reach: int
    max_age: int | None

    def search(self, unit: npt.NDArray[np.int16], ends: IntArray, k: int) -> tuple[IntArray, IntArray]:
        theirs, mine = ends[self.candidates], ends[self.windows]
        stop = np.searchsorted(theirs, mine - self.reach, side="left")
        first = np.zeros_like(stop) if self.max_age is None else np.searchsorted(theirs, mine - self.max_age, side="left")
        counts = np.maximum(stop - first, 0)
        found = np.full((len(mine), k), -1, dtype=np.int64)
        enough = np.flatnonzero(counts >= k)
        if not len(enough):
            return found, counts
        low, high = int(first[enough].min()), int(stop[enough].max())
        near = unit[self.windows[enough]].astype(np.float32) @ unit[self.candidates[low:high]].astype(np.float32).T
        for row, place in enumerate(enough):
            own = slice(int(first[place]), int(stop[place]))
            similar = near[row, own.start - low : own.stop - low]
            limit = np.partition(similar, len(similar) - k)[len(similar) - k]
            chosen = np.flatnonzero(similar >= limit)
            order = np.lexsort((chosen, -theirs[own][chosen], -similar[chosen]))[:k]
            found[place] = self.candidates[own][chosen[order]]
        return found, counts


def _blocks(
    ends: IntArray,
    asked: IntArray,
    eligible: npt.NDArray[np.bool_],
    known: npt.NDArray[np.bool_],
    *,
    reach: int,
    max_age: int | None,
    spacing: int,
) -> Iterator[_Block]:
    """Cut the queries into blocks of neighbouring ends, of one remainder by the spacing each."""
    everyone = np.flatnonzero(eligible)
    everyone = everyone[np.argsort(ends[everyone], kind="stable")]
    places = np.flatnonzero(known[asked])
    places = places[np.argsort(ends[asked[places]], kind="stable")]
    for remainder in range(spacing):
        candidates = everyone[ends[everyone] % spacing == remainder]
        mine = places[ends[asked[places]] % spacing == remainder]
        theirs = ends[candidates]
        start = 0
        while start < len(mine):
            first_end = ends[asked[mine[start]]]
            low = 0 if max_age is None else int(np.searchsorted(theirs, first_end - max_age, side="left"))
            stop = min(start + _BLOCK_ROWS, len(mine))
            while True:
                high = int(np.searchsorted(theirs, ends[asked[mine[stop - 1]]] - reach, side="left"))
                if stop - start <= 16 or (stop - start) * (high - low) <= _BLOCK_CELLS:
                    break
                stop = start + max(16, (stop - start) // 2)
            yield _Block(
                places=mine[start:stop],
                windows=asked[mine[start:stop]],
                candidates=candidates[low : max(high, low)],
                reach=reach,
                max_age=max_age,
            )
            start = stop
