"""Interactive Brokers behind the Broker protocol, over `ib_async` (extra ``ib``) and a running TWS or IB Gateway.

Hides the library, its event loop, and that order ids are issued anew when the gateway restarts. An order is known by its
``orderRef``, which is our identity, and by its ``permId``; an execution by its ``execId`` without the number of its revision.
Every question is asked of the gateway afresh, so that what happened while nobody listened is there like the rest. Promises that
nothing is sent to a port or an account of real money unless its maker was told that real money is armed.

.. warning::

    TWS tells the executions and the completed orders of the current day alone: an order that ended on an earlier day is not
    found. Whether it tells those of other client ids depends on its settings; keep `client_id` the same across restarts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from agents.brokers.broker import Account, BrokerOrder, BrokerPosition, Execution, Leg, Order, exit_ids
from agents.brokers.cover import is_uncovered
from agents.brokers.ib_connection import IBConnection
from agents.brokers.ib_words import (
    DONE,
    GatewayState,
    build_orders,
    build_stock,
    last_word,
    read_execution,
    read_symbol,
    split_exec_id,
)
from agents.brokers.ticks import on_grid
from core.errors import BrokerError, BrokerOutcomeUnknownError, BrokerUnavailableError, ConfigurationError, DataError
from core.types import PipelineStatus, Side

_T = TypeVar("_T")

LIVE_PORTS = (4001, 7496)
_PAPER_PREFIX = "DU"
_PAUSE = 0.01
_STOCK = "STK"


@dataclass(frozen=True, kw_only=True)
class IBConfig:
    """Settings of a connection.

    Parameters
    ----------
    host : str, default="127.0.0.1"
    port : int, default=4002
        4002 is IB Gateway's for paper, 7497 that of TWS; 4001 and 7496 are those of real money.
    client_id : int, default=17
        Keep it the same: orders belong to it.
    account : str, default=""
        Needed where the login has several.
    currency : str, default="USD"
        Of the stocks and of the cash.
    timeout_seconds : float, default=10.0
        Longest wait for an answer.
    cancel_seconds : float, default=5.0
        Longest wait for a cancelled order to be done.
    """

    host: str = "127.0.0.1"
    port: int = 4002
    client_id: int = 17
    account: str = ""
    currency: str = "USD"
    timeout_seconds: float = 10.0
    cancel_seconds: float = 5.0

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65_535:
            raise ConfigurationError(f"`port` must be in 1..65535, was {self.port!r}.")
        for name in ("timeout_seconds", "cancel_seconds"):
            if not 0.0 < getattr(self, name) <= 600.0:
                raise ConfigurationError(f"`{name}` must be in (0, 600], was {getattr(self, name)!r}.")


class IBBroker:
    """A broker at Interactive Brokers.

    Parameters
    ----------
    config : IBConfig
    real_money_armed : bool, default=False
        Whether all conditions of real money hold; decided elsewhere.

    Raises
    ------
    ConfigurationError
        If `ib_async` is not installed, or the port is one of real money and real money is not armed. An account of real money
        is found out by `connect`.

    Notes
    -----
    A lost connection is made anew by the next call. Calls on several threads wait for each other.
    """

    def __init__(self, config: IBConfig, *, real_money_armed: bool = False) -> None:
        if config.port in LIVE_PORTS and not real_money_armed:
            raise ConfigurationError(
                f"`port` must not be one of real money, {LIVE_PORTS}, unless it is armed, was {config.port}."
            )
        self._config = config
        self._armed = real_money_armed
        self._account = config.account
        self._line = IBConnection(
            host=config.host,
            port=config.port,
            client_id=config.client_id,
            timeout_seconds=config.timeout_seconds,
            prepare=self._greet,
        )

    @property
    def name(self) -> str:
        """``ib``."""
        return "ib"

    @property
    def is_paper(self) -> bool:
        """Whether no real money is at stake; an account that is not known yet counts as real where real money is armed."""
        return not self._armed or (self._config.port not in LIVE_PORTS and self._account.startswith(_PAPER_PREFIX))

    def connect(self) -> None:
        """Reach the gateway.

        Raises
        ------
        ConfigurationError
            If the account is one of real money and real money is not armed, or is not among those of the login.
        """

        async def nothing() -> None:
            return None

        self._ask(nothing)

    def close(self) -> None:
        """Let go of the gateway; orders stay with it."""
        self._line.close()

    def place_order(self, order: Order) -> BrokerOrder:
        """Place an order, or return the one that has its identity; a refusal is an order with the status rejected."""
        return self._ask(lambda: self._place(on_grid(order)))

    def place_exits(self, order: Order) -> BrokerOrder:
        """Place the exits of a bracket whose entry is taken as done, or return those that have its identity.

        One that works alone gets the other beside it. TWS does not ask whether the shares are held: whoever calls this has
        looked.
        """
        return self._ask(lambda: self._guard(on_grid(order)))

    def cancel_order(self, client_order_id: str) -> BrokerOrder:
        """Cancel what is not filled of an order; named by one exit, both exits and what is not filled of the entry.

        What an entry had filled keeps its exits: where TWS ended them with it, they are placed anew. Where that was
        interrupted, cancelling again does the rest.
        """
        return self._ask(lambda: self._cancel(client_order_id))

    def find_order(self, client_order_id: str) -> BrokerOrder | None:
        """Return an order, or one exit, by our identity; None when the gateway has none of today."""

        async def find() -> BrokerOrder | None:
            return (await self._read()).describe(client_order_id)

        return self._ask(find)

    def list_open_orders(self) -> list[BrokerOrder]:
        """Return what may still be filled, entries and living exits, oldest first."""

        async def read() -> list[BrokerOrder]:
            return (await self._read()).list_open()

        return self._ask(read)

    def list_executions(self, since: datetime | None = None) -> list[Execution]:
        """Return today's fills of stocks at or after a time, oldest first, each with its commission.

        Raises
        ------
        BrokerUnavailableError
            If TWS has not told a commission yet: an execution is reported with figures that stay.
        """

        async def read() -> list[Execution]:
            deadline = time.monotonic() + self._config.timeout_seconds
            fills = (await self._read()).fills
            while any(not fill.commissionReport.execId for fill in fills):
                if time.monotonic() >= deadline:
                    raise BrokerUnavailableError("TWS has not told the commission of every execution yet; ask again.")
                await asyncio.sleep(_PAUSE)
            return [read_execution(fill) for fill in fills]

        executions = sorted(self._ask(read), key=lambda one: one.filled_at)
        return [one for one in executions if since is None or one.filled_at >= since]

    def list_positions(self) -> list[BrokerPosition]:
        """Return the stocks that are held, by symbol; costs as TWS counts them, with commission."""

        return self._ask(self._positions)

    def get_account(self) -> Account:
        """Return the cash."""

        async def read() -> Account:
            # Asked for by hand: what the library keeps of a subscription may be minutes old.
            client, request = self._ib.client, self._ib.client.getReqId()
            answer = self._ib.wrapper.startReq(request)
            client.reqAccountSummary(request, "All", "TotalCashValue")
            await self._line.wait(answer)
            client.cancelAccountSummary(request)
            values = self._ib.wrapper.acctSummary.values()
            cash = [one for one in values if (one.account, one.tag) == (self._account, "TotalCashValue")]
            if not cash:
                raise BrokerError(f"TWS did not tell the cash of account {self._account}.")
            return Account(cash=float(cash[0].value), currency=cash[0].currency, account=self._account)

        return self._ask(read)

    def _ask(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        from ib_async.wrapper import RequestError

        try:
            return self._line.ask(work)
        except RequestError as error:
            raise BrokerError(f"TWS refused to answer: {error.code} {error.message}") from error
        except (DataError, ValueError, TypeError, AttributeError) as error:
            raise BrokerError(f"TWS answered what cannot be used: {error}") from error

    # In the loop

    @property
    def _ib(self) -> Any:
        return self._line.ib

    def _greet(self, ib: Any) -> None:
        self._account = self._choose_account(ib.client.getAccounts())

    def _choose_account(self, accounts: list[str]) -> str:
        wanted = self._config.account
        if (wanted and wanted not in accounts) or (not wanted and len(accounts) != 1):
            raise ConfigurationError(f"`account` must be one of {', '.join(accounts)}, was {wanted!r}.")
        account = wanted or accounts[0]
        if not account.startswith(_PAPER_PREFIX) and not self._armed:
            raise ConfigurationError(
                f"the account must be one of paper trading ({_PAPER_PREFIX}...) unless real money is armed, was {account}."
            )
        return account

    async def _read(self) -> GatewayState:
        ib = self._ib
        state = GatewayState()
        for trade in await self._line.wait(ib.reqAllOpenOrdersAsync()):
            if trade.order.orderRef and trade.order.account in ("", self._account):
                table = state.done if trade.orderStatus.status in DONE else state.working
                table[trade.order.orderRef] = trade
        for trade in await self._line.wait(ib.reqCompletedOrdersAsync(False)):
            if trade.order.orderRef and trade.order.account in ("", self._account):
                before = state.done.get(trade.order.orderRef)
                if before is None or before.order.permId < trade.order.permId:
                    state.done[trade.order.orderRef] = trade
        await self._line.wait(ib.reqExecutionsAsync())
        newest: dict[str, Any] = {}
        for fill in ib.fills():
            name, revision = split_exec_id(fill.execution.execId)
            if (fill.execution.acctNumber, fill.contract.secType) == (self._account, _STOCK) and (
                name not in newest or revision >= split_exec_id(newest[name].execution.execId)[1]
            ):
                newest[name] = fill
        state.fills = list(newest.values())
        for fill in state.fills:
            ref = fill.execution.orderRef
            state.executed[ref] = state.executed.get(ref, 0.0) + fill.execution.shares
        return state

    async def _positions(self) -> list[BrokerPosition]:
        found = [
            BrokerPosition(symbol=read_symbol(one.contract), qty=one.position, avg_cost=one.avgCost)
            for one in await self._line.wait(self._ib.reqPositionsAsync())
            if one.account == self._account and one.position and one.contract.secType == _STOCK
        ]
        return sorted(found, key=lambda position: position.symbol)

    async def _place(self, order: Order) -> BrokerOrder:
        found = (await self._read()).describe(order.client_order_id)
        if found is not None:
            return found
        with _lost_in(order.client_order_id):
            return await self._place_anew(order)

    async def _place_anew(self, order: Order) -> BrokerOrder:
        trades = await self._send(order.symbol, build_orders(order, self._account), order.client_order_id)
        refused = next((trade for trade in trades if trade.isDone() and trade.orderStatus.status != "Filled"), None)
        if refused is None:
            described = GatewayState(working={trade.order.orderRef: trade for trade in trades}).describe(order.client_order_id)
            assert described is not None
            return described
        for trade in trades:
            if not trade.isDone():
                self._ib.cancelOrder(trade.order)
        await self._until(lambda: all(trade.isDone() for trade in trades))
        bought, *sold = (trade.orderStatus.filled for trade in trades)
        over = all(trade.isDone() for trade in trades)
        if over and bought and order.is_bracket and not any(sold):
            # The entry was quicker than the refusal of its exits.
            target, stop = (trade.order for trade in trades[1:])
            await self._place_exits(order.client_order_id, order.symbol, bought, target, stop)
        if bought or not over:
            raise BrokerOutcomeUnknownError(
                f"TWS refused a part of {order.client_order_id} and may have filled another; ask for it by this identity."
            )
        return BrokerOrder(
            client_order_id=order.client_order_id,
            order_id=str(trades[0].order.permId or f"refused-{order.client_order_id}"),
            symbol=order.symbol,
            side=order.side,
            qty=order.qty,
            status=PipelineStatus.REJECTED,
            reason=last_word(refused) or "inactive",
        )

    async def _send(self, symbol: str, orders: list[Any], subject: str) -> list[Any]:
        """Send orders that belong together, and wait until TWS has said yes or no to each."""
        ib = self._ib
        ids = [ib.client.getReqId() for _ in orders]
        trades = []
        for number, order in zip(ids, orders, strict=True):
            order.orderId = number
            if order.parentId:
                order.parentId = ids[0]
            trades.append(ib.placeOrder(build_stock(symbol, self._config.currency), order))
        deadline = time.monotonic() + self._config.timeout_seconds
        while not all(trade.order.permId or trade.isDone() for trade in trades):
            if not ib.isConnected():
                raise BrokerOutcomeUnknownError(f"TWS was lost in the middle of {subject}; ask for it by this identity.")
            if time.monotonic() >= deadline:
                raise BrokerOutcomeUnknownError(f"TWS did not answer to {subject}; ask for it by this identity.")
            await asyncio.sleep(_PAUSE)
        return trades

    async def _until(self, is_over: Callable[[], bool]) -> None:
        """Wait for what was cancelled, as long as is waited for that."""
        deadline = time.monotonic() + self._config.cancel_seconds
        while not is_over() and time.monotonic() < deadline and self._ib.isConnected():
            await asyncio.sleep(_PAUSE)

    async def _cancel(self, client_order_id: str) -> BrokerOrder:
        state = await self._read()
        found = state.describe(client_order_id)
        if found is None:
            raise BrokerError(f"there is no order {client_order_id!r} to cancel.")
        entry = state.entry_of(client_order_id)
        family = {entry, *exit_ids(entry).values()}
        names = {client_order_id} if entry == client_order_id else family
        with _lost_in(f"cancelling {client_order_id}"):
            for name in names & state.working.keys():
                self._ib.cancelOrder(state.working[name].order)
            watched = {name: state.working[name] for name in family if name in state.working}

            def is_over() -> bool:
                # Exits that are about to end with their entry must not be taken for living ones.
                filled = entry in watched and watched[entry].orderStatus.status == "Filled"
                return all(trade.isDone() for name, trade in watched.items() if name in names or not filled)

            await self._until(is_over)
            state = await self._read()
            if names != family:
                await self._protect(state, entry)
            return (await self._read()).describe(client_order_id) or found

    async def _protect(self, state: GatewayState, client_order_id: str) -> None:
        """Give exits to what a bracket bought before its entry was cancelled, where TWS ended them with it."""
        entry = state.done.get(client_order_id)
        names = exit_ids(client_order_id)
        if entry is None or entry.orderStatus.status == "Filled" or any(name not in state.done for name in names.values()):
            return
        described = state.describe(client_order_id)
        if described is None or any(name in state.working or state.executed.get(name) for name in names.values()):
            return
        if not is_uncovered(described, await self._positions(), state.list_open()):
            return
        target, stop = (state.done[names[leg]].order for leg in (Leg.TAKE_PROFIT, Leg.STOP_LOSS))
        await self._place_exits(client_order_id, described.symbol, described.filled_qty, target, stop)

    async def _guard(self, order: Order) -> BrokerOrder:
        state = await self._read()
        target, stop = (state.describe(exit_ids(order.client_order_id)[leg]) for leg in (Leg.TAKE_PROFIT, Leg.STOP_LOSS))
        known, filled = target or stop, any(one is not None and one.filled_qty for one in (target, stop))
        alone = state.lone_exit(order.client_order_id)
        if known is not None and (filled or (target is not None and alone is None)):
            return known
        if not order.is_bracket:
            raise BrokerError(f"order {order.client_order_id!r} has no exits to place; give it a stop and a target.")
        if alone is not None and not alone.ocaGroup:
            # Beside it the other would not end with it, and both together would sell what is held twice.
            raise BrokerError(f"{alone.orderRef!r} works alone and in no group that the other exit could join; cancel it.")
        with _lost_in(f"the exits of {order.client_order_id}"):
            return await self._guard_anew(order, state, alone)

    async def _guard_anew(self, order: Order, state: GatewayState, alone: Any) -> BrokerOrder:
        identity = exit_ids(order.client_order_id)[Leg.TAKE_PROFIT]
        _, target, stop = build_orders(order, self._account)
        legs = [leg for leg in (stop, target) if alone is None or leg.orderRef != alone.orderRef]
        group = None if alone is None else alone.ocaGroup
        trades = await self._send_exits(order.client_order_id, order.symbol, order.qty, legs, group)
        refused = next((trade for trade in trades if trade.isDone() and trade.orderStatus.status != "Filled"), None)
        if refused is None:
            state.working.update({trade.order.orderRef: trade for trade in trades})
            described = state.describe(identity)
            assert described is not None
            return described
        if alone is not None:
            raise BrokerError(
                f"{alone.orderRef!r} works alone: TWS refused the other exit, {last_word(refused) or 'inactive'}."
            )
        for trade in trades:
            if not trade.isDone():
                self._ib.cancelOrder(trade.order)
        await self._until(lambda: all(trade.isDone() for trade in trades))
        if any(trade.orderStatus.filled or not trade.isDone() for trade in trades):
            raise BrokerOutcomeUnknownError(
                f"TWS refused one of the exits {order.client_order_id} and the other may work; ask for it by its identity."
            )
        return BrokerOrder(
            client_order_id=identity,
            order_id=str(trades[-1].order.permId or f"refused-{identity}"),
            symbol=order.symbol,
            side=Side.SELL if order.side is Side.BUY else Side.BUY,
            qty=order.qty,
            status=PipelineStatus.REJECTED,
            reason=last_word(refused) or "inactive",
        )

    async def _place_exits(self, client_order_id: str, symbol: str, bought: float, target: Any, stop: Any) -> None:
        """Place exits anew under their identities, at the prices they had."""
        trades = await self._send_exits(client_order_id, symbol, bought, [stop, target])
        if any(trade.isDone() for trade in trades):
            raise BrokerError(
                f"{bought:g} shares of {symbol} from {client_order_id!r} have no exits: TWS refused "
                f"{last_word(trades[0]) or last_word(trades[1])}."
            )

    async def _send_exits(
        self, client_order_id: str, symbol: str, bought: float, legs: list[Any], group: str | None = None
    ) -> list[Any]:
        """Send exits that end each other, the stop first: cut in between, what is held has its protection."""
        from ib_async import LimitOrder, StopOrder

        more = {"tif": "GTC", "account": self._account, "ocaGroup": group or f"{client_order_id}-exits", "ocaType": 1}
        orders = [
            StopOrder(leg.action, bought, leg.auxPrice, orderRef=leg.orderRef, **more)
            if leg.orderType == "STP"
            else LimitOrder(leg.action, bought, leg.lmtPrice, orderRef=leg.orderRef, **more)
            for leg in legs
        ]
        return await self._send(symbol, orders, orders[-1].orderRef)


@contextmanager
def _lost_in(subject: str) -> Iterator[None]:
    """A line that is lost from here on may have carried something: nobody knows what came of it."""
    try:
        yield
    except (ConnectionError, TimeoutError) as error:
        raise BrokerOutcomeUnknownError(
            f"TWS was lost in the middle of {subject}; ask for it by this identity: {error!r}"
        ) from error
