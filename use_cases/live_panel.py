"""The bars of the desk as a panel, so that a use case reads live what it reads in research.

Hides that bars come a symbol at a time and only a number at a time. Promises that nothing that had not ended is in it, and that
a row holds every symbol that has a bar of that time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pandas as pd

from agents.trading.market_data import Bar, MarketData
from core.errors import DataError, MissingDataError
from core.market.panel import Panel

_MORE_BARS = 16
_FIELDS = ("open", "high", "low", "close", "volume")


def load_live_panel(data: MarketData, symbols: Sequence[str], now: datetime, *, until: datetime, n_before: int) -> Panel:
    """Build the panel of the bars that a desk has of some symbols.

    Parameters
    ----------
    data : MarketData
    symbols : sequence of str
        Columns, in this order; NaN where a symbol has no bar.
    now : datetime
        Bars that end later are left out, whatever `data` says, UTC.
    until : datetime
        Before `now`: up to here there should be `n_before` bars.
    n_before : int
        History that is needed; there is less where the desk has no more, and more where that comes for free.

    Raises
    ------
    MissingDataError
        If no symbol has a bar.
    DataError
        If the prices cannot be had, or the bars of the symbols end at different times, so that they cannot stand side by side.
    """
    n = n_before + _MORE_BARS
    while True:
        series = {symbol: [bar for bar in data.list_bars(symbol, now, n) if bar.at <= now] for symbol in symbols}
        cut = max((bars[0].at for bars in series.values() if len(bars) >= n), default=None)
        times = sorted({bar.at for bars in series.values() for bar in bars if cut is None or bar.at >= cut})
        # A symbol that gave as many bars as it was asked for may have more; where none did, there is nothing more to be had.
        if cut is None or sum(at <= until for at in times) >= n_before:
            break
        n *= 2
    if not times:
        named = ", ".join(symbols[:3]) + (" ..." if len(symbols) > 3 else "")
        raise MissingDataError(f"none of {named} has a bar as of {now:%Y-%m-%d %H:%M} UTC: give --data that has.")
    panel = _align(series, times)
    _check_side_by_side(panel)
    return panel


def _align(series: dict[str, list[Bar]], times: list[datetime]) -> Panel:
    places = {at: place for place, at in enumerate(times)}
    values = np.full((len(_FIELDS), len(times), len(series)), np.nan)
    for column, bars in enumerate(series.values()):
        for bar in bars:
            place = places.get(bar.at)
            if place is not None:
                volume = np.nan if bar.volume is None else bar.volume
                values[:, place, column] = (bar.open, bar.high, bar.low, bar.close, volume)
    columns = dict(zip(_FIELDS, values, strict=True))
    if np.isnan(columns["volume"]).all():
        del columns["volume"]
    return Panel(index=pd.DatetimeIndex(times), symbols=tuple(series), name="live", **columns)  # type: ignore[arg-type]


def _check_side_by_side(panel: Panel) -> None:
    """Refuse bars of which one symbol's end between those of another: a bar before would be half a bar before."""
    there = np.isfinite(panel.close)
    apart = ~(there[1:] & there[:-1]).any(axis=1)
    if panel.n_bars > 2 and apart.mean() > 0.5:
        row = int(np.flatnonzero(apart)[-1])
        (one, at), (other, then) = (
            (panel.symbols[int(np.argmax(there[place]))], panel.index[place]) for place in (row, row + 1)
        )
        raise DataError(
            f"the bars of {one} end at {at:%H:%M} and those of {other} at {then:%H:%M} UTC, so that they cannot stand side by "
            "side: take the prices of all symbols from one source of --data."
        )
