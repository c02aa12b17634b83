"""Programs that join the states of short windows into those of long ones.

Hides how a window is put together: one bar, two, four, ... A window of 13 bars is the join of one, four and eight, the
shortest the earliest. Promises that what several windows or statistics have in common is done once, and that the order of
operations that lead to a value does not depend on what else is asked for. `features.joins` runs the programs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import wraps
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from features.fields import FloatArray

IntArray = npt.NDArray[np.int64]

(LOAD, POSITION, CONSTANT, STORE, SUM, LOWEST, PICK, STEP, TREND, PRODUCTS, THIRD, FOURTH) = range(12)
(DIVIDE_BY, ROOT, RATIO, OVER_SPREAD, SUBTRACT, PRODUCT, TIMES, OFFSET, LIMIT, SINCE, CARRY) = range(12, 23)
(FINITE, FINITE_SUM, FINITE_DIFFERENCE, FINITE_PRODUCT, FINITE_RATIO, MAGNITUDE, LESS, AT_MOST) = range(23, 31)

_Operand = tuple[int, int]
"""A row, and how many bars before the current one its value is."""

_CACHED_CELLS, _ROOM_CELLS = 64_000, 128_000
_WIDEST_STRIP = 32
_FEWEST_CELLS, _MOST_CELLS = 1024, 8192
_MOST_PLACES = 8


@dataclass(frozen=True, kw_only=True)
class Program:
    """Hold what `features.joins.run_program` wants; places are of single values in its memory."""

    code: IntArray
    weights: FloatArray
    rows: int
    reach: int
    kept: int
    size: int


@dataclass
class _Operation:
    code: int
    outs: list[int]
    operands: list[_Operand]
    weight: float
    number: int
    length: int


def _once(method: Callable[..., int]) -> Callable[..., int]:
    """Do not ask again for what is known of the same series."""

    @wraps(method)
    def ask(builder: Builder, *asked: float) -> int:
        key = method.__name__, builder.base, *asked
        if key not in builder.known:
            builder.known[key] = method(builder, *asked)
        return builder.known[key]

    return ask


@dataclass
class Builder:
    """Write operations on rows, a row being one quantity on every bar of a stretch; what is known is not done again.

    Statistics are taken of the rows in `base`. The means and central sums of two neighbouring windows are joined as Pebay does
    [1]_, and so is `tilt`.

    References
    ----------
    .. [1] Pebay, P. (2008). Formulas for robust, one-pass parallel computation of covariances and arbitrary-order
       statistical moments. Sandia report SAND2008-6212, equations 2.1 and 3.1.
    """

    base: tuple[int, ...] = ()
    operations: list[_Operation] = field(default_factory=list)
    known: dict[tuple[object, ...], int] = field(default_factory=dict)
    history: dict[int, int] = field(default_factory=dict)
    lengths: dict[int, int] = field(default_factory=dict)

    def emit(self, code: int, *operands: int | _Operand, weight: float = 0.0, number: int = 0) -> int:
        """Add an operation, and give its row."""
        placed = [(operand, 0) if isinstance(operand, int) else operand for operand in operands]
        key = (code, *placed, weight, number)
        if key not in self.known:
            self.known[key] = self.row()
            self.write(code, [self.known[key]], placed, weight, number)
        return self.known[key]

    def row(self) -> int:
        self.history[len(self.history)] = 0
        return len(self.history) - 1

    def write(self, code: int, outs: list[int], operands: list[_Operand], weight: float = 0.0, number: int = 0) -> None:
        for row, bars in operands:
            self.history[row] = max(self.history[row], bars)
        length = max([1, *(self.lengths[row] + bars for row, bars in operands)])
        self.lengths.update(dict.fromkeys(outs, length))
        self.operations.append(_Operation(code, outs, operands, weight, number, length))

    def over(self, *rows: int) -> Builder:
        """Give a builder that writes to the same program, statistics of other rows."""
        return replace(self, base=rows)

    def load(self, place: int) -> int:
        return self.emit(LOAD, number=place)

    def series(self, place: int) -> int:
        return self.base[place]

    @_once
    def total(self, n: int, decay: float = 1.0) -> int:
        if n == 1:
            return self.series(0)
        left, right = _halves(n)
        older = decay
        for _ in range(right.bit_length() - 1):  # squared, so that the stream has the same bits
            older *= older
        return self.emit(SUM, (self.total(left, decay), right), self.total(right, decay), weight=older)

    @_once
    def product(self, n: int) -> int:
        if n == 1:
            return self.series(0)
        left, right = _halves(n)
        return self.emit(PRODUCT, (self.product(left), right), self.product(right))

    @_once
    def lowest(self, n: int, sign: float) -> int:
        """Give the lowest value times `sign`."""
        if n == 1:
            return self.series(0) if sign == 1.0 else self.emit(TIMES, self.series(0), weight=sign)
        left, right = _halves(n)
        return self.emit(LOWEST, (self.lowest(left, sign), right), self.lowest(right, sign))

    @_once
    def place_of_lowest(self, n: int, sign: float) -> int:
        """Give the bar of the lowest value, the latest of equals."""
        if n == 1:
            return self.emit(POSITION)
        left, right = _halves(n)
        earlier, later = self.place_of_lowest(left, sign), self.place_of_lowest(right, sign)
        return self.emit(PICK, (earlier, right), later, (self.lowest(left, sign), right), self.lowest(right, sign))

    def mean(self, n: int, series: int = 0) -> int:
        return self.step(n, series)[0] if n > 1 else self.series(series)

    def step(self, n: int, series: int) -> tuple[int, int]:
        """Give the mean, and how much higher that of the later half is than that of the earlier."""
        key = self.series(series), n
        if ("mean", *key) not in self.known:
            left, right = _halves(n)
            operands = [(self.mean(left, series), right), (self.mean(right, series), 0)]
            mean, step = self.row(), self.row()
            self.write(STEP, [mean, step], operands, right / n)
            self.known["mean", *key], self.known["step", *key] = mean, step
        return self.known["mean", *key], self.known["step", *key]

    @_once
    def products(self, n: int, one: int = 0, other: int = 0) -> int:
        """Give the sum of the products of the deviations of two series from their means."""
        if n == 1:
            return self.emit(TIMES, self.series(0), weight=0.0)
        left, right = _halves(n)
        steps = self.step(n, one)[1], self.step(n, other)[1]
        earlier, later = self.products(left, one, other), self.products(right, one, other)
        return self.emit(PRODUCTS, (earlier, right), later, *steps, weight=left * (right / n))

    @_once
    def tilt(self, n: int) -> int:
        """Give the sum of the values times their distance from the middle of the window."""
        if n == 1:
            return self.emit(TIMES, self.series(0), weight=0.0)
        left, right = _halves(n)
        step = self.step(n, 0)[1]
        return self.emit(TREND, (self.tilt(left), right), self.tilt(right), step, weight=left * right / 2.0)

    @_once
    def third(self, n: int) -> int:
        if n == 1:
            return self.emit(TIMES, self.series(0), weight=0.0)
        left, right = _halves(n)
        a2, b2 = (self.products(left), right), self.products(right)
        step = self.step(n, 0)[1]
        return self.emit(THIRD, (self.third(left), right), self.third(right), step, a2, b2, weight=left, number=right)

    @_once
    def fourth(self, n: int) -> int:
        if n == 1:
            return self.emit(TIMES, self.series(0), weight=0.0)
        left, right = _halves(n)
        a2, b2, a3, b3 = (self.products(left), right), self.products(right), (self.third(left), right), self.third(right)
        step = self.step(n, 0)[1]
        return self.emit(
            FOURTH, (self.fourth(left), right), self.fourth(right), step, a2, b2, a3, b3, weight=left, number=right
        )

    def lay_out(self) -> Layout:
        """Give every row a turn in memory: a row that is not needed any more makes room for another."""
        # From the shortest windows to the longest, so that few rows are needed at a time.
        ordered = sorted(self.operations, key=lambda operation: operation.length)
        last = {row: place for place, operation in enumerate(ordered) for row, _ in operation.operands}
        turns: dict[int, int] = {}
        before: list[int] = []
        free: list[int] = []
        for place, operation in enumerate(ordered):
            for row in operation.outs:
                if not free:
                    free.append(len(before))
                    before.append(0)
                turns[row] = free.pop()
                before[turns[row]] = max(before[turns[row]], self.history[row])
            met = {row for row, _ in operation.operands} | set(operation.outs)
            free += [turns[row] for row in sorted(met) if last.get(row, -1) <= place]
        return Layout(
            operations=ordered,
            turns=turns,
            before=before,
            history=self.history,
            reach=max(operation.length for operation in ordered),
        )


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Hold operations in order, and which rows take turns in memory.

    Parameters
    ----------
    operations : list
    turns : dict of int to int
        Place among those that take turns, by row.
    before : list of int
        Bars before the current stretch that are held, by turn.
    history : dict of int to int
        Earlier bars of a row that are needed, by row.
    reach : int
        Bars that the oldest and the newest bar of a value span.
    """

    operations: list[_Operation]
    turns: dict[int, int]
    before: list[int]
    history: dict[int, int]
    reach: int

    def choose_strip(self, n_bars: int, n_assets: int) -> int:
        """Return how many columns are worked through at a time: as many as leave all rows in the processor's cache."""
        strip = max(1, min(n_assets, _WIDEST_STRIP))
        while strip > 1 and self.size(strip, n_bars) > _ROOM_CELLS:
            strip = (strip + 1) // 2
        return strip

    def size(self, strip: int, n_bars: int) -> int:
        """Return how many values a program for such strips holds."""
        held = sum(self.before) + sum(self.history[row] for row in self.turns)
        return strip * (held + len(self.before) * self._rows(strip, n_bars))

    def place(self, strip: int, n_bars: int) -> Program:
        """Give every row a place in memory. Earlier values stand before it, and are kept aside between stretches of bars."""
        rows = self._rows(strip, n_bars)
        starts = [0, *accumulate((bars + rows) * strip for bars in self.before)]
        places = {row: starts[turn] + self.before[turn] * strip for row, turn in self.turns.items()}
        kept = end = starts[-1]
        lines = []
        for operation in self.operations:
            used = [places[row] for row in operation.outs]
            used += [places[row] - bars * strip for row, bars in operation.operands]
            lines.append((operation.code, *used, *[0] * (_MOST_PLACES - len(used)), operation.number, operation.weight))
            for row in operation.outs:
                if held := self.history[row] * strip:
                    used = [places[row] - held, end, places[row] + rows * strip - held]
                    lines.append((CARRY, *used, *[0] * (_MOST_PLACES - len(used)), held, 0.0))
                    end += held
        return Program(
            code=np.array([line[:-1] for line in lines], dtype=np.int64),
            weights=np.array([line[-1] for line in lines], dtype=np.float64),
            rows=rows,
            reach=self.reach,
            kept=kept,
            size=end,
        )

    def _rows(self, strip: int, n_bars: int) -> int:
        cells = min(max(_CACHED_CELLS // len(self.before), _FEWEST_CELLS), _MOST_CELLS)
        return min(max(cells // strip, *self.before), n_bars)


def _halves(n: int) -> tuple[int, int]:
    """Split a window: the later part is the largest power of two that leaves something."""
    right = 1 << ((n - 1).bit_length() - 1)
    return n - right, right
