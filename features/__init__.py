"""Floor 1: bars in, numbers out. Features are causal expressions over a Panel."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from features.engine import compute
    from features.explanation import Explanation, explain
    from features.expression import Expression, parse
    from features.leaks import LeakReport, check_leaks

__all__ = ["Explanation", "Expression", "LeakReport", "check_leaks", "compute", "explain", "parse"]

_HOME = {
    "Explanation": "features.explanation",
    "Expression": "features.expression",
    "LeakReport": "features.leaks",
    "check_leaks": "features.leaks",
    "compute": "features.engine",
    "explain": "features.explanation",
    "parse": "features.expression",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
