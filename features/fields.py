"""The names an expression may read: bar columns and what follows directly from them.

Hides how a derived column is computed. Promises that each field in row ``t`` is known at the close of bar ``t``, that
what is not finite is NaN, and that a missing column is named in the error together with what the panel has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from core.errors import MissingDataError
from features.units import NO_UNIT, PRICE, SHARE, Unit

if TYPE_CHECKING:
    from core.market.panel import Panel

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Field:
    """Describe one name that an expression may read.

    Parameters
    ----------
    name : str
        The name as written in an expression.
    columns : frozenset of str
        Columns of the panel that it is computed from.
    lookback : int
        Bars of history it needs beyond the current one.
    doc : str
        One line: formula and unit.
    unit : Unit
        What it is measured in.
    load : callable Panel -> ndarray of shape (n_bars, n_assets)
        Computes it.
    """

    name: str
    columns: frozenset[str]
    lookback: int
    doc: str
    unit: Unit
    load: Callable[[Panel], FloatArray]


def _returns(panel: Panel) -> FloatArray:
    close = _positive(panel.close)
    out = np.full(close.shape, np.nan)
    out[1:] = close[1:] / close[:-1] - 1.0
    return out


def _log_returns(panel: Panel) -> FloatArray:
    close = _positive(panel.close)
    out = np.full(close.shape, np.nan)
    out[1:] = np.log(close[1:] / close[:-1])
    return out


def _market_returns(panel: Panel) -> FloatArray:
    returns = _returns(panel)
    known = ~np.isnan(returns)
    count = known.sum(axis=1)
    total = np.where(known, returns, 0.0).sum(axis=1)
    mean = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return np.repeat(mean[:, None], returns.shape[1], axis=1)


def _vwap(panel: Panel) -> FloatArray:
    if "vwap" in panel.extra:
        return panel.extra["vwap"]
    return (panel.get("high") + panel.get("low") + panel.get("close")) / 3.0


def _positive(prices: FloatArray) -> FloatArray:
    return np.where((prices > 0.0) & (prices < np.inf), prices, np.nan)


def _column(name: str) -> Callable[[Panel], FloatArray]:
    return lambda panel: panel.get(name)


def _fields() -> dict[str, Field]:
    found: dict[str, Field] = {}

    def add(name: str, columns: str, lookback: int, unit: Unit, doc: str, load: Callable[[Panel], FloatArray]) -> None:
        needs = frozenset(columns.split())
        found[name] = Field(name=name, columns=needs, lookback=lookback, unit=unit, doc=doc, load=load)

    add("open", "open", 0, PRICE, "opening price", _column("open"))
    add("high", "high", 0, PRICE, "highest price of the bar", _column("high"))
    add("low", "low", 0, PRICE, "lowest price of the bar", _column("low"))
    add("close", "close", 0, PRICE, "closing price", _column("close"))
    add("volume", "volume", 0, SHARE, "traded shares", _column("volume"))
    add("vwap", "high low close", 0, PRICE, "the panel's own `vwap`, else (high + low + close) / 3", _vwap)
    add("returns", "close", 1, NO_UNIT, "close / previous close - 1; NaN unless both are positive", _returns)
    add("log_returns", "close", 1, NO_UNIT, "log(close / previous close); NaN unless both are positive", _log_returns)
    add("market_returns", "close", 1, NO_UNIT, "mean of `returns` over the symbols, the same for all", _market_returns)
    add(
        "dollar_volume",
        "close volume",
        0,
        PRICE.times(SHARE),
        "close * volume",
        lambda panel: panel.get("close") * panel.get("volume"),
    )
    return found


FIELDS: Mapping[str, Field] = MappingProxyType(_fields())


def available_fields(columns: Collection[str]) -> tuple[str, ...]:
    """Name what an expression can read from a data set with these columns.

    Parameters
    ----------
    columns : collection of str
        For instance ``panel.fields``.

    Returns
    -------
    tuple of str
        Fields whose columns are all there, then further columns of the data set, sorted.
    """
    have = set(columns)
    known = [field.name for field in FIELDS.values() if field.columns <= have or field.name in have]
    return tuple(known) + tuple(sorted(name for name in have - set(FIELDS) if name.isidentifier()))


def load_field(name: str, panel: Panel) -> FloatArray:
    """Load one field of a panel.

    Parameters
    ----------
    name : str
        A key of `FIELDS` or a column of ``panel.extra``. The names in `FIELDS` keep their meaning even if the panel has
        an extra column of the same name; only `vwap` prefers it.
    panel : Panel
        Bars to read.

    Returns
    -------
    ndarray of shape (n_bars, n_assets)
        C-contiguous; infinite values are NaN.

    Raises
    ------
    MissingDataError
        If the panel lacks a column that the field needs.
    """
    field = FIELDS.get(name)
    needs = field.columns if field is not None else frozenset({name})
    if not (name == "vwap" and name in panel.extra):
        missing = sorted(needs - set(panel.fields))
        if missing:
            via = "" if needs == {name} else f" (needed for `{name}`)"
            raise MissingDataError(
                f"the data set {panel.name or '(unnamed)'} has no `{'`, `'.join(missing)}`{via}; "
                f"it has {', '.join(panel.fields)}. Choose an expression over these."
            )
    with np.errstate(all="ignore"):
        values = field.load(panel) if field is not None else panel.extra[name]
    infinite = np.isinf(values)
    return np.where(infinite, np.nan, values) if infinite.any() else values
