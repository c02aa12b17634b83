"""The settings of a backtest: capital, fill, and what trading costs.

Promises that a configuration that exists is valid.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from core.errors import ConfigurationError

Fill = Literal["close", "open"]


@dataclass(frozen=True, kw_only=True)
class BacktestConfig:
    """Hold the settings of one backtest.

    Parameters
    ----------
    initial_cash : float, default=1_000_000.0
        Equity before the first bar, in the currency of the prices.
    fill : {"close", "open"}, default="close"
        Price of bar ``t+1`` at which a weight decided at the close of bar ``t`` is traded.
    commission_bps : float, default=1.0
        Commission in basis points of the traded value, at the price really paid or received.
    slippage_bps : float, default=4.0
        Half-spread and impact in basis points. A buy pays ``price * (1 + s)``, a sale receives ``price * (1 - s)``.
    borrow_rate : float, default=0.005
        Fee per year, as a fraction of the market value sold short, charged each bar on the value at the previous close.
    max_leverage : float, default=2.0
        Largest sum of absolute weights that is accepted.
    periods_per_year : int, default=252
        Bars in a year; 252 for daily bars of US equities.

    Raises
    ------
    ConfigurationError
        If a value is out of its range or not finite.

    Notes
    -----
    Cash earns and pays no interest, so returns are to be read as excess over the cash rate.
    """

    initial_cash: float = 1_000_000.0
    fill: Fill = "close"
    commission_bps: float = 1.0
    slippage_bps: float = 4.0
    borrow_rate: float = 0.005
    max_leverage: float = 2.0
    periods_per_year: int = 252

    def __post_init__(self) -> None:
        if self.fill not in get_args(Fill):
            raise ConfigurationError(f'`fill` must be "close" or "open", was {self.fill!r}.')
        self._check_range("initial_cash", self.initial_cash, 0.0, 1e15, open_below=True)
        self._check_range("commission_bps", self.commission_bps, 0.0, 1_000.0)
        self._check_range("slippage_bps", self.slippage_bps, 0.0, 1_000.0)
        self._check_range("borrow_rate", self.borrow_rate, 0.0, 10.0)
        self._check_range("max_leverage", self.max_leverage, 0.0, 100.0, open_below=True)
        if isinstance(self.periods_per_year, bool) or not isinstance(self.periods_per_year, int) or self.periods_per_year < 1:
            raise ConfigurationError(f"`periods_per_year` must be a whole number of at least 1, was {self.periods_per_year!r}.")

    @staticmethod
    def _check_range(name: str, value: float, low: float, high: float, *, open_below: bool = False) -> None:
        inside = math.isfinite(value) and (low < value if open_below else low <= value) and value <= high
        if not inside:
            bracket = "(" if open_below else "["
            raise ConfigurationError(f"`{name}` must be in {bracket}{low:g}, {high:g}], was {value!r}.")

    @property
    def cost_bps(self) -> float:
        """Modelled cost of one side of a trade, commission and slippage, in basis points of the traded value."""
        return self.commission_bps + self.slippage_bps

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a JSON-safe dict."""
        return asdict(self)
