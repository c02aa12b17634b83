"""ChangeFeed: which rows are new or changed, by id, from Postgres's NOTIFY here and from Supabase Realtime in `realtime.py`.

Hides connections and their loss. Promises that no committed change is missed while a feed is open, through any number of broken
connections: after each, the feed asks the tables themselves. A row may be named twice, never left out; what it holds now is the
table's to say.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

import psycopg
from psycopg import sql

from core.errors import StoreUnavailableError
from core.store.gateway import Gateway
from core.store.postgres import translated_errors

OVERLAP = timedelta(minutes=5)
"""How far before the last sign of life a feed asks again: no statement of ours runs longer than that before it commits."""

_STATE = "select clock_timestamp(), pg_notification_queue_usage() >= 0.5"
"""The moment, and whether the triggers keep silent because some listener hangs and the queue is half full."""

_PATIENCE_SECONDS = 60.0
_BACKOFF_SECONDS = 0.1
_MAX_BACKOFF_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A table to watch.

    Parameters
    ----------
    key : str
        Column that names a row.
    moment : str, default="updated_at"
        Column with the time of its last change.
    """

    table: str
    key: str
    moment: str = "updated_at"


SIGNAL_EMBEDDINGS = Watched(table="signal_embeddings", key="embedding_id")
EMBEDDING_JOBS = Watched(table="embedding_jobs", key="job_id")
TRADES = Watched(table="trades", key="trade_id")
DECISION_TRACES = Watched(table="decision_traces", key="trace_id")
PORTFOLIO_STATE = Watched(table="portfolio_state", key="singleton")
AGENT_HEALTH = Watched(table="agent_health", key="health_id", moment="created_at")
EQUITY_SNAPSHOTS = Watched(table="equity_snapshots", key="snapshot_id")
BACKTEST_RESULTS = Watched(table="backtest_results", key="backtest_id", moment="created_at")
RESEARCH_RUNS = Watched(table="research_runs", key="run_id")

WATCHABLE = (
    AGENT_HEALTH,
    BACKTEST_RESULTS,
    DECISION_TRACES,
    EMBEDDING_JOBS,
    EQUITY_SNAPSHOTS,
    PORTFOLIO_STATE,
    RESEARCH_RUNS,
    SIGNAL_EMBEDDINGS,
    TRADES,
)
"""Every table that announces its changes: those that Realtime publishes, and the jobs."""


def id_text(value: object) -> str:
    """Return a key as Postgres writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True, kw_only=True)
class Change:
    """Rows of one table that are new or changed, by their ids as text."""

    table: str
    ids: tuple[str, ...]


@runtime_checkable
class ChangeFeed(Protocol):
    """Tell what changes in some tables, from when it was opened on."""

    def open(self) -> Self:
        """Begin to listen.

        Raises
        ------
        StoreUnavailableError
            If the database cannot be reached.
        """
        ...

    def changes(self, timeout_seconds: float) -> list[Change]:
        """Wait for changes, at most so long, and return them; empty when there were none.

        Raises
        ------
        StoreUnavailableError
            If the connection was lost and did not come back for a minute.
        """
        ...

    def close(self) -> None:
        """Stop listening."""
        ...


class CatchUp:
    """Ask the tables what has changed since the last sign of life.

    Parameters
    ----------
    gateway : Gateway
        Way to the tables.
    watched : sequence of Watched
        The tables.
    """

    def __init__(self, gateway: Gateway, watched: Sequence[Watched]) -> None:
        self._gateway = gateway
        self._watched = tuple(watched)
        self._since: dict[str, datetime] = {}
        self._seen: dict[str, set[tuple[str, datetime]]] = {watched.table: set() for watched in watched}

    def begin(self) -> None:
        """Take what is in the tables now as known."""
        for watched in self._watched:
            newest = self._gateway.select(watched.table, columns=(watched.moment,), order=(f"-{watched.moment}",), limit=1)
            if newest:
                self._since[watched.table] = newest[0][watched.moment]
        self.read()

    def alive(self, moment: datetime, tables: Sequence[str] | None = None) -> None:
        """Note that everything committed up to a moment of the database's clock, less the overlap, has been told."""
        for watched in self._watched:
            if tables is None or watched.table in tables:
                self._since[watched.table] = max(moment, self._since.get(watched.table, moment))

    def read(self, tables: Sequence[str] | None = None) -> list[Change]:
        """Return what the tables have that was not read before."""
        changes = []
        for watched in self._watched:
            if tables is not None and watched.table not in tables:
                continue
            since = self._since.get(watched.table)
            rows = self._gateway.select(
                watched.table,
                columns=(watched.key, watched.moment),
                where=None if since is None else {watched.moment: ("gte", since - OVERLAP)},
                order=(watched.moment, watched.key),
            )
            found = {(id_text(row[watched.key]), row[watched.moment]): None for row in rows}
            new = [key for key, moment in found if (key, moment) not in self._seen[watched.table]]
            self._seen[watched.table] = set(found)
            if rows:
                self.alive(rows[-1][watched.moment], [watched.table])
            if new:
                changes.append(Change(table=watched.table, ids=tuple(new)))
        return changes


class NotifyFeed:
    """Listen to the notifications that the triggers of a table send.

    Parameters
    ----------
    conninfo : str
        Connection string; a connection of its own is kept open, which a pooler in transaction mode cannot do.
    gateway : Gateway
        Way to the tables, for catching up.
    watched : sequence of Watched
        Tables whose triggers call `notify_ids`.
    """

    def __init__(self, conninfo: str, gateway: Gateway, watched: Sequence[Watched]) -> None:
        self._conninfo = conninfo
        self._watched = tuple(watched)
        self._catch_up = CatchUp(gateway, watched)
        self._connection: psycopg.Connection[Any] | None = None
        self._was_silent = False

    def open(self) -> Self:
        """Begin to listen."""
        with translated_errors():
            self._connection = self._connect()
        self._catch_up.begin()
        return self

    def close(self) -> None:
        """Stop listening."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def changes(self, timeout_seconds: float) -> list[Change]:
        """Wait for changes, at most so long, and return them; empty when there were none."""
        if self._connection is None:
            raise StoreUnavailableError("the feed is not open.")
        deadline = time.monotonic() + timeout_seconds
        try:
            now, silent = self._connection.execute(_STATE).fetchone() or (None, False)
            notes = list(self._connection.notifies(timeout=max(0.0, deadline - time.monotonic()), stop_after=1))
        except psycopg.OperationalError:
            self._reconnect()
            return self._catch_up.read()
        # Once more after the queue has room again, for what came between the last question and that moment.
        if silent or self._was_silent:
            self._was_silent = silent
            return self._catch_up.read()
        found: dict[str, dict[str, None]] = {}
        uncounted = set()
        for note in notes:
            ids = json.loads(note.payload)["ids"]
            if ids is None:
                uncounted.add(note.channel)
            else:
                found.setdefault(note.channel, {}).update(dict.fromkeys(ids))
        changes = [Change(table=table, ids=tuple(ids)) for table, ids in found.items() if table not in uncounted]
        if uncounted:
            changes += self._catch_up.read(sorted(uncounted))
        if now is not None:
            self._catch_up.alive(now, [watched.table for watched in self._watched if watched.table not in uncounted])
        return changes

    def _connect(self) -> psycopg.Connection[Any]:
        connection = psycopg.connect(self._conninfo, autocommit=True, application_name="aqf-changes", connect_timeout=15)
        connection.execute("set timezone to 'UTC'")
        for watched in self._watched:
            connection.execute(sql.SQL("listen {}").format(sql.Identifier(watched.table)))
        return connection

    def _reconnect(self) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        wait = _BACKOFF_SECONDS
        while True:
            try:
                if self._connection is not None:
                    self._connection.close()
                self._connection = self._connect()
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    raise StoreUnavailableError(f"the database cannot be reached: the feed was lost: {error}") from error
                time.sleep(wait)
                wait = min(2 * wait, _MAX_BACKOFF_SECONDS)
            else:
                return
