"""Prices of panels: told at the close of their bar and never before, and never guessed."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.trading.market_data import SECTOR_FUNDS, SP500, VIX
from agents.trading.packaged_market import (
    PanelMarket,
    PanelMarketConfig,
    load_packaged_market,
    read_csv_market,
    realised_volatility,
)
from core.errors import DataError, MissingDataError
from core.market import load_dataset
from core.market.panel import Panel

SECOND = timedelta(seconds=1)
INDEX = pd.DatetimeIndex(["2024-01-02 21:00", "2024-01-03 21:00", "2024-01-08 21:00"], tz="UTC")
CLOSE = np.array([[10.0, 20.0], [11.0, np.nan], [12.0, 22.0]])


def bar(place: int) -> datetime:
    moment: datetime = INDEX[place].to_pydatetime()
    return moment


@pytest.fixture
def market() -> PanelMarket:
    return PanelMarket([Panel(index=INDEX, symbols=("AAA", "BBB"), close=CLOSE)])


def test_a_price_is_told_from_the_close_of_its_bar(market: PanelMarket) -> None:
    assert market.get_quote("AAA", bar(0) - SECOND) is None
    quote = market.get_quote("AAA", bar(0))
    assert quote is not None
    assert (quote.price, quote.at, quote.currency) == (10.0, bar(0), "USD")
    still = market.get_quote("AAA", bar(1) - SECOND)
    assert still is not None
    assert still.price == 10.0
    assert market.get_quote("CCC", bar(0)) is None


def test_a_missing_bar_is_no_price_of_its_own(market: PanelMarket) -> None:
    quote = market.get_quote("BBB", bar(1))
    assert quote is not None
    assert (quote.price, quote.at) == (20.0, bar(0))
    assert [one.at for one in market.list_bars("BBB", bar(2), 5)] == [bar(0), bar(2)]
    assert [one.symbol for one in market.bars_at(bar(1))] == ["AAA"]
    assert market.bars_at(bar(1) + SECOND) == []


def test_a_series_that_has_ended_has_no_price(market: PanelMarket) -> None:
    assert market.get_quote("AAA", bar(2) + timedelta(days=7)) is not None
    assert market.get_quote("AAA", bar(2) + timedelta(days=7, seconds=1)) is None
    assert market.list_bars("AAA", bar(2) + timedelta(days=7, seconds=1), 3) == []
    short = PanelMarket([Panel(index=INDEX, symbols=("A", "B"), close=CLOSE)], PanelMarketConfig(max_age_days=1.0))
    assert short.get_quote("A", bar(2) - SECOND) is None


def test_bars_are_the_last_ones_oldest_first(market: PanelMarket) -> None:
    assert [one.close for one in market.list_bars("AAA", bar(2), 2)] == [11.0, 12.0]
    assert [one.close for one in market.list_bars("AAA", bar(2) - SECOND, 5)] == [10.0, 11.0]
    assert market.list_bars("AAA", bar(2), 0) == []
    (last,) = market.list_bars("AAA", bar(2), 1)
    assert (last.open, last.high, last.low, last.close, last.volume) == (12.0, 12.0, 12.0, 12.0, None)


def test_whole_bars_are_told_as_they_are() -> None:
    panel = Panel(
        index=INDEX[:1],
        symbols=("AAA",),
        open=np.array([[9.0]]),
        high=np.array([[11.0]]),
        low=np.array([[8.0]]),
        close=np.array([[10.0]]),
        volume=np.array([[500.0]]),
    )
    (one,) = PanelMarket([panel]).list_bars("AAA", bar(0), 1)
    assert (one.open, one.high, one.low, one.close, one.volume) == (9.0, 11.0, 8.0, 10.0, 500.0)


def test_a_symbol_is_read_from_the_first_panel_that_has_it(market: PanelMarket) -> None:
    second = Panel(index=INDEX, symbols=("AAA", "CCC"), close=CLOSE * 100.0)
    both = PanelMarket([Panel(index=INDEX, symbols=("AAA", "BBB"), close=CLOSE), second])
    quotes = [both.get_quote(symbol, bar(0)) for symbol in ("AAA", "CCC")]
    assert [quote.price for quote in quotes if quote is not None] == [10.0, 2000.0]
    assert both.symbols == ("AAA", "BBB", "CCC")


def test_a_naive_time_is_refused(market: PanelMarket) -> None:
    with pytest.raises(DataError, match="tz-aware"):
        market.get_quote("AAA", datetime(2024, 1, 2))  # noqa: DTZ001
    with pytest.raises(DataError, match="max_age_days"):
        PanelMarketConfig(max_age_days=0.0)


@given(st.integers(0, 400), st.integers(1, 30))
def test_no_answer_is_younger_than_the_question(hours: int, n: int) -> None:
    panel = Panel(
        index=pd.date_range("2024-01-01", periods=12, freq="D", tz="UTC"), symbols=("AAA",), close=np.arange(1.0, 13.0)[:, None]
    )
    market, as_of = PanelMarket([panel]), datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
    quote, bars = market.get_quote("AAA", as_of), market.list_bars("AAA", as_of, n)
    assert quote is None or quote.at <= as_of
    assert all(one.at <= as_of for one in bars)
    assert len(bars) <= n
    assert (quote is None) == (not bars)
    assert quote is None or quote.price == bars[-1].close


# What ships


def test_the_packaged_market_has_stocks_and_true_indices_while_they_last() -> None:
    market = load_packaged_market()
    vix = load_dataset("vix")
    noon = datetime(2016, 5, 2, 12, tzinfo=UTC)
    quote = market.get_quote(VIX, noon)
    assert quote is not None
    assert quote.price == vix.close[vix.index.searchsorted(noon) - 1, 0]
    assert market.get_quote(VIX, datetime(2013, 12, 31, tzinfo=UTC)) is None
    assert market.get_quote(VIX, datetime(2019, 2, 1, tzinfo=UTC)) is None
    assert len(market.list_bars(SP500, noon, 22)) == 22
    assert [fund for fund in SECTOR_FUNDS if market.get_quote(fund, noon)] == []
    assert market.notes == ()


def test_at_the_close_of_stocks_the_vix_of_that_day_is_not_known_yet() -> None:
    close = datetime(2016, 5, 2, 20, tzinfo=UTC)
    quote = load_packaged_market().get_quote(VIX, close)
    assert quote is not None
    assert quote.at == datetime(2016, 4, 29, 20, 15, tzinfo=UTC)


def test_indices_end_with_the_panel() -> None:
    panel = load_dataset("sp500_20")
    seen = panel.slice(0, int(panel.index.searchsorted(datetime(2016, 5, 23, tzinfo=UTC))))
    market = load_packaged_market(seen)
    for symbol in (VIX, SP500, "AAPL"):
        (last,) = market.list_bars(symbol, datetime(2016, 5, 26, tzinfo=UTC), 1)
        assert last.at <= seen.index[-1].to_pydatetime()


def test_the_proxy_fills_only_what_is_missing_and_says_so() -> None:
    market, plain = load_packaged_market(proxy_vix=True), load_packaged_market()
    noon = datetime(2016, 5, 2, 12, tzinfo=UTC)
    assert market.get_quote(VIX, noon) == plain.get_quote(VIX, noon)
    panel = load_dataset("sp500_20")
    at = datetime(2008, 10, 10, 20, tzinfo=UTC)
    row = int(panel.index.searchsorted(at))
    returns = panel.close[row - 20 : row + 1] / panel.close[row - 21 : row] - 1.0
    quote = market.get_quote(VIX, at)
    assert quote is not None
    assert quote.price == pytest.approx(100.0 * math.sqrt(252) * returns.mean(axis=1).std(ddof=1))
    assert "is a proxy" in market.notes[0]


def test_the_realised_volatility_is_causal() -> None:
    close = load_dataset("sp500_20").close[:400]
    whole, part = realised_volatility(close), realised_volatility(close[:300])
    assert np.isnan(whole[:21]).all()
    np.testing.assert_array_equal(whole[:300], part)


def test_a_csv_file_is_a_market(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=70, freq="D")
    lines = [f"{symbol},{day:%Y-%m-%d},{price}" for symbol, price in (("AAA", 10), ("^VIX", 18)) for day in days]
    path = tmp_path / "prices.csv"
    path.write_text("symbol,ts,close\n" + "\n".join(lines) + "\n")
    quote = read_csv_market(path).get_quote(VIX, datetime(2024, 2, 1, tzinfo=UTC))
    assert quote is not None
    assert (quote.price, quote.at) == (18.0, datetime(2024, 1, 31, 23, 59, 59, tzinfo=UTC))
    with pytest.raises(MissingDataError):
        read_csv_market(tmp_path / "nothing.csv")
