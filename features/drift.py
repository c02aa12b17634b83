"""How far apart two populations are, and whether by more than chance.

Promises p-values that take neighbouring bars for what they are, alike: whole stretches of time change sides, not single rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.errors import DataError, ShapeError

IntArray = npt.NDArray[np.int64]

MAX_ROWS = 4_000
"""Rows of a population that a distance is measured on; of more, so many are drawn."""


@dataclass(frozen=True, kw_only=True)
class DriftTest:
    """Say how far two populations are apart.

    Parameters
    ----------
    value : float
        The distance, at least 0.
    p_value : float
        Share of the arrangements of stretches that are at least as far apart, the observed one included.
    n_reference, n_current : int
        Rows of each.
    n_blocks : tuple of int
        Stretches of each; with few of the current one the p-value cannot be small.
    """

    value: float
    p_value: float
    n_reference: int
    n_current: int
    n_blocks: tuple[int, int]


def compare_embeddings(
    reference: npt.ArrayLike,
    current: npt.ArrayLike,
    *,
    reference_bar: npt.ArrayLike,
    current_bar: npt.ArrayLike,
    block: int,
    rng: np.random.Generator,
    n_permutations: int = 999,
) -> DriftTest:
    """Compare two populations of vectors by their energy distance.

    Parameters
    ----------
    reference, current : array-like of shape (n, n_dims)
        Embeddings.
    reference_bar, current_bar : array-like of shape (n,), int
        Bar of each, which says what stands together.
    block : int
        Bars of a stretch; at least as long as a window, so that windows of two stretches share little.
    rng : numpy.random.Generator
        Draws rows and arrangements.
    n_permutations : int, default=999
        Arrangements to try.

    Returns
    -------
    DriftTest

    Raises
    ------
    DataError
        If a population has no row or one that is not finite, or `block` or `n_permutations` is below 1.
    ShapeError
        If the arrays do not fit together.

    Notes
    -----
    With Euclidean distances [1]_,

    .. math:: 2 E|X - Y| - E|X - X'| - E|Y - Y'|

    as the V-statistic. The test is theirs with stretches for rows: rows of overlapping windows cannot be exchanged one by one.
    The p-value counts the observed arrangement in [2]_.

    References
    ----------
    .. [1] Szekely, G. J. and Rizzo, M. L. (2013). Energy statistics: a class of statistics based on distances. Journal of
       Statistical Planning and Inference, 143(8), 1249-1272.
    .. [2] Phipson, B. and Smyth, G. K. (2010). Permutation P-values should never be zero. Statistical Applications in Genetics
       and Molecular Biology, 9(1), article 39.
    """
    sides = []
    for name, rows, bars in (("reference", reference, reference_bar), ("current", current, current_bar)):
        x, at = np.asarray(rows, dtype=np.float64), np.asarray(bars, dtype=np.int64)
        if x.ndim != 2 or at.shape != (len(x),):
            raise ShapeError(f"`{name}` must have shape (n, n_dims) and its bars (n,), were {x.shape} and {at.shape}.")
        if not len(x) or not np.isfinite(x).all():
            raise DataError(f"`{name}` must have rows, all finite; it has {len(x)}. Leave windows without a vector out.")
        drawn = np.sort(rng.choice(len(x), MAX_ROWS, replace=False)) if len(x) > MAX_ROWS else np.arange(len(x))
        sides.append((x[drawn], at[drawn]))
    (x, x_bar), (y, y_bar) = sides
    if x.shape[1] != y.shape[1]:
        raise ShapeError(f"both populations must have vectors of one width, had {x.shape[1]} and {y.shape[1]}.")
    blocks, n_blocks = _number_blocks(x_bar, y_bar, block)
    rows = np.concatenate([x, y])
    order = np.argsort(blocks, kind="stable")
    rows, blocks = rows[order], blocks[order]
    starts = np.flatnonzero(np.diff(blocks, prepend=-1))
    squares = (rows * rows).sum(axis=1)
    sums = np.empty((len(starts), len(starts)))
    for place, start in enumerate(starts):
        part = slice(start, starts[place + 1] if place + 1 < len(starts) else len(rows))
        square = squares[part, None] + squares - 2.0 * (rows[part] @ rows.T)
        sums[place] = np.add.reduceat(np.sqrt(np.maximum(square, 0.0)).sum(axis=0), starts)
    counts = np.diff(np.append(starts, len(rows))).astype(np.float64)

    def distance(is_current: npt.NDArray[np.bool_]) -> float:
        weight = np.where(is_current, counts[is_current].sum(), -counts[~is_current].sum())
        return float(-(1.0 / weight) @ sums @ (1.0 / weight))

    return _permute(distance, n_blocks, len(x), len(y), rng, n_permutations)


def compare_feature(
    reference: npt.ArrayLike,
    current: npt.ArrayLike,
    *,
    reference_bar: npt.ArrayLike,
    current_bar: npt.ArrayLike,
    block: int,
    rng: np.random.Generator,
    n_permutations: int = 999,
    n_bins: int = 10,
) -> DriftTest:
    r"""Compare two populations of numbers by the population stability index.

    Parameters
    ----------
    reference, current : array-like of shape (n,)
        Values of a feature; NaN is left out.
    reference_bar, current_bar, block, rng, n_permutations
        As in `compare_embeddings`.
    n_bins : int, default=10
        Bins, of equally many reference values each, fewer where values are equal.

    Returns
    -------
    DriftTest
        Its value is the index; above 0.25 is usually called a shift, with no regard to how many independent values there are,
        for which the p-value is.

    Raises
    ------
    DataError, ShapeError
        As `compare_embeddings`.

    Notes
    -----
    :math:`\sum_b (q_b - p_b) \ln(q_b / p_b)` over bins, p and q the shares of either population [1]_, Jeffreys' divergence
    of the two histograms. Half a value is added to each bin, so that empty ones count without being infinite.

    References
    ----------
    .. [1] Siddiqi, N. (2006). Credit Risk Scorecards. Wiley, chapter 9.
    """
    sides = []
    for name, values, bars in (("reference", reference, reference_bar), ("current", current, current_bar)):
        x, at = np.asarray(values, dtype=np.float64), np.asarray(bars, dtype=np.int64)
        if x.ndim != 1 or x.shape != at.shape:
            raise ShapeError(f"`{name}` and its bars must have shape (n,), were {x.shape} and {at.shape}.")
        known = np.isfinite(x)
        if not known.any():
            raise DataError(f"`{name}` must have a value that is finite; it has {len(x)} values, none of which is.")
        sides.append((x[known], at[known]))
    (x, x_bar), (y, y_bar) = sides
    if n_bins < 2:
        raise DataError(f"`n_bins` must be at least 2, was {n_bins}.")
    edges = np.unique(np.quantile(x, np.arange(1, n_bins) / n_bins))
    blocks, n_blocks = _number_blocks(x_bar, y_bar, block)
    bins = np.searchsorted(edges, np.concatenate([x, y]), side="right")
    counts = np.zeros((sum(n_blocks), len(edges) + 1))
    np.add.at(counts, (blocks, bins), 1.0)
    whole = counts.sum(axis=0)

    def index(is_current: npt.NDArray[np.bool_]) -> float:
        q = counts[is_current].sum(axis=0) + 0.5
        p = whole - q + 1.0
        p, q = p / p.sum(), q / q.sum()
        return float(((q - p) * np.log(q / p)).sum())

    return _permute(index, n_blocks, len(x), len(y), rng, n_permutations)


def _number_blocks(reference_bar: IntArray, current_bar: IntArray, block: int) -> tuple[IntArray, tuple[int, int]]:
    """Number the stretches from 0 on, those of the reference first."""
    if block < 1:
        raise DataError(f"`block` must be at least 1 bar, was {block}.")
    before, reference = np.unique(reference_bar // block, return_inverse=True)
    after, current = np.unique(current_bar // block, return_inverse=True)
    return np.concatenate([reference, len(before) + current]).astype(np.int64), (len(before), len(after))


def _permute(
    measure: Callable[[npt.NDArray[np.bool_]], float],
    n_blocks: tuple[int, int],
    n_reference: int,
    n_current: int,
    rng: np.random.Generator,
    n_permutations: int,
) -> DriftTest:
    if n_permutations < 1:
        raise DataError(f"`n_permutations` must be at least 1, was {n_permutations}.")
    is_current = np.arange(sum(n_blocks)) >= n_blocks[0]
    observed = measure(is_current)
    slack = 1e-12 * max(abs(observed), 1.0)  # an arrangement that is the observed one may differ by rounding
    as_far = sum(measure(rng.permutation(is_current)) >= observed - slack for _ in range(n_permutations))
    return DriftTest(
        value=max(observed, 0.0) if math.isfinite(observed) else observed,
        p_value=(1 + as_far) / (1 + n_permutations),
        n_reference=n_reference,
        n_current=n_current,
        n_blocks=n_blocks,
    )
