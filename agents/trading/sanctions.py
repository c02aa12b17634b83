"""Sanctions lists: the public files of OFAC, the EU and the UN, read whole or refused.

Hides formats and encodings. Promises that a list that is read is the list that was published: a file that is missing, cut off,
of another encoding or of another format is a `DataError` that names it, never a shorter list. Files are read again when they
change.

====== ================================================== =============================================
format file                                               dated by
====== ================================================== =============================================
OFAC   ``sdn.csv`` and ``alt.csv`` (comma, no header)      `ListFile.dated`, else the files' own times
EU     consolidated list, XML 1.1 (``export``)             its ``generationDate``
UN     consolidated list, XML (``CONSOLIDATED_LIST``)      its ``dateGenerated``
====== ================================================== =============================================
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from agents.trading.name_index import ListedName, NameIndex
from core.clock import Clock
from core.errors import DataError, MissingDataError

FICTITIOUS = Path(__file__).with_name("fictitious_lists")
"""Folder of the made-up lists that ship, for demonstrations and tests: nobody in them exists."""

_SDN_COLUMNS, _ALT_COLUMNS = 12, 5
_ABSENT = "-0-"
_END_OF_FILE = "\x1a"
_EU = "{http://eu.europa.ec/fpi/fsd/export}"
_UN_NAMES = ("FIRST_NAME", "SECOND_NAME", "THIRD_NAME", "FOURTH_NAME")


class ListFormat(StrEnum):
    """Who publishes a list, and so how it is written."""

    OFAC = "ofac"
    EU = "eu"
    UN = "un"


@dataclass(frozen=True, kw_only=True, slots=True)
class ListFile:
    """Where a list lies.

    Parameters
    ----------
    format : ListFormat
    path : Path
        Of OFAC ``sdn.csv``; ``alt.csv`` must lie beside it.
    dated : datetime, optional
        When it was published, in UTC; by default what the file says, or when it was last written where it says nothing.
    encoding : str, default="utf-8-sig"
        Of OFAC's files; XML names its own.
    min_names : int, default=1
        Fewer names than this are a list that was cut off; give a figure near that of the last list you saw.
    """

    format: ListFormat
    path: Path
    dated: datetime | None = None
    encoding: str = "utf-8-sig"
    min_names: int = 1

    def __post_init__(self) -> None:
        if self.dated is not None and self.dated.utcoffset() is None:
            raise DataError(f"`dated` of {self.path} must be in UTC, was {self.dated.isoformat()}; add `tzinfo=UTC`.")

    @property
    def parts(self) -> tuple[Path, ...]:
        """The files it is made of."""
        return (self.path, self.path.with_name("alt.csv")) if self.format is ListFormat.OFAC else (self.path,)


@dataclass(frozen=True, kw_only=True, slots=True)
class SanctionsList:
    """A list as it was read.

    Parameters
    ----------
    format : ListFormat
    version : str
        Who published it, when, and the first digits of its SHA-256.
    dated : datetime
        When it was published, UTC.
    names : tuple of ListedName
    """

    format: ListFormat
    version: str
    dated: datetime
    names: tuple[ListedName, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScreeningLists:
    """Lists ready to be asked: what they are, and the index of all their names."""

    lists: tuple[SanctionsList, ...]
    index: NameIndex

    @property
    def version(self) -> str:
        """Which lists these are, in one line."""
        return " + ".join(item.version for item in self.lists)

    @property
    def dated(self) -> datetime:
        """Date of the oldest of them, UTC."""
        return min(item.dated for item in self.lists)


class ListSource(Protocol):
    """Where Hades takes lists from."""

    def load(self) -> ScreeningLists:
        """Return the lists; DataError when one is missing or cannot be used."""
        ...

    def forget(self) -> None:
        """Read the lists anew at the next question, whether they changed or not."""
        ...


class SanctionsFiles:
    """Lists from files, read once and again when a file changes.

    Parameters
    ----------
    files : sequence of ListFile

    Raises
    ------
    DataError
        If there are none: screening against nothing is not screening.
    """

    def __init__(self, files: Sequence[ListFile]) -> None:
        if not files:
            raise DataError("`files` must name at least one sanctions list, was empty.")
        self.files = tuple(files)
        self._read: tuple[tuple[tuple[int, int], ...], ScreeningLists] | None = None

    def load(self) -> ScreeningLists:
        """Return the lists.

        Raises
        ------
        MissingDataError
            If a file is not there or cannot be opened.
        DataError
            If one is not a list of its format, or has too few names.
        """
        state = tuple(_state_of(path) for item in self.files for path in item.parts)
        if self._read is None or self._read[0] != state:
            lists = tuple(read_list(item) for item in self.files)
            self._read = (state, ScreeningLists(lists=lists, index=NameIndex(name for item in lists for name in item.names)))
        return self._read[1]

    def forget(self) -> None:
        """Read the files anew at the next question."""
        self._read = None


class FictitiousLists:
    """The made-up lists that ship, always of today: for demonstrations and replays, never for real money.

    Parameters
    ----------
    clock : Clock
        Tells which day today is.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._files = SanctionsFiles(fictitious_files())

    def load(self) -> ScreeningLists:
        """Return the lists, dated now."""
        known, now = self._files.load(), self._clock.now()
        lists = tuple(
            SanctionsList(format=item.format, version=f"fictitious {item.version}", dated=now, names=item.names)
            for item in known.lists
        )
        return ScreeningLists(lists=lists, index=known.index)

    def forget(self) -> None:
        """Read the files anew at the next question."""
        self._files.forget()


def fictitious_files(dated: datetime | None = None) -> tuple[ListFile, ...]:
    """Return where the made-up lists lie, dated as given or as they say: 1 March 2024 at noon."""
    day = datetime(2024, 3, 1, 12, tzinfo=UTC) if dated is None else dated
    return (
        ListFile(format=ListFormat.OFAC, path=FICTITIOUS / "sdn.csv", dated=day),
        ListFile(format=ListFormat.EU, path=FICTITIOUS / "eu.xml", dated=dated),
        ListFile(format=ListFormat.UN, path=FICTITIOUS / "un.xml", dated=dated),
    )


def read_list(file: ListFile) -> SanctionsList:
    """Read a list whole.

    Raises
    ------
    MissingDataError
        If a file is not there or cannot be opened.
    DataError
        If it is not a list of its format, or has too few names.
    """
    contents = [_content(path) for path in file.parts]
    names, dated = _READERS[file.format](file, contents)
    if len(names) < file.min_names:
        raise DataError(f"{file.path} must have at least {file.min_names} names, had {len(names)}: it may be cut off.")
    digest = hashlib.sha256(b"".join(contents)).hexdigest()[:12]
    version = f"{file.format.value} {dated:%Y-%m-%d} {digest}"
    return SanctionsList(format=file.format, version=version, dated=dated, names=tuple(names))


def _read_ofac(file: ListFile, contents: list[bytes]) -> tuple[list[ListedName], datetime]:
    sdn, alt = file.parts
    names: list[ListedName] = []
    persons: dict[str, bool] = {}
    for number, row in _rows(sdn, contents[0], file.encoding, _SDN_COLUMNS):
        uid, name, kind = row[0].strip(), row[1].strip(), row[2].strip()
        if not uid.isdigit() or name in ("", _ABSENT):
            raise DataError(f"{sdn}, row {number}: expected a number and a name, was {row[:2]!r}.")
        persons[uid] = kind == "individual"
        names.append(_ofac_name(name, uid, persons[uid]))
    for number, row in _rows(alt, contents[1], file.encoding, _ALT_COLUMNS):
        uid, name = row[0].strip(), row[3].strip()
        if uid not in persons:
            raise DataError(
                f"{alt}, row {number}: names entry {uid!r}, which {sdn.name} does not have: one of them is cut off."
            )
        if name in ("", _ABSENT):
            raise DataError(f"{alt}, row {number}: expected a name, was {name!r}.")
        names.append(_ofac_name(name, uid, persons[uid]))
    return names, file.dated or min(datetime.fromtimestamp(_state_of(path)[0] / 1e9, UTC) for path in (sdn, alt))


def _ofac_name(name: str, uid: str, is_person: bool) -> ListedName:
    family, comma, given = name.partition(",")
    spoken = f"{given.strip()} {family.strip()}" if is_person and comma else name
    return ListedName(name=spoken, entry=f"OFAC {uid}", is_person=is_person)


def _rows(path: Path, content: bytes, encoding: str, n_columns: int) -> Iterator[tuple[int, list[str]]]:
    try:
        text = content.decode(encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise DataError(f"{path} must be text in {encoding}: {error}; give `encoding`.") from error
    # OFAC ends its files with the end-of-file mark of DOS.
    body = text.rstrip().removesuffix(_END_OF_FILE)
    if "\x00" in body:
        raise DataError(f"{path} must be text in {encoding}, had NUL characters; give `encoding`.")
    if body and not text.endswith(("\n", _END_OF_FILE)):
        raise DataError(f"{path} must end with a line break: it is cut off.")
    try:
        for number, row in enumerate(csv.reader(io.StringIO(body, newline=""), strict=True), start=1):
            if not row:
                continue
            if len(row) != n_columns:
                raise DataError(
                    f"{path}, row {number}: expected {n_columns} fields, had {len(row)}: it is cut off or no such list."
                )
            yield number, row
    except csv.Error as error:
        raise DataError(f"{path} is not the CSV that OFAC publishes: {error}.") from error


def _read_eu(file: ListFile, contents: list[bytes]) -> tuple[list[ListedName], datetime]:
    root = _tree(file.path, contents[0], f"{_EU}export")
    names: list[ListedName] = []
    for entity in root.iter(f"{_EU}sanctionEntity"):
        uid = entity.get("euReferenceNumber") or entity.get("logicalId") or ""
        kind = entity.find(f"{_EU}subjectType")
        if not uid or kind is None:
            raise DataError(f"{file.path}: an entity ({uid or 'without a number'}) lacks its number or `subjectType`.")
        is_person = kind.get("code") == "person"
        # An entity without a name (a ship known by its number) cannot be met in a text, and is no reason to refuse the rest.
        aliases = [alias for alias in entity.iter(f"{_EU}nameAlias") if (alias.get("wholeName") or "").strip()]
        names += [
            ListedName(
                name=str(alias.get("wholeName")).strip(),
                entry=f"EU {uid}",
                is_person=is_person,
                weak=alias.get("strong") == "false",
            )
            for alias in aliases
        ]
    return names, file.dated or _time(file.path, "generationDate", root.get("generationDate"))


def _read_un(file: ListFile, contents: list[bytes]) -> tuple[list[ListedName], datetime]:
    root = _tree(file.path, contents[0], "CONSOLIDATED_LIST")
    names: list[ListedName] = []
    for kind, is_person in (("INDIVIDUAL", True), ("ENTITY", False)):
        for entity in root.iter(kind):
            uid = _text(entity, "REFERENCE_NUMBER") or _text(entity, "DATAID")
            name = " ".join(filter(None, (_text(entity, tag) for tag in _UN_NAMES)))
            if not uid or not name:
                raise DataError(f"{file.path}: an {kind} ({uid or 'without a number'}) lacks its number or its name.")
            found = [(name, False), (_text(entity, "NAME_ORIGINAL_SCRIPT"), False)]
            found += [
                (_text(alias, "ALIAS_NAME"), _text(alias, "QUALITY").lower() == "low") for alias in entity.iter(f"{kind}_ALIAS")
            ]
            names += [ListedName(name=text, entry=f"UN {uid}", is_person=is_person, weak=weak) for text, weak in found if text]
    return names, file.dated or _time(file.path, "dateGenerated", root.get("dateGenerated"))


def _tree(path: Path, content: bytes, expected: str) -> Element:
    try:
        root = fromstring(content, forbid_dtd=True)
    except (ParseError, DefusedXmlException, UnicodeDecodeError, LookupError, ValueError) as error:
        raise DataError(f"{path} is not well-formed XML, or is cut off: {error!r}.") from error
    if root.tag != expected:
        raise DataError(f"{path} must have the root {expected}, had {root.tag}: it is another list.")
    return root


def _text(element: Element, tag: str) -> str:
    return " ".join((element.findtext(tag) or "").split())


def _time(path: Path, name: str, value: str | None) -> datetime:
    try:
        at = datetime.fromisoformat(value or "")
    except ValueError as error:
        raise DataError(f"{path} must say in `{name}` when it was published, said {value!r}; give `dated`.") from error
    # A date without a zone is read as UTC: a list is aged in days.
    return at.replace(tzinfo=UTC) if at.utcoffset() is None else at.astimezone(UTC)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MissingDataError(f"the sanctions list {path} cannot be read: {error.strerror or error}.") from error


def _state_of(path: Path) -> tuple[int, int]:
    try:
        state = path.stat()
    except OSError as error:
        raise MissingDataError(f"the sanctions list {path} cannot be read: {error.strerror or error}.") from error
    return state.st_mtime_ns, state.st_size


_READERS: dict[ListFormat, Callable[[ListFile, list[bytes]], tuple[list[ListedName], datetime]]] = {
    ListFormat.OFAC: _read_ofac,
    ListFormat.EU: _read_eu,
    ListFormat.UN: _read_un,
}
