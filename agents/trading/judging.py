"""The stages that judge: is it worth a look, may it be traded, in this market, how large, within which limits.

Hides how each agent is asked and what stands in for one that fails. Promises that a failing agent refuses, that the
limits see every order that this batch has decided on before, and that what stops new risk does not stop a signal that can
only close what is held.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from agents.trading.argus import Argus
from agents.trading.batch import Batch, timed
from agents.trading.breaker import CircuitBreaker
from agents.trading.case import Case
from agents.trading.context import TradingContext
from agents.trading.direction import is_negative
from agents.trading.housekeeping import Housekeeping
from agents.trading.limits import BookView, check_limits, clamp_size
from agents.trading.milestones import StageRules
from agents.trading.pythia import Pythia
from agents.trading.zeus import Verdict, Zeus
from core.errors import ChatModelError
from core.store.decisions import Screened
from core.store.trading_records import SeniorityTier
from core.types import BindingConstraint, MacroContext, MarketRegime, RawSignal, Refusal, Stage

_BOOK_BOUND = frozenset(
    {
        BindingConstraint.TICKER_CAP,
        BindingConstraint.COOLDOWN,
        BindingConstraint.SECTOR_CAP,
        BindingConstraint.GLOBAL_CAP,
        BindingConstraint.BUDGET,
    }
)
"""Refusals that an order of the same turn may have caused, which may yet come to nothing."""
_BY_TIER = frozenset({BindingConstraint.TIER_BLOCKED, BindingConstraint.COLD_START_LOW_CONFIDENCE})
"""Refusals by which a context is kept from the trades that it would learn from."""


class Judging:
    """Ask Icarus, Hades, Artemis, Pythia, the limits and ZEUS, each for all signals of a batch that are left.

    Parameters
    ----------
    context : TradingContext
    breakers : mapping of str to CircuitBreaker
        By agent.
    pythia : Pythia
    zeus : Zeus
    argus : Argus
        The book.
    housekeeping : Housekeeping
        Which tier the system is of.
    """

    def __init__(
        self,
        context: TradingContext,
        breakers: Mapping[str, CircuitBreaker],
        pythia: Pythia,
        zeus: Zeus,
        argus: Argus,
        housekeeping: Housekeeping,
    ) -> None:
        self.context = context
        self.breakers = breakers
        self.pythia = pythia
        self.zeus = zeus
        self.argus = argus
        self.housekeeping = housekeeping
        self._macro_saved: datetime | None = None

    def scan(self, batch: Batch) -> None:
        icarus, breaker = self.context.gates.icarus, self.breakers["icarus"]
        broken = Refusal(
            stage=Stage.ICARUS, constraint=BindingConstraint.OUT_OF_UNIVERSE, reason="nobody knows which ticker it is about"
        )
        for case in batch.live:
            with timed(case, Stage.ICARUS):
                found = breaker.call(lambda case=case: icarus.judge(case.signal, batch.now), lambda: broken)  # type: ignore[misc]
                if isinstance(found, Refusal):
                    if self._is_only_muted(case.signal, found):
                        case.symbol, case.closes = case.signal.affected_tickers[0], True
                        case.passed(Stage.ICARUS, self._closing(case, found.reason))
                    else:
                        case.refuse(found)
                    continue
                if not found.affected_tickers:
                    reason = "no ticker is known for it"
                    case.refuse(Refusal(stage=Stage.ICARUS, constraint=BindingConstraint.OUT_OF_UNIVERSE, reason=reason))
                    continue
                case.signal, case.symbol = found, found.affected_tickers[0]
                case.closes = self._speaks_against_holding(found)
                case.passed(Stage.ICARUS)

    def _speaks_against_holding(self, signal: RawSignal) -> bool:
        """Say whether a signal can do no more than close what is held."""
        symbol = next(iter(signal.affected_tickers), "")
        return self.argus.held.get(symbol, 0.0) > 0.0 and is_negative(signal)

    def _is_only_muted(self, signal: RawSignal, refusal: Refusal) -> bool:
        """Say whether a signal against what is held is refused for no more than what became of entries like it."""
        return refusal.constraint is BindingConstraint.MUTED_PATTERN and self._speaks_against_holding(signal)

    def _closing(self, case: Case, against: str) -> str:
        """Return in words why a gate is passed that stands before entries."""
        symbol = case.symbol or ""
        held = self.argus.held.get(symbol, 0.0)
        return f"passed, since it can only close the {held:g} {symbol} that are held; an entry would be refused: {against}"

    def screen(self, batch: Batch) -> None:
        hades, breaker = self.context.gates.hades, self.breakers["hades"]
        for case in batch.live:
            with timed(case, Stage.HADES):
                screening = breaker.call(lambda case=case: hades.screen(case.signal), lambda: None)  # type: ignore[misc]
                if screening is None:
                    reason = "the screening failed, and what is not screened is not traded"
                    case.refuse(Refusal(stage=Stage.HADES, constraint=BindingConstraint.SANCTIONS_LIST_MISSING, reason=reason))
                    continue
                case.filtered = screening.filtered
                case.screened = Screened(
                    signal=screening.filtered,
                    killed=screening.refusal is not None,
                    list_version=screening.list_version,
                    matched_entry=screening.matched_entry,
                )
                if screening.refusal is not None:
                    case.refuse(screening.refusal)
                    continue
                said = "; ".join((f"compliance {screening.filtered.compliance_score:g}", *screening.filtered.notes))
                case.passed(Stage.HADES, said)

    def weigh_market(self, batch: Batch) -> None:
        artemis, breaker = self.context.gates.artemis, self.breakers["artemis"]
        began = time.perf_counter()
        macro = batch.macro = breaker.call(artemis.context, lambda: _blind(batch.now))
        if macro.as_of != self._macro_saved:
            self.context.store.trading.save_macro_context(macro)
            self._macro_saved = macro.as_of
        shared = (time.perf_counter() - began) / max(1, len(batch.live))
        for case in batch.live:
            assert case.filtered is not None
            case.took(Stage.ARTEMIS, shared)
            refusal = artemis.judge(case.filtered, macro)
            if refusal is not None and not case.closes:
                case.refuse(refusal)
                continue
            seen = f"{macro.regime.value}, VIX {macro.vix}"
            case.passed(Stage.ARTEMIS, seen if refusal is None else self._closing(case, refusal.reason))

    def size(self, batch: Batch) -> None:
        rules, paper, breaker = self.argus.rules(), self.context.broker.is_paper, self.breakers["pythia"]
        broken = Refusal(
            stage=Stage.PYTHIA,
            constraint=BindingConstraint.COLD_START_LOW_CONFIDENCE,
            reason="the trade log cannot be read, and what has no record is not sized",
        )
        macro = batch.macro
        assert macro is not None
        for case in batch.live:
            filtered = case.filtered
            assert filtered is not None
            if case.closes:
                size = f"the {self.argus.held.get(case.symbol or '', 0.0):g} {case.symbol} that are held"
                case.passed(Stage.PYTHIA, f"not sized, since it can only close: its size is {size}")
                continue
            with timed(case, Stage.PYTHIA):
                found = breaker.call(
                    lambda filtered=filtered: self.pythia.size(filtered, macro, rules, paper=paper),  # type: ignore[misc]
                    lambda: broken,
                )
                if isinstance(found, Refusal):
                    lasts = paper and found is not broken and found.constraint in _BY_TIER
                    hint = self._blocked_for_good(rules) if lasts else ""
                    case.refuse(replace(found, reason=f"{found.reason}{hint}"))
                    continue
                case.sized = found
                case.passed(Stage.PYTHIA, f"confidence {found.confidence:.3f}, size {found.position_size_pct:.2%}")
        batch.waiting = batch.live

    def _blocked_for_good(self, rules: StageRules) -> str:
        """Return in words why a blocked context stays so on paper, and what can be done; nothing at the widest stage."""
        wider = [stage for stage in self.argus.milestones.config.stages if stage.from_equity > rules.from_equity]
        tiers = {stage.max_tier: stage.from_equity for stage in reversed(wider) if stage.max_tier > rules.max_tier}
        if not tiers:
            return ""
        where = ", ".join(f"up to {tier} from {equity:,.0f}" for tier, equity in sorted(tiers.items()))
        return (
            f" A context learns from its own trades alone and gets none here: it stays blocked at stage {rules.stage.value}. "
            f"Tiers are admitted {where} of equity: begin a paper account of a new store with more cash."
        )

    def limit(self, batch: Batch) -> None:
        """Let signals pass until one's verdict would depend on an order of this turn that is not sent yet."""
        book = self.argus.view(case.symbol or "" for case in batch.waiting)
        rules, tier = self.argus.rules(), self.housekeeping.tier
        batch.turn = []
        while batch.waiting:
            case = batch.waiting[0]
            assert case.symbol is not None
            with timed(case, Stage.LIMITS):
                found = self._limit_one(case, batch.turn, book, rules, tier, batch.now)
                if isinstance(found, Refusal) and batch.turn and found.constraint in _BOOK_BOUND:
                    return
                batch.waiting.pop(0)
                if isinstance(found, Refusal):
                    case.refuse(found)
                    continue
                book = found
                case.passed(Stage.LIMITS, self._limited(case))
                batch.turn.append(case)

    def _limited(self, case: Case) -> str:
        if case.closes:
            return "it only closes what is held"
        assert case.sized is not None
        said = [f"size {case.size or 0.0:.2%}"]
        if case.sized.compliance_score < 1.0:
            said.append(f"lowered to {case.sized.compliance_score:.0%} by its compliance")
        if case.symbol not in self.argus.sectors:
            said.append("its sector is not known, so that it counts as one by itself")
        return "; ".join(said)

    def _limit_one(
        self, case: Case, turn: Sequence[Case], book: BookView, rules: StageRules, tier: SeniorityTier, now: datetime
    ) -> BookView | Refusal:
        """Return the book with this signal's stake in it, or what bound."""
        assert case.symbol is not None
        if is_negative(case.signal):
            selling = {other.symbol or "" for other in turn if other.closes}
            return self._limit_sale(case, book, self.argus.closing | selling)
        assert case.sized is not None
        paper = self.context.broker.is_paper
        found = check_limits(case.sized, case.symbol, book, rules, tier, self.context.config.limits, now, paper=paper)
        if isinstance(found, Refusal):
            return found
        case.decision = found
        stake = found.position_size_pct * (book.equity or 0.0)
        return replace(
            book,
            cash=book.cash - stake,
            deployed=book.deployed + stake,
            open_symbols=(*book.open_symbols, case.symbol),
            last_trade_at={**book.last_trade_at, case.symbol: now},
        )

    def _limit_sale(self, case: Case, book: BookView, closing: frozenset[str]) -> BookView | Refusal:
        """Let bad news close what is held: that frees money, so that no cap but a halt stands against it."""
        symbol = case.symbol or ""
        if book.halted or symbol in book.halted_symbols:
            return Refusal(stage=Stage.LIMITS, constraint=BindingConstraint.HALTED, reason=f"{symbol} or all trading is halted")
        if self.argus.held.get(symbol, 0.0) <= 0.0:
            reason = f"it speaks against {symbol}, of which nothing is held: the desk is long only"
            return Refusal(stage=Stage.ARES, constraint=BindingConstraint.OUT_OF_UNIVERSE, reason=reason)
        if symbol in closing:
            reason = f"a sale of {symbol} is under way already"
            return Refusal(stage=Stage.LIMITS, constraint=BindingConstraint.TICKER_CAP, reason=reason)
        case.closes, case.sized = True, None  # its size is what is held, whatever a stake would have been
        return book

    def direct(self, batch: Batch) -> None:
        for case in batch.turn:
            if case.closes:
                case.passed(Stage.ZEUS, "selling what is held on bad news needs no persuasion")
                continue
            with timed(case, Stage.ZEUS):
                found = self._ask_zeus(case, batch.now)
                if isinstance(found, Refusal):
                    case.refuse(found)
                    continue
                case.verdict = found
                case.passed(Stage.ZEUS, "; ".join(found.flags) or ("rule mode" if self.context.chat is None else ""))
        batch.turn = [case for case in batch.turn if case.is_live]

    def _ask_zeus(self, case: Case, now: datetime) -> Verdict | Refusal:
        sized, symbol, size = case.sized, case.symbol or "", case.size or 0.0
        assert sized is not None
        if self.context.chat is None:  # rule mode: the gates have decided
            return Verdict(size=size, confidence=sized.confidence)
        said: list[str] = []

        def judge() -> Verdict | Refusal:
            try:
                return self.zeus.judge(sized, symbol, size, now)
            except ChatModelError as error:
                said.append(f"{error}")
                raise

        def refuse() -> Verdict | Refusal:
            reason = said[0] if said else "the model failed too often and is left alone for a while"
            return Refusal(stage=Stage.ZEUS, constraint=BindingConstraint.LLM_UNAVAILABLE, reason=reason[:2000])

        found = self.breakers["zeus"].call(judge, refuse)
        if isinstance(found, Refusal):
            return found
        paper = self.context.broker.is_paper
        cut = clamp_size(found.size, self.argus.rules(), self.housekeeping.tier, self.context.config.limits, paper=paper)
        return replace(found, size=cut.position_size_pct)


def _blind(now: datetime) -> MacroContext:
    reason = "the market cannot be seen: Artemis failed"
    return MacroContext(as_of=now, regime=MarketRegime.UNKNOWN, suppress=True, suppress_reason=reason)
