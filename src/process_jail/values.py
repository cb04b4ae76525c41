"""Encode a result as JSON without loss, or explain why that is impossible."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Generator, Iterable
from typing import TypeAlias, cast

__all__ = ["EXACT_INTEGERS", "MAX_DEPTH", "CannotCarry", "JsonValue", "carry", "encode"]

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

EXACT_INTEGERS = 1 << 53
"""Largest integer, and negated the smallest, that is exact as a double, which JSON parsers may use for all numbers."""
MAX_DEPTH = 24
"""Maximum levels of lists and dicts. Parsers reject deeper messages, those of protobuf beyond some 30."""
_PATH_CHARACTERS = 120
# Methods of the builtin types, not those with which a derived type overrides them.
_ITEMS: Callable[[dict[object, object]], Iterable[tuple[object, object]]] = vars(dict)["items"]
_ITERATE_LIST: Callable[[list[object]], Iterable[object]] = vars(list)["__iter__"]
_ITERATE_TUPLE: Callable[[tuple[object, ...]], Iterable[object]] = vars(tuple)["__iter__"]
_NAME_OF: Callable[[type], str] = vars(type)["__name__"].__get__
_WAYS_OUT = {
    "set": "use sorted(…) or list(…)",
    "frozenset": "use sorted(…) or list(…)",
    "bytes": "decode it, or use base64",
    "bytearray": "decode it, or use base64",
    "Decimal": "use float(…) or str(…)",
    "Fraction": "use float(…) or str(…)",
    "complex": "use [z.real, z.imag]",
    "datetime": "use .isoformat()",
    "date": "use .isoformat()",
    "time": "use .isoformat()",
    "timedelta": "use .total_seconds()",
    "generator": "use list(…)",
    "range": "use list(…)",
    "map": "use list(…)",
    "filter": "use list(…)",
    "zip": "use list(…)",
    "dict_keys": "use list(…)",
    "dict_values": "use list(…)",
    "dict_items": "use dict(…)",
}


class CannotCarry(Exception):  # noqa: N818 - it describes the value, and is not an error of the jail
    """A value cannot be a result. The text names its path, its type and the way out."""


def encode(value: object, limit: int) -> bytes:
    """Encode a value as JSON.

    Raises:
        CannotCarry: JSON cannot represent the value, or it takes more bytes than the limit.
    """
    text = json.dumps(carry(value, limit), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    data = text.encode("utf-8")
    if len(data) > limit:
        raise CannotCarry(f"result takes {len(data):,} bytes as JSON; the limit is {limit:,}")
    return data


def carry(value: object, limit: int) -> JsonValue:
    """Convert a value to JSON types: a tuple to a list, an object of a derived type to its base type.

    Args:
        value: any value; its own methods are not called.
        limit: maximum bytes as JSON; approximate, to stop before anything large is copied.

    Raises:
        CannotCarry: JSON cannot represent the value, or it is larger than the limit.
    """
    return _Carrier(limit).value(value, "result", 0)


class _Carrier:
    """Convert one value. Call the methods of builtin types, never the value's own."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = limit
        self._inside: set[int] = set()

    def value(self, value: object, path: str, depth: int) -> JsonValue:
        self._take(1)
        if value is None or value is True or value is False:
            return value
        # Not isinstance, which reads the value's `__class__`.
        kind = type(value)
        if issubclass(kind, str):
            return self._text(cast("str", value), path)
        if issubclass(kind, int):
            return _integer(cast("int", value), path)
        if issubclass(kind, float):
            return _float(cast("float", value), path)
        if issubclass(kind, dict):
            return self._dict(cast("dict[object, object]", value), path, depth)
        if issubclass(kind, list):
            return self._list(_ITERATE_LIST(cast("list[object]", value)), value, path, depth)
        if issubclass(kind, tuple):
            return self._list(_ITERATE_TUPLE(cast("tuple[object, ...]", value)), value, path, depth)
        name = _type_name(value)
        way_out = _WAYS_OUT.get(name, "make it of None, bool, int, float, str, list and dict")
        raise CannotCarry(f"{_short(path)} is of type {_short(name)}, which JSON cannot represent; {way_out}")

    def _dict(self, value: dict[object, object], path: str, depth: int) -> JsonValue:
        with self._within(value, path, depth):
            return {
                self._key(key, path): self.value(item, f"{path}[{_key_text(key)}]", depth + 1)
                for key, item in _ITEMS(value)
            }

    def _list(self, items: Iterable[object], value: object, path: str, depth: int) -> JsonValue:
        with self._within(value, path, depth):
            return [self.value(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(items)]

    @contextlib.contextmanager
    def _within(self, value: object, path: str, depth: int) -> Generator[None]:
        if id(value) in self._inside:
            raise CannotCarry(f"{_short(path)} is part of itself")
        if depth == MAX_DEPTH:
            raise CannotCarry(f"{_short(path)} is nested more than {MAX_DEPTH} deep")
        self._inside.add(id(value))
        try:
            yield
        finally:
            self._inside.discard(id(value))

    def _key(self, key: object, path: str) -> str:
        if issubclass(type(key), str):
            return self._text(cast("str", key), f"a key of {path}")
        raise CannotCarry(
            f"{_short(path)} has a key of type {_short(_type_name(key))}; keys must be text, such as str(key)"
        )

    def _text(self, value: str, path: str) -> str:
        plain = str.__str__(value) if type(value) is str else str.__getitem__(value, slice(None))
        self._take(len(plain))
        if not plain.isascii():
            try:
                plain.encode("utf-8")
            except UnicodeEncodeError:
                raise CannotCarry(f"{_short(path)} contains a lone surrogate, which is not valid text") from None
        return plain

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise CannotCarry(f"result takes more than the limit of {self._limit:,} bytes")


def _integer(value: int, path: str) -> int:
    plain = int.__index__(value) if type(value) is not int else value
    if -EXACT_INTEGERS <= plain <= EXACT_INTEGERS:
        return plain
    told = str(plain) if plain.bit_length() <= 256 else f"an integer of {plain.bit_length():,} bits"
    raise CannotCarry(f"{_short(path)} is {told}, beyond 2^53, which JSON cannot represent exactly; use str(…)")


def _float(value: float, path: str) -> float:
    plain = float.__float__(value)
    if math.isfinite(plain):
        return plain
    raise CannotCarry(f"{_short(path)} is {plain}, which JSON does not have; use None or text")


def _key_text(key: object) -> str:
    return repr(str.__getitem__(cast("str", key), slice(0, 40))) if issubclass(type(key), str) else "…"


def _type_name(value: object) -> str:
    return _NAME_OF(type(value))


def _short(text: str) -> str:
    return text if len(text) <= _PATH_CHARACTERS else f"{text[:80]}…{text[-30:]}"
