"""Where the rules planner's ideas come from: the known factors first, then variations of what measured best.

Promises that no idea is offered that any run ever tried on this data set, and that the same state and seed offer the same
ideas in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agents.research.request import Candidate
from core.errors import DataError, ExpressionError
from features import parse
from features.alphas import library_for
from features.computable import Computable, is_plugin_text
from features.grammar import crossover, mutate, random_expression

STRONG_T = 2.0
FIRST_LOOK = 24
"""Trials spread over all families before half of each batch goes to refining what measured best."""
_ATTEMPTS_PER_IDEA = 40
_REFINED = 3
_WINDOW = re.compile(r"(?<=, )\d+(?=\))")


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What is known of an idea that was tried in this run.

    Parameters
    ----------
    t_stat : float or None
        t-statistic of its rank IC, or of its gross returns where there are too few symbols to rank.
    """

    name: str
    family: str
    expression: str
    t_stat: float | None


def asked_families(question: str, families: Sequence[str]) -> list[str]:
    """Return the families a question names, in the order it names them."""
    text = question.casefold()
    found = [
        (match.start(), family)
        for family in families
        if (match := re.search(rf"\b{re.escape(family.replace('_', ' '))}", text))
    ]
    return [family for _, family in sorted(found)]


def propose_ideas(
    *,
    n: int,
    question: str,
    fields: Sequence[str],
    own: Sequence[Candidate],
    tried: Sequence[Tried],
    known: Collection[str],
    proposed: Collection[str],
    acceptable: Callable[[str], bool],
    resolve: Callable[[str], Computable],
    rng: np.random.Generator,
) -> list[Candidate]:
    """Choose what to try next.

    Parameters
    ----------
    n : int
        How many ideas are wanted; fewer come back when nothing new can be found.
    fields : sequence of str
        Columns of the data.
    own : sequence of Candidate
        Ideas of the request itself, which come first and are tried whoever tried them before.
    tried : sequence of Tried
        What this run has measured so far.
    known : collection of str
        Hashes of what was tried on this data before, by anybody.
    proposed : collection of str
        Hashes of what this run has proposed.
    acceptable : callable
        Tells whether an expression drawn at random is worth a trial.
    resolve : callable
        Finds what the text of a candidate means.
    rng : numpy.random.Generator

    Returns
    -------
    list of Candidate
    """
    offered: dict[str, Candidate] = {}
    taken = {*known, *proposed}

    def offer(candidate: Candidate) -> None:
        if len(offered) < n:
            sha = resolve(candidate.text).sha256
            if sha not in offered and sha not in taken:
                offered[sha] = candidate

    for candidate in own:
        sha = resolve(candidate.text).sha256
        if len(offered) < n and sha not in proposed:
            offered.setdefault(sha, candidate)
    tried = [idea for idea in tried if not is_plugin_text(idea.expression)]  # what can be varied
    for candidate in _opposites(tried):
        offer(candidate)
    library = _library(question, fields, tried)
    refined = []
    if len(tried) >= FIRST_LOOK:
        refined = [candidate for candidate in _refinements(tried) if resolve(candidate.expression).sha256 not in taken]
    for candidate in refined[: n // 2]:
        offer(candidate)
    for candidate in [*library, *refined]:
        offer(candidate)
    for _ in range(_ATTEMPTS_PER_IDEA * n):
        if len(offered) >= n:
            break
        variation = _variation(fields, tried, rng)
        if variation is not None and acceptable(variation.expression):
            offer(variation)
    return list(offered.values())


def _opposites(tried: Sequence[Tried]) -> list[Candidate]:
    """An idea that measured clearly negative is worth trying the other way round; that is one more trial."""
    return [
        Candidate(
            name=f"inverse_{idea.name}",
            expression=f"-({idea.expression})",
            family=idea.family,
            parents=(idea.expression,),
            hypothesis=f"The opposite of {idea.name}, which measured a t-statistic of {idea.t_stat:.1f}.",
        )
        for idea in tried
        if idea.t_stat is not None and idea.t_stat < -STRONG_T and not idea.name.startswith("inverse_")
    ]


def _library(question: str, fields: Sequence[str], tried: Sequence[Tried]) -> list[Candidate]:
    """Order the known factors: families the question names, then the least tried, the best measured among equals.

    Qlib's features claim no direction, so most of them cost two trials; they are offered to a question that says `alpha158`.
    """
    by_family: dict[str, list[Candidate]] = {}
    for item in library_for(fields, alpha158="alpha158" in question.casefold()):
        by_family.setdefault(item.family, []).append(
            Candidate(name=item.name, expression=item.expression, family=item.family, hypothesis=item.hypothesis)
        )
    asked = asked_families(question, list(by_family))
    counts = {family: sum(idea.family == family for idea in tried) for family in by_family}
    best = {family: max((idea.t_stat or 0.0 for idea in tried if idea.family == family), default=0.0) for family in by_family}
    ordered = [candidate for family in asked for candidate in by_family.pop(family)]
    queues = dict(by_family)
    while queues:
        family = min(queues, key=lambda name: (counts[name], -best[name], name))
        ordered.append(queues[family].pop(0))
        counts[family] += 1
        if not queues[family]:
            del queues[family]
    return ordered


def _refinements(tried: Sequence[Tried]) -> list[Candidate]:
    """Tune what measured best, one window at a time, and smooth it; the best idea's refinements come first."""
    strong = sorted(
        (idea for idea in tried if idea.t_stat is not None and idea.t_stat > STRONG_T),
        key=lambda idea: -(idea.t_stat or 0.0),
    )
    candidates = []
    for idea in strong[:_REFINED]:
        texts = [f"ts_mean({idea.expression}, {window})" for window in (3, 5)]
        for match in _WINDOW.finditer(idea.expression):
            for factor in (0.5, 0.7, 1.5, 2.0):
                window = max(2, round(int(match[0]) * factor))
                texts.append(f"{idea.expression[: match.start()]}{window}{idea.expression[match.end() :]}")
        for text in texts:
            try:
                expression = parse(text)
            except DataError:
                continue
            candidates.append(
                Candidate(
                    name=f"{idea.name.split('~')[0]}~{expression.sha256[:4]}",
                    expression=expression.text,
                    family=idea.family,
                    parents=(idea.expression,),
                    hypothesis=f"A refinement of {idea.name}, which measured a t-statistic of {idea.t_stat:.1f}.",
                )
            )
    return candidates


def _variation(fields: Sequence[str], tried: Sequence[Tried], rng: np.random.Generator) -> Candidate | None:
    """Change or cross what measured best; now and then, something new altogether."""
    parents: tuple[str, ...]
    ranked = sorted((idea for idea in tried if idea.t_stat is not None), key=lambda idea: -(idea.t_stat or 0.0))[:12]
    try:
        if not ranked or rng.random() < 0.2:
            expression, parents, family = random_expression(rng, fields), (), "search"
        elif len(ranked) > 1 and rng.random() < 0.3:
            first, second = (ranked[i] for i in rng.choice(len(ranked), size=2, replace=False))
            expression, parents, family = (
                crossover(parse(first.expression), parse(second.expression), rng),
                (first.expression, second.expression),
                first.family,
            )
        else:
            parent = ranked[int(rng.integers(len(ranked)))]
            expression, parents, family = mutate(parse(parent.expression), rng, fields), (parent.expression,), parent.family
    except ExpressionError:
        return None
    return Candidate(
        name=f"{family}_{expression.sha256[:8]}",
        expression=expression.text,
        family=family,
        parents=parents,
        hypothesis=f"A variation of {' and '.join(parents)}." if parents else "Drawn from the grammar without a model in mind.",
    )


def count_by_family(tried: Sequence[Tried]) -> Mapping[str, int]:
    """Return how often each family was tried."""
    counts: dict[str, int] = {}
    for idea in tried:
        counts[idea.family] = counts.get(idea.family, 0) + 1
    return counts
