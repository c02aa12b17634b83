"""Rounds on the desk: what waits in the store is decided once, and nothing while the exchange is closed."""

from datetime import UTC, datetime, timedelta

import pytest

from agents.trading import running
from agents.trading.argus import Valuation
from agents.trading.market_data import Bar
from agents.trading.running import Round, feed_broker, run_round, run_rounds
from agents.trading.sessions import ExchangeSessions
from core.clock import FixedClock
from core.errors import MissingDataError
from core.store.opening import Store
from core.types import PipelineStatus
from tests.agents.trading.desk import NOW, Desk, build_desk, signal


@pytest.fixture
def desk(store: Store) -> Desk:
    built = build_desk(store)
    open_gates = built.context.gates.icarus
    open_gates.scan = lambda worker: store.trading.claim_signals(worker, 2)  # type: ignore[attr-defined]
    return built


def save(store: Store, *symbols: str) -> None:
    for symbol in symbols:
        item = signal(symbol)
        store.trading.save_signal(item, source="test", source_key=item.signal_id)


def test_a_round_decides_on_all_that_waits_and_the_next_on_nothing(desk: Desk, store: Store) -> None:
    save(store, "AAA", "BBB", "CCC")
    done = run_round(desk.pipeline, "worker")
    assert [trace.symbol for trace in done.traces] == ["AAA", "BBB", "CCC"]
    assert {trace.status for trace in done.traces} == {PipelineStatus.SUBMITTED}
    assert (done.at, done.valuation.equity) == (NOW, 50_000.0)
    assert run_round(desk.pipeline, "worker").traces == ()


def test_time_passes_at_the_paper_broker_before_anything_is_decided(desk: Desk, store: Store) -> None:
    save(store, "AAA")
    run_round(desk.pipeline, "worker")
    desk.clock.advance(timedelta(minutes=5))
    (order,) = [one for one in desk.broker.list_open_orders() if one.symbol == "AAA"]
    assert order.filled_qty == 0.0
    bar_at = desk.clock.now()
    desk.prices.bars["AAA"] = [Bar(symbol="AAA", at=bar_at, open=100.0, high=101.0, low=99.0, close=100.0)]
    done = run_round(desk.pipeline, "worker")
    assert done.valuation.positions > 0.0
    (trade,) = store.trade_log.list_trades(open_only=True)
    assert trade.qty == order.qty
    assert run_round(desk.pipeline, "worker").valuation.positions == done.valuation.positions


def minutes(desk: Desk, prices: list[float]) -> list[Bar]:
    """Make bars of one price each, a minute apart, from a minute after now on, and let that time pass."""
    begin = desk.clock.now()
    desk.clock.advance(timedelta(minutes=len(prices)))
    times = [begin + timedelta(minutes=k + 1) for k in range(len(prices))]
    return [Bar(symbol="AAA", at=at, open=p, high=p, low=p, close=p) for at, p in zip(times, prices, strict=True)]


@pytest.mark.parametrize("n", [9, 10, 11, 150, 1_500])
def test_a_stop_in_a_bar_of_long_ago_is_met(desk: Desk, store: Store, n: int) -> None:
    save(store, "AAA")
    run_round(desk.pipeline, "worker")
    desk.prices.bars["AAA"] = minutes(desk, [100.0])
    run_round(desk.pipeline, "worker")
    fallen, *rest = minutes(desk, [96.0, *[100.0] * (n - 1)])
    desk.prices.bars["AAA"] += [fallen, *rest]
    run_round(desk.pipeline, "worker")
    (trade,) = store.trade_log.list_trades()
    assert (trade.exit_reason, trade.exit_price, trade.closed_at) == ("stop_loss", 96.0, fallen.at)
    assert desk.pipeline.argus.held == {}


def test_no_more_bars_are_asked_for_than_the_orders_have_missed(desk: Desk, store: Store) -> None:
    save(store, "AAA")
    desk.prices.bars["AAA"] = minutes(desk, [100.0] * 3_000)
    run_round(desk.pipeline, "worker")
    asked: list[int] = []
    told = desk.prices.list_bars

    def list_bars(symbol: str, as_of: datetime, n: int) -> list[Bar]:
        asked.append(n)
        return told(symbol, as_of, n)

    desk.prices.list_bars = list_bars  # type: ignore[method-assign]
    for missed, expected in ((1, [10]), (9, [10]), (10, [10, 100]), (99, [10, 100]), (0, [10])):
        desk.prices.bars["AAA"] += minutes(desk, [100.0] * missed)
        asked.clear()
        feed_broker(desk.broker, desk.prices, desk.clock.now(), {"AAA"})
        assert asked == expected


def test_bars_are_asked_for_up_to_a_bound_and_what_is_beyond_is_told(
    desk: Desk, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(running, "_MOST_BARS_BACK", 40)
    save(store, "AAA")
    run_round(desk.pipeline, "worker")
    desk.prices.bars["AAA"] = minutes(desk, [101.0] * 50 + [100.0])
    assert feed_broker(desk.broker, desk.prices, desk.clock.now(), {"AAA"}) == 1
    assert f"wait since {NOW}, and meet no bar before {NOW + timedelta(minutes=12)}" in caplog.text


def test_a_symbol_waits_since_its_last_bar_or_its_oldest_open_order(desk: Desk, store: Store) -> None:
    save(store, "AAA", "BBB")
    run_round(desk.pipeline, "worker")
    assert desk.broker.waiting_since() == {"AAA": NOW, "BBB": NOW}
    desk.bar("AAA", 101.0)
    assert desk.broker.waiting_since() == {"AAA": NOW + timedelta(minutes=1), "BBB": NOW}


def test_a_source_that_fails_stops_the_time_of_its_symbols_and_nothing_else(
    desk: Desk, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save(store, "AAA", "BBB")
    run_round(desk.pipeline, "worker")
    desk.clock.advance(timedelta(minutes=5))
    desk.prices.bars["BBB"] = [Bar(symbol="BBB", at=desk.clock.now(), open=50.0, high=50.0, low=50.0, close=50.0)]
    told = desk.prices.list_bars

    def list_bars(symbol: str, as_of: datetime, n: int) -> list[Bar]:
        if symbol == "AAA":
            raise MissingDataError("the source is down")
        return told(symbol, as_of, n)

    monkeypatch.setattr(desk.prices, "list_bars", list_bars)
    run_round(desk.pipeline, "worker")
    assert [trade.symbol for trade in store.trade_log.list_trades() if trade.qty] == ["BBB"]
    assert "no time passes for the orders of AAA: the source is down" in caplog.text


def test_a_signal_of_a_crashed_worker_is_decided_by_another(desk: Desk, store: Store) -> None:
    save(store, "AAA")
    (claimed,) = store.trading.claim_signals("crashed", 2)
    assert run_round(desk.pipeline, "worker").traces == ()
    desk.pipeline.run([claimed])
    assert store.trading.consume_signals("crashed", [claimed.signal_id]) == 1


class Napping:
    """A clock that moves only when somebody sleeps."""

    def __init__(self, start: datetime) -> None:
        self.clock, self.naps, self.rests = FixedClock(start), list[float](), list[datetime]()

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.clock.advance(timedelta(seconds=seconds))


def run(napping: Napping, most: int, *, takes: float = 0.0) -> tuple[list[datetime], list[datetime]]:
    """Run rounds of New York, each of which takes some seconds, and return when they were and what was waited for."""
    rounds: list[datetime] = []
    waits: list[datetime] = []

    def step() -> Round:
        at = napping.clock.now()
        napping.clock.advance(timedelta(seconds=takes))
        return Round(at=at, traces=(), valuation=Valuation(equity=None, cash=0.0, positions=0.0))

    done = run_rounds(
        step,
        clock=napping.clock,
        hours=ExchangeSessions(),
        every_seconds=900.0,
        rest=lambda: napping.rests.append(napping.clock.now()),
        rest_seconds=60.0,
        sleep=napping.sleep,
        on_round=lambda one: rounds.append(one.at),
        on_wait=waits.append,
        most=most,
    )
    assert done == most
    return rounds, waits


def test_rounds_are_so_far_apart_however_long_one_takes() -> None:
    start = datetime(2024, 7, 5, 14, tzinfo=UTC)
    rounds, waits = run(Napping(start), 3, takes=100.0)
    assert rounds == [start + timedelta(seconds=900 * k) for k in range(3)]
    assert waits == []


def test_a_round_that_takes_too_long_delays_the_next() -> None:
    start = datetime(2024, 7, 5, 14, tzinfo=UTC)
    rounds, _ = run(Napping(start), 2, takes=1_000.0)
    assert rounds == [start, start + timedelta(seconds=1_000)]


def test_there_is_rest_after_each_round_and_every_minute_until_the_next() -> None:
    start = datetime(2024, 7, 5, 14, tzinfo=UTC)
    napping = Napping(start)
    run(napping, 2, takes=10.0)
    assert napping.rests == [start + timedelta(seconds=10 + 60 * k) for k in range(15)]
    late = Napping(start)
    run(late, 2, takes=1_000.0)
    assert late.rests == [start + timedelta(seconds=1_000)]


def test_there_is_rest_every_minute_while_the_exchange_is_closed() -> None:
    opening = datetime(2024, 7, 5, 13, 30, tzinfo=UTC)
    napping = Napping(opening - timedelta(minutes=5))
    run(napping, 1)
    assert napping.rests == [opening - timedelta(minutes=k) for k in range(5, 0, -1)]


def test_nothing_is_done_while_the_exchange_is_closed() -> None:
    napping = Napping(datetime(2024, 7, 5, 19, 50, tzinfo=UTC))  # a Friday, ten minutes before the close
    rounds, waits = run(napping, 2)
    monday = datetime(2024, 7, 8, 13, 30, tzinfo=UTC)
    assert rounds == [datetime(2024, 7, 5, 19, 50, tzinfo=UTC), monday]
    assert waits == [monday]
    assert max(napping.naps) <= 60.0


def test_it_waits_for_the_opening_when_it_begins_on_a_holiday() -> None:
    rounds, waits = run(Napping(datetime(2024, 7, 4, 15, tzinfo=UTC)), 1)
    assert rounds == waits == [datetime(2024, 7, 5, 13, 30, tzinfo=UTC)]
