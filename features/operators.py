"""The causal operators an expression may use.

Hides nothing: `OPERATORS` is the language. Promises that each operator's value in row ``t`` depends on rows ``<= t``
alone, at most `lookback` rows back.

One NaN rule for all:

- element by element, NaN in any argument gives NaN (`where` looks at the condition and the chosen branch only);
- a time-series window with any NaN inside, or one that reaches before the first bar, gives NaN;
- a cross-section leaves NaN out and gives NaN back there;
- what would be infinite or undefined (division by zero, logarithm of zero) is NaN; nothing is ever infinite.

Four operators exist to get around it: `known` is never NaN, `coalesce` and `ffill` fill NaN, `cs_mean` gives the bar's mean
to the symbols that are NaN too.

Units (`features.units`): what is added, compared or chosen between must be measured in the same; products and quotients
combine units; ranks, logarithms, correlations and the like have none.

Masks (results of comparisons, of `known`, and of `and`, `or`, `not` between masks) hold 1, 0 or NaN where unknown.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import numpy as np

from features import crosssection, timeseries
from features.fields import FloatArray
from features.rolling import EWMA_HALFLIVES, STATISTICS, compute_windows
from features.units import KEEP, LIKE, PLAIN, PRODUCT, QUOTIENT, RAISED, UnitRule

MAX_WINDOW = 2520


class Kind(StrEnum):
    """What an argument is."""

    PANEL = "panel"
    MASK = "mask"
    VALUE = "panel or number"
    NUMBER = "number"
    WINDOW = "window"
    LAG = "lag"


@dataclass(frozen=True, kw_only=True)
class Operator:
    """Describe one operator of the language.

    Parameters
    ----------
    name : str
        As written in an expression; infix operators have their sign as name.
    signature : tuple of Kind
        What each argument must be.
    doc : str
        One line: formula, and NaN policy where it adds to the common rule.
    function : callable
        Takes arrays of shape (n_bars, n_assets), floats and ints as the signature says; returns such an array.
    lookback : callable of the integer arguments -> int
        Bars of history that the operator needs beyond the current one.
    unit : UnitRule
        Which units the arguments may have, and which the result has.
    result : Kind, default=Kind.PANEL
        `PANEL` or `MASK`.
    commutative : bool, default=False
        Whether the first two arguments may be exchanged without changing a bit.
    idempotent : bool, default=False
        Whether chains of it may be regrouped, and repeated arguments dropped, without changing a bit.
    smallest : int, default=1
        Smallest window for which the value is defined.
    largest : int, default=2520
        Largest window.
    complaint : callable of the number arguments -> str or None, optional
        What is wrong with them.
    together : callable of (sequence of (name, numbers), *arrays) -> list of arrays, optional
        Computes several at once whose arrays are the same, cheaper than one by one, to the same bits: all those that have
        this very function.
    """

    name: str
    signature: tuple[Kind, ...]
    doc: str
    function: Callable[..., FloatArray]
    lookback: Callable[..., int]
    unit: UnitRule
    result: Kind = Kind.PANEL
    commutative: bool = False
    idempotent: bool = False
    smallest: int = 1
    largest: int = MAX_WINDOW
    complaint: Callable[..., str | None] | None = None
    together: Callable[..., list[FloatArray]] | None = None

    @property
    def usage(self) -> str:
        """How it is written, for instance ``ts_mean(panel, window)``."""
        if self.name == NEGATE:
            return "-panel"
        if not self.is_call:
            what = self.signature[0] if self.signature[0] is Kind.MASK else Kind.PANEL
            return f"{self.name} {what}" if len(self.signature) == 1 else f"{what} {self.name} {what}"
        return f"{self.name}({', '.join(kind.value for kind in self.signature)})"

    @property
    def is_call(self) -> bool:
        """Whether it is written as a call; otherwise it stands before or between its arguments."""
        return self.name.isidentifier() and not keyword.iskeyword(self.name)


NEGATE = "unary -"

SPELLINGS: Mapping[str, str] = MappingProxyType({"count": "ts_count"})
"""Other names that are accepted for an operator; the canonical form has the operator's own."""

_P, _M, _V, _N, _W, _L = Kind.PANEL, Kind.MASK, Kind.VALUE, Kind.NUMBER, Kind.WINDOW, Kind.LAG


def _none() -> int:
    return 0


def _span(window: int) -> int:
    return window - 1


def _whole(window: int) -> int:
    return window


def _compare(test: Callable[[Any, Any], Any]) -> Callable[..., FloatArray]:
    def compare(a: FloatArray, b: FloatArray) -> FloatArray:
        values: FloatArray = test(a, b).astype(np.float64)
        np.copyto(values, np.nan, where=np.isnan(a) | np.isnan(b))
        return values

    return compare


def _where(condition: FloatArray, a: FloatArray | float, b: FloatArray | float) -> FloatArray:
    chosen: FloatArray = np.where(condition == 1.0, a, b).astype(np.float64, copy=False)
    np.copyto(chosen, np.nan, where=np.isnan(condition))
    return chosen


def _sign(x: FloatArray) -> FloatArray:
    return np.sign(x) + 0.0


def _negate(x: FloatArray) -> FloatArray:
    return 0.0 - x


def _power(x: FloatArray, exponent: float) -> FloatArray:
    # Several times quicker than the logarithm and exponential behind the general power.
    if exponent == 0.5:
        return np.sqrt(x)
    if exponent == 3:
        return x * x * x
    return np.power(x, float(exponent))


def _known(x: FloatArray) -> FloatArray:
    return np.where(np.isnan(x), 0.0, 1.0)


def _coalesce(x: FloatArray, otherwise: FloatArray | float) -> FloatArray:
    return np.where(np.isnan(x), otherwise, x)


def _not(mask: FloatArray) -> FloatArray:
    return 1.0 - mask


def _bounds(low: float, high: float) -> str | None:
    return None if low <= high else f"the lower bound {low:g} is above the upper bound {high:g}"


def _level(level: float) -> str | None:
    return None if 0.0 <= level <= 1.0 else f"a quantile must be in 0..1, was {level:g}"


def _limit(limit: float) -> str | None:
    return None if 0.0 <= limit < 0.5 else f"the limit must be in 0..0.5 (0.5 excluded), was {limit:g}"


def _buckets(n: float) -> str | None:
    return None if n.is_integer() and 2 <= n <= 100 else f"the number of buckets must be a whole number in 2..100, was {n:g}"


def _build() -> dict[str, Operator]:
    found: dict[str, Operator] = {}

    def add(
        name: str,
        signature: tuple[Kind, ...],
        function: Callable[..., FloatArray],
        unit: UnitRule,
        doc: str,
        lookback: Callable[..., int] = _none,
        **more: Any,
    ) -> None:
        found[name] = Operator(
            name=name,
            signature=signature,
            function=function,
            unit=unit,
            doc=doc,
            lookback=lookback,
            **{"together": compute_windows if name in STATISTICS else None, **more},
        )

    add("+", (_V, _V), np.add, LIKE, "sum", commutative=True)
    add("-", (_V, _V), np.subtract, LIKE, "difference")
    add("*", (_V, _V), np.multiply, PRODUCT, "product", commutative=True)
    add("/", (_V, _V), np.divide, QUOTIENT, "quotient; NaN where the divisor is zero")
    add(NEGATE, (_V,), _negate, KEEP, "the negative")
    add("<", (_V, _V), _compare(np.less), LIKE, "mask: less than; unknown (NaN) where either is NaN", result=_M)
    add("<=", (_V, _V), _compare(np.less_equal), LIKE, "mask: at most; unknown (NaN) where either is NaN", result=_M)
    for sign, test, word in (("==", np.equal, "equal"), ("!=", np.not_equal, "different")):
        doc = f"mask: {word}; unknown (NaN) where either is NaN"
        add(sign, (_V, _V), _compare(test), LIKE, doc, result=_M, commutative=True)
    joined: dict[str, Any] = {"result": _M, "commutative": True, "idempotent": True}
    add("and", (_M, _M), np.multiply, PLAIN, "mask: both are true; unknown (NaN) where either is unknown", **joined)
    add("or", (_M, _M), np.maximum, PLAIN, "mask: one or both are true; unknown (NaN) where either is unknown", **joined)
    add("not", (_M,), _not, PLAIN, "mask: true where the mask is false; unknown (NaN) where it is unknown", result=_M)

    add("abs", (_V,), np.abs, KEEP, "absolute value")
    add("log", (_V,), np.log, PLAIN, "natural logarithm; NaN where x <= 0")
    add("exp", (_V,), np.exp, UnitRule(bare=True), "e ** x; NaN where that is too large for a number")
    add("tanh", (_V,), np.tanh, UnitRule(bare=True), "hyperbolic tangent: x squashed into -1..1")
    add("sqrt", (_V,), np.sqrt, UnitRule(powers=(0.5,)), "square root; NaN where x < 0")
    add("sign", (_V,), _sign, PLAIN, "-1, 0 or 1")
    add("power", (_V, _N), _power, RAISED, "x ** exponent; NaN where undefined, as (-1) ** 0.5")
    add(
        "signed_power",
        (_V, _N),
        lambda x, exponent: np.sign(x) * _power(np.abs(x), exponent),
        RAISED,
        "sign(x) * abs(x) ** exponent",
    )
    add("min", (_V, _V), np.minimum, LIKE, "the smaller of two", commutative=True, idempotent=True)
    add("max", (_V, _V), np.maximum, LIKE, "the larger of two", commutative=True, idempotent=True)
    add("clip", (_P, _N, _N), np.clip, KEEP, "x limited to low..high", complaint=_bounds)
    add("where", (_M, _V, _V), _where, UnitRule(alike=(1, 2)), "a where the mask is true, b where false; NaN where unknown")
    add("known", (_P,), _known, PLAIN, "mask: x is not NaN; itself never NaN", result=_M)
    add("coalesce", (_P, _V), _coalesce, LIKE, "x, or the second where x is NaN")

    add("rank", (_P,), crosssection.rank, PLAIN, "cross-section: rank in 0..1, ties averaged; 0.5 for a symbol that is alone")
    add("zscore", (_P,), crosssection.zscore, PLAIN, "cross-section: (x - mean) / std (ddof=1); NaN without spread")
    add("demean", (_P,), crosssection.demean, KEEP, "cross-section: x - mean")
    add("scale", (_P,), crosssection.scale, PLAIN, "cross-section: x / sum of abs(x); NaN where that is zero")
    add(
        "winsorize",
        (_P, _N),
        crosssection.winsorize,
        KEEP,
        "cross-section: clipped to the quantiles limit and 1 - limit",
        complaint=_limit,
    )

    add("cs_mean", (_P,), crosssection.cs_mean, KEEP, "cross-section: mean, the same for all symbols, those that are NaN too")
    add(
        "quantile",
        (_P, _N),
        crosssection.quantile,
        PLAIN,
        "cross-section: bucket floor(n * (r - 0.5) / m) in 0..n-1, r the average rank (1 lowest) among m symbols",
        complaint=_buckets,
    )
    add(
        "neutralize",
        (_P, _P),
        crosssection.neutralize,
        KEEP,
        "cross-section: residual of the regression of x on the factor with intercept; x - mean if the factor has no spread",
    )
    add(
        "group_neutralize",
        (_P, _P),
        crosssection.group_neutralize,
        KEEP,
        "cross-section: x - mean of the symbols whose group value is equal",
    )
    add(
        "group_rank",
        (_P, _P),
        crosssection.group_rank,
        PLAIN,
        "cross-section: rank in 0..1 among the symbols whose group value is equal, ties averaged; 0.5 for one that is alone",
    )

    add("delay", (_P, _L), timeseries.delay, KEEP, "the value `lag` bars ago", _whole)
    add(
        "ffill",
        (_P, _L),
        timeseries.ffill,
        KEEP,
        "the last value that is not NaN, at most `lag` bars old; NaN if there is none",
        _whole,
    )
    add("delta", (_P, _L), timeseries.delta, KEEP, "x - delay(x, lag)", _whole)
    add(
        "pct_change",
        (_P, _L),
        timeseries.pct_change,
        PLAIN,
        "x / delay(x, lag) - 1; NaN where the old value is zero",
        _whole,
    )
    add("ts_sum", (_P, _W), timeseries.ts_sum, KEEP, "sum of the window", _span)
    add(
        "ts_prod",
        (_P, _W),
        timeseries.ts_prod,
        RAISED,
        "product of the window; NaN where that is too large for a number",
        _span,
    )
    add("ts_mean", (_P, _W), timeseries.ts_mean, KEEP, "mean of the window", _span)
    add("ts_min", (_P, _W), timeseries.ts_min, KEEP, "minimum of the window", _span)
    add("ts_max", (_P, _W), timeseries.ts_max, KEEP, "maximum of the window", _span)
    add("ts_var", (_P, _W), timeseries.ts_var, UnitRule(powers=(2.0,)), "variance of the window (ddof=1)", _span, smallest=2)
    add("ts_std", (_P, _W), timeseries.ts_std, KEEP, "standard deviation of the window (ddof=1)", _span, smallest=2)
    add("ts_mad", (_P, _W), timeseries.ts_mad, KEEP, "mean absolute deviation from the window's mean", _span)
    add("ts_zscore", (_P, _W), timeseries.ts_zscore, PLAIN, "(x - ts_mean) / ts_std; NaN without spread", _span, smallest=2)
    add("ts_skew", (_P, _W), timeseries.ts_skew, PLAIN, "skewness, bias-corrected; NaN without spread", _span, smallest=3)
    add(
        "ts_kurt",
        (_P, _W),
        timeseries.ts_kurt,
        PLAIN,
        "excess kurtosis, bias-corrected; NaN without spread",
        _span,
        smallest=4,
    )
    ordered: dict[str, Any] = {"together": timeseries.compute_quantiles}
    add("ts_median", (_P, _W), timeseries.ts_median, KEEP, "median of the window", _span, **ordered)
    add(
        "ts_quantile",
        (_P, _W, _N),
        timeseries.ts_quantile,
        KEEP,
        "quantile of the window at a level in 0..1, linear between neighbours",
        _span,
        complaint=_level,
        **ordered,
    )
    add(
        "ts_rank",
        (_P, _W),
        timeseries.ts_rank,
        PLAIN,
        "rank of the current value in its window, 0..1, ties averaged",
        _span,
        smallest=2,
    )
    add("ts_argmin", (_P, _W), timeseries.ts_argmin, PLAIN, "bars since the window's minimum, the latest of equals", _span)
    add("ts_argmax", (_P, _W), timeseries.ts_argmax, PLAIN, "bars since the window's maximum, the latest of equals", _span)
    add("ts_count", (_M, _W), timeseries.ts_sum, PLAIN, "number of true bars in the window; NaN if any is unknown", _span)
    add(
        "bars_since",
        (_M, _W),
        timeseries.bars_since,
        PLAIN,
        "bars since the mask was last true; NaN if never in the window, or if any is unknown",
        _span,
    )
    add("ts_cov", (_P, _P, _W), timeseries.ts_cov, PRODUCT, "covariance (ddof=1)", _span, commutative=True, smallest=2)
    add(
        "ts_corr",
        (_P, _P, _W),
        timeseries.ts_corr,
        PLAIN,
        "correlation; NaN if either has no spread",
        _span,
        commutative=True,
        smallest=2,
    )
    add("ts_beta", (_P, _P, _W), timeseries.ts_beta, QUOTIENT, "slope of y on x; NaN if x has no spread", _span, smallest=2)
    add(
        "ts_resid",
        (_P, _P, _W),
        timeseries.ts_resid,
        KEEP,
        "last residual of the regression of y on x with intercept; NaN if x has no spread",
        _span,
        smallest=3,
    )
    add("ts_slope", (_P, _W), timeseries.ts_slope, KEEP, "least-squares slope against time, per bar", _span, smallest=2)
    add(
        "ts_rsquare",
        (_P, _W),
        timeseries.ts_rsquare,
        PLAIN,
        "R squared of the regression against time, in 0..1; NaN without spread",
        _span,
        smallest=3,
    )
    add(
        "ts_detrend",
        (_P, _W),
        timeseries.ts_detrend,
        KEEP,
        "last residual of the regression against time with intercept",
        _span,
        smallest=3,
    )
    add(
        "decay_linear",
        (_P, _W),
        timeseries.decay_linear,
        KEEP,
        "mean with weights window, ..., 1 from the current bar back",
        _span,
    )
    add(
        "ewma",
        (_P, _W),
        timeseries.ewma,
        KEEP,
        f"mean with weights 0.5 ** (age / halflife) over {EWMA_HALFLIVES} halflives",
        lambda halflife: EWMA_HALFLIVES * halflife - 1,
        largest=MAX_WINDOW // EWMA_HALFLIVES,
    )
    add(
        "rsi",
        (_P, _W),
        timeseries.rsi,
        PLAIN,
        "100 * sum of rises / sum of absolute changes over the window (Cutler's, plain sums); NaN without change",
        _whole,
    )
    add(
        "atr",
        (_P, _P, _P, _W),
        timeseries.atr,
        UnitRule(alike=(0, 1, 2)),
        "mean true range of (high, low, close) over the window",
        _whole,
    )
    return found


OPERATORS: Mapping[str, Operator] = MappingProxyType(_build())
