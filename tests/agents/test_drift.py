from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import numpy as np
import pytest

from agents.research import drift, rules
from agents.research.report import ResearchReport
from agents.research.request import Budget, ResearchRequest
from agents.research.runner import ResearchContext, build_session, run_planner
from agents.research.session import ResearchSession
from core.market.panel import Panel
from core.store.records import Dataset
from tests.agents.worlds import QUESTION, calls_of, closes_only, fresh_world, land, noise_market
from tests.conftest import Server

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def turbulent_market() -> Panel:
    """1,500 bars of closes whose returns are three times as large from bar 720, three fifths before the seal, on."""
    panel = closes_only(noise_market(seed=3, n_assets=12, n_bars=1_500))
    steps = np.diff(np.log(panel.close), axis=0)
    steps[720:] *= 3.0
    return panel.replace(close=panel.close[0] * np.exp(np.vstack([np.zeros(panel.n_assets), np.cumsum(steps, axis=0)])))


@pytest.fixture(scope="module")
def world(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ResearchContext]:
    with fresh_world(server, tmp_path_factory.mktemp("world")) as context:
        land(context, closes_only(noise_market(seed=3, n_assets=12, n_bars=1_500)), "steady")
        land(context, turbulent_market(), "turbulent")
        yield context


def session_on(world: ResearchContext, dataset: Dataset) -> ResearchSession:
    request = ResearchRequest(question=QUESTION, dataset=dataset.name)
    return build_session(world, uuid4(), request, Budget(trials=2), dataset, None, ())


@pytest.fixture(scope="module")
def report(world: ResearchContext) -> ResearchReport:
    return run_planner(QUESTION, dataset="turbulent", budget=Budget(trials=2), planner="rules", context=world)


def measure(world: ResearchContext, dataset: Dataset) -> dict[str, drift.Drift]:
    panel = world.store.researcher.load_panel(dataset)
    features = drift.watched_features(panel.fields)
    return {one.name: one for one in drift.measure_drift(world.store.researcher, dataset, panel, features)}


def dataset_of(world: ResearchContext, name: str) -> Dataset:
    return next(dataset for dataset in world.store.service.list_datasets() if dataset.name == name)


def test_a_run_says_what_drifted_and_records_it(world: ResearchContext, report: ResearchReport) -> None:
    told = dict(report.key_figures())["drift"]
    assert "volatility (PSI" in told
    assert f"Drift: {report.recalled['drift']['sentence']}." in report.to_html()
    assert "volatility" in report.recalled["drift"]["new"]
    events = world.store.service.list_drift_events(drift.FEATURE)
    details = {event.details["name"]: event.details for event in events if event.details["dataset"] == "turbulent"}
    assert {"volatility", "returns"} <= details.keys()
    assert details["volatility"]["value"] > 0.25
    assert details["volatility"]["p_value"] <= 0.01
    assert details["volatility"]["run_id"] == report.run_id


def test_nothing_later_than_the_seal_is_compared(world: ResearchContext, report: ResearchReport) -> None:
    dataset = dataset_of(world, "turbulent")
    for found in measure(world, dataset).values():
        assert found.reference[1] < found.current[0] <= found.current[1] < f"{dataset.sealed_from:%Y-%m-%d}"


def test_vectors_are_compared_once_there_are_any(world: ResearchContext, report: ResearchReport) -> None:
    metrics = {found.metric for found in measure(world, dataset_of(world, "turbulent")).values()}
    assert metrics == {drift.EMBEDDINGS, drift.FEATURE}
    steady = measure(world, dataset_of(world, "steady"))
    assert {found.metric for found in steady.values()} == {drift.FEATURE}
    assert not any(found.drifted for found in steady.values())


def test_the_same_drift_is_recorded_once_and_is_new_to_the_run_that_found_it(
    world: ResearchContext, report: ResearchReport
) -> None:
    service, dataset = world.store.service, dataset_of(world, "turbulent")
    found = [one for one in measure(world, dataset).values() if one.metric == drift.FEATURE]
    before = len(service.list_drift_events())
    assert drift.record_drift(service, dataset, found, at=NOW, run_id="another") == []
    assert drift.record_drift(service, dataset, found, at=NOW) == []
    again = drift.record_drift(service, dataset, found, at=NOW, run_id=report.run_id)
    assert [one.name for one in again] == [one.name for one in found if one.drifted]
    assert len(service.list_drift_events()) == before
    later = [replace(one, current=(one.current[0], "2031-01-01")) for one in found]
    assert len(drift.record_drift(service, dataset, later, at=NOW)) == len(again)
    assert len(service.list_drift_events()) == before + len(again)


def test_the_rules_planner_refreshes_fresh_vectors_when_drift_is_new(world: ResearchContext, report: ResearchReport) -> None:
    assert len(calls_of(report, "refresh_vector_store")) == 1
    session = session_on(world, dataset_of(world, "turbulent"))
    calm = rules.plan_next(session, {"recalled": {"drift": {"new": []}}, "step": 0})
    assert [call["name"] for call in calm.tool_calls] == ["prune_vectors"]
    moved = rules.plan_next(session, {"recalled": {"drift": {"new": ["volatility"]}}, "step": 0})
    assert [call["name"] for call in moved.tool_calls] == ["refresh_vector_store"]
    assert "drifted since the memory was made (volatility)" in str(moved.content)


def test_a_short_history_is_not_measured(world: ResearchContext) -> None:
    panel = noise_market()
    features = drift.watched_features(panel.fields)
    assert drift.measure_drift(world.store.researcher, dataset_of(world, "steady"), panel.slice(0, 999), features) == []
    assert "at least 1,000 bars" in drift.describe_drift([])
