"""Time the stages of a research run on real prices, first and second time: ``python -m benchmarks.demo [--json]``.

Everything happens in a world of its own, which is deleted afterwards. The first run pays for starting the database,
loading the prices and whatever numba has not compiled before.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

TRIALS = 78
_STAGES = {
    "started": "open the store, load the data",
    "recalled": "recall",
    "planned": "search and vectors",
    "tool": "search and vectors",
    "judged": "judge",
    "reported": "report",
}


def run_benchmark(trials: int = TRIALS) -> dict[str, Any]:
    """Run the demo's research twice and return seconds by stage."""
    with tempfile.TemporaryDirectory() as folder:
        return {"first": _time_run(Path(folder), trials), "second": _time_run(Path(folder), trials), "trials": trials}


def _time_run(home: Path, trials: int) -> dict[str, float]:
    started = time.perf_counter()
    from agents import Budget, Event, ResearchContext, run_planner
    from core.settings import Settings

    stages = {"import": time.perf_counter() - started}
    last = time.perf_counter()

    def on_event(event: Event) -> None:
        nonlocal last
        now = time.perf_counter()
        stage = _STAGES[event.kind]
        stages[stage] = stages.get(stage, 0.0) + now - last
        last = now

    with ResearchContext.from_settings(Settings(home=home / "aqf")) as context:
        run_planner(
            "Is there a short-horizon reversal?",
            budget=Budget(trials=trials),
            planner="rules",
            context=context,
            on_event=on_event,
        )
    stages["total"] = time.perf_counter() - started
    return stages


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = run_benchmark()
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"research on sp500_20 with {figures['trials']} trials, seconds by stage (first run, second run)")
    for stage, seconds in figures["first"].items():
        print(f"  {stage:32}{seconds:8.2f}{figures['second'].get(stage, 0.0):8.2f}")


if __name__ == "__main__":
    main()
