"""A store to rehearse in: real tables and real functions, in a database of its own, and everything that is done is undone.

Hides the database and its transactions. Promises that each rehearsal begins with empty tables and leaves nothing behind, and
that the store of the settings is never touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from core.errors import StoreError
from core.settings import Settings, StoreKind
from core.store.artifacts import FileArtifactStore
from core.store.gateway import Row
from core.store.knowledge import PgKnowledgeBase
from core.store.links import LinkSigner
from core.store.migrations import apply_migrations
from core.store.opening import Store, embedded_server, open_store
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
    A verb that the database refuses ends the rehearsal: whatever comes after it in the same one is refused as well. For one
    thread at a time.
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
    gateway : RehearsalGateway
        Open; closed by whoever opened it.
    home : Path
        Folder of artifacts, which no rehearsal writes.
    """

    def __init__(self, gateway: RehearsalGateway, home: Path) -> None:
        self._gateway = gateway
        research, trading, links = ResearchStore(gateway), TradingStore(gateway), LinkSigner(home / "artifact-links.key")
        self._store = Store(
            kind=StoreKind.EMBEDDED,
            conninfo=gateway.conninfo,
            service=research,
            researcher=research,
            trading=trading,
            trade_log=trading.trades,
            knowledge=PgKnowledgeBase(gateway, HashedNgramEmbedder()),
            artifacts=FileArtifactStore(home / "artifacts", links),
            links=links,
            migrated=[],
            _gateways=(),
        )

    @contextmanager
    def undone(self) -> Iterator[Store]:
        """Lend the store for one rehearsal, with empty tables."""
        with self._gateway.undone():
            yield self._store


@contextmanager
def open_rehearsal(settings: Settings) -> Iterator[Rehearsal]:
    """Open a store to rehearse in, on the embedded server; whatever store the settings choose is left alone.

    Raises
    ------
    StoreUnavailableError
        If the server cannot be started.
    """
    server = embedded_server(settings)
    try:
        gateway = RehearsalGateway(_open_database(server.start(), DATABASE))
        gateway.open()
        try:
            yield Rehearsal(gateway, settings.home)
        finally:
            gateway.close()
    finally:
        server.stop()


@contextmanager
def side_store(settings: Settings, database: str) -> Iterator[Store]:
    """Open a store beside that of the settings, which it never touches: a database of its own on the embedded server.

    Parameters
    ----------
    settings : Settings
        Whose home the embedded server lies in.
    database : str
        Name of the database; made where it is not there yet.

    Raises
    ------
    StoreUnavailableError
        If the server cannot be started.
    """
    server = embedded_server(settings)
    try:
        conninfo = _open_database(server.start(), database)
        beside = {"store": "auto", "database_url": SecretStr(conninfo), "text_embedder": "hashed"}
        supabase = dict.fromkeys(("supabase_url", "supabase_key", "supabase_db_url", "supabase_jwt_secret"))
        with open_store(settings.model_copy(update={**beside, **supabase})) as store:
            yield store
    finally:
        server.stop()


def _open_database(server: str, name: str) -> str:
    """Return the connection string of a database, made and migrated where it is not there yet."""
    with translated_errors(), psycopg.connect(server, autocommit=True) as connection:
        there = connection.execute("select 1 from pg_database where datname = %s", [name]).fetchone()
        if there is None:
            # Where another process makes it at the same time it is there, which is all that is wanted.
            with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    conninfo = make_conninfo(server, dbname=name)
    apply_migrations(conninfo)
    return conninfo
