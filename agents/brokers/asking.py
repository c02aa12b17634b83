"""What to make of a broker's answers, and of its silence.

Hides which errors mean that an order never arrived. Promises that nothing a broker does raises from here: an order has
arrived, it surely has not, or nobody knows, which is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from agents.brokers.broker import (
    Broker,
    BrokerOrder,
    BrokerPosition,
    Leg,
    Order,
    PlacesExits,
    PlacesTogether,
    exit_ids,
    places_together,
)
from core.errors import BrokerError, BrokerOutcomeUnknownError, BrokerUnavailableError, DataError
from core.types import PipelineStatus, Side

T = TypeVar("T")

_STATES = frozenset(
    {
        PipelineStatus.SUBMITTED,
        PipelineStatus.PARTIALLY_FILLED,
        PipelineStatus.FILLED,
        PipelineStatus.CANCELLED,
        PipelineStatus.EXPIRED,
        PipelineStatus.REJECTED,
    }
)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What came of an order.

    Parameters
    ----------
    status : PipelineStatus
        Unknown when nobody knows; rejected also when the broker surely never got it.
    broker_order : BrokerOrder, optional
        The broker's word, where there is one.
    reason : str
        In words, for a rejected or unknown order.
    """

    status: PipelineStatus
    broker_order: BrokerOrder | None = None
    reason: str = ""

    @property
    def order_id(self) -> str | None:
        """The broker's identity of it."""
        return None if self.broker_order is None else self.broker_order.order_id

    @property
    def arrived(self) -> bool:
        """Whether the broker has it, or had it."""
        return self.broker_order is not None


def send(broker: Broker, order: Order) -> Sent:
    """Place an order; where the broker does not say what became of it, ask by our identity."""
    try:
        return read_answer(order, broker.place_order(order))
    except BrokerUnavailableError as error:
        return Sent(status=PipelineStatus.REJECTED, reason=f"the broker did not get it: {error}")
    except (BrokerError, DataError) as error:
        return ask(broker, order, f"{error}")


def send_all(broker: Broker, orders: Sequence[Order]) -> list[Sent]:
    """Place orders, at once where the broker takes several, and say of each what came of it, in their order."""
    if len(orders) > 1 and places_together(broker):
        return _send_together(broker, orders)
    return [send(broker, order) for order in orders]


def _send_together(broker: PlacesTogether, orders: Sequence[Order]) -> list[Sent]:
    """Place orders at once; where the broker refuses them together, each that it surely has not got is sent alone."""
    try:
        answers = read_all(BrokerOrder, broker.place_orders(orders))
        if len(answers) != len(orders):
            raise BrokerError(f"the broker answered {len(answers)} orders, expected the {len(orders)} it was sent.")
        return [read_answer(order, answer) for order, answer in zip(orders, answers, strict=True)]
    except BrokerUnavailableError as error:
        return [Sent(status=PipelineStatus.REJECTED, reason=f"the broker did not get it: {error}") for _ in orders]
    except BrokerOutcomeUnknownError as error:
        return [ask(broker, order, f"{error}") for order in orders]
    except (BrokerError, DataError) as error:
        # One order that it cannot take must not keep it from the others.
        asked = [ask(broker, order, f"{error}") for order in orders]
        return [
            send(broker, order) if sent.status is PipelineStatus.REJECTED and not sent.arrived else sent
            for order, sent in zip(orders, asked, strict=True)
        ]


def send_exits(broker: PlacesExits, order: Order) -> Sent:
    """Place the exits of a bracket whose entry is done, and say what came of the target; silence leaves it unknown."""
    try:
        return read_answer(target_of(order), broker.place_exits(order))
    except BrokerUnavailableError as error:
        return Sent(status=PipelineStatus.REJECTED, reason=f"the broker did not get them: {error}")
    except (BrokerError, DataError) as error:
        return Sent(status=PipelineStatus.UNKNOWN, reason=f"{error}")


def target_of(order: Order) -> Order:
    """Return the take profit of a bracket as an order of its own."""
    other = Side.SELL if order.side is Side.BUY else Side.BUY
    identity = exit_ids(order.client_order_id)[Leg.TAKE_PROFIT]
    return Order(client_order_id=identity, symbol=order.symbol, side=other, qty=order.qty, limit_price=order.take_profit_price)


def ask(broker: Broker, order: Order, doubt: str) -> Sent:
    """Ask a broker what it knows of an order that it may have got."""
    try:
        found = broker.find_order(order.client_order_id)
        if found is None:
            return Sent(status=PipelineStatus.REJECTED, reason=f"the broker never got it: {doubt}")
        return read_answer(order, found)
    except (BrokerError, DataError) as error:
        return Sent(status=PipelineStatus.UNKNOWN, reason=f"{doubt}; asked again: {error}")


def cancel(broker: Broker, client_order_id: str) -> BrokerOrder | None:
    """Cancel what is left of an order, or of an exit; None when the broker does not say."""
    try:
        answer = broker.cancel_order(client_order_id)
    except (BrokerError, DataError):
        return None
    return answer if isinstance(answer, BrokerOrder) else None


def end(broker: Broker, client_order_id: str) -> bool:
    """Cancel an order, or an exit, and say whether it surely cannot be filled any more; one that never arrived cannot."""
    answer = cancel(broker, client_order_id)
    if answer is None:
        try:
            answer = broker.find_order(client_order_id)
        except (BrokerError, DataError):
            return False
        if not isinstance(answer, BrokerOrder | None):
            return False
    return answer is None or answer.status not in (PipelineStatus.SUBMITTED, PipelineStatus.PARTIALLY_FILLED)


def read_all(kind: type[T], answer: object) -> list[T]:
    """Believe a list only if it holds what it should.

    Raises
    ------
    BrokerError
        If it does not.
    """
    if not isinstance(answer, Sequence) or isinstance(answer, str):
        raise BrokerError(f"the broker answered {type(answer).__name__}, expected a list of {kind.__name__}.")
    for item in answer:
        if not isinstance(item, kind):
            raise BrokerError(f"the broker answered a list with {type(item).__name__} in it, expected {kind.__name__}.")
    return list(answer)


def read_answer(order: Order, answer: object) -> Sent:
    """Believe an answer only if it speaks of this order.

    Raises
    ------
    BrokerError
        If it does not.
    """
    if not isinstance(answer, BrokerOrder):
        raise BrokerError(f"the broker answered {type(answer).__name__}, expected the order it was sent.")
    ours = (order.client_order_id, order.symbol, order.side)
    theirs = (answer.client_order_id, answer.symbol, answer.side)
    if ours != theirs or answer.qty > order.qty or answer.filled_qty > answer.qty:
        raise BrokerError(f"the broker answered with another order: {answer!r}, expected {order!r}.")
    if answer.status not in _STATES:
        raise BrokerError(f"the broker answered with the status {answer.status.value}, which no order at a broker has.")
    return Sent(status=answer.status, broker_order=answer, reason=answer.reason)


def count_shares(broker: Broker, symbol: str) -> float:
    """Return how many shares of a symbol the broker holds, whoever bought them.

    Raises
    ------
    BrokerError, DataError
        If it does not say, or answers what cannot be used.
    """
    return sum(position.qty for position in read_all(BrokerPosition, broker.list_positions()) if position.symbol == symbol)
