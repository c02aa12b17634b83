"""Runs the planner in a process of its own and ends it at one point, as a power cut would: no handler, no clean-up.

Run as ``python -m tests.agents.killed_run POINT THREAD TRIALS`` with AQF_HOME and AQF_DATABASE_URL set.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from agents.research.request import Budget, ResearchRequest
from agents.research.runner import run_planner
from agents.research.session import Event
from core.store.research import ResearchStore
from tests.agents.worlds import QUESTION


def die() -> None:
    """End this process without a word."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_before(method: str, *, nth: int = 1, tool: str | None = None) -> None:
    """Make the n-th call of a method of the store, for one tool if it is named, the last thing this process does."""
    original: Callable[..., Any] = getattr(ResearchStore, method)
    calls = []

    def wrapped(self: ResearchStore, *args: Any, **kwargs: Any) -> Any:
        if tool is None or args[0]["tool"] == tool:
            calls.append(method)
            if len(calls) == nth:
                die()
        return original(self, *args, **kwargs)

    setattr(ResearchStore, method, wrapped)


def main(point: str, thread: str, trials: int) -> None:
    """Run until the point is reached."""

    def on_event(event: Event) -> None:
        if point == "after_recall" and event.kind == "planned":
            die()
        if point == "hold" and event.done:
            sys.stdout.write("holding\n")
            sys.stdout.flush()
            sys.stdin.readline()

    points: dict[str, dict[str, Any]] = {
        "in_proposals": {"method": "save_tool_call", "nth": 3, "tool": "propose_new_feature"},
        "in_backtests": {"method": "save_tool_call", "nth": 3, "tool": "run_backtest"},
        "in_last_backtest": {"method": "save_tool_call", "nth": trials, "tool": "run_backtest"},
        "in_judge": {"method": "record_holdout"},
        "in_report": {"method": "finish_run"},
    }
    if point in points:
        die_before(**points[point])
    request = ResearchRequest(question=QUESTION, dataset="planted", vectors=False)
    run_planner(request, budget=Budget(trials=trials), planner="rules", thread_id=thread, on_event=on_event)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
