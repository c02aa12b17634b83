"""What a feature tells about later returns, before any trading: coverage, rank IC and its decay, quantiles, persistence.

Hides ranking, alignment and error bars. Promises that no bar at or after the seal is read, and that a label begins one bar
after its decision.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from core.errors import DataError, MissingDataError, ShapeError
from features import crosssection
from features.engine import compute
from features.expression import Expression, parse
from features.fields import FloatArray
from features.labels import forward_returns
from features.rank_statistics import (
    MIN_RANKED,
    Ranked,
    bucket_means,
    mean_error,
    rank_correlation,
    rank_products,
    rank_weights,
    row_moments,
    row_quantiles,
)
from features.study_result import DELAY, LAGS, FeatureStudy, HorizonStudy, Statistic, YearStudy

if TYPE_CHECKING:
    from core.market.panel import Panel

__all__ = ["FeatureStudy", "study"]

LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""Quantiles of the values that are reported."""


def study(
    feature: str | Expression | FloatArray,
    panel: Panel,
    *,
    horizons: Sequence[int] = range(1, 21),
    n_quantiles: int = 5,
    sealed_from: datetime | None = None,
    title: str = "",
    hypothesis: str = "",
) -> FeatureStudy:
    """Measure what a feature tells about later returns.

    .. warning:: Decided at the close of bar ``t``, entered at the close of ``t + 1``, left at the close of
       ``t + 1 + horizon`` (`features.labels.forward_returns`).

    Parameters
    ----------
    feature : str, Expression, or ndarray of shape (n_bars, n_assets)
        An expression, or values of whatever origin, whose row ``t`` was known at the close of bar ``t``.
    panel : Panel
        Bars to measure on.
    horizons : sequence of int, default=1..20
        Bars held.
    n_quantiles : int, default=5
        Buckets of the feature within a bar: ``floor(n * (rank - 0.5) / count)``, so ties share one.
    sealed_from : datetime, optional
        First moment of the hold-out; bars from there on are not read, not even as labels. A panel that a researcher's store
        handed out has none.
    title, hypothesis : str, optional
        What to call it, and why it should work.

    Returns
    -------
    FeatureStudy

    Raises
    ------
    ExpressionError, LookAheadError
        If the text of a feature cannot be accepted.
    ShapeError
        If values have another shape than the panel.
    MissingDataError
        If the feature has no value at all on these bars, or a column is missing.
    DataError
        If a horizon is not positive or comes twice, or there are fewer than two quantiles or more than what is ranked.

    References
    ----------
    .. [1] Grinold, R. C. & Kahn, R. N. (2000). Active portfolio management, 2nd ed., ch. 6. McGraw-Hill. (Information
       coefficient; we take its rank form, averaged over bars.)
    .. [2] Newey, W. K. & West, K. D. (1987). A simple, positive semi-definite, heteroskedasticity and autocorrelation
       consistent covariance matrix. Econometrica, 55(3), 703-708. (Its error; see `features.rank_statistics.mean_error`.)
    """
    spans = _check_horizons(horizons)
    whole = panel
    if sealed_from is not None:
        if sealed_from.tzinfo is None:
            raise DataError(f"`sealed_from` must carry its zone, was the naive {sealed_from.isoformat()}; use UTC.")
        panel = panel.before(pd.Timestamp(sealed_from))
    if panel.n_bars == 0 or panel.n_assets == 0:
        raise MissingDataError("a study needs at least one bar of one symbol before the seal, got none; pass a longer panel.")
    expression: Expression | None = None
    if isinstance(feature, str | Expression):
        expression = parse(feature, extra=tuple(panel.extra)) if isinstance(feature, str) else feature
        values = compute(expression, panel)
    else:
        values = _check_values(feature, whole)[: panel.n_bars]
    if np.isnan(values).all():
        back = "" if expression is None else f" It looks back {expression.lookback} bars, there are {panel.n_bars}."
        raise MissingDataError(f"the feature has no value on {panel!r}.{back} Choose a longer panel or a shorter window.")
    across = panel.n_assets >= MIN_RANKED
    ranked_together = panel.n_assets if across else panel.n_bars
    if not 2 <= n_quantiles <= ranked_together:
        raise DataError(f"`n_quantiles` must be in 2..{ranked_together}, was {n_quantiles}.")
    lined = values if across else np.ascontiguousarray(values.T)
    ranked, buckets = Ranked.of(lined), crosssection.quantile(lined, n_quantiles)
    series, found = [], []
    for horizon in spans:
        labels = forward_returns(panel, horizon, DELAY).values
        lined_labels = labels if across else np.ascontiguousarray(labels.T)
        series.append(_ic_by_bar(ranked, Ranked.of(lined_labels), across))
        found.append(_study_horizon(horizon, series[-1], buckets, lined_labels, n_quantiles))
    priced = np.isfinite(panel.close)
    coverage = np.isfinite(values) & priced
    n_priced = priced.sum(axis=1)
    return FeatureStudy(
        title=title or ("values" if expression is None else expression.canonical),
        hypothesis=hypothesis,
        expression=expression,
        dataset=panel.name,
        dataset_sha256=panel.content_sha256(),
        first_bar=panel.index[0].to_pydatetime(),
        last_bar=panel.index[-1].to_pydatetime(),
        sealed_from=sealed_from,
        n_bars=panel.n_bars,
        n_symbols=panel.n_assets,
        direction="across symbols" if across else "over time",
        n_quantiles=n_quantiles,
        coverage=float(coverage.sum() / max(priced.sum(), 1)),
        coverage_by_bar=pd.Series(coverage.sum(axis=1) / np.where(n_priced > 0, n_priced, np.nan), panel.index),
        distribution=_describe(values, across),
        horizons=tuple(found),
        autocorrelation=tuple(_autocorrelation(ranked, lag, across) for lag in LAGS),
        turnover=_turnover(ranked, across),
        years=_by_year(series[0], panel.index),
    )


def _check_horizons(horizons: Sequence[int]) -> tuple[int, ...]:
    try:
        spans = tuple(sorted(operator.index(horizon) for horizon in horizons))
    except TypeError:
        spans = ()
    if not spans or spans[0] < 1 or len(set(spans)) != len(spans):
        raise DataError(f"`horizons` must be different whole numbers of bars, at least 1, were {horizons!r}.")
    return spans


def _check_values(values: object, panel: Panel) -> FloatArray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"a feature must be text, an Expression or an array of values, was {type(values).__name__}; call a function on the "
            "panel and pass what it returns."
        ) from None
    if array.shape != panel.shape:
        raise ShapeError(f"values of a feature must have the shape (n_bars, n_assets) = {panel.shape}, had {array.shape}.")
    return np.where(np.isinf(array), np.nan, array)


def _ic_by_bar(ranked: Ranked, labels: Ranked, across: bool) -> FloatArray:
    """Rank IC of each bar; over time, what the bar adds to it, so that the mean over the bars is the correlation."""
    if across:
        return rank_correlation(ranked, labels)
    products = rank_products(ranked, labels)
    shares = products * (~np.isnan(products)).sum(axis=1, keepdims=True)
    return _mean_of_known(shares)


def _study_horizon(horizon: int, by_bar: FloatArray, buckets: FloatArray, labels: FloatArray, n_quantiles: int) -> HorizonStudy:
    known = by_bar[~np.isnan(by_bar)]
    mean = float(known.mean()) if len(known) else float("nan")
    error = mean_error(by_bar, lag=horizon - 1)
    together = bucket_means(np.where(np.isnan(buckets), np.nan, 0.0), labels, 1)[0]
    return HorizonStudy(
        horizon=horizon,
        rank_ic=_number(mean),
        rank_ic_error=_number(error),
        rank_ic_t=_number(mean / error),
        n_bars=len(known),
        quantile_returns=tuple(_number(value / horizon) for value in bucket_means(buckets, labels, n_quantiles)),
        all_returns=_number(together / horizon),
    )


def _describe(values: FloatArray, across: bool) -> tuple[Statistic, ...]:
    names = ("mean", "std", "skew", *(f"q{100 * level:02.0f}" for level in LEVELS))

    def measure(rows: FloatArray) -> FloatArray:
        figures = np.column_stack([row_moments(rows), row_quantiles(rows, np.array(LEVELS))])
        return _mean_of_known(figures)

    pooled = measure(values.reshape(1, -1))
    per_bar = measure(values) if across else np.full(len(names), np.nan)
    return tuple(
        Statistic(name=name, pooled=_number(all_), per_bar=_number(bar))
        for name, all_, bar in zip(names, pooled, per_bar, strict=True)
    )


def _autocorrelation(ranked: Ranked, lag: int, across: bool) -> float | None:
    if across:
        rows = rank_correlation(ranked.rows(slice(lag, None)), ranked.rows(slice(None, -lag)))
    elif ranked.values.shape[1] > lag:
        rows = rank_correlation(Ranked.of(ranked.values[:, lag:]), Ranked.of(ranked.values[:, :-lag]))
    else:
        return None
    known = rows[~np.isnan(rows)]
    return float(known.mean()) if len(known) else None


def _turnover(ranked: Ranked, across: bool) -> float | None:
    if across:
        changes = np.abs(np.diff(rank_weights(ranked), axis=0)).sum(axis=1)
    else:
        last = (~np.isnan(ranked.ranks)).sum(axis=1, keepdims=True) - 1
        changes = np.abs(np.diff(2.0 * ranked.ranks / np.where(last > 0, last, np.nan), axis=1)).ravel()
    known = changes[~np.isnan(changes)]
    return float(known.mean()) if len(known) else None


def _by_year(by_bar: FloatArray, index: pd.DatetimeIndex) -> tuple[YearStudy, ...]:
    years = index.year.to_numpy()
    known = ~np.isnan(by_bar)
    return tuple(
        YearStudy(year=int(year), rank_ic=float(by_bar[part].mean()), n_bars=int(part.sum()))
        for year in np.unique(years[known])
        for part in [known & (years == year)]
    )


def _mean_of_known(values: FloatArray) -> FloatArray:
    known = ~np.isnan(values)
    mean: FloatArray = np.where(known, values, 0.0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)
    return mean


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
