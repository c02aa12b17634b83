"""What every broker is to the trading agents, and the words in which they talk.

Hides which broker it is. Promises that an order is known by our own `client_order_id`, which outlives a crash on either side:
placing the same one again returns the order that is there, and never makes a second. What a broker reports as filled is an
`Execution` with an identity of its own, so that it can be counted once.

An order with a stop and a target is a bracket: the exits come alive with what is filled of the entry, cover exactly that, and
cancel each other. The exits have the identities that :func:`exit_ids` gives, whatever the broker calls them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeGuard

from core.message import Message, refuse
from core.types import Identifier, NotNegative, PipelineStatus, Positive, Side, Ticker


class Leg(StrEnum):
    """Which part of an order an execution belongs to; an order without a bracket has an entry only."""

    ENTRY = "entry"
    STOP_LOSS = "stop_loss"
    TAKE_PROFIT = "take_profit"


def exit_ids(client_order_id: str) -> dict[Leg, str]:
    """Return the identities of a bracket's exits."""
    return {Leg.STOP_LOSS: f"{client_order_id}-sl", Leg.TAKE_PROFIT: f"{client_order_id}-tp"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Order(Message):
    """An order as we send it.

    Parameters
    ----------
    client_order_id : str
        Our own identity of it, derived from the decision.
    symbol : str
    side : Side
    qty : float
        Shares.
    limit_price : float, optional
        Worst price of the entry in the symbol's currency; at the market when None.
    stop_loss_price, take_profit_price : float, optional
        Prices of the exits of a bracket; both or neither.
    expires_at : datetime, optional
        When what is not filled of the entry is cancelled, UTC; the exits stay until they are filled or cancelled.

    Raises
    ------
    DataError
        If a value is not allowed; if only one exit is given, or an exit is on the wrong side of the other or of the limit.
    """

    client_order_id: Identifier
    symbol: Ticker
    side: Side
    qty: Positive
    limit_price: Positive | None = None
    stop_loss_price: Positive | None = None
    take_profit_price: Positive | None = None
    expires_at: datetime | None = None

    def _check(self) -> None:
        if (self.stop_loss_price is None) != (self.take_profit_price is None):
            raise refuse(self, "take_profit_price", "given exactly when `stop_loss_price` is", self.take_profit_price)
        prices = [price for price in (self.stop_loss_price, self.limit_price, self.take_profit_price) if price is not None]
        ordered = prices if self.side is Side.BUY else prices[::-1]
        if any(later <= earlier for earlier, later in itertools.pairwise(ordered)):
            expected = "below the limit and the limit below the take profit of a buy, the other way round of a sell"
            raise refuse(self, "stop_loss_price", expected, tuple(prices))

    @property
    def is_bracket(self) -> bool:
        """Whether it brings its own exits."""
        return self.stop_loss_price is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class BrokerOrder(Message):
    """An order as the broker has it.

    Parameters
    ----------
    client_order_id : str
    order_id : str
        The broker's identity, one that survives its restart.
    symbol : str
    side : Side
    qty : float
        Shares ordered.
    filled_qty : float, default=0
    status : PipelineStatus
        Submitted, partially_filled, filled, cancelled, expired or rejected: of the entry, not of the exits. An exit is pending
        while nothing is filled of its entry.
    reason : str, default=""
        Why it was rejected, in the broker's words.
    """

    client_order_id: Identifier
    order_id: Identifier
    symbol: Ticker
    side: Side
    qty: Positive
    filled_qty: NotNegative = 0.0
    status: PipelineStatus
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution(Message):
    """A fill as the broker reports it.

    Parameters
    ----------
    exec_id : str
        The broker's identity of it; reported again, it is the same execution.
    client_order_id : str
        Our identity of the order that was filled: of an exit, the one that `exit_ids` gives.
    leg : Leg
    symbol : str
    side : Side
    qty : float
        Shares.
    price : float
        In the symbol's currency.
    commission : float, default=0
        In the same currency; negative for a rebate.
    filled_at : datetime
        UTC.
    """

    exec_id: Identifier
    client_order_id: Identifier
    leg: Leg
    symbol: Ticker
    side: Side
    qty: Positive
    price: Positive
    commission: float = 0.0
    filled_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class BrokerPosition(Message):
    """Shares that the broker holds for us; negative when sold short."""

    symbol: Ticker
    qty: float
    avg_cost: Positive


@dataclass(frozen=True, kw_only=True, slots=True)
class Account(Message):
    """The money at the broker, in one currency, and the broker's name of the account, where it has one."""

    cash: float
    currency: Identifier
    account: Identifier | None = None


class Broker(Protocol):
    """Place orders and say what became of them.

    Every method raises `BrokerUnavailableError` when the broker surely did not get what was sent, `BrokerOutcomeUnknownError`
    when it may have, and `BrokerError` when it answered what cannot be used.
    """

    @property
    def name(self) -> str:
        """Name of the broker: paper, ib, alpaca."""

    @property
    def is_paper(self) -> bool:
        """Whether no real money is at stake."""

    def connect(self) -> None:
        """Reach the broker; does nothing when it is reached already."""

    def close(self) -> None:
        """Let go of the broker; orders stay with it."""

    def place_order(self, order: Order) -> BrokerOrder:
        """Place an order, or return the one that has its identity; a refusal is an order with the status rejected."""

    def cancel_order(self, client_order_id: str) -> BrokerOrder:
        """Cancel what is not filled of an order; one that is done already stays as it is.

        What an entry had filled keeps its exits. Named by one exit, both exits are cancelled and what is not filled of the
        entry. Raises `BrokerError` when there is no such order.
        """

    def find_order(self, client_order_id: str) -> BrokerOrder | None:
        """Return an order, or one exit, by our identity; None when the broker surely never got it."""

    def list_open_orders(self) -> list[BrokerOrder]:
        """Return what may still be filled, entries and living exits, oldest first."""

    def list_executions(self, since: datetime | None = None) -> list[Execution]:
        """Return what was filled at or after a time, oldest first; all that the broker still knows when None."""

    def list_positions(self) -> list[BrokerPosition]:
        """Return what the broker holds for us, by symbol."""

    def get_account(self) -> Account:
        """Return our money."""


class PlacesTogether(Broker, Protocol):
    """What a broker can do that takes several orders at once."""

    def place_orders(self, orders: Sequence[Order]) -> list[BrokerOrder]:
        """Place orders as `place_order` would one after the other, but all or none; return its answers in their order.

        Raises
        ------
        BrokerError
            As every method of a `Broker`.
        """


class PlacesExits(Broker, Protocol):
    """What a broker can do that gives exits to shares which are held already."""

    def place_exits(self, order: Order) -> BrokerOrder:
        """Place the exits of a bracket whose entry is taken as done, or return those that are there, under their identities.

        Parameters
        ----------
        order : Order
            A bracket; `qty` is how many shares are held. Its own identity is never at the broker, those of its exits are.

        Returns
        -------
        BrokerOrder
            The target; the stop ends with it. A refusal has the status rejected: then there is neither.

        Raises
        ------
        BrokerError
            As every method of a `Broker`.
        """


def places_together(broker: object) -> TypeGuard[PlacesTogether]:
    """Say whether a broker takes several orders at once."""
    return callable(getattr(broker, "place_orders", None))


def places_exits(broker: object) -> TypeGuard[PlacesExits]:
    """Say whether a broker can give exits to shares that are held already."""
    return callable(getattr(broker, "place_exits", None))
