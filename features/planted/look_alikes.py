"""Features that resemble the planted leaks, and look back only."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.signal import butter, lfilter, savgol_coeffs
from sklearn.preprocessing import StandardScaler

from core.market.panel import Panel
from features.fields import FloatArray
from features.labels import forward_returns
from features.planted.example import Example, Function, describe, describe_factory
from features.point_in_time import Events, join_events

_NEW_YORK = "America/New_York"


def _close(panel: Panel) -> pd.DataFrame:
    return panel.frame().ffill()


def _returns(panel: Panel) -> pd.DataFrame:
    return panel.frame().pct_change(fill_method=None)


def _month(panel: Panel) -> npt.NDArray[np.int64]:
    return np.array(panel.index.year * 12 + panel.index.month, dtype=np.int64)


def _month_starts(panel: Panel, first: int) -> list[tuple[int, int]]:
    """First bar of each month from bar `first` on, and the first bar of the month after, or the end."""
    starts = [int(bar) for bar in np.flatnonzero(np.diff(_month(panel))) + 1 if bar >= first]
    return list(pairwise([*starts, panel.n_bars]))


def trailing_window(panel: Panel) -> npt.ArrayLike:
    """The mean of a window that ends now."""
    return panel.frame().rolling(11).mean()


def trailing_window_of_few(panel: Panel) -> npt.ArrayLike:
    """The first windows are shorter, instead of filled from behind."""
    return panel.frame().rolling(20, min_periods=1).mean()


def expanding_zscore(panel: Panel) -> npt.ArrayLike:
    """Mean and spread are those of the sample so far."""
    return (panel.frame() - panel.frame().expanding().mean()) / panel.frame().expanding().std()


def expanding_minmax(panel: Panel) -> npt.ArrayLike:
    """The range for scaling is that of the sample so far."""
    close = panel.frame()
    return (close - close.cummin()) / (close.cummax() - close.cummin())


def expanding_winsorising(panel: Panel) -> npt.ArrayLike:
    """Outliers are clipped at quantiles of the sample so far."""
    returns = _returns(panel)
    return returns.clip(returns.expanding(20).quantile(0.05), returns.expanding(20).quantile(0.95))


def expanding_rank(panel: Panel) -> npt.ArrayLike:
    """A price is ranked among those before it."""
    return panel.frame().expanding().rank(pct=True)


def expanding_median_regime(panel: Panel) -> npt.ArrayLike:
    """Calm and wild are told apart by the median so far."""
    volatility = _returns(panel).rolling(20, min_periods=10).std()
    return (volatility > volatility.expanding().median()).astype(float)


def scaler_fitted_each_month(panel: Panel) -> npt.ArrayLike:
    """A scaler of scikit-learn is fitted each month on what came before."""
    returns = _returns(panel).fillna(0.0).to_numpy()
    out = np.full(panel.shape, np.nan)
    for start, stop in _month_starts(panel, 60):
        out[start:stop] = StandardScaler().fit(returns[:start]).transform(returns[start:stop])
    return out


def pca_fitted_each_month(panel: Panel) -> npt.ArrayLike:
    """The loadings are fitted each month on what came before."""
    returns = _returns(panel).fillna(0.0).to_numpy()
    out = np.full(panel.shape, np.nan)
    for start, stop in _month_starts(panel, 60):
        loadings = np.linalg.eigh(returns[:start].T @ returns[:start])[1][:, -1]
        out[start:stop] = (returns[start:stop] @ (loadings * np.sign(loadings.sum())))[:, None]
    return out


def beta_fitted_each_month(panel: Panel) -> npt.ArrayLike:
    """The beta to the market is fitted each month on what came before."""
    returns = _returns(panel).fillna(0.0).to_numpy()
    market = returns.mean(axis=1)
    out = np.full(panel.shape, np.nan)
    for start, stop in _month_starts(panel, 60):
        beta = market[:start] @ returns[:start] / max(market[:start] @ market[:start], 1e-300)
        out[start:stop] = returns[start:stop] - np.outer(market[start:stop], beta)
    return out


def trend_of_the_trailing_window(panel: Panel) -> npt.ArrayLike:
    """The trend that is taken away was drawn through the last thirty bars."""
    close = _close(panel)
    time = np.arange(30) - 14.5
    return close.rolling(30).apply(lambda window: window[-1] - window.mean() - 14.5 * (time @ window) / (time @ time), raw=True)


def seasonal_mean_of_past_years(panel: Panel) -> npt.ArrayLike:
    """What Mondays bring is averaged over Mondays so far."""
    return _returns(panel).groupby(panel.index.day_of_week).transform(lambda column: column.expanding().mean())


def best_lag_so_far(panel: Panel) -> npt.ArrayLike:
    """Look-back periods are weighed by how they have worked so far."""
    close, returns = _close(panel), _returns(panel).fillna(0.0)
    out = pd.DataFrame(0.0, index=panel.index, columns=list(panel.symbols))
    for lag in (2, 5, 10, 20, 40):
        momentum = close.pct_change(lag, fill_method=None)
        worked = (momentum.shift(1) * returns).sum(axis=1).cumsum()
        out = out + momentum.mul(worked, axis=0)
    return out


def forward_filled_gaps(panel: Panel) -> npt.ArrayLike:
    """A gap is filled with the price before it."""
    return panel.frame().ffill()


def forward_filled_for_three_bars(panel: Panel) -> npt.ArrayLike:
    """A short gap is filled with the price before it."""
    return panel.frame().ffill(limit=3)


def long_table_filled_by_symbol(panel: Panel) -> npt.ArrayLike:
    """Forward fill over stacked symbols stops where a symbol ends."""
    stacked = pd.Series(panel.close.T.ravel())
    filled = stacked.groupby(np.repeat(np.arange(panel.n_assets), panel.n_bars)).ffill()
    return filled.to_numpy().reshape(panel.n_assets, panel.n_bars).T


def long_table_rolled_by_symbol(panel: Panel) -> npt.ArrayLike:
    """A rolling mean over stacked symbols starts anew with each."""
    stacked = pd.Series(_close(panel).to_numpy().T.ravel())
    groups = np.repeat(np.arange(panel.n_assets), panel.n_bars)
    rolled = stacked.groupby(groups).transform(lambda part: part.rolling(20, min_periods=10).mean())
    return rolled.to_numpy().reshape(panel.n_assets, panel.n_bars).T


def shifted(panel: Panel) -> npt.ArrayLike:
    """A positive shift brings yesterday's price."""
    return panel.frame().shift(1)


def sliced_the_right_way(panel: Panel) -> npt.ArrayLike:
    """Slices of an array are paired with the bar before."""
    out = np.full(panel.shape, np.nan)
    out[1:] = panel.close[1:] / panel.close[:-1] - 1.0
    return out


def rolled_with_the_seam_blanked(panel: Panel) -> npt.ArrayLike:
    """The rows that came around the end are blanked."""
    out = np.roll(panel.close, 3, axis=0)
    out[:3] = np.nan
    return out


def difference_to_the_bar_before(panel: Panel) -> npt.ArrayLike:
    """A further column is differenced backward."""
    return panel.frame("mood").diff()


def whether_the_bar_before_is_missing(panel: Panel) -> npt.ArrayLike:
    """Only the pattern of missing bars is read, of the past."""
    return panel.frame().shift(1).isna().astype(float)


def one_sided_savitzky_golay(panel: Panel) -> npt.ArrayLike:
    """The smoothing polynomial is fitted to the last bars and read at its end."""
    weights = savgol_coeffs(11, 2, pos=10, use="dot")
    return panel.frame().rolling(11).apply(lambda window: window @ weights, raw=True)


def one_way_filter(panel: Panel) -> npt.ArrayLike:
    """The filter runs forward only, and lags."""
    return lfilter(*butter(2, 0.1), _close(panel).fillna(1.0), axis=0)  # type: ignore[no-any-return]


def exponential_mean(panel: Panel) -> npt.ArrayLike:
    """Weights that sum to one over the sample so far; not a normalisation over all of it."""
    return panel.frame().ewm(span=20, adjust=True).mean()


def exponential_volatility(panel: Panel) -> npt.ArrayLike:
    """Returns are divided by their exponentially weighted volatility so far."""
    return _returns(panel) / _returns(panel).ewm(halflife=20).std()


def highest_price_so_far(panel: Panel) -> npt.ArrayLike:
    """The cumulative maximum starts at the beginning."""
    return panel.frame() / panel.frame().cummax() - 1.0


def bars_since_the_high(panel: Panel) -> npt.ArrayLike:
    """The distance is to the high so far."""
    close = np.nan_to_num(panel.close, nan=-1.0)
    here = np.arange(panel.n_bars, dtype=np.float64)[:, None]
    high = np.where(close >= np.maximum.accumulate(close, axis=0), here, 0.0)
    return here - np.maximum.accumulate(high, axis=0)


def close_of_last_month(panel: Panel) -> npt.ArrayLike:
    """The close of a month is known from the next month on."""
    last = panel.frame().groupby(_month(panel)).last().shift(1)
    return last.loc[_month(panel)]


def last_full_week_by_resampling(panel: Panel) -> npt.ArrayLike:
    """Weekly bars are stamped on the Sunday that ends them, and spread forward from there."""
    return panel.frame().resample("W").last().reindex(panel.index.normalize() - pd.Timedelta(days=1), method="ffill").to_numpy()


def mean_of_the_quarter_so_far(panel: Panel) -> npt.ArrayLike:
    """The mean of the quarter grows with it."""
    quarter = [panel.index.year, panel.index.quarter]
    return panel.frame().groupby(quarter).transform(lambda column: column.expanding().mean())


def first_bar_of_the_month(panel: Panel) -> npt.ArrayLike:
    """That a month has begun is known; that it ends with this bar would not be."""
    begun = np.append(True, np.diff(_month(panel)) != 0)
    return np.repeat(begun[:, None].astype(float), panel.n_assets, axis=1)


def day_of_the_month(panel: Panel) -> npt.ArrayLike:
    """The calendar is known ahead."""
    return np.repeat(panel.index.day.to_numpy(dtype=float)[:, None], panel.n_assets, axis=1)


def calendar_month_end(panel: Panel) -> npt.ArrayLike:
    """That this is the last weekday of a month is read from the calendar, not from the next bar."""
    day = panel.index.tz_convert(_NEW_YORK).tz_localize(None).normalize()
    last = (day + pd.offsets.BusinessDay(1)).month != day.month
    return np.repeat(last.astype(float)[:, None], panel.n_assets, axis=1)


def high_of_the_day_so_far(panel: Panel) -> npt.ArrayLike:
    """The high of the day grows with it."""
    return panel.frame("high").groupby(panel.index.tz_convert(_NEW_YORK).date).cummax()


def close_of_yesterday(panel: Panel) -> npt.ArrayLike:
    """The close of a day is known from the next day on."""
    days = panel.index.tz_convert(_NEW_YORK).normalize()
    return panel.frame().groupby(days).last().shift(1).loc[days]


def return_since_the_open(panel: Panel) -> npt.ArrayLike:
    """The first price of the day is known at every hour."""
    return panel.frame() / panel.frame("open").groupby(panel.index.tz_convert(_NEW_YORK).date).transform("first")


def listed_so_far(panel: Panel) -> npt.ArrayLike:
    """The universe are the symbols that have traded before."""
    listed = np.logical_or.accumulate(~np.isnan(panel.close), axis=0)
    return np.where(listed, _returns(panel).fillna(0.0), np.nan)


def members_then(panel: Panel) -> npt.ArrayLike:
    """The universe are the members of each day."""
    return np.where(panel.extra["member"] > 0.0, panel.close, np.nan)


def rank_among_those_present(panel: Panel) -> npt.ArrayLike:
    """Ranks are taken among the symbols of the bar."""
    return panel.frame().rank(axis=1, pct=True)


def cross_sectional_zscore(panel: Panel) -> npt.ArrayLike:
    """Mean and spread are those of the bar."""
    returns = _returns(panel)
    return returns.sub(returns.mean(axis=1), axis=0).div(returns.std(axis=1), axis=0)


def label_when_it_is_known(panel: Panel) -> npt.ArrayLike:
    """The label is shifted to the bar that completes it."""
    labels = forward_returns(panel, 5)
    return pd.DataFrame(labels.values).shift(labels.delay + labels.horizon)


def adjusted_for_past_splits(panel: Panel) -> npt.ArrayLike:
    """Prices are multiplied by the splits so far."""
    return panel.close * np.cumprod(panel.extra["split"], axis=0)


def relative_to_the_first_price(panel: Panel) -> npt.ArrayLike:
    """The series is scaled to start at one."""
    first = np.maximum.accumulate(~np.isnan(panel.close), axis=0).argmax(axis=0)
    scaled: FloatArray = panel.close / panel.close[first, np.arange(panel.n_assets)]
    return scaled


def age_of_the_listing(panel: Panel) -> npt.ArrayLike:
    """The number of bars so far is known."""
    return panel.frame().notna().cumsum()


def cumulative_sum(panel: Panel) -> npt.ArrayLike:
    """Rounding of a long sum is the same with and without what follows."""
    return _returns(panel).fillna(0.0).cumsum()


def noise_of_a_fixed_seed(panel: Panel) -> npt.ArrayLike:
    """Random numbers, but the same for the same bar."""
    return np.random.default_rng(0).normal(size=panel.shape)


def nothing(panel: Panel) -> npt.ArrayLike:
    """NaN everywhere."""
    return np.full(panel.shape, np.nan)


def memory_by_content() -> Function:
    """It keeps what it computed, under the hash of all that it was computed from."""
    kept: dict[str, FloatArray] = {}

    def feature(panel: Panel) -> npt.ArrayLike:
        key = panel.content_sha256()
        if key not in kept:
            kept[key] = panel.frame().rolling(10).mean().to_numpy()
        return kept[key]

    return feature


def latest_value_known(panel: Panel, events: Events) -> npt.ArrayLike:
    """Earnings count from their publication, in the revision known."""
    return join_events(panel, events.of_kind("earnings"), value="eps")


def yield_of_the_latest_value(panel: Panel, events: Events) -> npt.ArrayLike:
    """Earnings known, over the price of the bar, unless they are too old."""
    eps = join_events(panel, events.of_kind("earnings"), value="eps", max_age=pd.Timedelta(days=60))
    yields: FloatArray = eps / _close(panel).to_numpy()
    return yields


def latest_value_by_merge(panel: Panel, events: Events) -> npt.ArrayLike:
    """The same by a backward as-of merge of pandas."""
    stamps = np.repeat(panel.index.as_unit("ns"), panel.n_assets)
    bars = pd.DataFrame({"known_at": stamps, "symbol": list(panel.symbols) * panel.n_bars})
    news = events.of_kind("earnings").table[["known_at", "symbol", "eps"]]
    news = news.assign(symbol=news["symbol"].astype(str))
    joined = pd.merge_asof(bars, news, on="known_at", by="symbol", direction="backward")
    return joined["eps"].to_numpy(dtype=np.float64).reshape(panel.shape)


def evening_news_on_the_next_day(panel: Panel, events: Events) -> npt.ArrayLike:
    """News are joined by date to the day after."""
    table = events.of_kind("earnings").table
    day_after = table["known_at"].dt.tz_convert(_NEW_YORK).dt.normalize() + pd.DateOffset(days=1)
    return join_events(panel, Events(table=table.assign(known_at=day_after)), value="eps")


def days_since_the_last_publication(panel: Panel, events: Events) -> npt.ArrayLike:
    """The age of what is known."""
    return join_events(panel, events.of_kind("earnings"), how="age")


def publications_of_a_quarter(panel: Panel, events: Events) -> npt.ArrayLike:
    """How many there were in the last ninety days."""
    return join_events(panel, events.of_kind("earnings"), how="count", max_age=pd.Timedelta(days=90))


def days_to_a_scheduled_call(panel: Panel, events: Events) -> npt.ArrayLike:
    """A day in the future may be used if it was announced."""
    calls = events.of_kind("call")
    days = (calls.table["occurred_at"] - calls.table["known_at"]).dt.total_seconds() / 86_400.0
    announced = Events(table=calls.table.assign(days=days), scheduled_kinds=calls.scheduled_kinds)
    return join_events(panel, announced, value="days") - join_events(panel, announced, how="age")


def surprise_by_past_publications(panel: Panel, events: Events) -> npt.ArrayLike:
    """A surprise is measured against the mean of earlier publications."""
    table = events.of_kind("earnings").table
    usual = table.groupby("symbol")["eps"].transform(lambda column: column.expanding().mean().shift(1)).fillna(0.0)
    return join_events(panel, Events(table=table.assign(eps=table["eps"] - usual)), value="eps")


_DAILY = (
    trailing_window,
    trailing_window_of_few,
    expanding_zscore,
    expanding_minmax,
    expanding_winsorising,
    expanding_rank,
    expanding_median_regime,
    scaler_fitted_each_month,
    pca_fitted_each_month,
    beta_fitted_each_month,
    trend_of_the_trailing_window,
    seasonal_mean_of_past_years,
    best_lag_so_far,
    forward_filled_gaps,
    forward_filled_for_three_bars,
    long_table_filled_by_symbol,
    long_table_rolled_by_symbol,
    shifted,
    sliced_the_right_way,
    rolled_with_the_seam_blanked,
    difference_to_the_bar_before,
    whether_the_bar_before_is_missing,
    one_sided_savitzky_golay,
    one_way_filter,
    exponential_mean,
    exponential_volatility,
    highest_price_so_far,
    bars_since_the_high,
    close_of_last_month,
    last_full_week_by_resampling,
    mean_of_the_quarter_so_far,
    first_bar_of_the_month,
    day_of_the_month,
    calendar_month_end,
    listed_so_far,
    members_then,
    rank_among_those_present,
    cross_sectional_zscore,
    label_when_it_is_known,
    adjusted_for_past_splits,
    relative_to_the_first_price,
    age_of_the_listing,
    cumulative_sum,
    noise_of_a_fixed_seed,
    nothing,
)
_INTRADAY = (high_of_the_day_so_far, close_of_yesterday, return_since_the_open)
_WITH_STATE = (memory_by_content,)
_OF_EVENTS = (
    latest_value_known,
    yield_of_the_latest_value,
    latest_value_by_merge,
    evening_news_on_the_next_day,
    days_since_the_last_publication,
    publications_of_a_quarter,
    days_to_a_scheduled_call,
    surprise_by_past_publications,
)

LOOK_ALIKES: tuple[Example, ...] = (
    *(describe(function) for function in _DAILY),
    *(describe(function, intraday=True) for function in _INTRADAY),
    *(describe_factory(factory) for factory in _WITH_STATE),
    *(describe(function, reads_events=True) for function in _OF_EVENTS),
)
