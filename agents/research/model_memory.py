"""What a language model may remember of the bars its ideas are judged on.

A model has read what was written up to its knowledge cut-off, also about which ideas worked. Bars up to then are not out of
sample for it, whatever the walk-forward run does. So its results are split there, and both halves are printed. A model whose
cut-off is not known may remember every bar.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from agents.research.evaluation import load_returns
from agents.research.session import ResearchSession
from backtest.integrity import deflated_sharpe_ratio
from backtest.metrics import kurtosis, sharpe_per_period, skewness
from core.market.panel import FloatArray
from core.store.records import Trial

MIN_CLEAN_BARS = 63
"""Fewer bars after the cut-off decide nothing, as in a hold-out."""


@dataclass(frozen=True, kw_only=True)
class ModelMemory:
    """Tell which models took part in a run and up to when they may remember.

    Parameters
    ----------
    models : tuple of str
        Models that answered in this run.
    unknown : tuple of str
        Those of them whose cut-off is not in the settings.
    cutoff : date or None
        The latest cut-off of them all; None when one is not known.
    """

    models: tuple[str, ...]
    unknown: tuple[str, ...]
    cutoff: date | None

    def is_clean(self, index: pd.DatetimeIndex) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Tell which bars closed after the day of the cut-off, UTC."""
        if self.cutoff is None:
            return np.zeros(len(index), dtype=np.bool_)
        return np.asarray(index >= pd.Timestamp(self.cutoff, tz="UTC") + pd.Timedelta(days=1))


@dataclass(frozen=True, kw_only=True)
class Half:
    """Hold what a trial earned on one side of the cut-off, after costs, with what its deflated Sharpe ratio is made of.

    Parameters
    ----------
    net_sharpe : float or None
        Annualised; None, as all that follows, where there are fewer than two bars or nothing was earned or lost.
    sharpe, skew, kurtosis : float or None
        Per period.
    dsr : float or None
        Deflated Sharpe ratio on these bars alone, against all trials.
    """

    n_bars: int
    net_sharpe: float | None = None
    sharpe: float | None = None
    skew: float | None = None
    kurtosis: float | None = None
    dsr: float | None = None


def find_model_memory(session: ResearchSession) -> ModelMemory | None:
    """Return which models took part in a run, read off the bill; None when none did."""
    rows = session.store.service.gateway.select("llm_usage", columns=("model",), where={"run_id": session.run_id})
    models = tuple(sorted({row["model"] for row in rows}))
    if not models:
        return None
    cutoffs = session.settings.llm_cutoffs
    unknown = tuple(model for model in models if model not in cutoffs)
    return ModelMemory(models=models, unknown=unknown, cutoff=None if unknown else max(cutoffs[model] for model in models))


def split_at_cutoff(session: ResearchSession, memory: ModelMemory, trial: Trial, *, n_trials: int) -> tuple[Half, Half]:
    """Return what a trial earned up to the cut-off, and after it."""
    net = load_returns(session.store.artifacts, trial.returns_uri)["net"]
    clean = memory.is_clean(session.panel.index[-trial.n_obs :])
    year = session.config.periods_per_year
    return _measure(net[~clean], n_trials, year), _measure(net[clean], n_trials, year)


def describe(session: ResearchSession, memory: ModelMemory, tested: pd.DatetimeIndex) -> str:
    """Say in words what the model may remember and which bars that leaves."""
    if memory.unknown:
        return (
            f"{_listed(memory.models)} took part, and the knowledge cut-off of {_listed(memory.unknown)} is not known "
            "(AQF_LLM_CUTOFFS adds it): every bar may be remembered, the sealed ones included, so nothing here is out of "
            "sample for the model."
        )
    dataset = session.dataset
    sealed = memory.is_clean(pd.to_datetime([dataset.sealed_from, dataset.last_ts], utc=True))
    ends = "do too" if sealed.all() else "do in part" if sealed.any() else "do not"
    n_clean = int(memory.is_clean(tested).sum())
    return (
        f"{_listed(memory.models)} took part and may remember what happened up to {memory.cutoff}, so that earlier bars are "
        f"not out of sample for its ideas: {n_clean:,} of {len(tested):,} tested bars come after that day, "
        f"the sealed ones {ends}."
    )


def _measure(net: FloatArray, n_trials: int, periods_per_year: int) -> Half:
    sharpe = sharpe_per_period(net) if len(net) > 1 else float("nan")
    if not np.isfinite(sharpe):
        return Half(n_bars=len(net))
    skew, kurt = skewness(net), kurtosis(net)
    return Half(
        n_bars=len(net),
        net_sharpe=sharpe * periods_per_year**0.5,
        sharpe=sharpe,
        skew=skew,
        kurtosis=kurt,
        dsr=deflated_sharpe_ratio(sharpe=sharpe, n_obs=len(net), skew=skew, kurtosis=kurt, n_trials=n_trials),
    )


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join(names)
