"""What every gateway tells of its work: one span a verb, by the conventions for databases, and nothing of what it carries."""

import contextvars
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from core import telemetry
from core.errors import StoreConflictError, StoreError
from core.store.gateway import Gateway
from core.telemetry import run_scope
from tests.core.store.contract.things import three

SECRET = "hunter2"


@pytest.fixture
def told(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The spans that end while the test runs."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return {name: value for name, value in (span.attributes or {}).items() if name != telemetry.MILLISECONDS}


def one(name: str, told: InMemorySpanExporter) -> ReadableSpan:
    (span,) = [span for span in told.get_finished_spans() if span.name == name]
    return span


@pytest.mark.parametrize(
    ("call", "name", "counts"),
    [
        (lambda g: g.select("things", where={"id": ("lte", 2)}), "select things", {"db.response.returned_rows": 2}),
        (
            lambda g: g.insert("things", [{"id": id, "name": str(id)} for id in (7, 8)]),
            "insert things",
            {"db.response.returned_rows": 2, "aqf.rows": 2},
        ),
        (
            lambda g: g.upsert("things", [{"id": id, "name": str(id)} for id in range(3, 9)], on_conflict=("id",)),
            "upsert things",
            {"aqf.rows": 6},
        ),
        (
            lambda g: g.update(table="things", values={"value": 1.0}, where={"id": ("gt", 1)}),
            "update things",
            {"db.response.returned_rows": 2, "aqf.rows": 2},
        ),
        (lambda g: g.delete("things", where={"id": 1}), "delete things", {"aqf.rows": 1}),
        (lambda g: g.rpc("first_things", n=3), "rpc first_things", {"db.response.returned_rows": 3}),
        (lambda g: g.rpc(function="twice", x=2.0), "rpc twice", {"db.response.returned_rows": 1}),
        (lambda g: g.select("things", limit=0), "select things", {"db.response.returned_rows": 0}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_verb_is_one_span_with_its_table_rows_and_milliseconds(
    gateway: Gateway, told: InMemorySpanExporter, call: Callable[[Gateway], Any], name: str, counts: dict[str, int]
) -> None:
    three(gateway)
    told.clear()
    call(gateway)
    (span,) = told.get_finished_spans()
    verb, target = name.split()
    where = "db.stored_procedure.name" if verb == "rpc" else "db.collection.name"
    assert (span.name, span.kind, span.status.status_code) == (name, SpanKind.CLIENT, StatusCode.UNSET)
    assert attributes(span) == {"db.system.name": "postgresql", "db.operation.name": verb, where: target} | counts
    assert span.attributes is not None and span.start_time is not None and span.end_time is not None
    milliseconds = span.attributes[telemetry.MILLISECONDS]
    assert isinstance(milliseconds, float)
    assert 0.0 < milliseconds <= (span.end_time - span.start_time) / 1e6 + 1.0


def test_a_failed_verb_tells_the_type_of_the_error_and_the_databases_code(gateway: Gateway, told: InMemorySpanExporter) -> None:
    three(gateway)
    with pytest.raises(StoreConflictError):
        gateway.insert("things", [{"id": 9, "name": "a"}])
    with pytest.raises(StoreError):
        gateway.update("things", {"mood": SECRET}, where={"id": 1})
    taken = told.get_finished_spans()[-2]
    assert (taken.status.status_code, taken.status.description) == (StatusCode.ERROR, "StoreConflictError")
    assert attributes(taken)["error.type"] == "StoreConflictError"
    assert attributes(taken)["db.response.status_code"] == "23505"
    assert "aqf.rows" not in attributes(taken)
    wrong = told.get_finished_spans()[-1]
    assert (wrong.status.description, attributes(wrong)["db.response.status_code"]) == ("StoreError", "22P02")


def test_what_was_refused_before_the_database_is_a_failed_span_too(gateway: Gateway, told: InMemorySpanExporter) -> None:
    with pytest.raises(StoreError, match="update needs a condition"):
        gateway.update("things", {"value": 1.0}, where={})
    span = one("update things", told)
    assert span.status.status_code is StatusCode.ERROR
    assert "db.response.status_code" not in attributes(span)


def test_no_span_carries_a_row_a_condition_an_argument_or_the_text_of_an_error(
    gateway: Gateway, told: InMemorySpanExporter
) -> None:
    gateway.insert("things", [{"id": 1, "name": SECRET, "meta": {"key": SECRET}}])
    gateway.select("things", where={"name": SECRET})
    gateway.update("things", {"words": [SECRET]}, where={"name": ("in", [SECRET])})
    gateway.upsert("things", [{"id": 2, "name": SECRET + "2"}], on_conflict=("id",))
    with pytest.raises(StoreConflictError, match=SECRET):
        gateway.insert("things", [{"id": 3, "name": SECRET}])
    with pytest.raises(StoreError, match=SECRET):
        gateway.rpc("twice", x=SECRET)
    gateway.delete("things", where={"name": SECRET})
    spans = told.get_finished_spans()
    assert len(spans) == 7
    assert all(SECRET not in span.to_json() and not span.events for span in spans)
    assert json.loads(spans[0].to_json())["name"] == "insert things"


def test_spans_of_a_run_are_found_by_its_id_and_are_one_trace(gateway: Gateway, told: InMemorySpanExporter) -> None:
    gateway.select("things")
    with run_scope("run-1"):
        gateway.select("things")
        gateway.select("parts")
    gateway.select("things")
    spans = told.get_finished_spans()
    mine = [span for span in spans if attributes(span).get("aqf.run_id") == "run-1"]
    assert [span.name for span in mine] == ["select things", "select parts", "run"]
    assert len({span.context.trace_id for span in mine if span.context}) == 1
    assert all(span.parent is not None and span.parent.span_id == mine[-1].context.span_id for span in mine[:2])  # type: ignore[union-attr]
    assert len({span.context.trace_id for span in spans if span.context}) == 3


def test_eight_runs_at_once_keep_their_spans_apart(gateway: Gateway, told: InMemorySpanExporter) -> None:
    def work(number: int) -> None:
        with run_scope(f"run-{number}"):
            for id in range(5):
                gateway.insert("things", [{"id": 1 + 10 * number + id, "name": f"{number}/{id}"}])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    spans = told.get_finished_spans()
    for number in range(8):
        mine = [span for span in spans if attributes(span)["aqf.run_id"] == f"run-{number}"]
        assert [span.name for span in mine] == [*["insert things"] * 5, "run"]
        assert len({span.context.trace_id for span in mine if span.context}) == 1
    assert len({span.context.trace_id for span in spans if span.context}) == 8


def test_a_thread_in_a_copy_of_the_context_works_for_the_same_run(gateway: Gateway, told: InMemorySpanExporter) -> None:
    with run_scope("run-1"), ThreadPoolExecutor(1) as pool:
        pool.submit(contextvars.copy_context().run, gateway.select, "things").result()
    assert attributes(one("select things", told))["aqf.run_id"] == "run-1"


def test_a_run_that_fails_is_a_failed_span(told: InMemorySpanExporter) -> None:
    with pytest.raises(KeyboardInterrupt), run_scope("run-1"):
        raise KeyboardInterrupt
    assert one("run", told).status.description == "KeyboardInterrupt"
    assert telemetry.current_run_id() is None
