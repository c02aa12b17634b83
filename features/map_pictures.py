"""Pictures and page of a map of windows.

Hides matplotlib and Jinja, imported on first use. Promises one HTML document that fetches nothing, runs no script and escapes
whatever came from outside.
"""

from __future__ import annotations

import base64
import io
import math
from typing import TYPE_CHECKING

import numpy as np

from features.charts import BLUE, GREEN, PURPLE, RED
from features.embedding_map import EmbeddingMap
from features.windows import REGIMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = dict(zip(REGIMES, (BLUE, GREEN, RED, PURPLE, "#999999"), strict=True))

_INK, _SOFT, _FAINT = "#333333", "#777777", "#D9D9D9"
_DPI, _ACROSS = 150, 3
_MOST_POINTS = 20_000


def draw_map(shown: EmbeddingMap) -> dict[str, bytes]:
    """Draw the map by regime and by date, and the chosen window beside its neighbours.

    Returns
    -------
    dict of str to bytes
        PNGs: ``regime``, ``date``, ``neighbours``.
    """
    return {"regime": _draw_regimes(shown), "date": _draw_dates(shown), "neighbours": _draw_neighbours(shown)}


def render_map(shown: EmbeddingMap, pictures: dict[str, bytes]) -> str:
    """Render a map as one HTML document with its pictures inside."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("features")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    known = shown.followed[np.isfinite(shown.followed)]
    return environment.get_template("map.html.j2").render(
        map=shown.to_dict(),
        window=shown.window,
        mean_followed=float(known.mean()) if len(known) else None,
        pictures={name: base64.b64encode(picture).decode() for name, picture in pictures.items()},
    )


def _draw_regimes(shown: EmbeddingMap) -> bytes:
    figure, axes = _build_figure(shown, "by regime at the end of the window")
    drawn = _drawn(shown)
    for regime in REGIMES:
        part = drawn[shown.regime[drawn] == regime]
        if len(part):
            axes.scatter(
                shown.points[part, 0],
                shown.points[part, 1],
                s=5,
                color=COLOURS[regime],
                alpha=0.55,
                linewidths=0,
                label=regime.replace("_", ", "),
            )
    _mark(axes, shown)
    legend = figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9, labelcolor=_INK, handletextpad=0.3)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)
            if hasattr(handle, "set_sizes") and handle.get_label() in {regime.replace("_", ", ") for regime in REGIMES}:
                handle.set_sizes([26.0])
    return _to_png(figure)


def _draw_dates(shown: EmbeddingMap) -> bytes:
    figure, axes = _build_figure(shown, "by the year in which the window ends")
    drawn = _drawn(shown)
    drawn = drawn[np.argsort(np.random.default_rng(0).random(len(drawn)))]  # or the latest would cover the others
    times = shown.end_ts[drawn]
    years = np.asarray(times.year + (times.day_of_year - 1) / 366.0)
    points = axes.scatter(shown.points[drawn, 0], shown.points[drawn, 1], s=5, c=years, cmap="viridis", alpha=0.7, linewidths=0)
    _mark(axes, shown)
    bar = figure.colorbar(points, ax=axes, fraction=0.04, pad=0.02, format="%d")
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(length=0, labelsize=9, labelcolor=_INK)
    bar.solids.set_alpha(1.0)  # type: ignore[union-attr]
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9, labelcolor=_INK, handletextpad=0.3)
    return _to_png(figure)


def _draw_neighbours(shown: EmbeddingMap) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = len(shown.paths)
    rows = math.ceil(n / _ACROSS)
    figure = Figure(figsize=(9.0, 0.35 + 2.0 * rows), dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, _ACROSS, sharex=True, sharey=True, squeeze=False)
    bars = np.arange(shown.paths.shape[1]) - shown.window + 1
    inside = bars <= 0
    for number, axes in enumerate(grid.flat):
        if number >= n:
            axes.set_axis_off()
            continue
        place = shown.chosen if number == 0 else int(shown.neighbours[number - 1])
        title = f"{shown.symbol[place]}, to {shown.end_ts[place]:%Y-%m-%d}"
        title = f"chosen: {title}" if number == 0 else f"{title}, cosine {shown.similarity[number - 1]:.2f}"
        axes.axvline(0, color=_FAINT, linewidth=1.0, zorder=0)
        axes.axhline(100.0, color=_FAINT, linewidth=0.8, zorder=0)
        axes.plot(bars[inside], shown.paths[number, inside], color=_INK if number == 0 else BLUE, linewidth=1.2)
        axes.plot(bars[~inside | (bars == 0)], shown.paths[number, ~inside | (bars == 0)], color=RED, linewidth=1.4)
        weight = "bold" if number == 0 else "normal"
        axes.set_title(title, loc="left", fontsize=9, color=_INK, fontweight=weight, parse_math=False)
        axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
        axes.set_xticks(range(-100 * (shown.window // 100), 1, 50))
        axes.tick_params(length=0, labelsize=8, labelcolor=_SOFT)
    figure.supxlabel(f"bars from the window's last; red: the {shown.horizon} bars of the outcome", fontsize=9, color=_INK)
    return _to_png(figure)


def _drawn(shown: EmbeddingMap) -> np.ndarray:
    n = len(shown.points)
    return np.arange(n) if n <= _MOST_POINTS else np.sort(np.random.default_rng(0).choice(n, _MOST_POINTS, replace=False))


def _mark(axes: Axes, shown: EmbeddingMap) -> None:
    if len(shown.neighbours):
        near = shown.points[shown.neighbours]
        axes.scatter(near[:, 0], near[:, 1], s=46, facecolors="none", edgecolors=_INK, linewidths=1.3, label="neighbours")
    axes.scatter(
        shown.points[shown.chosen, 0],
        shown.points[shown.chosen, 1],
        s=150,
        marker="*",
        color="#F0E442",
        edgecolors=_INK,
        linewidths=1.0,
        label="chosen",
        zorder=5,
    )


def _build_figure(shown: EmbeddingMap, what: str) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.2), dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(f"{len(shown.points):,} windows {what}", loc="left", fontsize=11, color=_INK, pad=8, parse_math=False)
    first, second = (f"{100.0 * share:.0f} %" for share in shown.explained)
    axes.set_xlabel(f"first component, {first} of the variance", fontsize=9, color=_INK)
    axes.set_ylabel(f"second component, {second}", fontsize=9, color=_INK)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.grid(color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, labelsize=8, labelcolor=_SOFT)
    return figure, axes


def _to_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
