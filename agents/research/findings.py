"""What is said of one candidate: the conditions it was held to, each with its figure, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Check:
    """One condition of the gate.

    Parameters
    ----------
    name : str
        The binding constraint, should this fail.
    figure : float or None
        What was measured; None when it cannot be measured here.
    bound : str
        What it must be, in words.
    passed : bool
    note : str
        Further figures that help to read this one.
    """

    name: str
    figure: float | None
    bound: str
    passed: bool
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The verdict on one candidate.

    Parameters
    ----------
    verdict : {"promoted", "rejected"}
    binding_constraint : str or None
        Name of the first condition that failed.
    checks : tuple of Check
        All conditions that were judged, in order.
    """

    trial_id: int
    feature_id: str
    name: str
    family: str
    expression: str
    verdict: str
    binding_constraint: str | None
    metrics: Mapping[str, Any]
    checks: tuple[Check, ...]
    hypothesis: str = ""

    @property
    def promoted(self) -> bool:
        """Whether the candidate passed everything."""
        return self.verdict == "promoted"

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Finding:
        """Build the finding from a mapping that has at least its fields."""
        own = {f.name: values[f.name] for f in fields(cls)}
        return cls(**{**own, "checks": tuple(Check(**check) for check in values["checks"])})
