"""The paper broker over each way to the database."""

from core.store.opening import Store
from core.types import PipelineStatus
from tests.agents.brokers.test_paper import bar, bracket, build
from tests.core.store.conftest import stand_in, store

__all__ = ["stand_in", "store"]


def test_an_order_lives_and_dies_the_same_over_every_transport(store: Store) -> None:
    broker = build(store.trading.gateway)
    assert broker.place_order(bracket()) == broker.place_order(bracket())
    assert broker.place_orders([bracket()]) == [broker.place_order(bracket())]
    (bought,) = broker.on_bar(bar(1, 99.25))
    assert broker.on_bar(bar(1, 99.25)) == []
    assert [one.client_order_id for one in broker.list_open_orders()] == ["a-sl", "a-tp"]
    assert broker.place_order(bracket("b", qty=1_001.0)).status is PipelineStatus.REJECTED
    (sold,) = broker.on_bar(bar(2, 96.5))
    assert broker.list_executions() == [bought, sold]
    assert (sold.client_order_id, sold.price) == ("a-sl", 96.5)
    assert broker.get_account().cash == 100_000.0 - 9_925.0 + 9_650.0
    assert broker.list_positions() == []
    assert broker.place_exits(bracket("x")).status is PipelineStatus.REJECTED
    again = broker.find_order("a-sl")
    assert again is not None
    assert again.status is PipelineStatus.FILLED
    assert broker.place_order(bracket("c", limit_price=100.0)).status is PipelineStatus.SUBMITTED
    assert broker.cancel_order("c").status is PipelineStatus.CANCELLED
