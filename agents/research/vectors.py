"""What the planner does with the vector memory of its data set: ask for it to be fresh, and look up analogues.

The memory is the data set's, so that it covers every symbol whichever part of them a run looks at; `features.memory` keeps it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np

from agents.research.session import ResearchSession
from core.errors import ToolFailed
from core.store.records import JobStatus
from features.memory import EMB_TYPE, LABEL_HORIZON, work_embedding_jobs

_LOOK_SECONDS = 0.2


def refresh_vectors(session: ResearchSession, *, tool_call_id: str, window: int, stride: int) -> Mapping[str, Any]:
    """Ask for fresh windows and for searches to use them; do that work unless a worker is at it already, then wait for it.

    The same call of a run asks for the same job, so that a run that was killed goes on with it.

    Returns
    -------
    mapping
        Version, number of windows and span.

    Raises
    ------
    ToolFailed
        If the windows cannot be encoded, or the run is out of time before the worker is done.
    """
    store = session.store.researcher
    job_id = uuid.uuid5(session.run_id, tool_call_id)
    store.request_refresh(
        {
            "job_id": str(job_id),
            "dataset_id": str(session.dataset.dataset_id),
            "windows": {"encoder": "auto", "window": window, "stride": stride},
            "metadata": {"run_id": str(session.run_id), "switch": True},
        }
    )
    while True:
        work_embedding_jobs(store, worker=f"run {session.run_id}", wanted=job_id, limit=1)
        job = store.get_job(job_id)
        if job.status == JobStatus.FAILED:
            raise ToolFailed(f"the windows of {session.dataset.name} cannot be encoded: {job.error}")
        if job.status == JobStatus.DONE and job.result is not None:
            return {key: job.result[key] for key in ("emb_type", "emb_version", "windows", "trained_until", "newest")}
        if session.out_of_time():
            raise ToolFailed("a worker is still encoding; its vectors will be there in the next run.")
        time.sleep(_LOOK_SECONDS)


def latest_analogues(session: ResearchSession, symbol: str, *, count: int = 50) -> Mapping[str, Any]:
    """Find the past windows most like the latest one of a symbol, and what followed them.

    Only windows are used whose outcome was known when the latest window ended.

    Raises
    ------
    ToolFailed
        If there is no vector memory yet.
    """
    store = session.store.researcher
    active = store.active_embedding_version(session.dataset, EMB_TYPE)
    if active is None:
        raise ToolFailed("there are no vectors of this data set yet: call refresh_vector_store first.")
    found = store.gateway.select(
        "signal_embeddings",
        columns=("embedding", "time_range"),
        order=("-time_range",),
        limit=1,
        where={"asset_symbol": symbol, "emb_type": EMB_TYPE, "emb_version": active["emb_version"]},
    )
    if not found:
        raise ToolFailed(f"there is no window of {symbol} in the vector memory.")
    vector = np.asarray(found[0]["embedding"].to_numpy(), dtype=np.float64)
    as_of: datetime = found[0]["time_range"].upper
    neighbours = store.match_embeddings(vector, count=count, as_of=as_of, emb_type=EMB_TYPE, dataset=session.dataset)
    score = store.score_cluster([neighbour.embedding_id for neighbour in neighbours])
    return {
        "symbol": symbol,
        "window_end": found[0]["time_range"].upper.isoformat(),
        "horizon_bars": LABEL_HORIZON,
        "n": int(score["n"] or 0),
        "mean_forward_return": score["mean_label"],
        "t_stat_if_independent": score["label_t_stat"],
        "cohesion": score["cohesion"],
        "separation": score["separation"],
        "nearest": [
            {
                "symbol": n.asset_symbol,
                "window_end": n.window_end.isoformat(),
                "regime": n.regime_tag,
                "forward_return": n.label["forward_return"],
            }
            for n in neighbours[:5]
        ],
    }
