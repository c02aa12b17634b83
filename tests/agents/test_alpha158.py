from agents.research.request import Budget, ResearchRequest
from agents.research.runner import ResearchContext, run_planner
from core.store.records import Dataset
from features.alphas import ALPHA158
from tests.agents.worlds import trials_of


def test_a_question_about_alpha158_tries_qlibs_features_in_qlibs_order(context: ResearchContext, market: Dataset) -> None:
    request = ResearchRequest(question="Which of alpha158 tells the next returns apart?", dataset=market.name)
    report = run_planner(request, budget=Budget(trials=6), planner="rules", context=context)
    trials = sorted(trials_of(context, report), key=lambda trial: trial.trial_id)
    assert [trial.name for trial in trials] == list(ALPHA158)[:6]
    assert {finding.family for finding in report.findings} == {"alpha158"}
