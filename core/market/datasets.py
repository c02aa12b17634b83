"""Data sets that ship inside installed packages: real prices without an account, a key or a network.

Hides where the files lie and how they are shaped. Promises UTC stamps of the session's close and caveats that travel with
the data. Nothing here downloads: skfolio's and arch's own files are read from the installed packages.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from core.errors import MissingDataError
from core.market.panel import Panel

_NEW_YORK = "America/New_York"
_EARLY_CLOSE = "sessions that closed early are stamped 16:00 New York too: later than the prices were known, never earlier"
_INDEX_NOT_TRADABLE = "an index cannot be traded: costs, dividends and tracking error of a fund on it are not in the data"
_EXAMPLE_ONLY = "offered by its package for examples and tests, not as authoritative market data"


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInfo:
    """What one must know about a data set before believing a result on it.

    Parameters
    ----------
    name : str
        Name for `load_dataset`.
    version : str
        Raised when our reading of the data changes; the data itself is identified by `Panel.content_sha256`.
    source : str
        Where the bytes come from.
    frequency : str
        Distance between bars, ``1d`` for daily.
    caveats : tuple of str
        What makes results on it look better, or other, than they would have been.
    license : str
        Licence of the package that carries it.
    description : str
    tradable : bool, default=True
        False for what nobody can hold: features on it are judged, never promoted.
    """

    name: str
    version: str
    source: str
    frequency: str
    caveats: tuple[str, ...]
    license: str
    description: str
    tradable: bool = True


def load_dataset(name: str) -> Panel:
    """Load a packaged data set.

    Parameters
    ----------
    name : str
        One of the names in `list_datasets`.

    Returns
    -------
    Panel
        Named `name`. Every bar is stamped with the session's close in UTC: 16:00 New York, so 21:00 UTC in winter and
        20:00 UTC in summer; the VIX closes 15 minutes later and is stamped so.

    Raises
    ------
    MissingDataError
        If there is no such data set.

    Notes
    -----
    Nothing is adjusted here. The skfolio prices come adjusted for splits and dividends, closes only. The S&P 500 and Nasdaq
    series of arch are index levels, whose adjusted close equals the close on every day; open, high, low and close are used as
    they are. A volume of zero in an index means that none was reported, and becomes NaN. Days on which the VIX has no value
    (holidays) are left out.
    """
    _check_name(name)
    return _DATASETS[name][1](name)


def list_datasets() -> tuple[DatasetInfo, ...]:
    """Return what is known about every packaged data set."""
    return tuple(info for info, _ in _DATASETS.values())


def dataset_info(name: str) -> DatasetInfo:
    """Return what is known about one packaged data set.

    Raises
    ------
    MissingDataError
        If there is no such data set.
    """
    _check_name(name)
    return _DATASETS[name][0]


def _check_name(name: str) -> None:
    if name not in _DATASETS:
        close = difflib.get_close_matches(name, _DATASETS, n=1)
        hint = f"did you mean `{close[0]}`? " if close else ""
        raise MissingDataError(f"there is no packaged data set `{name}`; {hint}There are {', '.join(_DATASETS)}.")


def _stamped(dates: pd.Index, *, close: str = "16:00:00") -> pd.DatetimeIndex:
    closes = pd.DatetimeIndex(dates).as_unit("us") + pd.Timedelta(close)
    return closes.tz_localize(_NEW_YORK).tz_convert("UTC").rename("ts")


def _closes(frame: pd.DataFrame, name: str) -> Panel:
    return Panel(index=_stamped(frame.index), symbols=tuple(map(str, frame.columns)), close=frame.to_numpy(float), name=name)


def _index_bars(frame: pd.DataFrame, symbol: str, name: str) -> Panel:
    columns = {field: frame[[field.capitalize()]].to_numpy(float) for field in ("open", "high", "low", "close", "volume")}
    columns["volume"] = np.where(columns["volume"] > 0.0, columns["volume"], np.nan)
    return Panel(index=_stamped(frame.index), symbols=(symbol,), name=name, **columns)  # type: ignore[arg-type]


def _load_sp500_20(name: str) -> Panel:
    from skfolio.datasets import load_sp500_dataset

    return _closes(load_sp500_dataset(), name)


def _load_sp500_index(name: str) -> Panel:
    from skfolio.datasets import load_sp500_index

    return _closes(load_sp500_index(), name)


def _load_factors_5(name: str) -> Panel:
    from skfolio.datasets import load_factors_dataset

    return _closes(load_factors_dataset(), name)


def _load_sp500(name: str) -> Panel:
    from arch.data import sp500

    return _index_bars(sp500.load(), "SP500", name)


def _load_nasdaq(name: str) -> Panel:
    from arch.data import nasdaq

    return _index_bars(nasdaq.load(), "NASDAQ", name)


def _load_vix(name: str) -> Panel:
    from arch.data import vix

    frame = vix.load().dropna()
    return Panel(index=_stamped(frame.index, close="16:15:00"), symbols=("VIX",), close=frame.to_numpy(float), name=name)


def _entry(
    name: str, load: Callable[[str], Panel], source: str, license: str, description: str, *caveats: str, tradable: bool = True
) -> tuple[DatasetInfo, Callable[[str], Panel]]:
    info = DatasetInfo(
        name=name,
        version="1",
        source=source,
        frequency="1d",
        caveats=caveats,
        license=license,
        description=description,
        tradable=tradable,
    )
    return info, load


_SKFOLIO = "BSD-3-Clause (skfolio); the rights to the prices themselves are not stated"
_ARCH = "NCSA (arch); the rights to the prices themselves are not stated"

_DATASETS: dict[str, tuple[DatasetInfo, Callable[[str], Panel]]] = {
    info.name: (info, load)
    for info, load in (
        _entry(
            "sp500_20",
            _load_sp500_20,
            "skfolio.datasets.load_sp500_dataset",
            _SKFOLIO,
            "Adjusted daily closes of twenty members of the S&P 500, 1990-2022.",
            "survivorship: chosen among the large members of today, so companies that failed or left are missing",
            "adjusted closes only: no open, high, low or volume, so neither gaps nor liquidity can be seen",
            "dividends and splits are in the adjusted price, with factors that were known only later: price levels, and rules "
            "on them (above 10 dollars), look ahead; returns do not",
            "prices are rounded to 0.001, and the adjusted prices of the 1990s are small (AAPL down to 0.098): rounding alone "
            "moves a daily return by up to 1 %, which looks like short-horizon reversal",
            _EARLY_CLOSE,
            _EXAMPLE_ONLY,
        ),
        _entry(
            "sp500_index",
            _load_sp500_index,
            "skfolio.datasets.load_sp500_index",
            _SKFOLIO,
            "Daily closes of the S&P 500 index, 1990-2022.",
            "closes only: no open, high, low or volume",
            "a price index: dividends are not in it, unlike in sp500_20",
            _INDEX_NOT_TRADABLE,
            _EARLY_CLOSE,
            _EXAMPLE_ONLY,
            tradable=False,
        ),
        _entry(
            "factors_5",
            _load_factors_5,
            "skfolio.datasets.load_factors_dataset",
            _SKFOLIO,
            "Adjusted daily closes of five US factor funds (MTUM, QUAL, SIZE, USMV, VLUE), 2014-2022.",
            "survivorship: funds that were closed are missing",
            "adjusted closes only: no open, high, low or volume",
            "dividends are in the adjusted price, with factors that were known only later",
            _EARLY_CLOSE,
            _EXAMPLE_ONLY,
        ),
        _entry(
            "sp500",
            _load_sp500,
            "arch.data.sp500",
            _ARCH,
            "Daily open, high, low, close and volume of the S&P 500 index, 1999-2018.",
            "a price index: dividends are not in it",
            "the open of an index is made of stale prices, because its members do not all open at once",
            "the volume is that of the members together",
            _INDEX_NOT_TRADABLE,
            _EARLY_CLOSE,
            tradable=False,
        ),
        _entry(
            "nasdaq",
            _load_nasdaq,
            "arch.data.nasdaq",
            _ARCH,
            "Daily open, high, low, close and volume of the Nasdaq Composite, 1999-2018.",
            "a price index: dividends are not in it",
            "the open of an index is made of stale prices, because its members do not all open at once",
            "the volume is that of the members together, and missing on 2015-05-12 and 2018-01-09",
            _INDEX_NOT_TRADABLE,
            _EARLY_CLOSE,
            tradable=False,
        ),
        _entry(
            "vix",
            _load_vix,
            "arch.data.vix",
            _ARCH,
            "Daily closes of the VIX index, 2014-2019.",
            "closes only: no open, high or low",
            "stamped 16:15 New York, when the VIX closes: at the 16:00 close of stocks the value of that day is not yet known",
            "the VIX cannot be held: its futures lose the roll, which is not in the data",
            "sessions that closed early are stamped 16:15 New York too: later than the value was known, never earlier",
            tradable=False,
        ),
    )
}
