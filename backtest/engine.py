"""The backtest: one fused pass over prices and target weights, or signals with stops, exact to the share.

Hides the kernel and its bookkeeping. Promises that cash and positions add up to equity at every bar, that a weight
decided at a bar touches nothing before the next bar's fill, and that equal inputs give equal bits on one machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from numba import njit

from backtest.config import BacktestConfig
from backtest.execution import BAD_PRICE, BAD_WEIGHT, LEVERAGE, OK, prepare_liquidity, prepare_options, simulate_execution
from backtest.metrics import Metrics, compute_metrics
from backtest.signals import SignalStrategy, TradeList, trade_signals
from core.errors import DataError, ShapeError
from core.market.panel import Panel

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MIN_BARS = 3
_DEFAULT = BacktestConfig()
_SERIES = ("equity", "net_returns", "gross_returns", "turnover", "costs", "exposure", "net_exposure", "cash")
COST_SERIES = ("commission", "slippage", "borrow", "impact", "interest")


# reassoc alone: sums may be vectorised, NaN and infinity keep their meaning
@njit(cache=True, nogil=True, fastmath={"reassoc"})
def _simulate(fill, close, weights, plain, series, trades, positions):  # type: ignore[no-untyped-def]
    """Return ``(status, bar)``; everything else is written into `series`, `trades` and `positions`."""
    n_bars, n_assets = close.shape
    cash, commission, slippage, borrow, max_leverage = plain
    equity, net, gross, turnover, costs, exposure, net_exposure, cash_series, commission_paid, slippage_paid, borrow_paid = (
        series
    )
    shares = np.zeros(n_assets)
    last = np.zeros(n_assets)
    before = cash
    short_value = 0.0
    hold = True
    ruined = False
    for t in range(n_bars):
        cost = short_value * borrow
        cash -= cost
        borrowed = cost
        slipped = 0.0
        fees = 0.0
        fill_now, close_now, target = fill[t], close[t], weights[max(t - 1, 0)]
        valid = True
        value = cash
        for j in range(n_assets):
            price = fill_now[j]
            valid &= not ((price <= 0.0) | (price == np.inf))
            last[j] = price if price == price else last[j]
            value += shares[j] * last[j]
        if not valid:
            return BAD_PRICE, t
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
            slipped = slippage * traded
            fees = commission * (paid + received)
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
            return BAD_PRICE, t
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
            scale = 1.0 / before
            commission_paid[t] = fees * scale
            slippage_paid[t] = slipped * scale
            borrow_paid[t] = borrowed * scale
        else:
            net[t] = 0.0
            costs[t] = 0.0
            commission_paid[t] = 0.0
            slippage_paid[t] = 0.0
            borrow_paid[t] = 0.0
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
                    return BAD_WEIGHT, t
        elif leverage > max_leverage * (1.0 + 1e-9):
            return LEVERAGE, t
    return OK, 0


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
        had neither commission nor borrow nor interest been paid, over the same (net) equity of the previous close.
    turnover : ndarray of shape (n_bars,), fractions
        Value bought and sold at the quoted fill price, over the equity at the fill before trading.
    costs : ndarray of shape (n_bars,), fractions
        The five kinds of cost below together, over the equity at the previous close.
    exposure, net_exposure : ndarray of shape (n_bars,), fractions
        Sum of absolute, and of signed, position values over equity, at the close.
    cash : ndarray of shape (n_bars,), currency
        Cash at the close; negative when more than the equity is invested long.
    trades : ndarray of int64 of shape (n_bars,)
        Number of orders filled at the bar, wholly or in part.
    config : BacktestConfig
    positions : ndarray of shape (n_bars, n_assets), shares, optional
        Shares held at the close; only with ``keep_positions=True``.
    commission, slippage, borrow, impact, interest : ndarray of shape (n_bars,), fractions, optional
        What `costs` are made of, over the same equity. Interest is negative where cash earned it, so that `costs` may be.
        Always there in what `run_backtest` returns.
    trade_list : TradeList, optional
        From entry to exit; only of a `SignalStrategy`.

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
    commission: FloatArray | None = None
    slippage: FloatArray | None = None
    borrow: FloatArray | None = None
    impact: FloatArray | None = None
    interest: FloatArray | None = None
    trade_list: TradeList | None = None

    def __post_init__(self) -> None:
        for name in (*_SERIES, *COST_SERIES, "trades", "positions"):
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
        """Return the bars ``start:stop``, by position, with the metrics of these bars alone and without a `trade_list`.

        Raises
        ------
        DataError
            If fewer than two bars are left.
        """
        part = slice(start, stop)
        index = self.index[part]
        if len(index) < 2:
            raise DataError(f"a slice must keep at least 2 bars, {start}:{stop} of {self.n_bars} keeps {len(index)}.")
        names = (*_SERIES, *COST_SERIES, "trades", "positions")
        arrays = {name: array[part] for name in names if (array := getattr(self, name)) is not None}
        return replace(self, index=index, trade_list=None, **arrays)

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
    strategy: npt.ArrayLike | SignalStrategy,
    config: BacktestConfig = _DEFAULT,
    *,
    keep_positions: bool = False,
) -> BacktestResult:
    """Trade target weights, or entry and exit signals with stops, through a panel, with costs.

    .. warning::

        ======================  ==========================================================================
        at the close of ``t``   row ``t`` of the strategy is decided, from what is known at ``t`` and no later
        at bar ``t+1``          it is traded, at the close (``fill="close"``) or at the open
        over bar ``t+2``        it earns its first full bar, close ``t+1`` to close ``t+2``; filled at the
                                open it also earns bar ``t+1`` from open to close
        ======================  ==========================================================================

        Do not shift the rows yourself. The last row is checked but never traded.

    Parameters
    ----------
    panel : Panel
        Needs `close`, `open` when ``config.fill`` is "open", and `volume` for impact and participation. A missing price
        (NaN) is not traded and is valued at the last known price, also after a delisting unless ``config.delisting_bars``
        says when that is.
    strategy : array_like of shape (n_bars, n_assets), fractions of equity, or SignalStrategy
        Target positions, negative for short. A row of NaN holds all shares; a single NaN in a row is an error. A DataFrame
        must have the panel's times and symbols, in its order. Or signals, whose stops need `high` and `low` to be exact.
    config : BacktestConfig, optional
    keep_positions : bool, default=False
        Keep the shares held at every bar.

    Returns
    -------
    BacktestResult

    Raises
    ------
    ShapeError
        If `strategy` does not have the shape of the panel.
    DataError
        If there are fewer than three bars, a price is not positive or not finite, a weight is not a number, a weight row is
        partly NaN, the sum of absolute weights exceeds ``config.max_leverage``, or a volume that is needed is negative or
        infinite.
    MissingDataError
        If the panel has not the `open` or the `volume` that `config` needs.
    ConfigurationError
        If `strategy` is of signals and one of ``config.options`` is in force, which only weights obey.

    Notes
    -----
    **Weights.** At each bar, in this order: borrow and interest are charged on the short value and the cash of the previous
    close; equity is taken at the fill price; every asset with a price is traded to ``weight * equity / price`` shares, all
    sized by that one equity; slippage, impact and commission are paid; equity is taken at the close.

    What the options of `config` add:

    - *Lots.* The order, not the position, is rounded towards zero to whole lots (to 1e-9 of a lot).
    - *Volume.* An order takes at most ``participation_limit`` of the volume of the bar that fills it, in whole lots. The
      rest is carried: bars whose row is NaN go on trading towards the number of shares first aimed at, and a row of weights
      replaces what was left. Without volume at the bar, or with `impact_coefficient` before a volatility is known, nothing
      is filled and the whole order is carried, because nobody can say what it would have cost.
    - *Prices.* An order meets no price: it is not placed, and not carried.
    - *Delisting.* After the close of the `delisting_bars`-th bar in a row without a price, shares are settled in cash at the
      last price, free of cost. This looks at past bars only: whether the asset ever trades again is not asked. Should it, it
      can be bought again. Until then it is valued at the last price, and a short position pays its fee.

    Shares are those of the panel's prices: with adjusted prices, lots and `commission_per_share` mean little, and volume
    must be adjusted like the prices.

    Without options these are the semantics of vectorbt's ``Portfolio.from_orders(size_type="targetpercent", group_by=True,
    cash_sharing=True, call_seq="auto")`` on weights shifted by one bar, and equity agrees to 1e-9. We deviate in four
    corners. Cash may become negative here (a fully invested long book borrows its own costs), where vectorbt cuts the last
    orders. An account that is worth nothing is closed at zero and stays there, where vectorbt lets it go below. With
    ``fill="open"`` an asset without an open is valued at its last known close, where vectorbt takes its last known open.
    Orders below 1e-12 of equity are left out, vectorbt leaves out those below 1e-12 shares.

    **Signals.** An entry opens a position of ``size * equity`` (costs included) where none is open, an exit closes it, and
    an entry of the other side closes it and opens the other. An entry and an exit of the same side on one bar, or entries
    of both sides, cancel each other. Equity is taken at the fill price after the closing orders of the bar; when the
    positions would exceed ``max_leverage``, the entries of the bar are cut alike. An entry without a price at the fill is
    void; an exit without one waits for the next price.

    Stops watch `low` and `high` on bars that have a close: from the fill bar on when it was filled at its open, else from
    the bar after. A stop level is a fraction of the quoted entry price, or of the best price between the entry and the
    previous bar. A bar that opens beyond the level fills at the open, else at the level. Where one bar touches stop and
    target the stop is taken, even if the bar opened beyond the target: what came first is not known, so the worse is
    believed. Without `open` the close stands in for it if that is worse; without `high` and `low` stops are watched at the
    close and filled there. Slippage and commission are paid on every exit. A stop comes before an order at the close of its
    bar and after one at its open; nothing enters an asset at the close of the bar of its stop.

    An asset whose prices end is sold at its last price one bar after its last close. A position that is open at the end
    stays open: it is valued, not sold.
    """
    check_length(panel)
    series = np.empty((len(_SERIES) + len(COST_SERIES), panel.n_bars))
    if isinstance(strategy, SignalStrategy):
        trades, positions, trade_list = trade_signals(panel, strategy, config, series, keep_positions=keep_positions)
        return _build_result(panel, config, series, trades, positions if keep_positions else None, trade_list)
    fill, close = panel.get(config.fill), panel.close
    frozen = _check_weights(strategy, panel)
    trades = np.zeros(panel.n_bars, np.int64)
    positions = np.empty(panel.shape if keep_positions else (0, panel.n_assets))
    plain = (
        float(config.initial_cash),
        config.commission_bps * 1e-4,
        config.slippage_bps * 1e-4,
        config.borrow_rate / config.periods_per_year,
        float(config.max_leverage),
    )
    if config.options:
        status, bar = simulate_execution(
            (fill, close, *prepare_liquidity(panel, config)),
            frozen,
            plain,
            prepare_options(config),
            tuple(series),
            trades,
            positions,
        )
    else:
        series[-2:] = 0.0  # no impact, no interest
        status, bar = _simulate(fill, close, frozen, plain, tuple(series[:-2]), trades, positions)
    if status != OK:
        raise _explain(status, bar, panel, frozen, config)
    return _build_result(panel, config, series, trades, positions if keep_positions else None, None)


def _build_result(
    panel: Panel,
    config: BacktestConfig,
    series: FloatArray,
    trades: IntArray,
    positions: FloatArray | None,
    trade_list: TradeList | None,
) -> BacktestResult:
    return BacktestResult(
        index=panel.index,
        trades=trades,
        config=config,
        positions=positions,
        trade_list=trade_list,
        **dict(zip((*_SERIES, *COST_SERIES), series, strict=True)),
    )


def check_length(panel: Panel) -> None:
    """Refuse a panel in which nothing can be decided, traded and earned.

    Raises
    ------
    DataError
        If there are fewer than three bars.
    """
    if panel.n_bars < MIN_BARS:
        raise DataError(f"a backtest needs at least {MIN_BARS} bars (decide, trade, earn), the panel has {panel.n_bars}.")


def _check_weights(weights: npt.ArrayLike, panel: Panel) -> FloatArray:
    if isinstance(weights, pd.DataFrame) and not (
        weights.columns.equals(pd.Index(panel.symbols)) and weights.index.equals(panel.index)
    ):
        raise DataError(
            "a DataFrame of weights must have the panel's times and symbols in the panel's order; "
            "use `weights.reindex(index=panel.index, columns=panel.symbols)`."
        )
    try:
        frozen = np.ascontiguousarray(weights, dtype=np.float64).view()
    except (TypeError, ValueError) as error:
        raise DataError(f"`weights` must be numbers in rows of equal length: {error}.") from error
    if frozen.shape != panel.shape:
        raise ShapeError(f"`weights` must have the panel's shape (n_bars, n_assets) = {panel.shape}, was {frozen.shape}.")
    frozen.flags.writeable = False  # one array type means one compilation
    return frozen


def _explain(status: int, bar: int, panel: Panel, weights: FloatArray, config: BacktestConfig) -> DataError:
    when = f"bar {bar} ({panel.index[bar]:%Y-%m-%d})"
    if status == BAD_PRICE:
        close = panel.close[bar]
        name = "close" if (close <= 0.0).any() or np.isinf(close).any() else config.fill
        prices = panel.get(name)[bar]
        column = int(np.argmax((prices <= 0.0) | np.isinf(prices)))
        return DataError(
            f"prices must be positive and finite, `{name}` of {panel.symbols[column]} at {when} was {prices[column]:g}; "
            "mark missing prices with NaN."
        )
    row = weights[bar]
    if status == BAD_WEIGHT:
        missing = ", ".join(panel.symbols[column] for column in np.flatnonzero(np.isnan(row)))
        return DataError(
            f"a weight row must be all finite (trade) or all NaN (hold), row {when} is NaN for {missing} only; "
            "write 0 to close a position."
        )
    return DataError(
        f"the sum of absolute weights must be at most max_leverage = {config.max_leverage:g}, was {np.abs(row).sum():g} at "
        f"{when}; scale the weights down or raise `max_leverage`."
    )
