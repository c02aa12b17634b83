"""Invented news: told when it was published, joined point-in-time, and sent through the planner as any other idea."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd
import pytest

from agents.research.request import Budget
from agents.research.runner import ResearchContext, build_session
from agents.trading.direction import is_negative
from backtest.markets import no_edge
from core.clock import SystemClock
from core.errors import DataError, MissingDataError
from core.market import load_dataset
from core.market.panel import Panel
from core.settings import Settings
from core.store.opening import Store
from core.store.records import Dataset
from core.types import SignalCategory
from features.contract import check_feature
from features.point_in_time import Events
from use_cases import load_use_case
from use_cases.supplier_disruption.features import FEATURES, OVERREACTION, RELIEF, TROUBLE
from use_cases.supplier_disruption.news import COLUMNS, DISRUPTION, PACKAGED, RECOVERY, read_news
from use_cases.supplier_disruption.pipeline import LABEL_HORIZON, SupplierDisruption

LINE = "news,{at},{at},{ticker},Fictive Harbor Castings,{category},high,{ticker} {words},Invented."


def write_news(path: Path, *items: tuple[str, str, str]) -> Path:
    """Write items of time, ticker and category."""
    lines = [LINE.format(at=at, ticker=ticker, category=category, words=category) for at, ticker, category in items]
    path.write_text("\n".join([",".join(COLUMNS), *lines]) + "\n", encoding="utf-8")
    return path


def daily(n_bars: int, *symbols: str) -> Panel:
    index = pd.date_range("2024-01-01 21:00", periods=n_bars, freq="D", tz="UTC")
    close = np.arange(1.0, 1.0 + n_bars)[:, None] + 10.0 * np.arange(1, 1 + len(symbols))
    return Panel(index=index, symbols=symbols, close=close, name="daily")


def test_the_packaged_news_is_invented_about_real_tickers_and_never_early() -> None:
    items = read_news().items
    symbols = set(load_dataset("sp500_20").symbols)
    assert len(items) > 500
    assert {item.ticker for item in items} == symbols
    made_up = {"Fictive", "Invented", "Madeup", "Nowhere", "Imaginary", "Pretend", "Storybook", "Fabled"}
    assert {item.supplier.split()[0] for item in items} == made_up
    assert all("nvented" in item.summary for item in items)
    assert all(item.occurred_at <= item.published_at for item in items)
    assert len({item.to_signal().signal_id for item in items}) == len(items)


def test_a_signal_is_told_once_and_when_it_was_published(tmp_path: Path) -> None:
    news = write_news(
        tmp_path / "news.csv",
        ("2024-01-02T20:59:59+00:00", "AAPL", "supply_chain"),
        ("2024-01-02T21:00:00+00:00", "MSFT", "partnership"),
        ("2024-01-02T21:00:01+00:00", "XOM", "earnings"),
    )
    case = SupplierDisruption(news=news)
    close = datetime(2024, 1, 2, 21, tzinfo=UTC)
    first = case.raw_signals(close, since=close - timedelta(days=3))
    assert [signal.affected_tickers for signal in first] == [("AAPL",), ("MSFT",)]
    assert [is_negative(signal) for signal in first] == [True, False]
    assert [signal.category for signal in first] == [SignalCategory.SUPPLIER_DISRUPTION, SignalCategory.POSITIVE_NEWS]
    assert case.raw_signals(close) == first
    (later,) = case.raw_signals(close + timedelta(days=1), since=close)
    assert (later.affected_tickers, later.supplier) == (("XOM",), "Fictive Harbor Castings")


def test_features_count_only_what_was_published_by_the_close_of_a_bar(tmp_path: Path) -> None:
    news = write_news(
        tmp_path / "news.csv",
        ("2024-01-03T21:00:00+00:00", "AAPL", "supply_chain"),
        ("2024-01-03T21:00:01+00:00", "MSFT", "supply_chain"),
        ("2024-01-05T12:00:00+00:00", "AAPL", "partnership"),
    )
    panel = daily(8, "AAPL", "MSFT")
    values = SupplierDisruption(news=news).compute_features(panel)
    np.testing.assert_array_equal(values[TROUBLE.name][:, 0], [0, 0, -1, -1, -1, -1, -1, -1])
    np.testing.assert_array_equal(values[TROUBLE.name][:, 1], [0, 0, 0, -1, -1, -1, -1, -1])
    np.testing.assert_array_equal(values[RELIEF.name][:, 0], [0, 0, -1, -1, 0, 0, 0, 0])
    # Five bars on, a price that rose from 11 to 16 fell by minus five elevenths.
    assert np.isnan(values[OVERREACTION.name][:5]).all()
    np.testing.assert_allclose(values[OVERREACTION.name][5:, 0], [1 - 16 / 11, 1 - 17 / 12, 1 - 18 / 13])


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_its_features_keep_their_contract(feature: object) -> None:
    panel = load_dataset("sp500_20").slice(6_300, 6_500)
    rows = [(one.kind, one.symbol, one.occurred_at, one.known_at) for one in read_news().to_events(panel.symbols)]
    events = Events(table=pd.DataFrame(rows, columns=["kind", "symbol", "occurred_at", "known_at"]))
    report = check_feature(feature, panel, events=events.known_by(panel.index[-1]))  # type: ignore[arg-type]
    assert report.passed, report.summary()


# Through the planner


@pytest.fixture
def context(store: Store, tmp_path: Path) -> ResearchContext:
    return ResearchContext(settings=Settings(home=tmp_path / "home"), store=store, clock=SystemClock())


@pytest.fixture
def dataset(store: Store) -> Dataset:
    return store.service.import_dataset(no_edge(seed=4, n_assets=6, n_bars=900), name="stocks", source="backtest.markets")


@pytest.fixture
def case(dataset: Dataset, tmp_path: Path) -> SupplierDisruption:
    panel = no_edge(seed=4, n_assets=6, n_bars=900)
    kinds = ("supply_chain", "partnership", "regulatory", "earnings")
    items = [
        ((panel.index[bar] - pd.Timedelta(hours=3)).isoformat(), panel.symbols[(bar // 7) % 6], kinds[(bar // 5) % 4])
        for bar in range(3, 900, 4)
    ]
    return SupplierDisruption("stocks", write_news(tmp_path / "news.csv", *items))


def test_it_is_found_by_its_name() -> None:
    case = load_use_case("supplier_disruption")
    assert isinstance(case, SupplierDisruption)
    assert case.describe()["plugins"] == [feature.name for feature in FEATURES]


def test_its_events_are_stored_once_and_its_labels_are_the_weeks_after_them(
    context: ResearchContext, dataset: Dataset, case: SupplierDisruption
) -> None:
    assert case.ingest(context) == case.ingest(context) == dataset
    events = context.store.service.load_events(as_of=datetime(2100, 1, 1, tzinfo=UTC))
    assert len(events) == 225
    assert {event.kind for event in events} == {DISRUPTION, RECOVERY}
    count = case.label(context, dataset)
    panel = context.store.researcher.load_panel(dataset)
    expected = {}
    for bar in range(3, panel.n_bars - LABEL_HORIZON - 1, 4):
        column = (bar // 7) % 6
        expected[panel.index[bar], panel.symbols[column]] = (
            panel.close[bar + 1 + LABEL_HORIZON, column] / panel.close[bar + 1, column] - 1.0
        )
    rows = context.store.service.gateway.select("labels", where={"dataset_id": dataset.dataset_id})
    assert count == len(rows) == len(expected)
    for row in rows:
        assert row["value"] == pytest.approx(expected[row["ts"], row["symbol"]])
        assert row["horizon_end"] < dataset.sealed_from


def test_the_planner_tries_its_features_and_sees_no_event_behind_the_seal(
    context: ResearchContext, dataset: Dataset, case: SupplierDisruption
) -> None:
    report = case.run(context, budget=Budget(trials=3), planner="rules")
    tried = sorted(report.findings, key=lambda finding: finding.trial_id)
    assert [finding.name for finding in tried] == [feature.name for feature in FEATURES]
    assert {finding.family for finding in tried} == {"supply_chain"}
    assert report.verdict == "nothing_promoted"
    seen = context.store.researcher.load_events(as_of=datetime(2100, 1, 1, tzinfo=UTC))
    assert 0 < len(seen) < 225
    assert max(event.known_at for event in seen) < dataset.sealed_from


def test_events_behind_the_seal_come_with_the_bars_behind_it(
    context: ResearchContext, dataset: Dataset, case: SupplierDisruption
) -> None:
    case.ingest(context)
    session = build_session(context, uuid4(), case.build_request(dataset), Budget(), dataset, None, ())
    last_seen = session.panel.index[-1].to_pydatetime()
    assert last_seen < dataset.sealed_from
    seen, whole = session.load_events(last_seen), session.load_events(dataset.last_ts)
    assert seen.table["known_at"].max() <= session.panel.index[-1]
    assert (len(whole), len(whole.known_by(session.panel.index[-1]))) == (225, len(seen))


def test_without_its_events_a_feature_is_no_trial(context: ResearchContext, dataset: Dataset, tmp_path: Path) -> None:
    case = SupplierDisruption("stocks", write_news(tmp_path / "empty.csv"))
    report = case.run(context, budget=Budget(trials=2), planner="rules")
    assert not {finding.name for finding in report.findings} & {feature.name for feature in FEATURES}


# Files that cannot be read


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("news,2024-01-02T10:00:00,2024-01-02T10:00:00,AAPL,S,supply_chain,high,h,s", "line 2"),
        ("news,2024-01-03T10:00:00+00:00,2024-01-02T10:00:00+00:00,AAPL,S,supply_chain,high,h,s", "at or after"),
        ("news,2024-01-02T10:00:00+00:00,2024-01-02T10:00:00+00:00,AAPL,S,gossip,high,h,s", "gossip"),
        ("news,2024-01-02T10:00:00+00:00,2024-01-02T10:00:00+00:00,AAPL,S,supply_chain,dire,h,s", "dire"),
        ("news,2024-01-02T10:00:00+00:00,2024-01-02T10:00:00+00:00,aapl,S,supply_chain,high,h,s", "ticker"),
        ("news,2024-01-02T10:00:00+00:00", "line 2"),
    ],
)
def test_a_bad_line_of_news_is_refused_by_its_number(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "news.csv"
    path.write_text(f"{','.join(COLUMNS)}\n{line}\n")
    with pytest.raises(DataError, match=said):
        read_news(path)


def test_a_file_that_is_no_news_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="there is no file"):
        read_news(tmp_path / "nothing.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="must have the columns"):
        read_news(tmp_path / "other.csv")
    assert PACKAGED.is_file()
