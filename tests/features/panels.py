"""Random panels with gaps, late listings, ties and flat stretches."""

import numpy as np
import pandas as pd

from core.market import Panel


def build_panel(
    n_bars: int = 700, n_assets: int = 6, *, seed: int = 0, gaps: bool = True, bars_only_close: bool = False
) -> Panel:
    rng = np.random.default_rng(seed)
    close = 50.0 * np.exp(np.cumsum(rng.normal(0.0002, 0.02, (n_bars, n_assets)), axis=0))
    open_ = close * np.exp(rng.normal(0.0, 0.005, close.shape))
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0.0, 0.004, close.shape)))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0.0, 0.004, close.shape)))
    volume = np.round(np.exp(rng.normal(11.0, 0.6, close.shape)))
    if gaps:
        flat = slice(n_bars // 3, n_bars // 3 + 30)
        for column in (open_, high, low, close):
            column[flat, 1] = 40.1
        close[n_bars // 2 : n_bars // 2 + 5, 2] = np.nan
        close[: n_bars // 10, 3] = np.nan
        close[n_bars // 4, :] = np.nan
        close[n_bars // 5, 0] = np.nan
        volume[rng.random(close.shape) < 0.01] = 0.0
        for column in (open_, high, low, volume):
            column[np.isnan(close)] = np.nan
    index = pd.date_range("2001-01-02 21:00", periods=n_bars, freq="B", tz="UTC")
    symbols = tuple(f"S{i:02d}" for i in range(n_assets))
    if bars_only_close:
        return Panel(index=index, symbols=symbols, close=close, name="random closes")
    extra = {"book": np.exp(rng.normal(0.0, 0.1, close.shape)), "mood": np.round(rng.normal(0.0, 2.0, close.shape))}
    return Panel(
        index=index,
        symbols=symbols,
        close=close,
        open=open_,
        high=high,
        low=low,
        volume=volume,
        extra=extra,
        name="random bars",
    )
