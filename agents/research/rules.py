"""The planner that needs no model: it reads the state and decides by what was measured.

Its decisions, in order: are the vectors missing, stale, or of a market that was seen to drift just now; is there something to
prune; is there a proposed feature without a trial; does the budget allow another batch, and if so of which ideas
(:mod:`agents.research.search`). Vectors that cannot be had on this data are let be. When nothing is left to do it says why and
stops.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from langchain_core.messages import AIMessage, ToolCall

from agents.research.evaluation import is_worth_a_trial
from agents.research.search import Tried, count_by_family, propose_ideas
from agents.research.session import ResearchSession
from agents.research.state import PlannerState
from features.memory import EMB_TYPE

WINDOW, STRIDE = 128, 21
MIN_BARS_FOR_VECTORS = 1_000
MIN_STEPS_FOR_VECTORS = 8
_BATCH, _MAX_BATCH = 8, 64
_VECTOR_TOOLS = ("refresh_vector_store", "prune_vectors", "score_signal_cluster")
_PRUNE = {"max_age_days": 5_475, "min_t_stat": 1.0}


def plan_next(session: ResearchSession, state: PlannerState) -> AIMessage:
    """Decide the next tool calls; a message without any ends the search, and its text says why."""
    return _plan_vectors(session, state) or _plan_backtests(session, state) or _plan_proposals(session, state)


def _plan_vectors(session: ResearchSession, state: PlannerState) -> AIMessage | None:
    done = state.get("vectors", {})
    if session.budget.steps < MIN_STEPS_FOR_VECTORS:
        return None
    if not session.request.vectors or session.panel.n_bars < MIN_BARS_FOR_VECTORS or "score_signal_cluster" in done:
        return None
    if any(row["tool"] in _VECTOR_TOOLS and row["error"] for row in session.store.researcher.list_tool_calls(session.run_id)):
        return None
    if "refresh_vector_store" not in done:
        store = session.store.researcher
        known = store.count_embeddings(session.dataset, EMB_TYPE)
        active = store.active_embedding_version(session.dataset, EMB_TYPE)
        settings = {} if active is None else active["settings"]
        cutting = {"window": settings.get("window", WINDOW), "stride": settings.get("stride", STRIDE)}
        limit = session.panel.index[max(-1 - 2 * cutting["stride"], -session.panel.n_bars)]
        drifted = state.get("recalled", {}).get("drift", {}).get("new", [])
        if known["newest"] is None or pd.Timestamp(known["newest"]) < limit or drifted:
            reason = (
                "There are no vectors of this data yet."
                if known["newest"] is None
                else f"The market drifted since the memory was made ({', '.join(drifted)})."
                if drifted
                else "The newest vector is stale."
            )
            return _call(state, reason, "refresh_vector_store", [cutting])
    if "prune_vectors" not in done:
        return _call(state, "See which vectors are old and weak.", "prune_vectors", [{**_PRUNE, "dry_run": True}])
    if done["prune_vectors"]["dry_run"] and done["prune_vectors"]["selected"] > 0:
        counted = done["prune_vectors"]
        reason = f"{counted['selected']} of {counted['examined']} vectors are old and weak: archive them."
        return _call(state, reason, "prune_vectors", [{**_PRUNE, "dry_run": False}])
    symbol = session.panel.symbols[0]
    return _call(
        state,
        f"See what followed windows like the latest one of {symbol}.",
        "score_signal_cluster",
        [{"symbol": symbol, "count": 50}],
    )


def _plan_backtests(session: ResearchSession, state: PlannerState) -> AIMessage | None:
    pending = state.get("pending", [])[: session.budget.trials - len(state.get("tried", []))]
    if not pending:
        return None
    return _call(
        state,
        f"Backtest the {len(pending)} proposed features.",
        "run_backtest",
        [{"feature_id": feature_id} for feature_id in pending],
    )


def _plan_proposals(session: ResearchSession, state: PlannerState) -> AIMessage:
    summaries = state.get("tried", [])
    left = session.budget.trials - len(summaries)
    if left <= 0:
        return AIMessage(content=f"The budget of {session.budget.trials} trials is used.")
    rounds = max(1, (session.budget.steps - state.get("step", 0)) // 2 - 1)  # the last makes up for ideas that failed
    batch = min(left, max(_BATCH, min(_MAX_BATCH, math.ceil(left / rounds))))
    tried = [_tried(session, summary) for summary in summaries]
    ideas = propose_ideas(
        n=batch,
        question=session.request.question,
        fields=session.panel.fields,
        own=session.request.candidates,
        tried=tried,
        known=session.tried_expressions(),
        proposed=session.proposed_expressions(),
        acceptable=lambda expression: is_worth_a_trial(session, expression),
        resolve=session.resolve,
        rng=np.random.default_rng([session.request.seed, state.get("step", 0)]),
    )
    if not ideas:
        return AIMessage(content="Every idea there is was tried on this data before: nothing new is left to try.")
    counts = count_by_family(tried)
    families = sorted({idea.family for idea in ideas})
    reason = "Propose " + ", ".join(f"{family} (tried {counts.get(family, 0)} times)" for family in families) + "."
    ids = {summary["expression"]: summary["feature_id"] for summary in summaries}
    calls = [
        {
            "expression": idea.text,
            "name": idea.name,
            "family": idea.family,
            "hypothesis": idea.hypothesis,
            **(
                {"parents": [ids[parent] for parent in idea.parents]}
                if ids.keys() >= set(idea.parents) and idea.parents
                else {}
            ),
        }
        for idea in ideas
    ]
    return _call(state, reason, "propose_new_feature", calls)


def _tried(session: ResearchSession, summary: Mapping[str, Any]) -> Tried:
    t_stat = summary["rank_ic_t"]
    if t_stat is None and summary["gross_sharpe"] is not None:
        t_stat = summary["gross_sharpe"] * math.sqrt(summary["n_obs"] / session.config.periods_per_year)
    return Tried(name=summary["name"], family=summary["family"], expression=summary["expression"], t_stat=t_stat)


def _call(state: PlannerState, reason: str, tool: str, arguments: Sequence[Mapping[str, Any]]) -> AIMessage:
    step = state.get("step", 0)
    calls = [
        ToolCall(name=tool, args=dict(item), id=f"s{step:03d}-{position:03d}", type="tool_call")
        for position, item in enumerate(arguments)
    ]
    return AIMessage(content=reason, tool_calls=calls)
