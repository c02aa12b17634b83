"""The truncation test: does a feature know the future?

Hides how the cuts are chosen. Promises that a passed feature gave the same past, NaN for NaN, when the data ended earlier
and when the future was altered, at every cut that was tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.errors import DataError, ShapeError
from core.market.panel import BAR_FIELDS, Panel
from features.engine import compute
from features.expression import Expression, parse
from features.fields import FloatArray

Feature = str | Expression | Callable[[Panel], npt.ArrayLike]

TOLERANCE = 1e-9
_ROUNDING = 1e-13
_TAIL_BARS = 64


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Name a past value that changed with the future.

    Parameters
    ----------
    bar : int
        Position of the value.
    timestamp : pandas.Timestamp
        Time of that bar.
    symbol : str
        Whose value.
    size : float
        Change relative to the larger of the two values; infinite where a value appeared or vanished.
    cut : int
        Position of the last bar that was left unchanged.
    change : str
        ``"cut"`` if the data ended at the cut, ``"altered"`` if prices after it were altered.
    """

    bar: int
    timestamp: pd.Timestamp
    symbol: str
    size: float
    cut: int
    change: str


@dataclass(frozen=True, kw_only=True)
class LeakReport:
    """Say whether a feature passed the truncation test.

    Parameters
    ----------
    passed : bool
        True if no past value changed.
    n_checks : int
        Number of recomputations that were compared.
    leaks : tuple of Leak
        The largest change of each symbol at each cut, in time order of the cuts.
    """

    passed: bool
    n_checks: int
    leaks: tuple[Leak, ...]

    def summary(self) -> str:
        """Say it in one sentence."""
        if self.passed:
            return f"no leak: the past stayed the same in {self.n_checks} recomputations with the future cut off or altered"
        worst = max(self.leaks, key=lambda leak: leak.size)
        ahead = worst.cut - worst.bar
        return (
            f"leak: {worst.symbol} at bar {worst.bar} ({worst.timestamp:%Y-%m-%d}) changed by {worst.size:.3g} (relative) "
            f"when bars more than {ahead} ahead were {'cut off' if worst.change == 'cut' else 'altered'}; "
            f"{len(self.leaks)} changes in {self.n_checks} recomputations"
        )


def check_leaks(feature: Feature, panel: Panel, *, n_cuts: int = 8, seed: int = 0) -> LeakReport:
    """Test whether past values of a feature depend on the future.

    At each cut the feature is computed twice more: on data that ends there, and on data whose later bars are multiplied
    by random positive factors. A value at or before the cut that changes by more than 1e-9 of itself, or between NaN and
    a number, is a leak.

    Parameters
    ----------
    feature : str, Expression, or callable Panel -> array-like of shape (n_bars, n_assets)
        What to test.
    panel : Panel
        At least three bars.
    n_cuts : int, default=8
        Cuts to try: around the first value, near the end, around a month's end and inside gaps first, the rest at random.
    seed : int, default=0
        Seed of the random cuts and factors.

    Returns
    -------
    LeakReport

    Raises
    ------
    DataError
        If the panel has fewer than three bars, or `n_cuts` is not positive.
    ShapeError
        If a callable returns another shape than its panel's.

    Notes
    -----
    A callable is recomputed on the whole past. An expression is recomputed only from `lookback` + 64 bars before each
    cut, which is exact: the operators give the same bits wherever the data begin, once their lookback is there. So for
    expressions the test also proves the lookback.

    A pass says that no leak was seen at these cuts. A leak that shows only at bars that no cut touched, or smaller than
    the tolerance, is not found.
    """
    if panel.n_bars < 3:
        raise DataError(f"the truncation test needs at least 3 bars, got {panel.n_bars}; pass a longer panel.")
    if n_cuts < 1:
        raise DataError(f"`n_cuts` must be at least 1, was {n_cuts}.")
    rng = np.random.default_rng(seed)
    if isinstance(feature, str):
        feature = parse(feature, extra=tuple(panel.extra))
    values = _run(feature, panel)
    scale = _typical_size(values)
    factors = np.exp(rng.normal(0.0, 0.3, size=(3, *panel.shape)))
    leaks: list[Leak] = []
    cuts = _choose_cuts(values, panel, n_cuts, rng)
    for cut in cuts:
        start, first, stop = 0, 0, panel.n_bars
        if isinstance(feature, Expression):
            first = max(0, cut + 1 - _TAIL_BARS)
            start = max(0, first - feature.lookback)
            stop = min(panel.n_bars, cut + 1 + _TAIL_BARS)
        past = values[first : cut + 1]
        for change, changed in (
            ("cut", panel.slice(start, cut + 1)),
            ("altered", _alter(panel, factors, start, cut + 1, stop)),
        ):
            again = _run(feature, changed)[first - start : cut + 1 - start]
            leaks += _compare(past, again, scale, panel, first, cut, change)
    return LeakReport(passed=not leaks, n_checks=2 * len(cuts), leaks=tuple(leaks))


def _run(feature: Expression | Callable[[Panel], npt.ArrayLike], panel: Panel) -> FloatArray:
    if isinstance(feature, Expression):
        return compute(feature, panel)
    values = np.asarray(feature(panel), dtype=np.float64)
    if values.shape != panel.shape:
        raise ShapeError(
            f"a feature must return the shape of its panel (n_bars, n_assets) = {panel.shape}, returned {values.shape}; "
            "keep rows without a value as NaN."
        )
    return values


def _alter(panel: Panel, factors: FloatArray, start: int, first_altered: int, stop: int) -> Panel:
    prices, volume, extra = (factor[start:stop].copy() for factor in factors)
    for factor in (prices, volume, extra):
        factor[: first_altered - start] = 1.0
    part = panel.slice(start, stop)
    columns = {name: part.get(name) * (volume if name == "volume" else prices) for name in BAR_FIELDS if name in part.fields}
    return Panel(
        index=part.index,
        symbols=part.symbols,
        extra={name: values * extra for name, values in part.extra.items()},
        name=part.name,
        **columns,  # type: ignore[arg-type]
    )


def _compare(
    past: FloatArray, again: FloatArray, scale: FloatArray, panel: Panel, first: int, cut: int, change: str
) -> list[Leak]:
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = np.abs(past - again)
        largest = np.fmax(np.abs(past), np.abs(again))
        size = np.where(gap > np.maximum(TOLERANCE * largest, _ROUNDING * scale), gap / largest, 0.0)
    size[(past == again) | (np.isnan(past) & np.isnan(again))] = 0.0
    size[np.isnan(past) != np.isnan(again)] = np.inf
    size[np.isinf(past) != np.isinf(again)] = np.inf
    return [
        Leak(
            bar=first + int(row),
            timestamp=panel.index[first + int(row)],
            symbol=panel.symbols[column],
            size=float(size[row, column]),
            cut=cut,
            change=change,
        )
        for column, row in enumerate(size.argmax(axis=0))
        if size[row, column] > 0.0
    ]


def _typical_size(values: FloatArray) -> FloatArray:
    """Median absolute value of each column: below a tiny part of it a change is rounding."""
    out = np.zeros(values.shape[1])
    for column in range(values.shape[1]):
        finite = np.abs(values[np.isfinite(values[:, column]), column])
        out[column] = np.median(finite) if len(finite) else 0.0
    return out


def _choose_cuts(values: FloatArray, panel: Panel, n_cuts: int, rng: np.random.Generator) -> list[int]:
    last = panel.n_bars - 2
    valid = np.flatnonzero(np.isfinite(values).any(axis=1))
    wanted = [last]
    if len(valid):
        wanted += [int(valid[0]) - 1, int(valid[0]) + 1]
    for bars in _gap_bars(panel):
        if len(bars):
            wanted.append(int(rng.choice(bars)))
    months = panel.index.year.to_numpy() * 12 + panel.index.month.to_numpy()
    month_ends = np.flatnonzero(months[1:] != months[:-1])
    if len(month_ends):
        end = int(rng.choice(month_ends))
        wanted += [end - 1, end]
    wanted += [int(bar) for bar in rng.permutation(last + 1)[: n_cuts + len(wanted)]]
    chosen = dict.fromkeys(bar for bar in wanted if 0 <= bar <= last)
    return sorted(list(chosen)[:n_cuts])


def _gap_bars(panel: Panel) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Bars inside gaps, and before a symbol's first value: what fills from behind, or from both sides, shows there."""
    inside = np.zeros(panel.n_bars, dtype=np.bool_)
    leading = np.zeros(panel.n_bars, dtype=np.bool_)
    for name in panel.fields:
        known = ~np.isnan(panel.get(name))
        earlier = np.logical_or.accumulate(known, axis=0)
        later = np.logical_or.accumulate(known[::-1], axis=0)[::-1]
        inside |= (~known & earlier & later).any(axis=1)
        leading |= (~earlier & later).any(axis=1)
    return np.flatnonzero(inside), np.flatnonzero(leading)
