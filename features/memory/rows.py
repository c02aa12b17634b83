"""Rows of `signal_embeddings`: windows with what followed them, the regime they ended in, and where they come from."""

from __future__ import annotations

import uuid

import numpy as np
import numpy.typing as npt
import pandas as pd
from psycopg.types.range import Range

from core.market.panel import FloatArray, Panel
from core.store.gateway import Row
from features.encoders.base import Embeddings
from features.labels import forward_returns
from features.memory.plan import EMB_TYPE, LABEL_HORIZON, MemoryPlan
from features.windows import regime_at

_RISK_BARS = 63
_IDS = uuid.UUID("6f3d2a54-6b0e-5f0e-9a38-6a7c5b1d7e42")
"""Namespace of the rows' ids, so that a window that is encoded again is the same row."""


class RowBuilder:
    """Build the rows of a plan; the same window always gives the same row.

    A row's label is known at `label_end`, five bars after the entry at the bar after the window; a window at the end of
    the data has none yet. Its `t_stat` is the forward return over the spread that the last 63 returns before it let expect.
    """

    def __init__(self, plan: MemoryPlan) -> None:
        panel, windows = plan.panel, plan.windows
        labels = forward_returns(panel, horizon=LABEL_HORIZON)
        column = {symbol: position for position, symbol in enumerate(panel.symbols)}
        asset = np.array([column[symbol] for symbol in windows.symbol])
        value = labels.values[windows.end, asset]
        risk = (_trailing_volatility(panel) * np.sqrt(LABEL_HORIZON))[windows.end, asset]
        self._plan = plan
        self._times = panel.index.to_pydatetime()
        self._value = value
        self._t_stat = np.divide(value, risk, out=np.zeros_like(value), where=risk > 0)
        self._known = np.isfinite(value)
        self._label_end = labels.horizon_end[windows.end]
        self._regime = regime_at(panel, windows.end)
        self._in_sample = np.asarray(windows.end_ts <= pd.Timestamp(plan.trained_until))

    @property
    def n_in_sample(self) -> int:
        """Windows that the encoder may have learned from."""
        return int(self._in_sample.sum())

    def build(self, position: int, vector: npt.NDArray[np.float32]) -> Row:
        """Return the row of the window at a position of the plan, with its embedding of shape (320,)."""
        plan, windows = self._plan, self._plan.windows
        symbol = str(windows.symbol[position])
        start, end = self._times[windows.start[position]], self._times[windows.end[position]]
        known = bool(self._known[position])
        regime = str(self._regime[position])
        label = {"forward_return": float(self._value[position]), "t_stat": float(self._t_stat[position])} if known else {}
        return {
            "embedding_id": uuid.uuid5(_IDS, f"{EMB_TYPE} {plan.version} {symbol} {end.isoformat()}"),
            "dataset_id": plan.dataset.dataset_id,
            "asset_symbol": symbol,
            "time_range": Range(start, end, "[]"),
            "embedding": vector,
            "emb_type": EMB_TYPE,
            "emb_version": plan.version,
            "regime_tag": regime,
            "label": label,
            "label_end": self._times[self._label_end[position]] if known else None,
            "meta": {
                "source": plan.dataset.name,
                "regime": regime,
                "window": plan.spec.window,
                "in_sample": bool(self._in_sample[position]),
                "label_horizon": LABEL_HORIZON,
            },
        }

    def build_some(self, positions: npt.NDArray[np.int64], vectors: Embeddings) -> list[Row]:
        """Return the rows of several windows."""
        return [self.build(int(position), vector) for position, vector in zip(positions, vectors, strict=True)]


def _trailing_volatility(panel: Panel) -> FloatArray:
    returns = np.nan_to_num(panel.returns())
    squares = np.cumsum(np.vstack([np.zeros((1, panel.n_assets)), returns**2]), axis=0)
    out = np.zeros(panel.shape)
    out[_RISK_BARS - 1 :] = np.sqrt(np.maximum(squares[_RISK_BARS:] - squares[:-_RISK_BARS], 0.0) / _RISK_BARS)
    return out
