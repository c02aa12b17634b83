from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from agents.trading.feeds import Batch, Dropped, EdgarFeed
from agents.trading.hermes import Hermes, HermesConfig
from agents.trading.news import NewsCategory, NewsItem, Urgency
from agents.trading.web import Web
from core.clock import FixedClock
from core.errors import ConfigurationError, DataError, StoreUnavailableError
from core.store.opening import Store
from core.store.trading import TradingStore
from core.store.trading_records import StoredSignal
from core.types import RawSignal, Severity, SignalCategory
from tests.agents.trading.loopback import Site
from tests.agents.trading.signals import NOW
from tests.agents.trading.test_feeds import APPLE, edgar, filing


def item(**changes: Any) -> NewsItem:
    values: dict[str, Any] = {
        "source": "wire",
        "source_key": "one",
        "headline": "Plant halts",
        "published_at": NOW,
        "category": NewsCategory.SUPPLY_CHAIN,
        "urgency": Urgency.HIGH,
        "tickers": ("AAA",),
    }
    return NewsItem(**(values | changes))


@dataclass
class Canned:
    """A source that has what a test gave it."""

    batch: Batch = field(default_factory=Batch)
    name: str = "wire"
    error: DataError | None = None
    confirmed: int = 0

    def fetch(self) -> Batch:
        if self.error is not None:
            raise self.error
        return self.batch

    def confirm(self) -> None:
        self.confirmed += 1


@dataclass
class Shelf(TradingStore):
    """A store that keeps signals in a list, until it breaks."""

    kept: dict[tuple[str, str], RawSignal] = field(default_factory=dict)
    room: int = 100

    def save_signal(self, signal: RawSignal, *, source: str, source_key: str, raw_text: str | None = None) -> StoredSignal:
        if len(self.kept) >= self.room:
            raise StoreUnavailableError("the database is gone.")
        inserted = (source, source_key) not in self.kept
        self.kept[source, source_key] = signal
        return StoredSignal(signal_id=signal.signal_id, inserted=inserted)


def collect(*items: NewsItem, config: HermesConfig | None = None) -> tuple[list[RawSignal], list[str]]:
    shelf = Shelf()
    harvest = Hermes(shelf, [Canned(Batch(items=items))], config or HermesConfig(), FixedClock(NOW)).collect()
    assert harvest.n_new == len(shelf.kept)
    return list(shelf.kept.values()), [dropped.reason for dropped in harvest.dropped]


def test_an_item_becomes_a_signal() -> None:
    (kept,), _ = collect(item(summary="More.", supplier="Acme", url="https://example.org/1", significant=True))
    assert (kept.headline, kept.summary, kept.supplier) == ("Plant halts", "More.", "Acme")
    assert (kept.category, kept.severity) == (SignalCategory.SUPPLIER_DISRUPTION, Severity.CRITICAL)
    assert (kept.affected_tickers, kept.published_at, kept.source_url) == (("AAA",), NOW, "https://example.org/1")


@pytest.mark.parametrize(("urgency", "kept"), [(Urgency.LOW, 0), (Urgency.MEDIUM, 1), (Urgency.HIGH, 1)])
def test_items_of_low_urgency_are_dropped(urgency: Urgency, kept: int) -> None:
    signals, reasons = collect(item(urgency=urgency))
    assert len(signals) == kept
    assert len(reasons) == 1 - kept


@pytest.mark.parametrize(
    ("tickers", "supplier", "kept"), [((), None, 0), (("AAA",), None, 1), ((), "Acme", 1), (("AAA",), "Acme", 1)]
)
def test_items_without_a_ticker_and_a_name_to_find_one_by_are_dropped(
    tickers: tuple[str, ...], supplier: str | None, kept: int
) -> None:
    signals, reasons = collect(item(tickers=tickers, supplier=supplier))
    assert len(signals) == kept
    assert reasons == ([] if kept else ["it names neither a ticker nor a company."])


@pytest.mark.parametrize(("ahead", "kept"), [(timedelta(minutes=10), 1), (timedelta(minutes=10, seconds=1), 0)])
def test_an_item_from_the_future_is_dated_now_or_dropped(ahead: timedelta, kept: int) -> None:
    signals, _ = collect(item(published_at=NOW + ahead))
    assert [signal.published_at for signal in signals] == [NOW] * kept


def test_the_same_item_has_the_same_identity_and_another_has_another() -> None:
    signals, _ = collect(item(), item(source_key="two"), item(source="other"))
    assert len({signal.signal_id for signal in signals}) == 3
    (again,), _ = collect(item(headline="Plant halts, corrected"))
    assert again.signal_id == signals[0].signal_id


def test_what_a_source_dropped_or_holds_back_is_told() -> None:
    dropped = Dropped(source="wire", key="line 7", reason="must be JSON.")
    source = Canned(Batch(dropped=(dropped,), held=3))
    harvest = Hermes(Shelf(), [source], HermesConfig(), FixedClock(NOW)).collect()
    assert harvest.dropped == (dropped,)
    assert (harvest.n_new, harvest.n_known, harvest.n_held, source.confirmed) == (0, 0, 3, 1)


def test_a_source_that_fails_does_not_keep_the_others_from_being_read() -> None:
    broken, good = Canned(name="broken", error=DataError("it answered <html>.")), Canned(Batch(items=(item(),)))
    harvest = Hermes(Shelf(), [broken, good], HermesConfig(), FixedClock(NOW)).collect()
    assert [(failure.source, failure.reason) for failure in harvest.failures] == [("broken", "it answered <html>.")]
    assert harvest.n_new == 1
    assert (broken.confirmed, good.confirmed) == (0, 1)


def test_a_source_is_not_told_that_its_items_are_kept_before_all_are() -> None:
    source, shelf = Canned(Batch(items=(item(), item(source_key="two")))), Shelf(room=1)
    hermes = Hermes(shelf, [source], HermesConfig(), FixedClock(NOW))
    with pytest.raises(StoreUnavailableError):
        hermes.collect()
    assert source.confirmed == 0
    shelf.room = 100
    harvest = hermes.collect()
    assert (harvest.n_new, harvest.n_known, source.confirmed) == (1, 1, 1)


def test_a_negative_tolerance_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        HermesConfig(max_ahead=timedelta(seconds=-1))


def test_filings_reach_the_store_once_and_a_claimed_one_stays_claimed(store: Store, site: Site, web: Web) -> None:
    site.body = edgar(
        filing("8-K", "APPLE INC", "Item 1.03: Bankruptcy", number=1),
        filing("8-K", "ACME CORP", "Item 2.02: Results", cik=7, number=2),
        filing("8-K", "ACME CORP", "Item 5.02: Departure", cik=7, number=3),
    )
    clock = FixedClock(NOW + timedelta(hours=6))
    hermes = Hermes(store.trading, [EdgarFeed(web, [APPLE], url=site.url)], HermesConfig(), clock)
    harvest = hermes.collect()
    assert (harvest.n_new, harvest.n_known, len(harvest.dropped), harvest.failures) == (2, 0, 1, ())
    claimed = store.trading.claim_signals("worker")
    assert {(signal.severity, signal.affected_tickers, signal.supplier) for signal in claimed} == {
        (Severity.CRITICAL, ("AAPL",), "APPLE INC"),
        (Severity.MEDIUM, (), "ACME CORP"),
    }
    harvest = hermes.collect()
    assert (harvest.n_new, harvest.n_known) == (0, 2)
    assert store.trading.claim_signals("another worker") == []
