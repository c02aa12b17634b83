"""What a study of a feature found: figures, pictures, a page.

Promises that figures that could not be measured are None, that every rendering says which bars were read and what to beware
of, and that nothing here is a Sharpe ratio: those need a row of the ledger.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from core.errors import StoreUnavailableError
from features.explanation import Explanation, explain
from features.expression import Expression

DELAY = 1
"""Bars between decision and entry."""

LAGS = tuple(range(1, 21))
"""Lags of the rank autocorrelation, in bars."""

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
        coverage = self.coverage_by_bar.groupby(pd.DatetimeIndex(self.coverage_by_bar.index).year).mean()
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
            "coverage_by_year": {str(year): None if math.isnan(share) else float(share) for year, share in coverage.items()},
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
