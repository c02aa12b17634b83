"""The Data API over real HTTP on the test's own Postgres: npm's @supabase/lite, installed once outside the repository."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from psycopg.conninfo import conninfo_to_dict

FOLDER = Path(__file__).resolve().parent / "contract" / "stand_in"
KEY = "sb_secret_of_the_stand_in"
JWT_SECRET = "a secret of the stand-in of at least 32 bytes"


@dataclass(frozen=True)
class StandIn:
    """A running stand-in for the Data API of every database of one server."""

    port: int
    process: subprocess.Popen[str]

    def url(self, conninfo: str) -> str:
        """Return the address of a database, as SUPABASE_URL would name it."""
        return f"http://127.0.0.1:{self.port}/{conninfo_to_dict(conninfo)['dbname']}"


def cache_folder() -> Path:
    """Return where the packages lie: one folder for each state of package.json."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "aqf-tests" / hashlib.sha256((FOLDER / "package.json").read_bytes()).hexdigest()[:16]


def install() -> Path:
    """Install the packages, once; without npm the test is skipped, and fails in continuous integration."""
    folder = cache_folder()
    npm = shutil.which("npm")
    done = folder / "node_modules" / ".complete"
    if done.is_file() and shutil.which("node"):
        return folder
    if npm is None:
        reason = "npm is not there: the gateway over HTTP was not tested"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock", timeout=240):
        if not done.is_file():
            shutil.copy(FOLDER / "package.json", folder)
            command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
            ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if ran.returncode != 0:
                reason = f"npm could not install the stand-in: {(ran.stderr or ran.stdout).strip()[-500:]}"
                if os.environ.get("CI") == "true":
                    pytest.fail(reason)
                pytest.skip(reason)
            done.touch()
    return folder


@contextmanager
def serve(conninfo: str) -> Iterator[StandIn]:
    """Serve the databases of a server until the block is left."""
    folder = install()
    socket = f"{conninfo_to_dict(conninfo)['host']}/.s.PGSQL.5432"
    node = shutil.which("node")
    assert node is not None
    process = subprocess.Popen(
        [node, str(FOLDER / "server.mjs"), socket, KEY, JWT_SECRET],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"LITE_TELEMETRY": "0", "DO_NOT_TRACK": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield StandIn(int(process.stdout.readline()), process)
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(10)
