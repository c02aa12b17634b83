"""Guard: looks at the broker whether what is held still has its stop, and gives it exits again where it has none.

Hides how exits that somebody cancelled, that the broker ended or that it refused late are told from those that were filled a
moment ago. Promises that a position is acted upon only after two looks in a row, and only for shares that the broker holds,
that no order of ours can sell besides and whose executions are all counted; that each pair that ended is replaced once; and
that what it finds is told.

A position is covered by the stops and sales that work for as many shares as it has. A target alone leaves it naked below, so
it is ended before a new pair is placed; a stop alone is enough.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from agents.brokers.asking import cancel, end, read_all
from agents.brokers.broker import Broker, BrokerOrder, BrokerPosition, Leg, exit_ids
from agents.trading.context import Alerting
from agents.trading.reconciliation import ENDED, Reconciler
from core.store.decisions import ANEW, DecisionBatch, DecisionLog, OpenOrder, symbol_scope
from core.types import PipelineStatus, Side

_log = logging.getLogger(__name__)

ACTOR = "guard"
"""Who halts a symbol whose shares are not where the fills say; an operator looks after it and resumes."""
_SHARES = 1e-6
_STOP, _TARGET = exit_ids("")[Leg.STOP_LOSS], exit_ids("")[Leg.TAKE_PROFIT]


class Guard:
    """Watch over the exits of what is held.

    Parameters
    ----------
    broker : Broker
    log : DecisionLog
    reconciler : Reconciler
        Collects executions, and has the `Exits` that are placed anew.
    seconds : float
        Least time between two looks. A second look at what seemed to have no stop waits for nothing.
    alerts : Alerting, optional
    """

    def __init__(
        self, broker: Broker, log: DecisionLog, reconciler: Reconciler, seconds: float, alerts: Alerting | None = None
    ) -> None:
        self.broker = broker
        self.log = log
        self.reconciler = reconciler
        self.every = timedelta(seconds=seconds)
        self.alerts = alerts
        self._looked_at: datetime | None = None
        self._suspects: set[str] = set()
        self._naked: set[str] = set()

    def is_due(self, now: datetime) -> bool:
        """Whether it is time to look, or something has to be looked at again."""
        return bool(self._suspects) or self._looked_at is None or now - self._looked_at >= self.every

    def look(self, held: Mapping[str, float], now: datetime) -> bool:
        """Compare what is held with the orders that work at the broker.

        Parameters
        ----------
        held : mapping of str to float
            Shares by symbol, as the book has them.
        now : datetime
            UTC.

        Returns
        -------
        bool
            Whether the book or the orders may be others than before.

        Raises
        ------
        BrokerError
            If the broker does not answer; the next look goes on.
        StoreError
            If what was found cannot be written down.

        Notes
        -----
        Where everything is covered this is one question. Orders are asked for before executions and positions: an exit that is
        missing because it was filled shows in those that are asked for later.
        """
        before, self._suspects, self._looked_at = self._suspects, set(), now
        alive: dict[str, BrokerOrder] = {}
        if held:
            orders = read_all(BrokerOrder, self.broker.list_open_orders())
            alive = {order.client_order_id: order for order in orders if order.side is Side.SELL}
        covered = _covered(alive)
        bare = {symbol for symbol, qty in held.items() if qty - covered[symbol] > _SHARES}
        found: dict[str, str] = {}
        if bare:
            self.reconciler.collect(now)
            held = {line.symbol: line.qty for line in self.log.list_ledger()}
            mine = self.log.list_open_orders()
            halted = {halt.scope for halt in self.log.list_halts() if halt.resumed_at is None}
            for symbol in sorted(bare):
                if held.get(symbol, 0.0) - covered[symbol] <= _SHARES:
                    continue
                own = [order for order in mine if order.symbol == symbol]
                text = self._judge(symbol, own, alive, now, seen=symbol in before, halted=symbol_scope(symbol) in halted)
                if text:
                    found[symbol] = text
        self._tell(found, held)
        return bool(bare)

    def _judge(
        self,
        symbol: str,
        own: Sequence[OpenOrder],
        alive: Mapping[str, BrokerOrder],
        now: datetime,
        *,
        seen: bool,
        halted: bool,
    ) -> str:
        """Do what a position without a stop needs, and say what that is; nothing where it needs nothing, or another look."""
        decided = [order for order in own if "order" in order.payload]
        exits = [order for order in own if "parent" in order.payload]
        being_placed = any(ANEW in order.payload and order.status is PipelineStatus.PENDING for order in exits)
        if being_placed or any(order.side is Side.SELL for order in decided):
            return ""  # the reconciler asks for these at every tick
        if decided:
            return self._end_entry(decided[0])
        if not self._all_counted(exits):
            return ""
        if halted:
            return "the symbol is halted, so that nothing is placed: resume it, or close the position at the broker"
        if not seen:
            self._suspects.add(symbol)
            return ""
        return self._restore(symbol, exits, alive, now)

    def _end_entry(self, entry: OpenOrder) -> str:
        """End an entry whose stop has ended; once it has, the reconciler gives exits to what it bought."""
        stop = self.broker.find_order(exit_ids(entry.client_order_id)[Leg.STOP_LOSS])
        if stop is not None and stop.status not in ENDED:
            return ""  # some brokers wake the exits when all of the entry is filled
        cancel(self.broker, entry.client_order_id)
        return "the entry is cancelled, and what it bought gets exits anew"

    def _all_counted(self, exits: Sequence[OpenOrder]) -> bool:
        """Say whether every share has been counted here that the broker says these exits sold."""
        counted: defaultdict[str, float] = defaultdict(float)
        for fill in self.log.list_fills([order.client_order_id for order in exits]):
            counted[fill.client_order_id] += fill.qty
        for order in exits:
            there = self.broker.find_order(order.client_order_id)
            if there is not None:
                sold = there.qty if there.status is PipelineStatus.FILLED else there.filled_qty
                if sold - counted[order.client_order_id] > _SHARES:
                    return False
        return True

    def _restore(self, symbol: str, exits: Sequence[OpenOrder], alive: Mapping[str, BrokerOrder], now: datetime) -> str:
        working = [order.client_order_id for order in exits if order.client_order_id in alive]
        for identity in working:
            if not end(self.broker, identity):
                self._suspects.add(symbol)
                return f"{identity} still works and could not be cancelled, so that no new pair is placed yet"
        if working:
            self.reconciler.collect(now)
            if not self._all_counted(exits):
                self._suspects.add(symbol)
                return ""
        held = next((line.qty for line in self.log.list_ledger() if line.symbol == symbol), 0.0)
        if held <= _SHARES:
            return ""
        positions = read_all(BrokerPosition, self.broker.list_positions())
        there = sum(position.qty for position in positions if position.symbol == symbol)
        last = self.log.find_last_exit(symbol)
        if there - held < -_SHARES or last is None:
            unknown = "nobody wrote down which exits it had"
            reason = unknown if last is None else f"the broker holds {there:g} of {symbol}, the fills say {held:g}"
            if self.log.halt(symbol_scope(symbol), reason=f"no exits watch over {symbol}: {reason}", actor=ACTOR, at=now):
                _log.error("%s is halted: no exits watch over it: %s", symbol, reason)
            return reason
        stop = last.removesuffix(_TARGET).removesuffix(_STOP) + _STOP
        self.reconciler.exits.restore(stop, symbol, f"the exit {stop} ended at the broker", DecisionBatch(), now)
        return "exits are asked for anew"

    def _tell(self, found: Mapping[str, str], held: Mapping[str, float]) -> None:
        for symbol, text in found.items():
            said = f"{held.get(symbol, 0.0):g} {symbol} have no stop at the broker: {text}"
            if symbol not in self._naked:
                _log.error("%s", said)
            if self.alerts is not None:
                self.alerts.report(f"exits {symbol}", "missing", said)
        for symbol in sorted(self._naked - found.keys() - self._suspects):
            if self.alerts is not None:
                self.alerts.report(f"exits {symbol}", "there" if symbol in held else "not needed")
        self._naked = found.keys() | (self._naked & self._suspects)


def _covered(sales: Mapping[str, BrokerOrder]) -> defaultdict[str, float]:
    """Return how many shares of each symbol will be sold if its price falls: by stops and by sales, not by targets."""
    covered: defaultdict[str, float] = defaultdict(float)
    for name, order in sales.items():
        if not name.endswith(_TARGET):
            covered[order.symbol] += order.qty - order.filled_qty
    return covered
