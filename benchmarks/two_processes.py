"""What two cores give at most: the same work in two processes at once, which share no lock and no interpreter.

Threads that share one result can hardly beat it. Where two processes get less than twice the work done, memory is the limit.
"""

from __future__ import annotations

import multiprocessing
import queue
import statistics
import time
from collections.abc import Callable
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import Any

ROUNDS = 9


def measure_ceiling(prepare: Callable[[], Callable[[], Any]]) -> float:
    """Return how much more two processes do than one in the same time.

    Parameters
    ----------
    prepare : callable
        Of a module: builds the work, and returns a call that does it once on one thread.
    """
    alone = _time_together(prepare, 1)
    return 2.0 * alone / _time_together(prepare, 2)


def _time_together(prepare: Callable[[], Callable[[], Any]], n_processes: int) -> float:
    spawn = multiprocessing.get_context("spawn")
    barrier, seconds = spawn.Barrier(n_processes), spawn.Queue()
    processes = [spawn.Process(target=_run, args=(prepare, barrier, seconds)) for _ in range(n_processes)]
    for process in processes:
        process.start()
    found = []
    while len(found) < n_processes:
        try:
            found.append(seconds.get(timeout=1.0))
        except queue.Empty:
            if any(process.exitcode for process in processes):
                raise RuntimeError("a process of the measurement failed; its error is printed above.") from None
    for process in processes:
        process.join()
    return statistics.fmean(found)


def _run(prepare: Callable[[], Callable[[], Any]], barrier: Barrier, seconds: Queue[float]) -> None:
    work = prepare()
    work()
    took = []
    for _ in range(ROUNDS):
        barrier.wait()  # so that nobody works alone
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    seconds.put(statistics.median(took))
