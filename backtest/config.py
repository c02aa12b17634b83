"""The settings of a backtest: capital, fill, what limits an order, and what trading costs.

Promises that a configuration that exists is valid.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from numbers import Real
from typing import Any, Literal, get_args

from core.errors import ConfigurationError

Fill = Literal["close", "open"]

_PLAIN = ("initial_cash", "fill", "commission_bps", "slippage_bps", "borrow_rate", "max_leverage", "periods_per_year")


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
        Half-spread and impact in basis points. A buy pays ``price * (1 + s)``, a sale receives ``price * (1 - s)``. The
        half-spread alone where `impact_coefficient` charges the impact.
    borrow_rate : float, default=0.005
        Fee per year, as a fraction of the market value sold short, charged each bar on the value at the previous close.
    max_leverage : float, default=2.0
        Largest sum of absolute weights that is accepted.
    periods_per_year : int, default=252
        Bars in a year; 252 for daily bars of US equities.
    commission_per_share : float, default=0.0
        Commission for each share bought or sold, in the currency of the prices, added to `commission_bps`.
    minimum_commission : float, default=0.0
        Smallest commission of one order, in the currency of the prices. An order that is filled in parts pays it for each
        part, as a broker charges per day.
    impact_coefficient : float, default=0.0
        Coefficient of the square-root impact; fits on equities are of the order of one [2]_. Needs volume.
    participation_limit : float, optional
        Largest part of a bar's volume that one order may take, in (0, 1]; None for no limit. Needs volume.
    lot_size : float, optional
        Shares an order must be a multiple of, rounded towards zero; None for fractional shares.
    cash_rate : float, default=0.0
        Interest per year on positive cash, proceeds of short sales included, on the cash at the previous close.
    margin_rate : float, default=0.0
        Interest per year on negative cash, likewise.
    delisting_bars : int, optional
        Bars in a row without a price after which an asset counts as delisted: what is held of it is settled in cash at its
        last price. None values it at the last price for as long as the panel goes on.

    Raises
    ------
    ConfigurationError
        If a value is out of its range or not finite.

    Notes
    -----
    With `cash_rate` and `margin_rate` zero, returns are to be read as excess over the cash rate; with them set, as total
    returns, from which no ratio of the report subtracts a rate.

    An order of ``n`` shares moves the price it pays by the fraction ``c * volatility * sqrt(n / volume)``, the square-root
    law of Barra's model [2]_, with the volume of the bar that fills it and the standard deviation of the 20 returns (at
    least 10) known at the close before it. Both are per bar, which is the same as both per day where returns are
    uncorrelated. The move is temporary: it is paid and leaves the quoted prices alone. It is capped so that a sale never
    receives less than nothing. Almgren et al. [1]_ find an exponent of 0.6 for the temporary part and add a permanent one;
    we keep one half, which charges more for orders below the whole volume at an equal coefficient.

    A delisting at the last price is kind to stocks that fail: Shumway [3]_ finds -30 % on average for those delisted for
    performance.

    References
    ----------
    .. [1] Almgren, R., Thum, C., Hauptmann, E. & Li, H. (2005). Direct estimation of equity market impact. Risk, 18(7), 58-62.
    .. [2] Torre, N. (1997). Barra market impact model handbook. Barra, Berkeley.
    .. [3] Shumway, T. (1997). The delisting bias in CRSP data. Journal of Finance, 52(1), 327-340.
    """

    initial_cash: float = 1_000_000.0
    fill: Fill = "close"
    commission_bps: float = 1.0
    slippage_bps: float = 4.0
    borrow_rate: float = 0.005
    max_leverage: float = 2.0
    periods_per_year: int = 252
    commission_per_share: float = 0.0
    minimum_commission: float = 0.0
    impact_coefficient: float = 0.0
    participation_limit: float | None = None
    lot_size: float | None = None
    cash_rate: float = 0.0
    margin_rate: float = 0.0
    delisting_bars: int | None = None

    def __post_init__(self) -> None:
        if self.fill not in get_args(Fill):
            raise ConfigurationError(f'`fill` must be "close" or "open", was {self.fill!r}.')
        self._check_range("initial_cash", 0.0, 1e15, open_below=True)
        self._check_range("commission_bps", 0.0, 1_000.0)
        self._check_range("slippage_bps", 0.0, 1_000.0)
        self._check_range("borrow_rate", 0.0, 10.0)
        self._check_range("max_leverage", 0.0, 100.0, open_below=True)
        self._check_count("periods_per_year")
        self._check_range("commission_per_share", 0.0, 1_000.0)
        self._check_range("minimum_commission", 0.0, 1e6)
        self._check_range("impact_coefficient", 0.0, 100.0)
        self._check_range("cash_rate", -1.0, 10.0)
        self._check_range("margin_rate", 0.0, 10.0)
        if self.participation_limit is not None:
            self._check_range("participation_limit", 0.0, 1.0, open_below=True)
        if self.lot_size is not None:
            self._check_range("lot_size", 0.0, 1e9, open_below=True)
        if self.delisting_bars is not None:
            self._check_count("delisting_bars")

    def _check_range(self, name: str, low: float, high: float, *, open_below: bool = False) -> None:
        value = getattr(self, name)
        number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not (low < value if open_below else low <= value) or value > high:
            bracket = "(" if open_below else "["
            raise ConfigurationError(f"`{name}` must be in {bracket}{low:g}, {high:g}], was {value!r}.")

    def _check_count(self, name: str) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigurationError(f"`{name}` must be a whole number of at least 1, was {value!r}.")

    @property
    def cost_bps(self) -> float:
        """Modelled cost of one side of a trade in basis points of the traded value: the part that is known beforehand.

        That is `commission_bps` and `slippage_bps`. Commission per share, its minimum and impact depend on the order; what
        they came to in a run is `backtest.costs.realised_cost_bps`.
        """
        return self.commission_bps + self.slippage_bps

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the optional settings in force, those after `periods_per_year` that differ from their default."""
        return tuple(f.name for f in fields(self) if f.name not in _PLAIN and getattr(self, f.name) != f.default)

    @property
    def needs_volume(self) -> bool:
        """Whether an order depends on the volume of its bar."""
        return self.impact_coefficient > 0.0 or self.participation_limit is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a JSON-safe dict."""
        return asdict(self)
