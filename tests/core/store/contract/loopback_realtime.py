"""A small websocket server that speaks Realtime's wire format: joins, heartbeats and `postgres_changes`."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError
from websockets.http11 import Request, Response

KEY = "sb_secret_of_realtime"


class Realtime:
    """A running server; `tell` sends a change to whoever subscribed to its table, `drop` cuts everybody off."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.url = ""
        self.joins = 0
        self.refuse_joins = False
        self._subscribed: dict[ServerConnection, tuple[str, dict[str, int]]] = {}

    async def handle(self, connection: ServerConnection) -> None:
        try:
            async for text in connection:
                message = json.loads(text)
                reply: dict[str, Any] = {}
                status = "ok"
                if message["event"] == "phx_join":
                    self.joins += 1
                    asked = message["payload"]["config"]["postgres_changes"]
                    reply = {"postgres_changes": [{"id": number, **change} for number, change in enumerate(asked, start=1)]}
                    if self.refuse_joins:
                        status, reply = "error", {"reason": "no rights"}
                    else:
                        ids = {change["table"]: change["id"] for change in reply["postgres_changes"]}
                        self._subscribed[connection] = (message["topic"], ids)
                payload = {"status": status, "response": reply}
                await connection.send(self.encode(message["topic"], "phx_reply", payload, message["ref"]))
        except ConnectionClosedError:
            return
        finally:
            self._subscribed.pop(connection, None)

    @staticmethod
    def encode(topic: str, event: str, payload: dict[str, Any], ref: str | None) -> str:
        return json.dumps({"topic": topic, "event": event, "payload": payload, "ref": ref})

    @staticmethod
    def check_key(connection: ServerConnection, request: Request) -> Response | None:
        given = parse_qs(urlsplit(request.path).query).get("apikey")
        return None if given == [KEY] else connection.respond(HTTPStatus.FORBIDDEN, "wrong key")

    def tell(self, table: str, record: dict[str, Any]) -> None:
        """Send a change."""

        async def send() -> None:
            for connection, (topic, tables) in list(self._subscribed.items()):
                data = {
                    "schema": "public",
                    "table": table,
                    "commit_timestamp": datetime.now(UTC).isoformat(),
                    "type": "INSERT",
                    "errors": None,
                    "columns": [{"name": name, "type": "uuid"} for name in record],
                    "record": record,
                }
                await connection.send(self.encode(topic, "postgres_changes", {"ids": [tables[table]], "data": data}, None))

        asyncio.run_coroutine_threadsafe(send(), self.loop).result(10)

    def drop(self) -> None:
        """Cut every connection, as a server does that goes away."""

        async def cut() -> None:
            for connection in list(self._subscribed):
                connection.transport.abort()
            self._subscribed.clear()

        asyncio.run_coroutine_threadsafe(cut(), self.loop).result(10)


@contextmanager
def run() -> Iterator[Realtime]:
    """Serve until the block is left."""
    loop = asyncio.new_event_loop()
    realtime = Realtime(loop)
    started = threading.Event()
    stop = asyncio.Event()

    async def main() -> None:
        async with serve(realtime.handle, "127.0.0.1", 0, process_request=realtime.check_key) as server:
            realtime.url = f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    started.wait(10)
    try:
        yield realtime
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
