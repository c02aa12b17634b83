import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from core.errors import DataError, MissingDataError, ShapeError
from core.market import Panel
from features import compute, parse
from features.rank_statistics import mean_error
from features.study import study
from tests.features.panels import build_panel

PANEL = build_panel(300, 7, seed=11)
FORMULA = "-ts_mean(returns, 5) / ts_std(returns, 21)"
VALUES = pd.DataFrame(compute(FORMULA, PANEL))
CLOSE = pd.DataFrame(PANEL.close)
STUDY = study(FORMULA, PANEL, horizons=(1, 3, 10), n_quantiles=3)
ALONE = build_panel(300, 1, seed=2, gaps=False)


def forward(horizon: int) -> pd.DataFrame:
    """Entered one bar after the decision."""
    return CLOSE.shift(-1 - horizon) / CLOSE.shift(-1) - 1.0


def spearman(left: pd.Series, right: pd.Series) -> float:
    both = left.notna() & right.notna()
    if both.sum() < 3 or left[both].nunique() < 2 or right[both].nunique() < 2:
        return math.nan
    return float(stats.spearmanr(left[both], right[both]).statistic)


def ic_by_bar(horizon: int) -> pd.Series:
    labels = forward(horizon)
    return pd.Series([spearman(VALUES.loc[t], labels.loc[t]) for t in VALUES.index])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_rank_ic_is_the_mean_of_scipys_spearman_over_the_bars(place: int) -> None:
    found = STUDY.horizons[place]
    expected = ic_by_bar(found.horizon)
    assert found.horizon == (1, 3, 10)[place]
    assert found.rank_ic == pytest.approx(expected.mean(), abs=1e-12)
    assert found.n_bars == expected.count()
    error = mean_error(expected.to_numpy(), lag=found.horizon - 1)
    assert found.rank_ic_error == pytest.approx(error)
    assert found.rank_ic_t == pytest.approx(expected.mean() / error)


@pytest.mark.parametrize("place", [0, 2])
def test_quantile_returns_are_means_over_bars_per_bar_held(place: int) -> None:
    found = STUDY.horizons[place]
    labels = forward(found.horizon)
    rows: list[dict[int, float]] = []
    everybody = []
    for t in VALUES.index:
        ranks = VALUES.loc[t].rank()
        bucket = np.floor(3 * (ranks - 0.5) / ranks.count())
        both = labels.loc[t][bucket.notna()]
        rows.append(both.groupby(bucket).mean().to_dict())
        everybody.append(both.mean())
    expected = pd.DataFrame(rows)[[0.0, 1.0, 2.0]].mean() / found.horizon
    assert found.quantile_returns == pytest.approx(tuple(expected), abs=1e-12)
    assert found.all_returns == pytest.approx(pd.Series(everybody).mean() / found.horizon, abs=1e-12)


def test_years_are_means_of_the_shortest_horizon() -> None:
    by_bar = ic_by_bar(1)
    by_bar.index = PANEL.index
    expected = by_bar.groupby(PANEL.index.year).agg(["mean", "count"])
    assert [(row.year, row.n_bars) for row in STUDY.years] == list(zip(expected.index, expected["count"], strict=True))
    assert [row.rank_ic for row in STUDY.years] == pytest.approx(list(expected["mean"]))
    assert sum(row.n_bars for row in STUDY.years) == STUDY.horizons[0].n_bars


def test_autocorrelation_is_the_mean_of_scipys_spearman_between_bars() -> None:
    assert len(STUDY.autocorrelation) == 20
    for lag in (1, 7, 20):
        earlier = VALUES.shift(lag)
        expected = pd.Series([spearman(VALUES.loc[t], earlier.loc[t]) for t in VALUES.index]).mean()
        assert STUDY.autocorrelation[lag - 1] == pytest.approx(expected, abs=1e-12)


def test_turnover_is_the_mean_change_of_rank_weights() -> None:
    ranks = VALUES.rank(axis=1)
    centred = ranks.sub(ranks.mean(axis=1), axis=0).fillna(0.0)
    weights = centred.div(centred.abs().sum(axis=1), axis=0)
    expected = weights.diff().abs().sum(axis=1, skipna=False).mean()
    assert STUDY.turnover == pytest.approx(expected)
    assert 0.0 < expected < 2.0


def test_coverage_counts_the_cells_that_have_a_price() -> None:
    both = VALUES.notna() & CLOSE.notna()
    assert STUDY.coverage == pytest.approx(both.to_numpy().sum() / CLOSE.notna().to_numpy().sum())
    expected = both.sum(axis=1) / CLOSE.notna().sum(axis=1).replace(0, np.nan)
    np.testing.assert_allclose(STUDY.coverage_by_bar, expected)
    assert STUDY.coverage_by_bar.index.equals(PANEL.index)


def test_distribution_is_that_of_pandas_pooled_and_by_bar() -> None:
    found = {row.name: row for row in STUDY.distribution}
    everything = VALUES.stack()
    assert tuple(found) == ("mean", "std", "skew", "q01", "q05", "q25", "q50", "q75", "q95", "q99")
    for name in ("mean", "std", "skew"):
        assert found[name].pooled == pytest.approx(getattr(everything, name)())
        assert found[name].per_bar == pytest.approx(getattr(VALUES, name)(axis=1).mean(), abs=1e-9)
    for level in (0.01, 0.5, 0.95):
        row = found[f"q{100 * level:02.0f}"]
        assert row.pooled == pytest.approx(everything.quantile(level))
        assert row.per_bar == pytest.approx(VALUES.quantile(level, axis=1).mean())


def test_a_feature_that_is_the_next_return_ranks_perfectly_and_its_opposite_does_the_reverse() -> None:
    next_but_one = forward(1).to_numpy()
    perfect = study(next_but_one, PANEL, horizons=[1]).horizons[0]
    assert perfect.rank_ic == pytest.approx(1.0)
    assert perfect.rank_ic_t is None or perfect.rank_ic_t > 1e6
    low, *_, high = perfect.quantile_returns
    assert low is not None and high is not None
    assert low < 0.0 < high
    assert study(-next_but_one, PANEL, horizons=[1]).horizons[0].rank_ic == pytest.approx(-1.0)


def test_nothing_from_the_seal_on_changes_a_figure() -> None:
    seal = PANEL.index[200]
    changed = PANEL.close.copy()
    changed[200:] *= np.linspace(1.0, 3.0, 100)[:, None]
    first = study(FORMULA, PANEL, sealed_from=seal)
    second = study(FORMULA, PANEL.replace(close=changed), sealed_from=seal)
    cut = study(FORMULA, PANEL.slice(0, 200))
    handed = study(VALUES.to_numpy(), PANEL, sealed_from=seal)
    assert first.to_dict() == second.to_dict()
    for other in (cut, handed):
        assert other.horizons == first.horizons
        assert other.years == first.years
    assert first.last_bar == PANEL.index[199]
    assert f"nothing from {seal:%Y-%m-%d} on was read" in first.sample
    assert "No seal was named" in cut.sample


def test_the_label_of_the_last_bar_before_the_seal_is_not_peeked_at() -> None:
    assert study(FORMULA, PANEL, horizons=[5], sealed_from=PANEL.index[200]).horizons[0].n_bars <= 200 - 6


def test_one_symbol_is_studied_over_time_and_says_so() -> None:
    found = study("pct_change(close, 5)", ALONE, horizons=[1, 5], n_quantiles=4)
    values = pd.Series(compute("pct_change(close, 5)", ALONE)[:, 0])
    close = pd.Series(ALONE.close[:, 0])
    label = close.shift(-6) / close.shift(-1) - 1.0
    assert found.direction == "over time"
    assert "has 1 symbol, too few to rank across" in found.caveats[0]
    assert found.horizons[1].rank_ic == pytest.approx(spearman(values, label))
    bucket = np.floor(4 * (values.rank() - 0.5) / values.count())
    assert found.horizons[1].quantile_returns == pytest.approx(tuple(label.groupby(bucket).mean() / 5))
    assert found.autocorrelation[2] == pytest.approx(spearman(values, values.shift(3)))
    position = 2.0 * (values.rank() - 1.0) / (values.count() - 1.0) - 1.0
    assert found.turnover == pytest.approx(position.diff().abs().mean())
    assert all(row.per_bar is None for row in found.distribution)
    shares = sum(row.rank_ic * row.n_bars for row in found.years) / sum(row.n_bars for row in found.years)
    assert shares == pytest.approx(found.horizons[0].rank_ic)


def test_two_symbols_over_time_are_averaged() -> None:
    pair = build_panel(200, 2, seed=4, gaps=False)
    both = study("returns", pair, horizons=[1])
    alone = [study("returns", pair.select([symbol]), horizons=[1]).horizons[0].rank_ic for symbol in pair.symbols]
    assert both.horizons[0].rank_ic == pytest.approx(np.mean([ic for ic in alone if ic is not None]))


def test_a_feature_without_spread_says_nothing_rather_than_something() -> None:
    flat = study("returns * 0", PANEL)
    first = flat.horizons[0]
    assert (first.rank_ic, first.rank_ic_error, first.rank_ic_t, first.n_bars) == (None, None, None, 0)
    assert flat.turnover is None
    assert set(flat.autocorrelation) == {None}
    assert flat.years == ()


def test_a_horizon_beyond_the_data_has_no_figure() -> None:
    far = study("close", PANEL.slice(0, 12), horizons=[1, 50])
    assert far.horizons[1].rank_ic is None
    assert far.horizons[1].quantile_returns == (None,) * 5
    assert far.autocorrelation[15] is None


def test_figures_survive_json() -> None:
    for one in (STUDY, study("returns * 0", PANEL), study("close", ALONE)):
        found: dict[str, Any] = json.loads(json.dumps(one.to_dict(), allow_nan=False))
        assert found == one.to_dict()
    found = STUDY.to_dict()
    assert found["expression_sha256"] == parse(FORMULA).sha256
    assert found["dataset_sha256"] == PANEL.content_sha256()
    assert "sharpe" not in {key.lower() for key in found}


def test_the_columns_of_a_data_set_may_be_read() -> None:
    assert study("book / ts_mean(book, 5)", PANEL, title="book").title == "book"


def build_empty(n_bars: int, n_assets: int) -> Panel:
    index = pd.date_range("2020-01-01", periods=n_bars, tz="UTC")
    return Panel(index=index, symbols=tuple("ABC"[:n_assets]), close=np.full((n_bars, n_assets), np.nan))


@pytest.mark.parametrize(
    ("feature", "panel", "options", "error", "text"),
    [
        ("close", PANEL, {"horizons": []}, DataError, "`horizons` must be different whole numbers"),
        ("close", PANEL, {"horizons": [0, 1]}, DataError, "at least 1, were"),
        ("close", PANEL, {"horizons": [1.5]}, DataError, r"were \[1\.5\]"),
        ("close", PANEL, {"horizons": 5}, DataError, "were 5"),
        (len, PANEL, {}, DataError, "must be text, an Expression or an array of values, was builtin_function"),
        ("close", PANEL, {"horizons": [2, 2]}, DataError, "must be different"),
        ("close", PANEL, {"n_quantiles": 1}, DataError, r"`n_quantiles` must be in 2\.\.7, was 1"),
        ("close", PANEL, {"n_quantiles": 8}, DataError, r"2\.\.7, was 8"),
        ("close", PANEL, {"sealed_from": PANEL.index[0]}, MissingDataError, "at least one bar"),
        ("close", PANEL, {"sealed_from": PANEL.index[9].tz_localize(None)}, DataError, "must carry its zone"),
        ("ts_mean(close, 2500)", PANEL, {}, MissingDataError, "It looks back 2499 bars, there are 300"),
        ("close", build_empty(9, 3), {}, MissingDataError, "has no value"),
        ("close", build_empty(0, 3), {}, MissingDataError, "at least one bar"),
        ("close", build_empty(9, 0), {}, MissingDataError, "of one symbol"),
        (np.zeros((3, 7)), PANEL, {}, ShapeError, r"\(300, 7\), had \(3, 7\)"),
    ],
)
def test_bad_input_is_refused(feature: Any, panel: Panel, options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        study(feature, panel, **options)


def test_infinite_values_that_are_handed_over_count_as_missing() -> None:
    values = VALUES.to_numpy().copy()
    values[50, 2] = np.inf
    expected = values.copy()
    expected[50, 2] = np.nan
    assert study(values, PANEL).to_dict() == study(expected, PANEL).to_dict()
