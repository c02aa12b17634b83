"""One contract for every knowledge base: pgvector over Postgres and over HTTP, and Chroma in a folder."""

import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import (
    ConfigurationError,
    DataError,
    MissingDataError,
    ShapeError,
    StoreConflictError,
    StoreError,
    StoreUnavailableError,
)
from core.store.chroma_knowledge import ChromaKnowledgeBase, knowledge_path
from core.store.knowledge import KnowledgeBase, PgKnowledgeBase
from core.store.knowledge_records import DocumentOutcome, KnowledgeDocument, StoredDocument, contains
from core.store.postgres import PostgresGateway
from core.store.rest import SupabaseGateway
from core.store.trading_records import MAX_JSON_BYTES, KnowledgeCollection
from core.text import HashedNgramEmbedder, TextEmbedder
from tests.core.store.chroma import need_chroma
from tests.core.store.stand_in import KEY, StandIn

NOON = datetime(2024, 3, 4, 12, 0, 0, 123457, tzinfo=UTC)
KNOWLEDGE, DECISIONS, LITERATURE = KnowledgeCollection
ROOT = Path(__file__).resolve().parents[4]
Open = Callable[[TextEmbedder], KnowledgeBase]


class Angles:
    """An embedder whose texts are angles in degrees, so that the similarity of two is a cosine anybody can look up."""

    dims = 1536

    def __init__(self, name: str = "angles", vectors: Any = None) -> None:
        self.name, self.vectors = name, vectors

    def embed(self, texts: Sequence[str]) -> Any:
        if self.vectors is not None:
            return self.vectors
        angles = np.radians([float(text.split()[0]) for text in texts])
        found = np.zeros((len(texts), self.dims), dtype=np.float32)
        found[:, 0], found[:, 1] = 3 * np.cos(angles), 3 * np.sin(angles)
        return found


@pytest.fixture(params=["postgres", "http", "chroma"])
def open_base(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens bases with an embedder of one's own, all on the same documents."""
    if request.param == "chroma":
        need_chroma()
        yield lambda embedder: ChromaKnowledgeBase(knowledge_path(tmp_path), embedder)
        return
    database: str = request.getfixturevalue("database")
    gateway: PostgresGateway | SupabaseGateway
    if request.param == "postgres":
        gateway = PostgresGateway(database, role="service_role").open()
    else:
        running: StandIn = request.getfixturevalue("stand_in")
        gateway = SupabaseGateway(running.url(database), KEY).open()
    yield lambda embedder: PgKnowledgeBase(gateway, embedder)
    gateway.close()


@pytest.fixture
def base(open_base: Open) -> KnowledgeBase:
    return open_base(Angles())


def document(doc_id: str, text: str = "0", **changes: Any) -> KnowledgeDocument:
    values: dict[str, Any] = {"collection": KNOWLEDGE, "document_text": text, "known_at": NOON, "metadata": {"year": 2024}}
    return KnowledgeDocument(doc_id=doc_id, **(values | changes))


def hits(base: KnowledgeBase, text: str = "0", **more: Any) -> list[str]:
    return [found.document.doc_id for found in base.search(text, **more)]


def test_it_is_a_knowledge_base_that_names_its_embedder(base: KnowledgeBase) -> None:
    assert isinstance(base, KnowledgeBase)
    assert base.embedder.name == "angles"


def test_an_empty_base_finds_and_counts_nothing(base: KnowledgeBase) -> None:
    assert base.search("0") == []
    assert base.search("0", metadata={"a": 1}, collections=[DECISIONS], as_of=NOON) == []
    assert base.count_documents() == {}
    assert base.save_documents([]) == 0
    assert base.reembed() == 0
    with pytest.raises(MissingDataError, match="there is no document 'x'"):
        base.get_document("x")


def test_the_nearest_come_first_with_the_cosine_as_their_similarity(base: KnowledgeBase) -> None:
    angles = [170, 10, 90, 45, 0, 60]
    assert base.save_documents([document(f"at {angle}", f"{angle} degrees") for angle in angles]) == 6
    found = base.search("0", k=6)
    assert [(item.document.doc_id, item.similarity) for item in found] == [
        (f"at {angle}", pytest.approx(math.cos(math.radians(angle)), abs=2e-6)) for angle in sorted(angles)
    ]
    assert hits(base, "60", k=2) == ["at 60", "at 45"]


def test_a_document_comes_back_as_it_was_saved(base: KnowledgeBase) -> None:
    metadata = {"year": 1994, "ratio": 0.1, "none": None, "yes": True, "nested": {"ü": [1, "a", {"b": []}]}, "tuple": (1, 2)}
    saved = document("doi:10.1/x y", "7 ü\n📈 ' \" \\", collection=LITERATURE, metadata=metadata)
    base.save_documents([saved])
    stored = base.get_document("doi:10.1/x y")
    assert stored == StoredDocument(
        doc_id="doi:10.1/x y",
        collection=LITERATURE,
        document_text="7 ü\n📈 ' \" \\",
        known_at=NOON,
        metadata={**metadata, "tuple": [1, 2]},
        embedder="angles",
        outcome=None,
    )
    assert type(stored.metadata["yes"]) is bool
    assert base.search("7")[0].document == stored


def test_equally_near_ones_come_by_their_identity_however_many_there_are(base: KnowledgeBase) -> None:
    names = [f"{number:02}" for number in range(40)]
    base.save_documents([document(name, "30") for name in reversed(names)])
    assert hits(base, k=3) == names[:3]
    base.save_documents([document("99", "20")])
    assert hits(base, k=3) == ["99", "00", "01"]


def test_saving_the_same_identity_again_replaces_the_document(base: KnowledgeBase) -> None:
    base.save_documents([document("a", "0 old", metadata={"old": 1}), document("b", "50")])
    new = document("a", "90 new", collection=DECISIONS, metadata={"new": 2}, known_at=NOON + timedelta(hours=1))
    assert base.save_documents([new]) == 1
    assert base.count_documents() == {"angles": 2}
    assert base.get_document("a").metadata == {"new": 2}
    found = base.search("90", k=1)[0]
    assert (found.document.document_text, found.document.collection, found.similarity) == ("90 new", DECISIONS, 1.0)
    assert hits(base, "0") == ["b", "a"]


def test_shelves_metadata_and_number_narrow_a_search(base: KnowledgeBase) -> None:
    base.save_documents(
        [
            document("k", "1", metadata={"year": 2024, "tags": ["fda", "recall"], "of": {"symbol": "AAA", "n": 1}}),
            document("d", "2", collection=DECISIONS, metadata={"year": 2024, "tags": ["fda"], "of": {"symbol": "BBB"}}),
            document("l", "3", collection=LITERATURE, metadata={"year": 1994.0, "true": True}),
        ]
    )
    assert hits(base) == ["k", "d", "l"]
    assert hits(base, k=2) == ["k", "d"]
    assert hits(base, collections=[DECISIONS]) == ["d"]
    assert hits(base, collections=[LITERATURE, KNOWLEDGE]) == ["k", "l"]
    assert hits(base, metadata={"year": 2024}) == ["k", "d"]
    assert hits(base, metadata={"year": 1994}) == ["l"]
    assert hits(base, metadata={"true": 1}) == []
    assert hits(base, metadata={"tags": ["fda"]}) == ["k", "d"]
    assert hits(base, metadata={"of": {"symbol": "AAA"}}) == ["k"]
    assert hits(base, metadata={"tags": "fda"}) == []
    assert hits(base, metadata={"year": 2024}, collections=[DECISIONS], as_of=NOON) == ["d"]


def test_nothing_is_found_as_of_a_time_before_it_was_known(base: KnowledgeBase) -> None:
    base.save_documents([document("now"), document("later", known_at=NOON + timedelta(microseconds=1))])
    assert hits(base, as_of=NOON - timedelta(microseconds=1)) == []
    assert hits(base, as_of=NOON) == ["now"]
    assert hits(base, as_of=NOON + timedelta(microseconds=1)) == ["later", "now"]
    assert hits(base) == ["later", "now"]


def test_an_outcome_is_written_once_and_not_seen_as_of_a_time_before_it(base: KnowledgeBase) -> None:
    base.save_documents([document("trace", collection=DECISIONS), document("other", "5", collection=DECISIONS)])
    outcome = DocumentOutcome(values={"hit": True, "net_pnl_pct": 0.021}, known_at=NOON + timedelta(days=2))
    assert base.record_outcome("trace", outcome).outcome == outcome
    assert base.record_outcome("trace", outcome) == base.get_document("trace")
    assert base.get_document("trace").metadata == {"year": 2024}
    with pytest.raises(StoreConflictError, match="document 'trace' has had another outcome since 2024-03-06"):
        base.record_outcome("trace", DocumentOutcome(values={"hit": False}, known_at=outcome.known_at))
    with pytest.raises(MissingDataError, match="there is no document 'absent'"):
        base.record_outcome("absent", outcome)
    assert [item.document.outcome for item in base.search("0")] == [outcome, None]
    assert base.search("0", as_of=outcome.known_at)[0].document.outcome == outcome
    assert base.search("0", as_of=outcome.known_at - timedelta(microseconds=1))[0].document.outcome is None


def test_an_outcome_survives_that_its_document_is_saved_again(base: KnowledgeBase) -> None:
    base.save_documents([document("trace")])
    outcome = DocumentOutcome(values={"hit": False}, known_at=NOON)
    base.record_outcome("trace", outcome)
    base.save_documents([document("trace", "80")])
    assert base.search("80")[0].document.outcome == outcome


# Embedders do not mix


def test_a_document_of_another_embedder_never_appears_however_near_it_is(open_base: Open) -> None:
    mine, other = open_base(Angles()), open_base(Angles("other"))
    other.save_documents([document(f"other {number}", f"{number / 1000}") for number in range(300)])
    mine.save_documents([document("mine", "80"), document("mine too", "170")])
    assert hits(mine, k=200) == ["mine", "mine too"]
    assert hits(open_base(Angles("nobody's"))) == []
    assert mine.count_documents() == {"angles": 2, "other": 300}
    assert mine.get_document("other 0").embedder == "other"


def test_an_identity_is_one_document_whoever_embeds_it(open_base: Open) -> None:
    mine, other = open_base(Angles()), open_base(Angles("other"))
    mine.save_documents([document("a")])
    other.save_documents([document("a", "30")])
    assert hits(mine) == []
    assert hits(other) == ["a"]
    assert mine.count_documents() == {"other": 1}


def test_documents_of_other_embedders_are_found_once_they_are_embedded_anew(open_base: Open) -> None:
    mine, other = open_base(Angles()), open_base(Angles("other", np.eye(1536, dtype=np.float32)[:130]))
    other.save_documents([document(f"{number:03}", str(number)) for number in range(130)])
    outcome = DocumentOutcome(values={"hit": True}, known_at=NOON)
    other.record_outcome("007", outcome)
    assert mine.reembed() == 130
    assert mine.count_documents() == {"angles": 130}
    assert hits(mine, "90", k=3) == ["090", "089", "091"]
    assert mine.search("7", k=1)[0].document.outcome == outcome
    assert mine.reembed() == 0


def test_a_document_saved_while_it_is_embedded_anew_keeps_its_new_text(open_base: Open) -> None:
    open_base(Angles("other")).save_documents([document("a", "10")])

    class Meanwhile(Angles):
        def embed(self, texts: Sequence[str]) -> Any:
            if list(texts) == ["10"]:
                open_base(Angles("third")).save_documents([document("a", "50")])
            return super().embed(texts)

    mine = open_base(Meanwhile())
    assert mine.reembed() == 1
    (found,) = mine.search("50")
    assert (found.document.document_text, found.similarity) == ("50", 1.0)


# What is refused


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (np.ones((1, 320)), r"must make vectors of shape \(1, 1536\), made \(1, 320\)"),
        (np.ones((2, 1536)), r"must make vectors of shape \(1, 1536\), made \(2, 1536\)"),
        (np.ones(1536), "must make vectors of shape"),
        (np.full((1, 1536), np.nan), "must make finite vectors, that of text 0 was not"),
        (np.full((1, 1536), np.inf), "must make finite vectors"),
        (np.zeros((1, 1536)), "must make vectors that point somewhere"),
    ],
)
def test_a_vector_no_store_can_hold_is_refused_and_nothing_is_written(open_base: Open, vectors: Any, said: str) -> None:
    broken = open_base(Angles("broken", vectors))
    for act in (lambda: broken.save_documents([document("a")]), lambda: broken.search("0")):
        with pytest.raises(ShapeError, match=f"the embedder broken {said}"):
            act()
    assert broken.count_documents() == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"document_text": " \n"}, "`document_text` of `a` must be text that says something"),
        ({"document_text": "a\x00"}, "`document_text` of `a` must be without NUL"),
        ({"document_text": "\udfff"}, "`document_text` of `a` must be text of whole characters"),
        ({"document_text": "x" * (MAX_JSON_BYTES + 1)}, "`document_text` of `a` must be at most 1048576 bytes"),
        ({"collection": "gossip"}, "`collection` must be one of knowledge, decisions, literature, was 'gossip'"),
        ({"known_at": NOON.replace(tzinfo=None)}, "`known_at` of `a` must be a time in UTC"),
        ({"known_at": "2024-03-04"}, "`known_at` of `a` must be a time in UTC"),
        ({"metadata": {"x": "x" * MAX_JSON_BYTES}}, "`metadata` of `a` must be at most 1048576 bytes of JSON"),
        ({"metadata": {"x": math.nan}}, "`metadata` of `a` must be what JSON can carry"),
        ({"metadata": {"x": NOON}}, "`metadata` of `a` must be what JSON can carry"),
        ({"metadata": {"x": ["a\x00"]}}, "`metadata` of `a` must be without NUL"),
        ({"metadata": {"\x00": 1}}, "`metadata` of `a` must be without NUL"),
    ],
)
def test_a_document_no_store_can_hold_cannot_be_made(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        document("a", **changes)


def test_an_identity_without_a_letter_cannot_be_made() -> None:
    with pytest.raises(DataError, match="`doc_id` must be text that says something"):
        document(" ")


def test_an_outcome_needs_a_time_in_utc_and_json() -> None:
    with pytest.raises(DataError, match="`known_at` of `outcome` must be a time in UTC"):
        DocumentOutcome(values={}, known_at=NOON.replace(tzinfo=None))
    with pytest.raises(DataError, match="`outcome` must be what JSON can carry"):
        DocumentOutcome(values={"x": math.inf}, known_at=NOON)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"text": ""}, "`text` must be text that says something"),
        ({"text": "0", "k": 0}, r"`k` must be in 1\.\.200, was 0"),
        ({"text": "0", "k": 201}, r"`k` must be in 1\.\.200, was 201"),
        ({"text": "0", "k": 2.0}, r"`k` must be in 1\.\.200, was 2\.0"),
        ({"text": "0", "collections": ["gossip"]}, "`collection` must be one of"),
        ({"text": "0", "as_of": NOON.replace(tzinfo=None)}, "`as_of` must be a time in UTC"),
        ({"text": "0", "metadata": {"x": math.nan}}, "`metadata` must be what JSON can carry"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_by_name(base: KnowledgeBase, query: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        base.search(**query)


def test_one_identity_twice_in_a_batch_is_refused_with_the_whole_batch(base: KnowledgeBase) -> None:
    with pytest.raises(DataError, match="`documents` must have each `doc_id` once, had 'a' 2 times"):
        base.save_documents([document("b"), document("a"), document("a", "1")])
    assert base.count_documents() == {}


def test_text_and_metadata_of_a_megabyte_are_kept(base: KnowledgeBase) -> None:
    large = document("a", "0 " + "x" * (MAX_JSON_BYTES - 2), metadata={"x": "y" * (MAX_JSON_BYTES - 9)})
    base.save_documents([large])
    found = base.search("0")[0].document
    assert (found.document_text, found.metadata) == (large.document_text, large.metadata)


# Other processes and threads


@pytest.mark.parametrize("open_base", ["chroma"], indirect=True)
def test_what_another_process_saved_is_found_and_what_is_saved_here_is_found_there(base: KnowledgeBase, tmp_path: Path) -> None:
    base.save_documents([document(f"ours {number}", str(number)) for number in range(3)])
    assert hits(base, k=1) == ["ours 0"]
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.core.store.contract.test_knowledge_bases import *\n"
        "base = ChromaKnowledgeBase(knowledge_path(Path(sys.argv[1])), Angles())\n"
        "assert hits(base, '2', k=1) == ['ours 2']\n"
        "base.save_documents([document('theirs', '100'), document('ours 0', '200')])\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, timeout=120)
    assert hits(base, "100", k=1) == ["theirs"]
    assert hits(base, "0", k=1) == ["ours 1"]
    assert base.get_document("ours 0").document_text == "200"


def test_threads_that_save_at_once_lose_nothing(base: KnowledgeBase) -> None:
    def save(worker: int) -> int:
        return sum(base.save_documents([document(f"{worker}/{number}", str(worker))]) for number in range(5))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(save, range(4))) == [5] * 4
    assert base.count_documents() == {"angles": 20}


def test_two_processes_that_save_at_once_lose_nothing(database: str, tmp_path: Path) -> None:
    need_chroma()
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.core.store.contract.test_knowledge_bases import *\n"
        "who, home, database = sys.argv[1:]\n"
        "gateway = PostgresGateway(database, role='service_role').open()\n"
        "for base in (ChromaKnowledgeBase(knowledge_path(Path(home)), Angles()), PgKnowledgeBase(gateway, Angles())):\n"
        "    for number in range(3):\n"
        "        base.save_documents([document(f'{who} {number}', str(number)), document('shared', who)])\n"
        "gateway.close()\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, who, str(tmp_path), database], cwd=ROOT) for who in ("1", "2")]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    gateway = PostgresGateway(database, role="service_role").open()
    for base in (ChromaKnowledgeBase(knowledge_path(tmp_path), Angles()), PgKnowledgeBase(gateway, Angles())):
        assert base.count_documents() == {"angles": 7}
        assert base.get_document("shared").document_text in ("1", "2")
        assert hits(base, "2", k=2) == ["1 2", "2 2"]
    gateway.close()


def test_a_save_that_is_killed_in_the_middle_leaves_the_whole_batch_or_nothing(
    database: str, owner: psycopg.Connection
) -> None:
    # The statement waits for a lock on one of its rows: there the process dies.
    gateway = PostgresGateway(database, role="service_role").open()
    base = PgKnowledgeBase(gateway, Angles())
    base.save_documents([document("500", "1 old")])
    code = (
        "import sys\n"
        "from tests.core.store.contract.test_knowledge_bases import *\n"
        "base = PgKnowledgeBase(PostgresGateway(sys.argv[1], role='service_role').open(), Angles())\n"
        "base.save_documents([document(f'{number:03}', '1 new') for number in range(1000)])\n"
    )
    waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    with psycopg.connect(database) as blocker:
        blocker.execute("select from knowledge_documents where doc_id = '500' for update")
        writer = subprocess.Popen([sys.executable, "-c", code, database], cwd=ROOT)
        while owner.execute(waits).fetchone() == (0,):
            assert writer.poll() is None
        writer.kill()
        writer.wait(30)
        owner.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and wait_event_type = 'Lock'"
        )
    assert base.count_documents() == {"angles": 1}
    assert base.get_document("500").document_text == "1 old"
    gateway.close()


# What holds for all of them at once


@pytest.fixture
def all_bases(database: str, stand_in: StandIn, tmp_path: Path) -> Iterator[list[KnowledgeBase]]:
    need_chroma()
    over_http = SupabaseGateway(stand_in.url(database), KEY).open()
    embedder = HashedNgramEmbedder()
    yield [PgKnowledgeBase(over_http, embedder), ChromaKnowledgeBase(knowledge_path(tmp_path), embedder)]
    over_http.close()


def test_real_headlines_are_found_in_the_same_order_with_the_same_similarity(all_bases: list[KnowledgeBase]) -> None:
    headlines = [
        "FDA recalls insulin pumps after battery failures",
        "Supplier fire halts chip production in Dresden",
        "Chip maker raises guidance on data-centre demand",
        "Insulin maker faces FDA warning letter",
        "Oil prices fall as inventories build",
        "Battery supplier recalls cells",
        "Fire at refinery lifts oil prices",
    ]
    documents = [document(f"headline {number}", text) for number, text in enumerate(headlines)]
    answers = []
    for base in all_bases:
        base.save_documents(documents)
        answers.append(
            [
                [(item.document.doc_id, item.similarity) for item in base.search(text, k=7)]
                for text in ("insulin recall", "fire at a chip supplier", "oil inventories")
            ]
        )
    for over_http, in_folder in zip(*answers, strict=True):
        assert [doc_id for doc_id, _ in over_http] == [doc_id for doc_id, _ in in_folder]
        np.testing.assert_allclose([s for _, s in over_http], [s for _, s in in_folder], atol=2e-6)
    assert [answer[0][0] for answer in answers[0]] == ["headline 0", "headline 1", "headline 4"]
    expected = HashedNgramEmbedder().embed(["oil inventories", headlines[4]])
    assert answers[0][2][0][1] == pytest.approx(float(expected[0] @ expected[1]), abs=2e-6)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, 0.5]) | st.sampled_from(["a", "b", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.sampled_from("ab"), JSON, max_size=2)


@pytest.fixture(scope="module")
def asked(server: Any) -> Iterator[psycopg.Connection]:
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        yield connection


@settings(max_examples=300, deadline=None)
@given(value=OBJECTS, wanted=OBJECTS)
def test_containment_is_that_of_postgres(asked: psycopg.Connection, value: dict[str, Any], wanted: dict[str, Any]) -> None:
    parameters = [psycopg.types.json.Jsonb(value), psycopg.types.json.Jsonb(wanted)]
    assert (contains(value, wanted),) == asked.execute("select %s @> %s", parameters).fetchone()


# A folder of Chroma's


@pytest.fixture
def small_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.store.chroma_knowledge._PAGE", 3)


@pytest.mark.usefixtures("small_statements")
def test_what_is_more_than_one_statement_can_name_is_counted_and_searched_in_pages(tmp_path: Path) -> None:
    need_chroma()
    base = ChromaKnowledgeBase(knowledge_path(tmp_path), Angles())
    base.save_documents([document(f"{number:02}", str(number), metadata={"fifth": number % 5 == 0}) for number in range(20)])
    assert base.count_documents() == {"angles": 20}
    assert hits(base, "0", k=2, metadata={"fifth": True}) == ["00", "05"]
    assert hits(base, "0", k=9, metadata={"fifth": True}) == ["00", "05", "10", "15"]


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    need_chroma()
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(StoreUnavailableError, match=r"the knowledge base .*chroma cannot be used"):
        ChromaKnowledgeBase(knowledge_path(tmp_path), Angles()).count_documents()


def test_a_folder_that_was_damaged_is_unavailable_until_it_is_mended(tmp_path: Path) -> None:
    need_chroma()
    base = ChromaKnowledgeBase(knowledge_path(tmp_path), Angles())
    base.save_documents([document("a")])
    file = base.path / "chroma.sqlite3"
    content = file.read_bytes()
    file.write_bytes(b"no database" * 1000)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="cannot be used"):
            base.search("0")
    file.write_bytes(content)
    assert hits(base) == ["a"]


def test_without_chroma_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'agentic-quantitative-framework\[chroma\]'"):
        ChromaKnowledgeBase(knowledge_path(tmp_path), Angles())
    assert list(tmp_path.iterdir()) == []


# The functions themselves


@pytest.mark.parametrize(
    "arguments",
    ["array_fill(1, array[1536])::extensions.vector, 0, 'e'", "array_fill(1, array[1536])::extensions.vector, 1, ' '"],
)
def test_the_function_refuses_what_makes_no_sense(owner: psycopg.Connection, arguments: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"match_count must be in 1\.\.1000"):
        owner.execute(f"select match_knowledge_documents({arguments})")  # type: ignore[call-overload]


@pytest.mark.parametrize("open_base", ["postgres", "http"], indirect=True)
def test_the_table_refuses_an_outcome_without_a_date_and_one_too_large(base: KnowledgeBase) -> None:
    assert isinstance(base, PgKnowledgeBase)
    base.save_documents([document("a")])
    with pytest.raises(StoreError, match="knowledge_documents_outcome_is_dated"):
        base.gateway.update("knowledge_documents", {"outcome": {}}, where={"doc_id": "a"})
    large = {"outcome": {"x": "x" * MAX_JSON_BYTES}, "outcome_known_at": NOON}
    with pytest.raises(StoreError, match="knowledge_documents_outcome_check"):
        base.gateway.update("knowledge_documents", large, where={"doc_id": "a"})


def test_documents_from_before_they_were_dated_are_known_since_they_were_stored(server: Any) -> None:
    from core.store.migrations import apply_migrations, load_migrations

    database = server.create()
    earlier = [migration for migration in load_migrations() if migration.version < "20240903004000"]
    apply_migrations(database, tuple(earlier))
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "insert into knowledge_documents (doc_id, collection, document_text, embedder, embedding, created_at)"
            " values ('a', 'knowledge', 't', 'e', array_fill(1, array[1536])::extensions.vector, '2024-01-02T00:00Z')"
        )
        apply_migrations(database)
        assert connection.execute("select known_at from knowledge_documents").fetchone() == (datetime(2024, 1, 2, tzinfo=UTC),)
    server.drop(database)
