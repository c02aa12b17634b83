"""Floor 3: strategies, one folder each, which feed the planner."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from use_cases.base import StrategyUseCase
    from use_cases.registry import list_use_cases, load_all_plugins, load_use_case

__all__ = ["StrategyUseCase", "list_use_cases", "load_all_plugins", "load_use_case"]

_HOMES = {
    "StrategyUseCase": "use_cases.base",
    "list_use_cases": "use_cases.registry",
    "load_all_plugins": "use_cases.registry",
    "load_use_case": "use_cases.registry",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
