"""A search of 500 trials over pure noise, on the real ledger and the real gate: its best looks good and is refused."""

import io
import math
from uuid import uuid4

import numpy as np

from agents.research.evaluation import compute_behaviour
from agents.research.gate import judge_run
from agents.research.report import ResearchReport, build_report, judgement_to_dict
from agents.research.request import Budget, ResearchRequest
from agents.research.runner import ResearchContext
from agents.research.session import ResearchSession
from backtest.integrity import min_backtest_length
from backtest.metrics import kurtosis, sharpe_per_period, skewness
from core.provenance import sha256_of
from core.store.artifacts import FEATURE_SNAPSHOTS
from core.store.records import TrialRecord
from features import parse
from tests.agents.worlds import QUESTION, land, noise_market

N_TRIALS, N_OBS = 500, 756
"""Three years of daily bars: luck alone shows an annual Sharpe ratio of about 1.75 among 500 independent trials."""


def open_session(context: ResearchContext) -> ResearchSession:
    dataset = land(context, noise_market(n_bars=1_300), "noise")
    request = ResearchRequest(question=QUESTION, dataset=dataset.name)
    run_id = uuid4()
    context.store.service.create_run(
        run_id=run_id,
        request=request.to_dict(),
        dataset=dataset,
        lineage=request.lineage,
        thread_id=str(run_id),
        planner="rules",
        budget={},
        code_version="test",
    )
    return ResearchSession(
        store=context.store,
        settings=context.settings,
        clock=context.clock,
        run_id=run_id,
        request=request,
        budget=Budget(),
        dataset=dataset,
        panel=context.store.researcher.load_panel(dataset),
    )


def record_noise(session: ResearchSession, number: int, gross: np.ndarray) -> None:
    """Append what a strategy without skill earned, before a small cost, to the ledger."""
    parsed = parse(f"-ts_sum(returns, {number + 2})")
    feature = session.store.researcher.propose_feature(
        {
            "name": f"noise_{number}",
            "expression": parsed.canonical,
            "expression_sha256": parsed.sha256,
            "lookback": parsed.lookback,
            "run_id": str(session.run_id),
        }
    )
    net = gross - 1e-5
    sharpe = sharpe_per_period(net)
    buffer = io.BytesIO()
    np.savez(buffer, net=net, gross=gross, turnover=np.full(N_OBS, 0.02), rank_ic=np.zeros(N_OBS))
    config = {"expression": parsed.canonical}
    session.store.researcher.record_trial(
        TrialRecord(
            run_id=session.run_id,
            feature_id=feature.feature_id,
            strategy_id=f"noise_{number}@noise",
            config=config,
            config_sha256=sha256_of(config),
            n_obs=N_OBS,
            sharpe=sharpe,
            skew=skewness(net),
            kurtosis=kurtosis(net),
            returns_uri=session.store.artifacts.save(FEATURE_SNAPSHOTS, buffer.getvalue(), "npz"),
            behaviour=compute_behaviour(gross),
            metrics={
                "net_sharpe": sharpe * math.sqrt(252),
                "gross_sharpe": sharpe_per_period(gross) * math.sqrt(252),
                "break_even_bps": 1e4 * float(gross.mean()) / 0.02,
                "leak_checks": 8,
                "oos_start": session.panel.index[-N_OBS].isoformat(),
                "rank_ic_t": 0.0,
            },
        )
    )


def report_on(session: ResearchSession) -> ResearchReport:
    return build_report(
        session,
        {
            "judgement": judgement_to_dict(judge_run(session)),
            "step": 1,
            "recalled": {"sentence": ""},
            "vectors": {},
            "stop": "The budget of 500 trials is used.",
        },
    )


def test_the_best_of_500_noise_trials_shows_more_than_1_2_and_is_rejected_by_a_named_figure(context: ResearchContext) -> None:
    session = open_session(context)
    noise = np.random.default_rng(11).standard_t(5, (N_OBS, N_TRIALS))
    for number, column in enumerate(0.006 * noise.T):
        record_noise(session, number, column)
    report = report_on(session)

    best = report.findings[0]
    assert report.n_trials == report.n_trials_ledger == N_TRIALS
    assert best.metrics["net_sharpe"] == max(finding.metrics["net_sharpe"] for finding in report.findings) > 1.2
    assert report.verdict == "nothing_promoted"
    assert report.promoted == ()
    assert not report.holdout_opened

    checks = {check.name: check for check in best.checks}
    assert checks["net_sharpe"].passed
    assert checks["track_record"].passed
    assert checks["break_even"].passed
    assert best.binding_constraint == "deflated_sharpe"
    assert not checks["deflated_sharpe"].passed
    assert not checks["spa"].passed
    assert not checks["pbo"].passed
    assert f"is stopped by deflated_sharpe ({best.metrics['dsr']:.3f}, needed >= 0.8 before the seal)" in report.sentence
    assert f"as {report.n_trials_effective} independent ones" in report.sentence
    assert "stopped by deflated_sharpe" in report.to_markdown()

    assert report.n_trials_effective > 250
    assert report.expected_best_noise_sharpe > 1.2
    assert min_backtest_length(n_trials=report.n_trials_effective, sharpe=1.2) > N_OBS / 252
