"""KnowledgeBase: what the agents read and remember in words, found by meaning.

Hides where documents and vectors lie. `PgKnowledgeBase` keeps them in the store, by pgvector; `ChromaKnowledgeBase` (in its own
module) in a folder. Both pass one contract: a base is opened with one embedder, saves under its name and finds what was saved
under it, so that distances are never taken between vectors of two makes. Nothing is found as of a time before it was known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from core.errors import DataError, MissingDataError, StoreConflictError
from core.store.gateway import Gateway, Row
from core.store.knowledge_records import (
    DocumentOutcome,
    KnowledgeDocument,
    KnowledgeMatch,
    KnowledgeQuery,
    StoredDocument,
)
from core.store.trading_records import KnowledgeCollection
from core.text.embedder import TextEmbedder, embed_checked

REEMBED_BATCH = 100
_MOST_MATCHES = 1000


@runtime_checkable
class KnowledgeBase(Protocol):
    """Keep documents and find them by meaning.

    Raises
    ------
    DataError
        A value is not allowed; the text names it and nothing was written.
    ShapeError
        The embedder made a vector that no store can hold; nothing was written.
    ChatModelError
        The model behind the embedder failed; nothing was written.
    StoreError
        The store refused or cannot be reached.
    """

    @property
    def embedder(self) -> TextEmbedder:
        """What turns text into vectors here."""
        ...

    def save_documents(self, documents: Sequence[KnowledgeDocument]) -> int:
        """Embed and store documents, and return how many; the same `doc_id` again replaces one and keeps its outcome."""
        ...

    def search(
        self,
        text: str,
        *,
        k: int = 5,
        collections: Sequence[KnowledgeCollection] = (),
        as_of: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> list[KnowledgeMatch]:
        """Return the documents of this embedder that are nearest in meaning, nearest first, then by `doc_id`.

        Parameters
        ----------
        text : str
            What they should be about.
        k : int, default=5
            How many, at most 200.
        collections : sequence of KnowledgeCollection, optional
            Shelves to look on; none means all.
        as_of : datetime, optional
            In UTC: only what was known by then, and outcomes only where they were. None means everything.
        metadata : mapping, optional
            What the documents' metadata must contain, as Postgres's ``@>`` understands it.
        """
        ...

    def get_document(self, doc_id: str) -> StoredDocument:
        """Return one document, of whichever embedder; MissingDataError if there is none."""
        ...

    def record_outcome(self, doc_id: str, outcome: DocumentOutcome) -> StoredDocument:
        """Write what became of a document, once: the same again changes nothing, another is a StoreConflictError."""
        ...

    def count_documents(self) -> dict[str, int]:
        """Return how many documents there are of each embedder; searches see those of their own."""
        ...

    def reembed(self) -> int:
        """Give documents of other embedders vectors of this one, and return how many; what is done is kept if it stops."""
        ...


class PgKnowledgeBase:
    """Keep documents in the table `knowledge_documents` of the store. A save is one transaction.

    Parameters
    ----------
    gateway : Gateway
        Way to the database, as `service_role`.
    embedder : TextEmbedder
        Makes the vectors of this base.
    """

    def __init__(self, gateway: Gateway, embedder: TextEmbedder) -> None:
        self.gateway = gateway
        self.embedder = embedder

    def save_documents(self, documents: Sequence[KnowledgeDocument]) -> int:
        """Embed and store documents, all or none, and return how many; the same `doc_id` again replaces one."""
        check_batch(documents)
        vectors = embed_checked(self.embedder, [document.document_text for document in documents])
        rows = [
            {
                "doc_id": document.doc_id,
                "collection": document.collection.value,
                "document_text": document.document_text,
                "metadata": dict(document.metadata),
                "known_at": document.known_at,
                "embedder": self.embedder.name,
                "embedding": vector,
            }
            for document, vector in zip(documents, vectors, strict=True)
        ]
        return self.gateway.upsert("knowledge_documents", rows, on_conflict=("doc_id",))

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

        def fetch(count: int) -> list[KnowledgeMatch]:
            rows = self.gateway.rpc(
                "match_knowledge_documents",
                query_embedding=vector,
                match_count=count,
                p_embedder=self.embedder.name,
                p_collections=[item.value for item in query.collections] or None,
                filter=dict(query.metadata),
                p_as_of=query.as_of,
            )
            return [match(_document({**row, "embedder": self.embedder.name}), row["distance"]) for row in rows]

        return nearest(fetch, k)

    def get_document(self, doc_id: str) -> StoredDocument:
        """Return one document, of whichever embedder."""
        rows = self.gateway.select("knowledge_documents", columns=_COLUMNS, where={"doc_id": doc_id})
        if not rows:
            raise MissingDataError(f"there is no document {doc_id!r} in the knowledge base.")
        return _document(rows[0])

    def record_outcome(self, doc_id: str, outcome: DocumentOutcome) -> StoredDocument:
        """Write what became of a document, once."""
        values = {"outcome": dict(outcome.values), "outcome_known_at": outcome.known_at}
        rows = self.gateway.update("knowledge_documents", values, where={"doc_id": doc_id, "outcome": ("is", None)})
        return _document(rows[0]) if rows else check_outcome(self.get_document(doc_id), outcome)

    def count_documents(self) -> dict[str, int]:
        """Return how many documents there are of each embedder."""
        return {row["embedder"]: int(row["n"]) for row in self.gateway.rpc("count_knowledge_documents")}

    def reembed(self) -> int:
        """Give documents of other embedders vectors of this one, and return how many."""
        done = 0
        where = {"embedder": ("neq", self.embedder.name)}
        while rows := self.gateway.select(
            "knowledge_documents", columns=("doc_id", "document_text", "updated_at"), where=where, limit=REEMBED_BATCH
        ):
            vectors = embed_checked(self.embedder, [row["document_text"] for row in rows])
            for row, vector in zip(rows, vectors, strict=True):
                # A document that somebody saved meanwhile has another text, and comes again or is done.
                unchanged = {"doc_id": row["doc_id"], "updated_at": row["updated_at"]}
                values = {"embedder": self.embedder.name, "embedding": vector}
                done += len(self.gateway.update("knowledge_documents", values, where=unchanged))
        return done


_COLUMNS = (
    "doc_id",
    "collection",
    "document_text",
    "metadata",
    "known_at",
    "embedder",
    "outcome",
    "outcome_known_at",
)


def _document(row: Row) -> StoredDocument:
    outcome = None
    if row["outcome"] is not None:
        outcome = DocumentOutcome(values=row["outcome"], known_at=row["outcome_known_at"])
    return StoredDocument(outcome=outcome, **{name: row[name] for name in _COLUMNS[:-2]})


def check_batch(documents: Sequence[KnowledgeDocument]) -> None:
    """Refuse a batch that holds one identity twice.

    Raises
    ------
    DataError
        If it does.
    """
    for doc_id, n in Counter(document.doc_id for document in documents).items():
        if n > 1:
            raise DataError(f"`documents` must have each `doc_id` once, had {doc_id!r} {n} times.")


def check_outcome(stored: StoredDocument, outcome: DocumentOutcome) -> StoredDocument:
    """Return a document that has an outcome already, if it is this one.

    Raises
    ------
    StoreConflictError
        If it is another.
    """
    if stored.outcome is not None and stored.outcome != outcome:
        raise StoreConflictError(
            f"document {stored.doc_id!r} has had another outcome since {stored.outcome.known_at}: an outcome is written once."
        )
    return stored


def match(document: StoredDocument, distance: float) -> KnowledgeMatch:
    """Return a document that was found at a cosine distance."""
    return KnowledgeMatch(document=document, similarity=round(1.0 - distance, 6))


def nearest(fetch: Callable[[int], list[KnowledgeMatch]], k: int) -> list[KnowledgeMatch]:
    """Return the k nearest, equally near ones by `doc_id`, of a source that orders those as it likes.

    Of more than a thousand that are equally near, which ones come is up to the source.
    """
    count = k + 1
    while True:
        found = sorted(fetch(count), key=lambda item: (-item.similarity, item.document.doc_id))
        if len(found) < count or found[-1].similarity < found[k - 1].similarity or count == _MOST_MATCHES:
            return found[:k]
        count = min(4 * count, _MOST_MATCHES)
