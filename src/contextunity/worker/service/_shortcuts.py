"""Writes messages into payloads without going over ProtoJSON: the same content, field by field from Google's message.

What it writes is what `_forms` would. It knows the fields that answers are made of; at all others it gives up, and the
answer goes the long way.
"""

from __future__ import annotations

import base64
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from contextunity.gen.contextunity.worker import ExecuteCodeResult, RegisterSchedulesResult, StartWorkflowResult
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import Struct

from contextunity.core import codec
from contextunity.core.errors import CodecError

from ._words import Descriptor, is_plain, word

__all__ = ["PAYLOAD_LEVELS", "WHOLE", "NotPlainError", "write_payload"]

WHOLE = frozenset(
    codec.full_name(message) for message in (ExecuteCodeResult, RegisterSchedulesResult, StartWorkflowResult)
)
"""Messages whose payload has every field, as deployed clients expect, also where it is empty, zero or absent."""

PAYLOAD_LEVELS = 32
"""Objects and lists in each other that a payload can surely hold: each takes up to three of protobuf's 100 levels."""

_Put: TypeAlias = Callable[[Any, Any, int], None]
"""Writes a field's value into a google.protobuf.Value, which may hold so many levels more."""


class NotPlainError(Exception):
    """Something in the message is not written here; the Struct is left half done."""


def write_payload(message: Message, into: Struct) -> None:
    """Writes a message as a payload.

    Args:
        message: what to write.
        into: an empty Struct.

    Raises:
        NotPlainError: it holds something that goes the long way.
    """
    into.SetInParent()
    try:
        _fill(into.fields, message, False, PAYLOAD_LEVELS)
    # ValueError: a time out of range, or a number that no Struct holds; the long way tells which.
    except (CodecError, DecodeError, ValueError) as error:
        raise NotPlainError from error


def _fill(fields: Any, message: Message, packed: bool, levels: int) -> None:
    if not levels:
        raise NotPlainError
    puts, defaults = _table(type(message).DESCRIPTOR, packed)
    for field, value in codec.list_fields(message):
        entry = puts.get(field.number, _UNKNOWN)
        if entry is not None:
            name, put = entry
            put(fields[name], value, levels)
    for name, put, default in defaults:
        if name not in fields:
            put(fields[name], default, levels)


_Entry: TypeAlias = tuple[str, _Put] | None
_Table: TypeAlias = tuple[Mapping[int, _Entry], tuple[tuple[str, _Put, Any], ...]]


@functools.cache
def _table(descriptor: Descriptor, packed: bool) -> _Table:
    """How each field is written, by number, None where it is left out; and what is written of absent ones.

    Args:
        descriptor: the message's.
        packed: whether it was packed in another one, and so is told in ProtoJSON rather than in the words of payloads.
    """
    puts = {
        field.number: None
        if field.type == FieldDescriptor.TYPE_BYTES and not packed
        else (str(field.name), _put(field, packed))
        for field in descriptor.fields
    }
    if packed or descriptor.full_name not in WHOLE:
        return puts, ()
    defaults = [(field, puts[field.number]) for field in descriptor.fields]
    return puts, tuple((entry[0], *_default(field)) for field, entry in defaults if entry is not None)


def _default(field: FieldDescriptor) -> tuple[_Put, Any]:
    if field.is_repeated:
        return _put_list(_put_nothing), ()
    if field.message_type is not None:
        return _put_null, None
    value = field.default_value
    return (_put_text if isinstance(value, str) else _put_bool if isinstance(value, bool) else _put_number), value


def _put(field: FieldDescriptor, packed: bool) -> _Put:
    if field.message_type is not None:
        one = _put_message_of(field.message_type, packed)
    elif field.enum_type is not None:
        one = _put_enum(field.enum_type, packed)
    else:
        one = _SCALARS.get(field.cpp_type, _put_nothing)
        if field.type == FieldDescriptor.TYPE_BYTES:
            one = _put_bytes
    return _put_list(one) if field.is_repeated else one


def _put_message_of(message: Descriptor, packed: bool) -> _Put:
    match message.full_name:
        case "google.protobuf.Timestamp":
            return _put_json
        case "google.protobuf.Duration":
            return _put_json if packed else _put_seconds
        case "google.protobuf.Any":
            # One in a packed message keeps its type.
            return _put_nothing if packed else _put_packed
        case _ if is_plain(message):
            return _put_nothing
        case _:

            def put(target: Any, value: Any, levels: int) -> None:
                inner = target.struct_value
                inner.SetInParent()
                _fill(inner.fields, value, packed, levels - 1)

            return put


def _put_enum(enum: EnumDescriptor, packed: bool) -> _Put:
    if any(value.has_options for value in enum.values) or enum.full_name.startswith("google.protobuf."):
        return _put_nothing
    # The first of several names for a number is the one that JSON has.
    first = {value.number: value.name for value in reversed(enum.values)}
    names = {number: name if packed else word(name, enum) for number, name in first.items()}

    def put(target: Any, value: Any, _levels: int) -> None:
        name = names.get(value)
        if name is None:
            target.number_value = value
        else:
            target.string_value = name

    return put


def _put_list(one: _Put) -> _Put:
    def put(target: Any, values: Any, levels: int) -> None:
        if levels < 2:
            raise NotPlainError
        elements = target.list_value
        elements.SetInParent()
        for value in values:
            one(elements.values.add(), value, levels - 1)

    return put


def _put_packed(target: Any, value: PackedMessage, levels: int) -> None:
    name = value.type_url.rpartition("/")[2]
    if not name or name.startswith("google.protobuf."):
        # These have a JSON form of their own.
        raise NotPlainError
    inner = codec.proto_class(codec.message_class(name)).FromString(value.value)
    struct = target.struct_value
    struct.SetInParent()
    _fill(struct.fields, inner, True, levels - 1)


def _put_text(target: Any, value: Any, _levels: int) -> None:
    target.string_value = value


def _put_bytes(target: Any, value: Any, _levels: int) -> None:
    target.string_value = base64.b64encode(value).decode()


def _put_bool(target: Any, value: Any, _levels: int) -> None:
    target.bool_value = value


def _put_number(target: Any, value: Any, _levels: int) -> None:
    if not math.isfinite(value):
        raise NotPlainError
    target.number_value = value


def _put_digits(target: Any, value: Any, _levels: int) -> None:
    # As ProtoJSON has integers of 64 bits.
    target.string_value = str(value)


def _put_null(target: Any, _value: Any, _levels: int) -> None:
    target.null_value = 0


def _put_json(target: Any, value: Any, _levels: int) -> None:
    target.string_value = value.ToJsonString()


def _put_seconds(target: Any, value: Any, _levels: int) -> None:
    target.number_value = float(value.ToJsonString().removesuffix("s"))


def _put_nothing(_target: Any, _value: Any, _levels: int) -> None:
    raise NotPlainError


_UNKNOWN: tuple[str, _Put] = ("", _put_nothing)
"""What stands for extensions, which only messages of proto2 have."""
# Floats of 32 bits are not among them: their JSON has the shortest digits that tell them.
_SCALARS: dict[int, _Put] = {
    FieldDescriptor.CPPTYPE_STRING: _put_text,
    FieldDescriptor.CPPTYPE_BOOL: _put_bool,
    FieldDescriptor.CPPTYPE_INT32: _put_number,
    FieldDescriptor.CPPTYPE_UINT32: _put_number,
    FieldDescriptor.CPPTYPE_INT64: _put_digits,
    FieldDescriptor.CPPTYPE_UINT64: _put_digits,
    FieldDescriptor.CPPTYPE_DOUBLE: _put_number,
}
