import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from core.errors import StoreUnavailableError
from features import charts
from features.explanation import explain
from features.page import reproduce_command
from features.study import FeatureStudy, study
from tests.features.panels import build_panel

PANEL = build_panel(300, 7, seed=11)
SEAL = PANEL.index[250].to_pydatetime()
STUDY = study("-ts_mean(returns, 5)", PANEL, horizons=range(1, 8), sealed_from=SEAL, title="dip", hypothesis="Dips rebound.")
FLAT = study("returns * 0", PANEL)
ALONE = study("returns", build_panel(200, 1, gaps=False))
NAMES = ("ic_decay", "quantiles", "persistence", "ic_by_year", "coverage")


class Words(HTMLParser):
    """Collects the text, the tags and the attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def pixels(png: bytes) -> np.ndarray:
    picture: np.ndarray = matplotlib.image.imread(io.BytesIO(png), format="png")
    return picture


def count_pixels(png: bytes, colour: str) -> int:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255.0
    return int((np.abs(pixels(png)[..., :3] - wanted).max(axis=-1) < 0.02).sum())


@pytest.mark.parametrize("one", [STUDY, ALONE], ids=["across symbols", "over time"])
def test_every_picture_is_900_pixels_wide(one: FeatureStudy) -> None:
    assert set(NAMES) <= set(one.pictures)
    for name in NAMES:
        assert pixels(one.pictures[name]).shape[:2] == (480, 900)


def test_what_could_not_be_measured_is_not_drawn() -> None:
    assert set(FLAT.pictures) == {"tree", "quantiles", "coverage"}
    assert "tree" not in study(PANEL.close, PANEL).pictures


def test_the_tree_is_as_tall_as_it_has_nodes() -> None:
    small, large = (charts.draw_tree(explain(text)) for text in ("close", "rank(ts_mean(close, 5) / delay(open, 1))"))
    assert pixels(small).shape[1] == pixels(large).shape[1] == 900
    assert pixels(large).shape[0] - pixels(small).shape[0] == pytest.approx(5 * 0.27 * 150, abs=1)
    assert count_pixels(large, charts.GREEN) > 1.5 * count_pixels(small, charts.GREEN) > 0


def test_the_deepest_tree_and_odd_names_can_be_drawn() -> None:
    deep = "close"
    for _ in range(14):
        deep = f"rank({deep}) + 1"
    assert pixels(charts.draw_tree(explain(f"{deep} + rank(ts_mean(close, 2))"))).shape[1] == 900
    assert pixels(charts.draw_tree(explain("_a__b + 1", extra=["_a__b"]))).shape[1] == 900


def test_gains_and_losses_of_rank_ic_have_two_colours() -> None:
    first, *others = STUDY.years
    gains = replace(STUDY, years=(replace(first, rank_ic=0.02), *others))
    losses = replace(STUDY, years=(replace(first, rank_ic=-0.02), *others))
    assert count_pixels(charts.draw_study(gains)["ic_by_year"], charts.RED) == 0
    assert count_pixels(charts.draw_study(losses)["ic_by_year"], charts.RED) > 1000


def test_a_wider_band_is_drawn_wider() -> None:
    wider = replace(STUDY, horizons=tuple(replace(row, rank_ic_error=3.0 * (row.rank_ic_error or 0)) for row in STUDY.horizons))
    assert wider.pictures["ic_decay"] != STUDY.pictures["ic_decay"]


def test_the_page_fetches_nothing_and_holds_its_pictures() -> None:
    words = Words(STUDY.to_html())
    shown = [value for name, value in words.attributes if name == "src"]
    inside = [base64.b64decode(str(value).removeprefix("data:image/png;base64,")) for value in shown]
    assert inside == [STUDY.pictures[name] for name in NAMES]
    assert {"script", "link", "iframe", "form"} & set(words.tags) == set()
    assert [value for name, value in words.attributes if name in ("href", "srcset", "action", "onerror", "onclick")] == []
    assert ("content", "width=device-width, initial-scale=1") in words.attributes


def test_the_page_says_what_was_read_and_what_to_beware_of() -> None:
    text = Words(STUDY.to_html()).text
    assert f"all before the seal: nothing from {SEAL:%Y-%m-%d} on was read" in text
    assert "its rank IC is optimistic" in text
    assert "no Sharpe ratio" in text
    assert "Dips rebound." in text
    assert "the mean over 5 bars of returns." in text
    assert "└─ ts_mean(·, 5)" in text
    assert STUDY.dataset_sha256 in text
    assert "aqf features show --dataset 'random bars' -- '-ts_mean(returns, 5)'" in text
    assert "too few to rank across" in Words(ALONE.to_html()).text
    assert "too few to rank across" not in text


def test_the_page_shows_the_figures() -> None:
    text = Words(STUDY.to_html()).text
    for row in STUDY.horizons:
        assert f"{row.rank_ic:+.4f}" in text
    for year in STUDY.years:
        assert f"{year.rank_ic:+.4f}" in text
    assert re.search(r"\d{4}n/a", text) is None
    assert "n/a" in Words(FLAT.to_html()).text
    assert "No bar has a rank IC." in Words(FLAT.to_html()).text


def test_what_comes_from_outside_is_escaped() -> None:
    evil = "<script>alert(1)</script>\"'&"
    page = replace(STUDY, title=evil, hypothesis=evil, dataset=evil).to_html()
    assert "<script" not in page
    assert Words(page).text.count(evil) >= 3
    frame = replace(STUDY, title=evil)._repr_html_()
    assert Words(frame).tags == ["iframe"]
    assert "<script" not in dict(Words(frame).attributes)["srcdoc"]  # type: ignore[operator]


def test_a_notebook_gets_the_page_in_a_frame_that_may_run_nothing() -> None:
    attributes = dict(Words(STUDY._repr_html_()).attributes)
    assert attributes["sandbox"] == ""
    inside = Words(str(attributes["srcdoc"]))
    assert ("href", "about:srcdoc") in inside.attributes
    assert "Dips rebound." in inside.text


def test_values_without_an_expression_have_no_command() -> None:
    handed = study(PANEL.close, PANEL)
    assert reproduce_command(handed) is None
    assert "Again" not in Words(handed.to_html()).text


def test_saving_writes_pictures_figures_and_a_page(tmp_path: Path) -> None:
    paths = STUDY.save(tmp_path / "new" / "folder")
    assert [path.name for path in paths] == [*(f"{name}.png" for name in STUDY.pictures), "study.html"]
    assert all(path.read_bytes() == STUDY.pictures[path.stem] for path in paths[:-1])
    assert paths[-1].read_text(encoding="utf-8") == STUDY.to_html()
    assert json.loads((tmp_path / "new" / "folder" / "study.json").read_text()) == STUDY.to_dict()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailableError, match=r"cannot be written to .*file"):
        STUDY.save(tmp_path / "file")


def test_it_says_itself_in_one_line() -> None:
    assert re.fullmatch(r"FeatureStudy\(dip: rank IC [+-]0\.\d{4} at horizon 1, 250 bars of random bars\)", repr(STUDY))
    assert "rank IC n/a" in repr(FLAT)
