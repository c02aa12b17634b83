import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from core.errors import ChatModelError, DataError
from core.text import OpenAIEmbedder, TextEmbedder
from core.text.openai_embedder import _pieces
from tests.core.text.scripted_embeddings import Script, answer, serve, vector_of


@pytest.fixture
def script() -> Iterator[Script]:
    with serve() as running:
        yield running


def embedder(script: Script, **more: Any) -> OpenAIEmbedder:
    return OpenAIEmbedder(**{"api_key": SecretStr("sk-hunter2"), "base_url": script.base_url, "max_retries": 1} | more)


def unit(vector: Any) -> Any:
    return np.asarray(vector) / np.linalg.norm(vector)


def test_it_is_a_text_embedder_and_names_its_model(script: Script) -> None:
    assert isinstance(embedder(script), TextEmbedder)
    assert (embedder(script).name, embedder(script).dims) == ("openai-text-embedding-3-small", 1536)


def test_texts_come_back_in_their_order_at_unit_length(script: Script) -> None:
    spent: list[int] = []
    vectors = embedder(script, on_usage=spent.append).embed(["aab", "b" * 10])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [unit(vector_of("aab")), unit(vector_of("b" * 10))], atol=1e-7)
    assert script.requests == [{"model": "text-embedding-3-small", "input": ["aab", "b" * 10], "encoding_format": "float"}]
    assert script.keys == ["Bearer sk-hunter2"]
    assert spent == [13]


def test_nothing_is_asked_for_no_texts(script: Script) -> None:
    assert embedder(script).embed([]).shape == (0, 1536)
    assert script.requests == []


def test_a_server_that_asks_for_no_key_is_sent_none_of_ours(script: Script) -> None:
    embedder(script, api_key=None).embed(["a"])
    assert script.keys == ["Bearer not-needed"]


def test_a_long_text_goes_in_pieces_and_is_their_mean_by_bytes(script: Script) -> None:
    text = "a" * 5000 + " " + "b" * 6000
    (vector,) = embedder(script).embed([text])
    first, second = script.requests[0]["input"]
    assert (first, second) == ("a" * 5000, " " + "b" * 6000)
    expected = 5000 * unit(vector_of(first)) + 6001 * unit(vector_of(second))
    np.testing.assert_allclose(vector, unit(expected), atol=1e-6)


@given(st.text(alphabet="a ü中📈", min_size=1, max_size=300), st.integers(1, 120))
def test_pieces_fit_and_lose_nothing_but_blanks_between(text: str, times: int) -> None:
    pieces = list(_pieces(text * times))
    assert all(0 < len(piece.encode()) <= 8000 and piece.strip() for piece in pieces)
    assert "".join(pieces).replace(" ", "") == (text * times).replace(" ", "")


def test_many_texts_go_in_requests_that_the_api_takes(script: Script) -> None:
    vectors = embedder(script).embed(["x" * 7000] * 40 + ["y"] * 2100)
    assert vectors.shape == (2140, 1536)
    sizes = [[len(text) for text in request["input"]] for request in script.requests]
    assert sum(map(len, sizes)) == 2140
    assert len(sizes) == 3
    assert all(len(size) <= 2048 and sum(size) <= 250_000 for size in sizes)


def test_a_busy_server_is_asked_again(script: Script) -> None:
    script.steps = [(503, "{}")]
    assert embedder(script).embed(["a"]).shape == (1, 1536)
    assert len(script.requests) == 2


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, json.dumps({"error": {"message": "wrong key sk-hunter2"}}), r"failed: .*wrong key \[OPENAI_API_KEY\]"),
        (400, "{}", "failed: "),
        (200, "not json", "answered what cannot be read: : Invalid JSON"),
        (200, "{}", "answered what cannot be read: data: Field required"),
        (200, answer(["a"], usage=None), "answered what cannot be read: usage"),
        (
            200,
            answer(["a"], data=[{"index": 0, "embedding": [1.0, 2.0]}]),
            "answered a vector of another width: 2, expected 1536",
        ),
        (200, answer(["a"]).replace("1.0, 1.0", "NaN, 1.0"), r"answered what cannot be read: data\.0\.embedding\.0"),
        (200, answer(["a"], data=[{"index": 0, "embedding": [0.0] * 1536}]), "answered a vector that points nowhere: text 0"),
        (200, answer(["a", "b"]), "answered what was not asked: 2 vectors to 1 texts"),
        (200, answer(["a"], data=[]), "answered what was not asked: 0 vectors to 1 texts"),
        (200, answer(["a"], data=[{"index": 3, "embedding": [1.0] * 1536}]), "answered what was not asked"),
    ],
)
def test_what_cannot_be_used_is_an_error_without_the_key(script: Script, status: int, body: str, said: str) -> None:
    script.steps = [(status, body)]
    with pytest.raises(ChatModelError, match=f"the embedding model text-embedding-3-small {said}") as failure:
        embedder(script).embed(["a"])
    assert "hunter2" not in str(failure.value)
    assert "AQF_TEXT_EMBEDDER=hashed" in str(failure.value)


def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ChatModelError, match="failed: Connection error"):
        OpenAIEmbedder(base_url="http://127.0.0.1:1/v1", max_retries=0).embed(["a"])


def test_what_is_no_text_is_refused_before_anything_is_asked(script: Script) -> None:
    with pytest.raises(DataError, match="`text` must be text that says something"):
        embedder(script).embed(["good", " "])
    assert script.requests == []
