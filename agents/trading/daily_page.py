"""The page of the daily report: hides Jinja; the words are in `templates`, the style is that of the backtest's report.

Promises HTML that fetches nothing, runs no script and escapes whatever came from outside: headlines and reasons above all.
"""

from __future__ import annotations

import base64
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

    from agents.trading.daily_report import DailyReport


def render_page(report: DailyReport) -> str:
    """Render a report as one HTML document."""
    pictures = {name: base64.b64encode(picture).decode() for name, picture in report.charts.items()}
    return _environment().get_template("daily_report.html.j2").render(report=report, pictures=pictures)


def _environment() -> Environment:
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    loader = ChoiceLoader([PackageLoader("agents.trading"), PackageLoader("backtest")])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = _show_percent
    environment.filters["money"] = lambda value: f"{value:,.2f}"
    environment.filters["moment"] = _show_moment
    environment.filters["words"] = lambda value: str(value).replace("_", " ").replace("|", " · ")
    return environment


def _show_percent(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{round(100.0 * value, digits) + 0.0:,.{digits}f}"  # adding zero takes the sign off it


def _show_moment(when: datetime | None) -> str:
    return "" if when is None else f"{when:%Y-%m-%d %H:%M}"
