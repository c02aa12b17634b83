"""Shared fixtures: an environment of our own, one database server for the session, a fresh database for a test."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg
import pytest
from hypothesis import settings
from psycopg.conninfo import make_conninfo

from core.settings import Settings
from core.store.embedded import EmbeddedPostgres
from core.store.migrations import apply_migrations
from core.store.opening import Store, open_store

# Of hypothesis itself: the same examples in every run, and no deadline on a machine that does other work.
settings.load_profile("ci")

PRIVATE_VARIABLES = ("AQF_", "SUPABASE_", "OPENAI_", "OTEL_", "APCA_")
SYSTEM_STATE = Path("/var/lib/aqf")


@dataclass(frozen=True)
class Server:
    """The database server of the session; `template` is a migrated database to copy."""

    conninfo: str
    template: str
    numbers: Iterator[int]

    def create(self, template: str | None = None) -> str:
        """Create a database and return its connection string."""
        name = f"test_{next(self.numbers)}"
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(f"create database {name} template {template or 'template1'}")
        return make_conninfo(self.conninfo, dbname=name)

    def drop(self, conninfo: str) -> None:
        """Drop a database, whoever is connected to it."""
        name = psycopg.conninfo.conninfo_to_dict(conninfo)["dbname"]
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(f"drop database {name} with (force)")


def make_reachable_folder() -> Path:
    """Make a folder that the server's unprivileged user can reach, unlike pytest's own; in memory, if there is room."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2**30
    folder = Path(tempfile.mkdtemp(prefix="aqf-test-", dir=memory if roomy else None))
    folder.chmod(0o711)
    return folder


def sweep(folder: Path) -> None:
    """Stop every server that has its home under a folder, and remove what it keeps outside."""
    for location in folder.glob("**/postgres/location"):
        place = Path(location.read_text().strip())
        if place.is_dir():
            EmbeddedPostgres(location.parents[1]).stop_for_all()
        if place.parent == SYSTEM_STATE:
            shutil.rmtree(place, ignore_errors=True)
    for lock in folder.glob("**/postgres/data/postmaster.pid"):
        EmbeddedPostgres(lock.parents[2]).stop_for_all()


@pytest.fixture(scope="session", autouse=True)
def _clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hide the developer's variables and `.env`, and keep everything a test writes out of the developer's `AQF_HOME`."""
    base = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(PRIVATE_VARIABLES)]:
            patch.delenv(name)
        patch.setenv("AQF_HOME", str(base / "home"))
        patch.setitem(Settings.model_config, "env_file", None)
        yield
    sweep(base)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that the server's unprivileged user can reach; swept afterwards."""
    folder = make_reachable_folder()
    yield folder
    sweep(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for the whole session, with a migrated template."""
    folder = make_reachable_folder()
    postgres = EmbeddedPostgres(folder / "home")
    try:
        conninfo = postgres.start()
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute("alter system set fsync = off")
            connection.execute("select pg_reload_conf()")
            connection.execute("create database migrated")
        apply_migrations(make_conninfo(conninfo, dbname="migrated"))
        yield Server(conninfo, "migrated", count(1))
    finally:
        postgres.stop()
        sweep(folder)
        shutil.rmtree(folder)


@pytest.fixture
def empty_database(server: Server) -> Iterator[str]:
    """Connection string of a database without a single migration."""
    conninfo = server.create()
    yield conninfo
    server.drop(conninfo)


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    """Connection string, as its owner, of a migrated database of this test's own."""
    conninfo = server.create(server.template)
    yield conninfo
    server.drop(conninfo)


@pytest.fixture
def store(database: str, tmp_path: Path) -> Iterator[Store]:
    """An open store over a database of this test's own."""
    with open_store(Settings(home=tmp_path, database_url=database)) as opened:
        yield opened


@pytest.fixture
def owner(database: str) -> Iterator[psycopg.Connection]:
    """A connection of the database's owner, in autocommit mode."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection
