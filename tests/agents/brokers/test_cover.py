"""When shares need exits, worked out by hand."""

import pytest

from agents.brokers.broker import BrokerOrder, BrokerPosition
from agents.brokers.cover import is_uncovered
from core.types import PipelineStatus, Side


def order(name: str, side: Side, qty: float, filled: float = 0.0, symbol: str = "A") -> BrokerOrder:
    status = PipelineStatus.SUBMITTED
    return BrokerOrder(client_order_id=name, order_id=name, symbol=symbol, side=side, qty=qty, filled_qty=filled, status=status)


BOUGHT = order("a", Side.BUY, 10.0, 4.0)
SOLD = order("a", Side.SELL, 10.0, 4.0)


@pytest.mark.parametrize(
    ("entry", "held", "living", "needed"),
    [
        (BOUGHT, 4.0, [], True),
        (BOUGHT, 3.0, [], False),
        (BOUGHT, 0.0, [], False),
        (BOUGHT, -4.0, [], False),
        (order("a", Side.BUY, 10.0), 4.0, [], False),
        (BOUGHT, 4.0, [order("s", Side.SELL, 1.0)], False),
        (BOUGHT, 4.0, [order("s", Side.SELL, 1.0, symbol="B"), order("b", Side.BUY, 1.0)], True),
        (BOUGHT, 9.0, [order("s", Side.SELL, 7.0, 2.0)], True),
        (BOUGHT, 9.0, [order("b-sl", Side.SELL, 5.0), order("b-tp", Side.SELL, 5.0)], True),
        (BOUGHT, 8.0, [order("b-sl", Side.SELL, 5.0), order("b-tp", Side.SELL, 5.0)], False),
        (BOUGHT, 8.0, [order("b-sl", Side.SELL, 5.0)], False),
        (SOLD, -4.0, [], True),
        (SOLD, -4.0, [order("c", Side.BUY, 1.0)], False),
        (SOLD, 4.0, [], False),
    ],
)
def test_exits_are_needed_for_what_is_held_and_promised_to_nobody(
    entry: BrokerOrder, held: float, living: list[BrokerOrder], needed: bool
) -> None:
    positions = [BrokerPosition(symbol="B", qty=99.0, avg_cost=1.0)]
    positions += [BrokerPosition(symbol="A", qty=held, avg_cost=1.0)] if held else []
    assert is_uncovered(entry, positions, living) is needed
