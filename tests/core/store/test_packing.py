from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pytest
from psycopg.types.range import Range

from core.store import postgres
from core.store.packing import pack_rows
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


@pytest.mark.parametrize("packing", [True, False])
def test_packed_rows_are_stored_as_psycopg_stores_them(
    database: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, packing: bool
) -> None:
    owner.execute(TABLE)
    if packing:
        assert pack_rows(rows(), list(TYPES), list(TYPES.values())) is not None
    else:
        monkeypatch.setattr(postgres, "pack_rows", lambda *_: None)
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
    assert pack_rows([{name: value}], [name], [TYPES[name]]) is None
    assert pack_rows([{"x": "1"}], ["x"], ["numeric"]) is None
