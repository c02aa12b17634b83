"""Replay: judges recorded rows one by one, each in a world of its own, and says where the verdict is not the expected one.

Hides how that world is made. Promises that the same agents judge as in trading, in rule mode, on an empty paper account, by a
system of trainees; that no row knows of another; and that nothing of it stays in the store.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agents.brokers.broker import Order
from agents.brokers.paper import PaperBroker, PaperConfig
from agents.trading.context import TradingConfig, TradingContext
from agents.trading.gates import Gates, build_gates
from agents.trading.market_data import SECTOR_FUNDS, SP500, VIX, Bar, Quote
from agents.trading.pipeline import build_pipeline
from agents.trading.sanctions import FictitiousLists, ListSource
from agents.trading.sizing import RampSizing, Sizing
from core.clock import Clock, FixedClock
from core.errors import DataError, MissingDataError
from core.message import Message, refuse
from core.store.opening import Store
from core.store.rehearsal import Rehearsal
from core.types import (
    BindingConstraint,
    Count,
    DecisionTrace,
    Fraction,
    Identifier,
    Positive,
    SignalCategory,
    Stage,
    context_key,
)

COLUMNS = (
    "signal_id", "published_at", "now", "headline", "summary", "category", "severity", "tickers", "supplier", "vix",
    "sp500_1m_return", "price", "equity", "hit_rate", "closed_trades", "expected_stage", "expected_constraint",
)  # fmt: skip
FILLED = "filled"
"""Where a signal ends whose order was filled."""

_MOST_ROWS = 1_000_000
_MOST_CLOSED = 10_000
_MONTH_BARS = 64
_GAIN = 0.01
_ROUNDING = 0.005


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayRow(Message):
    """A row: a signal as it came, the world it meets, and how it should end.

    Parameters
    ----------
    line : int
        Of the file.
    signal : mapping of str to str
        Fields of the signal as text: what is wrong with them is for the pipeline to say.
    now : datetime
        When it is judged, UTC.
    vix, sp500_1m_return : float, optional
        Index points; a fraction. None is no data.
    price : float, optional
        Last price of every ticker of the signal; None is no data.
    equity : float
        Cash of the empty account.
    hit_rate, closed_trades : float, int
        What the context has shown before.
    expected_stage : str
        The stage that refuses, or `FILLED`.
    expected_constraint : BindingConstraint, optional
        What binds; of a filled row, what cut the size, None where nothing did.
    """

    line: Count
    signal: Mapping[str, str] = field(hash=False)
    now: datetime
    vix: float | None = None
    sp500_1m_return: float | None = None
    price: float | None = None
    equity: Positive
    hit_rate: Fraction = 0.0
    closed_trades: Count = 0
    expected_stage: Identifier
    expected_constraint: BindingConstraint | None = None

    def _check(self) -> None:
        if self.expected_stage not in (*(stage.value for stage in Stage), FILLED):
            raise refuse(self, "expected_stage", f"a stage or `{FILLED}`", self.expected_stage)
        if self.closed_trades > _MOST_CLOSED:
            raise refuse(self, "closed_trades", f"at most {_MOST_CLOSED}", self.closed_trades)
        if self.closed_trades and abs(self.hits / self.closed_trades - self.hit_rate) > _ROUNDING:
            expected = f"a share of {self.closed_trades} trades, to two decimals"
            raise refuse(self, "hit_rate", expected, self.hit_rate)

    @property
    def hits(self) -> int:
        """Closed trades that gained."""
        return round(self.hit_rate * self.closed_trades)

    @property
    def tickers(self) -> tuple[str, ...]:
        """The tickers of the signal."""
        return tuple(name.strip() for name in self.signal["tickers"].split("|") if name.strip())


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
        """Whether it ended as expected."""
        return (self.stage, self.constraint) == (self.row.expected_stage, self.row.expected_constraint)

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


def read_replay(path: str | Path) -> list[ReplayRow]:
    """Read a file of rows.

    Parameters
    ----------
    path : str or Path
        CSV in UTF-8 with exactly the columns `COLUMNS`. Tickers are separated by ``|``; an empty `vix`, `sp500_1m_return` or
        `price` is no data; an empty `hit_rate` and `closed_trades` is a context without a record.

    Raises
    ------
    MissingDataError
        If there is no such file.
    DataError
        If it is not as described, two rows have one `signal_id`, or a row describes a world that cannot be; the text names the
        line. What is wrong with a signal is no error here: the pipeline refuses it, with a trace.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(_read_rows(path, csv.DictReader(file, strict=True)))
    except FileNotFoundError as error:
        raise MissingDataError(f"there is no file {path}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as CSV in UTF-8: {error}.") from error


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

    return Counter((end(one.row.expected_stage, one.row.expected_constraint), end(one.stage, one.constraint)) for one in judged)


class _RowClock:
    """The clock of the row at hand, so that lists are read once for all rows."""

    def __init__(self) -> None:
        self.row: FixedClock | None = None

    def now(self) -> datetime:
        if self.row is None:
            raise DataError("no row is being judged, so there is no time.")
        return self.row.now()


def _judge(row: ReplayRow, store: Store, clock: _RowClock, lists: ListSource, rules: ReplayRules) -> Judged:
    market = RowMarket(row)
    config = rules.trading
    gates = build_gates(store.trading, market, lists, clock, icarus=config.icarus, hades=config.hades, artemis=config.artemis)
    if row.closed_trades:
        _preload(row, store, gates)
    broker = PaperBroker(store.trading.gateway, PaperConfig(initial_cash=row.equity), clock)
    context = TradingContext(
        store=store, broker=broker, data=market, gates=gates, clock=clock, sizing=rules.sizing, config=config
    )
    pipeline = build_pipeline(context)
    (trace,) = pipeline.run([_as_json(row)])
    if trace.killed_at_stage is not None:
        return Judged(row=row, trace=trace, stage=trace.killed_at_stage.value)
    orders = [Order.from_dict(sent.payload["order"]) for sent in pipeline.log.list_open_orders() if "order" in sent.payload]
    assert clock.row is not None
    at = clock.row.advance(timedelta(minutes=1))
    fills = broker.on_bar(_flat_bar(trace.symbol or "", at, row.price or math.nan))
    return Judged(row=row, trace=trace, stage=FILLED if fills else trace.status.value, order=orders[0] if orders else None)


def _preload(row: ReplayRow, store: Store, gates: Gates) -> None:
    """Write down the closed trades that give the row's context its record; a context nobody can name has none."""
    macro = gates.artemis.context()
    category = row.signal["category"]
    if macro.vix_band is None or category not in list(SignalCategory):
        return
    key = context_key(SignalCategory(category), macro.regime, macro.vix_band)
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


def _read_rows(path: Path, reader: csv.DictReader[str]) -> Iterator[ReplayRow]:
    found = tuple(reader.fieldnames or ())
    if sorted(found) != sorted(COLUMNS):
        missing, more = sorted(set(COLUMNS) - set(found)), sorted(set(found) - set(COLUMNS))
        what = "; ".join(
            [*([f"missing: {', '.join(missing)}"] if missing else []), *([f"unknown: {', '.join(more)}"] if more else [])]
        )
        raise DataError(f"{path} must have exactly the columns of a replay; {what or 'a column is there twice'}.")
    lines: dict[str, int] = {}
    for cells in reader:
        line = reader.line_num
        if None in cells or None in cells.values():
            raise DataError(f"{path}, line {line}: it must have {len(COLUMNS)} cells; quote a cell that holds a comma.")
        if cells["signal_id"] in lines:
            raise DataError(
                f"{path}, line {line}: the signal_id {cells['signal_id']!r} is that of line {lines[cells['signal_id']]}."
            )
        if len(lines) >= _MOST_ROWS:
            raise DataError(f"{path} must have at most {_MOST_ROWS:,} rows; split it.")
        lines[cells["signal_id"]] = line
        yield _read_row(path, line, cells)


def _read_row(path: Path, line: int, cells: Mapping[str, str]) -> ReplayRow:
    try:
        return ReplayRow(
            line=line,
            signal={name: cells[name] for name in COLUMNS[:9] if name != "now"},
            now=_time(cells["now"]),
            vix=_number(cells, "vix"),
            sp500_1m_return=_number(cells, "sp500_1m_return"),
            price=_number(cells, "price"),
            equity=_number(cells, "equity") or 0.0,
            hit_rate=_number(cells, "hit_rate") or 0.0,
            closed_trades=_count(cells["closed_trades"]),
            expected_stage=cells["expected_stage"].strip(),
            expected_constraint=_constraint(cells["expected_constraint"].strip()),
        )
    except DataError as error:
        raise DataError(f"{path}, line {line}: {error}") from error


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        found = None
    if found is None or found.utcoffset() is None:
        raise DataError(f"`now` must be a time with its offset, as 2024-03-01T15:00:00+00:00, was {text!r}.")
    return found.astimezone(UTC)


def _number(cells: Mapping[str, str], name: str) -> float | None:
    text = cells[name].strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"`{name}` must be a number or empty, was {text!r}.")
    return value


def _count(text: str) -> int:
    if not text.strip():
        return 0
    try:
        return int(text)
    except ValueError:
        raise DataError(f"`closed_trades` must be a whole number or empty, was {text!r}.") from None


def _constraint(text: str) -> BindingConstraint | None:
    if not text:
        return None
    try:
        return BindingConstraint(text)
    except ValueError:
        raise DataError(
            f"`expected_constraint` must be empty or one of {', '.join(BindingConstraint)}, was {text!r}."
        ) from None
