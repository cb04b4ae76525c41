"""Checks plain data against a message before Google's JSON parser reads it, and reports every fault at once.

The parser stops at the first fault and tells its place in prose only. It also lets pass what a caller of ours surely
did not mean, such as null for a value or text for a 32-bit integer; `strict` refuses these.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from contextunity.core.errors import CodecError, Violation

from ._classes import message_class
from ._faults import item, join, reason_against, reason_against_range
from ._model import FieldModel, Kind, MessageModel, ValueType, model_of
from ._runtime import MAX_DEPTH, short

_EXACT = 1 << 53
"""Beyond it a double no longer tells neighbouring integers apart."""


def violations_of(cls: type, data: Any, *, strict: bool = True, ignore_unknown_fields: bool = False) -> list[Violation]:
    """Returns all that keeps `data`, plain ProtoJSON, from being a message of `cls`."""
    return list(Checker(strict=strict, ignore_unknown_fields=ignore_unknown_fields).message(cls, data, "", 0))


class Checker:
    """Walks data along the models of messages."""

    def __init__(self, *, strict: bool, ignore_unknown_fields: bool) -> None:
        self._strict = strict
        self._ignore_unknown_fields = ignore_unknown_fields

    def message(self, cls: type, data: Any, path: str, depth: int) -> Iterator[Violation]:
        """Checks what stands for a message, whether of a well-known type or not."""
        if depth > MAX_DEPTH:
            yield Violation(path, f"messages are nested more than {MAX_DEPTH} deep")
            return
        model = model_of(cls)
        special = _SPECIAL.get(model.name)
        if special is not None:
            yield from special(self, model, data, path, depth)
        elif not isinstance(data, Mapping):
            yield Violation(path, f"expected an object, got {_kind(data)}")
        else:
            yield from self.fields(cls, data, path, depth)

    def fields(self, cls: type, data: Mapping[Any, Any], path: str, depth: int) -> Iterator[Violation]:
        """Checks the keys of an object and the values under them."""
        by_key = {key: field for field in model_of(cls).fields for key in (field.json_name, field.name)}
        given: dict[int, str] = {}
        oneofs: dict[str, str] = {}
        for key, value in data.items():
            field = by_key.get(key)
            if field is None:
                yield from self._unknown_key(key, by_key, path)
                continue
            where = join(path, field.name)
            if field.number in given:
                yield Violation(where, f"given twice, as {given[field.number]!r} and as {key!r}")
                continue
            given[field.number] = key
            if field.oneof and not self._is_absent(field, value):
                other = oneofs.setdefault(field.oneof, field.name)
                if other != field.name:
                    yield Violation(where, f"oneof {field.oneof} already holds {other}; give one of its members")
            yield from self._field(field, value, where, depth)

    def _unknown_key(self, key: Any, known: Mapping[str, FieldModel], path: str) -> Iterator[Violation]:
        if not isinstance(key, str):
            yield Violation(item(path, key), f"expected a str as a key, got {_kind(key)}")
        elif not self._ignore_unknown_fields:
            names = list(dict.fromkeys(field.name for field in known.values()))
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
            hint = f"; did you mean {known[near[0]].name}?" if near else _hint(key, names, "there are")
            yield Violation(join(path, key), f"no such field{hint}")

    def _is_absent(self, field: FieldModel, value: Any) -> bool:
        return value is None and not _takes_null(field.value)

    def _field(self, field: FieldModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if data is None and not (_takes_null(field.value) and not field.repeated and field.key is None):
            if self._strict:
                yield Violation(path, "null is no value; leave the field out")
        elif field.key is not None:
            yield from self._map(field, field.key, data, path, depth)
        elif field.repeated:
            if not isinstance(data, list | tuple):
                yield Violation(path, f"expected a list, got {_kind(data)}")
                return
            for index, element in enumerate(data):
                yield from self._element(field.value, element, item(path, index), depth + 1)
        else:
            yield from self._value(field.value, data, path, depth + 1)

    def _map(self, field: FieldModel, key: ValueType, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if not isinstance(data, Mapping):
            yield Violation(path, f"expected an object, got {_kind(data)}")
            return
        for name, element in data.items():
            where = item(path, name)
            if reason := _key_reason(key, name):
                yield Violation(where, f"as a key: {reason}")
            yield from self._element(field.value, element, where, depth + 2)

    def _element(self, value: ValueType, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if data is None and not _takes_null(value):
            yield Violation(path, "null is no value")
        else:
            yield from self._value(value, data, path, depth)

    def _value(self, value: ValueType, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if value.kind is Kind.MESSAGE:
            assert value.cls is not None
            yield from self.message(value.cls, data, path, depth)
            return
        yield from _violation(path, self._reason(value, data))

    def _reason(self, value: ValueType, data: Any) -> str:
        match value.kind:
            case Kind.WRAPPER:
                assert value.inner is not None
                return self._reason(value.inner, data)
            case Kind.STRING:
                return reason_against(value, data) if isinstance(data, str) else f"expected text, got {_kind(data)}"
            case Kind.BOOL:
                return "" if isinstance(data, bool) else f"expected a boolean, got {_kind(data)}"
            case Kind.BYTES:
                return _base64_reason(data)
            case Kind.DOUBLE | Kind.FLOAT:
                return self._number_reason(value, data)
            case Kind.TIMESTAMP:
                return _text_reason(Timestamp, data, _TIME)
            case Kind.DURATION:
                return _text_reason(Duration, data, _DURATION)
            case Kind.ENUM:
                return self._enum_reason(value, data)
            case _:
                return self._int_reason(value, data)

    def _number_reason(self, value: ValueType, data: Any) -> str:
        if isinstance(data, str):
            if data in ("NaN", "Infinity", "-Infinity"):
                return ""
            if self._strict:
                return f"expected a number, got text {_quoted(data)}"
            return "" if _is_number(data) else f"{_quoted(data)} is no number"
        if not isinstance(data, int | float) or isinstance(data, bool):
            return f"expected a number, got {_kind(data)}"
        return reason_against(value, data)

    def _int_reason(self, value: ValueType, data: Any) -> str:
        number = data
        if isinstance(data, str):
            if self._strict and value.bits == 32:
                return f"expected an integer, got text {_quoted(data)}"
            return _digits_reason(value, data)
        if isinstance(data, float):
            if not data.is_integer():
                return f"expected an integer, got {data}"
            if abs(data) > _EXACT:
                return f"{short(data)} is beyond 2^53, where a number loses precision; send the integer as text"
            number = int(data)
        elif not isinstance(data, int) or isinstance(data, bool):
            return f"expected an integer, got {_kind(data)}"
        return reason_against_range(value, number)

    def _enum_reason(self, value: ValueType, data: Any) -> str:
        if not isinstance(data, str):
            reason = self._int_reason(value, data)
            return f"expected a name of {value.name}, got {_kind(data)}" if reason.startswith("expected") else reason
        names = list(value.descriptor.enum_type.values_by_name)
        if data in names or (not self._strict and _INTEGER.fullmatch(data) and not _digits_reason(value, data)):
            return ""
        return f"{_quoted(data)} is no {value.name}{_hint(data, names, 'it has')}"

    def _any(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if not isinstance(data, Mapping):
            yield Violation(path, f"expected an object, got {_kind(data)}")
            return
        if not data:
            return
        url = data.get("@type")
        if not isinstance(url, str) or "/" not in url:
            yield Violation(join(path, "@type"), "expected a type URL, such as type.googleapis.com/package.Message")
            return
        try:
            cls = message_class(url.rpartition("/")[2])
        except CodecError as error:
            yield Violation(join(path, "@type"), error.reason)
            return
        rest = {key: value for key, value in data.items() if key != "@type"}
        if model_of(cls).name not in _SPECIAL:
            yield from self.fields(cls, rest, path, depth + 1)
        elif "value" not in rest:
            yield Violation(join(path, "value"), f"missing; {model_of(cls).name} stands under this key inside an Any")
        else:
            yield from self.message(cls, rest["value"], join(path, "value"), depth + 1)

    def _json_object(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if not isinstance(data, Mapping):
            yield Violation(path, f"expected an object, got {_kind(data)}")
            return
        for key, value in data.items():
            if not isinstance(key, str):
                yield Violation(item(path, key), f"expected a str as a key, got {_kind(key)}")
            else:
                yield from self._json_value(model, value, item(path, key), depth + 2)

    def _json_list(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if not isinstance(data, list | tuple):
            yield Violation(path, f"expected a list, got {_kind(data)}")
            return
        for index, element in enumerate(data):
            yield from self._json_value(model, element, item(path, index), depth + 1)

    def _json_value(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if depth > MAX_DEPTH:
            yield Violation(path, f"messages are nested more than {MAX_DEPTH} deep")
        elif isinstance(data, Mapping):
            yield from self._json_object(model, data, path, depth + 1)
        elif isinstance(data, list | tuple):
            yield from self._json_list(model, data, path, depth + 1)
        else:
            yield from _violation(path, json_scalar_reason(data))

    def _mask(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        yield from _violation(path, _text_reason(FieldMask, data, "paths in lowerCamelCase, separated by commas"))

    def _timestamp(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        yield from _violation(path, _text_reason(Timestamp, data, _TIME))

    def _duration(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        yield from _violation(path, _text_reason(Duration, data, _DURATION))

    def _wrapper(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        yield from self._value(model.fields[0].value, data, path, depth)


def json_scalar_reason(data: Any) -> str:
    """Returns why a value cannot stand in a Struct, or an empty text; lists and objects are not its matter."""
    if data is None or isinstance(data, bool):
        return ""
    if isinstance(data, str):
        return "" if is_text(data) else "not text: it has lone surrogates"
    if isinstance(data, int):
        if abs(data) > _EXACT and not _is_exact(data):
            return f"{short(data)} cannot be told exactly by a double, as a Struct holds it; give it as text"
        return ""
    if isinstance(data, float):
        return "" if math.isfinite(data) else f"a Struct holds finite numbers, not {data}"
    return f"a Struct holds null, booleans, numbers, text, lists and objects, not {type(data).__name__}"


def is_text(data: str) -> bool:
    """Whether UTF-8 can encode it."""
    try:
        data.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_exact(number: int) -> bool:
    try:
        return int(float(number)) == number
    except OverflowError:
        return False


def _violation(path: str, reason: str) -> Iterator[Violation]:
    if reason:
        yield Violation(path, reason)


def _takes_null(value: ValueType) -> bool:
    return value.name in ("google.protobuf.Value", "google.protobuf.NullValue")


def _key_reason(key: ValueType, name: Any) -> str:
    if not isinstance(name, str):
        return f"expected a str, as keys are in JSON, got {_kind(name)}"
    match key.kind:
        case Kind.STRING:
            return "" if is_text(name) else "not text: it has lone surrogates"
        case Kind.BOOL:
            return "" if name in ("true", "false") else f"{_quoted(name)} is neither true nor false"
        case _:
            return _digits_reason(key, name)


def _digits_reason(value: ValueType, text: str) -> str:
    if _INTEGER.fullmatch(text) is None:
        return f"{_quoted(text)} is no integer"
    return reason_against_range(value, int(text)) if len(text) <= 32 else f"{_quoted(text)} is out of range"


def _base64_reason(data: Any) -> str:
    if not isinstance(data, str):
        return f"expected base64 text, got {_kind(data)}"
    try:
        text = data.encode("ascii").translate(_URL_SAFE).rstrip(b"=")
        base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return f"{_quoted(data)} is no base64"
    return ""


def _text_reason(parser: type[Timestamp | Duration | FieldMask], data: Any, expected: str) -> str:
    if not isinstance(data, str):
        return f"expected {expected}, got {_kind(data)}"
    try:
        parser().FromJsonString(data)
    except (ValueError, OverflowError):
        return f"{_quoted(data)} is not {expected}"
    return ""


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


def _kind(data: Any) -> str:
    """What JSON calls a value."""
    match data:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return f"the number {short(data)}"
        case str():
            return f"text {_quoted(data)}"
        case Mapping():
            return "an object"
        case list() | tuple():
            return "a list"
        case _:
            return type(data).__name__


def _quoted(text: str) -> str:
    return ascii(text) if len(text) <= 40 else f"{text[:37]!a}..."


def _hint(wrong: str, known: Sequence[str], noun: str) -> str:
    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]}?"
    names = [*known[:12], *(["..."] if len(known) > 12 else [])]
    return f"; {noun} {', '.join(names)}" if names else ""


_INTEGER = re.compile(r"-?[0-9]+")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_TIME = "an RFC 3339 time, such as 2030-01-31T12:00:00Z"
_DURATION = "a duration in seconds, such as 1.5s"

_WRAPPERS = ("Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64")

_SPECIAL: dict[str, Callable[[Checker, MessageModel, Any, str, int], Iterator[Violation]]] = {
    "google.protobuf.Any": Checker._any,
    "google.protobuf.Duration": Checker._duration,
    "google.protobuf.FieldMask": Checker._mask,
    "google.protobuf.ListValue": Checker._json_list,
    "google.protobuf.Struct": Checker._json_object,
    "google.protobuf.Timestamp": Checker._timestamp,
    "google.protobuf.Value": Checker._json_value,
    **{f"google.protobuf.{name}Value": Checker._wrapper for name in _WRAPPERS},
}
"""Messages whose ProtoJSON is not an object of their fields."""
