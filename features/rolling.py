"""Rolling statistics that are joined from windows whose lengths are powers of two.

Hides the formulas, in terms of the states of windows that `features.join_program` puts together. Promises that nothing is
ever subtracted again, so nothing outside a window can reach its value, a huge value leaves no trace once it is out of the
window, a constant window has exactly no variance, the same bits come out wherever the series is cut and whatever is computed
together, and the work and the error grow with the logarithm of the window only.

Statistics of the same series that are asked for together share the windows and the sums that they have in common.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from features.fields import FloatArray, freeze
from features.join_program import (
    DIVIDE_BY,
    LIMIT,
    OFFSET,
    OVER_SPREAD,
    POSITION,
    PRODUCT,
    RATIO,
    ROOT,
    SINCE,
    STORE,
    SUBTRACT,
    SUM,
    TIMES,
    Builder,
    Layout,
    Program,
)

Asked = tuple[str, tuple[int | float, ...]]
"""A statistic's name, a key of `STATISTICS`, and its window; for `ewma` its halflife."""

EWMA_HALFLIVES = 6

MOST_SERIES = 16


def compute_windows(asked: Sequence[Asked], y: FloatArray, x: FloatArray | None = None) -> list[FloatArray]:
    """Compute statistics of the same series.

    Parameters
    ----------
    asked : sequence of (str, (int,))
        Statistics and their windows.
    y, x : ndarray of shape (n_bars, n_assets)
        Input; `x` is read by the statistics of two series only.

    Returns
    -------
    list of ndarray of shape (n_bars, n_assets)
        One each; NaN where a window has any NaN or reaches before the first bar, and where a value would be infinite.
    """

    out = np.empty((len(asked), *y.shape))
    series = [y] if x is None else [y, x]
    key = tuple(asked), len(series)
    run(_lay_out(*key), lambda strip: _program(*key, strip, len(y)), series, out)
    return list(out)


def run(
    layout: Layout,
    build: Callable[[int], Program],
    series: Sequence[FloatArray],
    out: FloatArray,
    *,
    part: tuple[int, int] = (0, 1),
) -> None:
    """Run a program over series, or over its share of the bars.

    Parameters
    ----------
    layout : Layout
    build : callable of strip -> Program
        Gives its program for strips of so many columns.
    series : sequence of ndarray of shape (n_bars, n_assets)
        What it reads, at most `MOST_SERIES`.
    out : ndarray of shape (n_results, n_bars, n_assets)
        Where it writes; C-contiguous.
    part : (int, int), default=(0, 1)
        Which of how many equal shares of the bars is written.
    """
    from features.joins import run_program

    _, n_bars, n_assets = out.shape
    flat = [freeze(values).reshape(-1) for values in series]
    padded = tuple(flat + flat[:1] * (MOST_SERIES - len(flat)))
    strip = layout.choose_strip(n_bars, n_assets)
    whole = n_assets // strip * strip
    for first, stop, width in ((0, whole, strip), (whole, n_assets, n_assets - whole)):
        if first < stop and n_bars:
            program = build(width)
            stretches = -(-n_bars // program.rows)
            begin, end = (min(n_bars, program.rows * (stretches * place // part[1])) for place in (part[0], part[0] + 1))
            from_bar = max(0, begin - program.rows * -(-program.reach // program.rows))
            if begin < end:
                run_program(
                    program.code,
                    program.weights,
                    program.rows,
                    program.kept,
                    width,
                    first,
                    stop,
                    from_bar,
                    begin,
                    end,
                    n_bars,
                    n_assets,
                    padded,
                    np.empty(program.size),
                    out.reshape(-1),
                )


@lru_cache(maxsize=512)
def _lay_out(asked: tuple[Asked, ...], n_series: int) -> Layout:
    builder = Builder()
    builder = builder.over(*(builder.load(place) for place in range(n_series)))
    for place, (name, (window,)) in enumerate(asked):
        statistic = STATISTICS[name]
        builder.write(STORE, [], [(statistic.finish(builder, statistic.bars(int(window))), 0)], number=place)
    return builder.lay_out()


@lru_cache(maxsize=512)
def _program(asked: tuple[Asked, ...], n_series: int, strip: int, n_bars: int) -> Program:
    return _lay_out(asked, n_series).place(strip, n_bars)


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """Describe a statistic of windows.

    Parameters
    ----------
    finish : callable of (program, bars) -> row
        Writes the operations that lead to it.
    bars : callable of the number argument -> int
        Bars in its window.
    """

    finish: Callable[[Builder, int], int]
    bars: Callable[[int], int] = int


def _mean(b: Builder, n: int) -> int:
    return b.emit(DIVIDE_BY, b.total(n), weight=n)


def _ewma(b: Builder, n: int) -> int:
    decay: float = 0.5 ** (1.0 / (n // EWMA_HALFLIVES))
    return b.emit(DIVIDE_BY, b.total(n, decay), weight=(1.0 - decay**n) / (1.0 - decay))


def _highest(b: Builder, n: int) -> int:
    return b.emit(TIMES, b.lowest(n, -1.0), weight=-1.0)


def _age(sign: float) -> Callable[[Builder, int], int]:
    return lambda b, n: b.emit(SINCE, b.place_of_lowest(n, sign), b.emit(POSITION), b.lowest(n, sign))


def _var(b: Builder, n: int) -> int:
    return b.emit(DIVIDE_BY, b.products(n), weight=n - 1)


def _std(b: Builder, n: int) -> int:
    return b.emit(ROOT, _var(b, n))


def _zscore(b: Builder, n: int) -> int:
    return b.emit(OVER_SPREAD, b.emit(SUBTRACT, b.series(0), b.mean(n)), _var(b, n))


def _skew(b: Builder, n: int) -> int:
    value = b.third(n)
    for _ in range(3):
        value = b.emit(OVER_SPREAD, value, b.products(n))
    return b.emit(TIMES, value, weight=n * math.sqrt(n - 1.0) / (n - 2.0))


def _kurt(b: Builder, n: int) -> int:
    ratio = b.emit(RATIO, b.emit(RATIO, b.fourth(n), b.products(n)), b.products(n))
    raw = b.emit(TIMES, ratio, weight=(n + 1.0) * n)
    return b.emit(TIMES, b.emit(OFFSET, raw, weight=-3.0 * (n - 1.0)), weight=(n - 1.0) / ((n - 2.0) * (n - 3.0)))


def _cov(b: Builder, n: int) -> int:
    return b.emit(DIVIDE_BY, b.products(n, 0, 1), weight=n - 1)


def _corr(b: Builder, n: int) -> int:
    ratio = b.emit(OVER_SPREAD, b.emit(OVER_SPREAD, b.products(n, 0, 1), b.products(n, 0, 0)), b.products(n, 1, 1))
    return b.emit(LIMIT, ratio, weight=1.0)


def _beta(b: Builder, n: int) -> int:
    return b.emit(RATIO, b.products(n, 0, 1), b.products(n, 1, 1))


def _resid(b: Builder, n: int) -> int:
    explained = b.emit(PRODUCT, _beta(b, n), b.emit(SUBTRACT, b.series(1), b.mean(n, 1)))
    return b.emit(SUBTRACT, b.emit(SUBTRACT, b.series(0), b.mean(n)), explained)


def _slope(b: Builder, n: int) -> int:
    return b.emit(DIVIDE_BY, b.tilt(n), weight=n * (n * n - 1.0) / 12.0)


def _rsquare(b: Builder, n: int) -> int:
    scaled = b.emit(DIVIDE_BY, b.tilt(n), weight=math.sqrt(n * (n * n - 1.0) / 12.0))
    correlation = b.emit(OVER_SPREAD, scaled, b.products(n))
    return b.emit(LIMIT, b.emit(PRODUCT, correlation, correlation), weight=1.0)


def _detrend(b: Builder, n: int) -> int:
    line = b.emit(DIVIDE_BY, b.tilt(n), weight=n * (n + 1.0) / 6.0)
    return b.emit(SUBTRACT, b.emit(SUBTRACT, b.series(0), b.mean(n)), line)


def _decay_linear(b: Builder, n: int) -> int:
    return b.emit(SUM, b.mean(n), b.emit(DIVIDE_BY, b.tilt(n), weight=n * (n + 1.0) / 2.0), weight=1.0)


STATISTICS: Mapping[str, Statistic] = MappingProxyType(
    {
        "ts_sum": Statistic(finish=Builder.total),
        "ts_count": Statistic(finish=Builder.total),
        "ts_mean": Statistic(finish=_mean),
        "ewma": Statistic(finish=_ewma, bars=lambda halflife: EWMA_HALFLIVES * halflife),
        "ts_prod": Statistic(finish=Builder.product),
        "ts_min": Statistic(finish=lambda b, n: b.lowest(n, 1.0)),
        "ts_max": Statistic(finish=_highest),
        "ts_argmin": Statistic(finish=_age(1.0)),
        "ts_argmax": Statistic(finish=_age(-1.0)),
        "ts_var": Statistic(finish=_var),
        "ts_std": Statistic(finish=_std),
        "ts_zscore": Statistic(finish=_zscore),
        "ts_skew": Statistic(finish=_skew),
        "ts_kurt": Statistic(finish=_kurt),
        "ts_cov": Statistic(finish=_cov),
        "ts_corr": Statistic(finish=_corr),
        "ts_beta": Statistic(finish=_beta),
        "ts_resid": Statistic(finish=_resid),
        "ts_slope": Statistic(finish=_slope),
        "ts_rsquare": Statistic(finish=_rsquare),
        "ts_detrend": Statistic(finish=_detrend),
        "decay_linear": Statistic(finish=_decay_linear),
    }
)
