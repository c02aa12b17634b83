"""The values of the sub-expressions of one call, shared by the threads that work on it.

Hides who computes a value, how long it is kept, and when it is computed again. Promises that a value that is kept is
computed once, that it is let go after its last use, that no more arrays are kept for later than `capacity` allows, and that
the numbers are the same bits however many threads ask and however little may be kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Condition
from typing import TYPE_CHECKING

import numpy as np

from features.expression import Expression
from features.fields import FloatArray, load_field
from features.node import Node

if TYPE_CHECKING:
    from core.market.panel import Panel

_Family = tuple[object, ...]


class Evaluation:
    """Compute values of expressions and of what they are made of, each asked for as often as it occurs.

    Parameters
    ----------
    nodes : sequence of Node
        Everything that will be asked for, as often as it stands here.
    panel : Panel
        Bars to read.

    Attributes
    ----------
    capacity : int or None
        Arrays that may be kept for later at any time, those of the panel itself not counted; None for no bound. What is
        kept beyond it, the least recently used first, is let go and computed again when it is asked for. What can be computed
        together is only without a bound, because it is kept until its turn comes.
    """

    def __init__(self, nodes: Sequence[Node], panel: Panel) -> None:
        self.capacity: int | None = None
        self._panel = panel
        self._uses: dict[str, int] = {}
        self._families: dict[_Family, list[Node]] = {}
        for node in nodes:
            self._expect(node)
        companions = {node.canonical for family in self._families.values() if len(family) > 1 for node in family}
        self._shared = frozenset(key for key, uses in self._uses.items() if uses > 1 or key in companions)
        self._arrays_needed: dict[str, int] = {}
        self._kept: dict[str, tuple[Node, FloatArray]] = {}
        self._busy: set[_Family] = set()
        self._changed = Condition()

    @property
    def n_shared(self) -> int:
        """Number of values that may have to be kept: those used more than once, and those computed together."""
        return len(self._shared)

    def count_arrays(self, node: Node) -> int:
        """Count the arrays that computing one value alone holds at a time: the result, arguments, and theirs in turn."""
        if node.operator is None:
            return 0 if node.value is not None else 1
        if node.canonical not in self._arrays_needed:
            below = sorted((self.count_arrays(arg) for arg in node.args), reverse=True)
            held = sum(count > 0 for count in below)
            self._arrays_needed[node.canonical] = max(held + 1, *(place + count for place, count in enumerate(below)))
        return self._arrays_needed[node.canonical]

    def result(self, expression: Expression) -> FloatArray:
        """Compute the value of an expression; C-contiguous, the caller's own."""
        value = np.ascontiguousarray(self.value(expression.root))
        return value.copy() if expression.root.is_field or expression.canonical in self._shared else value

    def fill(self, node: Node, out: FloatArray) -> None:
        """Compute the value of a node that is no constant into `out`, which nobody may write to afterwards."""
        value = self.value(node, out)
        if value is not out:
            np.copyto(out, value)

    def value(self, node: Node, out: FloatArray | None = None) -> FloatArray:
        """Compute the value of a node that is no constant, or take it if it is there; not to be written to.

        Parameters
        ----------
        node : Node
            Asked for once of the times that were announced.
        out : ndarray of shape (n_bars, n_assets), optional
            Where the value may be written; it is not always.

        Raises
        ------
        MissingDataError
            If the panel lacks a column that is read.
        """
        key, family = node.canonical, family_of(node)
        with self._changed:
            while family in self._busy:
                self._changed.wait()
            if key in self._kept:
                return self._take(key)
            self._busy.add(family)
            companions = self._companions(node)
        try:
            if companions:
                value, *others = self._apply_together(node, companions)
            else:
                value, others = load_field(key, self._panel) if node.operator is None else self._apply(node, out), []
            with self._changed:
                for companion, other in zip(companions, others, strict=True):
                    self._kept[companion.canonical] = companion, other
                    for arg in companion.args:
                        self._release(arg)
                self._keep(node, value)
        finally:
            with self._changed:
                self._busy.discard(family)
                self._changed.notify_all()
        return value

    def _companions(self, node: Node) -> list[Node]:
        """List what is still to be computed, and can be together with a node."""
        if self.capacity is not None:
            return []
        family = self._families.get(family_of(node), [])
        return [one for one in family if one is not node and self._uses[one.canonical] and one.canonical not in self._kept]

    def _apply_together(self, node: Node, companions: Sequence[Node]) -> list[FloatArray]:
        assert node.operator is not None
        assert node.operator.together is not None
        arrays = [self.value(arg) for arg in node.args if arg.value is None]
        asked = [
            (one.operator.name, tuple(arg.value for arg in one.args if arg.value is not None))
            for one in (node, *companions)
            if one.operator is not None
        ]
        return node.operator.together(asked, *arrays)

    def _apply(self, node: Node, out: FloatArray | None) -> FloatArray:
        assert node.operator is not None
        args: list[FloatArray | int | float | None] = [arg.value for arg in node.args]
        # The argument that needs most memory goes first, while nothing else is held.
        for place in sorted(range(len(args)), key=lambda place: -self.count_arrays(node.args[place])):
            if args[place] is None:
                args[place] = self.value(node.args[place])
        function = node.operator.function
        with np.errstate(all="ignore"):
            if not isinstance(function, np.ufunc):
                result = function(*args)
            else:
                # Fresh memory costs more than the arithmetic: what nobody else will read is written over.
                result = function(*args, out=self._spare(node, args) if out is None else out)
            if node.operator.together is None:
                _blank_infinite(result)
        return result

    def _spare(self, node: Node, args: Sequence[FloatArray | int | float | None]) -> FloatArray | None:
        for arg, value in zip(node.args, args, strict=True):
            if isinstance(value, np.ndarray) and value.flags.writeable and arg.canonical not in self._shared:
                return value
        return None

    def _expect(self, node: Node) -> None:
        """Count one more use; a value that nobody expected so far will need its arguments."""
        if node.value is not None:
            return
        key = node.canonical
        if key not in self._uses and node.operator is not None and node.operator.together is not None:
            self._families.setdefault(family_of(node), []).append(node)
        self._uses[key] = self._uses.get(key, 0) + 1
        if self._uses[key] == 1:
            for arg in node.args:
                self._expect(arg)

    def _release(self, node: Node) -> None:
        """Count one use less."""
        if node.value is None:
            self._uses[node.canonical] -= 1
            if not self._uses[node.canonical]:
                self._kept.pop(node.canonical, None)

    def _take(self, key: str) -> FloatArray:
        node, value = self._kept.pop(key)
        self._uses[key] -= 1
        if self._uses[key]:
            self._kept[key] = node, value
        return value

    def _keep(self, node: Node, value: FloatArray) -> None:
        key = node.canonical
        self._uses[key] -= 1
        if not self._uses[key]:
            return
        self._kept[key] = node, value
        if self.capacity is None:
            return
        # The panel's own columns are read-only and cost nothing to keep.
        owned = [kept for kept, (_, array) in self._kept.items() if array.flags.writeable]
        for oldest in owned[: max(len(owned) - self.capacity, 0)]:
            evicted, _ = self._kept.pop(oldest)
            for arg in evicted.args:
                self._expect(arg)


def family_of(node: Node) -> _Family:
    """Name what is computed in one go: the node alone, or with others of the same arrays."""
    if node.operator is None or node.operator.together is None:
        return (node.canonical,)
    return (node.operator.together, *(arg.canonical for arg in node.args if arg.value is None))


def _blank_infinite(values: FloatArray) -> None:
    infinite = np.isinf(values)
    if infinite.any():
        np.copyto(values, np.nan, where=infinite)
