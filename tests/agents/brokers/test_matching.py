"""The rules on their own, every figure worked out by hand."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.brokers.broker import Execution, Leg
from agents.brokers.matching import MatchingRules, WorkingOrder, expire, match_bars, opposite
from agents.trading.market_data import Bar
from core.errors import ConfigurationError
from core.types import PipelineStatus, Side

T0 = datetime(2024, 1, 2, 21, tzinfo=UTC)
FREE = MatchingRules(commission_bps=0.0, slippage_bps=0.0)
COSTLY = MatchingRules(commission_bps=10.0, slippage_bps=50.0)


def order(**changes: Any) -> WorkingOrder:
    values: dict[str, Any] = {
        "client_order_id": "a",
        "order_id": "1",
        "symbol": "AAA",
        "side": Side.BUY,
        "qty": 100.0,
        "placed_at": T0,
    }
    return WorkingOrder(**{**values, **changes})


def bracket(**changes: Any) -> WorkingOrder:
    return order(**{"limit_price": 100.0, "stop_loss_price": 97.0, "take_profit_price": 106.0, **changes})


def held(**changes: Any) -> WorkingOrder:
    return bracket(filled_qty=100.0, status=PipelineStatus.FILLED, **changes)


def bar(opened: float, high: float, low: float, close: float, *, volume: float | None = None, day: int = 1) -> Bar:
    return Bar(symbol="AAA", at=T0 + timedelta(days=day), open=opened, high=high, low=low, close=close, volume=volume)


def flat(price: float, **more: Any) -> Bar:
    return bar(price, price, price, price, **more)


def meet(working: WorkingOrder, *bars: Bar, rules: MatchingRules = FREE) -> tuple[WorkingOrder, list[Execution]]:
    executions = []
    for one in bars:
        changed, fills = match_bars([working], one, rules)
        working = changed[0] if changed else working
        executions += fills
    return working, executions


def figures(executions: list[Execution]) -> list[tuple[str, float, float]]:
    return [(fill.leg.value, fill.qty, fill.price) for fill in executions]


def test_a_market_order_is_filled_at_the_next_open_with_slippage_and_commission() -> None:
    after, (fill,) = meet(order(), bar(50.0, 60.0, 40.0, 55.0), rules=COSTLY)
    assert (fill.leg, fill.side, fill.qty, fill.filled_at) == (Leg.ENTRY, Side.BUY, 100.0, T0 + timedelta(days=1))
    assert fill.price == pytest.approx(50.25)
    assert fill.commission == pytest.approx(100 * 50.25 * 0.001)
    assert after.status is PipelineStatus.FILLED
    _, (sale,) = meet(order(side=Side.SELL), bar(50.0, 60.0, 40.0, 55.0), rules=COSTLY)
    assert sale.price == pytest.approx(49.75)


@pytest.mark.parametrize(
    ("side", "one", "price"),
    [
        (Side.BUY, bar(99.0, 103.0, 98.0, 102.0), 99.0),
        (Side.BUY, bar(102.0, 103.0, 99.5, 102.0), 100.0),
        (Side.BUY, bar(102.0, 103.0, 100.0, 102.0), 100.0),
        (Side.BUY, bar(102.0, 103.0, 100.01, 102.0), None),
        (Side.SELL, bar(101.0, 103.0, 98.0, 102.0), 101.0),
        (Side.SELL, bar(98.0, 100.5, 97.0, 98.0), 100.0),
        (Side.SELL, bar(98.0, 99.99, 97.0, 98.0), None),
    ],
)
def test_a_limit_is_filled_at_the_better_of_open_and_limit_and_never_slips(side: Side, one: Bar, price: float | None) -> None:
    _, fills = meet(order(side=side, limit_price=100.0), one, rules=COSTLY)
    assert [fill.price for fill in fills] == ([] if price is None else [price])


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (bar(99.0, 101.0, 96.0, 98.0), ("stop_loss", 97.0)),
        (bar(95.0, 101.0, 94.0, 98.0), ("stop_loss", 95.0)),
        (bar(99.0, 107.0, 98.0, 105.0), ("take_profit", 106.0)),
        (bar(108.0, 109.0, 98.0, 105.0), ("take_profit", 108.0)),
        (bar(99.0, 107.0, 96.0, 105.0), ("stop_loss", 97.0)),
        (bar(108.0, 109.0, 96.0, 98.0), ("stop_loss", 97.0)),
        (bar(99.0, 105.9, 97.1, 98.0), None),
    ],
)
def test_stop_before_target_and_the_open_when_it_gaps(one: Bar, expected: tuple[str, float] | None) -> None:
    after, fills = meet(held(), one)
    assert figures(fills) == ([] if expected is None else [(expected[0], 100.0, expected[1])])
    assert after.has_living_exits == (expected is None)


def test_the_exits_of_a_short_position_are_mirrored() -> None:
    short = {"side": Side.SELL, "stop_loss_price": 103.0, "take_profit_price": 94.0}
    assert figures(meet(held(**short), bar(101.0, 103.5, 93.0, 95.0))[1]) == [("stop_loss", 100.0, 103.0)]
    assert figures(meet(held(**short), bar(105.0, 106.0, 99.0, 100.0))[1]) == [("stop_loss", 100.0, 105.0)]
    assert figures(meet(held(**short), bar(101.0, 102.0, 93.0, 95.0))[1]) == [("take_profit", 100.0, 94.0)]
    assert meet(held(**short), bar(101.0, 102.0, 93.0, 95.0))[1][0].side is Side.BUY


def test_exits_slip_and_pay_commission() -> None:
    _, (stopped,) = meet(held(), bar(99.0, 101.0, 96.0, 98.0), rules=COSTLY)
    assert (stopped.price, stopped.commission) == (pytest.approx(97.0 * 0.995), pytest.approx(97.0 * 0.995 * 100 * 0.001))
    _, (gained,) = meet(held(), bar(99.0, 107.0, 98.0, 105.0), rules=COSTLY)
    assert gained.price == pytest.approx(106.0 * 0.995)


def test_an_entry_at_the_open_may_be_stopped_on_its_own_bar() -> None:
    after, fills = meet(bracket(), bar(99.0, 101.0, 96.0, 98.0))
    assert figures(fills) == [("entry", 100.0, 99.0), ("stop_loss", 100.0, 97.0)]
    assert after.status is PipelineStatus.FILLED
    assert after.describe(Leg.STOP_LOSS).status is PipelineStatus.FILLED
    assert after.describe(Leg.TAKE_PROFIT).status is PipelineStatus.CANCELLED


def test_an_entry_inside_the_bar_does_not_profit_from_a_high_that_may_have_come_before() -> None:
    after, fills = meet(bracket(), bar(103.0, 107.0, 99.0, 101.0))
    assert figures(fills) == [("entry", 100.0, 100.0)]
    assert after.has_living_exits
    assert figures(meet(bracket(), bar(103.0, 107.0, 99.0, 106.5))[1])[1:] == [("take_profit", 100.0, 106.0)]
    assert figures(meet(bracket(), bar(103.0, 107.0, 96.0, 106.5))[1])[1:] == [("stop_loss", 100.0, 97.0)]


def test_an_entry_that_opens_below_its_own_stop_is_sold_at_the_same_open() -> None:
    assert figures(meet(bracket(), bar(95.0, 98.0, 94.0, 97.5))[1]) == [("entry", 100.0, 95.0), ("stop_loss", 100.0, 95.0)]


def test_the_volume_cuts_a_fill_to_whole_lots_and_the_rest_works_on() -> None:
    rules = replace(FREE, participation_limit=0.1, lot_size=10.0)
    working, fills = meet(order(), flat(50.0, volume=350.0), rules=rules)
    assert figures(fills) == [("entry", 30.0, 50.0)]
    assert working.status is PipelineStatus.PARTIALLY_FILLED
    working, fills = meet(working, flat(51.0, volume=5000.0, day=2), rules=rules)
    assert figures(fills) == [("entry", 70.0, 51.0)]
    assert working.status is PipelineStatus.FILLED
    for volume in (None, 0.0, 99.0):
        assert meet(order(), flat(50.0, volume=volume), rules=rules)[1] == []


def test_orders_share_the_volume_of_a_bar_oldest_first() -> None:
    rules = replace(FREE, participation_limit=0.5)
    orders = [order(), order(client_order_id="b")]
    changed, fills = match_bars(orders, flat(50.0, volume=260.0), rules)
    assert [(fill.client_order_id, fill.qty) for fill in fills] == [("a", 100.0), ("b", 30.0)]
    assert [one.filled_qty for one in changed] == [100.0, 30.0]


def test_a_stop_cut_by_the_volume_sells_the_rest_at_the_next_open_whatever_the_price() -> None:
    rules = replace(FREE, participation_limit=0.1)
    working, fills = meet(held(), bar(99, 101, 96, 98, volume=400), bar(107, 120, 107, 108, volume=900, day=2), rules=rules)
    assert figures(fills) == [("stop_loss", 40.0, 97.0), ("stop_loss", 60.0, 107.0)]
    assert not working.has_living_exits


def test_exits_cover_what_is_filled_and_the_first_of_them_ends_the_entry() -> None:
    rules = replace(FREE, participation_limit=0.1)
    working, fills = meet(bracket(), flat(99.0, volume=300.0), bar(98.0, 98.5, 96.0, 96.5, volume=300.0, day=2), rules=rules)
    # On the second bar the entry takes all of the volume first; the touched stop sells at the third open.
    assert figures(fills) == [("entry", 30.0, 99.0), ("entry", 30.0, 98.0)]
    assert working.stop_triggered
    assert working.status is PipelineStatus.CANCELLED
    working, fills = meet(working, flat(96.0, volume=10_000.0, day=3), rules=rules)
    assert figures(fills) == [("stop_loss", 60.0, 96.0)]
    assert working.filled_qty == working.stop_filled_qty == 60.0


def test_fractions_of_shares_add_up_exactly() -> None:
    rules = replace(FREE, participation_limit=0.1, lot_size=0.1)
    working, fills = meet(
        order(qty=0.3), *(flat(50.0, volume=volume, day=day) for day, volume in enumerate([1.5, 2.5], 1)), rules=rules
    )
    assert [fill.qty for fill in fills] == [0.1, 0.2]
    assert (working.filled_qty, working.status) == (0.3, PipelineStatus.FILLED)


def test_an_entry_expires_before_a_bar_that_ends_after_it_and_its_exits_stay() -> None:
    late = bracket(expires_at=T0 + timedelta(hours=2))
    working, fills = meet(late, flat(99.0))
    assert (working.status, fills) == (PipelineStatus.EXPIRED, [])
    part = replace(late, filled_qty=10.0, status=PipelineStatus.PARTIALLY_FILLED)
    working, fills = meet(part, flat(96.0))
    assert working.status is PipelineStatus.EXPIRED
    assert figures(fills) == [("stop_loss", 10.0, 96.0)]
    in_time = bracket(expires_at=T0 + timedelta(days=1))
    assert figures(meet(in_time, flat(99.0))[1]) == [("entry", 100.0, 99.0)]
    assert expire(in_time, T0 + timedelta(days=1)) is in_time


def test_commission_per_share_and_its_minimum() -> None:
    rules = MatchingRules(commission_bps=1.0, commission_per_share=0.005, minimum_commission=1.0)
    assert rules.commission(100.0, 50.0) == pytest.approx(1.0)  # 0.5 of value and 0.5 of shares
    assert rules.commission(1000.0, 50.0) == pytest.approx(10.0)
    assert rules.commission(1.0, 50.0) == 1.0


def test_an_exit_is_pending_until_its_entry_has_a_fill() -> None:
    assert bracket().describe(Leg.STOP_LOSS).status is PipelineStatus.PENDING
    dead = bracket(status=PipelineStatus.CANCELLED)
    assert dead.describe(Leg.STOP_LOSS).status is PipelineStatus.CANCELLED
    part = bracket(status=PipelineStatus.CANCELLED, filled_qty=30.0, target_filled_qty=10.0)
    target, stop = part.describe(Leg.TAKE_PROFIT), part.describe(Leg.STOP_LOSS)
    assert (target.client_order_id, target.side, target.qty, target.filled_qty) == ("a-tp", Side.SELL, 30.0, 10.0)
    assert (target.status, stop.status) == (PipelineStatus.PARTIALLY_FILLED, PipelineStatus.SUBMITTED)


@pytest.mark.parametrize(
    "wrong",
    [
        {"commission_bps": -1.0},
        {"slippage_bps": float("nan")},
        {"lot_size": 0.0},
        {"lot_size": True},
        {"participation_limit": 0.0},
        {"participation_limit": 1.5},
        {"minimum_commission": "1"},
    ],
)
def test_rules_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        MatchingRules(**wrong)


prices = st.floats(50.0, 150.0).map(lambda price: round(price, 2))


@st.composite
def some_bars(draw: st.DrawFn) -> list[Bar]:
    bars = []
    for day in range(1, draw(st.integers(1, 12)) + 1):
        four = [draw(prices) for _ in range(4)]
        volume = draw(st.one_of(st.none(), st.integers(0, 600).map(float)))
        bars.append(bar(four[0], max(four), min(four), four[3], volume=volume, day=day))
    return bars


@settings(max_examples=150, deadline=None)
@given(
    bars=some_bars(),
    side=st.sampled_from(Side),
    limit=st.one_of(st.none(), st.just(100.0)),
    participation=st.one_of(st.none(), st.just(0.2)),
    qty=st.integers(1, 200).map(float),
    expires=st.one_of(st.none(), st.integers(1, 5)),
)
def test_nothing_is_overfilled_and_exits_never_sell_more_than_was_bought(
    bars: list[Bar], side: Side, limit: float | None, participation: float | None, qty: float, expires: int | None
) -> None:
    stop, target = (95.0, 110.0) if side is Side.BUY else (105.0, 90.0)
    working = order(
        side=side,
        qty=qty,
        limit_price=limit,
        stop_loss_price=stop,
        take_profit_price=target,
        expires_at=None if expires is None else T0 + timedelta(days=expires),
    )
    rules = replace(COSTLY, participation_limit=participation)
    position = 0.0
    seen: set[str] = set()
    ended = False
    for one in bars:
        changed, fills = match_bars([working], one, rules)
        working = changed[0] if changed else working
        room = float("inf") if participation is None else participation * (one.volume or 0.0)
        assert sum(fill.qty for fill in fills) <= room
        for fill in fills:
            assert fill.exec_id not in seen
            seen.add(fill.exec_id)
            assert not (ended and fill.leg is Leg.ENTRY)
            ended |= fill.leg is not Leg.ENTRY
            assert fill.side is (side if fill.leg is Leg.ENTRY else opposite(side))
            slip = 1.005 if fill.side is Side.BUY else 0.995
            quoted = fill.price if fill.leg is Leg.ENTRY and limit is not None else fill.price / slip
            assert one.low - 1e-9 <= quoted <= one.high + 1e-9
            position += fill.qty if fill.leg is Leg.ENTRY else -fill.qty
            assert 0.0 <= position <= qty
        assert position == working.filled_qty - working.stop_filled_qty - working.target_filled_qty
        assert len({fill.leg for fill in fills} - {Leg.ENTRY}) <= 1, "one exit or the other"
    done = {Leg.STOP_LOSS: working.stop_filled_qty, Leg.TAKE_PROFIT: working.target_filled_qty}
    assert not all(qty == working.filled_qty > 0.0 for qty in done.values())
