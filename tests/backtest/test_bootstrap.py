import math

import numpy as np
import pytest

from backtest import bootstrap
from backtest.bootstrap import compute_long_run_deviation, draw_bootstrap_counts


def test_long_run_deviation_is_that_of_bootstrapped_means() -> None:
    rng = np.random.default_rng(10)
    values = rng.standard_normal((400, 3))
    values[1:] += 0.5 * values[:-1]
    counts = np.vstack(list(draw_bootstrap_counts(400, 20_000, 10.0, rng)))
    assert (counts.sum(axis=1) == 400).all()
    simulated = math.sqrt(400) * (counts @ values / 400).std(axis=0)
    np.testing.assert_allclose(compute_long_run_deviation(values, 10.0), simulated, rtol=0.02)


def test_blocks_of_one_draw_each_observation_alike() -> None:
    counts = np.vstack(list(draw_bootstrap_counts(50, 4000, 1.0, 1)))
    np.testing.assert_allclose(counts.mean(axis=0), 1.0, atol=0.08)
    np.testing.assert_allclose(counts.var(axis=0), 49 / 50, rtol=0.12)  # binomial


def test_replications_come_in_bounded_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "CELLS", 1000)
    assert [len(counts) for counts in draw_bootstrap_counts(300, 8, 5.0, 1)] == [3, 3, 2]
