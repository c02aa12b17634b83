"""The vector memory: windows as embeddings, versions of their encoders, jobs that make them, and searches among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np

from core.errors import ShapeError, StoreConflictError
from core.market.panel import FloatArray
from core.store.gateway import Gateway, Row
from core.store.records import VECTOR_WIDTH, Dataset, EmbeddingJob, JobStatus, Neighbour


class VectorMethods:
    """What the research store does with window embeddings."""

    gateway: Gateway

    def register_embedding_version(
        self, dataset: Dataset, *, emb_type: str, emb_version: str, encoder_sha256: str, trained_until: datetime
    ) -> None:
        """Announce an encoder before its vectors are written; announcing it again changes nothing."""
        known = self.gateway.select("embedding_versions", where={"emb_type": emb_type, "emb_version": emb_version})
        if known:
            if (known[0]["encoder_sha256"], known[0]["dataset_id"]) != (encoder_sha256, dataset.dataset_id):
                raise StoreConflictError(
                    f"version {emb_version} of {emb_type} belongs to another encoder or data set: "
                    "give this one a version of its own."
                )
            return
        row = {
            "emb_type": emb_type,
            "emb_version": emb_version,
            "dataset_id": dataset.dataset_id,
            "encoder_sha256": encoder_sha256,
            "trained_until": trained_until,
        }
        self.gateway.insert("embedding_versions", [row])

    def activate_embedding_version(self, emb_type: str, emb_version: str) -> None:
        """Switch searches to a version and retire the one before, in one transaction."""
        self.gateway.rpc("activate_embedding_version", p_emb_type=emb_type, p_emb_version=emb_version)

    def active_embedding_version(self, dataset: Dataset, emb_type: str) -> Row | None:
        """Return the version that searches use, if there is one."""
        rows = self.gateway.select(
            "embedding_versions", where={"emb_type": emb_type, "dataset_id": dataset.dataset_id, "status": "active"}
        )
        return rows[0] if rows else None

    def save_embeddings(self, rows: Sequence[Row]) -> int:
        """Store window embeddings in bulk; the same window in the same version is replaced.

        Raises
        ------
        ShapeError
            If a vector is not 320 wide or holds a value that is not finite.
        """
        for row in rows:
            check_vector(f"embedding` of `{row['asset_symbol']}", row["embedding"])
        return self.gateway.upsert(
            "signal_embeddings", rows, on_conflict=("asset_symbol", "time_range", "emb_type", "emb_version")
        )

    def count_embeddings(self, dataset: Dataset, emb_type: str) -> Row:
        """Return how many windows of the active version there are and where the newest ends."""
        rows = self.gateway.select("embedding_counts", where={"dataset_id": dataset.dataset_id, "emb_type": emb_type})
        return rows[0] if rows else {"n_windows": 0, "newest": None}

    def match_embeddings(
        self, vector: FloatArray, *, count: int, as_of: datetime, emb_type: str, dataset: Dataset, regime_tag: str | None = None
    ) -> list[Neighbour]:
        """Return the nearest windows whose label had ended before `as_of`, nearest first.

        Raises
        ------
        ShapeError
            If the vector is not 320 wide or holds a value that is not finite.
        """
        check_vector("vector", vector)
        conditions = {"dataset_id": str(dataset.dataset_id), **({"regime_tag": regime_tag} if regime_tag else {})}
        rows = self.gateway.rpc(
            "match_signal_embeddings",
            query_embedding=np.asarray(vector, dtype=np.float32),
            match_count=count,
            as_of=as_of,
            emb_type=emb_type,
            filter=conditions,
        )
        return [Neighbour.from_row(row) for row in rows]

    def score_cluster(self, ids: Sequence[UUID]) -> Row:
        """Return cohesion, separation, mean label and its t-statistic of a set of windows."""
        return self.gateway.rpc("score_signal_cluster", ids=list(ids))[0]

    def request_refresh(self, payload: Row) -> UUID:
        """Ask for windows to be encoded; a worker claims the job."""
        job_id: UUID = self.gateway.rpc("rpc_refresh_embeddings", payload=payload)[0]["rpc_refresh_embeddings"]
        return job_id

    def claim_jobs(self, n: int = 1) -> list[EmbeddingJob]:
        """Take open embedding jobs; nobody else gets the same ones."""
        return [EmbeddingJob.from_row(row) for row in self.gateway.rpc("claim_embedding_jobs", n=n)]

    def finish_job(self, job_id: UUID, *, error: str | None = None) -> None:
        """Close a job."""
        status = JobStatus.DONE if error is None else JobStatus.FAILED
        self.gateway.update("embedding_jobs", {"status": status, "error": error}, where={"job_id": job_id})

    def prune_vectors(
        self,
        dataset: Dataset,
        *,
        max_age_days: int,
        min_t_stat: float,
        regime_diversity: int,
        asset_universe: Sequence[str] | None,
        dry_run: bool,
    ) -> Mapping[str, Any]:
        """Archive windows that are old and weak, or outside the universe, and return what was selected and why."""
        rows = self.gateway.rpc(
            "rpc_prune_vectors",
            max_age_days=max_age_days,
            min_t_stat=min_t_stat,
            regime_diversity=regime_diversity,
            asset_universe=None if asset_universe is None else list(asset_universe),
            dry_run=dry_run,
            p_dataset_id=dataset.dataset_id,
        )
        result: Mapping[str, Any] = rows[0]["rpc_prune_vectors"]
        return result


def check_vector(name: str, vector: FloatArray) -> None:
    """Refuse what is no window embedding.

    Raises
    ------
    ShapeError
        If it is not 320 wide or holds a value that is not finite.
    """
    values = np.asarray(vector)
    if values.shape != (VECTOR_WIDTH,):
        raise ShapeError(f"`{name}` must have shape ({VECTOR_WIDTH},), was {values.shape}.")
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise ShapeError(f"`{name}` must be finite, was {values[wrong[0]]} at position {wrong[0]}.")
