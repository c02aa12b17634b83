"""Time how soon `aqf --help` answers, and name what it must not import: ``python -m benchmarks.command_line [--json]``."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

ROUNDS = 9
HEAVY = ("langgraph", "langchain_core", "pandas", "numpy", "numba", "matplotlib", "psycopg", "pydantic")


def run_benchmark(rounds: int = ROUNDS) -> dict[str, Any]:
    """Start the command several times and return the figures."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "aqf", "--help"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    program = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from aqf.cli import aqf\n"
        "assert CliRunner().invoke(aqf, ['--help']).exit_code == 0\n"
        f"print(' '.join(name for name in {HEAVY!r} if name in sys.modules))"
    )
    imported = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    return {
        "help_median_seconds": statistics.median(seconds),
        "help_worst_seconds": max(seconds),
        "heavy_modules_imported": imported,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = run_benchmark()
    if arguments.json:
        print(json.dumps(figures))
        return
    print(
        f"aqf --help: median {figures['help_median_seconds']:.3f} s, worst {figures['help_worst_seconds']:.3f} s (goal 0.3 s)"
    )
    print(f"heavy modules imported by it: {', '.join(figures['heavy_modules_imported']) or 'none'}")


if __name__ == "__main__":
    main()
