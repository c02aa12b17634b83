"""The vector memory: windows as embeddings, versions of their encoders, jobs that make them, and searches among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np

from core.errors import MissingDataError, ShapeError, StoreConflictError
from core.market.panel import FloatArray
from core.store.gateway import Gateway, Row
from core.store.records import VECTOR_WIDTH, Dataset, EmbeddingJob, JobStatus, Neighbour

LEASE_SECONDS = 120
"""For how long a claimed job is its worker's, unless renewed; a worker renews it after every few hundred windows."""


class VectorMethods:
    """What the research store does with window embeddings."""

    gateway: Gateway

    def register_embedding_version(
        self,
        dataset: Dataset,
        *,
        emb_type: str,
        emb_version: str,
        encoder_sha256: str,
        trained_until: datetime,
        settings: Mapping[str, Any] | None = None,
        n_windows: int | None = None,
    ) -> None:
        """Announce a version before its vectors are written; announcing it again changes nothing.

        Parameters
        ----------
        settings : mapping, optional
            How its windows are made, in plain values.
        n_windows : int, optional
            How many windows it has when it is complete; before that it cannot be activated. None cannot be checked.

        Raises
        ------
        StoreConflictError
            If the version is there with another encoder, data set or number of windows.
        """
        where = {"emb_type": emb_type, "emb_version": emb_version}
        row = {
            "emb_type": emb_type,
            "emb_version": emb_version,
            "dataset_id": dataset.dataset_id,
            "encoder_sha256": encoder_sha256,
            "trained_until": trained_until,
            "settings": dict(settings or {}),
            "n_windows": n_windows,
        }
        known = self.gateway.select("embedding_versions", where=where)
        if not known:
            try:
                known = self.gateway.insert("embedding_versions", [row])
            except StoreConflictError:  # another worker announced it between the two
                known = self.gateway.select("embedding_versions", where=where)
                if not known:
                    raise
        if (known[0]["encoder_sha256"], known[0]["dataset_id"]) != (encoder_sha256, dataset.dataset_id):
            raise StoreConflictError(
                f"version {emb_version} of {emb_type} belongs to another encoder or data set: "
                "give this one a version of its own."
            )
        if known[0]["n_windows"] != n_windows:
            raise StoreConflictError(
                f"version {emb_version} of {emb_type} was announced with {known[0]['n_windows']} windows, now with "
                f"{n_windows}: windows are cut otherwise than they were, so give this one a version of its own."
            )

    def activate_embedding_version(self, emb_type: str, emb_version: str) -> None:
        """Switch searches to a version and retire the one before, in one transaction.

        Raises
        ------
        StoreConflictError
            If it is still building: not all the windows are there that it was announced with.
        StoreError
            If there is no such version.
        """
        self.gateway.rpc("activate_embedding_version", p_emb_type=emb_type, p_emb_version=emb_version)

    def active_embedding_version(self, dataset: Dataset, emb_type: str) -> Row | None:
        """Return the version that searches use, if there is one."""
        rows = self.gateway.select(
            "embedding_versions", where={"emb_type": emb_type, "dataset_id": dataset.dataset_id, "status": "active"}
        )
        return rows[0] if rows else None

    def list_embedding_versions(self, dataset: Dataset, emb_type: str) -> list[Row]:
        """Return every version of a data set, oldest first."""
        where = {"emb_type": emb_type, "dataset_id": dataset.dataset_id}
        return self.gateway.select("embedding_versions", where=where, order=("created_at", "emb_version"))

    def list_windows(self, emb_type: str, emb_version: str, *, archived: bool = False) -> set[tuple[str, datetime]]:
        """Return symbol and end of each window that a version has, or that was archived from it."""
        rows = self.gateway.select(
            "signal_embeddings_archive" if archived else "signal_embeddings",
            columns=("asset_symbol", "time_range"),
            where={"emb_type": emb_type, "emb_version": emb_version},
        )
        return {(row["asset_symbol"], row["time_range"].upper) for row in rows}

    def load_embeddings(self, emb_type: str, emb_version: str) -> list[Row]:
        """Return the windows of a version with their vectors and labels, by time and symbol; archived ones are left out."""
        return self.gateway.select(
            "signal_embeddings",
            columns=("asset_symbol", "time_range", "embedding", "label", "label_end"),
            where={"emb_type": emb_type, "emb_version": emb_version},
            order=("time_range", "asset_symbol"),
        )

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
        """Ask for windows to be encoded; a worker claims the job. With a `job_id` in it, asking again asks once."""
        job_id: UUID = self.gateway.rpc("rpc_refresh_embeddings", payload=payload)[0]["rpc_refresh_embeddings"]
        return job_id

    def get_job(self, job_id: UUID) -> EmbeddingJob:
        """Return a job by its id.

        Raises
        ------
        MissingDataError
            If there is none.
        """
        rows = self.gateway.select("embedding_jobs", where={"job_id": job_id})
        if not rows:
            raise MissingDataError(f"there is no embedding job {job_id}.")
        return EmbeddingJob.from_row(rows[0])

    def claim_jobs(
        self,
        n: int = 1,
        *,
        worker: str | None = None,
        wanted: UUID | None = None,
        lease_seconds: int = LEASE_SECONDS,
    ) -> list[EmbeddingJob]:
        """Take open embedding jobs, oldest first; nobody else gets the same ones while they are renewed.

        Parameters
        ----------
        worker : str, optional
            Who takes them, for people to read.
        wanted : UUID, optional
            Take this job or none. A worker of the same name that began anew gets it back at once.
        lease_seconds : int, default=120
            A job that is neither renewed nor finished for so long is handed out again, five times in all.
        """
        rows = self.gateway.rpc("claim_embedding_jobs", n=n, worker=worker, wanted=wanted, lease_seconds=lease_seconds)
        return [EmbeddingJob.from_row(row) for row in rows]

    def renew_job(self, job: EmbeddingJob, *, lease_seconds: int = LEASE_SECONDS) -> bool:
        """Keep a claimed job for longer; False when it is another worker's by now."""
        rows = self.gateway.rpc(
            "renew_embedding_job", p_job_id=job.job_id, p_attempts=job.attempts, lease_seconds=lease_seconds
        )
        return bool(rows[0]["renew_embedding_job"])

    def release_job(self, job: EmbeddingJob) -> bool:
        """Give a claimed job back undone, so that the next worker need not wait; False when it is another worker's by now."""
        return self._close_job(job, {"status": JobStatus.PENDING, "attempts": job.attempts - 1})

    def finish_job(self, job: EmbeddingJob, *, result: Mapping[str, Any] | None = None, error: str | None = None) -> bool:
        """Close a claimed job, failed if there is an error; False when it is another worker's by now."""
        status = JobStatus.DONE if error is None else JobStatus.FAILED
        return self._close_job(job, {"status": status, "result": None if result is None else dict(result), "error": error})

    def _close_job(self, job: EmbeddingJob, values: Row) -> bool:
        where = {"job_id": job.job_id, "attempts": job.attempts, "status": JobStatus.RUNNING}
        return bool(self.gateway.update("embedding_jobs", {**values, "lease_until": None}, where=where))

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

    def list_archived(self, dataset: Dataset) -> list[UUID]:
        """Return the ids of every archived window of a data set."""
        rows = self.gateway.select(
            "signal_embeddings_archive", columns=("embedding_id",), where={"dataset_id": dataset.dataset_id}
        )
        return [row["embedding_id"] for row in rows]

    def restore_vectors(self, ids: Sequence[UUID]) -> int:
        """Bring archived windows back as they were, all or none, and return how many came.

        Ids that are not in the archive are passed over. Only the framework may: as `researcher` it is a StoreError.

        Raises
        ------
        StoreConflictError
            If one of these windows was stored again meanwhile.
        """
        count: int = self.gateway.rpc("restore_vectors", ids=list(ids))[0]["restore_vectors"]
        return count


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
