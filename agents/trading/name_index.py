"""NameIndex: thousands of listed names, and how near a name or a text comes to one of them.

Hides blocking and scoring. Promises that names are compared word by word and never as parts of words: "charcoal" is not "coal",
and a text is searched in windows of words about as long as the listed name.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz import fuzz
from rapidfuzz.distance import JaroWinkler

from agents.trading.names import (
    GENERIC_WORDS,
    LEGAL_FORMS,
    PARTICLES,
    STRUCTURE_WORDS,
    name_words,
    skeleton,
    sound,
)
from agents.trading.text_words import TextWord, read_text_words

_MIN_WORD_SIMILARITY = 0.82
_SAME_CONSONANTS = 0.95
_MIN_CONSONANTS = 3
_MIN_LETTERS_WITH_TYPO = 4
_COMPLETENESS = 0.4
_COMMON = 0.1
_MIDDLE_NAMES_MISSING, _ANOTHER_INITIAL = 0.955, 0.93
_COMPLETE = 0.95
_ONE_WORD_OF_MANY, _ONE_WORD = 0.88, 0.5
_WEAK = 0.9
_SURE_WITH_OTHERS, _SURE_BY_SOUND, _SURE_WITH_A_TYPO = 6, 7, 8
_MOST_VOWELS_APART = 2
_NEAR_BY, _WINDOW = 4, 8
_ROUNDING = 1e-9
_GENERIC, _STRUCTURE, _PARTICLE = 0.35, 0.1, 0.02
_CACHED_WORDS = 200_000


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
        The list itself calls the name a weak one, too common to act on alone: it scores at most 0.9.
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
    spelled: tuple[str, ...]
    ends: tuple[int, int]
    distinctive: int


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
    name within another is not yet that name. Two words must agree, unless one side has no more; a single distinctive word
    is evidence only as it is spelled, or from six to eight letters on; a person without the middle names scores at least
    0.955, above the score from which Hades refuses, and 0.93 with an initial that none of the missing names has.

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
        self._joined: dict[str, list[int]] = defaultdict(list)
        self._spellings: list[dict[str, None]] = []
        postings: list[set[int]] = []
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
            for raw in words:
                word = self._ids.setdefault(sound(raw), len(self._sounds))
                if word == len(self._sounds):
                    self._sounds.append(sound(raw))
                    self._spellings.append({})
                    postings.append(set())
                self._spellings[word][raw] = None
                postings[word].add(at)
                ids.append(word)
            core = [word for word, raw in zip(ids, words, strict=True) if raw not in PARTICLES] or ids
            distinctive = len({word for word, raw in zip(ids, words, strict=True) if _weight(raw) > _GENERIC})
            spelled = dict(zip(reversed(ids), reversed(words), strict=True))
            unique = tuple(dict.fromkeys(ids))
            self._profiles.append(_Profile(unique, tuple(spelled[word] for word in unique), (core[0], core[-1]), distinctive))
            joined = "".join(self._sounds[word] for word in ids)
            if len(joined) >= _SURE_BY_SOUND:
                self._joined[joined].append(at)
        self._postings = [np.array(sorted(found), dtype=np.int32) for found in postings]
        self._weights = [
            max(map(_weight, spelled)) / (1.0 + _COMMON * math.log(len(found)))
            for spelled, found in zip(self._spellings, postings, strict=True)
        ]
        self._totals = np.array([sum(self._weights[word] for word in profile.words) for profile in self._profiles])
        self._ends = np.array([profile.ends for profile in self._profiles], dtype=np.int32).reshape(-1, 2)
        self._single: dict[int, list[int]] = defaultdict(list)
        self._lone: dict[int, list[int]] = defaultdict(list)
        for at, profile in enumerate(self._profiles):
            if len(profile.words) == 1:
                self._single[profile.words[0]].append(at)
            if profile.distinctive <= 1:
                for word in profile.words:
                    self._lone[word].append(at)
        self._by_letters: dict[str, list[tuple[str, int]]] = defaultdict(list)
        self._by_skeleton: dict[str, list[int]] = defaultdict(list)
        for word, sounded in enumerate(self._sounds):
            for spelling in {sounded, *self._spellings[word]}:
                for variant in _variants(spelling):
                    self._by_letters[variant].append((spelling, word))
            bones = skeleton(sounded)
            if len(bones) >= _MIN_CONSONANTS:
                self._by_skeleton[bones].append(word)
        self._near: dict[str, _Hits] = {}

    def __len__(self) -> int:
        return len(self.names)

    def match_name(self, name: str, *, at_least: float = 0.85) -> NameMatch | None:
        """Return the listed name nearest to a name, if it is near enough; among equals the first that was listed.

        Parameters
        ----------
        name : str
            Of a company or a person, in any order of its words.
        at_least : float, default=0.85
            Lowest score that is told, as a fraction above 0.
        """
        return next(iter(self.list_matches(name, at_least=at_least)), None)

    def list_matches(self, name: str, *, at_least: float = 0.85) -> list[NameMatch]:
        """Return the listed names that are near enough to a name, nearest first, then as they were listed."""
        words = name_words(name)
        scores = {at: self._score(words, at) for at in self._candidates(words, at_least)}
        scores |= {at: self._most(at) for at in self._joined.get("".join(map(sound, words)), ())}
        order = sorted((-score, at) for at, score in scores.items() if score >= at_least)
        return [NameMatch(listed=self.names[at], score=round(-score, 6), found=name) for score, at in order]

    def match_text(self, text: str, *, at_least: float = 0.85) -> NameMatch | None:
        """Return the listed name that a text mentions most exactly, if it does so well enough.

        Notes
        -----
        A listed name of several words needs two of them in a window about as long as the name, one at least written with a
        capital letter where the text has small ones. One of a single word needs that word, written with a capital and not
        between other such words ("Delta Air Lines" does not mention "Delta"); where all words have capitals it scores at most
        0.9. Names of generic words alone ("National Bank") are not looked for in texts.
        """
        tokens = read_text_words(text)
        near = [self._nearest(token.word) if token.is_name else self._exactly(token.word) for token in tokens]
        best: tuple[float, int] = (0.0, 0)
        found = ""
        for name, start, end in self._mentions(tokens, near, at_least):
            words = [token.word for token in tokens[start:end]]
            score = self._score(words, name)
            if end == start + 1:
                score = min(score, tokens[start].alone)
            if (score, -name) > best:
                best, found = (score, -name), " ".join(words)
        score, name = best[0], -best[1]
        return None if score < at_least else NameMatch(listed=self.names[name], score=round(score, 6), found=found)

    def _mentions(self, tokens: Sequence[TextWord], near: Sequence[_Hits], at_least: float) -> Iterator[tuple[int, int, int]]:
        """Name the windows of a text that may mention a name: the name, where the window starts, and where it ends."""
        for at, hits in enumerate(near):
            if not hits:
                continue
            if tokens[at].alone:
                for name in (name for word, _ in hits for name in self._single.get(word, ())):
                    if self._profiles[name].distinctive:
                        yield name, at, at + 1
            window = range(at, min(at + _WINDOW, len(tokens)))
            if not any(near[other] for other in window[1:_NEAR_BY]) or not any(tokens[other].is_name for other in window):
                continue
            for name in self._with_enough([near[other] for other in window], 0.0, at_least):
                if self._profiles[name].distinctive:
                    start, end = self._window(tokens, near, at, name)
                    if any(token.is_name for token in tokens[start:end]):
                        yield name, start, end

    def _window(self, tokens: Sequence[TextWord], near: Sequence[_Hits], start: int, name: int) -> tuple[int, int]:
        """Return the window from here that holds as many words of a name as it can.

        Where a part of a person's name is missing, names next to it belong to it as well: it may be another person's. Where
        the first or last name is missing, any word with a capital letter next to it is taken for a name.
        """
        profile = self._profiles[name]
        wanted, held, end = set(profile.words), set[int](), start + 1
        for at in range(start, min(start + len(wanted) + 2, len(near))):
            common = wanted.intersection(word for word, _ in near[at])
            if common:
                held |= common
                end = at + 1
        if self.names[name].is_person and held != wanted:
            any_name = not held.issuperset(profile.ends)
            while start > 0 and tokens[start].follows_name and (any_name or near[start - 1]):
                start -= 1
            while end < len(tokens) and tokens[end].follows_name and (any_name or near[end]):
                end += 1
        return start, end

    def _candidates(self, words: Sequence[str], at_least: float) -> set[int]:
        """Return names that may score enough; those that share one word only where either side has no more to offer."""
        hits = [self._nearest(raw) for raw in dict.fromkeys(words)]
        alone = self._lone if len(words) == 1 else self._single
        chosen = {name for found in hits for word, _ in found for name in alone.get(word, ())}
        if len(words) > 1:
            strange = sum(self._weight_of(raw) for raw, found in zip(dict.fromkeys(words), hits, strict=True) if not found)
            chosen.update(self._with_enough(hits, strange, at_least))
        return chosen

    def _with_enough(self, hits: Sequence[_Hits], strange: float, at_least: float) -> list[int]:
        """Return names with two words among some, whose weight may suffice or which have both a person's first and last name.

        The weight that is found is an upper bound, and with it the score: no name that scores enough is left out.
        """
        found = [word for words in hits for word, _ in words]
        if len(hits) < 2 or not found:
            return []
        names = np.concatenate([self._postings[word] for word in found])
        weights = np.repeat([self._weights[word] for word in found], [len(self._postings[word]) for word in found])
        names, where, counts = np.unique(names, return_inverse=True, return_counts=True)
        weight = np.bincount(where, weights)
        keep = counts > 1
        names, weight = names[keep], weight[keep]
        shares = np.minimum(weight / self._totals[names], weight / (weight + strange))
        ends = self._ends[names]
        enough = shares >= (at_least - (1.0 - _COMPLETENESS)) / _COMPLETENESS - _ROUNDING
        both = (ends[:, :1] == found).any(axis=1) & (ends[:, 1:] == found).any(axis=1)
        chosen: list[int] = names[enough | both].tolist()
        return chosen

    def _score(self, words: Sequence[str], name: int) -> float:
        """Return how near words come to a listed name, as a fraction."""
        profile = self._profiles[name]
        ours = list(dict.fromkeys(words))
        theirs = profile.words
        pairs = [
            (-similarity, at, word) for at, raw in enumerate(ours) for word, similarity in self._nearest(raw) if word in theirs
        ]
        pairs.sort()
        partner: dict[int, int] = {}
        similar: dict[int, float] = {}
        for similarity, at, word in pairs:
            if at not in partner and word not in similar:
                partner[at], similar[word] = word, -similarity
        if not similar:
            return 0.0
        paired = sum(self._weights[word] for word in similar)
        if not self._is_enough(ours, partner, similar, profile):
            return 0.0
        fidelity = sum(self._weights[word] * similarity for word, similarity in similar.items()) / paired
        covers_them = paired / sum(self._weights[word] for word in profile.words)
        weights = [self._weights[partner[at]] if at in partner else self._weight_of(raw) for at, raw in enumerate(ours)]
        covers_us = sum(weights[at] for at in partner) / sum(weights)
        score = (1.0 - _COMPLETENESS) * max(covers_us, covers_them) + _COMPLETENESS * min(covers_us, covers_them)
        aligned = " ".join(self._sounds[partner[at]] if at in partner else sound(raw) for at, raw in enumerate(ours))
        score = min(score, fuzz.token_set_ratio(aligned, " ".join(self._sounds[word] for word in profile.words)) / 100.0)
        complete = covers_us >= _COMPLETE
        if self.names[name].is_person and len(similar) > 1 and complete and similar.keys() >= set(profile.ends):
            missing = [raw for word, raw in zip(profile.words, profile.spelled, strict=True) if word not in similar]
            score = max(score, _ANOTHER_INITIAL if _has_another_initial(ours, partner, missing) else _MIDDLE_NAMES_MISSING)
        if len(similar) == 1 and len(profile.words) > 1:
            word = next(iter(similar))
            alone = complete and profile.distinctive == 1 and len(self._sounds[word]) >= _SURE_BY_SOUND
            score = min(score, _ONE_WORD_OF_MANY if alone and self._is_distinctive(word) else _ONE_WORD)
        return min(fidelity * score, self._most(name))

    def _is_enough(
        self, ours: Sequence[str], partner: Mapping[int, int], similar: Mapping[int, float], profile: _Profile
    ) -> bool:
        """Say whether words that agree are evidence: one distinctive word is none when it is short and spelled otherwise.

        There are thousands of listed names of one short word, and one letter makes Visa of Vista.
        """
        telling = [at for at, word in partner.items() if self._is_distinctive(word)]
        if len(telling) != 1:
            return True
        raw, word = ours[telling[0]], partner[telling[0]]
        listed = profile.spelled[profile.words.index(word)]
        if raw == listed:
            return True
        letters = min(len(raw), len(listed))
        if len(partner) > 1:
            return letters >= _SURE_WITH_OTHERS
        by_sound = sound(raw) == self._sounds[word]
        return letters >= (_SURE_BY_SOUND if by_sound else _SURE_WITH_A_TYPO) and (
            by_sound or similar[word] != _SAME_CONSONANTS
        )

    def _is_distinctive(self, word: int) -> bool:
        return max(map(_weight, self._spellings[word])) > _GENERIC

    def _most(self, name: int) -> float:
        return _WEAK if self.names[name].weak else 1.0

    def _weight_of(self, raw: str) -> float:
        word = self._ids.get(sound(raw))
        return self._weights[word] if word is not None else _weight(raw)

    def _exactly(self, raw: str) -> _Hits:
        word = self._ids.get(sound(raw))
        return () if word is None else ((word, 1.0),)

    def _nearest(self, raw: str) -> _Hits:
        """Return the listed words that a word is near to, with their similarity."""
        known = self._near.get(raw)
        if known is not None:
            return known
        sounded = sound(raw)
        bones = skeleton(sounded)
        similar: dict[int, float] = {}
        if len(bones) >= _MIN_CONSONANTS:
            for word in self._by_skeleton.get(bones, ()):
                listed = self._sounds[word]
                # Without vowels (Arabic) a name is as short as its consonants; with them it is about as long as the other.
                if len(bones) in (len(sounded), len(listed)) or abs(len(sounded) - len(listed)) <= _MOST_VOWELS_APART:
                    similar[word] = _SAME_CONSONANTS
        for spelling in {raw, sounded}:
            for variant in _variants(spelling):
                for listed, word in self._by_letters.get(variant, ()):
                    similar[word] = max(similar.get(word, 0.0), JaroWinkler.similarity(spelling, listed))
        found = tuple((word, alike) for word, alike in similar.items() if alike >= _MIN_WORD_SIMILARITY)
        if len(self._near) >= _CACHED_WORDS:
            self._near.clear()
        self._near[raw] = found
        return found


_Hits = tuple[tuple[int, float], ...]
"""Listed words that a word is near to, with their similarity."""


def _weight(raw: str) -> float:
    if raw in PARTICLES or raw in LEGAL_FORMS or (len(raw) == 1 and raw.isascii()):
        return _PARTICLE
    if raw in STRUCTURE_WORDS:
        return _STRUCTURE
    return _GENERIC if raw in GENERIC_WORDS else 1.0


def _has_another_initial(ours: Sequence[str], partner: Mapping[int, int], missing: Sequence[str]) -> bool:
    """Say whether a name has an initial that stands for none of the listed words that it lacks."""
    initials = [raw for at, raw in enumerate(ours) if at not in partner and len(raw) == 1]
    first_letters = {letter for raw in missing for letter in (raw[:1], sound(raw)[:1])}
    return any(first_letters.isdisjoint((initial, sound(initial))) for initial in initials)


def _variants(sounded: str) -> set[str]:
    """Return a word and, if it is long enough, what is left when any one letter is left out."""
    if len(sounded) < _MIN_LETTERS_WITH_TYPO:
        return {sounded}
    return {sounded, *(sounded[:at] + sounded[at + 1 :] for at in range(len(sounded)))}
