"""The one store of a process: its trade log, its knowledge base and its embedder, whichever database is in force."""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from core.errors import ChatModelError, ConfigurationError
from core.settings import Settings, StoreKind
from core.store.chroma_knowledge import ChromaKnowledgeBase
from core.store.knowledge import PgKnowledgeBase
from core.store.knowledge_records import KnowledgeDocument
from core.store.opening import Store, open_store
from core.store.sqlite_trade_log import SqliteTradeLog
from core.store.trade_log import PostgresTradeLog
from core.store.trading_records import KnowledgeCollection
from core.text import HashedNgramEmbedder
from tests.core.store.chroma import need_chroma
from tests.core.store.trading import new_trade
from tests.core.text.scripted_embeddings import answer, serve


@pytest.fixture
def files(tmp_path: Path) -> Settings:
    need_chroma()
    return Settings(home=tmp_path / "home", store="sqlite")


def document(doc_id: str, text: str) -> KnowledgeDocument:
    return KnowledgeDocument(
        doc_id=doc_id,
        collection=KnowledgeCollection.DECISIONS,
        document_text=text,
        known_at=datetime(2024, 3, 4, tzinfo=UTC),
    )


def test_a_store_over_a_database_has_one_trade_log_and_one_knowledge_base_in_it(store: Store) -> None:
    assert isinstance(store.trade_log, PostgresTradeLog)
    assert store.trade_log is store.trading.trades
    assert isinstance(store.knowledge, PgKnowledgeBase)
    assert isinstance(store.knowledge.embedder, HashedNgramEmbedder)
    assert store.knowledge.gateway is store.trade_log.gateway is store.service.gateway
    store.knowledge.save_documents([document("a", "oil rises"), document("b", "chips fall")])
    assert store.knowledge.search("falling chips", k=1)[0].document.doc_id == "b"


def test_files_keep_trades_and_knowledge_in_the_home_and_start_no_server(files: Settings) -> None:
    with open_store(files) as store:
        assert (store.kind, store.conninfo, store.migrated) == (StoreKind.SQLITE, None, [])
        assert isinstance(store.trade_log, SqliteTradeLog)
        assert isinstance(store.knowledge, ChromaKnowledgeBase)
        assert store.trade_log.path == files.home / "data" / "trade_log.db"
        assert store.knowledge.path == files.home / "data" / "chroma"
        trade = store.trade_log.record_trade(new_trade())
        store.knowledge.save_documents([document("a", "oil rises"), document("b", "chips fall")])
    assert sorted(path.name for path in files.home.iterdir()) == ["data"]
    with open_store(files) as again:
        assert again.trade_log.get_trade(trade.trade_id) == trade
        assert again.knowledge.search("falling chips", k=1)[0].document.doc_id == "b"


@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.service.list_datasets(),
        lambda store: store.researcher.list_datasets(),
        lambda store: store.trading.latest_health(),
        lambda store: store.trading.trades.list_trades(),
        lambda store: store.require_conninfo(),
    ],
)
def test_what_files_do_not_keep_is_refused_with_the_remedy(files: Settings, act: Callable[[Store], Any]) -> None:
    with open_store(files) as store, pytest.raises(ConfigurationError, match=r"AQF_STORE=sqlite keeps .* take AQF_STORE away"):
        act(store)


def test_files_without_chroma_are_refused_before_anything_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'agentic-quantitative-framework\[chroma\]'"):
        open_store(Settings(home=tmp_path / "home", store="sqlite"))
    assert not (tmp_path / "home").exists()


def test_opening_files_loads_neither_chroma_nor_a_model(files: Settings) -> None:
    code = (
        "import sys; from pathlib import Path; from core.settings import Settings; from core.store import open_store\n"
        "open_store(Settings(home=Path(sys.argv[1]), store='sqlite', openai_api_key='k')).close()\n"
        "print({'chromadb', 'openai', 'sklearn'} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code, str(files.home)], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "set()"


def test_with_a_key_openai_embeds_and_its_tokens_are_written_down(database: str, tmp_path: Path) -> None:
    with serve() as script:
        settings = Settings(
            home=tmp_path,
            database_url=SecretStr(database),
            openai_api_key=SecretStr("k"),
            openai_base_url=script.base_url,
            llm_max_retries=0,
        )
        with open_store(settings) as store:
            store.knowledge.save_documents([document("a", "a" * 1000), document("b", "b" * 500)])
            (row,) = store.service.gateway.select("llm_usage")
            assert (row["model"], row["role"], row["input_tokens"]) == ("text-embedding-3-small", "embedder", 1500)
            assert float(row["cost_usd"]) == 0.00003
            script.steps = [(500, "{}"), (200, answer(["x"], data=[{"index": 0, "embedding": [1.0]}]))]
            for _ in range(2):
                with pytest.raises(ChatModelError, match="text-embedding-3-small"):
                    store.knowledge.save_documents([document("c", "c")])
            assert store.knowledge.count_documents() == {"openai-text-embedding-3-small": 2}
    without = Settings(home=tmp_path, database_url=SecretStr(database))
    with open_store(without) as store:
        assert store.knowledge.search("a") == []
        assert store.knowledge.count_documents() == {"openai-text-embedding-3-small": 2}
        assert store.knowledge.reembed() == 2
        assert store.knowledge.search("a" * 1000, k=1)[0].document.doc_id == "a"
