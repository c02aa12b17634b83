import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from core.errors import StoreUnavailableError
from core.settings import Settings
from core.store import open_store
from core.store.opening import Store
from core.store.postgres import PostgresGateway
from core.store.records import Dataset
from features.memory import EMB_TYPE, MemorySpec, WorkedJob, refresh, refresh_memory, work_embedding_jobs
from tests.aqf.commands import ROOT, environment
from tests.conftest import Server
from tests.features.memory.worlds import STRIDE, land, rows_of

WINDOWS = {"encoder": "ts2vec", "window": 128, "stride": STRIDE}
EXPIRE = "update embedding_jobs set lease_until = now() - interval '1 second' where status = 'running'"


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "_PIECE", 40)


@pytest.fixture
def dataset(store: Store) -> Dataset:
    return land(store)


def ask(store: Store, dataset: Dataset, windows: Any = None, **more: Any) -> UUID:
    windows = WINDOWS if windows is None else windows
    return store.researcher.request_refresh({"dataset_id": str(dataset.dataset_id), "windows": windows, **more})


def test_a_job_is_done_once_and_says_what_the_memory_has_now(store: Store, dataset: Dataset) -> None:
    job_id = ask(store, dataset)
    progress: list[tuple[UUID, int, int]] = []
    (worked,) = work_embedding_jobs(
        store.researcher, on_progress=lambda job, done, total: progress.append((job.job_id, done, total))
    )
    assert (worked.job.job_id, worked.status, worked.error) == (job_id, "done", None)
    assert worked.refreshed is not None and worked.refreshed.status == "active"
    n = len(rows_of(store))
    assert progress[-1] == (job_id, n, n)
    job = store.researcher.get_job(job_id)
    assert (job.status, job.result) == ("done", worked.refreshed.to_dict())
    assert work_embedding_jobs(store.researcher) == []


def test_of_two_workers_one_does_the_job(store: Store, dataset: Dataset) -> None:
    jobs = [ask(store, dataset), ask(store, dataset, {**WINDOWS, "stride": 11})]
    together = threading.Barrier(2)

    def work(name: str) -> list[WorkedJob]:
        together.wait()
        return work_embedding_jobs(store.researcher, worker=name)

    with ThreadPoolExecutor(2) as pool:
        worked = [job for done in pool.map(work, ("one", "other")) for job in done]
    assert sorted(job.job.job_id for job in worked) == sorted(jobs)
    assert {(job.status, job.job.attempts) for job in worked} == {("done", 1)}
    assert sum(job.refreshed.written for job in worked if job.refreshed) == len(rows_of(store))


def test_two_workers_may_announce_the_same_version_at_once(
    store: Store, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    for symbol in ("AAA", "BBB"):
        ask(store, dataset, asset_symbol=symbol)
    together = threading.Barrier(2, timeout=60)
    insert = PostgresGateway.insert

    def both_saw_nothing(self: PostgresGateway, table: str, rows: Any) -> Any:
        if table == "embedding_versions":
            together.wait()
        return insert(self, table, rows)

    monkeypatch.setattr(PostgresGateway, "insert", both_saw_nothing)
    with ThreadPoolExecutor(2) as pool:
        done = pool.map(lambda name: work_embedding_jobs(store.researcher, worker=name, limit=1), ("one", "other"))
        assert [(job.status, job.error) for jobs in done for job in jobs] == [("done", None)] * 2
    assert {row["asset_symbol"] for row in rows_of(store)} == {"AAA", "BBB"}


def test_a_worker_killed_in_the_middle_is_followed_by_one_that_makes_the_same_rows(
    store: Store, dataset: Dataset, database: str, owner: psycopg.Connection, server: Server, tmp_path: Path
) -> None:
    job_id = ask(store, dataset)
    killed = subprocess.run(
        [sys.executable, "-m", "tests.features.memory.killed_worker", "3"],
        env=environment(tmp_path / "killed", AQF_DATABASE_URL=database),
        cwd=ROOT,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (killed.returncode, killed.stderr) == (-signal.SIGKILL, b"")
    part = rows_of(store)
    assert 40 <= len(part) <= 120, "of the three pieces before, the last may have been on its way"
    assert store.researcher.get_job(job_id).status == "running"
    assert work_embedding_jobs(store.researcher) == [], "its claim has not run out"
    assert store.researcher.active_embedding_version(dataset, EMB_TYPE) is None
    owner.execute(EXPIRE)
    (worked,) = work_embedding_jobs(store.researcher)
    assert (worked.job.job_id, worked.job.attempts, worked.status) == (job_id, 2, "done")
    assert worked.refreshed is not None
    assert (worked.refreshed.written, worked.refreshed.status) == (worked.refreshed.windows - len(part), "active")
    conninfo = server.create(server.template)
    with open_store(Settings(home=tmp_path / "whole", database_url=conninfo)) as other:
        refresh_memory(other.researcher, land(other), MemorySpec.from_mapping(WINDOWS))
        assert rows_of(other, whole=False) == rows_of(store, whole=False)
    server.drop(conninfo)
    now = {row["embedding_id"]: row for row in rows_of(store)}
    assert [now[row["embedding_id"]] for row in part] == part, "what was written before is left alone"


def test_a_worker_that_lost_its_job_stops_and_leaves_it_to_the_other(
    store: Store, dataset: Dataset, owner: psycopg.Connection
) -> None:
    job_id = ask(store, dataset)
    others: list[WorkedJob] = []

    def sleep_too_long(job: Any, done: int, total: int) -> None:
        if not others:
            owner.execute(EXPIRE)
            others.extend(work_embedding_jobs(store.researcher, worker="other"))

    (late,) = work_embedding_jobs(store.researcher, worker="late", on_progress=sleep_too_long)
    assert (late.status, late.refreshed) == ("running", None)
    assert late.error == f"the job {job_id} was taken over by another worker."
    assert [(other.status, other.job.attempts) for other in others] == [("done", 2)]
    assert store.researcher.get_job(job_id).status == "done"
    version = store.researcher.active_embedding_version(dataset, EMB_TYPE)
    assert version is not None and version["n_windows"] == len(rows_of(store))


@pytest.mark.parametrize(
    ("windows", "more", "said"),
    [
        ({"encoder": "ts2vec", "window": 64}, {}, "the encoder ts2vec takes windows of 128 bars, was asked for 64."),
        ({"window": 600}, {}, "not enough history: none of the 4 symbols of small has 600 complete closes"),
        ({"encoder": "gpt"}, {}, "the encoder must be one of auto"),
        ({"lookback": 5}, {}, "a request for windows has encoder, window and stride, not lookback."),
        ([1], {}, "a request for windows is an object with encoder, window and stride, was [1]."),
        (5, {"metadata": ["switch"]}, "a request for windows is an object with encoder, window and stride, was 5."),
        (WINDOWS, {"asset_symbol": "XXX", "metadata": ["switch"]}, "unknown symbol XXX; small has AAA, BBB, GAP, STILL."),
    ],
)
def test_a_job_that_cannot_be_done_says_why_and_keeps_nobody_else_waiting(
    store: Store, dataset: Dataset, windows: Any, more: dict[str, Any], said: str
) -> None:
    bad, good = ask(store, dataset, windows, **more), ask(store, dataset, asset_symbol="BBB")
    first, second = work_embedding_jobs(store.researcher)
    assert (first.job.job_id, first.status, second.job.job_id, second.status) == (bad, "failed", good, "done")
    job = store.researcher.get_job(bad)
    assert (job.status, job.result) == ("failed", None)
    assert job.error is not None and job.error == first.error and job.error.startswith(said)
    assert {row["asset_symbol"] for row in rows_of(store)} == {"BBB"}


def test_a_job_may_ask_for_searches_to_be_switched(store: Store, dataset: Dataset) -> None:
    for stride, metadata in ((7, {}), (11, {}), (13, {"switch": True})):
        ask(store, dataset, {**WINDOWS, "stride": stride}, metadata=metadata)
    statuses = [worked.refreshed.status for worked in work_embedding_jobs(store.researcher) if worked.refreshed]
    assert statuses == ["active", "building", "active"]


def test_a_worker_that_is_interrupted_gives_its_job_back(store: Store, dataset: Dataset) -> None:
    job_id = ask(store, dataset)

    def interrupt(job: Any, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work_embedding_jobs(store.researcher, on_progress=interrupt)
    assert store.researcher.get_job(job_id).status == "pending"
    (worked,) = work_embedding_jobs(store.researcher)
    assert (worked.status, worked.job.attempts) == ("done", 1)


def test_a_database_that_goes_away_ends_the_worker_and_leaves_the_job_to_the_next(
    store: Store, dataset: Dataset, owner: psycopg.Connection
) -> None:
    job_id = ask(store, dataset)

    def lose(job: Any, done: int, total: int) -> None:
        raise StoreUnavailableError("the database cannot be reached: a test")

    with pytest.raises(StoreUnavailableError):
        work_embedding_jobs(store.researcher, on_progress=lose)
    assert store.researcher.get_job(job_id).status == "running"
    owner.execute(EXPIRE)
    assert [worked.status for worked in work_embedding_jobs(store.researcher, limit=1)] == ["done"]
