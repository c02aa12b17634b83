import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.trading.names import fold, name_words, skeleton, sound, split_words


@pytest.mark.parametrize(
    ("written", "folded"),
    [
        ("Müller", "muller"),
        ("STRAẞE", "strasse"),
        ("Søren Łukasz", "soren lukasz"),
        ("Юрий", "iurii"),
        ("Χρήστος", "christos"),
        ("محمد", "mhmd"),
        ("D’Angelo", "dangelo"),
        ("ＦＵＬＬ　width", "full width"),
    ],
)
def test_letters_are_folded_to_plain_latin_ones(written: str, folded: str) -> None:
    assert fold(written) == folded


def test_a_script_that_is_not_known_stays_as_it_is() -> None:
    assert split_words("华为 技术") == ["华为", "技术"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Romashka LLC", ["romashka"]),
        ("ООО «Ромашка»", ["romashka"]),
        ("S.A. Electra", ["electra"]),
        ("Electra Limited Liability Company", ["electra"]),
        ("Public Joint Stock Company Electra", ["electra"]),
        ("Electra Pty Limited", ["electra"]),
        ("Electra Co., Ltd.", ["electra"]),
        ("Co. Electra GmbH & Co. KG", ["electra"]),
        ("Bank of Zedland", ["bank", "zedland"]),
        ("Kim Se Jong", ["kim", "se", "jong"]),
    ],
)
def test_legal_forms_and_little_words_are_no_part_of_a_name(name: str, words: list[str]) -> None:
    assert name_words(name) == words


def test_a_name_of_a_legal_form_alone_keeps_it() -> None:
    assert name_words("Limited") == ["limited"]


@pytest.mark.parametrize("name", ["Abd al-Rahman", "Abdul Rahman", "Abdulrahman", "Abdurrahman", "Abd-el-Rahman"])
def test_the_spellings_of_a_servants_name_are_one(name: str) -> None:
    assert name_words(name) == ["abdrahman"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("yuriy", "jurij"),
        ("shcherbakov", "schtscherbakow"),
        ("tchekhov", "chekhov"),
        ("petroff", "petrov"),
        ("qasim", "kasim"),
        ("youssef", "yusef"),
        ("mueller", "muller"),
        ("hamzah", "hamza"),
    ],
)
def test_usual_spellings_of_a_name_sound_alike(one: str, other: str) -> None:
    assert sound(one) == sound(other)


@pytest.mark.parametrize(("one", "other"), [("coal", "charcoal"), ("ivan", "igor"), ("petrov", "sidorov")])
def test_other_names_sound_otherwise(one: str, other: str) -> None:
    assert sound(one) != sound(other)


def test_consonants_are_what_is_left_of_a_name_without_its_vowels() -> None:
    assert skeleton(sound("mohammed")) == skeleton(sound("muhamad")) == skeleton(sound(fold("محمد"))) == "mhmd"


@given(st.text(max_size=60))
def test_folding_twice_is_folding_once_for_words(text: str) -> None:
    words = split_words(text)
    assert split_words(" ".join(words)) == words


@given(st.text(max_size=60))
def test_no_text_is_too_strange_to_be_read(text: str) -> None:
    for word in name_words(text):
        assert word
        assert sound(word)
