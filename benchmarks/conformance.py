"""Classify UCR/UEA series by our TS2Vec embeddings: ``python -m benchmarks.conformance AEON [--json] [--data-set NAME]``.

AEON is the wheel of aeon 1.6 (``pip download aeon==1.6 --no-deps``), which carries the series; they are read out of it and
neither installed nor copied. Needs the extra ``ts2vec``. Network, loss, batches of 8, learning rate, 200 iterations, and a
support vector machine with the penalty chosen by five folds, are the authors'; so is the representation, neither centred nor
scaled. Goals are for the mean accuracy of three seeds.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

from benchmarks.backtest import cpu_model
from features.encoders.contrastive import TS2VecSettings, import_torch
from features.encoders.ts2vec import TS2VecEncoder

GOALS = {"ItalyPowerDemand": 0.93, "GunPoint": 0.96, "ArrowHead": 0.78, "BasicMotions": 0.95}
SEEDS = (0, 1, 2)
SETTINGS = {"batch_size": 8, "learning_rate": 0.001, "iterations": 200}
PENALTIES = (*(10.0**power for power in range(-4, 5)), np.inf)

Series = npt.NDArray[np.float64]
Labels = npt.NDArray[np.str_]


def read_series(wheel: zipfile.ZipFile, name: str, part: str) -> tuple[Series, Labels]:
    """Return series of shape (n, bars, channels) and their classes from a ``.ts`` file of the wheel."""
    text = wheel.read(f"aeon/datasets/data/{name}/{name}_{part}.ts").decode()
    series, labels = [], []
    for line in text.splitlines():
        if line.strip() and line[0] not in "#@":
            *channels, label = line.split(":")
            series.append(np.array([[float(value) for value in channel.split(",")] for channel in channels]).T)
            labels.append(label.strip())
    return np.stack(series), np.array(labels)


def probe(train: Series, train_labels: Labels, test: Series, test_labels: Labels) -> float:
    """Return the accuracy of the authors' support vector machine on embeddings."""
    machine = SVC(C=np.inf, gamma="scale", max_iter=10_000_000)
    if len(train) // len(np.unique(train_labels)) >= 5 and len(train) >= 50:
        machine = GridSearchCV(machine, {"C": PENALTIES}, cv=5)
    return float(machine.fit(train, train_labels).score(test, test_labels))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread, so that seeds mean the same everywhere."""
    torch = import_torch()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_benchmark(aeon: Path, names: tuple[str, ...] = tuple(GOALS)) -> dict[str, Any]:
    """Train and classify each data set with each seed."""
    figures: dict[str, Any] = {}
    start = time.perf_counter()
    with zipfile.ZipFile(aeon) as wheel, one_thread():
        for name in names:
            train, train_labels = read_series(wheel, name, "TRAIN")
            test, test_labels = read_series(wheel, name, "TEST")
            figures[name] = []
            for seed in SEEDS:
                encoder = TS2VecEncoder(TS2VecSettings(seed=seed, **SETTINGS), threads=1).fit(train)  # type: ignore[arg-type]
                embeddings = [encoder.represent(part).astype(np.float64) for part in (train, test)]
                figures[name].append(probe(embeddings[0], train_labels, embeddings[1], test_labels))
    figures["seconds"] = time.perf_counter() - start
    return figures | {"cpu": cpu_model(), "python": platform.python_version()}


def main() -> None:
    """Print each accuracy beside its goal, or JSON; exit with 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aeon", type=Path, help="the wheel of aeon 1.6")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--data-set", action="append", choices=tuple(GOALS), help="only these (default: all)")
    arguments = parser.parse_args()
    names = tuple(arguments.data_set or GOALS)
    figures = run_benchmark(arguments.aeon, names)
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        for name in names:
            seeds = ", ".join(f"{accuracy:.3f}" for accuracy in figures[name])
            print(f"{name:20}{np.mean(figures[name]):>8.3f} (goal {GOALS[name]:g}; seeds {seeds})")
        print(f"{figures['seconds']:.0f} s; {figures['cpu']}; Python {figures['python']}")
    missed = [name for name in names if np.mean(figures[name]) < GOALS[name]]
    if missed:
        raise SystemExit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
