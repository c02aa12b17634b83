"""Prices of Interactive Brokers: contracts, last prices and history, asked for no more often than IB allows.

Hides `ib_async`, what IB's errors mean, and its limits on history. Promises that a price is told with the time it was made
at, a delayed one like any other, and that nothing can be ordered here: there is no code for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

from agents.brokers.ib_connection import IBConnection
from agents.brokers.ib_words import build_stock
from agents.trading.market_data import SP500, VIX, Quote
from core.errors import BrokerUnavailableError, DataError, MissingDataError

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

_INDICES: Mapping[str, tuple[str, str]] = {VIX: ("VIX", "CBOE"), SP500: ("SPX", "CBOE")}
_UNKNOWN = 200
_NOT_SUBSCRIBED = (354, 10089, 10090, 10168, 10186)
_DELAYED_FROZEN = 4
_LAST_TIME, _DELAYED_TIME = 45, 88
_SNAPSHOT_SECONDS = 30.0
_PAUSE = 0.01
_MINUTE = timedelta(minutes=1)
_WINDOW, _IDENTICAL, _SAME_CONTRACT, _MOST_OF_ONE = 600.0, 15.0, 2.0, 5


class Pace:
    """IB's limits on requests of history: so many in ten minutes, no two alike within 15 s, five of a contract within 2 s.

    Parameters
    ----------
    most : int
        Requests in ten minutes. IB allows 60, charts of the same login included.
    clock : callable, default=time.monotonic
        Seconds.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._sent: deque[tuple[float, int, str]] = deque()
        self._rests_until = -float("inf")

    def take(self, contract: int, request: str) -> None:
        """Note that something is asked for.

        Raises
        ------
        MissingDataError
            If it must not be asked for yet.
        """
        now = self._clock()
        while self._sent and now - self._sent[0][0] >= _WINDOW:
            self._sent.popleft()
        alike = [at for at, _, sent in self._sent if sent == request and now - at < _IDENTICAL]
        near = [at for at, one, _ in self._sent if one == contract and now - at < _SAME_CONTRACT]
        ready = max(
            self._rests_until,
            self._sent[0][0] + _WINDOW if len(self._sent) >= self._most else now,
            alike[-1] + _IDENTICAL if alike else now,
            near[-_MOST_OF_ONE] + _SAME_CONTRACT if len(near) >= _MOST_OF_ONE else now,
        )
        if ready > now:
            raise MissingDataError(f"IB must not be asked for more history yet: ask again in {ready - now:.0f} s.")
        self._sent.append((now, contract, request))

    def rest(self) -> None:
        """Ask for nothing for ten minutes: IB said that it was too much."""
        self._rests_until = self._clock() + _WINDOW


class IBPrices:
    """A client of a gateway that asks for prices and for nothing else.

    Parameters
    ----------
    host, port, client_id, timeout_seconds
        As of `IBConnection`; a snapshot takes IB up to eleven seconds.
    currency : str
        Of stocks and indices.
    primary_exchanges : mapping of str to str
        Of symbols that several companies have.
    pace : Pace

    Raises
    ------
    ConfigurationError
        If `ib_async` is not installed.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        client_id: int,
        timeout_seconds: float,
        currency: str,
        primary_exchanges: Mapping[str, str],
        pace: Pace,
    ) -> None:
        self._timeout, self._currency, self._primary, self._pace = timeout_seconds, currency, primary_exchanges, pace
        self._contracts: dict[str, Any] = {}
        self._warned: set[str] = set()
        self._line = IBConnection(
            host=host, port=port, client_id=client_id, timeout_seconds=timeout_seconds, prepare=self._prepare, readonly=True
        )

    def close(self) -> None:
        """Let go of the gateway."""
        self._line.close()

    def find_last(self, symbol: str) -> Quote | None:
        """Return the last price there is now, delayed where nothing better is subscribed to; None where IB does not date one.

        Raises
        ------
        MissingDataError
            If the gateway cannot be asked.
        DataError
            If the symbol is ambiguous, or the answer cannot be used.
        """

        async def read() -> Quote | None:
            contract = await self._find_contract(symbol)
            return None if contract is None else await self._read_snapshot(symbol, contract)

        return self._ask(symbol, read, None)

    def list_minutes(self, symbol: str, until: datetime) -> list[tuple[datetime, float]]:
        """Return ends and closes of the minutes of the last day of trading, up to a time; also before and after the session.

        Raises
        ------
        MissingDataError, DataError
            As `find_last`; the first also when IB's limits forbid to ask.
        """

        async def read() -> list[tuple[datetime, float]]:
            bars = await self._read_history(symbol, until, "1 D", "1 min", regular=False)
            ends = [(bar.date.astimezone(UTC) + _MINUTE, float(bar.close)) for bar in bars]
            return sorted(one for one in ends if one[0] <= until)

        return self._ask(symbol, read, [])

    def list_days(self, symbol: str, until: datetime, n: int) -> list[tuple[date, Any]]:
        """Return the days of regular trading and their bars, n of them at least where there are so many, oldest first.

        Notes
        -----
        Prices of trades, adjusted for splits and not for dividends, as IB knows them when asked. The last day may not be over.

        Raises
        ------
        MissingDataError, DataError
            As `list_minutes`.
        """

        async def read() -> list[tuple[date, Any]]:
            # Seven calendar days hold at least three sessions, whatever the holidays; beyond a year IB counts in years.
            days = 7 + -(-n * 7 // 3)
            span = f"{days} D" if days <= 365 else f"{-(-days // 365)} Y"
            bars = await self._read_history(symbol, until, span, "1 day", regular=True)
            return sorted({_day(bar.date): bar for bar in bars}.items())

        return self._ask(symbol, read, [])

    def _ask(self, symbol: str, work: Callable[[], Coroutine[Any, Any, _T]], nothing: _T) -> _T:
        from ib_async.wrapper import RequestError

        try:
            return self._line.ask(work)
        except RequestError as error:
            self._judge(symbol, error)
            return nothing
        except BrokerUnavailableError as error:
            raise MissingDataError(f"IB cannot be asked for {symbol}: {error}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"IB answered what cannot be used when asked for {symbol}: {error}") from error

    def _judge(self, symbol: str, error: Any) -> None:
        """Return where an error says that there are no such prices for us; raise where it says that there are none now."""
        said = error.message.lower()
        if error.code in _NOT_SUBSCRIBED or "permission" in said or "subscription" in said:
            if symbol not in self._warned:
                self._warned.add(symbol)
                _log.warning("IB does not tell all prices of %s, the account has not subscribed to: %s", symbol, error.message)
            return
        if "no data" in said:
            return
        if "pacing" in said:
            self._pace.rest()
        raise MissingDataError(f"IB did not tell prices of {symbol}: {error.code} {error.message}")

    # In the loop

    def _prepare(self, ib: Any) -> None:
        told = ib.wrapper.tickString

        def tell(number: int, kind: int, value: str) -> None:
            # The library throws away when a delayed price was made.
            told(number, _LAST_TIME if kind == _DELAYED_TIME else kind, value)

        ib.wrapper.tickString = tell
        ib.reqMarketDataType(_DELAYED_FROZEN)
        self._contracts.clear()

    async def _find_contract(self, symbol: str) -> Any | None:
        from ib_async import Index
        from ib_async.wrapper import RequestError

        if symbol not in self._contracts:
            if symbol in _INDICES:
                wanted: Any = Index(*_INDICES[symbol], self._currency)
            elif symbol.startswith("^"):
                return None
            else:
                wanted = build_stock(symbol, self._currency)
                wanted.primaryExchange = self._primary.get(symbol, "")
            try:
                told = await self._line.wait(self._line.ib.reqContractDetailsAsync(wanted))
            except RequestError as error:
                if error.code != _UNKNOWN:
                    raise
                told = []
            found = {one.contract.conId: one.contract for one in told}
            if len(found) > 1:
                where = ", ".join(sorted(contract.primaryExchange for contract in found.values()))
                raise DataError(f"{symbol} must be one contract at IB, was {len(found)}: name one of {where} as its exchange.")
            self._contracts[symbol] = next(iter(found.values()), None)
        return self._contracts[symbol]

    async def _read_snapshot(self, symbol: str, contract: Any) -> Quote | None:
        from ib_async import Ticker

        # Asked for by hand: the library would wait for every tick there may be, and mix in those of an earlier question.
        ib = self._line.ib
        number = ib.client.getReqId()
        over = ib.wrapper.startReq(number, contract)
        tickers = ib.wrapper.reqId2Ticker
        ticker = tickers[number] = Ticker(contract=contract)
        ib.client.reqMktData(number, contract, "", True, False, [])
        deadline = time.monotonic() + self._timeout
        try:
            while not (ticker.last > 0.0 and ticker.lastTimestamp is not None):
                if over.done():
                    over.result()
                    return None
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"no price of {symbol} within {self._timeout:g} s")
                await asyncio.sleep(_PAUSE)
        finally:
            over.cancel()
            # What is still told of this snapshot is nobody's by then.
            asyncio.get_running_loop().call_later(_SNAPSHOT_SECONDS, tickers.pop, number, None)
        return Quote(symbol=symbol, price=ticker.last, currency=self._currency, at=ticker.lastTimestamp.astimezone(UTC))

    async def _read_history(self, symbol: str, until: datetime, span: str, size: str, *, regular: bool) -> list[Any]:
        contract = await self._find_contract(symbol)
        if contract is None:
            return []
        self._pace.take(contract.conId, f"{contract.conId} {size} {span} {until:%Y%m%d %H:%M:%S}")
        question = self._line.ib.reqHistoricalDataAsync(
            contract, until, span, size, "TRADES", useRTH=regular, formatDate=2, timeout=0
        )
        return list(await self._line.wait(question))


def _day(told: object) -> date:
    if not isinstance(told, date) or isinstance(told, datetime):
        raise ValueError(f"{told!r} is no day")
    return told
