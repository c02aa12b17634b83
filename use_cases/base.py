"""What every use case is: data, labels, ideas and a question, turned into the request that the planner gets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from agents.research.request import Budget, Candidate, ResearchRequest
from core.errors import ConfigurationError
from core.market.panel import FloatArray, Panel
from core.store.records import Dataset
from core.types import RawSignal
from features.computable import resolve
from features.plugins import PluginFeature, load_plugins

if TYPE_CHECKING:  # reading what a use case brings need not wait for the planner
    from agents.research.report import ResearchReport
    from agents.research.runner import PlannerChoice, ResearchContext
    from agents.research.session import EventHandler
    from core.store.opening import Store


class StrategyUseCase(ABC):
    """Describe one strategy from its data to its research question.

    A subclass lives in ``use_cases/<name>/pipeline.py`` beside its README and whatever preprocessing is its own. It says
    where its data comes from, how it is labelled, which ideas it brings and what it wants to know; :meth:`run` does the
    rest. Everything goes through the store, so that agents find it.

    Attributes
    ----------
    name : str
        Name of the folder.
    """

    name: ClassVar[str]

    @abstractmethod
    def ingest(self, context: ResearchContext) -> Dataset:
        """Land the raw data in the store, or find it there, and return the data set."""

    @abstractmethod
    def label(self, context: ResearchContext, dataset: Dataset) -> int:
        """Attach labels to the data before the seal and return how many there are."""

    @abstractmethod
    def candidates(self) -> tuple[Candidate, ...]:
        """Return the use case's own ideas, which the planner tries first."""

    @abstractmethod
    def question(self) -> str:
        """Return what the use case wants to know."""

    def plugin_features(self) -> tuple[PluginFeature, ...]:
        """Return features written in Python that this use case brings; ``Candidate(plugin=NAME)`` sends one to the planner."""
        return ()

    def raw_signals(self, as_of: datetime, *, since: datetime | None = None, panel: Panel | None = None) -> list[RawSignal]:
        """Return what this use case tells the traders, oldest first; nothing by default.

        Parameters
        ----------
        as_of : datetime
            Only what was known then is used, UTC. What a bar says is known at its close.
        since : datetime, optional
            What was known then already was told before, and is left out; by default what is new at the bar of `as_of`.
        panel : Panel, optional
            Bars to read, up to `as_of`; by default those of the packaged data set.

        Returns
        -------
        list of RawSignal
            The same call gives the same signals with the same identities, so that telling one twice trades once.
        """
        return []

    def symbols(self, store: Store) -> tuple[str, ...]:
        """Return whom it tells the traders of, as prices name them; a use case that says nobody cannot be traded live.

        Raises
        ------
        MissingDataError
            If it reads them from a data set that is not there.
        """
        return ()

    def lookback(self) -> int:
        """Return how many bars before the one it tells of `raw_signals` reads; by default what its features do.

        Raises
        ------
        ConfigurationError
            If one of its features reads all of history.
        """
        found = [resolve(candidate.text, plugins=self.load_plugins).lookback for candidate in self.candidates()]
        known = [bars for bars in found if bars is not None]
        if len(known) < len(found):
            raise ConfigurationError(
                f"a feature of {self.name} reads all of history: say in `lookback` how many bars are enough."
            )
        return max(known, default=0)

    def check_live(self) -> None:
        """Check that there is something to tell a live desk, whose bars grow while nothing else of a use case may.

        Raises
        ------
        ConfigurationError
            If there is not.
        """
        if type(self).raw_signals is StrategyUseCase.raw_signals:
            raise ConfigurationError(f"{self.name} tells the traders nothing: say in `raw_signals` what it does.")

    def load_plugins(self) -> Mapping[str, PluginFeature]:
        """Return its own plugin features and those of installed packages, by name."""
        return load_plugins(self.plugin_features())

    def build_request(self, dataset: Dataset, *, seed: int = 0) -> ResearchRequest:
        """Build the payload sent to the planner."""
        return ResearchRequest(question=self.question(), dataset=dataset.name, candidates=self.candidates(), seed=seed)

    def compute_features(self, panel: Panel) -> dict[str, FloatArray]:
        """Compute the use case's own features, as long as they build on no feature of the registry.

        Returns
        -------
        dict of str to ndarray of shape (n_bars, n_assets)
        """
        return {
            candidate.name: resolve(candidate.text, plugins=self.load_plugins, extra=tuple(panel.extra)).compute(panel)
            for candidate in self.candidates()
        }

    def run(
        self,
        context: ResearchContext,
        *,
        budget: Budget | None = None,
        planner: PlannerChoice = "auto",
        seed: int = 0,
        on_event: EventHandler | None = None,
    ) -> ResearchReport:
        """Ingest, label, compute, and send the research request through the planner."""
        from agents.research.runner import run_planner

        dataset = self.ingest(context)
        self.label(context, dataset)
        request = self.build_request(dataset, seed=seed)
        context = replace(context, load_plugins=self.load_plugins)
        return run_planner(request, budget=budget, planner=planner, context=context, on_event=on_event)

    def describe(self) -> dict[str, Any]:
        """Return name, question and ideas as plain values."""
        return {
            "name": self.name,
            "question": self.question(),
            "candidates": [candidate.name for candidate in self.candidates()],
            "plugins": [plugin.name for plugin in self.plugin_features()],
        }
