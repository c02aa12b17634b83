"""The compiled rolling statistics: the same bits wherever the data are cut, in time and across symbols."""

import numpy as np
import pytest
from scipy import stats

from core.market import Panel
from features import compute, join_program, parse
from features.crosssection import MOST_COMPARED, group_rank, quantile, rank
from features.rolling import STATISTICS, compute_windows
from tests.features.panels import build_panel

# Longer than a stretch of bars, and one symbol more than a strip of columns, of the kernels.
PANEL = build_panel(1300, 9, seed=8)
ALONG_TIME = [
    "ts_sum(mood, {})",
    "ts_prod(book, {})",
    "ts_max(close, {})",
    "ts_min(close, {})",
    "ts_var(close, {})",
    "ts_zscore(close, {})",
    "ts_skew(returns, {})",
    "ts_kurt(returns, {})",
    "ts_cov(returns, mood, {})",
    "ts_corr(returns, mood, {})",
    "ts_beta(returns, mood, {})",
    "ts_resid(returns, mood, {})",
    "ts_slope(close, {})",
    "ts_rsquare(close, {})",
    "ts_detrend(close, {})",
    "decay_linear(close, {})",
    "ts_quantile(mood, {}, 0.3)",
    "ts_rank(mood, {})",
    "ts_mad(mood, {})",
    "ts_argmax(mood, {})",
    "ffill(close, {})",
]


@pytest.mark.parametrize("window", [4, 5, 21, 64, 127, 253, 700])
@pytest.mark.parametrize("text", [*ALONG_TIME, "ewma(close, {})"])
def test_the_same_bits_come_out_wherever_the_data_are_cut(text, window):
    expression = parse(text.format(window if "ewma" not in text else max(window // 6, 1)), extra=tuple(PANEL.extra))
    whole = compute(expression, PANEL)
    for start in (1, 333, 511):
        stop = start + expression.lookback + 70
        cut = compute(expression, PANEL.slice(start, stop))
        np.testing.assert_array_equal(cut[expression.lookback :], whole[start + expression.lookback : stop])
    for symbols in (PANEL.symbols[3:4], PANEL.symbols[8:], PANEL.symbols[::-1]):
        columns = [PANEL.symbols.index(symbol) for symbol in symbols]
        np.testing.assert_array_equal(compute(expression, PANEL.select(symbols)), whole[:, columns])


def test_statistics_computed_together_have_the_bits_of_each_alone():
    y, x = PANEL.returns(), PANEL.get("mood")
    asked = [(name, (window,)) for window in (21, 4, 700, 63, 5, 4) for name in STATISTICS]
    for (name, numbers), got in zip(asked, compute_windows(asked, y, x), strict=True):
        np.testing.assert_array_equal(got, compute_windows([(name, numbers)], y, x)[0], err_msg=name)


def test_quantiles_computed_together_have_the_bits_of_each_alone():
    texts = [f"ts_quantile(mood, {window}, {level})" for level in (0.0, 0.3, 0.5, 1.0) for window in (1, 5, 64)]
    for text, got in zip(texts, compute(texts, PANEL), strict=True):
        np.testing.assert_array_equal(got, compute(text, PANEL), err_msg=text)


def test_a_window_of_ten_years_is_right():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2600, 2))
    index = build_panel(2600, 1, gaps=False).index
    panel = Panel(index=index, symbols=("A", "B"), close=np.exp(x), extra={"x": x})
    np.testing.assert_allclose(compute("ts_std(x, 2520)", panel)[2519], x[:2520].std(axis=0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(compute("ts_kurt(x, 2520)", panel)[-1], stats.kurtosis(x[80:], bias=False), rtol=1e-10)
    np.testing.assert_allclose(compute("ts_median(x, 2520)", panel)[-1], np.median(x[80:], axis=0), rtol=1e-15)


def test_many_symbols_are_ranked_as_few_are():
    rng = np.random.default_rng(2)
    x = rng.integers(0, 50, (7, MOST_COMPARED + 40)).astype(float)
    x[rng.random(x.shape) < 0.1] = np.nan
    few = x[:, :MOST_COMPARED]
    for values in (x, few):
        for bar, got, bucket in zip(values, rank(values), quantile(values, 5.0), strict=True):
            known = ~np.isnan(bar)
            places = stats.rankdata(bar[known])
            np.testing.assert_array_equal(got[known], (places - 1) / (known.sum() - 1))
            np.testing.assert_array_equal(bucket[known], np.floor(5 * (2 * places - 1) / (2 * known.sum())))
            assert np.isnan(got[~known]).all()
            assert np.isnan(bucket[~known]).all()


def test_ranks_in_one_group_are_ranks():
    mood = PANEL.get("mood")
    np.testing.assert_array_equal(group_rank(mood, np.ones(mood.shape)), rank(mood))


def test_operations_keep_their_numbers_or_the_machine_is_compiled_anew():
    # numba keeps what it compiled as long as the file of the machine, features/joins.py, stays as it is: whoever gives an
    # operation another number must change that file too, or the kept machine does something else.
    names = """LOAD POSITION CONSTANT STORE SUM LOWEST PICK STEP TREND PRODUCTS THIRD FOURTH DIVIDE_BY ROOT RATIO OVER_SPREAD
        SUBTRACT PRODUCT TIMES OFFSET LIMIT SINCE CARRY FINITE FINITE_SUM FINITE_DIFFERENCE FINITE_PRODUCT FINITE_RATIO
        MAGNITUDE LESS AT_MOST"""
    assert [getattr(join_program, name) for name in names.split()] == list(range(31))
