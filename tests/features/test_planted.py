"""The planted leaks are caught, the look-alikes pass."""

import pytest

from features.planted import LEAKS, LOOK_ALIKES


def named(examples):
    return pytest.mark.parametrize("example", examples, ids=lambda example: example.name)


def test_there_are_at_least_25_of_each_with_a_name_and_a_reason():
    for examples in (LEAKS, LOOK_ALIKES):
        assert len(examples) >= 25
        assert len({example.name for example in examples}) == len(examples)
        assert all(example.why.endswith(".") for example in examples)


@named(LEAKS)
def test_planted_leak_is_caught_and_named(example):
    report = example.check(seed=0)
    assert not report.passed
    panel = example.inputs(seed=0).panel
    for leak in report.leaks:
        assert leak.bar <= leak.cut
        assert leak.timestamp == panel.index[leak.bar]
        assert leak.symbol in panel.symbols
        assert leak.size > 0.0
    assert report.summary().startswith("leak: S0")


@named(LOOK_ALIKES)
def test_look_alike_raises_no_alarm(example):
    report = example.check(seed=0)
    assert report.passed, report.summary()
    assert report.summary().startswith("no leak" if report.n_values else "nothing was tested")


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(1, 11))
def test_every_market_and_every_choice_of_cuts_gives_the_same_verdicts(seed):
    assert [example.name for example in LEAKS if example.check(seed=seed).passed] == []
    assert [example.name for example in LOOK_ALIKES if not example.check(seed=seed).passed] == []
