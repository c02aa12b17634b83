"""What a closed trade teaches, by the same id everywhere, and how fills are given to trades."""

from dataclasses import replace
from typing import Any

import pytest

from agents.trading.context import PipelineConfig, TradingConfig
from agents.trading.expectations import Expectation, keep_expectation
from agents.trading.limits import LimitsConfig
from core.errors import ChatModelError
from core.store.decisions import DIRECT
from core.store.knowledge_records import KnowledgeDocument
from core.store.opening import Store
from core.store.trading_records import KnowledgeCollection
from core.types import BindingConstraint, PipelineStatus
from tests.agents.trading.desk import CASH, NOW, Desk, bad_news, build_desk, signal

PROMISED = Expectation(strategy_id="news", return_per_trade=0.01, n_trades=40, first=NOW, last=NOW)


def trade_through(desk: Desk, symbol: str, exit_price: float) -> Any:
    price = desk.prices.last[symbol]
    (trace,) = desk.pipeline.run([signal(symbol)])
    assert trace.status is PipelineStatus.SUBMITTED
    desk.bar(symbol, price)
    desk.bar(symbol, exit_price)
    desk.pipeline.tick()
    return trace


def test_an_outcome_reaches_everybody_who_learns_from_it(store: Store) -> None:
    desk = build_desk(store)
    keep_expectation(store.service, DIRECT, PROMISED)
    won = trade_through(desk, "AAA", 106.0)
    (trade,) = store.trading.trades.list_trades()
    assert (trade.pnl_pct, trade.hit, trade.exit_reason) == (pytest.approx(0.06), True, "take_profit")
    rate = store.trading.trades.find_hit_rate("positive_news|bull|low")
    assert rate is not None
    assert (rate.closed_trades, rate.hit_rate) == (1, 1.0)
    (trace,) = desk.pipeline.log.find_traces([won.signal_id])
    assert (trace.status, trace.pnl_pct, trace.trace_id) == (PipelineStatus.CLOSED, pytest.approx(0.06), won.trace_id)
    document = store.knowledge.get_document(won.trace_id)
    assert document.outcome is not None
    assert document.outcome.values["trade_id"] == trade.trade_id
    agents = {"icarus", "hades", "artemis", "pythia", "zeus", "ares"}
    assert {place.agent_name for place in store.trading.list_seniority() if place.wins == 1} == agents
    assert agents <= {line.agent_name for line in store.trading.list_exp() if line.exp > 0}
    (live,) = store.service.list_live_performance("news/AAA")
    assert (live.expected_return, live.realised_return) == (0.01, pytest.approx(0.06))
    assert live.details["trade_id"] == trade.trade_id
    state = desk.pipeline.argus.milestones.state
    assert state is not None
    assert state.milestone_origin == CASH


def test_a_trade_is_compared_with_what_is_expected_of_the_source_of_its_signal(store: Store) -> None:
    desk = build_desk(store)
    keep_expectation(store.service, "use_case:mine", replace(PROMISED, strategy_id="mine"))
    for symbol, source in (("AAA", "use_case:mine"), ("BBB", "rss")):
        store.trading.save_signal(signal(symbol), source=source, source_key=symbol)
    decided = desk.pipeline.run(store.trading.claim_signals("desk"))
    assert [trace.status for trace in decided] == [PipelineStatus.SUBMITTED] * 2
    for symbol, price in (("AAA", 100.0), ("BBB", 50.0)):
        desk.bar(symbol, price)
    desk.pipeline.tick()
    # Another process closes them, which was told of no use case.
    fresh = desk.restart()
    fresh.bar("AAA", 97.0)
    fresh.bar("BBB", 48.5)
    fresh.pipeline.tick()
    assert [trade.net_pnl_pct for trade in store.trade_log.list_trades()] == [pytest.approx(-0.03)] * 2
    (live,) = store.service.list_live_performance()
    assert (live.strategy_id, live.expected_return, live.realised_return) == ("mine/AAA", 0.01, pytest.approx(-0.03))


def test_a_measured_record_is_what_the_next_size_is_read_from(store: Store) -> None:
    desk = build_desk(store)
    assert trade_through(desk, "AAA", 106.0).confidence == 0.62
    (trace,) = desk.pipeline.run([signal("BBB")])
    # One hit of one, shrunk by ten halves: (1 + 5) / 11.
    assert trace.binding_constraint is BindingConstraint.TIER_BLOCKED
    assert "confidence 0.545 is tier 3" in str(trace.kill_reason)


def test_an_outcome_that_was_told_in_part_is_told_once_in_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = build_desk(store)

    def die(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(desk.pipeline.log, "settle", die)
        with pytest.raises(KeyboardInterrupt):
            trade_through(desk, "AAA", 106.0)
    exp = {line.agent_name: line.exp for line in store.trading.list_exp()}
    assert len(desk.pipeline.log.list_unsettled()) == 1
    fresh = desk.restart()
    fresh.pipeline.recover()
    assert fresh.pipeline.log.list_unsettled() == []
    assert {line.agent_name: line.exp for line in store.trading.list_exp()} == exp


def test_an_outcome_waits_for_an_embedder_that_fails(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = build_desk(store)

    def fail(*arguments: Any) -> None:
        raise ChatModelError("no embeddings today")

    with monkeypatch.context() as patch:
        patch.setattr(store.knowledge, "save_documents", fail)
        trace = trade_through(desk, "AAA", 106.0)
        assert [trade.hit for trade in store.trading.trades.list_trades()] == [True]
        assert len(desk.pipeline.log.list_unsettled()) == 1
    desk.restart().pipeline.recover()
    assert desk.pipeline.log.list_unsettled() == []
    assert store.knowledge.get_document(trace.trace_id).outcome is not None


def test_a_document_that_zeus_wrote_keeps_its_place_and_gets_its_outcome(store: Store) -> None:
    desk = build_desk(store)
    (trace,) = desk.pipeline.run([signal("AAA")])
    earlier = KnowledgeDocument(
        doc_id=trace.trace_id,
        collection=KnowledgeCollection.DECISIONS,
        document_text="written at the decision",
        known_at=trace.decided_at,
    )
    store.knowledge.save_documents([earlier])
    desk.bar("AAA", 100.0)
    desk.bar("AAA", 96.0)
    desk.pipeline.tick()
    document = store.knowledge.get_document(trace.trace_id)
    assert document.outcome is not None
    assert document.outcome.values["hit"] is False
    assert document.outcome.values["exit_reason"] == "stop_loss"


def test_sales_on_decisions_go_to_the_oldest_trade_first_however_often_it_is_traded(store: Store) -> None:
    config = TradingConfig(limits=LimitsConfig(cooldown_hours=0.0), pipeline=PipelineConfig(tick_seconds=0.0))
    desk = build_desk(store, config=config, cash=200_000.0)
    prices = []
    for exit_price in (101.0, 98.0):
        (bought,) = desk.pipeline.run([signal("AAA")])
        assert bought.status is PipelineStatus.SUBMITTED, bought
        desk.bar("AAA", 100.0)
        desk.pipeline.run([bad_news("AAA")])
        desk.bar("AAA", exit_price)
        desk.pipeline.tick()
        desk.prices.last["AAA"] = 100.0
        prices.append(exit_price)
    trades = desk.store.trading.trades.list_trades()
    assert [(trade.exit_price, trade.exit_reason) for trade in trades] == [(price, "signal") for price in prices]
    assert [trade.hit for trade in trades] == [True, False]
    assert desk.pipeline.argus.held == {}
