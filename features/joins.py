"""The compiled machine that runs the programs of `features.join_program`.

Hides numba. Strips of columns and stretches of bars are worked through one after the other, so that all rows stay in the
processor's cache, and every loop is short and plain, because only such loops are turned into vector instructions.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from features.fields import FloatArray
from features.join_program import (
    AT_MOST,
    CARRY,
    CONSTANT,
    DIVIDE_BY,
    FINITE,
    FINITE_DIFFERENCE,
    FINITE_PRODUCT,
    FINITE_RATIO,
    FINITE_SUM,
    FOURTH,
    LESS,
    LIMIT,
    LOAD,
    LOWEST,
    MAGNITUDE,
    OFFSET,
    OVER_SPREAD,
    PICK,
    POSITION,
    PRODUCT,
    PRODUCTS,
    RATIO,
    ROOT,
    STEP,
    STORE,
    SUBTRACT,
    SUM,
    THIRD,
    TIMES,
    TREND,
    IntArray,
)


@njit(cache=True, nogil=True, error_model="numpy")
def run_program(
    code: IntArray,
    weights: FloatArray,
    rows: int,
    kept: int,
    strip: int,
    first: int,
    stop: int,
    from_bar: int,
    begin: int,
    end: int,
    n_bars: int,
    n_assets: int,
    series: tuple[FloatArray, ...],
    memory: FloatArray,
    out: FloatArray,
) -> None:
    """Run a program over columns `first` to `stop`, `strip` at a time, and over bars `begin` to `end`, `rows` at a time.

    Parameters
    ----------
    code : ndarray of shape (n_operations, 10), int
        An operation, the places in memory of what it writes and reads, and a number.
    weights : ndarray of shape (n_operations,)
        A number for each operation.
    kept : int
        Where in memory begins what is kept for the next stretch of bars.
    rows, strip, first, stop : int
        Whole strips only: ``(stop - first) % strip == 0``.
    from_bar, begin, end : int
        Bars to work through, from `from_bar` on, and to write, from `begin` on; both are multiples of `rows`.
    n_bars, n_assets : int
        Shape of the series.
    series : tuple of ndarray of shape (n_bars * n_assets,)
        What the program reads.
    memory : ndarray of shape (n_values,)
        Room to work in.
    out : ndarray of shape (n_results * n_bars * n_assets,)
        Written in place; never infinite.
    """
    for left in range(first, stop, strip):
        for i in range(kept, memory.size):
            memory[i] = np.nan
        # What comes before the first bar that is written fills the windows that reach back from it.
        for start in range(from_bar, end, rows):
            bars = rows if start + rows <= end else end - start
            n = bars * strip
            # All columns at once are one long line.
            lines, line = (1, n) if strip == n_assets else (bars, strip)
            for k in range(code.shape[0]):
                operation, weight = code[k, 0], weights[k]
                o = _cut(memory, code[k, 1], n)
                a = _cut(memory, code[k, 2], n)
                b = _cut(memory, code[k, 3], n)
                c = _cut(memory, code[k, 4], n)
                d = _cut(memory, code[k, 5], n)
                if operation == LOAD:
                    source = series[code[k, 9]]
                    for t in range(lines):
                        values = _cut(source, (start + t) * n_assets + left, line)
                        target = _cut(o, t * line, line)
                        for i in range(line):
                            target[i] = values[i]
                elif operation == STORE:
                    if start < begin:
                        continue
                    place = (code[k, 9] * n_bars + start) * n_assets + left
                    for t in range(lines):
                        target = _cut(out, place + t * n_assets, line)
                        values = _cut(o, t * line, line)
                        for i in range(line):
                            target[i] = values[i] if abs(values[i]) < np.inf else np.nan
                elif operation == POSITION:
                    for t in range(bars):
                        for i in range(t * strip, t * strip + strip):
                            o[i] = start + t
                elif operation == CARRY:
                    held = code[k, 9]
                    o, a, b = _cut(memory, code[k, 1], held), _cut(memory, code[k, 2], held), _cut(memory, code[k, 3], held)
                    for i in range(held):
                        o[i] = a[i]
                    for i in range(held):
                        a[i] = b[i]
                elif operation == SUM:
                    for i in range(n):
                        o[i] = a[i] * weight + b[i]
                elif operation == LOWEST:
                    for i in range(n):
                        o[i] = b[i] if b[i] < a[i] or b[i] != b[i] else a[i]
                elif operation == PICK:
                    for i in range(n):
                        earlier, later = a[i], b[i]
                        o[i] = earlier if d[i] > c[i] else later
                elif operation == STEP:
                    for i in range(n):
                        step = c[i] - b[i]
                        a[i] = step
                        o[i] = b[i] + weight * step
                elif operation == TREND:
                    for i in range(n):
                        o[i] = a[i] + b[i] + weight * c[i]
                elif operation == PRODUCTS:
                    for i in range(n):
                        o[i] = a[i] + b[i] + weight * (c[i] * d[i])
                elif THIRD <= operation <= FOURTH:
                    e, f, g = _cut(memory, code[k, 6], n), _cut(memory, code[k, 7], n), _cut(memory, code[k, 8], n)
                    left_bars, right_bars = weight, float(code[k, 9])
                    both, between = left_bars * right_bars, left_bars - right_bars
                    per_bar = 1.0 / (left_bars + right_bars)
                    third, squares = both * between, left_bars * left_bars - both + right_bars * right_bars
                    if operation == THIRD:
                        for i in range(n):
                            step = c[i] * per_bar
                            o[i] = (
                                a[i] + b[i] + c[i] * step * step * third + 3.0 * step * (left_bars * e[i] - right_bars * d[i])
                            )
                    else:
                        fourth = both * squares
                        for i in range(n):
                            step = c[i] * per_bar
                            o[i] = (
                                a[i]
                                + b[i]
                                + c[i] * step * step * step * fourth
                                + 6.0 * step * step * (left_bars * left_bars * e[i] + right_bars * right_bars * d[i])
                                + 4.0 * step * (left_bars * g[i] - right_bars * f[i])
                            )
                elif operation == DIVIDE_BY:
                    for i in range(n):
                        o[i] = a[i] / weight
                elif operation == ROOT:
                    for i in range(n):
                        o[i] = np.sqrt(a[i])
                elif operation == OVER_SPREAD:
                    for i in range(n):
                        spread = np.sqrt(b[i])
                        o[i] = a[i] / spread if b[i] > 0.0 else np.nan
                elif operation == RATIO:
                    for i in range(n):
                        o[i] = a[i] / b[i]
                elif operation == SUBTRACT:
                    for i in range(n):
                        o[i] = a[i] - b[i]
                elif operation == PRODUCT:
                    for i in range(n):
                        o[i] = a[i] * b[i]
                elif operation == TIMES:
                    for i in range(n):
                        o[i] = a[i] * weight
                elif operation == OFFSET:
                    for i in range(n):
                        o[i] = a[i] + weight
                elif operation == LIMIT:
                    for i in range(n):
                        o[i] = a[i] if abs(a[i]) <= weight or a[i] != a[i] else (weight if a[i] > 0.0 else -weight)
                elif operation == FINITE:
                    for i in range(n):
                        o[i] = a[i] if abs(a[i]) < np.inf else np.nan
                elif operation == FINITE_SUM:
                    for i in range(n):
                        value = a[i] + b[i]
                        o[i] = value if abs(value) < np.inf else np.nan
                elif operation == FINITE_DIFFERENCE:
                    for i in range(n):
                        value = a[i] - b[i]
                        o[i] = value if abs(value) < np.inf else np.nan
                elif operation == FINITE_PRODUCT:
                    for i in range(n):
                        value = a[i] * b[i]
                        o[i] = value if abs(value) < np.inf else np.nan
                elif operation == FINITE_RATIO:
                    for i in range(n):
                        value = a[i] / b[i]
                        o[i] = value if abs(value) < np.inf else np.nan
                elif operation == MAGNITUDE:
                    for i in range(n):
                        o[i] = abs(a[i])
                elif operation == LESS:
                    for i in range(n):
                        known = a[i] == a[i] and b[i] == b[i]
                        o[i] = (1.0 if a[i] < b[i] else 0.0) if known else np.nan
                elif operation == AT_MOST:
                    for i in range(n):
                        known = a[i] == a[i] and b[i] == b[i]
                        o[i] = (1.0 if a[i] <= b[i] else 0.0) if known else np.nan
                elif operation == CONSTANT:
                    for i in range(n):
                        o[i] = weight
                else:
                    for i in range(n):
                        age = b[i] - a[i]
                        o[i] = age if c[i] == c[i] else np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def _cut(x: FloatArray, start: int, n: int) -> FloatArray:
    return x[start : start + n]
