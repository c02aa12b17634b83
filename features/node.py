"""The typed tree behind an expression.

Hides type-checking, constant folding and the canonical form. Promises that two nodes with the same canonical text have
the same value, bit for bit, and that the canonical text parses back to the same node.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from core.errors import ExpressionError, LookAheadError
from features.fields import FIELDS
from features.operators import NEGATE, OPERATORS, Kind, Operator

ONLY_POSITIVE_LAGS = "only positive lags exist: a feature looks back, never ahead"


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
    lookback, size, depth : int
        Bars of history needed; number of nodes; number of levels.
    """

    canonical: str
    kind: Kind
    operator: Operator | None = None
    args: tuple[Node, ...] = ()
    value: int | float | None = None
    lookback: int = 0
    size: int = 1
    depth: int = 1

    @property
    def is_field(self) -> bool:
        """Whether the node reads a field."""
        return self.operator is None and self.value is None

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
    field = FIELDS.get(name)
    return Node(canonical=name, kind=Kind.PANEL, lookback=field.lookback if field is not None else 0)


def build_call(name: str, args: tuple[Node, ...], position: int | None = None) -> Node:
    """Join arguments by an operator: check types, fold constants, put commutative arguments in order.

    Parameters
    ----------
    name : str
        Key of `OPERATORS`.
    args : tuple of Node
        Arguments as written.
    position : int, optional
        Column for error messages.

    Raises
    ------
    ExpressionError
        If an argument is of the wrong number or kind.
    LookAheadError
        If a lag or window is not positive.
    """
    operator = OPERATORS[name]
    if len(args) != len(operator.signature):
        raise ExpressionError(
            f"`{name}` takes {len(operator.signature)} arguments, got {len(args)}; write {operator.usage}.", position
        )
    for place, (kind, arg) in enumerate(zip(operator.signature, args, strict=True), start=1):
        _check_argument(operator, place, kind, arg, position)
    numbers = [
        float(arg.value)
        for kind, arg in zip(operator.signature, args, strict=True)
        if kind is Kind.NUMBER and arg.value is not None
    ]
    if operator.complaint is not None and (complaint := operator.complaint(*numbers)) is not None:
        raise ExpressionError(f"`{name}`: {complaint}; write {operator.usage}.", position)
    if all(arg.value is not None for arg in args):
        return _fold(operator, args, position)
    if name == NEGATE and args[0].operator is operator:
        return args[0].args[0]
    if operator.idempotent:
        return _regroup(operator, _chain(operator, args, position))
    if operator.commutative and args[1].canonical < args[0].canonical:
        args = (args[1], args[0], *args[2:])
    return _join(operator, args)


def _join(operator: Operator, args: tuple[Node, ...]) -> Node:
    spans = [
        int(arg.value)
        for kind, arg in zip(operator.signature, args, strict=True)
        if kind in (Kind.WINDOW, Kind.LAG) and arg.value is not None
    ]
    return Node(
        canonical=_canonical(operator, args),
        kind=operator.result,
        operator=operator,
        args=args,
        lookback=operator.lookback(*spans) + max(arg.lookback for arg in args),
        size=1 + sum(arg.size for arg in args),
        depth=1 + max(arg.depth for arg in args),
    )


def _chain(operator: Operator, args: tuple[Node, ...], position: int | None) -> list[Node]:
    """Links of a chain of one operator, in canonical order: no repetitions, one constant at most."""
    links = {link.canonical: link for arg in args for link in _links(operator, arg)}
    constants = [link for link in links.values() if link.value is not None]
    if len(constants) > 1:
        folded = _fold(operator, (constants[0], constants[1]), position)
        return _chain(operator, (folded, *(link for link in links.values() if link not in constants[:2])), position)
    return [links[text] for text in sorted(links)]


def _links(operator: Operator, node: Node) -> Iterator[Node]:
    if node.operator is operator:
        for arg in node.args:
            yield from _links(operator, arg)
    else:
        yield node


def _regroup(operator: Operator, links: list[Node]) -> Node:
    """Join a chain as a balanced tree, which is as shallow as it can be."""
    if len(links) == 1:
        return links[0]
    half = (len(links) + 1) // 2
    return _join(operator, (_regroup(operator, links[:half]), _regroup(operator, links[half:])))


def _check_argument(operator: Operator, place: int, kind: Kind, arg: Node, position: int | None) -> None:
    what = f"argument {place} of `{operator.name}`"
    if kind in (Kind.WINDOW, Kind.LAG):
        if not isinstance(arg.value, int):
            raise ExpressionError(
                f"{what} must be a {kind} written as a whole number, was {_brief(arg)}; write {operator.usage}.", position
            )
        if arg.value < 0 or (arg.value == 0 and kind is Kind.LAG):
            raise LookAheadError(f"{what} was {_brief(arg)}: {ONLY_POSITIVE_LAGS}. Write a lag of 1 or more.")
        if not operator.smallest <= arg.value <= operator.largest:
            raise ExpressionError(f"{what} must be in {operator.smallest}..{operator.largest}, was {_brief(arg)}.", position)
    elif kind is Kind.NUMBER and arg.value is None:
        raise ExpressionError(f"{what} must be a constant number, was {_brief(arg)}; write {operator.usage}.", position)
    elif kind is Kind.MASK and arg.kind is not Kind.MASK:
        raise ExpressionError(
            f"{what} must be a comparison such as `close > open`, was {_brief(arg)}; write {operator.usage}.", position
        )
    elif kind is Kind.PANEL and arg.value is not None:
        raise ExpressionError(f"{what} must be a panel, was the constant {_brief(arg)}; write {operator.usage}.", position)
    elif kind in (Kind.PANEL, Kind.VALUE) and arg.kind is Kind.MASK:
        raise ExpressionError(
            f"{what} must be a number, was the comparison {_brief(arg)}; write where({_brief(arg)}, 1, 0).", position
        )


def _fold(operator: Operator, args: tuple[Node, ...], position: int | None) -> Node:
    if operator.result is Kind.MASK:
        raise ExpressionError("a comparison needs at least one panel, was between two constants; compare a field.", position)
    if operator.name == NEGATE and isinstance(args[0].value, int):
        return build_constant(-args[0].value, position)
    with np.errstate(all="ignore"):
        return build_constant(float(operator.function(*(np.float64(arg.value) for arg in args))), position)


def _canonical(operator: Operator, args: tuple[Node, ...]) -> str:
    if operator.is_call:
        return f"{operator.name}({', '.join(arg.canonical for arg in args)})"
    texts = [f"({arg.canonical})" if _is_infix(arg) else arg.canonical for arg in args]
    if operator.name == NEGATE:
        return f"-{texts[0]}"
    return f" {operator.name} ".join(texts) if len(texts) > 1 else f"{operator.name} {texts[0]}"


def _is_infix(node: Node) -> bool:
    return node.operator is not None and not node.operator.is_call


def _brief(node: Node) -> str:
    return node.canonical if len(node.canonical) <= 40 else f"{node.canonical[:37]}..."
