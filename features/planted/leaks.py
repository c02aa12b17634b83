"""Features that look ahead, each in a way that has cost somebody money."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.cluster.vq import kmeans
from scipy.ndimage import gaussian_filter1d
from scipy.signal import butter, filtfilt, savgol_filter
from sklearn.preprocessing import StandardScaler

from core.market.panel import Panel
from features.fields import FloatArray
from features.labels import forward_returns, triple_barrier
from features.planted.example import Example, Function, describe, describe_factory
from features.point_in_time import Events, join_events

_NEW_YORK = "America/New_York"


def _close(panel: Panel) -> pd.DataFrame:
    return panel.frame().ffill()


def _returns(panel: Panel) -> pd.DataFrame:
    return panel.frame().pct_change(fill_method=None)


def _eps(events: Events) -> pd.DataFrame:
    return events.of_kind("earnings").table


def _join(panel: Panel, table: pd.DataFrame) -> FloatArray:
    return join_events(panel, Events(table=table), value="eps")


def centred_window(panel: Panel) -> npt.ArrayLike:
    """The mean of a window takes in bars on both sides."""
    return panel.frame().rolling(11, center=True).mean()


def full_sample_zscore(panel: Panel) -> npt.ArrayLike:
    """Mean and spread are those of the whole sample."""
    return (panel.frame() - panel.frame().mean()) / panel.frame().std()


def full_sample_minmax(panel: Panel) -> npt.ArrayLike:
    """The range for scaling is that of the whole sample."""
    close = panel.frame()
    return (close - close.min()) / (close.max() - close.min())


def full_sample_scaler(panel: Panel) -> npt.ArrayLike:
    """A scaler of scikit-learn is fitted before the data are split."""
    return StandardScaler().fit_transform(_returns(panel).fillna(0.0))  # type: ignore[no-any-return]


def full_sample_quantile_bins(panel: Panel) -> npt.ArrayLike:
    """The edges of the bins are quantiles of the whole sample."""
    returns = _returns(panel)
    return sum((returns > returns.quantile(q)).astype(float) for q in (0.2, 0.4, 0.6, 0.8))


def full_sample_winsorising(panel: Panel) -> npt.ArrayLike:
    """Outliers are clipped at quantiles that later outliers helped to set."""
    returns = _returns(panel)
    return returns.clip(returns.quantile(0.05), returns.quantile(0.95), axis=1)


def full_sample_volatility(panel: Panel) -> npt.ArrayLike:
    """Returns are divided by the volatility of the whole sample."""
    return _returns(panel) / _returns(panel).std()


def full_sample_median_regime(panel: Panel) -> npt.ArrayLike:
    """Calm and wild are told apart by the median of all years."""
    volatility = _returns(panel).rolling(20, min_periods=10).std()
    return (volatility > volatility.median()).astype(float)


def rank_over_all_time(panel: Panel) -> npt.ArrayLike:
    """A price is ranked among past and future ones."""
    return panel.frame().rank(pct=True)


def whole_sample_pca(panel: Panel) -> npt.ArrayLike:
    """The loadings of the first component are fitted on all returns."""
    returns = _returns(panel).fillna(0.0).to_numpy()
    loadings = np.linalg.eigh(returns.T @ returns)[1][:, -1]
    score = returns @ (loadings * np.sign(loadings.sum()))
    return np.repeat(score[:, None], panel.n_assets, axis=1)


def whole_sample_beta(panel: Panel) -> npt.ArrayLike:
    """The residual to the market uses a beta of the whole sample."""
    returns = _returns(panel).fillna(0.0)
    market = returns.mean(axis=1)
    beta = returns.mul(market, axis=0).mean() / max((market**2).mean(), 1e-300)
    return returns - np.outer(market, beta)


def whole_sample_trend(panel: Panel) -> npt.ArrayLike:
    """The trend that is taken away was drawn through the future."""
    close = _close(panel).bfill().fillna(1.0)
    time = np.arange(len(close))
    return close.apply(lambda column: column - np.polyval(np.polyfit(time, column, 1), time)) if len(close) > 2 else close


def whole_sample_kmeans(panel: Panel) -> npt.ArrayLike:
    """Regimes are clusters of past and future days."""
    days = _returns(panel).abs().mean(axis=1).fillna(0.0).to_numpy()
    centres = kmeans(days, np.quantile(days, [0.2, 0.9]))[0]
    return np.repeat(np.abs(days[:, None] - centres).min(axis=1, keepdims=True), panel.n_assets, axis=1)


def seasonal_mean_of_all_years(panel: Panel) -> npt.ArrayLike:
    """What Mondays bring is averaged over Mondays to come."""
    return _returns(panel).groupby(panel.index.day_of_week).transform("mean")


def best_lag_of_the_sample(panel: Panel) -> npt.ArrayLike:
    """The look-back period is the one that worked best over the whole sample."""
    close, ahead = _close(panel), _returns(panel).shift(-1)
    scores = {lag: float((close.pct_change(lag, fill_method=None) * ahead).sum().sum()) for lag in (2, 5, 10, 20, 40)}
    quality = pd.Series(scores)
    return sum(close.pct_change(lag, fill_method=None) * quality[lag] for lag in scores)


def backfilled_gaps(panel: Panel) -> npt.ArrayLike:
    """A gap is filled with the next price."""
    return panel.frame().bfill()


def backfilled_warm_up(panel: Panel) -> npt.ArrayLike:
    """The first values of a moving average are filled from the first that exists."""
    return _close(panel).rolling(20).mean().bfill()


def interpolated_gaps(panel: Panel) -> npt.ArrayLike:
    """A gap is bridged by a line to the next price."""
    return panel.frame().interpolate(limit_area="inside")


def long_table_filled_across_symbols(panel: Panel) -> npt.ArrayLike:
    """Forward fill over stacked symbols carries the end of one into the beginning of the next."""
    stacked = pd.Series(panel.close.T.ravel()).ffill()
    return stacked.to_numpy().reshape(panel.n_assets, panel.n_bars).T


def long_table_rolled_across_symbols(panel: Panel) -> npt.ArrayLike:
    """A rolling mean over stacked symbols begins each with the end of the one before."""
    stacked = pd.Series(_close(panel).to_numpy().T.ravel()).rolling(20, min_periods=10).mean()
    return stacked.to_numpy().reshape(panel.n_assets, panel.n_bars).T


def shifted_back(panel: Panel) -> npt.ArrayLike:
    """A negative shift brings tomorrow's price."""
    return panel.frame().shift(-1)


def shifted_back_and_filled(panel: Panel) -> npt.ArrayLike:
    """The last row, which would give the negative shift away, is filled."""
    return panel.frame().shift(-1).ffill()


def sliced_the_wrong_way(panel: Panel) -> npt.ArrayLike:
    """Slices of an array are paired one bar too early."""
    out = np.full(panel.shape, np.nan)
    out[:-1] = panel.close[1:] / panel.close[:-1] - 1.0
    return out


def rolled_around(panel: Panel) -> npt.ArrayLike:
    """The first rows of a rolled array are its last."""
    return np.roll(panel.close, 3, axis=0)


def difference_to_the_next_bar(panel: Panel) -> npt.ArrayLike:
    """A further column is differenced forward."""
    return panel.frame("mood").diff(-1)


def next_volume(panel: Panel) -> npt.ArrayLike:
    """The volume of the next bar, with zero at the end."""
    return panel.frame("volume").shift(-1).fillna(0.0)


def whether_the_next_bar_is_missing(panel: Panel) -> npt.ArrayLike:
    """Only the pattern of missing bars is read, not a price."""
    return panel.frame().shift(-1).isna().astype(float)


def savitzky_golay(panel: Panel) -> npt.ArrayLike:
    """The smoothing polynomial is fitted around each bar."""
    close = _close(panel).fillna(1.0)
    return savgol_filter(close, 11, 2, axis=0) if len(close) >= 11 else close  # type: ignore[no-any-return]


def zero_phase_filter(panel: Panel) -> npt.ArrayLike:
    """The filter runs forward, then backward, so that it has no delay."""
    close = _close(panel).fillna(1.0)
    return filtfilt(*butter(2, 0.1), close, axis=0) if len(close) > 9 else close  # type: ignore[no-any-return]


def gaussian_smoothing(panel: Panel) -> npt.ArrayLike:
    """The Gaussian kernel is symmetric."""
    return gaussian_filter1d(_close(panel).fillna(1.0), 3.0, axis=0)  # type: ignore[no-any-return]


def low_pass_by_fourier(panel: Panel) -> npt.ArrayLike:
    """Frequencies are those of the whole sample."""
    waves = np.fft.rfft(_close(panel).fillna(1.0), axis=0)
    waves[max(1, len(waves) // 10) :] = 0.0
    return np.fft.irfft(waves, n=panel.n_bars, axis=0)


def two_sided_smoothing(panel: Panel) -> npt.ArrayLike:
    """A moving average runs from the end to the beginning."""
    return _close(panel).iloc[::-1].ewm(halflife=5).mean().iloc[::-1]


def rolling_backwards(panel: Panel) -> npt.ArrayLike:
    """The window rolls over reversed bars."""
    return panel.frame()[::-1].rolling(10, min_periods=5).mean()[::-1]


def lowest_price_to_come(panel: Panel) -> npt.ArrayLike:
    """The cumulative minimum starts at the end."""
    return panel.frame()[::-1].cummin()[::-1]


def bars_to_the_high(panel: Panel) -> npt.ArrayLike:
    """The distance is to the high of the whole sample."""
    high = np.nan_to_num(panel.close, nan=-1.0).argmax(axis=0)
    distance: FloatArray = np.arange(panel.n_bars, dtype=np.float64)[:, None] - high[None, :]
    return distance


def month_end_on_every_day(panel: Panel) -> npt.ArrayLike:
    """The close of the month is known on its first day."""
    return panel.frame().groupby([panel.index.year, panel.index.month]).transform("last")


def week_end_by_resampling(panel: Panel) -> npt.ArrayLike:
    """Weekly bars are spread over their days from the end."""
    return panel.frame().resample("W").last().reindex(panel.index, method="bfill")


def mean_of_the_quarter(panel: Panel) -> npt.ArrayLike:
    """The mean of the quarter is known while it runs."""
    return panel.frame().groupby([panel.index.year, panel.index.quarter]).transform("mean")


def next_close_on_month_ends(panel: Panel) -> npt.ArrayLike:
    """It looks ahead on the last bar of each month only."""
    ends = np.append(panel.index.month[1:] != panel.index.month[:-1], False)
    return np.where(ends[:, None], panel.frame().shift(-1), panel.close)


def high_of_the_day_at_every_hour(panel: Panel) -> npt.ArrayLike:
    """The high of the day is stamped on its first hour."""
    return panel.frame("high").groupby(panel.index.tz_convert(_NEW_YORK).date).transform("max")


def rest_of_the_day(panel: Panel) -> npt.ArrayLike:
    """The return to the close of the day is known at every hour."""
    return panel.frame().groupby(panel.index.tz_convert(_NEW_YORK).date).transform("last") / panel.frame()


def survivors(panel: Panel) -> npt.ArrayLike:
    """The universe are the symbols that still trade at the end."""
    alive = ~np.isnan(panel.close[-10:]).all(axis=0)
    return np.where(alive, panel.frame().rolling(5, min_periods=1).mean(), np.nan)


def universe_of_today(panel: Panel) -> npt.ArrayLike:
    """The universe are today's members of the index."""
    return np.where(panel.extra["member"][-1] > 0.0, panel.close, np.nan)


def rank_among_survivors(panel: Panel) -> npt.ArrayLike:
    """Ranks are taken among the symbols that have a price at the end."""
    alive = _returns(panel).iloc[-5:].notna().any(axis=0).to_numpy()
    return _close(panel).loc[:, alive].rank(axis=1).reindex(columns=list(panel.symbols))


def label_as_feature(panel: Panel) -> npt.ArrayLike:
    """The label was left among the features."""
    return forward_returns(panel, 5).values


def barrier_as_feature(panel: Panel) -> npt.ArrayLike:
    """The label of the triple barrier was left among the features."""
    return triple_barrier(panel, take_profit=0.03, stop_loss=0.03, horizon=10).values


def adjusted_for_later_splits(panel: Panel) -> npt.ArrayLike:
    """Prices are divided by the splits that came after."""
    return panel.close / np.cumprod(panel.extra["split"][::-1], axis=0)[::-1]


def relative_to_the_last_price(panel: Panel) -> npt.ArrayLike:
    """The series is scaled to end at one."""
    return _close(panel) / _close(panel).bfill().iloc[-1]


def age_of_the_data(panel: Panel) -> npt.ArrayLike:
    """The number of bars to come is known."""
    return np.broadcast_to(np.arange(panel.n_bars)[::-1, None], panel.shape)


def one_symbol_only(panel: Panel) -> npt.ArrayLike:
    """Five columns are honest, the sixth looks ahead."""
    out = panel.close.copy()
    out[:-1, 5] = out[1:, 5]
    return out


def rare_bar_only(panel: Panel) -> npt.ArrayLike:
    """After a crash, and only then, it knows how the next bar goes."""
    returns = _returns(panel)
    crash = (returns.mean(axis=1) < -6.0 * returns.mean(axis=1).rolling(60).std().shift(1)).to_numpy()
    return returns + np.where(crash[:, None], returns.shift(-1).fillna(0.0), 0.0)


def late_only(panel: Panel) -> npt.ArrayLike:
    """It is honest until the summer of 2002."""
    late = panel.index > pd.Timestamp("2002-06-30", tz="UTC")
    return np.where(late[:, None], panel.frame().shift(-1), panel.close)


def tiny(panel: Panel) -> npt.ArrayLike:
    """A millionth of the next return is mixed in."""
    return panel.frame() * (1.0 + 1e-6 * _returns(panel).shift(-1).fillna(0.0))


def memory_of_the_longest_data() -> Function:
    """It keeps what it computed on the longest data it saw, and answers from that."""
    longest: dict[str, FloatArray] = {}

    def feature(panel: Panel) -> npt.ArrayLike:
        if len(longest.get("values", ())) < panel.n_bars:
            longest["values"] = np.vstack([panel.close[1:], panel.close[-1:]])
        return longest["values"][: panel.n_bars]

    return feature


def memory_of_prices() -> Function:
    """It keeps every price it saw by its time, and looks up the next one."""
    seen: dict[pd.Timestamp, FloatArray] = {}

    def feature(panel: Panel) -> npt.ArrayLike:
        seen.update(zip(panel.index, panel.close, strict=True))
        missing = np.full(panel.n_assets, np.nan)
        following = [seen.get(stamp + pd.offsets.BDay(1), missing) for stamp in panel.index]
        return np.array(following)

    return feature


def values_at_the_period_they_report(panel: Panel, events: Events) -> npt.ArrayLike:
    """Earnings are known at the end of their quarter, weeks before they were published."""
    return _join(panel, _eps(events).assign(known_at=_eps(events)["occurred_at"]))


def values_as_restated(panel: Panel, events: Events) -> npt.ArrayLike:
    """The first publication shows what the last revision said."""
    table = _eps(events)
    groups = table.groupby(["symbol", "occurred_at"])
    return _join(panel, table.assign(eps=groups["eps"].transform("last"), known_at=groups["known_at"].transform("min")))


def backfilled_fundamentals(panel: Panel, events: Events) -> npt.ArrayLike:
    """Before the first publication stands the first value."""
    return pd.DataFrame(_join(panel, _eps(events))).bfill()


def evening_news_in_the_wrong_zone(panel: Panel, events: Events) -> npt.ArrayLike:
    """Times of New York are read as UTC, so that the evening comes before the close."""
    table = _eps(events)
    local = table["known_at"].dt.tz_convert(_NEW_YORK).dt.tz_localize(None).dt.tz_localize("UTC")
    return _join(panel, table.assign(known_at=local))


def evening_news_by_date(panel: Panel, events: Events) -> npt.ArrayLike:
    """News are joined to the close of their day, at whatever hour they came."""
    table = _eps(events)
    return _join(panel, table.assign(known_at=table["known_at"].dt.normalize()))


def nearest_publication(panel: Panel, events: Events) -> npt.ArrayLike:
    """The join takes the nearest publication, past or future."""
    return _as_of(panel, events, "nearest")


def next_publication(panel: Panel, events: Events) -> npt.ArrayLike:
    """The join looks forward."""
    return _as_of(panel, events, "forward")


def _as_of(panel: Panel, events: Events, direction: Literal["nearest", "forward"]) -> FloatArray:
    stamps = np.repeat(panel.index.as_unit("ns"), panel.n_assets)
    bars = pd.DataFrame({"known_at": stamps, "symbol": list(panel.symbols) * panel.n_bars})
    news = _eps(events)[["known_at", "symbol", "eps"]]
    news = news.assign(symbol=news["symbol"].astype(str))
    joined = pd.merge_asof(bars, news, on="known_at", by="symbol", direction=direction)
    return joined["eps"].to_numpy(dtype=np.float64).reshape(panel.shape)  # type: ignore[no-any-return]


def days_to_the_next_publication(panel: Panel, events: Events) -> npt.ArrayLike:
    """The day of an unscheduled publication is known ahead."""
    out = np.full(panel.shape, np.nan)
    table = _eps(events)
    for column, symbol in enumerate(panel.symbols):
        known = pd.DatetimeIndex(table.loc[table["symbol"] == symbol, "known_at"])
        place = known.searchsorted(panel.index, side="right")
        there = place < len(known)
        out[there, column] = (known[place[there]] - panel.index[there]) / pd.Timedelta(days=1)
    return out


def surprise_by_all_publications(panel: Panel, events: Events) -> npt.ArrayLike:
    """A surprise is measured against the mean of all publications, later ones among them."""
    table = _eps(events)
    return _join(panel, table.assign(eps=table["eps"] - table.groupby("symbol")["eps"].transform("mean")))


_DAILY = (
    centred_window,
    full_sample_zscore,
    full_sample_minmax,
    full_sample_scaler,
    full_sample_quantile_bins,
    full_sample_winsorising,
    full_sample_volatility,
    full_sample_median_regime,
    rank_over_all_time,
    whole_sample_pca,
    whole_sample_beta,
    whole_sample_trend,
    whole_sample_kmeans,
    seasonal_mean_of_all_years,
    best_lag_of_the_sample,
    backfilled_gaps,
    backfilled_warm_up,
    interpolated_gaps,
    long_table_filled_across_symbols,
    long_table_rolled_across_symbols,
    shifted_back,
    shifted_back_and_filled,
    sliced_the_wrong_way,
    rolled_around,
    difference_to_the_next_bar,
    next_volume,
    whether_the_next_bar_is_missing,
    savitzky_golay,
    zero_phase_filter,
    gaussian_smoothing,
    low_pass_by_fourier,
    two_sided_smoothing,
    rolling_backwards,
    lowest_price_to_come,
    bars_to_the_high,
    month_end_on_every_day,
    week_end_by_resampling,
    mean_of_the_quarter,
    next_close_on_month_ends,
    survivors,
    universe_of_today,
    rank_among_survivors,
    label_as_feature,
    barrier_as_feature,
    adjusted_for_later_splits,
    relative_to_the_last_price,
    age_of_the_data,
    one_symbol_only,
    rare_bar_only,
    late_only,
    tiny,
)
_INTRADAY = (high_of_the_day_at_every_hour, rest_of_the_day)
_WITH_STATE = (memory_of_the_longest_data, memory_of_prices)
_OF_EVENTS = (
    values_at_the_period_they_report,
    values_as_restated,
    backfilled_fundamentals,
    evening_news_in_the_wrong_zone,
    evening_news_by_date,
    nearest_publication,
    next_publication,
    days_to_the_next_publication,
    surprise_by_all_publications,
)

LEAKS: tuple[Example, ...] = (
    *(describe(function) for function in _DAILY),
    *(describe(function, intraday=True) for function in _INTRADAY),
    *(describe_factory(factory) for factory in _WITH_STATE),
    *(describe(function, reads_events=True) for function in _OF_EVENTS),
)
