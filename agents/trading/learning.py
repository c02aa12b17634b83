"""What the record of a context is worth: the measured hit rate, shrunk by how little has been measured.

Hides the arithmetic of few trades. Promises that a measured rate of 0 is a rate and not a missing one, and that the shrunk
probability stays strictly between 0 and 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.message import Message, refuse
from core.store.trading_records import HitRate
from core.types import Count, Fraction, Positive


class RecordStatus(StrEnum):
    """How far a record may be trusted."""

    COLD_START = "cold_start"
    LEARNING = "learning"
    TRUSTED = "trusted"


@dataclass(frozen=True, kw_only=True, slots=True)
class PromotionGateConfig(Message):
    """How a hit rate is shrunk.

    Parameters
    ----------
    prior_trades : float, default=10
        Weight of the prior, in trades.
    prior_hit_rate : float, default=0.5
        Where a rate is shrunk to, as a fraction.
    trusted_from : int, default=10
        Closed trades from which a record is called trusted.
    """

    prior_trades: Positive = 10.0
    prior_hit_rate: Fraction = 0.5
    trusted_from: Count = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate(Message):
    """What a context is believed to give.

    Parameters
    ----------
    p : float
        Shrunk probability of a hit, a net gain.
    n_closed : int
        Closed trades behind it.
    hit_rate : float, optional
        Measured share of hits; None exactly when nothing is closed.
    mean_win, mean_loss : float, optional
        Mean net return of hits, above 0, and of the others, 0 or below, as fractions of the position; None where there is none.
    status : RecordStatus
    """

    p: Fraction
    n_closed: Count
    hit_rate: Fraction | None
    mean_win: float | None
    mean_loss: float | None
    status: RecordStatus

    def _check(self) -> None:
        if (self.n_closed == 0) != (self.hit_rate is None):
            raise refuse(self, "hit_rate", "given exactly when trades are closed", self.hit_rate)


class PromotionGate:
    """Shrink measured hit rates: ``p = (n * hit_rate + k * prior) / (n + k)`` with k prior trades.

    Parameters
    ----------
    config : PromotionGateConfig, optional

    Notes
    -----
    The mean of the posterior of a Beta(k * prior, k * (1 - prior)) prior after `n` trades [1]_. It is used at every n; the
    status says how far it may be trusted and changes no figure.

    References
    ----------
    .. [1] Gelman, A., Carlin, J. B., Stern, H. S., Dunson, D. B., Vehtari, A., Rubin, D. B. (2013). Bayesian Data Analysis,
       3rd edition, section 2.4, 34-36. CRC Press.
    """

    def __init__(self, config: PromotionGateConfig | None = None) -> None:
        self.config = config or PromotionGateConfig()

    def judge(self, rate: HitRate | None) -> Estimate:
        """Return what a context is believed to give; `rate` is None before its first trade.

        Raises
        ------
        DataError
            If trades are closed and no hit rate is given.
        """
        n = 0 if rate is None else rate.closed_trades
        measured = None if rate is None or n == 0 else rate.hit_rate
        if n > 0:
            status = RecordStatus.TRUSTED if n >= self.config.trusted_from else RecordStatus.LEARNING
        else:
            status = RecordStatus.COLD_START
        return Estimate(
            p=float(self.shrink(n, measured or 0.0)),
            n_closed=n,
            hit_rate=measured,
            mean_win=None if rate is None else rate.avg_win_pct,
            mean_loss=None if rate is None else rate.avg_loss_pct,
            status=status,
        )

    def shrink(self, n_closed: ArrayLike, hit_rate: ArrayLike) -> NDArray[np.float64]:
        """Return the shrunk probabilities, in the broadcast shape; where no trade is closed the hit rate has no weight."""
        k, prior = self.config.prior_trades, self.config.prior_hit_rate
        n = np.asarray(n_closed, dtype=np.float64)
        # Products such as 0.7 * 30 miss their whole number by an ulp, which would decide at a tier's boundary.
        return np.asarray(np.round(n * np.asarray(hit_rate) + k * prior, 9) / (n + k))
