import io
import json
import struct
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from core.errors import DataError, ExpressionError, MissingDataError, SnapshotError, StoreError
from core.market import Panel
from core.store.artifacts import FEATURE_SNAPSHOTS, Address, FileArtifactStore
from features import compute, parse
from features.snapshots import Snapshot, load_snapshot, save_snapshot
from tests.features.panels import build_panel

PANEL = build_panel(120, 4, seed=3)
FORMULA = "ts_mean(returns, 5) / ts_std(returns, 21)"


class Drawer:
    """Keeps artifacts in memory."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    def save(self, bucket: str, content: bytes, suffix: str) -> str:
        uri = str(Address.of(bucket, content, suffix))
        self.contents[uri] = content
        return uri

    def has(self, uri: str) -> bool:
        return uri in self.contents

    def load(self, uri: str) -> bytes:
        return self.contents[uri]

    def link(self, uri: str, *, seconds: int) -> str:
        return f"{uri}?seconds={seconds}"


@pytest.fixture
def artifacts(tmp_path: Path) -> FileArtifactStore:
    return FileArtifactStore(tmp_path)


def only_file(folder: Path) -> Path:
    (path,) = [path for path in folder.rglob("*") if path.is_file()]
    return path


def save_table(artifacts: FileArtifactStore, table: pa.Table) -> str:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return artifacts.save(FEATURE_SNAPSHOTS, buffer.getvalue(), "parquet")


def read_table(artifacts: FileArtifactStore, snapshot: Snapshot) -> pa.Table:
    return pq.ParquetFile(io.BytesIO(artifacts.load(snapshot.uri))).read()


def with_metadata(table: pa.Table, **changes: object) -> pa.Table:
    metadata = json.loads(table.schema.metadata[b"aqf.snapshot"]) | changes
    return table.replace_schema_metadata({"aqf.snapshot": json.dumps(metadata)})


def test_what_is_loaded_is_what_was_computed(artifacts: FileArtifactStore) -> None:
    snapshot = save_snapshot(FORMULA, PANEL, artifacts)
    matrix = load_snapshot(snapshot, artifacts, expression=FORMULA, panel=PANEL)
    assert matrix.values.tobytes() == compute(FORMULA, PANEL).tobytes()
    assert matrix.index.equals(PANEL.index)
    assert matrix.snapshot == snapshot
    assert not matrix.values.flags.writeable
    pd.testing.assert_frame_equal(
        matrix.frame(), pd.DataFrame(compute(FORMULA, PANEL), PANEL.index, list(PANEL.symbols)), check_freq=False
    )


@given(arrays(np.uint64, (7, 3), elements=st.integers(0, 2**64 - 1)))
def test_every_bit_survives_even_those_of_nan(bits: np.ndarray) -> None:
    values = bits.view(np.float64)
    values[np.isinf(values)] = struct.unpack("<d", struct.pack("<Q", 0xFFF8_0000_0000_BEEF))[0]
    panel = Panel(
        index=pd.date_range("2020-01-01", periods=7, tz="UTC"),
        symbols=("ts", "BRK.B", "S&P 500"),
        close=np.ones((7, 3)),
        extra={"x": values},
    )
    drawer = Drawer()
    loaded = load_snapshot(save_snapshot("x", panel, drawer), drawer, expression="x", panel=panel)
    assert loaded.values.tobytes() == panel.extra["x"].tobytes()


def test_a_snapshot_says_what_it_was_made_from_and_survives_json(artifacts: FileArtifactStore) -> None:
    snapshot = save_snapshot("rank(volume) + rank(close)", PANEL, artifacts)
    expression = parse("rank(close) + rank(volume)")
    assert (snapshot.expression, snapshot.expression_sha256) == (expression.canonical, expression.sha256)
    assert (snapshot.dataset, snapshot.dataset_sha256) == (PANEL.name, PANEL.content_sha256())
    assert (snapshot.symbols, snapshot.n_bars, snapshot.lookback) == (PANEL.symbols, 120, expression.lookback)
    assert (snapshot.first_bar, snapshot.last_bar) == (PANEL.index[0], PANEL.index[-1])
    assert snapshot.code_version
    assert Snapshot.from_dict(json.loads(json.dumps(snapshot.to_dict()))) == snapshot


def test_missing_values_are_nan_in_the_file_and_never_null(artifacts: FileArtifactStore) -> None:
    table = read_table(artifacts, save_snapshot(FORMULA, PANEL, artifacts))
    assert sum(column.null_count for column in table.columns) == 0
    assert np.isnan(table.column(1).to_numpy()[:21]).all()


def test_the_file_is_readable_without_us(artifacts: FileArtifactStore, tmp_path: Path) -> None:
    save_snapshot("close", PANEL, artifacts)
    frame = pd.read_parquet(only_file(tmp_path)).set_index("ts")
    np.testing.assert_array_equal(frame.to_numpy(), PANEL.close)
    assert tuple(frame.columns) == PANEL.symbols


def test_the_same_idea_has_one_file_and_another_has_another(artifacts: FileArtifactStore, tmp_path: Path) -> None:
    first = save_snapshot("close + open", PANEL, artifacts)
    assert save_snapshot("open+close", PANEL, artifacts) == first
    assert only_file(tmp_path).name == f"{Address.parse(first.uri).sha256}.parquet"
    assert save_snapshot("open-close", PANEL, artifacts).uri != first.uri
    assert save_snapshot("close + open", PANEL.slice(0, 119), artifacts).uri != first.uri


def test_several_features_get_a_file_each_as_if_saved_alone(artifacts: FileArtifactStore) -> None:
    texts = ["close / ts_mean(close, 5)", parse("rank(close / ts_mean(close, 5))"), "book"]
    together = save_snapshot(texts, PANEL, artifacts)
    assert together == tuple(save_snapshot(text, PANEL, artifacts) for text in texts)
    assert save_snapshot([], PANEL, artifacts) == ()


@pytest.mark.parametrize("text", ["book * 2", "where(close > open and not volume > 5, book, 0.00001)", "-log(book) / 3"])
def test_an_address_alone_is_enough(artifacts: FileArtifactStore, text: str) -> None:
    snapshot = save_snapshot(text, PANEL, artifacts)
    assert load_snapshot(snapshot.uri, artifacts, expression=text).snapshot == snapshot


@pytest.mark.parametrize("damage", ["tampered", "truncated", "emptied", "removed"])
def test_a_damaged_file_is_refused(artifacts: FileArtifactStore, tmp_path: Path, damage: str) -> None:
    snapshot = save_snapshot(FORMULA, PANEL, artifacts)
    path = only_file(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "tampered":
        content[len(content) // 2] ^= 1
    path.write_bytes({"truncated": content[:-100], "emptied": b""}.get(damage, content))
    if damage == "removed":
        path.unlink()
    with pytest.raises(MissingDataError, match="is not in" if damage == "removed" else "was changed on disk"):
        load_snapshot(snapshot, artifacts)


def test_another_expression_is_refused_by_name(artifacts: FileArtifactStore) -> None:
    snapshot = save_snapshot("ts_mean(close, 5)", PANEL, artifacts)
    with pytest.raises(SnapshotError, match=r"`expression` must be 'ts_mean\(close, 6\)', is 'ts_mean\(close, 5\)'") as caught:
        load_snapshot(snapshot, artifacts, expression="ts_mean(close, 6)")
    assert caught.value.differs == ("expression", "expression_sha256", "lookback")
    assert isinstance(caught.value, DataError)


@pytest.mark.parametrize(
    ("panel", "differs", "text"),
    [
        (PANEL.slice(0, 100), "bars", "120 bars from 2001-01-02 to 2001-06-18, the panel has 100 from 2001-01-02"),
        (PANEL.slice(0, 0), "bars", r"the panel has 0 \(none\)"),
        (PANEL.select(PANEL.symbols[::-1]), "symbols", "the panel has .'S03', 'S02', 'S01', 'S00'."),
        (PANEL.replace(close=PANEL.close * 1.01), "values", "the same bars and symbols with other values"),
    ],
)
def test_another_data_set_is_refused_with_what_differs(
    artifacts: FileArtifactStore, panel: Panel, differs: str, text: str
) -> None:
    snapshot = save_snapshot(FORMULA, PANEL, artifacts)
    with pytest.raises(SnapshotError, match=text) as caught:
        load_snapshot(snapshot, artifacts, panel=panel)
    assert caught.value.differs == ("dataset_sha256", differs)


def test_a_handle_that_disagrees_with_its_file_is_refused(artifacts: FileArtifactStore) -> None:
    snapshot = save_snapshot(FORMULA, PANEL, artifacts)
    other = {
        "expression": "close",
        "expression_sha256": "0" * 64,
        "lookback": 7,
        "dataset": "elsewhere",
        "dataset_sha256": "1" * 64,
        "symbols": ["A"],
        "n_bars": 3,
        "first_bar": None,
        "last_bar": "2020-01-01T00:00:00+00:00",
        "code_version": "9.9",
    }
    assert {"uri", *other} == {field.name for field in fields(Snapshot)}
    for name, value in other.items():
        with pytest.raises(SnapshotError) as caught:
            load_snapshot(Snapshot.from_dict(snapshot.to_dict() | {name: value}), artifacts)
        assert caught.value.differs == (name,)


def test_a_file_that_contradicts_itself_is_refused(artifacts: FileArtifactStore) -> None:
    table = read_table(artifacts, save_snapshot(FORMULA, PANEL, artifacts))
    last = table.column_names[-1]
    for forged, differs in (
        (with_metadata(table, expression="close"), ("expression_sha256",)),
        (with_metadata(table, n_bars=119), ("n_bars",)),
        (with_metadata(table, symbols=["A", "B", "C", "D"]), ("symbols",)),
        (with_metadata(table, lookback=-1), ("content",)),
        (with_metadata(table, more=1), ("content",)),
        (table.slice(1), ("n_bars", "first_bar")),
        (table.replace_schema_metadata(None), ("content",)),
        (table.replace_schema_metadata({"aqf.snapshot": "{"}), ("content",)),
        (table.replace_schema_metadata({"aqf.snapshot": "[]"}), ("content",)),
        (table.set_column(4, last, pa.array([None] * 120, pa.float64())), ("content",)),
        (table.set_column(4, last, pa.array([1.0] * 120, pa.float32())), ("symbols",)),
        (table.drop_columns(last), ("symbols",)),
    ):
        with pytest.raises(SnapshotError) as caught:
            load_snapshot(save_table(artifacts, forged), artifacts)
        assert caught.value.differs == differs


def test_what_is_no_parquet_file_is_refused(artifacts: FileArtifactStore) -> None:
    for content in (b"", b"PAR1", b"not a table"):
        uri = artifacts.save(FEATURE_SNAPSHOTS, content, "parquet")
        with pytest.raises(SnapshotError, match="cannot be read as one"):
            load_snapshot(uri, artifacts)


def test_bad_input_is_refused(artifacts: FileArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExpressionError, match="unknown field `clos`"):
        save_snapshot("clos", PANEL, artifacts)
    with pytest.raises(ExpressionError, match="expected text or an Expression, got int"):
        save_snapshot(["close", 3], PANEL, artifacts)  # type: ignore[list-item]
    with pytest.raises(MissingDataError, match="an artifact's address is"):
        load_snapshot("somewhere", artifacts)
    monkeypatch.setattr("core.store.artifacts.MAX_BYTES", 100)
    with pytest.raises(StoreError, match="at most 100 bytes"):
        save_snapshot("close", PANEL, artifacts)
