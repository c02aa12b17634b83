"""Synthetic markets: without any edge, or with one of known size.

Promises that equal arguments give equal panels, that open, high, low and close are consistent, and that without a planted
edge no return can be foreseen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from backtest.config import BacktestConfig
from backtest.engine import run_backtest
from backtest.market_noise import WORST_RETURN, FloatArray, MarketStyle, Noise, draw_noise
from backtest.metrics import MIN_RANKED, sharpe_ratio
from backtest.portfolio import scores_to_weights
from core.errors import ConfigurationError
from core.market.panel import Panel

EdgeKind = Literal["reversal", "momentum", "low_volatility", "volume"]

FIRST_CLOSE = "2000-01-03 21:00"
HOLDING_BARS: dict[EdgeKind, int] = {"reversal": 5, "momentum": 21, "low_volatility": 21, "volume": 5}
_LOOKBACK: dict[EdgeKind, int] = {"reversal": 5, "momentum": 60, "low_volatility": 60, "volume": 20}

_OVERNIGHT = 0.3
_FIRST_SIZE, _LARGEST_SIZE = 0.004, 0.5
CAPACITY_PARTICIPATION = 0.01
"""Part of a bar's volume that a mean trade takes when the plain strategy runs at its capacity."""


def no_edge(
    *, seed: int, n_assets: int = 20, n_bars: int = 3000, with_volume: bool = True, style: MarketStyle = "plain"
) -> Panel:
    """Build a market in which nothing can be foreseen but volatility and volume.

    Parameters
    ----------
    seed : int
    n_assets : int, default=20
    n_bars : int, default=3000
    with_volume : bool, default=True
    style : {"plain", "realistic"}, default="plain"
        ``realistic`` adds, each drawn without a look at any price: turbulent regimes of about 60 bars in which everything
        moves more and together, one overnight jump a year for each asset, halts of one to five bars (NaN in every field), and
        of every six assets one that is listed late and one that is delisted early.

    Returns
    -------
    Panel
        Business days from 2000-01-03 21:00 UTC, `open`, `high`, `low`, `close` and, if wanted, `volume`.

    Raises
    ------
    ConfigurationError
        If there are fewer than two assets or three bars, or `style` is unknown.

    Notes
    -----
    The simple return of an asset is ``beta * market + sector + own``. Each of these is a GARCH(1,1) series with Student-t
    shocks of five degrees of freedom and mean zero, so that the conditional mean of every simple return is zero: no drift
    that a tilt to beta or volatility could earn. Yearly volatility: market 14 %, sectors 9 %, own about 22 %; betas about
    0.6 to 1.4. Opens are points of a Brownian bridge between two closes and tell nothing about what follows.
    """
    _check_market(n_assets, n_bars, style)
    noise = draw_noise(seed, n_assets, n_bars, style)
    return _build_panel(noise, noise.returns, "no_edge", with_volume)


def planted(
    *,
    seed: int,
    sharpe: float,
    kind: EdgeKind = "reversal",
    n_assets: int = 20,
    n_bars: int = 3000,
    cost_bps: float = 5.0,
    style: MarketStyle = "plain",
    decay: float | None = None,
    capacity: float | None = None,
) -> Panel:
    """Build a market in which the plain signal of one kind earns about a given net Sharpe ratio.

    Parameters
    ----------
    seed : int
    sharpe : float
        Annual Sharpe ratio, after costs, of trading `plain_signal` by cross-sectional ranks over ``HOLDING_BARS[kind]`` bars
        on the whole panel.
    kind : {"reversal", "momentum", "low_volatility", "volume"}, default="reversal"
    n_assets : int, default=20
    n_bars : int, default=3000
    cost_bps : float, default=5.0
        Cost per side of a trade that the Sharpe ratio is after, a fifth of it commission; 5 is the default configuration's.
    style : {"plain", "realistic"}, default="plain"
        As in `no_edge`.
    decay : float, optional
        Bars in which the planted effect halves, over and over from the first bar on, as when others find it too; `sharpe`
        stays that of the whole panel. None plants one that stays.
    capacity : float, optional
        Equity at which the mean trade of the plain strategy takes `CAPACITY_PARTICIPATION` of the volume of its bar, which
        sets the level of all volumes (in parts of shares). No price reacts: what a larger book loses is for the costs of the
        backtest to say. None leaves the volumes as drawn.

    Returns
    -------
    Panel
        As `no_edge`, with volume.

    Raises
    ------
    ConfigurationError
        If `kind` or `style` is unknown, there are too few assets or bars, `decay` or `capacity` is not positive, or no
        planted effect reaches `sharpe`.

    Notes
    -----
    The mean of the return over bar ``t+2`` is ``size * w[t]`` on top of the noise of `no_edge`, where ``w[t]`` are the weights
    that the plain signal gives at the close of ``t``, computed from the prices as they really came, planted effects included.
    A weight of ``t`` is traded at the close of ``t+1`` and earns from there to ``t+2``. ``sum(w) = 0``, so the market as a
    whole earns nothing.

    `size` is found by bracketing and root finding on the seed's own noise, so that the *realised* ratio of this very path
    meets `sharpe` to about 0.02. The path's luck is thereby taken out of the whole, not of its parts: any half of the
    bars still scatters around it.
    """
    if kind not in get_args(EdgeKind):
        raise ConfigurationError(f"`kind` must be one of {', '.join(get_args(EdgeKind))}, was {kind!r}.")
    _check_market(n_assets, n_bars, style)
    for name, value in (("decay", decay), ("capacity", capacity)):
        if value is not None and not 0.0 < value < math.inf:
            raise ConfigurationError(f"`{name}` must be positive and finite, was {value!r}.")
    if n_assets < 4 or n_bars < 5 * _LOOKBACK[kind] + 50:
        raise ConfigurationError(
            f"a planted {kind} needs at least 4 assets and {5 * _LOOKBACK[kind] + 50} bars, asked for {n_assets} x {n_bars}."
        )
    noise = draw_noise(seed, n_assets, n_bars, style)
    config = BacktestConfig(commission_bps=0.2 * cost_bps, slippage_bps=0.8 * cost_bps)
    fade = np.ones(n_bars) if decay is None else 0.5 ** (np.arange(n_bars) / decay)

    def build(size: float) -> Panel:
        return _build_panel(noise, _plant(noise, kind, size * fade), f"planted_{kind}", True)

    def miss(size: float) -> float:
        panel = build(size)
        weights = scores_to_weights(plain_signal(panel, kind), holding_bars=HOLDING_BARS[kind])
        return sharpe_ratio(run_backtest(panel, weights, config).net_returns) - sharpe

    low, high = _bracket(miss, sharpe)
    panel = build(float(brentq(miss, low, high, xtol=1e-5, rtol=1e-3, maxiter=40)))
    return panel if capacity is None else _thin_out(panel, kind, capacity)


def plain_signal(panel: Panel, kind: EdgeKind) -> FloatArray:
    """Compute the signal that a planted market rewards.

    Parameters
    ----------
    panel : Panel
    kind : {"reversal", "momentum", "low_volatility", "volume"}

    Returns
    -------
    ndarray of shape (n_bars, n_assets)
        ``reversal``: minus the return of the last 5 bars. ``momentum``: the return of the last 60. ``low_volatility``: minus
        the standard deviation of the last 60 one-bar returns. ``volume``: minus the volume over its mean of the last 20 bars.
        NaN until there are as many bars.

    Raises
    ------
    ConfigurationError
        If `kind` is unknown.
    MissingDataError
        If `kind` is "volume" and the panel has none.
    """
    if kind not in get_args(EdgeKind):
        raise ConfigurationError(f"`kind` must be one of {', '.join(get_args(EdgeKind))}, was {kind!r}.")
    return _compute_signal(kind, panel.get("volume") if kind == "volume" else panel.close)


def _compute_signal(kind: EdgeKind, source: FloatArray) -> FloatArray:
    lookback = _LOOKBACK[kind]
    out = np.full(source.shape, np.nan)
    if len(source) > lookback:
        out[lookback:] = _last_signal(kind, np.lib.stride_tricks.sliding_window_view(source, lookback + 1, axis=0))
    return out


def _last_signal(kind: EdgeKind, window: FloatArray) -> FloatArray:
    """Signal at the end of windows of lookback + 1 closes (or volumes), time on the last axis."""
    if kind == "reversal":
        return 1.0 - window[..., -1] / window[..., 0]
    if kind == "momentum":
        return window[..., -1] / window[..., 0] - 1.0
    if kind == "low_volatility":
        spread: FloatArray = np.std(window[..., 1:] / window[..., :-1], axis=-1)
        return -spread
    usual: FloatArray = np.mean(window[..., 1:], axis=-1)
    return -window[..., -1] / usual


def _thin_out(panel: Panel, kind: EdgeKind, capacity: float) -> Panel:
    """Scale all volumes so that the plain strategy takes the stated part of them at its capacity."""
    weights = scores_to_weights(plain_signal(panel, kind), holding_bars=HOLDING_BARS[kind])
    traded = capacity * np.abs(np.diff(weights, axis=0))[:-1]
    volume = panel.get("volume")
    share = traded / (panel.close * volume)[2:]
    taken = float(share[np.isfinite(share) & (traded > 0.0)].mean())
    return panel.replace(volume=volume * (taken / CAPACITY_PARTICIPATION))


def _plant(noise: Noise, kind: EdgeKind, size: FloatArray) -> FloatArray:
    """Return the returns with the planted effect, bar by bar, since the signal sees the planted prices too."""
    returns = noise.returns.copy()
    n_bars, n_assets = returns.shape
    lookback, holding = _LOOKBACK[kind], HOLDING_BARS[kind]
    present = noise.present
    if kind == "volume":
        volume = noise.volume if present is None else np.where(present, noise.volume, np.nan)
        weights = scores_to_weights(_compute_signal(kind, volume), holding_bars=holding)
        returns[2:] += size[:-2, None] * weights[:-2]
        return np.maximum(returns, WORST_RETURN)
    rank_weights = [_rank_weights(count) for count in range(n_assets + 1)]
    close = np.empty_like(returns)
    close[0] = 1.0 + returns[0]
    seen = close if present is None else np.full_like(returns, np.nan)
    seen[0] = close[0] if present is None else np.where(present[0], close[0], np.nan)
    targets = np.zeros_like(returns)
    for t in range(1, n_bars - 2):
        close[t] = close[t - 1] * (1.0 + returns[t])
        if present is not None:
            seen[t, present[t]] = close[t, present[t]]
        if t >= lookback:
            signal = _last_signal(kind, seen[t - lookback : t + 1].T)
            count = n_assets if present is None else int(np.isfinite(signal).sum())
            targets[t, signal.argsort()[:count]] = rank_weights[count]
            weights = targets[max(t + 1 - holding, 0) : t + 1].sum(axis=0) / holding
            returns[t + 2] = np.maximum(returns[t + 2] + size[t] * weights, WORST_RETURN)
    return returns


def _rank_weights(count: int) -> FloatArray:
    """Weights that `scores_to_weights` gives to `count` different scores, lowest first."""
    weights = np.arange(count) - 0.5 * (count - 1)
    return weights / np.abs(weights).sum() if count >= MIN_RANKED else np.zeros(count)


def _bracket(miss: Callable[[float], float], sharpe: float) -> tuple[float, float]:
    near, far = 0.0, _FIRST_SIZE
    sign = 1.0 if miss(0.0) < 0.0 else -1.0
    while sign * miss(sign * far) < 0.0:
        near, far = far, 2.0 * far
        if far > _LARGEST_SIZE:
            raise ConfigurationError(
                f"no planted effect reaches a net Sharpe ratio of {sharpe:g}; ask for less, more assets or a slower decay."
            )
    low, high = sorted((sign * near, sign * far))
    return low, high


def _build_panel(noise: Noise, returns: FloatArray, name: str, with_volume: bool) -> Panel:
    n_bars, n_assets = returns.shape
    close = noise.start * np.cumprod(1.0 + returns, axis=0)
    before = np.vstack((noise.start, close[:-1]))
    overnight = _OVERNIGHT * np.log1p(returns) + math.sqrt(_OVERNIGHT * (1.0 - _OVERNIGHT)) * noise.volatility * noise.path[0]
    if noise.jump is not None:
        overnight += (1.0 - _OVERNIGHT) * np.log1p(noise.jump)
    opened = before * np.exp(overnight)
    reach = 0.4 * noise.volatility * np.abs(noise.path[1:])
    high = np.maximum(opened, close) * np.exp(reach[0])
    low = np.minimum(opened, close) * np.exp(-reach[1])
    fields = {"open": opened, "high": high, "low": low, "close": close}
    if with_volume:
        fields["volume"] = noise.volume
    if noise.present is not None:
        fields = {field: np.where(noise.present, values, np.nan) for field, values in fields.items()}
    return Panel(
        index=pd.bdate_range(FIRST_CLOSE, periods=n_bars, tz="UTC", normalize=False),
        symbols=tuple(f"S{column:02d}" for column in range(n_assets)),
        name=name,
        **fields,
    )


def _check_market(n_assets: int, n_bars: int, style: MarketStyle) -> None:
    if n_assets < 2 or n_bars < 3:
        raise ConfigurationError(f"a market needs at least 2 assets and 3 bars, was asked for {n_assets} x {n_bars}.")
    if style not in get_args(MarketStyle):
        raise ConfigurationError(f"`style` must be one of {', '.join(get_args(MarketStyle))}, was {style!r}.")
