from dataclasses import replace
from uuid import uuid4

import pytest

from agents.research import memory
from agents.research.findings import Finding
from agents.research.request import Budget, ResearchRequest
from agents.research.runner import ResearchContext, run_planner
from agents.research.session import ResearchSession
from core.store.records import Dataset
from tests.agents.worlds import QUESTION, land, noise_market


def make_session(context: ResearchContext, dataset: Dataset, question: str = QUESTION) -> ResearchSession:
    return ResearchSession(
        store=context.store,
        settings=context.settings,
        clock=context.clock,
        run_id=uuid4(),
        request=ResearchRequest(question=question, dataset=dataset.name),
        budget=Budget(),
        dataset=dataset,
        panel=context.store.researcher.load_panel(dataset),
    )


def make_finding(family: str, rank_ic_t: float | None, *, promoted: bool = False) -> Finding:
    return Finding(
        trial_id=1,
        feature_id="00000000-0000-0000-0000-000000000001",
        name="idea",
        family=family,
        expression="close",
        verdict="promoted" if promoted else "rejected",
        binding_constraint=None if promoted else "spa",
        metrics={"rank_ic_t": rank_ic_t},
        checks=(),
    )


@pytest.fixture
def dataset(context: ResearchContext) -> Dataset:
    return land(context, noise_market(), "noise")


def test_on_new_data_nothing_is_remembered(context: ResearchContext, dataset: Dataset) -> None:
    recalled = memory.recall(make_session(context, dataset))
    assert recalled["sentence"] == "Nothing is remembered about noise: this is the first research on it."
    assert (recalled["n_trials"], recalled["n_runs_on_question"], recalled["n_vectors"]) == (0, 0, 0)
    assert recalled["promoted"] == []
    assert recalled["best"] is None
    assert recalled["newest_vector"] is None
    assert recalled["notes"] == {}


def test_what_is_learned_of_families_is_recalled_and_replaced(context: ResearchContext, dataset: Dataset) -> None:
    session = make_session(context, dataset)
    findings = [
        make_finding("reversal", 2.5, promoted=True),
        make_finding("reversal", 3.5),
        make_finding("reversal", None),
        make_finding("momentum", None),
    ]
    memory.remember(session, findings)
    memory.remember(session, findings)
    notes = memory.recall(make_session(context, dataset, "Another question"))["notes"]
    assert notes == {
        "last_run": str(session.run_id),
        "question": QUESTION,
        "families": {
            "reversal": {"trials": 3, "best_rank_ic_t": 3.5, "promoted": 1},
            "momentum": {"trials": 1, "best_rank_ic_t": None, "promoted": 0},
        },
    }
    memory.remember(session, findings[3:])
    assert list(memory.recall(session)["notes"]["families"]) == ["momentum"]


def test_one_data_set_remembers_nothing_of_another(context: ResearchContext, dataset: Dataset) -> None:
    other = land(context, noise_market(seed=8), "other")
    run_planner(QUESTION, dataset="noise", budget=Budget(trials=2), planner="rules", context=context)
    recalled = memory.recall(make_session(context, other))
    assert recalled["n_trials"] == 0
    assert recalled["notes"] == {}


def test_the_question_counts_in_any_spelling_and_the_best_trial_by_its_net_sharpe_ratio(
    context: ResearchContext, dataset: Dataset
) -> None:
    report = run_planner(QUESTION, dataset="noise", budget=Budget(trials=3), planner="rules", context=context)
    best = max(report.findings, key=lambda finding: finding.metrics["net_sharpe"])
    same = memory.recall(make_session(context, dataset, "is there a SHORT horizon reversal"))
    other = memory.recall(make_session(context, dataset, "Is there momentum?"))
    assert (same["n_trials"], same["n_runs_on_question"]) == (3, 1)
    assert (other["n_trials"], other["n_runs_on_question"]) == (3, 0)
    assert same["best"] == {
        "name": best.name,
        "expression": best.expression,
        "net_sharpe": pytest.approx(best.metrics["net_sharpe"], rel=1e-12),
    }
    assert same["sentence"] == (
        "3 earlier trials on noise are remembered and will not be repeated; this question was asked in 1 earlier run; "
        f"nothing has been promoted so far; the best of them, {best.name}, had a net Sharpe ratio of "
        f"{best.metrics['net_sharpe']:.2f}, before any correction for the search."
    )
    assert "this question is new" in other["sentence"]


def test_a_run_does_not_remember_itself(context: ResearchContext, dataset: Dataset) -> None:
    report = run_planner(QUESTION, dataset="noise", budget=Budget(trials=2), planner="rules", context=context)
    session = make_session(context, dataset)
    (run,) = context.store.service.list_runs()
    assert memory.recall(session)["n_trials"] == 2
    assert memory.recall(replace(session, run_id=run.run_id))["n_trials"] == 0
    assert report.recalled["n_trials"] == 0
