from pathlib import Path

import pytest

from agents.trading.universe import read_universe
from core.errors import DataError, MissingDataError


def written(folder: Path, text: str) -> Path:
    path = folder / "universe.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("text", ["AAPL\nBRK.B\n", "ticker\nAAPL\n\n BRK.B \n", "﻿ticker,sector\nAAPL,\nBRK.B,\n"])
def test_a_universe_is_a_ticker_a_line(tmp_path: Path, text: str) -> None:
    universe = read_universe(written(tmp_path, text))
    assert universe.tickers == ("AAPL", "BRK.B")
    assert universe.sectors == {}


def test_a_sector_may_stand_beside_a_ticker(tmp_path: Path) -> None:
    universe = read_universe(written(tmp_path, "ticker,sector\nZZZZ,energy\nAAPL\n"))
    assert universe.tickers == ("ZZZZ", "AAPL")
    assert universe.sectors == {"ZZZZ": "energy"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "names none"),
        ("ticker\n", "names none"),
        ("AAPL\naapl\n", "line 2"),
        ("AAPL\nA B\n", "line 2"),
        ("AAPL\n,energy\n", "line 2"),
        ("AAPL\nMSFT\nAAPL\n", "line 3 .* again"),
        ("AAPL,energy,more\n", "line 1"),
        ('AAPL\n"MS', "CSV"),
    ],
)
def test_what_is_no_universe_is_refused_with_its_line(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        read_universe(written(tmp_path, text))


def test_a_universe_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="cannot be opened"):
        read_universe(tmp_path / "nowhere.csv")
    path = tmp_path / "binary.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_universe(path)
