"""The figures against quantstats and ffn, where the two mean the same; where they do not, the difference is said and held.

=======================  ===============================================================================================
figure                   known difference
=======================  ===============================================================================================
return a year            quantstats and ffn divide the days between the first and the last date by 365 or 365.25, whatever
                         the bars in a year; ours counts bars
Calmar ratio             follows from the return a year
omega                    quantstats turns a yearly threshold into one of a bar; ours is given per bar; at zero they agree
kurtosis, skewness       quantstats takes pandas' estimates without bias, and the kurtosis as excess over 3
value at risk            quantstats takes the quantile of a normal distribution; ours is historical
expected shortfall       quantstats takes that of a normal distribution; ours is historical
information ratio        quantstats and ffn give that of one bar
drawdown table           quantstats and ffn give calendar days; quantstats ends a drawdown a bar earlier, at the last bar
                         below the high, and dates its start at the first bar below it, as ffn does
=======================  ===============================================================================================
"""

import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from backtest import metrics

RNG = np.random.default_rng(12)
RETURNS = 0.0004 + 0.01 * RNG.standard_t(5, 1500)
MARKET = 0.5 * RETURNS + 0.008 * RNG.standard_normal(1500)
INDEX = pd.bdate_range("2015-01-01", periods=1500, tz="UTC")
SERIES = pd.Series(RETURNS, INDEX.tz_localize(None))
BENCHMARK = pd.Series(MARKET, INDEX.tz_localize(None))
YEAR = math.sqrt(252.0)


def load(name: str) -> Any:
    """Import a peer; what it warns of while it is imported is its own affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} comes with the test extra")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("sharpe_ratio", "sharpe"),
        ("sortino_ratio", "sortino"),
        ("omega_ratio", "omega"),
        ("volatility", "volatility"),
        ("max_drawdown", "max_drawdown"),
        ("total_return", "comp"),
        ("profit_factor", "profit_factor"),
        ("win_rate", "win_rate"),
    ],
)
def test_figures_equal_those_of_quantstats(ours: str, theirs: str) -> None:
    peer = load("quantstats").stats
    assert getattr(metrics, ours)(RETURNS) == pytest.approx(getattr(peer, theirs)(SERIES), rel=1e-10)


def test_figures_against_the_benchmark_equal_those_of_quantstats() -> None:
    peer = load("quantstats").stats
    fit = metrics.fit_benchmark(RETURNS, MARKET)
    theirs = peer.greeks(SERIES, BENCHMARK)
    assert fit.beta == pytest.approx(theirs["beta"], rel=1e-10)
    assert fit.alpha == pytest.approx(theirs["alpha"], rel=1e-10)
    assert metrics.information_ratio(RETURNS, MARKET) / YEAR == pytest.approx(peer.information_ratio(SERIES, BENCHMARK))


def test_shape_and_tail_differ_from_quantstats_as_said() -> None:
    peer = load("quantstats").stats
    assert peer.skew(SERIES) == pytest.approx(stats.skew(RETURNS, bias=False))
    assert peer.kurtosis(SERIES) == pytest.approx(stats.kurtosis(RETURNS, bias=False))
    assert metrics.skewness(RETURNS) == pytest.approx(peer.skew(SERIES), rel=2e-3)
    assert metrics.kurtosis(RETURNS) - 3.0 == pytest.approx(peer.kurtosis(SERIES), rel=1e-2)
    normal = stats.norm.ppf(0.05, RETURNS.mean(), RETURNS.std(ddof=1))
    assert peer.value_at_risk(SERIES) == pytest.approx(normal)
    tail = RETURNS.mean() - RETURNS.std(ddof=1) * stats.norm.pdf(stats.norm.ppf(0.05)) / 0.05
    assert peer.conditional_value_at_risk(SERIES) == pytest.approx(tail)


def test_years_are_counted_in_bars_and_not_in_days() -> None:
    peer = load("quantstats").stats
    days = (SERIES.index[-1] - SERIES.index[0]).days
    growth = 1.0 + metrics.total_return(RETURNS)
    assert metrics.cagr(RETURNS) == pytest.approx(growth ** (252 / 1500) - 1.0)
    assert load("ffn").calc_cagr(100.0 * (1.0 + SERIES).cumprod()) == pytest.approx(
        ((1.0 + SERIES).iloc[1:].prod()) ** (365.25 / days) - 1.0, rel=1e-3
    )
    assert metrics.calmar_ratio(RETURNS) == pytest.approx(metrics.cagr(RETURNS) / -peer.max_drawdown(SERIES))


def test_rolling_sharpe_and_months_equal_those_of_quantstats() -> None:
    peer = load("quantstats").stats
    theirs = peer.rolling_sharpe(SERIES, 0.0, 63).to_numpy()
    np.testing.assert_allclose(metrics.rolling_sharpe(RETURNS, window=63)[62:], theirs[62:], rtol=1e-8)
    table = metrics.compute_monthly_returns(RETURNS, INDEX)
    months = peer.monthly_returns(SERIES).to_numpy(dtype=float)
    np.testing.assert_allclose(table.fillna(0.0).to_numpy()[:, :12], months[:, :12], atol=1e-10)


def test_drawdowns_are_those_of_quantstats_and_ffn() -> None:
    quantstats, ffn = load("quantstats").stats, load("ffn")
    ours = metrics.list_drawdowns(RETURNS, INDEX, count=5)
    theirs = quantstats.drawdown_details(quantstats.to_drawdown_series(SERIES)).sort_values("max drawdown")
    wealth = pd.concat([pd.Series([1.0], [INDEX[0].tz_localize(None) - pd.Timedelta(days=1)]), (1.0 + SERIES).cumprod()])
    others = ffn.drawdown_details(ffn.to_drawdown_series(wealth)).sort_values("drawdown")
    for fall, row, other in zip(ours, theirs.itertuples(index=False), others.itertuples(index=False), strict=False):
        assert fall.depth == pytest.approx(row[4] / 100.0)
        assert fall.depth == pytest.approx(other.drawdown)
        assert fall.trough == pd.Timestamp(row[1], tz="UTC")
        after_peak = INDEX[INDEX.get_loc(fall.peak) + 1]
        assert after_peak == pd.Timestamp(row[0], tz="UTC") == pd.Timestamp(other.Start, tz="UTC")
        if fall.recovery is not None:
            assert fall.recovery == pd.Timestamp(other.End, tz="UTC")
            assert INDEX[INDEX.get_loc(fall.recovery) - 1] == pd.Timestamp(row[2], tz="UTC")


@pytest.mark.parametrize(("ours", "theirs"), [("sharpe_ratio", "calc_sharpe"), ("sortino_ratio", "calc_sortino_ratio")])
def test_ratios_equal_those_of_ffn(ours: str, theirs: str) -> None:
    assert getattr(metrics, ours)(RETURNS) == pytest.approx(getattr(load("ffn"), theirs)(SERIES, nperiods=252), rel=1e-10)


def test_information_ratio_is_that_of_ffn_a_year() -> None:
    assert metrics.information_ratio(RETURNS, MARKET) / YEAR == pytest.approx(
        load("ffn").calc_information_ratio(SERIES, BENCHMARK)
    )
