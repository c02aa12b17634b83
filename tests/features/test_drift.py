import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist

from core.errors import DataError, ShapeError
from features.drift import MAX_ROWS, compare_embeddings, compare_feature


def embeddings(x, y, **options):
    bars = {"reference_bar": np.arange(len(x)), "current_bar": np.arange(len(x), len(x) + len(y)), "block": 1, **options}
    return compare_embeddings(x, y, rng=np.random.default_rng(0), **bars)


def feature(x, y, **options):
    bars = {"reference_bar": np.arange(len(x)), "current_bar": np.arange(len(x), len(x) + len(y)), "block": 1, **options}
    return compare_feature(x, y, rng=np.random.default_rng(0), **bars)


def test_energy_distance_is_that_of_all_pairs():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((40, 6)), 0.3 + rng.standard_normal((25, 6))
    expected = 2.0 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean()
    found = embeddings(x, y, block=7, n_permutations=1)
    assert found.value == pytest.approx(expected)
    assert (found.n_reference, found.n_current, found.n_blocks) == (40, 25, (6, 5))


def test_in_one_dimension_it_is_the_one_of_scipy():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal(50), rng.exponential(size=30)
    found = embeddings(x[:, None], y[:, None], n_permutations=1)
    assert found.value == pytest.approx(stats.energy_distance(x, y) ** 2)


def test_stability_index_is_that_of_the_shares_in_bins():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal(1_000), 0.5 + 1.3 * rng.standard_normal(300)
    edges = np.quantile(x, np.linspace(0.1, 0.9, 9))
    p = np.histogram(x, [-np.inf, *edges, np.inf])[0] + 0.5
    q = np.histogram(y, [-np.inf, *edges, np.inf])[0] + 0.5
    p, q = p / p.sum(), q / q.sum()
    found = feature(x, y, n_permutations=1)
    assert found.value == pytest.approx(((p - q) * np.log(p / q)).sum())
    assert feature(np.append(x, np.nan), np.append(y, np.inf), n_permutations=1).value == found.value


def draw_p_values(compare, *, shift: float, block: int) -> np.ndarray:
    """Compare halves of series whose rows are alike within stretches of ten bars."""
    p_values = []
    for seed in range(150):
        rng = np.random.default_rng([7, seed])
        x = np.repeat(rng.standard_normal((40, 2)), 10, axis=0) + 0.5 * rng.standard_normal((400, 2))
        x[300:] += shift
        bars = np.arange(400)
        values = x if compare is compare_embeddings else x[:, 0]
        options = {"reference_bar": bars[:300], "current_bar": bars[300:], "block": block, "n_permutations": 99}
        p_values.append(compare(values[:300], values[300:], rng=rng, **options).p_value)
    return np.array(p_values)


@pytest.mark.parametrize("compare", [compare_embeddings, compare_feature])
def test_p_values_are_uniform_without_drift_if_stretches_are_as_long_as_what_is_alike(compare):
    p_values = draw_p_values(compare, shift=0.0, block=10)
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert (p_values <= 0.05).mean() < 0.1
    assert (draw_p_values(compare, shift=0.0, block=1) <= 0.05).mean() > 0.5  # row by row everything drifts


@pytest.mark.parametrize("compare", [compare_embeddings, compare_feature])
def test_a_shift_is_found(compare):
    assert (draw_p_values(compare, shift=2.0, block=10) <= 0.05).mean() > 0.9


@given(seed=st.integers(0, 10_000), n=st.integers(1, 30), m=st.integers(1, 30), block=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_distances_are_never_negative_and_zero_between_equals(seed, n, m, block):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, 3)), rng.standard_normal((m, 3))
    for found in (
        embeddings(x, y, block=block, n_permutations=19),
        feature(x[:, 0], y[:, 0], block=block, n_permutations=19),
    ):
        assert found.value >= 0.0
        assert 1 / 20 <= found.p_value <= 1.0
    assert embeddings(x, x, n_permutations=1).value == pytest.approx(0.0, abs=1e-7)
    assert feature(x[:, 0], x[:, 0], n_permutations=1).value == pytest.approx(0.0, abs=1e-9)
    moved, turned = embeddings(y, x, block=block, n_permutations=1), embeddings(x, y, block=block, n_permutations=1)
    assert moved.value == pytest.approx(turned.value)


def test_the_same_generator_gives_the_same_answer_and_large_populations_are_drawn_from():
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((MAX_ROWS + 500, 2)), rng.standard_normal((100, 2))
    first, second = embeddings(x, y, block=50, n_permutations=19), embeddings(x, y, block=50, n_permutations=19)
    assert first == second
    assert first.n_reference == MAX_ROWS


def test_bad_input_says_what_is_wrong():
    x = np.ones((5, 2))
    with pytest.raises(DataError, match="`current` must have rows"):
        embeddings(x, x[:0])
    with pytest.raises(DataError, match="all finite"):
        embeddings(np.where(x > 0, np.nan, x), x)
    with pytest.raises(ShapeError, match="one width"):
        embeddings(x, np.ones((5, 3)))
    with pytest.raises(ShapeError, match="`reference`"):
        embeddings(x, x, reference_bar=np.arange(4))
    with pytest.raises(DataError, match="`block`"):
        embeddings(x, x, block=0)
    with pytest.raises(DataError, match="n_permutations"):
        embeddings(x, x, n_permutations=0)
    with pytest.raises(DataError, match="none of which"):
        feature(np.full(4, np.nan), np.ones(4))
    with pytest.raises(ShapeError):
        feature(x, x)
    with pytest.raises(DataError, match="n_bins"):
        feature(x[:, 0], x[:, 0], n_bins=1)
    assert feature(x[:, 0], x[:, 0]).p_value == 1.0
