"""Puts the headlines of `signals` into the knowledge base, to be found by meaning under the same embedder as all else.

Promises that a headline is one document whatever happens in between: doing it again changes nothing, and a corrected headline
replaces its document.
"""

from __future__ import annotations

from core.store.gateway import Gateway, Row, Where
from core.store.knowledge import KnowledgeBase
from core.store.knowledge_records import KnowledgeDocument
from core.store.trading_records import KnowledgeCollection

BATCH = 200
_COLUMNS = (
    "signal_id",
    "headline",
    "summary",
    "published_at",
    "created_at",
    "category",
    "severity",
    "affected_tickers",
    "source",
)


def save_headlines(gateway: Gateway, knowledge: KnowledgeBase) -> int:
    """Save the headlines that the knowledge base lacks, or has otherwise, and return how many.

    Parameters
    ----------
    gateway : Gateway
        Way to the database of `signals` and `knowledge_documents`, as `service_role`.
    knowledge : KnowledgeBase
        Over the same database.

    Raises
    ------
    ChatModelError
        If the model behind the embedder failed; the batches before are kept.
    StoreError
        If the store refused or cannot be reached.
    """
    saved = 0
    where: Where = {}
    while rows := gateway.select("signals", columns=_COLUMNS, where=where, order=("signal_id",), limit=BATCH):
        documents = [headline_document(row) for row in rows]
        known = {
            row["doc_id"]: row["document_text"]
            for row in gateway.select(
                "knowledge_documents",
                columns=("doc_id", "document_text"),
                where={"doc_id": ("in", [document.doc_id for document in documents])},
            )
        }
        saved += knowledge.save_documents([one for one in documents if known.get(one.doc_id) != one.document_text])
        where = {"signal_id": ("gt", rows[-1]["signal_id"])}
    return saved


def headline_document(row: Row) -> KnowledgeDocument:
    """Return the document of a row of `signals`: known when it was published, or when we had it if that is later."""
    return KnowledgeDocument(
        doc_id=f"headline:{row['signal_id']}",
        collection=KnowledgeCollection.KNOWLEDGE,
        document_text="\n\n".join(part for part in (row["headline"], row["summary"].strip()) if part),
        known_at=max(row["published_at"], row["created_at"]),
        metadata={
            "kind": "headline",
            "signal_id": str(row["signal_id"]),
            "source": row["source"],
            "category": row["category"],
            "severity": row["severity"],
            "tickers": list(row["affected_tickers"]),
        },
    )
