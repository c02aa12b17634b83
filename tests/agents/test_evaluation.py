import io
from uuid import uuid4

import numpy as np
import pytest

from agents.research.evaluation import compute_behaviour, evaluate_feature, load_return_matrix, load_returns
from agents.research.request import Budget, ResearchRequest
from agents.research.runner import ResearchContext
from agents.research.session import ResearchSession
from backtest.metrics import sharpe_per_period
from core.errors import MissingDataError, ToolFailed
from core.store.artifacts import FEATURE_SNAPSHOTS
from core.store.records import Feature, FeatureStatus
from features import parse
from tests.agents.worlds import QUESTION, land, noise_market


@pytest.fixture
def session(context: ResearchContext) -> ResearchSession:
    dataset = land(context, noise_market(n_bars=600), "noise")
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


def propose(session: ResearchSession, text: str) -> Feature:
    parsed = parse(text)
    return session.store.researcher.propose_feature(
        {
            "name": text,
            "expression": parsed.canonical,
            "expression_sha256": parsed.sha256,
            "lookback": parsed.lookback,
            "run_id": str(session.run_id),
        }
    )


def test_a_trial_is_in_the_ledger_before_anybody_learns_its_figures(session: ResearchSession) -> None:
    feature = propose(session, "-ts_sum(returns, 5)")
    summary = evaluate_feature(session, feature)
    (trial,) = session.store.service.list_trials({"run_id": session.run_id})
    assert summary.trial_id == trial.trial_id
    assert summary.net_sharpe == trial.metrics["net_sharpe"] == pytest.approx(trial.sharpe * np.sqrt(252), rel=1e-12)
    series = load_returns(session.store.artifacts, trial.returns_uri)
    assert sharpe_per_period(series["net"]) == pytest.approx(trial.sharpe, rel=1e-12)
    assert series["gross"].sum() > series["net"].sum()
    (feature,) = session.store.service.list_features({"feature_id": feature.feature_id})
    assert feature.status == FeatureStatus.TESTED


def test_a_trial_that_was_made_before_a_crash_is_answered_as_it_was(session: ResearchSession) -> None:
    feature = propose(session, "-ts_sum(returns, 5)")
    first = evaluate_feature(session, feature)
    assert first.dsr is not None
    assert evaluate_feature(session, feature) == first
    assert len(session.store.service.list_trials({"run_id": session.run_id})) == 1


def test_each_trial_lowers_the_deflated_sharpe_ratio_that_the_next_one_is_told(session: ResearchSession) -> None:
    told = [evaluate_feature(session, propose(session, f"-ts_sum(returns, {window})")) for window in (5, 6, 7)]
    rows = session.store.service.list_trials({"run_id": session.run_id})
    assert [row.metrics["n_trials"] for row in rows] == [1, 2, 3]
    assert told[0].dsr == rows[0].metrics["psr"]
    assert all(row.metrics["dsr"] < row.metrics["psr"] for row in rows[1:])


@pytest.mark.parametrize("expression", ["close - close", "ts_mean(returns, 479)"])
def test_an_idea_that_never_takes_a_position_is_no_trial(session: ResearchSession, expression: str) -> None:
    with pytest.raises(ToolFailed, match="never takes a position on noise"):
        evaluate_feature(session, propose(session, expression))
    assert session.store.service.list_trials({"run_id": session.run_id}) == []


def test_a_behaviour_is_centred_and_of_unit_length_so_that_products_are_correlations() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 640)).repeat(5, axis=1)
    one, other = compute_behaviour(first), compute_behaviour(0.5 * first + second)
    sums = [values.reshape(320, 10).sum(axis=1) for values in (first, 0.5 * first + second)]
    assert one.shape == (320,)
    assert one.sum() == pytest.approx(0.0, abs=1e-12)
    assert one @ one == pytest.approx(1.0)
    assert one @ other == pytest.approx(np.corrcoef(sums[0], sums[1])[0, 1])
    assert compute_behaviour(3.0 * first) == pytest.approx(one)


def test_what_never_moved_has_no_behaviour() -> None:
    assert compute_behaviour(np.zeros(500)) is None


def test_returns_over_different_spans_do_not_stand_beside_each_other(session: ResearchSession) -> None:
    evaluate_feature(session, propose(session, "-ts_sum(returns, 5)"))
    evaluate_feature(session, propose(session, "-ts_sum(returns, 9)"))
    uris = [trial.returns_uri for trial in session.store.service.list_trials({"run_id": session.run_id})]
    matrix = load_return_matrix(session.store.artifacts, uris, "gross")
    assert matrix.shape == (session.panel.n_bars - session.splits.min_train, 2)
    assert np.corrcoef(matrix.T)[0, 1] > 0.3
    with pytest.raises(MissingDataError, match="different spans"):
        load_return_matrix(session.store.artifacts, [uris[0], _cut(session, uris[1])], "gross")


def _cut(session: ResearchSession, uri: str) -> str:
    buffer = io.BytesIO()
    np.savez(buffer, **{name: values[:-1] for name, values in load_returns(session.store.artifacts, uri).items()})
    return session.store.artifacts.save(FEATURE_SNAPSHOTS, buffer.getvalue(), "npz")
