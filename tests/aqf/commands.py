"""Runs the real command in a process of its own, in a home of its own."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np

from core.market.panel import Panel

ROOT = Path(__file__).resolve().parents[2]


def environment(home: Path, **extra: str) -> dict[str, str]:
    """Return the environment of a command: this process's own, the checkout on the path, and a home."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**kept, "PYTHONPATH": str(ROOT), "AQF_HOME": str(home), "COLUMNS": "200", **extra}


def aqf(home: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m aqf`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "aqf", *arguments],
        env=environment(home, **extra),
        cwd=ROOT.anchor,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def start_aqf(home: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start ``python -m aqf`` in a group of its own and deaf to nothing, as a shell does in the foreground.

    A test run that was put in the background ignores SIGINT, and its children would inherit that.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "aqf", *arguments],
        env=environment(home),
        cwd=ROOT.anchor,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def write_csv(panel: Panel, path: Path) -> Path:
    """Write bars in the long form that `aqf data import` reads."""
    lines = ["symbol,ts,open,high,low,close,volume"]
    columns = [panel.get(name) for name in ("open", "high", "low", "close", "volume")]
    for asset, symbol in enumerate(panel.symbols):
        for bar, ts in enumerate(panel.index):
            values = [column[bar, asset] for column in columns]
            cells = ["" if np.isnan(value) else repr(float(value)) for value in values]
            lines.append(",".join([symbol, f"{ts:%Y-%m-%d}", *cells]))
    path.write_text("\n".join(lines) + "\n")
    return path
