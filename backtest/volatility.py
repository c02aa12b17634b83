"""Trailing volatility of assets, as it was known at each close."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from core.errors import ConfigurationError

FloatArray = npt.NDArray[np.float64]


@njit(cache=True, nogil=True)
def _slide(returns, bars, minimum, volatility):  # type: ignore[no-untyped-def]
    """Take every window anew, in two passes: a running sum of squares would cancel, and remember what has left it."""
    n_bars, n_assets = returns.shape
    for t in range(n_bars):
        count = np.zeros(n_assets)
        total = np.zeros(n_assets)
        power = np.zeros(n_assets)
        first = max(t - bars + 1, 0)
        for s in range(first, t + 1):
            for j in range(n_assets):
                value = returns[s, j]
                count[j] += 1.0 if value == value else 0.0
                total[j] += value if value == value else 0.0
        for s in range(first, t + 1):
            for j in range(n_assets):
                apart = returns[s, j] - total[j] / max(count[j], 1.0)
                power[j] += apart * apart if apart == apart else 0.0
        for j in range(n_assets):
            volatility[t, j] = np.sqrt(power[j] / (count[j] - 1.0)) if count[j] >= minimum else np.nan


def compute_trailing_volatility(returns: FloatArray, *, bars: int, minimum: int) -> FloatArray:
    """Compute the standard deviation of the last returns of each column.

    Parameters
    ----------
    returns : ndarray of shape (n_bars, n_assets), fractions
        NaN where not known.
    bars : int
        Length of the window, the current row included.
    minimum : int
        Returns that must be known in it, at least 2.

    Returns
    -------
    ndarray of shape (n_bars, n_assets), fractions per bar
        With ``ddof=1``. Row ``t`` is known at the close of ``t`` and uses rows ``t - bars + 1 .. t``; NaN where fewer than
        `minimum` of them are known.

    Raises
    ------
    ConfigurationError
        If not ``2 <= minimum <= bars``.
    """
    if not 2 <= minimum <= bars:
        raise ConfigurationError(f"`minimum` must be in 2..`bars` = {bars}, was {minimum}.")
    volatility = np.empty(returns.shape)
    _slide(np.ascontiguousarray(returns, dtype=np.float64), bars, minimum, volatility)
    return volatility
