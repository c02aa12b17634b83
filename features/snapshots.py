"""Feature matrices that outlast a run: one Parquet file a feature, which says what it was made from.

Hides the file's layout. Promises that what is loaded is bit for bit what was computed, NaN for NaN, and that a file of
another expression, another data set or other content is refused with the name of what differs.

The file has a column `ts` (the close of each bar, UTC, microseconds), then one column of float64 for each symbol, in order.
A feature without a value is NaN, never null: Parquet knows both, and a null would say "not stored". The metadata key
``aqf.snapshot`` holds the fields of `Snapshot` except its address, as canonical JSON.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, overload

import numpy as np
import pandas as pd

from core.errors import DataError, ExpressionError, SnapshotError
from core.message import Message, Rule
from core.provenance import canonical_json, code_version
from features.computable import Computable
from features.engine import compute
from features.expression import Expression, parse
from features.fields import FloatArray

if TYPE_CHECKING:
    from core.market.panel import Panel
    from core.store.artifacts import ArtifactStore

SUFFIX = "parquet"
_KEY = b"aqf.snapshot"

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 120

_Sha256 = Annotated[
    str, Rule(expected="64 hexadecimal digits", holds=lambda text: re.fullmatch("[0-9a-f]{64}", text) is not None)
]
_Count = Annotated[int, Rule(expected="0 or more", holds=lambda value: value >= 0)]


@dataclass(frozen=True, kw_only=True)
class Snapshot(Message):
    """Say where a feature matrix is kept and what it was made from.

    Parameters
    ----------
    uri : str
        Address in the bucket `feature-snapshots`; it holds the SHA-256 of the file.
    expression, expression_sha256 : str
        Canonical text, and its hash; for a plugin its name, version and source, as in `features.computable`.
    lookback : int, optional
        Bars of history that a value needs beyond its own; None for a plugin that needs all.
    dataset, dataset_sha256 : str
        Name of the panel, and ``Panel.content_sha256()`` of the bars that were read. The hash is what identifies them.
    symbols : tuple of str
        Columns.
    n_bars : int
        Rows.
    first_bar, last_bar : datetime, optional
        Times of the first and the last row, in UTC; None without rows.
    code_version : str
        What computed it.

    Notes
    -----
    ``Snapshot.from_dict(snapshot.to_dict())`` is equal to it; times travel in ISO 8601.
    """

    uri: str
    expression: str
    expression_sha256: _Sha256
    lookback: _Count | None
    dataset: str
    dataset_sha256: _Sha256
    symbols: tuple[str, ...]
    n_bars: _Count
    first_bar: datetime | None = None
    last_bar: datetime | None = None
    code_version: str


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureMatrix:
    """Hold a loaded snapshot.

    Parameters
    ----------
    snapshot : Snapshot
        What it was made from.
    index : pandas.DatetimeIndex of length n_bars
        Close of each bar, UTC.
    values : ndarray of shape (n_bars, n_assets)
        Row ``t`` was known at ``index[t]``; NaN where there is no value. Read-only, C-contiguous.
    """

    snapshot: Snapshot
    index: pd.DatetimeIndex
    values: FloatArray

    def frame(self) -> pd.DataFrame:
        """Return the values indexed by time, one column a symbol."""
        return pd.DataFrame(self.values, index=self.index, columns=list(self.snapshot.symbols))


@overload
def save_snapshot(  # type: ignore[overload-overlap]
    expression: str | Expression | Computable, panel: Panel, artifacts: ArtifactStore
) -> Snapshot: ...


@overload
def save_snapshot(expression: Sequence[str | Expression], panel: Panel, artifacts: ArtifactStore) -> tuple[Snapshot, ...]: ...


def save_snapshot(
    expression: str | Expression | Computable | Sequence[str | Expression], panel: Panel, artifacts: ArtifactStore
) -> Snapshot | tuple[Snapshot, ...]:
    """Compute features and keep their matrices.

    Parameters
    ----------
    expression : str, Expression, Computable, or sequence of str and Expression
        What to keep; several are computed together and kept in a file each, so that an idea has one file however it came.
    panel : Panel
        Bars to read. Hand over those before the seal: a snapshot of sealed bars is a second look at them.
    artifacts : ArtifactStore
        Where, for instance ``open_store(settings).artifacts``.

    Returns
    -------
    Snapshot, or tuple of Snapshot for a sequence
        The same expression, panel and code give the same address (with one version of pyarrow); saving again writes nothing.

    Raises
    ------
    ExpressionError, LookAheadError
        If a text cannot be accepted.
    MissingDataError
        If the panel lacks a column that is read.
    StoreError, StoreUnavailableError
        If a file is over the limit of the store, or cannot be written. Each file is whole or absent.
    """
    if isinstance(expression, Computable):
        return _save(expression, expression.compute(panel), panel, panel.content_sha256(), artifacts)
    if isinstance(expression, str | Expression):
        only = _as_expression(expression, panel)
        return _save(only, compute(only, panel), panel, panel.content_sha256(), artifacts)
    many = [_as_expression(item, panel) for item in expression]
    sha256 = panel.content_sha256()
    return tuple(_save(one, values, panel, sha256, artifacts) for one, values in zip(many, compute(many, panel), strict=True))


def load_snapshot(
    snapshot: Snapshot | str,
    artifacts: ArtifactStore,
    *,
    expression: str | Expression | Computable | None = None,
    panel: Panel | None = None,
) -> FeatureMatrix:
    """Load a feature matrix and check that it is the one that is meant.

    Parameters
    ----------
    snapshot : Snapshot or str
        What `save_snapshot` returned, every field of which must agree with the file; or the address alone.
    artifacts : ArtifactStore
        Where; it checks the file's hash.
    expression : str, Expression or Computable, optional
        What the file must hold, in whatever spelling.
    panel : Panel, optional
        The bars it must have been computed from, by content; the name may be another.

    Returns
    -------
    FeatureMatrix

    Raises
    ------
    MissingDataError
        If nothing is at the address, or its bytes are not those of the address: changed, or cut short.
    SnapshotError
        If the file is no snapshot, contradicts itself, or differs from `snapshot`, `expression` or `panel`; `differs`
        names in what.

    Notes
    -----
    Another code version is no mismatch, or every commit would make all snapshots void: compare ``snapshot.code_version``
    where that matters.
    """
    uri = snapshot.uri if isinstance(snapshot, Snapshot) else snapshot
    matrix = _read(uri, artifacts.load(uri))
    found = matrix.snapshot
    if isinstance(snapshot, Snapshot):
        _check_equal(uri, found, {name: value for name, value in vars(snapshot).items() if name != "uri"})
    if panel is not None:
        _check_panel(uri, matrix, panel)
    if expression is not None:
        wanted = parse(expression, extra=_names_in(found.expression)) if isinstance(expression, str) else expression
        made = {"expression": wanted.canonical, "expression_sha256": wanted.sha256, "lookback": wanted.lookback}
        _check_equal(uri, found, made)
    return matrix


def _as_expression(item: object, panel: Panel) -> Expression:
    if isinstance(item, Expression):
        return item
    if isinstance(item, str):
        return parse(item, extra=tuple(panel.extra))
    raise ExpressionError(f"expected text or an Expression, got {type(item).__name__}; keep the values of expressions only.")


def _save(
    expression: Expression | Computable, values: FloatArray, panel: Panel, dataset_sha256: str, artifacts: ArtifactStore
) -> Snapshot:
    from core.store.artifacts import FEATURE_SNAPSHOTS

    made_from = {
        "expression": expression.canonical,
        "expression_sha256": expression.sha256,
        "lookback": expression.lookback,
        "dataset": panel.name,
        "dataset_sha256": dataset_sha256,
        "symbols": panel.symbols,
        "n_bars": panel.n_bars,
        "first_bar": panel.index[0].isoformat() if panel.n_bars else None,
        "last_bar": panel.index[-1].isoformat() if panel.n_bars else None,
        "code_version": code_version(),
    }
    uri = artifacts.save(FEATURE_SNAPSHOTS, _write(values, panel, canonical_json(made_from)), SUFFIX)
    return Snapshot.from_dict({"uri": uri, **made_from})


def _write(values: FloatArray, panel: Panel, metadata: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    times = pa.array(panel.index.as_unit("us").asi8, pa.timestamp("us", tz="UTC"))
    columns = [pa.array(np.ascontiguousarray(column), pa.float64()) for column in values.T]
    table = pa.Table.from_arrays([times, *columns], names=["ts", *panel.symbols]).replace_schema_metadata({_KEY: metadata})
    buffer = io.BytesIO()
    # A dictionary would write all NaN as one; splitting the bytes of the numbers keeps every bit and is smaller.
    pq.write_table(
        table,
        buffer,
        compression="zstd",
        use_dictionary=False,
        use_byte_stream_split=True,
        write_statistics=False,
    )
    return buffer.getvalue()


def _read(uri: str, content: bytes) -> FeatureMatrix:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(io.BytesIO(content)).read()
    except (pa.ArrowException, OSError) as error:
        raise SnapshotError(
            f"{uri} must be a Parquet file, cannot be read as one ({error}); save it anew.", ("content",)
        ) from None
    snapshot = _read_metadata(uri, table.schema.metadata or {})
    expected = pa.schema([("ts", pa.timestamp("us", tz="UTC")), *((symbol, pa.float64()) for symbol in snapshot.symbols)])
    if not table.schema.equals(expected):
        raise SnapshotError(
            f"{uri} must have the columns ts, {', '.join(snapshot.symbols)} by its metadata, has other ones; save it anew.",
            ("symbols",),
        )
    if any(column.null_count for column in table.columns):
        raise SnapshotError(f"{uri} must hold NaN where there is no value, holds null; save it anew.", ("content",))
    values = np.empty((table.num_rows, len(snapshot.symbols)))
    for place, column in enumerate(table.columns[1:]):
        values[:, place] = column.to_numpy()
    values.setflags(write=False)
    index = pd.DatetimeIndex(table.column(0).to_numpy(), tz="UTC")
    span = (index[0].to_pydatetime(), index[-1].to_pydatetime()) if len(index) else (None, None)
    _check_equal(uri, snapshot, {"n_bars": len(index), "first_bar": span[0], "last_bar": span[1]})
    return FeatureMatrix(snapshot=snapshot, index=index, values=values)


def _read_metadata(uri: str, metadata: Mapping[bytes, bytes]) -> Snapshot:
    if _KEY not in metadata:
        raise SnapshotError(
            f"{uri} must be a snapshot of a feature, has no metadata `{_KEY.decode()}`; save one with `save_snapshot`.",
            ("content",),
        )
    try:
        snapshot = Snapshot.from_dict({"uri": uri, **json.loads(metadata[_KEY])})
    except (ValueError, TypeError, DataError) as error:
        raise SnapshotError(f"the metadata of {uri} cannot be read: {error} Save it anew.", ("content",)) from None
    sha256 = hashlib.sha256(snapshot.expression.encode()).hexdigest()
    _check_equal(uri, snapshot, {"expression_sha256": sha256})
    return snapshot


def _check_equal(uri: str, found: Snapshot, expected: Mapping[str, Any]) -> None:
    differs = [name for name, value in expected.items() if getattr(found, name) != value]
    if differs:
        what = "; ".join(
            f"`{name}` must be {_brief.repr(expected[name])}, is {_brief.repr(getattr(found, name))}" for name in differs
        )
        raise SnapshotError(f"{uri} is another snapshot: {what}. Load the one that is meant, or save it anew.", tuple(differs))


def _check_panel(uri: str, matrix: FeatureMatrix, panel: Panel) -> None:
    found = matrix.snapshot
    sha256 = panel.content_sha256()
    if sha256 == found.dataset_sha256:
        return
    if found.symbols != panel.symbols:
        which = "symbols"
        what = f"the symbols {_brief.repr(found.symbols)}, the panel has {_brief.repr(panel.symbols)}"
    elif not matrix.index.equals(panel.index.as_unit("us")):
        which = "bars"
        what = f"{found.n_bars} bars {_span(matrix.index)}, the panel has {panel.n_bars} {_span(panel.index)}"
    else:
        which = "values"
        what = "the same bars and symbols with other values, or other columns"
    raise SnapshotError(
        f"{uri} was computed from the data set {found.dataset or '(unnamed)'} {found.dataset_sha256[:12]}, not from "
        f"{panel.name or '(unnamed)'} {sha256[:12]}: it was {what}. Save a snapshot of this panel.",
        ("dataset_sha256", which),
    )


def _span(index: pd.DatetimeIndex) -> str:
    return f"from {index[0]:%Y-%m-%d} to {index[-1]:%Y-%m-%d}" if len(index) else "(none)"


def _names_in(canonical: str) -> tuple[str, ...]:
    """Names that a stored expression reads, so that the same text parses without its panel."""
    return tuple(set(re.findall(r"\b[A-Za-z_]\w*\b(?!\()", canonical)))
