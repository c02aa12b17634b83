"""Works on jobs in a process of its own and dies as a power cut would, between two writes.

Run as ``python -m tests.features.memory.killed_worker N_WRITES`` with AQF_HOME and AQF_DATABASE_URL set.
"""

import os
import signal
import sys
from collections.abc import Sequence
from itertools import count

from core.settings import Settings
from core.store import open_store
from core.store.gateway import Row
from core.store.research import ResearchStore
from features.memory import refresh, work_embedding_jobs


def main(n_writes: int) -> None:
    """Write so many pieces of 40 windows, then end without a word."""
    written, save = count(), ResearchStore.save_embeddings

    def save_or_die(self: ResearchStore, rows: Sequence[Row]) -> int:
        if next(written) == n_writes:
            os.kill(os.getpid(), signal.SIGKILL)
        return save(self, rows)

    ResearchStore.save_embeddings = save_or_die  # type: ignore[method-assign]
    refresh._PIECE = 40
    with open_store(Settings.load()) as store:
        work_embedding_jobs(store.researcher, worker="doomed")


if __name__ == "__main__":
    main(int(sys.argv[1]))
