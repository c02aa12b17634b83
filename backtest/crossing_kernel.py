"""The pass over the crossings of two lines that never visits a bar where nothing happens.

Hides how a trade is priced without its bars: prefix sums of returns for the Sharpe ratio, a disjoint sparse table for the
drawdown, and for each entry bar a pointer to the bar of its stop that is moved on only as far as a combination asks.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from backtest.signal_kernel import better_price, touch_stop

FIGURES = ("total_return", "sharpe", "max_drawdown", "n_orders", "n_trades", "win_rate", "exposure")
_SEEN_TO, _STOP_BAR = range(2)
_BEST, _STOP_PRICE = range(2)
_LOW, _HIGH, _FALL = range(3)
# Two averages of one constant price differ by rounding. A line is above another when it is by more than this fraction.
TOLERANCE = 1e-12

_ONE = np.uint64(1)
# A power of two times this number has a different pattern in its upper six bits for each of the 64 powers.
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_BIT_OF = np.zeros(64, np.int64)
_BIT_OF[[((0x03F79D71B4CB0A89 << bit) & (2**64 - 1)) >> 58 for bit in range(64)]] = range(64)


@njit(cache=True, nogil=True)
def average_lines(close, windows, out):  # type: ignore[no-untyped-def]
    """Write the moving average of each window; NaN until it is full.

    The prefix sum is kept in two doubles, so that the averages of a long history are as exact as those of a short one.
    """
    n_bars = len(close)
    high = np.zeros(n_bars + 1)
    low = np.zeros(n_bars + 1)
    first = 0
    while first < n_bars and close[first] != close[first]:
        first += 1
    for t in range(first, n_bars):
        total = high[t] + close[t]
        part = total - high[t]
        low[t + 1] = low[t] + ((high[t] - (total - part)) + (close[t] - part))
        high[t + 1] = total
    for k in range(len(windows)):
        window = windows[k]
        start = min(first + window - 1, n_bars)
        factor = 1.0 / window
        out[k, :start] = np.nan
        row = out[k, start:]
        high_now, low_now = high[start + 1 :], low[start + 1 :]
        high_then, low_then = high[start + 1 - window :], low[start + 1 - window :]
        for i in range(len(row)):
            row[i] = ((high_now[i] - high_then[i]) + (low_now[i] - low_then[i])) * factor


@njit(cache=True, nogil=True)
def build_ranges(mark):  # type: ignore[no-untyped-def]
    """Return a disjoint sparse table of (lowest, highest, deepest drawdown), of shape (n_levels, n_bars, 3).

    At level ``k`` a bar holds the figures from itself to the middle of its block of ``2^(k+1)`` bars.
    """
    n_bars = len(mark)
    n_levels = 1
    while (1 << n_levels) < n_bars:
        n_levels += 1
    table = np.zeros((n_levels, n_bars, 3))
    for level in range(n_levels):
        half = 1 << level
        for middle in range(half, n_bars + half, 2 * half):
            low = high = mark[min(middle, n_bars) - 1]
            deepest = 0.0
            for t in range(min(middle, n_bars) - 1, middle - half - 1, -1):
                low = min(low, mark[t])
                high = max(high, mark[t])
                deepest = max(deepest, 1.0 - low / mark[t])
                table[level, t, _LOW], table[level, t, _HIGH], table[level, t, _FALL] = low, high, deepest
            if middle >= n_bars:
                continue
            low = high = mark[middle]
            deepest = 0.0
            for t in range(middle, min(middle + half, n_bars)):
                low = min(low, mark[t])
                high = max(high, mark[t])
                deepest = max(deepest, 1.0 - mark[t] / high)
                table[level, t, _LOW], table[level, t, _HIGH], table[level, t, _FALL] = low, high, deepest
    return table


@njit(cache=True, nogil=True)
def find_crossings(fast, slow, start, above, events):  # type: ignore[no-untyped-def]
    """Write the bars at which `fast` moves above `slow` or ceases to be, the first of them upwards; return their number.

    `above` is scratch with one bit a bar: a word of 64 bars without a crossing costs one comparison.
    """
    n_bars = len(fast)
    if start >= n_bars:
        return 0
    for word in range(n_bars >> 6):
        bits = np.uint64(0)
        for i in range(64):
            t = (word << 6) + i
            bits |= np.uint64(fast[t] - slow[t] > TOLERANCE * abs(slow[t])) << np.uint64(i)
        above[word] = bits
    if n_bars & 63:
        bits = np.uint64(0)
        for t in range(n_bars & ~63, n_bars):
            bits |= np.uint64(fast[t] - slow[t] > TOLERANCE * abs(slow[t])) << np.uint64(t & 63)
        above[n_bars >> 6] = bits

    first = start - 1
    skipping = (above[first >> 6] >> np.uint64(first & 63)) & _ONE  # above from the first: an exit without an entry
    carried = above[(start >> 6) - 1] >> np.uint64(63) if start >= 64 else np.uint64(0)
    count = 0
    for word in range(start >> 6, (n_bars + 63) >> 6):
        bits = above[word]
        changed = bits ^ ((bits << _ONE) | carried)
        carried = bits >> np.uint64(63)
        if word == start >> 6:
            changed &= ~np.uint64(0) << np.uint64(start & 63)
        if word == n_bars >> 6:
            changed &= (_ONE << np.uint64(n_bars & 63)) - _ONE
        while changed != 0:
            lowest = changed & (~changed + _ONE)
            changed ^= lowest
            if skipping != 0:
                skipping = np.uint64(0)
                continue
            events[count] = (word << 6) + _BIT_OF[(lowest * _DE_BRUIJN) >> np.uint64(58)]
            count += 1
    return count


@njit(cache=True, nogil=True)
def _look_for_stop(entry, until, fill, bars, at_open, stops, pointers, extremes):  # type: ignore[no-untyped-def]
    """Move the pointer of a position entered at a bar on to its stop, or to bar `until` if that comes first."""
    opens, highs, lows, closes = bars
    if pointers[entry, _SEEN_TO] < 0:
        pointers[entry, _SEEN_TO] = entry - 1 if at_open else entry
        extremes[entry, _BEST] = fill[entry]
    best = extremes[entry, _BEST]
    t = pointers[entry, _SEEN_TO]
    while t < until:
        t += 1
        if closes[t] != closes[t]:
            continue
        bar = (opens[t], highs[t], lows[t], closes[t])
        price, reason = touch_stop(1.0, fill[entry], best, stops, bar)
        if reason >= 0:
            pointers[entry, _STOP_BAR] = t
            extremes[entry, _STOP_PRICE] = price
            break
        best = better_price(1.0, best, bar)
    pointers[entry, _SEEN_TO] = t
    extremes[entry, _BEST] = best


@njit(cache=True, nogil=True)
def sweep_crossings(order, lines, known_from, pairs, stop_of, stop_sets, market, settings, scratch, out):  # type: ignore[no-untyped-def]
    """Write the `FIGURES` of the combinations of `order` into their rows of `out`."""
    fill, opens, highs, lows, closes, mark, next_fill, sums, squares, ranges, delisting = market
    commission, slippage, size, at_open, periods_per_year = settings
    above, events, pointers, extremes, last_stop = scratch
    bars = (opens, highs, lows, closes)
    n_bars = len(mark)
    buy = (1.0 + slippage) * (1.0 + commission)
    sell = (1.0 - slippage) * (1.0 - commission)
    for i in order:
        fast, slow = pairs[i, 0], pairs[i, 1]
        stops = (stop_sets[stop_of[i], 0], stop_sets[stop_of[i], 1], stop_sets[stop_of[i], 2])
        has_stops = stops[0] == stops[0] or stops[1] == stops[1] or stops[2] == stops[2]
        if has_stops and last_stop[0] != stop_of[i]:
            last_stop[0] = stop_of[i]
            pointers[:, _SEEN_TO] = -1
            pointers[:, _STOP_BAR] = n_bars
        start = max(known_from[fast], known_from[slow]) + 1
        n_events = find_crossings(lines[fast], lines[slow], start, above, events)

        equity = peak = 1.0
        deepest = total = square = held_sum = 0.0
        n_trades = n_closed = n_won = 0
        free_from = 0  # first bar at which an entry may be filled
        for k in range(0, n_events, 2):
            entry = events[k] + 1
            if entry < free_from or entry >= delisting or fill[entry] != fill[entry]:
                continue
            leave = n_bars
            if k + 1 < n_events and events[k + 1] + 1 < n_bars:
                leave = next_fill[events[k + 1] + 1]
            stop = n_bars
            if has_stops:
                until = min(leave - 1 if at_open else leave, delisting - 1)
                if pointers[entry, _STOP_BAR] == n_bars and pointers[entry, _SEEN_TO] < until:
                    _look_for_stop(entry, until, fill, bars, at_open, stops, pointers, extremes)
                if pointers[entry, _STOP_BAR] <= until:
                    stop = pointers[entry, _STOP_BAR]
            n_trades += 1
            if stop < n_bars:
                leave = stop
                price = extremes[entry, _STOP_PRICE]
            elif leave < n_bars and leave <= delisting:
                price = fill[leave]
            elif delisting < n_bars:
                leave = delisting
                price = mark[leave]
            else:
                leave = n_bars
                price = 0.0
            free_from = leave + 1

            spent = equity if size == 1.0 else size * equity
            shares = spent / (fill[entry] * buy)
            cash = 0.0 if size == 1.0 else equity - spent
            before = equity
            if leave > entry:
                if size == 1.0:
                    equity = shares * mark[entry]
                    change = equity / before - 1.0
                    total += change + (sums[leave - 1] - sums[entry])
                    square += change * change + (squares[leave - 1] - squares[entry])
                    held_sum += leave - entry
                    if entry == leave - 1:
                        low = high = mark[entry]
                        fall = 0.0
                    else:
                        level = 0
                        apart = entry ^ (leave - 1)
                        while (apart >> (level + 1)) != 0:
                            level += 1
                        right_low, left_high = ranges[level, leave - 1, _LOW], ranges[level, entry, _HIGH]
                        low = min(ranges[level, entry, _LOW], right_low)
                        high = max(left_high, ranges[level, leave - 1, _HIGH])
                        fall = max(ranges[level, entry, _FALL], ranges[level, leave - 1, _FALL])
                        fall = max(fall, 1.0 - right_low / left_high)
                    deepest = max(deepest, max(fall, 1.0 - shares * low / peak))
                    peak = max(peak, shares * high)
                    equity = shares * mark[leave - 1]
                else:
                    last = before
                    for t in range(entry, leave):
                        equity = cash + shares * mark[t]
                        change = equity / last - 1.0
                        total += change
                        square += change * change
                        held_sum += shares * mark[t] / equity
                        peak = max(peak, equity)
                        deepest = max(deepest, 1.0 - equity / peak)
                        last = equity
            if leave < n_bars:
                last = equity
                equity = cash + shares * price * sell
                change = equity / last - 1.0
                total += change
                square += change * change
                peak = max(peak, equity)
                deepest = max(deepest, 1.0 - equity / peak)
                n_closed += 1
                n_won += price * sell > fill[entry] * buy

        mean = total / n_bars
        variance = (square - n_bars * mean * mean) / (n_bars - 1)
        row = out[i]
        row[0] = equity - 1.0
        row[1] = mean / math.sqrt(variance) * math.sqrt(periods_per_year) if n_trades > 0 and variance > 0.0 else math.nan
        row[2] = -deepest
        row[3] = n_trades + n_closed
        row[4] = n_trades
        row[5] = n_won / n_closed if n_closed > 0 else math.nan
        row[6] = held_sum / n_bars
