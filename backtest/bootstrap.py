"""The stationary bootstrap, as positions in time, or as counts where order does not matter: a mean is then a matrix product.

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


def _check_block(block_length: float) -> None:
    if not 1.0 <= block_length < math.inf:
        raise ValueError(f"`block_length` must be at least 1 and finite, was {block_length!r}.")
