"""The pass over bars that trades entry and exit signals with stops, one account for all assets.

Hides the order of events within a bar; `backtest.signals` says what it is and checks what comes in.
"""

from __future__ import annotations

import numpy as np
from numba import njit

LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT = 1, 2, 4, 8
REASONS = ("signal", "stop_loss", "take_profit", "trailing_stop", "delisted", "ruined", "end")
TRADE_FIELDS = ("asset", "entry_bar", "exit_bar", "reason", "entry_price", "exit_price", "shares", "pnl", "return")
_SIGNAL, _STOP_LOSS, _TAKE_PROFIT, _TRAILING_STOP, _DELISTED, _RUINED, _END = range(7)
_UNTOUCHED = -1
_STOPPED = 2  # no side of a position: nothing enters on the bar of a stop
CASH, FEES, SLIPPED, BORROWED, TRADED, ORDERS, TRADES = range(7)


@njit(cache=True, nogil=True)
def touch_stop(side, entry, best, stops, bar):  # type: ignore[no-untyped-def]
    """Return ``(price, reason)`` of the stop that a bar touches; reason -1 when it touches none.

    `side` is 1 for a long and -1 for a short position, `best` the most favourable price since the entry, `stops` are (stop
    loss, take profit, trailing stop) with NaN for none, `bar` is (open, high, low, close) with a known close.
    """
    stop_loss, take_profit, trailing = stops
    opened, high, low, close = bar
    has_open = opened == opened
    first = opened if has_open else close
    worst, favourable = (low, high) if side > 0.0 else (high, low)
    if worst != worst:
        worst = min(first, close) if side > 0.0 else max(first, close)
    has_extreme = favourable == favourable
    if not has_extreme:
        favourable = max(first, close) if side > 0.0 else min(first, close)

    reason = _UNTOUCHED
    level = 0.0
    if stop_loss == stop_loss:
        level = entry * (1.0 - side * stop_loss)
        reason = _STOP_LOSS
    if trailing == trailing:
        other = best * (1.0 - side * trailing)
        if reason == _UNTOUCHED or side * (other - level) > 0.0:
            level = other
            reason = _TRAILING_STOP
    if reason != _UNTOUCHED and side * (worst - level) <= 0.0:
        return (first if side * (first - level) < 0.0 else level), reason
    if take_profit == take_profit:
        level = entry * (1.0 + side * take_profit)
        if side * (favourable - level) >= 0.0:
            gap = side * (first - level) > 0.0 and (has_open or not has_extreme)
            return (first if gap else level), _TAKE_PROFIT
    return 0.0, _UNTOUCHED


@njit(cache=True, nogil=True)
def better_price(side, best, bar):  # type: ignore[no-untyped-def]
    """Return the most favourable price once the bar has passed."""
    opened, high, low, close = bar
    extreme = high if side > 0.0 else low
    if extreme != extreme:
        extreme = close
        if opened == opened and side * (opened - close) > 0.0:
            extreme = opened
    return extreme if side * (extreme - best) > 0.0 else best


@njit(cache=True, nogil=True)
def _close_position(j, t, price, reason, market, book, account, rates, trades):  # type: ignore[no-untyped-def]
    """Trade all shares of one asset at a quoted price, or mark them at it when `market` is False."""
    shares, _entry_price, entry_paid, entry_bar, charged = book
    slippage, commission = rates
    held = shares[j]
    side = 1.0 if held > 0.0 else -1.0
    paid = price
    fee = 0.0
    if market:
        paid = price * (1.0 - side * slippage)
        fee = abs(held) * paid * commission
        account[CASH] += held * paid - fee
        account[FEES] += fee
        account[SLIPPED] += abs(held) * price * slippage
        account[TRADED] += abs(held) * price
        account[ORDERS] += 1.0
    profit = held * (paid - entry_paid[j]) - fee - charged[j]
    row = trades[int(account[TRADES])]
    row[0], row[1], row[2], row[3] = j, entry_bar[j], t, reason
    row[4], row[5], row[6], row[7] = entry_paid[j], paid, held, profit
    row[8] = profit / (abs(held) * entry_paid[j])
    account[TRADES] += 1.0
    shares[j] = 0.0


@njit(cache=True, nogil=True)
def _run_stops(t, bars, stops, best, side_before, book, account, rates, trades):  # type: ignore[no-untyped-def]
    opens, highs, lows, closes = bars
    shares, entry_price = book[0], book[1]
    for j in range(len(shares)):
        if shares[j] == 0.0 or closes[t, j] != closes[t, j]:
            continue
        side = 1.0 if shares[j] > 0.0 else -1.0
        bar = (opens[t, j], highs[t, j], lows[t, j], closes[t, j])
        price, reason = touch_stop(side, entry_price[j], best[j], stops, bar)
        best[j] = better_price(side, best[j], bar)
        if reason != _UNTOUCHED:
            _close_position(j, t, price, reason, True, book, account, rates, trades)
            side_before[j] = _STOPPED


@njit(cache=True, nogil=True)
def simulate_signals(actions, fill, bars, delisting, stops, settings, series, orders, positions, trades):  # type: ignore[no-untyped-def]
    """Write `series`, `orders`, `positions` and `trades`; return the number of trades."""
    closes = bars[3]
    cash, commission, slippage, borrow, max_leverage, size, at_open = settings
    equity, net, gross, turnover, costs, exposure, net_exposure, cash_series, fees, slipped, borrowed = series
    n_bars, n_assets = closes.shape
    rates = (slippage, commission)
    has_stops = stops[0] == stops[0] or stops[1] == stops[1] or stops[2] == stops[2]
    shares, entry_price, entry_paid, charged = np.zeros((4, n_assets))
    book = (shares, entry_price, entry_paid, np.zeros(n_assets, np.int64), charged)  # charged: entry commission and borrow
    entry_bar = book[3]
    last, best = np.zeros((2, n_assets))
    waiting = np.zeros(n_assets, np.bool_)  # an exit that has found no price yet
    side_before = np.zeros(n_assets, np.int64)
    entering = np.zeros(n_assets, np.int64)
    account = np.zeros(7)
    account[CASH] = before = cash
    for t in range(n_bars):
        account[FEES] = account[SLIPPED] = account[BORROWED] = account[TRADED] = account[ORDERS] = 0.0
        for j in range(n_assets):
            side_before[j] = np.int64(np.sign(shares[j]))
            if shares[j] < 0.0:
                fee = -shares[j] * last[j] * borrow
                account[CASH] -= fee
                account[BORROWED] += fee
                charged[j] += fee
        value_before = account[CASH]
        for j in range(n_assets):
            price = fill[t, j]
            last[j] = price if price == price else last[j]
            value_before += shares[j] * last[j]

        if has_stops and not at_open:
            _run_stops(t, bars, stops, best, side_before, book, account, rates, trades)

        n_entering = 0
        for j in range(n_assets):
            action = actions[t - 1, j] if t > 0 else 0
            tradable = fill[t, j] == fill[t, j]
            if shares[j] != 0.0:
                leave = (LONG_EXIT | SHORT_ENTRY) if shares[j] > 0.0 else (SHORT_EXIT | LONG_ENTRY)
                waiting[j] |= (action & leave) != 0
                if waiting[j] and tradable:
                    _close_position(j, t, fill[t, j], _SIGNAL, True, book, account, rates, trades)
            entering[j] = 0
            if shares[j] == 0.0:
                waiting[j] = False
                side = 1 if action & LONG_ENTRY else (-1 if action & SHORT_ENTRY else 0)
                if side != 0 and tradable and t < delisting[j] and (side_before[j] == 0 or side_before[j] == -side):
                    entering[j] = side
                    n_entering += 1
        if n_entering > 0:
            value = account[CASH]
            invested = 0.0
            for j in range(n_assets):
                value += shares[j] * last[j]
                invested += abs(shares[j]) * last[j]
            each = size * value if size == size else max(value - invested, 0.0) / n_entering
            each = min(each, (max_leverage * value - invested) / n_entering)
            if each > 1e-12 * value:
                for j in range(n_assets):
                    if entering[j] == 0:
                        continue
                    sign = np.float64(entering[j])
                    price = fill[t, j]
                    paid = price * (1.0 + sign * slippage)
                    count = each / (paid * (1.0 + commission))
                    fee = count * paid * commission
                    account[CASH] -= each if sign > 0.0 else fee - count * paid
                    account[FEES] += fee
                    account[SLIPPED] += count * price * slippage
                    account[TRADED] += count * price
                    account[ORDERS] += 1.0
                    shares[j] = sign * count
                    entry_price[j] = best[j] = price
                    entry_paid[j] = paid
                    entry_bar[j] = t
                    charged[j] = fee

        if has_stops and at_open:
            _run_stops(t, bars, stops, best, side_before, book, account, rates, trades)

        for j in range(n_assets):
            if shares[j] != 0.0 and t >= delisting[j]:
                _close_position(j, t, last[j], _DELISTED, True, book, account, rates, trades)

        net_value = 0.0
        gross_value = 0.0
        for j in range(n_assets):
            price = closes[t, j]
            last[j] = price if price == price else last[j]
            net_value += shares[j] * last[j]
            gross_value += abs(shares[j]) * last[j]
        now = account[CASH] + net_value
        if now <= 0.0:
            for j in range(n_assets):
                if shares[j] != 0.0:
                    _close_position(j, t, last[j], _RUINED, False, book, account, rates, trades)
            now = account[CASH] = net_value = gross_value = 0.0
        equity[t] = now
        cash_series[t] = account[CASH]
        net[t] = now / before - 1.0 if before > 0.0 else 0.0
        scale = 1.0 / before if before > 0.0 else 0.0
        fees[t] = account[FEES] * scale
        slipped[t] = account[SLIPPED] * scale
        borrowed[t] = account[BORROWED] * scale
        costs[t] = fees[t] + slipped[t] + borrowed[t]
        gross[t] = net[t] + costs[t]
        turnover[t] = account[TRADED] / value_before if value_before > 0.0 else 0.0
        exposure[t] = gross_value / now if now > 0.0 else 0.0
        net_exposure[t] = net_value / now if now > 0.0 else 0.0
        orders[t] = np.int64(account[ORDERS])
        if positions.shape[0] > 0:
            positions[t] = shares
        before = now

    for j in range(n_assets):
        if shares[j] != 0.0:
            _close_position(j, n_bars - 1, last[j], _END, False, book, account, rates, trades)
    return int(account[TRADES])
