import io
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread

from core.errors import DataError, MissingDataError
from core.market import Panel
from features.embedding_map import EmbeddingMap, build_map, choose_window
from features.map_pictures import draw_map, render_map
from features.windows import Windows, rolling_windows
from tests.features.panels import build_panel


@pytest.fixture(scope="module")
def panel() -> Panel:
    return build_panel(500, 4)


@pytest.fixture(scope="module")
def windows(panel: Panel) -> Windows:
    return rolling_windows(panel, 64, 7)


def vectors_of(windows: Windows) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((len(windows), 12)).astype(np.float32) * np.arange(12, 0, -1)


@pytest.fixture(scope="module")
def shown(panel: Panel, windows: Windows) -> EmbeddingMap:
    chosen = choose_window(windows, "S01")
    return build_map(panel, windows, vectors_of(windows), chosen=chosen, count=5, horizon=10, encoder="<b>mine</b>")


def test_points_are_the_leading_principal_components(windows: Windows, shown: EmbeddingMap) -> None:
    vectors = vectors_of(windows).astype(np.float64)
    centred = vectors - vectors.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * sizes[:2]
    signs = np.sign((expected * shown.points).sum(axis=0))
    np.testing.assert_allclose(shown.points, expected * signs, atol=1e-6)
    np.testing.assert_allclose(shown.explained, sizes[:2] ** 2 / (sizes**2).sum())


def test_neighbours_had_their_outcome_before_and_do_not_overlap(windows: Windows, shown: EmbeddingMap) -> None:
    ends = windows.end[shown.neighbours]
    assert (ends + 1 + 10 < windows.end[shown.chosen]).all()
    for i, one in enumerate(shown.neighbours):
        for other in shown.neighbours[:i]:
            assert windows.symbol[one] != windows.symbol[other] or abs(windows.end[one] - windows.end[other]) >= 64
    assert (np.diff(shown.similarity) <= 1e-3).all()
    vectors = vectors_of(windows)
    cosine = vectors[shown.neighbours[0]] @ vectors[shown.chosen]
    lengths = np.linalg.norm(vectors[[shown.chosen, shown.neighbours[0]]], axis=1).prod()
    assert shown.similarity[0] == pytest.approx(cosine / lengths)


def test_paths_are_closes_of_100_at_the_end_and_nothing_is_known_of_the_future(
    panel: Panel, windows: Windows, shown: EmbeddingMap
) -> None:
    assert shown.paths.shape == (6, 64 + 11)
    assert np.isnan(shown.paths[0, 64:]).all()
    np.testing.assert_allclose(shown.paths[:, 63], 100.0)
    place = shown.neighbours[0]
    close = panel.close[:, panel.symbols.index(str(windows.symbol[place]))]
    end = windows.end[place]
    np.testing.assert_allclose(shown.paths[1], 100.0 * close[end - 63 : end + 12] / close[end])
    assert shown.followed[0] == pytest.approx(close[end + 11] / close[end + 1] - 1.0)


def test_the_chosen_window_is_the_newest_by_a_day(windows: Windows) -> None:
    until = datetime(2002, 1, 1, tzinfo=UTC)
    chosen = choose_window(windows, "S00", until)
    mine = windows.end_ts[(windows.symbol == "S00") & (windows.end_ts <= until)]
    assert windows.end_ts[chosen] == mine.max()
    with pytest.raises(MissingDataError, match="there are windows of S00"):
        choose_window(windows, "AAPL")
    with pytest.raises(MissingDataError, match="ends by 1990-01-01"):
        choose_window(windows, None, datetime(1990, 1, 1, tzinfo=UTC))


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_holds_its_pictures_fetches_nothing_and_escapes_names(shown: EmbeddingMap) -> None:
    pictures = draw_map(shown)
    assert list(pictures) == ["regime", "date", "neighbours"]
    for picture in pictures.values():
        image = imread(io.BytesIO(picture))
        assert image.shape[1] > 800
        assert image[..., :3].std() > 0.05
    page = render_map(shown, pictures)
    parser = Tags()
    parser.feed(page)
    sources = [attributes["src"] for tag, attributes in parser.found if tag == "img"]
    assert len(sources) == 3
    assert all(source is not None and source.startswith("data:image/png;base64,") for source in sources)
    assert not [tag for tag, _ in parser.found if tag in ("script", "link", "iframe", "b")]
    assert "&lt;b&gt;mine&lt;/b&gt;" in page


def test_an_early_window_has_no_neighbours_and_says_so(panel: Panel, windows: Windows) -> None:
    first = int(np.argmin(windows.end))
    shown = build_map(panel, windows, vectors_of(windows), chosen=first)
    assert len(shown.neighbours) == 0
    assert "not enough history" in render_map(shown, draw_map(shown))


def test_bad_input_is_refused(panel: Panel, windows: Windows) -> None:
    with pytest.raises(DataError, match="at least 3 windows"):
        build_map(panel, rolling_windows(panel.slice(0, 20), 64, 7), vectors_of(windows)[:0], chosen=0)
    with pytest.raises(DataError, match="`count` and `horizon`"):
        build_map(panel, windows, vectors_of(windows), chosen=0, count=0)
