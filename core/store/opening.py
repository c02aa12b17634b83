"""Chooses the one store of a process, opens it, and brings its schema up to date."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NoReturn, Self

from core.errors import ConfigurationError
from core.settings import DEFAULT_PRICES, EmbedderKind, Settings, StoreKind
from core.store.artifacts import ArtifactStore, FileArtifactStore
from core.store.chroma_knowledge import ChromaKnowledgeBase, knowledge_path
from core.store.conninfo import blaming
from core.store.embedded import EmbeddedPostgres
from core.store.knowledge import KnowledgeBase, PgKnowledgeBase
from core.store.links import LinkSigner
from core.store.migrations import apply_migrations, load_migrations
from core.store.postgres import PostgresGateway
from core.store.research import ResearchStore
from core.store.rest import SupabaseGateway
from core.store.sqlite_trade_log import SqliteTradeLog, trade_log_path
from core.store.storage import SupabaseArtifactStore
from core.store.trade_log import TradeLog
from core.store.trading import TradingStore
from core.telemetry import configure_telemetry
from core.text import HashedNgramEmbedder, OpenAIEmbedder, TextEmbedder
from core.text.openai_embedder import MODEL as EMBEDDING_MODEL


@dataclass(kw_only=True)
class Store:
    """An open store; leaving its context closes it.

    Parameters
    ----------
    kind : StoreKind
        Which database is in force.
    conninfo : str, optional
        Connection string of the owner, for migrations and checkpoints; None on Supabase without SUPABASE_DB_URL.
    service : ResearchStore
        All rights; used by the framework itself.
    researcher : ResearchStore
        What planners' tools act through: no sealed bars, no change of a trial.
    trading : TradingStore
        What the trading agents act through, with all rights.
    trade_log : TradeLog
        The one trade log: whoever writes trades and whoever judges by them take this.
    knowledge : KnowledgeBase
        The one knowledge base, with the one text embedder.
    artifacts : ArtifactStore
        Files named by their content.
    links : LinkSigner
        Signs and checks the links to files that this home serves.
    migrated : list of str
        Migrations that opening it applied.
    """

    kind: StoreKind
    conninfo: str | None
    service: ResearchStore
    researcher: ResearchStore
    trading: TradingStore
    trade_log: TradeLog
    knowledge: KnowledgeBase
    artifacts: ArtifactStore
    links: LinkSigner
    migrated: list[str]
    _gateways: tuple[PostgresGateway | SupabaseGateway, ...] = field(repr=False)
    _server: EmbeddedPostgres | None = field(repr=False, default=None)

    def require_conninfo(self) -> str:
        """Return the connection string of the owner.

        Raises
        ------
        ConfigurationError
            If there is none: Supabase's address over HTTP alone keeps no checkpoints, and files no research.
        """
        if self.kind is StoreKind.SQLITE:
            raise ConfigurationError(_NO_DATABASE)
        if self.conninfo is None:
            raise ConfigurationError(
                "a planner run keeps its checkpoints over a connection of Postgres's own: set SUPABASE_DB_URL to the project's "
                "connection string (Supabase dashboard, Connect, Session pooler)."
            )
        return self.conninfo

    def close(self) -> None:
        """Close the connections and leave the embedded server."""
        for gateway in self._gateways:
            gateway.close()
        if isinstance(self.artifacts, SupabaseArtifactStore):
            self.artifacts.close()
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
    """Open the store the settings choose and migrate it; files alone keep the trade log and the knowledge base, no more.

    Raises
    ------
    ConfigurationError
        If the settings cannot be used, the schema of a Supabase project is behind and there is no way to migrate it, or Chroma
        is needed and not installed.
    StoreUnavailableError
        If the database cannot be started or reached.
    """
    configure_telemetry(settings)
    if settings.store_kind is StoreKind.SQLITE:
        return _open_files(settings)
    server: EmbeddedPostgres | None = None
    conninfo: str | None
    if settings.store_kind is StoreKind.EMBEDDED:
        server = embedded_server(settings)
        conninfo = server.start()
    elif settings.store_kind is StoreKind.SUPABASE:
        conninfo = None if settings.supabase_db_url is None else settings.supabase_db_url.get_secret_value()
    else:
        conninfo = settings.require_database_url()
    with ExitStack() as undo:
        if server is not None:
            undo.callback(server.stop)
        migrated = [] if conninfo is None else _migrate(settings, conninfo)
        service: PostgresGateway | SupabaseGateway
        researcher: PostgresGateway | SupabaseGateway | None
        if settings.store_kind is StoreKind.SUPABASE:
            service = SupabaseGateway(*settings.require_supabase()).open()
            undo.callback(service.close)
            if conninfo is None:
                _check_schema(service)
            researcher = _researcher(settings, conninfo)
        else:
            assert conninfo is not None
            service = PostgresGateway(conninfo, role="service_role").open()
            undo.callback(service.close)
            researcher = PostgresGateway(conninfo, role="researcher").open()
        undo.pop_all()
    links = LinkSigner(settings.home / "artifact-links.key")
    artifacts: ArtifactStore = FileArtifactStore(settings.home / "artifacts", links)
    if settings.store_kind is StoreKind.SUPABASE:
        artifacts = SupabaseArtifactStore(*settings.require_supabase())
    research, trading = ResearchStore(service), TradingStore(service)
    return Store(
        kind=settings.store_kind,
        conninfo=conninfo,
        service=research,
        researcher=ResearchStore(researcher or NoRights(_NO_RESEARCHER)),
        trading=trading,
        trade_log=trading.trades,
        knowledge=PgKnowledgeBase(service, _embedder(settings, bill_to=research)),
        artifacts=artifacts,
        links=links,
        migrated=migrated,
        _gateways=(service,) if researcher is None else (service, researcher),
        _server=server,
    )


def _open_files(settings: Settings) -> Store:
    knowledge = ChromaKnowledgeBase(knowledge_path(settings.home), _embedder(settings, bill_to=None))
    nothing = NoRights(_NO_DATABASE)
    links = LinkSigner(settings.home / "artifact-links.key")
    return Store(
        kind=StoreKind.SQLITE,
        conninfo=None,
        service=ResearchStore(nothing),
        researcher=ResearchStore(nothing),
        trading=TradingStore(nothing),
        trade_log=SqliteTradeLog(trade_log_path(settings.home)),
        knowledge=knowledge,
        artifacts=FileArtifactStore(settings.home / "artifacts", links),
        links=links,
        migrated=[],
        _gateways=(),
    )


def _embedder(settings: Settings, *, bill_to: ResearchStore | None) -> TextEmbedder:
    """Build the text embedder in force; what it spends is written down where there is a table for it."""
    if settings.embedder_kind is EmbedderKind.HASHED:
        return HashedNgramEmbedder()

    def bill(tokens: int) -> None:
        if bill_to is not None:
            price = settings.llm_prices.get(EMBEDDING_MODEL, DEFAULT_PRICES[EMBEDDING_MODEL])
            bill_to.record_llm_usage(
                {
                    "model": EMBEDDING_MODEL,
                    "role": "embedder",
                    "input_tokens": tokens,
                    "output_tokens": 0,
                    "cost_usd": round(tokens * price.input / 1e6, 6),
                    "price_known": True,
                }
            )

    return OpenAIEmbedder(
        api_key=settings.openai_api_key,
        base_url=settings.openai_base_url,
        timeout_seconds=settings.llm_timeout_seconds,
        max_retries=settings.llm_max_retries,
        on_usage=bill,
    )


def _migrate(settings: Settings, conninfo: str) -> list[str]:
    if settings.store_kind is StoreKind.EMBEDDED:
        return apply_migrations(conninfo)
    with blaming("SUPABASE_DB_URL" if settings.store_kind is StoreKind.SUPABASE else "AQF_DATABASE_URL", conninfo):
        return apply_migrations(conninfo)


def _researcher(settings: Settings, conninfo: str | None) -> PostgresGateway | SupabaseGateway | None:
    """Open a gateway that acts as `researcher`, by a token or over Postgres itself; None when there is no way to be less."""
    if settings.supabase_jwt_secret is not None:
        secret = settings.supabase_jwt_secret.get_secret_value()
        return SupabaseGateway(*settings.require_supabase(), role="researcher", jwt_secret=secret).open()
    return None if conninfo is None else PostgresGateway(conninfo, role="researcher").open()


def _check_schema(gateway: SupabaseGateway) -> None:
    found = gateway.rpc("store_version")[0]["schema_version"]
    newest = load_migrations()[-1].version
    if found is None or found < newest:
        raise ConfigurationError(
            f"the project's schema is at {found}, this release needs {newest}: `supabase db push`, or set SUPABASE_DB_URL."
        )


_NO_RESEARCHER = (
    "the researcher's rights, which hide the sealed bars, cannot be taken with SUPABASE_SERVICE_ROLE_KEY alone: set "
    "SUPABASE_JWT_SECRET (Supabase dashboard, JWT keys) or SUPABASE_DB_URL (Connect, Session pooler)."
)
_NO_DATABASE = (
    "AQF_STORE=sqlite keeps the trade log and the knowledge base in files and has no database for anything else: take "
    "AQF_STORE away to work on the embedded Postgres, or set AQF_DATABASE_URL or SUPABASE_URL instead."
)


class NoRights:
    """A gateway that is not to be had: every verb says why, and what would allow it.

    Parameters
    ----------
    remedy : str
        What every verb says.
    """

    def __init__(self, remedy: str) -> None:
        self._remedy = remedy

    def _refuse(self, *arguments: Any, **more: Any) -> NoReturn:
        raise ConfigurationError(self._remedy)

    select = insert = upsert = update = delete = rpc = _refuse
