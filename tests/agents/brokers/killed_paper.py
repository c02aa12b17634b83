"""A process that trades on paper and may be killed at any time: it always starts again from the beginning."""

import sys
from datetime import UTC, datetime, timedelta

from agents.brokers.broker import Order
from agents.brokers.matching import MatchingRules
from agents.brokers.paper import PaperBroker, PaperConfig
from agents.trading.market_data import Bar
from core.clock import FixedClock
from core.store.postgres import PostgresGateway
from core.types import Side

T0 = datetime(2024, 1, 2, 21, tzinfo=UTC)
DAYS = 120


def trade(gateway: PostgresGateway, account: str) -> None:
    """Place an order a day and hand in the day's bar."""
    config = PaperConfig(account=account, rules=MatchingRules(participation_limit=0.5))
    for day in range(DAYS):
        broker = PaperBroker(gateway, config, FixedClock(T0 + timedelta(days=day)))
        broker.connect()
        price = 100.0 + 5.0 * ((day * 7) % 11 - 5)
        symbol = f"S{day % 3}"
        order = Order(
            client_order_id=f"o{day}",
            symbol=symbol,
            side=Side.BUY,
            qty=float(1 + day % 5),
            limit_price=price + 1.0,
            stop_loss_price=price * 0.97,
            take_profit_price=price * 1.06,
        )
        broker.place_order(order)
        at = T0 + timedelta(days=day + 1)
        bars = [
            Bar(
                symbol=f"S{number}",
                at=at,
                open=price,
                high=price * 1.04,
                low=price * 0.98,
                close=price,
                volume=float(4 + day % 4),
            )
            for number in range(3)
        ]
        broker.on_bars(bars)
        if day % 10 == 9:
            broker.cancel_order(f"o{day - 3}-tp")


if __name__ == "__main__":
    own = PostgresGateway(sys.argv[1], role="service_role").open()
    sys.stdout.write("started\n")
    sys.stdout.flush()
    trade(own, "killed")
    own.close()
