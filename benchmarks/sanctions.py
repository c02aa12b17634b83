"""Judge and time the sanctions matching: ``python -m benchmarks.sanctions [--json] [--failures N]``.

Quality is measured on a stock of names, and with a seed, that the matching was not tuned on; the stock that it was tuned on is
printed beside. The goals are for what Hades refuses, from a score of 0.95 on. What is only downgraded for review, from 0.85 on,
is traded at a smaller size; recall and precision with it stand beside. Namesakes (the same given and family name with another
middle name, a company with a word more) are told apart: none should be refused. Whoever wants to see what went wrong asks for
failures, of refusing. A timed screening is all that Hades does with one signal: supplier, headline and
summary against 30,000 listed names and the ESG terms, each signal with words that were not seen before; the best of ten rounds.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any
from uuid import UUID

import numpy as np

from agents.trading.hades import Hades, HadesConfig
from agents.trading.name_index import NameIndex, NameMatch
from agents.trading.sanctions import ListFormat, SanctionsList, ScreeningLists
from benchmarks.backtest import cpu_model
from benchmarks.sanctions_names import MEASURING, TUNING, Case, Evaluation, build_evaluation
from benchmarks.sanctions_namesakes import build_namesakes
from core.clock import FixedClock
from core.types import RawSignal, Severity, SignalCategory

NOW = datetime(2024, 3, 4, 15, 30, tzinfo=UTC)
REFUSES, REVIEWS = HadesConfig().kill_score, HadesConfig().review_score
N_NAMESAKES = 500
LARGE, SMALL, N_CASES, N_TIMED, ROUNDS = 30_000, 5_000, 4_000, 2_000, 10
GOALS = {"recall": 0.95, "precision": 0.95, "screening_ms": 1.0}


@dataclass(frozen=True)
class Quality:
    """How cases were answered at one score.

    Parameters
    ----------
    recall, precision : float
        Of the cases that mean a listed name the share that was found; of those that were found the share that means one, NaN
        where none was found.
    recall_by_kind, false_alarms_by_kind : dict of str to float
        Share found, of the kinds that mean a listed name and of those that mean none.
    failures : list of tuple of Case and NameMatch or None
        Cases that were not answered as meant, with the nearest name.
    """

    recall: float
    precision: float
    recall_by_kind: dict[str, float]
    false_alarms_by_kind: dict[str, float]
    failures: list[tuple[Case, NameMatch | None]]


def measure(index: NameIndex, cases: tuple[Case, ...], *, at_least: float = REFUSES) -> Quality:
    """Ask an index every case, and return how well it answered with what scores enough, by default enough to be refused."""
    asked, found = Counter[str](), Counter[str]()
    failures = []
    for case in cases:
        match = index.match_text(case.text) if case.is_text else index.match_name(case.text)
        is_found = match is not None and match.score >= at_least
        asked[case.kind] += 1
        found[case.kind] += is_found
        if is_found == (case.meant is None):
            failures.append((case, match))
    meant = {case.kind for case in cases if case.meant is not None}
    true = sum(found[kind] for kind in meant)
    wanted = sum(asked[kind] for kind in meant)
    return Quality(
        recall=true / wanted if wanted else math.nan,
        precision=true / found.total() if found.total() else math.nan,
        recall_by_kind={kind: found[kind] / asked[kind] for kind in sorted(meant)},
        false_alarms_by_kind={kind: found[kind] / asked[kind] for kind in sorted(set(asked) - meant)},
        failures=failures,
    )


@dataclass(frozen=True)
class _Ready:
    lists: ScreeningLists

    def load(self) -> ScreeningLists:
        return self.lists

    def forget(self) -> None:
        """Nothing is kept."""


def build_hades(evaluation: Evaluation) -> Hades:
    """Return a Hades with these names for its list."""
    listed = SanctionsList(format=ListFormat.OFAC, version="generated", dated=NOW, names=evaluation.names)
    lists = ScreeningLists(lists=(listed,), index=NameIndex(evaluation.names))
    return Hades(_Ready(lists), HadesConfig(), FixedClock(NOW))


def build_signals(evaluation: Evaluation, n: int) -> Iterator[RawSignal]:
    """Return signals with the evaluation's names for suppliers and in their texts, and words made up anew for each."""
    rng = np.random.default_rng(5)
    syllables = MEASURING.syllables
    common = (
        "said on Monday that its plant in the north would stop production for several weeks after a fire and that deliveries to"
    )
    names = [case.text for case in evaluation.cases if not case.is_text]
    texts = [case.text for case in evaluation.cases if case.is_text]
    for number in range(n):
        made_up = ["".join(map(str, rng.choice(syllables, size=3))) for _ in range(8)]
        unseen = f"{made_up[0].capitalize()} {made_up[1].capitalize()} {common} {' '.join(made_up[2:])} were late."
        yield RawSignal(
            signal_id=str(UUID(int=number)),
            headline=texts[number % len(texts)],
            summary=f"{unseen} {texts[-number % len(texts)]}",
            published_at=NOW,
            category=SignalCategory.SUPPLIER_DISRUPTION,
            severity=Severity.HIGH,
            affected_tickers=("AAA",),
            supplier=names[number % len(names)],
        )


def time_screening(evaluation: Evaluation, n: int = N_TIMED, rounds: int = ROUNDS) -> dict[str, float]:
    """Return milliseconds a screening, by the clock and of the processor, and the seconds it took to build the index.

    Each round screens other signals; the best is told, because on a busy machine the others measure its neighbours.
    """
    started = time.perf_counter()
    hades = build_hades(evaluation)
    built = time.perf_counter() - started
    signals = list(build_signals(evaluation, n))
    walls, processors = [], []
    for start in range(0, n, n // rounds):
        part = signals[start : start + n // rounds]
        wall, processor = time.perf_counter(), time.thread_time()
        for signal in part:
            hades.screen(signal)
        walls.append(1e3 * (time.perf_counter() - wall) / len(part))
        processors.append(1e3 * (time.thread_time() - processor) / len(part))
    return {
        "index_seconds": built,
        "screening_ms": min(walls),
        "screening_worst_round_ms": max(walls),
        "screening_processor_ms": min(processors),
    }


def run_benchmark() -> tuple[dict[str, Any], Quality]:
    """Run everything and return the figures, and the quality on the large list that was not tuned on."""
    large = build_evaluation(MEASURING, n_names=LARGE, n_cases=N_CASES)
    judged = {
        f"measured_{LARGE}": large,
        f"measured_{SMALL}": build_evaluation(MEASURING, n_names=SMALL, n_cases=N_CASES),
        f"tuned_{LARGE}": build_evaluation(TUNING, n_names=LARGE, n_cases=N_CASES),
    }
    figures: dict[str, Any] = {"names": LARGE, "cases": N_CASES}
    indexes = {name: NameIndex(item.names) for name, item in judged.items()}
    for name, item in judged.items():
        for what, at_least in (("refusing", REFUSES), ("review", REVIEWS)):
            quality = measure(indexes[name], item.cases, at_least=at_least)
            figures |= {f"{name}_{what}_recall": quality.recall, f"{name}_{what}_precision": quality.precision}
    index = indexes[f"measured_{LARGE}"]
    main, review = measure(index, large.cases), measure(index, large.cases, at_least=REVIEWS)
    namesakes = build_namesakes(large, n_each=N_NAMESAKES, seed=MEASURING.seed)
    figures |= {"refused_by_kind": main.recall_by_kind, "reviewed_by_kind": review.recall_by_kind}
    figures |= {"false_refusals_by_kind": main.false_alarms_by_kind, "false_reviews_by_kind": review.false_alarms_by_kind}
    figures["refused_namesakes_by_kind"] = measure(index, namesakes).false_alarms_by_kind
    figures["reviewed_namesakes_by_kind"] = measure(index, namesakes, at_least=REVIEWS).false_alarms_by_kind
    figures |= time_screening(large)
    figures |= {"cpu": cpu_model(), "python": platform.python_version(), "rapidfuzz": version("rapidfuzz")}
    return figures, main


def main() -> None:
    """Print the figures beside their goals, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--failures", type=int, default=0, metavar="N", help="print N cases that were not answered as meant")
    arguments = parser.parse_args()
    figures, quality = run_benchmark()
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    for what, names in (("measured", LARGE), ("measured", SMALL), ("tuned", LARGE)):
        key = f"{what}_{names}"
        print(
            f"{what} on {names:,} names: refusing (from {REFUSES}): recall {figures[f'{key}_refusing_recall']:.4f}, "
            f"precision {figures[f'{key}_refusing_precision']:.4f} (goals {GOALS['recall']}, {GOALS['precision']}); "
            f"with review (from {REVIEWS}): {figures[f'{key}_review_recall']:.4f}, {figures[f'{key}_review_precision']:.4f}"
        )
    print(
        f"one screening against {LARGE:,} names: {figures['screening_ms']:.3f} ms (goal {GOALS['screening_ms']:g}), "
        f"of the processor {figures['screening_processor_ms']:.3f}, worst round {figures['screening_worst_round_ms']:.3f}; "
        f"index built in {figures['index_seconds']:.1f} s"
    )
    print(f"share of cases refused, and of those at least reviewed, on {LARGE:,} names:")
    for title, refused, reviewed in (
        ("listed", "refused_by_kind", "reviewed_by_kind"),
        ("stranger", "false_refusals_by_kind", "false_reviews_by_kind"),
        ("namesake", "refused_namesakes_by_kind", "reviewed_namesakes_by_kind"),
    ):
        for kind, share in figures[refused].items():
            print(f"  {title:8}  {share:7.3f}  {figures[reviewed][kind]:7.3f}  {kind}")
    for case, match in quality.failures[: arguments.failures]:
        print(f"  {case.kind}: {case.text!r} -> {match and (match.listed.name, match.score)}")
    print(f"{figures['cpu']}, Python {figures['python']}, rapidfuzz {figures['rapidfuzz']}")


if __name__ == "__main__":
    main()
