"""Keeps the vector memory of a data set fresh: claim a request, encode windows, store them, switch versions.

The memory is the data set's, so that it covers every symbol whichever part of them a run looks at. An encoder is trained
on the first three fifths of the bars a researcher may see, and says so in `trained_until`; windows that end before that
are marked in-sample. A new encoding gets a version of its own, so that neighbours are never sought across two encoders or
two data sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
from psycopg.types.range import Range

from agents.research.session import ResearchSession
from core.errors import DataError, ToolFailed
from core.market.panel import FloatArray, Panel
from core.store.gateway import Row
from core.store.records import JobStatus
from features.encoders import get_encoder
from features.encoders.base import Embeddings
from features.labels import forward_returns
from features.windows import Windows, regime_at, rolling_windows

ENCODER = "pca"
EMB_TYPE = "pca_window"
LABEL_HORIZON = 5
TRAINED_FRACTION = 0.6


def refresh_vectors(session: ResearchSession, *, window: int, stride: int) -> Mapping[str, Any]:
    """Ask for fresh windows, then do the work that was asked for; requests of others are left to them.

    Returns
    -------
    mapping
        Version, number of windows and span.

    Raises
    ------
    ToolFailed
        If the data set is too short for its windows, or a worker was faster than this run.
    """
    store = session.store.researcher
    payload = {
        "dataset_id": str(session.dataset.dataset_id),
        "windows": {"window": window, "stride": stride},
        "metadata": {"run_id": str(session.run_id)},
    }
    job_id = store.request_refresh(payload)
    waiting = {"job_id": job_id, "status": JobStatus.PENDING}
    if not store.gateway.update("embedding_jobs", {"status": JobStatus.RUNNING, "attempts": 1}, where=waiting):
        raise ToolFailed("another worker took the request; its vectors will be there in the next run.")
    try:
        result = _encode(session, window=window, stride=stride)
    except DataError as error:
        store.finish_job(job_id, error=str(error))
        raise ToolFailed(f"the windows of {session.dataset.name} cannot be encoded: {error}") from error
    store.finish_job(job_id)
    return result


def _encode(session: ResearchSession, *, window: int, stride: int) -> Mapping[str, Any]:
    store = session.store.researcher
    panel = store.load_panel(session.dataset) if session.request.symbols else session.panel
    windows = rolling_windows(panel, window=window, stride=stride)
    trained_bars = int(panel.n_bars * TRAINED_FRACTION)
    encoder = get_encoder(ENCODER).fit(windows.values[windows.end < trained_bars])
    version = f"{encoder.version}-{encoder.sha256[:12]}-w{window}-{session.dataset.name}-v{session.dataset.version}"
    trained_until = panel.index[trained_bars - 1].to_pydatetime()
    store.register_embedding_version(
        session.dataset, emb_type=EMB_TYPE, emb_version=version, encoder_sha256=encoder.sha256, trained_until=trained_until
    )
    vectors = encoder.encode(windows.values)
    rows = _rows(session, panel, windows, vectors, version, trained_bars)
    store.save_embeddings(rows)
    store.activate_embedding_version(EMB_TYPE, version)
    return {
        "emb_type": EMB_TYPE,
        "emb_version": version,
        "windows": len(rows),
        "trained_until": trained_until.isoformat(),
        "newest": panel.index[int(windows.end.max())].isoformat(),
    }


def _rows(
    session: ResearchSession, panel: Panel, windows: Windows, vectors: Embeddings, version: str, trained_bars: int
) -> list[Row]:
    labels = forward_returns(panel, horizon=LABEL_HORIZON)
    spread = _trailing_volatility(panel) * np.sqrt(LABEL_HORIZON)
    tags = regime_at(panel, windows.end)
    column = {symbol: position for position, symbol in enumerate(panel.symbols)}
    archived = {
        (row["asset_symbol"], row["time_range"].upper)
        for row in session.store.researcher.gateway.select(
            "signal_embeddings_archive",
            columns=("asset_symbol", "time_range"),
            where={"emb_type": EMB_TYPE, "emb_version": version},
        )
    }
    rows: list[Row] = []
    for position, symbol in enumerate(windows.symbol):
        start, end = int(windows.start[position]), int(windows.end[position])
        if (symbol, panel.index[end].to_pydatetime()) in archived:
            continue  # what was pruned stays in the archive until it is restored
        value = labels.values[end, column[symbol]]
        known = bool(np.isfinite(value))
        risk = spread[end, column[symbol]]
        label = {"forward_return": float(value), "t_stat": float(value / risk) if risk > 0 else 0.0} if known else {}
        rows.append(
            {
                "dataset_id": session.dataset.dataset_id,
                "asset_symbol": symbol,
                "time_range": Range(panel.index[start].to_pydatetime(), panel.index[end].to_pydatetime(), "[]"),
                "embedding": vectors[position],
                "emb_type": EMB_TYPE,
                "emb_version": version,
                "regime_tag": str(tags[position]),
                "label": label,
                "label_end": panel.index[int(labels.horizon_end[end])].to_pydatetime() if known else None,
                "meta": {
                    "source": session.dataset.name,
                    "regime": str(tags[position]),
                    "window": end - start + 1,
                    "in_sample": end < trained_bars,
                    "label_horizon": LABEL_HORIZON,
                },
            }
        )
    return rows


def _trailing_volatility(panel: Panel, bars: int = 63) -> FloatArray:
    returns = np.nan_to_num(panel.returns())
    squares = np.cumsum(np.vstack([np.zeros((1, panel.n_assets)), returns**2]), axis=0)
    out = np.zeros(panel.shape)
    out[bars - 1 :] = np.sqrt(np.maximum(squares[bars:] - squares[:-bars], 0.0) / bars)
    return out


def latest_analogues(session: ResearchSession, symbol: str, *, count: int = 50, window: int = 128) -> Mapping[str, Any]:
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
