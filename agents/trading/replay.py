"""Replay: judges recorded rows one by one, each in a world of its own, and says where the verdict is not the expected one.

Hides how that world is made. Promises that the same agents judge as in trading, in rule mode, on an empty paper account, by a
system of trainees; that no row knows of another; and that nothing of it stays in the store.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, cast

from agents.brokers.broker import Broker, Order
from agents.brokers.paper import PaperBroker, PaperConfig
from agents.trading.case import open_case
from agents.trading.context import TradingConfig, TradingContext
from agents.trading.gates import Gates, build_gates
from agents.trading.market_data import SECTOR_FUNDS, SP500, VIX, Bar, Quote
from agents.trading.milestones import StageRules
from agents.trading.pipeline import build_pipeline
from agents.trading.pythia import Pythia
from agents.trading.replay_rows import FILLED, ReplayRow
from agents.trading.sanctions import FictitiousLists, ListSource
from agents.trading.sizing import RampSizing, Sizing
from core.clock import Clock, FixedClock
from core.errors import BrokerUnavailableError, DataError
from core.store.opening import Store
from core.store.rehearsal import Rehearsal
from core.store.trade_log import TradeLog
from core.store.trading_records import HitRate, SeniorityTier
from core.types import (
    BindingConstraint,
    DecisionTrace,
    PipelineStatus,
    SignalCategory,
    context_key,
)

_MONTH_BARS = 64
_MOST_EQUITY = 1e15
_GAIN = 0.01


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A row and what became of it.

    Parameters
    ----------
    row : ReplayRow
    trace : DecisionTrace
    stage : str
        The stage that refused, `FILLED`, or the state of an order that was not filled.
    order : Order, optional
        What was sent to the broker.
    binding : tuple of BindingConstraint
        All that bound: what refused, or each cap that the size was cut to, of which the trace names the one it met first.
    """

    row: ReplayRow
    trace: DecisionTrace
    stage: str
    order: Order | None = None
    binding: tuple[BindingConstraint, ...] = ()

    @property
    def constraint(self) -> BindingConstraint | None:
        """What bound, or cut the size."""
        return self.trace.binding_constraint

    @property
    def matches(self) -> bool:
        """Whether it ended as expected; of a row that expects no constraint, at the stage expected."""
        return self.stage == self.row.expected_stage and self.row.expected_constraint in (None, *self.binding)

    def to_dict(self) -> dict[str, Any]:
        """Return the trace, with what was expected beside it."""
        expected = self.row.expected_constraint
        return {
            **self.trace.to_dict(),
            "line": self.row.line,
            "stage": self.stage,
            "binding": [constraint.value for constraint in self.binding],
            "order": None if self.order is None else self.order.to_dict(),
            "expected_stage": self.row.expected_stage,
            "expected_constraint": None if expected is None else expected.value,
            "matches": self.matches,
        }


@dataclass(frozen=True, kw_only=True)
class ReplayRules:
    """The rules that rows are judged by; the defaults are those of the desk.

    Parameters
    ----------
    trading : TradingConfig
    sizing : Sizing
    lists : callable
        Takes a clock and returns the sanctions lists; by default the made-up ones that ship.
    """

    trading: TradingConfig = field(default_factory=TradingConfig)
    sizing: Sizing = field(default_factory=RampSizing)
    lists: Callable[[Clock], ListSource] = FictitiousLists


class RowMarket:
    """The market of one row: what its cells say, as of its `now`, and nothing else.

    Parameters
    ----------
    row : ReplayRow
    """

    def __init__(self, row: ReplayRow) -> None:
        self._row = row

    def get_quote(self, symbol: str, as_of: datetime) -> Quote | None:
        """Return the price of the row.

        Raises
        ------
        DataError
            If the cell holds what is no price.
        """
        row = self._row
        price = row.vix if symbol == VIX else None if symbol in (SP500, *SECTOR_FUNDS) else row.price
        return None if price is None or as_of < row.now else Quote(symbol=symbol, price=price, at=row.now)

    def list_bars(self, symbol: str, as_of: datetime, n: int) -> list[Bar]:
        """Return bars of the S&P 500 that stood still until a last one made the return of the row; none of anything else."""
        month = self._row.sp500_1m_return
        if symbol != SP500 or month is None or as_of < self._row.now:
            return []
        closes = [100.0] * (_MONTH_BARS - 1) + [100.0 * (1.0 + month)]
        times = [self._row.now - timedelta(days=age) for age in range(_MONTH_BARS - 1, -1, -1)]
        bars = [_flat_bar(SP500, at, close) for at, close in zip(times, closes, strict=True)]
        return bars[-n:]


def replay(rows: Iterable[ReplayRow], rehearsal: Rehearsal, rules: ReplayRules | None = None) -> Iterator[Judged]:
    """Judge rows, each alone.

    Parameters
    ----------
    rows : iterable of ReplayRow
    rehearsal : Rehearsal
        The store that each row finds empty.
    rules : ReplayRules, optional

    Yields
    ------
    Judged
        In the order of the rows.

    Raises
    ------
    StoreError
        If the store cannot be reached or refuses.
    """
    rules = rules or ReplayRules()
    clock = _RowClock()
    lists = rules.lists(clock)
    for row in rows:
        clock.row = FixedClock(row.now)
        with rehearsal.undone() as store:
            yield _judge(row, store, clock, lists, rules)


def confusion(judged: Iterable[Judged]) -> Counter[tuple[str, str]]:
    """Count rows by expected and found end, each as ``stage constraint``."""

    def end(stage: str, constraint: BindingConstraint | None) -> str:
        return stage if constraint is None else f"{stage} {constraint.value}"

    return Counter(
        (
            end(one.row.expected_stage, one.row.expected_constraint),
            end(one.stage, one.row.expected_constraint if one.matches else one.constraint),
        )
        for one in judged
    )


class _RowClock:
    """The clock of the row at hand, so that lists are read once for all rows."""

    def __init__(self) -> None:
        self.row: FixedClock | None = None

    def now(self) -> datetime:
        if self.row is None:
            raise DataError("no row is being judged, so there is no time.")
        return self.row.now()


class _Unreached:
    """A broker that nobody has reached yet, so that nobody knows the equity."""

    name = "paper"
    is_paper = True

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            raise BrokerUnavailableError("the row names no equity that an account can have.")

        return call


class _Recorded:
    """A trade log whose hit rate is the row's, which need not be one of whole trades."""

    def __init__(self, log: TradeLog, row: ReplayRow) -> None:
        self._log = log
        self._row = row

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def find_hit_rate(self, context_key: str) -> HitRate | None:
        found = self._log.find_hit_rate(context_key)
        return found if found is None or self._row.hit_rate is None else replace(found, hit_rate=self._row.hit_rate)


def _judge(row: ReplayRow, store: Store, clock: _RowClock, lists: ListSource, rules: ReplayRules) -> Judged:
    market = RowMarket(row)
    config = rules.trading
    gates = build_gates(store.trading, market, lists, clock, icarus=config.icarus, hades=config.hades, artemis=config.artemis)
    if row.closed_trades:
        _preload(row, store, gates)
    cash = row.equity if row.equity is not None and 0.0 < row.equity <= _MOST_EQUITY else None
    paper = PaperBroker(store.trading.gateway, PaperConfig(initial_cash=cash or 1.0), clock)
    broker: Broker = paper if cash is not None else cast(Broker, _Unreached())
    context = TradingContext(
        store=store,
        broker=broker,
        data=market,
        gates=gates,
        clock=clock,
        sizing=rules.sizing,
        config=config,
    )
    pipeline = build_pipeline(context)
    pipeline.judging.pythia = Pythia(cast(TradeLog, _Recorded(pipeline.trade_log, row)), rules.sizing, config.pythia)
    (trace,) = pipeline.run([_as_json(row)])
    binding = _list_binding(trace, pipeline.argus.rules(), config)
    if trace.killed_at_stage is not None:
        return Judged(row=row, trace=trace, stage=trace.killed_at_stage.value, binding=binding)
    orders = [Order.from_dict(sent.payload["order"]) for sent in pipeline.log.list_open_orders() if "order" in sent.payload]
    assert clock.row is not None
    at = clock.row.advance(timedelta(minutes=1))
    fills = paper.on_bar(_flat_bar(trace.symbol or "", at, row.price or math.nan))
    if not fills or not orders:
        order = orders[0] if orders else None
        return Judged(row=row, trace=trace, stage=trace.status.value, order=order, binding=binding)
    is_whole = sum(fill.qty for fill in fills) >= orders[0].qty
    status = PipelineStatus.FILLED if is_whole else PipelineStatus.PARTIALLY_FILLED
    return Judged(row=row, trace=replace(trace, status=status), stage=FILLED, order=orders[0], binding=binding)


def _list_binding(trace: DecisionTrace, rules: StageRules, config: TradingConfig) -> tuple[BindingConstraint, ...]:
    """Return what bound a row: of a size that was cut, every cap that allows no more than the one in the trace."""
    bound = trace.binding_constraint
    caps = {
        BindingConstraint.GLOBAL_CAP: rules.max_size,
        BindingConstraint.SENIORITY_CAP: config.limits.seniority.position_cap(SeniorityTier.TRAINEE, paper=True),
    }
    if bound is None or bound not in caps or trace.killed_at_stage is not None:
        return () if bound is None else (bound,)
    return tuple(name for name, cap in caps.items() if cap == caps[bound])


def _preload(row: ReplayRow, store: Store, gates: Gates) -> None:
    """Write down the row's closed trades: of its own context with their rate, of another without one.

    Without a VIX there is no context, and the signal does not come as far as Pythia.
    """
    macro = gates.artemis.context()
    if macro.vix_band is None:
        return
    own = open_case(_as_json(row), row.now).signal.category
    other = next(one for one in SignalCategory if one is not own)
    key = context_key(other if row.hit_rate is None else own, macro.regime, macro.vix_band)
    closed_at = row.now - timedelta(days=30)
    trades = []
    for number in range(row.closed_trades):
        hit = number < row.hits
        pnl = _GAIN if hit else -_GAIN
        trades.append(
            {
                "context_key": key,
                "confidence": 0.5,
                "position_pct": 0.01,
                "symbol": "RECORD",
                "side": "buy",
                "client_order_id": f"record-{number}",
                "qty": 1.0,
                "fill_price": 100.0,
                "exit_price": 100.0 * (1.0 + pnl),
                "pnl_pct": pnl,
                "net_pnl_pct": pnl,
                "hit": hit,
                "closed_at": closed_at,
                "exit_reason": "take_profit" if hit else "stop_loss",
                "recorded_at": closed_at - timedelta(days=1),
            }
        )
    stored = store.trading.gateway.insert("trades", trades)
    # What is settled has been told to everybody: these outcomes teach the context alone.
    store.trading.gateway.insert(
        "trade_settlements", [{"trade_id": trade["trade_id"], "settled_at": closed_at} for trade in stored]
    )


def _as_json(row: ReplayRow) -> dict[str, Any]:
    signal: dict[str, Any] = {
        name: row.signal[name] for name in ("signal_id", "headline", "published_at", "category", "severity")
    }
    signal |= {"summary": row.signal["summary"], "affected_tickers": list(row.tickers)}
    if row.signal["supplier"].strip():
        signal["supplier"] = row.signal["supplier"].strip()
    return signal


def _flat_bar(symbol: str, at: datetime, price: float) -> Bar:
    return Bar(symbol=symbol, at=at, open=price, high=price, low=price, close=price)
