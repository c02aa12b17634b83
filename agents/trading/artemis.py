"""Artemis, macro: what market does a signal meet, and may anything be traded in it?

Hides where the figures come from and how long they hold. Promises that a figure that is missing or too old is never replaced by
a harmless one: the regime is then unknown, and nothing is traded until it is known again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType

from agents.trading.market_data import SECTOR_FUNDS, SP500, VIX, MarketData
from core.clock import Clock
from core.errors import ConfigurationError
from core.types import BindingConstraint, FilteredSignal, MacroContext, MarketRegime, Refusal, SignalCategory, Stage

_DECIMALS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtemisConfig:
    """How Artemis reads the market.

    Parameters
    ----------
    extreme_vix : float, default=35
        Index points of the VIX from which the regime is bear and nothing is traded.
    nervous_vix : float, default=25
        Above it good news is not traded in a bear regime.
    bull_return, bear_return : float, default=0.02 and -0.03
        One-month returns of the S&P 500 from which the regime is bull, and down to which it is bear.
    month_bars : int, default=21
        Daily bars in a month.
    max_age : timedelta, default=4 days
        A figure older than this is missing; a long weekend has three days without trading.
    cache : timedelta, default=15 minutes
        How long a view of the market holds; one with a figure missing does not.

    Raises
    ------
    ConfigurationError
        If two limits are in the wrong order, or something is not positive.
    """

    extreme_vix: float = 35.0
    nervous_vix: float = 25.0
    bull_return: float = 0.02
    bear_return: float = -0.03
    month_bars: int = 21
    max_age: timedelta = timedelta(days=4)
    cache: timedelta = timedelta(minutes=15)

    def __post_init__(self) -> None:
        if not 0.0 < self.nervous_vix < self.extreme_vix:
            raise ConfigurationError(
                "`nervous_vix` and `extreme_vix` must be positive and in this order, "
                f"were {self.nervous_vix} and {self.extreme_vix}."
            )
        if not self.bear_return < self.bull_return:
            raise ConfigurationError(
                f"`bear_return` must be below `bull_return`, was {self.bear_return} to {self.bull_return}."
            )
        if self.month_bars < 1 or self.max_age <= timedelta(0) or self.cache < timedelta(0):
            raise ConfigurationError("`month_bars` and `max_age` must be positive, and `cache` not negative.")


@dataclass(frozen=True, kw_only=True, slots=True)
class MacroFigures:
    """What is known of the market; None is not known.

    Parameters
    ----------
    as_of : datetime
        Time of the newest figure, UTC.
    vix : float, optional
        Index points.
    sp500_1m_return : float, optional
        Over one month, as a fraction.
    sector_momentum : mapping of str to float
        Return by sector fund over the same month, as fractions.
    """

    as_of: datetime
    vix: float | None = None
    sp500_1m_return: float | None = None
    sector_momentum: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


def read_regime(vix: float | None, sp500_1m_return: float | None, config: ArtemisConfig) -> MarketRegime:
    """Return the regime of two figures; unknown when one that is needed is missing.

    Parameters
    ----------
    vix : float or None
        Index points. From `extreme_vix` on the regime is bear, whatever the return.
    sp500_1m_return : float or None
        As a fraction.
    """
    if vix is None:
        return MarketRegime.UNKNOWN
    if vix >= config.extreme_vix:
        return MarketRegime.BEAR
    if sp500_1m_return is None:
        return MarketRegime.UNKNOWN
    if sp500_1m_return >= config.bull_return:
        return MarketRegime.BULL
    return MarketRegime.BEAR if sp500_1m_return <= config.bear_return else MarketRegime.SIDEWAYS


def read_context(figures: MacroFigures, config: ArtemisConfig) -> MacroContext:
    """Return the view of the market that figures give; its `suppress_reason` is the name of what binds."""
    regime = read_regime(figures.vix, figures.sp500_1m_return, config)
    reason = None
    if regime is MarketRegime.UNKNOWN:
        reason = BindingConstraint.MACRO_UNAVAILABLE
    elif figures.vix is not None and figures.vix >= config.extreme_vix:
        reason = BindingConstraint.VIX_EXTREME
    return MacroContext(
        as_of=figures.as_of,
        regime=regime,
        vix=figures.vix,
        sp500_1m_return=figures.sp500_1m_return,
        sector_momentum=figures.sector_momentum,
        suppress=reason is not None,
        suppress_reason=None if reason is None else reason.value,
    )


class Artemis:
    """Tell what market a signal meets, and refuse what it must not meet.

    Parameters
    ----------
    data : MarketData
    config : ArtemisConfig
    clock : Clock
    """

    def __init__(self, data: MarketData, config: ArtemisConfig, clock: Clock) -> None:
        self._data, self._config, self._clock = data, config, clock
        self._cached: tuple[datetime, MacroContext] | None = None

    def context(self) -> MacroContext:
        """Return the market as it is now, or as it was within the last 15 minutes.

        Notes
        -----
        An error of the data's own passes through and is not kept: the next call asks again, and whoever catches it must go on
        with `unavailable`.
        """
        now = self._clock.now()
        if self._cached is not None and timedelta(0) <= now - self._cached[0] < self._config.cache:
            return self._cached[1]
        context = read_context(self._figures(now), self._config)
        self._cached = None if context.regime is MarketRegime.UNKNOWN else (now, context)
        return context

    def unavailable(self) -> MacroContext:
        """Return the view of a market of which nothing is known: what a circuit breaker falls back to."""
        return read_context(MacroFigures(as_of=self._clock.now()), self._config)

    def restart(self) -> None:
        """Ask for the market anew at the next signal."""
        self._cached = None

    def judge(self, signal: FilteredSignal, macro: MacroContext) -> Refusal | None:
        """Return why a signal must not be traded in this market; None when it may.

        Notes
        -----
        It looks at the figures again and not only at `suppress`, so that a view from elsewhere cannot let pass what these rules
        refuse.
        """
        vix = macro.vix
        if macro.regime is MarketRegime.UNKNOWN or vix is None:
            return _refuse(BindingConstraint.MACRO_UNAVAILABLE, "the VIX or the S&P 500's return over one month is not known.")
        if vix >= self._config.extreme_vix:
            return _refuse(
                BindingConstraint.VIX_EXTREME, f"the VIX is {vix:g}, from {self._config.extreme_vix:g} on nothing trades."
            )
        if macro.suppress:
            return _refuse(BindingConstraint.MACRO_UNAVAILABLE, f"the market is suppressed: {macro.suppress_reason}.")
        nervous = vix > self._config.nervous_vix
        if signal.category is SignalCategory.POSITIVE_NEWS and macro.regime is MarketRegime.BEAR and nervous:
            reason = f"good news in a bear regime with the VIX at {vix:g}, above {self._config.nervous_vix:g}."
            return _refuse(BindingConstraint.BEAR_REGIME, reason)
        return None

    def _figures(self, now: datetime) -> MacroFigures:
        quote = self._data.get_quote(VIX, now)
        if quote is not None and now - quote.at > self._config.max_age:
            quote = None
        market = self._month(SP500, now)
        sectors = {fund: month[1] for fund in SECTOR_FUNDS if (month := self._month(fund, now)) is not None}
        times = [quote.at] if quote is not None else []
        times += [market[0]] if market is not None else []
        return MacroFigures(
            as_of=max(times, default=now),
            vix=None if quote is None else quote.price,
            sp500_1m_return=None if market is None else market[1],
            sector_momentum=sectors,
        )

    def _month(self, symbol: str, now: datetime) -> tuple[datetime, float] | None:
        """Return the time of the last bar and the return over a month up to it; None when bars are missing or old."""
        wanted = self._config.month_bars + 1
        bars = self._data.list_bars(symbol, now, wanted)
        if len(bars) < wanted or now - bars[-1].at > self._config.max_age:
            return None
        # Rounded, so that a fall of exactly 3 % is one, whatever the division leaves behind.
        return bars[-1].at, round(bars[-1].close / bars[0].close - 1.0, _DECIMALS)


def _refuse(constraint: BindingConstraint, reason: str) -> Refusal:
    return Refusal(stage=Stage.ARTEMIS, constraint=constraint, reason=reason)
