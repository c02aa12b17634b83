"""The daily report: figures of the store, by hand, on a page that fetches nothing."""

import json
import math
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agents.trading.daily_charts import RatePoint, draw_endings, draw_expectations, draw_hit_rates
from agents.trading.daily_report import DailyReport, build_daily_report
from agents.trading.expectations import Comparison
from core.errors import DataError, StoreUnavailableError
from core.store.decisions import DecisionLog
from core.store.event_records import LivePerformance
from core.store.opening import Store
from core.store.trading_records import NewTrade, TradeEntry, TradeExit
from core.types import Side
from tests.agents.trading.desk import NOW, Desk, bad_news, build_desk, signal


def closed(store: Store, number: int, exit_price: float, key: str = "positive_news|bull|low") -> None:
    """Write down a trade of ten shares at 100 that is closed."""
    name = f"order-{number}"
    trade = store.trade_log.record_trade(
        NewTrade(
            context_key=key,
            confidence=0.6,
            position_pct=0.01,
            symbol="AAA",
            side=Side.BUY,
            client_order_id=name,
            recorded_at=NOW - timedelta(days=3),
        )
    )
    store.trade_log.record_entry(TradeEntry(client_order_id=name, order_id=name, qty=10.0, fill_price=100.0))
    at = NOW - timedelta(days=2) + timedelta(minutes=number)
    store.trade_log.close_trade(
        TradeExit(trade_id=trade.trade_id, exit_price=exit_price, exit_reason="stop_loss", closed_at=at)
    )


@pytest.fixture
def desk(store: Store) -> Desk:
    """A desk that bought, refused, lost a little, and learned from five trades."""
    for number, price in enumerate((106.0, 97.0, 106.0, 106.0)):
        closed(store, number, price)
    closed(store, 4, 110.0, "earnings_surprise|sideways|medium")
    built = build_desk(store)
    built.pipeline.run([signal("AAA"), signal("AAA", headline="<b>AAA</b> again"), bad_news("BBB")])
    built.bar("AAA", 100.0)
    built.pipeline.tick()
    built.bar("AAA", 98.0)
    built.pipeline.tick()
    return built


@pytest.fixture
def report(desk: Desk, store: Store) -> DailyReport:
    return build_daily_report(store, desk.clock.now(), notes=("Beware of <i>tags</i>.",))


def test_its_figures_are_those_of_the_book(report: DailyReport, desk: Desk) -> None:
    (position,) = report.positions
    assert report.portfolio is not None
    assert report.portfolio.equity == pytest.approx(50_000.0 - 2.0 * position.qty)
    assert report.portfolio.drawdown_pct == pytest.approx(2.0 * position.qty / 50_000.0)
    assert report.kill_drawdown == 0.07  # of 10,000 to 100,000
    assert [round(point.equity) for point in report.history] == [50_000, 50_000, 49_990]
    assert report.system is not None
    assert (report.system.tier.value, report.system.level, report.halts) == ("trainee", 1, ())
    assert report.milestones is not None


def test_it_counts_where_signals_ended(report: DailyReport) -> None:
    assert (report.n_decisions, report.n_ordered) == (3, 1)
    assert {(kill.killed_at_stage.value, kill.binding_constraint.value): kill.n for kill in report.kills} == {
        ("limits", "ticker_cap"): 1,
        ("ares", "out_of_universe"): 1,
    }


def test_hit_rates_are_shrunk_by_ten_trades_at_even_odds(report: DailyReport) -> None:
    first, second = report.records
    assert (first.rate.context_key, first.rate.closed_trades) == ("positive_news|bull|low", 4)
    assert first.rate.hit_rate == 0.75
    assert first.shrunk == pytest.approx((3 + 5) / 14)
    assert second.shrunk == pytest.approx((1 + 5) / 11)
    assert [trade.exit_price for trade in report.trades] == [110.0, 106.0, 106.0, 97.0, 106.0]


def test_realised_returns_stand_beside_expected_ones(store: Store) -> None:
    for strategy, returns in {"early": [0.06], "worse": [-0.03] * 8 + [0.06] * 4, "as_said": [-0.03] * 6 + [0.06] * 6}.items():
        store.service.save_live_performance(
            [
                LivePerformance(
                    strategy_id=f"{strategy}/{'AAA' if number % 2 else 'BBB'}",
                    ts=NOW + timedelta(minutes=number),
                    expected_return=0.04 if strategy == "worse" else 0.01,
                    realised_return=value,
                )
                for number, value in enumerate(returns)
            ]
        )
    report = build_daily_report(store, NOW)
    as_said, early, worse = report.comparisons
    assert [one.strategy_id for one in report.comparisons] == ["as_said", "early", "worse"]
    assert (early.n, early.realised, early.low, early.high) == (1, 0.06, None, None)
    assert early.verdict == "Too early to say: 10 closed trades are needed."
    # Six times -3 % and six times 6 %, give or take 2.201 (Student, eleven degrees) times the standard error of the mean.
    error = 0.045 * math.sqrt(12 / 11) / math.sqrt(12)
    assert (as_said.n, as_said.realised, as_said.expected) == (12, pytest.approx(0.015), pytest.approx(0.01))
    assert (as_said.low, as_said.high) == (
        pytest.approx(0.015 - 2.200985 * error),
        pytest.approx(0.015 + 2.200985 * error),
    )
    assert as_said.verdict == "No difference can be told from chance."
    assert worse.realised == pytest.approx(0.0)
    assert worse.verdict == "Less than expected, by more than chance explains."
    assert "expectations" in report.charts
    assert report.to_dict()["expectations"][1]["verdict"] == early.verdict
    html = report.to_html()
    assert 'id="expectations"' in html
    assert "-1.49 to 4.49" in html
    assert f"<b>As said:</b> {as_said.verdict}" in html


def test_the_model_is_billed_by_day(store: Store) -> None:
    call = {"model": "m", "input_tokens": 1, "output_tokens": 1, "price_known": True}
    midnight = datetime(2024, 3, 4, tzinfo=UTC)
    rows: list[dict[str, Any]] = [
        {**call, "role": "bull", "cost_usd": 0.25, "recorded_at": midnight - timedelta(seconds=1)},
        {**call, "role": "verdict", "cost_usd": 0.5, "recorded_at": midnight},
        {**call, "role": "planner", "cost_usd": 9.0, "recorded_at": midnight},
    ]
    store.trading.gateway.insert("llm_usage", rows)
    cost = build_daily_report(store, midnight + timedelta(hours=1)).cost
    assert (cost.today, cost.total) == (0.5, 0.75)


def test_the_page_fetches_nothing_and_escapes_what_comes_from_outside(report: DailyReport, tmp_path: Path) -> None:
    page = report.save(tmp_path / "report")
    html = page.read_text(encoding="utf-8")
    assert "<i>tags</i>" not in html
    assert "&lt;i&gt;tags&lt;/i&gt;" in html
    assert "<script" not in html
    assert "src=" not in html.replace('src="data:image/png;base64,', "")
    assert 'content="width=device-width' in html
    told = json.loads((tmp_path / "report" / "daily-report.json").read_text())
    assert told["n_ordered"] == 1
    assert told["hit_rates"][0]["shrunk"] == pytest.approx(8 / 14)
    for name in told["charts"]:
        head = (tmp_path / "report" / name).read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">I", head[16:20]) == (900,)
    assert told["charts"] == ["equity.png", "drawdown.png", "endings.png", "hit_rates.png"]


def test_a_halt_stands_at_the_top(desk: Desk, store: Store) -> None:
    DecisionLog(store.trading.gateway).halt("all", reason="a <u>look</u>", actor="operator", at=NOW)
    html = build_daily_report(store, NOW).to_html()
    assert "Halted" in html
    assert "a &lt;u&gt;look&lt;/u&gt;" in html


def test_an_empty_store_has_a_report_too(store: Store, tmp_path: Path) -> None:
    empty = build_daily_report(store, NOW)
    assert (empty.n_decisions, empty.charts, empty.portfolio) == (0, {}, None)
    assert "Not begun" in empty.to_html()
    assert "Expected and realised" not in empty.to_html()
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailableError, match="cannot be written"):
        empty.save(tmp_path / "file" / "report")
    with pytest.raises(DataError, match="tz-aware"):
        build_daily_report(store, datetime(2024, 3, 4))  # noqa: DTZ001


def pictures() -> Iterator[bytes]:
    yield draw_endings({f"constraint {number}": number for number in range(1, 40)})
    yield draw_hit_rates([RatePoint(label=f"context {n}", measured=n / 40, shrunk=0.5, n=n) for n in range(40)])
    yield draw_expectations(
        [Comparison(strategy_id=f"strategy_{n}", n=n, realised=0.0, expected=0.01, low=-0.01, high=0.02) for n in range(40)]
    )


def test_pictures_of_many_things_show_the_first_fifteen() -> None:
    for picture in pictures():
        width, height = struct.unpack(">II", picture[16:24])
        assert width == 900
        assert height < 1_000
    for draw in (draw_endings, draw_hit_rates, draw_expectations):
        with pytest.raises(DataError, match="nothing to draw"):
            draw({} if draw is draw_endings else [])  # type: ignore[arg-type, operator]
