"""The page of a report: hides Jinja and how figures are joined with what they come from; the words are in `templates`.

Promises one HTML document that fetches nothing, runs no script, escapes whatever came from outside, and in which every
figure of a candidate links to the tool call that measured it.
"""

from __future__ import annotations

import base64
import html
import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agents.research.findings import Check, Finding

if TYPE_CHECKING:
    from agents.research.report import ResearchReport

FIGURES = (
    ("rank_ic", "rank IC", 4),
    ("rank_ic_t", "t", 1),
    ("gross_sharpe", "gross Sharpe", 2),
    ("net_sharpe", "net Sharpe", 2),
    ("turnover", "turnover", 1),
    ("break_even_bps", "break-even bps", 1),
    ("dsr", "DSR", 3),
)
"""The figures of a leaderboard: their key, their head and how many digits are shown."""

CHARTS = ("equity", "drawdown", "rank_ic_by_year", "turnover")
"""The pictures of a report, in the order of the page."""

MIN_BARS_OF_YEAR = 21
"""Years with fewer measured bars say nothing about foresight and are not drawn."""

_TERM_OF_CHECK = {"deflated_sharpe": "dsr", "break_even": "break_even_bps"}
_COUNTS = ("leak", "track_record")
_OF_ALL_TRIALS = ("spa", "pbo", "redundancy", "holdout", "holdout_already_opened")


@dataclass(frozen=True, kw_only=True)
class Card:
    """A figure of the whole run.

    Parameters
    ----------
    term : str
        Its entry in the glossary.
    check : Check, optional
        The condition it was judged by.
    anchor : str, optional
        Where on the page it comes from.
    """

    term: str
    value: str
    note: str = ""
    check: Check | None = None
    anchor: str = "#calls"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A finding as the leaderboard shows it: with the tool calls that proposed and measured it, and what stopped it."""

    finding: Finding
    proposed_at: str | None
    measured_at: str | None
    stopped_by: Check | None

    def source_of(self, check: Check) -> str | None:
        """Return where the figure of a condition comes from: the backtest, or the gate that sees all trials together."""
        return "#calls" if check.name in _OF_ALL_TRIALS else self.measured_at


def render_page(report: ResearchReport, *, base: str | None = None) -> str:
    """Render a report as one HTML document.

    Parameters
    ----------
    base : str, optional
        Address that links within the page are relative to; a page in an ``iframe srcdoc`` needs ``"about:srcdoc"``.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("agents.research")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["show"] = show_figure
    environment.filters["percent"] = _show_percent
    environment.filters["check"] = show_check
    environment.filters["half"] = show_half
    environment.filters["term"] = lambda name: _TERM_OF_CHECK.get(name, name)
    environment.filters["plain_json"] = lambda value, indent=None: json.dumps(value, indent=indent, ensure_ascii=False)
    pictures = {name: base64.b64encode(report.charts[name]).decode() for name in CHARTS if name in report.charts}
    return environment.get_template("report.html.j2").render(
        report=report,
        base=base,
        best=report.best,
        figures=FIGURES,
        cards=_build_cards(report),
        pictures=pictures,
        entries=_build_entries(report),
        answered_at={call["tool"]: anchor for anchor, call in _anchored(report) if call["error"] is None},
        command=reproduce_command(report),
        min_bars_of_year=MIN_BARS_OF_YEAR,
    )


def render_frame(report: ResearchReport, *, height: int = 760) -> str:
    """Render a report as a frame that shares neither styles nor names with the page around it.

    Parameters
    ----------
    height : int, default=760
        Height of the frame in pixels.
    """
    page = html.escape(render_page(report, base="about:srcdoc"))
    title = html.escape(f"Research report: {report.question}")
    style = f"width:100%;height:{height}px;border:1px solid #8886;border-radius:8px"
    return f'<iframe sandbox="" title="{title}" style="{style}" srcdoc="{page}"></iframe>'


def reproduce_command(report: ResearchReport) -> str | None:
    """Return the command that asks the same again; None if the run was given what the command line cannot say."""
    request, budget = report.config.get("request", {}), report.config.get("budget", {})
    if request.get("candidates") or not request.get("vectors", True):
        return None
    words = ["aqf", "plan", "--dataset", report.dataset["name"]]
    if request.get("symbols"):
        words += ["--symbols", ",".join(request["symbols"])]
    limits = {"trials": max(report.n_trials, 1), **budget}
    words += [
        word
        for name in ("trials", "steps", "seconds", "usd")
        if name in limits
        for word in (f"--{name}", f"{limits[name]:.12g}")
    ]
    words += ["--seed", str(report.config.get("seed", 0)), "--planner", report.planner]
    if report.question.startswith("-"):
        words.append("--")
    return shlex.join([*words, report.question])


def show_figure(value: float | None, digits: int) -> str:
    """Write a figure with so many digits; one that could not be measured is n/a."""
    return "n/a" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def show_check(check: Check) -> str:
    """Write the figure of a condition: a count as a whole number, anything else with three digits."""
    return show_figure(check.figure, 0 if check.name in _COUNTS else 3)


def show_half(half: Mapping[str, Any]) -> str:
    """Write what a trial earned on one side of a knowledge cut-off, with what its deflated Sharpe ratio is made of."""
    if half["net_sharpe"] is None:
        return f"nothing to measure on {half['n_bars']:,} bars"
    moments = f"skew {show_figure(half['skew'], 2)}, kurtosis {show_figure(half['kurtosis'], 1)}"
    return (
        f"net Sharpe {show_figure(half['net_sharpe'], 2)}, {moments}, DSR {show_figure(half['dsr'], 3)} "
        f"on {half['n_bars']:,} bars"
    )


def _show_percent(value: float | None, digits: int = 1) -> str:
    return "n/a" if value is None else f"{show_figure(100.0 * value, digits)}\N{NO-BREAK SPACE}%"


def _build_cards(report: ResearchReport) -> list[Card]:
    best = report.best
    checks = {} if best is None else {check.name: check for check in best.checks}
    cards = [
        Card(term="trials", value=f"{report.n_trials:,}", note=f"in this run, {report.n_trials_ledger:,} ever on this data"),
        Card(term="effective_trials", value=f"{report.n_trials_effective:,}", note="what all trials on this data amount to"),
    ]
    if best is not None:
        anchor = _measured_at(report).get(best.trial_id, "#calls")
        net_sharpe = show_figure(best.metrics.get("net_sharpe"), 2)
        cards.append(Card(term="net_sharpe", value=net_sharpe, note=f"a year, {best.name}", anchor=anchor))
    cards.append(Card(term="noise", value=show_figure(report.expected_best_noise_sharpe, 2), note="a year, by luck alone"))
    if best is not None:
        dsr = show_figure(best.metrics.get("dsr"), 3)
        cards.append(Card(term="dsr", value=dsr, note=best.name, check=checks.get("deflated_sharpe"), anchor=anchor))
    sealed = f"bars from {report.dataset['sealed_from']} on"
    return [
        *cards,
        Card(term="spa", value=show_figure(report.spa_p, 3), note="the whole search", check=checks.get("spa")),
        Card(term="pbo", value=show_figure(report.pbo, 2), note="before costs", check=checks.get("pbo")),
        Card(term="pbo_net", value=show_figure(report.pbo_net_naive, 2), note="for comparison, not judged"),
        Card(term="holdout", value="opened" if report.holdout_opened else "still sealed", note=sealed, anchor="#leaderboard"),
    ]


def _build_entries(report: ResearchReport) -> list[Entry]:
    measured_at = _measured_at(report)
    proposed_at = {
        call["result"]["feature_id"]: anchor
        for anchor, call in _anchored(report)
        if call["tool"] == "propose_new_feature" and call["error"] is None
    }
    return [
        Entry(
            finding=finding,
            proposed_at=proposed_at.get(finding.feature_id),
            measured_at=measured_at.get(finding.trial_id),
            stopped_by=next((check for check in finding.checks if not check.passed), None),
        )
        for finding in report.findings
    ]


def _measured_at(report: ResearchReport) -> dict[int, str]:
    return {call["trial_id"]: anchor for anchor, call in _anchored(report) if call["trial_id"] is not None}


def _anchored(report: ResearchReport) -> list[tuple[str, Mapping[str, Any]]]:
    return [(f"#call-{number}", call) for number, call in enumerate(report.tool_calls, start=1)]
