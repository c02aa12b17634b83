"""Floor 1: bars in, numbers out. Features are causal expressions over a Panel."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from features.contract import FeatureReport, check_feature
    from features.engine import compute, compute_each
    from features.explanation import Explanation, explain
    from features.expression import Expression, parse
    from features.leaks import LeakReport, check_leaks
    from features.plugins import FunctionFeature, PluginFeature, load_plugins
    from features.point_in_time import Events, join_events
    from features.stream import FeatureStream

__all__ = [
    "Events",
    "Explanation",
    "Expression",
    "FeatureReport",
    "FeatureStream",
    "FunctionFeature",
    "LeakReport",
    "PluginFeature",
    "check_feature",
    "check_leaks",
    "compute",
    "compute_each",
    "explain",
    "join_events",
    "load_plugins",
    "parse",
]

_HOME = {
    "Events": "features.point_in_time",
    "Explanation": "features.explanation",
    "Expression": "features.expression",
    "FeatureReport": "features.contract",
    "FeatureStream": "features.stream",
    "FunctionFeature": "features.plugins",
    "LeakReport": "features.leaks",
    "PluginFeature": "features.plugins",
    "check_feature": "features.contract",
    "check_leaks": "features.leaks",
    "compute": "features.engine",
    "compute_each": "features.engine",
    "explain": "features.explanation",
    "join_events": "features.point_in_time",
    "load_plugins": "features.plugins",
    "parse": "features.expression",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
