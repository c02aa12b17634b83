"""Features written in Python, for what the expression language cannot say.

Hides where they come from: the entry points of installed packages (group ``aqf.features``), or code that hands them over.
Promises that names are unique and descriptions complete; `check_feature` tells whether one keeps its word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from core.errors import AQFError, ConfigurationError
from core.market.panel import Panel
from features.fields import FIELDS, FloatArray
from features.point_in_time import Events

GROUP = "aqf.features"
FOREIGN_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
    AQFError,
)
"""What a feature somebody else wrote may raise on data it was not written for."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_ATTRIBUTES = ("name", "version", "hypothesis", "lookback", "columns", "event_kinds", "compute")


@runtime_checkable
class PluginFeature(Protocol):
    """Compute one feature in Python.

    A plugin holds no state: the same bars and events give the same values, whatever was computed before. It reads nothing
    but what it is given, because what it reads elsewhere cannot be cut off, and so not be tested for leaks.
    """

    @property
    def name(self) -> str:
        """Name in the registry: small letters, digits and underscores."""

    @property
    def version(self) -> str:
        """Changes whenever the values would."""

    @property
    def hypothesis(self) -> str:
        """One sentence: why it should predict."""

    @property
    def lookback(self) -> int | None:
        """Bars of history needed beyond the current one; None if all of it."""

    @property
    def columns(self) -> frozenset[str]:
        """Columns of the panel that are read."""

    @property
    def event_kinds(self) -> frozenset[str]:
        """Kinds of event that are read; empty for none."""

    def compute(self, panel: Panel, events: Events | None = None) -> FloatArray:
        """Compute float64 values of shape (n_bars, n_assets).

        Row ``t`` may use bars up to ``t`` and events with ``known_at <= index[t]``; NaN where there is no value, never
        infinite. NaN in the panel means that a symbol has no bar.
        """


@dataclass(frozen=True, kw_only=True)
class FunctionFeature:
    """Make a plugin feature of a function.

    Parameters
    ----------
    name, version, hypothesis, lookback, columns, event_kinds
        As in `PluginFeature`.
    function : callable
        ``function(panel)``, or ``function(panel, events)`` if `event_kinds` is not empty.
    """

    name: str
    version: str
    hypothesis: str
    lookback: int | None
    columns: frozenset[str]
    function: Callable[..., FloatArray]
    event_kinds: frozenset[str] = frozenset()

    def compute(self, panel: Panel, events: Events | None = None) -> FloatArray:
        """Call the function."""
        return self.function(panel, events) if self.event_kinds else self.function(panel)


def load_plugins(own: Iterable[PluginFeature] = ()) -> Mapping[str, PluginFeature]:
    """Collect the features of installed packages, and of the caller.

    Parameters
    ----------
    own : iterable of PluginFeature, default=()
        Features of a use case, or written in a notebook.

    Returns
    -------
    mapping of str to PluginFeature
        By name, sorted; read-only.

    Raises
    ------
    ConfigurationError
        If an entry point cannot be loaded, something is no plugin feature, or two have the same name.

    Notes
    -----
    A package offers a feature in its ``pyproject.toml``::

        [project.entry-points."aqf.features"]
        overnight_gap = "my_package.features:OvernightGap"

    The entry point names a feature, or a class that is built without arguments. Loading runs the package's code, as any
    import does: install only what you trust.
    """
    found: dict[str, tuple[PluginFeature, str]] = {}
    offered = [(_load(point), _origin(point)) for point in sorted(entry_points(group=GROUP))]
    for feature, origin in [*offered, *((feature, "the caller") for feature in own)]:
        check_description(feature, origin)
        if feature.name in found:
            raise ConfigurationError(
                f"two features are called {feature.name!r}, one from {found[feature.name][1]}, one from {origin}; "
                "rename one or uninstall a package."
            )
        found[feature.name] = (feature, origin)
    return MappingProxyType({name: found[name][0] for name in sorted(found)})


def check_description(feature: PluginFeature, origin: str = "the caller") -> None:
    """Check what a plugin says of itself, without computing it.

    Raises
    ------
    ConfigurationError
        If an attribute is missing or not as `PluginFeature` says.
    """
    missing = [name for name in _ATTRIBUTES if not hasattr(feature, name)]
    if missing or isinstance(feature, type):
        what = "a class, not built" if isinstance(feature, type) else f"without {', '.join(missing)}"
        raise ConfigurationError(f"a plugin feature has {', '.join(_ATTRIBUTES)}; {feature!r} from {origin} is {what}.")
    name, lookback = feature.name, feature.lookback
    faults = {
        "name": (name, "small letters, digits and underscores, a letter first, at most 63")
        if not (isinstance(name, str) and _NAME.fullmatch(name))
        else (name, "another name than a field of the language")
        if name in FIELDS
        else None,
        "version": _text_fault(feature.version),
        "hypothesis": _text_fault(feature.hypothesis),
        "lookback": (lookback, "a whole number of bars from 0 on, or None for all history")
        if lookback is not None and not (isinstance(lookback, int) and not isinstance(lookback, bool) and lookback >= 0)
        else None,
        "columns": _names_fault(feature.columns),
        "event_kinds": _names_fault(feature.event_kinds),
        "compute": None if callable(feature.compute) else (feature.compute, "a method"),
    }
    for attribute, fault in faults.items():
        if fault is not None:
            raise ConfigurationError(f"`{attribute}` of a plugin feature must be {fault[1]}, was {fault[0]!r} (from {origin}).")


def _text_fault(value: object) -> tuple[object, str] | None:
    return None if isinstance(value, str) and value.strip() else (value, "text that is not empty")


def _names_fault(value: object) -> tuple[object, str] | None:
    fine = isinstance(value, frozenset) and all(isinstance(item, str) and item for item in value)
    return None if fine else (value, "a frozenset of names")


def _load(point: EntryPoint) -> PluginFeature:
    try:
        loaded = point.load()
        return loaded() if isinstance(loaded, type) else loaded  # type: ignore[no-any-return]
    except (ImportError, SyntaxError, OSError, *FOREIGN_ERRORS) as error:
        raise ConfigurationError(
            f"the feature {_origin(point)} cannot be loaded ({type(error).__name__}: {error}); mend or uninstall its package."
        ) from error


def _origin(point: EntryPoint) -> str:
    package = f" of {point.dist.name}" if point.dist is not None else ""
    return f"`{point.name} = {point.value}`{package}"
