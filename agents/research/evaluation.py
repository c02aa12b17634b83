"""From a feature to a trial: test for leaks, compute, backtest walk-forward, append to the ledger.

The only place where the research side learns a Sharpe ratio of a searched strategy, and it learns it from the ledger's
answer: the row is written first.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from agents.research.session import ResearchSession
from backtest.integrity import deflated_sharpe_ratio, probabilistic_sharpe_ratio
from backtest.metrics import kurtosis, sharpe_per_period, skewness
from backtest.portfolio import compute_targets
from backtest.walkforward import WalkForwardResult, run_walk_forward
from core.errors import DataError, MissingDataError, ToolFailed
from core.market.panel import FloatArray
from core.provenance import sha256_of
from core.store.artifacts import FEATURE_SNAPSHOTS, ArtifactStore
from core.store.records import VECTOR_WIDTH, Feature, FeatureStatus, Trial, TrialRecord
from features.computable import Computable


@dataclass(frozen=True, kw_only=True)
class TrialSummary:
    """What a trial tells the planner: measured out of sample, net where it says so."""

    trial_id: int
    feature_id: str
    name: str
    family: str
    expression: str
    n_obs: int
    rank_ic: float | None
    rank_ic_t: float | None
    gross_sharpe: float | None
    net_sharpe: float | None
    turnover: float | None
    break_even_bps: float | None
    dsr: float | None


def evaluate_feature(session: ResearchSession, feature: Feature) -> TrialSummary:
    """Make one trial of a feature and return what the ledger holds of it.

    Raises
    ------
    ToolFailed
        If the feature leaks, is a plugin that breaks its contract, or never takes a position on this data.
    """
    try:
        computable = session.resolve(feature.expression)
        soundness = computable.check(session.panel, seed=session.request.seed)
        if soundness.fault is not None:
            session.store.service.set_feature_status(feature.feature_id, FeatureStatus.REJECTED, soundness.fault)
            why = "uses the future" if soundness.fault == "leak" else "is not sound"
            raise ToolFailed(f"{feature.name} {why} and was rejected: {soundness.summary}")
        scores = computable.compute(session.panel)
        weights = compute_targets(scores, method=session.method, gross=1.0)
        if _depends_on_level(session, computable, weights):
            session.store.service.set_feature_status(feature.feature_id, FeatureStatus.REJECTED, "price_level")
            raise ToolFailed(
                f"{feature.name} depends on the level of prices or volumes. Adjusted prices have their level from splits and "
                "dividends that came later, so that it looks ahead: divide by a price or volume of the same symbol, as in "
                "close / ts_mean(close, 20)."
            )
        outcome = run_walk_forward(
            session.panel, scores, session.config, session.splits, session.holding_grid, method=session.method
        )
    except DataError as error:
        raise ToolFailed(f"{feature.name} cannot be computed on {session.dataset.name}: {error}") from error
    result = outcome.result
    if outcome.net_sharpe is None:
        raise ToolFailed(
            f"{feature.name} never takes a position on {session.dataset.name}: it has no value there, or no differences."
        )
    config = {
        "expression": feature.expression,
        "content_sha256": session.dataset.content_sha256,
        "symbols": list(session.panel.symbols),
        "backtest": session.config.to_dict(),
        "splits": asdict(session.splits),
        "holding_grid": list(session.holding_grid),
        "method": session.method,
    }
    sharpe = sharpe_per_period(result.net_returns)
    skew, kurt, n_obs = skewness(result.net_returns), kurtosis(result.net_returns), len(result.net_returns)
    n_before = session.store.researcher.count_trials(session.lineage).n_distinct
    dsr = deflated_sharpe_ratio(sharpe=sharpe, n_obs=n_obs, skew=skew, kurtosis=kurt, n_trials=n_before + 1)  # a lower bound
    metrics = {
        **result.metrics,
        "rank_ic": outcome.rank_ic_mean,
        "rank_ic_t": outcome.rank_ic_t,
        "rank_ic_by_year": {str(year): value for year, value in outcome.rank_ic_by_year.items()},
        "gross_sharpe": outcome.gross_sharpe,
        "net_sharpe": outcome.net_sharpe,
        "break_even_bps": outcome.break_even_bps,
        "psr": probabilistic_sharpe_ratio(sharpe=sharpe, n_obs=n_obs, skew=skew, kurtosis=kurt),
        "dsr": dsr,
        "n_trials": n_before + 1,
        "holding_bars": outcome.final_holding_bars,
        "leak_checks": soundness.n_checks,
        "oos_start": result.index[0].isoformat(),
    }
    trial_id = session.store.researcher.record_trial(
        TrialRecord(
            run_id=session.run_id,
            feature_id=feature.feature_id,
            strategy_id=f"{feature.name}@{session.dataset.name}",
            config=config,
            config_sha256=sha256_of(config),
            n_obs=n_obs,
            sharpe=sharpe,
            skew=skew,
            kurtosis=kurt,
            returns_uri=save_returns(session.store.artifacts, outcome),
            behaviour=compute_behaviour(result.gross_returns),
            metrics=metrics,
        )
    )
    if feature.status == FeatureStatus.PROPOSED:
        session.store.service.set_feature_status(feature.feature_id, FeatureStatus.TESTED, None)
    return _summary(session.store.researcher.list_trials({"trial_id": trial_id})[0])


def is_worth_a_trial(session: ResearchSession, expression: str) -> bool:
    """Tell whether an expression takes positions on this data, and not by the level of prices; no return is looked at."""
    try:
        computable = session.resolve(expression)
        weights = compute_targets(computable.compute(session.panel), method=session.method, gross=1.0)
        return bool(weights.any()) and not _depends_on_level(session, computable, weights)
    except DataError:  # it cannot be computed on this data
        return False


def _depends_on_level(session: ResearchSession, computable: Computable, weights: FloatArray) -> bool:
    """Tell whether the weights change when each symbol's prices are multiplied, and its volume divided, by a constant.

    That is what a later split does to the past of an adjusted series. The truncation test cannot see it, because the
    adjustment is in the data. The constants are powers of two, which change no digit of a quotient.
    """
    panel = session.panel
    factors = 2.0 ** np.random.default_rng(session.request.seed).permutation(np.arange(panel.n_assets) % 7 - 3)
    prices = {name: panel.get(name) * factors for name in panel.fields if name in ("open", "high", "low", "close")}
    volumes = {name: panel.get(name) / factors for name in panel.fields if name == "volume"}
    scores = computable.compute(panel.replace(**prices, **volumes))
    moved = np.abs(weights - compute_targets(scores, method=session.method, gross=1.0)).max(axis=1) > 1e-6
    return int(moved.sum()) > 0.01 * max(1, int(weights.any(axis=1).sum()))


def compute_behaviour(gross_returns: FloatArray) -> FloatArray | None:
    """Describe how a strategy moves, so that a cosine between two descriptions is a correlation.

    Parameters
    ----------
    gross_returns : ndarray of shape (n_periods,), fractions

    Returns
    -------
    ndarray of shape (320,) or None
        Sums over 320 equal spans of time, centred, of unit length; None for a strategy that never moved.
    """
    edges = np.linspace(0, len(gross_returns), VECTOR_WIDTH + 1).astype(np.int64)
    sums = np.diff(np.concatenate([[0.0], np.cumsum(gross_returns)])[edges])
    centred = sums - sums.mean()
    length = float(np.linalg.norm(centred))
    return centred / length if length > 0 else None


def save_returns(artifacts: ArtifactStore, outcome: WalkForwardResult) -> str:
    """Keep what a trial earned, bar by bar, so that later judgements can set it beside other trials."""
    buffer = io.BytesIO()
    result = outcome.result
    np.savez(buffer, net=result.net_returns, gross=result.gross_returns, turnover=result.turnover, rank_ic=outcome.rank_ic)
    return artifacts.save(FEATURE_SNAPSHOTS, buffer.getvalue(), "npz")


def load_returns(artifacts: ArtifactStore, uri: str) -> Mapping[str, FloatArray]:
    """Load what :func:`save_returns` kept: ``net``, ``gross``, ``turnover`` and ``rank_ic``, each of shape (n_periods,)."""
    with np.load(io.BytesIO(artifacts.load(uri)), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def load_return_matrix(artifacts: ArtifactStore, uris: Sequence[str], name: str) -> FloatArray:
    """Load one series of several trials as an array of shape (n_periods, n_trials), (0, 0) for none.

    Raises
    ------
    MissingDataError
        If the trials do not cover the same number of bars.
    """
    if not uris:
        return np.empty((0, 0))
    columns = [load_returns(artifacts, uri)[name] for uri in uris]
    if len({len(column) for column in columns}) > 1:
        raise MissingDataError("trials over different spans cannot stand beside each other.")
    return np.column_stack(columns)


def _summary(trial: Trial) -> TrialSummary:
    return TrialSummary(
        trial_id=trial.trial_id,
        feature_id=str(trial.feature_id),
        name=trial.name,
        family=trial.family,
        expression=trial.expression,
        n_obs=trial.n_obs,
        rank_ic=_number(trial.metrics, "rank_ic"),
        rank_ic_t=_number(trial.metrics, "rank_ic_t"),
        gross_sharpe=_number(trial.metrics, "gross_sharpe"),
        net_sharpe=_number(trial.metrics, "net_sharpe"),
        turnover=_number(trial.metrics, "turnover"),
        break_even_bps=_number(trial.metrics, "break_even_bps"),
        dsr=_number(trial.metrics, "dsr"),
    )


def _number(metrics: Mapping[str, Any], name: str) -> float | None:
    value = metrics.get(name)
    return None if value is None else float(value)
