"""The typed tree behind an expression: what a node is, and its leaves.

Promises that two nodes with the same canonical text have the same value, bit for bit, and that the canonical text parses
back to the same node. Operators are joined to leaves in `features.calls`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from core.errors import ExpressionError
from features.fields import find_field
from features.operators import Kind, Operator
from features.units import Unit


@dataclass(frozen=True, slots=True)
class Node:
    """Hold one node: a constant (`value`), a field, or an operator with its arguments.

    Parameters
    ----------
    canonical : str
        Canonical text of the whole subtree.
    kind : Kind
        `PANEL`, `MASK`, or `NUMBER` for a constant.
    operator : Operator or None
        What joins `args`; None for a leaf.
    args : tuple of Node
        Arguments in canonical order.
    value : int, float or None
        The constant; None otherwise.
    unit : Unit or None
        What it is measured in; None for a constant, and where it cannot be known.
    lookback, size, depth : int
        Bars of history needed; number of nodes; number of levels.
    """

    canonical: str
    kind: Kind
    operator: Operator | None = None
    args: tuple[Node, ...] = ()
    value: int | float | None = None
    unit: Unit | None = None
    lookback: int = 0
    size: int = 1
    depth: int = 1

    @property
    def is_field(self) -> bool:
        """Whether the node reads a field."""
        return self.operator is None and self.value is None

    @property
    def brief(self) -> str:
        """Canonical text, shortened to 40 characters for a message."""
        return self.canonical if len(self.canonical) <= 40 else f"{self.canonical[:37]}..."

    def joins(self, *names: str) -> bool:
        """Whether the node is a call of one of these operators."""
        return self.operator is not None and self.operator.name in names

    def walk(self) -> Iterator[Node]:
        """Yield every node, the root first."""
        yield self
        for arg in self.args:
            yield from arg.walk()


def build_constant(value: int | float, position: int | None = None) -> Node:
    """Build a constant; whole numbers written as such may serve as windows.

    Raises
    ------
    ExpressionError
        If it is not finite.
    """
    if not np.isfinite(value):
        raise ExpressionError(f"a constant must be finite, was {value}; write a smaller number.", position)
    whole = float(value).is_integer() and abs(value) < 1e15
    return Node(canonical=str(int(value)) if whole else repr(float(value)), kind=Kind.NUMBER, value=value)


def build_field(name: str) -> Node:
    """Build a leaf that reads a field."""
    field = find_field(name)
    if field is None:
        return Node(canonical=name, kind=Kind.PANEL)
    return Node(canonical=name, kind=Kind.PANEL, unit=field.unit, lookback=field.lookback)
