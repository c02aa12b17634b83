"""A use case on an open desk, from its bars to the report, with a restart between its signal and the outcome."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from agents.trading.daily_report import build_daily_report
from agents.trading.desk import Desk
from agents.trading.desk_opening import DeskOptions, open_desk
from agents.trading.expectations import find_expectation
from agents.trading.sessions import ExchangeSessions
from core.clock import FixedClock
from core.settings import Settings
from core.store.opening import Store
from use_cases.equity_momentum.pipeline import EquityMomentum
from use_cases.live import UseCaseFeed

TUESDAY = datetime(2024, 3, 5, 15, 0, tzinfo=UTC)
YEARLY = {"AAPL": 5.0, "MSFT": 4.0, "KO": 3.0, "PEP": 2.0}
N_BARS = 340


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    """Closes that rise until Monday, fall a little on Tuesday and by 5 % on Wednesday; the market is calm."""
    days = np.busday_offset("2024-03-06", np.arange(-N_BARS + 1, 1))
    lines = ["symbol,ts,close"]
    for name, rate in YEARLY.items():
        rising = 100.0 * rate ** (np.arange(N_BARS - 2) / 252)
        closes = [*rising, 0.999 * rising[-1], 0.95 * rising[-1]]
        lines += [f"{name},{day},{close}" for day, close in zip(days, closes, strict=True)]
    lines += [f"{name},{day},{level}" for name, level in (("^VIX", 14), ("^GSPC", 5000)) for day in days]
    path = tmp_path / "prices.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@contextmanager
def opened(settings: Settings, prices: Path, clock: FixedClock) -> Iterator[Desk]:
    options = DeskOptions(data=(str(prices),), fictitious_lists=True, rule_mode=True, cash=250_000.0, expiry_minutes=6000.0)
    with open_desk(
        options,
        settings,
        clock=clock,
        hours=ExchangeSessions("XNYS"),
        tell=pytest.fail,
        producers=lambda context: [UseCaseFeed(EquityMomentum(), context.store, context.data, clock)],
    ) as desk:
        yield desk


def test_a_trade_of_a_use_case_ends_in_the_report_beside_what_was_expected(
    store: Store, database: str, prices: Path, tmp_path: Path
) -> None:
    settings, clock = Settings(home=tmp_path, database_url=database), FixedClock(TUESDAY)
    with opened(settings, prices, clock) as desk:
        assert sorted(str(trace.symbol) for trace in desk.round().traces) == ["AAPL", "KO", "MSFT"]
        clock.advance(timedelta(days=1))
        # The bar of Tuesday ends after the session in which the entries were sent, and fills them.
        desk.round()
        assert sorted(desk.pipeline.argus.held) == ["AAPL", "KO", "MSFT"]
    clock.advance(timedelta(days=1))
    with opened(settings, prices, clock) as desk:
        desk.round()
        assert desk.pipeline.argus.held == {}
    rows = store.service.list_live_performance()
    assert sorted(row.strategy_id for row in rows) == [f"equity_momentum/{name}" for name in ("AAPL", "KO", "MSFT")]
    expected = find_expectation(store.service, "use_case:equity_momentum")
    assert expected is not None
    assert expected.last < TUESDAY - timedelta(days=7)
    (found,) = build_daily_report(store, clock.now()).comparisons
    assert (found.n, found.expected) == (3, pytest.approx(expected.return_per_trade))
    assert found.realised == pytest.approx(-0.05, abs=0.002)
    assert "Too early to say" in found.verdict
