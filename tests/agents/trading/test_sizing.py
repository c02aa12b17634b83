import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from agents.trading.learning import PromotionGate
from agents.trading.sizing import (
    SIZINGS,
    Evidence,
    FixedSizing,
    KellySizing,
    ProbationSizing,
    RampSizing,
    Sizing,
    build_sizing,
)
from core.errors import DataError
from tests.agents.trading.sized import hit_rate


def evidence(n: int, hits: float, win: float = 0.06, loss: float = -0.03) -> Evidence:
    return Evidence.of(PromotionGate().judge(hit_rate(n, hits / n if n else None, win=win, loss=loss)))


def at_p(p: float) -> Evidence:
    nothing = np.asarray(math.nan)
    return Evidence(p=np.asarray(p), n_closed=np.asarray(0.0), hits=np.asarray(0.0), mean_win=nothing, mean_loss=nothing)


def size(sizing: Sizing, known: Evidence) -> float:
    return float(sizing.size(known))


@pytest.mark.parametrize(("p", "expected"), [(0.0, 0.02), (0.5, 0.02), (0.6, 0.026), (0.75, 0.035), (1.0, 0.05)])
def test_the_ramp_is_that_of_the_seed(p: float, expected: float) -> None:
    assert size(RampSizing(), at_p(p)) == pytest.approx(expected, abs=1e-15)


def test_a_measured_hit_rate_of_zero_gives_the_ramps_floor_size() -> None:
    assert size(RampSizing(), evidence(10, 0)) == 0.02
    assert size(RampSizing(), evidence(10, 10)) == pytest.approx(0.02 + 2 * 0.25 * 0.03)


def test_the_ramp_ends_at_its_largest_size() -> None:
    assert size(RampSizing(slope=0.2), at_p(0.9)) == 0.05


def test_kelly_is_the_fraction_of_the_classic_stake_at_the_lower_bound() -> None:
    # 60 hits of 100, mean gain 4 %, mean loss 2 %; worked out with scipy's distribution instead of its special function.
    p = stats.beta(5 + 60, 5 + 40).ppf(0.35)
    b = 2.0 ** (40 / 50)
    expected = 0.05 * (p - (1 - p) / b)
    assert size(KellySizing(fraction=0.05), evidence(100, 60, 0.04, -0.02)) == pytest.approx(expected, rel=1e-9)
    assert 0.0 < expected < 0.05


def test_kelly_stakes_nothing_where_hits_are_many_but_losses_are_larger() -> None:
    often_small = evidence(200, 150, 0.01, -0.04)
    assert size(RampSizing(), often_small) > 0.03
    assert size(KellySizing(), often_small) == 0.0


def test_kelly_stakes_nothing_on_a_coin_and_something_on_a_better_one() -> None:
    assert size(KellySizing(), evidence(1000, 500, 0.03, -0.03)) == 0.0
    assert size(KellySizing(), evidence(1000, 560, 0.03, -0.03)) > 0.0


def test_a_cost_that_eats_the_edge_takes_the_stake() -> None:
    thin = evidence(5000, 2750, 0.010, -0.010)
    assert size(KellySizing(), thin) > 0.0
    assert size(KellySizing(extra_cost=0.002), thin) == 0.0
    assert size(KellySizing(extra_cost=0.02), thin) == 0.0


def test_the_edge_at_the_bound_decides_exactly() -> None:
    # With equal gains and losses the stake is positive exactly when the lower bound of p is above one half.
    for hits in range(200, 301):
        known = evidence(500, hits, 0.03, -0.03)
        above = stats.beta(5 + hits, 5 + 500 - hits).ppf(0.35) > 0.5
        assert (size(KellySizing(), known) > 0.0) == above


def test_a_context_on_probation_gets_a_small_stake_or_kellys_and_then_kellys_alone() -> None:
    probation, kelly = ProbationSizing(), KellySizing()
    assert size(kelly, evidence(39, 10)) == size(kelly, evidence(40, 10)) == 0.0
    assert size(probation, evidence(39, 10)) == 0.01
    assert size(probation, evidence(40, 10)) == 0.0
    for n in (39, 40):
        assert size(probation, evidence(n, 30)) == size(kelly, evidence(n, 30)) > 0.01


def test_a_payoff_that_is_not_known_is_taken_as_one() -> None:
    only_wins = Evidence.of(PromotionGate().judge(hit_rate(5, 1.0, loss=None)))
    p = stats.beta(10, 5).ppf(0.35)
    assert size(KellySizing(fraction=0.1), only_wins) == pytest.approx(0.1 * (2 * p - 1), rel=1e-9)
    without_cost = Evidence.of(PromotionGate().judge(hit_rate(4, 0.5, loss=0.0)))
    assert float(KellySizing().payoff_ratio(without_cost)) == 1.0


@given(
    p=st.floats(0, 1),
    n=st.integers(0, 5000),
    share=st.floats(0, 1),
    win=st.floats(1e-6, 10),
    loss=st.floats(-1, 0),
    most=st.floats(0, 1),
)
def test_every_size_is_within_its_cap(p: float, n: int, share: float, win: float, loss: float, most: float) -> None:
    known = Evidence(
        p=np.asarray(p),
        n_closed=np.asarray(float(n)),
        hits=np.asarray(float(round(n * share))),
        mean_win=np.asarray(win),
        mean_loss=np.asarray(loss),
    )
    kelly = KellySizing(max_size=most, extra_cost=0.001)
    for sizing in (RampSizing(max_size=most), kelly, ProbationSizing(kelly=kelly, stake=0.5), FixedSizing(fraction=most)):
        assert 0.0 <= size(sizing, known) <= most


@given(low=st.floats(0, 1), high=st.floats(0, 1))
def test_the_ramp_never_falls_as_p_rises(low: float, high: float) -> None:
    low, high = sorted((low, high))
    assert size(RampSizing(), at_p(low)) <= size(RampSizing(), at_p(high))


@given(n=st.integers(1, 400), win=st.floats(0.001, 0.5), loss=st.floats(-0.5, -0.001))
def test_kelly_never_falls_as_hits_rise(n: int, win: float, loss: float) -> None:
    hits = np.arange(n + 1.0)
    ones = np.ones(n + 1)
    known = Evidence(p=ones / 2, n_closed=ones * n, hits=hits, mean_win=ones * win, mean_loss=ones * loss)
    assert np.all(np.diff(KellySizing().size(known)) >= -1e-12)


@given(n=st.integers(0, 5000), data=st.data(), win=st.floats(1e-4, 0.5), loss=st.floats(-0.5, -1e-4))
def test_kelly_is_zero_without_a_positive_edge_as_measured(n: int, data: st.DataObject, win: float, loss: float) -> None:
    most = math.floor(n * -loss / (win - loss))  # hits up to here do not make up for the losses
    hits = data.draw(st.integers(0, most))
    assert size(KellySizing(), evidence(n, hits, win, loss)) == 0.0


def test_shrinking_does_not_turn_nine_small_hits_and_one_large_loss_into_an_edge() -> None:
    assert size(KellySizing(), evidence(10, 9, 0.005, -0.05)) == 0.0
    assert size(KellySizing(), evidence(10, 9, 0.006, -0.05)) > 0.0


@given(n=st.integers(1, 500), data=st.data())
def test_a_smaller_quantile_never_stakes_more(n: int, data: st.DataObject) -> None:
    known = evidence(n, data.draw(st.integers(0, n)))
    assert size(KellySizing(lower_quantile=0.1), known) <= size(KellySizing(lower_quantile=0.4), known)


def test_many_contexts_are_sized_as_each_alone() -> None:
    cases = [(10, 9, 0.05, -0.02), (50, 20, 0.06, -0.03), (200, 150, 0.04, -0.03), (400, 100, 0.06, -0.03)]
    many = Evidence(
        p=np.array([(hits + 5) / (n + 10) for n, hits, _, _ in cases]),
        n_closed=np.array([float(n) for n, _, _, _ in cases]),
        hits=np.array([float(hits) for _, hits, _, _ in cases]),
        mean_win=np.array([win for _, _, win, _ in cases]),
        mean_loss=np.array([loss for _, _, _, loss in cases]),
    )
    for name in SIZINGS:
        sizing = build_sizing(name)
        assert sizing.name == name
        alone = [size(sizing, evidence(*case)) for case in cases]
        assert sizing.size(many).tolist() == pytest.approx(alone, abs=1e-15)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: build_sizing("martingale"), "must be one of ramp, kelly, probation, fixed"),
        (lambda: KellySizing(lower_quantile=0.51), r"`KellySizing\.lower_quantile` must be in \(0, 0\.5\]"),
        (lambda: KellySizing(fraction=1.5), r"`KellySizing\.fraction` must be a fraction"),
        (lambda: RampSizing(max_size=math.nan), r"`RampSizing\.max_size` must be a finite number"),
        (lambda: at_p(1.1), r"`Evidence\.p` must be probabilities"),
        (lambda: at_p(math.nan), r"`Evidence\.p` must be probabilities"),
        (
            lambda: Evidence(
                p=np.asarray(0.5),
                n_closed=np.asarray(1.0),
                hits=np.asarray(2.0),
                mean_win=np.asarray(0.1),
                mean_loss=np.asarray(-0.1),
            ),
            r"`Evidence\.hits` must be in 0\.\.`n_closed`",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(make: Any, text: str) -> None:
    with pytest.raises(DataError, match=text):
        make()
