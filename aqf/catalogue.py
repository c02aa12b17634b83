"""The features a command can name: known hypotheses, and those of the registry.

Hides where they come from. Promises that a name means the registry's newest feature of that name, else the known hypothesis,
else an expression; and that an expression may build on all of them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from core.errors import ExpressionError, MissingDataError
from core.store.records import Feature
from features.alphas import LIBRARY, Hypothesis
from features.expression import Expression, parse
from features.fields import FIELDS
from features.operators import OPERATORS, SPELLINGS
from features.technical import INDICATORS

CATALOGUES: tuple[Callable[[], Iterable[Hypothesis]], ...] = (lambda: LIBRARY,)
"""Known hypotheses, in the order they are listed."""

NOT_TRIED = "not tried"
LANGUAGE = frozenset(FIELDS.keys() | OPERATORS.keys() | SPELLINGS.keys() | INDICATORS.keys())
"""Words that no feature may be called by."""

_WORD = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A feature that can be named.

    Parameters
    ----------
    name, family, expression, hypothesis, source : str
        `source` is the paper of a known hypothesis, or ``registry``.
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
    status: str = NOT_TRIED
    reason: str | None = None
    sha256: str | None = None
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a text on the command line means: an expression, and the entry that it is, if it is one."""

    expression: Expression
    entry: Entry | None

    @property
    def title(self) -> str:
        """Its name, or its formula."""
        return self.expression.canonical if self.entry is None else self.entry.name


def list_entries(registered: Collection[Feature] = ()) -> list[Entry]:
    """Return the known hypotheses with what the registry says of them, then what only the registry has."""
    rows = {row.expression_sha256: row for row in registered}
    entries = []
    for hypothesis in (one for catalogue in CATALOGUES for one in catalogue()):
        sha256 = parse(hypothesis.expression).sha256
        row = rows.pop(sha256, None)
        entries.append(
            Entry(
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
        )
    return entries + [_of_registry(row) for row in rows.values()]


def find_feature(text: str, registered: Collection[Feature] = ()) -> Found:
    """Resolve a name or an expression.

    Parameters
    ----------
    text : str
        Name of a feature, or an expression, which may build on features by name.
    registered : collection of Feature
        Features of the registry, oldest first.

    Raises
    ------
    ExpressionError, LookAheadError
        If it is neither.
    """
    entries = list_entries(registered)
    by_name = {entry.name: entry for entry in entries} | {row.name: _of_registry(row) for row in registered}
    text = text.strip()
    if text in by_name:
        return Found(expression=parse(by_name[text].expression), entry=by_name[text])
    expression = parse(text, features=_mentioned(text, by_name))
    return Found(expression=expression, entry=next((one for one in entries if one.sha256 == expression.sha256), None))


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


def _of_registry(row: Feature) -> Entry:
    try:
        expression = parse(row.expression)
    except ExpressionError:  # written for another version, or by a plugin: it can be listed all the same
        expression = None
    return Entry(
        name=row.name,
        family=row.family,
        expression=row.expression,
        hypothesis=row.hypothesis,
        source="registry",
        status=row.status,
        reason=row.reason,
        sha256=None if expression is None else expression.sha256,
        needs=frozenset() if expression is None else expression.fields,
    )


def _mentioned(text: str, by_name: Mapping[str, Entry]) -> dict[str, str]:
    """Features that the text names, or may have meant: to offer all of them would make an error of pages."""
    offered = {name for name in by_name if name.isidentifier()} - LANGUAGE
    near: set[str] = set()
    for word in set(_WORD.findall(text)) - LANGUAGE:
        near |= {word} if word in offered else set(difflib.get_close_matches(word, offered, n=1))
    return {name: by_name[name].expression for name in near}
