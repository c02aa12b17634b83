"""A use case on the live desk says what it says in a simulation, once, and its trades meet what was expected of them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import pandas as pd
import pytest

from agents.trading.expectations import find_expectation
from agents.trading.hermes import Harvest
from agents.trading.market_data import Bar, Quote
from agents.trading.packaged_market import PanelMarket
from backtest.markets import no_edge
from core.clock import FixedClock
from core.errors import ConfigurationError, MissingDataError
from core.market import load_dataset
from core.market.panel import Panel
from core.store.opening import Store
from core.types import PipelineStatus, RawSignal, Severity, SignalCategory
from tests.agents.trading.desk import NOW, build_desk, signal
from use_cases.base import StrategyUseCase
from use_cases.equity_momentum.pipeline import EquityMomentum
from use_cases.expectation import compute_expectation
from use_cases.live import UseCaseFeed, UseCaseFeedConfig
from use_cases.supplier_disruption.news import COLUMNS
from use_cases.supplier_disruption.pipeline import SupplierDisruption

A_WEEK = UseCaseFeedConfig().max_age
FEW = UseCaseFeedConfig(min_trades=1)
MOMENTUM = "use_case:equity_momentum"
PANEL = no_edge(seed=5, n_assets=8, n_bars=400, with_volume=False)


class Momentum(EquityMomentum):
    """Momentum on the symbols of a test."""

    def symbols(self, store: Store) -> tuple[str, ...]:
        return PANEL.symbols


class Buyer(StrategyUseCase):
    """Tells good news of AAA at some bars, whatever the prices."""

    name: ClassVar[str] = "buyer"

    def __init__(self, days: Iterable[pd.Timestamp]) -> None:
        self.days = {day.to_pydatetime() for day in days}
        self.seen: list[Panel | None] = []

    def ingest(self, context: Any) -> Any: ...
    def label(self, context: Any, dataset: Any) -> int:
        return 0

    def question(self) -> str:
        return "Is AAA worth buying?"

    def candidates(self) -> tuple[Any, ...]:
        return ()

    def symbols(self, store: Store) -> tuple[str, ...]:
        return ("AAA", "BBB")

    def raw_signals(self, as_of: datetime, *, since: datetime | None = None, panel: Panel | None = None) -> list[RawSignal]:
        self.seen.append(panel)
        return [good_news(as_of)] if as_of in self.days else []


def good_news(at: datetime) -> RawSignal:
    return RawSignal(
        signal_id=str(uuid5(NAMESPACE_URL, at.isoformat())),
        headline="AAA is worth buying",
        published_at=at,
        category=SignalCategory.POSITIVE_NEWS,
        severity=Severity.MEDIUM,
        affected_tickers=("AAA",),
    )


@dataclass
class Told:
    """Bars by symbol, of which some are late, wrong or cannot be had."""

    panel: Panel
    late: set[tuple[str, datetime]] = field(default_factory=set)
    error: str | None = None

    def get_quote(self, symbol: str, as_of: datetime) -> Quote | None:
        return PanelMarket([self.panel]).get_quote(symbol, as_of)

    def list_bars(self, symbol: str, as_of: datetime, n: int) -> list[Bar]:
        if self.error:
            raise MissingDataError(self.error)
        return [bar for bar in PanelMarket([self.panel]).list_bars(symbol, as_of, n) if (symbol, bar.at) not in self.late]


def at(bar: int, panel: Panel = PANEL) -> datetime:
    """Return a minute after a bar of a panel has ended."""
    return (panel.index[bar] + pd.Timedelta(minutes=1)).to_pydatetime()


def simulated(case: StrategyUseCase, panel: Panel, after: datetime, until: datetime) -> list[RawSignal]:
    """Return what a simulation hands to the traders, bar by bar."""
    told = []
    for bar in range(1, panel.n_bars):
        if after < panel.index[bar] <= until:
            told += case.raw_signals(panel.index[bar].to_pydatetime(), since=panel.index[bar - 1].to_pydatetime(), panel=panel)
    return told


def stored(store: Store) -> dict[str, RawSignal]:
    """Return every signal that waits, by identity."""
    return {one.signal_id: one for one in store.trading.claim_signals("test", 1000)}


def by_id(signals: list[RawSignal]) -> dict[str, RawSignal]:
    return {one.signal_id: one for one in signals}


# What it tells


def test_the_live_desk_is_told_what_a_simulation_is_told(store: Store) -> None:
    clock = FixedClock(at(300))
    feed = UseCaseFeed(Momentum(), store, PanelMarket([PANEL]), clock)
    harvests = []
    for bar in range(300, 330):
        clock.advance(at(bar) - clock.now())
        harvests += [feed.collect(), feed.collect()]
    expected = by_id(simulated(Momentum(), PANEL, at(300) - A_WEEK, at(329)))
    assert len(expected) > 15
    assert sum(one.n_new for one in harvests) == len(expected)
    assert sum(one.n_known + one.n_held + len(one.failures) for one in harvests) == 0
    assert stored(store) == expected
    assert set(store.trading.find_sources(list(expected)).values()) == {MOMENTUM}


def test_after_an_outage_shorter_than_a_signal_lives_nothing_is_missing(store: Store) -> None:
    clock = FixedClock(at(300))
    n_new = 0
    for step in (timedelta(0), timedelta(days=3), timedelta(days=6, hours=20), timedelta(hours=1)):
        clock.advance(step)
        harvest = UseCaseFeed(Momentum(), store, PanelMarket([PANEL]), clock).collect()  # a new process each time
        assert (harvest.n_known, harvest.failures) == (0, ())
        n_new += harvest.n_new
    expected = by_id(simulated(Momentum(), PANEL, at(300) - A_WEEK, clock.now()))
    assert n_new == len(expected) > 5
    assert stored(store) == expected


def test_what_icarus_would_find_too_old_is_not_told(store: Store) -> None:
    clock = FixedClock(at(300))
    UseCaseFeed(Momentum(), store, PanelMarket([PANEL]), clock).collect()
    known = set(stored(store))
    clock.advance(timedelta(days=40))
    UseCaseFeed(Momentum(), store, PanelMarket([PANEL]), clock).collect()
    assert set(stored(store)) - known == set(by_id(simulated(Momentum(), PANEL, clock.now() - A_WEEK, clock.now()))) - known


def test_a_process_that_dies_between_two_signals_of_a_bar_tells_the_rest_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, save = FixedClock(at(300)), store.trading.save_signal
    left = [2]

    def die(*arguments: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return save(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(store.trading, "save_signal", die)
        with pytest.raises(KeyboardInterrupt):
            UseCaseFeed(Momentum(), store, PanelMarket([PANEL]), clock).collect()
    expected = by_id(simulated(Momentum(), PANEL, at(300) - A_WEEK, at(300)))
    harvest = UseCaseFeed(Momentum(), store, PanelMarket([PANEL]), clock).collect()
    assert (harvest.n_new, harvest.n_known) == (len(expected) - 2, 2)
    assert stored(store) == expected


def test_it_sees_the_bars_up_to_the_one_it_tells_of_and_no_later_one(store: Store) -> None:
    case, panel = Buyer([PANEL.index[300]]), pair(PANEL)
    UseCaseFeed(case, store, PanelMarket([panel]), FixedClock(at(300))).collect()
    first = int(panel.index.searchsorted(at(300) - A_WEEK))
    asked = case.seen[-(301 - first) :]
    assert [one.index[-1] for one in asked if one is not None] == list(panel.index[first:301])


# Bars that are not there


def test_a_bar_that_has_not_ended_is_not_told_of(store: Store) -> None:
    monday = next(bar for bar in range(300, 310) if PANEL.index[bar].weekday() == 0)
    clock = FixedClock(at(monday) - timedelta(minutes=2))
    feed = UseCaseFeed(Momentum(), store, PanelMarket([PANEL]), clock)
    feed.collect()
    before = set(stored(store))
    clock.advance(timedelta(minutes=1))  # the moment at which it ends
    assert feed.collect().n_new == len(by_id(simulated(Momentum(), PANEL, clock.now() - timedelta(minutes=1), clock.now()))) > 0
    assert before.isdisjoint(stored(store))


def test_a_bar_waits_for_a_symbol_that_is_late_but_not_for_ever(store: Store) -> None:
    monday = next(bar for bar in range(300, 310) if PANEL.index[bar].weekday() == 0)
    clock = FixedClock(at(monday - 1))
    late = {(PANEL.symbols[0], PANEL.index[monday].to_pydatetime())}
    data = Told(PANEL)
    feed = UseCaseFeed(Momentum(), store, data, clock)
    feed.collect()
    stored(store)
    data.late = late
    clock.advance(at(monday) - clock.now())
    assert (feed.collect().n_new, feed.collect().n_held) == (0, 1)
    data.late = set()
    assert feed.collect().n_new == len(simulated(Momentum(), PANEL, at(monday - 1), at(monday)))
    # The next bar lacks it for good.
    data.late = {(PANEL.symbols[0], PANEL.index[monday + 1].to_pydatetime())}
    clock.advance(at(monday + 1) - clock.now())
    assert feed.collect().n_held == 1
    clock.advance(timedelta(hours=11, minutes=58))  # and with the minute that `at` adds, one short of half a day
    assert feed.collect().n_held == 1
    clock.advance(timedelta(minutes=1))
    assert feed.collect().n_held == 0
    place = store.service.load_agent_state(MOMENTUM)
    assert place["told_until"] == PANEL.index[monday + 1].isoformat()


def failure(harvest: Harvest) -> str:
    assert (harvest.n_new, harvest.n_known, harvest.n_held, harvest.is_lost) == (0, 0, 0, True)
    (found,) = harvest.failures
    assert found.source == MOMENTUM
    return found.reason


def test_what_cannot_be_had_fails_the_round_and_is_told_in_a_later_one(store: Store) -> None:
    clock, data = FixedClock(at(300)), Told(PANEL, error="the line is down.")
    feed = UseCaseFeed(Momentum(), store, data, clock)
    assert failure(feed.collect()) == "the line is down."
    data.error = None
    clock.advance(timedelta(days=2))
    assert feed.collect().failures == ()
    assert stored(store) == by_id(simulated(Momentum(), PANEL, at(300) - A_WEEK, clock.now()))
    clock.advance(timedelta(days=400))
    assert "none of" in failure(feed.collect())


def test_too_little_history_is_told_and_nothing_else(store: Store) -> None:
    short = PANEL.slice(300 - 250, 400)
    said = failure(UseCaseFeed(Momentum(), store, PanelMarket([short]), FixedClock(at(300))).collect())
    assert said.startswith("equity_momentum reads 257 bars before the one it tells of, and there are 24")
    assert "give --data that goes further back" in said
    assert stored(store) == {}


# What is expected


def pair(panel: Panel, close: np.ndarray | None = None) -> Panel:
    """Return two symbols on the bars of a panel; without prices they never move."""
    values = np.full((panel.n_bars, 2), 100.0) if close is None else close
    return Panel(index=panel.index, symbols=("AAA", "BBB"), close=values)


def test_what_is_expected_is_the_mean_of_the_trades_before_by_hand(store: Store) -> None:
    close = np.full((PANEL.n_bars, 2), 100.0)
    close[103:, 0] = 107.0  # told at 100, bought at 101 for 100, sold at 103 for 107, the first close beyond 6 %
    close[203:, 0] = 107.0 * 0.96  # told at 200, bought for 107, sold at 203 at the first close beyond 3 %
    case = Buyer(PANEL.index[[100, 200, 299]])
    clock = FixedClock(at(300))
    UseCaseFeed(case, store, PanelMarket([pair(PANEL, close)]), clock).collect()
    assert find_expectation(store.service, "use_case:buyer") is None  # of two trades nothing is expected
    UseCaseFeed(case, store, PanelMarket([pair(PANEL, close)]), clock, FEW).collect()
    found = find_expectation(store.service, "use_case:buyer")
    assert found is not None
    assert found.return_per_trade == pytest.approx((0.07 - 0.04) / 2 - 0.001)
    assert (found.strategy_id, found.n_trades) == ("buyer", 2)
    assert (found.first, found.last) == tuple(PANEL.index[[100, 200]].to_pydatetime())
    # Neither what comes later nor what is corrected later moves it.
    close[203:, 0] = 10.0
    clock.advance(timedelta(days=30))
    UseCaseFeed(case, store, PanelMarket([pair(PANEL, close)]), clock, FEW).collect()
    assert find_expectation(store.service, "use_case:buyer") == found


def test_the_days_that_are_traded_are_no_part_of_what_is_expected(store: Store, database: str) -> None:
    market = PanelMarket([PANEL])
    UseCaseFeed(Momentum(), store, market, FixedClock(at(399))).collect()
    found = find_expectation(store.service, MOMENTUM)
    assert found == compute_expectation(Momentum(), PANEL, at(399) - A_WEEK)
    assert found is not None
    assert found.last < at(399) - A_WEEK
    wild = PANEL.close.copy()
    wild[PANEL.index > at(399) - A_WEEK] *= 5.0
    assert compute_expectation(Momentum(), PANEL.replace(close=wild, open=None, high=None, low=None), at(399) - A_WEEK) == (
        compute_expectation(Momentum(), PANEL.replace(open=None, high=None, low=None), at(399) - A_WEEK)
    )


def test_what_could_not_be_expected_at_first_is_read_from_the_same_bars_later(store: Store) -> None:
    clock = FixedClock(at(380))
    short = PanelMarket([PANEL.slice(380 - 270, None)])
    UseCaseFeed(Momentum(), store, short, clock).collect()
    assert find_expectation(store.service, MOMENTUM) is None
    clock.advance(timedelta(days=14))
    UseCaseFeed(Momentum(), store, PanelMarket([PANEL]), clock).collect()
    assert find_expectation(store.service, MOMENTUM) == compute_expectation(Momentum(), PANEL, at(380) - A_WEEK)


def test_a_trade_of_a_use_case_meets_its_expectation_and_one_on_news_meets_none(store: Store) -> None:
    index = pd.date_range(end=NOW - timedelta(minutes=1), periods=400, freq="B", tz=UTC)
    close = np.full((400, 2), 100.0)
    close[103:, 0] = 107.0
    close[300:, 0] = 100.0
    panel = Panel(index=index, symbols=("AAA", "BBB"), close=close)
    desk = build_desk(store)
    feed = UseCaseFeed(Buyer(index[[100, 399]]), store, PanelMarket([panel]), desk.clock, FEW)
    assert feed.collect().n_new == 1
    store.trading.save_signal(signal("BBB"), source="rss", source_key="1")
    decided = desk.pipeline.run(store.trading.claim_signals("desk"))
    assert [trace.status for trace in decided] == [PipelineStatus.SUBMITTED] * 2
    desk.bar("AAA", 100.0)
    desk.bar("BBB", 50.0)
    desk.pipeline.tick()
    fresh = desk.restart()
    fresh.bar("AAA", 97.0)
    fresh.bar("BBB", 53.0)
    fresh.pipeline.tick()
    assert len([trade for trade in store.trade_log.list_trades() if trade.hit is not None]) == 2
    (row,) = store.service.list_live_performance()
    assert (row.strategy_id, row.realised_return) == ("buyer/AAA", pytest.approx(-0.03))
    assert row.expected_return == pytest.approx(0.07 - 0.001)


# Who cannot be traded live


def test_a_replay_is_refused_and_a_file_that_grows_is_read(store: Store, tmp_path: Path) -> None:
    clock, market = FixedClock(at(300)), PanelMarket([pair(PANEL)])
    with pytest.raises(ConfigurationError, match=r"an invented replay that has ended.*`aqf trade --news FILE`"):
        UseCaseFeed(SupplierDisruption(), store, market, clock)

    class Own(SupplierDisruption):
        def symbols(self, store: Store) -> tuple[str, ...]:
            return ("AAA", "BBB")

    path = tmp_path / "news.csv"
    when = [(PANEL.index[bar] - pd.Timedelta(hours=3)).isoformat() for bar in (300, 301)]
    line = "news,{0},{0},AAA,Imaginary Mill,supply_chain,high,A fire at Imaginary Mill,It burned."
    path.write_text(f"{','.join(COLUMNS)}\n{line.format(when[0])}\n")
    feed = UseCaseFeed(Own(news=path), store, market, clock)
    assert [feed.collect().n_new, feed.collect().n_new] == [1, 0]
    with path.open("a") as file:
        file.write(f"{line.format(when[1])}\n")
    clock.advance(at(301) - clock.now())
    assert (feed.collect().n_new, feed.collect().n_new) == (1, 0)
    assert {one.supplier for one in stored(store).values()} == {"Imaginary Mill"}


def test_a_use_case_that_tells_nothing_or_of_nobody_is_refused(store: Store) -> None:
    class Silent(Buyer):
        raw_signals = StrategyUseCase.raw_signals  # type: ignore[assignment]

    class Nobody(Buyer):
        def symbols(self, store: Store) -> tuple[str, ...]:
            return ()

    market, clock = PanelMarket([PANEL]), FixedClock(at(300))
    with pytest.raises(ConfigurationError, match="buyer tells the traders nothing"):
        UseCaseFeed(Silent([]), store, market, clock)
    with pytest.raises(ConfigurationError, match="buyer tells the traders of nobody"):
        UseCaseFeed(Nobody([]), store, market, clock)
    with pytest.raises(ConfigurationError, match="`patience` a fraction"):
        UseCaseFeedConfig(patience=8.0)


def test_the_symbols_and_the_history_are_those_of_the_use_case(store: Store) -> None:
    assert EquityMomentum().symbols(store) == load_dataset("sp500_20").symbols
    assert store.service.list_datasets() == []
    store.service.import_dataset(PANEL, name="stocks", source="backtest.markets")
    assert EquityMomentum("stocks").symbols(store) == PANEL.symbols
    with pytest.raises(MissingDataError, match=r"unknown data set 'stonks'\. Did you mean stocks"):
        UseCaseFeed(EquityMomentum("stonks"), store, PanelMarket([PANEL]), FixedClock(at(300)))
    assert EquityMomentum().lookback() == 257
    assert (SupplierDisruption().lookback(), Buyer([]).lookback()) == (5, 0)
