"""The one event loop of the process in which `ib_async` lives.

Hides a thread. `ib_async` remembers the first loop it meets for as long as the process lasts, and its objects belong to one
thread: so every `agents.brokers.ib.IBBroker` works in this loop, and callers on any thread wait for it.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

_T = TypeVar("_T")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="aqf-ib", daemon=True)
    thread.start()

    def stop() -> None:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=5.0)
        if not thread.is_alive():
            loop.close()

    atexit.register(stop)
    return loop


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine in the loop and return what it returns, or raise what it raises."""
    return asyncio.run_coroutine_threadsafe(work, _loop()).result()
