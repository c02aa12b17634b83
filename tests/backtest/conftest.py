"""Panels and weights for the backtest's tests."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from core.market.panel import Panel

MakePanel = Callable[..., Panel]


def build_panel(close: object, *, opened: object = None, start: str = "2020-01-01") -> Panel:
    close = np.asarray(close, dtype=float)
    return Panel(
        index=pd.bdate_range(start, periods=len(close), tz="UTC"),
        symbols=tuple(f"S{i}" for i in range(close.shape[1])),
        close=close,
        open=None if opened is None else np.asarray(opened, dtype=float),
    )


@pytest.fixture
def book() -> tuple[Panel, np.ndarray]:
    """A dollar-neutral book over 120 bars x 6 assets, with opens."""
    return random_book(seed=3)


def random_book(seed: int, n_bars: int = 120, n_assets: int = 6) -> tuple[Panel, np.ndarray]:
    rng = np.random.default_rng(seed)
    close = 50.0 * np.cumprod(1.0 + 0.02 * rng.standard_normal((n_bars, n_assets)), axis=0)
    opened = close * (1.0 + 0.005 * rng.standard_normal(close.shape))
    weights = rng.standard_normal(close.shape)
    weights -= weights.mean(axis=1, keepdims=True)
    weights /= np.abs(weights).sum(axis=1, keepdims=True)
    return build_panel(close, opened=opened), weights
