"""`aqf trade --use-case`: a use case tells the live desk of its own prices."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agents.trading.expectations import find_expectation
from core.errors import ConfigurationError
from core.store.opening import Store
from tests.aqf.test_trade_command import Run, home, run

__all__ = ["home", "run"]

SOURCE = "use_case:equity_momentum"
YEARLY = {"AAPL": 5.0, "MSFT": 4.0, "KO": 3.0, "PEP": 2.0, "WMT": 0.9}


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    """Closes of five of the stocks on the last 420 days, which rise by a factor each year, in a market that stands still."""
    days = [datetime.now(UTC).date() - timedelta(days=age) for age in range(420, 0, -1)]
    lines = [f"{name},{day},{100 * rate ** (bar / 365):.6f}" for name, rate in YEARLY.items() for bar, day in enumerate(days)]
    lines += [f"{name},{day},{level}" for name, level in (("^VIX", 14), ("^GSPC", 5000)) for day in days]
    path = tmp_path / "prices.csv"
    path.write_text("symbol,ts,close\n" + "\n".join(lines) + "\n")
    return path


def test_its_leaders_are_decided_on_once_and_something_is_expected_of_them(run: Run, prices: Path, store: Store) -> None:
    once = ("--once", "--use-case", "equity_momentum", "--use-case", "equity_momentum", "--data", str(prices))
    first = run(*once, "--fictitious-lists", "--json")
    assert first.exit_code == 0, first.output
    traces = json.loads(first.stdout)["traces"]
    assert sorted((trace["symbol"], trace["status"]) for trace in traces) == [
        ("AAPL", "submitted"), ("KO", "submitted"), ("MSFT", "submitted"),
    ]  # fmt: skip
    assert set(store.trading.find_sources([trace["signal_id"] for trace in traces]).values()) == {SOURCE}
    assert json.loads(run(*once, "--fictitious-lists", "--json").stdout)["traces"] == []
    expected = find_expectation(store.service, SOURCE)
    assert expected is not None
    # Each is sold at the first close at 6 % or above, so that little more is earned, less ten basis points.
    assert 0.059 < expected.return_per_trade < 0.07
    assert expected.last < datetime.now(UTC) - timedelta(days=7)


def test_without_prices_the_round_goes_on_and_says_why(run: Run) -> None:
    done = run("--once", "--use-case", "equity_momentum", "--fictitious-lists")
    assert done.exit_code == 0, done.output
    assert f"{SOURCE} cannot be read: none of AAPL, AMD, BAC ... has a bar as of" in done.stderr
    assert "0 signals decided" in done.stdout


@pytest.mark.parametrize(
    ("name", "said"), [("momentum", "no use case 'momentum'"), ("supplier_disruption", "an invented replay that has ended")]
)
def test_what_cannot_be_traded_live_is_refused_before_anything_is_opened(
    name: str, said: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQF_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    done = run("--once", "--use-case", name)
    assert isinstance(done.exception, ConfigurationError)
    assert said in str(done.exception)
