"""`aqf worker`, and the commands of `aqf embed` that keep the vector memory."""

import json
import signal
from pathlib import Path
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from aqf.commands.embed_versions import COMMANDS
from aqf.commands.worker import worker
from core.errors import MissingDataError, StoreConflictError
from core.store.opening import Store
from core.store.records import Dataset
from core.store.research import ResearchStore
from tests.aqf.commands import start_aqf
from tests.features.memory.worlds import land, rows_of

OF_NAME = {command.name: command for command in COMMANDS}


@pytest.fixture(autouse=True)
def _environment(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQF_HOME", str(tmp_path))
    monkeypatch.setenv("AQF_DATABASE_URL", database)


@pytest.fixture
def dataset(store: Store) -> Dataset:
    return land(store)


def run(name: str, *arguments: str) -> Result:
    return CliRunner().invoke(OF_NAME[name], (*arguments, "--dataset", "small"))


def answer(name: str, *arguments: str) -> object:
    result = run(name, *arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def ask(store: Store, dataset: Dataset, **windows: object) -> UUID:
    return store.researcher.request_refresh({"dataset_id": str(dataset.dataset_id), "windows": windows})


def test_a_worker_does_what_is_open_and_reports_each_job_on_a_line(store: Store, dataset: Dataset) -> None:
    jobs = [ask(store, dataset, encoder="ts2vec", stride=20), ask(store, dataset, window=7_000)]
    result = CliRunner().invoke(worker, ["--once", "--json"])
    assert result.exit_code == 1, "one of them failed"
    good, bad = (json.loads(line) for line in result.stdout.splitlines())
    assert (good["job_id"], good["status"], good["error"]) == (str(jobs[0]), "done", None)
    assert good["result"]["windows"] == len(rows_of(store)) > 0
    assert (bad["job_id"], bad["status"], bad["result"]) == (str(jobs[1]), "failed", None)
    assert bad["error"].startswith("not enough history")
    idle = CliRunner().invoke(worker, ["--once"])
    assert (idle.exit_code, idle.stdout) == (0, "")


def test_a_worker_hears_of_a_job_at_once_and_ends_when_it_is_told_to(store: Store, dataset: Dataset, tmp_path: Path) -> None:
    process = start_aqf(tmp_path, "worker", "--poll-seconds", "300", "--json")
    try:
        assert process.stderr is not None and process.stdout is not None
        assert process.stderr.readline() == "waiting for jobs; Ctrl-C ends it.\n"
        for stride in (20, 30):
            job_id = ask(store, dataset, encoder="ts2vec", stride=stride)
            line = json.loads(process.stdout.readline())
            assert (line["job_id"], line["status"]) == (str(job_id), "done")
        process.send_signal(signal.SIGTERM)
        rest, said = process.communicate(timeout=60)
        assert (process.returncode, rest) == (0, "")
        assert said == "stopped; a job that was not finished goes to the next worker.\n"
    finally:
        process.kill()
        process.wait()


def test_a_worker_that_is_to_do_what_is_open_and_was_stopped_does_not_say_that_it_was_done(
    store: Store, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = ask(store, dataset, encoder="ts2vec", stride=20)

    def stop(*arguments: object, **more: object) -> bool:
        signal.raise_signal(signal.SIGTERM)
        return True

    monkeypatch.setattr(ResearchStore, "renew_job", stop)
    stopped = CliRunner().invoke(worker, ["--once"])
    assert stopped.exit_code == 130
    assert "stopped; a job that was not finished goes to the next worker." in stopped.output
    assert store.researcher.get_job(job_id).status == "pending"


def test_a_version_is_built_beside_compared_and_switched_to(store: Store, dataset: Dataset) -> None:
    assert "has no vectors yet" in run("versions").stdout
    missing = run("compare", "none")
    assert isinstance(missing.exception, MissingDataError)
    first, second = (answer("generate", "--stride", stride)["emb_version"] for stride in ("5", "3"))  # type: ignore[index]
    listed = answer("versions")
    assert isinstance(listed, list)
    assert [(row["version"], row["status"]) for row in listed] == [(first, "active"), (second, "building")]
    assert all(row["windows"] == row["of"] and row["archived"] == 0 for row in listed)
    compared = answer("compare", second, "--k", "3")
    assert isinstance(compared, dict)
    assert compared["versions"] == [first, second]
    assert compared["overlap"] == 1.0, "one encoder, and only windows that both have"
    said = run("compare", second, "--k", "3").stdout
    assert "100.0% of the 3 nearest neighbours are the same" in said
    assert answer("switch", second) == {"active": second, "before": first}
    assert "searches use" in run("switch", first).stdout
    store.service.gateway.delete("signal_embeddings", where={"emb_version": second, "asset_symbol": "AAA"})
    refused = run("switch", second)
    assert isinstance(refused.exception, StoreConflictError)
    assert "still building" in str(refused.exception)


def test_windows_are_counted_archived_and_brought_back(store: Store, dataset: Dataset) -> None:
    run("generate", "--stride", "5")
    before = rows_of(store)
    limits = ("--max-age-days", "30", "--min-t-stat", "3", "--regime-diversity", "2")
    counted = answer("prune", *limits)
    assert isinstance(counted, dict) and counted["dry_run"] and counted["selected"] > 0
    assert f"{counted['selected']} of {len(before)} windows would be archived" in run("prune", *limits).stdout
    assert rows_of(store) == before
    done = answer("prune", *limits, "--apply")
    assert isinstance(done, dict) and done["archived"] == counted["selected"] == len(before) - len(rows_of(store))
    assert answer("restore") == {"restored": done["archived"]}
    assert rows_of(store) == before


@pytest.mark.parametrize("command", [*COMMANDS, worker], ids=lambda command: str(command.name))
def test_every_command_has_help_with_an_example(command) -> None:  # type: ignore[no-untyped-def]
    shown = CliRunner().invoke(command, ["--help"])
    assert (shown.exit_code, "Example:  aqf" in shown.stdout) == (0, True)
