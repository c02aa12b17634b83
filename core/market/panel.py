"""The Panel: aligned price arrays, one row a bar, one column a symbol.

Hides how bars are aligned and hashed. Promises that every array has the same shape, that bars are in strictly
increasing UTC time, and that nothing in it can be changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.errors import DataError, MissingDataError, ShapeError

FloatArray = npt.NDArray[np.float64]

BAR_FIELDS = ("open", "high", "low", "close", "volume")
_EMPTY: Mapping[str, FloatArray] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """Hold aligned bars of several symbols.

    Parameters
    ----------
    index : pandas.DatetimeIndex of length n_bars
        Time of each bar's close, tz-aware UTC, strictly increasing.
    symbols : tuple of str, length n_assets
        Column names, unique.
    close : ndarray of shape (n_bars, n_assets), prices
        Closing price; NaN where a symbol has no bar.
    open, high, low : ndarray of shape (n_bars, n_assets), prices, optional
    volume : ndarray of shape (n_bars, n_assets), shares, optional
    extra : mapping of str to ndarray of shape (n_bars, n_assets), optional
        Further columns of the data set, known at the close of their bar.
    name : str, optional
        Name of the data set the panel comes from.

    Raises
    ------
    DataError
        If the index is naive, not UTC, unsorted or has duplicates, or symbols repeat.
    ShapeError
        If an array does not have the shape (n_bars, n_assets).

    Notes
    -----
    A bar carries the time of its close: everything in row ``t`` is known at ``index[t]`` and not before. All arrays are
    copied to read-only C-contiguous float64.
    """

    index: pd.DatetimeIndex
    symbols: tuple[str, ...]
    close: FloatArray
    open: FloatArray | None = None
    high: FloatArray | None = None
    low: FloatArray | None = None
    volume: FloatArray | None = None
    extra: Mapping[str, FloatArray] = field(default_factory=lambda: _EMPTY)
    name: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.index, pd.DatetimeIndex) or self.index.tz is None:
            raise DataError("`index` must be a tz-aware DatetimeIndex in UTC; localise naive times before building a Panel.")
        if str(self.index.tz) not in {"UTC", "utc", "UTC+00:00"}:
            raise DataError(f"`index` must be in UTC, was in {self.index.tz}; convert it with `.tz_convert('UTC')`.")
        if not self.index.is_monotonic_increasing or not self.index.is_unique:
            raise DataError("`index` must be strictly increasing: sort the bars and remove duplicate stamps.")
        object.__setattr__(self, "symbols", tuple(self.symbols))
        if len(set(self.symbols)) != len(self.symbols):
            raise DataError("`symbols` must be unique.")
        for name in BAR_FIELDS:
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, self._frozen(name, value))
        extra = {name: self._frozen(name, value) for name, value in self.extra.items()}
        object.__setattr__(self, "extra", MappingProxyType(extra))

    def _frozen(self, name: str, value: npt.ArrayLike) -> FloatArray:
        array = np.array(value, dtype=np.float64, order="C", copy=True)
        if array.shape != (len(self.index), len(self.symbols)):
            raise ShapeError(
                f"`{name}` must have shape (n_bars, n_assets) = ({len(self.index)}, {len(self.symbols)}), was {array.shape}."
            )
        array.setflags(write=False)
        return array

    @property
    def n_bars(self) -> int:
        """Number of bars."""
        return len(self.index)

    @property
    def n_assets(self) -> int:
        """Number of symbols."""
        return len(self.symbols)

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_bars, n_assets)``."""
        return self.n_bars, self.n_assets

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the columns that are present, bar fields first."""
        return tuple(name for name in BAR_FIELDS if getattr(self, name) is not None) + tuple(sorted(self.extra))

    def get(self, name: str) -> FloatArray:
        """Return one column by name.

        Raises
        ------
        MissingDataError
            If the panel has no such column.
        """
        value = getattr(self, name) if name in BAR_FIELDS else self.extra.get(name)
        if value is None:
            raise MissingDataError(f"the data set {self.name or '(unnamed)'} has no `{name}`; it has {', '.join(self.fields)}.")
        return value  # type: ignore[no-any-return]

    def slice(self, start: int | None = None, stop: int | None = None) -> Panel:
        """Return the bars ``start:stop``, by position."""
        return self._map(self.index[start:stop], self.symbols, lambda array: array[start:stop])

    def before(self, ts: pd.Timestamp) -> Panel:
        """Return the bars strictly before `ts`."""
        return self.slice(0, int(self.index.searchsorted(ts, side="left")))

    def select(self, symbols: Sequence[str]) -> Panel:
        """Return the named symbols, in the order given.

        Raises
        ------
        MissingDataError
            If a symbol is not in the panel.
        """
        unknown = [symbol for symbol in symbols if symbol not in self.symbols]
        if unknown:
            raise MissingDataError(
                f"unknown symbol {', '.join(unknown)}; the data set {self.name or '(unnamed)'} has {', '.join(self.symbols)}."
            )
        columns = [self.symbols.index(symbol) for symbol in symbols]
        return self._map(self.index, tuple(symbols), lambda array: array[:, columns])

    def replace(self, **columns: FloatArray) -> Panel:
        """Return a copy with the named bar fields replaced (same shape)."""
        values: dict[str, FloatArray | None] = {name: getattr(self, name) for name in BAR_FIELDS}
        values.update(columns)
        return Panel(index=self.index, symbols=self.symbols, extra=self.extra, name=self.name, **values)  # type: ignore[arg-type]

    def with_column(self, name: str, values: npt.ArrayLike) -> Panel:
        """Return a copy with one further column, or another one of that name, in `extra`.

        Parameters
        ----------
        name : str
            An identifier, not a bar field.
        values : array-like of shape (n_bars, n_assets)
            Row ``t`` must be known at ``index[t]``.

        Raises
        ------
        DataError
            If the name is no identifier, or one of open, high, low, close and volume.
        ShapeError
            If the values do not have the shape of the panel.
        """
        if not name.isidentifier() or name in BAR_FIELDS:
            raise DataError(f"a further column needs an identifier that is no bar field as its name, was {name!r}.")
        fields: dict[str, Any] = {field: getattr(self, field) for field in BAR_FIELDS}
        extra = {**self.extra, name: np.asarray(values, dtype=np.float64)}
        return Panel(index=self.index, symbols=self.symbols, extra=extra, name=self.name, **fields)

    def _map(self, index: pd.DatetimeIndex, symbols: tuple[str, ...], take) -> Panel:  # type: ignore[no-untyped-def]
        fields: dict[str, Any] = {name: None if (value := getattr(self, name)) is None else take(value) for name in BAR_FIELDS}
        extra = {name: take(value) for name, value in self.extra.items()}
        return Panel(index=index, symbols=symbols, extra=extra, name=self.name, **fields)

    def returns(self) -> FloatArray:
        """Compute simple close-to-close returns.

        Returns
        -------
        ndarray of shape (n_bars, n_assets), fractions
            ``close[t] / close[t-1] - 1``; NaN in the first row and wherever either price is missing.
        """
        out = np.full(self.shape, np.nan)
        if self.n_bars > 1:
            out[1:] = self.close[1:] / self.close[:-1] - 1.0
        return out

    def frame(self, name: str = "close") -> pd.DataFrame:
        """Return one column as a DataFrame indexed by time, one column a symbol."""
        return pd.DataFrame(self.get(name), index=self.index, columns=list(self.symbols))

    def content_sha256(self) -> str:
        """Hash times, symbols and values, so that equal content has an equal name on every machine."""
        digest = hashlib.sha256()
        digest.update(self.index.as_unit("us").asi8.astype("<i8").tobytes())
        digest.update("\x00".join(self.symbols).encode())
        for name in self.fields:
            values = self.get(name).astype("<f8")
            digest.update(name.encode())
            digest.update(np.where(np.isnan(values), np.float64("nan"), values).tobytes())
        return digest.hexdigest()

    def __reduce__(self) -> tuple[Callable[..., Panel], tuple[dict[str, Any]]]:
        columns = {
            name: self.get(name) for name in self.fields if name not in self.extra
        }  # a read-only mapping does not pickle
        return _build, (
            {**columns, "index": self.index, "symbols": self.symbols, "extra": dict(self.extra), "name": self.name},
        )

    def __repr__(self) -> str:
        span = f"{self.index[0]:%Y-%m-%d}..{self.index[-1]:%Y-%m-%d}" if self.n_bars else "empty"
        return (
            f"Panel({self.name or 'unnamed'}: {self.n_bars} bars x {self.n_assets} symbols, {span}, {', '.join(self.fields)})"
        )


def _build(columns: dict[str, Any]) -> Panel:
    return Panel(**columns)
