from datetime import timedelta
from uuid import uuid4

import numpy as np
import pytest
from psycopg.types.range import Range
from scipy.stats import spearmanr

from core.errors import MissingDataError, StoreConflictError
from core.store.gateway import Row
from core.store.opening import Store
from core.store.records import VECTOR_WIDTH, Dataset
from features.memory import EMB_TYPE, compare_versions, switch_version
from tests.features.memory.worlds import build_prices, land

N, K = 300, 4
DAY = timedelta(days=1)


@pytest.fixture
def dataset(store: Store) -> Dataset:
    return land(store)


def outcomes() -> np.ndarray:
    return np.random.default_rng(5).standard_normal(N)


def save(store: Store, dataset: Dataset, version: str, vectors: np.ndarray, days: np.ndarray | None = None) -> None:
    """Windows of one symbol or another; the label of window n ends 3 days after it."""
    start = build_prices().index[0].to_pydatetime()
    days = np.arange(len(vectors)) if days is None else days
    store.service.register_embedding_version(
        dataset,
        emb_type=EMB_TYPE,
        emb_version=version,
        encoder_sha256="a" * 64,
        trained_until=start,
        n_windows=len(vectors),
    )
    own = outcomes()
    rows: list[Row] = [
        {
            "embedding_id": uuid4(),
            "dataset_id": dataset.dataset_id,
            "asset_symbol": ("AAA", "BBB")[int(day) % 2],
            "time_range": Range(start + int(day) // 2 * DAY, start + (int(day) // 2 + 10) * DAY, "[]"),
            "embedding": vector.astype(np.float32),
            "emb_type": EMB_TYPE,
            "emb_version": version,
            "regime_tag": "calm_up",
            "label": {"forward_return": float(own[int(day)]), "t_stat": 0.0},
            "label_end": start + (int(day) // 2 + 13) * DAY,
            "meta": {"source": "small", "regime": "calm_up", "window": 11},
        }
        for day, vector in zip(days, vectors, strict=True)
    ]
    store.service.save_embeddings(rows)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((N, VECTOR_WIDTH))


def telling() -> np.ndarray:
    """Vectors whose direction is the outcome, so that neighbours have nearly the same."""
    angle = outcomes() / 4.0
    return np.stack([np.cos(angle), np.sin(angle), *np.zeros((VECTOR_WIDTH - 2, N))], axis=1)


def test_the_figures_are_those_of_a_search_written_plainly(store: Store, dataset: Dataset) -> None:
    vectors = (noise(0), 0.7 * noise(0) + noise(1))
    for version, part in zip(("one", "two"), vectors, strict=True):
        save(store, dataset, version, part)
    result = compare_versions(store.service, dataset, "one", "two", k=K, max_queries=N)
    own = outcomes()
    ends = np.arange(N) // 2
    shared, means, kept = [], [], []
    for query in range(N):
        past = [n for n in range(N) if ends[n] + 3 < ends[query]]
        if len(past) < K:
            continue
        found = []
        for part in vectors:
            unit = (part / np.linalg.norm(part, axis=1, keepdims=True)).astype(np.float32)
            found.append(set(sorted(past, key=lambda n: -float(unit[n] @ unit[query]))[:K]))
        shared.append(len(found[0] & found[1]) / K)
        means.append([own[sorted(names)].mean() for names in found])
        kept.append(query)
    assert (result.n_common, result.n_queries) == (N, len(kept))
    assert result.overlap == pytest.approx(np.mean(shared))
    for position in range(2):
        expected = spearmanr([mean[position] for mean in means], own[kept]).statistic
        assert result.rank_ic[position] == pytest.approx(expected)
        assert result.lift[position] == pytest.approx(expected - result.random_ic)
    assert 0.02 < result.random_spread < 0.12, "one over the root of 290 queries is 0.06"


def test_a_version_is_like_itself_and_one_of_chance_is_like_no_other(store: Store, dataset: Dataset) -> None:
    save(store, dataset, "noise", noise(0))
    save(store, dataset, "same", 3.0 * noise(0))
    save(store, dataset, "other", noise(2))
    save(store, dataset, "telling", telling())
    same = compare_versions(store.service, dataset, "noise", "same", k=K)
    assert same.overlap == 1.0 and same.lift[0] == same.lift[1]
    other = compare_versions(store.service, dataset, "noise", "other", k=K)
    assert other.overlap == pytest.approx(other.chance_overlap, abs=0.05)
    assert abs(other.lift[0]) < 5 * other.random_spread
    told = compare_versions(store.service, dataset, "noise", "telling", k=K)
    assert told.lift[1] > 0.8 > 5 * told.random_spread
    assert compare_versions(store.service, dataset, "noise", "telling", k=K) == told
    few = compare_versions(store.service, dataset, "noise", "telling", k=K, max_queries=50, rng=np.random.default_rng(1))
    assert (few.n_queries, few.n_common) == (50, N)


def test_only_windows_that_both_versions_have_are_compared(store: Store, dataset: Dataset) -> None:
    save(store, dataset, "every", noise(0))
    thirds = np.arange(0, N, 3)
    save(store, dataset, "third", noise(0)[thirds], thirds)
    result = compare_versions(store.service, dataset, "every", "third", k=K)
    assert (result.n_common, result.overlap) == (100, 1.0)


def test_an_empty_store_an_unknown_version_and_too_few_windows_say_so(store: Store, dataset: Dataset) -> None:
    with pytest.raises(MissingDataError, match="there is no version 'one' of small; it has none yet"):
        compare_versions(store.service, dataset, "one", "two")
    save(store, dataset, "one", noise(0)[:30])
    save(store, dataset, "two", noise(0)[:30])
    with pytest.raises(MissingDataError, match="there is no version 'three' of small; it has one, two"):
        switch_version(store.service, dataset, "three")
    with pytest.raises(MissingDataError, match="not enough history: of the 30 windows that both versions have, 20 have a"):
        compare_versions(store.service, dataset, "one", "two", k=K)


def test_a_switch_goes_there_and_back_but_not_to_what_is_still_building(store: Store, dataset: Dataset) -> None:
    for version in ("one", "two"):
        save(store, dataset, version, noise(0)[:5])
    assert switch_version(store.researcher, dataset, "one") is None
    assert switch_version(store.researcher, dataset, "two") == "one"
    assert switch_version(store.researcher, dataset, "one") == "two"
    store.service.gateway.delete("signal_embeddings", where={"emb_version": "two", "asset_symbol": "BBB"})
    with pytest.raises(StoreConflictError, match="version two of window is still building: 3 of its 5 windows"):
        switch_version(store.researcher, dataset, "two")
    active = store.researcher.active_embedding_version(dataset, EMB_TYPE)
    assert active is not None and active["emb_version"] == "one"
