"""What the tests of the research store write: a data set, a run, features, trials."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pandas as pd
import psycopg

from core.market.panel import FloatArray, Panel
from core.store.records import VECTOR_WIDTH, Dataset, Feature, Run, TrialRecord
from core.store.research import ResearchStore


def build_panel(n_bars: int = 50, symbols: tuple[str, ...] = ("AAA", "BBB", "CCC"), seed: int = 0) -> Panel:
    """Bars with every field, of symbols that start late, stop early, and have gaps."""
    rng = np.random.default_rng(seed)
    shape = (n_bars, len(symbols))
    close = 50.0 * np.cumprod(1.0 + 0.02 * rng.standard_normal(shape), axis=0)
    low, high = close * (1.0 - 0.01 * rng.random(shape)), close * (1.0 + 0.01 * rng.random(shape))
    volume = np.round(rng.random(shape) * 1e6)
    volume[4] = 0.0
    missing = np.zeros(shape, dtype=bool)
    missing[:7, 1] = True
    missing[-5:, 2] = True
    missing[20:23, 1:] = True
    fields = {"open": (low + high) / 2.0, "high": high, "low": low, "close": close, "volume": volume}
    fields = {name: np.where(missing, np.nan, values) for name, values in fields.items()}
    fields["volume"][30] = np.nan
    fields["open"][31, 0] = np.nan
    index = pd.bdate_range("2020-01-01 21:00", periods=n_bars, tz="UTC", normalize=False).as_unit("us")
    return Panel(index=index, symbols=symbols, name="toy", **fields)


def import_toy(store: ResearchStore, **changes: Any) -> Dataset:
    return store.import_dataset(build_panel(), **({"name": "toy", "source": "a test"} | changes))


def create_run(store: ResearchStore, dataset: Dataset, *, lineage: str = "a question") -> Run:
    run_id = uuid4()
    return store.create_run(
        run_id=run_id,
        request={"question": lineage},
        dataset=dataset,
        lineage=lineage,
        thread_id=f"thread-{run_id}",
        planner="rules",
        budget={"trials": 10},
        code_version="1",
    )


def proposal(expression: str = "rank(close)", name: str = "a feature") -> dict[str, Any]:
    return {
        "name": name,
        "expression": expression,
        "expression_sha256": sha256(expression.encode()).hexdigest(),
        "lookback": 5,
        "family": "reversal",
        "hypothesis": "it works",
    }


def propose(store: ResearchStore, expression: str = "rank(close)", *, name: str = "a feature") -> Feature:
    return store.propose_feature(proposal(expression, name))


def behaviour_of(returns: FloatArray) -> FloatArray:
    """Centre and normalise, as the ledger wants it: the cosine of two is then their correlation."""
    centred = returns - returns.mean()
    unit: FloatArray = centred / np.linalg.norm(centred)
    return unit


def trial(run: Run, feature: Feature, number: int = 1, **changes: Any) -> TrialRecord:
    rng = np.random.default_rng(number)
    record = TrialRecord(
        run_id=run.run_id,
        feature_id=feature.feature_id,
        strategy_id=f"strategy {number}",
        config={"number": number},
        config_sha256=sha256(f"config {number}".encode()).hexdigest(),
        n_obs=500,
        sharpe=0.05,
        skew=-0.25,
        kurtosis=4.5,
        returns_uri=f"artifact://feature-snapshots/{'0' * 64}.npy",
        behaviour=behaviour_of(rng.standard_normal(VECTOR_WIDTH)),
        metrics={"sharpe": 0.8, "turnover": 1.5},
    )
    return replace(record, **changes)


def run_beside(owner: psycopg.Connection, statement: str, parameters: list[Any], act: Callable[[], Any]) -> tuple[Any, Any]:
    """Run `act` while another session has run a statement that it commits only once `act` waits, or is done.

    Returns
    -------
    tuple
        The first value the statement returned, and what `act` returned; its errors are raised.
    """
    waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    with psycopg.connect(owner.info.dsn, autocommit=True) as watcher, ThreadPoolExecutor(1) as pool:
        with owner.transaction():
            row = owner.execute(statement, parameters).fetchone()  # type: ignore[call-overload]
            future = pool.submit(act)
            while not future.done() and watcher.execute(waiting).fetchone() == (0,):
                pass
        return row[0], future.result()


def utc(year: int, month: int, day: int, hour: int = 0) -> datetime:
    return datetime(year, month, day, hour, tzinfo=UTC)


def candidates(*names: str) -> Mapping[str, Any]:
    return {"features": list(names)}


NOBODY = UUID(int=0)
