"""Joins arguments by an operator.

Hides type-checking, units, constant folding and the canonical form. Promises that what comes out is accepted by the
language, and that an idea comes out as one node however it was spelled, as far as that changes no bit of its value.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from core.errors import ExpressionError, LookAheadError
from features.node import Node, build_constant
from features.operators import NEGATE, OPERATORS, Kind, Operator
from features.rewriting import Call, rewrite
from features.units import NO_UNIT

ONLY_POSITIVE_LAGS = "only positive lags exist: a feature looks back, never ahead"


def build_call(name: str, args: tuple[Node, ...], position: int | None = None) -> Node:
    """Join arguments by an operator: check types and units, fold constants, bring it to canonical form.

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
        If an argument is of the wrong number, kind or unit.
    LookAheadError
        If a lag or window is not positive.
    """
    operator = OPERATORS[name]
    check_arguments(name, operator.usage, operator.signature, args, position)
    for place, (kind, arg) in enumerate(zip(operator.signature, args, strict=True), start=1):
        if kind in (Kind.WINDOW, Kind.LAG) and arg.value is not None:
            _check_span(operator, place, arg, position)
    numbers = [
        float(arg.value)
        for kind, arg in zip(operator.signature, args, strict=True)
        if kind is Kind.NUMBER and arg.value is not None
    ]
    if operator.complaint is not None and (complaint := operator.complaint(*numbers)) is not None:
        raise ExpressionError(f"`{name}`{_at(position)}: {complaint}; write {operator.usage}.", position)
    if all(arg.value is not None for arg in args):
        return _fold(operator, args, position)
    _check_units(operator, args, position)
    if (spelling := rewrite(name, args)) is not None:
        return _spelled(spelling, position)
    if operator.idempotent:
        return _regroup(operator, _chain(operator, args, position))
    if operator.commutative and args[1].canonical < args[0].canonical:
        args = (args[1], args[0], *args[2:])
    return _join(operator, args)


def _spelled(spelling: Node | Call, position: int | None) -> Node:
    if isinstance(spelling, Node):
        return spelling
    name, args = spelling
    return build_call(name, tuple(_spelled(arg, position) for arg in args), position)


def check_arguments(
    name: str, usage: str, signature: tuple[Kind, ...], args: tuple[Node, ...], position: int | None = None
) -> None:
    """Check that arguments are as many and of the kinds that a call takes.

    Raises
    ------
    ExpressionError
        If they are not.
    LookAheadError
        If a lag is not positive, or a window is negative.
    """
    if len(args) != len(signature):
        raise ExpressionError(
            f"`{name}`{_at(position)} takes {len(signature)} arguments, got {len(args)}; write {usage}.", position
        )
    for place, (kind, arg) in enumerate(zip(signature, args, strict=True), start=1):
        what = f"argument {place} of `{name}`{_at(position)}"
        if kind in (Kind.WINDOW, Kind.LAG):
            if not isinstance(arg.value, int):
                raise ExpressionError(
                    f"{what} must be a {kind} written as a whole number, was {arg.brief}; write {usage}.", position
                )
            if arg.value < 0 or (arg.value == 0 and kind is Kind.LAG):
                raise LookAheadError(f"{what} was {arg.brief}: {ONLY_POSITIVE_LAGS}. Write a lag of 1 or more.", position)
        elif kind is Kind.NUMBER and arg.value is None:
            raise ExpressionError(f"{what} must be a constant number, was {arg.brief}; write {usage}.", position)
        elif kind is Kind.MASK and arg.kind is not Kind.MASK:
            raise ExpressionError(
                f"{what} must be a comparison such as `close > open`, was {arg.brief}; write {usage}.", position
            )
        elif kind is Kind.PANEL and arg.value is not None:
            raise ExpressionError(f"{what} must be a panel, was the constant {arg.brief}; write {usage}.", position)
        elif kind in (Kind.PANEL, Kind.VALUE) and arg.kind is Kind.MASK:
            raise ExpressionError(
                f"{what} must be a number, was the comparison {arg.brief}; write where({arg.brief}, 1, 0).", position
            )


def _at(position: int | None) -> str:
    return "" if position is None else f" at column {position}"


def _check_span(operator: Operator, place: int, arg: Node, position: int | None) -> None:
    if not operator.smallest <= int(arg.value or 0) <= operator.largest:
        raise ExpressionError(
            f"argument {place} of `{operator.name}`{_at(position)} must be in {operator.smallest}..{operator.largest}, "
            f"was {arg.brief}; "
            f"write for instance {min(max(21, operator.smallest), operator.largest)}.",
            position,
        )


def _check_units(operator: Operator, args: tuple[Node, ...], position: int | None) -> None:
    where = _at(position)
    unlike = operator.unit.clashing([arg.unit for arg in args])
    if unlike is not None:
        a, b = (args[place] for place in unlike)
        raise ExpressionError(
            f"`{operator.name}`{where} joins unlike things: `{a.brief}` ({a.unit}) and `{b.brief}` ({b.unit}); make both plain "
            "numbers first, with rank(...) or a ratio such as close / ts_mean(close, 21).",
            position,
        )
    if operator.unit.bare and args[0].unit not in (None, NO_UNIT):
        raise ExpressionError(
            f"`{operator.name}`{where} takes a number without unit, was `{args[0].brief}` ({args[0].unit}); write for instance "
            f"{operator.name}(returns), or make a ratio such as close / ts_mean(close, 21).",
            position,
        )


def _fold(operator: Operator, args: tuple[Node, ...], position: int | None) -> Node:
    if operator.result is Kind.MASK:
        raise ExpressionError("a comparison needs at least one panel, was between two constants; compare a field.", position)
    if operator.name == NEGATE and isinstance(args[0].value, int):
        return build_constant(-args[0].value, position)
    with np.errstate(all="ignore"):
        return build_constant(float(operator.function(*(np.float64(arg.value) for arg in args))), position)


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
        unit=NO_UNIT
        if operator.result is Kind.MASK
        else operator.unit.result([arg.unit for arg in args], [arg.value for arg in args]),
        lookback=operator.lookback(*spans) + max(arg.lookback for arg in args),
        size=1 + sum(arg.size for arg in args),
        depth=1 + max(arg.depth for arg in args),
    )


def _canonical(operator: Operator, args: tuple[Node, ...]) -> str:
    if operator.is_call:
        return f"{operator.name}({', '.join(arg.canonical for arg in args)})"
    texts = [f"({arg.canonical})" if _is_infix(arg) else arg.canonical for arg in args]
    if operator.name == NEGATE:
        return f"-{texts[0]}"
    return f" {operator.name} ".join(texts) if len(texts) > 1 else f"{operator.name} {texts[0]}"


def _is_infix(node: Node) -> bool:
    return node.operator is not None and not node.operator.is_call
