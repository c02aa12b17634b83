import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agents.research.request import Budget
from agents.research.runner import ResearchContext
from agents.trading.direction import is_negative
from backtest.markets import no_edge
from core.clock import SystemClock
from core.errors import MissingDataError
from core.market.panel import Panel
from core.settings import Settings
from core.store.opening import Store
from core.store.records import Dataset
from features import parse
from use_cases.equity_momentum.pipeline import LABEL_HORIZON, EquityMomentum

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["momentum_12_1", "momentum_12_1_per_risk", "high_52_weeks"]


@pytest.fixture
def context(store: Store, tmp_path: Path) -> ResearchContext:
    return ResearchContext(settings=Settings(home=tmp_path), store=store, clock=SystemClock())


@pytest.fixture
def dataset(context: ResearchContext) -> Dataset:
    panel = no_edge(seed=4, n_assets=6, n_bars=900, with_volume=False)
    return context.store.service.import_dataset(panel, name="stocks", source="backtest.markets")


@pytest.fixture
def case() -> EquityMomentum:
    return EquityMomentum("stocks")


def test_it_finds_its_data_in_the_store_or_says_what_there_is(context: ResearchContext, dataset: Dataset) -> None:
    assert EquityMomentum("stocks").ingest(context) == dataset
    with pytest.raises(MissingDataError, match=r"unknown data set 'stock'. Did you mean stocks\?"):
        EquityMomentum("stock").ingest(context)


def test_it_brings_its_own_data_when_the_store_is_empty(context: ResearchContext) -> None:
    dataset = EquityMomentum().ingest(context)
    assert (dataset.name, len(dataset.symbols), dataset.version) == ("sp500_20", 20, 1)
    assert any("survivorship" in caveat for caveat in dataset.caveats)


def test_a_label_is_the_return_of_the_next_month_and_is_known_before_the_seal(
    context: ResearchContext, dataset: Dataset, case: EquityMomentum
) -> None:
    count = case.label(context, dataset)
    rows = context.store.service.gateway.select("labels", where={"dataset_id": dataset.dataset_id})
    panel = context.store.researcher.load_panel(dataset)
    assert len(rows) == count
    assert max(row["horizon_end"] for row in rows) < dataset.sealed_from
    firsts = {row["ts"] for row in rows}
    assert len({(ts.year, ts.month) for ts in firsts}) == len(firsts) == count / 6
    for row in rows[::37]:
        bar = panel.index.get_loc(row["ts"])
        close = panel.close[:, panel.symbols.index(row["symbol"])]
        assert row["name"] == f"forward_return_{LABEL_HORIZON}"
        assert row["horizon_end"] == panel.index[bar + 1 + LABEL_HORIZON].to_pydatetime() < dataset.sealed_from
        assert row["value"] == pytest.approx(close[bar + 1 + LABEL_HORIZON] / close[bar + 1] - 1.0, rel=1e-12)


def test_labelling_twice_changes_nothing(context: ResearchContext, dataset: Dataset, case: EquityMomentum) -> None:
    select = context.store.service.gateway.select
    first = case.label(context, dataset)
    before = select("labels", order=("symbol", "ts"))
    assert case.label(context, dataset) == first
    assert select("labels", order=("symbol", "ts")) == before


def test_its_features_are_momentum_by_hand(context: ResearchContext, dataset: Dataset, case: EquityMomentum) -> None:
    panel = context.store.researcher.load_panel(dataset)
    values = case.compute_features(panel)
    assert list(values) == NAMES
    bar, close = 400, panel.close
    momentum = close[bar - 21] / close[bar - 252] - 1.0
    np.testing.assert_allclose(values["momentum_12_1"][bar], momentum, rtol=1e-12)
    spread = panel.returns()[bar - 125 : bar + 1].std(axis=0, ddof=1)
    np.testing.assert_allclose(values["momentum_12_1_per_risk"][bar], momentum / spread, rtol=1e-9)
    np.testing.assert_allclose(values["high_52_weeks"][bar], close[bar] / close[bar - 251 : bar + 1].max(axis=0), rtol=1e-12)
    assert np.isnan(values["momentum_12_1"][251]).all()
    assert np.isfinite(values["momentum_12_1"][252]).all()


def test_it_runs_from_its_data_to_a_report_with_its_own_ideas_first(
    context: ResearchContext, dataset: Dataset, case: EquityMomentum
) -> None:
    seen = []
    report = case.run(context, budget=Budget(trials=5), planner="rules", seed=3, on_event=seen.append)
    assert report.question == case.question()
    assert report.n_trials == 5
    in_order = [finding.name for finding in sorted(report.findings, key=lambda finding: finding.trial_id)]
    assert in_order[:3] == NAMES
    assert {finding.family for finding in report.findings} == {"momentum"}
    assert report.config["seed"] == 3
    assert seen[-1].kind == "reported"
    assert context.store.service.gateway.select("labels", columns=("name",), limit=1)


def test_its_request_carries_its_ideas(dataset: Dataset, case: EquityMomentum) -> None:
    request = case.build_request(dataset, seed=9)
    assert (request.dataset, request.seed, request.question) == ("stocks", 9, case.question())
    assert [candidate.name for candidate in request.candidates] == NAMES
    assert all(parse(candidate.expression).fields == {"close"} for candidate in request.candidates)
    assert case.describe() == {"name": "equity_momentum", "question": case.question(), "candidates": NAMES, "plugins": []}


def test_it_runs_as_a_command(context: ResearchContext, dataset: Dataset, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "use_cases.equity_momentum.pipeline", "--trials", "3", "--dataset", "stocks"],
        env={**os.environ, "AQF_HOME": str(tmp_path), "AQF_DATABASE_URL": context.store.conninfo},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ingested stocks: 900 bars x 6 symbols, sealed from ")
    assert lines[1].startswith("labelled ")
    assert lines[2] == f"computed {', '.join(NAMES)}"
    assert f"# {EquityMomentum().question()}" in lines
    (run,) = context.store.service.list_runs()
    assert run.usage["trials"] == 3


def test_the_command_refuses_in_one_line(context: ResearchContext, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "use_cases.equity_momentum.pipeline", "--dataset", "nothing"],
        env={**os.environ, "AQF_HOME": str(tmp_path), "AQF_DATABASE_URL": context.store.conninfo},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: unknown data set 'nothing'")


# What it tells the traders


def trending(n_bars: int, **yearly: float) -> Panel:
    """Weekday bars of symbols that grow by a constant rate a year."""
    index = pd.bdate_range("2022-01-03 21:00", periods=n_bars, tz="UTC")
    growth = np.array([[(1.0 + rate) ** (bar / 252) for rate in yearly.values()] for bar in range(n_bars)])
    return Panel(index=index, symbols=tuple(yearly), close=100.0 * growth, name="trending")


def test_the_leaders_are_told_at_the_first_bar_of_a_week(case: EquityMomentum) -> None:
    panel = trending(300, AAA=0.3, BBB=0.2, CCC=0.1, DDD=0.05, EEE=-0.1, FFF=-0.2)
    monday = panel.index[295].to_pydatetime()
    assert monday.weekday() == 0
    told = case.raw_signals(monday, panel=panel)
    assert [signal.affected_tickers for signal in told] == [("AAA",), ("BBB",), ("CCC",)]
    assert not any(is_negative(signal) for signal in told)
    # From 252 bars before to 21 bars before.
    assert f"{1.3 ** (231 / 252) - 1.0:+.1%}" in told[0].headline
    assert all(signal.published_at == monday for signal in told)
    assert case.raw_signals(monday, panel=panel) == told
    for other in (294, 296, 297, 298, 299):
        assert case.raw_signals(panel.index[other].to_pydatetime(), panel=panel) == []
    assert case.raw_signals(monday + timedelta(hours=1), panel=panel) == []
    assert case.raw_signals(panel.index[200].to_pydatetime(), panel=panel) == []


def test_who_falls_out_of_the_better_half_is_advised_against(case: EquityMomentum) -> None:
    panel = trending(300, AAA=0.3, BBB=0.2, CCC=0.1, DDD=0.05, EEE=-0.1, FFF=-0.2)
    close = panel.close.copy()
    close[274, 1] = 50.0  # the bar that the ranking of Monday, the 295th, ends at
    told = case.raw_signals(panel.index[295].to_pydatetime(), panel=panel.replace(close=close))
    fallen = [signal for signal in told if is_negative(signal)]
    assert [signal.affected_tickers for signal in fallen] == [("BBB",)]
    assert "loses" in fallen[0].headline


def test_a_loser_is_never_a_leader(case: EquityMomentum) -> None:
    panel = trending(300, AAA=-0.1, BBB=-0.2, CCC=-0.3, DDD=-0.4)
    assert case.raw_signals(panel.index[295].to_pydatetime(), panel=panel) == []


def test_what_is_told_at_a_bar_does_not_depend_on_later_ones(case: EquityMomentum) -> None:
    panel = no_edge(seed=9, n_assets=8, n_bars=400, with_volume=False)
    for bar in range(300, 330):
        at = panel.index[bar].to_pydatetime()
        assert case.raw_signals(at, panel=panel) == case.raw_signals(at, panel=panel.slice(0, bar + 1))
