"""Chooses the one store of a process, opens it, and brings its schema up to date."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from core.errors import ConfigurationError
from core.settings import Settings, StoreKind
from core.store.artifacts import ArtifactStore
from core.store.embedded import EmbeddedPostgres
from core.store.migrations import apply_migrations
from core.store.postgres import PostgresGateway
from core.store.research import ResearchStore
from core.store.trading import TradingStore


@dataclass(kw_only=True)
class Store:
    """An open store; leaving its context closes it.

    Parameters
    ----------
    kind : StoreKind
        Which database is in force.
    conninfo : str
        Connection string of the owner, for migrations and checkpoints.
    service : ResearchStore
        All rights; used by the framework itself.
    researcher : ResearchStore
        What planners' tools act through: no sealed bars, no change of a trial.
    trading : TradingStore
        What the trading agents act through, with all rights.
    artifacts : ArtifactStore
        Files named by their content.
    migrated : list of str
        Migrations that opening it applied.
    """

    kind: StoreKind
    conninfo: str
    service: ResearchStore
    researcher: ResearchStore
    trading: TradingStore
    artifacts: ArtifactStore
    migrated: list[str]
    _gateways: tuple[PostgresGateway, ...] = field(repr=False)
    _server: EmbeddedPostgres | None = field(repr=False, default=None)

    def close(self) -> None:
        """Close the connections and leave the embedded server."""
        for gateway in self._gateways:
            gateway.close()
        if self._server is not None:
            self._server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def embedded_server(settings: Settings) -> EmbeddedPostgres:
    """Return the embedded server of the settings' home, not started."""
    return EmbeddedPostgres(settings.home, keep_server=settings.keep_server)


def open_store(settings: Settings) -> Store:
    """Open the store the settings choose and migrate it.

    Raises
    ------
    ConfigurationError
        If the settings name Supabase's REST address only; its Postgres connection string is what this release needs.
    StoreUnavailableError
        If the database cannot be started or reached.
    """
    if settings.store_kind is StoreKind.SUPABASE:
        raise ConfigurationError(
            "SUPABASE_URL alone does not open a store in this release: set AQF_DATABASE_URL to the project's Postgres "
            "connection string (Supabase dashboard, Connect, Session pooler)."
        )
    server: EmbeddedPostgres | None = None
    if settings.store_kind is StoreKind.EMBEDDED:
        server = embedded_server(settings)
        conninfo = server.start()
    else:
        conninfo = settings.require_database_url()
    opened: list[PostgresGateway] = []
    try:
        migrated = apply_migrations(conninfo)
        opened.append(PostgresGateway(conninfo, role="service_role").open())
        opened.append(PostgresGateway(conninfo, role="researcher").open())
    except BaseException:
        for gateway in opened:
            gateway.close()
        if server is not None:
            server.stop()
        raise
    service, researcher = opened
    return Store(
        kind=settings.store_kind,
        conninfo=conninfo,
        service=ResearchStore(service),
        researcher=ResearchStore(researcher),
        trading=TradingStore(service),
        artifacts=ArtifactStore(settings.home / "artifacts"),
        migrated=migrated,
        _gateways=(service, researcher),
        _server=server,
    )
