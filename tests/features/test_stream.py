"""The stream against the batch, bar by bar, to the bit."""

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from core.errors import DataError, ExpressionError, MissingDataError, ShapeError
from core.market import Panel
from features import FeatureStream, compute, parse, stream_program
from features.alphas import LIBRARY, library_for
from features.calls import build_call
from features.fields import FIELDS
from features.grammar import random_expression
from features.node import Node, build_constant, build_field
from features.operators import OPERATORS, Kind, Operator
from tests.features.panels import build_panel

EXTRA = ("book", "mood")
PHASES = (Phase.explicit, Phase.generate)
"""A seed cannot be made simpler, so nothing is shrunk."""
FIELD_ORDERS = (("close", "mood", "open"), ("mood", "book", "volume"))
NUMBERS = (0.05, 0.5, 2.0, 4.0)
WINDOWS = (1, 2, 3, 7, 12)


def panel_of(n_bars: int, n_assets: int, seed: int) -> Panel:
    """Bars with gaps, late listings, ties, flat stretches, zeros, outliers and what is not finite."""
    rng = np.random.default_rng(seed)
    shape = (n_bars, n_assets)
    close = np.round(50.0 * np.exp(np.cumsum(rng.normal(0.0, 0.02, shape), axis=0)), int(rng.integers(0, 6)))
    open_ = np.where(rng.random(shape) < 0.2, close, close * np.exp(rng.normal(0.0, 0.005, shape)))
    high, low = np.maximum(open_, close), np.minimum(open_, close)
    volume = np.where(rng.random(shape) < 0.05, 0.0, np.round(np.exp(rng.normal(8.0, 1.0, shape))))
    mood = np.round(rng.normal(0.0, 2.0, shape))
    book = rng.normal(0.0, 1.0, shape) * 10.0 ** rng.integers(-3, 4)
    flat = int(rng.integers(0, n_bars))
    close[flat : flat + 20, 0] = 0.1
    close[: int(rng.integers(0, n_bars // 2)), -1] = np.nan
    close[int(rng.integers(0, n_bars))] = np.nan
    for column in (close, open_, volume, book):
        column[rng.random(shape) < 0.02] = np.nan
    book[rng.random(shape) < 0.01] = rng.choice([np.inf, -np.inf, 1e300, -1e200])
    index = pd.date_range("2020-01-01 21:00", periods=n_bars, tz="UTC")
    symbols = tuple(f"S{place}" for place in range(n_assets))
    return Panel(
        index=index,
        symbols=symbols,
        close=close,
        open=open_,
        high=high,
        low=low,
        volume=volume,
        extra={"book": book, "mood": mood},
    )


def uses_of(operator: Operator) -> list[str]:
    """Expressions that call one operator, made from its signature alone, as far as the language accepts them."""
    found = []
    for window, number, order in itertools.product(WINDOWS, NUMBERS, FIELD_ORDERS):
        fields, numbers = itertools.cycle(order), itertools.count(number)
        for mask in ("<", "known"):
            args = tuple(argument(kind, fields, numbers, window, mask) for kind in operator.signature)
            try:
                node = build_call(operator.name, args)
            except ExpressionError:
                continue
            if node.kind is Kind.MASK:
                node = build_call("ts_count", (node, build_constant(2)))
            if any(part.joins(operator.name) for part in node.walk()):
                found.append(node.canonical)
    return sorted(set(found))


def argument(kind: Kind, fields: Iterator[str], numbers: Iterator[float], window: int, mask: str) -> Node:
    if kind is Kind.MASK:
        return build_call(mask, tuple(build_field(next(fields)) for _ in OPERATORS[mask].signature))
    if kind is Kind.NUMBER:
        return build_constant(next(numbers))
    if kind in (Kind.WINDOW, Kind.LAG):
        return build_constant(window)
    return build_field(next(fields))


EVERY_OPERATOR = {name: uses_of(operator) for name, operator in OPERATORS.items()}
TEXTS = [text for texts in EVERY_OPERATOR.values() for text in texts]


def assert_stream_equals_batch(texts: list[str], panel: Panel, start: int) -> None:
    expected = compute(texts, panel)
    stream = FeatureStream(texts, panel.slice(0, start))
    for t in range(start - 1, panel.n_bars):
        got = stream.values if t == start - 1 else stream.update(panel.slice(t, t + 1))
        same = (got == expected[:, t]) | (np.isnan(got) & np.isnan(expected[:, t]))
        wrong = [text for text, right in zip(texts, same.all(axis=1), strict=True) if not right]
        assert not wrong, f"bar {t}: {wrong[:5]}"
        assert stream.ts == panel.index[t]


def test_every_operator_of_the_language_is_used():
    assert all(EVERY_OPERATOR.values()), [name for name, texts in EVERY_OPERATOR.items() if not texts]


@settings(max_examples=12, deadline=None, phases=PHASES)
@given(n_assets=st.sampled_from([1, 2, 3, 8, 9, 21]), seed=st.integers(0, 10_000), start=st.integers(1, 60))
def test_every_operator_equals_the_batch_on_every_bar(n_assets, seed, start):
    assert_stream_equals_batch(TEXTS, panel_of(90, n_assets, seed), start)


@settings(max_examples=4, deadline=None, phases=PHASES)
@given(n_assets=st.sampled_from([1, 5, 9]), seed=st.integers(0, 10_000))
def test_an_operator_without_a_compiled_form_equals_the_batch(n_assets, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_program, "COMPILED", {})
        assert_stream_equals_batch(TEXTS, panel_of(60, n_assets, seed), 40)


@settings(max_examples=12, deadline=None, phases=PHASES)
@given(n_assets=st.sampled_from([1, 4, 13]), seed=st.integers(0, 10_000), start=st.integers(1, 200))
def test_every_expression_of_the_grammar_equals_the_batch(n_assets, seed, start):
    panel = panel_of(230, n_assets, seed)
    rng = np.random.default_rng(seed)
    texts = [random_expression(rng, panel.fields).canonical for _ in range(40)]
    assert_stream_equals_batch(texts, panel, start)


@pytest.mark.parametrize("n_assets", [1, 7, 8, 127, 129, 300])
def test_sums_over_many_symbols_are_added_in_the_order_of_the_batch(n_assets):
    panel = panel_of(12, n_assets, seed=n_assets)
    texts = [f"{name}({x})" for name in ("demean", "zscore", "scale", "rank", "cs_mean") for x in ("book", "close")]
    texts += ["market_returns", "winsorize(book, 0.1)", "quantile(mood, 5)", "neutralize(book, close)"]
    assert_stream_equals_batch(texts, panel, 4)


@pytest.mark.parametrize("window", [1, 2, 31, 32, 33, 100, 127])
def test_windows_of_every_shape_equal_the_batch(window):
    panel = panel_of(160, 3, seed=window)
    names = [name for name, operator in OPERATORS.items() if operator.signature == (Kind.PANEL, Kind.WINDOW)]
    usable = [name for name in names if OPERATORS[name].smallest <= window]
    assert_stream_equals_batch([f"{name}({x}, {window})" for name in usable for x in ("book", "close")], panel, 120)


def test_every_field_equals_the_batch():
    panel = panel_of(30, 5, seed=3)
    assert_stream_equals_batch([*FIELDS, *EXTRA], panel, 1)


def test_the_known_hypotheses_equal_the_batch_and_are_known_from_their_lookback_alone():
    panel = build_panel(700, 6, seed=5)
    texts = [candidate.expression for candidate in library_for(panel.fields)]
    assert len(texts) == len(LIBRARY)
    expected = compute(texts, panel)
    lookback = max(parse(text).lookback for text in texts)
    stream = FeatureStream(texts, panel.slice(660 - lookback - 1, 660))
    assert stream.lookback == lookback
    np.testing.assert_array_equal(stream.values, expected[:, 659])
    for t in range(660, 700):
        np.testing.assert_array_equal(stream.update(panel.slice(t, t + 1)), expected[:, t])
    assert np.isfinite(stream.values).mean() > 0.8


def test_values_by_hand():
    close = np.array([[1.0, 8.0], [2.0, 4.0], [4.0, 2.0], [8.0, np.nan]])
    panel = Panel(index=pd.date_range("2026-01-05", periods=4, tz="UTC"), symbols=("A", "B"), close=close)
    stream = FeatureStream(["ts_mean(close, 2)", "rank(close)", "returns"], panel.slice(0, 2))
    np.testing.assert_array_equal(stream.values, [[1.5, 6.0], [0.0, 1.0], [1.0, -0.5]])
    np.testing.assert_array_equal(stream.update(panel.slice(2, 3)), [[3.0, 3.0], [1.0, 0.0], [1.0, -0.5]])
    np.testing.assert_array_equal(stream.update(panel.slice(3, 4)), [[6.0, np.nan], [0.5, np.nan], [1.0, np.nan]])


def test_nothing_drifts_and_a_huge_value_leaves_no_trace():
    quiet = build_panel(3_000, 2, gaps=False, seed=9)
    loud_book = quiet.get("book").copy()
    loud_book[1_000] = 1e15
    loud = Panel(index=quiet.index, symbols=quiet.symbols, close=quiet.close, extra={"book": loud_book})
    texts = [
        f"{name}(book, 20)"
        for name, operator in OPERATORS.items()
        if operator.signature == (Kind.PANEL, Kind.WINDOW) and name != "ewma"
    ]
    texts += ["ewma(book, 3)", "ts_quantile(book, 20, 0.3)", "ts_corr(book, close, 20)"]
    stream = FeatureStream(texts, loud.slice(0, 1))
    for t in range(1, loud.n_bars):
        stream.update(loud.slice(t, t + 1))
    np.testing.assert_array_equal(stream.values, compute(texts, quiet.slice(2_900, 3_000))[:, -1])


def test_a_stream_built_again_from_the_panel_continues_where_the_first_one_was():
    panel = panel_of(130, 4, seed=11)
    first = FeatureStream(TEXTS, panel.slice(0, 90))
    for t in range(90, 100):
        first.update(panel.slice(t, t + 1))
    second = FeatureStream(TEXTS, panel.slice(99 - first.lookback, 100))
    np.testing.assert_array_equal(first.values, second.values)
    for t in range(100, 130):
        np.testing.assert_array_equal(first.update(panel.slice(t, t + 1)), second.update(panel.slice(t, t + 1)))


def test_two_streams_do_not_know_each_other():
    panel = panel_of(40, 3, seed=2)
    one, two = (FeatureStream(["ts_sum(mood, 5)"], panel.slice(0, 20)) for _ in range(2))
    before = two.values
    one.update(panel.slice(20, 21))
    np.testing.assert_array_equal(two.values, before)


def test_values_are_the_callers_own():
    panel = panel_of(20, 3, seed=4)
    stream = FeatureStream(["mood"], panel.slice(0, 10))
    got = stream.update(panel.slice(10, 11))
    got[:] = 99.0
    np.testing.assert_array_equal(stream.values, panel.get("mood")[10:11])


def test_no_expressions_give_no_values():
    panel = panel_of(20, 3, seed=4)
    stream = FeatureStream([], panel.slice(0, 10))
    assert stream.lookback == 0
    assert stream.update(panel.slice(10, 11)).shape == (0, 3)


PANEL = panel_of(20, 3, seed=6)


def close_only(panel: Panel) -> Panel:
    return Panel(index=panel.index, symbols=panel.symbols, close=panel.close)


def test_a_column_that_no_expression_reads_may_be_missing():
    stream = FeatureStream(["returns"], PANEL.slice(0, 10))
    np.testing.assert_array_equal(stream.update(close_only(PANEL.slice(10, 11))), compute(["returns"], PANEL)[:, 10])


def test_a_column_of_the_history_named_vwap_is_asked_of_every_bar():
    def priced(panel: Panel) -> Panel:
        return Panel(index=panel.index, symbols=panel.symbols, close=panel.close, extra={"vwap": panel.get("mood")})

    stream = FeatureStream(["vwap"], priced(PANEL.slice(0, 10)))
    np.testing.assert_array_equal(stream.update(priced(PANEL.slice(10, 11))), PANEL.get("mood")[10:11])
    with pytest.raises(MissingDataError, match="has no `vwap`"):
        stream.update(PANEL.slice(11, 12))


@pytest.mark.parametrize(
    ("bar", "error", "message"),
    [
        (PANEL.slice(9, 10), DataError, "a bar later than 2020-01-10 21:00:00.00:00 is expected, got 2020-01-10"),
        (PANEL.slice(4, 5), DataError, "build the stream again from the corrected panel"),
        (PANEL.slice(10, 12), ShapeError, "one bar at a time is expected, got 2"),
        (PANEL.slice(10, 10), ShapeError, "one bar at a time is expected, got 0"),
        (PANEL.slice(10, 11).select(["S0", "S2"]), ShapeError, "symbols must be those of the history .* were S0, S2"),
        (PANEL.slice(10, 11).select(["S1", "S0", "S2"]), ShapeError, "in its order"),
        (close_only(PANEL.slice(10, 11)), MissingDataError, "has no `mood`, `volume`"),
    ],
)
def test_a_bar_that_is_refused_changes_nothing(bar, error, message):
    texts = ["ts_mean(mood, 3)", "volume"]
    stream = FeatureStream(texts, PANEL.slice(0, 10))
    before = stream.values
    with pytest.raises(error, match=message):
        stream.update(bar)
    np.testing.assert_array_equal(stream.values, before)
    np.testing.assert_array_equal(stream.update(PANEL.slice(10, 11)), compute(texts, PANEL)[:, 10])


@pytest.mark.parametrize(
    ("expressions", "panel", "error", "message"),
    [
        ("close", PANEL, ExpressionError, "put it in a list"),
        ([3], PANEL, ExpressionError, "expected text or an Expression, got int"),
        (["clsoe"], PANEL, ExpressionError, "did you mean close"),
        (["close"], PANEL.slice(0, 0), DataError, "at least one bar"),
        (["high"], close_only(PANEL), MissingDataError, "has no `high`"),
    ],
)
def test_a_stream_that_cannot_be_built_says_why(expressions, panel, error, message):
    with pytest.raises(error, match=message):
        FeatureStream(expressions, panel)
