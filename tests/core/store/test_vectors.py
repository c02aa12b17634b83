import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import psycopg
import pytest
from psycopg.types.range import Range

from core.errors import MissingDataError, ShapeError, StoreConflictError, StoreError
from core.market.panel import FloatArray
from core.store.gateway import Row
from core.store.opening import Store
from core.store.records import VECTOR_WIDTH, Dataset
from core.store.research import ResearchStore
from tests.core.store.conftest import OVER_POSTGRES
from tests.core.store.research import NOBODY, build_panel, import_toy, utc

DAY = timedelta(days=1)
START = utc(2020, 1, 1)
SEAL = utc(2020, 3, 1)
SHA = "a" * 64


@pytest.fixture
def dataset(store: Store) -> Dataset:
    return import_toy(store.service, sealed_from=SEAL)


def announce(
    store: ResearchStore, dataset: Dataset, version: str = "1", *, activate: bool = True, emb_type: str = "pca"
) -> None:
    store.register_embedding_version(
        dataset, emb_type=emb_type, emb_version=version, encoder_sha256=SHA, trained_until=utc(2020, 1, 2)
    )
    if activate:
        store.activate_embedding_version(emb_type, version)


def axis(position: int, sign: float = 1.0) -> FloatArray:
    vector = np.zeros(VECTOR_WIDTH)
    vector[position] = sign
    return vector


def window(
    dataset: Dataset,
    vector: FloatArray | int = 0,
    *,
    day: float = 0.0,
    symbol: str = "AAA",
    version: str = "1",
    regime: str = "calm",
    label_after: float | None = 1.0,
    forward_return: float = 0.01,
    t_stat: float = 0.0,
    **changes: Any,
) -> Row:
    """A window of one day that ends `day` days after the start; its label is known `label_after` days later."""
    end = START + day * DAY
    return {
        "embedding_id": uuid4(),
        "dataset_id": dataset.dataset_id,
        "asset_symbol": symbol,
        "time_range": Range(end - DAY, end, "[]"),
        "embedding": np.asarray(axis(vector) if isinstance(vector, int) else vector, dtype=np.float32),
        "emb_type": "pca",
        "emb_version": version,
        "regime_tag": regime,
        "label": {"forward_return": forward_return, "t_stat": t_stat},
        "label_end": None if label_after is None else end + label_after * DAY,
        "meta": {"source": "toy", "regime": regime, "window": 2},
    } | changes


def nearest(
    store: ResearchStore, dataset: Dataset, as_of: datetime = SEAL, vector: FloatArray | int = 0, **more: Any
) -> list[UUID]:
    vector = axis(vector) if isinstance(vector, int) else vector
    found = store.match_embeddings(vector, **({"count": 10, "as_of": as_of, "emb_type": "pca", "dataset": dataset} | more))
    return [neighbour.embedding_id for neighbour in found]


def stored(store: Store, table: str = "signal_embeddings") -> list[Row]:
    rows = store.service.gateway.select(table, order=("embedding_id",))
    return [row | {"embedding": row["embedding"].to_list()} for row in rows]


# Point in time


def test_a_neighbour_is_returned_as_it_was_stored(store: Store, dataset: Dataset) -> None:
    announce(store.researcher, dataset)
    row = window(dataset, 3, day=5, label_after=2, forward_return=0.25, regime="wild")
    store.researcher.save_embeddings([row])
    (neighbour,) = store.researcher.match_embeddings(axis(3) + axis(4), count=5, as_of=SEAL, emb_type="pca", dataset=dataset)
    assert (neighbour.embedding_id, neighbour.asset_symbol, neighbour.regime_tag) == (row["embedding_id"], "AAA", "wild")
    assert (neighbour.window_start, neighbour.window_end) == (START + 4 * DAY, START + 5 * DAY)
    assert neighbour.label_end == START + 7 * DAY
    assert neighbour.label["forward_return"] == 0.25
    assert neighbour.distance == pytest.approx(1.0 - math.sqrt(0.5), abs=1e-3)


def test_no_neighbour_has_a_label_that_ends_at_or_after_the_time_asked_about(store: Store, dataset: Dataset) -> None:
    announce(store.researcher, dataset)
    rng = np.random.default_rng(0)
    rows = [
        window(dataset, axis(0) + 0.1 * rng.standard_normal(VECTOR_WIDTH), day=day, label_after=after)
        for day, after in zip(rng.integers(0, 30, 200) + np.arange(200) / 1000, rng.integers(1, 25, 200), strict=True)
    ]
    store.service.save_embeddings(rows)
    ends = {row["embedding_id"]: row["label_end"] for row in rows}
    for as_of in [START + n * DAY for n in range(0, 60, 3)] + [
        rows[7]["label_end"],
        rows[7]["label_end"] + timedelta(microseconds=1),
    ]:
        found = nearest(store.service, dataset, as_of, count=1000)
        assert set(found) == {id for id, end in ends.items() if end < as_of}


def test_a_window_without_a_label_is_nobodys_neighbour(store: Store, dataset: Dataset) -> None:
    announce(store.researcher, dataset)
    store.researcher.save_embeddings([window(dataset, label_after=None)])
    assert nearest(store.researcher, dataset) == []


def test_a_label_never_ends_before_its_window(store: Store, dataset: Dataset) -> None:
    announce(store.researcher, dataset)
    with pytest.raises(StoreError, match="check constraint"):
        store.researcher.save_embeddings([window(dataset, label_after=0.0)])


def test_a_researcher_neither_keeps_nor_finds_what_touches_the_seal(store: Store, dataset: Dataset) -> None:
    announce(store.researcher, dataset)
    before = (SEAL - START) / DAY - 3
    seen = window(dataset, day=before, label_after=2)
    hidden = [window(dataset, day=before, label_after=3, symbol="BBB"), window(dataset, day=before + 4, label_after=None)]
    store.researcher.save_embeddings([seen])
    for row in hidden:
        with pytest.raises(StoreError, match="row-level security"):
            store.researcher.save_embeddings([row])
    store.service.save_embeddings(hidden)
    assert nearest(store.researcher, dataset, utc(2030, 1, 1)) == [seen["embedding_id"]]
    assert len(store.researcher.gateway.select("signal_embeddings")) == 1
    assert set(nearest(store.service, dataset, utc(2030, 1, 1))) == {seen["embedding_id"], hidden[0]["embedding_id"]}
    with pytest.raises(StoreError, match="row-level security"):
        store.researcher.register_embedding_version(
            dataset, emb_type="pca", emb_version="late", encoder_sha256=SHA, trained_until=SEAL
        )


# Versions


def test_a_search_never_mixes_versions(store: Store, dataset: Dataset) -> None:
    for version in ("1", "2", "3"):
        announce(store.researcher, dataset, version, activate=False)
        store.researcher.save_embeddings([window(dataset, day=n, version=version) for n in range(5)])
    of = {row["embedding_id"]: row["emb_version"] for row in stored(store)}
    with pytest.raises(StoreError, match="0 active versions of pca"):
        nearest(store.researcher, dataset)
    for version in ("1", "3", "2", "1"):
        store.researcher.activate_embedding_version("pca", version)
        found = nearest(store.researcher, dataset, count=100)
        assert [of[id] for id in found] == [version] * 5
        active = store.researcher.active_embedding_version(dataset, "pca")
        assert active is not None
        assert active["emb_version"] == version
        assert store.researcher.count_embeddings(dataset, "pca")["n_windows"] == 5


@OVER_POSTGRES
def test_a_search_goes_past_the_windows_of_retired_versions(store: Store, dataset: Dataset) -> None:
    announce(store.researcher, dataset, "old")
    rng = np.random.default_rng(0)
    near = axis(0) + 0.01 * rng.standard_normal((800, VECTOR_WIDTH))
    store.service.save_embeddings([window(dataset, near[n], day=n / 100, version="old") for n in range(800)])
    announce(store.researcher, dataset, "new")
    far = axis(0) + 0.2 * rng.standard_normal((60, VECTOR_WIDTH))
    rows = [window(dataset, far[n], day=n / 10, version="new") for n in range(60)]
    store.service.save_embeddings(rows)
    with store.service.gateway.connection() as connection:  # type: ignore[attr-defined]
        connection.execute("analyze public.signal_embeddings")
        connection.execute("set enable_sort = off")
        connection.execute("set hnsw.max_scan_tuples = 100")
        found = connection.execute(
            "select embedding_id from match_signal_embeddings(%s, 20, %s, 'pca', %s)",
            [axis(0).astype(np.float32), SEAL, json.dumps({"dataset_id": str(dataset.dataset_id)})],
        ).fetchall()
    assert len(found) == 20
    assert {row["embedding_id"] for row in found} <= {row["embedding_id"] for row in rows}


def test_with_several_active_versions_the_data_set_must_be_named(store: Store, dataset: Dataset) -> None:
    other = store.service.import_dataset(build_panel(seed=1), name="other", source="a test", sealed_from=SEAL)
    announce(store.researcher, dataset, "1")
    ask = {"query_embedding": axis(0).astype(np.float32), "match_count": 5, "as_of": SEAL, "emb_type": "pca"}
    assert store.researcher.gateway.rpc("match_signal_embeddings", **ask) == []
    announce(store.researcher, other, "2")
    with pytest.raises(StoreError, match="2 active versions of pca: name the data set in the filter"):
        store.researcher.gateway.rpc("match_signal_embeddings", **ask)
    store.researcher.save_embeddings([window(dataset), window(other, version="2")])
    assert len(nearest(store.researcher, dataset)) == 1
    assert len(nearest(store.researcher, other)) == 1


def test_a_search_without_a_time_or_a_sensible_count_is_refused(store: Store, dataset: Dataset) -> None:
    announce(store.researcher, dataset)
    for changes in ({"as_of": None}, {"match_count": 0}, {"match_count": 1001}, {"match_count": None}):
        ask = {"query_embedding": axis(0).astype(np.float32), "match_count": 5, "as_of": SEAL, "emb_type": "pca"} | changes
        with pytest.raises(StoreError, match=r"as_of is needed and match_count must be in 1\.\.1000"):
            store.researcher.gateway.rpc("match_signal_embeddings", **ask)
    with pytest.raises(StoreError, match="must carry its zone"):
        nearest(store.researcher, dataset, SEAL.replace(tzinfo=None))


def test_a_window_cannot_belong_to_one_data_set_and_a_version_of_another(store: Store, dataset: Dataset) -> None:
    other = store.service.import_dataset(build_panel(seed=1), name="other", source="a test", sealed_from=SEAL)
    announce(store.researcher, dataset)
    with pytest.raises(StoreConflictError, match="foreign key"):
        store.service.save_embeddings([window(other)])


def test_a_version_belongs_to_one_encoder_and_one_data_set(store: Store, dataset: Dataset) -> None:
    announce(store.researcher, dataset)
    announce(store.researcher, dataset)
    assert len(store.service.gateway.select("embedding_versions")) == 1
    again = {"emb_type": "pca", "emb_version": "1", "trained_until": utc(2020, 1, 2)}
    with pytest.raises(StoreConflictError, match="belongs to another encoder or data set"):
        store.researcher.register_embedding_version(dataset, encoder_sha256="b" * 64, **again)
    other = store.service.import_dataset(build_panel(seed=1), name="other", source="a test", sealed_from=SEAL)
    with pytest.raises(StoreConflictError, match="belongs to another encoder or data set"):
        store.researcher.register_embedding_version(other, encoder_sha256=SHA, **again)


def test_an_unknown_version_is_not_activated_and_the_old_one_stays(store: Store, dataset: Dataset) -> None:
    announce(store.researcher, dataset)
    with pytest.raises(StoreError, match="unknown embedding version 9 of pca"):
        store.researcher.activate_embedding_version("pca", "9")
    active = store.researcher.active_embedding_version(dataset, "pca")
    assert active is not None
    assert active["emb_version"] == "1"


def announce_two_windows(store: ResearchStore, dataset: Dataset) -> None:
    store.register_embedding_version(
        dataset,
        emb_type="pca",
        emb_version="2",
        encoder_sha256=SHA,
        trained_until=utc(2020, 1, 2),
        settings={"window": 2},
        n_windows=2,
    )


def test_a_version_that_lacks_windows_is_not_searched_and_cannot_be_switched_to(store: Store, dataset: Dataset) -> None:
    announce(store.researcher, dataset)
    old = window(dataset)
    store.researcher.save_embeddings([old])
    announce_two_windows(store.researcher, dataset)
    new = [window(dataset, day=n, version="2") for n in range(2)]
    for count, rows in ((0, []), (1, new[:1])):
        store.researcher.save_embeddings(rows)
        assert nearest(store.researcher, dataset) == [old["embedding_id"]]
        text = f"version 2 of pca is still building: {count} of its 2 windows are there; refresh it to the end first"
        for role in (store.researcher, store.service):
            with pytest.raises(StoreConflictError, match=text):
                role.activate_embedding_version("pca", "2")
        assert nearest(store.researcher, dataset) == [old["embedding_id"]]
    store.researcher.save_embeddings(new[1:])
    store.researcher.activate_embedding_version("pca", "2")
    assert set(nearest(store.researcher, dataset)) == {row["embedding_id"] for row in new}
    found = store.researcher.list_embedding_versions(dataset, "pca")
    assert [(row["emb_version"], row["status"], row["settings"], row["n_windows"]) for row in found] == [
        ("1", "retired", {}, None),
        ("2", "active", {"window": 2}, 2),
    ]


def test_what_was_archived_counts_towards_a_whole_version(store: Store, dataset: Dataset) -> None:
    announce_two_windows(store.researcher, dataset)
    store.researcher.save_embeddings([window(dataset, day=n, version="2", t_stat=n) for n in range(2)])
    assert prune(store.researcher, dataset, max_age_days=0)["archived"] == 1
    store.researcher.activate_embedding_version("pca", "2")
    assert len(nearest(store.researcher, dataset)) == 1
    assert store.researcher.list_windows("pca", "2") == {("AAA", START + DAY)}
    assert store.researcher.list_windows("pca", "2", archived=True) == {("AAA", START)}


def test_a_version_does_not_change_its_number_of_windows(store: Store, dataset: Dataset) -> None:
    announce_two_windows(store.researcher, dataset)
    announce_two_windows(store.researcher, dataset)
    with pytest.raises(StoreConflictError, match="was announced with 2 windows, now with None"):
        announce(store.researcher, dataset, "2")


@OVER_POSTGRES
def test_a_search_while_versions_are_switched_sees_one_of_them_whole(store: Store, dataset: Dataset) -> None:
    for version in ("1", "2"):
        announce(store.researcher, dataset, version)
        store.researcher.save_embeddings([window(dataset, day=n, version=version) for n in range(20)])
    of = {row["embedding_id"]: row["emb_version"] for row in stored(store)}

    def switch(number: int) -> None:
        for turn in range(30):
            store.service.activate_embedding_version("pca", str(1 + (turn + number) % 2))

    seen = set()
    with ThreadPoolExecutor(2) as pool:
        switching = [pool.submit(switch, number) for number in range(2)]
        while not all(future.done() for future in switching):
            (version,) = {of[id] for id in nearest(store.researcher, dataset, count=100)}
            seen.add(version)
    for future in switching:
        future.result()
    assert seen <= {"1", "2"}
    assert len([row for row in store.service.list_embedding_versions(dataset, "pca") if row["status"] == "active"]) == 1


# Search


@pytest.fixture
def clusters(store: Store, dataset: Dataset) -> tuple[list[Row], FloatArray]:
    """800 windows around 40 centres, of two regimes, spread over 40 days; and 25 queries near the centres."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((40, VECTOR_WIDTH))
    vectors = np.repeat(centres, 20, axis=0) + 0.4 * rng.standard_normal((800, VECTOR_WIDTH))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    days = rng.permutation(800) / 20
    rows = [
        window(dataset, vector, day=day, regime="calm" if n % 2 else "wild", label_after=1.0)
        for n, (vector, day) in enumerate(zip(vectors, days, strict=True))
    ]
    announce(store.service, dataset)
    store.service.save_embeddings(rows)
    return rows, centres[:25] + 0.4 * rng.standard_normal((25, VECTOR_WIDTH))


@pytest.mark.parametrize(
    ("as_of", "regime"),
    [(utc(2020, 6, 1), None), (utc(2020, 1, 15), None), (utc(2020, 2, 1), "wild")],
    ids=["all", "early", "wild"],
)
def test_search_finds_what_an_exact_search_finds(
    store: Store, dataset: Dataset, clusters: tuple[list[Row], FloatArray], as_of: datetime, regime: str | None
) -> None:
    rows, queries = clusters
    allowed = [row for row in rows if row["label_end"] < as_of and regime in (None, row["regime_tag"])]
    vectors = np.stack([row["embedding"] for row in allowed])
    hits = 0
    for query in queries:
        exact = np.argsort(-(vectors @ query) / np.linalg.norm(query))[:10]
        found = nearest(store.service, dataset, as_of, query, regime_tag=regime)
        assert len(found) == 10
        hits += len({allowed[n]["embedding_id"] for n in exact} & set(found))
    assert hits / (10 * len(queries)) >= 0.95


def test_neighbours_come_nearest_first(store: Store, dataset: Dataset, clusters: tuple[list[Row], FloatArray]) -> None:
    found = store.service.match_embeddings(clusters[1][0], count=50, as_of=utc(2030, 1, 1), emb_type="pca", dataset=dataset)
    distances = [neighbour.distance for neighbour in found]
    assert distances == sorted(distances)
    assert len(distances) == 50


# What goes in


@pytest.mark.parametrize(
    ("vector", "text"),
    [
        (np.zeros(128), r"`embedding` of `AAA` must have shape \(320,\), was \(128,\)"),
        (np.zeros((1, VECTOR_WIDTH)), r"`embedding` of `AAA` must have shape \(320,\), was \(1, 320\)"),
        (np.where(np.arange(VECTOR_WIDTH) == 7, np.nan, 1.0), "`embedding` of `AAA` must be finite, was nan at position 7"),
        (np.where(np.arange(VECTOR_WIDTH) == 9, -np.inf, 1.0), "`embedding` of `AAA` must be finite, was -inf at position 9"),
    ],
    ids=["narrow", "nested", "nan", "infinite"],
)
def test_a_vector_that_cannot_be_is_refused_by_name(store: Store, dataset: Dataset, vector: FloatArray, text: str) -> None:
    announce(store.researcher, dataset)
    with pytest.raises(ShapeError, match=text):
        store.researcher.save_embeddings([window(dataset, 1, symbol="BBB"), window(dataset, vector)])
    assert stored(store) == []
    with pytest.raises(ShapeError, match=text.replace("embedding` of `AAA", "vector")):
        store.researcher.match_embeddings(vector, count=1, as_of=SEAL, emb_type="pca", dataset=dataset)


@pytest.mark.parametrize(("vector", "text"), [("[1,2]", "expected 320 dimensions"), (f"[NaN{',0' * 319}]", "NaN not allowed")])
def test_the_database_itself_refuses_such_vectors(store: Store, dataset: Dataset, vector: str, text: str) -> None:
    announce(store.researcher, dataset)
    with pytest.raises(StoreError, match=text):
        store.service.gateway.insert("signal_embeddings", [window(dataset) | {"embedding": vector}])


def test_the_same_window_of_the_same_version_is_replaced(store: Store, dataset: Dataset) -> None:
    announce(store.researcher, dataset)
    first, second = window(dataset, 1, day=5), window(dataset, 2, day=5)
    del first["embedding_id"], second["embedding_id"]
    store.researcher.save_embeddings([first])
    store.researcher.save_embeddings([second])
    (row,) = stored(store)
    assert row["embedding"] == axis(2).tolist()


@pytest.mark.parametrize("missing", ["source", "regime", "window"])
def test_a_window_says_where_it_comes_from(store: Store, dataset: Dataset, missing: str) -> None:
    announce(store.researcher, dataset)
    meta = {name: "x" for name in ("source", "regime", "window") if name != missing}
    with pytest.raises(StoreError, match="check constraint"):
        store.researcher.save_embeddings([window(dataset, meta=meta)])


# Announcements


def listen(owner: psycopg.Connection, channel: str, act: Callable[[], Any], messages: int = 1) -> list[Any]:
    owner.execute(f"listen {channel}")
    act()
    heard = list(owner.notifies(timeout=5.0, stop_after=messages))
    assert all(len(message.payload.encode()) < 8000 for message in heard)
    return [json.loads(message.payload) for message in heard]


def test_a_wide_vector_with_much_meta_is_stored_and_announced_by_its_id(
    store: Store, dataset: Dataset, owner: psycopg.Connection
) -> None:
    announce(store.researcher, dataset)
    row = window(dataset, np.random.default_rng(0).standard_normal(VECTOR_WIDTH))
    row["meta"] |= {"notes": "x" * 100_000}
    heard = listen(owner, "signal_embeddings", lambda: store.researcher.save_embeddings([row]))
    assert heard == [{"count": 1, "ids": [str(row["embedding_id"])]}]
    assert len(stored(store)[0]["meta"]["notes"]) == 100_000


@pytest.mark.parametrize("column", ["meta", "label"])
def test_more_json_than_a_column_holds_is_refused_by_its_name_with_the_whole_batch(
    store: Store, dataset: Dataset, column: str
) -> None:
    announce(store.researcher, dataset)
    good, large = window(dataset), window(dataset, day=1)
    large[column] = large[column] | {"notes": "x" * 2**20}
    with pytest.raises(StoreError, match=f"signal_embeddings_{column}_fits"):
        store.researcher.save_embeddings([good, large])
    assert stored(store) == []


@pytest.mark.parametrize("n", [100, 101, 500])
def test_many_windows_are_one_message_that_fits(store: Store, dataset: Dataset, owner: psycopg.Connection, n: int) -> None:
    announce(store.researcher, dataset)
    rows = [window(dataset, day=day / 100) for day in range(n)]
    (heard,) = listen(owner, "signal_embeddings", lambda: store.researcher.save_embeddings(rows))
    assert heard["count"] == n
    assert heard["ids"] is None if n > 100 else set(heard["ids"]) == {str(row["embedding_id"]) for row in rows}


def test_a_replaced_window_is_announced_too(store: Store, dataset: Dataset, owner: psycopg.Connection) -> None:
    announce(store.researcher, dataset)
    row = window(dataset)
    store.researcher.save_embeddings([row])
    heard = listen(owner, "signal_embeddings", lambda: store.researcher.save_embeddings([row | {"regime_tag": "wild"}]))
    assert heard == [{"count": 1, "ids": [str(row["embedding_id"])]}]


def test_a_job_is_announced_by_its_id(store: Store, dataset: Dataset, owner: psycopg.Connection) -> None:
    jobs: list[UUID] = []
    heard = listen(owner, "embedding_jobs", lambda: jobs.append(store.researcher.request_refresh(request(dataset))))
    assert heard == [{"count": 1, "ids": [str(jobs[0])]}]


# Jobs


def request(dataset: Dataset, number: int = 0) -> Row:
    return {"dataset_id": str(dataset.dataset_id), "windows": {"window": 128, "stride": 5}, "metadata": {"number": number}}


def test_a_request_becomes_a_job_that_is_claimed_done_and_gone(store: Store, dataset: Dataset) -> None:
    job_id = store.researcher.request_refresh(request(dataset, 7))
    (job,) = store.researcher.claim_jobs(5)
    assert (job.job_id, job.dataset_id, job.asset_symbol, job.attempts) == (job_id, dataset.dataset_id, None, 1)
    assert (job.windows, job.metadata) == ({"window": 128, "stride": 5}, {"number": 7})
    assert store.researcher.claim_jobs(5) == []
    assert store.researcher.finish_job(job, result={"windows": 3})
    failed = store.researcher.request_refresh(request(dataset, 8))
    (other,) = store.researcher.claim_jobs()
    assert store.researcher.finish_job(other, error="too short")
    found = [store.researcher.get_job(number) for number in (job_id, failed)]
    assert [(job.status, job.result, job.error) for job in found] == [
        ("done", {"windows": 3}, None),
        ("failed", None, "too short"),
    ]
    with pytest.raises(MissingDataError, match="there is no embedding job"):
        store.researcher.get_job(NOBODY)


def test_of_eight_workers_each_job_goes_to_one(store: Store, dataset: Dataset) -> None:
    wanted = [store.service.request_refresh(request(dataset, number)) for number in range(60)]

    def work(number: int) -> list[UUID]:
        mine: list[UUID] = []
        while jobs := store.service.claim_jobs(1 + number % 3):
            assert len(jobs) <= 1 + number % 3
            mine += [job.job_id for job in jobs]
        return mine

    with ThreadPoolExecutor(8) as pool:
        taken = [job_id for mine in pool.map(work, range(8)) for job_id in mine]
    assert sorted(taken) == sorted(wanted)


@OVER_POSTGRES
def test_a_worker_does_not_wait_for_another(store: Store, dataset: Dataset, owner: psycopg.Connection) -> None:
    wanted = [store.service.request_refresh(request(dataset, number)) for number in range(2)]
    owner.execute("set lock_timeout = '5s'")
    with store.service.gateway.connection() as connection, connection.transaction():  # type: ignore[attr-defined]
        first = connection.execute("select job_id from claim_embedding_jobs(1)").fetchone()
        second = owner.execute("select job_id from claim_embedding_jobs(5)").fetchall()
    assert (first, second) == ({"job_id": wanted[0]}, [(wanted[1],)])


def test_older_jobs_go_first(store: Store, dataset: Dataset) -> None:
    wanted = [store.service.request_refresh(request(dataset, number)) for number in range(3)]
    assert [store.service.claim_jobs()[0].job_id for _ in range(3)] == wanted


EXPIRE = "update embedding_jobs set lease_until = now() - interval '1 second'"


def test_a_job_whose_worker_vanished_comes_back_up_to_five_times_and_then_says_so(
    store: Store, dataset: Dataset, owner: psycopg.Connection
) -> None:
    job_id = store.service.request_refresh(request(dataset))
    attempts = []
    for number in range(7):
        attempts += [job.attempts for job in store.researcher.claim_jobs(worker=f"w{number}")]
        assert store.researcher.claim_jobs(worker="another") == []
        owner.execute(EXPIRE)
    assert attempts == [1, 2, 3, 4, 5]
    job = store.researcher.get_job(job_id)
    assert (job.status, job.error) == ("failed", "its workers vanished 5 times, the last was w4")


def test_a_lease_lasts_as_long_as_was_asked_and_a_renewal_begins_it_anew(
    store: Store, dataset: Dataset, owner: psycopg.Connection
) -> None:
    store.researcher.request_refresh(request(dataset))
    (job,) = store.researcher.claim_jobs(lease_seconds=600)
    left = "select extract(epoch from lease_until - now())::float8 from embedding_jobs"
    row = owner.execute(left).fetchone()
    assert row is not None and 500 < row[0] <= 600
    owner.execute("update embedding_jobs set lease_until = now() + interval '1 second'")
    assert store.researcher.renew_job(job, lease_seconds=300)
    row = owner.execute(left).fetchone()
    assert row is not None and 200 < row[0] <= 300
    assert store.researcher.claim_jobs() == []


def test_a_worker_that_was_thought_dead_can_neither_keep_nor_close_the_job_of_the_next(
    store: Store, dataset: Dataset, owner: psycopg.Connection
) -> None:
    job_id = store.researcher.request_refresh(request(dataset))
    (late,) = store.researcher.claim_jobs(worker="late")
    owner.execute(EXPIRE)
    (job,) = store.researcher.claim_jobs(worker="next")
    assert not store.researcher.renew_job(late)
    assert not store.researcher.release_job(late)
    assert not store.researcher.finish_job(late, error="mine")
    assert (store.researcher.get_job(job_id).status, store.researcher.get_job(job_id).attempts) == ("running", 2)
    assert store.researcher.finish_job(job)
    assert not store.researcher.finish_job(job, error="twice")
    assert store.researcher.get_job(job_id).status == "done"


def test_a_job_that_is_given_back_goes_to_the_next_at_once_and_counts_no_attempt(store: Store, dataset: Dataset) -> None:
    job_id = store.researcher.request_refresh(request(dataset))
    for _ in range(7):
        (job,) = store.researcher.claim_jobs()
        assert (job.job_id, job.attempts) == (job_id, 1)
        assert store.researcher.release_job(job)


def test_a_job_that_is_wanted_goes_back_to_its_own_worker_and_to_no_other(store: Store, dataset: Dataset) -> None:
    other, mine = (store.researcher.request_refresh(request(dataset, number)) for number in range(2))
    claim = store.researcher.claim_jobs
    assert [job.job_id for job in claim(worker="run 1", wanted=mine)] == [mine]
    assert claim(worker="run 2", wanted=mine) == []
    assert [(job.job_id, job.attempts) for job in claim(worker="run 1", wanted=mine)] == [(mine, 2)]
    assert [job.job_id for job in claim(5, worker="run 1")] == [other]
    assert claim(5, worker="run 1") == []


def test_a_request_with_an_id_of_its_own_is_made_once(store: Store, dataset: Dataset) -> None:
    wanted = uuid4()
    for number in range(3):
        assert store.researcher.request_refresh({**request(dataset, number), "job_id": str(wanted)}) == wanted
    (job,) = store.researcher.claim_jobs(5)
    assert (job.job_id, job.metadata) == (wanted, {"number": 0})


# Clusters


def test_the_score_of_a_cluster_by_hand(store: Store, dataset: Dataset) -> None:
    announce(store.researcher, dataset)
    members = [window(dataset, 0, day=1, forward_return=0.01), window(dataset, 1, day=2, forward_return=0.03)]
    others = [window(dataset, 2, day=3), window(dataset, axis(0, -1.0), day=4)]
    announce(store.researcher, dataset, "2", activate=False)
    elsewhere = window(dataset, 0, day=1, version="2", forward_return=9.0)
    store.researcher.save_embeddings([*members, *others, elsewhere])
    score = store.researcher.score_cluster([row["embedding_id"] for row in members])
    root = math.sqrt(0.5)
    assert score["n"] == 2
    assert score["cohesion"] == pytest.approx(root, abs=1e-6)
    assert score["separation"] == pytest.approx(root - (0.0 - root) / 2.0, abs=1e-6)
    assert score["mean_label"] == pytest.approx(0.02)
    assert score["label_t_stat"] == pytest.approx(2.0)


def test_the_score_of_one_window_and_of_none(store: Store, dataset: Dataset) -> None:
    announce(store.researcher, dataset)
    row = window(dataset, 0, forward_return=0.04)
    store.researcher.save_embeddings([row])
    one = store.researcher.score_cluster([row["embedding_id"]])
    assert (one["n"], one["mean_label"], one["label_t_stat"], one["separation"]) == (1, 0.04, None, None)
    assert one["cohesion"] == pytest.approx(1.0)
    none = store.researcher.score_cluster([NOBODY])
    assert (none["n"], none["cohesion"], none["mean_label"]) == (0, None, None)


# Pruning

PRUNE = {"max_age_days": 10, "min_t_stat": 1.0, "regime_diversity": 1, "asset_universe": ["AAA"], "dry_run": False}


def prune(store: ResearchStore, dataset: Dataset, **changes: Any) -> Any:
    return store.prune_vectors(dataset, **(PRUNE | changes))


def symbols_left(store: Store) -> list[tuple[str, float]]:
    return sorted((row["asset_symbol"], row["label"]["t_stat"]) for row in stored(store))


@pytest.fixture
def kinds(store: Store, dataset: Dataset) -> dict[str, Row]:
    """One window of every kind beside a new, strong one; the newest ends on day 30, so that old is before day 20."""
    announce(store.service, dataset)
    rows = {
        "newest": window(dataset, day=30, t_stat=9.0),
        "old and weak": window(dataset, day=19, t_stat=0.5),
        "old, weak on the other side": window(dataset, day=18, t_stat=-0.99),
        "old and strong": window(dataset, day=17, t_stat=-1.5),
        "at the age, weak": window(dataset, day=20, t_stat=0.5),
        "new and weak": window(dataset, day=29, t_stat=0.0),
        "at the strength, old": window(dataset, day=5, t_stat=1.0),
        "old without a label": window(dataset, day=4, label={}, label_after=None),
        "outside, new and strong": window(dataset, day=30, t_stat=5.0, symbol="BBB"),
        "outside, old and weak": window(dataset, day=2, t_stat=0.1, symbol="CCC"),
    }
    store.service.save_embeddings(list(rows.values()))
    return rows


LEAVING = {"old and weak", "old, weak on the other side", "old without a label"}
OUTSIDE = {"outside, new and strong", "outside, old and weak"}


def names(kinds: dict[str, Row], rows: list[Row]) -> set[str]:
    by_id = {row["embedding_id"]: name for name, row in kinds.items()}
    return {by_id[row["embedding_id"]] for row in rows}


def test_only_what_is_old_and_weak_or_outside_the_universe_goes(store: Store, dataset: Dataset, kinds: dict[str, Row]) -> None:
    result = prune(store.researcher, dataset)
    assert names(kinds, stored(store, "signal_embeddings_archive")) == LEAVING | OUTSIDE
    assert names(kinds, stored(store)) == set(kinds) - LEAVING - OUTSIDE
    assert result == {
        "dry_run": False,
        "examined": 10,
        "selected": 5,
        "archived": 5,
        "reasons": {"old_and_weak": 3, "outside_universe": 2},
    }
    reasons = {row["embedding_id"]: row["archive_reason"] for row in stored(store, "signal_embeddings_archive")}
    assert {reasons[kinds[name]["embedding_id"]] for name in OUTSIDE} == {"outside_universe"}
    assert {reasons[kinds[name]["embedding_id"]] for name in LEAVING} == {"old_and_weak"}


def test_without_a_universe_nothing_is_outside(store: Store, dataset: Dataset, kinds: dict[str, Row]) -> None:
    assert prune(store.researcher, dataset, asset_universe=None)["reasons"] == {"old_and_weak": 4}
    assert "outside, new and strong" in names(kinds, stored(store))


def test_a_dry_run_says_the_same_and_changes_nothing(store: Store, dataset: Dataset, kinds: dict[str, Row]) -> None:
    before = stored(store)
    dry = prune(store.researcher, dataset, dry_run=True)
    assert stored(store) == before
    assert stored(store, "signal_embeddings_archive") == []
    assert (dry["dry_run"], dry["archived"]) == (True, 0)
    wet = prune(store.researcher, dataset)
    assert {name: dry[name] for name in ("examined", "selected", "reasons")} == {
        name: wet[name] for name in ("examined", "selected", "reasons")
    }
    assert wet["archived"] == dry["selected"]


@pytest.mark.parametrize("diversity", [1, 4, 9, 50])
def test_the_strongest_windows_of_each_regime_stay(store: Store, dataset: Dataset, diversity: int) -> None:
    announce(store.service, dataset)
    anchor = window(dataset, day=50, regime="now", t_stat=9.0)
    weak = [window(dataset, day=n, regime=regime, t_stat=n / 100) for regime in ("calm", "wild") for n in range(9)]
    for n, row in enumerate(weak):
        row["asset_symbol"] = f"S{n}"
    store.service.save_embeddings([anchor, *weak])
    prune(store.researcher, dataset, regime_diversity=diversity, asset_universe=None)
    for regime in ("calm", "wild"):
        left = [row["label"]["t_stat"] for row in stored(store) if row["regime_tag"] == regime]
        assert sorted(left, reverse=True) == [n / 100 for n in range(8, 8 - min(diversity, 9), -1)]


def test_windows_outside_the_universe_take_no_place_of_those_inside(store: Store, dataset: Dataset) -> None:
    announce(store.service, dataset)
    anchor = window(dataset, day=50, regime="now", t_stat=9.0)
    inside = [window(dataset, day=n, t_stat=n / 10) for n in range(4)]
    outside = [window(dataset, day=n, t_stat=8.0, symbol="ZZZ") for n in range(4)]
    store.service.save_embeddings([anchor, *inside, *outside])
    prune(store.researcher, dataset, regime_diversity=2)
    assert symbols_left(store) == [("AAA", 0.2), ("AAA", 0.3), ("AAA", 9.0)]


def test_the_last_windows_of_a_regime_stay_even_outside_the_universe(store: Store, dataset: Dataset) -> None:
    announce(store.service, dataset)
    anchor = window(dataset, day=50, regime="now", t_stat=9.0)
    crash = [window(dataset, day=n, t_stat=float(n), symbol="ZZZ", regime="crash") for n in range(5)]
    store.service.save_embeddings([anchor, *crash])
    prune(store.researcher, dataset, regime_diversity=2)
    assert symbols_left(store) == [("AAA", 9.0), ("ZZZ", 3.0), ("ZZZ", 4.0)]


def test_pruning_one_data_set_leaves_the_others_alone(store: Store, dataset: Dataset, kinds: dict[str, Row]) -> None:
    other = store.service.import_dataset(build_panel(seed=1), name="other", source="a test", sealed_from=SEAL)
    announce(store.service, other, "2")
    theirs = [window(other, version="2", symbol="ZZZ", day=n) for n in range(5)]
    store.service.save_embeddings(theirs)
    prune(store.researcher, dataset)
    left = {row["embedding_id"] for row in stored(store)}
    assert {row["embedding_id"] for row in theirs} <= left


def test_what_was_archived_comes_back_as_it_was(store: Store, dataset: Dataset, kinds: dict[str, Row]) -> None:
    before = stored(store)
    prune(store.researcher, dataset)
    gone = [row["embedding_id"] for row in stored(store, "signal_embeddings_archive")]
    assert sorted(store.service.list_archived(dataset)) == gone
    assert store.service.restore_vectors([*gone[1:], NOBODY]) == 4
    assert store.service.list_archived(dataset) == gone[:1]
    assert store.service.restore_vectors(gone) == 1
    assert stored(store) == before
    assert stored(store, "signal_embeddings_archive") == []
    prune(store.researcher, dataset)
    assert len(stored(store, "signal_embeddings_archive")) == 5


def test_a_window_encoded_again_meanwhile_keeps_its_archive(store: Store, dataset: Dataset, kinds: dict[str, Row]) -> None:
    prune(store.researcher, dataset)
    again = kinds["old and weak"]
    store.service.save_embeddings([again | {"embedding_id": uuid4()}])
    with pytest.raises(StoreConflictError, match="already exists"):
        store.service.restore_vectors(store.service.list_archived(dataset))
    assert len(stored(store, "signal_embeddings_archive")) == 5


def test_only_the_framework_restores(store: Store, dataset: Dataset) -> None:
    with pytest.raises(StoreError, match="permission denied for function restore_vectors"):
        store.researcher.restore_vectors([NOBODY])


@pytest.mark.parametrize(
    "changes",
    [
        {"max_age_days": -1},
        {"min_t_stat": -0.1},
        {"min_t_stat": math.nan},
        {"min_t_stat": math.inf},
        {"regime_diversity": 0},
        {"max_age_days": None},
        {"dry_run": None},
    ],
)
def test_pruning_by_senseless_limits_is_refused(
    store: Store, dataset: Dataset, kinds: dict[str, Row], changes: dict[str, Any]
) -> None:
    with pytest.raises(StoreError, match="max_age_days must be at least 0"):
        prune(store.researcher, dataset, **changes)
    assert len(stored(store)) == 10
