import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from core.errors import DataError, ExpressionError, LookAheadError, ShapeError
from core.market import Panel
from features import FeatureStream, check_feature, check_leaks, compute, explain, parse
from features.analogues import QUANTILES, forecast_analogues
from features.encoders import get_encoder
from features.labels import forward_returns
from features.nearest_windows import find_analogues, round_vectors
from features.windows import steady_windows


def draw_windows(seed: int, n_bars: int, n_symbols: int, dims: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return random vectors with the ends and symbols of one window a bar and symbol, shuffled."""
    rng = np.random.default_rng(seed)
    end, symbol = np.divmod(rng.permutation(n_bars * n_symbols), n_symbols)
    return rng.standard_normal((len(end), dims)).astype(np.float32), end, symbol


def walk(seed: int, n_bars: int, n_assets: int, start: str = "2015-01-01") -> Panel:
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(0.01 * rng.standard_normal((n_bars, n_assets)), axis=0))
    index = pd.bdate_range(start, periods=n_bars, tz="UTC")
    return Panel(index=index, symbols=tuple("ABCDEFGH"[:n_assets]), close=close)


def nearest_by_hand(vectors, end, query, *, k, reach, usable=None, max_age=None, spacing=1):
    """Take windows one by one; None if there are too few."""
    rounded = round_vectors(vectors).astype(np.int64)
    candidates = []
    for j in range(len(end)):
        age = end[query] - end[j]
        if age <= reach or age % spacing or (max_age is not None and age > max_age) or not rounded[j].any():
            continue
        if usable is None or usable[j]:
            candidates.append((-int(rounded[j] @ rounded[query]), -end[j], j))
    return [j for _, _, j in sorted(candidates)[:k]] if len(candidates) >= k else None


@pytest.mark.parametrize(("max_age", "spacing"), [(None, 1), (17, 1), (None, 3), (20, 4)])
def test_neighbours_are_those_found_one_by_one(max_age, spacing):
    vectors, end, _ = draw_windows(1, n_bars=40, n_symbols=3)
    usable = np.random.default_rng(2).random(len(end)) < 0.8
    vectors[5] = np.nan
    vectors[7] = vectors[90]
    options = {"k": 4, "reach": 3, "usable": usable, "max_age": max_age, "spacing": spacing}
    found, n_eligible = find_analogues(vectors, end, **options)
    assert (found[5] == -1).all()
    for query in set(range(len(end))) - {5}:
        expected = nearest_by_hand(vectors, end, query, **options)
        assert found[query].tolist() == ([-1] * 4 if expected is None else expected)
        assert (n_eligible[query] >= 4) == (expected is not None)


def test_similarity_is_the_cosine_up_to_the_rounding():
    vectors, end, _ = draw_windows(3, n_bars=60, n_symbols=4, dims=320)
    found, _ = find_analogues(vectors, end, k=10, reach=2)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit.astype(np.float64) @ unit.T.astype(np.float64)
    for query in np.flatnonzero(end == 50):
        eligible = np.flatnonzero(end + 2 < 50)
        best = np.sort(cosine[query, eligible])[::-1][:10]
        np.testing.assert_allclose(cosine[query, found[query]], best, atol=5e-4)


def test_products_of_rounded_vectors_are_exact_in_float32():
    rng = np.random.default_rng(4)
    for dims in (1, 2, 320, 384):
        rounded = round_vectors(np.vstack([rng.standard_normal((50, dims)), np.ones((1, dims)), np.eye(dims)[:1]]))
        wide = rounded.astype(np.int64)
        assert (np.abs(wide) @ np.abs(wide).T).max() < 2**24
        assert ((rounded.astype(np.float32) @ rounded.astype(np.float32).T).astype(np.int64) == wide @ wide.T).all()


@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 6),
    horizon=st.integers(1, 7),
    delay=st.integers(1, 3),
    max_age=st.none() | st.integers(1, 40),
    spacing=st.integers(1, 6),
)
@settings(max_examples=60, deadline=None)
def test_no_label_of_a_neighbour_ends_at_or_after_the_window_that_asks(seed, k, horizon, delay, max_age, spacing):
    vectors, end, _ = draw_windows(seed, n_bars=30, n_symbols=2, dims=3)
    found, n_eligible = find_analogues(vectors, end, k=k, reach=horizon + delay, max_age=max_age, spacing=spacing)
    rows = found[:, -1] >= 0
    assert (rows == (n_eligible >= k)).all()
    age = end[rows, None] - end[found[rows]]
    assert (age > horizon + delay).all()
    assert (age % spacing == 0).all()
    assert max_age is None or (age <= max_age).all()
    assert all(len(set(row)) == k for row in found[rows].tolist())


@given(seed=st.integers(0, 10_000), cut=st.integers(1, 59), threads=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_the_past_is_the_same_bits_when_later_windows_are_added(seed, cut, threads):
    vectors, end, symbol = draw_windows(seed, n_bars=60, n_symbols=3)
    vectors[::7] = vectors[0]  # many that are equally near
    labels = np.random.default_rng(seed).standard_normal(len(end))
    whole = forecast_analogues(vectors, labels, end, symbol, k=5, horizon=4, threads=threads)
    early = np.flatnonzero(end <= cut)
    known = np.where(end[early] + 5 <= cut, labels[early], np.nan)
    part = forecast_analogues(vectors[early], known, end[early], symbol[early], k=5, horizon=4)
    there = part.neighbours[:, -1] >= 0
    np.testing.assert_array_equal(there, whole.neighbours[early, -1] >= 0)
    np.testing.assert_array_equal(early[part.neighbours[there]], whole.neighbours[early][there])
    np.testing.assert_array_equal(part.mean, whole.mean[early])
    np.testing.assert_allclose(part.t_stat, whole.t_stat[early], rtol=1e-9)


def test_the_distribution_and_its_t_statistic_are_those_written_plainly():
    rng = np.random.default_rng(5)
    vectors, end, symbol = draw_windows(5, n_bars=80, n_symbols=4)
    common = rng.standard_normal(80)
    labels = 0.3 + 0.7 * common[end] + rng.standard_normal(len(end))
    labels[rng.random(len(end)) < 0.1] = np.nan
    k, horizon, delay = 12, 5, 2
    found = forecast_analogues(vectors, labels, end, symbol, k=k, horizon=horizon, delay=delay)
    query = int(np.flatnonzero(end == 77)[0])
    pool = np.flatnonzero((end + horizon + delay < 77) & np.isfinite(labels))
    chosen = nearest_by_hand(vectors, end, query, k=k, reach=horizon + delay, usable=np.isfinite(labels))
    assert found.neighbours[query].tolist() == chosen
    assert found.n_eligible[query] == len(pool)
    centred = labels - labels[pool].mean()
    products = [centred[i] * centred[j] for i in pool for j in pool if i != j and end[i] == end[j]]
    alike = max(0.0, np.mean(products) / labels[pool].var())
    rho = np.array(
        [
            [max(0.0, 1.0 - abs(end[i] - end[j]) / horizon) * (1.0 if symbol[i] == symbol[j] else alike) for i in chosen]
            for j in chosen
        ]
    )
    np.fill_diagonal(rho, 1.0)
    y = labels[chosen]
    effective = k**2 / rho.sum()
    variance = ((y - y.mean()) ** 2).sum() / (k - k / effective)
    t = (y.mean() - labels[pool].mean()) / np.sqrt(variance / effective * (1.0 - k / len(pool)))
    assert found.n_effective[query] == pytest.approx(effective)
    assert found.t_stat[query] == pytest.approx(t)
    centring = np.eye(k) - 1.0 / k
    moved = centring @ rho @ centring
    freedom = np.trace(moved) ** 2 / np.trace(moved @ moved)
    assert found.p_value[query] == pytest.approx(2.0 * stats.t.sf(abs(t), freedom))
    assert found.mean[query] == pytest.approx(y.mean())
    assert found.spread[query] == pytest.approx(y.std(ddof=1))
    assert found.share_positive[query] == (y > 0).mean()
    np.testing.assert_allclose(found.quantiles[query], np.quantile(y, QUANTILES))


def draw_null_p_values(n_markets: int, *, naive: bool) -> np.ndarray:
    """Ask once in each of many markets whose overlapping, correlated returns have nothing to do with the vectors."""
    p_values = []
    for seed in range(n_markets):
        rng = np.random.default_rng([1, seed])
        n_bars, n_symbols, horizon = 800, 4, 5
        returns = rng.standard_normal((n_bars + horizon, 1)) + rng.standard_normal((n_bars + horizon, n_symbols))
        labels = np.stack([returns[t : t + horizon].sum(axis=0) for t in range(n_bars)])
        end, symbol = np.divmod(np.arange(n_bars * n_symbols), n_symbols)
        # Vectors change slowly and alike, so that neighbours come in clusters of overlapping labels.
        slow = 3.0 * pd.DataFrame(rng.standard_normal((n_bars, 3))).ewm(halflife=5).mean().to_numpy()
        near = slow[:, None] + 0.02 * rng.standard_normal((n_bars, n_symbols, 3))
        found = forecast_analogues(
            near.reshape(-1, 3), labels.ravel(), end, symbol, k=20, horizon=horizon, queries=[len(end) - 1]
        )
        if naive:
            pool = labels.ravel()[end + horizon + 1 < n_bars - 1]
            t = (found.mean[0] - pool.mean()) / (found.spread[0] / np.sqrt(20))
            p_values.append(2.0 * stats.t.sf(abs(t), 19))
        else:
            p_values.append(found.p_value[0])
    return np.array(p_values)


def test_p_values_are_uniform_when_neighbours_mean_nothing_and_naive_ones_are_not():
    p_values = draw_null_p_values(300, naive=False)
    p_values = p_values[np.isfinite(p_values)]
    assert len(p_values) > 290
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert (p_values < 0.05).mean() < 0.09
    assert (draw_null_p_values(200, naive=True) < 0.05).mean() > 0.13


def test_a_memory_that_knows_what_follows_is_told_from_chance():
    rng = np.random.default_rng(6)
    vectors, end, symbol = draw_windows(6, n_bars=200, n_symbols=3)
    labels = 0.02 * np.sign(vectors[:, 0]) + 0.01 * rng.standard_normal(len(end))
    found = forecast_analogues(vectors, labels, end, symbol, k=30, horizon=1)
    late = end > 150
    assert np.corrcoef(found.mean[late], labels[late])[0, 1] > 0.5
    assert (np.sign(found.t_stat[late]) == np.sign(vectors[late, 0])).mean() > 0.9
    assert (found.p_value[late] < 0.05).mean() > 0.5


def test_bad_input_is_an_error_or_an_honest_nothing():
    vectors, end, symbol = draw_windows(8, n_bars=20, n_symbols=2)
    labels = np.ones(len(end))
    for wrong in ({"horizon": 0}, {"delay": 0}, {"k": 0}, {"spacing": 0}, {"max_age": 0}, {"threads": 0}):
        with pytest.raises(DataError, match=next(iter(wrong))):
            forecast_analogues(vectors, labels, end, symbol, **wrong)
    with pytest.raises(DataError, match="queries"):
        find_analogues(vectors, end, k=1, reach=1, queries=[len(end)])
    with pytest.raises(ShapeError, match="labels"):
        forecast_analogues(vectors, labels[1:], end, symbol)
    with pytest.raises(ShapeError, match="vectors"):
        find_analogues(vectors[:, 0], end, k=1, reach=1)
    too_many = forecast_analogues(vectors, labels, end, symbol, k=41)
    assert np.isnan(too_many.mean).all()
    assert (too_many.neighbours == -1).all()
    for n in (0, 1):
        few = forecast_analogues(vectors[:n], labels[:n], end[:n], symbol[:n], k=1)
        assert few.mean.shape == (n,)
        assert np.isnan(few.mean).all()
    blind = forecast_analogues(np.full_like(vectors, np.nan), labels, end, symbol, k=1)
    assert np.isnan(blind.mean).all()
    everybody = forecast_analogues(vectors, labels, end, symbol, k=1)
    assert np.isnan(everybody.t_stat).all()  # one neighbour has no spread
    assert np.nanmin(everybody.mean) == 1.0


@pytest.fixture(scope="module")
def market() -> Panel:
    panel = walk(11, n_bars=330, n_assets=3)
    close = panel.close.copy()
    close[40, 2] = np.nan
    return panel.replace(close=close)


def test_the_field_is_the_mean_label_of_the_nearest_steady_windows(market):
    values = compute("analogue(4, 3)", market)
    windows = steady_windows(market, 128, 1)
    vectors = get_encoder("ts2vec_causal").encode(windows)
    column = np.array([market.symbols.index(symbol) for symbol in windows.symbol])
    labels = forward_returns(market, 3).values[windows.end, column]
    expected = np.full(market.shape, np.nan)
    for query in range(len(windows)):
        options = {"k": 4, "reach": 4, "usable": np.isfinite(labels), "max_age": 2520, "spacing": 5}
        chosen = nearest_by_hand(vectors, windows.end, query, **options)
        if chosen is not None:
            expected[windows.end[query], column[query]] = labels[chosen].mean()
    np.testing.assert_array_equal(np.isnan(values), np.isnan(expected))
    assert np.isfinite(values).sum() > 150
    # A stream and a batch of windows differ in the last digits, and now and then round to another neighbour.
    assert np.isclose(values, expected, rtol=1e-9, equal_nan=True).mean() > 0.97


def test_the_field_is_part_of_the_language(market):
    ranked = compute("rank(analogue(4,3))", market)
    plain = compute("analogue(4, 3)", market)
    np.testing.assert_array_equal(ranked, compute("rank(x)", market.with_column("x", plain)))
    expression = parse(" analogue( 50,5 ) * 2")
    assert expression.canonical == "2 * analogue(50, 5)"
    assert expression == parse(expression.canonical)
    assert (expression.fields, expression.lookback) == (frozenset({"close"}), 2774)
    assert parse("trend - 1", features={"trend": "analogue(50, 5)"}).canonical == "analogue(50, 5) - 1"
    assert "analogue(50, 5)" in explain("rank(analogue(50, 5))").sentence


def test_the_field_keeps_the_contract_and_knows_no_future(market):
    assert check_feature("analogue(4, 3)", market).summary().endswith("clauses of its contract")
    assert check_leaks("analogue(3, 1)", market, n_cuts=12).passed


def test_the_field_needs_no_more_than_its_lookback():
    panel = walk(12, n_bars=2_900, n_assets=2, start="2006-01-02")
    whole, late = compute("analogue(5, 5)", panel), compute("analogue(5, 5)", panel.slice(100))
    np.testing.assert_array_equal(whole[100 + 2774 :], late[2774:])
    assert np.isfinite(late[2774:]).all()


def test_a_stream_gives_the_field_of_the_last_bar(market):
    stream = FeatureStream(["analogue(4, 3)"], market.slice(0, 328))
    for bar in (328, 329):
        values = stream.update(market.slice(bar, bar + 1))
        np.testing.assert_array_equal(values[0], compute("analogue(4, 3)", market.slice(0, bar + 1))[-1])


def test_there_is_no_value_up_to_the_end_of_the_encoders_training():
    panel = walk(13, n_bars=420, n_assets=3, start="2005-01-03")
    values = compute("analogue(4, 3)", panel)
    trained_until = pd.Timestamp(get_encoder("ts2vec_causal").trained_until)
    assert np.isnan(values[panel.index <= trained_until]).all()
    assert np.isfinite(values[panel.index > trained_until][120:]).all()
    assert np.isnan(compute("analogue(4, 3)", walk(13, n_bars=420, n_assets=3, start="1999-01-04"))).all()


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("analogue(50)", ExpressionError, "takes 2 arguments"),
        ("analogue(50, 0)", ExpressionError, "the horizon of `analogue` at column 0 must be in 1..252"),
        ("analogue(501, 5)", ExpressionError, "the count of `analogue`"),
        ("analogue(50, -5)", LookAheadError, "only positive lags"),
        ("analogue(close, 5)", ExpressionError, "whole number"),
        ("analogue(50, 2.5)", ExpressionError, "whole number"),
        ("analogue + 1", ExpressionError, "write analogue\\(count, horizon\\)"),
        ("analogue(50, horizon=5)", ExpressionError, "positional arguments only"),
        ("analogue(50, 5) + close", ExpressionError, "joins unlike things"),
    ],
)
def test_a_wrong_call_says_what_is_allowed(text, error, words):
    with pytest.raises(error, match=words):
        parse(text)
