"""What the language accepts, refuses and considers equal."""

import copy
import pickle
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import AQFError, ExpressionError, LookAheadError
from features import Expression, parse
from features.grammar import random_expression
from features.operators import OPERATORS

HOSTILE = [
    "", "   ", "\n", "()", "close close", "close +", "+ close", "close,", "(close", "close)", "close, open", "close;open",
    "__import__('os').system('true')", "__import__(close)", "eval(close)", "exec(close)", "open('x')", "open(close)",
    "close.real", "close.__class__", "close[0]", "close[-1]", "close[1:]", "[close]", "{close}", "{close: 1}", "lambda: close",
    "lambda x: x", "(lambda x: x)(close)", "close if close > open else open", "close and open", "close or open", "not close",
    "~close", "+close", "close // 2", "close % 2", "close @ open", "close << 2", "close | open", "close & open", "close ^ 2",
    "close := 1", "(x := close)", "ts_mean(close, window=5)", "ts_mean(*close)", "ts_mean(**close)", "ts_mean(close)",
    "ts_mean(close, 5, 5)", "ts_mean()", "ts_mean(5, close)", "ts_mean(5, 5)", "ts_mean(close, close)", "ts_mean(close, 5.0)",
    "ts_mean(close, 2.5)", "ts_mean(close, 2 + 3)", "ts_mean(close, 0)", "ts_mean(close, 2521)", "ts_mean(close, 10 ** 9)",
    "ts_mean(close, 99999999999999999999)", "ts_std(close, 1)", "ts_skew(close, 2)", "ts_kurt(close, 3)",
    "ts_corr(close, open, 1)", "ewma(close, 421)", "ts_mean(close, True)", "True", "None", "...", "True + close", "'close'",
    '"close"', "f'{close}'", "b'close'", "close + 'a'", "1", "1 + 2", "-3", "log(2)", "pi", "1e999", "close * 1e999",
    "close * 9 ** 999999", "close * 9 ** 9 ** 9 ** 9", "close / (1 / 0)", "1j * close", "0x10 * close", "1_000 * close",
    "close * 0b1", "1or close", "close * 1if", "rank(close > open)", "close > open", "close > open > low", "1 < 2",
    "where(1 < 2, close, open)", "where(close, 1, 0)", "where(1, close, open)", "(close > open) + 1",
    "ts_mean(close > open, 5)", "ts_count(close, 5)", "-(close > open)", "close is open", "close in open", "close not in open",
    "close ** open", "2 ** close", "power(close, close)", "close(5)", "rank", "ts_mean + 1", "rank(rank)", "unary(close)",
    "clip(close, 2, 1)", "winsorize(close, 0.5)", "winsorize(close, -0.1)", "ts_quantile(close, 5, 1.1)", "nosuch",
    "nosuch(close)", "clsoe", "ts_maen(close, 5)", "closе", "ｃｌｏｓｅ", "close\x00", "close\\", "close\u2028",
    "close # comment",
    "close → open", "`close`", "$close", "@close", "close!", "close = open", "import os", "yield close", "await close",
    "(yield)", "print(close)", "def f(): pass", "[x for x in close]", "(x for x in close)", "rank(x for x in close)", "a.b.c",
    "close()()", "ts_mean(close, 5)(3)", "(rank)(close)(1)", "(" * 500 + "close" + ")" * 500, "-" * 3000 + "close",
    "close" + " + close" * 300, "rank(" * 600 + "close" + ")" * 600, "close" + "**2" * 900, "((((((((((((((((((((" * 90,
    "close" * 700, "9" * 4000, "close * " + "9" * 3900, "x" * 4000, "abs(" * 40 + "close" + ")" * 40, "close" + " " * 4000,
    "min(" * 1300, "close<" * 600 + "close",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_refused_with_a_reason(text):
    started = time.perf_counter()
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert len(str(caught.value)) < 1_500
    assert time.perf_counter() - started < 5.0


@pytest.mark.parametrize("value", [None, 5, b"close", ["close"], object()])
def test_what_is_not_text_is_refused(value):
    with pytest.raises(ExpressionError, match="must be text"):
        parse(value)


@pytest.mark.parametrize(
    "text",
    [
        "delay(close, -1)",
        "delay(close, 0)",
        "delta(close, -5)",
        "pct_change(close, 0)",
        "pct_change(close, -21)",
        "ts_mean(close, -5)",
        "delay(close, -(-(-1)))",
        "rank(delay(returns, -1))",
        "delay(close, --0)",
    ],
)
def test_looking_ahead_is_refused(text):
    with pytest.raises(LookAheadError, match="only positive lags exist"):
        parse(text)


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_text_is_parsed_or_refused(text):
    try:
        assert isinstance(parse(text), Expression)
    except (ExpressionError, LookAheadError) as error:
        assert str(error)


_TOKENS = [
    "close",
    "open",
    "rank(",
    "ts_mean(",
    "delay(",
    "where(",
    ")",
    ",",
    "5",
    "0.5",
    "-",
    "+",
    "*",
    "/",
    "**",
    "<",
    ">",
    "==",
    " ",
    "-1",
    "lambda",
    "e",
    ".",
]


@given(st.lists(st.sampled_from(_TOKENS), max_size=40))
@settings(max_examples=500, deadline=None)
def test_any_mix_of_tokens_is_parsed_or_refused(tokens):
    try:
        expression = parse("".join(tokens))
    except AQFError as error:
        assert isinstance(error, ExpressionError | LookAheadError)
    else:
        assert parse(expression.canonical) == expression


def test_misspelling_is_answered_with_a_suggestion_and_a_position():
    with pytest.raises(ExpressionError, match=r"did you mean ts_mean\?") as caught:
        parse("1 + ts_maen(close, 5)")
    assert caught.value.position == 4
    with pytest.raises(ExpressionError, match=r"did you mean close\?") as caught:
        parse("  clsoe")
    assert caught.value.position == 2


def test_the_number_of_arguments_is_answered_with_the_usage():
    with pytest.raises(ExpressionError, match=r"write ts_mean\(panel, window\)"):
        parse("ts_mean(close)")


@pytest.mark.parametrize(
    ("text", "position", "suggestion"),
    [
        ("1 + rank(close > open)", 4, r"write where\(open < close, 1, 0\)"),
        ("1 + ts_mean(close, 2521)", 4, r"must be in 1..2520, was 2521; write for instance 21"),
        ("ewma(close, 421)", 0, r"must be in 1..420, was 421; write for instance 21"),
        ("ts_kurt(close, 2)", 0, r"must be in 4..2520, was 2"),
        ("  2 * 3", 2, "`2 \\* 3` is a constant; use `close`"),
        ("rank(exp(close))", 5, r"write for instance exp\(returns\)"),
        ("rank(close) + open", 0, r"rank\(\.\.\.\) or a ratio"),
        ("close and open", 0, "must be a comparison such as `close > open`"),
        ("close > open and volume", 0, "must be a comparison such as `close > open`"),
        ("where(not close, 1, 0)", 6, r"write not mask"),
        ("quantile(close, 2.5)", 0, "a whole number in 2..100, was 2.5"),
        ("quantile(close, 101)", 0, "a whole number in 2..100, was 101"),
        ("where(known(5), 1, 0)", 6, "must be a panel, was the constant 5"),
        ("close > open > low", 0, "joined by `and`"),
    ],
)
def test_wrong_types_are_refused_with_the_position_and_a_suggestion(text, position, suggestion):
    with pytest.raises(ExpressionError, match=suggestion) as caught:
        parse(text)
    assert caught.value.position == position


def test_a_constant_alone_is_no_feature():
    with pytest.raises(ExpressionError, match="reads at least one field"):
        parse("1 + 2")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("close+open", "open + close"),
        ("close*2", "2 * close"),
        ("close * 2.0", "close * 2"),
        ("max(open, close)", "max(close, open)"),
        ("close > open", "open < close"),
        ("close >= open", "open <= close"),
        ("close == open", "open == close"),
        ("close * (2 * 3)", "6 * close"),
        ("close ** 2", "power(close, 2)"),
        ("--close", "close"),
        ("((close))", "close"),
        ("ts_corr(close, volume, 5)", "ts_corr(volume, close, 5)"),
        ("close\n + open", "open + close"),
        ("close * 1e0", "close * 1"),
        ("sqrt(252) * close", "close * 252 ** 0.5"),
        ("close - -1", "close - (-1)"),
        ("close + -0", "close + 0"),
    ],
)
def test_different_spellings_are_one_expression(left, right):
    if ">" in left or "==" in left:
        left, right = f"where({left}, 1, 0)", f"where({right}, 1, 0)"
    one, other = parse(left), parse(right)
    assert one == other
    assert hash(one) == hash(other)
    assert one.canonical == other.canonical
    assert one.sha256 == other.sha256


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("close - open", "open - close"),
        ("close / open", "open / close"),
        ("-close ** 2", "(-close) ** 2"),
        ("ts_beta(close, open, 5)", "ts_beta(open, close, 5)"),
        ("close - (open - low)", "close - open - low"),
        ("close / (open / low)", "close / open / low"),
        ("-(close - open)", "-close - open"),
        ("where(close < open, 1, 0)", "where(close <= open, 1, 0)"),
    ],
)
def test_different_meanings_stay_different(left, right):
    assert parse(left) != parse(right)
    assert parse(left).sha256 != parse(right).sha256


@pytest.mark.parametrize(
    "text",
    [
        "close",
        "-close",
        "close - (open - low)",
        "-(close + open)",
        "-close * open",
        "(close / open) ** -2",
        "close * -2.5",
        "close - 1e-7",
        "1e20 * close",
        "where(close > open, -1, close)",
        "-(-close + 1)",
        "rank(-returns) - 0.5",
        "ts_quantile(close, 5, 0.25)",
        "abs(-close)",
        "2 - close",
    ],
)
def test_the_canonical_form_parses_back_to_itself(text):
    expression = parse(text)
    again = parse(expression.canonical)
    assert again.canonical == expression.canonical
    assert (again.size, again.depth, again.lookback) == (expression.size, expression.depth, expression.lookback)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=300, deadline=None)
def test_the_canonical_form_of_any_expression_parses_back_to_itself(seed):
    expression = random_expression(np.random.default_rng(seed), ("close", "open", "high", "low", "volume"))
    assert parse(expression.canonical).canonical == expression.canonical


def test_python_precedence_holds():
    assert parse("-close ** 2").canonical == "-power(close, 2)"
    assert parse("close - open * returns / 2").canonical == "close - ((open * returns) / 2)"


@pytest.mark.parametrize(
    ("text", "lookback"),
    [
        ("close", 0),
        ("returns", 1),
        ("market_returns", 1),
        ("delay(close, 5)", 5),
        ("ts_mean(close, 5)", 4),
        ("ts_mean(returns, 5)", 5),
        ("ts_mean(delay(close, 3), 5) / ts_std(returns, 21)", 21),
        ("rank(close)", 0),
        ("ewma(close, 5)", 29),
        ("rsi(close, 14)", 14),
        ("atr(high, low, close, 14)", 14),
        ("ts_mean(ts_mean(close, 10), 10)", 18),
        ("ts_count(close > delay(close, 1), 10)", 10),
    ],
)
def test_lookback_counts_the_bars_before_the_current_one(text, lookback):
    assert parse(text).lookback == lookback


def test_size_depth_and_fields_by_hand():
    expression = parse("rank(ts_mean(returns, 5)) * volume")
    assert (expression.size, expression.depth) == (6, 4)
    assert expression.fields == {"close", "volume"}
    assert expression.names == {"returns", "volume"}
    assert parse("vwap").fields == {"high", "low", "close"}


def test_limits_are_inclusive():
    assert parse("log(" * 31 + "close" + ")" * 31).depth == 32
    with pytest.raises(ExpressionError, match="at most 32 levels"):
        parse("log(" * 32 + "close" + ")" * 32)
    assert parse("ts_mean(close, 2520)").lookback == 2519
    assert parse("close" + " " * 3995).canonical == "close"
    with pytest.raises(ExpressionError, match="4000 characters"):
        parse("close" + " " * 3996)


def test_more_than_200_nodes_are_refused():
    def tree(levels: int) -> str:
        return "close" if levels == 0 else f"({tree(levels - 1)} + {tree(levels - 1)})"

    assert parse(tree(6)).size == 127
    with pytest.raises(ExpressionError, match="at most 200 nodes"):
        parse(tree(7))


def test_extra_columns_are_read_only_when_named():
    assert parse("sentiment * 2", extra=("sentiment",)).fields == {"sentiment"}
    with pytest.raises(ExpressionError, match="unknown field"):
        parse("sentiment * 2")


def test_expressions_are_immutable():
    with pytest.raises(AttributeError):
        parse("rank(-returns)").text = "close"


def test_expressions_survive_pickling_and_copying():
    expression = parse("where(mood > 0, signed_power(returns, 2), ewma(returns, 5))", extra=("mood",))
    for again in (pickle.loads(pickle.dumps(expression)), copy.deepcopy(expression)):
        assert again == expression
        assert again.text == expression.text
        assert again.lookback == expression.lookback


def test_operator_names_are_unique_words():
    assert len(OPERATORS) == len({name.lower() for name in OPERATORS})
