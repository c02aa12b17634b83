"""The vector memory of windows: how it is filled, by whom, and how one version of it is compared with the next.

The planner, the command and the worker all write it through `refresh_memory`, so that the same request gives the same rows.
"""

from features.memory.comparison import VersionComparison, compare_versions, switch_version
from features.memory.jobs import WorkedJob, work_embedding_jobs
from features.memory.plan import EMB_TYPE, LABEL_HORIZON, MemorySpec
from features.memory.refresh import Refreshed, refresh_memory

__all__ = [
    "EMB_TYPE",
    "LABEL_HORIZON",
    "MemorySpec",
    "Refreshed",
    "VersionComparison",
    "WorkedJob",
    "compare_versions",
    "refresh_memory",
    "switch_version",
    "work_embedding_jobs",
]
