import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from core.errors import ConfigurationError, MissingDataError, StoreConflictError, StoreError, StoreUnavailableError
from core.settings import Settings
from core.store.backup import Manifest, back_up, restore
from core.store.opening import Store, open_store
from tests.core.store.research import create_run, import_toy, propose, trial

NAMES = "select datname from pg_database where datname like 'aqf_%' or datname like 'before_%'"


@pytest.fixture
def settings(place: Path) -> Settings:
    return Settings(home=place / "a home of its own")


@pytest.fixture
def filled(settings: Settings) -> Iterator[Settings]:
    """A home whose database has bars and a ledger of two trials."""
    with open_store(settings) as store:
        run = create_run(store.service, import_toy(store.service))
        for number in (1, 2):
            store.researcher.record_trial(trial(run, propose(store.researcher, f"rank(close * {number})"), number))
    yield settings


def saved(settings: Settings, file: Path) -> Manifest:
    with open_store(settings) as store:
        return back_up(store, settings, file)


def other_databases(store: Store) -> list[str]:
    with psycopg.connect(make_conninfo(store.require_conninfo(), dbname="template1")) as connection:
        return [name for (name,) in connection.execute(NAMES)]


def forged(file: Path, folder: Path, change: Callable[[dict], None]) -> Path:
    """A copy of a backup with another manifest."""
    folder.mkdir()
    with tarfile.open(file) as archive:
        archive.extractall(folder, filter="data")
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with tarfile.open(folder / "forged.aqf", "w") as archive:
        for name in ("manifest.json", "database.dump"):
            archive.add(folder / name, name)
    return folder / "forged.aqf"


def test_what_was_backed_up_is_there_again_after_a_restore(filled: Settings, tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "monday.aqf"
    manifest = saved(filled, file)
    assert manifest.rows["public.trials"] == 2
    assert manifest.rows["public.market_bars"] > 100
    assert list(file.parent.iterdir()) == [file]
    with open_store(filled) as store:
        assert other_databases(store) == []
        import_toy(store.service, name="later")
        before = store.service.gateway.select("trials", order=("trial_id",))
    restored, kept = restore(filled, file)
    assert restored == manifest
    with open_store(filled) as store:
        assert [dataset.name for dataset in store.service.list_datasets()] == ["toy"]
        rows = store.service.gateway.select("trials", order=("trial_id",))
        assert [row["row_hash"] for row in rows] == [row["row_hash"] for row in before]
        assert store.service.verify_trials() == []
        assert store.migrated == []
        with pytest.raises(StoreError, match="permission denied"):
            store.researcher.gateway.select("holdout_openings")
        run = create_run(store.service, store.service.find_dataset("toy"))
        assert store.researcher.record_trial(trial(run, propose(store.researcher), 3)) == 3
        assert other_databases(store) == [kept]
        with psycopg.connect(make_conninfo(store.require_conninfo(), dbname=kept)) as connection:
            assert connection.execute("select count(*) from datasets").fetchone() == (2,)


def test_a_backup_goes_into_a_home_that_never_was(filled: Settings, place: Path, tmp_path: Path) -> None:
    manifest = saved(filled, tmp_path / "x.aqf")
    fresh = Settings(home=place / "fresh")
    assert restore(fresh, tmp_path / "x.aqf")[0] == manifest
    with open_store(fresh) as store:
        assert len(store.service.gateway.select("trials")) == 2


def test_only_the_last_database_before_a_restore_is_kept(filled: Settings, tmp_path: Path) -> None:
    saved(filled, tmp_path / "x.aqf")
    restore(filled, tmp_path / "x.aqf")
    _, kept = restore(filled, tmp_path / "x.aqf")
    with open_store(filled) as store:
        assert other_databases(store) == [kept]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m["rows"].update({"public.market_bars": 1}), r"public.market_bars should have 1 rows, has \d+; nothing was"),
        (lambda m: m["rows"].update({"public.imagined": 0}), "public.imagined should have 0 rows, has None"),
        (lambda m: m.update(schema_version="29990101000000"), "is of a later release"),
        (lambda m: m.update(format=2), "is of a later release"),
        (lambda m: m.pop("rows"), "is not a whole backup"),
    ],
)
def test_a_backup_that_is_not_what_it_says_changes_nothing(
    filled: Settings, tmp_path: Path, change: Callable[[dict], None], said: str
) -> None:
    saved(filled, tmp_path / "x.aqf")
    with open_store(filled) as store:
        import_toy(store.service, name="later")
    with pytest.raises((StoreError, MissingDataError), match=said):
        restore(filled, forged(tmp_path / "x.aqf", tmp_path / "forged", change))
    with open_store(filled) as store:
        assert len(store.service.list_datasets()) == 2
        assert other_databases(store) == []


def test_a_ledger_that_was_tampered_with_is_not_restored(filled: Settings, tmp_path: Path) -> None:
    with open_store(filled) as store, psycopg.connect(store.require_conninfo(), autocommit=True) as owner:
        owner.execute("alter table trials disable trigger all")
        owner.execute("update trials set sharpe = 9 where trial_id = 2")
        owner.execute("alter table trials enable trigger all")
    with pytest.raises(StoreError, match="the backup's ledger was tampered with: trial 2 was changed after it was written"):
        saved(filled, tmp_path / "x.aqf")
    assert not (tmp_path / "x.aqf").exists()


def test_a_cut_file_and_no_file_are_named(filled: Settings, tmp_path: Path) -> None:
    saved(filled, tmp_path / "x.aqf")
    whole = (tmp_path / "x.aqf").read_bytes()
    (tmp_path / "cut.aqf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises((StoreError, MissingDataError), match=r"not a whole backup|pg_restore failed"):
        restore(filled, tmp_path / "cut.aqf")
    (tmp_path / "text.aqf").write_text("hello")
    with pytest.raises(MissingDataError, match="is not a whole backup"):
        restore(filled, tmp_path / "text.aqf")
    with pytest.raises(MissingDataError, match="there is no backup"):
        restore(filled, tmp_path / "none.aqf")


def test_a_database_in_use_is_not_replaced(filled: Settings, tmp_path: Path) -> None:
    saved(filled, tmp_path / "x.aqf")
    with open_store(filled) as store, psycopg.connect(store.require_conninfo()):
        with pytest.raises(StoreConflictError, match="connections use the database: end the other `aqf` commands"):
            restore(filled, tmp_path / "x.aqf")
        assert other_databases(store) == []


def test_a_place_that_cannot_be_written_is_named(filled: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailableError, match="cannot be written"):
        saved(filled, tmp_path / "file" / "x.aqf")


def test_a_database_of_ones_own_is_backed_up_but_not_restored(database: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=database)
    manifest = saved(settings, tmp_path / "x.aqf")
    assert manifest.rows["public.datasets"] == 0
    with pytest.raises(ConfigurationError, match="only the embedded database is restored here"):
        restore(settings, tmp_path / "x.aqf")
