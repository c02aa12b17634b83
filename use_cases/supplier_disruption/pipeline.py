"""Do shares react late to the troubles of their suppliers? An invented replay, to run the machinery on news.

Run it with ``python -m use_cases.supplier_disruption.pipeline``, or with ``--mode trade`` through the trading agents.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pandas as pd

from agents.research.request import Candidate
from core.errors import ConfigurationError
from core.market.panel import FloatArray, Panel
from core.store.packaged import ensure_dataset, find_symbols
from core.store.records import Dataset
from core.types import RawSignal
from features.labels import event_labels
from features.plugins import PluginFeature
from features.point_in_time import EVENT_COLUMNS, Events
from use_cases.base import StrategyUseCase
from use_cases.command import build_command
from use_cases.supplier_disruption.features import FEATURES
from use_cases.supplier_disruption.news import PACKAGED, read_news

if TYPE_CHECKING:
    from agents.research.runner import ResearchContext
    from core.store.opening import Store

LABEL_HORIZON = 5
_A_DAY = timedelta(days=1)


class SupplierDisruption(StrategyUseCase):
    """Trouble at a supplier reaches its customers' prices late, if at all.

    Parameters
    ----------
    dataset : str, default="sp500_20"
        The customers' prices.
    news : Path, optional
        File of headlines and filings; the packaged one, in which everything but the tickers is invented.
    """

    name: ClassVar[str] = "supplier_disruption"

    def __init__(self, dataset: str = "sp500_20", news: Path = PACKAGED) -> None:
        self._dataset = dataset
        self._news = news

    def question(self) -> str:
        """Return what the use case wants to know."""
        return "Do shares react late to the troubles of their suppliers, as replayed news tells them?"

    def ingest(self, context: ResearchContext) -> Dataset:
        """Land the prices and the events in the store, or find them there."""
        dataset = ensure_dataset(context.store, self._dataset)
        context.store.service.save_events(read_news(self._news).to_events(dataset.symbols), dataset=dataset)
        return dataset

    def label(self, context: ResearchContext, dataset: Dataset) -> int:
        """Attach the return of the next week to each bar at which an event became known, before the seal."""
        panel = context.store.researcher.load_panel(dataset)
        labels = event_labels(panel, self._events(panel), LABEL_HORIZON)
        return context.store.service.save_labels(
            dataset, name=f"event_return_{LABEL_HORIZON}", panel=panel, values=labels.values, horizon_end=labels.horizon_end
        )

    def compute_features(self, panel: Panel) -> dict[str, FloatArray]:
        """Compute the use case's own features, joined to the bars by the time the news was published."""
        events = self._events(panel)
        return {feature.name: feature.compute(panel, events) for feature in FEATURES}

    def plugin_features(self) -> tuple[PluginFeature, ...]:
        """Return the features that read the events."""
        return FEATURES

    def candidates(self) -> tuple[Candidate, ...]:
        """Return one idea for each feature."""
        return tuple(
            Candidate(name=feature.name, plugin=feature.name, family="supply_chain", hypothesis=feature.hypothesis)
            for feature in FEATURES
        )

    def symbols(self, store: Store) -> tuple[str, ...]:
        """Return the customers: the stocks of its data set."""
        return find_symbols(store, self._dataset)

    def check_live(self) -> None:
        """Check that its news is a file of one's own, to which lines are added.

        Raises
        ------
        ConfigurationError
            If it is the packaged replay, in which nothing new ever stands.
        """
        if self._news == PACKAGED:
            raise ConfigurationError(
                f"the news of {self.name} is an invented replay that has ended: there is nothing live in it. Give real news to "
                f"`aqf trade --news FILE`; `python -m use_cases.{self.name}.pipeline --mode trade` trades the replay."
            )

    def raw_signals(self, as_of: datetime, *, since: datetime | None = None, panel: Panel | None = None) -> list[RawSignal]:
        """Return the items that were published after `since` (a day before by default) and by `as_of`."""
        items = read_news(self._news).published(as_of - _A_DAY if since is None else since, as_of)
        return [item.to_signal() for item in items]

    def _events(self, panel: Panel) -> Events:
        found = read_news(self._news).to_events(panel.symbols)
        rows = [(one.kind, one.symbol, one.occurred_at, one.known_at) for one in found]
        return Events(table=pd.DataFrame(rows, columns=list(EVENT_COLUMNS))).known_by(panel.index[-1])


main = build_command(
    SupplierDisruption,
    SupplierDisruption.name,
    "Ingest prices and news, label, and send the question of the suppliers on its way.",
    is_live=False,
)

if __name__ == "__main__":
    main()
