"""The planner's tools, each by value and without a model: what they answer, write down, refuse and survive."""

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psycopg
import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.graph import END, START, StateGraph

from agents import tools as tools_module
from agents.research import vectors as vectors_module
from agents.research.request import Budget, ResearchRequest
from agents.research.runner import ResearchContext
from agents.research.session import ResearchSession
from agents.research.state import PlannerState
from agents.tools import build_tool_node, build_tools
from backtest.markets import no_edge
from backtest.walkforward import run_walk_forward
from core.clock import FixedClock
from core.errors import StoreError, StoreUnavailableError, ToolFailed, ToolRetry
from core.market.panel import Panel
from core.store.records import Dataset, EmbeddingJob
from features import compute
from features.encoders import get_encoder
from features.memory import work_embedding_jobs
from tests.agents.worlds import land, moved, noise_market

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def begin(context: ResearchContext, dataset: Dataset, **changes: Any) -> ResearchSession:
    """Begin a run without a planner."""
    run_id = uuid.uuid4()
    request = ResearchRequest(question="Is there a reversal?", dataset=dataset.name)
    context.store.service.create_run(
        run_id=run_id,
        request=request.to_dict(),
        dataset=dataset,
        lineage=request.lineage,
        thread_id=str(run_id),
        planner="rules",
        budget={},
        code_version="0",
    )
    values: dict[str, Any] = {
        "store": context.store,
        "settings": context.settings,
        "clock": FixedClock(NOON),
        "run_id": run_id,
        "request": request,
        "budget": Budget(trials=2),
        "dataset": dataset,
        "panel": context.store.researcher.load_panel(dataset),
    }
    return ResearchSession(**{**values, **changes})


@pytest.fixture
def session(context: ResearchContext, market: Dataset) -> ResearchSession:
    return begin(context, market)


def call(session: ResearchSession, tool: str, call_id: str = "c1", **arguments: Any) -> dict[str, Any]:
    """Call a tool as the graph does, at step 3."""
    by_name = {item.name: item for item in build_tools(session)}
    message = by_name[tool].invoke({"type": "tool_call", "name": tool, "args": {**arguments, "step": 3}, "id": call_id})
    assert isinstance(message, ToolMessage)
    answer: dict[str, Any] = json.loads(str(message.content))
    return answer


def propose(session: ResearchSession, expression: str, call_id: str = "p1", name: str = "idea") -> dict[str, Any]:
    words = {"name": name, "family": "reversal", "hypothesis": "Losers recover."}
    return call(session, "propose_new_feature", call_id, expression=expression, **words)


def made_calls(session: ResearchSession) -> list[dict[str, Any]]:
    return session.store.researcher.list_tool_calls(session.run_id)


def trials(session: ResearchSession) -> list[dict[str, Any]]:
    return session.store.service.gateway.select("trial_results", order=("trial_id",))


def test_every_argument_of_every_tool_is_described_to_the_model(session: ResearchSession) -> None:
    for tool in build_tools(session):
        assert isinstance(tool, BaseTool)
        assert 20 < len(tool.description) < 200
        shown = tool.tool_call_schema.model_json_schema()["properties"]  # type: ignore[union-attr]
        assert all(argument["description"] for argument in shown.values())
        assert not {"step", "tool_call_id"} & shown.keys()


def test_proposal_is_answered_with_its_canonical_form_and_written_down(session: ResearchSession) -> None:
    answer = propose(session, "rank( 2*1 * -returns )", name="  one day  ")
    (feature,) = session.store.service.list_features()
    assert answer == {
        "feature_id": str(feature.feature_id),
        "name": "one day",
        "expression": feature.expression,
        "lookback": 1,
        "status": "proposed",
        "already_known": False,
    }
    assert (feature.family, feature.hypothesis, feature.run_id) == ("reversal", "Losers recover.", session.run_id)


def test_same_expression_however_written_is_the_same_feature(session: ResearchSession) -> None:
    first = propose(session, "rank(close) + rank(open)", "p1", "first")
    again = propose(session, "(rank(open)+rank(close))", "p2", "second")
    assert again == first
    assert len(session.store.service.list_features()) == 1


def test_feature_of_an_earlier_run_is_said_to_be_known(context: ResearchContext, session: ResearchSession) -> None:
    first = propose(session, "rank(close)")
    later = propose(begin(context, session.dataset), "rank(close)")
    assert later == {**first, "already_known": True}


@pytest.mark.parametrize(
    ("expression", "name", "reason"),
    [
        (
            "delay(close, -1)",
            "x",
            "the expression cannot be accepted: argument 2 of `delay` at column 0 was -1: only positive lags exist",
        ),
        ("close.sum()", "x", "the expression cannot be accepted: at column 0: "),
        ("ts_mean(close, 361)", "x", "the expression looks 360 bars back; at most half of the 720 bars are allowed."),
        ("close", "  ", "`name` must not be empty."),
    ],
)
def test_proposal_that_cannot_be_accepted_is_refused_with_the_reason(
    session: ResearchSession, expression: str, name: str, reason: str
) -> None:
    with pytest.raises(ToolRetry) as caught:
        propose(session, expression, name=name)
    assert str(caught.value).startswith(reason)
    assert session.store.service.list_features() == []


def test_expression_over_a_missing_column_is_refused_with_what_there_is(context: ResearchContext) -> None:
    market = no_edge(seed=1, n_assets=4, n_bars=500)
    closes = Panel(index=market.index, symbols=market.symbols, close=market.close)
    session = begin(context, context.store.service.import_dataset(closes, name="closes", source="test"))
    with pytest.raises(ToolRetry) as caught:
        propose(session, "rank(volume)")
    assert str(caught.value) == "closes has no volume; it has close, returns, log_returns, market_returns."


def test_long_names_are_cut(session: ResearchSession) -> None:
    assert propose(session, "rank(close)", name="n" * 200)["name"] == "n" * 80


def test_backtest_answers_what_a_walk_forward_of_the_unsealed_bars_gives(session: ResearchSession) -> None:
    feature_id = propose(session, "-ts_sum(returns, 5)")["feature_id"]
    answer = call(session, "run_backtest", feature_id=feature_id)
    panel = no_edge(seed=7, n_assets=6, n_bars=900).slice(0, 720)
    outcome = run_walk_forward(panel, compute("-ts_sum(returns, 5)", panel), splits=session.splits)
    net = outcome.result.net_returns
    assert answer["n_obs"] == len(net) == 720 - 144
    assert answer["net_sharpe"] == pytest.approx(net.mean() / net.std(ddof=1) * np.sqrt(252))
    assert answer["rank_ic"] == pytest.approx(np.nanmean(outcome.rank_ic))
    assert answer["turnover"] == pytest.approx(outcome.result.turnover.mean() * 252)
    (trial,) = trials(session)
    assert (trial["trial_id"], str(trial["feature_id"]), trial["run_id"]) == (1, feature_id, session.run_id)
    assert trial["sharpe"] == pytest.approx(net.mean() / net.std(ddof=1))
    assert [feature.status for feature in session.store.service.list_features()] == ["tested"]


def test_call_is_written_down_with_its_arguments_result_and_time(session: ResearchSession) -> None:
    answer = propose(session, "rank(close)")
    (row,) = made_calls(session)
    assert row["arguments"] == {
        "expression": "rank(close)",
        "name": "idea",
        "family": "reversal",
        "hypothesis": "Losers recover.",
    }
    assert (row["tool"], row["tool_call_id"], row["step"], row["started_at"]) == ("propose_new_feature", "p1", 3, NOON)
    assert (row["result"], row["error"]) == (answer, None)
    assert row["seconds"] > 0


def test_same_call_again_is_answered_from_the_store_and_not_done_again(
    session: ResearchSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    feature_id = propose(session, "rank(close / open)")["feature_id"]
    first = call(session, "run_backtest", feature_id=feature_id)
    before = made_calls(session)

    def never(*arguments: Any) -> Any:
        raise AssertionError("the work was done again")

    monkeypatch.setattr(tools_module, "evaluate_feature", never)
    assert call(session, "run_backtest", feature_id=feature_id) == first
    assert made_calls(session) == before
    assert len(trials(session)) == 1


def test_same_call_after_an_error_answers_the_same_error(session: ResearchSession) -> None:
    with pytest.raises(ToolRetry) as first:
        propose(session, "rank(earnings)")
    with pytest.raises(ToolFailed) as second:
        propose(session, "rank(close)")
    assert str(second.value) == str(first.value)
    (row,) = made_calls(session)
    assert (row["result"], row["error"]) == (None, str(first.value))
    assert row["seconds"] > 0


def test_same_call_id_in_another_run_is_another_call(context: ResearchContext, session: ResearchSession) -> None:
    assert propose(session, "rank(close)")["expression"] == "rank(close)"
    assert propose(begin(context, session.dataset), "rank(open)")["expression"] == "rank(open)"


def test_trials_are_refused_when_the_budget_is_used_up_and_the_ones_made_are_answered_again(session: ResearchSession) -> None:
    ids = [propose(session, f"ts_sum(returns, {n})", f"p{n}")["feature_id"] for n in (2, 3, 4)]
    made = [call(session, "run_backtest", f"b{place}", feature_id=ids[place]) for place in (0, 1)]
    with pytest.raises(ToolRetry, match="the budget of 2 trials is used up: stop and let the results be judged"):
        call(session, "run_backtest", "b2", feature_id=ids[2])
    assert call(session, "run_backtest", "b3", feature_id=ids[1]) == made[1]
    assert [trial["trial_id"] for trial in trials(session)] == [1, 2]


def test_crash_between_the_trial_and_its_answer_costs_no_second_trial(
    session: ResearchSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    thrifty = replace(session, budget=Budget(trials=1))
    feature_id = propose(thrifty, "rank(close / open)")["feature_id"]

    def down(row: Any) -> None:
        raise StoreUnavailableError("the database cannot be reached")

    with monkeypatch.context() as patch:
        patch.setattr(thrifty.store.researcher, "save_tool_call", down)
        with pytest.raises(StoreUnavailableError):
            call(thrifty, "run_backtest", feature_id=feature_id)
    assert len(trials(thrifty)) == 1
    assert call(thrifty, "run_backtest", feature_id=feature_id)["trial_id"] == 1
    assert len(trials(thrifty)) == 1
    written = {row["tool_call_id"]: row["result"] for row in made_calls(thrifty)}
    assert written["c1"]["trial_id"] == 1


@pytest.mark.parametrize(
    ("feature_id", "reason"),
    [
        ("rank(close)", "`feature_id` must be an id that propose_new_feature answered, was 'rank(close)'."),
        ("c56a4180-65aa-42ec-a945-5fd21dec0538", "there is no feature c56a4180-65aa-42ec-a945-5fd21dec0538: propose it first."),
    ],
)
def test_backtest_of_what_was_never_proposed_is_refused(session: ResearchSession, feature_id: str, reason: str) -> None:
    with pytest.raises(ToolRetry) as caught:
        call(session, "run_backtest", feature_id=feature_id)
    assert str(caught.value) == reason
    assert trials(session) == []


def test_feature_without_differences_fails_without_a_trial(session: ResearchSession) -> None:
    feature_id = propose(session, "close - close", name="nothing")["feature_id"]
    with pytest.raises(ToolFailed, match="nothing never takes a position on noise: it has no value there, or no differences"):
        call(session, "run_backtest", feature_id=feature_id)
    assert trials(session) == []


def flat(market: Panel) -> Panel:
    level = np.full(market.shape, 100.0)
    return Panel(
        index=market.index, symbols=market.symbols, close=level, high=level, low=level, open=level, volume=market.volume
    )


def one_bar_moves(market: Panel) -> Panel:
    close = np.full(market.shape, 100.0)
    close[400, :3] = 130.0, 129.0, 128.0
    return Panel(index=market.index, symbols=market.symbols, close=close, volume=market.volume)


def without_bars(market: Panel, columns: slice) -> Panel:
    gone = np.zeros(market.shape, dtype=bool)
    gone[:, columns] = True
    return market.replace(**{name: np.where(gone, np.nan, market.get(name)) for name in market.fields})


ODD = {
    "constant prices": (flat, {1}),
    "one bar that moves": (one_bar_moves, {0, 1, 2, 3}),
    "one asset": (lambda market: market.select(market.symbols[:1]), {0, 1, 3}),
    "a column without a value": (lambda market: without_bars(market, slice(2, 3)), {0, 1, 3}),
    "too few columns with values": (lambda market: without_bars(market, slice(2, None)), set()),
    "prices near the largest number": (
        lambda market: Panel(index=market.index, symbols=market.symbols, close=market.close * 1e300, volume=market.volume),
        {0, 1, 3},
    ),
}
RELATIVE = "volume / ts_mean(volume, 20)"
EXPRESSIONS = ("-returns", RELATIVE, f"where(ts_max(returns, 2) > 0.25, {RELATIVE}, close / close)", "ts_std(returns, 21)")


@pytest.mark.parametrize("case", ODD)
def test_odd_data_is_measured_or_refused_but_never_crashes_a_tool(context: ResearchContext, case: str) -> None:
    make, tradable = ODD[case]
    panel = make(no_edge(seed=3, n_assets=6, n_bars=600))
    session = begin(context, context.store.service.import_dataset(panel, name="odd", source="test"), budget=Budget(trials=9))
    answered = set()
    for place, expression in enumerate(EXPRESSIONS):
        feature_id = propose(session, expression, f"p{place}")["feature_id"]
        try:
            answer = call(session, "run_backtest", f"b{place}", feature_id=feature_id)
        except ToolFailed as error:
            assert "never takes a position" in str(error)
        else:
            assert np.isfinite([answer["net_sharpe"], answer["dsr"]]).all()
            answered.add(place)
    assert answered == tradable


def test_vectors_are_refreshed_pruned_and_searched(context: ResearchContext) -> None:
    session = begin(context, land(context, moved(noise_market(), years=10), "noise"))
    with pytest.raises(ToolFailed, match="there are no vectors of this data set yet: call refresh_vector_store first"):
        call(session, "score_signal_cluster", "v0", symbol="S00")

    refreshed = call(session, "refresh_vector_store", "v2", window=128, stride=5)
    encoder = get_encoder("ts2vec")
    assert refreshed["windows"] == 6 * (1 + (720 - 128) // 5)
    assert refreshed["emb_version"] == f"ts2vec-1-{encoder.sha256[:12]}-w128-s5-h5-noise-v1"
    panel = session.panel
    assert refreshed["newest"] == panel.index[127 + 5 * 118].isoformat()
    assert refreshed["trained_until"] == "2005-10-21T20:00:00+00:00"
    stored = session.store.service.gateway.select("signal_embeddings", columns=("embedding_id", "time_range"))
    assert len(stored) == refreshed["windows"]
    assert max(row["time_range"].upper for row in stored) < session.dataset.sealed_from

    found = call(session, "score_signal_cluster", "v3", symbol="S03", count=5)
    outcomes = [neighbour["forward_return"] for neighbour in found["nearest"]]
    assert (found["symbol"], found["n"], len(outcomes)) == ("S03", 5, 5)
    assert found["window_end"] == refreshed["newest"]
    assert found["mean_forward_return"] == pytest.approx(np.mean(outcomes))
    assert found["t_stat_if_independent"] == pytest.approx(np.mean(outcomes) / (np.std(outcomes, ddof=1) / np.sqrt(5)))
    for neighbour in found["nearest"]:
        bar = panel.index.get_loc(neighbour["window_end"])
        column = panel.symbols.index(neighbour["symbol"])
        assert bar + 6 <= 127 + 5 * 118, "the outcome was known when the latest window ended"
        assert neighbour["forward_return"] == pytest.approx(panel.close[bar + 6, column] / panel.close[bar + 1, column] - 1)

    counted = call(session, "prune_vectors", "v4", max_age_days=400, min_t_stat=1.0)
    assert counted["dry_run"] is True and counted["examined"] == refreshed["windows"]
    assert len(session.store.service.gateway.select("signal_embeddings", columns=("embedding_id",))) == refreshed["windows"]
    pruned = call(session, "prune_vectors", "v5", max_age_days=400, min_t_stat=1.0, dry_run=False)
    assert pruned["selected"] == counted["selected"] > 0
    left = session.store.service.gateway.select("signal_embeddings", columns=("embedding_id",))
    assert len(left) == refreshed["windows"] - pruned["selected"]


def test_where_the_trained_encoder_may_know_the_hold_out_vectors_are_made_of_the_data_itself(session: ResearchSession) -> None:
    with pytest.raises(ToolFailed, match=r"PCA to 320 dimensions needs at least 321 windows"):
        call(session, "refresh_vector_store", "v1")
    refreshed = call(session, "refresh_vector_store", "v2", window=128, stride=5)
    assert refreshed["emb_version"].startswith("pca-1-")
    trained_bars = int(720 * 0.6)
    assert refreshed["trained_until"] == session.panel.index[127 + 5 * ((trained_bars - 128) // 5)].isoformat()


def test_a_refresh_that_is_asked_for_again_after_a_crash_is_the_same_job(
    context: ResearchContext, owner: psycopg.Connection
) -> None:
    session = begin(context, land(context, moved(noise_market(), years=10), "noise"))
    first = call(session, "refresh_vector_store", "v1")
    owner.execute("alter table tool_calls disable trigger user")
    owner.execute("delete from tool_calls")
    owner.execute("update embedding_jobs set status = 'running', lease_until = now() + interval '1 hour'")
    assert call(session, "refresh_vector_store", "v1") == first
    (job,) = session.store.service.gateway.select("embedding_jobs")
    assert (job["status"], job["attempts"], job["claimed_by"]) == ("done", 2, f"run {session.run_id}")


def test_a_refresh_that_a_worker_took_is_waited_for(context: ResearchContext, monkeypatch: pytest.MonkeyPatch) -> None:
    session = begin(context, land(context, moved(noise_market(), years=10), "noise"))
    taken: list[EmbeddingJob] = []
    ask = session.store.researcher.request_refresh

    def ask_and_be_beaten(payload: dict[str, Any]) -> uuid.UUID:
        job_id = ask(payload)
        taken.extend(session.store.researcher.claim_jobs(worker="another"))
        return job_id

    def work_meanwhile(seconds: float) -> None:
        session.store.researcher.release_job(taken[0])
        assert work_embedding_jobs(session.store.researcher, worker="another")[0].status == "done"

    monkeypatch.setattr(session.store.researcher, "request_refresh", ask_and_be_beaten)
    monkeypatch.setattr(vectors_module.time, "sleep", work_meanwhile)
    answer = call(session, "refresh_vector_store", "v1")
    (job,) = session.store.service.gateway.select("embedding_jobs")
    assert (job["claimed_by"], job["result"]["emb_version"]) == ("another", answer["emb_version"])
    session.deadline = 0.0
    with pytest.raises(ToolFailed, match="a worker is still encoding"):
        call(session, "refresh_vector_store", "v2")


@pytest.mark.parametrize(
    ("tool", "arguments", "reason"),
    [
        ("refresh_vector_store", {"window": 63}, "`window` must be in 107..256 and `stride` in 1..126, were 63 and 21."),
        ("refresh_vector_store", {"stride": 0}, "`window` must be in 107..256 and `stride` in 1..126, were 128 and 0."),
        ("score_signal_cluster", {"symbol": "AAPL"}, "unknown symbol 'AAPL'; there are S00, S01, S02, S03, S04, S05."),
        ("score_signal_cluster", {"symbol": "S00", "count": 201}, "`count` must be in 5..200, was 201."),
        (
            "prune_vectors",
            {"max_age_days": -1},
            "`max_age_days` must be in 0..36500 and `min_t_stat` in 0..100, were -1 and 1.0.",
        ),
        (
            "prune_vectors",
            {"max_age_days": 2**40},
            "`max_age_days` must be in 0..36500 and `min_t_stat` in 0..100, were 1099511627776 and 1.0.",
        ),
    ],
)
def test_arguments_out_of_bounds_are_refused_with_the_bounds(
    session: ResearchSession, tool: str, arguments: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ToolRetry) as caught:
        call(session, tool, **arguments)
    assert str(caught.value) == reason
    (row,) = made_calls(session)
    assert (row["arguments"].items() >= arguments.items(), row["error"]) == (True, reason)


def run_node(session: ResearchSession, *calls: tuple[str, dict[str, Any]]) -> list[ToolMessage]:
    """Run the graph's node alone, at step 4."""
    graph = StateGraph(PlannerState)
    graph.add_node("act", build_tool_node(build_tools(session)))
    graph.add_edge(START, "act")
    graph.add_edge("act", END)
    asked = AIMessage(
        content="", tool_calls=[{"name": n, "args": a, "id": f"n{i}", "type": "tool_call"} for i, (n, a) in enumerate(calls)]
    )
    return list(graph.compile().invoke({"messages": [asked], "step": 4}, {"max_concurrency": 1})["messages"][1:])


def test_node_turns_what_a_tool_refuses_into_messages_and_keeps_their_order(session: ResearchSession) -> None:
    good = {"expression": "rank(close)", "name": "level", "family": "momentum", "hypothesis": "Winners win."}
    refused, proposed, wrong = run_node(
        session,
        ("run_backtest", {"feature_id": "none"}),
        ("propose_new_feature", {**good, "step": 99, "tool_call_id": "mine"}),
        ("score_signal_cluster", {"count": "some"}),
    )
    assert (refused.status, str(refused.content)[:12]) == ("error", "`feature_id`")
    assert (proposed.status, json.loads(str(proposed.content))["name"]) == ("success", "level")
    assert (wrong.status, "symbol: Field required" in wrong.content) == ("error", True)
    assert "step" not in str(wrong.content).partition("with error")[2]
    assert [message.tool_call_id for message in (refused, proposed, wrong)] == ["n0", "n1", "n2"]
    written = {row["tool_call_id"]: row["step"] for row in made_calls(session)}
    assert written == {"n0": 4, "n1": 4}, "a model cannot choose its own step or id"


def test_node_lets_a_failure_of_the_store_out(session: ResearchSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*arguments: Any, **named: Any) -> Any:
        raise StoreError("the database said no")

    monkeypatch.setattr(session.store.researcher.gateway, "rpc", down)
    with pytest.raises(StoreError, match="the database said no"):
        run_node(session, ("propose_new_feature", {"expression": "rank(close)", "name": "a", "family": "b", "hypothesis": "c"}))
    assert made_calls(session) == []


def test_a_window_that_was_pruned_does_not_come_back_by_itself(context: ResearchContext) -> None:
    market = no_edge(seed=3, n_assets=8, n_bars=1_500)
    session = begin(context, context.store.service.import_dataset(market, name="long", source="test"))
    call(session, "refresh_vector_store", "r1", window=128, stride=5)
    pruned = call(session, "prune_vectors", "p1", max_age_days=365, min_t_stat=1.0, dry_run=False)
    assert pruned["archived"] > 0
    again = call(session, "refresh_vector_store", "r2", window=128, stride=5)
    assert again["windows"] == pruned["examined"] - pruned["archived"]


def test_a_feature_remembers_what_it_varies(session: ResearchSession) -> None:
    first = propose(session, "rank(-returns)")["feature_id"]
    varied = call(
        session,
        "propose_new_feature",
        "v",
        expression="rank(-ts_mean(returns, 2))",
        name="v",
        family="reversal",
        hypothesis="h",
        parents=[first],
    )
    (stored,) = session.store.service.gateway.select("feature_registry", where={"feature_id": varied["feature_id"]})
    assert [str(parent) for parent in stored["parents"]] == [first]
    with pytest.raises(ToolRetry, match="`parents` must be ids"):
        call(
            session,
            "propose_new_feature",
            "w",
            expression="rank(-returns)",
            name="w",
            family="f",
            hypothesis="h",
            parents=["x"],
        )
