import json

import pytest

from backtest import BacktestConfig
from core.errors import ConfigurationError


def test_cost_is_commission_and_slippage() -> None:
    assert BacktestConfig().cost_bps == 5.0
    assert BacktestConfig(commission_bps=0.5, slippage_bps=2.0).cost_bps == 2.5


def test_settings_survive_json() -> None:
    config = BacktestConfig(fill="open", borrow_rate=0.01)
    assert BacktestConfig(**json.loads(json.dumps(config.to_dict()))) == config
    config = BacktestConfig(lot_size=100, participation_limit=0.1, impact_coefficient=0.9, delisting_bars=5, cash_rate=0.02)
    assert BacktestConfig(**json.loads(json.dumps(config.to_dict()))) == config


def test_every_option_is_off_by_default_and_named_when_on() -> None:
    assert BacktestConfig(commission_bps=9.0, fill="open", periods_per_year=365).options == ()
    assert BacktestConfig(lot_size=1, margin_rate=0.05).options == ("lot_size", "margin_rate")
    assert not BacktestConfig(lot_size=1).needs_volume
    assert BacktestConfig(impact_coefficient=1.0).needs_volume
    assert BacktestConfig(participation_limit=0.1).needs_volume


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("initial_cash", 0.0),
        ("initial_cash", float("inf")),
        ("fill", "vwap"),
        ("commission_bps", -1.0),
        ("slippage_bps", float("nan")),
        ("slippage_bps", 20_000.0),
        ("borrow_rate", -0.01),
        ("max_leverage", 0.0),
        ("periods_per_year", 0),
        ("periods_per_year", 252.0),
        ("periods_per_year", True),
        ("initial_cash", "1000"),
        ("commission_bps", True),
        ("commission_per_share", -0.01),
        ("minimum_commission", float("inf")),
        ("impact_coefficient", -1.0),
        ("participation_limit", 0.0),
        ("participation_limit", 1.5),
        ("lot_size", 0),
        ("lot_size", float("nan")),
        ("cash_rate", -2.0),
        ("margin_rate", -0.01),
        ("delisting_bars", 0),
        ("delisting_bars", 2.0),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"`{name}` must be"):
        BacktestConfig(**{name: value})
