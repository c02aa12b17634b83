"""run_planner: the one call that does research, and its resumption after a crash."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Literal, Self, cast

import psycopg
from langgraph.checkpoint.postgres import PostgresSaver
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from agents.langgraph_chain import PlannerName, build_graph
from agents.research.llm import check_model
from agents.research.memory import list_building_blocks
from agents.research.report import ResearchReport, report_folder
from agents.research.request import Budget, ResearchRequest
from agents.research.session import (
    MIN_BARS,
    MIN_SEALED_BARS,
    BuildingBlock,
    Event,
    EventHandler,
    ResearchSession,
    ignore_event,
)
from core.clock import Clock, SystemClock
from core.errors import AQFError, ConfigurationError, DataError, MissingDataError, StoreConflictError
from core.provenance import code_version
from core.settings import Settings
from core.store.opening import Store, open_store
from core.store.packaged import ensure_dataset
from core.store.postgres import translated_errors
from core.store.records import Dataset, Run, RunStatus
from core.telemetry import run_scope
from features.plugins import PluginFeature, load_plugins

PlannerChoice = Literal["auto", "rules", "llm"]

SINGLE_BACKTEST = "none"
"""Planner of a run that a person made of one trial."""


@dataclass(kw_only=True)
class ResearchContext:
    """What runs share: settings, an open store, a clock. Leaving its context closes the store.

    Parameters
    ----------
    load_plugins : callable, optional
        Returns the plugin features by name, of installed packages by default; ``lambda: load_plugins([mine])`` adds to them.
        It is called when a run names a plugin.

    Examples
    --------
    >>> with ResearchContext.from_settings() as context:                          # doctest: +SKIP
    ...     report = run_planner("Find a short-horizon reversal", context=context)
    """

    settings: Settings
    store: Store
    clock: Clock
    load_plugins: Callable[[], Mapping[str, PluginFeature]] = load_plugins

    @classmethod
    def from_settings(
        cls, settings: Settings | None = None, *, load_plugins: Callable[[], Mapping[str, PluginFeature]] = load_plugins
    ) -> ResearchContext:
        """Open the store that the environment chooses."""
        settings = settings or Settings.load()
        return cls(settings=settings, store=open_store(settings), clock=SystemClock(), load_plugins=load_plugins)

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def run_planner(
    request: str | ResearchRequest,
    *,
    dataset: str | None = None,
    budget: Budget | None = None,
    planner: PlannerChoice = "auto",
    context: ResearchContext | None = None,
    thread_id: str | None = None,
    on_event: EventHandler | None = None,
    seed: int | None = None,
) -> ResearchReport:
    """Do research: propose features, backtest them, judge them against every trial ever made, and say what was found.

    Parameters
    ----------
    request : str or ResearchRequest
        The question.
    dataset : str, optional
        Data set; by default the request's, which is ``"sp500_20"`` for a plain question.
    budget : Budget, optional
        What the run may spend; ``Budget()`` when None.
    planner : {"auto", "rules", "llm"}, default="auto"
        ``"rules"`` needs no model, ``"llm"`` needs one, ``"auto"`` takes the model if one is configured.
    context : ResearchContext, optional
        An open store to work in; opened from the environment, and closed again, when None.
    thread_id : str, optional
        Name of the run's thread. An unfinished run of that name is resumed, with the budget it began with; a finished one
        is returned.
    on_event : callable, optional
        Called with an :class:`Event` after every step.
    seed : int, optional
        Seed of everything random in the run; by default the request's.

    Returns
    -------
    ResearchReport

    Raises
    ------
    ConfigurationError
        If settings, budget or request cannot be used, or the thread belongs to another request.
    DataError
        If the data set is unknown or too short.
    ChatModelError
        If a configured model fails; the run can be resumed.
    StoreError
        If the database fails; the run can be resumed.
    """
    if isinstance(request, str):
        request = ResearchRequest(question=request)
    changes: dict[str, Any] = {key: value for key, value in (("dataset", dataset), ("seed", seed)) if value is not None}
    request = ResearchRequest(**{**request.__dict__, **changes})
    with _borrowed(context) as open_context:
        open_context.store.require_conninfo()
        chosen = _choose_planner(planner, open_context.settings)
        service = open_context.store.service
        if thread_id is not None:
            known = [run for run in service.list_runs(limit=100_000) if run.thread_id == thread_id]
            if known and ResearchRequest.from_dict(known[0].request) != request:
                raise ConfigurationError(
                    f"the thread {thread_id!r} belongs to another request, {known[0].request['question']!r} on "
                    f"{known[0].request['dataset']}: choose another `thread_id`, or `aqf resume {known[0].run_id}`."
                )
            if known:
                return resume_run(known[0].run_id, context=open_context, on_event=on_event)
        data = ensure_dataset(open_context.store, request.dataset)
        run_id = uuid.uuid4()
        blocks = list_building_blocks(open_context.store.researcher, data)
        session = build_session(open_context, run_id, request, budget or Budget(), data, on_event, blocks)
        _check_candidates(session)
        run = service.create_run(
            run_id=run_id,
            request=request.to_dict(),
            dataset=data,
            lineage=session.lineage,
            thread_id=thread_id or str(run_id),
            planner=chosen,
            budget=asdict(session.budget),
            code_version=code_version(),
            building_blocks={block.name: {"expression": block.expression, "hypothesis": block.hypothesis} for block in blocks},
        )
        session.emit(Event(kind="started", message=f"run {run_id} on {data.name}", total=session.budget.trials))
        return _drive(open_context, session, run)


def resume_run(
    run: str | uuid.UUID, *, context: ResearchContext | None = None, on_event: EventHandler | None = None
) -> ResearchReport:
    """Continue a run from its last step; a finished one is returned as it is.

    Raises
    ------
    MissingDataError
        If there is no such run.
    StoreConflictError
        If another process is working on it.
    """
    with _borrowed(context) as open_context:
        service = open_context.store.service
        found = service.get_run(run)
        _check_has_questions(open_context, found)
        if found.status == RunStatus.FINISHED and found.report is not None:
            return load_report(open_context, found)
        request = ResearchRequest.from_dict(found.request)
        blocks = tuple(BuildingBlock(name=name, **block) for name, block in sorted(found.building_blocks.items()))
        data = service.get_dataset(found.dataset_id)
        session = build_session(open_context, found.run_id, request, Budget(**found.budget), data, on_event, blocks)
        session.emit(
            Event(kind="resumed", message=f"run {found.run_id} goes on from its last step", total=session.budget.trials)
        )
        return _drive(open_context, session, found)


def load_report(context: ResearchContext, run: Run) -> ResearchReport:
    """Rebuild the report of a finished run.

    Raises
    ------
    MissingDataError
        If the run has not finished, or is a single backtest.
    """
    _check_has_questions(context, run)
    if run.report is None:
        raise MissingDataError(
            f"run {run.run_id} has no report, its status is {run.status}: `aqf resume {run.run_id}` finishes it."
        )
    return ResearchReport.from_dict(run.report, folder=report_folder(context.settings.home, run.run_id))


def _check_has_questions(context: ResearchContext, run: Run) -> None:
    if run.planner == SINGLE_BACKTEST:
        page = report_folder(context.settings.home, run.run_id) / "report.html"
        raise MissingDataError(
            f"run {run.run_id} is a single backtest, which has no leaderboard and nothing to resume: its page is {page}; "
            "`aqf backtest` makes another."
        )


def _choose_planner(planner: PlannerChoice, settings: Settings) -> PlannerName:
    if planner not in ("auto", "rules", "llm"):
        raise ConfigurationError(f'`planner` must be "auto", "rules" or "llm", was {planner!r}.')
    if planner == "llm":
        check_model(settings)
    if planner == "auto":
        return "llm" if settings.has_model else "rules"
    return planner


def _check_candidates(session: ResearchSession) -> None:
    for candidate in session.request.candidates:
        try:
            session.resolve(candidate.text)
        except DataError as error:
            raise ConfigurationError(f"the candidate {candidate.name} cannot be tried: {error}") from error


def build_session(
    context: ResearchContext,
    run_id: uuid.UUID,
    request: ResearchRequest,
    budget: Budget,
    dataset: Dataset,
    on_event: EventHandler | None,
    building_blocks: tuple[BuildingBlock, ...],
) -> ResearchSession:
    """Load what a run works with: the bars before the seal, as the `researcher` sees them.

    Raises
    ------
    MissingDataError
        If there are too few bars on either side of the seal.
    """
    panel = context.store.researcher.load_panel(dataset, request.symbols or None)
    sealed = dataset.n_bars - panel.n_bars
    if sealed < MIN_SEALED_BARS:
        raise MissingDataError(
            f"{dataset.name} has {sealed} sealed bars; a hold-out needs at least {MIN_SEALED_BARS} to decide anything: "
            "import it under another name with an earlier --sealed-from."
        )
    if panel.n_bars < MIN_BARS:
        raise MissingDataError(
            f"{dataset.name} has {panel.n_bars} bars before its seal; research needs at least {MIN_BARS}: "
            "import a longer history."
        )
    return ResearchSession(
        store=context.store,
        settings=context.settings,
        clock=context.clock,
        run_id=run_id,
        request=request,
        budget=budget,
        dataset=dataset,
        panel=panel,
        emit=on_event or ignore_event,
        deadline=time.monotonic() + budget.seconds,
        building_blocks=building_blocks,
        load_plugins=context.load_plugins,
    )


def _drive(context: ResearchContext, session: ResearchSession, run: Run) -> ResearchReport:
    """Run the graph to its end; what was foreseen to fail is written on the run's row, and every run can be resumed."""
    service = context.store.service
    with run_scope(session.run_id), _checkpointer(context.store, session.run_id) as saver:
        service.reopen_run(session.run_id)
        graph = build_graph(session, cast(PlannerName, run.planner), saver)
        config: Any = {
            "configurable": {"thread_id": run.thread_id},
            "recursion_limit": 10 * session.budget.steps + 50,
            "max_concurrency": 1,
        }
        begun = graph.get_state(config).values
        try:
            with translated_errors():
                graph.invoke(None if begun else {"messages": []}, config, durability="sync")
        except AQFError as error:
            service.fail_run(session.run_id, str(error))
            raise
        return load_report(context, service.get_run(session.run_id))


@contextmanager
def _checkpointer(store: Store, run_id: uuid.UUID) -> Iterator[PostgresSaver]:
    """Open the saver on a connection that also holds the run's lock, so that no second process drives the same run."""
    conninfo = make_conninfo(store.require_conninfo(), application_name="aqf-checkpoints")
    with (
        translated_errors(),
        psycopg.connect(conninfo, autocommit=True, prepare_threshold=0, row_factory=dict_row) as connection,
    ):
        row = connection.execute("select pg_try_advisory_lock(hashtextextended(%s, 0)) as mine", [str(run_id)]).fetchone()
        if row is None or not row["mine"]:
            raise StoreConflictError(f"run {run_id} is being worked on by another process: wait for it, or end it.")
        connection.execute("set client_min_messages to warning")
        connection.execute("select pg_advisory_lock(hashtext('langgraph'))")
        connection.execute("create schema if not exists langgraph")
        connection.execute("set search_path to langgraph")
        saver = PostgresSaver(connection)
        saver.setup()
        connection.execute("select pg_advisory_unlock(hashtext('langgraph'))")
        yield saver


@contextmanager
def _borrowed(context: ResearchContext | None) -> Iterator[ResearchContext]:
    if context is not None:
        yield context
        return
    with ResearchContext.from_settings() as opened:
        yield opened
