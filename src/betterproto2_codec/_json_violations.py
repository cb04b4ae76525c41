"""Check plain data against a message before Google's JSON parser reads it, and report every violation.

The parser stops at the first violation, and names its place in prose only. It also accepts what callers rarely mean,
such as null for a value or text for a 32-bit integer; `strict` rejects these.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from ._classes import message_class
from ._model import FieldModel, Kind, MessageModel, ValueType, model_of
from ._runtime import MAX_DEPTH, short
from ._violations import item, join, reason_against, reason_against_range
from .errors import CodecError, Violation

_MOST = 1000
"""Maximum number of reported violations: each takes time to describe, and no reader needs more."""


def violations_of(cls: type, data: Any, *, strict: bool = True, ignore_unknown_fields: bool = False) -> list[Violation]:
    """Return why `data`, plain ProtoJSON, is not a valid message of `cls`: up to a thousand violations."""
    found = Checker(strict=strict, ignore_unknown_fields=ignore_unknown_fields).message(cls, data, "", 0)
    told = list(itertools.islice(found, _MOST))
    if len(told) == _MOST and next(found, None) is not None:
        told.append(Violation("", f"there are more faults; only the first {_MOST:,} are listed"))
    return told


class Checker:
    """Walk data along the models of messages."""

    def __init__(self, *, strict: bool, ignore_unknown_fields: bool) -> None:
        self._strict = strict
        self._ignore_unknown_fields = ignore_unknown_fields

    def message(self, cls: type, data: Any, path: str, depth: int) -> Iterator[Violation]:
        """Check the data of one message, of a well-known type or not."""
        if depth > MAX_DEPTH:
            yield Violation(path, f"messages are nested more than {MAX_DEPTH} deep")
            return
        model = model_of(cls)
        special = _SPECIAL.get(model.name)
        if special is not None:
            yield from special(self, model, data, path, depth)
        elif not is_object(data):
            yield Violation(path, f"expected an object, got {kind_of(data)}")
        else:
            yield from self.fields(cls, data, path, depth)

    def fields(self, cls: type, data: Mapping[Any, Any], path: str, depth: int) -> Iterator[Violation]:
        """Check the keys of an object and the values under them."""
        by_key = model_of(cls).by_key
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
            yield Violation(item(path, key), f"expected a str as a key, got {kind_of(key)}")
        elif not self._ignore_unknown_fields:
            names = list(dict.fromkeys(field.name for field in known.values()))
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
            advice = f"; did you mean {known[near[0]].name}?" if near else hint(key, names, "known fields:")
            yield Violation(join(path, key), f"no such field{advice}")

    def _is_absent(self, field: FieldModel, value: Any) -> bool:
        return value is None and not takes_null(field.value)

    def _field(self, field: FieldModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if data is None and not (takes_null(field.value) and not field.repeated and field.key is None):
            if self._strict:
                yield Violation(path, "null is not allowed; leave the field out")
        elif field.key is not None:
            yield from self._map(field, field.key, data, path, depth)
        elif field.repeated:
            if not is_list(data):
                yield Violation(path, f"expected a list, got {kind_of(data)}")
                return
            for index, element in enumerate(data):
                yield from self._element(field.value, element, item(path, index), depth + 1)
        else:
            yield from self._value(field.value, data, path, depth + 1)

    def _map(self, field: FieldModel, key: ValueType, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if not is_object(data):
            yield Violation(path, f"expected an object, got {kind_of(data)}")
            return
        given: dict[int, str] = {}
        for name, element in data.items():
            where = item(path, name)
            if reason := key_reason(key, name):
                yield Violation(where, f"as a key: {reason}")
            elif key.kind is Kind.INT and (first := given.setdefault(int(name), name)) != name:
                yield Violation(where, f"as a key: given twice, as {first!r} and as {name!r}")
            yield from self._element(field.value, element, where, depth + 2)

    def _element(self, value: ValueType, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if data is None and not takes_null(value):
            yield Violation(path, "null is not allowed")
        else:
            yield from self._value(value, data, path, depth)

    def _value(self, value: ValueType, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if value.kind is Kind.MESSAGE:
            assert value.cls is not None
            yield from self.message(value.cls, data, path, depth)
            return
        if value.kind is Kind.ENUM and self._ignore_unknown_fields and isinstance(data, str) and not is_digits(data):
            return  # Google's parser skips an unknown enum name as it does an unknown field.
        yield from _violation(path, json_reason(value, data, strict=self._strict))

    def any(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if not is_object(data):
            yield Violation(path, f"expected an object, got {kind_of(data)}")
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
            yield Violation(join(path, "value"), f"missing; inside an Any, this key holds the {model_of(cls).name}")
        else:
            yield from self.message(cls, rest["value"], join(path, "value"), depth + 1)

    def json_object(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if not is_object(data):
            yield Violation(path, f"expected an object, got {kind_of(data)}")
            return
        for key, value in data.items():
            if not isinstance(key, str):
                yield Violation(item(path, key), f"expected a str as a key, got {kind_of(key)}")
            else:
                yield from self.json_value(model, value, item(path, key), depth + 2)

    def json_list(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if not is_list(data):
            yield Violation(path, f"expected a list, got {kind_of(data)}")
            return
        for index, element in enumerate(data):
            yield from self.json_value(model, element, item(path, index), depth + 1)

    def json_value(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        if depth > MAX_DEPTH:
            yield Violation(path, f"messages are nested more than {MAX_DEPTH} deep")
        elif is_object(data):
            yield from self.json_object(model, data, path, depth + 1)
        elif is_list(data):
            yield from self.json_list(model, data, path, depth + 1)
        else:
            yield from _violation(path, json_scalar_reason(data))

    def mask(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        yield from _violation(path, text_reason(FieldMask, data, "paths in lowerCamelCase, separated by commas"))

    def timestamp(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        yield from _violation(path, text_reason(Timestamp, data, TIME))

    def duration(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        yield from _violation(path, text_reason(Duration, data, DURATION))

    def wrapper(self, model: MessageModel, data: Any, path: str, depth: int) -> Iterator[Violation]:
        yield from self._value(model.fields[0].value, data, path, depth)


def _violation(path: str, reason: str) -> Iterator[Violation]:
    if reason:
        yield Violation(path, reason)


_WRAPPERS = ("Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64")

_SPECIAL: dict[str, Callable[[Checker, MessageModel, Any, str, int], Iterator[Violation]]] = {
    "google.protobuf.Any": Checker.any,
    "google.protobuf.Duration": Checker.duration,
    "google.protobuf.FieldMask": Checker.mask,
    "google.protobuf.ListValue": Checker.json_list,
    "google.protobuf.Struct": Checker.json_object,
    "google.protobuf.Timestamp": Checker.timestamp,
    "google.protobuf.Value": Checker.json_value,
    **{f"google.protobuf.{name}Value": Checker.wrapper for name in _WRAPPERS},
}
"""Checks of messages whose ProtoJSON is not an object of their fields."""


_EXACT = 1 << 53
"""Beyond this, a double no longer distinguishes neighbouring integers."""

_INTEGER = re.compile(r"-?[0-9]+")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_TEXTS = {
    Timestamp: re.compile(
        r"[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
    ),
    Duration: re.compile(r"-?[0-9]+(\.[0-9]{1,9})?s"),
    FieldMask: re.compile(r"[^_]*"),
}
"""What ProtoJSON writes. Google's parsers look for less: they take `1_0s` and digits of other scripts."""
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
TIME = "an RFC 3339 time, such as 2030-01-31T12:00:00Z"
DURATION = "a duration in seconds, such as 1.5s"


def is_object(data: Any) -> TypeGuard[Mapping[Any, Any]]:
    """Return whether the value represents a JSON object."""
    return isinstance(data, Mapping)


def is_list(data: Any) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    """Return whether the value represents a JSON list."""
    return isinstance(data, list | tuple)


def json_reason(value: ValueType, data: Any, *, strict: bool) -> str:
    """Return why plain data is invalid for a scalar or enum type; an empty text if it is valid."""
    match value.kind:
        case Kind.WRAPPER:
            assert value.inner is not None
            return json_reason(value.inner, data, strict=strict)
        case Kind.STRING:
            return reason_against(value, data) if isinstance(data, str) else f"expected text, got {kind_of(data)}"
        case Kind.BOOL:
            return "" if isinstance(data, bool) else f"expected a boolean, got {kind_of(data)}"
        case Kind.BYTES:
            return _base64_reason(data)
        case Kind.DOUBLE | Kind.FLOAT:
            return _number_reason(value, data, strict=strict)
        case Kind.TIMESTAMP:
            return text_reason(Timestamp, data, TIME)
        case Kind.DURATION:
            return text_reason(Duration, data, DURATION)
        case Kind.ENUM:
            return _enum_reason(value, data, strict=strict)
        case _:
            return _int_reason(value, data, strict=strict)


def _number_reason(value: ValueType, data: Any, *, strict: bool) -> str:
    if isinstance(data, str):
        if data in ("NaN", "Infinity", "-Infinity"):
            return ""
        if strict:
            return f"expected a number, got text {_quoted(data)}"
        return "" if _is_number(data) else f"{_quoted(data)} is not a number"
    if not isinstance(data, int | float) or isinstance(data, bool):
        return f"expected a number, got {kind_of(data)}"
    return reason_against(value, data)


def _int_reason(value: ValueType, data: Any, *, strict: bool) -> str:
    number = data
    if isinstance(data, str):
        if strict and value.bits == 32:
            return f"expected an integer, got text {_quoted(data)}"
        if strict or not _is_exponential(data):
            return _digits_reason(value, data)
        # A float of 2^53 may be a rounded neighbour.
        if abs(float(data)) >= _EXACT:
            return f"{_quoted(data)} is beyond 2^53, where a number loses precision; send it as digits only"
        data = float(data)
    if isinstance(data, float):
        if not data.is_integer():
            return f"expected an integer, got {data}"
        if abs(data) > _EXACT:
            return f"{short(data)} is beyond 2^53, where a number loses precision; send the integer as text"
        number = int(data)
    elif not isinstance(data, int) or isinstance(data, bool):
        return f"expected an integer, got {kind_of(data)}"
    return reason_against_range(value, number)


def _enum_reason(value: ValueType, data: Any, *, strict: bool) -> str:
    if data is None and takes_null(value):
        return ""
    if not isinstance(data, str):
        reason = _int_reason(value, data, strict=strict)
        return f"expected a name of {value.name}, got {kind_of(data)}" if reason.startswith("expected") else reason
    assert value.descriptor.enum_type is not None
    names = list(value.descriptor.enum_type.values_by_name)
    if data in names or (not strict and is_digits(data) and not _digits_reason(value, data)):
        return ""
    return f"{_quoted(data)} is not a value of {value.name}{hint(data, names, 'known values:')}"


def json_scalar_reason(data: Any) -> str:
    """Return why a scalar cannot be in a Struct; an empty text if it can. Lists and objects are checked elsewhere."""
    if data is None or isinstance(data, bool):
        return ""
    if isinstance(data, str):
        return "" if is_text(data) else "not text: it has lone surrogates"
    if isinstance(data, int):
        if abs(data) > _EXACT and not _is_exact(data):
            return f"{short(data)} cannot be stored exactly in a double, as a Struct needs it; send it as text"
        return ""
    if isinstance(data, float):
        return "" if math.isfinite(data) else f"a Struct holds finite numbers, not {data}"
    return f"a Struct holds null, booleans, numbers, text, lists and objects, not {type(data).__name__}"


def is_text(data: str) -> bool:
    """Return whether UTF-8 can encode the text."""
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


def takes_null(value: ValueType) -> bool:
    return value.name in ("google.protobuf.Value", "google.protobuf.NullValue")


def key_reason(key: ValueType, name: Any) -> str:
    if not isinstance(name, str):
        return f"expected a str, as keys are in JSON, got {kind_of(name)}"
    match key.kind:
        case Kind.STRING:
            return "" if is_text(name) else "not text: it has lone surrogates"
        case Kind.BOOL:
            return "" if name in ("true", "false") else f"{_quoted(name)} is neither true nor false"
        case _:
            return _digits_reason(key, name)


def _digits_reason(value: ValueType, text: str) -> str:
    if not is_digits(text):
        return f"{_quoted(text)} is not an integer"
    return reason_against_range(value, int(text)) if len(text) <= 32 else f"{_quoted(text)} is out of range"


def _base64_reason(data: Any) -> str:
    if not isinstance(data, str):
        return f"expected base64 text, got {kind_of(data)}"
    try:
        text = data.encode("ascii").translate(_URL_SAFE).rstrip(b"=")
        base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return f"{_quoted(data)} is not base64"
    return ""


def text_reason(parser: type[Timestamp | Duration | FieldMask], data: Any, expected: str) -> str:
    if not isinstance(data, str):
        return f"expected {expected}, got {kind_of(data)}"
    try:
        fits = _TEXTS[parser].fullmatch(data) is not None
        parser().FromJsonString(data)
    except (ValueError, OverflowError):
        fits = False
    return "" if fits else f"{_quoted(data)} is not {expected}"


def is_digits(text: str) -> bool:
    """Return whether the text is an integer written as digits only."""
    return _INTEGER.fullmatch(text) is not None


def _is_exponential(text: str) -> bool:
    """Return whether the text is a number such as 1e5 or 1.0, which ProtoJSON accepts for an integer."""
    return _is_number(text) and not is_digits(text)


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


def kind_of(data: Any) -> str:
    """Name the JSON type of a value."""
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


def hint(wrong: str, known: Sequence[str], noun: str) -> str:
    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]}?"
    names = [*known[:12], *(["..."] if len(known) > 12 else [])]
    return f"; {noun} {', '.join(names)}" if names else ""
