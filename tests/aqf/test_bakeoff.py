import numpy as np
import pandas as pd
import pytest
from scipy import stats

from aqf.bakeoff import NO_MEMORY, BakeOff, Contestant, Score, run_bakeoff
from backtest.markets import no_edge
from core.errors import ConfigurationError, DataError
from core.market import Panel
from features.encoders import get_encoder
from features.nearest_windows import round_vectors
from features.windows import rolling_windows

HORIZON, K = 5, 20


@pytest.fixture(scope="module")
def panel() -> Panel:
    return no_edge(seed=3, n_assets=6, n_bars=700)


@pytest.fixture(scope="module")
def found(panel: Panel) -> BakeOff:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("features.encoders.minirocket.find_spec", lambda name: None)
        return run_bakeoff(panel, encoders=("pca", "minirocket"), k=K, horizon=HORIZON, n_bootstrap=300)


def spearman_by_date(panel: Panel, forecast: dict[tuple[int, int], float], outcome: np.ndarray) -> float:
    """Mean over the dates of scipy's rank correlation."""
    values = []
    for bar in sorted({bar for bar, _ in forecast}):
        columns = [column for column in range(panel.n_assets) if (bar, column) in forecast]
        pair = [[forecast[bar, column] for column in columns], outcome[bar, columns]]
        values.append(stats.spearmanr(*pair).statistic)
    return float(np.mean(values))


def outcomes(panel: Panel) -> dict[str, np.ndarray]:
    """What followed each bar, one bar later: the return over 5 bars, the volatility of 21 log returns."""
    close, n = panel.close, panel.n_bars
    steps = np.diff(np.log(close), axis=0)
    returns, volatility = np.full(close.shape, np.nan), np.full(close.shape, np.nan)
    for bar in range(n - 1 - HORIZON):
        returns[bar] = close[bar + 1 + HORIZON] / close[bar + 1] - 1.0
    for bar in range(n - 22):
        volatility[bar] = steps[bar + 1 : bar + 22].std(axis=0, ddof=1)
    return {"return": returns, "volatility": volatility}


def windows_of_the_test(panel: Panel) -> list[tuple[int, int]]:
    ends = range(127, panel.n_bars, 5)
    return [(end, column) for end in ends if int(0.6 * panel.n_bars) <= end < panel.n_bars - 22 for column in range(6)]


def test_no_memory_is_the_past_mean_and_the_past_volatility(panel: Panel, found: BakeOff) -> None:
    after, steps = outcomes(panel), np.diff(np.log(panel.close), axis=0)
    tested = windows_of_the_test(panel)
    assert (found.n_windows, found.n_dates) == (len(tested), len(tested) // 6)
    means = {(end, column): after["return"][: end - HORIZON - 1, column].mean() for end, column in tested}
    spreads = {
        (end, column): (steps[end - 21 : end, column].std(ddof=1) + steps[end - 127 : end, column].std(ddof=1)) / 2.0
        for end, column in tested
    }
    plain = found.contestants[0]
    assert plain.name == NO_MEMORY
    assert plain.rank_ic is not None
    assert plain.rank_ic["return"].value == pytest.approx(spearman_by_date(panel, means, after["return"]))
    assert plain.rank_ic["volatility"].value == pytest.approx(spearman_by_date(panel, spreads, after["volatility"]))
    assert plain.lift is None


@pytest.mark.parametrize(("target", "reach"), [("return", 1 + HORIZON), ("volatility", 22)])
def test_a_memory_forecasts_by_the_nearest_windows_whose_outcome_was_known(
    panel: Panel, found: BakeOff, target: str, reach: int
) -> None:
    after = outcomes(panel)[target]
    windows = rolling_windows(panel)
    encoder = get_encoder("pca").fit(windows.values[windows.end < int(0.6 * panel.n_bars)])
    vectors = round_vectors(encoder.encode(windows)).astype(np.int64)
    column = np.array([panel.symbols.index(symbol) for symbol in windows.symbol])
    place = {(int(end), int(asset)): at for at, (end, asset) in enumerate(zip(windows.end, column, strict=True))}
    forecast = {}
    for end, asset in windows_of_the_test(panel):
        eligible = np.flatnonzero(windows.end + reach < end)
        near = vectors[eligible] @ vectors[place[end, asset]]
        best = eligible[np.lexsort((eligible, -windows.end[eligible], -near))[:K]]
        forecast[end, asset] = after[windows.end[best], column[best]].mean()
    pca = found.contestants[1]
    assert pca.rank_ic is not None
    assert pca.lift is not None
    assert pca.rank_ic[target].value == pytest.approx(spearman_by_date(panel, forecast, after))
    plain = found.contestants[0].rank_ic
    assert plain is not None
    assert pca.lift[target].value == pytest.approx(pca.rank_ic[target].value - plain[target].value)
    for score in (pca.rank_ic[target], pca.lift[target]):
        assert score.low < score.value < score.high


def test_what_could_not_run_is_not_run_and_never_passed(found: BakeOff) -> None:
    rocket = found.contestants[2]
    assert rocket.not_run is not None
    assert "pip install" in rocket.not_run
    assert rocket.rank_ic is None
    assert rocket.lift is None
    assert found.sentence.endswith("Not run: minirocket.")
    assert "helps with minirocket" not in found.sentence


def verdict_of(p_values: list[float], *, lift: float) -> str:
    """The sentence about memories of these p-values for the return, and of none for the volatility."""
    nothing = Score(value=0.0, low=-1.0, high=1.0, p_value=1.0)
    contestants = [Contestant(name=NO_MEMORY, rank_ic=dict.fromkeys(("return", "volatility"), nothing))]
    for number, p_value in enumerate(p_values):
        score = Score(value=lift, low=lift - 0.01, high=lift + 0.01, p_value=p_value)
        contestants.append(Contestant(name=f"m{number}", rank_ic={}, lift={"return": score, "volatility": nothing}))
    return BakeOff(contestants=tuple(contestants), first="", last="", n_dates=9, n_windows=9, settings={}).sentence


def test_the_verdict_counts_every_comparison() -> None:
    assert "for the return memory helps with m0;" in verdict_of([0.024], lift=0.02)
    assert "for the return memory helps with m0;" in verdict_of([0.012, 0.02], lift=0.02)
    assert "for the return memory does not help;" in verdict_of([0.02, 0.02, 0.02], lift=0.02)
    assert "for the return memory does not help and hurts with m0;" in verdict_of([0.001], lift=-0.02)
    assert "corrected for 6 comparisons" in verdict_of([0.5, 0.5, 0.5], lift=0.02)


def test_it_is_said_when_memory_does_not_help(found: BakeOff) -> None:
    assert "for the return memory does not help" in found.sentence
    assert found.to_dict()["sentence"] == found.sentence


def test_what_comes_trained_is_judged_after_its_training(panel: Panel) -> None:
    index = pd.bdate_range("2004-06-01", periods=panel.n_bars, tz="UTC")
    later = Panel(index=index, symbols=panel.symbols, close=panel.close)
    assert f"{index[int(0.6 * panel.n_bars)]:%Y-%m-%d}" > "2005-10-21"
    earlier = Panel(index=index - pd.Timedelta(days=400), symbols=panel.symbols, close=panel.close)
    assert f"{earlier.index[int(0.6 * panel.n_bars)]:%Y-%m-%d}" < "2005-10-21"
    for moved in (later, earlier):
        late = run_bakeoff(moved, encoders=("ts2vec_causal",), k=5, n_bootstrap=50)
        assert late.contestants[1].trained_until == "2005-10-21"
        assert late.first > "2005-10-21"


def test_bad_input_is_refused_with_a_reason(panel: Panel) -> None:
    with pytest.raises(ConfigurationError, match="must be one of"):
        run_bakeoff(panel, encoders=("word2vec",))
    with pytest.raises(DataError, match="horizon"):
        run_bakeoff(panel, encoders=("pca",), horizon=0)
    assert run_bakeoff(panel, encoders=()).sentence == "No memory was measured."
    with pytest.raises(DataError, match="0 dates are left"):
        run_bakeoff(panel.slice(0, 140), encoders=())
    with pytest.raises(DataError, match="at least two symbols"):
        run_bakeoff(panel.select(panel.symbols[:1]), encoders=())
