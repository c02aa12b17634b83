"""The stationary bootstrap: resamples as positions in time, or as counts where order does not matter, and intervals from them.

Promises that memory stays bounded, whatever the number of replications.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Seed = int | np.random.Generator

CELLS = 2_000_000
"""Floats that a loop over chunks holds at once."""


def draw_bootstrap_positions(n_obs: int, n_bootstrap: int, block_length: float, seed: Seed) -> Iterator[IntArray]:
    """Draw resamples of the stationary bootstrap, in the order of the resampled series.

    Parameters
    ----------
    n_obs : int
        Length of the series, and of each resample.
    n_bootstrap : int
        Number of resamples.
    block_length : float
        Mean length of the blocks, which are geometrically long and wrap around the end.
    seed : int or numpy.random.Generator

    Yields
    ------
    ndarray of shape (n_draws, n_obs), int
        Which observation stands where in each of the next resamples.

    Raises
    ------
    ValueError
        If `n_bootstrap` or `block_length` is below 1.

    References
    ----------
    .. [1] Politis, D. N. & Romano, J. P. (1994). The stationary bootstrap. JASA, 89(428), 1303-1313.
    """
    if n_bootstrap < 1:
        raise ValueError(f"`n_bootstrap` must be at least 1, was {n_bootstrap!r}.")
    _check_block(block_length)
    rng = np.random.default_rng(seed)
    position = np.arange(n_obs)
    chunk = max(1, CELLS // n_obs)
    for start in range(0, n_bootstrap, chunk):
        size = (min(chunk, n_bootstrap - start), n_obs)
        begins = rng.random(size) < 1.0 / block_length
        begins[:, 0] = True
        origin = np.maximum.accumulate(np.where(begins, position, 0), axis=1)
        first = np.take_along_axis(rng.integers(n_obs, size=size), origin, axis=1)
        yield (first + position - origin) % n_obs


def draw_bootstrap_counts(n_obs: int, n_bootstrap: int, block_length: float, seed: Seed) -> Iterator[FloatArray]:
    """Count how often each observation is in each resample of `draw_bootstrap_positions`.

    Yields
    ------
    ndarray of shape (n_draws, n_obs)
        Counts of the next resamples; every row sums to `n_obs`.

    Raises
    ------
    ValueError
        If `n_bootstrap` or `block_length` is below 1.
    """
    for positions in draw_bootstrap_positions(n_obs, n_bootstrap, block_length, seed):
        drawn = positions + np.arange(len(positions))[:, None] * n_obs
        yield np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)


def compute_long_run_deviation(values: FloatArray, block_length: float) -> FloatArray:
    """Compute the standard deviation of ``sqrt(n)`` times the mean under the stationary bootstrap, exactly.

    Parameters
    ----------
    values : ndarray of shape (n_obs, n_series)
    block_length : float
        Mean length of the blocks.

    Returns
    -------
    ndarray of shape (n_series,)
        ``sqrt(c_0 + 2 sum_i ((1 - i/n) q^i + i/n q^(n-i)) c_i)`` with the autocovariances ``c_i`` and
        ``q = 1 - 1 / block_length``.

    Raises
    ------
    ValueError
        If `block_length` is below 1.

    References
    ----------
    .. [1] Politis, D. N. & Romano, J. P. (1994). The stationary bootstrap. JASA, 89(428), 1303-1313, lemma 1.
    """
    _check_block(block_length)
    n_obs = len(values)
    centred = values - values.mean(axis=0)
    spectrum = np.abs(np.fft.rfft(centred, 2 * n_obs, axis=0)) ** 2
    autocovariance = np.fft.irfft(spectrum, 2 * n_obs, axis=0)[:n_obs] / n_obs
    lag = np.arange(1, n_obs)
    stay = 1.0 - 1.0 / block_length
    weight = (1.0 - lag / n_obs) * stay**lag + lag / n_obs * stay ** (n_obs - lag)
    result: FloatArray = np.sqrt(autocovariance[0] + 2.0 * weight @ autocovariance[1:])
    return result


def stationary_bootstrap_sharpe_ci(
    returns: npt.ArrayLike,
    *,
    n_bootstrap: int = 1000,
    block_length: float,
    seed: Seed,
    confidence: float = 0.95,
    periods_per_year: int = 252,
) -> tuple[float, float]:
    """Compute a percentile interval of the annualised Sharpe ratio that respects serial dependence.

    Parameters
    ----------
    returns : array_like of shape (n_obs,)
    n_bootstrap : int, default=1000
    block_length : float
        Mean length of the blocks, at least 1.
    seed : int or numpy.random.Generator
    confidence : float, default=0.95
    periods_per_year : int, default=252

    Returns
    -------
    low, high : float

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than ten values, has no variance or is not finite, or a number is out of range.

    References
    ----------
    .. [1] Politis, D. N. & Romano, J. P. (1994). The stationary bootstrap. JASA, 89(428), 1303-1313.
    """
    values = _check_series(returns, confidence)
    if np.ptp(values) <= 1e-12 * np.abs(values).max():
        raise ValueError("`returns` must have variance, all values were equal.")
    n_obs = len(values)
    centre = values.mean()
    centred = values - centre
    draws = []
    for counts in draw_bootstrap_counts(n_obs, n_bootstrap, block_length, seed):
        mean = counts @ centred / n_obs
        variance = (counts @ centred**2 - n_obs * mean**2) / (n_obs - 1)
        draws.append((mean + centre) / np.sqrt(variance))
    tail = 0.5 * (1.0 - confidence)
    low, high = np.quantile(np.concatenate(draws), (tail, 1.0 - tail)) * math.sqrt(periods_per_year)
    return float(low), float(high)


def stationary_bootstrap_drawdown_ci(
    returns: npt.ArrayLike, *, n_bootstrap: int = 1000, block_length: float, seed: Seed, confidence: float = 0.95
) -> tuple[float, float]:
    """Compute between which drawdowns another history of the same kind and length would have had its deepest.

    Parameters
    ----------
    returns : array_like of shape (n_obs,)
        Simple returns per period, as fractions.
    n_bootstrap, block_length, seed, confidence
        As in `stationary_bootstrap_sharpe_ci`.

    Returns
    -------
    low, high : float
        Fractions, zero or negative; `low` is the deeper one (-0.4 is a loss of two fifths from a high).

    Raises
    ------
    ValueError
        If `returns` is not 1-D, has fewer than ten values or is not finite, or a number is out of range.

    Notes
    -----
    Percentiles of the deepest drawdown over resampled histories. The drawdown that happened is one draw among them, chosen by
    nobody; that of a strategy chosen for its shallow drawdown is flattered, and so is this interval.

    References
    ----------
    .. [1] Politis, D. N. & Romano, J. P. (1994). The stationary bootstrap. JASA, 89(428), 1303-1313.
    """
    values = _check_series(returns, confidence)
    deepest = []
    for positions in draw_bootstrap_positions(len(values), n_bootstrap, block_length, seed):
        wealth = np.cumprod(1.0 + values[positions], axis=1)
        deepest.append((wealth / np.maximum(np.maximum.accumulate(wealth, axis=1), 1.0)).min(axis=1) - 1.0)
    tail = 0.5 * (1.0 - confidence)
    low, high = np.quantile(np.minimum(np.concatenate(deepest), 0.0), (tail, 1.0 - tail))
    return float(low), float(high)


def _check_series(returns: npt.ArrayLike, confidence: float) -> FloatArray:
    values = np.asarray(returns, dtype=np.float64)
    if values.ndim != 1 or len(values) < 10 or not np.isfinite(values).all():
        raise ValueError(f"`returns` must be 1-D, finite, with at least 10 values, had shape {values.shape}.")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"`confidence` must be in (0, 1), was {confidence!r}.")
    return values


def _check_block(block_length: float) -> None:
    if not 1.0 <= block_length < math.inf:
        raise ValueError(f"`block_length` must be at least 1 and finite, was {block_length!r}.")
