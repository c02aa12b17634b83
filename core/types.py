"""The contract between the trading agents: the only words in which they talk.

Hides nothing and decides nothing. Promises that a message that exists is valid: its times are UTC, its scores are fractions,
its enums are enums, and its parts do not contradict each other. Adding a field here is the only way to change the contract.

============== ========= ==============================================
message        from      says
============== ========= ==============================================
RawSignal      Icarus    something happened to these tickers
FilteredSignal Hades     it may be traded, and how clean it is
MacroContext   Artemis   the market it meets
SizedSignal    Pythia    how sure we are, and how much to stake
TradeResult    Ares      what the broker did
DecisionTrace  ZEUS      everything above, and why it ended where it did
HealthReport   Watchdog  how an agent is doing
Refusal        any stage what bound, and why it goes no further
============== ========= ==============================================

Names that end in ``_pct`` come from the data model and hold fractions: 0.02 is two percent.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated

from core.errors import DataError
from core.message import Message, Rule, refuse

Identifier = Annotated[str, Rule(expected="text that is not blank", holds=lambda text: bool(text.strip()))]
Ticker = Annotated[
    str,
    Rule(
        expected="made of upper-case tickers without spaces",
        holds=lambda text: text == text.upper() and text.split() == [text],
    ),
]
Fraction = Annotated[float, Rule(expected="a fraction in 0..1", holds=lambda number: 0.0 <= number <= 1.0)]
Positive = Annotated[float, Rule(expected="greater than 0", holds=lambda number: number > 0.0)]
NotNegative = Annotated[float, Rule(expected="0 or greater", holds=lambda number: number >= 0.0)]
Return = Annotated[float, Rule(expected="a return of -1 (all is lost) or greater", holds=lambda number: number >= -1.0)]
Count = Annotated[int, Rule(expected="0 or greater", holds=lambda number: number >= 0)]


class SignalCategory(StrEnum):
    """What kind of thing happened."""

    SUPPLIER_DISRUPTION = "supplier_disruption"
    POSITIVE_NEWS = "positive_news"
    EARNINGS_SURPRISE = "earnings_surprise"
    REGULATORY_ACTION = "regulatory_action"
    MACRO_SHIFT = "macro_shift"
    NEUTRAL = "neutral"


class Severity(StrEnum):
    """How much it matters, ordered: ``Severity.LOW < Severity.CRITICAL``."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """Place in the order, 0 for low to 3 for critical."""
        return list(Severity).index(self)

    @property
    def lowered(self) -> Severity:
        """One level less; low stays low."""
        return list(Severity)[max(0, self.rank - 1)]

    def __lt__(self, other: object) -> bool:
        return self.rank < _rank(other)

    def __le__(self, other: object) -> bool:
        return self.rank <= _rank(other)

    def __gt__(self, other: object) -> bool:
        return self.rank > _rank(other)

    def __ge__(self, other: object) -> bool:
        return self.rank >= _rank(other)


def _rank(other: object) -> int:
    # Returning NotImplemented would let Python fall back to comparing the letters: "critical" < "low".
    if not isinstance(other, Severity):
        raise TypeError(f"a Severity can only be ordered against a Severity, was {other!r}; convert it with `Severity(...)`.")
    return other.rank


class MarketRegime(StrEnum):
    """The market's mood; unknown when there is no data to tell."""

    BULL = "bull"
    BEAR = "bear"
    SIDEWAYS = "sideways"
    UNKNOWN = "unknown"


class VixBand(StrEnum):
    """Bands of the VIX in index points: below 15, 25, 35, and the rest."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    EXTREME = "extreme"


class PipelineStatus(StrEnum):
    """Where a signal, or the order it led to, stands."""

    PENDING = "pending"
    KILLED = "killed"
    SUBMITTED = "submitted"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CLOSED = "closed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


class AgentHealth(StrEnum):
    """How an agent is doing."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    FAILED = "failed"


class Side(StrEnum):
    """Direction of an order."""

    BUY = "buy"
    SELL = "sell"


class Stage(StrEnum):
    """The stages of the pipeline, in their order."""

    HERMES = "hermes"
    ICARUS = "icarus"
    HADES = "hades"
    ARTEMIS = "artemis"
    PYTHIA = "pythia"
    LIMITS = "limits"
    ZEUS = "zeus"
    ARES = "ares"


class BindingConstraint(StrEnum):
    """What bound a decision."""

    OUT_OF_UNIVERSE = "out_of_universe"
    STALE_SIGNAL = "stale_signal"
    MUTED_PATTERN = "muted_pattern"
    SANCTIONS = "sanctions"
    SANCTIONS_LIST_MISSING = "sanctions_list_missing"
    ESG_BLOCK = "esg_block"
    MACRO_UNAVAILABLE = "macro_unavailable"
    VIX_EXTREME = "vix_extreme"
    BEAR_REGIME = "bear_regime"
    TIER_BLOCKED = "tier_blocked"
    COLD_START_LOW_CONFIDENCE = "cold_start_low_confidence"
    CONFIDENCE_BELOW_FLOOR = "confidence_below_floor"
    COOLDOWN = "cooldown"
    TICKER_CAP = "ticker_cap"
    SECTOR_CAP = "sector_cap"
    GLOBAL_CAP = "global_cap"
    BUDGET = "budget"
    HALTED = "halted"
    LLM_UNAVAILABLE = "llm_unavailable"
    REASONING_QUALITY = "reasoning_quality"
    LLM_REJECTED = "llm_rejected"
    SENIORITY_CAP = "seniority_cap"
    PRICE_UNAVAILABLE = "price_unavailable"
    SIZE_BELOW_ONE_SHARE = "size_below_one_share"
    BROKER_UNAVAILABLE = "broker_unavailable"
    UNKNOWN_EQUITY = "unknown_equity"


def vix_band(vix: float) -> VixBand:
    """Return the band of a VIX level: low < 15, medium < 25, high < 35, extreme from 35.

    Parameters
    ----------
    vix : float
        Level of the VIX in index points.

    Raises
    ------
    DataError
        If `vix` is not a positive, finite number.
    """
    if not (math.isfinite(vix) and vix > 0.0):
        raise DataError(f"`vix` must be a positive number of index points, was {vix!r}.")
    if vix < 15.0:
        return VixBand.LOW
    if vix < 25.0:
        return VixBand.MEDIUM
    return VixBand.HIGH if vix < 35.0 else VixBand.EXTREME


def context_key(category: SignalCategory, regime: MarketRegime, band: VixBand) -> str:
    """Return ``{category}|{regime}|{vix_band}``, the key under which hit rates are learned."""
    return f"{category.value}|{regime.value}|{band.value}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RawSignal(Message):
    """Something that happened, as Icarus read it.

    Parameters
    ----------
    signal_id : str
    headline : str
    published_at : datetime
        When the source published it, UTC.
    category : SignalCategory
    severity : Severity
        As read; downstream uses the effective severity of `FilteredSignal`.
    affected_tickers : tuple of str
        Upper-case, without repetition; empty when no ticker is known.
    supplier : str, optional
        Name of the company the item is about, as written in the source.
    summary : str, optional
    source_url : str, optional

    Raises
    ------
    DataError
        If a value is not allowed; the text names the field.
    """

    signal_id: Identifier
    headline: Identifier
    published_at: datetime
    category: SignalCategory
    severity: Severity
    affected_tickers: tuple[Ticker, ...]
    supplier: Identifier | None = None
    summary: str = ""
    source_url: Identifier | None = None

    def _check(self) -> None:
        if len(set(self.affected_tickers)) != len(self.affected_tickers):
            raise refuse(self, "affected_tickers", "without repetition", self.affected_tickers)


class _SignalView(Message):
    """What every wrapper of a signal shows of it, so that no agent reaches into `original`."""

    __slots__ = ()

    original: RawSignal | FilteredSignal

    @property
    def signal_id(self) -> str:
        """Identity of the signal."""
        return self.original.signal_id

    @property
    def source_url(self) -> str | None:
        """Where it was published."""
        return self.original.source_url

    @property
    def headline(self) -> str:
        """Headline as published."""
        return self.original.headline

    @property
    def summary(self) -> str:
        """Summary as published."""
        return self.original.summary

    @property
    def published_at(self) -> datetime:
        """When the source published it, UTC."""
        return self.original.published_at

    @property
    def category(self) -> SignalCategory:
        """What kind of thing happened."""
        return self.original.category

    @property
    def severity(self) -> Severity:
        """Effective severity, after Hades."""
        return self.original.severity

    @property
    def affected_tickers(self) -> tuple[str, ...]:
        """Upper-case tickers."""
        return self.original.affected_tickers

    @property
    def supplier(self) -> str | None:
        """Company the item is about."""
        return self.original.supplier


@dataclass(frozen=True, kw_only=True, slots=True)
class FilteredSignal(_SignalView):
    """A signal that Hades has screened.

    Parameters
    ----------
    original : RawSignal
        What was screened; read it through the properties.
    compliance_score : float
        1 when clean, as a fraction.
    esg_flag : bool, default=False
        An ESG term was found.
    ofac_flag : bool, default=False
        A name matched a sanctions list.
    downgraded : bool, default=False
        A name nearly matched; kept for review.
    notes : tuple of str, default=()

    Raises
    ------
    DataError
        If a value is not allowed; the text names the field.

    Notes
    -----
    A downgrade, an ESG flag, or both lower the effective `severity` by one level; `original.severity` stays as read.
    """

    original: RawSignal
    compliance_score: Fraction
    esg_flag: bool = False
    ofac_flag: bool = False
    downgraded: bool = False
    notes: tuple[str, ...] = ()

    @property
    def severity(self) -> Severity:
        """Effective severity: one level lower after a downgrade or an ESG flag."""
        read = self.original.severity
        return read.lowered if self.downgraded or self.esg_flag else read


@dataclass(frozen=True, kw_only=True, slots=True)
class MacroContext(Message):
    """The market as Artemis sees it.

    Parameters
    ----------
    as_of : datetime
        Time of the newest figure in it, UTC.
    regime : MarketRegime
    vix : float, optional
        Index points; None when there is no data.
    sp500_1m_return : float, optional
        Return of the S&P 500 over one month, as a fraction.
    sector_momentum : mapping of str to float
        Return by sector fund (XLK ...), as fractions.
    suppress : bool, default=False
        Nothing may be traded now.
    suppress_reason : str, optional
        Given exactly when `suppress` is true.

    Raises
    ------
    DataError
        If a value is not allowed; if an unknown regime does not suppress, or a known one comes without a VIX.
    """

    as_of: datetime
    regime: MarketRegime
    vix: Positive | None = None
    sp500_1m_return: Return | None = None
    sector_momentum: Mapping[Ticker, Return] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    suppress: bool = False
    suppress_reason: Identifier | None = None

    def _check(self) -> None:
        if self.suppress != (self.suppress_reason is not None):
            raise refuse(self, "suppress_reason", "given exactly when `suppress` is true", self.suppress_reason)
        if self.regime is MarketRegime.UNKNOWN and not self.suppress:
            raise refuse(self, "suppress", "true in an unknown regime", self.suppress)
        if self.regime is not MarketRegime.UNKNOWN and self.vix is None:
            raise refuse(self, "vix", "given when the regime is known", self.vix)

    @property
    def vix_band(self) -> VixBand | None:
        """Band of the VIX; None when there is no data."""
        return None if self.vix is None else vix_band(self.vix)


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal(Message):
    """A stage's no, which ends the way of a signal.

    Parameters
    ----------
    stage : Stage
    constraint : BindingConstraint
    reason : str
        In words, with the figures that decided.

    Raises
    ------
    DataError
        If a value is not allowed; the text names the field.
    """

    stage: Stage
    constraint: BindingConstraint
    reason: Identifier


@dataclass(frozen=True, kw_only=True, slots=True)
class SizedSignal(_SignalView):
    """A signal with the confidence and the size that Pythia gave it.

    Parameters
    ----------
    original : FilteredSignal
        What was sized; read it through the properties.
    macro : MacroContext
    confidence : float
        Shrunk probability of a hit.
    position_size_pct : float
        Share of equity to stake, as a fraction; 0 exactly when `skip` is true.
    skip : bool, default=False
        Pythia refuses.
    skip_reason : str, optional
        Given exactly when `skip` is true.
    is_exploration : bool, default=False
        Taken in paper trading to learn, not because the record supports it.

    Raises
    ------
    DataError
        If a value is not allowed; the text names the field.
    """

    original: FilteredSignal
    macro: MacroContext
    confidence: Fraction
    position_size_pct: Fraction
    skip: bool = False
    skip_reason: Identifier | None = None
    is_exploration: bool = False

    def _check(self) -> None:
        if self.skip != (self.skip_reason is not None):
            raise refuse(self, "skip_reason", "given exactly when `skip` is true", self.skip_reason)
        if self.skip != (self.position_size_pct == 0.0):
            raise refuse(self, "position_size_pct", "0 exactly when `skip` is true", self.position_size_pct)

    @property
    def context_key(self) -> str | None:
        """Key under which its hit rate is learned; None when the VIX is not known."""
        band = self.macro.vix_band
        return None if band is None else context_key(self.category, self.macro.regime, band)

    @property
    def compliance_score(self) -> float:
        """1 when clean, as a fraction."""
        return self.original.compliance_score

    @property
    def esg_flag(self) -> bool:
        """Whether an ESG term was found."""
        return self.original.esg_flag

    @property
    def ofac_flag(self) -> bool:
        """Whether a name matched a sanctions list."""
        return self.original.ofac_flag

    @property
    def downgraded(self) -> bool:
        """Whether a name nearly matched a sanctions list."""
        return self.original.downgraded

    @property
    def notes(self) -> tuple[str, ...]:
        """What Hades wrote down."""
        return self.original.notes


_ORDERED = frozenset(PipelineStatus) - {PipelineStatus.PENDING, PipelineStatus.KILLED}
_WITH_FILL = frozenset({PipelineStatus.PARTIALLY_FILLED, PipelineStatus.FILLED, PipelineStatus.CLOSED})
_WITHOUT_FILL = frozenset({PipelineStatus.SUBMITTED, PipelineStatus.REJECTED})
_WITHOUT_BROKER_ID = frozenset({PipelineStatus.REJECTED, PipelineStatus.UNKNOWN})


@dataclass(frozen=True, kw_only=True, slots=True)
class TradeResult(Message):
    """What became of an order.

    Parameters
    ----------
    client_order_id : str
        Our own identity of the order, derived from the decision.
    order_id : str, optional
        The broker's identity; may be absent only when the order was rejected or its outcome is unknown.
    symbol : str
    side : Side
    status : PipelineStatus
        Any but pending and killed, which are not states of an order.
    qty : float
        Shares filled so far, 0 while there is no fill.
    fill_price : float, optional
        Mean price of the fills in the symbol's currency; given exactly when `qty` is above 0.
    stop_loss_price, take_profit_price : float, optional
        Prices of the exits of a bracket.
    pnl_pct : float, optional
        Gross return of the closed position, as a fraction; given exactly when the status is closed.

    Raises
    ------
    DataError
        If a value is not allowed; if a fill, an identity or an outcome does not go with the status; if the stop of a buy is
        not below its take profit, or that of a sell not above.
    """

    client_order_id: Identifier
    order_id: Identifier | None = None
    symbol: Ticker
    side: Side
    status: PipelineStatus
    qty: NotNegative = 0.0
    fill_price: Positive | None = None
    stop_loss_price: Positive | None = None
    take_profit_price: Positive | None = None
    pnl_pct: float | None = None

    def _check(self) -> None:
        if self.status not in _ORDERED:
            raise refuse(self, "status", "a state of an order (submitted, filled ...)", self.status.value)
        if self.order_id is None and self.status not in _WITHOUT_BROKER_ID:
            raise refuse(self, "order_id", f"given when the status is {self.status.value}", self.order_id)
        if self.status in _WITH_FILL and self.qty == 0.0:
            raise refuse(self, "qty", f"above 0 when the status is {self.status.value}", self.qty)
        if self.status in _WITHOUT_FILL and self.qty > 0.0:
            raise refuse(self, "qty", f"0 when the status is {self.status.value}", self.qty)
        if (self.qty > 0.0) != (self.fill_price is not None):
            raise refuse(self, "fill_price", "given exactly when `qty` is above 0", self.fill_price)
        if (self.status is PipelineStatus.CLOSED) != (self.pnl_pct is not None):
            raise refuse(self, "pnl_pct", "given exactly when the status is closed", self.pnl_pct)
        if self.stop_loss_price is not None and self.take_profit_price is not None:
            below = self.stop_loss_price < self.take_profit_price
            above = self.stop_loss_price > self.take_profit_price
            if not (below if self.side is Side.BUY else above):
                where = "below" if self.side is Side.BUY else "above"
                raise refuse(self, "stop_loss_price", f"{where} the take profit of a {self.side.value}", self.stop_loss_price)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageOutcome(Message):
    """What one stage decided.

    Parameters
    ----------
    stage : Stage
    passed : bool
        False when the stage killed the signal.
    note : str, default=""
        What it saw, for a person.
    """

    stage: Stage
    passed: bool
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecisionTrace(Message):
    """The full record of one signal's way through the pipeline.

    Parameters
    ----------
    trace_id : str
    signal_id : str
    symbol : str, optional
        The ticker that was judged; None when the signal died before one was chosen.
    decided_at : datetime
        UTC.
    status : PipelineStatus
    stages : tuple of StageOutcome
        One for each stage that was reached, in the order of `Stage`; only the last may have killed.
    killed_at_stage : Stage, optional
    kill_reason : str, optional
        In words. Given, like `killed_at_stage`, exactly when the status is killed.
    binding_constraint : BindingConstraint, optional
        What bound; always given for a killed signal, and for one whose size was cut.
    llm_reasoning : str, optional
        None in rule mode, or when no model was asked.
    confidence : float, optional
        Of the last stage that stated one.
    position_pct : float, optional
        Share of equity staked, as a fraction.
    order_id : str, optional
        The broker's; always given once filled.
    pnl_pct : float, optional
        Gross return, as a fraction; given exactly when the status is closed.
    otel_trace_id : str, optional
    timings : mapping of str to float
        Seconds by stage name.

    Raises
    ------
    DataError
        If a value is not allowed, or the outcome and the stages tell different stories.
    """

    trace_id: Identifier
    signal_id: Identifier
    symbol: Ticker | None = None
    decided_at: datetime
    status: PipelineStatus
    stages: tuple[StageOutcome, ...]
    killed_at_stage: Stage | None = None
    kill_reason: Identifier | None = None
    binding_constraint: BindingConstraint | None = None
    llm_reasoning: str | None = None
    confidence: Fraction | None = None
    position_pct: Fraction | None = None
    order_id: Identifier | None = None
    pnl_pct: float | None = None
    otel_trace_id: Identifier | None = None
    timings: Mapping[str, NotNegative] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    def _check(self) -> None:
        killed = self.status is PipelineStatus.KILLED
        if killed != (self.killed_at_stage is not None):
            raise refuse(self, "killed_at_stage", "given exactly when the status is killed", self.killed_at_stage)
        if killed != (self.kill_reason is not None):
            raise refuse(self, "kill_reason", "given exactly when the status is killed", self.kill_reason)
        if killed and self.binding_constraint is None:
            raise refuse(self, "binding_constraint", "given when the status is killed", self.binding_constraint)
        order = list(Stage)
        places = [order.index(outcome.stage) for outcome in self.stages]
        if any(later <= earlier for earlier, later in itertools.pairwise(places)):
            raise refuse(self, "stages", "in the order of the pipeline", [outcome.stage.value for outcome in self.stages])
        refusing = [outcome.stage for outcome in self.stages if not outcome.passed]
        if refusing != ([self.killed_at_stage] if killed else []) or (killed and self.stages[-1].passed):
            expected = f"passed, except {self.killed_at_stage.value} at the end" if self.killed_at_stage else "all passed"
            raise refuse(self, "stages", expected, [(item.stage.value, item.passed) for item in self.stages])
        if self.status in _WITH_FILL and self.order_id is None:
            raise refuse(self, "order_id", f"given when the status is {self.status.value}", self.order_id)
        if (self.status is PipelineStatus.CLOSED) != (self.pnl_pct is not None):
            raise refuse(self, "pnl_pct", "given exactly when the status is closed", self.pnl_pct)


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthReport(Message):
    """How an agent is doing, as the Watchdog saw it.

    Parameters
    ----------
    agent_name : str
    status : AgentHealth
    message : str
    error_count : int
        Errors since the agent started.
    checked_at : datetime
        UTC.

    Raises
    ------
    DataError
        If a value is not allowed; the text names the field.
    """

    agent_name: Identifier
    status: AgentHealth
    message: str = ""
    error_count: Count = 0
    checked_at: datetime
