"""Stores and gateways over every transport: Postgres itself, HTTP, and a hosted project where one is given."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.settings import Settings
from core.store.opening import Store, open_store
from tests.conftest import Server
from tests.core.store import stand_in as stand_in_module
from tests.core.store.stand_in import StandIn

TRANSPORTS = ("postgres", "http")
OVER_POSTGRES = pytest.mark.parametrize("store", ["postgres"], indirect=True)
"""Marks a test that sends statements, which HTTP has no way to carry."""


@pytest.fixture(scope="session")
def stand_in(server: Server) -> Iterator[StandIn]:
    """The Data API of every database of the session's server."""
    with stand_in_module.serve(server.conninfo) as running:
        yield running


@pytest.fixture(params=TRANSPORTS)
def store(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> Iterator[Store]:
    """An open store over a database of this test's own, by each transport."""
    if request.param == "postgres":
        settings = Settings(home=tmp_path, database_url=database)
    else:
        running: StandIn = request.getfixturevalue("stand_in")
        settings = Settings(
            home=tmp_path,
            supabase_url=running.url(database),
            supabase_key=stand_in_module.KEY,
            supabase_jwt_secret=stand_in_module.JWT_SECRET,
        )
    with open_store(settings) as opened:
        yield opened


HOSTED = {name: os.environ.get(f"SUPABASE_TEST_{name}", "") for name in ("URL", "SERVICE_ROLE_KEY", "DB_URL", "JWT_SECRET")}
"""A hosted project to test on, read before the environment is cleaned; it must be one that nobody needs."""
HAS_HOSTED = all(HOSTED[name] for name in ("URL", "SERVICE_ROLE_KEY", "DB_URL"))
