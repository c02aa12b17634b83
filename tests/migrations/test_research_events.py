"""The tables around the research, and what is attached to a data set."""

from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest

from core.errors import StoreConflictError, StoreError
from core.settings import Settings
from core.store.opening import Store, open_store
from core.store.records import Dataset
from tests.core.store.research import create_run, import_toy, utc

HASH = sha256(b"x").hexdigest()


@pytest.fixture
def store(database: str, tmp_path: Path) -> Iterator[Store]:
    with open_store(Settings(home=tmp_path, database_url=database)) as opened:
        yield opened


def attach(store: Store, dataset: Dataset, *labels: tuple[str, datetime, datetime, float], name: str = "next_day") -> int:
    payload = {
        "dataset_id": str(dataset.dataset_id),
        "name": name,
        "labels": [
            {"symbol": symbol, "ts": ts.isoformat(), "horizon_end": end.isoformat(), "value": value}
            for symbol, ts, end, value in labels
        ],
    }
    return int(store.service.gateway.rpc("attach_labels", payload=payload)[0]["attach_labels"])


def test_labels_are_attached_and_replaced_and_a_researcher_sees_those_before_the_seal(store: Store) -> None:
    dataset = import_toy(store.service, synthetic=True, sealed_from=utc(2020, 2, 20))
    early, late = utc(2020, 1, 2, 21), utc(2020, 2, 19, 21)
    assert attach(store, dataset, ("AAA", early, utc(2020, 1, 3), 0.1), ("BBB", late, utc(2020, 2, 21), -0.2)) == 2
    assert attach(store, dataset, ("AAA", early, utc(2020, 1, 4), 0.3)) == 1
    rows = store.service.gateway.select("labels", order=("symbol",))
    assert [(row["symbol"], row["name"], row["ts"], row["horizon_end"], row["value"]) for row in rows] == [
        ("AAA", "next_day", early, utc(2020, 1, 4), 0.3),
        ("BBB", "next_day", late, utc(2020, 2, 21), -0.2),
    ]
    assert [row["symbol"] for row in store.researcher.gateway.select("labels")] == ["AAA"]


def test_labels_that_do_not_fit_are_refused_altogether(store: Store) -> None:
    dataset = import_toy(store.service)
    good = ("AAA", utc(2020, 1, 2), utc(2020, 1, 3), 0.1)
    with pytest.raises(StoreConflictError, match="symbol ZZZ is not in data set toy"):
        attach(store, dataset, good, ("ZZZ", utc(2020, 1, 2), utc(2020, 1, 3), 0.1))
    with pytest.raises(StoreError, match="labels_check"):
        attach(store, dataset, good, ("BBB", utc(2020, 1, 3), utc(2020, 1, 3), 0.1))
    with pytest.raises(StoreError, match="name must be given"):
        attach(store, dataset, good, name=" ")
    with pytest.raises(StoreConflictError, match="unknown dataset_id"):
        store.service.gateway.rpc("attach_labels", payload={"name": "x", "labels": []})
    assert store.service.gateway.select("labels") == []


def event(number: int, known_at: datetime, **changes: Any) -> dict[str, Any]:
    row = {
        "kind": "filing",
        "symbol": "AAA",
        "occurred_at": utc(2019, 12, 31),
        "known_at": known_at,
        "payload": {"n": number},
        "payload_sha256": sha256(str(number).encode()).hexdigest(),
    }
    return row | changes


def test_an_event_is_kept_once_and_a_researcher_sees_what_was_known_before_every_seal(store: Store) -> None:
    gateway = store.service.gateway
    gateway.insert("events", [event(1, utc(2020, 1, 5)), event(2, utc(2020, 2, 20)), event(3, utc(2020, 3, 1))])
    with pytest.raises(StoreConflictError, match="payload_sha256"):
        gateway.insert("events", [event(1, utc(2020, 1, 6))])
    assert store.researcher.gateway.select("events") == []
    import_toy(store.service, synthetic=True, sealed_from=utc(2020, 2, 25))
    assert [row["payload"] for row in store.researcher.gateway.select("events", order=("known_at",))] == [{"n": 1}, {"n": 2}]
    import_toy(store.service, name="other", synthetic=True, sealed_from=utc(2020, 2, 20))
    assert [row["payload"] for row in store.researcher.gateway.select("events")] == [{"n": 1}]


def test_a_call_to_a_model_is_replayed_bit_for_bit(store: Store) -> None:
    run = create_run(store.service, import_toy(store.service))
    response = '{"b": 1,  "a": 2, "a": 3}'
    row = {
        "run_id": run.run_id,
        "request_sha256": HASH,
        "request": "{ }",
        "response": response,
        "model": "m",
        "tokens": 3,
    }
    (stored,) = store.service.gateway.insert("llm_calls", [row])
    assert (stored["response"], stored["ordinal"]) == (response, 0)
    with pytest.raises(StoreConflictError, match="request_sha256"):
        store.service.gateway.insert("llm_calls", [row])
    store.service.gateway.insert("llm_calls", [{**row, "ordinal": 1}])
    outside = {**row, "run_id": None}
    store.service.gateway.insert("llm_calls", [outside])
    with pytest.raises(StoreConflictError, match="request_sha256"):
        store.service.gateway.insert("llm_calls", [outside])


def test_drift_provenance_and_live_returns_are_kept(store: Store) -> None:
    gateway = store.service.gateway
    gateway.insert("drift_events", [{"metric": "psi", "trigger_type": "threshold", "details": {"value": 0.3}}])
    provenance = {"source": "edgar", "payload": {"cik": 1}, "artifact_sha256": HASH, "parser_version": "2"}
    gateway.insert("provenance_events", [provenance])
    live = {"strategy_id": "s", "ts": utc(2024, 1, 2), "expected_return": 0.01, "realised_return": -0.02}
    gateway.insert("live_performance", [live])
    with pytest.raises(StoreConflictError, match="strategy_id"):
        gateway.insert("live_performance", [live])
    with pytest.raises(StoreError, match="live_performance_realised_return_check"):
        gateway.insert("live_performance", [{**live, "strategy_id": "t", "realised_return": -1.5}])
    with pytest.raises(StoreError, match="provenance_events_artifact_sha256_check"):
        gateway.insert("provenance_events", [{**provenance, "artifact_sha256": "no"}])
    assert gateway.select("drift_events")[0]["details"] == {"value": 0.3}
    assert gateway.select("live_performance")[0]["realised_return"] == -0.02


@pytest.mark.parametrize("table", ["llm_calls", "drift_events", "provenance_events", "live_performance"])
def test_a_researcher_reads_none_of_the_others(owner: psycopg.Connection, table: str) -> None:
    owner.execute("set role researcher")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        owner.execute(f"select from {table}")  # type: ignore[call-overload]
