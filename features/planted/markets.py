"""Random markets with everything in which a leak can hide.

Promises the same market for the same seed: symbols that are listed late and that end, gaps, a crash, splits, changes of
membership, and earnings that are published after hours and restated.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from core.market.panel import Panel
from features.fields import FloatArray
from features.futures import FeatureInputs
from features.point_in_time import Events

SYMBOLS = ("S00", "S01", "S02", "S03", "S04", "S05")


def build_daily(seed: int = 0, n_bars: int = 420) -> FeatureInputs:
    """Build daily bars, stamped 16:00 in New York, and quarterly earnings.

    Parameters
    ----------
    seed : int, default=0
    n_bars : int, default=420
        At least 300.

    Returns
    -------
    FeatureInputs
        Bar fields and the columns ``mood``, ``member`` (1 while in the index) and ``split`` (shares for one, on the day of
        a split); events of kinds ``earnings`` (with ``eps``) and ``call`` (scheduled).
    """
    rng = np.random.default_rng(seed)
    days = pd.date_range("2001-01-02", periods=n_bars, freq="B")
    index = pd.DatetimeIndex(days + pd.Timedelta(hours=16)).tz_localize("America/New_York").tz_convert("UTC")
    panel = _bars(index, rng)
    return FeatureInputs(panel=panel, events=_earnings(days, rng))


def build_intraday(seed: int = 0, n_days: int = 50) -> FeatureInputs:
    """Build hourly bars from 10:00 to 16:00 in New York; the same columns and events."""
    rng = np.random.default_rng(seed)
    days = pd.date_range("2001-01-02", periods=n_days, freq="B")
    hours = [day + pd.Timedelta(hours=hour) for day in days for hour in range(10, 17)]
    index = pd.DatetimeIndex(hours).tz_localize("America/New_York").tz_convert("UTC")
    return FeatureInputs(panel=_bars(index, rng), events=_earnings(days, rng))


def _bars(index: pd.DatetimeIndex, rng: np.random.Generator) -> Panel:
    shape = (len(index), len(SYMBOLS))
    steps = rng.normal(0.0002, 0.015, shape)
    steps[rng.integers(120, shape[0] - 20)] -= 0.25
    close = 50.0 * np.exp(np.cumsum(steps, axis=0))
    opened = close * np.exp(rng.normal(0.0, 0.005, shape))
    high = np.maximum(opened, close) * np.exp(np.abs(rng.normal(0.0, 0.004, shape)))
    low = np.minimum(opened, close) * np.exp(-np.abs(rng.normal(0.0, 0.004, shape)))
    volume = np.floor(np.exp(rng.normal(11.0, 0.6, shape)))
    gone = np.zeros(shape, dtype=np.bool_)
    gone[rng.random(shape) < 0.01] = True
    gone[: rng.integers(20, 60), 3] = True
    gone[shape[0] - rng.integers(20, 80) :, 4] = True
    start = rng.integers(100, 200)
    gone[start : start + 6, 2] = True
    member = np.ones(shape)
    for column in range(3):
        member[rng.integers(60, shape[0] - 20) :, column] = 0.0
    split = np.where(rng.random(shape) < 0.01, 2.0, 1.0)
    columns: list[FloatArray] = [opened, high, low, close, volume]
    for values in columns:
        values[gone] = np.nan
    extra = {"mood": np.round(rng.normal(0.0, 2.0, shape), 1), "member": member, "split": split}
    return Panel(
        index=index,
        symbols=SYMBOLS,
        open=opened,
        high=high,
        low=low,
        close=close,
        volume=volume,
        extra=extra,
        name="planted",
    )


def _earnings(days: pd.DatetimeIndex, rng: np.random.Generator) -> Events:
    """Publish each quarter, some weeks after its end and often after the close; restate some, weeks later again."""
    rows: list[dict[str, object]] = []
    length = max(len(days) // 8, 12)
    for symbol in SYMBOLS:
        for period_end in days[int(rng.integers(1, 6)) :: length]:
            eps = rng.normal(1.0, 0.3)
            day = period_end + pd.Timedelta(days=int(rng.integers(3, length // 2 + 3)))
            published = day + pd.Timedelta(minutes=int(rng.choice([8 * 60, 13 * 60, 16 * 60 + 30, 17 * 60])))
            rows.append({"kind": "earnings", "symbol": symbol, "occurred_at": period_end, "known_at": published, "eps": eps})
            rows.append(
                {
                    "kind": "call",
                    "symbol": symbol,
                    "occurred_at": published,
                    "known_at": published - pd.Timedelta(days=3),
                    "eps": np.nan,
                }
            )
            if rng.random() < 0.5:
                later = published + pd.Timedelta(days=int(rng.integers(4, length)))
                revised = {"known_at": later, "eps": eps * rng.uniform(0.5, 1.5)}
                rows.append({"kind": "earnings", "symbol": symbol, "occurred_at": period_end, **revised})
    table = pd.DataFrame(rows)
    for name in ("occurred_at", "known_at"):
        table[name] = table[name].dt.tz_localize("America/New_York")
    return Events(table=table, scheduled_kinds=frozenset({"call"}))
