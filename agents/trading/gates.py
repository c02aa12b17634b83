"""The three agents that judge a signal before it is sized, as the pipeline knows them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from agents.trading.artemis import Artemis, ArtemisConfig
from agents.trading.hades import Hades, HadesConfig
from agents.trading.icarus import Icarus, IcarusConfig
from agents.trading.market_data import MarketData
from agents.trading.sanctions import ListSource
from core.clock import Clock
from core.errors import DataError
from core.store.trading import TradingStore
from core.types import FilteredSignal, MacroContext, RawSignal, Refusal


class Screening(Protocol):
    """What the compliance check said."""

    @property
    def filtered(self) -> FilteredSignal:
        """The signal with its score and flags."""

    @property
    def refusal(self) -> Refusal | None:
        """Why it may not be traded."""

    @property
    def list_version(self) -> str | None:
        """Which sanctions lists it was checked against."""

    @property
    def matched_entry(self) -> str | None:
        """The entry of a list that it matched."""


class Scanner(Protocol):
    """Icarus: which signals are worth a look."""

    def scan(self, worker: str) -> list[RawSignal]:
        """Claim the oldest open signals for a worker."""

    def judge(self, signal: RawSignal, now: datetime) -> RawSignal | Refusal:
        """Return the signal with its tickers resolved, or what bound."""

    def learn(self, signal: RawSignal, rejected: bool, now: datetime) -> None:
        """Take note of what became of a signal of its pattern."""

    def restart(self) -> None:
        """Drop what is remembered of the store, and read it anew."""


class Screener(Protocol):
    """Hades: whom one may trade with."""

    def screen(self, signal: RawSignal) -> Screening:
        """Check the names and the words of a signal."""

    def restart(self) -> None:
        """Read the lists anew."""


class MacroJudge(Protocol):
    """Artemis: the market that a signal meets."""

    def context(self) -> MacroContext:
        """Return the market as of now."""

    def judge(self, signal: FilteredSignal, macro: MacroContext) -> Refusal | None:
        """Return what bound, or None."""

    def restart(self) -> None:
        """Drop what is remembered of the market."""


@dataclass(frozen=True, kw_only=True)
class Gates:
    """Icarus, Hades and Artemis."""

    icarus: Scanner
    hades: Screener
    artemis: MacroJudge


def build_gates(
    store: TradingStore,
    data: MarketData,
    lists: ListSource,
    clock: Clock,
    *,
    icarus: IcarusConfig | None = None,
    hades: HadesConfig | None = None,
    artemis: ArtemisConfig | None = None,
) -> Gates:
    """Build the three agents; Icarus asks the prices which tickers there are, Hades asks Icarus for the names behind them."""

    def is_priced(ticker: str, now: datetime) -> bool:
        try:
            return data.get_quote(ticker, now) is not None or bool(data.list_bars(ticker, now, 1))
        except DataError:
            return True  # somebody knows it, and its price is for Ares to judge

    scanner = Icarus(store, icarus or IcarusConfig(), clock, is_priced)
    return Gates(
        icarus=scanner,
        hades=Hades(lists, hades or HadesConfig(), clock, scanner.company_names),
        artemis=Artemis(data, artemis or ArtemisConfig(), clock),
    )
