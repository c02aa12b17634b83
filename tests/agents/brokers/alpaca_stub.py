"""Alpaca on the loopback: orders, legs, fills and faults kept in memory, spoken in the API's JSON.

What it does follows Alpaca's documentation and forum: legs are held until their entry is filled completely, then the target is
new and the stop stays held; one leg's end ends the other; an identity is taken once; shares under a living order cannot be sold
again.
"""

from __future__ import annotations

import json
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

DONE = ("filled", "canceled", "expired", "rejected")
T0 = datetime(2024, 1, 2, 15, tzinfo=UTC)


@dataclass
class Exchange:
    """The state behind the address."""

    cash: float = 100_000.0
    orders: list[dict[str, Any]] = field(default_factory=list)
    fills: list[dict[str, Any]] = field(default_factory=list)
    ticks: int = 0
    fault: str | None = None
    """What happens to the next request that writes: cut_before, cut_after, error_after, nonsense_after, or a status."""
    repeat_fills: bool = False
    blocked: bool = False
    requests: list[str] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def now(self) -> str:
        self.ticks += 1
        return (T0 + timedelta(seconds=self.ticks)).isoformat().replace("+00:00", "Z")

    def new_order(self, body: dict[str, Any], **more: Any) -> dict[str, Any]:
        at = self.now()
        order = {
            "id": str(uuid.uuid4()),
            "client_order_id": body.get("client_order_id") or str(uuid.uuid4()),
            "created_at": at,
            "updated_at": at,
            "submitted_at": at,
            "filled_at": None,
            "symbol": body["symbol"],
            "asset_class": "us_equity",
            "qty": str(body["qty"]),
            "filled_qty": "0",
            "filled_avg_price": None,
            "order_class": body.get("order_class", ""),
            "type": body["type"],
            "side": body["side"],
            "time_in_force": body["time_in_force"],
            "limit_price": None if body.get("limit_price") is None else str(body["limit_price"]),
            "stop_price": None if body.get("stop_price") is None else str(body["stop_price"]),
            "status": "new",
            "extended_hours": False,
            "legs": None,
            **more,
        }
        self.orders.append(order)
        return order

    def submit(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if any(order["client_order_id"] == body.get("client_order_id") for order in self.orders):
            return 422, {"code": 40010001, "message": "client_order_id must be unique"}
        if body.get("order_class") in ("bracket", "oco") and float(body["qty"]) % 1:
            return 422, {"code": 42210000, "message": "fractional orders must be simple orders"}
        for price in (body.get("limit_price"), *(part.get(name) for part, name in self.exits_of(body))):
            if price is not None and round(float(price), 2) != float(price):
                return 422, {"code": 42210000, "message": f"invalid price {price}. sub-penny increment"}
        qty = float(body["qty"])
        if body["side"] == "buy" and qty * float(body.get("limit_price") or 0.0) > self.cash:
            return 403, {"code": 40310000, "message": "insufficient buying power"}
        if body["side"] == "sell" and qty > self.free(body["symbol"]):
            return 403, {"code": 40310000, "message": f"insufficient qty available for order (requested: {qty:g})"}
        exits = dict(zip(("take_profit", "stop_loss"), self.exits_of(body), strict=False))
        other = {**body, "client_order_id": None, "order_class": body.get("order_class", "")}
        if body.get("order_class") == "oco":
            order = self.new_order({**body, "limit_price": body["take_profit"]["limit_price"]})
            stop = {**other, "type": "stop", "limit_price": None, "stop_price": body["stop_loss"]["stop_price"]}
            order["legs"] = [self.new_order(stop, status="held", parent=order["id"])]
            return 200, order
        order = self.new_order(body)
        if exits:
            side = "sell" if body["side"] == "buy" else "buy"
            target = {**other, "side": side, "type": "limit", "limit_price": body["take_profit"]["limit_price"]}
            stop = {**other, "side": side, "type": "stop", "limit_price": None, "stop_price": body["stop_loss"]["stop_price"]}
            order["legs"] = [self.new_order(leg, status="held", parent=order["id"]) for leg in (target, stop)]
        return 200, order

    @staticmethod
    def exits_of(body: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
        found = []
        if "take_profit" in body:
            found = [(body["take_profit"], "limit_price"), (body["stop_loss"], "stop_price")]
        return found

    def free(self, symbol: str) -> float:
        held = self.position(symbol)[0]
        promised = max(
            (
                float(one["qty"]) - float(one["filled_qty"])
                for one in self.orders
                if one["symbol"] == symbol and one["side"] == "sell" and one["status"] not in DONE and self.awake(one)
            ),
            default=0.0,
        )
        return held - promised

    def awake(self, order: dict[str, Any]) -> bool:
        if "parent" not in order:
            return True
        parent = self.by_id(order["parent"])
        return parent["order_class"] == "oco" or parent["status"] == "filled"

    def by_id(self, order_id: str) -> dict[str, Any]:
        return next(one for one in self.orders if one["id"] == order_id)

    def siblings(self, order: dict[str, Any]) -> list[dict[str, Any]]:
        legs = order["legs"] if order["order_class"] == "oco" and order["legs"] else []
        if "parent" in order:
            parent = self.by_id(order["parent"])
            legs = [*parent["legs"], *([parent] if parent["order_class"] == "oco" else [])]
        return [one for one in legs if one is not order]

    def end(self, order: dict[str, Any], status: str) -> None:
        order["status"] = status
        for other in [*(order["legs"] or []), *self.siblings(order)]:
            if other["status"] not in DONE:
                other["status"] = "canceled"

    def cancel(self, order: dict[str, Any]) -> int:
        if order["status"] in DONE:
            return 422
        self.end(order, "canceled")
        return 204

    def fill(self, order: dict[str, Any], qty: float, price: float) -> None:
        """Fill a part of an order, as the market would."""
        with self.lock:
            assert order["status"] not in DONE
            assert self.awake(order)
            done = float(order["filled_qty"]) + qty
            assert done <= float(order["qty"])
            order["filled_qty"], order["filled_avg_price"] = str(done), str(price)
            order["status"] = "filled" if done == float(order["qty"]) else "partially_filled"
            self.cash -= qty * price * (1.0 if order["side"] == "buy" else -1.0)
            at = self.now()
            self.fills.append(
                {
                    "id": f"{len(self.fills):017d}::{uuid.uuid4()}",
                    "activity_type": "FILL",
                    "transaction_time": at,
                    "type": "fill" if order["status"] == "filled" else "partial_fill",
                    "price": str(price),
                    "qty": str(qty),
                    "side": order["side"],
                    "symbol": order["symbol"],
                    "leaves_qty": str(float(order["qty"]) - done),
                    "order_id": order["id"],
                    "cum_qty": str(done),
                    "order_status": order["status"],
                }
            )
            if order["status"] == "filled":
                for other in self.siblings(order):
                    if other["status"] not in DONE:
                        other["status"] = "canceled"
                for leg in order["legs"] or []:
                    if order["order_class"] == "bracket" and leg["type"] == "limit":
                        leg["status"] = "new"

    def position(self, symbol: str) -> tuple[float, float]:
        held = cost = 0.0
        for fill in self.fills:
            if fill["symbol"] == symbol:
                qty = float(fill["qty"]) * (1.0 if fill["side"] == "buy" else -1.0)
                cost += qty * float(fill["price"]) if qty > 0 else qty * (cost / held if held else 0.0)
                held += qty
        return held, cost / held if held else 0.0

    def shown(self, order: dict[str, Any], *, nested: bool) -> dict[str, Any]:
        legs = [self.shown(leg, nested=False) for leg in order["legs"]] if nested and order["legs"] else None
        return {**{name: value for name, value in order.items() if name != "parent"}, "legs": legs}

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        nested = query.get("nested", "").lower() == "true"
        if path == "/v2/account":
            return 200, {
                "id": str(uuid.UUID(int=1)),
                "account_number": "PA1",
                "status": "ACTIVE",
                "currency": "USD",
                "cash": str(self.cash),
                "trading_blocked": self.blocked,
                "account_blocked": False,
            }
        if path == "/v2/positions":
            return 200, [
                self.shown_position(symbol)
                for symbol in sorted({one["symbol"] for one in self.fills})
                if self.position(symbol)[0]
            ]
        if path == "/v2/account/activities/FILL":
            rows = [one for one in self.fills for _ in range(2 if self.repeat_fills else 1)]
            if "after" in query:
                after = datetime.fromisoformat(query["after"])
                rows = [one for one in rows if datetime.fromisoformat(one["transaction_time"]) > after]
            if "page_token" in query:
                rows = [one for one in rows if one["id"] > query["page_token"]]
            return 200, rows[: int(query["page_size"])]
        if path == "/v2/orders:by_client_order_id":
            found = [one for one in self.orders if one["client_order_id"] == query["client_order_id"]]
            return (
                (200, self.shown(found[0], nested=False)) if found else (404, {"code": 40410000, "message": "order not found"})
            )
        if path == "/v2/orders" and method == "POST":
            status, answer = self.submit(body)
            return status, self.shown(answer, nested=True) if status == 200 else answer
        if path == "/v2/orders":
            found = [one for one in self.orders if not (nested and "parent" in one)]
            if query.get("status", "open") == "open":
                found = [one for one in found if one["status"] not in DONE]
            if "symbols" in query:
                found = [one for one in found if one["symbol"] in query["symbols"].split(",")]
            if "until" in query:
                until = datetime.fromisoformat(query["until"])
                found = [one for one in found if datetime.fromisoformat(one["submitted_at"]) < until]
            if query.get("direction", "desc") == "desc":
                found = found[::-1]
            return 200, [self.shown(one, nested=nested) for one in found[: int(query.get("limit", 50))]]
        found = [one for one in self.orders if path == f"/v2/orders/{one['id']}"]
        if not found:
            return 404, {"code": 40410000, "message": "order not found"}
        if method == "DELETE":
            status = self.cancel(found[0])
            return status, None if status == 204 else {"code": 42210000, "message": "order is not cancelable"}
        return 200, self.shown(found[0], nested=nested)

    def shown_position(self, symbol: str) -> dict[str, Any]:
        held, cost = self.position(symbol)
        return {
            "asset_id": str(uuid.UUID(int=2)),
            "symbol": symbol,
            "exchange": "NASDAQ",
            "asset_class": "us_equity",
            "avg_entry_price": str(cost),
            "qty": str(held),
            "side": "long" if held > 0 else "short",
            "cost_basis": str(held * cost),
        }


@contextmanager
def serve(exchange: Exchange) -> Iterator[tuple[str, Callable[[], None]]]:
    """Serve an exchange on the loopback; yield its address, and what shuts it before its time."""
    connections: list[socket.socket] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            connections.append(self.connection)

        def do_GET(self) -> None:
            self.handle_one("GET")

        def do_POST(self) -> None:
            self.handle_one("POST")

        def do_DELETE(self) -> None:
            self.handle_one("DELETE")

        def handle_one(self, method: str) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            with exchange.lock:
                exchange.requests.append(f"{method} {parts.path}")
                fault = None
                if method != "GET":
                    fault, exchange.fault = exchange.fault, None
                if fault == "cut_before":
                    self.cut()
                    return
                if fault is not None and fault.isdigit():
                    self.reply(int(fault), {"code": 50010000, "message": "no"})
                    return
                status, answer = exchange.answer(method, parts.path, query, body)
            if fault == "cut_after":
                self.cut()
            elif fault == "error_after":
                self.reply(504, {"code": 50410000, "message": "timed out"})
            elif fault == "nonsense_after":
                self.reply(200, "not an order")
            else:
                self.reply(status, answer)

        def cut(self) -> None:
            self.close_connection = True
            self.connection.close()

        def reply(self, status: int, answer: Any) -> None:
            text = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A connection that was cut on purpose is no error."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        for connection in connections:
            connection.close()

    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", stop
    finally:
        stop()
        thread.join()
