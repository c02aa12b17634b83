"""What may be added to what, and what comes out."""

import numpy as np
import pytest

from core.errors import ExpressionError
from features import parse
from features.alphas import LIBRARY
from features.operators import OPERATORS, Kind
from features.units import NO_UNIT, PRICE, SHARE, Unit


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("close", "price"),
        ("vwap", "price"),
        ("volume", "share"),
        ("dollar_volume", "price * share"),
        ("close * volume", "price * share"),
        ("dollar_volume / volume", "price"),
        ("dollar_volume - close * volume", "price * share"),
        ("returns", "no unit"),
        ("2 * close + 1", "price"),
        ("1 / close", "1 / price"),
        ("volume / close", "share / price"),
        ("1 / dollar_volume", "1 / price / share"),
        ("close ** 2", "price ** 2"),
        ("sqrt(high * low)", "price"),
        ("sqrt(close)", "price ** 0.5"),
        ("signed_power(delta(close, 1), 3)", "price ** 3"),
        ("close ** 0", "no unit"),
        ("-abs(close)", "price"),
        ("log(volume)", "no unit"),
        ("sign(close)", "no unit"),
        ("rank(close) + rank(volume)", "no unit"),
        ("max(close - delay(close, 1), 0)", "price"),
        ("where(close > open, volume, 0)", "share"),
        ("where(close > open, 1, -1)", "no unit"),
        ("where(close > open, 1, 0) * volume", "share"),
        ("ts_var(close, 5)", "price ** 2"),
        ("ts_prod(close, 3)", "price ** 3"),
        ("ts_cov(close, volume, 5)", "price * share"),
        ("ts_beta(close, volume, 5)", "price / share"),
        ("ts_resid(close, volume, 5)", "price"),
        ("ts_corr(close, volume, 5)", "no unit"),
        ("ts_count(close > open, 5)", "no unit"),
        ("neutralize(close, volume)", "price"),
        ("group_rank(close, volume)", "no unit"),
        ("atr(high, low, close, 5)", "price"),
        ("clip(close, 1, 5)", "price"),
        ("sector", None),
        ("sector * close", None),
        ("sector + close", "price"),
        ("close + sector", "price"),
        ("where(close > sector, sector, 1)", None),
        ("ts_corr(sector, close, 5)", "no unit"),
    ],
)
def test_units_by_hand(text, unit):
    found = parse(text, extra=("sector",)).unit
    assert found is None if unit is None else str(found) == unit


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("close + volume", 0),
        ("1 - (close - volume)", 5),
        ("rank(close * volume - close)", 5),
        ("min(close, volume)", 0),
        ("max(close, returns)", 0),
        ("where(close > open, close, volume)", 0),
        ("where(close > volume, 1, 0)", 6),
        ("where(close == returns, 1, 0)", 6),
        ("coalesce(close, volume)", 0),
        ("atr(high, low, volume, 5)", 0),
        ("close - ts_var(close, 5)", 0),
        ("close ** 2 + close", 0),
        ("sector + close + volume", 0),
    ],
)
def test_unlike_things_are_refused_with_position_and_a_suggestion(text, position):
    with pytest.raises(ExpressionError, match=r"joins unlike things.*rank\(\.\.\.\) or a ratio") as caught:
        parse(text, extra=("sector",))
    assert caught.value.position == position


@pytest.mark.parametrize("text", ["exp(close)", "tanh(volume / 2)", "exp(-dollar_volume)"])
def test_an_exponent_has_no_unit(text):
    with pytest.raises(ExpressionError, match=r"takes a number without unit.*write for instance (exp|tanh)\(returns\)"):
        parse(text)
    assert parse("exp(close / open) + tanh(sector) + exp(0.5 * returns)", extra=("sector",)).unit == NO_UNIT


@pytest.mark.parametrize(
    "text",
    [
        "ts_std(close, 5) / close",
        "ts_corr(close, log(volume + 1), 10)",
        "ts_corr(close / delay(close, 1), log(volume / delay(volume, 1) + 1), 10)",
        "ts_count(close > delay(close, 1), 5) / 5 - ts_count(close < delay(close, 1), 5) / 5",
        "(close - open) / open",
        "(high - max(open, close)) / (high - low + 1e-12)",
        "(2 * close - high - low) / open",
        "ts_sum(max(close - delay(close, 1), 0), 5) / (ts_sum(abs(close - delay(close, 1)), 5) + 1e-12)",
        "ts_std(abs(returns) * volume, 5) / (ts_mean(abs(close / delay(close, 1) - 1) * volume, 5) + 1e-12)",
        "ts_detrend(close, 5) / close",
        "sqrt(high * low) - vwap",
    ],
)
def test_usual_formulas_are_accepted(text):
    assert parse(text).size > 1


def test_every_known_hypothesis_is_free_of_the_level_of_prices():
    assert {str(parse(candidate.expression).unit) for candidate in LIBRARY} <= {"no unit"}


def test_rules_of_units_name_arguments_that_there_are():
    for operator in OPERATORS.values():
        rule = operator.unit
        assert len(rule.powers) <= len(operator.signature)
        assert all(operator.signature[place] in (Kind.PANEL, Kind.VALUE) for place in rule.alike)


def test_units_multiply():
    money = PRICE.times(SHARE)
    assert money == Unit(price=1.0, share=1.0)
    assert money.times(PRICE, -1.0) == SHARE
    assert PRICE.times(PRICE, -1.0) == NO_UNIT
    third = NO_UNIT.times(PRICE, 1 / 3)
    assert NO_UNIT.times(third, 3.0).price == pytest.approx(1.0, abs=1e-5)
    assert np.signbit(PRICE.times(PRICE, -1.0).price) == np.False_
