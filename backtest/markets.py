"""Synthetic markets: without any edge, or with one of known size.

Promises that equal arguments give equal panels, that open, high, low and close are consistent, and that without a planted
edge no return can be foreseen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq

from backtest.config import BacktestConfig
from backtest.engine import run_backtest
from backtest.metrics import sharpe_ratio
from backtest.portfolio import scores_to_weights
from core.errors import ConfigurationError
from core.market.panel import Panel

FloatArray = npt.NDArray[np.float64]
EdgeKind = Literal["reversal", "momentum", "low_volatility", "volume"]

FIRST_CLOSE = "2000-01-03 21:00"
HOLDING_BARS: dict[EdgeKind, int] = {"reversal": 5, "momentum": 21, "low_volatility": 21, "volume": 5}
_LOOKBACK: dict[EdgeKind, int] = {"reversal": 5, "momentum": 60, "low_volatility": 60, "volume": 20}

_YEAR = 252
_MARKET_VOL, _SECTOR_VOL, _ASSET_VOL = 0.14, 0.09, 0.22
_N_SECTORS = 4
_DEGREES = 5.0
_SHOCK, _MEMORY = 0.12, 0.86
_OVERNIGHT = 0.3
_WORST_RETURN = -0.5
_FIRST_SIZE, _LARGEST_SIZE = 0.004, 0.5


@dataclass(frozen=True, kw_only=True)
class _Noise:
    """Everything random of a market, drawn once, so that an edge of any size rides on the same noise."""

    returns: FloatArray
    volatility: FloatArray
    path: FloatArray
    volume: FloatArray
    start: FloatArray


def no_edge(*, seed: int, n_assets: int = 20, n_bars: int = 3000, with_volume: bool = True) -> Panel:
    """Build a market in which nothing can be foreseen but volatility and volume.

    Parameters
    ----------
    seed : int
    n_assets : int, default=20
    n_bars : int, default=3000
    with_volume : bool, default=True

    Returns
    -------
    Panel
        Business days from 2000-01-03 21:00 UTC, `open`, `high`, `low`, `close` and, if wanted, `volume`.

    Raises
    ------
    ConfigurationError
        If there are fewer than two assets or three bars.

    Notes
    -----
    The simple return of an asset is ``beta * market + sector + own``. Each of these is a GARCH(1,1) series with Student-t
    shocks of five degrees of freedom and mean zero, so that the conditional mean of every simple return is zero: no drift
    that a tilt to beta or volatility could earn. Yearly volatility: market 14 %, sectors 9 %, own about 22 %; betas about
    0.6 to 1.4. Opens are points of a Brownian bridge between two closes and tell nothing about what follows.
    """
    _check_size(n_assets, n_bars)
    noise = _draw_noise(seed, n_assets, n_bars)
    return _build_panel(noise, noise.returns, "no_edge", with_volume)


def planted(
    *,
    seed: int,
    sharpe: float,
    kind: EdgeKind = "reversal",
    n_assets: int = 20,
    n_bars: int = 3000,
    cost_bps: float = 5.0,
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

    Returns
    -------
    Panel
        As `no_edge`, with volume.

    Raises
    ------
    ConfigurationError
        If `kind` is unknown, there are too few assets or bars, or no planted effect reaches `sharpe`.

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
    _check_size(n_assets, n_bars)
    if n_assets < 4 or n_bars < 5 * _LOOKBACK[kind] + 50:
        raise ConfigurationError(
            f"a planted {kind} needs at least 4 assets and {5 * _LOOKBACK[kind] + 50} bars, asked for {n_assets} x {n_bars}."
        )
    noise = _draw_noise(seed, n_assets, n_bars)
    config = BacktestConfig(commission_bps=0.2 * cost_bps, slippage_bps=0.8 * cost_bps)

    def miss(size: float) -> float:
        panel = _build_panel(noise, _plant(noise, kind, size), f"planted_{kind}", True)
        weights = scores_to_weights(plain_signal(panel, kind), holding_bars=HOLDING_BARS[kind])
        return sharpe_ratio(run_backtest(panel, weights, config).net_returns) - sharpe

    low, high = _bracket(miss, sharpe)
    size = float(brentq(miss, low, high, xtol=1e-5, rtol=1e-3, maxiter=40))
    return _build_panel(noise, _plant(noise, kind, size), f"planted_{kind}", True)


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


def _plant(noise: _Noise, kind: EdgeKind, size: float) -> FloatArray:
    """Return the returns with the planted effect, bar by bar, since the signal sees the planted prices too."""
    returns = noise.returns.copy()
    n_bars, n_assets = returns.shape
    lookback, holding = _LOOKBACK[kind], HOLDING_BARS[kind]
    if kind == "volume":
        weights = scores_to_weights(_compute_signal(kind, noise.volume), holding_bars=holding)
        returns[2:] += size * weights[:-2]
        return np.maximum(returns, _WORST_RETURN)
    rank_weights = np.arange(n_assets) - 0.5 * (n_assets - 1)
    rank_weights /= np.abs(rank_weights).sum()
    close = np.empty_like(returns)
    close[0] = 1.0 + returns[0]
    targets = np.zeros_like(returns)
    for t in range(1, n_bars - 2):
        close[t] = close[t - 1] * (1.0 + returns[t])
        if t >= lookback:
            targets[t, _last_signal(kind, close[t - lookback : t + 1].T).argsort()] = rank_weights
            weights = targets[max(t + 1 - holding, 0) : t + 1].sum(axis=0) / holding
            returns[t + 2] = np.maximum(returns[t + 2] + size * weights, _WORST_RETURN)
    return returns


def _bracket(miss: Callable[[float], float], sharpe: float) -> tuple[float, float]:
    near, far = 0.0, _FIRST_SIZE
    sign = 1.0 if miss(0.0) < 0.0 else -1.0
    while sign * miss(sign * far) < 0.0:
        near, far = far, 2.0 * far
        if far > _LARGEST_SIZE:
            raise ConfigurationError(
                f"no planted effect reaches a net Sharpe ratio of {sharpe:g}; ask for less or for more assets."
            )
    low, high = sorted((sign * near, sign * far))
    return low, high


def _draw_noise(seed: int, n_assets: int, n_bars: int) -> _Noise:
    rng = np.random.default_rng(seed)
    beta = rng.uniform(0.6, 1.4, n_assets)
    own = _ASSET_VOL * rng.uniform(0.75, 1.25, n_assets)
    yearly = np.concatenate(([_MARKET_VOL], np.full(_N_SECTORS, _SECTOR_VOL), own))
    shocks = rng.standard_t(_DEGREES, (n_bars, len(yearly))) * math.sqrt((_DEGREES - 2.0) / _DEGREES)
    long_run = yearly**2 / _YEAR
    variance = np.empty_like(shocks)
    now = long_run.copy()
    for t in range(n_bars):
        variance[t] = now
        now = (1.0 - _SHOCK - _MEMORY) * long_run + now * (_SHOCK * shocks[t] ** 2 + _MEMORY)
    series = np.sqrt(variance) * shocks
    sector = 1 + np.arange(n_assets) % _N_SECTORS
    first_own = 1 + _N_SECTORS
    returns = beta * series[:, :1] + series[:, sector] + series[:, first_own:]
    volatility = np.sqrt(beta**2 * variance[:, :1] + variance[:, sector] + variance[:, first_own:])

    activity = 0.3 * np.abs(shocks[:, first_own:])
    news = 0.25 * rng.standard_normal((n_bars, n_assets))
    level = np.zeros(n_assets)
    for t in range(n_bars):
        level = 0.8 * level + news[t]
        activity[t] += level
    volume = np.exp(rng.uniform(13.0, 16.0, n_assets) + activity).round().astype(np.float64)
    return _Noise(
        returns=np.maximum(returns, _WORST_RETURN),
        volatility=volatility,
        path=rng.standard_normal((3, n_bars, n_assets)),
        volume=volume,
        start=np.exp(rng.uniform(math.log(20.0), math.log(200.0), n_assets)),
    )


def _build_panel(noise: _Noise, returns: FloatArray, name: str, with_volume: bool) -> Panel:
    n_bars, n_assets = returns.shape
    close = noise.start * np.cumprod(1.0 + returns, axis=0)
    before = np.vstack((noise.start, close[:-1]))
    overnight = _OVERNIGHT * np.log1p(returns) + math.sqrt(_OVERNIGHT * (1.0 - _OVERNIGHT)) * noise.volatility * noise.path[0]
    opened = before * np.exp(overnight)
    reach = 0.4 * noise.volatility * np.abs(noise.path[1:])
    return Panel(
        index=pd.bdate_range(FIRST_CLOSE, periods=n_bars, tz="UTC", normalize=False),
        symbols=tuple(f"S{column:02d}" for column in range(n_assets)),
        open=opened,
        high=np.maximum(opened, close) * np.exp(reach[0]),
        low=np.minimum(opened, close) * np.exp(-reach[1]),
        close=close,
        volume=noise.volume if with_volume else None,
        name=name,
    )


def _check_size(n_assets: int, n_bars: int) -> None:
    if n_assets < 2 or n_bars < 3:
        raise ConfigurationError(f"a market needs at least 2 assets and 3 bars, was asked for {n_assets} x {n_bars}.")
