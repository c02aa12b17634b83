import json
import math
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from scipy.stats import norm

from agents.research import gate, holdout
from agents.research.findings import Check, Finding
from agents.research.report import judgement_to_dict
from agents.research.request import Budget
from agents.research.runner import ResearchContext, run_planner
from backtest.integrity import probability_of_backtest_overfitting
from core.store.records import Trial
from tests.agents.worlds import land, noise_market, reversal_market

ORDER = ["tradable", "leak", "net_sharpe", "track_record", "deflated_sharpe", "spa", "pbo", "break_even"]
N_OBS, SHARPE = 1_000, 0.10
"""A thousand bars at an annual Sharpe ratio of 1.59, normally distributed."""


def make_trial(number: int = 1, *, sharpe: float = SHARPE, n_obs: int = N_OBS, **metrics: object) -> Trial:
    return Trial(
        trial_id=number,
        run_id=UUID(int=1),
        lineage="market:0",
        dataset_id=UUID(int=2),
        feature_id=UUID(int=number),
        name=f"idea_{number}",
        family="reversal",
        expression="(-returns)",
        expression_sha256="0" * 64,
        hypothesis="Losers rebound.",
        feature_status="tested",
        promoted_here=False,
        family_id=UUID(int=3),
        config_sha256=f"{number:064x}",
        n_obs=n_obs,
        sharpe=sharpe,
        skew=0.0,
        kurtosis=3.0,
        returns_uri="",
        metrics={
            "net_sharpe": sharpe * math.sqrt(252),
            "break_even_bps": 12.0,
            "leak_checks": 8,
            "oos_start": "2001-01-01T00:00:00+00:00",
            "rank_ic_t": 3.0,
            **metrics,
        },
    )


def make_shared(**changes: object) -> gate._Shared:
    values: dict[str, Any] = {"n_effective": 1, "spa_p": 0.01, "pbo": 0.1, "pbo_net": 0.05, "naive_variance": None, **changes}
    return gate._Shared(**values)


def judge(trial: Trial, shared: gate._Shared) -> Mapping[str, Check]:
    checks = gate._statistical_checks(trial, shared, 5.0)
    assert [check.name for check in checks] == ORDER
    return {check.name: check for check in checks}


def test_a_good_trial_passes_every_statistical_condition() -> None:
    assert all(check.passed for check in judge(make_trial(), make_shared()).values())


@pytest.mark.parametrize(
    ("name", "trial", "shared"),
    [
        ("tradable", make_trial(), make_shared(tradable=False)),
        ("net_sharpe", make_trial(sharpe=0.0), make_shared()),
        ("track_record", make_trial(n_obs=200), make_shared()),
        ("deflated_sharpe", make_trial(), make_shared(n_effective=200)),
        ("spa", make_trial(), make_shared(spa_p=0.051)),
        ("spa", make_trial(), make_shared(spa_p=None)),
        ("pbo", make_trial(), make_shared(pbo=0.21)),
        ("break_even", make_trial(break_even_bps=5.0), make_shared()),
        ("break_even", make_trial(break_even_bps=None), make_shared()),
    ],
)
def test_the_first_condition_that_fails_binds(name: str, trial: Trial, shared: gate._Shared) -> None:
    checks = list(judge(trial, shared).values())
    finding = gate._finding(trial, checks, None, shared)
    assert finding.binding_constraint == name
    assert finding.verdict == "rejected"
    assert not finding.promoted


def test_bounds_are_inclusive_where_they_say_so() -> None:
    checks = judge(make_trial(), make_shared(spa_p=0.05, pbo=0.2))
    assert checks["spa"].passed
    assert checks["pbo"].passed
    assert not judge(make_trial(break_even_bps=5.0), make_shared())["break_even"].passed


def test_overfitting_that_could_not_be_measured_does_not_pass() -> None:
    check = judge(make_trial(), make_shared(pbo=None, pbo_net=None))["pbo"]
    assert not check.passed
    assert check.figure is None


def test_trials_whose_returns_are_elsewhere_fail_the_search_wide_test() -> None:
    check = judge(make_trial(), make_shared(n_elsewhere=2))["spa"]
    assert not check.passed
    assert "the returns of 2 trials are not here" in check.note


def test_the_track_record_needed_is_that_of_bailey_and_lopez_de_prado() -> None:
    needed = 1.0 + (1.0 + 0.5 * SHARPE**2) * (norm.ppf(0.95) / SHARPE) ** 2
    check = judge(make_trial(), make_shared())["track_record"]
    assert check.figure == N_OBS
    assert check.bound == f">= {needed:.0f} bars"


def test_the_length_that_so_many_trials_need_is_printed_beside() -> None:
    gamma = 0.5772156649015329
    best_of_20 = (1 - gamma) * norm.ppf(1 - 1 / 20) + gamma * norm.ppf(1 - 1 / (20 * math.e))
    needed = (best_of_20 / SHARPE) ** 2
    note = judge(make_trial(), make_shared(n_effective=20))["track_record"].note
    assert note.endswith(f"above zero; minimum backtest length against 20 trials: {needed:,.0f} bars")
    assert judge(make_trial(sharpe=-0.1), make_shared())["track_record"].note.endswith("above zero")


def test_the_deflated_sharpe_ratio_is_against_the_best_of_as_many_noise_trials() -> None:
    n_trials = 20
    gamma = 0.5772156649015329
    quantile = (1 - gamma) * norm.ppf(1 - 1 / n_trials) + gamma * norm.ppf(1 - 1 / (n_trials * math.e))
    threshold = quantile / math.sqrt(N_OBS - 1)
    expected = norm.cdf((SHARPE - threshold) * math.sqrt(N_OBS - 1) / math.sqrt(1 + 0.5 * SHARPE**2))
    check = judge(make_trial(), make_shared(n_effective=n_trials))["deflated_sharpe"]
    assert check.figure == pytest.approx(expected, rel=1e-9)
    assert check.note == "against 20 effective trials"
    assert expected < 0.95


def test_the_naive_deflation_by_the_spread_of_trials_is_printed_beside() -> None:
    naive_variance = 0.05**2
    gamma = 0.5772156649015329
    quantile = (1 - gamma) * norm.ppf(1 - 1 / 4) + gamma * norm.ppf(1 - 1 / (4 * math.e))
    naive = norm.cdf((SHARPE - 0.05 * quantile) * math.sqrt(N_OBS - 1) / math.sqrt(1 + 0.5 * SHARPE**2))
    check = judge(make_trial(), make_shared(n_effective=4, naive_variance=naive_variance))["deflated_sharpe"]
    assert check.note.endswith(f"with the spread across trials as variance {naive:.3f}")
    assert check.figure > naive


def test_redundancy_is_the_largest_correlation_with_what_is_promoted_or_about_to_be() -> None:
    one, other = np.eye(320)[:2]
    behaviours = {
        make_trial(1).config_sha256: one,
        make_trial(2).config_sha256: other,
        make_trial(3).config_sha256: math.sqrt(0.5) * (one + other),
        make_trial(4).config_sha256: -one,
    }

    def compare(*numbers: int) -> Check:
        return gate._redundancy(make_trial(1), [make_trial(number) for number in numbers], behaviours)

    assert (compare().figure, compare().passed) == (0.0, True)
    assert (compare(2).figure, compare(2).passed) == (0.0, True)
    assert compare(2, 3).figure == pytest.approx(1 / math.sqrt(2))
    assert not compare(2, 3).passed
    assert compare(4).figure == pytest.approx(-1.0)
    assert compare(4).passed


def test_what_was_promoted_before_is_not_promoted_again() -> None:
    trial = make_trial(1)
    check = gate._redundancy(trial, [replace(make_trial(2), feature_id=trial.feature_id, promoted_here=True)], {})
    assert (check.name, check.passed) == ("already_promoted", False)


def test_doing_nothing_stands_beside_the_candidates_as_often_as_there_are_candidates() -> None:
    rng = np.random.default_rng(5)
    common = 0.01 * rng.standard_normal(800) + 0.002
    good = common[:, None] + 0.002 * rng.standard_normal((800, 3))
    junk = 0.01 * rng.standard_normal((800, 12))
    alone = probability_of_backtest_overfitting(good)
    assert alone > 0.2, "three good variants of one idea take turns at being the best"
    assert probability_of_backtest_overfitting(gate._beside_nothing(good)) < 0.02
    assert probability_of_backtest_overfitting(gate._beside_nothing(np.hstack([good, junk]))) < 0.02
    noise = [
        probability_of_backtest_overfitting(gate._beside_nothing(0.01 * rng.standard_normal((320, 10)))) for _ in range(30)
    ]
    assert 0.4 < float(np.mean(noise)) < 0.6


def test_effective_trials_count_what_moves_alike_once_and_what_never_moved_in_full() -> None:
    apart = np.eye(320)[:6]
    alike = np.tile(apart[0], (6, 1))
    still = np.zeros((2, 320))
    assert gate.count_independent_trials(apart) == 6
    assert gate.count_independent_trials(alike) in (1, 2)
    assert gate.count_independent_trials(np.vstack([apart, still])) == 8
    assert gate.count_independent_trials(still) == 2
    assert gate.count_independent_trials(np.empty((0, 320))) == 1


def test_half_alike_trials_count_between_one_and_all() -> None:
    common = np.eye(320)[0]
    rows = math.sqrt(0.5) * common + math.sqrt(0.5) * np.eye(320)[1:31]
    assert 3 <= gate.count_independent_trials(rows) <= 15


def test_only_trials_over_the_same_bars_stand_beside_each_other_and_each_configuration_once() -> None:
    own = [make_trial(1), make_trial(2)]
    shorter = make_trial(3, n_obs=999)
    later = make_trial(4, oos_start="2001-01-02T00:00:00+00:00")
    version = replace(make_trial(5), dataset_id=UUID(int=9), lineage="another question")
    repeated = replace(make_trial(6), config_sha256=own[0].config_sha256)
    kept = gate._comparable(own, [*own, shorter, later, version, repeated])
    assert [trial.trial_id for trial in kept] == [1, 2, 5]
    assert gate._comparable([], own) == []


def test_a_finding_comes_back_whole_from_what_is_stored() -> None:
    trial = make_trial()
    shared = make_shared(spa_p=0.5)
    finding = gate._finding(trial, gate._statistical_checks(trial, shared, 5.0), None, shared)
    assert finding.hypothesis == "Losers rebound."
    assert finding.metrics["dsr"] == next(check.figure for check in finding.checks if check.name == "deflated_sharpe")
    stored = json.loads(json.dumps({**finding.to_dict(), "a column of the leaderboard": 1}))
    assert Finding.from_dict(stored) == finding


def test_a_judgement_is_plain_json_even_where_a_figure_is_unknown() -> None:
    check = Check(name="deflated_sharpe", figure=-math.inf, bound=">= 0.95", passed=False)
    finding = gate._finding(make_trial(), [check], None, make_shared())
    judgement = gate.Judgement(
        findings=(finding,),
        n_trials_ledger=1,
        n_trials_effective=1,
        expected_best_noise_sharpe=0.0,
        spa_p=None,
        pbo=None,
        pbo_net_naive=None,
        holdout_opened=False,
    )
    stored = json.loads(json.dumps(judgement_to_dict(judgement), allow_nan=False))
    assert stored["findings"][0]["checks"][0]["figure"] is None


def test_the_best_of_300_noise_trials_looks_good_and_is_rejected_by_a_named_figure(context: ResearchContext) -> None:
    land(context, noise_market(), "noise")
    report = run_planner(
        "Find anything that works", dataset="noise", budget=Budget(trials=300), planner="rules", context=context
    )
    assert report.n_trials == report.n_trials_ledger == 300
    best = max(report.findings, key=lambda finding: finding.metrics["net_sharpe"])
    assert best.metrics["net_sharpe"] > 1.0
    assert best.metrics["psr"] > 0.95
    assert report.verdict == "nothing_promoted"
    assert not report.holdout_opened
    assert best.binding_constraint in ("deflated_sharpe", "spa", "pbo", "track_record")
    failed = next(check for check in best.checks if not check.passed)
    assert failed.name == best.binding_constraint
    assert failed.figure is not None
    assert failed.bound
    assert report.expected_best_noise_sharpe > 1.0
    assert 30 < report.n_trials_effective < 300
    assert f"stopped by {report.findings[0].binding_constraint}" in report.sentence


def test_a_hold_out_in_which_nothing_moves_promotes_nothing(context: ResearchContext) -> None:
    panel = reversal_market()
    first_sealed = int(panel.n_bars * 0.8)
    frozen = {name: panel.get(name).copy() for name in ("open", "high", "low", "close")}
    for values in frozen.values():
        values[first_sealed - 60 :] = panel.close[first_sealed - 60]
    land(context, panel.replace(**frozen), "frozen")
    report = run_planner("reversal", dataset="frozen", budget=Budget(trials=4), planner="rules", context=context)
    assert report.holdout_opened
    assert report.verdict == "nothing_promoted"
    (stopped, *_) = [finding for finding in report.findings if finding.binding_constraint == "holdout"]
    assert stopped.checks[-1].figure is None
    assert stopped.checks[-1].note.startswith("nothing was earned or lost over 300 sealed bars")


def judge_sealed(dsr: float, sharpe: float, *, opening: int = 1, better_passed: bool = True, n_obs: int = 250) -> Check:
    """Judge a candidate of a thousand bars by sealed returns of exactly this Sharpe ratio per bar, without skew."""
    returns = 0.01 * (sharpe + np.resize([1.0, -1.0], n_obs) * math.sqrt(1.0 - 1.0 / n_obs))
    session: Any = SimpleNamespace(config=SimpleNamespace(periods_per_year=252))
    found: Any = SimpleNamespace(net_returns=returns)
    return holdout._judge(session, make_trial(), dsr, found, opening, better_passed)[0]


def test_the_verdict_of_the_sealed_bars_is_that_of_both_samples_by_their_lengths() -> None:
    sharpe = 0.1
    behind = norm.cdf(sharpe * math.sqrt(249) / math.sqrt(1 + (1 - 1) / 4 * sharpe**2))  # two values as often: kurtosis 1
    together = norm.cdf((math.sqrt(1_000) * norm.ppf(0.9) + math.sqrt(250) * norm.ppf(behind)) / math.sqrt(1_250))
    assert judge_sealed(0.9, sharpe).figure == pytest.approx(together, abs=1e-4)
    assert together < 0.975
    assert not judge_sealed(0.9, sharpe).passed
    assert judge_sealed(0.97, sharpe).passed
    assert not judge_sealed(0.97, sharpe, opening=2).passed
    assert not judge_sealed(0.97, sharpe, better_passed=False).passed


def test_what_is_certain_before_the_seal_must_gain_behind_it_and_more_at_every_opening() -> None:
    assert not judge_sealed(1.0, -0.001).passed
    assert judge_sealed(1.0, 0.001).passed
    for opening, needed in ((2, 0.875), (3, 1 - 0.5 / 9), (5, 0.98)):
        sharpe = norm.ppf(needed) / math.sqrt(249)
        assert not judge_sealed(1.0, 0.98 * sharpe, opening=opening).passed
        assert judge_sealed(1.0, 1.02 * sharpe, opening=opening).passed


def test_each_opening_of_a_data_set_raises_the_bar_of_the_next(
    context: ResearchContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "MAX_CORRELATION", 1.1)
    land(context, reversal_market(), "planted")
    for opening, question in enumerate(("reversal?", "another reversal?"), start=1):
        report = run_planner(question, dataset="planted", budget=Budget(trials=4), planner="rules", context=context)
        decided = [finding.checks[-1].bound for finding in report.findings if finding.checks[-1].name == "holdout"]
        assert decided
        needed = 1 - 0.025 / opening**2
        assert {bound.partition(" over all bars")[0] for bound in decided} == {f"> {needed:g}"}
