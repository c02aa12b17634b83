import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from core.store.opening import Store
from features.generate_ts2vec_embeddings import generate_embeddings, main
from tests.aqf.commands import ROOT, environment
from tests.features.memory.worlds import build_prices, land, rows_of


@pytest.fixture(autouse=True)
def _environment(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQF_HOME", str(tmp_path))
    monkeypatch.setenv("AQF_DATABASE_URL", database)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_the_command_fills_the_memory_once_and_says_when_there_was_nothing_to_do(store: Store) -> None:
    land(store)
    first = run("--dataset", "small", "--window", "128", "--stride", "7")
    assert (first.exit_code, first.stderr) == (0, "")
    before = rows_of(store)
    assert f"ts2vec-1-0919d346874d-w128-s7-h5-small-v1: {len(before)} windows were encoded and stored" in first.stdout
    assert "Status active: searches use it." in first.stdout
    second = run("--dataset", "small", "--stride", "7")
    assert "nothing was missing, nothing was changed" in second.stdout
    assert rows_of(store) == before
    third = run("--dataset", "small", "--stride", "7", "--json")
    answer = json.loads(third.stdout)
    assert (answer["dataset"], answer["written"], answer["windows"], answer["status"]) == ("small", 0, len(before), "active")
    beside = run("--dataset", "small", "--stride", "50")
    assert "Status building: searches use another version until they are switched." in beside.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--dataset", "nosuch"), 1, "generate_ts2vec_embeddings: unknown data set 'nosuch'"),
        (("--dataset", "small", "--window", "64"), 1, "the encoder ts2vec takes windows of 128 bars, was asked for 64"),
        (("--dataset", "old"), 1, "it may know the hold-out"),
        (("--dataset", "small", "--window", "1"), 2, "1 is not in the range"),
        (("--dataset", "small", "--encoder", "gpt"), 2, "'gpt' is not one of"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_an_exit_code(
    store: Store, arguments: tuple[str, ...], code: int, said: str
) -> None:
    land(store)
    land(store, build_prices(600, start="2001-01-02 20:00", seed=1), name="old")
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert rows_of(store) == []


def test_the_function_takes_a_store_and_tells_its_progress(store: Store) -> None:
    land(store)
    seen: list[tuple[int, int]] = []
    done = generate_embeddings(store, "small", stride=20, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done.written, done.written)]
    assert done.written == len(rows_of(store)) > 0


def test_the_module_runs_and_its_help_has_an_example(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "features.generate_ts2vec_embeddings", "--help"],
        env=environment(tmp_path),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "python -m features.generate_ts2vec_embeddings --dataset sp500_20 --window 128 --stride 5" in shown.stdout
