"""Sweeps on two worker processes of this machine."""

import pickle

import numpy as np
import pytest

from backtest import MovingAverageCrossings, SignalStrategy, run_sweep, sweep
from backtest.markets import no_edge
from core.errors import ConfigurationError, DataError
from tests.ray_cluster import two_workers

PANEL = no_edge(seed=5, n_assets=3, n_bars=300)
FAMILY = MovingAverageCrossings(fast=(3, 5, 8), slow=(13, 21), stop_loss=(None, 0.05))


@pytest.fixture(scope="module")
def cluster():
    with two_workers() as ray:
        yield ray


@pytest.fixture
def elsewhere(cluster, monkeypatch):
    """Make sure that nothing is judged in this process."""

    def refuse(*_, **__):
        raise AssertionError("judged in the driver")

    monkeypatch.setattr(sweep, "run_backtest", refuse)
    monkeypatch.setattr(sweep, "sweep_family", refuse)


def random_weights(seed):
    weights = np.random.default_rng(seed).normal(size=PANEL.shape)
    return weights / np.abs(weights).sum(axis=1, keepdims=True)


def random_signals(seed):
    entries, exits = np.random.default_rng(seed).random((2, *PANEL.shape)) < 0.1
    return SignalStrategy(entries=entries, exits=exits, stop_loss=0.03, size=0.2)


@pytest.mark.parametrize("strategies", [FAMILY, [random_weights(n) for n in range(5)], [random_signals(n) for n in range(5)]])
def test_a_sweep_on_workers_gives_the_same_bits(elsewhere, monkeypatch, strategies):
    told = []
    there = run_sweep(PANEL, strategies, engine="ray", progress=lambda done, total: told.append((done, total)))
    monkeypatch.undo()
    here = run_sweep(PANEL, strategies)
    assert there.table.tobytes() == here.table.tobytes()
    assert told[-1] == (len(here), len(here))


def test_a_strategy_that_is_wrong_is_refused_from_the_worker_as_here(elsewhere):
    with pytest.raises(DataError, match="a weight row must be all finite"):
        run_sweep(PANEL, [random_weights(1), np.where(np.eye(300, 3) > 0, np.nan, 0.0)], engine="ray")


def test_an_engine_that_there_is_not_is_refused():
    with pytest.raises(ConfigurationError, match="`engine` must be one of local, ray, was 'dask'"):
        run_sweep(PANEL, FAMILY, engine="dask")


def test_a_panel_travels_whole():
    sent = PANEL.with_column("sector", np.ones(PANEL.shape))
    came = pickle.loads(pickle.dumps(sent))
    assert came.content_sha256() == sent.content_sha256()
    assert (came.name, came.fields) == (sent.name, sent.fields)
