"""Alpaca behind the Broker protocol, over `alpaca-py` (extra ``alpaca``); its paper endpoint unless real money is armed.

Hides the library, the API's words, and that Alpaca gives the legs of a bracket names of its own: exits go by ours. Promises
that nothing is sent to an endpoint of real money unless its maker was told that real money is armed.

.. warning::

    Alpaca wakes the exits of a bracket when its entry is filled completely: while an entry is filled in part and still works,
    that part has no exits. What a cancelled entry had filled is given exits anew by `AlpacaBroker.cancel_order`; where that was
    interrupted, cancelling again does the rest. Alpaca knows no time of expiry within a day either: `Order.expires_at` is not
    sent, and whoever gave it cancels the order then. A fill carries no commission; fees are booked at the day's end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agents.brokers.alpaca_words import (
    DONE,
    NotFound,
    Refused,
    build_client,
    build_exits,
    build_request,
    describe,
    is_own_exit,
    is_settled,
    legs_of,
    translated,
)
from agents.brokers.broker import Account, BrokerOrder, BrokerPosition, Execution, Leg, Order, exit_ids
from agents.brokers.cover import is_uncovered
from agents.brokers.ticks import on_grid
from core.errors import BrokerError, ConfigurationError
from core.types import PipelineStatus, Side

if TYPE_CHECKING:
    from alpaca.trading.models import Order as AlpacaOrder

PAPER_ENDPOINT = "https://paper-api.alpaca.markets"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_NOT_UNIQUE = "client_order_id must be unique"
_PAGE = 500
_FILLS_PAGE = 100


@dataclass(frozen=True, kw_only=True)
class AlpacaConfig:
    """Settings of a connection.

    Parameters
    ----------
    endpoint : str, default="https://paper-api.alpaca.markets"
    timeout_seconds : float, default=10.0
        Longest wait for an answer.
    cancel_seconds : float, default=5.0
        Longest wait for a cancelled order to be done.
    """

    endpoint: str = PAPER_ENDPOINT
    timeout_seconds: float = 10.0
    cancel_seconds: float = 5.0

    def __post_init__(self) -> None:
        for name in ("timeout_seconds", "cancel_seconds"):
            if not 0.0 < getattr(self, name) <= 600.0:
                raise ConfigurationError(f"`{name}` must be in (0, 600], was {getattr(self, name)!r}.")


class AlpacaBroker:
    """A broker at Alpaca.

    Parameters
    ----------
    config : AlpacaConfig
    api_key, secret_key : str
        Those of the paper account, unless real money is meant.
    real_money_armed : bool, default=False
        Whether all conditions of real money hold; decided elsewhere.

    Raises
    ------
    ConfigurationError
        If `alpaca-py` is not installed, or the endpoint is neither Alpaca's for paper nor this machine, and real money is not
        armed.
    """

    def __init__(self, config: AlpacaConfig, *, api_key: str, secret_key: str, real_money_armed: bool = False) -> None:
        parts = urlsplit(config.endpoint)
        self._is_paper = config.endpoint.rstrip("/") == PAPER_ENDPOINT or parts.hostname in _LOOPBACK
        if not self._is_paper and not real_money_armed:
            raise ConfigurationError(
                f"`endpoint` must be {PAPER_ENDPOINT} unless real money is armed, was {config.endpoint!r}."
            )
        self._config = config
        self._client: Any = build_client(config.endpoint, config.timeout_seconds, api_key, secret_key)
        self._legs: dict[str, tuple[str, Leg]] = {}
        self._connected = False

    @property
    def name(self) -> str:
        """``alpaca``."""
        return "alpaca"

    @property
    def is_paper(self) -> bool:
        """Whether the endpoint is that of paper trading."""
        return self._is_paper

    def connect(self) -> None:
        """Reach the account.

        Raises
        ------
        BrokerError
            If the account may not trade.
        """
        if self._connected:
            return
        account = self._read(lambda client: client.get_account())
        if account.trading_blocked or account.account_blocked:
            raise BrokerError(f"the Alpaca account {account.account_number} is blocked from trading.")
        self._connected = True

    def close(self) -> None:
        """Let go of the connection."""
        self._client._session.close()
        self._connected = False

    def place_order(self, order: Order) -> BrokerOrder:
        """Place an order, or return the one that has its identity; a refusal is an order with the status rejected."""
        from alpaca.common.exceptions import APIError

        request = build_request(on_grid(order))
        try:
            with translated(writing=order.client_order_id):
                placed = self._client.submit_order(request)
                self._learn(placed)
                return describe(placed, order.client_order_id)
        except Refused as refused:
            error = refused.__cause__
            assert isinstance(error, APIError)
            if _NOT_UNIQUE in str(error):
                found = self.find_order(order.client_order_id)
                if found is not None:
                    return found
            return BrokerOrder(
                client_order_id=order.client_order_id,
                order_id=f"refused-{order.client_order_id}",
                symbol=order.symbol,
                side=order.side,
                qty=order.qty,
                status=PipelineStatus.REJECTED,
                reason=str(refused),
            )

    def place_exits(self, order: Order) -> BrokerOrder:
        """Place the exits of a bracket whose entry is taken as done, or return those that have its identity."""
        order = on_grid(order)
        identity = exit_ids(order.client_order_id)[Leg.TAKE_PROFIT]
        try:
            with translated(writing=identity):
                placed = self._client.submit_order(build_exits(order))
                self._learn(placed)
                return describe(placed, identity, leg=Leg.TAKE_PROFIT, parent=placed)
        except Refused as refused:
            found = self.find_order(identity) if _NOT_UNIQUE in str(refused.__cause__) else None
            if found is not None:
                return found
            return BrokerOrder(
                client_order_id=identity,
                order_id=f"refused-{identity}",
                symbol=order.symbol,
                side=Side.SELL if order.side is Side.BUY else Side.BUY,
                qty=order.qty,
                status=PipelineStatus.REJECTED,
                reason=str(refused),
            )

    def cancel_order(self, client_order_id: str) -> BrokerOrder:
        """Cancel what is not filled of an order; named by one exit, both exits and what is not filled of the entry.

        What an entry had filled keeps its exits: Alpaca ends them with the entry, so they are placed anew.
        """
        found = self._find(client_order_id)
        if found is None:
            raise BrokerError(f"there is no order {client_order_id!r} to cancel.")
        parent, target, leg = found
        wanted = {str(order.id): order for order in (parent, target)}
        for order_id in [order_id for order_id, order in wanted.items() if order.status.value not in DONE]:
            self._cancel(order_id, client_order_id)
        deadline = time.monotonic() + self._config.cancel_seconds
        while not is_settled(parent, target, leg) and time.monotonic() < deadline:
            time.sleep(0.05)
            again = self._find(client_order_id)
            if again is None:
                raise BrokerError(f"order {client_order_id!r} was there and is not any more.")
            parent, target, leg = again
        if leg is Leg.ENTRY:
            self._protect(parent)
        with translated():
            return describe(target, client_order_id, leg=leg, parent=parent)

    def find_order(self, client_order_id: str) -> BrokerOrder | None:
        """Return an order, or one exit, by our identity; None when Alpaca has none."""
        found = self._find(client_order_id)
        with translated():
            return None if found is None else describe(found[1], client_order_id, leg=found[2], parent=found[0])

    def list_open_orders(self) -> list[BrokerOrder]:
        """Return what may still be filled, entries and living exits, oldest first."""
        from alpaca.trading.enums import QueryOrderStatus
        from alpaca.trading.requests import GetOrdersRequest

        request = GetOrdersRequest(status=QueryOrderStatus.OPEN, limit=_PAGE, nested=False)
        with translated():
            orders = sorted(self._client.get_orders(request), key=lambda order: order.submitted_at)
            if len(orders) == _PAGE:
                raise BrokerError(f"Alpaca tells {_PAGE} open orders at most, and there may be more; cancel some.")
            self._learn_all({str(order.id) for order in orders})
            working = {order.client_order_id for order in orders}
            found = []
            for order in orders:
                identity, leg = self._legs.get(str(order.id), (order.client_order_id, Leg.ENTRY))
                asleep = leg is not Leg.ENTRY and identity.removesuffix(exit_ids("")[leg]) in working
                if not asleep:
                    found.append(describe(order, identity, leg=leg))
        return found

    def list_executions(self, since: datetime | None = None) -> list[Execution]:
        """Return what was filled at or after a time, oldest first."""
        fills: dict[str, Any] = {}
        token: str | None = None
        while True:
            query: dict[str, Any] = {"direction": "asc", "page_size": _FILLS_PAGE}
            if since is not None:
                query["after"] = (since - timedelta(seconds=1)).isoformat()  # Alpaca leaves out the moment itself
            if token is not None:
                query["page_token"] = token
            page = self._read(lambda client: client.get("/account/activities/FILL", query))  # noqa: B023
            if not isinstance(page, list):
                raise BrokerError(f"Alpaca must list its fills, was {str(page)[:200]!r}.")
            with translated():
                fills |= {fill["id"]: fill for fill in page}
                if len(page) < _FILLS_PAGE or page[-1]["id"] == token:
                    break
                token = page[-1]["id"]
        with translated():
            self._learn_all({fill["order_id"] for fill in fills.values()})
            executions = [self._execution(fill) for fill in fills.values()]
        executions.sort(key=lambda one: one.filled_at)
        return [one for one in executions if since is None or one.filled_at >= since]

    def list_positions(self) -> list[BrokerPosition]:
        """Return what is held, by symbol."""
        with translated():
            found = [
                BrokerPosition(
                    symbol=position.symbol,
                    qty=abs(float(position.qty)) * (1.0 if position.side.value == "long" else -1.0),
                    avg_cost=float(position.avg_entry_price),
                )
                for position in self._client.get_all_positions()
            ]
        return sorted(found, key=lambda position: position.symbol)

    def get_account(self) -> Account:
        """Return the cash."""
        with translated():
            account = self._client.get_account()
            return Account(cash=float(account.cash), currency=account.currency or "USD", account=account.account_number)

    def _read(self, work: Callable[[Any], Any]) -> Any:
        with translated():
            return work(self._client)

    def _find(self, client_order_id: str) -> tuple[AlpacaOrder, AlpacaOrder, Leg] | None:
        """Return the parent an identity belongs to, the order it names, and which part of the parent that is."""
        parent = self._get(client_order_id)
        if parent is not None and not is_own_exit(parent):
            return parent, parent, Leg.ENTRY
        for leg, suffix in exit_ids("").items():
            stem = client_order_id.removesuffix(suffix)
            if stem == client_order_id:
                continue
            for owner in (self._get(exit_ids(stem)[Leg.TAKE_PROFIT]), self._get(stem)):
                legs = {} if owner is None else legs_of(owner)
                if owner is not None and leg in legs:
                    return owner, legs[leg], leg
        return None

    def _get(self, client_order_id: str) -> AlpacaOrder | None:
        from alpaca.trading.requests import GetOrderByIdRequest

        try:
            with translated():
                found = self._client.get_order_by_client_id(client_order_id)
                nested: AlpacaOrder = self._client.get_order_by_id(found.id, GetOrderByIdRequest(nested=True))
                return nested
        except NotFound:
            return None

    def _cancel(self, order_id: str, client_order_id: str) -> None:
        try:
            with translated(writing=client_order_id):
                self._client.cancel_order_by_id(order_id)
        except (NotFound, Refused):
            return  # it was done before the wish arrived

    def _protect(self, parent: AlpacaOrder) -> None:
        """Give exits to what a bracket bought before its entry ended early."""
        legs = legs_of(parent)
        bought = float(parent.filled_qty or 0.0)
        ended = parent.status.value in ("canceled", "expired") and all(
            leg.status.value in ("canceled", "expired") and float(leg.filled_qty or 0.0) == 0.0 for leg in legs.values()
        )
        identity = exit_ids(parent.client_order_id)[Leg.TAKE_PROFIT]
        if len(legs) < 2 or not ended or self._get(identity) is not None:
            return
        if not is_uncovered(describe(parent, parent.client_order_id), self.list_positions(), self.list_open_orders()):
            return
        try:
            with translated(writing=identity):
                order = Order(
                    client_order_id=parent.client_order_id,
                    symbol=parent.symbol or "",
                    side=Side.BUY if describe(legs[Leg.TAKE_PROFIT], identity).side is Side.SELL else Side.SELL,
                    qty=bought,
                    stop_loss_price=float(legs[Leg.STOP_LOSS].stop_price or 0.0),
                    take_profit_price=float(legs[Leg.TAKE_PROFIT].limit_price or 0.0),
                )
                self._learn(self._client.submit_order(build_exits(order)))
        except Refused as refused:
            raise BrokerError(
                f"{bought:g} shares of {parent.symbol} from {parent.client_order_id!r} have no exits: Alpaca refused {refused}."
            ) from refused

    def _page_orders(self, more: Callable[[], bool]) -> Iterator[AlpacaOrder]:
        """Yield orders with their legs, newest first, page after page for as long as `more` says."""
        from alpaca.common.enums import Sort
        from alpaca.trading.enums import QueryOrderStatus
        from alpaca.trading.requests import GetOrdersRequest

        until: datetime | None = None
        seen: set[str] = set()
        while True:
            request = GetOrdersRequest(status=QueryOrderStatus.ALL, limit=_PAGE, nested=True, direction=Sort.DESC, until=until)
            page: list[AlpacaOrder] = self._read(lambda client: client.get_orders(request))  # noqa: B023
            new = [order for order in page if str(order.id) not in seen]
            seen |= {str(order.id) for order in new}
            yield from new
            if len(page) < _PAGE or not new or not more():
                return
            until = min(order.submitted_at for order in new) + timedelta(
                microseconds=1
            )  # orders of one moment may be on two pages

    def _learn(self, order: AlpacaOrder) -> None:
        own = is_own_exit(order)
        stem = order.client_order_id.removesuffix(exit_ids("")[Leg.TAKE_PROFIT]) if own else order.client_order_id
        self._legs[str(order.id)] = (order.client_order_id, Leg.TAKE_PROFIT if own else Leg.ENTRY)
        for leg, child in legs_of(order).items():
            self._legs[str(child.id)] = (exit_ids(stem)[leg], leg)

    def _learn_all(self, order_ids: set[str]) -> None:
        """Find out whose orders these are, from the newest back to where all are known."""

        def missing() -> set[str]:
            return order_ids - self._legs.keys()

        if missing():
            for order in self._page_orders(lambda: bool(missing())):
                self._learn(order)

    def _execution(self, fill: dict[str, Any]) -> Execution:
        identity, leg = self._legs.get(fill["order_id"], (fill["order_id"], Leg.ENTRY))
        return Execution(
            exec_id=fill["id"],
            client_order_id=identity,
            leg=leg,
            symbol=fill["symbol"],
            side=Side.BUY if fill["side"] == "buy" else Side.SELL,
            qty=float(fill["qty"]),
            price=float(fill["price"]),
            filled_at=datetime.fromisoformat(fill["transaction_time"]).astimezone(UTC),
        )
