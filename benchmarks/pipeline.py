"""Time the trading pipeline: ``python -m benchmarks.pipeline [--signals N] [--json]``.

Signals through every gate in rule mode, with the paper broker, on an embedded Postgres of its own as it comes (`fsync` and
`synchronous_commit` on): screened against 30,000 names, with traces, orders and trades durable before the next batch. The
day is simulated: after every 200 signals half an hour passes and the stocks that matter get a bar, so that entries fill,
exits are touched, trades close and the next sizes learn from them; all of that is in the time, but for drawing the prices.
Of 20 signals 9 are good news, 4 bad news, 2 earnings, and one each a routine filing, neutral, out of the universe, a
sanctioned name and an ESG term; Icarus mutes no pattern, or most would die there. Apart from that, signals that all become
orders, fifteen a round of three minutes, which is what the largest stage allows; each round begins with a tick, and what
filling and closing them in between takes is printed beside. The latency of a signal is that of its batch, from the first
signal taken to the last trace committed. The goals hold for both: for the mix, and for orders alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psutil

from agents.brokers.paper import PaperBroker, PaperConfig
from agents.trading.context import PipelineConfig, TradingConfig, TradingContext
from agents.trading.gates import build_gates
from agents.trading.icarus import IcarusConfig
from agents.trading.limits import LimitsConfig
from agents.trading.market_data import SECTOR_FUNDS, SP500, VIX, Bar, Quote
from agents.trading.name_index import ListedName, NameIndex
from agents.trading.pipeline import Pipeline, build_pipeline
from agents.trading.sanctions import ListFormat, SanctionsList, ScreeningLists
from benchmarks.backtest import cpu_model
from benchmarks.sanctions_names import MEASURING, build_evaluation
from core.clock import Clock, FixedClock, SystemClock
from core.settings import Settings
from core.store.opening import Store, open_store
from core.types import DecisionTrace, PipelineStatus, RawSignal, Severity, SignalCategory

NOW = datetime(2024, 3, 4, 15, 30, tzinfo=UTC)
N_SYMBOLS, N_NAMES, PER_STEP, STEP = 400, 30_000, 200, timedelta(minutes=30)
PER_ROUND = 15
GOALS = {"signals_per_second": 300.0, "p99_ms": 50.0, "orders_per_second": 300.0, "orders_p99_ms": 50.0, "peak_mib": 1024.0}
KINDS = (
    *["good"] * 9,
    *["bad"] * 4,
    *["earnings"] * 2,
    "routine",
    "neutral",
    "foreign",
    "sanctioned",
    "esg",
)  # fmt: skip


class Lists:
    """Sanctions lists that are always of today."""

    def __init__(self, names: tuple[ListedName, ...]) -> None:
        self.names = names
        self.index = NameIndex(names)
        self.clock: Clock = SystemClock()

    def load(self) -> ScreeningLists:
        """Return the lists."""
        listed = SanctionsList(format=ListFormat.OFAC, version="generated", dated=self.clock.now(), names=self.names)
        return ScreeningLists(lists=(listed,), index=self.index)

    def forget(self) -> None:
        """Nothing is kept."""


@dataclass
class Market:
    """Prices that walk at random, and a calm market around them."""

    clock: FixedClock
    rng: np.random.Generator
    last: dict[str, float] = field(default_factory=dict)

    def get_quote(self, symbol: str, as_of: datetime) -> Quote | None:
        """Return the last price."""
        if symbol == VIX:
            return Quote(symbol=VIX, price=14.0, at=as_of)
        price = self.last.get(symbol)
        return None if price is None else Quote(symbol=symbol, price=price, at=as_of)

    def list_bars(self, symbol: str, as_of: datetime, n: int) -> list[Bar]:
        """Return flat bars of the index and the funds, the index up 3 % at the end."""
        if symbol not in (SP500, *SECTOR_FUNDS):
            return []
        closes = [100.0] * (n - 1) + [103.0]
        return [
            Bar(symbol=symbol, at=as_of - timedelta(hours=n - place), open=close, high=close, low=close, close=close)
            for place, close in enumerate(closes)
        ]

    def step(self, symbols: set[str]) -> list[Bar]:
        """Let half an hour pass for some stocks."""
        self.clock.advance(STEP)
        bars = []
        for symbol in sorted(symbols):
            begin = self.last[symbol]
            end = max(1.0, begin * float(np.exp(self.rng.normal(0.0, 0.02))))
            at, high, low = self.clock.now(), max(begin, end), min(begin, end)
            bars.append(Bar(symbol=symbol, at=at, open=begin, high=high, low=low, close=end, volume=1e7))
            self.last[symbol] = end
        return bars


@dataclass(frozen=True)
class _Desk:
    pipeline: Pipeline
    market: Market
    broker: PaperBroker


def make_signals(
    n: int,
    symbols: list[str],
    sanctioned: list[str],
    rng: np.random.Generator,
    *,
    kinds: tuple[str, ...] = KINDS,
    each: bool = False,
) -> list[RawSignal]:
    """Make n signals of a mix, about symbols drawn at random or, with `each`, one about each."""
    made = []
    for number in range(n):
        kind = kinds[number % len(kinds)]
        symbol = symbols[number] if each else symbols[int(rng.integers(len(symbols)))]
        category = {
            "bad": SignalCategory.SUPPLIER_DISRUPTION,
            "earnings": SignalCategory.EARNINGS_SURPRISE,
            "neutral": SignalCategory.NEUTRAL,
        }.get(kind, SignalCategory.POSITIVE_NEWS)
        headline = {
            "routine": "10-Q",
            "sanctioned": f"{symbol} signs with {sanctioned[number % len(sanctioned)] if sanctioned else ''}",
            "esg": f"{symbol} opens a coal mine, item {number}",
            "bad": f"A fire stops the plant of {symbol}, item {number}",
        }.get(kind, f"{symbol} announces item {number} of the quarter")
        made.append(
            RawSignal(
                signal_id=str(UUID(int=int(rng.integers(1 << 62)) << 64 | number)),
                headline=headline,
                summary=f"The company said on Monday that number {number} of its plans goes ahead as agreed with its partners.",
                published_at=NOW,
                category=category,
                severity=Severity.HIGH,
                affected_tickers=("ZZZZ" if kind == "foreign" else symbol,),
                supplier=None,
            )
        )
    return made


def open_pipeline(store: Store, lists: Lists, rng: np.random.Generator, *, cash: float, config: TradingConfig) -> _Desk:
    """Build a pipeline over a paper account of its own."""
    clock = FixedClock(NOW)
    lists.clock = clock
    symbols = [f"S{number:03d}" for number in range(N_SYMBOLS)]
    market = Market(clock, rng, dict.fromkeys(symbols, 100.0))
    icarus = IcarusConfig(universe=frozenset(symbols), max_age=timedelta(days=3650), mute_min_seen=10**9)
    gates = build_gates(store.trading, market, lists, clock, icarus=icarus)
    broker = PaperBroker(store.trading.gateway, PaperConfig(initial_cash=cash), clock)
    sectors = {symbol: f"sector {number % 11}" for number, symbol in enumerate(symbols)}
    context = TradingContext(store=store, broker=broker, data=market, gates=gates, clock=clock, sectors=sectors, config=config)
    return _Desk(pipeline=build_pipeline(context), market=market, broker=broker)


def run_mixed(desk: _Desk, signals: list[RawSignal], home: Path) -> dict[str, Any]:
    """Send the mix through, half an hour of market after every 200 signals, and return the figures."""
    batch = desk.pipeline.context.config.pipeline.batch
    latencies: list[float] = []
    kept: list[DecisionTrace] = []
    desk.pipeline.recover()
    drawn, used = 0.0, _processor_seconds(home)
    began = time.perf_counter()
    for start in range(0, len(signals), batch):
        part = signals[start : start + batch]
        before = time.perf_counter()
        traces = desk.pipeline.run(part)
        latencies += [time.perf_counter() - before] * len(part)
        kept += traces
        if start // PER_STEP != (start + batch) // PER_STEP:
            before = time.perf_counter()
            bars = desk.market.step(set(desk.pipeline.argus.view().open_symbols))
            drawn += time.perf_counter() - before
            desk.broker.on_bars(bars)
            desk.pipeline.tick()
    seconds = time.perf_counter() - began - drawn
    own, server = (after - before for after, before in zip(_processor_seconds(home), used, strict=True))
    processor = {"processor_ms": round(1000.0 * own / len(signals), 2), "server_ms": round(1000.0 * server / len(signals), 2)}
    return _figures(len(signals), seconds, latencies) | processor | {"ends": dict(Counter(map(_end, kept)).most_common())}


def run_traded(desk: _Desk, rounds: int) -> dict[str, Any]:
    """Send signals that all become orders, fifteen a round; between the rounds all are filled and reach their targets."""
    batch = desk.pipeline.context.config.pipeline.batch
    latencies: list[float] = []
    orders, seconds, closing = 0, 0.0, 0.0
    desk.pipeline.recover()
    symbols = sorted(desk.market.last)
    rng = np.random.default_rng(7)
    for _ in range(rounds):
        chosen = [symbols[int(place)] for place in rng.choice(len(symbols), size=PER_ROUND, replace=False)]
        made = make_signals(PER_ROUND, chosen, [], rng, kinds=("good",), each=True)
        for start in range(0, PER_ROUND, batch):
            part = made[start : start + batch]
            before = time.perf_counter()
            traces = desk.pipeline.run(part)
            taken = time.perf_counter() - before
            seconds += taken
            latencies += [taken] * len(part)
            orders += sum(trace.status is not PipelineStatus.KILLED for trace in traces)
        for price in (100.0, 110.0):
            desk.market.clock.advance(timedelta(minutes=1))
            at = desk.market.clock.now()
            bars = [Bar(symbol=name, at=at, open=price, high=price, low=price, close=price) for name in chosen]
            before = time.perf_counter()
            desk.broker.on_bars(bars)
            desk.pipeline.tick()
            closing += time.perf_counter() - before
        desk.market.clock.advance(timedelta(minutes=1))  # so that the next round begins with a look at the broker and the book
    figures = _figures(len(latencies), seconds, latencies) | {"orders": orders, "orders_per_second": round(orders / seconds, 1)}
    return figures | {"fill_and_close_ms_per_trade": round(1000.0 * closing / max(1, orders), 2)}


def measure(n: int, rounds: int) -> dict[str, Any]:
    """Measure both kinds of load, each on a server of its own."""
    rng = np.random.default_rng(11)
    names = build_evaluation(MEASURING, n_names=N_NAMES, n_cases=10).names
    lists = Lists(names)
    folder = Path(tempfile.mkdtemp(prefix="aqf-pipeline-"))
    folder.chmod(0o711)
    wide = TradingConfig(limits=LimitsConfig(max_per_sector=15, cooldown_hours=0.0), pipeline=PipelineConfig(tick_seconds=60.0))
    try:
        with open_store(Settings(home=folder / "traded")) as store:
            traded = run_traded(open_pipeline(store, lists, rng, cash=3e6, config=wide), rounds)
        with open_store(Settings(home=folder / "mixed")) as store:
            config = TradingConfig(pipeline=PipelineConfig(tick_seconds=60.0))
            desk = open_pipeline(store, lists, rng, cash=900_000.0, config=config)
            made = make_signals(n, sorted(desk.market.last), [item.name for item in names[:500]], rng)
            mixed = run_mixed(desk, made, folder / "mixed")
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"mixed": mixed, "traded": traded, "peak_mib": round(peak, 1)}


def _figures(n: int, seconds: float, latencies: list[float]) -> dict[str, Any]:
    return {
        "signals": n,
        "signals_per_second": round(n / seconds, 1),
        "p50_ms": round(1000.0 * float(np.percentile(latencies, 50)), 2),
        "p99_ms": round(1000.0 * float(np.percentile(latencies, 99)), 2),
    }


def _processor_seconds(home: Path) -> tuple[float, float]:
    """Return the processor time of this process and of the database server's, which wait for each other in turn."""
    running = psutil.process_iter(["cmdline"])
    masters = [process for process in running if any(str(home) in part for part in process.info["cmdline"] or ())]
    server = [part for master in masters for part in (master, *master.children(recursive=True)) if part.pid != os.getpid()]
    return time.process_time(), sum(sum(process.cpu_times()[:2]) for process in server)


def _end(trace: DecisionTrace) -> str:
    killed = trace.status is PipelineStatus.KILLED and trace.binding_constraint is not None
    return str(trace.binding_constraint.value if killed and trace.binding_constraint else trace.status.value)


def main() -> None:
    """Print the figures as a table, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=80)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.signals, arguments.rounds)
    found["goals"] = {
        "signals_per_second": found["mixed"]["signals_per_second"] >= GOALS["signals_per_second"],
        "p99_ms": found["mixed"]["p99_ms"] < GOALS["p99_ms"],
        "orders_per_second": found["traded"]["orders_per_second"] >= GOALS["orders_per_second"],
        "orders_p99_ms": found["traded"]["p99_ms"] < GOALS["orders_p99_ms"],
        "peak_mib": found["peak_mib"] <= GOALS["peak_mib"],
    }
    packages = ("langgraph", "psycopg", "numpy")
    found["machine"] = {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }
    if arguments.json:
        print(json.dumps(found))
        return
    machine = found["machine"]
    libraries = ", ".join(f"{name} {machine[name]}" for name in packages)
    print(f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {libraries}")
    for name in ("mixed", "traded"):
        figures = found[name]
        print(f"{name}: {figures['signals']:,} signals, {figures['signals_per_second']:,.0f}/s, ", end="")
        print(f"p50 {figures['p50_ms']:.1f} ms, p99 {figures['p99_ms']:.1f} ms")
    print(f"ends: {found['mixed']['ends']}")
    traded = found["traded"]
    print(f"orders: {traded['orders']:,}, {traded['orders_per_second']:,.0f}/s", end="")
    print(f"; filled and closed: {traded['fill_and_close_ms_per_trade']} ms a trade")
    mixed = found["mixed"]
    print(f"processor: {mixed['processor_ms']} ms a signal of the mix here, {mixed['server_ms']} ms of the server's")
    print(f"memory: {found['peak_mib']:.0f} MiB at most")
    print("goals: " + ", ".join(f"{name} {'met' if met else 'missed'}" for name, met in found["goals"].items()))


if __name__ == "__main__":
    main()
