import numpy as np
import pandas as pd
import pytest

from backtest.volatility import compute_trailing_volatility
from core.errors import ConfigurationError


@pytest.mark.parametrize(("bars", "minimum"), [(2, 2), (20, 10), (60, 60), (500, 2)])
def test_volatility_is_the_rolling_deviation_of_pandas(bars: int, minimum: int) -> None:
    rng = np.random.default_rng(bars)
    returns = 0.02 * rng.standard_normal((200, 5))
    returns[rng.random(returns.shape) < 0.2] = np.nan
    expected = pd.DataFrame(returns).rolling(bars, min_periods=minimum).std().to_numpy()
    np.testing.assert_allclose(compute_trailing_volatility(returns, bars=bars, minimum=minimum), expected, rtol=1e-9)


def test_one_giant_return_is_forgotten_when_it_leaves_the_window() -> None:
    returns = np.tile([[0.01], [-0.01]], (40, 1))
    calm = compute_trailing_volatility(returns, bars=10, minimum=10)
    returns[5] = 1e9
    shaken = compute_trailing_volatility(returns, bars=10, minimum=10)
    np.testing.assert_array_equal(shaken[15:], calm[15:])
    assert (shaken[9:15] > 1e8).all()


@pytest.mark.parametrize(("bars", "minimum"), [(10, 1), (10, 11)])
def test_a_minimum_outside_the_window_is_refused(bars: int, minimum: int) -> None:
    with pytest.raises(ConfigurationError, match="`minimum` must be in 2"):
        compute_trailing_volatility(np.zeros((20, 1)), bars=bars, minimum=minimum)
