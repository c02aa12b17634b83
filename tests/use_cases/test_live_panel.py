"""The panel of the live desk is the panel that there is, as far as its bars have ended."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agents.trading.broker_market import LayeredMarket
from agents.trading.market_data import Bar, Quote
from agents.trading.packaged_market import PanelMarket, PanelMarketConfig
from core.errors import DataError, MissingDataError
from core.market.panel import BAR_FIELDS, Panel
from use_cases.live_panel import load_live_panel

FOREVER = PanelMarketConfig(max_age_days=1e5)
SYMBOLS = ("AAA", "BBB", "CCC")


def daily(close: np.ndarray, symbols: tuple[str, ...] = SYMBOLS, *, start: str = "2023-01-02 21:00") -> Panel:
    return Panel(index=pd.date_range(start, periods=len(close), freq="B", tz="UTC"), symbols=symbols, close=close)


class Ahead:
    """A source that gives the bar of today while it is made, under the time at which it will end."""

    def __init__(self, market: PanelMarket) -> None:
        self.market = market

    def get_quote(self, symbol: str, as_of: datetime) -> Quote | None:
        return self.market.get_quote(symbol, as_of)

    def list_bars(self, symbol: str, as_of: datetime, n: int) -> list[Bar]:
        return self.market.list_bars(symbol, as_of + timedelta(hours=12), n)


@given(
    gaps=arrays(np.float64, (70, 2), elements=st.sampled_from([np.nan, 10.0, 11.0])),
    bar=st.integers(0, 69),
    back=st.integers(0, 5),
    n_before=st.integers(1, 60),
)
def test_from_where_it_begins_every_bar_that_has_ended_is_in_it(gaps: np.ndarray, bar: int, back: int, n_before: int) -> None:
    panel = daily(np.column_stack([np.full(70, 10.0), gaps]))
    now, until = panel.index[bar].to_pydatetime(), panel.index[max(0, bar - back)].to_pydatetime()
    live = load_live_panel(PanelMarket([panel], FOREVER), SYMBOLS, now, until=until, n_before=n_before)
    begin = bar + 1 - live.n_bars
    assert list(live.index) == list(panel.index[begin : bar + 1])
    np.testing.assert_array_equal(live.close, panel.close[begin : bar + 1])
    assert (live.index <= until).sum() >= min(n_before, max(0, bar - back) + 1)


def test_without_a_single_bar_there_is_no_panel() -> None:
    panel = daily(np.full((30, 3), 10.0))
    late = panel.index[-1].to_pydatetime() + timedelta(days=8)
    with pytest.raises(MissingDataError, match=r"none of AAA, BBB, CCC has a bar as of 2023-02-18 21:00 UTC"):
        load_live_panel(PanelMarket([panel]), SYMBOLS, late, until=late, n_before=5)


def test_a_symbol_without_bars_is_a_column_of_nan() -> None:
    panel = daily(np.full((30, 2), 10.0), ("AAA", "CCC"))
    now = panel.index[-1].to_pydatetime()
    live = load_live_panel(PanelMarket([panel]), SYMBOLS, now, until=now, n_before=5)
    assert live.symbols == SYMBOLS
    assert np.isnan(live.close[:, 1]).all()
    assert np.isfinite(live.close[:, [0, 2]]).all()
    assert live.volume is None


def test_a_bar_that_has_not_ended_is_left_out() -> None:
    close = np.full((30, 1), 10.0)
    close[-1] = 1_000.0
    panel = daily(close, ("AAA",))
    noon = panel.index[-1].to_pydatetime() - timedelta(hours=5)
    source = Ahead(PanelMarket([panel]))
    assert source.list_bars("AAA", noon, 1)[0].close == 1_000.0
    live = load_live_panel(source, ("AAA",), noon, until=noon, n_before=5)
    assert live.index[-1] == panel.index[-2]
    assert live.close.max() == 10.0


def test_bars_carry_all_their_prices() -> None:
    columns = {name: np.full((3, 1), value) for name, value in zip(BAR_FIELDS, (5, 8, 4, 7, 9), strict=True)}
    index = pd.DatetimeIndex([datetime(2024, 3, day, 21, tzinfo=UTC) for day in (4, 5, 6)])
    panel = Panel(index=index, symbols=("AAA",), **columns)
    live = load_live_panel(
        PanelMarket([panel]), ("AAA",), index[-1].to_pydatetime(), until=index[0].to_pydatetime(), n_before=1
    )
    assert live.fields == ("open", "high", "low", "close", "volume")
    for name, values in columns.items():
        np.testing.assert_array_equal(live.get(name), values)


def test_bars_that_end_at_different_times_are_refused() -> None:
    here = daily(np.full((30, 2), 10.0), ("AAA", "BBB"))
    there = daily(np.full((30, 1), 10.0), ("CCC",), start="2023-01-02 23:59")
    now = there.index[-1].to_pydatetime()
    market = LayeredMarket([PanelMarket([here]), PanelMarket([there])])
    with pytest.raises(DataError, match="the bars of AAA end at 21:00 and those of CCC at 23:59 UTC"):
        load_live_panel(market, SYMBOLS, now, until=now, n_before=5)
