"""The seal, seen from the planner: what its tools read, store and answer ends before the first sealed bar."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pytest

from agents.research.evaluation import load_returns
from agents.research.findings import Finding
from agents.research.report import ResearchReport
from agents.research.request import Budget, ResearchRequest
from agents.research.runner import ResearchContext, run_planner
from agents.research.session import ResearchSession
from agents.tools import build_tools
from core.errors import StoreError
from core.market.panel import Panel
from core.store.records import Dataset
from tests.agents.worlds import QUESTION, fresh_world, land, noise_market, reversal_market, trials_of
from tests.conftest import Server
from use_cases.equity_momentum.pipeline import EquityMomentum


@pytest.fixture(scope="module")
def world(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ResearchContext]:
    with fresh_world(server, tmp_path_factory.mktemp("sealed")) as context:
        yield context


@pytest.fixture(scope="module")
def dataset(world: ResearchContext) -> Dataset:
    return land(world, reversal_market(), "sealed")


@pytest.fixture(scope="module")
def session(world: ResearchContext, dataset: Dataset) -> ResearchSession:
    """A run whose tools are called by hand, as a model would."""
    request = ResearchRequest(question=QUESTION, dataset=dataset.name)
    run_id = uuid4()
    world.store.service.create_run(
        run_id=run_id,
        request=request.to_dict(),
        dataset=dataset,
        lineage=request.lineage,
        thread_id=str(run_id),
        planner="llm",
        budget={},
        code_version="test",
    )
    return ResearchSession(
        store=world.store,
        settings=world.settings,
        clock=world.clock,
        run_id=run_id,
        request=request,
        budget=Budget(),
        dataset=dataset,
        panel=world.store.researcher.load_panel(dataset),
    )


@pytest.fixture(scope="module")
def answers(session: ResearchSession) -> dict[str, dict[str, Any]]:
    """What each of the five tools answers; the search for analogues asks for the newest window of every symbol."""
    tools = {tool.name: tool for tool in build_tools(session)}
    found: dict[str, dict[str, Any]] = {}

    def call(tool: str, about: str = "", /, **arguments: object) -> dict[str, Any]:
        message = {"name": tool, "args": {**arguments, "step": 1}, "id": f"call-{len(found)}", "type": "tool_call"}
        answer: dict[str, Any] = json.loads(tools[tool].invoke(message).content)
        return found.setdefault(f"{tool} {about}".strip(), answer)

    idea = {"name": "reversal", "family": "reversal", "hypothesis": "Losers rebound."}
    proposed = call("propose_new_feature", expression="-pct_change(close, 5)", **idea)
    call("run_backtest", feature_id=proposed["feature_id"])
    call("refresh_vector_store", window=128, stride=8)
    call("prune_vectors", max_age_days=0, min_t_stat=0.5, dry_run=False)
    for symbol in session.panel.symbols:
        call("score_signal_cluster", symbol, symbol=symbol, count=200)
    assert {key.split()[0] for key in found} == set(tools)
    return found


def moments_in(value: object) -> list[datetime]:
    """Find every moment in nested values, whatever its key."""
    if isinstance(value, dict):
        return [moment for item in value.values() for moment in moments_in(item)]
    if isinstance(value, list | tuple):
        return [moment for item in value for moment in moments_in(item)]
    if isinstance(value, str) and value[:4].isdigit() and len(value) >= 10 and value[4] == "-":
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return []
        return [moment if moment.tzinfo else moment.replace(tzinfo=UTC)]
    return []


def test_no_tool_answers_with_a_moment_of_the_hold_out(dataset: Dataset, answers: dict[str, dict[str, Any]]) -> None:
    moments = {key: moments_in(answer) for key, answer in answers.items()}
    assert len(moments["refresh_vector_store"]) == 2
    assert all(len(found) == 6 for key, found in moments.items() if key.startswith("score_signal_cluster"))
    assert max(moment for found in moments.values() for moment in found) < dataset.sealed_from


def test_the_newest_window_ends_with_the_last_bar_before_the_seal(
    session: ResearchSession, dataset: Dataset, answers: dict[str, dict[str, Any]]
) -> None:
    newest = datetime.fromisoformat(answers["refresh_vector_store"]["newest"])
    assert newest == session.panel.index[-1].to_pydatetime() < dataset.sealed_from


def test_what_the_tools_stored_ends_before_the_seal(
    world: ResearchContext, session: ResearchSession, dataset: Dataset, answers: dict[str, dict[str, Any]]
) -> None:
    select = world.store.service.gateway.select
    windows = select("signal_embeddings", where={"dataset_id": dataset.dataset_id})
    archived = select("signal_embeddings_archive", where={"dataset_id": dataset.dataset_id})
    assert len(windows) + len(archived) == answers["refresh_vector_store"]["windows"]
    assert archived
    for row in (*windows, *archived):
        assert row["time_range"].upper < dataset.sealed_from
        assert row["label_end"] is None or row["label_end"] < dataset.sealed_from
        assert (row["label_end"] is None) == (row["label"] == {})
    last_windows = [row for row in windows if row["time_range"].upper == session.panel.index[-1]]
    assert last_windows
    assert all(row["label"] == {} for row in last_windows)
    (version,) = select("embedding_versions", where={"dataset_id": dataset.dataset_id})
    assert version["trained_until"] < dataset.sealed_from
    for row in select("tool_calls", where={"run_id": session.run_id}):
        assert all(moment < dataset.sealed_from for moment in moments_in(row["result"]))


def test_a_trial_covers_no_sealed_bar(
    world: ResearchContext, session: ResearchSession, dataset: Dataset, answers: dict[str, dict[str, Any]]
) -> None:
    (trial,) = world.store.service.list_trials({"run_id": session.run_id})
    series = load_returns(world.store.artifacts, trial.returns_uri)
    first = session.panel.index.get_loc(pd.Timestamp(trial.metrics["oos_start"]))
    before = session.panel.n_bars - first
    assert {name: len(values) for name, values in series.items()} == dict.fromkeys(
        ("net", "gross", "turnover", "rank_ic"), before
    )
    assert trial.n_obs == answers["run_backtest"]["n_obs"] == before
    assert max(int(year) for year in trial.metrics["rank_ic_by_year"]) <= session.panel.index[-1].year


def test_the_researcher_reads_no_sealed_bar(world: ResearchContext, dataset: Dataset) -> None:
    researcher, service = world.store.researcher, world.store.service
    rows = researcher.gateway.select("market_bars", columns=("ts",), where={"dataset_id": dataset.dataset_id})
    everything = service.gateway.select("market_bars", columns=("ts",), where={"dataset_id": dataset.dataset_id})
    assert 0 < len(rows) < len(everything)
    assert max(row["ts"] for row in rows) < dataset.sealed_from <= max(row["ts"] for row in everything)
    beyond = {"dataset_id": dataset.dataset_id, "ts": ("gte", dataset.sealed_from)}
    assert researcher.gateway.select("market_bars", where=beyond) == []
    panel, whole = researcher.load_panel(dataset), service.load_panel(dataset)
    assert panel.index[-1] < dataset.sealed_from
    pd.testing.assert_index_equal(panel.index, whole.before(pd.Timestamp(dataset.sealed_from)).index)
    one = researcher.load_panel(dataset, ["S03"])
    assert one.index[-1] == panel.index[-1]


def test_the_researcher_reads_no_label_that_ends_in_the_hold_out(world: ResearchContext, dataset: Dataset) -> None:
    whole = world.store.service.load_panel(dataset)
    values = np.ones(whole.shape)
    horizon = np.minimum(np.arange(whole.n_bars) + 6, whole.n_bars - 1)
    values[-1] = np.nan
    world.store.service.save_labels(dataset, name="next_six", panel=whole, values=values, horizon_end=horizon)
    read = world.store.researcher.gateway.select("labels", where={"dataset_id": dataset.dataset_id})
    assert max(row["horizon_end"] for row in read) < dataset.sealed_from
    first_sealed = whole.index.searchsorted(pd.Timestamp(dataset.sealed_from))
    assert len(read) == (first_sealed - 6) * whole.n_assets


def test_the_researcher_reads_no_window_and_no_outcome_of_the_hold_out(
    world: ResearchContext, dataset: Dataset, answers: dict[str, dict[str, Any]]
) -> None:
    service, researcher = world.store.service.gateway, world.store.researcher.gateway
    row = service.select("signal_embeddings", where={"dataset_id": dataset.dataset_id}, limit=1)[0]
    seal = dataset.sealed_from

    def stored(first: datetime, last: datetime, label_end: datetime | None) -> dict[str, Any]:
        span = type(row["time_range"])(first, last, "[]")
        kept = {key: value for key, value in row.items() if key not in ("created_at", "updated_at")}
        return {**kept, "embedding_id": uuid4(), "time_range": span, "label": {}, "label_end": label_end}

    day = timedelta(days=1)
    forbidden = [
        stored(seal - 9 * day, seal, None),
        stored(seal, seal + 9 * day, None),
        stored(seal - 9 * day, seal - day, seal),
        stored(seal - 8 * day, seal - day, seal + 9 * day),
    ]
    service.upsert("signal_embeddings", forbidden, on_conflict=("embedding_id",))
    ids = [item["embedding_id"] for item in forbidden]
    assert len(service.select("signal_embeddings", where={"embedding_id": ("in", ids)})) == 4
    assert researcher.select("signal_embeddings", where={"embedding_id": ("in", ids)}) == []
    found = world.store.researcher.match_embeddings(
        np.asarray(row["embedding"].to_numpy(), dtype=float),
        count=1_000,
        as_of=seal + 400 * day,
        emb_type=row["emb_type"],
        dataset=dataset,
    )
    assert found
    assert all(neighbour.window_end < seal and neighbour.label_end < seal for neighbour in found)
    with pytest.raises(StoreError, match="row-level security"):
        researcher.upsert("signal_embeddings", [stored(seal - 7 * day, seal + day, None)], on_conflict=("embedding_id",))
    service.delete("signal_embeddings", where={"embedding_id": ("in", ids)})


def test_the_researcher_cannot_open_the_hold_out_nor_read_what_it_said(
    world: ResearchContext, session: ResearchSession
) -> None:
    researcher = world.store.researcher
    with pytest.raises(StoreError, match="permission denied"):
        researcher.open_holdout(session.lineage, session.run_id, {})
    with pytest.raises(StoreError, match="permission denied"):
        researcher.gateway.select("holdout_openings")
    with pytest.raises(StoreError, match="permission denied"):
        researcher.gateway.select("research_runs", columns=("report",))


def test_labels_of_a_use_case_end_before_the_seal(world: ResearchContext) -> None:
    case = EquityMomentum("labelled")
    dataset = land(world, noise_market(), "labelled")
    count = case.label(world, dataset)
    rows = world.store.service.gateway.select("labels", where={"dataset_id": dataset.dataset_id})
    assert len(rows) == count > 0
    assert max(row["horizon_end"] for row in rows) < dataset.sealed_from


def with_another_hold_out(panel: Panel) -> Panel:
    """Return the market with every sealed price and volume altered, none before the seal."""
    first_sealed = int(panel.n_bars * 0.8)
    factor = np.ones(panel.shape)
    factor[first_sealed:] = np.exp(np.random.default_rng(5).normal(0.0, 0.2, factor[first_sealed:].shape).cumsum(axis=0) / 10)
    return panel.replace(**{name: panel.get(name) * factor for name in panel.fields})


def without_the_last_word(finding: Finding) -> dict[str, Any]:
    """Return the figures of a candidate but the deflated Sharpe ratio that the sealed bars are part of."""
    return {name: value for name, value in finding.metrics.items() if name != "dsr"}


def test_no_figure_before_the_hold_out_depends_on_what_is_sealed(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    reports: list[ResearchReport] = []
    vectors: list[list[Any]] = []
    panel = reversal_market()
    for number, prices in enumerate((panel, with_another_hold_out(panel))):
        with fresh_world(server, tmp_path_factory.mktemp(f"hold-out-{number}")) as context:
            dataset = land(context, prices, "sealed")
            assert dataset.content_sha256 == prices.content_sha256()
            reports.append(run_planner(QUESTION, dataset="sealed", budget=Budget(trials=8), planner="rules", context=context))
            assert len(trials_of(context, reports[-1])) == 8
            rows = context.store.service.gateway.select("signal_embeddings", order=("asset_symbol", "time_range"))
            vectors.append([(row["asset_symbol"], row["time_range"], row["embedding"], row["label"]) for row in rows])
    one, other = reports
    assert one.dataset["content_sha256"] != other.dataset["content_sha256"]
    decided = ["verdict", "binding_constraint", "dsr"]
    pd.testing.assert_frame_equal(one.leaderboard.drop(columns=decided), other.leaderboard.drop(columns=decided))
    for first, second in zip(one.findings, other.findings, strict=True):
        judged = [[check for check in finding.checks if check.name != "holdout"] for finding in (first, second)]
        assert judged[0] == judged[1]
        assert without_the_last_word(first) == without_the_last_word(second)
    assert [check for finding in one.findings for check in finding.checks] != [
        check for finding in other.findings for check in finding.checks
    ]
    assert vectors[0] == vectors[1] != []
