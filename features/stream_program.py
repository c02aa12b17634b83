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
from features.operators import Kind
from features.stream_forms import COMPILED
from features.stream_kernels import IntArray

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
    builder = Builder(n=n_assets)
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
    phase: int
    decay: int
    windows: set[int] = field(default_factory=set)


@dataclass
class _Call:
    phase: int
    node: Node
    args: tuple[_Ring | float | int, ...]
    bars: int
    out: int


@dataclass
class Builder:
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
    states: dict[tuple[int, int, int, float], tuple[int, _State]] = field(default_factory=dict)
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

    def scan(self, operation: int, x: int, window: int, sign: int = 0) -> int:
        """Look through the last `window` rows of a slot."""
        ring = self.keep(x, window)
        out = self.slot(ring.phase)
        self.add(ring.phase, operation, out, ring.number, window, self.scratch(), sign)
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

    def window(self, kind: int, window: int, y: int, x: int | None = None, *, decay: float = 1.0) -> list[int]:
        """Join the state of the last `window` bars; one slot for each of its rows."""
        x = y if x is None else x
        width = machine.WIDTHS[kind]
        key = (kind, y, x, decay)
        if key not in self.states:
            phase = max(self.phase[y], self.phase[x])
            state = _State(kind=kind, sources=(y, x), phase=phase, decay=self.number(decay))
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
        return state.kind, levels, first, *state.sources, state.decay

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
