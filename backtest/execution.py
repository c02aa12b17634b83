"""The account under realistic execution: lots, volume limits, impact, commissions per order, interest, delisting.

Hides the kernel that `run_backtest` takes when any of these is in force. Promises the account of the plain kernel where
none of them binds, and that nothing is filled that could not have been.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from backtest.config import BacktestConfig
from backtest.volatility import compute_trailing_volatility
from core.errors import DataError
from core.market.panel import Panel

FloatArray = npt.NDArray[np.float64]

OK, BAD_PRICE, BAD_WEIGHT, LEVERAGE = range(4)
IMPACT_BARS = 20
MIN_IMPACT_BARS = 10


def prepare_liquidity(panel: Panel, config: BacktestConfig) -> tuple[FloatArray, FloatArray]:
    """Return what an order meets at each bar; no rows at all unless ``config.needs_volume``.

    Parameters
    ----------
    panel : Panel
        Needs `volume`.
    config : BacktestConfig

    Returns
    -------
    volume : ndarray of shape (n_bars, n_assets), shares
        NaN where nothing was traded or nothing is known of it.
    volatility : ndarray of shape (n_bars, n_assets), fractions per bar
        Standard deviation of the returns up to the close of the bar before, so that row ``t`` is known before any fill
        of ``t``; NaN where fewer than 10 of the last 20 returns are known.

    Raises
    ------
    MissingDataError
        If the panel has no volume.
    DataError
        If a volume is negative or infinite.
    """
    if not config.needs_volume:
        return np.empty((0, panel.n_assets)), np.empty((0, panel.n_assets))
    volume = panel.get("volume")
    wrong = (volume < 0.0) | np.isinf(volume)
    if wrong.any():
        bar, column = (int(place[0]) for place in np.nonzero(wrong))
        raise DataError(
            f"volumes must be finite and not negative, that of {panel.symbols[column]} at bar {bar} "
            f"({panel.index[bar]:%Y-%m-%d}) was {volume[bar, column]:g}; mark what is not known with NaN."
        )
    volatility = np.full(panel.shape, np.nan)
    volatility[1:] = compute_trailing_volatility(panel.returns(), bars=IMPACT_BARS, minimum=MIN_IMPACT_BARS)[:-1]
    return np.where(volume > 0.0, volume, np.nan), volatility


def prepare_options(config: BacktestConfig) -> tuple[float, ...]:
    """Return the optional settings as the kernel takes them, rates per bar and what is absent as what never binds."""
    return (
        float(config.commission_per_share),
        float(config.minimum_commission),
        float(config.impact_coefficient),
        np.inf if config.participation_limit is None else float(config.participation_limit),
        0.0 if config.lot_size is None else float(config.lot_size),
        config.cash_rate / config.periods_per_year,
        config.margin_rate / config.periods_per_year,
        np.inf if config.delisting_bars is None else float(config.delisting_bars),
    )


@njit(cache=True, nogil=True)
def simulate_execution(market, weights, plain, options, series, trades, positions):  # type: ignore[no-untyped-def]
    """Return ``(status, bar)``; everything else is written into `series`, `trades` and `positions`.

    `volume` and `volatility` have no rows where nothing depends on them.
    """
    fill, close, volume, volatility = market
    n_bars, n_assets = close.shape
    cash, commission_rate, slippage_rate, borrow_rate, max_leverage = plain
    per_share, minimum, impact_rate, participation, lot, cash_rate, margin_rate, delisting_bars = options
    (equity, net, gross, turnover, costs, exposure, net_exposure, cash_series) = series[:8]
    cost_series = series[8:]
    limited = len(volume) > 0
    shares = np.zeros(n_assets)
    goal = np.full(n_assets, np.nan)  # shares that an order cut by the volume still works towards
    last = np.zeros(n_assets)
    unpriced = np.zeros(n_assets)
    paid = np.zeros(5)  # commission, slippage, borrow, impact, interest of the bar
    before = cash
    short_value = 0.0
    hold = True
    ruined = False
    for t in range(n_bars):
        paid[:] = 0.0
        paid[2] = short_value * borrow_rate
        paid[4] = -cash * (cash_rate if cash > 0.0 else margin_rate) if t > 0 else 0.0
        cash -= paid[2] + paid[4]
        target = weights[max(t - 1, 0)]
        value = cash
        for j in range(n_assets):
            price = fill[t, j]
            if price <= 0.0 or price == np.inf:
                return BAD_PRICE, t
            if price == price:
                last[j] = price
            value += shares[j] * last[j]
        traded = 0.0
        trades[t] = 0
        if t > 0 and value > 0.0 and not ruined:
            for j in range(n_assets):
                price = fill[t, j]
                wanted = goal[j] if hold else target[j] * value / price
                if not hold:
                    goal[j] = np.nan
                order = wanted - shares[j]
                size = abs(order)
                if not size * price > 1e-12 * value:  # no order, no price, or less than the rounding of a kept position
                    continue
                room = np.inf
                move = 0.0
                if limited:
                    room = participation * volume[t, j]
                    if not room > 0.0 or (impact_rate > 0.0 and not volatility[t, j] >= 0.0):
                        room = 0.0  # what cannot be priced is not filled
                cut = size > room
                if lot > 0.0:
                    size = min(np.floor(size / lot + 1e-9), np.floor(room / lot)) * lot
                    moved = lot * np.rint((shares[j] + np.copysign(size, order)) / lot)
                elif cut:
                    size = room
                    moved = shares[j] + np.copysign(size, order)
                else:
                    moved = wanted
                goal[j] = wanted if cut else np.nan
                if size == 0.0:
                    continue
                if impact_rate > 0.0:
                    move = min(impact_rate * volatility[t, j] * np.sqrt(size / volume[t, j]), 1.0 - slippage_rate)
                quoted = size * price
                money = quoted * (1.0 + np.copysign(slippage_rate + move, order))
                fee = max(commission_rate * money + per_share * size, minimum)
                cash -= np.copysign(money, order) + fee
                paid[0] += fee
                paid[1] += slippage_rate * quoted
                paid[3] += move * quoted
                traded += quoted
                shares[j] = moved
                trades[t] += 1
        turnover[t] = traded / value if traded > 0.0 else 0.0

        net_value = 0.0
        gross_value = 0.0
        for j in range(n_assets):
            price = close[t, j]
            if price <= 0.0 or price == np.inf:
                return BAD_PRICE, t
            if price == price:
                last[j] = price
            unpriced[j] = 0.0 if price == price or fill[t, j] == fill[t, j] else unpriced[j] + 1.0
            if unpriced[j] >= delisting_bars:
                cash += shares[j] * last[j]
                shares[j] = 0.0
                goal[j] = np.nan
            held = shares[j] * last[j]
            net_value += held
            gross_value += abs(held)
        now = cash + net_value
        if now <= 0.0 or ruined:
            ruined = True
            now = cash = net_value = gross_value = 0.0
            shares[:] = 0.0
        short_value = 0.5 * (gross_value - net_value)
        equity[t] = now
        cash_series[t] = cash
        scale = 1.0 / before if before > 0.0 else 0.0
        net[t] = now / before - 1.0 if before > 0.0 else 0.0
        costs[t] = paid.sum() * scale
        for kind in range(5):
            cost_series[kind][t] = paid[kind] * scale
        gross[t] = net[t] + costs[t]
        exposure[t] = gross_value / now if now > 0.0 else 0.0
        net_exposure[t] = net_value / now if now > 0.0 else 0.0
        before = now
        if len(positions) > 0:
            positions[t] = shares

        leverage = 0.0
        missing = 0
        for j in range(n_assets):
            weight = weights[t, j]
            if weight == weight:
                leverage += abs(weight)
            else:
                missing += 1
        if 0 < missing < n_assets:
            return BAD_WEIGHT, t
        if leverage > max_leverage * (1.0 + 1e-9):
            return LEVERAGE, t
        hold = missing > 0
    return OK, 0
