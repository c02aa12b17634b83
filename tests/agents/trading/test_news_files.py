import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agents.trading.news import NewsCategory, Urgency
from agents.trading.news_files import NewsFile
from core.clock import FixedClock
from core.errors import DataError, MissingDataError
from tests.agents.trading.signals import NOW

GOOD: dict[str, Any] = {
    "source_key": "one",
    "headline": "Plant halts",
    "published_at": "2024-03-04T10:30:00-05:00",
    "category": "supply chain",
    "urgency": "High",
    "significant": True,
    "tickers": ["aaa", "BBB"],
    "supplier": "Acme",
}


def write(path: Path, *lines: dict[str, Any] | str) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_an_item_is_read_from_a_line_of_json(tmp_path: Path) -> None:
    source = NewsFile(write(tmp_path / "replay.jsonl", GOOD, ""), FixedClock(NOW))
    (item,) = source.fetch().items
    assert (item.source, item.source_key, item.headline, item.supplier) == ("replay", "one", "Plant halts", "Acme")
    assert item.published_at == NOW
    assert (item.category, item.urgency, item.significant) == (NewsCategory.SUPPLY_CHAIN, Urgency.HIGH, True)
    assert item.tickers == ("AAA", "BBB")


def test_the_same_is_read_from_csv(tmp_path: Path) -> None:
    path = tmp_path / "replay.csv"
    path.write_text(
        "source_key,headline,published_at,category,urgency,significant,tickers,supplier\r\n"
        "one,Plant halts,2024-03-04T10:30:00-05:00,supply chain,High,true,aaa | BBB,Acme\r\n"
        '"two","A ""quoted"" headline",2024-03-04T15:30:00Z,other,low,,,\r\n'
    )
    first, second = NewsFile(path, FixedClock(NOW)).fetch().items
    assert first == NewsFile(write(tmp_path / "replay.jsonl", GOOD), FixedClock(NOW)).fetch().items[0]
    assert (second.headline, second.significant, second.tickers, second.supplier) == ('A "quoted" headline', False, (), None)


def test_nothing_is_told_before_its_time(tmp_path: Path) -> None:
    clock = FixedClock(NOW - timedelta(seconds=1))
    source = NewsFile(write(tmp_path / "replay.jsonl", GOOD), clock)
    assert (source.fetch().items, source.fetch().held) == ((), 1)
    source.confirm()
    clock.advance(timedelta(seconds=1))
    assert (len(source.fetch().items), source.fetch().held) == (1, 0)


def test_what_was_confirmed_does_not_come_again_but_what_was_added_does(tmp_path: Path) -> None:
    path = write(tmp_path / "replay.jsonl", GOOD)
    source = NewsFile(path, FixedClock(NOW))
    assert len(source.fetch().items) == len(source.fetch().items) == 1
    source.confirm()
    assert source.fetch().items == ()
    write(path, GOOD, {**GOOD, "source_key": "two"})
    assert [item.source_key for item in source.fetch().items] == ["two"]


def test_without_a_key_the_line_is_the_key(tmp_path: Path) -> None:
    plain = {name: value for name, value in GOOD.items() if name != "source_key"}
    path = write(tmp_path / "replay.jsonl", plain, {**plain, "headline": "Another plant halts"}, plain)
    keys = [item.source_key for item in NewsFile(path, FixedClock(NOW)).fetch().items]
    assert len(keys) == 3
    assert len(set(keys)) == 2


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{not json", "must be JSON"),
        ("[1, 2]", "JSON object"),
        ("[" * 100_000, "must be JSON"),
        ({**GOOD, "published_at": "2024-03-04T10:30:00"}, "zone"),
        ({**GOOD, "published_at": "yesterday"}, "must be a time"),
        ({**GOOD, "published_at": 5}, "must be text"),
        ({**GOOD, "category": "weather"}, "must be one of"),
        ({**GOOD, "urgency": "soon"}, "`urgency`"),
        ({**GOOD, "significant": "maybe"}, "`significant`"),
        ({**GOOD, "tickers": 5}, "`tickers`"),
        ({**GOOD, "tickers": ["A A"]}, "tickers"),
        ({**GOOD, "headline": " "}, "headline"),
        ({**GOOD, "headline": "\ud800"}, "whole characters"),
        ({**GOOD, "colour": "red"}, "unknown"),
        ({"headline": "Plant halts"}, "lacks"),
    ],
)
def test_a_line_that_cannot_be_used_is_told_and_the_others_come(tmp_path: Path, line: dict[str, Any] | str, why: str) -> None:
    batch = NewsFile(write(tmp_path / "replay.jsonl", GOOD, line, {**GOOD, "source_key": "last"}), FixedClock(NOW)).fetch()
    assert [item.source_key for item in batch.items] == ["one", "last"]
    (dropped,) = batch.dropped
    assert dropped.key == "line 2"
    assert why in dropped.reason


def test_a_row_with_a_value_too_few_is_told(tmp_path: Path) -> None:
    path = tmp_path / "replay.csv"
    path.write_text(
        "headline,published_at,category,urgency\nPlant halts,2024-03-04T10:30:00Z\n\nB,2024-03-04T10:30:00Z,other,low\n"
    )
    batch = NewsFile(path, FixedClock(NOW)).fetch()
    assert [item.headline for item in batch.items] == ["B"]
    assert [drop.key for drop in batch.dropped] == ["line 2"]


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("replay.txt", b"", DataError),
        ("replay.jsonl", b"\xff\xfe{", DataError),
        ("replay.csv", b"", DataError),
        ("replay.csv", b"headline,published_at\n", DataError),
        ("replay.csv", b"headline,published_at,category,urgency,colour\n", DataError),
        ("replay.csv", b"headline,headline,published_at,category,urgency\n", DataError),
        ("replay.csv", b'headline,published_at,category,urgency\n"open', DataError),
    ],
)
def test_a_file_that_is_no_such_file_is_refused(tmp_path: Path, name: str, content: bytes, error: type[DataError]) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=name):
        NewsFile(tmp_path / name, FixedClock(NOW)).fetch()


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"nowhere\.csv"):
        NewsFile(tmp_path / "nowhere.csv", FixedClock(NOW)).fetch()
