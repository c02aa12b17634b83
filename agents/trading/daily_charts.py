"""Pictures of the daily report that a backtest has none of: where signals ended, what hit rates and expectations are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agents.trading.expectations import Comparison
from backtest.charts.canvas import FAINT, INK, PALETTE, build_figure, to_png
from core.errors import DataError

_ROW = 0.24
_HEAD = 1.05
_MOST = 15


@dataclass(frozen=True, kw_only=True)
class RatePoint:
    """A hit rate as it is drawn.

    Parameters
    ----------
    label : str
    measured : float
        Share of hits, as a fraction.
    shrunk : float
        Probability that is used.
    n : int
        Closed trades.
    """

    label: str
    measured: float
    shrunk: float
    n: int


def draw_endings(counts: Mapping[str, int], *, title: str = "Where signals ended, and what bound") -> bytes:
    """Draw how many signals ended where, the most frequent first.

    Parameters
    ----------
    counts : mapping of str to int
        Signals by what is written beside the bar; more than fifteen are cut.

    Returns
    -------
    bytes
        A PNG, 900 pixels wide, the higher the more bars there are.

    Raises
    ------
    DataError
        If there is nothing to draw.
    """
    if not counts:
        raise DataError("there is nothing to draw: no signal was decided.")
    shown = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MOST]
    figure, axes = build_figure(title, height=_HEAD + _ROW * len(shown))
    places = range(len(shown))
    colours = [PALETTE[0] if label.startswith("ordered") else PALETTE[1] for label, _ in shown]
    bars = axes.barh(places, [n for _, n in shown], height=0.66, color=colours, zorder=2)
    axes.bar_label(bars, labels=[f"{n:,}" for _, n in shown], fontsize=8, color=INK, padding=3)
    axes.set_yticks(places, [label for label, _ in shown])
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.spines[["bottom"]].set_visible(False)
    return to_png(figure)


def draw_hit_rates(points: Sequence[RatePoint], *, title: str = "Hit rates, measured and used") -> bytes:
    """Draw the measured hit rate of each context, and where shrinkage puts it.

    Parameters
    ----------
    points : sequence of RatePoint
        The first fifteen are drawn.

    Returns
    -------
    bytes
        A PNG, 900 pixels wide, the higher the more contexts there are.

    Raises
    ------
    DataError
        If there is nothing to draw.
    """
    from matplotlib.ticker import PercentFormatter

    if not points:
        raise DataError("there is nothing to draw: no context has a closed trade.")
    shown = list(points)[:_MOST]
    figure, axes = build_figure(title, height=_HEAD + 0.55 + _ROW * len(shown))
    places = list(range(len(shown)))
    for place, point in zip(places, shown, strict=True):
        axes.plot([point.measured, point.shrunk], [place, place], color=FAINT, linewidth=2.5, zorder=1)
    # The ring is the larger one: it shows around the dot where both are at the same place.
    axes.scatter([p.measured for p in shown], places, s=62, facecolor="white", edgecolor=PALETTE[1], zorder=2, label="measured")
    axes.scatter([p.shrunk for p in shown], places, s=22, color=PALETTE[0], zorder=3, label="shrunk towards one half")
    axes.axvline(0.5, color=INK, linewidth=0.8, zorder=1)
    axes.set_yticks(places, [f"{point.label}  (n={point.n})" for point in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(-0.03, 1.03)
    axes.grid(visible=False)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=0))
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9, labelcolor=INK)
    return to_png(figure)


def draw_expectations(comparisons: Sequence[Comparison], *, title: str = "Return of a trade, expected and realised") -> bytes:
    """Draw the mean net return of each strategy's trades with its interval of 95 %, and what was expected.

    Parameters
    ----------
    comparisons : sequence of Comparison
        The first fifteen are drawn.

    Returns
    -------
    bytes
        A PNG, 900 pixels wide, the higher the more strategies there are.

    Raises
    ------
    DataError
        If there is nothing to draw.
    """
    from matplotlib.ticker import PercentFormatter

    if not comparisons:
        raise DataError("there is nothing to draw: nothing was expected of a closed trade.")
    shown = list(comparisons)[:_MOST]
    figure, axes = build_figure(title, height=_HEAD + 0.55 + _ROW * len(shown))
    places = list(range(len(shown)))
    for place, one in zip(places, shown, strict=True):
        if one.low is not None and one.high is not None:
            axes.plot([one.low, one.high], [place, place], color=PALETTE[0], linewidth=2.0, zorder=2)
    axes.scatter(
        [one.realised for one in shown], places, s=30, color=PALETTE[0], zorder=3, label="realised, with 95 % interval"
    )
    axes.scatter(
        [one.expected for one in shown], places, s=130, marker="|", linewidth=2.2, color=PALETTE[1], zorder=4, label="expected"
    )
    axes.axvline(0.0, color=INK, linewidth=0.8, zorder=1)
    axes.set_yticks(places, [f"{one.strategy_id.replace('_', ' ')}  (n={one.n})" for one in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.margins(x=0.08)
    axes.grid(visible=False)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1.0))
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9, labelcolor=INK)
    return to_png(figure)
