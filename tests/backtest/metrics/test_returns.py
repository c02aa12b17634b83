import math

import empyrical
import numpy as np
import pandas as pd
import pytest

from backtest import metrics
from core.errors import DataError

RNG = np.random.default_rng(5)
RETURNS = 0.0003 + 0.01 * RNG.standard_t(5, 700)
INDEX = pd.bdate_range("2018-11-05 21:00", periods=700, tz="UTC", normalize=False)


def test_omega_is_gains_over_losses_around_a_threshold_of_one_period() -> None:
    returns = np.array([0.03, -0.01, 0.02, -0.02])
    assert metrics.omega_ratio(returns) == pytest.approx(0.05 / 0.03)
    assert metrics.omega_ratio(returns, threshold=0.01) == pytest.approx((0.02 + 0.01) / (0.02 + 0.03))
    assert metrics.omega_ratio(returns) == pytest.approx(metrics.profit_factor(returns))
    assert math.isnan(metrics.omega_ratio(np.array([0.01, 0.02])))


def test_omega_equals_that_of_empyrical_whose_threshold_is_a_year() -> None:
    yearly = 0.05
    per_period = (1.0 + yearly) ** (1.0 / 252.0) - 1.0
    assert metrics.omega_ratio(RETURNS) == pytest.approx(empyrical.omega_ratio(RETURNS), rel=1e-12)
    found = metrics.omega_ratio(RETURNS, threshold=per_period)
    assert found == pytest.approx(empyrical.omega_ratio(RETURNS, required_return=yearly), rel=1e-12)


def test_rolling_sharpe_is_the_sharpe_of_each_window() -> None:
    found = metrics.rolling_sharpe(RETURNS, window=50)
    assert np.isnan(found[:49]).all()
    for t in (49, 300, 699):
        assert found[t] == pytest.approx(metrics.sharpe_ratio(RETURNS[t - 49 : t + 1]), rel=1e-12)
    series = pd.Series(RETURNS).rolling(50)
    np.testing.assert_allclose(found[49:], (series.mean() / series.std() * math.sqrt(252))[49:], rtol=1e-9)


def test_rolling_sharpe_is_unknown_where_nothing_moved_and_before_a_window_is_full() -> None:
    flat = np.concatenate([RETURNS[:30], np.zeros(30)])
    assert np.isnan(metrics.rolling_sharpe(flat, window=20)[-10:]).all()
    assert np.isnan(metrics.rolling_sharpe(RETURNS[:10], window=20)).all()
    with pytest.raises(ValueError, match="`window` must be at least 2"):
        metrics.rolling_sharpe(RETURNS, window=1)


def test_monthly_returns_compound_to_those_of_empyrical_and_to_the_whole() -> None:
    table = metrics.compute_monthly_returns(RETURNS, INDEX)
    theirs = empyrical.aggregate_returns(pd.Series(RETURNS, INDEX.tz_localize(None)), "monthly")
    for (year, month), value in theirs.items():
        assert table.loc[year, month] == pytest.approx(value, abs=1e-12)
    assert int(table.drop(columns="year").notna().to_numpy().sum()) == len(theirs)
    assert (1.0 + table["year"]).prod() - 1.0 == pytest.approx(metrics.total_return(RETURNS), abs=1e-12)
    assert list(table.columns) == [*range(1, 13), "year"]
    assert math.isnan(table.loc[2018, 1])


def test_monthly_returns_need_the_periods_of_the_returns() -> None:
    with pytest.raises(DataError, match="`index` must have the 700 periods"):
        metrics.compute_monthly_returns(RETURNS, INDEX[:-1])


def test_growth_that_no_float_holds_is_unknown_not_infinite() -> None:
    assert math.isnan(metrics.cagr(np.array([1e9, 1e9, 1e9])))
    assert metrics.compute_metrics(np.array([1e9, 1e9, 1e9]))["cagr"] is None
    assert metrics.cagr(np.array([0.5, -1.0])) == -1.0
