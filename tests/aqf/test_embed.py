import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agents.research.drift import watched_features
from backtest.markets import no_edge
from core.market import Panel
from core.settings import Settings
from core.store import open_store
from core.store.knowledge import PgKnowledgeBase
from core.store.knowledge_records import KnowledgeDocument
from core.store.trading_records import KnowledgeCollection
from core.text import HashedNgramEmbedder
from tests.aqf.shell import Shell
from tests.conftest import make_reachable_folder, sweep
from tests.core.store.trading import raw_signal


class OldEmbedder(HashedNgramEmbedder):
    name = "old-make"


@pytest.fixture
def shell(panel: Panel, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell("embed", home, monkeypatch, capsys)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home whose server stays up between commands."""
    folder = make_reachable_folder()
    yield folder / "home"
    sweep(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def panel(home: Path) -> Panel:
    """What a researcher may see of the data set `mine`."""
    with open_store(Settings(home=home, keep_server=True)) as store:
        mine = store.service.import_dataset(
            no_edge(seed=3, n_assets=6, n_bars=1_300), name="mine", source="made up", synthetic=True
        )
        return store.researcher.load_panel(mine)


def test_map_writes_page_and_pictures_and_names_the_neighbours(shell: Shell, panel: Panel, tmp_path: Path) -> None:
    symbol, day = panel.symbols[2], f"{panel.index[700]:%Y-%m-%d}"
    options = ("--dataset", "mine", "--symbol", symbol, "--until", day, "--count", "4", "--stride", "10")
    found = shell.answer("map", *options, "--out", str(tmp_path / "map"))
    assert (found["chosen"]["symbol"], len(found["neighbours"])) == (symbol, 4)
    assert f"{panel.index[690]:%Y-%m-%d}" <= found["chosen"]["end"] <= day
    assert all(row["end"] < found["chosen"]["end"] for row in found["neighbours"])
    written = {path.name for path in (tmp_path / "map").iterdir()}
    assert written == {"map.html", "regime.png", "date.png", "neighbours.png"}
    shown = shell.run("map", *options)
    assert shown.returncode == 0
    assert found["neighbours"][0]["end"] in shown.stdout
    page = Path(shown.stdout.partition("Page: ")[2].strip())
    assert page.is_file()
    assert page.is_relative_to(shell.home / "maps")


def test_map_fits_an_encoder_that_does_not_come_trained_on_the_past_of_the_window(shell: Shell, tmp_path: Path) -> None:
    options = ("--dataset", "mine", "--encoder", "pca", "--stride", "10", "--out", str(tmp_path))
    found = shell.answer("map", *options)
    assert found["trained_until"] == found["chosen"]["end"]


def test_bakeoff_prints_what_ran_and_what_did_not(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.encoders.minirocket.find_spec", lambda name: None)
    options = ("--dataset", "mine", "--encoder", "pca", "--encoder", "minirocket")
    found = shell.answer("bakeoff", *options)
    assert [row["name"] for row in found["contestants"]] == ["no memory", "pca", "minirocket"]
    pca, rocket = found["contestants"][1:]
    assert pca["lift"]["return"]["low"] < pca["lift"]["return"]["value"] < pca["lift"]["return"]["high"]
    assert "sktime" in rocket["not_run"]
    shown = shell.run("bakeoff", *options)
    assert shown.returncode == 0
    assert f"{pca['rank_ic']['return']['value']:+.3f} [" in shown.stdout
    assert "minirocket was not run: MiniRocket needs sktime" in shown.stdout
    assert found["sentence"] in shown.stdout
    assert "encoding with pca" in shown.stderr


def test_drift_prints_every_measure_and_says_when_there_are_no_vectors(shell: Shell, panel: Panel) -> None:
    found = shell.answer("drift", "--dataset", "mine")
    assert [row["name"] for row in found["measured"]] == list(watched_features(panel.fields))
    assert found["recorded"] == [row["name"] for row in found["measured"] if row["drifted"]]
    again = shell.answer("drift", "--dataset", "mine")
    assert again["measured"] == found["measured"]
    assert again["recorded"] == []
    shown = shell.run("drift", "--dataset", "mine")
    assert f"Drift: {found['sentence']}." in shown.stdout
    assert "There are no vectors of this data set" in shown.stdout


def test_text_embeds_documents_of_other_embedders_and_headlines(shell: Shell) -> None:
    with open_store(Settings(home=shell.home, keep_server=True)) as store:
        document = KnowledgeDocument(
            doc_id="note",
            collection=KnowledgeCollection.KNOWLEDGE,
            document_text="Ports close in winter.",
            known_at=datetime(2024, 1, 1, tzinfo=UTC),
        )
        PgKnowledgeBase(store.trading.gateway, OldEmbedder()).save_documents([document])
        store.trading.save_signal(raw_signal(1), source="wire", source_key="1")
        name = store.knowledge.embedder.name
    looked = shell.answer("text", "--dry-run")
    assert (looked["before"], looked["after"], looked["reembedded"]) == ({"old-make": 1}, {"old-make": 1}, 0)
    assert "1 documents are of other embedders" in shell.run("text", "--dry-run").stdout
    done = shell.answer("text")
    assert (done["embedder"], done["reembedded"], done["headlines"]) == (name, 1, 1)
    assert done["after"] == {name: 2}
    shown = shell.run("text")
    assert "0 documents were embedded anew, 0 headlines are new" in shown.stdout
    with open_store(Settings(home=shell.home, keep_server=True)) as store:
        assert store.knowledge.search("ports in winter", k=1)[0].document.doc_id == "note"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["map", "--dataset", "mien"], 1, "Did you mean mine?"),
        (["map", "--dataset", "mine", "--symbol", "NONE"], 1, "unknown symbol 'NONE'"),
        (["map", "--dataset", "mine", "--encoder", "word2vec"], 1, "must be one of"),
        (["map", "--dataset", "mine", "--until", "1980-01-01"], 1, "ends by 1980-01-01"),
        (["map", "--dataset", "mine", "--until", "yesterday"], 2, "Invalid value for '--until'"),
        (["bakeoff", "--dataset", "mine", "--encoder", "word2vec"], 1, "must be one of"),
        (["bakeoff", "--count", "0"], 2, "Invalid value for '--count'"),
        (["drift", "--seed", "-1"], 2, "Invalid value for '--seed'"),
        (["text", "more"], 2, "unexpected extra argument"),
    ],
)
def test_bad_input_is_one_line_with_a_remedy(shell: Shell, arguments: list[str], code: int, text: str) -> None:
    done = shell.run(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    error = [line for line in done.stderr.splitlines() if not line.startswith("  ")]
    assert len(error) == 1
    assert text in error[0]
