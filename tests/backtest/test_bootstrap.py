import math

import numpy as np
import pytest
from arch.bootstrap import StationaryBootstrap

from backtest import bootstrap
from backtest.bootstrap import compute_long_run_deviation, draw_bootstrap_counts, draw_bootstrap_positions
from backtest.metrics import max_drawdown, sharpe_per_period


def test_long_run_deviation_is_that_of_bootstrapped_means() -> None:
    rng = np.random.default_rng(10)
    values = rng.standard_normal((400, 3))
    values[1:] += 0.5 * values[:-1]
    counts = np.vstack(list(draw_bootstrap_counts(400, 20_000, 10.0, rng)))
    assert (counts.sum(axis=1) == 400).all()
    simulated = math.sqrt(400) * (counts @ values / 400).std(axis=0)
    np.testing.assert_allclose(compute_long_run_deviation(values, 10.0), simulated, rtol=0.02)


def test_resamples_are_blocks_of_neighbours_of_the_stated_mean_length_that_wrap_around() -> None:
    drawn = np.vstack(list(draw_bootstrap_positions(200, 500, 8.0, 1)))
    assert drawn.shape == (500, 200)
    goes_on = (drawn[:, 1:] - drawn[:, :-1]) % 200 == 1
    assert 1.0 - goes_on.mean() == pytest.approx((1.0 - 1.0 / 200) / 8.0, rel=0.03)  # a new block may happen to go on
    assert ((drawn[:, :-1] == 199) & (drawn[:, 1:] == 0)).any()
    np.testing.assert_allclose(np.bincount(drawn.ravel(), minlength=200) / 500, 1.0, atol=0.25)


def test_blocks_of_one_draw_each_observation_alike() -> None:
    counts = np.vstack(list(draw_bootstrap_counts(50, 4000, 1.0, 1)))
    np.testing.assert_allclose(counts.mean(axis=0), 1.0, atol=0.08)
    np.testing.assert_allclose(counts.var(axis=0), 49 / 50, rtol=0.12)  # binomial


def test_replications_come_in_bounded_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "CELLS", 1000)
    assert [len(counts) for counts in draw_bootstrap_counts(300, 8, 5.0, 1)] == [3, 3, 2]


def test_drawdown_interval_is_that_of_arch() -> None:
    rng = np.random.default_rng(25)
    returns = 0.01 * rng.standard_t(5, 600) + 0.0003
    resamples = StationaryBootstrap(10, returns, seed=1)
    referee = resamples.conf_int(lambda values: max_drawdown(values), reps=2000, method="percentile")[:, 0]
    found = bootstrap.stationary_bootstrap_drawdown_ci(returns, n_bootstrap=4000, block_length=10, seed=2)
    assert found == pytest.approx(tuple(referee), abs=0.015)
    assert found[0] < max_drawdown(returns) < found[1]


def test_drawdown_interval_of_what_only_gains_is_zero() -> None:
    assert bootstrap.stationary_bootstrap_drawdown_ci(np.full(20, 0.01), block_length=2, seed=1) == (0.0, 0.0)


def test_drawdown_interval_is_deeper_under_momentum_in_the_losses() -> None:
    noise = np.random.default_rng(26).standard_normal(2001)
    returns = 0.01 * (noise[1:] + 0.9 * noise[:-1])
    shallow = bootstrap.stationary_bootstrap_drawdown_ci(returns, block_length=1, seed=1)
    deep = bootstrap.stationary_bootstrap_drawdown_ci(returns, block_length=20, seed=1)
    assert deep[0] < shallow[0]
    assert deep[1] < shallow[1]


def test_sharpe_interval_covers_the_normal_one_on_independent_returns() -> None:
    returns = 0.0005 + 0.01 * np.random.default_rng(14).standard_normal(2000)
    low, high = bootstrap.stationary_bootstrap_sharpe_ci(returns, n_bootstrap=4000, block_length=1, seed=1)
    point, width = sharpe_per_period(returns), 1.96 / math.sqrt(2000)
    assert low == pytest.approx((point - width) * math.sqrt(252), abs=0.06)
    assert high == pytest.approx((point + width) * math.sqrt(252), abs=0.06)


def test_sharpe_interval_is_wider_under_positive_dependence() -> None:
    noise = np.random.default_rng(15).standard_normal(2001)
    returns = 0.01 * (noise[1:] + 0.9 * noise[:-1])
    narrow = bootstrap.stationary_bootstrap_sharpe_ci(returns, block_length=1, seed=1)
    wide = bootstrap.stationary_bootstrap_sharpe_ci(returns, block_length=20, seed=1)
    assert wide[1] - wide[0] > 1.15 * (narrow[1] - narrow[0])


def test_wrong_arguments_are_refused() -> None:
    noise = np.random.default_rng(19).standard_normal(64)
    with pytest.raises(ValueError, match="`confidence`"):
        bootstrap.stationary_bootstrap_drawdown_ci(noise, block_length=2, seed=1, confidence=1.0)
    with pytest.raises(ValueError, match="must have variance"):
        bootstrap.stationary_bootstrap_sharpe_ci(np.zeros(50), block_length=2, seed=1)
    with pytest.raises(ValueError, match="at least 10 values"):
        bootstrap.stationary_bootstrap_sharpe_ci(noise[:5], block_length=2, seed=1)
