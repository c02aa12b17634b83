"""The trades of a run over weights: what was bought, when it was sold, and what it brought.

Hides how a path of shares held becomes a list of trades. Promises that the profits of all trades, those still open included,
add up to the profit of the account.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from numba import njit

from backtest.engine import BacktestResult
from core.errors import DataError
from core.market.panel import Panel

FloatArray = npt.NDArray[np.float64]

OPEN = "end"
"""Reason of a trade that was still open at the last bar, here and in lists of signal trades."""


def list_trades(result: BacktestResult, panel: Panel) -> pd.DataFrame:
    """List the trades of a run by average cost.

    A trade is a part of a position that is closed. While a position grows, its entry price is the mean of what was paid;
    whatever reduces it closes that many shares at that mean. A position that changes its sign is closed and opened anew.

    Parameters
    ----------
    result : BacktestResult
        Run with ``keep_positions=True``. Of a slice, what is held at its first bar counts as opened there at the close.
    panel : Panel
        That was backtested.

    Returns
    -------
    DataFrame
        One row a trade in order of closing: `symbol`; `entry_bar` and `exit_bar`, positions in the result, and `entry_time`
        and `exit_time`, their closes, where entry is when the position left zero; quoted `entry_price` and `exit_price`;
        `shares`, negative for a short trade; `pnl`, in the currency of the prices, after costs of entry, exit and borrow;
        `return`, the `pnl` over the value at entry; `reason`, ``"weights"`` for what the weights closed and ``"end"`` for
        what was held at the last bar, which comes last and is valued at the last known close.

    Raises
    ------
    DataError
        If the run did not keep its positions, the panel does not hold its bars, or it held what the panel never had a price of.

    Notes
    -----
    These are vectorbt's ``exit_trades``. It charges each order its own costs; we share what trading cost at a bar among its
    orders by the value traded, so that any model of costs can be listed. Shares that change where there is no price (a
    delisting) are settled at the last one.
    """
    if result.positions is None:
        raise DataError("the run did not keep its positions; run it with `run_backtest(..., keep_positions=True)`.")
    rows = find_bars(result, panel)
    fill, close = panel.get(result.config.fill)[rows], panel.close[rows]
    positions = np.ascontiguousarray(result.positions)
    if positions.shape != close.shape:
        raise DataError(f"`panel` must have the {positions.shape[1]} assets of the run, had {panel.n_assets}.")
    change = np.diff(positions, axis=0, prepend=positions[:1])
    known = pd.DataFrame(close).ffill().to_numpy(dtype=np.float64, copy=True)
    paid = np.where(np.isfinite(fill), fill, np.vstack([known[:1], known[:-1]]))
    paid[0] = known[0]
    unknown = (positions != 0.0) & ~np.isfinite(known)
    if unknown.any():
        bar, asset = np.argwhere(unknown)[0]
        raise DataError(
            f"{panel.symbols[asset]} was held at {result.index[bar]:%Y-%m-%d} but `panel` has no price of it until then; "
            "pass the panel that was backtested."
        )
    borrow = result.config.borrow_rate / result.config.periods_per_year
    traded = (np.abs(change) * np.where(change != 0.0, paid, 0.0)).sum(axis=1)
    rate = np.zeros(len(traded))
    np.divide(_trading_costs(result), traded, out=rate, where=traded > 0.0)
    rate[0] = 0.0
    found = np.empty((int(np.count_nonzero(change)) + 2 * panel.n_assets, 7))
    found = found[: _match(positions, paid, known, rate, borrow, found)]
    asset, opened, closed, shares, entry, leave, pnl = found.T
    first, last = opened.astype(np.int64), np.abs(closed).astype(np.int64) - 1
    table = pd.DataFrame(
        {
            "symbol": np.asarray(panel.symbols, dtype=object)[asset.astype(np.int64)],
            "entry_bar": first,
            "entry_time": result.index[first],
            "entry_price": entry,
            "exit_bar": last,
            "exit_time": result.index[last],
            "exit_price": leave,
            "shares": shares,
            "pnl": pnl,
            "return": pnl / np.abs(shares * entry),
            "reason": np.where(closed < 0, OPEN, "weights").astype(object),
        }
    )
    order = np.lexsort((first, last, closed < 0))
    return table.iloc[order].reset_index(drop=True)


def find_bars(result: BacktestResult, panel: Panel) -> slice:
    """Find the bars of a run in a panel.

    Raises
    ------
    DataError
        If the panel does not hold them one after the other.
    """
    rows = panel.index.get_indexer(result.index)
    if (rows < 0).any() or rows[-1] - rows[0] + 1 != len(rows):
        raise DataError(
            f"`panel` must hold the {result.n_bars} bars {result.index[0]} to {result.index[-1]} of the run one after the "
            f"other, {int((rows >= 0).sum())} of them are in it; pass the panel that was backtested."
        )
    return slice(int(rows[0]), int(rows[-1]) + 1)


def _trading_costs(result: BacktestResult) -> FloatArray:
    """Return what trading cost at each bar, in currency: all costs but borrow and interest."""
    shares = [cost for cost in (result.commission, result.slippage, result.impact) if cost is not None]
    before = np.concatenate([[0.0], result.equity[:-1]])
    paid: FloatArray = np.sum(shares, axis=0) * before
    return paid


@njit(cache=True, nogil=True)
def _note(row, asset, opened, closed, shares, entry, leave, pnl):  # type: ignore[no-untyped-def]
    row[0], row[1], row[2], row[3] = asset, opened, closed, shares
    row[4], row[5], row[6] = entry, leave, pnl


@njit(cache=True, nogil=True)
def _match(positions, fill, close, rate, borrow, out):  # type: ignore[no-untyped-def]
    """Write ``asset, opened, closed, shares, entry, exit, pnl`` of each trade; `closed` is 1 + bar, negative when open."""
    n_bars, n_assets = positions.shape
    n = 0
    for j in range(n_assets):
        held = 0.0
        entry = 0.0
        carry = 0.0
        opened = 0
        for t in range(n_bars):
            if held < 0.0:
                carry -= held * close[t - 1, j] * borrow
            now = positions[t, j]
            delta = now - held
            if delta == 0.0:
                continue
            price = fill[t, j]
            cost = abs(delta) * price * rate[t]
            if held == 0.0:
                entry = price
                carry = cost
                opened = t
            elif held * delta > 0.0:
                entry = (entry * held + price * delta) / now
                carry += cost
            else:
                part = min(abs(delta), abs(held))
                signed = part if held > 0.0 else -part
                share = part / abs(held)
                paid = carry * share + cost * part / abs(delta)
                _note(out[n], j, opened, t + 1, signed, entry, price, signed * (price - entry) - paid)
                n += 1
                carry *= 1.0 - share
                if held * now < 0.0:
                    entry = price
                    carry = cost * abs(now) / abs(delta)
                    opened = t
            held = now
        if held != 0.0:
            last = close[n_bars - 1, j]
            _note(out[n], j, opened, -n_bars, held, entry, last, held * (last - entry) - carry)
            n += 1
    return n
