from datetime import datetime, timedelta

import pytest

from agents.trading.artemis import Artemis, ArtemisConfig, MacroFigures, read_context, read_regime
from agents.trading.market_data import SECTOR_FUNDS, SP500, VIX, Bar, Quote
from core.clock import FixedClock
from core.errors import ConfigurationError, DataError
from core.types import BindingConstraint, MacroContext, MarketRegime, SignalCategory, Stage
from tests.agents.trading.signals import NOW, filtered

CONFIG = ArtemisConfig()


class Market:
    """A market whose figures are set by hand; `asked` counts the questions."""

    def __init__(self, vix: float | None = 18.0, sp500_return: float | None = 0.01, age: timedelta = timedelta(0)) -> None:
        self.vix, self.sp500_return, self.age = vix, sp500_return, age
        self.sectors: dict[str, float] = {"XLK": 0.05}
        self.asked = 0
        self.broken = False

    def get_quote(self, symbol: str, as_of: datetime) -> Quote | None:
        assert symbol == VIX
        self.asked += 1
        if self.broken:
            raise DataError("the market data answered nonsense.")
        return None if self.vix is None else Quote(symbol=symbol, price=self.vix, at=as_of - self.age)

    def list_bars(self, symbol: str, as_of: datetime, n: int) -> list[Bar]:
        month = self.sp500_return if symbol == SP500 else self.sectors.get(symbol)
        if month is None:
            return []
        closes = [100.0] * (n - 1) + [100.0 * (1.0 + month)]
        days = [as_of - self.age - timedelta(days=n - 1 - at) for at in range(n)]
        return [
            Bar(symbol=symbol, at=day, open=close, high=close, low=close, close=close)
            for day, close in zip(days, closes, strict=True)
        ]


def artemis(market: Market, clock: FixedClock | None = None) -> Artemis:
    return Artemis(market, CONFIG, clock or FixedClock(NOW))


def macro(vix: float = 18.0, month: float = 0.01) -> MacroContext:
    return read_context(MacroFigures(as_of=NOW, vix=vix, sp500_1m_return=month), CONFIG)


@pytest.mark.parametrize(
    ("vix", "month", "regime"),
    [
        (34.99, 0.02, MarketRegime.BULL),
        (18.0, 0.0199, MarketRegime.SIDEWAYS),
        (18.0, -0.0299, MarketRegime.SIDEWAYS),
        (18.0, -0.03, MarketRegime.BEAR),
        (35.0, 0.10, MarketRegime.BEAR),
        (35.0, None, MarketRegime.BEAR),
        (34.99, None, MarketRegime.UNKNOWN),
        (None, 0.10, MarketRegime.UNKNOWN),
        (None, None, MarketRegime.UNKNOWN),
    ],
)
def test_the_regime_follows_from_the_vix_and_the_months_return(
    vix: float | None, month: float | None, regime: MarketRegime
) -> None:
    assert read_regime(vix, month, CONFIG) is regime


@pytest.mark.parametrize(
    ("vix", "month", "reason"),
    [
        (34.99, -0.10, None),
        (35.0, 0.10, "vix_extreme"),
        (35.0, None, "vix_extreme"),
        (None, 0.01, "macro_unavailable"),
        (18.0, None, "macro_unavailable"),
    ],
)
def test_everything_is_suppressed_in_an_extreme_or_unknown_market(
    vix: float | None, month: float | None, reason: str | None
) -> None:
    context = artemis(Market(vix, month)).context()
    assert context.suppress is (reason is not None)
    assert context.suppress_reason == reason


def test_a_context_holds_the_figures_with_their_time() -> None:
    market = Market(18.0, -0.03, age=timedelta(hours=2))
    context = artemis(market).context()
    assert context.vix == 18.0
    assert context.sp500_1m_return == -0.03
    assert context.regime is MarketRegime.BEAR
    assert dict(context.sector_momentum) == {"XLK": 0.05}
    assert context.as_of == NOW - timedelta(hours=2)


def test_the_momentum_of_all_sectors_is_told() -> None:
    market = Market()
    market.sectors = {fund: 0.01 * number for number, fund in enumerate(SECTOR_FUNDS)}
    assert dict(artemis(market).context().sector_momentum) == pytest.approx(market.sectors)


@pytest.mark.parametrize(("age", "known"), [(timedelta(days=4), True), (timedelta(days=4, seconds=1), False)])
def test_figures_that_are_too_old_are_missing(age: timedelta, known: bool) -> None:
    context = artemis(Market(age=age)).context()
    assert (context.regime is not MarketRegime.UNKNOWN) is known
    assert (context.vix is not None) is known
    assert (context.sp500_1m_return is not None) is known


def test_a_month_with_a_bar_missing_is_not_known() -> None:
    class Short(Market):
        def list_bars(self, symbol: str, as_of: datetime, n: int) -> list[Bar]:
            return super().list_bars(symbol, as_of, n)[1:]

    assert artemis(Short()).context().regime is MarketRegime.UNKNOWN


def test_a_view_holds_for_15_minutes_and_not_longer() -> None:
    market, clock = Market(18.0), FixedClock(NOW)
    judge = artemis(market, clock)
    assert judge.context().vix == 18.0
    market.vix = 40.0
    clock.advance(timedelta(minutes=14, seconds=59))
    assert judge.context().vix == 18.0
    assert market.asked == 1
    clock.advance(timedelta(seconds=1))
    assert judge.context().vix == 40.0


def test_after_a_restart_the_market_is_asked_at_once() -> None:
    market = Market(18.0)
    judge = artemis(market)
    judge.context()
    market.vix = 40.0
    judge.restart()
    assert judge.context().vix == 40.0


def test_an_unknown_market_is_asked_again_at_once() -> None:
    market = Market(None)
    judge = artemis(market)
    assert judge.context().regime is MarketRegime.UNKNOWN
    market.vix = 18.0
    assert judge.context().vix == 18.0


def test_an_error_passes_through_and_is_asked_again() -> None:
    market = Market()
    judge = artemis(market)
    market.broken = True
    with pytest.raises(DataError):
        judge.context()
    market.broken = False
    assert judge.context().vix == 18.0


def test_what_a_breaker_falls_back_to_refuses() -> None:
    judge = artemis(Market())
    refusal = judge.judge(filtered(), judge.unavailable())
    assert refusal is not None
    assert refusal.constraint is BindingConstraint.MACRO_UNAVAILABLE


@pytest.mark.parametrize(
    ("category", "vix", "month", "constraint"),
    [
        ("positive_news", 25.01, -0.03, BindingConstraint.BEAR_REGIME),
        ("positive_news", 25.0, -0.03, None),
        ("positive_news", 25.01, -0.0299, None),
        ("earnings_surprise", 25.01, -0.03, None),
        ("supplier_disruption", 35.0, 0.03, BindingConstraint.VIX_EXTREME),
        ("supplier_disruption", 34.99, 0.03, None),
    ],
)
def test_signals_are_refused_where_the_market_is_against_them(
    category: str, vix: float, month: float, constraint: BindingConstraint | None
) -> None:
    refusal = artemis(Market()).judge(filtered(category=SignalCategory(category)), macro(vix, month))
    assert (refusal and refusal.constraint) == constraint
    assert refusal is None or refusal.stage is Stage.ARTEMIS


def test_an_unknown_market_refuses_every_category() -> None:
    judge = artemis(Market(None))
    for category in SignalCategory:
        refusal = judge.judge(filtered(category=category), judge.context())
        assert refusal is not None
        assert refusal.constraint is BindingConstraint.MACRO_UNAVAILABLE


def test_a_view_that_somebody_else_suppressed_is_refused() -> None:
    context = MacroContext(as_of=NOW, regime=MarketRegime.BULL, vix=12.0, suppress=True, suppress_reason="holiday")
    refusal = artemis(Market()).judge(filtered(), context)
    assert refusal is not None
    assert "holiday" in refusal.reason


@pytest.mark.parametrize(
    "changes",
    [
        {"nervous_vix": 36.0},
        {"bear_return": 0.02},
        {"month_bars": 0},
        {"max_age": timedelta(0)},
        {"cache": timedelta(seconds=-1)},
    ],
)
def test_a_config_that_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        ArtemisConfig(**changes)  # type: ignore[arg-type]
