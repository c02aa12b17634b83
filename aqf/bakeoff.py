"""Does remembering windows help? Encoders against each other and against no memory, walk-forward, with intervals.

Hides how a memory forecasts. Promises that a forecast for a window rests on windows whose outcome was known when it ended, that
no encoder learned from a window it is judged on, and that what could not be run is said to be not run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.bootstrap import draw_bootstrap_counts
from core.errors import ConfigurationError, DataError, MissingDataError
from core.market.panel import Panel
from features.analogue_field import encode_bars
from features.encoders import get_encoder
from features.encoders.base import WindowValues
from features.encoders.causal import CausalTS2VecEncoder
from features.encoders.registry import PRETRAINED
from features.fields import FloatArray
from features.labels import forward_returns
from features.nearest_windows import IntArray, find_analogues
from features.timeseries import ts_std
from features.windows import Windows, rolling_windows

ENCODERS = ("pca", "minirocket", "ts2vec", "ts2vec_causal")
NO_MEMORY = "no memory"
TARGETS = ("return", "volatility")
TRAINED_SHARE = 0.6
DELAY = 1
VOLATILITY_BARS = 21
CONFIDENCE = 0.95

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A figure with its interval.

    Parameters
    ----------
    value, low, high : float
        Mean over the dates of the test, and its 95 % interval.
    p_value : float
        Twice the share of the resamples on the other side of zero.
    """

    value: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """What one memory achieved.

    Parameters
    ----------
    name : str
        Encoder, or ``no memory``.
    not_run : str, optional
        Why there are no figures.
    trained_until : str, optional
        Last day that the encoder knew of.
    rank_ic, lift : mapping of str to Score
        By target: mean rank correlation, over the symbols of a date, of forecast and outcome; and by how much it is above that
        of no memory.
    """

    name: str
    not_run: str | None = None
    trained_until: str | None = None
    rank_ic: dict[str, Score] | None = None
    lift: dict[str, Score] | None = None


@dataclass(frozen=True, kw_only=True)
class BakeOff:
    """The result, and what it was measured on.

    Parameters
    ----------
    contestants : tuple of Contestant
        No memory first.
    first, last : str
        Days on which the first and last window of the test end.
    n_dates, n_windows : int
        Of the test.
    settings : mapping
        What was asked for.
    """

    contestants: tuple[Contestant, ...]
    first: str
    last: str
    n_dates: int
    n_windows: int
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "sentence": self.sentence}

    @property
    def sentence(self) -> str:
        """The verdict in plain words."""
        ran = [one for one in self.contestants if one.lift is not None]
        missing = [one.name for one in self.contestants if one.not_run is not None]
        more = f" Not run: {', '.join(missing)}." if missing else ""
        if not ran:
            return f"No memory was measured.{more}"
        n_comparisons = len(ran) * len(TARGETS)
        parts = []
        for target in TARGETS:
            sure = [(one.name, one.lift[target]) for one in ran if one.lift is not None]
            sure = [(name, score) for name, score in sure if score.p_value * n_comparisons <= 1.0 - CONFIDENCE]
            better = [name for name, score in sure if score.value > 0.0]
            worse = [name for name, score in sure if score.value < 0.0]
            said = f"helps with {', '.join(better)}" if better else "does not help"
            parts.append(f"for the {target} memory {said}" + (f" and hurts with {', '.join(worse)}" if worse else ""))
        return f"Against no memory, at 5 % corrected for {n_comparisons} comparisons: {'; '.join(parts)}.{more}"


def run_bakeoff(
    panel: Panel,
    *,
    encoders: Sequence[str] = ENCODERS,
    window: int = 128,
    stride: int = 5,
    k: int = 50,
    horizon: int = 5,
    n_bootstrap: int = 2_000,
    seed: int = 0,
    progress: Progress = lambda message, done, total: None,
) -> BakeOff:
    """Forecast what follows each window of the last two fifths by the past windows most like it.

    Parameters
    ----------
    panel : Panel
        The bars before the seal.
    encoders : sequence of str
        Names for `get_encoder`. One that does not come trained is fitted on the windows of the first three fifths.
    window, stride : int, default=128 and 5
        Bars of a window, and between the ends of two.
    k : int, default=50
        Neighbours of a forecast, which is the mean of what followed them.
    horizon : int, default=5
        Bars of the return to forecast. The volatility is that of the next 21 daily log returns.
    n_bootstrap : int, default=2000
        Resamples of the interval.
    seed : int, default=0
    progress : callable of (message, done, total), optional

    Returns
    -------
    BakeOff

    Raises
    ------
    DataError
        If no window, or fewer than two dates, are left to test on, or there are fewer than two symbols.
    ConfigurationError
        If there is no such encoder.

    Notes
    -----
    The test begins after the first three fifths, or after the end of the latest training of an encoder that comes trained. No
    memory forecasts the return by the mean past return of the symbol, and the volatility by the mean of those of the last 21
    bars and of the whole window: what anybody has without an encoder. Intervals are percentiles of the stationary bootstrap
    over dates, with blocks of a mean length of one window, because windows overlap; a lift is resampled as the difference on
    the same dates. Intervals are not corrected for looking at several memories; the verdict is, by Bonferroni.
    """
    if horizon < 1:
        raise DataError(f"`horizon` must be at least 1 bar, was {horizon}.")
    windows = rolling_windows(panel, window, stride)
    column = _columns(panel, windows)
    outcomes = _outcomes(panel, horizon)
    trained_bars = int(panel.n_bars * TRAINED_SHARE)
    train = windows.values[windows.end < trained_bars]
    reach = {"return": DELAY + horizon, "volatility": DELAY + VOLATILITY_BARS}
    total = 2 * len(encoders) + 1
    embedded: dict[str, _Memory | str] = {}
    start = pd.Timestamp(panel.index[trained_bars - 1]) if trained_bars else panel.index[0]
    for place, name in enumerate(encoders):
        progress(f"encoding with {name}", place, total)
        try:
            own = embedded[name] = _embed(name, panel, windows, column, train, panel.index[trained_bars - 1])
            start = max(start, own.trained_until)
        except (ConfigurationError, MissingDataError) as error:
            if name not in ENCODERS:
                raise
            embedded[name] = str(error)
    labels = {target: outcomes[target][windows.end, column] for target in TARGETS}
    known = np.isfinite(labels["return"]) & np.isfinite(labels["volatility"])
    tested = np.flatnonzero((windows.end_ts > start) & known)
    dates, n_each = np.unique(windows.end[tested], return_counts=True)
    dates = dates[n_each >= 2]
    tested = tested[np.isin(windows.end[tested], dates)]
    if len(dates) < 2:
        raise DataError(
            f"{len(dates)} dates are left to test on after {start:%Y-%m-%d}; a longer history, and at least two symbols with "
            f"windows of {window} bars, are needed."
        )
    plain = {"return": _mean_so_far(outcomes["return"], reach["return"]), "volatility": _past_volatility(panel, window)}
    daily: dict[str, dict[str, FloatArray]] = {}
    for place, name in enumerate((NO_MEMORY, *encoders)):
        memory = embedded.get(name)
        if isinstance(memory, str):
            continue
        progress(f"forecasting with {name}", len(encoders) + place, total)
        daily[name] = {}
        for target in TARGETS:
            forecast = (
                plain[target][windows.end[tested], column[tested]]
                if memory is None
                else _recall(memory, windows.end, labels[target], tested, k=k, reach=reach[target])
            )
            daily[name][target] = _daily_rank_ic(forecast, labels[target][tested], windows.end[tested])
    counts = np.concatenate(
        list(draw_bootstrap_counts(len(dates), n_bootstrap, max(1.0, min(window / stride, len(dates) / 2)), seed))
    )
    contestants = [Contestant(name=NO_MEMORY, rank_ic={target: _score(daily[NO_MEMORY][target], counts) for target in TARGETS})]
    for name in encoders:
        found = embedded[name]
        if isinstance(found, str):
            contestants.append(Contestant(name=name, not_run=found))
            continue
        contestants.append(
            Contestant(
                name=name,
                trained_until=f"{found.trained_until:%Y-%m-%d}",
                rank_ic={target: _score(daily[name][target], counts) for target in TARGETS},
                lift={target: _score(daily[name][target] - daily[NO_MEMORY][target], counts) for target in TARGETS},
            )
        )
    progress("done", total, total)
    return BakeOff(
        contestants=tuple(contestants),
        first=f"{panel.index[dates[0]]:%Y-%m-%d}",
        last=f"{panel.index[dates[-1]]:%Y-%m-%d}",
        n_dates=len(dates),
        n_windows=len(tested),
        settings={
            "dataset": panel.name,
            "window": window,
            "stride": stride,
            "k": k,
            "horizon": horizon,
            "volatility_bars": VOLATILITY_BARS,
            "n_bootstrap": n_bootstrap,
            "seed": seed,
        },
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Memory:
    vectors: npt.NDArray[np.generic]
    trained_until: pd.Timestamp


def _embed(name: str, panel: Panel, windows: Windows, column: IntArray, train: WindowValues, cut: pd.Timestamp) -> _Memory:
    encoder = get_encoder(name)
    if name not in PRETRAINED:
        return _Memory(vectors=encoder.fit(train).encode(windows), trained_until=cut)
    window = windows.values.shape[1]
    if encoder.window_shape[0] != window or encoder.trained_until is None:
        raise MissingDataError(f"{name} comes trained for windows of {encoder.window_shape[0]} bars, asked for {window}.")
    vectors = (
        encode_bars(panel, encoder)[windows.end, column]
        if isinstance(encoder, CausalTS2VecEncoder)
        else encoder.encode(windows)
    )
    return _Memory(vectors=vectors, trained_until=pd.Timestamp(encoder.trained_until))


def _columns(panel: Panel, windows: Windows) -> IntArray:
    place = {symbol: column for column, symbol in enumerate(panel.symbols)}
    return np.array([place[symbol] for symbol in windows.symbol], dtype=np.int64)


def _outcomes(panel: Panel, horizon: int) -> dict[str, FloatArray]:
    ahead = DELAY + VOLATILITY_BARS
    volatility = np.full(panel.shape, np.nan)
    volatility[:-ahead] = _volatility(panel, VOLATILITY_BARS)[ahead:]
    return {"return": forward_returns(panel, horizon, DELAY).values, "volatility": volatility}


def _past_volatility(panel: Panel, window: int) -> FloatArray:
    """Mean of the volatilities of the last 21 bars and of the whole window."""
    return (_volatility(panel, VOLATILITY_BARS) + _volatility(panel, window - 1)) / 2.0


def _volatility(panel: Panel, bars: int) -> FloatArray:
    close = np.where(panel.close > 0.0, panel.close, np.nan)
    return ts_std(np.diff(np.log(close), axis=0, prepend=np.nan), bars)


def _mean_so_far(labels: FloatArray, reach: int) -> FloatArray:
    """Mean of the labels of each symbol that had ended before each bar."""
    out = np.full(labels.shape, np.nan)
    known = pd.DataFrame(labels).expanding(min_periods=1).mean().to_numpy()
    out[reach + 1 :] = known[: -reach - 1]
    return out


def _recall(memory: _Memory, end: IntArray, labels: FloatArray, tested: IntArray, *, k: int, reach: int) -> FloatArray:
    neighbours, _ = find_analogues(memory.vectors, end, k=k, reach=reach, usable=np.isfinite(labels), queries=tested)
    forecast = np.full(len(tested), np.nan)
    enough = neighbours[:, -1] >= 0
    forecast[enough] = labels[neighbours[enough]].mean(axis=1)
    return forecast


def _daily_rank_ic(forecast: FloatArray, outcome: FloatArray, date: IntArray) -> FloatArray:
    """Rank correlation on each date; 0 where the forecasts do not differ or are not there, because then nothing is said."""
    table = pd.DataFrame({"date": date, "forecast": forecast, "outcome": outcome})
    whole = table.dropna()
    ranks = whole.groupby("date")[["forecast", "outcome"]].rank()
    centred = ranks - ranks.groupby(whole["date"]).transform("mean")
    products = pd.DataFrame(
        {
            "both": centred["forecast"] * centred["outcome"],
            "one": centred["forecast"] ** 2,
            "other": centred["outcome"] ** 2,
        }
    )
    sums = products.groupby(whole["date"]).sum()
    spread = (sums["one"] * sums["other"]) ** 0.5
    ic = pd.Series(sums["both"] / spread.replace(0.0, np.nan)).reindex(np.unique(date)).fillna(0.0)
    values: FloatArray = ic.to_numpy(dtype=np.float64)
    return values


def _score(daily: FloatArray, counts: FloatArray) -> Score:
    means = counts @ daily / len(daily)
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(means, (tail, 1.0 - tail))
    beyond = 1 + min(int((means <= 0.0).sum()), int((means >= 0.0).sum()))
    p_value = min(1.0, 2.0 * beyond / (1 + len(means)))
    return Score(value=float(daily.mean()), low=float(low), high=float(high), p_value=p_value)
