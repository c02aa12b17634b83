import numpy as np
import pytest

from features import compute, parse
from features.alphas import LIBRARY, library_for
from tests.features.panels import build_panel

PANEL = build_panel(900, 6, gaps=False)
CLOSES = build_panel(900, 6, gaps=False, bars_only_close=True)


def test_the_library_is_large_and_mostly_needs_closes_alone():
    assert len(LIBRARY) >= 100
    assert len(library_for(("close",))) >= 75
    assert library_for(PANEL.fields) == LIBRARY
    assert library_for(()) == ()


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
    values = compute(next(c.expression for c in LIBRARY if c.name == name), CLOSES.replace(close=close))[-1]
    assert drift * (values[:3].min() - values[3:].max()) > 0.0


def test_low_risk_prefers_the_calm_symbol():
    noise = np.random.default_rng(1).normal(0.0, 1.0, (900, 6)) * np.array([0.005] * 3 + [0.03] * 3)
    panel = CLOSES.replace(close=50.0 * np.exp(np.cumsum(noise, axis=0)))
    for name in ("low_volatility_63", "low_max_63", "low_downside_126", "low_residual_volatility"):
        values = compute(next(c.expression for c in LIBRARY if c.name == name), panel)[-1]
        assert values[:3].min() > values[3:].max(), name
