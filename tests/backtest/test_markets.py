from typing import get_args

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from backtest import BacktestConfig, run_backtest
from backtest.markets import HOLDING_BARS, EdgeKind, no_edge, plain_signal, planted
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


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="`kind`"):
        planted(seed=1, sharpe=1.0, kind="magic")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="`kind`"):
        plain_signal(no_edge(seed=1, n_bars=30), "magic")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="at least 2 assets"):
        no_edge(seed=1, n_assets=1)
    with pytest.raises(ConfigurationError, match="at least 4 assets"):
        planted(seed=1, sharpe=1.0, n_assets=3)
    with pytest.raises(ConfigurationError, match="no planted effect reaches"):
        planted(seed=1, sharpe=1e6, n_bars=200)
