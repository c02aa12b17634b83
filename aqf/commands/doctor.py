"""`aqf doctor`: which store is in force and why, what is installed, and whether the ledger is whole."""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import version
from typing import Any

import click

from aqf import screen
from aqf.commands.research import as_json

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
}


@click.command(epilog="Example:  aqf doctor --json")
@as_json
def doctor(as_json: bool) -> None:
    """Check the installation: the store, the versions, the trial ledger's hash chain."""
    from core.errors import StoreError
    from core.provenance import code_version
    from core.settings import Settings
    from core.store import open_store

    settings = Settings.load()
    with open_store(settings) as store:
        server = store.service.gateway.rpc("store_version")[0]
        damaged = store.service.verify_trials()
        found: dict[str, Any] = {
            "aqf": code_version(),
            "python": platform.python_version(),
            "home": str(settings.home),
            "free_gb": round(shutil.disk_usage(settings.home).free / 1e9, 1) if settings.home.exists() else None,
            "store": str(store.kind),
            "store_reason": _REASONS[store.kind],
            "postgres": server["postgres"],
            "pgvector": server["pgvector"],
            "schema": server["schema_version"],
            "trials": server["n_trials"],
            "ledger": "whole" if not damaged else [f"trial {row['trial_id']} {row['problem']}" for row in damaged],
            "model": settings.llm_model if settings.has_model else "none configured: the rules planner works without",
            "packages": {name: version(name) for name in _PACKAGES},
        }
    if as_json:
        screen.print_json(found)
    else:
        for key, value in found.items():
            shown = ", ".join(f"{name} {number}" for name, number in value.items()) if isinstance(value, dict) else value
            click.echo(f"{key:14}{shown}")
    if damaged:
        raise StoreError(f"the trial ledger was tampered with: {found['ledger'][0]}. Restore the database from a backup.")
