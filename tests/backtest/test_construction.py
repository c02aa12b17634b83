import json
import math
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest import PortfolioRule, build_weights, run_backtest
from backtest.portfolio import scores_to_weights
from core.errors import ConfigurationError, DataError, MissingDataError, ShapeError
from core.market.panel import Panel
from tests.backtest.conftest import build_panel

NAN = np.nan
GROUPS = {f"S{i}": "even" if i % 2 == 0 else "odd" for i in range(9)}


def build_case(seed: int, n_bars: int = 60, n_assets: int = 6) -> tuple[np.ndarray, Panel]:
    """Scores with ties and gaps over prices with gaps, one symbol starting late and one that never moves."""
    rng = np.random.default_rng(seed)
    close = 50.0 * np.cumprod(1.0 + rng.uniform(0.005, 0.03, n_assets) * rng.standard_normal((n_bars, n_assets)), axis=0)
    close[rng.random(close.shape) < 0.05] = NAN
    close[: n_bars // 3, 1] = NAN
    close[:, 2] = 10.0
    scores = rng.integers(-3, 4, close.shape) + rng.choice([0.0, 0.5], close.shape)
    scores[rng.random(close.shape) < 0.1] = NAN
    return scores, build_panel(close)


def flat_panel(scores: np.ndarray) -> Panel:
    return build_panel(np.full(np.shape(scores), 10.0))


@st.composite
def rules(draw: st.DrawFn) -> PortfolioRule:
    method = draw(st.sampled_from(["cross_section", "time_series", "quantile", "threshold"]))
    by_count = draw(st.booleans())
    long_only = draw(st.booleans())
    max_weight = draw(st.sampled_from([None, 0.05, 0.2]))
    return PortfolioRule(
        method=method,  # type: ignore[arg-type]
        n_per_side=draw(st.integers(1, 4)) if method == "quantile" and by_count else None,
        quantile=draw(st.sampled_from([0.1, 0.3, 0.5])) if method == "quantile" and not by_count else None,
        threshold=draw(st.sampled_from([0.0, 1.0])) if method == "threshold" else 0.0,
        long_only=long_only,
        scaling=draw(st.sampled_from(["equal", "inverse_volatility"])),
        groups={} if long_only else draw(st.sampled_from([{}, GROUPS])),
        holding_bars=draw(st.integers(1, 4)),
        gross=draw(st.sampled_from([0.5, 1.0, 2.0])),
        volatility_target=draw(st.sampled_from([None, 0.1])),
        volatility_bars=draw(st.sampled_from([5, 20])),
        max_weight=max_weight,
        redistribute=max_weight is not None and draw(st.booleans()),
        rebalance_bars=draw(st.integers(1, 7)),
    )


def test_the_default_rule_is_the_weights_of_research() -> None:
    scores, panel = build_case(1)
    np.testing.assert_array_equal(build_weights(scores, panel), scores_to_weights(scores))
    trend = build_weights(scores, panel, PortfolioRule(method="time_series", holding_bars=3, gross=0.7))
    np.testing.assert_array_equal(trend, scores_to_weights(scores, method="time_series", holding_bars=3, gross=0.7))


def test_quantiles_hold_the_ends() -> None:
    scores = np.array([[5.0, 1.0, NAN, 2.0, 4.0, 3.0]])
    panel = flat_panel(scores)
    one = build_weights(scores, panel, PortfolioRule(method="quantile", n_per_side=1, gross=2.0))
    np.testing.assert_allclose(one, [[1.0, -1.0, 0.0, 0.0, 0.0, 0.0]])
    two = build_weights(scores, panel, PortfolioRule(method="quantile", quantile=0.4))
    np.testing.assert_allclose(two, [[0.25, -0.25, 0.0, -0.25, 0.25, 0.0]])
    half = build_weights(scores, panel, PortfolioRule(method="quantile", n_per_side=9))  # five scores: two on each side
    np.testing.assert_allclose(half, two)
    longs = build_weights(scores, panel, PortfolioRule(method="quantile", n_per_side=4, long_only=True))
    np.testing.assert_allclose(longs, [[0.25, 0.0, 0.0, 0.25, 0.25, 0.25]])


def test_equal_scores_share_the_places_at_the_border() -> None:
    scores = np.array([[3.0, 2.0, 2.0, 1.0, 1.0, 1.0], [7.0] * 6])
    weights = build_weights(scores, flat_panel(scores), PortfolioRule(method="quantile", n_per_side=2, gross=2.0))
    np.testing.assert_allclose(weights, [[0.5, 0.25, 0.25, -1 / 3, -1 / 3, -1 / 3], [0.0] * 6], atol=1e-15)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 5))
def test_quantiles_without_ties_are_those_of_a_sort(seed: int, size: int) -> None:
    scores = np.random.default_rng(seed).standard_normal((4, 10))
    weights = build_weights(scores, flat_panel(scores), PortfolioRule(method="quantile", n_per_side=size))
    for row, score in zip(weights, scores, strict=True):
        order = np.argsort(score)
        assert set(np.flatnonzero(row > 0)) == set(order[-size:])
        assert set(np.flatnonzero(row < 0)) == set(order[:size])
        np.testing.assert_allclose(np.abs(row[row != 0]), 0.5 / size)


def test_thresholds_judge_each_asset_alone() -> None:
    scores = np.array([[1.5, 1.0, -0.2, -3.0, NAN]])
    panel = flat_panel(scores)
    rule = PortfolioRule(method="threshold", threshold=1.0)
    np.testing.assert_allclose(build_weights(scores, panel, rule), [[0.25, 0.0, 0.0, -0.25, 0.0]])
    longs = replace(rule, long_only=True, threshold=-0.5)
    np.testing.assert_allclose(build_weights(scores, panel, longs), [[0.25, 0.25, 0.25, 0.0, 0.0]])


def test_long_only_ranks_hold_the_upper_half_with_all_the_money() -> None:
    scores = np.array([[1.0, 2.0, 3.0, 4.0]])
    weights = build_weights(scores, flat_panel(scores), PortfolioRule(long_only=True))
    np.testing.assert_allclose(weights, [[0.0, 0.0, 0.25, 0.75]])  # ranks above their mean: 0.5 and 1.5


def test_inverse_volatility_keeps_the_sum_of_each_side() -> None:
    scores, panel = build_case(5, n_assets=8)
    rule = PortfolioRule(method="threshold", scaling="inverse_volatility", volatility_bars=20)
    weights = build_weights(scores, panel, rule)
    frame = pd.DataFrame(panel.close)
    volatility = frame.pct_change(fill_method=None).rolling(20, min_periods=10).std().to_numpy()
    for t in (25, 40, 59):
        known = np.isfinite(scores[t]) & (volatility[t] > 1e-9)
        side = np.where(known, np.sign(scores[t]), 0.0) / known.sum()
        for sign in (1.0, -1.0):
            held = side == sign / known.sum()
            inverse = 1.0 / volatility[t, held]
            expected = sign * held.sum() / known.sum() * inverse / inverse.sum()
            np.testing.assert_allclose(weights[t, held], expected, rtol=1e-9)
    assert not weights[:10].any()  # ten returns are known at the eleventh bar
    assert not weights[:, 2].any()  # never moves
    assert not weights[:20, 1].any()  # not there yet


def test_groups_sum_to_zero() -> None:
    scores = np.array([[4.0, 3.0, 2.0, 1.0, 9.0]])
    groups = {"S0": "a", "S1": "a", "S2": "b", "S3": "b", "S4": "alone"}
    weights = build_weights(scores, flat_panel(scores), PortfolioRule(groups=groups))
    np.testing.assert_allclose(weights, [[0.25, -0.25, 0.25, -0.25, 0.0]], atol=1e-15)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), rule=rules())
def test_every_group_is_neutral_before_any_cap(seed: int, rule: PortfolioRule) -> None:
    scores, panel = build_case(seed)
    rule = replace(rule, long_only=False, groups=GROUPS, max_weight=None, redistribute=False, rebalance_bars=1)
    weights = build_weights(scores, panel, rule)
    np.testing.assert_allclose(weights[:, ::2].sum(axis=1), 0.0, atol=1e-9)
    np.testing.assert_allclose(weights[:, 1::2].sum(axis=1), 0.0, atol=1e-9)


def test_the_volatility_target_is_met_by_the_rows_own_past() -> None:
    scores, panel = build_case(7, n_bars=120)
    rule = PortfolioRule(volatility_target=0.08, volatility_bars=40, max_gross=50.0)
    weights = build_weights(scores, panel, rule)
    returns = np.nan_to_num(panel.returns())
    for t in (45, 80, 119):
        past = returns[t - 39 : t + 1] @ weights[t]
        assert np.std(past, ddof=1) * math.sqrt(252) == pytest.approx(0.08)
    assert not weights[:20].any()
    assert weights[30].any()
    tight = np.abs(build_weights(scores, panel, replace(rule, gross=0.5, max_gross=0.6))).sum(axis=1)
    np.testing.assert_allclose(tight, np.minimum(np.abs(weights).sum(axis=1), 0.6))
    assert tight.max() == pytest.approx(0.6)


def test_a_cap_leaves_the_rest_in_cash_or_gives_it_to_the_others() -> None:
    scores = np.array([[1.0, 2.0, 3.0, 4.0, 5.0]])
    panel = flat_panel(scores)
    capped = PortfolioRule(max_weight=0.2, gross=1.0)  # -1/3 -1/6 0 1/6 1/3
    np.testing.assert_allclose(build_weights(scores, panel, capped), [[-0.2, -1 / 6, 0.0, 1 / 6, 0.2]])
    shared = replace(capped, max_weight=0.3, redistribute=True)
    np.testing.assert_allclose(build_weights(scores, panel, shared), [[-0.3, -0.2, 0.0, 0.2, 0.3]])
    full = replace(capped, redistribute=True)  # a side of two cannot hold more than 0.4
    np.testing.assert_allclose(build_weights(scores, panel, full), [[-0.2, -0.2, 0.0, 0.2, 0.2]])


def test_redistribution_goes_on_until_every_cap_is_kept() -> None:
    scores = np.arange(10.0)[None, :]
    weights = build_weights(scores, flat_panel(scores), PortfolioRule(max_weight=0.12, redistribute=True))
    # Longs of 1, 3, 5, 7, 9 parts of 0.5 / 25: the last two are capped, and lift the third over its cap.
    np.testing.assert_allclose(weights[0, 5:], [0.035, 0.105, 0.12, 0.12, 0.12])
    np.testing.assert_allclose(weights[0, :5], -weights[0, :4:-1])


def test_rows_between_rebalances_hold() -> None:
    scores, panel = build_case(3)
    every, fifth = build_weights(scores, panel), build_weights(scores, panel, PortfolioRule(rebalance_bars=5))
    np.testing.assert_array_equal(fifth[::5], every[::5])
    assert np.isnan(fifth[np.arange(60) % 5 != 0]).all()
    assert run_backtest(panel, fifth).n_trades < run_backtest(panel, every).n_trades


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10_000), rule=rules(), cut=st.integers(1, 60))
def test_weights_know_nothing_of_what_comes_later(seed: int, rule: PortfolioRule, cut: int) -> None:
    scores, panel = build_case(seed)
    whole = build_weights(scores, panel, rule)
    np.testing.assert_array_equal(build_weights(scores[:cut], panel.slice(0, cut), rule), whole[:cut])
    rng = np.random.default_rng(seed)
    close = panel.close.copy()
    close[cut:] *= rng.uniform(0.5, 2.0, close[cut:].shape)
    later = np.where(np.arange(60)[:, None] < cut, scores, rng.standard_normal(scores.shape))
    np.testing.assert_array_equal(build_weights(later, panel.replace(close=close), rule)[:cut], whole[:cut])


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10_000), rule=rules())
def test_every_rule_keeps_its_bounds_and_can_be_traded(seed: int, rule: PortfolioRule) -> None:
    scores, panel = build_case(seed)
    weights = build_weights(scores, panel, rule)
    decided = np.arange(60) % rule.rebalance_bars == 0
    assert np.isfinite(weights[decided]).all()
    assert np.isnan(weights[~decided]).all()
    assert np.nansum(np.abs(weights), axis=1).max() <= rule.max_gross * (1 + 1e-12)
    if rule.volatility_target is None:
        assert np.nansum(np.abs(weights), axis=1).max() <= rule.gross * (1 + 1e-9)
    if rule.max_weight is not None:
        assert np.nanmax(np.abs(weights)) <= rule.max_weight
    if rule.long_only:
        assert np.nanmin(weights) >= 0.0
    elif rule.method in {"cross_section", "quantile"} and rule.max_weight is None:
        np.testing.assert_allclose(weights[decided].sum(axis=1), 0.0, atol=1e-12)
    assert np.isfinite(run_backtest(panel, weights).equity).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), rule=rules())
def test_the_order_of_the_assets_does_not_matter(seed: int, rule: PortfolioRule) -> None:
    scores, panel = build_case(seed)
    order = np.random.default_rng(seed).permutation(6)
    moved = panel.select([panel.symbols[i] for i in order])
    weights, other = build_weights(scores, panel, rule), build_weights(scores[:, order], moved, rule)
    np.testing.assert_allclose(other, weights[:, order], rtol=1e-9, atol=1e-12)


def test_a_rule_survives_json_and_pickle_and_can_be_a_key() -> None:
    rule = PortfolioRule(method="quantile", quantile=0.2, groups={"B": "x", "A": "y"}, volatility_target=0.1, max_weight=0.1)
    again = PortfolioRule(**json.loads(json.dumps(rule.to_dict())))
    assert again == rule == pickle.loads(pickle.dumps(rule))
    assert {rule: 1}[again] == 1
    assert rule.groups == (("A", "y"), ("B", "x"))


@pytest.mark.parametrize(
    ("choices", "named"),
    [
        ({"method": "sign"}, "method"),
        ({"method": "quantile"}, "n_per_side"),
        ({"method": "quantile", "n_per_side": 2, "quantile": 0.1}, "n_per_side"),
        ({"method": "quantile", "n_per_side": 0}, "n_per_side"),
        ({"method": "quantile", "quantile": 0.6}, "quantile"),
        ({"quantile": 0.1}, "n_per_side"),
        ({"threshold": 1.0}, "threshold"),
        ({"method": "threshold", "threshold": -1.0}, "threshold"),
        ({"method": "threshold", "threshold": NAN}, "threshold"),
        ({"scaling": "kelly"}, "scaling"),
        ({"long_only": 2}, "long_only"),
        ({"long_only": True, "groups": {"A": "x"}}, "groups"),
        ({"redistribute": True}, "redistribute"),
        ({"holding_bars": 0}, "holding_bars"),
        ({"rebalance_bars": 1.5}, "rebalance_bars"),
        ({"volatility_bars": 3}, "volatility_bars"),
        ({"volatility_target": 0.0}, "volatility_target"),
        ({"max_weight": -0.1}, "max_weight"),
        ({"gross": 3.0}, "gross"),
        ({"max_gross": math.inf}, "max_gross"),
        ({"periods_per_year": True}, "periods_per_year"),
    ],
)
def test_a_wrong_choice_is_refused_by_name(choices: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"`{named}`"):
        PortfolioRule(**choices)


def test_wrong_input_is_refused() -> None:
    scores, panel = build_case(1)
    with pytest.raises(ShapeError, match=r"\(60, 6\), was \(59, 6\)"):
        build_weights(scores[1:], panel)
    with pytest.raises(DataError, match="infinite"):
        build_weights(np.full(panel.shape, np.inf), panel)
    with pytest.raises(MissingDataError, match="it has no S1, S2"):
        build_weights(scores, panel, PortfolioRule(groups=dict.fromkeys(["S0", "S3", "S4", "S5"], "x")))
