"""Entry and exit signals with stops: what a strategy of them is, and the account that trades it.

Promises that a `SignalStrategy` that exists is valid, that a signal of bar ``t`` touches nothing before bar ``t+1``, and
that cash and positions add up to equity at every bar. `backtest.engine.run_backtest` is the door to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.config import BacktestConfig
from backtest.signal_kernel import (
    LONG_ENTRY,
    LONG_EXIT,
    REASONS,
    SHORT_ENTRY,
    SHORT_EXIT,
    TRADE_FIELDS,
    simulate_signals,
)
from core.errors import ConfigurationError, DataError, ShapeError
from core.market.panel import Panel

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class SignalStrategy:
    """Hold when to enter and leave, where to stop, and how much to commit.

    Parameters
    ----------
    entries : array_like of bool of shape (n_bars, n_assets)
        Buy: decided at the close of the bar, filled at the next one.
    exits : array_like of bool of shape (n_bars, n_assets), optional
        Sell what is held long. None never does.
    short_entries : array_like of bool of shape (n_bars, n_assets), optional
        Sell short.
    short_exits : array_like of bool of shape (n_bars, n_assets), optional
        Buy back what is held short.
    stop_loss : float, optional
        Loss from the quoted price of the entry at which to leave, a fraction (0.05 is 5 % below the entry of a long position).
    take_profit : float, optional
        Gain from the quoted price of the entry at which to leave, a fraction.
    trailing_stop : float, optional
        Fall from the best price since the entry at which to leave, a fraction.
    size : float or None, default=1.0
        Fraction of equity that each entry commits, its costs included. None is all-in: entries of one bar share what is
        not yet invested equally.

    Raises
    ------
    ShapeError
        If the arrays are not two-dimensional, of one shape and of booleans.
    ConfigurationError
        If a stop or the size is out of its range.

    Notes
    -----
    The arrays are copied and read-only.
    """

    entries: BoolArray
    exits: BoolArray | None = None
    short_entries: BoolArray | None = None
    short_exits: BoolArray | None = None
    stop_loss: float | None = None
    take_profit: float | None = None
    trailing_stop: float | None = None
    size: float | None = 1.0

    def __post_init__(self) -> None:
        shape = np.shape(self.entries)
        for name in ("entries", "exits", "short_entries", "short_exits"):
            value = getattr(self, name)
            if value is not None or name == "entries":
                object.__setattr__(self, name, _check_signals(name, value, shape))
        check_stops(self.stop_loss, self.take_profit, self.trailing_stop)
        check_size(self.size)

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_bars, n_assets)``."""
        return self.entries.shape

    @property
    def stops(self) -> tuple[float, float, float]:
        """Stop loss, take profit and trailing stop as fractions, NaN for none."""
        given = (self.stop_loss, self.take_profit, self.trailing_stop)
        return tuple(math.nan if stop is None else float(stop) for stop in given)  # type: ignore[return-value]

    def build_actions(self) -> ByteArray:
        """Return the signals as bits, one byte a cell, without those that contradict each other."""
        actions = np.zeros(self.shape, np.uint8)
        sides = ((self.entries, LONG_ENTRY), (self.exits, LONG_EXIT))
        sides += ((self.short_entries, SHORT_ENTRY), (self.short_exits, SHORT_EXIT))  # type: ignore[assignment]
        for signals, bit in sides:
            if signals is not None:
                actions |= signals.astype(np.uint8) * np.uint8(bit)
        for pair in (LONG_ENTRY | LONG_EXIT, SHORT_ENTRY | SHORT_EXIT, LONG_ENTRY | SHORT_ENTRY):
            actions[actions & pair == pair] &= np.uint8(0xFF ^ pair)
        actions.flags.writeable = False  # one array type means one compilation
        return actions

    def __repr__(self) -> str:
        names = ("stop_loss", "take_profit", "trailing_stop")
        shown = [f"{name} {value:g}" for name in names if (value := getattr(self, name)) is not None]
        shown.append("all-in" if self.size is None else f"size {self.size:g}")
        count = int(self.entries.sum()) + (0 if self.short_entries is None else int(self.short_entries.sum()))
        return f"SignalStrategy({self.shape[0]} bars x {self.shape[1]} assets, {count} entries, {', '.join(shown)})"


@dataclass(frozen=True, kw_only=True, eq=False)
class TradeList:
    """Hold the trades of a signal strategy, from entry to exit, in order of entry.

    Parameters
    ----------
    records : structured ndarray of shape (n_trades,), read-only
        ``asset``, ``entry_bar``, ``exit_bar`` : positions in the panel. ``entry_price``, ``exit_price`` : paid and received,
        slippage included, currency. ``shares`` : negative for short. ``pnl`` : currency, after commission and borrow.
        ``return`` : ``pnl`` over the value of the entry, a fraction. ``reason`` : index into `REASONS`.
    index : pandas.DatetimeIndex of length n_bars
    symbols : tuple of str

    Notes
    -----
    The reasons are ``signal``, ``stop_loss``, ``take_profit``, ``trailing_stop``; ``delisted`` for a symbol whose prices
    end; ``ruined`` for what was held when the account lost everything; and ``end`` for a position that was still open at
    the last bar. The last two are marked at the last known price and not sold.
    """

    records: npt.NDArray[np.void]
    index: pd.DatetimeIndex
    symbols: tuple[str, ...]

    def __post_init__(self) -> None:
        self.records.setflags(write=False)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def win_rate(self) -> float:
        """Share of the trades that were closed with a profit after costs; NaN when none was closed."""
        closed = self.records[self.records["reason"] != REASONS.index("end")]
        return float(np.mean(closed["pnl"] > 0.0)) if len(closed) else math.nan

    def to_frame(self) -> pd.DataFrame:
        """Return one row a trade, with symbols, times and reasons written out."""
        records = self.records
        return pd.DataFrame(
            {
                "symbol": [self.symbols[column] for column in records["asset"]],
                "entry_bar": records["entry_bar"],
                "entry_time": self.index[records["entry_bar"]],
                "entry_price": records["entry_price"],
                "exit_bar": records["exit_bar"],
                "exit_time": self.index[records["exit_bar"]],
                "exit_price": records["exit_price"],
                "shares": records["shares"],
                "pnl": records["pnl"],
                "return": records["return"],
                "reason": [REASONS[code] for code in records["reason"]],
            }
        )

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(max_rows=20))

    def __repr__(self) -> str:
        return f"TradeList({len(self)} trades, {float(self.records['pnl'].sum()):,.2f} pnl)"


def trade_signals(
    panel: Panel, strategy: SignalStrategy, config: BacktestConfig, series: FloatArray, *, keep_positions: bool
) -> tuple[npt.NDArray[np.int64], FloatArray, TradeList]:
    """Run one strategy; `backtest.engine.run_backtest` documents what happens.

    Parameters
    ----------
    panel : Panel
    strategy : SignalStrategy
    config : BacktestConfig
    series : ndarray of shape (13, n_bars)
        Written, in the order of the fields of `BacktestResult` and the kinds of cost.
    keep_positions : bool

    Returns
    -------
    orders : ndarray of int64 of shape (n_bars,)
    positions : ndarray of shape (n_bars, n_assets), or (0, n_assets) without `keep_positions`
    trades : TradeList
    """
    if strategy.shape != panel.shape:
        raise ShapeError(f"`entries` must have the panel's shape (n_bars, n_assets) = {panel.shape}, was {strategy.shape}.")
    check_honoured(config)
    fill, bars = build_bars(panel, config)
    actions = strategy.build_actions()
    capacity = int(np.count_nonzero(actions & (LONG_ENTRY | SHORT_ENTRY)))
    series[-2:] = 0.0  # no impact, no interest
    orders = np.zeros(panel.n_bars, np.int64)
    positions = np.empty(panel.shape if keep_positions else (0, panel.n_assets))
    rows = np.empty((capacity, len(TRADE_FIELDS)))
    settings = (*account_settings(config), math.nan if strategy.size is None else float(strategy.size), config.fill == "open")
    stops = strategy.stops
    count = simulate_signals(
        actions, fill, bars, find_delisting(panel.close), stops, settings, tuple(series[:-2]), orders, positions, rows
    )
    return orders, positions, TradeList(records=_build_records(rows[:count]), index=panel.index, symbols=panel.symbols)


def account_settings(config: BacktestConfig) -> tuple[float, float, float, float, float]:
    """Return cash, commission, slippage, borrow per bar and leverage, as the kernels take them."""
    return (
        float(config.initial_cash),
        config.commission_bps * 1e-4,
        config.slippage_bps * 1e-4,
        config.borrow_rate / config.periods_per_year,
        float(config.max_leverage),
    )


def build_bars(panel: Panel, config: BacktestConfig) -> tuple[FloatArray, tuple[FloatArray, ...]]:
    """Return fill prices and (open, high, low, close), NaN where the panel has none.

    Raises
    ------
    DataError
        If a price is not positive or not finite.
    MissingDataError
        If ``config.fill`` is "open" and the panel has no `open`.
    """
    fill = panel.get(config.fill)
    absent = np.full(panel.shape, np.nan)
    absent.flags.writeable = False
    columns = []
    for name in ("open", "high", "low", "close"):
        values = absent if getattr(panel, name) is None else panel.get(name)
        bad = (values <= 0.0) | np.isinf(values)
        if bad.any():
            bar, column = (int(i) for i in np.argwhere(bad)[0])
            raise DataError(
                f"prices must be positive and finite, `{name}` of {panel.symbols[column]} at bar {bar} "
                f"({panel.index[bar]:%Y-%m-%d}) was {values[bar, column]:g}; mark missing prices with NaN."
            )
        columns.append(values)
    return fill, tuple(columns)


def find_delisting(close: FloatArray) -> npt.NDArray[np.int64]:
    """Return the bar after the last close of each asset: n_bars where prices do not end, 0 where there are none."""
    known = ~np.isnan(close)
    n_bars = len(close)
    return np.where(known.any(axis=0), n_bars - np.argmax(known[::-1], axis=0), 0).astype(np.int64)


def check_honoured(config: BacktestConfig) -> None:
    """Refuse options that signals do not obey, rather than run without them.

    Raises
    ------
    ConfigurationError
        If one of ``config.options`` is in force.
    """
    if config.options:
        raise ConfigurationError(
            f"only target weights obey {', '.join(config.options)}; leave it at its default to trade signals."
        )


def check_stops(stop_loss: float | None, take_profit: float | None, trailing_stop: float | None) -> None:
    """Refuse stops that no price can reach.

    Raises
    ------
    ConfigurationError
        If a stop loss or a trailing stop is not in (0, 1), or a take profit not positive and finite.
    """
    for name, value, high in (
        ("stop_loss", stop_loss, 1.0),
        ("take_profit", take_profit, math.inf),
        ("trailing_stop", trailing_stop, 1.0),
    ):
        if value is not None and not (_is_number(value) and 0.0 < value < high):
            raise ConfigurationError(f"`{name}` must be a fraction in (0, {high:g}) or None, was {value!r}.")


def check_size(size: float | None) -> None:
    """Refuse a size that commits nothing.

    Raises
    ------
    ConfigurationError
        If it is not in (0, 100] and not None.
    """
    if size is not None and not (_is_number(size) and 0.0 < size <= 100.0):
        raise ConfigurationError(f"`size` must be a fraction of equity in (0, 100] or None for all-in, was {size!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.floating | np.integer) and not isinstance(value, bool)


def _check_signals(name: str, value: Any, shape: tuple[int, ...]) -> BoolArray:
    array = np.array(value, order="C", copy=True)
    if array.ndim != 2 or array.dtype != np.bool_:
        raise ShapeError(
            f"`{name}` must be booleans of shape (n_bars, n_assets), was {array.dtype} of shape {array.shape}; "
            "a missing value is no signal: write False."
        )
    if array.shape != shape:
        raise ShapeError(f"`{name}` must have the shape of `entries`, {shape}, was {array.shape}.")
    array.setflags(write=False)
    return array


def _build_records(rows: FloatArray) -> npt.NDArray[np.void]:
    whole = set(TRADE_FIELDS[:4])
    records = np.empty(len(rows), dtype=[(name, np.int64 if name in whole else np.float64) for name in TRADE_FIELDS])
    for column, name in enumerate(TRADE_FIELDS):
        records[name] = rows[:, column]
    return records[np.lexsort((records["asset"], records["entry_bar"]))]
