"""What a language model may remember: its results are split at its knowledge cut-off, and both halves are shown."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from agents.research import gate
from agents.research.evaluation import load_returns
from agents.research.model_memory import Half, ModelMemory
from agents.research.report import ResearchReport
from agents.research.request import Budget
from agents.research.runner import ResearchContext, run_planner
from backtest.integrity import expected_maximum_sharpe
from core.market.panel import Panel
from core.settings import DEFAULT_CUTOFFS
from tests.agents.scripted_openai import Answer, Request, ScriptedOpenAI, say, tool_texts
from tests.agents.worlds import land, noise_market, reversal_market, trials_of

LAST_DAY = date(2001, 12, 31)
"""In the middle of what is tested: the markets begin in January 2000."""


@pytest.fixture
def model() -> Iterator[ScriptedOpenAI]:
    with ScriptedOpenAI() as server:
        yield server


def ask(
    context: ResearchContext,
    model: ScriptedOpenAI,
    panel: Panel,
    *,
    name: str = "gpt-5-mini",
    cutoffs: dict[str, date] = DEFAULT_CUTOFFS,
    **more: Any,
) -> ResearchReport:
    settings = context.settings.model_copy(
        update={"openai_base_url": model.base_url, "llm_model": name, "llm_cutoffs": cutoffs, **more}
    )
    land(context, panel, "market")
    model.script = [
        say("Two ideas.", propose("rank(-ts_sum(returns, 5))", "one week"), propose("rank(-returns)", "one day")),
        backtest_proposed,
        say("That is all."),
    ]
    return run_planner(
        "Is there a reversal?",
        dataset="market",
        planner="llm",
        context=replace(context, settings=settings),
        budget=Budget(trials=3, steps=8),
    )


def propose(expression: str, name: str) -> tuple[str, dict[str, str]]:
    return "propose_new_feature", {"expression": expression, "name": name, "family": "reversal", "hypothesis": ""}


def backtest_proposed(request: Request) -> Answer:
    ids = [json.loads(text)["feature_id"] for text in tool_texts(request)]
    return say("Now the backtests.", *[("run_backtest", {"feature_id": feature_id}) for feature_id in ids])


def test_both_halves_are_measured_on_their_own_bars_and_printed(context: ResearchContext, model: ScriptedOpenAI) -> None:
    panel = noise_market()
    report = ask(context, model, panel, cutoffs={"gpt-5-mini": LAST_DAY})
    memory = report.model_memory
    assert memory is not None
    assert (memory["models"], memory["cutoff"]) == (["gpt-5-mini"], "2001-12-31")
    for trial in trials_of(context, report):
        net = load_returns(context.store.artifacts, trial.returns_uri)["net"]
        returns = pd.Series(net, index=panel.index[720 - trial.n_obs : 720])  # the last fifth of 900 bars is sealed
        halves = {"before": returns[returns.index.year <= 2001], "after": returns[returns.index.year >= 2002]}
        for name, part in halves.items():
            found = memory["halves"][str(trial.trial_id)][name]
            sharpe = part.mean() / part.std(ddof=1)
            skew, kurtosis = stats.skew(part), stats.kurtosis(part, fisher=False)
            assert found["n_bars"] == len(part) > 63
            assert found["net_sharpe"] == pytest.approx(sharpe * math.sqrt(252))
            assert (found["sharpe"], found["skew"], found["kurtosis"]) == pytest.approx((sharpe, skew, kurtosis))
            threshold = expected_maximum_sharpe(report.n_trials_effective, 1.0 / (len(part) - 1))
            spread = math.sqrt(1.0 - skew * sharpe + 0.25 * (kurtosis - 1.0) * sharpe**2)
            expected = stats.norm.cdf((sharpe - threshold) * math.sqrt(len(part) - 1) / spread)
            assert found["dsr"] == pytest.approx(expected)
        assert len(halves["before"]) + len(halves["after"]) == trial.n_obs
    figures = dict(report.key_figures())
    assert report.best is not None
    assert figures["model memory"].startswith("gpt-5-mini took part and may remember what happened up to 2001-12-31")
    assert figures["model memory"].endswith("tested bars come after that day, the sealed ones do too.")
    for label in (f"{report.best.name}, up to 2001-12-31, contaminated", f"{report.best.name}, after 2001-12-31"):
        assert figures[label].startswith("net Sharpe ")
        assert "DSR" in figures[label]
    assert memory["sentence"] in report.dataset["caveats"]
    assert memory["sentence"] in report.to_html()
    assert "after 2001-12-31" in report.to_html()
    assert ResearchReport.from_dict(json.loads(json.dumps(report.to_dict()))).model_memory == memory


def test_a_model_without_a_known_cutoff_contaminates_the_whole_sample(context: ResearchContext, model: ScriptedOpenAI) -> None:
    report = ask(context, model, noise_market(), name="home-grown")
    memory = report.model_memory
    assert memory is not None
    assert memory["cutoff"] is None
    assert "the knowledge cut-off of home-grown is not known (AQF_LLM_CUTOFFS adds it)" in memory["sentence"]
    for trial in trials_of(context, report):
        halves = memory["halves"][str(trial.trial_id)]
        assert halves["before"]["n_bars"] == trial.n_obs
        assert halves["before"]["sharpe"] == pytest.approx(trial.sharpe)
        assert halves["after"] == {
            "n_bars": 0, "net_sharpe": None, "sharpe": None, "skew": None, "kurtosis": None, "dsr": None,
        }  # fmt: skip
    assert report.best is not None
    labels = [label for label, _ in report.key_figures() if label.startswith(report.best.name)]
    assert labels == [f"{report.best.name}, the whole sample, contaminated"]
    assert "model_memory" not in {check.name for finding in report.findings for check in finding.checks}


def test_what_is_promoted_on_remembered_bars_alone_says_so_in_its_verdict(
    context: ResearchContext, model: ScriptedOpenAI
) -> None:
    report = ask(context, model, reversal_market())
    assert report.verdict == "promoted"
    assert "gpt-5-mini took part and may remember what happened up to 2024-05-31" in report.sentence
    assert report.sentence.endswith("0 of 960 tested bars come after that day, the sealed ones do not.")
    assert report.model_memory is not None
    assert report.model_memory["sentence"] in report.to_markdown()


def test_bars_after_the_cutoff_are_a_condition_where_there_are_enough(context: ResearchContext, model: ScriptedOpenAI) -> None:
    report = ask(context, model, reversal_market(), cutoffs={"gpt-5-mini": LAST_DAY})
    assert report.verdict == "promoted"
    memory = report.model_memory
    assert memory is not None
    for finding in report.findings:
        (check,) = [check for check in finding.checks if check.name == "model_memory"]
        assert check.figure == memory["halves"][str(finding.trial_id)]["after"]["net_sharpe"]
        assert check.passed == (check.figure is not None and check.figure > 0.0)


@pytest.mark.parametrize(
    ("after", "outcome"),
    [
        (Half(n_bars=63, net_sharpe=0.1), [True]),
        (Half(n_bars=63, net_sharpe=-0.1), [False]),
        (Half(n_bars=63), [False]),
        (Half(n_bars=62, net_sharpe=-0.1), []),
    ],
)
def test_clean_bars_that_contradict_the_remembered_ones_bind(after: Half, outcome: list[bool]) -> None:
    memory = ModelMemory(models=("m",), unknown=(), cutoff=LAST_DAY)
    checks = gate._memory_checks(memory, Half(n_bars=500, net_sharpe=2.0), after)
    assert [check.passed for check in checks] == outcome
    assert all(check.note.endswith("2.00 over the 500 before") for check in checks)


def test_a_bar_that_closes_on_the_day_of_the_cutoff_may_be_remembered() -> None:
    index = pd.to_datetime(["2001-12-31 21:00", "2001-12-31 23:59", "2002-01-01 00:00"], utc=True)
    memory = ModelMemory(models=("m",), unknown=(), cutoff=LAST_DAY)
    np.testing.assert_array_equal(memory.is_clean(index), [False, False, True])


def test_the_rules_planner_remembers_nothing(context: ResearchContext) -> None:
    land(context, noise_market(), "market")
    report = run_planner("reversal?", dataset="market", planner="rules", context=context, budget=Budget(trials=2))
    assert report.model_memory is None
    assert "model memory" not in dict(report.key_figures())
    assert "model-memory" not in report.to_html()
