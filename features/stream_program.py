"""Turns expressions into a program for the machine of `features.stream_kernels`.

Hides slots, rings and phases. Promises that equal sub-expressions, and equal windows inside different operators, are
computed once; and that an operator without a compiled form is still right: its own function is called on its window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from features import stream_kernels as machine
from features.fields import FloatArray
from features.node import Node
from features.operators import NEGATE, Kind
from features.stream_kernels import IntArray
from features.timeseries import EWMA_HALFLIVES

_CONSTANTS = (Kind.NUMBER, Kind.WINDOW, Kind.LAG)


@dataclass(frozen=True, kw_only=True)
class Call:
    """Hold an operator that is not compiled.

    Parameters
    ----------
    function : callable
        The operator's own, as the batch calls it.
    args : tuple of ndarray of shape (n_kept, n_assets), or int or float
        The last rows of each panel argument, a ring of the program's memory in which bar ``t`` is row ``t % n_kept``; or
        the constant.
    bars : int
        Bars that the function looks at, the current one included.
    out : ndarray of shape (n_assets,)
        Slot of the result, in the program's memory.
    """

    function: Callable[..., FloatArray]
    args: tuple[FloatArray | float | int, ...]
    bars: int
    out: FloatArray

    def run(self, t: int) -> None:
        """Write the result for bar `t`; the function sees no row before the first bar."""
        rows = np.arange(t + 1 - min(self.bars, t + 1), t + 1)
        args = (arg.take(rows, axis=0, mode="wrap") if isinstance(arg, np.ndarray) else arg for arg in self.args)
        self.out[:] = self.function(*args)[-1]


@dataclass(frozen=True, kw_only=True)
class Program:
    """Hold what computes a set of expressions for one bar.

    Parameters
    ----------
    phases : tuple of (ndarray of shape (n_instructions, 6), tuple of Call)
        In this order: run the instructions, then the calls.
    rings, states : ndarray
        As `features.stream_kernels.run` takes them.
    memory : ndarray of shape (n_values,)
        As before the first bar.
    fields : mapping of str to ndarray of shape (n_assets,)
        Where the row of each field is written, in `memory`.
    outputs : ndarray of shape (k, n_assets), int
        Where the values of each expression are found, in `memory`.
    """

    phases: tuple[tuple[IntArray, tuple[Call, ...]], ...]
    rings: IntArray
    states: IntArray
    memory: FloatArray
    fields: Mapping[str, FloatArray]
    outputs: IntArray

    def run(self, t: int) -> None:
        """Compute bar `t` (the number of bars before it) from the rows that `fields` hold."""
        n = self.outputs.shape[1]
        for code, calls in self.phases:
            machine.run(code, self.rings, self.states, self.memory, n, t)
            for call in calls:
                call.run(t)


def build_program(roots: Sequence[Node], n_assets: int) -> Program:
    """Compile expressions.

    Parameters
    ----------
    roots : sequence of Node
        One an expression.
    n_assets : int
        Values in a row.

    Returns
    -------
    Program
    """
    builder = _Builder(n=n_assets)
    return builder.finish([builder.node(root) for root in roots])


@dataclass
class _Ring:
    number: int
    width: int
    phase: int
    bars: int = 1
    empty: float = math.nan
    start: int = -1


@dataclass
class _State:
    kind: int
    sources: tuple[int, int]
    first: int
    phase: int
    halflife: int
    windows: set[int] = field(default_factory=set)


@dataclass
class _Call:
    phase: int
    node: Node
    args: tuple[_Ring | float | int, ...]
    bars: int
    out: int


@dataclass
class _Builder:
    """Place every distinct value in a slot, and every instruction in the first phase in which its arguments are there.

    A slot is the place of its row in memory. Calls follow the instructions of their phase, so what needs their result
    waits for the next one.
    """

    n: int
    n_rows: int = 0
    numbers: dict[float, int] = field(default_factory=dict)
    fields: dict[str, int] = field(default_factory=dict)
    slots: dict[object, int] = field(default_factory=dict)
    phase: dict[int, int] = field(default_factory=dict)
    code: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    calls: list[_Call] = field(default_factory=list)
    rings: list[_Ring] = field(default_factory=list)
    history: dict[int, _Ring] = field(default_factory=dict)
    states: dict[tuple[int, ...], tuple[int, _State]] = field(default_factory=dict)
    ordered: dict[tuple[int, int], tuple[_Ring, _Ring]] = field(default_factory=dict)

    def node(self, node: Node) -> int:
        if node.value is not None:
            return self.number(node.value)
        if node.canonical not in self.slots:
            if node.operator is None:
                self.slots[node.canonical] = self.fields[node.canonical] = self.slot(0)
            else:
                form = COMPILED.get(node.operator.name)
                raw = self.call(node) if form is None else form(self, *self.arguments(node))
                self.slots[node.canonical] = self.emit(machine.CLEAN, raw)
        return self.slots[node.canonical]

    def arguments(self, node: Node) -> list[int | float]:
        assert node.operator is not None
        return [
            arg.value if kind in _CONSTANTS and arg.value is not None else self.node(arg)
            for kind, arg in zip(node.operator.signature, node.args, strict=True)
        ]

    def number(self, value: float) -> int:
        if value not in self.numbers:
            self.numbers[value] = self.slot(0)
        return self.numbers[value]

    def slot(self, phase: int, rows: int = 1) -> int:
        first = self.n_rows * self.n
        self.n_rows += rows
        for place in range(rows):
            self.phase[first + place * self.n] = phase
        return first

    def scratch(self) -> int:
        key = ("scratch",)
        if key not in self.slots:
            self.slots[key] = self.slot(0)
        return self.slots[key]

    def emit(self, operation: int, *slots: int) -> int:
        """Join one, two or three slots."""
        key = (operation, *slots)
        if key not in self.slots:
            phase = max(self.phase[slot] for slot in slots)
            self.slots[key] = self.slot(phase)
            self.add(phase, operation, self.slots[key], *slots, *([slots[-1]] * (4 - len(slots))))
        return self.slots[key]

    def add(self, phase: int, *instruction: int) -> None:
        self.code.append((phase, (*instruction, *([0] * (6 - len(instruction))))))

    def crosssection(self, operation: int, x: int, number: int = 0) -> int:
        key = (operation, x, number)
        if key not in self.slots:
            self.slots[key] = self.slot(self.phase[x])
            self.add(self.phase[x], operation, self.slots[key], x, number, self.scratch())
        return self.slots[key]

    def ring(self, width: int, phase: int, empty: float = math.nan) -> _Ring:
        self.rings.append(_Ring(number=len(self.rings), width=width, phase=phase, empty=empty))
        return self.rings[-1]

    def keep(self, slot: int, bars: int) -> _Ring:
        """Keep the last `bars` rows of a slot, the current one included."""
        if slot not in self.history:
            self.history[slot] = self.ring(self.n, self.phase[slot])
            self.add(self.phase[slot], machine.PUSH, 0, self.history[slot].number, slot)
        ring = self.history[slot]
        ring.bars = max(ring.bars, bars)
        return ring

    def lag(self, x: int, lag: int) -> int:
        key = (machine.LAG, x, lag)
        if key not in self.slots:
            ring = self.keep(x, lag + 1)
            self.slots[key] = self.slot(ring.phase)
            self.add(ring.phase, machine.LAG, self.slots[key], ring.number, lag)
        return self.slots[key]

    def time_rank(self, x: int, window: int) -> int:
        ring = self.keep(x, window)
        out = self.slot(ring.phase)
        self.add(ring.phase, machine.TIME_RANK, out, ring.number, window)
        return out

    def age(self, x: int, window: int, sign: int) -> int:
        ring = self.keep(x, window)
        out = self.slot(ring.phase)
        self.add(ring.phase, machine.AGE, out, ring.number, window, self.scratch(), sign)
        return out

    def quantile(self, x: int, window: int, level: float) -> int:
        if (x, window) not in self.ordered:
            ring = self.keep(x, window + 1)
            ordered = self.ring(self.n * window, ring.phase), self.ring(self.n, ring.phase, empty=0.0)
            self.ordered[x, window] = ordered
            self.add(ring.phase, machine.ORDER, x, ring.number, ordered[0].number, ordered[1].number, window)
        values, counts = self.ordered[x, window]
        out = self.slot(values.phase)
        self.add(values.phase, machine.QUANTILE, out, values.number, counts.number, self.number(float(level)), window)
        return out

    def window(self, kind: int, window: int, y: int, x: int | None = None, *, halflife: int = 0) -> list[int]:
        """Join the state of the last `window` bars; one slot for each of its rows."""
        x = y if x is None else x
        width = machine.WIDTHS[kind]
        key = (kind, y, x, halflife)
        if key not in self.states:
            phase = max(self.phase[y], self.phase[x])
            state = _State(kind=kind, sources=(y, x), first=-1, phase=phase, halflife=halflife)
            self.states[key] = (len(self.states), state)
            self.add(phase, machine.JOIN, 0, self.states[key][0])
        number, state = self.states[key]
        place = (machine.WINDOW, number, window)
        if place not in self.slots:
            state.windows.add(window)
            self.slots[place] = self.slot(state.phase, width)
            self.add(state.phase, machine.WINDOW, self.slots[place], number, window)
        return [self.slots[place] + row * self.n for row in range(width)]

    def call(self, node: Node) -> int:
        assert node.operator is not None
        bars = 1 + node.lookback - max(arg.lookback for arg in node.args)
        args = tuple(arg.value if arg.value is not None else self.keep(self.node(arg), bars) for arg in node.args)
        phase = max(arg.phase for arg in args if isinstance(arg, _Ring))
        self.calls.append(_Call(phase=phase, node=node, args=args, bars=bars, out=self.slot(phase + 1)))
        return self.calls[-1].out

    def finish(self, outputs: Sequence[int]) -> Program:
        states = np.array([self.place(state) for _, state in self.states.values()], dtype=np.int64).reshape(-1, 6)
        end = self.n_rows * self.n
        for ring in self.rings:
            ring.start = end
            end += ring.bars * ring.width
        memory = np.full(end, math.nan)
        for value, slot in self.numbers.items():
            memory[slot : slot + self.n] = value
        for ring in self.rings:
            memory[ring.start : ring.start + ring.bars * ring.width] = ring.empty
        for row, (_, state) in zip(states, self.states.values(), strict=True):
            if state.kind == machine.DECAY:
                start = self.rings[row[5]].start
                decay = decay_of(state.halflife)
                memory[start : start + row[1]] = [decay ** (1 << level) for level in range(row[1])]
                row[5] = start
        last = max([0, *(phase for phase, _ in self.code), *(call.phase for call in self.calls)])
        rings = [(ring.start, ring.bars, ring.width) for ring in self.rings]
        return Program(
            phases=tuple((self.instructions(phase), self.bound_calls(phase, memory)) for phase in range(last + 1)),
            rings=np.array(rings, dtype=np.int64).reshape(-1, 3),
            states=states,
            memory=memory,
            fields=MappingProxyType({name: memory[slot : slot + self.n] for name, slot in self.fields.items()}),
            outputs=np.add.outer(np.array(outputs, dtype=np.int64), np.arange(self.n)).reshape(len(outputs), self.n),
        )

    def place(self, state: _State) -> tuple[int, ...]:
        """Give a state one ring a level, each as long as the parts of a window are old."""
        levels = max(state.windows).bit_length()
        first = len(self.rings)
        for level in range(levels):
            size = 1 << level
            ages = [(window >> level + 1) << level + 1 for window in state.windows if window & size]
            ring = self.ring(machine.WIDTHS[state.kind] * self.n, state.phase)
            ring.bars = 1 + max([*ages, size if level + 1 < levels else 0])
        powers = self.ring(levels, state.phase).number if state.kind == machine.DECAY else 0
        return state.kind, levels, first, *state.sources, powers

    def instructions(self, phase: int) -> IntArray:
        return np.array([row for when, row in self.code if when == phase], dtype=np.int64).reshape(-1, 6)

    def bound_calls(self, phase: int, memory: FloatArray) -> tuple[Call, ...]:
        def bound(ring: _Ring) -> FloatArray:
            return memory[ring.start : ring.start + ring.bars * ring.width].reshape(ring.bars, ring.width)

        return tuple(
            Call(
                function=call.node.operator.function,
                args=tuple(bound(arg) if isinstance(arg, _Ring) else arg for arg in call.args),
                bars=call.bars,
                out=memory[call.out : call.out + self.n],
            )
            for call in self.calls
            if call.phase == phase and call.node.operator is not None
        )


def decay_of(halflife: int) -> float:
    decay: float = 0.5 ** (1.0 / halflife)
    return decay


_Form = Callable[..., int]


def _join(operation: int) -> _Form:
    return lambda b, *slots: b.emit(operation, *slots)


def _across(operation: int) -> _Form:
    return lambda b, x: b.crosssection(operation, x)


def _winsorize(b: _Builder, x: int, limit: float) -> int:
    return b.crosssection(machine.WINSORIZE, x, b.number(float(limit)))


def _clip(b: _Builder, x: int, low: float, high: float) -> int:
    return b.emit(machine.MIN, b.emit(machine.MAX, x, b.number(low)), b.number(high))


def _delta(b: _Builder, x: int, lag: int) -> int:
    return b.emit(machine.SUBTRACT, x, b.lag(x, lag))


def _pct_change(b: _Builder, x: int, lag: int) -> int:
    return b.emit(machine.SUBTRACT, b.emit(machine.DIVIDE, x, b.lag(x, lag)), b.number(1.0))


def _reduce(kind: int) -> _Form:
    return lambda b, x, window: b.window(kind, window, x)[0]


def _mean(b: _Builder, x: int, window: int) -> int:
    return b.emit(machine.DIVIDE, b.window(machine.SUM, window, x)[0], b.number(window))


def _var(b: _Builder, x: int, window: int) -> int:
    return b.emit(machine.DIVIDE, b.window(machine.MOMENTS2, window, x)[1], b.number(window - 1))


def _std(b: _Builder, x: int, window: int) -> int:
    return b.emit(machine.SQRT, _var(b, x, window))


def _zscore(b: _Builder, x: int, window: int) -> int:
    mean = b.window(machine.MOMENTS2, window, x)[0]
    return b.emit(machine.DIVIDE, b.emit(machine.SUBTRACT, x, mean), b.emit(machine.SPREAD, _var(b, x, window)))


def _standardised(b: _Builder, x: int, window: int, order: int) -> int:
    moments = b.window(machine.MOMENTS4, window, x)
    spread = b.emit(machine.SPREAD, moments[1])
    value = moments[order - 1]
    for _ in range(order):
        value = b.emit(machine.DIVIDE, value, spread)
    return value


def _skew(b: _Builder, x: int, window: int) -> int:
    bias = window * math.sqrt(window - 1.0) / (window - 2)
    return b.emit(machine.MULTIPLY, b.number(bias), _standardised(b, x, window, 3))


def _kurt(b: _Builder, x: int, window: int) -> int:
    raw = b.emit(machine.MULTIPLY, b.number((window + 1.0) * window), _standardised(b, x, window, 4))
    excess = b.emit(machine.SUBTRACT, raw, b.number(3.0 * (window - 1.0)))
    return b.emit(machine.MULTIPLY, b.number((window - 1.0) / ((window - 2.0) * (window - 3.0))), excess)


def _cov(b: _Builder, y: int, x: int, window: int) -> int:
    return b.emit(machine.DIVIDE, b.window(machine.COMOMENTS, window, y, x)[4], b.number(window - 1))


def _corr(b: _Builder, y: int, x: int, window: int) -> int:
    _, _, yy, xx, xy = b.window(machine.COMOMENTS, window, y, x)
    ratio = b.emit(machine.DIVIDE, b.emit(machine.DIVIDE, xy, b.emit(machine.SPREAD, yy)), b.emit(machine.SPREAD, xx))
    return _clip(b, ratio, -1.0, 1.0)


def _beta(b: _Builder, y: int, x: int, window: int) -> int:
    _, _, _, xx, xy = b.window(machine.COMOMENTS, window, y, x)
    return b.emit(machine.DIVIDE, xy, xx)


def _resid(b: _Builder, y: int, x: int, window: int) -> int:
    mean_y, mean_x, _, _, _ = b.window(machine.COMOMENTS, window, y, x)
    explained = b.emit(machine.MULTIPLY, _beta(b, y, x, window), b.emit(machine.SUBTRACT, x, mean_x))
    return b.emit(machine.SUBTRACT, b.emit(machine.SUBTRACT, y, mean_y), explained)


def _slope(b: _Builder, x: int, window: int) -> int:
    tilt = b.window(machine.TREND, window, x)[1]
    return b.emit(machine.DIVIDE, tilt, b.number(window * (window * window - 1.0) / 12.0))


def _decay_linear(b: _Builder, x: int, window: int) -> int:
    mean, tilt = b.window(machine.TREND, window, x)
    return b.emit(machine.ADD, mean, b.emit(machine.DIVIDE, tilt, b.number(window * (window + 1.0) / 2.0)))


def _ewma(b: _Builder, x: int, halflife: int) -> int:
    window = EWMA_HALFLIVES * halflife
    decay = decay_of(halflife)
    total = b.window(machine.DECAY, window, x, halflife=halflife)[0]
    return b.emit(machine.DIVIDE, total, b.number((1.0 - decay**window) / (1.0 - decay)))


def _rsi(b: _Builder, x: int, window: int) -> int:
    change = _delta(b, x, 1)
    up = b.window(machine.SUM, window, b.emit(machine.MAX, change, b.number(0.0)))[0]
    moved = b.window(machine.SUM, window, b.emit(machine.ABS, change))[0]
    return b.emit(machine.DIVIDE, b.emit(machine.MULTIPLY, b.number(100.0), up), moved)


def _atr(b: _Builder, high: int, low: int, close: int, window: int) -> int:
    before = b.lag(close, 1)
    true_range = b.emit(machine.SUBTRACT, b.emit(machine.MAX, high, before), b.emit(machine.MIN, low, before))
    return _mean(b, true_range, window)


COMPILED: Mapping[str, _Form] = MappingProxyType(
    {
        "+": _join(machine.ADD),
        "-": _join(machine.SUBTRACT),
        "*": _join(machine.MULTIPLY),
        "/": _join(machine.DIVIDE),
        NEGATE: _join(machine.NEGATE),
        "<": _join(machine.LESS),
        "<=": _join(machine.LESS_EQUAL),
        "==": _join(machine.EQUAL),
        "!=": _join(machine.DIFFERENT),
        "abs": _join(machine.ABS),
        "sqrt": _join(machine.SQRT),
        "sign": _join(machine.SIGN),
        "min": _join(machine.MIN),
        "max": _join(machine.MAX),
        "clip": _clip,
        "where": _join(machine.WHERE),
        "rank": _across(machine.RANK),
        "zscore": _across(machine.ZSCORE),
        "demean": _across(machine.DEMEAN),
        "scale": _across(machine.SCALE),
        "winsorize": _winsorize,
        "delay": lambda b, x, lag: b.lag(x, lag),
        "delta": _delta,
        "pct_change": _pct_change,
        "ts_sum": _reduce(machine.SUM),
        "ts_count": _reduce(machine.SUM),
        "ts_min": _reduce(machine.LOWEST),
        "ts_max": _reduce(machine.HIGHEST),
        "ts_mean": _mean,
        "ts_var": _var,
        "ts_std": _std,
        "ts_zscore": _zscore,
        "ts_skew": _skew,
        "ts_kurt": _kurt,
        "ts_median": lambda b, x, window: b.quantile(x, window, 0.5),
        "ts_quantile": lambda b, x, window, level: b.quantile(x, window, level),
        "ts_rank": lambda b, x, window: b.time_rank(x, window),
        "ts_argmin": lambda b, x, window: b.age(x, window, 1),
        "ts_argmax": lambda b, x, window: b.age(x, window, -1),
        "ts_cov": _cov,
        "ts_corr": _corr,
        "ts_beta": _beta,
        "ts_resid": _resid,
        "ts_slope": _slope,
        "decay_linear": _decay_linear,
        "ewma": _ewma,
        "rsi": _rsi,
        "atr": _atr,
    }
)
