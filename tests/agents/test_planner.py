import time
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from agents.research import gate, rules, runner, session
from agents.research.report import ResearchReport
from agents.research.request import Budget, Candidate, ResearchRequest
from agents.research.runner import ResearchContext, resume_run, run_planner
from agents.research.session import Event
from backtest.markets import no_edge
from core.errors import AQFError, ConfigurationError, MissingDataError
from core.market.panel import Panel
from core.store.records import RunStatus
from features import parse
from features.memory import MemorySpec, refresh_memory
from tests.agents.worlds import (
    QUESTION,
    calls_of,
    closes_only,
    fresh_world,
    land,
    noise_market,
    reversal_market,
    trials_of,
    without,
)
from tests.conftest import Server

TRIALS = 12


def ask(context: ResearchContext, dataset: str, *, trials: int = 8, **request: object) -> ResearchReport:
    asked = ResearchRequest(**{"question": QUESTION, "dataset": dataset, **request})
    return run_planner(asked, budget=Budget(trials=trials), planner="rules", context=context)


@pytest.fixture(scope="module")
def world(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ResearchContext]:
    with fresh_world(server, tmp_path_factory.mktemp("world")) as context:
        land(context, reversal_market(), "planted")
        yield context


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return []


@pytest.fixture(scope="module")
def found(world: ResearchContext, events: list[Event]) -> ResearchReport:
    return run_planner(
        QUESTION, dataset="planted", budget=Budget(trials=TRIALS), planner="rules", context=world, on_event=events.append
    )


@pytest.fixture(scope="module")
def asked_again(world: ResearchContext, found: ResearchReport) -> ResearchReport:
    """A second run on the question that was promoted on, in a house where redundancy is no reason to refuse."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "MAX_CORRELATION", 1.1)
        return ask(world, "planted", trials=TRIALS)


def test_a_planted_reversal_is_promoted_after_every_condition_and_the_hold_out(found: ResearchReport) -> None:
    assert found.verdict == "promoted"
    assert found.holdout_opened
    for finding in found.promoted:
        assert finding.family == "reversal"
        assert finding.binding_constraint is None
        assert [check.name for check in finding.checks if not check.passed] == []
        assert finding.checks[-1].name == "holdout"
    assert found.promoted[0].name in found.sentence


def test_a_run_makes_exactly_the_trials_of_its_budget_each_with_a_configuration_of_its_own(
    world: ResearchContext, found: ResearchReport
) -> None:
    rows = trials_of(world, found)
    assert len(rows) == found.n_trials == len(found.findings) == TRIALS
    assert len({row.config_sha256 for row in rows}) == TRIALS
    assert found.stop == f"The budget of {TRIALS} trials is used."


def test_every_row_of_the_leaderboard_links_to_the_tool_call_that_made_it(found: ResearchReport) -> None:
    calls = {call["tool_call_id"]: call for call in found.tool_calls}
    for row in found.leaderboard_rows():
        call = calls[row["tool_call_id"]]
        assert call["tool"] == "run_backtest"
        assert call["result"]["trial_id"] == row["trial_id"]
        assert call["result"]["net_sharpe"] == pytest.approx(row["net_sharpe"], rel=1e-12)


def test_events_tell_of_every_stage_in_order(events: list[Event], found: ResearchReport) -> None:
    kinds = [event.kind for event in events]
    assert kinds[:2] == ["started", "recalled"]
    assert kinds[-2:] == ["judged", "reported"]
    assert set(kinds[2:-2]) == {"planned", "tool"}
    done = [event.done for event in events]
    assert done == sorted(done)
    assert done[-1] == TRIALS


def test_the_verdict_is_in_the_registry_with_the_data_set_it_was_earned_on(
    world: ResearchContext, found: ResearchReport
) -> None:
    dataset = world.store.service.find_dataset("planted")
    registry = {str(feature.feature_id): feature for feature in world.store.service.list_features()}
    for finding in found.findings:
        feature = registry[finding.feature_id]
        assert feature.status == ("promoted" if finding.promoted else "rejected")
        assert feature.meta.get("promoted_on", []) == ([str(dataset.family_id)] if finding.promoted else [])


def test_a_finding_carries_the_hypothesis_it_was_proposed_with(found: ResearchReport) -> None:
    said = {call["result"]["feature_id"]: call["arguments"]["hypothesis"] for call in calls_of(found, "propose_new_feature")}
    assert all(said.values())
    assert {finding.feature_id: finding.hypothesis for finding in found.findings} == said


def test_the_same_seed_gives_the_same_report_in_a_fresh_world(
    found: ResearchReport, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with fresh_world(server, tmp_path_factory.mktemp("fresh")) as context:
        land(context, reversal_market(), "planted")
        again = ask(context, "planted", trials=TRIALS)
    pd.testing.assert_frame_equal(again.leaderboard, found.leaderboard)
    for name in ("sentence", "recalled", "stop", "usage", "spa_p", "pbo", "n_trials_effective", "config", "dataset"):
        assert getattr(again, name) == getattr(found, name), name
    assert again.vectors["refresh_vector_store"] == found.vectors["refresh_vector_store"]
    assert [finding.checks for finding in again.findings] == [finding.checks for finding in found.findings]


def test_a_second_run_repeats_no_expression_and_says_what_it_remembers(
    found: ResearchReport, asked_again: ResearchReport
) -> None:
    before = {finding.expression for finding in found.findings}
    assert asked_again.n_trials == TRIALS
    assert before.isdisjoint(finding.expression for finding in asked_again.findings)
    recalled = asked_again.recalled
    assert recalled["n_trials"] == TRIALS
    assert recalled["n_runs_on_question"] == 1
    assert recalled["promoted"] == sorted(finding.name for finding in found.promoted)
    assert recalled["best"]["name"] == max(found.findings, key=lambda item: item.metrics["net_sharpe"]).name
    assert "this question was asked in 1 earlier run;" in recalled["sentence"]
    assert asked_again.n_trials_ledger == 2 * TRIALS


def test_a_second_promotion_on_a_lineage_is_refused_because_its_hold_out_was_opened(asked_again: ResearchReport) -> None:
    bound = [finding.binding_constraint for finding in asked_again.findings]
    assert "holdout_already_opened" in bound
    assert "holdout" not in bound
    assert asked_again.verdict == "nothing_promoted"
    refused = next(finding for finding in asked_again.findings if finding.binding_constraint == "holdout_already_opened")
    assert "opens once" in refused.checks[-1].note


def test_a_copy_of_what_is_promoted_is_redundant(world: ResearchContext, asked_again: ResearchReport) -> None:
    best = world.store.service.list_trials({"promoted_here": True})[0]
    copy = Candidate(name="copy", expression=f"2 * ({best.expression}) + ts_mean(returns, 250) / 1000")
    report = ask(world, "planted", trials=1, question="Is there anything beside reversal?", candidates=(copy,), vectors=False)
    (finding,) = report.findings
    assert finding.binding_constraint == "redundancy"
    assert finding.checks[-1].figure > 0.85


def test_a_promotion_on_one_data_set_is_none_on_another(world: ResearchContext, found: ResearchReport) -> None:
    land(world, noise_market(), "elsewhere")
    best = found.promoted[0]
    report = ask(world, "elsewhere", trials=1, candidates=(Candidate(name="again", expression=best.expression),))
    (finding,) = report.findings
    assert finding.expression == best.expression
    assert finding.verdict == "rejected"
    assert report.recalled["promoted"] == []
    assert [trial.promoted_here for trial in trials_of(world, report)] == [False]
    (feature,) = world.store.service.list_features({"feature_id": best.feature_id})
    assert feature.status == "promoted"
    again = ask(world, "elsewhere", trials=1)
    assert again.recalled["n_trials"] == 1
    assert again.recalled["promoted"] == []


def test_nothing_is_promoted_where_there_is_no_edge(world: ResearchContext) -> None:
    land(world, noise_market(), "noise")
    report = ask(world, "noise", trials=16)
    assert report.verdict == "nothing_promoted"
    assert report.promoted == ()
    assert not report.holdout_opened
    assert report.n_trials == 16
    best = report.findings[0]
    assert best.binding_constraint is not None
    assert f"stopped by {best.binding_constraint}" in report.sentence


def test_steps_end_the_search_and_what_was_tried_is_judged(context: ResearchContext, monkeypatch: pytest.MonkeyPatch) -> None:
    land(context, noise_market(), "noise")
    monkeypatch.setattr(rules, "_BATCH", 4)
    monkeypatch.setattr(rules, "_MAX_BATCH", 4)
    report = run_planner(QUESTION, dataset="noise", budget=Budget(trials=100, steps=4), planner="rules", context=context)
    assert report.n_trials == len(report.findings) == 8
    assert report.usage["steps"] == 4
    assert report.stop == "The budget of 4 rounds of planning is used."


def test_seconds_end_the_search_and_what_was_tried_is_judged(context: ResearchContext, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], perf_counter=time.perf_counter)
    monkeypatch.setattr(runner, "time", clock)
    monkeypatch.setattr(session, "time", clock)

    def wait_after_the_first_backtests(event: Event) -> None:
        if event.done:
            now[0] = 61.0

    land(context, noise_market(), "noise")
    report = run_planner(
        QUESTION,
        dataset="noise",
        budget=Budget(trials=100, seconds=60.0),
        planner="rules",
        context=context,
        on_event=wait_after_the_first_backtests,
    )
    assert report.stop == "The budget of 60 seconds is used."
    assert len(report.findings) == report.n_trials == 8


def test_a_run_without_time_says_that_nothing_was_tried(context: ResearchContext) -> None:
    land(context, noise_market(), "noise")
    report = run_planner(QUESTION, dataset="noise", budget=Budget(seconds=0.0), planner="rules", context=context)
    assert report.n_trials == 0
    assert report.verdict == "nothing_promoted"
    assert report.sentence == "Nothing was promoted: no idea could be tried on noise."
    assert resume_run(report.run_id, context=context).sentence == report.sentence


def test_the_ideas_of_the_request_come_first_in_their_order(context: ResearchContext) -> None:
    land(context, noise_market(), "noise")
    own = (
        Candidate(name="b", expression="-ts_sum(returns, 7)", family="mine", hypothesis="Because."),
        Candidate(name="a", expression="rank(ts_std(returns, 13))", family="mine"),
    )
    report = ask(context, "noise", trials=6, candidates=own)
    calls = calls_of(report, "propose_new_feature")
    assert [call["arguments"]["name"] for call in calls[:2]] == ["b", "a"]
    assert [call["arguments"]["family"] for call in calls] == ["mine", "mine", *["reversal"] * 4]


def test_an_idea_that_the_data_cannot_answer_is_refused_once_and_the_run_goes_on(context: ResearchContext) -> None:
    land(context, closes_only(noise_market()), "closes")
    own = (Candidate(name="needs_volume", expression="-volume / ts_mean(volume, 20)"),)
    report = ask(context, "closes", trials=10, candidates=own)
    assert report.n_trials == 10
    refused = [call for call in report.tool_calls if call["error"]]
    assert [call["arguments"].get("name") for call in refused] == ["needs_volume"]
    assert "closes has no volume" in refused[0]["error"]
    assert all("volume" not in parse(finding.expression).fields for finding in report.findings)


def test_data_with_volume_is_asked_about_volume(context: ResearchContext) -> None:
    land(context, noise_market(), "bars")
    report = ask(context, "bars", question="Does volume say anything?")
    assert {finding.family for finding in report.findings} == {"volume"}
    assert all("volume" in parse(finding.expression).fields for finding in report.findings)


def test_on_short_data_each_idea_is_proposed_once_and_the_budget_is_still_used(context: ResearchContext) -> None:
    land(context, noise_market(n_bars=520), "short")
    report = ask(context, "short", trials=20, question="Is there momentum?")
    proposed = [parse(call["arguments"]["expression"]).sha256 for call in calls_of(report, "propose_new_feature")]
    assert len(proposed) == len(set(proposed))
    assert any("looks 252 bars back" in (call["error"] or "") for call in report.tool_calls)
    assert report.n_trials == 20


@pytest.mark.parametrize("n_assets", [1, 3])
def test_few_symbols_are_judged_each_by_its_own_history(context: ResearchContext, n_assets: int) -> None:
    panel = noise_market()
    land(context, panel.select(panel.symbols[:n_assets]), "few")
    report = ask(context, "few")
    assert report.config["method"] == "time_series"
    assert report.n_trials == 8
    assert [finding.metrics["rank_ic"] is None for finding in report.findings] == [n_assets == 1] * 8
    assert ("n/a" in report.to_markdown()) == (n_assets == 1)
    assert report.verdict == "nothing_promoted"


def test_gaps_in_the_data_do_not_stop_a_run(context: ResearchContext) -> None:
    panel = noise_market(n_assets=8)
    missing = np.random.default_rng(0).random(panel.shape) < 0.05
    missing[:300, 0] = True
    missing[500:, 1] = True
    land(context, without(panel, missing), "gaps")
    report = ask(context, "gaps")
    assert report.n_trials == 8
    assert all(np.isfinite(finding.metrics["net_sharpe"]) for finding in report.findings)


def test_data_too_thin_for_vectors_is_searched_without_them(context: ResearchContext) -> None:
    panel = reversal_market()
    missing = np.zeros(panel.shape, dtype=bool)
    missing[np.arange(panel.n_bars)[:, None] % 60 == 5 * np.arange(panel.n_assets)] = True
    land(context, without(panel, missing), "thin")
    report = ask(context, "thin")
    refused = [call["tool"] for call in report.tool_calls if call["error"]]
    assert refused == ["refresh_vector_store"]
    assert report.n_trials == 8


def test_the_same_prices_under_two_names_have_vectors_of_their_own(context: ResearchContext) -> None:
    panel = reversal_market()
    windows = []
    for name in ("first", "second"):
        dataset = land(context, panel, name)
        report = ask(context, name, trials=1)
        assert report.vectors["score_signal_cluster"]["n"] > 0
        windows.append(context.store.service.gateway.select("signal_embeddings", where={"dataset_id": dataset.dataset_id}))
    assert len(windows[0]) == len(windows[1]) > 0


def test_stale_vectors_are_refreshed_as_they_were_made(context: ResearchContext) -> None:
    dataset = land(context, reversal_market(), "planted")
    made = refresh_memory(context.store.researcher, dataset, MemorySpec(stride=9))
    newest = context.store.researcher.load_panel(dataset).index[-100]
    gateway = context.store.service.gateway
    windows = gateway.select("signal_embeddings", columns=("embedding_id", "time_range"))
    gone = [row["embedding_id"] for row in windows if row["time_range"].upper > newest]
    assert gateway.delete("signal_embeddings", where={"embedding_id": ("in", gone)}) > 0
    report = ask(context, "planted", trials=1)
    assert calls_of(report, "refresh_vector_store")[0]["arguments"] == {"window": 128, "stride": 9}
    fresh = report.vectors["refresh_vector_store"]
    assert (fresh["emb_version"], fresh["windows"], fresh["newest"]) == (made.emb_version, made.windows, made.newest)


def test_a_run_on_some_symbols_leaves_the_vectors_of_all_of_them(context: ResearchContext) -> None:
    dataset = land(context, reversal_market(), "planted")
    report = ask(context, "planted", trials=2, symbols=("S03", "S07", "S01", "S02"))
    assert report.dataset["symbols"] == ["S03", "S07", "S01", "S02"]
    rows = context.store.service.gateway.select(
        "signal_embeddings", columns=("asset_symbol",), where={"dataset_id": dataset.dataset_id}
    )
    assert {row["asset_symbol"] for row in rows} == set(dataset.symbols)


def test_what_cannot_be_searched_is_refused_before_anything_is_written(context: ResearchContext) -> None:
    land(context, noise_market(), "noise")
    land(context, noise_market(n_bars=490), "tiny")
    with pytest.raises(MissingDataError, match=r"unknown symbol S99; noise has S00, S01"):
        ask(context, "noise", symbols=("S00", "S99"))
    with pytest.raises(MissingDataError, match=r"tiny has 392 bars before its seal; research needs at least 400"):
        ask(context, "tiny")
    with pytest.raises(MissingDataError, match=r"unknown data set 'nois'. Did you mean noise\?"):
        ask(context, "nois")
    with pytest.raises(ConfigurationError, match=r"the candidate broken cannot be tried: .*close"):
        ask(context, "noise", candidates=(Candidate(name="broken", expression="rank(close"),))
    with pytest.raises(ConfigurationError, match=r"the candidate oracle cannot be tried: .*never ahead"):
        ask(context, "noise", candidates=(Candidate(name="oracle", expression="delay(close, -1) / close"),))
    with pytest.raises(ConfigurationError, match=r"`planner` must be"):
        run_planner(QUESTION, dataset="noise", planner="magic", context=context)
    with pytest.raises(ConfigurationError, match=r"OPENAI_API_KEY"):
        run_planner(QUESTION, dataset="noise", planner="llm", context=context)
    assert context.store.service.list_runs() == []


def test_a_thread_that_broke_off_goes_on_where_it_was(context: ResearchContext) -> None:
    land(context, noise_market(), "noise")

    def break_off(event: Event) -> None:
        if event.done:
            raise AQFError("the power went")

    def run(**extra: object) -> ResearchReport:
        return run_planner(
            QUESTION, dataset="noise", budget=Budget(trials=16), planner="rules", context=context, thread_id="mine", **extra
        )

    with pytest.raises(AQFError, match="the power went"):
        run(on_event=break_off)
    (row,) = context.store.service.list_runs()
    assert row.status == RunStatus.FAILED
    seen: list[Event] = []
    report = run(on_event=seen.append)
    assert report.run_id == str(row.run_id)
    assert seen[0].kind == "resumed"
    assert len(trials_of(context, report)) == report.n_trials == 16
    assert run().to_dict() == report.to_dict()
    assert len(context.store.service.list_runs()) == 1


def test_a_thread_answers_no_other_question(context: ResearchContext) -> None:
    land(context, noise_market(), "noise")
    ask_in_thread = {"dataset": "noise", "planner": "rules", "context": context, "thread_id": "mine"}
    run_planner(QUESTION, budget=Budget(trials=1), **ask_in_thread)
    with pytest.raises(ConfigurationError, match=r"belongs to another request, 'Is there a short-horizon reversal\?' on noise"):
        run_planner("Is there momentum?", **ask_in_thread)


def test_auto_without_a_model_plans_by_rules(context: ResearchContext) -> None:
    land(context, no_edge(seed=3, n_assets=5, n_bars=600), "noise")
    report = run_planner(QUESTION, dataset="noise", budget=Budget(trials=1), context=context)
    assert report.planner == "rules"


def test_nothing_is_promoted_on_what_nobody_can_hold(context: ResearchContext) -> None:
    context.store.service.import_dataset(reversal_market(), name="index", source="backtest.markets", tradable=False)
    report = run_planner("reversal?", dataset="index", budget=Budget(trials=3), planner="rules", context=context)
    assert report.verdict == "nothing_promoted"
    assert {finding.binding_constraint for finding in report.findings} == {"tradable"}
    assert not report.holdout_opened


def test_a_question_in_other_words_does_not_start_from_nothing(context: ResearchContext) -> None:
    land(context, noise_market(), "noise")
    first = run_planner("reversal?", dataset="noise", budget=Budget(trials=6), planner="rules", context=context)
    other = run_planner("momentum?", dataset="noise", budget=Budget(trials=1), planner="rules", context=context)
    assert other.n_trials == 1
    assert other.n_trials_ledger == first.n_trials + 1
    assert other.pbo is not None, "one trial alone has nothing to be compared with"


def back_adjusted(panel: Panel) -> Panel:
    """Give each symbol the level that later splits would have given it: every price ends at 100."""
    last = panel.close[-1]
    prices = {name: panel.get(name) * 100.0 / last for name in ("open", "high", "low", "close")}
    return panel.replace(**prices, volume=panel.get("volume") * last / 100.0)


def test_an_idea_about_the_level_of_adjusted_prices_is_refused_as_looking_ahead(context: ResearchContext) -> None:
    land(context, back_adjusted(noise_market(n_assets=12, n_bars=1_500)), "adjusted")
    ideas = (Candidate(name="cheap", expression="-close"), Candidate(name="relative", expression="-close / ts_mean(close, 20)"))
    request = ResearchRequest(question="cheap?", dataset="adjusted", candidates=ideas, vectors=False)
    report = run_planner(request, budget=Budget(trials=2), planner="rules", context=context)
    refused = [call for call in calls_of(report, "run_backtest") if call["error"]]
    assert len(refused) == 1
    assert "depends on the level of prices or volumes" in str(refused[0]["error"])
    assert "relative" in {finding.name for finding in report.findings}
    assert "cheap" not in {finding.name for finding in report.findings}


def test_being_long_for_ever_is_no_finding_where_there_is_nothing_to_rank(context: ResearchContext) -> None:
    rising = noise_market(n_assets=2, n_bars=1_500)
    drift = 1.002 ** np.arange(rising.n_bars)[:, None]
    panel = rising.replace(**{name: rising.get(name) * drift for name in ("open", "high", "low", "close")})
    land(context, panel, "rising")
    always = Candidate(name="always", expression="where(close > 0, 1, 0)")
    request = ResearchRequest(question="up?", dataset="rising", candidates=(always,), vectors=False)
    report = run_planner(request, budget=Budget(trials=1), planner="rules", context=context)
    (call,) = [call for call in calls_of(report, "run_backtest") if call["error"]]
    assert "never takes a position" in str(call["error"])


def test_a_hold_out_too_short_to_decide_is_refused_before_anything_is_tried(context: ResearchContext) -> None:
    panel = noise_market()
    context.store.service.import_dataset(panel, name="short", source="test", sealed_from=panel.index[-30].to_pydatetime())
    with pytest.raises(MissingDataError, match="has 30 sealed bars; a hold-out needs at least 63"):
        run_planner("anything?", dataset="short", budget=Budget(trials=1), planner="rules", context=context)
    assert context.store.service.list_runs() == []
