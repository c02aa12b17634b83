import io

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from backtest import charts
from core.errors import DataError

INDEX = pd.bdate_range("2015-01-01", periods=800, tz="UTC")
STEADY = pd.Series(1e6 * 1.001 ** np.arange(800), INDEX)
WILD = pd.Series(1e6 * np.exp(np.cumsum(0.03 * np.random.default_rng(0).standard_normal(800))), INDEX)


def pixels(png: bytes) -> np.ndarray:
    picture: np.ndarray = matplotlib.image.imread(io.BytesIO(png), format="png")
    return picture


def count_pixels(png: bytes, colour: str) -> int:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255.0
    return int((np.abs(pixels(png)[..., :3] - wanted).max(axis=-1) < 0.02).sum())


def test_every_picture_is_900_pixels_wide() -> None:
    for png in (
        charts.draw_equity({"a": STEADY, "b": WILD}, out_of_sample_from=INDEX[300], sealed_from=INDEX[600]),
        charts.draw_drawdown({"a": WILD}),
        charts.draw_rank_ic_by_year({2015: 0.02, 2016: -0.01}),
        charts.draw_turnover(pd.Series(0.2, INDEX)),
    ):
        assert png.startswith(b"\x89PNG")
        assert pixels(png).shape[1] == 900


def test_each_account_has_its_own_colour() -> None:
    png = charts.draw_equity({"a": STEADY, "b": WILD})
    assert count_pixels(png, charts.PALETTE[0]) > 300
    assert count_pixels(png, charts.PALETTE[1]) > 300
    assert count_pixels(png, charts.PALETTE[2]) == 0


def test_gains_and_losses_of_rank_ic_have_two_colours() -> None:
    gains, mixed = ({2015: 0.02, 2016: last} for last in (0.01, -0.01))
    assert count_pixels(charts.draw_rank_ic_by_year(gains), charts.PALETTE[1]) == 0
    assert count_pixels(charts.draw_rank_ic_by_year(mixed), charts.PALETTE[1]) > 1000


def test_marks_are_drawn_where_they_are_asked_for() -> None:
    plain = charts.draw_equity({"a": STEADY})
    assert charts.draw_equity({"a": STEADY}, sealed_from=INDEX[600]) != plain
    assert charts.draw_equity({"a": STEADY}, out_of_sample_from=INDEX[600]) != plain


def test_equal_data_draw_equal_pictures() -> None:
    assert charts.draw_drawdown({"a": WILD, "b": STEADY}) == charts.draw_drawdown({"a": WILD, "b": STEADY})


@pytest.mark.parametrize("growth", [1.0, 1.00001, 1.003, 1.03])
def test_any_growth_fits_the_log_axis(growth: float) -> None:
    png = charts.draw_equity({"a": pd.Series(growth ** np.arange(800.0), INDEX)})
    assert count_pixels(png, charts.PALETTE[0]) > 100


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(DataError, match="nothing to draw"):
        charts.draw_equity({})
    with pytest.raises(DataError, match="nothing to draw"):
        charts.draw_drawdown({"a": STEADY[:0]})
    with pytest.raises(DataError, match="nothing to draw"):
        charts.draw_rank_ic_by_year({})
    with pytest.raises(DataError, match="nothing to draw"):
        charts.draw_turnover(STEADY[:0])
    with pytest.raises(DataError, match="at most 7"):
        charts.draw_drawdown({str(i): STEADY for i in range(8)})
    with pytest.raises(DataError, match="'a' goes down to -1"):
        charts.draw_equity({"a": pd.Series(-1.0, INDEX)})
