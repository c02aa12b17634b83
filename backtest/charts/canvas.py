"""The paper that every picture is drawn on.

Hides matplotlib: it is imported on first use, drawn on with figures of our own (no pyplot, no state shared between
threads), and needs no display.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe & Ito (2008), the order changed so that the first lines differ most."""

INK, FAINT = "#333333", "#D9D9D9"
HEIGHT = 3.2
_WIDTH, _DPI = 6.0, 150  # small inches: the words stay legible when a page shrinks the picture to a third


def build_figure(title: str, *, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """Build an empty picture of the house style, `height` inches high."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)  # type: ignore[union-attr, call-arg]
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11, color=INK, pad=9)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(INK)
    axes.tick_params(which="both", length=0, labelsize=9, labelcolor=INK)
    axes.ticklabel_format(useOffset=False)  # nobody adds 1e-5 and 0.9999 in their head
    return figure, axes


def label_dates(axes: Axes) -> None:
    """Put at most eight labels below the bars: years, or months with the year beside them."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.margins(x=0.01)


def to_png(figure: Figure) -> bytes:
    """Return the picture as a PNG; equal pictures are equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
