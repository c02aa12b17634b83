"""Pictures of what was counted: bars, histograms and the calendar of months."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.charts.canvas import HEIGHT, INK, PALETTE, build_figure, to_png
from backtest.metrics.skill import HorizonIC, QuantileReturns
from core.errors import DataError

FloatArray = npt.NDArray[np.float64]

_GAIN, _LOSS = PALETTE[0], PALETTE[1]
_MAX_YEARS = 30
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Year")


def draw_rank_ic_by_year(
    by_year: Mapping[int, float], *, title: str = "Mean rank correlation of score and next return, by year"
) -> bytes:
    """Draw the mean rank information coefficient of each year, gains and losses in two colours.

    Parameters
    ----------
    by_year : mapping of int to float
    title : str, optional

    Returns
    -------
    bytes
        A PNG, 900 pixels wide.

    Raises
    ------
    DataError
        If there is nothing to draw.
    """
    if not by_year:
        raise DataError("there is nothing to draw: pass at least one year.")
    figure, axes = build_figure(title)
    years, values = list(by_year), np.array(list(by_year.values()))
    bars = axes.bar(years, values, width=0.7, color=[_GAIN if value >= 0.0 else _LOSS for value in values], zorder=2)
    if len(years) <= 12:
        axes.bar_label(bars, labels=[f"{value:+.3f}" for value in values], fontsize=7, color=INK, padding=2)
    axes.axhline(0.0, color=INK, linewidth=0.8, zorder=3)
    axes.margins(y=0.15)
    every = -(-len(years) // 12)
    axes.set_xticks(years[::every], [str(year) for year in years[::every]])
    axes.set_xlim(min(years) - 0.7, max(years) + 0.7)
    return to_png(figure)


def draw_rank_ic_decay(decay: Sequence[HorizonIC], *, title: str = "Rank correlation of score and return, by horizon") -> bytes:
    """Draw the mean rank information coefficient at each horizon, with two standard errors to either side.

    Parameters
    ----------
    decay : sequence of HorizonIC
    title : str, optional

    Returns
    -------
    bytes
        A PNG, 900 pixels wide.

    Raises
    ------
    DataError
        If no horizon is known.
    """
    known = [one for one in decay if np.isfinite(one.mean)]
    if not known:
        raise DataError("there is nothing to draw: no horizon has a rank information coefficient.")
    figure, axes = build_figure(title)
    means = np.array([one.mean for one in known])
    ratios = np.array([one.t for one in known])
    usable = np.isfinite(ratios) & (ratios != 0.0)
    errors = np.where(usable, 2.0 * np.abs(means) / np.where(usable, np.abs(ratios), 1.0), 0.0)
    places = np.arange(len(known))
    axes.bar(places, means, width=0.6, color=[_GAIN if mean >= 0.0 else _LOSS for mean in means], zorder=2)
    axes.errorbar(places, means, yerr=errors, fmt="none", ecolor=INK, elinewidth=1.0, capsize=3, zorder=3)
    axes.axhline(0.0, color=INK, linewidth=0.8, zorder=3)
    axes.set_xticks(places, [f"{one.horizon_bars} bar{'s' if one.horizon_bars > 1 else ''}" for one in known])
    axes.margins(y=0.1)
    return to_png(figure)


def draw_quantiles(quantiles: QuantileReturns, *, title: str = "Mean return of the next bar, by quantile of score") -> bytes:
    """Draw what the assets of each quantile of the score earned per bar, in basis points.

    Parameters
    ----------
    quantiles : QuantileReturns
    title : str, optional

    Returns
    -------
    bytes
        A PNG, 900 pixels wide.

    Raises
    ------
    DataError
        If no quantile was ever filled.
    """
    values = 1e4 * np.array(quantiles.means)
    if not np.isfinite(values).any():
        raise DataError("there is nothing to draw: no quantile was ever filled.")
    figure, axes = build_figure(title)
    places = np.arange(len(values))
    shown = np.where(np.isfinite(values), values, 0.0)
    bars = axes.bar(places, shown, width=0.7, color=[_GAIN if value >= 0.0 else _LOSS for value in shown], zorder=2)
    axes.bar_label(bars, labels=[f"{value:+.1f}" for value in values], fontsize=8, color=INK, padding=2)
    axes.axhline(0.0, color=INK, linewidth=0.8, zorder=3)
    names = [str(place + 1) for place in places]
    names[0], names[-1] = f"{names[0]} (lowest)", f"{names[-1]} (highest)"
    axes.set_xticks(places, names)
    axes.yaxis.set_major_formatter("{x:g} bps")
    axes.margins(y=0.15)
    return to_png(figure)


def draw_distribution(
    values: FloatArray, *, marks: Mapping[str, float], title: str = "How often a bar brought how much"
) -> bytes:
    """Draw how often returns of each size came.

    Parameters
    ----------
    values : ndarray of shape (n_values,), fractions
        At least two. What lies beyond the thousandth and the last thousandth is drawn at the border.
    marks : mapping of str to float
        Values to mark by name, such as a mean.
    title : str, optional

    Returns
    -------
    bytes
        A PNG, 900 pixels wide.

    Raises
    ------
    DataError
        If there are fewer than two values.
    """
    from matplotlib.ticker import PercentFormatter

    if len(values) < 2:
        raise DataError(f"a distribution needs at least 2 values, had {len(values)}.")
    figure, axes = build_figure(title)
    low, high = np.quantile(values, [0.001, 0.999])
    if high - low < 1e-9:
        low, high = low - 0.005, high + 0.005
    edges = np.linspace(low, high, min(60, max(10, int(np.sqrt(len(values))))) + 1)
    counts, _ = np.histogram(np.clip(values, low, high), edges)
    middles = 0.5 * (edges[:-1] + edges[1:])
    colours = [_GAIN if middle >= 0.0 else _LOSS for middle in middles]
    axes.bar(middles, counts, width=0.94 * (edges[1] - edges[0]), color=colours, zorder=2)
    for place, (name, value) in enumerate(marks.items()):
        axes.axvline(value, color=INK, linewidth=1.0, linestyle=("--", ":", "-.")[place % 3], zorder=3, label=name)
    if marks:
        axes.figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9, labelcolor=INK)  # type: ignore[union-attr]
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=None))
    return to_png(figure)


def draw_monthly_returns(table: pd.DataFrame, *, title: str = "Return of each month and year, in percent") -> bytes:
    """Draw the calendar of returns: a row a year, a column a month, the darker the more.

    Parameters
    ----------
    table : DataFrame
        As `backtest.metrics.compute_monthly_returns` gives it; only the last thirty years are drawn.
    title : str, optional

    Returns
    -------
    bytes
        A PNG, 900 pixels wide, the higher the more years there are.

    Raises
    ------
    DataError
        If there is no year.
    """
    if table.empty:
        raise DataError("there is nothing to draw: pass at least one year.")
    from matplotlib.colors import LinearSegmentedColormap

    table = table.tail(_MAX_YEARS)
    values = table.to_numpy(dtype=np.float64)
    figure, axes = build_figure(title, height=max(HEIGHT, 0.9 + 0.25 * len(table)))
    scale = float(np.nanquantile(np.abs(values[:, :12]), 0.95)) or 0.01
    colours = LinearSegmentedColormap.from_list("loss and gain", (_LOSS, "#FFFFFF", _GAIN))
    limits = np.where(np.arange(13) < 12, scale, scale * 12**0.5)  # a year scatters as the root of its months
    shades = np.ma.masked_invalid(np.clip(values / limits, -1.0, 1.0))
    axes.grid(visible=False)
    axes.imshow(shades, cmap=colours, vmin=-1.25, vmax=1.25, aspect="auto")
    for row, column in np.argwhere(np.isfinite(values)):
        weight = "bold" if column == 12 else "normal"
        ink = "#FFFFFF" if abs(shades[row, column]) > 0.85 else INK
        word = (
            f"{100.0 * values[row, column]:.1f}" if abs(values[row, column]) < 0.9995 else f"{100.0 * values[row, column]:.0f}"
        )
        axes.text(column, row, word, ha="center", va="center", fontsize=7, color=ink, weight=weight)
    axes.axvline(11.5, color=INK, linewidth=0.8)
    axes.set_xticks(range(13), _MONTHS)
    axes.set_yticks(range(len(table)), [str(year) for year in table.index])
    axes.xaxis.tick_top()
    axes.spines[["bottom"]].set_visible(False)
    return to_png(figure)
