"""TradingStore: everything the trading agents keep, over a Gateway.

Hides tables and functions; gives and takes the messages of :mod:`core.types` and the records of
:mod:`core.store.trading_records`. Promises that each method is one transaction, and that doing it twice with the same
identity (a signal's source key, an order's or an execution's id, an event's reference) does it once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from core.errors import DataError
from core.store.gateway import Gateway, Row, Where
from core.store.trade_log import PostgresTradeLog
from core.store.trading_records import (
    AgentExp,
    AgentSummary,
    AuditEntry,
    AuditProblem,
    Book,
    Breaker,
    CategoryWinRate,
    EquityPoint,
    Exchange,
    ExpEntry,
    Fill,
    FillState,
    KillCount,
    MilestoneState,
    MonthlyReturn,
    OrderIntent,
    PerformanceStats,
    PortfolioState,
    Position,
    Promotion,
    RMultipleBucket,
    Seniority,
    SeniorityLine,
    StoredSignal,
    SystemExp,
    SystemSeniority,
    TickerMapping,
    check_json,
    check_uuid,
    read_message,
)
from core.types import DecisionTrace, FilteredSignal, HealthReport, MacroContext, PipelineStatus, RawSignal

_IDS_AT_ONCE = 500


class TradingStore:
    """Keep signals, decisions, orders, the book, and the agents' records.

    Parameters
    ----------
    gateway : Gateway
        Way to the database, as `service_role`.

    Attributes
    ----------
    trades : PostgresTradeLog
        The trade log over the same gateway.

    Raises
    ------
    DataError
        From any method, when a value is not allowed; the text names the field and nothing was written.
    StoreError
        From any method, when the database refused or cannot be reached.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.trades = PostgresTradeLog(gateway)

    # Signals and what they meet

    def save_signal(self, signal: RawSignal, *, source: str, source_key: str, raw_text: str | None = None) -> StoredSignal:
        """Store an item of a source once; fetching it again neither duplicates it nor makes it new.

        Returns
        -------
        StoredSignal
            The identity under which it is kept, which is that of its first storing.
        """
        check_uuid("RawSignal.signal_id", signal.signal_id)
        payload = {**signal.to_dict(), "source": source, "source_key": source_key, "raw_text": raw_text}
        return read_message(StoredSignal, self.gateway.rpc("upsert_signal", payload=payload)[0])

    def claim_signals(self, worker: str, n: int = 100) -> list[RawSignal]:
        """Take the oldest open signals; for 15 minutes nobody else gets the same ones."""
        return [read_message(RawSignal, row) for row in self.gateway.rpc("claim_signals", worker=worker, n=n)]

    def release_claims(self, prefix: str) -> int:
        """Offer anew what workers took whose names begin so, and return how much that was.

        For whoever knows that these workers are gone; all others wait 15 minutes.
        """
        rows = self.gateway.select("signals", columns=("signal_id", "claimed_by"), where={"consumed_by_icarus": False})
        taken = [row["signal_id"] for row in rows if str(row["claimed_by"] or "").startswith(prefix)]
        for start in range(0, len(taken), _IDS_AT_ONCE):
            free = {"claimed_by": None, "claimed_at": None}
            self.gateway.update("signals", free, where={"signal_id": ("in", taken[start : start + _IDS_AT_ONCE])})
        return len(taken)

    def find_sources(self, signal_ids: Sequence[str]) -> dict[str, str]:
        """Return which source each of these signals came from, by identity."""
        if not signal_ids:
            return {}
        ids = [UUID(check_uuid("signal_ids", signal_id)) for signal_id in sorted(set(signal_ids))]
        rows = self.gateway.select("signals", columns=("signal_id", "source"), where={"signal_id": ("in", ids)})
        return {str(row["signal_id"]): str(row["source"]) for row in rows}

    def consume_signals(self, worker: str, signal_ids: Sequence[str]) -> int:
        """Close signals that this worker holds, and return how many those were."""
        ids = [UUID(check_uuid("signal_ids", signal_id)) for signal_id in signal_ids]
        return int(self.gateway.rpc("consume_signals", worker=worker, ids=ids)[0]["consume_signals"])

    def save_filtered_signal(
        self, signal: FilteredSignal, *, killed: bool, list_version: str | None, matched_entry: str | None = None
    ) -> None:
        """Store what the screening of a signal said; screening it again replaces it."""
        if not killed and list_version is None:
            raise DataError("`list_version` must name the sanctions lists of a signal that passed, was None.")
        row = {
            "signal_id": UUID(check_uuid("FilteredSignal.signal_id", signal.signal_id)),
            "compliance_score": signal.compliance_score,
            "esg_flag": signal.esg_flag,
            "ofac_flag": signal.ofac_flag,
            "downgraded": signal.downgraded,
            "killed": killed,
            "severity": signal.severity.value,
            "notes": list(signal.notes),
            "list_version": list_version,
            "matched_entry": matched_entry,
        }
        self.gateway.upsert("filtered_signals", [row], on_conflict=("signal_id",))

    def save_macro_context(self, context: MacroContext) -> None:
        """Store a view of the market; the same `as_of` again replaces it."""
        self.gateway.rpc("record_macro_context", payload=context.to_dict())

    def latest_macro_context(self) -> MacroContext | None:
        """Return the newest view of the market, if there is one."""
        rows = self.gateway.select("macro_context", order=("-as_of",), limit=1)
        return read_message(MacroContext, rows[0]) if rows else None

    def save_ticker_mappings(self, mappings: Sequence[TickerMapping]) -> int:
        """Store under which tickers suppliers trade, and return how many were written."""
        return self.gateway.upsert(
            "ticker_map", [item.to_dict() for item in mappings], on_conflict=("supplier_name", "exchange")
        )

    def list_ticker_mappings(self, exchange: Exchange | None = None) -> list[TickerMapping]:
        """Return under which tickers suppliers trade, by name."""
        where: Where = {} if exchange is None else {"exchange": exchange.value}
        rows = self.gateway.select("ticker_map", where=where, order=("supplier_name", "exchange"))
        return [read_message(TickerMapping, row) for row in rows]

    # Decisions and orders

    def save_decision_trace(self, trace: DecisionTrace) -> None:
        """Store the record of a decision; the same `trace_id` again replaces it."""
        check_uuid("DecisionTrace.signal_id", trace.signal_id)
        self.gateway.rpc("record_decision_trace", payload=check_json("DecisionTrace", trace.to_dict()))

    def list_decision_traces(
        self,
        *,
        symbol: str | None = None,
        signal_ids: Sequence[str] | None = None,
        since: datetime | None = None,
        limit: int = 1000,
    ) -> list[DecisionTrace]:
        """Return decisions, newest first; those of some signals where `signal_ids` is given, a hundred or so at a time."""
        where: Row = {}
        if signal_ids is not None:
            where["signal_id"] = ("in", [UUID(check_uuid("signal_ids", signal_id)) for signal_id in signal_ids])
        if symbol is not None:
            where["symbol"] = symbol
        if since is not None:
            where["decided_at"] = ("gte", since)
        rows = self.gateway.select("decision_traces", where=where, order=("-decided_at", "trace_id"), limit=limit)
        return [read_message(DecisionTrace, row) for row in rows]

    def save_intent(self, intent: OrderIntent, payload: Mapping[str, Any] | None = None) -> OrderIntent:
        """Write down an order before the broker is asked.

        Raises
        ------
        StoreConflictError
            If this order, or another entry for the same signal, was written down before.
        """
        row = {**intent.to_dict(), "payload": check_json("payload", payload or {})}
        return read_message(OrderIntent, self.gateway.insert("order_intents", [row])[0])

    def set_intent_status(self, client_order_id: str, status: PipelineStatus) -> None:
        """Record what became of an order that was not a fill."""
        self.gateway.update("order_intents", {"status": status.value}, where={"client_order_id": client_order_id})

    def list_intents(self, *statuses: PipelineStatus) -> list[OrderIntent]:
        """Return orders, oldest first; all, or those in one of the given states."""
        where: Where = {"status": ("in", [status.value for status in statuses])} if statuses else {}
        rows = self.gateway.select("order_intents", where=where, order=("created_at", "client_order_id"))
        return [read_message(OrderIntent, row) for row in rows]

    def record_fill(self, fill: Fill) -> FillState:
        """Count an execution once and bring its order and its trade up to date.

        Raises
        ------
        StoreConflictError
            If the order was never written down, or the execution was recorded with other figures.
        """
        return read_message(FillState, self.gateway.rpc("record_fill", payload=fill.to_dict())[0])

    # The book

    def save_portfolio(self, book: Book) -> PortfolioState:
        """Replace the book and append its equity to the history; peak and drawdown follow from what was there."""
        return read_message(PortfolioState, self.gateway.rpc("record_portfolio", payload=book.to_dict())[0])

    def load_portfolio(self) -> PortfolioState | None:
        """Return the book's figures as last recorded, if they ever were."""
        rows = self.gateway.select("portfolio_state")
        return read_message(PortfolioState, rows[0]) if rows else None

    def list_positions(self) -> list[Position]:
        """Return the open positions by symbol."""
        return [read_message(Position, row) for row in self.gateway.select("portfolio_positions", order=("symbol",))]

    # How the agents are doing

    def save_health(self, report: HealthReport) -> None:
        """Append a health report; the newest thousand of each agent are kept."""
        self.gateway.insert("agent_health", [report.to_dict()])

    def latest_health(self) -> list[HealthReport]:
        """Return the newest report of each agent, by name."""
        return [read_message(HealthReport, row) for row in self.gateway.select("agent_health_latest", order=("agent_name",))]

    def save_breaker(self, breaker: Breaker) -> None:
        """Store the state of an agent's circuit breaker."""
        row = {**breaker.to_dict(), "opened_at": breaker.opened_at}
        self.gateway.upsert("circuit_breakers", [row], on_conflict=("agent_name",))

    def load_breaker(self, agent_name: str) -> Breaker | None:
        """Return the state of an agent's circuit breaker, if it was ever stored."""
        rows = self.gateway.select("circuit_breakers", where={"agent_name": agent_name})
        return read_message(Breaker, rows[0]) if rows else None

    # What the agents have earned

    def save_seniority(self, seniority: Seniority) -> None:
        """Store where an agent stands; a move on the ladder goes into the history by itself."""
        self.save_seniorities([seniority])

    def save_seniorities(self, places: Sequence[Seniority]) -> None:
        """Store where several agents stand, all or none; moves on the ladder go into the history by themselves."""
        rows = [{**place.to_dict(), "criteria": dict(place.criteria)} for place in places]
        self.gateway.upsert("agent_seniority", rows, on_conflict=("agent_name",))

    def list_seniority(self) -> list[Seniority]:
        """Return where every agent stands, by name."""
        return [read_message(Seniority, row) for row in self.gateway.select("agent_seniority", order=("agent_name",))]

    def system_seniority(self) -> SystemSeniority | None:
        """Return the seniority of the lowest agent, which is the system's; None without agents."""
        rows = self.gateway.select("system_seniority")
        return read_message(SystemSeniority, rows[0]) if rows else None

    def mint_exp(self, entries: Sequence[ExpEntry]) -> int:
        """Append experience and return how many entries were new."""
        payload = {"entries": [entry.to_dict() for entry in entries]}
        return int(self.gateway.rpc("mint_exp", payload=payload)[0]["mint_exp"])

    def list_exp(self) -> list[AgentExp]:
        """Return the experience of every agent, by name."""
        return [read_message(AgentExp, row) for row in self.gateway.select("agent_exp", order=("agent_name",))]

    def system_exp(self) -> SystemExp:
        """Return the experience of all agents together."""
        return read_message(SystemExp, self.gateway.select("system_exp")[0])

    def save_milestones(self, state: MilestoneState) -> None:
        """Store vault and crossed stages."""
        self.gateway.rpc("record_milestones", payload=state.to_dict())

    def load_milestones(self) -> MilestoneState | None:
        """Return vault and crossed stages, if they were ever stored."""
        rows = self.gateway.select("milestone_state")
        return read_message(MilestoneState, rows[0]) if rows else None

    # The audit log

    def append_audit(
        self, *, event_type: str, actor: str, subject: str, payload: Mapping[str, Any] | None = None
    ) -> AuditEntry:
        """Append what was done, by whom and to what; it can never be changed."""
        row = {"event_type": event_type, "actor": actor, "subject": subject, "payload": check_json("payload", payload or {})}
        return read_message(AuditEntry, self.gateway.insert("audit_log", [row])[0])

    def verify_audit_log(self, known: AuditEntry | None = None) -> list[AuditProblem]:
        """Name every entry that does not fit; an empty list means the log is whole.

        Parameters
        ----------
        known : AuditEntry, optional
            An entry that was noted outside the database. A chain cannot show by itself that its end was cut off.
        """
        arguments: Row = {} if known is None else {"p_known_id": known.entry_id, "p_known_hash": known.row_hash}
        return [read_message(AuditProblem, row) for row in self.gateway.rpc("verify_audit_log", **arguments)]

    # Reports

    def win_rates_by_category(self) -> list[CategoryWinRate]:
        """Return closed trades by category."""
        return [read_message(CategoryWinRate, row) for row in self.gateway.rpc("get_win_rates_by_category")]

    def monthly_returns(self) -> list[MonthlyReturn]:
        """Return the equity at the end of each month and what the month made of it, money paid in or out left aside."""
        rows = self.gateway.rpc("get_monthly_returns")
        return [read_message(MonthlyReturn, {**row, "month": str(row["month"])}) for row in rows]

    def kill_stage_stats(self, since: datetime | None = None) -> list[KillCount]:
        """Return where signals died and what bound."""
        return [read_message(KillCount, row) for row in self.gateway.rpc("get_kill_stage_stats", p_since=since)]

    def drawdown_history(self, since: datetime | None = None, *, limit: int = 10_000) -> list[EquityPoint]:
        """Return the newest snapshots of equity, oldest first."""
        rows = self.gateway.rpc("get_equity_history", p_since=since, p_limit=limit)
        return [read_message(EquityPoint, row) for row in rows]

    def agent_health_summary(self) -> list[AgentSummary]:
        """Return how every agent is doing, by name."""
        return [read_message(AgentSummary, row) for row in self.gateway.rpc("get_agent_health_summary")]

    def seniority_report(self) -> list[SeniorityLine]:
        """Return where every agent stands and what it lacks, lowest first."""
        return [read_message(SeniorityLine, row) for row in self.gateway.rpc("get_seniority_report")]

    def promotion_history(self, agent_name: str | None = None, *, limit: int = 100) -> list[Promotion]:
        """Return moves on the ladder, newest first."""
        rows = self.gateway.rpc("get_promotion_history", p_agent_name=agent_name, p_limit=limit)
        return [read_message(Promotion, row) for row in rows]

    def r_multiple_distribution(self) -> list[RMultipleBucket]:
        """Return closed trades by gain in units of the risk taken."""
        return [read_message(RMultipleBucket, row) for row in self.gateway.rpc("get_r_multiple_distribution")]

    def performance_stats(self) -> PerformanceStats:
        """Return the figures of all trades that count."""
        return read_message(PerformanceStats, self.gateway.rpc("get_performance_stats")[0])

    # Who may look

    def close_anon_access(self) -> list[str]:
        """Take away what may be read without a login, and return the tables that closed."""
        return [row["close_anon_access"] for row in self.gateway.rpc("close_anon_access")]
