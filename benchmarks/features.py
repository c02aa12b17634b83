"""Time the feature engine against pyqlib, in one run: ``python -m benchmarks.features [--json] [--pyqlib PYTHON]``.

PYTHON is one that has pyqlib, in an environment of its own because its pins conflict with ours
(``python -m venv qlib && qlib/bin/pip install pyqlib==0.9.7``); without it the peer is not measured, and the run says so.

Both compute Alpha158 of the same 20 x 8,000 bars, ours as float64 into one array, pyqlib's as it comes from its operators: its
files, its cast to float32 and its table are left out here and timed apart. pyqlib starts each round with the columns in memory
and nothing else, and may share sub-expressions within the round as we do. The contestants take turns, so that a slow moment of
the machine hits all; ratios are of the best rounds. Compilation is left out and timed apart. The ratio of processor times is
printed beside, because a round of pyqlib is so much longer that a busy machine never lets it through undisturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.backtest import cpu_model, time_call
from benchmarks.two_processes import measure_ceiling
from core.market.panel import Panel
from features import FeatureStream, compute, compute_each, parse
from features.alphas import ALPHA158
from features.engine import count_bytes
from features.grammar import random_expression

N_BARS, N_ASSETS, ROUNDS = 8_000, 20, 7
N_RANDOM, BATCH, N_NEW_BARS = 1_000, 100, 200
LARGE, LARGE_BUDGET = (5_000, 500), 2**30
GOALS = {
    "pyqlib_over_aqf": 20.0,
    "two_threads_over_one": 1.8,
    "random_expressions_per_second": 300.0,
    "recompute_over_update": 50.0,
}
MEMORY_GOAL_GIB = 2.0
REFEREE = Path(__file__).with_name("pyqlib_alpha158.py")
PACKAGES = ("numpy", "numba", "pandas")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_MAX_THREADS"), "1")


def build_bars(n_bars: int, n_assets: int, seed: int) -> Panel:
    """Return a random walk with opens, ranges and volumes."""
    rng = np.random.default_rng(seed)
    close = 100.0 * np.cumprod(1.0 + 0.01 * rng.standard_normal((n_bars, n_assets)), axis=0)
    open_ = close * (1.0 + 0.003 * rng.standard_normal(close.shape))
    return Panel(
        index=pd.bdate_range("1990-01-01", periods=n_bars, tz="UTC"),
        symbols=tuple(f"S{i:03d}" for i in range(n_assets)),
        close=close,
        open=open_,
        high=np.maximum(open_, close) * (1.0 + 0.003 * np.abs(rng.standard_normal(close.shape))),
        low=np.minimum(open_, close) * (1.0 - 0.003 * np.abs(rng.standard_normal(close.shape))),
        volume=np.round(np.exp(11.0 + 0.6 * rng.standard_normal(close.shape))),
    )


@contextmanager
def open_pyqlib(python: str, panel: Panel) -> Iterator[subprocess.Popen[str]]:
    """Start pyqlib on these bars; it runs one round for each line it is sent."""
    bars = {name: panel.get(name).astype(np.float32) for name in ("open", "high", "low", "close", "volume")}
    bars["vwap"] = (bars["high"] + bars["low"] + bars["close"]) / np.float32(3.0)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "bars.npz"
        np.savez(source, **bars)
        command = [python, str(REFEREE), "time", str(source)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **ONE_THREAD}
        ) as process:
            yield process
            process.stdin.close()  # type: ignore[union-attr]


def ask(process: subprocess.Popen[str], line: str = "") -> dict[str, Any]:
    """Send a line, unless it is empty, and return the object that comes back."""
    if line:
        process.stdin.write(f"{line}\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
    answer = process.stdout.readline()  # type: ignore[union-attr]
    if not answer:
        raise SystemExit(f"{process.args} ended without an answer; does this Python have pyqlib?")
    found: dict[str, Any] = json.loads(answer)
    return found


def time_alpha158(panel: Panel, rounds: int, python: str | None) -> dict[str, Any]:
    """Return milliseconds a feature with one thread, with two, and with pyqlib."""
    expressions = [parse(text) for text in ALPHA158.values()]
    first, _ = time_call(lambda: compute(expressions, panel, threads=1))
    one, each, two, cpu, theirs, their_cpu, whole = [], [], [], [], [], [], []
    peer: dict[str, Any] = {}

    def take_turns(process: subprocess.Popen[str] | None) -> None:
        for turn in range(rounds):
            for _ in range(2):  # the first finds the caches full of pyqlib, whose long round has time to fill them again
                started = time.process_time()
                one.append(time_call(lambda: compute(expressions, panel, threads=1))[0])
                cpu.append(time.process_time() - started)
                each.append(time_call(lambda: deque(compute_each(expressions, panel, threads=1), maxlen=0))[0])
                two.append(time_call(lambda: compute(expressions, panel, threads=2))[0])
            if process is not None:
                answer = ask(process, "compute")
                theirs.append(answer["seconds"])
                their_cpu.append(answer["cpu_seconds"])
                if turn == 0:
                    whole.append(ask(process, "whole")["seconds"])

    if python is None:
        take_turns(None)
    else:
        with open_pyqlib(python, panel) as process:
            peer = {f"pyqlib_{name}": value for name, value in ask(process).items()}
            ask(process, "compute")
            take_turns(process)
    ms = 1e3 / len(expressions)
    touched = count_bytes(expressions, panel) / min(one) / 1e9
    copied = copy_speed()
    figures = {
        "aqf_first_seconds": first,
        "aqf_ms": ms * min(one),
        "aqf_one_by_one_ms": ms * min(each),
        "aqf_two_threads_ms": ms * min(two),
        "two_threads_over_one": min(one) / min(two),
        "two_processes_over_one": measure_ceiling(prepare_alpha158),
        "touched_gb_per_second": touched,
        "copy_gb_per_second": copied,
        "touched_over_copy": touched / copied,
    }
    if theirs:
        figures["pyqlib_ms"] = ms * min(theirs)
        figures["pyqlib_with_files_and_table_ms"] = ms * min(whole)
        figures["pyqlib_over_aqf"] = min(theirs) / min(one)
        figures["pyqlib_over_aqf_one_by_one"] = min(theirs) / min(each)
        figures["pyqlib_over_aqf_processor_time"] = min(their_cpu) / min(cpu)
    return {**figures, **peer}


def prepare_alpha158() -> Callable[[], Any]:
    """Build what the two processes of the ceiling do: Alpha158 on one thread."""
    panel = build_bars(N_BARS, N_ASSETS, 1)
    expressions = [parse(text) for text in ALPHA158.values()]
    return lambda: compute(expressions, panel, threads=1)


def copy_speed() -> float:
    """Return GB a second read and written when one large array is copied onto another."""
    source, target = np.ones(32_000_000), np.zeros(32_000_000)
    seconds = min(time_call(lambda: np.copyto(target, source))[0] for _ in range(5))
    return 2 * source.nbytes / seconds / 1e9


def time_random(panel: Panel, rounds: int) -> dict[str, Any]:
    """Return random expressions a second on one core, in batches as a planner judges them."""
    rng = np.random.default_rng(7)
    expressions = [random_expression(rng, panel.fields) for _ in range(N_RANDOM)]

    def run() -> None:
        for start in range(0, N_RANDOM, BATCH):
            compute(expressions[start : start + BATCH], panel, threads=1)

    run()
    seconds = min(time_call(run)[0] for _ in range(rounds))
    return {"random_expressions": N_RANDOM, "random_batch": BATCH, "random_expressions_per_second": N_RANDOM / seconds}


def time_updates(panel: Panel, rounds: int) -> dict[str, Any]:
    """Return what a new bar costs in a stream, and computing the last values again from all bars or from those needed."""
    expressions = [parse(text) for text in ALPHA158.values()]
    lookback = max(expression.lookback for expression in expressions)
    start = panel.n_bars - N_NEW_BARS
    bars = [panel.slice(t, t + 1) for t in range(start, panel.n_bars)]
    update, every, needed = [], [], []
    for _ in range(rounds):
        stream = FeatureStream(expressions, panel.slice(0, start))
        update.append(time_call(lambda stream=stream: [stream.update(bar) for bar in bars])[0] / N_NEW_BARS)  # type: ignore[misc]
        every.append(time_call(lambda: compute(expressions, panel, threads=1))[0])
        needed.append(time_call(lambda: compute(expressions, panel.slice(-lookback - 1), threads=1))[0])
    return {
        "update_ms": 1e3 * min(update),
        "recompute_ms": 1e3 * min(every),
        "recompute_lookback_ms": 1e3 * min(needed),
        "recompute_over_update": min(every) / min(update),
        "recompute_lookback_over_update": min(needed) / min(update),
    }


def measure_memory() -> dict[str, Any]:
    """Return the peak of a fresh process that computes Alpha158 of 500 x 5,000 one after the other."""
    command = [sys.executable, "-m", "benchmarks.features", "--large"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(answer)
    return found


def run_large() -> dict[str, Any]:
    """Compute Alpha158 of 500 x 5,000 in this process, reading every result, and return its peak."""
    panel = build_bars(*LARGE, seed=8)

    def run() -> int:
        results = compute_each(list(ALPHA158.values()), panel, memory_budget=LARGE_BUDGET)
        return sum(int(np.isfinite(values).sum()) for _, values in results)

    seconds, known = time_call(run)
    return {"large_peak_gib": peak_gib(), "large_seconds": seconds, "large_share_known": known / (158 * panel.close.size)}


def peak_gib() -> float:
    """Return the most memory this process ever held."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory as well
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2 ** (30 if sys.platform == "darwin" else 20)


def run_benchmark(rounds: int = ROUNDS, python: str | None = None) -> dict[str, Any]:
    """Run everything and return the figures."""
    panel = build_bars(N_BARS, N_ASSETS, seed=7)
    if python is None and find_spec("qlib") is not None:
        python = sys.executable
    return {
        "bars": N_BARS,
        "assets": N_ASSETS,
        "rounds": rounds,
        **time_alpha158(panel, rounds, python),
        **time_random(panel, max(2, rounds // 3)),
        **time_updates(panel, max(2, rounds // 3)),
        **measure_memory(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def main() -> None:
    """Print the figures beside their goals, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"timed rounds (default {ROUNDS})")
    parser.add_argument("--pyqlib", metavar="PYTHON", help="a Python that has pyqlib; this one, if it has")
    parser.add_argument("--large", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.pyqlib is not None and shutil.which(arguments.pyqlib) is None:
        parser.error(f"--pyqlib must name a Python that can be run, was {arguments.pyqlib}")
    if arguments.large:
        print(json.dumps(run_large()))
        return
    figures = run_benchmark(arguments.rounds, arguments.pyqlib)
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    print_figures(figures)


def print_figures(figures: dict[str, Any]) -> None:
    """Print the figures as a table."""
    print(f"Alpha158 on {N_ASSETS} assets x {N_BARS:,} bars, ms a feature, best of {figures['rounds']} rounds in turns")
    print(f"  AQF, one thread    {figures['aqf_ms']:>10.3f}   (first call, compiling if need be: ", end="")
    print(f"{figures['aqf_first_seconds']:.1f} s in all)")
    print(f"  AQF, one by one    {figures['aqf_one_by_one_ms']:>10.3f}   (each handed over and let go, as pyqlib's)")
    print(f"  AQF, two threads   {figures['aqf_two_threads_ms']:>10.3f}")
    if "pyqlib_ms" in figures:
        print(f"  pyqlib, one core   {figures['pyqlib_ms']:>10.3f}   (with its files, cast and table: ", end="")
        print(f"{figures['pyqlib_with_files_and_table_ms']:.3f})")
    else:
        print("  pyqlib was not measured: pass --pyqlib PYTHON, one that has pyqlib==0.9.7")
    for name in ("pyqlib_over_aqf_one_by_one", "pyqlib_over_aqf_processor_time"):
        if name in figures:
            print(f"{name:32}{figures[name]:>10.1f}")
    for name, goal in GOALS.items():
        if name in figures:
            print(f"{name:32}{figures[name]:>10.1f} (goal {goal:g})")
    print(f"two processes that share nothing do {figures['two_processes_over_one']:.2f} times the work of one")
    print(f"a new bar: {figures['update_ms']:.3f} ms; all bars again {figures['recompute_ms']:.1f} ms, only the last ", end="")
    print(
        f"lookback + 1 again {figures['recompute_lookback_ms']:.2f} ms ({figures['recompute_lookback_over_update']:.1f} times)"
    )
    print(
        f"{LARGE[1]} x {LARGE[0]:,}, 158 features: peak {figures['large_peak_gib']:.2f} GiB (goal {MEMORY_GOAL_GIB:g}), ",
        end="",
    )
    print(f"{figures['large_seconds']:.1f} s with compiling, {figures['large_share_known']:.1%} known")
    print(f"touched {figures['touched_gb_per_second']:.1f} GB/s, a copy {figures['copy_gb_per_second']:.1f} GB/s: ", end="")
    print(f"{figures['touched_over_copy']:.2f} of it")
    print(f"{figures['cpu']}, {figures['cores']} cores; Python {figures['python']}, ", end="")
    print(", ".join(f"{package} {figures[package]}" for package in PACKAGES), end="")
    print(f"; pyqlib {figures['pyqlib_pyqlib']} with pandas {figures['pyqlib_pandas']}" if "pyqlib_pyqlib" in figures else "")


if __name__ == "__main__":
    main()
