"""Fills a version of the vector memory: only what is missing, in pieces that are whole or not there.

Promises that whoever does it, in one go or after any number of interruptions, the rows are the same; that doing it again
writes nothing; and that searches are never switched to a part of a version.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import MissingDataError
from core.store.records import Dataset
from core.store.research import ResearchStore
from features.memory.plan import EMB_TYPE, MemoryPlan, MemorySpec, plan_memory
from features.memory.rows import RowBuilder

_PIECE = 1_000
"""Windows that are encoded and written together. Always the same ones, so that an interruption moves no digit of a vector."""

_WRITERS = 2

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Refreshed:
    """Say what a version has after a refresh.

    Parameters
    ----------
    status : str
        ``active`` if searches use it, ``building`` or ``retired`` if not.
    windows : int
        Windows that can be searched; `archived` ones were pruned and stay away.
    written : int
        Windows that this refresh added.
    in_sample : int
        Windows of the version that end no later than `trained_until`.
    left_out : int
        Windows without a vector, because a close is missing or no price moves.
    trained_until, newest : str
        ISO 8601: when the encoder's training ended, and the newest window.
    """

    emb_type: str
    emb_version: str
    status: str
    windows: int
    archived: int
    written: int
    in_sample: int
    left_out: int
    trained_until: str
    newest: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def refresh_memory(
    store: ResearchStore,
    dataset: Dataset,
    spec: MemorySpec,
    *,
    symbols: Sequence[str] | None = None,
    switch: bool = False,
    on_progress: OnProgress | None = None,
) -> Refreshed:
    """Encode the windows of a data set that its memory lacks, and store them.

    A version that is complete becomes the active one if there is none yet; beside an active one it stays `building`, to be
    compared, unless `switch` is set.

    Parameters
    ----------
    store : ResearchStore
        Its role decides which bars are seen; the memory belongs to `researcher`, who sees none behind the seal.
    dataset : Dataset
    spec : MemorySpec
    symbols : sequence of str, optional
        Write the windows of these alone; encoder and regimes are those of the whole data set all the same.
    switch : bool, default=False
        Once the version is complete, switch searches to it whatever is active.
    on_progress : callable, optional
        Called with windows done and to do after each piece has been committed; what it raises ends the refresh.

    Returns
    -------
    Refreshed

    Raises
    ------
    MissingDataError
        If there is not enough history, or a symbol is unknown.
    DataError, ConfigurationError
        As `plan_memory` does.
    StoreConflictError
        If the version is there with another encoder or other windows.
    """
    unknown = sorted(set(symbols or ()) - set(dataset.symbols))
    if unknown:
        raise MissingDataError(f"unknown symbol {', '.join(unknown)}; {dataset.name} has {', '.join(dataset.symbols)}.")
    plan = plan_memory(dataset, store.load_panel(dataset), spec)
    version, windows = plan.version, plan.windows
    store.register_embedding_version(
        dataset,
        emb_type=EMB_TYPE,
        emb_version=version,
        encoder_sha256=plan.encoder.sha256,
        trained_until=plan.trained_until,
        settings=plan.settings,
        n_windows=len(windows),
    )
    known, n_archived = _list_known(store, version)
    ends = windows.end_ts.to_pydatetime()
    wanted = None if symbols is None else set(symbols)
    missing = np.array(
        [
            (symbol, end) not in known and (wanted is None or symbol in wanted)
            for symbol, end in zip(windows.symbol.tolist(), ends, strict=True)
        ]
    )
    builder = RowBuilder(plan)
    _write(store, plan, builder, missing, on_progress)
    if missing.any():  # others may have written their symbols meanwhile, and whoever looks last finds the version complete
        known, n_archived = _list_known(store, version)
    if len(known) >= len(windows):
        active = store.active_embedding_version(dataset, EMB_TYPE)
        if active is None or (switch and active["emb_version"] != version):
            store.activate_embedding_version(EMB_TYPE, version)
    return Refreshed(
        emb_type=EMB_TYPE,
        emb_version=version,
        status=_find_status(store, dataset, version),
        windows=len(known) - n_archived,
        archived=n_archived,
        written=int(missing.sum()),
        in_sample=builder.n_in_sample,
        left_out=plan.n_left_out,
        trained_until=plan.trained_until.isoformat(),
        newest=windows.end_ts.max().isoformat(),
    )


def _list_known(store: ResearchStore, version: str) -> tuple[set[tuple[str, datetime]], int]:
    """Return the windows that are stored or archived, and how many are archived."""
    archived = store.list_windows(EMB_TYPE, version, archived=True)
    return archived | store.list_windows(EMB_TYPE, version), len(archived)


def _write(
    store: ResearchStore,
    plan: MemoryPlan,
    builder: RowBuilder,
    missing: npt.NDArray[np.bool_],
    on_progress: OnProgress | None,
) -> None:
    """Encode a piece while those before are written: storing one takes a core of the server as long as encoding takes here."""
    done, total = 0, int(missing.sum())
    writing: deque[Future[int]] = deque()

    def settle(most: int) -> None:
        nonlocal done
        while len(writing) > most:
            done += writing.popleft().result()
            if on_progress is not None:
                on_progress(done, total)

    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="aqf-write") as writers:
        for first in range(0, len(missing), _PIECE):
            piece = np.arange(first, min(first + _PIECE, len(missing)))
            lacking = missing[piece]
            if not lacking.any():
                continue
            vectors = plan.encoder.encode(plan.windows.values[piece])
            rows = builder.build_some(piece[lacking], vectors[lacking])
            settle(_WRITERS - 1)
            writing.append(writers.submit(store.save_embeddings, rows))
        settle(0)


def _find_status(store: ResearchStore, dataset: Dataset, version: str) -> str:
    return str({row["emb_version"]: row["status"] for row in store.list_embedding_versions(dataset, EMB_TYPE)}[version])
