"""Rows as the bytes of a binary COPY, a column at a time: what makes bulk writes fast.

Hides Postgres's binary formats of the types that bulk tables have. Promises the same bytes that psycopg would send, or None
when a column holds something this room does not know; then psycopg does it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
from psycopg.types.range import Range

from core.store.gateway import Row

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_encode_json = json.JSONEncoder().encode
_LENGTH = struct.Struct(">i").pack
_EIGHT = struct.Struct(">iq").pack
_FLOAT = struct.Struct(">id").pack
_FOUR = struct.Struct(">ii").pack


class _Unknown(Exception):
    pass


def pack_rows(rows: Sequence[Row], columns: Sequence[str], types: Sequence[str]) -> bytes | None:
    """Return the rows as a whole binary COPY, or None when a value is of a kind that psycopg has to send.

    Parameters
    ----------
    types : sequence of str
        Name of each column's Postgres type in the catalogue.
    """
    packed = []
    try:
        for column, name in zip(columns, types, strict=True):
            values = [row[column] for row in rows]
            packed.append(_pack_vectors(values) if name == "vector" else _pack(values, name))
    except _Unknown:
        return None
    count = struct.pack(">h", len(columns))
    return b"".join((_HEADER, *(b"".join((count, *parts)) for parts in zip(*packed, strict=True)), _END))


def _pack(values: Sequence[Any], name: str) -> list[bytes]:
    kind, pack = _PACKERS.get(name, (None, None))
    kinds = set(map(type, values)) - {type(None)}
    if pack is None or kinds - {kind}:
        raise _Unknown
    if None in values:
        return [_NULL if value is None else pack(value) for value in values]
    return list(map(pack, values))


def _pack_vectors(values: Sequence[Any]) -> list[bytes]:
    width = len(values[0]) if isinstance(values[0], np.ndarray) else 0
    for value in values:
        if not isinstance(value, np.ndarray) or value.shape != (width,) or width == 0:
            raise _Unknown
    head = struct.pack(">ihh", 4 + 4 * width, width, 0)
    content = np.stack(values).astype(">f4").tobytes()
    step = 4 * width
    return [head + content[start : start + step] for start in range(0, len(content), step)]


def _microseconds(value: datetime) -> int:
    if value.tzinfo is None:
        raise _Unknown
    passed = value - _EPOCH
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds


def _pack_text(value: str) -> bytes:
    content = value.encode()
    return _LENGTH(len(content)) + content


def _pack_json(value: dict[str, Any]) -> bytes:
    content = _encode_json(value).encode()
    return _LENGTH(len(content) + 1) + b"\x01" + content


def _pack_range(value: Range[datetime]) -> bytes:
    if type(value.lower) is not datetime or type(value.upper) is not datetime:
        raise _Unknown
    flags = (2 if value.lower_inc else 0) | (4 if value.upper_inc else 0)
    content = bytes([flags]) + _EIGHT(8, _microseconds(value.lower)) + _EIGHT(8, _microseconds(value.upper))
    return _LENGTH(len(content)) + content


_PACKERS: dict[str, tuple[type, Callable[[Any], bytes]]] = {
    "bool": (bool, lambda value: b"\x00\x00\x00\x01" + (b"\x01" if value else b"\x00")),
    "float8": (float, lambda value: _FLOAT(8, value)),
    "int4": (int, lambda value: _FOUR(4, value)),
    "int8": (int, lambda value: _EIGHT(8, value)),
    "jsonb": (dict, _pack_json),
    "text": (str, _pack_text),
    "timestamptz": (datetime, lambda value: _EIGHT(8, _microseconds(value))),
    "tstzrange": (Range, _pack_range),
    "uuid": (UUID, lambda value: b"\x00\x00\x00\x10" + value.bytes),
}
