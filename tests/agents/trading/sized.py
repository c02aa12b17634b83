"""What the tests of sizing and limits are made of: records of contexts, signals, and a log that says what it is told."""

from typing import Any

from core.errors import StoreUnavailableError
from core.store.trading_records import HitRate
from core.types import FilteredSignal, MacroContext, MarketRegime, SignalCategory, SizedSignal, VixBand
from tests.core.store.trading import KEY, NOW, raw_signal


def hit_rate(n: int, rate: float | None, *, win: float | None = 0.06, loss: float | None = -0.03) -> HitRate:
    return HitRate(
        context_key=KEY,
        category=SignalCategory.POSITIVE_NEWS,
        regime=MarketRegime.BULL,
        vix_band=VixBand.LOW,
        total_trades=n,
        closed_trades=n,
        hit_rate=rate,
        avg_pnl_pct=None,
        avg_win_pct=win,
        avg_loss_pct=loss,
        payoff_ratio=None,
    )


def filtered(**changes: Any) -> FilteredSignal:
    return FilteredSignal(original=raw_signal(**changes), compliance_score=1.0)


def macro(**changes: Any) -> MacroContext:
    values: dict[str, Any] = {"as_of": NOW, "regime": MarketRegime.BULL, "vix": 12.0}
    return MacroContext(**(values | changes))


def sized(size: float = 0.02) -> SizedSignal:
    return SizedSignal(original=filtered(), macro=macro(), confidence=0.6, position_size_pct=size)


class ToldLog:
    """A trade log that knows one context, or fails."""

    def __init__(self, rate: HitRate | None = None, *, closed: int = 0, fails: tuple[str, ...] = ()) -> None:
        self.rate, self.closed, self.fails = rate, closed, fails
        self.asked: list[str] = []

    def find_hit_rate(self, context_key: str) -> HitRate | None:
        self._answer("find_hit_rate")
        self.asked.append(context_key)
        return self.rate

    def count_closed(self) -> int:
        self._answer("count_closed")
        return self.closed

    def _answer(self, method: str) -> None:
        if method in self.fails:
            raise StoreUnavailableError("the database is away")
