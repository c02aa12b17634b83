import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from agents.trading.apollo import Apollo, ApolloConfig, read_arxiv
from agents.trading.web import Web
from core.clock import FixedClock
from core.errors import ConfigurationError, DataError, MissingDataError
from core.store.opening import Store
from core.store.trading_records import Exchange, KnowledgeCollection, NewTrade, TickerMapping, TradeEntry, TradeExit
from core.types import BindingConstraint, DecisionTrace, PipelineStatus, Side, Stage, StageOutcome
from tests.agents.trading.loopback import Site
from tests.agents.trading.signals import NOW, signal

PAPERS = b"""<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom" xmlns:arxiv="http://arxiv.org/schemas/atom"><title>arXiv Query</title>
<entry><id>http://arxiv.org/abs/2403.00001v2</id><published>2024-03-01T09:00:00Z</published><updated>2024-03-03T09:00:00Z</updated>
<title>News and
  Returns</title><summary>We find &lt;i&gt;drift&lt;/i&gt;.</summary><author><name>Ada Lovelace</name></author></entry>
<entry><id>http://arxiv.org/abs/q-fin/0701001v1</id><published>2007-01-01T00:00:00Z</published><title>An Old One</title></entry>
</feed>"""
ERROR = b"""<feed xmlns="http://www.w3.org/2005/Atom"><entry><id>http://arxiv.org/api/errors#incorrect_id_format</id>
<title>Error</title><summary>incorrect id format</summary></entry></feed>"""


def apollo(store: Store, config: ApolloConfig | None = None, now: datetime = NOW) -> Apollo:
    return Apollo(store.trading, store.trade_log, store.knowledge, config or ApolloConfig(), FixedClock(now))


def test_a_paper_is_known_since_its_first_version() -> None:
    first, second = read_arxiv("here", PAPERS)
    assert (first.doc_id, second.doc_id) == ("arxiv:2403.00001", "arxiv:q-fin/0701001")
    assert first.document_text == "News and Returns\n\nWe find drift ."
    assert first.known_at == datetime(2024, 3, 1, 9, tzinfo=UTC)
    assert first.collection is KnowledgeCollection.LITERATURE
    assert first.metadata["authors"] == ["Ada Lovelace"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (ERROR, "incorrect id format"),
        (b"<html/>", "RSS or Atom"),
        (PAPERS[:300], "RSS or Atom"),
        (PAPERS.replace(b"/abs/2403.00001v2", b"/pdf"), "without a number"),
        (PAPERS.replace(b"2024-03-01T09:00:00Z", b"soon"), "must be a time"),
        (PAPERS.replace(b"2024-03-01T09:00:00Z", b"2024-03-01T09:00:00"), "zone"),
    ],
)
def test_an_answer_that_is_no_list_of_papers_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(DataError, match=why):
        read_arxiv("here", content)


def test_papers_of_every_topic_are_fetched_and_found_as_of_their_time(store: Store, site: Site, web: Web) -> None:
    site.body = PAPERS
    librarian = apollo(
        store, ApolloConfig(arxiv_url=f"{site.url}/api/query", topics=("cat:q-fin.TR", "abs:drift"), papers_per_topic=2)
    )
    assert librarian.fetch_literature(web) == 4
    asked = [parse_qs(urlsplit(path).query) for path, _ in site.requests]
    assert [query["search_query"] for query in asked] == [["cat:q-fin.TR"], ["abs:drift"]]
    assert asked[0]["max_results"] == ["2"]
    assert store.knowledge.count_documents() == {store.knowledge.embedder.name: 2}
    found = store.knowledge.search(
        "news and returns", collections=[KnowledgeCollection.LITERATURE], as_of=NOW - timedelta(days=30)
    )
    assert [match.document.doc_id for match in found] == ["arxiv:q-fin/0701001"]


def test_without_arxiv_a_folder_is_read(store: Store, tmp_path: Path, web: Web) -> None:
    with pytest.raises(MissingDataError):
        apollo(store, ApolloConfig(arxiv_url="http://127.0.0.1:1/api/query")).fetch_literature(web)
    (tmp_path / "answer.xml").write_bytes(PAPERS)
    (tmp_path / "note.md").write_text("# A note\n\nOn suppliers.")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    at = NOW.timestamp()
    os.utime(tmp_path / "note.md", (at, at))
    assert apollo(store).read_literature(tmp_path) == 3
    note = store.knowledge.get_document("file:note.md")
    assert (note.known_at, note.metadata["title"]) == (NOW, "A note")


@pytest.mark.parametrize(
    ("name", "content"), [("a.md", b"\xff\xfe"), ("a.txt", b"  "), ("a.xml", b"<html/>"), ("a.md", b"x" * 2**21)]
)
def test_a_file_that_cannot_be_read_keeps_the_whole_folder_out(store: Store, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "good.md").write_text("Fine.")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        apollo(store).read_literature(tmp_path)
    assert store.knowledge.count_documents() == {}


def test_a_folder_that_is_not_there_is_missing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="nowhere"):
        apollo(store).read_literature(tmp_path / "nowhere")


def test_the_ticker_map_is_kept_up_from_a_file(store: Store, tmp_path: Path) -> None:
    old = [
        TickerMapping(supplier_name=name, ticker=ticker, exchange=Exchange.NYSE) for name, ticker in (("A", "AA"), ("B", "BB"))
    ]
    store.trading.save_ticker_mappings(old)
    path = tmp_path / "map.csv"
    path.write_text("supplier_name,ticker,exchange\nB,BX,NYSE\nC,CC,XETRA\n")
    update = apollo(store).read_ticker_map(path)
    assert update.n_written == 2
    assert update.changed == (("B", "BB", "BX"),)
    assert [(item.supplier_name, item.ticker) for item in store.trading.list_ticker_mappings()] == [
        ("A", "AA"),
        ("B", "BX"),
        ("C", "CC"),
    ]
    path.write_text("supplier_name,ticker,exchange\nB,BY,NYSE\nB,BZ,NYSE\n")
    with pytest.raises(DataError, match="once"):
        apollo(store).read_ticker_map(path)
    with pytest.raises(MissingDataError):
        apollo(store).read_ticker_map(tmp_path / "nowhere.csv")


def test_the_ticker_map_is_kept_up_from_the_secs_listings(store: Store, site: Site, web: Web) -> None:
    site.body = b"""{"fields": ["cik", "name", "ticker", "exchange"],
        "data": [[1, "Acme", "ACM", "NYSE"], [1, "Acme", "ACM-B", "NYSE"], [2, "Pink", "PNK", "OTC"]]}"""
    assert len(apollo(store).fetch_ticker_map(web, site.url)) == 2
    assert [item.ticker for item in store.trading.list_ticker_mappings()] == ["ACM"]
    site.body = b"<html/>"
    with pytest.raises(DataError):
        apollo(store).fetch_ticker_map(web, site.url)
    assert [item.ticker for item in store.trading.list_ticker_mappings()] == ["ACM"]


def decide(store: Store, *, approved: int, refused: int, at: datetime = NOW) -> None:
    for number in range(approved + refused):
        item, killed = signal(), number >= approved
        store.trading.save_signal(item, source="test", source_key=item.signal_id)
        changes: dict[str, Any] = {"status": PipelineStatus.SUBMITTED}
        if killed:
            changes = {
                "status": PipelineStatus.KILLED,
                "killed_at_stage": Stage.PYTHIA,
                "kill_reason": "because",
                "binding_constraint": BindingConstraint.COOLDOWN,
            }
        stages = (StageOutcome(stage=Stage.PYTHIA, passed=not killed),)
        trace = DecisionTrace(
            trace_id=f"of {item.signal_id}", signal_id=item.signal_id, decided_at=at, stages=stages, **changes
        )
        store.trading.save_decision_trace(trace)


def close_trade(store: Store, key: str, number: int, exit_price: float, closed_at: datetime = NOW) -> None:
    trade = store.trade_log.record_trade(
        NewTrade(
            context_key=key,
            confidence=0.6,
            position_pct=0.02,
            symbol="AAA",
            side=Side.BUY,
            client_order_id=f"{key} {number}",
            recorded_at=closed_at - timedelta(hours=1),
        )
    )
    store.trade_log.record_entry(TradeEntry(client_order_id=trade.client_order_id, qty=1.0, fill_price=100.0))
    store.trade_log.close_trade(
        TradeExit(trade_id=trade.trade_id, exit_price=exit_price, exit_reason="target", closed_at=closed_at)
    )


@pytest.mark.parametrize(
    ("approved", "refused", "written"), [(5, 5, True), (4, 6, False), (5, 4, False), (0, 0, False), (10, 0, True)]
)
def test_a_digest_needs_ten_decisions_and_five_approved(store: Store, approved: int, refused: int, written: bool) -> None:
    decide(store, approved=approved, refused=refused)
    digest = apollo(store).write_digest()
    assert (digest.n_traces, digest.n_approved) == (approved + refused, approved)
    assert (digest.document is not None) is written
    assert store.knowledge.count_documents() == ({store.knowledge.embedder.name: 1} if written else {})


def test_a_digest_tells_win_rate_and_average_by_category_and_regime(store: Store) -> None:
    decide(store, approved=6, refused=6)
    decide(store, approved=9, refused=9, at=NOW - timedelta(days=31))
    decide(store, approved=9, refused=9, at=NOW + timedelta(minutes=1))
    for number, price in enumerate((106.0, 97.0, 106.0)):
        close_trade(store, "positive_news|bull|low", number, price)
    close_trade(store, "earnings_surprise|bear|high", 0, 97.0)
    close_trade(store, "earnings_surprise|bear|high", 1, 150.0, NOW - timedelta(days=31))
    digest = apollo(store).write_digest()
    assert (digest.n_traces, digest.n_approved) == (12, 6)
    document = store.knowledge.get_document("digest:2024-03-04")
    assert document.known_at == NOW
    assert document.collection is KnowledgeCollection.KNOWLEDGE
    assert document.document_text.splitlines() == [
        "Digest of 2024-03-04: 12 decisions in 30 days, 6 approved, 4 trades closed.",
        "earnings_surprise in a bear regime: 1 closed, win rate 0%, average return after cost -3.00%.",
        "positive_news in a bull regime: 3 closed, win rate 67%, average return after cost +3.00%.",
    ]
    groups = document.metadata["groups"]
    assert groups[1]["win_rate"] == pytest.approx(2 / 3)
    assert groups[1]["avg_net_pnl_pct"] == pytest.approx((0.06 - 0.03 + 0.06) / 3)


def test_the_last_digest_of_a_day_stays(store: Store) -> None:
    decide(store, approved=5, refused=5)
    apollo(store).write_digest()
    later = NOW + timedelta(hours=2)
    apollo(store, now=later).write_digest()
    assert store.knowledge.count_documents() == {store.knowledge.embedder.name: 1}
    assert store.knowledge.get_document("digest:2024-03-04").known_at == later


@pytest.mark.parametrize("changes", [{"papers_per_topic": 0}, {"digest_days": 0}, {"digest_min_traces": 0}])
def test_a_config_that_cannot_work_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        ApolloConfig(**changes)
