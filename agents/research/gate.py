"""The promotion gate: what a candidate must show before anybody calls it a finding.

Every condition is printed with its figure and its bound; the first that fails is the binding constraint. The order is the
order of DESIGN, cheap and certain before dear and final. The bars before the seal decide who is worth opening the sealed
hold-out for; both together decide who is promoted (decision 0016).

Two figures are judged in a way that surprises (and whose naive form is printed beside): the deflated Sharpe ratio takes
the variance of the estimator under the null, because the spread of net Sharpe ratios across trials is inflated by costs;
the probability of backtest overfitting is judged before costs, because after costs losers by turnover stay losers and
noise looks consistent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np

from agents.research.evaluation import load_return_matrix
from agents.research.findings import Check, Finding
from agents.research.holdout import judge_holdout
from agents.research.model_memory import MIN_CLEAN_BARS, Half, ModelMemory, find_model_memory, split_at_cutoff
from agents.research.session import ResearchSession
from backtest.integrity import (
    deflated_sharpe_ratio,
    equivalent_independent_trials,
    expected_maximum_sharpe,
    min_backtest_length,
    min_track_record_length,
    probability_of_backtest_overfitting,
    spa_pvalue,
)
from core.market.panel import FloatArray
from core.store.records import VECTOR_WIDTH, Trial

OPENING_DSR = 0.8
MAX_SPA_P = 0.05
MAX_PBO = 0.2
MAX_CORRELATION = 0.7
CONFIDENCE = 0.95
SPA_BLOCK_BARS = 10.0
MAX_COMPARED = 1_000


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdicts of a run and the figures all of them share."""

    findings: tuple[Finding, ...]
    n_trials_ledger: int
    n_trials_effective: int
    expected_best_noise_sharpe: float
    spa_p: float | None
    pbo: float | None
    pbo_net_naive: float | None
    holdout_opened: bool


def judge_run(session: ResearchSession) -> Judgement:
    """Judge every trial of a run against the whole ledger.

    Returns
    -------
    Judgement
        Findings, best deflated Sharpe ratio first.
    """
    store = session.store.researcher
    own = store.list_trials({"run_id": session.run_id})
    ledger = store.list_trials({"family_id": session.dataset.family_id})
    compared = _comparable(own, ledger)
    count = store.count_trials(session.lineage)
    artifacts = session.store.artifacts
    here = [trial for trial in compared if trial.run_id == session.run_id or artifacts.has(trial.returns_uri)]
    uris = [trial.returns_uri for trial in here]
    net, gross = (load_return_matrix(artifacts, uris, name) for name in ("net", "gross"))
    behaviours = store.load_behaviours(session.lineage)
    shared = _Shared(
        n_effective=count_independent_trials(np.array(list(behaviours.values())).reshape(-1, VECTOR_WIDTH)),
        spa_p=spa_pvalue(net, block_length=SPA_BLOCK_BARS, seed=0) if net.size else None,
        pbo=probability_of_backtest_overfitting(_beside_nothing(gross)) if gross.size else None,
        pbo_net=probability_of_backtest_overfitting(_beside_nothing(net)) if net.size else None,
        n_elsewhere=len(compared) - len(here),
        tradable=session.dataset.tradable,
        naive_variance=float(np.var([trial.sharpe for trial in compared], ddof=1)) if len(compared) > 1 else None,
    )
    promoted = [trial for trial in ledger if trial.promoted_here]
    memory = find_model_memory(session)
    judged: list[tuple[Trial, list[Check]]] = []
    chosen: list[Trial] = []
    for trial in sorted(own, key=lambda trial: (-_dsr(trial, shared), trial.trial_id)):
        checks = _statistical_checks(trial, shared, session.config.cost_bps)
        if memory is not None:
            before, after = split_at_cutoff(session, memory, trial, n_trials=shared.n_effective)
            checks += _memory_checks(memory, before, after)
        if all(check.passed for check in checks):
            checks.append(_redundancy(trial, [*promoted, *chosen], behaviours))
            if checks[-1].passed:
                chosen.append(trial)
        judged.append((trial, checks))
    holdout = judge_holdout(session, [(trial, _dsr(trial, shared)) for trial in chosen])
    findings = tuple(_finding(trial, checks, holdout.get(trial.trial_id), shared) for trial, checks in judged)
    return Judgement(
        findings=findings,
        n_trials_ledger=count.n_rows,
        n_trials_effective=shared.n_effective,
        expected_best_noise_sharpe=_annual(_sr0(own[0].n_obs, shared), session) if own else 0.0,
        spa_p=shared.spa_p,
        pbo=shared.pbo,
        pbo_net_naive=shared.pbo_net,
        holdout_opened=bool(holdout),
    )


@dataclass(frozen=True, kw_only=True)
class _Shared:
    n_effective: int
    spa_p: float | None
    pbo: float | None
    pbo_net: float | None
    naive_variance: float | None
    n_elsewhere: int = 0
    tradable: bool = True


def _comparable(own: Sequence[Trial], ledger: Sequence[Trial]) -> list[Trial]:
    """Keep one trial for each configuration, over the same bars as this run's, whoever made it and for whatever question.

    Of very many the run's own and the best of the others stay: both tests look at the best, and memory is finite.
    """
    if not own:
        return []
    span = (own[0].n_obs, own[0].metrics["oos_start"])
    distinct: dict[str, Trial] = {}
    for trial in [*own, *sorted(ledger, key=lambda trial: -trial.sharpe)]:
        if (trial.n_obs, trial.metrics["oos_start"]) == span and len(distinct) < max(MAX_COMPARED, len(own)):
            distinct.setdefault(trial.config_sha256, trial)
    return sorted(distinct.values(), key=lambda trial: trial.trial_id)


def _beside_nothing(returns: FloatArray) -> FloatArray:
    """Put doing nothing beside the candidates, as often as there are candidates.

    The probability of backtest overfitting asks whether the best in sample is in the lower half out of sample. Among three
    good variants of one idea that happens half the time, and adding bad ideas would cure it. With as many strategies that
    do nothing, the lower half is what loses money, whoever the other candidates are.
    """
    return np.hstack([returns, np.zeros_like(returns)])


def count_independent_trials(behaviours: FloatArray) -> int:
    """Count the independent trials that would show as good a best as these; one that never moved counts in full.

    Parameters
    ----------
    behaviours : ndarray of shape (n_trials, 320)
        As `ResearchStore.load_behaviours` gives them, one row a trial.
    """
    moved = behaviours.any(axis=1)
    return max(1, int((~moved).sum()) + (equivalent_independent_trials(behaviours[moved]) if moved.any() else 0))


def _sr0(n_obs: int, shared: _Shared) -> float:
    return expected_maximum_sharpe(shared.n_effective, 1.0 / (n_obs - 1))


def _dsr(trial: Trial, shared: _Shared, variance: float | None = None) -> float:
    value = deflated_sharpe_ratio(
        sharpe=trial.sharpe,
        n_obs=trial.n_obs,
        skew=trial.skew,
        kurtosis=trial.kurtosis,
        n_trials=shared.n_effective,
        variance=variance,
    )
    return -math.inf if value is None or math.isnan(value) else value


def _annual(per_period: float, session: ResearchSession) -> float:
    return per_period * math.sqrt(session.config.periods_per_year)


def _statistical_checks(trial: Trial, shared: _Shared, cost_bps: float) -> list[Check]:
    metrics = trial.metrics
    needed = min_track_record_length(sharpe=trial.sharpe, skew=trial.skew, kurtosis=trial.kurtosis, confidence=CONFIDENCE)
    net_sharpe = metrics["net_sharpe"]
    dsr = _dsr(trial, shared)
    naive = (
        ""
        if shared.naive_variance is None
        else f"; with the spread across trials as variance {_dsr(trial, shared, shared.naive_variance):.3f}"
    )
    break_even = metrics["break_even_bps"]
    elsewhere = f"; the returns of {shared.n_elsewhere} trials are not here: bring the artifacts of the machine that made them"
    return [
        Check(name="tradable", figure=None, bound="something that can be held", passed=shared.tradable),
        Check(
            name="leak", figure=float(metrics["leak_checks"]), bound="truncation test passed", passed=True, note="checks made"
        ),
        Check(name="net_sharpe", figure=net_sharpe, bound="> 0 out of sample after costs", passed=net_sharpe > 0),
        Check(
            name="track_record",
            figure=float(trial.n_obs),
            bound="no length is enough" if needed is None else f">= {needed:.0f} bars",
            passed=needed is not None and trial.n_obs >= needed,
            note=f"minimum track record length for a Sharpe ratio above zero{_backtest_length(trial, shared)}",
        ),
        Check(
            name="deflated_sharpe",
            figure=dsr,
            bound=f">= {OPENING_DSR} before the seal",
            passed=dsr >= OPENING_DSR,
            note=f"against {shared.n_effective} effective trials{naive}",
        ),
        Check(
            name="spa",
            figure=shared.spa_p,
            bound=f"<= {MAX_SPA_P}",
            passed=shared.spa_p is not None and shared.spa_p <= MAX_SPA_P and not shared.n_elsewhere,
            note="Hansen's test over the net returns of all comparable trials" + (elsewhere if shared.n_elsewhere else ""),
        ),
        Check(
            name="pbo",
            figure=shared.pbo,
            bound=f"<= {MAX_PBO}",
            passed=shared.pbo is not None and shared.pbo <= MAX_PBO,
            note="" if shared.pbo_net is None else f"before costs, beside doing nothing; after costs {shared.pbo_net:.2f}",
        ),
        Check(
            name="break_even",
            figure=break_even,
            bound=f"> {cost_bps:g} bps",
            passed=break_even is not None and break_even > cost_bps,
            note="cost per side that would eat the gross profit",
        ),
    ]


def _backtest_length(trial: Trial, shared: _Shared) -> str:
    """Say how many bars it takes before so many trials without skill are not expected to show this Sharpe ratio."""
    if trial.sharpe <= 0.0:
        return ""
    bars = min_backtest_length(n_trials=shared.n_effective, sharpe=trial.sharpe)
    return f"; minimum backtest length against {shared.n_effective} trials: {bars:,.0f} bars"


def _memory_checks(memory: ModelMemory, before: Half, after: Half) -> list[Check]:
    """Let the bars that a model cannot remember contradict the others, where there are enough of them (decision 0011)."""
    if after.n_bars < MIN_CLEAN_BARS:
        return []
    remembered = "n/a" if before.net_sharpe is None else f"{before.net_sharpe:.2f}"
    return [
        Check(
            name="model_memory",
            figure=after.net_sharpe,
            bound="> 0 after the model's knowledge cut-off",
            passed=after.net_sharpe is not None and after.net_sharpe > 0.0,
            note=f"net Sharpe over the {after.n_bars} bars after {memory.cutoff}; {remembered} over the {before.n_bars} before",
        )
    ]


def _redundancy(trial: Trial, others: Sequence[Trial], behaviours: Mapping[str, FloatArray]) -> Check:
    """Compare with what is promoted and about to be; behaviours are of unit length, so that a product is a correlation."""
    if any(other.feature_id == trial.feature_id and other.promoted_here for other in others):
        return Check(name="already_promoted", figure=None, bound="promoted once", passed=False, note="by an earlier run")
    own = behaviours[trial.config_sha256]
    worst = max((float(own @ behaviours[other.config_sha256]) for other in others), default=0.0)
    return Check(
        name="redundancy",
        figure=worst,
        bound=f"< {MAX_CORRELATION}",
        passed=worst < MAX_CORRELATION,
        note="correlation with a promoted feature, or with a better candidate of this run",
    )


def _finding(trial: Trial, checks: Sequence[Check], sealed: Check | None, shared: _Shared) -> Finding:
    every = (*checks, *([] if sealed is None else [sealed]))
    bound = next((check.name for check in every if not check.passed), None)
    dsr = _dsr(trial, shared)
    together = dsr if sealed is None or sealed.figure is None else sealed.figure
    metrics = {**trial.metrics, "dsr": together, "dsr_before_seal": dsr, "n_trials": shared.n_effective}
    return Finding(
        trial_id=trial.trial_id,
        feature_id=str(trial.feature_id),
        name=trial.name,
        family=trial.family,
        expression=trial.expression,
        verdict="promoted" if bound is None else "rejected",
        binding_constraint=bound,
        metrics=metrics,
        checks=every,
        hypothesis=trial.hypothesis,
    )


def record_verdicts(session: ResearchSession, findings: Sequence[Finding]) -> None:
    """Write the verdicts into the registry; doing it twice changes nothing."""
    for finding in findings:
        reason = f"passed the gate on {session.dataset.name}" if finding.promoted else finding.binding_constraint
        if reason == "holdout":
            reason = "gate"  # what the sealed bars said stays in the report, which no later search can read
        session.store.service.record_verdict(
            UUID(finding.feature_id), session.dataset, promoted=finding.promoted, reason=reason
        )
