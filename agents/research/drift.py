"""Has the market moved away from what the memory and the features were made on?

Hides which rows are compared. Promises that only bars before the seal are read, and that what was found on the same bars is
recorded once.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from agents.research.session import ResearchSession
from core.market.panel import Panel
from core.store.event_records import DriftEvent
from core.store.records import Dataset
from core.store.research import ResearchStore
from features.computable import Computable
from features.drift import DriftTest, compare_embeddings, compare_feature
from features.expression import parse
from features.memory import EMB_TYPE

MIN_BARS = 1_000
REFERENCE_SHARE = 0.6
CURRENT_BARS = 504
BLOCK_BARS = 63
LIMIT_P = 0.01
LIMIT_PSI = 0.25
EMBEDDINGS, FEATURE = "embedding_energy_distance", "feature_psi"
WATCHED: Mapping[str, str] = {
    "returns": "returns",
    "volatility": "ts_std(returns, 21)",
    "trend": "ts_sum(log_returns, 63)",
    "correlation": "ts_corr(returns, market_returns, 63)",
}
"""What is watched besides the promoted features."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What one comparison of the newest bars with the reference found.

    Parameters
    ----------
    metric : str
        `EMBEDDINGS` or `FEATURE`.
    name : str
        Of the feature, or type and version of the embeddings.
    value, p_value : float
        As in `features.drift.DriftTest`.
    drifted : bool
        Whether the p-value is at most 0.01, and a feature's index at least 0.25 besides.
    reference, current : tuple of (str, str)
        First and last day of either.
    """

    metric: str
    name: str
    value: float
    p_value: float
    drifted: bool
    reference: tuple[str, str]
    current: tuple[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "reference": list(self.reference), "current": list(self.current)}


def measure_drift(
    store: ResearchStore, dataset: Dataset, panel: Panel, features: Mapping[str, Computable], *, seed: int = 0
) -> list[Drift]:
    """Compare the last 504 bars with the first three fifths: the stored vectors, if there are any, and features.

    Parameters
    ----------
    store : ResearchStore
        As the `researcher`.
    panel : Panel
        The bars before the seal.
    features : mapping of str to Computable
        What to watch by name.
    seed : int, default=0
        Of rows and arrangements.

    Returns
    -------
    list of Drift
        Empty if there are fewer than 1,000 bars: too few for two years beside a reference.
    """
    if panel.n_bars < MIN_BARS:
        return []
    reference_stop = int(panel.n_bars * REFERENCE_SHARE)
    current_start = max(reference_stop, panel.n_bars - CURRENT_BARS)
    found = []
    stored = _load_vectors(store, dataset, panel)
    if stored is not None:
        name, vectors, bars = stored
        old, new = bars < reference_stop, bars >= current_start
        if old.any() and new.any():
            test = compare_embeddings(
                vectors[old],
                vectors[new],
                reference_bar=bars[old],
                current_bar=bars[new],
                block=2 * BLOCK_BARS,
                rng=_rng(seed, name),
            )
            found.append(_judge(EMBEDDINGS, name, test, panel, bars[old], bars[new]))
    bars = np.repeat(np.arange(panel.n_bars)[:, None], panel.n_assets, axis=1)
    old, new = bars < reference_stop, bars >= current_start
    for name, feature in features.items():
        values = feature.compute(panel)
        known = np.isfinite(values)
        if (known & old).any() and (known & new).any():
            test = compare_feature(
                values[known & old],
                values[known & new],
                reference_bar=bars[known & old],
                current_bar=bars[known & new],
                block=BLOCK_BARS,
                rng=_rng(seed, name),
            )
            found.append(_judge(FEATURE, name, test, panel, bars[known & old], bars[known & new]))
    return found


def watched_features(columns: Iterable[str]) -> dict[str, Computable]:
    """Return the features that are always watched, as far as these columns have them."""
    have = set(columns)
    expressions = {name: parse(text) for name, text in WATCHED.items()}
    return {name: Computable.of(expression) for name, expression in expressions.items() if expression.fields <= have}


def record_drift(
    store: ResearchStore, dataset: Dataset, found: Sequence[Drift], *, at: datetime, run_id: object = None
) -> list[Drift]:
    """Append what drifted to `drift_events`, unless the same was found on the same bars before, and return what is new.

    Parameters
    ----------
    store : ResearchStore
        As the service.
    at : datetime
        Now.
    run_id : optional
        Of the run that looked; what it has recorded itself is new to it still.
    """
    drifted = [drift for drift in found if drift.drifted]
    seen = {
        _identity(event.metric, event.details): event.details.get("run_id")
        for metric in {drift.metric for drift in drifted}
        for event in store.list_drift_events(metric, limit=10_000)
    }
    new = []
    for drift in drifted:
        details = {
            **drift.to_dict(),
            "dataset": dataset.name,
            "dataset_id": str(dataset.dataset_id),
            "run_id": None if run_id is None else str(run_id),
        }
        identity = _identity(drift.metric, details)
        if identity not in seen:
            rule = f"p <= {LIMIT_P:g}" if drift.metric == EMBEDDINGS else f"psi >= {LIMIT_PSI:g} and p <= {LIMIT_P:g}"
            store.save_drift_event(DriftEvent(metric=drift.metric, trigger_type=rule, triggered_at=at, details=details))
        if identity not in seen or (run_id is not None and seen[identity] == str(run_id)):
            new.append(drift)
    return new


def watch(session: ResearchSession) -> dict[str, Any]:
    """Measure and record drift for a run.

    Returns
    -------
    dict
        ``measured`` (every comparison), ``new`` (names of what no earlier run had found), and a ``sentence``.
    """
    blocks = {block.name: Computable.of(session.parse(block.expression)) for block in session.building_blocks}
    features = watched_features(session.panel.fields) | blocks
    store = session.store
    found = measure_drift(store.researcher, session.dataset, session.panel, features, seed=session.request.seed)
    new = record_drift(store.service, session.dataset, found, at=session.clock.now(), run_id=session.run_id)
    return {
        "measured": [drift.to_dict() for drift in found],
        "new": [drift.name for drift in new],
        "sentence": describe_drift(found),
    }


def describe_drift(found: Sequence[Drift]) -> str:
    """Say in one sentence what drifted."""
    if not found:
        return f"not measured: that takes at least {MIN_BARS:,} bars before the seal"
    drifted = [drift for drift in found if drift.drifted]
    span = f"the bars from {found[0].current[0]} on, against those up to {found[0].reference[1]}"
    if not drifted:
        return f"none of {len(found)} measures drifted in {span}"
    told = ", ".join(
        f"{drift.name} ({'energy distance' if drift.metric == EMBEDDINGS else 'PSI'} {drift.value:.2f}, "
        f"p = {drift.p_value:.3f})"
        for drift in drifted
    )
    return f"{len(drifted)} of {len(found)} measures drifted in {span}: {told}"


def _load_vectors(
    store: ResearchStore, dataset: Dataset, panel: Panel
) -> tuple[str, npt.NDArray[np.float32], npt.NDArray[np.int64]] | None:
    """Load the active version's vectors, and the bars of the panel that they end at."""
    active = store.active_embedding_version(dataset, EMB_TYPE)
    if active is None:
        return None
    rows = store.gateway.select(
        "signal_embeddings",
        columns=("embedding", "time_range", "asset_symbol"),
        where={"emb_type": EMB_TYPE, "emb_version": active["emb_version"], "dataset_id": dataset.dataset_id},
        order=("asset_symbol", "time_range"),
    )
    bars = panel.index.get_indexer(pd.DatetimeIndex([row["time_range"].upper for row in rows], tz="UTC"))
    kept = np.flatnonzero(bars >= 0)
    if not len(kept):
        return None
    vectors = np.array([rows[place]["embedding"].to_numpy() for place in kept], dtype=np.float32)
    return f"{EMB_TYPE} {active['emb_version']}", vectors, bars[kept].astype(np.int64)


def _judge(
    metric: str, name: str, test: DriftTest, panel: Panel, old: npt.NDArray[np.int64], new: npt.NDArray[np.int64]
) -> Drift:
    far = test.p_value <= LIMIT_P and (metric == EMBEDDINGS or test.value >= LIMIT_PSI)
    return Drift(
        metric=metric,
        name=name,
        value=round(test.value, 6),
        p_value=test.p_value,
        drifted=far,
        reference=(f"{panel.index[old.min()]:%Y-%m-%d}", f"{panel.index[old.max()]:%Y-%m-%d}"),
        current=(f"{panel.index[new.min()]:%Y-%m-%d}", f"{panel.index[new.max()]:%Y-%m-%d}"),
    )


def _identity(metric: str, details: Mapping[str, Any]) -> tuple[Any, ...]:
    return (metric, details.get("dataset_id"), details.get("name"), (details.get("current") or [None])[-1])


def _rng(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
