"""Worlds of their own for research: a fresh database and home, and small markets whose truth is known."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from agents.research.report import ResearchReport
from agents.research.runner import ResearchContext
from backtest.markets import no_edge, planted
from core.clock import SystemClock
from core.market.panel import Panel
from core.settings import Settings
from core.store.opening import open_store
from core.store.records import Dataset, Trial
from tests.conftest import Server

QUESTION = "Is there a short-horizon reversal?"


@contextmanager
def fresh_world(server: Server, home: Path) -> Iterator[ResearchContext]:
    """Open a context over a database that nobody else uses, with everything it writes under `home`."""
    conninfo = server.create(server.template)
    settings = Settings(home=home, database_url=conninfo)
    with ResearchContext(settings=settings, store=open_store(settings), clock=SystemClock()) as context:
        yield context
    server.drop(conninfo)


def land(context: ResearchContext, panel: Panel, name: str) -> Dataset:
    """Store a generated market, which shares nothing with others like it; its last fifth is sealed."""
    return context.store.service.import_dataset(panel, name=name, source="backtest.markets", synthetic=True)


def reversal_market(n_bars: int = 1_500) -> Panel:
    """12 stocks with a planted reversal of net Sharpe ratio 3; the bars before the seal are enough for vectors.

    They begin in 2010, after the training of the shipped encoder ended.
    """
    return moved(planted(seed=1, sharpe=3.0, n_assets=12, n_bars=n_bars), years=10)


def noise_market(*, seed: int = 7, n_assets: int = 6, n_bars: int = 900) -> Panel:
    """Stocks in which nothing can be foreseen, too few bars for vectors."""
    return no_edge(seed=seed, n_assets=n_assets, n_bars=n_bars)


def moved(panel: Panel, *, years: int) -> Panel:
    """Return the panel some years later."""
    index = pd.bdate_range(panel.index[0] + pd.DateOffset(years=years), periods=panel.n_bars, tz="UTC", normalize=False)
    return Panel(index=index, symbols=panel.symbols, name=panel.name, **{name: panel.get(name) for name in panel.fields})


def without(panel: Panel, missing: np.ndarray) -> Panel:
    """Return the panel without the bars that a mask of shape (n_bars, n_assets) names."""
    return panel.replace(**{name: np.where(missing, np.nan, panel.get(name)) for name in panel.fields})


def closes_only(panel: Panel) -> Panel:
    """Return the panel with nothing but its closes."""
    return Panel(index=panel.index, symbols=panel.symbols, close=panel.close, name=panel.name)


def trials_of(context: ResearchContext, report: ResearchReport) -> list[Trial]:
    """Return the rows of the ledger that a run wrote."""
    return context.store.service.list_trials({"run_id": report.run_id})


def calls_of(report: ResearchReport, tool: str) -> list[dict[str, object]]:
    """Return a run's calls of one tool, in order."""
    return [dict(call) for call in report.tool_calls if call["tool"] == tool]
