"""Decodes units to typed messages, and encodes answers; no other file converts between the two."""

from __future__ import annotations

import functools
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import betterproto2
from contextunity.gen.contextunity.core import ContextUnit
from contextunity.gen.contextunity.core.context_unit_pb2 import ContextUnit as UnitMessage
from contextunity.gen.contextunity.worker import ExecuteCodeResult, RegisterSchedulesResult, StartWorkflowResult
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from betterproto2_codec.plain_data import (
    Convert,
    Descriptor,
    elementwise,
    is_list,
    is_object,
    is_plain,
    to_protojson,
    words_of,
)
from contextunity.core import codec, validation
from contextunity.core.errors import CodecError, Violation
from contextunity.worker.grpc_errors import FieldViolation, Reason, ServiceError, invalid
from contextunity.worker.internal_fields import internal_in_data, internal_in_message

__all__ = [
    "as_payload",
    "check_rules",
    "encode_answer",
    "from_payload",
    "invalid_fields",
    "payload_of",
    "read_payload",
    "read_request",
    "unpack",
]

_WHOLE = frozenset(
    codec.full_name(message) for message in (ExecuteCodeResult, RegisterSchedulesResult, StartWorkflowResult)
)
"""Messages whose payload has every field, even if it is empty, zero or absent, because deployed clients expect it."""

_PAYLOAD_LEVELS = 32
"""Levels of nesting that always fit into a payload: each takes up to three of protobuf's 100 levels."""

_NANOS = 1_000_000_000
_EMPTY = ContextUnit()


class UnitCall(Protocol):
    """The parts of a call that decoding and encoding need; see `Call`."""

    unit: ContextUnit
    payload: dict[str, Any] | None
    label: str
    unit_id: str
    trace_id: str


def encode_answer(call: UnitCall, message: betterproto2.Message) -> UnitMessage:
    """Return the unit that answers a call, as Google's message, with the answer in its body and its payload."""
    unit = UnitMessage(unit_id=str(uuid.uuid4()), trace_id=call.trace_id, parent_unit_id=call.unit_id)
    now = time.time_ns()
    created_at = unit.created_at
    # Python callers can hold only microseconds.
    created_at.seconds, created_at.nanos = now // _NANOS, now % _NANOS // 1000 * 1000
    security = call.unit.security
    if security is not None:
        # The answer has the same read and write scopes as the request.
        unit.security.SetInParent()
        unit.security.read.extend(security.read)
        unit.security.write.extend(security.write)
    provenance = unit.provenance
    provenance.extend(call.unit.provenance)
    provenance.append(call.label)
    unit.body.type_url = codec.type_url(codec.full_name(message))
    unit.body.value = codec.encode(message)
    unit.MergeFromString(_with_payload(as_payload(message)))
    return unit


def as_payload(message: betterproto2.Message) -> dict[str, Any]:
    """Return a message as the plain data of a payload."""
    data = codec.to_dict(message, preserving_proto_field_name=True)
    return _write(data, codec.proto_class(type(message)).DESCRIPTOR)


def _with_payload(data: dict[str, Any]) -> bytes:
    """Encode a unit with only a payload; data that is nested too deeply becomes null there, as the body has it."""
    try:
        return codec.encode_apart(_EMPTY, "payload", data)
    except CodecError:
        return codec.encode_apart(_EMPTY, "payload", _shallow(data, _PAYLOAD_LEVELS))


def _shallow(value: Any, levels: int) -> Any:
    if is_list(value):
        return [_shallow(each, levels - 1) for each in value] if levels else None
    if is_object(value):
        return {key: _shallow(each, levels - 1) for key, each in value.items()} if levels else None
    return value


def _write(data: dict[str, Any], descriptor: Descriptor) -> dict[str, Any]:
    made = dict[str, Any]()
    whole = descriptor.full_name in _WHOLE
    for field in descriptor.fields:
        if field.type == FieldDescriptor.TYPE_BYTES:
            continue
        if field.name in data:
            convert = _writer(field)
            made[field.name] = convert(data[field.name]) if convert else data[field.name]
        elif whole:
            made[field.name] = _empty(field)
    return made


def _empty(field: FieldDescriptor) -> Any:
    """What a payload has for a field that is not set."""
    if field.is_repeated:
        return []
    if field.message_type is not None:
        return None
    if field.enum_type is not None:
        return words_of(field.enum_type).word(field.enum_type.values_by_number[field.default_value].name)
    return field.default_value


@functools.cache
def _writer(field: FieldDescriptor) -> Convert | None:
    if field.enum_type is not None:
        words = words_of(field.enum_type)
        one: Convert = lambda name: words.word(name) if isinstance(name, str) else name  # noqa: E731 - one of four
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
    # Types with their own JSON form, such as Struct and Timestamp, have it under `value`.
    kind = str(data.get("@type", ""))
    return rest["value"] if ".google.protobuf." in kind.replace("/", ".") and rest.keys() == {"value"} else rest


M = TypeVar("M", bound=betterproto2.Message)

_KEY = re.compile(r'^\["([A-Za-z_]\w*)"\]')


def payload_of(call: UnitCall) -> dict[str, Any]:
    """Return the payload as a plain dict; empty if there is none.

    Raises:
        ServiceError: it contains values that a Struct may not have, such as NaN.
    """
    if call.payload is not None:
        return call.payload
    if call.unit.payload is None:
        return {}
    try:
        return codec.struct_to_dict(call.unit.payload)
    except CodecError as error:
        raise invalid_fields("payload", error.violations) from None


def unpack(unit: ContextUnit, takes: Callable[[], Iterable[str]]) -> betterproto2.Message | None:
    """The typed message in the body; None where there is none.

    Args:
        unit: what came.
        takes: gives the full names of the messages that may be there, for the error.

    Raises:
        ServiceError: its type is unknown, or its bytes cannot be decoded.
    """
    if unit.body is None:
        return None
    try:
        return codec.unpack_any(unit.body)
    except CodecError as error:
        known = ", ".join(sorted(takes())) or "none"
        text = f"{error}; types that can stand here: {known}"
        violation = FieldViolation(field="body", description=text)
        raise ServiceError(Reason.BODY_INVALID, f"body: {text}", violations=[violation]) from None


def read_request(call: UnitCall, message_class: type[M], prepare: Convert | None = None) -> M:
    """Decode the typed request of a call from its body or its payload, and check the rules of its proto.

    Args:
        call: the call.
        message_class: class of the request.
        prepare: converts the payload of a deployed client to the current names.

    Raises:
        ServiceError: the request is invalid; every violation is listed.
    """
    payload = payload_of(call)
    wanted = codec.full_name(message_class)
    message = unpack(call.unit, lambda: (wanted,))
    if message is not None:
        if not isinstance(message, message_class):
            text = f"the body is a {codec.full_name(message)}; this method takes a {wanted}"
            raise ServiceError(Reason.BODY_INVALID, text, violations=[FieldViolation(field="body", description=text)])
        if payload:
            text = "the content is in the body; leave the payload empty"
            raise invalid(FieldViolation(field="payload", description=text))
        # The handler checks the packed message.
        found = internal_in_message(message, into_packed=False)
        if found:
            raise invalid_fields("body", found)
        check_rules(message, "body")
        return message
    if prepare is not None:
        payload = prepare(payload)
    return read_payload(payload, message_class)


def read_payload(payload: Mapping[str, Any], message_class: type[M]) -> M:
    """Decode a typed request from a payload, and check the rules of its proto.

    Raises:
        ServiceError: the payload is invalid; every violation is listed.
    """
    found = internal_in_data(payload, codec.proto_class(message_class).DESCRIPTOR, into_packed=False)
    if found:
        raise invalid_fields("payload", found)
    try:
        message = from_payload(payload, message_class)
    except CodecError as error:
        raise invalid_fields("payload", error.violations) from None
    check_rules(message, "payload")
    return message


def from_payload(data: Mapping[str, Any], message_class: type[M]) -> M:
    """Decode a message from the plain data of a payload; `as_payload` is the reverse.

    Raises:
        CodecError: the data is invalid; every violation is listed.
    """
    convert = to_protojson(codec.proto_class(message_class).DESCRIPTOR, seconds=True)
    return codec.from_dict(message_class, data if convert is None else convert(dict(data)))


def check_rules(message: betterproto2.Message, where: str) -> Message:
    """Check a message against the rules of its proto.

    Args:
        message: the message.
        where: path of the message in the request, for violations.

    Returns:
        The message in Google's class.

    Raises:
        ServiceError: it violates rules; every violation is listed.
    """
    checked = codec.to_proto(message)
    found = validation.violations(checked)
    if found:
        raise invalid_fields(where, found)
    return checked


def invalid_fields(where: str, violations: tuple[Violation, ...] | list[Violation]) -> ServiceError:
    """Return the error for violations of a message at the path `where` of the request."""
    return invalid(*(FieldViolation(field=_place(where, each.path), description=each.reason) for each in violations))


def _place(where: str, path: str) -> str:
    if not path:
        return where
    # All names in a Struct are keys; write those that could be fields like fields.
    path = _KEY.sub(r"\1", path)
    if not where:
        return path
    return f"{where}{path}" if path.startswith("[") else f"{where}.{path}"
