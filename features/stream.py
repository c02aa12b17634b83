"""Features of each new bar, without recomputing history.

Hides the compiled program behind them. Promises the values that `features.compute` gives for the last bar of the whole
panel, to the bit, however many bars have come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import pandas as pd

from core.errors import DataError, ExpressionError, MissingDataError, ShapeError
from core.market.panel import BAR_FIELDS, Panel
from features.expression import Expression, parse
from features.fields import FloatArray, find_field, load_field
from features.stream_program import build_program


class FeatureStream:
    """Keep the last values of many features, and extend them bar by bar.

    Parameters
    ----------
    expressions : sequence of str or Expression, length k
        What to compute. Text may read the columns of ``panel.extra``.
    panel : Panel
        History, at least one bar. Only its last ``lookback + 1`` bars are read.

    Attributes
    ----------
    expressions : tuple of Expression
        As parsed.

    Raises
    ------
    ExpressionError, LookAheadError
        If a text cannot be accepted.
    MissingDataError
        If the panel lacks a column that is read.
    DataError
        If the panel has no bar.

    Notes
    -----
    After any number of bars, `values` equal ``compute(expressions, whole_panel)[:, -1]`` to the bit: the same operations
    are done in the same order. So not only sums agree but comparisons, ranks and signs of them, which the smallest
    difference could turn over. Nothing is carried from bar to bar but values and joins of values inside one window; hence
    nothing drifts, and an outlier leaves no trace. The rules of NaN, of ties and of what is not finite are those of
    `compute`.

    There is nothing to save: start and recovery are the same, a stream is built from the panel. Building compiles the
    machine on its first use on a computer, and runs it over ``lookback + 1`` bars. What is kept grows with the windows and
    the number of symbols, and is largest for moments of long windows. A stream is for one thread at a time.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> days = pd.date_range("2026-01-05 21:00", periods=4, tz="UTC")
    >>> panel = Panel(index=days, symbols=("A", "B"), close=np.array([[1.0, 8.0], [2.0, 4.0], [3.0, 2.0], [4.0, 1.0]]))
    >>> stream = FeatureStream(["ts_mean(close, 2)", "rank(close)"], panel.slice(0, 3))
    >>> stream.update(panel.slice(3, 4))
    array([[3.5, 1.5],
           [1. , 0. ]])
    """

    def __init__(self, expressions: Sequence[str | Expression], panel: Panel) -> None:
        if isinstance(expressions, str | Expression):
            raise ExpressionError("a stream takes a sequence of expressions, got a single one; put it in a list.")
        if panel.n_bars == 0:
            raise DataError("a stream starts from at least one bar, the panel has none; wait for the first bar.")
        self.expressions = tuple(_as_expression(item, panel) for item in expressions)
        self._program = build_program([expression.root for expression in self.expressions], panel.n_assets)
        names = tuple(self._program.fields)
        self._columns = frozenset({"close"}).union(*(_columns_of(name, panel) for name in names))
        history = panel.slice(-self.lookback - 1)
        fields = {name: load_field(name, history) for name in names}
        self._t = 0
        for t in range(history.n_bars):
            self._advance({name: values[t] for name, values in fields.items()})
        found = (find_field(name) for name in names)
        self._kept = max((field.lookback for field in found if field is not None), default=0)
        self._last = history.slice(-self._kept - 1)

    @property
    def lookback(self) -> int:
        """Bars of history needed beyond the current one: the longest of the expressions."""
        return max((expression.lookback for expression in self.expressions), default=0)

    @property
    def ts(self) -> pd.Timestamp:
        """Time of the last bar."""
        ts: pd.Timestamp = self._last.index[-1]
        return ts

    @property
    def values(self) -> FloatArray:
        """Values of the last bar, shape (k, n_assets): the caller's own copy, known at the close of that bar."""
        return self._program.memory[self._program.outputs]

    def update(self, bar: Panel) -> FloatArray:
        """Take in the next bar.

        Parameters
        ----------
        bar : Panel of one bar
            The symbols of the history in its order, NaN where a symbol has no bar. Columns that no expression reads may
            be missing, and are ignored.

        Returns
        -------
        ndarray of shape (k, n_assets)
            As `values`.

        Raises
        ------
        ShapeError
            If `bar` is not one bar of the same symbols.
        DataError
            If it is not later than the last one.
        MissingDataError
            If it lacks a column that is read.

        Notes
        -----
        A bar that is refused changes nothing.
        """
        self._check(bar)
        bars = self._appended(bar)
        self._advance({name: load_field(name, bars)[-1] for name in self._program.fields})
        self._last = bars
        return self.values

    def _check(self, bar: Panel) -> None:
        if bar.n_bars != 1:
            raise ShapeError(f"one bar at a time is expected, got {bar.n_bars}; pass `panel.slice(t, t + 1)` for each.")
        if bar.symbols != self._last.symbols:
            raise ShapeError(
                f"the symbols must be those of the history in its order, {', '.join(self._last.symbols)}, "
                f"were {', '.join(bar.symbols)}; choose them with `panel.select`."
            )
        if bar.index[0] <= self.ts:
            raise DataError(
                f"a bar later than {self.ts} is expected, got {bar.index[0]}; "
                "to correct a bar that was taken in, build the stream again from the corrected panel."
            )
        if missing := sorted(self._columns.difference(bar.fields)):
            raise MissingDataError(
                f"the bar of {bar.index[0]} has no `{'`, `'.join(missing)}`; the expressions read "
                f"{', '.join(sorted(self._columns))}. Fill a column with NaN where nothing is known."
            )

    def _appended(self, bar: Panel) -> Panel:
        start = self._last.n_bars - self._kept
        columns = {name: np.concatenate([self._last.get(name)[start:], bar.get(name)]) for name in self._columns}
        return Panel(
            index=cast(pd.DatetimeIndex, self._last.index[start:].append(bar.index)),
            symbols=bar.symbols,
            extra={name: columns.pop(name) for name in self._columns.difference(BAR_FIELDS)},
            name=self._last.name,
            **columns,
        )

    def _advance(self, fields: dict[str, FloatArray]) -> None:
        for name, row in fields.items():
            self._program.fields[name][:] = row
        with np.errstate(all="ignore"):
            self._program.run(self._t)
        self._t += 1


def _as_expression(item: object, panel: Panel) -> Expression:
    if isinstance(item, Expression):
        return item
    if isinstance(item, str):
        return parse(item, extra=tuple(panel.extra))
    raise ExpressionError(f"expected text or an Expression, got {type(item).__name__}; pass expressions only.")


def _columns_of(name: str, panel: Panel) -> frozenset[str]:
    own_vwap = name == "vwap" and name in panel.extra
    field = find_field(name)
    return field.columns if field is not None and not own_vwap else frozenset({name})
