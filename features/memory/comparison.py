"""Compares two versions of the vector memory, and switches searches from one to the other."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.errors import MissingDataError
from core.market.panel import FloatArray
from core.store.gateway import Row
from core.store.records import Dataset
from core.store.research import ResearchStore
from features.memory.plan import EMB_TYPE

_MIN_QUERIES = 30
_DRAWS = 50


@dataclass(frozen=True, kw_only=True)
class VersionComparison:
    """Say how alike two versions find neighbours, and how much the neighbours' outcomes tell.

    Parameters
    ----------
    n_common, n_queries : int
        Windows that both versions have, and for how many of them neighbours were sought.
    overlap : float
        Mean share of the `k` nearest neighbours that both versions name, in 0..1.
    chance_overlap : float
        The same for neighbours drawn at random: `k` over the windows that may be named, on average.
    rank_ic : tuple of float
        For each version, the rank correlation of the neighbours' mean forward return with the query's own.
    random_ic, random_spread : float
        The same for `k` random windows instead of the nearest ones: mean and standard deviation over 50 draws.
    lift : tuple of float
        For each version its `rank_ic` less `random_ic`: what choosing neighbours adds; below two
        `random_spread` it is nothing.
    """

    versions: tuple[str, str]
    k: int
    n_common: int
    n_queries: int
    overlap: float
    chance_overlap: float
    rank_ic: tuple[float, float]
    random_ic: float
    random_spread: float
    lift: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def compare_versions(
    store: ResearchStore,
    dataset: Dataset,
    first: str,
    second: str,
    *,
    k: int = 10,
    max_queries: int = 1_000,
    rng: np.random.Generator | None = None,
) -> VersionComparison:
    """Compare two versions on the windows that both have, point in time.

    A window's neighbours are sought by cosine among windows whose label had ended before it ends, in both versions among the
    same ones. Exact search, not the index's.

    Parameters
    ----------
    store : ResearchStore
    dataset : Dataset
    first, second : str
        Names of the versions; either may be building.
    k : int, default=10
        Neighbours of each query.
    max_queries : int, default=1000
        Queries are spread evenly over time, at most so many.
    rng : Generator, optional
        Draws the random windows; by default one that is seeded with 0.

    Raises
    ------
    MissingDataError
        If a version is unknown, or fewer than 30 windows of both have a label and `k` earlier windows.

    Notes
    -----
    Figures are descriptive: neighbouring queries overlap, so that an interval from their number would be too narrow.
    """
    _check_versions(store, dataset, first, second)
    rows = [_by_window(store.load_embeddings(EMB_TYPE, version)) for version in (first, second)]
    common = rows[0].keys() & rows[1].keys()
    # In the order in which labels ended, what a query may name is what comes before a place.
    labelled = sorted(
        (key for key in common if rows[0][key]["label_end"] is not None), key=lambda key: (rows[0][key]["label_end"], key)
    )
    ends = _microseconds([end for _, end in labelled])
    n_before = np.searchsorted(_microseconds([rows[0][key]["label_end"] for key in labelled]), ends)
    queries = np.flatnonzero(n_before >= k)
    if len(queries) < _MIN_QUERIES:
        raise MissingDataError(
            f"not enough history: of the {len(common)} windows that both versions have, {len(queries)} have a label and {k} "
            f"windows whose labels had ended before; at least {_MIN_QUERIES} are needed. Refresh both versions to the end."
        )
    if len(queries) > max_queries:
        queries = queries[np.unique(np.linspace(0, len(queries) - 1, max_queries).astype(np.int64))]
    rng = np.random.default_rng(0) if rng is None else rng
    outcome = np.array([rows[0][key]["label"]["forward_return"] for key in labelled], dtype=np.float64)
    vectors = [np.stack([row[key]["embedding"].to_numpy() for key in labelled]) for row in rows]
    vectors = [part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in vectors]
    shared, means, random = np.empty(len(queries)), np.empty((2, len(queries))), np.empty((_DRAWS, len(queries)))
    for place, query in enumerate(queries):
        n = n_before[query]
        # In the order of time, so that the same neighbours always have the same mean.
        one, other = (np.sort(np.argsort(-(part[:n] @ part[query]), kind="stable")[:k]) for part in vectors)
        shared[place] = len(np.intersect1d(one, other)) / k
        means[:, place] = outcome[one].mean(), outcome[other].mean()
        random[:, place] = outcome[rng.integers(n, size=(_DRAWS, k))].mean(axis=1)
    own = outcome[queries]
    rank_ic = (_rank_correlation(means[0], own), _rank_correlation(means[1], own))
    drawn = np.array([_rank_correlation(draw, own) for draw in random])
    return VersionComparison(
        versions=(first, second),
        k=k,
        n_common=len(common),
        n_queries=len(queries),
        overlap=float(shared.mean()),
        chance_overlap=float((k / n_before[queries]).mean()),
        rank_ic=rank_ic,
        random_ic=float(drawn.mean()),
        random_spread=float(drawn.std(ddof=1)),
        lift=(rank_ic[0] - float(drawn.mean()), rank_ic[1] - float(drawn.mean())),
    )


def switch_version(store: ResearchStore, dataset: Dataset, version: str) -> str | None:
    """Let searches use a version from now on, in one transaction; a search sees the one before or this one, never both.

    Returns
    -------
    str or None
        The version they used before, which is retired and can be switched back to; None if there was none.

    Raises
    ------
    MissingDataError
        If the data set has no such version.
    StoreConflictError
        If it is still building; what is active stays so.
    """
    _check_versions(store, dataset, version)
    active = store.active_embedding_version(dataset, EMB_TYPE)
    store.activate_embedding_version(EMB_TYPE, version)
    return None if active is None else str(active["emb_version"])


def _check_versions(store: ResearchStore, dataset: Dataset, *versions: str) -> None:
    known = {row["emb_version"] for row in store.list_embedding_versions(dataset, EMB_TYPE)}
    for version in versions:
        if version not in known:
            raise MissingDataError(
                f"there is no version {version!r} of {dataset.name}; it has {', '.join(sorted(known)) or 'none yet'}."
            )


def _by_window(rows: list[Row]) -> dict[tuple[str, datetime], Row]:
    return {(row["asset_symbol"], row["time_range"].upper): row for row in rows}


def _microseconds(times: list[datetime]) -> npt.NDArray[np.int64]:
    return pd.DatetimeIndex(times, tz="UTC").as_unit("us").asi8


def _rank_correlation(x: FloatArray, y: FloatArray) -> float:
    """Spearman's; zero where one side does not vary."""
    ranks = [pd.Series(values).rank().to_numpy() for values in (x, y)]
    spread = ranks[0].std() * ranks[1].std()
    if spread == 0.0:
        return 0.0
    return float(((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())).mean() / spread)
