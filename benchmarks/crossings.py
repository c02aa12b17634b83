"""Time a sweep of crossings against vectorbt's engines, each in fresh processes: ``python -m benchmarks.crossings [--json]``.

All pairs of moving averages of 2 to 143 bars over 2,500 bars, without and with stops; total return, Sharpe ratio, drawdown,
number of trades and win rate of each. Ours is timed with its averages and its search for crossings; vectorbt is given the
signals ready made, and its time is that of ``Portfolio.from_signals`` and the figures. Compilation is left out on both sides.
Microseconds are those of the processor, so that a busy machine favours neither, but for two threads those of the clock.
vectorbt's second engine is timed when the package `vectorbt-rust` is installed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from backtest import BacktestConfig, MovingAverageCrossings, run_sweep
from benchmarks.two_processes import measure_ceiling
from core.market.panel import Panel

N_BARS, ROUNDS = 2_500, 3
OUR_ROUNDS = 15  # of each process; vectorbt has one round a process
STOPS = {"stop_loss": 0.05, "take_profit": 0.10}
CONFIG = BacktestConfig(borrow_rate=0.0)
FIGURES = ("total_return", "sharpe", "max_drawdown", "n_trades", "win_rate")
WARM_UP = 8


def build_market(n_bars: int, seed: int = 7) -> Panel:
    """Return one asset with open, high and low."""
    rng = np.random.default_rng(seed)
    close = 100.0 * np.cumprod(1.0 + 0.0003 + 0.01 * rng.standard_normal((n_bars, 1)), axis=0, dtype=np.float64)
    opened = close * (1.0 + 0.003 * rng.standard_normal(close.shape))
    return Panel(
        index=pd.bdate_range("2010-01-01", periods=n_bars, tz="UTC"),
        symbols=("A",),
        close=close,
        open=opened,
        high=np.maximum(opened, close) * (1.0 + 0.004 * rng.random(close.shape)),
        low=np.minimum(opened, close) * (1.0 - 0.004 * rng.random(close.shape)),
    )


def build_family(stops: bool, longest: int = 143) -> MovingAverageCrossings:
    """Return all pairs of averages up to a window."""
    return MovingAverageCrossings(fast=range(2, longest + 1), slow=range(2, longest + 1), **(STOPS if stops else {}))


def build_grid() -> MovingAverageCrossings:
    """Return every pair with ten levels of stop loss, for the threads: long enough that starting them is nothing."""
    losses = tuple(float(level) for level in np.linspace(0.02, 0.11, 10))
    return dataclasses.replace(build_family(True), stop_loss=losses)


def time_ours(panel: Panel, family: MovingAverageCrossings, rounds: int) -> tuple[dict[str, float], np.ndarray]:
    """Return the best seconds of a whole sweep on one thread and on two, in turns, and its figures."""
    one = two = processor = np.inf
    for _ in range(rounds + 1):  # the first compiles
        start, used = time.perf_counter(), time.process_time()
        sweep = run_sweep(panel, family, CONFIG, n_threads=1)
        one, processor = min(one, time.perf_counter() - start), min(processor, time.process_time() - used)
        start = time.perf_counter()
        run_sweep(panel, family, CONFIG, n_threads=2)
        two = min(two, time.perf_counter() - start)
    figures = np.array([sweep.table[name] for name in FIGURES], dtype=np.float64)
    return {"seconds": processor, "one_thread": one, "two_threads": two}, figures


def prepare_sweep() -> Callable[[], Any]:
    """Build what the two processes of the ceiling do: a sweep with stops on one thread, some times over."""
    panel, family = build_market(N_BARS), build_family(True)

    def sweep() -> None:
        for _ in range(20):
            run_sweep(panel, family, CONFIG, n_threads=1)

    return sweep


def time_vectorbt(panel: Panel, family: MovingAverageCrossings, chunk: int) -> tuple[dict[str, float], np.ndarray]:
    """Return the seconds of vectorbt's simulation and figures, chunk by chunk, and the figures."""
    import vectorbt

    from backtest.crossings import build_strategy

    close = panel.frame("close").tz_localize(None).iloc[:, 0]
    stop_loss, take_profit, _ = family.stops[0]

    def simulate(entries: np.ndarray, exits: np.ndarray) -> list[np.ndarray]:
        portfolio = vectorbt.Portfolio.from_signals(
            close,
            entries=entries,
            exits=exits,
            open=panel.open,
            high=panel.high,
            low=panel.low,
            size=1.0,
            size_type="percent",
            fees=CONFIG.commission_bps * 1e-4,
            slippage=CONFIG.slippage_bps * 1e-4,
            init_cash=CONFIG.initial_cash,
            sl_stop=stop_loss,
            tp_stop=take_profit,
            stop_entry_price="price",
            stop_exit_price="stopmarket",
            freq="1D",
        )
        sharpe = portfolio.sharpe_ratio(year_freq="252 days")
        trades = portfolio.trades
        return [portfolio.total_return(), sharpe, portfolio.max_drawdown(), trades.count(), trades.closed.win_rate()]

    lines = family.lines(panel.close[:, 0])
    above = lines[family.pairs[:, 0]] > lines[family.pairs[:, 1]]
    known = np.isfinite(lines)[family.pairs[:, 1]]
    entries, exits = np.zeros((2, panel.n_bars, len(above)), bool)
    entries[2:] = (above[:, 1:-1] & ~above[:, :-2] & known[:, :-2]).T  # decided at one bar, filled at the next
    exits[2:] = (~above[:, 1:-1] & above[:, :-2]).T
    lone = build_strategy(family, panel.close[:, 0], len(above) - 1)
    if not np.array_equal(lone.entries[:-1, 0], entries[1:, -1]):
        raise RuntimeError("the signals given to vectorbt are not those of the sweep; the benchmark is wrong.")

    simulate(entries[:, :WARM_UP], exits[:, :WARM_UP])
    parts = [slice(first, first + chunk) for first in range(0, len(above), chunk)]
    start = time.process_time()
    figures = [np.array(simulate(entries[:, part], exits[:, part])) for part in parts]
    return {"seconds": time.process_time() - start}, np.concatenate(figures, axis=1)


def measure_peak_megabytes() -> float:
    """Return the largest resident memory of this process; Linux tells it without what the parent had."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(float(line.split()[1]) / 1024.0 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run_child(engine: str, stops: bool, chunk: int, file: str) -> dict[str, float]:
    """Time one engine in this process and leave its figures in a file."""
    warnings.simplefilter("ignore")
    panel, family = build_market(N_BARS), build_family(stops)
    if engine == "aqf":
        times, figures = time_ours(panel, family, OUR_ROUNDS)
        times["megabytes"] = measure_peak_megabytes()
        grid, _ = time_ours(panel, build_grid(), 2)
        times |= {"grid_one_thread": grid["one_thread"], "grid_two_threads": grid["two_threads"]}
    else:
        import vectorbt

        vectorbt.settings["engine"] = engine
        times, figures = time_vectorbt(panel, family, chunk)
    np.save(file, figures)
    return {"megabytes": measure_peak_megabytes()} | times


def run_benchmark(rounds: int = ROUNDS, chunk: int = 1_000_000) -> dict[str, Any]:
    """Run every engine in turns, each in a fresh process, and return the figures."""
    engines = ["aqf", "numba", *(["rust"] if find_spec("vectorbt_rust") else [])]
    report: dict[str, Any] = {"bars": N_BARS, "combinations": len(build_family(False)), "rounds": rounds}
    report["two_processes_over_one"] = measure_ceiling(prepare_sweep)
    for stops in (False, True):
        best: dict[str, dict[str, float]] = {}
        figures: dict[str, np.ndarray] = {}
        with tempfile.TemporaryDirectory() as folder:
            for engine in engines * rounds:
                file = str(Path(folder) / f"{engine}.npy")
                options = {"engine": engine, "stops": stops, "chunk": chunk, "file": file}
                command = [sys.executable, "-m", "benchmarks.crossings", "--child", json.dumps(options)]
                answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                known = best.setdefault(engine, answer)
                best[engine] = {name: min(known[name], answer[name]) for name in answer}
                figures[engine] = np.load(file)
        report["with_stops" if stops else "without_stops"] = summarise(best, figures)
    return report


def summarise(best: dict[str, dict[str, float]], figures: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return microseconds a combination, memory, ratios and the largest difference of one setting."""
    count = figures["aqf"].shape[1]
    ours, theirs = best["aqf"], {engine: run for engine, run in best.items() if engine != "aqf"}
    faster = min(theirs, key=lambda engine: theirs[engine]["seconds"])
    scale = np.maximum(1.0, np.abs(figures["aqf"]))
    return {
        "aqf_us": 1e6 * ours["seconds"] / count,
        "aqf_one_thread_clock_us": 1e6 * ours["one_thread"] / count,
        "aqf_two_threads_clock_us": 1e6 * ours["two_threads"] / count,
        "two_threads_ratio": ours["one_thread"] / ours["two_threads"],
        "two_threads_ratio_of_grid": ours["grid_one_thread"] / ours["grid_two_threads"],
        "aqf_megabytes": ours["megabytes"],
        **{f"vectorbt_{engine}_us": 1e6 * run["seconds"] / count for engine, run in theirs.items()},
        **{f"vectorbt_{engine}_megabytes": run["megabytes"] for engine, run in theirs.items()},
        "faster_engine": faster,
        "ratio": theirs[faster]["seconds"] / ours["seconds"],
        "memory_ratio": theirs[faster]["megabytes"] / ours["megabytes"],
        "largest_difference": float(max(np.nanmax(np.abs(figures[engine] - figures["aqf"]) / scale) for engine in theirs)),
        "same_undefined": all(np.array_equal(np.isnan(figures[engine]), np.isnan(figures["aqf"])) for engine in theirs),
        "trades_per_combination": float(figures["aqf"][FIGURES.index("n_trades")].mean()),
    }


def print_report(report: dict[str, Any]) -> None:
    """Print the figures as a table."""
    print(f"{report['combinations']:,} crossings x {report['bars']:,} bars, costs; best of {report['rounds']} processes")
    for name in ("without_stops", "with_stops"):
        part = report[name]
        print(f"{name.replace('_', ' ')}, {part['trades_per_combination']:.1f} trades each")
        print(f"  AQF       {part['aqf_us']:>9.2f} us a combination, {part['aqf_megabytes']:>6.0f} MB; ", end="")
        print(f"two threads {part['two_threads_ratio']:.2f} times as fast, ", end="")
        print(f"{part['two_threads_ratio_of_grid']:.2f} on ten times as many")
        for engine in ("numba", "rust"):
            if f"vectorbt_{engine}_us" in part:
                print(f"  vectorbt  {part[f'vectorbt_{engine}_us']:>9.2f} us a combination, ", end="")
                print(f"{part[f'vectorbt_{engine}_megabytes']:>6.0f} MB ({engine})")
        print(f"  ratio     {part['ratio']:>9.0f} (to {part['faster_engine']}), memory {part['memory_ratio']:.1f}, ", end="")
        print(f"largest difference {part['largest_difference']:.1e}")
    print(f"two processes that share nothing do {report['two_processes_over_one']:.2f} times the work of one")


def main() -> None:
    """Print the figures as a table, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"processes of each engine (default {ROUNDS})")
    parser.add_argument(
        "--chunk", type=int, default=1_000_000, help="combinations that vectorbt simulates at once (default all)"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(run_child(**json.loads(arguments.child))))
        return
    report = run_benchmark(arguments.rounds, arguments.chunk)
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print_report(report)


if __name__ == "__main__":
    main()
