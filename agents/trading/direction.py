"""Which way a signal points, since the contract carries a category and words, and no direction.

Promises that bad news is never bought: what a category or the headline's words leave in doubt is negative.
"""

from __future__ import annotations

import re

from core.types import RawSignal, SignalCategory

_USUALLY_GOOD = frozenset({SignalCategory.POSITIVE_NEWS, SignalCategory.EARNINGS_SURPRISE})
_GOOD_WORDS = frozenset(
    {
        "approval", "approves", "approved", "beat", "beats", "cleared", "clears", "ease", "eases", "easing", "exceed",
        "exceeds", "raises", "record", "rally", "recovers", "resolved", "restored", "resumes", "stimulus", "surges",
        "tops", "upgrade", "upgraded", "wins",
    }
)  # fmt: skip
_BAD_WORDS = frozenset(
    {
        "below", "bankruptcy", "cancels", "cuts", "decline", "declines", "disappoints", "downgrade", "downgraded",
        "fraud", "halt", "halts", "layoffs", "loses", "loss", "losses", "miss", "misses", "missed", "plunge",
        "plunges", "recall", "recalls", "shortfall", "slump", "slumps", "warning", "warns",
    }
)  # fmt: skip


def is_negative(signal: RawSignal) -> bool:
    """Say whether a signal speaks against holding its ticker.

    Parameters
    ----------
    signal : RawSignal

    Returns
    -------
    bool
        What the headline's words say where they say one thing; else what its category usually means: positive news and
        earnings surprises are good, disruptions, regulation and macro shifts are not.

    Notes
    -----
    Whole words of the headline only, from two short fixed lists: transparent, and wrong on irony. A positive category with
    words of both kinds keeps its category.
    """
    words = set(re.findall(r"[a-z]+", signal.headline.lower()))
    good, bad = bool(words & _GOOD_WORDS), bool(words & _BAD_WORDS)
    if good != bad:
        return bad
    return signal.category not in _USUALLY_GOOD
