"""Experience: what agents collect from closed trades, for people to look at. No size and no gate ever reads it.

Hides the formula and the ledger. Promises that a trade is minted once for an agent, however often it is handed in.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

from agents.trading.seniority import counts
from core.errors import DataError
from core.message import Message
from core.store.trading import TradingStore
from core.store.trading_records import ExpEntry, Trade
from core.types import Count, NotNegative

EVENT = "trade.closed"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperienceConfig(Message):
    """How much a closed trade is worth.

    Parameters
    ----------
    base : int, default=100
    per_r_won, most_r_won : float, default=60, 5
        For each unit of risk gained, and how many of them count.
    per_r_lost, most_r_lost : float, default=20, 3
    confidence_weight : float, default=0.5
        Factor ``1 + weight * (confidence - 0.5)``.
    streak_bonus, most_streak : int, default=25, 5
        For each win in a row before this one, and how many of them count.
    level_scale, level_power : float, default=500, 1.6
        Level L needs ``round(scale * L ** power)``; the database computes levels with the same two.
    """

    base: Count = 100
    per_r_won: NotNegative = 60.0
    most_r_won: NotNegative = 5.0
    per_r_lost: NotNegative = 20.0
    most_r_lost: NotNegative = 3.0
    confidence_weight: NotNegative = 0.5
    streak_bonus: Count = 25
    most_streak: Count = 5
    level_scale: NotNegative = 500.0
    level_power: NotNegative = 1.6


def r_multiple(trade: Trade) -> float:
    """Return the net return of a closed trade in units of the risk taken at entry, 0 where it had no stop.

    Raises
    ------
    DataError
        If it is not closed.
    """
    if trade.net_pnl_pct is None or trade.fill_price is None:
        raise DataError(f"trade {trade.trade_id} must be closed to have an R multiple.")
    if trade.stop_loss is None or trade.stop_loss == trade.fill_price:
        return 0.0
    return trade.net_pnl_pct * trade.fill_price / abs(trade.fill_price - trade.stop_loss)


def trade_exp(trade: Trade, streak: int, config: ExperienceConfig) -> int:
    """Compute what a closed trade is worth, never below 0.

    Parameters
    ----------
    trade : Trade
    streak : int
        Wins in a row that end with this trade, itself included; 0 or more.
    config : ExperienceConfig

    Raises
    ------
    DataError
        If the trade is not closed, or `streak` is negative.
    """
    if streak < 0:
        raise DataError(f"`streak` must be 0 or more, was {streak}.")
    r, won = r_multiple(trade), trade.hit is True
    if won:
        gained = round(config.per_r_won * min(max(r, 0.0), config.most_r_won))
    else:
        gained = -round(config.per_r_lost * min(abs(r), config.most_r_lost))
    weighted = (config.base + gained) * (1.0 + config.confidence_weight * (trade.confidence - 0.5)) * (1.0 + trade.position_pct)
    bonus = config.streak_bonus * min(max(streak - 1, 0), config.most_streak) if won else 0
    return max(0, round(weighted) + bonus)


def exp_for_level(level: int, config: ExperienceConfig) -> int:
    """Return how much experience a level needs.

    Raises
    ------
    DataError
        If `level` is negative.
    """
    if level < 0:
        raise DataError(f"`level` must be 0 or more, was {level}.")
    return round(config.level_scale * math.pow(level, config.level_power))


def win_streak(trades: Iterable[Trade]) -> int:
    """Return how many wins in a row the newest closed trades that count are, in order of closing."""
    newest_first = sorted((t for t in trades if counts(t)), key=lambda t: (t.closed_at, t.trade_id), reverse=True)
    return sum(1 for _ in itertools.takewhile(lambda trade: trade.hit is True, newest_first))


class Experience:
    """Mint experience for the agents behind a trade.

    Parameters
    ----------
    store : TradingStore
    config : ExperienceConfig, optional
    """

    def __init__(self, store: TradingStore, config: ExperienceConfig | None = None) -> None:
        self.config = config or ExperienceConfig()
        self._store = store

    def mint(self, trade: Trade, agents: Iterable[str], *, streak: int) -> int:
        """Mint what a trade is worth for each agent, and return for how many it was new; 0 for a trade that does not count.

        Raises
        ------
        DataError
            If `streak` is negative.
        StoreError
            When the store refused or cannot be reached: nothing was minted then.
        """
        entries = self.entries(trade, agents, streak=streak)
        return self._store.mint_exp(entries) if entries else 0

    def entries(self, trade: Trade, agents: Iterable[str], *, streak: int) -> list[ExpEntry]:
        """Return what a trade is worth for each agent, for who mints several trades at once; nothing if it does not count."""
        if not counts(trade):
            return []
        exp, ref = trade_exp(trade, streak, self.config), trade.trade_id
        return [ExpEntry(agent_name=agent, event_type=EVENT, source_ref=ref, exp=exp) for agent in sorted(set(agents))]
