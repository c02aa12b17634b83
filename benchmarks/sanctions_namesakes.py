"""Namesakes of listed names that must not be refused: other people and companies whose names hold most of a listed one.

Made of the names of an evaluation, so that they share nothing with the stock that the matching was tuned on when the evaluation
does not. Whether Hades takes a second look at them is another matter: a name within another is nearly that name.
"""

from __future__ import annotations

import numpy as np

from agents.trading.names import name_words, sound
from benchmarks.sanctions_names import Case, Evaluation

_STRANGE = ("Brakspear", "Wetherby", "Quillfeather", "Featherstone", "Pumblechook", "Vandersloot")
_MORE = ("Trading", "Shipping", "Energy", "Logistics", "Steel", "Insurance", "Museum", "Velkorin", "Pizza")
_INITIALS = "BCDFGHKLMNPRSTVWZ"


def build_namesakes(evaluation: Evaluation, *, n_each: int, seed: int) -> tuple[Case, ...]:
    """Return people with the given and the family name of a listed one and another middle name, and companies with a word more.

    Parameters
    ----------
    evaluation : Evaluation
    n_each : int
        Cases of each kind.
    seed : int

    Notes
    -----
    A middle name is taken from other listed people, where no listed person has all three, or is one that nobody there has; an
    initial neither begins nor sounds like a name of anybody there with that given and family name.
    """
    rng = np.random.default_rng(seed)
    people = [listed.name.split() for listed in evaluation.names if listed.is_person and len(listed.name.split()) > 2]
    companies = [name_words(listed.name) for listed in evaluation.names if not listed.is_person]
    holders: dict[str, set[int]] = {}
    for at, words in enumerate(people):
        for word in words:
            holders.setdefault(word, set()).add(at)
    cases: list[Case] = []
    while len(cases) < 3 * n_each:
        person = people[int(rng.integers(len(people)))]
        given, family = person[0], person[-1]
        middle = people[int(rng.integers(len(people)))][1]
        if holders[given] & holders[middle] & holders[family]:
            continue
        same = [word.lower() for at in holders[given] & holders[family] for word in people[at]]
        taken = {letter for word in same for letter in (word[0], sound(word)[0])}
        initials = [letter for letter in _INITIALS if taken.isdisjoint((letter.lower(), sound(letter.lower())))]
        name = f"{given} {middle} {family}"
        cases += [
            Case("person: another middle name", name, None),
            Case("person: another middle name in text", f"Court orders {name} to pay damages", None, True),
            Case("person: another initial", f"{given} {rng.choice(initials)}. {family}", None),
        ]
    for _ in range(n_each):
        person = people[int(rng.integers(len(people)))]
        cases.append(Case("person: a strange middle name", f"{person[0]} {rng.choice(_STRANGE)} {person[-1]}", None))
        cases.append(Case("person: a strange name more", f"{person[0]} {person[-1]} {rng.choice(_STRANGE)}", None))
        company = companies[int(rng.integers(len(companies)))]
        more = rng.choice([word for word in _MORE if word.lower() not in company])
        cases.append(Case("company: a word more", f"{' '.join(company)} {more} Ltd", None))
    return tuple(cases)
