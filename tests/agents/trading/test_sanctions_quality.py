"""How well names are matched, on names that the matching was not tuned on."""

import pytest

from agents.trading.name_index import NameIndex
from benchmarks.sanctions import measure
from benchmarks.sanctions_names import MEASURING, TUNING, build_evaluation


def test_the_stocks_to_tune_and_to_measure_share_no_name_and_no_seed() -> None:
    assert TUNING.seed != MEASURING.seed
    for part in ("given", "roots", "western", "surnames"):
        assert not set(getattr(TUNING, part)) & set(getattr(MEASURING, part))
    for part in ("arabic", "families"):
        spellings = [{name for group in getattr(stock, part) for name in group} for stock in (TUNING, MEASURING)]
        assert not spellings[0] & spellings[1]


def test_listed_names_are_found_and_look_alikes_pass() -> None:
    evaluation = build_evaluation(MEASURING, n_names=5_000, n_cases=2_000)
    quality = measure(NameIndex(evaluation.names), evaluation.cases)
    assert quality.recall >= 0.95
    assert quality.precision >= 0.95
    assert min(quality.recall_by_kind.values()) >= 0.85
    for kind in ("look-alike", "harmless text", "namesake company", "namesake company in text"):
        assert quality.false_alarms_by_kind[kind] <= 0.01


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_so_they_are_among_30_000_with_other_seeds(seed: int) -> None:
    evaluation = build_evaluation(MEASURING, n_names=30_000, n_cases=4_000, seed=seed)
    quality = measure(NameIndex(evaluation.names), evaluation.cases)
    assert quality.recall >= 0.95
    assert quality.precision >= 0.95
