"""Every indicator against pandas, written from its textbook's definition."""

import warnings

import numpy as np
import pandas as pd
import pytest

from core.errors import ExpressionError, LookAheadError
from features import compute, parse
from features.fields import FIELDS
from features.operators import OPERATORS, SPELLINGS
from features.reader import MAX_SIZE
from features.technical import INDICATORS
from tests.features.panels import build_panel
from tests.features.test_operators import Data, ewma_reference, finite, rolling, true_range

PANEL = build_panel(240, 4, seed=3)


def ewm(frame, halflife):
    return ewma_reference(Data(PANEL.replace(close=frame.to_numpy())), halflife)


def stretch(d, window):
    return d.high.rolling(window).max() - d.low.rolling(window).min()


def typical(d):
    return (d.high + d.low + d.close) / 3


def moves(d):
    """Wilder's upward and downward movement of each bar."""
    up, down = d.high.diff(), -d.low.diff()
    plus = up.where((up > down) & (up > 0), 0.0).where(up.notna() & down.notna())
    minus = down.where((down > up) & (down > 0), 0.0).where(up.notna() & down.notna())
    return plus, minus


def money_flow(d, window):
    change, flow = typical(d).diff(), typical(d) * d.volume
    missing = change.isna() | flow.isna()
    up = flow.where(change > 0, 0.0).mask(missing).rolling(window).sum()
    down = flow.where(change < 0, 0.0).mask(missing).rolling(window).sum()
    return 100 * up / (up + down)


def close_location(d):
    """Place of the close in the range, -1..1; a bar without a range counts as the middle."""
    place = ((d.close - d.low) - (d.high - d.close)) / (d.high - d.low)
    return place.mask(d.high == d.low, 0.0)


def drawdown(frame, window):
    return frame / frame.rolling(window).max() - 1


def age(frame, window, pick):
    return rolling(frame, window, lambda x: pick(x[::-1]))


def mean_over_spread(x):
    return x.mean() / x.std(ddof=1) if np.ptp(x) else np.nan


def mean_over_downside(x):
    losses = x[x < 0]
    return x.mean() / np.sqrt(np.sum(losses**2) / len(x)) if len(losses) else np.nan


CASES = {
    "roc": ("roc(close, 3)", lambda d: d.close.pct_change(3, fill_method=None)),
    "log_return": ("log_return(close, 3)", lambda d: np.log(d.close).diff(3)),
    "momentum": ("momentum(close, 20, 5)", lambda d: d.close.shift(5) / d.close.shift(20) - 1),
    "distance": ("distance(close, 10)", lambda d: d.close / d.close.rolling(10).mean() - 1),
    "macd": (
        "macd(close, 2, 4, 3)",
        lambda d: (ewm(d.close, 2) - ewm(d.close, 4)) - ewm(ewm(d.close, 2) - ewm(d.close, 4), 3),
    ),
    "ppo": ("ppo(close, 2, 4)", lambda d: (ewm(d.close, 2) - ewm(d.close, 4)) / ewm(d.close, 4)),
    "trix": ("trix(close, 2)", lambda d: ewm(ewm(ewm(d.close, 2), 2), 2).pct_change(fill_method=None)),
    "dema": ("dema(close, 3)", lambda d: 2 * ewm(d.close, 3) - ewm(ewm(d.close, 3), 3)),
    "tsi": (
        "tsi(close, 4, 2)",
        lambda d: 100 * ewm(ewm(d.close.diff(), 4), 2) / ewm(ewm(d.close.diff().abs(), 4), 2),
    ),
    "cmo": (
        "cmo(close, 9)",
        lambda d: (
            100
            * (rolling(d.close.diff().clip(lower=0), 9, np.sum) - rolling(-d.close.diff().clip(upper=0), 9, np.sum))
            / rolling(d.close.diff().abs(), 9, np.sum)
        ),
    ),
    "efficiency": ("efficiency(close, 9)", lambda d: d.close.diff(9).abs() / rolling(d.close.diff().abs(), 9, np.sum)),
    "up_share": ("up_share(close, 9)", lambda d: rolling(d.close.diff(), 9, lambda x: np.mean(x > 0))),
    "awesome": (
        "awesome(high, low, 5, 34)",
        lambda d: ((d.high + d.low) / 2).rolling(5).mean() - ((d.high + d.low) / 2).rolling(34).mean(),
    ),
    "bollinger": (
        "bollinger(close, 20)",
        lambda d: (d.close - d.close.rolling(20).mean()) / (2 * d.close.rolling(20).std()),
    ),
    "bollinger_width": (
        "bollinger_width(close, 20)",
        lambda d: 2 * 2 * rolling(d.close, 20, lambda x: np.std(x, ddof=1) if np.ptp(x) else 0) / d.close.rolling(20).mean(),
    ),
    "keltner": (
        "keltner(high, low, close, 9)",
        lambda d: (d.close - d.close.rolling(9).mean()) / (2 * true_range(d).rolling(9).mean()),
    ),
    "stochastic": (
        "stochastic(high, low, close, 14)",
        lambda d: 100 * (d.close - d.low.rolling(14).min()) / stretch(d, 14),
    ),
    "williams_r": (
        "williams_r(high, low, close, 14)",
        lambda d: -100 * (d.high.rolling(14).max() - d.close) / stretch(d, 14),
    ),
    "cci": (
        "cci(high, low, close, 20)",
        lambda d: (
            (typical(d) - typical(d).rolling(20).mean())
            / (0.015 * rolling(typical(d), 20, lambda x: np.mean(np.abs(x - x.mean()))))
        ),
    ),
    "aroon": (
        "aroon(high, low, 14)",
        lambda d: 100 * (14 - age(d.high, 14, np.argmax)) / 14 - 100 * (14 - age(d.low, 14, np.argmin)) / 14,
    ),
    "dmi": (
        "dmi(high, low, close, 14)",
        lambda d: 100 * (moves(d)[0] - moves(d)[1]).rolling(14).sum() / true_range(d).rolling(14).sum(),
    ),
    "adx": (
        "adx(high, low, 14)",
        lambda d: (
            100
            * (
                (moves(d)[0].rolling(14).sum() - moves(d)[1].rolling(14).sum()).abs()
                / (moves(d)[0].rolling(14).sum() + moves(d)[1].rolling(14).sum())
            )
            .rolling(14)
            .mean()
        ),
    ),
    "balance_of_power": ("balance_of_power(open, high, low, close)", lambda d: (d.close - d.open) / (d.high - d.low)),
    "vwma": (
        "vwma(close, volume, 9)",
        lambda d: (d.close * d.volume).rolling(9).sum() / d.volume.where(d.close.notna()).rolling(9).sum(),
    ),
    "relative_volume": ("relative_volume(volume, 9)", lambda d: d.volume / d.volume.rolling(9).mean()),
    "obv_flow": (
        "obv_flow(close, volume, 9)",
        lambda d: (np.sign(d.close.diff()) * d.volume).rolling(9).sum() / d.volume.rolling(9).sum(),
    ),
    "mfi": ("mfi(high, low, close, volume, 14)", lambda d: money_flow(d, 14)),
    "cmf": (
        "cmf(high, low, close, volume, 20)",
        lambda d: (close_location(d) * d.volume).rolling(20).sum() / d.volume.rolling(20).sum(),
    ),
    "illiquidity": (
        "illiquidity(close, dollar_volume, 5)",
        lambda d: rolling(finite(d.close.pct_change(fill_method=None).abs() / (d.close * d.volume)), 5, np.mean),
    ),
    "volatility": (
        "volatility(close, 9)",
        lambda d: rolling(d.returns, 9, lambda x: np.std(x, ddof=1) if np.ptp(x) else 0.0),
    ),
    "natr": ("natr(high, low, close, 9)", lambda d: true_range(d).rolling(9).mean() / d.close),
    "parkinson": (
        "parkinson(high, low, 9)",
        lambda d: rolling(np.log(d.high / d.low), 9, lambda x: np.sqrt(np.sum(x**2) / (4 * 9 * np.log(2)))),
    ),
    "garman_klass": (
        "garman_klass(open, high, low, close, 9)",
        lambda d: np.sqrt(
            rolling(
                0.5 * np.log(d.high / d.low) ** 2 - (2 * np.log(2) - 1) * np.log(d.close / d.open) ** 2,
                9,
                lambda x: max(np.mean(x), 0.0),
            )
        ),
    ),
    "rogers_satchell": (
        "rogers_satchell(open, high, low, close, 9)",
        lambda d: np.sqrt(
            rolling(
                np.log(d.high / d.close) * np.log(d.high / d.open) + np.log(d.low / d.close) * np.log(d.low / d.open),
                9,
                np.mean,
            )
        ),
    ),
    "drawdown": ("drawdown(close, 20)", lambda d: drawdown(d.close, 20)),
    "runup": ("runup(close, 20)", lambda d: d.close / d.close.rolling(20).min() - 1),
    "ulcer": ("ulcer(close, 14)", lambda d: np.sqrt(rolling(drawdown(d.close, 14) ** 2, 14, np.mean))),
    "sharpe": ("sharpe(returns, 20)", lambda d: rolling(d.returns, 20, mean_over_spread)),
    "sortino": (
        "sortino(returns, 20)",
        lambda d: finite(rolling(d.returns, 20, mean_over_downside)),
    ),
    "gain_loss": (
        "gain_loss(returns, 20)",
        lambda d: finite(rolling(d.returns, 20, lambda x: x[x > 0].sum()) / rolling(d.returns, 20, lambda x: -x[x < 0].sum())),
    ),
    "autocorr": (
        "autocorr(returns, 2, 20)",
        lambda d: pd.DataFrame({s: d.returns[s].rolling(20).corr(d.returns[s].shift(2)) for s in d.returns}),
    ),
    "variance_ratio": (
        "variance_ratio(close, 5, 60)",
        lambda d: np.log(d.close).diff(5).rolling(60).var() / (5 * np.log(d.close).diff().rolling(60).var()),
    ),
}


def test_every_indicator_has_a_case():
    assert set(CASES) == set(INDICATORS)


@pytest.mark.parametrize("name", sorted(CASES))
def test_indicator_equals_its_definition(name):
    text, reference = CASES[name]
    assert text.startswith(f"{name}(")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = finite(reference(Data(PANEL)))
    got = compute(text, PANEL)
    known = np.isfinite(got)
    assert known.mean() > 0.3
    # Where a stretch of equal prices leaves no spread, pandas keeps some rounding and ours is NaN.
    flat = slice(PANEL.n_bars // 3, PANEL.n_bars // 3 + 40)
    kept = np.ones(got.shape, dtype=bool)
    kept[flat, 1] = False
    np.testing.assert_array_equal(known[kept], np.isfinite(expected.to_numpy())[kept])
    np.testing.assert_allclose(got[known & kept], expected.to_numpy()[known & kept], rtol=1e-8, atol=1e-10)


def test_an_indicator_is_nothing_but_a_spelling():
    for written, formula in [
        ("bollinger(close, 20)", "ts_zscore(close, 20) / 2"),
        ("roc(close, 5)", "pct_change(close, 5)"),
        ("roc(close, 5)", "close / delay(close, 5) - 1"),
        ("drawdown(returns + 1, 5)", "(1 + returns) / ts_max(returns + 1, 5) - 1"),
        ("rank(sharpe(returns, 20))", "rank(ts_mean(returns, 20) / ts_std(returns, 20))"),
    ]:
        assert parse(written).sha256 == parse(formula).sha256
        assert parse(written).lookback == parse(formula).lookback


def test_lookback_is_that_of_the_formula():
    assert parse("stochastic(high, low, close, 14)").lookback == 13
    assert parse("macd(close, 4, 9, 3)").lookback == 9 * 6 - 1 + 3 * 6 - 1
    assert parse("autocorr(returns, 5, 20)").lookback == 25


def test_the_catalogue_is_large_documented_and_without_double_names():
    names = [*OPERATORS, *SPELLINGS, *INDICATORS, *FIELDS]
    assert len(OPERATORS) + len(INDICATORS) >= 60
    assert len(names) == len({name.lower() for name in names})
    for indicator in INDICATORS.values():
        assert indicator.doc and "\n" not in indicator.doc
        assert indicator.usage == f"{indicator.name}({', '.join(indicator.parameters)})"


def test_sizes_before_anything_is_built_are_never_too_small():
    for name, (text, _) in CASES.items():
        if parse(text).size > 1:
            assert INDICATORS[name].size([1] * len(INDICATORS[name].parameters)) >= parse(text).size, name


def test_the_largest_indicator_fits():
    assert parse("adx(high, low, 14)").size < MAX_SIZE


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("macd(close, 12, 26)", ExpressionError, r"takes 4 arguments, got 3; write macd\(x, fast, slow, signal\)"),
        (
            "macd(close, 12, 26.5, 9)",
            ExpressionError,
            "argument 3 of `macd` at column 0 must be a window written as a whole number",
        ),
        ("drawdown(5, 5)", ExpressionError, "must be a panel"),
        ("drawdown(close > open, 5)", ExpressionError, r"write where\(open < close, 1, 0\)"),
        ("drawdown(close, 2521)", ExpressionError, r"in `drawdown`.*must be in 1..2520, was 2521"),
        ("macd(close, 500, 600, 9)", ExpressionError, r"in `macd`.*argument 2 of `ewma` at column 1 must be in 1..420"),
        ("stochastic(high, low, volume, 5)", ExpressionError, "in `stochastic` at column 0.*joins unlike things"),
        ("drawdown(close, window=5)", ExpressionError, r"positional arguments only; write drawdown\(x, window\)"),
        ("drawdown + 1", ExpressionError, r"is an operator; write drawdown\(x, window\)"),
        ("drawdwn(close, 5)", ExpressionError, r"did you mean drawdown\?"),
        ("roc(close, -1)", LookAheadError, "only positive lags exist"),
        ("autocorr(close, 0, 5)", LookAheadError, "only positive lags exist"),
    ],
)
def test_wrong_calls_are_answered_in_the_indicator_s_own_words(text, error, message):
    with pytest.raises(error, match=message):
        parse(text)
