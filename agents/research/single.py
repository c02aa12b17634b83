"""One backtest that a person asks for by hand: a trial like any other, counted before its figures are seen.

Promises that the row is in the ledger before anybody reads a Sharpe ratio, that sealed bars stay sealed, and that the report
holds the ratio against every trial ever made on the data.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agents.research.gate import count_independent_trials
from agents.research.memory import list_building_blocks
from agents.research.report import report_folder
from agents.research.request import Budget, ResearchRequest
from agents.research.runner import SINGLE_BACKTEST, ResearchContext, build_session
from agents.research.session import ResearchSession
from agents.tools import build_tools
from backtest.capacity import estimate_capacity
from backtest.config import BacktestConfig
from backtest.report import BacktestReport, build_report
from backtest.walkforward import WalkForwardResult, run_walk_forward
from core.errors import AQFError, ConfigurationError
from core.provenance import code_version
from core.store.packaged import ensure_dataset
from core.store.records import VECTOR_WIDTH, Trial
from features.computable import Computable, resolve

_MAX_SHOWN = 200
_FAMILY = "by_hand"


@dataclass(frozen=True, kw_only=True, repr=False)
class SingleBacktest:
    """Hold what one backtest by hand gave.

    Parameters
    ----------
    run_id : str
    trial_id : int
        Its row in the ledger.
    name, expression : str
        The feature; the name under which it was first registered.
    dataset : str
    holding_bars : int
        Chosen on all bars before the seal, or as asked for.
    n_trials_ledger, n_trials_effective : int
        Trials ever made on the data, this one included, and as how many independent ones they count.
    report : BacktestReport
        Of the walk-forward test bars.
    page : Path
        Where the report was saved.
    """

    run_id: str
    trial_id: int
    name: str
    expression: str
    dataset: str
    holding_bars: int
    n_trials_ledger: int
    n_trials_effective: int
    report: BacktestReport
    page: Path

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values."""
        own = {name: value for name, value in self.__dict__.items() if name not in {"report", "page"}}
        evidence = {"evidence": self.report.evidence, "metrics": dict(self.report.figures), "report": str(self.page)}
        return {**own, **evidence}


def run_single_backtest(
    feature: str | Computable,
    *,
    context: ResearchContext,
    name: str = "",
    dataset: str = "sp500_20",
    symbols: Sequence[str] = (),
    holding_bars: int | None = None,
    config: BacktestConfig | None = None,
    seed: int = 0,
) -> SingleBacktest:
    """Backtest one feature walk-forward on the bars before the seal, as a trial of the ledger.

    Parameters
    ----------
    feature : str or Computable
        An expression, which may build on promoted features by name; ``plugin:NAME``; or either one resolved.
    context : ResearchContext
    name : str, optional
        What the registry is to call it if it does not know it yet; the feature's own text when empty.
    dataset : str, default="sp500_20"
    symbols : sequence of str, optional
        Part of the data set; all of it when empty.
    holding_bars : int, optional
        Bars that a target is held; chosen on each training part from 1, 2, 5, 10 and 21 when None.
    config : BacktestConfig, optional
    seed : int, default=0
        Of the leak test.

    Returns
    -------
    SingleBacktest

    Raises
    ------
    ConfigurationError
        If `holding_bars` is below 1.
    DataError
        If the data set is unknown or too short, or the expression cannot be accepted.
    ToolError
        If the feature cannot be computed on the data, leaks, or never takes a position. No trial is recorded then.
    StoreError
        If the database or the folder fails.
    """
    if holding_bars is not None and holding_bars < 1:
        raise ConfigurationError(f"`holding_bars` must be at least 1, was {holding_bars}.")
    data = ensure_dataset(context.store, dataset)
    blocks = list_building_blocks(context.store.researcher, data)
    if isinstance(feature, str):
        known = {block.name: block.expression for block in blocks}
        name = name or feature.strip()[:_MAX_SHOWN]
        feature = resolve(feature, plugins=context.load_plugins, features=known)
    shown = feature.canonical if len(feature.canonical) <= _MAX_SHOWN else f"{feature.canonical[:_MAX_SHOWN]}..."
    request = ResearchRequest(
        question=f"Backtest {shown} ({feature.sha256[:12]})", dataset=dataset, symbols=tuple(symbols), seed=seed, vectors=False
    )
    run_id = uuid.uuid4()
    session = build_session(context, run_id, request, Budget(steps=1, trials=1), data, None, blocks)
    session.config = config or BacktestConfig()
    session.holding_grid = (holding_bars,) if holding_bars is not None else session.holding_grid
    service = context.store.service
    service.create_run(
        run_id=run_id,
        request=request.to_dict(),
        dataset=data,
        lineage=session.lineage,
        thread_id=str(run_id),
        planner=SINGLE_BACKTEST,
        budget=asdict(session.budget),
        code_version=code_version(),
    )
    try:
        trial = _make_trial(session, name or shown, feature)
        single = _report(session, trial)
    except AQFError as error:
        service.fail_run(run_id, str(error))
        raise
    usage = {"steps": 1, "trials": 1, "usd": 0.0}
    service.finish_run(run_id, report=single.report.to_dict(), usage=usage, finished_at=context.clock.now())
    return single


def _make_trial(session: ResearchSession, name: str, feature: Computable) -> Trial:
    """Propose and backtest through the planner's own tools, so that nothing here can be laxer than there."""
    tools = {tool.name: tool for tool in build_tools(session)}

    def call(tool: str, **arguments: Any) -> dict[str, Any]:
        message = tools[tool].invoke({"type": "tool_call", "id": tool, "name": tool, "args": {**arguments, "step": 0}})
        answer: dict[str, Any] = json.loads(message.content)
        return answer

    hypothesis = "Asked for by hand."
    proposed = call("propose_new_feature", expression=feature.canonical, name=name, family=_FAMILY, hypothesis=hypothesis)
    measured = call("run_backtest", feature_id=proposed["feature_id"])
    return session.store.researcher.list_trials({"trial_id": measured["trial_id"]})[0]


def _capacity(session: ResearchSession, outcome: WalkForwardResult) -> float | None:
    """Return the capital at which impact eats half of the gross profit; None where there is no volume to tell it by."""
    if "volume" not in session.panel.fields or not session.dataset.tradable:
        return None
    tested = session.panel.slice(session.panel.n_bars - outcome.result.n_bars)
    return estimate_capacity(tested, outcome.weights, session.config).capital


def _report(session: ResearchSession, trial: Trial) -> SingleBacktest:
    store, dataset = session.store.researcher, session.dataset
    count = store.count_trials(session.lineage)
    behaviours = np.array(list(store.load_behaviours(session.lineage).values())).reshape(-1, VECTOR_WIDTH)
    n_effective = count_independent_trials(behaviours)
    scores = session.resolve(trial.expression).compute(session.panel)
    outcome = run_walk_forward(
        session.panel,
        scores,
        session.config,
        session.splits,
        session.holding_grid,
        method=session.method,
        keep_positions=True,
    )
    report = build_report(
        outcome.result,
        benchmark=_equal_weight(session),
        panel=session.panel,
        scores=scores,
        n_trials=n_effective,
        capacity=_capacity(session, outcome),
        trials_source=f"trial {trial.trial_id} of the ledger, which holds {count.n_rows:,} on {dataset.name}",
        notes=() if dataset.tradable else (f"{dataset.name} cannot be held: nobody could have earned any of this.",),
        caveats=(_describe_method(session, outcome), *dataset.caveats),
        title=f"{trial.name} on {dataset.name}",
    )
    page = report.save(report_folder(session.settings.home, session.run_id))
    return SingleBacktest(
        run_id=str(session.run_id),
        trial_id=trial.trial_id,
        name=trial.name,
        expression=trial.expression,
        dataset=dataset.name,
        holding_bars=outcome.final_holding_bars,
        n_trials_ledger=count.n_rows,
        n_trials_effective=n_effective,
        report=report,
        page=page,
    )


def _equal_weight(session: ResearchSession) -> pd.Series:
    """Return what holding every symbol in equal parts earned, before costs; symbols without a return at a bar left out."""
    returns = session.panel.returns()
    known = np.isfinite(returns)
    mean = np.where(known, returns, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return pd.Series(np.where(known.any(axis=1), mean, np.nan), session.panel.index, name="equal weight")


def _describe_method(session: ResearchSession, outcome: WalkForwardResult) -> str:
    if len(session.holding_grid) == 1:
        holding = f"each target is held {outcome.final_holding_bars} bars, as asked for"
    else:
        chosen = ", ".join(str(bars) for bars in sorted({fold.holding_bars for fold in outcome.folds}))
        holding = f"targets are held {chosen} bars, chosen on the bars before each test part"
    return (
        f"{session.dataset.name}: walk-forward over {len(outcome.folds)} test parts; {holding}. "
        f"Bars from {session.dataset.sealed_from:%Y-%m-%d} on are sealed and were not read."
    )
