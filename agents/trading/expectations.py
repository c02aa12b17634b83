"""What a strategy was expected to bring a trade, and whether it does.

Hides where an expectation is kept. Promises that one that is kept never moves, so that no outcome finds its way into what it
is compared with; and that it is found by the source of a signal, whichever process closes the trade.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import numpy as np
from scipy import special

from core.message import Message, Rule, refuse
from core.store.event_records import LivePerformance
from core.store.research import ResearchStore
from core.types import Count, Identifier

MIN_TRADES = 10
"""Closed trades below which realised returns are not judged."""

_CONFIDENCE = 0.95
_KEPT_UNDER = "expectation:"

StrategyName = Annotated[
    Identifier, Rule(expected="without a slash, which parts it from a symbol", holds=lambda text: "/" not in text)
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Expectation(Message):
    """What the rule that is traded gave before it was traded.

    Parameters
    ----------
    strategy_id : str
        Without a slash: `live_performance` names a strategy and a symbol.
    return_per_trade : float
        Mean net return of a trade, as a fraction.
    n_trades : int
        Trades that it is the mean of.
    first, last : datetime
        Bars at which these were decided, UTC.
    """

    strategy_id: StrategyName
    return_per_trade: float
    n_trades: Count
    first: datetime
    last: datetime

    def _check(self) -> None:
        if self.n_trades < 1:
            raise refuse(self, "n_trades", "1 or more", self.n_trades)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Realised returns of a strategy's closed trades beside the expected ones.

    Parameters
    ----------
    strategy_id : str
    n : int
        Closed trades.
    realised, expected : float
        Mean net return of a trade, as fractions.
    low, high : float or None
        Interval of 95 % of the mean that is realised; None where a single trade shows no spread.
    """

    strategy_id: str
    n: int
    realised: float
    expected: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """Whether the two differ, in a sentence."""
        if self.n < MIN_TRADES or self.low is None or self.high is None:
            return f"Too early to say: {MIN_TRADES} closed trades are needed."
        if self.high < self.expected:
            return "Less than expected, by more than chance explains."
        if self.low > self.expected:
            return "More than expected, by more than chance explains."
        return "No difference can be told from chance."


def find_expectation(research: ResearchStore, source: str) -> Expectation | None:
    """Return what is expected of trades on the signals of a source; None where nothing is.

    Raises
    ------
    DataError
        If what is kept is no expectation.
    StoreError
        If the store cannot be read.
    """
    kept = research.load_agent_state(f"{_KEPT_UNDER}{source}")
    return Expectation.from_dict(kept) if kept else None


def keep_expectation(research: ResearchStore, source: str, expectation: Expectation) -> Expectation:
    """Keep what is expected of a source, and return what is kept: the first one, for ever.

    Raises
    ------
    StoreError
        If the store refuses or cannot be reached.
    """
    kept = find_expectation(research, source)
    if kept is not None:
        return kept
    research.save_agent_state(f"{_KEPT_UNDER}{source}", expectation.to_dict())
    return expectation


def compare_returns(points: Iterable[LivePerformance]) -> tuple[Comparison, ...]:
    """Compare realised with expected returns, a strategy at a time, in alphabetical order.

    Parameters
    ----------
    points : iterable of LivePerformance
        One a closed trade; `strategy_id` is that of the strategy, or the strategy's, a slash and a symbol.

    Notes
    -----
    The interval is Student's, of the mean of independent returns. Trades that are open at the same time move together, which
    makes the true interval wider; and what was expected is taken as exact, though it is a mean itself.
    """
    by_strategy: dict[str, list[LivePerformance]] = defaultdict(list)
    for point in points:
        by_strategy[point.strategy_id.partition("/")[0]].append(point)
    return tuple(_compare(name, by_strategy[name]) for name in sorted(by_strategy))


def _compare(strategy_id: str, points: list[LivePerformance]) -> Comparison:
    realised = np.array([point.realised_return for point in points])
    n, mean = len(realised), float(realised.mean())
    margin = None
    if n > 1:
        margin = float(special.stdtrit(n - 1, 0.5 + _CONFIDENCE / 2)) * float(realised.std(ddof=1)) / math.sqrt(n)
    return Comparison(
        strategy_id=strategy_id,
        n=n,
        realised=mean,
        expected=math.fsum(point.expected_return for point in points) / n,
        low=None if margin is None else mean - margin,
        high=None if margin is None else mean + margin,
    )
