"""The lock of the desk: one process trades on a store at a time.

Hides how the database keeps it. Promises that it goes with the process that held it, however that ends, and that a process
which lost it hears of it before it trades on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from core.errors import StoreConflictError
from core.store.opening import Store
from core.store.postgres import translated_errors

_APPLICATION = "aqf-trading-"
_KEY = "aqf:trading"


@contextmanager
def trading_alone(store: Store) -> Iterator[Callable[[], None]]:
    """Be the one process that trades on a store.

    Parameters
    ----------
    store : Store

    Yields
    ------
    callable
        Raises StoreUnavailableError once the lock is lost, as when the server was restarted: to be called before each round.

    Raises
    ------
    StoreConflictError
        If another process trades on this store. Its caps are kept against the book that it knows, and its orders that are
        written down and not sent yet would be taken for those of a crash.
    StoreUnavailableError
        If the database cannot be reached.

    Notes
    -----
    Where there is no connection of Postgres's own (Supabase without SUPABASE_DB_URL) nothing can hold a lock, and starting one
    process alone is left to whoever starts it.
    """
    if store.conninfo is None:
        yield lambda: None
        return
    conninfo = make_conninfo(store.conninfo, application_name=f"{_APPLICATION}{os.getpid()}")
    with translated_errors():
        connection = psycopg.connect(conninfo, autocommit=True, prepare_threshold=None)
    with connection:
        with translated_errors():
            _lock(connection)

        def check() -> None:
            with translated_errors():
                connection.execute("select 1")

        yield check


def _lock(connection: psycopg.Connection[Any]) -> None:
    row = connection.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", [_KEY]).fetchone()
    if row is not None and row[0]:
        return
    holder = connection.execute(
        "select application_name from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() "
        "and starts_with(application_name, %s) order by backend_start limit 1",
        [_APPLICATION],
    ).fetchone()
    who = "another process" if holder is None else f"process {holder[0].removeprefix(_APPLICATION)}"
    raise StoreConflictError(
        f"{who} trades on this store, and two at once would not see each other's orders: wait for it to end or stop it, or "
        "trade on a store of its own (AQF_HOME or AQF_DATABASE_URL)."
    )
