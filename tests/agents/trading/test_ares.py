"""Ares: how a bracket is priced, how many shares it is for, and which way a signal points."""

import math
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.brokers.broker import Order
from agents.trading.ares import (
    Ares,
    AresConfig,
    OrderPlan,
    average_true_range,
    order_identity,
    to_tick,
    to_tick_above,
    whole_shares,
)
from agents.trading.direction import is_negative
from agents.trading.market_data import Bar
from core.clock import FixedClock
from core.errors import ConfigurationError
from core.types import BindingConstraint, Refusal, Side, SignalCategory
from tests.agents.trading.desk import NOW, Prices, signal

SIGNAL = "11111111-1111-1111-1111-111111111111"


def ares(prices: dict[str, float] | None = None, *, closes_in: float | None = None, **config: Any) -> Ares:
    class Sessions:
        def closes_at(self, at: Any) -> Any:
            return None if closes_in is None else at + timedelta(minutes=closes_in)

    data = Prices(FixedClock(NOW), {"AAA": 100.0} if prices is None else prices)
    return Ares(broker=None, data=data, config=AresConfig(**config), sessions=Sessions())  # type: ignore[arg-type]


def plan(agent: Ares, *, size: float = 0.02, equity: float = 10_000.0) -> Order:
    found = agent.plan_entry(SIGNAL, "AAA", size, equity, NOW)
    assert isinstance(found, OrderPlan)
    return found.order


def refusal(agent: Ares, *, size: float = 0.02, equity: float = 10_000.0) -> BindingConstraint:
    found = agent.plan_entry(SIGNAL, "AAA", size, equity, NOW)
    assert isinstance(found, Refusal)
    return found.constraint


def test_a_bracket_is_three_percent_below_and_six_above_its_limit() -> None:
    order = plan(ares())
    assert (order.side, order.qty) == (Side.BUY, 2.0)
    assert (order.limit_price, order.stop_loss_price, order.take_profit_price) == (100.0, 97.0, 106.0)
    assert order.expires_at == NOW + timedelta(minutes=120)


def test_an_entry_ends_with_the_session_if_that_is_sooner() -> None:
    assert plan(ares(closes_in=30)).expires_at == NOW + timedelta(minutes=30)
    assert plan(ares(closes_in=300)).expires_at == NOW + timedelta(minutes=120)


def test_the_plan_writes_down_the_order_and_both_its_exits() -> None:
    found = ares().plan_entry(SIGNAL, "AAA", 0.02, 10_000.0, NOW)
    assert isinstance(found, OrderPlan)
    name = order_identity(SIGNAL, "AAA")
    written = [(intent.client_order_id, intent.signal_id, intent.side, intent.qty) for intent, _ in found.intents]
    assert written == [
        (name, SIGNAL, Side.BUY, 2.0),
        (f"{name}-sl", None, Side.SELL, 2.0),
        (f"{name}-tp", None, Side.SELL, 2.0),
    ]
    assert Order.from_dict(found.intents[0][1]["order"]) == found.order


def test_a_decision_has_one_identity_and_another_symbol_or_signal_another() -> None:
    assert order_identity("a", "AAA") == order_identity("a", "AAA")
    assert len({order_identity(name, symbol) for name in ("a", "b") for symbol in ("AAA", "BBB")}) == 4


def test_the_order_of_a_decision_may_buy_what_it_is_worth_and_not_a_cent_less() -> None:
    assert plan(ares(), size=0.01, equity=10_000.0).qty == 1.0
    assert refusal(ares(), size=0.01, equity=9_999.99) is BindingConstraint.SIZE_BELOW_ONE_SHARE


def test_binary_fractions_neither_lose_nor_gain_a_share() -> None:
    assert 0.29 * 100.0 < 29.0
    assert whole_shares(100.0, 0.29, 1.0) == 29
    assert whole_shares(100.0, 0.07, 7.0) == 1
    assert whole_shares(1e9, 0.03, 0.01) == 3_000_000_000


@given(
    equity=st.decimals("0.01", "1e7", places=2),
    size=st.decimals("0.001", "0.1", places=4),
    price=st.decimals("0.01", "5000", places=2),
)
def test_shares_are_the_most_that_the_stake_pays_for(equity: Any, size: Any, price: Any) -> None:
    n = whole_shares(float(equity), float(size), float(price))
    stake = Fraction(equity) * Fraction(size)
    assert n * Fraction(price) <= stake < (n + 1) * Fraction(price)


def bars(n: int, high: float, low: float) -> list[Bar]:
    return [
        Bar(symbol="AAA", at=NOW - timedelta(days=n - place), open=100.0, high=high, low=low, close=100.0) for place in range(n)
    ]


def test_the_true_range_counts_the_gap_from_the_close_before() -> None:
    series = [
        Bar(symbol="AAA", at=NOW, open=10, high=11, low=9, close=10),
        Bar(symbol="AAA", at=NOW, open=14, high=15, low=13, close=14),  # 15 - 10
        Bar(symbol="AAA", at=NOW, open=9, high=10, low=8, close=9),  # 14 - 8
        Bar(symbol="AAA", at=NOW, open=9, high=11, low=8, close=10),  # 11 - 8
    ]
    assert average_true_range(series, 3) == pytest.approx((5 + 6 + 3) / 3)
    assert average_true_range(series, 4) is None


@pytest.mark.parametrize(
    ("reach", "stop", "target"),
    [(0.5, 97.0, 106.0), (1.5, 97.0, 106.0), (2.5, 95.0, 110.0), (6.0, 88.0, 124.0), (10.0, 88.0, 124.0)],
)
def test_a_stop_of_two_true_ranges_stays_between_three_and_twelve_percent(reach: float, stop: float, target: float) -> None:
    agent = ares(atr_multiple=2.0)
    agent.data.bars["AAA"] = bars(15, 100.0 + reach / 2, 100.0 - reach / 2)  # type: ignore[attr-defined]
    order = plan(agent)
    assert (order.stop_loss_price, order.take_profit_price) == (stop, target)


def test_without_enough_bars_the_stop_is_three_percent() -> None:
    agent = ares(atr_multiple=2.0)
    agent.data.bars["AAA"] = bars(14, 105.0, 95.0)  # type: ignore[attr-defined]
    assert plan(agent).stop_loss_price == 97.0


def test_no_price_and_one_of_another_currency_are_no_price() -> None:
    assert refusal(ares({})) is BindingConstraint.PRICE_UNAVAILABLE
    foreign = ares()
    foreign.data.currency = "EUR"  # type: ignore[attr-defined]
    assert refusal(foreign) is BindingConstraint.PRICE_UNAVAILABLE


@pytest.mark.parametrize(("hours", "known"), [(100.0, True), (100.1, False), (-0.1, False)])
def test_a_price_older_than_a_long_week_end_or_of_later_is_no_price(hours: float, known: bool) -> None:
    class Old(Prices):
        def get_quote(self, symbol: str, as_of: Any) -> Any:
            return super().get_quote(symbol, as_of - timedelta(hours=hours))

    agent = Ares(broker=None, data=Old(FixedClock(NOW), {"AAA": 100.0}), config=AresConfig())  # type: ignore[arg-type]
    assert isinstance(agent.plan_entry(SIGNAL, "AAA", 0.02, 10_000.0, NOW), OrderPlan) is known


@pytest.mark.parametrize("price", [0.0001, 0.00011, 1e-7])
def test_a_price_for_which_no_bracket_fits_is_refused(price: float) -> None:
    assert refusal(ares({"AAA": price})) is BindingConstraint.PRICE_UNAVAILABLE


def test_prices_are_rounded_to_what_exchanges_quote() -> None:
    assert (to_tick(12.3456), to_tick(0.123456), to_tick(1.0)) == (12.35, 0.1235, 1.0)


@given(price=st.decimals("0.0001", "99999", places=6))
def test_a_limit_is_the_lowest_tick_that_is_not_below_the_price(price: Decimal) -> None:
    tick = Decimal("0.01") if price >= 1 else Decimal("0.0001")
    assert to_tick_above(float(price)) == float(math.ceil(price / tick) * tick)


@pytest.mark.parametrize("price", [1.0, 9.99, 100.01, 0.29, 0.0003, 1e15, 1e300])
def test_a_price_that_is_quoted_is_its_own_limit(price: float) -> None:
    assert to_tick_above(price) == price


@pytest.mark.parametrize(
    ("price", "limit"),
    [(19.990000000000002, 19.99), (0.1 + 0.2, 0.3), (1.1 * 1.1, 1.21), (19.990000001, 20.0), (0.30000001, 0.3001)],
)
def test_what_float_arithmetic_adds_to_a_price_buys_no_tick(price: float, limit: float) -> None:
    assert to_tick_above(price) == limit


def test_a_price_between_two_ticks_is_met_at_itself_and_counts_the_shares() -> None:
    order = plan(ares({"AAA": 100.004}), size=0.01, equity=10_000.4)
    assert (order.qty, order.limit_price) == (1.0, 100.01)
    assert refusal(ares({"AAA": 100.004}), size=0.01, equity=10_000.3) is BindingConstraint.SIZE_BELOW_ONE_SHARE


@pytest.mark.parametrize(
    "wrong",
    [{"stop_loss": 0.0}, {"stop_loss": 1.0}, {"min_stop": 0.2}, {"max_stop": 1.0}, {"atr_bars": 0}, {"expiry_minutes": 0.0}],
)
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        AresConfig(**wrong)


@pytest.mark.parametrize(
    ("category", "headline", "negative"),
    [
        (SignalCategory.POSITIVE_NEWS, "AAA signs a contract", False),
        (SignalCategory.POSITIVE_NEWS, "AAA loses a contract", True),
        (SignalCategory.POSITIVE_NEWS, "AAA recall ends in record sales", True),
        (SignalCategory.EARNINGS_SURPRISE, "AAA reports its quarter", False),
        (SignalCategory.EARNINGS_SURPRISE, "AAA misses estimates", True),
        (SignalCategory.SUPPLIER_DISRUPTION, "A fire at AAA", True),
        (SignalCategory.SUPPLIER_DISRUPTION, "AAA resumes production", False),
        (SignalCategory.REGULATORY_ACTION, "AAA under inquiry", True),
        (SignalCategory.REGULATORY_ACTION, "Regulator approves the drug of AAA", False),
        (SignalCategory.MACRO_SHIFT, "AAA announces layoffs", True),
        (SignalCategory.MACRO_SHIFT, "Inflation figures are out", True),
        (SignalCategory.MACRO_SHIFT, "Dismissal of the case", True),
    ],
)
def test_what_is_in_doubt_is_not_bought(category: SignalCategory, headline: str, negative: bool) -> None:
    assert is_negative(signal("AAA", category=category, headline=headline)) is negative
