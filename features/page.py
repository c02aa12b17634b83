"""The page of a study: hides Jinja; the words are in `templates`.

Promises one HTML document that fetches nothing, runs no script, escapes whatever came from outside, and can be read on a
phone.
"""

from __future__ import annotations

import base64
import html
import math
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from features.study_result import FeatureStudy

MIN_BARS_OF_YEAR = 21
"""Years with fewer measured bars are marked: they say next to nothing."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """A figure at the top of the page."""

    name: str
    value: str
    note: str


def render_page(study: FeatureStudy, *, base: str | None = None) -> str:
    """Render a study as one HTML document.

    Parameters
    ----------
    study : FeatureStudy
    base : str, optional
        Address that links within the page are relative to; a page in an ``iframe srcdoc`` needs ``"about:srcdoc"``.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("features")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["show"] = show_figure
    environment.filters["significant"] = show_significant
    return environment.get_template("study.html.j2").render(
        study=study,
        base=base,
        cards=_build_cards(study),
        pictures={name: base64.b64encode(picture).decode() for name, picture in study.pictures.items()},
        command=reproduce_command(study),
        min_bars_of_year=MIN_BARS_OF_YEAR,
    )


def render_frame(study: FeatureStudy, *, height: int = 760) -> str:
    """Render a study as a frame that shares neither styles nor names with the page around it.

    Parameters
    ----------
    study : FeatureStudy
    height : int, default=760
        Height of the frame in pixels.
    """
    page = html.escape(render_page(study, base="about:srcdoc"))
    title = html.escape(f"Feature study: {study.title}")
    style = f"width:100%;height:{height}px;border:1px solid #8886;border-radius:8px"
    return f'<iframe sandbox="" title="{title}" style="{style}" srcdoc="{page}"></iframe>'


def reproduce_command(study: FeatureStudy) -> str | None:
    """Return the command that measures the same again; None for values that no expression gave."""
    if study.expression is None or not study.dataset:
        return None
    return shlex.join(["aqf", "features", "show", "--dataset", study.dataset, "--", study.expression.canonical])


def show_figure(value: float | None, digits: int, *, sign: bool = False) -> str:
    """Write a figure with so many digits; one that could not be measured is n/a."""
    if value is None or not math.isfinite(value):
        return "n/a"
    return f"{value:+,.{digits}f}" if sign else f"{value:,.{digits}f}"


def show_significant(value: float | None) -> str:
    """Write a figure of any size with four significant digits."""
    return "n/a" if value is None else f"{value:,.4g}"


def _build_cards(study: FeatureStudy) -> list[Card]:
    shown = [study.horizons[0]] if len(study.horizons) == 1 else [study.horizons[0], study.horizons[-1]]
    cards = [
        Card(
            name=f"Rank IC, {row.horizon} bar{'s' if row.horizon > 1 else ''} held",
            value=show_figure(row.rank_ic, 4, sign=True),
            note=f"t = {show_figure(row.rank_ic_t, 1)} over {row.n_bars:,} bars",
        )
        for row in shown
    ]
    cards.append(
        Card(
            name="Rank autocorrelation",
            value=show_figure(study.autocorrelation[0], 2),
            note=f"at one bar; {show_figure(study.autocorrelation[-1], 2)} at {len(study.autocorrelation)}",
        )
    )
    whole = "2 replaces every position" if study.direction == "across symbols" else "of a position from -1 to 1"
    cards.append(Card(name="Turnover a bar", value=show_figure(study.turnover, 2), note=whole))
    cards.append(
        Card(name="Coverage", value=f"{show_figure(100.0 * study.coverage, 1)} %", note="of the symbols and bars with a price")
    )
    if study.expression is not None:
        note = f"bars of history; {study.expression.size} nodes"
        cards.append(Card(name="Lookback", value=f"{study.expression.lookback:,}", note=note))
    return cards
