"""Small data sets to remember: two symbols that are whole, one with a gap, one that stands still for long."""

from typing import Any

import numpy as np
import pandas as pd

from core.market.panel import Panel
from core.store.gateway import Row
from core.store.opening import Store
from core.store.records import Dataset

WINDOW, STRIDE = 128, 7
GAP_BAR, STILL_BARS = 250, slice(100, 330)


def build_prices(n_bars: int = 640, *, start: str = "2010-01-04 20:00", seed: int = 0) -> Panel:
    """Closes of 4 symbols; the last fifth will be sealed."""
    rng = np.random.default_rng(seed)
    close = 100.0 * np.cumprod(1.0 + 0.01 * rng.standard_normal((n_bars, 4)), axis=0)
    close[GAP_BAR, 2] = np.nan
    close[STILL_BARS, 3] = close[STILL_BARS.start, 3]
    index = pd.bdate_range(start, periods=n_bars, tz="UTC", normalize=False).as_unit("us")
    return Panel(index=index, symbols=("AAA", "BBB", "GAP", "STILL"), close=close, name="small")


def land(store: Store, panel: Panel | None = None, *, name: str = "small", **more: Any) -> Dataset:
    return store.service.import_dataset(build_prices() if panel is None else panel, name=name, source="a test", **more)


def rows_of(store: Store, table: str = "signal_embeddings", *, whole: bool = True) -> list[Row]:
    """Every row by symbol, time and version, vectors as lists; without the times of writing unless `whole`."""
    rows = store.service.gateway.select(table, order=("emb_version", "asset_symbol", "time_range"))
    left_out = () if whole else ("created_at", "updated_at", "dataset_id")
    plain = [{**row, "embedding": row["embedding"].to_list()} for row in rows]
    return [{name: value for name, value in row.items() if name not in left_out} for row in plain]


def expected_windows(panel: Panel, visible: int, stride: int = STRIDE) -> list[tuple[str, int, int]]:
    """Symbol, first and last bar of each window that can be encoded, found bar by bar."""
    found = []
    for column, symbol in enumerate(panel.symbols):
        for start in range(0, visible - WINDOW + 1, stride):
            closes = panel.close[start : start + WINDOW, column]
            if not np.isnan(closes).any() and len(set(closes.tolist())) > 1:
                found.append((symbol, start, start + WINDOW - 1))
    return found
