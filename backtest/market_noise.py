"""The chance in a synthetic market: factors, volatility that clusters, fat tails, and what real data have besides.

Promises that equal arguments give equal draws, and that every simple return has a conditional mean of zero: no past bar, no
regime, no halt and no delisting tells where a price goes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
MarketStyle = Literal["plain", "realistic"]

WORST_RETURN = -0.5

_YEAR = 252
_MARKET_VOL, _SECTOR_VOL, _ASSET_VOL = 0.14, 0.09, 0.22
_N_SECTORS = 4
_DEGREES = 5.0
_SHOCK, _MEMORY = 0.12, 0.86

_CALM_BARS, _TURBULENT_BARS = 500.0, 60.0
_TURBULENT_COMMON, _TURBULENT_OWN = 2.2, 1.4
_JUMPS_A_BAR, _JUMP, _LARGEST_JUMP = 1.0 / 252.0, 0.06, 0.25
_HALTS_A_BAR, _LONGEST_HALT = 1.0 / 1_000.0, 5
_ASSETS_A_LISTING = 6


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Everything random of a market, drawn once, so that an edge of any size rides on the same noise.

    Parameters
    ----------
    returns : ndarray of shape (n_bars, n_assets), fractions
        Simple returns, jumps included.
    volatility : ndarray of shape (n_bars, n_assets), fractions
        Their conditional standard deviation, without jumps.
    path : ndarray of shape (3, n_bars, n_assets)
        Standard normal draws for open, high and low.
    volume : ndarray of shape (n_bars, n_assets), shares
    start : ndarray of shape (n_assets,), prices
    jump : ndarray of shape (n_bars, n_assets), fractions, optional
        Part of the return that comes overnight at once.
    present : ndarray of shape (n_bars, n_assets), bool, optional
        Where there is a bar.
    """

    returns: FloatArray
    volatility: FloatArray
    path: FloatArray
    volume: FloatArray
    start: FloatArray
    jump: FloatArray | None = None
    present: BoolArray | None = None


def draw_noise(seed: int, n_assets: int, n_bars: int, style: MarketStyle) -> Noise:
    """Draw the noise of a market; a realistic one rides on the draws of the plain one of the same seed."""
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
    turbulent = _draw_regimes(np.random.default_rng([seed, 1]), n_bars) if style == "realistic" else None
    if turbulent is not None:
        scale = np.ones_like(series)
        scale[turbulent, :first_own], scale[turbulent, first_own:] = _TURBULENT_COMMON, _TURBULENT_OWN
        series, variance = scale * series, scale**2 * variance
    returns = beta * series[:, :1] + series[:, sector] + series[:, first_own:]
    volatility = np.sqrt(beta**2 * variance[:, :1] + variance[:, sector] + variance[:, first_own:])

    activity = 0.3 * np.abs(shocks[:, first_own:])
    news = 0.25 * rng.standard_normal((n_bars, n_assets))
    level = np.zeros(n_assets)
    for t in range(n_bars):
        level = 0.8 * level + news[t]
        activity[t] += level
    volume = np.exp(rng.uniform(13.0, 16.0, n_assets) + activity).round().astype(np.float64)
    noise = Noise(
        returns=np.maximum(returns, WORST_RETURN),
        volatility=volatility,
        path=rng.standard_normal((3, n_bars, n_assets)),
        volume=volume,
        start=np.exp(rng.uniform(math.log(20.0), math.log(200.0), n_assets)),
    )
    return noise if style == "plain" else _roughen(noise, np.random.default_rng([seed, 2]))


def _draw_regimes(rng: np.random.Generator, n_bars: int) -> BoolArray:
    """Draw where the market is turbulent: calm and turbulent stretches of geometric length take turns."""
    out = np.zeros(n_bars, dtype=np.bool_)
    bar, turbulent = 0, False
    while bar < n_bars:
        length = int(rng.geometric(1.0 / (_TURBULENT_BARS if turbulent else _CALM_BARS)))
        out[bar : bar + length] = turbulent
        bar, turbulent = bar + length, not turbulent
    return out


def _roughen(noise: Noise, rng: np.random.Generator) -> Noise:
    """Add jumps overnight, halts, late listings and delistings, all drawn without a look at any price."""
    shape = noise.returns.shape
    n_bars, n_assets = shape
    size = np.clip(_JUMP * rng.standard_normal(shape), -_LARGEST_JUMP, _LARGEST_JUMP)
    jump = np.where(rng.random(shape) < _JUMPS_A_BAR, size, 0.0)
    jump[0] = 0.0
    halted = np.zeros(shape, dtype=np.bool_)
    for bar, asset in np.argwhere(rng.random(shape) < _HALTS_A_BAR):
        halted[bar : bar + int(rng.integers(1, _LONGEST_HALT + 1)), asset] = True
    present = ~halted
    touched = rng.permutation(n_assets)
    n_touched = n_assets // _ASSETS_A_LISTING
    for asset in touched[:n_touched]:
        present[: int(rng.uniform(0.05, 0.4) * n_bars), asset] = False
    for asset in touched[n_touched : 2 * n_touched]:
        present[int(rng.uniform(0.4, 0.95) * n_bars) :, asset] = False
    return replace(
        noise,
        returns=np.maximum((1.0 + noise.returns) * (1.0 + jump) - 1.0, WORST_RETURN),
        volume=(noise.volume * np.exp(6.0 * np.abs(jump))).round(),
        jump=jump,
        present=present,
    )
