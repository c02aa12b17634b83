"""Every operator against pandas, NumPy or SciPy, written independently."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from core.market import Panel
from features import compute, parse
from features.operators import OPERATORS
from features.rolling import EWMA_HALFLIVES
from tests.features.panels import build_panel

PANEL = build_panel()
MOOD = PANEL.frame("mood")


class Data:
    """The columns of a panel as DataFrames, and what several references need of them."""

    def __init__(self, panel: Panel) -> None:
        self.close, self.open, self.high, self.low, self.volume, self.mood, self.book = (
            panel.frame(name) for name in ("close", "open", "high", "low", "volume", "mood", "book")
        )
        self.returns = self.close / self.close.shift(1) - 1
        self.known = self.close.notna() & self.open.notna()
        self.market = self.returns.apply(lambda _: self.returns.mean(axis=1))
        self.up = self.close.gt(self.open).astype(float).where(self.known)


def finite(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.where(np.isfinite(frame))


def rolling(frame: pd.DataFrame, window: int, statistic) -> pd.DataFrame:
    """Apply a function to each complete window as an array."""
    return frame.rolling(window).apply(lambda x: statistic(x) if not np.isnan(x).any() else np.nan, raw=True)


def paired(left: pd.DataFrame, right: pd.DataFrame, window: int, statistic) -> pd.DataFrame:
    out = pd.DataFrame(np.nan, index=left.index, columns=left.columns)
    for column in left:
        y, x = left[column].to_numpy(), right[column].to_numpy()
        for t in range(window - 1, len(y)):
            a, b = y[t - window + 1 : t + 1], x[t - window + 1 : t + 1]
            if not (np.isnan(a).any() or np.isnan(b).any()):
                out.loc[out.index[t], column] = statistic(a, b)
    return out


def correlation(a, b):
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return np.corrcoef(a, b)[0, 1]


def beta(a, b):
    return np.nan if np.ptp(b) == 0 else np.cov(a, b)[0, 1] / np.var(b, ddof=1)


def residual(a, b):
    if np.ptp(b) == 0:
        return np.nan
    fit = stats.linregress(b, a)
    return a[-1] - fit.intercept - fit.slope * b[-1]


def varies(function):
    return lambda x: function(x) if np.ptp(x) > 0 else np.nan


def time_rank(x):
    return (stats.rankdata(x)[-1] - 1) / (len(x) - 1)


def row_rank(row):
    n = row.notna().sum()
    return (row.rank() - 1) / (n - 1) if n > 1 else row * 0 + 0.5


def row_zscore(row):
    return (row - row.mean()) / row.std() if row.max() > row.min() else row * np.nan


def row_winsorize(row):
    return row.clip(row.quantile(0.1), row.quantile(0.9))


def rsi_reference(d, window):
    change = d.close.diff()
    up = rolling(change.clip(lower=0), window, np.sum)
    down = rolling((-change).clip(lower=0), window, np.sum)
    return 100 * up / (up + down)


def true_range(d):
    before = d.close.shift(1)
    parts = np.stack([(d.high - d.low).to_numpy(), (d.high - before).abs().to_numpy(), (d.low - before).abs().to_numpy()])
    return pd.DataFrame(parts.max(axis=0), index=d.close.index, columns=d.close.columns)


def ewma_reference(d, halflife):
    weights = 0.5 ** (np.arange(EWMA_HALFLIVES * halflife)[::-1] / halflife)
    return rolling(d.close, len(weights), lambda x: np.average(x, weights=weights))


def row_quantile(row, n):
    """Count the symbols below and the equals, in place of ranks."""
    known = row.dropna()
    out = pd.Series(np.nan, index=row.index)
    for symbol, value in known.items():
        below, equal = (known < value).sum(), (known == value).sum()
        out[symbol] = (n * (2 * below + equal)) // (2 * len(known))
    return out


def row_neutralize(x, factor):
    both = x.notna() & factor.notna()
    out = pd.Series(np.nan, index=x.index)
    if both.any():
        design = np.ones((both.sum(), 1))
        if factor[both].nunique() > 1:
            design = np.column_stack([design, factor[both]])
        out[both] = x[both] - design @ np.linalg.lstsq(design, x[both], rcond=None)[0]
    return out


def by_row(function, left, right):
    return pd.DataFrame([function(left.loc[bar], right.loc[bar]) for bar in left.index], index=left.index)


def row_group_rank(x, group):
    return x.where(group.notna()).groupby(group).transform(row_rank).reindex(x.index)


def trend_line(x):
    fit = stats.linregress(np.arange(len(x)), x)
    return x[-1] - fit.intercept - fit.slope * (len(x) - 1)


def since_true(x):
    return np.flatnonzero(x[::-1])[0] if x.any() else np.nan


def both_masks(d, join):
    left, right = d.up, d.mood.gt(0).astype(float).where(d.mood.notna())
    return join(left == 1, right == 1).astype(float).where(left.notna() & right.notna())


CASES = {
    "and": ("where((close > open) and (mood > 0), 1, 0)", lambda d: both_masks(d, np.logical_and)),
    "or": ("where((close > open) or (mood > 0), 1, 0)", lambda d: both_masks(d, np.logical_or)),
    "not": ("ts_count(not (close > open and mood > 0), 1)", lambda d: 1 - both_masks(d, np.logical_and)),
    "known": ("where(known(close), 1, 0)", lambda d: d.close.notna().astype(float)),
    "coalesce": ("coalesce(close, mood)", lambda d: d.close.fillna(d.mood)),
    "exp": ("exp(mood)", lambda d: d.mood.map(math.exp)),
    "tanh": ("tanh(mood)", lambda d: d.mood.map(math.tanh)),
    "ffill": ("ffill(close, 3)", lambda d: d.close.ffill(limit=3)),
    "cs_mean": ("cs_mean(returns)", lambda d: d.market),
    "quantile": ("quantile(mood, 4)", lambda d: d.mood.apply(row_quantile, axis=1, n=4)),
    "neutralize": ("neutralize(returns, mood)", lambda d: by_row(row_neutralize, d.returns, d.mood)),
    "group_neutralize": (
        "group_neutralize(returns, mood)",
        lambda d: by_row(lambda x, group: x - x.groupby(group).transform("mean"), d.returns, d.mood),
    ),
    "group_rank": ("group_rank(returns, sign(mood))", lambda d: by_row(row_group_rank, d.returns, np.sign(d.mood))),
    "ts_prod": ("ts_prod(1 + returns, 13)", lambda d: rolling(1 + d.returns, 13, np.prod)),
    "ts_mad": ("ts_mad(close, 10)", lambda d: rolling(d.close, 10, lambda x: np.mean(np.abs(x - np.mean(x))))),
    "ts_rsquare": (
        "ts_rsquare(close, 11)",
        lambda d: rolling(d.close, 11, varies(lambda x: stats.linregress(np.arange(11), x).rvalue ** 2)),
    ),
    "ts_detrend": ("ts_detrend(close, 11)", lambda d: rolling(d.close, 11, trend_line)),
    "bars_since": ("bars_since(close > open, 3)", lambda d: rolling(d.up, 3, since_true)),
    "+": ("close + open", lambda d: d.close + d.open),
    "-": ("close - 2 * open", lambda d: d.close - 2 * d.open),
    "*": ("close * open", lambda d: d.close * d.open),
    "/": ("close / volume", lambda d: finite(d.close / d.volume)),
    "unary -": ("-close", lambda d: -d.close),
    "<": ("where(close < open, 1, 0)", lambda d: (d.close < d.open).astype(float).where(d.known)),
    "<=": ("where(mood <= book, 1, 0)", lambda d: d.mood.le(d.book).astype(float).where(d.mood.notna() & d.book.notna())),
    "==": ("where(mood == 0, 1, 0)", lambda d: (d.mood == 0).astype(float).where(d.mood.notna())),
    "!=": (
        "where(mood != delay(mood, 1), 1, 0)",
        lambda d: d.mood.ne(d.mood.shift(1)).astype(float).where(d.mood.diff().notna()),
    ),
    "abs": ("abs(returns)", lambda d: d.returns.abs()),
    "log": ("log(volume)", lambda d: np.log(d.volume.where(d.volume > 0))),
    "sqrt": ("sqrt(mood)", lambda d: np.sqrt(d.mood.where(d.mood >= 0))),
    "sign": ("sign(mood)", lambda d: np.sign(d.mood)),
    "power": ("power(returns, 0.5)", lambda d: np.sqrt(d.returns.where(d.returns >= 0))),
    "signed_power": ("signed_power(mood, 1.5)", lambda d: np.sign(d.mood) * d.mood.abs() ** 1.5),
    "min": ("min(close, open)", lambda d: d.close.where(d.close < d.open, d.open).where(d.known)),
    "max": ("max(close, 50)", lambda d: d.close.where(~(d.close < 50), 50.0)),
    "clip": ("clip(mood, -1, 2)", lambda d: d.mood.clip(-1, 2)),
    "where": ("where(close > open, high, -low)", lambda d: d.high.where(d.close > d.open, -d.low).where(d.known)),
    "rank": ("rank(mood)", lambda d: d.mood.apply(row_rank, axis=1)),
    "zscore": ("zscore(close)", lambda d: d.close.apply(row_zscore, axis=1)),
    "demean": ("demean(close)", lambda d: d.close.sub(d.close.mean(axis=1), axis=0)),
    "scale": (
        "scale(mood * returns)",
        lambda d: (d.mood * d.returns).div((d.mood * d.returns).abs().sum(axis=1).replace(0, np.nan), axis=0),
    ),
    "winsorize": ("winsorize(close, 0.1)", lambda d: d.close.apply(row_winsorize, axis=1)),
    "delay": ("delay(close, 3)", lambda d: d.close.shift(3)),
    "delta": ("delta(close, 3)", lambda d: d.close - d.close.shift(3)),
    "pct_change": ("pct_change(volume, 2)", lambda d: finite(d.volume / d.volume.shift(2) - 1)),
    "ts_sum": ("ts_sum(returns, 13)", lambda d: rolling(d.returns, 13, np.sum)),
    "ts_mean": ("ts_mean(close, 21)", lambda d: d.close.rolling(21).mean()),
    "ts_min": ("ts_min(close, 7)", lambda d: d.close.rolling(7).min()),
    "ts_max": ("ts_max(close, 8)", lambda d: d.close.rolling(8).max()),
    "ts_var": (
        "ts_var(returns, 21)",
        lambda d: rolling(d.returns, 21, varies(lambda x: np.var(x, ddof=1))).fillna(flat_zero(d.returns, 21)),
    ),
    "ts_std": ("ts_std(close, 10)", lambda d: rolling(d.close, 10, lambda x: np.std(x, ddof=1) if np.ptp(x) > 0 else 0.0)),
    "ts_zscore": ("ts_zscore(close, 10)", lambda d: rolling(d.close, 10, varies(lambda x: (x[-1] - x.mean()) / x.std(ddof=1)))),
    "ts_skew": ("ts_skew(returns, 21)", lambda d: rolling(d.returns, 21, varies(lambda x: stats.skew(x, bias=False)))),
    "ts_kurt": ("ts_kurt(returns, 21)", lambda d: rolling(d.returns, 21, varies(lambda x: stats.kurtosis(x, bias=False)))),
    "ts_median": ("ts_median(close, 9)", lambda d: rolling(d.close, 9, np.median)),
    "ts_quantile": ("ts_quantile(mood, 9, 0.3)", lambda d: rolling(d.mood, 9, lambda x: np.quantile(x, 0.3))),
    "ts_rank": ("ts_rank(mood, 9)", lambda d: rolling(d.mood, 9, time_rank)),
    "ts_argmin": ("ts_argmin(mood, 9)", lambda d: rolling(d.mood, 9, lambda x: np.argmin(x[::-1]))),
    "ts_argmax": ("ts_argmax(close, 9)", lambda d: rolling(d.close, 9, lambda x: np.argmax(x[::-1]))),
    "ts_count": ("ts_count(close > open, 6)", lambda d: rolling(d.up, 6, np.sum)),
    "ts_cov": ("ts_cov(returns, close, 12)", lambda d: paired(d.returns, d.close, 12, lambda a, b: np.cov(a, b)[0, 1])),
    "ts_corr": ("ts_corr(returns, close, 12)", lambda d: paired(d.returns, d.close, 12, correlation)),
    "ts_beta": ("ts_beta(returns, mood, 12)", lambda d: paired(d.returns, d.mood, 12, beta)),
    "ts_resid": ("ts_resid(returns, mood, 12)", lambda d: paired(d.returns, d.mood, 12, residual)),
    "ts_slope": ("ts_slope(close, 11)", lambda d: rolling(d.close, 11, lambda x: stats.linregress(np.arange(11), x).slope)),
    "decay_linear": (
        "decay_linear(close, 11)",
        lambda d: rolling(d.close, 11, lambda x: np.average(x, weights=np.arange(1, 12))),
    ),
    "ewma": ("ewma(close, 4)", lambda d: ewma_reference(d, 4)),
    "rsi": ("rsi(close, 5)", lambda d: rsi_reference(d, 5)),
    "atr": ("atr(high, low, close, 6)", lambda d: true_range(d).rolling(6).mean()),
}


def flat_zero(frame: pd.DataFrame, window: int) -> pd.DataFrame:
    """Zero where a complete window has no spread, else NaN."""
    return rolling(frame, window, lambda x: 0.0 if np.ptp(x) == 0 else np.nan)


def assert_same(got: np.ndarray, expected: pd.DataFrame, *, near_zero: float = 0.0) -> None:
    np.testing.assert_allclose(got, expected.to_numpy(dtype=float), rtol=1e-10, atol=near_zero, equal_nan=True)


def test_every_operator_has_a_case():
    assert set(CASES) == set(OPERATORS)
    assert len(OPERATORS) >= 60


@pytest.mark.parametrize("name", sorted(CASES))
def test_operator_equals_an_independent_computation(name):
    text, reference = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = reference(Data(PANEL))
    got = compute(text, PANEL)
    assert got.flags.c_contiguous
    assert not np.isinf(got).any()
    assert np.isfinite(got).sum() > 0.5 * got.size or name in {"sqrt", "power"}
    # Differences of nearly equal numbers: the scale of the inputs, not of the result, sets the rounding.
    typical = float(np.nanmedian(np.abs(got)))
    assert_same(got, expected, near_zero=1e-11 * typical)


@st.composite
def small_panels(draw) -> Panel:
    """Few bars, few values (so ties and flat stretches), and gaps."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(1, 30)), draw(st.integers(1, 4))
    levels = draw(st.integers(1, 5))
    gaps = draw(st.sampled_from([0.0, 0.05, 0.5]))

    def column(lowest: int) -> np.ndarray:
        values = lowest + rng.integers(0, levels, shape).astype(float)
        values[rng.random(shape) < gaps] = np.nan
        return values

    open_, close = column(1), column(1)
    return Panel(
        index=PANEL.index[: shape[0]],
        symbols=PANEL.symbols[: shape[1]],
        close=close,
        open=open_,
        high=np.fmax(open_, close),
        low=np.fmin(open_, close),
        volume=column(0),
        extra={"mood": column(-2), "book": column(-1)},
    )


@pytest.mark.parametrize("name", sorted(CASES))
@given(panel=small_panels())
@settings(max_examples=8, deadline=None)
def test_operator_equals_an_independent_computation_on_any_small_panel(name, panel):
    text, reference = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = reference(Data(panel))
    assert_same(compute(text, panel), expected, near_zero=1e-9)


@pytest.mark.parametrize("name", sorted(CASES))
def test_operator_gives_the_same_bits_wherever_the_data_are_cut(name):
    expression = parse(CASES[name][0], extra=("mood", "book"))
    whole = compute(expression, PANEL)
    for start, end in ((0, 333), (100, 457), (201, 700), (7, 8 + expression.lookback)):
        first = start + expression.lookback if start else 0
        np.testing.assert_array_equal(compute(expression, PANEL.slice(start, end))[first - start :], whole[first:end])


def one_bar(**columns: list[float]) -> Panel:
    arrays = {name: np.array([values], dtype=float) for name, values in columns.items()}
    n = len(next(iter(columns.values())))
    return Panel(index=PANEL.index[:1], symbols=tuple("ABCDEFGH"[:n]), close=np.ones((1, n)), extra=arrays)


def one_symbol(**columns: list[float]) -> Panel:
    arrays = {name: np.array([values], dtype=float).T for name, values in columns.items()}
    n = len(next(iter(columns.values())))
    return Panel(index=PANEL.index[:n], symbols=("A",), close=np.ones((n, 1)), extra=arrays)


def test_buckets_by_hand():
    panel = one_bar(x=[5, 1, 2, 3, 4, np.nan])
    np.testing.assert_array_equal(compute("quantile(x, 5)", panel), [[4, 0, 1, 2, 3, np.nan]])
    np.testing.assert_array_equal(compute("quantile(x, 2)", panel), [[1, 0, 0, 1, 1, np.nan]])
    ties = one_bar(x=[7, 7, 7, 7])
    np.testing.assert_array_equal(compute("quantile(x, 4)", ties), [[2, 2, 2, 2]])
    alone = one_bar(x=[np.nan, 3])
    np.testing.assert_array_equal(compute("quantile(x, 10)", alone), [[np.nan, 5]])


def test_groups_by_hand():
    panel = one_bar(x=[1, 3, 10, np.nan, 5, 6], g=[1, 1, 2, 2, np.nan, 1])
    np.testing.assert_allclose(compute("group_neutralize(x, g)", panel), [[-7 / 3, -1 / 3, 0, np.nan, np.nan, 8 / 3]])
    np.testing.assert_array_equal(compute("group_rank(x, g)", panel), [[0, 0.5, 0.5, np.nan, np.nan, 1]])


def test_neutralizing_by_a_factor_without_spread_takes_the_mean_away():
    panel = one_bar(x=[1, 2, 6, 9], f=[0.1, 0.1, 0.1, np.nan])
    np.testing.assert_array_equal(compute("neutralize(x, f)", panel), [[-2, -1, 3, np.nan]])


def test_the_mean_of_the_bar_is_given_to_symbols_without_a_value():
    np.testing.assert_array_equal(compute("cs_mean(x)", one_bar(x=[1, np.nan, 3])), [[2, 2, 2]])
    assert np.isnan(compute("cs_mean(x)", one_bar(x=[np.nan, np.nan]))).all()


def test_filling_reaches_back_so_many_bars_and_no_further():
    panel = one_symbol(x=[np.nan, 1, np.nan, np.nan, np.nan, 2])
    np.testing.assert_array_equal(compute("ffill(x, 2)", panel)[:, 0], [np.nan, 1, 1, 1, np.nan, 2])


def test_bars_since_by_hand():
    panel = one_symbol(x=[1, 0, 0, 0, 1, 1, np.nan, 0])
    np.testing.assert_array_equal(
        compute("bars_since(x > 0, 3)", panel)[:, 0], [np.nan, np.nan, 2, np.nan, 0, 0, np.nan, np.nan]
    )


def test_masks_are_unknown_where_any_part_is():
    panel = one_symbol(x=[1, 1, 0, 0, np.nan, np.nan], y=[1, 0, 1, 0, 1, 0])
    both, either, turned = compute(
        ["where((x > 0) and (y > 0), 1, 0)", "where((x > 0) or (y > 0), 1, 0)", "where(not (x > 0), 1, 0)"], panel
    )[:, :, 0]
    np.testing.assert_array_equal(both, [1, 0, 0, 0, np.nan, np.nan])
    np.testing.assert_array_equal(either, [1, 1, 1, 0, np.nan, np.nan])
    np.testing.assert_array_equal(turned, [0, 0, 1, 1, np.nan, np.nan])


@pytest.mark.parametrize("window", [1, 2, 3, 31, 32, 33, 64, 100])
def test_sums_and_extremes_are_right_for_every_shape_of_window(window):
    for name in ("sum", "min", "max"):
        expected = getattr(MOOD.rolling(window), name)()
        assert_same(compute(f"ts_{name}(mood, {window})", PANEL), expected)


@pytest.mark.parametrize("window", [5, 8, 31, 64, 127])
def test_moments_are_right_for_every_shape_of_window(window):
    clean = build_panel(300, 3, gaps=False)
    returns = pd.DataFrame(compute("returns", clean))
    for name in ("std", "skew", "kurt"):
        expected = getattr(returns.rolling(window), name)()
        got = compute(f"ts_{name}(returns, {window})", clean)
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "text",
    [
        "ts_mean({}, 10)",
        "ts_std({}, 10)",
        "ts_skew({}, 10)",
        "ts_corr({}, mood, 10)",
        "ts_slope({}, 10)",
        "decay_linear({}, 10)",
        "ts_zscore({}, 10)",
        "ts_resid({}, mood, 10)",
        "ewma({}, 2)",
        "ts_rsquare({}, 10)",
        "ts_detrend({}, 10)",
        "ts_mad({}, 10)",
        "ts_prod({}, 10)",
        "ts_quantile({}, 10, 0.3)",
    ],
)
def test_a_huge_value_leaves_no_trace_once_it_is_out_of_the_window(text):
    quiet = PANEL.frame("book").to_numpy().copy()
    loud = quiet.copy()
    loud[100] = 1e15

    def run(values):
        panel = Panel(
            index=PANEL.index, symbols=PANEL.symbols, close=PANEL.close, extra={"x": values, "mood": PANEL.get("mood")}
        )
        return compute(text.format("x"), panel)

    np.testing.assert_array_equal(run(loud)[112:], run(quiet)[112:])


@pytest.mark.parametrize("value", [0.1, 1e-9, 12345.678, -3.3])
def test_a_constant_window_has_exactly_no_spread(value):
    flat = np.full((60, 2), value)
    panel = Panel(index=PANEL.index[:60], symbols=("A", "B"), close=np.ones((60, 2)), extra={"x": flat})
    assert (compute("ts_std(x, 21)", panel)[20:] == 0.0).all()
    assert (compute("ts_slope(x, 21)", panel)[20:] == 0.0).all()
    assert (compute("ts_mad(x, 21)", panel)[20:] == 0.0).all()
    assert (compute("ts_detrend(x, 21)", panel)[20:] == 0.0).all()
    assert np.isnan(compute("ts_rsquare(x, 21)", panel)).all()
    for text in ("ts_zscore(x, 21)", "ts_skew(x, 21)", "ts_kurt(x, 21)", "ts_corr(x, x, 21)", "ts_beta(x, x, 21)", "zscore(x)"):
        assert np.isnan(compute(text, panel)).all(), text


def test_a_window_with_a_gap_is_nan_until_the_gap_has_left():
    got = compute("ts_mean(book, 4)", _with_gap(10))
    assert np.isnan(got[10:14]).all()
    assert np.isfinite(got[14:]).all()
    assert np.isfinite(got[3:10]).all()


def _with_gap(bar: int) -> Panel:
    book = PANEL.get("book")[:30].copy()
    book[bar] = np.nan
    return Panel(index=PANEL.index[:30], symbols=PANEL.symbols, close=np.ones_like(book), extra={"book": book})


def test_windows_longer_than_the_data_are_nan():
    short = PANEL.slice(0, 5)
    for text in (
        "ts_mean(close, 9)",
        "ts_std(close, 9)",
        "ts_rank(close, 9)",
        "ts_quantile(close, 9, 0.5)",
        "delay(close, 9)",
        "ts_corr(close, open, 9)",
        "ts_argmax(close, 9)",
        "ewma(close, 9)",
    ):
        assert np.isnan(compute(text, short)).all(), text


@pytest.mark.parametrize(
    "text",
    [
        "close / (close - close)",
        "log(close - close)",
        "pct_change(close - close, 1)",
        "power(close - close, -1)",
        "exp(returns * 0 + 1000)",
        "ts_prod(returns * 0 + 100000, 100)",
        "power(close * 1000000, 300)",
        "scale(close - close)",
    ],
)
def test_nothing_is_ever_infinite(text):
    assert np.isnan(compute(text, PANEL)).all()


def test_infinite_input_counts_as_missing():
    close = PANEL.close[:20].copy()
    close[5] = np.inf
    panel = Panel(index=PANEL.index[:20], symbols=PANEL.symbols, close=close)
    assert np.isnan(compute("close", panel)[5]).all()
    assert np.isnan(compute("returns", panel)[5:7]).all()


def test_rank_of_a_symbol_that_is_alone_is_one_half():
    close = np.full((2, 3), np.nan)
    close[0, 1] = 7.0
    panel = Panel(index=PANEL.index[:2], symbols=("A", "B", "C"), close=close)
    np.testing.assert_array_equal(compute("rank(close)", panel), [[np.nan, 0.5, np.nan], [np.nan] * 3])


def test_rank_by_hand_with_ties_and_a_gap():
    panel = Panel(index=PANEL.index[:1], symbols=tuple("ABCDE"), close=np.array([[3.0, 1.0, 3.0, np.nan, 9.0]]))
    np.testing.assert_allclose(compute("rank(close)", panel), [[0.5, 0.0, 0.5, np.nan, 1.0]])


def test_where_looks_at_the_chosen_branch_only():
    panel = PANEL.slice(0, 50)
    got = compute("where(volume >= 0, 1, delay(close, 40))", panel)
    assert (got[np.isfinite(panel.get("volume"))] == 1.0).all()
    assert np.isnan(got[np.isnan(panel.get("volume"))]).all()


def test_every_operator_has_one_line_of_documentation():
    for operator in OPERATORS.values():
        assert operator.doc and "\n" not in operator.doc
        assert operator.usage
