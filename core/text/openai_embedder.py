"""OpenAIEmbedder: vectors of a model behind OpenAI's embeddings API, or behind a server that speaks it.

Hides requests, their limits, retries and what long texts need. Promises that a model that fails, or answers something else than
one finite vector of the right width a text, is an error, and that tokens are reported before a vector is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, FiniteFloat, SecretStr, ValidationError

from core.errors import ChatModelError
from core.text.embedder import DOCUMENT_WIDTH, check_text

if TYPE_CHECKING:
    from openai import OpenAI

MODEL = "text-embedding-3-small"

_NO_KEY = "not-needed"
"""What is sent to a server of one's own that asks for no key."""
_PIECE_BYTES = 8_000
"""A token has at least one byte and an input at most 8,192 tokens: a piece of this size always fits."""
_REQUEST_BYTES = 250_000
"""For the same reason below the 300,000 tokens of one request."""
_REQUEST_PIECES = 2_048
_MAX_ERROR = 500


class _Item(BaseModel):
    index: int
    embedding: list[FiniteFloat]


class _Usage(BaseModel):
    prompt_tokens: int


class _Answer(BaseModel):
    data: list[_Item]
    usage: _Usage


class OpenAIEmbedder:
    """Embed text by OpenAI's text-embedding-3-small, 1536 wide.

    Parameters
    ----------
    api_key : SecretStr, optional
        None for a server of one's own that asks for none.
    base_url : str, optional
        Address of such a server; None is OpenAI's.
    timeout_seconds : float, default=120
        Limit of one attempt.
    max_retries : int, default=2
        How often a busy or unreachable server is asked again.
    on_usage : callable, optional
        Takes the tokens of each answered request.

    Notes
    -----
    A text of more than 8,000 bytes goes in pieces cut at blanks; its vector is the mean of theirs, weighted by bytes.
    """

    name = f"openai-{MODEL}"
    dims = DOCUMENT_WIDTH

    def __init__(
        self,
        *,
        api_key: SecretStr | None = None,
        base_url: str | None = None,
        timeout_seconds: float = 120.0,
        max_retries: int = 2,
        on_usage: Callable[[int], None] | None = None,
    ) -> None:
        self._api_key, self._base_url = api_key, base_url
        self._timeout_seconds, self._max_retries = timeout_seconds, max_retries
        self._on_usage = on_usage

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return one vector of unit length a text, in order.

        Raises
        ------
        DataError
            If a text is empty or too long.
        ChatModelError
            If the model cannot be reached, refuses, or answers what cannot be used.
        """
        from openai import OpenAI

        pieces = [(row, piece) for row, text in enumerate(texts) for piece in _pieces(check_text("text", text))]
        vectors = np.zeros((len(texts), self.dims))
        if not pieces:
            return vectors.astype(np.float32)
        with OpenAI(
            api_key=_NO_KEY if self._api_key is None else self._api_key.get_secret_value(),
            base_url=self._base_url,
            timeout=self._timeout_seconds,
            max_retries=self._max_retries,
        ) as client:
            for batch in _batches(pieces):
                found = self._request(client, [piece for _, piece in batch])
                for (row, piece), vector in zip(batch, found, strict=True):
                    vectors[row] += len(piece.encode()) * vector
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not lengths.all():
            raise self._failure("answered a vector that points nowhere", f"text {int(np.argmin(lengths))}")
        vectors /= lengths
        return vectors.astype(np.float32)

    def _request(self, client: OpenAI, pieces: list[str]) -> npt.NDArray[np.float64]:
        """Return one vector of unit length a piece."""
        from openai import OpenAIError

        try:
            raw = client.embeddings.with_raw_response.create(model=MODEL, input=pieces, encoding_format="float")
            answer = _Answer.model_validate_json(raw.http_response.text)
        except OpenAIError as error:
            raise self._failure("failed", str(error)) from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise self._failure("answered what cannot be read", f"{where}: {first['msg']}") from None
        if self._on_usage is not None:
            self._on_usage(answer.usage.prompt_tokens)
        items = sorted(answer.data, key=lambda item: item.index)
        if [item.index for item in items] != list(range(len(pieces))):
            raise self._failure("answered what was not asked", f"{len(items)} vectors to {len(pieces)} texts")
        for item in items:
            if len(item.embedding) != self.dims:
                raise self._failure("answered a vector of another width", f"{len(item.embedding)}, expected {self.dims}")
        found = np.array([item.embedding for item in items])
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.finfo(float).tiny)
        return found

    def _failure(self, what: str, detail: str) -> ChatModelError:
        if self._api_key is not None:  # a server may quote the key it refuses
            detail = detail.replace(self._api_key.get_secret_value(), "[OPENAI_API_KEY]")
        return ChatModelError(
            f"the embedding model {MODEL} {what}: {detail.strip().rstrip('.')[:_MAX_ERROR]}. Nothing was stored: do it again, "
            "or set AQF_TEXT_EMBEDDER=hashed to do without a model."
        )


def _pieces(text: str) -> Iterator[str]:
    data, start = text.encode(), 0
    while len(data) - start > _PIECE_BYTES:
        end = data.rfind(b" ", start + 1, start + _PIECE_BYTES)
        if end < 0:
            end = start + _PIECE_BYTES
            while data[end] & 0xC0 == 0x80:  # inside a character
                end -= 1
        if data[start:end].strip():
            yield data[start:end].decode()
        start = end
    if data[start:].strip():
        yield data[start:].decode()


def _batches(pieces: list[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    batch: list[tuple[int, str]] = []
    size = 0
    for row, piece in pieces:
        n_bytes = len(piece.encode())
        if batch and (len(batch) == _REQUEST_PIECES or size + n_bytes > _REQUEST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((row, piece))
        size += n_bytes
    yield batch
