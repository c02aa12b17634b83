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
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"`{name}` must be"):
        BacktestConfig(**{name: value})
