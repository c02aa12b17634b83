"""RealtimeFeed: a ChangeFeed over Supabase Realtime's `postgres_changes`.

Hides the websocket, its event loop and its loss. Realtime delivers at most once and says nothing of what it did not deliver: so
the tables are asked again after every subscription but the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from core.errors import StoreUnavailableError
from core.store.events import CatchUp, Change, Watched, id_text
from core.store.gateway import Gateway

_PATIENCE_SECONDS = 60.0
_BACKOFF_SECONDS = 0.1
_MAX_BACKOFF_SECONDS = 5.0
_JOIN_SECONDS = 15
_TOPIC = "aqf-changes"


class RealtimeFeed:
    """Listen to what Realtime tells about tables of the publication `supabase_realtime`.

    Parameters
    ----------
    url : str
        Address of the project.
    key : str
        Service-role key, or a token whose role may read the tables.
    gateway : Gateway
        Way to the tables, for catching up.
    watched : sequence of Watched
        The tables.
    """

    def __init__(self, url: str, key: str, gateway: Gateway, watched: Sequence[Watched]) -> None:
        self._url = url
        self._key = key
        self._watched = {item.table: item for item in watched}
        self._catch_up = CatchUp(gateway, watched)
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._stop = asyncio.Event()
        self._lost_since: float | None = None
        self._reason = "it was never there"

    def open(self) -> Self:
        """Begin to listen; returns once Realtime has confirmed the subscription."""
        self._lost_since = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="aqf-realtime", daemon=True)
        self._thread.start()
        try:
            self._queue.get(timeout=_JOIN_SECONDS)
        except queue.Empty:
            self.close()
            raise StoreUnavailableError(f"Realtime of {self._url} cannot be reached: {self._reason}") from None
        self._catch_up.begin()
        return self

    def close(self) -> None:
        """Stop listening."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def changes(self, timeout_seconds: float) -> list[Change]:
        """Wait for changes, at most so long, and return them; empty when there were none."""
        if self._thread is None:
            raise StoreUnavailableError("the feed is not open.")
        try:
            message = self._queue.get(timeout=timeout_seconds)
        except queue.Empty:
            if self._lost_since is not None and time.monotonic() - self._lost_since > _PATIENCE_SECONDS:
                raise StoreUnavailableError(f"Realtime of {self._url} cannot be reached: {self._reason}") from None
            return []
        if message is None:
            return self._catch_up.read()
        watched = self._watched[message["table"]]
        key = (message.get("record") or message.get("old_record") or {}).get(watched.key)
        if key is None:
            return self._catch_up.read([watched.table])
        self._catch_up.alive(datetime.fromisoformat(message["commit_timestamp"]), [watched.table])
        return [Change(table=watched.table, ids=(id_text(key),))]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._listen())
        finally:
            self._loop.close()

    async def _listen(self) -> None:
        wait = _BACKOFF_SECONDS
        stop = asyncio.ensure_future(self._stop.wait())
        while not stop.done():
            session = asyncio.ensure_future(self._session())
            await asyncio.wait({session, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not session.done():
                session.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                joined = await session
                wait = _BACKOFF_SECONDS if joined else min(2 * wait, _MAX_BACKOFF_SECONDS)
                await asyncio.wait({stop}, timeout=wait)

    async def _session(self) -> bool:
        """Hold one connection until it is lost; return whether the subscription came about."""
        from realtime import AsyncRealtimeClient, RealtimeSubscribeStates
        from websockets.exceptions import WebSocketException

        client = AsyncRealtimeClient(f"{self._url.rstrip('/')}/realtime/v1", token=self._key, auto_reconnect=False)
        channel = client.channel(_TOPIC)
        lost = asyncio.Event()
        joined = False
        for table in self._watched:
            channel.on_postgres_changes("*", callback=self._take, table=table, schema="public")  # type: ignore[arg-type]

        def note(state: RealtimeSubscribeStates, error: Exception | None) -> None:
            nonlocal joined
            if state is RealtimeSubscribeStates.SUBSCRIBED:
                joined = True
                self._lost_since = None
                self._queue.put(None)
            else:
                self._reason = str(error or state.value)
                lost.set()

        try:
            await client.connect()
            await channel.subscribe(note)
            await lost.wait()
        except (OSError, WebSocketException, TimeoutError) as error:
            self._reason = str(error) or type(error).__name__
        finally:
            if self._lost_since is None:
                self._lost_since = time.monotonic()
            await client.close()
        return joined

    def _take(self, payload: Any) -> None:
        self._queue.put(dict(payload["data"]))
