"""One gateway a transport, each as `service_role` over the same tables."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from core.store.gateway import Gateway
from core.store.migrations import apply_migrations
from core.store.postgres import PostgresGateway
from core.store.rest import SupabaseGateway
from tests.core.store.conftest import HAS_HOSTED, HOSTED
from tests.core.store.contract.things import DROPS, TABLES
from tests.core.store.stand_in import KEY, StandIn


@contextmanager
def hosted_tables() -> Iterator[None]:
    """Make our schema and the tables of the suite in the hosted project, and take the tables away again."""
    apply_migrations(HOSTED["DB_URL"])
    with psycopg.connect(HOSTED["DB_URL"], autocommit=True) as connection:
        connection.execute(DROPS)
        connection.execute(TABLES)  # type: ignore[call-overload]
        connection.execute("notify pgrst, 'reload schema'")
        time.sleep(2.0)
        try:
            yield
        finally:
            connection.execute(DROPS)


@pytest.fixture(params=["postgres", "http", *(["hosted"] if HAS_HOSTED else [])])
def gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """An open gateway by each transport."""
    if request.param == "hosted":
        with hosted_tables():
            hosted = SupabaseGateway(HOSTED["URL"], HOSTED["SERVICE_ROLE_KEY"]).open()
            yield hosted
            hosted.close()
        return
    database: str = request.getfixturevalue("database")
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(TABLES)  # type: ignore[call-overload]
    opened: PostgresGateway | SupabaseGateway
    if request.param == "postgres":
        opened = PostgresGateway(database, role="service_role").open()
    else:
        running: StandIn = request.getfixturevalue("stand_in")
        opened = SupabaseGateway(running.url(database), KEY).open()
    yield opened
    opened.close()


@pytest.fixture
def reopen(stand_in: StandIn, database: str) -> Callable[..., SupabaseGateway]:
    """Builds gateways over HTTP to the test's database, not opened."""
    return lambda key=KEY, **more: SupabaseGateway(stand_in.url(database), key, **more)
