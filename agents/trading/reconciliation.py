"""Reconciler: brings our orders and the broker's to one story, at every start and at every tick.

Hides how fills are collected and how an order that nobody answered for is cleared up. Promises that each execution is
counted once, that an order which never arrived is ended or, where it closes a position, sent again, that a sale which ends
with shares left leads to exits anew, and that what stays unknown halts its symbol.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from agents.brokers.asking import Sent, ask, cancel, count_shares, end, read_all, read_answer, send
from agents.brokers.broker import Broker, BrokerOrder, Execution, Order, exit_ids
from agents.trading.exits import ASKING, RESCUE, Exits
from core.errors import BrokerError, DataError, StoreError, StoreUnavailableError
from core.store.decisions import DecisionBatch, DecisionLog, OpenOrder, OrderStatus, symbol_scope
from core.store.trading_records import Fill
from core.types import DecisionTrace, PipelineStatus, Side

_log = logging.getLogger(__name__)

_SHARES = 1e-6
ENDED = frozenset({PipelineStatus.CANCELLED, PipelineStatus.EXPIRED, PipelineStatus.REJECTED})
"""States of an order that is over other than by being filled."""
_LIVE = frozenset({PipelineStatus.SUBMITTED, PipelineStatus.PARTIALLY_FILLED})


@dataclass(frozen=True, kw_only=True)
class ReconcilerConfig:
    """How far back executions are asked for.

    Parameters
    ----------
    overlap_seconds : float, default=60
        How much of what was collected is asked for again at a tick, for brokers that report late; a start asks for everything.
    """

    overlap_seconds: float = 60.0


@dataclass(frozen=True, kw_only=True)
class Synced:
    """What a synchronisation found.

    Parameters
    ----------
    reachable : bool
        Whether the broker answered; if not, nothing else is known.
    n_fills : int
        Executions counted for the first time.
    n_resolved : int
        Orders whose state changed otherwise.
    reason : str
        Why it is not reachable.
    """

    reachable: bool
    n_fills: int = 0
    n_resolved: int = 0
    reason: str = ""

    @property
    def changed(self) -> bool:
        """Whether the book is another than before."""
        return self.n_fills > 0 or self.n_resolved > 0


class Reconciler:
    """Keep our orders and the broker's in step.

    Parameters
    ----------
    broker : Broker
    log : DecisionLog
    config : ReconcilerConfig
    """

    def __init__(self, broker: Broker, log: DecisionLog, config: ReconcilerConfig) -> None:
        self.broker = broker
        self.log = log
        self.exits = Exits(broker, log)
        self.config = config
        self._seen: set[str] = set()
        self._watermark: datetime | None = None
        self._strangers: set[str] = set()
        self._untold = 0

    def sync(self, now: datetime, *, everything: bool = False) -> Synced:
        """Collect executions, then clear up orders that may have changed.

        Parameters
        ----------
        now : datetime
            UTC.
        everything : bool, default=False
            Ask for all executions that the broker still knows, as at a start.

        Raises
        ------
        StoreError
            If what was found cannot be written down.
        """
        try:
            if everything:
                self.broker.connect()
            self.collect(now, everything=everything)
            open_orders = self.log.list_open_orders()
            resolved = self._resolve(open_orders, now) + self.exits.resume(open_orders, now) if open_orders else 0
        except (BrokerError, DataError) as error:
            return Synced(reachable=False, reason=f"{error}")
        # What was collected in between, while a position was being closed, is news to whoever asks now.
        fills, self._untold = self._untold, 0
        return Synced(reachable=True, n_fills=fills, n_resolved=resolved)

    def close_position(self, order: Order, now: datetime) -> Sent:
        """Sell a position: first end the orders that could sell or enlarge it, then sell what is left.

        Returns
        -------
        Sent
            Cancelled when nothing was left to sell; unknown when the broker did not say or was away: its exits are gone then,
            and the next tick goes on with the sale. Rejected only by the broker's own word.
        """
        try:
            self.collect(now, everything=False)
            held, there = self._held(order.symbol), count_shares(self.broker, order.symbol)
        except (BrokerError, DataError) as error:
            return Sent(status=PipelineStatus.UNKNOWN, reason=f"what it holds is not known: {error}")
        if there < held - _SHARES:
            # A broker that forgot a sale of another day would sell short. Its exits stay where they are.
            return Sent(status=PipelineStatus.UNKNOWN, reason=f"it holds {there:g} shares, and the fills say {held:g}")
        for identity in self._watchers(order.symbol):
            if not end(self.broker, identity):
                return Sent(status=PipelineStatus.UNKNOWN, reason=f"the exit {identity} could not be cancelled")
        try:
            self.collect(now)
        except (BrokerError, DataError) as error:
            return Sent(status=PipelineStatus.UNKNOWN, reason=f"what its exits sold is not known: {error}")
        held = self._held(order.symbol)
        if held <= 0.0:
            return Sent(status=PipelineStatus.CANCELLED, reason="the position was closed by its exits meanwhile")
        sent = send(self.broker, replace(order, qty=min(held, order.qty)))
        if sent.status is PipelineStatus.REJECTED and not sent.arrived:
            return replace(sent, status=PipelineStatus.UNKNOWN)
        return sent

    def cancel_entries(self, symbols: Iterable[str] | None = None) -> int:
        """Cancel entries that may still fill, of some symbols or of all, and return how many were asked to end."""
        wanted = None if symbols is None else set(symbols)
        entries = [
            order
            for order in self.log.list_open_orders()
            if order.side is Side.BUY and "order" in order.payload and (wanted is None or order.symbol in wanted)
        ]
        for order in entries:
            cancel(self.broker, order.client_order_id)
        return len(entries)

    # Executions

    def collect(self, now: datetime, *, everything: bool = False) -> None:
        """Count the executions that the broker reports for the first time; `sync` tells of them.

        Raises
        ------
        BrokerError
            If the broker does not answer, or not what it was asked.
        StoreError
            If they cannot be written down.
        """
        since = None
        if not everything and self._watermark is not None:
            since = self._watermark - timedelta(seconds=self.config.overlap_seconds)
        reported = read_all(Execution, self.broker.list_executions(since))
        fresh = {item.exec_id: item for item in reported if item.exec_id not in self._seen}
        if not fresh:
            return
        known = self.log.find_known_fills(list(fresh))
        orders = self.log.find_orders([item.client_order_id for item in fresh.values()])
        wanted = [item for item in fresh.values() if item.exec_id not in known]
        ours = [item for item in wanted if self._is_ours(item, orders, now)]
        self._untold += self._record(ours, orders, now)
        self._end_entries_of({str(orders[item.client_order_id].payload.get("parent", "")) for item in ours} - {""})
        self._seen |= set(fresh)
        self._watermark = max(item.filled_at for item in reported)

    def _end_entries_of(self, parents: set[str]) -> None:
        """End what still buys of a position that its exit has begun to close."""
        for name, entry in self.log.find_orders(sorted(parents)).items():
            if entry.status in _LIVE:
                cancel(self.broker, name)

    def _is_ours(self, item: Execution, orders: dict[str, OpenOrder], now: datetime) -> bool:
        order = orders.get(item.client_order_id)
        if order is not None and (order.symbol, order.side) == (item.symbol, item.side):
            return True
        if item.exec_id not in self._strangers:
            self._strangers.add(item.exec_id)
            reason = f"the execution {item.exec_id} is of an order that was never written down"
            self._halt(item.symbol, reason, now, by=RESCUE)
        return False

    def _record(self, executions: Sequence[Execution], orders: dict[str, OpenOrder], now: datetime) -> int:
        if not executions:
            return 0
        fills = [
            Fill(
                exec_id=item.exec_id,
                client_order_id=item.client_order_id,
                qty=item.qty,
                price=item.price,
                commission=item.commission,
                filled_at=item.filled_at,
            )
            for item in executions
        ]
        traces = self._filled_traces(fills, orders)
        try:
            self.log.record(DecisionBatch(fills=fills, traces=traces))
            return len(fills)
        except StoreUnavailableError:
            raise
        except StoreError:
            return sum(self._record_one(fill, orders, now) for fill in fills)

    def _record_one(self, fill: Fill, orders: dict[str, OpenOrder], now: datetime) -> int:
        try:
            self.log.record(DecisionBatch(fills=[fill], traces=self._filled_traces([fill], orders)))
            return 1
        except StoreUnavailableError:
            raise
        except StoreError as error:  # more shares than ordered, or known with other figures: one report is wrong
            reason = f"the execution {fill.exec_id} cannot be counted: {error}"
            self._halt(orders[fill.client_order_id].symbol, reason, now, by=RESCUE)
            return 0

    def _filled_traces(self, fills: Sequence[Fill], orders: dict[str, OpenOrder]) -> list[DecisionTrace]:
        """Return the traces of decisions that these fills carried out, with the new state."""
        decided = {fill.client_order_id for fill in fills if orders[fill.client_order_id].signal_id is not None}
        if not decided:
            return []
        total: defaultdict[str, float] = defaultdict(float)
        for fill in [*self.log.list_fills(sorted(decided)), *(fill for fill in fills if fill.client_order_id in decided)]:
            total[fill.client_order_id] += fill.qty
        by_signal = {orders[name].signal_id: orders[name] for name in decided}
        changed = []
        for trace in self.log.find_traces([signal_id for signal_id in by_signal if signal_id is not None]):
            order = by_signal[trace.signal_id]
            if trace.symbol != order.symbol or trace.status in (PipelineStatus.KILLED, PipelineStatus.CLOSED):
                continue
            done = total[order.client_order_id] >= order.qty
            status = PipelineStatus.FILLED if done else PipelineStatus.PARTIALLY_FILLED
            order_id = trace.order_id or self._order_id(order.client_order_id)
            changed.append(replace(trace, status=status, order_id=order_id))
        return changed

    def _order_id(self, client_order_id: str) -> str:
        found = self.broker.find_order(client_order_id)
        return client_order_id if found is None else found.order_id

    # Orders

    def _resolve(self, open_orders: Sequence[OpenOrder], now: datetime) -> int:
        decided = [order for order in open_orders if "order" in order.payload]
        if not decided:
            return 0
        alive = {order.client_order_id: order for order in read_all(BrokerOrder, self.broker.list_open_orders())}
        batch = DecisionBatch()
        lifted: list[str] = []
        for mine in decided:
            order = Order.from_dict(mine.payload["order"])
            there = alive.get(mine.client_order_id)
            if there is not None:
                sent = read_answer(order, there)
                if order.side is Side.BUY and order.expires_at is not None and order.expires_at <= now:
                    ended = cancel(self.broker, order.client_order_id)
                    if ended is not None and ended.status in ENDED:
                        sent = Sent(status=PipelineStatus.EXPIRED, broker_order=ended)
            elif mine.side is Side.SELL and mine.status in (PipelineStatus.PENDING, PipelineStatus.UNKNOWN):
                sent = ask(self.broker, order, "it was written down and no answer was kept")
                if not sent.arrived and sent.status is PipelineStatus.REJECTED:
                    sent = self.close_position(order, now)
            else:
                sent = ask(self.broker, order, "it was written down and no answer was kept")
            self._settle(mine, sent, batch, now)
            if sent.status is not PipelineStatus.UNKNOWN and mine.status is PipelineStatus.UNKNOWN:
                lifted.append(mine.symbol)
        self.log.record(batch)
        in_force = {halt.scope: halt for halt in self.log.list_halts() if halt.resumed_at is None} if lifted else {}
        for symbol in lifted:
            halt = in_force.get(symbol_scope(symbol))
            if halt is not None and halt.actor == ASKING:
                self.log.resume(halt.scope, actor=ASKING, at=now)
        return len(batch.statuses)

    def _settle(self, mine: OpenOrder, sent: Sent, batch: DecisionBatch, now: datetime) -> None:
        status = sent.status
        if status is PipelineStatus.REJECTED and not sent.arrived:
            if mine.status in _LIVE:
                self._halt(mine.symbol, f"the broker no longer knows the order {mine.client_order_id}", now)
                status = PipelineStatus.UNKNOWN
            else:
                status = PipelineStatus.CANCELLED
        if (status is PipelineStatus.FILLED or (status in ENDED and sent.arrived)) and not self._all_counted(sent):
            # Its executions say so, not its state: until they are reported the order stays open here.
            status = (
                PipelineStatus.PARTIALLY_FILLED if mine.status is PipelineStatus.PARTIALLY_FILLED else PipelineStatus.SUBMITTED
            )
        if status is PipelineStatus.UNKNOWN:
            self._halt(mine.symbol, f"nobody knows what became of the order {mine.client_order_id}: {sent.reason}", now)
        if status is mine.status or (mine.status is PipelineStatus.PARTIALLY_FILLED and status is PipelineStatus.SUBMITTED):
            return
        ending = DecisionBatch()
        ending.statuses += order_statuses(mine.client_order_id, status, sent.order_id, bracket=mine.side is Side.BUY)
        if mine.signal_id is not None:
            for trace in self.log.find_traces([mine.signal_id]):
                if trace.symbol == mine.symbol and trace.status in (*_LIVE, PipelineStatus.PENDING, PipelineStatus.UNKNOWN):
                    filled = trace.status is PipelineStatus.PARTIALLY_FILLED
                    told = trace.status if filled and status not in ENDED else status
                    ending.traces.append(replace(trace, status=told, order_id=trace.order_id or sent.order_id))
        batch.statuses += ending.statuses
        if status in ENDED and self._leaves_shares_alone(mine):
            what = "entry" if mine.side is Side.BUY else "sale"
            why = f"the {what} {mine.client_order_id} ended {status.value}{f' ({sent.reason})' if sent.reason else ''}"
            self.exits.restore(mine.client_order_id, mine.symbol, why, ending, now)
        else:
            batch.traces += ending.traces

    def _all_counted(self, sent: Sent) -> bool:
        """Say whether every share has been counted here that the broker calls filled."""
        assert sent.broker_order is not None
        counted = sum(fill.qty for fill in self.log.list_fills([sent.broker_order.client_order_id]))
        filled = sent.status is PipelineStatus.FILLED
        return counted >= (sent.broker_order.qty if filled else sent.broker_order.filled_qty)

    def _leaves_shares_alone(self, ended: OpenOrder) -> bool:
        """Say whether nothing watches over what is held now that an order has ended."""
        if self._held(ended.symbol) <= 0.0:
            return False
        if ended.side is Side.SELL:  # the exits were cancelled for it
            return True
        mine = [order for order in self.log.list_open_orders() if order.symbol == ended.symbol]
        if any(order.side is Side.SELL and "order" in order.payload for order in mine):
            return False
        # Some brokers end the exits with the entry, and place them again when it is cancelled.
        cancel(self.broker, ended.client_order_id)
        exits = [self.broker.find_order(order.client_order_id) for order in mine if "parent" in order.payload]
        watching = (*_LIVE, PipelineStatus.FILLED)
        return not any(found is not None and found.status in watching for found in exits)

    def _watchers(self, symbol: str) -> list[str]:
        """Return the orders that could change a position beside the one that closes it: exits first, then entries."""
        mine = [order for order in self.log.list_open_orders() if order.symbol == symbol]
        exits = [order.client_order_id for order in mine if "parent" in order.payload]
        entries = [order.client_order_id for order in mine if "order" in order.payload and order.side is Side.BUY]
        return [*exits, *entries]

    def _held(self, symbol: str) -> float:
        return next((line.qty for line in self.log.list_ledger() if line.symbol == symbol), 0.0)

    def _halt(self, symbol: str, reason: str, now: datetime, *, by: str = ASKING) -> None:
        if self.log.halt(symbol_scope(symbol), reason=reason[:2000], actor=by, at=now):
            _log.error("%s is halted: %s", symbol, reason)


def order_statuses(client_order_id: str, status: PipelineStatus, order_id: str | None, *, bracket: bool) -> list[OrderStatus]:
    """Return the states of an order and of its exits that follow from what became of the order.

    Notes
    -----
    Exits live as long as something of the entry is, or may be, filled. An entry that ended keeps them open here: whether it
    ended without a share is for the fills to say, see `OutcomeResolver`.
    """
    found = [OrderStatus(client_order_id=client_order_id, status=status, order_id=order_id)]
    if bracket and status in _LIVE:
        found += [
            OrderStatus(client_order_id=name, status=PipelineStatus.SUBMITTED) for name in exit_ids(client_order_id).values()
        ]
    return found
