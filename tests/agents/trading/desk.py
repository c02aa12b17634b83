"""A trading desk for tests: gates that let everything pass, prices from a dictionary, a paper broker over the store."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from agents.brokers.broker import BrokerOrder, Order
from agents.brokers.matching import MatchingRules
from agents.brokers.paper import PaperBroker, PaperConfig
from agents.trading.ares import AresConfig
from agents.trading.context import PipelineConfig, TradingConfig, TradingContext
from agents.trading.gates import Gates
from agents.trading.market_data import Bar, Quote
from agents.trading.pipeline import Pipeline, build_pipeline
from core.clock import FixedClock
from core.store.opening import Store
from core.types import (
    FilteredSignal,
    MacroContext,
    MarketRegime,
    PipelineStatus,
    RawSignal,
    Refusal,
    Severity,
    SignalCategory,
)

NOW = datetime(2024, 3, 4, 15, 0, tzinfo=UTC)
CASH = 50_000.0
FREE = MatchingRules(commission_bps=0.0, slippage_bps=0.0)


@dataclass
class Prices:
    """The last price of each symbol, as of the clock, or as old as `age` says."""

    clock: FixedClock
    last: dict[str, float] = field(default_factory=dict)
    bars: dict[str, list[Bar]] = field(default_factory=dict)
    currency: str = "USD"
    age: timedelta = timedelta(0)

    def get_quote(self, symbol: str, as_of: datetime) -> Quote | None:
        price = self.last.get(symbol)
        return None if price is None else Quote(symbol=symbol, price=price, currency=self.currency, at=as_of - self.age)

    def list_bars(self, symbol: str, as_of: datetime, n: int) -> list[Bar]:
        return [bar for bar in self.bars.get(symbol, []) if bar.at <= as_of][-n:]


@dataclass(frozen=True)
class Passed:
    """A screening that let everything pass."""

    filtered: FilteredSignal
    refusal: Refusal | None = None
    list_version: str | None = "test"
    matched_entry: str | None = None


@dataclass
class OpenGates:
    """Icarus, Hades and Artemis that refuse nothing."""

    clock: FixedClock
    macro: MacroContext | None = None
    learned: list[tuple[str, bool]] = field(default_factory=list)
    restarts: int = 0

    def judge(self, signal: Any, second: Any) -> Any:
        """As Icarus the signal, as Artemis nothing."""
        return signal if isinstance(signal, RawSignal) else None

    def learn(self, signal: RawSignal, rejected: bool, now: datetime) -> None:
        self.learned.append((signal.signal_id, rejected))

    def screen(self, signal: RawSignal) -> Passed:
        return Passed(FilteredSignal(original=signal, compliance_score=1.0))

    def restart(self) -> None:
        self.restarts += 1

    def context(self) -> MacroContext:
        return self.macro or MacroContext(as_of=self.clock.now(), regime=MarketRegime.BULL, vix=14.0, sp500_1m_return=0.03)


@dataclass
class Desk:
    """A pipeline with everything around it."""

    store: Store
    clock: FixedClock
    prices: Prices
    broker: Any
    context: TradingContext
    pipeline: Pipeline

    def restart(self, **changes: Any) -> Desk:
        """Build the pipeline again over the same store, as a new process would."""
        context = replace(self.context, **changes)
        return replace(self, context=context, broker=context.broker, pipeline=build_pipeline(context))

    def bar(
        self, symbol: str, price: float, *, low: float | None = None, high: float | None = None, minutes: float = 1
    ) -> None:
        """Let a bar pass at the broker, and time with it."""
        self.clock.advance(timedelta(minutes=minutes))
        self.prices.last[symbol] = price
        low, high = low or price, high or price
        made = Bar(symbol=symbol, at=self.clock.now(), open=price, high=high, low=low, close=price, volume=1e9)
        self.broker.on_bar(made)

    def rows(self, table: str, **where: Any) -> list[dict[str, Any]]:
        """Return the rows of a table."""
        return self.store.trading.gateway.select(table, where=where)


def build_desk(
    store: Store,
    *,
    broker: Any = None,
    prices: dict[str, float] | None = None,
    config: TradingConfig | None = None,
    gates: Gates | None = None,
    cash: float = CASH,
    clock: FixedClock | None = None,
    **more: Any,
) -> Desk:
    """Open a desk at `NOW`."""
    clock = clock or FixedClock(NOW)
    data = Prices(clock, dict(prices or {"AAA": 100.0, "BBB": 50.0, "CCC": 20.0}))
    broker = broker or paper_broker(store, clock, cash)
    open_gates = OpenGates(clock)
    gates = gates or Gates(icarus=open_gates, hades=open_gates, artemis=open_gates)
    config = config or TradingConfig(ares=AresConfig(expiry_minutes=600.0), pipeline=PipelineConfig(tick_seconds=0.0))
    context = TradingContext(store=store, broker=broker, data=data, gates=gates, clock=clock, config=config, **more)
    return Desk(store=store, clock=clock, prices=data, broker=broker, context=context, pipeline=build_pipeline(context))


def paper_broker(store: Store, clock: FixedClock, cash: float = CASH) -> PaperBroker:
    """Open a paper account without costs."""
    return PaperBroker(store.trading.gateway, PaperConfig(initial_cash=cash, rules=FREE), clock)


def refused(order: Order) -> BrokerOrder:
    """Refuse an order, as a broker does that keeps no record of it."""
    return BrokerOrder(
        client_order_id=order.client_order_id,
        order_id="refused",
        symbol=order.symbol,
        side=order.side,
        qty=order.qty,
        status=PipelineStatus.REJECTED,
        reason="not today",
    )


_numbers = itertools.count(1)


def signal(symbol: str = "AAA", **changes: Any) -> RawSignal:
    """Make good news about a symbol, with an identity of its own."""
    number = next(_numbers)
    values: dict[str, Any] = {
        "signal_id": str(UUID(int=number + (1 << 100))),
        "headline": f"{symbol} signs a contract, number {number}",
        "summary": "what it says",
        "published_at": NOW,
        "category": SignalCategory.POSITIVE_NEWS,
        "severity": Severity.HIGH,
        "affected_tickers": (symbol,),
    }
    return RawSignal(**(values | changes))


def bad_news(symbol: str = "AAA", **changes: Any) -> RawSignal:
    """Make news that speak against holding a symbol."""
    return signal(symbol, **{"category": SignalCategory.SUPPLIER_DISRUPTION, "headline": f"A fire at {symbol}"} | changes)
