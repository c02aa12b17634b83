"""What is to be predicted: returns after the decision.

Promises that a label never overlaps its own decision bar, and says of each label when it is known. Labels use the future by
definition: they train and judge, they are never features (the truncation test catches them if they are).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from core.errors import DataError, LookAheadError, ShapeError
from features.fields import FloatArray
from features.point_in_time import Events, check_symbols

if TYPE_CHECKING:
    from core.market.panel import Panel


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """Hold labels and when each of them is known.

    Parameters
    ----------
    values : ndarray of shape (n_bars, n_assets)
        Row ``t`` belongs to the decision at bar ``t``; NaN where a price is missing or the data end too soon.
    horizon_end : ndarray of shape (n_bars,) or (n_bars, n_assets), int
        Position of the bar whose close completes the label, of one dimension if it is the same for every symbol; beyond the
        last bar where the data end too soon.
    horizon, delay : int
        Bars held, at most; bars between decision and entry.
    """

    values: FloatArray
    horizon_end: npt.NDArray[np.int64]
    horizon: int
    delay: int

    def known_before(self, bar: int) -> npt.NDArray[np.bool_]:
        """Tell which labels are there and complete before a bar: what may train a model that is tested from it on.

        Returns
        -------
        ndarray of shape (n_bars, n_assets), bool
            True where the label is not NaN and ``horizon_end < bar``.
        """
        ends = self.horizon_end if self.horizon_end.ndim == 2 else self.horizon_end[:, None]
        return ~np.isnan(self.values) & (ends < bar)


@dataclass(frozen=True, kw_only=True, eq=False)
class BarrierLabels(Labels):
    """Hold which barrier a price touched first: 1 the target, -1 the stop, 0 neither.

    Parameters
    ----------
    values : ndarray of shape (n_bars, n_assets)
        1, -1 or 0; NaN as in `Labels`.
    returns : ndarray of shape (n_bars, n_assets), fractions
        Return of a long position from entry to the exit at the barrier.
    """

    returns: FloatArray


def forward_returns(panel: Panel, horizon: int, delay: int = 1) -> Labels:
    """Compute simple returns from entry to exit after each decision.

    .. warning:: Decided at the close of bar ``t``, entered at the close of ``t + delay``, left at the close of
       ``t + delay + horizon``. What is known only at ``t`` cannot be traded at ``t``.

    Parameters
    ----------
    panel : Panel
        Closing prices.
    horizon : int
        Bars held, at least 1.
    delay : int, default=1
        Bars between decision and entry, at least 1.

    Returns
    -------
    Labels
        ``close[t + delay + horizon] / close[t + delay] - 1``, fractions; NaN unless both prices are positive.

    Raises
    ------
    DataError
        If `horizon` is below 1.
    LookAheadError
        If `delay` is below 1.
    """
    _check_bars(horizon, delay)
    values = np.full(panel.shape, np.nan)
    known = panel.n_bars - delay - horizon
    if known > 0:
        close = _positive(panel.close)
        values[:known] = close[delay + horizon :] / close[delay : panel.n_bars - horizon] - 1.0
    horizon_end = np.arange(panel.n_bars, dtype=np.int64) + delay + horizon
    return Labels(values=values, horizon_end=horizon_end, horizon=horizon, delay=delay)


def event_labels(panel: Panel, events: Events, horizon: int, delay: int = 1) -> Labels:
    """Compute the return that follows each event.

    .. warning:: An event is decided upon at the first bar whose close is not before its ``known_at``; entry and exit follow
       as in :func:`forward_returns`.

    Parameters
    ----------
    panel : Panel
        Closing prices.
    events : Events
        Of symbols of the panel. Those known before the first bar are left out: at which bar they would have been acted upon
        is not in the data. Those known after the last bar have no label.
    horizon, delay : int
        As in :func:`forward_returns`.

    Returns
    -------
    Labels
        Fractions; NaN where no event became known, and where a price is missing. Several events of a symbol at one bar share
        a label.

    Raises
    ------
    DataError
        If `horizon` is below 1.
    LookAheadError
        If `delay` is below 1.
    MissingDataError
        If an event is of a symbol that is not in the panel.
    """
    check_symbols(panel, events)
    labels = forward_returns(panel, horizon, delay)
    stamps = panel.index.as_unit("ns").asi8
    known = events.table["known_at"].astype("int64").to_numpy()
    bars = np.searchsorted(stamps, known, side="left")
    happened = np.zeros(panel.shape, dtype=np.bool_)
    column = {symbol: position for position, symbol in enumerate(panel.symbols)}
    for bar, at, symbol in zip(bars, known, events.table["symbol"], strict=True):
        if bar < panel.n_bars and at >= stamps[0]:
            happened[bar, slice(None) if symbol is None else column[symbol]] = True
    return replace(labels, values=np.where(happened, labels.values, np.nan))


def triple_barrier(
    panel: Panel,
    *,
    take_profit: float | None,
    stop_loss: float | None,
    horizon: int,
    volatility: FloatArray | None = None,
    delay: int = 1,
) -> BarrierLabels:
    """Label each decision by the barrier that a long position touches first.

    .. warning:: Decided at the close of bar ``t``, entered at the close of ``t + delay``. The barriers are watched from the
       next bar on, through the close of ``t + delay + horizon``, where the position is left if neither was touched.

    Parameters
    ----------
    panel : Panel
        Closing prices; with high and low, barriers are touched inside bars, and with open, gaps are seen.
    take_profit, stop_loss : float or None
        Distance of the barriers from the entry, as positive fractions, or as multiples of `volatility`; None for no such
        barrier, at least one is needed.
    horizon : int
        Bars held at most, at least 1.
    volatility : ndarray of shape (n_bars, n_assets), optional
        Known at bar ``t``, as a fraction: ``compute("ts_std(returns, 21)", panel)``. No label where it is not positive.
    delay : int, default=1
        Bars between decision and entry, at least 1.

    Returns
    -------
    BarrierLabels
        `horizon_end` of shape (n_bars, n_assets) is the bar in which the label was decided. The label of a position that
        touched a barrier is there even if the data end before its horizon does, so that among the last `horizon` rows those
        that moved quickly are over-represented: leave these rows out where that matters.

    Raises
    ------
    DataError
        If a barrier is not positive, both are None, or `horizon` is below 1.
    LookAheadError
        If `delay` is below 1.
    ShapeError
        If `volatility` does not have the panel's shape.

    Notes
    -----
    The method of [1]_, with these deviations. A barrier is looked for in the high and the low of each bar, not in closes
    alone, if the panel has them; a bar that touches both counts as stopped, because which came first is not in the data. A
    bar that opens beyond a barrier is left at its open, so that a gap costs more than the stop. Without high and low the
    position is left at the first close beyond a barrier, at that close. A position that touches nothing is labelled 0, not
    by the sign of its return, which is in `returns`. The width is constant or proportional to the volatility given, not
    to its exponentially weighted estimate. A stop at or below a price of zero is never touched. A bar without prices is
    passed over; without a close at the horizon there is no label.

    References
    ----------
    .. [1] Lopez de Prado, M. (2018). Advances in Financial Machine Learning, chapter 3, 43-58. Wiley.
    """
    _check_bars(horizon, delay)
    if take_profit is None and stop_loss is None:
        raise DataError("`take_profit` or `stop_loss` is needed, both were None; `forward_returns` has no barriers.")
    for name, width in (("take_profit", take_profit), ("stop_loss", stop_loss)):
        if width is not None and not 0.0 < width < np.inf:
            raise DataError(f"`{name}` must be positive and finite, was {width}; it is a distance from the entry.")
    unit = np.ones(panel.shape) if volatility is None else np.asarray(volatility, dtype=np.float64)
    if unit.shape != panel.shape:
        raise ShapeError(f"`volatility` must have the shape of the panel {panel.shape}, was {unit.shape}.")
    unit = np.where((unit > 0.0) & (unit < np.inf), unit, np.nan)
    close = _positive(panel.close)
    entry = _shifted(close, delay)
    target = entry * (1.0 + unit * (np.inf if take_profit is None else take_profit))
    stop = entry * (1.0 - unit * (np.inf if stop_loss is None else stop_loss))
    by_bar = panel.high is not None and panel.low is not None
    high, low = (
        (_positive(panel.high), _positive(panel.low)) if panel.high is not None and panel.low is not None else (close, close)
    )
    opened = _positive(panel.open) if panel.open is not None else np.full(panel.shape, np.nan)

    values, exits = np.full(panel.shape, np.nan), np.full(panel.shape, np.nan)
    ends = np.repeat(np.arange(panel.n_bars, dtype=np.int64)[:, None] + delay + horizon, panel.n_assets, axis=1)
    waiting = ~np.isnan(entry) & ~np.isnan(unit)
    for held in range(1, horizon + 1):
        bar_open, bar_high, bar_low, bar_close = (_shifted(prices, delay + held) for prices in (opened, high, low, close))
        beyond = (bar_open <= stop) | (bar_open >= target)
        stopped = waiting & np.where(beyond, bar_open <= stop, bar_low <= stop)
        reached = waiting & ~stopped & np.where(beyond, bar_open >= target, bar_high >= target)
        touched = stopped | reached
        level = np.where(stopped, stop, target) if by_bar else bar_close
        exits = np.where(touched, np.where(beyond, bar_open, level), exits)
        values = np.where(stopped, -1.0, np.where(reached, 1.0, values))
        ends = np.where(touched, np.arange(panel.n_bars, dtype=np.int64)[:, None] + delay + held, ends)
        waiting &= ~touched
    last_close = _shifted(close, delay + horizon)
    untouched = waiting & ~np.isnan(last_close)
    values = np.where(untouched, 0.0, values)
    exits = np.where(untouched, last_close, exits)
    return BarrierLabels(values=values, horizon_end=ends, horizon=horizon, delay=delay, returns=exits / entry - 1.0)


def _check_bars(horizon: int, delay: int) -> None:
    if horizon < 1:
        raise DataError(f"`horizon` must be at least 1 bar, was {horizon}.")
    if delay < 1:
        raise LookAheadError(
            f"`delay` must be at least 1 bar, was {delay}: a signal of bar t trades at bar t + 1 at the earliest."
        )


def _positive(prices: FloatArray) -> FloatArray:
    return np.where((prices > 0.0) & (prices < np.inf), prices, np.nan)


def _shifted(prices: FloatArray, bars: int) -> FloatArray:
    """What the prices are `bars` later; NaN beyond the data."""
    out = np.full(prices.shape, np.nan)
    out[: max(len(prices) - bars, 0)] = prices[bars:]
    return out
