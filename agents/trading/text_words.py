"""Words of running text, and which of them may be names.

Hides possessives, pauses and what capital letters tell: nothing in a headline where every word has one, or where none has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from agents.trading.names import LEGAL_FORMS, group_servants, words_of

_MIN_LETTERS_ALONE = 4
_ALONE_WITHOUT_CASE = 0.9
_MOST_CACHED = 64
_POSSESSIVE = re.compile(r"['’]s\b", re.IGNORECASE)
_OPENINGS = "\"'‘’“”«„([{"
_ENDS = frozenset('.,;:!?)"”»')


@dataclass(frozen=True, slots=True)
class TextWord:
    """A word of a text.

    Parameters
    ----------
    word : str
        Folded.
    is_name : bool
        It may be a name, or a part of one: it has a capital letter, or nothing in the text has.
    follows_name : bool
        It may go on with a name that the word before it is a part of.
    alone : float
        How far it may be taken for a name of one word, as a fraction: fully where it has a capital and its neighbours have
        none, not at all where they do, and 0.9 where capitals tell nothing.
    """

    word: str
    is_name: bool
    follows_name: bool
    alone: float


def read_text_words(text: str) -> list[TextWord]:
    """Return the words of a text, with what its capital letters and pauses say of each."""
    words: list[tuple[str, bool, bool]] = []
    for chunk in text.split():
        words += _text_words(chunk) if len(chunk) <= _MOST_CACHED else _text_words.__wrapped__(chunk)
    n_capital = sum(capital for _, capital, _ in words)
    # Where all is written small, or hardly anything is, capital letters tell nothing about names.
    tells = 0 < n_capital <= len(words) / 2
    tokens, at = [], 0
    for word, size in group_servants([word for word, _, _ in words]):
        end = at + size
        capital = words[at][1] or not n_capital
        after = not words[end - 1][2] and end < len(words) and words[end][1]
        before = at > 0 and not words[at - 1][2] and words[at - 1][1]
        alone = 0.0
        if capital and len(word) >= _MIN_LETTERS_ALONE:
            alone = _ALONE_WITHOUT_CASE if not tells else 0.0 if after or before else 1.0
        tokens.append(TextWord(word, capital, tells and capital and before, alone))
        at = end
    return tokens


@lru_cache(maxsize=65_536)
def _text_words(chunk: str) -> tuple[tuple[str, bool, bool], ...]:
    """Return the words of a piece of text without blanks: each with whether it has a capital, and whether a pause follows."""
    parts, last = words_of(_POSSESSIVE.sub("", chunk)), chunk[-1] in _ENDS
    # A legal form belongs to a name that is there without it: it neither begins one nor goes on with one.
    capital = _is_capital(chunk) and not LEGAL_FORMS.issuperset(parts)
    return tuple((part, capital, last and at == len(parts) - 1) for at, part in enumerate(parts))


def _is_capital(chunk: str) -> bool:
    """Say whether a word has a part, as in ``al-Rashid``, that starts with a capital letter or one of a script without them."""
    starts = (part.lstrip(_OPENINGS)[:1] for part in chunk.split("-"))
    return any(first.isalpha() and not first.islower() for first in starts)
