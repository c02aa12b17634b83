"""A process that is killed anywhere leaves a desk that recovers: no order twice, no fill lost, nothing unresolved."""

import signal as signals
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from core.settings import Settings
from core.store.decisions import ANEW
from core.store.opening import Store, open_store
from core.types import PipelineStatus, Side
from tests.agents.trading.desk import CASH, Desk
from tests.agents.trading.killed_desk import Fuse, live_in_another_process, live_through, news, notice_lost_exits, open_desk
from tests.conftest import Server


def check_that_the_stories_agree(desk: Desk) -> None:
    """Check our book against the paper account's own tables."""
    orders = desk.rows("paper_orders")
    entries = Counter(row["client_order_id"] for row in orders)
    assert max(entries.values(), default=0) <= 1
    decided = [row for row in desk.rows("order_intents") if row["signal_id"] is not None]
    assert max(Counter(row["signal_id"] for row in decided).values(), default=0) <= 1
    anew = {row["payload"][ANEW]["client_order_id"] for row in desk.rows("order_intents") if ANEW in row["payload"]}
    assert len(anew) <= 1
    assert {row["client_order_id"] for row in orders} <= {row["client_order_id"] for row in decided} | anew
    theirs = sorted((row["exec_id"], float(row["qty"]), float(row["price"])) for row in desk.rows("paper_fills"))
    ours = sorted((row["exec_id"], float(row["qty"]), float(row["price"])) for row in desk.rows("fills"))
    assert ours == theirs
    assert [row for row in decided if row["status"] in ("pending", "unknown")] == []
    held = {position.symbol: position.qty for position in desk.broker.list_positions()}
    assert desk.pipeline.argus.held == held
    cash = desk.broker.get_account().cash
    assert desk.pipeline.log.cash_movements() == CASH
    assert cash == pytest.approx(CASH + sum(line.cash for line in desk.pipeline.log.list_ledger()), abs=1e-6)
    assert desk.pipeline.argus.halts() == []
    watched = Counter[str]()
    for order in desk.broker.list_open_orders():
        if order.side is Side.SELL:
            watched[order.symbol] = max(watched[order.symbol], int(order.qty - order.filled_qty))
    assert {symbol: int(qty) for symbol, qty in held.items()} == dict(watched)
    assert desk.pipeline.log.list_unsettled() == []


def die_and_recover(server: Server, folder: Path, blows_at: int) -> bool:
    """Go through the day, killed at a point, then recover and go through it again; false when there is no such point."""
    database = server.create(server.template)
    try:
        code = live_in_another_process(database, folder, blows_at)
        assert code in (0, -signals.SIGKILL)
        with open_store(Settings(home=folder, database_url=database)) as store:  # type: ignore[arg-type]
            desk = open_desk(store, Fuse(None), 30.0)
            assert desk.pipeline.recover().synced.reachable
            check_that_the_stories_agree(desk)
            live_through(desk)
            check_that_the_stories_agree(desk)
            ids = [item.signal_id for part in (1, 2, 3) for item in news(part)]
            decided = [trace for trace in desk.pipeline.log.find_traces(ids) if trace.status is not PipelineStatus.KILLED]
            assert max(Counter(trace.signal_id for trace in decided).values()) == 1
            return code != 0
    finally:
        server.drop(database)


@pytest.fixture(scope="module")
def n_points(server: Server, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many points the day has."""
    database = server.create(server.template)
    fuse = Fuse(None)
    with open_store(Settings(home=tmp_path_factory.mktemp("home"), database_url=database)) as store:  # type: ignore[arg-type]
        desk = open_desk(store, fuse, 0.0)
        live_through(desk)
        check_that_the_stories_agree(desk)
        assert {trade.exit_reason for trade in desk.store.trading.trades.list_trades()} == {"signal", "take_profit", None}
    server.drop(database)
    return fuse.count


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_desk_that_is_killed_recovers(server: Server, store: Store, tmp_path: Path, n_points: int, share: float) -> None:
    assert die_and_recover(server, tmp_path, 1 + int(share * n_points))


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_a_desk_recovers_wherever_it_is_killed(server: Server, tmp_path: Path) -> None:
    kills = 0
    while die_and_recover(server, tmp_path, kills + 1):
        kills += 1
    assert kills >= 100


def points_of_lost_exits(server: Server, home: Path) -> list[str]:
    """Go through a day with lost exits, and return the points after they were lost."""
    database = server.create(server.template)
    fuse = Fuse(None)
    with open_store(Settings(home=home, database_url=database)) as store:  # type: ignore[arg-type]
        notice_lost_exits(open_desk(store, fuse, 0.0), fuse, None)
    server.drop(database)
    return fuse.points[-fuse.count :]


def die_with_lost_exits(server: Server, folder: Path, blows_at: int) -> None:
    database = server.create(server.template)
    try:
        assert live_in_another_process(database, folder, blows_at, loses_exits=True) == -signals.SIGKILL
        with open_store(Settings(home=folder, database_url=database)) as store:  # type: ignore[arg-type]
            desk = open_desk(store, Fuse(None), 30.0)
            assert desk.pipeline.recover().synced.reachable
            for _ in range(2):
                check_that_the_stories_agree(desk)
                assert (desk.pipeline.argus.held, len(desk.rows("paper_orders"))) == ({"AAA": 5.0}, 2)
                desk.clock.advance(timedelta(minutes=1))
                desk.pipeline.tick()
    finally:
        server.drop(database)


def test_a_desk_that_is_killed_while_it_gives_exits_back_has_one_pair_after_the_start(
    server: Server, store: Store, tmp_path: Path
) -> None:
    points = points_of_lost_exits(server, tmp_path)
    placing = points.index("before broker.place_exits")
    written = max(place for place in range(placing) if points[place] == "after store.rpc record_decisions")
    # Noticed and not written down, written down and not sent, sent and no answer kept.
    for blows_at in (written, written + 1, placing + 1, placing + 2):
        die_with_lost_exits(server, tmp_path, blows_at)


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_wherever_a_desk_is_killed_while_it_gives_exits_back(server: Server, tmp_path: Path) -> None:
    for place in range(len(points_of_lost_exits(server, tmp_path))):
        die_with_lost_exits(server, tmp_path, place + 1)
