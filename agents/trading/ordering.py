"""The stage that orders: plans are written down, and only then sent.

Hides in which order a plan becomes durable and what a broker's answer means for its signal. Promises that nothing is sent
that is not in the store, and nothing while trading is halted or the broker does not answer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby

from agents.brokers.asking import Sent
from agents.trading.ares import Ares, OrderPlan, trade_result
from agents.trading.argus import Argus
from agents.trading.batch import Batch, timed
from agents.trading.case import Case
from agents.trading.context import TradingContext
from agents.trading.housekeeping import Housekeeping
from agents.trading.reconciliation import Reconciler, order_statuses
from core.errors import StoreConflictError
from core.store.decisions import ALL, DecisionBatch, DecisionLog, symbol_scope
from core.store.trading_records import NewTrade
from core.types import BindingConstraint, PipelineStatus, Refusal, Side, Stage


class Ordering:
    """Turn the signals of a turn into orders.

    Parameters
    ----------
    context : TradingContext
    log : DecisionLog
    ares : Ares
    argus : Argus
    reconciler : Reconciler
        Closes positions.
    housekeeping : Housekeeping
        Whether the broker answers.
    """

    def __init__(
        self,
        context: TradingContext,
        log: DecisionLog,
        ares: Ares,
        argus: Argus,
        reconciler: Reconciler,
        housekeeping: Housekeeping,
    ) -> None:
        self.context = context
        self.log = log
        self.ares = ares
        self.argus = argus
        self.reconciler = reconciler
        self.housekeeping = housekeeping

    def execute(self, batch: Batch) -> None:
        """Plan the orders of the turn, write them all down, and only then ask the broker."""
        halts = {halt.scope for halt in self.argus.halts()}
        for case in batch.turn:
            with timed(case, Stage.ARES):
                found = self._plan(case, halts, batch.now)
                if isinstance(found, Refusal):
                    case.refuse(found)
                    continue
                case.plan = found
        planned = self._write_down([case for case in batch.turn if case.is_live], batch)
        for closes, cases in groupby(planned, key=lambda case: case.closes):
            if closes:
                for case in cases:
                    with timed(case, Stage.ARES):
                        self._close(case, batch)
            else:
                self._enter(list(cases), batch)
        batch.turn = []
        if any(case.closes for case in planned):  # ending the exits of a position may have brought fills
            self.argus.reload(batch.now)
            self.argus.mark(batch.now)
        elif planned:
            self.argus.reload_orders(batch.now)

    def _plan(self, case: Case, halts: set[str], now: datetime) -> OrderPlan | Refusal:
        symbol = case.symbol or ""
        if ALL in halts or symbol_scope(symbol) in halts:
            reason = "trading was halted since the limits were checked"
            return Refusal(stage=Stage.ARES, constraint=BindingConstraint.HALTED, reason=reason)
        if not self.housekeeping.synced.reachable:
            reason = f"the broker does not answer: {self.housekeeping.synced.reason}"
            return Refusal(stage=Stage.ARES, constraint=BindingConstraint.BROKER_UNAVAILABLE, reason=reason[:2000])
        if not self.context.broker.is_paper and not self.context.real_money_armed:
            reason = "the broker's account is one of real money, which is not armed"
            return Refusal(stage=Stage.ARES, constraint=BindingConstraint.SENIORITY_CAP, reason=reason)
        if case.closes:
            return self.ares.plan_exit(case.signal.signal_id, symbol, self.argus.held[symbol])
        equity = self.argus.equity()
        if equity is None or case.size is None:
            return Refusal(stage=Stage.ARES, constraint=BindingConstraint.UNKNOWN_EQUITY, reason="the equity is not known")
        return self.ares.plan_entry(case.signal.signal_id, symbol, case.size, equity, now)

    def _write_down(self, cases: Sequence[Case], batch: Batch) -> list[Case]:
        """Make plans durable, all in one transaction; a signal that another pipeline has decided meanwhile is refused."""
        if not cases:
            return []
        try:
            self.log.record(self._intention(cases, batch.now))
            return list(cases)
        except StoreConflictError:
            if len(cases) > 1:
                return [kept for case in cases for kept in self._write_down([case], batch)]
            cases[0].plan = None
            reason = "another pipeline has an order for this signal"
            cases[0].duplicate = True
            cases[0].refuse(Refusal(stage=Stage.ARES, constraint=BindingConstraint.STALE_SIGNAL, reason=reason))
            return []

    def _intention(self, cases: Sequence[Case], now: datetime) -> DecisionBatch:
        record = DecisionBatch()
        for case in cases:
            assert case.plan is not None
            record.signals.append(case.new_signal())
            record.intents += case.plan.intents
            if not case.closes:
                record.trades.append(self._new_trade(case, now))
            record.traces.append(case.build_trace(now))
            note = {"symbol": case.plan.order.symbol, "side": case.plan.order.side.value, "qty": case.plan.order.qty}
            record.audit.append(("order.intended", "ares", case.plan.order.client_order_id, note))
        return record

    def _new_trade(self, case: Case, now: datetime) -> NewTrade:
        assert case.plan is not None
        assert case.sized is not None
        assert case.sized.context_key is not None
        order = case.plan.order
        return NewTrade(
            signal_id=case.signal.signal_id,
            context_key=case.sized.context_key,
            confidence=case.sized.confidence,
            position_pct=case.size or 0.0,
            is_exploration=case.sized.is_exploration,
            symbol=order.symbol,
            side=order.side,
            client_order_id=order.client_order_id,
            stop_loss=order.stop_loss_price,
            take_profit=order.take_profit_price,
            paper_trading=self.context.broker.is_paper,
            recorded_at=now,
        )

    def _close(self, case: Case, batch: Batch) -> None:
        assert case.plan is not None
        self._take_down(case, self.reconciler.close_position(case.plan.order, batch.now), batch)

    def _enter(self, cases: Sequence[Case], batch: Batch) -> None:
        began = time.perf_counter()
        answers = self.ares.send([case.plan.order for case in cases if case.plan is not None])
        for case, sent in zip(cases, answers, strict=True):
            self._take_down(case, sent, batch)
        shared = (time.perf_counter() - began) / len(cases)
        for case in cases:
            case.took(Stage.ARES, shared)

    def _take_down(self, case: Case, sent: Sent, batch: Batch) -> None:
        assert case.plan is not None
        order = case.plan.order
        case.sent = sent
        bracket = order.side is Side.BUY
        batch.record.statuses += order_statuses(order.client_order_id, _kept(sent.status), sent.order_id, bracket=bracket)
        told = trade_result(order, sent)
        note = ({} if told is None else told.to_dict()) | {"reason": sent.reason[:2000]}
        event = "order.dropped" if told is None else "order.sent"
        batch.record.audit.append((event, "ares", order.client_order_id, note))
        if sent.status is PipelineStatus.REJECTED:
            reason = (sent.reason or "the broker rejected it without a reason")[:1800]
            said = f"{reason}; its exits had been cancelled for it and are placed anew" if case.closes else reason
            case.refuse(Refusal(stage=Stage.ARES, constraint=BindingConstraint.BROKER_UNAVAILABLE, reason=said))
            if case.closes:
                end = DecisionBatch(traces=[case.build_trace(batch.now)])
                end.statuses += order_statuses(order.client_order_id, sent.status, sent.order_id, bracket=False)
                why = f"the sale {order.client_order_id} was rejected ({reason})"
                self.reconciler.exits.restore(order.client_order_id, order.symbol, why, end, batch.now)
            return
        if sent.status is PipelineStatus.UNKNOWN:
            reason = f"nobody knows what became of the order {order.client_order_id}: {sent.reason}"
            self.argus.halt(symbol_scope(order.symbol), reason=reason, actor="ares", now=batch.now)
        case.passed(Stage.ARES, f"{sent.status.value} {order.qty:g} {order.symbol}")


def _kept(status: PipelineStatus) -> PipelineStatus:
    """Return the state that our order takes: filled only by executions that were counted."""
    filled = status in (PipelineStatus.FILLED, PipelineStatus.PARTIALLY_FILLED)
    return PipelineStatus.SUBMITTED if filled else status
