"""What the planner's tests share: a context over the test's own store, and a small market without an edge in it."""

from pathlib import Path

import pytest

from agents.research.runner import ResearchContext
from backtest.markets import no_edge
from core.clock import SystemClock
from core.settings import Settings
from core.store.opening import Store
from core.store.records import Dataset


@pytest.fixture
def context(store: Store, tmp_path: Path) -> ResearchContext:
    """A context in which no language model is configured."""
    return ResearchContext(settings=Settings(home=tmp_path / "home"), store=store, clock=SystemClock())


@pytest.fixture
def market(store: Store) -> Dataset:
    """900 bars of 6 stocks in which nothing can be foreseen; the last 180 are sealed."""
    return store.service.import_dataset(no_edge(seed=7, n_assets=6, n_bars=900), name="noise", source="backtest.markets")
