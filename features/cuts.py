"""Where to cut: bars at which a leak is likely to show.

Promises the same bars for the same seed, the likeliest first, then bars spread at random over all the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice

import numpy as np
import numpy.typing as npt

from core.market.panel import Panel
from features.fields import FloatArray
from features.futures import FeatureInputs
from features.point_in_time import Events

IntArray = npt.NDArray[np.int64]

_FEW = 8


def choose_cuts(inputs: FeatureInputs, n_cuts: int, rng: np.random.Generator, *, first: Iterable[int] = ()) -> list[int]:
    """Choose bars after which the future is cut off or changed.

    Parameters
    ----------
    inputs : FeatureInputs
        At least three bars.
    n_cuts : int
        How many; fewer only if there are fewer bars. More than eight are spread over every kind of landmark, and a quarter
        of them over all the data at random.
    rng : numpy.random.Generator
        Chooses among bars of one kind.
    first : iterable of int, default=()
        Bars to take before any other, after the last one.

    Returns
    -------
    list of int
        Positions of the last bar that stays, sorted; the last bar of all is none of them.
    """
    last = inputs.panel.n_bars - 2
    landmarks = chain((last,), first, _landmarks(inputs, rng, every_kind=n_cuts > _FEW))
    wanted = dict.fromkeys(bar for bar in landmarks if 0 <= bar <= last)
    chosen = list(islice(wanted, n_cuts if n_cuts <= _FEW else n_cuts - n_cuts // 4))
    missing = n_cuts - len(chosen)
    free = np.setdiff1d(np.arange(last + 1), chosen)
    if missing > 0 and len(free):
        chosen += [int(rng.choice(part)) for part in np.array_split(free, min(missing, len(free)))]
    return sorted(chosen)


def bars_around(values: FloatArray) -> list[int]:
    """Return the bars around the first value of a feature."""
    valid = np.flatnonzero(np.isfinite(values).any(axis=1))
    return [int(valid[0]) - 1, int(valid[0]) + 1] if len(valid) else []


def bars_of_extremes(values: FloatArray) -> list[int]:
    """Return the bar of the largest value, and of the largest change, each with the bar before."""
    steps = np.vstack([np.full((1, values.shape[1]), np.nan), np.diff(values, axis=0)])
    bars = []
    for array in (values, steps):
        sizes = np.where(np.isfinite(array), np.abs(array), -1.0)
        bar = int(sizes.max(axis=1).argmax())
        bars += [bar - 1, bar]
    return bars


def _landmarks(inputs: FeatureInputs, rng: np.random.Generator, *, every_kind: bool) -> Iterator[int]:
    panel = inputs.panel
    for bars in _gap_bars(panel):
        yield from _some(bars, 1, rng)
    yield from islice(_period_ends(panel, ("month",), rng), None if every_kind else 2)
    if not every_kind:
        return
    if inputs.events is not None:
        yield from _event_bars(panel, inputs.events, rng)
    yield from _births_and_deaths(panel, rng)
    yield from bars_of_extremes(_log_steps(panel.close))
    yield from _period_ends(panel, ("day", "week", "quarter", "year"), rng)
    for name in panel.fields:
        if name not in ("open", "high", "low", "close"):
            yield from bars_of_extremes(panel.get(name))[2:]


def _some(bars: IntArray, count: int, rng: np.random.Generator) -> Iterator[int]:
    for bar in rng.permutation(bars)[:count]:
        yield int(bar)


def _period_ends(panel: Panel, periods: tuple[str, ...], rng: np.random.Generator) -> Iterator[int]:
    """Yield the last bar of a period, the bar before and the bar after, where a period has several bars."""
    days = panel.index.as_unit("s").asi8 // 86_400
    month = panel.index.year.to_numpy() * 12 + panel.index.month.to_numpy() - 1
    numbers = {"day": days, "week": (days + 3) // 7, "month": month, "quarter": month // 3, "year": month // 12}
    for period in periods:
        ends = np.flatnonzero(np.diff(numbers[period]))
        if len(ends) and len(ends) + 1 < panel.n_bars:
            end = int(rng.choice(ends))
            yield from (end - 1, end, end + 1)


def _gap_bars(panel: Panel) -> tuple[IntArray, IntArray]:
    """Bars inside gaps, and before a symbol's first value: what fills from behind, or from both sides, shows there."""
    inside = np.zeros(panel.n_bars, dtype=np.bool_)
    leading = np.zeros(panel.n_bars, dtype=np.bool_)
    for name in panel.fields:
        known = ~np.isnan(panel.get(name))
        if known.all():
            continue
        earlier = np.logical_or.accumulate(known, axis=0)
        later = np.logical_or.accumulate(known[::-1], axis=0)[::-1]
        inside |= (~known & earlier & later).any(axis=1)
        leading |= (~earlier & later).any(axis=1)
    return np.flatnonzero(inside), np.flatnonzero(leading)


def _births_and_deaths(panel: Panel, rng: np.random.Generator) -> Iterator[int]:
    known = ~np.isnan(panel.close)
    listed = known.any(axis=0)
    births = known.argmax(axis=0)[listed] - 1
    deaths = panel.n_bars - 1 - known[::-1].argmax(axis=0)[listed]
    yield from _some(np.unique(births[births >= 0]), 1, rng)
    for bar in _some(np.unique(deaths[deaths < panel.n_bars - 1]), 1, rng):
        yield bar - 1
        yield bar


def _event_bars(panel: Panel, events: Events, rng: np.random.Generator) -> Iterator[int]:
    """Yield bars just before an event is known, the narrowest misses of each kind first, and bars between date and news."""
    stamps = panel.index.as_unit("ns").asi8
    known, occurred = (events.table[name].astype("int64").to_numpy() for name in ("known_at", "occurred_at"))
    bar = np.searchsorted(stamps, known, side="left") - 1
    inside = np.flatnonzero((bar >= 0) & (bar < panel.n_bars - 1))
    inside = rng.permutation(inside)  # so that chance decides between equally narrow ones
    narrow = inside[np.argsort(known[inside] - stamps[bar[inside]], kind="stable")]
    kinds = events.table["kind"].to_numpy()[narrow]
    for kind in dict.fromkeys(kinds):
        yield from islice(dict.fromkeys(int(b) for b in bar[narrow[kinds == kind]]), 4)
    yield from (int(b) for b in bar[inside[:3]])
    first = np.searchsorted(stamps, occurred, side="left")
    waiting = inside[first[inside] < bar[inside]]
    for event in rng.permutation(waiting)[:2]:
        yield int(rng.integers(first[event], bar[event]))


def _log_steps(close: FloatArray) -> FloatArray:
    out = np.full(close.shape, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        out[1:] = np.log(close[1:] / close[:-1])
    return out
