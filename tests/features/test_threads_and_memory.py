"""The engine under threads, budgets and batches: the same bits, within bounds, with the same errors."""

import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ConfigurationError, DataError, MissingDataError
from features import compute, evaluation, parse
from features.engine import compute_each, count_bytes
from features.evaluation import Evaluation
from features.fields import load_field
from features.grammar import random_expression
from tests.features.panels import build_panel

PANEL = build_panel(150, 5, seed=3)
ARRAY = 8 * 150 * 5
FAMILY = [
    "ts_mean(returns, 5) / ts_std(returns, 21)",
    "rank(ts_mean(returns, 5)) - rank(ts_std(returns, 21))",
    "ts_corr(rank(ts_mean(returns, 5)), log(volume), 10)",
    "close",
    "ts_mean(returns, 5)",
    "(high - low) / (close + open) * ts_zscore(dollar_volume, 10)",
]
EXPRESSIONS = [parse(text) for text in FAMILY]
ONE_THREAD = compute(FAMILY, PANEL, threads=1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), threads=st.integers(1, 4), arrays=st.integers(0, 12), parts=st.integers(1, 4))
def test_the_bits_do_not_depend_on_threads_budget_or_batches(seed, threads, arrays, parts):
    rng = np.random.default_rng(seed)
    grown = [random_expression(rng, PANEL.fields) for _ in range(6)]
    plain = compute(grown, PANEL, threads=1)
    needs = 6 + 4 + max(Evaluation([one.root], PANEL).count_arrays(one.root) for one in grown)
    bounded = compute(grown, PANEL, threads=threads, memory_budget=(needs + arrays) * ARRAY)
    np.testing.assert_array_equal(bounded, plain)
    for part in range(parts):
        np.testing.assert_array_equal(compute(grown[part::parts], PANEL, threads=threads), plain[part::parts])
    for (expression, values), wanted, row in zip(compute_each(grown, PANEL, threads=threads), grown, plain, strict=True):
        assert expression is wanted
        np.testing.assert_array_equal(values, row)


@pytest.mark.parametrize(("capacity", "again"), [(0, True), (1, True), (9, False), (None, False)])
def test_what_was_let_go_is_computed_again(monkeypatch, capacity, again):
    loads = []

    def counting(name, panel):
        loads.append(name)
        return load_field(name, panel)

    monkeypatch.setattr(evaluation, "load_field", counting)
    part = Evaluation([expression.root for expression in EXPRESSIONS], PANEL)
    part.capacity = capacity
    for expression, values in zip(EXPRESSIONS, ONE_THREAD, strict=True):
        np.testing.assert_array_equal(part.value(expression.root), values)
    assert (loads.count("returns") > 1) == again


def test_everything_stays_within_the_budget():
    panel = build_panel(1500, 40, seed=5)
    texts = [f"ts_zscore(ts_mean(returns, {n}) / ts_std(log_returns, {n}), {m})" for n in (5, 9, 21) for m in (10, 30)]
    expressions = [parse(text) for text in texts * 2]
    compute(expressions, panel)
    array = 8 * 1500 * 40
    for budget, threads in ((24 * array, 1), (30 * array, 2)):
        tracemalloc.start()
        compute(expressions, panel, threads=threads, memory_budget=budget)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < budget
    tracemalloc.start()
    for _ in compute_each(expressions, panel, threads=1, memory_budget=12 * array):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * array


def test_a_result_that_cannot_fit_is_refused_with_bytes_and_remedy():
    with pytest.raises(DataError, match=r"at least 84,000 bytes.*memory budget is 72,000 bytes; pass at most 4 at a time"):
        compute(FAMILY, PANEL, threads=1, memory_budget=12 * ARRAY)
    with pytest.raises(DataError, match="take them one by one from `compute_each`, or allow"):
        compute(["close"] * 20, PANEL, memory_budget=8 * ARRAY)
    with pytest.raises(DataError, match="pass fewer symbols or bars at a time"):
        compute("ts_mean(close, 5)", PANEL, memory_budget=3 * ARRAY)


def test_limits_that_make_no_sense_are_refused():
    with pytest.raises(DataError, match="`threads` must be at least 1, was 0"):
        compute("close", PANEL, threads=0)
    with pytest.raises(DataError, match="`memory_budget` must be a positive number of bytes, was -1"):
        compute_each(["close"], PANEL, memory_budget=-1)
    with pytest.raises(ConfigurationError, match="one of local, ray, was 'spark'"):
        compute("close", PANEL, engine="spark")


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_in_a_thread_surfaces_as_it_is_and_the_first_one(threads):
    foreign = [parse(f"ts_mean({name}, 3) + close", extra=(name,)) for name in ("alien", "foreign", "strange")]
    for _ in range(5):
        with pytest.raises(MissingDataError, match="no `alien`"):
            compute([*EXPRESSIONS, *foreign, *EXPRESSIONS], PANEL, threads=threads)
    got = compute_each([EXPRESSIONS[0], *foreign], PANEL, threads=threads)
    np.testing.assert_array_equal(next(got)[1], ONE_THREAD[0])
    with pytest.raises(MissingDataError, match="no `alien`"):
        next(got)


@pytest.mark.parametrize("threads", [1, 2])
def test_progress_is_told_in_the_callers_thread(threads):
    told = []

    def tell(done, total):
        told.append((done, total, threading.current_thread()))

    compute(FAMILY, PANEL, threads=threads, on_progress=tell)
    compute("close", PANEL, on_progress=tell)
    here = threading.current_thread()
    assert told == [(done, 6, here) for done in range(1, 7)] + [(1, 1, here)]


def test_each_value_belongs_to_the_caller():
    got = []
    for _, values in compute_each(FAMILY, PANEL, threads=2):
        got.append(values.copy())
        values[:] = 0.0
    np.testing.assert_array_equal(got, ONE_THREAD)
    assert np.nanmin(PANEL.close) > 0.0


def test_no_value_that_is_needed_again_is_written_over():
    close, open_ = PANEL.get("close"), PANEL.get("open")
    total = close + open_
    got = compute(["(close + open) * 2 - (close + open)", "close + open", "abs(close - open) / close", "-close"], PANEL)
    np.testing.assert_array_equal(got[0], total * 2 - total)
    np.testing.assert_array_equal(got[1], total)
    np.testing.assert_array_equal(got[2], np.abs(close - open_) / close)
    np.testing.assert_array_equal(got[3], -close)
    np.testing.assert_array_equal(PANEL.get("close"), build_panel(150, 5, seed=3).get("close"))


def test_features_that_nobody_takes_leave_no_threads_behind():
    each = compute_each(FAMILY * 5, PANEL, threads=3)
    next(each)
    del each
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("features")]


def test_arrays_held_at_a_time_by_hand():
    def count(text):
        expression = parse(text)
        return Evaluation([expression.root], PANEL).count_arrays(expression.root)

    assert count("close") == 1
    assert count("close * 2") == 2
    assert count("close + open") == 3
    assert count("(close + open) * 2") == 3
    assert count("(close + open) * (high + low)") == 4


def test_bytes_touched_by_hand():
    # returns -> ts_mean, once; ts_mean -> rank; ts_mean, returns -> their sum; and two copies into the result.
    expressions = [parse("rank(ts_mean(returns, 5))"), parse("ts_mean(returns, 5) + returns")]
    assert count_bytes(expressions, PANEL) == (2 + 2 + 3 + 2 * 2) * ARRAY
