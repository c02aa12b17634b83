"""The same run through vectorbt: for exploring, and as the referee of our own kernel.

Hides how our timing and costs are said in vectorbt's words. vectorbt is imported on first use; it takes seconds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.config import BacktestConfig
from backtest.signals import SignalStrategy, check_honoured
from core.errors import ConfigurationError, ShapeError
from core.market.panel import Panel


def run_with_vectorbt(panel: Panel, weights: npt.ArrayLike, config: BacktestConfig) -> Any:
    """Trade target weights with vectorbt's ``Portfolio.from_orders``.

    Parameters
    ----------
    panel : Panel
    weights : array_like of shape (n_bars, n_assets), fractions of equity
        As for `run_backtest`: row ``t`` is decided at the close of ``t`` and traded at ``t+1``.
    config : BacktestConfig
        Its `borrow_rate` must be zero and none of its ``options`` but `lot_size` in force, which vectorbt cannot express.
        Its `max_leverage` is not checked.

    Returns
    -------
    vectorbt.Portfolio
        One group that shares its cash, indexed by UTC without its time zone; ``.value()`` is comparable with
        ``BacktestResult.equity``.

    Raises
    ------
    ConfigurationError
        If vectorbt is not installed, `borrow_rate` is not zero, or an option is in force that vectorbt has not.
    ShapeError
        If `weights` does not have the shape of the panel.
    MissingDataError
        If ``config.fill`` is "open" and the panel has no `open`.

    Notes
    -----
    vectorbt never lets cash become negative: it cuts the last buys of a bar. So the two agree only while cash lasts.
    """
    vectorbt = _import_vectorbt(config)
    unknown = [name for name in config.options if name != "lot_size"]
    if unknown:
        raise ConfigurationError(f"vectorbt cannot express {', '.join(unknown)}; leave them at their defaults.")
    targets = np.asarray(weights, dtype=np.float64)
    if targets.shape != panel.shape:
        raise ShapeError(f"`weights` must have the panel's shape (n_bars, n_assets) = {panel.shape}, was {targets.shape}.")
    size = np.full(panel.shape, np.nan)
    size[1:] = targets[:-1]
    close = panel.frame("close").tz_localize(None)  # vectorbt converts stamps with a time zone one by one, many times over
    return vectorbt.Portfolio.from_orders(
        close,
        size=size,
        size_type="targetpercent",
        price=panel.get(config.fill),
        fees=config.commission_bps * 1e-4,
        slippage=config.slippage_bps * 1e-4,
        size_granularity=np.nan if config.lot_size is None else config.lot_size,
        init_cash=config.initial_cash,
        group_by=True,
        cash_sharing=True,
        call_seq="auto",
        freq="1D",
    )


def run_signals_with_vectorbt(panel: Panel, strategy: SignalStrategy, config: BacktestConfig) -> Any:
    """Trade entry and exit signals with vectorbt's ``Portfolio.from_signals``.

    Parameters
    ----------
    panel : Panel
    strategy : SignalStrategy
        As for `run_backtest`: row ``t`` is decided at the close of ``t`` and filled at ``t+1``.
    config : BacktestConfig
        Its `borrow_rate` must be zero, which vectorbt cannot charge. Its `max_leverage` is not obeyed.

    Returns
    -------
    vectorbt.Portfolio
        Every asset in an account of its own with the whole `initial_cash`, comparable with `run_backtest` of
        ``panel.select([symbol])``. `frame_vectorbt_trades` writes its trades as ours.

    Raises
    ------
    ConfigurationError
        If vectorbt is not installed, `borrow_rate` is not zero, the strategy has both a stop loss and a trailing stop, or it
        has entries of both sides: vectorbt can reverse a position, but not into a fraction of equity.
    ShapeError
        If `strategy` does not have the shape of the panel.
    MissingDataError
        If ``config.fill`` is "open" and the panel has no `open`.

    Notes
    -----
    Said in vectorbt's words: signals shifted by one bar, ``size_type="percent"``, stops measured from the price of the entry
    (``stop_entry_price="price"``) and filled at the stop with slippage (``stop_exit_price="stopmarket"``); vectorbt's own
    defaults are the signal's bar, the close of the bar, and no slippage. The two agree to 1e-9 but where

    - a position filled at the open is stopped on that bar: vectorbt watches stops from the next bar on;
    - a stop is touched on a bar at whose open an exit is filled: vectorbt takes the stop, which came later;
    - an exit has no price: vectorbt forgets it, ours waits;
    - prices end: vectorbt holds the position for ever, ours is sold at the last price;
    - a bar has neither open nor close but a high or low: vectorbt may stop on it, ours stops where there is a close;
    - the panel has `high` or `low` but no `open` and a target is passed: vectorbt fills at the close, ours at the target;
    - `size` is above 1: vectorbt borrows nothing;
    - a short position loses more than the account has: vectorbt goes below zero, ours is closed there.
    """
    vectorbt = _import_vectorbt(config)
    check_honoured(config)
    if strategy.stop_loss is not None and strategy.trailing_stop is not None:
        raise ConfigurationError("vectorbt has either a stop loss or a trailing stop, the strategy has both; leave one out.")
    if strategy.short_entries is not None and strategy.short_entries.any() and strategy.entries.any():
        raise ConfigurationError("vectorbt cannot reverse into a fraction of equity; split the strategy into its two sides.")
    if strategy.shape != panel.shape:
        raise ShapeError(f"`entries` must have the panel's shape (n_bars, n_assets) = {panel.shape}, was {strategy.shape}.")
    trailing = strategy.trailing_stop is not None
    return vectorbt.Portfolio.from_signals(
        panel.frame("close").tz_localize(None),
        entries=_shift(strategy.entries, panel),
        exits=_shift(strategy.exits, panel),
        short_entries=_shift(strategy.short_entries, panel),
        short_exits=_shift(strategy.short_exits, panel),
        price=panel.get(config.fill),
        open=panel.open,
        high=panel.high,
        low=panel.low,
        size=1.0 if strategy.size is None else strategy.size,
        size_type="percent",
        fees=config.commission_bps * 1e-4,
        slippage=config.slippage_bps * 1e-4,
        init_cash=config.initial_cash,
        sl_stop=_or_nan(strategy.trailing_stop if trailing else strategy.stop_loss),
        sl_trail=trailing,
        tp_stop=_or_nan(strategy.take_profit),
        stop_entry_price="price",
        stop_exit_price="stopmarket",
        freq="1D",
    )


def frame_vectorbt_trades(portfolio: Any) -> pd.DataFrame:
    """Write the trades of a vectorbt portfolio in the columns of `TradeList.records` that both have.

    Parameters
    ----------
    portfolio : vectorbt.Portfolio

    Returns
    -------
    DataFrame
        ``asset``, ``entry_bar``, ``exit_bar``, ``entry_price``, ``exit_price``, ``shares`` (negative for short), ``pnl``,
        ``return``, in order of entry; a trade that is still open is marked at the last price, as ours is.
    """
    records = portfolio.trades.values
    frame = pd.DataFrame(
        {
            "asset": records["col"],
            "entry_bar": records["entry_idx"],
            "exit_bar": records["exit_idx"],
            "entry_price": records["entry_price"],
            "exit_price": records["exit_price"],
            "shares": np.where(records["direction"] == 0, records["size"], -records["size"]),
            "pnl": records["pnl"],
            "return": records["return"],
        }
    )
    return frame.sort_values(["entry_bar", "asset"], ignore_index=True)


def _import_vectorbt(config: BacktestConfig) -> Any:
    try:
        import vectorbt
    except ImportError as error:
        raise ConfigurationError("vectorbt is not installed; run `pip install 'vectorbt>=1.2,<1.3'`.") from error
    if config.borrow_rate != 0.0:
        raise ConfigurationError(
            f"vectorbt cannot charge a borrow fee, `borrow_rate` was {config.borrow_rate:g}; "
            "pass `dataclasses.replace(config, borrow_rate=0.0)`."
        )
    return vectorbt


def _shift(signals: npt.NDArray[np.bool_] | None, panel: Panel) -> npt.NDArray[np.bool_]:
    shifted = np.zeros(panel.shape, np.bool_)
    if signals is not None:
        shifted[1:] = signals[:-1]
    return shifted


def _or_nan(stop: float | None) -> float:
    return math.nan if stop is None else stop
