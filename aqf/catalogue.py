"""The features a command can name: known hypotheses, plugin features, and those of the registry.

Hides where they come from. Promises that a name means the registry's newest feature of that name, else the known hypothesis,
else an expression, else a plugin; and that an expression may build on all of them but plugins.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from core.errors import ExpressionError, MissingDataError
from core.store.records import Feature, FeatureKind
from features.alphas import LIBRARY, Hypothesis, alpha158_hypotheses
from features.computable import Computable, resolve
from features.expression import LANGUAGE, is_buildable, parse
from features.plugins import PluginFeature

CATALOGUES: tuple[Callable[[], Iterable[Hypothesis]], ...] = (lambda: LIBRARY, alpha158_hypotheses)
"""Known hypotheses, in the order they are listed."""

NOT_TRIED = "not tried"
PLUGIN_FAMILY = "plugin"

_WORD = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A feature that can be named.

    Parameters
    ----------
    name, family, expression, hypothesis, source : str
        `source` is the paper of a known hypothesis, ``plugin`` or ``registry``.
    kind : str, default="expression"
        Or ``plugin``, whose `expression` is its name, version and source.
    status : str
        Of the registry, or ``not tried``.
    reason : str, optional
        Why the registry says so.
    sha256 : str, optional
        Hash of its canonical form; None for what this version cannot parse.
    needs : frozenset of str
        Columns that it reads.
    """

    name: str
    family: str
    expression: str
    hypothesis: str
    source: str
    kind: str = FeatureKind.EXPRESSION
    status: str = NOT_TRIED
    reason: str | None = None
    sha256: str | None = None
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a text on the command line means: a feature, and the entry that it is, if it is one."""

    feature: Computable
    entry: Entry | None

    @property
    def title(self) -> str:
        """Its name, or its formula."""
        return self.feature.canonical if self.entry is None else self.entry.name


def list_entries(
    registered: Collection[Feature] = (), plugins: Mapping[str, PluginFeature] = MappingProxyType({})
) -> list[Entry]:
    """Return the known hypotheses and plugins with what the registry says of them, then what only the registry has."""
    rows = {row.expression_sha256: row for row in registered}
    entries = [_of_hypothesis(hypothesis, rows) for catalogue in CATALOGUES for hypothesis in catalogue()]
    entries += [_of_plugin(plugin, rows) for plugin in plugins.values()]
    listed = {entry.sha256 for entry in entries}
    return entries + [_of_registry(row) for sha256, row in rows.items() if sha256 not in listed]


def find_feature(
    text: str,
    registered: Collection[Feature] = (),
    plugins: Callable[[], Mapping[str, PluginFeature]] | None = None,
) -> Found:
    """Resolve a name or an expression.

    Parameters
    ----------
    text : str
        Name of a feature, or an expression, which may build on features by name.
    registered : collection of Feature
        Features of the registry, oldest first.
    plugins : callable, optional
        Returns the plugin features by name; called only for what is nothing else. By default those of use cases and installed
        packages.

    Raises
    ------
    ExpressionError, LookAheadError
        If it is none of them.
    MissingDataError
        If it is a plugin that is not here.
    """
    plugins = plugins or load_plugins
    entries = list_entries(registered)
    by_name = {entry.name: entry for entry in entries} | {row.name: _of_registry(row) for row in registered}
    text = text.strip()
    # The code that is here comes before what the registry knows of other code of that name.
    if text in by_name and not (by_name[text].kind == FeatureKind.PLUGIN and text in plugins()):
        return Found(feature=resolve(by_name[text].expression, plugins=plugins), entry=by_name[text])
    offered = {name: entry.expression for name, entry in by_name.items() if _can_be_built_on(entry)}
    try:
        feature = resolve(text, plugins=plugins, features=offered)
    except ExpressionError:
        plugin = _find_plugin(text, plugins(), offered)
        if plugin is None:
            raise
        feature = Computable.of(plugin)
    if isinstance(feature.source, PluginFeature):
        entries = [_of_plugin(feature.source, {row.expression_sha256: row for row in registered})]
    return Found(feature=feature, entry=next((one for one in entries if one.sha256 == feature.sha256), None))


def load_plugins() -> Mapping[str, PluginFeature]:
    """Load the plugin features of use cases and installed packages, and with them what use cases import."""
    from use_cases import load_all_plugins

    return load_all_plugins()


def check_family(family: str, entries: Iterable[Entry]) -> None:
    """Refuse a family that no entry has.

    Raises
    ------
    MissingDataError
        With the nearest name.
    """
    families = sorted({entry.family for entry in entries})
    if family not in families:
        close = difflib.get_close_matches(family, families, n=1)
        meant = f" Did you mean {close[0]}?" if close else ""
        raise MissingDataError(f"unknown family {family!r}.{meant} There are {', '.join(families)}.")


def _find_plugin(text: str, plugins: Mapping[str, PluginFeature], others: Collection[str]) -> PluginFeature | None:
    """Take what is no expression for the name of a plugin; None if it is nothing like one."""
    if text in plugins:
        return plugins[text]
    named = sorted(set(_WORD.findall(text)) & plugins.keys())
    if named:
        raise ExpressionError(f"`{named[0]}` is a plugin feature, which no expression can build on; name it alone.")
    close = difflib.get_close_matches(text, [*plugins, *others, *LANGUAGE], n=1)
    if close and close[0] in plugins:
        raise ExpressionError(f"there is no feature `{text}`. Did you mean the plugin {close[0]}?")
    return None


def _of_hypothesis(hypothesis: Hypothesis, rows: Mapping[str, Feature]) -> Entry:
    sha256 = parse(hypothesis.expression).sha256
    row = rows.get(sha256)
    return Entry(
        name=hypothesis.name,
        family=hypothesis.family,
        expression=hypothesis.expression,
        hypothesis=hypothesis.hypothesis,
        source=hypothesis.source,
        status=NOT_TRIED if row is None else row.status,
        reason=None if row is None else row.reason,
        sha256=sha256,
        needs=hypothesis.needs,
    )


def _of_plugin(plugin: PluginFeature, rows: Mapping[str, Feature]) -> Entry:
    feature = Computable.of(plugin)
    row = rows.get(feature.sha256)
    return Entry(
        name=plugin.name,
        family=PLUGIN_FAMILY if row is None else row.family,
        expression=feature.canonical,
        hypothesis=plugin.hypothesis,
        source=PLUGIN_FAMILY,
        kind=FeatureKind.PLUGIN,
        status=NOT_TRIED if row is None else row.status,
        reason=None if row is None else row.reason,
        sha256=feature.sha256,
        needs=plugin.columns,
    )


def _of_registry(row: Feature) -> Entry:
    sha256, needs = None, frozenset[str]()
    if row.kind == FeatureKind.PLUGIN:
        sha256 = row.expression_sha256
    else:
        try:
            expression = parse(row.expression)
            sha256, needs = expression.sha256, expression.fields
        except ExpressionError:  # written for another version: it can be listed all the same
            pass
    return Entry(
        name=row.name,
        family=row.family,
        expression=row.expression,
        hypothesis=row.hypothesis,
        source="registry",
        kind=row.kind,
        status=row.status,
        reason=row.reason,
        sha256=sha256,
        needs=needs,
    )


def _can_be_built_on(entry: Entry) -> bool:
    return entry.kind == FeatureKind.EXPRESSION and is_buildable(entry.name)
