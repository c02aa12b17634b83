"""Other spellings of one idea, and which of them is the canonical one.

Hides the list of rules. Promises that every rule keeps the value bit for bit (NaN for NaN; the sign of a zero, which no
operator lets out, aside). So sums are never regrouped, and `rank(log(x))` is not `rank(x)`: two prices may have one
logarithm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from features.node import Node, build_constant
from features.operators import MAX_WINDOW, NEGATE

Call = tuple[str, tuple["Node | Call", ...]]
"""An operator's name, and what it is to be called with."""

_Spelling = Node | Call | None

_TURNED = {"==": "!=", "!=": "==", "<": "<=", "<=": "<"}


def rewrite(name: str, args: tuple[Node, ...]) -> Node | Call | None:
    """Give another spelling of a call, nearer to the canonical one.

    Parameters
    ----------
    name : str
        Key of `OPERATORS`.
    args : tuple of Node
        Arguments that the operator accepts, not all of them constants.

    Returns
    -------
    Node, or operator and arguments, or None
        None if it is canonical as it is, up to the order of its arguments.
    """
    rule = _RULES.get(name)
    return rule(*args) if rule is not None else None


def _sum(a: Node, b: Node) -> _Spelling:
    for one, other in ((a, b), (b, a)):
        if _is_number(other, 0):
            return one
        if (positive := _without_sign(other)) is not None:
            return "-", (one, positive)
    return None


def _difference(a: Node, b: Node) -> _Spelling:
    if _is_number(b, 0):
        return a
    if _is_number(a, 0):
        return NEGATE, (b,)
    if (positive := _without_sign(b)) is not None:
        return "+", (a, positive)
    if a.joins(NEGATE):
        return NEGATE, (("+", (a.args[0], b)),)
    if (change := _change(a, b)) is not None:
        return change
    change = _change(b, a)
    return (NEGATE, (change,)) if change is not None else None


def _change(now: Node, before: Node) -> Call | None:
    if before.joins("delay") and _same(before.args[0], now):
        return "delta", (now, before.args[1])
    if _is_number(before, 1) and now.joins("/") and now.args[1].joins("delay") and _same(now.args[1].args[0], now.args[0]):
        return "pct_change", (now.args[0], now.args[1].args[1])
    return None


def _product(a: Node, b: Node) -> _Spelling:
    for one, other in ((a, b), (b, a)):
        if _is_number(other, 1):
            return one
    return _signs_out("*", a, b)


def _quotient(a: Node, b: Node) -> _Spelling:
    return a if _is_number(b, 1) else _signs_out("/", a, b)


def _signs_out(name: str, a: Node, b: Node) -> Call | None:
    positive, other = _without_sign(a), _without_sign(b)
    if positive is not None and other is not None:
        return name, (positive, other)
    if positive is not None:
        return NEGATE, ((name, (positive, b)),)
    return (NEGATE, ((name, (a, other)),)) if other is not None else None


def _negation(x: Node) -> _Spelling:
    if x.joins(NEGATE):
        return x.args[0]
    return ("-", (x.args[1], x.args[0])) if x.joins("-") else None


def _absolute(x: Node) -> _Spelling:
    if x.joins("abs"):
        return x
    if x.joins(NEGATE):
        return "abs", x.args
    if x.joins("-") and x.args[1].canonical < x.args[0].canonical:
        return "abs", (("-", (x.args[1], x.args[0])),)
    return None


def _sign(x: Node) -> _Spelling:
    if x.joins("sign"):
        return x
    return (NEGATE, (("sign", x.args),)) if x.joins(NEGATE) else None


def _root(x: Node) -> _Spelling:
    return ("ts_std", x.args) if x.joins("ts_var") else None


def _power(x: Node, exponent: Node) -> _Spelling:
    return x if _is_number(exponent, 1) else None


def _not(mask: Node) -> _Spelling:
    if mask.joins("not"):
        return mask.args[0]
    if mask.operator is not None and mask.operator.name in _TURNED:
        turned = _TURNED[mask.operator.name]
        return turned, mask.args if turned in ("==", "!=") else mask.args[::-1]
    return None


def _choice(mask: Node, a: Node, b: Node) -> _Spelling:
    return ("where", (mask.args[0], b, a)) if mask.joins("not") else None


def _filled(x: Node, otherwise: Node) -> _Spelling:
    return x if _same(x, otherwise) else None


def _rank(x: Node) -> _Spelling:
    return x if x.joins("rank") else None


def _buckets(x: Node, n: Node) -> _Spelling:
    return ("quantile", (x.args[0], n)) if x.joins("rank") else None


def _group_rank(x: Node, group: Node) -> _Spelling:
    if x.joins("group_rank") and _same(x.args[1], group):
        return x
    return ("group_rank", (x.args[0], group)) if x.joins("rank") else None


def _lags(name: str) -> Callable[[Node, Node], _Spelling]:
    def join(x: Node, lag: Node) -> _Spelling:
        return _nested(name, x, _whole(lag) + _whole(x.args[1])) if x.joins(name) else None

    return join


def _window(name: str, *, nests: bool = False) -> Callable[[Node, Node], _Spelling]:
    def shorten(x: Node, window: Node) -> _Spelling:
        if _whole(window) == 1:
            return x
        return _nested(name, x, _whole(window) + _whole(x.args[1]) - 1) if nests and x.joins(name) else None

    return shorten


def _nested(name: str, x: Node, span: int) -> Call | None:
    return (name, (x.args[0], build_constant(span))) if span <= MAX_WINDOW else None


def _quantile(x: Node, window: Node, level: Node) -> _Spelling:
    return ("ts_median", (x, window)) if _is_number(level, 0.5) else None


def _same(a: Node, b: Node) -> bool:
    return a.canonical == b.canonical


def _is_number(node: Node, value: float) -> bool:
    return node.value is not None and node.value == value


def _whole(node: Node) -> int:
    return int(node.value or 0)


def _without_sign(node: Node) -> Node | None:
    if node.joins(NEGATE):
        return node.args[0]
    return build_constant(-node.value) if node.value is not None and node.value < 0 else None


_RULES: Mapping[str, Callable[..., _Spelling]] = MappingProxyType(
    {
        "+": _sum,
        "-": _difference,
        "*": _product,
        "/": _quotient,
        NEGATE: _negation,
        "abs": _absolute,
        "sign": _sign,
        "sqrt": _root,
        "power": _power,
        "signed_power": _power,
        "not": _not,
        "where": _choice,
        "coalesce": _filled,
        "rank": _rank,
        "quantile": _buckets,
        "group_rank": _group_rank,
        "delay": _lags("delay"),
        "ffill": _lags("ffill"),
        "ts_min": _window("ts_min", nests=True),
        "ts_max": _window("ts_max", nests=True),
        "ts_sum": _window("ts_sum"),
        "ts_mean": _window("ts_mean"),
        "ts_prod": _window("ts_prod"),
        "ts_median": _window("ts_median"),
        "ts_quantile": _quantile,
    }
)
