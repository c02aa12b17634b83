"""What the tests of the trading store write: signals, trades, traces."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from core.store.trading_records import NewTrade
from core.types import (
    BindingConstraint,
    DecisionTrace,
    PipelineStatus,
    RawSignal,
    Severity,
    Side,
    SignalCategory,
    Stage,
    StageOutcome,
)

KEY = "positive_news|bull|low"
NOW = datetime(2024, 3, 4, 15, 30, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def raw_signal(number: int = 1, **changes: Any) -> RawSignal:
    values: dict[str, Any] = {
        "signal_id": str(uuid4()),
        "headline": f"headline {number}",
        "summary": "what it says",
        "published_at": at(number),
        "category": SignalCategory.POSITIVE_NEWS,
        "severity": Severity.HIGH,
        "affected_tickers": ("AAA", "BBB"),
        "supplier": "A Supplier Ltd",
        "source_url": "https://example.org/1",
    }
    return RawSignal(**(values | changes))


def new_trade(number: int = 1, **changes: Any) -> NewTrade:
    values: dict[str, Any] = {
        "context_key": KEY,
        "confidence": 0.62,
        "position_pct": 0.02,
        "symbol": "AAA",
        "side": Side.BUY,
        "client_order_id": f"order-{number}",
        "stop_loss": 97.0,
        "take_profit": 106.0,
        "recorded_at": at(number),
    }
    return NewTrade(**(values | changes))


def trace(signal_id: str, **changes: Any) -> DecisionTrace:
    values: dict[str, Any] = {
        "trace_id": f"trace of {signal_id}",
        "signal_id": signal_id,
        "symbol": "AAA",
        "decided_at": at(1),
        "status": PipelineStatus.FILLED,
        "stages": (StageOutcome(stage=Stage.ICARUS, passed=True), StageOutcome(stage=Stage.ARES, passed=True, note="filled")),
        "confidence": 0.62,
        "position_pct": 0.02,
        "order_id": "17",
        "timings": {"icarus": 0.5},
    }
    return DecisionTrace(**(values | changes))


def killed(signal_id: str, stage: Stage, constraint: BindingConstraint, **changes: Any) -> DecisionTrace:
    return trace(
        signal_id,
        **{
            "status": PipelineStatus.KILLED,
            "stages": (StageOutcome(stage=stage, passed=False),),
            "killed_at_stage": stage,
            "kill_reason": "because",
            "binding_constraint": constraint,
            "order_id": None,
        }
        | changes,
    )
