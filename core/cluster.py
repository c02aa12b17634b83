"""Runs batches of work on a Ray cluster.

Hides Ray, which is imported here only, and on use. Promises that every batch comes back once, that what all batches share
travels once, and that an error of ours on a worker is the same typed error here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from core.errors import AQFError, ConfigurationError
from core.settings import Settings

ENGINES = ("local", "ray")
"""Where batches of work may be run: in this process, or on a cluster."""

BATCHES_PER_PROCESSOR = 4
"""So many that a slow batch does not keep the others waiting."""

_WAITING_PER_PROCESSOR = 2
_RETRIES = 3

_Shared = TypeVar("_Shared")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def check_engine(engine: str) -> None:
    """Refuse the name of an engine that there is not.

    Raises
    ------
    ConfigurationError
    """
    if engine not in ENGINES:
        raise ConfigurationError(f"`engine` must be one of {', '.join(ENGINES)}, was {engine!r}.")


def run_on_ray(
    work: Callable[[_Shared, _Item], _Result], shared: _Shared, split: Callable[[int], Sequence[_Item]]
) -> Iterator[tuple[_Item, _Result]]:
    """Call ``work(shared, item)`` for every item on the cluster this process is connected to, or on the one of the settings.

    Parameters
    ----------
    work : callable
        A function of a module that the workers have installed too.
    shared : object
        What every call reads; put into the cluster's memory once.
    split : callable of int
        Returns the items, given how many there should be: a few for each processor of the cluster.

    Yields
    ------
    item, result
        As they come, which is in no order.

    Raises
    ------
    AQFError
        What `work` raised on a worker.
    ConfigurationError
        If Ray is not installed, cannot be reached, or its workers keep dying.

    Notes
    -----
    Without a connection one is made: to ``AQF_RAY_ADDRESS`` if it is set, else to a cluster that is started on this machine.
    It stays until the process ends or calls ``ray.shutdown()``. The machines of a cluster need this package installed. A
    worker that dies has its item done again three times.
    """
    ray = _import_ray()
    running: dict[Any, _Item] = {}
    try:
        _connect(ray)
        processors = max(1, int(ray.cluster_resources().get("CPU", 1)))
        remote = ray.remote(num_cpus=1, max_retries=_RETRIES)(work)
        reference_to_shared = ray.put(shared)
        coming = iter(split(BATCHES_PER_PROCESSOR * processors))
        while True:
            while len(running) < _WAITING_PER_PROCESSOR * processors:
                try:
                    item = next(coming)
                except StopIteration:
                    break
                running[remote.remote(reference_to_shared, item)] = item
            if not running:
                return
            finished, _ = ray.wait(list(running))
            for reference in finished:
                yield running.pop(reference), ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        _abandon(ray, running)
        if isinstance(error.cause, AQFError):
            raise error.cause from None
        raise
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise ConfigurationError(
            f"the Ray cluster failed: {error} Check that it runs and that its workers have memory enough, "
            "or compute with engine='local'."
        ) from error


def _abandon(ray: Any, running: Iterable[Any]) -> None:
    """Cancel what is not wanted any more. What it raises is looked at, or Ray prints it as an error that nobody handled."""
    for reference in running:
        ray.cancel(reference)
    for reference in running:
        with suppress(ray.exceptions.RayError):
            ray.get(reference)


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
