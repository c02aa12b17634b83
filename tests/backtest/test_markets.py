from typing import get_args

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from backtest import BacktestConfig, markets, run_backtest
from backtest.market_noise import MarketStyle, draw_noise
from backtest.markets import HOLDING_BARS, EdgeKind, no_edge, plain_signal, planted
from backtest.metrics import sharpe_ratio
from backtest.portfolio import scores_to_weights
from core.errors import ConfigurationError, MissingDataError
from core.market.panel import Panel

KINDS: tuple[EdgeKind, ...] = get_args(EdgeKind)


def trade(panel: Panel, kind: EdgeKind, config: BacktestConfig | None = None) -> dict[str, float]:
    weights = scores_to_weights(plain_signal(panel, kind), holding_bars=HOLDING_BARS[kind])
    return run_backtest(panel, weights, config or BacktestConfig()).metrics  # type: ignore[return-value]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("seed", "sharpe"), [(1, 0.5), (2, 1.5), (3, 2.5)])
def test_a_planted_edge_has_its_net_sharpe(kind: EdgeKind, seed: int, sharpe: float) -> None:
    panel = planted(seed=seed, sharpe=sharpe, kind=kind, n_bars=1500)
    assert trade(panel, kind)["sharpe"] == pytest.approx(sharpe, abs=0.03)
    assert panel.name == f"planted_{kind}"


def test_a_planted_edge_survives_the_costs_it_was_asked_for() -> None:
    panel = planted(seed=5, sharpe=1.0, n_bars=1500, cost_bps=20.0)
    config = BacktestConfig(commission_bps=4.0, slippage_bps=16.0)
    assert trade(panel, "reversal", config)["sharpe"] == pytest.approx(1.0, abs=0.03)


def test_a_planted_edge_can_be_a_loss() -> None:
    assert trade(planted(seed=6, sharpe=-3.0, n_bars=1500), "reversal")["sharpe"] == pytest.approx(-3.0, abs=0.03)


def test_without_an_edge_no_plain_signal_earns_before_costs() -> None:
    found = {kind: [] for kind in KINDS}  # type: ignore[var-annotated]
    for seed in range(25):
        panel = no_edge(seed=500 + seed, n_bars=1500)
        for kind in KINDS:
            found[kind].append(trade(panel, kind)["gross_sharpe"])
    for kind, sharpes in found.items():
        assert abs(np.mean(sharpes)) < 3.0 * np.std(sharpes) / 5.0, kind


@pytest.mark.parametrize("panel", [no_edge(seed=7, n_bars=1500), planted(seed=7, sharpe=2.0, n_bars=1500)])
def test_bars_are_consistent(panel: Panel) -> None:
    opened, high, low, volume = (panel.get(name) for name in ("open", "high", "low", "volume"))
    assert (high >= np.maximum(opened, panel.close)).all()
    assert (low <= np.minimum(opened, panel.close)).all()
    assert (low > 0.0).all()
    assert (volume > 0.0).all()
    assert panel.index[0] == pd.Timestamp("2000-01-03 21:00", tz="UTC")
    assert (panel.index.day_of_week < 5).all()


def test_returns_look_like_those_of_stocks() -> None:
    returns = no_edge(seed=8).returns()[1:]
    assert 0.15 < returns.std() * np.sqrt(252) < 0.45
    assert np.median(stats.kurtosis(returns)) > 1.5
    size = np.abs(returns)
    clustering = [np.corrcoef(column[1:], column[:-1])[0, 1] for column in size.T]
    assert np.mean(clustering) > 0.05
    together = np.corrcoef(returns.T)
    same_sector = np.mean([together[i, i + 4] for i in range(16)])
    other_sector = np.mean([together[i, i + 1] for i in range(19)])
    assert same_sector > other_sector + 0.03
    assert other_sector > 0.15


def test_equal_arguments_give_equal_panels() -> None:
    assert no_edge(seed=9, n_bars=200).content_sha256() == no_edge(seed=9, n_bars=200).content_sha256()
    assert no_edge(seed=9, n_bars=200).content_sha256() != no_edge(seed=10, n_bars=200).content_sha256()
    first, second = (planted(seed=9, sharpe=1.0, n_bars=400) for _ in range(2))
    assert first.content_sha256() == second.content_sha256()


def test_plain_signals_by_hand() -> None:
    panel = no_edge(seed=11, n_bars=120)
    close, volume, t = panel.close, panel.get("volume"), 100
    returns = close[t - 59 : t + 1] / close[t - 60 : t] - 1.0
    np.testing.assert_allclose(plain_signal(panel, "reversal")[t], 1.0 - close[t] / close[t - 5])
    np.testing.assert_allclose(plain_signal(panel, "momentum")[t], close[t] / close[t - 60] - 1.0)
    np.testing.assert_allclose(plain_signal(panel, "low_volatility")[t], -returns.std(axis=0))
    np.testing.assert_allclose(plain_signal(panel, "volume")[t], -volume[t] / volume[t - 19 : t + 1].mean(axis=0))
    assert np.isnan(plain_signal(panel, "momentum")[:60]).all()


def test_volume_can_be_left_out() -> None:
    panel = no_edge(seed=12, n_bars=50, with_volume=False)
    assert panel.volume is None
    with pytest.raises(MissingDataError, match="no `volume`"):
        plain_signal(panel, "volume")


def test_the_plain_market_of_a_seed_is_the_one_that_was_calibrated_on() -> None:
    panel = no_edge(seed=7, n_assets=6, n_bars=900)
    np.testing.assert_allclose(panel.close[-1, [0, 5]], [19.194033532392627, 128.44956798458955], rtol=1e-6)
    assert panel.get("volume")[-1, 0] == 2239946.0
    panel = planted(seed=2, sharpe=1.5, n_assets=8, n_bars=500)
    np.testing.assert_allclose(panel.close[-1, [0, 7]], [186.41916857920734, 48.74027381062616], rtol=1e-6)


def test_the_halves_of_a_planted_market_scatter_around_the_whole() -> None:
    """The luck of the path is taken out of the whole only, so that the mean over seeds of a half is what was asked for."""
    halves = []
    for seed in range(30):
        panel = planted(seed=seed, sharpe=1.5, n_assets=12, n_bars=1200)
        weights = scores_to_weights(plain_signal(panel, "reversal"), holding_bars=5)
        halves.append(run_backtest(panel, weights).slice(600).metrics["sharpe"])
    error = np.std(halves, ddof=1) / np.sqrt(len(halves))
    assert abs(np.mean(halves) - 1.5) < 3.0 * error
    assert np.std(halves) > 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_a_realistic_market_has_the_planted_net_sharpe_too(kind: EdgeKind) -> None:
    panel = planted(seed=3, sharpe=1.5, kind=kind, n_bars=1500, style="realistic")
    assert trade(panel, kind)["sharpe"] == pytest.approx(1.5, abs=0.03)


def test_what_is_planted_is_decided_by_what_could_be_seen() -> None:
    """The mean of the return two bars later moves with the plain signal's weights: the shift is a multiple of them."""
    for style in get_args(MarketStyle):
        noise = draw_noise(4, 8, 700, style)
        shift = markets._plant(noise, "reversal", np.full(700, 0.05)) - noise.returns
        panel = markets._build_panel(noise, noise.returns + shift, "", True)
        weights = scores_to_weights(plain_signal(panel, "reversal"), holding_bars=5)
        np.testing.assert_allclose(shift[2:], 0.05 * weights[:-2], atol=1e-12)


@pytest.mark.parametrize("panel", [no_edge(seed=7, style="realistic"), planted(seed=7, sharpe=2.0, style="realistic")])
def test_a_realistic_market_has_gaps_late_listings_and_delistings_and_its_bars_are_consistent(panel: Panel) -> None:
    opened, high, low, close, volume = (panel.get(name) for name in ("open", "high", "low", "close", "volume"))
    present = np.isfinite(close)
    for values in (opened, high, low, volume):
        np.testing.assert_array_equal(np.isfinite(values), present)
    assert (high >= np.maximum(opened, close))[present].all()
    assert (low <= np.minimum(opened, close))[present].all()
    assert (low > 0.0)[present].all()
    listed = present.argmax(axis=0)
    last = panel.n_bars - 1 - present[::-1].argmax(axis=0)
    assert (listed > 100).sum() == 3
    assert (last < 0.96 * panel.n_bars).sum() == 3
    whole = present[:, (listed < 10) & (last > panel.n_bars - 10)]
    assert whole.shape[1] == 14
    assert 0.0005 < 1.0 - whole.mean() < 0.01
    assert present.any(axis=1).all()


def test_a_realistic_market_has_regimes_and_jumps_overnight() -> None:
    plain, real = no_edge(seed=8), no_edge(seed=8, style="realistic")
    overnight = real.get("open")[1:] / real.close[:-1] - 1.0
    usual = plain.get("open")[1:] / plain.close[:-1] - 1.0
    assert (np.abs(overnight) > 0.1).sum() > 5 * max(1, (np.abs(usual) > 0.1).sum())
    spread = {
        name: pd.Series(np.nanmean(panel.returns()[1:], axis=1)).rolling(60).std().dropna()
        for name, panel in (("plain", plain), ("real", real))
    }
    assert spread["real"].max() / spread["real"].median() > 1.25 * spread["plain"].max() / spread["plain"].median()


def test_without_an_edge_no_plain_signal_earns_on_realistic_markets_either() -> None:
    found = {kind: [] for kind in KINDS}  # type: ignore[var-annotated]
    for seed in range(25):
        panel = no_edge(seed=700 + seed, n_bars=1500, style="realistic")
        for kind in KINDS:
            found[kind].append(trade(panel, kind)["gross_sharpe"])
    for kind, sharpes in found.items():
        assert abs(np.mean(sharpes)) < 3.0 * np.std(sharpes) / 5.0, kind


def test_an_edge_that_decays_earns_early_what_it_does_not_earn_late() -> None:
    panel = planted(seed=9, sharpe=2.0, n_bars=2000, decay=400)
    weights = scores_to_weights(plain_signal(panel, "reversal"), holding_bars=5)
    result = run_backtest(panel, weights)
    assert result.metrics["sharpe"] == pytest.approx(2.0, abs=0.03)
    gross = result.gross_returns
    early, late = (sharpe_ratio(part) for part in (gross[:500], gross[-500:]))
    assert early > late + 2.0


def test_capacity_is_the_equity_whose_mean_trade_takes_a_hundredth_of_the_volume() -> None:
    panel, capacity = planted(seed=10, sharpe=1.0, n_assets=6, n_bars=600, style="realistic", capacity=2e7), 2e7
    weights = scores_to_weights(plain_signal(panel, "reversal"), holding_bars=5)
    taken = []
    for t in range(panel.n_bars - 2):
        for asset in range(panel.n_assets):
            trade_value = capacity * abs(weights[t + 1, asset] - weights[t, asset])  # decided at t + 1, traded at t + 2
            if trade_value and np.isfinite(panel.close[t + 2, asset]):
                taken.append(trade_value / (panel.close[t + 2, asset] * panel.get("volume")[t + 2, asset]))
    assert np.mean(taken) == pytest.approx(0.01)
    roomy = planted(seed=10, sharpe=1.0, n_assets=6, n_bars=600, style="realistic", capacity=4e7)
    np.testing.assert_allclose(roomy.get("volume"), 2.0 * panel.get("volume"))
    np.testing.assert_array_equal(roomy.close, panel.close)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="`kind`"):
        planted(seed=1, sharpe=1.0, kind="magic")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="`kind`"):
        plain_signal(no_edge(seed=1, n_bars=30), "magic")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="at least 2 assets"):
        no_edge(seed=1, n_assets=1)
    with pytest.raises(ConfigurationError, match="at least 4 assets"):
        planted(seed=1, sharpe=1.0, n_assets=3)
    with pytest.raises(ConfigurationError, match="`style` must be one of plain, realistic"):
        no_edge(seed=1, style="baroque")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="`decay`"):
        planted(seed=1, sharpe=1.0, decay=0.0)
    with pytest.raises(ConfigurationError, match="`capacity`"):
        planted(seed=1, sharpe=1.0, capacity=float("inf"))
    with pytest.raises(ConfigurationError, match="no planted effect reaches"):
        planted(seed=1, sharpe=1e6, n_bars=200)
