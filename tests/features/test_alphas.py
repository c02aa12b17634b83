import numpy as np
import pytest

from features import compute, parse
from features.alphas import ALPHA158, LIBRARY, library_for
from tests.features.panels import build_panel

PANEL = build_panel(900, 6, gaps=False)
CLOSES = build_panel(900, 6, gaps=False, bars_only_close=True)
CLOSE_ONLY = library_for(("close",))


def values_of(name, panel):
    return compute(next(candidate.expression for candidate in LIBRARY if candidate.name == name), panel)


def test_the_library_is_large_and_mostly_needs_closes_alone():
    assert len(LIBRARY) >= 100
    assert len(library_for(("close",))) >= 75
    assert library_for(PANEL.fields) == LIBRARY
    assert library_for(()) == ()
    assert {"momentum", "reversal", "volatility", "liquidity", "volume"} <= {candidate.family for candidate in LIBRARY}


def test_names_and_meanings_are_unique():
    assert len({candidate.name for candidate in LIBRARY}) == len(LIBRARY)
    assert len({parse(candidate.expression).canonical for candidate in LIBRARY}) == len(LIBRARY)


@pytest.mark.parametrize("candidate", LIBRARY, ids=lambda candidate: candidate.name)
def test_every_candidate_says_why_and_gives_values(candidate):
    assert candidate.hypothesis.endswith(".")
    assert candidate.source
    assert candidate.needs == parse(candidate.expression).fields
    values = compute(candidate.expression, PANEL)
    late = values[parse(candidate.expression).lookback + 1 :]
    assert np.isfinite(late).mean() > 0.85
    assert np.ptp(late[np.isfinite(late)]) > 0.0


def test_alpha158_is_offered_on_request_and_claims_no_direction():
    added = library_for(PANEL.fields, alpha158=True)[len(LIBRARY) :]
    assert {candidate.name: candidate.expression for candidate in added} == ALPHA158
    assert {candidate.family for candidate in added} == {"alpha158"}
    assert len({candidate.hypothesis for candidate in added}) == 158
    assert all(candidate.hypothesis.endswith("no direction is claimed.") for candidate in added)
    assert all(candidate.needs == {"close"} for candidate in library_for(("close",), alpha158=True)[len(CLOSE_ONLY) :])


def test_candidates_for_closes_run_on_closes():
    values = compute([candidate.expression for candidate in library_for(CLOSES.fields)], CLOSES)
    assert np.isfinite(values[:, -1]).all()


def test_no_two_candidates_rank_symbols_the_same_way():
    values = compute([f"rank({candidate.expression})" for candidate in LIBRARY], PANEL)[:, 600:].reshape(len(LIBRARY), -1)
    seen: dict[bytes, str] = {}
    for candidate, row in zip(LIBRARY, np.round(values, 6), strict=True):
        twin = seen.setdefault(row.tobytes(), candidate.name)
        assert twin == candidate.name


@pytest.mark.parametrize(
    ("name", "drift"), [("momentum_12_1", 1), ("trend_gap_63", 1), ("high_52_weeks", 1), ("reversal_21", -1)]
)
def test_signs_point_the_way_the_hypothesis_says(name, drift):
    """Of a rising and a falling symbol, momentum prefers the rising one and reversal the falling one."""
    steps = np.where(np.arange(6) < 3, 0.004, -0.004)
    close = PANEL.close[0] * np.exp(np.arange(900)[:, None] * steps)
    values = values_of(name, CLOSES.replace(close=close))[-1]
    assert drift * (values[:3].min() - values[3:].max()) > 0.0


def test_low_risk_prefers_the_calm_symbol():
    noise = np.random.default_rng(1).normal(0.0, 1.0, (900, 6)) * np.array([0.005] * 3 + [0.03] * 3)
    panel = CLOSES.replace(close=50.0 * np.exp(np.cumsum(noise, axis=0)))
    for name in ("low_volatility_63", "low_max_63", "low_downside_126", "low_residual_volatility"):
        values = values_of(name, panel)[-1]
        assert values[:3].min() > values[3:].max(), name


def mean_of_last(x, n=21):
    return x[-n:].mean(axis=0)


def test_corwin_schultz_spread_is_the_papers():
    """Equations 14 and 18 of the paper, written with its own constants."""
    high, low = np.log(PANEL.high), np.log(PANEL.low)
    beta = (high - low)[1:] ** 2 + (high - low)[:-1] ** 2
    gamma = (np.maximum(high[1:], high[:-1]) - np.minimum(low[1:], low[:-1])) ** 2
    constant = 3.0 - 2.0 * np.sqrt(2.0)
    alpha = (np.sqrt(2.0 * beta) - np.sqrt(beta)) / constant - np.sqrt(gamma / constant)
    spread = 2.0 * (np.exp(alpha) - 1.0) / (1.0 + np.exp(alpha))
    expected = mean_of_last(np.maximum(spread, 0.0))
    np.testing.assert_allclose(values_of("corwin_schultz_spread_21", PANEL)[-1], expected, rtol=1e-6)


def test_abdi_ranaldo_spread_is_the_papers():
    close, middle = np.log(PANEL.close), (np.log(PANEL.high) + np.log(PANEL.low)) / 2.0
    squares = 4.0 * (close[:-1] - middle[:-1]) * (close[:-1] - middle[1:])
    expected = mean_of_last(np.sqrt(np.maximum(squares, 0.0)))
    np.testing.assert_allclose(values_of("abdi_ranaldo_spread_21", PANEL)[-1], expected, rtol=1e-9)


def test_spreads_are_found_in_prices_that_bounce_between_bid_and_ask():
    """Without noise of its own a price that is traded at both sides all day shows a range and closes of the whole spread."""
    rng = np.random.default_rng(3)
    spread = np.array([0.001, 0.002, 0.004, 0.008, 0.016, 0.032])
    middle = 50.0 * np.exp(np.cumsum(rng.normal(0.0, 1e-4, (300, 6)), axis=0))
    side = rng.choice([-0.5, 0.5], (300, 6))
    panel = CLOSES.slice(0, 300).replace(
        close=middle * (1.0 + side * spread), high=middle * (1.0 + spread / 2.0), low=middle * (1.0 - spread / 2.0)
    )
    for name in ("corwin_schultz_spread_21", "abdi_ranaldo_spread_21"):
        found = values_of(name, panel)[50:].mean(axis=0)
        assert (np.diff(found) > 0.0).all(), name
        np.testing.assert_allclose(found[-1], 0.032, rtol=0.5)


def test_range_volatilities_are_the_papers():
    open_, high, low, close = (np.log(column[-21:]) for column in (PANEL.open, PANEL.high, PANEL.low, PANEL.close))
    before = np.log(PANEL.close[-22:-1])
    garman_klass = 0.5 * (high - low) ** 2 - (2.0 * np.log(2.0) - 1.0) * (close - open_) ** 2
    up, down, move = high - open_, low - open_, close - open_
    rogers_satchell = (up * (up - move) + down * (down - move)).mean(axis=0)
    k = 0.34 / (1.34 + 22.0 / 20.0)
    yang_zhang = (open_ - before).var(axis=0, ddof=1) + k * move.var(axis=0, ddof=1) + (1.0 - k) * rogers_satchell
    for name, variance in (
        ("low_garman_klass_volatility_21", garman_klass.mean(axis=0)),
        ("low_rogers_satchell_volatility_21", rogers_satchell),
        ("low_yang_zhang_volatility_21", yang_zhang),
    ):
        np.testing.assert_allclose(values_of(name, PANEL)[-1], -np.sqrt(variance), rtol=1e-6)


def test_a_symbol_that_became_easier_to_trade_has_a_liquidity_shock():
    volume = np.full(PANEL.shape, 1e5)
    volume[-5:, :3] *= 10.0
    values = values_of(
        "liquidity_shock", PANEL.replace(close=np.tile(50.0 * 1.01 ** (np.arange(900) % 2), (6, 1)).T, volume=volume)
    )
    np.testing.assert_allclose(values[-1, :3] - values[-1, 3:], np.log(10.0), atol=0.03)
