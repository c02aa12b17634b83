"""TWS's words and ours: symbols, what the gateway knows, orders as it takes them, executions as it tells them.

Hides the statuses and identities of `ib_async` from `agents.brokers.ib`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from agents.brokers.broker import BrokerOrder, Execution, Leg, Order, exit_ids
from core.types import PipelineStatus, Side

DONE = {
    "Filled": PipelineStatus.FILLED,
    "Cancelled": PipelineStatus.CANCELLED,
    "ApiCancelled": PipelineStatus.CANCELLED,
    "Inactive": PipelineStatus.REJECTED,
}
_UNSET = 1e300


@dataclass
class GatewayState:
    """What the gateway knows, by our identity."""

    working: dict[str, Any] = field(default_factory=dict)
    done: dict[str, Any] = field(default_factory=dict)
    executed: dict[str, float] = field(default_factory=dict)
    fills: list[Any] = field(default_factory=list)

    def find(self, client_order_id: str) -> Any | None:
        """Return the trade under an identity; what works goes before what is done."""
        return self.working.get(client_order_id) or self.done.get(client_order_id)

    def describe(self, client_order_id: str) -> BrokerOrder | None:
        """Return an order as the gateway knows it; None when it knows nothing."""
        trade = self.find(client_order_id)
        executed = self.executed.get(client_order_id, 0.0)
        if trade is None:
            fill = next((one for one in self.fills if one.execution.orderRef == client_order_id), None)
            if fill is None:
                return None
            return BrokerOrder(
                client_order_id=client_order_id,
                order_id=str(fill.execution.permId),
                symbol=read_symbol(fill.contract),
                side=Side.BUY if fill.execution.side == "BOT" else Side.SELL,
                qty=executed,
                filled_qty=executed,
                status=PipelineStatus.FILLED,
            )
        reported = (trade.orderStatus.filled, trade.order.filledQuantity)
        filled = max(executed, *(qty for qty in reported if qty < _UNSET))
        status = DONE.get(trade.orderStatus.status)
        reason = ""
        if status is None:
            status = PipelineStatus.PARTIALLY_FILLED if filled else PipelineStatus.SUBMITTED
            if self.sleeps(client_order_id):
                status = PipelineStatus.PENDING
        elif status is PipelineStatus.REJECTED:
            reason = last_word(trade) or "inactive"
        elif status is PipelineStatus.CANCELLED and is_over(trade.order.goodTillDate):
            status = PipelineStatus.EXPIRED
        return BrokerOrder(
            client_order_id=client_order_id,
            order_id=str(trade.order.permId),
            symbol=read_symbol(trade.contract),
            side=Side.BUY if trade.order.action == "BUY" else Side.SELL,
            qty=max(trade.order.totalQuantity, filled),
            filled_qty=filled,
            status=status,
            reason=reason,
        )

    def list_open(self) -> list[BrokerOrder]:
        """Return what may still be filled, oldest first."""
        names = sorted(self.working, key=lambda name: self.working[name].order.permId)
        found = [self.describe(name) for name in names if not self.sleeps(name)]
        return [one for one in found if one is not None]

    def lone_exit(self, client_order_id: str) -> Any | None:
        """Return the order of an exit that works while the other one does not; None where both or neither do."""
        living = [self.working[name].order for name in exit_ids(client_order_id).values() if name in self.working]
        return living[0] if len(living) == 1 else None

    def entry_of(self, client_order_id: str) -> str:
        """Return the entry that an exit belongs to; of anything else, itself."""
        for suffix in exit_ids("").values():
            stem = client_order_id.removesuffix(suffix)
            if stem != client_order_id and all(self.find(name) is not None for name in exit_ids(stem).values()):
                return stem
        return client_order_id

    def sleeps(self, client_order_id: str) -> bool:
        """Whether it is an exit whose entry has nothing filled yet."""
        entry = self.entry_of(client_order_id)
        waits = entry != client_order_id and entry in self.working
        return waits and not (self.executed.get(entry) or self.working[entry].orderStatus.filled)


def build_stock(symbol: str, currency: str) -> Any:
    """Return a stock as TWS looks for it, wherever it is traded; it writes BRK B for BRK.B."""
    from ib_async import Stock

    return Stock(symbol.replace(".", " "), "SMART", currency)


def read_symbol(contract: Any) -> str:
    """Return the symbol of a contract in our words."""
    return str(contract.symbol).replace(" ", ".")


def build_orders(order: Order, account: str) -> list[Any]:
    """Return the entry and its exits; nothing of them works before the last is transmitted."""
    from ib_async import LimitOrder, MarketOrder, StopOrder

    action, other = ("BUY", "SELL") if order.side is Side.BUY else ("SELL", "BUY")
    more: dict[str, Any] = {
        "orderRef": order.client_order_id,
        "account": account,
        "tif": "GTC",
        "transmit": not order.is_bracket,
    }
    if order.expires_at is not None:
        more |= {"tif": "GTD", "goodTillDate": order.expires_at.strftime("%Y%m%d-%H:%M:%S")}
    entry: Any = MarketOrder(action, order.qty, **more)
    if order.limit_price is not None:
        entry = LimitOrder(action, order.qty, order.limit_price, **more)
    if order.stop_loss_price is None or order.take_profit_price is None:
        return [entry]
    names = exit_ids(order.client_order_id)
    exits = {"account": account, "tif": "GTC", "parentId": 1}
    target = LimitOrder(other, order.qty, order.take_profit_price, orderRef=names[Leg.TAKE_PROFIT], transmit=False, **exits)
    stop = StopOrder(other, order.qty, order.stop_loss_price, orderRef=names[Leg.STOP_LOSS], transmit=True, **exits)
    return [entry, target, stop]


def split_exec_id(exec_id: str) -> tuple[str, int]:
    """Tell an execution from its revision, the last of the four parts of its id."""
    name, _, revision = exec_id.rpartition(".")
    return (name, int(revision)) if exec_id.count(".") == 3 and revision.isdigit() else (exec_id, 0)


def read_execution(fill: Any) -> Execution:
    """Return an execution in our words."""
    made = fill.execution
    leg = next((leg for leg, suffix in exit_ids("").items() if made.orderRef.endswith(suffix)), Leg.ENTRY)
    return Execution(
        exec_id=split_exec_id(made.execId)[0],
        client_order_id=made.orderRef or f"permId-{made.permId}",
        leg=leg,
        symbol=read_symbol(fill.contract),
        side=Side.BUY if made.side == "BOT" else Side.SELL,
        qty=made.shares,
        price=made.price,
        commission=fill.commissionReport.commission,
        filled_at=made.time.astimezone(UTC),
    )


def last_word(trade: Any) -> str:
    """What TWS said last of an order; empty where it said nothing."""
    return next((entry.message for entry in reversed(trade.log) if entry.message), "")


def is_over(good_till: str) -> bool:
    """Whether the time until which an order was good has passed; false where it has none."""
    if not good_till:
        return False
    try:
        return datetime.strptime(good_till[:17], "%Y%m%d-%H:%M:%S").replace(tzinfo=UTC) <= datetime.now(UTC)
    except ValueError:
        return False
