"""Computes batches of expressions on a Ray cluster.

Hides how expressions are put together. Promises the same bits as the engine in this process: a worker runs that engine on
the same panel, which travels to the cluster once, and expressions that share much stay in one batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from core.cluster import run_on_ray
from features.expression import Expression
from features.fields import FloatArray
from features.node import Node

if TYPE_CHECKING:
    from core.market.panel import Panel


def compute_on_ray(
    expressions: Sequence[Expression],
    panel: Panel,
    *,
    threads: int | None = None,
    memory_budget: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> FloatArray:
    """Compute features on the cluster this process is connected to, or else on the one of the settings.

    Parameters
    ----------
    expressions : sequence of Expression
        What to compute.
    panel : Panel
        Bars to read.
    threads, memory_budget : int, optional
        For each batch; a batch has one thread unless told otherwise, because there is one for each processor.
    on_progress : callable of (done, total), optional
        Called after each batch.

    Returns
    -------
    ndarray of shape (k, n_bars, n_assets)
        The same bits as from ``compute(expressions, panel)``.

    Raises
    ------
    MissingDataError, DataError
        As from the engine in this process.
    ConfigurationError
        If Ray is not installed, cannot be reached, or its workers keep dying.

    Notes
    -----
    See `core.cluster.run_on_ray`. The result is gathered in this process, outside of the budget.
    """
    out = np.empty((len(expressions), *panel.shape))
    if not expressions:
        return out
    done = 0
    shared = (panel, threads or 1, memory_budget)
    batches = run_on_ray(
        _compute_batch,
        shared,
        lambda count: [(places, [expressions[place] for place in places]) for places in split_batches(expressions, count)],
    )
    for (places, _), values in batches:
        out[places] = values
        done += len(places)
        if on_progress is not None:
            on_progress(done, len(expressions))
    return out


def split_batches(expressions: Sequence[Expression], count: int) -> list[list[int]]:
    """Split expressions into batches of about equal size that keep shared sub-expressions together.

    Parameters
    ----------
    expressions : sequence of Expression
        What is to be computed.
    count : int
        Batches wanted; there are at most as many as expressions.

    Returns
    -------
    list of lists of int
        Places in `expressions`, each in one batch. Expressions whose largest shared sub-expression is the same are neighbours.
    """
    inner = [{node.canonical: node.size for node in expression.root.walk() if _is_work(node)} for expression in expressions]
    uses = Counter(key for sizes in inner for key in sizes)

    def family(place: int) -> tuple[str, int]:
        common = [(size, key) for key, size in inner[place].items() if uses[key] > 1]
        return max(common)[1] if common else expressions[place].canonical, place

    order = sorted(range(len(expressions)), key=family)
    fair = sum(expression.size for expression in expressions) / count
    batches: list[list[int]] = []
    room = 0.0
    for place in order:
        if room <= 0.0:
            batches.append([])
            room += fair
        batches[-1].append(place)
        room -= expressions[place].size
    return batches


def _is_work(node: Node) -> bool:
    return node.operator is not None


def _compute_batch(shared: tuple[Panel, int, int | None], batch: tuple[list[int], Sequence[Expression]]) -> FloatArray:
    from features.engine import compute

    panel, threads, memory_budget = shared
    return compute(batch[1], panel, threads=threads, memory_budget=memory_budget)
