import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psycopg
import pytest

from agents.research import gate
from agents.research.report import ResearchReport
from agents.research.request import Budget, ResearchRequest
from agents.research.runner import ResearchContext, resume_run, run_planner
from core.errors import MissingDataError, StoreConflictError, StoreUnavailableError
from core.store.records import RunStatus
from core.store.research import ResearchStore
from tests.agents.worlds import QUESTION, fresh_world, land, reversal_market, trials_of
from tests.conftest import Server

ROOT = Path(__file__).resolve().parents[2]
TRIALS = 10
POINTS = ("after_recall", "in_proposals", "in_backtests", "in_last_backtest", "in_judge", "in_report")


@pytest.fixture
def world(server: Server, tmp_path: Path) -> Iterator[ResearchContext]:
    with fresh_world(server, tmp_path) as context:
        land(context, reversal_market(), "planted")
        yield context


@pytest.fixture(scope="module")
def uninterrupted(server: Server, tmp_path_factory: pytest.TempPathFactory) -> ResearchReport:
    with fresh_world(server, tmp_path_factory.mktemp("uninterrupted")) as context:
        land(context, reversal_market(), "planted")
        request = ResearchRequest(question=QUESTION, dataset="planted", vectors=False)
        report = run_planner(request, budget=Budget(trials=TRIALS), planner="rules", context=context)
    assert report.verdict == "promoted"
    return report


def start(context: ResearchContext, point: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "AQF_HOME": str(context.settings.home), "AQF_DATABASE_URL": context.store.conninfo}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.agents.killed_run", point, f"thread-{point}", str(TRIALS)],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_until_the_server_noticed(context: ResearchContext) -> None:
    """Wait for the connections of a killed process to end: it is the server that lets go of the run."""
    query = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'aqf-checkpoints'"
    with psycopg.connect(context.store.conninfo) as connection:
        for _ in range(500):
            row = connection.execute(query).fetchone()
            if row == (0,):
                return
            time.sleep(0.01)
    raise AssertionError("the server keeps the connection of a dead process")


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_is_finished_by_another_process_as_if_nothing_had_happened(
    world: ResearchContext, uninterrupted: ResearchReport, point: str
) -> None:
    with start(world, point) as process:
        process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    (run,) = world.store.service.list_runs()
    assert run.status == RunStatus.RUNNING
    wait_until_the_server_noticed(world)

    report = resume_run(run.run_id, context=world)
    assert report.run_id == str(run.run_id)
    rows = trials_of(world, report)
    assert len(rows) == len({row.config_sha256 for row in rows}) == report.n_trials == TRIALS
    assert world.store.service.gateway.select("trials", columns=("run_id",)) == [{"run_id": run.run_id}] * TRIALS
    assert world.store.service.verify_trials() == []
    assert len(world.store.service.gateway.select("holdout_openings")) == 1

    pd.testing.assert_frame_equal(report.leaderboard, uninterrupted.leaderboard)
    assert report.verdict == uninterrupted.verdict
    assert report.sentence == uninterrupted.sentence
    assert report.stop == uninterrupted.stop
    assert [call["tool_call_id"] for call in report.tool_calls] == [call["tool_call_id"] for call in uninterrupted.tool_calls]
    results = [
        [{key: value for key, value in call["result"].items() if key != "feature_id"} for call in one.tool_calls]
        for one in (report, uninterrupted)
    ]
    assert results[0] == results[1]

    again = resume_run(str(run.run_id)[:8], context=world)
    assert again.to_dict() == report.to_dict()
    assert again.charts.keys() == report.charts.keys() != set()


def test_a_run_that_somebody_works_on_is_refused_to_everybody_else(
    world: ResearchContext, uninterrupted: ResearchReport
) -> None:
    with start(world, "hold") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        (run,) = world.store.service.list_runs()
        with pytest.raises(StoreConflictError, match=f"run {run.run_id} is being worked on by another process"):
            resume_run(run.run_id, context=world)
        assert world.store.service.get_run(run.run_id).status == RunStatus.RUNNING
        process.communicate("go on\n", timeout=120)
    assert process.returncode == 0
    report = resume_run(run.run_id, context=world)
    pd.testing.assert_frame_equal(report.leaderboard, uninterrupted.leaderboard)


def test_whom_a_killed_run_did_not_open_its_hold_out_for_it_cannot_promote(
    world: ResearchContext, uninterrupted: ResearchReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a run is away others change the ledger, and with it who passes what comes before the hold-out."""

    def lose(*arguments: object) -> None:
        raise StoreUnavailableError("the database cannot be reached: a test")

    request = ResearchRequest(question=QUESTION, dataset="planted", vectors=False)
    with monkeypatch.context() as patch, pytest.raises(StoreUnavailableError):
        patch.setattr(ResearchStore, "record_holdout", lose)
        run_planner(request, budget=Budget(trials=TRIALS), planner="rules", context=world)
    (run,) = world.store.service.list_runs()
    (opening,) = world.store.service.gateway.select("holdout_openings")
    monkeypatch.setattr(gate, "MAX_CORRELATION", 1.1)
    report = resume_run(run.run_id, context=world)

    before = {finding.name: finding.verdict for finding in uninterrupted.findings}
    assert {finding.name: finding.verdict for finding in report.findings} == before
    late = [finding for finding in report.findings if finding.binding_constraint == "holdout_already_opened"]
    assert late, "without the condition on their correlation there are more candidates"
    assert not {str(finding.trial_id) for finding in late} & opening["candidates"].keys()
    for finding in report.promoted:
        assert str(finding.trial_id) in opening["candidates"]
        assert finding.checks[-1].name == "holdout"


def test_a_run_that_is_not_there_cannot_be_resumed(world: ResearchContext) -> None:
    with pytest.raises(MissingDataError, match=r"no run with the id abc: see `aqf runs`"):
        resume_run("abc", context=world)
