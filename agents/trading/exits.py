"""Exits anew: a position that lost its exits gets them back, when the sale they were cancelled for comes to nothing.

Hides how exits are written down and placed a second time. Promises that an order which ended leads to exits once, under
identities derived from it: they are written down in the transaction that ends it, and only then is the broker asked, again
at each tick until it has said yes or no. After a no, or where they cannot be placed, the symbol is halted.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import NAMESPACE_URL, uuid5

from agents.brokers.asking import Sent, ask, read_all, send_exits, target_of
from agents.brokers.broker import Broker, BrokerPosition, Leg, Order, exit_ids, places_exits
from core.errors import BrokerError, DataError
from core.store.decisions import ANEW, DecisionBatch, DecisionLog, OpenOrder, OrderStatus, symbol_scope
from core.store.trading_records import OrderIntent
from core.types import PipelineStatus, Side

_log = logging.getLogger(__name__)

ACTOR = "exits"
"""Who halts a symbol while nobody knows whether its exits are there; such a halt is lifted when they are."""
RESCUE = "reconciler"
"""Who halts a symbol whose position is left without exits; an operator looks after it and resumes."""
ASKING = "ares"
"""Who halts a symbol while nobody knows what became of an order; such a halt is lifted when the answer comes."""
_WAITING = frozenset({ACTOR, ASKING})
_NAMES = uuid5(NAMESPACE_URL, "aqf:exits")


class Exits:
    """Give positions their exits back.

    Parameters
    ----------
    broker : Broker
        One that does not place exits by themselves leaves its symbol halted.
    log : DecisionLog
    """

    def __init__(self, broker: Broker, log: DecisionLog) -> None:
        self.broker = broker
        self.log = log

    def restore(self, ended: str, symbol: str, why: str, end: DecisionBatch, now: datetime) -> None:
        """Place the exits of a position anew that was left without.

        Parameters
        ----------
        ended : str
            Identity of the order that left it so: a sale that did not close it, or an entry that took its exits along.
        symbol : str
        why : str
            How that order ended.
        end : DecisionBatch
            What ends it in our records; it is written in one transaction with the new exits.
        now : datetime
            UTC.

        Raises
        ------
        StoreError
            If it cannot be written down; the order is open then, and the next tick comes here again.
        """
        held = next((line.qty for line in self.log.list_ledger() if line.symbol == symbol), 0.0)
        entry = self.log.find_open_entry(symbol)
        if entry is None or not places_exits(self.broker):
            missing = "nobody wrote down which it had"
            unable = f"the broker {self.broker.name} places none for shares that are held"
            # The halt first: an order that has ended is never looked at again.
            self._halt(symbol, f"{why} with shares left and no exits, and {missing if entry is None else unable}", now)
            self.log.record(end)
            return
        old = [order for order in self.log.list_open_orders() if order.symbol == symbol and "parent" in order.payload]
        bracket = _bracket(ended, Order.from_dict(entry.payload["order"]), held)
        note = {"symbol": symbol, "qty": held, "stop_loss": bracket.stop_loss_price, "why": why}
        end.audit.append(("exits.intended", ACTOR, bracket.client_order_id, note))
        end.statuses += [_status(order.client_order_id, PipelineStatus.CANCELLED) for order in old]
        for leg, identity in exit_ids(bracket.client_order_id).items():
            intent = OrderIntent(client_order_id=identity, symbol=symbol, side=Side.SELL, qty=held)
            payload = {"parent": entry.client_order_id, "leg": leg.value, ANEW: bracket.to_dict()}
            end.intents.append((intent, payload))
        self.log.record(end)
        self._settle(bracket, self._place(bracket), now)

    def resume(self, open_orders: Sequence[OpenOrder], now: datetime) -> int:
        """Place exits that were written down and that the broker has not confirmed, and return how many were settled.

        Raises
        ------
        StoreError
            If what the broker said cannot be written down.
        """
        selling = {order.symbol for order in open_orders if order.side is Side.SELL and "order" in order.payload}
        waiting = [order for order in open_orders if order.status is PipelineStatus.PENDING and ANEW in order.payload]
        settled = 0
        for order in waiting:
            if order.payload["leg"] != Leg.STOP_LOSS.value or order.symbol in selling:
                continue
            bracket = Order.from_dict(order.payload[ANEW])
            sent = ask(self.broker, target_of(bracket), "its exits were written down and no answer was kept")
            if not sent.arrived and sent.status is PipelineStatus.REJECTED:
                sent = self._place(bracket)
            settled += self._settle(bracket, sent, now)
        return settled

    def _place(self, bracket: Order) -> Sent:
        assert places_exits(self.broker)
        try:
            positions = read_all(BrokerPosition, self.broker.list_positions())
        except (BrokerError, DataError) as error:
            return Sent(status=PipelineStatus.UNKNOWN, reason=f"{error}")
        there = sum(position.qty for position in positions if position.symbol == bracket.symbol)
        if there < bracket.qty:
            # Exits for shares that are not there would sell short.
            reason = f"it holds {there:g} shares, and the fills say {bracket.qty:g}"
            return Sent(status=PipelineStatus.CANCELLED, reason=reason)
        return send_exits(self.broker, bracket)

    def _settle(self, bracket: Order, sent: Sent, now: datetime) -> bool:
        """Write down what became of exits, and say whether that is known."""
        symbol, name = bracket.symbol, bracket.client_order_id
        if sent.status is PipelineStatus.UNKNOWN or (sent.status is PipelineStatus.REJECTED and not sent.arrived):
            self._halt(symbol, f"nobody knows whether {bracket.qty:g} {symbol} have exits: {sent.reason}", now, by=ACTOR)
            return False
        refused = sent.status is PipelineStatus.REJECTED or not sent.arrived
        status = PipelineStatus.REJECTED if refused else PipelineStatus.SUBMITTED
        record = DecisionBatch(statuses=[_status(identity, status) for identity in exit_ids(name).values()])
        record.audit.append(("exits.refused" if refused else "exits.placed", ACTOR, name, {"reason": sent.reason[:2000]}))
        if refused:
            self._halt(symbol, f"{bracket.qty:g} {symbol} have no exits, the broker refused them anew: {sent.reason}", now)
        self.log.record(record)
        if not refused:
            self._lift(symbol, now)
        return True

    def _lift(self, symbol: str, now: datetime, actors: frozenset[str] = _WAITING) -> None:
        """Lift a halt that waited for an answer; one that waits for a person stays."""
        scope = symbol_scope(symbol)
        if any(halt.scope == scope and halt.resumed_at is None and halt.actor in actors for halt in self.log.list_halts()):
            self.log.resume(scope, actor=ACTOR, at=now)

    def _halt(self, symbol: str, reason: str, now: datetime, *, by: str = RESCUE) -> None:
        # The sale's own halt ends with the sale, so that it must not stand in for this one.
        self._lift(symbol, now, _WAITING - {by})
        if self.log.halt(symbol_scope(symbol), reason=reason[:2000], actor=by, at=now):
            _log.error("%s is halted: %s", symbol, reason)


def _bracket(ended: str, entry: Order, held: float) -> Order:
    """Return the exits of an entry for all shares that are held, under an identity derived from the order that ended."""
    name = str(uuid5(_NAMES, ended))
    return replace(entry, client_order_id=name, qty=held, limit_price=None, expires_at=None)


def _status(identity: str, status: PipelineStatus) -> OrderStatus:
    return OrderStatus(client_order_id=identity, status=status)
