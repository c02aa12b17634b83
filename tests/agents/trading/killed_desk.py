"""A desk whose process ends at one point, as a power cut would end it: no handler, no clean-up.

A point is before or after a call that may change something: of the broker, or of the store. `live` counts them and dies at the
one it is told; the same day is then gone through again by a process that does not die.
"""

from __future__ import annotations

import multiprocessing
import os
import signal as signals
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from agents.brokers.broker import BrokerOrder, Leg, Order, exit_ids
from agents.brokers.paper import PaperBroker, PaperConfig
from core.clock import FixedClock
from core.settings import Settings
from core.store.knowledge import PgKnowledgeBase
from core.store.opening import Store, open_store
from core.store.trading import TradingStore
from core.text import HashedNgramEmbedder
from core.types import RawSignal, Side
from tests.agents.trading.desk import CASH, FREE, NOW, Desk, bad_news, build_desk, refused, signal

PRICES = {"AAA": 100.0, "BBB": 50.0, "CCC": 20.0, "DDD": 10.0}
_CHANGES = ("insert", "upsert", "update", "delete", "rpc")
_BROKER_CALLS = (
    "place_order",
    "place_orders",
    "place_exits",
    "cancel_order",
    "find_order",
    "list_executions",
    "list_open_orders",
    "on_bars",
)


class Fuse:
    """Count points, and end the process at one."""

    def __init__(self, blows_at: int | None) -> None:
        self.count = 0
        self.blows_at = blows_at
        self.points: list[str] = []

    def pass_point(self, name: str) -> None:
        """Be at a point."""
        self.count += 1
        self.points.append(name)
        if self.count == self.blows_at:
            os.kill(os.getpid(), signals.SIGKILL)


class Fused:
    """Anything whose named methods are points before and after."""

    def __init__(self, inner: Any, methods: tuple[str, ...], fuse: Fuse, name: str) -> None:
        self._inner, self._methods, self._fuse, self._name = inner, methods, fuse, name

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._methods:
            return found

        def call(*arguments: Any, **more: Any) -> Any:
            point = f"{self._name}.{name} {arguments[0] if arguments and isinstance(arguments[0], str) else ''}".strip()
            self._fuse.pass_point(f"before {point}")
            answer = found(*arguments, **more)
            self._fuse.pass_point(f"after {point}")
            return answer

        return call


class Stubborn(PaperBroker):
    """A paper account at which CCC cannot be sold by an order of its own; nothing is kept of one that tries."""

    def place_order(self, order: Order) -> BrokerOrder:
        if (order.symbol, order.side) != ("CCC", Side.SELL):
            return super().place_order(order)
        return refused(order)


def news(number: int) -> list[RawSignal]:
    """Return the signals of a part of the day, the same ones in every process."""
    made = {
        1: [signal("AAA"), signal("BBB"), bad_news("DDD"), signal("CCC")],
        2: [bad_news("AAA"), bad_news("CCC")],
        3: [signal("DDD")],
    }[number]
    return [replace(item, signal_id=str(UUID(int=100 * number + place))) for place, item in enumerate(made)]


def open_desk(store: Store, fuse: Fuse, minutes: float) -> Desk:
    """Open the desk over a store whose every change is a point."""
    gateway: Any = Fused(store.trading.gateway, _CHANGES, fuse, "store")
    store = replace(store, trading=TradingStore(gateway), knowledge=PgKnowledgeBase(gateway, HashedNgramEmbedder()))
    clock = FixedClock(NOW + timedelta(minutes=minutes))
    inner = Stubborn(gateway, PaperConfig(initial_cash=CASH, rules=FREE), clock)
    broker = Fused(inner, _BROKER_CALLS, fuse, "broker")
    desk = build_desk(store, broker=broker, prices=PRICES, clock=clock)
    desk.broker = inner
    return desk


def live_through(desk: Desk) -> None:
    """Go through a day: buy three, sell one on bad news, fail to sell another, have one hit its target, buy a fourth."""
    desk.pipeline.recover()
    desk.pipeline.run(news(1))
    for symbol in ("AAA", "BBB", "CCC"):
        desk.bar(symbol, PRICES[symbol])
    desk.pipeline.tick()
    desk.pipeline.run(news(2))
    desk.bar("AAA", 101.0)
    desk.bar("BBB", 54.0)
    desk.pipeline.tick()
    desk.pipeline.run(news(3))
    desk.bar("DDD", PRICES["DDD"])
    desk.pipeline.tick()


def notice_lost_exits(desk: Desk, fuse: Fuse, blows_at: int | None) -> None:
    """Buy, have somebody cancel the exits at the broker, and give them back; points count from there on."""
    desk.pipeline.recover()
    desk.pipeline.run([signal("AAA")])
    desk.bar("AAA", PRICES["AAA"])
    desk.pipeline.tick()
    (entry,) = desk.rows("paper_orders")
    desk.broker.cancel_order(exit_ids(entry["client_order_id"])[Leg.STOP_LOSS])
    fuse.count, fuse.blows_at = 0, blows_at
    for _ in range(2):
        desk.clock.advance(timedelta(minutes=1))
        desk.pipeline.tick()


def live(database: str, home: str, blows_at: int | None, loses_exits: bool = False) -> None:
    """Open the store and go through a day, up to a point."""
    with open_store(Settings(home=Path(home), database_url=database)) as store:  # type: ignore[arg-type]
        if loses_exits:
            fuse = Fuse(None)
            notice_lost_exits(open_desk(store, fuse, 0.0), fuse, blows_at)
        else:
            live_through(open_desk(store, Fuse(blows_at), 0.0))


_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


def live_in_another_process(database: str, home: Path, blows_at: int | None, *, loses_exits: bool = False) -> int:
    """Go through a day in a process of its own and return its exit code."""
    process = _context.Process(target=live, args=(database, str(home), blows_at, loses_exits))
    process.start()
    process.join(120)
    code = process.exitcode
    assert code is not None
    process.close()
    return code
