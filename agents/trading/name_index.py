"""NameIndex: thousands of listed names, and how near a name or a text comes to one of them.

Hides blocking and scoring. Promises that names are compared word by word and never as parts of words: "charcoal" is not "coal",
and a text is searched in windows of words about as long as the listed name.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz
from rapidfuzz.distance import JaroWinkler

from agents.trading.names import (
    GENERIC_WORDS,
    LEGAL_FORMS,
    PARTICLES,
    STRUCTURE_WORDS,
    group_servants,
    name_words,
    skeleton,
    sound,
    split_words,
)

_MIN_WORD_SIMILARITY = 0.84
_SAME_CONSONANTS = 0.95
_MIN_CONSONANTS = 3
_MIN_LETTERS_WITH_TYPO = 4
_COMPLETENESS = 0.4
_COMMON = 0.1
_MIDDLE_NAMES_MISSING = 0.9
_ONE_WORD_OF_MANY = 0.88
_GENERIC, _PARTICLE = 0.35, 0.1
_CACHED_WORDS = 200_000
_MIN_LETTERS_ALONE = 4
_ALONE_WITHOUT_CASE = 0.9
_POSSESSIVE = re.compile(r"['’]s\b", re.IGNORECASE)
_ENDS = frozenset('.,;:!?)"”»')


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedName:
    """A name as a list has it.

    Parameters
    ----------
    name : str
        In the order it is spoken: given names before the family name.
    entry : str
        What the list calls the entry, such as ``OFAC 1234``.
    is_person : bool
        Of a natural person; decides whether middle names may be missing.
    weak : bool, default=False
        The list itself calls the name a weak one, too common to act on alone.
    """

    name: str
    entry: str
    is_person: bool
    weak: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class NameMatch:
    """A listed name that something is near to.

    Parameters
    ----------
    listed : ListedName
    score : float
        How near, as a fraction; 1 is the same name in all but spelling.
    found : str
        The words that were compared, as they came.
    """

    listed: ListedName
    score: float
    found: str


@dataclass(frozen=True, slots=True)
class _Profile:
    words: tuple[int, ...]
    ends: tuple[int, int]
    distinctive: int
    joined: str


class NameIndex:
    """Find the listed name that is nearest to a name, or that a text mentions.

    Parameters
    ----------
    names : iterable of ListedName

    Notes
    -----
    Names are folded and freed of legal forms (:mod:`agents.trading.names`), and words are compared as they sound. Words
    block: a listed word is near to another when both sound alike, have the same consonants (at least three), or differ in
    one letter (found by leaving out one letter on both sides [2]_); how near is the Jaro-Winkler similarity [1]_. Words are
    then paired, and the score is the fidelity of the pairs times a token-set score: 0.6 of the share of the shorter name
    that is found in the other, plus 0.4 of the share of the longer one. Our deviations from rapidfuzz's own
    `token_set_ratio`, which bounds the score from above: shares are of weights, not of letters, so that "Bank of X" is not
    nearly "Bank of Y" (a word that 100 names have weighs less than a rare one, "bank" and "trading" 0.35, "al" 0.1); and a
    name within another is not yet that name. Two words must agree, unless one side has no more; a person without the middle
    names scores at least 0.9.

    References
    ----------
    .. [1] Winkler, W. E. (1990). String comparator metrics and enhanced decision rules in the Fellegi-Sunter model of record
       linkage. Proceedings of the Section on Survey Research Methods, American Statistical Association, 354-359.
    .. [2] Mor, M., Fraenkel, A. S. (1982). A hash code method for detecting and correcting spelling errors. Communications of
       the ACM, 25(12), 935-938.
    """

    def __init__(self, names: Iterable[ListedName]) -> None:
        self.names: list[ListedName] = []
        self._profiles: list[_Profile] = []
        self._ids: dict[str, int] = {}
        self._sounds: list[str] = []
        raw_words: list[str] = []
        postings: list[set[int]] = []
        self._joined: dict[str, list[int]] = defaultdict(list)
        seen: set[tuple[str, str, bool]] = set()
        for listed in names:
            words = name_words(listed.name)
            key = (listed.entry, " ".join(words), listed.weak)
            if not words or key in seen:
                continue
            seen.add(key)
            at = len(self.names)
            self.names.append(listed)
            ids = []
            for word in words:
                sounded = sound(word)
                if sounded not in self._ids:
                    self._ids[sounded] = len(self._sounds)
                    self._sounds.append(sounded)
                    raw_words.append(word)
                    postings.append(set())
                ids.append(self._ids[sounded])
                postings[ids[-1]].add(at)
            core = [word for word, raw in zip(ids, words, strict=True) if raw not in PARTICLES] or ids
            distinctive = len({word for word, raw in zip(ids, words, strict=True) if _is_distinctive(raw)})
            joined = "".join(map(sound, words))
            self._profiles.append(_Profile(tuple(dict.fromkeys(ids)), (core[0], core[-1]), distinctive, joined))
            self._joined[joined].append(at)
        self._postings = [frozenset(found) for found in postings]
        self._weights = [
            _weight(raw) / (1.0 + _COMMON * math.log(len(found))) for raw, found in zip(raw_words, postings, strict=True)
        ]
        self._by_letters: dict[str, list[int]] = defaultdict(list)
        self._by_skeleton: dict[str, list[int]] = defaultdict(list)
        for word, sounded in enumerate(self._sounds):
            for variant in _variants(sounded):
                self._by_letters[variant].append(word)
            bones = skeleton(sounded)
            if len(bones) >= _MIN_CONSONANTS:
                self._by_skeleton[bones].append(word)
        self._near: dict[str, tuple[tuple[int, float], ...]] = {}

    def __len__(self) -> int:
        return len(self.names)

    def match_name(self, name: str, *, at_least: float = 0.85) -> NameMatch | None:
        """Return the listed name nearest to a name, if it is near enough; among equals the first that was listed.

        Parameters
        ----------
        name : str
            Of a company or a person, in any order of its words.
        at_least : float, default=0.85
            Lowest score that is told, as a fraction.
        """
        words = name_words(name)
        if not words:
            return None
        sounded = [sound(word) for word in words]
        best = self._best_of(words, sounded, self._candidates(sounded))
        for at in self._joined.get("".join(sounded), ()):
            best = max(best, (1.0, -at))
        return self._told(best, name, at_least)

    def match_text(self, text: str, *, at_least: float = 0.85) -> NameMatch | None:
        """Return the listed name that a text mentions most exactly, if it does so well enough.

        Notes
        -----
        A listed name of several words needs two of them in a window about as long as the name, one at least written with a
        capital letter where the text has small ones. One of a single word needs that word, written with a capital and not
        between other such words ("Delta Air Lines" does not mention "Delta"). Names of generic words alone ("National Bank")
        are not looked for in texts.
        """
        tokens = _text_tokens(text)
        if not tokens:
            return None
        words = [token.word for token in tokens]
        sounded = [sound(word) for word in words]
        exact_only = [not token.is_name for token in tokens]
        near = [
            self._exactly(heard) if exact else self._nearest_words(heard)
            for heard, exact in zip(sounded, exact_only, strict=True)
        ]
        best: tuple[float, int] = (0.0, 0)
        found = ""
        pairs: dict[int, set[int]] = defaultdict(set)
        for at, hits in enumerate(near):
            if not hits:
                continue
            mine = self._names_with(hits)
            if tokens[at].alone:
                for name in mine:
                    profile = self._profiles[name]
                    if len(profile.words) == 1 and profile.distinctive:
                        score = min(tokens[at].alone, self._score([words[at]], [sounded[at]], name))
                        if (score, -name) > best:
                            best, found = (score, -name), words[at]
            for other in range(at + 1, min(at + 4, len(tokens))):
                if near[other] and (tokens[at].is_name or tokens[other].is_name):
                    for name in mine & self._names_with(near[other]):
                        pairs[name].add(at)
        for name, starts in pairs.items():
            profile = self._profiles[name]
            if not profile.distinctive:
                continue
            for start in starts:
                window = self._window(near, start, profile)
                if window is None:
                    continue
                score = self._score(words[start:window], sounded[start:window], name)
                if (score, -name) > best:
                    best, found = (score, -name), " ".join(words[start:window])
        return self._told(best, found, at_least)

    def _told(self, best: tuple[float, int], found: str, at_least: float) -> NameMatch | None:
        score, name = best[0], -best[1]
        if score < at_least:
            return None
        return NameMatch(listed=self.names[name], score=round(score, 6), found=found)

    def _names_with(self, hits: Sequence[tuple[int, float]]) -> frozenset[int]:
        if len(hits) == 1:
            return self._postings[hits[0][0]]
        return frozenset().union(*(self._postings[word] for word, _ in hits))

    def _candidates(self, sounded: Sequence[str]) -> set[int]:
        """Return names that have two words of these, and those with one where either side has no more to offer."""
        sets = sorted((self._names_with(hits) for hits in map(self._nearest_words, sounded) if hits), key=len)
        # A name with two of the words is in a set that is not the largest.
        counts = Counter(name for found in sets[:-1] for name in found)
        largest = sets[-1] if sets else frozenset()
        chosen = {name for name, n in counts.items() if n > 1 or name in largest}
        lone = len(sounded) == 1
        for found in sets:
            for name in found:
                if self._profiles[name].distinctive <= 1 and (lone or len(self._profiles[name].words) == 1):
                    chosen.add(name)
        return chosen

    def _best_of(self, words: Sequence[str], sounded: Sequence[str], names: Iterable[int]) -> tuple[float, int]:
        return max(((self._score(words, sounded, name), -name) for name in names), default=(0.0, 0))

    def _window(self, near: Sequence[Sequence[tuple[int, float]]], start: int, profile: _Profile) -> int | None:
        """Return where the window ends that starts here and holds as many words of a name as it can."""
        end, wanted = None, set(profile.words)
        for at in range(start, min(start + len(profile.words) + 2, len(near))):
            if any(word in wanted for word, _ in near[at]):
                end = at + 1
        return end if end is not None and end > start + 1 else None

    def _score(self, words: Sequence[str], sounded: Sequence[str], name: int) -> float:
        """Return how near words come to a listed name, as a fraction."""
        profile = self._profiles[name]
        near = {heard: dict(self._nearest_words(heard)) for heard in dict.fromkeys(sounded)}
        pairs = sorted(
            (
                (-similarity, at, word)
                for at, heard in enumerate(near)
                for word, similarity in near[heard].items()
                if word in profile.words
            ),
        )
        heard_by = list(near)
        raw = dict(zip(sounded, words, strict=True))
        partner: dict[int, int] = {}
        similar: dict[int, float] = {}
        for similarity, at, word in pairs:
            if at not in partner and word not in similar:
                partner[at], similar[word] = word, -similarity
        if not similar:
            return 0.0
        ours = [self._weight_of(raw[heard], heard) for heard in heard_by]
        theirs = {word: self._weights[word] for word in profile.words}
        paired = sum(theirs[word] for word in similar)
        fidelity = sum(theirs[word] * similarity for word, similarity in similar.items()) / paired
        covers_them = paired / sum(theirs.values())
        covers_us = sum(ours[at] for at in partner) / sum(ours)
        score = (1.0 - _COMPLETENESS) * max(covers_us, covers_them) + _COMPLETENESS * min(covers_us, covers_them)
        aligned = " ".join(self._sounds[partner[at]] if at in partner else heard for at, heard in enumerate(heard_by))
        score = min(score, fuzz.token_set_ratio(aligned, " ".join(self._sounds[word] for word in profile.words)) / 100.0)
        n_paired, complete = len(similar), covers_us > 0.999
        if self.names[name].is_person and n_paired > 1 and complete and all(end in similar for end in profile.ends):
            score = max(score, _MIDDLE_NAMES_MISSING)
        if n_paired == 1 and len(profile.words) > 1:
            lone = complete and profile.distinctive == 1 and self._weights[next(iter(similar))] > _GENERIC
            score = min(score, _ONE_WORD_OF_MANY if lone else 0.5)
        return fidelity * score

    def _weight_of(self, raw: str, heard: str) -> float:
        word = self._ids.get(heard)
        return self._weights[word] if word is not None else _weight(raw)

    def _exactly(self, heard: str) -> tuple[tuple[int, float], ...]:
        word = self._ids.get(heard)
        return () if word is None else ((word, 1.0),)

    def _nearest_words(self, heard: str) -> tuple[tuple[int, float], ...]:
        """Return the listed words that a word sounds like, with their similarity."""
        known = self._near.get(heard)
        if known is not None:
            return known
        bones = skeleton(heard)
        same_bones = self._by_skeleton.get(bones, ()) if len(bones) >= _MIN_CONSONANTS else ()
        similar = dict.fromkeys(same_bones, _SAME_CONSONANTS)
        for variant in _variants(heard):
            for word in self._by_letters.get(variant, ()):
                if word not in similar or similar[word] == _SAME_CONSONANTS:
                    alike = JaroWinkler.similarity(heard, self._sounds[word])
                    similar[word] = max(similar.get(word, 0.0), alike)
        found = tuple((word, alike) for word, alike in similar.items() if alike >= _MIN_WORD_SIMILARITY)
        if len(self._near) >= _CACHED_WORDS:
            self._near.clear()
        self._near[heard] = found
        return found


@dataclass(frozen=True, slots=True)
class _Token:
    """A word of a text; `alone` is the most that a listed name of this one word may score here."""

    word: str
    is_name: bool
    alone: float


def _text_tokens(text: str) -> list[_Token]:
    words: list[tuple[str, bool, bool]] = []
    for chunk in text.split():
        parts = split_words(_POSSESSIVE.sub("", chunk))
        capital = _is_capital(chunk)
        words += [(part, capital, chunk[-1] in _ENDS and at == len(parts) - 1) for at, part in enumerate(parts)]
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
        tokens.append(_Token(word, capital, alone))
        at = end
    return tokens


def _is_capital(chunk: str) -> bool:
    """Say whether a word starts with a capital letter, or with one of a script that has none."""
    first = next((letter for letter in chunk if letter.isalnum()), "")
    return first.isalpha() and not first.islower()


def _is_distinctive(raw: str) -> bool:
    return _weight(raw) > _GENERIC


def _weight(raw: str) -> float:
    if raw in PARTICLES or raw in STRUCTURE_WORDS or raw in LEGAL_FORMS or (len(raw) == 1 and raw.isascii()):
        return _PARTICLE
    return _GENERIC if raw in GENERIC_WORDS else 1.0


def _variants(sounded: str) -> set[str]:
    """Return a word and, if it is long enough, what is left when any one letter is left out."""
    if len(sounded) < _MIN_LETTERS_WITH_TYPO:
        return {sounded}
    return {sounded, *(sounded[:at] + sounded[at + 1 :] for at in range(len(sounded)))}
