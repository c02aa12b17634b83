"""Evaluation over a Panel."""

import subprocess
import sys

import numpy as np
import pytest

import features
from core.errors import ExpressionError, MissingDataError
from core.market import Panel
from features import compute, engine, parse
from features.fields import available_fields, load_field
from tests.features.panels import build_panel

PANEL = build_panel(200, 4)


def test_one_feature_gives_a_matrix_and_several_give_a_stack():
    one = compute("rank(returns)", PANEL)
    many = compute(["rank(returns)", parse("-returns"), "rank(returns)"], PANEL)
    assert one.shape == (200, 4)
    assert many.shape == (3, 200, 4)
    np.testing.assert_array_equal(many[0], one)
    np.testing.assert_array_equal(many[2], one)
    np.testing.assert_array_equal(many[1], -PANEL.returns())
    assert compute([], PANEL).shape == (0, 200, 4)


def test_text_and_expression_give_the_same():
    np.testing.assert_array_equal(compute("ts_std(returns, 5)", PANEL), compute(parse("ts_std(returns, 5)"), PANEL))


def test_shared_parts_are_computed_once(monkeypatch):
    loaded = []

    def counting(name, panel):
        loaded.append(name)
        return load_field(name, panel)

    monkeypatch.setattr(engine, "load_field", counting)
    compute(["ts_mean(returns, 5) / ts_std(returns, 5)", "rank(ts_mean(returns, 5))", "returns * returns"], PANEL)
    assert loaded == ["returns"]


def test_results_belong_to_the_caller():
    got = compute("close", PANEL)
    got[:] = 0.0
    assert np.nanmin(PANEL.close) > 0.0


def test_spelling_does_not_change_a_single_bit():
    left = compute("(close + open) * returns - max(low, high)", PANEL)
    right = compute("returns * (open + close) - max(high, low)", PANEL)
    np.testing.assert_array_equal(left, right)


def test_a_missing_column_is_named_with_what_is_there():
    closes = build_panel(50, 4, bars_only_close=True)
    with pytest.raises(MissingDataError, match=r"random closes has no `volume`.*it has close"):
        compute("ts_mean(volume, 5)", closes)
    with pytest.raises(MissingDataError, match=r"has no `volume` \(needed for `dollar_volume`\)"):
        compute("dollar_volume", closes)
    with pytest.raises(MissingDataError, match="`high`, `low`"):
        compute("vwap", closes)
    with pytest.raises(MissingDataError, match="has no `book`"):
        compute(parse("book", extra=("book",)), closes)


def test_extra_columns_can_be_read():
    np.testing.assert_array_equal(compute("book * 2", PANEL), PANEL.get("book") * 2)
    with pytest.raises(ExpressionError, match=r"did you mean book\?"):
        compute("boook * 2", PANEL)


def test_what_is_no_expression_is_refused():
    with pytest.raises(ExpressionError, match="pass expressions only"):
        compute(["close", 5], PANEL)


def test_derived_fields_by_hand():
    close = np.array([[10.0, 20.0, np.nan], [11.0, 18.0, 5.0], [0.0, 18.0, 6.0], [5.0, np.nan, 3.0]])
    volume = np.full(close.shape, 2.0)
    panel = Panel(index=PANEL.index[:4], symbols=("A", "B", "C"), close=close, high=close + 1, low=close - 4, volume=volume)
    nan = np.nan
    np.testing.assert_allclose(compute("returns", panel), [[nan] * 3, [0.1, -0.1, nan], [nan, 0.0, 0.2], [nan, nan, -0.5]])
    np.testing.assert_allclose(compute("log_returns", panel)[1], [np.log(1.1), np.log(0.9), nan])
    np.testing.assert_allclose(compute("market_returns", panel), [[nan] * 3, [0.0] * 3, [0.1] * 3, [-0.5] * 3], atol=1e-15)
    np.testing.assert_allclose(compute("vwap", panel), close - 1.0)
    np.testing.assert_allclose(compute("dollar_volume", panel), 2.0 * close)


def test_a_vwap_column_of_the_panel_is_preferred():
    vwap = np.full((4, 1), 9.0)
    panel = Panel(index=PANEL.index[:4], symbols=("A",), close=np.ones((4, 1)), extra={"vwap": vwap})
    np.testing.assert_array_equal(compute("vwap", panel), vwap)


def test_available_fields_follow_from_the_columns():
    assert available_fields(("close",)) == ("close", "returns", "log_returns", "market_returns")
    assert "dollar_volume" in available_fields(("close", "volume"))
    assert available_fields(("close", "zeal", "book"))[-2:] == ("book", "zeal")


def test_empty_panels_give_empty_features():
    none = PANEL.slice(0, 0)
    texts = [
        "rank(ts_mean(returns, 5))",
        "ts_std(returns, 5) + ts_rank(close, 5)",
        "winsorize(zscore(close), 0.1)",
        "market_returns",
    ]
    assert compute(texts, none).shape == (4, 0, 4)
    assert compute(texts, PANEL.select([])).shape == (4, 200, 0)


def test_importing_features_and_parsing_loads_no_compiler():
    code = (
        "import sys, features; features.parse('ts_std(returns, 5)'); import features.alphas; "
        "sys.exit('numba' in sys.modules or 'sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_public_names_are_sorted_and_there():
    assert features.__all__ == sorted(features.__all__)
    for name in features.__all__:
        assert getattr(features, name) is not None
    with pytest.raises(AttributeError, match="nosuch"):
        features.nosuch
