import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest

from backtest import metrics
from backtest.config import BacktestConfig
from backtest.definitions import CARDS, DEFINITIONS, GROUPS
from backtest.engine import BacktestResult, run_backtest
from backtest.integrity import deflated_sharpe_ratio
from backtest.report import BacktestReport, build_report, load_schema
from core.errors import DataError, ShapeError, StoreUnavailableError
from core.market.panel import Panel
from tests.backtest.conftest import build_panel, random_book

N_BARS = 420


@pytest.fixture(scope="module")
def run() -> tuple[Panel, np.ndarray, BacktestResult]:
    panel, weights = random_book(seed=6, n_bars=N_BARS, n_assets=12)
    return panel, weights, run_backtest(panel, weights, keep_positions=True)


@pytest.fixture(scope="module")
def benchmark_returns(run: tuple[Panel, np.ndarray, BacktestResult]) -> pd.Series:
    panel = run[0]
    returns = panel.returns()
    return pd.Series(np.append(np.nan, returns[1:].mean(axis=1)), panel.index, name="equal <weight>")


@pytest.fixture(scope="module")
def full(run: tuple[Panel, np.ndarray, BacktestResult], benchmark_returns: pd.Series) -> BacktestReport:
    panel, weights, result = run
    return build_report(
        result,
        benchmark=benchmark_returns,
        panel=panel,
        scores=weights,
        n_trials=25,
        caveats=("Only <the living>.",),
        title="A <book> & its report",
    )


@pytest.fixture(scope="module")
def saved(full: BacktestReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full.save(tmp_path_factory.mktemp("report") / "deep" / "folder")


class Page(HTMLParser):
    """What the tests want to know of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.summaries: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "summary":
            self.summaries.append("")
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "summary":
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open:
            self.summaries[-1] += data


def test_every_figure_has_a_definition_and_a_place_on_the_page() -> None:
    placed = [key for _, keys in GROUPS for key in keys]
    assert sorted(placed) == sorted(DEFINITIONS)
    assert len(set(placed)) == len(placed)
    assert set(CARDS) <= set(DEFINITIONS)
    assert all(len(one.text) > 10 and one.text.endswith(".") and one.undefined for one in DEFINITIONS.values())


def test_the_json_follows_its_schema_and_holds_the_figures(full: BacktestReport, saved: Path) -> None:
    found = json.loads((saved.parent / "report.json").read_text(encoding="utf-8"))
    schema = load_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(found)
    result = full.result
    assert found["figures"]["sharpe"]["value"] == metrics.sharpe_ratio(result.net_returns)
    assert found["config"] == result.config.to_dict()
    assert found["n_bars"] == N_BARS
    assert len(found["drawdowns"]) <= 10
    assert found["drawdowns"][0]["depth"] == pytest.approx(metrics.max_drawdown(result.net_returns))
    assert [one["horizon_bars"] for one in found["rank_ic_decay"]] == [1, 2, 3, 5, 10, 21]
    assert len(found["quantiles"]["means"]) == 5
    for figure in found["figures"].values():
        assert (figure["value"] is None) == (figure["reason"] is not None)


def test_the_schema_refuses_what_is_no_report(full: BacktestReport) -> None:
    good = json.loads(json.dumps(full.to_dict()))
    validator = jsonschema.Draft202012Validator(load_schema())
    silent = {**good["figures"], "sharpe": {**good["figures"]["sharpe"], "value": None, "reason": None}}
    for wrong in ({**good, "n_bars": 3}, {**good, "more": 1}, {**good, "figures": silent}, {**good, "charts": ["../x.png"]}):
        assert not validator.is_valid(wrong)


def test_every_picture_is_on_the_page_and_beside_it(full: BacktestReport, saved: Path) -> None:
    assert set(full.charts) == {
        "equity", "drawdown", "rolling_sharpe", "monthly_returns", "distribution", "exposure", "turnover", "rank_ic_decay",
        "quantiles", "trades",
    }  # fmt: skip
    assert {path.name for path in saved.parent.iterdir()} == {
        "report.html",
        "report.json",
        *(f"{name}.png" for name in full.charts),
    }
    page = Page(saved.read_text(encoding="utf-8"))
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == len(full.charts)
    assert all(str(one["src"]).startswith("data:image/png;base64,") and one["alt"] for one in pictures)


def test_the_page_fetches_nothing_runs_nothing_and_escapes_what_it_is_given(full: BacktestReport) -> None:
    text = full.to_html()
    page = Page(text)
    assert not {"script", "link", "iframe", "form"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?://|url\(|@import", text)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    assert "A &lt;book&gt; &amp; its report" in text
    assert "<book>" not in text
    assert "equal &lt;weight&gt;" in text
    assert "<li>Only &lt;the living&gt;.</li>" in text


def test_every_figure_of_the_page_explains_itself_on_hover_and_when_it_is_opened(full: BacktestReport) -> None:
    text = full.to_html()
    page = Page(text)
    titles = [attrs.get("title") for tag, attrs in page.tags if tag == "summary"]
    shown = [key for _, keys in GROUPS for key in keys]
    assert len(titles) == len(CARDS) + len(shown)
    assert all(titles)
    for key in shown:
        definition = DEFINITIONS[key]
        assert any(title is not None and title.startswith(definition.text) for title in titles), key
        assert any(definition.label in said and definition.show(full.figures[key]) in said for said in page.summaries), key
    assert text.count("<details>") == len(titles)


def test_all_settings_are_printed(full: BacktestReport) -> None:
    text = full.to_html()
    for name in full.result.config.to_dict():
        assert f"<code>{name}</code>" in text


def test_without_a_count_of_trials_the_report_says_it_is_no_evidence(run: tuple[Panel, np.ndarray, BacktestResult]) -> None:
    report = build_report(run[2])
    assert report.evidence == "single run, trials not counted: not evidence of an edge"
    assert "Single run, trials not counted: not evidence of an edge." in report.to_html()
    assert report.figures["dsr"] is report.figures["noise_sharpe"] is None
    assert report.figures["psr"] is not None


def test_with_a_count_of_trials_the_deflated_ratio_stands_beside(full: BacktestReport) -> None:
    returns = full.result.net_returns
    expected = deflated_sharpe_ratio(
        sharpe=metrics.sharpe_per_period(returns),
        n_obs=len(returns),
        skew=metrics.skewness(returns),
        kurtosis=metrics.kurtosis(returns),
        n_trials=25,
    )
    assert full.figures["dsr"] == expected
    assert full.evidence.startswith(f"deflated Sharpe ratio {100 * expected:.1f} %: found among 25 independent trials")
    assert "counted by the caller" in full.evidence
    assert "trials not counted" not in full.to_html()


def test_a_high_deflated_ratio_is_called_one_check_of_several() -> None:
    close = 10.0 * np.cumprod(1.002 + 0.005 * np.random.default_rng(0).standard_normal((300, 1)), axis=0)
    report = build_report(run_backtest(build_panel(close), np.ones((300, 1))), n_trials=2, notes=("Beware.",))
    assert report.passes_deflation
    assert report.evidence.endswith("above the 95 % that a finding needs, among other things")
    assert "Trials counted: one check of several" in report.to_html()
    assert report.notes == ("Beware.",)


def test_a_count_that_leaves_this_run_out_is_refused(run: tuple[Panel, np.ndarray, BacktestResult]) -> None:
    with pytest.raises(ValueError, match="this run counts itself, was 0"):
        build_report(run[2], n_trials=0)


def test_figures_come_from_where_they_are_defined(full: BacktestReport, benchmark_returns: pd.Series) -> None:
    result = full.result
    fit = metrics.fit_benchmark(result.net_returns[1:], benchmark_returns.to_numpy()[1:])
    assert (full.figures["beta"], full.figures["alpha_t"]) == (fit.beta, fit.alpha_t)
    assert full.trades is not None
    found = metrics.summarize_trades(full.trades)
    assert full.figures["trade_win_rate"] == found.win_rate
    assert full.figures["trade_profit_factor"] == found.profit_factor
    assert full.figures["n_closed"] == found.n_closed
    assert full.figures["rank_ic"] == full.rank_ic_decay[0].mean
    assert full.quantiles is not None
    assert full.figures["quantile_spread"] == pytest.approx(1e4 * full.quantiles.spread)


def test_scores_of_a_slice_are_judged_on_its_bars_alone(run: tuple[Panel, np.ndarray, BacktestResult]) -> None:
    panel, weights, result = run
    part = build_report(result.slice(300, 400), panel=panel, scores=weights)
    expected = metrics.compute_rank_ic_decay(weights[300:400], panel.close[300:400])
    assert part.rank_ic_decay == expected


def test_a_strategy_that_never_traded_gives_an_honest_empty_report(tmp_path: Path) -> None:
    panel, weights = random_book(seed=1, n_bars=60)
    report = build_report(run_backtest(panel, 0.0 * weights, keep_positions=True), panel=panel, n_trials=3)
    assert not report.traded
    assert report.charts == {}
    assert report.evidence.startswith("the strategy never traded")
    assert report.figures["sharpe"] is report.figures["dsr"] is report.figures["break_even_bps"] is None
    assert (report.figures["total_return"], report.figures["n_closed"]) == (0.0, 0)
    text = report.save(tmp_path).read_text(encoding="utf-8")
    assert "∅ Never traded" in text
    assert "No value: the account did not move." in text
    jsonschema.validate(json.loads((tmp_path / "report.json").read_text(encoding="utf-8")), load_schema())
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report.json"}


def test_ten_bars_are_too_few_for_a_report() -> None:
    panel, weights = random_book(seed=1, n_bars=10)
    with pytest.raises(DataError, match="at least 21 bars to say anything, the result has 10"):
        build_report(run_backtest(panel, weights))


def test_a_few_months_are_reported_with_a_warning() -> None:
    panel, weights = random_book(seed=1, n_bars=30)
    report = build_report(run_backtest(panel, weights))
    assert report.notes == (
        "30 bars are less than a year: every yearly figure is a projection, and the Sharpe ratio has a standard error of at "
        "least 2.9.",
    )


def test_a_benchmark_that_does_not_overlap_is_refused(run: tuple[Panel, np.ndarray, BacktestResult]) -> None:
    late = pd.Series(0.001, pd.bdate_range("2031-01-01", periods=300, tz="UTC"))
    with pytest.raises(DataError, match="`benchmark` must know at least half of the 420 bars"):
        build_report(run[2], benchmark=late)


def test_a_benchmark_with_gaps_is_compared_where_it_is_known(
    run: tuple[Panel, np.ndarray, BacktestResult], benchmark_returns: pd.Series
) -> None:
    report = build_report(run[2], benchmark=benchmark_returns.iloc[100:])
    assert "The benchmark is known at 320 of 420 bars" in report.notes[0]


def test_scores_need_their_panel_and_its_shape(run: tuple[Panel, np.ndarray, BacktestResult]) -> None:
    panel, weights, result = run
    with pytest.raises(DataError, match="pass `panel` too"):
        build_report(result, scores=weights)
    with pytest.raises(ShapeError, match=r"`scores` must have the panel's shape .* = \(420, 12\), was \(420, 3\)"):
        build_report(result, panel=panel, scores=weights[:, :3])


def test_a_ruined_account_is_reported_without_infinity(tmp_path: Path) -> None:
    close = np.full((60, 1), 10.0)
    close[20:] = 30.0
    config = BacktestConfig(borrow_rate=0.0)
    report = build_report(run_backtest(build_panel(close), np.full((60, 1), -1.0), config))
    assert report.figures["total_return"] == -1.0
    assert any("worth nothing from 2020-01-29 on" in note for note in report.notes)
    report.save(tmp_path)
    json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))


def test_an_account_without_a_losing_bar_has_no_ratio_instead_of_an_infinite_one() -> None:
    close = 10.0 * 1.001 ** np.arange(60)[:, None]
    report = build_report(run_backtest(build_panel(close), np.ones((60, 1)), BacktestConfig(commission_bps=0, slippage_bps=0)))
    for key in ("sortino", "calmar", "omega"):
        assert report.figures[key] is None
    assert report.to_dict()["figures"]["omega"]["reason"] == "no bar lost"
    assert report.drawdowns == ()
    assert "The account never fell below its high." in report.to_html()


def test_a_list_of_trades_that_is_there_already_is_taken(run: tuple[Panel, np.ndarray, BacktestResult]) -> None:
    result = run[2]
    trades = pd.DataFrame(
        {
            "pnl": [10.0, -5.0, 1.0],
            "return": [0.1, -0.05, 0.01],
            "entry_bar": [1, 4, 8],
            "exit_bar": [3, 9, 419],
            "exit_time": result.index[[3, 9, 419]],
            "reason": ["signal", "stop_loss", "end"],
        }
    )
    report = build_report(result, trades=trades)
    assert (report.figures["n_closed"], report.figures["n_open"]) == (2, 1)
    assert report.figures["trade_profit_factor"] == 2.0
    assert report.figures["longest_bars"] == 5.0
    assert "trades" in report.charts


def test_a_notebook_shows_a_frame_of_the_report_and_a_summary_of_the_result(full: BacktestReport) -> None:
    frame = full._repr_html_()
    assert frame.startswith("<iframe sandbox=")
    assert "&lt;!doctype html&gt;" in frame
    shown = full.result._repr_html_()
    assert "not evidence of an edge" in shown
    assert DEFINITIONS["sharpe"].show(full.result.metrics["sharpe"]) in shown
    assert shown.count("data:image/png;base64,") == 1
    assert "BacktestReport('A <book> & its report'" in repr(full)


def test_a_result_that_never_traded_shows_itself_without_a_picture() -> None:
    panel, weights = random_book(seed=1, n_bars=10)
    shown = run_backtest(panel, 0.0 * weights)._repr_html_()
    assert "It never traded" in shown
    assert "<img" not in shown


def test_a_folder_that_cannot_be_written_is_named(full: BacktestReport, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailableError, match=r"cannot be written to .*file"):
        full.save(tmp_path / "file")


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("cagr", 0.12345, "12.35\N{NO-BREAK SPACE}%"),
        ("sharpe", -0.001, "0.00"),
        ("rank_ic", 0.01234, "0.0123"),
        ("turnover", 66.874, "66.87x"),
        ("break_even_bps", 6.79, "6.8\N{NO-BREAK SPACE}bps"),
        ("n_trades", 166140, "166,140"),
        ("sharpe", math.nan, "n/a"),
        ("sharpe", None, "n/a"),
    ],
)
def test_values_are_written_in_their_unit(key: str, value: float | None, shown: str) -> None:
    assert DEFINITIONS[key].show(value) == shown


def test_equal_results_give_equal_reports(run: tuple[Panel, np.ndarray, BacktestResult]) -> None:
    part = run[2].slice(0, 100)
    assert build_report(part).to_html() == build_report(replace(part)).to_html()
