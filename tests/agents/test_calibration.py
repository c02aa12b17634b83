import pytest

from agents.research.calibration import QUESTION, calibrate_market, wilson_interval
from agents.research.runner import ResearchContext, resume_run
from agents.research.session import Event
from core.errors import AQFError, MissingDataError


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 40, 0.0, 0.0876), (34, 40, 0.7093, 0.9294), (5, 10, 0.2366, 0.7634), (20, 20, 0.8389, 1.0)],
)
def test_the_interval_of_a_share_is_that_of_wilson(successes: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(successes, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_an_edge_is_found_noise_is_not_and_only_the_trials_stay(context: ResearchContext) -> None:
    edge = calibrate_market(context, seed=1, edge=3.0, n_assets=12, n_bars=1_500, trials=8)
    noise = calibrate_market(context, seed=1, edge=None, n_assets=6, n_bars=700, trials=8)
    assert edge.found
    assert edge.promoted != ()
    assert not noise.found
    assert noise.promoted == ()
    assert noise.binding_constraint is not None
    select = context.store.service.gateway.select
    assert len(select("trials")) == 16
    assert select("market_bars", limit=1) == []
    assert all("synthetic" in dataset.caveats[0] for dataset in context.store.service.list_datasets())


def test_a_calibration_that_broke_off_can_be_resumed(context: ResearchContext) -> None:
    def break_off(event: Event) -> None:
        if event.done:
            raise AQFError("the power went")

    with pytest.raises(AQFError, match="the power went"):
        calibrate_market(context, seed=1, edge=None, n_assets=6, n_bars=700, trials=9, on_event=break_off)
    (run,) = context.store.service.list_runs()
    assert run.request["question"] == QUESTION
    assert resume_run(run.run_id, context=context).n_trials == 9


def test_a_finished_calibration_is_shown_though_its_market_is_gone(context: ResearchContext) -> None:
    calibrate_market(context, seed=1, edge=None, n_assets=6, n_bars=700, trials=2)
    (run,) = context.store.service.list_runs()
    assert resume_run(run.run_id, context=context).n_trials == 2
    with pytest.raises(MissingDataError, match="has no bar that may be read here"):
        context.store.researcher.load_panel(context.store.service.get_dataset(run.dataset_id))
