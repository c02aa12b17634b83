from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.trading.learning import PromotionGate, PromotionGateConfig, RecordStatus
from core.errors import DataError
from tests.agents.trading.sized import hit_rate


@pytest.mark.parametrize(
    ("n", "rate", "p", "status"),
    [
        (1, 1.0, 6 / 11, RecordStatus.LEARNING),
        (9, 1.0, 14 / 19, RecordStatus.LEARNING),
        (10, 1.0, 15 / 20, RecordStatus.TRUSTED),
        (10, 0.4, 0.45, RecordStatus.TRUSTED),
        (1000, 0.7, 705 / 1010, RecordStatus.TRUSTED),
    ],
)
def test_a_rate_is_shrunk_towards_one_half_at_every_number_of_trades(
    n: int, rate: float, p: float, status: RecordStatus
) -> None:
    estimate = PromotionGate().judge(hit_rate(n, rate))
    assert estimate.p == pytest.approx(p, abs=1e-15)
    assert (estimate.n_closed, estimate.hit_rate, estimate.status) == (n, rate, status)


@pytest.mark.parametrize("rate", [None, hit_rate(0, None, win=None, loss=None)], ids=["never traded", "nothing closed"])
def test_without_a_closed_trade_it_is_a_cold_start_at_one_half(rate: object) -> None:
    estimate = PromotionGate().judge(rate)  # type: ignore[arg-type]
    assert (estimate.p, estimate.n_closed, estimate.hit_rate) == (0.5, 0, None)
    assert estimate.status is RecordStatus.COLD_START


def test_a_measured_zero_is_a_rate_and_not_a_missing_one() -> None:
    estimate = PromotionGate().judge(hit_rate(10, 0.0, win=None))
    assert (estimate.p, estimate.hit_rate, estimate.status) == (0.25, 0.0, RecordStatus.TRUSTED)


def test_closed_trades_without_a_rate_are_refused() -> None:
    with pytest.raises(DataError, match=r"`Estimate\.hit_rate` must be given exactly when trades are closed"):
        PromotionGate().judge(hit_rate(3, None))


@given(n=st.integers(1, 10_000), data=st.data())
def test_the_probability_is_the_exact_fraction_though_the_rate_was_rounded(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    p = PromotionGate().judge(hit_rate(n, hits / n)).p
    assert p == float(Fraction(hits + 5, n + 10))
    assert 0.0 < p < 1.0


def test_the_prior_can_be_chosen_and_is_checked() -> None:
    gate = PromotionGate(PromotionGateConfig(prior_trades=4, prior_hit_rate=0.25, trusted_from=2))
    assert gate.judge(hit_rate(2, 1.0)).p == pytest.approx(3 / 6)
    assert gate.judge(hit_rate(2, 1.0)).status is RecordStatus.TRUSTED
    with pytest.raises(DataError, match=r"`PromotionGateConfig\.prior_trades` must be greater than 0"):
        PromotionGateConfig(prior_trades=0)
