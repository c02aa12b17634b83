"""`aqf worker`: does what was asked for with `rpc_refresh_embeddings`, here or by an agent elsewhere."""

from __future__ import annotations

import json
import signal
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from aqf import screen
from aqf.commands.research import as_json

if TYPE_CHECKING:
    from core.store import Store
    from features.memory import WorkedJob

_STOP_SECONDS = 1.0


@click.command(epilog="Example:  aqf worker --once")
@click.option("--once", is_flag=True, help="Do the jobs that are open, then end; exit code 1 if one failed, 130 if stopped.")
@click.option(
    "--poll-seconds",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="Look for jobs of workers that died at least so often; new ones are announced.",
)
@as_json
def worker(once: bool, poll_seconds: float, as_json: bool) -> None:
    """Encode the windows that were asked for, as jobs are announced, until interrupted.

    Any number of workers share the jobs. Ctrl-C, or SIGTERM, gives a job that is not finished to the next worker at once; the
    death of a worker does so after two minutes. With --json each job is one line.
    """
    from core.settings import Settings
    from core.store import open_store

    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    failed = False
    try:
        with open_store(Settings.load()) as store:
            if once:
                failed = _work(store, stop, as_json)
            else:
                _work_on(store, stop, poll_seconds, as_json)
    except KeyboardInterrupt:
        screen.say("stopped; a job that was not finished goes to the next worker.")
        if once:
            raise SystemExit(130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if failed:
        raise SystemExit(1)


def _check(stop: threading.Event) -> None:
    """End here if it was asked for: never in the middle of a statement, which would cost the connection."""
    if stop.is_set():
        raise KeyboardInterrupt


def _work_on(store: Store, stop: threading.Event, poll_seconds: float, as_json: bool) -> None:
    from core.errors import StoreUnavailableError
    from core.store.events import EMBEDDING_JOBS, NotifyFeed

    with ExitStack() as stack:
        feed = None
        if store.conninfo is not None:
            feed = stack.enter_context(NotifyFeed(store.conninfo, store.service.gateway, (EMBEDDING_JOBS,)))
        screen.say("waiting for jobs; Ctrl-C ends it.")
        while True:
            try:
                _work(store, stop, as_json)
            except StoreUnavailableError as error:
                screen.say(str(error))
            deadline = time.monotonic() + poll_seconds
            while (left := deadline - time.monotonic()) > 0.0:
                _check(stop)
                # The feed comes back by itself, or ends the worker when the database is away for a minute.
                if feed is None:
                    stop.wait(min(left, _STOP_SECONDS))
                elif feed.changes(min(left, _STOP_SECONDS)):
                    break


def _work(store: Store, stop: threading.Event, as_json: bool) -> bool:
    """Do what is open; True if a job failed."""
    from core.store.records import JobStatus
    from features.memory import work_embedding_jobs

    failed = False
    while worked := work_embedding_jobs(store.researcher, limit=1, on_progress=lambda *_: _check(stop)):
        _report(worked[0], as_json)
        failed |= worked[0].status == JobStatus.FAILED
        _check(stop)
    return failed


def _report(worked: WorkedJob, as_json: bool) -> None:
    done = worked.refreshed
    if as_json:
        result = None if done is None else done.to_dict()
        line = {"job_id": str(worked.job.job_id), "status": worked.status, "error": worked.error, "result": result}
        click.echo(json.dumps(line))
    elif done is None:
        click.echo(f"{worked.job.job_id} {worked.status}: {worked.error}")
    else:
        click.echo(f"{worked.job.job_id} {worked.status}: {done.written:,} new of {done.windows:,} windows, {done.emb_version}")
