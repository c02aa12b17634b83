"""Says in words what an expression computes, and draws its tree.

Promises that every operator has its words, and that what is shown in a notebook is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from features.expression import Expression, parse
from features.node import Node
from features.operators import NEGATE, Kind

_BETWEEN: Mapping[str, str] = MappingProxyType(
    {
        "+": "plus",
        "-": "minus",
        "*": "times",
        "/": "divided by",
        "<": "is below",
        "<=": "is at most",
        "==": "equals",
        "!=": "differs from",
        "and": "and",
        "or": "or",
    }
)

_TURNED: Mapping[str, str] = MappingProxyType(
    {"+": "plus", "*": "times", "==": "equals", "!=": "differs from", "<": "is above", "<=": "is at least"}
)
"""The same with the sides exchanged: a number reads better after what it is compared with."""

_WORDS: Mapping[str, str] = MappingProxyType(
    {
        NEGATE: "minus {0}",
        "not": "not {0}",
        "abs": "the absolute value of {0}",
        "log": "the logarithm of {0}",
        "exp": "e to the power of {0}",
        "tanh": "the hyperbolic tangent of {0}",
        "sqrt": "the square root of {0}",
        "sign": "the sign of {0}",
        "power": "{0} to the power of {1}",
        "signed_power": "{0} to the power of {1} with its sign kept",
        "min": "the smaller of {0} and {1}",
        "max": "the larger of {0} and {1}",
        "clip": "{0} limited to {1}..{2}",
        "where": "{1} where {0}, else {2}",
        "known": "{0} is known",
        "coalesce": "{0}, or where it is missing {1}",
        "rank": "the rank among the symbols of {0}",
        "zscore": "the z-score among the symbols of {0}",
        "demean": "{0} less its mean over the symbols",
        "scale": "{0} scaled so that absolute values over the symbols sum to one",
        "winsorize": "{0} clipped to the quantiles {1} and 1 - {1} over the symbols",
        "cs_mean": "the mean over the symbols of {0}",
        "quantile": "the bucket, of {1}, among the symbols of {0}",
        "neutralize": "what {1} does not explain, over the symbols, of {0}",
        "group_neutralize": "{0} less its mean over the symbols of equal {1}",
        "group_rank": "the rank, among the symbols of equal {1}, of {0}",
        "delay": "the value {1} ago of {0}",
        "ffill": "the last known value, at most {1} old, of {0}",
        "delta": "the change over {1} of {0}",
        "pct_change": "the relative change over {1} of {0}",
        "ts_sum": "the sum over {1} of {0}",
        "ts_prod": "the product over {1} of {0}",
        "ts_mean": "the mean over {1} of {0}",
        "ts_min": "the minimum over {1} of {0}",
        "ts_max": "the maximum over {1} of {0}",
        "ts_var": "the variance over {1} of {0}",
        "ts_std": "the standard deviation over {1} of {0}",
        "ts_mad": "the mean absolute deviation over {1} of {0}",
        "ts_zscore": "the z-score within {1} of {0}",
        "ts_skew": "the skewness over {1} of {0}",
        "ts_kurt": "the excess kurtosis over {1} of {0}",
        "ts_median": "the median over {1} of {0}",
        "ts_quantile": "the {2} quantile over {1} of {0}",
        "ts_rank": "the rank within {1} of {0}",
        "ts_argmin": "the bars since the minimum over {1} of {0}",
        "ts_argmax": "the bars since the maximum over {1} of {0}",
        "ts_count": "the number of bars, of {1}, on which {0}",
        "bars_since": "the bars, within {1}, since {0}",
        "ts_cov": "the covariance over {2} of {0} and {1}",
        "ts_corr": "the correlation over {2} of {0} and {1}",
        "ts_beta": "the slope over {2} of {0} on {1}",
        "ts_resid": "what {1} does not explain, over {2}, of {0}",
        "ts_slope": "the trend per bar over {1} of {0}",
        "ts_rsquare": "the share that a straight line explains, over {1}, of {0}",
        "ts_detrend": "the distance from the straight line over {1} of {0}",
        "decay_linear": "the mean over {1}, late bars weighted most, of {0}",
        "ewma": "the exponential mean with a half-life of {1} of {0}",
        "rsi": "the relative strength index over {1} of {0}",
        "atr": "the mean true range over {3} of {0}, {1} and {2}",
    }
)


@dataclass(frozen=True, kw_only=True)
class ExplainedNode:
    """Describe one node of the tree.

    Parameters
    ----------
    level : int
        0 for the root.
    canonical : str
        Its canonical text.
    words : str
        The same in words.
    unit : str
        What its values are measured in.
    lookback, size : int
        Bars of history it needs; number of its nodes.
    """

    level: int
    canonical: str
    words: str
    unit: str
    lookback: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Hold what an expression computes, for reading; it shows itself in a notebook.

    Parameters
    ----------
    text, canonical, sha256 : str
        As written; its normal form; the hash of that.
    sentence : str
        What it computes, in words.
    tree : str
        The canonical tree, drawn with box characters; a dot stands for what is below.
    unit : str
        What the values are measured in.
    lookback, size, depth : int
        Bars of history needed beyond the current one; number of nodes; number of levels.
    fields : tuple of str
        Columns of the data that are read.
    nodes : tuple of ExplainedNode
        Every node that is not a constant, as in the tree from top to bottom.
    """

    text: str
    canonical: str
    sha256: str
    sentence: str
    tree: str
    unit: str
    lookback: int
    size: int
    depth: int
    fields: tuple[str, ...]
    nodes: tuple[ExplainedNode, ...]

    @property
    def facts(self) -> str:
        """Unit, lookback, size and columns in one line."""
        return (
            f"unit: {self.unit}; lookback: {_bars(self.lookback)}; size: {self.size} nodes on {self.depth} levels; "
            f"reads {', '.join(self.fields)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that can be written as JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.sentence}\n\n{self.tree}\n\n{self.facts}"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td style='text-align:left'><code>{html.escape(node.canonical)}</code></td>"
            f"<td style='text-align:left'>{html.escape(node.words)}</td><td>{html.escape(node.unit)}</td>"
            f"<td>{node.lookback}</td></tr>"
            for node in self.nodes
        )
        return (
            f"<div><p>{html.escape(self.sentence)}</p><pre>{html.escape(self.tree)}</pre><p>{html.escape(self.facts)}</p>"
            "<details><summary>Every part</summary><table><tr><th>expression</th><th>in words</th><th>unit</th>"
            f"<th>lookback</th></tr>{rows}</table></details></div>"
        )


def explain(
    expression: str | Expression,
    *,
    extra: Collection[str] = (),
    features: Mapping[str, Expression | str] = MappingProxyType({}),
) -> Explanation:
    """Explain an expression.

    Parameters
    ----------
    expression : str or Expression
        Text is parsed first.
    extra, features
        As in `features.parse`, for text.

    Returns
    -------
    Explanation

    Raises
    ------
    ExpressionError, LookAheadError
        If a text cannot be accepted.

    Examples
    --------
    >>> explain("ts_mean(returns, 20) / ts_std(returns, 60)").sentence
    'The mean over 20 bars of returns, divided by the standard deviation over 60 bars of returns.'
    """
    parsed = expression if isinstance(expression, Expression) else parse(expression, extra=extra, features=features)
    words = _top(parsed.root)
    return Explanation(
        text=parsed.text,
        canonical=parsed.canonical,
        sha256=parsed.sha256,
        sentence=f"{words[0].upper()}{words[1:]}.",
        tree="\n".join(_drawn(parsed.root)),
        unit=_unit(parsed.root),
        lookback=parsed.lookback,
        size=parsed.size,
        depth=parsed.depth,
        fields=tuple(sorted(parsed.fields)),
        nodes=tuple(_explained(parsed.root, 0)),
    )


def _top(node: Node) -> str:
    """Say the outermost step with a comma, which needs no brackets around its sides."""
    if node.operator is None or node.operator.name not in _BETWEEN or any(arg.operator is None for arg in node.args):
        return _said(node)
    left, right = (_inner(arg) for arg in node.args)
    return f"{left}, {_BETWEEN[node.operator.name]} {right}"


def _said(node: Node) -> str:
    if node.operator is None:
        return node.canonical
    name = node.operator.name
    if name in _BETWEEN:
        left, right = node.args
        if left.value is not None and name in _TURNED:
            return f"{_side(right)} {_TURNED[name]} {_side(left)}"
        return f"{_side(left)} {_BETWEEN[name]} {_side(right)}"
    opens = _WORDS[name].startswith("{")
    parts = [
        _bars(int(arg.value or 0)) if kind in (Kind.WINDOW, Kind.LAG) else _side(arg) if opens else _inner(arg)
        for kind, arg in zip(node.operator.signature, node.args, strict=True)
    ]
    return _WORDS[name].format(*parts)


def _inner(node: Node) -> str:
    """A part at the end of a phrase; in brackets unless it ends with its own last part."""
    if node.operator is None:
        return node.canonical
    clear = node.operator.name not in _BETWEEN and _WORDS[node.operator.name].endswith("{0}")
    return _said(node) if clear else f"({_said(node)})"


def _side(node: Node) -> str:
    """A part with words after it; in brackets unless it is a single name or number."""
    return node.canonical if node.operator is None else f"({_said(node)})"


def _bars(n: int) -> str:
    return f"{n} bar{'' if n == 1 else 's'}"


def _unit(node: Node) -> str:
    return "unknown" if node.unit is None else str(node.unit)


def _explained(node: Node, level: int) -> Iterator[ExplainedNode]:
    if node.value is None:
        yield ExplainedNode(
            level=level,
            canonical=node.canonical,
            words=_said(node),
            unit=_unit(node),
            lookback=node.lookback,
            size=node.size,
        )
        for arg in node.args:
            yield from _explained(arg, level + 1)


def _drawn(node: Node) -> Iterator[str]:
    yield _label(node)
    below = [arg for arg in node.args if arg.value is None]
    for place, arg in enumerate(below):
        last = place == len(below) - 1
        for row, line in enumerate(_drawn(arg)):
            lead = ("└─ " if last else "├─ ") if row == 0 else ("   " if last else "│  ")
            yield lead + line


def _label(node: Node) -> str:
    if node.operator is None:
        return node.canonical
    parts = ["·" if arg.value is None else arg.canonical for arg in node.args]
    if node.operator.is_call:
        return f"{node.operator.name}({', '.join(parts)})"
    if len(parts) == 1:
        return "-·" if node.operator.name == NEGATE else f"{node.operator.name} ·"
    return f" {node.operator.name} ".join(parts)
