"""The operators in terms of the machine's instructions.

Hides the formulas, which are those of `features.operators`, operation by operation. Promises nothing for what is not in
`COMPILED`: such an operator's own function is called instead, which is as right, and slower.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from features import stream_kernels as machine
from features.operators import NEGATE
from features.rolling import EWMA_HALFLIVES

if TYPE_CHECKING:
    from features.stream_program import Builder

Form = Callable[..., int]


def _join(operation: int) -> Form:
    return lambda b, *slots: b.emit(operation, *slots)


def _mean_of_row(b: Builder, x: int) -> int:
    return b.emit(machine.DIVIDE, b.crosssection(machine.TOTAL, x), b.crosssection(machine.COUNT, x))


def _demean(b: Builder, x: int) -> int:
    return b.emit(machine.SUBTRACT, x, _mean_of_row(b, x))


def _row_zscore(b: Builder, x: int) -> int:
    centred = _demean(b, x)
    squares = b.crosssection(machine.TOTAL, b.emit(machine.MULTIPLY, centred, centred))
    freedom = b.emit(machine.SUBTRACT, b.crosssection(machine.COUNT, x), b.number(1.0))
    spread = b.emit(machine.SQRT, b.emit(machine.DIVIDE, squares, b.emit(machine.MAX, freedom, b.number(1.0))))
    return b.emit(machine.DIVIDE, centred, b.emit(machine.WHERE, b.crosssection(machine.VARIES, x), spread, b.number(math.nan)))


def _scale(b: Builder, x: int) -> int:
    return b.emit(machine.DIVIDE, x, b.crosssection(machine.TOTAL, b.emit(machine.ABS, x)))


def _winsorize(b: Builder, x: int, limit: float) -> int:
    low = b.crosssection(machine.LEVEL, x, b.number(limit))
    high = b.crosssection(machine.LEVEL, x, b.number(1.0 - limit))
    return b.emit(machine.MIN, b.emit(machine.MAX, x, low), high)


def _neutralize(b: Builder, x: int, factor: int) -> int:
    x, factor = b.emit(machine.GIVEN, x, factor), b.emit(machine.GIVEN, factor, x)
    x, centred = _demean(b, x), _demean(b, factor)
    product = b.crosssection(machine.TOTAL, b.emit(machine.MULTIPLY, x, centred))
    square = b.crosssection(machine.TOTAL, b.emit(machine.MULTIPLY, centred, centred))
    usable = b.emit(machine.MULTIPLY, b.crosssection(machine.VARIES, factor), b.emit(machine.LESS, b.number(0.0), square))
    slope = b.emit(machine.WHERE, usable, b.emit(machine.DIVIDE, product, square), b.number(0.0))
    return b.emit(machine.SUBTRACT, x, b.emit(machine.MULTIPLY, slope, centred))


def _clip(b: Builder, x: int, low: float, high: float) -> int:
    return b.emit(machine.MIN, b.emit(machine.MAX, x, b.number(low)), b.number(high))


def _delta(b: Builder, x: int, lag: int) -> int:
    return b.emit(machine.SUBTRACT, x, b.lag(x, lag))


def _pct_change(b: Builder, x: int, lag: int) -> int:
    return b.emit(machine.SUBTRACT, b.emit(machine.DIVIDE, x, b.lag(x, lag)), b.number(1.0))


def _reduce(kind: int) -> Form:
    return lambda b, x, window: b.window(kind, window, x)[0]


def _mean(b: Builder, x: int, window: int) -> int:
    return b.emit(machine.DIVIDE, b.window(machine.SUM, window, x)[0], b.number(window))


def _var(b: Builder, x: int, window: int) -> int:
    return b.emit(machine.DIVIDE, b.window(machine.MOMENTS2, window, x)[1], b.number(window - 1))


def _std(b: Builder, x: int, window: int) -> int:
    return b.emit(machine.SQRT, _var(b, x, window))


def _zscore(b: Builder, x: int, window: int) -> int:
    mean = b.window(machine.MOMENTS2, window, x)[0]
    return b.emit(machine.DIVIDE, b.emit(machine.SUBTRACT, x, mean), b.emit(machine.SPREAD, _var(b, x, window)))


def _skew(b: Builder, x: int, window: int) -> int:
    _, squares, value, _ = b.window(machine.MOMENTS4, window, x)
    for _ in range(3):
        value = b.emit(machine.DIVIDE, value, b.emit(machine.SPREAD, squares))
    return b.emit(machine.MULTIPLY, b.number(window * math.sqrt(window - 1.0) / (window - 2.0)), value)


def _kurt(b: Builder, x: int, window: int) -> int:
    _, squares, _, fourth = b.window(machine.MOMENTS4, window, x)
    ratio = b.emit(machine.DIVIDE, b.emit(machine.DIVIDE, fourth, squares), squares)
    raw = b.emit(machine.MULTIPLY, b.number((window + 1.0) * window), ratio)
    excess = b.emit(machine.SUBTRACT, raw, b.number(3.0 * (window - 1.0)))
    return b.emit(machine.MULTIPLY, b.number((window - 1.0) / ((window - 2.0) * (window - 3.0))), excess)


def _cov(b: Builder, y: int, x: int, window: int) -> int:
    return b.emit(machine.DIVIDE, b.window(machine.COMOMENTS, window, y, x)[2], b.number(window - 1))


def _corr(b: Builder, y: int, x: int, window: int) -> int:
    _, _, xy, xx, yy = b.window(machine.COMOMENTS, window, y, x)
    ratio = b.emit(machine.DIVIDE, b.emit(machine.DIVIDE, xy, b.emit(machine.SPREAD, yy)), b.emit(machine.SPREAD, xx))
    return _clip(b, ratio, -1.0, 1.0)


def _beta(b: Builder, y: int, x: int, window: int) -> int:
    _, _, xy, xx, _ = b.window(machine.COMOMENTS, window, y, x)
    return b.emit(machine.DIVIDE, xy, xx)


def _resid(b: Builder, y: int, x: int, window: int) -> int:
    mean_y, mean_x, _, _, _ = b.window(machine.COMOMENTS, window, y, x)
    explained = b.emit(machine.MULTIPLY, _beta(b, y, x, window), b.emit(machine.SUBTRACT, x, mean_x))
    return b.emit(machine.SUBTRACT, b.emit(machine.SUBTRACT, y, mean_y), explained)


def _slope(b: Builder, x: int, window: int) -> int:
    tilt = b.window(machine.TREND, window, x)[1]
    return b.emit(machine.DIVIDE, tilt, b.number(window * (window * window - 1.0) / 12.0))


def _rsquare(b: Builder, x: int, window: int) -> int:
    tilt = b.window(machine.TREND, window, x)[1]
    spread = b.emit(machine.SPREAD, b.window(machine.MOMENTS2, window, x)[1])
    scaled = b.emit(machine.DIVIDE, tilt, b.number(math.sqrt(window * (window * window - 1.0) / 12.0)))
    correlation = b.emit(machine.DIVIDE, scaled, spread)
    return b.emit(machine.MIN, b.emit(machine.MULTIPLY, correlation, correlation), b.number(1.0))


def _detrend(b: Builder, x: int, window: int) -> int:
    mean, tilt = b.window(machine.TREND, window, x)
    line = b.emit(machine.DIVIDE, tilt, b.number(window * (window + 1.0) / 6.0))
    return b.emit(machine.SUBTRACT, b.emit(machine.SUBTRACT, x, mean), line)


def _bars_since(b: Builder, mask: int, window: int) -> int:
    ever = b.window(machine.HIGHEST, window, mask)[0]
    return b.emit(machine.WHERE, ever, b.scan(machine.AGE, mask, window, -1), b.number(math.nan))


def _decay_linear(b: Builder, x: int, window: int) -> int:
    mean, tilt = b.window(machine.TREND, window, x)
    return b.emit(machine.ADD, mean, b.emit(machine.DIVIDE, tilt, b.number(window * (window + 1.0) / 2.0)))


def _ewma(b: Builder, x: int, halflife: int) -> int:
    window = EWMA_HALFLIVES * halflife
    decay = 0.5 ** (1.0 / halflife)
    total = b.window(machine.SUM, window, x, decay=decay)[0]
    return b.emit(machine.DIVIDE, total, b.number((1.0 - decay**window) / (1.0 - decay)))


def _rsi(b: Builder, x: int, window: int) -> int:
    change = _delta(b, x, 1)
    up = b.window(machine.SUM, window, b.emit(machine.MAX, change, b.number(0.0)))[0]
    moved = b.window(machine.SUM, window, b.emit(machine.ABS, change))[0]
    return b.emit(machine.DIVIDE, b.emit(machine.MULTIPLY, b.number(100.0), up), moved)


def _atr(b: Builder, high: int, low: int, close: int, window: int) -> int:
    before = b.lag(close, 1)
    true_range = b.emit(machine.SUBTRACT, b.emit(machine.MAX, high, before), b.emit(machine.MIN, low, before))
    return _mean(b, true_range, window)


COMPILED: Mapping[str, Form] = MappingProxyType(
    {
        "+": _join(machine.ADD),
        "-": _join(machine.SUBTRACT),
        "*": _join(machine.MULTIPLY),
        "/": _join(machine.DIVIDE),
        NEGATE: _join(machine.NEGATE),
        "<": _join(machine.LESS),
        "<=": _join(machine.LESS_EQUAL),
        "==": _join(machine.EQUAL),
        "!=": _join(machine.DIFFERENT),
        "abs": _join(machine.ABS),
        "sqrt": _join(machine.SQRT),
        "sign": _join(machine.SIGN),
        "min": _join(machine.MIN),
        "max": _join(machine.MAX),
        "clip": _clip,
        "where": _join(machine.WHERE),
        "and": _join(machine.MULTIPLY),
        "or": _join(machine.MAX),
        "not": lambda b, mask: b.emit(machine.SUBTRACT, b.number(1.0), mask),
        "known": _join(machine.KNOWN),
        "coalesce": _join(machine.COALESCE),
        "rank": lambda b, x: b.crosssection(machine.RANK, x),
        "quantile": lambda b, x, n: b.crosssection(machine.BUCKET, x, b.number(n)),
        "cs_mean": _mean_of_row,
        "demean": _demean,
        "zscore": _row_zscore,
        "scale": _scale,
        "winsorize": _winsorize,
        "neutralize": _neutralize,
        "ffill": lambda b, x, lag: b.scan(machine.FILL, x, lag + 1),
        "delay": lambda b, x, lag: b.lag(x, lag),
        "delta": _delta,
        "pct_change": _pct_change,
        "ts_sum": _reduce(machine.SUM),
        "ts_count": _reduce(machine.SUM),
        "ts_prod": _reduce(machine.PRODUCT),
        "ts_min": _reduce(machine.LOWEST),
        "ts_max": _reduce(machine.HIGHEST),
        "ts_mean": _mean,
        "ts_var": _var,
        "ts_std": _std,
        "ts_mad": lambda b, x, window: b.scan(machine.DEVIATION, x, window),
        "ts_zscore": _zscore,
        "ts_skew": _skew,
        "ts_kurt": _kurt,
        "ts_median": lambda b, x, window: b.quantile(x, window, 0.5),
        "ts_quantile": lambda b, x, window, level: b.quantile(x, window, level),
        "ts_rank": lambda b, x, window: b.scan(machine.TIME_RANK, x, window),
        "ts_argmin": lambda b, x, window: b.scan(machine.AGE, x, window, 1),
        "ts_argmax": lambda b, x, window: b.scan(machine.AGE, x, window, -1),
        "ts_cov": _cov,
        "ts_corr": _corr,
        "ts_beta": _beta,
        "ts_resid": _resid,
        "ts_slope": _slope,
        "ts_rsquare": _rsquare,
        "ts_detrend": _detrend,
        "bars_since": _bars_since,
        "decay_linear": _decay_linear,
        "ewma": _ewma,
        "rsi": _rsi,
        "atr": _atr,
    }
)
