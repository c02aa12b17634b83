"""IB Gateway on the loopback: TWS's wire protocol at server version 178 as far as orders go, and a market that does as told.

What it tells of prices is in `tests.agents.brokers.scripted_prices`. An answer goes to who asked, news of an order to the
client that placed it.

Frames are length-prefixed, fields end in NUL. It follows IB's documentation where that says something: nothing of a bracket
works before its last part is transmitted, exits wake with the first fill of their entry, siblings end with a filled one, order
ids are issued anew after a restart while permIds stay. Where IB is silent it does the worst: exits end with a cancelled entry,
even a partly filled one.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.agents.brokers.scripted_prices import ScriptedPrices

VERSION = 178
T0 = datetime(2024, 1, 2, 15, tzinfo=UTC)
DONE = ("Filled", "Cancelled", "Inactive")
PLACE, CANCEL, OPEN_ORDERS, EXECUTIONS, ALL_OPEN_ORDERS, POSITIONS, SUMMARY, START, COMPLETED = 3, 4, 5, 7, 16, 61, 62, 71, 99


@dataclass
class Ticket:
    """An order at the gateway."""

    order_id: int
    perm_id: int
    client_id: int
    symbol: str
    action: str
    qty: float
    kind: str
    limit: str
    aux: str
    tif: str
    oca: str
    account: str
    ref: str
    parent_id: int
    good_till: str
    status: str = "PendingSubmit"
    filled: float = 0.0
    spent: float = 0.0


@dataclass
class Gateway:
    """The state behind the port."""

    accounts: str = "DU123"
    cash: float = 100_000.0
    tickets: list[Ticket] = field(default_factory=list)
    fills: list[dict[str, Any]] = field(default_factory=list)
    next_id: int = 1
    perm_ids: int = 1_000
    fault: str | None = None
    """What happens to the next order: cut_before or cut_after."""
    refuse: list[str] = field(default_factory=list)
    """References of the next orders to refuse, each once, when what they belong to works already."""
    eager: float = 0.0
    """What of an entry is filled at once."""
    repeat: bool = False
    silent: tuple[int, ...] = ()
    """Requests that get no answer."""
    commission: float = 0.0
    withhold_commissions: bool = False
    refuse_executions: str = ""
    """What it says instead of telling them."""
    options: dict[str, float] = field(default_factory=dict)
    """Contracts held, by symbol of what they are on."""
    deaf: set[socket.socket] = field(default_factory=set)
    """Connections that get no answer any more, and are not closed."""
    noise: bytes = b""
    """Sent instead of the next answer, and never again."""
    prices: ScriptedPrices = field(default_factory=ScriptedPrices)
    connections: dict[socket.socket, int] = field(default_factory=dict)
    """The client id of each."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    # The market

    def find(self, ref: str) -> Ticket:
        """The newest order under a reference of ours."""
        return [one for one in self.tickets if one.ref == ref][-1]

    def fill(self, ref: str, qty: float, price: float) -> None:
        """Fill a part of an order and tell whoever listens."""
        with self.lock:
            ticket = self.find(ref)
            parent = self.parent_of(ticket)
            assert ticket.status not in DONE
            assert parent is None or parent.filled >= ticket.filled + qty
            assert ticket.filled + qty <= ticket.qty
            ticket.filled += qty
            ticket.spent += qty * price
            ticket.status = "Filled" if ticket.filled == ticket.qty else "Submitted"
            self.cash -= qty * price * (1.0 if ticket.action == "BUY" else -1.0)
            number = len(self.fills) + 1
            exec_id, at = f"0000e0d5.64305db8.{number:02d}.01", T0 + timedelta(seconds=number)
            fill = {"exec_id": exec_id, "at": at, "qty": qty, "price": price, "ticket": ticket, "order_id": ticket.order_id}
            self.fills.append(fill)
            for _ in range(2 if self.repeat else 1):
                self.tell_execution(self.fills[-1], -1, self.owners(ticket))
            self.tell_status(ticket, self.owners(ticket))
            for child in self.tickets:
                if ticket.parent_id == 0 and child.parent_id == ticket.order_id and child.status == "PreSubmitted":
                    child.status = "Submitted"
                    self.tell_status(child, self.owners(child))
            if ticket.status == "Filled":
                for other in self.siblings(ticket):
                    self.end(other)

    def revise(self, number: int, price: float) -> None:
        """Report an execution again with another price, as a correction."""
        with self.lock:
            fill = self.fills[number]
            stem, _, revision = fill["exec_id"].rpartition(".")
            self.fills.append({**fill, "exec_id": f"{stem}.{int(revision) + 1:02d}", "price": price})
            self.tell_execution(self.fills[-1], -1, self.owners(fill["ticket"]))

    def parent_of(self, ticket: Ticket) -> Ticket | None:
        return next((one for one in self.tickets if ticket.parent_id and one.order_id == ticket.parent_id), None)

    def siblings(self, ticket: Ticket) -> list[Ticket]:
        return [one for one in self.tickets if one is not ticket and ticket.oca and one.oca == ticket.oca]

    def end(self, ticket: Ticket) -> None:
        if ticket.status in DONE:
            return
        ticket.status = "Cancelled"
        self.tell_status(ticket, self.owners(ticket))
        for child in self.tickets:
            if child.parent_id == ticket.order_id:
                self.end(child)

    def restart(self) -> None:
        """Lose every connection, and number orders from one again; the identities that last stay."""
        with self.lock:
            self.disconnect()
            self.next_id = 1
            living = [one for one in self.tickets if one.status not in DONE]
            numbers = {one.order_id: new for new, one in enumerate(living, 1)}
            for ticket in self.tickets:
                ticket.order_id = numbers[ticket.order_id] if ticket in living else 0
                ticket.parent_id = numbers.get(ticket.parent_id, 0) if ticket in living else 0

    def disconnect(self) -> None:
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    # What it tells

    def owners(self, ticket: Ticket) -> list[socket.socket]:
        """The connections that hear of an order unasked."""
        return [connection for connection, client_id in self.connections.items() if client_id == ticket.client_id]

    def send(self, *fields: Any, to: list[socket.socket]) -> None:
        text = "".join(f"{one}\0" for one in fields).encode()
        for connection in to:
            with contextlib.suppress(OSError):
                connection.sendall(struct.pack(">I", len(text)) + text)

    def contract(self, symbol: str, kind: str = "STK") -> list[Any]:
        return [sum(symbol.encode()), symbol, kind, "", 0, "", "", "SMART", "USD", symbol, symbol]

    # fmt: off
    def tell_order(self, ticket: Ticket, to: list[socket.socket]) -> None:
        self.send(
            5, ticket.order_id, *self.contract(ticket.symbol), ticket.action, ticket.qty, ticket.kind, ticket.limit, ticket.aux,
            ticket.tif, ticket.oca, ticket.account, "", 0, ticket.ref, ticket.client_id, ticket.perm_id, 0, 0, 0, "", "",
            *[""] * 4, ticket.good_till, *[""] * 12,  # to stockRangeUpper
            *[0] * 4, "", 0, 0, 0, "", ticket.parent_id, 0, "", 0, "", "",  # to deltaNeutralAuxPrice
            0, 0, *[""] * 5, 0, 0, 0, *[""] * 4,  # to hedgeType
            0, "", "", 0, 0, "", 0, 0,  # to whatIf
            ticket.status, *[""] * 14, 0, 0,  # to randomizePrice
            0, "None", *[""] * 11, 0, 0, "", "",  # conditions and adjustments
            "", "", 0, *[""] * 5, to=to,
        )

    def tell_completed(self, ticket: Ticket, to: list[socket.socket]) -> None:
        self.send(
            101, *self.contract(ticket.symbol), ticket.action, ticket.qty, ticket.kind, ticket.limit, ticket.aux, ticket.tif,
            ticket.oca, ticket.account, "", 0, ticket.ref, ticket.perm_id, 0, 0, 0, "", "", "", "",
            "", ticket.good_till, *[""] * 12, 0, 0, "", 0, 0, "", 0, "", "",  # to deltaNeutralAuxPrice
            0, 0, "", "", "", 0, 0, 0, *[""] * 4,  # to hedgeType
            "", "", 0, 0, "", 0, ticket.status, 0, 0, 0,  # to the number of conditions
            "", "", "", 0, 0, "", ticket.filled, 0, 0, "", 0, 0, 0, "", ticket.status, *[""] * 5, to=to,
        )

    def tell_status(self, ticket: Ticket, to: list[socket.socket]) -> None:
        average = ticket.spent / ticket.filled if ticket.filled else 0.0
        self.send(3, ticket.order_id, ticket.status, ticket.filled, ticket.qty - ticket.filled, average, ticket.perm_id,
                  ticket.parent_id, 0, ticket.client_id, "", 0, to=to)

    def tell_execution(self, fill: dict[str, Any], request: int, to: list[socket.socket]) -> None:
        ticket: Ticket = fill["ticket"]
        self.send(
            11, request, fill["order_id"], *self.contract(ticket.symbol), fill["exec_id"], f"{fill['at']:%Y%m%d %H:%M:%S} UTC",
            ticket.account, "ISLAND", "BOT" if ticket.action == "BUY" else "SLD", fill["qty"], fill["price"], ticket.perm_id,
            ticket.client_id, 0, ticket.filled, fill["price"], ticket.ref, "", "", "", 1, 0, to=to,
        )
        if not self.withhold_commissions:
            self.send(59, 1, fill["exec_id"], self.commission, "USD", "", "", "", to=to)
    # fmt: on

    # What it is asked

    def answer(self, fields: list[str], connection: socket.socket) -> None:
        kind, to = int(fields[0]), [connection]
        if kind in self.silent or connection in self.deaf:
            return
        if self.noise and kind != START:
            connection.sendall(self.noise)
            self.noise = b""
            return
        if kind == START:
            client_id = int(fields[2])
            if any(other == client_id and not is_closed(one) for one, other in self.connections.items()):
                self.send(4, 2, -1, 326, "Unable to connect as the client id is already in use.", "", to=to)
                connection.shutdown(socket.SHUT_RDWR)
                return
            self.connections[connection] = client_id
            self.send(15, 1, self.accounts, to=to)
            self.send(9, 1, self.next_id, to=to)
        elif kind == PLACE:
            self.place(fields, self.connections.get(connection, 0), to)
        elif kind == CANCEL:
            number = int(fields[2])
            found = [one for one in self.tickets if one.order_id == number and one.status not in DONE]
            if found:
                self.end(found[0])
            else:
                self.send(4, 2, number, 10147, f"OrderId {number} that needs to be cancelled is not found.", "", to=to)
        elif kind in (OPEN_ORDERS, ALL_OPEN_ORDERS):
            for ticket in self.tickets:
                if ticket.status not in (*DONE, "PendingSubmit"):
                    self.tell_order(ticket, to)
                    self.tell_status(ticket, to)
            self.send(53, 1, to=to)
        elif kind == COMPLETED:
            for ticket in self.tickets:
                if ticket.status in DONE:
                    self.tell_completed(ticket, to)
            self.send(102, to=to)
        elif kind == EXECUTIONS:
            if self.refuse_executions:
                self.send(4, 2, fields[2], 162, self.refuse_executions, "", to=to)
                return
            for fill in self.fills:
                for _ in range(2 if self.repeat else 1):
                    self.tell_execution(fill, int(fields[2]), to)
            self.send(55, 1, fields[2], to=to)
        elif kind == POSITIONS:
            for symbol, (held, cost) in self.positions().items():
                self.send(61, 3, self.accounts.split(",")[0], *self.contract(symbol), held, cost, to=to)
            for symbol, held in self.options.items():
                self.send(61, 3, self.accounts.split(",")[0], *self.contract(symbol, "OPT"), held, 250.0, to=to)
            self.send(62, 1, to=to)
        elif kind == SUMMARY:
            self.send(63, 1, fields[2], self.accounts.split(",")[0], "TotalCashValue", self.cash, "USD", to=to)
            self.send(64, 1, fields[2], to=to)
        else:
            for frame in self.prices.answer(fields):
                self.send(*frame, to=to)

    def positions(self) -> dict[str, tuple[float, float]]:
        book: dict[str, tuple[float, float]] = {}
        for fill in self.fills:
            held, cost = book.get(fill["ticket"].symbol, (0.0, 0.0))
            signed = fill["qty"] if fill["ticket"].action == "BUY" else -fill["qty"]
            if signed > 0:
                cost = (held * cost + signed * fill["price"]) / (held + signed)
            book[fill["ticket"].symbol] = (held + signed, cost if held + signed else 0.0)
        return book

    def place(self, fields: list[str], client_id: int, to: list[socket.socket]) -> None:
        number, transmit = int(fields[1]), fields[27] == "1"
        self.next_id = max(self.next_id, number + 1)
        self.perm_ids += 1
        self.tickets.append(
            Ticket(
                order_id=number,
                perm_id=self.perm_ids,
                client_id=client_id,
                symbol=fields[3],
                action=fields[16],
                qty=float(fields[17]),
                kind=fields[18],
                limit=fields[19],
                aux=fields[20],
                tif=fields[21],
                oca=fields[22],
                account=fields[23],
                ref=fields[26],
                parent_id=int(fields[28]),
                good_till=fields[38],
            )
        )
        if not transmit:
            return
        group = [one for one in self.tickets if one.status == "PendingSubmit"]
        entry = group[0]
        if entry.action == "BUY" and entry.qty * float(entry.limit or 0.0) > self.cash:
            for ticket in group:
                self.tickets.remove(ticket)
                self.send(4, 2, ticket.order_id, 201, "Order rejected - reason:not enough money", "", to=to)
            return
        refused = [ticket for ticket in group if ticket.ref in self.refuse]
        for ticket in refused:
            self.refuse.remove(ticket.ref)
            self.tickets.remove(ticket)
        for ticket in [one for one in group if one not in refused]:
            ticket.status = "PreSubmitted" if ticket.parent_id else "Submitted"
            ticket.oca = ticket.oca or (f"bracket-{entry.perm_id}" if ticket.parent_id else "")
            self.tell_order(ticket, to)
            self.tell_status(ticket, to)
        if self.eager and entry.action == "BUY":
            self.fill(entry.ref, self.eager, float(entry.limit))
        for ticket in refused:
            self.send(4, 2, ticket.order_id, 201, "Order rejected - reason:the price is too far away", "", to=to)


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has hung up."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def read_frame(connection: socket.socket) -> bytes | None:
    """Read one length-prefixed message; None at the end."""
    size = b""
    while len(size) < 4:
        part = connection.recv(4 - len(size))
        if not part:
            return None
        size += part
    left, text = struct.unpack(">I", size)[0], b""
    while len(text) < left:
        part = connection.recv(left - len(text))
        if not part:
            return None
        text += part
    return text


@contextlib.contextmanager
def serve(gateway: Gateway) -> Iterator[tuple[int, Any]]:
    """Serve a gateway on the loopback; yield its port, and what shuts it before its time."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def talk(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            assert connection.recv(4) == b"API\0"
            if read_frame(connection) is None:
                return
            hello = f"{VERSION}\0{T0:%Y%m%d %H:%M:%S} UTC\0".encode()
            connection.sendall(struct.pack(">I", len(hello)) + hello)
            while (frame := read_frame(connection)) is not None:
                fields = frame.decode().split("\0")[:-1]
                with gateway.lock:
                    cut = gateway.fault if fields[0] == str(PLACE) else None
                    if cut == "cut_before":
                        gateway.fault = None
                        gateway.disconnect()
                        return
                    last = cut == "cut_after" and fields[27] == "1"
                    if last:
                        gateway.fault = None
                        gateway.disconnect()
                    gateway.answer(fields, connection)
                    if last:
                        return

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=talk, args=(connection,)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()

    def stop() -> None:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        with gateway.lock:
            gateway.disconnect()

    try:
        yield listener.getsockname()[1], stop
    finally:
        stop()
        for thread in [acceptor, *threads]:
            thread.join(timeout=5.0)
