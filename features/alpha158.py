"""Qlib's 158 bar features, written in our language.

Hides how the list is put together. Promises the names, the order and the meaning of `Alpha158` in pyqlib 0.9.7 with its
default configuration [1]_: nine shapes of the bar, four prices over the close, and 29 statistics over 5, 10, 20, 30 and 60
bars. Wherever one of ours has a value it is qlib's to 1e-4 of itself (qlib keeps float32); a table of qlib's own numbers is in
the tests, made by ``scripts/export_alpha158.py``.

Qlib claims no direction for any of them: they are inputs for a model. Here a high value means nothing by itself.

Where we deviate, and why:

- *Full windows.* Qlib's windows start with whatever bars there are (``min_periods=1``) and skip what is missing, so that the
  same number means another thing at a listing or after a gap. Ours are NaN until the window is full and free of gaps. For the
  same reason qlib counts the first bar, which has no bar before it, as neither up nor down (CNTP, CNTN, CNTD) and leaves it out
  of the sums; ours begin a bar later.
- *Little spread.* Qlib blanks RSQR, CORR and CORD where a standard deviation is within 2e-5 of zero, in units of price or of
  logarithms, to hide what its running sums leave behind. Our windows are not run by subtraction, so NaN means no spread at all.
- *Ties.* IMAX, IMIN and IMXD count from the oldest of equal extremes in qlib, from the latest here: `ts_argmax` has one rule.
- *Division by zero* is NaN here and infinite in qlib, in CORD after a bar without volume, and in every price of zero.
- *Average price.* ``$vwap`` is a column of qlib's data. Ours is the column `vwap` of the panel if it has one, else the mean of
  high, low and close.

References
----------
.. [1] Yang, X., Liu, W., Zhou, D., Bian, J. and Liu, T.-Y. (2020). Qlib: an AI-oriented quantitative investment platform.
   arXiv:2009.11189; and ``qlib/contrib/data/loader.py``, class ``Alpha158DL``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

WINDOWS = (5, 10, 20, 30, 60)
SOURCE = "Yang, Liu, Zhou, Bian and Liu 2020, Qlib Alpha158"


@dataclass(frozen=True, kw_only=True)
class QlibFeature:
    """Hold one feature of qlib.

    Parameters
    ----------
    name : str
        Qlib's name.
    expression : str
        In our language.
    meaning : str
        What it measures, as a noun phrase.
    """

    name: str
    expression: str
    meaning: str


_Row = tuple[str, str, str]

_TRADED_MOVE = "abs(pct_change(close, 1)) * volume"
_RANGE = "(high - low + 1e-12)"

_BAR: tuple[_Row, ...] = (
    ("KMID", "(close - open) / open", "the gain from open to close"),
    ("KLEN", "(high - low) / open", "the range of the bar over its open"),
    ("KMID2", f"(close - open) / {_RANGE}", "the gain from open to close as a share of the range"),
    ("KUP", "(high - max(open, close)) / open", "the upper shadow over the open"),
    ("KUP2", f"(high - max(open, close)) / {_RANGE}", "the upper shadow as a share of the range"),
    ("KLOW", "(min(open, close) - low) / open", "the lower shadow over the open"),
    ("KLOW2", f"(min(open, close) - low) / {_RANGE}", "the lower shadow as a share of the range"),
    ("KSFT", "(2 * close - high - low) / open", "how far the close lies above the middle of the bar, over the open"),
    ("KSFT2", f"(2 * close - high - low) / {_RANGE}", "how far the close lies above the middle of the bar, in ranges"),
    ("OPEN0", "open / close", "the open over the close"),
    ("HIGH0", "high / close", "the high over the close"),
    ("LOW0", "low / close", "the low over the close"),
    ("VWAP0", "vwap / close", "the average price over the close"),
)


def _sums(prefix: str, column: str) -> tuple[_Row, ...]:
    """Rises, falls and their difference, as shares of all movement."""
    change, what = f"delta({column}, 1)", f"the {column}"
    total = f"(ts_sum(abs({change}), N) + 1e-12)"
    up, down = f"ts_sum(max({change}, 0), N)", f"ts_sum(max(-{change}, 0), N)"
    return (
        (f"{prefix}P", f"{up} / {total}", f"the rises of {what} as a share of its movement over N bars"),
        (f"{prefix}N", f"{down} / {total}", f"the falls of {what} as a share of its movement over N bars"),
        (f"{prefix}D", f"({up} - {down}) / {total}", f"rises less falls of {what} as a share of its movement over N bars"),
    )


_ROLLING: tuple[_Row, ...] = (
    ("ROC", "delay(close, N) / close", "the close N bars ago over the close"),
    ("MA", "ts_mean(close, N) / close", "the mean close of N bars over the close"),
    ("STD", "ts_std(close, N) / close", "the standard deviation of N closes over the close"),
    ("BETA", "ts_slope(close, N) / close", "the slope of the line through N closes, over the close"),
    ("RSQR", "ts_rsquare(close, N)", "how straight the line through N closes is"),
    ("RESI", "ts_detrend(close, N) / close", "how far the close lies above the line through N closes"),
    ("MAX", "ts_max(high, N) / close", "the highest price of N bars over the close"),
    ("MIN", "ts_min(low, N) / close", "the lowest price of N bars over the close"),
    ("QTLU", "ts_quantile(close, N, 0.8) / close", "the 80 % quantile of N closes over the close"),
    ("QTLD", "ts_quantile(close, N, 0.2) / close", "the 20 % quantile of N closes over the close"),
    # Qlib's rank is the place from 1 to N, divided by N; ours goes from 0 to 1.
    ("RANK", "ts_rank(close, N) * (1 - 1 / N) + 1 / N", "the rank of the close among N closes"),
    (
        "RSV",
        "(close - ts_min(low, N)) / (ts_max(high, N) - ts_min(low, N) + 1e-12)",
        "the place of the close between the lowest and the highest price of N bars",
    ),
    # Qlib counts the place in the window from its oldest bar, 1 to N; ours counts the bars since.
    ("IMAX", "1 - ts_argmax(high, N) / N", "how recent the highest price of N bars is"),
    ("IMIN", "1 - ts_argmin(low, N) / N", "how recent the lowest price of N bars is"),
    (
        "IMXD",
        "(ts_argmin(low, N) - ts_argmax(high, N)) / N",
        "how much later than the lowest price of N bars the highest came",
    ),
    ("CORR", "ts_corr(close, log(volume + 1), N)", "the correlation of close and log volume over N bars"),
    (
        "CORD",
        "ts_corr(close / delay(close, 1), log(volume / delay(volume, 1) + 1), N)",
        "the correlation of the changes of close and volume over N bars",
    ),
    ("CNTP", "ts_count(close > delay(close, 1), N) / N", "the share of N bars that rose"),
    ("CNTN", "ts_count(close < delay(close, 1), N) / N", "the share of N bars that fell"),
    (
        "CNTD",
        "ts_count(close > delay(close, 1), N) / N - ts_count(close < delay(close, 1), N) / N",
        "the share of N bars that rose less the share that fell",
    ),
    *_sums("SUM", "close"),
    ("VMA", "ts_mean(volume, N) / (volume + 1e-12)", "the mean volume of N bars over the volume"),
    ("VSTD", "ts_std(volume, N) / (volume + 1e-12)", "the standard deviation of N volumes over the volume"),
    (
        "WVMA",
        f"ts_std({_TRADED_MOVE}, N) / (ts_mean({_TRADED_MOVE}, N) + 1e-12)",
        "the unsteadiness over N bars of price moves weighted by volume",
    ),
    *_sums("VSUM", "volume"),
)


def _features() -> Iterator[QlibFeature]:
    for name, expression, meaning in _BAR:
        yield QlibFeature(name=name, expression=expression, meaning=meaning)
    for name, expression, meaning in _ROLLING:
        for window in WINDOWS:
            yield QlibFeature(
                name=f"{name}{window}",
                expression=expression.replace("N", str(window)),
                meaning=meaning.replace("N ", f"{window} "),
            )


FEATURES: tuple[QlibFeature, ...] = tuple(_features())

ALPHA158: Mapping[str, str] = MappingProxyType({feature.name: feature.expression for feature in FEATURES})
"""Qlib's name -> expression, in qlib's order."""
