"""What each figure of a report means: one place for its label, its unit, its definition, and why it may be missing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Unit = Literal["fraction", "ratio", "bps", "multiple", "count", "bars", "currency"]


@dataclass(frozen=True, kw_only=True)
class Definition:
    """Hold what is to be known of a figure.

    Parameters
    ----------
    label : str
    unit : {"fraction", "ratio", "bps", "multiple", "count", "bars", "currency"}
        Fractions are shown in percent.
    text : str
        What it measures and how.
    undefined : str
        When it has no value.
    digits : int, default=2
        Shown of a ratio.
    """

    label: str
    unit: Unit
    text: str
    undefined: str = "it needs at least two bars"
    digits: int = 2

    def show(self, value: float | int | None) -> str:
        """Write a value in the unit of the figure; one that has none is n/a."""
        if value is None or not math.isfinite(value):
            return "n/a"
        if self.unit == "fraction":
            return f"{_round(100.0 * value, 2):,.2f}\N{NO-BREAK SPACE}%"
        if self.unit == "count":
            return f"{value:,.0f}"
        if self.unit in ("bars", "bps"):
            return f"{_round(value, 1):,.1f}\N{NO-BREAK SPACE}{self.unit}"
        return f"{_round(value, self.digits):,.{self.digits}f}{'x' if self.unit == 'multiple' else ''}"


def _round(value: float, digits: int) -> float:
    return round(value, digits) + 0.0  # adding zero takes the sign off it


_FLAT = "the account did not move"
_NO_BENCHMARK = "no benchmark was given, or it did not move"
_NO_SCORES = "no scores were given, or too few assets had one"
_NO_TRADES = "no list of trades: run with keep_positions=True and pass the panel"
_NO_WIN_OR_LOSS = "no trade was closed, none of them so, or there is no list of trades"

DEFINITIONS: dict[str, Definition] = {
    "total_return": Definition(
        label="Total return", unit="fraction", text="Compounded return of all bars after costs: the product of (1 + r), less 1."
    ),
    "cagr": Definition(
        label="Return a year (CAGR)",
        unit="fraction",
        text="The constant yearly return that compounds to the total return.",
        undefined="too few bars grew too much",
    ),
    "volatility": Definition(
        label="Volatility", unit="fraction", text="Standard deviation of the returns of a bar times the root of bars in a year."
    ),
    "sharpe": Definition(
        label="Sharpe ratio",
        unit="ratio",
        text="Mean return of a bar after costs over its standard deviation, times the root of bars in a year (Sharpe 1994). "
        "Cash earns nothing here, so returns count as excess over cash. It is an estimate with an error of about one over the "
        "root of the years, and it does not know how many strategies were tried before this one.",
        undefined=_FLAT,
    ),
    "gross_sharpe": Definition(
        label="Sharpe ratio before costs",
        unit="ratio",
        text="The same of returns with every cost added back.",
        undefined=_FLAT,
    ),
    "sortino": Definition(
        label="Sortino ratio",
        unit="ratio",
        text="As the Sharpe ratio, with the root mean square of the losses of all bars in place of the standard deviation "
        "(Sortino & Price 1994).",
        undefined="no bar lost",
    ),
    "calmar": Definition(
        label="Calmar ratio",
        unit="ratio",
        text="Return a year over the depth of the deepest drawdown, of all bars (Young 1991 takes 36 months).",
        undefined="there was no drawdown",
    ),
    "omega": Definition(
        label="Omega ratio",
        unit="ratio",
        text="Sum of the gains of all bars over the sum of their losses, with zero as the threshold of a bar "
        "(Keating & Shadwick 2002).",
        undefined="no bar lost",
    ),
    "max_drawdown": Definition(
        label="Deepest drawdown", unit="fraction", text="Largest fall of the account from a high it had reached before."
    ),
    "var_95": Definition(
        label="Value at risk, 95 %",
        unit="fraction",
        text="The return of a bar that 5 % of the bars fell short of: historical, of one bar.",
    ),
    "cvar_95": Definition(
        label="Expected shortfall, 95 %",
        unit="fraction",
        text="Mean return of the bars at or below the value at risk, also called CVaR (Rockafellar & Uryasev 2000).",
    ),
    "skew": Definition(
        label="Skewness",
        unit="ratio",
        text="Third standardised moment of the returns of a bar; negative when losses are the larger surprises.",
        undefined=_FLAT,
    ),
    "kurtosis": Definition(
        label="Kurtosis",
        unit="ratio",
        text="Fourth standardised moment of the returns of a bar; 3 for a normal distribution, more with fat tails.",
        undefined=_FLAT,
    ),
    "win_rate": Definition(
        label="Winning bars",
        unit="fraction",
        text="Share of positive returns among the bars that moved.",
        undefined=_FLAT,
    ),
    "exposure": Definition(
        label="Exposure, gross",
        unit="multiple",
        text="Mean value held, long and short added up, in multiples of the equity.",
    ),
    "net_exposure": Definition(
        label="Exposure, net", unit="multiple", text="Mean value held long less short, in multiples of the equity."
    ),
    "turnover": Definition(
        label="Turnover a year",
        unit="multiple",
        text="Value traded in a year, buys and sales both counted, in multiples of the equity.",
    ),
    "annual_cost": Definition(
        label="Costs a year",
        unit="fraction",
        text="What commission, slippage and borrowing took from the equity in a mean year.",
    ),
    "break_even_bps": Definition(
        label="Break-even cost",
        unit="bps",
        text="Cost per side of a trade, in hundredths of a percent of the traded value, at which the profit before costs is "
        "eaten. It must lie above what trading really costs.",
        undefined="nothing was traded",
    ),
    "capacity": Definition(
        label="Capacity",
        unit="currency",
        text="Capital at which market impact would eat half of the profit before costs, or orders meet the volume limit.",
        undefined="it was not estimated",
    ),
    "n_trades": Definition(label="Orders filled", unit="count", text="Orders filled, each asset and bar counted by itself."),
    "n_closed": Definition(
        label="Closed trades",
        unit="count",
        text="Parts of positions that were closed. While a position grows its entry price is the mean of what was paid; "
        "whatever reduces it closes that many shares at that mean.",
        undefined=_NO_TRADES,
    ),
    "n_open": Definition(
        label="Open positions", unit="count", text="Positions still held at the last bar.", undefined=_NO_TRADES
    ),
    "trade_win_rate": Definition(
        label="Winning trades",
        unit="fraction",
        text="Share of closed trades with a profit after costs.",
        undefined=_NO_WIN_OR_LOSS,
    ),
    "trade_profit_factor": Definition(
        label="Profit factor",
        unit="ratio",
        text="Sum of the profits of closed trades over the sum of their losses.",
        undefined=_NO_WIN_OR_LOSS,
    ),
    "expectancy": Definition(
        label="Expectancy",
        unit="currency",
        text="Mean profit of a closed trade after costs, in the currency of the prices.",
        undefined=_NO_WIN_OR_LOSS,
    ),
    "expectancy_return": Definition(
        label="Mean return of a trade",
        unit="fraction",
        text="Mean of profit over value at entry, closed trades.",
        undefined=_NO_WIN_OR_LOSS,
    ),
    "mean_win": Definition(
        label="Mean winning trade",
        unit="fraction",
        text="Mean return of the closed trades with a profit.",
        undefined=_NO_WIN_OR_LOSS,
    ),
    "mean_loss": Definition(
        label="Mean losing trade",
        unit="fraction",
        text="Mean return of the closed trades without a profit.",
        undefined=_NO_WIN_OR_LOSS,
    ),
    "mean_bars": Definition(
        label="Mean duration",
        unit="bars",
        text="Mean number of bars from when a position left zero to when a part of it was closed.",
        undefined=_NO_WIN_OR_LOSS,
    ),
    "median_bars": Definition(label="Median duration", unit="bars", text="Median of the same.", undefined=_NO_WIN_OR_LOSS),
    "longest_bars": Definition(label="Longest duration", unit="bars", text="Largest of the same.", undefined=_NO_WIN_OR_LOSS),
    "alpha": Definition(
        label="Alpha a year",
        unit="fraction",
        text="Yearly return that the benchmark does not explain: intercept of the least squares line of returns on those of "
        "the benchmark, times bars in a year (Jensen 1968).",
        undefined=_NO_BENCHMARK,
    ),
    "alpha_t": Definition(
        label="t of alpha",
        unit="ratio",
        text="Alpha over its standard error; 2 is wanted of a strategy that was the only trial, far more of the best of many.",
        undefined=_NO_BENCHMARK,
    ),
    "beta": Definition(
        label="Beta",
        unit="ratio",
        text="Slope of the same line: how much of a move of the benchmark the strategy takes part in.",
        undefined=_NO_BENCHMARK,
    ),
    "beta_t": Definition(label="t of beta", unit="ratio", text="Beta over its standard error.", undefined=_NO_BENCHMARK),
    "benchmark_correlation": Definition(
        label="Correlation", unit="ratio", text="Of the returns of a bar with those of the benchmark.", undefined=_NO_BENCHMARK
    ),
    "tracking_error": Definition(
        label="Tracking error",
        unit="fraction",
        text="Yearly standard deviation of the difference to the benchmark.",
        undefined=_NO_BENCHMARK,
    ),
    "information_ratio": Definition(
        label="Information ratio",
        unit="ratio",
        text="Mean difference to the benchmark over its standard deviation, annualised (Goodwin 1998).",
        undefined=_NO_BENCHMARK,
    ),
    "rank_ic": Definition(
        label="Rank IC",
        unit="ratio",
        text="Mean over bars of Spearman's correlation between the scores and the returns from the close after them to the "
        "next one, before costs. A few hundredths is much.",
        undefined=_NO_SCORES,
        digits=4,
    ),
    "rank_ic_t": Definition(
        label="t of rank IC", unit="ratio", text="The mean rank IC over its standard error.", undefined=_NO_SCORES
    ),
    "quantile_spread": Definition(
        label="Quantile spread",
        unit="bps",
        text="Mean return of a bar of the assets with the highest scores less that of the lowest, before costs.",
        undefined=_NO_SCORES,
    ),
    "quantile_spread_t": Definition(
        label="t of the spread", unit="ratio", text="The spread over its standard error.", undefined=_NO_SCORES
    ),
    "psr": Definition(
        label="Probabilistic Sharpe ratio",
        unit="fraction",
        text="Probability that the true Sharpe ratio is above zero, given length, skewness and kurtosis of the returns, had "
        "this been the only trial (Bailey & López de Prado 2012).",
        undefined=_FLAT,
    ),
    "dsr": Definition(
        label="Deflated Sharpe ratio",
        unit="fraction",
        text="Probability that the true Sharpe ratio is above what the best of as many trials without skill would be expected "
        "to show (Bailey & López de Prado 2014). The variance is that of the estimator when there is no skill.",
        undefined="the trials were not counted, or the account did not move",
    ),
    "noise_sharpe": Definition(
        label="What noise would show",
        unit="ratio",
        text="Sharpe ratio a year to be expected of the best of as many independent trials, if none had any skill.",
        undefined="the trials were not counted",
    ),
    "n_tried": Definition(
        label="Trials",
        unit="count",
        text="How many strategies were tried before this one was shown, itself included, as independent ones.",
        undefined="the trials were not counted",
    ),
    "n_obs": Definition(label="Bars", unit="count", text="Bars that the figures are of."),
}
"""The figures of a report by key."""

GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Return", ("total_return", "cagr", "volatility", "sharpe", "gross_sharpe", "sortino", "calmar", "omega", "win_rate")),
    ("Risk", ("max_drawdown", "var_95", "cvar_95", "skew", "kurtosis")),
    ("Evidence", ("n_obs", "n_tried", "psr", "dsr", "noise_sharpe")),
    ("Trading", ("exposure", "net_exposure", "turnover", "annual_cost", "break_even_bps", "capacity", "n_trades")),
    (
        "Trades",
        (
            "n_closed", "n_open", "trade_win_rate", "trade_profit_factor", "expectancy", "expectancy_return", "mean_win",
            "mean_loss", "mean_bars", "median_bars", "longest_bars",
        ),
    ),
    (
        "Against the benchmark",
        ("alpha", "alpha_t", "beta", "beta_t", "benchmark_correlation", "tracking_error", "information_ratio"),
    ),
    ("Foresight of the scores", ("rank_ic", "rank_ic_t", "quantile_spread", "quantile_spread_t")),
)  # fmt: skip
"""The figures of the page, in the order in which a reader meets them."""

CARDS = ("total_return", "cagr", "volatility", "sharpe", "max_drawdown", "calmar", "turnover", "break_even_bps")
"""The figures that a reader sees first."""
