from datetime import UTC, datetime

from core.store.headlines import BATCH, save_headlines
from core.store.knowledge import PgKnowledgeBase
from core.store.opening import Store
from core.text import HashedNgramEmbedder
from tests.core.store.trading import raw_signal


class Renamed(HashedNgramEmbedder):
    name = "another-make"


def save(store: Store, number: int, **changes: object) -> None:
    store.trading.save_signal(raw_signal(number, **changes), source="wire", source_key=str(number))


def test_headlines_become_documents_of_the_embedder_in_force(store: Store) -> None:
    save(store, 1, headline="Chip maker raises its forecast", summary="  Demand grew.  ")
    save(store, 2, headline="Refinery halts after a fire", summary="")
    gateway, knowledge = store.trading.gateway, store.knowledge
    assert save_headlines(gateway, knowledge) == 2
    assert save_headlines(gateway, knowledge) == 0
    assert knowledge.count_documents() == {knowledge.embedder.name: 2}
    (found,) = knowledge.search("refinery fire", k=1, metadata={"kind": "headline"})
    assert found.document.document_text == "Refinery halts after a fire"
    assert found.document.metadata["tickers"] == ["AAA", "BBB"]
    (other,) = knowledge.search("chip forecast", k=1)
    assert other.document.document_text == "Chip maker raises its forecast\n\nDemand grew."


def test_a_headline_is_not_found_as_of_a_time_before_we_had_it(store: Store) -> None:
    before = datetime.now(UTC)
    save(store, 1, headline="Old news, fetched late", published_at=datetime(2020, 1, 2, tzinfo=UTC))
    save_headlines(store.trading.gateway, store.knowledge)
    assert store.knowledge.search("old news", as_of=datetime(2020, 1, 3, tzinfo=UTC)) == []
    (found,) = store.knowledge.search("old news")
    assert found.document.known_at >= before


def test_a_corrected_headline_replaces_its_document(store: Store) -> None:
    save(store, 1, headline="Profit falls")
    save_headlines(store.trading.gateway, store.knowledge)
    save(store, 1, headline="Profit rises")
    assert save_headlines(store.trading.gateway, store.knowledge) == 1
    (found,) = store.knowledge.search("profit", k=5)
    assert found.document.document_text.startswith("Profit rises")


def test_there_may_be_more_headlines_than_a_batch(store: Store) -> None:
    for number in range(BATCH + 3):
        save(store, number)
    assert save_headlines(store.trading.gateway, store.knowledge) == BATCH + 3


def test_headlines_of_another_embedder_are_found_again_once_they_are_embedded_anew(store: Store) -> None:
    save(store, 1, headline="Port reopens")
    old = PgKnowledgeBase(store.trading.gateway, Renamed())
    assert save_headlines(store.trading.gateway, old) == 1
    assert store.knowledge.search("port") == []
    assert save_headlines(store.trading.gateway, store.knowledge) == 0  # it is there, under the other make
    assert store.knowledge.reembed() == 1
    assert store.knowledge.count_documents() == {store.knowledge.embedder.name: 1}
    assert len(store.knowledge.search("port")) == 1
