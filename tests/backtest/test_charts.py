import io
import math

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from backtest import charts
from backtest.metrics import HorizonIC, QuantileReturns, compute_monthly_returns
from core.errors import DataError

INDEX = pd.bdate_range("2015-01-01", periods=800, tz="UTC")
STEADY = pd.Series(1e6 * 1.001 ** np.arange(800), INDEX)
WILD = pd.Series(1e6 * np.exp(np.cumsum(0.03 * np.random.default_rng(0).standard_normal(800))), INDEX)
MONTHS = compute_monthly_returns(WILD.pct_change().fillna(0.0).to_numpy(), INDEX)
DECAY = (HorizonIC(horizon_bars=1, mean=0.02, t=2.5, n_bars=800), HorizonIC(horizon_bars=5, mean=-0.01, t=-1.0, n_bars=795))
QUANTILES = QuantileReturns(means=(-0.001, math.nan, 0.002), spread=0.003, spread_t=2.0, n_bars=700)


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
        charts.draw_rolling_sharpe(pd.Series(np.linspace(-1.0, 2.0, 800), INDEX), window=63, whole=0.5),
        charts.draw_exposure(pd.Series(1.0, INDEX), pd.Series(0.1, INDEX)),
        charts.draw_trades(pd.Series([0.1, -0.05], INDEX[:2])),
        charts.draw_distribution(STEADY.pct_change().to_numpy()[1:], marks={"mean": 0.001}),
        charts.draw_monthly_returns(MONTHS),
        charts.draw_rank_ic_decay(DECAY),
        charts.draw_quantiles(QUANTILES),
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
    with pytest.raises(DataError, match="nothing to draw"):
        charts.draw_rolling_sharpe(pd.Series(np.nan, INDEX), window=20)
    with pytest.raises(DataError, match="nothing to draw"):
        charts.draw_exposure(STEADY[:0], STEADY[:0])
    with pytest.raises(DataError, match="nothing to draw"):
        charts.draw_trades(pd.Series([], pd.DatetimeIndex([]), dtype=float))
    with pytest.raises(DataError, match="nothing to draw"):
        charts.draw_monthly_returns(MONTHS[:0])
    with pytest.raises(DataError, match="nothing to draw"):
        charts.draw_rank_ic_decay([HorizonIC(horizon_bars=1, mean=math.nan, t=math.nan, n_bars=0)])
    with pytest.raises(DataError, match="nothing to draw"):
        charts.draw_quantiles(QuantileReturns(means=(math.nan, math.nan), spread=math.nan, spread_t=math.nan, n_bars=0))
    with pytest.raises(DataError, match="at least 2 values, had 1"):
        charts.draw_distribution(np.zeros(1), marks={})
    with pytest.raises(DataError, match="'a' begins at 0"):
        charts.draw_equity({"a": pd.Series(0.0, INDEX)}, log=False)
    with pytest.raises(DataError, match="at most 7"):
        charts.draw_drawdown({str(i): STEADY for i in range(8)})
    with pytest.raises(DataError, match="'a' goes down to -1"):
        charts.draw_equity({"a": pd.Series(-1.0, INDEX)})


def test_growth_is_drawn_on_a_log_scale_where_it_is_large_and_can_be() -> None:
    tripled = pd.Series(np.linspace(1.0, 3.1, 800), INDEX)
    assert charts.needs_log_scale({"a": tripled})
    assert not charts.needs_log_scale({"a": tripled.clip(upper=2.9)})
    assert charts.needs_log_scale({"a": tripled.clip(upper=2.0), "b": 1.0 / tripled})
    assert not charts.needs_log_scale({"a": tripled, "ruined": 1.0 - np.minimum(1.0, tripled - 1.0)})


def test_a_calendar_grows_with_its_years_and_keeps_the_last_thirty() -> None:
    def years(count: int) -> pd.DataFrame:
        index = pd.bdate_range("1970-01-01", f"{1969 + count}-12-31", tz="UTC")
        return compute_monthly_returns(np.random.default_rng(0).normal(0.0, 0.01, len(index)), index)

    short, long, longer = (pixels(charts.draw_monthly_returns(years(count))).shape[0] for count in (4, 30, 40))
    assert short < long == longer


def test_months_without_any_return_are_drawn_too() -> None:
    assert charts.draw_monthly_returns(0.0 * MONTHS).startswith(b"\x89PNG")


def test_losses_of_a_distribution_have_their_own_colour() -> None:
    values = np.random.default_rng(3).normal(0.0, 0.01, 500)
    assert count_pixels(charts.draw_distribution(values, marks={}), charts.PALETTE[1]) > 1000
    assert count_pixels(charts.draw_distribution(np.abs(values), marks={}), charts.PALETTE[1]) == 0
