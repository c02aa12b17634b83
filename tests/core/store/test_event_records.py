"""Events, calls to models, drift, provenance and live returns in the research store, over both transports."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import uuid4

import pytest

from core.errors import AQFError, DataError, StoreConflictError, StoreError
from core.store.event_records import DriftEvent, Event, LivePerformance, LlmCall, ProvenanceEvent
from core.store.opening import Store
from core.store.trading_records import MAX_JSON_BYTES
from tests.core.store.research import create_run, import_toy, utc

HASH = sha256(b"x").hexdigest()
NAIVE = datetime(2024, 1, 1)  # noqa: DTZ001
LARGE = {"text": "x" * MAX_JSON_BYTES}


def event(number: int = 1, **changes: Any) -> Event:
    values: dict[str, Any] = {
        "kind": "filing",
        "symbol": "AAA",
        "occurred_at": utc(2019, 12, 31),
        "known_at": utc(2020, 1, number),
        "payload": {"n": number, "parts": ["a", {"b": None}]},
        "source_url": "https://example.org/1",
    }
    return Event(**(values | changes))


def call(**changes: Any) -> LlmCall:
    values: dict[str, Any] = {
        "run_id": None,
        "request_sha256": HASH,
        "request": '{ "a":1 }',
        "response": '{"b": 1,  "a": 2, "a": 3}\n\u00fc',
        "model": "gpt",
        "tokens": 7,
    }
    return LlmCall(**(values | changes))


def live(day: int = 1, **changes: Any) -> LivePerformance:
    values: dict[str, Any] = {"strategy_id": "s", "ts": utc(2024, 1, day), "expected_return": 0.01, "realised_return": -0.02}
    return LivePerformance(**(values | changes))


# Events


def test_an_event_comes_back_as_it_was_saved(store: Store) -> None:
    events = [event(1), event(2, symbol=None, source_url=None, kind="ruling")]
    assert store.service.save_events(events) == 2
    assert store.service.load_events(as_of=utc(2020, 2, 1)) == events
    row = store.service.gateway.select("events", where={"kind": "filing"})[0]
    assert row["payload_sha256"] == sha256(b'{"n":1,"parts":["a",{"b":null}]}').hexdigest()


def test_events_are_loaded_as_they_were_known_and_not_as_they_occurred(store: Store) -> None:
    late = event(20, occurred_at=utc(2020, 1, 1))
    scheduled = event(3, occurred_at=utc(2020, 6, 1))
    store.service.save_events([late, scheduled])
    assert store.service.load_events(as_of=utc(2020, 1, 2)) == []
    assert store.service.load_events(as_of=utc(2020, 1, 3)) == [scheduled]
    assert store.service.load_events(as_of=utc(2020, 1, 19, 23)) == [scheduled]
    assert store.service.load_events(as_of=utc(2020, 1, 20)) == [scheduled, late]


def test_events_are_chosen_by_kind_and_symbol(store: Store) -> None:
    one, two, three = event(1), event(2, symbol="BBB"), event(3, kind="ruling", symbol=None)
    store.service.save_events([three, two, one])
    now = utc(2020, 2, 1)
    assert store.service.load_events(as_of=now, kind="filing") == [one, two]
    assert store.service.load_events(as_of=now, symbols=["BBB", "CCC"]) == [two]
    assert store.service.load_events(as_of=now, symbols=[]) == []
    assert store.service.load_events(as_of=now, kind="nothing") == []


def test_an_event_fetched_again_is_one_and_stays_known_since_the_first_time(store: Store) -> None:
    assert store.service.save_events([]) == 0
    assert store.service.save_events([event(5), event(6)]) == 2
    again = [event(5, known_at=utc(2020, 1, 9)), event(6, known_at=utc(2020, 1, 1)), event(7)]
    assert store.service.save_events(again) == 1
    assert [found.known_at.day for found in store.service.load_events(as_of=utc(2020, 2, 1))] == [5, 6, 7]
    twice = [event(8, known_at=utc(2020, 1, 12)), event(8, known_at=utc(2020, 1, 11))]
    assert store.service.save_events(twice) == 1
    assert store.service.load_events(as_of=utc(2020, 1, 11))[-1].payload["n"] == 8


def test_the_same_payload_of_another_kind_is_another_event(store: Store) -> None:
    assert store.service.save_events([event(1), event(1, kind="ruling")]) == 2


@pytest.mark.parametrize("change", [{"symbol": "BBB"}, {"symbol": None}, {"occurred_at": utc(2019, 12, 30)}])
def test_the_same_payload_of_another_symbol_or_time_is_a_conflict_and_not_lost(store: Store, change: dict[str, Any]) -> None:
    store.service.save_events([event(1)])
    with pytest.raises(StoreConflictError, match="put into the payload what tells the two apart"):
        store.service.save_events([event(2), replace(event(1), **change)])
    assert store.service.load_events(as_of=utc(2020, 2, 1)) == [event(1)]


def test_eight_that_save_the_same_events_in_any_order_save_each_once(store: Store) -> None:
    events = [event(1, payload={"n": n}) for n in range(40)]

    def save(number: int) -> int:
        return store.service.save_events(events if number % 2 else events[::-1])

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(save, range(8))) == 40


def test_a_symbol_foreign_to_the_data_set_refuses_the_whole_batch(store: Store) -> None:
    dataset = import_toy(store.service)
    with pytest.raises(DataError, match=r"`Event.symbol` must be one of toy \(AAA, BBB, CCC\), was 'ZZZ'"):
        store.service.save_events([event(1), event(2, symbol="ZZZ")], dataset=dataset)
    assert store.service.load_events(as_of=utc(2020, 2, 1)) == []
    assert store.service.save_events([event(1), event(2, symbol=None)], dataset=dataset) == 2


def test_a_researcher_loads_no_event_past_the_seal_and_saves_none(store: Store) -> None:
    import_toy(store.service, synthetic=True, sealed_from=utc(2020, 2, 20))
    before, after = event(1), event(2, known_at=utc(2020, 2, 20))
    store.service.save_events([before, after])
    assert store.researcher.load_events(as_of=utc(2030, 1, 1)) == [before]
    with pytest.raises(StoreError, match="permission denied"):
        store.researcher.save_events([event(3)])


# Calls to models


def test_a_call_is_replayed_bit_for_bit_in_the_order_of_its_askings(store: Store) -> None:
    run = create_run(store.service, import_toy(store.service))
    first, second = call(run_id=run.run_id), call(run_id=run.run_id, ordinal=1, response="")
    outside = call(response="outside")
    for made in (second, first, outside):
        store.service.save_llm_call(made)
    assert store.service.find_llm_calls(run.run_id, HASH) == [first, second]
    assert store.service.find_llm_calls(None, HASH) == [outside]
    assert store.service.find_llm_calls(run.run_id, "0" * 64) == []
    assert store.service.find_llm_calls(uuid4(), HASH) == []
    with pytest.raises(StoreConflictError, match="request_sha256"):
        store.service.save_llm_call(first)
    with pytest.raises(StoreConflictError, match="run_id"):
        store.service.save_llm_call(call(run_id=uuid4()))


# Drift, provenance, live returns


def test_drift_is_listed_newest_first(store: Store) -> None:
    events = [
        DriftEvent(metric=metric, trigger_type="threshold", triggered_at=utc(2024, 1, day), details={"value": day / 10})
        for metric, day in (("psi", 1), ("ks", 2), ("psi", 3))
    ]
    for drifted in events:
        store.service.save_drift_event(drifted)
    assert store.service.list_drift_events() == events[::-1]
    assert store.service.list_drift_events("psi") == [events[2], events[0]]
    assert store.service.list_drift_events(limit=1) == [events[2]]


def test_provenance_is_found_by_source_and_by_artifact(store: Store) -> None:
    edgar = ProvenanceEvent(source="edgar", payload={"cik": 1}, artifact_sha256=HASH, parser_version="2")
    fred = ProvenanceEvent(source="fred", source_url="https://example.org", parser_version="1")
    store.service.save_provenance_event(edgar)
    store.service.save_provenance_event(fred)
    assert store.service.list_provenance_events() == [fred, edgar]
    assert store.service.list_provenance_events(source="fred") == [fred]
    assert store.service.list_provenance_events(artifact_sha256=HASH) == [edgar]
    assert store.service.list_provenance_events(source="fred", artifact_sha256=HASH) == []


def test_live_returns_are_appended_once_and_listed_in_time(store: Store) -> None:
    assert store.service.save_live_performance([live(2), live(1, details={"n": 3})]) == 2
    assert store.service.save_live_performance([]) == 0
    assert store.service.list_live_performance("s") == [live(1, details={"n": 3}), live(2)]
    assert store.service.list_live_performance("s", since=utc(2024, 1, 2)) == [live(2)]
    assert store.service.list_live_performance("t") == []
    with pytest.raises(StoreConflictError, match="strategy_id"):
        store.service.save_live_performance([live(3), live(2)])
    assert len(store.service.list_live_performance("s")) == 2


# Input that cannot be


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: event(known_at=NAIVE), "`Event.known_at` must be a time in UTC"),
        (lambda: event(occurred_at=NAIVE), "`Event.occurred_at` must be a time in UTC"),
        (lambda: event(kind=" "), "`Event.kind` must be text that is not blank"),
        (lambda: event(symbol=""), "`Event.symbol` must be text"),
        (lambda: event(payload={"x": [math.nan]}), "`Event.payload` must be what JSON can carry, with finite numbers"),
        (lambda: event(payload={"x": {"y": math.inf}}), "`Event.payload` must be what JSON can carry"),
        (lambda: event(payload={"at": utc(2020, 1, 1)}), "`Event.payload` must be what JSON can carry"),
        (lambda: event(payload={"x": "a\x00"}), "`Event.payload` must be text without NUL"),
        (lambda: event(payload={"x": "\ud800"}), "`Event.payload` must be what JSON can carry"),
        (lambda: event(payload=LARGE), rf"`Event.payload` must be at most {MAX_JSON_BYTES} bytes of JSON"),
        (lambda: event(payload=[1]), "`Event.payload` must be a mapping"),
        (lambda: call(request_sha256="A" * 64), "`LlmCall.request_sha256` must be 64 hexadecimal digits"),
        (lambda: call(ordinal=-1), "`LlmCall.ordinal` must be 0 or greater"),
        (lambda: call(tokens=1.5), "`LlmCall.tokens` must be a whole number"),
        (lambda: call(run_id="run-1"), "`LlmCall.run_id` must be a UUID"),
        (lambda: call(model=""), "`LlmCall.model` must be text"),
        (lambda: DriftEvent(metric="a", trigger_type="b", triggered_at=NAIVE), "`DriftEvent.triggered_at` must be a time"),
        (
            lambda: DriftEvent(metric="a", trigger_type="b", triggered_at=utc(2024, 1, 1), details=LARGE),
            "`DriftEvent.details` must be at most",
        ),
        (lambda: ProvenanceEvent(source="a", parser_version=" "), "`ProvenanceEvent.parser_version` must be text"),
        (
            lambda: ProvenanceEvent(source="a", parser_version="1", artifact_sha256="no"),
            "`ProvenanceEvent.artifact_sha256` must be 64 hex",
        ),
        (lambda: live(ts=NAIVE), "`LivePerformance.ts` must be a time in UTC"),
        (lambda: live(expected_return=math.nan), "`LivePerformance.expected_return` must be a finite number"),
        (lambda: live(realised_return=-1.5), "`LivePerformance.realised_return` must be a return of -1"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_the_name_of_its_field(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        build()


def test_a_naive_moment_is_refused_by_name(store: Store) -> None:
    with pytest.raises(DataError, match="`as_of` must carry its zone, was the naive 2024-01-01T00:00:00"):
        store.service.load_events(as_of=NAIVE)


def test_as_much_json_as_the_column_holds_is_kept(store: Store) -> None:
    full = event(payload={"text": "x" * (MAX_JSON_BYTES - 12)})
    assert store.service.save_events([full]) == 1
    assert store.service.load_events(as_of=utc(2024, 1, 1)) == [full]


def test_no_record_changes_and_each_is_faithful_through_json() -> None:
    for record in (event(), call(run_id=uuid4()), live()):
        with pytest.raises(AttributeError):
            setattr(record, fields(record)[0].name, "x")
        assert type(record).from_dict(record.to_dict()) == record
    with pytest.raises(TypeError):
        event().payload["n"] = 2  # type: ignore[index]
    with pytest.raises(AQFError, match=r"`LlmCall\.run_id` must be a UUID"):
        LlmCall.from_dict({**call().to_dict(), "run_id": "no"})
