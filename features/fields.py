"""The names an expression may read: bar columns and what follows directly from them.

Hides how a derived column is computed. Promises that each field in row ``t`` is known at the close of bar ``t``, that
what is not finite is NaN, and that a missing column is named in the error together with what the panel has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
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


@dataclass(frozen=True, kw_only=True)
class FieldFamily:
    """Describe fields that differ by whole numbers and are written like calls.

    Parameters
    ----------
    name : str
        Before the brackets.
    ranges : mapping of str to (int, int)
        Smallest and largest value of each number, in order.
    doc : str
        One line: formula and unit.
    build : callable of the numbers -> Field
        The field's name is the canonical text of the call.
    """

    name: str
    ranges: Mapping[str, tuple[int, int]]
    doc: str
    build: Callable[..., Field]

    @property
    def usage(self) -> str:
        """How it is written, for instance ``analogue(count, horizon)``."""
        return f"{self.name}({', '.join(self.ranges)})"


ANALOGUE_WINDOW, ANALOGUE_MEMORY = 128, 2520
"""Bars of a window of `analogue`, and how many bars back its neighbours may end."""


def _analogue(count: int, horizon: int) -> Field:
    def load(panel: Panel) -> FloatArray:
        from features.analogue_field import compute_analogue  # opens an encoder, which few expressions need

        return compute_analogue(panel, count, horizon)

    return Field(
        name=f"analogue({count}, {horizon})",
        columns=frozenset({"close"}),
        lookback=ANALOGUE_MEMORY + 2 * ANALOGUE_WINDOW - 2,
        doc=f"mean return over {horizon} bars after the {count} past windows most like the one that ends here",
        unit=NO_UNIT,
        load=load,
    )


FAMILIES: Mapping[str, FieldFamily] = MappingProxyType(
    {
        "analogue": FieldFamily(
            name="analogue",
            ranges=MappingProxyType({"count": (1, 500), "horizon": (1, 252)}),
            doc=f"mean return over `horizon` bars after the `count` windows of any symbol in the last {ANALOGUE_MEMORY} bars "
            f"most like the {ANALOGUE_WINDOW} bars that end here, by the encoder ts2vec_causal; NaN until after its training",
            build=_analogue,
        )
    }
)
"""Fields with numbers, by name."""


@lru_cache(maxsize=1_024)
def find_field(name: str) -> Field | None:
    """Return the field of a name or of the canonical text of a call; None for what is a column of the data or nothing."""
    if name in FIELDS:
        return FIELDS[name]
    call = re.fullmatch(r"(\w+)\((\d+(?:, \d+)*)\)", name)
    if call is None or call[1] not in FAMILIES:
        return None
    return FAMILIES[call[1]].build(*map(int, call[2].split(", ")))


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


def freeze(x: FloatArray) -> FloatArray:
    """Return a read-only C-contiguous view (a copy if it must be) of an array, whatever it was.

    Compiled loops take their input so: numba compiles anew for every kind of array that it meets.
    """
    view = np.ascontiguousarray(x).view()
    view.flags.writeable = False
    return view


def load_field(name: str, panel: Panel) -> FloatArray:
    """Load one field of a panel.

    Parameters
    ----------
    name : str
        What `find_field` finds, or a column of ``panel.extra``. The names in `FIELDS` keep their meaning even if the panel has
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
    field = find_field(name)
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
