"""Promoted features as words of later expressions, the same words until a run is finished."""

import json
from typing import Any

import pytest

from agents.research.memory import MAX_BLOCKS, list_building_blocks
from agents.research.prompts import build_prompt
from agents.research.request import Budget, Candidate, ResearchRequest
from agents.research.runner import ResearchContext, resume_run, run_planner
from agents.research.session import BuildingBlock
from core.errors import ConfigurationError, StoreUnavailableError, ToolRetry
from core.store.records import Dataset
from core.store.research import ResearchStore
from features import parse
from features.operators import OPERATORS
from features.technical import INDICATORS
from tests.agents.test_tools import begin, propose
from tests.agents.worlds import trials_of

TREND = "close / ts_mean(close, 63)"
BLOCK = BuildingBlock(name="trend", expression=TREND, hypothesis="Trends go on.")


def register(context: ResearchContext, dataset: Dataset, name: str, expression: str, *, promoted: bool = True) -> None:
    made = parse(expression, extra=("earnings",))
    feature = context.store.service.propose_feature(
        {
            "name": name,
            "expression": made.canonical,
            "expression_sha256": made.sha256,
            "lookback": made.lookback,
            "hypothesis": f"{name} tells.",
        }
    )
    context.store.service.record_verdict(feature.feature_id, dataset, promoted=promoted, reason="a test")


def test_the_newest_promoted_features_that_the_data_can_answer_are_building_blocks(
    context: ResearchContext, market: Dataset
) -> None:
    register(context, market, "trend", "ts_mean(returns, 5)")
    register(context, market, "trend", TREND)
    register(context, market, "fade", "-pct_change(close, 3)")
    register(context, market, "failed", "-pct_change(close, 4)", promoted=False)
    for name in ("two words", "close", "rank", "and", "größe"):
        register(context, market, name, f"-pct_change(close, {10 + len(name)})")
    register(context, market, "fundamental", "rank(earnings)")
    blocks = list_building_blocks(context.store.researcher, market)
    assert blocks == (
        BuildingBlock(name="fade", expression="-pct_change(close, 3)", hypothesis="fade tells."),
        BuildingBlock(name="trend", expression=TREND, hypothesis="trend tells."),
    )


def test_only_so_many_are_kept_and_those_the_newest(context: ResearchContext, market: Dataset) -> None:
    for number in range(MAX_BLOCKS + 2):
        register(context, market, f"f{number}", f"pct_change(close, {number + 1})")
    blocks = list_building_blocks(context.store.researcher, market)
    assert {block.name for block in blocks} == {f"f{number}" for number in range(2, MAX_BLOCKS + 2)}


def test_a_proposal_that_names_one_is_stored_written_out(context: ResearchContext, market: Dataset) -> None:
    session = begin(context, market, building_blocks=(BLOCK,))
    answer = propose(session, "rank(trend) - 0.5")
    assert answer["expression"] == "rank(close / ts_mean(close, 63)) - 0.5"
    assert propose(session, f"rank({TREND}) - 0.5", "p2")["feature_id"] == answer["feature_id"]
    assert session.proposed_expressions() == {parse(answer["expression"]).sha256}
    with pytest.raises(ToolRetry, match=r"unknown field `trnd` at column 5 \(did you mean trend\?\)"):
        propose(session, "rank(trnd)", "p3")
    with pytest.raises(ToolRetry, match="unknown field `trend`"):
        propose(begin(context, market), "rank(trend)", "p4")


def test_a_run_keeps_the_words_it_began_with_whatever_is_promoted_before_it_is_resumed(
    context: ResearchContext, market: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(context, market, "trend", TREND)
    own = (Candidate(name="built", expression="-rank(trend) - rank(pct_change(close, 1))", family="reversal"),)
    request = ResearchRequest(question="Does it build?", dataset=market.name, candidates=own)

    def out_of_reach(self: ResearchStore, row: Any) -> None:
        raise StoreUnavailableError("the database cannot be reached")

    with monkeypatch.context() as patch:
        patch.setattr(ResearchStore, "record_trial", out_of_reach)
        with pytest.raises(StoreUnavailableError):
            run_planner(request, budget=Budget(trials=3), planner="rules", context=context)
    (run,) = context.store.service.list_runs()
    register(context, market, "trend", "ts_mean(returns, 5)")
    report = resume_run(run.run_id, context=context)

    built = [trial for trial in trials_of(context, report) if trial.name == "built"]
    expected = parse("-rank(trend) - rank(pct_change(close, 1))", features={"trend": TREND}).canonical
    assert [trial.expression for trial in built] == [expected]
    assert report.recalled["building_blocks"] == ["trend"]
    assert report.n_trials == 3
    kept = {"trend": {"expression": TREND, "hypothesis": "trend tells."}}
    assert context.store.service.get_run(run.run_id).building_blocks == kept

    later = run_planner(request, budget=Budget(trials=1), planner="rules", context=context)
    expected = parse("-rank(trend) - rank(pct_change(close, 1))", features={"trend": "ts_mean(returns, 5)"}).canonical
    assert [trial.expression for trial in trials_of(context, later)] == [expected]


def test_a_candidate_that_names_what_is_not_promoted_is_refused_before_the_run(
    context: ResearchContext, market: Dataset
) -> None:
    request = ResearchRequest(
        question="Does it build?", dataset=market.name, candidates=(Candidate(name="built", expression="rank(trend)"),)
    )
    with pytest.raises(ConfigurationError, match="the candidate built cannot be tried: unknown field `trend`"):
        run_planner(request, planner="rules", context=context)
    assert context.store.service.list_runs() == []


def test_the_model_is_told_the_language_the_building_blocks_and_the_ideas(context: ResearchContext, market: Dataset) -> None:
    own = (Candidate(name="fade", expression="-returns"), Candidate(name="gap", plugin="overnight_gap"))
    session = begin(
        context, market, building_blocks=(BLOCK,), request=ResearchRequest(question="Q?", dataset="noise", candidates=own)
    )
    system, user = build_prompt(session, {"recalled": {"n_trials": 3, "building_blocks": ["trend"], "sentence": "3 trials."}})
    assert all(f"\n{operator.usage.partition('(')[0]}(" in system for operator in OPERATORS.values() if operator.is_call)
    assert all(indicator.usage in system for indicator in INDICATORS.values())
    assert "only like to like" in system
    assert len(system) < 7_000, "the prompt is paid for with every call"
    data = [json.loads(line) for line in user.splitlines() if line.startswith(("[", "{"))]
    assert data[1] == {"n_trials": 3}
    assert [idea["expression"] for idea in data[2]] == ["-returns", "plugin:overnight_gap"]
    assert data[3] == [{"name": "trend", "expression": TREND, "hypothesis": "Trends go on."}]
    _, plain = build_prompt(begin(context, market), {"recalled": {}})
    assert "as data; propose" not in plain
    assert "may build on" not in plain
