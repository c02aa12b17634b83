import json
import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from agents.trading.ab import (
    WORLDS,
    SimulatedContext,
    SizingResult,
    TrialConfig,
    World,
    compare_sizings,
    hit_probabilities,
)
from agents.trading.sizing import FixedSizing, KellySizing, ProbationSizing, RampSizing
from aqf.commands.trade_ab import ab
from core.errors import DataError

SMALL = TrialConfig(accounts=60, trades=150, paper_trades=50)


def world(*contexts: SimulatedContext) -> World:
    return World(name="here", note="", contexts=contexts)


def one(**changes: Any) -> SimulatedContext:
    return SimulatedContext(**({"payoff": 1.0, "edge": 0.0} | changes))


def test_a_hit_probability_is_what_edge_and_payoff_make_it() -> None:
    # With gaps a loss is 3 % * 1.04. Fair at payoff 2: p * 6 % = (1 - p) * 3.12 %.
    config = TrialConfig()
    p = hit_probabilities(world(one(payoff=2.0), one(payoff=2.0, edge=0.01, later_edge=0.0)), config)
    assert p.tolist() == pytest.approx([0.0312 / 0.0912, 0.0412 / 0.0912])
    later = hit_probabilities(world(one(payoff=2.0, edge=0.01, later_edge=0.0)), config, later=True)
    assert later.tolist() == pytest.approx([0.0312 / 0.0912])
    for market in WORLDS:
        p = hit_probabilities(market, config)
        payoff = np.array([context.payoff for context in market.contexts])
        edges = p * payoff * 0.03 - (1 - p) * 0.0312
        assert edges.tolist() == pytest.approx([context.edge for context in market.contexts])


def test_an_edge_that_no_chance_can_give_is_refused() -> None:
    with pytest.raises(DataError, match="an edge of market 'here' must lie between its losses and its gains"):
        hit_probabilities(world(one(edge=0.04)), TrialConfig())


def test_growth_of_a_fixed_stake_is_the_edge_less_the_cost_times_the_trades() -> None:
    # Expected: 400 trades * 2 % * (0.5 % - 0.1 %) = 3.2 %, compounded.
    config = TrialConfig(accounts=2000, trades=400, paper_trades=0, floor=0.0, kill_drawdown=1.0)
    (result,) = compare_sizings([FixedSizing()], config, worlds=[world(one(edge=0.005))])
    assert result.growth.low < (1 + 0.02 * 0.004) ** 400 - 1 < result.growth.high
    assert result.growth.high - result.growth.low < 0.002
    assert (result.taken, result.mean_size) == (1.0, pytest.approx(0.02))


def test_without_chance_the_growth_is_exact() -> None:
    # Nearly sure hits without noise: every trade returns 3 % less 10 bps.
    sure = TrialConfig(accounts=2, trades=50, paper_trades=0, spread=0.0, gap_probability=0.0)
    (result,) = compare_sizings([FixedSizing()], sure, worlds=[world(one(edge=0.03 - 1e-12))])
    assert result.growth.value == pytest.approx((1 + 0.02 * 0.029) ** 50 - 1)
    assert (result.drawdown.value, result.ruin.value) == (0.0, 0.0)


def test_a_larger_cost_never_helps() -> None:
    growths = [
        compare_sizings([FixedSizing()], TrialConfig(accounts=50, trades=100, floor=0.0, cost_bps=cost), worlds=WORLDS[:1])[0]
        for cost in (0.0, 10.0, 50.0)
    ]
    assert all(one.growth.value > other.growth.value for one, other in pairwise(growths))


def test_a_drawdown_at_the_limit_ends_trading() -> None:
    # Sure losses of 3.1 % on 50 %: the third takes the drawdown over 4 %.
    config = TrialConfig(
        accounts=2, trades=50, paper_trades=0, spread=0.0, gap_probability=0.0, floor=0.0, kill_drawdown=0.04, cold_size=0.5
    )
    (result,) = compare_sizings([FixedSizing(fraction=0.5)], config, worlds=[world(one(edge=-0.03 + 1e-12))])
    assert result.growth.value == pytest.approx((1 - 0.5 * 0.031) ** 3 - 1)
    assert (result.ruin.value, result.taken) == (1.0, pytest.approx(3 / 50))


def test_paper_trades_teach_and_move_no_money() -> None:
    # Sure losses: what was learned on paper keeps the account from the first trade with money.
    losses = [world(one(edge=-0.03 + 1e-12))]
    learned = TrialConfig(accounts=2, trades=10, paper_trades=10)
    (result,) = compare_sizings([RampSizing()], learned, worlds=losses)
    assert (result.taken, result.growth.value, result.mean_size) == (0.0, 0.0, 0.0)
    (result,) = compare_sizings([RampSizing()], TrialConfig(accounts=2, trades=10, paper_trades=0), worlds=losses)
    # Cold, then 5/11 above the floor, then 5/12 below it.
    assert result.taken == pytest.approx(2 / 10)


def test_every_sizing_meets_the_same_signals() -> None:
    twins = [RampSizing(), FixedSizing()]
    alone = compare_sizings([FixedSizing()], SMALL, seed=5, worlds=WORLDS[:2])
    together = compare_sizings(twins, SMALL, seed=5, worlds=WORLDS[:2])
    assert [result.growth for result in together if result.sizing == "fixed"] == [result.growth for result in alone]
    assert all(result.advantage.value == 0.0 for result in together if result.sizing == "ramp")
    ramp, fixed = (result for result in together if result.world == "none")
    assert fixed.advantage.value == pytest.approx(fixed.growth.value - ramp.growth.value)


def test_a_seed_gives_the_same_figures_and_another_gives_others() -> None:
    sizings = [KellySizing()]
    first, again, other = (compare_sizings(sizings, SMALL, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def figures(results: list[SizingResult]) -> dict[tuple[str, str], SizingResult]:
    return {(result.world, result.sizing): result for result in results}


def test_kelly_stays_away_where_there_is_no_edge_and_the_ramp_stakes_most_where_hits_deceive() -> None:
    by = figures(
        compare_sizings([RampSizing(), KellySizing()], TrialConfig(accounts=200, trades=400, paper_trades=120), seed=3)
    )
    assert by["none", "kelly"].taken < by["none", "ramp"].taken / 2
    assert by["payoff", "kelly"].advantage.low > 0.01
    assert by["bracket", "kelly"].growth.low > 0.0
    assert by["payoff", "ramp"].mean_size > by["none", "ramp"].mean_size


def test_kelly_alone_starves_without_paper_trades_and_a_probation_feeds_it() -> None:
    config = TrialConfig(accounts=100, trades=400, paper_trades=0)
    by = figures(compare_sizings([KellySizing(), ProbationSizing()], config, seed=3, worlds=[WORLDS[3]]))
    assert by["bracket", "kelly"].taken < 0.03
    assert by["bracket", "probation"].taken > 0.05
    assert by["bracket", "probation"].advantage.low > 0.0


def test_progress_counts_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    config = TrialConfig(accounts=2, trades=3, paper_trades=2)
    compare_sizings([FixedSizing()], config, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 25) for number in range(1, 26)]


@pytest.mark.parametrize("sizings", [[], [RampSizing(), RampSizing()]])
def test_sizings_are_compared_under_different_names(sizings: list[RampSizing]) -> None:
    with pytest.raises(DataError, match="must be at least one, each named once"):
        compare_sizings(sizings, SMALL)


@pytest.mark.parametrize(
    ("changes", "name"), [({"accounts": 1}, "accounts"), ({"cost_bps": -1.0}, "cost_bps"), ({"floor": 1.1}, "floor")]
)
def test_a_trial_that_cannot_be_is_refused_by_name(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(DataError, match=rf"`TrialConfig\.{name}` must be"):
        TrialConfig(**changes)


# The command


def run(*arguments: str) -> str:
    result = CliRunner().invoke(ab, [*arguments, "--accounts", "20", "--trades", "30"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_prints_one_json_object() -> None:
    found = json.loads(run("--json", "--seed", "4", "--sizing", "kelly, fixed"))
    assert (found["seed"], found["config"]["accounts"]) == (4, 20)
    assert list(found["markets"]) == [market.name for market in WORLDS]
    assert [(line["world"], line["sizing"]) for line in found["results"][:3]] == [
        ("none", "kelly"),
        ("none", "fixed"),
        ("hits", "kelly"),
    ]
    assert found["results"][0]["growth"].keys() == {"value", "low", "high"}


def test_the_command_prints_the_markets_and_a_table() -> None:
    text = run()
    assert "bracket: every trade has the pipeline's bracket" in text
    assert "20 accounts a market, 30 signals after 0 on paper, 10 bps a round trip, seed 0" in text
    assert "growth less ramp's" in text


def test_a_terminal_sees_how_many_signals_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = CliRunner().invoke(ab, ["--accounts", "2", "--trades", "4", "--sizing", "fixed"], catch_exceptions=False)
    assert "20/20" in re.sub(r"\x1b\[[^m]*m", "", result.stderr)
    assert "20/20" not in result.stdout


def test_the_command_refuses_a_sizing_it_does_not_know() -> None:
    with pytest.raises(DataError, match="a sizing must be one of ramp, kelly, probation, fixed, was 'martingale'"):
        run("--sizing", "martingale")
    assert CliRunner().invoke(ab, ["--accounts", "1"]).exit_code == 2
