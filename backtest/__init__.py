"""The exact, fast, costed referee: weights or signals in, results out.

Knows neither features nor the store. Names are loaded on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backtest.capacity import estimate_capacity
    from backtest.config import BacktestConfig
    from backtest.construction import PortfolioRule, build_weights
    from backtest.crossings import CrossingFamily, MovingAverageCrossings
    from backtest.engine import BacktestResult, run_backtest
    from backtest.signals import SignalStrategy, TradeList
    from backtest.sweep import SweepResult, run_sweep

_ROOM_OF = {
    "BacktestConfig": "backtest.config",
    "BacktestResult": "backtest.engine",
    "PortfolioRule": "backtest.construction",
    "build_weights": "backtest.construction",
    "estimate_capacity": "backtest.capacity",
    "run_backtest": "backtest.engine",
    "CrossingFamily": "backtest.crossings",
    "MovingAverageCrossings": "backtest.crossings",
    "SignalStrategy": "backtest.signals",
    "SweepResult": "backtest.sweep",
    "TradeList": "backtest.signals",
    "run_sweep": "backtest.sweep",
}

__all__ = [
    "BacktestConfig",
    "BacktestResult",
    "CrossingFamily",
    "MovingAverageCrossings",
    "PortfolioRule",
    "SignalStrategy",
    "SweepResult",
    "TradeList",
    "build_weights",
    "estimate_capacity",
    "run_backtest",
    "run_sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'backtest' has no attribute {name!r}; it has {', '.join(__all__)}.")
    return getattr(import_module(_ROOM_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
