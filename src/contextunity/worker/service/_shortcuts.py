"""Makes plain data for payloads of messages without going over ProtoJSON: the same content, field by field.

What it gives is what `_forms` would. It knows the fields that answers are made of; at all others it gives up, and the
answer goes the long way.
"""

from __future__ import annotations

import base64
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

from contextunity.gen.contextunity.worker import ExecuteCodeResult, RegisterSchedulesResult, StartWorkflowResult
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from contextunity.core import codec
from contextunity.core.errors import CodecError

from ._words import Descriptor, is_plain, word

__all__ = ["PAYLOAD_LEVELS", "WHOLE", "NotPlainError", "payload_data"]

WHOLE = frozenset(
    codec.full_name(message) for message in (ExecuteCodeResult, RegisterSchedulesResult, StartWorkflowResult)
)
"""Messages whose payload has every field, as deployed clients expect, also where it is empty, zero or absent."""

PAYLOAD_LEVELS = 32
"""Objects and lists in each other that a payload can surely hold: each takes up to three of protobuf's 100 levels."""

_Take: TypeAlias = Callable[[Any, int], Any]
"""Gives a field's value as a payload has it, which may hold so many levels more."""


class NotPlainError(Exception):
    """Something in the message is not for here."""


def payload_data(message: Message) -> dict[str, Any]:
    """A message as the plain data of a payload.

    Raises:
        NotPlainError: it holds something that goes the long way.
    """
    try:
        return _data(message, False, PAYLOAD_LEVELS)
    # ValueError: a time out of range; the long way tells which.
    except (CodecError, DecodeError, ValueError) as error:
        raise NotPlainError from error


def _data(message: Message, packed: bool, levels: int) -> dict[str, Any]:
    if not levels:
        raise NotPlainError
    takes, defaults = _table(type(message).DESCRIPTOR, packed)
    data = dict[str, Any]()
    for field, value in codec.list_fields(message):
        entry = takes.get(field.number, _UNKNOWN)
        if entry is not None:
            name, take = entry
            data[name] = take(value, levels)
    for name, make in defaults:
        if name not in data:
            data[name] = make()
    return data


_Entry: TypeAlias = tuple[str, _Take] | None
_Table: TypeAlias = tuple[Mapping[int, _Entry], tuple[tuple[str, Callable[[], Any]], ...]]


@functools.cache
def _table(descriptor: Descriptor, packed: bool) -> _Table:
    """How each field is taken, by number, None where it is left out; and what stands for absent ones.

    Args:
        descriptor: the message's.
        packed: whether it was packed in another one, and so is told in ProtoJSON rather than in the words of payloads.
    """
    takes = {
        field.number: None
        if field.type == FieldDescriptor.TYPE_BYTES and not packed
        else (str(field.name), _take(field, packed))
        for field in descriptor.fields
    }
    if packed or descriptor.full_name not in WHOLE:
        return takes, ()
    defaults = [(field, takes[field.number]) for field in descriptor.fields]
    return takes, tuple((entry[0], _default(field)) for field, entry in defaults if entry is not None)


def _default(field: FieldDescriptor) -> Callable[[], Any]:
    if field.is_repeated:
        return list[Any]
    value = None if field.message_type is not None else field.default_value
    return lambda: value


def _take(field: FieldDescriptor, packed: bool) -> _Take:
    if field.message_type is not None:
        one = _take_message_of(field.message_type, packed)
    elif field.enum_type is not None:
        one = _take_enum(field.enum_type, packed)
    else:
        one = _SCALARS.get(field.cpp_type, _refuse)
        if field.type == FieldDescriptor.TYPE_BYTES:
            one = _take_bytes
    return _take_list(one) if field.is_repeated else one


def _take_message_of(message: Descriptor, packed: bool) -> _Take:
    match message.full_name:
        case "google.protobuf.Timestamp":
            return _take_json
        case "google.protobuf.Duration":
            return _take_json if packed else _take_seconds
        case "google.protobuf.Any":
            # One in a packed message keeps its type.
            return _refuse if packed else _take_packed
        case _ if is_plain(message):
            return _refuse
        case _:
            return lambda value, levels: _data(value, packed, levels - 1)


def _take_enum(enum: EnumDescriptor, packed: bool) -> _Take:
    if any(value.has_options for value in enum.values) or enum.full_name.startswith("google.protobuf."):
        return _refuse
    # The first of several names for a number is the one that JSON has.
    first = {value.number: value.name for value in reversed(enum.values)}
    names = {number: name if packed else word(name, enum) for number, name in first.items()}
    return lambda value, _levels: names.get(value, value)


def _take_list(one: _Take) -> _Take:
    def take(values: Any, levels: int) -> list[Any]:
        if levels < 2:
            raise NotPlainError
        return [one(value, levels - 1) for value in values]

    return take


def _take_packed(value: PackedMessage, levels: int) -> dict[str, Any]:
    name = value.type_url.rpartition("/")[2]
    if not name or name.startswith("google.protobuf."):
        # These have a JSON form of their own.
        raise NotPlainError
    inner = codec.proto_class(codec.message_class(name)).FromString(value.value)
    return _data(inner, True, levels - 1)


def _take_as_it_is(value: Any, _levels: int) -> Any:
    return value


def _take_bytes(value: Any, _levels: int) -> str:
    return base64.b64encode(value).decode()


def _take_number(value: Any, _levels: int) -> Any:
    if not math.isfinite(value):
        raise NotPlainError
    return value


def _take_digits(value: Any, _levels: int) -> str:
    # As ProtoJSON has integers of 64 bits.
    return str(value)


def _take_json(value: Any, _levels: int) -> str:
    return cast("str", value.ToJsonString())


def _take_seconds(value: Any, _levels: int) -> float:
    return float(value.ToJsonString().removesuffix("s"))


def _refuse(_value: Any, _levels: int) -> Any:
    raise NotPlainError


_UNKNOWN: tuple[str, _Take] = ("", _refuse)
"""What stands for extensions, which only messages of proto2 have."""
# Floats of 32 bits are not among them: their JSON has the shortest digits that tell them.
_SCALARS: dict[int, _Take] = {
    FieldDescriptor.CPPTYPE_STRING: _take_as_it_is,
    FieldDescriptor.CPPTYPE_BOOL: _take_as_it_is,
    FieldDescriptor.CPPTYPE_INT32: _take_as_it_is,
    FieldDescriptor.CPPTYPE_UINT32: _take_as_it_is,
    FieldDescriptor.CPPTYPE_INT64: _take_digits,
    FieldDescriptor.CPPTYPE_UINT64: _take_digits,
    FieldDescriptor.CPPTYPE_DOUBLE: _take_number,
}
