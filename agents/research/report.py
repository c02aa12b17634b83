"""The report of a run: what was asked, what was tried, what it is worth, and where every figure comes from.

A report is a value: it can be shown in a notebook, printed as Markdown, saved as a folder (`report.html` that opens without
a network, PNG charts, `report.json`) and rebuilt from what the store keeps.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.research.evaluation import load_returns
from agents.research.findings import Finding
from agents.research.gate import Judgement, record_verdicts
from agents.research.memory import remember
from agents.research.model_memory import describe, find_model_memory, split_at_cutoff
from agents.research.page import (
    CHARTS,
    FIGURES,
    MIN_BARS_OF_YEAR,
    render_frame,
    render_page,
    show_check,
    show_figure,
    show_half,
)
from agents.research.session import ResearchSession
from agents.research.state import PlannerState
from backtest.page import write_report
from core.provenance import code_version
from core.settings import CUTOFFS_AS_OF
from core.store.records import Run

if TYPE_CHECKING:
    import pandas as pd

PROMOTED, NOTHING_PROMOTED = "promoted", "nothing_promoted"
_MAX_LABEL = 32
_MARKDOWN = re.compile(r"[\\`*<|\[\]]")
LEADERBOARD_COLUMNS = (
    "name",
    "family",
    "rank_ic",
    "rank_ic_t",
    "gross_sharpe",
    "net_sharpe",
    "turnover",
    "break_even_bps",
    "dsr",
    "verdict",
    "binding_constraint",
    "expression",
    "hypothesis",
    "trial_id",
    "tool_call_id",
)


@dataclass(frozen=True, kw_only=True, repr=False)
class ResearchReport:
    """Tell the result of a run.

    Parameters
    ----------
    verdict : {"promoted", "nothing_promoted"}
    sentence : str
        The verdict in plain words.
    findings : tuple of Finding
        Every trial of the run, best deflated Sharpe ratio first, each with the conditions it was judged by.
    n_trials : int
        Trials of this run.
    n_trials_ledger, n_trials_effective : int
        Trials ever made on this data set, and as how many independent ones they count.
    tool_calls : tuple of mapping
        What the planner did, in order; findings refer to them by ``tool_call_id``.
    config : mapping
        How trials were made: costs, splits, method and seed; and the ``request`` and ``budget`` that make the run again.
    model_memory : mapping, optional
        Where a language model took part: its ``models``, their latest knowledge ``cutoff`` (None when one is not known), a
        ``sentence``, and in ``halves`` by trial what was earned ``before`` the cut-off and ``after`` it.
    charts : mapping of str to bytes
        PNG pictures of the best candidate by name: equity, drawdown, rank_ic_by_year, turnover.
    """

    run_id: str
    question: str
    dataset: Mapping[str, Any]
    planner: str
    verdict: str
    sentence: str
    findings: tuple[Finding, ...]
    recalled: Mapping[str, Any]
    vectors: Mapping[str, Any]
    stop: str
    n_trials: int
    n_trials_ledger: int
    n_trials_effective: int
    expected_best_noise_sharpe: float
    spa_p: float | None
    pbo: float | None
    pbo_net_naive: float | None
    holdout_opened: bool
    config: Mapping[str, Any]
    usage: Mapping[str, Any]
    tool_calls: tuple[Mapping[str, Any], ...]
    code_version: str
    made_at: str = ""
    model_memory: Mapping[str, Any] | None = None
    charts: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def promoted(self) -> tuple[Finding, ...]:
        """The findings that passed everything."""
        return tuple(finding for finding in self.findings if finding.promoted)

    @property
    def best(self) -> Finding | None:
        """The candidate that the charts show: the first that was promoted, else the best deflated Sharpe ratio."""
        return next(iter((*self.promoted, *self.findings)), None)

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """Every trial of the run, one a row, best deflated Sharpe ratio first."""
        import pandas as pd

        return pd.DataFrame(self.leaderboard_rows(), columns=list(LEADERBOARD_COLUMNS))

    def leaderboard_rows(self) -> list[dict[str, Any]]:
        """Return the leaderboard as plain rows."""
        calls = {call["trial_id"]: call["tool_call_id"] for call in self.tool_calls if call.get("trial_id") is not None}
        rows = []
        for finding in self.findings:
            values = {**finding.metrics, **finding.to_dict(), "tool_call_id": calls.get(finding.trial_id)}
            rows.append({column: values.get(column) for column in LEADERBOARD_COLUMNS})
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values, without its charts; each finding is an entry of ``leaderboard``."""
        values = {name: value for name, value in self.__dict__.items() if name not in {"charts", "leaderboard", "findings"}}
        rows = zip(self.leaderboard_rows(), self.findings, strict=True)
        leaderboard = [{**row, **finding.to_dict()} for row, finding in rows]
        promoted = [entry for entry in leaderboard if entry["verdict"] == PROMOTED]
        return _json_safe({**values, "promoted": promoted, "leaderboard": leaderboard})  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, folder: Path | None = None) -> ResearchReport:
        """Rebuild a report from what :meth:`to_dict` gave, with the charts of `folder` if it has any."""
        kept = {name: value for name, value in values.items() if name not in {"promoted", "leaderboard"}}
        findings = tuple(Finding.from_dict(entry) for entry in values["leaderboard"])
        pictures = {} if folder is None else {name: folder / f"{name}.png" for name in CHARTS}
        charts = {name: path.read_bytes() for name, path in pictures.items() if path.is_file()}
        return cls(**{**kept, "tool_calls": tuple(values["tool_calls"])}, findings=findings, charts=charts)

    def to_markdown(self, *, rows: int = 12) -> str:
        """Return the report as Markdown: the verdict, its figures and the head of the leaderboard."""
        lines = [f"# {_plain(self.question)}", "", f"**{_plain(self.sentence)}**", "", _plain(self.recalled["sentence"]), ""]
        lines += [f"- {label}: {_plain(value)}" for label, value in self.key_figures()]
        heads = ["feature", *(head for _, head, _ in FIGURES), "verdict"]
        lines += ["", f"| {' | '.join(heads)} |", f"|---|{'---:|' * len(FIGURES)}---|"]
        for row in self.leaderboard_rows()[:rows]:
            verdict = PROMOTED if row["binding_constraint"] is None else f"rejected: {row['binding_constraint']}"
            figures = [show_figure(row[key], digits) for key, _, digits in FIGURES]
            lines.append(f"| {' | '.join([_plain(row['name']), *figures, verdict])} |")
        if len(self.findings) > rows:
            lines += ["", f"{len(self.findings) - rows} more trials are in `report.json`."]
        lines += ["", "Caveats of the data:", "", *(f"- {_plain(caveat)}" for caveat in self.dataset["caveats"])]
        return "\n".join(lines) + "\n"

    def key_figures(self) -> list[tuple[str, str]]:
        """Return the figures all findings share, each after its label."""
        data = self.dataset
        span = f"{data['name']}, {data['first']} to {data['last']}, {len(data['symbols'])} symbols"
        counts = f"{self.n_trials} in this run, {self.n_trials_ledger} ever on this data"
        return [
            ("data", f"{span}; sealed from {data['sealed_from']}"),
            ("trials", f"{counts}, as good as {self.n_trials_effective} independent ones"),
            ("best Sharpe ratio that pure noise would show after that many", show_figure(self.expected_best_noise_sharpe, 2)),
            ("Hansen's SPA p-value", show_figure(self.spa_p, 3)),
            ("probability of backtest overfitting, before costs", show_figure(self.pbo, 2)),
            ("the same after costs (naive)", show_figure(self.pbo_net_naive, 2)),
            ("hold-out", "opened" if self.holdout_opened else "still sealed"),
            *([("drift", self.recalled["drift"]["sentence"])] if "drift" in self.recalled else []),
            *self._memory_figures(),
        ]

    def _memory_figures(self) -> list[tuple[str, str]]:
        """Return what the model may remember, and the best candidate on either side of its knowledge cut-off."""
        memory = self.model_memory
        if memory is None:
            return []
        figures = [("model memory", memory["sentence"])]
        if self.best is not None:
            halves = memory["halves"][str(self.best.trial_id)]
            label = "the whole sample, contaminated" if memory["cutoff"] is None else f"up to {memory['cutoff']}, contaminated"
            figures.append((f"{self.best.name}, {label}", show_half(halves["before"])))
            if memory["cutoff"] is not None:
                figures.append((f"{self.best.name}, after {memory['cutoff']}", show_half(halves["after"])))
        return figures

    def to_html(self) -> str:
        """Return the report as one page that needs no network: pictures are inside it."""
        return render_page(self)

    def save(self, folder: str | Path) -> Path:
        """Write `report.html`, `report.json` and the charts, and return the page's path.

        Raises
        ------
        StoreUnavailableError
            If the folder cannot be written.
        """
        return write_report(folder, "report", page=self.to_html(), values=self.to_dict(), charts=self.charts)

    def _repr_html_(self) -> str:
        return render_frame(self)

    def __repr__(self) -> str:
        return f"ResearchReport({self.run_id}, {self.verdict}, {self.n_trials} trials: {self.sentence})"


def judgement_to_dict(judgement: Judgement) -> dict[str, Any]:
    """Return a judgement as what a checkpoint may hold."""
    return _json_safe(asdict(judgement))  # type: ignore[no-any-return]


def report_folder(home: Path, run_id: object) -> Path:
    """Where the files of a run lie."""
    return home / "runs" / str(run_id)


def save_report(session: ResearchSession, state: PlannerState) -> ResearchReport:
    """Write the verdicts, the memory, the files and the row of a run; doing it twice changes nothing."""
    report = build_report(session, state)
    record_verdicts(session, report.findings)
    remember(session, report.findings)
    report.save(report_folder(session.settings.home, session.run_id))
    session.store.service.finish_run(
        session.run_id, report=report.to_dict(), usage=report.usage, finished_at=session.clock.now()
    )
    return report


def build_report(session: ResearchSession, state: PlannerState) -> ResearchReport:
    """Put together what a run found."""
    judgement = state["judgement"]
    findings = tuple(Finding.from_dict(finding) for finding in judgement["findings"])
    promoted = [finding for finding in findings if finding.promoted]
    dataset = session.dataset
    calls = tuple(_tool_call(row) for row in session.store.service.list_tool_calls(session.run_id))
    memory = _model_memory(session, findings, judgement)
    beware = [] if memory is None else [memory["sentence"]]
    usage = {"steps": state["step"], "trials": len(findings), "usd": session.store.service.llm_cost(session.run_id)}
    run: Run = session.store.service.get_run(session.run_id)
    return ResearchReport(
        run_id=str(session.run_id),
        question=session.request.question,
        dataset={
            "name": dataset.name,
            "version": dataset.version,
            "source": dataset.source,
            "symbols": list(session.panel.symbols),
            "first": f"{session.panel.index[0]:%Y-%m-%d}",
            "last": f"{session.panel.index[-1]:%Y-%m-%d}",
            "sealed_from": f"{dataset.sealed_from:%Y-%m-%d}",
            "content_sha256": dataset.content_sha256,
            "caveats": [*dataset.caveats, *beware],
        },
        planner=run.planner,
        verdict=PROMOTED if promoted else NOTHING_PROMOTED,
        sentence=" ".join([_sentence(session, findings, judgement), *(beware if promoted else [])]),
        findings=findings,
        recalled=state["recalled"],
        vectors=state["vectors"],
        stop=state["stop"],
        n_trials=len(findings),
        n_trials_ledger=judgement["n_trials_ledger"],
        n_trials_effective=judgement["n_trials_effective"],
        expected_best_noise_sharpe=judgement["expected_best_noise_sharpe"],
        spa_p=judgement["spa_p"],
        pbo=judgement["pbo"],
        pbo_net_naive=judgement["pbo_net_naive"],
        holdout_opened=judgement["holdout_opened"],
        config={
            **session.config.to_dict(),
            "splits": asdict(session.splits),
            "method": session.method,
            "seed": session.request.seed,
            "request": session.request.to_dict(),
            "budget": asdict(session.budget),
        },
        usage=usage,
        tool_calls=calls,
        code_version=code_version(),
        made_at=session.clock.now().isoformat(timespec="seconds"),
        model_memory=memory,
        charts=_draw(session, findings),
    )


def _model_memory(session: ResearchSession, findings: Sequence[Finding], judgement: Mapping[str, Any]) -> dict[str, Any] | None:
    """Split every trial of the run at the knowledge cut-off of the model that took part, if one did."""
    memory = find_model_memory(session)
    if memory is None:
        return None
    trials = {trial.trial_id: trial for trial in session.store.researcher.list_trials({"run_id": session.run_id})}
    halves = {}
    for finding in findings:
        trial = trials[finding.trial_id]
        before, after = split_at_cutoff(session, memory, trial, n_trials=judgement["n_trials_effective"])
        halves[str(trial.trial_id)] = {"before": asdict(before), "after": asdict(after)}
    n_obs = trials[findings[0].trial_id].n_obs if findings else session.panel.n_bars
    return {
        "models": list(memory.models),
        "cutoff": None if memory.cutoff is None else memory.cutoff.isoformat(),
        "cutoffs_as_of": CUTOFFS_AS_OF,
        "sentence": describe(session, memory, session.panel.index[-n_obs:]),
        "halves": halves,
    }


def _sentence(session: ResearchSession, findings: Sequence[Finding], judgement: Mapping[str, Any]) -> str:
    promoted = [finding for finding in findings if finding.promoted]
    effective = judgement["n_trials_effective"]
    if promoted:
        best = promoted[0]
        names = ", ".join(finding.name for finding in promoted)
        return (
            f"Promoted: {names}. The best has a net Sharpe ratio of {best.metrics['net_sharpe']:.2f} out of sample after costs "
            f"and, the sealed hold-out included, a deflated Sharpe ratio of {best.metrics['dsr']:.3f} against {effective} "
            "independent trials."
        )
    if not findings:
        return f"Nothing was promoted: no idea could be tried on {session.dataset.name}."
    best = findings[0]
    failed = next(check for check in best.checks if not check.passed)
    trials = "1 trial" if len(findings) == 1 else f"{len(findings)} trials"
    return (
        f"Nothing that survives was found among {trials}: the best, {best.name}, has a net Sharpe ratio of "
        f"{best.metrics['net_sharpe']:.2f} after costs and is stopped by {failed.name} "
        f"({show_check(failed)}, needed {failed.bound}), "
        f"counting all trials ever made on this data as {effective} independent ones."
    )


def _tool_call(row: Mapping[str, Any]) -> dict[str, Any]:
    result = row["result"] or {}
    return {
        "tool_call_id": row["tool_call_id"],
        "step": row["step"],
        "tool": row["tool"],
        "arguments": row["arguments"],
        "result": result,
        "error": row["error"],
        "seconds": row["seconds"],
        "trial_id": result.get("trial_id"),
    }


def _draw(session: ResearchSession, findings: Sequence[Finding]) -> dict[str, bytes]:
    """Draw the best candidate beside what doing nothing clever would have earned over the same bars."""
    if not findings:
        return {}
    import pandas as pd

    from backtest.charts import draw_drawdown, draw_equity, draw_rank_ic_by_year, draw_turnover

    best = next((finding for finding in findings if finding.promoted), findings[0])
    trial = session.store.researcher.list_trials({"trial_id": best.trial_id})[0]
    series = load_returns(session.store.artifacts, trial.returns_uri)
    index = session.panel.index[-trial.n_obs :]
    returns = np.nan_to_num(session.panel.returns()[-trial.n_obs :])
    label = best.name if len(best.name) <= _MAX_LABEL else f"{best.name[: _MAX_LABEL - 1]}…"
    equity = {
        label: pd.Series(np.cumprod(1.0 + series["net"]), index=index),
        "buy and hold": pd.Series(np.cumprod(1.0 + returns, axis=0).mean(axis=1), index=index),
        "equal weight": pd.Series(np.cumprod(1.0 + returns.mean(axis=1)), index=index),
    }
    measured = pd.Series(series["rank_ic"], index=index).groupby(index.year).agg(["count", "mean"])
    enough = measured["mean"][measured["count"] >= MIN_BARS_OF_YEAR]
    by_year = {int(year): float(mean) for year, mean in zip(enough.index, enough, strict=True)}
    pictures = {
        "drawdown": draw_drawdown(equity),
        "turnover": draw_turnover(pd.Series(series["turnover"], index=index)),
    }
    if (equity[label] > 0.0).all():  # an account that was ruined has no place on a log scale
        pictures["equity"] = draw_equity(equity, title="Growth of 1, log scale")
    if by_year:
        pictures["rank_ic_by_year"] = draw_rank_ic_by_year(by_year)
    return pictures


def _plain(text: str) -> str:
    """Write text on one line, so that Markdown shows it as it is."""
    return _MARKDOWN.sub(r"\\\g<0>", " ".join(text.split()))


def _json_safe(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_safe(item) for item in value]
    if isinstance(value, np.generic):
        return _json_safe(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
