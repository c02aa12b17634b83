"""What the trading store gives and takes, and the enumerations of its columns that are not in the agents' contract.

Promises, like the messages of :mod:`core.types`, that a record that exists is valid: a naive time, an unknown enum or a
number that is not finite is refused when the record is built, and the error names the field.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, TypeVar
from uuid import UUID

from core.errors import DataError
from core.message import Message, Rule, refuse
from core.store.gateway import Row
from core.types import (
    AgentHealth,
    BindingConstraint,
    Count,
    Fraction,
    Identifier,
    MarketRegime,
    NotNegative,
    PipelineStatus,
    Positive,
    Return,
    Side,
    SignalCategory,
    Stage,
    Ticker,
    VixBand,
)

MAX_JSON_BYTES = 1_048_576
"""Most a JSON column holds."""


class Exchange(StrEnum):
    """Where a ticker is listed; mirrors the SQL type `exchange`."""

    XETRA = "XETRA"
    NYSE = "NYSE"
    NASDAQ = "NASDAQ"


class BreakerState(StrEnum):
    """State of a circuit breaker; mirrors the SQL type `breaker_state`."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class SeniorityTier(StrEnum):
    """Tier of an agent, lowest first; mirrors the SQL type `seniority_tier`."""

    TRAINEE = "trainee"
    JUNIOR = "junior"
    INTERMEDIATE = "intermediate"
    SENIOR = "senior"


class MilestoneStage(StrEnum):
    """Stage of the equity, smallest first; mirrors the SQL type `milestone_stage`."""

    SEED = "seed"
    SPRINT = "sprint"
    SCALE = "scale"
    SERIOUS = "serious"
    EMPIRE = "empire"


class KnowledgeCollection(StrEnum):
    """Which shelf a document stands on; mirrors the SQL type `knowledge_collection`."""

    KNOWLEDGE = "knowledge"
    DECISIONS = "decisions"
    LITERATURE = "literature"


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _is_context_key(text: str) -> bool:
    parts = text.split("|")
    kinds: tuple[type[StrEnum], ...] = (SignalCategory, MarketRegime, VixBand)
    return len(parts) == 3 and all(part in list(kind) for part, kind in zip(parts, kinds, strict=True))


Uuid = Annotated[str, Rule(expected="a UUID in lower case with dashes", holds=_is_uuid)]
ContextKey = Annotated[str, Rule(expected="`category|regime|vix_band` of known values", holds=_is_context_key)]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredSignal(Message):
    """Where a signal is kept, and whether it was new."""

    signal_id: Uuid
    inserted: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class NewTrade(Message):
    """A trade at the time it is decided, before its fill.

    Parameters
    ----------
    signal_id : str, optional
        UUID of the signal that led to it.
    context_key : str
        ``category|regime|vix_band``; the store derives the three from it.
    confidence, position_pct : float
        Fractions.
    client_order_id : str
        Our own identity of the order; a second trade with it is a conflict.
    stop_loss, take_profit : float, optional
        Prices.
    recorded_at : datetime
        UTC.
    """

    signal_id: Uuid | None = None
    context_key: ContextKey
    confidence: Fraction
    position_pct: Fraction
    is_exploration: bool = False
    symbol: Ticker
    side: Side
    client_order_id: Identifier
    stop_loss: Positive | None = None
    take_profit: Positive | None = None
    paper_trading: bool = True
    recorded_at: datetime

    def _check(self) -> None:
        if self.is_exploration and not self.paper_trading:
            raise refuse(self, "is_exploration", "false outside paper trading", self.is_exploration)


@dataclass(frozen=True, kw_only=True, slots=True)
class TradeEntry(Message):
    """What the broker filled of a trade so far: shares, mean price, commission in currency."""

    client_order_id: Identifier
    order_id: Identifier | None = None
    qty: Positive
    fill_price: Positive
    commission: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TradeExit(Message):
    """How a trade ended, at a trusted price; `commission` is that of the exit, in currency."""

    trade_id: Uuid
    exit_price: Positive
    exit_reason: Identifier
    closed_at: datetime
    commission: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Trade(NewTrade):
    """A trade as stored.

    Parameters
    ----------
    qty : float
        Shares filled, 0 while there is no fill.
    commission : float
        Of entry and exit, in currency.
    pnl_pct, net_pnl_pct : float, optional
        Return before and after commission, as fractions; None while open.
    hit : bool, optional
        Whether it gained after cost; None while open.
    voided : bool
        Counts in no statistic.
    """

    trade_id: Uuid
    category: SignalCategory
    regime: MarketRegime
    vix_band: VixBand
    order_id: Identifier | None = None
    qty: NotNegative = 0.0
    fill_price: Positive | None = None
    commission: float = 0.0
    exit_price: Positive | None = None
    pnl_pct: float | None = None
    net_pnl_pct: float | None = None
    hit: bool | None = None
    closed_at: datetime | None = None
    exit_reason: str | None = None
    voided: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class HitRate(Message):
    """What is known of one context; returns are fractions, those of wins and losses after cost, losses negative or zero."""

    context_key: ContextKey
    category: SignalCategory
    regime: MarketRegime
    vix_band: VixBand
    total_trades: Count
    closed_trades: Count
    hit_rate: Fraction | None
    avg_pnl_pct: float | None
    avg_win_pct: float | None
    avg_loss_pct: float | None
    payoff_ratio: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderIntent(Message):
    """An order as it is written down before the broker is asked."""

    client_order_id: Identifier
    signal_id: Uuid | None = None
    symbol: Ticker
    side: Side
    qty: Positive
    status: PipelineStatus = PipelineStatus.PENDING


@dataclass(frozen=True, kw_only=True, slots=True)
class Fill(Message):
    """One execution as the broker reported it."""

    exec_id: Identifier
    client_order_id: Identifier
    qty: Positive
    price: Positive
    commission: float = 0.0
    filled_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class FillState(Message):
    """What an order has come to with a fill; `recorded` is false when the fill was known."""

    recorded: bool
    filled_qty: Positive
    average_price: Positive
    total_commission: float
    status: PipelineStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class Position(Message):
    """An open position; `unrealized_pnl` is in currency, None while the price is unknown."""

    symbol: Ticker
    qty: float
    avg_cost: Positive
    stop_loss: Positive | None = None
    take_profit: Positive | None = None
    unrealized_pnl: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Book(Message):
    """Equity, cash and every open position at one time, in currency.

    `moved` is all money that came from outside so far, the opening balance included and what was paid out taken off; it is in
    the equity, and is no gain. None says nothing new of it.
    """

    recorded_at: datetime
    equity: NotNegative
    cash: float
    moved: float | None = None
    positions: tuple[Position, ...] = ()

    def _check(self) -> None:
        symbols = [position.symbol for position in self.positions]
        if len(set(symbols)) != len(symbols):
            raise refuse(self, "positions", "one a symbol", symbols)


@dataclass(frozen=True, kw_only=True, slots=True)
class PortfolioState(Message):
    """The book as last recorded; `drawdown_pct` is a fraction of the peak.

    The equity is counted in `units`, as funds do: money paid in buys units, money paid out sells some, and the peak is that of
    one unit times the units there are now. An account begins with one.
    """

    equity: NotNegative
    peak_equity: Positive
    drawdown_pct: Fraction
    cash: float
    open_positions: Count
    units: Positive = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Breaker(Message):
    """A circuit breaker; `opened_at` is given exactly when it is not closed."""

    agent_name: Identifier
    state: BreakerState
    failures: Count = 0
    opened_at: datetime | None = None

    def _check(self) -> None:
        if (self.state is BreakerState.CLOSED) != (self.opened_at is None):
            raise refuse(self, "opened_at", "given exactly when the breaker is not closed", self.opened_at)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seniority(Message):
    """Where an agent stands on the ladder, and the figures it was judged by."""

    agent_name: Identifier
    tier: SeniorityTier = SeniorityTier.TRAINEE
    level: Annotated[int, Rule(expected="in 1..10", holds=lambda number: 1 <= number <= 10)] = 1
    wins: Count = 0
    criteria: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    cleared: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemSeniority(Message):
    """The system's seniority: that of its lowest agent."""

    tier: SeniorityTier
    level: Count
    lowest_agent: Identifier
    n_agents: Count
    all_cleared: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpEntry(Message):
    """Experience for one agent from one event; the same event is minted once."""

    agent_name: Identifier
    event_type: Identifier
    source_ref: Identifier
    exp: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentExp(Message):
    """Experience of an agent and the level it reaches."""

    agent_name: Identifier
    exp: Count
    level: Count
    n_entries: Count


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemExp(Message):
    """Experience of all agents together."""

    total_exp: Count
    lowest_level: Count | None
    highest_level: Count | None
    n_agents: Count


@dataclass(frozen=True, kw_only=True, slots=True)
class MilestoneState(Message):
    """Vault and crossed stages; `milestone_origin` is the equity at the last crossed stage."""

    milestone_origin: NotNegative
    vault_balance: NotNegative = 0.0
    total_vaulted: NotNegative = 0.0
    crossed_stages: tuple[MilestoneStage, ...] = ()

    def _check(self) -> None:
        if self.vault_balance > self.total_vaulted:
            raise refuse(self, "vault_balance", "at most `total_vaulted`", self.vault_balance)


@dataclass(frozen=True, kw_only=True, slots=True)
class TickerMapping(Message):
    """Under which ticker a supplier trades on an exchange."""

    supplier_name: Identifier
    ticker: Ticker
    exchange: Exchange


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditEntry(Message):
    """An entry of the audit log as stored; note `entry_id` and `row_hash` elsewhere to prove later that nothing was cut off."""

    entry_id: Count
    event_type: Identifier
    actor: Identifier
    subject: Identifier
    row_hash: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditProblem(Message):
    """An entry of the audit log that does not fit."""

    entry_id: Count
    problem: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoryWinRate(Message):
    """Closed trades of one category."""

    category: SignalCategory
    closed_trades: Count
    wins: Count
    win_rate: Fraction
    avg_pnl_pct: float


@dataclass(frozen=True, kw_only=True, slots=True)
class MonthlyReturn(Message):
    """Equity at the end of a month, ``YYYY-MM-DD`` of its first day, and the return since the month before."""

    month: str
    end_equity: NotNegative
    return_pct: Return | None


@dataclass(frozen=True, kw_only=True, slots=True)
class KillCount(Message):
    """How many decisions ended at a stage for a reason, and their share of all decisions."""

    killed_at_stage: Stage
    binding_constraint: BindingConstraint
    n: Count
    share: Fraction


@dataclass(frozen=True, kw_only=True, slots=True)
class EquityPoint(Message):
    """Equity, its peak so far and the fraction lost from it; `unit_value` runs like the equity without money paid in or out."""

    recorded_at: datetime
    equity: NotNegative
    peak: Positive
    drawdown_pct: Fraction
    unit_value: NotNegative


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentSummary(Message):
    """The newest health report of an agent, with how many there are and its breaker."""

    agent_name: Identifier
    status: AgentHealth
    message: str
    error_count: Count
    checked_at: datetime
    n_reports: Count
    n_failed: Count
    breaker: BreakerState | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SeniorityLine(Message):
    """One agent in the seniority report; `wins_to_next` is None at the top."""

    agent_name: Identifier
    tier: SeniorityTier
    level: Count
    wins: Count
    wins_to_next: Count | None
    cleared: bool
    exp: Count
    exp_level: Count


@dataclass(frozen=True, kw_only=True, slots=True)
class Promotion(Message):
    """A move on the ladder; `promoted` is false for a step down."""

    agent_name: Identifier
    from_tier: SeniorityTier
    from_level: Count
    to_tier: SeniorityTier
    to_level: Count
    promoted: bool
    wins: Count
    changed_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class RMultipleBucket(Message):
    """Closed trades that gained from `bucket` to below `bucket + 1` times the risk taken."""

    bucket: int
    n: Count
    avg_r: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PerformanceStats(Message):
    """All trades that are not voided; returns are fractions, None where there is no trade to average."""

    total_trades: Count
    open_trades: Count
    closed_trades: Count
    voided_trades: Count
    wins: Count
    win_rate: Fraction | None
    avg_pnl_pct: float | None
    avg_net_pnl_pct: float | None
    avg_win_pct: float | None
    avg_loss_pct: float | None
    profit_factor: float | None
    best_pnl_pct: float | None
    worst_pnl_pct: float | None
    total_commission: float
    max_drawdown_pct: float | None


_M = TypeVar("_M", bound=Message)


def read_message(cls: type[_M], row: Row) -> _M:
    """Build a message from a row; columns it does not name are left out.

    Raises
    ------
    DataError
        If the row holds what the message does not allow.
    """
    names = _field_names(cls)
    return cls.from_dict({name: _plain(value) for name, value in row.items() if name in names})


def _field_names(cls: Any) -> frozenset[str]:
    # Any in between: to mypy the class of a message is not hashable, which a cache asks for.
    return _known_fields(cls)


@functools.cache
def _known_fields(cls: Any) -> frozenset[str]:
    return frozenset(item.name for item in fields(cls))


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return value


def check_uuid(name: str, value: str) -> str:
    """Return a UUID as it came.

    Raises
    ------
    DataError
        If it is not one.
    """
    if not _is_uuid(value):
        raise DataError(f"`{name}` must be a UUID in lower case with dashes, was {value!r}.")
    return value


def check_json(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping that JSON can carry and a column can hold.

    Raises
    ------
    DataError
        If it holds something else, or is larger than `MAX_JSON_BYTES`.
    """
    try:
        size = len(json.dumps(dict(value), allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError) as error:
        raise DataError(f"`{name}` must be what JSON can carry: {error}.") from error
    if size > MAX_JSON_BYTES:
        raise DataError(f"`{name}` must be at most {MAX_JSON_BYTES} bytes of JSON, was {size}: store a file and name it here.")
    return dict(value)
