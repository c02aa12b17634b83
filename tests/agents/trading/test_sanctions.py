import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agents.trading.sanctions import (
    FICTITIOUS,
    FictitiousLists,
    ListFile,
    ListFormat,
    SanctionsFiles,
    fictitious_files,
    read_list,
)
from core.clock import FixedClock
from core.errors import DataError, MissingDataError
from tests.agents.trading.signals import NOW

DAY = datetime(2024, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copy = tmp_path / "lists"
    shutil.copytree(FICTITIOUS, copy)
    return copy


def ofac(folder: Path, **changes: object) -> ListFile:
    return ListFile(**({"format": ListFormat.OFAC, "path": folder / "sdn.csv", "dated": DAY} | changes))  # type: ignore[arg-type]


def test_an_ofac_list_is_read_with_its_aliases_and_names_as_they_are_spoken(folder: Path) -> None:
    listed = read_list(ofac(folder))
    assert [(name.name, name.entry, name.is_person) for name in listed.names] == [
        ("Tikhomir Lazarevich ZERVANOV", "OFAC 9001", True),
        ("ZORYANKA MARITIME TRADING LLC", "OFAC 9002", False),
        ("BANK OF NORTH ZEMLYANIA", "OFAC 9003", False),
        ("Yasin Abd al-Latif AL-FAKHOURANI", "OFAC 9004", True),
        ("Tichomir ZERWANOW", "OFAC 9001", True),
        ("ZORYANKA SHIPPING COMPANY", "OFAC 9002", False),
        ("Yassine EL FAKHURANY", "OFAC 9004", True),
    ]
    assert listed.version.startswith("ofac 2024-03-01 ")


def test_an_eu_list_is_dated_by_itself_and_knows_weak_names(folder: Path) -> None:
    listed = read_list(ListFile(format=ListFormat.EU, path=folder / "eu.xml"))
    assert listed.dated == DAY
    assert [(name.name, name.entry, name.is_person, name.weak) for name in listed.names] == [
        ("Qorvexim Industrial Group", "EU EU.0.1", False, False),
        ("Корвексим", "EU EU.0.1", False, False),
        ("Qorvex", "EU EU.0.1", False, True),
        ("Milovan Radojko Čvorović", "EU EU.0.2", True, False),
    ]


def test_a_un_list_is_dated_by_itself_and_knows_weak_names(folder: Path) -> None:
    listed = read_list(ListFile(format=ListFormat.UN, path=folder / "un.xml"))
    assert listed.dated == DAY
    assert [(name.name, name.entry, name.is_person, name.weak) for name in listed.names] == [
        ("IDRISSOU MAHDAOUI BEN TAHRIR", "UN XXi.001", True, False),
        ("Idris al-Mahdawi", "UN XXi.001", True, False),
        ("Abu Tahrir", "UN XXi.001", True, True),
        ("VERDANT CRESCENT FOUNDATION", "UN XXe.001", False, False),
        ("Zarnitsa Export House", "UN XXe.001", False, False),
    ]


def test_a_list_without_a_date_of_its_own_has_that_of_its_oldest_file(folder: Path) -> None:
    for name, day in (("sdn.csv", 20), ("alt.csv", 10)):
        at = datetime(2024, 2, day, tzinfo=UTC).timestamp()
        os.utime(folder / name, (at, at))
    assert read_list(ofac(folder, dated=None)).dated == datetime(2024, 2, 10, tzinfo=UTC)


def test_the_version_follows_the_content(folder: Path) -> None:
    before = read_list(ofac(folder)).version
    content = (folder / "alt.csv").read_bytes()
    (folder / "alt.csv").write_bytes(content.replace(b"ZERWANOW", b"ZERWANOFF"))
    assert read_list(ofac(folder)).version != before


def test_files_are_read_again_when_they_change(folder: Path) -> None:
    files = SanctionsFiles([ofac(folder)])
    first = files.load()
    assert files.load() is first
    text = (folder / "sdn.csv").read_text().replace("ZORYANKA", "ZORYANKAX")
    (folder / "sdn.csv").write_text(text, newline="")
    assert files.load().index.match_name("Zoryankax Maritime Trading") is not None


def test_several_lists_are_one_index_with_the_date_of_the_oldest(folder: Path) -> None:
    newer = ListFile(format=ListFormat.UN, path=folder / "un.xml", dated=DAY + timedelta(days=3))
    lists = SanctionsFiles([ofac(folder), newer]).load()
    assert lists.dated == DAY
    assert lists.version.count("+") == 1
    assert len(lists.index) == 12


@pytest.mark.parametrize("missing", ["sdn.csv", "alt.csv"])
def test_a_missing_file_is_refused(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(MissingDataError, match=missing):
        SanctionsFiles([ofac(folder)]).load()


def test_a_list_that_vanishes_after_it_was_read_is_missing(folder: Path) -> None:
    files = SanctionsFiles([ofac(folder)])
    files.load()
    (folder / "sdn.csv").unlink()
    with pytest.raises(MissingDataError):
        files.load()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'1,"A NAME",individual', "cut off"),
        (b'1,"A NAME",individual\r\n', "12 fields"),
        (b'one,"A NAME",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- \r\n', "a number and a name"),
        (b"1,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- \r\n", "a number and a name"),
        (b'1,"A NAME,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- \r\n', "not the CSV|12 fields"),
        (b"<html><body>moved</body></html>\n", "12 fields"),
        (b"", "at least 1 names"),
        ('1,"M\u00dcLLER",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- \r\n'.encode("latin-1"), "encoding"),
        ('1,"MULLER",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- \r\n'.encode("utf-16-le"), "NUL|encoding"),
        ('1,"MULLER",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- \r\n'.encode("utf-16"), "encoding"),
    ],
)
def test_a_main_file_that_is_not_one_is_refused(folder: Path, content: bytes, why: str) -> None:
    (folder / "sdn.csv").write_bytes(content)
    (folder / "alt.csv").write_bytes(b"")
    with pytest.raises(DataError, match=why):
        read_list(ofac(folder))


def test_another_encoding_is_read_when_it_is_named(folder: Path) -> None:
    row = '1,"MÜLLER",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- \r\n'
    (folder / "sdn.csv").write_bytes(row.encode("cp1252"))
    (folder / "alt.csv").write_bytes(b"")
    assert read_list(ofac(folder, encoding="cp1252")).names[0].name == "MÜLLER"
    with pytest.raises(DataError, match="no-such-encoding"):
        read_list(ofac(folder, encoding="no-such-encoding"))


def test_an_alias_of_an_entry_that_is_not_there_shows_that_the_main_file_is_cut_off(folder: Path) -> None:
    rows = (folder / "sdn.csv").read_bytes().split(b"\r\n")
    (folder / "sdn.csv").write_bytes(b"\r\n".join(rows[:2]) + b"\r\n")
    with pytest.raises(DataError, match="cut off"):
        read_list(ofac(folder))


def test_fewer_names_than_expected_are_a_list_that_was_cut_off(folder: Path) -> None:
    assert len(read_list(ofac(folder, min_names=7)).names) == 7
    with pytest.raises(DataError, match="at least 8 names, had 7"):
        read_list(ofac(folder, min_names=8))


@pytest.mark.parametrize("name", ["eu.xml", "un.xml"])
def test_an_xml_list_that_is_cut_off_anywhere_is_refused(folder: Path, name: str) -> None:
    kind = ListFormat(name.split(".")[0])
    content = (folder / name).read_bytes().rstrip()
    for end in range(0, len(content), 97):
        (folder / name).write_bytes(content[:end])
        with pytest.raises(DataError):
            read_list(ListFile(format=kind, path=folder / name))


@pytest.mark.parametrize(
    ("kind", "content", "why"),
    [
        (ListFormat.EU, b"<html/>", "root"),
        (ListFormat.UN, b"<html/>", "root"),
        (ListFormat.UN, b"not xml at all", "well-formed"),
        (ListFormat.UN, b'<CONSOLIDATED_LIST dateGenerated="2024-03-01T00:00:00Z"/>', "at least 1 names"),
        (
            ListFormat.UN,
            b"<CONSOLIDATED_LIST><ENTITIES><ENTITY><DATAID>1</DATAID><FIRST_NAME>A</FIRST_NAME></ENTITY></ENTITIES></CONSOLIDATED_LIST>",
            "dateGenerated",
        ),
        (
            ListFormat.UN,
            b'<CONSOLIDATED_LIST dateGenerated="2024-03-01"><ENTITIES><ENTITY><DATAID>1</DATAID></ENTITY></ENTITIES>'
            b"</CONSOLIDATED_LIST>",
            "lacks",
        ),
        (
            ListFormat.EU,
            b'<export xmlns="http://eu.europa.ec/fpi/fsd/export" generationDate="2024-03-01"><sanctionEntity logicalId="1">'
            b'<subjectType code="person"/></sanctionEntity></export>',
            "at least 1 names",
        ),
        (
            ListFormat.EU,
            b'<export xmlns="http://eu.europa.ec/fpi/fsd/export" generationDate="2024-03-01"><sanctionEntity logicalId="1"/>'
            b"</export>",
            "subjectType",
        ),
        (ListFormat.UN, b'<!DOCTYPE x [<!ENTITY a "b">]><CONSOLIDATED_LIST/>', "well-formed"),
        (ListFormat.UN, b'<?xml version="1.0" encoding="no-such"?><CONSOLIDATED_LIST/>', "well-formed"),
    ],
)
def test_an_xml_file_that_is_no_such_list_is_refused(tmp_path: Path, kind: ListFormat, content: bytes, why: str) -> None:
    path = tmp_path / "list.xml"
    path.write_bytes(content)
    with pytest.raises(DataError, match=why):
        read_list(ListFile(format=kind, path=path))


def test_no_lists_at_all_are_refused() -> None:
    with pytest.raises(DataError, match="at least one"):
        SanctionsFiles([])


def test_a_list_cannot_be_dated_without_a_zone() -> None:
    with pytest.raises(DataError, match="UTC"):
        ListFile(format=ListFormat.UN, path=Path("un.xml"), dated=datetime(2024, 3, 1))  # noqa: DTZ001


def test_the_made_up_lists_are_of_any_day_that_is_wanted() -> None:
    assert SanctionsFiles(fictitious_files()).load().dated == DAY
    assert SanctionsFiles(fictitious_files(NOW)).load().dated == NOW
    clock = FixedClock(NOW)
    lists = FictitiousLists(clock)
    assert lists.load().dated == NOW
    clock.advance(timedelta(days=400))
    assert lists.load().dated == NOW + timedelta(days=400)
    assert lists.load().version.startswith("fictitious ")
