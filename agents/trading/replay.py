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
from agents.trading.context import TradingConfig, TradingContext
from agents.trading.gates import Gates, build_gates
from agents.trading.market_data import SECTOR_FUNDS, SP500, VIX, Bar, Quote
from agents.trading.pipeline import build_pipeline
from agents.trading.pythia import Pythia
from agents.trading.reading import read_signal
from agents.trading.replay_rows import FILLED, ReplayRow
from agents.trading.sanctions import FictitiousLists, ListSource
from agents.trading.sizing import RampSizing, Sizing
from core.clock import Clock, FixedClock
from core.errors import BrokerUnavailableError, DataError
from core.store.opening import Store
from core.store.rehearsal import Rehearsal
from core.store.trade_log import TradeLog
from core.store.trading_records import HitRate
from core.types import (
    BindingConstraint,
    DecisionTrace,
    PipelineStatus,
    context_key,
)

_MONTH_BARS = 64
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
    """

    row: ReplayRow
    trace: DecisionTrace
    stage: str
    order: Order | None = None

    @property
    def constraint(self) -> BindingConstraint | None:
        """What bound, or cut the size."""
        return self.trace.binding_constraint

    @property
    def matches(self) -> bool:
        """Whether it ended as expected; of a row that expects no constraint, at the stage expected."""
        return self.stage == self.row.expected_stage and self.row.expected_constraint in (None, self.constraint)

    def to_dict(self) -> dict[str, Any]:
        """Return the trace, with what was expected beside it."""
        expected = self.row.expected_constraint
        return {
            **self.trace.to_dict(),
            "line": self.row.line,
            "stage": self.stage,
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
            end(one.stage, None if one.matches and one.row.expected_constraint is None else one.constraint),
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
            raise BrokerUnavailableError("the row says nothing of the equity.")

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
        return found and replace(found, hit_rate=self._row.hit_rate)


def _judge(row: ReplayRow, store: Store, clock: _RowClock, lists: ListSource, rules: ReplayRules) -> Judged:
    market = RowMarket(row)
    config = rules.trading
    gates = build_gates(store.trading, market, lists, clock, icarus=config.icarus, hades=config.hades, artemis=config.artemis)
    if row.closed_trades:
        _preload(row, store, gates)
    paper = PaperBroker(store.trading.gateway, PaperConfig(initial_cash=row.equity or 1.0), clock)
    broker: Broker = paper if row.equity is not None else cast(Broker, _Unreached())
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
    if trace.killed_at_stage is not None:
        return Judged(row=row, trace=trace, stage=trace.killed_at_stage.value)
    orders = [Order.from_dict(sent.payload["order"]) for sent in pipeline.log.list_open_orders() if "order" in sent.payload]
    assert clock.row is not None
    at = clock.row.advance(timedelta(minutes=1))
    fills = paper.on_bar(_flat_bar(trace.symbol or "", at, row.price or math.nan))
    if not fills or not orders:
        return Judged(row=row, trace=trace, stage=trace.status.value, order=orders[0] if orders else None)
    is_whole = sum(fill.qty for fill in fills) >= orders[0].qty
    status = PipelineStatus.FILLED if is_whole else PipelineStatus.PARTIALLY_FILLED
    return Judged(row=row, trace=replace(trace, status=status), stage=FILLED, order=orders[0])


def _preload(row: ReplayRow, store: Store, gates: Gates) -> None:
    """Write down the closed trades that give the row's context its record; a context nobody can name has none."""
    macro = gates.artemis.context()
    try:
        category = read_signal(_as_json(row)).category
    except DataError:
        return
    if macro.vix_band is None:
        return
    key = context_key(category, macro.regime, macro.vix_band)
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
