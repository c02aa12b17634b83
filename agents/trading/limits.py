"""The limits of the book: hard rules between a size and an order, the same for every signal.

Hides nothing. Promises that what passes keeps every cap, and that a refusal names the first of these, in this order:

1. `halted`: trading, or this symbol, is halted;
2. `unknown_equity`: nobody knows what the account is worth;
3. `ticker_cap`: the symbol has a position, or an entry that may still fill;
4. `cooldown`: it was traded less than the cooldown ago;
5. `sector_cap`: its sector has as many positions as allowed;
6. `global_cap`: the stage has as many positions as allowed;
7. `seniority_cap`: the system's seniority admits no position at all, which is so for real money below the highest tier;
8. `budget`: with this position more than the allowed share of equity, or more than the cash, would be deployed.

That is: what stops everything, then what concerns the symbol, then the book, then the money. The size is clamped before the
budget is looked at; where a clamp cuts it, the decision names the tighter one, `global_cap` for the stage's largest position
and `seniority_cap` for the system's, the stage's on a tie. Of what is left a signal is staked the share that its compliance
score says, all of it when it is clean: so a flag or a review weighs where no model reads of it. A position that does not fit
the budget is refused, not shrunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType

from agents.trading.milestones import StageRules
from agents.trading.seniority import SeniorityConfig
from core.errors import DataError
from core.message import Message, refuse
from core.store.trading_records import SeniorityTier
from core.types import (
    BindingConstraint,
    Count,
    Fraction,
    Identifier,
    NotNegative,
    Refusal,
    SizedSignal,
    Stage,
    Ticker,
)

_ROUNDING = 1e-9  # relative: sums of position values miss a cap by less than this when they meet it exactly


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitsConfig(Message):
    """The limits that do not depend on the stage.

    Parameters
    ----------
    cooldown_hours : float, default=48
        Between two trades of a symbol.
    max_deployed : float, default=0.9
        Largest share of equity in positions.
    max_per_sector : int, default=3
        Positions of one sector; a symbol whose sector nobody knows is a sector by itself, and the trace says so.
    seniority : SeniorityConfig
        Which sizes the tiers allow.
    """

    cooldown_hours: NotNegative = 48.0
    max_deployed: Fraction = 0.9
    max_per_sector: Count = 3
    seniority: SeniorityConfig = field(default_factory=SeniorityConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class BookView(Message):
    """What the limits may know of the book, as of now.

    Parameters
    ----------
    equity : float, optional
        What may be sized on, in the account's currency: without the vault. None when it is not known.
    cash : float
        Cash that is free, without the vault; negative on margin.
    deployed : float
        Value of the open positions and of entries that may still fill.
    open_symbols : tuple of str
        Symbols with a position or with an entry that may still fill.
    sectors : mapping of str to str
        Sector by symbol, of the open ones and of those that may be traded.
    last_trade_at : mapping of str to datetime
        When a symbol was last traded, UTC, from the trade log.
    halted : bool, default=False
        No new order at all.
    halted_symbols : tuple of str, default=()
        No new order for these.

    Raises
    ------
    DataError
        If a value is not allowed; if a symbol is open twice.
    """

    equity: NotNegative | None
    cash: float
    deployed: NotNegative = 0.0
    open_symbols: tuple[Ticker, ...] = ()
    sectors: Mapping[Ticker, Identifier] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    last_trade_at: Mapping[Ticker, datetime] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    halted: bool = False
    halted_symbols: tuple[Ticker, ...] = ()

    def _check(self) -> None:
        if len(set(self.open_symbols)) != len(self.open_symbols):
            raise refuse(self, "open_symbols", "without repetition", self.open_symbols)


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeDecision(Message):
    """The size that is allowed, as a share of equity, and what cut it; None where nothing did."""

    position_size_pct: Fraction
    constraint: BindingConstraint | None = None


def check_limits(
    sized: SizedSignal,
    symbol: str,
    book: BookView,
    rules: StageRules,
    seniority: SeniorityTier,
    config: LimitsConfig,
    now: datetime,
    *,
    paper: bool = True,
) -> SizeDecision | Refusal:
    """Return the size that every limit allows, or the first limit that forbids the trade.

    Parameters
    ----------
    sized : SizedSignal
    symbol : str
        The one that would be bought.
    book : BookView
    rules : StageRules
        Of the account's stage.
    seniority : SeniorityTier
        The system's: that of its lowest agent.
    config : LimitsConfig
    now : datetime
        UTC.
    paper : bool, default=True
        Whether no real money is at stake.

    Raises
    ------
    DataError
        If `sized` has no size, or `now` is naive.
    """
    if sized.skip:
        raise DataError("`sized` must have a size, but was skipped by Pythia: end its way there.")
    if now.utcoffset() is None:
        raise DataError(f"`now` must be tz-aware, was {now.isoformat()}; use UTC.")
    refusal = _find_block(symbol, book, rules, config, now)
    if refusal is not None:
        return refusal
    decision = clamp_size(sized.position_size_pct, rules, seniority, config, paper=paper)
    if decision.position_size_pct == 0.0:
        at_stake = "on paper" if paper else "of real money"
        reason = f"nothing may be staked {at_stake} at stage {rules.stage.value} with a system of tier {seniority.value}."
        return _refuse(decision.constraint or BindingConstraint.SENIORITY_CAP, reason)
    decision = replace(decision, position_size_pct=decision.position_size_pct * sized.compliance_score)
    return _check_budget(decision, book, config) or decision


def clamp_size(
    size: float, rules: StageRules, seniority: SeniorityTier, config: LimitsConfig, *, paper: bool = True
) -> SizeDecision:
    """Return a size within the stage's and the seniority's caps; to be called again after any override of a model."""
    seniority_cap = config.seniority.position_cap(seniority, paper=paper)
    cap = min(rules.max_size, seniority_cap)
    if size <= cap:
        return SizeDecision(position_size_pct=size)
    by_stage = rules.max_size <= seniority_cap
    constraint = BindingConstraint.GLOBAL_CAP if by_stage else BindingConstraint.SENIORITY_CAP
    return SizeDecision(position_size_pct=cap, constraint=constraint)


def _find_block(symbol: str, book: BookView, rules: StageRules, config: LimitsConfig, now: datetime) -> Refusal | None:
    if book.halted or symbol in book.halted_symbols:
        what = "trading" if book.halted else symbol
        return _refuse(BindingConstraint.HALTED, f"{what} is halted.")
    if book.equity is None:
        return _refuse(BindingConstraint.UNKNOWN_EQUITY, "the equity is not known, so no size can be.")
    if symbol in book.open_symbols:
        return _refuse(BindingConstraint.TICKER_CAP, f"{symbol} has a position or a living entry; one is allowed.")
    last = book.last_trade_at.get(symbol)
    # A last trade that lies in the future counts as just now: some clock is wrong, and waiting is safe.
    if last is not None and now - last < timedelta(hours=config.cooldown_hours):
        since = f"{symbol} was traded at {last.isoformat()}, less than {config.cooldown_hours:g} h ago."
        return _refuse(BindingConstraint.COOLDOWN, since)
    sector = book.sectors.get(symbol)
    same = 0 if sector is None else sum(book.sectors.get(other) == sector for other in book.open_symbols)
    if same >= config.max_per_sector:
        where = f"sector {sector}" if sector is not None else "an unknown sector"
        reason = f"{same} positions of {where} are open, {config.max_per_sector} are allowed."
        return _refuse(BindingConstraint.SECTOR_CAP, reason)
    if len(book.open_symbols) >= rules.max_positions:
        reason = f"{len(book.open_symbols)} positions are open, stage {rules.stage.value} allows {rules.max_positions}."
        return _refuse(BindingConstraint.GLOBAL_CAP, reason)
    return None


def _check_budget(decision: SizeDecision, book: BookView, config: LimitsConfig) -> Refusal | None:
    equity = book.equity or 0.0
    stake = decision.position_size_pct * equity
    room = min(config.max_deployed * equity - book.deployed, book.cash)
    if equity > 0.0 and stake <= room + _ROUNDING * equity:
        return None
    reason = (
        f"a position of {stake:.2f} does not fit into {max(0.0, room):.2f}: {book.deployed:.2f} of {equity:.2f} are deployed"
    )
    return _refuse(BindingConstraint.BUDGET, f"{reason}, {config.max_deployed:.0%} are allowed, cash is {book.cash:.2f}.")


def _refuse(constraint: BindingConstraint, reason: str) -> Refusal:
    return Refusal(stage=Stage.LIMITS, constraint=constraint, reason=reason)
