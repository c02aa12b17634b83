"""Pictures of a backtest as PNG bytes.

Hides matplotlib: it is imported on first use, drawn on with figures of our own (no pyplot, no state shared between
threads), and needs no display. Promises pictures 900 pixels wide, whose first line lies on top of the others and whose
colours are told apart by colour-blind readers.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from core.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe & Ito (2008), the order changed so that the first lines differ most."""

_WIDTH, _HEIGHT, _DPI = 6.0, 3.2, 150  # small inches: the words stay legible when a page shrinks the picture to a third
_INK, _FAINT = "#333333", "#D9D9D9"


def draw_equity(
    equity: Mapping[str, pd.Series],
    *,
    out_of_sample_from: pd.Timestamp | None = None,
    sealed_from: pd.Timestamp | None = None,
    title: str = "Growth of 1 after costs, log scale",
) -> bytes:
    """Draw the growth of several accounts on a log scale.

    Parameters
    ----------
    equity : mapping of str to Series
        Positive equity by name, indexed by time; each is divided by its first value. At most seven.
    out_of_sample_from, sealed_from : Timestamp, optional
        Where the out-of-sample part and the sealed hold-out begin; both are marked.
    title : str, optional

    Returns
    -------
    bytes
        A PNG, 900 pixels wide.

    Raises
    ------
    DataError
        If there is nothing to draw, there are more than seven series, or an equity is not positive.
    """
    _check_series(equity)
    for name, series in equity.items():
        if not (series > 0.0).all():
            raise DataError(
                f"a log scale needs positive equity, {name!r} goes down to {series.min():g}; draw its drawdown instead."
            )
    figure, axes = _build_figure(title)
    scaled = {name: series / series.iloc[0] for name, series in equity.items()}
    axes.set_yscale("log")
    _draw_lines(axes, scaled)
    _label_log_axis(axes, scaled)
    axes.axhline(1.0, color=_INK, linewidth=0.8, zorder=1)
    for when, word in ((out_of_sample_from, "out of sample"), (sealed_from, "sealed")):
        if when is not None:
            _mark(axes, when, word)
    return _to_png(figure)


def draw_drawdown(equity: Mapping[str, pd.Series], *, title: str = "Drawdown from the last high") -> bytes:
    """Draw the drawdowns of several accounts.

    Parameters
    ----------
    equity : mapping of str to Series
        Equity by name, indexed by time. At most seven.
    title : str, optional

    Returns
    -------
    bytes
        A PNG, 900 pixels wide.

    Raises
    ------
    DataError
        If there is nothing to draw or there are more than seven series.
    """
    from matplotlib.ticker import PercentFormatter

    _check_series(equity)
    figure, axes = _build_figure(title)
    falls = {name: series / series.cummax() - 1.0 for name, series in equity.items()}
    _draw_lines(axes, falls)
    if len(falls) == 1:
        only = next(iter(falls.values()))
        axes.fill_between(only.index, only.to_numpy(), 0.0, color=PALETTE[0], alpha=0.15, linewidth=0)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=None))
    axes.set_ylim(top=0.0)
    return _to_png(figure)


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
    figure, axes = _build_figure(title)
    years, values = list(by_year), np.array(list(by_year.values()))
    bars = axes.bar(years, values, width=0.7, color=[PALETTE[0] if value >= 0.0 else PALETTE[1] for value in values], zorder=2)
    if len(years) <= 12:
        axes.bar_label(bars, labels=[f"{value:+.3f}" for value in values], fontsize=7, color=_INK, padding=2)
    axes.axhline(0.0, color=_INK, linewidth=0.8, zorder=3)
    axes.margins(y=0.15)
    every = -(-len(years) // 12)
    axes.set_xticks(years[::every], [str(year) for year in years[::every]])
    axes.set_xlim(min(years) - 0.7, max(years) + 0.7)
    return _to_png(figure)


def draw_turnover(turnover: pd.Series, *, window: int = 63, periods_per_year: int = 252, title: str | None = None) -> bytes:
    """Draw the yearly turnover, as a trailing mean.

    Parameters
    ----------
    turnover : Series
        Traded value over equity of each bar, indexed by time.
    window : int, default=63
        Bars of the trailing mean; shortened to the length of the series.
    periods_per_year : int, default=252
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
    if turnover.empty:
        raise DataError("there is nothing to draw: pass at least one bar.")
    window = min(window, len(turnover))
    figure, axes = _build_figure(title or f"Turnover a year in multiples of equity, mean of {window} bars")
    yearly = turnover.rolling(window).mean() * periods_per_year
    axes.plot(yearly.index, yearly.to_numpy(), color=PALETTE[0], linewidth=1.2)
    _label_dates(axes)
    mean = float(turnover.mean()) * periods_per_year
    axes.axhline(mean, color=PALETTE[1], linewidth=1.0, linestyle="--")
    axes.annotate(
        f"mean {mean:.1f}x", (1.0, mean), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
        va="center", color=PALETTE[1], fontsize=9,
    )  # fmt: skip
    axes.set_ylim(bottom=0.0)
    axes.yaxis.set_major_formatter("{x:g}x")
    return _to_png(figure)


def _check_series(series: Mapping[str, pd.Series]) -> None:
    if not series or any(one.empty for one in series.values()):
        raise DataError("there is nothing to draw: pass at least one series, none of them empty.")
    if len(series) > len(PALETTE):
        raise DataError(f"at most {len(PALETTE)} series can be told apart, got {len(series)}; draw fewer.")


def _build_figure(title: str) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)  # type: ignore[union-attr, call-arg]
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11, color=_INK, pad=9)
    axes.grid(axis="y", color=_FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_INK)
    axes.tick_params(which="both", length=0, labelsize=9, labelcolor=_INK)
    return figure, axes


def _draw_lines(axes: Axes, series: Mapping[str, pd.Series]) -> None:
    for position, (name, one) in enumerate(series.items()):
        width = 1.4 if position == 0 else 0.8
        axes.plot(one.index, one.to_numpy(), color=PALETTE[position], linewidth=width, zorder=3 - position / 10, label=name)
    _label_dates(axes)
    if len(series) > 1:
        axes.figure.legend(  # type: ignore[union-attr]
            loc="outside lower center", ncols=3, frameon=False, fontsize=9, labelcolor="linecolor", handlelength=1.2
        )


def _label_dates(axes: Axes) -> None:
    """Put at most eight labels below the bars: years, or months with the year beside them."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.margins(x=0.01)


def _label_log_axis(axes: Axes, series: Mapping[str, pd.Series]) -> None:
    """Put about six round labels between the lowest and the highest value, which a log axis alone often fails to do."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    low = min(float(one.min()) for one in series.values())
    high = max(float(one.max()) for one in series.values())
    if high / low < 3.0:
        ticks = [float(tick) for tick in MaxNLocator(6).tick_values(low, high) if tick > 0.0]
    else:
        steps = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if high / low < 30.0 else (1.0, 3.0) if high / low < 1e4 else (1.0,)
        decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1.0)
        ticks = [float(step * 10.0**decade) for decade in decades for step in steps]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    span = max(high / low, 1.05)  # a flat account still needs an axis with some height
    axes.set_ylim(low / span**0.05, high * span**0.12)


def _mark(axes: Axes, when: pd.Timestamp, word: str) -> None:
    axes.axvline(when, color=_INK, linewidth=1.0, linestyle=":", zorder=1)  # type: ignore[arg-type]
    axes.annotate(
        f"{word} \N{RIGHTWARDS ARROW}", (when, 1.0), xycoords=("data", "axes fraction"), xytext=(4, -3),
        textcoords="offset points", va="top", fontsize=9, color=_INK,
    )  # fmt: skip


def _to_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
