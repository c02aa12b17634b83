"""Research runs: their requests and reports, their calls to tools and models, and what an agent remembers between them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from core.errors import MissingDataError
from core.store.event_records import LlmCall
from core.store.gateway import Gateway, Row
from core.store.records import Dataset, Run, RunStatus
from core.store.trading_records import read_message

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


class RunMethods:
    """What the research store does with runs."""

    gateway: Gateway

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
        building_blocks: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
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
            "building_blocks": {name: dict(block) for name, block in building_blocks.items()},
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

    def find_progress(self, run_id: UUID) -> tuple[int, datetime | None]:
        """Return how many trials a run has made, and when its last tool call began, however it ended."""
        trials = self.gateway.select("trials", columns=("trial_id",), where={"run_id": run_id})
        last = self.gateway.select(
            "tool_calls", columns=("started_at",), where={"run_id": run_id}, order=("-started_at",), limit=1
        )
        return len(trials), last[0]["started_at"] if last else None

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

    def record_llm_usage(self, row: Row) -> None:
        """Store tokens and cost of one call to a model."""
        self.gateway.insert("llm_usage", [row])

    def llm_cost(self, run_id: UUID) -> float:
        """Return what a run has spent on models, in US dollars."""
        return float(
            sum(row["cost_usd"] for row in self.gateway.select("llm_usage", columns=("cost_usd",), where={"run_id": run_id}))
        )

    def save_llm_call(self, call: LlmCall) -> None:
        """Store a call to a model, bit for bit.

        Raises
        ------
        StoreConflictError
            If this asking of the same request is stored already.
        """
        self.gateway.insert("llm_calls", [call.to_dict()])

    def find_llm_calls(self, run_id: UUID | None, request_sha256: str) -> list[LlmCall]:
        """Return what a model answered to a request in a run (None: outside of any), in the order of the askings."""
        where = {"request_sha256": request_sha256, "run_id": ("is", None) if run_id is None else run_id}
        rows = self.gateway.select("llm_calls", where=where, order=("ordinal",))
        return [read_message(LlmCall, row) for row in rows]
