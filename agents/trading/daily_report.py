"""The daily report: what the account is worth, what was decided and why most of it was refused, and what was learned.

A report is a value, built from the store alone, so that it can be written at any time and by any process. Saved as a folder: an
HTML page that fetches nothing, its pictures as PNG, its figures as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from agents.trading.chat import SpendingLog
from agents.trading.daily_charts import RatePoint, draw_endings, draw_expectations, draw_hit_rates
from agents.trading.daily_page import render_page
from agents.trading.expectations import Comparison, compare_returns
from agents.trading.learning import PromotionGate, PromotionGateConfig, RecordStatus
from agents.trading.milestones import MilestonesConfig
from backtest.page import write_report
from core.errors import DataError
from core.provenance import code_version
from core.store.decisions import DecisionLog, Halt
from core.store.opening import Store
from core.store.trading_records import (
    EquityPoint,
    HitRate,
    KillCount,
    MilestoneState,
    PerformanceStats,
    PortfolioState,
    Position,
    SeniorityLine,
    SystemSeniority,
    Trade,
)
from core.types import DecisionTrace

SCHEMA_VERSION = 1
_MOST_POINTS = 10_000
_MOST_TRADES = 25
_MOST_DECISIONS = 25


@dataclass(frozen=True, kw_only=True)
class ContextRecord:
    """What a context has shown, and what is made of it.

    Parameters
    ----------
    rate : HitRate
    shrunk : float
        Probability of a hit that sizing uses, as a fraction.
    status : RecordStatus
    """

    rate: HitRate
    shrunk: float
    status: RecordStatus


@dataclass(frozen=True, kw_only=True)
class ModelCost:
    """What the director's model cost, in US dollars."""

    today: float
    total: float


@dataclass(frozen=True, kw_only=True)
class DailyReport:
    """Tell how the traders are doing.

    Parameters
    ----------
    title : str
    as_of : datetime
        UTC.
    portfolio : PortfolioState or None
        None before the first valuation.
    kill_drawdown : float or None
        Drawdown at which the stage of the equity halts trading, as a fraction.
    history : tuple of EquityPoint
        Oldest first.
    positions : tuple of Position
    kills : tuple of KillCount
        Of all decisions there are.
    n_decisions : int
    records : tuple of ContextRecord
        Those with a closed trade, most trades first.
    comparisons : tuple of Comparison
        Strategies of whose trades something was expected, in alphabetical order.
    stats : PerformanceStats
    trades : tuple of Trade
        The last closed ones, newest first.
    decisions : tuple of DecisionTrace
        The last ones, newest first.
    seniority : tuple of SeniorityLine
    system : SystemSeniority or None
    milestones : MilestoneState or None
    halts : tuple of Halt
        In force.
    cost : ModelCost
    notes : tuple of str
        What a reader must know before any figure.
    charts : mapping of str to bytes
        PNG pictures by name.
    """

    title: str
    as_of: datetime
    portfolio: PortfolioState | None
    kill_drawdown: float | None
    history: tuple[EquityPoint, ...]
    positions: tuple[Position, ...]
    kills: tuple[KillCount, ...]
    n_decisions: int
    records: tuple[ContextRecord, ...]
    comparisons: tuple[Comparison, ...]
    stats: PerformanceStats
    trades: tuple[Trade, ...]
    decisions: tuple[DecisionTrace, ...]
    seniority: tuple[SeniorityLine, ...]
    system: SystemSeniority | None
    milestones: MilestoneState | None
    halts: tuple[Halt, ...]
    cost: ModelCost
    notes: tuple[str, ...] = ()
    charts: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def n_ordered(self) -> int:
        """Decisions that led to an order."""
        return self.n_decisions - sum(kill.n for kill in self.kills)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values without its pictures."""

        def plain(message: Any) -> Any:
            return None if message is None else message.to_dict()

        return {
            "schema_version": SCHEMA_VERSION,
            "title": self.title,
            "as_of": self.as_of.isoformat(),
            "code_version": code_version(),
            "portfolio": plain(self.portfolio),
            "kill_drawdown": self.kill_drawdown,
            "history": [plain(point) for point in self.history],
            "positions": [plain(position) for position in self.positions],
            "n_decisions": self.n_decisions,
            "n_ordered": self.n_ordered,
            "kills": [plain(kill) for kill in self.kills],
            "hit_rates": [{**plain(one.rate), "shrunk": one.shrunk, "status": one.status.value} for one in self.records],
            "expectations": [{**asdict(one), "verdict": one.verdict} for one in self.comparisons],
            "stats": plain(self.stats),
            "trades": [plain(trade) for trade in self.trades],
            "decisions": [plain(trace) for trace in self.decisions],
            "seniority": [plain(line) for line in self.seniority],
            "system_seniority": plain(self.system),
            "milestones": plain(self.milestones),
            "halts": [plain(halt) for halt in self.halts],
            "model_cost_usd": {"today": self.cost.today, "total": self.cost.total},
            "notes": list(self.notes),
            "charts": [f"{name}.png" for name in self.charts],
        }

    def to_html(self) -> str:
        """Return the report as one HTML document that fetches nothing and runs no script."""
        return render_page(self)

    def save(self, folder: str | Path) -> Path:
        """Write `daily-report.html`, `daily-report.json` and the pictures, and return the page's path.

        Raises
        ------
        StoreUnavailableError
            If the folder cannot be written.
        """
        return write_report(folder, "daily-report", page=self.to_html(), values=self.to_dict(), charts=self.charts)


def build_daily_report(
    store: Store,
    as_of: datetime,
    *,
    title: str = "Daily report",
    milestones: MilestonesConfig | None = None,
    gate: PromotionGateConfig | None = None,
    notes: tuple[str, ...] = (),
) -> DailyReport:
    """Read the report from the store.

    Parameters
    ----------
    store : Store
    as_of : datetime
        When it is written; the day of it is the day whose model cost is told, UTC.
    title : str, optional
    milestones : MilestonesConfig, optional
        The stages that the account trades by.
    gate : PromotionGateConfig, optional
        How hit rates are shrunk.
    notes : tuple of str, optional

    Raises
    ------
    DataError
        If `as_of` is naive.
    StoreError
        If the store cannot be read.
    """
    if as_of.utcoffset() is None:
        raise DataError(f"`as_of` must be tz-aware, was {as_of.isoformat()}; use UTC.")
    trading, log = store.trading, DecisionLog(store.trading.gateway)
    spending = SpendingLog(trading.gateway)
    portfolio = trading.load_portfolio()
    rules = None if portfolio is None else (milestones or MilestonesConfig()).rules(portfolio.equity)
    history = tuple(trading.drawdown_history(limit=_MOST_POINTS))
    kills = tuple(sorted(trading.kill_stage_stats(), key=lambda kill: -kill.n))
    trades = [trade for trade in store.trade_log.list_trades() if trade.closed_at is not None]
    records = _records(store.trade_log.list_hit_rates(), PromotionGate(gate))
    # A share is of all decisions; where nothing was refused there are no more decisions than orders, which can be read.
    n_decisions = round(kills[0].n / kills[0].share) if kills else len(trading.list_decision_traces(limit=_MOST_POINTS))
    n_killed = sum(kill.n for kill in kills)
    comparisons = compare_returns(store.service.list_live_performance())
    return DailyReport(
        title=title,
        as_of=as_of,
        portfolio=portfolio,
        kill_drawdown=None if rules is None else rules.kill_drawdown,
        history=history,
        positions=tuple(trading.list_positions()),
        kills=kills,
        n_decisions=n_decisions,
        records=records,
        comparisons=comparisons,
        stats=trading.performance_stats(),
        trades=tuple(sorted(trades, key=_closing, reverse=True)[:_MOST_TRADES]),
        decisions=tuple(trading.list_decision_traces(limit=_MOST_DECISIONS)),
        seniority=tuple(trading.seniority_report()),
        system=trading.system_seniority(),
        milestones=trading.load_milestones(),
        halts=tuple(halt for halt in log.list_halts() if halt.resumed_at is None),
        cost=ModelCost(today=spending.spent(as_of.replace(hour=0, minute=0, second=0, microsecond=0)), total=spending.spent()),
        notes=notes,
        charts=_draw(history, kills, n_decisions - n_killed, records, comparisons),
    )


def _closing(trade: Trade) -> tuple[datetime, str]:
    assert trade.closed_at is not None
    return trade.closed_at, trade.trade_id


def _records(rates: list[HitRate], gate: PromotionGate) -> tuple[ContextRecord, ...]:
    closed = sorted(
        (rate for rate in rates if rate.closed_trades > 0), key=lambda rate: (-rate.closed_trades, rate.context_key)
    )
    judged = [(rate, gate.judge(rate)) for rate in closed]
    return tuple(ContextRecord(rate=rate, shrunk=estimate.p, status=estimate.status) for rate, estimate in judged)


def _draw(
    history: tuple[EquityPoint, ...],
    kills: tuple[KillCount, ...],
    n_ordered: int,
    records: tuple[ContextRecord, ...],
    comparisons: tuple[Comparison, ...],
) -> dict[str, bytes]:
    from backtest import charts

    pictures: dict[str, bytes] = {}
    # Of one unit: money that was paid in or out is no growth and no drawdown.
    equity = pd.Series({point.recorded_at: point.unit_value for point in history}, dtype=float)
    if len(equity) > 1 and equity.iloc[0] > 0.0:
        lines = {"account": equity}
        log_scale = charts.needs_log_scale(lines)
        pictures["equity"] = charts.draw_equity(lines, log=log_scale, title="Growth of 1 after costs")
        pictures["drawdown"] = charts.draw_drawdown(lines)
    endings = {f"{kill.binding_constraint.value.replace('_', ' ')} ({kill.killed_at_stage.value})": kill.n for kill in kills}
    if n_ordered > 0:
        endings["ordered"] = n_ordered
    if endings:
        pictures["endings"] = draw_endings(endings)
    points = [
        RatePoint(
            label=one.rate.context_key.replace("|", " · ").replace("_", " "),
            measured=one.rate.hit_rate or 0.0,
            shrunk=one.shrunk,
            n=one.rate.closed_trades,
        )
        for one in records
    ]
    if points:
        pictures["hit_rates"] = draw_hit_rates(points)
    if comparisons:
        pictures["expectations"] = draw_expectations(comparisons)
    return pictures
