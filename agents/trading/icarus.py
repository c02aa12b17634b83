"""Icarus, scanner: which signals are worth a look?

Hides claiming, the ticker map and what was learned. Promises that a signal is claimed before it is worked on, that every signal
it passes is recent, of this universe and has a ticker that somebody knows, and that what it has learned to ignore outlives a
restart: it is read again from the decisions in the store.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from uuid import UUID

from agents.trading.companies import with_companies
from agents.trading.filings import RoutineFilings
from agents.trading.tickers import PRIVATE_COMPANIES, TickerMap
from core.clock import Clock
from core.errors import ConfigurationError
from core.store.gateway import Row
from core.store.trading import TradingStore
from core.store.trading_records import TickerMapping
from core.types import BindingConstraint, PipelineStatus, RawSignal, Refusal, SignalCategory, Stage

RESET_EVENT = "icarus.reset"
_EVERYTHING = "*"
_AT_ONCE = 100
_WORD = re.compile(r"[^\W\d_]+")
# One to five letters, and behind them a class, a preferred share, a unit or a warrant: BRK.B, BAC-PL, ABC.WS.A.
_US_TICKER = re.compile(r"[A-Z]{1,5}(?:[./-][A-Z]{1,3}){0,2}")
_MOST_ASKED, _MOST_REASON = 10, 2000

# What refuses a signal for what it is, and not for the state of the market, the book or the machinery.
_ABOUT_THE_SIGNAL = frozenset(
    {
        BindingConstraint.SANCTIONS,
        BindingConstraint.ESG_BLOCK,
        BindingConstraint.TIER_BLOCKED,
        BindingConstraint.COLD_START_LOW_CONFIDENCE,
        BindingConstraint.CONFIDENCE_BELOW_FLOOR,
        BindingConstraint.LLM_REJECTED,
        BindingConstraint.REASONING_QUALITY,
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class IcarusConfig:
    """What Icarus lets pass.

    Parameters
    ----------
    batch : int, default=100
        Most signals claimed at once.
    max_age : timedelta, default=168 hours
        An older signal is stale.
    routine_filings : tuple of str
        Kinds of filings that come by the calendar; a headline that tells of no more than one is refused.
    universe : frozenset of str, optional
        Tickers that may be traded. When None those that the ticker map knows, and those of the shape of US tickers that have a
        price or were traded before.
    private_companies : tuple of str
        Names without a ticker, unless the ticker map has them.
    min_name_score : float, default=0.92
        Similarity from which a supplier is taken for a name in the ticker map.
    map_age : timedelta, default=15 minutes
        How long the ticker map is used before it is read again.
    mute_days, mute_min_seen, mute_min_days, mute_rejected : int, int, int, float, defaults 14, 10, 3 and 0.85
        A pattern is muted when, within so many trailing days, it was seen so often, on so many of them, and this share of it
        was rejected.

    Raises
    ------
    ConfigurationError
        If a number is out of its range.
    """

    batch: int = 100
    max_age: timedelta = timedelta(hours=168)
    routine_filings: tuple[str, ...] = (
        "10-K", "10-K405", "10-KSB", "10-KT", "10-Q", "10-QSB", "10-QT", "20-F", "40-F", "6-K", "11-K", "8-K/A", "DEF 14A",
        "DEFA14A", "DEFM14A", "PRE 14A", "Proxy statement", "Definitive proxy statement", "Preliminary proxy statement", "ARS",
        "NT 10-K", "NT 10-Q", "3", "4", "5", "144", "S-8", "424B2", "424B3", "424B5", "FWP", "13F-HR", "SC 13G", "SCHEDULE 13G",
    )  # fmt: skip
    universe: frozenset[str] | None = None
    private_companies: tuple[str, ...] = PRIVATE_COMPANIES
    min_name_score: float = 0.92
    map_age: timedelta = timedelta(minutes=15)
    mute_days: int = 14
    mute_min_seen: int = 10
    mute_min_days: int = 3
    mute_rejected: float = 0.85

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= 1000:
            raise ConfigurationError(f"`batch` must be in 1..1000, was {self.batch}.")
        if self.max_age <= timedelta(0) or self.map_age < timedelta(0):
            raise ConfigurationError("`max_age` must be positive and `map_age` not negative.")
        if not (0.0 < self.min_name_score <= 1.0 and 0.0 < self.mute_rejected <= 1.0):
            raise ConfigurationError("`min_name_score` and `mute_rejected` must be fractions above 0.")
        if min(self.mute_days, self.mute_min_seen, self.mute_min_days) < 1 or self.mute_min_days > self.mute_days:
            raise ConfigurationError(
                "`mute_days`, `mute_min_seen` and `mute_min_days` must be positive, the last at most the first, "
                f"were {self.mute_days}, {self.mute_min_seen} and {self.mute_min_days}."
            )


def lesson(status: PipelineStatus, constraint: BindingConstraint | None) -> bool | None:
    """Return whether a decision rejected its signal; None when it says nothing about it.

    A signal that went on to an order was not rejected. One that a gate refused for what it is was. One that died of the market,
    the book or the machinery, or in Icarus itself, teaches nothing: else what is muted would stay so for ever.
    """
    if status is not PipelineStatus.KILLED:
        return False
    return True if constraint in _ABOUT_THE_SIGNAL else None


def pattern_of(signal: RawSignal) -> str | None:
    """Return under which pattern a signal is learned: its category and the first headline word longer than three letters."""
    return _pattern(signal.headline, signal.category)


class Icarus:
    """Claim signals and pass those that are worth a look.

    Parameters
    ----------
    store : TradingStore
    config : IcarusConfig
    clock : Clock
    is_priced : callable, optional
        Takes a ticker and a time and returns whether anybody has a price of it; without it the shape of a ticker is enough.
    """

    def __init__(
        self,
        store: TradingStore,
        config: IcarusConfig,
        clock: Clock,
        is_priced: Callable[[str, datetime], bool] = lambda ticker, now: True,
    ) -> None:
        self._store, self._config, self._clock, self._is_priced = store, config, clock, is_priced
        self._routine = RoutineFilings(config.routine_filings)
        self._map: tuple[datetime, TickerMap] | None = None
        self._memory: _Memory | None = None

    def scan(self, worker: str) -> list[RawSignal]:
        """Claim the oldest open signals for a worker, for 15 minutes; nobody else gets them meanwhile."""
        return self._store.claim_signals(worker, self._config.batch)

    def judge(self, signal: RawSignal, now: datetime) -> RawSignal | Refusal:
        """Return the signal with its tickers, or why it is not worth a look.

        Parameters
        ----------
        signal : RawSignal
        now : datetime
            UTC. A signal published after it is refused: it cannot have been known.
        """
        age = now - signal.published_at
        if age < timedelta(0):
            return _refuse(BindingConstraint.STALE_SIGNAL, f"it is dated {-age} after now.")
        if age > self._config.max_age:
            hours, most = age / timedelta(hours=1), self._config.max_age / timedelta(hours=1)
            return _refuse(BindingConstraint.STALE_SIGNAL, f"it is {hours:.1f} hours old, at most {most:g} are allowed.")
        if signal.category is SignalCategory.NEUTRAL:
            return _refuse(BindingConstraint.OUT_OF_UNIVERSE, "it is neutral.")
        routine = self._routine.find(signal.headline)
        if routine is not None:
            return _refuse(BindingConstraint.OUT_OF_UNIVERSE, f"it is a routine filing: {routine}.")
        found = self._with_tickers(signal, now)
        pattern = pattern_of(signal)
        if isinstance(found, RawSignal) and pattern is not None and self._recall().is_muted(pattern, now.date()):
            return _refuse(BindingConstraint.MUTED_PATTERN, f"the pattern {pattern} was nearly always rejected of late.")
        return found

    def learn(self, signal: RawSignal, rejected: bool, now: datetime) -> None:
        """Remember what became of a signal; the same signal again on that day changes nothing.

        Notes
        -----
        Call it for decisions of which `lesson` says something, after they are stored; a new Icarus reads the same from there.
        """
        pattern = pattern_of(signal)
        if pattern is not None:
            self._recall().add(signal.signal_id, pattern, now.date(), rejected=rejected)

    def muted(self, now: datetime) -> list[str]:
        """Return the patterns that are muted now, in alphabetical order."""
        memory = self._recall()
        return [pattern for pattern in memory.patterns() if memory.is_muted(pattern, now.date())]

    def reset(self, operator: str, pattern: str | None = None) -> None:
        """Forget what was learned of a pattern, or of all when None, now and for good; the audit log keeps who did it."""
        subject = _EVERYTHING if pattern is None else pattern
        at = self._clock.now()
        self._store.append_audit(event_type=RESET_EVENT, actor=operator, subject=subject, payload={"at": at.isoformat()})
        self._memory = None

    def restart(self) -> None:
        """Read the ticker map and what was learned anew from the store, at the next signal."""
        self._map = self._memory = None

    def company_names(self, ticker: str) -> tuple[str, ...]:
        """Return the names of the company behind a ticker, as the ticker map has them."""
        return self._tickers().names_of(ticker)

    def _with_tickers(self, signal: RawSignal, now: datetime) -> RawSignal | Refusal:
        tickers: Sequence[str] = signal.affected_tickers
        if not tickers:
            if signal.supplier is None:
                return _refuse(BindingConstraint.OUT_OF_UNIVERSE, "it names neither a ticker nor a company.")
            resolved = self._tickers().resolve(signal.supplier)
            if resolved.ticker is None:
                return _refuse(BindingConstraint.OUT_OF_UNIVERSE, f"{resolved.reason}.")
            tickers = (resolved.ticker,)
        universe = self._config.universe
        if universe is None:
            known = self._known(tickers, now)
            why = "neither the ticker map nor the prices know"
        else:
            known = tuple(ticker for ticker in tickers if ticker in universe)
            why = "not in the universe:"
        if not known:
            return _refuse(BindingConstraint.OUT_OF_UNIVERSE, f"{why} {', '.join(tickers)}."[:_MOST_REASON])
        return signal if known == signal.affected_tickers else dataclasses.replace(signal, affected_tickers=known)

    def _known(self, tickers: Sequence[str], now: datetime) -> tuple[str, ...]:
        """Return the tickers from the first that somebody knows on; prices are dear to ask for, so none is for the others."""
        shaped = [ticker for ticker in tickers if ticker in self._tickers() or _US_TICKER.fullmatch(ticker)]
        for at, ticker in enumerate(shaped[:_MOST_ASKED]):
            if ticker in self._tickers() or self._is_priced(ticker, now) or self._was_traded(ticker):
                return tuple(shaped[at:])
        return ()

    def _was_traded(self, ticker: str) -> bool:
        """Say whether there is a trade of it: what is held can be sold while nobody knows its price."""
        return bool(self._store.gateway.select("trades", columns=("trade_id",), where={"symbol": ticker}, limit=1))

    def _tickers(self) -> TickerMap:
        now = self._clock.now()
        if self._map is None or not timedelta(0) <= now - self._map[0] < self._config.map_age:
            stored = tuple(self._store.list_ticker_mappings())
            self._map = (now, _build_map(stored, self._config.private_companies, self._config.min_name_score))
        return self._map[1]

    def _recall(self) -> _Memory:
        if self._memory is None:
            self._memory = self._rebuild()
        return self._memory

    def _rebuild(self) -> _Memory:
        """Read from the store what was decided of late, less what an operator had forgotten."""
        gateway, config = self._store.gateway, self._config
        since = self._clock.now() - timedelta(days=config.mute_days)
        decisions = gateway.select(
            "decision_traces",
            columns=("signal_id", "decided_at", "status", "binding_constraint"),
            where={"decided_at": ("gte", since)},
            order=("decided_at", "trace_id"),
        )
        lessons = {
            str(row["signal_id"]): (row["decided_at"].astimezone(UTC), learned)
            for row in decisions
            if (learned := _learned(row)) is not None
        }
        forgotten = self._forgotten()
        memory = _Memory(config)
        ids = iter(lessons)
        while chunk := list(itertools.islice(ids, _AT_ONCE)):
            rows = gateway.select(
                "signals",
                columns=("signal_id", "headline", "category"),
                where={"signal_id": ("in", [UUID(signal_id) for signal_id in chunk])},
            )
            for row in rows:
                signal_id = str(row["signal_id"])
                at, rejected = lessons[signal_id]
                pattern = _pattern(row["headline"], SignalCategory(row["category"]))
                if pattern is not None and at > max(forgotten[pattern], forgotten[_EVERYTHING]):
                    memory.add(signal_id, pattern, at.date(), rejected=rejected)
        return memory

    def _forgotten(self) -> defaultdict[str, datetime]:
        """Return when each pattern was last forgotten."""
        times: defaultdict[str, datetime] = defaultdict(lambda: datetime.min.replace(tzinfo=UTC))
        rows = self._store.gateway.select(
            "audit_log", columns=("subject", "payload"), where={"event_type": RESET_EVENT}, order=("entry_id",)
        )
        for row in rows:
            times[row["subject"]] = max(times[row["subject"]], datetime.fromisoformat(row["payload"]["at"]))
        return times


class _Memory:
    """What was seen and rejected, by day and pattern; of no more days than are asked about."""

    def __init__(self, config: IcarusConfig) -> None:
        self._config = config
        self._counts: dict[date, dict[str, _Count]] = {}
        self._known: dict[date, set[str]] = {}

    def add(self, signal_id: str, pattern: str, day: date, *, rejected: bool) -> None:
        known = self._known.setdefault(day, set())
        if signal_id in known:
            return
        known.add(signal_id)
        count = self._counts.setdefault(day, {}).setdefault(pattern, _Count())
        count.seen += 1
        count.rejected += rejected
        for old in [other for other in self._known if other <= day - timedelta(days=self._config.mute_days)]:
            del self._known[old]
            self._counts.pop(old, None)

    def is_muted(self, pattern: str, today: date) -> bool:
        days = self._days(pattern, today)
        seen = sum(count.seen for count in days)
        if seen < self._config.mute_min_seen or len(days) < self._config.mute_min_days:
            return False
        return sum(count.rejected for count in days) >= self._config.mute_rejected * seen

    def patterns(self) -> list[str]:
        return sorted({pattern for day in self._counts.values() for pattern in day})

    def _days(self, pattern: str, today: date) -> list[_Count]:
        first = today - timedelta(days=self._config.mute_days - 1)
        return [day[pattern] for at, day in self._counts.items() if first <= at <= today and pattern in day]


@dataclass(slots=True)
class _Count:
    seen: int = 0
    rejected: int = 0


@lru_cache(maxsize=2)
def _build_map(stored: tuple[TickerMapping, ...], private: tuple[str, ...], min_score: float) -> TickerMap:
    """Return the map of what the store and the companies that ship say; that of the same is not built again."""
    return TickerMap(with_companies(stored), private, min_score=min_score)


def _learned(row: Row) -> bool | None:
    constraint = row["binding_constraint"]
    return lesson(PipelineStatus(row["status"]), None if constraint is None else BindingConstraint(constraint))


def _pattern(headline: str, category: SignalCategory) -> str | None:
    word = next((word for word in _WORD.findall(headline) if len(word) > 3), None)
    return None if word is None else f"{category.value}:{word.lower()}"


def _refuse(constraint: BindingConstraint, reason: str) -> Refusal:
    return Refusal(stage=Stage.ICARUS, constraint=constraint, reason=reason)
