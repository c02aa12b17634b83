import numpy as np
import pandas as pd
import pytest

from core.errors import DataError
from core.market import Panel
from features.windows import CHANNELS, REGIMES, bar_channels, regime_at, rolling_windows, steady_windows
from tests.features.panels import build_panel


def _panel(closes, n_assets=1):
    close = np.repeat(np.array(closes, dtype=float)[:, None], n_assets, axis=1)
    index = pd.date_range("2020-01-01", periods=len(close), tz="UTC")
    return Panel(index=index, symbols=tuple("ABCDEF"[:n_assets]), close=close)


def test_windows_are_placed_by_stride_and_ordered_by_symbol():
    windows = rolling_windows(_panel(np.arange(1.0, 21.0), 2), window=8, stride=5)
    assert windows.values.shape == (6, 8, 3)
    assert windows.values.dtype == np.float32
    assert windows.symbol.tolist() == ["A", "A", "A", "B", "B", "B"]
    assert windows.start.tolist() == [0, 5, 10, 0, 5, 10]
    assert windows.end.tolist() == [7, 12, 17, 7, 12, 17]
    assert windows.end_ts[1] == pd.Timestamp("2020-01-13", tz="UTC")
    assert windows.start_ts[1] == pd.Timestamp("2020-01-06", tz="UTC")
    assert len(windows) == 6


def test_channels_by_hand():
    windows = rolling_windows(_panel(np.exp([0.0, 0.1, -0.1, 0.3])), window=4, stride=1)
    channel = dict(zip(CHANNELS, windows.values[0].T, strict=True))
    np.testing.assert_allclose(channel["log_price"], [0.0, 0.1, -0.1, 0.3], atol=1e-7)
    np.testing.assert_allclose(channel["absolute_return"], [0.0, 0.1, 0.2, 0.4], atol=1e-7)
    expected = [0.0, 1.0, -0.2 / np.sqrt((0.01 + 0.04) / 2), 0.4 / np.sqrt((0.01 + 0.04 + 0.16) / 3)]
    np.testing.assert_allclose(channel["standardised_return"], expected, rtol=1e-6)


def test_trailing_volatility_forgets_after_21_returns():
    log_close = np.cumsum(np.r_[0.0, 5.0, np.full(40, 0.01)])
    values = rolling_windows(_panel(np.exp(log_close)), window=42, stride=1).values[0, :, 0]
    assert values[21] < 0.02
    np.testing.assert_allclose(values[22:], 1.0, rtol=1e-4)


def test_windows_with_a_gap_are_left_out():
    closes = np.arange(1.0, 31.0)
    closes[12] = np.nan
    closes[25] = 0.0
    windows = rolling_windows(_panel(closes), window=5, stride=1)
    assert windows.start.tolist() == [*range(8), *range(13, 21)]
    assert np.isfinite(windows.values).all()


def test_a_flat_price_gives_zeros_until_it_moves():
    values = rolling_windows(_panel([*np.full(9, 7.0), 7.7]), window=10).values[0]
    assert (values[:9] == 0.0).all() and (values[9] > 0.0).all()


def test_windows_that_never_move_are_left_out():
    closes = np.arange(1.0, 31.0)
    closes[8:20] = closes[8]
    for stride in (1, 3):
        windows = rolling_windows(_panel(closes), window=6, stride=stride)
        assert windows.start.tolist() == [start for start in range(0, 25, stride) if not 8 <= start <= 14]


def test_channels_of_a_bar_are_those_at_the_end_of_its_window():
    panel = build_panel(260, 5)
    windows = rolling_windows(panel, window=64, stride=1)
    channels = bar_channels(panel, window=64)
    column = np.array([panel.symbols.index(symbol) for symbol in windows.symbol])
    np.testing.assert_allclose(channels[windows.end, column], windows.values[:, -1], rtol=1e-4, atol=1e-6)
    known = np.isfinite(channels).all(axis=2)
    assert known.any(axis=0).all() and not known.all()
    close = pd.DataFrame(panel.close)
    np.testing.assert_array_equal(known, close.notna().rolling(64).sum().to_numpy() == 64)


def test_steady_windows_are_cut_from_the_channels_of_bars():
    panel = build_panel(400, 5)
    windows, channels = steady_windows(panel, window=40, stride=7), bar_channels(panel, window=40)
    assert len(windows) > 0 and (windows.start % 7 == 0).all()
    for position in range(0, len(windows), 5):
        bars = slice(int(windows.start[position]), int(windows.end[position]) + 1)
        np.testing.assert_array_equal(windows.values[position], channels[bars, panel.symbols.index(windows.symbol[position])])
    assert len(steady_windows(panel.slice(0, 30), window=40)) == 0
    with pytest.raises(DataError, match="at least 22 bars"):
        steady_windows(panel, window=21)


def test_a_window_does_not_depend_on_what_is_outside():
    panel = build_panel(300, 2, gaps=False)
    all_windows = rolling_windows(panel, window=64, stride=7)
    for place in (0, 5, 20):
        start = int(all_windows.start[place])
        alone = rolling_windows(panel.slice(start, start + 64), window=64)
        np.testing.assert_array_equal(alone.values[0], all_windows.values[place])


def test_too_short_panels_give_no_windows():
    windows = rolling_windows(_panel(np.ones(10)), window=128)
    assert windows.values.shape == (0, 128, 3)
    assert len(windows.end_ts) == 0


def test_impossible_windows_are_refused():
    with pytest.raises(DataError, match="window"):
        rolling_windows(_panel(np.ones(10)), window=1)
    with pytest.raises(DataError, match="stride"):
        rolling_windows(_panel(np.ones(10)), stride=0)


def test_regimes_equal_a_pandas_computation():
    panel = build_panel(800, 5, gaps=False, seed=2)
    market = (panel.frame() / panel.frame().shift(1) - 1).mean(axis=1)
    volatility = market.rolling(63).std()
    loud = volatility > volatility.expanding().median()
    up = (1 + market).rolling(126).apply(np.prod, raw=True) > 1
    tags = regime_at(panel, np.arange(800))
    assert set(tags) == set(REGIMES)
    assert (tags[:126] == "unknown").all()
    for bar in range(126, 800):
        assert tags[bar] == ("turbulent" if loud.iloc[bar] else "calm") + ("_up" if up.iloc[bar] else "_down")


def test_regimes_do_not_know_the_future():
    panel = build_panel(500, 4, gaps=False)
    full = regime_at(panel, np.arange(400))
    np.testing.assert_array_equal(regime_at(panel.slice(0, 400), np.arange(400)), full)


def test_regime_positions_must_be_inside():
    panel = build_panel(200, 2, gaps=False)
    assert regime_at(panel, []).shape == (0,)
    with pytest.raises(DataError, match=r"0\.\.199"):
        regime_at(panel, [200])
