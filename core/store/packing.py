"""Rows as the bytes of a binary COPY, a column at a time: what makes bulk writes fast.

Hides Postgres's binary formats of the types that bulk tables have. Promises the same bytes that psycopg would send, or
`UnpackableError` when a column holds something this room does not know; then psycopg does it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, repeat
from typing import Any
from uuid import UUID

import numpy as np
from psycopg.types.range import Range

from core.errors import StoreError
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


_BLOCK_ROWS = 128


class UnpackableError(Exception):
    """A value is of a kind that psycopg has to send, or to refuse in its own words."""


def pack_rows(rows: Sequence[Row], columns: Sequence[str], types: Sequence[str]) -> Iterator[bytes]:
    """Yield the rows as a binary COPY, block by block, so that the server stores one while the next is made.

    Parameters
    ----------
    types : sequence of str
        Name of each column's Postgres type in the catalogue.

    Raises
    ------
    UnpackableError
        If a value is not of its column's usual Python type; blocks may have gone before.
    """
    yield _HEADER
    count = struct.pack(">h", len(columns))
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        packed: list[Iterator[bytes]] = [repeat(count)]
        try:
            for column, name in zip(columns, types, strict=True):
                values = [row[column] for row in block]
                packed.append(iter(_pack_vectors(values) if name == "vector" else _pack(values, name)))
        except UnicodeEncodeError as error:
            raise UnpackableError from error
        yield b"".join(chain.from_iterable(zip(*packed, strict=False)))
    yield _END


def check_integers(rows: Sequence[Row], columns: Sequence[str], types: Sequence[str]) -> None:
    """Refuse integers that their columns cannot hold; psycopg's binary copy would wrap them around without a word.

    Raises
    ------
    StoreError
        It names the column, its type and the value.
    """
    for column, name in zip(columns, types, strict=True):
        if name in _BITS:
            limit = 1 << (_BITS[name] - 1)
            for row in rows:
                if isinstance(value := row[column], int) and not -limit <= value < limit:
                    raise StoreError(f'column "{column}" holds {name}, which ends at {limit - 1:,}; got {value:,}.')


def _pack(values: Sequence[Any], name: str) -> list[bytes]:
    kind, pack = _PACKERS.get(name, (None, None))
    kinds = set(map(type, values)) - {type(None)}
    if pack is None or kinds - {kind}:
        raise UnpackableError
    if None in values:
        return [_NULL if value is None else pack(value) for value in values]
    return list(map(pack, values))


def _pack_vectors(values: Sequence[Any]) -> list[bytes]:
    width = len(values[0]) if isinstance(values[0], np.ndarray) else 0
    for value in values:
        if not isinstance(value, np.ndarray) or value.shape != (width,) or width == 0:
            raise UnpackableError
    head = struct.pack(">ihh", 4 + 4 * width, width, 0)
    content = np.stack(values).astype(">f4").tobytes()
    step = 4 * width
    return [head + content[start : start + step] for start in range(0, len(content), step)]


def _microseconds(value: datetime) -> int:
    if value.tzinfo is None:
        raise UnpackableError
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
        raise UnpackableError
    flags = (2 if value.lower_inc else 0) | (4 if value.upper_inc else 0)
    content = bytes([flags]) + _EIGHT(8, _microseconds(value.lower)) + _EIGHT(8, _microseconds(value.upper))
    return _LENGTH(len(content)) + content


_BITS = {"int2": 16, "int4": 32, "int8": 64}
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
