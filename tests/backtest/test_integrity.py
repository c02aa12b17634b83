import math
from itertools import combinations

import numpy as np
import pytest
from arch.bootstrap import SPA, StepM
from scipy import stats

from backtest import integrity
from backtest.bootstrap import compute_long_run_deviation
from backtest.metrics import kurtosis, sharpe_per_period, skewness

DAY = math.sqrt(250)


def test_the_published_example_of_the_deflated_sharpe_ratio() -> None:
    """Bailey & Lopez de Prado (2014): annual ratio 2.5 over five years, the best of 100 whose annual variance is 0.5."""
    variance = 0.5 / 250
    assert integrity.expected_maximum_sharpe(100, variance) == pytest.approx(0.1132, abs=5e-5)
    assert integrity.deflation_threshold(n_obs=1250, n_trials=100, variance=variance) == pytest.approx(0.1132, abs=5e-5)
    deflated = integrity.deflated_sharpe_ratio(
        sharpe=2.5 / DAY, n_obs=1250, skew=-3.0, kurtosis=10.0, n_trials=100, variance=variance
    )
    assert deflated == pytest.approx(0.9004, abs=5e-5)


def test_the_best_of_a_hundred_noise_strategies_looks_sure_until_it_is_deflated() -> None:
    moments = {"sharpe": 1.32 / math.sqrt(252), "n_obs": 1008, "skew": 0.0, "kurtosis": 3.0}
    assert integrity.probabilistic_sharpe_ratio(**moments) == pytest.approx(0.9955, abs=1e-3)  # type: ignore[arg-type]
    assert integrity.deflated_sharpe_ratio(**moments, n_trials=100) == pytest.approx(0.53, abs=0.02)  # type: ignore[arg-type]


def test_the_default_variance_is_that_of_the_estimator() -> None:
    rng = np.random.default_rng(0)
    best = [max(sharpe_per_period(column) for column in rng.standard_normal((500, 50)).T) for _ in range(60)]
    assert integrity.deflation_threshold(n_obs=500, n_trials=50) == pytest.approx(np.mean(best), rel=0.06)


def test_expected_maximum_is_near_the_true_one() -> None:
    rng = np.random.default_rng(1)
    for n_trials in (10, 100, 1000):
        simulated = 0.3 * rng.standard_normal((4000, n_trials)).max(axis=1).mean()
        assert integrity.expected_maximum_sharpe(n_trials, 0.09) == pytest.approx(simulated, rel=0.03)
    assert integrity.expected_maximum_sharpe(1, 0.09) == 0.0


def test_probabilistic_sharpe_of_normal_returns_by_hand() -> None:
    # (0.1 - 0.02) sqrt(400) / sqrt(1 + 0.01 / 2)
    found = integrity.probabilistic_sharpe_ratio(sharpe=0.1, n_obs=401, skew=0.0, kurtosis=3.0, benchmark=0.02)
    assert found == pytest.approx(stats.norm.cdf(1.6 / math.sqrt(1.005)))


def test_probabilistic_sharpe_is_uniform_when_there_is_no_skill() -> None:
    rng = np.random.default_rng(2)
    found = [
        integrity.probabilistic_sharpe_ratio(sharpe=sharpe_per_period(x), n_obs=300, skew=skewness(x), kurtosis=kurtosis(x))
        for x in rng.standard_t(6, (600, 300))
    ]
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_track_record_length_is_where_the_probability_reaches_the_confidence() -> None:
    moments = {"sharpe": 0.08, "skew": -0.5, "kurtosis": 6.0, "benchmark": 0.01}
    length = integrity.min_track_record_length(**moments, confidence=0.9)
    assert length is not None
    assert integrity.probabilistic_sharpe_ratio(**moments, n_obs=math.ceil(length)) >= 0.9  # type: ignore[arg-type]
    assert integrity.probabilistic_sharpe_ratio(**moments, n_obs=math.floor(length)) <= 0.9  # type: ignore[arg-type]
    assert integrity.min_track_record_length(sharpe=0.01, skew=0.0, kurtosis=3.0, benchmark=0.01) is None


def test_five_years_bear_45_trials_before_luck_alone_shows_a_yearly_ratio_of_one() -> None:
    """Bailey, Borwein, Lopez de Prado & Zhu (2014), figure 2 and the text beside it."""
    assert integrity.min_backtest_length(n_trials=45, sharpe=1.0) == pytest.approx(5.0, abs=0.01)
    assert integrity.min_backtest_length(n_trials=1, sharpe=1.0) == 0.0
    per_day = integrity.min_backtest_length(n_trials=45, sharpe=1.0 / math.sqrt(252))
    assert per_day / 252 == pytest.approx(integrity.min_backtest_length(n_trials=45, sharpe=1.0))
    for n_trials in (2, 10, 1000):
        length = integrity.min_backtest_length(n_trials=n_trials, sharpe=0.8)
        assert length < 2.0 * math.log(n_trials) / 0.8**2
        assert integrity.expected_maximum_sharpe(n_trials, 1.0 / length) == pytest.approx(0.8)


def overfitting_by_the_book(returns: np.ndarray, n_blocks: int) -> float:
    """Bailey et al. (2017), section 3, said slowly."""
    blocks = np.split(returns, n_blocks)
    logits = []
    for chosen in combinations(range(n_blocks), n_blocks // 2):
        inside = np.vstack([blocks[i] for i in chosen])
        outside = np.vstack([blocks[i] for i in range(n_blocks) if i not in chosen])
        best = (inside.mean(axis=0) / inside.std(axis=0)).argmax()
        rank = stats.rankdata(outside.mean(axis=0) / outside.std(axis=0))[best] / (returns.shape[1] + 1)
        logits.append(math.log(rank / (1 - rank)))
    return float(np.mean(np.array(logits) <= 0.0))


@pytest.mark.parametrize("n_configs", [2, 9, 10])
def test_overfitting_equals_the_definition(n_configs: int) -> None:
    returns = np.random.default_rng(n_configs).standard_normal((96, n_configs)) + 0.1
    assert integrity.probability_of_backtest_overfitting(returns, 8) == overfitting_by_the_book(returns, 8)


def test_overfitting_leaves_out_the_oldest_rest() -> None:
    returns = np.random.default_rng(4).standard_normal((103, 6))
    whole = integrity.probability_of_backtest_overfitting(returns, 8)
    assert whole == integrity.probability_of_backtest_overfitting(returns[7:], 8)


@pytest.mark.parametrize(("n_configs", "expected"), [(50, 0.5), (5, 0.6)])
def test_overfitting_on_noise_is_the_chance_of_a_lower_half_rank(n_configs: int, expected: float) -> None:
    """Disjoint halves of independent noise know nothing of each other: the winner's rank is uniform on 1..n_configs."""
    rng = np.random.default_rng(5)
    found = [integrity.probability_of_backtest_overfitting(rng.standard_normal((160, n_configs)), 8) for _ in range(800)]
    assert np.mean(found) == pytest.approx(expected, abs=0.025)


def test_overfitting_of_one_true_edge_is_zero() -> None:
    returns = 0.01 * np.random.default_rng(6).standard_normal((800, 30))
    returns[:, 7] += 0.005
    assert integrity.probability_of_backtest_overfitting(returns) == 0.0


def test_overfitting_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    returns = np.random.default_rng(7).standard_normal((320, 40))
    whole = integrity.probability_of_backtest_overfitting(returns)
    monkeypatch.setattr(integrity, "CELLS", 4001)
    assert integrity.probability_of_backtest_overfitting(returns) == whole


def test_a_strategy_that_never_trades_is_no_winner_of_the_overfitting_test() -> None:
    returns = np.column_stack((np.zeros(320), 0.01 + 0.001 * np.random.default_rng(8).standard_normal(320)))
    assert integrity.probability_of_backtest_overfitting(returns) == 0.0


def test_spa_equals_arch_on_columns_of_unit_long_run_deviation() -> None:
    rng = np.random.default_rng(9)
    noise = rng.standard_normal((600, 12)) * rng.uniform(0.005, 0.03, 12)
    noise[1:] += 0.3 * noise[:-1]
    noise[:, 3] -= 0.01
    for shift in (0.0005, 0.001, 0.0015):
        returns = noise - noise.mean(axis=0) * 0.5 + shift * (np.arange(12) == 5)
        deviation = compute_long_run_deviation(returns, 8.0)
        referee = SPA(np.zeros(600), -returns / deviation, block_size=8, reps=4000, seed=1)
        referee.compute()
        ours = integrity.spa_pvalue(returns, n_bootstrap=4000, block_length=8, seed=2)
        assert ours == pytest.approx(referee.pvalues["consistent"], abs=0.035)


def test_spa_has_its_size_on_noise() -> None:
    rng = np.random.default_rng(11)
    found = np.array(
        [
            integrity.spa_pvalue(0.01 * rng.standard_normal((250, 20)), n_bootstrap=200, block_length=4, seed=rng)
            for _ in range(300)
        ]
    )
    assert (found <= 0.05).mean() == pytest.approx(0.05, abs=0.04)
    assert stats.kstest(found, "uniform").statistic < 0.15


def test_spa_finds_an_edge_among_many_and_is_repeatable() -> None:
    returns = 0.01 * np.random.default_rng(12).standard_normal((1500, 40))
    returns[:, 3] += 0.0015
    first = integrity.spa_pvalue(returns, block_length=5, seed=1)
    assert first < 0.01
    assert first == integrity.spa_pvalue(returns, block_length=5, seed=1)


def test_spa_says_one_where_every_strategy_loses() -> None:
    losing = 0.01 * np.random.default_rng(3).standard_normal((300, 4)) - 0.01
    assert integrity.spa_pvalue(losing, block_length=5, seed=1) == 1.0


def test_spa_leaves_out_strategies_that_never_traded() -> None:
    returns = 0.01 * np.random.default_rng(13).standard_normal((300, 5))
    padded = np.column_stack((np.zeros(300), returns))
    assert integrity.spa_pvalue(padded, block_length=5, seed=1) == integrity.spa_pvalue(returns, block_length=5, seed=1)
    assert integrity.spa_pvalue(np.zeros((300, 2)), block_length=5, seed=1) == 1.0


def mixed_strategies(seed: int, edges: dict[int, float], n_obs: int = 800) -> np.ndarray:
    """Twelve dependent strategies of different volatility, some with an edge; divided by their long-run deviation."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((n_obs, 12))
    noise[1:] += 0.3 * noise[:-1]
    returns = noise - noise.mean(axis=0)
    returns /= compute_long_run_deviation(returns, 8.0)
    for column, statistic in edges.items():
        returns[:, column] += statistic / math.sqrt(n_obs)
    return returns


def test_stepwise_test_finds_what_arch_finds_on_columns_of_unit_long_run_deviation() -> None:
    edges = {2: 6.0, 5: 4.0, 7: 3.3, 9: 1.0, 11: -8.0}
    returns = mixed_strategies(21, edges)
    referee = StepM(np.zeros(len(returns)), -returns, size=0.05, block_size=8, reps=2000, seed=1)
    referee.compute()
    found = integrity.stepm_pvalues(returns, n_bootstrap=2000, block_length=8, seed=2)
    assert np.flatnonzero(found <= 0.05).tolist() == sorted(referee.superior_models) == [2, 5, 7]


def test_stepwise_pvalues_are_those_of_testing_the_rest_again_and_again() -> None:
    returns = mixed_strategies(22, {0: 3.5, 1: 2.6, 2: 2.5, 3: 2.2} | {column: 1.5 - 0.4 * column for column in range(4, 12)})
    scaled = returns / compute_long_run_deviation(returns, 8.0)
    best_first = scaled.mean(axis=0).argsort()[::-1]
    expected, highest = {}, 0.0
    for step, column in enumerate(best_first):
        rest = returns[:, best_first[step:]]
        highest = max(highest, integrity.spa_pvalue(rest, block_length=8, seed=3))
        expected[column] = highest
    found = integrity.stepm_pvalues(returns, block_length=8, seed=3)
    np.testing.assert_allclose(found, [expected[column] for column in range(12)], atol=1e-12)
    assert found.min() == integrity.spa_pvalue(returns, block_length=8, seed=3)


def test_stepwise_test_rarely_calls_noise_superior_beside_true_edges() -> None:
    rng = np.random.default_rng(23)
    wrong = 0
    for _ in range(300):
        returns = rng.standard_normal((200, 10))
        returns[:, :2] += 0.5
        found = integrity.stepm_pvalues(returns, n_bootstrap=200, block_length=2, seed=rng)
        assert (found[:2] <= 0.05).all()
        wrong += bool((found[2:] <= 0.05).any())
    assert 0.02 < wrong / 300 < 0.085


def test_stepwise_test_keeps_the_order_of_columns_and_leaves_out_what_never_traded() -> None:
    returns = mixed_strategies(24, {3: 5.0})
    still = np.column_stack((returns[:, :5], np.zeros(len(returns)), returns[:, 5:]))
    found = integrity.stepm_pvalues(still, block_length=8, seed=1)
    assert found[5] == 1.0
    np.testing.assert_array_equal(np.delete(found, 5), integrity.stepm_pvalues(returns, block_length=8, seed=1))
    assert integrity.stepm_pvalues(np.zeros((50, 2)), block_length=8, seed=1).tolist() == [1.0, 1.0]


def test_variants_of_a_trial_count_once() -> None:
    rng = np.random.default_rng(16)
    base, other = rng.standard_normal((2, 1000))
    trials = np.column_stack((base, base + 0.3 * other, -base, other, 2.0 * other + 1.0))
    assert integrity.effective_number_of_trials(trials) == 3
    assert integrity.effective_number_of_trials(rng.standard_normal((1000, 30))) == 30


def test_clusters_follow_the_order_of_the_columns() -> None:
    rng = np.random.default_rng(17)
    a, b = rng.standard_normal((2, 5000))
    between = a + b  # correlates 0.71 with each of them
    assert integrity.effective_number_of_trials(np.column_stack((a, b, between))) == 2
    assert integrity.effective_number_of_trials(np.column_stack((between, a, b))) == 1


def test_a_trial_that_never_traded_counts_and_hides_no_other() -> None:
    trials = np.column_stack((np.zeros(100), np.full(100, 0.1), np.random.default_rng(18).standard_normal(100)))
    assert integrity.effective_number_of_trials(trials) == 3
    assert integrity.effective_number_of_trials(np.empty((100, 0))) == 0


def test_wrong_arguments_are_refused() -> None:
    noise = np.random.default_rng(19).standard_normal((64, 4))
    with pytest.raises(ValueError, match="`n_obs`"):
        integrity.probabilistic_sharpe_ratio(sharpe=0.1, n_obs=1, skew=0.0, kurtosis=3.0)
    with pytest.raises(ValueError, match="kurtosis is at least"):
        integrity.probabilistic_sharpe_ratio(sharpe=1.0, n_obs=100, skew=3.0, kurtosis=0.0)
    with pytest.raises(ValueError, match="`n_trials`"):
        integrity.expected_maximum_sharpe(0, 1.0)
    with pytest.raises(ValueError, match="`variance`"):
        integrity.expected_maximum_sharpe(2, -1.0)
    with pytest.raises(ValueError, match="`confidence`"):
        integrity.min_track_record_length(sharpe=0.1, skew=0.0, kurtosis=3.0, confidence=1.0)
    with pytest.raises(ValueError, match="at least 2 configurations"):
        integrity.probability_of_backtest_overfitting(noise[:, :1])
    with pytest.raises(ValueError, match="even"):
        integrity.probability_of_backtest_overfitting(noise, 7)
    with pytest.raises(ValueError, match="at least 32 observations"):
        integrity.probability_of_backtest_overfitting(noise[:20])
    with pytest.raises(ValueError, match="finite"):
        integrity.spa_pvalue(np.full((64, 2), np.nan), block_length=2, seed=1)
    with pytest.raises(ValueError, match="constant but not zero"):
        integrity.spa_pvalue(np.ones((64, 2)), block_length=2, seed=1)
    with pytest.raises(ValueError, match="`block_length`"):
        integrity.spa_pvalue(noise, block_length=0.5, seed=1)
    with pytest.raises(ValueError, match="`n_bootstrap`"):
        integrity.spa_pvalue(noise, block_length=2, seed=1, n_bootstrap=0)
    with pytest.raises(ValueError, match="`sharpe`"):
        integrity.min_backtest_length(n_trials=10, sharpe=0.0)
    with pytest.raises(ValueError, match="constant but not zero"):
        integrity.stepm_pvalues(np.ones((64, 2)), block_length=2, seed=1)


def test_combined_probabilities_are_those_of_the_weighted_inverse_normal_method() -> None:
    together = integrity.combine_probabilities([0.9, 0.7], [2400, 600])
    assert together == pytest.approx(
        stats.norm.cdf((math.sqrt(0.8) * stats.norm.ppf(0.9)) + math.sqrt(0.2) * stats.norm.ppf(0.7)), rel=1e-12
    )
    assert integrity.combine_probabilities([0.3], [7]) == pytest.approx(0.3)
    assert integrity.combine_probabilities([1.0, 0.0], [1, 1]) == pytest.approx(0.5, abs=1e-5)


def test_without_an_effect_combined_probabilities_are_uniform_even_if_only_the_promising_are_looked_at_again() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.uniform(size=(2, 40_000))
    together = np.array([integrity.combine_probabilities(pair, [4, 1]) for pair in zip(first, second, strict=True)])
    assert np.quantile(together, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.01)
    assert float(np.mean((first >= 0.8) & (together > 0.975))) <= 0.025


@pytest.mark.parametrize(
    ("probabilities", "weights"),
    [([], []), ([0.5], [1, 2]), ([1.1], [1]), ([math.nan], [1]), ([0.5], [0]), ([0.5], [math.inf])],
)
def test_what_is_no_probability_or_no_weight_is_refused(probabilities: list[float], weights: list[float]) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        integrity.combine_probabilities(probabilities, weights)
