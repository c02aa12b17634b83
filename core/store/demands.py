"""What every gateway demands of what it is given, so that each refuses the same things in the same words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from psycopg.types.range import Range

from core.errors import StoreError
from core.store.gateway import OPERATORS, Row, Where


def shared_columns(rows: Sequence[Row]) -> list[str]:
    """Return the columns of rows that all have the same.

    Raises
    ------
    StoreError
        If a row has others.
    """
    columns = list(rows[0])
    for position, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            raise StoreError(f"all rows must have the columns {', '.join(columns)}; row {position} has {', '.join(row)}.")
    return columns


def in_utc(value: Any) -> Any:
    """Return a value with its times in UTC, in ranges and lists too.

    Raises
    ------
    StoreError
        If a time is naive.
    """
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise StoreError(f"a time must carry its zone, was the naive {value.isoformat()}; use UTC.")
        return value.astimezone(UTC)
    if isinstance(value, Range):
        in_utc(value.lower)
        in_utc(value.upper)
    elif isinstance(value, list) and value and isinstance(value[0], datetime):
        return [in_utc(item) for item in value]
    return value


def conditions(where: Where | None) -> Iterator[tuple[str, str, Any]]:
    """Yield column, operator and value of each condition.

    Raises
    ------
    StoreError
        If an operator is unknown, or an absent value is compared.
    """
    for column, wanted in (where or {}).items():
        operator, value = wanted if isinstance(wanted, tuple) else ("eq", wanted)
        if operator not in OPERATORS:
            raise StoreError(f"unknown operator {operator!r} on {column}; allowed are {', '.join(OPERATORS)}.")
        if operator not in ("in", "is") and value is None:
            raise StoreError(f"nothing equals or exceeds an absent value: ask for {column} with ('is', None).")
        yield column, operator, value


def check_condition(verb: str, where: Where) -> None:
    """Refuse a change without a condition.

    Raises
    ------
    StoreError
        If `where` is empty.
    """
    if not where:
        raise StoreError(f"{verb} needs a condition in `where`: without one it would touch every row.")
