"""The report of a run: what it shows, that it is whole, and that nothing in it can do harm."""

import io
import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from xml.etree.ElementTree import Element, TreeBuilder

import numpy as np
import pandas as pd
import pytest

from agents.research import report as report_module
from agents.research.findings import Check, Finding
from agents.research.report import LEADERBOARD_COLUMNS, ResearchReport
from agents.research.session import ResearchSession
from aqf.commands.research import plan
from backtest.charts import draw_rank_ic_by_year, draw_turnover
from core.errors import StoreUnavailableError
from core.market.panel import Panel

HOSTILE = "<script>alert('x')</script> & \"quotes\" | ]]> --"
VOID = {"meta", "base", "img"}
INLINE = {"a", "span", "code"}
PNG = b"\x89PNG\r\n\x1a\n a picture"

STATISTICS = {
    "rank_ic": 0.016885,
    "rank_ic_t": 5.0356,
    "gross_sharpe": 0.77645,
    "net_sharpe": 0.40985,
    "turnover": 1035.059,
    "break_even_bps": 11.2953,
    "dsr": 0.75259,
    "n_obs": 6398,
    "oos_start": "1990-12-31T21:00:00+00:00",
    "cagr": 0.0198,
    "volatility": 0.051,
    "max_drawdown": -0.2148,
    "annual_cost": 0.0187,
    "holding_bars": 10,
    "rank_ic_by_year": {"1991": 0.0477, "1992": None},
}


def make_check(name: str, figure: float | None, bound: str, *, passed: bool, note: str = "") -> Check:
    return Check(name=name, figure=figure, bound=bound, passed=passed, note=note)


def make_finding(trial_id: int, *, stopped_by: str | None = "deflated_sharpe", **changes: Any) -> Finding:
    checks = (
        make_check("leak", 16.0, "truncation test passed", passed=True, note="checks made"),
        make_check("track_record", 6398.0, ">= 4007 bars", passed=True, note="minimum track record length"),
        make_check(
            "deflated_sharpe", 0.75259, ">= 0.95", passed=stopped_by != "deflated_sharpe", note="against 7 effective trials"
        ),
        make_check("spa", 0.2091, "<= 0.05", passed=stopped_by is None),
        make_check("redundancy", None, "< 0.7", passed=stopped_by != "redundancy", note=f"of trial {trial_id}"),
    )
    values: dict[str, Any] = {
        "trial_id": trial_id,
        "feature_id": f"feature-{trial_id}",
        "name": f"reversal_{trial_id}",
        "family": "reversal",
        "expression": f"-pct_change(close, {trial_id})",
        "verdict": "promoted" if stopped_by is None else "rejected",
        "binding_constraint": stopped_by,
        "metrics": STATISTICS,
        "checks": checks,
        "hypothesis": f"Losers of the last {trial_id} bars rebound.",
    }
    return Finding(**{**values, **changes})


def make_calls(findings: tuple[Finding, ...]) -> tuple[dict[str, Any], ...]:
    calls: list[dict[str, Any]] = []
    for finding in findings:
        made = {"step": len(calls), "error": None, "seconds": 0.04}
        proposal = {"name": finding.name, "expression": finding.expression, "hypothesis": finding.hypothesis}
        calls.append(
            {
                **made,
                "tool_call_id": f"propose {finding.trial_id}",
                "tool": "propose_new_feature",
                "arguments": proposal,
                "result": {"feature_id": finding.feature_id},
                "trial_id": None,
            }
        )
        calls.append(
            {
                **made,
                "tool_call_id": f"test {finding.trial_id}",
                "tool": "run_backtest",
                "arguments": {"feature_id": finding.feature_id},
                "result": {"trial_id": finding.trial_id},
                "trial_id": finding.trial_id,
            }
        )
    failure = "unknown field volume: there are close, returns"
    refused = {"expression": "volume", "name": "v", "family": "volume", "hypothesis": ""}
    calls.append(
        {
            "tool_call_id": "refused",
            "step": 9,
            "tool": "propose_new_feature",
            "arguments": refused,
            "result": {},
            "error": failure,
            "seconds": 0.001,
            "trial_id": None,
        }
    )
    return tuple(calls)


def make_report(findings: tuple[Finding, ...] | None = None, **changes: Any) -> ResearchReport:
    if findings is None:
        nothing_known = {**STATISTICS, "rank_ic": None, "rank_ic_t": None, "break_even_bps": None}
        findings = (
            make_finding(3),
            make_finding(1, stopped_by="spa"),
            make_finding(2, stopped_by="redundancy", metrics=nothing_known),
        )
    values: dict[str, Any] = {
        "run_id": "5d87de88-5bfe-43e2-ac19-d38749baffb4",
        "question": "Is there a short-horizon reversal in these stocks?",
        "dataset": {
            "name": "sp500_20",
            "version": 1,
            "source": "a package",
            "symbols": ["AAPL", "XOM"],
            "first": "1990-01-02",
            "last": "2016-05-20",
            "sealed_from": "2016-05-23",
            "content_sha256": "19c8" * 16,
            "caveats": ["failed companies are missing", "adjusted closes only"],
        },
        "planner": "rules",
        "verdict": "promoted" if any(finding.promoted for finding in findings) else "nothing_promoted",
        "sentence": "This is what was found.",
        "findings": findings,
        "recalled": {"sentence": "This was remembered.", "notes": {}},
        "vectors": {},
        "stop": "The budget of 3 trials is used.",
        "n_trials": len(findings),
        "n_trials_ledger": 1_234,
        "n_trials_effective": 7,
        "expected_best_noise_sharpe": 0.27524,
        "spa_p": 0.2091,
        "pbo": 0.0154,
        "pbo_net_naive": 0.5124,
        "holdout_opened": False,
        "config": {
            "fill": "close",
            "commission_bps": 1.0,
            "slippage_bps": 4.0,
            "borrow_rate": 0.005,
            "method": "cross_section",
            "seed": 5,
            "splits": {"min_train": 252, "test_bars": 126, "embargo_bars": 0, "anchored": True},
            "request": {"symbols": [], "candidates": [], "vectors": True},
            "budget": {"steps": 40, "trials": 60, "usd": 2.0, "seconds": 600.0},
        },
        "usage": {"steps": 21, "trials": 3, "usd": 0.0},
        "tool_calls": make_calls(findings),
        "code_version": "0.1.0+gabcdef012345",
        "charts": dict.fromkeys(("equity", "drawdown", "rank_ic_by_year", "turnover"), PNG),
    }
    return ResearchReport(**{**values, **changes})


VECTORS = {
    "refresh_vector_store": {
        "emb_type": "window",
        "emb_version": "ts2vec-1-w128",
        "windows": 6220,
        "trained_until": "2005-10-25T20:00:00+00:00",
        "newest": "2016-05-04T20:00:00+00:00",
    },
    "prune_vectors": {
        "dry_run": False,
        "reasons": {"old_and_weak": 1885},
        "archived": 1885,
        "examined": 6220,
        "selected": 1885,
    },
    "score_signal_cluster": {
        "symbol": "AAPL",
        "window_end": "2016-05-04T20:00:00+00:00",
        "horizon_bars": 5,
        "n": 50,
        "mean_forward_return": 0.02857,
        "t_stat_if_independent": None,
        "cohesion": 0.744,
        "separation": 0.734,
        "nearest": [
            {"symbol": "AMD", "window_end": "2008-05-01T20:00:00+00:00", "regime": "turbulent_down", "forward_return": 0.12662}
        ],
    },
}


class Reader(HTMLParser):
    """Builds the tree of a page, and fails where an element is not closed in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.builder = TreeBuilder()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.builder.start(tag, {name: value or "" for name, value in attrs})
        self.open.append(tag)
        if tag in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.builder.end(tag)

    def handle_data(self, data: str) -> None:
        if self.open:
            self.builder.data(data)


def read(page: str) -> Element:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader.builder.close()


def words(element: Element) -> str:
    """Return the text of an element, its spaces collapsed; blocks stand apart."""
    return " ".join("".join(_fragments(element)).split())


def _fragments(element: Element) -> Iterator[str]:
    yield element.text or ""
    for child in element:
        yield from _fragments(child)
        yield ("" if child.tag in INLINE else " ") + (child.tail or "")


def texts(element: Element, path: str) -> list[str]:
    return [words(found) for found in element.findall(path)]


def section(page: Element, name: str) -> str:
    (found,) = page.findall(f".//section[@id='{name}']")
    return words(found)


def row(page: Element, trial_id: int) -> Element:
    (found,) = page.findall(f".//tbody[@id='trial-{trial_id}']")
    return found


def figures(page: Element, trial_id: int) -> list[str]:
    return texts(row(page, trial_id), "./tr[1]/td[@class='num']")


def attributes(page: Element, name: str) -> list[str]:
    return [element.attrib[name] for element in page.iter() if name in element.attrib]


@pytest.mark.parametrize(
    "report", [make_report(), make_report(()), make_report((make_finding(4, stopped_by=None),), vectors=VECTORS)]
)
def test_a_page_fetches_nothing_and_runs_nothing(report: ResearchReport) -> None:
    html = report.to_html()
    page = read(html)
    assert not any(word in html for word in ("http://", "https://", "@import", "url("))
    assert all(link.startswith("#") for link in attributes(page, "href"))
    assert all(source.startswith("data:image/png;base64,") for source in attributes(page, "src"))
    assert {element.tag for element in page.iter()} & {"script", "link", "iframe", "object", "form"} == set()
    assert not any(name.startswith("on") for element in page.iter() for name in element.attrib)
    assert "default-src 'none'" in html


@pytest.mark.parametrize(
    "report", [make_report(vectors=VECTORS), make_report(()), make_report((make_finding(4, stopped_by=None),))]
)
def test_every_link_of_a_page_has_its_target_and_every_name_is_given_once(report: ResearchReport) -> None:
    page = read(report.to_html())
    names = attributes(page, "id")
    assert len(names) == len(set(names))
    assert {link.removeprefix("#") for link in attributes(page, "href")} <= set(names)


def test_text_from_outside_is_shown_and_never_obeyed() -> None:
    finding = make_finding(8, name=HOSTILE, expression=HOSTILE, family=HOSTILE, hypothesis=HOSTILE)
    finding = replace(
        finding, checks=(make_check(HOSTILE, 1.0, HOSTILE, passed=False, note=HOSTILE),), binding_constraint=HOSTILE
    )
    report = make_report((finding,), question=HOSTILE, sentence=HOSTILE, stop=HOSTILE, recalled={"sentence": HOSTILE})
    report = replace(report, dataset={**report.dataset, "name": HOSTILE, "caveats": [HOSTILE]}, code_version=HOSTILE)
    html = report.to_html()
    page = read(html)
    assert "<script" not in html
    assert "<script" not in report._repr_html_()
    for path in (
        ".//h1",
        ".//title",
        ".//div[@class='name']",
        ".//th[@scope='row']/code",
        ".//li",
        ".//section[@id='memory']/p",
    ):
        assert HOSTILE in texts(page, path)
    assert HOSTILE in words(row(page, 8).findall(".//summary")[0])


@pytest.mark.parametrize(("stopped_by", "mark"), [(None, "✓ Promoted"), ("spa", "∅ Nothing promoted")])
def test_the_verdict_is_marked(stopped_by: str | None, mark: str) -> None:
    report = make_report((make_finding(1, stopped_by=stopped_by),))
    marked = read(report.to_html()).find(f".//div[@class='verdict {report.verdict}']")
    assert marked is not None
    assert texts(marked, "./p")[:2] == [mark, "This is what was found."]


def test_a_promotion_is_never_read_without_the_caveats_of_its_data() -> None:
    (beware,) = texts(read(make_report((make_finding(1, stopped_by=None),)).to_html()), ".//p[@class='beware']")
    assert beware.endswith("Beware: failed companies are missing; adjusted closes only.")


def test_every_finding_is_on_the_page_with_all_its_checks() -> None:
    report = make_report()
    page = read(report.to_html())
    assert [tbody.attrib["id"] for tbody in page.findall(".//table[@class='board']/tbody")] == ["trial-3", "trial-1", "trial-2"]
    for finding in report.findings:
        found = row(page, finding.trial_id)
        assert texts(found, "./tr/th") == [f"{finding.name} {finding.expression}"]
        passed = sum(check.passed for check in finding.checks)
        assert texts(found, ".//summary") == [f"{passed} of 5 checks passed · {finding.hypothesis}"]
        shown = [texts(check, "./td") for check in found.findall(".//table/tbody/tr")]
        outcomes = ["✓ passed" if check.passed else "✗ not passed" for check in finding.checks]
        assert [check[0] for check in shown] == ["leak", "track_record", "deflated_sharpe", "spa", "redundancy"]
        assert [check[1] for check in shown] == ["16", "6,398", "0.753", "0.209", "n/a"]
        assert [check[2] for check in shown] == [check.bound for check in finding.checks]
        assert [check[3] for check in shown] == outcomes
        assert [check[4] for check in shown] == [check.note for check in finding.checks]


def test_the_verdict_of_a_row_names_the_constraint_that_bound() -> None:
    page = read(make_report((make_finding(1), make_finding(2, stopped_by=None))).to_html())
    assert texts(row(page, 1), "./tr/td[@class='verdict-cell']") == ["rejected: deflated_sharpe 0.753, needed >= 0.95"]
    assert texts(row(page, 2), "./tr/td[@class='verdict-cell']") == ["promoted"]


def test_the_figures_of_the_page_are_those_of_the_json(tmp_path: Path) -> None:
    page = read(make_report().save(tmp_path).read_text())
    values = json.loads((tmp_path / "report.json").read_text())
    digits = {"rank_ic": 4, "rank_ic_t": 1, "gross_sharpe": 2, "net_sharpe": 2, "turnover": 1, "break_even_bps": 1, "dsr": 3}
    for entry in values["leaderboard"]:
        for (key, places), text in zip(digits.items(), figures(page, entry["trial_id"]), strict=True):
            if entry[key] is None:
                assert text == "n/a"
            else:
                assert float(text.replace(",", "")) == pytest.approx(entry[key], abs=0.5 * 10**-places)
    cards = dict(zip(texts(page, ".//dl[@class='cards']/div/dt"), texts(page, ".//dd[@class='value']"), strict=True))
    assert cards == {
        "Trials": "3",
        "Independent trials": "7",
        "Net Sharpe ratio": "0.41",
        "What noise would show": "0.28",
        "Deflated Sharpe ratio (DSR)": "0.753",
        "Hansen's SPA p-value": "0.209",
        "Probability of overfitting (PBO)": "0.02",
        "PBO after costs (naive)": "0.51",
        "Hold-out": "still sealed",
    }


def test_every_key_figure_and_every_head_is_defined_on_hover_and_below() -> None:
    page = read(make_report().to_html())
    meanings = {
        f"#{term.attrib['id']}": words(meaning)
        for term, meaning in zip(
            page.findall(".//dl[@class='glossary']/dt"), page.findall(".//dl[@class='glossary']/dd"), strict=True
        )
    }
    terms = [*page.findall(".//dl[@class='cards']//dt/a"), *page.findall(".//table[@class='board']/thead//a")]
    assert len(terms) == 9 + 7
    assert all(meanings[term.attrib["href"]] == term.attrib["title"] for term in terms)


def test_what_could_not_be_measured_is_not_available() -> None:
    report = make_report(spa_p=None, pbo=None, pbo_net_naive=None)
    page = read(report.to_html())
    assert texts(page, ".//dd[@class='value']")[5:8] == ["n/a", "n/a", "n/a"]
    assert figures(page, 2) == ["n/a", "n/a", "0.78", "0.41", "1,035.1", "n/a", "0.753"]
    assert dict(report.key_figures())["Hansen's SPA p-value"] == "n/a"
    assert "| reversal_2 | n/a | n/a | 0.78 | 0.41 | 1,035.1 | n/a | 0.753 | rejected: redundancy |" in report.to_markdown()
    bare = make_report((make_finding(1, metrics={}, checks=()),))
    assert figures(read(bare.to_html()), 1) == ["n/a"] * 7


def test_every_figure_of_a_row_leads_to_the_backtest_that_measured_it() -> None:
    page = read(make_report().to_html())
    calls = {f"#{call.attrib['id']}": texts(call, "./td") for call in page.findall(".//section[@id='calls']//tbody/tr")}
    for trial_id in (3, 1, 2):
        sources = [link.attrib["href"] for link in row(page, trial_id).findall(".//a[@class='figure']")]
        leak, track_record, deflated, spa, redundancy = sources[7:]
        assert spa == redundancy == "#calls"
        for source in {*sources[:7], leak, track_record, deflated}:
            assert calls[source][1:3] == [f"test {trial_id}", "run_backtest"]
        proposed, measured = (link.attrib["href"] for link in row(page, trial_id).findall(".//details//p/a"))
        assert calls[proposed][1:3] == [f"propose {trial_id}", "propose_new_feature"]
        assert measured == sources[0]


def test_a_call_that_failed_says_why() -> None:
    page = read(make_report().to_html())
    assert texts(page, ".//tr[@id='call-7']/td[6]") == ["failed unknown field volume: there are close, returns"]
    assert "7 calls, 1 of which failed" in section(page, "calls")


def test_the_charts_are_inside_the_page_and_say_of_whom_they_are() -> None:
    page = read(make_report((make_finding(3, stopped_by="redundancy"), make_finding(5, stopped_by=None))).to_html())
    assert attributes(page, "src") == ["data:image/png;base64,iVBORw0KGgogYSBwaWN0dXJl"] * 4
    captions = texts(page, ".//figcaption")
    assert len(captions) == 4
    assert all("reversal_5" in caption and "reversal_3" not in caption for caption in captions)
    assert "6,398 bars out of sample from 1990-12-31 on: 2.0 % a year" in captions[0]
    assert "At its deepest: -21.5 %" in captions[1]


def test_a_page_without_findings_renders() -> None:
    report = make_report((), charts={})
    page = read(report.to_html())
    assert attributes(page, "src") == []
    assert section(page, "leaderboard") == "Leaderboard No trial was made. The budget of 3 trials is used."
    assert report.best is None
    assert report.leaderboard.empty
    assert "rejected" not in report.to_markdown()


def test_what_earlier_runs_left_is_shown() -> None:
    families = {
        "reversal": {"trials": 12, "best_rank_ic_t": 5.04, "promoted": 1},
        "trend": {"trials": 2, "best_rank_ic_t": None, "promoted": 0},
    }
    recalled = {"sentence": "12 earlier trials are remembered.", "notes": {"families": families}}
    memory = section(read(make_report(recalled=recalled).to_html()), "memory")
    assert "12 earlier trials are remembered." in memory
    assert memory.endswith("reversal 12 5.0 1 trend 2 n/a 0")


def test_the_vector_memory_is_called_descriptive() -> None:
    memory = section(read(make_report(vectors=VECTORS).to_html()), "vectors")
    assert "describes the data and is no evidence" in memory
    assert "6,220 windows up to 2016-05-04 were encoded (window ts2vec-1-w128)" in memory
    assert "of 6,220 windows 1,885 were old and weak or of other symbols, and 1,885 were archived" in memory
    assert "followed by a mean return of 2.86 % in 5 bars, t n/a" in memory
    assert "AMD 2008-05-01 turbulent down 12.66 %" in memory
    assert section(read(make_report().to_html()), "vectors").endswith("It was not asked in this run.")


def test_how_it_was_done_can_be_read() -> None:
    how = section(read(make_report().to_html()), "how")
    for fact in (
        "5 bps of the traded value per side (1 commission, 4 slippage); 0.5 % a year on what is sold short",
        "all bars so far, at least 252 bars, judged on the next 126",
        "Seed 5",
        "SHA-256 " + "19c8" * 16,
        "Sealed from 2016-05-23 on; not opened in this run",
        "failed companies are missing",
        "Code version 0.1.0+gabcdef012345",
        "Run 5d87de88-5bfe-43e2-ac19-d38749baffb4",
        "21 rounds of planning, 3 trials, 0.00 US dollars",
    ):
        assert fact in how


@pytest.mark.parametrize("question", ['Is it "real"; isn\'t it? $(ls) `x`', "-5 days: does it revert?", "plain"])
def test_the_command_of_the_page_asks_the_same_again(question: str) -> None:
    report = make_report(question=question)
    report = replace(report, config={**report.config, "request": {"symbols": ["XOM", "KO"], "candidates": [], "vectors": True}})
    (command,) = texts(read(report.to_html()), ".//pre[@class='command']")
    program, name, *arguments = shlex.split(command)
    assert (program, name) == ("aqf", "plan")
    understood = plan.make_context("plan", arguments).params
    wanted = {"dataset": "sp500_20", "symbols": "XOM,KO", "trials": 60, "steps": 40, "seconds": 600.0, "usd": 2.0, "seed": 5}
    assert {key: understood[key] for key in wanted} == wanted
    assert (understood["question"], understood["planner"]) == (question, "rules")


def test_a_run_with_ideas_of_its_own_is_repeated_from_its_json() -> None:
    report = make_report()
    own = {"symbols": [], "candidates": [{"name": "mine", "expression": "-close"}], "vectors": True}
    again = section(read(replace(report, config={**report.config, "request": own}).to_html()), "again")
    assert "aqf plan" not in again
    assert 'ResearchRequest.from_dict(config["request"])' in again


def test_a_notebook_shows_the_page_in_a_frame_of_its_own() -> None:
    report = make_report(question=HOSTILE)
    frame = read(report._repr_html_())
    assert (frame.tag, len(frame)) == ("iframe", 0)
    assert frame.attrib["sandbox"] == ""
    assert frame.attrib["title"] == f"Research report: {HOSTILE}"
    assert frame.attrib["srcdoc"] != report.to_html()
    assert frame.attrib["srcdoc"].replace('<base href="about:srcdoc">\n', "") == report.to_html()


def test_a_report_prints_itself_in_one_line() -> None:
    text = repr(make_report())
    assert text == "ResearchReport(5d87de88-5bfe-43e2-ac19-d38749baffb4, nothing_promoted, 3 trials: This is what was found.)"


def test_a_report_comes_back_from_its_json_and_its_folder(tmp_path: Path) -> None:
    report = make_report(vectors=VECTORS)
    page = report.save(tmp_path / "deep" / "folder")
    (page.parent / "holiday.png").write_bytes(b"another picture")
    assert sorted(path.name for path in page.parent.iterdir()) == [
        "drawdown.png", "equity.png", "holiday.png", "rank_ic_by_year.png", "report.html", "report.json", "turnover.png",
    ]  # fmt: skip
    again = ResearchReport.from_dict(json.loads((page.parent / "report.json").read_text()), folder=page.parent)
    assert again.to_dict() == report.to_dict()
    assert again.findings == report.findings
    assert again.charts == report.charts
    assert again.to_html() == report.to_html() == page.read_text()
    assert "charts" not in report.to_dict()
    assert ResearchReport.from_dict(report.to_dict()).charts == {}


def test_numbers_that_json_cannot_hold_become_null() -> None:
    metrics = {**STATISTICS, "dsr": float("-inf"), "net_sharpe": np.float64("nan")}
    report = make_report((make_finding(1, metrics=metrics),))
    entry = json.loads(json.dumps(report.to_dict(), allow_nan=False))["leaderboard"][0]
    assert entry["dsr"] is None
    assert entry["metrics"]["net_sharpe"] is None
    assert figures(read(report.to_html()), 1) == ["0.0169", "5.0", "0.78", "n/a", "1,035.1", "11.3", "n/a"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreUnavailableError, match="choose another folder"):
        make_report().save(tmp_path / "file" / "out")


def test_the_leaderboard_is_a_table_of_every_trial() -> None:
    table = make_report().leaderboard
    assert list(table.columns) == list(LEADERBOARD_COLUMNS)
    assert list(table["tool_call_id"]) == ["test 3", "test 1", "test 2"]
    assert list(table["hypothesis"]) == [f"Losers of the last {n} bars rebound." for n in (3, 1, 2)]
    assert list(table["binding_constraint"]) == ["deflated_sharpe", "spa", "redundancy"]


def test_markdown_shows_text_from_outside_as_it_is() -> None:
    report = make_report((make_finding(1, name="a|b"),), question="Is\n<b>this</b> *it*?")
    lines = report.to_markdown().splitlines()
    assert lines[0] == r"# Is \<b>this\</b> \*it\*?"
    assert r"| a\|b | 0.0169 | 5.0 | 0.78 | 0.41 | 1,035.1 | 11.3 | 0.753 | rejected: deflated_sharpe |" in lines
    many = make_report(tuple(make_finding(n) for n in range(15))).to_markdown(rows=4)
    assert many.count("| reversal_") == 4
    assert "11 more trials are in `report.json`." in many


@pytest.fixture
def drawn() -> tuple[SimpleNamespace, pd.DatetimeIndex, dict[str, np.ndarray]]:
    """A stored trial over the last 60 of 80 bars, of which 5 are in 2019."""
    index = pd.bdate_range("2019-11-28", periods=80, tz="UTC")
    rng = np.random.default_rng(0)
    close = 100.0 * np.cumprod(1.0 + 0.01 * rng.standard_normal((80, 3)), axis=0)
    out_of_sample = index[-60:]
    rank_ic = np.where(out_of_sample.year == 2019, -0.5, 0.125)
    rank_ic[-2:] = np.nan
    series = {"net": 0.01 * rng.standard_normal(60), "gross": np.zeros(60), "turnover": np.full(60, 0.2), "rank_ic": rank_ic}
    buffer = io.BytesIO()
    np.savez(buffer, **cast(Any, series))
    trial = SimpleNamespace(returns_uri="kept", n_obs=60)
    store = SimpleNamespace(
        researcher=SimpleNamespace(list_trials=lambda where: [trial] if where == {"trial_id": 5} else []),
        artifacts=SimpleNamespace(load=lambda uri: buffer.getvalue()),
    )
    panel = Panel(index=index, symbols=("A", "B", "C"), close=close)
    return SimpleNamespace(store=store, panel=panel), out_of_sample, series


def test_the_charts_are_of_the_promoted_candidate_and_leave_out_years_too_short_to_mean_anything(
    drawn: tuple[SimpleNamespace, pd.DatetimeIndex, dict[str, np.ndarray]],
) -> None:
    session, index, series = drawn
    findings = (make_finding(3, stopped_by="redundancy"), make_finding(5, stopped_by=None))
    charts = report_module._draw(cast(ResearchSession, session), findings)
    assert set(charts) == {"equity", "drawdown", "rank_ic_by_year", "turnover"}
    assert charts["rank_ic_by_year"] == draw_rank_ic_by_year({2020: 0.125})
    assert charts["turnover"] == draw_turnover(pd.Series(series["turnover"], index=index))
    assert report_module._draw(cast(ResearchSession, session), ()) == {}


def test_the_halves_around_a_knowledge_cutoff_stand_under_the_figures() -> None:
    half = {"n_bars": 1_400, "net_sharpe": 0.812, "sharpe": 0.051, "skew": -0.4, "kurtosis": 6.1, "dsr": 0.873}
    nothing = {**dict.fromkeys(half), "n_bars": 40}
    memory = {
        "models": ["m"],
        "cutoff": "2015-12-31",
        "cutoffs_as_of": "2026-11-01",
        "sentence": f"{HOSTILE} took part.",
        "halves": {str(number): {"before": half, "after": nothing} for number in (1, 2, 3)},
    }
    report = make_report(model_memory=memory)
    shown = section(read(report.to_html()), "figures")
    assert "What the model may remember" in shown
    assert f"{HOSTILE} took part." in shown
    assert "up to 2015-12-31, contaminated net Sharpe 0.81, skew -0.40, kurtosis 6.1, DSR 0.873 on 1,400 bars" in shown
    assert "after 2015-12-31 nothing to measure on 40 bars" in shown
    whole = make_report(model_memory={**memory, "cutoff": None})
    assert "the whole sample, contaminated net Sharpe 0.81" in section(read(whole.to_html()), "figures")
    assert "after 2015-12-31" not in whole.to_html()
    assert "What the model may remember" not in section(read(make_report().to_html()), "figures")
    empty = make_report(findings=(), model_memory={**memory, "halves": {}})
    assert dict(empty.key_figures())["model memory"] == f"{HOSTILE} took part."
    read(empty.to_html())
