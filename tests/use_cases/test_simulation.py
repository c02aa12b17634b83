"""A simulation goes through the one pipeline, never behind the seal, and goes on where it was killed."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from core.errors import DataError, MissingDataError
from core.market import load_dataset
from core.settings import Settings
from core.store.rehearsal import side_store
from core.types import RawSignal
from tests.conftest import make_reachable_folder, sweep
from use_cases.equity_momentum.pipeline import EquityMomentum, main
from use_cases.simulation import Simulation, SimulationPlan, report_folder, simulate

PLAN = SimulationPlan(begin=datetime(2016, 3, 28, tzinfo=UTC), end=datetime(2016, 4, 29, tzinfo=UTC), cash=250_000.0)
N_BARS = 25


class Killed(Exception):
    """Stands for a process that dies."""


class Mortal(EquityMomentum):
    """Momentum that dies when it is asked for the n-th time within the simulation."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.left = n

    def raw_signals(self, as_of: datetime, **more: Any) -> list[RawSignal]:
        if as_of >= (PLAN.begin or as_of):
            self.left -= 1
            if self.left == 0:
                raise Killed
        return super().raw_signals(as_of, **more)


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    folder = make_reachable_folder()
    yield Settings(home=folder / "home", keep_server=True)
    sweep(folder)


@pytest.fixture(scope="module")
def killed_and_resumed(settings: Settings) -> Simulation:
    """A simulation that died three times: before the signals of a bar, and between the orders of another and the next bar."""
    for n in (1, 8, 5):
        with pytest.raises(Killed):
            simulate(Mortal(n), PLAN, settings)
    return simulate(EquityMomentum(), PLAN, settings)


@pytest.fixture(scope="module")
def uninterrupted(settings: Settings, killed_and_resumed: Simulation) -> Simulation:
    """The same in a database of its own: a proxy for a VIX that is there all the time changes nothing."""
    whole = SimulationPlan(begin=PLAN.begin, end=PLAN.end, cash=PLAN.cash, proxy_vix=True)
    return simulate(EquityMomentum(), whole, settings)


def figures(found: Simulation) -> dict[str, Any]:
    """Return all that does not name a row of the database or tell the time of this machine."""
    report = found.report.to_dict()
    decisions = [
        (one["signal_id"], one["status"], one["binding_constraint"], one["position_pct"], one["decided_at"], one["pnl_pct"])
        for one in report["decisions"]
    ]
    trades = [(one["symbol"], one["qty"], one["fill_price"], one["exit_price"], one["closed_at"]) for one in report["trades"]]
    plain = {
        name: report[name] for name in ("portfolio", "positions", "kills", "hit_rates", "stats", "n_decisions", "n_ordered")
    }
    return {**plain, "trades": trades, "decisions": sorted(decisions, key=str)}


def test_a_simulation_that_was_killed_ends_as_one_that_was_not(
    killed_and_resumed: Simulation, uninterrupted: Simulation
) -> None:
    assert (killed_and_resumed.resumed, uninterrupted.resumed) == (True, False)
    assert (killed_and_resumed.n_bars, uninterrupted.n_bars) == (N_BARS, N_BARS)
    assert figures(killed_and_resumed) == figures(uninterrupted)
    assert killed_and_resumed.stats.closed_trades > 0


def test_every_signal_is_decided_once_and_the_book_adds_up(settings: Settings, killed_and_resumed: Simulation) -> None:
    panel = load_dataset("sp500_20")
    case, told = EquityMomentum(), 0
    for bar in range(1, panel.n_bars):
        at = panel.index[bar].to_pydatetime()
        if killed_and_resumed.first < at <= killed_and_resumed.last:
            told += len(case.raw_signals(at, since=panel.index[bar - 1].to_pydatetime(), panel=panel))
    assert killed_and_resumed.report.n_decisions == told + len(case.raw_signals(killed_and_resumed.first, panel=panel))
    portfolio = killed_and_resumed.report.portfolio
    assert portfolio is not None
    last = {
        symbol: panel.close[panel.index.searchsorted(killed_and_resumed.last), place]
        for place, symbol in enumerate(panel.symbols)
    }
    held = sum(one.qty * last[one.symbol] for one in killed_and_resumed.report.positions)
    assert portfolio.equity == pytest.approx(portfolio.cash + held)
    ordered = [trace for trace in killed_and_resumed.report.decisions if trace.killed_at_stage is None]
    assert ordered
    assert all((trace.position_pct or 0.0) <= 0.01 for trace in ordered)


def test_outcomes_are_written_beside_what_was_expected(settings: Settings, killed_and_resumed: Simulation) -> None:
    expected = killed_and_resumed.expectation
    assert expected is not None
    with side_store(settings, killed_and_resumed.database) as store:
        rows = store.service.gateway.select("live_performance")
    assert len(rows) == killed_and_resumed.stats.closed_trades
    assert {row["expected_return"] for row in rows} == {expected.return_per_trade}
    assert {row["strategy_id"].split("/")[0] for row in rows} == {"equity_momentum"}


def test_a_second_call_only_reads(settings: Settings, killed_and_resumed: Simulation) -> None:
    class Silent(EquityMomentum):
        def raw_signals(self, as_of: datetime, **more: Any) -> list[RawSignal]:
            assert not PLAN.begin or as_of < PLAN.begin or as_of == killed_and_resumed.last
            return super().raw_signals(as_of, **more)

    again = simulate(Silent(), PLAN, settings)
    assert again.resumed
    assert figures(again) == figures(killed_and_resumed)


def test_the_sealed_bars_are_refused(settings: Settings, killed_and_resumed: Simulation) -> None:
    with pytest.raises(DataError, match="must end before 2016-05-23, where the sealed bars of sp500_20 begin"):
        simulate(EquityMomentum(), SimulationPlan(end=datetime(2016, 5, 23, 21, tzinfo=UTC)), settings)
    with pytest.raises(MissingDataError, match="needs at least 21 bars"):
        simulate(EquityMomentum(), SimulationPlan(begin=datetime(2016, 5, 2, tzinfo=UTC)), settings)


def test_its_report_is_saved_and_says_what_it_is_not(settings: Settings, killed_and_resumed: Simulation) -> None:
    page = killed_and_resumed.report.save(report_folder(settings, EquityMomentum()))
    html = page.read_text(encoding="utf-8")
    assert "It is no evidence of an edge" in html
    assert "<script" not in html
    assert "http" not in html.replace("http-equiv", "")
    names = {path.name for path in page.parent.iterdir()}
    assert names >= {"daily-report.html", "daily-report.json", "equity.png", "drawdown.png", "endings.png", "hit_rates.png"}
    assert json.loads((page.parent / "daily-report.json").read_text())["n_decisions"] == killed_and_resumed.report.n_decisions


def test_the_command_trades_and_refuses_in_one_line(
    settings: Settings, killed_and_resumed: Simulation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AQF_HOME", str(settings.home))
    begun = ["--mode", "trade", "--from", "2016-03-28"]
    done = CliRunner().invoke(main, [*begun, "--until", "2016-04-29", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert f"{N_BARS} bars, 2016-03-28 to 2016-04-29, resumed" in done.output
    assert (tmp_path / "out" / "daily-report.html").is_file()
    late = CliRunner().invoke(main, [*begun, "--until", "2017-01-01"])
    assert late.exit_code == 1
    assert late.output.count("\n") == 2  # the progress line and the error
    assert "must end before 2016-05-23" in late.output
