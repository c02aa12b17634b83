"""Store pyqlib's own Alpha158 of a small panel for the tests: ``python scripts/store_alpha158_table.py PYTHON``.

PYTHON is one that has pyqlib (``python -m venv qlib && qlib/bin/pip install pyqlib==0.9.7``). The table holds the bars beside
the values, so that the tests need neither pyqlib nor the same random numbers. Prices are whole numbers of 1/64 and volumes
whole numbers below 2 ** 24, which float32 stores exactly: what differs then is the arithmetic, not the data.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "tests" / "features" / "alpha158.npz"
REFEREE = ROOT / "benchmarks" / "pyqlib_alpha158.py"
N_BARS, N_KEPT, SEED = 130, 45, 20
SYMBOLS = ("PLAIN", "LISTED", "GAP", "ODD")


def build_bars() -> dict[str, np.ndarray]:
    """Return random bars of four symbols: plain, listed late, with a gap, and with odd stretches."""
    rng = np.random.default_rng(SEED)
    shape = (N_BARS, len(SYMBOLS))
    close = ticks(np.array([40.0, 120.0, 75.0, 20.0]) * np.exp(np.cumsum(rng.normal(0.0, 0.02, shape), axis=0)))
    close[95:103, 3] = close[95, 3]
    open_ = ticks(close * np.exp(rng.normal(0.0, 0.008, shape)))
    high = ticks(np.maximum(open_, close) * np.exp(np.abs(rng.normal(0.0, 0.006, shape))))
    low = ticks(np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0.0, 0.006, shape))))
    volume = np.round(np.exp(rng.normal(11.0, 0.6, shape)))
    high[107, 3] = low[107, 3] = open_[107, 3] = close[107, 3]
    high[112, 3] = high[105:112, 3].max()
    volume[110, 3] = 0.0
    bars = {
        "open": open_,
        "high": high,
        "low": low,
        "close": close,
        "volume": volume,
        "vwap": ticks((high + low + close) / 3.0),
    }
    for column in bars.values():
        column[:60, 1] = np.nan
        column[96:98, 2] = np.nan
    return {name: column.astype(np.float32) for name, column in bars.items()}


def ticks(prices: np.ndarray) -> np.ndarray:
    """Round to 1/64."""
    return np.round(64.0 * prices) / 64.0


def main() -> None:
    """Ask pyqlib and write the table."""
    bars = build_bars()
    with tempfile.TemporaryDirectory() as folder:
        source, answer = Path(folder) / "bars.npz", Path(folder) / "values.npz"
        np.savez(source, **bars)
        subprocess.run([sys.argv[1], str(REFEREE), "values", str(source), str(answer)], check=True)
        found = dict(np.load(answer))
    np.savez_compressed(
        TABLE,
        **bars,
        symbols=np.array(SYMBOLS),
        names=found["names"],
        values=found["values"][:, -N_KEPT:],
        pyqlib=found["version"],
    )
    print(f"{TABLE.relative_to(ROOT)}: {TABLE.stat().st_size / 1000:.0f} kB, pyqlib {found['version']}")


if __name__ == "__main__":
    main()
