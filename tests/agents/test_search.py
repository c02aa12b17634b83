from collections.abc import Collection, Sequence

import numpy as np
import pytest

from agents.research.request import Candidate
from agents.research.search import Tried, asked_families, count_by_family, propose_ideas
from core.market.panel import BAR_FIELDS
from features import FunctionFeature, parse
from features.alphas import library_for
from features.computable import Computable, resolve

GAP = FunctionFeature(
    name="gap",
    version="1",
    hypothesis="A gap is filled.",
    lookback=0,
    columns=frozenset({"open", "close"}),
    function=lambda panel: panel.open / panel.close,
)
FAMILIES = ("low_volatility", "momentum", "reversal", "volume")


def propose(
    n: int = 8,
    *,
    question: str = "anything",
    fields: Sequence[str] = BAR_FIELDS,
    own: Sequence[Candidate] = (),
    tried: Sequence[Tried] = (),
    known: Collection[str] = (),
    proposed: Collection[str] = (),
    seed: int = 0,
) -> list[Candidate]:
    return propose_ideas(
        n=n,
        question=question,
        fields=fields,
        own=own,
        tried=tried,
        known=known,
        proposed=proposed,
        acceptable=lambda expression: True,
        resolve=lambda text: resolve(text, plugins=lambda: {"gap": GAP}),
        rng=np.random.default_rng(seed),
    )


def tried(name: str, expression: str, t_stat: float | None, family: str = "reversal") -> Tried:
    return Tried(name=name, family=family, expression=expression, t_stat=t_stat)


def shas(ideas: Sequence[Candidate]) -> list[str]:
    return [parse(idea.expression).sha256 for idea in ideas]


@pytest.mark.parametrize(
    ("question", "families"),
    [
        ("Is there a short-horizon reversal?", ["reversal"]),
        ("MOMENTUM, or else low volatility", ["momentum", "low_volatility"]),
        ("volume and reversals", ["volume", "reversal"]),
        ("Which features predict returns?", []),
        ("irreversal", []),
    ],
)
def test_families_are_asked_for_by_name_in_the_order_of_the_question(question: str, families: list[str]) -> None:
    assert asked_families(question, FAMILIES) == families


def test_what_the_question_names_comes_first() -> None:
    assert {idea.family for idea in propose(question="Is there momentum?")} == {"momentum"}


def test_alpha158_is_offered_to_a_question_that_names_it_and_to_no_other() -> None:
    named = propose(40, question="Which of alpha158 tells returns apart?")
    assert {idea.family for idea in named} == {"alpha158"}
    assert [idea.name for idea in named[:2]] == ["KMID", "KLEN"]
    assert "alpha158" not in {idea.family for idea in propose(400)}


def test_without_a_named_family_the_first_ideas_come_from_different_ones() -> None:
    families = [idea.family for idea in propose()]
    assert len(set(families)) == len(families)


def test_the_family_that_was_tried_least_is_next() -> None:
    every = sorted({item.family for item in library_for(BAR_FIELDS)})
    left_out = every[3]
    done = [tried(f"idea {family}", "close", 0.0, family) for family in every if family != left_out]
    assert propose(1, tried=done)[0].family == left_out


def test_own_ideas_come_before_everything_even_the_question() -> None:
    own = [Candidate(name="mine", expression="-volume")]
    ideas = propose(4, question="momentum", own=own)
    assert ideas[0] is own[0]
    assert {idea.family for idea in ideas[1:]} == {"momentum"}


def test_a_clearly_negative_idea_is_tried_the_other_way_round_once() -> None:
    done = [tried("climbers", "rank(returns)", -2.5), tried("weak", "rank(close)", -1.9), tried("inverse_x", "close", -9.0)]
    ideas = propose(tried=done)
    inverted = [idea for idea in ideas if idea.name.startswith("inverse_")]
    assert [(idea.name, idea.expression, idea.parents) for idea in inverted] == [
        ("inverse_climbers", "-(rank(returns))", ("rank(returns)",))
    ]


def test_an_idea_in_another_spelling_is_the_same_idea() -> None:
    own = [Candidate(name="a", expression="-pct_change(close, 5)"), Candidate(name="b", expression=" - pct_change( close,5 )")]
    assert propose(2, own=own)[0].name == "a"
    assert "b" not in [idea.name for idea in propose(8, own=own)]


def test_nothing_that_is_known_is_offered_and_there_is_always_more() -> None:
    known: set[str] = set()
    measured: list[Tried] = []
    rng = np.random.default_rng(3)
    for _ in range(6):
        ideas = propose(40, known=known, tried=measured, seed=len(known))
        found = shas(ideas)
        assert len(found) == len(set(found)) == 40
        assert known.isdisjoint(found)
        known |= set(found)
        measured += [tried(idea.name, idea.expression, float(rng.normal(0.0, 2.0)), idea.family) for idea in ideas]
    assert len(known) == 240


def test_ideas_read_only_what_the_data_has() -> None:
    library = {parse(item.expression).sha256 for item in library_for(("close",))}
    measured = [tried("reversal", "-ts_sum(returns, 5)", 3.0), tried("trend", "ts_mean(returns, 60)", 2.5)]
    ideas = propose(30, fields=("close",), known=library, tried=measured)
    assert len(ideas) == 30
    assert all(parse(idea.expression).fields <= {"close"} for idea in ideas)


def test_the_same_seed_draws_the_same_variations_and_another_seed_others() -> None:
    library = {parse(item.expression).sha256 for item in library_for(BAR_FIELDS)}
    measured = [tried("reversal", "-ts_sum(returns, 5)", 3.0), tried("trend", "ts_mean(returns, 60)", 2.5)]
    one, again, other = (shas(propose(30, known=library, tried=measured, seed=seed)) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_trials_are_counted_by_family() -> None:
    done = [tried("a", "close", None), tried("b", "open", None), tried("c", "high", None, "range")]
    assert count_by_family(done) == {"reversal": 2, "range": 1}


def test_the_ideas_of_the_request_are_tried_whoever_tried_them_before_but_once_a_run() -> None:
    own = Candidate(name="mine", expression="-returns")
    sha = parse(own.expression).sha256
    assert propose(own=[own], known={sha})[0] == own
    assert own not in propose(own=[own], known={sha}, proposed={sha})


def test_a_plugin_is_offered_once_and_never_varied() -> None:
    own = [Candidate(name="gap", plugin="gap", family="overnight")]
    (first,) = propose(1, own=own)
    assert (first.text, first.family) == ("plugin:gap", "overnight")
    made = Computable.of(GAP)
    assert "gap" not in {idea.name for idea in propose(30, own=own, proposed=[made.sha256])}
    for t_stat in (-9.0, 9.0):
        again = propose(60, tried=[tried("gap", made.canonical, t_stat, "overnight")] * 30, known=[made.sha256])
        assert all("plugin:" not in idea.text and not idea.parents for idea in again[:20])
        assert "inverse_gap" not in {idea.name for idea in again}
