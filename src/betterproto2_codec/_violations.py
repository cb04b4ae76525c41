"""Find the value that made a compiled conversion fail, and its path. Slow, and only used after a failure.

It walks a message along its model and checks each value, so it also contains the rules that a value must obey.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import betterproto2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from . import _runtime
from ._classes import full_name
from ._model import FieldModel, Kind, MessageModel, ValueType, model_of
from ._runtime import MAX_DEPTH, InvalidValueError
from .errors import CodecError, Violation

_MISSING = object()


def join(path: str, name: str) -> str:
    """Append a field name to a path."""
    return f"{path}.{name}" if path else name


def item(path: str, key: object) -> str:
    """Append a list index or a map key to a path."""
    return f"{path}[{key!r}]" if not isinstance(key, str) else f'{path}["{key}"]'


def violation_in_message(message: betterproto2.Message) -> Violation | None:
    """Return the first violation that prevents encoding a dataclass instance, or None."""
    return next(_message(message, "", 0), None)


def violation_in_proto(pb: Any, model: MessageModel) -> Violation | None:
    """Return the first violation that prevents converting Google's message to a dataclass instance, or None."""
    return next(_proto(pb, model, ""), None)


def _message(message: betterproto2.Message, path: str, depth: int) -> Iterator[Violation]:
    if depth > MAX_DEPTH:
        yield Violation(_shorten(path), f"messages are nested more than {MAX_DEPTH} deep")
        return
    model = model_of(type(message))
    members: dict[str, list[str]] = {}
    for field in model.fields:
        value = getattr(message, field.attribute, _MISSING)
        if value is _MISSING:
            yield Violation(join(path, field.name), "the instance does not have this attribute")
            continue
        if field.oneof and value is not None:
            members.setdefault(field.oneof, []).append(field.name)
        yield from _field(field, value, join(path, field.name), depth)
    for oneof, names in members.items():
        if len(names) > 1:
            yield Violation(join(path, names[1]), f"oneof {oneof} can hold only one member, not {' and '.join(names)}")
    yield from _unknown(message, model, path)


def _unknown(message: Any, model: MessageModel, path: str) -> Iterator[Violation]:
    unknown: Any = getattr(message, "_unknown_fields", None)
    try:
        if unknown:
            _runtime.MERGE_FROM_STRING(model.proto(), unknown)
    except (DecodeError, TypeError) as error:
        yield Violation(join(path, "_unknown_fields"), f"not the bytes of fields: {error}")


def _field(field: FieldModel, value: Any, path: str, depth: int) -> Iterator[Violation]:
    if field.key is not None:
        yield from _map(field, field.key, value, path, depth)
    elif field.repeated:
        reason = _reason(_runtime.check_list, value)
        if reason:
            yield Violation(path, reason)
            return
        for index, element in enumerate(value):
            yield from _value(field.value, element, item(path, index), depth + 1)
    elif value is not None or not field.presence:
        yield from _value(field.value, value, path, depth + 1)


def _map(field: FieldModel, key: ValueType, value: Any, path: str, depth: int) -> Iterator[Violation]:
    reason = _reason(_runtime.check_dict, value)
    if reason:
        yield Violation(path, reason)
        return
    for name, element in value.items():
        for violation in _value(key, name, item(path, name), depth):
            yield Violation(violation.path, f"as a key: {violation.reason}")
        yield from _value(field.value, element, item(path, name), depth + 2)


def _value(value: ValueType, given: Any, path: str, depth: int) -> Iterator[Violation]:
    if value.kind is Kind.MESSAGE:
        try:
            fits = isinstance(given, betterproto2.Message) and full_name(given) == value.name
        except CodecError:
            fits = False
        if fits:
            yield from _message(given, path, depth)
        else:
            yield Violation(path, f"expected a {value.name}, got {type(given).__name__}")
        return
    reason = reason_against(value, given)
    if reason:
        yield Violation(path, reason)


def reason_against(value: ValueType, given: Any) -> str:
    """Return why a single value, not a message, is invalid for its type; an empty text if it is valid."""
    match value.kind:
        case Kind.WRAPPER:
            assert value.inner is not None
            return reason_against(value.inner, given)
        case Kind.STRING:
            return _reason(_runtime.check_str, given) or _reason(_utf8, given)
        case Kind.BYTES:
            return _reason(_runtime.check_bytes, given)
        case Kind.BOOL:
            return _reason(_runtime.check_bool, given)
        case Kind.DOUBLE:
            return _reason(_runtime.check_double, given)
        case Kind.FLOAT:
            return _reason(_runtime.check_float, given)
        case Kind.TIMESTAMP:
            return _reason(partial(_runtime.datetime_to_proto, pb=Timestamp()), given)
        case Kind.DURATION:
            return _reason(partial(_runtime.timedelta_to_proto, pb=Duration()), given)
        case _:
            return _reason(_runtime.check_int, given) or reason_against_range(value, given)


def reason_against_range(value: ValueType, number: int) -> str:
    """Return why an int is out of range for its type; an empty text if it is not."""
    if value.low <= number <= value.high:
        return ""
    kind = "an enum" if value.kind is Kind.ENUM else f"{'an int' if value.signed else 'a uint'}{value.bits}"
    return f"{_runtime.short(number)} is out of range for {kind}, {value.low} to {value.high}"


def _reason(check: Any, given: Any) -> str:
    try:
        check(given)
    except InvalidValueError as error:
        return str(error)
    return ""


def _utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidValueError(f"not text: a lone surrogate {text[error.start]!a} at index {error.start}") from None


def _proto(pb: Any, model: MessageModel, path: str) -> Iterator[Violation]:
    for field in model.fields:
        if field.presence and not _runtime.HAS_FIELD(pb, field.name):
            continue
        value, where = getattr(pb, field.name), join(path, field.name)
        if field.key is not None:
            for key in value:
                yield from _proto_value(field.value, value[key], item(where, key))
        elif field.repeated:
            for index, element in enumerate(value):
                yield from _proto_value(field.value, element, item(where, index))
        else:
            yield from _proto_value(field.value, value, where)


def _proto_value(value: ValueType, pb: Any, path: str) -> Iterator[Violation]:
    match value.kind:
        case Kind.MESSAGE:
            assert value.cls is not None
            yield from _proto(pb, model_of(value.cls), path)
        case Kind.TIMESTAMP | Kind.DURATION:
            convert = _runtime.datetime_from_proto if value.kind is Kind.TIMESTAMP else _runtime.timedelta_from_proto
            reason = _reason(convert, pb)
            if reason:
                yield Violation(path, reason)
        case _:
            pass


def _shorten(path: str) -> str:
    return path if len(path) <= 200 else f"{path[:100]}...{path[-80:]}"
