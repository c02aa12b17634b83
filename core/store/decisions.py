"""DecisionLog: what a running pipeline writes at once, and what it asks when it starts.

Hides the batch function and the tables of halts, cash and settlements. Promises that a batch is one transaction, that a halt
outlives the process that ordered it and is ordered once, and that the book is what the fills make of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from core.message import Message, Rule
from core.store.gateway import Gateway, Row
from core.store.trading_records import Fill, MilestoneState, NewTrade, OrderIntent, Trade, TradeExit, check_json, read_message
from core.types import DecisionTrace, FilteredSignal, Identifier, PipelineStatus, RawSignal, Side, Ticker

MAX_HEADLINE = 2_000
MAX_SUMMARY = 20_000
"""Characters of a signal that the table of signals holds."""
DIRECT = "pipeline"
"""Source of a signal that was handed to the pipeline by its caller, not taken from the store."""
ALL = "all"
"""Scope of a halt that stops every new order."""
ANEW = "anew"
"""In the payload of an exit that was placed anew: the bracket it is of."""

Scope = Annotated[
    str, Rule(expected="`all`, or `symbol:` and a ticker", holds=lambda text: text == ALL or text.startswith("symbol:"))
]


def symbol_scope(symbol: str) -> str:
    """Return the scope of a halt that stops one symbol."""
    return f"symbol:{symbol}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Halt(Message):
    """A halt in force, or the last one of its scope when `resumed_at` is given."""

    scope: Scope
    reason: Identifier
    actor: Identifier
    halted_at: datetime
    resumed_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerLine(Message):
    """Shares of a symbol, and the money that its fills brought (negative for what they cost), after commission."""

    symbol: Ticker
    qty: float
    cash: float


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenOrder(Message):
    """An order that may still be filled, with what was written beside it."""

    client_order_id: Identifier
    signal_id: str | None = None
    symbol: Ticker
    side: Side
    qty: float
    status: PipelineStatus
    payload: Mapping[str, Any] = field(default_factory=dict, hash=False)
    created_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderStatus(Message):
    """What became of an order in the broker's words."""

    client_order_id: Identifier
    status: PipelineStatus
    order_id: Identifier | None = None


@dataclass(frozen=True, kw_only=True)
class Screened:
    """A screening to store: see `TradingStore.save_filtered_signal`."""

    signal: FilteredSignal
    killed: bool
    list_version: str | None
    matched_entry: str | None


@dataclass(frozen=True, kw_only=True)
class NewSignal:
    """A signal to store if it is not there; `raw_text` is what came where it could not be read."""

    signal: RawSignal
    source: str = DIRECT
    raw_text: str | None = None


@dataclass(kw_only=True)
class DecisionBatch:
    """What is to be written in one transaction."""

    signals: list[NewSignal] = field(default_factory=list)
    screened: list[Screened] = field(default_factory=list)
    trades: list[NewTrade] = field(default_factory=list)
    intents: list[tuple[OrderIntent, Mapping[str, Any]]] = field(default_factory=list)
    statuses: list[OrderStatus] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)
    traces: list[DecisionTrace] = field(default_factory=list)
    exits: list[TradeExit] = field(default_factory=list)
    audit: list[tuple[str, str, str, Mapping[str, Any]]] = field(default_factory=list)
    """Event type, actor, subject, payload."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not any(vars(self).values())


class DecisionLog:
    """Write decisions and read what a start needs.

    Parameters
    ----------
    gateway : Gateway
        Way to the database, as `service_role`.

    Raises
    ------
    StoreConflictError
        From `record`, if an order or a trade of the batch is there already; nothing of the batch is written then.
    StoreError
        From any method, when the database refused or cannot be reached.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def record(self, batch: DecisionBatch) -> None:
        """Write a batch, all or nothing."""
        if batch.is_empty:
            return
        payload = {
            "signals": [_signal(item) for item in batch.signals],
            "filtered": [_screened(item) for item in batch.screened],
            "intents": [{**intent.to_dict(), "payload": check_json("payload", note)} for intent, note in batch.intents],
            "trades": [trade.to_dict() for trade in batch.trades],
            "statuses": [status.to_dict() for status in batch.statuses],
            "fills": [fill.to_dict() for fill in batch.fills],
            "traces": [check_json("DecisionTrace", trace.to_dict()) for trace in batch.traces],
            "exits": [outcome.to_dict() for outcome in batch.exits],
            "audit": [
                {"event_type": kind, "actor": actor, "subject": subject, "payload": dict(note)}
                for kind, actor, subject, note in batch.audit
            ],
        }
        self.gateway.rpc("record_decisions", payload={name: part for name, part in payload.items() if part})

    def find_decided(self, signal_ids: Iterable[str]) -> set[str]:
        """Return which of these signals have a trace already."""
        ids = sorted(set(signal_ids))
        if not ids:
            return set()
        rows = self.gateway.select("decision_traces", columns=("signal_id",), where={"signal_id": ("in", ids)})
        return {str(row["signal_id"]) for row in rows}

    def find_traces(self, signal_ids: Sequence[str]) -> list[DecisionTrace]:
        """Return the traces of these signals, oldest first."""
        where = {"signal_id": ("in", sorted(set(signal_ids)))}
        rows = self.gateway.select("decision_traces", where=where, order=("decided_at", "trace_id")) if signal_ids else []
        return [read_message(DecisionTrace, row) for row in rows]

    def list_open_orders(self, *, decided_only: bool = False) -> list[OpenOrder]:
        """Return orders that may still be filled, oldest first; all, or without the exits that only watch over what is held."""
        rows = self.gateway.rpc("list_open_intents")
        return [read_message(OpenOrder, row) for row in rows if not decided_only or "order" in row["payload"]]

    def list_fills(self, client_order_ids: Sequence[str]) -> list[Fill]:
        """Return the fills of some orders, oldest first."""
        if not client_order_ids:
            return []
        where = {"client_order_id": ("in", list(client_order_ids))}
        rows = self.gateway.select("fills", where=where, order=("filled_at", "exec_id"))
        return [read_message(Fill, row) for row in rows]

    def list_sales(self, symbols: Sequence[str]) -> dict[str, str]:
        """Return the symbol of every order that sold one of some symbols and is no exit of a bracket, by identity.

        Those are the sales that were decided, and the exits that were placed anew for all shares that were held.
        """
        if not symbols:
            return {}
        where: Row = {"symbol": ("in", sorted(set(symbols))), "side": Side.SELL.value}
        columns = ("client_order_id", "symbol", "signal_id", "payload")
        rows = self.gateway.select("order_intents", columns=columns, where=where)
        found = [row for row in rows if row["signal_id"] is not None or ANEW in row["payload"]]
        return {str(row["client_order_id"]): str(row["symbol"]) for row in found}

    def find_open_entry(self, symbol: str) -> OpenOrder | None:
        """Return the entry of the newest trade of a symbol that holds shares; None where none does."""
        where: Row = {"symbol": symbol, "hit": ("is", None), "voided": ("is", False), "qty": ("gt", 0)}
        order = ("-recorded_at", "-client_order_id")
        rows = self.gateway.select("trades", columns=("client_order_id",), where=where, order=order, limit=1)
        names = [str(row["client_order_id"]) for row in rows]
        return next(iter(self.find_orders(names).values()), None)

    def find_last_exit(self, symbol: str) -> str | None:
        """Return the identity of the exit of a symbol that was written down last; None where none was."""
        where: Row = {"symbol": symbol, "side": Side.SELL.value, "signal_id": ("is", None)}
        order = ("-created_at", "-client_order_id")
        rows = self.gateway.select("order_intents", columns=("client_order_id",), where=where, order=order, limit=1)
        return str(rows[0]["client_order_id"]) if rows else None

    def find_known_fills(self, exec_ids: Sequence[str]) -> set[str]:
        """Return which of these executions are recorded."""
        if not exec_ids:
            return set()
        rows = self.gateway.select("fills", columns=("exec_id",), where={"exec_id": ("in", list(exec_ids))})
        return {str(row["exec_id"]) for row in rows}

    def find_orders(self, client_order_ids: Sequence[str]) -> dict[str, OpenOrder]:
        """Return those of these orders that were written down, by identity."""
        if not client_order_ids:
            return {}
        where = {"client_order_id": ("in", sorted(set(client_order_ids)))}
        found = (read_message(OpenOrder, row) for row in self.gateway.select("order_intents", where=where))
        return {order.client_order_id: order for order in found}

    def last_trades(self, since: datetime) -> dict[str, datetime]:
        """Return when each symbol was last traded at or after a time."""
        where: Row = {"voided": ("is", False), "recorded_at": ("gte", since)}
        rows = self.gateway.select("trades", columns=("symbol", "recorded_at"), where=where, order=("recorded_at",))
        return {str(row["symbol"]): row["recorded_at"].astimezone(UTC) for row in rows}

    def list_ledger(self) -> list[LedgerLine]:
        """Return shares and money by symbol, of every fill there is."""
        return [read_message(LedgerLine, row) for row in self.gateway.select("fill_ledger", order=("symbol",))]

    def cash_movements(self) -> float | None:
        """Return the money that came other than by a fill; None before the opening balance is written down."""
        rows = self.gateway.select("cash_movements", columns=("amount",))
        return float(sum(row["amount"] for row in rows)) if rows else None

    def list_cash_movements(self) -> list[tuple[str, float]]:
        """Return every movement of money other than by a fill: its reference and its amount, oldest first."""
        rows = self.gateway.select("cash_movements", columns=("movement_ref", "amount"), order=("moved_at", "movement_ref"))
        return [(str(row["movement_ref"]), float(row["amount"])) for row in rows]

    def move_cash(
        self, ref: str, amount: float, at: datetime, note: str = "", *, milestones: MilestoneState | None = None
    ) -> None:
        """Write down money that came or went other than by a fill, and in the same transaction what it makes of the milestones.

        Raises
        ------
        StoreConflictError
            If there is a movement of this reference; the milestones stay as they are then.
        """
        movement = {"movement_ref": ref, "amount": amount, "moved_at": at.isoformat(), "note": note}
        state = None if milestones is None else milestones.to_dict()
        self.gateway.rpc("move_cash", payload={**movement, "milestones": state})

    def list_halts(self) -> list[Halt]:
        """Return the last halt of every scope, in force or not, by scope."""
        return [read_message(Halt, row) for row in self.gateway.select("trading_halts", order=("scope",))]

    def halt(self, scope: str, *, reason: str, actor: str, at: datetime) -> bool:
        """Halt a scope; false when it was halted already, which keeps its first reason."""
        rows = self.gateway.rpc("halt_trading", p_scope=scope, p_reason=reason, p_actor=actor, p_at=at)
        return bool(rows[0]["halt_trading"])

    def resume(self, scope: str, *, actor: str, at: datetime) -> bool:
        """Lift a halt; false when there was none."""
        return bool(self.gateway.rpc("resume_trading", p_scope=scope, p_actor=actor, p_at=at)[0]["resume_trading"])

    def peak_since(self, at: datetime | None) -> float | None:
        """Return the most that one unit of the account was worth at or after a time, or ever; None where none is recorded."""
        where: Row = {} if at is None else {"recorded_at": ("gte", at)}
        rows = self.gateway.select("equity_snapshots", columns=("unit_value",), where=where, order=("-unit_value",), limit=1)
        return float(rows[0]["unit_value"]) if rows else None

    def list_unsettled(self) -> list[Trade]:
        """Return closed trades whose outcome did not reach everybody yet, oldest first."""
        rows = self.gateway.select("unsettled_trades", order=("closed_at", "trade_id"))
        return [read_message(Trade, row) for row in rows]

    def settle(self, trade_ids: Sequence[str], at: datetime) -> None:
        """Mark the outcomes of trades as told to everybody; again changes nothing."""
        rows = [{"trade_id": UUID(trade_id), "settled_at": at} for trade_id in trade_ids]
        self.gateway.upsert("trade_settlements", rows, on_conflict=("trade_id",))


def _signal(item: NewSignal) -> Row:
    row = item.signal.to_dict()
    kept = {"headline": row["headline"].strip()[:MAX_HEADLINE], "summary": row["summary"][:MAX_SUMMARY]}
    return {**row, **kept, "source": item.source, "source_key": item.signal.signal_id, "raw_text": item.raw_text}


def _screened(item: Screened) -> Row:
    return {
        "signal_id": item.signal.signal_id,
        "compliance_score": item.signal.compliance_score,
        "esg_flag": item.signal.esg_flag,
        "ofac_flag": item.signal.ofac_flag,
        "downgraded": item.signal.downgraded,
        "killed": item.killed,
        "severity": item.signal.severity.value,
        "notes": list(item.signal.notes),
        "list_version": item.list_version,
        "matched_entry": item.matched_entry,
    }
