"""The two forms of an answer: a typed message in the unit's body, the same as plain data in its payload.

In a payload, enum values are lower-case words without their prefix, durations are seconds, and a packed message is an
object without its type. The rest is ProtoJSON by proto names. `_shortcuts` knows what most answers are made of; what it
does not know goes over ProtoJSON, here.
"""

from __future__ import annotations

import functools
import os
import time
from typing import Any

import betterproto2
from contextunity.gen.contextunity.core import ContextUnit
from contextunity.gen.contextunity.core.context_unit_pb2 import ContextUnit as UnitMessage
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from contextunity.core import codec
from contextunity.core.errors import CodecError

from ._call import Call
from ._shortcuts import PAYLOAD_LEVELS, WHOLE, NotPlainError, payload_data
from ._words import Convert, Descriptor, elementwise, is_list, is_object, is_plain, word

__all__ = ["answered", "as_payload"]

_NANOS = 1_000_000_000
_EMPTY = ContextUnit()


def answered(call: Call, message: betterproto2.Message | Message) -> UnitMessage:
    """The unit that answers a call, as Google's message; so is `message`, where it was made as such."""
    sent = message if isinstance(message, Message) else codec.to_proto(message)
    unit = UnitMessage(unit_id=_new_id(), trace_id=call.trace_id, parent_unit_id=call.unit_id)
    now = time.time_ns()
    created_at = unit.created_at
    # As many digits as Python callers can hold.
    created_at.seconds, created_at.nanos = now // _NANOS, now % _NANOS // 1000 * 1000
    security = call.unit.security
    if security is not None:
        # What the request may be read and written by, the answer may.
        unit.security.SetInParent()
        unit.security.read.extend(security.read)
        unit.security.write.extend(security.write)
    provenance = unit.provenance
    provenance.extend(call.unit.provenance)
    provenance.append(call.label)
    body = unit.body
    body.type_url = codec.type_url(sent.DESCRIPTOR.full_name)
    body.value = sent.SerializeToString()
    try:
        data = payload_data(sent)
    except NotPlainError:
        data = as_payload(message if isinstance(message, betterproto2.Message) else _dataclass_of(message))
    unit.MergeFromString(_with_payload(data))
    return unit


def _new_id() -> str:
    """A new UUIDv4, without the object that `uuid` makes of it first: each answer has one."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def as_payload(message: betterproto2.Message) -> dict[str, Any]:
    """A message as the plain data of a payload."""
    data = codec.to_dict(message, preserving_proto_field_name=True)
    return _write(data, codec.proto_class(type(message)).DESCRIPTOR)


def _dataclass_of(message: Message) -> betterproto2.Message:
    return codec.from_proto(codec.message_class(message.DESCRIPTOR.full_name), message)


def _with_payload(data: dict[str, Any]) -> bytes:
    """A unit that has a payload alone; of what is nested deeper than one can be, nulls are left: the body has it."""
    try:
        return codec.encode_apart(_EMPTY, "payload", data)
    except CodecError:
        return codec.encode_apart(_EMPTY, "payload", _shallow(data, PAYLOAD_LEVELS))


def _shallow(value: Any, levels: int) -> Any:
    if is_list(value):
        return [_shallow(each, levels - 1) for each in value] if levels else None
    if is_object(value):
        return {key: _shallow(each, levels - 1) for key, each in value.items()} if levels else None
    return value


def _write(data: dict[str, Any], descriptor: Descriptor) -> dict[str, Any]:
    made = dict[str, Any]()
    whole = descriptor.full_name in WHOLE
    for field in descriptor.fields:
        if field.type == FieldDescriptor.TYPE_BYTES:
            continue
        if field.name in data:
            convert = _writer(field)
            made[field.name] = convert(data[field.name]) if convert else data[field.name]
        elif whole:
            made[field.name] = [] if field.is_repeated else None if field.message_type else field.default_value
    return made


@functools.cache
def _writer(field: FieldDescriptor) -> Convert | None:
    if field.enum_type is not None:
        enum = field.enum_type
        one: Convert = lambda name: word(name, enum) if isinstance(name, str) else name  # noqa: E731 - one of four
    elif field.message_type is None or field.message_type.GetOptions().map_entry:
        return None
    elif field.message_type.full_name == "google.protobuf.Any":
        one = _without_type
    elif field.message_type.full_name == "google.protobuf.Duration":
        one = lambda text: float(text.removesuffix("s"))  # noqa: E731
    elif is_plain(field.message_type):
        return None
    else:
        inner = field.message_type
        one = lambda value: _write(value, inner)  # noqa: E731
    return elementwise(one) if field.is_repeated else one


def _without_type(data: dict[str, Any]) -> Any:
    rest = {key: value for key, value in data.items() if key != "@type"}
    # Types with a JSON form of their own, such as Struct and Timestamp, have it under `value`.
    kind = str(data.get("@type", ""))
    return rest["value"] if ".google.protobuf." in kind.replace("/", ".") and rest.keys() == {"value"} else rest
