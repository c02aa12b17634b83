"""What earlier runs know: read before the first plan, written after the verdict."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from agents.research.findings import Finding
from agents.research.session import BuildingBlock, ResearchSession
from core.errors import DataError
from core.store.records import Dataset, FeatureKind, FeatureStatus, RunStatus
from core.store.research import ResearchStore
from features.expression import is_buildable, parse
from features.memory import EMB_TYPE

MAX_BLOCKS = 100


def list_building_blocks(store: ResearchStore, dataset: Dataset) -> tuple[BuildingBlock, ...]:
    """Collect the promoted features that an expression on this data set may name.

    Returns
    -------
    tuple of BuildingBlock
        Sorted by name; the newest of each name, and the newest `MAX_BLOCKS` of all. Without plugins, names that are no plain
        word, and what reads columns that the data set does not have.
    """
    promoted = store.list_features({"status": FeatureStatus.PROMOTED, "kind": FeatureKind.EXPRESSION})
    blocks: dict[str, BuildingBlock] = {}
    for feature in reversed(promoted):
        if feature.name in blocks or not is_buildable(feature.name) or not _is_readable(feature.expression, dataset.fields):
            continue
        if len(blocks) < MAX_BLOCKS:
            blocks[feature.name] = BuildingBlock(
                name=feature.name, expression=feature.expression, hypothesis=feature.hypothesis
            )
    return tuple(blocks[name] for name in sorted(blocks))


def _is_readable(expression: str, fields: Collection[str]) -> bool:
    try:
        return parse(expression).fields <= set(fields)
    except DataError:  # promoted by another version of the language, or on other columns
        return False


def recall(session: ResearchSession) -> dict[str, Any]:
    """Collect what the store knows about the question and its data set.

    Returns
    -------
    dict
        Trials and runs so far, promoted features, the best past trial, vectors, and a sentence that says so.
    """
    store = session.store.researcher
    trials = [trial for trial in store.list_trials({"family_id": session.dataset.family_id}) if trial.run_id != session.run_id]
    runs = store.gateway.select(
        "research_runs",
        columns=("run_id",),
        where={"lineage": session.lineage, "status": RunStatus.FINISHED, "run_id": ("neq", session.run_id)},
    )
    promoted = sorted({trial.name for trial in trials if trial.promoted_here})
    best = max(trials, key=lambda trial: trial.sharpe, default=None)
    vectors = store.count_embeddings(session.dataset, EMB_TYPE)
    newest = vectors["newest"]
    remembered: dict[str, Any] = {
        "n_trials": len(trials),
        "n_runs_on_question": len(runs),
        "promoted": promoted,
        "building_blocks": [block.name for block in session.building_blocks],
        "best": None
        if best is None
        else {"name": best.name, "expression": best.expression, "net_sharpe": best.metrics["net_sharpe"]},
        "n_vectors": int(vectors["n_windows"]),
        "newest_vector": None if newest is None else newest.isoformat(),
        "notes": dict(store.load_agent_state(_agent_id(session))),
    }
    return {**remembered, "sentence": _sentence(session, remembered)}


def remember(session: ResearchSession, findings: Sequence[Finding]) -> None:
    """Keep what this run learned about families of hypotheses on this data set."""
    families: dict[str, Any] = {}
    for finding in findings:
        known = families.setdefault(finding.family, {"trials": 0, "best_rank_ic_t": None, "promoted": 0})
        known["trials"] += 1
        known["promoted"] += int(finding.promoted)
        t = finding.metrics["rank_ic_t"]
        if t is not None and (known["best_rank_ic_t"] is None or t > known["best_rank_ic_t"]):
            known["best_rank_ic_t"] = t
    state = {"last_run": str(session.run_id), "question": session.request.question, "families": families}
    session.store.service.save_agent_state(_agent_id(session), state)


def _agent_id(session: ResearchSession) -> str:
    return f"planner:{session.dataset.name}"


def _sentence(session: ResearchSession, remembered: Mapping[str, Any]) -> str:
    if not remembered["n_trials"]:
        return f"Nothing is remembered about {session.dataset.name}: this is the first research on it."
    best = remembered["best"]
    runs = remembered["n_runs_on_question"]
    asked = f"this question was asked in {runs} earlier run{'s' if runs != 1 else ''}" if runs else "this question is new"
    found = (
        f"promoted so far: {', '.join(remembered['promoted'])}"
        if remembered["promoted"]
        else "nothing has been promoted so far"
    )
    return (
        f"{remembered['n_trials']} earlier trials on {session.dataset.name} are remembered and will not be repeated; "
        f"{asked}; {found}; "
        f"the best of them, {best['name']}, had a net Sharpe ratio of {best['net_sharpe']:.2f}, "
        "before any correction for the search."
    )
