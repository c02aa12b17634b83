import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from psycopg.types.json import Jsonb

from backtest.integrity import effective_number_of_trials
from core.errors import MissingDataError, ShapeError, StoreConflictError, StoreError
from core.market import load_dataset
from core.market.panel import BAR_FIELDS, Panel
from core.store.opening import Store
from core.store.records import VECTOR_WIDTH, FeatureStatus, RunStatus
from core.store.research import ResearchStore
from tests.core.store.conftest import OVER_POSTGRES
from tests.core.store.research import (
    NOBODY,
    behaviour_of,
    build_panel,
    candidates,
    create_run,
    import_toy,
    proposal,
    propose,
    run_beside,
    trial,
    utc,
)

ROOT = Path(__file__).resolve().parents[3]
SEAL = utc(2020, 2, 20)


def check_same(one: Panel, other: Panel) -> None:
    assert one.symbols == other.symbols
    assert one.fields == other.fields
    assert (one.index == other.index).all()
    for name in one.fields:
        assert one.get(name).tobytes() == other.get(name).tobytes(), name
    assert one.content_sha256() == other.content_sha256()


# Data sets


def test_what_was_imported_is_loaded_bit_for_bit_with_gaps_and_fields(store: Store) -> None:
    panel = build_panel()
    dataset = import_toy(store.service, caveats=("made up",))
    check_same(store.service.load_panel(dataset), panel)
    assert dataset.content_sha256 == panel.content_sha256()
    assert (dataset.name, dataset.version, dataset.n_bars, dataset.frequency) == ("toy", 1, 50, "1d")
    assert dataset.symbols == ["AAA", "BBB", "CCC"]
    assert dataset.fields == list(BAR_FIELDS)
    assert (dataset.first_ts, dataset.last_ts) == (panel.index[0], panel.index[-1])
    assert dataset.caveats == ["made up"]


def test_real_closes_are_loaded_bit_for_bit(store: Store) -> None:
    panel = load_dataset("factors_5")
    dataset = store.service.import_dataset(panel, name=panel.name, source="skfolio")
    assert dataset.fields == ["close"]
    check_same(store.service.load_panel(dataset), panel)


def test_symbols_are_loaded_in_the_order_asked_for(store: Store) -> None:
    dataset = import_toy(store.service)
    loaded = store.service.load_panel(dataset, ["CCC", "AAA"])
    check_same(loaded, build_panel().select(["CCC", "AAA"]))


def test_an_unknown_symbol_is_answered_with_those_there_are(store: Store) -> None:
    dataset = import_toy(store.service)
    with pytest.raises(MissingDataError, match="unknown symbol ZZZ; toy has AAA, BBB, CCC"):
        store.service.load_panel(dataset, ["AAA", "ZZZ"])


def test_by_default_the_last_fifth_of_the_bars_is_sealed(store: Store) -> None:
    assert import_toy(store.service).sealed_from == build_panel().index[40]


def test_the_same_content_twice_is_the_same_row(store: Store) -> None:
    first = import_toy(store.service, sealed_from=SEAL)
    assert import_toy(store.service) == first
    assert import_toy(store.service, sealed_from=SEAL) == first
    assert store.service.list_datasets() == [first]
    assert len(store.service.gateway.select("market_bars", columns=("ts",))) == int((~np.isnan(build_panel().close)).sum())


def test_the_same_content_under_another_name_is_another_data_set(store: Store) -> None:
    first, second = import_toy(store.service), import_toy(store.service, name="other")
    assert first.dataset_id != second.dataset_id
    assert (first.content_sha256, first.version) == (second.content_sha256, second.version)


def test_other_content_is_the_next_version(store: Store) -> None:
    first = import_toy(store.service)
    second = store.service.import_dataset(build_panel(seed=1), name="toy", source="a test")
    assert (first.version, second.version) == (1, 2)
    assert store.service.find_dataset("toy") == second
    assert store.service.get_dataset(first.dataset_id) == first
    check_same(store.service.load_panel(first), build_panel())
    check_same(store.service.load_panel(second), build_panel(seed=1))


def test_a_thousand_hands_import_one_row(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        imported = list(pool.map(lambda _: import_toy(store.service), range(16)))
    assert len({dataset.dataset_id for dataset in imported}) == 1
    assert len(store.service.list_datasets()) == 1


def test_a_seal_cannot_be_moved(store: Store, owner: psycopg.Connection) -> None:
    import_toy(store.service, sealed_from=SEAL)
    for other in (SEAL + timedelta(days=1), SEAL - timedelta(days=1)):
        with pytest.raises(StoreConflictError, match="a seal cannot be moved"):
            import_toy(store.service, sealed_from=other)
    with pytest.raises(StoreConflictError, match="name, version, content and seal never change"):
        store.service.gateway.update("datasets", {"sealed_from": SEAL + timedelta(1)}, where={"name": "toy"})
    with pytest.raises(psycopg.errors.RestrictViolation):
        owner.execute("update datasets set sealed_from = 'infinity'")
    assert store.service.find_dataset("toy").sealed_from == SEAL


def test_more_bars_under_the_same_name_open_nothing_that_was_sealed(store: Store) -> None:
    first = import_toy(store.service)
    longer = store.service.import_dataset(build_panel(n_bars=80), name="toy", source="a test")
    assert longer.version == 2
    assert longer.sealed_from == first.sealed_from
    assert store.researcher.load_panel(longer).index[-1] < first.sealed_from
    with pytest.raises(StoreConflictError, match="neither by a new version nor under another name"):
        store.service.import_dataset(build_panel(n_bars=90), name="toy", source="a test", sealed_from=utc(2020, 4, 1))
    with pytest.raises(StoreConflictError, match="leaves none on one side"):
        store.service.import_dataset(build_panel().slice(0, 35), name="toy", source="a test")
    assert [dataset.version for dataset in store.service.list_datasets()] == [2, 1]


def test_another_name_opens_nothing_that_was_sealed_and_forgets_no_trial(store: Store) -> None:
    first = import_toy(store.service)
    store.researcher.record_trial(trial(create_run(store.service, first, lineage="one"), propose(store.researcher), 1))
    panel = build_panel()
    nearly = panel.replace(close=np.where(np.arange(50)[:, None] == 40, panel.close * 1.001, panel.close))
    for name, again in (("same", panel), ("nearly", nearly), ("part", panel.select(["AAA", "BBB"]))):
        for days in (-1, 1):
            with pytest.raises(
                StoreConflictError, match=r"imported before as .*: a seal cannot be moved, neither by a new version"
            ):
                seal = first.sealed_from + timedelta(days=days)
                store.service.import_dataset(again, name=name, source="a test", sealed_from=seal)
        copy = store.service.import_dataset(again, name=name, source="a test")
        assert (copy.family_id, copy.sealed_from, copy.version) == (first.family_id, first.sealed_from, 1)
        create_run(store.service, copy, lineage=name)
        assert store.researcher.count_trials(name).n_rows == 1
    other = store.service.import_dataset(build_panel(seed=1), name="other", source="a test")
    generated = store.service.import_dataset(panel, name="generated", source="a test", synthetic=True)
    assert len({first.family_id, other.family_id, generated.family_id}) == 3


@pytest.mark.parametrize(
    "seal", [utc(2019, 1, 1), utc(2020, 1, 1, 21), utc(2020, 3, 11), utc(2030, 1, 1)], ids=["before", "first", "after", "far"]
)
def test_a_seal_that_leaves_nothing_on_one_side_is_refused(store: Store, seal: Any) -> None:
    with pytest.raises(MissingDataError, match=r"`sealed_from` must lie inside the data, 2020-01-01\.\.2020-03-10, was"):
        import_toy(store.service, sealed_from=seal)
    assert store.service.list_datasets() == []


def test_a_seal_without_a_zone_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="must carry its zone, was the naive 2020-02-20"):
        import_toy(store.service, sealed_from=SEAL.replace(tzinfo=None))


@pytest.mark.parametrize(
    ("field", "value"), [("close", -1.0), ("close", 0.0), ("high", 1.0), ("close", math.inf), ("volume", -1.0)]
)
def test_a_bar_that_cannot_be_leaves_nothing_behind(store: Store, field: str, value: float) -> None:
    values = build_panel().get(field).copy()
    values[-1, 0] = value
    with pytest.raises(StoreError, match="violates check constraint"):
        store.service.import_dataset(build_panel().replace(**{field: values}), name="toy", source="a test")
    assert store.service.list_datasets() == []
    assert store.service.gateway.select("market_bars") == []


def test_an_infinite_close_without_other_fields_is_refused_and_not_dropped(store: Store) -> None:
    close = build_panel().close.copy()
    close[3, 0] = math.inf
    panel = Panel(index=build_panel().index, symbols=("AAA", "BBB", "CCC"), close=close)
    with pytest.raises(StoreError, match="violates check constraint"):
        store.service.import_dataset(panel, name="toy", source="a test")


def test_a_bar_without_any_value_is_refused_rather_than_lost(store: Store) -> None:
    panel = build_panel()
    holes = {name: panel.get(name).copy() for name in panel.fields}
    for values in holes.values():
        values[10] = np.nan
    with pytest.raises(MissingDataError, match="every bar of a data set must have a value of some symbol"):
        store.service.import_dataset(panel.replace(**holes), name="toy", source="a test")
    with pytest.raises(MissingDataError, match="every bar"):
        store.service.import_dataset(panel.slice(0, 0), name="toy", source="a test")


def test_a_symbol_without_a_single_bar_stays_a_column(store: Store) -> None:
    close = build_panel().close.copy()
    close[:, 1] = np.nan
    panel = Panel(index=build_panel().index, symbols=("AAA", "BBB", "CCC"), close=close)
    dataset = store.service.import_dataset(panel, name="toy", source="a test")
    check_same(store.service.load_panel(dataset), panel)


def test_columns_that_are_not_stored_are_named_in_a_caveat(store: Store) -> None:
    panel = replace(build_panel(), extra={"dividend": np.zeros((50, 3))})
    dataset = store.service.import_dataset(panel, name="toy", source="a test", caveats=("made up",))
    assert dataset.caveats == ["made up", "columns left out: dividend"]
    assert dataset.content_sha256 == build_panel().content_sha256()
    check_same(store.service.load_panel(dataset), build_panel())


def test_an_import_that_is_killed_leaves_nothing(store: Store, database: str, owner: psycopg.Connection) -> None:
    owner.execute("begin; lock table market_bars in exclusive mode")
    code = (
        "import sys; from core.store.postgres import PostgresGateway; from core.store.research import ResearchStore\n"
        "from tests.core.store.research import import_toy\n"
        "import_toy(ResearchStore(PostgresGateway(sys.argv[1], role='service_role').open()))\n"
    )
    with (
        subprocess.Popen([sys.executable, "-c", code, database], cwd=ROOT) as child,
        psycopg.connect(database, autocommit=True) as watcher,
    ):
        waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%import_dataset%'"
        while watcher.execute(waiting).fetchone() == (0,):
            assert child.poll() is None
        os.kill(child.pid, signal.SIGKILL)
        watcher.execute("select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock'")
    owner.execute("commit")
    assert store.service.list_datasets() == []
    assert store.service.gateway.select("market_bars") == []
    check_same(store.service.load_panel(import_toy(store.service)), build_panel())


def test_a_missing_data_set_is_answered_with_those_there_are(store: Store) -> None:
    with pytest.raises(MissingDataError, match="no data set 'x' in the store; it has none yet"):
        store.service.find_dataset("x")
    import_toy(store.service)
    with pytest.raises(MissingDataError, match="no data set 'x' in the store; it has toy"):
        store.service.find_dataset("x")
    with pytest.raises(MissingDataError, match="no data set with the id"):
        store.service.get_dataset(NOBODY)


# The seal


def test_a_researcher_loads_only_the_bars_before_the_seal(store: Store) -> None:
    dataset = import_toy(store.service, sealed_from=SEAL)
    check_same(store.researcher.load_panel(dataset), build_panel().before(pd.Timestamp(SEAL)))


def test_a_bar_at_the_seal_is_sealed(store: Store) -> None:
    dataset = import_toy(store.service)
    assert store.researcher.load_panel(dataset).index[-1] == build_panel().index[39]


def test_labels_may_be_known_at_another_bar_for_each_symbol(store: Store) -> None:
    dataset = import_toy(store.service)
    panel = build_panel()
    values = np.full(panel.shape, np.nan)
    values[2] = 1.0
    ends = np.broadcast_to(np.array([3, 5, 7]), panel.shape)
    store.service.save_labels(dataset, name="barrier", panel=panel, values=values, horizon_end=ends)
    rows = store.service.gateway.select("labels", where={"name": "barrier"})
    assert {row["symbol"]: row["horizon_end"] for row in rows} == {
        symbol: panel.index[end] for symbol, end in zip(panel.symbols, (3, 5, 7), strict=True)
    }


@OVER_POSTGRES
def test_no_statement_of_a_researcher_reaches_a_sealed_bar_or_label(store: Store) -> None:
    dataset = import_toy(store.service, sealed_from=SEAL)
    panel = build_panel()
    values = np.where(np.arange(50)[:, None] < 45, np.nan_to_num(panel.close), np.nan)
    store.service.save_labels(dataset, name="next", panel=panel, values=values, horizon_end=np.minimum(np.arange(50) + 5, 49))
    gateway = store.researcher.gateway
    bars = gateway.select("market_bars", columns=("ts",), order=("-ts",))
    assert bars[0]["ts"] == panel.index[35]
    assert gateway.select("market_bars", where={"ts": ("gte", SEAL)}) == []
    labels = gateway.select("labels", order=("-horizon_end",))
    assert labels[0]["horizon_end"] == panel.index[35]
    assert labels[0]["ts"] == panel.index[30]
    assert len(store.service.gateway.select("labels")) == 45 * 3
    with gateway.connection() as connection:
        for query in (
            "select max(ts) as newest from market_bars",
            "select max(b.ts) as newest from datasets d join market_bars b using (dataset_id) where d.sealed_from < 'infinity'",
            "with recursive b as (select ts from market_bars) select max(ts) as newest from b",
        ):
            assert connection.execute(query).fetchone() == {"newest": panel.index[35]}


@OVER_POSTGRES
@pytest.mark.parametrize("table", ["datasets", "market_bars", "labels"])
@pytest.mark.parametrize(
    "statement", ["update {} set created_at = now()", "delete from {}", "truncate {} cascade", "insert into {} default values"]
)
def test_a_researcher_changes_no_data(store: Store, table: str, statement: str) -> None:
    import_toy(store.service)
    if table == "market_bars":
        statement = statement.replace("created_at = now()", "close = 1")
    with pytest.raises(StoreError, match="permission denied"), store.researcher.gateway.connection() as connection:
        connection.execute(statement.format(table))


def test_a_researcher_imports_nothing(store: Store) -> None:
    with pytest.raises(StoreError, match="permission denied for function import_dataset"):
        import_toy(store.researcher)


# Runs and their memory


def test_a_run_is_found_by_the_beginning_of_its_id_or_its_thread(store: Store) -> None:
    dataset = import_toy(store.service)
    run = create_run(store.service, dataset)
    create_run(store.service, dataset)
    for name in (run.run_id, str(run.run_id)[:13].upper(), run.thread_id):
        assert store.service.get_run(name) == run
    with pytest.raises(MissingDataError, match="no run with the id zzz"):
        store.service.get_run("zzz")
    with pytest.raises(MissingDataError, match="must not be empty"):
        store.service.get_run(" ")


def test_a_run_ends_and_is_opened_again(store: Store) -> None:
    run = create_run(store.service, import_toy(store.service))
    assert (run.status, run.report, run.usage) == (RunStatus.RUNNING, None, {})
    store.service.fail_run(run.run_id, "killed")
    failed = store.service.get_run(run.run_id)
    assert (failed.status, failed.error) == (RunStatus.FAILED, "killed")
    store.service.reopen_run(run.run_id)
    assert store.service.get_run(run.run_id) == run
    store.service.finish_run(run.run_id, report={"verdict": "none"}, usage={"trials": 3}, finished_at=SEAL)
    done = store.service.get_run(run.run_id)
    assert (done.status, done.report, done.usage, done.finished_at) == (
        RunStatus.FINISHED,
        {"verdict": "none"},
        {"trials": 3},
        SEAL,
    )


def test_a_report_is_not_for_researchers(store: Store) -> None:
    run = create_run(store.service, import_toy(store.service))
    store.service.finish_run(run.run_id, report={"holdout": 1}, usage={}, finished_at=SEAL)
    (seen,) = store.researcher.list_runs()
    assert (seen.run_id, seen.status, seen.report) == (run.run_id, RunStatus.FINISHED, None)
    with pytest.raises(StoreError, match="permission denied"):
        store.researcher.gateway.select("research_runs", columns=("report",))


def test_a_tool_call_is_made_once(store: Store) -> None:
    run = create_run(store.service, import_toy(store.service))
    call = {
        "run_id": run.run_id,
        "tool_call_id": "c1",
        "step": 1,
        "tool": "t",
        "arguments": {"a": 1},
        "result": {"b": [1.5]},
        "seconds": 0.5,
    }
    assert store.researcher.find_tool_call(run.run_id, "c1") is None
    store.researcher.save_tool_call(call)
    found = store.researcher.find_tool_call(run.run_id, "c1")
    assert found is not None
    assert {name: found[name] for name in call} == call
    with pytest.raises(StoreConflictError, match="tool_calls_pkey"):
        store.researcher.save_tool_call(call)
    store.researcher.save_tool_call(call | {"tool_call_id": "c0", "step": 0})
    assert [row["tool_call_id"] for row in store.service.list_tool_calls(run.run_id)] == ["c0", "c1"]


def test_an_agent_remembers_what_it_saved_last(store: Store) -> None:
    assert store.researcher.load_agent_state("planner") == {}
    store.researcher.save_agent_state("planner", {"tried": ["a"]})
    store.researcher.save_agent_state("planner", {"tried": ["a", "b"]})
    assert store.researcher.load_agent_state("planner") == {"tried": ["a", "b"]}


def test_the_cost_of_a_run_is_the_sum_of_its_calls(store: Store) -> None:
    run = create_run(store.service, import_toy(store.service))
    call = {
        "model": "m",
        "role": "planner",
        "run_id": run.run_id,
        "input_tokens": 1000,
        "output_tokens": 10,
        "price_known": True,
    }
    store.service.record_llm_usage(call | {"cost_usd": 0.1})
    store.service.record_llm_usage(call | {"cost_usd": 0.2})
    assert store.service.llm_cost(run.run_id) == pytest.approx(0.3)
    assert store.service.llm_cost(NOBODY) == 0.0
    with pytest.raises(StoreError, match="check constraint"):
        store.service.record_llm_usage(call | {"cost_usd": -0.1})


# Features


def test_a_feature_is_registered_once_whoever_proposes_it(store: Store) -> None:
    first = propose(store.researcher)
    assert propose(store.service, name="another name") == first
    assert (first.name, first.version, first.status, first.lookback) == ("a feature", 1, FeatureStatus.PROPOSED, 5)
    second = propose(store.researcher, "rank(open)")
    assert (second.name, second.version) == ("a feature", 2)
    assert store.researcher.list_features() == [first, second]
    assert store.researcher.list_features({"version": 2}) == [second]


def test_eight_threads_propose_one_feature(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        features = list(pool.map(lambda i: propose(store.researcher, f"expression {i % 4}"), range(32)))
    assert len({feature.feature_id for feature in features}) == 4
    assert sorted(feature.version for feature in store.researcher.list_features()) == [1, 2, 3, 4]


def test_a_proposal_waits_for_one_that_is_being_made(store: Store, owner: psycopg.Connection) -> None:
    statement = "select feature_id from propose_feature(%s)"
    first, second = run_beside(owner, statement, [Jsonb(proposal(name="first"))], lambda: propose(store.researcher))
    assert (second.feature_id, second.name) == (first, "first")


def test_only_the_framework_gives_a_verdict(store: Store) -> None:
    feature = propose(store.researcher)
    with pytest.raises(StoreError, match="permission denied"):
        store.researcher.set_feature_status(feature.feature_id, FeatureStatus.PROMOTED, None)
    with pytest.raises(StoreError, match="row-level security"):
        store.researcher.gateway.insert(
            "feature_registry",
            [{"name": "x", "expression": "x", "expression_sha256": "0" * 64, "lookback": 1, "status": "promoted"}],
        )
    store.service.set_feature_status(feature.feature_id, FeatureStatus.REJECTED, "leak")
    (judged,) = store.researcher.list_features({"status": "rejected"})
    assert (judged.status, judged.reason) == (FeatureStatus.REJECTED, "leak")


def test_a_promotion_holds_on_the_data_it_was_earned_on(store: Store) -> None:
    here = import_toy(store.service)
    there = store.service.import_dataset(build_panel(seed=1), name="other", source="a test")
    feature = propose(store.researcher)
    for number, dataset in enumerate((here, there)):
        store.researcher.record_trial(trial(create_run(store.service, dataset), feature, number))
    for _ in range(2):
        store.service.record_verdict(feature.feature_id, here, promoted=True, reason=None)
    store.service.record_verdict(feature.feature_id, there, promoted=False, reason="costs")
    (promoted,) = store.researcher.list_features()
    assert (promoted.status, promoted.reason) == (FeatureStatus.PROMOTED, None)
    assert promoted.meta["promoted_on"] == [str(here.family_id)]
    rows = store.researcher.gateway.select("trial_results", columns=("dataset_id", "promoted_here"), order=("trial_id",))
    assert [(row["dataset_id"], row["promoted_here"]) for row in rows] == [(here.dataset_id, True), (there.dataset_id, False)]
    store.service.record_verdict(feature.feature_id, there, promoted=True, reason=None)
    assert store.researcher.list_features()[0].meta["promoted_on"] == [str(here.family_id), str(there.family_id)]


def test_a_rejection_is_kept_with_its_reason(store: Store) -> None:
    dataset, feature = import_toy(store.service), propose(store.researcher)
    store.service.record_verdict(feature.feature_id, dataset, promoted=False, reason="dsr")
    (judged,) = store.researcher.list_features()
    assert (judged.status, judged.reason, judged.meta) == (FeatureStatus.REJECTED, "dsr", {})


def test_no_verdict_is_lost_or_forged(store: Store) -> None:
    dataset, feature = import_toy(store.service), propose(store.researcher)
    for promoted in (True, False):
        with pytest.raises(StoreConflictError, match=f"unknown feature {NOBODY}"):
            store.service.record_verdict(NOBODY, dataset, promoted=promoted, reason=None)
        with pytest.raises(StoreError, match="permission denied for function record_verdict"):
            store.researcher.record_verdict(feature.feature_id, dataset, promoted=promoted, reason=None)
    forged = {"name": "x", "expression": "x", "expression_sha256": "0" * 64, "lookback": 1}
    with pytest.raises(StoreError, match="row-level security"):
        store.researcher.propose_feature(forged | {"meta": {"promoted_on": [str(dataset.dataset_id)]}})


# The ledger


def test_a_trial_is_kept_with_its_metrics(store: Store) -> None:
    run = create_run(store.service, import_toy(store.service))
    feature = propose(store.researcher)
    record = trial(run, feature)
    assert store.researcher.record_trial(record) == 1
    (kept,) = store.researcher.list_trials({"run_id": run.run_id})
    assert (kept.trial_id, kept.lineage, kept.dataset_id) == (1, "a question", run.dataset_id)
    assert (kept.n_obs, kept.sharpe, kept.skew, kept.kurtosis) == (500, 0.05, -0.25, 4.5)
    assert (kept.name, kept.expression, kept.family, kept.feature_status) == (
        "a feature",
        "rank(close)",
        "reversal",
        "proposed",
    )
    assert kept.metrics == {"sharpe": 0.8, "turnover": 1.5}
    (row,) = store.researcher.gateway.select("trials", columns=("config", "behaviour", "prev_hash"))
    assert (row["config"], row["prev_hash"]) == ({"number": 1}, "0" * 64)
    np.testing.assert_array_equal(row["behaviour"].to_numpy(), np.asarray(record.behaviour, dtype=np.float32))


def test_the_same_configuration_in_the_same_run_is_one_row(store: Store) -> None:
    dataset = import_toy(store.service)
    run, other = create_run(store.service, dataset), create_run(store.service, dataset)
    feature = propose(store.researcher)
    assert [store.researcher.record_trial(trial(run, feature)) for _ in range(3)] == [1, 1, 1]
    assert store.researcher.record_trial(trial(other, feature)) == 2
    assert len(store.researcher.gateway.select("backtest_results")) == 2


def test_eight_threads_write_a_chain_without_gaps(store: Store) -> None:
    dataset = import_toy(store.service)
    runs = [create_run(store.service, dataset) for _ in range(2)]
    feature = propose(store.researcher)
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda i: store.researcher.record_trial(trial(runs[i % 2], feature, i % 32)), range(64)))
    assert sorted(set(numbers)) == list(range(1, 33))
    rows = store.service.gateway.select("trials", columns=("trial_id", "prev_hash", "row_hash"), order=("trial_id",))
    assert [row["trial_id"] for row in rows] == list(range(1, 33))
    assert [row["prev_hash"] for row in rows] == ["0" * 64, *(row["row_hash"] for row in rows[:-1])]
    assert store.researcher.verify_trials() == []


def test_a_trial_waits_for_one_that_is_being_written(store: Store, owner: psycopg.Connection) -> None:
    run = create_run(store.service, import_toy(store.service))
    feature = propose(store.researcher)
    payload = {"run_id": str(run.run_id), "feature_id": str(feature.feature_id), "config": {}, "config_sha256": "0" * 64}
    payload |= {"n_obs": 5, "sharpe": 0, "skew": 0, "kurtosis": 3, "returns_uri": "", "strategy_id": "s", "metrics": {}}
    statement = "select record_trial(%s)"
    numbers = run_beside(owner, statement, [Jsonb(payload)], lambda: store.researcher.record_trial(trial(run, feature)))
    assert numbers == (1, 2)
    again = {"config_sha256": "1" * 64, "behaviour": None}
    numbers = run_beside(
        owner,
        statement,
        [Jsonb(payload | again)],
        lambda: store.researcher.record_trial(trial(run, feature, **again)),  # type: ignore[arg-type]
    )
    assert numbers == (3, 3)
    assert store.researcher.verify_trials() == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"sharpe": math.nan}, "json"),
        ({"sharpe": math.inf}, "json"),
        ({"n_obs": 0}, "check constraint"),
        ({"config_sha256": "short"}, "check constraint"),
        ({"metrics": None}, "null value"),
    ],
)
def test_a_trial_that_cannot_be_leaves_no_gap(store: Store, changes: dict[str, Any], text: str) -> None:
    run = create_run(store.service, import_toy(store.service))
    feature = propose(store.researcher)
    metrics_missing = changes.get("metrics", ()) is None
    record = trial(run, feature, 1, **({} if metrics_missing else changes))
    with pytest.raises(StoreError, match=text):
        if metrics_missing:
            payload = {
                "run_id": str(run.run_id),
                "feature_id": str(feature.feature_id),
                "config": {},
                "config_sha256": "0" * 64,
            }
            payload |= {"n_obs": 5, "sharpe": 0, "skew": 0, "kurtosis": 3, "returns_uri": "", "strategy_id": "s"}  # type: ignore[dict-item]
            store.researcher.gateway.rpc("record_trial", payload=payload)
        else:
            store.researcher.record_trial(record)
    assert store.researcher.record_trial(trial(run, feature, 2)) == 1
    assert store.researcher.verify_trials() == []


@pytest.mark.parametrize(
    ("behaviour", "text"),
    [
        (np.zeros(3), r"`behaviour` must have shape \(320,\), was \(3,\)"),
        (np.full(VECTOR_WIDTH, np.nan), "`behaviour` must be finite, was nan at position 0"),
    ],
)
def test_a_behaviour_of_the_wrong_shape_is_named(store: Store, behaviour: Any, text: str) -> None:
    run = create_run(store.service, import_toy(store.service))
    with pytest.raises(ShapeError, match=text):
        store.researcher.record_trial(trial(run, propose(store.researcher), behaviour=behaviour))


def test_a_trial_of_an_unknown_run_is_refused(store: Store) -> None:
    run = create_run(store.service, import_toy(store.service))
    with pytest.raises(StoreConflictError, match=f"unknown run {NOBODY}"):
        store.researcher.record_trial(trial(replace(run, run_id=NOBODY), propose(store.researcher)))


def write_trials(store: Store, n: int) -> None:
    run = create_run(store.service, import_toy(store.service))
    feature = propose(store.researcher)
    for number in range(1, n + 1):
        store.researcher.record_trial(trial(run, feature, number))


STATEMENTS = ["update trials set sharpe = 9", "delete from trials where trial_id = 1", "truncate trials cascade"]


@OVER_POSTGRES
@pytest.mark.parametrize("statement", STATEMENTS)
def test_nobody_changes_a_trial(store: Store, owner: psycopg.Connection, statement: str) -> None:
    write_trials(store, 2)
    with pytest.raises(psycopg.errors.RestrictViolation, match="trials is append-only"):
        owner.execute(statement)
    with pytest.raises(StoreConflictError, match="trials is append-only"), store.service.gateway.connection() as connection:
        connection.execute(statement)
    with pytest.raises(StoreError, match="permission denied"), store.researcher.gateway.connection() as connection:
        connection.execute(statement)
    assert len(store.service.gateway.select("trials")) == 2
    assert store.service.verify_trials() == []


@OVER_POSTGRES
@pytest.mark.parametrize("statement", ["alter table trials disable trigger all", "drop trigger chain_trial on trials"])
def test_only_the_owner_could_switch_the_guards_off(store: Store, statement: str) -> None:
    for role in (store.service, store.researcher):
        with pytest.raises(StoreError, match="must be owner"), role.gateway.connection() as connection:
            connection.execute(statement)


def test_a_whole_ledger_has_nothing_to_say(store: Store) -> None:
    assert store.researcher.verify_trials() == []
    write_trials(store, 3)
    assert store.researcher.verify_trials() == []


RECOMPUTE = "update trials t set row_hash = trial_row_hash(t) where trial_id = 3"


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        (["update trials set sharpe = 0.06 where trial_id = 3"], {3: "was changed after it was written"}),
        (["update trials set config = '{}' where trial_id = 3"], {3: "was changed after it was written"}),
        (["update trials set behaviour = null where trial_id = 3"], {3: "was changed after it was written"}),
        (["update trials set opens_cluster = false where trial_id = 3"], {3: "was changed after it was written"}),
        (["update trials set created_at = now() where trial_id = 3"], {3: "was changed after it was written"}),
        (["update trials set sharpe = 0.06 where trial_id = 3", RECOMPUTE], {4: "does not follow its predecessor"}),
        (
            ["delete from trials where trial_id = 3"],
            {
                3: "is missing, though its result is there",
                4: "a trial before this one is missing",
                5: "a trial before this one is missing",
            },
        ),
        (
            ["delete from backtest_results where trial_id = 3", "delete from trials where trial_id = 3"],
            {4: "a trial before this one is missing", 5: "a trial before this one is missing"},
        ),
        (["delete from trials where trial_id = 5"], {5: "is missing, though its result is there"}),
        (["delete from backtest_results where trial_id = 2"], {2: "has no result"}),
        (
            ["update backtest_results set metrics = metrics || '{\"net_sharpe\": 99}' where trial_id = 3"],
            {3: "has another result than it was written with"},
        ),
        (
            ["delete from trials where trial_id = 3", "update trials set trial_id = trial_id - 1 where trial_id > 3"],
            {
                3: "does not follow its predecessor",
                4: "was changed after it was written",
                5: "is missing, though its result is there",
            },
        ),
        (
            [
                "update trials set trial_id = case trial_id when 2 then 30 else 2 end where trial_id in (2, 3)",
                "update trials set trial_id = 3 where trial_id = 30",
            ],
            dict.fromkeys((2, 3, 4), "does not follow its predecessor"),
        ),
    ],
    ids=[
        "sharpe",
        "config",
        "behaviour",
        "cluster",
        "time",
        "hash too",
        "delete",
        "result too",
        "last",
        "result",
        "metrics",
        "renumbered",
        "reordered",
    ],
)
def test_tampering_is_named(store: Store, owner: psycopg.Connection, statements: list[str], named: dict[int, str]) -> None:
    write_trials(store, 5)
    for table in ("trials", "backtest_results"):
        owner.execute(f"alter table {table} disable trigger all")
    for statement in statements:
        owner.execute(statement)
    for table in ("trials", "backtest_results"):
        owner.execute(f"alter table {table} enable trigger all")
    for role in (store.service, store.researcher):
        assert {row["trial_id"]: row["problem"] for row in role.verify_trials()} == named


def test_a_trial_put_in_between_is_named(store: Store, owner: psycopg.Connection) -> None:
    write_trials(store, 3)
    owner.execute("alter table trials disable trigger all")
    owner.execute("update trials set trial_id = 4 where trial_id = 3")
    owner.execute(
        "insert into trials select 3, run_id, lineage, dataset_id, feature_id, config, repeat('a', 64), n_obs, sharpe, skew,"
        " kurtosis, returns_uri, metrics_sha256, behaviour, opens_cluster, row_hash, repeat('b', 64), created_at from trials"
        " where trial_id = 2"
    )
    assert {row["trial_id"] for row in store.service.verify_trials()} == {3, 4}


# How many trials there were


def record_behaviours(store: Store, returns: Any) -> None:
    run = create_run(store.service, store.service.find_dataset("toy"))
    feature = propose(store.researcher)
    for number, column in enumerate(returns.T):
        flat = np.ptp(column) == 0.0
        behaviour = None if flat else behaviour_of(column)
        store.researcher.record_trial(trial(run, feature, number, behaviour=behaviour))


@pytest.mark.parametrize("seed", range(4))
def test_effective_trials_are_counted_as_in_python(store: Store, seed: int) -> None:
    import_toy(store.service)
    rng = np.random.default_rng(seed)
    leaders = rng.standard_normal((VECTOR_WIDTH, 6))
    mixed = leaders @ rng.standard_normal((6, 40)) + 0.3 * rng.standard_normal((VECTOR_WIDTH, 40))
    returns = np.column_stack([mixed, -mixed[:, 0], np.zeros(VECTOR_WIDTH), mixed[:, 1] * 3.0 + 1.0])
    record_behaviours(store, returns)
    counted = store.researcher.count_trials("a question")
    assert counted.n_clusters == effective_number_of_trials(returns)
    assert 1 < counted.n_clusters < 20
    assert (counted.n_rows, counted.n_distinct) == (43, 43)


def test_clusters_of_trials_by_hand(store: Store) -> None:
    import_toy(store.service)
    wave = [np.sqrt(2) * np.cos(2 * np.pi * k * np.arange(VECTOR_WIDTH) / VECTOR_WIDTH) for k in (1, 2, 3)]
    near, far = 0.51 * wave[0] + np.sqrt(1 - 0.51**2) * wave[2], 0.49 * wave[1] + np.sqrt(1 - 0.49**2) * wave[2]
    returns = np.column_stack([wave[0], wave[1], -2.0 * wave[0], near, far])
    record_behaviours(store, returns)
    opens = [row["opens_cluster"] for row in store.service.gateway.select("trials", order=("trial_id",))]
    assert opens == [True, True, True, False, True]
    assert store.researcher.count_trials("a question").n_clusters == effective_number_of_trials(returns) == 4


def test_a_behaviour_of_zero_neither_hides_nor_is_hidden(store: Store) -> None:
    run = create_run(store.service, import_toy(store.service))
    feature = propose(store.researcher)
    for number in range(3):
        store.researcher.record_trial(trial(run, feature, number, behaviour=np.zeros(VECTOR_WIDTH)))
        store.researcher.record_trial(trial(run, feature, number + 10))
    assert store.researcher.count_trials("a question").n_clusters == 6


def test_trials_are_counted_over_every_lineage_and_version_of_the_data(store: Store) -> None:
    feature = propose(store.researcher)
    first = import_toy(store.service)
    second = store.service.import_dataset(build_panel(seed=1), name="toy", source="a test")
    other = store.service.import_dataset(build_panel(seed=2), name="other", source="a test")
    for number, (dataset, lineage) in enumerate([(first, "one"), (second, "two"), (other, "three")]):
        store.researcher.record_trial(trial(create_run(store.service, dataset, lineage=lineage), feature, number))
    store.researcher.record_trial(trial(create_run(store.service, second, lineage="two"), feature, 0))
    count = store.researcher.count_trials("one")
    assert (count.n_rows, count.n_distinct, count.n_clusters) == (3, 2, 2)
    assert store.researcher.count_trials("two") == count
    assert store.researcher.count_trials("three").n_rows == 1
    assert store.researcher.count_trials("never asked").n_rows == 0


def test_behaviours_come_back_once_a_configuration_in_ledger_order(store: Store) -> None:
    dataset = import_toy(store.service)
    run, again = create_run(store.service, dataset), create_run(store.service, dataset)
    feature = propose(store.researcher)
    records = [
        trial(run, feature, 1),
        trial(run, feature, 2, behaviour=None),
        trial(again, feature, 1),
        trial(again, feature, 3),
    ]
    for record in records:
        store.researcher.record_trial(record)
    behaviours = store.researcher.load_behaviours("a question")
    assert list(behaviours) == [records[position].config_sha256 for position in (0, 1, 3)]
    expected = [records[0].behaviour, np.zeros(VECTOR_WIDTH), records[3].behaviour]
    np.testing.assert_allclose(list(behaviours.values()), expected, atol=1e-7)
    assert store.researcher.load_behaviours("never asked") == {}


# The hold-out


@pytest.fixture
def two_runs(store: Store) -> Any:
    dataset = import_toy(store.service)
    return create_run(store.service, dataset, lineage="one"), create_run(store.service, dataset, lineage="one")


def test_the_holdout_of_a_lineage_opens_once(store: Store, two_runs: Any) -> None:
    run, rival = two_runs
    assert store.service.open_holdout("one", run.run_id, candidates("a", "b")) == 1
    with pytest.raises(StoreConflictError, match=r"the hold-out of lineage one was opened at .* and opens once"):
        store.service.open_holdout("one", rival.run_id, candidates("a", "b"))
    with pytest.raises(StoreConflictError, match="opens once"):
        store.service.open_holdout("one", run.run_id, candidates("a", "c"))
    assert store.service.open_holdout("one", run.run_id, candidates("a", "b")) == 1


def test_openings_are_counted_over_the_data_set(store: Store, two_runs: Any) -> None:
    dataset = store.service.find_dataset("toy")
    second = store.service.import_dataset(build_panel(seed=1), name="toy", source="a test")
    other = store.service.import_dataset(build_panel(seed=2), name="other", source="a test")
    store.service.open_holdout("one", two_runs[0].run_id, candidates("a"))
    for lineage, where, number in [("two", dataset, 2), ("three", second, 3), ("four", other, 1)]:
        run = create_run(store.service, where, lineage=lineage)
        assert store.service.open_holdout(lineage, run.run_id, candidates("a")) == number


def test_of_eight_threads_one_opens_the_holdout(store: Store) -> None:
    dataset = import_toy(store.service)
    runs = [create_run(store.service, dataset, lineage="one") for _ in range(8)]

    def attempt(run: Any) -> bool:
        try:
            return store.service.open_holdout("one", run.run_id, candidates("a")) == 1
        except StoreConflictError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(attempt, runs)) == [False] * 7 + [True]


def test_a_second_opening_waits_for_the_first_and_is_refused(store: Store, owner: psycopg.Connection, two_runs: Any) -> None:
    run, rival = two_runs
    parameters = [run.run_id, Jsonb(candidates("a"))]
    with pytest.raises(StoreConflictError, match="and opens once"):
        run_beside(
            owner,
            "select open_holdout('one', %s, %s)",
            parameters,
            lambda: store.service.open_holdout("one", rival.run_id, candidates("a")),
        )


def test_a_run_opens_only_the_holdout_of_its_own_lineage(store: Store, two_runs: Any) -> None:
    with pytest.raises(StoreConflictError, match=r"run .* is not of lineage two"):
        store.service.open_holdout("two", two_runs[0].run_id, candidates("a"))


def test_a_researcher_neither_opens_nor_sees_a_holdout(store: Store, two_runs: Any) -> None:
    run_id = two_runs[0].run_id
    with pytest.raises(StoreError, match="permission denied for function open_holdout"):
        store.researcher.open_holdout("one", run_id, candidates("a"))
    with pytest.raises(StoreError, match="permission denied for function record_holdout"):
        store.researcher.record_holdout("one", run_id, {})
    with pytest.raises(StoreError, match="permission denied for table holdout_openings"):
        store.researcher.gateway.select("holdout_openings")


def test_the_result_of_a_holdout_is_recorded_once(store: Store, two_runs: Any) -> None:
    run, rival = two_runs
    with pytest.raises(StoreConflictError, match="was not opened by run"):
        store.service.record_holdout("one", run.run_id, {"sharpe": 0.1})
    store.service.open_holdout("one", run.run_id, candidates("a"))
    with pytest.raises(StoreConflictError, match="was not opened by run"):
        store.service.record_holdout("one", rival.run_id, {"sharpe": 0.1})
    store.service.record_holdout("one", run.run_id, {"sharpe": 0.1})
    store.service.record_holdout("one", run.run_id, {"sharpe": 0.1})
    with pytest.raises(StoreConflictError, match="has its result already"):
        store.service.record_holdout("one", run.run_id, {"sharpe": 0.9})
    (row,) = store.service.gateway.select("holdout_openings")
    assert row["metrics"] == {"sharpe": 0.1}


FORGET: list[Callable[[ResearchStore], Any]] = [
    lambda s: s.gateway.delete("holdout_openings", where={"lineage": "one"}),
    lambda s: s.gateway.update("holdout_openings", {"lineage": "elsewhere"}, where={"lineage": "one"}),
    lambda s: s.gateway.update("holdout_openings", {"metrics": None}, where={"lineage": "one"}),
    lambda s: s.gateway.update("holdout_openings", {"candidates": {}}, where={"lineage": "one"}),
]


@OVER_POSTGRES
@pytest.mark.parametrize("forget", FORGET, ids=["delete", "rename", "clear the result", "change the candidates"])
def test_an_opened_holdout_stays_opened(store: Store, two_runs: Any, forget: Callable[[ResearchStore], Any]) -> None:
    store.service.open_holdout("one", two_runs[0].run_id, candidates("a"))
    store.service.record_holdout("one", two_runs[0].run_id, {"sharpe": 0.1})
    with pytest.raises(StoreConflictError, match=r"append-only|its row never changes"):
        forget(store.service)
    with pytest.raises(StoreConflictError, match="append-only"), store.service.gateway.connection() as connection:
        connection.execute("truncate holdout_openings")
    with pytest.raises(StoreConflictError, match="opens once"):
        store.service.open_holdout("one", two_runs[1].run_id, candidates("a"))
