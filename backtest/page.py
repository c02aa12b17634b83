"""The page of a backtest's report: hides Jinja; the words are in `templates`.

Promises HTML that fetches nothing, runs no script, escapes whatever came from outside, and in which every figure says what
it means: on hover, and where there is no hover by opening it with a tap or the keyboard.
"""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backtest.definitions import CARDS, DEFINITIONS, GROUPS
from core.errors import StoreUnavailableError

if TYPE_CHECKING:
    from jinja2 import Environment

    from backtest.engine import BacktestResult
    from backtest.report import BacktestReport

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SUMMARY_CARDS = ("total_return", "cagr", "volatility", "sharpe", "max_drawdown", "turnover")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure as the page shows it.

    Parameters
    ----------
    missing : str
        Why it has no value; empty when it has one.
    """

    key: str
    label: str
    value: str
    text: str
    missing: str


def build_figure(key: str, value: float | int | None) -> Figure:
    """Join a value with its definition."""
    definition = DEFINITIONS[key]
    missing = definition.undefined if value is None else ""
    return Figure(key=key, label=definition.label, value=definition.show(value), text=definition.text, missing=missing)


def render_page(report: BacktestReport, *, base: str | None = None) -> str:
    """Render a report as one HTML document.

    Parameters
    ----------
    base : str, optional
        Address that links within the page are relative to; a page in an ``iframe srcdoc`` needs ``"about:srcdoc"``.
    """
    groups = [(name, [build_figure(key, report.figures[key]) for key in keys]) for name, keys in GROUPS]
    config = list(_flatten(report.result.config.to_dict()).items())
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            base=base,
            result=report.result,
            cards=[build_figure(key, report.figures[key]) for key in CARDS],
            groups=[(name, figures) for name, figures in groups if any(not figure.missing for figure in figures)],
            left_out=[(name, figures[0].missing) for name, figures in groups if all(figure.missing for figure in figures)],
            pictures={name: base64.b64encode(picture).decode() for name, picture in report.charts.items()},
            config=config,
            months=_MONTHS,
        )
    )


def write_report(folder: str | Path, name: str, *, page: str, values: Mapping[str, Any], charts: Mapping[str, bytes]) -> Path:
    """Write a page, its figures as JSON and its pictures, each whole or not at all, and return the page's path.

    Raises
    ------
    StoreUnavailableError
        If the folder cannot be written.
    """
    folder = Path(folder)
    text = json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    files = {f"{chart}.png": picture for chart, picture in charts.items()}
    files |= {f"{name}.json": text.encode(), f"{name}.html": page.encode()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            partial = folder / f".{file}.part"
            partial.write_bytes(content)
            partial.replace(folder / file)
    except OSError as error:
        raise StoreUnavailableError(
            f"the report cannot be written to {folder} ({error.strerror}): choose another folder or free space."
        ) from error
    return folder / f"{name}.html"


def render_frame(report: BacktestReport, *, height: int = 760) -> str:
    """Render a report as a frame that shares neither styles nor names with the page around it."""
    page = html.escape(render_page(report, base="about:srcdoc"))
    title = html.escape(f"Backtest report: {report.title}")
    style = f"width:100%;height:{height}px;border:1px solid #8886;border-radius:8px"
    return f'<iframe sandbox="" title="{title}" style="{style}" srcdoc="{page}"></iframe>'


def render_summary(result: BacktestResult) -> str:
    """Render what a notebook shows of a result: its first figures, its growth, and what it is no evidence of."""
    import pandas as pd

    from backtest.charts import draw_equity, needs_log_scale

    picture = None
    if result.exposure.any() and result.equity[0] > 0.0:
        equity = {"strategy": pd.Series(result.equity, result.index)}
        picture = base64.b64encode(draw_equity(equity, log=needs_log_scale(equity))).decode()
    figures = [build_figure(key, result.metrics[key]) for key in _SUMMARY_CARDS]
    return _environment().get_template("summary.html.j2").render(result=result, figures=figures, picture=picture)


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("backtest")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = _show_percent
    environment.filters["day"] = lambda when, absent="": absent if when is None else f"{when:%Y-%m-%d}"
    return environment


def _show_percent(value: float, digits: int = 1) -> str:
    if value is None or math.isnan(value):
        return ""
    return f"{round(100.0 * value, digits) + 0.0:,.{digits}f}"  # adding zero takes the sign off it


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = f"{value:,}" if type(value) in (int, float) else str(value)
    return flat
