"""The compiled machine that runs the program of a `FeatureStream` for one bar.

Hides the memory of the machine: one flat array of float64 that holds the slots (one row of `n_assets` values each), then
the rings (the last rows of a slot, or of a state). An instruction is a row ``(operation, out, a, b, c, d)`` of the code;
slots are named by the place where they start in memory, rings and windows by their number.

Promises the arithmetic of the batch, operation by operation and in the same order, so that the same bits come out: sums,
moments and weighted means are joined from windows whose lengths are powers of two, which takes only ``log2(window)`` joins
for a new bar because the earlier halves are still there, and nothing is ever subtracted again, so nothing can drift.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from features.fields import FloatArray

IntArray = npt.NDArray[np.int64]

(ADD, SUBTRACT, MULTIPLY, DIVIDE, NEGATE, ABS, SQRT, SIGN, MIN, MAX, LESS, LESS_EQUAL, EQUAL, DIFFERENT) = range(14)
(WHERE, KNOWN, COALESCE, GIVEN, SPREAD, CLEAN) = range(14, 20)
(RANK, BUCKET, LEVEL, TOTAL, COUNT, VARIES) = range(20, 26)
(PUSH, LAG, FILL, TIME_RANK, AGE, DEVIATION, ORDER, QUANTILE, JOIN, WINDOW) = range(30, 40)

(SUM, PRODUCT, LOWEST, HIGHEST, MOMENTS2, MOMENTS4, COMOMENTS, TREND) = range(8)
WIDTHS = {SUM: 1, PRODUCT: 1, LOWEST: 1, HIGHEST: 1, MOMENTS2: 2, MOMENTS4: 4, COMOMENTS: 5, TREND: 2}


@njit(cache=True, nogil=True, error_model="numpy")
def run(code: IntArray, rings: IntArray, states: IntArray, memory: FloatArray, n: int, t: int) -> None:
    """Run instructions for bar `t`, the number of bars before it.

    Parameters
    ----------
    code : ndarray of shape (n_instructions, 6), int
        What to do, in order.
    rings : ndarray of shape (n_rings, 3), int
        Where each ring starts in memory, its number of rows, and the length of a row.
    states : ndarray of shape (n_states, 6), int
        Kind of each state, its number of levels, its first ring (one a level), its source slots (twice the same if it has
        one), and the slot of what a `SUM` is multiplied by when it gets a bar older.
    memory : ndarray of shape (n_values,)
        Written in place.
    n : int
        Number of assets.
    t : int
        Number of bars before this one.
    """
    for i in range(code.shape[0]):
        operation, out, a, b, c, d = code[i, 0], code[i, 1], code[i, 2], code[i, 3], code[i, 4], code[i, 5]
        if operation <= CLEAN:
            _elementwise(operation, memory, out, a, b, c, n)
        elif operation <= VARIES:
            _crosssection(operation, memory, out, a, b, c, n)
        elif operation == PUSH:
            _copy(memory, _row(rings, a, t), b, n)
        elif operation == LAG:
            _copy(memory, out, _row(rings, a, t - b), n)
        elif operation == FILL:
            _fill(memory, rings, out, a, b, n, t)
        elif operation == DEVIATION:
            _deviation(memory, rings, out, a, b, c, n, t)
        elif operation == TIME_RANK:
            _time_rank(memory, rings, out, a, b, n, t)
        elif operation == AGE:
            _age(memory, rings, out, a, b, c, float(d), n, t)
        elif operation == ORDER:
            _order(memory, rings, out, a, b, c, d, n, t)
        elif operation == QUANTILE:
            _quantile(memory, rings, out, a, b, c, d, n)
        elif operation == JOIN:
            _join_levels(memory, rings, states, a, n, t)
        else:
            _join_window(memory, rings, states, out, a, b, n, t)


@njit(cache=True, nogil=True, error_model="numpy")
def _row(rings: IntArray, ring: int, t: int) -> int:
    start: int = rings[ring, 0] + (t % rings[ring, 1]) * rings[ring, 2]
    return start


@njit(cache=True, nogil=True, error_model="numpy")
def _copy(memory: FloatArray, out: int, a: int, n: int) -> None:
    for j in range(n):
        memory[out + j] = memory[a + j]


@njit(cache=True, nogil=True, error_model="numpy")
def _elementwise(operation: int, memory: FloatArray, out: int, a: int, b: int, c: int, n: int) -> None:
    for j in range(n):
        x = memory[a + j]
        y = memory[b + j]
        if operation == ADD:
            value = x + y
        elif operation == SUBTRACT:
            value = x - y
        elif operation == MULTIPLY:
            value = x * y
        elif operation == DIVIDE:
            value = x / y
        elif operation == NEGATE:
            value = 0.0 - x
        elif operation == ABS:
            value = abs(x)
        elif operation == SQRT:
            value = np.sqrt(x)
        elif operation == SPREAD:
            value = np.sqrt(x) if x > 0.0 else np.nan
        elif operation == CLEAN:
            value = np.nan if np.isinf(x) else x
        elif operation == WHERE:
            value = np.nan if np.isnan(x) else (y if x == 1.0 else memory[c + j])
        elif operation == KNOWN:
            value = 0.0 if np.isnan(x) else 1.0
        elif operation == COALESCE:
            value = y if np.isnan(x) else x
        elif np.isnan(x) or np.isnan(y):
            value = np.nan
        elif operation == GIVEN:
            value = x
        elif operation == SIGN:
            value = 1.0 if x > 0.0 else (-1.0 if x < 0.0 else 0.0)
        elif operation == MIN:
            value = min(x, y)
        elif operation == MAX:
            value = max(x, y)
        elif operation == LESS:
            value = 1.0 if x < y else 0.0
        elif operation == LESS_EQUAL:
            value = 1.0 if x <= y else 0.0
        elif operation == EQUAL:
            value = 1.0 if x == y else 0.0
        else:
            value = 1.0 if x != y else 0.0
        memory[out + j] = value


@njit(cache=True, nogil=True, error_model="numpy")
def _crosssection(operation: int, memory: FloatArray, out: int, a: int, number: int, scratch: int, n: int) -> None:
    known = 0
    for j in range(n):
        if not np.isnan(memory[a + j]):
            memory[scratch + known] = memory[a + j]
            known += 1
    if operation <= LEVEL:
        _sort(memory, scratch, known)
    if operation <= BUCKET:
        for j in range(n):
            x = memory[a + j]
            if np.isnan(x):
                memory[out + j] = np.nan
                continue
            first = _place(memory, scratch, known, x)
            last = first
            while last + 1 < known and memory[scratch + last + 1] == x:
                last += 1
            if operation == BUCKET:
                memory[out + j] = int(memory[number]) * (first + last + 1) // (2 * known)
            else:
                memory[out + j] = (first + last) / (2.0 * (known - 1)) if known > 1 else 0.5
        return
    if operation == LEVEL:
        value = _level(memory, scratch, known, memory[number])
    elif operation == COUNT:
        value = float(known)
    elif operation == TOTAL:
        value = 0.0
        for j in range(known):
            value += memory[scratch + j]
    else:
        value = 0.0
        for j in range(1, known):
            if memory[scratch + j] != memory[scratch]:
                value = 1.0
    for j in range(n):
        memory[out + j] = value


@njit(cache=True, nogil=True, error_model="numpy")
def _sort(memory: FloatArray, start: int, n: int) -> None:
    gap = 1
    while gap < n // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, n):
            value = memory[start + i]
            free = i
            while free >= gap and memory[start + free - gap] > value:
                memory[start + free] = memory[start + free - gap]
                free -= gap
            memory[start + free] = value
        gap //= 3


@njit(cache=True, nogil=True, error_model="numpy")
def _place(memory: FloatArray, ordered: int, n: int, value: float) -> int:
    low, high = 0, n - 1
    while low < high:
        middle = (low + high) // 2
        if memory[ordered + middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True, error_model="numpy")
def _level(memory: FloatArray, ordered: int, n: int, level: float) -> float:
    if n == 0:
        return np.nan
    place = level * (n - 1)
    below = int(np.floor(place))
    low = memory[ordered + below]
    high = memory[ordered + min(below + 1, n - 1)]
    value: float = low + (place - below) * (high - low)
    return value


@njit(cache=True, nogil=True, error_model="numpy")
def _fill(memory: FloatArray, rings: IntArray, out: int, ring: int, bars: int, n: int, t: int) -> None:
    _copy(memory, out, _row(rings, ring, t), n)
    for k in range(t - 1, t - bars, -1):
        row = _row(rings, ring, k)
        for j in range(n):
            if np.isnan(memory[out + j]):
                memory[out + j] = memory[row + j]


@njit(cache=True, nogil=True, error_model="numpy")
def _deviation(memory: FloatArray, rings: IntArray, out: int, ring: int, window: int, mean: int, n: int, t: int) -> None:
    """Measure from the current value first, so that the mean of a constant window is exact."""
    now = _row(rings, ring, t)
    for j in range(n):
        memory[mean + j] = 0.0
        memory[out + j] = 0.0
    for k in range(t - window + 1, t + 1):
        row = _row(rings, ring, k)
        for j in range(n):
            memory[mean + j] += memory[row + j] - memory[now + j]
    for j in range(n):
        memory[mean + j] = memory[now + j] + memory[mean + j] / window
    for k in range(t - window + 1, t + 1):
        row = _row(rings, ring, k)
        for j in range(n):
            memory[out + j] += abs(memory[row + j] - memory[mean + j])
    for j in range(n):
        memory[out + j] /= window


@njit(cache=True, nogil=True, error_model="numpy")
def _time_rank(memory: FloatArray, rings: IntArray, out: int, ring: int, window: int, n: int, t: int) -> None:
    now = _row(rings, ring, t)
    for j in range(n):
        memory[out + j] = 0.0
    for k in range(t - window + 1, t + 1):
        row = _row(rings, ring, k)
        for j in range(n):
            x = memory[row + j]
            now_j = memory[now + j]
            memory[out + j] += 1.0 if x < now_j else (-1.0 if x > now_j else x - x)
    for j in range(n):
        memory[out + j] = 0.5 + memory[out + j] / (2.0 * (window - 1))


@njit(cache=True, nogil=True, error_model="numpy")
def _age(memory: FloatArray, rings: IntArray, out: int, ring: int, window: int, best: int, sign: float, n: int, t: int) -> None:
    for j in range(n):
        memory[out + j] = 0.0
        memory[best + j] = np.inf
    for k in range(t - window + 1, t + 1):
        row = _row(rings, ring, k)
        for j in range(n):
            x = sign * memory[row + j]
            if np.isnan(x):
                memory[out + j] = np.nan
            elif x <= memory[best + j]:
                memory[best + j] = x
                memory[out + j] = t - k if not np.isnan(memory[out + j]) else np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def _order(
    memory: FloatArray, rings: IntArray, source: int, ring: int, ordered: int, counts: int, window: int, n: int, t: int
) -> None:
    """Keep the known values of each asset's window sorted: one leaves, one comes; no arithmetic is done on them."""
    leaving = _row(rings, ring, t - window)
    held_row = rings[counts, 0]
    for j in range(n):
        base = rings[ordered, 0] + j * window
        held = int(memory[held_row + j])
        old = memory[leaving + j]
        if not np.isnan(old):
            held -= 1
            for k in range(_place(memory, base, held + 1, old), held):
                memory[base + k] = memory[base + k + 1]
        new = memory[source + j]
        if not np.isnan(new):
            free = held
            while free > 0 and memory[base + free - 1] > new:
                memory[base + free] = memory[base + free - 1]
                free -= 1
            memory[base + free] = new
            held += 1
        memory[held_row + j] = held


@njit(cache=True, nogil=True, error_model="numpy")
def _quantile(
    memory: FloatArray, rings: IntArray, out: int, ordered: int, counts: int, level: int, window: int, n: int
) -> None:
    for j in range(n):
        whole = memory[rings[counts, 0] + j] == window
        memory[out + j] = _level(memory, rings[ordered, 0] + j * window, window, memory[level]) if whole else np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def _join_levels(memory: FloatArray, rings: IntArray, states: IntArray, state: int, n: int, t: int) -> None:
    """Write the state of the windows of 1, 2, 4, ... bars that end now."""
    kind, levels, ring, decay = states[state, 0], states[state, 1], states[state, 2], memory[states[state, 5]]
    row = _row(rings, ring, t)
    width = rings[ring, 2] // n
    for j in range(width * n):
        memory[row + j] = 0.0
    _copy(memory, row, states[state, 3], n)
    if kind == COMOMENTS:
        _copy(memory, row + n, states[state, 4], n)
    for level in range(1, levels):
        half = 1 << (level - 1)
        out = _row(rings, ring + level, t)
        left = _row(rings, ring + level - 1, t - half)
        right = _row(rings, ring + level - 1, t)
        _join(kind, memory, out, left, half, right, half, decay, n)


@njit(cache=True, nogil=True, error_model="numpy")
def _join_window(
    memory: FloatArray, rings: IntArray, states: IntArray, out: int, state: int, window: int, n: int, t: int
) -> None:
    """Join the state of a window of any length, the shortest part being the earliest."""
    kind, levels, ring, decay = states[state, 0], states[state, 1], states[state, 2], memory[states[state, 5]]
    covered = 0
    for level in range(levels):
        size = 1 << level
        if window & size:
            part = _row(rings, ring + level, t - (window - covered - size))
            if covered == 0:
                _copy(memory, out, part, rings[ring, 2])
            else:
                _join(kind, memory, out, out, covered, part, size, decay, n)
            covered += size


@njit(cache=True, nogil=True, error_model="numpy")
def _join(
    kind: int, memory: FloatArray, out: int, left: int, left_bars: int, right: int, right_bars: int, decay: float, n: int
) -> None:
    """Join the states of two neighbouring windows, the left one the earlier; `out` may be `left`."""
    if kind >= MOMENTS2:
        _join_moments(kind, memory, out, left, float(left_bars), right, float(right_bars), n)
        return
    older, bars = decay, 1
    while bars < right_bars:
        older, bars = older * older, 2 * bars
    for j in range(n):
        x = memory[left + j]
        y = memory[right + j]
        if kind == SUM:
            memory[out + j] = x * older + y
        elif kind == PRODUCT:
            memory[out + j] = x * y
        elif np.isnan(x) or np.isnan(y):
            memory[out + j] = np.nan
        else:
            memory[out + j] = min(x, y) if kind == LOWEST else max(x, y)


@njit(cache=True, nogil=True, error_model="numpy")
def _join_moments(kind: int, memory: FloatArray, out: int, left: int, a: float, right: int, b: float, n: int) -> None:
    """Join means and central sums, with the operations of `features.joins`; a state holds them one row each.

    `MOMENTS2` and `MOMENTS4`: mean, sums of squared (third, fourth) powers of deviations. `COMOMENTS`: means of y and x,
    sums of the deviations' products xy, xx, yy. `TREND`: mean, sum of values times their distance from the window's middle.
    """
    share = b / (a + b)
    weight = a * share
    half = a * b / 2.0
    per_bar = 1.0 / (a + b)
    third, fourth = a * b * (a - b), a * b * (a * a - a * b + b * b)
    for j in range(n):
        d = memory[right + j] - memory[left + j]
        memory[out + j] = memory[left + j] + share * d
        second_row = memory[left + n + j] + memory[right + n + j]
        if kind == TREND:
            memory[out + n + j] = second_row + half * d
        elif kind == MOMENTS2:
            memory[out + n + j] = second_row + weight * (d * d)
        elif kind == COMOMENTS:
            e = memory[right + n + j] - memory[left + n + j]
            memory[out + n + j] = memory[left + n + j] + share * e
            for row, product in ((2, d * e), (3, e * e), (4, d * d)):
                place = row * n + j
                memory[out + place] = memory[left + place] + memory[right + place] + weight * product
        else:
            step = d * per_bar
            a2, a3, a4 = memory[left + n + j], memory[left + 2 * n + j], memory[left + 3 * n + j]
            b2, b3, b4 = memory[right + n + j], memory[right + 2 * n + j], memory[right + 3 * n + j]
            memory[out + n + j] = second_row + weight * (d * d)
            memory[out + 2 * n + j] = a3 + b3 + d * step * step * third + 3.0 * step * (a * b2 - b * a2)
            memory[out + 3 * n + j] = (
                a4
                + b4
                + d * step * step * step * fourth
                + 6.0 * step * step * (a * a * b2 + b * b * a2)
                + 4.0 * step * (a * b3 - b * a3)
            )
