"""Bars from an address: told when their day is over, and absent where they cannot be had."""

import logging
from datetime import UTC, datetime, timedelta

import pytest

from agents.trading.downloaded_market import DownloadConfig, DownloadedMarket, read_table
from agents.trading.web import Page, Web
from core.clock import FixedClock
from core.errors import ConfigurationError, DataError, MissingDataError
from tests.agents.trading.loopback import Site

NOW = datetime(2024, 3, 6, 15, tzinfo=UTC)
TABLE = b"Date,Open,High,Low,Close,Volume\n2024-03-05,11,13,10,12,500\n2024-03-04,10,12,9,11,400\n2024-03-06,12,14,11,13,10\n"


class Pages:
    """A web of a few pages that counts how often it is asked."""

    def __init__(self, **pages: bytes) -> None:
        self.pages, self.asked = pages, list[str]()

    def fetch(self, url: str, *, known: Page | None = None) -> Page | None:
        self.asked.append(url)
        name = url.rpartition("=")[2]
        if name not in self.pages:
            raise MissingDataError(f"{url} answered 404.")
        return Page(content=self.pages[name])


def build(pages: Pages, clock: FixedClock | None = None) -> DownloadedMarket:
    return DownloadedMarket(pages, DownloadConfig(address="https://prices.example/d?s={symbol}"), clock or FixedClock(NOW))


def test_the_bar_of_a_day_is_told_when_the_day_is_over() -> None:
    market = build(Pages(AAA=TABLE))
    quote = market.get_quote("AAA", NOW)
    assert quote is not None
    assert (quote.price, quote.at) == (12.0, datetime(2024, 3, 5, 23, 59, 59, tzinfo=UTC))
    first, second = market.list_bars("AAA", NOW, 5)
    assert (first.open, first.high, first.low, first.close, first.volume) == (10.0, 12.0, 9.0, 11.0, 400.0)
    assert second.close == 12.0


def test_a_table_is_asked_for_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    pages, clock = Pages(AAA=TABLE), FixedClock(NOW)
    market = build(pages, clock)
    for _ in range(3):
        market.get_quote("AAA", NOW)
        assert market.get_quote("^VIX", NOW) is None
    assert pages.asked == ["https://prices.example/d?s=AAA", "https://prices.example/d?s=%5EVIX"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    clock.advance(timedelta(minutes=15))
    market.get_quote("AAA", clock.now())
    assert len(pages.asked) == 3


def test_the_log_names_no_key_of_an_address(site: Site, web: Web, caplog: pytest.LogCaptureFixture) -> None:
    site.status = 403
    market = DownloadedMarket(web, DownloadConfig(address=f"{site.url}/{{symbol}}?apikey=SECRET"), FixedClock(NOW))
    assert market.get_quote("AAA", NOW) is None
    assert f"{site.url}/AAA answered 403" in caplog.text
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "must have the columns Date and Close, has none"),
        (b"Day,Close\n", "must have the columns Date and Close"),
        (b"Date,Close\n", "has no bar"),
        (b"Date,Close\n2024-03-04,-1\n", "prices must be above 0"),
        (b"Date,Close\n2024-03-04,inf\n", "line 2"),
        (b"Date,Close\n4 March,1\n", "line 2"),
        (b"Date,Close\n2024-03-04\n", "line 2"),
        (b"Date,Close\n2024-03-04,1\n2024-03-04,2\n", "a day twice"),
        (b"\xff\xfe", "cannot be read as CSV in UTF-8"),
        (b"<html>busy</html>", "must have the columns"),
    ],
)
def test_what_is_no_table_is_refused_and_has_no_price(content: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_table("AAA", content)
    assert build(Pages(AAA=content)).get_quote("AAA", NOW) is None


def test_days_without_a_close_are_left_out() -> None:
    panel = read_table("AAA", b"\xef\xbb\xbfdate,close\n2024-03-04,11\n2024-03-05,\n")
    assert (panel.n_bars, panel.fields) == (1, ("close",))


@pytest.mark.parametrize("address", ["https://prices.example", "ftp://prices.example/{symbol}", "{symbol}"])
def test_an_address_must_say_where_the_symbol_goes(address: str) -> None:
    with pytest.raises(ConfigurationError, match="symbol"):
        DownloadConfig(address=address)
    with pytest.raises(ConfigurationError, match="keep_minutes"):
        DownloadConfig(address="https://prices.example/{symbol}", keep_minutes=-1.0)
