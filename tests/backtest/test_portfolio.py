import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata

from backtest.portfolio import scores_to_weights
from backtest.ranks import COUNTED_COLUMNS, compute_row_ranks
from core.errors import ConfigurationError, DataError, ShapeError

NAN = np.nan
SCORES = arrays(
    np.float64,
    st.tuples(st.integers(1, 30), st.integers(1, 9)),
    elements=st.one_of(st.just(NAN), st.integers(-3, 3).map(float), st.floats(-1e6, 1e6)),
)


@pytest.mark.parametrize("n_columns", [1, 7, COUNTED_COLUMNS, COUNTED_COLUMNS + 1, 500])
def test_ranks_equal_those_of_scipy(n_columns: int) -> None:
    rng = np.random.default_rng(n_columns)
    values = rng.integers(0, max(2, n_columns // 3), (40, n_columns)).astype(float)
    values[rng.random(values.shape) < 0.2] = NAN
    values[0] = NAN
    ranks, distinct = compute_row_ranks(values)
    np.testing.assert_array_equal(ranks, rankdata(values, axis=1, nan_policy="omit"))
    assert distinct.tolist() == [len(np.unique(row[~np.isnan(row)])) for row in values]


def test_ranks_are_centred_and_scaled() -> None:
    # Ranks 1, 2.5, 2.5, 4 around 2.5 are -1.5, 0, 0, 1.5.
    weights = scores_to_weights([[5.0, 7.0, 7.0, 9.0]], gross=2.0)
    np.testing.assert_allclose(weights, [[-1.0, 0.0, 0.0, 1.0]])


def test_a_missing_score_gets_no_weight() -> None:
    np.testing.assert_allclose(scores_to_weights([[1.0, NAN, 2.0, 3.0]]), [[-0.5, 0.0, 0.0, 0.5]])


def test_fewer_than_three_different_scores_get_no_weights() -> None:
    assert not scores_to_weights([[1.0, 1.0, 2.0, 2.0], [NAN, NAN, 1.0, 2.0], [3.0, 3.0, 3.0, 3.0]]).any()


def test_holding_averages_the_last_targets() -> None:
    up, down = [-0.5, 0.0, 0.5], [0.5, 0.0, -0.5]
    weights = scores_to_weights([[1, 2, 3], [1, 2, 3], [3, 2, 1], [3, 2, 1]], holding_bars=2)
    np.testing.assert_allclose(weights, [[-0.25, 0.0, 0.25], up, [0.0, 0.0, 0.0], down])


def test_holding_longer_than_the_data_ramps_up() -> None:
    weights = scores_to_weights(np.tile([1.0, 2.0, 3.0], (3, 1)), holding_bars=10)
    np.testing.assert_allclose(weights[:, 2], [0.05, 0.10, 0.15])


def test_trend_weights_are_the_tanh_of_the_z_score_among_its_own_past() -> None:
    rng = np.random.default_rng(1)
    scores = rng.standard_normal((600, 2)) * [1.0, 1e-3]
    scores[300, 1] = NAN
    weights = scores_to_weights(scores, method="time_series")
    for t in (19, 100, 251, 252, 300, 503, 504, 599):
        past = scores[max(0, t - 251) : t + 1]
        strength = np.tanh((scores[t] - np.nanmean(past, axis=0)) / np.nanstd(past, axis=0))
        np.testing.assert_allclose(weights[t], np.nan_to_num(strength) / np.isfinite(strength).sum(), rtol=1e-9)
    assert not weights[:19].any()


def test_one_giant_score_is_forgotten_when_it_leaves_the_window() -> None:
    scores = np.tile([[1.0], [-1.0]], (300, 1))
    scores[10] = 1e12
    weights = scores_to_weights(scores, method="time_series")[262:]
    np.testing.assert_allclose(np.abs(weights), np.tanh(1.0), rtol=1e-12)


@pytest.mark.parametrize("level", [1.0, 0.1, 3e7])
def test_a_score_that_always_says_the_same_holds_nothing(level: float) -> None:
    assert not scores_to_weights(np.full((600, 2), level), method="time_series").any()


@settings(max_examples=60, deadline=None)
@given(scores=SCORES, holding=st.integers(1, 6), gross=st.floats(0.1, 2.0))
def test_books_are_neutral_and_never_exceed_gross(scores: np.ndarray, holding: int, gross: float) -> None:
    weights = scores_to_weights(scores, holding_bars=holding, gross=gross)
    assert np.isfinite(weights).all()
    np.testing.assert_allclose(weights.sum(axis=1), 0.0, atol=1e-12)
    assert (np.abs(weights).sum(axis=1) <= gross * (1 + 1e-12)).all()


@settings(max_examples=60, deadline=None)
@given(scores=SCORES, holding=st.integers(1, 6), method=st.sampled_from(["cross_section", "time_series"]), data=st.data())
def test_weights_know_nothing_of_later_scores(scores: np.ndarray, holding: int, method: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(scores)))
    whole = scores_to_weights(scores, method=method, holding_bars=holding)  # type: ignore[arg-type]
    part = scores_to_weights(scores[:cut], method=method, holding_bars=holding)  # type: ignore[arg-type]
    np.testing.assert_array_equal(whole[:cut], part)


def test_scores_are_not_changed() -> None:
    scores = np.random.default_rng(0).standard_normal((30, 4))
    kept = scores.copy()
    scores_to_weights(scores, holding_bars=3)
    np.testing.assert_array_equal(scores, kept)


def test_wrong_arguments_are_refused() -> None:
    scores = np.ones((5, 3))
    with pytest.raises(ShapeError, match=r"was \(5,\)"):
        scores_to_weights(scores[:, 0])
    with pytest.raises(DataError, match="infinite"):
        scores_to_weights(scores * np.inf)
    with pytest.raises(ConfigurationError, match="`holding_bars`"):
        scores_to_weights(scores, holding_bars=0)
    with pytest.raises(ConfigurationError, match="`gross`"):
        scores_to_weights(scores, gross=0.0)
    with pytest.raises(ConfigurationError, match="`method`"):
        scores_to_weights(scores, method="sign")  # type: ignore[arg-type]
