"""What the research store gives and takes: frozen records, one a table, and the enumerations of their columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

import numpy as np
import numpy.typing as npt

from core.store.gateway import Row

VECTOR_WIDTH = 320
"""Width of every window embedding and of a trial's behaviour, here, in the encoders and in the migrations."""


class FeatureStatus(StrEnum):
    """Life of a feature; mirrors the SQL type `feature_status`."""

    PROPOSED = "proposed"
    TESTED = "tested"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    RETIRED = "retired"


class FeatureKind(StrEnum):
    """How a feature is written; mirrors the SQL type `feature_kind`."""

    EXPRESSION = "expression"
    PLUGIN = "plugin"


class RunStatus(StrEnum):
    """Life of a research run; mirrors the SQL type `run_status`."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


class EmbeddingVersionStatus(StrEnum):
    """Life of an embedding version; mirrors the SQL type `embedding_version_status`."""

    BUILDING = "building"
    ACTIVE = "active"
    RETIRED = "retired"


class JobStatus(StrEnum):
    """Life of an embedding job; mirrors the SQL type `job_status`."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class _Record:
    @classmethod
    def from_row(cls, row: Row) -> Self:
        """Build the record from a row; columns it does not name are left out."""
        return cls(**{f.name: row[f.name] for f in fields(cls) if f.name in row})


@dataclass(frozen=True, kw_only=True)
class Dataset(_Record):
    """A data set as stored. `sealed_from` is the first moment of the hold-out; what is not `tradable` cannot be held."""

    dataset_id: UUID
    name: str
    version: int
    source: str
    content_sha256: str
    symbols: list[str]
    fields: list[str]
    frequency: str
    n_bars: int
    first_ts: datetime
    last_ts: datetime
    sealed_from: datetime
    tradable: bool
    family_id: UUID
    caveats: list[str]


@dataclass(frozen=True, kw_only=True)
class Feature(_Record):
    """A feature of the registry. `lookback` is None for a plugin that needs all of history."""

    feature_id: UUID
    name: str
    version: int
    expression: str
    expression_sha256: str
    lookback: int | None
    family: str
    hypothesis: str
    status: str
    kind: str = FeatureKind.EXPRESSION
    reason: str | None = None
    run_id: UUID | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Run(_Record):
    """A research run. `report` is None until it has finished, and for the role that may not read it.

    `building_blocks` are the promoted features that it may build on, as they were when it began: expression
    and hypothesis by name.
    """

    run_id: UUID
    request: Mapping[str, Any]
    dataset_id: UUID
    lineage: str
    thread_id: str
    planner: str
    status: str
    budget: Mapping[str, Any]
    usage: Mapping[str, Any]
    code_version: str
    started_at: datetime
    finished_at: datetime | None = None
    error: str | None = None
    report: Mapping[str, Any] | None = None
    building_blocks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrialCount(_Record):
    """How many trials were ever made on the data set of a lineage: rows, different configurations, clusters of those."""

    n_rows: int
    n_distinct: int
    n_clusters: int


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial to be written to the ledger.

    Parameters
    ----------
    sharpe : float
        Out-of-sample net Sharpe ratio per period.
    behaviour : ndarray of shape (320,), optional
        Centred, normalised gross returns in equal spans; None for a strategy that never traded.
    """

    run_id: UUID
    feature_id: UUID
    strategy_id: str
    config: Mapping[str, Any]
    config_sha256: str
    n_obs: int
    sharpe: float
    skew: float
    kurtosis: float
    returns_uri: str
    behaviour: npt.NDArray[np.float64] | None
    metrics: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Trial(_Record):
    """A trial as stored, with the feature it tried and what came out."""

    trial_id: int
    run_id: UUID
    lineage: str
    dataset_id: UUID
    feature_id: UUID
    name: str
    family: str
    expression: str
    expression_sha256: str
    hypothesis: str
    feature_status: str
    promoted_here: bool
    family_id: UUID
    config_sha256: str
    n_obs: int
    sharpe: float
    skew: float
    kurtosis: float
    returns_uri: str
    metrics: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class EmbeddingJob(_Record):
    """A request to encode windows; `attempts` tells one claim of it from the next."""

    job_id: UUID
    dataset_id: UUID
    asset_symbol: str | None
    windows: Mapping[str, Any]
    metadata: Mapping[str, Any]
    attempts: int
    status: str
    error: str | None = None
    result: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Neighbour(_Record):
    """A past window that resembles the query, with what followed it."""

    embedding_id: UUID
    asset_symbol: str
    window_start: datetime
    window_end: datetime
    regime_tag: str
    label: Mapping[str, Any]
    label_end: datetime
    distance: float
