"""What the knowledge base gives and takes.

Promises that a record that exists can be stored, whichever base is in force: what Postgres would refuse (a NUL, text or JSON
too large, a naive time) is refused when the record is built, and the error names the field.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from core.errors import DataError
from core.store.trading_records import KnowledgeCollection, check_json
from core.text.embedder import check_text

MAX_HITS = 200
"""Most documents a search returns."""


@dataclass(frozen=True, kw_only=True)
class KnowledgeDocument:
    """A document to remember.

    Parameters
    ----------
    doc_id : str
        Our own identity of it; saving the same again replaces the document.
    collection : KnowledgeCollection
        Shelf it stands on.
    document_text : str
        What is embedded and found by its meaning, at most 1 MiB.
    known_at : datetime
        Since when it could be known, in UTC; a search as of an earlier time does not see it.
    metadata : mapping, optional
        What JSON can carry, at most 1 MiB; searches filter on it.

    Raises
    ------
    DataError
        If a field is not what it must be.
    """

    doc_id: str
    collection: KnowledgeCollection
    document_text: str
    known_at: datetime
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_text("doc_id", self.doc_id)
        object.__setattr__(self, "collection", check_collection(self.collection))
        check_text(f"document_text` of `{self.doc_id}", self.document_text)
        check_time(f"known_at` of `{self.doc_id}", self.known_at)
        object.__setattr__(self, "metadata", MappingProxyType(plain_json(f"metadata` of `{self.doc_id}", self.metadata)))


@dataclass(frozen=True, kw_only=True)
class DocumentOutcome:
    """What became of what a document tells: the real result of a decision.

    Parameters
    ----------
    values : mapping
        What JSON can carry.
    known_at : datetime
        Since when it could be known, in UTC; a search as of an earlier time sees the document without it.
    """

    values: Mapping[str, Any]
    known_at: datetime

    def __post_init__(self) -> None:
        check_time("known_at` of `outcome", self.known_at)
        object.__setattr__(self, "values", MappingProxyType(plain_json("outcome", self.values)))


@dataclass(frozen=True, kw_only=True)
class StoredDocument(KnowledgeDocument):
    """A document as it is kept, with the name of what made its vector, and its outcome once there is one."""

    embedder: str
    outcome: DocumentOutcome | None = None


@dataclass(frozen=True, kw_only=True)
class KnowledgeMatch:
    """A document found by meaning; `similarity` is the cosine to six decimals, 1 for the same direction."""

    document: StoredDocument
    similarity: float


@dataclass(frozen=True, kw_only=True)
class KnowledgeQuery:
    """What a search asks for; the fields are those of `KnowledgeBase.search`.

    Raises
    ------
    DataError
        If a field is not what it must be.
    """

    text: str
    k: int
    collections: Sequence[KnowledgeCollection]
    as_of: datetime | None
    metadata: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_text("text", self.text)
        if not isinstance(self.k, int) or not 1 <= self.k <= MAX_HITS:
            raise DataError(f"`k` must be in 1..{MAX_HITS}, was {self.k!r}.")
        object.__setattr__(self, "collections", tuple(check_collection(item) for item in self.collections))
        if self.as_of is not None:
            check_time("as_of", self.as_of)
        object.__setattr__(self, "metadata", MappingProxyType(plain_json("metadata", self.metadata)))


def check_collection(value: str) -> KnowledgeCollection:
    """Return the collection of a name.

    Raises
    ------
    DataError
        If there is none of that name.
    """
    try:
        return KnowledgeCollection(value)
    except ValueError:
        raise DataError(f"`collection` must be one of {', '.join(KnowledgeCollection)}, was {value!r}.") from None


def check_time(name: str, at: datetime) -> None:
    """Refuse a time that is not in UTC.

    Raises
    ------
    DataError
        If it is naive, or of another zone.
    """
    if not isinstance(at, datetime) or at.utcoffset() != timedelta(0):
        raise DataError(f"`{name}` must be a time in UTC (convert it with `.astimezone(UTC)`), was {at!r}.")


def plain_json(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a mapping as JSON gives it back: tuples become lists, keys become text.

    Raises
    ------
    DataError
        If JSON cannot carry it, it holds a NUL, or it is too large.
    """
    plain: dict[str, Any] = json.loads(json.dumps(check_json(name, value)))
    for text in _texts(plain):
        if "\x00" in text:
            raise DataError(f"`{name}` must be without NUL characters, which Postgres cannot hold: {text!r:.80}.")
    return plain


def contains(value: Any, wanted: Any) -> bool:
    """Say whether JSON contains other JSON, as Postgres's ``@>`` does between objects.

    Objects contain the keys of a part with values that contain its values; arrays contain its items in any order and number.
    """
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(key in value and contains(value[key], item) for key, item in wanted.items())
    if isinstance(wanted, list):
        return isinstance(value, list) and all(any(contains(own, item) for own in value) for item in wanted)
    # To Python true equals 1; to Postgres it does not.
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
