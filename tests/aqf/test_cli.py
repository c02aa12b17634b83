import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backtest.markets import no_edge, planted
from tests.aqf.commands import ROOT, aqf, environment, write_csv
from tests.conftest import make_reachable_folder, sweep
from tests.core.store.chroma import need_chroma

COMMANDS = (
    ("demo",),
    ("plan",),
    ("runs",),
    ("show",),
    ("resume",),
    ("features", "list"),
    ("features", "operators"),
    ("features", "explain"),
    ("features", "show"),
    ("features", "check"),
    ("features", "snapshot"),
    ("embed", "map"),
    ("embed", "bakeoff"),
    ("embed", "drift"),
    ("embed", "text"),
    ("embed", "generate"),
    ("embed", "versions"),
    ("embed", "compare"),
    ("embed", "switch"),
    ("embed", "prune"),
    ("embed", "restore"),
    ("backtest",),
    ("trade", "replay"),
    ("trade", "status"),
    ("trade", "positions"),
    ("trade", "halt"),
    ("trade", "resume"),
    ("trade", "report"),
    ("trade", "ab"),
    ("calibrate",),
    ("doctor",),
    ("data", "list"),
    ("data", "load"),
    ("data", "import"),
    ("db", "up"),
    ("db", "down"),
    ("db", "url"),
    ("db", "status"),
    ("db", "migrate"),
    ("db", "backup"),
    ("db", "restore"),
    ("worker",),
)
HEAVY = {
    "arch",
    "langchain_core",
    "langgraph",
    "matplotlib",
    "numba",
    "numpy",
    "openai",
    "pandas",
    "psycopg",
    "pydantic",
    "rich",
}
TRIALS = 4


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home whose server stays up between commands."""
    folder = make_reachable_folder()
    started = run(folder / "home", "db", "up")
    assert started.returncode == 0, started.stderr
    yield folder / "home"
    sweep(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def dataset(home: Path) -> dict[str, Any]:
    panel = planted(seed=1, sharpe=3.0, n_assets=12, n_bars=1_500)
    file = write_csv(panel, home.parent / "prices.csv")
    return answer(run(home, "data", "import", str(file), "--name", "mine", "--json"))


@pytest.fixture(scope="module")
def planned(home: Path, dataset: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    options = ("--dataset", "mine", "--trials", str(TRIALS), "--seed", "1", "--planner", "rules", "--json")
    return run(home, "plan", "Is there a short-horizon reversal?", *options)


@pytest.fixture(scope="module")
def report(planned: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return answer(planned)


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that leaves the server up for the next one."""
    return aqf(home, *arguments, AQF_KEEP_SERVER="1")


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    """Return the one JSON value on standard output."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_calibration_on_realistic_markets_says_how_sure_it_is_and_what_stopped_the_best(home: Path) -> None:
    done = run(home, "calibrate", "--markets", "2", "--market-style", "realistic", "--bars", "600", "--trials", "2", "--json")
    said = answer(done)
    assert (said["markets"], said["market_style"], said["edge"]) == (2, "realistic", None)
    assert (said["promoted_in"], said["measure"], said["share"]) == (0, "false_discovery_rate", 0.0)
    assert said["interval_95"] == [0.0, pytest.approx(0.6576, abs=1e-4)]  # Wilson, none of two
    assert sum(said["best_stopped_by"].values()) == 2
    assert re.findall(r"market \d of 2, seed \d: nothing promoted \((\w+)\)", done.stderr)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_every_command_has_an_example(command: tuple[str, ...], tmp_path: Path) -> None:
    done = aqf(tmp_path / "home", *command, "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    (example,) = [line for line in done.stdout.splitlines() if line.strip().startswith("Example:")]
    assert f"aqf {' '.join(command)}" in example
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["-h"],
        ["data", "--help"],
        ["db", "--help"],
        ["trade", "--help"],
        ["plan", "--help"],
        ["features", "--help"],
        ["--version"],
    ],
)
def test_help_answers_at_once_because_it_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from aqf.cli import main\n"
        f"sys.argv = ['aqf', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print('modules:', *sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=True
    )
    imported = set(done.stdout.rpartition("modules:")[2].split())
    assert {"aqf", "click"} <= imported
    assert imported & HEAVY == set()


def test_every_command_is_in_the_help(tmp_path: Path) -> None:
    groups = {command[0] for command in COMMANDS}
    shown = aqf(tmp_path, "--help").stdout
    assert {line.split()[0] for line in shown.partition("Commands:")[2].splitlines() if line.strip()} == groups


def test_a_csv_becomes_a_data_set_with_its_last_fifth_sealed(dataset: dict[str, Any]) -> None:
    assert dataset["name"] == "mine"
    assert dataset["version"] == 1
    assert (dataset["symbols"], dataset["bars"]) == (12, 1_500)
    assert dataset["first"] == "2000-01-03"
    assert dataset["sealed_from"] == "2004-08-09"
    assert dataset["source"] == "file prices.csv"


def test_importing_the_same_file_again_changes_nothing_and_a_seal_cannot_be_moved(home: Path, dataset: dict[str, Any]) -> None:
    file = str(home.parent / "prices.csv")
    assert answer(run(home, "data", "import", file, "--name", "mine", "--json")) == dataset
    moved = run(home, "data", "import", file, "--name", "mine", "--sealed-from", "2005-01-03")
    assert moved.returncode == 1
    assert moved.stderr.startswith("aqf: data set mine is sealed from")
    renamed = run(home, "data", "import", file, "--name", "earlier", "--sealed-from", "2003-01-01")
    assert renamed.returncode == 1
    assert renamed.stderr.startswith("aqf: these bars, imported before as mine, are sealed from")


def test_a_seal_of_ones_own_is_set_at_the_first_import(home: Path, dataset: dict[str, Any]) -> None:
    file = write_csv(no_edge(seed=99, n_assets=3, n_bars=200), home.parent / "others.csv")
    other = answer(run(home, "data", "import", str(file), "--name", "others", "--sealed-from", "2000-07-03", "--json"))
    assert other["sealed_from"] == "2000-07-03"


def test_data_list_shows_what_is_stored_and_what_ships_with_packages(home: Path, dataset: dict[str, Any]) -> None:
    listed = answer(run(home, "data", "list", "--json"))
    assert dataset in listed["stored"]
    packaged = {row["name"] for row in listed["packaged"]}
    assert {"sp500_20", "vix"} <= packaged
    assert "mine" not in packaged
    table = run(home, "data", "list")
    assert table.returncode == 0
    assert "mine" in table.stdout
    assert "sp500_20" in table.stdout


def test_plan_prints_one_json_object_and_nothing_else(
    planned: subprocess.CompletedProcess[str], report: dict[str, Any]
) -> None:
    assert planned.stdout.startswith("{\n")
    assert planned.stderr == f"run {report['run_id']} on mine\n"
    assert report["verdict"] == "promoted"
    assert report["n_trials"] == len(report["leaderboard"]) == TRIALS
    assert report["config"]["seed"] == 1
    assert report["planner"] == "rules"
    assert Path(report["report"]).is_file()


def test_what_scripts_rely_on_is_in_the_json(report: dict[str, Any]) -> None:
    assert len(report["run_id"]) == 36
    for entry in report["leaderboard"]:
        assert entry["verdict"] in ("promoted", "rejected")
        assert (entry["binding_constraint"] is None) == (entry["verdict"] == "promoted")
        assert entry["metrics"]["net_sharpe"] == entry["net_sharpe"]
    assert report["promoted"] == [entry for entry in report["leaderboard"] if entry["verdict"] == "promoted"]
    assert all({"name", "expression", "metrics"} <= entry.keys() for entry in report["promoted"])
    assert report["promoted"] != []


def test_show_and_resume_of_a_finished_run_give_its_report(home: Path, report: dict[str, Any]) -> None:
    short = report["run_id"][:8]
    assert answer(run(home, "show", short, "--json")) == report
    assert answer(run(home, "resume", report["run_id"], "--json")) == report


def test_show_prints_a_leaderboard_a_verdict_and_where_the_page_is(home: Path, report: dict[str, Any]) -> None:
    out = home.parent / "report"
    shown = run(home, "show", report["run_id"], "--out", str(out))
    assert shown.returncode == 0
    assert all(entry["name"] in shown.stdout for entry in report["leaderboard"])
    assert f"Verdict: {report['sentence']}" in shown.stdout
    assert str(out / "report.html") in shown.stdout
    assert {"report.html", "report.json", "equity.png"} <= {path.name for path in out.iterdir()}
    assert json.loads((out / "report.json").read_text())["run_id"] == report["run_id"]


def test_runs_are_listed_newest_first(home: Path, report: dict[str, Any]) -> None:
    rows = answer(run(home, "runs", "--json"))
    (row,) = [row for row in rows if row["run_id"] == report["run_id"]]
    assert row["status"] == "finished"
    assert row["dataset"] == "mine"
    assert row["trials"] == TRIALS
    assert row["question"] == "Is there a short-horizon reversal?"
    table = run(home, "runs", "--limit", "1")
    assert report["run_id"] in table.stdout


def test_plan_tells_people_how_it_gets_on_and_keeps_results_apart(home: Path, dataset: dict[str, Any]) -> None:
    done = run(home, "plan", "Is there momentum?", "--dataset", "mine", "--trials", "2", "--planner", "rules")
    assert done.returncode == 0
    assert "Verdict: " in done.stdout
    assert "planned: Propose momentum" in done.stderr
    assert "planned:" not in done.stdout


def test_backtest_writes_a_report_and_counts_as_a_trial(home: Path, dataset: dict[str, Any], report: dict[str, Any]) -> None:
    out = home.parent / "one"
    options = ("--dataset", "mine", "--holding", "5", "--commission-bps", "2", "--out", str(out))
    first = answer(run(home, "backtest", "-rank(ts_sum(returns, 3))", *options, "--json"))
    assert (first["dataset"], first["holding_bars"]) == ("mine", 5)
    assert first["n_trials_ledger"] > TRIALS
    assert first["evidence"].startswith("deflated Sharpe ratio")
    assert first["report"] == str(out / "report.html")
    saved = json.loads((out / "report.json").read_text())
    assert saved["config"]["commission_bps"] == 2.0
    assert saved["figures"]["sharpe"]["value"] == first["metrics"]["sharpe"]
    text = run(home, "backtest", first["name"], *options)
    assert text.returncode == 0
    assert "Deflated Sharpe ratio" in text.stdout
    assert f"Report: {out / 'report.html'}" in text.stdout
    shown = run(home, "show", first["run_id"])
    assert shown.returncode == 1
    assert "is a single backtest" in shown.stderr


def test_backtest_refuses_what_it_cannot_read_with_the_remedy(home: Path, dataset: dict[str, Any]) -> None:
    unknown = run(home, "backtest", "reversl", "--dataset", "mine")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "aqf: unknown field `reversl` at column 0 (did you mean reversal_5?)" in unknown.stderr
    ahead = run(home, "backtest", "delay(close, -1) / close", "--dataset", "mine")
    assert ahead.returncode == 1
    assert "aqf: " in ahead.stderr
    assert "Traceback" not in ahead.stderr


def test_doctor_says_which_store_is_in_force_and_that_the_ledger_is_whole(home: Path, report: dict[str, Any]) -> None:
    found = answer(run(home, "doctor", "--json"))
    assert found["store"] == "embedded"
    assert found["store_reason"] == "neither AQF_DATABASE_URL nor SUPABASE_URL is set"
    assert found["home"] == str(home)
    assert found["ledger"] == "whole"
    assert found["trials"] >= TRIALS
    assert found["schema"].isdigit()
    assert {"numpy", "langgraph", "vectorbt"} <= found["packages"].keys()
    assert (found["trade_log"], found["knowledge"]) == ("Postgres, table trades", "pgvector, table knowledge_documents")
    assert (found["embedder"], found["embedder_reason"]) == ("hashed-ngrams-1", "OPENAI_API_KEY is not set")
    assert (found["documents"], found["documents_of_other_embedders"]) == (0, 0)
    text = run(home, "doctor")
    assert text.returncode == 0
    assert re.search(r"^ledger +whole$", text.stdout, re.MULTILINE)


def test_doctor_names_the_files_of_a_store_without_a_database(tmp_path: Path) -> None:
    need_chroma()
    home = tmp_path / "home"
    found = answer(aqf(home, "doctor", "--json", AQF_STORE="sqlite", AQF_TEXT_EMBEDDER="hashed"))
    assert found["store"] == "sqlite"
    assert found["store_reason"] == "AQF_STORE is sqlite: the trading side alone, in files"
    assert found["trade_log"] == f"SQLite {home / 'data' / 'trade_log.db'}"
    assert found["knowledge"] == f"Chroma {home / 'data' / 'chroma'}"
    assert (found["embedder"], found["embedder_reason"]) == ("hashed-ngrams-1", "AQF_TEXT_EMBEDDER is set")
    assert (found["documents"], found["documents_of_other_embedders"]) == (0, 0)
    assert "ledger" not in found
    assert not (home / "postgres").exists()


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (("runs",), 1, "AQF_STORE=sqlite keeps the trade log and the knowledge base in files"),
        (("plan", "Is there momentum?", "--planner", "rules"), 1, "take AQF_STORE away"),
        (("db", "up"), 2, "AQF_STORE=sqlite does without a database"),
        (("db", "url"), 1, "AQF_STORE=sqlite does without a database"),
        (("db", "status"), 1, "take AQF_STORE away"),
        (("db", "backup", "x.aqf"), 1, "take AQF_STORE away"),
    ],
)
def test_what_needs_a_database_says_so_where_there_are_only_files(
    tmp_path: Path, command: tuple[str, ...], code: int, said: str
) -> None:
    need_chroma()
    done = aqf(tmp_path / "home", *command, AQF_STORE="sqlite")
    assert done.returncode == code
    assert said in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert not (tmp_path / "home" / "postgres").exists()


def test_a_home_is_backed_up_and_restored_by_hand(home: Path, report: dict[str, Any], tmp_path: Path) -> None:
    made = answer(run(home, "db", "backup", str(tmp_path / "x.aqf"), "--json"))
    assert made["rows"]["public.trials"] > 0
    restored = answer(run(home, "db", "restore", str(tmp_path / "x.aqf"), "--json"))
    assert restored["rows"] == made["rows"]
    assert restored["kept"].startswith("before_restore_")
    assert answer(run(home, "doctor", "--json"))["ledger"] == "whole"


def test_db_status_names_migrations_indexes_and_no_slow_statements_without_their_extension(home: Path) -> None:
    found = answer(run(home, "db", "status", "--json"))
    assert found["pending"] == []
    assert "20240901004000" in found["migrations"]
    assert "signal_embeddings_hnsw" in [row["index_name"] for row in found["indexes"] if row["is_valid"]]
    assert found["slow_statements"] == []


def test_db_status_counts_rows(home: Path, report: dict[str, Any]) -> None:
    rows = {row["table_name"]: row["n_rows"] for row in answer(run(home, "db", "status", "--json"))["tables"]}
    assert rows["trials"] >= TRIALS
    assert rows["market_bars"] >= 12 * 1_500
    assert answer(run(home, "db", "migrate", "--json")) == {"applied": []}


def test_the_server_goes_up_says_where_it_is_and_goes_down(place: Path) -> None:
    home = place / "a home of its own"
    down = aqf(home, "db", "url")
    assert down.returncode == 1
    assert down.stderr == "aqf: the embedded database is not running: `aqf db up` starts it.\n"
    up = aqf(home, "db", "up")
    assert up.returncode == 0
    assert up.stdout.startswith("host=/")
    assert aqf(home, "data", "list").returncode == 0
    assert aqf(home, "db", "url").stdout == up.stdout
    assert aqf(home, "db", "down").stdout == "stopped\n"
    assert aqf(home, "db", "down").stdout == "it was not running\n"
    assert aqf(home, "db", "url").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plann"], "No such command 'plann'"),
        (["plan"], "Missing argument 'QUESTION'"),
        (["plan", "x", "--trials", "0"], "'--trials': 0 is not in the range"),
        (["plan", "x", "--planner", "magic"], "'magic' is not one of"),
        (["backtest"], "Missing argument 'NAME|EXPRESSION'"),
        (["backtest", "close", "--holding", "0"], "'--holding': 0 is not in the range"),
        (["backtest", "close", "--fill", "vwap"], "'vwap' is not one of"),
        (["runs", "--nope"], "No such option"),
        (["calibrate", "--edge", "much"], "must be a number or none, was much"),
        (["calibrate", "--market-style", "baroque"], "'baroque' is not one of"),
        (["calibrate", "--edge", "nan"], "must be a number or none, was nan"),
        (["data", "import", "x.csv"], "Missing option '--name'"),
        (["data", "import", "x.csv", "--name", "x", "--sealed-from", "soon"], "'soon' does not match the format"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = aqf(tmp_path / "home", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("aqf: ")
    assert said in line
    assert line.endswith("--help`.")
    assert not (tmp_path / "home").exists()


def test_the_version_names_release_and_commit(tmp_path: Path) -> None:
    done = aqf(tmp_path / "home", "--version")
    assert done.returncode == 0
    assert re.fullmatch(r"aqf \d+\.\d+\.\d+(\+g[0-9a-f]{12})?\n", done.stdout)


def test_a_bare_command_shows_its_help(tmp_path: Path) -> None:
    done = aqf(tmp_path / "home")
    assert done.returncode == 2
    assert "aqf demo" in done.stderr


def test_a_reader_that_closes_early_is_no_fault(home: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$0" -m aqf data list | true', sys.executable],
        env=environment(home, AQF_KEEP_SERVER="1"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
