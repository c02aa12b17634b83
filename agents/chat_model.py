"""A language model behind any server that speaks OpenAI's chat completions: the client, its failures and its bill.

Hides langchain-openai, its retries and what its answers say of tokens. Promises that a model that fails is one kind of error,
in which no key appears, and that an answer whose cost cannot be counted is no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.errors import ChatModelError
from core.settings import Settings
from core.store.gateway import Row

if TYPE_CHECKING:
    from langchain_core.messages import AnyMessage

_NO_KEY = "not-needed"
"""What is sent to a server of one's own that asks for no key."""
_MAX_ERROR = 500


def build_chat_model(settings: Settings, *, max_output_tokens: int | None = None) -> Any:
    """Return the client of the model that the settings name; an answer is cut at so many tokens, if a number is given."""
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    return ChatOpenAI(
        model=settings.llm_model,
        base_url=settings.openai_base_url,
        api_key=settings.openai_api_key or SecretStr(_NO_KEY),
        timeout=settings.llm_timeout_seconds,
        max_retries=settings.llm_max_retries,
        max_completion_tokens=max_output_tokens,
        use_responses_api=False,
    )


def ask_model(settings: Settings, model: Any, messages: Sequence[AnyMessage], *, remedy: str = "") -> Any:
    """Return a model's answer to messages.

    Parameters
    ----------
    remedy : str
        What to do when it fails, behind what went wrong.

    Raises
    ------
    ChatModelError
        If the model cannot be reached, refuses, or answers what cannot be read.
    """
    from openai import OpenAIError

    try:
        return model.invoke(list(messages))
    except OpenAIError as error:
        raise _failure(settings, "failed", error, remedy) from error
    except (ValueError, TypeError, LookupError) as error:  # what langchain raises for a body it cannot read
        raise _failure(settings, "answered what cannot be read", error, remedy) from error


def bill_of(settings: Settings, answer: Any) -> Row:
    """Return the tokens of an answer and what they cost, as `llm_usage` keeps them.

    Raises
    ------
    ChatModelError
        If the answer does not say how many tokens it used.
    """
    usage = getattr(answer, "usage_metadata", None)
    if usage is None:
        raise ChatModelError(
            f"the model {settings.llm_model} answered without saying how many tokens it used: its cost cannot be counted."
        )
    cached = int((usage.get("input_token_details") or {}).get("cache_read") or 0)
    price, known = settings.price_of(settings.llm_model)
    cost = (
        (usage["input_tokens"] - cached) * price.input + cached * price.cached + usage["output_tokens"] * price.output
    ) / 1e6
    return {
        "model": settings.llm_model,
        "response_id": answer.response_metadata.get("id"),
        "input_tokens": usage["input_tokens"],
        "cached_tokens": cached,
        "output_tokens": usage["output_tokens"],
        "cost_usd": round(cost, 6),
        "price_known": known,
    }


def _failure(settings: Settings, what: str, error: Exception, remedy: str) -> ChatModelError:
    text = str(error).strip().rstrip(".")
    if settings.openai_api_key is not None:  # a server may quote the key it refuses
        text = text.replace(settings.openai_api_key.get_secret_value(), "[OPENAI_API_KEY]")
    return ChatModelError(f"the model {settings.llm_model} {what}: {text[:_MAX_ERROR]}.{f' {remedy}' if remedy else ''}")
