"""Time the store against psycopg's own ways and plain vectors, in one run: ``python -m benchmarks.store [--json]``.

All on an embedded server of its own. Rows are those of `signal_embeddings` (320 floats, a range, JSON, text) in a table with
its unique key and without its HNSW index, which takes the same time whatever writes the rows; and of `market_bars`. Bars are
what is appended; for embeddings the same ratio is printed, where storing 1.4 kB a row, which both ways do alike, leaves less to
gain. The contestants take turns, so that a slow moment of the machine hits all; ratios are of the best rounds. Recall is on
clustered vectors, against exact search, with the index parameters of the schema. Queries a second are the server's: all vectors
are asked in one statement, because a single client mostly measures itself.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb
from psycopg.types.range import Range

from benchmarks.backtest import cpu_model, time_call
from core.market import load_dataset
from core.settings import Settings
from core.store import open_store
from core.store.gateway import Row
from core.store.postgres import PostgresGateway

WIDTH, N_ROWS, N_BARS, N_SINGLE, ROUNDS = 320, 5_000, 20_000, 500, 4
N_VECTORS, N_CLUSTERS, N_QUERIES, EF = 100_000, 1_000, 200, 40
GOALS = {
    "upsert_over_executemany": 1.5,
    "upsert_over_row_by_row": 10.0,
    "append_bars_over_executemany": 4.0,
    "halfvec_recall_at_10": 0.98,
    "halfvec_over_vector_qps": 1.2,
}
PANEL_GOAL_SECONDS = 0.5

_TABLE = "create table {} (like signal_embeddings including defaults, unique (asset_symbol, time_range, emb_type, emb_version))"
_INSERT = (
    "insert into {} (dataset_id, asset_symbol, time_range, embedding, emb_type, emb_version, regime_tag, label, label_end, "
    "meta) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)
_UPSERT = (
    _INSERT + " on conflict (asset_symbol, time_range, emb_type, emb_version) do update set dataset_id = excluded.dataset_id, "
    "embedding = excluded.embedding, regime_tag = excluded.regime_tag, label = excluded.label, label_end = excluded.label_end, "
    "meta = excluded.meta"
)
_INSERT_BAR = "insert into {} values (%s, %s, %s, %s, %s, %s, %s, %s)"
_HNSW = "(m = 16, ef_construction = 128)"
_KEY = ("asset_symbol", "time_range", "emb_type", "emb_version")


def build_rows(n: int, rng: np.random.Generator) -> list[Row]:
    """Return window embeddings as the framework writes them."""
    start = datetime(2000, 1, 1, tzinfo=UTC)
    vectors = rng.standard_normal((n, WIDTH)).astype(np.float32)
    return [
        {
            "dataset_id": UUID(int=1),
            "asset_symbol": f"S{i % 20:02d}",
            "time_range": Range(start + timedelta(days=i), start + timedelta(days=i + 128), "[]"),
            "embedding": vectors[i],
            "emb_type": "pca",
            "emb_version": "1",
            "regime_tag": "calm",
            "label": {"forward_return": 0.01},
            "label_end": start + timedelta(days=i + 133),
            "meta": {"source": "benchmark", "regime": "calm", "window": 128},
        }
        for i in range(n)
    ]


def build_bars(n: int) -> list[Row]:
    """Return rows as `market_bars` has them."""
    start = datetime(2000, 1, 1, tzinfo=UTC)
    prices = {"open": 10.0, "high": 10.5, "low": 9.5, "close": 10.25, "volume": 1e6}
    return [
        {"dataset_id": UUID(int=1), "symbol": f"S{i % 20:02d}", "ts": start + timedelta(days=i), **prices} for i in range(n)
    ]


def time_writes(gateway: PostgresGateway, conninfo: str, rng: np.random.Generator) -> dict[str, float]:
    """Return rows a second of each way of writing, the best of the rounds."""
    rows = build_rows(N_ROWS, rng)
    plain = [tuple(Jsonb(value) if isinstance(value, dict) else value for value in row.values()) for row in rows]
    bars = build_bars(N_BARS)
    plain_bars = [tuple(bar.values()) for bar in bars]
    best: dict[str, float] = {}
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("set search_path to public, extensions")
        register_vector(connection)

        def row_by_row(table: str) -> None:
            for row in plain[:N_SINGLE]:
                connection.execute(_UPSERT.format(table), row)  # type: ignore[arg-type]

        def executemany(table: str, statement: str, values: list[tuple[Any, ...]]) -> None:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(statement.format(table), values)  # type: ignore[arg-type]

        ways: dict[str, tuple[int, Callable[[str], Any]]] = {
            "upsert_row_by_row": (N_SINGLE, row_by_row),
            "upsert_executemany": (N_ROWS, lambda table: executemany(table, _UPSERT, plain)),
            "upsert_ours": (N_ROWS, lambda table: gateway.upsert(table, rows, on_conflict=_KEY)),
            "append_executemany": (N_ROWS, lambda table: executemany(table, _INSERT, plain)),
            "append_ours": (N_ROWS, lambda table: gateway.upsert(table, rows, on_conflict=())),
            "append_bars_executemany": (N_BARS, lambda table: executemany(table, _INSERT_BAR, plain_bars)),
            "append_bars_ours": (N_BARS, lambda table: gateway.upsert(table, bars, on_conflict=())),
        }
        for turn in range(ROUNDS):
            for name, (n, way) in ways.items():
                table = f"{name}_{turn}"
                # Appending is to a table without a key, as bars and events are appended in order.
                like = "market_bars" if "bars" in name else "signal_embeddings"
                create = _TABLE if name.startswith("upsert") else "create table {} (like {} including defaults)"
                connection.execute(create.format(table, like))  # type: ignore[arg-type]
                connection.execute(f"grant all on {table} to service_role")  # type: ignore[arg-type]
                gateway.select(table, limit=1)
                gateway.upsert(
                    table, (bars if "bars" in name else rows)[:1], on_conflict=_KEY if name.startswith("upsert") else ()
                )
                connection.execute(f"truncate {table}")  # type: ignore[arg-type]
                seconds, _ = time_call(lambda way=way, table=table: way(table))  # type: ignore[misc]
                best[name] = max(best.get(name, 0.0), n / seconds)
                connection.execute(f"drop table {table}")  # type: ignore[arg-type]
    return best


def clustered(n: int, rng: np.random.Generator, centres: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return vectors around centres, as windows of markets lie; on independent noise no index finds anything."""
    return (centres[rng.integers(len(centres), size=n)] + 0.35 * rng.standard_normal((n, WIDTH))).astype(np.float32)


def time_searches(conninfo: str, rng: np.random.Generator, n_vectors: int) -> dict[str, float]:
    """Return queries a second and recall@10 of HNSW over halfvec and over vector."""
    centres = rng.standard_normal((N_CLUSTERS, WIDTH))
    stored, asked = clustered(n_vectors, rng, centres), clustered(N_QUERIES, rng, centres)
    unit = stored / np.linalg.norm(stored, axis=1, keepdims=True)
    exact = np.argsort(-(asked @ unit.T), axis=1)[:, :10]
    found: dict[str, float] = {}
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("set search_path to public, extensions")
        register_vector(connection)
        connection.execute("set maintenance_work_mem = '1GB'")
        connection.execute(f"create table searched (id integer, embedding vector({WIDTH}))")
        oid = connection.execute("select 'vector'::regtype::oid").fetchone()
        assert oid is not None
        with connection.cursor().copy("copy searched from stdin (format binary)") as copy:
            copy.set_types(["int4", oid[0]])
            for i, vector in enumerate(stored):
                copy.write_row([i, vector])
        connection.execute("analyze searched")
        connection.execute(f"create table asked (id integer, whole vector({WIDTH}), half halfvec({WIDTH}))")
        with connection.cursor() as cursor:
            cursor.executemany("insert into asked values (%s, %s, %s)", [(i, v, HalfVector(v)) for i, v in enumerate(asked)])
        nearest = "select asked.id, near.id from asked, lateral (select id from searched order by {} limit 10) near"
        queries = {
            "vector": nearest.format("embedding <=> whole"),
            "halfvec": nearest.format(f"embedding::halfvec({WIDTH}) <=> half"),
        }
        indexes = {"vector": "embedding vector_cosine_ops", "halfvec": f"(embedding::halfvec({WIDTH})) halfvec_cosine_ops"}
        for name, columns in indexes.items():
            start = time.perf_counter()
            connection.execute(f"create index on searched using hnsw ({columns}) with {_HNSW}")  # type: ignore[arg-type]
            found[f"{name}_build_seconds"] = time.perf_counter() - start
        connection.execute(f"set hnsw.ef_search = {EF}")
        connection.execute("set enable_seqscan = off")
        for query in queries.values():
            plan = str(connection.execute(f"explain {query}").fetchall())  # type: ignore[arg-type]
            assert "Index Scan" in plan, plan
        for _ in range(ROUNDS):
            for name, query in queries.items():
                start = time.perf_counter()
                answers = connection.execute(query).fetchall()  # type: ignore[arg-type]
                found[f"{name}_qps"] = max(found.get(f"{name}_qps", 0.0), N_QUERIES / (time.perf_counter() - start))
                hits = sum(int(near in exact[i]) for i, near in answers)
                found[f"{name}_recall_at_10"] = hits / (10.0 * N_QUERIES)
    return found


def run_benchmark(n_vectors: int = N_VECTORS) -> dict[str, Any]:
    """Run everything on a server of its own and return the figures."""
    rng = np.random.default_rng(7)
    folder = Path(tempfile.mkdtemp(prefix="aqf-bench-"))
    folder.chmod(0o711)
    try:
        with open_store(Settings(home=folder / "home")) as store:
            conninfo = make_conninfo(store.require_conninfo())
            gateway = store.service.gateway
            assert isinstance(gateway, PostgresGateway)
            writes = time_writes(gateway, conninfo, rng)
            dataset = store.service.import_dataset(load_dataset("sp500_20"), name="sp500_20", source="skfolio")
            loads = [time_call(lambda: store.service.load_panel(dataset))[0] for _ in range(2 * ROUNDS)]
            searches = time_searches(conninfo, rng, n_vectors)
    finally:
        shutil.rmtree(folder)
    return {
        **{f"{name}_rows_per_second": value for name, value in writes.items()},
        "upsert_over_executemany": writes["upsert_ours"] / writes["upsert_executemany"],
        "upsert_over_row_by_row": writes["upsert_ours"] / writes["upsert_row_by_row"],
        "append_bars_over_executemany": writes["append_bars_ours"] / writes["append_bars_executemany"],
        "append_embeddings_over_executemany": writes["append_ours"] / writes["append_executemany"],
        **searches,
        "halfvec_over_vector_qps": searches["halfvec_qps"] / searches["vector_qps"],
        "n_vectors": n_vectors,
        "panel_bars": dataset.n_bars,
        "panel_best_seconds": min(loads),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def main() -> None:
    """Print the figures beside their goals, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--vectors", type=int, default=N_VECTORS, help=f"vectors to search (default {N_VECTORS:,})")
    arguments = parser.parse_args()
    figures = run_benchmark(arguments.vectors)
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        if name.endswith("rows_per_second"):
            print(f"{name.removesuffix('_rows_per_second'):28}{value:>12,.0f} rows/s")
    for name, goal in GOALS.items():
        print(f"{name:28}{figures[name]:>12.2f} (goal {goal})")
    print(f"{'append of embeddings':28}{figures['append_embeddings_over_executemany']:>12.2f} (mostly the storing of 1.4 kB)")
    print(f"queries a second: halfvec {figures['halfvec_qps']:,.0f}, vector {figures['vector_qps']:,.0f}, ", end="")
    print(f"{figures['n_vectors']:,} vectors of {WIDTH}, ef {EF}; recall of vector {figures['vector_recall_at_10']:.3f}")
    print(f"panel of 20 x {figures['panel_bars']:,}: {figures['panel_best_seconds']:.3f} s (goal {PANEL_GOAL_SECONDS})")
    print(f"{figures['cpu']}, {figures['cores']} cores; Python {figures['python']}")


if __name__ == "__main__":
    main()
