"""One idea has one canonical form, and the form has the value of every spelling, bit for bit."""

import ast

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ExpressionError
from core.market import Panel
from features import compute, parse
from features.operators import NEGATE, OPERATORS

COLUMNS = ("x", "y", "g")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("x * 1", "x"),
        ("1 * x", "x"),
        ("x / 1", "x"),
        ("x + 0", "x"),
        ("0 + x", "x"),
        ("x - 0", "x"),
        ("0 - x", "-x"),
        ("-1 * x", "-x"),
        ("x / -1", "-x"),
        ("x * (3 - 2)", "x"),
        ("x ** 1", "x"),
        ("signed_power(x, 1)", "x"),
        ("---x", "-x"),
        ("x + -y", "x - y"),
        ("-y + x", "x - y"),
        ("x - -y", "y + x"),
        ("-x - y", "-(y + x)"),
        ("-(x - y)", "y - x"),
        ("-x * y", "-(y * x)"),
        ("-x * -y", "x * y"),
        ("-x / -y", "x / y"),
        ("x / -2", "-(x / 2)"),
        ("x + -2 * y", "x - y * 2"),
        ("abs(-x)", "abs(x)"),
        ("abs(abs(x))", "abs(x)"),
        ("abs(y - x)", "abs(x - y)"),
        ("sign(-x)", "-sign(x)"),
        ("sign(sign(x))", "sign(x)"),
        ("sqrt(ts_var(x, 5))", "ts_std(x, 5)"),
        ("x - delay(x, 5)", "delta(x, 5)"),
        ("delay(x, 5) - x", "-delta(x, 5)"),
        ("x - delay(delay(x, 2), 3)", "delta(x, 5)"),
        ("x / delay(x, 5) - 1", "pct_change(x, 5)"),
        ("-1 + x / delay(x, 5)", "pct_change(x, 5)"),
        ("1 - x / delay(x, 5)", "-pct_change(x, 5)"),
        ("delay(delay(x, 2), 3)", "delay(x, 5)"),
        ("ffill(ffill(x, 2), 3)", "ffill(x, 5)"),
        ("ts_min(ts_min(x, 4), 3)", "ts_min(x, 6)"),
        ("ts_max(ts_max(x, 4), 3)", "ts_max(x, 6)"),
        ("ts_mean(x, 1)", "x"),
        ("ts_sum(ts_max(x, 1), 1)", "x"),
        ("ts_quantile(x, 5, 0.5)", "ts_median(x, 5)"),
        ("rank(rank(x))", "rank(x)"),
        ("quantile(rank(x), 4)", "quantile(x, 4)"),
        ("group_rank(rank(x), g)", "group_rank(x, g)"),
        ("group_rank(group_rank(x, g), g)", "group_rank(x, g)"),
        ("coalesce(x, x)", "x"),
        ("min(x, min(y, g))", "min(min(g, x), y)"),
        ("min(x, x)", "x"),
        ("max(max(x, 2), max(3, y))", "max(3, max(y, x))"),
        ("where(not (x < y), 1, 0)", "where(y <= x, 1, 0)"),
        ("where(not (x == y), 1, 0)", "where(y != x, 1, 0)"),
        ("where(not not known(x), 1, 0)", "where(known(x), 1, 0)"),
        ("where(not known(x), y, g)", "where(known(x), g, y)"),
        ("where(x < y and y < g and x < y, 1, 0)", "where(y < g and x < y, 1, 0)"),
        ("where(x < y or (y < g or g < 1), 1, 0)", "where((g < 1 or y < g) or y > x, 1, 0)"),
        ("ts_count(x > y, 5)", "count(y < x, 5)"),
    ],
)
def test_spellings_of_one_idea_are_one_expression(left, right):
    one, other = parse(left, extra=COLUMNS), parse(right, extra=COLUMNS)
    assert one.canonical == other.canonical
    assert one.sha256 == other.sha256


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("x + y + g", "x + (y + g)"),
        ("x * y * g", "x * (y * g)"),
        ("x * 2 / 2", "x"),
        ("x - x", "0 * x"),
        ("rank(log(x))", "rank(x)"),
        ("rank(-x)", "1 - rank(x)"),
        ("ts_sum(ts_sum(x, 2), 3)", "ts_sum(x, 4)"),
        ("where(x < y, g, g)", "g"),
        ("x * 0", "0 * y"),
        ("demean(demean(x))", "demean(x)"),
        ("group_rank(group_rank(x, y), g)", "group_rank(x, g)"),
    ],
)
def test_what_may_differ_in_a_bit_stays_apart(left, right):
    assert parse(left, extra=COLUMNS) != parse(right, extra=COLUMNS)


def test_lags_are_joined_up_to_the_longest_only():
    assert parse("delay(delay(close, 2520), 1)").canonical == "delay(delay(close, 2520), 1)"
    assert parse("ts_max(ts_max(close, 2520), 2)").lookback == 2520


def _texts() -> st.SearchStrategy[str]:
    numbers = st.sampled_from(["0", "1", "-1", "-2", "2", "0.5", "-0.0"])
    leaves = st.sampled_from(COLUMNS) | numbers
    ones = [
        "-({})", "abs({})", "sign({})", "rank({})", "sqrt({})", "delay({}, 1)", "delay({}, 2)", "ffill({}, 1)", "ffill({}, 2)",
        "ts_min({}, 2)", "ts_min({}, 3)", "ts_max({}, 2)", "ts_max({}, 1)", "ts_mean({}, 1)", "ts_sum({}, 1)", "ts_prod({}, 1)",
        "ts_median({}, 1)", "ts_quantile({}, 2, 0.5)", "ts_var({}, 3)", "({}) ** 1", "signed_power({}, 1)", "quantile({}, 3)",
        "group_rank({}, g)", "({0}) - delay({0}, 1)", "delay({0}, 2) - ({0})", "({0}) / delay({0}, 1) - 1",
        "1 - ({0}) / delay({0}, 2)", "coalesce({0}, {0})", "where(not ({0} < y), {0}, 1)", "where(not (x != {0}), 1, {0})",
    ]  # fmt: skip
    twos = [
        "({}) + ({})", "({}) - ({})", "({}) * ({})", "({}) / ({})", "min({}, {})", "max({}, {})", "abs(({}) - ({}))",
        "coalesce({}, {})", "where({} < {} and x < 1, 1, 0)", "where(not ({} <= x or {} == y), y, x)",
        "where((x < 0 and {0} < 1) and (y > {1} and x < 0), {0}, {1})",
    ]  # fmt: skip

    def extend(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.builds(str.format, st.sampled_from(ones), inner) | st.builds(str.format, st.sampled_from(twos), inner, inner)

    return st.recursive(leaves, extend, max_leaves=6)


def plainly(text: str, panel: Panel) -> np.ndarray | float:
    """Compute what is written, step by step, without a canonical form."""
    infix = {
        ast.Add: "+",
        ast.Sub: "-",
        ast.Mult: "*",
        ast.Div: "/",
        ast.Pow: "power",
        ast.And: "and",
        ast.Or: "or",
        ast.USub: NEGATE,
        ast.Not: "not",
        ast.Lt: "<",
        ast.LtE: "<=",
        ast.Eq: "==",
        ast.NotEq: "!=",
    }

    def apply(name, *args):
        result = OPERATORS[name].function(*args)
        return np.where(np.isinf(result), np.nan, result)

    def value(tree):
        match tree:
            case ast.Constant():
                return tree.value
            case ast.Name():
                return panel.get(tree.id)
            case ast.UnaryOp():
                return apply(infix[type(tree.op)], value(tree.operand))
            case ast.BinOp():
                return apply(infix[type(tree.op)], value(tree.left), value(tree.right))
            case ast.BoolOp():
                masks = [value(part) for part in tree.values]
                result = masks[0]
                for mask in masks[1:]:
                    result = apply(infix[type(tree.op)], result, mask)
                return result
            case ast.Compare(ops=[ast.Gt()]):
                return apply("<", value(tree.comparators[0]), value(tree.left))
            case ast.Compare():
                return apply(infix[type(tree.ops[0])], value(tree.left), value(tree.comparators[0]))
            case ast.Call():
                return apply(tree.func.id, *(value(arg) for arg in tree.args))

    with np.errstate(all="ignore"):
        return value(ast.parse(text, mode="eval").body)


@given(_texts(), st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_the_canonical_form_has_the_value_of_what_was_written(text, seed):
    assert_canonical_form_has_the_value(text, seed)


@pytest.mark.exhaustive
@given(_texts(), st.integers(0, 2**32 - 1))
@settings(max_examples=10_000, deadline=None)
def test_the_canonical_form_has_the_value_of_whatever_was_written(text, seed):
    assert_canonical_form_has_the_value(text, seed)


def assert_canonical_form_has_the_value(text: str, seed: int) -> None:
    try:
        expression = parse(text, extra=COLUMNS)
    except ExpressionError:
        return
    again = parse(expression.canonical, extra=COLUMNS)
    assert again.canonical == expression.canonical
    assert (again.size, again.depth, again.lookback) == (expression.size, expression.depth, expression.lookback)
    rng = np.random.default_rng(seed)
    values = rng.choice([-3.0, -0.7, 0.0, 0.1, 0.3, 1.0, 2.0, 1e300, np.nan], (3, 12, 4))
    panel = Panel(
        index=pd.date_range("2020-01-01", periods=12, tz="UTC"),
        symbols=tuple("ABCD"),
        close=np.ones((12, 4)),
        extra=dict(zip(COLUMNS, values, strict=True)),
    )
    np.testing.assert_array_equal(compute(expression, panel), plainly(text, panel))
