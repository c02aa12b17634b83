"""How much of the equity to stake on what is believed: four rules behind one protocol.

Hides the formulas. Promises a fraction of equity in 0..`max_size`; 0 means: do not trade. Each rule takes one context or many
at once, so that `aqf trade ab` measures the very code that sizes orders.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from agents.trading.learning import Estimate
from core.errors import DataError
from core.message import Message, refuse
from core.types import Count, Fraction, NotNegative, Positive

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What a sizing may know of contexts, as arrays that broadcast against each other.

    Parameters
    ----------
    p : ndarray of shape (...)
        Shrunk probability of a hit, from `PromotionGate`.
    n_closed, hits : ndarray of shape (...)
        Closed trades, and those of them with a net gain.
    mean_win, mean_loss : ndarray of shape (...)
        Mean net return of hits (above 0) and of the others (0 or below), as fractions of the position; NaN where there is none.

    Raises
    ------
    DataError
        If a probability is outside 0..1, or there are more hits than trades, or fewer than none.
    """

    p: FloatArray
    n_closed: FloatArray
    hits: FloatArray
    mean_win: FloatArray
    mean_loss: FloatArray

    def __post_init__(self) -> None:
        if not bool(np.all((self.p >= 0.0) & (self.p <= 1.0))):
            raise DataError(f"`Evidence.p` must be probabilities in 0..1, was {self.p!r}.")
        if not bool(np.all((self.hits >= 0.0) & (self.hits <= self.n_closed))):
            raise DataError(f"`Evidence.hits` must be in 0..`n_closed`, was {self.hits!r} of {self.n_closed!r}.")

    @classmethod
    def of(cls, estimate: Estimate) -> Self:
        """Return what an estimate of one context says, as arrays of no dimension."""
        hits = round(estimate.n_closed * (estimate.hit_rate or 0.0), 9)

        def array(value: ArrayLike | None) -> FloatArray:
            return np.asarray(math.nan if value is None else value, dtype=np.float64)

        return cls(
            p=array(estimate.p),
            n_closed=array(estimate.n_closed),
            hits=array(hits),
            mean_win=array(estimate.mean_win),
            mean_loss=array(estimate.mean_loss),
        )


class Sizing(Protocol):
    """Turns evidence into a share of equity."""

    @property
    def name(self) -> str:
        """Short name, for the command line and the traces."""

    def size(self, evidence: Evidence) -> FloatArray:
        """Return the shares of equity to stake, in the shape of the evidence; 0 where nothing should be staked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RampSizing(Message):
    """The seed's ramp: ``min(max_size, base + 2 * max(0, p - 0.5) * slope)``.

    Parameters
    ----------
    base : float, default=0.02
        Share of equity at p = 0.5 and below. It never refuses: Pythia's floor does.
    slope : float, default=0.03
        What is added on the way from p = 0.5 to p = 1.
    max_size : float, default=0.05

    Notes
    -----
    It looks at how often a context gains and not at how much: at a hit rate of 80 % it stakes more, though a loss may be five
    times a gain. `KellySizing` is the answer to that.
    """

    base: Fraction = 0.02
    slope: Fraction = 0.03
    max_size: Fraction = 0.05

    @property
    def name(self) -> str:
        """The name `ramp`."""
        return "ramp"

    def size(self, evidence: Evidence) -> FloatArray:
        """Return the shares of equity to stake, in the shape of `evidence.p`."""
        lift = 2.0 * np.maximum(0.0, evidence.p - 0.5) * self.slope
        return np.asarray(np.minimum(self.max_size, self.base + lift), dtype=np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedSizing(Message):
    """The same share for everything: what the others are measured against.

    Parameters
    ----------
    fraction : float, default=0.02
    """

    fraction: Fraction = 0.02

    @property
    def name(self) -> str:
        """The name `fixed`."""
        return "fixed"

    def size(self, evidence: Evidence) -> FloatArray:
        """Return the same share of equity everywhere, in the shape of `evidence.p`."""
        return np.full(np.shape(evidence.p), self.fraction)


@dataclass(frozen=True, kw_only=True, slots=True)
class KellySizing(Message):
    """A fraction of Kelly's stake at a cautious reading of few trades; nothing where the edge is not positive.

    Parameters
    ----------
    fraction : float, default=0.25
        Share of the full stake.
    lower_quantile : float, default=0.35
        Quantile of the posterior of the hit probability that is used for it, below one half.
    prior_trades : float, default=10
        Weight of the prior, in trades; the prior is a coin with equal gains and losses, which has no edge.
    extra_cost : float, default=0.0
        Cost of a round trip that the record does not hold yet, as a fraction of the position; the mean returns of the store
        are net of commission and are made from real fills.
    max_size : float, default=0.05

    Raises
    ------
    DataError
        If `lower_quantile` is not in (0, 0.5].

    Notes
    -----
    With hit probability p and payoff ratio b (mean gain over mean loss, both net of cost) the stake that grows fastest is
    ``p - (1 - p) / b`` of what can be lost [1]_ [2]_. We take

    - for p the `lower_quantile` of the posterior ``Beta(k/2 + hits, k/2 + n - hits)`` of k prior trades, since a stake that is
      too large by estimation error costs more growth than one that is too small by as much [3]_;
    - for b the measured ratio shrunk in logarithms towards 1, ``b ** (m / (m + k))`` with m the smaller of the numbers of gains
      and losses: a mean of one loss says little, however many gains there were;
    - a `fraction` of the result, which gives up little growth for much less drawdown [2]_;
    - nothing where the trades of the context have lost so far, taken together: shrinking must not make a gain of nine small
      hits and one large loss.

    Deviation: the stake is a share of equity put into the position, as though all of it could be lost. With a stop at 3 % a
    loss takes a thirtieth of that, and Kelly's own answer would be thirty times as much: leverage that a gap would end.
    The stake thus orders contexts by edge and refuses those without one, far on the safe side of the greatest growth.

    References
    ----------
    .. [1] Kelly, J. L. (1956). A new interpretation of information rate. Bell System Technical Journal, 35(4), 917-926.
    .. [2] Thorp, E. O. (2006). The Kelly criterion in blackjack, sports betting, and the stock market. In: Handbook of Asset
       and Liability Management, vol. 1, 385-428. Elsevier.
    .. [3] Baker, R. D., McHale, I. G. (2013). Optimal betting under parameter uncertainty: improving the Kelly criterion.
       Decision Analysis, 10(3), 189-199.
    """

    fraction: Fraction = 0.25
    lower_quantile: Positive = 0.35
    prior_trades: Positive = 10.0
    extra_cost: NotNegative = 0.0
    max_size: Fraction = 0.05

    def _check(self) -> None:
        if self.lower_quantile > 0.5:
            raise refuse(
                self, "lower_quantile", "in (0, 0.5]: a quantile above the median is not cautious", self.lower_quantile
            )

    @property
    def name(self) -> str:
        """The name `kelly`."""
        return "kelly"

    def lower_probability(self, evidence: Evidence) -> FloatArray:
        """Return the lower credible bound of the hit probability, in the shape of the evidence."""
        half = self.prior_trades / 2.0
        alpha, beta = half + evidence.hits, half + evidence.n_closed - evidence.hits
        return np.asarray(special.betaincinv(alpha, beta, self.lower_quantile), dtype=np.float64)

    def payoff_ratio(self, evidence: Evidence) -> FloatArray:
        """Return the shrunk ratio of mean gain to mean loss, in the shape of the evidence; 1 where one of them is not known."""
        win, loss = evidence.mean_win - self.extra_cost, self.extra_cost - evidence.mean_loss
        known = (evidence.mean_win > 0.0) & (loss > 0.0)  # NaN compares as false
        # A gain that the cost eats leaves a ratio of 0, not an unknown one.
        measured = np.where(known, np.maximum(win, 0.0) / np.where(known, loss, 1.0), 1.0)
        m = np.minimum(evidence.hits, evidence.n_closed - evidence.hits)
        return np.asarray(measured ** (m / (m + self.prior_trades)), dtype=np.float64)

    def size(self, evidence: Evidence) -> FloatArray:
        """Return the shares of equity to stake, in the shape of the evidence; 0 where the edge is not positive."""
        p, b = self.lower_probability(evidence), self.payoff_ratio(evidence)
        with np.errstate(divide="ignore"):
            edge = p - (1.0 - p) / b
        stake = np.clip(self.fraction * edge, 0.0, self.max_size)
        return np.asarray(np.where(self._has_lost(evidence), 0.0, stake), dtype=np.float64)

    def _has_lost(self, evidence: Evidence) -> NDArray[np.bool_]:
        misses = evidence.n_closed - evidence.hits
        gained = np.where(evidence.hits > 0.0, evidence.hits * evidence.mean_win, 0.0)
        lost = np.where(misses > 0.0, misses * evidence.mean_loss, 0.0)
        return np.asarray((evidence.n_closed > 0.0) & (gained + lost <= evidence.n_closed * self.extra_cost))


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbationSizing(Message):
    """A small stake until a context has shown enough, and Kelly's from then on.

    Parameters
    ----------
    trades : int, default=40
        Closed trades of a context until which it is on probation.
    stake : float, default=0.01
        Share of equity during it, where Kelly would stake less.
    kelly : KellySizing

    Notes
    -----
    Only what is traded is learned from, so `KellySizing` alone never finds out about a context whose first few trades do not
    prove an edge, which is nearly every one. The stake is the price of finding out; Pythia's floor ends a probation early.
    """

    trades: Count = 40
    stake: Fraction = 0.01
    kelly: KellySizing = field(default_factory=KellySizing)

    @property
    def name(self) -> str:
        """The name `probation`."""
        return "probation"

    def size(self, evidence: Evidence) -> FloatArray:
        """Return the shares of equity to stake, in the shape of the evidence; 0 after a probation that shows no edge."""
        sized = self.kelly.size(evidence)
        stake = min(self.stake, self.kelly.max_size)
        return np.asarray(np.where(evidence.n_closed < self.trades, np.maximum(sized, stake), sized), dtype=np.float64)


SIZINGS: dict[str, Any] = {"ramp": RampSizing, "kelly": KellySizing, "probation": ProbationSizing, "fixed": FixedSizing}


def build_sizing(name: str) -> Sizing:
    """Return the sizing of a name, with its defaults.

    Raises
    ------
    DataError
        If there is no sizing of that name.
    """
    if name not in SIZINGS:
        raise DataError(f"a sizing must be one of {', '.join(SIZINGS)}, was {name!r}.")
    sizing: Sizing = SIZINGS[name]()
    return sizing
