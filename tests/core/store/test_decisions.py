"""A batch of decisions is written whole or not at all, a halt is ordered once, and what is over stays over."""

from collections.abc import Iterator
from datetime import UTC
from typing import Any

import psycopg
import pytest

from core.errors import DataError, StoreConflictError, StoreError
from core.store.decisions import ALL, ANEW, DecisionBatch, DecisionLog, NewSignal, OrderStatus, symbol_scope
from core.store.postgres import PostgresGateway
from core.store.trading import TradingStore
from core.store.trading_records import Fill, OrderIntent, TradeExit
from core.types import PipelineStatus, RawSignal, Side
from tests.core.store.trading import NOW, at, new_trade, raw_signal, trace


@pytest.fixture
def store(database: str) -> Iterator[TradingStore]:
    gateway = PostgresGateway(database, role="service_role").open()
    yield TradingStore(gateway)
    gateway.close()


@pytest.fixture
def log(store: TradingStore) -> DecisionLog:
    return DecisionLog(store.gateway)


def intent(news: RawSignal, name: str = "order-1", **changes: Any) -> OrderIntent:
    values: dict[str, Any] = {
        "client_order_id": name,
        "signal_id": news.signal_id,
        "symbol": "AAA",
        "side": Side.BUY,
        "qty": 10.0,
    }
    return OrderIntent(**(values | changes))


def decision(news: RawSignal, name: str = "order-1", **changes: Any) -> DecisionBatch:
    exit_ = OrderIntent(client_order_id=f"{name}-sl", symbol="AAA", side=Side.SELL, qty=10.0)
    return DecisionBatch(
        signals=[NewSignal(signal=news)],
        intents=[(intent(news, name), {"order": {}}), (exit_, {"parent": name})],
        trades=[new_trade(signal_id=news.signal_id, client_order_id=name)],
        traces=[trace(news.signal_id, status=PipelineStatus.PENDING, order_id=None)],
        audit=[("order.intended", "ares", name, {})],
        **changes,
    )


def fill(number: int = 1, name: str = "order-1", **changes: Any) -> Fill:
    values: dict[str, Any] = {
        "exec_id": f"exec-{number}",
        "client_order_id": name,
        "qty": 10.0,
        "price": 100.0,
        "filled_at": at(5),
    }
    return Fill(**(values | changes))


def state(name: str, status: PipelineStatus) -> OrderStatus:
    return OrderStatus(client_order_id=name, status=status, order_id="b-1")


def status_of(store: TradingStore, name: str) -> str:
    (row,) = store.gateway.select("order_intents", where={"client_order_id": name})
    return str(row["status"])


def test_a_decision_is_written_whole(store: TradingStore, log: DecisionLog) -> None:
    news = raw_signal()
    log.record(decision(news))
    assert log.find_decided([news.signal_id]) == {news.signal_id}
    assert [order.client_order_id for order in log.list_open_orders()] == ["order-1", "order-1-sl"]
    assert [trade.client_order_id for trade in store.trades.list_trades()] == ["order-1"]
    assert store.verify_audit_log() == []
    (row,) = store.gateway.select("signals")
    assert (row["source"], row["consumed_by_icarus"]) == ("pipeline", True)


def test_an_order_that_is_there_refuses_the_whole_batch(store: TradingStore, log: DecisionLog) -> None:
    first, second = raw_signal(1), raw_signal(2)
    log.record(decision(first))
    both = decision(second, "order-2")
    both.intents.append((intent(second, "order-1", signal_id=None), {}))
    with pytest.raises(StoreConflictError):
        log.record(both)
    assert log.find_decided([second.signal_id]) == set()
    assert len(store.trades.list_trades()) == 1
    assert len(store.gateway.select("signals")) == 1


def test_a_signal_has_one_entry_for_ever(log: DecisionLog) -> None:
    news = raw_signal()
    log.record(decision(news))
    with pytest.raises(StoreConflictError):
        log.record(decision(news, "order-2"))


def test_an_empty_batch_asks_nobody(log: DecisionLog) -> None:
    assert DecisionBatch().is_empty
    log.record(DecisionBatch())


def test_what_ended_does_not_live_again_and_what_is_filled_stays_filled(store: TradingStore, log: DecisionLog) -> None:
    news = raw_signal()
    log.record(decision(news))
    log.record(DecisionBatch(fills=[fill(qty=4.0)]))
    log.record(DecisionBatch(statuses=[state("order-1", PipelineStatus.SUBMITTED)]))
    assert status_of(store, "order-1") == "partially_filled"
    log.record(DecisionBatch(statuses=[state("order-1", PipelineStatus.EXPIRED)]))
    log.record(DecisionBatch(statuses=[state("order-1", PipelineStatus.SUBMITTED)]))
    assert status_of(store, "order-1") == "expired"
    (trade,) = store.trades.list_trades()
    assert (trade.qty, trade.order_id, trade.voided) == (4.0, "b-1", False)


def test_an_order_that_ends_without_a_share_was_never_a_trade_until_a_late_one_comes(
    store: TradingStore, log: DecisionLog
) -> None:
    news = raw_signal()
    log.record(decision(news))
    log.record(DecisionBatch(statuses=[state("order-1", PipelineStatus.CANCELLED)]))
    assert store.trades.list_trades() == []
    log.record(DecisionBatch(fills=[fill(qty=3.0)]))
    (trade,) = store.trades.list_trades()
    assert (trade.qty, trade.fill_price) == (3.0, 100.0)
    assert status_of(store, "order-1") == "cancelled"


def test_the_ledger_is_the_sum_of_the_fills(log: DecisionLog) -> None:
    news = raw_signal()
    log.record(decision(news))
    sold = fill(2, "order-1-sl", qty=4.0, price=97.0, commission=0.5)
    log.record(DecisionBatch(fills=[fill(commission=1.0), sold]))
    (line,) = log.list_ledger()
    assert (line.symbol, line.qty, line.cash) == ("AAA", 6.0, -1000.0 - 1.0 + 388.0 - 0.5)
    assert log.find_known_fills(["exec-1", "exec-2", "exec-3"]) == {"exec-1", "exec-2"}
    assert [item.exec_id for item in log.list_fills(["order-1"])] == ["exec-1"]


def test_an_outcome_waits_until_it_was_told_to_everybody(store: TradingStore, log: DecisionLog) -> None:
    news = raw_signal()
    log.record(decision(news))
    log.record(DecisionBatch(fills=[fill()], traces=[trace(news.signal_id, status=PipelineStatus.FILLED)]))
    (trade,) = store.trades.list_trades()
    outcome = TradeExit(trade_id=trade.trade_id, exit_price=106.0, exit_reason="take_profit", closed_at=at(9))
    log.record(DecisionBatch(exits=[outcome]))
    log.record(DecisionBatch(exits=[outcome]))
    (waiting,) = log.list_unsettled()
    assert (waiting.hit, waiting.pnl_pct) == (True, pytest.approx(0.06))
    (told,) = log.find_traces([news.signal_id])
    assert told.status is PipelineStatus.CLOSED
    log.settle([trade.trade_id], at(10))
    log.settle([trade.trade_id], at(11))
    assert log.list_unsettled() == []


def test_a_trace_never_loses_an_outcome(log: DecisionLog) -> None:
    news = raw_signal()
    log.record(decision(news))
    log.record(DecisionBatch(traces=[trace(news.signal_id, status=PipelineStatus.CLOSED, pnl_pct=0.06)]))
    log.record(DecisionBatch(traces=[trace(news.signal_id, status=PipelineStatus.FILLED)]))
    (told,) = log.find_traces([news.signal_id])
    assert (told.status, told.pnl_pct) == (PipelineStatus.CLOSED, 0.06)


def test_a_halt_is_ordered_once_outlives_its_orderer_and_is_audited(store: TradingStore, log: DecisionLog) -> None:
    assert log.halt(ALL, reason="drawdown", actor="argus", at=NOW)
    assert not log.halt(ALL, reason="another", actor="operator", at=at(1))
    (halt,) = DecisionLog(store.gateway).list_halts()
    assert (halt.reason, halt.actor, halt.halted_at, halt.resumed_at) == ("drawdown", "argus", NOW, None)
    assert log.resume(ALL, actor="operator", at=at(2))
    assert not log.resume(ALL, actor="operator", at=at(3))
    assert not log.resume(symbol_scope("AAA"), actor="operator", at=at(3))
    assert log.halt(ALL, reason="again", actor="argus", at=at(4))
    events = [row["event_type"] for row in store.gateway.select("audit_log", order=("entry_id",))]
    assert events == ["trading.halted", "trading.resumed", "trading.halted"]


@pytest.mark.parametrize("scope", ["AAA", "symbol:", "symbol:A B", ""])
def test_a_halt_has_a_scope(log: DecisionLog, scope: str) -> None:
    with pytest.raises((StoreError, DataError)):
        log.halt(scope, reason="x", actor="y", at=NOW)


def test_money_moves_once_by_a_reference_and_is_never_changed(store: TradingStore, log: DecisionLog) -> None:
    assert log.cash_movements() is None
    log.move_cash("opening", 1_000.0, NOW)
    log.move_cash("deposit 1", 500.0, at(1))
    assert log.cash_movements() == 1_500.0
    with pytest.raises(StoreConflictError):
        log.move_cash("opening", 2_000.0, at(2))
    with pytest.raises(StoreError):
        store.gateway.update("cash_movements", {"amount": 9.0}, where={"movement_ref": "opening"})
    assert log.list_cash_movements() == [("opening", 1_000.0), ("deposit 1", 500.0)]


def test_the_peak_is_the_highest_equity_since_a_time(log: DecisionLog, owner: psycopg.Connection) -> None:
    for minutes, equity in ((0, 100.0), (1, 150.0), (2, 120.0)):
        values = (equity, max(150.0, equity), (150.0 - equity) / 150.0, at(minutes))
        owner.execute("insert into equity_snapshots (equity, peak, drawdown_pct, recorded_at) values (%s, %s, %s, %s)", values)
    assert log.peak_since(None) == 150.0
    assert log.peak_since(at(1.5)) == 120.0
    assert log.peak_since(at(3)) is None


def test_last_trades_leave_out_voided_ones(store: TradingStore, log: DecisionLog) -> None:
    log.record(decision(raw_signal()))
    assert log.last_trades(NOW) == {"AAA": at(1).astimezone(UTC)}
    log.record(DecisionBatch(statuses=[state("order-1", PipelineStatus.CANCELLED)]))
    assert log.last_trades(NOW) == {}


def test_sales_on_a_decision_are_told_apart_from_exits(log: DecisionLog) -> None:
    news = raw_signal(2)
    log.record(decision(raw_signal()))
    sale = DecisionBatch(signals=[NewSignal(signal=news)], intents=[(intent(news, "sale", side=Side.SELL), {"order": {}})])
    log.record(sale)
    assert log.list_sales(["AAA", "BBB"]) == {"sale": "AAA"}
    anew = OrderIntent(client_order_id="anew-sl", symbol="AAA", side=Side.SELL, qty=5.0)
    log.record(DecisionBatch(intents=[(anew, {"parent": "order-1", ANEW: {}})]))
    assert log.list_sales(["AAA", "BBB"]) == {"sale": "AAA", "anew-sl": "AAA"}
    assert log.list_sales([]) == {}


def test_the_open_entry_of_a_symbol_is_that_of_its_newest_trade_with_shares(log: DecisionLog) -> None:
    assert log.find_open_entry("AAA") is None
    for number in (1, 2, 3):
        log.record(decision(raw_signal(number), f"order-{number}"))
    assert log.find_open_entry("AAA") is None
    for number in (1, 2):
        log.record(DecisionBatch(fills=[fill(number, f"order-{number}")]))
    found = log.find_open_entry("AAA")
    assert found is not None
    assert found.client_order_id == "order-2"
    assert log.find_open_entry("BBB") is None
