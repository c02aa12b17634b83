"""Joins of events and fundamentals to bars, by the time they could be read.

Hides how events are sorted and searched. Promises that row ``t`` uses only events with ``known_at <= index[t]``, in the
revision that was the latest then: what was restated later is seen later.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Hashable
from copy import copy
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.errors import DataError, LookAheadError, MissingDataError
from core.market.panel import Panel
from features.fields import FloatArray

EVENT_COLUMNS = ("kind", "symbol", "occurred_at", "known_at")

_NANOSECONDS_A_DAY = 86_400e9


@dataclass(frozen=True, kw_only=True, eq=False)
class Events:
    """Hold events in the order in which they became known.

    Parameters
    ----------
    table : pandas.DataFrame
        One row an announcement, with the columns ``kind`` (str), ``symbol`` (str; None if it concerns every symbol),
        ``occurred_at`` and ``known_at`` (tz-aware), and the values announced: further columns, or one column ``payload`` of
        mappings, whose keys become columns. A second row of the same kind, symbol and ``occurred_at`` is a revision. The
        table is copied, sorted by ``known_at``, its times turned into UTC nanoseconds; treat it as read-only.
    scheduled_kinds : collection of str, default=()
        Kinds that may be known before they occur, as the day of an earnings call. Any other event known before it occurred
        is refused.

    Raises
    ------
    DataError
        If a time is naive or missing, or a kind is not text.
    LookAheadError
        If an event that is not scheduled is known before it occurred.
    MissingDataError
        If a column is missing.
    """

    table: pd.DataFrame
    scheduled_kinds: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "scheduled_kinds", frozenset(self.scheduled_kinds))
        missing = [name for name in EVENT_COLUMNS if name not in self.table.columns]
        if missing:
            raise MissingDataError(
                f"events need the columns {', '.join(EVENT_COLUMNS)}; {', '.join(missing)} is missing from "
                f"{', '.join(map(str, self.table.columns)) or 'no columns'}."
            )
        table = _flatten(self.table.reset_index(drop=True))
        for name in ("occurred_at", "known_at"):
            table[name] = _utc(table[name], name)
        table["symbol"] = table["symbol"].astype(object).where(table["symbol"].notna(), None)
        for name, required in (("kind", True), ("symbol", False)):
            odd = [v for v in table[name] if not (isinstance(v, str) and v.strip()) and (required or v is not None)]
            if odd:
                raise DataError(f"`{name}` of an event must be text that is not empty, was {odd[0]!r}.")
        early = table[(table["known_at"] < table["occurred_at"]) & ~table["kind"].isin(list(self.scheduled_kinds))]
        if len(early):
            row = early.iloc[0]
            raise LookAheadError(
                f"an event of kind {row['kind']!r} is known at {row['known_at']} but occurred only at {row['occurred_at']} "
                f"({len(early)} such events); mend the times, or name the kind in `scheduled_kinds` if it was announced ahead."
            )
        table = table.sort_values(["known_at", "occurred_at"], kind="stable", ignore_index=True)
        object.__setattr__(self, "table", table)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of event that occur."""
        return frozenset(self.table["kind"])

    def known_by(self, ts: pd.Timestamp) -> Events:
        """Return what was known at `ts`, that instant included."""
        return self._keep(self.table["known_at"] <= ts)

    def of_kind(self, *kinds: str) -> Events:
        """Return the events of these kinds."""
        return self._keep(self.table["kind"].isin(kinds))

    def select(self, symbols: Collection[str]) -> Events:
        """Return the events that concern these symbols; those of every symbol stay."""
        return self._keep(self.table["symbol"].isin(list(symbols)) | self.table["symbol"].isna())

    def copy(self) -> Events:
        """Return the same events in a table of their own."""
        return self._keep(np.ones(len(self), dtype=np.bool_))

    def _keep(self, mask: pd.Series[bool] | npt.NDArray[np.bool_]) -> Events:
        part = copy(self)  # checked and sorted already
        object.__setattr__(part, "table", self.table[mask].reset_index(drop=True))
        return part


def join_events(
    panel: Panel,
    events: Events | pd.DataFrame,
    *,
    value: str | None = None,
    how: Literal["last", "count", "age"] = "last",
    max_age: dt.timedelta | None = None,
) -> FloatArray:
    """Join events to the bars at which they were known.

    .. warning:: Row ``t`` uses the events with ``known_at <= index[t]``. A bar carries the time of its close, so what is
       published at the very instant of a close counts as known at that bar; it trades at the next.

    Parameters
    ----------
    panel : Panel
        The bars to join to.
    events : Events or pandas.DataFrame
        Of one kind as a rule: ``events.of_kind("earnings")``. A DataFrame must be what `Events` accepts.
    value : str, optional
        Column that ``how="last"`` reads; numbers without NaN. Not for the others.
    how : {"last", "count", "age"}, default="last"
        ``"last"``: the value of the event that occurred last among those known, in its latest revision known; a late
        revision of an older period does not displace a newer period. ``"count"``: announcements known, revisions among
        them. ``"age"``: calendar days since the event that ``"last"`` would read became known.
    max_age : datetime.timedelta, optional
        Older announcements, by ``known_at``, do not count; ``"last"`` and ``"age"`` are NaN once their event is older.

    Returns
    -------
    ndarray of shape (n_bars, n_assets)
        NaN where nothing is known yet (zero for ``"count"``). ``panel.with_column(name, values)`` lets expressions read it.

    Raises
    ------
    DataError
        If `value`, `how` or `max_age` is not as above, or a value is NaN, infinite or no number.
    MissingDataError
        If there is no such column, or an event's symbol is not in the panel.
    LookAheadError
        If an event that is not scheduled is known before it occurred.

    Notes
    -----
    Rows of equal ``occurred_at`` and ``known_at`` count in the order given: the last one wins. Costs a sort and one binary
    search a symbol.
    """
    events = events if isinstance(events, Events) else Events(table=events)
    if how not in ("last", "count", "age"):
        raise DataError(f'`how` must be "last", "count" or "age", was {how!r}.')
    if (value is not None) != (how == "last"):
        raise DataError(
            f'`value` names the column that how="last" reads and is for that alone; was {value!r} with how={how!r}.'
        )
    if max_age is not None and max_age <= dt.timedelta(0):
        raise DataError(f"`max_age` must be positive, was {max_age}.")
    values = _numbers(events, value) if value is not None else np.zeros(len(events))
    occurred, known = (events.table[name].astype("int64").to_numpy() for name in ("occurred_at", "known_at"))
    symbols = events.table["symbol"].to_numpy(dtype=object)
    check_symbols(panel, events)
    stamps = panel.index.as_unit("ns").asi8
    oldest = None if max_age is None else stamps - pd.Timedelta(max_age).value
    shared = np.array([symbol is None for symbol in symbols], dtype=np.bool_)
    out = np.full(panel.shape, np.nan)
    for column, symbol in enumerate(panel.symbols):
        own = np.flatnonzero(shared | (symbols == symbol))
        if how == "count":
            first = 0 if oldest is None else np.searchsorted(known[own], oldest, side="left")
            out[:, column] = np.searchsorted(known[own], stamps, side="right") - first
            continue
        newest = own[occurred[own] >= np.maximum.accumulate(occurred[own])] if len(own) else own
        place = np.searchsorted(known[newest], stamps, side="right") - 1
        there = place >= 0
        row = newest[place[there]]
        age = stamps[there] - known[row]
        found = values[row] if how == "last" else age / _NANOSECONDS_A_DAY
        out[there, column] = found if oldest is None else np.where(known[row] >= oldest[there], found, np.nan)
    return out


def check_symbols(panel: Panel, events: Events) -> None:
    """Refuse events of symbols that the panel does not have.

    Raises
    ------
    MissingDataError
        With the remedy.
    """
    unknown = sorted(set(events.table["symbol"].dropna()) - set(panel.symbols))
    if unknown:
        raise MissingDataError(
            f"{len(unknown)} symbols of the events are not in the panel, for instance {', '.join(unknown[:5])}; "
            "leave them out on purpose with `events.select(panel.symbols)`, or mend the names."
        )


def _flatten(table: pd.DataFrame) -> pd.DataFrame:
    if "payload" not in table.columns:
        return table.copy()
    payloads = list(table["payload"])
    if not all(isinstance(payload, dict) for payload in payloads):
        raise DataError("`payload` of an event must be a mapping; parse JSON text first.")
    keys: dict[Hashable, None] = dict.fromkeys(key for payload in payloads for key in payload)
    rest = table.drop(columns="payload")
    if twice := [str(key) for key in keys if key in rest.columns]:
        raise DataError(f"`payload` holds {', '.join(twice)}, which is a column of the events already; rename one of them.")
    return rest.assign(**{str(key): [payload.get(key) for payload in payloads] for key in keys})


def _utc(stamps: pd.Series[pd.Timestamp], name: str) -> pd.Series[pd.Timestamp]:
    if stamps.isna().any():
        raise DataError(f"`{name}` is missing in {int(stamps.isna().sum())} events; leave out what has no time.")
    if isinstance(stamps.dtype, pd.DatetimeTZDtype):
        return stamps.dt.tz_convert("UTC").dt.as_unit("ns")
    aware = stamps.dtype == object and all(isinstance(stamp, dt.datetime) and stamp.tzinfo is not None for stamp in stamps)
    if not aware and len(stamps):
        raise DataError(
            f"`{name}` of events must be tz-aware times, was {stamps.dtype} without an offset; localise them where they were "
            "written, as in .dt.tz_localize('America/New_York')."
        )
    return pd.to_datetime(stamps, utc=True).dt.as_unit("ns")


def _numbers(events: Events, value: str) -> npt.NDArray[np.float64]:
    if value not in events.table.columns:
        own = [str(name) for name in events.table.columns if name not in EVENT_COLUMNS]
        raise MissingDataError(f"the events have no `{value}`; they have {', '.join(own) or 'no values'}.")
    try:
        numbers = events.table[value].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise DataError(f"`{value}` of events must be numbers, was {events.table[value].dtype}.") from None
    if not np.isfinite(numbers).all():
        raise DataError(
            f"`{value}` is NaN or infinite in {int((~np.isfinite(numbers)).sum())} events; take one kind with `of_kind`, or "
            "leave out the rows that announce no value."
        )
    return numbers
