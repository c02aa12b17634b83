from dataclasses import FrozenInstanceError, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backtest
from backtest import BacktestConfig, run_backtest, run_sweep
from core.errors import DataError, MissingDataError, ShapeError
from core.market.panel import Panel
from tests.backtest.conftest import build_panel, random_book

FREE = BacktestConfig(commission_bps=0.0, slippage_bps=0.0, borrow_rate=0.0)
COSTLY = BacktestConfig(commission_bps=10.0, slippage_bps=20.0, borrow_rate=0.05)
Book = tuple[Panel, np.ndarray]


def account_by_hand(panel: Panel, weights: np.ndarray, config: BacktestConfig) -> dict[str, np.ndarray]:
    """The same account kept in plain Python, order by order, with equity from profit and loss and not from balances."""
    fills = panel.get(config.fill)
    cash, equity = config.initial_cash, config.initial_cash
    shares, known = np.zeros(panel.n_assets), np.full(panel.n_assets, np.nan)
    s, c = config.slippage_bps / 1e4, config.commission_bps / 1e4
    out: dict[str, list[float]] = {"equity": [], "cash": [], "net": [], "gross": [], "turnover": []}
    for t in range(panel.n_bars):
        before, profit = equity, 0.0
        short = -sum(min(n * p, 0.0) for n, p in zip(shares, known, strict=True) if n)
        cost = short * config.borrow_rate / config.periods_per_year
        cash -= cost
        for j, price in enumerate(fills[t]):
            if not np.isnan(price):
                profit += shares[j] * (price - known[j]) if shares[j] else 0.0
                known[j] = price
        at_fill = before + profit - cost
        traded = 0.0
        if t > 0 and not np.isnan(weights[t - 1]).all():
            for j, price in enumerate(fills[t]):
                if np.isnan(price):
                    continue
                order = weights[t - 1, j] * at_fill / price - shares[j]
                paid = price * (1 + s) if order > 0 else price * (1 - s)
                commission = abs(order) * paid * c
                cash -= order * paid + commission
                cost += abs(order) * price * s + commission
                traded += abs(order) * price
                shares[j] += order
        for j, price in enumerate(panel.close[t]):
            if not np.isnan(price):
                profit += shares[j] * (price - known[j]) if shares[j] else 0.0
                known[j] = price
        equity = before + profit - cost
        out["equity"].append(equity)
        out["cash"].append(cash)
        out["net"].append(equity / before - 1)
        out["gross"].append(profit / before)
        out["turnover"].append(traded / at_fill)
    return {name: np.array(values) for name, values in out.items()}


def test_three_bars_by_hand() -> None:
    panel = build_panel([[100.0], [110.0], [121.0]])
    config = BacktestConfig(initial_cash=1000.0, commission_bps=100.0, slippage_bps=200.0, borrow_rate=0.0)
    result = run_backtest(panel, [[0.5], [0.0], [0.0]], config)
    # Bar 1: buy 500 / 110 shares at 112.2 with 1 % commission of 510. Bar 2: they are worth 550, sold 2 % lower for 539.
    cash = 1000.0 - 510.0 - 5.10
    np.testing.assert_allclose(result.equity, [1000.0, cash + 500.0, cash + 539.0 - 5.39], rtol=1e-14)
    np.testing.assert_allclose(result.turnover, [0.0, 0.5, 550.0 / (cash + 550.0)], rtol=1e-14)
    np.testing.assert_allclose(result.costs, [0.0, 15.10 / 1000.0, (11.0 + 5.39) / (cash + 500.0)], rtol=1e-14)
    np.testing.assert_allclose(result.gross_returns, [0.0, 0.0, 50.0 / (cash + 500.0)], atol=1e-15)
    np.testing.assert_allclose(result.exposure, [0.0, 500.0 / (cash + 500.0), 0.0], atol=1e-15)
    assert result.trades.tolist() == [0, 1, 1]
    assert result.n_trades == 2


def test_borrow_is_charged_on_the_short_value_of_the_previous_close() -> None:
    panel = build_panel([[100.0], [100.0], [200.0], [200.0]])
    config = replace(FREE, initial_cash=1000.0, borrow_rate=0.252)
    result = run_backtest(panel, np.vstack(([[-0.5]], np.full((3, 1), np.nan))), config)
    # Short 5 shares at bar 1: worth 500 at its close, 1000 at the close of bar 2; a thousandth of it is charged a bar later.
    np.testing.assert_allclose(result.equity, [1000.0, 1000.0, 1000.0 - 500.0 - 0.5, 500.0 - 0.5 - 1.0], rtol=1e-14)
    np.testing.assert_allclose(result.net_exposure, [0.0, -0.5, -1000.0 / 499.5, -1000.0 / 498.5], rtol=1e-14)


def test_filling_at_the_open_earns_from_open_to_close() -> None:
    panel = build_panel([[10.0], [12.0], [12.0]], opened=[[10.0], [10.0], [12.0]])
    result = run_backtest(panel, [[1.0], [1.0], [1.0]], replace(FREE, fill="open"))
    np.testing.assert_allclose(result.net_returns, [0.0, 0.2, 0.0], atol=1e-15)


@pytest.mark.parametrize("fill", ["close", "open"])
def test_the_kernel_keeps_the_account_of_plain_python(fill: str) -> None:
    panel, weights = random_book(seed=11)
    rng = np.random.default_rng(5)
    gaps = rng.random(panel.shape) < 0.1
    panel = panel.replace(close=np.where(gaps, np.nan, panel.close), open=np.where(gaps, np.nan, panel.get("open")))
    weights[rng.random(len(weights)) < 0.2] = np.nan
    config = replace(COSTLY, fill=fill)
    expected, result = account_by_hand(panel, weights, config), run_backtest(panel, weights, config)
    np.testing.assert_allclose(result.equity, expected["equity"], rtol=1e-11)
    np.testing.assert_allclose(result.cash, expected["cash"], rtol=1e-11)
    np.testing.assert_allclose(result.net_returns, expected["net"], atol=1e-12)
    np.testing.assert_allclose(result.gross_returns, expected["gross"], atol=1e-12)
    np.testing.assert_allclose(result.turnover, expected["turnover"], rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), fill=st.sampled_from(["close", "open"]), gaps=st.floats(0.0, 0.4))
def test_cash_and_positions_are_the_equity_at_every_bar(seed: int, fill: str, gaps: float) -> None:
    panel, weights = random_book(seed, n_bars=40, n_assets=4)
    rng = np.random.default_rng(seed)
    close = np.where(rng.random(panel.shape) < gaps, np.nan, panel.close)
    opened = np.where(rng.random(panel.shape) < gaps, np.nan, panel.get("open"))
    panel = panel.replace(close=close, open=opened)
    result = run_backtest(panel, weights, replace(COSTLY, fill=fill), keep_positions=True)
    known = np.zeros(4)
    for t in range(panel.n_bars):
        if fill == "open":
            known = np.where(np.isnan(opened[t]), known, opened[t])
        known = np.where(np.isnan(close[t]), known, close[t])
        assert result.positions is not None
        assert result.cash[t] + result.positions[t] @ known == pytest.approx(result.equity[t], rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(2, 58), fill=st.sampled_from(["close", "open"]))
def test_what_comes_after_a_bar_never_changes_results_up_to_it(seed: int, cut: int, fill: str) -> None:
    panel, weights = random_book(seed, n_bars=60, n_assets=4)
    config = replace(COSTLY, fill=fill)
    first = run_backtest(panel, weights, config)
    rng = np.random.default_rng(seed)
    later = np.where(np.arange(60)[:, None] >= cut, rng.uniform(0.5, 2.0, panel.shape), 1.0)
    other_weights = weights.copy()
    other_weights[cut - 1 :] = 0.25  # decided at the close of cut - 1, so traded at cut
    second = run_backtest(panel.replace(close=panel.close * later, open=panel.get("open") * later), other_weights, config)
    for name in ("equity", "net_returns", "gross_returns", "turnover", "costs", "exposure", "cash", "trades"):
        np.testing.assert_array_equal(getattr(first, name)[:cut], getattr(second, name)[:cut])


def test_a_weight_is_first_traded_at_the_next_bar(book: Book) -> None:
    panel, weights = book
    other = weights.copy()
    other[50] = -other[50]
    first, second = run_backtest(panel, weights), run_backtest(panel, other)
    np.testing.assert_array_equal(first.equity[:51], second.equity[:51])
    assert first.equity[51] != second.equity[51]


def test_nothing_wanted_costs_nothing(book: Book) -> None:
    panel, _ = book
    result = run_backtest(panel, np.zeros(panel.shape), COSTLY)
    assert result.n_trades == 0
    assert (result.costs == 0.0).all()
    assert (result.equity == COSTLY.initial_cash).all()
    assert result.metrics["sharpe"] is None


def test_a_kept_position_is_not_traded() -> None:
    panel = build_panel(np.full((50, 3), [[7.0, 11.0, 13.0]]))
    result = run_backtest(panel, np.full((50, 3), [[0.3, 0.1, -0.4]]), FREE)
    assert result.trades.tolist() == [0, 3] + [0] * 48


def test_a_row_of_nan_holds_the_shares(book: Book) -> None:
    panel, weights = book
    held = np.full(panel.shape, np.nan)
    held[0] = weights[0]
    result = run_backtest(panel, held, FREE, keep_positions=True)
    assert result.positions is not None
    assert (result.positions[1:] == result.positions[1]).all()
    shares = weights[0] * FREE.initial_cash / panel.close[1]
    np.testing.assert_allclose(result.equity[2:], FREE.initial_cash + (panel.close[2:] - panel.close[1]) @ shares, rtol=1e-12)


def test_an_asset_without_a_price_waits_and_keeps_its_last_value() -> None:
    panel = build_panel([[10.0, 5.0], [10.0, np.nan], [12.0, 5.0], [np.nan, 6.0], [15.0, 6.0]])
    result = run_backtest(panel, np.full((5, 2), 0.5), FREE, keep_positions=True)
    assert result.positions is not None
    assert result.positions[1].tolist() == [50_000.0, 0.0]
    np.testing.assert_allclose(result.equity[2], 1_100_000.0)
    assert result.positions[3, 0] == result.positions[2, 0]
    np.testing.assert_allclose(result.equity[3], 1_100_000.0 + 550_000.0 * 0.2)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), factor=st.floats(0.01, 1000.0))
def test_profit_scales_with_capital(seed: int, factor: float) -> None:
    panel, weights = random_book(seed, n_bars=40, n_assets=4)
    one = run_backtest(panel, weights, COSTLY)
    many = run_backtest(panel, weights, replace(COSTLY, initial_cash=COSTLY.initial_cash * factor))
    np.testing.assert_allclose(many.equity, one.equity * factor, rtol=1e-11)
    np.testing.assert_allclose(many.net_returns, one.net_returns, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_the_assets_does_not_matter(seed: int) -> None:
    panel, weights = random_book(seed, n_bars=40, n_assets=5)
    order = np.random.default_rng(seed).permutation(5)
    one = run_backtest(panel, weights, COSTLY, keep_positions=True)
    other = run_backtest(panel.select([panel.symbols[i] for i in order]), weights[:, order], COSTLY, keep_positions=True)
    np.testing.assert_allclose(other.equity, one.equity, rtol=1e-12)
    assert one.positions is not None
    assert other.positions is not None
    np.testing.assert_allclose(other.positions, one.positions[:, order], rtol=1e-10)


def test_the_dates_do_not_matter(book: Book) -> None:
    panel, weights = book
    moved = build_panel(panel.close, start="1995-06-01")
    np.testing.assert_array_equal(run_backtest(panel, weights).equity, run_backtest(moved, weights).equity)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), name=st.sampled_from(["commission_bps", "slippage_bps", "borrow_rate"]))
def test_costs_never_help(seed: int, name: str) -> None:
    panel, weights = random_book(seed, n_bars=40, n_assets=4)
    free = run_backtest(panel, weights, FREE)
    paid = run_backtest(panel, weights, replace(FREE, **{name: 0.5 if name == "borrow_rate" else 10.0}))
    assert (paid.costs >= 0.0).all()
    assert (paid.equity[2:] < free.equity[2:]).all()


def test_gross_is_net_and_costs(book: Book) -> None:
    result = run_backtest(*book, COSTLY)
    np.testing.assert_allclose(result.gross_returns, result.net_returns + result.costs, atol=1e-16)


def test_an_account_worth_nothing_is_closed_at_zero() -> None:
    panel = build_panel([[100.0], [100.0], [180.0], [50.0], [60.0]])
    result = run_backtest(panel, np.full((5, 1), -2.0), FREE, keep_positions=True)
    assert result.equity.tolist() == [1e6, 1e6, 0.0, 0.0, 0.0]
    assert result.net_returns.tolist() == [0.0, 0.0, -1.0, 0.0, 0.0]
    assert result.positions is not None
    assert (result.positions[2:] == 0.0).all()
    assert result.metrics["total_return"] == -1.0
    assert result.metrics["cagr"] == -1.0


def test_a_sweep_equals_single_runs(book: Book) -> None:
    panel, weights = book
    many = [weights * scale for scale in (0.1, 0.5, 1.0, -1.0)]
    swept = run_sweep(panel, many, COSTLY, n_threads=3)
    assert len(swept) == 4
    for result, one in zip(swept, many, strict=True):
        np.testing.assert_array_equal(result.equity, run_backtest(panel, one, COSTLY).equity)


def test_a_slice_has_the_metrics_of_its_own_bars(book: Book) -> None:
    result = run_backtest(*book, COSTLY)
    part = result.slice(20, 70)
    assert part.n_bars == part.metrics["n_obs"] == 50
    assert part.index[0] == result.index[20]
    assert part.n_trades == int(result.trades[20:70].sum())
    assert part.metrics["total_return"] == pytest.approx(result.equity[69] / result.equity[19] - 1.0)
    with pytest.raises(DataError, match="at least 2 bars"):
        result.slice(119)


def test_a_result_cannot_be_changed(book: Book) -> None:
    result = run_backtest(*book)
    with pytest.raises(FrozenInstanceError):
        result.config = COSTLY  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        result.equity[0] = 1.0


def test_a_result_shows_itself(book: Book) -> None:
    result = run_backtest(*book)
    assert "120 bars, 2020-01-01..2020-06-16" in repr(result)
    html = result._repr_html_()
    assert "Deepest drawdown" in html
    assert f"{100 * result.metrics['max_drawdown']:.2f}" in html


def test_weights_of_another_shape_are_refused(book: Book) -> None:
    panel, weights = book
    with pytest.raises(ShapeError, match=r"\(120, 6\), was \(119, 6\)"):
        run_backtest(panel, weights[1:])


def test_too_much_leverage_is_refused_with_its_bar(book: Book) -> None:
    panel, weights = book
    weights[70] *= 2.5
    with pytest.raises(DataError, match=r"at most max_leverage = 2, was 2\.5 at bar 70 \(2020-04-08\)"):
        run_backtest(panel, weights)


def test_the_last_row_is_checked_although_never_traded(book: Book) -> None:
    panel, weights = book
    weights[-1] *= 2.5
    with pytest.raises(DataError, match="at bar 119"):
        run_backtest(panel, weights)


def test_infinite_weights_are_refused(book: Book) -> None:
    panel, weights = book
    weights[3, 2] = np.inf
    with pytest.raises(DataError, match="was inf at bar 3"):
        run_backtest(panel, weights)


def test_a_partly_missing_row_is_refused_by_symbol(book: Book) -> None:
    panel, weights = book
    weights[5, 2] = weights[5, 4] = np.nan
    with pytest.raises(DataError, match=r"row bar 5 .* is NaN for S2, S4 only"):
        run_backtest(panel, weights)


def test_a_frame_of_weights_must_be_in_the_panels_order(book: Book) -> None:
    panel, weights = book
    frame = pd.DataFrame(weights, index=panel.index, columns=list(panel.symbols))
    np.testing.assert_array_equal(run_backtest(panel, frame).equity, run_backtest(panel, weights).equity)
    with pytest.raises(DataError, match="in the panel's order"):
        run_backtest(panel, frame[frame.columns[::-1]])
    with pytest.raises(DataError, match="in the panel's order"):
        run_backtest(panel, frame.set_index(panel.index + pd.Timedelta(days=1)))


@pytest.mark.parametrize("weights", [[["a"], ["b"], ["c"]], [[1.0], [1.0, 2.0], [1.0]], None])
def test_weights_that_are_no_numbers_are_refused(weights: object) -> None:
    panel = build_panel([[1.0], [2.0], [3.0]])
    with pytest.raises(DataError, match="weights"):
        run_backtest(panel, weights)  # type: ignore[arg-type]


def test_bars_out_of_order_make_no_panel(book: Book) -> None:
    panel, _ = book
    with pytest.raises(DataError, match="strictly increasing"):
        Panel(index=panel.index[::-1], symbols=panel.symbols, close=panel.close)


@pytest.mark.parametrize("option", [{}, {"lot_size": 1.0}])
@pytest.mark.parametrize("weight", [0.0, 0.5, np.nan])
@pytest.mark.parametrize("n_bars", [3, 10])
def test_a_few_bars_give_an_honest_report(n_bars: int, weight: float, option: dict[str, float]) -> None:
    close = 10.0 + np.arange(n_bars)[:, None] % 3
    result = run_backtest(build_panel(close), np.full((n_bars, 1), weight), replace(COSTLY, **option))
    assert result.n_trades == 0 or weight == 0.5
    assert all(value is None or np.isfinite(value) for value in result.metrics.values())
    if weight != 0.5:
        assert (result.equity == COSTLY.initial_cash).all()
        undefined = [result.metrics[name] for name in ("sharpe", "sortino", "calmar", "break_even_bps", "win_rate")]
        assert undefined == [None] * 5
    assert "inf" not in result._repr_html_()


def test_assets_without_any_price_are_never_traded() -> None:
    result = run_backtest(build_panel(np.full((10, 2), np.nan)), np.full((10, 2), 0.5), COSTLY)
    assert result.n_trades == 0
    assert (result.equity == COSTLY.initial_cash).all()


@pytest.mark.parametrize("price", [0.0, -1.0, np.inf])
def test_impossible_prices_are_refused_by_symbol(book: Book, price: float) -> None:
    panel, weights = book
    close = panel.close.copy()
    close[9, 1] = price
    with pytest.raises(DataError, match="`close` of S1 at bar 9"):
        run_backtest(panel.replace(close=close), weights)
    with pytest.raises(DataError, match="`open` of S1 at bar 9"):
        run_backtest(panel.replace(open=close), weights, replace(COSTLY, fill="open"))


def test_two_bars_are_too_few() -> None:
    with pytest.raises(DataError, match="at least 3 bars"):
        run_backtest(build_panel([[1.0], [2.0]]), [[1.0], [1.0]])


def test_filling_at_the_open_needs_opens() -> None:
    with pytest.raises(MissingDataError, match="no `open`"):
        run_backtest(build_panel([[1.0], [2.0], [3.0]]), np.ones((3, 1)), BacktestConfig(fill="open"))


def test_the_package_names_what_it_has() -> None:
    assert set(backtest.__all__) <= set(dir(backtest))
    with pytest.raises(AttributeError, match="it has BacktestConfig"):
        backtest.nothing
