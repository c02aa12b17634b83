"""Does what `rpc_refresh_embeddings` was asked for: claims jobs, refreshes the memory, says what became of each.

Promises that of several workers one does a job, that a job outlives its worker, and that one that cannot be done says why.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from core.errors import ConfigurationError, DataError, StoreConflictError, StoreError, StoreUnavailableError
from core.store.records import EmbeddingJob, JobStatus
from core.store.research import ResearchStore
from core.store.research.vectors import LEASE_SECONDS
from features.memory.plan import MemorySpec
from features.memory.refresh import Refreshed, refresh_memory

OnJobProgress = Callable[[EmbeddingJob, int, int], None]


@dataclass(frozen=True, kw_only=True)
class WorkedJob:
    """Say what became of a job.

    Parameters
    ----------
    status : JobStatus
        ``done``, ``failed``, or ``running`` when another worker has it by now.
    refreshed : Refreshed, optional
        What the memory has now, if it is done.
    error : str, optional
        Why it failed.
    """

    job: EmbeddingJob
    status: JobStatus
    refreshed: Refreshed | None = None
    error: str | None = None


def work_embedding_jobs(
    store: ResearchStore,
    *,
    worker: str | None = None,
    wanted: uuid.UUID | None = None,
    limit: int | None = None,
    lease_seconds: int = LEASE_SECONDS,
    on_progress: OnJobProgress | None = None,
) -> list[WorkedJob]:
    """Claim open jobs one after the other and do them, until there is none or `limit` are done.

    A job says in `windows` what `MemorySpec` takes, in `asset_symbol` which symbol if it is one alone, and with
    ``"switch": true`` in `metadata` that searches are to use its version. While it works, a worker renews its claim with
    each piece it stores; a job of a worker that died is handed out again when the claim has run out.

    Parameters
    ----------
    store : ResearchStore
        As `refresh_memory` takes it.
    worker : str, optional
        Name of this worker; made up of host, process and chance by default.
    wanted : UUID, optional
        Do this job or none.
    limit : int, optional
        Most jobs to do.
    lease_seconds : int, default=120
        How long after its last sign of life a worker counts as dead.
    on_progress : callable, optional
        Called with the job, windows done and to do.

    Returns
    -------
    list of WorkedJob
        In the order in which they were done.

    Raises
    ------
    StoreUnavailableError
        If the database cannot be reached; the job will be handed out again.
    """
    name = worker or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    worked: list[WorkedJob] = []
    while limit is None or len(worked) < limit:
        jobs = store.claim_jobs(worker=name, wanted=wanted, lease_seconds=lease_seconds)
        if not jobs:
            break
        worked.append(_work(store, jobs[0], lease_seconds, on_progress))
    return worked


def _work(store: ResearchStore, job: EmbeddingJob, lease_seconds: int, on_progress: OnJobProgress | None) -> WorkedJob:
    def renew(done: int, total: int) -> None:
        if not store.renew_job(job, lease_seconds=lease_seconds):
            raise StoreConflictError(f"the job {job.job_id} was taken over by another worker.")
        if on_progress is not None:
            on_progress(job, done, total)

    try:
        refreshed = refresh_memory(
            store,
            store.get_dataset(job.dataset_id),
            MemorySpec.from_mapping(job.windows),
            symbols=None if job.asset_symbol is None else (job.asset_symbol,),
            switch=isinstance(job.metadata, Mapping) and job.metadata.get("switch") is True,
            on_progress=renew,
        )
    except StoreUnavailableError:
        raise
    except (DataError, ConfigurationError, StoreError) as error:
        mine = store.finish_job(job, error=str(error))
        status = JobStatus.FAILED if mine else JobStatus.RUNNING
        return WorkedJob(job=job, status=status, error=str(error))
    except KeyboardInterrupt:
        store.release_job(job)
        raise
    mine = store.finish_job(job, result=refreshed.to_dict())
    return WorkedJob(job=job, status=JobStatus.DONE if mine else JobStatus.RUNNING, refreshed=refreshed)
