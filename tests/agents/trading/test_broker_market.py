"""Prices from Alpaca over a loopback that speaks its JSON, and sources one behind the other."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest
from pydantic import SecretStr

from agents.trading.broker_market import AlpacaDataConfig, AlpacaMarket, LayeredMarket
from agents.trading.market_data import VIX
from agents.trading.packaged_market import PanelMarket
from core.errors import ConfigurationError, DataError, MissingDataError
from core.market.panel import Panel

NOW = datetime(2024, 3, 6, 15, tzinfo=UTC)
TRADES = [("2024-03-06T14:59:59.123456789Z", 101.5), ("2024-03-05T20:59:59Z", 100.0)]
BARS = [("2024-03-04T05:00:00Z", 10.0), ("2024-03-05T05:00:00Z", 11.0), ("2024-03-06T05:00:00Z", 12.0)]


class Stub(BaseHTTPRequestHandler):
    """Answers as Alpaca does, or with what the test wants."""

    answer: Any = None
    status = 200
    asked: list[tuple[str, dict[str, str], str | None]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        type(self).asked.append((parts.path, query, self.headers.get("APCA-API-KEY-ID")))
        body = type(self).answer if type(self).answer is not None else self.tell(parts.path, query)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(type(self).status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def tell(self, path: str, query: dict[str, str]) -> Any:
        if path == "/v2/stocks/AAA/trades":
            known = [{"t": at, "p": price, "s": 1} for at, price in TRADES if at[:19] <= query["end"][:19]]
            return {"trades": known[: int(query["limit"])], "symbol": "AAA", "next_page_token": None}
        if path == "/v2/stocks/AAA/bars":
            return {"bars": [{"t": at, "o": p, "h": p + 1, "l": p - 1, "c": p, "v": 100, "n": 1, "vw": p} for at, p in BARS]}
        return {"trades": None, "bars": None}

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def market() -> Iterator[AlpacaMarket]:
    Stub.answer, Stub.status, Stub.asked = None, 200, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    with AlpacaMarket(AlpacaDataConfig(key_id=SecretStr("key"), secret=SecretStr("hidden"), endpoint=address)) as opened:
        yield opened
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_last_trade_by_a_time_is_its_price(market: AlpacaMarket) -> None:
    quote = market.get_quote("AAA", NOW)
    assert quote is not None
    assert (quote.price, quote.at) == (101.5, datetime(2024, 3, 6, 14, 59, 59, 123456, tzinfo=UTC))
    earlier = market.get_quote("AAA", datetime(2024, 3, 6, 14, tzinfo=UTC))
    assert earlier is not None
    assert earlier.price == 100.0
    path, query, key = Stub.asked[0]
    assert (path, key) == ("/v2/stocks/AAA/trades", "key")
    assert (query["sort"], query["limit"], query["feed"], query["end"]) == ("desc", "1", "iex", NOW.isoformat())


def test_what_it_does_not_know_has_no_price(market: AlpacaMarket) -> None:
    assert market.get_quote("BBB", NOW) is None
    assert market.list_bars("BBB", NOW, 5) == []
    Stub.asked.clear()
    assert market.get_quote(VIX, NOW) is None
    assert market.list_bars(VIX, NOW, 5) == []
    assert Stub.asked == []


def test_a_bar_is_told_when_its_day_is_over(market: AlpacaMarket) -> None:
    assert [bar.close for bar in market.list_bars("AAA", NOW, 5)] == [10.0, 11.0]
    (last,) = market.list_bars("AAA", NOW, 1)
    assert (last.at, last.high, last.low, last.volume) == (datetime(2024, 3, 6, 5, tzinfo=UTC), 12.0, 10.0, 100.0)


def test_a_trade_from_after_the_question_is_not_its_answer(market: AlpacaMarket) -> None:
    Stub.answer = {"trades": [{"t": "2024-03-06T15:00:01Z", "p": 1.0}]}
    assert market.get_quote("AAA", NOW) is None


@pytest.mark.parametrize(
    ("status", "answer", "error", "said"),
    [
        (403, {}, MissingDataError, "answered 403"),
        (500, b"oops", MissingDataError, "answered 500"),
        (200, b"oops", DataError, "cannot be read"),
        (200, {"trades": "many"}, DataError, "answered with str"),
        (200, {"trades": [{"t": "2024-03-06T14:00:00Z"}]}, DataError, "a trade of AAA that cannot be read"),
        (200, {"trades": [{"t": "noon", "p": 1.0}]}, DataError, "a trade of AAA that cannot be read"),
        (200, {"trades": [{"t": "2024-03-06T14:00:00Z", "p": -1.0}]}, DataError, "Quote.price"),
    ],
)
def test_an_answer_that_cannot_be_used_is_an_error_without_the_secret(
    market: AlpacaMarket, status: int, answer: Any, error: type[Exception], said: str
) -> None:
    Stub.status, Stub.answer = status, answer
    with pytest.raises(error, match=said) as refused:
        market.get_quote("AAA", NOW)
    assert "hidden" not in str(refused.value)


def test_a_broker_that_cannot_be_reached_is_an_error_of_our_own() -> None:
    config = AlpacaDataConfig(key_id=SecretStr("key"), secret=SecretStr("hidden"), endpoint="http://127.0.0.1:9")
    assert "hidden" not in repr(config)
    with AlpacaMarket(config) as market, pytest.raises(MissingDataError, match="cannot be asked for trades of AAA"):
        market.get_quote("AAA", NOW)


def test_keys_must_be_there() -> None:
    with pytest.raises(ConfigurationError, match="key and its secret"):
        AlpacaDataConfig(key_id=SecretStr(""), secret=SecretStr("x"))
    with pytest.raises(ConfigurationError, match="lookback_days"):
        AlpacaDataConfig(key_id=SecretStr("x"), secret=SecretStr("x"), lookback_days=0.0)


def test_the_first_source_that_knows_a_symbol_tells_it(market: AlpacaMarket) -> None:
    index = pd.DatetimeIndex([NOW], tz="UTC")
    file = PanelMarket([Panel(index=index, symbols=("AAA", VIX), close=[[1.0, 18.0]])])  # type: ignore[arg-type]
    layered = LayeredMarket([market, file])
    prices = [quote.price for symbol in ("AAA", VIX) if (quote := layered.get_quote(symbol, NOW)) is not None]
    assert prices == [101.5, 18.0]
    assert [bar.close for bar in layered.list_bars("AAA", NOW, 1)] == [11.0]
    assert [bar.close for bar in layered.list_bars(VIX, NOW, 1)] == [18.0]
    assert layered.get_quote("CCC", NOW) is None
    assert layered.list_bars("CCC", NOW, 1) == []
