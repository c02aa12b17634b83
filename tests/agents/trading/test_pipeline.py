"""The pipeline from a signal to its outcome, over a real store and a paper broker."""

import pytest

from core.store.opening import Store
from core.types import BindingConstraint, PipelineStatus, Side, Stage
from tests.agents.trading.desk import CASH, Desk, bad_news, build_desk, signal


@pytest.fixture
def desk(store: Store) -> Desk:
    return build_desk(store)


def test_a_good_signal_becomes_one_bracket_that_is_filled_and_closed_at_its_target(desk: Desk) -> None:
    news = signal("AAA")
    (trace,) = desk.pipeline.run([news])
    assert (trace.status, trace.signal_id, trace.symbol) == (PipelineStatus.SUBMITTED, news.signal_id, "AAA")
    assert [outcome.stage for outcome in trace.stages] == list(Stage)
    # A trainee on paper may stake one percent: 500 of 50,000, five shares at 100.
    assert trace.position_pct == 0.01
    (order,) = [order for order in desk.broker.list_open_orders() if order.side is Side.BUY]
    assert (order.qty, order.symbol) == (5.0, "AAA")
    desk.bar("AAA", 100.0)
    desk.pipeline.tick()
    assert desk.pipeline.argus.held == {"AAA": 5.0}
    assert desk.pipeline.argus.valuation is not None
    assert desk.pipeline.argus.valuation.equity == CASH
    desk.bar("AAA", 107.0)
    desk.pipeline.tick()
    (trade,) = desk.store.trading.trades.list_trades()
    assert (trade.hit, trade.exit_reason, trade.fill_price) == (True, "take_profit", 100.0)
    assert trade.exit_price == 107.0
    assert desk.pipeline.argus.valuation.equity == CASH + 35.0
    stored = desk.pipeline.log.find_traces([news.signal_id])
    assert [(item.status, item.pnl_pct) for item in stored] == [(PipelineStatus.CLOSED, pytest.approx(0.07))]
    assert {row["status"] for row in desk.rows("order_intents")} == {"filled", "cancelled"}
    assert desk.pipeline.log.list_unsettled() == []
    document = desk.store.knowledge.get_document(trace.trace_id)
    assert document.outcome is not None
    assert document.outcome.values["hit"] is True


def test_bad_news_about_what_is_held_sells_it_and_about_what_is_not_is_refused(desk: Desk) -> None:
    (refused,) = desk.pipeline.run([bad_news("AAA")])
    assert (refused.killed_at_stage, refused.binding_constraint) == (Stage.ARES, BindingConstraint.OUT_OF_UNIVERSE)
    desk.pipeline.run([signal("AAA")])
    desk.bar("AAA", 100.0)
    (sold,) = desk.pipeline.run([bad_news("AAA")])
    assert sold.status is PipelineStatus.SUBMITTED
    desk.bar("AAA", 99.0)
    desk.pipeline.tick()
    (trade,) = desk.store.trading.trades.list_trades()
    assert (trade.hit, trade.exit_reason, trade.exit_price) == (False, "signal", 99.0)
    assert desk.pipeline.argus.held == {}
    assert desk.broker.list_open_orders() == []
    assert {row["status"] for row in desk.rows("order_intents")} == {"filled", "cancelled"}
