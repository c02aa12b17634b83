"""Supabase's own lints on our schema, where npm can install its command line."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from core.store.migrations import apply_migrations
from tests.migrations.test_migrations import SUPABASE_DEFAULTS

CLI = "supabase@3.1.0"


def unavailable(reason: str) -> None:
    """Skip on a developer's machine, fail where the check is promised."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"the advisors must run in CI: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Supabase's command line, installed into a folder of its own."""
    npm = shutil.which("npm")
    if npm is None:
        unavailable("npm is not there")
    folder = tmp_path_factory.mktemp("cli")
    (folder / "package.json").write_text("{}")
    command = [str(npm), "install", "--no-audit", "--no-fund", "--loglevel=error", CLI]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    binary = folder / "node_modules" / ".bin" / "supabase"
    if done.returncode != 0 or not binary.exists():
        unavailable(f"npm could not install {CLI}: {done.stderr.strip()[-500:]}")
    return binary


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, target):
            end.close()


@contextmanager
def reachable_by_tcp(conninfo: str) -> Iterator[str]:
    """Relay a loopback port to the server's socket: the command line speaks TCP only."""
    parts = conninfo_to_dict(conninfo)
    listener = socket.create_server(("127.0.0.1", 0))
    ends: list[socket.socket] = []
    threads: list[Thread] = []

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{parts['host']}/.s.PGSQL.{parts.get('port') or 5432}")
            ends.extend((client, server))
            for source, target in ((client, server), (server, client)):
                threads.append(Thread(target=pump, args=(source, target), daemon=True))
                threads[-1].start()

    acceptor = Thread(target=serve, daemon=True)
    acceptor.start()
    try:
        yield f"postgresql://{parts['user']}@127.0.0.1:{listener.getsockname()[1]}/{parts['dbname']}?sslmode=disable"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for end in ends:
            end.close()
        for thread in threads:
            thread.join()


def advise(cli: Path, conninfo: str) -> list[dict[str, Any]]:
    """Every error and warning of the advisors."""
    environment = {**os.environ, "SUPABASE_TELEMETRY": "0", "DO_NOT_TRACK": "1", "HOME": str(cli.parents[2])}
    with reachable_by_tcp(conninfo) as url:
        done = subprocess.run(
            [str(cli), "db", "advisors", f"--remote={url}", "--yes", "--type=all", "--level=warn", "--output-format=text"],
            cwd=cli.parents[2],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    if "No issues found" in done.stdout + done.stderr:
        return []
    found: list[dict[str, Any]] = json.loads(done.stdout[: done.stdout.rindex("]") + 1])
    return found


def test_supabases_advisors_find_no_error_and_no_warning(cli: Path, database: str) -> None:
    assert advise(cli, database) == []


def test_nor_where_supabase_grants_everything_by_default(cli: Path, empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(SUPABASE_DEFAULTS)
    apply_migrations(empty_database)
    assert advise(cli, empty_database) == []


def test_the_advisors_would_have_seen_a_careless_table(cli: Path, database: str, owner: psycopg.Connection) -> None:
    owner.execute("create table careless (id integer)")
    owner.execute("grant select on careless to anon")
    assert [(item["name"], item["level"]) for item in advise(cli, database)] == [("rls_disabled_in_public", "ERROR")]


def test_in_ci_the_check_fails_rather_than_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="the advisors must run in CI: why"):
        unavailable("why")
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="why"):
        unavailable("why")
