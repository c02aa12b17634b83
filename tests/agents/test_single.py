import json
from pathlib import Path

import numpy as np
import pytest

from agents.research import single as module
from agents.research.gate import count_independent_trials
from agents.research.request import Budget, ResearchRequest
from agents.research.runner import ResearchContext, load_report, resume_run, run_planner
from agents.research.single import SingleBacktest, run_single_backtest
from backtest.config import BacktestConfig
from backtest.markets import no_edge
from backtest.metrics import sharpe_per_period
from core.errors import ConfigurationError, ExpressionError, MissingDataError, StoreUnavailableError, ToolFailed
from core.store.records import Dataset, RunStatus, Trial

REVERSAL = "-ts_sum(returns, 5)"


def backtest(context: ResearchContext, what: str = REVERSAL, **options: object) -> SingleBacktest:
    return run_single_backtest(what, context=context, dataset="noise", **options)  # type: ignore[arg-type]


def trials(context: ResearchContext, data: Dataset) -> list[Trial]:
    return context.store.service.list_trials({"family_id": data.family_id})


def test_a_backtest_by_hand_is_a_trial_of_the_ledger_with_the_figures_of_its_report(
    context: ResearchContext, market: Dataset
) -> None:
    done = backtest(context)
    (trial,) = trials(context, market)
    assert done.trial_id == trial.trial_id
    assert trial.sharpe == sharpe_per_period(done.report.result.net_returns)
    assert trial.metrics["sharpe"] == done.report.figures["sharpe"]
    assert (done.n_trials_ledger, done.n_trials_effective, done.report.figures["n_tried"]) == (1, 1, 1)
    assert f"trial {trial.trial_id} of the ledger, which holds 1 on noise" in done.report.evidence
    assert done.page == context.settings.home / "runs" / done.run_id / "report.html"
    assert done.page.is_file()
    calls = context.store.service.list_tool_calls(done.run_id)  # type: ignore[arg-type]
    assert [call["tool"] for call in calls] == ["propose_new_feature", "run_backtest"]
    assert context.store.service.verify_trials() == []


def test_every_further_trial_counts_against_the_next_report_and_the_same_one_counts_once(
    context: ResearchContext, market: Dataset
) -> None:
    first = backtest(context)
    again = backtest(context)
    other = backtest(context, "rank(ts_std(returns, 21))")
    assert [one.n_trials_ledger for one in (first, again, other)] == [1, 2, 3]
    lineage = ResearchRequest.from_dict(context.store.service.get_run(other.run_id).request).lineage
    behaviours = np.array(list(context.store.service.load_behaviours(lineage).values()))
    assert len(behaviours) == 2
    assert other.report.figures["n_tried"] == count_independent_trials(behaviours)
    assert again.report.figures["dsr"] == first.report.figures["dsr"]


def test_sealed_bars_are_not_read(context: ResearchContext, market: Dataset) -> None:
    done = backtest(context)
    assert done.report.result.index[-1] < market.sealed_from
    assert f"Bars from {market.sealed_from:%Y-%m-%d} on are sealed" in done.report.caveats[0]
    assert context.store.service.find_holdout("noise") is None


def test_holding_and_settings_are_those_that_were_asked_for(context: ResearchContext, market: Dataset) -> None:
    free = BacktestConfig(commission_bps=0.0, slippage_bps=0.0, borrow_rate=0.0, fill="open")
    done = backtest(context, holding_bars=7, config=free, symbols=("S00", "S01", "S02", "S03", "S04"))
    assert done.holding_bars == 7
    assert "each target is held 7 bars, as asked for" in done.report.caveats[0]
    assert done.report.result.config == free
    assert done.report.figures["sharpe"] == done.report.figures["gross_sharpe"]
    (trial,) = trials(context, market)
    config = context.store.service.gateway.select("trials", where={"trial_id": trial.trial_id})[0]["config"]
    assert config["holding_grid"] == [7]
    assert config["backtest"] == free.to_dict()
    assert len(config["symbols"]) == 5


def test_a_new_feature_gets_the_name_it_is_given_and_a_known_one_keeps_its_own(
    context: ResearchContext, market: Dataset
) -> None:
    named = backtest(context, name="weekly reversal")
    assert named.name == "weekly reversal"
    assert named.report.title == "weekly reversal on noise"
    assert backtest(context).name == "weekly reversal"


def test_what_cannot_be_held_is_said_before_any_figure(context: ResearchContext) -> None:
    panel = no_edge(seed=3, n_assets=2, n_bars=900)
    context.store.service.import_dataset(panel, name="index", source="backtest.markets", tradable=False, synthetic=True)
    done = run_single_backtest(REVERSAL, context=context, dataset="index")
    assert done.report.notes == ("index cannot be held: nobody could have earned any of this.",)
    assert done.report.figures["rank_ic"] is None


def test_what_is_no_expression_is_refused_before_a_run_begins(context: ResearchContext, market: Dataset) -> None:
    with pytest.raises(ExpressionError, match="this is not a formula"):
        backtest(context, "no such thing(")
    with pytest.raises(ConfigurationError, match="`holding_bars` must be at least 1, was 0"):
        backtest(context, holding_bars=0)
    with pytest.raises(MissingDataError, match="unknown data set 'nois'"):
        run_single_backtest(REVERSAL, context=context, dataset="nois")
    assert context.store.service.list_runs() == []


def test_a_feature_that_never_takes_a_position_is_no_trial_and_its_run_failed(
    context: ResearchContext, market: Dataset
) -> None:
    with pytest.raises(ToolFailed, match="never takes a position"):
        backtest(context, "returns - returns")
    (run,) = context.store.service.list_runs()
    assert run.status == RunStatus.FAILED
    assert trials(context, market) == []


def test_a_trial_stays_in_the_ledger_when_its_report_cannot_be_written(
    context: ResearchContext, market: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(module, "report_folder", lambda home, run_id: tmp_path / "file")
    with pytest.raises(StoreUnavailableError, match="cannot be written"):
        backtest(context)
    assert len(trials(context, market)) == 1
    (run,) = context.store.service.list_runs()
    assert run.status == RunStatus.FAILED


def test_its_run_is_neither_resumed_nor_shown_as_research(context: ResearchContext, market: Dataset) -> None:
    done = backtest(context)
    run = context.store.service.get_run(done.run_id)
    assert (run.status, run.usage["trials"]) == (RunStatus.FINISHED, 1)
    for ask in (lambda: load_report(context, run), lambda: resume_run(done.run_id, context=context)):
        with pytest.raises(MissingDataError, match=r"is a single backtest.*report\.html"):
            ask()


def test_a_planner_remembers_and_counts_what_was_tried_by_hand(context: ResearchContext, market: Dataset) -> None:
    done = backtest(context)
    report = run_planner("Anything?", dataset="noise", budget=Budget(trials=2), planner="rules", context=context)
    assert report.n_trials_ledger == 3
    assert done.expression not in set(report.leaderboard["expression"])
    assert report.recalled["n_trials"] == 1


def test_what_scripts_read_is_json(context: ResearchContext, market: Dataset) -> None:
    done = backtest(context)
    found = json.loads(json.dumps(done.to_dict(), allow_nan=False))
    assert found["run_id"] == done.run_id
    assert found["metrics"]["sharpe"] == done.report.figures["sharpe"]
    assert found["report"] == str(done.page)
    assert "report_folder" not in found
