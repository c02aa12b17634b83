"""Known hypotheses about what outperforms, written as expressions.

Hides where each family is written down. Promises that a high value of every entry of `LIBRARY` means "expected to do better
than the others", and that the order is fixed: a planner that runs twice tries the same things. Sources are cited as author and
year; windows are bars of a trading day, 21 to the month.

Qlib's Alpha158 is a family of its own that is offered on request: it claims no direction.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from features import bar_alphas, close_alphas
from features.alpha158 import ALPHA158, FEATURES, SOURCE
from features.close_alphas import Row
from features.expression import parse

__all__ = ["ALPHA158", "LIBRARY", "Hypothesis", "alpha158_hypotheses", "library_for"]


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """State one candidate.

    Parameters
    ----------
    name : str
        Unique.
    family : str
        Which idea it varies.
    expression : str
        High value: expected to outperform. The family `alpha158` claims no direction: the planner tries an entry as it is
        written, and its opposite if it measures clearly negative, which is one more trial.
    hypothesis : str
        Why, in one sentence.
    source : str
        Paper the idea comes from.
    needs : frozenset of str
        Columns of the data that the expression reads.
    """

    name: str
    family: str
    expression: str
    hypothesis: str
    source: str
    needs: frozenset[str]


def library_for(panel_fields: Collection[str], *, alpha158: bool = False) -> tuple[Hypothesis, ...]:
    """Choose the hypotheses that a data set can answer.

    Parameters
    ----------
    panel_fields : collection of str
        Columns of the data set, as ``panel.fields``.
    alpha158 : bool, default=False
        Whether to add the family `alpha158`, last and in qlib's order.

    Returns
    -------
    tuple of Hypothesis
        In the order of `LIBRARY`.
    """
    have = frozenset(panel_fields)
    return tuple(candidate for candidate in LIBRARY + (alpha158_hypotheses() if alpha158 else ()) if candidate.needs <= have)


def _hypotheses(family: str, rows: Iterable[Row]) -> Iterator[Hypothesis]:
    for name, expression, hypothesis, source in rows:
        yield Hypothesis(
            name=name,
            family=family,
            expression=expression,
            hypothesis=hypothesis,
            source=source,
            needs=parse(expression).fields,
        )


@functools.cache
def alpha158_hypotheses() -> tuple[Hypothesis, ...]:
    """Return qlib's 158 features as hypotheses of the family `alpha158`, in qlib's order."""
    rows = (
        (
            feature.name,
            feature.expression,
            f"{feature.meaning.capitalize()} may tell the next returns apart; no direction is claimed.",
            SOURCE,
        )
        for feature in FEATURES
    )
    return tuple(_hypotheses("alpha158", rows))


_FAMILIES: dict[str, Callable[[], Iterator[Row]]] = {
    "reversal": close_alphas.reversal,
    "momentum": close_alphas.momentum,
    "trend": close_alphas.trend,
    "volatility": close_alphas.volatility,
    "moments": close_alphas.moments,
    "comovement": close_alphas.comovement,
    "volume": bar_alphas.volume,
    "liquidity": bar_alphas.liquidity,
    "range": bar_alphas.ranges,
}

LIBRARY: tuple[Hypothesis, ...] = tuple(
    candidate for family, rows in _FAMILIES.items() for candidate in _hypotheses(family, rows())
)
