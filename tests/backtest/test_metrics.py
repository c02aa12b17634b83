import json
import math

import empyrical
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from backtest import metrics
from backtest.costs import annual_cost, break_even_cost_bps

RNG = np.random.default_rng(12)
RETURNS = 0.0004 + 0.01 * RNG.standard_t(5, 1500)
MARKET = 0.5 * RETURNS + 0.008 * RNG.standard_normal(1500)
SMALL = np.array([0.10, -0.05, 0.02, -0.20, 0.0])


def test_figures_of_five_periods_by_hand() -> None:
    wealth = 1.10 * 0.95 * 1.02 * 0.80
    mean, deviation = -0.026, math.sqrt((0.126**2 + 0.024**2 + 0.046**2 + 0.174**2 + 0.026**2) / 4)
    assert metrics.total_return(SMALL) == pytest.approx(wealth - 1)
    assert metrics.sharpe_per_period(SMALL) == pytest.approx(mean / deviation)
    assert metrics.sharpe_ratio(SMALL, periods_per_year=4) == pytest.approx(2 * mean / deviation)
    assert metrics.volatility(SMALL, periods_per_year=4) == pytest.approx(2 * deviation)
    assert metrics.cagr(SMALL, periods_per_year=5) == pytest.approx(wealth - 1)
    assert metrics.max_drawdown(SMALL) == pytest.approx(wealth / 1.10 - 1)
    assert metrics.calmar_ratio(SMALL, periods_per_year=5) == pytest.approx((wealth - 1) / (1 - wealth / 1.10))
    assert metrics.sortino_ratio(SMALL, periods_per_year=4) == pytest.approx(2 * mean / math.sqrt((0.05**2 + 0.2**2) / 5))
    assert metrics.win_rate(SMALL) == 0.5
    assert metrics.profit_factor(SMALL) == pytest.approx(0.12 / 0.25)
    assert metrics.value_at_risk(SMALL, level=0.25) == pytest.approx(-0.05)
    assert metrics.conditional_value_at_risk(SMALL, level=0.25) == pytest.approx(-0.125)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (metrics.sharpe_ratio, empyrical.sharpe_ratio),
        (metrics.sortino_ratio, empyrical.sortino_ratio),
        (metrics.max_drawdown, empyrical.max_drawdown),
        (metrics.cagr, empyrical.cagr),
        (metrics.calmar_ratio, empyrical.calmar_ratio),
        (metrics.volatility, empyrical.annual_volatility),
        (metrics.total_return, empyrical.cum_returns_final),
        (metrics.value_at_risk, empyrical.value_at_risk),
    ],
)
def test_figures_equal_those_of_empyrical(ours, theirs) -> None:  # type: ignore[no-untyped-def]
    assert ours(RETURNS) == pytest.approx(theirs(RETURNS), rel=1e-12)


def test_expected_shortfall_is_near_empyrical_which_counts_the_tail_by_floor() -> None:
    assert metrics.conditional_value_at_risk(RETURNS) == pytest.approx(empyrical.conditional_value_at_risk(RETURNS), rel=0.01)


def test_beta_is_that_of_empyrical_and_alpha_the_arithmetic_one() -> None:
    alpha, beta = metrics.alpha_beta(RETURNS, MARKET)
    assert beta == pytest.approx(empyrical.beta(RETURNS, MARKET), rel=1e-10)
    assert (1 + alpha / 252) ** 252 - 1 == pytest.approx(empyrical.alpha(RETURNS, MARKET), rel=1e-10)


def test_moments_equal_those_of_scipy() -> None:
    assert metrics.skewness(RETURNS) == pytest.approx(stats.skew(RETURNS))
    assert metrics.kurtosis(RETURNS) == pytest.approx(stats.kurtosis(RETURNS, fisher=False))


def test_rank_ic_equals_spearman_over_the_pairs_that_are_known() -> None:
    rng = np.random.default_rng(2)
    scores, returns = rng.integers(0, 6, (60, 9)).astype(float), rng.standard_normal((60, 9))
    scores[rng.random(scores.shape) < 0.2] = np.nan
    returns[rng.random(scores.shape) < 0.2] = np.nan
    scores[0] = 1.0
    scores[1, 2:] = np.nan
    returns[2] = np.where(np.arange(9) < 2, 0.01, np.nan)
    found = metrics.compute_rank_ic(scores, returns)
    assert np.isnan(found[:3]).all()
    for t in range(3, 60):
        paired = np.isfinite(scores[t]) & np.isfinite(returns[t])
        if paired.sum() < 3:
            assert np.isnan(found[t])
            continue
        assert found[t] == pytest.approx(stats.spearmanr(scores[t][paired], returns[t][paired]).statistic, abs=1e-12)


def test_rank_ic_refuses_shapes_that_differ() -> None:
    with pytest.raises(ValueError, match="must have one shape"):
        metrics.compute_rank_ic(np.ones((3, 2)), np.ones((2, 2)))


def test_t_statistic_equals_that_of_scipy_and_skips_nan() -> None:
    values = np.append(RETURNS[:80], [np.nan, np.nan])
    assert metrics.mean_t_statistic(values) == pytest.approx(stats.ttest_1samp(RETURNS[:80], 0.0).statistic)
    assert math.isnan(metrics.mean_t_statistic([np.nan, 1.0]))


def test_costs_are_measured_per_side_and_per_year() -> None:
    assert break_even_cost_bps(np.array([0.0, 0.002, -0.001]), np.array([1.0, 0.5, 0.5])) == pytest.approx(5.0)
    assert math.isnan(break_even_cost_bps(np.zeros(3), np.zeros(3)))
    assert annual_cost(np.array([0.0, 0.0002]), periods_per_year=250) == pytest.approx(0.025)
    assert metrics.annual_turnover(np.array([0.0, 0.2]), periods_per_year=250) == pytest.approx(25.0)


@pytest.mark.parametrize("value", [0.0, 0.01, -0.003])
def test_constant_returns_have_no_ratios(value: float) -> None:
    constant = np.full(50, value)
    for figure in (metrics.sharpe_ratio, metrics.skewness, metrics.kurtosis):
        assert math.isnan(figure(constant))


@settings(max_examples=60)
@given(st.lists(st.floats(-1.0, 1.0), min_size=2, max_size=40))
def test_metrics_are_always_safe_for_json(values: list[float]) -> None:
    returns = np.array(values)
    found = metrics.compute_metrics(
        returns, gross_returns=returns, turnover=np.abs(returns), exposure=returns, n_trades=3, benchmark_returns=returns[::-1]
    )
    json.dumps(found, allow_nan=False)
    assert found.keys() == metrics.compute_metrics(np.array([0.1, 0.2])).keys()


def test_metrics_hold_what_the_single_functions_give() -> None:
    found = metrics.compute_metrics(RETURNS, benchmark_returns=MARKET, n_trades=7)
    assert found["sharpe"] == metrics.sharpe_ratio(RETURNS)
    assert found["cvar_95"] == metrics.conditional_value_at_risk(RETURNS)
    assert found["beta"] == metrics.alpha_beta(RETURNS, MARKET)[1]
    assert found["n_trades"] == 7
    assert found["n_obs"] == 1500
    assert found["turnover"] is None


@pytest.mark.parametrize("returns", [np.ones((3, 2)), np.array([0.1]), np.array([0.1, np.nan]), np.array([0.1, np.inf])])
def test_impossible_returns_are_refused(returns: np.ndarray) -> None:
    with pytest.raises(ValueError, match="`returns` must be"):
        metrics.sharpe_ratio(returns)


def test_other_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="`level`"):
        metrics.value_at_risk(RETURNS, level=1.0)
    with pytest.raises(ValueError, match="1500 periods"):
        metrics.alpha_beta(RETURNS, MARKET[1:])
