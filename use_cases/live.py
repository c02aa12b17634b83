"""UseCaseFeed: a use case as a producer of the live desk, beside Hermes.

Hides which bars it was asked about before. Promises that it is asked about each bar that has ended exactly as a simulation asks
it, once and in their order; that what it told is stored once, by its identity, whatever dies in between; and that what is
expected of its trades is written down from bars before the first that it was asked about.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from agents.trading.expectations import find_expectation, keep_expectation
from agents.trading.hermes import Harvest, SourceFailure
from agents.trading.icarus import IcarusConfig
from agents.trading.market_data import MarketData
from core.clock import Clock
from core.errors import ConfigurationError, DataError, MissingDataError
from core.market.panel import Panel
from core.message import Message
from core.store.opening import Store
from use_cases.base import StrategyUseCase
from use_cases.expectation import RECORD_BARS, compute_expectation
from use_cases.live_panel import load_live_panel

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class UseCaseFeedConfig:
    """When a use case is asked.

    Parameters
    ----------
    max_age : timedelta, default=168 hours
        Bars that ended longer ago are passed over: Icarus refuses signals of that age.
    patience : float, default=0.5
        How long after its end a bar waits for symbols that had the bar before and have not got this one, as a fraction of the
        median distance of bars: twelve hours with daily ones.
    min_trades : int, default=30
        Trades before the first start below which nothing is expected: what is kept once is kept for ever.

    Raises
    ------
    ConfigurationError
        If a value is not allowed.
    """

    max_age: timedelta = IcarusConfig().max_age
    patience: float = 0.5
    min_trades: int = 30

    def __post_init__(self) -> None:
        if self.max_age <= timedelta(0) or not 0.0 <= self.patience <= 1.0:
            raise ConfigurationError(
                f"`max_age` must be positive and `patience` a fraction, were {self.max_age}, {self.patience}."
            )
        if self.min_trades < 1:
            raise ConfigurationError(f"`min_trades` must be 1 or more, was {self.min_trades}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place(Message):
    """How far a use case was asked, as the store keeps it."""

    begun_at: datetime
    told_until: datetime


class UseCaseFeed:
    """Ask a use case about each new bar of the desk and store its signals.

    Parameters
    ----------
    case : StrategyUseCase
    store : Store
    data : MarketData
        The desk's own.
    clock : Clock
    config : UseCaseFeedConfig, optional

    Attributes
    ----------
    source : str
        Under which its signals and what is expected of them are kept: ``use_case:`` and its name.

    Raises
    ------
    ConfigurationError
        If the use case has nothing live to tell.
    MissingDataError
        If it does not find its symbols.
    """

    def __init__(
        self,
        case: StrategyUseCase,
        store: Store,
        data: MarketData,
        clock: Clock,
        config: UseCaseFeedConfig | None = None,
    ) -> None:
        case.check_live()
        self.source = f"use_case:{case.name}"
        self._case, self._store, self._data, self._clock = case, store, data, clock
        self._config = config or UseCaseFeedConfig()
        # A bar is told as what came after another: of every use case there is one before.
        self._symbols, self._lookback = case.symbols(store), max(1, case.lookback())
        self._expects = False
        self._missing: list[str] = []
        if not self._symbols:
            raise ConfigurationError(f"{case.name} tells the traders of nobody: say of whom in `symbols`.")

    def collect(self) -> Harvest:
        """Ask about every bar that ended since the last time, and store what is told.

        Returns
        -------
        Harvest
            `n_held` counts bars that wait for a symbol. What kept the use case from being asked is a failure; the same bars are
            asked about next time.

        Raises
        ------
        StoreError
            If the store refused or cannot be reached.
        """
        now = self._clock.now()
        place = self._find_place(now)
        n_new = n_known = n_held = 0
        failures = []
        try:
            self._expect(place.begun_at, now)
            since = max(place.told_until, now - self._config.max_age)
            panel = load_live_panel(self._data, self._symbols, now, until=since, n_before=self._lookback)
            first = int(panel.index.searchsorted(since, side="right"))
            for bar in range(first, panel.n_bars):
                if self._waits(panel, bar, now):
                    n_held = panel.n_bars - bar
                    break
                inserted, known = self._tell(panel, bar)
                n_new, n_known = n_new + inserted, n_known + known
                self._keep_place(_Place(begun_at=place.begun_at, told_until=panel.index[bar].to_pydatetime()))
        except DataError as error:
            failures.append(SourceFailure(source=self.source, reason=str(error)))
        n_read = 0 if failures else 1
        return Harvest(n_new=n_new, n_known=n_known, n_held=n_held, dropped=(), failures=tuple(failures), n_read=n_read)

    def _tell(self, panel: Panel, bar: int) -> tuple[int, int]:
        """Store what the use case says of a bar, and return how many signals were new and how many were there."""
        at = panel.index[bar].to_pydatetime()
        if bar < self._lookback:
            raise MissingDataError(
                f"{self._case.name} reads {self._lookback} bars before the one it tells of, and there are {bar} before "
                f"{at:%Y-%m-%d %H:%M} UTC: give --data that goes further back."
            )
        missing = [symbol for symbol, price in zip(panel.symbols, panel.close[bar], strict=True) if np.isnan(price)]
        if missing and missing != self._missing:
            _log.warning("from %s on %s is asked without bars of %s", at, self._case.name, ", ".join(missing))
        self._missing = missing
        known = panel.slice(0, bar + 1)
        signals = self._case.raw_signals(at, since=panel.index[bar - 1].to_pydatetime(), panel=known)
        inserted = [
            self._store.trading.save_signal(signal, source=self.source, source_key=signal.signal_id).inserted
            for signal in signals
        ]
        return sum(inserted), len(inserted) - sum(inserted)

    def _waits(self, panel: Panel, bar: int, now: datetime) -> bool:
        """Return whether a bar is so new that it may still come of symbols that had the one before."""
        if bar == 0 or not (np.isfinite(panel.close[bar - 1]) & np.isnan(panel.close[bar])).any():
            return False
        distance = np.median(np.diff(panel.index.to_numpy()))
        return bool(panel.index[bar] + self._config.patience * distance > now)

    def _expect(self, begun_at: datetime, now: datetime) -> None:
        """Write down what to expect, from bars before the first that was ever asked about, unless it is there."""
        research = self._store.service
        if self._expects or find_expectation(research, self.source) is not None:
            self._expects = True
            return
        n_before = RECORD_BARS + self._lookback
        panel = load_live_panel(self._data, self._symbols, now, until=begun_at, n_before=n_before)
        found = compute_expectation(self._case, panel, begun_at)
        if found is not None and found.n_trades >= self._config.min_trades:
            keep_expectation(research, self.source, found)
        else:
            n_trades = 0 if found is None else found.n_trades
            _log.warning(
                "nothing is expected of %s: its rule made %d trades in the bars that there are before %s, %d are needed",
                self._case.name, n_trades, begun_at, self._config.min_trades,
            )  # fmt: skip
        self._expects = True

    def _find_place(self, now: datetime) -> _Place:
        kept = self._store.service.load_agent_state(self.source)
        if kept:
            return _Place.from_dict(kept)
        # What is still fresh enough to be traded is told at the first start; what came before is the record.
        begun_at = now - self._config.max_age
        place = _Place(begun_at=begun_at, told_until=begun_at)
        self._keep_place(place)
        return place

    def _keep_place(self, place: _Place) -> None:
        self._store.service.save_agent_state(self.source, place.to_dict())
