"""The report of one backtest: every figure with its meaning, the pictures, the settings, and what it is evidence of.

A report is a value: it shows itself in a notebook and saves itself as a folder (`report.html` that opens without a network,
`report.json` that follows `report.schema.json`, and each picture as a PNG). Promises that a figure without a value says why,
that nothing in it is infinite, and that a Sharpe ratio never stands there without the number of trials behind it, or without
the words that nobody counted them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.definitions import DEFINITIONS, Definition
from backtest.engine import BacktestResult
from backtest.integrity import deflated_sharpe_ratio, deflation_threshold, probabilistic_sharpe_ratio
from backtest.metrics import (
    Drawdown,
    HorizonIC,
    Metrics,
    QuantileReturns,
    align_benchmark,
    compute_forward_returns,
    compute_metrics,
    compute_monthly_returns,
    compute_quantile_returns,
    compute_rank_ic_decay,
    list_drawdowns,
    summarize_trades,
)
from backtest.page import render_frame, render_page, write_report
from backtest.pictures import draw_report
from backtest.trades import find_bars, list_trades
from core.errors import DataError, ShapeError
from core.market.panel import Panel
from core.provenance import code_version

FloatArray = npt.NDArray[np.float64]

MIN_BARS = 21
MIN_DSR = 0.95
SCHEMA_VERSION = 1
DEEPEST = 10
_N_QUANTILES, _FEW_ASSETS = 5, 10
_NEVER_TRADED = "the strategy never traded: nothing was held at any bar, so that there is nothing to judge"
_NOT_COUNTED = "single run, trials not counted: not evidence of an edge"


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class BacktestReport:
    """Tell the result of one backtest.

    Parameters
    ----------
    title : str
    result : BacktestResult
    figures : mapping of str to float, int or None
        Value by key of `backtest.definitions.DEFINITIONS`; None where there is none.
    evidence : str
        What the Sharpe ratio is evidence of, in one sentence.
    trials_source : str or None
        Who counted the trials.
    benchmark : str or None
        Name of the benchmark.
    drawdowns : tuple of Drawdown
        The ten deepest.
    monthly_returns : DataFrame
        As `backtest.metrics.compute_monthly_returns`.
    rank_ic_decay : tuple of HorizonIC
    quantiles : QuantileReturns or None
    trades : DataFrame or None
        As `backtest.trades.list_trades` gives it, or as it was given.
    notes : tuple of str
        What a reader must know before any figure.
    caveats : tuple of str
        What a reader must know of the data and the method, told by the caller.
    charts : mapping of str to bytes
        PNG pictures by name.
    """

    title: str
    result: BacktestResult
    figures: Mapping[str, float | int | None]
    evidence: str
    drawdowns: tuple[Drawdown, ...]
    monthly_returns: pd.DataFrame
    trials_source: str | None = None
    benchmark: str | None = None
    rank_ic_decay: tuple[HorizonIC, ...] = ()
    quantiles: QuantileReturns | None = None
    trades: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
    charts: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def traded(self) -> bool:
        """Whether anything was ever held."""
        return _traded(self.result)

    @property
    def passes_deflation(self) -> bool:
        """Whether the deflated Sharpe ratio is that of a finding: one check of several, and none that makes one alone."""
        dsr = self.figures["dsr"]
        return dsr is not None and dsr >= MIN_DSR

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values without its pictures, as `report.schema.json` describes them."""
        result = self.result
        months = self.monthly_returns
        return {
            "schema_version": SCHEMA_VERSION,
            "title": self.title,
            "code_version": code_version(),
            "first_bar": result.index[0].isoformat(),
            "last_bar": result.index[-1].isoformat(),
            "n_bars": result.n_bars,
            "traded": self.traded,
            "evidence": self.evidence,
            "trials_source": self.trials_source,
            "benchmark": self.benchmark,
            "figures": {key: _figure_to_dict(DEFINITIONS[key], value) for key, value in self.figures.items()},
            "config": result.config.to_dict(),
            "drawdowns": [
                {**asdict(one), **{key: _iso(getattr(one, key)) for key in ("peak", "trough", "recovery")}}
                for one in self.drawdowns
            ],
            "monthly_returns": [
                {
                    "year": year,
                    "months": [_or_none(row[month]) for month in range(1, 13)],
                    "whole": _or_none(row["year"]),
                }
                for year, (_, row) in zip(months.index.tolist(), months.iterrows(), strict=True)
            ],
            "rank_ic_decay": [_finite(asdict(one)) for one in self.rank_ic_decay],
            "quantiles": None if self.quantiles is None else _finite(asdict(self.quantiles)),
            "notes": list(self.notes),
            "caveats": list(self.caveats),
            "charts": [f"{name}.png" for name in self.charts],
        }

    def to_html(self) -> str:
        """Return the report as one HTML document that fetches nothing and runs no script."""
        return render_page(self)

    def save(self, folder: str | Path) -> Path:
        """Write `report.html`, `report.json` and the pictures, and return the page's path.

        Raises
        ------
        StoreUnavailableError
            If the folder cannot be written.
        """
        return write_report(folder, "report", page=self.to_html(), values=self.to_dict(), charts=self.charts)

    def _repr_html_(self) -> str:
        return render_frame(self)

    def __repr__(self) -> str:
        return f"BacktestReport({self.title!r}, {self.result!r}: {self.evidence})"


def build_report(
    result: BacktestResult,
    *,
    benchmark: pd.Series | None = None,
    panel: Panel | None = None,
    scores: npt.ArrayLike | None = None,
    trades: pd.DataFrame | None = None,
    n_trials: int | None = None,
    trials_source: str | None = None,
    capacity: float | None = None,
    notes: tuple[str, ...] = (),
    caveats: tuple[str, ...] = (),
    title: str = "Backtest",
) -> BacktestReport:
    """Build the report of one backtest.

    Parameters
    ----------
    result : BacktestResult
    benchmark : Series, optional
        Simple returns per bar, indexed by the closes of the bars; its name is shown. At least half of the bars must be known.
    panel : Panel, optional
        That was backtested. With it the trades of a run that kept its positions are listed, and scores can be judged.
    scores : array_like of shape of the panel, optional
        Known at the close of their bar; needs `panel`. Only the bars of the result are judged.
    trades : DataFrame, optional
        A list of trades that is there already, with at least `pnl`, `return`, `entry_bar`, `exit_bar` and `exit_time`.
    n_trials : int, optional
        Effective number of independent trials among which this one was found, itself included. When None the report says
        that nobody counted them.
    trials_source : str, optional
        Who counted the trials, shown beside; "counted by the caller" when None.
    capacity : float, optional
        Capital that the strategy carries, from a model of impact and volume.
    notes : tuple of str, optional
        What a reader must know before any figure; shown first.
    caveats : tuple of str, optional
        What a reader must know of the data and the method.
    title : str, default="Backtest"

    Returns
    -------
    BacktestReport
        Of a strategy that never held anything a report without ratios and pictures that says so.

    Raises
    ------
    DataError
        If there are fewer than 21 bars, the benchmark does not cover them, or the panel does not hold them.
    ShapeError
        If `scores` do not have the shape of the panel.
    ValueError
        If `n_trials` is below 1.
    """
    if result.n_bars < MIN_BARS:
        raise DataError(
            f"a report needs at least {MIN_BARS} bars to say anything, the result has {result.n_bars}; "
            "backtest a longer history, or read `result.metrics`."
        )
    if scores is not None and panel is None:
        raise DataError("`scores` can only be judged with the panel they are about; pass `panel` too.")
    known = None if benchmark is None else align_benchmark(benchmark, result.index)
    name = None if benchmark is None else str(benchmark.name if benchmark.name is not None else "benchmark")
    figures: Metrics = dict.fromkeys(DEFINITIONS)
    figures |= {key: value for key, value in result.metrics.items() if key in DEFINITIONS}
    figures["capacity"] = _or_none(capacity)
    if known is not None:
        figures |= _relation(result, known)
    if panel is not None and trades is None and result.positions is not None:
        trades = list_trades(result, panel)
    if trades is not None:
        figures |= _trade_figures(trades)
    decay: tuple[HorizonIC, ...] = ()
    quantiles = None
    if panel is not None and scores is not None:
        decay, quantiles = _judge_scores(result, panel, scores)
        figures |= {
            "rank_ic": _or_none(decay[0].mean),
            "rank_ic_t": _or_none(decay[0].t),
            "quantile_spread": _or_none(1e4 * quantiles.spread),
            "quantile_spread_t": _or_none(quantiles.spread_t),
        }
    figures |= _evidence_figures(result, n_trials)
    source = None if n_trials is None else trials_source or "counted by the caller"
    return BacktestReport(
        title=title,
        result=result,
        figures=figures,
        evidence=_evidence(figures, source) if _traded(result) else _NEVER_TRADED,
        trials_source=source,
        benchmark=name,
        drawdowns=tuple(list_drawdowns(result.net_returns, result.index, count=DEEPEST)),
        monthly_returns=compute_monthly_returns(result.net_returns, result.index),
        rank_ic_decay=decay,
        quantiles=quantiles,
        trades=trades,
        notes=(*notes, *_find_notes(result, known)),
        caveats=caveats,
        charts=draw_report(result, known, name, decay, quantiles, trades) if _traded(result) else {},
    )


def load_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) that every `report.json` follows."""
    text = files("backtest").joinpath("report.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def _traded(result: BacktestResult) -> bool:
    return bool(result.exposure.any() or result.turnover.any())


def _relation(result: BacktestResult, known: pd.Series) -> Metrics:
    rows = result.index.get_indexer(known.index)
    market = known.to_numpy(dtype=np.float64)
    found = compute_metrics(result.net_returns[rows], benchmark_returns=market, periods_per_year=result.config.periods_per_year)
    keys = ("alpha", "alpha_t", "beta", "beta_t", "benchmark_correlation", "tracking_error", "information_ratio")
    return {key: found[key] for key in keys}


def _trade_figures(trades: pd.DataFrame) -> Metrics:
    values = asdict(summarize_trades(trades))
    values["trade_win_rate"] = values.pop("win_rate")
    values["trade_profit_factor"] = values.pop("profit_factor")
    return {key: _or_none(value) for key, value in values.items()}


def _judge_scores(result: BacktestResult, panel: Panel, scores: npt.ArrayLike) -> tuple[tuple[HorizonIC, ...], QuantileReturns]:
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != panel.shape:
        raise ShapeError(f"`scores` must have the panel's shape (n_bars, n_assets) = {panel.shape}, was {values.shape}.")
    rows = find_bars(result, panel)
    own, close = values[rows], panel.close[rows]
    n_quantiles = _N_QUANTILES if panel.n_assets >= _FEW_ASSETS else 2
    decay = compute_rank_ic_decay(own, close)
    return decay, compute_quantile_returns(own, compute_forward_returns(close), n_quantiles=n_quantiles)


def _evidence_figures(result: BacktestResult, n_trials: int | None) -> Metrics:
    if n_trials is not None and n_trials < 1:
        raise ValueError(f"`n_trials` must be at least 1, this run counts itself, was {n_trials}.")
    metrics, n_obs = result.metrics, result.n_bars
    sharpe, skew, kurt = metrics["sharpe_per_period"], metrics["skew"], metrics["kurtosis"]
    found: Metrics = {"n_tried": n_trials}
    if n_trials is not None:
        threshold = deflation_threshold(n_obs=n_obs, n_trials=n_trials)
        found["noise_sharpe"] = threshold * math.sqrt(result.config.periods_per_year)
    if sharpe is not None and skew is not None and kurt is not None:
        found["psr"] = probabilistic_sharpe_ratio(sharpe=sharpe, n_obs=n_obs, skew=skew, kurtosis=kurt)
        if n_trials is not None:
            found["dsr"] = deflated_sharpe_ratio(sharpe=sharpe, n_obs=n_obs, skew=skew, kurtosis=kurt, n_trials=n_trials)
    return found


def _evidence(figures: Metrics, source: str | None) -> str:
    if source is None:
        return _NOT_COUNTED
    tried, dsr, noise = figures["n_tried"], figures["dsr"], figures["noise_sharpe"]
    trials = f"{tried:,} independent trial{'s' if tried != 1 else ''} ({source})"
    if dsr is None:
        return f"found among {trials}; without a Sharpe ratio there is nothing to deflate"
    needed = f"the {100.0 * MIN_DSR:.0f} % that a finding needs"
    verdict = f"above {needed}, among other things" if dsr >= MIN_DSR else f"below {needed}"
    return (
        f"deflated Sharpe ratio {100.0 * dsr:.1f} %: found among {trials}, the best of which would show {noise:.2f} a year "
        f"by luck alone; {verdict}"
    )


def _find_notes(result: BacktestResult, known: pd.Series | None) -> tuple[str, ...]:
    periods_per_year = result.config.periods_per_year
    notes = []
    ruined = np.flatnonzero(result.equity <= 0.0)
    if len(ruined):
        notes.append(f"The account was worth nothing from {result.index[ruined[0]]:%Y-%m-%d} on and was closed.")
    if result.n_bars < periods_per_year:
        notes.append(
            f"{result.n_bars} bars are less than a year: every yearly figure is a projection, and the Sharpe ratio has a "
            f"standard error of at least {math.sqrt(periods_per_year / result.n_bars):.1f}."
        )
    if known is not None and len(known) < result.n_bars - 1:  # the first bar of a benchmark has no return by nature
        notes.append(f"The benchmark is known at {len(known):,} of {result.n_bars:,} bars; it is compared over these.")
    return tuple(notes)


def _figure_to_dict(definition: Definition, value: float | int | None) -> dict[str, Any]:
    return {
        "label": definition.label,
        "unit": definition.unit,
        "value": value,
        "definition": definition.text,
        "reason": definition.undefined if value is None else None,
    }


def _or_none(value: float | int | None) -> float | int | None:
    return None if value is None or not math.isfinite(value) else value


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    cleaned = {}
    for key, value in values.items():
        cleaned[key] = [_or_none(one) for one in value] if isinstance(value, tuple) else _or_none(value)
    return cleaned


def _iso(when: pd.Timestamp | None) -> str | None:
    return None if when is None else when.isoformat()
