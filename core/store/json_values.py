"""Postgres values as the JSON that PostgREST reads and writes, and back to the types that psycopg gives.

JSON has no infinity and Postgres writes it as text; the sign of a negative zero does not survive.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
from pgvector import HalfVector, Vector
from psycopg.types.json import Json, Jsonb
from psycopg.types.range import Range

from core.errors import StoreError
from core.store.demands import in_utc


def _time(text: str) -> datetime:
    return in_utc(datetime.fromisoformat(text))  # type: ignore[no-any-return]


def _range(text: str) -> Range[datetime]:
    if text == "empty":
        return Range(empty=True)
    lower, upper = (part.strip('"') for part in text[1:-1].split(","))
    return Range(_time(lower) if lower else None, _time(upper) if upper else None, text[0] + text[-1])


_DECODERS: Mapping[str, Callable[[Any], Any]] = {
    "bytea": lambda value: bytes.fromhex(value[2:]),
    "date": date.fromisoformat,
    "float4": float,
    "float8": float,
    "halfvec": HalfVector.from_text,
    "numeric": lambda value: Decimal(str(value)),
    "timestamptz": _time,
    "tstzrange": _range,
    "uuid": uuid.UUID,
    "vector": Vector.from_text,
}


def decode_value(value: Any, type_name: str) -> Any:
    """Return what JSON carried as the Python type that psycopg gives.

    Parameters
    ----------
    type_name : str
        Name of the Postgres type in the catalogue, such as ``timestamptz`` or ``_uuid``.
    """
    if value is None:
        return None
    if type_name.startswith("_") and isinstance(value, list):
        return [decode_value(item, type_name[1:]) for item in value]
    decode = _DECODERS.get(type_name)
    return value if decode is None else decode(value)


def encode_value(value: Any) -> Any:
    """Return a value as JSON that Postgres reads as its type."""
    value = in_utc(value)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list | tuple):
        return [encode_value(item) for item in value]
    if isinstance(value, Json | Jsonb):
        return _checked_json(value.obj)
    if isinstance(value, Mapping):
        return _checked_json(dict(value))
    if isinstance(value, np.generic):
        return encode_value(value.item())
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    return _text(value)


def _checked_json(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StoreError(f"invalid value for type json: {error}") from error
    return value


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return "[" + ",".join(map(repr, value.astype(float).tolist())) + "]"
    if isinstance(value, HalfVector | Vector):
        return value.to_text()
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, uuid.UUID | Decimal | bool):
        return str(value).lower()
    if isinstance(value, Range):
        if value.isempty:
            return "empty"
        ends = ("" if end is None else _text(in_utc(end)) for end in (value.lower, value.upper))
        return "{}{},{}{}".format(value.bounds[0], *ends, value.bounds[1])
    if isinstance(value, float | np.generic):
        return str(encode_value(value))
    return str(value)


def literal(value: Any) -> str:
    """Return a value as Postgres reads it in a condition."""
    value = in_utc(value)
    if isinstance(value, list | tuple):
        quoted = ('"' + literal(item).replace("\\", "\\\\").replace('"', '\\"') + '"' for item in value)
        return "{" + ",".join(quoted) + "}"
    if isinstance(value, Json | Jsonb | Mapping):
        return json.dumps(value.obj if isinstance(value, Json | Jsonb) else dict(value))
    return _text(value)
