"""Floor 2: the planner, its tools, and the agents that trade. Imports nothing heavy until it is used."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agents.research.report import ResearchReport
    from agents.research.request import Budget, Candidate, ResearchRequest
    from agents.research.runner import ResearchContext, resume_run, run_planner
    from agents.research.session import Event

__all__ = ["Budget", "Candidate", "Event", "ResearchContext", "ResearchReport", "ResearchRequest", "resume_run", "run_planner"]

_HOMES = {
    "Budget": "agents.research.request",
    "Candidate": "agents.research.request",
    "Event": "agents.research.session",
    "ResearchContext": "agents.research.runner",
    "ResearchReport": "agents.research.report",
    "ResearchRequest": "agents.research.request",
    "resume_run": "agents.research.runner",
    "run_planner": "agents.research.runner",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
