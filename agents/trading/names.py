"""Names of people and companies, brought to a form in which the same name looks the same.

Hides scripts, accents, legal forms and the many ways to write a foreign name in Latin letters. Promises that `fold` gives
lower-case Latin letters wherever it knows the script, and that two usual spellings of one name have one `sound`, or nearly.

Cyrillic, Greek and Arabic letters are transcribed letter by letter; Arabic leaves short vowels out, which is why `skeleton`
compares names by their consonants. Names in other scripts (Chinese, Korean ...) stay as they are and match themselves only.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache


def _letters(known: str, latin: str) -> dict[str, str]:
    """Pair letters with what they become; ``_`` becomes nothing."""
    return {letter: heard.strip("_") for letter, heard in zip(known, latin.split(), strict=True)}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CYRILLIC = _letters(
    "абвгдеёжзийклмнопрстуфхцчшщъыьэюяіїєґўјљњћђџ",
    "a b v g d e e zh z i i k l m n o p r s t u f kh ts ch sh shch _ y _ e iu ia i i e g u j l n c dj dz",
)
_GREEK = _letters("αβγδεζηθικλμνξοπρσςτυφχψω", "a v g d e z i th i k l m n x o p r s s t y f ch ps o")
_ARABIC = _letters(
    "ابتثجحخدذرزسشصضطظعغفقكکلمنهويیةىأإآئؤپچگژ",
    "a b t th j h kh d dh r z s sh s d t z a gh f q k k l m n h w y y a a a i a y w p ch g zh",
)
_LATIN = {"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d", "ı": "i", "ħ": "h", "ŋ": "n"}
_LETTERS = str.maketrans(_CYRILLIC | _GREEK | _ARABIC | _LATIN)

_APOSTROPHES = re.compile(r"['’‘`ʼʻʹ´ˈ]")
_DOTTED = re.compile(r"\b(?:\w\.){2,}\w?")
_WORD = re.compile(r"[^\W_]+")
_MOST_CACHED = 64
_ARABIC_ARTICLE = re.compile(r"\bال(?=\w{3})")

LEGAL_FORMS = _words(
    """
    ab ag aktiebolag aktiengesellschaft anonima anonyme ao aps as asa bhd bv bvba co company corp corporation cv dd
    doo eood eurl fzc fzco fze fzllc gesellschaft gesmbh gmbh inc incorporated jsc kft kg kgaa kk limitada limited llc
    llp lp ltd ltda mbh nv oaj oao ooo oy oyj pao pjsc plc pte pty pvt sa sae sal sarl sas sasu sdn se sia sl sociedad
    societe spa spzoo srl sro too tov uab ug zao zrt
    """
)
"""Words that say which kind of company it is, and not which company."""

_LEGAL_PHRASES = re.compile(
    r"\b(?:(?:public |open |closed |private )?joint stock company|limited liability (?:company|partnership)"
    r"|(?:public |private |pty )limited(?: company)?|sp z oo|a s|s a|s p a|s r l|s a r l|l l c)\b"
)

GENERIC_WORDS = _words(
    """
    agency air airlines airways association bank banking brothers bureau business capital center central centre
    chemical chemicals commerce commercial committee construction consulting cooperative council defence defense
    department development east eastern electric electronics energy engineering establishment exchange export factory
    finance financial first food foods foundation front fund gas general house import industrial industries industry
    institute insurance investment investments iron islamic line lines logistics machinery management manufacturing
    marine maritime market media metal metals mining ministry motor motors movement national navigation network new
    north northern office offshore oil organisation organization partners party petrochemical petroleum pharma
    pharmaceutical plant port power product products project projects public refinery research resources security
    service services ship shipbuilding shipping ships shipyard society software solutions south southern state steel
    supply system systems technical technologies technology telecom telecommunications textile trade trading transport
    transportation travel trust union united university venture ventures west western works world
    """
)
"""Words that many companies share, so that having one in common says little."""

PARTICLES = _words(
    """
    abou abu ad al as ben bin bint da de del della den der di do dos du e el ibn la le ter ul umm ur van von y zu
    """
)
"""Small parts of names of people that are often left out."""

STRUCTURE_WORDS = _words("group holding holdings international global enterprise enterprises")
"""Words that say how a company is built; they come and go."""

_STOP = _words("the of and for und et")
_SERVANT = re.compile(r"^abd(?:[aeou]u?[lr])?$")
_SERVANT_OF = re.compile(r"^abd(?:[aeou]u?[lrnsz])?(?=[a-z]{4,}$)")

# In order: what stands above is read before its parts are.
_SOUNDS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"schtsch|shch|chtch", "S"),
        (r"tsch|tch", "C"),
        (r"sch|sh|sz", "S"),
        (r"ch|cz", "C"),
        (r"dzh|dsch|dj|dz", "j"),
        (r"zh", "z"),
        (r"kh", "h"),
        (r"gh", "g"),
        (r"ph", "f"),
        (r"th", "t"),
        (r"dh", "d"),
        (r"ck|q|c", "k"),
        (r"x", "ks"),
        (r"ts|tz", "z"),
        (r"w", "v"),
        (r"(?<=[eo])ff$", "v"),
        (r"(?<=[aeiou])h$", ""),
        (r"ou|oo", "u"),
        (r"ae|ea", "e"),
        (r"oe", "o"),
        (r"ue", "u"),
        (r"yo|jo|io", "e"),
        (r"[yj]", "i"),
        (r"ie|ee|ii", "i"),
    )
)
_DOUBLES = re.compile(r"(.)\1+")
_BONES = str.maketrans("c", "s", "aeiou")


def fold(text: str) -> str:
    """Return text in lower case, in Latin letters without accents where the script is known."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    if plain.isascii():
        return _APOSTROPHES.sub("", plain)
    # Letters with a mark of their own (й) come first, then what is left when other marks are taken away (ή).
    plain = unicodedata.normalize("NFKD", _ARABIC_ARTICLE.sub("ال ", plain).translate(_LETTERS))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter)).translate(_LETTERS)
    return _APOSTROPHES.sub("", plain)


def split_words(text: str) -> list[str]:
    """Return the words of text, folded; ``S.A.`` is one word, ``Al-Rashid`` are two."""
    return [word for chunk in text.split() for word in words_of(chunk)]


def words_of(chunk: str) -> tuple[str, ...]:
    """Return the words of text that has no blanks in it, folded."""
    return _words_of(chunk) if len(chunk) <= _MOST_CACHED else _words_of.__wrapped__(chunk)


@lru_cache(maxsize=65_536)
def _words_of(chunk: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(_DOTTED.sub(lambda found: found[0].replace(".", ""), fold(chunk))))


def name_words(name: str) -> list[str]:
    """Return the words of a name without its legal form; with it, when nothing else would be left."""
    words = split_words(name)
    kept = _LEGAL_PHRASES.sub(" ", " ".join(words)).split()
    while kept and kept[-1] in LEGAL_FORMS:
        kept.pop()
    while kept and kept[0] in LEGAL_FORMS:
        kept.pop(0)
    # A short legal form in the middle is more likely a part of the name: "Kim Se Jong".
    kept = [word for word in kept if len(word) <= 2 or word not in LEGAL_FORMS]
    kept = [word for word in kept if word not in _STOP]
    return join_servants(kept or words)


def join_servants(words: list[str]) -> list[str]:
    """Write ``Abd al-Rahman``, ``Abdul Rahman`` and ``Abdurrahman`` as one word, and alike."""
    return [word for word, _ in group_servants(words)]


def group_servants(words: list[str]) -> list[tuple[str, int]]:
    """Return what `join_servants` does, with the number of words that went into each."""
    groups: list[tuple[str, int]] = []
    at = 0
    while at < len(words):
        word, size = _SERVANT_OF.sub("abd", words[at]), 1
        if _SERVANT.match(words[at]) and at + 1 < len(words):
            size = 3 if words[at + 1] in PARTICLES and at + 2 < len(words) else 2
            word = "abd" + words[at + size - 1]
        groups.append((word, size))
        at += size
    return groups


@lru_cache(maxsize=65_536)
def sound(word: str) -> str:
    """Return a folded word as it sounds: ``yuriy``, ``iurii`` and ``juri`` are one."""
    for pattern, replacement in _SOUNDS:
        word = pattern.sub(replacement, word)
    return _DOUBLES.sub(r"\1", word.lower()) or word.lower()


def skeleton(sounded: str) -> str:
    """Return the consonants of a word as it sounds, with ``ch`` and ``sh`` alike, which French writes alike."""
    return sounded.translate(_BONES)
