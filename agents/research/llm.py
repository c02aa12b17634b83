"""The planner that asks a language model, over any server that speaks OpenAI's chat completions.

Hides the client, its retries and its bill. Promises that a model that fails is an error the caller sees (the run can be
resumed), that every call's tokens and cost are written down before its answer is used, and that the budget stops the next
call before it is made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, InvalidToolCall, SystemMessage, ToolCall
from langchain_core.tools import BaseTool

from agents.chat_model import ask_model, bill_of, build_chat_model
from agents.research.prompts import build_prompt
from agents.research.session import ResearchSession
from agents.research.state import PlannerState
from core.errors import ChatModelError, ConfigurationError
from core.settings import Settings


def check_model(settings: Settings) -> None:
    """Refuse a run with a model where none is configured.

    Raises
    ------
    ConfigurationError
        If neither OPENAI_API_KEY nor OPENAI_BASE_URL is set.
    """
    if not settings.has_model:
        raise ConfigurationError(
            'planner="llm" needs a model: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server of your own, '
            'or use planner="rules".'
        )


def plan_with_model(session: ResearchSession, state: PlannerState, tools: Sequence[BaseTool]) -> list[AnyMessage]:
    """Ask the model for its next step and return the messages to append.

    Raises
    ------
    ConfigurationError
        If no model is configured: the settings may have changed since the run began.
    ChatModelError
        If the model cannot be reached, refuses, or answers neither text nor tool calls.
    """
    check_model(session.settings)
    spent = session.store.service.llm_cost(session.run_id)
    if spent >= session.budget.usd:
        return [AIMessage(content=f"The budget of {session.budget.usd:.2f} US dollars is used ({spent:.4f} spent).")]
    history = list(state.get("messages", []))
    opening: list[AnyMessage] = []
    if not history:
        system, user = build_prompt(session, state)
        opening = [SystemMessage(content=system), HumanMessage(content=user)]
    model = build_chat_model(session.settings).bind_tools(tools)
    remedy = f"Nothing is lost: `aqf resume {session.run_id}` continues the run."
    answer = ask_model(session.settings, model, [*opening, *history], remedy=remedy)
    if not isinstance(answer, AIMessage):
        raise ChatModelError(
            f"the model {session.settings.llm_model} answered {type(answer).__name__}, expected a message of its own."
        )
    _record_usage(session, answer)
    if not str(answer.text).strip() and not answer.tool_calls and not answer.invalid_tool_calls:
        refusal = answer.additional_kwargs.get("refusal")
        said = f"refused: {refusal}" if refusal else "answered nothing"
        raise ChatModelError(f"the model {session.settings.llm_model} {said}. `aqf resume {session.run_id}` asks it again.")
    return [*opening, _adopt(answer, state["step"])]


def _adopt(answer: AIMessage, step: int) -> AIMessage:
    """Rebuild an answer so that the store can hold it, tool calls have ids of our own, and any server takes it back.

    Servers leave ids out or repeat them from answer to answer, where ours name one call of the run (of nine letters and
    digits, since some take no other); and some refuse a history with arguments that are not JSON.
    """
    valid, invalid = answer.tool_calls, answer.invalid_tool_calls
    ids = [f"s{step:04d}c{position:03d}" for position in range(len(valid) + len(invalid))]
    return AIMessage(
        content=_storable(answer.content),
        tool_calls=[
            ToolCall(name=_tool_name(call["name"]), args=_storable(call["args"]), id=own, type="tool_call")
            for call, own in zip(valid, ids, strict=False)
        ],
        invalid_tool_calls=[
            InvalidToolCall(
                name=_tool_name(call["name"]), args="{}", id=own, error=_storable(call["error"]), type="invalid_tool_call"
            )
            for call, own in zip(invalid, ids[len(valid) :], strict=True)
        ],
        usage_metadata=answer.usage_metadata,
    )


def _tool_name(name: str | None) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name or "unnamed")[:64]


def _storable(value: Any) -> Any:
    """Replace what Postgres cannot hold: NUL and halves of characters in text, NaN and infinity among numbers."""
    if isinstance(value, str):
        return value.replace("\0", "?").encode("utf-8", "replace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_storable(item) for item in value]
    return value


def _record_usage(session: ResearchSession, answer: AIMessage) -> None:
    bill = bill_of(session.settings, answer)
    session.store.service.record_llm_usage({**bill, "role": "planner", "run_id": session.run_id})
