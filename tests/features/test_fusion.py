"""Batches that are worked through in one go have the bits of their expressions one after the other."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.market import Panel
from features import compute, evaluation, parse
from features.alphas import ALPHA158
from features.engine import _prepare_batch
from features.fields import load_field
from features.fusion import _lay_out, divide
from features.grammar import random_expression
from features.rolling import MOST_SERIES, STATISTICS
from tests.features.panels import build_panel

# Several stretches of bars, and one symbol more than a strip of columns.
PANEL = build_panel(900, 33, seed=11)


def parsed(*texts):
    return tuple(parse(text, extra=("book", "mood")) for text in texts)


def bits(values):
    """What is there to the bit, the sign of a zero too; one NaN is like another."""
    return np.where(np.isnan(values), np.nan, values).view(np.int64)


def check(expressions, panel, threads):
    got = compute(expressions, panel, threads=threads)
    for expression, values in zip(expressions, got, strict=True):
        alone = compute(expression, panel, threads=1)
        np.testing.assert_array_equal(bits(values), bits(alone), err_msg=str(expression))
        assert not np.isinf(values).any()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), threads=st.integers(1, 4))
def test_random_batches(seed, threads):
    rng = np.random.default_rng(seed)
    check([random_expression(rng, PANEL.fields) for _ in range(12)], PANEL, threads)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(900, 33), (300, 1), (7, 5), (1, 2)])
def test_alpha158(shape, threads):
    check([parse(text) for text in ALPHA158.values()], build_panel(*shape, seed=2, gaps=min(shape) > 30), threads)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("window", [4, 64, 253, 700])
def test_every_statistic_of_computed_series(window, threads):
    texts = []
    for name in STATISTICS:
        n = max(window // 6, 1) if name == "ewma" else window
        one = "close > open" if name == "ts_count" else "delta(log_returns, 2) * volume"
        two = ", mood - book" if name in ("ts_cov", "ts_corr", "ts_beta", "ts_resid") else ""
        texts += [f"{name}({one}{two}, {n}) * 2 - 1", f"abs({name}({one}{two}, {n}))"]
    check(parsed(*texts), PANEL, threads)


def test_every_operation_where_values_are_huge_missing_or_zero():
    rng = np.random.default_rng(3)
    odd = np.array([0.0, -0.0, 1.0, -1.0, 1e-320, 1e200, -1e200, 1e308, np.nan, 3.5])
    x, y = odd[rng.integers(0, len(odd), (2, 400, 3))]
    panel = Panel(
        index=PANEL.index[:400], symbols=("A", "B", "C"), close=np.ones((400, 3)), extra={"x": x, "y": y}, name="odd values"
    )
    texts = [f"(x {sign} y) {other} x" for sign in "+-*/" for other in "+-*/"]
    texts += ["-(x / y)", "abs(x * y) - 1", "delta(x / y, 3) * 2", "pct_change(x, 2) + y / y", "delay(x * y, 5) / 7"]
    # What was too large for a number is missing at once, and not first when it is written.
    texts += ["1 / ts_sum(x, 3)", "1 / pct_change(x, 2)", "ts_count(ts_sum(x, 3) < x, 3) * 2", "1 / -x", "x / -(x - x)"]
    texts += ["ts_count(x / y < y, 5) / 5", "ts_count(x <= y * 2, 5) / 5", "ts_count(not (x < y) and x / x <= y, 3) - 1"]
    texts += ["ts_sum(x * y, 3) / x", "ts_mean(ts_max(x / y, 4), 3) - y", "1 / x - 2 / y", "1e300 * x * x / 1e300"]
    check([parse(text, extra=("x", "y")) for text in texts], panel, 2)


def test_what_programs_cannot_do_is_read_and_the_rest_is_done_once():
    batch = divide(
        parsed(
            "ts_mean(mood, 5) / book - 1",
            "ts_mean(mood, 9) * rank(ts_mean(mood, 5))",
            "(high - low) / open",
            "rank(volume)",
            "ts_std(mood, 5)",
        )
    )
    # The mean of five is there for the rank. Mean of nine and deviation are windows of one series, so that they are joined.
    assert [(group.places, set(group.reads)) for group in batch.groups] == [
        ((0,), {"ts_mean(mood, 5)", "book"}),
        ((1, 4), {"mood", "rank(ts_mean(mood, 5))"}),
        ((2,), {"high", "low", "open"}),
    ]
    assert batch.others == (3,)


def test_what_has_an_operation_in_common_is_one_program():
    texts = ("ts_std(close, 20) / close", "ts_std(close, 20) + open", "ts_mean(close, 7) * 2", "high / low", "1 - high / open")
    batch = divide(parsed(*texts))
    assert [group.places for group in batch.groups] == [(0, 1, 2), (4,)]
    assert batch.others == (3,)  # a single operation has nothing to be joined with
    assert divide(parsed("close / open", "close / open")).groups[0].places == (0, 1)


def test_an_expression_that_reads_too_much_is_computed_by_itself():
    many = " + ".join(f"log(volume * {n})" for n in range(1, MOST_SERIES + 2))
    expressions = parsed(f"({many}) / 2", "1 - close / open")
    assert divide(expressions).others == (0,)
    check(expressions, PANEL, 2)


def test_what_two_programs_have_in_common_is_done_once_for_both():
    several = [" + ".join(f"log(volume * {n})" for n in range(first, first + 10)) for first in (1, 20)]
    expressions = parsed(*(f"ts_mean(delta(mood, 3), 9) * ({one})" for one in several))
    batch = divide(expressions)
    assert [group.places for group in batch.groups] == [(0,), (1,)]
    assert all("ts_mean(delta(mood, 3), 9)" in group.reads for group in batch.groups)
    check(expressions, PANEL, 2)


def test_the_same_expression_reads_something_else_in_another_batch():
    first = parsed("ts_mean(mood, 5) / book - 1", "rank(close)")
    second = parsed("ts_mean(mood, 5) / book - 1", "rank(ts_mean(mood, 5))")
    for expressions in (first, second, first):
        check(expressions, PANEL, 1)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_field_is_loaded_once_for_all_shares_of_the_bars(monkeypatch, threads):
    loads = []

    def counting(name, panel):
        loads.append(name)
        return load_field(name, panel)

    monkeypatch.setattr(evaluation, "load_field", counting)
    compute([f"delta(close, {n}) / open" for n in range(1, 40)], PANEL, threads=threads)
    assert sorted(loads) == ["close", "open"]


@pytest.mark.parametrize("threads", [1, 2])
def test_windows_of_years_stay_within_the_budget(threads):
    panel = build_panel(3000, 8, seed=5)
    expressions = parsed(*(f"ts_mean(ts_std(mood, {1000 + n}), {2400 + n}) / book" for n in range(30)))
    _, tasks, _ = _prepare_batch(expressions, panel, threads, None)
    assert {type(share.what) for task in tasks for share in task} == {int}
    array = 8 * 3000 * 8
    compute(expressions, panel)
    tracemalloc.start()
    compute(expressions, panel, threads=threads, memory_budget=(30 + 20 * threads) * array)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (30 + 20 * threads) * array + threads * 2 * 2**20


def test_a_program_stays_in_the_cache_whatever_the_windows():
    for window in (5, 60, 300, 1300, 2520):
        for n_assets in (1, 8, 20, 500):
            (group,) = divide(parsed(f"ts_kurt(mood, {window}) / book - ts_skew(mood, {window})")).groups
            layout = _lay_out(group)
            assert layout.size(layout.choose_strip(5000, n_assets), 5000) * 8 <= 2 * 2**20
