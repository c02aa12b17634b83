"""Plugin features in real runs: the same road as expressions, with the contract in place of the leak test."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.research.evaluation import evaluate_feature
from agents.research.report import ResearchReport
from agents.research.request import Budget, Candidate, ResearchRequest
from agents.research.runner import ResearchContext, resume_run, run_planner
from core.errors import ConfigurationError, MissingDataError, StoreUnavailableError, ToolRetry
from core.store.records import Dataset, FeatureKind
from core.store.research import ResearchStore
from features import FunctionFeature, compute, load_plugins
from features.computable import Computable
from tests.agents.test_tools import begin, propose
from tests.agents.worlds import fresh_world, land, noise_market, reversal_market, trials_of
from tests.conftest import Server
from tests.packages import installed

OWN = tuple(
    Candidate(name=name.upper(), plugin=name, family="reversal", hypothesis="It is in Python.")
    for name in ("tomorrow", "dip_in_python", "careless", "level")
)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with installed(tmp_path_factory.mktemp("package")) as file:
        yield file


@pytest.fixture(scope="module")
def world(server: Server, tmp_path_factory: pytest.TempPathFactory, package: Path) -> Iterator[ResearchContext]:
    with fresh_world(server, tmp_path_factory.mktemp("home")) as context:
        land(context, reversal_market(), "planted")
        yield context


def ask(context: ResearchContext, dataset: str = "planted", trials: int = 3, **more: Any) -> ResearchReport:
    request = ResearchRequest(question="Is there a reversal?", dataset=dataset, vectors=False, **{"candidates": OWN, **more})
    return run_planner(request, budget=Budget(trials=trials), planner="rules", context=context)


@pytest.fixture(scope="module")
def report(world: ResearchContext) -> ResearchReport:
    return ask(world)


def test_a_plugin_that_leaks_is_rejected_for_it_and_earns_no_trial(world: ResearchContext, report: ResearchReport) -> None:
    rows = {feature.name: feature for feature in world.store.service.list_features() if feature.kind == FeatureKind.PLUGIN}
    verdicts = {name: (row.status, row.reason) for name, row in rows.items() if name != "DIP_IN_PYTHON"}
    assert verdicts == {
        "TOMORROW": ("rejected", "leak"),
        "CARELESS": ("rejected", "contract"),
        "LEVEL": ("rejected", "price_level"),
    }
    errors = [call["error"] for call in report.tool_calls if call["error"]]
    assert len(errors) == 3
    assert errors[0].startswith("TOMORROW uses the future and was rejected: tomorrow breaks its contract: ")
    assert errors[1].startswith("CARELESS is not sound and was rejected: careless breaks its contract: shape_and_dtype")
    assert "TOMORROW" not in {trial.name for trial in trials_of(world, report)}


def test_a_plugin_is_registered_under_its_version_and_source(world: ResearchContext, report: ResearchReport) -> None:
    plugins = load_plugins()
    for name in ("dip_in_python", "tomorrow"):
        made = Computable.of(plugins[name])
        (row,) = world.store.service.list_features({"name": name.upper()})
        assert (row.kind, row.expression, row.expression_sha256) == ("plugin", made.canonical, made.sha256)
        assert row.lookback == plugins[name].lookback
        assert (row.family, row.hypothesis) == ("reversal", "It is in Python.")


def test_a_plugin_is_judged_by_the_same_ledger_and_gate_as_an_expression(
    world: ResearchContext, report: ResearchReport
) -> None:
    assert report.n_trials == len(trials_of(world, report)) == 3
    finding = next(finding for finding in report.findings if finding.name == "DIP_IN_PYTHON")
    names = [check.name for check in finding.checks]
    assert names[:4] == ["tradable", "leak", "net_sharpe", "track_record"]
    assert "holdout" in names
    assert finding.promoted
    (row,) = world.store.service.list_features({"name": "DIP_IN_PYTHON"})
    assert row.status == "promoted"
    same = Candidate(name="same", expression="-pct_change(close, 5)")
    again = ask(world, trials=1, candidates=(same,))
    trial, twin = trials_of(world, again)[0], next(t for t in trials_of(world, report) if t.name == "DIP_IN_PYTHON")
    assert trial.metrics["net_sharpe"] == pytest.approx(twin.metrics["net_sharpe"], rel=1e-9)
    assert trial.config_sha256 != twin.config_sha256
    (judged,) = again.findings
    assert judged.binding_constraint == "redundancy"


def test_a_plugin_is_found_again_when_its_run_goes_on(
    world: ResearchContext, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(world, noise_market(), "noise")
    with monkeypatch.context() as patch:
        patch.setattr(ResearchStore, "record_trial", _out_of_reach)
        with pytest.raises(StoreUnavailableError):
            ask(world, "noise", candidates=OWN[1:2])
    (run,) = [run for run in world.store.service.list_runs() if run.status == "failed"]
    code = package.read_text()
    package.write_text(code + "\n# other code\n")
    changed = ask(world, "noise", candidates=OWN[1:2], seed=1)
    assert [trial.expression for trial in trials_of(world, changed) if trial.name == "DIP_IN_PYTHON"]
    package.write_text(code)
    resumed = resume_run(run.run_id, context=world)
    trial = next(trial for trial in trials_of(world, resumed) if trial.name == "DIP_IN_PYTHON")
    assert trial.expression == Computable.of(load_plugins()["dip_in_python"]).canonical


def _out_of_reach(self: ResearchStore, trial: object) -> int:
    raise StoreUnavailableError("the database cannot be reached")


def test_a_plugin_that_misbehaves_only_on_sealed_bars_is_stopped_there(world: ResearchContext) -> None:
    seen = world.store.researcher.load_panel(world.store.service.find_dataset("planted")).n_bars

    def cheat(panel: Any) -> np.ndarray:
        values = np.full(panel.shape, np.nan)
        values[3:] = 1.0 - panel.close[3:] / panel.close[:-3]
        if panel.n_bars > seen:
            values[seen:-1] = panel.close[seen + 1 :] / panel.close[seen:-1]
        return values

    world_with = ResearchContext(
        settings=world.settings,
        store=world.store,
        clock=world.clock,
        load_plugins=lambda: load_plugins(
            [
                FunctionFeature(
                    name="cheat", version="1", hypothesis="x", lookback=None, columns=frozenset({"close"}), function=cheat
                )
            ]
        ),
    )
    request = ResearchRequest(
        question="Who cheats?", dataset="planted", vectors=False, candidates=(Candidate(name="cheat", plugin="cheat"),)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agents.research.gate.MAX_CORRELATION", 1.1)
        report = run_planner(request, budget=Budget(trials=1), planner="rules", context=world_with)
    (finding,) = report.findings
    assert finding.binding_constraint == "holdout"
    assert "no_leak: leak: " in finding.checks[-1].note


def test_a_candidate_is_an_expression_or_a_plugin_that_is_there(world: ResearchContext) -> None:
    for wrong in ({}, {"expression": "close", "plugin": "dip_in_python"}):
        with pytest.raises(ConfigurationError, match="the candidate x needs either `expression` or `plugin`"):
            Candidate(name="x", **wrong)
    runs = len(world.store.service.list_runs())
    with pytest.raises(ConfigurationError, match=r"x cannot be tried: there is no plugin 'dip_python'. Did you mean"):
        ask(world, candidates=(Candidate(name="x", plugin="dip_python"),))
    assert len(world.store.service.list_runs()) == runs
    request = ResearchRequest(question="Again?", candidates=OWN)
    assert ResearchRequest.from_dict(json.loads(json.dumps(request.to_dict()))) == request


def test_a_model_may_propose_a_plugin_and_is_told_what_is_wrong_with_one(
    context: ResearchContext, market: Dataset, package: Path
) -> None:
    session = begin(context, market)
    answer = propose(session, "plugin:dip_in_python")
    assert answer["expression"] == Computable.of(load_plugins()["dip_in_python"]).canonical
    for text, reason in (
        ("plugin:dip", "the plugin cannot be accepted: there is no plugin 'dip'"),
        ("plugin:news", "the plugin cannot be accepted: the plugin news reads events"),
    ):
        with pytest.raises(ToolRetry, match=reason):
            propose(session, text, call_id=text)


def test_a_feature_whose_plugin_is_gone_is_not_computed(context: ResearchContext, market: Dataset, package: Path) -> None:
    session = begin(context, market)
    propose(session, "plugin:dip_in_python")
    (feature,) = session.store.service.list_features()
    without = begin(context, market, run_id=uuid.uuid4(), load_plugins=dict)
    with pytest.raises(Exception, match="cannot be computed on noise: there is no plugin 'dip_in_python'"):
        evaluate_feature(without, feature)
    with pytest.raises(MissingDataError, match="no plugin"):
        without.resolve(feature.expression)
    panel = session.panel
    np.testing.assert_allclose(
        session.resolve(feature.expression).compute(panel), compute("-pct_change(close, 5)", panel), rtol=0, atol=1e-12
    )
