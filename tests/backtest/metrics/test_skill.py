import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.regression.linear_model import OLS

from backtest import metrics
from core.errors import DataError, ShapeError

RNG = np.random.default_rng(4)
SCORES = RNG.standard_normal((200, 12))
CLOSE = 50.0 * np.cumprod(1.0 + 0.01 * RNG.standard_normal((200, 12)), axis=0)


def test_forward_returns_begin_at_the_close_after_the_score() -> None:
    close = np.array([[1.0], [2.0], [3.0], [6.0], [3.0]])
    np.testing.assert_allclose(metrics.compute_forward_returns(close)[:, 0], [0.5, 1.0, -0.5, np.nan, np.nan])
    two = metrics.compute_forward_returns(close, horizon_bars=2)[:, 0]
    np.testing.assert_allclose(two, [2.0, 0.0, np.nan, np.nan, np.nan])
    assert np.isnan(metrics.compute_forward_returns(close, horizon_bars=9)).all()
    with pytest.raises(DataError, match="`horizon_bars` must be at least 1"):
        metrics.compute_forward_returns(close, horizon_bars=0)
    with pytest.raises(ShapeError, match="`close` must have shape"):
        metrics.compute_forward_returns(close[:, 0])


def test_decay_is_the_mean_spearman_correlation_of_each_horizon() -> None:
    for one in metrics.compute_rank_ic_decay(SCORES, CLOSE, horizons=(1, 3)):
        h = one.horizon_bars
        expected = [stats.spearmanr(SCORES[t], CLOSE[t + 1 + h] / CLOSE[t + 1]).statistic for t in range(200 - 1 - h)]
        assert one.mean == pytest.approx(np.mean(expected), abs=1e-12)
        assert one.n_bars == len(expected)


def test_scores_that_know_one_bar_ahead_lose_it_over_longer_horizons() -> None:
    knowing = metrics.compute_forward_returns(CLOSE)
    decay = metrics.compute_rank_ic_decay(knowing, CLOSE, horizons=(1, 2, 10))
    assert decay[0].mean == pytest.approx(1.0)
    assert decay[0].mean > decay[1].mean > decay[2].mean > 0.1


@pytest.mark.parametrize("lags", [0, 1, 4])
def test_t_statistic_with_lags_equals_newey_west_of_statsmodels(lags: int) -> None:
    values = np.convolve(RNG.standard_normal(300), np.ones(5), "valid") + 0.3
    model = OLS(values, np.ones(len(values)))
    fit = model.fit(cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": True})
    assert metrics.mean_t_statistic(values, lags=lags) == pytest.approx(float(fit.tvalues[0]), rel=1e-10)


def test_overlapping_values_are_less_sure_of_their_mean() -> None:
    values = np.convolve(RNG.standard_normal(400), np.ones(10), "valid") + 1.0
    assert abs(metrics.mean_t_statistic(values, lags=9)) < 0.6 * abs(metrics.mean_t_statistic(values))
    assert math.isnan(metrics.mean_t_statistic(np.full(9, 0.1), lags=3))
    with pytest.raises(ValueError, match="`lags` must not be negative"):
        metrics.mean_t_statistic(values, lags=-1)


def test_quantile_returns_equal_a_groupby_of_pandas() -> None:
    forward = metrics.compute_forward_returns(CLOSE)
    found = metrics.compute_quantile_returns(SCORES, forward, n_quantiles=4)
    by_bar = []
    for t in range(198):
        place = (pd.Series(SCORES[t]).rank(method="first") - 1) // 3
        by_bar.append(pd.Series(forward[t]).groupby(place).mean())
    table = pd.DataFrame(by_bar)
    np.testing.assert_allclose(found.means, table.mean().to_numpy(), rtol=1e-10)
    spread = table[3.0] - table[0.0]
    assert found.spread == pytest.approx(spread.mean())
    assert found.spread_t == pytest.approx(stats.ttest_1samp(spread, 0.0).statistic)
    assert found.n_bars == 198


def test_bars_with_fewer_assets_than_quantiles_are_left_out() -> None:
    found = metrics.compute_quantile_returns(SCORES[:, :3], metrics.compute_forward_returns(CLOSE)[:, :3], n_quantiles=5)
    assert all(math.isnan(mean) for mean in found.means)
    assert math.isnan(found.spread)
    assert found.n_bars == 0


def test_equal_scores_share_one_quantile_and_tell_no_spread() -> None:
    found = metrics.compute_quantile_returns(np.ones((6, 9)), np.full((6, 9), 0.01), n_quantiles=3)
    assert found.means[1] == pytest.approx(0.01)
    assert math.isnan(found.means[0])
    assert math.isnan(found.means[2])
    assert found.n_bars == 0


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.sampled_from([2, 3, 4, 6, 12]))
def test_turning_scores_round_turns_the_spread_round(seed: int, n_quantiles: int) -> None:
    rng = np.random.default_rng(seed)
    scores, forward = rng.standard_normal((20, 12)), rng.standard_normal((20, 12))
    one, other = (metrics.compute_quantile_returns(sign * scores, forward, n_quantiles=n_quantiles) for sign in (1.0, -1.0))
    assert one.spread == pytest.approx(-other.spread)
    np.testing.assert_allclose(one.means, other.means[::-1], atol=1e-12)


def test_wrong_arguments_of_quantiles_are_refused() -> None:
    with pytest.raises(ValueError, match="must have one shape"):
        metrics.compute_quantile_returns(np.ones((3, 2)), np.ones((2, 2)))
    with pytest.raises(ValueError, match="`n_quantiles` must be at least 2"):
        metrics.compute_quantile_returns(SCORES, CLOSE, n_quantiles=1)
