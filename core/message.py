"""Message: what the agents say to one another, checked when it is made and faithful through JSON.

Hides how a field's annotation becomes a check, an encoder and a decoder. Promises that a message cannot be built with a
value its annotation does not allow, that it cannot be changed afterwards, and that ``from_dict(to_dict())`` is equal to it.
"""

from __future__ import annotations

import difflib
import enum
import functools
import json
import math
import numbers
import reprlib
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from core.errors import DataError


class Brief(reprlib.Repr):
    """`repr` of a bounded length and depth, of whatever it is, which never raises where Python's own would."""

    def repr_int(self, x: int, level: int) -> str:
        """Return the digits, unless there are more than Python writes."""
        try:
            return super().repr_int(x, level)
        except ValueError:
            return f"<a whole number of {x.bit_length()} bits>"


_brief = Brief()
_brief.maxstring = _brief.maxother = 80


def brief(value: object) -> str:
    """Return a value in short, for a text that says what came."""
    return _brief.repr(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A condition on a field, written into its annotation: ``Annotated[float, Rule(...)]``.

    Parameters
    ----------
    expected : str
        What is allowed, in words that complete "must be ...".
    holds : callable
        Takes the value, already of the annotated type; true when it is allowed.
    """

    expected: str
    holds: Callable[[Any], bool]


class Message:
    """Base of every message: a frozen, keyword-only dataclass whose annotations are enforced.

    Notes
    -----
    Allowed annotations: ``str``, ``float``, ``int``, ``bool``, ``datetime``, ``UUID``, ``Any`` (what JSON can carry), enums,
    other messages, ``tuple[T, ...]``, ``Mapping[str, T]``, ``T | None`` and ``Annotated[T, Rule(...)]``. Numbers are finite and
    become plain ``float`` or ``int``, times must have the UTC offset zero and become plain ``datetime``, mappings become
    read-only. Pickling and copying go through `to_dict`, so that a message that comes out of a pickle has been checked again.
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        for name, check in _shape(type(self)).checks:
            given = getattr(self, name)
            try:
                value = check(given)
            except _Mismatch as mismatch:
                raise mismatch.of(type(self), name) from None
            if value is not given:
                object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        """Check what no single field can show."""

    def to_dict(self) -> dict[str, Any]:
        """Return the message as values that JSON can carry; times in ISO 8601."""
        return {name: codec.encode(getattr(self, name)) for name, codec in _shape(type(self)).codecs.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build the message from what `to_dict` returned.

        Raises
        ------
        DataError
            If a key is unknown or missing, or a value is not what its field must be.
        """
        if not isinstance(data, Mapping):
            raise DataError(f"`{cls.__name__}` must be read from a mapping, was {brief(data)}.")
        shape = _shape(cls)
        codecs = shape.codecs
        for key in data:
            if key not in codecs:
                named = key if isinstance(key, str) else brief(key)
                close = difflib.get_close_matches(named, codecs, n=1)
                hint = f"did you mean `{close[0]}`? " if close else ""
                raise DataError(f"`{cls.__name__}` has no field `{named}`; {hint}Allowed: {', '.join(codecs)}.")
        for name in shape.needed:
            if name not in data:
                raise DataError(f"`{cls.__name__}` needs the field `{name}`, which is not there.")
        values = {}
        for key, raw in data.items():
            try:
                values[key] = codecs[key].decode(raw)
            except _Mismatch as mismatch:
                raise mismatch.of(cls, key) from None
        return cls(**values)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_dict, (self.to_dict(),)


def refuse(message: Message, name: str, expected: str, value: object) -> DataError:
    """Build the error for a field of `message` that is not `expected`."""
    return _Mismatch(expected, value).of(type(message), name)


class _Mismatch(Exception):
    def __init__(self, expected: str, value: object) -> None:
        super().__init__(expected)
        self.expected, self.value = expected, value

    def of(self, cls: type, name: str) -> DataError:
        return DataError(f"`{cls.__name__}.{name}` must be {self.expected}, was {brief(self.value)}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Codec:
    check: Callable[[Any], Any]
    encode: Callable[[Any], Any] = lambda value: value
    decode: Callable[[Any], Any] = lambda value: value


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shape:
    codecs: dict[str, _Codec]
    checks: tuple[tuple[str, Callable[[Any], Any]], ...]
    needed: tuple[str, ...]


def _shape(cls: Any) -> _Shape:
    # Any in between: to mypy the class of a message is not hashable, which a cache asks for.
    return _compiled(cls)


@functools.cache
def _compiled(cls: Any) -> _Shape:
    hints = get_type_hints(cls, include_extras=True)
    codecs = {item.name: _codec(hints[item.name]) for item in fields(cls)}
    return _Shape(
        codecs=codecs,
        checks=tuple((name, codec.check) for name, codec in codecs.items()),
        needed=tuple(item.name for item in fields(cls) if item.default is MISSING and item.default_factory is MISSING),
    )


def _codec(hint: Any) -> _Codec:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _ruled(_codec(arguments[0]), arguments[1:])
    if origin in (Union, types.UnionType):
        return _optional(_codec(next(part for part in arguments if part is not type(None))))
    if origin is tuple:
        return _tuple(_codec(arguments[0]))
    if origin is Mapping:
        return _mapping(_codec(arguments[0]), _codec(arguments[1]))
    if issubclass(hint, Message):
        return _instance(hint, encode=lambda value: value.to_dict(), decode=hint.from_dict)
    if issubclass(hint, enum.StrEnum):
        return _instance(hint, encode=lambda value: value.value, decode=lambda raw: _member(hint, raw))
    return _SCALARS[hint]


def _ruled(inner: _Codec, rules: tuple[Rule, ...]) -> _Codec:
    check_type = inner.check

    def check(value: Any) -> Any:
        value = check_type(value)
        for rule in rules:
            if not rule.holds(value):
                raise _Mismatch(rule.expected, value)
        return value

    return _Codec(check=check, encode=inner.encode, decode=inner.decode)


def _optional(inner: _Codec) -> _Codec:
    def lift(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda value: None if value is None else function(value)

    return _Codec(check=lift(inner.check), encode=lift(inner.encode), decode=lift(inner.decode))


def _tuple(inner: _Codec) -> _Codec:
    def check(value: Any) -> Any:
        if not isinstance(value, tuple):
            raise _Mismatch("a tuple", value)
        return tuple(inner.check(item) for item in value)

    def decode(raw: Any) -> Any:
        if not isinstance(raw, list | tuple):
            raise _Mismatch("a list", raw)
        return tuple(inner.decode(item) for item in raw)

    return _Codec(check=check, encode=lambda value: [inner.encode(item) for item in value], decode=decode)


def _mapping(key: _Codec, inner: _Codec) -> _Codec:
    def items(value: Any, key_of: Callable[[Any], Any], value_of: Callable[[Any], Any]) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _Mismatch("a mapping", value)
        return {key_of(name): value_of(item) for name, item in value.items()}

    return _Codec(
        check=lambda value: types.MappingProxyType(items(value, key.check, inner.check)),
        encode=lambda value: items(value, key.encode, inner.encode),
        decode=lambda raw: items(raw, key.decode, inner.decode),
    )


def _instance(cls: type, *, encode: Callable[[Any], Any], decode: Callable[[Any], Any]) -> _Codec:
    def check(value: Any) -> Any:
        if not isinstance(value, cls):
            raise _Mismatch(f"a {cls.__name__}", value)
        return value

    return _Codec(check=check, encode=encode, decode=decode)


def _member(cls: type[enum.StrEnum], raw: Any) -> enum.StrEnum:
    try:
        if isinstance(raw, str):  # else the enum would write all of it into its error
            return cls(raw)
    except ValueError:
        pass
    raise _Mismatch(f"one of {', '.join(cls)}", raw)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Mismatch("text", value)
    if "\x00" in value:
        raise _Mismatch("text without NUL characters, which Postgres cannot hold", value)
    return str(value)


def _float(value: Any) -> float:
    if type(value) is float and math.isfinite(value):  # the abstract classes below are slow to ask
        return value
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
        raise _Mismatch("a finite number", value)
    return float(value)


def _int(value: Any) -> int:
    if type(value) is int:
        return value
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise _Mismatch("a whole number", value)
    return int(value)


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Mismatch("true or false", value)
    return value


def _uuid(value: Any) -> UUID:
    if not isinstance(value, UUID):
        raise _Mismatch("a UUID", value)
    return value


def _uuid_from_text(raw: Any) -> UUID:
    try:
        return UUID(raw)
    except (AttributeError, TypeError, ValueError):
        raise _Mismatch("a UUID", raw) from None


def _json(value: Any) -> Any:
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        raise _Mismatch("what JSON can carry, with finite numbers", value) from None
    if "\\u0000" in text:
        raise _Mismatch("text without NUL characters, which Postgres cannot hold", value)
    return json.loads(text)


def _utc(value: Any) -> datetime:
    if type(value) is datetime and value.tzinfo is UTC:
        return value
    if not isinstance(value, datetime):
        raise _Mismatch("a datetime", value)
    if value.utcoffset() != timedelta(0):
        raise _Mismatch("a time in UTC (convert it with `.astimezone(UTC)`)", value)
    return datetime.combine(value.date(), value.time(), tzinfo=UTC)


def _time_from_text(raw: Any) -> datetime:
    try:
        return datetime.fromisoformat(raw)
    except (TypeError, ValueError):
        raise _Mismatch("a time in ISO 8601", raw) from None


_SCALARS: dict[Any, _Codec] = {
    str: _Codec(check=_text),
    float: _Codec(check=_float),
    int: _Codec(check=_int),
    bool: _Codec(check=_bool),
    Any: _Codec(check=_json),
    UUID: _Codec(check=_uuid, encode=str, decode=_uuid_from_text),
    datetime: _Codec(check=_utc, encode=datetime.isoformat, decode=_time_from_text),
}
