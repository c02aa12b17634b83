"""Faults on purpose: every refusal is one plain line, nothing is half-written, and what was killed goes on."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.research.request import Budget, Candidate, ResearchRequest
from agents.research.runner import ResearchContext
from agents.research.session import ResearchSession
from agents.tools import build_tools
from backtest.markets import no_edge
from core.clock import SystemClock
from core.errors import ConfigurationError, ToolRetry
from core.settings import Settings
from core.store.opening import Store
from tests.aqf.commands import aqf, start_aqf, write_csv
from tests.conftest import make_reachable_folder, sweep
from use_cases.equity_momentum.pipeline import EquityMomentum

QUESTION = "Is there a short-horizon reversal?"
HEADER = "symbol,ts,open,high,low,close,volume\n"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home with one small data set, `mine`; its server stops with the last command that uses it."""
    folder = make_reachable_folder()
    file = write_csv(no_edge(seed=7, n_assets=5, n_bars=520), folder / "prices.csv")
    done = aqf(folder / "home", "data", "import", str(file), "--name", "mine")
    assert done.returncode == 0, done.stderr
    yield folder / "home"
    sweep(folder)
    shutil.rmtree(folder)


def refusal(done: "subprocess.CompletedProcess[str]") -> str:
    """Return the one line in which a command says no."""
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("aqf: ")
    return line


def listed(home: Path, *command: str) -> Any:
    done = aqf(home, *command, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def counts(home: Path) -> dict[str, int]:
    return {row["table_name"]: row["n_rows"] for row in listed(home, "db", "status")["tables"]}


def server_is_up(home: Path) -> bool:
    return aqf(home, "db", "url").returncode == 0


def interrupt_at(process: "subprocess.Popen[str]", words: str, number: signal.Signals) -> str:
    """Send a signal to a command and its children when it says certain words; return the rest of what it says."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            os.killpg(process.pid, number)
            break
    else:
        raise AssertionError(f"the command never said {words!r}")
    _, rest = process.communicate(timeout=120)
    return rest


# Wrong input


def test_what_does_not_exist_is_named_with_what_does_and_no_run_begins(home: Path) -> None:
    plan = ("plan", QUESTION, "--json", "--planner")
    assert "unknown data set 'mime'. Did you mean mine? There are" in refusal(aqf(home, *plan, "rules", "--dataset", "mime"))
    unknown = refusal(aqf(home, *plan, "rules", "--dataset", "mine", "--symbols", "S98,S00,S99"))
    assert "unknown symbol S98, S99; mine has S00, S01" in unknown
    assert "OPENAI_API_KEY" in refusal(aqf(home, *plan, "llm", "--dataset", "mine"))
    assert listed(home, "runs") == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "the file is empty"),
        (HEADER, "only a header and no bars"),
        ("symbol,ts\nA,2020-01-01\n", "there is no column `close`"),
        (HEADER + "A,2020-01-01,1,1,1,-5,1\n", "line 2"),
        (HEADER + "A,2020-01-01,1,1,1,1,1\n", "at least 60 are needed"),
    ],
    ids=["empty", "header only", "no close", "negative price", "too short"],
)
def test_a_file_that_cannot_be_read_leaves_nothing_behind(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_text(content)
    line = refusal(aqf(tmp_path / "home", "data", "import", str(file), "--name", "broken"))
    assert said in line
    assert "prices.csv" in line
    assert not (tmp_path / "home").exists()


def test_an_import_that_the_database_refuses_leaves_nothing_behind(home: Path) -> None:
    before = counts(home)
    file = str(home.parent / "prices.csv")
    assert "must be 1 to 100 letters, digits" in refusal(aqf(home, "data", "import", file, "--name", "no good!"))
    assert "must lie inside the data" in refusal(
        aqf(home, "data", "import", file, "--name", "x", "--sealed-from", "2031-01-01")
    )
    assert "no such file" in refusal(aqf(home, "data", "import", "gone.csv", "--name", "x")).lower()
    assert counts(home) == before


# Wrong expressions, through a use case and through the planner's tool


class Oracle(EquityMomentum):
    """A use case that brings an idea which cannot be accepted."""

    def __init__(self, expression: str) -> None:
        super().__init__("mine")
        self._expression = expression

    def candidates(self) -> tuple[Candidate, ...]:
        """Return the one idea."""
        return (Candidate(name="oracle", expression=self._expression),)


WRONG = pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("rank(close", r"close"),
        ("close +", r"not a formula"),
        ("delay(close, -1) / close", r"a feature looks back, never ahead"),
        ("ts_mean(close, 0)", r"1"),
        ("rank(clsoe)", r"close"),
        ("__import__('os').system('true')", r""),
    ],
)


@pytest.fixture
def context(store: Store, tmp_path: Path) -> ResearchContext:
    store.service.import_dataset(no_edge(seed=7, n_assets=5, n_bars=520), name="mine", source="test")
    return ResearchContext(settings=Settings(home=tmp_path), store=store, clock=SystemClock())


@WRONG
def test_a_use_case_with_a_wrong_idea_is_refused_before_its_run_begins(
    context: ResearchContext, expression: str, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"^the candidate oracle cannot be tried: .*({said})") as refused:
        Oracle(expression).run(context, budget=Budget(trials=1), planner="rules")
    assert "\n" not in str(refused.value)
    assert context.store.service.list_runs() == []
    assert context.store.service.list_features() == []


@WRONG
def test_the_tool_says_what_is_wrong_with_an_idea_and_registers_nothing(
    context: ResearchContext, expression: str, said: str
) -> None:
    dataset = context.store.service.find_dataset("mine")
    request = ResearchRequest(question=QUESTION, dataset="mine")
    run = context.store.service.create_run(
        run_id=dataset.dataset_id,
        request=request.to_dict(),
        dataset=dataset,
        lineage=request.lineage,
        thread_id="tool",
        planner="llm",
        budget={},
        code_version="test",
    )
    session = ResearchSession(
        store=context.store,
        settings=context.settings,
        clock=context.clock,
        run_id=run.run_id,
        request=request,
        budget=Budget(),
        dataset=dataset,
        panel=context.store.researcher.load_panel(dataset),
    )
    propose = build_tools(session)[0]
    arguments = {"expression": expression, "name": "oracle", "family": "x", "hypothesis": "", "step": 1}
    with pytest.raises(ToolRetry, match=rf"the expression cannot be accepted: .*({said})|mine has no .*({said})") as refused:
        propose.invoke({"name": propose.name, "args": arguments, "id": "call-1", "type": "tool_call"})
    (call,) = context.store.service.list_tool_calls(run.run_id)
    assert call["error"] == str(refused.value)
    assert call["result"] is None
    assert context.store.service.list_features() == []


# Wrong surroundings


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"SUPABASE_SERVICE_ROLE_KEY": "sb_secret_abc"}, "SUPABASE_SERVICE_ROLE_KEY is set but SUPABASE_URL is not"),
        ({"SUPABASE_URL": "https://x.supabase.co"}, "SUPABASE_URL is set but SUPABASE_SERVICE_ROLE_KEY is not"),
        (
            {"SUPABASE_URL": "http://127.0.0.1:1", "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_abc"},
            "the database cannot be reached: http://127.0.0.1:1",
        ),
        ({"AQF_LLM_MAX_RETRIES": "many"}, "max_retries"),
        ({"AQF_DATABASE_URL": "postgresql://nobody:secret_abc@127.0.0.1:1/x"}, "the database cannot be reached"),
        ({"AQF_DATABASE_URL": "no connection string"}, ""),
    ],
)
def test_surroundings_that_cannot_be_used_are_refused_with_the_remedy(
    variables: dict[str, str], said: str, tmp_path: Path
) -> None:
    done = aqf(tmp_path / "home", "doctor", **variables)
    assert said.casefold() in refusal(done).casefold()
    assert "secret_abc" not in done.stderr
    assert not (tmp_path / "home").exists()


def test_a_home_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    for home in (blocked, blocked / "home"):
        line = refusal(aqf(home, "data", "list", "--json"))
        assert f"the data folder {home} cannot be used" in line
        assert "AQF_HOME" in line
    assert blocked.read_text() == "not a folder"


# Deaths, and what is left of them


def test_a_server_that_was_killed_leaves_no_lock_that_blocks(home: Path) -> None:
    before = counts(home)
    up = aqf(home, "db", "up")
    assert up.returncode == 0
    location = home / "postgres" / "location"
    data = (Path(location.read_text().strip()) if location.is_file() else home / "postgres") / "data"
    os.kill(int((data / "postmaster.pid").read_text().splitlines()[0]), signal.SIGKILL)
    assert (data / "postmaster.pid").exists()
    assert counts(home) == before
    assert aqf(home, "db", "down").returncode == 0


def test_an_interrupted_run_says_so_stops_its_server_and_can_be_resumed(home: Path) -> None:
    options = ("--dataset", "mine", "--trials", "80", "--planner", "rules")
    process = start_aqf(home, "plan", QUESTION, *options)
    rest = interrupt_at(process, "planned: Backtest", signal.SIGINT)
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert rest.splitlines()[-1] == (
        "aqf: interrupted; what was done is kept. `aqf runs` names a run of research and `aqf resume` continues it; anything "
        "else is continued by giving the command again."
    )
    assert not server_is_up(home)
    (run,) = listed(home, "runs")
    assert run["status"] == "running"
    assert run["trials"] < 80
    assert run["started_at"] < run["last_step_at"]
    assert listed(home, "resume", run["run_id"][:8])["n_trials"] == 80
    assert [row["status"] for row in listed(home, "runs")] == ["finished"]


def test_two_runs_side_by_side_share_one_ledger(home: Path) -> None:
    before = listed(home, "doctor")["trials"]
    options = ("--dataset", "mine", "--trials", "9", "--planner", "rules", "--json")
    processes = [start_aqf(home, "plan", question, *options) for question in ("Is there momentum?", "Is there a trend?")]
    reports = []
    for process in processes:
        out, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
        reports.append(json.loads(out))
    assert [report["n_trials"] for report in reports] == [9, 9]
    assert reports[0]["run_id"] != reports[1]["run_id"]
    after = listed(home, "doctor")
    assert after["trials"] == before + 18
    assert after["ledger"] == "whole"
    assert not server_is_up(home)


def test_two_homes_side_by_side_know_nothing_of_each_other(place: Path) -> None:
    processes = []
    for number, seed in enumerate((1, 2)):
        file = write_csv(no_edge(seed=seed, n_assets=4, n_bars=100), place / f"prices-{number}.csv")
        processes.append(start_aqf(place / f"home-{number}", "data", "import", str(file), "--name", f"mine-{number}", "--json"))
    for process in processes:
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
    for number in (0, 1):
        assert [row["name"] for row in listed(place / f"home-{number}", "data", "list")["stored"]] == [f"mine-{number}"]


def test_a_demo_that_was_killed_is_found_and_finished(place: Path) -> None:
    home = place / "home"
    process = start_aqf(home, "demo", "--quick")
    interrupt_at(process, "planned: Backtest", signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    (run,) = listed(home, "runs")
    assert (run["status"], run["dataset"]) == ("running", "sp500_20")
    assert run["trials"] is not None
    report = listed(home, "resume", run["run_id"])
    assert report["n_trials"] == 40
    assert len({entry["expression"] for entry in report["leaderboard"]}) == 40
    found = listed(home, "doctor")
    assert (found["trials"], found["ledger"]) == (40, "whole")
