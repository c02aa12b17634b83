"""A use case that brings a feature written in Python: found by the registry, computed, and sent through the planner."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import use_cases
from agents.research.request import Budget
from agents.research.runner import ResearchContext
from backtest.markets import no_edge
from core.clock import SystemClock
from core.errors import ConfigurationError
from core.settings import Settings
from core.store.opening import Store
from use_cases import load_all_plugins, load_use_case, registry

PIPELINE = """
from agents.research.request import Candidate
from features import FunctionFeature
from use_cases.equity_momentum.pipeline import EquityMomentum

BODY = FunctionFeature(
    name="candle_body",
    version="1",
    hypothesis="Strong closes go on.",
    lookback=0,
    columns=frozenset({"open", "close"}),
    function=lambda panel: panel.close / panel.open - 1.0,
)


class Candles(EquityMomentum):
    name = "candles"

    def __init__(self):
        super().__init__("stocks")

    def plugin_features(self):
        return (BODY,)

    def candidates(self):
        return (
            Candidate(name="body", plugin="candle_body", family="candles", hypothesis=BODY.hypothesis),
            Candidate(name="fade", expression="-returns"),
        )
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with one use case, found in place of the ones that ship."""
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "registry.py"))
    monkeypatch.setattr(use_cases, "__path__", [*use_cases.__path__, str(tmp_path)])
    (tmp_path / "candles").mkdir()
    (tmp_path / "candles" / "__init__.py").touch()
    (tmp_path / "candles" / "pipeline.py").write_text(PIPELINE)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("use_cases.candles")]:
        del sys.modules[name]


def test_plugins_of_all_use_cases_are_found(folder: Path) -> None:
    assert list(load_all_plugins()) == ["candle_body"]
    assert load_use_case("candles").describe()["plugins"] == ["candle_body"]


def test_a_use_case_that_cannot_be_imported_is_named(folder: Path) -> None:
    (folder / "candles" / "pipeline.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(ConfigurationError, match=r"use_cases/candles/pipeline.py cannot be imported \(No module named"):
        load_all_plugins()


def test_a_use_case_computes_and_researches_its_plugin(folder: Path, store: Store, tmp_path: Path) -> None:
    context = ResearchContext(settings=Settings(home=tmp_path / "home"), store=store, clock=SystemClock())
    panel = no_edge(seed=4, n_assets=6, n_bars=900)
    dataset = store.service.import_dataset(panel, name="stocks", source="backtest.markets")
    case = load_use_case("candles")
    seen = store.researcher.load_panel(dataset)
    values = case.compute_features(seen)
    assert list(values) == ["body", "fade"]
    np.testing.assert_array_equal(values["body"], seen.close / seen.open - 1.0)

    report = case.run(context, budget=Budget(trials=2), planner="rules")
    assert [finding.name for finding in sorted(report.findings, key=lambda finding: finding.trial_id)] == ["body", "fade"]
    (row,) = store.service.list_features({"kind": "plugin"})
    assert (row.name, row.family, row.status) == ("body", "candles", "rejected")
    assert row.expression.startswith("plugin:candle_body@1#")
