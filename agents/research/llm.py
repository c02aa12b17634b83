"""The planner that asks a language model, over any server that speaks OpenAI's chat completions.

Hides the client, its retries and its bill. Promises that a model that fails is an error the caller sees (the run can be
resumed), that every call's tokens and cost are written down before its answer is used, and that the budget stops the next
call before it is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langchain_core.tools import BaseTool
from openai import OpenAIError
from pydantic import SecretStr

from agents.research.prompts import build_prompt
from agents.research.session import ResearchSession
from agents.research.state import PlannerState
from core.errors import ChatModelError, ConfigurationError
from core.settings import ModelPrice, Settings

_NO_KEY = "not-needed"
"""What is sent to a server of one's own that asks for no key."""


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
    ChatModelError
        If the model cannot be reached, refuses, or answers neither text nor tool calls.
    """
    spent = session.store.service.llm_cost(session.run_id)
    if spent >= session.budget.usd:
        return [AIMessage(content=f"The budget of {session.budget.usd:.2f} US dollars is used ({spent:.4f} spent).")]
    history = list(state.get("messages", []))
    opening: list[AnyMessage] = []
    if not history:
        system, user = build_prompt(session, state)
        opening = [SystemMessage(content=system), HumanMessage(content=user)]
    model = _build_model(session.settings).bind_tools(tools)
    try:
        answer = model.invoke([*opening, *history])
    except OpenAIError as error:
        raise ChatModelError(
            f"the model {session.settings.llm_model} failed: {error}. "
            f"Nothing is lost: `aqf resume {session.run_id}` continues the run."
        ) from error
    if not isinstance(answer, AIMessage):
        raise ChatModelError(
            f"the model {session.settings.llm_model} answered {type(answer).__name__}, expected a message of its own."
        )
    _record_usage(session, answer)
    if not answer.content and not answer.tool_calls and not answer.invalid_tool_calls:
        raise ChatModelError(
            f"the model {session.settings.llm_model} answered nothing. `aqf resume {session.run_id}` asks it again."
        )
    return [*opening, answer]


def _build_model(settings: Settings) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(
        model=settings.llm_model,
        base_url=settings.openai_base_url,
        api_key=settings.openai_api_key or SecretStr(_NO_KEY),
        timeout=settings.llm_timeout_seconds,
        max_retries=settings.llm_max_retries,
    )


def price_of(settings: Settings, model: str) -> tuple[ModelPrice, bool]:
    """Return the price of a model, and whether it is known; an unknown model is billed at the dearest price of the table."""
    known = settings.llm_prices.get(model)
    if known is not None:
        return known, True
    prices = settings.llm_prices.values()
    return ModelPrice(
        input=max(p.input for p in prices), cached=max(p.cached for p in prices), output=max(p.output for p in prices)
    ), False


def _record_usage(session: ResearchSession, answer: AIMessage) -> None:
    usage = answer.usage_metadata
    if usage is None:
        raise ChatModelError(
            f"the model {session.settings.llm_model} answered without saying how many tokens it used: "
            "its cost cannot be counted."
        )
    cached = int((usage.get("input_token_details") or {}).get("cache_read") or 0)
    price, known = price_of(session.settings, session.settings.llm_model)
    cost = (
        (usage["input_tokens"] - cached) * price.input + cached * price.cached + usage["output_tokens"] * price.output
    ) / 1e6
    session.store.service.record_llm_usage(
        {
            "model": session.settings.llm_model,
            "role": "planner",
            "run_id": session.run_id,
            "response_id": answer.response_metadata.get("id"),
            "input_tokens": usage["input_tokens"],
            "cached_tokens": cached,
            "output_tokens": usage["output_tokens"],
            "cost_usd": round(cost, 6),
            "price_known": known,
        }
    )
