import json
import subprocess
import sys
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError
from core.text import DOCUMENT_WIDTH, HashedNgramEmbedder, TextEmbedder

EMBEDDER = HashedNgramEmbedder()
TEXTS = st.text(min_size=1, max_size=60).filter(lambda text: text.strip() and "\x00" not in text)


def cosine(first: str, second: str) -> float:
    one, other = EMBEDDER.embed([first, second]).astype(float)
    return float(one @ other)


def slot(gram: str) -> tuple[int, float]:
    number = int.from_bytes(blake2b(gram.encode(), digest_size=8).digest(), "little")
    return (number // 2) % 1536, 1.0 if number % 2 else -1.0


def test_it_is_a_text_embedder() -> None:
    assert isinstance(EMBEDDER, TextEmbedder)
    assert (EMBEDDER.name, EMBEDDER.dims) == ("hashed-ngrams-1", DOCUMENT_WIDTH)


def test_a_text_falls_apart_into_its_words_pairs_and_pieces_and_nothing_else() -> None:
    # "it it": twice the word, once the pair; the pieces of " it " twice each.
    words = {"w:it": 1 + np.log(2), "w:it it": 1.0}
    pieces = dict.fromkeys(["c: it", "c:it ", "c: it "], 1 + np.log(2))
    expected = np.zeros(1536)
    for grams, share in ((words, 0.6), (pieces, 0.4)):
        length = np.sqrt(sum(weight**2 for weight in grams.values()))
        for gram, weight in grams.items():
            place, sign = slot(gram)
            expected[place] += np.sqrt(share) * sign * weight / length
    np.testing.assert_allclose(EMBEDDER.embed(["it it"])[0], expected / np.linalg.norm(expected), atol=1e-7)


def test_the_vectors_of_this_name_are_those_they_always_were() -> None:
    vector = EMBEDDER.embed(["Überraschung: supplier ACME halts production"])[0]
    assert {place: round(float(vector[place]), 4) for place in (782, 60, 1257, 1411, 801)} == {
        782: -0.3158,
        60: 0.2541,
        1257: -0.2541,
        1411: 0.2541,
        801: 0.2541,
    }


def test_another_process_makes_the_same_vectors() -> None:
    code = (
        "import sys, json; from core.text import HashedNgramEmbedder\n"
        "print(json.dumps(HashedNgramEmbedder().embed(['profit warning of a supplier']).tolist()))\n"
        "assert 'sklearn' not in sys.modules and 'openai' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"})
    assert json.loads(done.stdout) == EMBEDDER.embed(["profit warning of a supplier"]).tolist()


def test_texts_that_share_words_are_nearer_than_those_that_share_stems_and_those_nearer_than_strangers() -> None:
    text = "supplier halts production after a fire"
    same_words = cosine(text, "after a fire the supplier halts its production")
    same_stems = cosine(text, "suppliers halted productions following fires")
    stranger = cosine(text, "central bank lowers interest rates")
    assert same_words > same_stems + 0.2
    assert same_stems > stranger + 0.1
    assert abs(stranger) < 0.1


def test_case_and_forms_of_a_character_make_no_difference() -> None:
    assert EMBEDDER.embed(["STRASSE \uff21\uff22 e\u0301"]).tolist() == EMBEDDER.embed(["straße ab é"]).tolist()


@given(TEXTS)
def test_every_text_points_somewhere_at_unit_length(text: str) -> None:
    (vector,) = EMBEDDER.embed([text])
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)


@given(st.lists(TEXTS, max_size=4))
def test_a_text_has_the_vector_it_has_alone(texts: list[str]) -> None:
    together = EMBEDDER.embed(texts)
    assert together.shape == (len(texts), 1536)
    assert together.tolist() == [EMBEDDER.embed([text])[0].tolist() for text in texts]


@pytest.mark.parametrize("text", ["!!!", "📈", "\u200b", "…", "a", "中文新闻"])
def test_text_without_a_word_has_a_vector_too(text: str) -> None:
    assert np.linalg.norm(EMBEDDER.embed([text])) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be text that says something"),
        (" \n\t", "must be text that says something"),
        ("a\x00b", "must be without NUL characters, which Postgres cannot hold; one is at 1"),
        ("a\ud800", "must be text of whole characters: surrogates not allowed at position 1"),
        ("x" * 1_048_577, "must be at most 1048576 bytes, was 1048577: divide it"),
        (7, "must be text that says something, was 7"),
    ],
)
def test_what_is_no_text_is_refused(text: str, said: str) -> None:
    with pytest.raises(DataError, match=f"`text` {said}"):
        EMBEDDER.embed(["good", text])
