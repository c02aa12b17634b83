"""Technical indicators as formulas over the operators.

Promises that an indicator is nothing but a spelling: it is written out when an expression is parsed, so `bollinger(close,
20)` and ``ts_zscore(close, 20) / 2`` are one expression, with one hash, and an indicator is as causal as the operators.

Where textbooks smooth with an average that never forgets (Wilder's, or an exponential one), these use plain means, or
`ewma`, whose window ends: the value at a bar depends on a known number of bars. Windows of exponential averages are
half-lives; an n-bar exponential average of the textbooks has a half-life of about 0.35 n. What textbooks put on a scale of
0 to 100 is so here; everything else is a fraction.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from features.operators import Kind

_KINDS = {
    "window": Kind.WINDOW,
    "fast": Kind.WINDOW,
    "slow": Kind.WINDOW,
    "signal": Kind.WINDOW,
    "lag": Kind.LAG,
    "skip": Kind.LAG,
}


@dataclass(frozen=True, kw_only=True)
class Indicator:
    """Describe one indicator.

    Parameters
    ----------
    name : str
        As written in an expression.
    parameters : tuple of str
        Names that `body` uses; `window`, `fast`, `slow` and `signal` are windows, `lag` and `skip` are lags, others panels.
    doc : str
        One line: what it says, its range, and its source where it has one.
    body : str
        The formula.
    """

    name: str
    parameters: tuple[str, ...]
    doc: str
    body: str

    @property
    def signature(self) -> tuple[Kind, ...]:
        """What each argument must be."""
        return tuple(_KINDS.get(parameter, Kind.PANEL) for parameter in self.parameters)

    @property
    def usage(self) -> str:
        """How it is written, for instance ``bollinger(x, window)``."""
        return f"{self.name}({', '.join(self.parameters)})"

    @cached_property
    def tree(self) -> ast.expr:
        """The formula as Python's grammar sees it."""
        return ast.parse(self.body, mode="eval").body

    def size(self, sizes: Sequence[int]) -> int:
        """Count the nodes of the formula written out, before it is made canonical, for arguments of these sizes."""
        own, uses = self._counts
        return own + sum(uses.get(parameter, 0) * size for parameter, size in zip(self.parameters, sizes, strict=True))

    @cached_property
    def _counts(self) -> tuple[int, dict[str, int]]:
        own = 0
        uses: dict[str, int] = {}
        for part in ast.walk(self.tree):
            match part:
                case ast.Name(id=name) if name in self.parameters:
                    uses[name] = uses.get(name, 0) + 1
                case ast.BoolOp(values=values):
                    own += len(values) - 1
                case ast.BinOp() | ast.UnaryOp() | ast.Compare() | ast.Call() | ast.Constant():
                    own += 1
        return own, uses


_TYPICAL = "((high + low + close) / 3)"
_CHANGE = "delta(x, 1)"
_FLOW = f"{_TYPICAL} * volume"
_UP_MOVE = "where((delta(high, 1) > -delta(low, 1)) and (delta(high, 1) > 0), delta(high, 1), 0)"
_DOWN_MOVE = "where((-delta(low, 1) > delta(high, 1)) and (-delta(low, 1) > 0), -delta(low, 1), 0)"


def _build() -> dict[str, Indicator]:
    found: dict[str, Indicator] = {}

    def add(usage: str, body: str, doc: str) -> None:
        name, _, rest = usage.rstrip(")").partition("(")
        found[name] = Indicator(name=name, parameters=tuple(rest.split(", ")), doc=doc, body=body)

    add("roc(x, lag)", "pct_change(x, lag)", "rate of change over `lag` bars, a fraction")
    add("log_return(x, lag)", "log(x / delay(x, lag))", "logarithm of the change over `lag` bars")
    add("momentum(x, lag, skip)", "delay(x, skip) / delay(x, lag) - 1", "change from `lag` to `skip` bars ago, a fraction")
    add("distance(x, window)", "x / ts_mean(x, window) - 1", "distance from the mean of the window, a fraction of it")
    add(
        "macd(x, fast, slow, signal)",
        "(ewma(x, fast) - ewma(x, slow)) - ewma(ewma(x, fast) - ewma(x, slow), signal)",
        "moving average convergence divergence: the line less its signal, in the unit of x; half-lives (Appel 2005)",
    )
    add(
        "ppo(x, fast, slow)",
        "ewma(x, fast) / ewma(x, slow) - 1",
        "percentage price oscillator: MACD's line as a fraction of the slow average; half-lives",
    )
    add(
        "trix(x, window)",
        "pct_change(ewma(ewma(ewma(x, window), window), window), 1)",
        "one-bar change of the triple exponential average, a fraction; half-life (Hutson 1983)",
    )
    add("dema(x, window)", "2 * ewma(x, window) - ewma(ewma(x, window), window)", "double exponential average (Mulloy 1994)")
    add(
        "tsi(x, slow, fast)",
        f"100 * ewma(ewma({_CHANGE}, slow), fast) / ewma(ewma(abs({_CHANGE}), slow), fast)",
        "true strength index, -100..100: twice smoothed changes over twice smoothed absolute changes; half-lives (Blau 1991)",
    )
    add(
        "cmo(x, window)",
        f"100 * ts_sum({_CHANGE}, window) / ts_sum(abs({_CHANGE}), window)",
        "momentum oscillator, -100..100: rises less falls over their sum (Chande 1994)",
    )
    add(
        "efficiency(x, window)",
        f"abs(delta(x, window)) / ts_sum(abs({_CHANGE}), window)",
        "efficiency ratio, 0..1: distance covered over path walked (Kaufman 1995)",
    )
    add("up_share(x, window)", f"ts_count({_CHANGE} > 0, window) / window", "share of bars that rose, 0..1")
    add(
        "awesome(high, low, fast, slow)",
        "ts_mean((high + low) / 2, fast) - ts_mean((high + low) / 2, slow)",
        "awesome oscillator: mean of the bars' middles over `fast` less that over `slow` bars (Williams)",
    )

    add(
        "bollinger(x, window)",
        "ts_zscore(x, window) / 2",
        "place in the bands of two deviations, -1 lower, 1 upper",
    )
    add("bollinger_width(x, window)", "4 * ts_std(x, window) / ts_mean(x, window)", "width of the bands over their middle")
    add(
        "keltner(high, low, close, window)",
        "(close - ts_mean(close, window)) / (2 * atr(high, low, close, window))",
        "place in the channel of two mean true ranges around the mean, -1 lower, 1 upper (Keltner 1960)",
    )
    add(
        "stochastic(high, low, close, window)",
        "100 * (close - ts_min(low, window)) / (ts_max(high, window) - ts_min(low, window))",
        "%K, 0..100: place of the close between the lowest low and the highest high (Lane 1984)",
    )
    add(
        "williams_r(high, low, close, window)",
        "100 * (close - ts_max(high, window)) / (ts_max(high, window) - ts_min(low, window))",
        "%R, -100..0: distance of the close from the highest high (Williams 1973)",
    )
    add(
        "cci(high, low, close, window)",
        f"({_TYPICAL} - ts_mean({_TYPICAL}, window)) / (0.015 * ts_mad({_TYPICAL}, window))",
        "commodity channel index: typical price less its mean, over 0.015 mean deviations (Lambert 1980)",
    )
    add(
        "aroon(high, low, window)",
        "100 * (ts_argmin(low, window) - ts_argmax(high, window)) / window",
        "-100..100: bars since the lowest low less bars since the highest high, over the window (Chande 1995)",
    )
    add(
        "dmi(high, low, close, window)",
        f"100 * ts_mean({_UP_MOVE} - {_DOWN_MOVE}, window) / atr(high, low, close, window)",
        "directional movement: +DI less -DI, -100..100, with plain means (Wilder 1978)",
    )
    add(
        "adx(high, low, window)",
        f"100 * ts_mean(abs(ts_mean({_UP_MOVE} - {_DOWN_MOVE}, window)) / ts_mean({_UP_MOVE} + {_DOWN_MOVE}, window), window)",
        "directional index, 0..100: mean strength of a trend of either sign, with plain means (Wilder 1978)",
    )
    add(
        "balance_of_power(open, high, low, close)",
        "(close - open) / (high - low)",
        "-1..1: move within the bar over its range (Livshin 2001)",
    )

    add("vwma(x, volume, window)", "ts_sum(x * volume, window) / ts_sum(volume, window)", "mean of x weighted by volume")
    add("relative_volume(volume, window)", "volume / ts_mean(volume, window)", "volume over its mean in the window")
    add(
        "obv_flow(x, volume, window)",
        f"ts_sum(sign({_CHANGE}) * volume, window) / ts_sum(volume, window)",
        "change of on-balance volume over the window, -1..1 of the volume traded (Granville 1963)",
    )
    add(
        "mfi(high, low, close, volume, window)",
        f"100 * ts_sum(where(delta({_TYPICAL}, 1) > 0, {_FLOW}, 0), window)"
        f" / ts_sum(where(delta({_TYPICAL}, 1) != 0, {_FLOW}, 0), window)",
        "money flow index, 0..100: money traded on rises over that on rises and falls (Quong and Soudack 1989)",
    )
    add(
        "cmf(high, low, close, volume, window)",
        "ts_sum(where(high > low, (2 * close - high - low) / (high - low), 0) * volume, window) / ts_sum(volume, window)",
        "money flow, -1..1: volume weighted by where the close lies in the bar's range (Chaikin 1982)",
    )
    add(
        "illiquidity(x, dollar_volume, window)",
        "ts_mean(abs(pct_change(x, 1)) / dollar_volume, window)",
        "mean absolute change per money traded (Amihud 2002)",
    )

    add("volatility(x, window)", "ts_std(pct_change(x, 1), window)", "standard deviation of one-bar changes")
    add("natr(high, low, close, window)", "atr(high, low, close, window) / close", "mean true range over the close")
    add(
        "parkinson(high, low, window)",
        "sqrt(ts_mean(log(high / low) ** 2, window) / (4 * log(2)))",
        "volatility from the bars' ranges (Parkinson 1980)",
    )
    add(
        "garman_klass(open, high, low, close, window)",
        "sqrt(ts_mean(log(high / low) ** 2 / 2 - (2 * log(2) - 1) * log(close / open) ** 2, window))",
        "volatility from ranges and moves within the bars (Garman and Klass 1980)",
    )
    add(
        "rogers_satchell(open, high, low, close, window)",
        "sqrt(ts_mean(log(high / close) * log(high / open) + log(low / close) * log(low / open), window))",
        "volatility from ranges, whatever the drift (Rogers and Satchell 1991)",
    )
    add("drawdown(x, window)", "x / ts_max(x, window) - 1", "loss from the window's maximum, -1..0")
    add("runup(x, window)", "x / ts_min(x, window) - 1", "gain from the window's minimum, a fraction")
    add(
        "ulcer(x, window)",
        "sqrt(ts_mean((x / ts_max(x, window) - 1) ** 2, window))",
        "root of the mean squared drawdown (Martin 1989)",
    )
    add("sharpe(x, window)", "ts_mean(x, window) / ts_std(x, window)", "mean over standard deviation, per bar; x are returns")
    add(
        "sortino(x, window)",
        "ts_mean(x, window) / sqrt(ts_mean(min(x, 0) ** 2, window))",
        "mean over downside deviation from zero, per bar; x are returns (Sortino and Price 1994)",
    )
    add(
        "gain_loss(x, window)",
        "ts_sum(max(x, 0), window) / ts_sum(max(-x, 0), window)",
        "sum of gains over sum of losses: the omega ratio at zero (Keating and Shadwick 2002)",
    )
    add("autocorr(x, lag, window)", "ts_corr(x, delay(x, lag), window)", "correlation with the value `lag` bars before, -1..1")
    add(
        "variance_ratio(x, lag, window)",
        "ts_var(log(x / delay(x, lag)), window) / (lag * ts_var(log(x / delay(x, 1)), window))",
        "variance of `lag`-bar changes over `lag` times that of one-bar changes; below 1 reverts (Lo and MacKinlay 1988)",
    )
    return found


INDICATORS: Mapping[str, Indicator] = MappingProxyType(_build())
