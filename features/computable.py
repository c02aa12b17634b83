"""Whatever can be computed on a panel under one face: an expression, or a plugin feature.

Hides which of the two it is. Promises that one text means one computation: an expression is its canonical form; a plugin is
``plugin:NAME@VERSION#`` and the first 16 digits of the hash of its source, so that changed code is another feature.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from core.errors import ConfigurationError, DataError, ExpressionError, MissingDataError
from core.market.panel import Panel
from features.contract import check_feature
from features.engine import compute
from features.expression import Expression, parse
from features.fields import FloatArray
from features.futures import FeatureInputs
from features.leaks import check_leaks, compute_python
from features.plugins import FOREIGN_ERRORS, FunctionFeature, PluginFeature
from features.point_in_time import Events

PREFIX = "plugin:"
EventLoader = Callable[[datetime], Events]
"""Returns the events that were known at a time."""

_DIGITS = 16
_TEXT = re.compile(
    rf"{PREFIX}(?P<name>[a-z][a-z0-9_]*)(?:@(?P<version>.+?))?(?:#(?P<source>[0-9a-f]{{{_DIGITS}}}))?", re.DOTALL
)


@dataclass(frozen=True, kw_only=True)
class Soundness:
    """Say whether a feature may be trusted with data like these.

    Parameters
    ----------
    fault : {"leak", "contract"} or None
        ``"leak"`` if it knows the future, ``"contract"`` if it breaks another clause of `check_feature`.
    n_checks : int
        Recomputations that were compared for leaks.
    summary : str
        The same in one sentence.
    """

    fault: Literal["leak", "contract"] | None
    n_checks: int
    summary: str


@dataclass(frozen=True, kw_only=True)
class Computable:
    """Hold a feature, however it is written; equal by its canonical text.

    Parameters
    ----------
    canonical : str
        The one text that means it; `resolve` finds it again.
    source : Expression or PluginFeature
    load_events : callable, optional
        Where a plugin's events come from, as known at the last bar of the data it is computed on; None where there are none.
    """

    canonical: str
    source: Expression | PluginFeature = field(compare=False)
    load_events: EventLoader | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, source: Expression | PluginFeature, load_events: EventLoader | None = None) -> Computable:
        """Wrap an expression or a plugin.

        Raises
        ------
        ConfigurationError
            If the source of a plugin cannot be read.
        """
        if isinstance(source, Expression):
            return cls(canonical=source.canonical, source=source)
        digits = source_sha256(source)[:_DIGITS]
        return cls(canonical=f"{PREFIX}{source.name}@{source.version}#{digits}", source=source, load_events=load_events)

    @property
    def is_plugin(self) -> bool:
        """Whether it is written in Python."""
        return not isinstance(self.source, Expression)

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the canonical text."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()

    @property
    def lookback(self) -> int | None:
        """Bars of history needed beyond the current one; None for all of it."""
        return self.source.lookback

    @property
    def columns(self) -> frozenset[str]:
        """Columns of the data that are read."""
        return self.source.fields if isinstance(self.source, Expression) else self.source.columns

    @property
    def event_kinds(self) -> frozenset[str]:
        """Kinds of event that are read; empty for an expression."""
        return frozenset() if isinstance(self.source, Expression) else self.source.event_kinds

    def check_inputs(self, panel: Panel) -> None:
        """Check that there is everything to compute it.

        Raises
        ------
        MissingDataError
            If the panel lacks a column, or there are no events of a kind that is read.
        """
        if not isinstance(self.source, Expression):  # of an expression the engine says it, and knows what `vwap` replaces
            self._read_inputs(self.source, panel)

    def _read_inputs(self, plugin: PluginFeature, panel: Panel) -> FeatureInputs:
        """Return what a plugin reads: the bars, and the events as they were known at the last of them."""
        missing = sorted(plugin.columns - set(panel.fields))
        if missing:
            raise MissingDataError(
                f"the plugin {plugin.name} reads {', '.join(missing)}; the data set has {', '.join(panel.fields)}."
            )
        if not plugin.event_kinds:
            return FeatureInputs(panel=panel)
        events = None
        if self.load_events is not None and panel.n_bars:
            last = panel.index[-1]
            events = self.load_events(last.to_pydatetime()).known_by(last).of_kind(*plugin.event_kinds).select(panel.symbols)
        absent = sorted(plugin.event_kinds - (frozenset() if events is None else events.kinds))
        if absent:
            raise MissingDataError(
                f"the plugin {plugin.name} reads events of kind {', '.join(absent)}, and there are none here; save them with "
                "`ResearchStore.save_events`, or call its `compute`, `check_feature` and `study` in Python with the events."
            )
        return FeatureInputs(panel=panel, events=events)

    def compute(self, panel: Panel) -> FloatArray:
        """Compute it.

        Returns
        -------
        ndarray of shape (n_bars, n_assets)
            Row ``t`` is known at the close of bar ``t`` if :meth:`check` found no fault. NaN where there is no value; never
            infinite.

        Raises
        ------
        DataError
            If the data lack what it reads, or a plugin raises.
        """
        if isinstance(self.source, Expression):
            return compute(self.source, panel)
        inputs = self._read_inputs(self.source, panel)
        try:
            values = compute_python(self.source, inputs, "bars")
        except FOREIGN_ERRORS as error:
            raise DataError(
                f"the plugin {self.source.name} raised {type(error).__name__}: {error}; `aqf features check "
                f"{self.source.name}` says more."
            ) from error
        return np.where(np.isinf(values), np.nan, values)

    def check(self, panel: Panel, *, seed: int = 0) -> Soundness:
        """Test an expression for leaks, and a plugin for its whole contract.

        Raises
        ------
        DataError
            If the panel is too short, or lacks what is read.
        """
        if isinstance(self.source, Expression):
            leaks = check_leaks(self.source, panel, seed=seed)
            return Soundness(fault=None if leaks.passed else "leak", n_checks=leaks.n_checks, summary=leaks.summary())
        report = check_feature(self.source, panel, events=self._read_inputs(self.source, panel).events, seed=seed)
        leaks_found = report.leaks is not None and not report.leaks.passed
        return Soundness(
            fault=None if report.passed else "leak" if leaks_found else "contract",
            n_checks=0 if report.leaks is None else report.leaks.n_checks,
            summary=report.summary(),
        )


def is_plugin_text(text: str) -> bool:
    """Tell whether a text means a plugin rather than an expression."""
    return text.strip().startswith(PREFIX)


def resolve(
    text: str,
    *,
    plugins: Callable[[], Mapping[str, PluginFeature]],
    extra: Collection[str] = (),
    features: Mapping[str, Expression | str] = MappingProxyType({}),
    load_events: EventLoader | None = None,
) -> Computable:
    """Find what a text means.

    Parameters
    ----------
    text : str
        An expression; or ``plugin:NAME``, with its version and the digits of its source or without.
    plugins : callable
        Returns the plugins there are, as `load_plugins` does; called only if the text names one.
    extra, features
        As in `parse`.
    load_events : callable, optional
        Where a plugin's events come from; without it, a plugin that reads events cannot be computed.

    Raises
    ------
    ExpressionError, LookAheadError
        If the text cannot be accepted.
    MissingDataError
        If there is no such plugin, or it is another version or other code.
    ConfigurationError
        If plugins cannot be loaded.
    """
    if not is_plugin_text(text):
        return Computable.of(parse(text, extra=extra, features=features))
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise ExpressionError(f"a plugin is written `{PREFIX}name`, was {text.strip()[:80]!r}; see `aqf features list`.")
    known = plugins()
    name = match["name"]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        meant = f" Did you mean {close[0]}?" if close else ""
        there = f"There are {', '.join(known)}" if known else "There are none: install the package that has it"
        raise MissingDataError(f"there is no plugin {name!r}.{meant} {there}.")
    found = Computable.of(known[name], load_events)
    digits = found.canonical[-_DIGITS:]
    for asked, here in ((match["version"], known[name].version), (match["source"], digits)):
        if asked not in (None, here):
            raise MissingDataError(
                f"`{text.strip()}` is asked for, the plugin here is `{found.canonical}`: bring back the code that it was, or "
                f"propose `{PREFIX}{name}`, which is another feature."
            )
    return found


def source_sha256(plugin: PluginFeature) -> str:
    """Hash the file that defines a plugin: the class, or the function of a `FunctionFeature`.

    Returns
    -------
    str
        Hexadecimal SHA-256 of the file, line ends made alike; of the definition alone where there is no file (a notebook).

    Raises
    ------
    ConfigurationError
        If neither can be read.

    Notes
    -----
    What the file imports is not in it, nor what an object was built with: the plugin's version stands for those.
    """
    definition = _definition(plugin)
    file = getattr(sys.modules.get(definition.__module__), "__file__", None)
    try:
        content = Path(file).read_bytes() if file is not None else inspect.getsource(definition).encode()
    except (OSError, TypeError) as error:
        raise ConfigurationError(
            f"the source of the plugin {plugin.name} cannot be read ({error}), so that a change of it would not be noticed; "
            "define it in a file."
        ) from error
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()


def _definition(plugin: PluginFeature) -> type | Callable[..., object]:
    if not isinstance(plugin, FunctionFeature):
        return type(plugin)
    function: Callable[..., object] = plugin.function
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    return function if hasattr(function, "__module__") and hasattr(function, "__qualname__") else type(function)
