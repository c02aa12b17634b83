"""OutcomeResolver: closes trades by what was really sold, and tells the outcome to everybody who learns from it.

Hides which fills closed which trade. Promises that a trade closes once, at the mean price of trusted fills, from the rows
of the store alone; and that an outcome reaches trace, hit rates, knowledge base, ladder and experience even if the process
dies in between.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from agents.brokers.broker import exit_ids
from agents.trading.expectations import find_expectation
from agents.trading.experience import Experience, win_streak
from agents.trading.seniority import Ladder, find_participants
from core.errors import ChatModelError, StoreConflictError
from core.store.decisions import DecisionBatch, DecisionLog, OrderStatus
from core.store.event_records import LivePerformance
from core.store.knowledge import KnowledgeBase
from core.store.knowledge_records import DocumentOutcome, KnowledgeDocument
from core.store.research import ResearchStore
from core.store.trading import TradingStore
from core.store.trading_records import Fill, KnowledgeCollection, Trade, TradeExit
from core.types import DecisionTrace, PipelineStatus

_log = logging.getLogger(__name__)

_DUST = 1e-9
_BUYING = (PipelineStatus.PENDING, PipelineStatus.SUBMITTED, PipelineStatus.PARTIALLY_FILLED, PipelineStatus.UNKNOWN)
BY_DECISION = "signal"
"""Exit reason of a position that a negative signal closed."""


@dataclass(frozen=True, kw_only=True)
class _Slice:
    """A part of a fill that closed a part of a trade."""

    fill: Fill
    qty: float
    reason: str


class OutcomeResolver:
    """Close trades and spread their outcome.

    Parameters
    ----------
    store : TradingStore
    log : DecisionLog
    ladder : Ladder
    experience : Experience
    knowledge : KnowledgeBase, optional
    research : ResearchStore, optional
        Where expectations are kept, and live returns written beside them: of each trade on a signal of a source of which
        something is expected.
    """

    def __init__(
        self,
        store: TradingStore,
        log: DecisionLog,
        ladder: Ladder,
        experience: Experience,
        knowledge: KnowledgeBase | None = None,
        research: ResearchStore | None = None,
    ) -> None:
        self.store = store
        self.log = log
        self.ladder = ladder
        self.experience = experience
        self.knowledge = knowledge
        self.research = research

    def resolve(self, now: datetime) -> list[Trade]:
        """Close every open trade whose shares were all sold, tell the outcomes, and return the trades.

        Raises
        ------
        StoreError
            If an outcome cannot be written down; the next call goes on where this one stopped.
        """
        open_trades = [trade for trade in self.store.trades.list_trades(open_only=True) if trade.qty > 0.0]
        exits = self._exits(open_trades)
        if exits:
            self.log.record(DecisionBatch(exits=exits))
            self.store.trades.refresh_hit_rates()
        self._end_exits()
        self.settle(now)
        done = {item.trade_id for item in exits}
        return [trade for trade in open_trades if trade.trade_id in done]

    # Closing

    def _exits(self, open_trades: Sequence[Trade]) -> list[TradeExit]:
        """Return how each trade ended whose shares were all sold and that buys no more."""
        if not open_trades:
            return []
        entries = self.log.find_orders([trade.client_order_id for trade in open_trades])
        buying = {name for name, entry in entries.items() if entry.status in _BUYING}
        exits = []
        for trade, slices in self._allocate(open_trades):
            if trade.client_order_id not in buying and math.fsum(item.qty for item in slices) >= trade.qty - _DUST:
                exits.append(_exit(trade, slices))
        return exits

    def _allocate(self, open_trades: Sequence[Trade]) -> list[tuple[Trade, list[_Slice]]]:
        """Give each trade the fills of its own exits, then what else was sold of its symbol, first in first out."""
        sales = self.log.list_sales([trade.symbol for trade in open_trades])
        # What was sold went to the oldest trades first, closed ones included.
        sold = sorted(set(sales.values()))
        trades = [trade for trade in open_trades if trade.symbol not in sold]
        trades += [trade for symbol in sold for trade in self.store.trades.list_trades(symbol=symbol) if trade.qty > 0.0]
        legs = {
            identity: (trade.trade_id, leg.value)
            for trade in trades
            for leg, identity in exit_ids(trade.client_order_id).items()
        }
        given: dict[str, list[_Slice]] = {trade.trade_id: [] for trade in trades}
        fills = self.log.list_fills([*legs, *sales])
        for fill in fills:
            if fill.client_order_id in legs:
                trade_id, reason = legs[fill.client_order_id]
                given[trade_id].append(_Slice(fill=fill, qty=fill.qty, reason=reason))
        missing = {trade.trade_id: trade.qty - math.fsum(item.qty for item in given[trade.trade_id]) for trade in trades}
        for fill in fills:
            left = fill.qty if fill.client_order_id in sales else 0.0
            for trade in trades:
                part = min(left, missing[trade.trade_id])
                if part > _DUST and trade.symbol == sales[fill.client_order_id]:
                    given[trade.trade_id].append(_Slice(fill=fill, qty=part, reason=_reason(fill)))
                    missing[trade.trade_id] -= part
                    left -= part
        return [(trade, given[trade.trade_id]) for trade in trades if trade.hit is None]

    def _end_exits(self) -> None:
        """End the exits of trades that are over, and of entries that ended without a share."""
        exits = [order for order in self.log.list_open_orders() if "parent" in order.payload]
        if not exits:
            return
        parents = self.log.find_orders([str(order.payload["parent"]) for order in exits])
        filled = {fill.client_order_id for fill in self.log.list_fills([order.client_order_id for order in exits])}
        bought = {fill.client_order_id for fill in self.log.list_fills(sorted(parents))}
        open_trades = {trade.client_order_id for trade in self.store.trades.list_trades(open_only=True) if trade.qty > 0.0}
        over = []
        for order in exits:
            parent = parents[str(order.payload["parent"])]
            ended = parent.status in (PipelineStatus.CANCELLED, PipelineStatus.EXPIRED, PipelineStatus.REJECTED)
            flat = parent.client_order_id in bought and parent.client_order_id not in open_trades
            if flat or (ended and parent.client_order_id not in bought):
                done = PipelineStatus.FILLED if order.client_order_id in filled else PipelineStatus.CANCELLED
                over.append(OrderStatus(client_order_id=order.client_order_id, status=done))
        self.log.record(DecisionBatch(statuses=over))

    # Telling

    def settle(self, now: datetime) -> None:
        """Tell outcomes that have not reached everybody; each step does nothing when it was done before."""
        waiting = self.log.list_unsettled()
        if not waiting:
            return
        traces = {trace.signal_id: trace for trace in self._traces(waiting)}
        decided = [(trade, traces[trade.signal_id]) for trade in waiting if trade.signal_id in traces]
        remembered = self._remember(decided)
        passed = find_participants(self.store, waiting)
        record = self.store.trades.list_trades()
        sources = self.store.find_sources([trade.signal_id for trade in waiting if trade.signal_id is not None])
        earned = []
        for trade in waiting:
            self._compare(trade, sources.get(trade.signal_id or ""))
            streak = win_streak([item for item in record if _ended_by(item, trade)])
            earned += self.experience.entries(trade, passed.get(trade.trade_id, frozenset()), streak=streak)
        self.store.mint_exp(earned)
        self.ladder.judge()
        if remembered:
            self.log.settle([trade.trade_id for trade in waiting], now)

    def _traces(self, trades: Iterable[Trade]) -> list[DecisionTrace]:
        closed = self.log.find_traces([trade.signal_id for trade in trades if trade.signal_id is not None])
        return [trace for trace in closed if trace.status is PipelineStatus.CLOSED]

    def _remember(self, decided: Sequence[tuple[Trade, DecisionTrace]]) -> bool:
        """Keep decisions with their outcomes, and say whether it was done; a document saved again keeps the outcome it has."""
        if self.knowledge is None or not decided:
            return True
        try:
            self.knowledge.save_documents([decision_document(trace, trade) for trade, trace in decided])
            for trade, trace in decided:
                assert trade.closed_at is not None
                values = {
                    "trade_id": trade.trade_id,
                    "hit": trade.hit,
                    "pnl_pct": trade.pnl_pct,
                    "net_pnl_pct": trade.net_pnl_pct,
                    "exit_reason": trade.exit_reason,
                }
                self.knowledge.record_outcome(trace.trace_id, DocumentOutcome(values=values, known_at=trade.closed_at))
            return True
        except ChatModelError as error:
            _log.warning("the outcomes of %d trades wait for the embedder's model: %s", len(decided), error)
            return False

    def _compare(self, trade: Trade, source: str | None) -> None:
        if self.research is None or source is None or trade.closed_at is None or trade.net_pnl_pct is None:
            return
        expectation = find_expectation(self.research, source)
        if expectation is None:
            return
        point = LivePerformance(
            strategy_id=f"{expectation.strategy_id}/{trade.symbol}",
            ts=trade.closed_at,
            expected_return=expectation.return_per_trade,
            realised_return=max(-1.0, trade.net_pnl_pct),
            details={"trade_id": trade.trade_id, "context_key": trade.context_key},
        )
        try:
            self.research.save_live_performance([point])
        except StoreConflictError:
            _log.debug("the live return of trade %s was written before", trade.trade_id)


def decision_document(trace: DecisionTrace, trade: Trade) -> KnowledgeDocument:
    """Return what the knowledge base keeps of a decision; its identity is that of the trace."""
    said = f" {trace.llm_reasoning}" if trace.llm_reasoning else ""
    text = (
        f"Bought {trade.symbol} on {trade.category.value} in a {trade.regime.value} market with a {trade.vix_band.value} VIX, "
        f"confidence {trade.confidence:.2f}, {trade.position_pct:.2%} of equity.{said}"
    )
    metadata = {"symbol": trade.symbol, "context_key": trade.context_key, "signal_id": trace.signal_id}
    return KnowledgeDocument(
        doc_id=trace.trace_id,
        collection=KnowledgeCollection.DECISIONS,
        document_text=text,
        known_at=trace.decided_at,
        metadata=metadata,
    )


def _reason(sold: Fill) -> str:
    """Return why shares were sold by what is no exit of a trade's own bracket: by a decision, or by exits placed anew."""
    legs = (leg.value for leg, suffix in exit_ids("").items() if sold.client_order_id.endswith(suffix))
    return next(legs, BY_DECISION)


def _ended_by(trade: Trade, last: Trade) -> bool:
    return (
        trade.closed_at is not None
        and last.closed_at is not None
        and (trade.closed_at, trade.trade_id) <= (last.closed_at, last.trade_id)
    )


def _exit(trade: Trade, slices: Sequence[_Slice]) -> TradeExit:
    shares = math.fsum(item.qty for item in slices)
    last = max(slices, key=lambda item: (item.fill.filled_at, item.fill.exec_id))
    return TradeExit(
        trade_id=trade.trade_id,
        exit_price=math.fsum(item.qty * item.fill.price for item in slices) / shares,
        exit_reason=last.reason,
        closed_at=last.fill.filled_at,
        commission=math.fsum(item.fill.commission * item.qty / item.fill.qty for item in slices),
    )
