"""From the unit of a request to a typed message: out of its body, or out of its payload by the contract's words.

In a payload, enum values are lower-case words without their prefix, and durations are seconds. The rest is ProtoJSON.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import betterproto2
from contextunity.gen.contextunity.core import ContextUnit
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from contextunity.core import codec, validation
from contextunity.core.errors import CodecError, Violation
from contextunity.worker.internal_fields import internal_in_data, internal_in_message
from contextunity.worker.status import FieldViolation, Reason, ServiceError, invalid

from ._call import Call
from ._words import Convert, Descriptor, elementwise, is_object, is_plain, word

__all__ = [
    "check_rules",
    "from_payload",
    "misfits",
    "payload_of",
    "read_payload",
    "read_request",
    "unpack",
]

M = TypeVar("M", bound=betterproto2.Message)

_KEY = re.compile(r'^\["([A-Za-z_]\w*)"\]')


def payload_of(call: Call) -> dict[str, Any]:
    """The payload as a plain dict; empty where there is none.

    Raises:
        ServiceError: it holds what a Struct may not, such as NaN.
    """
    if call.payload is not None:
        return call.payload
    if call.unit.payload is None:
        return {}
    try:
        return codec.struct_to_dict(call.unit.payload)
    except CodecError as error:
        raise misfits("payload", error.violations) from None


def unpack(unit: ContextUnit) -> betterproto2.Message | None:
    """The typed message in the body; None where there is none.

    Raises:
        ServiceError: it is of a type that nobody here knows, or its bytes are not of that type.
    """
    if unit.body is None:
        return None
    try:
        return codec.unpack_any(unit.body)
    except CodecError as error:
        violation = FieldViolation(field="body", description=str(error))
        raise ServiceError(Reason.BODY_INVALID, f"body: {error}", violations=[violation]) from None


def read_request(call: Call, message_class: type[M], prepare: Convert | None = None) -> M:
    """The typed request of a call, from its body or else from its payload, held against the rules of its proto.

    Args:
        call: whose unit has it.
        message_class: what it should hold.
        prepare: brings a payload of a deployed client into today's names.

    Raises:
        ServiceError: it does not fit; every violation is named.
    """
    payload = payload_of(call)
    message = unpack(call.unit)
    if message is not None:
        wanted = codec.full_name(message_class)
        if not isinstance(message, message_class):
            text = f"the body is a {codec.full_name(message)}; this method takes a {wanted}"
            raise ServiceError(Reason.BODY_INVALID, text, violations=[FieldViolation(field="body", description=text)])
        if payload:
            text = "the content stands in the body already; leave the payload empty"
            raise invalid(FieldViolation(field="payload", description=text))
        # What is packed inside is for a handler, and looked at with it.
        found = internal_in_message(message, into_packed=False)
        if found:
            raise misfits("body", found)
        check_rules(message, "body")
        return message
    if prepare is not None:
        payload = prepare(payload)
    return read_payload(payload, message_class)


def read_payload(payload: Mapping[str, Any], message_class: type[M]) -> M:
    """A typed request from a payload, held against the rules of its proto.

    Raises:
        ServiceError: it does not fit; every violation is named.
    """
    found = internal_in_data(payload, codec.proto_class(message_class).DESCRIPTOR, into_packed=False)
    if found:
        raise misfits("payload", found)
    try:
        message = from_payload(payload, message_class)
    except CodecError as error:
        raise misfits("payload", error.violations) from None
    check_rules(message, "payload")
    return message


def from_payload(data: Mapping[str, Any], message_class: type[M]) -> M:
    """A message from plain data as payloads have it; `as_payload` is the way back.

    Raises:
        CodecError: the data does not fit; every violation is named.
    """
    return codec.from_dict(message_class, _read(dict(data), codec.proto_class(message_class).DESCRIPTOR))


def check_rules(message: betterproto2.Message, where: str) -> Message:
    """Holds a message against the rules of its proto.

    Args:
        message: what came.
        where: path of the message in the request, for the violations.

    Returns:
        Google's form of the message, which it was held against them as.

    Raises:
        ServiceError: it breaks some; each is named.
    """
    checked = codec.to_proto(message)
    found = validation.violations(checked)
    if found:
        raise misfits(where, found)
    return checked


def misfits(where: str, violations: tuple[Violation, ...] | list[Violation]) -> ServiceError:
    """The error for violations of a message that stands at `where` in the request."""
    return invalid(*(FieldViolation(field=_place(where, each.path), description=each.reason) for each in violations))


def _place(where: str, path: str) -> str:
    if not path:
        return where
    # In a Struct all names are keys; those that could be fields are written like these.
    path = _KEY.sub(r"\1", path)
    return f"{where}{path}" if path.startswith("[") else f"{where}.{path}"


def _read(data: Any, descriptor: Descriptor) -> Any:
    converters = _readers(descriptor)
    if not converters or not is_object(data):
        return data
    return {key: converters[key](value) if key in converters else value for key, value in data.items()}


@functools.cache
def _readers(descriptor: Descriptor) -> Mapping[str, Convert]:
    made = dict[str, Convert]()
    for field in descriptor.fields:
        convert = _reader(field)
        if convert is not None:
            # A payload may use either name of a field, as ProtoJSON does.
            made[field.name] = made[field.json_name] = convert
    return made


def _reader(field: FieldDescriptor) -> Convert | None:
    if field.enum_type is not None:
        words = {word(value.name, field.enum_type): value.name for value in field.enum_type.values}
        one: Convert = functools.partial(_from_word, words)
    elif field.message_type is not None and field.message_type.full_name == "google.protobuf.Duration":
        one = _from_seconds
    elif field.message_type is not None and not is_plain(field.message_type):
        inner = field.message_type
        one = lambda value: _read(value, inner)  # noqa: E731 - one of three
    else:
        return None
    return elementwise(one) if field.is_repeated else one


def _from_word(words: Mapping[str, str], value: Any) -> Any:
    return words.get(value, value) if isinstance(value, str) else value


def _from_seconds(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return value
    return f"{value:.9f}s"
