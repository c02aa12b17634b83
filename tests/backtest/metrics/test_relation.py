import math

import empyrical
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from backtest import metrics
from core.errors import DataError

RNG = np.random.default_rng(8)
MARKET = 0.0004 + 0.01 * RNG.standard_normal(400)
RETURNS = 0.0003 + 0.6 * MARKET + 0.006 * RNG.standard_normal(400)
INDEX = pd.bdate_range("2020-01-01 21:00", periods=400, tz="UTC", normalize=False)


def test_the_line_and_its_errors_equal_those_of_scipy() -> None:
    fit = metrics.fit_benchmark(RETURNS, MARKET)
    theirs = stats.linregress(MARKET, RETURNS)
    assert fit.beta == pytest.approx(theirs.slope)
    assert fit.alpha == pytest.approx(theirs.intercept * 252)
    assert fit.beta_t == pytest.approx(theirs.slope / theirs.stderr)
    assert fit.alpha_t == pytest.approx(theirs.intercept / theirs.intercept_stderr)
    assert fit.correlation == pytest.approx(theirs.rvalue)
    assert metrics.alpha_beta(RETURNS, MARKET) == (fit.alpha, fit.beta)


def test_information_ratio_is_that_of_empyrical_a_year() -> None:
    found = metrics.information_ratio(RETURNS, MARKET)
    assert found == pytest.approx(empyrical.excess_sharpe(RETURNS, MARKET) * math.sqrt(252))
    assert metrics.tracking_error(RETURNS, MARKET) == pytest.approx(np.std(RETURNS - MARKET, ddof=1) * math.sqrt(252))


def test_a_benchmark_that_stands_still_explains_nothing() -> None:
    fit = metrics.fit_benchmark(RETURNS, np.full(400, 0.0001))
    assert all(math.isnan(value) for value in (fit.alpha, fit.beta, fit.alpha_t, fit.beta_t, fit.correlation))


def test_a_perfect_fit_has_no_t_statistics_and_no_infinity() -> None:
    fit = metrics.fit_benchmark(2.0 * MARKET, MARKET)
    assert fit.beta == pytest.approx(2.0)
    assert math.isnan(fit.beta_t)
    assert math.isnan(metrics.information_ratio(MARKET, MARKET))
    assert math.isnan(metrics.fit_benchmark(np.zeros(400), MARKET).correlation)


def test_returns_of_no_size_at_all_divide_by_nothing() -> None:
    tiny = np.array([0.0, 9e-85, 0.0])
    fit = metrics.fit_benchmark(tiny, tiny[::-1])
    assert fit.correlation == pytest.approx(1.0)


def test_lengths_that_differ_are_refused() -> None:
    for figure in (metrics.fit_benchmark, metrics.tracking_error, metrics.information_ratio):
        with pytest.raises(ValueError, match="must have the 400 periods"):
            figure(RETURNS, MARKET[:-1])


def test_a_benchmark_is_cut_to_the_bars_it_knows() -> None:
    benchmark = pd.Series(MARKET, INDEX).drop(INDEX[3])
    benchmark.iloc[0] = np.nan
    known = metrics.align_benchmark(benchmark, INDEX[:100])
    assert list(known.index) == [when for place, when in enumerate(INDEX[:100]) if place not in (0, 3)]
    assert known.loc[INDEX[7]] == MARKET[7]


@pytest.mark.parametrize(
    ("benchmark", "said"),
    [
        (pd.Series(MARKET, INDEX - pd.Timedelta(days=4000)), r"at least half of the 400 bars 2020-01-01 .* knows 0"),
        (pd.Series(MARKET, INDEX.normalize()), "its times must equal the closes of the bars"),
        (pd.Series(MARKET[:150], INDEX[:150]), "knows 150"),
        (pd.Series(MARKET[:0], INDEX[:0]), "covers nothing"),
        (pd.Series(MARKET, INDEX.tz_localize(None)), "tz-aware"),
        (pd.Series(MARKET), "RangeIndex"),
        (pd.Series(np.append(MARKET, 0.0), INDEX.append(INDEX[:1])), "unique"),
        (pd.Series(100.0 + MARKET, INDEX), "are these prices"),
        (pd.Series(np.where(np.arange(400) == 5, -1.5, MARKET), INDEX), "not below -1"),
        (pd.Series(np.where(np.arange(400) == 5, np.inf, MARKET), INDEX), "finite"),
    ],
)
def test_a_benchmark_that_cannot_be_compared_is_refused_with_the_reason(benchmark: pd.Series, said: str) -> None:
    with pytest.raises(DataError, match=said):
        metrics.align_benchmark(benchmark, INDEX)
