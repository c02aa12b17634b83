"""What a feature tells about later returns, before any trading: coverage, rank IC and its decay, quantiles, persistence.

Hides ranking, alignment and error bars. Promises that no bar at or after the seal is read, that a label begins one bar after
its decision, and that nothing here is a Sharpe ratio: those need a row of the ledger.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from core.errors import DataError, MissingDataError, ShapeError, StoreUnavailableError
from features import crosssection
from features.engine import compute
from features.explanation import Explanation, explain
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

if TYPE_CHECKING:
    from core.market.panel import Panel

DELAY = 1
"""Bars between decision and entry."""

LAGS = tuple(range(1, 21))
LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

Direction = Literal["across symbols", "over time"]


@dataclass(frozen=True, kw_only=True)
class HorizonStudy:
    """Say what the feature tells about the returns over one horizon.

    Parameters
    ----------
    horizon : int
        Bars held, from one bar after the decision.
    rank_ic : float, optional
        Mean over the bars of Spearman's correlation between feature and forward return; None where no bar has one.
    rank_ic_error : float, optional
        Its standard error, after Newey and West with lag ``horizon - 1``: labels overlap.
    rank_ic_t : float, optional
        Their ratio.
    n_bars : int
        Bars that the mean is made of.
    quantile_returns : tuple of (float or None), fractions per bar
        Mean forward return of each quantile of the feature, the lowest first, divided by the horizon.
    all_returns : float, optional, fraction per bar
        The same for all symbols that have a value.
    """

    horizon: int
    rank_ic: float | None
    rank_ic_error: float | None
    rank_ic_t: float | None
    n_bars: int
    quantile_returns: tuple[float | None, ...]
    all_returns: float | None


@dataclass(frozen=True, kw_only=True)
class YearStudy:
    """Hold the mean rank IC of the bars of one calendar year (UTC), over the shortest horizon."""

    year: int
    rank_ic: float
    n_bars: int


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """Hold one statistic of the values.

    Parameters
    ----------
    name : str
        ``mean``, ``std`` (ddof=1), ``skew`` (adjusted Fisher-Pearson), or ``q`` and a percentage for a quantile.
    pooled : float, optional
        Of all values together.
    per_bar : float, optional
        Computed across the symbols of each bar, then averaged over the bars; None where there is no cross-section.
    """

    name: str
    pooled: float | None
    per_bar: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureStudy:
    """Describe a feature on the bars before the seal; in a notebook it shows itself.

    Parameters
    ----------
    title : str
        Name of the feature, or its formula.
    hypothesis : str
        Why it should work; may be empty.
    expression : Expression, optional
        None for values that were handed over.
    dataset, dataset_sha256 : str
        Panel that was read, and the hash of the bars before the seal.
    first_bar, last_bar : datetime
        Span of those bars, UTC.
    sealed_from : datetime, optional
        Where the hold-out begins; None if the caller named no seal.
    n_bars, n_symbols : int
    direction : "across symbols" or "over time"
        What is ranked together: the symbols of a bar, or, with fewer than three symbols, the bars of a symbol.
    coverage : float
        Share of the values there could be: of the bars and symbols that have a closing price.
    coverage_by_bar : Series of length n_bars
        The same for each bar; NaN where no symbol has a price.
    distribution : tuple of Statistic
    horizons : tuple of HorizonStudy
        In increasing order.
    autocorrelation : tuple of (float or None)
        Spearman's correlation of the values of a bar and those 1, 2, ... 20 bars before, averaged over the bars.
    turnover : float, optional
        Mean over the bars of the sum of absolute changes of rank weights, which sum to zero and whose absolute values sum
        to one: 2 replaces everything. Over time: mean absolute change of a position that goes from -1 to 1 by rank.
    years : tuple of YearStudy
    """

    title: str
    hypothesis: str
    expression: Expression | None
    dataset: str
    dataset_sha256: str
    first_bar: datetime
    last_bar: datetime
    sealed_from: datetime | None
    n_bars: int
    n_symbols: int
    direction: Direction
    n_quantiles: int
    coverage: float
    coverage_by_bar: pd.Series
    distribution: tuple[Statistic, ...]
    horizons: tuple[HorizonStudy, ...]
    autocorrelation: tuple[float | None, ...]
    turnover: float | None
    years: tuple[YearStudy, ...]

    @property
    def sample(self) -> str:
        """Say in one sentence what was read."""
        several = "" if self.n_symbols == 1 else "s"
        span = f"{self.n_bars:,} bars x {self.n_symbols} symbol{several} of {self.dataset or 'an unnamed data set'}"
        dates = f"{self.first_bar:%Y-%m-%d} to {self.last_bar:%Y-%m-%d}"
        if self.sealed_from is None:
            return f"{span}, {dates}. No seal was named: every bar handed over was read."
        return f"{span}, {dates}, all before the seal: nothing from {self.sealed_from:%Y-%m-%d} on was read."

    @property
    def caveats(self) -> tuple[str, ...]:
        """Say what must be known before believing a figure."""
        found = (
            "In sample: if a search saw these bars before it proposed this feature, its rank IC is optimistic. Whether it is "
            "real is for the ledger of trials and the sealed hold-out to say.",
            "Before costs, and no Sharpe ratio: that of a searched strategy is shown only with its row of the ledger "
            "(aqf plan).",
        )
        if self.direction == "across symbols":
            return found
        several = "" if self.n_symbols == 1 else "s"
        return (
            f"The data set has {self.n_symbols} symbol{several}, too few to rank across: the rank IC "
            "here is the correlation over time, and ranks and quantiles are those of the whole sample, which nobody knew then.",
            *found,
        )

    @cached_property
    def explanation(self) -> Explanation | None:
        """What the expression computes, in words and as a tree; None for values that were handed over."""
        return None if self.expression is None else explain(self.expression)

    @cached_property
    def pictures(self) -> Mapping[str, bytes]:
        """PNGs by name, drawn on first use; a picture whose figures are all missing is left out."""
        from features.charts import draw_study

        return draw_study(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as what JSON can carry; coverage by bar is summed up by year."""
        coverage = self.coverage_by_bar.groupby(self.coverage_by_bar.index.year).mean()
        return {
            "title": self.title,
            "hypothesis": self.hypothesis,
            "expression": None if self.expression is None else self.expression.canonical,
            "expression_sha256": None if self.expression is None else self.expression.sha256,
            "lookback": None if self.expression is None else self.expression.lookback,
            "dataset": self.dataset,
            "dataset_sha256": self.dataset_sha256,
            "first_bar": self.first_bar.isoformat(),
            "last_bar": self.last_bar.isoformat(),
            "sealed_from": None if self.sealed_from is None else self.sealed_from.isoformat(),
            "n_bars": self.n_bars,
            "n_symbols": self.n_symbols,
            "direction": self.direction,
            "delay": DELAY,
            "coverage": self.coverage,
            "coverage_by_year": {str(year): _number(share) for year, share in coverage.items()},
            "distribution": [asdict(row) for row in self.distribution],
            "horizons": [{**asdict(row), "quantile_returns": list(row.quantile_returns)} for row in self.horizons],
            "autocorrelation": dict(zip(map(str, LAGS), self.autocorrelation, strict=True)),
            "turnover": self.turnover,
            "years": [asdict(row) for row in self.years],
            "caveats": list(self.caveats),
        }

    def to_html(self) -> str:
        """Return one page that fetches nothing and runs no script."""
        from features.page import render_page

        return render_page(self)

    def save(self, folder: str | Path) -> list[Path]:
        """Write the pictures, `study.json` and the page `study.html`, which needs neither.

        Returns
        -------
        list of Path
            The pictures, then the page.

        Raises
        ------
        StoreUnavailableError
            If the folder cannot be written.
        """
        folder = Path(folder)
        contents = {f"{name}.png": picture for name, picture in self.pictures.items()}
        contents["study.json"] = json.dumps(self.to_dict(), indent=2, allow_nan=False).encode()
        contents["study.html"] = self.to_html().encode()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in contents.items():
                (folder / name).write_bytes(content)
        except OSError as error:
            raise StoreUnavailableError(
                f"the study cannot be written to {folder} ({error.strerror}): choose another folder or free space."
            ) from error
        return [folder / name for name in contents if not name.endswith(".json")]

    def _repr_html_(self) -> str:
        from features.page import render_frame

        return render_frame(self)

    def __repr__(self) -> str:
        first = self.horizons[0]
        ic = "n/a" if first.rank_ic is None else f"{first.rank_ic:+.4f}"
        return f"FeatureStudy({self.title}: rank IC {ic} at horizon {first.horizon}, {self.n_bars} bars of {self.dataset})"


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
    if sealed_from is not None:
        if sealed_from.tzinfo is None:
            raise DataError(f"`sealed_from` must carry its zone, was the naive {sealed_from.isoformat()}; use UTC.")
        whole, panel = panel.n_bars, panel.before(pd.Timestamp(sealed_from))
        if isinstance(feature, np.ndarray) and len(feature) == whole:
            feature = feature[: panel.n_bars]
    if panel.n_bars == 0 or panel.n_assets == 0:
        raise MissingDataError("a study needs at least one bar of one symbol before the seal, got none; pass a longer panel.")
    expression = parse(feature, extra=tuple(panel.extra)) if isinstance(feature, str) else feature
    if isinstance(expression, Expression):
        values = compute(expression, panel)
    else:
        values, expression = _check_values(expression, panel), None
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
    spans = tuple(sorted(int(horizon) for horizon in horizons))
    if not spans or spans[0] < 1 or len(set(spans)) != len(spans):
        raise DataError(f"`horizons` must be different whole numbers of bars, at least 1, were {list(horizons)}.")
    return spans


def _check_values(values: FloatArray, panel: Panel) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != panel.shape:
        raise ShapeError(f"values of a feature must have the shape (n_bars, n_assets) = {panel.shape}, had {array.shape}.")
    return np.where(np.isinf(array), np.nan, array)


def _ic_by_bar(ranked: Ranked, labels: Ranked, across: bool) -> FloatArray:
    """Rank IC of each bar; over time, what the bar adds to it, so that the mean over the bars is the correlation."""
    if across:
        return rank_correlation(ranked, labels)
    products = rank_products(ranked, labels)
    shares = products * (~np.isnan(products)).sum(axis=1, keepdims=True)
    known = ~np.isnan(shares)
    return np.where(known, shares, 0.0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)


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
        known = ~np.isnan(figures)
        return np.where(known, figures, 0.0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)

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


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
