"""Puts the three gates together, and finds the sanctions lists that one of them needs.

Hides which file of a folder is whose list. Promises that no list is invented: a folder without one screens nothing, and so lets
nothing pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from agents.trading.artemis import Artemis, ArtemisConfig
from agents.trading.gates import Gates
from agents.trading.hades import Hades, HadesConfig
from agents.trading.icarus import Icarus, IcarusConfig
from agents.trading.market_data import MarketData
from agents.trading.sanctions import ListFile, ListFormat, ListSource, SanctionsFiles, ScreeningLists
from core.clock import Clock
from core.errors import MissingDataError
from core.store.trading import TradingStore

LIST_FILES = {"sdn.csv": ListFormat.OFAC, "eu.xml": ListFormat.EU, "un.xml": ListFormat.UN}
"""What the public lists are called in a folder of them; `alt.csv` belongs beside `sdn.csv`."""


@dataclass(frozen=True, kw_only=True)
class GateRules:
    """The rules of the three gates; the defaults are those of the desk."""

    icarus: IcarusConfig = field(default_factory=IcarusConfig)
    hades: HadesConfig = field(default_factory=HadesConfig)
    artemis: ArtemisConfig = field(default_factory=ArtemisConfig)


class NoLists:
    """A source that has no list, and says where one was looked for.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> ScreeningLists:
        """Refuse.

        Raises
        ------
        MissingDataError
            Always.
        """
        names = ", ".join(LIST_FILES)
        raise MissingDataError(f"there is no sanctions list in {self._folder}: put {names} there, as they are published.")


def find_lists(folder: Path) -> ListSource:
    """Return the lists of a folder, or a source that refuses where there are none."""
    files = [ListFile(format=kind, path=folder / name) for name, kind in LIST_FILES.items() if (folder / name).is_file()]
    return SanctionsFiles(files) if files else NoLists(folder)


def build_gates(
    store: TradingStore, data: MarketData, clock: Clock, lists: ListSource, rules: GateRules | None = None
) -> Gates:
    """Build Icarus, Hades and Artemis over one store, one market and one clock.

    Parameters
    ----------
    store : TradingStore
    data : MarketData
    clock : Clock
    lists : ListSource
        Sanctions lists: `find_lists`, or `FictitiousLists` where nothing is at stake.
    rules : GateRules, optional
    """
    rules = rules or GateRules()
    icarus = Icarus(store, rules.icarus, clock)
    return Gates(
        icarus=icarus,
        hades=Hades(lists, rules.hades, clock, icarus.company_names),
        artemis=Artemis(data, rules.artemis, clock),
    )
