"""The ladder of the agents: what they have earned, what it allows, and when real money may be touched.

Hides how a record becomes a place. Promises that only closed trades with trusted fills count, that they are read from the
trade log in force, and that real money needs every one of three conditions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from core.message import Message, refuse
from core.store.trade_log import TradeLog
from core.store.trading import TradingStore
from core.store.trading_records import Seniority, SeniorityTier, Trade
from core.types import Count, Fraction, Identifier, NotNegative

TIERS = tuple(SeniorityTier)
LEVELS = 10
UNTRUSTED_EXITS = frozenset({"approximate", "simulated"})
"""Exit reasons of outcomes that no broker's fill stands behind."""

_NO_LOSSES = 100.0
_IDS_A_QUERY = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Clearance(Message):
    """What an agent's record must show before it leaves a tier.

    Parameters
    ----------
    min_closed : int
        Closed trades.
    min_win_rate : float
        Share of net gains, as a fraction.
    min_profit_factor : float
        Sum of gains over sum of losses, net, in shares of equity.
    max_drawdown : float
        Largest fall of the compounded equity of these trades from its peak, as a fraction.
    """

    min_closed: Count
    min_win_rate: Fraction
    min_profit_factor: NotNegative
    max_drawdown: Fraction


def _clearances() -> Mapping[str, Clearance]:
    return MappingProxyType(
        {
            SeniorityTier.TRAINEE.value: Clearance(min_closed=100, min_win_rate=0.40, min_profit_factor=1.1, max_drawdown=0.10),
            SeniorityTier.JUNIOR.value: Clearance(min_closed=200, min_win_rate=0.42, min_profit_factor=1.2, max_drawdown=0.10),
            SeniorityTier.INTERMEDIATE.value: Clearance(
                min_closed=300, min_win_rate=0.45, min_profit_factor=1.3, max_drawdown=0.08
            ),
            SeniorityTier.SENIOR.value: Clearance(min_closed=300, min_win_rate=0.45, min_profit_factor=1.3, max_drawdown=0.08),
        }
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class SeniorityConfig(Message):
    """The ladder's rules.

    Parameters
    ----------
    agents : tuple of str
        Who stands on it: the agents that every order has passed.
    wins_per_level : int, default=10
    clearances : mapping of str to Clearance
        By tier: what must be shown to leave it; of the highest, to count as cleared.
    paper_caps : tuple of float, default=(0.01, 0.02, 0.03, 0.03)
        Largest position on paper by tier, lowest tier first, as fractions of equity.
    real_cap : float, default=0.05
        Largest position of real money, of the highest tier; the others have none.

    Raises
    ------
    DataError
        If a value is not allowed, an agent is named twice, or a tier is missing.
    """

    agents: tuple[Identifier, ...] = ("icarus", "hades", "artemis", "pythia", "zeus", "ares")
    wins_per_level: Count = 10
    clearances: Mapping[str, Clearance] = field(default_factory=_clearances, hash=False)
    paper_caps: tuple[Fraction, ...] = (0.01, 0.02, 0.03, 0.03)
    real_cap: Fraction = 0.05

    def _check(self) -> None:
        if not self.agents or len(set(self.agents)) != len(self.agents):
            raise refuse(self, "agents", "at least one, without repetition", self.agents)
        if self.wins_per_level == 0:
            raise refuse(self, "wins_per_level", "1 or more", self.wins_per_level)
        if set(self.clearances) != {tier.value for tier in TIERS}:
            raise refuse(self, "clearances", "given for every tier", sorted(self.clearances))
        if len(self.paper_caps) != len(TIERS):
            raise refuse(self, "paper_caps", "one a tier", self.paper_caps)

    def position_cap(self, tier: SeniorityTier, *, paper: bool) -> float:
        """Return the largest position a system of this tier may take, as a fraction of equity."""
        if paper:
            return self.paper_caps[TIERS.index(tier)]
        return self.real_cap if tier is SeniorityTier.SENIOR else 0.0


def may_trade_real_money(
    tiers: Mapping[str, SeniorityTier], agents: Collection[str], *, arm_real_money: bool, paper_trading: bool
) -> bool:
    """Return whether real money may be touched; whatever is missing means no.

    Parameters
    ----------
    tiers : mapping of str to SeniorityTier
        Tier by agent, as stored.
    agents : collection of str
        Everyone on the ladder; one without a tier is not senior. Whoever else has a tier must be senior too.
    arm_real_money : bool
        The setting `ARM_REAL_MONEY`; only True itself arms.
    paper_trading : bool
        The setting `paper_trading`; only False itself leaves paper.
    """
    everyone_is_senior = bool(agents) and all(tiers.get(agent) is SeniorityTier.SENIOR for agent in {*agents, *tiers})
    return everyone_is_senior and arm_real_money is True and paper_trading is False


def system_tier(tiers: Mapping[str, SeniorityTier], agents: Collection[str]) -> SeniorityTier:
    """Return the tier of the lowest agent; one that is not stored, or nobody at all, is a trainee."""
    places = [TIERS.index(tiers.get(agent, SeniorityTier.TRAINEE)) for agent in agents]
    return TIERS[min(places, default=0)]


def counts(trade: Trade) -> bool:
    """Return whether a trade may earn anything: closed, not voided, and with trusted fills on both sides."""
    filled = trade.fill_price is not None and trade.exit_price is not None
    return trade.hit is not None and filled and not trade.voided and trade.exit_reason not in UNTRUSTED_EXITS


def measure_record(trades: Iterable[Trade]) -> dict[str, float]:
    """Compute the figures of a clearance from trades; those that may not count are left out.

    Returns
    -------
    dict
        `closed`, `wins`, `win_rate`, `profit_factor` and `max_drawdown`. A trade's part in equity is its net return times its
        position, in order of closing. Without trades the rate and the factor are 0; without losses the factor is 100, so that
        it can be stored.
    """
    counted = sorted((trade for trade in trades if counts(trade)), key=lambda trade: (trade.closed_at, trade.trade_id))
    parts = [(trade.net_pnl_pct or 0.0) * trade.position_pct for trade in counted]
    wins = sum(trade.hit is True for trade in counted)
    gains = math.fsum(part for part in parts if part > 0.0)
    losses = -math.fsum(part for part in parts if part < 0.0)
    equity = list(itertools.accumulate(parts, lambda value, part: value * (1.0 + part), initial=1.0))
    peaks = itertools.accumulate(equity, max)
    return {
        "closed": float(len(counted)),
        "wins": float(wins),
        "win_rate": wins / len(counted) if counted else 0.0,
        "profit_factor": min(gains / losses, _NO_LOSSES) if losses > 0.0 else (_NO_LOSSES if gains > 0.0 else 0.0),
        "max_drawdown": max((peak - value) / peak for peak, value in zip(peaks, equity, strict=True)),
    }


def is_cleared(record: Mapping[str, float], clearance: Clearance) -> bool:
    """Return whether a record shows what a clearance asks for."""
    return (
        record["closed"] >= clearance.min_closed
        and record["win_rate"] >= clearance.min_win_rate
        and record["profit_factor"] >= clearance.min_profit_factor
        and record["max_drawdown"] <= clearance.max_drawdown
    )


def place_agent(agent: str, record: Mapping[str, float], config: SeniorityConfig) -> Seniority:
    """Return where an agent with this record stands.

    Notes
    -----
    Wins climb: a level for each `wins_per_level`, a tier for each ten levels. A tier is left only by a record that clears it,
    whatever the wins; who waits stands on its tenth level. The record is judged as it is now: who no longer clears a tier it
    has left steps back down, because what the ladder allows must not outlive what earned it.
    """
    steps = min(int(record["wins"]) // config.wins_per_level, len(TIERS) * LEVELS - 1)
    tier = 0
    while tier < steps // LEVELS and is_cleared(record, config.clearances[TIERS[tier].value]):
        tier += 1
    return Seniority(
        agent_name=agent,
        tier=TIERS[tier],
        level=LEVELS if steps // LEVELS > tier else steps % LEVELS + 1,
        wins=int(record["wins"]),
        criteria=record,
        cleared=is_cleared(record, config.clearances[TIERS[tier].value]),
    )


class Ladder:
    """Judge every agent by the trades of the log in force.

    Parameters
    ----------
    trade_log : TradeLog
        The log that execution writes to: judging by another one leaves everybody at nothing for ever.
    store : TradingStore, optional
        Keeps decisions and places. None where there are files alone: every trade is then credited to all agents, since an order
        passes them all, and nothing is stored.
    config : SeniorityConfig, optional
    """

    def __init__(self, trade_log: TradeLog, store: TradingStore | None, config: SeniorityConfig | None = None) -> None:
        self.config = config or SeniorityConfig()
        self._trade_log = trade_log
        self._store = store

    def judge(self) -> list[Seniority]:
        """Return where every agent stands by its record, lowest name first, and store what has changed.

        Raises
        ------
        StoreError
            When the store or the log refused or cannot be reached.
        """
        trades = [trade for trade in self._trade_log.list_trades() if counts(trade)]
        credited = self._credit(trades)
        places = [place_agent(agent, measure_record(credited[agent]), self.config) for agent in sorted(self.config.agents)]
        if self._store is not None:
            stored = {place.agent_name: place for place in self._store.list_seniority()}
            self._store.save_seniorities([place for place in places if stored.get(place.agent_name) != place])
        return places

    def tiers(self) -> dict[str, SeniorityTier]:
        """Return the tiers as stored, or as judged where nothing is stored."""
        places = self.judge() if self._store is None else self._store.list_seniority()
        return {place.agent_name: place.tier for place in places}

    def _credit(self, trades: Sequence[Trade]) -> dict[str, list[Trade]]:
        """Give each agent the trades whose decision it passed."""
        if self._store is None:
            return {agent: list(trades) for agent in self.config.agents}
        passed = find_participants(self._store, trades)
        return {agent: [trade for trade in trades if agent in passed.get(trade.trade_id, ())] for agent in self.config.agents}


def find_participants(store: TradingStore, trades: Sequence[Trade]) -> dict[str, frozenset[str]]:
    """Return the agents that passed the decision behind each trade, by trade id; nobody where there is no decision.

    Raises
    ------
    StoreError
        When the store refused or cannot be reached.
    """
    signal_ids = sorted({trade.signal_id for trade in trades if trade.signal_id is not None})
    passed: dict[tuple[str, str | None], set[str]] = {}
    for start in range(0, len(signal_ids), _IDS_A_QUERY):
        chunk = signal_ids[start : start + _IDS_A_QUERY]
        for trace in store.list_decision_traces(signal_ids=chunk):
            agents = {outcome.stage.value for outcome in trace.stages if outcome.passed}
            passed.setdefault((trace.signal_id, trace.symbol), set()).update(agents)
    found = {}
    for trade in trades:
        if trade.signal_id is not None:
            found[trade.trade_id] = frozenset(passed.get((trade.signal_id, trade.symbol), ()))
    return found
