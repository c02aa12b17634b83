"""One planted leak or look-alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy.typing as npt

from features.futures import FeatureInputs
from features.leaks import LeakReport, check_leaks
from features.planted.markets import build_daily, build_intraday

Function = Callable[..., npt.ArrayLike]


@dataclass(frozen=True, kw_only=True)
class Example:
    """Hold a feature and what is wrong, or right, with it.

    Parameters
    ----------
    name : str
        For instance ``centred_window``.
    why : str
        One sentence.
    build : callable
        Returns the feature, new each time: ``feature(panel)``, or ``feature(panel, events)`` if it reads events.
    reads_events, intraday : bool
        What data it needs.
    """

    name: str
    why: str
    build: Callable[[], Function]
    reads_events: bool = False
    intraday: bool = False

    def inputs(self, seed: int = 0) -> FeatureInputs:
        """Return a random market on which the leak shows."""
        market = build_intraday(seed) if self.intraday else build_daily(seed)
        return market if self.reads_events else FeatureInputs(panel=market.panel)

    def check(self, *, seed: int = 0) -> LeakReport:
        """Run the leak gate on it; the seed chooses the market, the cuts and the changes."""
        inputs = self.inputs(seed)
        return check_leaks(self.build(), inputs.panel, events=inputs.events, seed=seed)


def describe(function: Function, **needs: bool) -> Example:
    """Make an example of a function, named and explained by its own name and docstring."""
    return Example(name=function.__name__, why=_sentence(function), build=lambda: function, **needs)


def describe_factory(factory: Callable[[], Function]) -> Example:
    """Make an example of a function that builds a feature with a state of its own."""
    return Example(name=factory.__name__, why=_sentence(factory), build=factory)


def _sentence(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").strip().splitlines()[0]
