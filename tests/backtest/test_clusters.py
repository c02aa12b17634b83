import numpy as np
import pytest
from sklearn.metrics import silhouette_samples

from backtest import clusters
from backtest.clusters import cluster_trials
from backtest.integrity import equivalent_independent_trials


def families(seed: int, sizes: list[int], own: float = 0.5, n_obs: int = 1500) -> np.ndarray:
    """Variants of as many independent ideas as there are sizes."""
    rng = np.random.default_rng(seed)
    ideas = rng.standard_normal((n_obs, len(sizes)))
    return np.column_stack(
        [ideas[:, idea] + own * rng.standard_normal(n_obs) for idea, size in enumerate(sizes) for _ in range(size)]
    )


def test_families_of_trials_are_found_whatever_their_order() -> None:
    sizes = [7, 3, 12, 5]
    truth = np.repeat(range(4), sizes)
    returns = families(1, sizes)
    assert cluster_trials(returns).tolist() == truth.tolist()
    shuffled = np.random.default_rng(2).permutation(len(truth))
    found = cluster_trials(returns[:, shuffled])
    assert found[0] == 0
    assert len({(a, b) for a, b in zip(found, truth[shuffled], strict=True)}) == 4


def test_the_opposite_of_an_idea_is_another_family() -> None:
    returns = families(3, [4, 4])
    assert cluster_trials(np.hstack([returns, -returns[:, :4]])).max() == 2


def test_silhouettes_are_those_of_scikit_learn() -> None:
    returns = families(4, [5, 4, 1], own=1.5)
    distance = np.sqrt(0.5 * (1.0 - np.clip(np.corrcoef(returns.T), -1.0, 1.0)))
    np.fill_diagonal(distance, 0.0)
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 3])
    referee = silhouette_samples(distance, labels, metric="precomputed")
    assert clusters._silhouette_ratio(distance, labels) == pytest.approx(referee.mean() / referee.std())


def test_clusters_count_variants_once_and_so_flatter_where_their_equivalent_does_not() -> None:
    """Decision 0002: the best of 30 variants of one idea is expected above the best of one trial."""
    returns = families(5, [30, 1], own=1.0)
    assert cluster_trials(returns).max() + 1 == 2
    centred = returns - returns.mean(axis=0)
    assert equivalent_independent_trials((centred / np.linalg.norm(centred, axis=0)).T) > 6


def test_one_or_two_trials_are_a_cluster_each_and_what_never_traded_joins_no_family() -> None:
    noise = np.random.default_rng(6).standard_normal((50, 2))
    assert cluster_trials(noise[:, :1]).tolist() == [0]
    assert cluster_trials(noise).tolist() == [0, 1]
    assert cluster_trials(np.empty((50, 0))).tolist() == []
    still = np.hstack([families(7, [4, 4]), np.zeros((1500, 1))])
    found = cluster_trials(still)
    assert found.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2]


def test_trials_that_are_all_the_same_are_one_family_and_those_that_never_traded_are_none() -> None:
    alike = np.random.default_rng(8).standard_normal((100, 1)) * np.arange(1.0, 6.0)
    assert cluster_trials(alike).tolist() == [0, 0, 0, 0, 0]
    assert cluster_trials(np.zeros((100, 5))).tolist() == [0, 1, 2, 3, 4]


def test_returns_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        cluster_trials(np.full((10, 3), np.nan))
