"""The ledger: features, the append-only trials on them, and the hold-out that opens once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import numpy as np

from core.market.panel import FloatArray
from core.store.gateway import Gateway, Row, Where
from core.store.records import VECTOR_WIDTH, Dataset, Feature, FeatureStatus, Trial, TrialCount, TrialRecord
from core.store.research.vectors import check_vector


class LedgerMethods:
    """What the research store does with features, trials and hold-outs."""

    gateway: Gateway

    def propose_feature(self, payload: Row) -> Feature:
        """Register an expression, or return the feature that has it already."""
        return Feature.from_row(self.gateway.rpc("propose_feature", payload=payload)[0])

    def list_features(self, where: Where | None = None) -> list[Feature]:
        """Return features, oldest first."""
        return [
            Feature.from_row(row) for row in self.gateway.select("feature_registry", where=where, order=("created_at", "name"))
        ]

    def set_feature_status(self, feature_id: UUID, status: FeatureStatus, reason: str | None) -> None:
        """Move a feature along its life before the gate has judged it."""
        self.gateway.update("feature_registry", {"status": status, "reason": reason}, where={"feature_id": feature_id})

    def record_verdict(self, feature_id: UUID, dataset: Dataset, *, promoted: bool, reason: str | None) -> None:
        """Record the gate's verdict; a promotion holds on the data set it was earned on."""
        self.gateway.rpc(
            "record_verdict", p_feature_id=feature_id, p_dataset_id=dataset.dataset_id, p_promoted=promoted, p_reason=reason
        )

    def record_trial(self, trial: TrialRecord) -> int:
        """Append a trial to the ledger and return its number; the same configuration in the same run is the same trial.

        Raises
        ------
        ShapeError
            If the behaviour is not 320 wide or holds a value that is not finite.
        """
        if trial.behaviour is not None:
            check_vector("behaviour", trial.behaviour)
        payload: Row = {
            "run_id": str(trial.run_id),
            "feature_id": str(trial.feature_id),
            "strategy_id": trial.strategy_id,
            "config": dict(trial.config),
            "config_sha256": trial.config_sha256,
            "n_obs": trial.n_obs,
            "sharpe": trial.sharpe,
            "skew": trial.skew,
            "kurtosis": trial.kurtosis,
            "returns_uri": trial.returns_uri,
            "behaviour": None if trial.behaviour is None else _vector_text(trial.behaviour),
            "metrics": dict(trial.metrics),
        }
        return int(self.gateway.rpc("record_trial", payload=payload)[0]["record_trial"])

    def list_trials(self, where: Where) -> list[Trial]:
        """Return trials in ledger order, each with its feature and metrics."""
        return [Trial.from_row(row) for row in self.gateway.select("trial_results", where=where, order=("trial_id",))]

    def count_trials(self, lineage: str) -> TrialCount:
        """Return how many trials were made on the data set of a lineage, ever, by anybody."""
        return TrialCount.from_row(self.gateway.rpc("effective_trials", p_lineage=lineage)[0])

    def load_behaviours(self, lineage: str) -> dict[str, FloatArray]:
        """Load how every different trial on the family of data sets of a lineage moves.

        Returns
        -------
        dict of str to ndarray of shape (320,)
            By hash of the configuration, in ledger order; of unit length, or zero for a trial that never moved.
        """
        rows = sorted(self.gateway.rpc("trial_behaviours", p_lineage=lineage), key=lambda row: row["trial_id"])
        still = np.zeros(VECTOR_WIDTH)
        return {
            row["config_sha256"]: still
            if row["behaviour"] is None
            else np.asarray(row["behaviour"].to_numpy(), dtype=np.float64)
            for row in rows
        }

    def verify_trials(self) -> list[Row]:
        """Name every trial that was tampered with; an empty list means the ledger is whole."""
        return self.gateway.rpc("verify_trials")

    def open_holdout(self, lineage: str, run_id: UUID, candidates: Mapping[str, Any]) -> int:
        """Open the sealed bars of a lineage, once, and return which opening of this data set it is.

        Raises
        ------
        StoreConflictError
            If the lineage's hold-out was opened before.
        """
        return int(
            self.gateway.rpc("open_holdout", p_lineage=lineage, p_run_id=run_id, p_candidates=dict(candidates))[0][
                "open_holdout"
            ]
        )

    def find_holdout(self, lineage: str) -> Row | None:
        """Return the opening of a lineage's hold-out, if there was one."""
        rows = self.gateway.select("holdout_openings", where={"lineage": lineage})
        return rows[0] if rows else None

    def record_holdout(self, lineage: str, run_id: UUID, metrics: Mapping[str, Any]) -> None:
        """Store what the hold-out said."""
        self.gateway.rpc("record_holdout", p_lineage=lineage, p_run_id=run_id, p_metrics=dict(metrics))


def _vector_text(vector: FloatArray) -> str:
    return "[" + ",".join(repr(float(value)) for value in vector) + "]"
