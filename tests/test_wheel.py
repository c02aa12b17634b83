"""What is built is what is needed: the wheel, unpacked far from the checkout, migrates a database and opens a store."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
USE = """
import sys
from core import settings
from core.settings import Settings
from core.store.opening import open_store
from core.store.sqlite_trade_log import SqliteTradeLog
from core.store.migrations import load_migrations
assert str(settings.CHECKOUT) == sys.argv[1], settings.CHECKOUT
home = Settings.load().home
with open_store(Settings.load()) as store:
    print(len(store.migrated), len(load_migrations()), store.service.list_datasets())
print(SqliteTradeLog(home / "trade_log.db").list_trades())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the back end itself and so without a network."""
    pytest.importorskip("hatchling.build", reason="hatchling is not there: the wheel was not built")
    folder = tmp_path_factory.mktemp("wheel")
    script = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.strip().splitlines()[-1]


def test_every_file_that_is_read_at_run_time_is_in_the_wheel(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    packages = ("core", "features", "backtest", "agents", "use_cases", "aqf")
    listed = subprocess.run(["git", "ls-files", *packages], cwd=ROOT, capture_output=True, text=True, check=True)
    migrations = {f"core/store/migrations_bundled/{path.name}" for path in (ROOT / "supabase" / "migrations").glob("*.sql")}
    assert "core/store/sql/trade_log.sql" in packed
    assert packed >= {name for name in listed.stdout.split() if not name.endswith(".md")} | migrations
    assert not [name for name in packed if name.startswith(("tests/", "supabase/", "benchmarks/", "docs/"))]


def test_the_wheel_migrates_a_database_and_opens_both_stores(wheel: Path, empty_database: str, tmp_path: Path) -> None:
    installed = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(installed)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-c", USE, str(installed)],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(installed), "AQF_HOME": str(tmp_path), "AQF_DATABASE_URL": empty_database},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    n = len(list((ROOT / "supabase" / "migrations").glob("*.sql")))
    assert done.stdout == f"{n} {n} []\n[]\n"
