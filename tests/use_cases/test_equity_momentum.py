import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agents.research.request import Budget
from agents.research.runner import ResearchContext
from backtest.markets import no_edge
from core.clock import SystemClock
from core.errors import MissingDataError
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
