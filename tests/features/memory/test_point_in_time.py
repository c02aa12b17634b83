"""No neighbour whose label ended at or after the time asked about: 10,000 random queries, stamps that are equal on purpose."""

import json
from datetime import timedelta
from uuid import UUID, uuid4

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.range import Range

from core.store.opening import Store
from core.store.records import VECTOR_WIDTH, Dataset
from features.memory import EMB_TYPE
from tests.features.memory.worlds import build_prices, land

N_WINDOWS, N_QUERIES, N_BATCHES = 240, 200, 50
HOUR, TICK = timedelta(hours=1), timedelta(microseconds=1)
START = build_prices().index[0].to_pydatetime()
BATCH = """
select q.ordinal, m.embedding_id, m.label_end
from unnest(%s::timestamptz[], %s::vector[]) with ordinality as q (as_of, query, ordinal)
cross join lateral match_signal_embeddings(q.query, 8, q.as_of, %s, %s) m
"""


@pytest.fixture
def dataset(store: Store) -> Dataset:
    return land(store)


def test_ten_thousand_random_queries_find_no_outcome_that_was_not_known(
    store: Store, dataset: Dataset, owner: psycopg.Connection
) -> None:
    rng = np.random.default_rng(0)
    # 240 windows whose labels end at only 12 moments, some of them at the very end of another window.
    ends = rng.integers(1, 12, N_WINDOWS)
    label_ends = ends + rng.integers(1, 4, N_WINDOWS)
    vectors = rng.standard_normal((N_WINDOWS, VECTOR_WIDTH))
    store.service.register_embedding_version(
        dataset, emb_type=EMB_TYPE, emb_version="1", encoder_sha256="a" * 64, trained_until=START
    )
    known: dict[UUID, int] = {}
    rows = []
    for n in range(N_WINDOWS):
        row = {
            "embedding_id": uuid4(),
            "dataset_id": dataset.dataset_id,
            "asset_symbol": f"S{n}",
            "time_range": Range(START, START + int(ends[n]) * HOUR, "[]"),
            "embedding": vectors[n].astype(np.float32),
            "emb_type": EMB_TYPE,
            "emb_version": "1",
            "regime_tag": "calm_up",
            "label": {"forward_return": 0.0},
            "label_end": START + int(label_ends[n]) * HOUR,
            "meta": {"source": "small", "regime": "calm_up", "window": 2},
        }
        known[row["embedding_id"]] = int(label_ends[n])
        rows.append(row)
    store.service.save_embeddings(rows)
    store.service.activate_embedding_version(EMB_TYPE, "1")
    owner.execute("set search_path to public, extensions")
    asked = 0

    @settings(max_examples=N_BATCHES, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.lists(st.integers(0, 16), min_size=N_QUERIES, max_size=N_QUERIES),
        st.lists(st.sampled_from((-TICK, 0 * TICK, TICK, HOUR / 2)), min_size=N_QUERIES, max_size=N_QUERIES),
        st.integers(0, 2**32 - 1),
    )
    def check(hours: list[int], offsets: list[timedelta], seed: int) -> None:
        nonlocal asked
        chance = np.random.default_rng(seed)
        near = vectors[chance.integers(N_WINDOWS, size=N_QUERIES)] + 0.1 * chance.standard_normal((N_QUERIES, VECTOR_WIDTH))
        as_of = [START + hour * HOUR + offset for hour, offset in zip(hours, offsets, strict=True)]
        queries = ["[" + ",".join(f"{value:.3f}" for value in vector) + "]" for vector in near]
        condition = json.dumps({"dataset_id": str(dataset.dataset_id)})
        found: dict[int, int] = dict.fromkeys(range(N_QUERIES), 0)
        for ordinal, embedding_id, label_end in owner.execute(BATCH, [as_of, queries, EMB_TYPE, condition]):
            assert label_end == START + known[embedding_id] * HOUR
            assert label_end < as_of[ordinal - 1]
            found[ordinal - 1] += 1
        for query, moment in enumerate(as_of):
            n_allowed = sum(START + hour * HOUR < moment for hour in known.values())
            assert found[query] == min(8, n_allowed)
        asked += N_QUERIES

    check()
    assert asked >= 10_000
