"""Finds a use case by the name of its folder."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

from core.errors import ConfigurationError
from use_cases.base import StrategyUseCase


def list_use_cases() -> tuple[str, ...]:
    """Return the names of the use cases that are there."""
    return tuple(sorted(path.parent.name for path in Path(__file__).parent.glob("*/pipeline.py")))


def load_use_case(name: str) -> StrategyUseCase:
    """Build a use case.

    Raises
    ------
    ConfigurationError
        If there is no folder of that name, or its pipeline defines no use case or several.
    """
    if name not in list_use_cases():
        raise ConfigurationError(f"no use case {name!r}; there are {', '.join(list_use_cases())}.")
    module = importlib.import_module(f"use_cases.{name}.pipeline")
    own = [
        item
        for _, item in inspect.getmembers(module, inspect.isclass)
        if issubclass(item, StrategyUseCase) and not inspect.isabstract(item) and item.__module__ == module.__name__
    ]
    if len(own) != 1:
        raise ConfigurationError(f"use_cases/{name}/pipeline.py must define one subclass of StrategyUseCase, has {len(own)}.")
    found: StrategyUseCase = own[0]()
    return found
