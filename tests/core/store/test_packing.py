from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pytest
from psycopg.types.range import Range

from core.errors import StoreError
from core.store import postgres
from core.store.packing import UnpackableError, pack_rows
from core.store.postgres import PostgresGateway

TABLE = """
create table packed (
  b bool, f float8, i int4, n int8, j jsonb, t text, at timestamptz, span tstzrange, u uuid, v extensions.vector(4)
)
"""
TYPES = {
    "b": "bool",
    "f": "float8",
    "i": "int4",
    "n": "int8",
    "j": "jsonb",
    "t": "text",
    "at": "timestamptz",
    "span": "tstzrange",
    "u": "uuid",
    "v": "vector",
}


def rows() -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    start = datetime(1960, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC)
    made: list[dict[str, Any]] = [
        {
            "b": bool(n % 2),
            "f": float(rng.standard_normal() * 10.0**n),
            "i": -(2**31) + n,
            "n": 2**62 + n,
            "j": {"a": [1, None, "ü"], "n": n},
            "t": "ü" * n,
            "at": (start + timedelta(days=900 * n, microseconds=n)).astimezone(timezone(timedelta(hours=-7))),
            "span": Range(start, start + timedelta(days=n + 1), ("[]", "[)", "(]", "()")[n % 4]),
            "u": UUID(int=n * 2**90),
            "v": rng.standard_normal(4).astype(np.float32),
        }
        for n in range(40)
    ]
    return [*made, {**made[0], **dict.fromkeys("bfijtnu"), "at": None, "span": None}]


def refuse(*_: object) -> Iterator[bytes]:
    raise UnpackableError


@pytest.mark.parametrize("packing", [True, False])
def test_packed_rows_are_stored_as_psycopg_stores_them(
    database: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, packing: bool
) -> None:
    owner.execute(TABLE)
    if packing:
        assert len(list(pack_rows(rows(), list(TYPES), list(TYPES.values())))) == 3
    else:
        monkeypatch.setattr(postgres, "pack_rows", refuse)
    gateway = PostgresGateway(database).open()
    assert gateway.upsert("packed", rows(), on_conflict=()) == 41
    stored = gateway.select("packed")
    gateway.close()
    for found, sent in zip(stored, rows(), strict=True):
        np.testing.assert_array_equal(found.pop("v").to_numpy(), sent.pop("v"))
        assert found == sent


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("f", 1),
        ("i", True),
        ("t", b"x"),
        ("at", datetime(2024, 1, 1)),  # noqa: DTZ001
        ("span", Range(None, None)),
        ("v", [1.0, 2.0, 3.0, 4.0]),
        ("v", np.zeros(0, dtype=np.float32)),
        ("j", [1]),
    ],
)
def test_what_is_not_known_is_left_to_psycopg(name: str, value: Any) -> None:
    with pytest.raises(UnpackableError):
        list(pack_rows([{name: value}], [name], [TYPES[name]]))
    with pytest.raises(UnpackableError):
        list(pack_rows([{"x": "1"}], ["x"], ["numeric"]))


def test_a_batch_whose_last_block_cannot_be_packed_is_stored_once_and_whole(database: str, owner: psycopg.Connection) -> None:
    owner.execute("create table packed (n int8, f float8)")
    batch: list[dict[str, Any]] = [{"n": n, "f": float(n)} for n in range(1000)]
    batch[-1]["f"] = 1  # an int where floats are usual
    gateway = PostgresGateway(database).open()
    assert gateway.upsert("packed", batch, on_conflict=()) == 1000
    assert gateway.select("packed", order=("n",)) == batch
    gateway.close()


@pytest.mark.parametrize("packing", [True, False])
def test_an_integer_too_large_for_its_column_refuses_the_whole_batch(
    database: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, packing: bool
) -> None:
    if not packing:
        monkeypatch.setattr(postgres, "pack_rows", refuse)
    owner.execute("create table packed (n int4)")
    batch = [{"n": n} for n in range(1000)] + [{"n": 2**31}]
    gateway = PostgresGateway(database).open()
    with pytest.raises(StoreError, match='column "n" holds int4, which ends at 2,147,483,647; got 2,147,483,648'):
        gateway.upsert("packed", batch, on_conflict=())
    assert gateway.select("packed") == []
    gateway.close()
