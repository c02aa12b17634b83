"""Evaluates expressions over a Panel.

Hides the order of evaluation, threads and memory: what a batch has in common with itself becomes compiled programs
(`features.fusion`) where memory allows, the rest is computed operator by operator (`features.evaluation`). Promises that a
sub-expression that occurs several times in one call, in one expression or across many, is computed once as long as the memory
budget lets it be kept, and that the numbers are the same bits whatever the number of threads, the budget, the batches or the
engine.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from core.cluster import check_engine
from core.errors import DataError, ExpressionError
from features.evaluation import Evaluation, family_of
from features.expression import Expression, parse
from features.fields import FloatArray
from features.fusion import Batch, Group, divide
from features.node import Node

if TYPE_CHECKING:
    from core.market.panel import Panel

Engine = Literal["local", "ray"]
Progress = Callable[[int, int], None]


_FEWEST_CELLS_PER_THREAD = 20_000
_SCRATCH_ARRAYS = 4
_UNASKED_BYTES = 256 * 2**20
_S = TypeVar("_S")
_T = TypeVar("_T")

# glibc gives freed arrays back to the system and fetches them again page by page, a quarter of the time of a batch, until it
# has seen a larger block freed (at most 32 MiB). This one is never touched, so it costs nothing; elsewhere it does nothing.
np.empty(28 * 2**20, dtype=np.uint8)


def compute(
    expression: str | Expression | Sequence[str | Expression],
    panel: Panel,
    *,
    threads: int | None = None,
    memory_budget: int | None = None,
    engine: Engine = "local",
    on_progress: Progress | None = None,
) -> FloatArray:
    """Compute one or many features.

    Parameters
    ----------
    expression : str, Expression, or sequence of them
        What to compute. Text may read the columns of ``panel.extra``.
    panel : Panel
        Bars to read.
    threads : int, optional
        Expressions, or shares of the bars of many, to work on at a time; None for as many as there are processors, fewer for a
        small panel.
    memory_budget : int, optional
        Bytes that the result and everything in between may take, the panel not counted, nor the 2 MiB at most of the
        processor's cache that each thread works in; None for three quarters of the memory that is free now. Values that are
        needed again are let go and recomputed if they do not fit.
    engine : {"local", "ray"}, default="local"
        Where to compute: in this process, or in batches on a Ray cluster (`features.ray_engine`), where `threads` and the
        budget hold for each batch.
    on_progress : callable of (done, total), optional
        Called in the caller's thread for each expression that is done; those that are worked out together are done together
        (so is each batch on Ray).

    Returns
    -------
    ndarray of shape (n_bars, n_assets), or (k, n_bars, n_assets) for a sequence of k
        Row ``t`` is known at the close of bar ``t`` and uses bars ``t - lookback .. t``. NaN where a value needed is
        missing; never infinite. The array is the caller's own, C-contiguous.

    Raises
    ------
    ExpressionError, LookAheadError
        If a text cannot be accepted.
    MissingDataError
        If the panel lacks a column that is read.
    DataError
        If the result cannot fit into the budget, or `threads` is not positive.
    ConfigurationError
        If there is no such engine, Ray is not installed, or the cluster fails.
    """
    single = isinstance(expression, str | Expression)
    items = [expression] if isinstance(expression, str | Expression) else expression
    expressions = [_as_expression(item, panel) for item in items]
    check_engine(engine)
    _check_limits(threads, memory_budget)
    if engine == "ray":
        from features.ray_engine import compute_on_ray

        out = compute_on_ray(expressions, panel, threads=threads, memory_budget=memory_budget, on_progress=on_progress)
        return out[0] if single else out
    if single:
        evaluation, _ = _prepare(expressions, panel, threads, memory_budget, n_results=1)
        result = evaluation.result(expressions[0])
        if on_progress is not None:
            on_progress(1, 1)
        return result
    evaluation, tasks, workers = _prepare_batch(expressions, panel, threads, memory_budget)
    out = np.empty((len(expressions), *panel.shape))

    def work(task: Sequence[_Share]) -> int:
        done = 0
        for share in task:
            if isinstance(share.what, Group):
                arrays = [evaluation.value(node) for node in share.what.inputs]
                share.what.compute(arrays, out, part=(share.part, share.parts))
            else:
                evaluation.fill(expressions[share.what].root, out[share.what])
            done += share.n_done
        return done

    done = 0
    for count in _run(work, tasks, workers, ahead=len(tasks)):
        for _ in range(count):
            done += 1
            if on_progress is not None:
                on_progress(done, len(expressions))
    return out


def compute_each(
    expressions: Sequence[str | Expression],
    panel: Panel,
    *,
    threads: int | None = None,
    memory_budget: int | None = None,
) -> Iterator[tuple[Expression, FloatArray]]:
    """Compute many features one after the other, so that their values need not fit into memory together.

    Parameters
    ----------
    expressions : sequence of str or Expression
        What to compute.
    panel : Panel
        Bars to read.
    threads, memory_budget : int, optional
        As in `compute`; the budget covers what is not yet handed out.

    Yields
    ------
    expression : Expression
        In the order given.
    values : ndarray of shape (n_bars, n_assets)
        The same bits as from `compute`; the caller's own.

    Raises
    ------
    ExpressionError, LookAheadError, MissingDataError, DataError
        As `compute`; what concerns an expression, when it is its turn.
    """
    _check_limits(threads, memory_budget)
    parsed = [_as_expression(item, panel) for item in expressions]
    evaluation, workers = _prepare(parsed, panel, threads, memory_budget, n_results=1)
    return zip(parsed, _run(evaluation.result, parsed, workers, ahead=2 * workers), strict=True)


def count_bytes(expressions: Sequence[Expression], panel: Panel) -> int:
    """Count the bytes that evaluating expressions touches, to be held against the time of a memory copy.

    Parameters
    ----------
    expressions : sequence of Expression
        What is computed.
    panel : Panel
        Bars that are read.

    Returns
    -------
    int
        Each different sub-expression reads its panel arguments once and writes its result once; the copy into the result
        of `compute` is a read and a write more. What operators read again, and their scratch, is not counted; and what a
        program keeps in the processor's cache is, so that this may be more than memory could give.
    """
    nodes = {node.canonical: node for expression in expressions for node in expression.root.walk() if node.operator is not None}
    arrays = sum(1 + sum(arg.value is None for arg in node.args) for node in nodes.values()) + 2 * len(expressions)
    return arrays * _array_bytes(panel)


def _as_expression(item: object, panel: Panel) -> Expression:
    if isinstance(item, Expression):
        return item
    if isinstance(item, str):
        return parse(item, extra=tuple(panel.extra))
    raise ExpressionError(f"expected text or an Expression, got {type(item).__name__}; pass expressions only.")


def _check_limits(threads: int | None, memory_budget: int | None) -> None:
    if threads is not None and threads < 1:
        raise DataError(f"`threads` must be at least 1, was {threads}; leave it out for all processors.")
    if memory_budget is not None and memory_budget < 1:
        raise DataError(f"`memory_budget` must be a positive number of bytes, was {memory_budget}.")


def _array_bytes(panel: Panel) -> int:
    return 8 * panel.n_bars * panel.n_assets


def _count_threads(asked: int | None, panel: Panel, n_expressions: int) -> int:
    if asked is None:
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        asked = min(processors, panel.n_bars * panel.n_assets // _FEWEST_CELLS_PER_THREAD)
    return max(1, min(asked, n_expressions))


def _prepare_batch(
    expressions: Sequence[Expression], panel: Panel, threads: int | None, memory_budget: int | None
) -> tuple[Evaluation, list[list[_Share]], int]:
    """Divide a batch into tasks, in groups if what these read fits into the budget together, otherwise one by one."""
    batch = divide(tuple(expressions)).fit(panel.n_bars, panel.n_assets)
    workers = _count_threads(threads, panel, len(expressions))
    tasks = _split_work(expressions, batch, workers)
    shares = [share for task in tasks for share in task]
    nodes = [node for share in shares for node in share.reads(expressions)]
    evaluation = Evaluation(nodes, panel)
    held = max((len(group.inputs) for group in batch.groups), default=0)
    deepest = max((evaluation.count_arrays(node) for node in nodes), default=0)
    wanted = len(expressions) + workers * (held + deepest + _SCRATCH_ARRAYS) + evaluation.n_shared
    if wanted * _array_bytes(panel) <= _budget(memory_budget, wanted * _array_bytes(panel)):
        return evaluation, tasks, workers
    evaluation, workers = _prepare(expressions, panel, threads, memory_budget, n_results=len(expressions))
    alone = Batch(groups=(), others=tuple(range(len(expressions))))
    return evaluation, _split_work(expressions, alone, workers), workers


def _prepare(
    expressions: Sequence[Expression], panel: Panel, threads: int | None, memory_budget: int | None, *, n_results: int
) -> tuple[Evaluation, int]:
    """Decide how many threads work, and how many arrays may be kept, so that all stays within the budget."""
    evaluation = Evaluation([expression.root for expression in expressions], panel)
    array = _array_bytes(panel)
    threads = _count_threads(threads, panel, len(expressions))
    deepest = max((evaluation.count_arrays(expression.root) for expression in expressions), default=0)
    # A thread holds what it works on, and up to two results of `compute_each` that wait for their turn.
    each = deepest + _SCRATCH_ARRAYS + (2 if n_results < len(expressions) else 0)
    wanted = (n_results + threads * each + evaluation.n_shared) * array
    memory_budget = _budget(memory_budget, wanted)
    room = memory_budget // array - n_results if array else wanted
    if room < each and array:
        raise DataError(_too_little(len(expressions), n_results, each, array, memory_budget))
    threads = min(threads, room // each) if array else threads
    if room - threads * each < evaluation.n_shared:
        evaluation.capacity = room - threads * each
    return evaluation, threads


def _budget(asked: int | None, wanted: int) -> int:
    """Return how many bytes may be taken; what is free is asked for only where much is wanted."""
    if asked is not None:
        return asked
    if wanted <= _UNASKED_BYTES:
        return _UNASKED_BYTES
    import psutil

    return int(psutil.virtual_memory().available) * 3 // 4


def _too_little(n_expressions: int, n_results: int, each: int, array: int, memory_budget: int) -> str:
    needed = (n_results + each) * array
    fitting = memory_budget // array - each
    if n_results > 1 and fitting >= 1:
        remedy = f"pass at most {fitting} at a time, take them one by one from `compute_each`, or allow more memory"
    elif n_results > 1 and memory_budget // array >= each + 3:
        remedy = "take them one by one from `compute_each`, or allow more memory"
    else:
        remedy = "pass fewer symbols or bars at a time, or allow more memory"
    return (
        f"{n_expressions} features on this panel need at least {needed:,} bytes ({n_results} results and {each} arrays to work "
        f"with, {array:,} bytes each), the memory budget is {memory_budget:,} bytes; {remedy}."
    )


@dataclass(frozen=True)
class _Share:
    """A share of the bars of a group, or an expression by its place."""

    what: Group | int
    part: int = 0
    parts: int = 1

    @property
    def n_done(self) -> int:
        """Expressions that are done with this share."""
        if isinstance(self.what, int):
            return 1
        return len(self.what.places) if self.part == self.parts - 1 else 0

    def reads(self, expressions: Sequence[Expression]) -> Sequence[Node]:
        return [expressions[self.what].root] if isinstance(self.what, int) else self.what.inputs


def _split_work(expressions: Sequence[Expression], batch: Batch, workers: int) -> list[list[_Share]]:
    """Split a batch into tasks that share as little as can be, so that no thread waits for another.

    What shares much is cut up only into eighths of a thread's share, and comes one after the other. The bars of a large group
    are divided among the threads.
    """
    items: list[Group | int] = [*batch.groups, *batch.others]
    if workers == 1:
        return [[_Share(item)] for item in items]
    most = max(1, len(expressions) // (8 * workers))
    together = _gather(expressions, items)
    starts = range(0, max(map(len, together), default=0), most)
    pieces = [some[start : start + most] for start in starts for some in together if start < len(some)]
    large = [group for group in batch.groups if len(group.places) > most // 2]
    tasks = [[_Share(item, 0, workers if item in large else 1) for item in piece] for piece in pieces]
    return tasks + [[_Share(group, part, workers)] for part in range(1, workers) for group in large]


def _gather(expressions: Sequence[Expression], items: Sequence[Group | int]) -> list[list[Group | int]]:
    """Gather what needs the same arrays; what needs the longest windows comes first, since it takes longest."""
    labels = list(range(len(items)))
    seen: dict[object, int] = {}
    work = [0] * len(items)
    for label, item in enumerate(items):
        for root in _Share(item).reads(expressions):
            work[label] += 0 if root.is_field else root.lookback
            for node in root.walk():
                if node.operator is not None:
                    other = labels[seen.setdefault(family_of(node), label)]
                    if other != labels[label]:
                        labels = [other if one == labels[label] else one for one in labels]
    found: dict[int, list[int]] = {}
    for place, label in enumerate(labels):
        found.setdefault(label, []).append(place)
    longest_first = sorted(found.values(), key=lambda places: -sum(work[place] for place in places))
    return [[items[place] for place in places] for places in longest_first]


def _run(work: Callable[[_S], _T], tasks: Sequence[_S], threads: int, *, ahead: int) -> Iterator[_T]:
    """Do tasks and yield what they return, in order, at most `ahead` before the caller takes them.

    The first failed task, in the order of the tasks, raises its error here.
    """
    if threads == 1:
        for task in tasks:
            yield work(task)
        return
    waiting: deque[Future[_T]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="features") as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(work, task))
                if len(waiting) == ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
