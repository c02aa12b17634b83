"""Housekeeping: what must be true before anything new is decided: our story and the broker's agree, and the book is valued.

Hides in which order things are brought up to date. Promises that recovery and the regular tick are one path, of which
recovery asks for everything; and that what cannot be explained halts what it touches.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from agents.brokers.asking import read_all
from agents.brokers.broker import Account, Broker, BrokerPosition
from agents.trading.argus import Argus, Valuation
from agents.trading.context import Alerting, PipelineConfig
from agents.trading.guard import Guard
from agents.trading.hit_rates import RememberingTradeLog
from agents.trading.milestones import move_money
from agents.trading.outcomes import OutcomeResolver
from agents.trading.reconciliation import Reconciler, Synced
from agents.trading.seniority import Ladder, system_tier
from core.clock import Clock
from core.errors import BrokerError, ConfigurationError, DataError
from core.store.decisions import ALL, DecisionLog, symbol_scope
from core.store.research.store import ResearchStore
from core.store.trading_records import SeniorityTier
from core.types import AgentHealth, HealthReport

_log = logging.getLogger(__name__)

ACTOR = "housekeeping"
_SHARES = 1e-6
_BOOK_OF = "trading account"
"""Under which it is remembered whose book the store keeps: of whoever trades first, or first since that is remembered."""


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What a start found.

    Parameters
    ----------
    synced : Synced
        What the broker told.
    n_closed : int
        Trades that were closed while nobody looked.
    mismatched : tuple of str
        Symbols of which the broker holds other shares than the fills say; they are halted.
    valuation : Valuation
    """

    synced: Synced
    n_closed: int
    mismatched: tuple[str, ...]
    valuation: Valuation


class Housekeeping:
    """Bring orders, outcomes and the book up to date.

    Parameters
    ----------
    broker : Broker
    log : DecisionLog
    reconciler : Reconciler
    outcomes : OutcomeResolver
    argus : Argus
    trade_log : RememberingTradeLog
    ladder : Ladder
    config : PipelineConfig
    clock : Clock
    memory : ResearchStore
        Keeps whose account the book is of.
    alerts : Alerting, optional
    """

    def __init__(
        self,
        *,
        broker: Broker,
        log: DecisionLog,
        reconciler: Reconciler,
        outcomes: OutcomeResolver,
        argus: Argus,
        trade_log: RememberingTradeLog,
        ladder: Ladder,
        config: PipelineConfig,
        clock: Clock,
        memory: ResearchStore,
        alerts: Alerting | None = None,
    ) -> None:
        self.broker = broker
        self.log = log
        self.reconciler = reconciler
        self.outcomes = outcomes
        self.argus = argus
        self.trade_log = trade_log
        self.ladder = ladder
        self.config = config
        self.clock = clock
        self.memory = memory
        self.alerts = alerts
        self.guard = Guard(broker, log, reconciler, config.guard_seconds, alerts)
        self.synced = Synced(reachable=False, reason="the broker was not asked yet")
        self.tier = SeniorityTier.TRAINEE
        self._halted: set[str] = set()
        self._recovered = False
        self._ticked_at: datetime | None = None

    def recover(self) -> Recovered:
        """Reconcile with the broker before anything new.

        Returns
        -------
        Recovered
            With ``synced.reachable`` false when the broker does not answer; then no order is sent, and the next tick tries
            again.

        Raises
        ------
        StoreError
            If what was found cannot be written down.
        ConfigurationError
            If the account is kept in another currency than the rules are written for, or is another than the one that the
            book in the store is of: nothing was written down then.
        """
        now = self.clock.now()
        self.synced = self._reach_account() or self.reconciler.sync(now, everything=True)
        closed = self.outcomes.resolve(now)
        mismatched: tuple[str, ...] = ()
        if self.synced.reachable:
            try:
                self._open_account(now)
                mismatched = self._compare(now)
            except (BrokerError, DataError) as error:
                self.synced = Synced(reachable=False, reason=f"{error}")
        self._recovered = self.synced.reachable
        self.trade_log.forget()
        valuation = self._watch(now, self._value(now), at_start=True)
        return Recovered(synced=self.synced, n_closed=len(closed), mismatched=mismatched, valuation=valuation)

    def tick(self) -> Valuation:
        """Collect what happened since the last tick and value the book; the first tick is recovery.

        Raises
        ------
        StoreError, ConfigurationError
            As `recover`.
        """
        if not self._recovered:
            return self.recover().valuation
        now = self.clock.now()
        self._sync(now)
        return self._watch(now, self._value(now))

    def tick_if_due(self) -> None:
        """Tick, unless the last tick was just now."""
        now = self.clock.now()
        due = self._ticked_at is None or now - self._ticked_at >= timedelta(seconds=self.config.tick_seconds)
        if due or not self._recovered:
            self.tick()

    def report_book(self) -> HealthReport:
        """Return how the book is doing: failed while the equity is unknown, degraded while something is halted."""
        valuation, halts = self.argus.valuation, self.argus.halts()
        if valuation is None or valuation.equity is None:
            unpriced = () if valuation is None else valuation.unpriced
            return self._report("argus", AgentHealth.FAILED, f"the equity is unknown, no price of: {', '.join(unpriced)}")
        halted = "; ".join(f"{halt.scope}: {halt.reason}" for halt in halts)
        return self._report("argus", AgentHealth.DEGRADED if halts else AgentHealth.HEALTHY, halted)

    def read_again(self) -> None:
        """Read the book anew from the store and value it at the prices of now, rounds or not.

        Raises
        ------
        StoreError
            If the store cannot be read, or the figures not be written down.
        """
        now = self.clock.now()
        self.argus.reload(now)
        self.argus.mark(now)

    def _report(self, agent: str, health: AgentHealth, message: str) -> HealthReport:
        return HealthReport(agent_name=agent, status=health, message=message[:2000], checked_at=self.clock.now())

    def _sync(self, now: datetime) -> None:
        self.synced = self.reconciler.sync(now)
        self._recovered = self.synced.reachable
        if self.synced.changed and self.outcomes.resolve(now):
            self.trade_log.forget()

    def _watch(self, now: datetime, valuation: Valuation, *, at_start: bool = False) -> Valuation:
        """Look whether what is held has its stop, and return the value of the book after that."""
        if not self.synced.reachable or not (at_start or self.guard.is_due(now)):
            return valuation
        try:
            changed = self.guard.look(self.argus.held, now)
            if at_start and self.guard.is_due(now):
                # A process that ends after this has no other tick to look again.
                changed |= self.guard.look(self.argus.held, now)
        except (BrokerError, DataError) as error:
            self.synced, self._recovered = Synced(reachable=False, reason=f"{error}"), False
            return valuation
        if not changed:
            return valuation
        self._sync(now)
        return self._value(now)

    def _value(self, now: datetime) -> Valuation:
        self.argus.reload(now)
        valuation = self.argus.mark(now)
        self.tier = system_tier(self.ladder.tiers(), self.ladder.config.agents)
        self._ticked_at = now
        halts = self.argus.halts()
        if halts and self.synced.reachable:
            scopes = {halt.scope for halt in halts}
            stopped = None if ALL in scopes else [scope.removeprefix("symbol:") for scope in scopes]
            if self.reconciler.cancel_entries(stopped):
                self._sync(now)
                self.argus.reload(now)
                valuation = self.argus.mark(now)
                halts = self.argus.halts()
        now_halted = {halt.scope: halt.reason for halt in halts}
        for scope in sorted({ALL, *now_halted, *self._halted}):
            self._tell(f"trading {scope}", "halted" if scope in now_halted else "open", now_halted.get(scope, ""))
        self._halted = set(now_halted)
        return valuation

    def _open_account(self, now: datetime) -> None:
        """Write down the opening balance, and later what the broker's cash shows beyond our fills."""
        account = self._account()
        if account.currency != self.argus.config.currency:
            raise ConfigurationError(
                f"the account is kept in {account.currency} and the rules in {self.argus.config.currency}: set "
                "`ArgusConfig.currency` and `AresConfig.currency` to that of the account."
            )
        moved = self.log.cash_movements()
        by_fills = sum(line.cash for line in self.log.list_ledger())
        if moved is None:
            self.log.move_cash("opening", account.cash - by_fills, now, "cash at the broker at the first start")

    def _reach_account(self) -> Synced | None:
        """Connect, and refuse an account that the book is not of; return why, where the broker does not answer."""
        kept = None if self.log.cash_movements() is None else self.memory.load_agent_state(_BOOK_OF)
        if kept and kept["broker"] != self.broker.name:  # a broker that does not answer is another one all the same
            raise ConfigurationError(
                f"this store keeps the book of {_named(kept)}, and the broker is {self.broker.name}: an account needs a store "
                "of its own. Choose the broker of before, or another AQF_HOME or AQF_DATABASE_URL."
            )
        try:
            self.broker.connect()
            there = self._account()
        except (BrokerError, DataError) as error:
            return Synced(reachable=False, reason=f"{error}")
        theirs = {"broker": self.broker.name, "account": there.account}
        if kept == theirs:
            return None
        if kept:
            raise ConfigurationError(
                f"this store keeps the book of {_named(kept)}, and the broker has {_named(theirs)}: an account needs a store "
                "of its own. Choose the broker and account of before, or another AQF_HOME or AQF_DATABASE_URL."
            )
        self.memory.save_agent_state(_BOOK_OF, theirs)
        return None

    def _account(self) -> Account:
        (account,) = read_all(Account, [self.broker.get_account()])
        return account

    def _compare(self, now: datetime) -> tuple[str, ...]:
        ours = {line.symbol: line.qty for line in self.log.list_ledger()}
        theirs = self._positions()
        differing = tuple(
            sorted(name for name in {*ours, *theirs} if abs(ours.get(name, 0.0) - theirs.get(name, 0.0)) > _SHARES)
        )
        for symbol in differing:
            reason = f"the broker holds {theirs.get(symbol, 0.0):g} of {symbol}, the fills say {ours.get(symbol, 0.0):g}"
            self.argus.halt(symbol_scope(symbol), reason=reason, actor=ACTOR, now=now)
        if not differing:
            self._explain_cash(now, theirs)
        return differing

    def _positions(self) -> dict[str, float]:
        return {position.symbol: position.qty for position in read_all(BrokerPosition, self.broker.list_positions())}

    def _explain_cash(self, now: datetime, positions: Mapping[str, float]) -> None:
        """Take cash that no fill explains, while every share is, for money paid in or out: dividends, interest, deposits.

        A fill between two questions changes cash too: where anything has moved since shares were compared, it is left to the
        next recovery.
        """
        cash = self._account().cash
        known = (self.log.cash_movements() or 0.0) + sum(line.cash for line in self.log.list_ledger())
        if abs(cash - known) <= max(self.config.cash_tolerance, 1e-9 * abs(cash)):
            return
        again = self.reconciler.sync(now)
        if again.changed:
            self.outcomes.resolve(now)
        if again.changed or not again.reachable or self._positions() != positions:
            return
        milestones, moved = self.argus.milestones, cash - known
        after = None if milestones.state is None else move_money(milestones.state, moved)
        self.log.move_cash(f"broker {now.isoformat()}", moved, now, "the broker's cash beyond our fills", milestones=after)
        milestones.reload()
        _log.warning("the broker's cash is %.2f and ours was %.2f: taken for money paid in or out", cash, known)

    def _tell(self, subject: str, state: str, text: str) -> None:
        if self.alerts is not None:
            self.alerts.report(subject, state, text)

    def probe(self) -> HealthReport:
        """Ask the broker whether it answers, and return how the way to it is doing now.

        Notes
        -----
        It costs one question, for the account, and changes nothing. Where nobody answers, the next tick is a recovery. A broker
        that answers again, or answered this and not what the last tick asked, is degraded until a tick succeeds.
        """
        try:
            self._account()
        except (BrokerError, DataError) as error:
            self._recovered = False
            return self._report("ares", AgentHealth.FAILED, f"{error}")
        if self.synced.reachable:
            return self._report("ares", AgentHealth.HEALTHY, "")
        return self._report("ares", AgentHealth.DEGRADED, f"it answers; at the last round: {self.synced.reason}")


def _named(account: Mapping[str, Any]) -> str:
    return f"account {account['account'] or 'without a name'} at {account['broker']}"
