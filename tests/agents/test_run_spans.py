"""A run tells of itself: every call it makes to the store is found by its id."""

from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agents.research.request import Budget
from agents.research.runner import run_planner
from core import telemetry
from tests.agents.worlds import QUESTION, fresh_world, land, noise_market
from tests.conftest import Server


def test_whatever_a_run_asks_of_the_store_in_whatever_thread_is_one_trace_with_its_id(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(told))
    monkeypatch.setattr(telemetry, "_tracer", provider.get_tracer("test"))
    with fresh_world(server, tmp_path) as context:
        land(context, noise_market(), "noise")
        told.clear()
        report = run_planner(QUESTION, dataset="noise", budget=Budget(trials=2), planner="rules", context=context)
    spans = told.get_finished_spans()
    mine = [span for span in spans if (span.attributes or {}).get("aqf.run_id") == str(report.run_id)]
    assert {"run", "rpc record_trial", "insert tool_calls", "update research_runs"} <= {span.name for span in mine}
    assert len({span.context.trace_id for span in mine if span.context}) == 1
    # Only what comes before the run has an id, and the writing of its row, is outside.
    assert "insert research_runs" in {span.name for span in spans if span not in mine}
    assert not [span.name for span in spans if span not in mine and "trial" in span.name]
    provider.shutdown()
