"""What is to be predicted: returns after the decision.

Promises that a label never overlaps its own decision bar. Labels use the future by definition: they train and judge, they
are never features (the truncation test catches them if they are).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from core.errors import DataError, LookAheadError
from features.fields import FloatArray

if TYPE_CHECKING:
    from core.market.panel import Panel


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """Hold labels and when each of them is known.

    Parameters
    ----------
    values : ndarray of shape (n_bars, n_assets), fractions
        Row ``t`` belongs to the decision at bar ``t``; NaN where a price is missing or the data end too soon.
    horizon_end : ndarray of shape (n_bars,), int
        Position of the bar whose close completes the label; beyond the last bar where the data end too soon. A training
        set that is tested from bar ``s`` on must leave out every label with ``horizon_end >= s``.
    horizon, delay : int
        Bars held; bars between decision and entry.
    """

    values: FloatArray
    horizon_end: npt.NDArray[np.int64]
    horizon: int
    delay: int


def forward_returns(panel: Panel, horizon: int, delay: int = 1) -> Labels:
    """Compute simple returns from entry to exit after each decision.

    .. warning:: Decided at the close of bar ``t``, entered at the close of ``t + delay``, left at the close of
       ``t + delay + horizon``. What is known only at ``t`` cannot be traded at ``t``.

    Parameters
    ----------
    panel : Panel
        Closing prices.
    horizon : int
        Bars held, at least 1.
    delay : int, default=1
        Bars between decision and entry, at least 1.

    Returns
    -------
    Labels
        ``close[t + delay + horizon] / close[t + delay] - 1``; NaN unless both prices are positive.

    Raises
    ------
    DataError
        If `horizon` is below 1.
    LookAheadError
        If `delay` is below 1.
    """
    if horizon < 1:
        raise DataError(f"`horizon` must be at least 1 bar, was {horizon}.")
    if delay < 1:
        raise LookAheadError(
            f"`delay` must be at least 1 bar, was {delay}: a signal of bar t trades at bar t + 1 at the earliest."
        )
    values = np.full(panel.shape, np.nan)
    known = panel.n_bars - delay - horizon
    if known > 0:
        close = np.where((panel.close > 0.0) & (panel.close < np.inf), panel.close, np.nan)
        values[:known] = close[delay + horizon :] / close[delay : panel.n_bars - horizon] - 1.0
    horizon_end = np.arange(panel.n_bars, dtype=np.int64) + delay + horizon
    return Labels(values=values, horizon_end=horizon_end, horizon=horizon, delay=delay)
