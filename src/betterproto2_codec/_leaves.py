"""Explain why plain data is invalid for a scalar or enum type: the leaves of `_check`'s walk."""

from __future__ import annotations

import base64
import binascii
import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from ._faults import reason_against, reason_against_range
from ._model import Kind, ValueType
from ._runtime import short

_EXACT = 1 << 53
"""Beyond this, a double no longer distinguishes neighbouring integers."""

_INTEGER = re.compile(r"-?[0-9]+")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
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
        parser().FromJsonString(data)
    except (ValueError, OverflowError):
        return f"{_quoted(data)} is not {expected}"
    return ""


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
