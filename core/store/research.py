"""ResearchStore: everything the research side keeps, over a Gateway.

Hides tables and functions; gives and takes records. It acts with the rights of its gateway's role: built on the
`researcher` role it sees no sealed bar and cannot change a trial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd

from core.errors import MissingDataError, ShapeError, StoreConflictError, StoreError
from core.market.panel import BAR_FIELDS, FloatArray, Panel
from core.store.gateway import Gateway, Row, Where
from core.store.records import (
    VECTOR_WIDTH,
    Dataset,
    EmbeddingJob,
    Feature,
    FeatureStatus,
    JobStatus,
    Neighbour,
    Run,
    RunStatus,
    Trial,
    TrialCount,
    TrialRecord,
)

DEFAULT_SEALED_FRACTION = 0.2
_RUN_COLUMNS = (
    "run_id",
    "request",
    "dataset_id",
    "lineage",
    "thread_id",
    "planner",
    "status",
    "budget",
    "usage",
    "code_version",
    "started_at",
    "finished_at",
)


class ResearchStore:
    """Keep data sets, features, trials, vectors and runs.

    Parameters
    ----------
    gateway : Gateway
        Way to the database, with the rights of one role.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    # Data sets

    def import_dataset(
        self,
        panel: Panel,
        *,
        name: str,
        source: str,
        frequency: str = "1d",
        caveats: Sequence[str] = (),
        sealed_from: datetime | None = None,
        tradable: bool = True,
        synthetic: bool = False,
    ) -> Dataset:
        """Store a panel, whole or not at all.

        Parameters
        ----------
        sealed_from : datetime, optional
            First moment of the hold-out; by default that of the versions before, or else the last 20 % of the bars.
        tradable : bool, default=True
            False for figures nobody can hold, such as the VIX: nothing is promoted on them.
        synthetic : bool, default=False
            True for a generated market, which has no past: otherwise mostly the same bars under another name share the seal
            and the count of trials.

        Raises
        ------
        StoreConflictError
            If this name has another seal already, or the bars end before it.
        MissingDataError
            If the seal leaves no bar on either side, or a bar has no value at all.

        Notes
        -----
        Only bar fields are stored; further columns of the panel are left out, and a caveat names them.
        """
        if sealed_from is not None and sealed_from.tzinfo is None:
            raise StoreError(f"`sealed_from` must carry its zone, was the naive {sealed_from.isoformat()}; use UTC.")
        if panel.extra:
            caveats = (*caveats, f"columns left out: {', '.join(sorted(panel.extra))}")
            panel = replace(panel, extra={})
        present = np.zeros(panel.shape, dtype=bool)
        for field in panel.fields:
            present |= ~np.isnan(panel.get(field))
        if panel.n_bars == 0 or not present.any(axis=1).all():
            raise MissingDataError("every bar of a data set must have a value of some symbol: leave out those that have none.")
        default_seal = panel.index[int(panel.n_bars * (1 - DEFAULT_SEALED_FRACTION))].to_pydatetime()
        seal = sealed_from or default_seal
        if not panel.index[0] < seal <= panel.index[-1]:
            raise MissingDataError(
                f"`sealed_from` must lie inside the data, {panel.index[0]:%Y-%m-%d}..{panel.index[-1]:%Y-%m-%d}, "
                f"was {seal:%Y-%m-%d}."
            )
        content_sha256 = panel.content_sha256()
        known = self.gateway.select("datasets", where={"name": name, "content_sha256": content_sha256})
        if known and sealed_from in (None, known[0]["sealed_from"]):
            return Dataset.from_row(known[0])
        asset, bar = np.nonzero(present.T)
        empty = np.full(panel.shape, np.nan)
        columns = {
            f"p_{field}": (empty if getattr(panel, field) is None else panel.get(field))[bar, asset].tolist()
            for field in BAR_FIELDS
        }
        rows = self.gateway.rpc(
            "import_dataset",
            p_dataset={
                "name": name,
                "source": source,
                "content_sha256": content_sha256,
                "symbols": list(panel.symbols),
                "fields": list(panel.fields),
                "frequency": frequency,
                "n_bars": panel.n_bars,
                "first_ts": panel.index[0].isoformat(),
                "last_ts": panel.index[-1].isoformat(),
                "sealed_from": None if sealed_from is None else sealed_from.isoformat(),
                "default_sealed_from": default_seal.isoformat(),
                "tradable": tradable,
                "synthetic": synthetic,
                "caveats": list(caveats),
            },
            p_symbol=(asset + 1).tolist(),
            p_ts=panel.index.as_unit("us").asi8[bar].tolist(),
            **columns,
        )
        return Dataset.from_row(rows[0])

    def list_datasets(self) -> list[Dataset]:
        """Return every data set, all versions, by name."""
        return [Dataset.from_row(row) for row in self.gateway.select("datasets", order=("name", "-version"))]

    def find_dataset(self, name: str) -> Dataset:
        """Return the newest version of a data set.

        Raises
        ------
        MissingDataError
            If there is none of that name.
        """
        rows = self.gateway.select("datasets", where={"name": name}, order=("-version",), limit=1)
        if not rows:
            known = sorted({dataset.name for dataset in self.list_datasets()})
            raise MissingDataError(
                f"no data set {name!r} in the store; it has {', '.join(known) or 'none yet'}: see `aqf data list`."
            )
        return Dataset.from_row(rows[0])

    def get_dataset(self, dataset_id: UUID) -> Dataset:
        """Return a data set by its id."""
        rows = self.gateway.select("datasets", where={"dataset_id": dataset_id})
        if not rows:
            raise MissingDataError(f"no data set with the id {dataset_id}.")
        return Dataset.from_row(rows[0])

    def load_panel(self, dataset: Dataset, symbols: Sequence[str] | None = None) -> Panel:
        """Load the bars this role may see.

        Raises
        ------
        MissingDataError
            If a symbol is unknown, or there is no bar to see.
        """
        unknown = [symbol for symbol in symbols or () if symbol not in dataset.symbols]
        if unknown:
            raise MissingDataError(f"unknown symbol {', '.join(unknown)}; {dataset.name} has {', '.join(dataset.symbols)}.")
        wanted = list(symbols) if symbols is not None else dataset.symbols
        rows = {row["symbol"]: row for row in self.gateway.rpc("load_panel", p_dataset_id=dataset.dataset_id, p_symbols=wanted)}
        if not rows:
            raise MissingDataError(f"the data set {dataset.name} has no bar that may be read here.")
        stamps = {symbol: _unpack(row["ts"], ">i8").astype(np.int64) for symbol, row in rows.items()}
        union = np.unique(np.concatenate(list(stamps.values())))
        columns: dict[str, Any] = {}
        for field in dataset.fields:
            values = np.full((len(union), len(wanted)), np.nan)
            for position, symbol in enumerate(wanted):
                if symbol in rows:
                    values[np.searchsorted(union, stamps[symbol]), position] = _unpack(rows[symbol][field], ">f8")
            columns[field] = values
        index = pd.DatetimeIndex(union.view("datetime64[us]"), tz="UTC")
        return Panel(index=index, symbols=tuple(wanted), name=dataset.name, **columns)

    def save_labels(
        self, dataset: Dataset, *, name: str, panel: Panel, values: FloatArray, horizon_end: np.ndarray[Any, Any]
    ) -> int:
        """Store labels of shape (n_bars, n_assets).

        `horizon_end` gives the bar at which they are known, of shape (n_bars,) or, one for each symbol, (n_bars, n_assets).
        """
        ends = np.broadcast_to(horizon_end if horizon_end.ndim == 2 else horizon_end[:, None], values.shape)
        rows = [
            {
                "dataset_id": dataset.dataset_id,
                "symbol": panel.symbols[asset],
                "ts": panel.index[bar].to_pydatetime(),
                "name": name,
                "horizon_end": panel.index[int(ends[bar, asset])].to_pydatetime(),
                "value": float(values[bar, asset]),
            }
            for bar, asset in zip(*np.nonzero(np.isfinite(values)), strict=True)
        ]
        return self.gateway.upsert("labels", rows, on_conflict=("dataset_id", "symbol", "ts", "name"))

    # Runs, their tool calls and their memory

    def create_run(
        self,
        *,
        run_id: UUID,
        request: Mapping[str, Any],
        dataset: Dataset,
        lineage: str,
        thread_id: str,
        planner: str,
        budget: Mapping[str, Any],
        code_version: str,
    ) -> Run:
        """Begin a run."""
        row: Row = {
            "run_id": run_id,
            "request": dict(request),
            "dataset_id": dataset.dataset_id,
            "lineage": lineage,
            "thread_id": thread_id,
            "planner": planner,
            "budget": dict(budget),
            "code_version": code_version,
        }
        return Run.from_row(self.gateway.insert("research_runs", [row])[0])

    def get_run(self, run: str | UUID) -> Run:
        """Return a run by its id, a unique beginning of it, or its thread id.

        Raises
        ------
        MissingDataError
            If there is no such run, or several begin so.
        """
        wanted = str(run).strip().lower()
        if not wanted:
            raise MissingDataError("the id of a run must not be empty: see `aqf runs`.")
        matches = [
            row for row in self.list_runs(limit=100_000) if str(row.run_id).startswith(wanted) or row.thread_id == str(run)
        ]
        if len(matches) != 1:
            problem = "no run" if not matches else f"{len(matches)} runs"
            raise MissingDataError(f"{problem} with the id {run}: see `aqf runs`.")
        return Run.from_row(self.gateway.select("research_runs", where={"run_id": matches[0].run_id})[0])

    def list_runs(self, limit: int = 50) -> list[Run]:
        """Return the newest runs first, without their reports."""
        return [
            Run.from_row(row)
            for row in self.gateway.select("research_runs", columns=_RUN_COLUMNS, order=("-started_at",), limit=limit)
        ]

    def finish_run(self, run_id: UUID, *, report: Mapping[str, Any], usage: Mapping[str, Any], finished_at: datetime) -> None:
        """Store the report of a run and close it."""
        values = {
            "status": RunStatus.FINISHED,
            "report": dict(report),
            "usage": dict(usage),
            "finished_at": finished_at,
            "error": None,
        }
        self.gateway.update("research_runs", values, where={"run_id": run_id})

    def fail_run(self, run_id: UUID, error: str) -> None:
        """Mark a run as failed; it can be resumed."""
        self.gateway.update("research_runs", {"status": RunStatus.FAILED, "error": error}, where={"run_id": run_id})

    def reopen_run(self, run_id: UUID) -> None:
        """Mark a run as running again."""
        self.gateway.update("research_runs", {"status": RunStatus.RUNNING, "error": None}, where={"run_id": run_id})

    def find_tool_call(self, run_id: UUID, tool_call_id: str) -> Row | None:
        """Return what a tool call answered, if it was made."""
        rows = self.gateway.select("tool_calls", where={"run_id": run_id, "tool_call_id": tool_call_id})
        return rows[0] if rows else None

    def list_tool_calls(self, run_id: UUID) -> list[Row]:
        """Return the tool calls of a run in order."""
        return self.gateway.select("tool_calls", where={"run_id": run_id}, order=("step", "started_at", "tool_call_id"))

    def save_tool_call(self, row: Row) -> None:
        """Store a tool call and its result."""
        self.gateway.insert("tool_calls", [row])

    def load_agent_state(self, agent_id: str) -> Mapping[str, Any]:
        """Return what an agent remembered; empty when it is new."""
        rows = self.gateway.select("agent_state", where={"agent_id": agent_id})
        return rows[0]["state"] if rows else {}

    def save_agent_state(self, agent_id: str, state: Mapping[str, Any]) -> None:
        """Store what an agent remembers."""
        self.gateway.upsert("agent_state", [{"agent_id": agent_id, "state": dict(state)}], on_conflict=("agent_id",))

    # Features and trials

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
            _check_vector("behaviour", trial.behaviour)
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

    def record_llm_usage(self, row: Row) -> None:
        """Store tokens and cost of one call to a model."""
        self.gateway.insert("llm_usage", [row])

    def llm_cost(self, run_id: UUID) -> float:
        """Return what a run has spent on models, in US dollars."""
        return float(
            sum(row["cost_usd"] for row in self.gateway.select("llm_usage", columns=("cost_usd",), where={"run_id": run_id}))
        )

    # Vector memory

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
            _check_vector(f"embedding` of `{row['asset_symbol']}", row["embedding"])
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
        _check_vector("vector", vector)
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


def _unpack(value: bytes | str, dtype: str) -> np.ndarray[Any, Any]:
    if isinstance(value, str):
        if not value.startswith("\\x"):
            raise StoreError("packed columns must come as bytes or as a hexadecimal text.")
        value = bytes.fromhex(value[2:])
    return np.frombuffer(value, dtype=dtype)


def _check_vector(name: str, vector: FloatArray) -> None:
    values = np.asarray(vector)
    if values.shape != (VECTOR_WIDTH,):
        raise ShapeError(f"`{name}` must have shape ({VECTOR_WIDTH},), was {values.shape}.")
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise ShapeError(f"`{name}` must be finite, was {values[wrong[0]]} at position {wrong[0]}.")


def _vector_text(vector: FloatArray) -> str:
    return "[" + ",".join(repr(float(value)) for value in vector) + "]"
