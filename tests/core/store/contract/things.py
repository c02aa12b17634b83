"""The tables on which every gateway is tried, and their rows."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
from psycopg.types.range import Range

from core.store.gateway import Gateway

TABLES = """
create type mood as enum ('calm', 'wild');
create table things (
  id integer primary key,
  name text not null unique,
  value float8,
  at timestamptz,
  ids uuid[],
  words text[],
  meta jsonb,
  cost numeric(12, 6),
  mood mood,
  span tstzrange,
  vector extensions.vector(3),
  flag boolean,
  check (id > 0)
);
create table parts (thing_id integer not null references things);
create function twice(x float8) returns float8 language sql as 'select 2 * x';
create function first_things(n integer) returns setof things language sql as 'select * from things order by id limit n';
create function nothing() returns void language sql as 'select';
"""
DROPS = """
drop function if exists twice(float8), first_things(integer), nothing();
drop table if exists parts, things;
drop type if exists mood;
"""
NOON = datetime(2024, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
NAIVE = datetime(2024, 3, 1, 12)  # noqa: DTZ001
ONE = UUID("00000000-0000-0000-0000-000000000001")
TWO = UUID("00000000-0000-0000-0000-000000000002")


def full_row(id: int = 1) -> dict[str, Any]:
    return {
        "id": id,
        "name": f"thing {id}",
        "value": 0.1,
        "at": NOON,
        "ids": [ONE, TWO],
        "words": ["a", 'b"c', ""],
        "meta": {"x": [1, None, "ü"]},
        "cost": Decimal("0.125"),
        "mood": "wild",
        "span": Range(NOON, NOON + timedelta(days=1), "[]"),
        "vector": np.array([1.0, 0.5, -2.0], dtype=np.float32),
        "flag": True,
    }


def check_stored(row: dict[str, Any], id: int = 1) -> None:
    expected = full_row(id)
    np.testing.assert_array_equal(row.pop("vector").to_numpy(), expected.pop("vector"))
    assert row == expected


def three(gateway: Gateway) -> None:
    rows = [(1, "a", 1.5), (2, "b", None), (3, "c", -4.0)]
    gateway.insert("things", [{"id": id, "name": name, "value": value} for id, name, value in rows])
