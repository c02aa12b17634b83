import gzip
import time
from http.server import BaseHTTPRequestHandler

import pytest

from agents.trading.feeds import NewsFeed
from agents.trading.web import Web, WebConfig
from core.errors import ConfigurationError, DataError, MissingDataError
from tests.agents.trading.conftest import AGENT
from tests.agents.trading.loopback import Site


class Time:
    """A clock that only moves when somebody sleeps; remembers how long."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_a_page_comes_as_it_is_and_we_say_who_we_are(site: Site, web: Web) -> None:
    site.body = b"<rss/>"
    page = web.fetch(f"{site.url}/feed")
    assert page is not None
    assert page.content == b"<rss/>"
    path, headers = site.requests[0]
    assert path == "/feed"
    assert headers["user-agent"] == AGENT
    assert headers["accept-encoding"] == "identity"
    assert "if-none-match" not in headers


def test_a_page_that_is_known_is_asked_for_by_its_mark_and_its_date(site: Site, web: Web) -> None:
    site.headers = {"ETag": '"one"', "Last-Modified": "Mon, 04 Mar 2024 15:30:00 GMT"}
    page = web.fetch(site.url)
    assert page is not None
    site.status = 304
    assert web.fetch(site.url, known=page) is None
    headers = site.requests[1][1]
    assert headers["if-none-match"] == '"one"'
    assert headers["if-modified-since"] == "Mon, 04 Mar 2024 15:30:00 GMT"


def test_not_modified_is_no_answer_to_who_did_not_ask(site: Site, web: Web) -> None:
    site.status = 304
    with pytest.raises(MissingDataError, match="304"):
        web.fetch(site.url)


@pytest.mark.parametrize("status", [400, 403, 404, 500, 204])
def test_another_answer_than_a_page_is_refused(site: Site, web: Web, status: int) -> None:
    site.status = status
    with pytest.raises(MissingDataError, match=str(status)):
        web.fetch(site.url)


def test_a_host_is_asked_no_faster_than_agreed(site: Site) -> None:
    clock = Time()
    with Web(WebConfig(user_agent=AGENT, seconds_between=3.0), sleep=clock.sleep, monotonic=clock.monotonic) as web:
        web.fetch(site.url)
        web.fetch(site.url)
        clock.now += 1.0
        web.fetch(site.url)
        clock.now += 5.0
        web.fetch(site.url)
    assert clock.slept == [3.0, 2.0]


@pytest.mark.parametrize(("retry_after", "seconds"), [("17", 17.0), (None, 60.0), ("Fri, 31 Dec 2100 23:59:59 GMT", 60.0)])
def test_a_busy_host_is_left_alone_for_as_long_as_it_says(site: Site, retry_after: str | None, seconds: float) -> None:
    clock = Time()
    site.status = 429
    site.headers = {} if retry_after is None else {"Retry-After": retry_after}
    with Web(WebConfig(user_agent=AGENT, seconds_between=0.0), sleep=clock.sleep, monotonic=clock.monotonic) as web:
        with pytest.raises(MissingDataError, match="429"):
            web.fetch(site.url)
        site.status = 200
        clock.now += seconds - 1.0
        with pytest.raises(MissingDataError, match="busy"):
            web.fetch(site.url)
        assert len(site.requests) == 1
        clock.now += 1.0
        assert web.fetch(site.url) is not None


@pytest.mark.parametrize(("size", "fits"), [(100_000, True), (100_001, False)])
def test_a_page_must_not_be_larger_than_agreed(site: Site, web: Web, size: int, fits: bool) -> None:
    site.body = b"x" * size
    if fits:
        assert web.fetch(site.url) is not None
    else:
        with pytest.raises(DataError, match="larger"):
            web.fetch(site.url)


def test_a_page_without_an_end_is_stopped_at_the_limit(site: Site, web: Web) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x" * 10_000)

    site.misbehave = endless
    with pytest.raises(DataError, match="larger"):
        web.fetch(site.url)


def test_a_page_that_drips_is_given_up_after_the_time_for_the_whole(site: Site) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.02)

    site.misbehave = drip
    config = WebConfig(user_agent=AGENT, timeout_seconds=0.3)
    with Web(config) as web, pytest.raises(MissingDataError, match="longer than"):
        web.fetch(site.url)


def test_a_host_that_says_nothing_is_given_up(site: Site) -> None:
    site.misbehave = lambda handler: time.sleep(1.0)
    with (
        Web(WebConfig(user_agent=AGENT, timeout_seconds=0.1)) as web,
        pytest.raises(MissingDataError, match="cannot be fetched"),
    ):
        web.fetch(site.url)


def test_a_host_that_hangs_up_or_is_not_there_is_missing(site: Site, web: Web) -> None:
    site.misbehave = lambda handler: handler.connection.close()
    with pytest.raises(MissingDataError, match="cannot be fetched"):
        web.fetch(site.url)
    with pytest.raises(MissingDataError, match="cannot be fetched"):
        web.fetch("http://127.0.0.1:1/")


def test_a_page_that_ends_too_early_is_missing(site: Site, web: Web) -> None:
    site.headers = {"Content-Length": "1000"}

    def short(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"<rss>")

    site.misbehave = short
    with pytest.raises(MissingDataError, match="cannot be fetched"):
        web.fetch(site.url)


def test_a_compressed_page_is_refused(site: Site, web: Web) -> None:
    site.body, site.headers = gzip.compress(b"x" * 10_000_000), {"Content-Encoding": "gzip"}
    with pytest.raises(DataError, match="compressed"):
        web.fetch(site.url)


def test_redirects_are_followed_but_not_for_ever(site: Site, web: Web) -> None:
    site.status, site.headers = 302, {"Location": "/again"}
    with pytest.raises(MissingDataError, match="redirect"):
        web.fetch(site.url)
    assert len(site.requests) == 4


@pytest.mark.parametrize("url", ["", "no address", "ftp://example.org", "http://[", "http://exa mple.org"])
def test_what_is_no_address_is_refused(web: Web, url: str) -> None:
    with pytest.raises(MissingDataError):
        web.fetch(url)


@pytest.mark.parametrize(
    "changes",
    [{"user_agent": " "}, {"user_agent": "Größe"}, {"user_agent": "a\nb"}, {"timeout_seconds": 0.0}, {"max_bytes": 0}],
)
def test_a_config_that_cannot_work_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        WebConfig(**({"user_agent": AGENT} | changes))  # type: ignore[arg-type]


def ask_wrongly(site: Site, web: Web, address: str, wrong: str) -> None:
    if wrong == "busy":
        site.status = 429
        with pytest.raises(MissingDataError):
            web.fetch(address)
    elif wrong == "compressed":
        site.headers = {"Content-Encoding": "gzip"}
    elif wrong == "large":
        site.body = b"x" * 200_000
    elif wrong == "missing":
        site.status = 404
    elif wrong == "closed":
        site.misbehave = lambda handler: handler.connection.close()
    web.fetch(address)


@pytest.mark.parametrize("wrong", ["missing", "busy", "compressed", "large", "closed"])
def test_what_went_wrong_is_told_with_the_address_and_without_the_keys_in_it(site: Site, web: Web, wrong: str) -> None:
    address = site.url.replace("://", "://name:PASSWORD@") + "/daily/AAA?apikey=SECRET"
    with pytest.raises(DataError, match=f"^{site.url}/daily/AAA ") as told:
        ask_wrongly(site, web, address, wrong)
    assert "SECRET" not in str(told.value)
    assert "PASSWORD" not in str(told.value)


def test_an_address_that_cannot_be_read_is_not_repeated(web: Web) -> None:
    with pytest.raises(MissingDataError) as told:
        web.fetch("http://[::1/daily?apikey=SECRET")
    assert str(told.value) == "an address that cannot be read cannot be fetched."


def test_a_feed_that_is_none_is_told_without_the_keys_in_its_address(site: Site, web: Web) -> None:
    site.body = b"<html/>"
    with pytest.raises(DataError, match=f"^{site.url}/feed must answer an RSS or Atom feed, answered <html>"):
        NewsFeed("wire", f"{site.url}/feed?apikey=SECRET", web).fetch()
