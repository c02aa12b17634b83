"""The planner's graph: recall -> plan <-> act -> reflect -> plan ... -> judge -> report.

The graph owns the order of things and nothing else; each node reads the state, calls one module of `agents.research` and
returns what changed. A node may be run again from its top after a crash, so every side effect is keyed.
"""

from __future__ import annotations

import json
from typing import Any, Literal, Protocol

from langchain_core.messages import AIMessage, InvalidToolCall, RemoveMessage, ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.graph.state import CompiledStateGraph

from agents.research import drift, llm, memory, rules
from agents.research.gate import Judgement, judge_run
from agents.research.report import judgement_to_dict, save_report
from agents.research.session import Event, ResearchSession
from agents.research.state import PlannerState
from agents.tools import build_tool_node, build_tools

PlannerName = Literal["rules", "llm"]
_STEP_TOOLS = ("refresh_vector_store", "prune_vectors", "score_signal_cluster")


def build_graph(
    session: ResearchSession, planner: PlannerName, checkpointer: BaseCheckpointSaver[Any] | None = None
) -> CompiledStateGraph[PlannerState, None, PlannerState, PlannerState]:
    """Build the graph of one run.

    Parameters
    ----------
    planner : {"rules", "llm"}
        Who decides the next tool calls.
    checkpointer : BaseCheckpointSaver, optional
        Where the state is kept between steps; None keeps nothing, so that the run cannot be resumed.
    """
    tools = build_tools(session)
    graph = StateGraph(PlannerState)
    graph.add_node("recall", _recall(session))
    graph.add_node("plan", _plan(session, planner, tools))
    graph.add_node("act", build_tool_node(tools))
    graph.add_node("reflect", _reflect(session, planner))
    graph.add_node("judge", _judge(session))
    graph.add_node("report", _report(session))
    graph.add_edge(START, "recall")
    graph.add_edge("recall", "plan")
    graph.add_conditional_edges("plan", _after_plan, ["act", "reflect", "judge"])
    graph.add_edge("act", "reflect")
    graph.add_edge("reflect", "plan")
    graph.add_edge("judge", "report")
    graph.add_edge("report", END)
    return graph.compile(checkpointer=checkpointer)


class Node(Protocol):
    """A step of the graph: reads the state, returns what changed."""

    def __call__(self, state: PlannerState) -> dict[str, Any]: ...


def _recall(session: ResearchSession) -> Node:
    def recall(state: PlannerState) -> dict[str, Any]:
        remembered = {**memory.recall(session), "drift": drift.watch(session)}
        session.emit(Event(kind="recalled", message=remembered["sentence"], total=session.budget.trials))
        return {"recalled": remembered, "step": 0, "tried": [], "pending": [], "vectors": {}}

    return recall


def _plan(session: ResearchSession, planner: PlannerName, tools: list[BaseTool]) -> Node:
    def plan(state: PlannerState) -> dict[str, Any]:
        stop = None
        if state["step"] >= session.budget.steps:
            stop = f"The budget of {session.budget.steps} rounds of planning is used."
        elif session.out_of_time():
            stop = f"The budget of {session.budget.seconds:g} seconds is used."
        if stop is not None:
            return {"stop": stop}
        if planner == "rules":
            answer = rules.plan_next(session, state)
            messages: list[Any] = [answer]
        else:
            messages = list(llm.plan_with_model(session, state, tools))
            answer = messages[-1]
        update: dict[str, Any] = {"messages": messages, "step": state["step"] + 1}
        if not answer.tool_calls and not answer.invalid_tool_calls:
            update["stop"] = str(answer.text).strip()
        session.emit(Event(kind="planned", message=str(answer.text), done=len(state["tried"]), total=session.budget.trials))
        return update

    return plan


def _after_plan(state: PlannerState) -> str:
    if state.get("stop"):
        return "judge"
    last = state["messages"][-1]
    return "act" if isinstance(last, AIMessage) and last.tool_calls else "reflect"


def _reflect(session: ResearchSession, planner: PlannerName) -> Node:
    def reflect(state: PlannerState) -> dict[str, Any]:
        messages = state["messages"]
        position = max(i for i, message in enumerate(messages) if isinstance(message, AIMessage))
        plan = messages[position]
        assert isinstance(plan, AIMessage)
        calls = {call["id"]: call for call in plan.tool_calls}
        tried: list[dict[str, Any]] = []
        pending = list(state["pending"])
        vectors = dict(state["vectors"])
        known = {summary["trial_id"] for summary in state["tried"]}
        for message in messages[position + 1 :]:
            if not isinstance(message, ToolMessage):
                continue
            call = calls[message.tool_call_id]
            if call["name"] == "run_backtest":
                pending = [feature_id for feature_id in pending if feature_id != call["args"].get("feature_id")]
            if message.status == "error":
                _record_refusal(session, state, call, str(message.content))
                continue
            answer = json.loads(str(message.content))
            if call["name"] == "run_backtest" and answer["trial_id"] not in known:
                known.add(answer["trial_id"])
                tried.append({**answer, "tool_call_id": message.tool_call_id})
            elif call["name"] == "propose_new_feature":
                pending = [*pending, answer["feature_id"]] if answer["feature_id"] not in pending else pending
            elif call["name"] in _STEP_TOOLS:
                vectors[call["name"]] = answer
        done = len(state["tried"]) + len(tried)
        session.emit(Event(kind="tool", message=f"{len(calls)} tool calls answered", done=done, total=session.budget.trials))
        update: dict[str, Any] = {"tried": tried, "pending": pending, "vectors": vectors}
        if planner == "rules":
            update["messages"] = [RemoveMessage(id=REMOVE_ALL_MESSAGES)]
        elif plan.invalid_tool_calls:
            update["messages"] = []
            for broken in plan.invalid_tool_calls:
                text = f"the arguments of {broken['name']} were not valid JSON ({broken['error']}): send the call again."
                _record_refusal(session, state, broken, text)
                update["messages"].append(ToolMessage(content=text, tool_call_id=broken["id"] or "", status="error"))
        return update

    return reflect


def _record_refusal(session: ResearchSession, state: PlannerState, call: ToolCall | InvalidToolCall, text: str) -> None:
    """Keep a call that never reached its tool (an unknown one, or wrong arguments), so that every call is a row."""
    store, call_id = session.store.researcher, call["id"] or ""
    if store.find_tool_call(session.run_id, call_id) is None:
        store.save_tool_call(
            {
                "run_id": session.run_id,
                "tool_call_id": call_id,
                "step": state["step"],
                "tool": call["name"] or "",
                "arguments": {"arguments": call["args"]},
                "started_at": session.clock.now(),
                "seconds": 0.0,
                "result": None,
                "error": text,
            }
        )


def _judge(session: ResearchSession) -> Node:
    def judge(state: PlannerState) -> dict[str, Any]:
        judgement: Judgement = judge_run(session)
        done = len(judgement.findings)
        session.emit(
            Event(kind="judged", message=f"{done} trials judged: {state['stop']}", done=done, total=session.budget.trials)
        )
        return {"judgement": judgement_to_dict(judgement)}

    return judge


def _report(session: ResearchSession) -> Node:
    def report(state: PlannerState) -> dict[str, Any]:
        saved = save_report(session, state)
        session.emit(Event(kind="reported", message=saved.sentence, done=saved.n_trials, total=saved.n_trials))
        return {}

    return report
