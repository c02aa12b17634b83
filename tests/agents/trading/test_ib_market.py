"""Prices from Interactive Brokers, over the scripted gateway: when they were made, and what happens where there are none."""

import contextlib
import importlib.util
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from agents.trading.artemis import Artemis, ArtemisConfig
from agents.trading.broker_market import LayeredMarket
from agents.trading.ib_market import IBDataConfig, IBMarket
from agents.trading.market_data import SECTOR_FUNDS, SP500, VIX, Quote
from core.clock import FixedClock
from core.errors import BrokerUnavailableError, ConfigurationError, DataError, MissingDataError
from core.types import MarketRegime
from tests.agents.brokers.scripted_gateway import START
from tests.agents.brokers.scripted_prices import CONTRACTS, HISTORY, MARKET_DATA, PACING, Listing
from tests.agents.brokers.test_contract import bracket, open_orders
from tests.agents.brokers.worlds import IBWorld, ib_world

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ib_async") is None, reason="ib_async is not installed")

NOW = datetime(2024, 3, 6, 15, tzinfo=UTC)
"""Ten o'clock in New York, on a Wednesday."""
MADE = NOW - timedelta(seconds=7)
DAYS = [
    (date(2024, 3, 4), 10.0, 12.0, 9.0, 11.0, 400.0),
    (date(2024, 3, 5), 11.0, 13.0, 10.0, 12.0, 500.0),
    (date(2024, 3, 6), 12.0, 99.0, 1.0, 50.0, 10.0),
]
Open = Callable[..., IBMarket]


@pytest.fixture
def world() -> Iterator[IBWorld]:
    with ib_world() as served:
        served.gateway.prices.listings += [
            Listing(101, "AAPL", days=list(DAYS), last=(101.5, MADE)),
            Listing(201, "VIX", "IND", "CBOE", "", last=(17.0, None), minutes=minutes(NOW, 17.5), days=list(DAYS)),
        ]
        yield served


@pytest.fixture
def build(world: IBWorld) -> Iterator[Open]:
    """Opens markets at the gateway, and closes them."""
    opened: list[IBMarket] = []

    def one(**changes: Any) -> IBMarket:
        opened.append(IBMarket(IBDataConfig(port=world.port, **{"timeout_seconds": 5.0, **changes})))
        return opened[-1]

    yield one
    for market in opened:
        market.close()


@pytest.fixture
def market(build: Open) -> IBMarket:
    return build()


def minutes(until: datetime, price: float, n: int = 5) -> list[tuple[datetime, float]]:
    """The last minutes before a time, each a tenth dearer than the one before, the last one still going on."""
    return [(until - timedelta(minutes=n - 1 - number, seconds=30), price + number / 10) for number in range(n)]


def price(quote: Quote | None) -> tuple[float, datetime] | None:
    return None if quote is None else (quote.price, quote.at)


def closes(market: IBMarket, symbol: str, as_of: datetime, n: int = 10) -> list[tuple[float, datetime]]:
    return [(bar.close, bar.at) for bar in market.list_bars(symbol, as_of, n)]


# Quotes


def test_the_last_price_is_told_with_the_time_it_was_made_at(market: IBMarket) -> None:
    quote = market.get_quote("AAPL", NOW)
    assert price(quote) == (101.5, MADE)
    assert quote is not None
    assert quote.currency == "USD"


def test_a_delayed_price_is_dated_as_it_was_made(market: IBMarket, world: IBWorld) -> None:
    stock = world.gateway.prices.listings[0]
    stock.subscribed = False
    stock.last = (100.0, NOW - timedelta(minutes=17))
    assert price(market.get_quote("AAPL", NOW)) == (100.0, NOW - timedelta(minutes=17))
    assert world.gateway.prices.data_type == 4


def test_a_price_that_is_not_dated_is_that_of_the_last_minute(market: IBMarket) -> None:
    # 14:58:30 is the last full minute before 15:00; the one that begins at 14:59:30 is not over.
    assert price(market.get_quote(VIX, NOW)) == (pytest.approx(17.8), NOW - timedelta(seconds=30))


def test_a_price_from_after_the_question_is_not_its_answer(market: IBMarket, world: IBWorld) -> None:
    stock = world.gateway.prices.listings[0]
    stock.last = (101.5, NOW + timedelta(seconds=1))
    assert market.get_quote("AAPL", NOW) is None
    stock.minutes = minutes(NOW, 100.0)
    assert price(market.get_quote("AAPL", NOW - timedelta(minutes=1))) == (100.2, NOW - timedelta(seconds=90))


def test_a_price_is_told_again_for_some_seconds(market: IBMarket, world: IBWorld) -> None:
    market.get_quote("AAPL", NOW)
    world.gateway.prices.listings[0].last = (102.0, NOW + timedelta(seconds=15))
    assert price(market.get_quote("AAPL", NOW + timedelta(seconds=19))) == (101.5, MADE)
    assert price(market.get_quote("AAPL", NOW + timedelta(seconds=20))) == (102.0, NOW + timedelta(seconds=15))
    assert world.gateway.prices.count(MARKET_DATA) == 2
    assert world.gateway.prices.count(CONTRACTS) == 1


def test_ticks_of_an_earlier_question_are_not_mixed_into_the_next(market: IBMarket, world: IBWorld) -> None:
    market.get_quote("AAPL", NOW)
    world.gateway.prices.listings[0].last = None
    assert market.get_quote("AAPL", NOW + timedelta(minutes=1)) is None


def test_what_ib_does_not_know_has_no_price_and_is_not_asked_for_again_at_once(market: IBMarket, world: IBWorld) -> None:
    for _ in range(3):
        assert market.get_quote("NONE", NOW) is None
        assert market.list_bars("NONE", NOW, 5) == []
        assert market.get_quote("^FTSE", NOW) is None
    assert world.gateway.prices.asked == [(CONTRACTS, "NONE", "")]


# Bars


def test_a_bar_is_told_when_its_session_is_over_and_settled(market: IBMarket) -> None:
    monday, tuesday, wednesday = (datetime(2024, 3, day, 21, tzinfo=UTC) for day in (4, 5, 6))
    assert closes(market, "AAPL", NOW) == [(11.0, monday), (12.0, tuesday)]
    (last,) = market.list_bars("AAPL", NOW, 1)
    assert (last.open, last.high, last.low, last.close, last.volume) == (11.0, 13.0, 10.0, 12.0, 500.0)
    assert market.list_bars("AAPL", NOW, 0) == []
    assert closes(market, "AAPL", wednesday + timedelta(minutes=19)) == [(11.0, monday), (12.0, tuesday)]
    assert closes(market, "AAPL", wednesday + timedelta(minutes=20))[-1] == (50.0, wednesday)


def test_an_index_has_no_volume(market: IBMarket) -> None:
    assert [bar.volume for bar in market.list_bars(VIX, NOW, 2)] == [None, None]


def test_half_a_day_is_over_at_one_and_a_holiday_has_no_bar(market: IBMarket, world: IBWorld) -> None:
    # The third of July closes early, the fourth is a holiday, on the fifth trading goes on.
    world.gateway.prices.listings[0].days = [
        (date(2024, 7, day), close, close, close, close, 1.0) for day, close in ((2, 10.0), (3, 11.0), (4, 99.0), (5, 12.0))
    ]
    second, third = datetime(2024, 7, 2, 20, tzinfo=UTC), datetime(2024, 7, 3, 17, tzinfo=UTC)
    assert closes(market, "AAPL", third) == [(10.0, second)]
    assert closes(market, "AAPL", third + timedelta(minutes=20)) == [(10.0, second), (11.0, third)]
    assert closes(market, "AAPL", datetime(2024, 7, 4, 18, tzinfo=UTC)) == [(10.0, second), (11.0, third)]
    assert closes(market, "AAPL", datetime(2024, 7, 5, 15, tzinfo=UTC)) == [(10.0, second), (11.0, third)]


def test_bars_are_asked_for_once_a_session(market: IBMarket, world: IBWorld) -> None:
    for hour in (15, 16, 17, 20):
        for n in (1, 2, 30):
            market.list_bars("AAPL", NOW.replace(hour=hour), n)
    assert world.gateway.prices.count(HISTORY) == 1
    market.list_bars("AAPL", NOW, 31)
    assert world.gateway.prices.count(HISTORY) == 2


def test_a_split_overnight_is_no_crash(market: IBMarket, world: IBWorld) -> None:
    stock = world.gateway.prices.listings[0]
    evening = datetime(2024, 3, 6, 22, tzinfo=UTC)
    assert [close for close, _ in closes(market, "AAPL", evening)] == [11.0, 12.0, 50.0]
    stock.split(2.0)
    stock.days.append((date(2024, 3, 7), 25.0, 25.0, 25.0, 25.0, 1.0))
    stock.last = (25.0, datetime(2024, 3, 7, 14, 30, tzinfo=UTC))
    opening = datetime(2024, 3, 7, 14, 30, tzinfo=UTC)
    assert price(market.get_quote("AAPL", opening)) == (25.0, opening)
    assert [close for close, _ in closes(market, "AAPL", opening)] == [5.5, 6.0, 25.0]
    assert [close for close, _ in closes(market, "AAPL", opening + timedelta(days=1))] == [5.5, 6.0, 25.0, 25.0]


def test_a_long_history_is_asked_for_in_years(market: IBMarket, world: IBWorld) -> None:
    first = date(2023, 1, 2)
    days = [first + timedelta(days=number) for number in range((NOW.date() - first).days)]
    world.gateway.prices.listings[0].days = [(day, 1.0, 1.0, 1.0, 1.0, 1.0) for day in days]
    found = market.list_bars("AAPL", NOW, 250)
    assert len(found) == 250
    # A year of New York's sessions: from March 2023 to March 2024.
    assert (found[0].at, found[-1].at) == (
        datetime(2023, 3, 8, 21, tzinfo=UTC),
        datetime(2024, 3, 5, 21, tzinfo=UTC),
    )


# What goes wrong


def test_prices_that_are_not_subscribed_to_are_left_to_another_source(
    market: IBMarket, world: IBWorld, caplog: pytest.LogCaptureFixture
) -> None:
    for listing in world.gateway.prices.listings:
        listing.subscribed = False
    file = FileOfOnePrice()
    with caplog.at_level(logging.WARNING, logger="agents.brokers.ib_prices"):
        layered = LayeredMarket([market, file])
        assert price(layered.get_quote("AAPL", NOW)) == (101.5, MADE)
        assert price(layered.get_quote(VIX, NOW)) == (18.0, NOW)
        assert layered.list_bars("AAPL", NOW, 5) == []
    assert sum("has not subscribed to" in record.message for record in caplog.records) == 2


class FileOfOnePrice:
    """Another source, which knows the VIX."""

    def get_quote(self, symbol: str, as_of: datetime) -> Quote | None:
        return Quote(symbol=symbol, price=18.0, at=as_of)

    def list_bars(self, symbol: str, as_of: datetime, n: int) -> list[Any]:
        return []


def test_a_price_that_even_delayed_is_not_told_is_none(market: IBMarket, world: IBWorld) -> None:
    for kind in (MARKET_DATA, HISTORY):
        world.gateway.prices.refusals[kind] = (10168, "Requested market data is not subscribed. Delayed is not enabled.")
    assert market.get_quote("AAPL", NOW) is None
    assert market.list_bars("AAPL", NOW, 5) == []


def test_a_refusal_of_the_moment_is_an_error_and_is_not_kept(market: IBMarket, world: IBWorld) -> None:
    world.gateway.prices.refusals[MARKET_DATA] = (10197, "No market data during competing live session")
    with pytest.raises(MissingDataError, match="AAPL: 10197 No market data during competing live session"):
        market.get_quote("AAPL", NOW)
    world.gateway.prices.refusals.clear()
    assert price(market.get_quote("AAPL", NOW)) == (101.5, MADE)


def test_an_ambiguous_symbol_is_refused_until_its_exchange_is_named(build: Open, market: IBMarket, world: IBWorld) -> None:
    world.gateway.prices.listings.append(Listing(102, "AAPL", primary="NYSE", last=(3.0, MADE)))
    with pytest.raises(DataError, match=r"one contract at IB, was 2: name one of NASDAQ, NYSE"):
        market.get_quote("AAPL", NOW)
    with pytest.raises(DataError, match="one contract at IB"):
        market.list_bars("AAPL", NOW, 5)
    named = build(client_id=28, primary_exchanges={"AAPL": "NYSE"})
    assert price(named.get_quote("AAPL", NOW)) == (3.0, MADE)


def test_history_is_never_asked_for_more_often_than_allowed(build: Open, world: IBWorld) -> None:
    prices = world.gateway.prices
    prices.max_history = 4
    symbols = [f"S{number}" for number in range(6)]
    prices.listings += [Listing(300 + number, symbol, days=list(DAYS)) for number, symbol in enumerate(symbols)]
    market = build(history_requests=4)
    for symbol in symbols[:4]:
        assert len(market.list_bars(symbol, NOW, 2)) == 2
    for symbol in symbols[4:]:
        with pytest.raises(MissingDataError, match="must not be asked for more history yet"):
            market.list_bars(symbol, NOW, 2)
    assert prices.count(HISTORY) == 4
    assert len(market.list_bars("S0", NOW, 2)) == 2
    assert price(market.get_quote("AAPL", NOW)) == (101.5, MADE)


def test_after_a_violation_of_the_pace_history_rests_and_prices_go_on(market: IBMarket, world: IBWorld) -> None:
    world.gateway.prices.refusals[HISTORY] = (162, PACING)
    with pytest.raises(MissingDataError, match="pacing violation"):
        market.list_bars("AAPL", NOW, 2)
    world.gateway.prices.refusals.clear()
    with pytest.raises(MissingDataError, match="ask again in 600 s"):
        market.list_bars("AAPL", NOW, 2)
    assert world.gateway.prices.count(HISTORY) == 1
    assert price(market.get_quote("AAPL", NOW)) == (101.5, MADE)


def test_a_gateway_that_keeps_silent_is_left_and_reached_anew(build: Open, world: IBWorld) -> None:
    market = build(timeout_seconds=0.6)
    world.gateway.silent = (MARKET_DATA, HISTORY)
    with pytest.raises(MissingDataError, match="no price of AAPL within"):
        market.get_quote("AAPL", NOW)
    with pytest.raises(MissingDataError, match="did not answer"):
        market.list_bars("AAPL", NOW, 2)
    world.gateway.silent = ()
    assert price(market.get_quote("AAPL", NOW)) == (101.5, MADE)
    world.gateway.deaf.update(world.gateway.connections)
    with pytest.raises(MissingDataError, match="did not answer"):
        market.list_bars("AAPL", NOW + timedelta(seconds=1), 2)
    assert len(market.list_bars("AAPL", NOW + timedelta(seconds=2), 2)) == 2


@pytest.mark.parametrize("kind", [CONTRACTS, MARKET_DATA, HISTORY])
def test_a_line_that_breaks_in_the_middle_is_an_error_and_the_next_call_has_a_new_one(
    market: IBMarket, world: IBWorld, kind: int
) -> None:
    def ask(at: datetime = NOW) -> int:
        return len(market.list_bars("AAPL", at, 2)) if kind == HISTORY else (market.get_quote("AAPL", at) is not None) * 2

    world.gateway.silent = (kind,)
    timer = threading.Timer(0.3, world.gateway.disconnect)
    timer.start()
    with pytest.raises(MissingDataError, match="did not answer"):
        ask()
    timer.join()
    world.gateway.silent = ()
    assert ask(NOW + timedelta(seconds=1)) == 2


def test_a_gateway_that_is_not_there_is_an_error_of_our_own(build: Open, market: IBMarket, world: IBWorld) -> None:
    market.get_quote("AAPL", NOW)
    world.shut()
    for _ in range(2):
        with pytest.raises(MissingDataError, match="cannot be asked for AAPL"):
            market.get_quote("AAPL", NOW + timedelta(minutes=1))


@pytest.mark.parametrize(
    ("kind", "frame"),
    [
        (CONTRACTS, ("nonsense",)),
        (CONTRACTS, (10, "NUMBER", "AAPL")),
        (MARKET_DATA, (999_999, "NUMBER")),
        (MARKET_DATA, (1, 6, "NUMBER", 4, "dear", 1, 0)),
        (MARKET_DATA, (46, 6, "NUMBER", 45, "noon")),
        (HISTORY, (17, "NUMBER", "", "", 2, "20240304", "dear")),
        (HISTORY, (17, "NUMBER", "", "", 1, "3 March", 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1)),
    ],
)
def test_frames_that_cannot_be_read_are_no_prices(
    build: Open, world: IBWorld, kind: int, frame: tuple[Any, ...], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    market = build(timeout_seconds=0.6)
    prices = world.gateway.prices
    prices.garbage[kind], prices.only_garbage = frame, True
    with pytest.raises(DataError):
        market.list_bars("AAPL", NOW, 2) if kind == HISTORY else market.get_quote("AAPL", NOW)
    prices.garbage.clear()
    assert price(market.get_quote("AAPL", NOW)) == (101.5, MADE)
    assert len(market.list_bars("AAPL", NOW + timedelta(seconds=1), 2)) == 2


@pytest.mark.parametrize(
    "noise", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 64, b"\x00\x00\x00\x01"], ids=["web page", "no length", "cut"]
)
def test_a_stream_that_is_out_of_step_is_left(build: Open, world: IBWorld, noise: bytes) -> None:
    market = build(timeout_seconds=0.6)
    assert price(market.get_quote("AAPL", NOW)) == (101.5, MADE)
    world.gateway.noise = noise
    with pytest.raises(MissingDataError, match="no price of AAPL within"):
        market.get_quote("AAPL", NOW + timedelta(minutes=1))
    assert price(market.get_quote("AAPL", NOW + timedelta(minutes=1))) == (101.5, MADE)


@pytest.mark.parametrize(
    "bar",
    [
        (date(2024, 3, 5), 11.0, 13.0, 0.0, 12.0, 1.0),
        (date(2024, 3, 5), 11.0, float("nan"), 10.0, 12.0, 1.0),
        (date(2024, 3, 5), 11.0, float("inf"), 10.0, 12.0, 1.0),
        (date(2024, 3, 5), 11.0, 13.0, 10.0, -12.0, 1.0),
    ],
)
def test_a_bar_with_an_impossible_price_is_an_error(market: IBMarket, world: IBWorld, bar: Any) -> None:
    world.gateway.prices.listings[0].days = [bar]
    with pytest.raises(DataError, match="Bar"):
        market.list_bars("AAPL", NOW, 2)


@pytest.mark.parametrize("told", [0.0, -1.0, float("nan")])
def test_a_price_that_is_none_is_not_told(market: IBMarket, world: IBWorld, told: float) -> None:
    world.gateway.prices.listings[0].last = (told, MADE)
    assert market.get_quote("AAPL", NOW) is None


# Whose connection


def test_broker_and_market_share_a_gateway_and_hear_their_own(build: Open, world: IBWorld) -> None:
    broker, market = world.connect(), build()
    broker.place_order(bracket())

    def trade() -> list[float]:
        return [broker.get_account().cash for _ in range(10)]

    def watch() -> set[Any]:
        return {price(market.get_quote("AAPL", NOW + timedelta(minutes=number))) for number in range(10)}

    with ThreadPoolExecutor(2) as pool:
        cash, seen = pool.submit(trade), pool.submit(watch)
        assert cash.result() == [100_000.0] * 10
        assert seen.result() == {(101.5, MADE)}
    assert sorted(world.gateway.connections.values()) == [17, 27]
    world.gateway.restart()
    # Whoever asks before it was told that the line is cut learns it by asking.
    with contextlib.suppress(MissingDataError):
        market.get_quote("AAPL", NOW + timedelta(hours=1))
    with contextlib.suppress(BrokerUnavailableError):
        broker.get_account()
    assert price(market.get_quote("AAPL", NOW + timedelta(hours=2))) == (101.5, MADE)
    assert open_orders(broker) == {"a": 10.0}
    broker.close()


def test_a_market_asks_for_nothing_about_orders(market: IBMarket, world: IBWorld) -> None:
    world.gateway.accounts = "U1"
    kinds: list[int] = []
    answer = world.gateway.answer
    world.gateway.answer = lambda fields, connection: (kinds.append(int(fields[0])), answer(fields, connection))[1]  # type: ignore[method-assign, func-returns-value]
    market.get_quote("AAPL", NOW)
    market.list_bars("AAPL", NOW, 2)
    # 59 is the type of market data, 61 what is held, which the library asks for by itself.
    assert sorted(set(kinds)) == sorted({START, CONTRACTS, MARKET_DATA, HISTORY, 59, 61})


@pytest.mark.parametrize("port", [4001, 7496])
def test_a_port_of_real_money_may_tell_prices(port: int) -> None:
    IBMarket(IBDataConfig(port=port)).close()


def test_two_markets_need_two_client_ids(build: Open, market: IBMarket) -> None:
    market.get_quote("AAPL", NOW)
    with pytest.raises(MissingDataError, match="cannot be reached"):
        build(timeout_seconds=0.5).get_quote("AAPL", NOW)
    assert price(build(client_id=28).get_quote("AAPL", NOW)) == (101.5, MADE)


def test_artemis_reads_the_regime_from_it(build: Open, world: IBWorld) -> None:
    sessions = [date(2024, 2, 5) + timedelta(days=number) for number in range(30)]
    rising = [(day, 100.0 + n, 100.0 + n, 100.0 + n, 100.0 + n, 1.0) for n, day in enumerate(sessions)]
    indices = [Listing(202, "SPX", "IND", "CBOE", "", days=rising)]
    funds = [Listing(400 + number, fund, days=rising) for number, fund in enumerate(SECTOR_FUNDS)]
    world.gateway.prices.listings += [*indices, *funds]
    context = Artemis(build(), ArtemisConfig(month_bars=10), FixedClock(NOW)).context()
    assert (context.regime, context.vix) == (MarketRegime.BULL, pytest.approx(17.8))
    # From the session of 20 February to that of 5 March, with nothing on Presidents' Day before it.
    assert context.sp500_1m_return == pytest.approx(129.0 / 115.0 - 1.0)
    assert set(context.sector_momentum) == set(SECTOR_FUNDS)
    assert world.gateway.prices.count(HISTORY, "SPX") == 1
    assert SP500 not in {symbol for _, symbol, _ in world.gateway.prices.asked}


# Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 0},
        {"client_id": 0},
        {"history_requests": 61},
        {"timeout_seconds": float("nan")},
        {"quote_seconds": -1.0},
        {"absent_minutes": float("inf")},
        {"settle_minutes": -1.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        IBDataConfig(**wrong)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ib_async", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'agentic-quantitative-framework\[ib\]'"):
        IBMarket(IBDataConfig())


def test_a_time_without_a_zone_is_refused(market: IBMarket) -> None:
    for ask in (lambda at: market.get_quote("AAPL", at), lambda at: market.list_bars("AAPL", at, 1)):
        with pytest.raises(DataError, match="must be tz-aware"):
            ask(datetime(2024, 3, 6, 15))  # noqa: DTZ001
