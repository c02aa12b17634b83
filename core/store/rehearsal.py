"""A store to rehearse in: real tables and real functions, in a database of its own, and everything that is done is undone.

Hides the database and its transactions. Promises that each rehearsal begins with empty tables and leaves nothing behind, and that
the store of the settings is never touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from core.errors import StoreError
from core.settings import Settings, StoreKind
from core.store.artifacts import FileArtifactStore
from core.store.gateway import Row
from core.store.knowledge import PgKnowledgeBase
from core.store.links import LinkSigner
from core.store.migrations import apply_migrations
from core.store.opening import Store, embedded_server
from core.store.postgres import PostgresGateway, translated_errors
from core.store.research import ResearchStore
from core.store.trading import TradingStore
from core.text import HashedNgramEmbedder

DATABASE = "aqf_rehearsal"


class RehearsalGateway(PostgresGateway):
    """A gateway that works only within :meth:`undone`, on one connection, whose transaction is rolled back at its end.

    Parameters
    ----------
    conninfo : str
        A database whose tables are empty.

    Notes
    -----
    A verb that the database refuses ends the rehearsal: whatever comes after it in the same one is refused as well. For one thread
    at a time.
    """

    def __init__(self, conninfo: str) -> None:
        super().__init__(conninfo, role="service_role", max_connections=1)
        self._held: psycopg.Connection[Row] | None = None

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Do what is done within it in one transaction, and undo it."""
        with super().connection() as connection, connection.transaction(force_rollback=True):
            self._held = connection
            try:
                yield
            finally:
                self._held = None

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Row]]:
        """Lend the connection of the rehearsal.

        Raises
        ------
        StoreError
            Outside of a rehearsal.
        """
        if self._held is None:
            raise StoreError("a rehearsal writes within `undone` only, which undoes it.")
        with translated_errors():
            yield self._held

    def upsert(self, table: str, rows: Sequence[Row], *, on_conflict: Sequence[str]) -> int:
        """As in any other gateway; its temporary table goes at once and not with the transaction, which goes on."""
        written = super().upsert(table, rows, on_conflict=on_conflict)
        with self.connection() as connection:
            connection.execute("drop table if exists pg_temp.incoming")
        return written


class Rehearsal:
    """A store in which nothing lasts.

    Parameters
    ----------
    settings : Settings
        Whose home the embedded server lies in; whatever store they choose is left alone.

    Attributes
    ----------
    store : Store
    """

    def __init__(self, settings: Settings) -> None:
        self._server = embedded_server(settings)
        try:
            conninfo = _open_database(self._server.start())
            self.gateway = RehearsalGateway(conninfo)
            self.gateway.open()
        except BaseException:
            self._server.stop()
            raise
        research, trading = ResearchStore(self.gateway), TradingStore(self.gateway)
        links = LinkSigner(settings.home / "artifact-links.key")
        self.store = Store(
            kind=StoreKind.EMBEDDED,
            conninfo=conninfo,
            service=research,
            researcher=research,
            trading=trading,
            trade_log=trading.trades,
            knowledge=PgKnowledgeBase(self.gateway, HashedNgramEmbedder()),
            artifacts=FileArtifactStore(settings.home / "artifacts", links),
            links=links,
            migrated=[],
            _gateways=(self.gateway,),
            _server=self._server,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.store.close()

    @contextmanager
    def undone(self) -> Iterator[Store]:
        """Lend the store for one rehearsal, with empty tables."""
        with self.gateway.undone():
            yield self.store


def _open_database(server: str) -> str:
    """Return the connection string of the database to rehearse in, made and migrated where it is not there yet."""
    with translated_errors(), psycopg.connect(server, autocommit=True) as connection:
        there: Any = connection.execute("select 1 from pg_database where datname = %s", [DATABASE]).fetchone()
        if there is None:
            # Another process may be doing the same: then the database is there, which is all that is wanted.
            try:
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(DATABASE)))
            except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                there = True
    conninfo = make_conninfo(server, dbname=DATABASE)
    apply_migrations(conninfo)
    return conninfo
