"""What the tests of the agents that hear and judge are about: one signal, one clock, one small list."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from agents.trading.name_index import ListedName, NameIndex
from agents.trading.sanctions import ListFormat, SanctionsList, ScreeningLists
from core.types import FilteredSignal, RawSignal, Severity, SignalCategory

NOW = datetime(2024, 3, 4, 15, 30, tzinfo=UTC)


def hours(number: float) -> timedelta:
    return timedelta(hours=number)


def signal(**changes: Any) -> RawSignal:
    values: dict[str, Any] = {
        "signal_id": str(uuid4()),
        "headline": "Chip maker raises its outlook",
        "summary": "It expects more orders.",
        "published_at": NOW,
        "category": SignalCategory.EARNINGS_SURPRISE,
        "severity": Severity.HIGH,
        "affected_tickers": ("AAA",),
        "supplier": None,
    }
    return RawSignal(**(values | changes))


def filtered(**changes: Any) -> FilteredSignal:
    return FilteredSignal(original=signal(**changes), compliance_score=1.0)


def person(name: str, **changes: Any) -> ListedName:
    return ListedName(**({"name": name, "entry": "P1", "is_person": True} | changes))


def company(name: str, **changes: Any) -> ListedName:
    return ListedName(**({"name": name, "entry": "C1", "is_person": False} | changes))


@dataclass
class Lists:
    """Lists that are there, of whatever date."""

    names: tuple[ListedName, ...] = ()
    dated: datetime = NOW

    def load(self) -> ScreeningLists:
        listed = SanctionsList(format=ListFormat.UN, version="test", dated=self.dated, names=self.names)
        return ScreeningLists(lists=(listed,), index=NameIndex(self.names))

    def forget(self) -> None:
        """Nothing is kept."""
