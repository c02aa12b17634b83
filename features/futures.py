"""Other futures: the same past, with everything after a bar cut off or changed.

Hides how bars and events are changed. Promises that bars up to the cut, and events known by then, stay bit for bit as they
were, except in `lengthen`, which changes everything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from core.market.panel import BAR_FIELDS, Panel
from features.fields import FloatArray
from features.point_in_time import Events

Columns = dict[str, FloatArray]

_MAX_RESTATED = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureInputs:
    """Hold all that a feature is computed from.

    Parameters
    ----------
    panel : Panel
        The bars.
    events : Events, optional
        What else became known.
    """

    panel: Panel
    events: Events | None = None


def cut_future(inputs: FeatureInputs, cut: int, *, start: int = 0) -> FeatureInputs:
    """Return the bars ``start .. cut``, and the events known at bar `cut`."""
    events = None if inputs.events is None else inputs.events.known_by(inputs.panel.index[cut])
    return FeatureInputs(panel=inputs.panel.slice(start, cut + 1), events=events)


def alter_future(
    inputs: FeatureInputs, cut: int, change: str, rng: np.random.Generator, *, start: int = 0, stop: int | None = None
) -> FeatureInputs:
    """Return the bars ``start .. stop - 1``, those after `cut` changed.

    Parameters
    ----------
    inputs : FeatureInputs
        Data; `cut` is not its last bar.
    cut : int
        Position of the last bar that stays.
    change : str
        A key of `CHANGES`. Events known later are multiplied, a third of them dropped, and some events known by then are
        restated, whatever the change.
    rng : numpy.random.Generator
        Chance.
    start, stop : int, optional
        The part of the data to return; all by default.
    """
    whole = inputs.panel
    panel = whole.slice(start, stop)
    kept = cut + 1 - start
    columns = {name: panel.get(name).copy() for name in panel.fields}
    CHANGES[change](columns, kept, rng)
    rows = np.arange(panel.n_bars)
    if change == "thinned":
        rows = np.sort(np.concatenate([rows[:kept], rng.permutation(rows[kept:])[: (len(rows) - kept + 1) // 2]]))
    altered = with_columns(panel, panel.index[rows], {name: values[rows] for name, values in columns.items()})
    events = None if inputs.events is None else _alter_events(inputs.events, whole.index[cut], whole.index[-1], rng)
    return FeatureInputs(panel=altered, events=events)


def alter_bars(inputs: FeatureInputs, rows: np.ndarray[Any, np.dtype[np.bool_]], rng: np.random.Generator) -> FeatureInputs:
    """Return the data with the bars in `rows`, a mask of length n_bars, multiplied by random factors."""
    columns = {name: inputs.panel.get(name).copy() for name in inputs.panel.fields}
    selected = {name: values[rows] for name, values in columns.items()}
    _scale(selected, 0, rng)
    for name, values in columns.items():
        values[rows] = selected[name]
    return FeatureInputs(panel=with_columns(inputs.panel, inputs.panel.index, columns), events=inputs.events)


def lengthen(inputs: FeatureInputs, rng: np.random.Generator) -> FeatureInputs:
    """Return other data that begin at the same bar and end later: every value multiplied, a quarter more bars."""
    panel = inputs.panel
    step = (panel.index[-1] - panel.index[0]) / (panel.n_bars - 1)
    more = [panel.index[-1] + step * (k + 1) for k in range(max(1, panel.n_bars // 4))]
    columns = {name: np.vstack([panel.get(name), panel.get(name)[: len(more)]]) for name in panel.fields}
    _scale(columns, 0, rng)
    longer = with_columns(panel, pd.DatetimeIndex([*panel.index, *more]).as_unit(panel.index.unit), columns)
    before_all = panel.index[0] - pd.Timedelta(days=36_500)
    events = None if inputs.events is None else _alter_events(inputs.events, before_all, longer.index[-1], rng)
    return FeatureInputs(panel=longer, events=events)


def with_columns(panel: Panel, index: pd.DatetimeIndex, columns: Columns) -> Panel:
    """Return a panel of the same symbols and name with this index and these columns, bar fields and others."""
    bars: dict[str, Any] = {name: columns[name] for name in BAR_FIELDS if name in columns}
    extra = {name: values for name, values in columns.items() if name not in BAR_FIELDS}
    return Panel(index=index, symbols=panel.symbols, extra=extra, name=panel.name, **bars)


def _scale(columns: Columns, kept: int, rng: np.random.Generator, log_size: float = 0.3) -> None:
    """Multiply: one factor for the prices of a bar, so that its low stays below its high; another for each other column."""
    shape = columns["close"][kept:].shape
    prices = np.exp(rng.normal(0.0, log_size, shape))
    for name, values in columns.items():
        is_price = name in BAR_FIELDS and name != "volume"
        values[kept:] *= prices if is_price else np.exp(rng.normal(0.0, log_size, shape))


def _rescale(columns: Columns, kept: int, rng: np.random.Generator) -> None:
    """Multiply each symbol's whole future by a thousand, or divide it: extremes, and what a later split does."""
    factors = 1000.0 ** rng.choice([-1.0, 1.0], columns["close"].shape[1])
    for values in columns.values():
        values[kept:] *= factors


def _reverse(columns: Columns, kept: int, rng: np.random.Generator) -> None:
    for values in columns.values():
        values[kept:] = values[kept:][::-1].copy()


def _freeze(columns: Columns, kept: int, rng: np.random.Generator) -> None:
    for values in columns.values():
        values[kept:] = values[kept - 1]


def _blank(columns: Columns, kept: int, rng: np.random.Generator) -> None:
    for values in columns.values():
        values[kept:] = np.nan


def _delist(columns: Columns, kept: int, rng: np.random.Generator) -> None:
    """End half of the symbols, each at a bar of its own, the last bar at the latest."""
    n_bars, n_assets = columns["close"].shape
    for symbol in rng.permutation(n_assets)[: (n_assets + 1) // 2]:
        first = rng.integers(kept, n_bars)
        for values in columns.values():
            values[first:, symbol] = np.nan


def _keep(columns: Columns, kept: int, rng: np.random.Generator) -> None:
    """Change no value: `alter_future` drops whole bars."""


CHANGES: dict[str, Callable[[Columns, int, np.random.Generator], None]] = {
    "altered": _scale,
    "delisted": _delist,
    "reversed": _reverse,
    "rescaled": _rescale,
    "blank": _blank,
    "thinned": _keep,
    "frozen": _freeze,
}
"""What can be done to the bars after a cut; ``"altered"`` multiplies each bar by random factors."""


def _alter_events(events: Events, until: pd.Timestamp, last: pd.Timestamp, rng: np.random.Generator) -> Events:
    table = events.table
    known_at = table["known_at"].astype("int64").to_numpy()
    is_later = known_at > until.value
    known = np.flatnonzero(~is_later)
    later = np.flatnonzero(is_later & (rng.random(len(table)) >= 1 / 3))
    restated = np.sort(rng.permutation(known)[:_MAX_RESTATED])
    rows = np.concatenate([known, later, restated])
    span = max(last.value - until.value, 1_000_000_000)
    again = until.value + np.ceil((1.0 - rng.random(len(restated))) * span).astype(np.int64)
    stamps = np.concatenate([known_at[known], known_at[later], again])
    mixed = table.take(rows).reset_index(drop=True)
    mixed["known_at"] = pd.DatetimeIndex(stamps.view("datetime64[ns]"), tz="UTC")
    for name in table.columns:
        if pd.api.types.is_numeric_dtype(table[name]) and not pd.api.types.is_bool_dtype(table[name]):
            factors = np.exp(rng.normal(0.0, 0.3, len(rows)))
            factors[: len(known)] = 1.0
            mixed[name] = mixed[name].to_numpy(dtype=np.float64, na_value=np.nan) * factors
    return Events(table=mixed, scheduled_kinds=events.scheduled_kinds)
