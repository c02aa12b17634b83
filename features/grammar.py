"""Grows new expressions: at random, by changing one, by crossing two.

Hides how a formula is taken apart. Promises that what comes out is a parsed, typed, causal expression of moderate size, the
same for the same generator state.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

import numpy as np

from core.errors import ExpressionError, MissingDataError
from features.calls import build_call
from features.expression import Expression, parse
from features.fields import FIELDS, available_fields
from features.node import Node, build_constant, build_field
from features.operators import OPERATORS, Kind, Operator
from features.units import NO_UNIT

WINDOWS = (2, 3, 5, 8, 10, 15, 21, 42, 63, 126, 252)
MAX_GROWN_SIZE = 40
MAX_GROWN_LOOKBACK = 756

_TRIES = 50
_GROWN_DEPTH = 3
_SOME_NUMBERS = (0.0, 0.5, 1.0, 2.0)
_NUMBERS: dict[str, tuple[tuple[float, ...], ...]] = {
    "power": ((2.0, 0.5, 3.0),),
    "signed_power": ((2.0, 0.5),),
    "clip": ((-3.0, -1.0, 0.0), (1.0, 2.0, 3.0)),
    "winsorize": ((0.05, 0.1),),
    "quantile": ((3.0, 5.0, 10.0),),
    "ts_quantile": ((0.05, 0.1, 0.25, 0.75, 0.9, 0.95),),
}
_LEFT_OUT = frozenset({"atr", "known", "coalesce", "ffill", "ts_prod"})
"""What wants arguments of one sort, or changes nothing on data without gaps."""
_GROUPED = frozenset({"group_neutralize", "group_rank"})
_GROUPS = (3.0, 5.0)
_NUMERIC = tuple(
    operator for operator in OPERATORS.values() if operator.result is Kind.PANEL and operator.name not in _LEFT_OUT
)
_MASKS = tuple(operator for operator in OPERATORS.values() if operator.result is Kind.MASK and operator.name not in _LEFT_OUT)
_FIRST_MASKS = tuple(operator for operator in _MASKS if Kind.MASK not in operator.signature)
_PANELS = (Kind.PANEL, Kind.VALUE)

_Path = tuple[int, ...]
_T = TypeVar("_T")


def random_expression(rng: np.random.Generator, fields: Collection[str]) -> Expression:
    """Grow an expression.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of chance.
    fields : collection of str
        Columns of the data set, as ``panel.fields``; what follows from them (`returns` from `close`) may be read too.

    Returns
    -------
    Expression
        At most 40 nodes, and 756 bars of lookback.

    Raises
    ------
    MissingDataError
        If no field can be read from these columns.
    """
    names = _readable(fields)
    return _accept(lambda: _grow(rng, names, _GROWN_DEPTH), names)


def mutate(expression: Expression, rng: np.random.Generator, fields: Collection[str]) -> Expression:
    """Change one thing: a window or number, an operator, a field, a sub-expression; or wrap or unwrap it.

    Parameters
    ----------
    expression : Expression
        What to change.
    rng : numpy.random.Generator
        Source of chance.
    fields : collection of str
        Columns of the data set, as in `random_expression`.

    Returns
    -------
    Expression
        Different from `expression`; no larger than it, or 40 nodes.

    Raises
    ------
    MissingDataError
        If no field can be read from these columns.
    """
    names = _readable(fields)

    def change() -> Node:
        spots = list(_spots(expression.root))
        path, node = spots[rng.integers(len(spots))]
        return _replace(expression.root, path, _changed(node, rng, names))

    return _accept(change, names | expression.names, expression, other_than=expression.canonical)


def crossover(a: Expression, b: Expression, rng: np.random.Generator) -> Expression:
    """Put a sub-expression of `b` in the place of one of `a`.

    Parameters
    ----------
    a, b : Expression
        Parents.
    rng : numpy.random.Generator
        Source of chance.

    Returns
    -------
    Expression
        No larger than the larger parent, or 40 nodes.
    """

    def cross() -> Node:
        places = [path for path, node in _spots(a.root) if node.kind is Kind.PANEL]
        gifts = [node for _, node in _spots(b.root) if node.kind is Kind.PANEL]
        return _replace(a.root, places[rng.integers(len(places))], gifts[rng.integers(len(gifts))])

    return _accept(cross, a.names | b.names, a, b)


def _readable(fields: Collection[str]) -> frozenset[str]:
    names = frozenset(available_fields(fields))
    if not names:
        raise MissingDataError(
            f"no field can be read from the columns {sorted(fields)}; pass `panel.fields`, for instance ['close']."
        )
    return names


def _accept(
    propose: Callable[[], Node], names: Collection[str], *parents: Expression, other_than: str | None = None
) -> Expression:
    """Return the first proposal that the language accepts and that is of moderate size, or no larger than a parent."""
    largest = max(MAX_GROWN_SIZE, *(parent.size for parent in parents), 0)
    longest = max(MAX_GROWN_LOOKBACK, *(parent.lookback for parent in parents), 0)
    reason = ""
    for _ in range(_TRIES):
        try:
            expression = parse(propose().canonical, extra=set(names) - set(FIELDS))
        except ExpressionError as error:
            reason = str(error)
            continue
        if expression.size <= largest and expression.lookback <= longest and expression.canonical != other_than:
            return expression
        reason = f"it was no change, or above {largest} nodes or {longest} bars of lookback"
    raise ExpressionError(f"no acceptable expression came out of {_TRIES} tries: {reason} Try again, or from another parent.")


def _grow(rng: np.random.Generator, names: Collection[str], depth: int) -> Node:
    if depth <= 0 or rng.random() < 0.15:
        return build_field(_pick(rng, sorted(names)))
    return _call(rng, _pick(rng, _NUMERIC), names, depth)


def _call(rng: np.random.Generator, operator: Operator, names: Collection[str], depth: int) -> Node:
    numbers = iter(_NUMBERS.get(operator.name, ()))
    args: list[Node] = []
    for place, kind in enumerate(operator.signature):
        if kind is Kind.MASK:
            args.append(_mask(rng, names, depth - 1))
        elif kind in (Kind.WINDOW, Kind.LAG):
            args.append(build_constant(_window(rng, operator)))
        elif kind is Kind.NUMBER:
            args.append(build_constant(_pick(rng, next(numbers))))
        elif kind is Kind.VALUE and place > 0 and rng.random() < 0.2:
            args.append(build_constant(_pick(rng, _SOME_NUMBERS)))
        elif place == 1 and operator.name in _GROUPED:
            by = _grow(rng, names, depth - 2)
            args.append(build_call("quantile", (by, build_constant(_pick(rng, _GROUPS)))))
        else:
            args.append(_grow(rng, names, depth - 1))
    return _fitted(operator.name, tuple(args))


def _fitted(name: str, args: tuple[Node, ...]) -> Node:
    """Join arguments, after turning those whose units do not fit into ranks."""
    rule = OPERATORS[name].unit
    unlike = rule.clashing([arg.unit for arg in args]) is not None
    ranked = rule.alike if unlike else (0,) if rule.bare and args[0].unit not in (None, NO_UNIT) else ()
    return build_call(
        name,
        tuple(
            build_call("rank", (arg,)) if place in ranked and arg.kind is Kind.PANEL else arg for place, arg in enumerate(args)
        ),
    )


def _mask(rng: np.random.Generator, names: Collection[str], depth: int) -> Node:
    return _call(rng, _pick(rng, _MASKS if depth > 0 else _FIRST_MASKS), names, depth)


def _changed(node: Node, rng: np.random.Generator, names: Collection[str]) -> Node:
    if node.kind is Kind.MASK:
        return _mask(rng, names, 2)
    if node.operator is None:
        return _grow(rng, names, 1) if rng.random() < 0.5 else build_field(_pick(rng, sorted(names)))
    tunable = [place for place, kind in enumerate(node.operator.signature) if kind in (Kind.WINDOW, Kind.LAG, Kind.NUMBER)]
    inner = [arg for arg in node.args if arg.kind is Kind.PANEL]
    choices = ["grow", "wrap", *(["tune"] * 3 if tunable else []), *(["unwrap"] if inner else []), "operator", "operator"]
    match _pick(rng, choices):
        case "tune":
            place = _pick(rng, tunable)
            args = list(node.args)
            args[place] = build_constant(_tuned(rng, node.operator, place))
            return _fitted(node.operator.name, tuple(args))
        case "operator":
            same = [other for other in _NUMERIC if other.signature == node.operator.signature]
            return _fitted(_pick(rng, same).name, node.args) if same else _grow(rng, names, 2)
        case "unwrap":
            return _pick(rng, inner)
        case "wrap":
            return _wrapped(node, rng)
        case _:
            return _grow(rng, names, 2)


def _tuned(rng: np.random.Generator, operator: Operator, place: int) -> int | float:
    if operator.signature[place] is not Kind.NUMBER:
        return _window(rng, operator)
    return _pick(rng, _NUMBERS[operator.name][operator.signature[:place].count(Kind.NUMBER)])


def _wrapped(node: Node, rng: np.random.Generator) -> Node:
    unary = [operator for operator in _NUMERIC if operator.signature[0] in _PANELS and _only_windows(operator.signature[1:])]
    operator = _pick(rng, unary)
    return _fitted(operator.name, (node, *(build_constant(_window(rng, operator)) for _ in operator.signature[1:])))


def _only_windows(kinds: tuple[Kind, ...]) -> bool:
    return all(kind in (Kind.WINDOW, Kind.LAG) for kind in kinds)


def _window(rng: np.random.Generator, operator: Operator) -> int:
    return _pick(rng, [window for window in WINDOWS if operator.smallest <= window <= operator.largest])


def _spots(node: Node, path: _Path = ()) -> Iterator[tuple[_Path, Node]]:
    """Every node that is not a constant, with the way to it from the root."""
    if node.value is None:
        yield path, node
        for place, arg in enumerate(node.args):
            yield from _spots(arg, (*path, place))


def _replace(node: Node, path: _Path, new: Node) -> Node:
    if not path or node.operator is None:
        return new
    args = list(node.args)
    args[path[0]] = _replace(args[path[0]], path[1:], new)
    return _fitted(node.operator.name, tuple(args))


def _pick(rng: np.random.Generator, choices: Sequence[_T]) -> _T:
    return choices[int(rng.integers(len(choices)))]
