"""The sealed hold-out: opened once a lineage for the candidates that passed everything else, and the last word on each.

The bars before the seal and the sealed ones are two independent samples, and the verdict rests on both: the deflated Sharpe
ratio of the first and the probability of a positive Sharpe ratio on the second are combined with weights by their lengths,
which are fixed before anything is seen. So an edge that is strong before the seal need not be lucky behind it, and one that
is a little short before it can make up for that behind it, at the same chance of promoting what is no edge.

Candidates are judged in the order of their deflated Sharpe ratios before the seal, the best first, and none after the first
that fails, so that each may have the whole chance [1]_. Our order is not fixed beforehand as theirs is, it follows from the
first sample, which the verdict rests on too. The chance that any is promoted wrongly is still no more: the first one without
an edge in that order is the best of those, and a deflated Sharpe ratio is that of the best of as many.

References
----------
.. [1] Maurer, W., Hothorn, L. A. & Lehmacher, W. (1995). Multiple comparisons in drug clinical trials and preclinical assays:
   a-priori ordered hypotheses. Biometrie in der chemisch-pharmazeutischen Industrie, 6, 3-18.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from agents.research.findings import Check
from agents.research.session import ResearchSession
from backtest.engine import BacktestResult, run_backtest
from backtest.integrity import combine_probabilities, probabilistic_sharpe_ratio
from backtest.metrics import kurtosis, sharpe_per_period, skewness
from backtest.portfolio import scores_to_weights
from core.errors import DataError, StoreConflictError
from core.market.panel import FloatArray, Panel
from core.store.records import Trial
from features.computable import Computable

MAX_CHANCE = 0.025
"""Of promoting anything in a lineage without an edge, at the first opening of its data; the k-th has a k^2-th of it."""

MAX_SEALED_CHANCE = 0.5
"""Of passing the sealed bars by themselves without an edge, at the first opening; the k-th has a k^2-th of it."""


def judge_holdout(session: ResearchSession, chosen: Sequence[tuple[Trial, float]]) -> dict[int, Check]:
    """Open the sealed bars for the candidates that passed everything else, and let them decide.

    Parameters
    ----------
    chosen : sequence of (Trial, float)
        Candidates with their deflated Sharpe ratios before the seal, best first.

    Returns
    -------
    dict of int to Check
        By trial, of every candidate and of whatever the hold-out was opened for; empty when there was nobody to open it for.
    """
    service = session.store.service
    opened = service.find_holdout(session.lineage)
    late: list[Trial] = []
    if opened is not None and opened["run_id"] == session.run_id:  # killed after it opened: judge what it opened for
        # Others may have changed the ledger since, and with it who passes what comes before.
        late = [trial for trial, _ in chosen if str(trial.trial_id) not in opened["candidates"]]
        trials = {str(trial.trial_id): trial for trial in service.list_trials({"run_id": session.run_id})}
        ordered = sorted(opened["candidates"].items(), key=lambda item: item[1]["place"])
        chosen = [(trials[trial_id], stated["dsr"]) for trial_id, stated in ordered]
    if not chosen:
        return {}
    candidates = {
        str(trial.trial_id): {"expression": trial.expression, "dsr": dsr, "place": place}
        for place, (trial, dsr) in enumerate(chosen)
    }
    computables = {trial.trial_id: session.resolve(trial.expression) for trial, _ in chosen}
    try:
        opening = service.open_holdout(session.lineage, session.run_id, candidates)
    except StoreConflictError as error:
        return {trial.trial_id: _closed(str(error)) for trial, _ in chosen}
    panel = service.load_panel(session.dataset, session.request.symbols or None)
    checks: dict[int, Check] = {}
    record: dict[str, Any] = {}
    for trial, dsr in chosen:
        better_passed = all(check.passed for check in checks.values())
        found = _run_sealed(session, trial, computables[trial.trial_id], panel)
        checks[trial.trial_id], record[str(trial.trial_id)] = _judge(session, trial, dsr, found, opening, better_passed)
    service.record_holdout(session.lineage, session.run_id, record)
    return checks | {trial.trial_id: _closed("this run opened it before, for other candidates") for trial in late}


def _closed(why: str) -> Check:
    return Check(name="holdout_already_opened", figure=None, bound="opens once a lineage", passed=False, note=why)


def _run_sealed(session: ResearchSession, trial: Trial, computable: Computable, panel: Panel) -> BacktestResult | str:
    """Trade a candidate over the sealed bars, or say why it cannot be believed there."""
    scores = _compute_sealed(computable, panel, session)
    if isinstance(scores, str):
        return scores
    weights = scores_to_weights(scores, method=session.method, holding_bars=int(trial.metrics["holding_bars"]))
    return run_backtest(panel, weights, session.config).slice(session.panel.n_bars)


def _compute_sealed(computable: Computable, panel: Panel, session: ResearchSession) -> FloatArray | str:
    """Compute a feature on all bars, or say why it cannot be believed there.

    A plugin may behave otherwise on bars that the search never showed it: it is checked again with them.
    """
    try:
        soundness = computable.check(panel, seed=session.request.seed)
        return computable.compute(panel) if soundness.fault is None else soundness.summary
    except DataError as error:
        return str(error)


def _judge(
    session: ResearchSession, trial: Trial, dsr: float, found: BacktestResult | str, opening: int, better_passed: bool
) -> tuple[Check, dict[str, Any]]:
    """Return the verdict of the sealed bars on one candidate, and what is recorded of it."""
    if isinstance(found, str):
        check = Check(name="holdout", figure=None, bound="computed without the future", passed=False, note=found)
        return check, {"net_sharpe": None, "psr": None, "n_obs": 0}
    needed, alone = 1.0 - MAX_CHANCE / opening**2, 1.0 - MAX_SEALED_CHANCE / opening**2
    returns = found.net_returns
    n_obs = len(returns)
    bound = f"> {needed:g} over all bars, and > {alone:g} over the sealed ones alone, like every better candidate"
    said = f"over {n_obs} sealed bars; opening {opening} of this data"
    sharpe = sharpe_per_period(returns)
    if math.isnan(sharpe):
        note = f"nothing was earned or lost {said}"
        return Check(name="holdout", figure=None, bound=bound, passed=False, note=note), {
            "net_sharpe": None,
            "psr": None,
            "n_obs": n_obs,
        }
    psr = probabilistic_sharpe_ratio(sharpe=sharpe, n_obs=n_obs, skew=skewness(returns), kurtosis=kurtosis(returns))
    together = combine_probabilities([dsr, psr], [trial.n_obs, n_obs])
    net_sharpe = sharpe * math.sqrt(session.config.periods_per_year)
    check = Check(
        name="holdout",
        figure=together,
        bound=bound,
        passed=together > needed and psr > alone and better_passed,
        note=f"{dsr:.3f} before the seal; net Sharpe {net_sharpe:.2f}, probability of a positive one {psr:.3f}, {said}",
    )
    return check, {"net_sharpe": net_sharpe, "psr": psr, "n_obs": n_obs}
