"""One client of TWS or IB Gateway: reached when it is needed, let go when it keeps silent.

Hides `ib_async`'s connecting, its loop, and that a line may be dead without either end knowing. Promises that a question is
answered or refused within a bounded time, and that the next question begins on a line that is alive.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from agents.brokers import ib_loop
from core.errors import BrokerUnavailableError, ConfigurationError

_T = TypeVar("_T")


class IBConnection:
    """A client of a gateway.

    Parameters
    ----------
    host : str
    port : int
    client_id : int
        No other client of the gateway may have it.
    timeout_seconds : float
        Longest wait for the gateway, and for an answer waited for with `wait`.
    prepare : callable
        Takes a new connection before it is used; what it raises ends the connection and is raised.
    readonly : bool, default=False
        Ask for nothing that a gateway set to "Read-Only API" refuses.

    Raises
    ------
    ConfigurationError
        If `ib_async` is not installed.

    Notes
    -----
    Calls on several threads wait for each other. A gateway that did not answer in time is left, and reached anew by the next
    call: a line may be cut without either end being told, and what came of it may not be a message any more.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        client_id: int,
        timeout_seconds: float,
        prepare: Callable[[Any], None],
        readonly: bool = False,
    ) -> None:
        try:
            import ib_async  # noqa: F401
        except ImportError as error:
            raise ConfigurationError(
                "Interactive Brokers needs ib_async: pip install 'agentic-quantitative-framework[ib]'."
            ) from error
        self._host, self._port, self._client_id = host, port, client_id
        self._timeout, self._prepare, self._readonly = timeout_seconds, prepare, readonly
        self._lock = threading.Lock()
        self.ib: Any = None
        """The library's client; None while there is no connection."""

    def ask(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run work that asks the gateway, connected before.

        Raises
        ------
        BrokerUnavailableError
            If the gateway cannot be reached, or did not answer in time.

        Notes
        -----
        What else the work raises is raised: `ib_async.wrapper.RequestError` where the gateway refused to answer.
        """

        async def connected() -> _T:
            if self.ib is None or not self.ib.isConnected():
                self._leave()
                await self._open()
            try:
                return await work()
            except (ConnectionError, TimeoutError) as error:
                self._leave()
                raise BrokerUnavailableError(f"TWS did not answer: {error or type(error).__name__}") from error

        with self._lock:
            return ib_loop.run(connected())

    async def wait(self, answer: Awaitable[_T]) -> _T:
        """Return an answer; a TimeoutError when it does not come in time."""
        return await asyncio.wait_for(answer, self._timeout)

    def close(self) -> None:
        """Let go of the gateway."""

        async def leave() -> None:
            self._leave()

        with self._lock:
            ib_loop.run(leave())

    def _leave(self) -> None:
        if self.ib is not None:
            self.ib.disconnect()
            self.ib = None

    async def _open(self) -> None:
        from ib_async import IB
        from ib_async.ib import StartupFetchNONE

        ib = IB()
        # Otherwise the library takes an error for an empty answer: no executions, no bars.
        ib.RaiseRequestErrors = True
        try:
            await ib.connectAsync(
                self._host,
                self._port,
                clientId=self._client_id,
                timeout=self._timeout,
                readonly=self._readonly,
                fetchFields=StartupFetchNONE,
            )
            self._prepare(ib)
        except ConfigurationError:
            ib.disconnect()
            raise
        except (OSError, TimeoutError) as error:
            raise BrokerUnavailableError(f"TWS at {self._host}:{self._port} cannot be reached: {error!r}") from error
        self.ib = ib
