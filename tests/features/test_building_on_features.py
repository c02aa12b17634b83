"""Features that build on other features by name."""

import pickle

import numpy as np
import pytest

import features.reader as reader
from core.errors import ExpressionError, LookAheadError
from features import compute, parse
from features.reader import MAX_FEATURE_LEVELS, MAX_SIZE
from tests.features.panels import build_panel

TREND = "close / ts_mean(close, 63) - 1"


def test_a_name_is_written_out():
    known = {"trend": TREND, "calm": parse("-ts_std(returns, 21)")}
    expression = parse("rank(trend) + 0.5 * rank(calm)", features=known)
    written_out = parse(f"rank({TREND}) + 0.5 * rank(-ts_std(returns, 21))")
    assert expression == written_out
    assert expression.sha256 == written_out.sha256
    assert (expression.lookback, expression.fields) == (62, {"close"})
    assert expression.text == "rank(trend) + 0.5 * rank(calm)"
    panel = build_panel(120, 4)
    np.testing.assert_array_equal(compute(expression, panel), compute(written_out, panel))


def test_features_build_on_features():
    known = {"trend": TREND, "ranked": "rank(trend)", "smooth": "ts_mean(ranked, 5)"}
    assert parse("smooth - ranked", features=known) == parse(f"ts_mean(rank({TREND}), 5) - rank({TREND})")


def test_indicators_take_features():
    assert parse("bollinger(mid, 20)", features={"mid": "(high + low) / 2"}) == parse("ts_zscore((high + low) / 2, 20) / 2")


def test_an_expression_survives_pickling_without_the_features_it_was_built_on():
    expression = parse("trend * mood", extra=("mood",), features={"trend": TREND})
    again = pickle.loads(pickle.dumps(expression))
    assert again == expression
    assert again.text == "trend * mood"


@pytest.mark.parametrize(
    ("known", "cycle"),
    [
        ({"a": "a + 1"}, "a -> a"),
        ({"a": "rank(b)", "b": "c * 2", "c": "ts_mean(a, 5)"}, "a -> b -> c -> a"),
        ({"a": "b", "b": "rank(b)"}, "b -> b"),
    ],
)
def test_a_circle_is_named(known, cycle):
    with pytest.raises(ExpressionError, match=f"may not build on themselves: {cycle};") as caught:
        parse("1 + rank(a)", features=known)
    assert caught.value.position == 9


@pytest.mark.parametrize("name", ["close", "returns", "rank", "ts_mean", "count", "macd", "and"])
def test_a_feature_may_not_be_called_like_a_part_of_the_language(name):
    with pytest.raises(ExpressionError, match=f"may not be called `{name}`.*rename it"):
        parse("close", features={name: "open"})


def test_a_feature_may_not_be_called_like_a_column_that_is_read():
    with pytest.raises(ExpressionError, match="`mood` at column 5 is a column of the data and a feature"):
        parse("rank(mood)", extra=("mood",), features={"mood": "open"})
    assert parse("rank(close)", extra=("mood",), features={"mood": "open"}).size == 2


def test_columns_that_are_not_there_are_missed_in_a_feature_too():
    known = {"text": "rank(mood)", "tree": parse("rank(mood)", extra=("mood",))}
    for name in known:
        with pytest.raises(ExpressionError, match=f"in the feature `{name}`: .*`mood`"):
            parse(name, features=known)
        assert parse(name, extra=("mood",), features=known).fields == {"mood"}


def test_what_is_wrong_in_a_feature_is_told_with_its_name():
    known = {"bad": "ts_maen(close, 5)", "ahead": "delay(close, -1)", "constant": "2", "mask": "close > open", "worse": "-bad"}
    with pytest.raises(ExpressionError, match=r"in the feature `bad`: .*did you mean ts_mean\?"):
        parse("bad", features=known)
    with pytest.raises(ExpressionError, match=r"^in the feature `bad`: unknown"):
        parse("worse", features=known)
    with pytest.raises(LookAheadError, match=r"in the feature `ahead`: .*only positive lags exist"):
        parse("close / ahead", features=known)
    for name in ("constant", "mask"):
        with pytest.raises(ExpressionError, match=f"in the feature `{name}`"):
            parse(name, features=known)
    assert parse("close", features=known).size == 1


def test_misspelled_features_are_suggested():
    with pytest.raises(ExpressionError, match=r"did you mean trend\?.*volume, vwap; 1 features can be named too"):
        parse("rank(trnd)", features={"trend": TREND})


def test_units_hold_across_features():
    with pytest.raises(ExpressionError, match="joins unlike things"):
        parse("middle + volume", features={"middle": "(high + low) / 2"})


def test_levels_are_bounded():
    chain = {"f0": "close"} | {f"f{n}": f"f{n - 1} + 1" for n in range(1, 50)}
    assert parse(f"f{MAX_FEATURE_LEVELS - 1}", features=chain).lookback == 0
    with pytest.raises(ExpressionError, match=f"at most {MAX_FEATURE_LEVELS} levels"):
        parse(f"f{MAX_FEATURE_LEVELS}", features=chain)


def test_a_thousand_names_are_not_all_listed():
    with pytest.raises(ExpressionError) as caught:
        parse("nothing", features={f"f{n}": "close" for n in range(1000)}, extra=[f"column_{n}" for n in range(1000)])
    assert len(str(caught.value)) < 2_000


@pytest.fixture
def work(monkeypatch):
    """Count the nodes that are built and the texts that Python parses."""
    counts = {"calls": 0, "texts": 0}
    build, parse_text = reader.build_call, reader.ast.parse

    def build_counted(*args):
        counts["calls"] += 1
        return build(*args)

    def parse_counted(*args, **kwargs):
        counts["texts"] += 1
        return parse_text(*args, **kwargs)

    monkeypatch.setattr(reader, "build_call", build_counted)
    monkeypatch.setattr(reader.ast, "parse", parse_counted)
    return counts


def test_features_that_double_at_every_level_are_refused_before_they_grow(work):
    bomb = {"f0": "close * open"} | {f"f{n}": f"f{n - 1} * f{n - 1}" for n in range(1, 15)}
    with pytest.raises(ExpressionError, match=f"at most {MAX_SIZE} nodes"):
        parse("f14", features=bomb)
    assert work["texts"] <= 16
    assert work["calls"] <= 2 * MAX_SIZE


def test_a_wide_web_of_features_is_refused_before_it_is_read_to_the_end(work):
    web = {f"leaf{n}": "close * open * high * low" for n in range(25)}
    for level in range(4):
        below = "leaf" if level == 0 else f"level{level - 1}_"
        web |= {f"level{level}_{n}": " + ".join(f"{below}{m}" for m in range(25)) for n in range(25)}
    with pytest.raises(ExpressionError, match=f"at most {MAX_SIZE} nodes"):
        parse("level3_0", features=web)
    assert work["texts"] <= MAX_SIZE
    assert work["calls"] <= 2 * MAX_SIZE


@pytest.mark.parametrize("indicator", ["trix({}, 2)", "macd({}, 2, 3, 4)", "tsi({}, 2, 3)", "cci({0}, {0}, {0}, 5)"])
def test_indicators_within_indicators_are_refused_before_they_grow(indicator, work):
    text = "close"
    for _ in range(30):
        text = indicator.format(text) if len(text) < 1_200 else text
    with pytest.raises(ExpressionError, match="nodes"):
        parse(text)
    assert work["calls"] <= 5 * MAX_SIZE


def test_ten_megabytes_are_refused_unread(work):
    huge = "close + " * 1_250_000 + "close"
    with pytest.raises(ExpressionError, match="at most 4000 characters, this has 10000005"):
        parse(huge)
    with pytest.raises(ExpressionError, match=r"in the feature `big`: .*at most 4000 characters"):
        parse("big", features={"big": huge})
    assert work["texts"] == 1
