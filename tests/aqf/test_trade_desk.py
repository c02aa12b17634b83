"""`aqf trade` with all that it starts: feeds and EDGAR, alerts over every channel, Apollo, and an end without warning."""

import json
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from aqf.cli import aqf
from aqf.commands.trade import trade
from core.errors import AQFError, ConfigurationError
from core.store.opening import Store
from core.store.trading_records import KnowledgeCollection
from tests.agents.trading.loopback import Site, serve
from tests.agents.trading.test_apollo import PAPERS, decide
from tests.aqf.commands import start_aqf
from tests.aqf.test_trade_command import Run, home, news, prices, run

__all__ = ["home", "news", "prices", "run"]

CONTACT = "ada@example.org"
TOKEN = "123456:ABC-secret"
LISTINGS = {"fields": ["cik", "name", "ticker", "exchange"], "data": [[320193, "Apple Inc.", "AAPL", "Nasdaq"]]}
EDGAR, SEC_LISTINGS, WIRE = "/cgi-bin/browse-edgar", "/files/company_tickers_exchange.json", "/rss"


@pytest.fixture
def site() -> Iterator[Site]:
    """The SEC, a wire, arXiv, a webhook and Telegram in one."""
    with serve() as opened:
        opened.pages = {EDGAR: edgar(), SEC_LISTINGS: json.dumps(LISTINGS).encode(), WIRE: rss(), "/api/query": PAPERS}
        yield opened


@pytest.fixture
def sec(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQF_SEC_URL", site.url)
    monkeypatch.setenv("AQF_CONTACT", CONTACT)


@pytest.fixture
def telegram(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQF_TELEGRAM_URL", site.url)
    monkeypatch.setenv("AQF_TELEGRAM_TOKEN", TOKEN)
    monkeypatch.setenv("AQF_TELEGRAM_CHAT_ID", "42")


def now() -> datetime:
    return datetime.now(UTC) - timedelta(minutes=1)


def edgar() -> bytes:
    """One agreement that a listed company reports."""
    return f"""<feed xmlns="http://www.w3.org/2005/Atom"><title>Latest Filings</title><entry>
        <title>8-K - Apple Inc. (0000320193) (Filer)</title>
        <summary type="html">&lt;br&gt;Item 1.01: Entry into an Agreement</summary>
        <updated>{now().isoformat()}</updated><id>urn:tag:sec.gov,2008:accession-number=0000320193-26-000001</id>
        </entry></feed>""".encode()


def rss() -> bytes:
    """One item of good news."""
    return f"""<rss version="2.0"><channel><item><guid>one</guid><title>Microsoft (NASDAQ: MSFT) wins a partnership</title>
        <description>The contract is large.</description><pubDate>{format_datetime(now())}</pubDate>
        </item></channel></rss>""".encode()


@pytest.fixture
def once(prices: Path, site: Site) -> tuple[str, ...]:
    """A round with every kind of news."""
    days = [line for line in prices.read_text().splitlines() if line.startswith("AAPL")]
    with prices.open("a") as file:
        file.writelines(line.replace("AAPL", "MSFT") + "\n" for line in days)
    return ("--once", "--data", str(prices), "--feed", f"wire={site.url}{WIRE}", "--edgar", "--fictitious-lists", "--json")


def traces(done: Any) -> list[dict[str, Any]]:
    assert done.exit_code == 0, done.output
    found: list[dict[str, Any]] = json.loads(done.stdout)["traces"]
    return found


def health(run: Run) -> dict[str, tuple[str, str]]:
    told = json.loads(run("status", "--json").stdout)["agents"]
    return {agent["agent_name"]: (agent["status"], agent["message"]) for agent in told}


@pytest.mark.usefixtures("sec")
def test_filings_and_feeds_are_taken_in_once_and_decided(run: Run, once: tuple[str, ...], site: Site, store: Store) -> None:
    decided = traces(run(*once))
    assert sorted((trace["symbol"], trace["status"]) for trace in decided) == [("AAPL", "submitted"), ("MSFT", "submitted")]
    assert {headers["user-agent"].partition(" ")[2] for _, headers in site.requests} == {f"({CONTACT})"}
    assert [(item.supplier_name, item.ticker) for item in store.trading.list_ticker_mappings()] == [("Apple Inc.", "AAPL")]
    assert traces(run(*once)) == []
    found = health(run)
    assert set(found) == {"apollo", "ares", "argus", "artemis", "hades", "hermes", "icarus", "pythia", "watchdog", "zeus"}
    assert {status for status, _ in found.values()} == {"healthy"}
    assert "  ares: healthy at 20" in run("status").stdout


@pytest.mark.usefixtures("sec")
def test_without_listings_a_filer_goes_by_its_name_as_far_as_companies_ship(
    run: Run, once: tuple[str, ...], site: Site
) -> None:
    del site.pages[SEC_LISTINGS]
    done = run(*once)
    assert "the SEC's listings must wait: the SEC's listings must be JSON" in done.stderr
    assert {trace["symbol"] for trace in traces(done)} == {"MSFT", "AAPL"}
    assert health(run)["apollo"] == ("degraded", "fails: the SEC's listings")


@pytest.mark.usefixtures("sec")
def test_the_ticker_map_of_the_store_finds_a_filer_though_no_listings_come(
    run: Run, once: tuple[str, ...], site: Site, tmp_path: Path
) -> None:
    del site.pages[SEC_LISTINGS]
    (tmp_path / "map.csv").write_text("supplier_name,ticker,exchange\nApple Inc.,APLX,NASDAQ\n")
    assert run("learn", "--ticker-map", str(tmp_path / "map.csv")).exit_code == 0
    decided = {(trace["symbol"], trace["binding_constraint"]) for trace in traces(run(*once))}
    assert {symbol for symbol, _ in decided} == {"MSFT", "APLX"}
    assert ("APLX", "price_unavailable") in decided


@pytest.mark.usefixtures("sec")
def test_a_universe_names_what_may_be_traded(run: Run, once: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "universe.csv"
    path.write_text("ticker,sector\nMSFT,information technology\n")
    ends = {(trace["symbol"], trace["binding_constraint"]) for trace in traces(run(*once, "--universe", str(path)))}
    assert {symbol for symbol, _ in ends} == {"MSFT", None}
    assert (None, "out_of_universe") in ends
    path.write_text("ticker\nMSFT\nA B\n")
    refused = run(*once, "--universe", str(path))
    assert refused.exit_code == 1
    assert "line 3 of" in str(refused.exception)


@pytest.mark.usefixtures("sec", "telegram")
def test_a_source_that_fails_is_said_once_over_every_channel_and_the_round_goes_on(
    run: Run, once: tuple[str, ...], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQF_ALERT_WEBHOOK_URL", f"{site.url}/hook?key=hunter2")
    assert len(traces(run(*once))) == 2
    assert site.posted == []
    good, site.pages[WIRE] = site.pages[WIRE], b"<html/>"
    outputs = [run(*once) for _ in range(2)]
    assert all("wire cannot be read: " in done.stderr and done.exit_code == 0 for done in outputs)
    assert health(run)["hermes"] == ("degraded", "fails: wire")
    site.pages[WIRE] = good
    outputs.append(run(*once))
    lines = ["hermes: healthy -> degraded (fails: wire)", "hermes: degraded -> healthy"]
    hooked = [body["line"] for path, body in site.posted if path == "/hook?key=hunter2"]
    told = [(body["chat_id"], body["text"]) for path, body in site.posted if path == f"/bot{TOKEN}/sendMessage"]
    assert (hooked, told) == (lines, [("42", line) for line in lines])
    assert not any(secret in done.output for done in outputs for secret in (TOKEN, "hunter2"))


@pytest.mark.usefixtures("telegram")
def test_a_start_is_no_news_and_a_halt_is_told_once_though_rounds_are_processes_of_their_own(
    run: Run, prices: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQF_ALERT_WEBHOOK_URL", "http://127.0.0.1:9/unused")
    arguments = ("--once", "--data", str(prices), "--fictitious-lists", "--webhook", f"{site.url}/hook")
    run("halt", "--reason", "a look")
    run(*arguments)
    run(*arguments)
    assert [body["line"] for path, body in site.posted if path == "/hook"] == ["argus: healthy -> degraded (all: a look)"]
    run("resume")
    run(*arguments)
    assert [body["line"] for path, body in site.posted if path == "/hook"][1:] == ["argus: degraded -> healthy"]


def test_a_loop_that_is_killed_leaves_nothing_in_the_way_of_the_next(run: Run, home: Path, prices: Path) -> None:
    arguments = ("--data", str(prices), "--fictitious-lists")
    process = start_aqf(home, "trade", "--loop", "1", "--calendar", "24/7", *arguments)
    try:
        assert process.stdout is not None
        assert "equity 250,000.00" in process.stdout.readline()
        refused = run("--once", *arguments)
        assert isinstance(refused.exception, AQFError)
        assert f"process {process.pid} trades on this store" in str(refused.exception)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    done = run("--once", *arguments)
    assert done.exit_code == 0, done.output
    assert "equity 250,000.00" in done.stdout


def test_a_loop_looks_after_everybody_and_ends_after_its_rounds(run: Run, prices: Path, store: Store) -> None:
    done = run("--loop", "1", "--rounds", "2", "--calendar", "24/7", "--data", str(prices), "--fictitious-lists")
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 2
    assert len(store.trading.gateway.select("agent_health", where={"agent_name": "ares"})) == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["https://example.org/rss"], "must be NAME=URL"),
        (["=https://example.org/rss"], "must be NAME=URL"),
        (["wire"], "must be NAME=URL"),
        (["wire=example.org/rss"], "begins with http:// or https://"),
        (["wire=ftp://example.org"], "begins with http:// or https://"),
        (["wire=http://[::1"], "begins with http:// or https://"),
        (["wire=http://example.org/a b"], "begins with http:// or https://"),
        (["edgar=https://example.org"], "say --edgar"),
        (["wire=https://a.org", "wire=https://b.org"], "wire is given twice"),
    ],
)
def test_a_feed_that_cannot_be_meant_is_wrong_usage(run: Run, given: list[str], words: str) -> None:
    done = run("--once", *(part for text in given for part in ("--feed", text)))
    assert done.exit_code == 2
    assert words in done.stderr


@pytest.mark.parametrize("arguments", [("--once", "--edgar"), ("learn", "--arxiv")])
def test_who_does_not_say_how_they_are_reached_asks_neither_the_sec_nor_arxiv(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert isinstance(done.exception, ConfigurationError)
    assert "AQF_CONTACT is not set" in str(done.exception)


def test_learn_keeps_papers_and_tickers_and_says_what_changed(run: Run, tmp_path: Path, store: Store) -> None:
    papers, table = tmp_path / "papers", tmp_path / "map.csv"
    papers.mkdir()
    (papers / "note.md").write_text("# A note\n\nOn suppliers.")
    table.write_text("supplier_name,ticker,exchange\nAcme,ACM,NYSE\n")
    done = run("learn", "--papers", str(papers), "--ticker-map", str(table), "--digest")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        f"1 papers of {papers} are in the knowledge base.",
        "1 names are in the ticker map; 0 had another ticker before.",
        "Nothing to digest yet: 0 decisions in 30 days, 0 approved; it takes 10 and 5.",
    ]
    table.write_text("supplier_name,ticker,exchange\nAcme,ACME,NYSE\n")
    assert "  Acme: ACM -> ACME\n" in run("learn", "--ticker-map", str(table)).stdout
    decide(store, approved=5, refused=5, at=now())
    learned = json.loads(run("learn", "--digest", "--json").stdout)
    assert learned["digest"]["doc_id"] == f"digest:{datetime.now(UTC):%Y-%m-%d}"
    assert learned["digest"]["text"].startswith("Digest of ")


def test_papers_of_arxiv_are_kept_with_the_time_of_their_first_version(
    run: Run, site: Site, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQF_CONTACT", CONTACT)
    monkeypatch.setenv("AQF_ARXIV_URL", site.url)
    monkeypatch.setattr("agents.trading.apollo.ARXIV_PAUSE_SECONDS", 0.0)
    done = run("learn", "--arxiv", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"arxiv": 6}  # three topics, two papers each, the same ones here
    assert all(f"({CONTACT})" in headers["user-agent"] for _, headers in site.requests)
    found = store.knowledge.search("news and returns", collections=[KnowledgeCollection.LITERATURE])
    assert {match.document.doc_id for match in found} == {"arxiv:2403.00001", "arxiv:q-fin/0701001"}


def test_help_shows_every_option_once_in_its_section(run: Run) -> None:
    lines = run("--help").stdout.splitlines()
    heads = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert heads == ["Rounds:", "Account and prices:", "News:", "Rules:", "Who is told:", "Other:", "Commands:"]
    shown = [line.split()[0].rstrip(",") for line in lines if line.startswith("  -")]
    options = [param.opts[0] for param in trade.params if isinstance(param, click.Option)]
    assert sorted(shown) == sorted([*options, "-h"])


def test_learning_nothing_is_wrong_usage(run: Run) -> None:
    assert run("learn").exit_code == 2


@pytest.mark.usefixtures("telegram")
def test_a_test_of_the_alerts_says_of_each_channel_whether_it_arrived(run: Run, site: Site) -> None:
    assert run("alerts").stdout == "log: configured\ntelegram: configured\n"
    assert site.posted == []
    done = run("alerts", "--test")
    assert (done.exit_code, done.stdout) == (0, "log: sent\ntelegram: sent\n")
    ((path, body),) = site.posted
    assert (path, body) == (f"/bot{TOKEN}/sendMessage", {"chat_id": "42", "text": "aqf: a test (nothing happened)"})
    site.status = 403
    refused = run("alerts", "--test", "--webhook", "http://127.0.0.1:9/hook?key=hunter2", "--json")
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["telegram"] == "not sent: the address answered 403"
    assert json.loads(refused.stdout)["webhook"].startswith("not sent: ")
    assert TOKEN not in refused.output
    assert "hunter2" not in refused.output


def test_the_doctor_names_the_channels_and_the_contact_and_no_secret(
    run: Run, monkeypatch: pytest.MonkeyPatch, site: Site
) -> None:
    monkeypatch.setenv("AQF_ALERT_WEBHOOK_URL", "https://example.org/?key=hunter2")
    done = CliRunner().invoke(aqf, ["doctor", "--json"])
    told = json.loads(done.stdout)
    assert told["alerts"] == "log, webhook"
    assert told["contact"].startswith("AQF_CONTACT is not set")
    assert "hunter2" not in done.output


def test_what_a_feed_says_of_what_is_dropped_cannot_steer_the_terminal(run: Run, prices: Path, site: Site) -> None:
    site.pages[WIRE] = rss().replace(b"<guid>one</guid>", "<guid>one\x9b2J</guid>".encode()).replace(b" +0000", b"")
    told = run("--once", "--data", str(prices), "--feed", f"wire={site.url}{WIRE}", "--fictitious-lists").stdout
    assert "1  of wire dropped" in told
    assert "1  one 2J: `published_at` must say" in told
    assert "\x9b" not in told
