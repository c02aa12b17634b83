"""Expressions of a batch that are worked through in one go, each bar's values staying in the processor's cache.

Hides how a batch is divided. Sums, quotients, lags and rolling statistics become operations of one program of
`features.join_program` for every group of expressions that have something in common; what a program cannot do (ranks,
logarithms, sorted windows), and what that needs, it reads as finished arrays. Promises the bits that the operators give one
after the other, and that what several expressions of a batch have in common is computed once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from features.evaluation import family_of
from features.expression import Expression
from features.fields import FloatArray
from features.join_program import (
    AT_MOST,
    CONSTANT,
    FINITE,
    FINITE_DIFFERENCE,
    FINITE_PRODUCT,
    FINITE_RATIO,
    FINITE_SUM,
    LESS,
    MAGNITUDE,
    OFFSET,
    RATIO,
    STORE,
    TIMES,
    Builder,
    Layout,
    Program,
)
from features.node import Node
from features.operators import NEGATE
from features.rolling import MOST_SERIES, STATISTICS, run

_JOINING: Mapping[str, int] = MappingProxyType(
    {
        "+": FINITE_SUM,
        "-": FINITE_DIFFERENCE,
        "*": FINITE_PRODUCT,
        "/": FINITE_RATIO,
        "and": FINITE_PRODUCT,
        "<": LESS,
        "<=": AT_MOST,
    }
)
_TAKEN_FROM: Mapping[str, float] = MappingProxyType({NEGATE: 0.0, "not": 1.0})
_MOST_CELLS, _MOST_OPERATIONS = 256_000, 500
_KNOWN = frozenset({*_JOINING, *_TAKEN_FROM, *STATISTICS, "abs", "delay", "delta", "pct_change"})


@dataclass(frozen=True, kw_only=True)
class Group:
    """Hold expressions of a batch that one program computes.

    Parameters
    ----------
    places : tuple of int
        Where they stand in the batch.
    texts : tuple of str
        Their canonical texts.
    reads : tuple of str
        Canonical texts of `inputs`.
    roots, inputs : tuple of Node
        The expressions, and the arrays that the program reads.
    """

    places: tuple[int, ...]
    texts: tuple[str, ...]
    reads: tuple[str, ...]
    roots: tuple[Node, ...] = field(compare=False)
    inputs: tuple[Node, ...] = field(compare=False)

    def compute(self, arrays: Sequence[FloatArray], out: FloatArray, *, part: tuple[int, int]) -> None:
        """Write the values of a share of the bars.

        Parameters
        ----------
        arrays : sequence of ndarray of shape (n_bars, n_assets)
            Values of `inputs`.
        out : ndarray of shape (k, n_bars, n_assets)
            Values of the batch; those of this group are written.
        part : (int, int)
            Which of how many equal shares.
        """
        run(_lay_out(self), lambda strip: _program(self, strip, out.shape[1]), arrays, out, part=part)

    def fits(self, n_bars: int, n_assets: int) -> bool:
        """Tell whether the program finds room in the processor's cache; windows of years may not."""
        layout = _lay_out(self)
        return layout.size(layout.choose_strip(n_bars, n_assets), n_bars) <= _MOST_CELLS


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Hold a batch that is divided: groups, and the places of all other expressions."""

    groups: tuple[Group, ...]
    others: tuple[int, ...]

    def fit(self, n_bars: int, n_assets: int) -> Batch:
        """Return the batch without the groups that do not fit."""
        fitting = tuple(group for group in self.groups if group.fits(n_bars, n_assets))
        if len(fitting) == len(self.groups):
            return self
        freed = {place for group in self.groups if group not in fitting for place in group.places}
        return Batch(groups=fitting, others=tuple(sorted(freed.union(self.others))))


@lru_cache(maxsize=32)
def divide(expressions: tuple[Expression, ...]) -> Batch:
    """Divide a batch into groups that have no operation in common, and the expressions that no program can compute."""
    roots = [expression.root for expression in expressions]
    finished = {node.canonical for root in roots for node in _below_others(root)}
    members = _gather(roots, finished)
    # What groups that grew too large for one program have in common is worked out once, for all of them.
    seen: dict[str, int] = {}
    for label, places in enumerate(members):
        for node in (node for place in places for node in _region(roots[place], finished)):
            if seen.setdefault(node.canonical, label) != label:
                finished.add(node.canonical)
    groups = []
    for places in members:
        places = [place for place in places if roots[place].canonical not in finished]
        nodes = [node for place in places for node in _region(roots[place], finished)]
        inputs = {node.canonical: node for node in _inputs(nodes, finished)}
        # A single operation has nothing to be joined with.
        if len(nodes) > 1 and len(inputs) <= MOST_SERIES:
            groups.append(
                Group(
                    places=tuple(places),
                    texts=tuple(roots[place].canonical for place in places),
                    reads=tuple(inputs),
                    roots=tuple(roots[place] for place in places),
                    inputs=tuple(inputs.values()),
                )
            )
    joined = {place for one in groups for place in one.places}
    return Batch(groups=tuple(groups), others=tuple(place for place in range(len(roots)) if place not in joined))


def _gather(roots: Sequence[Node], finished: Set[str]) -> list[list[int]]:
    """Gather, by their places, expressions with operations in common, as long as one program can read and do what they need."""
    labels: dict[int, int] = {}
    reads: dict[int, set[str]] = {}
    sizes: dict[int, int] = {}
    seen: dict[object, int] = {}
    for place, root in enumerate(roots):
        if not _can_join(root) or root.canonical in finished:
            continue
        nodes = list(_region(root, finished))
        labels[place], sizes[place] = place, len(nodes)
        reads[place] = {node.canonical for node in _inputs(nodes, finished)}
        for node in nodes:
            mine, other = labels[place], labels[seen.setdefault(family_of(node), place)]
            small = sizes[mine] + sizes[other] <= _MOST_OPERATIONS and len(reads[mine] | reads[other]) <= MOST_SERIES
            if mine != other and small:
                reads[other] |= reads[mine]
                sizes[other] += sizes[mine]
                labels.update((each, other) for each, label in labels.items() if label == mine)
    members: dict[int, list[int]] = {}
    for place, label in labels.items():
        members.setdefault(label, []).append(place)
    return list(members.values())


def _inputs(nodes: Iterable[Node], finished: Set[str]) -> Iterator[Node]:
    """Yield what the program of some operations reads."""
    return (arg for node in nodes for arg in node.args if not _inside(arg, finished))


def _can_join(node: Node) -> bool:
    """Tell whether an operation is one that programs have."""
    return node.operator is not None and node.operator.name in _KNOWN


def _inside(node: Node, finished: Set[str]) -> bool:
    """Tell whether an argument is worked out by the program itself."""
    return node.value is not None or (_can_join(node) and node.canonical not in finished)


def _region(root: Node, finished: Set[str]) -> Iterator[Node]:
    yield root
    for arg in root.args:
        if arg.operator is not None and _inside(arg, finished):
            yield from _region(arg, finished)


def _below_others(root: Node) -> Iterator[Node]:
    """Yield what must be there as an array: whatever stands anywhere below an operation that programs do not have."""
    if root.operator is not None and not _can_join(root):
        for node in root.walk():
            if node is not root:
                yield node
        return
    for arg in root.args:
        yield from _below_others(arg)


@lru_cache(maxsize=64)
def _lay_out(group: Group) -> Layout:
    builder = Builder()
    rows = {name: builder.load(number) for number, name in enumerate(group.reads)}
    for place, root in zip(group.places, group.roots, strict=True):
        builder.write(STORE, [], [(_row(builder, root, rows), 0)], number=place)
    return builder.lay_out()


@lru_cache(maxsize=64)
def _program(group: Group, strip: int, n_bars: int) -> Program:
    return _lay_out(group).place(strip, n_bars)


def _row(builder: Builder, node: Node, rows: dict[str, int]) -> int:
    """Write what leads to a value, unless it is written already, and give its row."""
    if node.canonical not in rows:
        rows[node.canonical] = _write_node(builder, node, rows)
    return rows[node.canonical]


def _write_node(builder: Builder, node: Node, rows: dict[str, int]) -> int:
    if node.value is not None:
        return builder.emit(CONSTANT, weight=float(node.value))
    assert node.operator is not None
    name = node.operator.name
    if name in _JOINING:
        return builder.emit(_JOINING[name], *(_row(builder, arg, rows) for arg in node.args))
    series = [_row(builder, arg, rows) for arg in node.args if arg.value is None]
    numbers = [int(arg.value) for arg in node.args if arg.value is not None]
    if name in STATISTICS:
        statistic = STATISTICS[name]
        return builder.emit(FINITE, statistic.finish(builder.over(*series), statistic.bars(*numbers)))
    (row,) = series
    if name in _TAKEN_FROM:
        return builder.emit(FINITE_DIFFERENCE, builder.emit(CONSTANT, weight=_TAKEN_FROM[name]), row)
    if name == "abs":
        return builder.emit(MAGNITUDE, row)
    (lag,) = numbers
    if name == "delay":
        return builder.emit(TIMES, (row, lag), weight=1.0)
    if name == "delta":
        return builder.emit(FINITE_DIFFERENCE, row, (row, lag))
    return builder.emit(FINITE, builder.emit(OFFSET, builder.emit(RATIO, row, (row, lag)), weight=-1.0))
