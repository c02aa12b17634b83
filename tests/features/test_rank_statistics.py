import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from features.rank_statistics import (
    MIN_RANKED,
    Ranked,
    bucket_means,
    centred_ranks,
    mean_error,
    rank_correlation,
    rank_products,
    rank_weights,
    row_moments,
    row_quantiles,
)

CELLS = st.one_of(st.just(math.nan), st.integers(-4, 4).map(float), st.floats(-1e3, 1e3))
TABLES = arrays(np.float64, (6, 7), elements=CELLS)


@given(TABLES)
def test_ranks_are_those_of_pandas_less_their_mean(values: np.ndarray) -> None:
    ranks = pd.DataFrame(values).rank(axis=1, method="average")
    np.testing.assert_allclose(centred_ranks(values), ranks.sub(ranks.mean(axis=1), axis=0), atol=1e-12)


@given(TABLES, TABLES)
def test_rank_correlation_is_scipys_on_the_pairs_known_on_both_sides(x: np.ndarray, y: np.ndarray) -> None:
    found = rank_correlation(Ranked.of(x), Ranked.of(y))
    for row, value in enumerate(found):
        both = ~np.isnan(x[row]) & ~np.isnan(y[row])
        left, right = x[row, both], y[row, both]
        if both.sum() < MIN_RANKED or len(set(left)) < 2 or len(set(right)) < 2:
            assert math.isnan(value)
        else:
            assert value == pytest.approx(stats.spearmanr(left, right).statistic, abs=1e-12)


@given(TABLES, TABLES)
def test_what_the_columns_add_sums_to_the_correlation(x: np.ndarray, y: np.ndarray) -> None:
    products = rank_products(Ranked.of(x), Ranked.of(y))
    found = rank_correlation(Ranked.of(x), Ranked.of(y))
    silent = np.isnan(found)
    assert np.isnan(products[silent]).all()
    np.testing.assert_allclose(np.nansum(products[~silent], axis=1), found[~silent], atol=1e-12)
    assert (np.isnan(products[~silent]) == (np.isnan(x) | np.isnan(y))[~silent]).all()


def test_mean_error_of_independent_values_is_the_plain_one() -> None:
    series = np.array([1.0, 4.0, 2.0, 7.0, 1.0])
    assert mean_error(series, lag=0) == pytest.approx(series.std(ddof=0) / math.sqrt(5))


def test_mean_error_by_hand() -> None:
    # d = -1, 1, 2, -2; g0 = 10/4, g1 = (-1 + 2 - 4)/4; (g0 + 2 * g1/2) / 4 = (10 - 3) / 16
    assert mean_error(np.array([2.0, 4.0, 5.0, 1.0]), lag=1) == pytest.approx(math.sqrt(7.0 / 16.0))


@given(arrays(np.float64, 40, elements=CELLS), st.integers(0, 8))
def test_mean_error_is_newey_and_wests_written_plainly(series: np.ndarray, lag: int) -> None:
    known = [t for t in range(40) if not math.isnan(series[t])]
    n = len(known)
    found = mean_error(series, lag=lag)
    if n <= lag + 1:
        assert math.isnan(found)
        return
    mean = sum(series[t] for t in known) / n
    total = 0.0
    for s in known:
        for t in known:
            if abs(s - t) <= lag:
                total += (1.0 - abs(s - t) / (lag + 1)) * (series[s] - mean) * (series[t] - mean)
    if total > 1e-6:
        assert found == pytest.approx(math.sqrt(total) / n, rel=1e-6)


def test_mean_error_matches_a_regression_on_a_constant_by_statsmodels() -> None:
    series = np.random.default_rng(5).normal(size=400).cumsum()
    for lag in (0, 4, 19):
        fitted = sm.OLS(series, np.ones(400)).fit(cov_type="HAC", cov_kwds={"maxlags": lag})
        assert mean_error(series, lag=lag) == pytest.approx(float(fitted.bse[0]), rel=1e-9)


@pytest.mark.parametrize("series", [[], [math.nan] * 9, [3.0] * 9, [1.0, 2.0]])
def test_mean_error_of_too_little_is_nan(series: list[float]) -> None:
    assert math.isnan(mean_error(np.array(series), lag=1))


@given(TABLES, TABLES)
def test_bucket_means_are_those_of_pandas(x: np.ndarray, labels: np.ndarray) -> None:
    buckets = np.where(np.isnan(x), np.nan, np.abs(np.round(x)) % 3)
    tidy = pd.DataFrame({"row": np.repeat(range(6), 7), "bucket": buckets.ravel(), "label": labels.ravel()}).dropna()
    expected = tidy.groupby(["row", "bucket"])["label"].mean().groupby("bucket").mean().reindex([0.0, 1.0, 2.0])
    np.testing.assert_allclose(bucket_means(buckets, labels, 3), expected, atol=1e-9)


@given(TABLES)
def test_rank_weights_hold_one_unit_long_and_short_together(values: np.ndarray) -> None:
    weights = rank_weights(Ranked.of(values))
    spread = [len(set(row[~np.isnan(row)])) > 1 for row in values]
    assert (np.isnan(weights).all(axis=1) == ~np.array(spread)).all()
    np.testing.assert_allclose(weights[spread].sum(axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.abs(weights[spread]).sum(axis=1), 1.0)
    assert (weights[spread][np.isnan(values[spread])] == 0.0).all()


@given(TABLES)
def test_row_quantiles_are_numpys(values: np.ndarray) -> None:
    levels = np.array([0.0, 0.05, 0.5, 0.9, 1.0])
    for row, found in zip(values, row_quantiles(values, levels), strict=True):
        known = row[~np.isnan(row)]
        expected = np.quantile(known, levels) if len(known) else np.full(5, np.nan)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-9)


@given(arrays(np.float64, (6, 7), elements=st.one_of(st.just(math.nan), st.integers(-9, 9).map(float))))
def test_row_moments_are_those_of_pandas(values: np.ndarray) -> None:
    frame = pd.DataFrame(values)
    mean, std, skew = row_moments(values).T
    np.testing.assert_allclose(mean, frame.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(std, frame.std(axis=1), atol=1e-12)
    uneven = frame.nunique(axis=1) > 1
    np.testing.assert_allclose(skew[uneven], frame.skew(axis=1)[uneven], atol=1e-9)
    assert np.isnan(skew[~uneven]).all()
