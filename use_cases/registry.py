"""Finds a use case by the name of its folder."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path

from core.errors import ConfigurationError
from features.plugins import PluginFeature, load_plugins
from use_cases.base import StrategyUseCase


def list_use_cases() -> tuple[str, ...]:
    """Return the names of the use cases that are there."""
    return tuple(sorted(path.parent.name for path in Path(__file__).parent.glob("*/pipeline.py")))


def load_use_case(name: str) -> StrategyUseCase:
    """Build a use case.

    Raises
    ------
    ConfigurationError
        If there is no folder of that name, or its pipeline cannot be imported or defines no use case or several.
    """
    if name not in list_use_cases():
        raise ConfigurationError(f"no use case {name!r}; there are {', '.join(list_use_cases())}.")
    try:
        module = importlib.import_module(f"use_cases.{name}.pipeline")
    except (ImportError, SyntaxError) as error:
        raise ConfigurationError(f"use_cases/{name}/pipeline.py cannot be imported ({error}): mend it.") from error
    own = [
        item
        for _, item in inspect.getmembers(module, inspect.isclass)
        if issubclass(item, StrategyUseCase) and not inspect.isabstract(item) and item.__module__ == module.__name__
    ]
    if len(own) != 1:
        raise ConfigurationError(f"use_cases/{name}/pipeline.py must define one subclass of StrategyUseCase, has {len(own)}.")
    found: StrategyUseCase = own[0]()
    return found


def load_all_plugins() -> Mapping[str, PluginFeature]:
    """Load the plugin features of every use case and of installed packages, by name.

    Raises
    ------
    ConfigurationError
        If one cannot be loaded, or two have the same name.
    """
    return load_plugins(plugin for name in list_use_cases() for plugin in load_use_case(name).plugin_features())
