"""Compute Alpha158 with pyqlib; a program for pyqlib's own Python, because its pins conflict with ours.

``PYTHON pyqlib_alpha158.py values BARS.npz OUT.npz`` writes what pyqlib computes.
``PYTHON pyqlib_alpha158.py time BARS.npz`` prints its versions, then reads lines, `compute` or `whole`, and answers each with
its seconds, so that a benchmark may let it take turns with others. One JSON object a line.

BARS.npz holds float32 arrays `open`, `high`, `low`, `close`, `volume` and `vwap` of shape (n_bars, n_assets). They are stored
in a folder in qlib's own format (`.bin` files and a calendar) and read by qlib's own provider.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import qlib
from qlib.contrib.data.handler import Alpha158
from qlib.data import D
from qlib.data.cache import H
from qlib.data.data import ExpressionD

COLUMNS = ("open", "high", "low", "close", "volume", "vwap")


def write_provider(bars: dict[str, Any], folder: Path) -> list[str]:
    """Write bars as qlib stores them, each column from its first known value on, and return the instruments."""
    n_bars, n_assets = bars["close"].shape
    days = pd.bdate_range("1990-01-01", periods=n_bars).strftime("%Y-%m-%d")
    (folder / "calendars").mkdir()
    (folder / "calendars" / "day.txt").write_text("\n".join(days) + "\n")
    (folder / "instruments").mkdir()
    lines = []
    for j in range(n_assets):
        name = f"S{j:03d}"
        first = int(np.argmax(~np.isnan(bars["close"][:, j])))
        lines.append(f"{name}\t{days[first]}\t{days[-1]}")
        target = folder / "features" / name.lower()
        target.mkdir(parents=True)
        for column in COLUMNS:
            np.hstack([first, bars[column][first:, j]]).astype("<f4").tofile(target / f"{column}.day.bin")
    (folder / "instruments" / "all.txt").write_text("\n".join(lines) + "\n")
    return [line.split("\t")[0] for line in lines]


def start_qlib(folder: Path) -> None:
    """Start qlib on one core, without caches on disk."""
    qlib.init(
        provider_uri=str(folder),
        region="us",
        kernels=1,
        joblib_backend="sequential",
        expression_cache=None,
        dataset_cache=None,
        logging_level=40,
    )


def compute_values(bars: dict[str, Any], names: list[str], fields: list[str], instruments: list[str]) -> Any:
    """Return pyqlib's values as float32 of shape (n_features, n_bars, n_assets)."""
    table = D.features(instruments, fields, freq="day")
    table.columns = names
    days = D.calendar(freq="day")
    out = np.full((len(names), *bars["close"].shape), np.nan, dtype=np.float32)
    for j, instrument in enumerate(instruments):
        out[:, :, j] = table.loc[instrument].reindex(days).to_numpy().T
    return out


def time_arithmetic(fields: list[str], instruments: list[str], n_bars: int) -> dict[str, float]:
    """Return seconds from columns in memory to series, before qlib's cast to float32 and its table.

    Nothing else is kept from before; within the round qlib keeps what several features share, as it does by default.
    """
    H.clear()
    trees = [ExpressionD.get_expression_instance(field) for field in fields]
    leaves = [ExpressionD.get_expression_instance(f"${column}") for column in COLUMNS]
    seconds = cpu_seconds = 0.0
    for instrument in instruments:
        for leaf in leaves:
            leaf.load(instrument, 0, n_bars - 1, "day")
        started, cpu_started = time.perf_counter(), time.process_time()
        for tree in trees:
            tree.load(instrument, 0, n_bars - 1, "day")
        seconds += time.perf_counter() - started
        cpu_seconds += time.process_time() - cpu_started
    return {"seconds": seconds, "cpu_seconds": cpu_seconds}


def time_whole(fields: list[str], instruments: list[str]) -> dict[str, float]:
    """Return seconds of qlib's own call, from files to a table."""
    H.clear()
    started = time.perf_counter()
    D.features(instruments, fields, freq="day")
    return {"seconds": time.perf_counter() - started}


def main() -> None:
    """Do what the arguments say."""
    mode, source = sys.argv[1:3]
    bars = dict(np.load(source))
    fields, names = Alpha158.get_feature_config(None)
    with tempfile.TemporaryDirectory() as folder:
        instruments = write_provider(bars, Path(folder))
        start_qlib(Path(folder))
        if mode == "values":
            values = compute_values(bars, names, fields, instruments)
            np.savez_compressed(sys.argv[3], values=values, names=np.array(names), version=np.array(qlib.__version__))
            return
        versions = {"pyqlib": qlib.__version__, "pandas": pd.__version__, "numpy": np.__version__}
        print(json.dumps(versions), flush=True)
        for line in sys.stdin:
            if line.strip() == "compute":
                answer = time_arithmetic(fields, instruments, len(bars["close"]))
            else:
                answer = time_whole(fields, instruments)
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
