"""Pythia: how sure we are of a signal, and how much to stake on it.

Hides the trade log and how few outcomes are read. Promises that the shrunk probability is the confidence that every rule
uses, that a context without a record is explored only on paper and only while the account is new, and that a signal below the
floor, of a tier the stage does not admit, or without an edge goes no further.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from agents.trading.learning import Estimate, PromotionGate, PromotionGateConfig
from agents.trading.milestones import StageRules
from agents.trading.sizing import Evidence, Sizing
from core.errors import StoreError
from core.message import Message, refuse
from core.store.trade_log import TradeLog
from core.types import (
    BindingConstraint,
    Count,
    FilteredSignal,
    Fraction,
    MacroContext,
    Refusal,
    SizedSignal,
    Stage,
    context_key,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PythiaConfig(Message):
    """Pythia's rules.

    Parameters
    ----------
    gate : PromotionGateConfig
    floor : float, default=0.45
        Confidence below which nothing is traded.
    tier_1_from, tier_2_from : float, default=0.70, 0.55
        Confidence from which a signal is of that tier; below the second it is of tier 3.
    cold_confidence, cold_size : float, default=0.55, 0.02
        Of a context without a closed trade.
    exploration_confidence : float, default=0.62
    exploration_confidence_tier_1 : float, default=0.72
        Where the stage admits tier 1 alone, else a new account could never trade.
    exploration_trades : int, default=20
        Closed trades from which nothing is explored any more.

    Raises
    ------
    DataError
        If a value is not allowed, or tier 1 does not begin above tier 2.
    """

    gate: PromotionGateConfig = field(default_factory=PromotionGateConfig)
    floor: Fraction = 0.45
    tier_1_from: Fraction = 0.70
    tier_2_from: Fraction = 0.55
    cold_confidence: Fraction = 0.55
    cold_size: Fraction = 0.02
    exploration_confidence: Fraction = 0.62
    exploration_confidence_tier_1: Fraction = 0.72
    exploration_trades: Count = 20

    def _check(self) -> None:
        if self.tier_2_from >= self.tier_1_from:
            raise refuse(self, "tier_2_from", "below `tier_1_from`", self.tier_2_from)

    def tier(self, confidence: float) -> int:
        """Return the tier of a confidence: 1 is the surest, 3 the least sure."""
        return 1 if confidence >= self.tier_1_from else 2 if confidence >= self.tier_2_from else 3


class Pythia:
    """Size signals by the record of their context.

    Parameters
    ----------
    trade_log : TradeLog
        The log in force, the one execution writes to.
    sizing : Sizing
    config : PythiaConfig, optional
    """

    def __init__(self, trade_log: TradeLog, sizing: Sizing, config: PythiaConfig | None = None) -> None:
        self.config = config or PythiaConfig()
        self._trade_log = trade_log
        self._sizing = sizing
        self._gate = PromotionGate(self.config.gate)

    def size(self, signal: FilteredSignal, macro: MacroContext, stage: StageRules, *, paper: bool) -> SizedSignal | Refusal:
        """Return the signal with confidence and size, or what bound.

        Parameters
        ----------
        signal : FilteredSignal
        macro : MacroContext
            The market it meets; its regime and its VIX are part of the context.
        stage : StageRules
            What the stage of the account's equity allows: here, which tiers.
        paper : bool
            Whether no real money is at stake. Outside it nothing is explored.

        Returns
        -------
        SizedSignal or Refusal
            The size is not clamped yet: that is `check_limits`.

        Raises
        ------
        StoreError
            If the record of the context cannot be read: what is not known is not sized. A count of trades that cannot be read
            only forbids exploration.
        """
        band = macro.vix_band
        if band is None:
            return _refuse(BindingConstraint.MACRO_UNAVAILABLE, "the VIX is not known, so the context has no record.")
        key = context_key(signal.category, macro.regime, band)
        estimate = self._gate.judge(self._trade_log.find_hit_rate(key))
        if estimate.n_closed == 0:
            return self._start_cold(signal, macro, stage, key, paper=paper)
        facts = _facts(key, estimate)
        if estimate.p < self.config.floor:
            floor = f"is below the floor of {self.config.floor:.2f}"
            return _refuse(BindingConstraint.CONFIDENCE_BELOW_FLOOR, f"confidence {estimate.p:.3f} {floor}: {facts}.")
        tier = self.config.tier(estimate.p)
        if tier > stage.max_tier:
            return _refuse(BindingConstraint.TIER_BLOCKED, f"{_tier_text(estimate.p, tier, stage)}: {facts}.")
        size = float(self._sizing.size(Evidence.of(estimate)))
        if size == 0.0:
            reason = f"the {self._sizing.name} sizing sees no edge: {facts}."
            return _refuse(BindingConstraint.CONFIDENCE_BELOW_FLOOR, reason)
        return SizedSignal(original=signal, macro=macro, confidence=estimate.p, position_size_pct=size)

    def _start_cold(
        self, signal: FilteredSignal, macro: MacroContext, stage: StageRules, key: str, *, paper: bool
    ) -> SizedSignal | Refusal:
        explores = paper and self._may_explore()
        confidence = self._cold_confidence(stage, explores)
        tier = self.config.tier(confidence)
        if confidence < self.config.floor or tier > stage.max_tier:
            reason = f"{key} has no closed trade, and {_tier_text(confidence, tier, stage)}."
            return _refuse(BindingConstraint.COLD_START_LOW_CONFIDENCE, reason)
        return SizedSignal(
            original=signal,
            macro=macro,
            confidence=confidence,
            position_size_pct=self.config.cold_size,
            is_exploration=explores,
        )

    def _cold_confidence(self, stage: StageRules, explores: bool) -> float:
        if not explores:
            return self.config.cold_confidence
        only_the_surest = stage.max_tier == 1
        return self.config.exploration_confidence_tier_1 if only_the_surest else self.config.exploration_confidence

    def _may_explore(self) -> bool:
        try:
            return self._trade_log.count_closed() < self.config.exploration_trades
        except StoreError as error:
            _log.warning("nothing is explored: the closed trades cannot be counted: %s", error)
            return False


def _refuse(constraint: BindingConstraint, reason: str) -> Refusal:
    return Refusal(stage=Stage.PYTHIA, constraint=constraint, reason=reason)


def _tier_text(confidence: float, tier: int, stage: StageRules) -> str:
    return f"confidence {confidence:.3f} is tier {tier}, stage {stage.stage.value} admits tiers up to {stage.max_tier}"


def _facts(key: str, estimate: Estimate) -> str:
    return f"{key}, {estimate.n_closed} closed, {estimate.hit_rate or 0.0:.1%} hits, {estimate.status.value}"
