"""From scores to target weights, the two methods of research; `backtest.construction` composes the rest around them.

Promises that row ``t`` of the weights depends on rows ``0..t`` of the scores alone, and that no row's sum of absolute
weights exceeds `gross`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from backtest.metrics import MIN_RANKED
from backtest.ranks import compute_row_ranks
from core.errors import ConfigurationError, DataError, ShapeError

FloatArray = npt.NDArray[np.float64]
Method = Literal["cross_section", "time_series"]

TRAILING_BARS = 252
MIN_TRAILING = 20


def scores_to_weights(
    scores: npt.ArrayLike,
    *,
    method: Method = "cross_section",
    holding_bars: int = 1,
    gross: float = 1.0,
) -> FloatArray:
    """Turn scores into target weights.

    Parameters
    ----------
    scores : array_like of shape (n_bars, n_assets)
        The higher, the more an asset is wanted, known at the close of its bar. NaN means no opinion: weight zero.
    method : {"cross_section", "time_series"}, default="cross_section"
        ``cross_section``: ranks of the bar, centred and scaled so that weights sum to zero and their absolute values to
        `gross`; ties share the mean of their ranks; a bar with fewer than three different scores gets no weights.
        ``time_series``: ``tanh(z)`` with the z-score of the score among the asset's own last 252 scores (at least 20, the
        current one counts), each asset with an opinion being given an equal part of `gross`. A score that says the same
        all the time holds nothing: being long for ever is no timing.
    holding_bars : int, default=1
        Average of the targets of the last `holding_bars` bars: that many overlapping portfolios, one begun each bar and
        each held that long [1]_. Bars before the first count as no position.
    gross : float, default=1.0
        Sum of absolute weights of one target; averaging lets opposite targets cancel, so that the result may hold less.

    Returns
    -------
    ndarray of shape (n_bars, n_assets), fractions of equity
        Row ``t`` uses scores of bars up to ``t``; `run_backtest` trades it at ``t+1``.

    Raises
    ------
    ShapeError
        If `scores` is not 2-D.
    DataError
        If a score is infinite.
    ConfigurationError
        If `method` is unknown, or `holding_bars` or `gross` is out of range.

    References
    ----------
    .. [1] Jegadeesh, N. & Titman, S. (1993). Returns to buying winners and selling losers. Journal of Finance, 48(1), 65-91.
       They weigh deciles equally; we weigh by rank.
    """
    targets = compute_targets(scores, method=method, gross=gross)
    return average_targets(targets, holding_bars)


def compute_targets(scores: npt.ArrayLike, *, method: Method = "cross_section", gross: float = 1.0) -> FloatArray:
    """Compute the target weights of each bar on its own, as `scores_to_weights` with ``holding_bars=1``.

    Raises
    ------
    ShapeError, DataError, ConfigurationError
        As `scores_to_weights`.
    """
    values = check_scores(scores)
    if not 0.0 < gross < np.inf:
        raise ConfigurationError(f"`gross` must be positive and finite, was {gross!r}.")
    if method == "cross_section":
        return _rank_targets(values, gross)
    if method == "time_series":
        return _trend_targets(values, gross)
    raise ConfigurationError(f'`method` must be "cross_section" or "time_series", was {method!r}.')


def check_scores(scores: npt.ArrayLike) -> FloatArray:
    """Return scores as an array.

    Raises
    ------
    ShapeError
        If they are not 2-D.
    DataError
        If one is infinite.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2:
        raise ShapeError(f"`scores` must have shape (n_bars, n_assets), was {values.shape}.")
    if np.isinf(values).any():
        raise DataError("`scores` must not be infinite; mark what is not known with NaN.")
    return values


def average_targets(targets: FloatArray, holding_bars: int) -> FloatArray:
    """Average the targets of the last `holding_bars` bars, bars before the first counting as no position.

    Parameters
    ----------
    targets : ndarray of shape (n_bars, n_assets), fractions of equity
    holding_bars : int

    Returns
    -------
    ndarray of shape (n_bars, n_assets), fractions of equity

    Raises
    ------
    ConfigurationError
        If `holding_bars` is not a whole number of at least 1.
    """
    if isinstance(holding_bars, bool) or not isinstance(holding_bars, int | np.integer) or holding_bars < 1:
        raise ConfigurationError(f"`holding_bars` must be a whole number of at least 1, was {holding_bars!r}.")
    if holding_bars == 1:
        return targets
    total = targets.copy()
    for age in range(1, min(int(holding_bars), len(targets))):  # a running sum would leave dust behind: every weight a trade
        total[age:] += targets[:-age]
    total /= holding_bars
    return total


def _rank_targets(scores: FloatArray, gross: float) -> FloatArray:
    ranks, distinct = compute_row_ranks(scores)
    ranked = np.isfinite(ranks)
    ranks -= 0.5 * (ranked.sum(axis=1, keepdims=True) + 1.0)
    ranks[~ranked | (distinct < MIN_RANKED)[:, None]] = 0.0
    total = np.abs(ranks).sum(axis=1, keepdims=True)
    np.divide(gross * ranks, total, out=ranks, where=total > 0.0)
    return ranks


def _trend_targets(scores: FloatArray, gross: float) -> FloatArray:
    known = np.isfinite(scores)
    values = np.where(known, scores, 0.0)
    count = _trailing_sum(known.astype(np.float64))
    divisor = np.maximum(count, 1.0)
    mean = _trailing_sum(values) / divisor
    power = _trailing_sum(values**2) / divisor
    variance = power - mean**2
    usable = known & (count >= MIN_TRAILING) & (variance > 1e-12 * power)
    strength = np.zeros(scores.shape)
    np.divide(values - mean, np.sqrt(np.where(usable, variance, 1.0)), out=strength, where=usable)
    members = np.maximum(usable.sum(axis=1, keepdims=True), 1)
    weights: FloatArray = np.tanh(strength) * (gross / members)
    return weights


def _trailing_sum(values: FloatArray) -> FloatArray:
    """Sum the last 252 rows, from sums within blocks of 252: nothing is subtracted, so nothing cancels."""
    n_bars, n_assets = values.shape
    padded = np.zeros((-(-n_bars // TRAILING_BARS) * TRAILING_BARS, n_assets))
    padded[:n_bars] = values
    blocks = padded.reshape(-1, TRAILING_BARS, n_assets)
    from_start = np.cumsum(blocks, axis=1).reshape(-1, n_assets)
    to_end = np.cumsum(blocks[:, ::-1], axis=1)[:, ::-1].reshape(-1, n_assets)
    total = from_start[:n_bars].copy()
    first = np.arange(TRAILING_BARS - 1, n_bars) - (TRAILING_BARS - 1)  # first row of each full window
    crosses = first[first % TRAILING_BARS != 0]
    total[crosses + TRAILING_BARS - 1] += to_end[crosses]
    return total
