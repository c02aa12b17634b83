"""TextEmbedder: text in, vectors of one width out, under a name that says which vectors may be compared.

The name stands in every stored row. Whatever changes a vector (the model, the tokens, a weight) needs another name, because
distances between vectors of two makes mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from core.errors import DataError, ShapeError

DOCUMENT_WIDTH = 1536
"""Width of every document embedding, here, in the store and in the migrations."""

MAX_TEXT_BYTES = 1_048_576
"""Most a document's text may have in UTF-8."""


@runtime_checkable
class TextEmbedder(Protocol):
    """Turn texts into vectors; texts that mean alike point alike.

    Attributes
    ----------
    name : str
        Which vectors may be compared: those of the same name.
    dims : int
        Width of a vector; the store takes 1536.
    """

    @property
    def name(self) -> str:
        """Which vectors may be compared."""
        ...

    @property
    def dims(self) -> int:
        """Width of a vector."""
        ...

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return one vector a text, in order.

        Returns
        -------
        ndarray of shape (n_texts, dims), float32
            Of any length but zero; compare by cosine.

        Raises
        ------
        DataError
            If a text is empty or too long.
        ChatModelError
            If a model behind it fails.
        """
        ...


def check_text(name: str, text: str) -> str:
    """Return a text as it came.

    Raises
    ------
    DataError
        If it is blank, holds what UTF-8 or Postgres cannot, or is longer than `MAX_TEXT_BYTES`.
    """
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"`{name}` must be text that says something, was {text!r:.80}.")
    if "\x00" in text:
        raise DataError(f"`{name}` must be without NUL characters, which Postgres cannot hold; one is at {text.index(chr(0))}.")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise DataError(f"`{name}` must be text of whole characters: {error.reason} at position {error.start}.") from None
    if size > MAX_TEXT_BYTES:
        raise DataError(f"`{name}` must be at most {MAX_TEXT_BYTES} bytes, was {size}: divide it into documents.")
    return text


def embed_checked(embedder: TextEmbedder, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return what an embedder makes of texts, once it is known that a store can hold it.

    Raises
    ------
    ShapeError
        If it is not 1536 wide, not one vector a text, not finite, or all zeros, which points nowhere.
    """
    vectors = np.asarray(embedder.embed(texts), dtype=np.float32)
    if vectors.shape != (len(texts), DOCUMENT_WIDTH):
        raise ShapeError(
            f"the embedder {embedder.name} must make vectors of shape ({len(texts)}, {DOCUMENT_WIDTH}), made {vectors.shape}."
        )
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(wrong):
        raise ShapeError(f"the embedder {embedder.name} must make finite vectors, that of text {wrong[0]} was not.")
    wrong = np.flatnonzero(~vectors.any(axis=1))
    if len(wrong):
        raise ShapeError(
            f"the embedder {embedder.name} must make vectors that point somewhere, that of text {wrong[0]} was zero."
        )
    return vectors
