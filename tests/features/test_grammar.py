import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ExpressionError, MissingDataError
from features import check_leaks, compute, grammar, parse
from features.grammar import MAX_GROWN_LOOKBACK, MAX_GROWN_SIZE, WINDOWS, crossover, mutate, random_expression
from features.operators import Kind
from tests.features.panels import build_panel

BARS = ("close", "high", "low", "open", "volume")
SEEDS = st.integers(0, 2**32 - 1)


def assert_sound(expression, columns):
    assert expression == parse(expression.canonical)
    assert expression.fields <= set(columns)
    assert expression.size <= MAX_GROWN_SIZE
    assert expression.lookback <= MAX_GROWN_LOOKBACK


def windows_of(expression):
    """Windows as they were drawn; nested lags and extremes are one with the sum of their windows."""
    for node in expression.root.walk():
        if node.operator is not None and not node.joins("delay", "ts_min", "ts_max"):
            for kind, arg in zip(node.operator.signature, node.args, strict=True):
                if kind in (Kind.WINDOW, Kind.LAG):
                    yield arg.value


@given(SEEDS)
@settings(max_examples=200, deadline=None)
def test_random_expressions_are_sound(seed):
    expression = random_expression(np.random.default_rng(seed), BARS)
    assert_sound(expression, BARS)
    assert set(windows_of(expression)) <= set(WINDOWS)


def test_what_does_not_fit_is_ranked_and_not_drawn_again(monkeypatch):
    monkeypatch.setattr(grammar, "_TRIES", 1)
    rng = np.random.default_rng(2)
    refused = []
    for _ in range(500):
        try:
            mutate(random_expression(rng, BARS), rng, BARS)
        except ExpressionError as error:
            refused.append(str(error))
    assert len(refused) < 100
    assert not [reason for reason in refused if "unlike" in reason or "without unit" in reason]


def test_groups_are_buckets():
    rng = np.random.default_rng(1)
    grown = [random_expression(rng, BARS).root for _ in range(800)]
    grouped = [node for root in grown for node in root.walk() if node.joins("group_rank", "group_neutralize")]
    assert grouped
    assert all(node.args[1].joins("quantile") for node in grouped)


@given(SEEDS)
@settings(max_examples=100, deadline=None)
def test_mutation_changes_and_stays_sound(seed):
    rng = np.random.default_rng(seed)
    expression = random_expression(rng, ("close",))
    for _ in range(10):
        changed = mutate(expression, rng, ("close",))
        assert changed != expression
        assert_sound(changed, ("close",))
        expression = changed


@given(SEEDS)
@settings(max_examples=100, deadline=None)
def test_children_are_sound(seed):
    rng = np.random.default_rng(seed)
    a, b = random_expression(rng, ("close",)), random_expression(rng, BARS)
    child = crossover(a, b, rng)
    assert_sound(child, BARS)
    assert child.names <= a.names | b.names


def test_equal_seeds_give_equal_expressions():
    def grow(seed):
        rng = np.random.default_rng(seed)
        a, b = random_expression(rng, BARS), random_expression(rng, BARS)
        return [a, b, mutate(a, rng, BARS), crossover(a, b, rng)]

    assert grow(3) == grow(3)
    assert grow(3) != grow(4)


def test_random_expressions_vary():
    rng = np.random.default_rng(0)
    assert len({random_expression(rng, ("close",)).canonical for _ in range(200)}) > 150


def test_extra_columns_take_part():
    rng = np.random.default_rng(0)
    grown = [random_expression(rng, ("close", "book")) for _ in range(100)]
    assert any("book" in expression.fields for expression in grown)


def test_parents_larger_than_the_usual_limit_can_be_used():
    rng = np.random.default_rng(0)
    large = parse(" + ".join(f"ts_mean(close, {n})" for n in range(2, 22)) + " + delay(close, 2000)")
    for _ in range(20):
        assert crossover(large, parse("close"), rng).size <= large.size
        assert mutate(large, rng, ("close",)) != large


def test_nothing_to_read_is_refused():
    with pytest.raises(MissingDataError, match="no field can be read"):
        random_expression(np.random.default_rng(0), ())


def test_grown_expressions_pass_the_truncation_test():
    panel = build_panel(900, 4, seed=8)
    rng = np.random.default_rng(12)
    for _ in range(60):
        expression = mutate(random_expression(rng, panel.fields), rng, panel.fields)
        report = check_leaks(expression, panel)
        assert report.passed, f"{expression}: {report.summary()}"
        cut = compute(expression, panel.slice(0, 600))
        np.testing.assert_array_equal(cut, compute(expression, panel)[:600])
