"""The truncation test: does a feature know the future?

Hides how the data are recomputed. Promises that a passed feature gave the same past, NaN for NaN, when the data ended earlier
and when the future was changed, at every cut that was tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.errors import DataError, ShapeError
from core.market.panel import Panel
from features.cuts import bars_around, bars_of_extremes, choose_cuts
from features.engine import compute
from features.expression import Expression, parse
from features.fields import FloatArray
from features.futures import CHANGES, FeatureInputs, alter_bars, alter_future, cut_future, lengthen
from features.plugins import FOREIGN_ERRORS, PluginFeature
from features.point_in_time import Events, check_symbols

Function = Callable[..., npt.ArrayLike]
Feature = str | Expression | PluginFeature | Function

TOLERANCE = 1e-9
N_CUTS_EXPRESSION = 8
N_CUTS_PYTHON = 40
N_CUTS_EVENTS = 60

_ROUNDING = 1e-13
_TAIL_BARS = 64
_MAX_SWEEPS = 16
_MAX_SUSPECTS = 8


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
        ``"cut"`` if the data ended at the cut, a key of `features.futures.CHANGES` if the bars after it were changed, or
        ``"memory"`` if nothing was changed but other data had been computed in between.
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
    n_values : int
        Number of values that there were to compare; of none, a pass says nothing.
    leaks : tuple of Leak
        The largest change of each symbol at each cut, in time order of the cuts.
    """

    passed: bool
    n_checks: int
    n_values: int
    leaks: tuple[Leak, ...]

    def summary(self) -> str:
        """Say it in one sentence."""
        if self.passed and not self.n_values:
            return "nothing was tested: the feature has no value on these bars; give it more bars, or look back less far"
        if self.passed:
            return f"no leak: the past stayed the same in {self.n_checks} recomputations with the future cut off or changed"
        worst = max(self.leaks, key=lambda leak: leak.size)
        ahead = worst.cut - worst.bar
        if worst.change == "memory":
            cause = "when it was computed again after other data: the feature remembers what it has seen"
        else:
            cause = f"when bars more than {ahead} ahead were {'cut off' if worst.change == 'cut' else worst.change}"
        return (
            f"leak: {worst.symbol} at bar {worst.bar} ({worst.timestamp:%Y-%m-%d}) changed by {worst.size:.3g} (relative) "
            f"{cause}; {len(self.leaks)} changes in {self.n_checks} recomputations"
        )


def check_leaks(
    feature: Feature, panel: Panel, *, events: Events | None = None, n_cuts: int | None = None, seed: int = 0
) -> LeakReport:
    """Test whether past values of a feature depend on the future.

    The feature is computed again on data that end at a cut, and on data whose later bars were changed: multiplied by random
    factors at every cut of an expression; for Python also reversed, frozen, blanked, rescaled, thinned out, or with symbols
    that end, in turn. Events are cut and changed with the bars, by ``known_at``, and those that were known are restated
    later. A value at or before the cut that changes by more than 1e-9 of itself, or between NaN and a number, is a leak.

    Parameters
    ----------
    feature : str, Expression, PluginFeature, or callable
        What to test. A callable takes a Panel, and the events after it if `events` are given, and returns an array-like of
        shape (n_bars, n_assets). It must accept NaN, which means that a symbol has no bar.
    panel : Panel
        At least three bars.
    events : Events, optional
        What the feature reads besides; of symbols of the panel.
    n_cuts : int, optional
        Cuts to try, by default 8 for an expression, 40 for Python and 60 with events: near the end, inside gaps, at ends of
        periods, before events, listings, ends of symbols and extreme bars first, the rest spread at random.
        ``panel.n_bars`` tries all.
    seed : int, default=0
        Seed of the random cuts and changes.

    Returns
    -------
    LeakReport

    Raises
    ------
    DataError
        If the panel has fewer than three bars, `n_cuts` is not positive, or events come with an expression.
    MissingDataError
        If events are of symbols that the panel does not have.
    ShapeError
        If a callable returns another shape than its panel's.

    Notes
    -----
    An expression is recomputed only from `lookback` + 64 bars before each cut, which is exact: the operators give the same
    bits wherever the data begin, once their lookback is there. So for expressions the test also proves the lookback.

    Python is recomputed on the whole past, the shortest data first, so that what it remembers cannot come from longer data;
    then once more after longer, different data, to find what it remembers at all. A plugin that declares a lookback is also
    swept for bars that move although nothing in their lookback did, and cut there: with a lookback of up to 7 bars every
    bar is tried.

    A pass says that no leak was seen at these cuts. A leak that shows only at bars that no cut touched, or smaller than the
    tolerance, is not found; nor is what a feature reads from elsewhere, which cannot be cut.
    """
    if panel.n_bars < 3:
        raise DataError(f"the truncation test needs at least 3 bars, got {panel.n_bars}; pass a longer panel.")
    if n_cuts is not None and n_cuts < 1:
        raise DataError(f"`n_cuts` must be at least 1, was {n_cuts}.")
    rng = np.random.default_rng(seed)
    if isinstance(feature, str | Expression):
        if events is not None:
            raise DataError("an expression reads no events; join them into a column with `join_events` and `with_column`.")
        expression = parse(feature, extra=tuple(panel.extra)) if isinstance(feature, str) else feature
        return _check_expression(expression, panel, n_cuts or N_CUTS_EXPRESSION, rng)
    if events is not None:
        check_symbols(panel, events)
    n_cuts = n_cuts or (N_CUTS_PYTHON if events is None else N_CUTS_EVENTS)
    return _check_python(feature, FeatureInputs(panel=panel, events=events), n_cuts, rng)


def _check_expression(expression: Expression, panel: Panel, n_cuts: int, rng: np.random.Generator) -> LeakReport:
    values = compute(expression, panel)
    judge = _Judge(panel=panel, values=values, scale=_typical_size(values))
    inputs = FeatureInputs(panel=panel)
    leaks: list[Leak] = []
    cuts = choose_cuts(inputs, n_cuts, rng, first=bars_around(values))
    for cut in cuts:
        first = max(0, cut + 1 - _TAIL_BARS)
        start = max(0, first - expression.lookback)
        stop = min(panel.n_bars, cut + 1 + _TAIL_BARS)
        for change, changed in (
            ("cut", cut_future(inputs, cut, start=start)),
            ("altered", alter_future(inputs, cut, "altered", rng, start=start, stop=stop)),
        ):
            again = compute(expression, changed.panel)
            leaks += judge.compare(again[first - start : cut + 1 - start], first, cut, change)
    return LeakReport(passed=not leaks, n_checks=2 * len(cuts), n_values=_count(values), leaks=tuple(leaks))


def _check_python(
    feature: PluginFeature | Function, inputs: FeatureInputs, n_cuts: int, rng: np.random.Generator
) -> LeakReport:
    panel = inputs.panel
    cuts = choose_cuts(inputs, n_cuts, rng)
    ended = {cut: _end_at(feature, inputs, cut) for cut in cuts}
    values = compute_python(feature, inputs, "the whole data")
    judge = _Judge(panel=panel, values=values, scale=_typical_size(values))
    suspects = [*bars_around(values), *bars_of_extremes(values), *_sweep(feature, inputs, values, rng)]
    cuts = sorted({*cuts, *(bar for bar in suspects if 0 <= bar <= panel.n_bars - 2)})
    others = [change for change in CHANGES if change != "altered"]
    leaks: list[Leak] = []
    n_checks = 0
    for place, cut in enumerate(cuts):
        leaks += judge.compare(ended[cut] if cut in ended else _end_at(feature, inputs, cut), 0, cut, "cut")
        for change in ("altered", others[place % len(others)]):
            changed = alter_future(inputs, cut, change, rng)
            again = compute_python(feature, changed, f"data {change} after bar {cut}")
            leaks += judge.compare(again[: cut + 1], 0, cut, change)
        n_checks += 3
    compute_python(feature, lengthen(inputs, rng), "longer data")
    again = compute_python(feature, inputs, "the whole data again")
    leaks += judge.compare(again, 0, panel.n_bars - 1, "memory")
    return LeakReport(passed=not leaks, n_checks=n_checks + 1, n_values=_count(values), leaks=tuple(leaks))


def _count(values: FloatArray) -> int:
    return int(np.isfinite(values).sum())


def _end_at(feature: PluginFeature | Function, inputs: FeatureInputs, cut: int) -> FloatArray:
    return compute_python(feature, cut_future(inputs, cut), f"data cut off after bar {cut}")


def compute_python(feature: PluginFeature | Function, inputs: FeatureInputs, what: str) -> FloatArray:
    """Compute a plugin feature or a callable, on a copy that it may spoil.

    Parameters
    ----------
    feature : PluginFeature or callable
    inputs : FeatureInputs
    what : str
        Names the data in the note that is added to an error of the feature.

    Raises
    ------
    ShapeError
        If it returns another shape than its panel's.
    """
    try:
        panel, events = inputs.panel.slice(), None if inputs.events is None else inputs.events.copy()
        with np.errstate(all="ignore"):
            if isinstance(feature, PluginFeature):
                raw: npt.ArrayLike = feature.compute(panel, events)
            else:
                raw = feature(panel) if events is None else feature(panel, events)
        values = np.array(raw, dtype=np.float64)
    except FOREIGN_ERRORS as error:
        error.add_note(f"raised by the feature, computed on {what}; a feature must accept NaN and any number of bars")
        raise
    if values.shape != inputs.panel.shape:
        raise ShapeError(
            f"a feature must return the shape of its panel (n_bars, n_assets) = {inputs.panel.shape}, returned {values.shape}; "
            "keep rows without a value as NaN."
        )
    return values


def _sweep(
    feature: PluginFeature | Function, inputs: FeatureInputs, values: FloatArray, rng: np.random.Generator
) -> Iterator[int]:
    """Yield bars whose value moves although their declared lookback did not: each is a suspect, for a cut to judge.

    Many bars are tried at once: of every ``2 * (lookback + 1)`` bars the second half is changed, and the last bar of the
    first half must stay as it was.
    """
    lookback = feature.lookback if isinstance(feature, PluginFeature) else None
    if lookback is None or 2 * (lookback + 1) >= inputs.panel.n_bars:
        return
    period = 2 * (lookback + 1)
    found = 0
    for shift in rng.permutation(period)[:_MAX_SWEEPS]:
        phase = (np.arange(inputs.panel.n_bars) - shift) % period
        again = compute_python(feature, alter_bars(inputs, phase > lookback, rng), "data altered in many places")
        moved = (phase == lookback) & relative_changes(values, again).any(axis=1)
        for bar in np.flatnonzero(moved)[: _MAX_SUSPECTS - found]:
            found += 1
            yield int(bar)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Judge:
    panel: Panel
    values: FloatArray
    scale: FloatArray

    def compare(self, again: FloatArray, first: int, cut: int, change: str) -> list[Leak]:
        """Name the largest change of each symbol in the bars ``first .. cut``, of which `again` is the other version."""
        sizes = relative_changes(self.values[first : cut + 1], again, self.scale)
        return [
            Leak(
                bar=first + int(row),
                timestamp=self.panel.index[first + int(row)],
                symbol=self.panel.symbols[column],
                size=float(sizes[row, column]),
                cut=cut,
                change=change,
            )
            for column, row in enumerate(sizes.argmax(axis=0))
            if sizes[row, column] > 0.0
        ]


def relative_changes(values: FloatArray, again: FloatArray, scale: FloatArray | None = None) -> FloatArray:
    """Compute by how much two versions of a feature differ, zero where it is rounding.

    Parameters
    ----------
    values, again : ndarray of shape (n_bars, n_assets)
        The two versions.
    scale : ndarray of shape (n_assets,), optional
        Typical size of each symbol's values, 1e-13 of which is rounding; measured in `values` if absent.

    Returns
    -------
    ndarray of shape (n_bars, n_assets)
        Change relative to the larger of the two, infinite between a number and NaN or infinity, zero up to 1e-9.
    """
    scale = _typical_size(values) if scale is None else scale
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = np.abs(values - again)
        largest = np.fmax(np.abs(values), np.abs(again))
        size = np.where(gap > np.maximum(TOLERANCE * largest, _ROUNDING * scale), gap / largest, 0.0)
    size[(values == again) | (np.isnan(values) & np.isnan(again))] = 0.0
    size[np.isnan(values) != np.isnan(again)] = np.inf
    size[np.isinf(values) != np.isinf(again)] = np.inf
    return size


def _typical_size(values: FloatArray) -> FloatArray:
    """Median absolute value of each column: below a tiny part of it a change is rounding."""
    out = np.zeros(values.shape[1])
    for column in range(values.shape[1]):
        finite = np.abs(values[np.isfinite(values[:, column]), column])
        out[column] = np.median(finite) if len(finite) else 0.0
    return out
