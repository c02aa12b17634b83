"""The director's language model, over any server that speaks OpenAI's chat completions, and what it has cost.

Hides the client, its retries and its bill. Promises that every answer's tokens and cost are written down before the answer
is used, that a cap stops a call before it is made, and that a model which fails is one kind of error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from agents.chat_model import ask_model, bill_of, build_chat_model
from core.clock import Clock
from core.errors import BudgetExceeded, ChatModelError
from core.settings import Settings
from core.store.gateway import Gateway, Row

_CHARACTERS_PER_TOKEN = 3.0
"""Fewer than any language in Latin letters has, so that a call is not estimated too cheap."""


@dataclass(frozen=True, kw_only=True)
class ChatConfig:
    """What a model may cost.

    Parameters
    ----------
    daily_cap_usd : float, default=5.0
        Of one day in UTC.
    total_cap_usd : float, default=100.0
        Of all days.
    max_output_tokens : int, default=2000
        Of one answer, thinking included.
    """

    daily_cap_usd: float = 5.0
    total_cap_usd: float = 100.0
    max_output_tokens: int = 2000


class Chat(Protocol):
    """Ask a model."""

    def ask(self, *, role: str, symbol: str, system: str, user: str, schema: Mapping[str, Any] | None = None) -> str:
        """Return the text of an answer; JSON where a schema is given, as far as the model obeys.

        Raises
        ------
        BudgetExceeded
            If the call could cost more than is left; it was not made.
        ChatModelError
            If the model cannot be reached, refuses or answers nothing.
        """


class SpendingLog:
    """Keep what the director's calls cost, in the table `llm_usage`.

    Parameters
    ----------
    gateway : Gateway
        Way to the database, as `service_role`.
    """

    ROLES = ("bull", "bear", "verdict")

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def spent(self, since: datetime | None = None) -> float:
        """Return what was spent at or after a time, or ever, in US dollars."""
        where: Row = {"role": ("in", list(self.ROLES))}
        if since is not None:
            where["recorded_at"] = ("gte", since)
        return float(sum(row["cost_usd"] for row in self.gateway.select("llm_usage", columns=("cost_usd",), where=where)))

    def record(self, row: Row) -> None:
        """Write down the tokens and the cost of one call."""
        self.gateway.insert("llm_usage", [row])


class OpenAIChat:
    """Ask the model of the settings.

    Parameters
    ----------
    settings : Settings
        Which model, where, and its prices.
    spending : SpendingLog
    config : ChatConfig
    clock : Clock
    """

    def __init__(self, settings: Settings, spending: SpendingLog, config: ChatConfig, clock: Clock) -> None:
        self.settings = settings
        self.spending = spending
        self.config = config
        self.clock = clock

    def ask(self, *, role: str, symbol: str, system: str, user: str, schema: Mapping[str, Any] | None = None) -> str:
        """Return the text of an answer; its cost is written down before it is read."""
        from langchain_core.messages import HumanMessage, SystemMessage

        self._check_caps(len(system) + len(user))
        model = build_chat_model(self.settings, max_output_tokens=self.config.max_output_tokens)
        if schema is not None:
            wanted = {"type": "json_schema", "json_schema": {"name": role, "schema": dict(schema), "strict": True}}
            model = model.bind(response_format=wanted)
        answer = ask_model(self.settings, model, [SystemMessage(content=system), HumanMessage(content=user)])
        self._record(role, symbol, answer)
        text = str(answer.text).replace("\0", "?").encode("utf-8", "replace").decode().strip()
        if not text:
            raise ChatModelError(f"the model {self.settings.llm_model} answered nothing.")
        return text

    def _check_caps(self, n_characters: int) -> None:
        price, _ = self.settings.price_of(self.settings.llm_model)
        worst = (n_characters / _CHARACTERS_PER_TOKEN * price.input + self.config.max_output_tokens * price.output) / 1e6
        now = self.clock.now()
        caps = (
            ("the day", self.config.daily_cap_usd, self.spending.spent(now.replace(hour=0, minute=0, second=0, microsecond=0))),
            ("all days", self.config.total_cap_usd, self.spending.spent()),
        )
        for name, cap, spent in caps:
            if spent + worst > cap:
                raise BudgetExceeded(
                    f"the next call may cost {worst:.4f} US dollars, and {spent:.4f} of {cap:.2f} for {name} are spent: "
                    "it was not made."
                )

    def _record(self, role: str, symbol: str, answer: Any) -> None:
        bill = bill_of(self.settings, answer)
        self.spending.record({**bill, "role": role, "symbol": symbol, "recorded_at": self.clock.now()})
