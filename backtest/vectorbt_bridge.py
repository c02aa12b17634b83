"""The same run through vectorbt: for exploring, and as the referee of our own kernel.

Hides how our timing and costs are said in vectorbt's words. vectorbt is imported on first use; it takes seconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from backtest.config import BacktestConfig
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
    try:
        import vectorbt
    except ImportError as error:
        raise ConfigurationError("vectorbt is not installed; run `pip install 'vectorbt>=1.2,<1.3'`.") from error
    if config.borrow_rate != 0.0:
        raise ConfigurationError(
            f"vectorbt cannot charge a borrow fee, `borrow_rate` was {config.borrow_rate:g}; "
            "pass `dataclasses.replace(config, borrow_rate=0.0)`."
        )
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
