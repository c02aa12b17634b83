"""Pictures of what went on in time: equity, drawdown, Sharpe ratio, exposure, turnover, trades."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from backtest.charts.canvas import INK, PALETTE, build_figure, label_dates, to_png
from core.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOG_ABOVE = 3.0


def draw_equity(
    equity: Mapping[str, pd.Series],
    *,
    log: bool = True,
    out_of_sample_from: pd.Timestamp | None = None,
    sealed_from: pd.Timestamp | None = None,
    title: str | None = None,
) -> bytes:
    """Draw the growth of several accounts.

    Parameters
    ----------
    equity : mapping of str to Series
        Equity by name, indexed by time; each is divided by its first value. At most seven.
    log : bool, default=True
        Whether equal steps up are equal factors, for which equity must be positive; `needs_log_scale` tells when it should be.
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
        If there is nothing to draw, there are more than seven series, an equity begins at nothing, or one is not positive on a
        log scale.
    """
    _check_series(equity)
    for name, series in equity.items():
        if log and not (series > 0.0).all():
            raise DataError(f"a log scale needs positive equity, {name!r} goes down to {series.min():g}; pass `log=False`.")
        if not series.iloc[0] > 0.0:
            raise DataError(f"growth needs a positive beginning, {name!r} begins at {series.iloc[0]:g}.")
    figure, axes = build_figure(title or f"Growth of 1 after costs{', log scale' if log else ''}")
    scaled = {name: series / series.iloc[0] for name, series in equity.items()}
    if log:
        axes.set_yscale("log")
    _draw_lines(axes, scaled)
    if log:
        _label_log_axis(axes, scaled)
    axes.axhline(1.0, color=INK, linewidth=0.8, zorder=1)
    for when, word in ((out_of_sample_from, "out of sample"), (sealed_from, "sealed")):
        if when is not None:
            _mark(axes, when, word)
    return to_png(figure)


def needs_log_scale(equity: Mapping[str, pd.Series]) -> bool:
    """Tell whether growth should be drawn on a log scale: it can be, and some account grew or fell by a factor above three."""
    growth = [series / series.iloc[0] for series in equity.values() if len(series) and series.iloc[0] > 0.0]
    if not growth or any(not (one > 0.0).all() for one in growth):
        return False
    return max(float(one.max()) for one in growth) / min(float(one.min()) for one in growth) > _LOG_ABOVE


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
    figure, axes = build_figure(title)
    falls = {name: series / series.cummax() - 1.0 for name, series in equity.items()}
    _draw_lines(axes, falls)
    if len(falls) == 1:
        only = next(iter(falls.values()))
        axes.fill_between(only.index, only.to_numpy(), 0.0, color=PALETTE[0], alpha=0.15, linewidth=0)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=None))
    axes.set_ylim(top=0.0)
    return to_png(figure)


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
    figure, axes = build_figure(title or f"Turnover a year in multiples of equity, mean of {window} bars")
    yearly = turnover.rolling(window).mean() * periods_per_year
    axes.plot(yearly.index, yearly.to_numpy(), color=PALETTE[0], linewidth=1.2)
    label_dates(axes)
    mean = float(turnover.mean()) * periods_per_year
    _draw_level(axes, mean, f"mean {mean:.1f}x")
    axes.set_ylim(bottom=0.0)
    axes.yaxis.set_major_formatter("{x:g}x")
    return to_png(figure)


def draw_rolling_sharpe(sharpe: pd.Series, *, window: int, whole: float | None = None, title: str | None = None) -> bytes:
    """Draw the Sharpe ratio of a trailing window.

    Parameters
    ----------
    sharpe : Series
        Annualised, indexed by time; NaN is left out.
    window : int
        Bars of the window, for the title.
    whole : float, optional
        The Sharpe ratio of all bars, drawn as a level.
    title : str, optional

    Returns
    -------
    bytes
        A PNG, 900 pixels wide.

    Raises
    ------
    DataError
        If there is no value.
    """
    if not sharpe.notna().any():
        raise DataError("there is nothing to draw: no window of these bars has a Sharpe ratio.")
    figure, axes = build_figure(title or f"Sharpe ratio after costs of the last {window} bars, a year")
    axes.plot(sharpe.index, sharpe.to_numpy(), color=PALETTE[0], linewidth=1.2, zorder=2)
    label_dates(axes)
    axes.axhline(0.0, color=INK, linewidth=0.8, zorder=1)
    if whole is not None:
        _draw_level(axes, whole, f"all {whole:.2f}")
    return to_png(figure)


def draw_exposure(exposure: pd.Series, net_exposure: pd.Series, *, title: str = "Exposure in multiples of equity") -> bytes:
    """Draw how much was held, long and short added up, and what is left when short is taken from long.

    Parameters
    ----------
    exposure, net_exposure : Series
        Multiples of equity of each bar, indexed by time.
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
    series = {"long and short (gross)": exposure, "long less short (net)": net_exposure}
    _check_series(series)
    figure, axes = build_figure(title)
    _draw_lines(axes, series)
    axes.axhline(0.0, color=INK, linewidth=0.8, zorder=1)
    axes.yaxis.set_major_formatter("{x:g}x")
    return to_png(figure)


def draw_trades(closed: pd.Series, *, title: str = "Profit of closed trades after costs, added up") -> bytes:
    """Draw the profit of closed trades, added up over time.

    Parameters
    ----------
    closed : Series
        Profit of each trade as a fraction of the initial equity, indexed by the time of its close.
    title : str, optional

    Returns
    -------
    bytes
        A PNG, 900 pixels wide.

    Raises
    ------
    DataError
        If there is no trade.
    """
    from matplotlib.ticker import PercentFormatter

    if closed.empty:
        raise DataError("there is nothing to draw: no trade was closed.")
    figure, axes = build_figure(title)
    path = closed.groupby(level=0).sum().cumsum()
    axes.step(path.index, path.to_numpy(), where="post", color=PALETTE[0], linewidth=1.2, zorder=2)
    label_dates(axes)
    axes.axhline(0.0, color=INK, linewidth=0.8, zorder=1)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=None))
    return to_png(figure)


def _check_series(series: Mapping[str, pd.Series]) -> None:
    if not series or any(one.empty for one in series.values()):
        raise DataError("there is nothing to draw: pass at least one series, none of them empty.")
    if len(series) > len(PALETTE):
        raise DataError(f"at most {len(PALETTE)} series can be told apart, got {len(series)}; draw fewer.")


def _draw_lines(axes: Axes, series: Mapping[str, pd.Series]) -> None:
    for position, (name, one) in enumerate(series.items()):
        width = 1.4 if position == 0 else 0.8
        axes.plot(one.index, one.to_numpy(), color=PALETTE[position], linewidth=width, zorder=3 - position / 10, label=name)
    label_dates(axes)
    if len(series) > 1:
        axes.figure.legend(  # type: ignore[union-attr]
            loc="outside lower center", ncols=3, frameon=False, fontsize=9, labelcolor="linecolor", handlelength=1.2
        )


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
    axes.axvline(when, color=INK, linewidth=1.0, linestyle=":", zorder=1)  # type: ignore[arg-type]
    axes.annotate(
        f"{word} \N{RIGHTWARDS ARROW}", (when, 1.0), xycoords=("data", "axes fraction"), xytext=(4, -3),
        textcoords="offset points", va="top", fontsize=9, color=INK,
    )  # fmt: skip


def _draw_level(axes: Axes, value: float, word: str) -> None:
    axes.axhline(value, color=PALETTE[1], linewidth=1.0, linestyle="--")
    axes.annotate(
        word, (1.0, value), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
        va="center", color=PALETTE[1], fontsize=9,
    )  # fmt: skip
