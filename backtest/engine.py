"""The backtest: one fused pass over prices and target weights, exact to the share.

Hides the kernel and its bookkeeping. Promises that cash and positions add up to equity at every bar, that a weight
decided at a bar touches nothing before the next bar's fill, and that equal inputs give equal bits on one machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from numba import njit

from backtest.config import BacktestConfig
from backtest.metrics import Metrics, compute_metrics
from core.errors import DataError, ShapeError
from core.market.panel import Panel

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MIN_BARS = 3
_DEFAULT = BacktestConfig()
_SERIES = ("equity", "net_returns", "gross_returns", "turnover", "costs", "exposure", "net_exposure", "cash")

_OK, _BAD_PRICE, _BAD_WEIGHT, _LEVERAGE = range(4)


# reassoc alone: sums may be vectorised, NaN and infinity keep their meaning
@njit(cache=True, nogil=True, fastmath={"reassoc"})
def _simulate(fill, close, weights, settings, series, trades, positions):  # type: ignore[no-untyped-def]
    """Return ``(status, bar)``; everything else is written into `series`, `trades` and `positions`."""
    n_bars, n_assets = close.shape
    cash, commission, slippage, borrow, max_leverage = settings
    equity, net, gross, turnover, costs, exposure, net_exposure, cash_series = series
    shares = np.zeros(n_assets)
    last = np.zeros(n_assets)
    before = cash
    short_value = 0.0
    hold = True
    ruined = False
    for t in range(n_bars):
        cost = short_value * borrow
        cash -= cost
        fill_now, close_now, target = fill[t], close[t], weights[max(t - 1, 0)]
        valid = True
        value = cash
        for j in range(n_assets):
            price = fill_now[j]
            valid &= not ((price <= 0.0) | (price == np.inf))
            last[j] = price if price == price else last[j]
            value += shares[j] * last[j]
        if not valid:
            return _BAD_PRICE, t
        turnover[t] = 0.0
        trades[t] = 0
        if not hold and value > 0.0 and not ruined:
            dust = 1e-12 * value  # less than the rounding of a kept position is no order
            net_order = 0.0
            traded = 0.0
            count = 0
            for j in range(n_assets):
                price = fill_now[j]
                wanted = target[j] * value / price
                order = (wanted - shares[j]) * price
                placed = abs(order) > dust  # never where the price is missing
                shares[j] = wanted if placed else shares[j]
                order = order if placed else 0.0
                net_order += order
                traded += abs(order)
                count += placed
            paid = 0.5 * (traded + net_order) * (1.0 + slippage)
            received = 0.5 * (traded - net_order) * (1.0 - slippage)
            cash += received - paid - commission * (paid + received)
            cost += slippage * traded + commission * (paid + received)
            turnover[t] = traded / value
            trades[t] = count

        net_value = 0.0
        gross_value = 0.0
        for j in range(n_assets):
            price = close_now[j]
            valid &= not ((price <= 0.0) | (price == np.inf))
            last[j] = price if price == price else last[j]
            held = shares[j] * last[j]
            net_value += held
            gross_value += abs(held)
        if not valid:
            return _BAD_PRICE, t
        now = cash + net_value
        if now <= 0.0 or ruined:
            ruined = True
            now = cash = net_value = gross_value = 0.0
            shares[:] = 0.0
        short_value = 0.5 * (gross_value - net_value)
        equity[t] = now
        cash_series[t] = cash
        if before > 0.0:
            net[t] = now / before - 1.0
            costs[t] = cost / before
        else:
            net[t] = 0.0
            costs[t] = 0.0
        gross[t] = net[t] + costs[t]
        exposure[t] = gross_value / now if now > 0.0 else 0.0
        net_exposure[t] = net_value / now if now > 0.0 else 0.0
        before = now
        if positions.shape[0] > 0:
            positions[t] = shares

        target = weights[t]
        leverage = 0.0
        for j in range(n_assets):
            leverage += abs(target[j])
        hold = leverage != leverage
        if hold:
            for j in range(n_assets):
                if target[j] == target[j]:
                    return _BAD_WEIGHT, t
        elif leverage > max_leverage * (1.0 + 1e-9):
            return _LEVERAGE, t
    return _OK, 0


@dataclass(frozen=True, kw_only=True, eq=False)
class BacktestResult:
    """Hold what one backtest gave, bar by bar.

    Parameters
    ----------
    index : pandas.DatetimeIndex of length n_bars
        Close of each bar.
    equity : ndarray of shape (n_bars,), currency
        Cash plus positions at the close, prices missing at the bar replaced by the last known ones.
    net_returns : ndarray of shape (n_bars,), fractions
        ``equity[t] / equity[t-1] - 1``; the first is measured against the initial cash and is zero.
    gross_returns : ndarray of shape (n_bars,), fractions
        ``net_returns + costs``: the profit of the same share positions had every fill been at the quoted price and
        had neither commission nor borrow been paid, over the same (net) equity of the previous close.
    turnover : ndarray of shape (n_bars,), fractions
        Value bought and sold at the quoted fill price, over the equity at the fill before trading.
    costs : ndarray of shape (n_bars,), fractions
        Commission, slippage and borrow of the bar over the equity at the previous close.
    exposure, net_exposure : ndarray of shape (n_bars,), fractions
        Sum of absolute, and of signed, position values over equity, at the close.
    cash : ndarray of shape (n_bars,), currency
        Cash at the close; negative when more than the equity is invested long.
    trades : ndarray of int64 of shape (n_bars,)
        Number of orders filled at the bar.
    config : BacktestConfig
    positions : ndarray of shape (n_bars, n_assets), shares, optional
        Shares held at the close; only with ``keep_positions=True``.

    Notes
    -----
    All arrays are read-only.
    """

    index: pd.DatetimeIndex
    equity: FloatArray
    net_returns: FloatArray
    gross_returns: FloatArray
    turnover: FloatArray
    costs: FloatArray
    exposure: FloatArray
    net_exposure: FloatArray
    cash: FloatArray
    trades: IntArray
    config: BacktestConfig = field(default=_DEFAULT)
    positions: FloatArray | None = None

    def __post_init__(self) -> None:
        for name in (*_SERIES, "trades", "positions"):
            array = getattr(self, name)
            if array is not None:
                array.setflags(write=False)

    @property
    def n_bars(self) -> int:
        """Number of bars."""
        return len(self.index)

    @property
    def n_trades(self) -> int:
        """Number of orders filled."""
        return int(self.trades.sum())

    @cached_property
    def metrics(self) -> Metrics:
        """Figures of `backtest.metrics.compute_metrics` over these bars; JSON-safe, None where undefined."""
        return compute_metrics(
            self.net_returns,
            gross_returns=self.gross_returns,
            turnover=self.turnover,
            costs=self.costs,
            exposure=self.exposure,
            net_exposure=self.net_exposure,
            n_trades=self.n_trades,
            periods_per_year=self.config.periods_per_year,
        )

    def slice(self, start: int | None = None, stop: int | None = None) -> BacktestResult:
        """Return the bars ``start:stop``, by position, with the metrics of these bars alone.

        Raises
        ------
        DataError
            If fewer than two bars are left.
        """
        part = slice(start, stop)
        index = self.index[part]
        if len(index) < 2:
            raise DataError(f"a slice must keep at least 2 bars, {start}:{stop} of {self.n_bars} keeps {len(index)}.")
        series = {name: getattr(self, name)[part] for name in _SERIES}
        positions = None if self.positions is None else self.positions[part]
        return replace(self, index=index, trades=self.trades[part], positions=positions, **series)

    def to_vectorbt(self, panel: Panel, weights: npt.ArrayLike) -> Any:
        """Run the same weights through vectorbt, for exploring them with its plots and statistics.

        Parameters
        ----------
        panel : Panel
            That was backtested; a result keeps neither prices nor weights.
        weights : array_like of shape (n_bars, n_assets), fractions of equity
            That were backtested.

        Returns
        -------
        vectorbt.Portfolio
            As `backtest.vectorbt_bridge.run_with_vectorbt` gives it.

        Raises
        ------
        ConfigurationError
            If vectorbt is not installed, or cannot express the costs of the run.
        ShapeError
            If the panel does not have the bars of this result, or the weights not the shape of the panel.
        """
        from backtest.vectorbt_bridge import run_with_vectorbt

        if not panel.index.equals(self.index):
            raise ShapeError(
                f"`panel` must have the {self.n_bars} bars of the result, {self._span()}, had {panel.n_bars}; "
                "pass the panel that was backtested (a slice of a result cannot be run again)."
            )
        return run_with_vectorbt(panel, weights, self.config)

    def _repr_html_(self) -> str:
        from backtest.page import render_summary

        return render_summary(self)

    def __repr__(self) -> str:
        sharpe, drawdown = self.metrics["sharpe"], self.metrics["max_drawdown"]
        return (
            f"BacktestResult({self._span()}, sharpe {_shown(sharpe)}, max_drawdown {_shown(drawdown)}, {self.n_trades} trades)"
        )

    def _span(self) -> str:
        return f"{self.n_bars} bars, {self.index[0]:%Y-%m-%d}..{self.index[-1]:%Y-%m-%d}"


def _shown(value: float | int | None) -> str:
    if value is None:
        return "n/a"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"


def run_backtest(
    panel: Panel,
    weights: npt.ArrayLike,
    config: BacktestConfig = _DEFAULT,
    *,
    keep_positions: bool = False,
) -> BacktestResult:
    """Trade target weights through a panel, with costs.

    .. warning::

        ======================  ==========================================================================
        at the close of ``t``   row ``t`` of `weights` is decided, from what is known at ``t`` and no later
        at bar ``t+1``          it is traded, at the close (``fill="close"``) or at the open
        over bar ``t+2``        it earns its first full bar, close ``t+1`` to close ``t+2``; filled at the
                                open it also earns bar ``t+1`` from open to close
        ======================  ==========================================================================

        Do not shift `weights` yourself. The last row is checked but never traded.

    Parameters
    ----------
    panel : Panel
        Needs `close`, and `open` when ``config.fill`` is "open". A missing price (NaN) is not traded and is valued at the
        last known price, also after a delisting.
    weights : array_like of shape (n_bars, n_assets), fractions of equity
        Target positions, negative for short. A row of NaN holds all shares; a single NaN in a row is an error.
    config : BacktestConfig, optional
    keep_positions : bool, default=False
        Keep the shares held at every bar.

    Returns
    -------
    BacktestResult

    Raises
    ------
    ShapeError
        If `weights` does not have the shape of the panel.
    DataError
        If there are fewer than three bars, a price is not positive or not finite, a weight row is partly NaN, or the sum of
        absolute weights exceeds ``config.max_leverage``.
    MissingDataError
        If ``config.fill`` is "open" and the panel has no `open`.

    Notes
    -----
    At each bar, in this order: borrow is charged on the short value of the previous close; equity is taken at the fill
    price; every asset with a price is traded to ``weight * equity / price`` shares, all sized by that one equity; slippage
    and commission are paid; equity is taken at the close. Fractional shares, no interest on cash.

    These are the semantics of vectorbt's ``Portfolio.from_orders(size_type="targetpercent", group_by=True,
    cash_sharing=True, call_seq="auto")`` on weights shifted by one bar, and equity agrees to 1e-9. We deviate in four
    corners. Cash may become negative here (a fully invested long book borrows its own costs), where vectorbt cuts the last
    orders. An account that is worth nothing is closed at zero and stays there, where vectorbt lets it go below. With
    ``fill="open"`` an asset without an open is valued at its last known close, where vectorbt takes its last known open.
    Orders below 1e-12 of equity are left out, vectorbt leaves out those below 1e-12 shares.
    """
    fill, close = _check_prices(panel, config)
    frozen = _check_weights(weights, panel)
    series = np.empty((len(_SERIES), panel.n_bars))
    trades = np.zeros(panel.n_bars, np.int64)
    positions = np.empty(panel.shape if keep_positions else (0, panel.n_assets))
    settings = (
        float(config.initial_cash),
        config.commission_bps * 1e-4,
        config.slippage_bps * 1e-4,
        config.borrow_rate / config.periods_per_year,
        float(config.max_leverage),
    )
    status, bar = _simulate(fill, close, frozen, settings, tuple(series), trades, positions)
    if status != _OK:
        raise _explain(status, bar, panel, frozen, config)
    return BacktestResult(
        index=panel.index,
        trades=trades,
        config=config,
        positions=positions if keep_positions else None,
        **dict(zip(_SERIES, series, strict=True)),
    )


def run_sweep(
    panel: Panel,
    weights_list: Iterable[npt.ArrayLike],
    config: BacktestConfig = _DEFAULT,
    *,
    n_threads: int | None = None,
) -> list[BacktestResult]:
    """Run many weight arrays over one panel, in threads.

    Parameters
    ----------
    panel : Panel
    weights_list : iterable of array_like of shape (n_bars, n_assets)
    config : BacktestConfig, optional
    n_threads : int, optional
        Threads; one per processor when None. The kernel releases the interpreter lock.

    Returns
    -------
    list of BacktestResult
        In the order of `weights_list`, equal bit by bit to single runs.

    Raises
    ------
    DataError, ShapeError, MissingDataError
        As `run_backtest`, for the first array that is wrong.
    """
    with ThreadPoolExecutor(max_workers=n_threads or os.cpu_count() or 1) as pool:
        return list(pool.map(lambda weights: run_backtest(panel, weights, config), weights_list))


def _check_prices(panel: Panel, config: BacktestConfig) -> tuple[FloatArray, FloatArray]:
    if panel.n_bars < MIN_BARS:
        raise DataError(f"a backtest needs at least {MIN_BARS} bars (decide, trade, earn), the panel has {panel.n_bars}.")
    return panel.get(config.fill), panel.close


def _check_weights(weights: npt.ArrayLike, panel: Panel) -> FloatArray:
    frozen = np.ascontiguousarray(weights, dtype=np.float64).view()
    if frozen.shape != panel.shape:
        raise ShapeError(f"`weights` must have the panel's shape (n_bars, n_assets) = {panel.shape}, was {frozen.shape}.")
    frozen.flags.writeable = False  # one array type means one compilation
    return frozen


def _explain(status: int, bar: int, panel: Panel, weights: FloatArray, config: BacktestConfig) -> DataError:
    when = f"bar {bar} ({panel.index[bar]:%Y-%m-%d})"
    if status == _BAD_PRICE:
        close = panel.close[bar]
        name = "close" if (close <= 0.0).any() or np.isinf(close).any() else config.fill
        prices = panel.get(name)[bar]
        column = int(np.argmax((prices <= 0.0) | np.isinf(prices)))
        return DataError(
            f"prices must be positive and finite, `{name}` of {panel.symbols[column]} at {when} was {prices[column]:g}; "
            "mark missing prices with NaN."
        )
    row = weights[bar]
    if status == _BAD_WEIGHT:
        missing = ", ".join(panel.symbols[column] for column in np.flatnonzero(np.isnan(row)))
        return DataError(
            f"a weight row must be all finite (trade) or all NaN (hold), row {when} is NaN for {missing} only; "
            "write 0 to close a position."
        )
    return DataError(
        f"the sum of absolute weights must be at most max_leverage = {config.max_leverage:g}, was {np.abs(row).sum():g} at "
        f"{when}; scale the weights down or raise `max_leverage`."
    )
