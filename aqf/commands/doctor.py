"""`aqf doctor`: which store is in force and why, what is installed, and whether the ledger is whole."""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import click

from aqf import screen
from aqf.commands.research import as_json

if TYPE_CHECKING:
    from core.settings import Settings
    from core.store import Store

_PACKAGES = (
    "langgraph",
    "langchain-openai",
    "supabase",
    "pgvector",
    "psycopg",
    "numpy",
    "pandas",
    "numba",
    "vectorbt",
    "skfolio",
    "arch",
)
_REASONS = {
    "embedded": "neither AQF_DATABASE_URL nor SUPABASE_URL is set",
    "database_url": "AQF_DATABASE_URL is set",
    "supabase": "SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY are set",
    "sqlite": "AQF_STORE is sqlite: the trading side alone, in files",
}


@click.command(epilog="Example:  aqf doctor --json")
@as_json
def doctor(as_json: bool) -> None:
    """Check the installation: the store, its knowledge base, the versions, the trial ledger's hash chain."""
    from agents.trading.alerts import configured_channels
    from core.errors import StoreError
    from core.provenance import code_version
    from core.settings import Settings, StoreKind
    from core.store import open_store

    settings = Settings.load()
    with open_store(settings) as store:
        # Files alone hold no trials.
        in_database = store.kind is not StoreKind.SQLITE
        damaged = store.service.verify_trials() if in_database else []
        found: dict[str, Any] = {
            "aqf": code_version(),
            "python": platform.python_version(),
            "home": str(settings.home),
            "free_gb": round(shutil.disk_usage(settings.home).free / 1e9, 1) if settings.home.exists() else None,
            "store": str(store.kind),
            "store_reason": _REASONS[store.kind],
            **_trading_side(store, settings),
        }
        if in_database:
            server = store.service.gateway.rpc("store_version")[0]
            found |= {
                "postgres": server["postgres"],
                "pgvector": server["pgvector"],
                "schema": server["schema_version"],
                "trials": server["n_trials"],
                "ledger": "whole" if not damaged else [f"trial {row['trial_id']} {row['problem']}" for row in damaged],
            }
        found |= {
            "alerts": ", ".join(channel.name for channel in configured_channels(settings)),
            "contact": settings.contact or "AQF_CONTACT is not set: neither EDGAR nor arXiv is asked",
            "model": settings.llm_model if settings.has_model else "none configured: the rules planner works without",
            "packages": {name: version(name) for name in _PACKAGES},
        }
    if as_json:
        screen.print_json(found)
    else:
        for key, value in found.items():
            shown = ", ".join(f"{name} {number}" for name, number in value.items()) if isinstance(value, dict) else value
            click.echo(f"{key:30}{shown}")
    if damaged:
        raise StoreError(f"the trial ledger was tampered with: {found['ledger'][0]}. Restore the database from a backup.")


def _trading_side(store: Store, settings: Settings) -> dict[str, Any]:
    """Say where trades and knowledge lie, and what makes documents comparable."""
    from core.settings import StoreKind
    from core.store.chroma_knowledge import knowledge_path
    from core.store.sqlite_trade_log import trade_log_path

    in_files = store.kind is StoreKind.SQLITE
    counts = store.knowledge.count_documents()
    name = store.knowledge.embedder.name
    reason = "AQF_TEXT_EMBEDDER is set"
    if settings.text_embedder == "auto":
        reason = f"OPENAI_API_KEY is {'not ' if settings.openai_api_key is None else ''}set"
    return {
        "trade_log": f"SQLite {trade_log_path(settings.home)}" if in_files else "Postgres, table trades",
        "knowledge": f"Chroma {knowledge_path(settings.home)}" if in_files else "pgvector, table knowledge_documents",
        "embedder": name,
        "embedder_reason": reason,
        "documents": counts.get(name, 0),
        "documents_of_other_embedders": sum(counts.values()) - counts.get(name, 0),
    }
