"""Computes batches of expressions on a Ray cluster.

Hides Ray, which is imported here only, and on use. Promises the same bits as the engine in this process: a worker runs that
engine on the same panel, which travels to the cluster once, and expressions that share much stay in one batch.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import AQFError, ConfigurationError
from core.settings import Settings
from features.expression import Expression
from features.fields import FloatArray
from features.node import Node

if TYPE_CHECKING:
    from core.market.panel import Panel

_BATCHES_PER_PROCESSOR = 4
_WAITING_PER_PROCESSOR = 2
_RETRIES = 3


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
    Without a connection one is made: to ``AQF_RAY_ADDRESS`` if it is set, else to a cluster that is started on this machine.
    It stays until the process ends or calls ``ray.shutdown()``. The machines of a cluster need this package installed. A
    worker that dies has its batch retried by Ray three times. The result is gathered in this process, outside of the budget.
    """
    ray = _import_ray()
    out = np.empty((len(expressions), *panel.shape))
    if not expressions:
        return out
    try:
        _connect(ray)
        processors = max(1, int(ray.cluster_resources().get("CPU", 1)))
        work = ray.remote(num_cpus=1, max_retries=_RETRIES)(_compute_batch)
        shared = ray.put(_pack(panel))
        batches = split_batches(expressions, _BATCHES_PER_PROCESSOR * processors)
        coming = iter(batches)
        running: dict[Any, list[int]] = {}
        done = 0
        while True:
            while len(running) < _WAITING_PER_PROCESSOR * processors and (batch := next(coming, None)) is not None:
                chosen = [expressions[place] for place in batch]
                running[work.remote(shared, chosen, threads or 1, memory_budget)] = batch
            if not running:
                return out
            finished, _ = ray.wait(list(running))
            for reference in finished:
                places = running.pop(reference)
                out[places] = ray.get(reference)
                done += len(places)
            if on_progress is not None:
                on_progress(done, len(expressions))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, AQFError):
            raise error.cause from None
        raise
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise ConfigurationError(
            f"the Ray cluster failed: {error} Check that it runs and that its workers have memory enough, "
            "or compute with engine='local'."
        ) from error


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


def _import_ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise ConfigurationError(
            "engine='ray' needs Ray, which is not installed; install `agentic-quantitative-framework[ray]`, "
            "or compute with engine='local'."
        ) from None
    return ray


def _connect(ray: Any) -> None:
    if ray.is_initialized():
        return
    address = Settings.load().ray_address
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address=address or "local", include_dashboard=None if address else False, log_to_driver=False, logging_level="error"
    )


def _pack(panel: Panel) -> Mapping[str, Any]:
    return {
        "index": panel.index,
        "symbols": panel.symbols,
        "name": panel.name,
        "extra": dict(panel.extra),
        **{name: panel.get(name) for name in panel.fields if name not in panel.extra},
    }


def _compute_batch(
    packed: Mapping[str, Any], expressions: Sequence[Expression], threads: int, memory_budget: int | None
) -> FloatArray:
    from core.market.panel import Panel
    from features.engine import compute

    return compute(expressions, Panel(**packed), threads=threads, memory_budget=memory_budget)
