"""Evaluates expressions over a Panel.

Hides the order of evaluation. Promises that a sub-expression that occurs several times in one call, in one expression or
across many, is computed once, and that intermediate arrays are let go after their last use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from core.errors import ExpressionError
from features.expression import Expression, parse
from features.fields import FloatArray, load_field
from features.node import Node

if TYPE_CHECKING:
    from core.market.panel import Panel


def compute(expression: str | Expression | Sequence[str | Expression], panel: Panel) -> FloatArray:
    """Compute one or many features.

    Parameters
    ----------
    expression : str, Expression, or sequence of them
        What to compute. Text may read the columns of ``panel.extra``.
    panel : Panel
        Bars to read.

    Returns
    -------
    ndarray of shape (n_bars, n_assets), or (k, n_bars, n_assets) for a sequence of k
        Row ``t`` is known at the close of bar ``t`` and uses bars ``t - lookback .. t``. NaN where a value needed is
        missing; never infinite. The array is the caller's own, C-contiguous.

    Raises
    ------
    ExpressionError, LookAheadError
        If a text cannot be accepted.
    MissingDataError
        If the panel lacks a column that is read.
    """
    if isinstance(expression, str | Expression):
        single: FloatArray = _evaluate([_as_expression(expression, panel)], panel)[0]
        return single
    return _evaluate([_as_expression(item, panel) for item in expression], panel)


def _as_expression(item: object, panel: Panel) -> Expression:
    if isinstance(item, Expression):
        return item
    if isinstance(item, str):
        return parse(item, extra=tuple(panel.extra))
    raise ExpressionError(f"expected text or an Expression, got {type(item).__name__}; pass expressions only.")


def _evaluate(expressions: Sequence[Expression], panel: Panel) -> FloatArray:
    uses: Counter[str] = Counter()
    for expression in expressions:
        _count(expression.root, uses)
    memo: dict[str, FloatArray] = {}
    out = np.empty((len(expressions), *panel.shape))
    with np.errstate(all="ignore"):
        for place, expression in enumerate(expressions):
            out[place] = _value(expression.root, panel, memo, uses)
    return out


def _count(node: Node, uses: Counter[str]) -> None:
    uses[node.canonical] += 1
    if uses[node.canonical] == 1:
        for arg in node.args:
            _count(arg, uses)


def _value(node: Node, panel: Panel, memo: dict[str, FloatArray], uses: Counter[str]) -> FloatArray | int | float:
    if node.value is not None:
        return node.value
    key = node.canonical
    if key not in memo:
        if node.operator is None:
            memo[key] = load_field(key, panel)
        else:
            result = node.operator.function(*(_value(arg, panel, memo, uses) for arg in node.args))
            np.copyto(result, np.nan, where=np.isinf(result))
            memo[key] = result
    uses[key] -= 1
    return memo[key] if uses[key] else memo.pop(key)
