"""ChromaKnowledgeBase: the knowledge base in one folder, for a machine without a database server.

Hides Chroma: its client, its flat metadata (JSON goes as text, times as microseconds), and that a client does not see in its
index what another process wrote. Therefore every operation opens the folder anew, under a lock that only one process and thread
has at a time, which costs about a tenth of a second. A search reads every vector, a tenth more for each thousand documents,
because Chroma's index loses documents beside many equal ones. Promises the contract of
:class:`core.store.knowledge.KnowledgeBase`, except that Chroma says nothing about a process that dies in the middle of a save.
Chroma is imported with the first use.
"""

from __future__ import annotations

import heapq
import importlib.util
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from core.errors import ConfigurationError, MissingDataError, StoreUnavailableError
from core.store.knowledge import REEMBED_BATCH, check_batch, check_outcome, match
from core.store.knowledge_records import (
    DocumentOutcome,
    KnowledgeDocument,
    KnowledgeMatch,
    KnowledgeQuery,
    StoredDocument,
    check_collection,
    contains,
)
from core.store.trading_records import KnowledgeCollection
from core.text.embedder import TextEmbedder, embed_checked

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_BUSY_SECONDS = 30.0
_PAGE = 2_000
"""Rows read at once: Chroma names each in one statement, of which SQLite takes 32,766 names, and they are held in memory."""


def knowledge_path(home: Path) -> Path:
    """Return where the Chroma folder of a home lies."""
    return home / "data" / "chroma"


class ChromaKnowledgeBase:
    """Keep documents in a folder of Chroma's, which is made with the first use.

    Parameters
    ----------
    path : Path
        The folder; see `knowledge_path`.
    embedder : TextEmbedder
        Makes the vectors of this base.

    Raises
    ------
    ConfigurationError
        If Chroma is not installed.
    """

    def __init__(self, path: Path, embedder: TextEmbedder) -> None:
        if importlib.util.find_spec("chromadb") is None:
            raise ConfigurationError(
                "a knowledge base without a database needs Chroma, which is not installed: "
                "`pip install 'agentic-quantitative-framework[chroma]'`, or do without AQF_STORE=sqlite."
            )
        self.path = path
        self.embedder = embedder

    def save_documents(self, documents: Sequence[KnowledgeDocument]) -> int:
        """Embed and store documents, and return how many; the same `doc_id` again replaces one and keeps its outcome."""
        check_batch(documents)
        vectors = embed_checked(self.embedder, [document.document_text for document in documents])
        with self._opened() as (client, collection):
            step = client.get_max_batch_size()
            for start in range(0, len(documents), step):
                part = documents[start : start + step]
                # Chroma merges metadata: an outcome that is there stays.
                collection.upsert(
                    ids=[document.doc_id for document in part],
                    documents=[document.document_text for document in part],
                    embeddings=vectors[start : start + step],
                    metadatas=[_flat(document, self.embedder.name) for document in part],
                )
        return len(documents)

    def search(
        self,
        text: str,
        *,
        k: int = 5,
        collections: Sequence[KnowledgeCollection] = (),
        as_of: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> list[KnowledgeMatch]:
        """Return the documents of this embedder that are nearest in meaning, nearest first, then by `doc_id`."""
        query = KnowledgeQuery(text=text, k=k, collections=collections, as_of=as_of, metadata=metadata or {})
        vector = embed_checked(self.embedder, [query.text])[0]
        conditions: list[dict[str, Any]] = [{"embedder": self.embedder.name}]
        if query.collections:
            conditions.append({"collection": {"$in": [item.value for item in query.collections]}})
        if query.as_of is not None:
            conditions.append({"known_at": {"$lte": _number(query.as_of)}})
        where: Any = conditions[0] if len(conditions) == 1 else {"$and": conditions}
        wanted = dict(query.metadata)
        found: list[KnowledgeMatch] = []
        with self._opened() as (_, collection):
            for page in _pages(collection, where=where, include=["documents", "metadatas", "embeddings"]):
                vectors = page["embeddings"]
                distances = 1.0 - vectors @ vector / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector))
                for *row, distance in zip(page["ids"], page["documents"], page["metadatas"], distances, strict=True):
                    item = _document(*row, as_of=query.as_of)
                    if contains(dict(item.metadata), wanted):
                        found.append(match(item, float(distance)))
                found = heapq.nsmallest(k, found, key=lambda item: (-item.similarity, item.document.doc_id))
        return found

    def get_document(self, doc_id: str) -> StoredDocument:
        """Return one document, of whichever embedder."""
        with self._opened() as (_, collection):
            return _get(collection, doc_id)

    def record_outcome(self, doc_id: str, outcome: DocumentOutcome) -> StoredDocument:
        """Write what became of a document, once."""
        with self._opened() as (_, collection):
            stored = _get(collection, doc_id)
            if stored.outcome is not None:
                return check_outcome(stored, outcome)
            flat: Any = {"outcome": json.dumps(dict(outcome.values)), "outcome_known_at": _number(outcome.known_at)}
            collection.update(ids=[doc_id], metadatas=[flat])
            return _get(collection, doc_id)

    def count_documents(self) -> dict[str, int]:
        """Return how many documents there are of each embedder."""
        with self._opened() as (_, collection):
            pages = _pages(collection, include=["metadatas"])
            counts = Counter(flat["embedder"] for page in pages for flat in page["metadatas"])
        return dict(sorted(counts.items()))

    def reembed(self) -> int:
        """Give documents of other embedders vectors of this one, and return how many."""
        done = 0
        others: Any = {"embedder": {"$ne": self.embedder.name}}
        while True:
            with self._opened() as (_, collection):
                found = collection.get(where=others, limit=REEMBED_BATCH, include=["documents"])
            texts = dict(zip(found["ids"], found["documents"] or [], strict=True))
            if not texts:
                return done
            vectors = dict(zip(texts, embed_checked(self.embedder, list(texts.values())), strict=True))
            with self._opened() as (_, collection):
                # A document that somebody saved meanwhile has another text, and comes again or is done.
                again = collection.get(ids=list(texts), where=others, include=["documents"])
                same = [
                    doc_id for doc_id, said in zip(again["ids"], again["documents"] or [], strict=True) if said == texts[doc_id]
                ]
                if same:
                    collection.update(
                        ids=same,
                        embeddings=[vectors[doc_id] for doc_id in same],
                        metadatas=[{"embedder": self.embedder.name}] * len(same),
                    )
            done += len(same)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Collection]]:
        import chromadb
        from chromadb.api.shared_system_client import SharedSystemClient
        from chromadb.config import Settings
        from chromadb.errors import ChromaError

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_suffix(".lock"), timeout=_BUSY_SECONDS):
                try:
                    client: Any = chromadb.PersistentClient(path=self.path, settings=Settings(anonymized_telemetry=False))
                except ChromaError:
                    SharedSystemClient.clear_system_cache()  # it keeps clients that never came about, and gives them out again
                    raise
                with client:
                    yield (
                        client,
                        client.get_or_create_collection(
                            "knowledge_documents", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
                        ),
                    )
        except Timeout as error:
            raise StoreUnavailableError(
                f"the knowledge base {self.path} has been in use for {_BUSY_SECONDS:.0f} seconds: try again."
            ) from error
        except (ChromaError, OSError) as error:
            raise StoreUnavailableError(f"the knowledge base {self.path} cannot be used: {error}.") from error


def _get(collection: Collection, doc_id: str) -> StoredDocument:
    found = collection.get(ids=[doc_id], include=["documents", "metadatas"])
    if not found["ids"]:
        raise MissingDataError(f"there is no document {doc_id!r} in the knowledge base.")
    return _document(doc_id, (found["documents"] or [])[0], (found["metadatas"] or [])[0], as_of=None)


def _pages(collection: Collection, **asked: Any) -> Iterator[dict[str, Any]]:
    """Yield all rows that `Collection.get` gives, a page at a time."""
    for start in range(0, collection.count(), _PAGE):
        found: Any = collection.get(limit=_PAGE, offset=start, **asked)
        if not found["ids"]:
            return
        yield found


def _flat(document: KnowledgeDocument, embedder: str) -> dict[str, Any]:
    return {
        "collection": document.collection.value,
        "metadata": json.dumps(dict(document.metadata)),
        "known_at": _number(document.known_at),
        "embedder": embedder,
    }


def _document(doc_id: str, text: str, flat: Mapping[str, Any], *, as_of: datetime | None) -> StoredDocument:
    outcome = None
    if "outcome" in flat and (as_of is None or flat["outcome_known_at"] <= _number(as_of)):
        outcome = DocumentOutcome(values=json.loads(flat["outcome"]), known_at=_time(flat["outcome_known_at"]))
    return StoredDocument(
        doc_id=doc_id,
        collection=check_collection(flat["collection"]),
        document_text=text,
        metadata=json.loads(flat["metadata"]),
        known_at=_time(flat["known_at"]),
        embedder=flat["embedder"],
        outcome=outcome,
    )


def _number(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _time(number: int) -> datetime:
    return _EPOCH + number * _MICROSECOND
