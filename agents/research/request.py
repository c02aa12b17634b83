"""What a user asks for and what a run may spend."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from core.errors import ConfigurationError
from features.computable import PREFIX

_MAX_QUESTION = 2_000


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of one run; the first that is reached ends the search and the run goes on to its verdict.

    Parameters
    ----------
    steps : int, default=40
        Rounds of planning.
    trials : int, default=500
        Backtests, each a row in the ledger.
    usd : float, default=2.0
        US dollars spent on language models.
    seconds : float, default=600
        Wall-clock time of the search; the verdict comes after it.
    """

    steps: int = 40
    trials: int = 500
    usd: float = 2.0
    seconds: float = 600.0

    def __post_init__(self) -> None:
        for name in ("steps", "trials"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"`{name}` of a budget must be a whole number of at least 1, was {value!r}.")
        for name in ("usd", "seconds"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigurationError(f"`{name}` of a budget must be finite and not negative, was {getattr(self, name)!r}.")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An idea to try, and why.

    Parameters
    ----------
    name : str
        What to call it in the registry.
    expression : str, optional
        High values: expected to outperform. It may build on promoted features by name.
    plugin : str, optional
        Name of a plugin feature (`features.load_plugins`), instead of an expression.
    family, hypothesis : str, optional
        Which idea it varies, and why it should work.
    parents : tuple of str, optional
        Canonical expressions that it varies.
    """

    name: str
    expression: str = ""
    plugin: str = ""
    family: str = "user"
    hypothesis: str = ""
    parents: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.expression.strip()) == bool(self.plugin.strip()):
            raise ConfigurationError(f"the candidate {self.name} needs either `expression` or `plugin`.")

    @property
    def text(self) -> str:
        """What it is proposed as: the expression, or ``plugin:NAME``."""
        return self.expression or f"{PREFIX}{self.plugin.strip()}"


@dataclass(frozen=True, kw_only=True)
class ResearchRequest:
    """A research question on one data set.

    Parameters
    ----------
    question : str
        In plain words; words that name a family of hypotheses ("reversal", "momentum") put that family first.
    dataset : str, default="sp500_20"
        Name of a data set in the store, or of one that ships with an installed package.
    symbols : tuple of str, optional
        Part of the data set; empty means all of it.
    candidates : tuple of Candidate, optional
        Ideas to try before any other.
    seed : int, default=0
        Seed of everything random in the run.
    vectors : bool, default=True
        Whether the rules planner looks after the vector memory of the data set.
    """

    question: str
    dataset: str = "sp500_20"
    symbols: tuple[str, ...] = ()
    candidates: tuple[Candidate, ...] = field(default=())
    seed: int = 0
    vectors: bool = True

    def __post_init__(self) -> None:
        if not self.question.strip():
            raise ConfigurationError('the question is empty: ask for something, such as "Find a short-horizon reversal".')
        if len(self.question) > _MAX_QUESTION:
            raise ConfigurationError(f"the question must have at most {_MAX_QUESTION} characters, had {len(self.question)}.")

    @property
    def lineage(self) -> str:
        """Name of the line of research: the same question, in whatever spelling, on the same data set and symbols."""
        words = " ".join(re.findall(r"[\w]+", self.question.casefold()))
        digest = hashlib.sha256(f"{self.dataset}|{'|'.join(sorted(self.symbols))}|{words}".encode()).hexdigest()
        return f"{self.dataset}:{digest[:16]}"

    def to_dict(self) -> dict[str, Any]:
        """Return the request as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ResearchRequest:
        """Build the request from what :meth:`to_dict` gave."""
        candidates = tuple(Candidate(**{**item, "parents": tuple(item["parents"])}) for item in values["candidates"])
        return cls(**{**values, "symbols": tuple(values["symbols"]), "candidates": candidates})
