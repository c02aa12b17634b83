"""Data sets, their bars before and behind the seal, and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd

from core.errors import MissingDataError, StoreError
from core.market.panel import BAR_FIELDS, FloatArray, Panel
from core.store.gateway import Gateway
from core.store.records import Dataset

DEFAULT_SEALED_FRACTION = 0.2


class DatasetMethods:
    """What the research store does with data sets."""

    gateway: Gateway

    def import_dataset(
        self,
        panel: Panel,
        *,
        name: str,
        source: str,
        frequency: str = "1d",
        caveats: Sequence[str] = (),
        sealed_from: datetime | None = None,
        tradable: bool = True,
        synthetic: bool = False,
    ) -> Dataset:
        """Store a panel, whole or not at all.

        Parameters
        ----------
        sealed_from : datetime, optional
            First moment of the hold-out; by default that of the versions before, or else the last 20 % of the bars.
        tradable : bool, default=True
            False for figures nobody can hold, such as the VIX: nothing is promoted on them.
        synthetic : bool, default=False
            True for a generated market, which has no past: otherwise mostly the same bars under another name share the seal
            and the count of trials.

        Raises
        ------
        StoreConflictError
            If this name has another seal already, or the bars end before it.
        MissingDataError
            If the seal leaves no bar on either side, or a bar has no value at all.

        Notes
        -----
        Only bar fields are stored; further columns of the panel are left out, and a caveat names them.
        """
        if sealed_from is not None and sealed_from.tzinfo is None:
            raise StoreError(f"`sealed_from` must carry its zone, was the naive {sealed_from.isoformat()}; use UTC.")
        if panel.extra:
            caveats = (*caveats, f"columns left out: {', '.join(sorted(panel.extra))}")
            panel = replace(panel, extra={})
        present = np.zeros(panel.shape, dtype=bool)
        for field in panel.fields:
            present |= ~np.isnan(panel.get(field))
        if panel.n_bars == 0 or not present.any(axis=1).all():
            raise MissingDataError("every bar of a data set must have a value of some symbol: leave out those that have none.")
        default_seal = panel.index[int(panel.n_bars * (1 - DEFAULT_SEALED_FRACTION))].to_pydatetime()
        seal = sealed_from or default_seal
        if not panel.index[0] < seal <= panel.index[-1]:
            raise MissingDataError(
                f"`sealed_from` must lie inside the data, {panel.index[0]:%Y-%m-%d}..{panel.index[-1]:%Y-%m-%d}, "
                f"was {seal:%Y-%m-%d}."
            )
        content_sha256 = panel.content_sha256()
        known = self.gateway.select("datasets", where={"name": name, "content_sha256": content_sha256})
        if known and sealed_from in (None, known[0]["sealed_from"]):
            return Dataset.from_row(known[0])
        asset, bar = np.nonzero(present.T)
        empty = np.full(panel.shape, np.nan)
        columns = {
            f"p_{field}": (empty if getattr(panel, field) is None else panel.get(field))[bar, asset].tolist()
            for field in BAR_FIELDS
        }
        rows = self.gateway.rpc(
            "import_dataset",
            p_dataset={
                "name": name,
                "source": source,
                "content_sha256": content_sha256,
                "symbols": list(panel.symbols),
                "fields": list(panel.fields),
                "frequency": frequency,
                "n_bars": panel.n_bars,
                "first_ts": panel.index[0].isoformat(),
                "last_ts": panel.index[-1].isoformat(),
                "sealed_from": None if sealed_from is None else sealed_from.isoformat(),
                "default_sealed_from": default_seal.isoformat(),
                "tradable": tradable,
                "synthetic": synthetic,
                "caveats": list(caveats),
            },
            p_symbol=(asset + 1).tolist(),
            p_ts=panel.index.as_unit("us").asi8[bar].tolist(),
            **columns,
        )
        return Dataset.from_row(rows[0])

    def list_datasets(self) -> list[Dataset]:
        """Return every data set, all versions, by name."""
        return [Dataset.from_row(row) for row in self.gateway.select("datasets", order=("name", "-version"))]

    def find_dataset(self, name: str) -> Dataset:
        """Return the newest version of a data set.

        Raises
        ------
        MissingDataError
            If there is none of that name.
        """
        rows = self.gateway.select("datasets", where={"name": name}, order=("-version",), limit=1)
        if not rows:
            known = sorted({dataset.name for dataset in self.list_datasets()})
            raise MissingDataError(
                f"no data set {name!r} in the store; it has {', '.join(known) or 'none yet'}: see `aqf data list`."
            )
        return Dataset.from_row(rows[0])

    def get_dataset(self, dataset_id: UUID) -> Dataset:
        """Return a data set by its id."""
        rows = self.gateway.select("datasets", where={"dataset_id": dataset_id})
        if not rows:
            raise MissingDataError(f"no data set with the id {dataset_id}.")
        return Dataset.from_row(rows[0])

    def load_panel(self, dataset: Dataset, symbols: Sequence[str] | None = None) -> Panel:
        """Load the bars this role may see.

        Raises
        ------
        MissingDataError
            If a symbol is unknown, or there is no bar to see.
        """
        unknown = [symbol for symbol in symbols or () if symbol not in dataset.symbols]
        if unknown:
            raise MissingDataError(f"unknown symbol {', '.join(unknown)}; {dataset.name} has {', '.join(dataset.symbols)}.")
        wanted = list(symbols) if symbols is not None else dataset.symbols
        rows = {row["symbol"]: row for row in self.gateway.rpc("load_panel", p_dataset_id=dataset.dataset_id, p_symbols=wanted)}
        if not rows:
            raise MissingDataError(f"the data set {dataset.name} has no bar that may be read here.")
        stamps = {symbol: _unpack(row["ts"], ">i8").astype(np.int64) for symbol, row in rows.items()}
        union = np.unique(np.concatenate(list(stamps.values())))
        columns: dict[str, Any] = {}
        for field in dataset.fields:
            values = np.full((len(union), len(wanted)), np.nan)
            for position, symbol in enumerate(wanted):
                if symbol in rows:
                    values[np.searchsorted(union, stamps[symbol]), position] = _unpack(rows[symbol][field], ">f8")
            columns[field] = values
        index = pd.DatetimeIndex(union.view("datetime64[us]"), tz="UTC")
        return Panel(index=index, symbols=tuple(wanted), name=dataset.name, **columns)

    def save_labels(
        self, dataset: Dataset, *, name: str, panel: Panel, values: FloatArray, horizon_end: np.ndarray[Any, Any]
    ) -> int:
        """Store labels of shape (n_bars, n_assets).

        `horizon_end` gives the bar at which they are known, of shape (n_bars,) or, one for each symbol, (n_bars, n_assets).
        """
        ends = np.broadcast_to(horizon_end if horizon_end.ndim == 2 else horizon_end[:, None], values.shape)
        rows = [
            {
                "dataset_id": dataset.dataset_id,
                "symbol": panel.symbols[asset],
                "ts": panel.index[bar].to_pydatetime(),
                "name": name,
                "horizon_end": panel.index[int(ends[bar, asset])].to_pydatetime(),
                "value": float(values[bar, asset]),
            }
            for bar, asset in zip(*np.nonzero(np.isfinite(values)), strict=True)
        ]
        return self.gateway.upsert("labels", rows, on_conflict=("dataset_id", "symbol", "ts", "name"))


def _unpack(value: bytes | str, dtype: str) -> np.ndarray[Any, Any]:
    if isinstance(value, str):
        if not value.startswith("\\x"):
            raise StoreError("packed columns must come as bytes or as a hexadecimal text.")
        value = bytes.fromhex(value[2:])
    return np.frombuffer(value, dtype=dtype)
