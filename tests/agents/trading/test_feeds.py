from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import pytest

from agents.trading.feeds import EDGAR_URL, Batch, EdgarFeed, NewsFeed, clean, read_time, short_key
from agents.trading.listings import Listing, read_mappings, read_sec_listings
from agents.trading.news import NewsCategory, Urgency
from agents.trading.web import Web, WebConfig
from core.errors import DataError, MissingDataError
from core.store.trading_records import Exchange
from tests.agents.trading.loopback import Site

RSS = b"""<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0"><channel><title>News</title>
<item><guid>one</guid><title>Boeing (NYSE: BA) halts production</title><link>https://example.org/1</link>
<description>&lt;p&gt;After a &lt;b&gt;fire&lt;/b&gt; &amp;amp; smoke.&lt;/p&gt;</description>
<pubDate>Mon, 04 Mar 2024 10:30:00 -0500</pubDate></item>
<item><title>No key</title><pubDate>Mon, 04 Mar 2024 10:30:00 GMT</pubDate></item>
<item><guid>three</guid><title>No date</title></item>
<item><guid>four</guid><title> </title><pubDate>Mon, 04 Mar 2024 10:30:00 GMT</pubDate></item>
<item><guid>five</guid><title>No zone</title><pubDate>2024-03-04T10:30:00</pubDate></item>
<item><link>https://example.org/6</link><title>A key by its link</title>
<pubDate>Mon, 04 Mar 2024 15:30:00 -0000</pubDate></item>
</channel></rss>"""

ATOM = b"""<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom"><title>News</title>
<entry><id>tag:1</id><title>Quarterly profit at $TSLA beats</title><link href="https://example.org/1"/>
<summary>More.</summary><published>2024-03-04T15:30:00Z</published></entry>
</feed>"""


def filing(form: str, company: str, items: str, *, cik: int = 320193, role: str = "Filer", number: int = 1) -> str:
    return f"""<entry><title>{form} - {company} ({cik:010d}) ({role})</title>
<link rel="alternate" type="text/html" href="https://www.sec.gov/Archives/edgar/data/{cik}/index.htm"/>
<summary type="html"> &lt;b&gt;Filed:&lt;/b&gt; 2024-03-04
&lt;b&gt;AccNo:&lt;/b&gt; 0000320193-24-{number:06d} &lt;b&gt;Size:&lt;/b&gt; 99 KB
{items}</summary><updated>2024-03-04T16:05:01-05:00</updated>
<category scheme="https://www.sec.gov/" label="form type" term="{form}"/>
<id>urn:tag:sec.gov,2008:accession-number=0000320193-24-{number:06d}</id></entry>"""


def edgar(*entries: str) -> bytes:
    head = '<?xml version="1.0" encoding="ISO-8859-1" ?><feed xmlns="http://www.w3.org/2005/Atom"><title>Latest Filings</title>'
    return f"{head}{''.join(entries)}</feed>".encode("latin-1")


def test_an_rss_feed_gives_its_items_and_tells_what_it_dropped(site: Site, web: Web) -> None:
    site.body = RSS
    batch = NewsFeed("wire", f"{site.url}/rss", web).fetch()
    first, last = batch.items
    assert (first.source, first.source_key, first.url) == ("wire", "one", "https://example.org/1")
    assert first.headline == "Boeing (NYSE: BA) halts production"
    assert first.summary == "After a fire & smoke."
    assert first.published_at == datetime(2024, 3, 4, 15, 30, tzinfo=UTC)
    assert (first.category, first.urgency, first.tickers) == (NewsCategory.SUPPLY_CHAIN, Urgency.HIGH, ("BA",))
    assert (last.source_key, last.published_at) == ("https://example.org/6", datetime(2024, 3, 4, 15, 30, tzinfo=UTC))
    assert [(drop.key, drop.reason.split("`")[1]) for drop in batch.dropped] == [
        ("No key", "NewsItem.source_key"),
        ("three", "published_at"),
        ("four", "NewsItem.headline"),
        ("five", "published_at"),
    ]


def test_an_atom_feed_gives_its_items(site: Site, web: Web) -> None:
    site.body = ATOM
    (item,) = NewsFeed("wire", site.url, web).fetch().items
    assert (item.source_key, item.tickers, item.category) == ("tag:1", ("TSLA",), NewsCategory.EARNINGS)


def test_a_feed_is_asked_only_for_news_once_it_is_confirmed(site: Site, web: Web) -> None:
    site.body, site.headers = ATOM, {"ETag": '"one"'}
    feed = NewsFeed("wire", site.url, web)
    assert len(feed.fetch().items) == 1
    assert len(feed.fetch().items) == 1
    assert "if-none-match" not in site.requests[1][1]
    feed.confirm()
    site.status, site.body = 304, b""
    assert feed.fetch().items == ()
    assert site.requests[2][1]["if-none-match"] == '"one"'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><head><title>Moved</title></head><body><p>Please log in<br></body></html>",
        b"<html><body/></html>",
        b'{"error": "no"}',
        b"\xff\xfe\x00\x01",
        RSS[:200],
        b'<!DOCTYPE rss [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><rss><channel/></rss>',
        b'<?xml version="1.0" encoding="martian"?><rss/>',
    ],
)
def test_a_feed_that_answers_something_else_is_refused(site: Site, web: Web, body: bytes) -> None:
    site.body = body
    with pytest.raises(DataError, match="must answer an RSS or Atom feed"):
        NewsFeed("wire", site.url, web).fetch()


def test_a_feed_that_cannot_be_reached_is_missing(site: Site, web: Web) -> None:
    def refuse(handler: BaseHTTPRequestHandler) -> None:
        handler.send_error(503)

    site.misbehave = refuse
    with pytest.raises(MissingDataError):
        NewsFeed("wire", site.url, web).fetch()


def test_an_empty_feed_has_no_items(site: Site, web: Web) -> None:
    site.body = b"<rss><channel/></rss>"
    assert NewsFeed("wire", site.url, web).fetch().items == ()


APPLE = Listing(cik=320193, name="Apple Inc.", ticker="AAPL", exchange=Exchange.NASDAQ)


def test_a_filing_is_read_by_its_most_urgent_item(site: Site, web: Web) -> None:
    items = (
        "&lt;br&gt;Item 9.01: Financial Statements&lt;br&gt;Item 2.02: Results of Operations&lt;br&gt;Item 4.02: Non-Reliance"
    )
    site.body = edgar(filing("8-K", "APPLE INC", items))
    (item,) = EdgarFeed(web, [APPLE], url=site.url).fetch().items
    assert item.source_key == "0000320193-24-000001"
    assert item.headline == "8-K - APPLE INC: Financial Statements; Results of Operations; Non-Reliance"
    assert (item.category, item.urgency, item.significant) == (NewsCategory.REGULATORY, Urgency.HIGH, True)
    assert (item.tickers, item.supplier) == (("AAPL",), "APPLE INC")
    assert item.published_at == datetime(2024, 3, 4, 21, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("form", "items", "category", "urgency"),
    [
        ("8-K", "Item 2.05: Costs", NewsCategory.LAYOFFS, Urgency.MEDIUM),
        ("8-K", "Item 5.02: Departure of Directors", NewsCategory.OTHER, Urgency.LOW),
        ("8-K", "", NewsCategory.OTHER, Urgency.LOW),
        ("10-K", "Item 4.02: Non-Reliance", NewsCategory.OTHER, Urgency.LOW),
    ],
)
def test_other_filings_are_of_low_urgency(
    site: Site, web: Web, form: str, items: str, category: NewsCategory, urgency: Urgency
) -> None:
    site.body = edgar(filing(form, "ACME CORP", items))
    (item,) = EdgarFeed(web, url=site.url).fetch().items
    assert (item.category, item.urgency) == (category, urgency)


def test_a_filing_that_is_listed_for_several_companies_is_one_and_has_a_ticker_if_one_has(site: Site, web: Web) -> None:
    both = [
        filing("8-K", "SOME TRUST", "Item 2.02: Results", cik=7, role="Subject"),
        filing("8-K", "APPLE INC", "Item 2.02: Results"),
    ]
    site.body = edgar(*both)
    (item,) = EdgarFeed(web, [APPLE], url=site.url).fetch().items
    assert item.tickers == ("AAPL",)


def test_what_is_no_filing_is_told(site: Site, web: Web) -> None:
    site.body = edgar(filing("8-K", "ACME", "").replace("(0000320193)", ""))
    batch = EdgarFeed(web, url=site.url).fetch()
    assert batch.items == ()
    assert "expected a filing" in batch.dropped[0].reason
    assert EDGAR_URL.startswith("https://www.sec.gov/")


@pytest.fixture
def archive(site: Site) -> list[str]:
    """Filings, newest first, of which the site gives a hundred from where it is asked to start."""
    filings: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        start = int(parse_qs(urlsplit(handler.path).query).get("start", ["0"])[0])
        body = edgar(*filings[start : start + 100])
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    site.misbehave = answer
    return filings


def numbered(first: int, last: int) -> list[str]:
    return [filing("8-K", "ACME CORP", "Item 2.02: Results", number=number) for number in range(last, first - 1, -1)]


def numbers(batch: Batch) -> list[int]:
    return [int(item.source_key[-6:]) for item in batch.items]


def test_filings_are_read_back_to_the_first_that_was_kept(site: Site, archive: list[str]) -> None:
    with Web(WebConfig(user_agent="tests", seconds_between=0.0)) as web:
        feed = EdgarFeed(web, url=f"{site.url}/?type=8-K")
        archive += numbered(1, 250)
        assert numbers(feed.fetch()) == list(range(250, 0, -1))
        assert [path.partition("start=")[2] for path, _ in site.requests] == ["", "100", "200"]
        assert len(numbers(feed.fetch())) == 250  # not confirmed, so not kept
        feed.confirm()
        archive[:0] = numbered(251, 420)
        site.requests.clear()
        assert numbers(feed.fetch()) == list(range(420, 220, -1))
        feed.confirm()
        assert len(site.requests) == 2
        assert numbers(feed.fetch()) == list(range(420, 320, -1))
        assert len(site.requests) == 3


def test_filings_are_read_back_no_further_than_agreed(site: Site, archive: list[str]) -> None:
    archive += numbered(1, 350)
    with Web(WebConfig(user_agent="tests", seconds_between=0.0)) as web:
        assert numbers(EdgarFeed(web, url=f"{site.url}/?type=8-K", most_pages=2).fetch()) == list(range(350, 150, -1))


def test_text_is_freed_of_markup_and_cut_to_its_limit() -> None:
    assert clean("summary", "<p>A&nbsp;&lt;b\x00</p>\n c", 100) == "A <b c"
    assert clean("summary", "x" * 11, 10) == "x" * 9 + "…"
    with pytest.raises(DataError, match="whole characters"):
        clean("summary", "half \ud800", 100)


def test_a_key_that_is_too_long_for_an_index_is_hashed() -> None:
    assert short_key("x" * 500) == "x" * 500
    assert len(short_key("x" * 501)) == 64


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(DataError, match="zone"):
        read_time("2024-03-04T10:00:00", datetime.fromisoformat)
    with pytest.raises(DataError, match="must be a time"):
        read_time("yesterday", datetime.fromisoformat)


def test_the_secs_listings_are_read_for_our_exchanges() -> None:
    content = b"""{"fields": ["cik", "name", "ticker", "exchange"], "data": [[320193, "Apple Inc.", "AAPL", "Nasdaq"],
        [7, "Pink Sheet Co", "PINK", "OTC"], [12927, "BOEING CO", "ba", "NYSE"], [8, "Nowhere", "NWH", null]]}"""
    assert [(item.cik, item.name, item.ticker, item.exchange.value) for item in read_sec_listings(content)] == [
        (320193, "Apple Inc.", "AAPL", "NASDAQ"),
        (12927, "BOEING CO", "BA", "NYSE"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"<html/>",
        b"[]",
        b"{}",
        b"\xff",
        b'{"fields": ["cik"], "data": []}',
        b'{"fields": ["cik", "name", "ticker", "exchange"], "data": [[1, "A"]]}',
        b'{"fields": ["cik", "name", "ticker", "exchange"], "data": [["x", "A", "B", "NYSE"]]}',
        b'{"fields": ["cik", "name", "ticker", "exchange"], "data": {}}',
    ],
)
def test_other_listings_are_refused(content: bytes) -> None:
    with pytest.raises(DataError):
        read_sec_listings(content)


def test_a_ticker_map_is_read_from_csv_or_refused_with_its_line() -> None:
    (mapping,) = read_mappings('supplier_name,ticker,exchange\n"Johnson & Johnson",JNJ,NYSE\n')
    assert (mapping.supplier_name, mapping.ticker, mapping.exchange) == ("Johnson & Johnson", "JNJ", Exchange.NYSE)
    for text, why in (
        ("", "columns"),
        ("name,ticker\n", "columns"),
        ("supplier_name,ticker,exchange\nApple,AAPL\n", "line 2"),
        ("supplier_name,ticker,exchange\nApple,AAPL,MOON\n", "line 2"),
        ("supplier_name,ticker,exchange\nApple,aapl,NYSE\n", "line 2"),
        ('supplier_name,ticker,exchange\n"Apple,AAPL,NYSE\n', "not CSV"),
    ):
        with pytest.raises(DataError, match=why):
            read_mappings(text)
