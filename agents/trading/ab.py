"""Which sizing is worth it? Trades simulated accounts by each sizing through markets whose truth is known.

Hides the simulation. Promises that every sizing meets the same signals with the same outcomes, sees only what it has learned
from its own closed trades, and pays the same costs, so that a difference between two is theirs.

.. warning::
   Trades come one after another and independent of each other; real ones overlap and fall together. Drawdowns here are lower
   than in life, for every sizing alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from agents.trading.learning import PromotionGate
from agents.trading.sizing import Evidence, Sizing
from core.errors import DataError
from core.message import Message, Rule, refuse
from core.types import Count, Fraction, Identifier, NotNegative, Positive

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

AtLeastTwo = Annotated[int, Rule(expected="2 or more", holds=lambda number: number >= 2)]

_Z = 1.959964  # two-sided 95 %


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatedContext(Message):
    """What is true of one context.

    Parameters
    ----------
    payoff : float
        Mean gain over mean loss, before gaps and costs.
    edge : float
        Expected return of a trade before costs, as a fraction of the position; 0 is none.
    later_edge : float, optional
        The same from the middle of the trades on; None where nothing changes.
    """

    payoff: Positive
    edge: float
    later_edge: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class World(Message):
    """A market of several contexts, which come up equally often."""

    name: Identifier
    note: str
    contexts: tuple[SimulatedContext, ...]

    def _check(self) -> None:
        if not self.contexts:
            raise refuse(self, "contexts", "at least one", self.contexts)


def _contexts(*pairs: tuple[float, float], later: Sequence[float] | None = None) -> tuple[SimulatedContext, ...]:
    ends = later or [math.nan] * len(pairs)
    return tuple(
        SimulatedContext(payoff=payoff, edge=edge, later_edge=None if math.isnan(end) else end)
        for (payoff, edge), end in zip(pairs, ends, strict=True)
    )


WORLDS = (
    World(
        name="none",
        note="no context has an edge; costs alone decide",
        contexts=_contexts((0.5, 0.0), (1.0, 0.0), (1.0, 0.0), (1.5, 0.0), (2.0, 0.0), (2.0, 0.0)),
    ),
    World(
        name="hits",
        note="gains as large as losses: the edge shows in how often a context hits",
        contexts=_contexts((1.0, 0.006), (1.0, 0.004), (1.0, 0.002), (1.0, 0.0), (1.0, -0.002), (1.0, -0.004)),
    ),
    World(
        name="payoff",
        note="contexts that hit often lose, contexts that hit seldom gain",
        contexts=_contexts((3.0, 0.006), (2.0, 0.004), (1.0, 0.0), (1.0, 0.0), (0.5, -0.002), (0.33, -0.004)),
    ),
    World(
        name="bracket",
        note="every trade has the pipeline's bracket, a target twice as far as the stop",
        contexts=_contexts((2.0, 0.012), (2.0, 0.008), (2.0, 0.004), (2.0, 0.0), (2.0, -0.002), (2.0, -0.004)),
    ),
    World(
        name="fades",
        note="as hits, but every edge is gone from the middle on",
        contexts=_contexts((1.0, 0.006), (1.0, 0.004), (1.0, 0.002), (1.0, 0.0), (1.0, -0.002), (1.0, -0.004), later=[0.0] * 6),
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialConfig(Message):
    """What is simulated.

    Parameters
    ----------
    accounts : int, default=1000
        Independent accounts for each market.
    trades : int, default=1000
        Signals each account meets with money at stake: about four a session for a year.
    paper_trades : int, default=0
        Signals before that, all of them taken on paper and learned from, with no money moved. The pipeline has no such time: on
        paper too it takes only what its gates admit.
    loss : float, default=0.03
        Mean loss of a trade that loses, as a fraction of the position, before gaps: the distance of the stop.
    spread : float, default=0.4
        Standard deviation of the logarithm of a gain or loss about its mean.
    gap_probability, gap_factor : float, default=0.02, 3
        How often a loss goes through its stop, and how many times as large it is then.
    cost_bps : float, default=10
        Cost of a round trip in basis points of the position.
    floor : float, default=0.45
        Pythia's floor on the shrunk hit probability; 0 for none.
    cold_size : float, default=0.02
        Stake in a context without a closed trade, as Pythia sets it.
    kill_drawdown : float, default=0.08
        Drawdown that ends trading, which counts as ruin: that of the stage which allows positions of 5 %.
    shadow : bool, default=False
        Learn from refused signals too, as if each were followed on paper.

    Raises
    ------
    DataError
        If a value is not allowed.
    """

    accounts: AtLeastTwo = 1000
    trades: AtLeastTwo = 1000
    paper_trades: Count = 0
    loss: Fraction = 0.03
    spread: NotNegative = 0.4
    gap_probability: Fraction = 0.02
    gap_factor: Positive = 3.0
    cost_bps: NotNegative = 10.0
    floor: Fraction = 0.45
    cold_size: Fraction = 0.02
    kill_drawdown: Fraction = 0.08
    shadow: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval(Message):
    """A mean or a share with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SizingResult(Message):
    """What became of the accounts of one sizing in one market.

    Parameters
    ----------
    world, sizing : str
    taken : float
        Share of the signals that were traded with money.
    mean_size : float
        Mean stake of those, as a fraction of equity; 0 where none was traded.
    growth : Interval
        Mean return of an account over all trades, net of costs, as a fraction.
    drawdown : Interval
        Mean of the largest drawdowns.
    ruin : Interval
        Share of the accounts whose trading a drawdown ended, with Wilson's interval.
    advantage : Interval
        Mean of the growth less that of the first sizing in the same account.
    """

    world: Identifier
    sizing: Identifier
    taken: Fraction
    mean_size: Fraction
    growth: Interval
    drawdown: Interval
    ruin: Interval
    advantage: Interval


def hit_probabilities(world: World, config: TrialConfig, *, later: bool = False) -> FloatArray:
    """Return how often each context hits, of shape (n_contexts,): what its edge and its payoff make it.

    Raises
    ------
    DataError
        If an edge is larger than its gains, or a loss larger than every trade's.
    """
    edges = np.array([c.edge if c.later_edge is None or not later else c.later_edge for c in world.contexts])
    gain = np.array([c.payoff for c in world.contexts]) * config.loss
    loss = config.loss * (1.0 + config.gap_probability * (config.gap_factor - 1.0))
    p = (edges + loss) / (gain + loss)
    if not bool(np.all((p > 0.0) & (p < 1.0))):
        raise DataError(
            f"an edge of market {world.name!r} must lie between its losses and its gains: {p.round(3)} is no chance."
        )
    return np.asarray(p, dtype=np.float64)


class _Accounts:
    """The accounts of one sizing: money, and what was learned in each context."""

    def __init__(self, sizing: Sizing, n_contexts: int, config: TrialConfig) -> None:
        shape = (config.accounts, n_contexts)
        self.sizing = sizing
        self._config = config
        self._gate = PromotionGate()
        self._rows = np.arange(config.accounts)
        self._n, self._hits, self._won, self._lost = (np.zeros(shape) for _ in range(4))
        self.equity, self.peak = np.ones(config.accounts), np.ones(config.accounts)
        self.drawdown = np.zeros(config.accounts)
        self.ruined = np.zeros(config.accounts, dtype=bool)
        self.staked, self.taken = np.zeros(config.accounts), np.zeros(config.accounts)

    def meet(self, context: IntArray, net: FloatArray, *, paper: bool) -> None:
        """Let every account meet a signal of a context whose trade would return `net`; both of shape (n_accounts,)."""
        at = (self._rows, context)
        size = self._stake(at)
        if not paper:
            stake = np.where(self.ruined, 0.0, size)
            self.equity *= 1.0 + stake * net
            self.peak = np.maximum(self.peak, self.equity)
            fall = 1.0 - self.equity / self.peak
            self.drawdown = np.maximum(self.drawdown, fall)
            self.ruined |= fall >= self._config.kill_drawdown
            self.staked += stake
            self.taken += stake > 0.0
        seen = np.ones_like(net) if paper or self._config.shadow else (size > 0.0).astype(np.float64)
        hit = net > 0.0
        self._n[at] += seen
        self._hits[at] += seen * hit
        self._won[at] += seen * np.where(hit, net, 0.0)
        self._lost[at] += seen * np.where(hit, 0.0, net)

    def _stake(self, at: tuple[IntArray, IntArray]) -> FloatArray:
        n, hits = self._n[at], self._hits[at]
        misses = n - hits
        evidence = Evidence(
            p=self._gate.shrink(n, hits / np.maximum(n, 1.0)),
            n_closed=n,
            hits=hits,
            mean_win=np.where(hits > 0.0, self._won[at] / np.maximum(hits, 1.0), math.nan),
            mean_loss=np.where(misses > 0.0, self._lost[at] / np.maximum(misses, 1.0), math.nan),
        )
        sized = np.where(evidence.p < self._config.floor, 0.0, self.sizing.size(evidence))
        return np.where(n == 0.0, self._config.cold_size, sized)


def simulate(
    world: World, sizings: Sequence[Sizing], config: TrialConfig, rng: np.random.Generator, on_trade: Callable[[], None]
) -> list[SizingResult]:
    """Trade one market by every sizing.

    Parameters
    ----------
    world : World
    sizings : sequence of Sizing
        The first is what the others are compared with.
    config : TrialConfig
    rng : numpy.random.Generator
    on_trade : callable
        Called after each signal that all accounts have met.

    Returns
    -------
    list of SizingResult
        In the order of `sizings`.
    """
    early, late = hit_probabilities(world, config), hit_probabilities(world, config, later=True)
    gains = np.array([context.payoff for context in world.contexts]) * config.loss
    groups = [_Accounts(sizing, len(world.contexts), config) for sizing in sizings]
    for number in range(-config.paper_trades, config.trades):
        context = rng.integers(len(world.contexts), size=config.accounts)
        chance = (early if 2 * number < config.trades else late)[context]
        hit = rng.random(config.accounts) < chance
        noise = np.exp(config.spread * rng.standard_normal(config.accounts) - config.spread**2 / 2.0)
        gap = np.where(rng.random(config.accounts) < config.gap_probability, config.gap_factor, 1.0)
        gross = np.where(hit, gains[context] * noise, -config.loss * noise * gap)
        net = np.maximum(gross - config.cost_bps / 1e4, -1.0)
        for group in groups:
            group.meet(context, net, paper=number < 0)
        on_trade()
    return [_judge(world, group, groups[0], config) for group in groups]


def compare_sizings(
    sizings: Sequence[Sizing],
    config: TrialConfig,
    *,
    seed: int = 0,
    worlds: Sequence[World] = WORLDS,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[SizingResult]:
    """Trade every market by every sizing.

    Parameters
    ----------
    sizings : sequence of Sizing
        With different names; the first is what the others are compared with.
    config : TrialConfig
    seed : int, default=0
    worlds : sequence of World
    on_progress : callable, optional
        Called with how many signals are done and how many there are.

    Raises
    ------
    DataError
        If there is no sizing, two have one name, or a market cannot be.
    """
    names = [sizing.name for sizing in sizings]
    if not names or len(set(names)) != len(names):
        raise DataError(f"the sizings to compare must be at least one, each named once, were {names}.")
    total, done = len(worlds) * (config.trades + config.paper_trades), 0

    def on_trade() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, total)

    results = []
    for number, world in enumerate(worlds):
        results += simulate(world, sizings, config, np.random.default_rng([seed, number]), on_trade)
    return results


def _judge(world: World, group: _Accounts, first: _Accounts, config: TrialConfig) -> SizingResult:
    taken = float(group.taken.sum())
    return SizingResult(
        world=world.name,
        sizing=group.sizing.name,
        taken=taken / (config.accounts * config.trades),
        mean_size=float(group.staked.sum()) / taken if taken else 0.0,
        growth=_mean(group.equity - 1.0),
        drawdown=_mean(group.drawdown),
        ruin=_share(group.ruined),
        advantage=_mean(group.equity - first.equity),
    )


def _mean(values: FloatArray) -> Interval:
    mean, half = float(values.mean()), _Z * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Interval(value=mean, low=mean - half, high=mean + half)


def _share(flags: NDArray[np.bool_]) -> Interval:
    interval = stats.binomtest(int(flags.sum()), len(flags)).proportion_ci(method="wilson")
    return Interval(value=float(flags.mean()), low=float(interval.low), high=float(interval.high))
