"""Families of strategies that are long while one line is above another, and the fast pass over all their combinations.

Hides the tables that let a combination be judged from its crossings alone. Promises the figures of the same strategy run
bar by bar, whatever the number of threads, without an array of signals or equity for any combination.
"""

from __future__ import annotations

import itertools
import math
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from backtest.config import BacktestConfig
from backtest.crossing_kernel import FIGURES, TOLERANCE, average_lines, build_ranges, sweep_crossings
from backtest.signals import (
    SignalStrategy,
    account_settings,
    build_bars,
    check_honoured,
    check_size,
    check_stops,
    find_delisting,
)
from core.errors import ConfigurationError, DataError, ShapeError
from core.market.panel import Panel

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]
Levels = float | Sequence[float | None] | None

_CHUNK = 2_048
_TILE = 16  # lines that are compared with each other while they are in the cache


@runtime_checkable
class CrossingFamily(Protocol):
    """What a family of crossing strategies has to say; write a frozen class with these four to sweep your own.

    Combination ``i`` buys at the bar where line ``pairs[i, 0]`` moves above line ``pairs[i, 1]``, and sells where it ceases to
    be above, or at one of the stops ``stops[i]``. Both lines must be known on the bar before. Above means by more than
    1e-12 of the lower line, so that lines that differ by rounding do not cross.
    """

    @property
    def pairs(self) -> IntArray:
        """Lines of each combination, shape (n_combinations, 2)."""

    @property
    def stops(self) -> FloatArray:
        """Stop loss, take profit and trailing stop of each combination, NaN for none, shape (n_combinations, 3)."""

    @property
    def size(self) -> float:
        """Fraction of equity that an entry commits, in (0, 1]."""

    def lines(self, close: FloatArray) -> FloatArray:
        """Compute all lines of one asset, shape (n_lines, n_bars), from closes of shape (n_bars,).

        A missing close comes as the last known one, NaN before the first. Column ``t`` may use ``close[: t + 1]`` alone; it
        is NaN until a line is known and finite ever after.
        """

    def parameters(self, combination: int) -> dict[str, Any]:
        """Return the parameters of one combination by name."""


@dataclass(frozen=True, kw_only=True)
class MovingAverageCrossings:
    """Describe all crossings of two simple moving averages, with or without stops.

    Parameters
    ----------
    fast, slow : sequence of int
        Windows in bars. Every pair with ``fast < slow`` is a combination.
    stop_loss, take_profit, trailing_stop : float or sequence of float or None, optional
        As in `SignalStrategy`; of a sequence, every level is combined with every pair.
    size : float, default=1.0
        Fraction of equity that an entry commits, in (0, 1]; 1 is all-in and the fastest.

    Raises
    ------
    ConfigurationError
        If a window is not a whole number of at least 1, no pair is left, a stop is out of its range, or `size` is not in
        (0, 1].

    Notes
    -----
    Combinations are in the order of fast, slow, stop loss, take profit, trailing stop, the last changing first.
    """

    fast: Sequence[int]
    slow: Sequence[int]
    stop_loss: Levels = None
    take_profit: Levels = None
    trailing_stop: Levels = None
    size: float = 1.0

    def __post_init__(self) -> None:
        for name in ("fast", "slow"):
            windows = tuple(getattr(self, name))
            for window in windows:
                if isinstance(window, bool) or not isinstance(window, int | np.integer) or window < 1:
                    raise ConfigurationError(f"`{name}` must be whole numbers of bars of at least 1, had {window!r}.")
            object.__setattr__(self, name, tuple(int(window) for window in windows))
        for name in ("stop_loss", "take_profit", "trailing_stop"):
            value = getattr(self, name)
            levels = (value,) if value is None or np.isscalar(value) else tuple(value)
            for level in levels:
                check_stops(*(level if name == other else None for other in ("stop_loss", "take_profit", "trailing_stop")))
            if not levels:
                raise ConfigurationError(f"`{name}` must have at least one level; write None for no stop.")
            object.__setattr__(self, name, levels)
        if not len(self.pairs):
            raise ConfigurationError(
                f"no pair has fast < slow: fast windows are {self.fast}, slow ones {self.slow}; make `slow` longer."
            )
        _check_family_size(self.size)

    @cached_property
    def _windows(self) -> IntArray:
        return np.unique(np.array([*self.fast, *self.slow], dtype=np.int64))

    @cached_property
    def _stop_sets(self) -> FloatArray:
        levels = itertools.product(self.stop_loss, self.take_profit, self.trailing_stop)  # type: ignore[arg-type]
        return np.array([[math.nan if level is None else level for level in each] for each in levels], dtype=np.float64)

    @cached_property
    def _window_pairs(self) -> IntArray:
        chosen = [(fast, slow) for fast in self.fast for slow in self.slow if fast < slow]
        return np.array(chosen, dtype=np.int64).reshape(-1, 2)

    @cached_property
    def pairs(self) -> IntArray:
        """Rows of `lines` of each combination, shape (n_combinations, 2)."""
        return np.repeat(np.searchsorted(self._windows, self._window_pairs), len(self._stop_sets), axis=0)

    @cached_property
    def stops(self) -> FloatArray:
        """Stop loss, take profit and trailing stop of each combination, NaN for none, shape (n_combinations, 3)."""
        return np.tile(self._stop_sets, (len(self._window_pairs), 1))

    def lines(self, close: FloatArray) -> FloatArray:
        """Compute the simple moving average of every window, shape (n_windows, n_bars); NaN until a window is full."""
        out = np.empty((len(self._windows), len(close)))
        average_lines(np.ascontiguousarray(close), self._windows, out)
        return out

    def parameters(self, combination: int) -> dict[str, Any]:
        """Return windows and stops of one combination; a stop that is not set is None."""
        fast, slow = self._window_pairs[combination // len(self._stop_sets)]
        levels = self._stop_sets[combination % len(self._stop_sets)]
        named = zip(("stop_loss", "take_profit", "trailing_stop"), levels, strict=True)
        return {"fast": int(fast), "slow": int(slow)} | {
            name: None if math.isnan(level) else float(level) for name, level in named
        }

    def __len__(self) -> int:
        return len(self._window_pairs) * len(self._stop_sets)

    def __repr__(self) -> str:
        return f"MovingAverageCrossings({len(self._window_pairs)} pairs x {len(self._stop_sets)} stops, size {self.size:g})"


def build_strategy(family: CrossingFamily, close: FloatArray, combination: int) -> SignalStrategy:
    """Build one combination of a family as signals of one asset.

    Parameters
    ----------
    family : CrossingFamily
    close : ndarray of shape (n_bars,), prices
    combination : int

    Returns
    -------
    SignalStrategy
        Of shape (n_bars, 1).
    """
    lines, _ = _compute_lines(family, fill_forward(close))
    fast, slow = (lines[row] for row in family.pairs[combination])
    above = fast - slow > TOLERANCE * np.abs(slow)
    changed = np.zeros((len(close), 1), np.bool_)
    changed[1:, 0] = (above[1:] != above[:-1]) & np.isfinite(fast[:-1]) & np.isfinite(slow[:-1])
    stop_loss, take_profit, trailing_stop = (None if math.isnan(stop) else float(stop) for stop in family.stops[combination])
    return SignalStrategy(
        entries=changed & above[:, None],
        exits=changed & ~above[:, None],
        stop_loss=stop_loss,
        take_profit=take_profit,
        trailing_stop=trailing_stop,
        size=family.size,
    )


def sweep_family(
    panel: Panel, family: CrossingFamily, config: BacktestConfig, *, n_threads: int, progress: Progress | None
) -> FloatArray:
    """Judge every combination on every asset alone.

    Returns
    -------
    ndarray of shape (n_assets * n_combinations, 7)
        The `FIGURES`, asset by asset.

    Raises
    ------
    ConfigurationError, DataError, MissingDataError, ShapeError
        As `backtest.sweep.run_sweep`.
    """
    pairs, stop_of, stop_sets = _check_family(family)
    check_honoured(config)
    fill, bars = build_bars(panel, config)
    delisting = find_delisting(panel.close)
    _, commission, slippage, _, max_leverage = account_settings(config)
    at_open = config.fill == "open"
    settings = (commission, slippage, min(float(family.size), max_leverage), at_open, float(config.periods_per_year))
    n_tiles = int(pairs.max()) // _TILE + 1
    tile = (stop_of * n_tiles + pairs[:, 0] // _TILE) * n_tiles + pairs[:, 1] // _TILE
    order = np.argsort(tile.astype(np.uint16) if tile.max() < 2**16 else tile, kind="stable")  # short keys sort by counting
    chunk = max(1, min(_CHUNK, -(-len(order) // (4 * n_threads))))
    out = np.empty((panel.n_assets * len(pairs), len(FIGURES)))
    done, total = 0, len(out)
    for column in range(panel.n_assets):
        lines, known_from = _compute_lines(family, fill_forward(panel.close[:, column]))
        if pairs.max() >= len(lines):
            raise ShapeError(f"`pairs` names line {pairs.max()}, `lines` gave {len(lines)}.")
        market = _build_market(fill, bars, column, at_open, int(delisting[column]))
        rows = out[column * len(pairs) : (column + 1) * len(pairs)]
        scratches: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        for _ in range(n_threads):
            scratches.put(_build_scratch(panel.n_bars))

        def sweep(part: IntArray, *shared: Any, scratches: Any = scratches) -> int:
            scratch = scratches.get()
            sweep_crossings(part, *shared[:-1], scratch, shared[-1])
            scratches.put(scratch)
            return len(part)

        shared = (lines, known_from, pairs, stop_of, stop_sets, market, settings, rows)
        with ThreadPoolExecutor(max_workers=n_threads) as pool:
            parts = [pool.submit(sweep, order[start : start + chunk], *shared) for start in range(0, len(order), chunk)]
            for part in as_completed(parts):
                done += part.result()
                if progress is not None:
                    progress(done, total)
    return out


def fill_forward(prices: FloatArray) -> FloatArray:
    """Return prices of shape (n_bars,) with a missing one replaced by the last known; NaN before the first."""
    known = np.where(np.isnan(prices), 0, np.arange(len(prices)))
    return np.ascontiguousarray(prices[np.maximum.accumulate(known)])


def _build_market(
    fill: FloatArray, bars: tuple[FloatArray, ...], column: int, at_open: bool, delisting: int
) -> tuple[Any, ...]:
    columns = [np.ascontiguousarray(values[:, column]) for values in (fill, *bars)]
    known, close = columns[0], columns[-1]
    n_bars = len(close)
    mark = fill_forward(np.where(np.isnan(close), known, close) if at_open else close)
    returns = np.zeros(n_bars)
    returns[1:] = mark[1:] / mark[:-1] - 1.0
    returns[np.isnan(returns)] = 0.0
    tradable = np.where(np.isnan(known), n_bars, np.arange(n_bars))
    next_fill = np.ascontiguousarray(np.minimum.accumulate(tradable[::-1])[::-1])
    return (*columns, mark, next_fill, np.cumsum(returns), np.cumsum(returns**2), build_ranges(mark), delisting)


def _build_scratch(n_bars: int) -> tuple[Any, ...]:
    above = np.zeros(n_bars // 64 + 1, np.uint64)
    pointers = np.full((n_bars, 2), -1, np.int64)
    return (
        above,
        np.empty(n_bars + 1, np.int64),
        pointers,
        np.empty((n_bars, 2)),
        np.full(1, -1, np.int64),
    )


def _compute_lines(family: CrossingFamily, close: FloatArray) -> tuple[FloatArray, IntArray]:
    """Return the lines, and the bar from which each of them is known; the number of bars for one that never is."""
    lines = np.ascontiguousarray(family.lines(close), dtype=np.float64)
    if lines.ndim != 2 or lines.shape[1] != len(close):
        raise ShapeError(
            f"`lines` must give an array of shape (n_lines, n_bars) with n_bars = {len(close)}, gave {lines.shape}."
        )
    finite = np.isfinite(lines)
    known_from = len(close) - np.count_nonzero(finite, axis=1)
    wrong = (known_from < len(close)) & (np.argmax(finite, axis=1) != known_from)
    if wrong.any():
        row = int(np.argmax(wrong))
        bar = int(np.flatnonzero(finite[row, :-1] & ~finite[row, 1:])[0])
        raise DataError(f"a line must be finite once it is known, line {row} was {lines[row, bar + 1]} at bar {bar + 1}.")
    return lines, known_from


def _check_family(family: CrossingFamily) -> tuple[IntArray, IntArray, FloatArray]:
    pairs = np.ascontiguousarray(family.pairs, dtype=np.int64)
    stops = np.ascontiguousarray(family.stops, dtype=np.float64)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs) or pairs.min() < 0:
        raise ShapeError(f"`pairs` must be line numbers of shape (n_combinations, 2), was of shape {pairs.shape}.")
    if stops.shape != (len(pairs), 3):
        raise ShapeError(f"`stops` must have shape (n_combinations, 3) = {(len(pairs), 3)}, was {stops.shape}.")
    _check_family_size(family.size)
    stop_sets, stop_of = _find_stop_sets(stops)
    for each in stop_sets:
        check_stops(*(None if math.isnan(stop) else float(stop) for stop in each))
    return pairs, stop_of, stop_sets


def _find_stop_sets(stops: FloatArray) -> tuple[FloatArray, IntArray]:
    comparable = np.where(np.isnan(stops), -1.0, stops)  # NaN is not equal to itself
    stop_of = np.zeros(len(stops), np.int64)
    if (comparable == comparable[0]).all():
        return stops[:1], stop_of
    ranked = np.lexsort(comparable.T)
    first = np.ones(len(stops), np.bool_)
    first[1:] = (comparable[ranked[1:]] != comparable[ranked[:-1]]).any(axis=1)
    stop_of[ranked] = np.cumsum(first) - 1
    return stops[ranked[first]], stop_of


def _check_family_size(size: float) -> None:
    check_size(size)
    if size is None or size > 1.0:
        raise ConfigurationError(f"`size` of a family must be in (0, 1], was {size!r}.")
