"""Time our kernels against vectorbt, in one run: ``python -m benchmarks.backtest [--json]``.

First one book of weights, then a sweep of crossings (`benchmarks.crossings`, minutes). For the book, both trade the same
20 x 8,000 dollar-neutral weights with costs and compute total return, Sharpe ratio and maximum drawdown. The two are run in
turns, so that a slow moment of the machine hits both. Compilation is left out on both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from backtest import BacktestConfig, run_backtest
from backtest.metrics import max_drawdown, sharpe_ratio, total_return
from backtest.portfolio import scores_to_weights
from benchmarks import crossings
from core.market.panel import Panel

N_BARS, N_ASSETS, ROUNDS = 8_000, 20, 15
PACKAGES = ("numpy", "numba", "pandas", "vectorbt")


def build_book(seed: int) -> tuple[Panel, np.ndarray]:
    """Return a random-walk panel and ranked random weights."""
    rng = np.random.default_rng(seed)
    close = 100.0 * np.cumprod(1.0 + 0.01 * rng.standard_normal((N_BARS, N_ASSETS)), axis=0, dtype=np.float64)
    panel = Panel(
        index=pd.bdate_range("1990-01-01", periods=N_BARS, tz="UTC"),
        symbols=tuple(f"S{i:02d}" for i in range(N_ASSETS)),
        close=close,
    )
    return panel, scores_to_weights(rng.standard_normal(close.shape), holding_bars=5)


def time_call(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds and the value of one call."""
    start = time.perf_counter()
    value = call()
    return time.perf_counter() - start, value


def run_benchmark(rounds: int = ROUNDS) -> dict[str, Any]:
    """Run both in turns and return the figures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from backtest.vectorbt_bridge import run_with_vectorbt

        config = BacktestConfig(borrow_rate=0.0)
        panel, weights = build_book(seed=7)

        def ours() -> tuple[Any, list[float]]:
            result = run_backtest(panel, weights, config)
            returns = result.net_returns
            return result.equity, [total_return(returns), sharpe_ratio(returns), max_drawdown(returns)]

        def theirs() -> tuple[Any, list[float]]:
            portfolio = run_with_vectorbt(panel, weights, config)
            sharpe = portfolio.sharpe_ratio(year_freq="252 days")
            return portfolio, [portfolio.total_return(), sharpe, portfolio.max_drawdown()]

        cold_seconds, (equity, our_figures) = time_call(ours)
        portfolio, their_figures = theirs()
        difference = float(np.max(np.abs(equity / portfolio.value().to_numpy() - 1.0)))
        gap = float(np.max(np.abs(np.array(our_figures) / np.array(their_figures) - 1.0)))
        our_seconds, their_seconds, our_bare, their_bare = [], [], [], []
        for _ in range(rounds):
            our_seconds.append(time_call(ours)[0])
            their_seconds.append(time_call(theirs)[0])
            our_bare.append(time_call(lambda: run_backtest(panel, weights, config))[0])
            their_bare.append(time_call(lambda: run_with_vectorbt(panel, weights, config))[0])
    return {
        "bars": N_BARS,
        "assets": N_ASSETS,
        "rounds": rounds,
        "aqf_first_seconds": cold_seconds,
        "aqf_best_ms": 1e3 * min(our_seconds),
        "aqf_median_ms": 1e3 * statistics.median(our_seconds),
        "vectorbt_best_ms": 1e3 * min(their_seconds),
        "vectorbt_median_ms": 1e3 * statistics.median(their_seconds),
        "ratio_best": min(their_seconds) / min(our_seconds),
        "ratio_median": statistics.median(their_seconds) / statistics.median(our_seconds),
        "aqf_simulation_best_ms": 1e3 * min(our_bare),
        "vectorbt_simulation_best_ms": 1e3 * min(their_bare),
        "ratio_simulation_best": min(their_bare) / min(our_bare),
        "largest_relative_equity_difference": difference,
        "largest_relative_metric_difference": gap,
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def cpu_model() -> str:
    """Return the processor's name, as well as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    """Print the figures as a table, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"timed rounds (default {ROUNDS})")
    parser.add_argument("--book-only", action="store_true", help="leave the sweep of crossings out")
    arguments = parser.parse_args()
    figures = run_benchmark(arguments.rounds)
    if not arguments.book_only:
        figures["crossings"] = crossings.run_benchmark()
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    print(f"{N_ASSETS} assets x {N_BARS:,} bars, costs, 3 metrics; {figures['rounds']} rounds in turns")
    print(f"{'':10}{'best ms':>10}{'median ms':>12}")
    print(f"{'AQF':10}{figures['aqf_best_ms']:>10.2f}{figures['aqf_median_ms']:>12.2f}")
    print(f"{'vectorbt':10}{figures['vectorbt_best_ms']:>10.2f}{figures['vectorbt_median_ms']:>12.2f}")
    print(f"{'ratio':10}{figures['ratio_best']:>10.1f}{figures['ratio_median']:>12.1f}")
    print(f"simulation alone, best ms: AQF {figures['aqf_simulation_best_ms']:.2f}, ", end="")
    print(f"vectorbt {figures['vectorbt_simulation_best_ms']:.2f}, ratio {figures['ratio_simulation_best']:.1f}")
    print(f"largest relative difference: equity {figures['largest_relative_equity_difference']:.1e}, ", end="")
    print(f"metrics {figures['largest_relative_metric_difference']:.1e}")
    if "crossings" in figures:
        crossings.print_report(figures["crossings"])
    print(f"{figures['cpu']}, {figures['cores']} cores; Python {figures['python']}, ", end="")
    print(", ".join(f"{package} {figures[package]}" for package in PACKAGES))


if __name__ == "__main__":
    main()
