"""`aqf trade`: rounds on a paper account, replays, halts that every process sees, and the daily report."""

import csv
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agents.brokers.broker import Account
from agents.brokers.paper import PaperBroker
from aqf.cli import aqf as command
from core.errors import AQFError, BrokerUnavailableError
from core.store.opening import Store
from core.store.trading_lock import trading_alone
from tests.conftest import make_reachable_folder, sweep

REPLAYS = Path(__file__).resolve().parents[1] / "replay"

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home in which replays keep their server running, so that not every test starts one."""
    folder = make_reachable_folder()
    yield folder / "home"
    sweep(folder)


@pytest.fixture
def run(database: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process, over a database of the test's own."""
    monkeypatch.setenv("AQF_HOME", str(home))
    monkeypatch.setenv("AQF_DATABASE_URL", database)
    monkeypatch.setenv("AQF_KEEP_SERVER", "true")

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(command, ["trade", *arguments])

    return invoke


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    """Ninety daily closes that end yesterday, with a calm VIX and a market that stands still."""
    days = [datetime.now(UTC).date() - timedelta(days=age) for age in range(90, 0, -1)]
    lines = [f"{name},{day},{price}" for name, price in (("AAPL", 200), ("^VIX", 18), ("^GSPC", 5000)) for day in days]
    path = tmp_path / "prices.csv"
    path.write_text("symbol,ts,close\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def news(tmp_path: Path) -> Path:
    """One item of good news, published just now."""
    path = tmp_path / "news.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["headline", "published_at", "category", "urgency", "tickers"])
        at = datetime.now(UTC) - timedelta(minutes=1)
        writer.writerow(["AAPL signs a contract", at.isoformat(), "partnership", "high", "AAPL"])
    return path


def test_without_lists_everything_is_refused_and_says_what_bound(run: Run, prices: Path, news: Path, tmp_path: Path) -> None:
    done = run("--once", "--data", str(prices), "--news", str(news), "--lists", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert "1 signals decided" in done.stdout
    assert "hades: sanctions_list_missing" in done.stdout


def test_a_round_orders_and_the_next_tells_of_it(run: Run, prices: Path, news: Path) -> None:
    begun = ("--once", "--data", str(prices), "--news", str(news), "--fictitious-lists", "--json")
    first = run(*begun)
    assert first.exit_code == 0, first.output
    told = json.loads(first.stdout)
    assert (told["equity"], told["broker_reachable"]) == (250_000.0, True)
    (trace,) = told["traces"]
    assert (trace["symbol"], trace["status"], trace["binding_constraint"]) == ("AAPL", "submitted", "seniority_cap")
    assert json.loads(run(*begun).stdout)["traces"] == []

    status = json.loads(run("status", "--json").stdout)
    assert [order["symbol"] for order in status["open_orders"] if order["side"] == "buy"] == ["AAPL"]
    assert status["last_decision"]["symbol"] == "AAPL"
    said = run("status").stdout
    assert "equity 250,000.00" in said
    assert "0 positions, 1 entry and 2 exits that may fill" in said
    assert "AAPL submitted seniority_cap" in said
    assert run("positions").stdout == "Nothing is held.\n"


def test_what_is_not_kept_of_a_source_is_said_with_the_reasons(run: Run, prices: Path, news: Path) -> None:
    at = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    rows = [f"plant {n} halts,{at},supply_chain,low,AAPL" for n in range(7)]
    rows += [f"plant {n} halts,{at},gossip,high,AAPL" for n in (7, 8)]
    rows += [f"A,{at},macro,dire,AAPL", f"B,{at},macro,high,", "C,yesterday,macro,high,AAPL"]
    news.write_text(news.read_text() + "\n".join(rows) + "\n")
    told = run("--once", "--data", str(prices), "--news", str(news), "--fictitious-lists").stdout
    assert told.splitlines()[2:] == [
        "     12  of news dropped:",
        "             7  its urgency is low.",
        "             2  `category` must be one of supply_chain, pricing, regulatory, earnings, layoffs, macro, acquisition, "
        "funding, product, partnership, other, was 'gossip'.",
        "             1  line 12: `urgency` must be one of low, medium, high, was 'dire'.",
        "                and 2 more",
    ]
    news.write_text(news.read_text() + f"\x1b[2Jplant,{at},a\x1b[2J,high,AAPL\n")
    told = run("--once", "--data", str(prices), "--news", str(news), "--fictitious-lists", "--json").stdout
    dropped = {one["reason"]: one for one in json.loads(told)["dropped"]}
    assert {one["source"] for one in dropped.values()} == {"news"}
    assert (dropped["its urgency is low."]["n"], len(dropped["its urgency is low."]["keys"])) == (7, 5)
    assert sum(one["n"] for one in dropped.values()) == 13


def test_stale_packaged_prices_trade_nothing(run: Run, news: Path) -> None:
    done = run("--once", "--news", str(news), "--fictitious-lists")
    assert done.exit_code == 0, done.output
    assert "artemis: macro_unavailable" in done.stdout


def test_a_halt_outlives_the_command_and_stops_the_next_round(run: Run, prices: Path, news: Path) -> None:
    assert run("halt", "--reason", "a look").stdout == "all halted.\n"
    assert run("halt", "--reason", "another look").stdout == "all was halted already, for its first reason.\n"
    assert "by operator: a look" in run("status").stdout
    done = run("--once", "--data", str(prices), "--news", str(news), "--fictitious-lists")
    assert "limits: halted" in done.stdout
    assert run("resume").stdout == "all resumed.\n"
    assert run("resume").stdout == "all was not halted.\n"
    assert json.loads(run("halt", "--symbol", "aapl", "--reason", "x", "--json").stdout) == {
        "scope": "symbol:AAPL",
        "changed": True,
        "halted": True,
    }
    assert "halted symbol:AAPL" in run("status").stdout


def test_two_rounds_at_once_are_one_round_and_a_refusal(run: Run, prices: Path, news: Path, store: Store) -> None:
    arguments = ("--once", "--data", str(prices), "--news", str(news), "--fictitious-lists")
    with trading_alone(store):
        refused = run(*arguments)
        assert isinstance(refused.exception, AQFError)
        assert "trades on this store" in str(refused.exception)
        assert run("status").exit_code == 0
    assert store.trading.gateway.select("order_intents") == []
    assert "1 signals decided" in run(*arguments).stdout


def test_a_report_is_written_even_before_anything_happened(run: Run, tmp_path: Path) -> None:
    done = run("report", "--out", str(tmp_path / "report"), "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["n_decisions"], told["portfolio"]) == (0, None)
    assert "Not begun" in (tmp_path / "report" / "daily-report.html").read_text()
    assert run("status").stdout.startswith("The account was never valued")


def test_a_replay_that_ends_as_expected_prints_its_confusion_and_succeeds(run: Run) -> None:
    done = run("replay", str(REPLAYS / "market.csv"))
    assert done.exit_code == 0, done.output
    assert "16 of 16 rows ended as expected." in done.stdout
    assert "artemis bear_regime" in done.stdout


def test_a_replay_that_differs_fails_and_names_the_line(run: Run, tmp_path: Path) -> None:
    text = (REPLAYS / "market.csv").read_text().replace("artemis,bear_regime", "filled,seniority_cap")
    (tmp_path / "rows.csv").write_text(text)
    done = run("replay", str(tmp_path / "rows.csv"))
    assert done.exit_code == 1
    assert "15 of 16 rows ended as expected." in done.stdout
    assert "line 10, a bear market and a VIX above 25: artemis bear_regime" in done.stdout
    lines = run("replay", str(tmp_path / "rows.csv"), "--json")
    assert lines.exit_code == 1
    traces = [json.loads(line) for line in lines.stdout.splitlines()]
    assert len(traces) == 16
    assert [trace["signal_id"] for trace in traces if not trace["matches"]] == ["a bear market and a VIX above 25"]


def test_a_row_that_cannot_be_judged_fails_with_its_line_and_the_others_are_judged(run: Run, tmp_path: Path) -> None:
    head, *rows = (REPLAYS / "market.csv").read_text().splitlines()
    naive = rows[1].replace("T15:30:00+00:00", "T15:30:00")
    (tmp_path / "rows.csv").write_text("\n".join([f"{head},mood", rows[0], naive, rows[0], ""]))
    done = run("replay", str(tmp_path / "rows.csv"), "--sizing", "probation")
    assert done.exit_code == 1
    assert "2 of 2 rows ended as expected." in done.stdout
    assert "line 3, the VIX is not known: not judged, `now` must be a time with its offset" in done.stderr
    assert "1 of 3 rows could not be judged." in done.stderr
    assert "note: columns that a replay does not know are ignored: mood." in done.stderr
    assert done.stderr.count("each row is judged alone") == 1
    lines = run("replay", str(tmp_path / "rows.csv"), "--json")
    assert (lines.exit_code, [json.loads(line)["matches"] for line in lines.stdout.splitlines()]) == (1, [True, True])


def test_a_replay_with_lists_of_ones_own_screens_with_them(run: Run, tmp_path: Path) -> None:
    done = run("replay", str(REPLAYS / "market.csv"), "--lists", str(tmp_path))
    assert done.exit_code == 1
    assert "0 of 16 rows ended as expected." in done.stdout


def test_bad_rows_are_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    done = run("replay", str(tmp_path / "rows.csv"))
    assert isinstance(done.exception, AQFError)
    assert "\n" not in str(done.exception)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--once", "--loop", "900"),
        ("--loop", "0"),
        ("--once", "status"),
        ("halt",),
        ("--sizing", "bold", "--once"),
        ("--once", "--news", "not/there.csv"),
        ("--once", "--news", "."),
        ("--once", "--lists", "not/there"),
        ("replay", str(REPLAYS / "market.csv"), "--lists", "not/there"),
        ("halt", "--reason", " "),
        ("halt", "--reason", "x", "--symbol", ""),
        ("halt", "--reason", "x", "--symbol", " "),
        ("halt", "--reason", "x", "--symbol", "A B"),
        ("resume", "--symbol", "A\tB"),
    ],
)
def test_wrong_usage_ends_with_two(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith(("Error: ", "error: "))


def test_a_round_whose_broker_does_not_answer_says_so_and_fails(
    run: Run, prices: Path, news: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_away(broker: PaperBroker) -> Account:
        raise BrokerUnavailableError("away")

    arguments = ("--once", "--data", str(prices), "--news", str(news), "--fictitious-lists", "--json")
    with monkeypatch.context() as patched:
        patched.setattr(PaperBroker, "get_account", be_away)
        done = run(*arguments)
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert (told["broker_reachable"], told["equity"]) == (False, None)
    assert "the broker does not answer: away" in done.stderr
    assert run(*arguments).exit_code == 0


def test_nothing_of_a_replay_is_in_the_store(run: Run, store: Store) -> None:
    run("replay", str(REPLAYS / "dated_lists.csv"))
    assert store.trading.list_decision_traces() == []
