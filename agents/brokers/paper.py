"""The paper broker: no money, the backtest's fills, and a book in the store that survives any crash.

Hides tables and how concurrent writers agree. Promises that every change is one transaction: an order is placed once, a bar
is processed once whoever hands it in again, and cash and positions are the sum of the fills at any time. It fills nothing by
itself: time passes with the bars it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from agents.brokers.broker import Account, BrokerOrder, BrokerPosition, Execution, Leg, Order, exit_ids
from agents.brokers.matching import MatchingRules, WorkingOrder, expire, match_bars
from agents.trading.market_data import Bar
from core.clock import Clock
from core.errors import (
    BrokerError,
    BrokerOutcomeUnknownError,
    BrokerUnavailableError,
    ConfigurationError,
    StoreError,
    StoreUnavailableError,
)
from core.store.gateway import Gateway, Row
from core.store.trading_records import read_message
from core.types import PipelineStatus

_ATTEMPTS = 20
_SUFFIXES = {suffix: leg for leg, suffix in exit_ids("").items()}


@dataclass(frozen=True, kw_only=True)
class PaperConfig:
    """Settings of a paper account.

    Parameters
    ----------
    account : str, default="paper"
        Name of the account in the store; each has orders and money of its own.
    currency : str, default="USD"
        Three letters of ISO 4217.
    initial_cash : float, default=250_000.0
        Cash of an account that is opened; one that is there keeps what it has. With 100,000 the first commission would put the
        account below the stage at which a context with a loss may go on learning.
    rules : MatchingRules
    bar_seconds : float, optional, default=0.0
        Length of a bar. An order meets no bar that had begun when it was placed; with 0, it meets the first that ends later,
        which is right where orders are placed between bars only. None where nobody knows: a bar that may have begun before
        the order was placed, since the bar before it ended earlier, then proves to it only its close.
    allow_short : bool, default=False
        Whether it may sell what it does not hold.

    Raises
    ------
    ConfigurationError
        If the cash is not positive or the length negative.
    """

    account: str = "paper"
    currency: str = "USD"
    initial_cash: float = 250_000.0
    rules: MatchingRules = field(default_factory=MatchingRules)
    bar_seconds: float | None = 0.0
    allow_short: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.initial_cash <= 1e15:
            raise ConfigurationError(f"`initial_cash` must be in (0, 1e+15], was {self.initial_cash!r}.")
        if self.bar_seconds is not None and not 0.0 <= self.bar_seconds <= 1e7:
            raise ConfigurationError(f"`bar_seconds` must be in [0, 1e+07] or None, was {self.bar_seconds!r}.")


class PaperBroker:
    """A broker without money, durable in the store.

    Parameters
    ----------
    gateway : Gateway
        Way to the database, as `service_role`.
    config : PaperConfig
    clock : Clock
        Says when an order is placed.

    Notes
    -----
    A buy whose limit, or last close, times its quantity is more than the cash that is not promised to other orders is
    rejected, commission not counted; so is a sale of shares that are not held, or that living exits watch over: cancel those
    first. Cancelling one exit cancels the other, and what is not filled of the entry.
    """

    def __init__(self, gateway: Gateway, config: PaperConfig, clock: Clock) -> None:
        self._gateway = gateway
        self._config = config
        self._clock = clock

    @property
    def name(self) -> str:
        """``paper``."""
        return "paper"

    @property
    def is_paper(self) -> bool:
        """True: there is no money."""
        return True

    def connect(self) -> None:
        """Open the account, or find it as it was left.

        Raises
        ------
        BrokerError
            If the account is there in another currency.
        """
        config = self._config
        payload = {"account": config.account, "currency": config.currency, "initial_cash": config.initial_cash}
        with _reading():
            row = self._gateway.rpc("open_paper_account", payload=payload)[0]
        if row["currency"] != config.currency:
            raise BrokerError(f"paper account {config.account!r} is kept in {row['currency']}, not in {config.currency}.")

    def close(self) -> None:
        """Do nothing: the account is in the store."""

    def place_order(self, order: Order) -> BrokerOrder:
        """Place an order, or return the one that has its identity; a refusal is an order with the status rejected."""
        with _writing(order.client_order_id):
            return _working(self._gateway.rpc("place_paper_order", payload=self._ticket(order))[0]).describe()

    def place_orders(self, orders: Sequence[Order]) -> list[BrokerOrder]:
        """Place orders in one transaction, in their order and by the rules of `place_order`; all of them or none."""
        payload = {"orders": [self._ticket(order) for order in orders]}
        with _writing(f"{len(orders)} orders"):
            rows = self._gateway.rpc("place_paper_orders", payload=payload)
        return [_working(row).describe() for row in rows]

    def _ticket(self, order: Order) -> dict[str, Any]:
        now = self._clock.now()
        return {
            **order.to_dict(),
            "account": self._config.account,
            "placed_at": now.isoformat(),
            "allow_short": self._config.allow_short,
            "reason": self._refuse(order, now),
        }

    def place_exits(self, order: Order) -> BrokerOrder:
        """Place the exits of a bracket whose entry is taken as done, or return those that have its identity."""
        now = self._clock.now()
        if not order.is_bracket:
            raise BrokerError(f"order {order.client_order_id!r} has no exits to place; give it a stop and a target.")
        payload = {
            **replace(order, limit_price=None, expires_at=None).to_dict(),
            "account": self._config.account,
            "placed_at": now.isoformat(),
            "reason": self._refuse(order, now),
        }
        with _writing(order.client_order_id):
            placed = _working(self._gateway.rpc("place_paper_exits", payload=payload)[0])
        target = placed.describe(Leg.TAKE_PROFIT)
        rejected = placed.status is PipelineStatus.REJECTED
        return replace(target, status=placed.status, reason=placed.reason) if rejected else target

    def _refuse(self, order: Order, now: datetime) -> str:
        if not self._config.rules.is_whole(order.qty):
            return f"`qty` must be a multiple of {self._config.rules.lot_size:g}, was {order.qty:g}"
        if order.expires_at is not None and order.expires_at <= now:
            return f"`expires_at` must be after {now.isoformat()}, was {order.expires_at.isoformat()}"
        return ""

    def cancel_order(self, client_order_id: str) -> BrokerOrder:
        """Cancel what is not filled of an order; named by one exit, both exits and what is not filled of the entry."""
        for identity, leg in _meanings(client_order_id):
            payload = {"account": self._config.account, "client_order_id": identity, "exits": leg is not Leg.ENTRY}
            with _writing(client_order_id):
                rows = self._gateway.rpc("cancel_paper_order", payload=payload)
            if rows:
                return _working(rows[0]).describe(leg)
        raise BrokerError(f"there is no order {client_order_id!r} to cancel.")

    def find_order(self, client_order_id: str) -> BrokerOrder | None:
        """Return an order, or one exit, by our identity; None when there is none."""
        for identity, leg in _meanings(client_order_id):
            where = {"account": self._config.account, "client_order_id": identity}
            with _reading():
                rows = self._gateway.select("paper_orders", where=where)
            if rows and (leg is Leg.ENTRY or rows[0]["stop_loss_price"] is not None):
                return _working(rows[0]).describe(leg)
        return None

    def list_open_orders(self) -> list[BrokerOrder]:
        """Return what may still be filled, entries and living exits, oldest first."""
        _, orders, _ = self._read()
        found: list[BrokerOrder] = []
        for order in orders:
            if order.is_working:
                found.append(order.describe())
            if order.has_living_exits:
                legs = (Leg.STOP_LOSS,) if order.stop_triggered else (Leg.STOP_LOSS, Leg.TAKE_PROFIT)
                found += [order.describe(leg) for leg in legs]
        return found

    def list_executions(self, since: datetime | None = None) -> list[Execution]:
        """Return what was filled at or after a time, in the order of the fills."""
        where: Row = {"account": self._config.account}
        if since is not None:
            where["filled_at"] = ("gte", since)
        with _reading():
            rows = self._gateway.select("paper_fills", where=where, order=("fill_number",))
        return [_execution(row) for row in rows]

    def list_positions(self) -> list[BrokerPosition]:
        """Return what is held, by symbol; costs without commission."""
        with _reading():
            rows = self._gateway.select("paper_positions", where={"account": self._config.account}, order=("symbol",))
        return [read_message(BrokerPosition, row) for row in rows]

    def get_account(self) -> Account:
        """Return the cash."""
        with _reading():
            rows = self._gateway.select("paper_accounts", where={"account": self._config.account})
        if not rows:
            raise BrokerError(f"there is no paper account {self._config.account!r}; call `connect` first.")
        return read_message(Account, rows[0])

    def waiting_since(self) -> dict[str, datetime]:
        """Return since when each symbol with open orders waits for bars.

        Returns
        -------
        dict of str to datetime
            When its last bar was met, or when the oldest of its open orders was placed, if that is later; UTC.
        """
        _, orders, seen = self._read()
        placed: dict[str, datetime] = {}
        for order in orders:
            placed[order.symbol] = min(order.placed_at, placed.get(order.symbol, order.placed_at))
        return {symbol: max(at, seen.get(symbol, at)) for symbol, at in placed.items()}

    def on_bar(self, bar: Bar) -> list[Execution]:
        """Let a bar meet the open orders of its symbol; see `on_bars`."""
        return self.on_bars([bar])

    def on_bars(self, bars: Sequence[Bar]) -> list[Execution]:
        """Let bars meet the open orders of their symbols, in the order of their times, then of their symbols.

        Parameters
        ----------
        bars : sequence of Bar
            Of any symbols. One that is not newer than the last of its symbol is passed over: it was processed before.

        Returns
        -------
        list of Execution
            What they filled, oldest first.

        Notes
        -----
        All of it is written in one transaction, guarded by the version of the account. Orders of every symbol whose time is
        over before a bar's end expire with it.
        """
        if not bars:
            return []
        for _ in range(_ATTEMPTS):
            version, orders, seen = self._read()
            payload, executions = self._match(bars, orders, seen)
            if not payload["bars"]:
                return []
            payload |= {"account": self._config.account, "version": version}
            with _writing("of these bars"):
                if self._gateway.rpc("apply_paper_bars", payload=payload)[0]["apply_paper_bars"]:
                    return executions
        raise BrokerUnavailableError(
            f"paper account {self._config.account!r} changed under every one of {_ATTEMPTS} attempts to process its bars; "
            "hand them in again."
        )

    def _read(self) -> tuple[int, list[WorkingOrder], dict[str, datetime]]:
        with _reading():
            answer = self._gateway.rpc("read_paper_account", account=self._config.account)[0]["read_paper_account"]
        if answer is None:
            raise BrokerError(f"there is no paper account {self._config.account!r}; call `connect` first.")
        seen = {symbol: datetime.fromisoformat(at) for symbol, at in answer["bars"].items()}
        return answer["version"], [_working(row) for row in answer["orders"]], seen

    def _match(
        self, bars: Sequence[Bar], orders: list[WorkingOrder], seen: dict[str, datetime]
    ) -> tuple[dict[str, Any], list[Execution]]:
        length = timedelta(seconds=self._config.bar_seconds or 0.0)
        book = {order.client_order_id: order for order in orders}
        changed: dict[str, WorkingOrder] = {}
        last: dict[str, Bar] = {}
        executions: list[Execution] = []
        for bar in sorted(bars, key=lambda bar: (bar.at, bar.symbol)):
            before = seen.get(bar.symbol)
            if before is not None and bar.at <= before:
                continue
            seen[bar.symbol] = bar.at
            last[bar.symbol] = bar
            waiting = [
                order
                for order in book.values()
                if order.symbol == bar.symbol and order.placed_at < bar.at and order.placed_at <= bar.at - length
            ]
            if self._config.bar_seconds is None:
                matched, fills = _match_young(waiting, bar, before, self._config.rules)
            else:
                matched, fills = match_bars(waiting, bar, self._config.rules)
            executions += fills
            late = [expire(order, bar.at) for order in book.values() if order.symbol != bar.symbol]
            for order in (*matched, *late):
                if order is not book[order.client_order_id]:
                    book[order.client_order_id] = changed[order.client_order_id] = order
        payload = {
            "bars": [{"symbol": bar.symbol, "at": bar.at.isoformat(), "close": bar.close} for bar in last.values()],
            "orders": [
                {"client_order_id": name, "status": order.status.value, "stop_triggered": order.stop_triggered}
                for name, order in changed.items()
            ],
            "fills": [{**fill.to_dict(), "client_order_id": _entry_of(fill)} for fill in executions],
        }
        return payload, executions


def _match_young(
    orders: Sequence[WorkingOrder], bar: Bar, before: datetime | None, rules: MatchingRules
) -> tuple[list[WorkingOrder], list[Execution]]:
    """Let a bar of unknown length meet orders: those placed after the bar before it meet only its close."""
    old = [order for order in orders if before is not None and order.placed_at <= before]
    matched, fills = match_bars(old, bar, rules)
    taken = sum(fill.qty for fill in fills)
    volume = bar.volume
    if volume is not None and rules.participation_limit is not None:
        volume = max(0.0, volume - taken / rules.participation_limit)
    close = replace(bar, open=bar.close, high=bar.close, low=bar.close, volume=volume)
    young, more = match_bars([order for order in orders if order not in old], close, rules)
    return [*matched, *young], [*fills, *more]


def _working(row: Row) -> WorkingOrder:
    return read_message(WorkingOrder, {"order_id": f"paper-{row['order_number']}", **row})


def _execution(row: Row) -> Execution:
    leg = Leg(row["leg"])
    identity = row["client_order_id"] if leg is Leg.ENTRY else exit_ids(row["client_order_id"])[leg]
    return read_message(Execution, {**row, "client_order_id": identity})


def _entry_of(fill: Execution) -> str:
    suffix = "" if fill.leg is Leg.ENTRY else exit_ids("")[fill.leg]
    return fill.client_order_id.removesuffix(suffix)


def _meanings(client_order_id: str) -> Iterator[tuple[str, Leg]]:
    """Yield what an identity may name: an order, or an exit of one."""
    yield client_order_id, Leg.ENTRY
    for suffix, leg in _SUFFIXES.items():
        if client_order_id.endswith(suffix):
            yield client_order_id.removesuffix(suffix), leg


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except StoreUnavailableError as error:
        raise BrokerUnavailableError(f"the paper broker's store cannot be reached: {error}") from error
    except StoreError as error:
        raise BrokerError(f"the paper broker's store refused: {error}") from error


@contextmanager
def _writing(subject: str) -> Iterator[None]:
    try:
        yield
    except StoreUnavailableError as error:
        raise BrokerOutcomeUnknownError(f"the paper broker's store was lost in the middle of {subject}: {error}") from error
    except StoreError as error:
        raise BrokerError(f"the paper broker's store refused: {error}") from error
