import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.trading.name_index import NameIndex
from tests.agents.trading.signals import company, person

INDEX = NameIndex(
    [
        person("Yuriy Sergeyevich Shcherbakov", entry="P1"),
        person("Mohammed Abd al-Rahman", entry="P2"),
        person("José Núñez Ibáñez", entry="P3"),
        company("Romashka Shipping Company LLC", entry="C1"),
        company("Coal", entry="C2"),
        company("Zarya Maritime Trading Lines", entry="C3"),
        company("Bank of Zedland", entry="C4"),
        company("National Bank", entry="C5"),
        company("Orion", entry="C6"),
        company("Veltra", entry="C7", weak=True),
    ]
)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("Yuriy Sergeyevich Shcherbakov", "P1"),
        ("SHCHERBAKOV, Yuriy Sergeyevich", "P1"),
        ("Юрий Сергеевич Щербаков", "P1"),
        ("Jurij Sergejewitsch Schtscherbakow", "P1"),
        ("Yuriy Sergeyevich Shcherbakob", "P1"),
        ("محمد عبد الرحمن", "P2"),
        ("Muhamad Abdurrahman", "P2"),
        ("Jose Nunez Ibanez", "P3"),
        ("Romashka Shipping Ltd", "C1"),
        ("OOO Ромашка Shipping", "C1"),
        ("Shipping Romashka", "C1"),
        ("coal", "C2"),
        ("Zedland Bank", "C4"),
        ("Bank of Zed-Land", "C4"),
    ],
)
def test_a_name_is_found_however_it_is_written(name: str, entry: str) -> None:
    match = INDEX.match_name(name, at_least=0.95)
    assert match is not None
    assert match.listed.entry == entry


@pytest.mark.parametrize("name", ["Yuriy Shcherbakov", "Shcherbakov Yuri", "Юрий Щербаков", "Yuriy S. Shcherbakov"])
def test_a_person_without_the_middle_name_is_that_person_but_not_quite(name: str) -> None:
    match = INDEX.match_name(name)
    assert match is not None
    assert 0.95 <= match.score < 1.0


def test_with_an_initial_that_no_missing_name_has_it_may_be_another_person() -> None:
    match = INDEX.match_name("Yuriy B. Shcherbakov")
    assert match is not None
    assert 0.85 <= match.score < 0.95


@pytest.mark.parametrize(
    "name",
    [
        "Charcoal",
        "Coalition Partners",
        "Coal India",
        "Cool",
        "Orian",
        "Arion Mining",
        "Shcherbakov",
        "Pavel Sergeyevich Shcherbakov",
        "Romashka Bakery",
        "Orion Office Supplies",
        "Bank of Utopia",
        "Bank of America",
        "National Grid",
        "Zarya Foods",
        "Mohammed Ali",
        "",
        "---",
        "the of and",
    ],
)
def test_a_look_alike_passes(name: str) -> None:
    assert INDEX.match_name(name) is None


def test_the_distinctive_word_alone_is_nearly_the_company() -> None:
    match = INDEX.match_name("Romashka")
    assert match is not None
    assert 0.85 <= match.score < 0.95


def test_a_name_that_its_list_calls_weak_is_never_more_than_near() -> None:
    match = INDEX.match_name("Veltra")
    assert match is not None
    assert match.score == 0.9


@pytest.mark.parametrize(
    ("listed", "name", "found"),
    [
        ("Vista", "Visa", False),
        ("Dov", "Dow Inc", False),
        ("Dov", "DOV Ltd", True),
        ("Bajer", "Bayer AG", False),
        ("Inayatullah", "Intel", False),
        ("Valor Holding", "Valero Energy", False),
        ("Romanyuk", "Romaniuk", True),
        ("Romashkin", "Romashkim", True),
        ("Romashka Trading", "Romushka Trading", True),
        ("Roma Trading", "Rema Trading", False),
        ("Romashka Trading", "Romashka", True),
        ("Roma Trading", "Roma", False),
    ],
)
def test_one_short_word_is_only_found_as_it_is_spelled(listed: str, name: str, found: bool) -> None:
    assert (NameIndex([company(listed)]).match_name(name) is not None) is found


def test_among_equals_the_first_listed_is_told() -> None:
    index = NameIndex([company("Zarya", entry="first"), company("Zarya Ltd", entry="second")])
    found = index.list_matches("Zarya")
    assert [match.listed.entry for match in found] == ["first", "second"]


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("The tycoon Yuri Shcherbakov buys a stake", "P1"),
        ("President Yuriy Sergeyevich Shcherbakov said so", "P1"),
        ("Romashka Shipping's vessel was seized", "C1"),
        ("Юрий Щербаков купил долю", "P1"),
        ("the firm Orion said on Monday", "C6"),
        ("the firm Orion PLC said on Monday", "C6"),
        ("ROMASHKA SHIPPING HALTS EXPORTS", "C1"),
        ("yuriy sergeyevich shcherbakov was named in a filing", "P1"),
        ("Payments to Abd al-Rahman, Mohammed, were stopped", "P2"),
    ],
)
def test_a_text_that_mentions_a_name_is_found(text: str, entry: str) -> None:
    match = INDEX.match_text(text)
    assert match is not None
    assert match.listed.entry == entry


@pytest.mark.parametrize(
    "text",
    [
        "A coalition buys charcoal from farmers",
        "Orion Office Supplies opens a shop, says Reuters",
        "The national bank said rates stay where they are",
        "Zarya and the maritime authority disagree",
        "Pavel Sergeyevich Shcherbakov opens a bakery",
        "Shcherbakov and Yuriy were mentioned far from one another in this sentence",
        "It burned coal for heat",
        "",
        "!!! ... ???",
    ],
)
def test_a_text_that_only_looks_like_it_passes(text: str) -> None:
    assert INDEX.match_text(text) is None


def test_one_word_where_every_word_has_a_capital_is_only_near() -> None:
    match = INDEX.match_text("Orion Halts All Exports After Fire")
    assert match is not None
    assert match.score == 0.9


def test_an_empty_index_finds_nothing() -> None:
    empty = NameIndex([])
    assert len(empty) == 0
    assert empty.match_name("Romashka Shipping") is None
    assert empty.match_text("Romashka Shipping halts exports") is None


def test_names_that_say_nothing_are_not_listed() -> None:
    assert len(NameIndex([company("..."), company("Zarya")])) == 1


words = st.lists(st.text(alphabet="abcdefghiklmnoprstuvz", min_size=5, max_size=9), min_size=2, max_size=4, unique=True)


@given(words, st.randoms(use_true_random=False))
def test_any_order_of_a_listed_name_is_that_name(parts: list[str], random: object) -> None:
    index = NameIndex([person(" ".join(parts)), company("Something Else")])
    shuffled = list(parts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    match = index.match_name(" ".join(shuffled))
    assert match is not None
    assert match.score >= 0.95


@given(st.text(max_size=80))
def test_no_name_or_text_breaks_it_and_scores_are_fractions(text: str) -> None:
    for match in (INDEX.match_name(text, at_least=0.01), INDEX.match_text(text, at_least=0.01)):
        assert match is None or 0.0 < match.score <= 1.0
