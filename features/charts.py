"""Pictures of a feature as PNG bytes.

Hides matplotlib: it is imported on first use, drawn on with figures of our own (no pyplot, no state shared between
threads), and needs no display. Promises pictures 900 pixels wide, colours that colour-blind readers tell apart, and that a
figure that could not be measured is left out rather than drawn as zero.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from features.explanation import Explanation
    from features.study_result import FeatureStudy

BLUE, RED, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
"""Of the palette of Okabe & Ito (2008)."""

CONFIDENCE = 1.96
"""Standard errors on either side of a mean that a 95 % band spans, by the normal distribution."""

_WIDTH, _HEIGHT, _DPI = 6.0, 3.2, 150  # small inches: the words stay legible when a page shrinks the picture to a third
_LINE, _LETTER = 0.27, 0.079  # inches: the distance of two nodes of a tree, and the width of a letter of its labels
_INK, _SOFT, _FAINT = "#333333", "#777777", "#D9D9D9"


def draw_study(study: FeatureStudy) -> dict[str, bytes]:
    """Draw every picture of a study that has something to show.

    Returns
    -------
    dict of str to bytes
        PNGs 900 pixels wide: ``tree`` if there is an expression, ``ic_decay``, ``quantiles``, ``persistence``, ``ic_by_year``,
        ``coverage``.
    """
    drawn = {
        "tree": None if study.explanation is None else draw_tree(study.explanation),
        "ic_decay": _draw_ic_decay(study),
        "quantiles": _draw_quantiles(study),
        "persistence": _draw_persistence(study),
        "ic_by_year": _draw_years(study),
        "coverage": _draw_coverage(study),
    }
    return {name: picture for name, picture in drawn.items() if picture is not None}


def draw_tree(explanation: Explanation) -> bytes:
    """Draw the tree of an expression, the root on top, one line a node, with the bars of history each needs.

    Parameters
    ----------
    explanation : Explanation
        Of `features.explanation.explain`.

    Returns
    -------
    bytes
        A PNG, 900 pixels wide; its height grows with the tree.
    """
    labels = [line.lstrip("│├└─ ") for line in explanation.tree.split("\n")]
    nodes = explanation.nodes
    title = explanation.canonical if len(explanation.canonical) <= 60 else f"{explanation.canonical[:57]}..."
    figure, axes = _build_figure(title, height=0.75 + _LINE * len(nodes))
    axes.set_axis_off()
    deepest = max(node.level for node in nodes)
    step = min(0.32, 3.0 / max(deepest, 1))
    axes.set_xlim(-0.1, _WIDTH - 0.3)
    axes.set_ylim(len(nodes) - 0.4, -1.1)
    axes.text(_WIDTH - 0.35, -0.85, "bars back", ha="right", va="center", fontsize=8, color=_SOFT)
    above: list[int] = []  # the row of the node above, by level
    for row, (label, node) in enumerate(zip(labels, nodes, strict=True)):
        del above[node.level :]
        x = step * node.level
        if above:
            axes.plot([x - step, x - step, x - 0.07], [above[-1] + 0.3, row, row], color=_SOFT, linewidth=0.9, zorder=1)
        leaf = node.size == 1
        axes.plot([x], [row], marker="s" if leaf else "o", markersize=5.5, color=GREEN if leaf else BLUE, zorder=2)
        room = int((_WIDTH - 1.0 - x) / _LETTER)
        text = label if len(label) <= room else f"{label[: room - 3]}..."
        axes.text(x + 0.13, row, text, va="center", fontsize=9, family="monospace", color=_INK, parse_math=False)
        axes.text(_WIDTH - 0.35, row, f"{node.lookback:,}", ha="right", va="center", fontsize=8, color=_SOFT)
        above.append(row)
    return _to_png(figure)


def _draw_ic_decay(study: FeatureStudy) -> bytes | None:
    rows = [row for row in study.horizons if row.rank_ic is not None]
    if not rows:
        return None
    figure, axes = _build_figure("Rank IC by horizon, with 95 % band")
    spans = np.array([row.horizon for row in rows])
    means = np.array([row.rank_ic for row in rows], dtype=np.float64)
    reach = CONFIDENCE * np.array([row.rank_ic_error if row.rank_ic_error is not None else math.nan for row in rows])
    axes.fill_between(spans, means - reach, means + reach, color=BLUE, alpha=0.15, linewidth=0)
    axes.plot(spans, means, color=BLUE, linewidth=1.4, marker="o", markersize=3.5)
    axes.axhline(0.0, color=_INK, linewidth=0.8, zorder=1)
    _label_whole(axes, spans)
    axes.set_xlabel("bars held", fontsize=9, color=_INK)
    return _to_png(figure)


def _draw_quantiles(study: FeatureStudy) -> bytes | None:
    measured = [row for row in study.horizons if any(value is not None for value in row.quantile_returns)]
    if not measured:
        return None
    shown = [measured[place] for place in sorted({0, (len(measured) - 1) // 4, len(measured) - 1})]
    figure, axes = _build_figure("Mean forward return by quantile, basis points a bar, before costs")
    places = np.arange(study.n_quantiles)
    width = 0.8 / len(shown)
    for number, (row, colour) in enumerate(zip(shown, (BLUE, RED, GREEN), strict=False)):
        heights = [math.nan if value is None else 1e4 * value for value in row.quantile_returns]
        left = places + (number - (len(shown) - 1) / 2) * width
        axes.bar(
            left, heights, width * 0.92, color=colour, label=f"{row.horizon} bar{'s' if row.horizon > 1 else ''}", zorder=2
        )
    everybody = shown[0].all_returns
    if everybody is not None:
        axes.axhline(1e4 * everybody, color=_SOFT, linewidth=1.0, linestyle="--", zorder=3, label="all symbols")
    axes.axhline(0.0, color=_INK, linewidth=0.8, zorder=3)
    names = [str(place + 1) for place in places]
    names[0], names[-1] = "1 lowest", f"{study.n_quantiles} highest"
    every = -(-study.n_quantiles // 10)
    axes.set_xticks(places[::every], names[::every])
    _add_legend(figure)
    return _to_png(figure)


def _draw_persistence(study: FeatureStudy) -> bytes | None:
    lags = [lag for lag, value in enumerate(study.autocorrelation, start=1) if value is not None]
    if not lags:
        return None
    title = "Rank autocorrelation by lag in bars"
    if study.turnover is not None:
        title += f"; turnover {study.turnover:.2f} a bar"
    figure, axes = _build_figure(title)
    heights = [value for value in study.autocorrelation if value is not None]
    axes.bar(lags, heights, 0.72, color=[BLUE if height >= 0.0 else RED for height in heights], zorder=2)
    axes.axhline(0.0, color=_INK, linewidth=0.8, zorder=3)
    axes.set_ylim(min(0.0, *heights) * 1.1, max(1.0, *heights))
    _label_whole(axes, lags)
    return _to_png(figure)


def _draw_years(study: FeatureStudy) -> bytes | None:
    if not study.years:
        return None
    figure, axes = _build_figure(f"Mean rank IC by year, {_bars(study.horizons[0].horizon)} held")
    years = [row.year for row in study.years]
    heights = [row.rank_ic for row in study.years]
    axes.bar(years, heights, 0.72, color=[BLUE if height >= 0.0 else RED for height in heights], zorder=2)
    axes.axhline(0.0, color=_INK, linewidth=0.8, zorder=3)
    every = -(-len(years) // 12)
    axes.set_xticks(years[::every], [str(year) for year in years[::every]])
    axes.set_xlim(years[0] - 0.7, years[-1] + 0.7)
    axes.margins(y=0.12)
    return _to_png(figure)


def _draw_coverage(study: FeatureStudy) -> bytes:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import PercentFormatter

    figure, axes = _build_figure(f"Share of priced symbols that have a value, {100.0 * study.coverage:.1f} % in all")
    series = study.coverage_by_bar
    axes.fill_between(series.index, series.to_numpy(), 0.0, color=BLUE, alpha=0.15, linewidth=0, step="post")
    axes.step(series.index, series.to_numpy(), color=BLUE, linewidth=1.0, where="post")
    locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.margins(x=0.01)
    axes.set_ylim(0.0, 1.04)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=0))
    return _to_png(figure)


def _bars(count: int) -> str:
    return f"{count} bar{'s' if count > 1 else ''}"


def _label_whole(axes: Axes, numbers: Sequence[int] | np.ndarray) -> None:
    """Label the first number and round ones after it, about six in all."""
    span = int(numbers[-1]) - int(numbers[0])
    step = next((step for step in (1, 2, 5, 10, 20, 50, 100) if span <= 6 * step), 250)
    ticks = [int(numbers[0]), *range((int(numbers[0]) // step + 1) * step, int(numbers[-1]) + 1, step)]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])


def _add_legend(figure: Figure) -> None:
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9, labelcolor=_INK, handlelength=1.2)


def _build_figure(title: str, *, height: float = _HEIGHT) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)  # type: ignore[union-attr, call-arg]
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11, color=_INK, pad=9, parse_math=False)
    axes.grid(axis="y", color=_FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_INK)
    axes.tick_params(which="both", length=0, labelsize=9, labelcolor=_INK)
    return figure, axes


def _to_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
