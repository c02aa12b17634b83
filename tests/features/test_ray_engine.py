"""The Ray engine, on two worker processes of this machine."""

import os
import sys

import numpy as np
import pytest

from core import cluster as core_cluster
from core.errors import ConfigurationError, ExpressionError, MissingDataError
from core.settings import Settings
from features import compute, engine, parse, ray_engine
from features.ray_engine import split_batches
from tests.features.panels import build_panel
from tests.ray_cluster import two_workers

PANEL = build_panel(300, 5, seed=4)
TEXTS = [
    "ts_mean(returns, 5)",
    "rank(ts_mean(returns, 5))",
    "zscore(volume) * book",
    "ts_corr(close, mood, 10)",
    "rank(ts_mean(returns, 5)) - rank(volume)",
    "ewma(close, 3)",
]


@pytest.fixture(scope="module")
def cluster():
    with two_workers() as ray:
        yield ray


@pytest.fixture
def elsewhere(cluster, monkeypatch):
    """Make sure that nothing is evaluated in this process."""

    def refuse(*_, **__):
        raise AssertionError("evaluated in the driver")

    monkeypatch.setattr(engine, "_prepare", refuse)
    return cluster


def test_workers_compute_the_same_bits(elsewhere, monkeypatch):
    told = []
    many = compute(TEXTS, PANEL, engine="ray", on_progress=lambda done, total: told.append((done, total)))
    one = compute(TEXTS[3], PANEL, engine="ray")
    none = compute([], PANEL, engine="ray")
    monkeypatch.undo()
    np.testing.assert_array_equal(many, compute(TEXTS, PANEL))
    np.testing.assert_array_equal(one, many[3])
    assert none.shape == (0, 300, 5)
    assert told[-1] == (6, 6)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_errors_of_workers_are_the_same_typed_errors(elsewhere):
    with pytest.raises(ExpressionError, match="unknown field `nosuch`"):
        compute(["close", "nosuch"], PANEL, engine="ray")
    with pytest.raises(MissingDataError, match="no `alien`"):
        compute(["close", parse("alien * 2", extra=("alien",))], PANEL, engine="ray")


def test_the_batch_of_a_worker_that_died_is_done_again(elsewhere, monkeypatch, tmp_path):
    mark = tmp_path / "died"
    work = ray_engine._compute_batch

    def dies_once(*args):
        if not mark.exists():
            mark.touch()
            os._exit(1)
        return work(*args)

    monkeypatch.setattr(ray_engine, "_compute_batch", dies_once)
    got = compute(TEXTS[:2], PANEL, engine="ray")
    assert mark.exists()
    monkeypatch.undo()
    np.testing.assert_array_equal(got, compute(TEXTS[:2], PANEL))


def test_workers_that_keep_dying_are_a_typed_error(elsewhere, monkeypatch):
    def dies(*_):
        os._exit(1)

    monkeypatch.setattr(ray_engine, "_compute_batch", dies)
    monkeypatch.setattr(core_cluster, "_RETRIES", 0)
    with pytest.raises(ConfigurationError, match=r"the Ray cluster failed.*engine='local'"):
        compute(TEXTS[0], PANEL, engine="ray")


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigurationError, match=r"install `agentic-quantitative-framework\[ray\]`"):
        compute("close", PANEL, engine="ray")


def test_the_address_of_the_cluster_is_a_setting(monkeypatch):
    monkeypatch.setenv("AQF_RAY_ADDRESS", "ray://somewhere:10001")
    assert Settings.load().ray_address == "ray://somewhere:10001"
    monkeypatch.setenv("AQF_RAY_ADDRESS", " ")
    assert Settings.load().ray_address is None


def test_batches_keep_families_together_and_lose_nothing():
    expressions = [parse(f"rank(ts_mean({name}, 5)) * {k}") for k in (2, 3, 4) for name in ("close", "volume", "open")]
    batches = split_batches(expressions, 3)
    assert sorted(place for batch in batches for place in batch) == list(range(9))
    assert sorted(map(sorted, batches)) == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert [len(batch) for batch in split_batches(expressions, 100)] == [1] * 9
    assert len(split_batches(expressions, 1)) == 1
