"""Routine filings: is a headline no more than that a form was filed by the calendar?

Hides how forms are spelt. Promises that what is said beside the form is not lost: a headline that tells of anything else than
who filed it, and for when, is news.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—―−", "-"))
_FORM = r"(?:(?:sec\s+)?form:?\s+)"
# A kind such as `4` or `ARS` may be any number or word; of one like it something must follow that says it is a form.
_BARE = re.compile(r"\d*[a-z]*", re.IGNORECASE)
_UNITS = (
    "bit|cent|core|cylinder|day|digit|dimensional|door|fold|foot|hour|inch|megawatt|mile|minute|month|nanometer|percent|point|quarter|"
    "seat|star|step|time|to|way|week|year"
)
_FILER_FOLLOWS = re.compile(rf"\s+-\s+(?!(?i:{_UNITS})s?\b)[A-Z0-9][\w&.']")
_HEADING = re.compile(r"\s*[:(|]|\s+-|-\s")
_FILED = re.compile(r"(?:files|filed|submits|submitted)", re.IGNORECASE)

_FILING_WORDS = frozenset(
    {
        "a", "amended", "amendment", "an", "and", "annual", "by", "commission", "december", "definitive", "edgar", "ended",
        "ending", "fiscal", "filed", "filing", "first", "for", "form", "fourth", "full", "interim", "its", "june", "march",
        "materials", "of", "on", "period", "preliminary", "proxy", "quarter", "quarterly", "report", "reports", "sec",
        "second", "september", "statement", "submitted", "the", "third", "with", "year",
    }
)  # fmt: skip
"""What is said of a filing without saying anything."""
_NEWS_WORDS = frozenset(
    {
        "admits", "after", "against", "as", "at", "cites", "confirms", "delayed", "delays", "discloses", "finds", "flags",
        "from", "in", "late", "misses", "missing", "over", "reveals", "says", "shows", "to", "under", "warns",
    }
)  # fmt: skip
"""What is no part of a name, though it has a capital letter."""


class RoutineFilings:
    """Forms that are filed by the calendar.

    Parameters
    ----------
    kinds : iterable of str
        As EDGAR writes them, such as ``10-K`` or ``DEF 14A``; an amendment of one, ``10-K/A``, is one too.
    """

    def __init__(self, kinds: Iterable[str]) -> None:
        # The longest first, so that none is taken for the beginning of another.
        spelt = "|".join(_spelling(kind) for kind in sorted(kinds, key=len, reverse=True))
        kind = rf"(?P<kind>(?:{spelt or '(?!)'})(?:\s?/\s?A)?)(?![\w/])"
        self._first = re.compile(rf"(?P<form>{_FORM})?{kind}", re.IGNORECASE)
        self._filed = re.compile(rf"(?P<filer>.{{1,100}}?)\s+{_FILED.pattern}\s+(?P<what>.{{0,60}}?){kind}", re.IGNORECASE)

    def find(self, headline: str) -> str | None:
        """Return the kind of the filing that a headline is and no more; None of any other headline.

        Notes
        -----
        Three ways to write one are known: the kind as a heading ("10-K: Acme", "4 - Jane Doe", "DEF 14A (proxy statement)"),
        the kind and a name ("Form 10-K filed by Acme"), and who filed what ("Acme files its 10-Q for June"). In the last two
        every word must be of a name or of a filing, so that "10-K shows fraud" and "Acme files its 10-K late" are news.
        """
        text = " ".join(unicodedata.normalize("NFKC", headline).translate(_DASHES).split())
        first = self._first.match(text)
        if first is not None:
            rest = text[first.end() :]
            if first["form"] is None and _BARE.fullmatch(first["kind"]):
                return first["kind"] if not rest or _FILER_FOLLOWS.match(rest) else None
            return first["kind"] if _HEADING.match(rest) or _is_said_of_a_filing(rest, names=True) else None
        filed = self._filed.match(text)
        if filed is None or not _is_name(filed["filer"]):
            return None
        said = f"{filed['what']} {text[filed.end() :]}"
        return filed["kind"] if _is_said_of_a_filing(said, names=False) else None


def _spelling(kind: str) -> str:
    """Return the pattern of a kind: ``DEF 14A`` and ``DEF14A``, ``10-K`` and ``10K`` are one."""
    return "".join(r"[\s-]?" if sign == " " else "-?" if sign == "-" else re.escape(sign) for sign in kind)


def _is_said_of_a_filing(text: str, *, names: bool) -> bool:
    """Say whether every word is one of filings, a date or, where it may be, of a name."""
    words = [word.strip(".,;'\"()") for word in text.split()]
    return all(word.lower() in _FILING_WORDS or word.isdigit() or (names and _is_name(word)) for word in words if word)


def _is_name(text: str) -> bool:
    """Say whether every word may be one of a company's name."""
    return all(
        (word[:1].isupper() or word[:1].isdigit() or word in ("&", "and", "of", "the")) and word.lower() not in _NEWS_WORDS
        for word in text.replace(",", " ").split()
    )
